//! `overdrive run`: the engine, or one process of several; with the answers in this process, or when asked, the shim too. What is
//! started is a supervisor, whose child is the engine.

use std::process::{Child, Command};

use super::stack::{Parts, Stack};
use super::{Failed, signals};
use crate::config::Config;
use crate::sinks::Kind;
use crate::supervisor::{self, Ended};
use crate::{shim, telemetry};

/// Arguments of `overdrive run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Answer HTTP from this process as well; always so when the answers are kept in memory, where nobody else could read them
    #[arg(long)]
    serve: bool,
    /// Worker threads of this process: engine.workers
    #[arg(long, value_name = "W")]
    workers: Option<usize>,
    /// How many processes are one engine: cluster.processes
    #[arg(long, value_name = "N")]
    processes: Option<usize>,
    /// Which of them this is, from 0: cluster.process
    #[arg(long, value_name = "I")]
    process: Option<usize>,
    /// A file with host:port for each process: cluster.hosts
    #[arg(long, value_name = "FILE")]
    hosts: Option<String>,
    /// The supervisor's process id; it starts the engine with it
    #[arg(long, hide = true, value_name = "PID")]
    supervised_by: Option<u32>,
}

impl Args {
    /// The flags that are settings: flag, key, value.
    pub fn settings(&self) -> Vec<(&'static str, &'static str, String)> {
        let numbers = [
            ("--workers", "engine.workers", self.workers),
            ("--processes", "cluster.processes", self.processes),
            ("--process", "cluster.process", self.process),
        ];
        let numbers = numbers.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value?.to_string())));
        numbers.chain(self.hosts.clone().map(|hosts| ("--hosts", "cluster.hosts", hosts))).collect()
    }
}

/// Runs until a signal comes, the source fails for good, or the engine dies too often.
pub fn run(args: Args, config: &Config) -> Result<(), Failed> {
    telemetry::init(&config.logging)?;
    match args.supervised_by {
        None => supervise(config),
        Some(parent) if supervisor::die_with(parent).map_err(|e| e.to_string())? => engine(&args, config),
        Some(parent) => Err(Failed::from(format!("the supervisor {parent} has ended already"))),
    }
}

/// Starts this very command as a child, again and again.
fn supervise(config: &Config) -> Result<(), Failed> {
    let signals = signals::hear()?;
    match supervisor::supervise(child, &signals, &config.supervisor, config.recovery.stalled_after) {
        Ended::Code(0) => Ok(()),
        Ended::Code(code) => Err(Failed { code, reason: String::new() }), // the child has told why
        Ended::GivenUp(reason) => Err(Failed::from(reason)),
    }
}

/// In a group of its own: Ctrl-C reaches the supervisor, which passes it on.
fn child() -> std::io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).arg("--supervised-by").arg(std::process::id().to_string());
    command.process_group(0).spawn()
}

fn engine(args: &Args, config: &Config) -> Result<(), Failed> {
    let with_shim = args.serve || config.store.kind == Kind::Memory && config.cluster.process == 0;
    let metrics = (config.metrics.port != 0).then(|| shim::spawn_metrics(&config.service, &config.metrics)).transpose()?;
    let stats = Stack::start(config, Parts { engine: true, shim: with_shim })?.wait()?;
    if let Some(metrics) = metrics {
        metrics.stop();
    }
    if let Some(stats) = stats {
        let account = stats.account;
        tracing::info!(
            epochs = stats.epochs,
            consumed = account.consumed,
            applied = account.applied,
            duplicate = account.duplicate,
            late = account.late,
            filtered = account.filtered,
            dead = account.dead,
            writes = stats.writes,
            unwritten = stats.unwritten,
            "stopped"
        );
    }
    Ok(())
}
