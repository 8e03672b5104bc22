//! Hit rate, reciprocal rank and discounted gain of one target in a ranking, over parts of a stream. Pure.

use rustc_hash::FxHashMap;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::stream::{Row, Stream};
use crate::dataflows::sampler::SOURCES;

/// The rank of a tested row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ranked {
    pub row: usize,
    /// From 1; `None`: it was no candidate.
    pub rank: Option<u32>,
    /// The item had never appeared.
    pub new_item: bool,
    /// Where it came from, bit by bit.
    pub sources: u32,
}

/// How good a part of a stream was ranked.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measured {
    pub tested: usize,
    pub hr10: f64,
    pub hr20: f64,
    pub hr100: f64,
    pub ndcg10: f64,
    pub mrr10: f64,
    pub ndcg100: f64,
    /// Of known users and items.
    pub warm: usize,
    pub warm_hr10: f64,
    pub warm_ndcg10: f64,
    /// Of users with fewer than [`FEW`] rows before.
    pub cold: usize,
    pub cold_hr10: f64,
    pub new_item: f64,
    pub new_user: f64,
    pub candidates_hit: f64,
    /// HR@10 of each tenth of the stream from 30 % on.
    pub deciles_hr10: Vec<f64>,
}

/// A user with fewer rows than this is cold.
pub const FEW: u32 = 5;

/// Measures the rows between two shares of the stream.
pub fn measure(stream: &Stream, ranked: &[Ranked], from: f64, to: f64) -> Measured {
    let all: Vec<&Ranked> = between(stream, ranked, from, to).collect();
    let warm: Vec<&Ranked> = all.iter().copied().filter(|r| !r.new_item && !stream.rows[r.row].new_user).collect();
    let cold = cold(stream);
    let cold: Vec<&Ranked> = all.iter().copied().filter(|r| cold[r.row]).collect();
    let decile = |tenth: i32| {
        let (from, to) = (f64::from(tenth) / 10.0, f64::from(tenth + 1) / 10.0);
        mean(&between(stream, ranked, from, to).collect::<Vec<_>>(), |r| r.hit(10))
    };
    Measured {
        tested: all.len(),
        hr10: mean(&all, |r| r.hit(10)),
        hr20: mean(&all, |r| r.hit(20)),
        hr100: mean(&all, |r| r.hit(100)),
        ndcg10: mean(&all, |r| r.gain(10)),
        mrr10: mean(&all, |r| if r.hit(10) > 0.0 { 1.0 / f64::from(r.rank.unwrap_or(u32::MAX)) } else { 0.0 }),
        ndcg100: mean(&all, |r| r.gain(100)),
        warm: warm.len(),
        warm_hr10: mean(&warm, |r| r.hit(10)),
        warm_ndcg10: mean(&warm, |r| r.gain(10)),
        cold: cold.len(),
        cold_hr10: mean(&cold, |r| r.hit(10)),
        new_item: mean(&all, |r| f64::from(u8::from(r.new_item))),
        new_user: mean(&all, |r| f64::from(u8::from(stream.rows[r.row].new_user))),
        candidates_hit: mean(&all, |r| f64::from(u8::from(r.rank.is_some()))),
        deciles_hr10: (3..10).map(decile).collect(),
    }
}

/// Of each row, whether its user stood in fewer than [`FEW`] before.
fn cold(stream: &Stream) -> Vec<bool> {
    let mut before = FxHashMap::default();
    let few = |row: &Row| {
        let rows = before.entry(row.event.user).or_insert(0);
        *rows += 1;
        *rows <= FEW
    };
    stream.rows.iter().map(few).collect()
}

fn between<'a>(stream: &Stream, ranked: &'a [Ranked], from: f64, to: f64) -> impl Iterator<Item = &'a Ranked> {
    let n = stream.rows.len() as f64;
    let (from, to) = ((n * from) as usize, (n * to) as usize);
    ranked.iter().filter(move |r| (from..to).contains(&r.row))
}

impl Ranked {
    /// Whether it stands within `k` places: 1 or 0.
    pub fn hit(&self, k: u32) -> f64 {
        f64::from(u8::from(self.rank.is_some_and(|rank| rank <= k)))
    }

    /// The discounted gain of the one target, within `k` places.
    pub fn gain(&self, k: u32) -> f64 {
        self.rank.filter(|rank| *rank <= k).map_or(0.0, |rank| 1.0 / libm::log2(1.0 + f64::from(rank)))
    }
}

fn mean(of: &[&Ranked], value: impl Fn(&Ranked) -> f64) -> f64 {
    of.iter().map(|r| value(r)).fold(0.0, |sum, x| sum + x) / (of.len() as f64).max(1.0)
}

/// Of the reported rows hit within ten places: what share each source had among its candidates.
pub fn by_source(stream: &Stream, ranked: &[Ranked]) -> BTreeMap<&'static str, f64> {
    let hits = between(stream, ranked, 0.3, 1.0).filter(|r| r.hit(10) > 0.0);
    share_by_source(&hits.map(|r| r.sources).collect::<Vec<_>>())
}

/// Of hits, each with its sources bit by bit: the share that each source had.
pub fn share_by_source(hits: &[u32]) -> BTreeMap<&'static str, f64> {
    let share =
        |bit: usize| hits.iter().filter(|sources| **sources >> bit & 1 == 1).count() as f64 / (hits.len() as f64).max(1.0);
    SOURCES.into_iter().enumerate().map(|(bit, source)| (source, share(bit))).collect()
}

/// What stands above [`table`].
const COLUMNS: &str = "row,rank,new_item";

/// One line a tested row: its number, its rank (empty: no candidate), whether its item was new.
pub fn table(ranked: &[Ranked]) -> String {
    let mut text = format!("{COLUMNS}\n");
    for r in ranked {
        let rank = r.rank.map(|rank| rank.to_string()).unwrap_or_default();
        let _infallible = writeln!(text, "{},{rank},{}", r.row, u8::from(r.new_item));
    }
    text
}

/// Reads such a table; which sources a row came from is not in it.
pub fn parse(text: &str) -> Result<Vec<Ranked>, String> {
    let mut lines = text.lines();
    if lines.next() != Some(COLUMNS) {
        return Err(format!("the first line is not `{COLUMNS}`; write it by --ranks of another run"));
    }
    let row = |line: &str| {
        let [row, rank, new_item]: [&str; 3] = line.split(',').collect::<Vec<_>>().try_into().ok()?;
        let rank = if rank.is_empty() { None } else { Some(rank.parse().ok().filter(|rank| *rank > 0)?) };
        let new_item = ["0", "1"].iter().position(|flag| *flag == new_item)? == 1;
        Some(Ranked { row: row.parse().ok()?, rank, new_item, sources: 0 })
    };
    let numbered = lines.enumerate();
    numbered
        .map(|(n, line)| row(line).ok_or_else(|| format!("line {}: `{line}` is no row, rank from 1 on and 0 or 1", n + 2)))
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Event, ItemId, Kind, Op, UserId};

    pub fn stream(rows: usize) -> Stream {
        let event = |n: usize| Event {
            id: n as u64,
            user: UserId(n as u64 / 2),
            item: ItemId(n as u64),
            kind: Kind::View,
            op: Op::Add,
            at: n as i64,
            value_milli: None,
        };
        let mut stream = Stream::default();
        stream.lay_out((0..rows).map(|n| (event(n), true)).collect());
        stream
    }

    #[test]
    fn one_target_at_known_places() {
        let ranked = [(30, Some(1)), (40, Some(3)), (51, Some(11)), (60, None), (99, Some(200))];
        let ranked = ranked.map(|(row, rank)| Ranked { row, rank, new_item: row == 60, sources: 1 });
        let of = measure(&stream(100), &ranked, 0.3, 1.0);
        assert_eq!((of.tested, of.hr10, of.hr20, of.hr100), (5, 0.4, 0.6, 0.6));
        assert!((of.ndcg10 - (1.0 + 0.5) / 5.0).abs() < 1e-12);
        assert!((of.mrr10 - (1.0 + 1.0 / 3.0) / 5.0).abs() < 1e-12);
        assert_eq!((of.cold, of.cold_hr10), (5, 0.4), "everybody stands in two rows");
        let mut known = stream(100);
        known.rows.iter_mut().for_each(|row| row.event.user = UserId(row.event.user.0 / 20));
        let of_cold = measure(&known, &ranked, 0.3, 1.0);
        assert_eq!((of_cold.cold, of_cold.cold_hr10), (1, 1.0), "row 40 begins the second of three users");
        assert_eq!((of.warm, of.new_item, of.deciles_hr10[0]), (2, 0.2, 1.0));
        assert_eq!(measure(&stream(100), &ranked, 0.1, 0.3).tested, 0);
    }

    #[test]
    fn a_table_comes_back_as_it_was_and_a_bad_line_is_named() {
        let ranked = [(3, Some(7), false), (9, None, true)];
        let ranked = ranked.map(|(row, rank, new_item)| Ranked { row, rank, new_item, sources: 0 });
        assert_eq!(parse(&table(&ranked)), Ok(ranked.to_vec()));
        for bad in ["4,x,0", "4,0,0", "4,1,true", "4,1"] {
            let why = parse(&format!("row,rank,new_item\n3,7,0\n{bad}\n")).expect_err(bad);
            assert!(why.starts_with(&format!("line 3: `{bad}`")), "{why}");
        }
        assert!(parse("row,rank\n3,7\n").expect_err("a column is missing").contains("--ranks"));
    }
}
