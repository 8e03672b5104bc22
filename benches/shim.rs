//! What the read side costs, over a real Redis: a feed against a bare handler that answers from the same value, both on one thread; the
//! honest beside hostile connections; what is near among a million items; 200 candidates of a caller in order.
//!
//! The load is in this process, on a thread of its own, with connections that are kept. `SECONDS` (3) a measurement, `PAIRS` (5) of them
//! in turns, `RATE` (10000) requests a second where they come as they are due, `ITEMS` (1000000) with places, `RANKED` (100) requests with
//! candidates a second, `THREADS` (1) of the shim; `RANK_BY` a model that orders them (`overdrive train deepfm --for rank`). `ONLY=rank` does that alone.

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::get;
use common::load::{Pace, load};
use common::{Rng, median, number};
use overdrive::config::Config;
use overdrive::model::place::{Place, Standing};
use overdrive::model::{Kind, Signals, Source};
use overdrive::shim::{Access, Handle, Recent, RedisReader, spawn};
use overdrive::sinks::layout::{self, Keys, SlateValue, Stamp, StoredInterests, StoredProfile, Why, proto};
use overdrive::sinks::{Applied, Fence, Known, Store, Write};
use overdrive::sources::log::LogAppender;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use support::redis::RedisServer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PREFIX: &str = "od:";
const TTL: Duration = Duration::from_secs(3_600);
const FENCE: Fence = Fence { epoch: 1, generation: 1 };
const CLOCK: i64 = 1_763_600_000_123;
const USERS: u64 = 10_000;
/// Items of a slate, and of a page.
const STORED: usize = 200;
/// Items of a user's history, and items near each.
const LATEST: usize = 20;
const NEAR: usize = 50;
const PAGE: usize = 20;

fn main() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
    let (redis, dir) = (RedisServer::start(), tempfile::tempdir().expect("a folder"));
    let mut config = Config::defaults();
    config.redis.url = redis.url();
    let mut store = overdrive::sinks::redis::Redis::open(&config.redis, PREFIX).expect("the url is one");
    slates(&mut store);
    if std::env::var("ONLY").as_deref() != Ok("rank") {
        let shim = shim(&config, dir.path());
        marks(shim.addr, &redis.url());
        beside_the_hostile(shim.addr);
        near(&mut store, shim.addr);
        shim.stop();
    }
    catalogue(&mut store);
    for by in [String::new()].into_iter().chain(std::env::var("RANK_BY")) {
        config.service.rank_by = by;
        let shim = shim(&config, dir.path());
        ranked(shim.addr, &config.service.rank_by);
        shim.stop();
    }
}

/// The shim, on one thread.
fn shim(config: &Config, dir: &std::path::Path) -> Handle {
    let mut params = config.service.clone();
    (params.port, params.grpc, params.threads) = (0, false, number("THREADS", 1) as usize);
    let reader = Arc::new(RedisReader::new(&config.redis, PREFIX, params.request_timeout).expect("the url is one"));
    let log = Arc::new(LogAppender::open(dir, &config.log).expect("the log opens"));
    let access = Access::open(&config.access, dir).expect("nobody is asked who they are");
    let rules = overdrive::shim::Rules::read(config).expect("the model is good");
    let state = overdrive::shim::State::new(&params, PREFIX, reader, log, access, Recent::default(), rules);
    spawn(&params, state).expect("a free port")
}

/// A slate for everybody.
fn slates(store: &mut dyn Store) {
    let mut rng = Rng(7);
    let value = |user: &str, rng: &mut Rng| {
        let mut slate = SlateValue::new(Vec::new(), user, "home", CLOCK);
        for place in 0..STORED {
            let (item, subject) = (format!("item-{:07}", rng.below(1_000_000)), format!("item-{:07}", rng.below(1_000_000)));
            let mut why = Vec::new();
            Why { kind: proto::ReasonKind::Because, interaction: "share", subject: &subject }.encode(&mut why);
            slate.push(&item, 900_000 - place as i32, Source::Neighbours, &why, &[4_000, 9_000, 1_000, 6_000, 2_500]);
        }
        slate.ordered_by("blend", "");
        (0..LATEST).for_each(|_| slate.took(&item_name(rng.below(CARDS)), "like"));
        slate.in_all(LATEST as u32);
        slate.finish(Stamp { epoch: 1, generation: 1, model: 0 })
    };
    let keys = Keys::new(PREFIX);
    let writes = (0..USERS).map(|user| {
        let user = name(user);
        Write::Value { key: keys.slate("home", None, &user), value: value(&user, &mut rng), ttl: TTL, fence: FENCE }
    });
    put(store, writes.collect());
}

fn put(store: &mut dyn Store, writes: Vec<Write>) {
    let applied = Applied { epoch: 1, tick_epoch: 1, clock_ms: CLOCK, ..Applied::default() };
    for some in writes.chunks(2_000) {
        store.write(some, &applied, Known::default()).expect("redis takes it");
    }
}

fn name(user: u64) -> String {
    format!("user-{user:05}")
}

/// Requests as bytes.
fn requests(targets: impl Iterator<Item = String>) -> Arc<Vec<Vec<u8>>> {
    Arc::new(targets.map(|target| format!("GET {target} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes()).collect())
}

fn feeds() -> Arc<Vec<Vec<u8>>> {
    let mut rng = Rng(11);
    requests((0..USERS).map(move |_| format!("/v1/feeds/home/{}?k={PAGE}", name(rng.below(USERS)))))
}

/// A handler of a few lines that answers from the same value, on a thread of its own.
fn bare(url: &str) -> SocketAddr {
    let (client, (told, addr)) = (redis::Client::open(url).expect("a url"), std::sync::mpsc::channel());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("bare").enable_all().build();
        let runtime = runtime.expect("a runtime");
        let serve = async move {
            let connection = client.get_multiplexed_async_connection().await.expect("redis answers");
            let router = axum::Router::new().route("/v1/feeds/home/{user}", get(page)).with_state(connection);
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            told.send(listener.local_addr().expect("an address")).expect("somebody waits");
            axum::serve(listener, router).await.expect("it serves");
        };
        runtime.block_on(async { runtime.spawn(serve).await.expect("it serves") });
    });
    addr.recv().expect("it starts")
}

/// The first items of the stored slate, as the feed shows them.
async fn page(State(mut redis): State<MultiplexedConnection>, Path(user): Path<String>) -> Json<Value> {
    let value: Vec<u8> = redis.get(Keys::new(PREFIX).slate("home", None, &user)).await.expect("redis answers");
    let stored = layout::decode_slate(&value).expect("as it was written");
    let items = stored.slate.items.iter().take(PAGE).map(|item| {
        let reason = layout::reason_text(item.reason.as_ref().expect("always written"), None);
        json!({"item_id": item.item_id, "score": f64::from(item.score_micro) / 1e6, "source": item.source, "reason": reason})
    });
    Json(json!({"user_id": user, "as_of": stored.slate.as_of_ms, "epoch": stored.epoch, "items": items.collect::<Vec<_>>()}))
}

/// Of one turn.
struct Figures {
    rate: f64,
    p99: f64,
    /// Microseconds of CPU a request.
    each: f64,
}

/// A feed against the bare handler, 64 connections, in turns.
fn marks(shim: SocketAddr, url: &str) {
    let (bare, asked) = (bare(url), feeds());
    let ask = |addr, thread, pace| {
        let cpu = cpu_of(thread);
        let load = load(addr, &asked, 64, number("SECONDS", 3) as f64, pace);
        let each = (cpu_of(thread) - cpu) * 1e6 / load.took.len() as f64;
        let (rate, p50, p99) = (load.rate, load.p(0.5), load.p(0.99));
        let how = if matches!(pace, Pace::Rate(_)) { " as they are due" } else { "" };
        println!("{thread}{how}: {rate:.0} requests/s, p50 {p50:.2} ms, p99 {p99:.2} ms, {each:.0} µs of its thread a request");
        Figures { rate, p99, each }
    };
    let (at_once, due) = (Pace::After(Duration::ZERO), Pace::Rate(number("RATE", 10_000) as f64));
    let turn = |_| [ask(shim, "shim", at_once), ask(bare, "bare", at_once), ask(shim, "shim", due)];
    let turns: Vec<_> = (0..number("PAIRS", 5)).map(turn).collect();
    let of = |figure: fn(&[Figures; 3]) -> f64| median(turns.iter().map(figure).collect());
    println!(
        "feed, medians: {:.0} requests/s, {:.2} of the bare handler's; p99 {:.2} ms; {:.2} of its CPU a request",
        of(|[shim, ..]| shim.rate),
        of(|[shim, bare, _]| shim.rate / bare.rate),
        of(|[shim, ..]| shim.p99),
        of(|[shim, bare, _]| shim.each / bare.each)
    );
    println!("as they are due, medians: {:.0} requests/s, p99 {:.2} ms", of(|[.., due]| due.rate), of(|[.., due]| due.p99));
}

/// CPU seconds of the threads of this name.
fn cpu_of(thread: &str) -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("linux").flatten();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    let ticks = |stat: String| {
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let ticks = rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok());
        (name == thread).then(|| ticks.sum::<f64>() / 100.0)
    };
    stats.filter_map(ticks).sum()
}

/// Connections that mean harm, until they are told to stop.
struct Hostile {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Hostile {
    /// 500 that drip their heads, a byte in a tenth of a second, and come again when they are cut; 3,000 that asked once and say nothing.
    fn start(addr: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked_once = || {
            let mut stream = TcpStream::connect(addr).expect("there is a place");
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: bench\r\n\r\n").expect("open");
            assert!(stream.read(&mut [0; 1_024]).expect("an answer") > 0);
            stream
        };
        let idle: Vec<TcpStream> = (0..3_000).map(|_| asked_once()).collect();
        let connect = move || TcpStream::connect(addr).expect("there is a place");
        let mut dripping: Vec<TcpStream> = (0..500).map(|_| connect()).collect();
        let over = stop.clone();
        let thread = std::thread::spawn(move || {
            for byte in b"GET /livez HTTP/1.1\r\nhost: bench\r\nx-slow: ".iter().chain(std::iter::repeat(&b'a')) {
                for stream in &mut dripping {
                    if stream.write_all(&[*byte]).is_err() {
                        *stream = connect();
                    }
                }
                if over.load(Ordering::Relaxed) {
                    return drop(idle);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it ends");
    }
}

/// What 16 honest connections wait for their answers, alone and among hostile ones, in turns.
fn beside_the_hostile(shim: SocketAddr) {
    let asked = feeds();
    let ask = || load(shim, &asked, 16, number("SECONDS", 3) as f64 * 2.0, Pace::After(Duration::from_millis(10)));
    ask();
    let mut ratios = Vec::new();
    for _ in 0..number("PAIRS", 5) {
        let alone = ask();
        let hostile = Hostile::start(shim);
        let beside = ask();
        hostile.stop();
        let ratio = beside.p(0.99) / alone.p(0.99);
        println!("honest p99: {:.2} ms alone, {:.2} ms beside the hostile, ratio {ratio:.2}", alone.p(0.99), beside.p(0.99));
        ratios.push(ratio);
    }
    println!("honest, median: ratio {:.2}", median(ratios));
}

/// What is near a random item among many: four of five in 400 towns, the others anywhere on land that is as large as Europe.
fn near(store: &mut dyn Store, shim: SocketAddr) {
    let (items, mut rng) = (number("ITEMS", 1_000_000), Rng(5));
    let mut unit = move || (rng.next() >> 11) as f64 / (1u64 << 53) as f64;
    let anywhere = |unit: &mut dyn FnMut() -> f64| (36.0 + 24.0 * unit(), -9.0 + 39.0 * unit());
    let towns: Vec<(f64, f64)> = (0..400).map(|_| anywhere(&mut unit)).collect();
    // The sum of three: near the middle more than at the edge, at most a third of a degree away.
    let spread = |unit: &mut dyn FnMut() -> f64| (unit() + unit() + unit() - 1.5) * 0.22;
    let (mut lists, mut asked) = (BTreeMap::<String, Vec<(i64, u64)>>::new(), Vec::new());
    for item in 0..items {
        let (lat, lon) = match unit() < 0.8 {
            true => {
                let (lat, lon) = towns[(unit() * 400.0) as usize];
                (lat + spread(&mut unit), lon + spread(&mut unit))
            }
            false => anywhere(&mut unit),
        };
        let (place, quality) = (Place::new(lat, lon).expect("on the earth"), unit());
        let packed = Standing { place, quality }.packed();
        place.cells().iter().for_each(|cell| lists.entry(cell.to_string()).or_default().push((packed, item)));
        if item % (items / 1_000).max(1) == 0 {
            asked.push(format!("/v1/feeds/near/{}?k={PAGE}&lat={lat:.4}&lon={lon:.4}", name(item % USERS)));
        }
    }
    let (keys, kept, cells) = (Keys::new(PREFIX), Config::defaults().recommend.near.kept, lists.len());
    let writes = lists.into_iter().map(|(cell, mut members)| {
        members.sort_unstable_by(|a, b| b.cmp(a));
        members.truncate(kept);
        let members = members.into_iter().map(|(packed, item)| (format!("item-{item:07}"), packed as f64)).collect();
        Write::Ranked { key: keys.near(&cell), members, ttl: TTL, fence: FENCE }
    });
    put(store, writes.collect());
    println!("near: {items} items in {cells} cells");
    let asked = requests(asked.into_iter());
    for (connections, pause) in [(1, 0), (4, 0), (16, 100)] {
        let near = load(shim, &asked, connections, number("SECONDS", 3) as f64 * 3.0, Pace::After(Duration::from_millis(pause)));
        println!(
            "near, {connections} connections, {pause} ms between: {:.0} requests/s, p50 {:.2} ms, p99 {:.2} ms",
            near.rate,
            near.p(0.5),
            near.p(0.99)
        );
    }
}

/// Candidates of a request, and items they are of.
const CANDIDATES: u64 = 200;
const CARDS: u64 = 5_000;

fn item_name(item: u64) -> String {
    format!("item-{item:07}")
}

/// Cards, signals and neighbours of items, profiles and interests of users.
fn catalogue(store: &mut dyn Store) {
    let (keys, mut rng) = (Keys::new(PREFIX), Rng(13));
    let stamp = Stamp { epoch: 2, generation: 1, model: 0 };
    let fence = Fence { epoch: 2, generation: 1 };
    let mut writes = Vec::new();
    for item in 0..CARDS {
        let (item_id, category) = (item_name(item), format!("c{}", item % 32));
        let (lat, lon) = (Some(36.0 + rng.below(2_400) as f64 / 100.0), Some(rng.below(3_000) as f64 / 100.0));
        let tags = vec![format!("t{}", item % 97)];
        let card = proto::Card {
            item_id: item_id.clone(),
            categories: vec![category],
            tags,
            lat,
            lon,
            followers: Some(item),
            ..proto::Card::default()
        };
        writes.push(Write::Value { key: keys.card(&item_id), value: layout::encode_card(&card, stamp), ttl: TTL, fence });
        let signals = Signals {
            counts: vec![(Kind::View, [3, 9, 20, 60, 400]), (Kind::Like, [0, 1, 2, 5, 40]), (Kind::Click, [1, 2, 5, 20, 90])],
            weighted_milli: [3_000, 9_000, 25_000, 70_000, 500_000],
            decayed: 5.0,
            velocity: 1.25,
            ctr: 0.05,
            engagement: 0.125,
        };
        let fields = layout::encode_features(&signals, CLOCK, fence);
        writes.push(Write::Fields { key: keys.item(&item_id), fields, ttl: TTL, fence });
        let near = |n: usize| {
            let item_id = item_name(rng.below(CARDS));
            proto::Neighbour { item_id, similarity_micro: 900_000 - n as i32, users: 90 - n as u32 }
        };
        let list = proto::Neighbours { item_id, as_of_ms: CLOCK, neighbours: (0..NEAR).map(near).collect(), users: 100 };
        let key = keys.neighbours(&list.item_id);
        writes.push(Write::Value { key, value: layout::encode_neighbours(&list, stamp), ttl: TTL, fence });
    }
    for user in (0..USERS).map(name) {
        let weights: Vec<(String, f64)> = (0..16).map(|n| (format!("category:c{n}"), 1.0 / 16.0)).collect();
        let interests = StoredInterests { as_of: CLOCK, epoch: 2, short: weights.clone(), long: weights, drift: 0.1 };
        writes.push(Write::Fields {
            key: keys.interests(&user),
            fields: layout::encode_interests(&interests, 1),
            ttl: TTL,
            fence,
        });
        let profile = StoredProfile {
            as_of: CLOCK,
            epoch: 2,
            place: Some((48.1, 11.5)),
            city: Some("Munich".into()),
            ..StoredProfile::default()
        };
        writes.push(Write::Fields { key: keys.profile(&user), fields: layout::encode_profile(&profile, 1), ttl: TTL, fence });
    }
    put(store, writes);
}

/// 200 candidates in order: 64 connections that ask again at once, and as they are due.
fn ranked(shim: SocketAddr, by: &str) {
    let mut rng = Rng(17);
    let asked = (0..1_000).map(|_| {
        let first = rng.below(CARDS - CANDIDATES);
        let items: Vec<String> = (first..first + CANDIDATES).map(item_name).collect();
        let body = json!({"user_id": name(rng.below(USERS)), "items": items, "k": 30}).to_string();
        format!(
            "POST /v1/rank HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    });
    let asked = Arc::new(asked.collect::<Vec<_>>());
    let by = if by.is_empty() { "the fixed weights" } else { by };
    for pace in [Pace::After(Duration::ZERO), Pace::Rate(number("RANKED", 100) as f64)] {
        let load = load(shim, &asked, 64, number("SECONDS", 3) as f64 * 3.0, pace);
        let how = if matches!(pace, Pace::Rate(_)) { " as they are due" } else { "" };
        let (rate, p50, p95) = (load.rate, load.p(0.5), load.p(0.95));
        println!("{CANDIDATES} candidates by {by}, 64 connections{how}: {rate:.0} requests/s, p50 {p50:.1} ms, p95 {p95:.1} ms");
    }
}
