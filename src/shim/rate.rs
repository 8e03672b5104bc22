//! How often somebody may ask: a bucket of tokens each, filled at a steady rate up to a burst.
//!
//! A bucket is one moment: when it will be full again. What must stay true: over any time `t` nobody is let through more often than
//! `burst + rate * t`, unless more than [`MOST`] others asked in between and their bucket was dropped.

use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

use super::aging::Aging;

/// Buckets that are remembered.
const MOST: usize = 100_000;

/// Buckets of one kind.
pub struct Rate {
    /// Between two requests in the long run; `None` where there is no limit.
    interval: Option<Duration>,
    burst: u32,
    full: Mutex<Aging<Instant>>,
}

impl Rate {
    /// `per_second` requests in the long run, 0 for any number; `burst` at once.
    pub fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let interval = (per_second > 0).then(|| Duration::from_secs(1) / per_second);
        // Half of it is longer than an empty bucket takes to fill.
        let lifetime = interval.unwrap_or_default() * burst.saturating_mul(2) + Duration::from_secs(2);
        Self { interval, burst, full: Mutex::new(Aging::new(MOST, lifetime, now)) }
    }

    /// Whether there is a limit at all.
    pub fn is_set(&self) -> bool {
        self.interval.is_some()
    }

    /// Takes one out of the bucket of `key`. The error: how long until there is one again.
    pub fn take(&self, key: &str, now: Instant) -> Result<(), Duration> {
        let Some(interval) = self.interval else { return Ok(()) };
        let mut buckets = self.full.lock().expect("no panic under the lock");
        let full = buckets.get(key, now).map_or(now, |full| *full).max(now) + interval;
        let wait = full.saturating_duration_since(now + interval * self.burst);
        if !wait.is_zero() {
            return Err(wait);
        }
        buckets.put(key, full, 1, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_each_for_themselves() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let rate = Rate::new(10, 3, start);
        assert_eq!([0, 0, 0].map(|ms| rate.take("a", at(ms)).is_ok()), [true; 3]);
        assert_eq!(rate.take("a", at(0)), Err(Duration::from_millis(100)));
        assert_eq!(rate.take("a", at(40)), Err(Duration::from_millis(60)), "who is refused pays nothing");
        assert_eq!(rate.take("b", at(40)), Ok(()));
        assert_eq!(rate.take("a", at(100)), Ok(()));
        assert!(rate.take("a", at(100)).is_err());
        assert_eq!(
            [5_000; 4].map(|ms| rate.take("a", at(ms)).is_ok()),
            [true, true, true, false],
            "no more than the burst piles up"
        );
    }

    #[test]
    fn over_a_long_time_the_rate_is_kept() {
        let start = Instant::now();
        let rate = Rate::new(7, 5, start);
        let let_through = (0..60_000).filter(|ms| rate.take("a", start + Duration::from_millis(*ms)).is_ok()).count();
        assert!((420..=426).contains(&let_through), "{let_through}");
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        let rate = Rate::new(0, 1, Instant::now());
        assert!((0..1_000).all(|_| rate.take("a", Instant::now()).is_ok()));
    }
}
