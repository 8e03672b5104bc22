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
use crate::dataflows::Params;
use crate::model::Ranker;
use crate::scoring::factors::Settings;
use crate::worker;

mod against;
mod drive;
mod kernel;
mod metrics;
mod planted;
mod report;
mod split;
mod stream;

use against::Against;
use drive::Drive;
use metrics::Ranked;
use planted::Truth;
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
    /// As prequential, over a generated stream: how much is found of what its maker planted in it, by truth.json
    Planted(Planted),
    /// The factorisation by itself, to convergence, on the learned part of the static protocol
    Kernel(Kernel),
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
    /// Write a page with plots here
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// One object on the standard output and nothing else
    #[arg(long)]
    pub json: bool,
}

/// What the protocols ask that drive the dataflow.
#[derive(Debug, Parser)]
pub struct Driven {
    /// What ranks: blend, fixed (a slate by the weights of [blend] and [cold]), factors, next (what follows the last item oftener than chance), popularity:RUNG or nearness:RUNG (RUNG 0 is a half-life of 10 minutes, each next one four times as long,
    /// 8 is a plain count)
    #[arg(long, default_value = "blend", value_parser = ranker)]
    pub by: Ranker,
    /// Without what the catalogue says: users, items and times only
    #[arg(long)]
    pub bare: bool,
    /// Worker threads; the ranks are the same for any number
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
}

/// Arguments of `overdrive eval prequential`.
#[derive(Debug, Parser)]
pub struct Prequential {
    #[command(flatten)]
    pub of: Recorded,
    #[command(flatten)]
    pub driven: Driven,
    /// How late the engine hears of an event, in time of the stream
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub lag: Duration,
    /// Write the rank of every tested row here
    #[arg(long, value_name = "FILE")]
    pub ranks: Option<PathBuf>,
    /// Write what a ranker is trained on, from every event that is learned, to DIR/examples
    #[arg(long, value_name = "DIR")]
    pub examples: Option<PathBuf>,
    /// Compare with the ranks another run wrote: its figures by tenths of the stream, and how far ahead this one is beyond chance
    #[arg(long, value_name = "FILE")]
    pub against: Option<PathBuf>,
}

/// Arguments of `overdrive eval static`.
#[derive(Debug, Parser)]
pub struct Static {
    #[command(flatten)]
    pub of: Recorded,
    #[command(flatten)]
    pub driven: Driven,
    /// What is cut in five: time or user; left out, as the protocol has it for the data set
    #[arg(long, value_parser = cut)]
    pub split: Option<By>,
}

/// Arguments of `overdrive eval planted`.
#[derive(Debug, Parser)]
pub struct Planted {
    #[command(flatten)]
    pub of: Recorded,
    #[command(flatten)]
    pub driven: Driven,
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
        None if text == "next" => Ok(Ranker::Next),
        None if text == "fixed" => Ok(Ranker::Fixed),
        Some(("popularity", at)) => rung(at).map(Ranker::Popularity),
        Some(("nearness", at)) => rung(at).map(Ranker::Nearness),
        _ => Err(format!("`{text}` ranks nothing; write blend, fixed, factors, next, popularity:4 or nearness:4")),
    }
}

/// Measures and tells.
pub fn run(args: Args, config: &Config) -> Result<(), String> {
    match args.how {
        How::Prequential(args) => prequential(&args, config),
        How::Static(args) => frozen(&args, config),
        How::Planted(args) => planted(&args, config),
        How::Kernel(args) => kernel(&args, config),
    }
}

fn prequential(args: &Prequential, config: &Config) -> Result<(), String> {
    let other = args.against.as_ref().map(|file| Ok::<_, String>((file, written(file)?))).transpose()?;
    args.examples.as_deref().map_or(Ok(()), has_no_examples)?;
    let (name, stream) = read(&args.of, !args.driven.bare)?;
    let began = Instant::now();
    let drive = Drive { examples: args.examples.clone(), ..drive(&args.of, &args.driven, args.lag) };
    let ranked = drive.run(&stream, &params(config)?)?;
    let seconds = began.elapsed().as_secs_f64();
    let measured = metrics::measure(&stream, &ranked, 0.3, 1.0);
    if measured.tested == 0 {
        return Err(format!("{}: no row from 30 % on is the first of its user and item; give more rows", args.of.data.display()));
    }
    if let Some(file) = &args.ranks {
        write(file, &metrics::table(&ranked))?;
    }
    let tuning = metrics::measure(&stream, &ranked, 0.1, 0.3);
    let against = match other {
        None => None,
        Some((file, other)) => {
            let compared = against::against(&stream, &measured, &ranked, &other);
            Some(compared.map_err(|e| format!("{}: {e}", file.display()))?)
        }
    };
    let whole = json!({
        "protocol": "prequential", "data": name, "by": format!("{:?}", args.driven.by), "lag_ms": args.lag.as_millis() as u64,
        "content": !args.driven.bare, "workers": args.driven.workers, "rows": stream.rows.len(), "reported": measured,
        "against": against, "tuning_ndcg10": tuning.ndcg10, "hits_by_source": metrics::by_source(&stream, &ranked), "seconds": seconds,
        "micros_per_row": seconds * 1e6 / stream.rows.len() as f64,
    });
    tell(&args.of, &whole, &told(&name, &measured, against.as_ref(), seconds))
}

/// Two runs in one folder could not be told apart: each numbers its epochs from nothing.
fn has_no_examples(dir: &Path) -> Result<(), String> {
    let folder = dir.join(crate::sinks::examples::FOLDER);
    let any = std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
    if any { Err(format!("{} holds examples already; name another folder, or move them away", folder.display())) } else { Ok(()) }
}

/// The ranks of another run.
fn written(file: &Path) -> Result<Vec<Ranked>, String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    metrics::parse(&text).map_err(|e| format!("{}: {e}", file.display()))
}

/// The data set a folder holds; `.` has the name of the folder one is in.
fn named(of: &Recorded) -> String {
    let folder = std::path::absolute(&of.data).ok().and_then(|whole| Some(whole.file_name()?.to_string_lossy().into_owned()));
    of.dataset.clone().or(folder).unwrap_or_default()
}

/// A recorded stream and the name of its data set.
fn read(of: &Recorded, described: bool) -> Result<(String, Stream), String> {
    let name = named(of);
    let stream = Stream::read(&of.data, &name, of.limit, described)?;
    if stream.rows.is_empty() {
        let folder = of.data.display();
        return Err(format!(
            "{folder}: no row counts by the rules of `{name}`; name the data set whose rules to read it by with --dataset"
        ));
    }
    Ok((name, stream))
}

/// The same, cut in two.
fn cut_in_two(of: &Recorded, by: Option<By>, described: bool) -> Result<(String, Split), String> {
    let (name, stream) = read(of, described)?;
    let split = Split::new(&stream, by.unwrap_or(By::of(&name)));
    if split.asked.is_empty() {
        let folder = of.data.display();
        return Err(format!(
            "{folder}: nobody of the first four fifths takes a known item in the last; give more rows or another --split"
        ));
    }
    Ok((name, split))
}

/// What the stages are set to, with the model they rank by where one is named.
fn params(config: &Config) -> Result<Params, String> {
    worker::with_model(config, None).map_err(|e| e.to_string())
}

fn drive(of: &Recorded, driven: &Driven, lag: Duration) -> Drive {
    Drive { by: driven.by, lag: lag.as_millis() as i64, workers: driven.workers, quiet: of.json, examples: None }
}

fn frozen(args: &Static, config: &Config) -> Result<(), String> {
    let (name, split) = cut_in_two(&args.of, args.split, !args.driven.bare)?;
    let began = Instant::now();
    let rankings = drive(&args.of, &args.driven, Duration::ZERO).rank_at_the_end(&split, &params(config)?)?;
    let ranking = |place: usize| rankings.get(&split.users[place]).map(Vec::as_slice).unwrap_or_default();
    let measured = split.measure(ranking);
    let whole = json!({
        "protocol": "static", "data": name, "by": format!("{:?}", args.driven.by), "content": !args.driven.bare,
        "workers": args.driven.workers, "learned_rows": split.learned.rows.len(), "reported": measured,
        "hits_by_source": split.by_source(ranking), "seconds": began.elapsed().as_secs_f64(),
    });
    tell(&args.of, &whole, &told_of_split(&whole, &measured))
}

fn planted(args: &Planted, config: &Config) -> Result<(), String> {
    let truth = Truth::read(&args.of.data)?;
    let (name, stream) = read(&args.of, !args.driven.bare)?;
    let began = Instant::now();
    let items = planted::sought(&stream, &truth);
    let drive = drive(&args.of, &args.driven, Duration::ZERO);
    let (ranked, after) = drive.run_then_ask(&stream, &items, &params(config)?)?;
    let found = planted::found(&stream, &ranked, &truth, &after);
    let whole = json!({
        "protocol": "planted", "data": name, "by": format!("{:?}", args.driven.by), "content": !args.driven.bare,
        "workers": args.driven.workers, "rows": stream.rows.len(), "reported": found, "seconds": began.elapsed().as_secs_f64(),
    });
    let words = format!(
        "{name}: companions of {} items, precision@5 {:.3}\n\
         HR@10 of {} users before their taste broke {:.3}; rows 1 to 5 after {:.3}, 6 to 10 {:.3}, 11 to 20 {:.3}: {:.3} of before, \
         {:.3} beside others\n",
        found.items,
        found.companions_precision5,
        found.changed.users,
        found.changed.before,
        found.changed.first_5,
        found.changed.next_5,
        found.changed.next_10,
        found.regained,
        found.regained_beside_others,
    );
    tell(&args.of, &whole, &words)
}

fn kernel(args: &Kernel, config: &Config) -> Result<(), String> {
    let factors = &config.recommend.factors;
    let (alpha, reg) = (args.alpha.unwrap_or(factors.alpha), args.reg.unwrap_or(factors.reg));
    let (name, split) = cut_in_two(&args.of, args.split, false)?;
    let began = Instant::now();
    let converged = kernel::converge(&split, Settings { alpha: alpha as f32, reg: reg as f32 }, args.sweeps);
    let measured = split.measure(|place| converged.rankings[place].as_slice());
    let whole = json!({
        "protocol": "kernel", "data": name, "by": "the factorisation by itself", "alpha": alpha, "reg": reg,
        "sweeps": converged.sweeps, "loss": converged.loss, "reported": measured, "seconds": began.elapsed().as_secs_f64(),
    });
    tell(&args.of, &whole, &told_of_split(&whole, &measured))
}

/// Writes the page that was asked for, and says the whole of a run, or `words` of it.
fn tell(of: &Recorded, whole: &serde_json::Value, words: &str) -> Result<(), String> {
    if let Some(file) = &of.html {
        write(file, &report::page(whole))?;
    }
    if of.json { super::say(&format!("{whole}\n")) } else { super::say(words) }
}

fn told_of_split(whole: &serde_json::Value, measured: &split::Measured) -> String {
    let loss =
        whole["loss"].as_f64().map(|loss| format!("loss {loss:.6} after {} sweeps\n", whole["sweeps"])).unwrap_or_default();
    format!(
        "{}: {} users ranked, {:.1} s\n{loss}NDCG@100 {:.4}  NDCG@10 {:.4}  HR@10 {:.4}  recall@20 {:.4}  coverage@20 {:.4}\n",
        whole["data"].as_str().unwrap_or_default(),
        measured.users,
        whole["seconds"].as_f64().unwrap_or_default(),
        measured.ndcg100,
        measured.ndcg10,
        measured.hr10,
        measured.recall20,
        measured.coverage20,
    )
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    std::fs::write(file, text).map_err(|e| format!("cannot write {}: {e}", file.display()))
}

fn told(name: &str, of: &metrics::Measured, against: Option<&Against>, seconds: f64) -> String {
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
    let _infallible =
        writeln!(text, "users with fewer than {} rows before: HR@10 {:.4} of {} rows", metrics::FEW, of.cold_hr10, of.cold);
    let _infallible = writeln!(text, "HR@10 along the stream: {:.3?}", of.deciles_hr10);
    if let Some(other) = against {
        let [least, most] = other.ahead_ndcg10_95;
        let _infallible = writeln!(
            text,
            "the other: NDCG@10 {:.4}, this one {:+.4} ({least:+.4} to {most:+.4} in 95 of 100 draws of users)\n\
             HR@10 of the other along the stream: {:.3?}; this one is behind in the tenths from {:?} %",
            other.ndcg10, other.ahead_ndcg10, other.deciles_hr10, other.tenths_behind
        );
    }
    text
}
