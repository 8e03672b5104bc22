//! Freshness with real servers: from an event's acceptance by Kafka to its effect in Redis, at `RATE` events a second (5,000) for
//! `SECONDS` (30), with two workers, after `WARM` seconds (25) in which the broker is compiled and the caches fill. Measured twice: by an outside client that appends an event of a user of its own and polls
//! Redis until that user's slate is there, and by the engine's own histogram.
//!
//! Needs redis-server and the Kafka jars, as `make test` installs them.

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use bytes::Bytes;
use common::percentile;
use overdrive::codec::json;
use overdrive::model::Role;
use overdrive::sources::synthetic::{Params, World};
use overdrive::sources::{Appender, kafka::KafkaAppender};
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::kafka::KafkaBroker;
use support::redis::RedisServer;

fn number(name: &str, otherwise: f64) -> f64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

fn now() -> i64 {
    overdrive::model::time::now_ms()
}

struct Engine(Child);

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn engine(broker: &KafkaBroker, redis: &RedisServer, dir: &std::path::Path, port: u16) -> Engine {
    let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
    command.arg("run").current_dir(dir).env("OVERDRIVE_SOURCE__KIND", "kafka").env("OVERDRIVE_STORE__KIND", "redis");
    command.env("OVERDRIVE_KAFKA_BROKERS", broker.brokers()).env("OVERDRIVE_REDIS_URL", redis.url());
    command.env("OVERDRIVE_STATE_DIR", dir).env("OVERDRIVE_METRICS__PORT", port.to_string());
    command.env("OVERDRIVE_CHANGES__KIND", "none").env("OVERDRIVE_LOGGING__FILTER", "warn");
    Engine(command.spawn().expect("the engine starts"))
}

fn main() {
    let (rate, seconds) = (number("RATE", 5_000.0), number("SECONDS", 30.0));
    let (broker, redis) = (KafkaBroker::start_optimised(), RedisServer::start());
    let dir = tempfile::tempdir().expect("a folder");
    let port = support::free_port();
    let mut config = overdrive::config::Config::defaults();
    config.kafka.brokers = broker.brokers();
    overdrive::sources::kafka::create_topics(&config.kafka).expect("topics");
    let appender = Arc::new(KafkaAppender::open(&config.kafka).expect("a producer"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let world = Arc::new(
        World::new(Params::sized(10_000_000, number("USERS", 20_000.0) as u32, number("ITEMS", 5_000.0) as u32)).expect("good"),
    );
    let items = world.items().map(|i| (Bytes::from(i.item_id.to_string()), Some(Bytes::from(json::bytes(&i))))).collect();
    runtime.block_on(appender.append(Role::Items, items)).expect("items");
    let engine = engine(&broker, &redis, dir.path(), port);
    let stop = Arc::new(AtomicBool::new(false));
    let load = std::thread::spawn({
        let (world, appender, stop, handle) = (world.clone(), appender.clone(), stop.clone(), runtime.handle().clone());
        move || produce(&world, &appender, rate, &stop, &handle)
    });
    std::thread::sleep(Duration::from_secs_f64(number("WARM", 25.0))); // the broker is compiled, the caches fill
    let before = scrape(port);
    let _: () = redis::cmd("CONFIG").arg("RESETSTAT").query(&mut client(&redis)).expect("redis answers");
    let mut seen = probe(&redis, &appender, &runtime, Duration::from_secs_f64(seconds));
    let after = scrape(port);
    stop.store(true, Ordering::Release);
    let produced = load.join().expect("the producer does not panic");
    println!("freshness at {rate:.0} events/s ({produced} produced), two workers, Kafka and Redis on the same machine:");
    println!(
        "  outside client: {} probes, p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        seen.len(),
        percentile(&mut seen, 0.5),
        percentile(&mut seen, 0.99),
        percentile(&mut seen, 1.0)
    );
    println!("  own histogram:  p50 ≤ {} ms, p99 ≤ {} ms", quantile(&before, &after, 0.5), quantile(&before, &after, 0.99));
    println!("  Redis, µs of its CPU (calls of scripts contain the others'):\n{}", commands(&redis, seconds));
    drop(engine);
}

fn client(redis: &RedisServer) -> redis::Connection {
    redis::Client::open(redis.url()).and_then(|c| c.get_connection()).expect("redis answers")
}

/// What each of Redis' commands took, the dearest first.
fn commands(redis: &RedisServer, seconds: f64) -> String {
    let text: String = redis::cmd("INFO").arg("commandstats").query(&mut client(redis)).expect("redis answers");
    let number = |fields: &str, name: &str| -> f64 {
        fields.split(',').find_map(|f| f.strip_prefix(name)?.strip_prefix('=')?.parse().ok()).unwrap_or(0.0)
    };
    let mut lines: Vec<(f64, String)> = text
        .lines()
        .filter_map(|line| {
            let (name, fields) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let (calls, took) = (number(fields, "calls"), number(fields, "usec"));
            let line = format!(
                "    {name:<12} {:>8.0} calls/s {:>8.1} µs a call {:>5.1} % of a core",
                calls / seconds,
                took / calls,
                took / seconds / 1e4
            );
            Some((took, line))
        })
        .collect();
    lines.sort_by(|a, b| b.0.total_cmp(&a.0));
    lines.into_iter().take(12).map(|(_, line)| line).collect::<Vec<_>>().join("\n")
}

/// Sends `rate` events a second in steps of two milliseconds.
fn produce(world: &World, appender: &KafkaAppender, rate: f64, stop: &AtomicBool, handle: &tokio::runtime::Handle) -> u64 {
    let (began, mut sent) = (Instant::now(), 0u64);
    let mut rows = world.events();
    while !stop.load(Ordering::Acquire) {
        let due = (began.elapsed().as_secs_f64() * rate) as u64;
        let batch: Vec<_> = rows.by_ref().take((due - sent) as usize).collect();
        let record = |row| {
            let mut wire = world.wire(row);
            wire.ts = now();
            wire.event_id = None;
            (Bytes::from(wire.user_id.to_string()), Some(Bytes::from(json::event(&wire))))
        };
        let records: Vec<_> = batch.iter().map(record).collect();
        sent += records.len() as u64;
        if !records.is_empty() {
            handle.block_on(appender.append(Role::Events, records)).expect("kafka takes it");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    sent
}

/// One event of a new user at a time: milliseconds from Kafka's acceptance to the slate.
fn probe(redis: &RedisServer, appender: &KafkaAppender, runtime: &tokio::runtime::Runtime, during: Duration) -> Vec<f64> {
    let mut connection = client(redis);
    let (until, mut seen) = (Instant::now() + during, Vec::new());
    while Instant::now() < until {
        let user = format!("probe{}", seen.len());
        let event = format!(r#"{{"type":"like","user_id":"{user}","item_id":"i000001","ts":{}}}"#, now());
        runtime
            .block_on(appender.append(Role::Events, vec![(Bytes::from(user.clone()), Some(Bytes::from(event)))]))
            .expect("kafka");
        let accepted = Instant::now();
        let key = format!("od:slate:home:{{{user}}}");
        loop {
            let there: bool = redis::cmd("EXISTS").arg(&key).query(&mut connection).expect("redis answers");
            if there {
                break;
            }
            assert!(accepted.elapsed() < Duration::from_secs(20), "{user} has no slate after 20 s");
            std::thread::sleep(Duration::from_micros(500));
        }
        seen.push(accepted.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(20));
    }
    seen
}

/// The buckets of the freshness histogram: upper bound in seconds, count.
fn scrape(port: u16) -> Vec<(f64, f64)> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("the engine's metrics answer");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    let buckets = text.lines().filter_map(|line| {
        let (bound, count) = line.strip_prefix("overdrive_freshness_seconds_bucket{le=\"")?.split_once("\"} ")?;
        Some((bound.parse().unwrap_or(f64::INFINITY), count.trim().parse().ok()?))
    });
    buckets.collect()
}

fn quantile(before: &[(f64, f64)], after: &[(f64, f64)], share: f64) -> f64 {
    let counts: Vec<(f64, f64)> =
        after.iter().map(|(le, n)| (*le, n - before.iter().find(|b| b.0 == *le).map_or(0.0, |b| b.1))).collect();
    let all = counts.last().map_or(0.0, |c| c.1);
    counts.iter().find(|(_, n)| *n >= all * share).map_or(f64::NAN, |(le, _)| le * 1e3)
}
