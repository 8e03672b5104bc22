//! The whole path without servers: how many events a second go from the embedded log into the store in memory, and what CPU that
//! takes. `EVENTS`, `USERS`, `ITEMS`, `WORKERS` and `EPOCH` (rows of a full epoch) change the workload, `LEARN=1` turns the learned
//! blend on, beside it `SHADOW=VERSION REGISTRY=DIR` a shadow; under `perf record -g` it shows where the time goes.

mod common;

use common::{number, whole};
use std::time::Duration;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = whole::config(dir.path(), number("WORKERS", 2) as usize);
    config.recovery.enabled = false;
    config.recommend.learn.enabled = number("LEARN", u64::from(config.recommend.learn.enabled)) > 0;
    config.recommend.ranker.shadow = std::env::var("SHADOW").unwrap_or_default();
    config.recommend.ranker.registry = std::env::var("REGISTRY").unwrap_or_default();
    config.engine.epoch_rows = number("EPOCH", config.engine.epoch_rows as u64) as usize;
    let events = number("EVENTS", 200_000);
    whole::fill(&config, events, number("USERS", 20_000), number("ITEMS", 20_000));
    let ran = whole::run(&config);
    let per = |d: Duration| d.as_secs_f64() * 1e6 / events as f64;
    println!(
        "path: {:.0} events/s, {:.0} µs of CPU an event; {} epochs, {} refreshes, {:.1} writes an event",
        events as f64 / ran.wall.as_secs_f64(),
        per(ran.cpu),
        ran.stats.epochs,
        ran.stats.account.refreshed,
        ran.stats.writes as f64 / events as f64
    );
}
