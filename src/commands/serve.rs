//! `overdrive serve`: the shim alone, over the answers in Redis.

use super::Failed;
use super::stack::{Parts, Stack};
use crate::config::Config;
use crate::sinks::Kind;
use crate::telemetry;

/// Arguments of `overdrive serve`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Serves until a signal comes.
pub fn run(_args: Args, config: &Config) -> Result<(), Failed> {
    if config.store.kind == Kind::Memory {
        return Err("`serve` reads what another process wrote, and [store] kind is memory; set it to redis \
                    (OVERDRIVE_STORE__KIND=redis), or use `overdrive run`, which answers from its own memory"
            .to_string()
            .into());
    }
    telemetry::init(&config.logging)?;
    Stack::start(config, Parts { engine: false, shim: true })?.wait()?;
    Ok(())
}
