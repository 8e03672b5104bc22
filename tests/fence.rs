//! Only something newer replaces what Redis holds. A replay, an engine that hung and woke up, scripts that the server forgot: none of
//! them takes any key back, and none brings a deleted one back. And a server that lost its data is noticed.

#![cfg(feature = "redis")]

mod support {
    pub mod redis;
}

use overdrive::model::Serving;
use overdrive::model::changes::{Interests, Neighbour, Profile, Scope};
use overdrive::model::ids::{KEY_GROUPS, TokenKind};
use overdrive::model::{
    Binding, Change, Epoch, ItemId, Names, Pace, Reason, Role, SignalKey, Signals, Slate, SlateItem, Source, Surface, TokenId,
    Turn, UserId,
};
use overdrive::sinks::dead_letters::DeadLetters;
use overdrive::sinks::encode::Encoder;
use overdrive::sinks::layout;
use overdrive::sinks::memory::{Dumped, Memory};
use overdrive::sinks::redis::Redis;
use overdrive::sinks::writer::{self, Hooks, Stats, Writer};
use overdrive::sinks::{Applied, Completed, Fence, Found, Known, RedisParams, Store, StoreError, Swept, Write, changes};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::redis::{RedisServer, dump, raw_dump};
use xxhash_rust::xxh3::xxh3_64_with_seed;

type Dump = BTreeMap<String, Dumped>;

fn defaults(section: &str) -> toml::Value {
    toml::from_str::<toml::Table>(include_str!("../overdrive.toml")).expect("the defaults")[section].clone()
}

fn open(server: &RedisServer) -> Redis {
    let mut params: RedisParams = defaults("redis").try_into().expect("the section of Redis");
    params.url = server.url();
    // Small, so that a batch takes several round trips and a dying store is given up soon.
    params.pipeline = 40;
    params.retry_max = Duration::from_millis(10);
    Redis::open(&params, "od:").expect("a readable url")
}

fn connect(server: &RedisServer) -> redis::Connection {
    redis::Client::open(server.url()).and_then(|client| client.get_connection()).expect("the server answers")
}

fn tell(redis: &mut redis::Connection, command: &[&str]) {
    redis::cmd(command[0]).arg(&command[1..]).exec(redis).expect("the server answers");
}

/// A stream of epochs in which everything happens to a few users and items, deletions and second thoughts among them.
struct Stream {
    names: Arc<Names>,
    users: Vec<UserId>,
    items: Vec<ItemId>,
    jazz: TokenId,
}

impl Stream {
    fn new() -> Self {
        let names = Arc::new(Names::default());
        let users = (0..12).map(|i| names.user(&format!("u{i}")).expect("no collision")).collect();
        let items = (0..20).map(|i| names.item(&format!("i{i}")).expect("no collision")).collect();
        let jazz = names.token(TokenKind::Category, "jazz").expect("no collision");
        Self { names, users, items, jazz }
    }

    fn changes(&self, number: u64) -> Vec<Change> {
        let pick = |what: u64, of: usize| xxh3_64_with_seed(&number.to_be_bytes(), what) as usize % of;
        let (user, item) = (self.users[pick(1, self.users.len())], self.items[pick(2, self.items.len())]);
        let some = pick(3, 3) > 0;
        let row = |item: &ItemId| SlateItem {
            item: *item,
            score_micro: number as i32,
            source: Source::Fresh,
            reason: Reason::Popular,
            terms: [pick(4, 10_000) as u16; 5],
        };
        let items = self.items[..pick(5, 9)].iter().map(row).collect();
        let interests = Interests { short: vec![], long: vec![(self.jazz, 1.0)], drift: number as f64 };
        let neighbours = vec![Neighbour { item, similarity_micro: number as i32, users: 1 }; usize::from(some)];
        let seen = self.items[pick(6, 9)..][..pick(7, 6)].iter();
        let scope = if pick(8, 2) == 0 { Scope::Global } else { Scope::Category(self.jazz) };
        vec![
            Change::Slate {
                user,
                surface: Surface::HOME,
                slate: some.then(|| {
                    Arc::new(Slate {
                        user,
                        surface: Surface::HOME,
                        model: None,
                        variant: None,
                        items,
                        categories: vec![],
                        history: vec![],
                        taken: 0,
                    })
                }),
                entered: vec![],
                left: vec![],
            },
            Change::Signals(SignalKey::Item(item), some.then(|| Arc::new(signals(number)))),
            Change::Interests(user, some.then(|| Arc::new(interests))),
            Change::Profile(user, some.then(|| Arc::new(Profile { city: Some(number.to_string()), ..Profile::default() }))),
            Change::Seen(user, seen.map(|i| (*i, (pick(9, 2) == 0).then_some(number as i64))).collect()),
            Change::Catalogue(item, pick(10, 2) == 0),
            Change::Neighbours(item, neighbours.len() as u32, neighbours),
            Change::Trending(scope, vec![(item, number as i64); usize::from(some)]),
        ]
    }

    fn epoch(&self, number: u64) -> Completed {
        completed(number, self.changes(number), None)
    }
}

fn signals(number: u64) -> Signals {
    let weighted_milli = [number as i64; 5];
    Signals { counts: vec![], decayed: number as f64, velocity: 0.0, ctr: 0.1, engagement: 0.1, weighted_milli }
}

/// An epoch; one with which everything was told again because of a loss tells all of it.
fn completed(number: u64, changes: Vec<Change>, retold: Option<u64>) -> Completed {
    let epoch = Epoch {
        number,
        clock_ms: number as i64 * 2,
        watermark_ms: number as i64,
        turn: Turn::all_if(number.is_multiple_of(5)),
        refreshes: None,
        save: false,
        retell: retold.map(|_| (0, KEY_GROUPS as u16)),
        model: None,
    };
    let offsets = [((Role::Events, 0), (number, number + 1))].into();
    Completed {
        binding: Binding { epoch, offsets, pace: Pace::default(), serving: Serving::default(), refusals: Vec::new() },
        changes,
        accepted_ms: vec![],
        save: None,
        retold,
    }
}

/// No stream of these tests is longer.
const LONGEST: u64 = 1_000;

/// A writer at work.
struct Running {
    tx: crossbeam_channel::Sender<Completed>,
    writer: Writer,
    shown: Arc<AtomicU64>,
    lost: Arc<Mutex<Vec<u64>>>,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start(store: Box<dyn Store>, stream: &Stream, generation: u32) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let kafka = defaults("kafka").try_into().expect("the section of Kafka");
        let feed = changes::Params { kind: changes::Kind::None, max_bytes: 1 };
        let feed = changes::open(&feed, dir.path(), &kafka, stream.names.clone()).expect("the feed opens");
        let encoder = Encoder::new(stream.names.clone(), &defaults("store").try_into().expect("the section of the store"));
        let retry_max = Duration::from_millis(10);
        // the first run repeats nothing, a later one whatever those before it were given
        let repeats_until = if generation == 1 { 0 } else { LONGEST };
        let params =
            writer::Params { generation, max_dirty_keys: 1 << 20, retry_max, left: writer::Left::default(), repeats_until };
        let dead = DeadLetters::open(dir.path(), None).expect("the letters open");
        let (shown, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (told, losses) = (shown.clone(), lost.clone());
        let hooks = Hooks {
            applied: Box::new(move |applied| told.store(applied.epoch, Ordering::SeqCst)),
            lost: Box::new(move |loss| losses.lock().expect("no panic under the lock").push(loss)),
        };
        let (tx, rx) = crossbeam_channel::bounded(4);
        let writer = Writer::spawn(store, encoder, params, rx, feed, dead, hooks).expect("a thread");
        Self { tx, writer, shown, lost, _dir: dir }
    }

    fn send(&self, completed: Completed) {
        self.tx.send(completed).expect("the writer lives");
    }

    /// Waits until the answers have come as far as `epoch`.
    fn wait(&self, epoch: u64) {
        while self.shown.load(Ordering::SeqCst) < epoch {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn end(self) -> (Stats, Vec<u64>) {
        drop(self.tx);
        let stats = self.writer.join();
        (stats, std::mem::take(&mut *self.lost.lock().expect("no panic under the lock")))
    }
}

/// Everything of these epochs, by a writer of this generation.
fn run(store: Box<dyn Store>, stream: &Stream, generation: u32, epochs: std::ops::RangeInclusive<u64>) -> Stats {
    let running = Running::start(store, stream, generation);
    epochs.for_each(|number| running.send(stream.epoch(number)));
    let (stats, lost) = running.end();
    assert_eq!(lost, [0; 0], "nothing was lost");
    stats
}

/// The epoch that lies in a value, and what else does, less the generation.
fn split(key: &str, dumped: &Dumped) -> (u64, Dumped) {
    match dumped {
        Dumped::Value(value) => {
            let (stamp, _) = layout::open(value).unwrap_or_else(|e| panic!("{key}: {e}"));
            (stamp.epoch, Dumped::Value([&value[..12], &value[16..20], &value[24..]].concat().into()))
        }
        Dumped::Fields(fields) => {
            let mut fields = fields.clone();
            fields.remove("generation");
            (fields["epoch"].parse().expect("a number"), Dumped::Fields(fields))
        }
        Dumped::Ranked(members) => {
            let (fence, rest) = members.split_last().expect("at least the fence");
            let epoch = fence.0.strip_prefix("\0fence:").and_then(|f| f.split(':').next()).expect("the fence is the lowest");
            (epoch.parse().expect("a number"), Dumped::Ranked(rest.to_vec()))
        }
    }
}

fn without_generation(all: &Dump) -> BTreeMap<String, (u64, Dumped)> {
    all.iter().map(|(key, dumped)| (key.clone(), split(key, dumped))).collect()
}

/// Reads everything over and over until it is told to stop: no key may vanish, go back, or say another thing of the same epoch.
fn watch(mut redis: redis::Connection, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<usize> {
    std::thread::spawn(move || {
        let (mut last, mut looks) = (BTreeMap::<String, (u64, Dumped)>::new(), 0);
        loop {
            let ends = stop.load(Ordering::SeqCst);
            let now = without_generation(&raw_dump(&mut redis));
            for (key, (epoch, content)) in &last {
                let (newer, says) = now.get(key).unwrap_or_else(|| panic!("{key} is gone"));
                assert!(newer >= epoch, "{key} went back from epoch {epoch} to {newer}");
                // The mark moves its other half within one epoch.
                assert!(newer > epoch || says == content || key == "od:meta", "{key} changed within epoch {epoch}");
            }
            (last, looks) = (now, looks + 1);
            if ends {
                return looks;
            }
        }
    })
}

/// A store that dies in the middle of a batch and takes no other one as a whole.
struct Dying {
    store: Redis,
    /// In the first batch that brings the answers this far.
    dies_at: u64,
    died: bool,
}

impl Store for Dying {
    fn write(&mut self, writes: &[Write], applied: &Applied, known: Known) -> Result<Found, StoreError> {
        self.died |= applied.epoch >= self.dies_at;
        if !self.died {
            return self.store.write(writes, applied, known);
        }
        // What a crash leaves: some keys, no mark.
        let half = &writes[..writes.len() / 2];
        self.store.write(half, &Applied::default(), known)?;
        Err(StoreError::Retry("it died".to_string()))
    }

    fn sweep(&mut self, before: u64, ttl: Duration) -> Result<Swept, StoreError> {
        self.store.sweep(before, ttl)
    }
}

#[test]
fn a_replay_after_a_crash_takes_nothing_back_and_ends_where_an_undisturbed_run_does() {
    let (stream, whole, crashed) = (Stream::new(), RedisServer::start(), RedisServer::start());
    run(Box::new(open(&whole)), &stream, 1, 1..=300);
    let expected = without_generation(&raw_dump(&mut connect(&whole)));
    assert!(expected.len() > 60, "{} keys", expected.len());
    for dies_at in [0, 1, 20, 77, 199] {
        tell(&mut connect(&crashed), &["FLUSHALL"]);
        let died = run(Box::new(Dying { store: open(&crashed), dies_at, died: false }), &stream, 1, 1..=200);
        assert!(died.unwritten > 0, "it died in the middle of a batch");
        let stop = Arc::new(AtomicBool::new(false));
        let watching = watch(connect(&crashed), stop.clone());
        // What an engine replays that resumes from the mark: state holds what ticks had not settled.
        let again = run(Box::new(open(&crashed)), &stream, 2, died.applied.tick_epoch + 1..=300);
        stop.store(true, Ordering::SeqCst);
        assert!(watching.join().expect("the reader saw nothing wrong") > 0);
        assert_eq!((again.applied.epoch, again.unwritten), (300, 0));
        assert_eq!(without_generation(&raw_dump(&mut connect(&crashed))), expected, "after dying at {dies_at}");
    }
}

#[test]
fn a_replay_over_a_store_that_has_it_all_is_refused_but_for_the_last_word_on_each_key() {
    let (stream, server) = (Stream::new(), RedisServer::start());
    run(Box::new(open(&server)), &stream, 1, 1..=200);
    let before = raw_dump(&mut connect(&server));
    let stop = Arc::new(AtomicBool::new(false));
    let watching = watch(connect(&server), stop.clone());
    let running = Running::start(Box::new(open(&server)), &stream, 2);
    for number in 50..=200 {
        running.send(stream.epoch(number));
        running.wait(number); // so that no epoch is merged away
    }
    let (stats, lost) = running.end();
    stop.store(true, Ordering::SeqCst);
    assert!(watching.join().expect("the reader saw nothing wrong") > 0);
    assert!(stats.refused > stats.writes / 2, "{} of {}", stats.refused, stats.writes);
    assert_eq!(lost, [0; 0]);
    let after = raw_dump(&mut connect(&server));
    assert_eq!(without_generation(&after), without_generation(&before));
    assert_ne!(after, before, "the last words are those of the new run");
}

#[test]
fn a_deletion_outlasts_the_replay_of_what_was_before_it() {
    let (stream, server) = (Stream::new(), RedisServer::start());
    let (user, item) = (stream.users[0], stream.items[0]);
    let slate = |some: bool| Change::Slate {
        user,
        surface: Surface::HOME,
        slate: some.then(|| {
            Arc::new(Slate {
                user,
                surface: Surface::HOME,
                model: None,
                variant: None,
                items: vec![],
                categories: vec![],
                history: vec![],
                taken: 0,
            })
        }),
        entered: vec![],
        left: vec![],
    };
    let neighbour = Neighbour { item, similarity_micro: 1, users: 1 };
    let there = vec![
        slate(true),
        Change::Signals(SignalKey::User(user), Some(Arc::new(signals(1)))),
        Change::Interests(user, Some(Arc::default())),
        Change::Profile(user, Some(Arc::default())),
        Change::Seen(user, vec![(item, Some(1))]),
        Change::Neighbours(item, 1, vec![neighbour]),
        Change::Card(item, Some((Arc::default(), 1))),
        Change::Trending(Scope::Global, vec![(item, 1)]),
        Change::Catalogue(item, false),
    ];
    let gone = vec![
        slate(false),
        Change::Signals(SignalKey::User(user), None),
        Change::Interests(user, None),
        Change::Profile(user, None),
        Change::Seen(user, vec![(item, None)]),
        Change::Neighbours(item, 0, vec![]),
        Change::Card(item, None),
        Change::Trending(Scope::Global, vec![]),
        Change::Catalogue(item, true),
    ];
    let keys = |server: &RedisServer| dump(&mut connect(server)).into_keys().collect::<Vec<_>>();
    let first = Running::start(Box::new(open(&server)), &stream, 1);
    first.send(completed(1, there.clone(), None));
    first.wait(1);
    assert_eq!(keys(&server).len(), 10, "nine keys and the mark");
    first.send(completed(2, gone, None));
    first.end();
    assert_eq!(keys(&server), ["od:meta"]);
    let day = Duration::from_secs(24 * 3600).as_millis() as i64;
    let left: i64 = redis::cmd("PTTL").arg("od:user:{u0}").query(&mut connect(&server)).expect("the server answers");
    assert!((1..=day).contains(&left), "what stays of a deleted key goes in the end: {left}");
    let replay = Running::start(Box::new(open(&server)), &stream, 2);
    replay.send(completed(1, there, None));
    let (stats, _) = replay.end();
    assert_eq!((stats.refused, keys(&server)), (9, vec!["od:meta".to_string()]));
}

/// An engine that hung while another one took over: whatever it still writes, older or equally old, changes no key of any sort.
#[test]
fn a_writer_that_wakes_up_late_changes_nothing() {
    let (stream, server) = (Stream::new(), RedisServer::start());
    run(Box::new(open(&server)), &stream, 2, 1..=300);
    let before = raw_dump(&mut connect(&server));
    let sorts = |of: fn(&Dumped) -> bool| before.iter().filter(|(key, dumped)| *key != "od:meta" && of(dumped)).count();
    assert!(sorts(|d| matches!(d, Dumped::Value(_))) > 10);
    assert!(sorts(|d| matches!(d, Dumped::Fields(_))) > 10);
    assert!(sorts(|d| matches!(d, Dumped::Ranked(_))) > 10);
    let zombie = run(Box::new(open(&server)), &stream, 1, 1..=300);
    assert_eq!((zombie.refused, zombie.lost), (zombie.writes, 0));
    assert_eq!(raw_dump(&mut connect(&server)), before);
}

#[test]
fn scripts_that_the_server_forgets_are_given_again() {
    let (stream, server, memory) = (Stream::new(), RedisServer::start(), Memory::new("od:"));
    let mut redis = connect(&server);
    let running = Running::start(Box::new(open(&server)), &stream, 1);
    for number in 1..=100 {
        running.send(stream.epoch(number));
        if number.is_multiple_of(10) {
            running.wait(number);
            tell(&mut redis, &["SCRIPT", "FLUSH"]);
        }
    }
    let (stats, lost) = running.end();
    assert_eq!((stats.errors, lost), (0, vec![]));
    run(Box::new(memory.clone()), &stream, 1, 1..=100);
    assert_eq!(dump(&mut redis), memory.dump());
}

#[test]
fn a_server_that_lost_its_data_is_noticed_once_a_loss_and_marked_until_everything_is_told_again() {
    let (stream, server, whole) = (Stream::new(), RedisServer::start(), Memory::new("od:"));
    let mut redis = connect(&server);
    let rebuilding = |redis: &mut redis::Connection| {
        let says: Option<String> = redis::cmd("HGET").arg("od:meta").arg("rebuilding").query(redis).expect("it answers");
        says.is_some()
    };
    let running = Running::start(Box::new(open(&server)), &stream, 1);
    let lost = running.lost.clone();
    let losses = || lost.lock().expect("no panic under the lock").clone();
    (1..=100).for_each(|number| running.send(stream.epoch(number)));
    running.wait(100);
    tell(&mut redis, &["FLUSHALL"]);
    (101..=120).for_each(|number| running.send(stream.epoch(number)));
    running.wait(120);
    running.send(completed(121, vec![], None));
    running.wait(121);
    assert_eq!((losses(), rebuilding(&mut redis)), (vec![1], true));

    // Again, before everything was told: an answer to the first loss is none to the second.
    tell(&mut redis, &["FLUSHALL"]);
    running.send(completed(122, vec![], None));
    running.wait(122);
    running.send(completed(123, vec![], Some(1)));
    running.wait(123);
    running.send(completed(124, vec![], None));
    running.wait(124);
    assert_eq!((losses(), rebuilding(&mut redis)), (vec![1, 2], true));

    // Everything, as of one epoch; each kind of change once a key, the last one.
    let everything = (1..=120).flat_map(|number| stream.changes(number)).collect::<Vec<_>>();
    running.send(completed(125, everything.clone(), Some(2)));
    let (stats, lost) = running.end();
    assert_eq!((stats.lost, lost, rebuilding(&mut redis)), (2, vec![1, 2], false));
    let undisturbed = Running::start(Box::new(whole.clone()), &stream, 1);
    undisturbed.send(completed(125, everything, None));
    undisturbed.end();
    let (mut in_redis, mut in_memory) = (dump(&mut redis), whole.dump());
    assert_eq!((in_redis.remove("od:meta").is_some(), in_memory.remove("od:meta").is_some()), (true, true));
    assert_eq!(in_redis, in_memory);
}

/// A failover to a copy from before things were deleted: told again is what there is, and what nobody tells goes.
#[test]
fn what_an_older_copy_brings_back_of_deleted_things_goes_again() {
    let (stream, mut server, whole) = (Stream::new(), RedisServer::start(), Memory::new("od:"));
    let (user, items) = (stream.users[0], &stream.items);
    let trending = |of: &[ItemId]| Change::Trending(Scope::Global, of.iter().map(|item| (*item, 1)).collect());
    let signals_of = |i: usize, number: u64| Change::Signals(SignalKey::Item(items[i]), Some(Arc::new(signals(number))));
    let before = vec![
        signals_of(0, 1),
        signals_of(1, 1),
        Change::Interests(user, Some(Arc::default())),
        Change::Profile(user, Some(Arc::default())),
        Change::Seen(user, vec![(items[0], Some(1)), (items[1], Some(1)), (items[2], Some(1))]),
        Change::Seen(stream.users[1], vec![(items[0], Some(1))]),
        Change::Neighbours(items[0], 1, vec![Neighbour { item: items[1], similarity_micro: 1, users: 1 }]),
        Change::Card(items[0], Some((Arc::default(), 1))),
        Change::Catalogue(items[3], false),
        Change::Catalogue(items[4], false),
        trending(&items[..2]),
    ];
    let after = vec![
        Change::Signals(SignalKey::Item(items[0]), None),
        Change::Interests(user, None),
        Change::Profile(user, None),
        Change::Seen(user, vec![(items[1], None), (items[5], Some(2))]),
        Change::Seen(stream.users[1], vec![(items[0], None)]),
        Change::Neighbours(items[0], 0, vec![]),
        Change::Card(items[0], None),
        Change::Catalogue(items[3], true),
        Change::Catalogue(items[5], false),
        trending(&[]),
    ];
    // what a dataflow says that knows no more than this
    let again = [
        signals_of(1, 1),
        Change::AllSeen(user, vec![(items[0], 1), (items[2], 1), (items[5], 2)]),
        Change::Catalogue(items[4], false),
        Change::Catalogue(items[5], false),
    ];
    let strangers = [["SET", "od:else:u1", "not ours"], ["SET", "od:neighbours:a", "not ours"]];
    let running = Running::start(Box::new(open(&server)), &stream, 1);
    running.send(completed(1, before.clone(), None));
    running.wait(1);
    strangers.iter().for_each(|set| tell(&mut connect(&server), set));
    server.copy();
    running.send(completed(2, after.clone(), None));
    running.wait(2);
    server.restart();
    running.send(completed(3, vec![], None));
    running.wait(3);
    assert_eq!(raw_dump(&mut connect(&server)).len(), 13, "what was deleted is back");
    // an item is withdrawn and another one comes back while the rest is told
    let told = |number: u64, changes: Vec<Change>, groups, retold| {
        let mut told = completed(number, changes, retold);
        told.binding.epoch.retell = groups;
        told
    };
    let half = KEY_GROUPS as u16 / 2;
    running.send(told(4, again[..2].to_vec(), Some((0, half)), None));
    running.send(told(5, again[2..].to_vec(), Some((half, half * 2)), None));
    running.send(completed(6, vec![Change::Catalogue(items[6], false), Change::Catalogue(items[4], true)], None));
    running.send(told(7, vec![Change::Catalogue(items[7], false)], None, Some(1)));
    running.send(completed(8, vec![Change::Catalogue(items[8], false)], None));
    let (stats, lost) = running.end();
    assert_eq!((stats.lost, lost, stats.unwritten), (1, vec![1], 0));
    let undisturbed = Running::start(Box::new(whole.clone()), &stream, 1);
    undisturbed.send(completed(1, before, None));
    undisturbed.send(completed(2, after, None));
    undisturbed.send(completed(4, again[..2].to_vec(), None));
    let withdrawn = [(5, false), (6, false), (4, true), (7, false), (8, false)];
    let withdrawn = withdrawn.map(|(item, available)| Change::Catalogue(items[item], available));
    for (number, change) in (4..).zip(withdrawn) {
        undisturbed.send(completed(number + 1, vec![change], None));
    }
    undisturbed.end();
    for [_, key, value] in strangers {
        let left: String = redis::cmd("GETDEL").arg(key).query(&mut connect(&server)).expect("a stranger's key is left alone");
        assert_eq!(left, value);
    }
    let (mut in_redis, mut in_memory) = (dump(&mut connect(&server)), whole.dump());
    let mark = in_redis.remove("od:meta").expect("the mark is there");
    assert!(matches!(&mark, Dumped::Fields(fields) if !fields.contains_key("rebuilding")), "{mark:?}");
    in_memory.remove("od:meta");
    let members = |dump: &mut Dump| match dump.remove("od:gone") {
        Some(Dumped::Ranked(members)) => members.into_iter().map(|(item, _)| item).collect::<BTreeSet<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(members(&mut in_redis), members(&mut in_memory), "when is another thing");
    assert_eq!(in_redis, in_memory);
}

/// A store whose answer to the first batch after a loss never arrives.
struct Unheard {
    store: Redis,
    unheard: bool,
}

impl Store for Unheard {
    fn write(&mut self, writes: &[Write], applied: &Applied, known: Known) -> Result<Found, StoreError> {
        let found = self.store.write(writes, applied, known)?;
        if found.epoch < known.epoch && !std::mem::replace(&mut self.unheard, true) {
            return Err(StoreError::Retry("the answer is lost on the way".to_string()));
        }
        Ok(found)
    }

    fn sweep(&mut self, before: u64, ttl: Duration) -> Result<Swept, StoreError> {
        self.store.sweep(before, ttl)
    }
}

#[test]
fn a_loss_is_noticed_when_the_answer_that_told_of_it_was_lost_too() {
    let (stream, server) = (Stream::new(), RedisServer::start());
    let running = Running::start(Box::new(Unheard { store: open(&server), unheard: false }), &stream, 1);
    (1..=50).for_each(|number| running.send(stream.epoch(number)));
    running.wait(50);
    tell(&mut connect(&server), &["FLUSHALL"]);
    running.send(stream.epoch(51));
    running.wait(51);
    let (stats, lost) = running.end();
    assert_eq!((stats.errors, stats.lost, lost), (1, 1, vec![1]));
    let says: Option<String> =
        redis::cmd("HGET").arg("od:meta").arg("rebuilding").query(&mut connect(&server)).expect("it answers");
    assert_eq!(says.as_deref(), Some("1"), "nothing was told again yet");
}

/// The mark comes on the heels of the writes it speaks of, in one round trip.
#[test]
fn the_mark_does_not_pass_a_write_that_is_missing() {
    let server = RedisServer::start();
    let mut redis = connect(&server);
    let code = [include_str!("../src/sinks/redis/fence.lua"), include_str!("../src/sinks/redis/mark.lua")].concat();
    let script = redis::Script::new(&code);
    let mut mark = |epoch: u64| {
        let mut call = script.prepare_invoke();
        call.key("od:meta").key("od:item:1").arg(epoch).arg(1).arg(0).arg(0).arg(0).arg(0).arg(4).arg("h").arg(7).arg(1);
        call.arg("epoch").arg(epoch).arg("generation").arg(1).arg("tick_epoch").arg(0);
        call.invoke::<(u64, u64, bool)>(&mut redis)
    };
    let refused = mark(7).expect_err("nothing was written");
    assert_eq!((refused.code(), refused.to_string().contains("od:item:1")), (Some("MISSING"), true), "{refused}");
    let fields = |epoch: &str| vec![("epoch".into(), epoch.to_string()), ("generation".into(), "1".to_string())];
    let write = |epoch: u64| Write::Fields {
        key: "od:item:1".to_string(),
        fields: fields(&epoch.to_string()),
        ttl: Duration::from_secs(60),
        fence: Fence { epoch, generation: 1 },
    };
    open(&server).write(&[write(6)], &Applied::default(), Known::default()).expect("the server is there");
    mark(7).expect_err("what is there is older");
    open(&server).write(&[write(8)], &Applied::default(), Known::default()).expect("the server is there");
    assert_eq!(mark(9), Ok((0, 0, false)), "what is there is newer");
}

/// Whoever writes without looking at fences must notice at once that a later run of the engine is there.
#[test]
fn a_transaction_of_a_run_that_was_replaced_comes_to_nothing() {
    let server = RedisServer::start();
    let (mut old, mut new) = (open(&server), open(&server));
    let run = |store: &mut Redis, epoch: u64, since: u64, generation: u32| {
        let fence = Fence { epoch, generation };
        let fields = [("epoch", epoch), ("generation", u64::from(generation))].map(|(f, v)| (f.into(), v.to_string()));
        let write = Write::Fields { key: "od:item:1".into(), fields: fields.to_vec(), ttl: Duration::from_secs(60), fence };
        let mark = Applied { epoch, generation, ..Applied::default() };
        store.write(&[write], &mark, Known { since, first: true, ..Known::default() }).expect("the server is there").refused
    };
    let write = |store: &mut Redis, epoch, generation| run(store, epoch, if generation == 1 { 1 } else { 50 }, generation);
    let transactions = || {
        let stats: String = redis::cmd("INFO").arg("commandstats").query(&mut connect(&server)).expect("it answers");
        let calls = stats.lines().find_map(|l| l.strip_prefix("cmdstat_exec:calls=")?.split(',').next()?.parse::<u64>().ok());
        calls.unwrap_or(0)
    };
    let there = || redis::cmd("HGET").arg("od:item:1").arg("epoch").query::<u64>(&mut connect(&server)).expect("it answers");
    assert_eq!((write(&mut old, 1, 1), write(&mut old, 2, 1), transactions(), there()), (0, 0, 2, 2));
    assert_eq!((write(&mut new, 50, 2), transactions(), there()), (0, 3, 50));
    assert_eq!((write(&mut old, 9, 1), transactions(), there()), (1, 4, 50), "tried, came to nothing, refused by the script");
    assert_eq!((write(&mut old, 10, 1), transactions(), there()), (1, 4, 50), "and is not tried again");
    assert_eq!((write(&mut new, 51, 2), transactions(), there()), (0, 5, 51), "the new one was not disturbed");
    tell(&mut connect(&server), &["FLUSHALL"]);
    assert_eq!((write(&mut new, 52, 2), transactions(), there()), (0, 6, 52), "a lease that is gone is no lease");
    assert_eq!((write(&mut new, 53, 2), transactions(), there()), (0, 7, 53), "and is asked for again");
    assert_eq!((run(&mut open(&server), 100, 100, 1), transactions(), there()), (0, 8, 100), "a state that was begun anew");
    assert_eq!((write(&mut new, 54, 2), transactions(), there()), (1, 9, 100), "and its generation is lower");
}

/// A transaction in which one command fails has done the others: the script says it all once more, and replaces the stranger.
#[test]
fn a_key_of_another_sort_is_replaced() {
    let server = RedisServer::start();
    let mut store = open(&server);
    let members = |epoch| {
        let members = vec![("i1".to_string(), Some(1.0))];
        Write::Members { key: "od:gone".into(), members, ttl: Duration::from_secs(60), fence: Fence { epoch, generation: 1 } }
    };
    let mark = |epoch| Applied { epoch, generation: 1, ..Applied::default() };
    let first = Known { since: 1, first: true, ..Known::default() };
    store.write(&[members(1)], &mark(1), first).expect("the server is there");
    tell(&mut connect(&server), &["SET", "od:gone", "x"]);
    store.write(&[members(2)], &mark(2), first).expect("the script replaces it");
    let there: Vec<String> = redis::cmd("ZRANGE").arg("od:gone").arg(1).arg(-1).query(&mut connect(&server)).expect("a set");
    assert_eq!(there, ["i1"]);
}

/// A server that takes connections and says nothing holds the writer up for one timeout, not for one per answer.
#[test]
fn a_server_that_falls_silent_is_given_up_after_one_timeout() {
    let server = RedisServer::start();
    let mut params: RedisParams = defaults("redis").try_into().expect("the section of redis");
    (params.url, params.response_timeout) = (server.url(), Duration::from_millis(200));
    let mut store = Redis::open(&params, "od:").expect("a readable url");
    let write = |key: usize, epoch| Write::Value {
        key: format!("od:slate:home:{{u{key}}}"),
        value: layout::deleted_value(Fence { epoch, generation: 1 }),
        ttl: Duration::from_secs(60),
        fence: Fence { epoch, generation: 1 },
    };
    let mut batch = move |epoch| {
        let writes: Vec<Write> = (0..200).map(|key| write(key, epoch)).collect();
        let mark = Applied { epoch, generation: 1, ..Applied::default() };
        store.write(&writes, &mark, Known { since: 1, first: true, ..Known::default() })
    };
    batch(1).expect("the server is there");
    tell(&mut connect(&server), &["CLIENT", "PAUSE", "600000", "ALL"]);
    let (done, hears) = std::sync::mpsc::channel();
    let writing = std::thread::spawn(move || done.send(batch(2).map_err(|error| error.to_string())));
    // one timeout for each of its 200 answers would be 40 s
    let answer = hears.recv_timeout(Duration::from_secs(20)).expect("it gives up");
    assert!(answer.is_err(), "{answer:?}");
    writing.join().expect("no panic").expect("heard");
}

/// Neighbours are told in turns: only what a round began with is told of every key group when it ends.
#[test]
fn the_tick_of_the_mark_is_where_the_last_complete_round_began() {
    let (stream, server) = (Stream::new(), RedisServer::start());
    let running = Running::start(Box::new(open(&server)), &stream, 1);
    let turns = [(0, 300), (300, 300), (300, 1024), (0, 0), (0, 1), (1, 1000)];
    for (number, (from, to)) in (1..).zip(turns) {
        let mut completed = completed(number, Vec::new(), None);
        completed.binding.epoch.turn = Turn { from, to };
        running.send(completed);
    }
    let (stats, _) = running.end();
    assert_eq!((stats.applied.epoch, stats.applied.tick_epoch), (6, 1));
    assert_eq!(stats.applied.tick_offsets, [((Role::Events, 0), 2)].into());
}

/// A new engine finds the mark of one that crashed before it had told everything again.
#[test]
fn a_rebuilding_that_nobody_finished_is_taken_up() {
    let (stream, server) = (Stream::new(), RedisServer::start());
    let mark = Applied { epoch: 10, generation: 1, rebuilding: true, ..Applied::default() };
    open(&server).write(&[], &mark, Known::default()).expect("the server is there");
    let running = Running::start(Box::new(open(&server)), &stream, 2);
    for number in 5..=12 {
        running.send(stream.epoch(number));
        running.wait(number);
    }
    let (stats, lost) = running.end();
    assert_eq!((stats.lost, lost, stats.applied.rebuilding), (1, vec![1], true));
}
