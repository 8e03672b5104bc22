//! Which items of one user's history stand near each other, as differences.
//!
//! A history is the distinct items of a user ordered by (first time, item); two of them are linked when at most `reach - 1` others
//! lie between, and only the latest `capacity` items count. The fact that must stay true: the links let out and not taken back
//! are exactly those of the current history, so inserting and removing an item cancel, in any order.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};

/// One user's history. `M` is an item with its place in the order: `(first time, item)`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "M: Ord + Deserialize<'de>"))]
pub struct History<M> {
    /// The latest items, ascending: these are linked.
    active: VecDeque<M>,
    /// What no longer fits, and comes back when something is removed.
    older: BTreeSet<M>,
}

impl<M> Default for History<M> {
    fn default() -> Self {
        Self { active: VecDeque::new(), older: BTreeSet::new() }
    }
}

/// How far links reach and how many items count.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub reach: usize,
    pub capacity: usize,
}

impl<M: Ord + Copy> History<M> {
    /// Puts an item in; `emit(a, b, diff)` hears of every link that comes (1) or goes (-1), once per pair, and of `(a, a)` for the
    /// item itself.
    pub fn insert(&mut self, item: M, limits: Limits, emit: &mut impl FnMut(M, M, i32)) {
        if self.active.len() == limits.capacity && self.active.front().is_some_and(|oldest| item < *oldest) {
            self.older.insert(item);
            return;
        }
        self.link(item, limits.reach, emit);
        if self.active.len() > limits.capacity {
            let oldest = *self.active.front().expect("more than capacity, so not empty");
            self.unlink(0, limits.reach, emit);
            self.older.insert(oldest);
        }
    }

    /// Takes an item out.
    pub fn remove(&mut self, item: M, limits: Limits, emit: &mut impl FnMut(M, M, i32)) {
        if self.older.remove(&item) {
            return;
        }
        let Ok(index) = self.active.binary_search(&item) else { return };
        self.unlink(index, limits.reach, emit);
        if let Some(back) = self.older.pop_last() {
            self.link(back, limits.reach, emit);
        }
    }

    /// The item that `is` describes, the latest first.
    pub fn find(&self, is: impl Fn(&M) -> bool) -> Option<M> {
        self.active.iter().rev().chain(&self.older).find(|m| is(m)).copied()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    fn link(&mut self, item: M, reach: usize, emit: &mut impl FnMut(M, M, i32)) {
        let index = self.active.partition_point(|m| *m < item);
        self.bridge(index, index, reach, -1, emit);
        self.active.insert(index, item);
        self.around(index, reach, 1, emit);
    }

    fn unlink(&mut self, index: usize, reach: usize, emit: &mut impl FnMut(M, M, i32)) {
        self.around(index, reach, -1, emit);
        self.active.remove(index);
        self.bridge(index, index, reach, 1, emit);
    }

    /// The links of the item at `index`.
    fn around(&self, index: usize, reach: usize, diff: i32, emit: &mut impl FnMut(M, M, i32)) {
        let item = self.active[index];
        emit(item, item, diff);
        let (from, to) = (index.saturating_sub(reach), (index + reach).min(self.active.len() - 1));
        for other in (from..=to).filter(|other| *other != index) {
            emit(self.active[other], item, diff);
        }
    }

    /// The links over the gap before `right` that exist only while nothing stands in it.
    fn bridge(&self, left: usize, right: usize, reach: usize, diff: i32, emit: &mut impl FnMut(M, M, i32)) {
        for l in left.saturating_sub(reach)..left {
            let r = l + reach;
            if r >= right && r < self.active.len() {
                emit(self.active[l], self.active[r], diff);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// The links of a set of items, written down plainly.
    fn plainly(items: &BTreeSet<u32>, limits: Limits) -> BTreeMap<(u32, u32), i32> {
        let latest: Vec<u32> = items.iter().rev().take(limits.capacity).rev().copied().collect();
        let mut links = BTreeMap::new();
        for (i, a) in latest.iter().enumerate() {
            for b in latest.iter().skip(i).take(limits.reach + 1) {
                links.insert((*a, *b), 1);
            }
        }
        links
    }

    proptest! {
        #[test]
        fn links_are_those_of_the_current_history(steps in prop::collection::vec((any::<bool>(), 0u32..40), 1..120), reach in 1usize..5, capacity in 1usize..12) {
            let limits = Limits { reach, capacity };
            let (mut history, mut items, mut links) = (History::default(), BTreeSet::new(), BTreeMap::new());
            for (insert, item) in steps {
                let mut emit = |a: u32, b: u32, diff: i32| {
                    *links.entry((a.min(b), a.max(b))).or_insert(0) += diff;
                };
                if insert && items.insert(item) {
                    history.insert(item, limits, &mut emit);
                } else if !insert && items.remove(&item) {
                    history.remove(item, limits, &mut emit);
                }
                links.retain(|_, n| *n != 0);
                prop_assert_eq!(&links, &plainly(&items, limits));
            }
        }
    }
}
