//! The static protocol: the first four fifths of a stream are learned, once and in order, then everything is frozen and every user is
//! ranked once; what they first took in the last fifth is what should stand on top. Pure.
//!
//! What must stay true: a target is an item somebody took in the learned part, and a user is one who took something in it.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

use super::metrics::share_by_source;
use super::stream::Stream;
use crate::model::{ItemId, UserId};
use crate::scoring::factors::Matrix;

/// An item of a ranking, with the sources it came from, bit by bit.
pub type Shown = (ItemId, u32);

/// How long a ranking is.
pub const RANKED: usize = 100;

/// What is cut in five.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The stream.
    Time,
    /// Each user's rows.
    User,
}

impl By {
    /// As the protocol has it for a data set.
    pub fn of(name: &str) -> Self {
        if name.starts_with("ml-") { Self::User } else { Self::Time }
    }
}

/// A stream cut in two.
#[derive(Clone, Default)]
pub struct Split {
    /// Rows that are learned.
    pub learned: Stream,
    /// Users and items of the learned part, by first appearance.
    pub users: Vec<UserId>,
    pub items: Vec<ItemId>,
    /// What each took in it, and by whom it was taken.
    pub matrix: Matrix,
    /// The places of the users who are asked about, and what they took later.
    pub asked: BTreeMap<usize, BTreeSet<ItemId>>,
}

/// More users are not asked about: every second, or third, … is.
const MOST: usize = 10_000;

impl Split {
    /// Cuts a stream.
    pub fn new(stream: &Stream, by: By) -> Self {
        let learned = learned(stream, by);
        let mut split = Self::default();
        let (mut users, mut items, mut pairs) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for (row, _) in stream.rows.iter().zip(&learned).filter(|(row, learned)| **learned && row.tested) {
            let user = *users.entry(row.event.user).or_insert_with(|| numbered(&mut split.users, row.event.user));
            let item = *items.entry(row.event.item).or_insert_with(|| numbered(&mut split.items, row.event.item));
            pairs.push((user, item));
        }
        split.matrix = Matrix::of(users.len(), items.len(), pairs);
        for (row, _) in stream.rows.iter().zip(&learned).filter(|(row, learned)| !**learned && row.tested) {
            if let (Some(user), true) = (users.get(&row.event.user), items.contains_key(&row.event.item)) {
                split.asked.entry(*user as usize).or_default().insert(row.event.item);
            }
        }
        let every = split.asked.len().div_ceil(MOST).max(1);
        split.asked = split.asked.into_iter().step_by(every).collect();
        let rows = stream.rows.iter().zip(&learned).filter(|(_, learned)| **learned);
        split.learned.described = stream.described.clone();
        split.learned.lay_out(rows.map(|(row, _)| (row.event.clone(), row.kind_is_tested)).collect());
        split
    }

    /// How good rankings are: those of the users who are asked about, best first, without what they had taken.
    pub fn measure<'a>(&self, ranking: impl Fn(usize) -> &'a [Shown]) -> Measured {
        let mut of = Measured { users: self.asked.len(), items: self.items.len(), ..Measured::default() };
        let (mut covered, mut gains): (BTreeSet<ItemId>, Vec<(usize, f64)>) = Default::default();
        for (user, targets) in &self.asked {
            let ranked = ranking(*user);
            let hit = |place: usize| ranked.get(place).is_some_and(|(item, _)| targets.contains(item));
            let recall = |k: usize| (0..k).filter(|place| hit(*place)).count() as f64 / k.min(targets.len()) as f64;
            let gain = |k: usize| {
                let found: f64 = (0..k).filter(|place| hit(*place)).map(discount).sum();
                found / (0..k.min(targets.len())).map(discount).sum::<f64>()
            };
            of.targets += targets.len();
            of.recall20 += recall(20);
            of.recall50 += recall(50);
            of.recall100 += recall(100);
            of.ndcg10 += gain(10);
            of.hr10 += f64::from(u8::from((0..10).any(hit)));
            gains.push((self.matrix.users[*user].len(), gain(100)));
            covered.extend(ranked.iter().take(20).map(|(item, _)| *item));
        }
        let means = [&mut of.recall20, &mut of.recall50, &mut of.recall100, &mut of.ndcg10, &mut of.hr10];
        means.into_iter().for_each(|sum| *sum /= self.asked.len().max(1) as f64);
        of.ndcg100 = mean(gains.iter().map(|(_, gain)| *gain)).unwrap_or_default();
        of.coverage20 = covered.len() as f64 / self.items.len().max(1) as f64;
        of.ndcg100_by_taken = by_taken(&gains);
        of
    }

    /// Of the targets within twenty places: what share each source had among its candidates.
    pub fn by_source<'a>(&'a self, ranking: impl Fn(usize) -> &'a [Shown]) -> BTreeMap<&'static str, f64> {
        let hits = |(user, targets): (&usize, &'a BTreeSet<ItemId>)| {
            let best = ranking(*user).iter().take(20);
            best.filter(|(item, _)| targets.contains(item)).map(|(_, sources)| *sources).collect::<Vec<_>>()
        };
        share_by_source(&self.asked.iter().flat_map(hits).collect::<Vec<_>>())
    }
}

/// The mean gain of users by how many items they had taken; nothing for numbers nobody has.
fn by_taken(gains: &[(usize, f64)]) -> Vec<(&'static str, f64)> {
    let of = |(name, taken): (&'static str, std::ops::Range<usize>)| {
        Some((name, mean(gains.iter().filter(|(n, _)| taken.contains(n)).map(|(_, gain)| *gain))?))
    };
    [("1 to 4", 0..5), ("5 to 19", 5..20), ("20 to 99", 20..100), ("100 and more", 100..usize::MAX)]
        .into_iter()
        .filter_map(of)
        .collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), x| (sum + x, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

fn numbered<T>(all: &mut Vec<T>, one: T) -> u32 {
    all.push(one);
    all.len() as u32 - 1
}

fn discount(place: usize) -> f64 {
    1.0 / libm::log2(place as f64 + 2.0)
}

/// Which rows are learned.
fn learned(stream: &Stream, by: By) -> Vec<bool> {
    let (mut all, mut so_far) = (BTreeMap::<UserId, u32>::new(), BTreeMap::<UserId, u32>::new());
    stream.rows.iter().for_each(|row| *all.entry(row.event.user).or_default() += 1);
    let place = |(n, user): (usize, UserId)| match by {
        By::Time => n as f64 / stream.rows.len() as f64,
        By::User => {
            let before = so_far.entry(user).or_default();
            *before += 1;
            f64::from(*before - 1) / f64::from(all[&user])
        }
    };
    stream.rows.iter().map(|row| row.event.user).enumerate().map(place).map(|place| place < 0.8).collect()
}

/// How good a ranking of every user was.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measured {
    pub users: usize,
    pub targets: usize,
    pub items: usize,
    pub recall20: f64,
    pub recall50: f64,
    pub recall100: f64,
    pub ndcg10: f64,
    pub ndcg100: f64,
    pub hr10: f64,
    pub coverage20: f64,
    /// By how many items the users had taken.
    pub ndcg100_by_taken: Vec<(&'static str, f64)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Event, Kind, Op};

    fn stream(rows: &[(u64, u64)]) -> Stream {
        let event = |(n, (user, item)): (usize, &(u64, u64))| Event {
            id: n as u64,
            user: UserId(*user),
            item: ItemId(*item),
            kind: Kind::View,
            op: Op::Add,
            at: n as i64,
            value_milli: None,
        };
        let mut stream = Stream::default();
        stream.lay_out(rows.iter().enumerate().map(event).map(|event| (event, true)).collect());
        stream
    }

    #[test]
    fn a_stream_is_cut_by_time_or_user_by_user() {
        // user 1 takes 0 to 4, then user 2 the same and 3 again
        let rows: Vec<(u64, u64)> = (0..5).map(|i| (1, i)).chain((0..4).map(|i| (2, i))).chain([(2, 3)]).collect();
        let by_time = Split::new(&stream(&rows), By::Time);
        assert_eq!((by_time.learned.rows.len(), by_time.items.len()), (8, 5));
        assert_eq!(by_time.asked, BTreeMap::from([(1, BTreeSet::from([ItemId(3)]))]));
        let by_user = Split::new(&stream(&rows), By::User);
        assert_eq!((by_user.learned.rows.len(), by_user.items.len()), (8, 4));
        assert!(by_user.asked.is_empty(), "item 4 nobody took before, and item 3 user 2 had");
        assert_eq!(by_user.matrix.items[3], [0, 1]);
    }

    #[test]
    fn a_ranking_of_known_worth() {
        let rows: Vec<(u64, u64)> = (0..16).map(|i| (1, i)).chain([(2, 0), (2, 1), (2, 2), (2, 3)]).collect();
        let split = Split::new(&stream(&rows), By::Time);
        assert!(split.asked.is_empty(), "user 2 was not there before");
        let rows: Vec<(u64, u64)> = [(2, 9)].into_iter().chain((0..15).map(|i| (1, i))).chain((0..4).map(|i| (2, i))).collect();
        let split = Split::new(&stream(&rows), By::Time);
        assert_eq!(split.asked[&0].len(), 4);
        let ranking = [(0, 1), (7, 1), (2, 3), (8, 0), (5, 2)].map(|(item, sources)| (ItemId(item), sources));
        let of = split.measure(|_| &ranking);
        assert_eq!((of.recall20, of.hr10, of.users, of.targets), (0.5, 1.0, 1, 4));
        let (found, all) = (1.0 + 0.5, 1.0 + discount(1) + 0.5 + discount(3));
        assert!((of.ndcg100 - found / all).abs() < 1e-12 && (of.coverage20 - 5.0 / 15.0).abs() < 1e-12);
        assert_eq!(of.ndcg100_by_taken, [("1 to 4", of.ndcg100)], "user 2 had taken one item");
        let shares = split.by_source(|_| &ranking);
        assert_eq!((shares["pop_10m"], shares["pop_40m"], shares["pop_3h"]), (1.0, 0.5, 0.0));
    }
}
