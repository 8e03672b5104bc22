//! `overdrive train`: a ranker from the examples the engine logged. Training itself is Python (`training/train.py`, compiled in): this
//! runs it, shows how far it is, and tries what came out before anybody serves with it.

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{models, say};
use crate::config::Config;
use crate::registry::{self, Figures};

/// What training runs.
const SCRIPT: &str = include_str!("../../training/train.py");

/// Arguments of `overdrive train`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to train: lr (logistic regression on 14 features) or lambdarank (boosted trees)
    kind: Kind,
    /// The folder of examples; that of the engine's state folder when it is not given
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Where the model, its golden rows and its report go
    #[arg(long, value_name = "DIR", default_value = "models")]
    out: PathBuf,
    /// A Python 3 that has what training/requirements.txt lists
    #[arg(long, value_name = "PROGRAM", default_value = "python3", env = "OVERDRIVE_PYTHON")]
    python: PathBuf,
    /// Make a version of it in the folder of [ranker] registry
    #[arg(long)]
    publish: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Lr,
    Lambdarank,
}

/// A line the script prints.
#[derive(Deserialize)]
struct Line {
    done: f64,
    what: String,
    model: Option<PathBuf>,
    report: Option<Figures>,
}

/// Trains, tries the model, and says how good it is.
pub fn run(args: Args, config: &Config) -> Result<(), String> {
    let log = args.log.unwrap_or_else(|| config.engine.state_dir.join(crate::sinks::examples::FOLDER));
    let published = args.publish.then(|| models::registry(config)).transpose()?;
    let kind = args.kind.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default();
    let mut child = start(&args.python, &kind, &log, &args.out)?;
    let (model, report) = follow(&mut child)?;
    let loaded = if cfg!(feature = "onnx") && names_library(config) {
        let loaded = registry::load(&model, &config.onnx.library).map_err(|e| e.to_string())?;
        format!("ONNX Runtime gives the scores it must ({})", loaded.digest)
    } else {
        "not tried: no library of ONNX Runtime is named (scripts/fetch-onnxruntime.sh gets it)".to_string()
    };
    say(&told(&model, &report, &loaded))?;
    published.map_or(Ok(()), |registry| say(&models::publish(&registry, &model, None, config)?))
}

fn names_library(config: &Config) -> bool {
    !config.onnx.library.is_empty() || std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty())
}

fn start(python: &Path, kind: &str, log: &Path, out: &Path) -> Result<Child, String> {
    let mut command = Command::new(python);
    command.args(["-", kind]).arg("--log").arg(log).arg("--out").arg(out);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let cannot = |e| format!("{} cannot be run: {e}; name a Python 3 with --python or OVERDRIVE_PYTHON", python.display());
    let mut child = command.spawn().map_err(cannot)?;
    let mut script = child.stdin.take().expect("it is piped");
    // a Python that ends before it has read all says why on its error stream
    let _ended = script.write_all(SCRIPT.as_bytes());
    Ok(child)
}

/// Shows how far training is until it ends; yields what it wrote.
fn follow(child: &mut Child) -> Result<(PathBuf, Figures), String> {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}").expect("a template that parses");
    let bar = ProgressBar::new(1_000).with_style(style);
    let mut errors = child.stderr.take().expect("it is piped");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _lossy = errors.read_to_string(&mut text);
        text
    });
    let mut written = None;
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let line = line.map_err(|e| format!("what training says cannot be read: {e}"))?;
        let Ok(line) = serde_json::from_str::<Line>(&line) else { continue };
        bar.set_position((line.done * 1_000.0) as u64);
        bar.set_message(line.what);
        written = line.model.zip(line.report).or(written);
    }
    bar.finish_and_clear();
    let ended = child.wait().map_err(|e| format!("training cannot be waited for: {e}"))?;
    let errors = reader.join().unwrap_or_default();
    match written {
        Some(written) if ended.success() => Ok(written),
        _ => Err(format!("training failed: {}", last_words(&errors))),
    }
}

/// The last line that says something: the message of what was raised.
fn last_words(errors: &str) -> &str {
    errors.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it did not say why")
}

fn told(model: &Path, report: &Figures, loaded: &str) -> String {
    let Figures { examples, ndcg_10, auc, .. } = report;
    let auc = auc.model.map_or_else(String::new, |auc| format!(", AUC {auc:.3}"));
    format!(
        "{}: {loaded}\n\
         made of {} examples; on {} later ones NDCG@10 {:.4}, the blend's {:.4} (ahead by {:.4} to {:.4} in 95 of 100 draws of users){auc}\n\
         the report is {}; serve with it: OVERDRIVE_LEARN__ENABLED=true OVERDRIVE_RANKER__MODEL={} overdrive run\n",
        model.display(),
        examples.earlier,
        examples.held_out,
        ndcg_10.model,
        ndcg_10.blend,
        ndcg_10.ahead.0,
        ndcg_10.ahead.1,
        model.with_extension("report.html").display(),
        model.display(),
    )
}
