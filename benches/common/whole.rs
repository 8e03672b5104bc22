//! A whole engine over the embedded log and the store in memory, in a folder of its own.

use bytes::Bytes;
use overdrive::codec::json;
use overdrive::config::Config;
use overdrive::model::{Names, Positions, Role};
use overdrive::recovery::Recovery;
use overdrive::sinks::memory::Memory;
use overdrive::sinks::writer::Stats;
use overdrive::sources::synthetic::{Params, World};
use overdrive::sources::{self, log};
use overdrive::state::Address;
use overdrive::worker::Engine;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The defaults in a folder, with a refresh for every event: the work of a stream that keeps up.
pub fn config(dir: &Path, workers: usize) -> Config {
    let mut config = Config::defaults();
    config.engine.state_dir = dir.to_path_buf();
    config.engine.workers = workers;
    config.recommend.slates.busy_refreshes = 1.0;
    config.changes.kind = overdrive::sinks::changes::Kind::None;
    config
}

/// Puts the events of a made-up world into the log, accepted now.
pub fn fill(config: &Config, events: u64, users: u64, items: u64) {
    let appender = log::LogAppender::open(&log::folder(&config.engine.state_dir), &config.log).expect("the log opens");
    let world = World::new(Params::sized(events, users as u32, items as u32)).expect("good parameters");
    let keyed = |key: &str, payload: Vec<u8>| (Bytes::from(key.to_string()), Some(Bytes::from(payload)));
    let put = |role, records: Vec<_>| drop(appender.append_now(role, &records).expect("the log takes it"));
    put(Role::Users, world.users().map(|u| keyed(&u.user_id, json::bytes(&u))).collect());
    put(Role::Items, world.items().map(|i| keyed(&i.item_id, json::bytes(&i))).collect());
    let now = overdrive::model::time::now_ms();
    let event = |row: &_| json::event(&json::WireEvent { ts: now, ..world.wire(row) });
    let rows: Vec<_> = world.events().map(|row| keyed(world.user_name(row.user), event(&row))).collect();
    put(Role::Events, rows);
}

/// What an engine took.
pub struct Ran {
    /// Until it was ready to read, and until everything in the log could be read from the store.
    pub start: Duration,
    pub wall: Duration,
    pub cpu: Duration,
    pub stats: Stats,
}

/// Runs an engine until everything in the log can be read from the store. With `[recovery] enabled` it goes on from what is in the folder.
pub fn run(config: &Config) -> Ran {
    let (dir, memory) = (&config.engine.state_dir, Memory::new("od:"));
    let ends = log::ends(&log::folder(dir), &config.log).expect("the log tells");
    let (began, cpu) = (Instant::now(), super::cpu());
    let found = config.recovery.enabled.then(|| {
        Recovery::open(&Address::Folder(dir.join("state")), &config.recommend, config.recovery.snapshots_kept)
            .expect("there is no other engine")
    });
    let recorded = found.as_ref().map(Recovery::positions).unwrap_or_else(Positions::new);
    let source =
        sources::open(&config.source, &config.log, &config.kafka, &config.fluvio, dir, &recorded).expect("the log opens");
    let names = Arc::new(Names::default());
    let engine = Engine::start(config, names, source, Box::new(memory.clone()), found, |_| {}).expect("it starts");
    let start = began.elapsed();
    let covered = || ends.iter().all(|(place, end)| memory.applied().offsets.get(place).copied().unwrap_or(0) >= *end);
    while !covered() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (wall, cpu) = (began.elapsed(), super::cpu() - cpu);
    let (stats, read) = engine.stop();
    read.expect("the log can be read");
    Ran { start, wall, cpu, stats }
}
