//! Each user's trail: the positive records in the order of their time, and what every step of it counts for.
//!
//! A step to an item counts once for the item; it links the item with what the user took before: with the last item (`m`, at every
//! step), and, the first time the user takes the item, with the latest twenty distinct items (`d` directed and by nearness, `s`
//! both ways). The fact that must stay true: what was let out and not taken back is that of the trail as it is now, so a record
//! that comes late, or goes, changes just what it would have changed in its place.

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

use timely::dataflow::StreamVec;
use timely::dataflow::operators::OkErr;

use super::ledger::{Update, UserDelta};
use crate::model::time::Millis;
use crate::model::{Epoch, ItemId, Origin, UserId};
use crate::operators::{Arrive, Clock, Durable, Saver, Vault};

/// How many distinct items a ring holds.
pub const RING: usize = 50;
/// How many of them a first step is linked with.
const NEAR: usize = 20;
/// What the nearest link weighs, so that sums are integers.
pub const ONE: f64 = 1024.0;

/// One more (or with -1 one less) step to an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Count {
    pub item: ItemId,
    pub at: Millis,
    pub diff: i32,
}

/// What the row of `a` says of `b`, as differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    pub a: ItemId,
    pub b: ItemId,
    pub strength: Strength,
}

/// How strongly two items are linked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Strength {
    /// First steps from one to the other, each by one over the root of its distance, in 1/1024.
    pub d: i32,
    /// First steps in either direction.
    pub s: i32,
    /// Steps from one directly to the other.
    pub m: i32,
}

impl Strength {
    /// Adds another one.
    pub fn add(&mut self, other: Self) {
        self.d += other.d;
        self.s += other.s;
        self.m += other.m;
    }

    /// Whether nothing is left.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// What decides which links of a row are the strongest.
    pub fn weight(&self) -> i64 {
        i64::from(self.d) + (i64::from(self.s) + i64::from(self.m)) * ONE as i64
    }
}

/// The end of a trail: what a refresh needs of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ring {
    /// Distinct items, the latest first.
    pub items: Vec<ItemId>,
    /// Steps of the whole trail.
    pub steps: u32,
    /// When the last one was.
    pub last: Option<Millis>,
}

/// What the stage lets out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Output {
    Ring(UserId, Arc<Ring>),
    Count(Count),
    Link(Link),
}

/// Rings that changed, counts and links.
type Streams<'scope> = (StreamVec<'scope, u64, (UserId, Arc<Ring>)>, StreamVec<'scope, u64, Count>, StreamVec<'scope, u64, Link>);

/// The stage: each user's changes in, the ends of the trails that changed and what their steps count for out.
pub fn trails<'scope>(deltas: StreamVec<'scope, u64, Arc<UserDelta>>, clock: &Clock, vault: &Vault) -> Streams<'scope> {
    let out = deltas.arrive().keep(clock, Trails::default(), vault, Trails::step);
    let (rings, others): (StreamVec<u64, (UserId, Arc<Ring>)>, StreamVec<u64, Output>) = out.ok_err(|output| match output {
        Output::Ring(user, ring) => Ok((user, ring)),
        other => Err(other),
    });
    let (counts, links): (StreamVec<u64, Count>, StreamVec<u64, Link>) = others.ok_err(|output| match output {
        Output::Count(count) => Ok(count),
        Output::Link(link) => Err(link),
        Output::Ring(..) => unreachable!("rings were taken out above"),
    });
    (rings, counts, links)
}

/// A step: its place in the order, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Step {
    at: Millis,
    partition: u32,
    offset: u64,
    item: ItemId,
}

impl Step {
    fn of(update: &Update) -> Self {
        let Origin { partition, offset, .. } = update.origin;
        Self { at: update.at, partition, offset, item: update.item }
    }
}

/// The trail of one user.
#[derive(Clone, Debug, Default)]
struct Trail {
    steps: VecDeque<Step>,
    /// How often each item was taken.
    times: FxHashMap<ItemId, u32>,
    /// After the last step.
    ring: Latest,
}

/// Distinct items, the latest first.
#[derive(Clone, Debug, Default, PartialEq)]
struct Latest(Vec<ItemId>);

impl Latest {
    fn take(&mut self, item: ItemId) {
        match self.0.iter().position(|known| *known == item) {
            Some(place) => self.0[..=place].rotate_right(1),
            None => {
                self.0.truncate(RING - 1);
                self.0.insert(0, item);
            }
        }
    }

    /// What a step to `item` from here links, once for each pair of rows it changes.
    fn links(&self, item: ItemId, first: bool, mut emit: impl FnMut(usize, Link)) {
        let reach = if first { NEAR } else { 1 };
        for (back, from) in self.0.iter().take(reach).enumerate().filter(|(_, from)| **from != item) {
            let d = if first { (ONE / ((back + 1) as f64).sqrt()).round() as i32 } else { 0 };
            let (s, m) = (i32::from(first), i32::from(back == 0));
            emit(back, Link { a: *from, b: item, strength: Strength { d, s, m } });
        }
    }
}

impl Trail {
    fn add(&mut self, step: Step, out: &mut Vec<Output>) {
        out.push(Output::Count(Count { item: step.item, at: step.at, diff: 1 }));
        if self.steps.back().is_none_or(|last| *last < step) {
            let first = !self.times.contains_key(&step.item);
            self.ring.links(step.item, first, |_, link| let_out(link, 1, out));
            self.ring.take(step.item);
            self.steps.push_back(step);
        } else {
            let place = self.steps.partition_point(|known| *known < step);
            self.steps.insert(place, step);
            self.differ(place, 1, out);
        }
        *self.times.entry(step.item).or_insert(0) += 1;
    }

    fn remove(&mut self, step: Step, out: &mut Vec<Output>) {
        let Ok(place) = self.steps.binary_search(&step) else { return };
        out.push(Output::Count(Count { item: step.item, at: step.at, diff: -1 }));
        let times = self.times.get_mut(&step.item).expect("every step is counted");
        *times -= 1;
        if *times == 0 {
            self.times.remove(&step.item);
        }
        self.differ(place, -1, out);
        self.steps.remove(place);
        self.ring = self.before(self.steps.len());
    }

    /// The ring before the step at `place`.
    fn before(&self, place: usize) -> Latest {
        let mut ring = Vec::new();
        for step in self.steps.range(..place).rev() {
            if ring.len() == RING {
                break;
            }
            if !ring.contains(&step.item) {
                ring.push(step.item);
            }
        }
        Latest(ring)
    }

    /// Lets out (`sign` 1) or takes back (-1) what the trail with the step at `place` counts for beyond the trail without it. The
    /// two are walked side by side until nothing tells them apart.
    fn differ(&mut self, place: usize, sign: i32, out: &mut Vec<Output>) {
        let item = self.steps[place].item;
        let mut taken: FxHashSet<ItemId> = self.steps.range(..place).map(|step| step.item).collect();
        let mut with = self.before(place);
        let mut without = with.clone();
        let first = taken.insert(item);
        let mut first_is_later = first && self.steps.range(place + 1..).any(|step| step.item == item);
        with.links(item, first, |_, link| let_out(link, sign, out));
        with.take(item);
        for step in self.steps.range(place + 1..) {
            if with == without && !first_is_later {
                return;
            }
            let first = taken.insert(step.item);
            let first_without = first || (step.item == item && std::mem::take(&mut first_is_later));
            exchange([(&with, first), (&without, first_without)], step.item, sign, out);
            with.take(step.item);
            without.take(step.item);
        }
        self.ring = with;
    }

    fn told(&self) -> Arc<Ring> {
        let last = self.steps.back().map(|step| step.at);
        Arc::new(Ring { items: self.ring.0.clone(), steps: self.steps.len() as u32, last })
    }
}

/// A step to `item` seen from two rings, and whether it is the first to the item: what the one links and the other does not.
fn exchange([with, without]: [(&Latest, bool); 2], item: ItemId, sign: i32, out: &mut Vec<Output>) {
    let of = |(ring, first): (&Latest, bool)| {
        let mut links = [None; NEAR];
        ring.links(item, first, |back, link| links[back] = Some(link));
        links
    };
    for (with, without) in of(with).into_iter().zip(of(without)).filter(|(with, without)| with != without) {
        with.into_iter().for_each(|link| let_out(link, sign, out));
        without.into_iter().for_each(|link| let_out(link, -sign, out));
    }
}

fn let_out(Link { a, b, strength: Strength { d, s, m } }: Link, sign: i32, out: &mut Vec<Output>) {
    out.push(Output::Link(Link { a, b, strength: Strength { d: d * sign, s: s * sign, m: m * sign } }));
    if s != 0 {
        out.push(Output::Link(Link { a: b, b: a, strength: Strength { d: 0, s: s * sign, m: 0 } }));
    }
}

/// The trails of one worker's users: shared with a snapshot that is being written; then copied before they change.
#[derive(Default)]
pub struct Trails(FxHashMap<UserId, Arc<Trail>>);

impl Trails {
    /// One epoch.
    pub fn step(&mut self, _epoch: &Epoch, deltas: &mut Vec<Arc<UserDelta>>, out: &mut Vec<Output>) {
        for delta in deltas.drain(..) {
            let mut updates = delta.updates.iter().filter(|update| update.kind.is_positive()).peekable();
            if updates.peek().is_none() {
                continue;
            }
            let trail = Arc::make_mut(self.0.entry(delta.user).or_default());
            for update in updates {
                match update.diff {
                    1.. => trail.add(Step::of(update), out),
                    _ => trail.remove(Step::of(update), out),
                }
            }
            out.push(Output::Ring(delta.user, trail.told()));
            if trail.steps.is_empty() {
                self.0.remove(&delta.user);
            }
        }
    }
}

impl Durable for Trails {
    const UID: &'static str = "trails/1";

    fn save(&self, into: &mut Saver) {
        for (user, trail) in self.0.clone() {
            into.own(0, user.0, move || (user, trail.steps.clone()));
        }
    }

    fn load(&mut self, _tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        let (user, steps): (UserId, VecDeque<Step>) = postcard::from_bytes(body)?;
        let mut trail = Trail { steps, ..Trail::default() };
        trail.steps.iter().for_each(|step| *trail.times.entry(step.item).or_insert(0) += 1);
        trail.ring = trail.before(trail.steps.len());
        self.0.insert(user, Arc::new(trail));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Sums = BTreeMap<(ItemId, ItemId), Strength>;

    /// What a trail counts for, written down plainly.
    fn plainly(steps: &[Step]) -> (Sums, BTreeMap<ItemId, i32>) {
        let (mut sums, mut counts, mut ring) = (Sums::new(), BTreeMap::new(), Vec::<ItemId>::new());
        for Step { item, .. } in steps {
            let first = !counts.contains_key(item);
            *counts.entry(*item).or_insert(0) += 1;
            for (k, j) in ring.iter().enumerate().filter(|(_, j)| *j != item) {
                let near = first && k < 20;
                let d = if near { (1024.0 / ((k + 1) as f64).sqrt()).round() as i32 } else { 0 };
                let s = i32::from(near);
                sums.entry((*j, *item)).or_default().add(Strength { d, s, m: i32::from(k == 0) });
                sums.entry((*item, *j)).or_default().add(Strength { d: 0, s, m: 0 });
            }
            ring.retain(|known| known != item);
            ring.insert(0, *item);
            ring.truncate(50);
        }
        sums.retain(|_, strength| !strength.is_zero());
        (sums, counts)
    }

    fn take(out: &mut Vec<Output>, sums: &mut Sums, counts: &mut BTreeMap<ItemId, i32>) {
        for output in out.drain(..) {
            match output {
                Output::Link(link) => sums.entry((link.a, link.b)).or_default().add(link.strength),
                Output::Count(count) => *counts.entry(count.item).or_insert(0) += count.diff,
                Output::Ring(..) => {}
            }
        }
        sums.retain(|_, strength| !strength.is_zero());
        counts.retain(|_, n| *n != 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_let_out_is_that_of_the_trail_as_it_is(acts in prop::collection::vec((prop::bool::weighted(0.7), 0i64..200, 0u64..70), 1..160)) {
            let (mut trail, mut steps, mut out) = (Trail::default(), Vec::<Step>::new(), Vec::new());
            let (mut sums, mut counts) = (Sums::new(), BTreeMap::new());
            for (n, (add, at, item)) in acts.into_iter().enumerate() {
                if add || steps.is_empty() {
                    let at = if at < 100 { 200 + n as i64 } else { at }; // half of them at the end
                    let step = Step { at, partition: 0, offset: n as u64, item: ItemId(item) };
                    steps.insert(steps.partition_point(|known| *known < step), step);
                    trail.add(step, &mut out);
                } else {
                    let step = steps.remove(at as usize % steps.len());
                    trail.remove(step, &mut out);
                }
                take(&mut out, &mut sums, &mut counts);
                prop_assert_eq!((&sums, &counts), (&plainly(&steps).0, &plainly(&steps).1));
                prop_assert_eq!(&trail.ring, &trail.before(steps.len()));
            }
        }
    }
}
