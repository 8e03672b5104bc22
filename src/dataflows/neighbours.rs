//! Item neighbours: how many users took both of two items near each other in their history.
//!
//! Two stages. `Pairs`, at the user, keeps histories and lets out links as differences; `Rows`, at the item, sums them and, at
//! its key group's turn, tells the nearest of every item whose list changed, and of every item once in
//! [`AGAIN_AFTER`](crate::operators::turns::AGAIN_AFTER), because a store lets go of what it does not hear of. The fact that must stay true: the list of an item is a
//! function of the counts, by count and then by item, and the counts are those of all current histories.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use timely::dataflow::StreamVec;

use super::NeighboursParams;
use super::ledger::UserDelta;
use crate::model::changes::Neighbour;
use crate::model::ids::{KEY_GROUPS, key_group};
use crate::model::time::Millis;
use crate::model::{Epoch, ItemId, UserId};
use crate::operators::link::{History, Limits};
use crate::operators::{Arrive, Clock, Durable, Route, Saver, Turns, Vault};
use crate::scoring::first::first;

/// A link from the row of `a`: `diff` more users took `b` near it. With `a == b`: took `a` at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    pub a: ItemId,
    pub b: ItemId,
    pub diff: i32,
}

/// The nearest of an item, and how many users took the item.
pub type Change = (ItemId, u32, Arc<Vec<Neighbour>>);

/// The stage: each user's changes in, the nearest of every item whose list changed out, when its key group has its turn.
pub fn neighbours<'scope>(
    deltas: StreamVec<'scope, u64, Arc<UserDelta>>,
    clock: &Clock,
    params: &super::Params,
    vault: &Vault,
) -> StreamVec<'scope, u64, Change> {
    let pairs = Pairs::new(&params.neighbours, params.ledger.history_per_user);
    let links = deltas.arrive().keep(clock, pairs, vault, Pairs::step);
    let state = Rows::new(&params.neighbours);
    links.route(|link| link.a.0).keep(clock, state, vault, Rows::step)
}

/// The histories of one worker's users.
pub struct Pairs {
    limits: Limits,
    /// Items by the time they were taken first.
    users: FxHashMap<UserId, History<(Millis, ItemId)>>,
}

impl Pairs {
    /// No histories yet. `capacity` is the length of a history.
    pub fn new(params: &NeighboursParams, capacity: usize) -> Self {
        Self { limits: Limits { reach: params.reach, capacity }, users: FxHashMap::default() }
    }

    /// One epoch.
    pub fn step(&mut self, _epoch: &Epoch, deltas: &mut Vec<Arc<UserDelta>>, out: &mut Vec<Link>) {
        let mut back = Vec::new();
        for delta in deltas.drain(..) {
            let history = self.users.entry(delta.user).or_default();
            // the links of one item's row lie together, so that the row is looked up once
            let mut emit = |other: (Millis, ItemId), item: (Millis, ItemId), diff: i32| {
                out.push(Link { a: item.1, b: other.1, diff });
                if other != item {
                    back.push(Link { a: other.1, b: item.1, diff });
                }
            };
            for (item, touch) in &delta.touches {
                let now = touch.and_then(|t| t.positive).map(|(first, _)| (first, *item));
                let before = history.find(|(_, known)| known == item);
                if before == now {
                    continue;
                }
                if let Some(before) = before {
                    history.remove(before, self.limits, &mut emit);
                }
                if let Some(now) = now {
                    history.insert(now, self.limits, &mut emit);
                }
            }
            if history.is_empty() {
                self.users.remove(&delta.user);
            }
            out.append(&mut back);
        }
    }
}

/// The row of one item.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Row {
    users: u32,
    counts: FxHashMap<ItemId, u32>,
    /// The smallest count in the list last told, when the list was full: changes below it cannot change the list.
    floor: u32,
    told: u64,
    dirty: bool,
}

impl Row {
    /// Adds a link; whether it can change the list last told.
    fn sum(&mut self, link: &Link) -> bool {
        if link.a == link.b {
            self.users = self.users.wrapping_add_signed(link.diff);
            return true;
        }
        let count = self.counts.entry(link.b).or_insert(0);
        let before = *count;
        *count = count.wrapping_add_signed(link.diff);
        let now = *count;
        if now == 0 {
            self.counts.remove(&link.b);
        }
        before.max(now) >= self.floor
    }
}

/// The rows of one worker's items, shared with a snapshot that is being written; then copied before they change.
pub struct Rows {
    kept: usize,
    rows: FxHashMap<ItemId, Arc<Row>>,
    /// Items whose row is dirty, each once, by key group.
    dirty: Vec<Vec<ItemId>>,
    turns: Turns,
}

impl Rows {
    /// No links yet.
    pub fn new(params: &NeighboursParams) -> Self {
        let dirty = vec![Vec::new(); KEY_GROUPS as usize];
        Self { kept: params.kept, rows: FxHashMap::default(), dirty, turns: Turns::default() }
    }

    /// One epoch.
    pub fn step(&mut self, epoch: &Epoch, links: &mut Vec<Link>, out: &mut Vec<Change>) {
        for of_row in links.chunk_by(|one, next| one.a == next.a) {
            self.sum(of_row[0].a, of_row);
        }
        links.clear();
        if epoch.retell.is_some() {
            self.again(|item| epoch.retells(item.0));
        }
        if epoch.tick() {
            let due: Vec<u16> = self.turns.due(epoch.clock_ms).collect();
            if !due.is_empty() {
                self.again(|item| due.contains(&key_group(item.0)));
            }
        }
        for group in epoch.turn.from..epoch.turn.to {
            self.tell(group, out);
        }
    }

    /// How many users took both, for every pair of this worker: what the oracle compares.
    pub fn counts(&self) -> impl Iterator<Item = (ItemId, ItemId, u32)> + '_ {
        self.rows.iter().flat_map(|(a, row)| row.counts.iter().map(|(b, n)| (*a, *b, *n)))
    }

    fn sum(&mut self, item: ItemId, links: &[Link]) {
        let row = Arc::make_mut(self.rows.entry(item).or_default());
        let mut matters = false;
        for link in links {
            matters |= row.sum(link);
        }
        if matters && !std::mem::replace(&mut row.dirty, true) {
            self.dirty[key_group(item.0) as usize].push(item);
        }
    }

    /// What is said once more is said at its next turn.
    fn again(&mut self, which: impl Fn(ItemId) -> bool) {
        let news = |row: &Row| row.told != 0 || !row.dirty; // no other row is copied for it
        for (item, row) in self.rows.iter_mut().filter(|(item, row)| which(**item) && news(row)) {
            let row = Arc::make_mut(row);
            row.told = 0;
            if !std::mem::replace(&mut row.dirty, true) {
                self.dirty[key_group(item.0) as usize].push(*item);
            }
        }
    }

    fn tell(&mut self, group: u16, out: &mut Vec<Change>) {
        let mut dirty = std::mem::take(&mut self.dirty[group as usize]);
        dirty.sort_unstable();
        for item in dirty {
            let row = Arc::make_mut(self.rows.get_mut(&item).expect("a dirty row exists"));
            row.dirty = false;
            let nearest = nearest(&row.counts, self.kept);
            row.floor = if nearest.len() < self.kept { 0 } else { nearest.last().map_or(0, |n| n.1) };
            let digest = digest(row.users, &nearest);
            if std::mem::replace(&mut row.told, digest) != digest {
                let list = nearest.iter().map(|(b, n)| Neighbour { item: *b, similarity_micro: share(*n, row.users), users: *n });
                out.push((item, row.users, Arc::new(list.collect())));
            }
            if row.users == 0 && row.counts.is_empty() {
                self.rows.remove(&item);
            }
        }
    }
}

/// The share of the users who took an item that also took the neighbour, in millionths.
fn share(both: u32, users: u32) -> i32 {
    (u64::from(both) * 1_000_000 / u64::from(users.max(both).max(1))) as i32
}

/// The `kept` largest counts, ties by item.
fn nearest(counts: &FxHashMap<ItemId, u32>, kept: usize) -> Vec<(ItemId, u32)> {
    let all = counts.iter().map(|(b, n)| (*b, *n)).collect();
    first(all, kept, |a: &(ItemId, u32), b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)))
}

fn digest(users: u32, nearest: &[(ItemId, u32)]) -> u64 {
    let mut bytes = Vec::with_capacity(8 + nearest.len() * 12);
    bytes.extend_from_slice(&users.to_le_bytes());
    for (item, count) in nearest {
        bytes.extend_from_slice(&item.0.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
    }
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

impl Durable for Pairs {
    const UID: &'static str = "pairs/1";

    fn save(&self, into: &mut Saver) {
        for (user, history) in self.users.clone() {
            into.own(0, user.0, move || (user, history));
        }
    }

    fn load(&mut self, _tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        let (user, history) = postcard::from_bytes(body)?;
        self.users.insert(user, history);
        Ok(())
    }
}

impl Durable for Rows {
    const UID: &'static str = "neighbours/2";

    fn save(&self, into: &mut Saver) {
        for (item, row) in self.rows.clone() {
            into.own(0, item.0, move || (item, row));
        }
        let turns = self.turns;
        into.shared(1, 0, move || turns);
    }

    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        if tag == 1 {
            self.turns = postcard::from_bytes(body)?;
            return Ok(());
        }
        let (item, row): (ItemId, Row) = postcard::from_bytes(body)?;
        self.dirty[key_group(item.0) as usize].extend(row.dirty.then_some(item));
        self.rows.insert(item, Arc::new(row));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::epoch::Turn;
    use crate::model::time::SECOND;
    use crate::operators::turns::AGAIN_AFTER;

    #[test]
    fn what_does_not_change_is_told_again_in_time() {
        let defaults: toml::Table = toml::from_str(include_str!("../../overdrive.toml")).expect("the defaults");
        let mut rows = Rows::new(&defaults["neighbours"].clone().try_into().expect("the section of neighbours"));
        let mut told = |clock, mut links: Vec<Link>| {
            let mut out = Vec::new();
            rows.step(&Epoch { clock_ms: clock, turn: Turn::ALL, ..Epoch::default() }, &mut links, &mut out);
            out.into_iter().map(|(item, users, nearest)| (item.0, users, nearest.len())).collect::<Vec<_>>()
        };
        let link = |a, b| Link { a: ItemId(a), b: ItemId(b), diff: 1 };
        let began = 1_763_600_000_000;
        let once = told(began, vec![link(1, 1), link(1, 2), link(2, 2), link(2, 1)]);
        assert_eq!(once, [(1, 1, 1), (2, 1, 1)]);
        assert_eq!(told(began + SECOND, vec![]), []);
        assert_eq!(told(began + AGAIN_AFTER, vec![]), once);
        assert_eq!(told(began + AGAIN_AFTER + SECOND, vec![]), []);
    }
}
