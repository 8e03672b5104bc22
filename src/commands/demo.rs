//! `overdrive demo`: a made-up world, the whole path and the console in one process, with nothing installed.
//!
//! The world's last day is written to the embedded log at once, as history; what follows is played at a steady rate as it happens,
//! so that the world's tastes drift and break, and items are born, while one looks.

use bytes::Bytes;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::signals;
use super::stack::{Parts, Stack};
use crate::codec::json::{self, WireItem};
use crate::config::{ClockKind, Config};
use crate::model::Role;
use crate::model::time::{DAY, Millis, now_ms};
use crate::scoring::cohorts::Cohort;
use crate::scoring::experiments::{Arm, Experiment, Ranks};
use crate::sources::log::{LogAppender, folder};
use crate::sources::synthetic::{self, World};
use crate::training::Promote;
use crate::{sinks, sources, telemetry};

/// Arguments of `overdrive demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Events a second once the history is in
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// Users of the made-up world
    #[arg(long, default_value_t = 400)]
    users: u32,
    /// Items of the made-up world
    #[arg(long, default_value_t = 600)]
    items: u32,
    /// Events of the day before, written at once
    #[arg(long, default_value_t = 20_000)]
    history: u64,
    /// Do not train a ranker from what happens (which needs Python with what training/requirements.txt lists, and ONNX Runtime)
    #[arg(long)]
    no_training: bool,
    /// Stop by itself after this many seconds; 0: at Ctrl-C
    #[arg(long, default_value_t = 0)]
    seconds: u64,
}

/// Runs until Ctrl-C.
pub fn run(args: Args, config: &Config) -> Result<(), String> {
    if !(args.rate > 0.0 && args.rate <= 100_000.0) {
        return Err(format!("--rate is {}; it must be above 0 and at most 100000 events a second", args.rate));
    }
    let (mut config, _folder) = demo_config(config)?;
    let trains = if args.no_training { Err("it was told not to".to_string()) } else { can_train(&config) };
    if trains.is_ok() {
        train(&mut config);
    }
    telemetry::init(&config.logging)?;
    let world = Arc::new(World::new(params(&args))?);
    let log = LogAppender::open(&folder(&config.engine.state_dir), &config.log)?;
    let stack = Stack::start(&config, Parts { engine: true, shim: true }).map_err(|e| e.to_string())?;
    let stop = signals::stop()?;
    let player = play(world, log, args.history, args.rate, stop.clone())?;
    let addr = stack.addr().ok_or("the shim did not start")?;
    eprint!("{}", welcome(&format!("http://{addr}"), &config.engine.state_dir, &trains));
    let until = (args.seconds > 0).then(|| Instant::now() + Duration::from_secs(args.seconds));
    while !stop.load(Ordering::Acquire) && until.is_none_or(|until| Instant::now() < until) {
        std::thread::sleep(Duration::from_millis(50));
    }
    stop.store(true, Ordering::Release);
    player.join().map_err(|_| "the demo's stream panicked".to_string())??;
    let stats = stack.stop().map_err(|e| e.to_string())?.ok_or("the demo runs an engine")?;
    let account = stats.account;
    eprintln!(
        "stopped: {} events consumed = {} applied + {} duplicate + {} late + {} filtered + {} dead",
        account.consumed, account.applied, account.duplicate, account.late, account.filtered, account.dead
    );
    Ok(())
}

/// The embedded defaults in a folder of the demo's own, made anew, and the lock on it; other ports where the configured ones are taken.
fn demo_config(config: &Config) -> Result<(Config, File), String> {
    let mut config = config.clone();
    config.source.kind = sources::Kind::Log;
    config.source.backfill = String::new();
    config.source.start = "earliest".into();
    config.store.kind = sinks::Kind::Memory;
    config.engine.clock = ClockKind::Wall;
    config.cluster.processes = 1;
    config.recovery.enabled = false; // every demo begins anew
    let (dir, lock) = own_folder(&config.engine.state_dir)?;
    config.engine.state_dir = dir;
    let bind = config.service.bind.as_str();
    let ports = [Some(&mut config.service.port), config.service.grpc.then_some(&mut config.service.grpc_port)];
    for port in ports.into_iter().flatten() {
        if std::net::TcpListener::bind((bind, *port)).is_err() {
            eprintln!("port {port} is taken; the demo uses a free one");
            *port = 0;
        }
    }
    Ok((config, lock))
}

/// Whether a ranker can be made and run here, or what is missing.
fn can_train(config: &Config) -> Result<(), String> {
    if !cfg!(feature = "onnx") {
        return Err("this build runs no models".to_string());
    }
    if config.onnx.library.is_empty() && std::env::var_os("ORT_DYLIB_PATH").is_none_or(|path| path.is_empty()) {
        return Err("ORT_DYLIB_PATH names no library of ONNX Runtime".to_string());
    }
    let python = &config.training.python;
    let tried = Command::new(python).args(["-c", "import lightgbm, numpy, onnx, pyarrow"]).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(_) => Err(format!("{} lacks what training/requirements.txt lists", python.display())),
        Err(e) => Err(format!("{} cannot be run: {e}", python.display())),
    }
}

/// Has a ranker made of what happens, again and again, and ranks by it for half of the users where it is not surely worse.
fn train(config: &mut Config) {
    config.recommend.learn.enabled = true;
    config.recommend.learn.logged = 1.0;
    config.recommend.ranker.registry = config.engine.state_dir.join("models").to_string_lossy().into_owned();
    config.training.enabled = true;
    config.training.every = TRAINED_EVERY;
    config.training.watch = TRAINED_EVERY;
    config.training.least = 100;
    config.training.promote = Promote::NoWorse; // within minutes nothing is sure
    let arm = |name: &str, ranks| Arm { name: name.to_string(), weight: 1.0, ranks };
    let arms = vec![arm("blend", Ranks::Blend), arm("model", Ranks::Model)];
    let cohort = Cohort::default();
    config.recommend.experiments.list = vec![Experiment { name: "ranker".to_string(), rollout: 1.0, cohort, arms }];
}

/// Enough for a model that has seen something, and short enough to wait for.
const TRAINED_EVERY: Duration = Duration::from_secs(90);

/// The first of `demo`, `demo-2`, … that no running demo holds, emptied.
fn own_folder(state_dir: &Path) -> Result<(PathBuf, File), String> {
    let of = |dir: &Path, e: std::io::Error| format!("{} cannot be made anew: {e}; set OVERDRIVE_STATE_DIR", dir.display());
    std::fs::create_dir_all(state_dir).map_err(|e| of(state_dir, e))?;
    for name in std::iter::once("demo".to_string()).chain((2..100).map(|n| format!("demo-{n}"))) {
        let (dir, held) = (state_dir.join(&name), state_dir.join(format!("{name}.lock")));
        let lock = File::create(&held).map_err(|e| of(&held, e))?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(e)) => return Err(of(&held, e)),
            Ok(()) => {}
        }
        if dir.exists() {
            std::fs::remove_dir_all(&dir).map_err(|e| of(&dir, e))?;
        }
        std::fs::create_dir_all(&dir).map_err(|e| of(&dir, e))?;
        return Ok((dir, lock));
    }
    Err(format!("{} holds 99 running demos; stop some", state_dir.display()))
}

/// Two days of which the first, with `history` events, lies behind us.
fn params(args: &Args) -> synthetic::Params {
    let days = 2.0;
    synthetic::Params {
        days,
        start: now_ms() - DAY,
        categories: 12,
        ..synthetic::Params::sized(args.history * 2, args.users, args.items)
    }
}

/// Writes the history, then plays on until `stop`; begins the second day anew when it is over.
fn play(
    world: Arc<World>,
    log: LogAppender,
    history: u64,
    rate: f64,
    stop: Arc<AtomicBool>,
) -> Result<JoinHandle<Result<(), String>>, String> {
    let run = move || {
        let now = now_ms();
        let mut unborn = catalogue(&world, &log, now)?;
        let mut batch = Vec::new();
        let mut events = world.events();
        let past = events.by_ref().take_while(|row| row.at < now).take(history as usize * 2);
        for row in past {
            batch.push(record(&events_json(&world, &row, row.at)));
        }
        log.append_now(Role::Events, &batch)?;
        let began = Instant::now();
        let second_day = || world.events().skip(batch.len());
        for (played, row) in std::iter::repeat_with(second_day).take(PLAYS).flatten().enumerate() {
            let due = began + Duration::from_secs_f64(played as f64 / rate);
            while Instant::now() < due && !stop.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(2).min(due.saturating_duration_since(Instant::now())));
            }
            if stop.load(Ordering::Acquire) {
                return Ok(());
            }
            while unborn.last().is_some_and(|item| item.created_at <= row.at) {
                let born = unborn.pop().expect("there is a last one");
                append_item(&log, &WireItem { created_at: now_ms(), ..born })?;
            }
            log.append_now(Role::Events, &[record(&events_json(&world, &row, now_ms()))])?;
        }
        Ok(())
    };
    std::thread::Builder::new().name("demo-stream".into()).spawn(run).map_err(|e| format!("the demo's stream cannot start: {e}"))
}

/// How often the second day is played at most; more than a visitor stays.
const PLAYS: usize = 1_000_000;

type Keyed = (Bytes, Option<Bytes>);

/// A keyed record of a JSON object with this key.
fn record((key, payload): &(String, Vec<u8>)) -> Keyed {
    (Bytes::from(key.clone()), Some(Bytes::from(payload.clone())))
}

fn events_json(world: &World, row: &synthetic::Row, at: Millis) -> (String, Vec<u8>) {
    let mut wire = world.wire(row);
    wire.ts = at;
    wire.event_id = None; // the world's second day may be played twice
    (wire.user_id.to_string(), json::event(&wire))
}

/// Puts users and the items born so far into the log; yields the others, the next one last.
fn catalogue<'w>(world: &'w World, log: &LogAppender, now: Millis) -> Result<Vec<WireItem<'w>>, String> {
    for user in world.users() {
        log.append_now(Role::Users, &[record(&(user.user_id.to_string(), json::bytes(&user)))])?;
    }
    let (born, mut unborn): (Vec<_>, Vec<_>) = world.items().partition(|item| item.created_at <= now);
    for item in &born {
        append_item(log, item)?;
    }
    unborn.sort_by_key(|item| std::cmp::Reverse(item.created_at));
    Ok(unborn)
}

fn append_item(log: &LogAppender, item: &WireItem) -> Result<(), String> {
    log.append_now(Role::Items, &[record(&(item.item_id.to_string(), json::bytes(item)))]).map(drop)
}

fn welcome(url: &str, state: &Path, trains: &Result<(), String>) -> String {
    let trains = match trains {
        Ok(()) => {
            let every = humantime::format_duration(TRAINED_EVERY);
            format!(
                "every {every} a ranker is trained on what happened; it ranks for half of the users where it is not surely worse"
            )
        }
        Err(why) => format!("no ranker is trained: {why}"),
    };
    format!(
        "
overdrive demo: a made-up world plays into the embedded log; the engine keeps every feed up to date.

  console         {url}/
  API             {url}/docs

try, in another terminal:

  curl '{url}/v1/feeds/home/u000001?k=5&explain=true'
  curl {url}/v1/events -H 'content-type: application/json' -d '{{\"type\":\"share\",\"user_id\":\"u000001\",\"item_id\":\"i000007\"}}'
  curl '{url}/v1/items/i000007/features'
  curl '{url}/v1/trending/global'
  curl '{url}/v1/models'
  curl -X DELETE {url}/v1/users/u000001

{trains}.
Ctrl-C stops it. Its log and change feed are in {}.

",
        state.display()
    )
}
