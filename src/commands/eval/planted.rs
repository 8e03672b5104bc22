//! What the maker of a stream planted in it, by its `truth.json`, and how much of it is found: which items follow which, and how soon
//! those whose taste broke are served as well as before. Pure.
//!
//! What must stay true: who is compared before and after a break has rows enough on both sides of it, so the same users are counted in
//! every figure.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::metrics::Ranked;
use super::split::Shown;
use super::stream::Stream;
use crate::model::time::Millis;
use crate::model::{ItemId, UserId};

/// What only the maker knows.
#[derive(Debug, Deserialize)]
pub struct Truth {
    change_points_ms: Vec<Millis>,
    changed_users: Vec<Vec<String>>,
    companions: BTreeMap<String, Vec<String>>,
}

impl Truth {
    /// Of the folder a stream was generated into.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let file = folder.join("truth.json");
        let bytes = std::fs::read(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        let wrong = |e| format!("{}: {e}; write it by `overdrive generate`", file.display());
        serde_json::from_slice(&bytes).map_err(wrong)
    }
}

/// Items that were played at least so often have their companions looked for.
const PLAYS: usize = 200;
/// How many of those that are said to follow an item are looked at.
const LOOKED_AT: usize = 5;

/// How much of what was planted is found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Found {
    /// Items with enough plays, and how many of the five that are said to follow each were planted, in 1.
    pub items: usize,
    pub companions_precision5: f64,
    /// HR@10 of those whose taste broke, and of all others over the same stretches.
    pub changed: Served,
    pub others: Served,
    /// What those have of their former HR@10 from the 11th to the 20th row after the break, in 1, …
    pub regained: f64,
    /// … and beside what the others have of theirs: everyone runs out of the items they like most.
    pub regained_beside_others: f64,
}

/// HR@10 around a break.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Served {
    /// Users with enough rows around a break, each break counted.
    pub users: usize,
    /// Over the last ten tested rows before it.
    pub before: f64,
    /// Over the first five after it, the next five, and the ten after those.
    pub first_5: f64,
    pub next_5: f64,
    pub next_10: f64,
}

/// The items whose companions are looked for.
pub fn sought(stream: &Stream, truth: &Truth) -> Vec<ItemId> {
    let mut plays: BTreeMap<ItemId, usize> = BTreeMap::new();
    for row in stream.rows.iter().filter(|row| row.kind_is_tested) {
        *plays.entry(row.event.item).or_default() += 1;
    }
    let known = truth.companions.keys().map(|name| ItemId::of(name));
    known.filter(|item| plays.get(item).is_some_and(|plays| *plays >= PLAYS)).collect()
}

/// Measures: `after` says which items follow one, best first.
pub fn found(stream: &Stream, ranked: &[Ranked], truth: &Truth, after: &BTreeMap<ItemId, Vec<Shown>>) -> Found {
    let planted: BTreeMap<ItemId, BTreeSet<ItemId>> =
        truth.companions.iter().map(|(item, of)| (ItemId::of(item), of.iter().map(|name| ItemId::of(name)).collect())).collect();
    let hits =
        |(item, shown): (&ItemId, &Vec<Shown>)| shown.iter().take(LOOKED_AT).filter(|(to, _)| planted[item].contains(to)).count();
    let all = (after.len() * LOOKED_AT).max(1) as f64;
    let (changed, others) = around_breaks(stream, ranked, truth);
    let share = |of: f64, whole: f64| if whole > 0.0 { of / whole } else { 0.0 };
    let kept = |served: &Served| share(served.next_10, served.before);
    Found {
        items: after.len(),
        companions_precision5: after.iter().map(hits).sum::<usize>() as f64 / all,
        regained: kept(&changed),
        regained_beside_others: share(kept(&changed), kept(&others)),
        changed,
        others,
    }
}

/// Hits of tested rows by user, in order.
type Hits = BTreeMap<UserId, Vec<(Millis, f64)>>;

fn around_breaks(stream: &Stream, ranked: &[Ranked], truth: &Truth) -> (Served, Served) {
    let mut hits = Hits::new();
    for r in ranked {
        let event = &stream.rows[r.row].event;
        hits.entry(event.user).or_default().push((event.at, r.hit(10)));
    }
    let (mut changed, mut others) = (Served::default(), Served::default());
    for (n, (at, users)) in truth.change_points_ms.iter().zip(&truth.changed_users).enumerate() {
        let users: BTreeSet<UserId> = users.iter().map(|name| UserId::of(name)).collect();
        let until = truth.change_points_ms.get(n + 1).copied().unwrap_or(Millis::MAX);
        for (user, of) in &hits {
            let served = if users.contains(user) { &mut changed } else { &mut others };
            served.add(of, *at, until);
        }
    }
    (changed.mean(), others.mean())
}

impl Served {
    /// Adds a user who has ten rows before the break and twenty after it, before the next.
    fn add(&mut self, hits: &[(Millis, f64)], at: Millis, until: Millis) {
        let (broken, end) = (hits.partition_point(|(t, _)| *t < at), hits.partition_point(|(t, _)| *t < until));
        if broken < 10 || end < broken + 20 {
            return;
        }
        let mean = |from: usize, to: usize| hits[from..to].iter().map(|(_, hit)| hit).sum::<f64>() / (to - from) as f64;
        self.users += 1;
        self.before += mean(broken - 10, broken);
        self.first_5 += mean(broken, broken + 5);
        self.next_5 += mean(broken + 5, broken + 10);
        self.next_10 += mean(broken + 10, broken + 20);
    }

    fn mean(mut self) -> Self {
        let users = self.users.max(1) as f64;
        [&mut self.before, &mut self.first_5, &mut self.next_5, &mut self.next_10].into_iter().for_each(|sum| *sum /= users);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::eval::metrics::tests::stream;

    /// Two users, who take turns: one breaks at row 40 and is found again from the 6th row after it, the other keeps what it has.
    #[test]
    fn what_was_lost_at_a_break_and_what_came_back() {
        let mut stream = stream(200);
        stream.rows.iter_mut().enumerate().for_each(|(n, row)| row.event.user = UserId::of(["a", "b"][n % 2]));
        let truth =
            Truth { change_points_ms: vec![40, 190], changed_users: vec![vec!["a".into()], vec![]], companions: BTreeMap::new() };
        let rank = |row: usize| match (row, row % 4) {
            (0..40, _) => 1,
            (_, 1 | 3) => 10,
            (40..50, _) => 11,
            (_, 0) => 1,
            _ => 30,
        };
        let ranked: Vec<Ranked> =
            (0..200).map(|row| Ranked { row, rank: Some(rank(row)), new_item: false, sources: 0 }).collect();
        let found = found(&stream, &ranked, &truth, &BTreeMap::new());
        assert_eq!(found.changed, Served { users: 1, before: 1.0, first_5: 0.0, next_5: 0.4, next_10: 0.5 });
        assert_eq!(found.others, Served { users: 1, before: 1.0, first_5: 1.0, next_5: 1.0, next_10: 1.0 });
        assert_eq!((found.regained, found.regained_beside_others), (0.5, 0.5), "the last break has too few rows after it");
    }

    #[test]
    fn of_those_said_to_follow_the_planted_ones_count() {
        let companions = BTreeMap::from([("a".into(), vec!["b".into(), "c".into()]), ("z".into(), vec![])]);
        let truth = Truth { change_points_ms: vec![], changed_users: vec![], companions };
        let mut stream = stream(450);
        stream.rows.iter_mut().enumerate().for_each(|(n, row)| row.event.item = ItemId::of(if n < 200 { "a" } else { "q" }));
        assert_eq!(sought(&stream, &truth), [ItemId::of("a")], "q is not known, z was not played");
        let shown = ["b", "q", "c", "z", "y", "b"].map(|name| (ItemId::of(name), 0)).to_vec();
        let found = found(&stream, &[], &truth, &BTreeMap::from([(ItemId::of("a"), shown)]));
        assert_eq!((found.items, found.companions_precision5), (1, 0.4));
    }
}
