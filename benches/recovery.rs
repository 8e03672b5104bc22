//! What recovery costs: throughput with epoch log and snapshots against without, in `PAIRS` (3) pairs over `EVENTS` (400,000), a
//! snapshot every `EVERY` (10) seconds; then how long a start takes that goes on from a snapshot of `RESTORED` (1,000,000) users.

mod common;

use common::{median, number, whole};
use overdrive::config::Config;
use std::path::Path;
use std::time::Duration;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn config(dir: &Path, recovers: bool) -> Config {
    let mut config = whole::config(dir, 2);
    config.recovery.enabled = recovers;
    config.recovery.snapshot_every = Duration::from_secs(number("EVERY", 10));
    config
}

/// Events a second, and µs of CPU for each.
fn throughput(events: u64, recovers: bool) -> (f64, f64) {
    let dir = tempfile::tempdir().expect("a folder");
    let config = config(dir.path(), recovers);
    whole::fill(&config, events, 20_000, 20_000);
    let ran = whole::run(&config);
    (events as f64 / ran.wall.as_secs_f64(), ran.cpu.as_secs_f64() * 1e6 / events as f64)
}

fn cost() {
    let (mut ratios, mut cpu) = (Vec::new(), Vec::new());
    for pair in 0..number("PAIRS", 3) {
        let (events, first) = (number("EVENTS", 400_000), pair % 2 == 0);
        let (one, other) = (throughput(events, first), throughput(events, !first));
        let (with, without) = if first { (one, other) } else { (other, one) };
        println!(
            "recovery: {:.0} events/s with, {:.0} without; {:.0} and {:.0} µs of CPU an event",
            with.0, without.0, with.1, without.1
        );
        ratios.push(with.0 / without.0);
        cpu.push(without.1 / with.1);
    }
    println!("recovery: with / without {:.2} in events/s, {:.2} in events per CPU second (medians)", median(ratios), median(cpu));
}

fn restore(users: u64) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), true);
    config.recovery.snapshot_every = Duration::from_secs(3_600); // one at the end is enough
    whole::fill(&config, 2 * users, users, 20_000);
    let ran = whole::run(&config);
    println!("restore: {} users, {} events, {:.0} s", users, 2 * users, ran.wall.as_secs_f64());
    let bytes = walk(&dir.path().join("state"));
    let again = whole::run(&config);
    println!(
        "restore: {:.0} MB of state; ready to read after {:.1} s ({:.1} s of CPU in all), nothing read twice: {} events",
        bytes as f64 / 1e6,
        again.start.as_secs_f64(),
        again.cpu.as_secs_f64(),
        again.stats.account.consumed
    );
}

fn walk(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a folder").flatten();
    entries.map(|e| if e.path().is_dir() { walk(&e.path()) } else { e.metadata().map_or(0, |m| m.len()) }).sum()
}

fn main() {
    cost();
    restore(number("RESTORED", 1_000_000));
}
