//! The whole path without servers: how many events a second go from the embedded log into the store in memory, and what CPU that
//! takes. `EVENTS`, `USERS`, `ITEMS`, `WORKERS` change the workload, `LEARN=1` turns the learned blend on and `LEARN=0` off; under `perf record -g` it shows where the time goes.

mod common;

use bytes::Bytes;
use overdrive::codec::json;
use overdrive::config::Config;
use overdrive::model::{Names, Positions, Role};
use overdrive::sinks::memory::Memory;
use overdrive::sources::synthetic::{Params, World};
use overdrive::sources::{self, log};
use overdrive::worker::Engine;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = Config::defaults();
    config.engine.state_dir = dir.path().to_path_buf();
    config.engine.workers = number("WORKERS", 2) as usize;
    config.recommend.slates.busy_refreshes = 1.0; // the work of a stream that keeps up: a refresh for every event
    config.recommend.learn.enabled = number("LEARN", u64::from(config.recommend.learn.enabled)) > 0;
    config.changes.kind = overdrive::sinks::changes::Kind::None;
    let folder = log::folder(dir.path());
    let events = number("EVENTS", 200_000);
    let appender = log::LogAppender::open(&folder, &config.log).expect("the log opens");
    fill(&appender, events);
    let ends = log::ends(&folder, &config.log).expect("the log tells");
    let memory = Memory::new("od:");
    let source = sources::open(&config.source, &config.log, &config.kafka, &config.fluvio, dir.path(), &Positions::new())
        .expect("it opens");
    let (began, cpu) = (Instant::now(), common::cpu());
    let engine =
        Engine::start(&config, Arc::new(Names::default()), source, Box::new(memory.clone()), None, |_| {}).expect("it starts");
    let covered = || ends.iter().all(|(place, end)| memory.applied().offsets.get(place).copied().unwrap_or(0) >= *end);
    while !covered() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (took, cpu) = (began.elapsed(), common::cpu() - cpu);
    let (stats, _) = engine.stop();
    let per = |d: Duration| d.as_secs_f64() * 1e6 / events as f64;
    println!(
        "path: {:.0} events/s, {:.0} µs of CPU an event; {} epochs, {} refreshes, {:.1} writes an event",
        events as f64 / took.as_secs_f64(),
        per(cpu),
        stats.epochs,
        stats.account.refreshed,
        stats.writes as f64 / events as f64
    );
}

fn fill(appender: &log::LogAppender, events: u64) {
    let world = World::new(Params::sized(events, number("USERS", 20_000) as u32, number("ITEMS", 20_000) as u32))
        .expect("good parameters");
    let keyed = |key: &str, payload: Vec<u8>| (Bytes::from(key.to_string()), Some(Bytes::from(payload)));
    let put = |role, records: Vec<_>| drop(appender.append_now(role, &records).expect("the log takes it"));
    put(Role::Users, world.users().map(|u| keyed(&u.user_id, json::bytes(&u))).collect());
    put(Role::Items, world.items().map(|i| keyed(&i.item_id, json::bytes(&i))).collect());
    let now = overdrive::model::time::now_ms();
    let event = |row: &_| json::event(&json::WireEvent { ts: now, ..world.wire(row) });
    let rows: Vec<_> = world.events().map(|row| keyed(world.user_name(row.user), event(&row))).collect();
    put(Role::Events, rows);
}
