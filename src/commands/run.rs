//! `overdrive run`: the engine; with the answers in this process, or when asked, the shim too.

use super::stack::{Parts, Stack};
use crate::config::Config;
use crate::sinks::Kind;
use crate::{shim, telemetry};

/// Arguments of `overdrive run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Answer HTTP from this process as well; always so when the answers are kept in memory, where nobody else could read them
    #[arg(long)]
    serve: bool,
}

/// Runs until a signal comes or the source fails for good.
pub fn run(args: Args, config: &Config) -> Result<(), String> {
    telemetry::init(&config.logging)?;
    let with_shim = args.serve || config.store.kind == Kind::Memory;
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
