//! Keeps the order of scored members per group and tells the best of each group that changed.
//!
//! The list of a group is a function of the scores given, not of the order they came in: ties go to the smaller member.

use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Members by descending score.
#[derive(Clone, Debug)]
struct Group<M> {
    scores: FxHashMap<M, i64>,
    order: BTreeSet<(Reverse<i64>, M)>,
}

/// All groups of one worker.
#[derive(Clone, Debug)]
pub struct Top<G, M> {
    groups: BTreeMap<G, Group<M>>,
    changed: BTreeSet<G>,
}

impl<G, M> Default for Top<G, M> {
    fn default() -> Self {
        Self { groups: BTreeMap::new(), changed: BTreeSet::new() }
    }
}

impl<G: Ord + Clone, M: Ord + Copy + std::hash::Hash> Top<G, M> {
    /// Sets the score of a member, or with `None` takes the member out.
    pub fn set(&mut self, group: &G, member: M, score: Option<i64>) {
        if score.is_some() && !self.groups.contains_key(group) {
            self.groups.insert(group.clone(), Group { scores: FxHashMap::default(), order: BTreeSet::new() });
        }
        let Some(of) = self.groups.get_mut(group) else { return };
        let old = match score {
            Some(score) => of.scores.insert(member, score),
            None => of.scores.remove(&member),
        };
        if old == score {
            return;
        }
        if let Some(old) = old {
            of.order.remove(&(Reverse(old), member));
        }
        if let Some(score) = score {
            of.order.insert((Reverse(score), member));
        }
        self.changed.insert(group.clone());
    }

    /// Every member with its score.
    pub fn members(&self) -> impl Iterator<Item = (G, M, i64)> + '_ {
        self.groups.iter().flat_map(|(group, of)| of.order.iter().map(move |(score, member)| (group.clone(), *member, score.0)))
    }

    /// The groups for which `again` says so change, whatever was told.
    pub fn again(&mut self, again: impl Fn(&G) -> bool) {
        self.changed.extend(self.groups.keys().filter(|group| again(group)).cloned());
    }

    /// The groups of a range change, whatever was told.
    pub fn again_within(&mut self, range: std::ops::Range<G>) {
        self.changed.extend(self.groups.range(range).map(|(group, _)| group.clone()));
    }

    /// The groups that changed since the last call, each with its `n` best, best first.
    pub fn changed(&mut self, n: usize) -> Vec<(G, Vec<(M, i64)>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|group| (group.clone(), self.told(&group, n))).collect()
    }

    /// The best of a group, which goes if nothing is left of it.
    fn told(&mut self, group: &G, n: usize) -> Vec<(M, i64)> {
        let best: Vec<_> =
            self.groups.get(group).map_or(Vec::new(), |of| of.order.iter().take(n).map(|(s, m)| (*m, s.0)).collect());
        if self.groups.get(group).is_some_and(|of| of.order.is_empty()) {
            self.groups.remove(group);
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_smaller_and_a_list_that_empties_is_told() {
        let mut top = Top::default();
        for (m, s) in [(3u64, 5), (1, 5), (2, 9)] {
            top.set(&"g", m, Some(s));
        }
        assert_eq!(top.changed(2), vec![("g", vec![(2, 9), (1, 5)])]);
        top.set(&"g", 2, Some(9));
        assert_eq!(top.changed(2), vec![], "nothing changed");
        for m in [1, 2, 3] {
            top.set(&"g", m, None);
        }
        assert_eq!(top.changed(2), vec![("g", vec![])]);
    }

    #[test]
    fn groups_without_members_are_not_kept() {
        let mut top = Top::default();
        top.set(&"never", 1u64, None);
        top.set(&"stays", 1, Some(5));
        top.set(&"goes", 1, Some(5));
        assert!(top.groups.keys().eq([&"goes", &"stays"]), "a group comes with a member");
        drop(top.changed(1));
        top.set(&"goes", 1, None);
        assert_eq!(top.changed(0), vec![("goes", vec![])]);
        assert!(top.groups.keys().eq([&"stays"]), "a list of none is not an empty group");
        top.set(&"stays", 1, Some(6));
        assert_eq!(top.changed(0), vec![("stays", vec![])]);
        assert!(top.groups.keys().eq([&"stays"]));
    }
}
