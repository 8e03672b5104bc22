//! `overdrive snapshot`: what lies in the state folder. It only reads and takes no lock, so an engine may be running meanwhile.

use clap::Subcommand;
use std::fmt::Write;

use super::{moment, say};
use crate::config::Config;
use crate::state::manifest::{Manifest, Name};
use crate::state::{Address, Look};

/// Arguments of `overdrive snapshot`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the snapshots, the newest first
    List,
    /// Read every file, compare it with its checksum, and name those that are damaged
    Verify,
    /// Show where a snapshot stands in the input, and how much each operator keeps
    Inspect {
        /// Which; the newest that can be read when it is not given
        #[arg(long, value_name = "N")]
        epoch: Option<u64>,
    },
}

/// Where the state of an engine lies.
pub fn address(config: &Config) -> Result<Address, String> {
    Address::parse(&config.recovery.url, &config.engine.state_dir.join("state"))
}

/// Lists, checks or shows.
pub fn run(args: Args, config: &Config) -> Result<(), String> {
    let address = address(config)?;
    if let Address::Folder(dir) = &address
        && !dir.is_dir()
    {
        return Err(format!(
            "there is no state in {address}; do `engine.state_dir` and `recovery.url` name the folder of the engine?"
        ));
    }
    let look = Look::at(&address).map_err(|e| e.to_string())?;
    match args.action {
        Action::List => say(&list(&manifests(&look)?)),
        Action::Verify => verify(&look, &address),
        Action::Inspect { epoch } => say(&inspect(&manifests(&look)?, epoch, &address)?),
    }
}

fn manifests(look: &Look) -> Result<Vec<(Name, Result<Manifest, String>)>, String> {
    look.manifests().map_err(|e| e.to_string())
}

fn list(manifests: &[(Name, Result<Manifest, String>)]) -> String {
    if manifests.is_empty() {
        return "no snapshots yet\n".to_string();
    }
    let mut text =
        format!("{:>12} {:>10} {:>7} {:>6} {:>14}  {}\n", "epoch", "generation", "workers", "files", "bytes", "written");
    for (name, manifest) in manifests {
        write!(text, "{:>12} {:>10} ", name.epoch, name.generation).expect("a string takes everything");
        match manifest {
            Ok(manifest) => writeln!(text, "{}", line(manifest)),
            Err(what) => writeln!(text, "unusable: {what}"),
        }
        .expect("a string takes everything");
    }
    text
}

fn line(manifest: &Manifest) -> String {
    let (files, bytes) = manifest.segments().fold((0, 0), |(files, bytes), segment| (files + 1, bytes + segment.bytes));
    format!("{:>7} {files:>6} {bytes:>14}  {}", manifest.head.workers, moment(manifest.written_ms))
}

fn verify(look: &Look, address: &Address) -> Result<(), String> {
    let found = look.verify().map_err(|e| e.to_string())?;
    if found.damaged.is_empty() {
        return say(&format!("ok: {} files, none damaged\n", found.files));
    }
    say(&found.damaged.iter().map(|what| format!("✗ {what}\n")).collect::<String>())?;
    Err(format!(
        "{} faults in {} files of {}; the engine takes up the newest snapshot that is whole",
        found.damaged.len(),
        found.files,
        address
    ))
}

fn inspect(manifests: &[(Name, Result<Manifest, String>)], epoch: Option<u64>, address: &Address) -> Result<String, String> {
    let wanted = |(name, manifest): &&(Name, Result<Manifest, String>)| match epoch {
        Some(epoch) => name.epoch == epoch,
        None => manifest.is_ok(),
    };
    let named = epoch.map_or("that can be read".to_string(), |epoch| format!("of epoch {epoch}"));
    let (_, manifest) = manifests
        .iter()
        .find(wanted)
        .ok_or_else(|| format!("there is no snapshot {named} in {}; `overdrive snapshot list` names them", address))?;
    let manifest = manifest.as_ref().map_err(String::clone)?;
    let head = serde_json::to_string_pretty(&manifest.head).expect("numbers and texts are JSON");
    let mut text = format!("{head}\n\n{:<32} {:>6} {:>12} {:>14}\n", "operator", "files", "rows", "bytes");
    for part in &manifest.parts {
        let (rows, bytes) = part.files.iter().fold((0, 0), |(rows, bytes), file| (rows + file.rows, bytes + file.bytes));
        writeln!(text, "{:<32} {:>6} {rows:>12} {bytes:>14}", part.uid, part.files.len()).expect("a string takes everything");
    }
    Ok(text)
}
