//! Training itself, which is Python (`training/`, compiled in): runs it and hears how far it is.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Runs the files below.
const CARRIED: &str = include_str!("../../training/carried.py");
/// The files of training, each under the name by which the others know it.
const SOURCES: [(&str, &str); 12] = [
    ("train", include_str!("../../training/train.py")),
    ("examples", include_str!("../../training/examples.py")),
    ("lr", include_str!("../../training/lr.py")),
    ("lambdarank", include_str!("../../training/lambdarank.py")),
    ("deepfm", include_str!("../../training/deepfm.py")),
    ("towers", include_str!("../../training/towers.py")),
    ("twotower", include_str!("../../training/twotower.py")),
    ("sequence", include_str!("../../training/sequence.py")),
    ("figures", include_str!("../../training/figures.py")),
    ("report", include_str!("../../training/report.py")),
    ("export", include_str!("../../training/export.py")),
    ("said", include_str!("../../training/said.py")),
];

/// A line the script prints.
#[derive(Deserialize)]
struct Line {
    done: f64,
    what: String,
    model: Option<PathBuf>,
    report: Option<serde_json::Value>,
}

/// How a training is to run.
pub struct Order<'a> {
    /// A Python 3 that has what training/requirements.txt lists.
    pub python: &'a Path,
    /// The name of the recipe.
    pub recipe: &'static str,
    pub purpose: Purpose,
    /// The folder of examples.
    pub log: &'a Path,
    /// Where the model, its golden rows and its report go.
    pub out: &'a Path,
    /// Whether it stands back behind whatever else runs here.
    pub aside: bool,
}

/// Where a model is to rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// At a refresh, where every column is known.
    Slates,
    /// Where a caller brings the candidates.
    Rank,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Slates, Self::Rank];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slates => "slates",
            Self::Rank => "rank",
        }
    }
}

/// What was written: the model, and how good it is, in the figures of its kind.
pub struct Made<F> {
    pub model: PathBuf,
    pub figures: F,
}

/// How often it is asked whether to go on.
const ASKED_EVERY: Duration = Duration::from_millis(100);

/// Runs it to its end. `said` hears how far it is, from 0 to 1, and with what; an error of `asked` ends the training.
pub fn run<F: DeserializeOwned>(
    order: &Order,
    mut said: impl FnMut(f64, String),
    mut asked: impl FnMut() -> Result<(), String>,
) -> Result<Made<F>, String> {
    let mut child = Ended(start(order)?);
    let mut errors = child.0.stderr.take().expect("it is piped");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _lossy = errors.read_to_string(&mut text);
        text
    });
    let lines = lines(child.0.stdout.take().expect("it is piped"));
    let mut made = None;
    loop {
        asked()?;
        match lines.recv_timeout(ASKED_EVERY) {
            Ok(line) => {
                said(line.done, line.what);
                made = line.model.zip(line.report).or(made);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let ended = loop {
        match child.0.try_wait().map_err(|e| format!("training cannot be waited for: {e}"))? {
            Some(ended) => break ended,
            None => asked()?,
        }
        std::thread::sleep(ASKED_EVERY);
    };
    let errors = reader.join().unwrap_or_default();
    match made {
        Some((model, report)) if ended.success() => {
            let figures =
                serde_json::from_value(report).map_err(|e| format!("training gave other figures than it should: {e}"))?;
            Ok(Made { model, figures })
        }
        _ => Err(format!("training failed: {}", last_words(&errors))),
    }
}

/// The lines it prints, as they come. What is no such line is passed over.
fn lines(from: impl Read + Send + 'static) -> Receiver<Line> {
    let (tx, rx) = channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(from).split(b'\n').map_while(Result::ok);
        let mut lines = lines.filter_map(|line| serde_json::from_slice(&line).ok());
        lines.all(|line| tx.send(line).is_ok())
    });
    rx
}

/// A child that goes with whoever waits for it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill()); // one that has ended cannot be, and is only waited for
        drop(self.0.wait());
    }
}

fn start(order: &Order) -> Result<Child, String> {
    let Order { python, recipe, purpose, log, out, aside } = order;
    let mut command = Command::new(python);
    command.args(["-", recipe, "--for", purpose.name()]).arg("--log").arg(log).arg("--out").arg(out);
    if *aside {
        command.arg("--aside");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let cannot = |e| format!("{} cannot be run: {e}; name a Python 3 in training.python or OVERDRIVE_PYTHON", python.display());
    let mut child = command.spawn().map_err(cannot)?;
    let mut script = child.stdin.take().expect("it is piped");
    // it is more than a pipe holds, and a Python that does not read is to be ended like any other; one that ends before it has read all
    // says why on its error stream
    std::thread::spawn(move || script.write_all(program().as_bytes()));
    Ok(child)
}

/// All of it as one text: JSON is a literal of Python where it holds nothing but strings.
fn program() -> String {
    let sources = serde_json::to_string(&BTreeMap::from(SOURCES)).expect("strings are JSON");
    format!("SOURCES = {sources}\n{CARRIED}")
}

/// The last line that says something: the message of what was raised.
fn last_words(errors: &str) -> &str {
    errors.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it did not say why")
}
