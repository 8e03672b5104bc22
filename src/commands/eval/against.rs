//! One run beside another over the same rows: the other's figures, and how far apart the two are beyond chance, by a paired bootstrap
//! over users. Pure.
//!
//! What must stay true: both runs ranked the same rows, or nothing is said.

use serde::Serialize;
use std::collections::BTreeMap;

use super::metrics::{self, Measured, Ranked};
use super::stream::Stream;
use crate::model::UserId;
use crate::scoring::bootstrap::bounds;

/// How another run compares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Against {
    pub ndcg10: f64,
    pub hr10: f64,
    /// HR@10 of each tenth of the stream from 30 % on.
    pub deciles_hr10: Vec<f64>,
    /// By how much NDCG@10 here is above the other's.
    pub ahead_ndcg10: f64,
    /// Between which bounds it lies in 95 of 100 draws of users.
    pub ahead_ndcg10_95: [f64; 2],
    /// The tenths of the stream in which HR@10 here is below the other's, each by its first row in percent.
    pub tenths_behind: Vec<usize>,
}

/// Compares two runs; `measured` is what the first came to.
pub fn against(stream: &Stream, measured: &Measured, ranked: &[Ranked], other: &[Ranked]) -> Result<Against, String> {
    let rows = |of: &[Ranked]| of.iter().map(|r| r.row).collect::<Vec<_>>();
    if rows(ranked) != rows(other) {
        return Err("it ranks other rows; write it by a run over the same data with the same --limit and --dataset".into());
    }
    let theirs = metrics::measure(stream, other, 0.3, 1.0);
    let deciles = measured.deciles_hr10.iter().zip(&theirs.deciles_hr10).enumerate();
    let tenths_behind = deciles.filter(|(_, (ours, theirs))| ours < theirs).map(|(i, _)| (i + 3) * 10).collect();
    Ok(Against {
        ahead_ndcg10: measured.ndcg10 - theirs.ndcg10,
        ahead_ndcg10_95: bounds(&by_user(stream, ranked, other)),
        ndcg10: theirs.ndcg10,
        hr10: theirs.hr10,
        deciles_hr10: theirs.deciles_hr10,
        tenths_behind,
    })
}

/// For each user: by how much the reported rows together gain more, and how many they are.
fn by_user(stream: &Stream, ranked: &[Ranked], other: &[Ranked]) -> Vec<(f64, u32)> {
    let mut users: BTreeMap<UserId, (f64, u32)> = BTreeMap::new();
    let reported = stream.rows.len() * 3 / 10;
    for (ours, theirs) in ranked.iter().zip(other).filter(|(ours, _)| ours.row >= reported) {
        let of = users.entry(stream.rows[ours.row].event.user).or_default();
        *of = (of.0 + ours.gain(10) - theirs.gain(10), of.1 + 1);
    }
    users.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(stream: &Stream, rank: impl Fn(usize) -> Option<u32>) -> Vec<Ranked> {
        (10..stream.rows.len()).map(|row| Ranked { row, rank: rank(row), new_item: false, sources: 0 }).collect()
    }

    #[test]
    fn who_is_always_a_little_ahead_is_so_beyond_chance_and_who_is_sometimes_is_not() {
        let stream = metrics::tests::stream(1_000);
        let compared = |ours: &dyn Fn(usize) -> Option<u32>, theirs: &dyn Fn(usize) -> Option<u32>| {
            let (ours, theirs) = (ranked(&stream, ours), ranked(&stream, theirs));
            against(&stream, &metrics::measure(&stream, &ours, 0.3, 1.0), &ours, &theirs).expect("the same rows")
        };
        let ahead = compared(&|_| Some(1), &|row| Some(1 + row as u32 % 2));
        let half = (1.0 - 1.0 / libm::log2(3.0)) / 2.0;
        assert!((ahead.ahead_ndcg10 - half).abs() < 1e-12, "every user has one row of each: {ahead:?}");
        assert!(ahead.ahead_ndcg10_95.iter().all(|bound| (bound - half).abs() < 1e-9) && ahead.tenths_behind.is_empty());
        // ahead or behind by the user, and in the seventh tenth never found
        let mixed = compared(&|row| (row / 100 != 6).then_some(1 + (row as u32 / 2) % 2), &|row| Some(2 - (row as u32 / 2) % 2));
        assert!(mixed.ahead_ndcg10_95[0] < mixed.ahead_ndcg10 && mixed.ahead_ndcg10 < mixed.ahead_ndcg10_95[1], "{mixed:?}");
        assert_eq!((mixed.tenths_behind, mixed.hr10), (vec![60], 1.0));
    }

    #[test]
    fn other_rows_are_not_compared() {
        let stream = metrics::tests::stream(100);
        let (ours, theirs) = (ranked(&stream, |_| None), ranked(&metrics::tests::stream(99), |_| None));
        let refused = against(&stream, &Measured::default(), &ours, &theirs).expect_err("a row less");
        assert!(refused.contains("other rows"), "{refused}");
    }
}
