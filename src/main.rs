//! Arguments to `Config` to a command; nothing else. Exit codes: 0 done, 1 failed, 2 the command line or a setting is wrong,
//! 78 somebody must repair or change something before another try can help.

use clap::Parser;
use std::process::ExitCode;

use overdrive::commands::{self, Cli};
use overdrive::config::Layers;
use overdrive::encoders;

/// Slates are made by the workers and freed by the writer; this allocator hands memory back across threads cheaply.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Cli { config: file, command } = Cli::parse();
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let env = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value)));
    let layers = Layers::read(file.as_deref(), env).and_then(|layers| layers.lay_flags(command.settings()));
    let (config, notes) = match layers.and_then(|layers| Ok((layers.config()?, layers.notes))) {
        Ok(read) => read,
        Err(refused) => return failed(&refused.to_string(), 2),
    };
    notes.iter().for_each(|note| eprintln!("overdrive: note: {note}"));
    match commands::run(command, &config) {
        Ok(()) => end(0),
        Err(commands::Failed { code, reason }) => {
            failed(&reason, code);
            end(code)
        }
    }
}

/// A model that is still being called is left alone.
fn end(code: u8) -> ExitCode {
    if encoders::one_is_left() {
        commands::end_at_once(code);
    }
    ExitCode::from(code)
}

/// Every line of `reason` on the error stream; an empty one was told already.
fn failed(reason: &str, code: u8) -> ExitCode {
    reason.lines().for_each(|line| eprintln!("overdrive: {line}"));
    ExitCode::from(code)
}
