//! What the benchmarks share: a workload, CPU time, medians. Each benchmark is a program that prints its figures; nothing asserts.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub mod load;
pub mod whole;

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// A number that the environment may change.
pub fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

/// xorshift64: the same workload each time.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Draws from `n` items by Zipf's law (exponent 1).
pub struct Zipf(Vec<f64>);

impl Zipf {
    pub fn new(n: usize) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=n)
                .map(|rank| {
                    sum += 1.0 / rank as f64;
                    sum
                })
                .collect(),
        )
    }

    pub fn draw(&self, rng: &mut Rng) -> u64 {
        let x = (rng.next() >> 11) as f64 / (1u64 << 53) as f64 * self.0.last().expect("not empty");
        self.0.partition_point(|c| *c < x) as u64
    }
}

/// CPU time of this process, all threads.
pub fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("linux");
    let after = stat.rsplit(')').next().expect("a name in parentheses");
    let ticks: u64 = after.split_whitespace().skip(11).take(2).map(|t| t.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// CPU time of this thread, in seconds.
pub fn thread_cpu() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// The middle of some figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The figure below which a share lies.
pub fn percentile(figures: &mut [f64], share: f64) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[((figures.len() - 1) as f64 * share) as usize]
}
