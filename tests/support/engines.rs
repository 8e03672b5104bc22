//! Engines as real processes under their supervisors, alone or several as one, and what a test does to them: load, kills, readers,
//! and the comparison with a run that nothing disturbed.

use bytes::Bytes;
use overdrive::codec::json;
use overdrive::config::Config;
use overdrive::model::{Binding, Names, Positions, Role};
use overdrive::recovery::Recovery;
use overdrive::sinks::memory::{Dumped, Memory};
use overdrive::sinks::writer::Stats;
use overdrive::sources::Source;
use overdrive::sources::synthetic::{Params, World};
use overdrive::state::State;
use overdrive::worker::Engine;
use rustix::process::{Pid, Signal};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::input::{Append, Input, LogInput};
use super::redis::RedisServer;
use super::{free_port, until};

/// A number from the environment.
pub fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

/// Whether what a failed run leaves is to be looked at.
fn is_kept() -> bool {
    number("CHAOS_KEEP", 0) > 0
}

/// With `CHAOS_LOG`, what is said in this process is heard too: the load's client, and the undisturbed run.
fn listen() {
    if let Ok(filter) = std::env::var("CHAOS_LOG") {
        let logging = overdrive::config::Logging { filter, ..Config::defaults().logging };
        let _already = overdrive::telemetry::init(&logging);
    }
}

/// Draws; the same seed draws the same.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Workers of each process, and processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape(pub usize, pub usize);

/// A running `overdrive run`: a supervisor, whose child is an engine. Killed when dropped, and the engine with it.
pub struct Process(Child);

impl Process {
    /// Starts one, with further arguments and settings.
    pub fn start(dir: &Path, redis: &RedisServer, args: &[String], settings: &[(&str, &str)]) -> Self {
        Self(command(dir, redis, args, settings).spawn().expect("the binary starts"))
    }

    /// The engine's process id; waits until there is one.
    pub fn engine(&self) -> Pid {
        until("the supervisor starts an engine", || child_of(self.0.id()))
    }

    /// Tells the supervisor or the engine.
    pub fn tell(&self, pid: Pid, signal: Signal) {
        rustix::process::kill_process(pid, signal).expect("it can be told");
    }

    pub fn supervisor(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    /// `kill -9` of the engine; yields when another one has taken its place.
    pub fn kill_engine(&self) {
        let engine = self.engine();
        self.tell(engine, Signal::KILL);
        self.replaced(engine);
    }

    /// Waits until the supervisor has started another engine than this.
    pub fn replaced(&self, engine: Pid) {
        until("another engine is started", || child_of(self.0.id()).filter(|child| *child != engine));
    }

    /// `kill -9` of the supervisor; yields when its engine has gone too.
    pub fn kill(mut self) {
        let engine = child_of(self.0.id());
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it ends");
        engine.into_iter().for_each(|engine| until("the engine goes with its supervisor", || (!is_there(engine)).then_some(())));
    }

    pub fn terminate(&self) {
        self.tell(self.supervisor(), Signal::TERM);
    }

    /// How it ended; waits for it.
    pub fn ended(mut self) -> ExitStatus {
        until("it ends", || self.0.try_wait().expect("it can be asked"))
    }

    pub fn lives(&mut self) -> bool {
        self.0.try_wait().expect("it can be asked").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `overdrive run` with settings that make tests quick. It ends with the thread that starts it, however that ends.
pub fn command(dir: &Path, redis: &RedisServer, args: &[String], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_overdrive"), "run"])
        .args(args)
        .env("OVERDRIVE_STATE_DIR", dir)
        .env("OVERDRIVE_REDIS_URL", redis.url());
    command.env("OVERDRIVE_STORE__KIND", "redis").env("OVERDRIVE_METRICS__PORT", "0");
    command.env("OVERDRIVE_CHANGES__KIND", if is_kept() { "file" } else { "none" });
    command.env("OVERDRIVE_LOGGING__FILTER", std::env::var("CHAOS_LOG").unwrap_or("error,librdkafka=off,rdkafka=off".into()));
    command.env("OVERDRIVE_LEARN__ENABLED", "true"); // all there is to come back
    command.env("OVERDRIVE_RECOVERY__SNAPSHOT_EVERY", "1s").env("OVERDRIVE_ENGINE__EPOCH_ROWS", "200");
    command.env("OVERDRIVE_SUPERVISOR__RESTARTS", "1000").env("OVERDRIVE_SUPERVISOR__FIRST_PAUSE", "50ms");
    command.env("OVERDRIVE_SUPERVISOR__LONGEST_PAUSE", "1s");
    command.envs(settings.iter().copied()).stdin(Stdio::null()).current_dir(dir); // no settings but these
    command
}

/// The arguments of each process of a shape. The hosts file lies in `dir`.
pub fn arguments(dir: &Path, Shape(workers, processes): Shape) -> Vec<Vec<String>> {
    let mut common = vec!["--workers".to_string(), workers.to_string()];
    if processes > 1 {
        let hosts: String = (0..processes).map(|_| format!("127.0.0.1:{}\n", free_port())).collect();
        let file = dir.join("hosts");
        std::fs::write(&file, hosts).expect("the folder can be written to");
        let processes = ["--processes".to_string(), processes.to_string(), "--hosts".to_string()];
        common.extend(processes.into_iter().chain([file.display().to_string()]));
    }
    let of = |process: usize| [&common[..], &["--process".to_string(), process.to_string()]].concat();
    (0..processes).map(of).collect()
}

/// All processes of an engine.
pub struct Fleet(pub Vec<Process>);

impl Fleet {
    pub fn start(dir: &Path, redis: &RedisServer, shape: Shape, settings: &[(&str, &str)]) -> Self {
        Self(arguments(dir, shape).iter().map(|args| Process::start(dir, redis, args, settings)).collect())
    }

    /// SIGTERM to all; each exit must be a clean one.
    pub fn stop(self) {
        for process in &self.0 {
            process.engine(); // who is told before that may not yet listen
            process.terminate();
        }
        for process in self.0 {
            let status = process.ended();
            assert!(status.success(), "{status}");
        }
    }

    pub fn kill(self) {
        self.0.into_iter().for_each(Process::kill);
    }

    pub fn live(&mut self) -> bool {
        self.0.iter_mut().all(Process::lives)
    }
}

/// The state and the parent of a process: the third and fourth word of its `stat`, after the name in brackets.
fn state_and_parent(pid: &str) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    Some((words.next()?.to_string(), words.next()?.parse().ok()?))
}

/// The child of a process, if it has one that has not ended.
fn child_of(parent: u32) -> Option<Pid> {
    let names = std::fs::read_dir("/proc").expect("tests of processes run where there is /proc").flatten();
    let numbers = names.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.parse::<u32>().is_ok());
    let is_child = |pid: &String| state_and_parent(pid).is_some_and(|(state, of)| of == parent && state != "Z");
    Pid::from_raw(numbers.into_iter().find(is_child)?.parse().ok()?)
}

/// Whether a process is there and has not ended.
pub fn is_there(pid: Pid) -> bool {
    state_and_parent(&pid.as_raw_nonzero().to_string()).is_some_and(|(state, _)| state != "Z")
}

/// Something that runs beside the test until it is dropped.
pub struct Beside<T> {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<T>>,
}

impl<T: Send + 'static> Beside<T> {
    pub fn start(run: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        Self { stop, thread: Some(std::thread::spawn(move || run(&told))) }
    }

    pub fn end(mut self) -> T {
        self.stop.store(true, Ordering::Release);
        self.thread.take().expect("ended once").join().expect("it does not panic")
    }
}

impl<T> Drop for Beside<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ended = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Appends a made-up world's events, broken and repeated ones and a forgotten user among them, so many at once, until told to stop.
fn load(mut append: Append, seed: u64, batch: usize, stop: &AtomicBool) {
    let flawed = Params { seed, malformed: 0.05, duplicates: 0.05, ..Params::sized(10_000_000, 300, 200) };
    let world = World::new(flawed).expect("the parameters are good");
    let keyed = |key: &str, payload: Vec<u8>| (Bytes::from(key.to_string()), Some(Bytes::from(payload)));
    append(Role::Items, world.items().map(|i| keyed(&i.item_id, json::bytes(&i))).collect());
    let mut events = Vec::with_capacity(batch);
    for (n, row) in world.events().enumerate() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let mut wire = world.wire(&row);
        wire.ts = overdrive::model::time::now_ms();
        let event = if n % 20 == 7 { b"{broken".to_vec() } else { json::event(&wire) };
        events.push(keyed(&wire.user_id, event));
        if n % 1000 == 999 {
            let forget = format!(r#"{{"op":"forget","user_id":"{}"}}"#, wire.user_id);
            append(Role::Control, vec![keyed(&wire.user_id, forget.into_bytes())]);
        }
        if events.len() == batch {
            append(Role::Events, std::mem::take(&mut events));
            std::thread::sleep(Duration::from_micros(600));
        }
    }
}

/// Reads every key over and over; yields what it saw go back. What `losses` counts begins anew; a server that is away is waited for.
fn watch(url: &str, losses: &AtomicU64, stop: &AtomicBool) -> Vec<String> {
    let client = redis::Client::open(url).expect("a readable url");
    let mut seen = Seen::default();
    while !stop.load(Ordering::Acquire) {
        let away = match client.get_connection() {
            Ok(mut redis) => seen.read_while(&mut redis, losses, stop).is_err(),
            Err(_) => true,
        };
        std::thread::sleep(Duration::from_millis(if away { 20 } else { 0 }));
    }
    seen.back
}

/// What a reader has seen.
#[derive(Default)]
struct Seen {
    epochs: BTreeMap<String, u64>,
    lost: u64,
    back: Vec<String>,
}

impl Seen {
    fn read_while(&mut self, redis: &mut redis::Connection, losses: &AtomicU64, stop: &AtomicBool) -> redis::RedisResult<()> {
        while !stop.load(Ordering::Acquire) {
            let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(redis)?;
            for key in keys {
                let epoch = epoch_in(redis, &key);
                self.note(key, epoch, losses.load(Ordering::Acquire));
            }
        }
        Ok(())
    }

    fn note(&mut self, key: String, epoch: Option<u64>, losses: u64) {
        if std::mem::replace(&mut self.lost, losses) != losses || losses % 2 == 1 {
            self.epochs.clear(); // it is being lost, or was
            return;
        }
        let Some(epoch) = epoch else { return };
        let before = self.epochs.insert(key.clone(), epoch).unwrap_or(0);
        if epoch < before {
            self.back.push(format!("{key}: {before} then {epoch}"));
        }
    }
}

/// The epoch a key shows; `None`: it shows none, or it is gone.
fn epoch_in(redis: &mut redis::Connection, key: &str) -> Option<u64> {
    if let Ok(value) = redis::cmd("GETRANGE").arg(key).arg(4).arg(11).query::<Vec<u8>>(redis) {
        return Some(u64::from_be_bytes(value.try_into().ok()?));
    }
    redis::cmd("HGET").arg(key).arg("epoch").query::<Option<u64>>(redis).ok().flatten()
}

/// Links every file of the epoch log into a folder where nobody trims it.
pub fn archive(from: &Path, into: &Path, stop: &AtomicBool) {
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

/// What an undisturbed run with one worker leaves over the same epochs.
fn oracle(
    dir: &Path,
    settings: &[(&str, &str)],
    bindings: Vec<Binding>,
    open: impl FnOnce(Positions) -> Box<dyn Source>,
) -> (BTreeMap<String, Dumped>, Stats) {
    let settings = settings.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let mut config = Config::load(None, settings).expect("the settings are good");
    config.recommend.learn.enabled = true;
    (config.engine.workers, config.engine.state_dir) = (1, dir.join("oracle"));
    std::fs::create_dir(&config.engine.state_dir).expect("a folder");
    let found = Recovery::over(bindings);
    let source = open(found.positions());
    let memory = Memory::new(&config.store.prefix);
    let engine = Engine::start(&config, Arc::new(Names::default()), source, Box::new(memory.clone()), Some(found), |_| {});
    let engine = engine.expect("the engine starts");
    while !engine.has_ended() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (stats, fed) = engine.stop();
    fed.expect("the log is read");
    (memory.dump(), stats)
}

/// Less what tells runs apart: the generation, its checksum, and `meta`.
pub fn less_generation(mut dump: BTreeMap<String, Dumped>) -> BTreeMap<String, Dumped> {
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

pub fn connect(redis: &RedisServer) -> redis::Connection {
    redis::Client::open(redis.url()).and_then(|c| c.get_connection()).expect("redis answers")
}

/// The newest epoch that Redis shows; 0: none.
pub fn shown(redis: &RedisServer) -> u64 {
    redis::cmd("HGET").arg("od:meta").arg("epoch").query::<Option<u64>>(&mut connect(redis)).expect("redis answers").unwrap_or(0)
}

/// Until everything that lies in the log is answered, and nothing is missing.
pub fn wait_for(redis: &RedisServer, ends: &Positions) {
    let mut connection = connect(redis);
    until("the engine catches up", || {
        let meta: BTreeMap<String, String> = redis::cmd("HGETALL").arg("od:meta").query(&mut connection).expect("redis answers");
        let at = |(role, partition): &(Role, u32)| {
            meta.get(&format!("offset:{}:{partition}", role.name())).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0)
        };
        (ends.iter().all(|(place, end)| at(place) >= *end) && !meta.contains_key("rebuilding")).then_some(())
    });
}

/// A folder, a Redis, a stream into an input, a reader, and everything that was ever bound.
pub struct Scene {
    // what runs ends before what it needs is gone
    load: Beside<()>,
    reader: Beside<Vec<String>>,
    archive: Beside<()>,
    pub redis: RedisServer,
    pub input: Box<dyn Input>,
    kept: tempfile::TempDir,
    pub dir: tempfile::TempDir,
    losses: Arc<AtomicU64>,
    settings: &'static [(&'static str, &'static str)],
}

/// What a scene is made of: where the stream lies (`None`: in the embedded log), which Redis, how many events arrive at once, and
/// settings of the engine, undisturbed or not.
pub struct Stage {
    pub input: Option<Box<dyn Input>>,
    pub redis: RedisServer,
    pub batch: usize,
    pub settings: &'static [(&'static str, &'static str)],
}

impl Scene {
    /// With the embedded log and a Redis that keeps nothing on disk.
    pub fn open(seed: u64) -> Self {
        Self::on(Stage { input: None, redis: RedisServer::start(), batch: 1, settings: &[] }, seed)
    }

    pub fn on(Stage { input, redis, batch, settings }: Stage, seed: u64) -> Self {
        listen();
        let (dir, losses) = (tempfile::tempdir().expect("a folder"), Arc::new(AtomicU64::new(0)));
        let kept = tempfile::tempdir_in(dir.path()).expect("a folder");
        let input = input.unwrap_or_else(|| Box::new(LogInput::new(dir.path())));
        let (from, into): (PathBuf, PathBuf) = (dir.path().join("state/epochs"), kept.path().join("epochs"));
        let (url, counted, append) = (redis.url(), losses.clone(), input.appender());
        Self {
            load: Beside::start(move |stop| load(append, seed, batch, stop)),
            reader: Beside::start(move |stop| watch(&url, &counted, stop)),
            archive: Beside::start(move |stop| archive(&from, &into, stop)),
            dir,
            redis,
            input,
            kept,
            losses,
            settings,
        }
    }

    /// An engine that reads this stream.
    pub fn start(&self, shape: Shape, settings: &[(&str, &str)]) -> Fleet {
        let input = self.input.settings();
        let of_input = input.iter().map(|(name, value)| (*name, value.as_str()));
        let all: Vec<(&str, &str)> = of_input.chain(self.settings.iter().copied()).chain(settings.iter().copied()).collect();
        Fleet::start(self.dir.path(), &self.redis, shape, &all)
    }

    /// Redis loses something. The count is odd while it happens.
    pub fn losing<T>(&mut self, lose: impl FnOnce(&mut RedisServer) -> T) -> T {
        self.losses.fetch_add(1, Ordering::AcqRel);
        let lost = lose(&mut self.redis);
        self.losses.fetch_add(1, Ordering::AcqRel);
        lost
    }

    /// Redis is killed and started again; what it kept on disk is not lost.
    pub fn restart_redis(&mut self) {
        if self.redis.keeps() { self.redis.restart() } else { self.losing(RedisServer::restart) }
    }

    /// Redis loses everything.
    pub fn lose(&mut self) {
        self.losing(|redis| redis::cmd("FLUSHALL").exec(&mut connect(redis)).expect("redis answers"));
    }

    /// The stream ends, `fleet` brings it to its end and stops; then everything must be as if nothing had been. Yields a line of figures.
    pub fn close(self, fleet: Fleet) -> String {
        self.load.end();
        let (dir, ends) = (self.dir.path(), self.input.ends());
        wait_for(&self.redis, &ends);
        fleet.stop();
        let back = self.reader.end();
        self.archive.end();
        let bindings = State::open(self.kept.path()).expect("nobody has the archive").bindings(None).expect("it is whole");
        covers(&bindings, &ends);
        let (undisturbed, stats) = oracle(dir, self.settings, bindings, |from| self.input.open(from));
        let kept = is_kept().then(|| self.dir.keep());
        let events: u64 = ends.iter().filter(|((role, _), _)| *role == Role::Events).map(|(_, end)| end).sum();
        assert!(stats.account.balances() && stats.account.consumed == events, "{events} events, {:?}", stats.account);
        assert!(stats.account.dead > 0 && stats.account.duplicate > 0, "{:?}", stats.account);
        let keys = same(&less_generation(undisturbed), &less_generation(super::redis::dump(&mut connect(&self.redis))));
        assert!(back.is_empty(), "{} times an epoch went back: {:?}", back.len(), &back[..back.len().min(5)]);
        kept.into_iter().for_each(|kept| std::fs::remove_dir_all(kept).expect("it is ours"));
        let losses = self.losses.load(Ordering::Acquire) / 2;
        format!("{losses} losses of everything, {events} events, {} epochs, {keys} keys equal", stats.epochs)
    }
}

/// Both hold the same; yields how many keys.
fn same(undisturbed: &BTreeMap<String, Dumped>, left: &BTreeMap<String, Dumped>) -> usize {
    let differ: Vec<_> = undisturbed.keys().chain(left.keys()).filter(|k| undisturbed.get(*k) != left.get(*k)).collect();
    let first = differ.first().map(|key| (undisturbed.get(*key), left.get(*key)));
    assert!(differ.is_empty(), "{} keys of {} differ: {:?} {first:?}", differ.len(), left.len(), &differ[..differ.len().min(5)]);
    left.len()
}
