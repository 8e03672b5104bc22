//! `overdrive eval`: how good the recommendations are on a recorded stream, measured through the real dataflow.
//!
//! What must stay true: a row is ranked by what was known before its group, and every rank comes out of `dataflows::recommend`.
//! Only `kernel` computes by itself: the factorisation without a stream, to be held against other programs.

use clap::{Parser, Subcommand};
use serde_json::json;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::model::{ItemId, Ranker};
use crate::scoring::factors::Settings;

mod drive;
mod kernel;
mod metrics;
mod report;
mod split;
mod stream;

use drive::Drive;
use split::{By, Split};
use stream::Stream;

/// Arguments of `overdrive eval`.
#[derive(Debug, Parser)]
pub struct Args {
    #[command(subcommand)]
    pub how: How,
}

/// The protocols.
#[derive(Debug, Subcommand)]
pub enum How {
    /// Every row is ranked by what was known before it, then learned: rows up to 10 % only learned, up to 30 % for tuning, the rest
    /// reported
    Prequential(Prequential),
    /// The first four fifths are learned, then everything is frozen and every user is ranked once against what they took later
    Static(Static),
    /// The factorisation by itself, to convergence, on the learned part of the static protocol
    Kernel(Kernel),
}

/// Arguments of `overdrive eval prequential`.
#[derive(Debug, Parser)]
pub struct Prequential {
    /// A folder with events.parquet or .jsonl, and items.* where there are any
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Whose rules to read it by: ml-latest-small, movietweetings, online-retail, kuairand, synth; left out, the folder's name
    #[arg(long)]
    pub dataset: Option<String>,
    /// How late the engine hears of an event, in time of the stream
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub lag: Duration,
    /// What ranks: blend, factors, popularity:RUNG or nearness:RUNG (RUNG 0 is a half-life of 10 minutes, each next one four times as long,
    /// 8 is a plain count)
    #[arg(long, default_value = "blend", value_parser = ranker)]
    pub by: Ranker,
    /// Only the first rows of the stream
    #[arg(long)]
    pub limit: Option<usize>,
    /// Without what the catalogue says: users, items and times only
    #[arg(long)]
    pub bare: bool,
    /// Worker threads; the ranks are the same for any number
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
    /// Write the rank of every tested row here
    #[arg(long, value_name = "FILE")]
    pub ranks: Option<PathBuf>,
    /// Write a page with plots here
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// One object on the standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

/// What every protocol asks.
#[derive(Debug, Parser)]
pub struct Recorded {
    /// A folder with events.parquet or .jsonl, and items.* where there are any
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Whose rules to read it by: ml-latest-small, movietweetings, online-retail, kuairand, synth; left out, the folder's name
    #[arg(long)]
    pub dataset: Option<String>,
    /// Only the first rows of the stream
    #[arg(long)]
    pub limit: Option<usize>,
    /// One object on the standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `overdrive eval static`.
#[derive(Debug, Parser)]
pub struct Static {
    #[command(flatten)]
    pub of: Recorded,
    /// What is cut in five: time or user; left out, as the protocol has it for the data set
    #[arg(long, value_parser = cut)]
    pub split: Option<By>,
    /// What ranks: blend, factors, popularity:RUNG or nearness:RUNG
    #[arg(long, default_value = "blend", value_parser = ranker)]
    pub by: Ranker,
    /// Without what the catalogue says: users, items and times only
    #[arg(long)]
    pub bare: bool,
    /// Worker threads; the ranks are the same for any number
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
}

/// Arguments of `overdrive eval kernel`.
#[derive(Debug, Parser)]
pub struct Kernel {
    #[command(flatten)]
    pub of: Recorded,
    /// What is cut in five: time or user; left out, as the protocol has it for the data set
    #[arg(long, value_parser = cut)]
    pub split: Option<By>,
    /// Confidence in a pair that was taken; in any other it is 1. Left out, as [factors] has it
    #[arg(long)]
    pub alpha: Option<f64>,
    /// What a long vector costs
    #[arg(long)]
    pub reg: Option<f64>,
    /// Sweeps over all users and items at most
    #[arg(long, default_value_t = 200)]
    pub sweeps: usize,
}

/// `user`.
fn cut(text: &str) -> Result<By, String> {
    match text {
        "time" => Ok(By::Time),
        "user" => Ok(By::User),
        _ => Err(format!("`{text}` is not cut; write time or user")),
    }
}

/// `nearness:4`.
fn ranker(text: &str) -> Result<Ranker, String> {
    let rung = |rung: &str| rung.parse::<u8>().ok().filter(|rung| *rung <= 8).ok_or(format!("`{rung}` is no rung; write 0 to 8"));
    match text.split_once(':') {
        None if text == "blend" => Ok(Ranker::Blend),
        None if text == "factors" => Ok(Ranker::Factors),
        Some(("popularity", at)) => rung(at).map(Ranker::Popularity),
        Some(("nearness", at)) => rung(at).map(Ranker::Nearness),
        _ => Err(format!("`{text}` ranks nothing; write blend, factors, popularity:4 or nearness:4")),
    }
}

/// Measures and tells.
pub fn run(args: Args, config: &Config) -> Result<(), String> {
    match args.how {
        How::Prequential(args) => prequential(&args, config),
        How::Static(args) => frozen(&args, config),
        How::Kernel(args) => kernel(&args, config),
    }
}

fn prequential(args: &Prequential, config: &Config) -> Result<(), String> {
    let name = named(&args.data, args.dataset.as_deref());
    let stream = Stream::read(&args.data, &name, args.limit, !args.bare)?;
    let began = Instant::now();
    let drive = Drive { by: args.by, lag: args.lag.as_millis() as i64, workers: args.workers, quiet: args.json };
    let ranked = drive.run(&stream, &config.recommend)?;
    let seconds = began.elapsed().as_secs_f64();
    let measured = metrics::measure(&stream, &ranked, 0.3, 1.0);
    let tuning = metrics::measure(&stream, &ranked, 0.1, 0.3);
    if let Some(file) = &args.ranks {
        write(file, &metrics::table(&ranked))?;
    }
    let whole = json!({
        "protocol": "prequential", "data": name, "by": format!("{:?}", args.by), "lag_ms": args.lag.as_millis() as u64,
        "content": !args.bare, "workers": args.workers, "rows": stream.rows.len(), "reported": measured, "tuning_ndcg10": tuning.ndcg10,
        "hits_by_source": metrics::by_source(&stream, &ranked), "seconds": seconds,
        "micros_per_row": seconds * 1e6 / stream.rows.len().max(1) as f64,
    });
    if let Some(file) = &args.html {
        write(file, &report::page(&whole))?;
    }
    if args.json { super::say(&format!("{whole}\n")) } else { super::say(&told(&name, &measured, seconds)) }
}

/// The data set a folder holds.
fn named(data: &Path, dataset: Option<&str>) -> String {
    let folder = || data.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    dataset.map_or_else(folder, String::from)
}

/// A recorded stream, cut in two, and its name.
fn cut_in_two(of: &Recorded, by: Option<By>, described: bool) -> Result<(String, Split), String> {
    let name = named(&of.data, of.dataset.as_deref());
    let stream = Stream::read(&of.data, &name, of.limit, described)?;
    let split = Split::new(&stream, by.unwrap_or(By::of(&name)));
    Ok((name, split))
}

fn frozen(args: &Static, config: &Config) -> Result<(), String> {
    let (name, split) = cut_in_two(&args.of, args.split, !args.bare)?;
    let began = Instant::now();
    let drive = Drive { by: args.by, lag: 0, workers: args.workers, quiet: args.of.json };
    let rankings = drive.rank_at_the_end(&split, &config.recommend)?;
    let nothing: Vec<ItemId> = Vec::new();
    let measured = split.measure(|place| rankings.get(&split.users[place]).unwrap_or(&nothing).as_slice());
    let whole = json!({
        "protocol": "static", "data": name, "by": format!("{:?}", args.by), "content": !args.bare, "workers": args.workers,
        "learned_rows": split.learned.rows.len(), "reported": measured, "seconds": began.elapsed().as_secs_f64(),
    });
    tell(&args.of, &whole, &measured)
}

fn kernel(args: &Kernel, config: &Config) -> Result<(), String> {
    let factors = &config.recommend.factors;
    let (alpha, reg) = (args.alpha.unwrap_or(factors.alpha), args.reg.unwrap_or(factors.reg));
    let (name, split) = cut_in_two(&args.of, args.split, false)?;
    let began = Instant::now();
    let converged = kernel::converge(&split, Settings { alpha: alpha as f32, reg: reg as f32 }, args.sweeps);
    let measured = split.measure(|place| converged.rankings[place].as_slice());
    let whole = json!({
        "protocol": "kernel", "data": name, "alpha": alpha, "reg": reg, "sweeps": converged.sweeps, "loss": converged.loss,
        "reported": measured, "seconds": began.elapsed().as_secs_f64(),
    });
    tell(&args.of, &whole, &measured)
}

fn tell(of: &Recorded, whole: &serde_json::Value, measured: &split::Measured) -> Result<(), String> {
    if of.json {
        return super::say(&format!("{whole}\n"));
    }
    let loss =
        whole["loss"].as_f64().map(|loss| format!("loss {loss:.6} after {} sweeps\n", whole["sweeps"])).unwrap_or_default();
    super::say(&format!(
        "{}: {} users ranked, {:.1} s\n{loss}NDCG@100 {:.4}  NDCG@10 {:.4}  HR@10 {:.4}  recall@20 {:.4}  coverage@20 {:.4}\n",
        whole["data"].as_str().unwrap_or_default(),
        measured.users,
        whole["seconds"].as_f64().unwrap_or_default(),
        measured.ndcg100,
        measured.ndcg10,
        measured.hr10,
        measured.recall20,
        measured.coverage20,
    ))
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))
}

fn told(name: &str, of: &metrics::Measured, seconds: f64) -> String {
    let mut text = format!("{name}: {} rows tested in {seconds:.1} s\n", of.tested);
    let _infallible = writeln!(
        text,
        "NDCG@10 {:.4}  HR@10 {:.4}  MRR@10 {:.4}  NDCG@100 {:.4}  HR@100 {:.4}",
        of.ndcg10, of.hr10, of.mrr10, of.ndcg100, of.hr100
    );
    let _infallible = writeln!(
        text,
        "known users and items only: NDCG@10 {:.4}; new items {:.3}, new users {:.3}",
        of.warm_ndcg10, of.new_item, of.new_user
    );
    let _infallible = writeln!(text, "HR@10 along the stream: {:.3?}", of.deciles_hr10);
    text
}
