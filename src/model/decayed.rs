//! An exponentially decayed sum that can be taken back exactly.
//!
//! A weight `w` at time `t` is worth `w * 2^((t - T) / h)` at time `T`. Write `t / h = block + fraction`: the contribution to its
//! block is the integer `round(w * 2^fraction * 2^20)`, so adding and retracting cancel to the last bit, whatever came
//! between. The value is a sum over at most [`REACH`] blocks; what is older is worth less than `2^-REACH` and is dropped.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::time::Millis;

/// How many half-lives back a contribution still counts.
pub const REACH: i64 = 32;
const SCALE: f64 = (1u64 << 20) as f64;

/// What one record adds to a decayed sum: worked out once, added to the sum of every key the record counts for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Share {
    block: i32,
    mantissa: i64,
}

impl Share {
    /// Of a weight in thousandths at time `at`; with a negative `diff` it takes back.
    pub fn new(at: Millis, weight_milli: i64, diff: i64, half_life: Millis) -> Self {
        let block = at.div_euclid(half_life) as i32;
        let fraction = at.rem_euclid(half_life) as f64 / half_life as f64;
        let mantissa = (weight_milli as f64 * libm::exp2(fraction) * SCALE).round() as i64;
        Self { block, mantissa: mantissa * diff }
    }
}

/// The decayed sum of one key: block number and integer mantissa, ascending, without zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Decayed(SmallVec<[(i32, i64); 2]>);

impl Decayed {
    /// Adds (or with a negative `diff` takes back) a weight in thousandths at time `at`.
    pub fn add(&mut self, at: Millis, weight_milli: i64, diff: i64, half_life: Millis) {
        self.put(Share::new(at, weight_milli, diff, half_life));
    }

    /// Adds what a record is worth.
    pub fn put(&mut self, Share { block, mantissa }: Share) {
        if mantissa == 0 {
            return;
        }
        match self.0.binary_search_by_key(&block, |b| b.0) {
            Ok(i) => {
                self.0[i].1 += mantissa;
                if self.0[i].1 == 0 {
                    self.0.remove(i);
                }
            }
            Err(i) => self.0.insert(i, (block, mantissa)),
        }
    }

    /// Drops what is out of reach at `clock`. Reading never sees it, so this changes no value.
    pub fn prune(&mut self, clock: Millis, half_life: Millis) {
        let oldest = clock.div_euclid(half_life) - REACH;
        self.0.retain(|(block, _)| i64::from(*block) > oldest);
    }

    /// The value at `clock`, in weights (not thousandths).
    pub fn value(&self, clock: Millis, half_life: Millis) -> f64 {
        let now = clock.div_euclid(half_life);
        let fraction = clock.rem_euclid(half_life) as f64 / half_life as f64;
        self.in_blocks(now) * libm::exp2(-fraction)
    }

    /// The binary logarithm of the value plus the clock in half-lives, in millionths: the same at every clock, so it orders sums of
    /// one half-life and the passing of time updates nothing. `None` where the sum is not positive.
    pub fn forward_micro(&self) -> Option<i64> {
        let newest = i64::from(self.0.last()?.0);
        let value = self.in_blocks(newest);
        (value > 0.0).then(|| ((libm::log2(value) + newest as f64) * 1e6).round() as i64)
    }

    /// The newest block and the value at its start; `None` where there is nothing.
    pub fn newest(&self) -> Option<(i32, f64)> {
        let newest = self.0.last()?.0;
        Some((newest, self.in_blocks(i64::from(newest))))
    }

    /// The value in units of `block`.
    fn in_blocks(&self, block: i64) -> f64 {
        let live = self.0.iter().filter(|(b, _)| i64::from(*b) > block - REACH);
        let sum: f64 = live.map(|(b, m)| libm::ldexp(*m as f64, (i64::from(*b) - block) as i32)).sum();
        sum / (SCALE * 1000.0)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::{DAY, HOUR};

    #[test]
    fn half_after_one_half_life_and_gone_after_an_undo() {
        let (t0, h) = (1_700_000_000_000, 7 * DAY);
        let mut sum = Decayed::default();
        sum.add(t0, 4_000, 1, h);
        assert!((sum.value(t0, h) - 4.0).abs() < 1e-5);
        assert!((sum.value(t0 + 7 * DAY, h) - 2.0).abs() < 1e-5);
        assert!((sum.value(t0 + 70 * DAY, h) - 4.0 / 1024.0).abs() < 1e-5);
        let before = sum.clone();
        sum.add(t0 + 3 * DAY, 1_500, 1, h);
        sum.add(t0 + 9 * DAY + 17, 2_800, 1, h);
        sum.add(t0 + 3 * DAY, 1_500, -1, h);
        sum.add(t0 + 9 * DAY + 17, 2_800, -1, h);
        assert_eq!(sum, before);
        let gap = (7 * DAY * 1_000_000) as f64;
        assert_eq!(sum.forward_micro(), Some(((2.0 + t0 as f64 * 1e6 / gap) * 1e6).round() as i64));
    }

    #[test]
    fn pruning_changes_no_value() {
        let (t0, h) = (1_700_000_000_000, HOUR);
        let mut sum = Decayed::default();
        for i in 0..100 {
            sum.add(t0 + i * HOUR, 1_000, 1, h);
        }
        let clock = t0 + 100 * HOUR;
        let value = sum.value(clock, h);
        sum.prune(clock, h);
        assert_eq!(sum.value(clock, h), value);
        assert!(sum.0.len() <= REACH as usize);
    }
}
