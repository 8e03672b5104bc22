//! What the best possible ranking scores. It knows every probability; on a sample of plays it ranks all living items the user has
//! not seen, and asks at which place the drawn one stands. It watches the stream and changes nothing in it.

use serde::Serialize;

use super::Stream;
use super::slice::Slice;
use super::stream::Companions;
use super::{Params, World};
use crate::model::rng::Rng;

/// Most bits kept of who saw what. Where all users need more, the first so many are asked; users are alike in distribution.
const MAX_BITS: u64 = 1 << 30;

/// Scores over the sample: hit rates, NDCG and mean reciprocal rank with one target each.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OracleScores {
    pub asked: u64,
    pub hr1: f64,
    pub hr10: f64,
    pub hr100: f64,
    pub ndcg10: f64,
    pub mrr10: f64,
}

/// Who saw what, and the scores so far as sums.
pub(super) struct Oracle {
    rng: Rng,
    /// Chance that a play of a watched user is asked about.
    chance: f64,
    watched: u32,
    /// One bit a watched user and item.
    seen: Vec<u64>,
    items: usize,
    /// Of every item, for the play that is asked about.
    pub(super) scores: Vec<f64>,
    sums: OracleScores,
}

impl Oracle {
    /// Sized for a stream of about this many plays.
    pub(super) fn new(params: &Params, plays: f64) -> Self {
        let watched = u64::from(params.users).min((MAX_BITS / u64::from(params.items)).max(1)) as u32;
        let items = params.items as usize;
        let watched_plays = plays * f64::from(watched) / f64::from(params.users);
        Self {
            rng: Stream::Oracle.of(params.seed, 0),
            chance: f64::from(params.oracle) / watched_plays.max(1.0),
            watched,
            seen: vec![0; (watched as usize * items).div_ceil(64)],
            items,
            scores: vec![0.0; items],
            sums: OracleScores { asked: 0, hr1: 0.0, hr10: 0.0, hr100: 0.0, ndcg10: 0.0, mrr10: 0.0 },
        }
    }

    /// A play: perhaps asked about, then seen.
    pub(super) fn drawn(&mut self, world: &World, slice: &Slice, tastes: &[f32], next: &Companions, user: u32, item: u32) {
        if user >= self.watched {
            return;
        }
        if !self.has_seen(user, item) && self.rng.unit() < self.chance {
            self.score_items(world, slice, tastes, next, user);
            let place = self.place(user, item);
            self.add(place);
        }
        let bit = user as usize * self.items + item as usize;
        self.seen[bit / 64] |= 1 << (bit % 64);
    }

    /// The scores over all that was asked; `None` before the first.
    pub(super) fn scores(&self) -> Option<OracleScores> {
        let n = self.sums.asked as f64;
        let mean = |sum: f64| sum / n;
        let s = self.sums;
        (s.asked > 0).then(|| OracleScores {
            asked: s.asked,
            hr1: mean(s.hr1),
            hr10: mean(s.hr10),
            hr100: mean(s.hr100),
            ndcg10: mean(s.ndcg10),
            mrr10: mean(s.mrr10),
        })
    }

    fn has_seen(&self, user: u32, item: u32) -> bool {
        let bit = user as usize * self.items + item as usize;
        self.seen[bit / 64] >> (bit % 64) & 1 == 1
    }

    /// The probability of every item to be drawn next by this user, into `scores`; they sum to 1.
    pub(super) fn score_items(&mut self, world: &World, slice: &Slice, tastes: &[f32], next: &Companions, user: u32) {
        let (kap, lam) = (world.params.kap, world.params.lam);
        let region = world.users[user as usize].region;
        let taste = 1.0 - lam - if next.is_empty() { 0.0 } else { kap };
        let sum: f32 = tastes.iter().sum();
        let per_weight = |(category, share): (usize, &f32)| {
            let total = slice.category_total(region, category);
            if total > 0.0 { taste * f64::from(share / sum) / total } else { 0.0 }
        };
        let by_category: Vec<f64> = tastes.iter().enumerate().map(per_weight).collect();
        // a taste for a category in which nothing lives falls to the crowd
        let living: f64 = tastes
            .iter()
            .enumerate()
            .filter(|(z, _)| slice.category_total(region, *z) > 0.0)
            .map(|(_, s)| f64::from(s / sum))
            .sum();
        let crowd = (lam + taste * (1.0 - living).max(0.0)) / slice.total(region);
        for (index, score) in self.scores.iter_mut().enumerate() {
            let weight = slice.weight(world, region, index as u32);
            *score = weight * (by_category[world.items[index].category as usize] + crowd);
        }
        for companion in next {
            self.scores[*companion as usize] += kap / next.len() as f64;
        }
    }

    /// 1 for the first.
    fn place(&self, user: u32, item: u32) -> u64 {
        let own = self.scores[item as usize];
        let better = (0..self.items as u32).filter(|i| self.scores[*i as usize] > own && !self.has_seen(user, *i));
        1 + better.count() as u64
    }

    fn add(&mut self, place: u64) {
        let hit = |k| if place <= k { 1.0 } else { 0.0 };
        self.sums.asked += 1;
        self.sums.hr1 += hit(1);
        self.sums.hr10 += hit(10);
        self.sums.hr100 += hit(100);
        self.sums.ndcg10 += hit(10) / libm::log2(1.0 + place as f64);
        self.sums.mrr10 += hit(10) / place as f64;
    }
}
