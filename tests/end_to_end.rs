//! The whole path on real servers: a generated stream through Kafka and the engine into Redis and the store in memory at once, and
//! through the embedded log; every event accounted for, every key of both stores equal.
//!
//! `OVERDRIVE_TEST_DATA=DIR` runs the Kafka test over a recorded stream instead (a folder with `events.parquet`).
#![cfg(all(feature = "kafka", feature = "redis"))]

#[path = "support/mod.rs"]
mod support;

use bytes::Bytes;
use overdrive::codec::json;
use overdrive::config::{ClockKind, Config};
use overdrive::model::{Names, Positions, Role};
use overdrive::sinks::layout::proto;
use overdrive::sinks::memory::{Dumped, Memory};
use overdrive::sinks::redis::Redis;
use overdrive::sinks::writer::Stats;
use overdrive::sinks::{Applied, Found, Known, Store, StoreError, Swept, Write};
use overdrive::sources::synthetic::{Params, World};
use overdrive::sources::{self, Appender, Source};
use overdrive::worker::Engine;
use prost::Message;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::kafka::KafkaBroker;
use support::redis::RedisServer;

/// Two stores that get the same writes.
struct Both(Memory, Redis);

impl Store for Both {
    fn write(&mut self, writes: &[Write], applied: &Applied, known: Known) -> Result<Found, StoreError> {
        self.1.write(writes, applied, known)?;
        self.0.write(writes, applied, known)
    }

    fn sweep(&mut self, before: u64, ttl: Duration) -> Result<Swept, StoreError> {
        self.1.sweep(before, ttl)?;
        self.0.sweep(before, ttl)
    }
}

/// The defaults in a folder of the test's own, on the time of the stream; nothing expires by the time of day while the test looks.
fn config(dir: &Path) -> Config {
    let mut config = Config::defaults();
    config.engine.state_dir = dir.to_path_buf();
    config.engine.clock = ClockKind::Event;
    config.recommend.learn.enabled = true; // what is learned has to be the same, too
    for ttl in [
        &mut config.store.tombstone_ttl,
        &mut config.store.user_ttl,
        &mut config.store.item_ttl,
        &mut config.store.slate_ttl,
        &mut config.store.trending_ttl,
        &mut config.store.near_ttl,
        &mut config.store.card_ttl,
    ] {
        *ttl = Duration::from_secs(7 * 86_400);
    }
    config
}

/// A small world: its catalogue and its events, broken, repeated and late ones among them.
fn world(events: u64) -> World {
    let flawed = Params { malformed: 0.1, duplicates: 0.02, late: 0.02, ..Params::sized(events, 300, 200) };
    World::new(flawed).expect("the parameters are good")
}

/// Its records, and how many of them are broken.
fn fill(appender: &dyn Appender, events: u64) -> u64 {
    let world = world(events);
    let keyed = |key: &str, payload: Vec<u8>| (Bytes::from(key.to_string()), Some(Bytes::from(payload)));
    let users = world.users().map(|u| keyed(&u.user_id, json::bytes(&u))).collect();
    let items = world.items().map(|i| keyed(&i.item_id, json::bytes(&i))).collect();
    let mut drawn = world.events();
    let mut records = Vec::new();
    for row in drawn.by_ref() {
        let mut payload = Vec::new();
        world.write(&row, &mut payload);
        records.push(keyed(world.user_name(row.user), payload));
    }
    let malformed = drawn.counts().malformed;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for (role, records) in [(Role::Users, users), (Role::Items, items), (Role::Events, records)] {
        runtime.block_on(appender.append(role, records)).expect("the log takes it");
    }
    malformed
}

/// A recorded stream into Kafka, by the command an operator would use.
fn replay(config: &Config, data: &Path) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_overdrive"));
    command.args(["replay", "--to", "kafka", "--speed", "max", "--from"]).arg(data);
    let kafka = &config.kafka;
    let names = [("EVENTS", &kafka.events_topic), ("ITEMS", &kafka.items_topic), ("USERS", &kafka.users_topic)];
    command.envs(names.map(|(role, topic)| (format!("OVERDRIVE_KAFKA__{role}_TOPIC"), topic)));
    let done = command.env("OVERDRIVE_SOURCE__KIND", "kafka").env("OVERDRIVE_KAFKA_BROKERS", &kafka.brokers).status();
    assert!(done.expect("replay runs").success());
}

/// Runs the engine until everything that lies in the log is in the store, and two heartbeats more.
fn run(config: &Config, source: Box<dyn Source>, store: Box<dyn Store>, memory: &Memory, ends: &Positions) -> Stats {
    let engine = Engine::start(config, Arc::new(Names::default()), source, store, None, |_| {}).expect("the engine starts");
    let until = Instant::now() + Duration::from_secs(300);
    let covered =
        |applied: &Applied| ends.iter().all(|(place, end)| applied.tick_offsets.get(place).copied().unwrap_or(0) >= *end);
    while !covered(&memory.applied()) {
        assert!(Instant::now() < until && !engine.has_ended(), "the stream is not through: {:?}", memory.applied());
        std::thread::sleep(Duration::from_millis(20));
    }
    let (stats, fed) = engine.stop();
    fed.expect("the source did not fail");
    stats
}

/// The account of a run adds up to what lay in the log.
fn check(stats: &Stats, events: u64, dead: u64) {
    let account = stats.account;
    assert!(account.balances(), "{account:?}");
    assert_eq!((account.consumed, account.dead), (events, dead), "{account:?}");
    assert_eq!((stats.unwritten, stats.skipped), (0, 0));
}

fn dump_of(server: &RedisServer) -> BTreeMap<String, Dumped> {
    let mut connection = redis::Client::open(server.url()).and_then(|c| c.get_connection()).expect("redis answers");
    support::redis::dump(&mut connection)
}

/// What a slate says of the categories of its items is what the catalogue says.
fn slates_know_their_categories(left: &BTreeMap<String, Dumped>) {
    let world = world(20_000);
    let listed: BTreeMap<String, Vec<String>> =
        world.items().map(|item| (item.item_id.to_string(), item.categories.iter().map(ToString::to_string).collect())).collect();
    let mut named = 0;
    for (key, value) in left.iter().filter(|(key, _)| key.starts_with("od:slate:")) {
        let Dumped::Value(value) = value else { panic!("{key} is no value") };
        // Without its generation a header has 12 bytes, and no checksum.
        let slate = proto::Slate::decode(&value[12..]).expect("what was written");
        for (place, item) in slate.items.iter().enumerate() {
            let of: Vec<&String> =
                slate.categories.iter().filter(|of| of.places.contains(&(place as u32))).map(|of| &of.name).collect();
            assert_eq!(of, listed.get(&item.item_id).into_iter().flatten().collect::<Vec<_>>(), "{key}: {}", item.item_id);
            named += of.len();
        }
    }
    assert!(named > 1_000, "{named} places have a category");
}

fn events_in(ends: &Positions) -> u64 {
    ends.iter().filter(|((role, _), _)| *role == Role::Events).map(|(_, end)| end).sum()
}

#[test]
fn through_kafka_into_redis_every_event_is_accounted_for_and_both_stores_are_equal() {
    let (broker, redis) = (KafkaBroker::shared(), RedisServer::start());
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path());
    config.source.kind = sources::Kind::Kafka;
    config.kafka = broker.params("end-to-end");
    config.redis.url = redis.url();
    sources::kafka::create_topics(&config.kafka).expect("the topics are made");
    let dead = match std::env::var("OVERDRIVE_TEST_DATA") {
        Ok(data) => {
            replay(&config, Path::new(&data));
            None
        }
        Err(_) => {
            let appender = sources::kafka::KafkaAppender::open(&config.kafka).expect("the producer opens");
            Some(fill(&appender, 20_000))
        }
    };
    let ends = sources::kafka::ends(&config.kafka).expect("the broker tells");
    let memory = Memory::new(&config.store.prefix);
    let both = Both(memory.clone(), Redis::open(&config.redis, &config.store.prefix).expect("redis answers"));
    let source = sources::open(&config.source, &config.log, &config.kafka, &config.fluvio, dir.path(), &Positions::new())
        .expect("kafka opens");
    let began = Instant::now();
    let stats = run(&config, source, Box::new(both), &memory, &ends);
    check(&stats, events_in(&ends), dead.unwrap_or(stats.account.dead));
    eprintln!("{:?} in {:?}, {} writes", stats.account, began.elapsed(), stats.writes);
    let (in_memory, in_redis) = (memory.dump(), dump_of(&redis));
    let differ: Vec<_> = in_memory.keys().chain(in_redis.keys()).filter(|k| in_memory.get(*k) != in_redis.get(*k)).collect();
    assert!(differ.is_empty(), "{} keys differ: {:?}", differ.len(), &differ[..differ.len().min(5)]);
    assert!(in_memory.len() > 100, "{} keys", in_memory.len());
}

#[test]
fn the_same_log_with_one_two_and_four_workers_leaves_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path());
    config.engine.epoch_interval = Duration::from_secs(1); // so that epochs are cut by their rows alone
    let folder = sources::log::folder(dir.path());
    let appender = sources::log::LogAppender::open(&folder, &config.log).expect("the log opens");
    let malformed = fill(&appender, 20_000);
    let ends = sources::log::ends(&folder, &config.log).expect("the log tells");
    let mut left = Vec::new();
    for workers in [1, 2, 4] {
        config.engine.workers = workers;
        let memory = Memory::new(&config.store.prefix);
        let source = sources::open(&config.source, &config.log, &config.kafka, &config.fluvio, dir.path(), &Positions::new())
            .expect("it opens");
        let stats = run(&config, source, Box::new(memory.clone()), &memory, &ends);
        check(&stats, events_in(&ends), malformed);
        left.push(support::engines::less_generation(memory.dump()));
    }
    assert!(left[0].len() > 100, "{} keys", left[0].len());
    for (other, workers) in left[1..].iter().zip([2, 4]) {
        let differ: Vec<_> = left[0].keys().chain(other.keys()).filter(|k| left[0].get(*k) != other.get(*k)).collect();
        assert!(differ.is_empty(), "{workers} workers: {} keys differ: {:?}", differ.len(), &differ[..differ.len().min(5)]);
    }
    slates_know_their_categories(&left[0]);
    for family in ["near:", "trending:language:", "trending:cell:", "trending:category:"] {
        assert!(left[0].keys().any(|key| key.starts_with(&format!("od:{family}"))), "there is no {family}");
    }
    let letters = std::fs::read_to_string(dir.path().join("dead/dead.jsonl")).expect("the letters are there");
    assert_eq!(letters.lines().count() as u64, 3 * malformed, "every malformed event of each run has its letter");
}
