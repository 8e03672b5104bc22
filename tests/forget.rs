//! A user who stands in every field there is acts, is forgotten, and is looked for: in decoded snapshots, in every file below the state
//! folder, in every key and value of a real Redis, in what the process says and in its metrics. In between the engine is killed and
//! has to begin with a snapshot that still knows the user. What it then holds of everybody else equals a run that never met the user.
//!
//! It takes more than a minute: that is the shortest time for which Redis may be told to remember deletions.
#![cfg(feature = "redis")]

#[path = "shim/client.rs"]
#[allow(dead_code, reason = "this binary uses a part of it")]
mod client;
mod support;

use bytes::Bytes;
use overdrive::config::Config;
use overdrive::model::{Binding, Names, Role};
use overdrive::recovery::Recovery;
use overdrive::sinks::layout::{self, proto};
use overdrive::sinks::memory::{Dumped, Memory};
use overdrive::sources::log::{LogAppender, LogSource, folder};
use overdrive::state::{Look, State, manifest::Name, segment};
use overdrive::worker::Engine;
use parquet::file::reader::SerializedFileReader;
use prost::Message;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::redis::RedisServer;
use support::wait;

/// In every text that is the user's, and in nothing else.
const CANARY: &str = "canary-7f3a9c";
/// Their id.
const USER: &str = "canary-7f3a9c-user";
/// What models are trained on.
const TRAINED_ON: [&str; 2] = ["examples", "impressions"];
/// For who named the interest that the user has, too.
const EXPERIMENTS: &str = "[{ name = 'liked', rollout = 1.0, cohort = { interests = ['c1'] }, arms = [\
                           { name = 'a', weight = 1, ranks = 'blend' }, { name = 'b', weight = 1, ranks = 'blend' }] }]";
/// `overdrive run` and `overdrive serve`, killed when dropped. What they say is added to files in `said`.
struct Run {
    children: [Child; 2],
    shim: SocketAddr,
    metrics: SocketAddr,
}

impl Run {
    fn start(dir: &Path, said: &Path, redis: &RedisServer) -> Self {
        let ports = [(); 2].map(|()| support::free_port());
        let settings = [
            ("OVERDRIVE_STATE_DIR", dir.display().to_string()),
            ("OVERDRIVE_REDIS_URL", redis.url()),
            ("OVERDRIVE_SERVICE_PORT", ports[0].to_string()),
            ("OVERDRIVE_SERVICE__GRPC_PORT", "0".into()),
            ("OVERDRIVE_METRICS__PORT", ports[1].to_string()),
            ("OVERDRIVE_LEARN__ENABLED", "true".into()), // more stages to forget in
            ("OVERDRIVE_LEARN__LOGGED", "1".into()),
            ("OVERDRIVE_LEARN__IMPRESSIONS", "1".into()),
            ("OVERDRIVE_LEARN__CLICK_THROUGH", "1s".into()),
            ("OVERDRIVE_EXPERIMENTS__LIST", EXPERIMENTS.into()), // the user is of its cohort
            ("OVERDRIVE_SURFACES__LIST", "[{ name = 'second', kept = 5 }]".into()),
            ("OVERDRIVE_LEARN__BUSY_SHARE", "1".into()),
            ("OVERDRIVE_STORE__KIND", "redis".into()),
            ("OVERDRIVE_STORE__TOMBSTONE_TTL", "60s".into()),
            ("OVERDRIVE_RECOVERY__SNAPSHOT_EVERY", "1s".into()),
            ("OVERDRIVE_RECOVERY__SNAPSHOTS_KEPT", "100".into()), // more than there will be: only a purge takes them away
            ("OVERDRIVE_PRIVACY__PURGE_AFTER", "66s".into()),
            ("OVERDRIVE_ENGINE__HEARTBEAT", "5ms".into()),
            ("OVERDRIVE_LOG__SEGMENT_BYTES", "4096".into()),
        ];
        let start = |what: &str| {
            let log =
                |end: &str| File::options().create(true).append(true).open(said.join(format!("{what}.{end}"))).expect("a file");
            let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
            command.arg(what).envs(settings.clone()).stdout(log("out")).stderr(log("err"));
            command.spawn().expect("the binary starts")
        };
        let [shim, metrics] = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let run = Self { children: ["run", "serve"].map(start), shim, metrics };
        wait("they listen", || [shim, metrics].iter().all(|addr| std::net::TcpStream::connect(addr).is_ok()));
        run
    }

    /// `kill -9`; yields when the state is nobody's. (The engine ends with its supervisor.)
    fn kill(mut self, dir: &Path) {
        self.end();
        wait("the engine is gone", || File::open(dir.join("state/lock")).is_ok_and(|lock| lock.try_lock().is_ok()));
    }

    fn end(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end();
    }
}

fn keyed(key: &str, payload: String) -> (Bytes, Option<Bytes>) {
    (Bytes::copy_from_slice(key.as_bytes()), Some(payload.into()))
}

/// Items, and users who like some of them.
fn populate(log: &LogAppender, round: usize) {
    let item = |i| {
        keyed(&format!("i{i}"), format!(r#"{{"item_id":"i{i}","title":"t{i}","categories":["c{}"],"author":"a{i}"}}"#, i % 3))
    };
    let event = |i: usize| {
        let (user, item) = (format!("u{}", i % 20), i * 7 % 30);
        keyed(&user, format!(r#"{{"event_id":"{round}-{i}","user_id":"{user}","item_id":"i{item}","type":"like"}}"#))
    };
    if round == 0 {
        log.append_now(Role::Items, &(0..30).map(item).collect::<Vec<_>>()).expect("appends");
    }
    log.append_now(Role::Events, &(0..300).map(event).collect::<Vec<_>>()).expect("appends");
}

/// The user signs up, acts, and sends something broken.
fn act(log: &LogAppender) {
    let profile = format!(
        r#"{{"user_id":"{USER}","interests":["{CANARY}-taste","c1"],"categories":["{CANARY}-category"],"city":"{CANARY}-city",
            "bio":"{CANARY}-bio","language":"{CANARY}-lang","blocked_authors":["{CANARY}-author"],
            "blocked_items":["i7"],"lat":48.1,"lon":11.5,"local_preference":0.5}}"#
    );
    log.append_now(Role::Users, &[keyed(USER, profile)]).expect("appends");
    let event = |i: usize| {
        keyed(
            USER,
            format!(
                r#"{{"event_id":"{CANARY}-event-{i}","user_id":"{USER}","item_id":"i{i}","type":"share","session_id":"{CANARY}-session",
                    "metadata":{{"note":"{CANARY}-note"}}}}"#
            ),
        )
    };
    log.append_now(Role::Events, &(0..25).map(event).collect::<Vec<_>>()).expect("appends");
    let broken = format!(r#"{{"user_id":"{USER}","note":"{CANARY}-note","item_"#);
    log.append_now(Role::Events, &[keyed("k", broken)]).expect("appends");
    let order = format!(r#"{{"op":"revoke","user_ids":["{USER}","u3"],"from":0,"to":1}}"#);
    log.append_now(Role::Control, &[keyed("k", order)]).expect("appends");
}

/// The user is shown what is popular by now, and takes it: examples for those who train.
fn act_again(log: &LogAppender) {
    let event = |kind: &str, i: usize| {
        let id = format!("{CANARY}-{kind}-{i}");
        keyed(USER, format!(r#"{{"event_id":"{id}","user_id":"{USER}","item_id":"i{i}","type":"{kind}"}}"#))
    };
    for kind in ["impression", "like"] {
        log.append_now(Role::Events, &(25..30).map(|i| event(kind, i)).collect::<Vec<_>>()).expect("appends");
    }
}

fn connection(redis: &RedisServer) -> redis::Connection {
    redis::Client::open(redis.url()).and_then(|c| c.get_connection()).expect("redis answers")
}

/// Until everything that lies in the log is answered.
fn wait_for_answers(dir: &Path, redis: &RedisServer) {
    let ends = overdrive::sources::log::ends(&folder(dir), &settings().log).expect("the log tells");
    let mut connection = connection(redis);
    wait("everything is answered", || {
        let meta: BTreeMap<String, String> = redis::cmd("HGETALL").arg("od:meta").query(&mut connection).expect("redis answers");
        let at = |role: Role, partition| meta.get(&format!("offset:{}:{partition}", role.name())).and_then(|v| v.parse().ok());
        ends.iter().all(|((role, partition), end)| at(*role, *partition).unwrap_or(0) >= *end)
    });
}

fn settings() -> Config {
    let mut config = Config::defaults();
    config.log.segment_bytes = 4096;
    config.recommend.learn.enabled = true;
    config
}

/// Every file below a folder that holds the canary, as it lies there.
fn files_with(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path));
        } else if std::fs::read(&path).is_ok_and(|bytes| holds(&bytes)) {
            found.push(path);
        }
    }
    found
}

fn holds(bytes: &[u8]) -> bool {
    bytes.windows(CANARY.len()).any(|some| some == CANARY.as_bytes())
}

/// Every operator that a snapshot keeps the canary in, decoded; also in segments that no manifest names any more.
fn snapshots_with(dir: &Path) -> Vec<String> {
    let state = dir.join("state");
    let mut found = Vec::new();
    for (name, manifest) in Look::folder(&state).manifests().expect("the state can be looked at") {
        for part in manifest.into_iter().flat_map(|manifest| manifest.parts) {
            for file in part.files {
                let Ok(bytes) = std::fs::read(state.join(&file.path)) else { continue }; // taken away meanwhile
                let entries = segment::decode(&file, &bytes.into()).expect("a sound segment");
                found.extend(entries.iter().any(|entry| holds(&entry.payload)).then(|| format!("{name} {}", part.uid)));
            }
        }
    }
    found
}

/// Every file of a log for those who train that holds the canary, decoded.
fn trained_on_with(dir: &Path, log: &str) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir.join(log)).into_iter().flatten().flatten().map(|entry| entry.path());
    let holds_it = |path: &PathBuf| {
        let Ok(file) = File::open(path) else { return false }; // it has got its name meanwhile
        let rows = SerializedFileReader::new(file).expect("sound Parquet").into_iter();
        rows.map(|row| row.expect("a sound row").to_string()).any(|row| holds(row.as_bytes()))
    };
    paths.filter(|path| path.extension().is_some_and(|of| of == "parquet")).filter(holds_it).collect()
}

/// Every key of Redis that holds the canary, in its name or its value.
fn keys_with(redis: &RedisServer) -> Vec<String> {
    let in_value = |dumped: &Dumped| match dumped {
        Dumped::Value(value) => holds(value),
        Dumped::Fields(fields) => fields.iter().any(|(field, value)| holds(field.as_bytes()) || holds(value.as_bytes())),
        Dumped::Ranked(members) => members.iter().any(|(member, _)| holds(member.as_bytes())),
    };
    let all = support::redis::raw_dump(&mut connection(redis));
    all.into_iter().filter(|(key, dumped)| holds(key.as_bytes()) || in_value(dumped)).map(|(key, _)| key).collect()
}

/// The lines of the audit log, by event.
fn audit(dir: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(dir.join("audit.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn said(dir: &Path, event: &str) -> Option<serde_json::Value> {
    audit(dir).into_iter().find(|line| line["event"] == event)
}

/// What a run leaves over the same epochs, and a log in which the user never was.
fn without(dir: &Path, bindings: Vec<Binding>) -> BTreeMap<String, Dumped> {
    let (found, mut config) = (Recovery::over(bindings), settings());
    let source = LogSource::open(&folder(dir), &config.log, found.positions()).expect("the log opens");
    let (memory, elsewhere) = (Memory::new(&config.store.prefix), tempfile::tempdir().expect("a folder"));
    config.engine.state_dir = elsewhere.path().to_path_buf();
    let engine =
        Engine::start(&config, Arc::new(Names::default()), Box::new(source), Box::new(memory.clone()), Some(found), |_| {});
    let engine = engine.expect("the engine starts");
    wait("the epochs are read again", || engine.has_ended());
    engine.stop().1.expect("the log is read");
    memory.dump()
}

/// What is counted, without the fence and without the time of telling: not slates, which are as good as what was known when they were made.
fn counted(dump: BTreeMap<String, Dumped>) -> BTreeMap<String, Dumped> {
    let counts = [
        "od:item:",
        "od:user:",
        "od:interests:",
        "od:category:",
        "od:author:",
        "od:neighbours:",
        "od:trending:",
        "od:seen:",
        "od:profile:",
        "od:census",
    ];
    let mut dump: BTreeMap<_, _> =
        dump.into_iter().filter(|(key, _)| counts.iter().any(|count| key.starts_with(count))).collect();
    for (key, dumped) in &mut dump {
        match dumped {
            Dumped::Value(value) => {
                // they are told whenever a row changed, here by the one who left, with the time of that
                let told = layout::decode_neighbours(value).expect("of binary values only neighbours count");
                *value = proto::Neighbours { as_of_ms: 0, ..told }.encode_to_vec().into();
            }
            Dumped::Fields(fields) => {
                // it is told when a count changed, here by the one who left, too
                let untimed = key == "od:census";
                fields.retain(|field, _| field != "epoch" && field != "generation" && !(untimed && field == "as_of"));
            }
            Dumped::Ranked(_) => {}
        }
    }
    dump
}

#[test]
fn a_forgotten_user_is_nowhere_and_the_others_are_as_if_there_had_never_been_one() {
    let (redis, dir, said_in) =
        (RedisServer::start(), tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (dir, kept) = (dir.path(), tempfile::tempdir().expect("a folder"));
    let log = LogAppender::open(&folder(dir), &settings().log).expect("opens");
    let stop = Arc::new(AtomicBool::new(false));
    let archiver = {
        let (from, into, stop) = (dir.join("state/epochs"), kept.path().join("epochs"), stop.clone());
        std::thread::spawn(move || support::engines::archive(&from, &into, &stop))
    };

    // They act, and are everywhere.
    let run = Run::start(dir, said_in.path(), &redis);
    populate(&log, 0);
    act(&log);
    populate(&log, 1);
    wait_for_answers(dir, &redis);
    wait("a snapshot knows them", || !snapshots_with(dir).is_empty());
    act_again(&log);
    wait_for_answers(dir, &redis);
    for log in TRAINED_ON {
        wait(&format!("{log} know them"), || !trained_on_with(dir, log).is_empty());
    }
    for place in ["log/events-", "log/users-0", "log/control-0", "dead/dead.jsonl", "slates.jsonl"] {
        let in_place = |path: &PathBuf| path.strip_prefix(dir).expect("below").to_string_lossy().contains(place);
        wait(&format!("{place} knows them"), || files_with(dir).iter().any(in_place)); // the feed follows the answers
    }
    assert!(keys_with(&redis).len() >= 4, "{:?}", keys_with(&redis));

    // They leave; killed, the engine has to begin with a snapshot of before.
    let answer = client::send(run.shim, "DELETE", &format!("/v1/users/{USER}"), &[], b"");
    assert_eq!(answer.status, 202, "{}", answer.body);
    wait_for_answers(dir, &redis);
    wait("the order is applied", || said(dir, "applied").is_some());
    let forgotten_in = said(dir, "applied").and_then(|line| line["epoch"].as_u64()).expect("an epoch");
    run.kill(dir);
    for entry in std::fs::read_dir(dir.join("state")).expect("a folder").flatten() {
        if Name::parse(&entry.file_name().to_string_lossy()).is_some_and(|name| name.epoch >= forgotten_in) {
            std::fs::write(entry.path(), "damaged").expect("written");
        }
    }
    let run = Run::start(dir, said_in.path(), &redis);
    populate(&log, 2);
    wait_for_answers(dir, &redis);
    let read = support::redis::dump(&mut connection(&redis));
    let back: Vec<_> = read.keys().filter(|key| holds(key.as_bytes())).collect();
    assert!(back.is_empty(), "a snapshot of before brought them back: {back:?}");

    // They are purged, at the latest 66 s after.
    wait("the order is purged", || said(dir, "purged").is_some());
    populate(&log, 3); // the last word on every item and user
    wait_for_answers(dir, &redis);
    let mut asking = connection(&redis);
    let mut tick = || redis::cmd("HGET").arg("od:meta").arg("tick_epoch").query::<Option<u64>>(&mut asking).expect("it answers");
    let first = tick();
    wait("what settles is settled", || tick() > first.map(|epoch| epoch + 2_000));
    let metrics = client::get(run.metrics, "/metrics");
    assert!(metrics.status == 200 && metrics.body.contains("overdrive_events_total"), "{}", metrics.body);
    assert!(!holds(metrics.body.as_bytes()), "metrics");
    assert_eq!(files_with(dir), Vec::<PathBuf>::new(), "files below the state folder");
    assert_eq!(snapshots_with(dir), Vec::<String>::new(), "decoded snapshots");
    for log in TRAINED_ON {
        assert_eq!(trained_on_with(dir, log), Vec::<PathBuf>::new(), "decoded {log}");
    }
    assert_eq!(keys_with(&redis), Vec::<String>::new(), "Redis");
    assert_eq!(files_with(said_in.path()), Vec::<PathBuf>::new(), "stdout and stderr");
    let events: Vec<_> = audit(dir).iter().map(|line| line["event"].as_str().unwrap_or_default().to_string()).collect();
    assert_eq!(events, ["accepted", "applied", "purged"]);
    let erased = said(dir, "purged").expect("it was said")["erased"].clone();
    assert!(
        erased["log"].as_u64() >= Some(29)
            && ["dead_letters", "changes"].iter().chain(&TRAINED_ON).all(|of| erased[of].as_u64() >= Some(1)),
        "{erased}"
    );

    // Everybody else's numbers are those of a run over the same epochs in which they never were.
    let left = counted(support::redis::dump(&mut connection(&redis)));
    run.kill(dir);
    stop.store(true, Ordering::Release);
    archiver.join().expect("it does not panic");
    let bindings = State::open(kept.path()).expect("nobody has it").bindings(None).expect("the archive is whole");
    let never = counted(without(dir, bindings));
    let differ: Vec<_> = never.keys().chain(left.keys()).filter(|key| never.get(*key) != left.get(*key)).collect();
    let first = differ.first().map(|key| (never.get(*key), left.get(*key)));
    assert!(left.len() > 80 && differ.is_empty(), "{} keys of {} differ: {differ:?} {first:?}", differ.len(), left.len());
}
