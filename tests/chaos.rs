//! Killed at random, again and again, under load, with Redis losing everything now and then, as one process or two, with one worker
//! or more: in the end every key holds what a run leaves that was never interrupted, over the same epochs; every record was read
//! once; and no reader ever saw a key's epoch go back but where Redis had lost it.
//!
//! `CHAOS_KILLS=200 CHAOS_CYCLES=20 CHAOS_SEED=7 cargo test --test chaos` is the long form; a failure prints the line that repeats it.
//! `CHAOS_SHAPES=2` leaves it at the first two shapes; `CHAOS_KEEP=1` leaves the folders of a failed run, with both change feeds.
#![cfg(all(feature = "redis", feature = "kafka"))]

#[path = "support/mod.rs"]
mod support;

use overdrive::model::Role;
use rustix::process::Pid;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::actions::{Action, Drive};
use support::engines::{Dice, Scene, Shape, Stage, connect, number, shown, wait_for};
use support::free_port;
use support::redis::RedisServer;
use support::topics::KafkaInput;
use support::until;

/// What is killed and started: workers of each process, and processes.
const SHAPES: [Shape; 4] = [Shape(1, 1), Shape(2, 1), Shape(3, 1), Shape(1, 2)];

#[test]
fn killed_at_random_it_leaves_what_an_undisturbed_run_leaves() {
    let (kills, seed) = (number("CHAOS_KILLS", 6), number("CHAOS_SEED", 1));
    eprintln!("repeat: CHAOS_KILLS={kills} CHAOS_SEED={seed} cargo test --test chaos killed");
    let shapes = &SHAPES[..number("CHAOS_SHAPES", SHAPES.len() as u64) as usize];
    let actions = [
        (6, Action::KillEngine),
        (4, Action::KillAll),
        (2, Action::Stop),
        (1, Action::Corrupt),
        (2, Action::Flush),
        (1, Action::CopyRedis),
        (2, Action::RestartRedis),
    ];
    let mut drive = Drive::new(Scene::open(seed), seed, shapes);
    let mut killed = 0;
    while killed < kills {
        killed += u64::from(drive.round(&actions).ends());
    }
    eprintln!("{}", drive.end());
}

/// The broker ends and comes back, and engines die with it and without it; no record is lost or read twice.
#[test]
fn over_a_broker_that_is_restarted_it_leaves_what_an_undisturbed_run_leaves() {
    let (restarts, seed) = (number("CHAOS_BROKER", 2), number("CHAOS_SEED", 1));
    eprintln!("repeat: CHAOS_BROKER={restarts} CHAOS_SEED={seed} cargo test --test chaos broker");
    let scene = Scene::on(
        Stage { input: Some(Box::new(KafkaInput::start())), redis: RedisServer::start(), batch: 5, settings: &[] },
        seed,
    );
    let mut drive = Drive::new(scene, seed, &SHAPES[..2]);
    let both = [(1, Action::KillBroker), (1, Action::StopBroker)];
    let engines = [(2, Action::KillEngine), (1, Action::KillAll), (1, Action::Stop)];
    for _ in 0..restarts {
        drive.round(&both);
        drive.round(&engines);
    }
    eprintln!("{}", drive.end());
}

/// What a Redis that keeps everything on disk has acknowledged stays, so no reader may see anything go back when it is restarted.
#[test]
fn over_a_redis_that_is_restarted_and_keeps_its_data_no_reader_sees_anything_go_back() {
    let (restarts, seed) = (number("CHAOS_REDIS", 2), number("CHAOS_SEED", 1));
    eprintln!("repeat: CHAOS_REDIS={restarts} CHAOS_SEED={seed} cargo test --test chaos keeps");
    let redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "no"]);
    let mut drive = Drive::new(Scene::on(Stage { input: None, redis, batch: 1, settings: &[] }, seed), seed, &SHAPES[..2]);
    for _ in 0..restarts {
        drive.round(&[(1, Action::RestartRedis)]);
        drive.round(&[(1, Action::KillEngine), (1, Action::RestartRedis)]);
    }
    eprintln!("{}", drive.end());
}

/// A failover to an older copy brings back what was deleted since: it goes again, along with whatever else is of then.
#[test]
fn over_a_redis_that_goes_back_to_an_older_copy_it_leaves_what_an_undisturbed_run_leaves() {
    let (times, seed) = (number("CHAOS_REDIS", 2), number("CHAOS_SEED", 1));
    eprintln!("repeat: CHAOS_REDIS={times} CHAOS_SEED={seed} cargo test --test chaos older");
    let mut drive = Drive::new(Scene::open(seed), seed, &SHAPES[..2]);
    for _ in 0..times {
        drive.round(&[(1, Action::CopyRedis)]);
        drive.round(&[(1, Action::KillEngine), (1, Action::Stop), (2, Action::CopyRedis)]);
        drive.round(&[(1, Action::RestartRedis)]);
    }
    eprintln!("{}", drive.end());
}

/// What an engine knows is soon all it will ever know, so that nothing but what waits could grow.
const FEW_RECORDS: [(&str, &str); 2] =
    [("OVERDRIVE_LEDGER__RECORDS_PER_USER", "50"), ("OVERDRIVE_LEDGER__DEDUP_IDS_PER_USER", "50")];

/// Redis is away while events go on arriving: what waits is one value a key, however long it takes.
#[test]
fn while_redis_is_away_memory_is_bounded_by_keys_and_then_everything_is_there() {
    let (seconds, seed) = (number("CHAOS_OUTAGE", 5), number("CHAOS_SEED", 1));
    eprintln!("repeat: CHAOS_OUTAGE={seconds} CHAOS_SEED={seed} cargo test --test chaos away");
    let mut scene = Scene::on(Stage { input: None, redis: RedisServer::start(), batch: 8, settings: &FEW_RECORDS }, seed);
    let port = free_port();
    let fleet = scene.start(Shape(1, 1), &[("OVERDRIVE_METRICS__PORT", &port.to_string())]);
    let engine = fleet.0[0].engine();
    until("everybody has done as much as is remembered", || (events(&scene) > 30_000).then_some(()));
    wait_for(&scene.redis, &scene.input.ends());
    let (before, began) = (resident(engine), Instant::now());
    let (mut most_dirty, mut most) = (0, before);
    scene.losing(|redis| {
        redis.kill();
        while began.elapsed() < Duration::from_secs(seconds) {
            std::thread::sleep(Duration::from_millis(200));
            most = most.max(resident(engine));
            most_dirty = most_dirty.max(metric(port, "overdrive_dirty_keys").expect("it is told") as u64);
        }
        redis.restart();
    });
    until("it goes on", || (shown(&scene.redis) > 0).then_some(()));
    assert_eq!(fleet.0[0].engine(), engine, "it did not die of it");
    let grown = most.saturating_sub(before) >> 20;
    eprintln!("away for {seconds} s: at most {most_dirty} dirty keys, {} MiB before, {grown} MiB more", before >> 20);
    let figures = scene.close(fleet);
    eprintln!("{figures}");
    assert!(most_dirty > 0 && most_dirty < 2_000, "{most_dirty} dirty keys, of users and items some thousand");
    assert!(grown < 64, "{grown} MiB more: more than waits for some thousand keys");
}

/// A Redis that is too small drops keys of its own accord; when it has room again, everything is there again.
#[test]
fn what_a_full_redis_drops_is_written_again_when_it_has_room() {
    let seed = number("CHAOS_SEED", 1);
    eprintln!("repeat: CHAOS_SEED={seed} cargo test --test chaos drops");
    let mut scene = Scene::open(seed);
    let port = free_port();
    let fleet = scene.start(Shape(1, 1), &[("OVERDRIVE_METRICS__PORT", &port.to_string())]);
    until("all users and items have answers", || (keys(&scene.redis) > 700).then_some(()));
    scene.losing(|redis| {
        let used = info(redis, "used_memory");
        set(redis, "maxmemory-policy", "allkeys-lru");
        set(redis, "maxmemory", &(used - used / 8).to_string());
        until("keys are dropped", || (info(redis, "evicted_keys") > 200).then_some(()));
        until("it is noticed", || (metric(port, "overdrive_store_evicts")? > 0.0).then_some(()));
        set(redis, "maxmemory", "0");
    });
    until("the room is noticed", || (metric(port, "overdrive_store_evicts")? == 0.0).then_some(()));
    // what is owed is asked for after the batch that noticed; the batch after that one marks it
    for _ in 0..2 {
        let before = shown(&scene.redis);
        until("something newer is written", || (shown(&scene.redis) > before).then_some(()));
    }
    assert!(metric(port, "overdrive_store_lost_total") > Some(0.0), "that something was lost is counted");
    eprintln!("{} keys dropped, {}", info(&scene.redis, "evicted_keys"), scene.close(fleet));
}

#[test]
fn with_other_numbers_of_workers_it_goes_on_where_it_was() {
    let (cycles, seed) = (number("CHAOS_CYCLES", 1), number("CHAOS_SEED", 1));
    eprintln!("repeat: CHAOS_CYCLES={cycles} CHAOS_SEED={seed} cargo test --test chaos other");
    let (scene, mut dice) = (Scene::open(seed), Dice(seed));
    let mut gaps = Vec::new();
    let mut fleet = scene.start(Shape(1, 1), &[]);
    for phase in 0..cycles * 3 {
        until("the first answers are there", || (shown(&scene.redis) > 0).then_some(()));
        std::thread::sleep(Duration::from_millis(dice.below(1_500)));
        fleet.0[0].kill_engine();
        std::thread::sleep(Duration::from_millis(200 + dice.below(1_500)));
        assert!(fleet.live(), "phase {phase}: it ended by itself");
        let workers = [2, 4, 1][phase as usize % 3];
        let began = Instant::now();
        fleet.stop();
        let stopped = shown(&scene.redis);
        fleet = scene.start(Shape(workers, 1), &[]);
        until("there is something newer", || (shown(&scene.redis) > stopped).then_some(()));
        gaps.push(began.elapsed());
    }
    gaps.sort();
    let (median, longest) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    let kills = cycles * 3;
    eprintln!("{cycles} cycles of 1 to 2 to 4 to 1 workers, {kills} kills, {}", scene.close(fleet));
    eprintln!("from the word to stop to the first newer answer: median {median:?}, longest {longest:?}");
}

/// How many events have arrived.
fn events(scene: &Scene) -> u64 {
    scene.input.ends().iter().filter(|((role, _), _)| *role == Role::Events).map(|(_, end)| end).sum()
}

/// How many keys there are.
fn keys(redis: &RedisServer) -> u64 {
    redis::cmd("DBSIZE").query(&mut connect(redis)).expect("redis answers")
}

/// A number of what a server says of itself.
fn info(redis: &RedisServer, name: &str) -> u64 {
    let info: redis::InfoDict = redis::cmd("INFO").query(&mut connect(redis)).expect("redis answers");
    info.get(name).expect("it is told")
}

fn set(redis: &RedisServer, name: &str, value: &str) {
    redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec(&mut connect(redis)).expect("redis answers");
}

/// Bytes of memory that a process holds.
fn resident(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel tells");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// The sum of what an engine tells under this name.
fn metric(port: u16, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<f64>().ok();
    text.lines().filter_map(of).reduce(|a, b| a + b)
}
