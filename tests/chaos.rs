//! Killed at random, again and again, under load, with Redis losing everything now and then: in the end every key holds what a run
//! leaves that was never interrupted, over the same epochs; every record was read once; and no reader ever saw a key's epoch go back
//! but where Redis had lost it.
//!
//! `CHAOS_KILLS=200 CHAOS_SEED=7 cargo test --test chaos` is the long form; a failure prints the line that
//! repeats it.

#[path = "support/mod.rs"]
mod support;

use bytes::Bytes;
use overdrive::codec::json;
use overdrive::config::Config;
use overdrive::model::{Binding, Names, Positions, Role};
use overdrive::recovery::Recovery;
use overdrive::sinks::memory::{Dumped, Memory};
use overdrive::sources::log::{LogAppender, LogSource, ends, folder};
use overdrive::sources::synthetic::{Params, World};
use overdrive::state::State;
use overdrive::worker::Engine;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::redis::RedisServer;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

/// Draws; the same seed draws the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A running `overdrive run`, killed when dropped.
struct Process(Child);

impl Process {
    fn start(dir: &Path, redis: &RedisServer, workers: u64) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
        command.arg("run").env("OVERDRIVE_STATE_DIR", dir).env("OVERDRIVE_REDIS_URL", redis.url());
        command.env("OVERDRIVE_STORE__KIND", "redis").env("OVERDRIVE_METRICS__PORT", "0").env("OVERDRIVE_CHANGES__KIND", "none");
        command.env("OVERDRIVE_ENGINE__WORKERS", workers.to_string()).env("OVERDRIVE_LOGGING__FILTER", "warn");
        command.env("OVERDRIVE_RECOVERY__SNAPSHOT_EVERY", "1s").env("OVERDRIVE_ENGINE__EPOCH_ROWS", "200");
        Self(command.spawn().expect("the binary starts"))
    }

    fn kill(mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
    }

    /// SIGTERM; the exit must be a clean one.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it can be told");
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.0.try_wait().expect("it can be asked") {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < until, "it does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().expect("it can be asked").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Something that runs beside the test until it is dropped.
struct Beside<T> {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<T>>,
}

impl<T: Send + 'static> Beside<T> {
    fn start(run: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        Self { stop, thread: Some(std::thread::spawn(move || run(&told))) }
    }

    fn end(mut self) -> T {
        self.stop.store(true, Ordering::Release);
        self.thread.take().expect("ended once").join().expect("it does not panic")
    }
}

/// Appends a made-up world's events, broken and repeated ones and a forgotten user among them, until told to stop.
fn load(log: LogAppender, seed: u64, stop: &AtomicBool) {
    let flawed = Params { seed, malformed: 0.05, duplicates: 0.05, ..Params::sized(10_000_000, 300, 200) };
    let world = World::new(flawed).expect("the parameters are good");
    let keyed = |key: &str, payload: Vec<u8>| (Bytes::from(key.to_string()), Some(Bytes::from(payload)));
    let put = |role, records: Vec<_>| drop(log.append_now(role, &records).expect("the log takes it"));
    put(Role::Items, world.items().map(|i| keyed(&i.item_id, json::bytes(&i))).collect());
    for (n, row) in world.events().enumerate() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let mut wire = world.wire(&row);
        wire.ts = overdrive::model::time::now_ms();
        let event = if n % 20 == 7 { b"{broken".to_vec() } else { json::event(&wire) };
        put(Role::Events, vec![keyed(&wire.user_id, event)]);
        if n % 1000 == 999 {
            let forget = format!(r#"{{"op":"forget","user_id":"{}"}}"#, wire.user_id);
            put(Role::Control, vec![keyed(&wire.user_id, forget.into_bytes())]);
        }
        std::thread::sleep(Duration::from_micros(600));
    }
}

/// Reads every key over and over; yields what it saw go back. What `losses` counts begins anew.
fn watch(url: String, losses: &AtomicU64, stop: &AtomicBool) -> Vec<String> {
    let mut redis = redis::Client::open(url).and_then(|c| c.get_connection()).expect("redis answers");
    let (mut seen, mut back, mut lost) = (BTreeMap::<String, u64>::new(), Vec::new(), 0);
    while !stop.load(Ordering::Acquire) {
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut redis).expect("redis answers");
        for key in keys {
            let epoch = epoch_in(&mut redis, &key);
            let now = losses.load(Ordering::Acquire);
            if std::mem::replace(&mut lost, now) != now || now % 2 == 1 {
                seen.clear(); // it is being lost, or was
                continue;
            }
            let Some(epoch) = epoch else { continue };
            let before = seen.insert(key.clone(), epoch).unwrap_or(0);
            if epoch < before {
                back.push(format!("{key}: {before} then {epoch}"));
            }
        }
    }
    back
}

/// The epoch a key shows; `None`: it shows none, or it is gone.
fn epoch_in(redis: &mut redis::Connection, key: &str) -> Option<u64> {
    if let Ok(value) = redis::cmd("GETRANGE").arg(key).arg(4).arg(11).query::<Vec<u8>>(redis) {
        return Some(u64::from_be_bytes(value.try_into().ok()?));
    }
    redis::cmd("HGET").arg(key).arg("epoch").query::<Option<u64>>(redis).ok().flatten()
}

/// Links every file of the epoch log into a folder where nobody trims it.
fn archive(from: &Path, into: &Path, stop: &AtomicBool) {
    std::fs::create_dir_all(into).expect("a folder");
    let mut last = false;
    while !last {
        last = stop.load(Ordering::Acquire);
        for file in std::fs::read_dir(from).into_iter().flatten().flatten() {
            let _there = std::fs::hard_link(file.path(), into.join(file.file_name()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What an undisturbed run leaves over the same epochs.
fn oracle(config: &Config, dir: &Path, bindings: Vec<Binding>) -> (BTreeMap<String, Dumped>, overdrive::sinks::writer::Stats) {
    let found = Recovery::over(bindings);
    let source = LogSource::open(&folder(dir), &config.log, found.positions()).expect("the log opens");
    let memory = Memory::new(&config.store.prefix);
    let elsewhere = tempfile::tempdir().expect("a folder");
    let mut config = config.clone();
    config.engine.state_dir = elsewhere.path().to_path_buf();
    let engine =
        Engine::start(&config, Arc::new(Names::default()), Box::new(source), Box::new(memory.clone()), Some(found), |_| {});
    let engine = engine.expect("the engine starts");
    while !engine.has_ended() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (stats, fed) = engine.stop();
    fed.expect("the log is read");
    (memory.dump(), stats)
}

/// Less what tells runs apart: the generation, its checksum, and `meta`.
fn less_generation(mut dump: BTreeMap<String, Dumped>) -> BTreeMap<String, Dumped> {
    dump.remove("od:meta");
    for dumped in dump.values_mut() {
        match dumped {
            Dumped::Value(value) => *value = [&value[..12], &value[24..]].concat().into(),
            Dumped::Fields(fields) => drop(fields.remove("generation")),
            Dumped::Ranked(_) => {}
        }
    }
    dump
}

/// The bindings lead from the first record to the last without a gap or an overlap.
fn covers(bindings: &[Binding], ends: &Positions) {
    let mut next = Positions::new();
    for binding in bindings {
        for (place, (from, to)) in &binding.offsets {
            let at = next.entry(*place).or_insert(0);
            assert_eq!(at, from, "epoch {}: {place:?}", binding.epoch.number);
            *at = *to;
        }
    }
    assert_eq!(&next, ends);
}

fn archived(dir: &Path) -> (tempfile::TempDir, PathBuf) {
    let kept = tempfile::tempdir_in(dir).expect("a folder");
    let epochs = kept.path().join("epochs");
    (kept, epochs)
}

#[test]
fn killed_at_random_it_leaves_what_an_undisturbed_run_leaves() {
    let (kills, seed) = (number("CHAOS_KILLS", 5), number("CHAOS_SEED", 1));
    eprintln!("repeat: CHAOS_KILLS={kills} CHAOS_SEED={seed} cargo test --test chaos");
    let losses = Arc::new(AtomicU64::new(0));
    let (redis, dir, mut dice) = (RedisServer::start(), tempfile::tempdir().expect("a folder"), Dice(seed));
    let config = Config::defaults();
    let (kept, epochs) = archived(dir.path());
    let log = LogAppender::open(&folder(dir.path()), &config.log).expect("the log opens");
    let archive = Beside::start({
        let from = dir.path().join("state/epochs");
        move |stop| archive(&from, &epochs, stop)
    });
    let load = Beside::start(move |stop| load(log, seed, stop));
    let reader = Beside::start({
        let url = redis.url();
        let losses = losses.clone();
        move |stop| watch(url, &losses, stop)
    });
    for round in 0..kills {
        let workers = 1 + dice.below(3);
        let mut process = Process::start(dir.path(), &redis, workers);
        std::thread::sleep(Duration::from_millis(50 + dice.below(3_000)));
        if dice.below(5) == 0 {
            lose(&redis, &losses);
            std::thread::sleep(Duration::from_millis(dice.below(2_000)));
        }
        assert!(process.lives(), "start {round} with {workers} workers ended by itself");
        if dice.below(6) == 0 { process.stop() } else { process.kill() }
    }
    load.end();
    let last = Process::start(dir.path(), &redis, 2);
    let ends = ends(&folder(dir.path()), &config.log).expect("the log tells");
    wait_for(&redis, &ends);
    last.stop();
    let back = reader.end();
    archive.end();
    let state = State::open(kept.path()).expect("nobody has the archive");
    let bindings = state.bindings(None).expect("the archive is whole");
    covers(&bindings, &ends);
    let (undisturbed, stats) = oracle(&config, dir.path(), bindings);
    let events: u64 = ends.iter().filter(|((role, _), _)| *role == Role::Events).map(|(_, end)| end).sum();
    assert!(stats.account.balances() && stats.account.consumed == events, "{events} events, {:?}", stats.account);
    assert!(stats.account.dead > 0 && stats.account.duplicate > 0, "{:?}", stats.account);
    let left = {
        let mut connection = redis::Client::open(redis.url()).and_then(|c| c.get_connection()).expect("redis answers");
        less_generation(support::redis::dump(&mut connection))
    };
    let undisturbed = less_generation(undisturbed);
    let differ: Vec<_> = undisturbed.keys().chain(left.keys()).filter(|k| undisturbed.get(*k) != left.get(*k)).collect();
    let first = differ.first().map(|key| (undisturbed.get(*key), left.get(*key)));
    assert!(differ.is_empty(), "{} keys of {} differ: {:?} {first:?}", differ.len(), left.len(), &differ[..differ.len().min(5)]);
    assert!(back.is_empty(), "{} times an epoch went back: {:?}", back.len(), &back[..back.len().min(5)]);
    let losses = losses.load(Ordering::Acquire) / 2;
    eprintln!(
        "{kills} kills and stops, {losses} losses of everything, {events} events, {} epochs, {} keys equal",
        stats.epochs,
        left.len()
    );
}

/// Redis loses everything. The count is odd while it happens.
fn lose(redis: &RedisServer, losses: &AtomicU64) {
    let mut connection = redis::Client::open(redis.url()).and_then(|c| c.get_connection()).expect("redis answers");
    losses.fetch_add(1, Ordering::AcqRel);
    redis::cmd("FLUSHALL").exec(&mut connection).expect("redis answers");
    losses.fetch_add(1, Ordering::AcqRel);
}

/// Until everything that lies in the log is answered, and nothing is missing.
fn wait_for(redis: &RedisServer, ends: &Positions) {
    let mut connection = redis::Client::open(redis.url()).and_then(|c| c.get_connection()).expect("redis answers");
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        let meta: BTreeMap<String, String> = redis::cmd("HGETALL").arg("od:meta").query(&mut connection).expect("redis answers");
        let at = |(role, partition): &(Role, u32)| {
            meta.get(&format!("offset:{}:{partition}", role.name())).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0)
        };
        if ends.iter().all(|(place, end)| at(place) >= *end) && !meta.contains_key("rebuilding") {
            return;
        }
        assert!(Instant::now() < until, "the engine does not catch up: {meta:?}, the log ends at {ends:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
