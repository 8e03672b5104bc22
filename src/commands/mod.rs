//! The command line: one file a subcommand, each with its arguments and a `run` that is handed a checked configuration.

use clap::{Parser, Subcommand};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use crate::config::Config;
use crate::worker::StartError;

pub mod config;
pub mod demo;
pub mod doctor;
pub mod eval;
pub mod generate;
pub mod models;
pub mod replay;
pub mod run;
pub mod serve;
mod signals;
pub mod snapshot;
mod stack;
pub mod token;
pub mod train;

pub use signals::end_at_once;

/// Keeps every active user's feed up to date while events arrive.
#[derive(Debug, Parser)]
#[command(name = "overdrive", version, propagate_version = true, disable_help_subcommand = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// A TOML file with the settings that differ from the defaults; OVERDRIVE_CONFIG names one too, and ./overdrive.toml is read when it is there
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Start here:
  overdrive demo                      everything in one process, with made-up users; needs nothing installed
  overdrive doctor                    what this machine has and lacks
  overdrive config print              every setting with its value

Every setting is also an environment variable: OVERDRIVE_ENGINE__WORKERS=4 overdrive run";

/// Why a command did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The exit code: 1 where another try may help, 78 where somebody must repair or change something first.
    pub code: u8,
    /// One or more lines for the person at the terminal; empty when they were told already.
    pub reason: String,
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self { code: 1, reason }
    }
}

impl From<StartError> for Failed {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Retry(reason) => Self { code: 1, reason },
            StartError::Stop(reason) => Self { code: 78, reason },
        }
    }
}

impl Command {
    /// The flags that are settings: flag, key, value.
    pub fn settings(&self) -> Vec<(&'static str, &'static str, String)> {
        if let Command::Run(args) = self { args.settings() } else { Vec::new() }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole system at work on made-up users, in one process
    #[command(after_help = "Example:\n  overdrive demo\nthen open the address it prints")]
    Demo(demo::Args),
    /// Run the engine: read events, keep everything up to date, write the answers
    #[command(
        after_help = "Example, with real servers:\n  OVERDRIVE_SOURCE__KIND=kafka OVERDRIVE_STORE__KIND=redis \\\n  OVERDRIVE_KAFKA_BROKERS=kafka:9092 OVERDRIVE_REDIS_URL=redis://redis:6379/0 overdrive run\n\nTwo processes with two workers each; each line on its machine, hosts with a line host:port for each:\n  overdrive run --processes 2 --process 0 --hosts hosts --workers 2\n  overdrive run --processes 2 --process 1 --hosts hosts --workers 2"
    )]
    Run(run::Args),
    /// Serve feeds over HTTP from the answers in Redis; start as many as the traffic needs
    #[command(
        after_help = "Example:\n  OVERDRIVE_STORE__KIND=redis overdrive serve\n  curl http://127.0.0.1:8088/v1/feeds/home/u1"
    )]
    Serve(serve::Args),
    /// Feed recorded events from a file into the log or Kafka, at any speed
    #[command(after_help = "Example:\n  overdrive replay --from events.jsonl --to log --speed 100")]
    Replay(replay::Args),
    /// Make up events, items and users with tastes that can be checked
    #[command(after_help = "Example:\n  overdrive generate --events 100000 --to jsonl --out sample")]
    Generate(generate::Args),
    /// Measure how good the recommendations are on a recorded stream
    #[command(
        after_help = "Examples:\n  overdrive eval prequential --data ml-latest-small\n  overdrive eval prequential --data mine --lag 60s --json"
    )]
    Eval(eval::Args),
    /// Train a ranker on the examples the engine logged
    #[command(
        after_help = "Examples:\n  OVERDRIVE_LEARN__ENABLED=true OVERDRIVE_LEARN__LOGGED=1 overdrive run   (for a while)\n  overdrive train lambdarank --out models"
    )]
    Train(train::Args),
    /// List, publish and measure the models in the folder of [ranker] registry, and say which of them ranks
    #[command(
        after_help = "Examples, with ranker.registry set:\n  overdrive models publish models/lambdarank.onnx\n  overdrive models list\n  overdrive models evaluate lambdarank-1\n  overdrive models promote lambdarank-1\n  overdrive models rollback"
    )]
    Models(models::Args),
    /// Check or show the settings
    #[command(after_help = "Examples:\n  overdrive --config my.toml config check\n  overdrive config print --changed")]
    Config(config::Args),
    /// List, check or show what the engine saved of its state; it may be running
    #[command(
        after_help = "Examples:\n  overdrive snapshot list\n  overdrive snapshot verify\n  overdrive snapshot inspect --epoch 4812"
    )]
    Snapshot(snapshot::Args),
    /// Check this machine and the servers the settings name, and say what to do
    #[command(
        after_help = "Examples:\n  overdrive doctor\n  overdrive doctor --ask 127.0.0.1:8088/livez   (as a container's health check)"
    )]
    Doctor(doctor::Args),
    /// Make a token that the shim lets in
    #[command(
        after_help = "Example:\n  overdrive token --name feeds --for read >> tokens.toml\n  OVERDRIVE_ACCESS__TOKENS=tokens.toml overdrive run"
    )]
    Token(token::Args),
}

/// Does it.
pub fn run(command: Command, config: &Config) -> Result<(), Failed> {
    let done = match command {
        Command::Demo(args) => demo::run(args, config),
        Command::Run(args) => return run::run(args, config),
        Command::Serve(args) => return serve::run(args, config),
        Command::Replay(args) => replay::run(args, config),
        Command::Generate(args) => generate::run(args, config),
        Command::Eval(args) => eval::run(args, config),
        Command::Train(args) => train::run(args, config),
        Command::Models(args) => models::run(args, config),
        Command::Config(args) => config::run(args, config),
        Command::Snapshot(args) => snapshot::run(args, config),
        Command::Doctor(args) => doctor::run(args, config),
        Command::Token(args) => token::run(args),
    };
    Ok(done?)
}

/// A time as people read it.
fn moment(ms: i64) -> String {
    let since = std::time::Duration::from_millis(ms.max(0).unsigned_abs());
    let at = std::time::UNIX_EPOCH.checked_add(since).map(|at| humantime::format_rfc3339_seconds(at).to_string());
    at.unwrap_or_else(|| format!("{ms} ms"))
}

/// Writes to the standard output. A reader that has seen enough (`| head`) is no failure.
fn say(text: &str) -> Result<(), String> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(format!("cannot write to the standard output: {e}")),
        _ => Ok(()),
    }
}
