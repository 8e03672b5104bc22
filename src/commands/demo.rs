//! (being written)

use crate::config::Config;

/// Arguments of `overdrive demo`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Not merged yet.
pub fn run(_args: Args, _config: &Config) -> Result<(), String> {
    Err("not merged yet".into())
}
