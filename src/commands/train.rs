//! `overdrive train`: a ranker, or two towers, from the examples the engine logged. It runs training, shows how far it is, and tries what came out
//! before anybody serves with it.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

use super::{models, say};
use crate::config::Config;
use crate::model::serving;
use crate::registry::{self, Figures};
use crate::training::script::{self, Made, Order, Purpose};
use crate::training::towers;

/// Arguments of `overdrive train`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to train. Rankers: lr (logistic regression on 14 features), lambdarank (boosted trees), deepfm (factorisation machine and neural network).
    /// Towers, which find candidates: twotower (the mean of what was taken, and a layer), sequence (attention over it, by what was taken last)
    #[arg(value_parser = recipe())]
    kind: Recipe,
    /// Where a ranker will rank: slates, or rank: what callers bring to /v1/rank, by the columns that are at hand there
    #[arg(long = "for", value_name = "PURPOSE", value_parser = purpose(), default_value = "slates")]
    purpose: Purpose,
    /// The folder of examples; that of the engine's state folder when it is not given
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Where the model, what it must give, and its report go
    #[arg(long, value_name = "DIR", default_value = "models")]
    out: PathBuf,
    /// A Python 3 that has what training/requirements.txt lists: training.python
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
    /// Make a version of a ranker in the folder of [ranker] registry
    #[arg(long)]
    publish: bool,
}

/// What can be trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recipe {
    Ranker(serving::Recipe),
    Towers(towers::Recipe),
}

impl Recipe {
    fn all() -> impl Iterator<Item = Self> {
        serving::Recipe::ALL.map(Self::Ranker).into_iter().chain(towers::Recipe::ALL.map(Self::Towers))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ranker(recipe) => recipe.name(),
            Self::Towers(recipe) => recipe.name(),
        }
    }
}

/// A recipe by its name.
fn recipe() -> impl TypedValueParser<Value = Recipe> {
    let find = |name: String| Recipe::all().find(|recipe| recipe.name() == name).expect("it is one of them");
    PossibleValuesParser::new(Recipe::all().map(Recipe::name)).map(find)
}

fn purpose() -> impl TypedValueParser<Value = Purpose> {
    let find = |name: String| Purpose::ALL.into_iter().find(|purpose| purpose.name() == name).expect("it is one of them");
    PossibleValuesParser::new(Purpose::ALL.map(Purpose::name)).map(find)
}

/// Trains, tries the model, and says how good it is.
pub fn run(args: Args, config: &Config) -> Result<(), String> {
    let log = args.log.clone().unwrap_or_else(|| config.engine.state_dir.join(crate::sinks::examples::FOLDER));
    let python = args.python.as_ref().unwrap_or(&config.training.python);
    let order = Order { python, recipe: args.kind.name(), purpose: args.purpose, log: &log, out: &args.out, aside: false };
    match args.kind {
        Recipe::Ranker(_) => ranker(&order, args.publish, config),
        Recipe::Towers(recipe) => {
            let asked = [(args.publish, "--publish"), (args.purpose == Purpose::Rank, "--for rank")];
            match asked.into_iter().find(|(asked, _)| *asked) {
                Some((_, asked)) => {
                    Err(format!("{asked} is for rankers; {} makes towers, which [towers] model names", recipe.name()))
                }
                None => find(&order, config),
            }
        }
    }
}

fn ranker(order: &Order, publish: bool, config: &Config) -> Result<(), String> {
    let published = publish.then(|| models::registry(config)).transpose()?;
    let Made { model, figures } = follow(order)?;
    let tried = tried(config, || registry::load(&model, &config.onnx).map(|model| model.digest))?;
    say(&told(&model, order.purpose, &figures, &tried))?;
    published.map_or(Ok(()), |registry| say(&models::publish(&registry, &model, None, config)?))
}

fn find(order: &Order, config: &Config) -> Result<(), String> {
    let Made { model, figures } = follow(order)?;
    let tried = tried(config, || registry::load_towers(&model, &config.onnx).map(|towers| towers.digest))?;
    say(&told_of_towers(&model, &figures, &tried))
}

/// What ONNX Runtime made of it, where a library is named.
fn tried(config: &Config, load: impl FnOnce() -> Result<String, registry::LoadError>) -> Result<String, String> {
    let runs = cfg!(feature = "onnx") && names_library(config);
    runs.then(load)
        .transpose()
        .map(|digest| {
            digest.map_or_else(
                || "not tried: no library of ONNX Runtime is named (scripts/fetch-onnxruntime.sh gets it)".to_string(),
                |digest| format!("ONNX Runtime gives what it must ({digest})"),
            )
        })
        .map_err(|e| e.to_string())
}

fn names_library(config: &Config) -> bool {
    !config.onnx.library.is_empty() || std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty())
}

/// Shows how far training is until it ends.
fn follow<F: DeserializeOwned>(order: &Order) -> Result<Made<F>, String> {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}").expect("a template that parses");
    let bar = ProgressBar::new(1_000).with_style(style);
    let said = |done: f64, what| {
        bar.set_position((done * 1_000.0) as u64);
        bar.set_message(what);
    };
    let made = script::run(order, said, || Ok(()));
    bar.finish_and_clear();
    made
}

fn told(model: &Path, purpose: Purpose, report: &Figures, loaded: &str) -> String {
    let Figures { examples, ndcg_10, auc, .. } = report;
    let auc = auc.model.map_or_else(String::new, |auc| format!(", AUC {auc:.3}"));
    let (without, serve) = match purpose {
        Purpose::Slates => ("the blend's", "OVERDRIVE_LEARN__ENABLED=true OVERDRIVE_RANKER__MODEL"),
        Purpose::Rank => ("the fixed weights'", "OVERDRIVE_SERVICE__RANK_BY"),
    };
    format!(
        "{}: {loaded}\n\
         made of {} examples; on {} later ones NDCG@10 {:.4}, {without} {:.4} (ahead by {:.4} to {:.4} in 95 of 100 draws of users){auc}\n\
         the report is {}; serve with it: {serve}={} overdrive run\n",
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

fn told_of_towers(folder: &Path, report: &towers::Figures, loaded: &str) -> String {
    let towers::Figures { examples, items, recall_50, ndcg_10 } = report;
    format!(
        "{}: {loaded}\n\
         made of {} examples; on {} later ones, among {items} items, recall@50 {:.4} (most taken: {:.4}; taken soon after: {:.4}), \
         NDCG@10 {:.4} ({:.4}; {:.4}; ahead of the better by {:.4} to {:.4} in 95 of 100 draws of users)\n\
         the report is {}; serve with them: OVERDRIVE_TOWERS__MODEL={} overdrive run\n",
        folder.display(),
        examples.earlier,
        examples.held_out,
        recall_50.model,
        recall_50.popular,
        recall_50.near,
        ndcg_10.of.model,
        ndcg_10.of.popular,
        ndcg_10.of.near,
        ndcg_10.ahead.0,
        ndcg_10.ahead.1,
        folder.join("report.html").display(),
        folder.display(),
    )
}
