//! The strongest links of every item: whole rows of exact sums at the item's owner, of which the strongest are told.
//!
//! The fact that must stay true: what was told of a row and not taken back are its `kept` strongest links, by weight and then by
//! item: a function of the current sums, whatever way they came about.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use timely::dataflow::StreamVec;

use super::trails::{Link, Strength};
use crate::model::{Epoch, ItemId};
use crate::operators::{Clock, Durable, Route, Saver, Vault};

/// What changed of the told part of a row: new strengths, zero for a link that is there no more, and how many steps lead on from the
/// item in all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RowChange {
    pub item: ItemId,
    pub onward: u32,
    pub links: Vec<(ItemId, Strength)>,
}

/// The stage: differences of links in, what changed of the strongest out.
pub fn links<'scope>(
    links: StreamVec<'scope, u64, Link>,
    clock: &Clock,
    kept: usize,
    vault: &Vault,
) -> StreamVec<'scope, u64, Arc<RowChange>> {
    links.route(|link| link.a.0).keep(clock, Rows::new(kept), vault, Rows::step)
}

/// The place of a link in its row: the greater, the stronger.
type Rank = (i64, Reverse<ItemId>);

/// A link, how strong it was, and how strong it is.
type Moved = (ItemId, Strength, Strength);

#[derive(Clone, Debug, Default)]
struct Row {
    sums: FxHashMap<ItemId, Strength>,
    onward: u32,
    /// The links that were told, once there are more than are told.
    told: Option<BTreeSet<Rank>>,
}

/// The rows of one worker's items.
pub struct Rows {
    kept: usize,
    /// Shared with a snapshot that is being written; then copied before they change.
    rows: FxHashMap<ItemId, Arc<Row>>,
}

impl Rows {
    /// No links yet.
    pub fn new(kept: usize) -> Self {
        Self { kept, rows: FxHashMap::default() }
    }

    /// One epoch.
    pub fn step(&mut self, _epoch: &Epoch, links: &mut Vec<Link>, out: &mut Vec<Arc<RowChange>>) {
        links.sort_unstable_by_key(|link| (link.a, link.b));
        for of_row in links.chunk_by(|one, next| one.a == next.a) {
            let item = of_row[0].a;
            let row = Arc::make_mut(self.rows.entry(item).or_default());
            let links = row.take(of_row, self.kept);
            let onward = row.onward;
            if row.sums.is_empty() {
                self.rows.remove(&item);
            }
            out.push(Arc::new(RowChange { item, onward, links }));
        }
        links.clear();
    }
}

impl Row {
    /// Adds differences, sorted by item; answers what changed of the strongest.
    fn take(&mut self, links: &[Link], kept: usize) -> Vec<(ItemId, Strength)> {
        let mut moved: Vec<Moved> = Vec::with_capacity(links.len());
        for of_link in links.chunk_by(|one, next| one.b == next.b) {
            let item = of_link[0].b;
            let sum = self.sums.entry(item).or_default();
            let before = *sum;
            of_link.iter().for_each(|link| sum.add(link.strength));
            let after = *sum;
            self.onward = self.onward.wrapping_add_signed(after.m - before.m);
            if after.is_zero() {
                self.sums.remove(&item);
            }
            if before != after {
                moved.push((item, before, after));
            }
        }
        if self.told.is_none() && self.sums.len() <= kept {
            return moved.into_iter().map(|(item, _, after)| (item, after)).collect();
        }
        match &mut self.told {
            Some(told) if moved.iter().all(|(_, before, after)| after.weight() >= before.weight()) => risen(told, &moved, kept),
            _ => self.anew(&moved, kept),
        }
    }

    /// What changes of the told when nothing got weaker but by addition, or when the row was not full: all is looked at.
    fn anew(&mut self, moved: &[Moved], kept: usize) -> Vec<(ItemId, Strength)> {
        let earlier: BTreeMap<ItemId, Strength> = moved.iter().map(|(item, before, _)| (*item, *before)).collect();
        let was = |item: &ItemId| earlier.get(item).or(self.sums.get(item)).copied().unwrap_or_default();
        let known = self.sums.keys().chain(earlier.keys().filter(|item| !self.sums.contains_key(item)));
        let told_before: BTreeSet<ItemId> = match &self.told {
            Some(told) => told.iter().map(|(_, Reverse(item))| *item).collect(),
            None => known.filter(|item| !was(item).is_zero()).copied().collect(),
        };
        let mut ranks: Vec<Rank> = self.sums.iter().map(|(item, sum)| (sum.weight(), Reverse(*item))).collect();
        if ranks.len() > kept {
            ranks.select_nth_unstable_by(kept - 1, |a, b| b.cmp(a));
            ranks.truncate(kept);
        }
        let mut changes: BTreeMap<ItemId, Strength> = told_before.iter().map(|item| (*item, Strength::default())).collect();
        changes.extend(ranks.iter().map(|(_, Reverse(item))| (*item, self.sums[item])));
        changes.retain(|item, now| {
            let told = if told_before.contains(item) { was(item) } else { Strength::default() };
            told != *now
        });
        self.told = (self.sums.len() > kept).then(|| ranks.into_iter().collect());
        changes.into_iter().collect()
    }
}

/// Links that only grew, in a full row: each is told if it was, or if it is now stronger than the weakest that was.
fn risen(told: &mut BTreeSet<Rank>, moved: &[Moved], kept: usize) -> Vec<(ItemId, Strength)> {
    let mut changes: Vec<(ItemId, Strength)> = Vec::with_capacity(moved.len());
    let mut entered: Vec<ItemId> = Vec::new();
    let rank = |strength: &Strength, item: &ItemId| (strength.weight(), Reverse(*item));
    let weakest = told.first().copied();
    for (item, before, after) in moved {
        let was = weakest.is_some_and(|weakest| rank(before, item) >= weakest);
        if was {
            let moves = before.weight() != after.weight() && told.remove(&rank(before, item));
            moves.then(|| told.insert(rank(after, item)));
        } else if weakest.is_some_and(|weakest| rank(after, item) > weakest) {
            told.insert(rank(after, item));
            entered.push(*item);
        } else {
            continue;
        }
        changes.push((*item, *after));
    }
    while told.len() > kept {
        let (_, Reverse(leaves)) = told.pop_first().expect("more than are kept");
        changes.retain(|(item, _)| *item != leaves);
        changes.extend((!entered.contains(&leaves)).then_some((leaves, Strength::default())));
    }
    changes
}

impl Durable for Rows {
    const UID: &'static str = "links/2";

    fn save(&self, into: &mut Saver) {
        for (item, row) in self.rows.clone() {
            into.own(0, item.0, move || {
                let mut sums: Vec<(ItemId, Strength)> = row.sums.iter().map(|(b, sum)| (*b, *sum)).collect();
                sums.sort_unstable();
                (item, row.onward, sums)
            });
        }
    }

    fn load(&mut self, _tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        let (item, onward, sums): (ItemId, u32, Vec<(ItemId, Strength)>) = postcard::from_bytes(body)?;
        let mut row = Row { sums: sums.into_iter().collect(), onward, told: None };
        if row.sums.len() > self.kept {
            drop(row.anew(&[], self.kept));
        }
        self.rows.insert(item, Arc::new(row));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The strongest of a row by sorting all of it.
    fn plainly(sums: &BTreeMap<u64, Strength>, kept: usize) -> BTreeMap<ItemId, Strength> {
        let mut ranks: Vec<_> = sums.iter().map(|(b, s)| (Reverse(s.weight()), *b, *s)).collect();
        ranks.sort_unstable();
        ranks.truncate(kept);
        ranks.into_iter().map(|(_, b, s)| (ItemId(b), s)).collect()
    }

    proptest! {
        #[test]
        fn what_was_told_are_the_strongest(epochs in prop::collection::vec(prop::collection::vec((0u64..14, prop::bool::weighted(0.3)), 0..6), 1..60), kept in 1usize..8) {
            let (mut rows, mut out) = (Rows::new(kept), Vec::new());
            let (mut sums, mut told) = (BTreeMap::<u64, Strength>::new(), BTreeMap::<ItemId, Strength>::new());
            for acts in epochs {
                let mut links = Vec::new();
                for (b, back) in acts {
                    let of = sums.entry(b).or_default();
                    let sign = if back { -of.s.min(1) } else { 1 };
                    let strength = Strength { d: sign * 512, s: sign, m: 0 };
                    of.add(strength);
                    links.push(Link { a: ItemId(99), b: ItemId(b), strength });
                }
                sums.retain(|_, strength| !strength.is_zero());
                let epoch = Epoch::default();
                rows.step(&epoch, &mut links, &mut out);
                told.extend(out.drain(..).flat_map(|change| change.links.clone()));
                told.retain(|_, strength| !strength.is_zero());
                prop_assert_eq!(&told, &plainly(&sums, kept));
            }
        }
    }
}
