//! `overdrive train`: a ranker from the examples the engine logged. It runs training, shows how far it is, and tries what came out before
//! anybody serves with it.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};

use super::{models, say};
use crate::config::Config;
use crate::model::serving::Recipe;
use crate::registry::{self, Figures};
use crate::training::script::{self, Made, Order, Purpose};

/// Arguments of `overdrive train`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to train: lr (logistic regression on 14 features), lambdarank (boosted trees) or deepfm (factorisation machine and neural network)
    #[arg(value_parser = recipe())]
    kind: Recipe,
    /// Where it will rank: slates, or rank: what callers bring to /v1/rank, by the columns that are at hand there
    #[arg(long = "for", value_name = "PURPOSE", value_parser = purpose(), default_value = "slates")]
    purpose: Purpose,
    /// The folder of examples; that of the engine's state folder when it is not given
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Where the model, its golden rows and its report go
    #[arg(long, value_name = "DIR", default_value = "models")]
    out: PathBuf,
    /// A Python 3 that has what training/requirements.txt lists: training.python
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
    /// Make a version of it in the folder of [ranker] registry
    #[arg(long)]
    publish: bool,
}

/// A recipe by its name.
fn recipe() -> impl TypedValueParser<Value = Recipe> {
    PossibleValuesParser::new(Recipe::ALL.map(Recipe::name)).map(|name| Recipe::find(&name).expect("it is one of them"))
}

fn purpose() -> impl TypedValueParser<Value = Purpose> {
    let find = |name: String| Purpose::ALL.into_iter().find(|purpose| purpose.name() == name).expect("it is one of them");
    PossibleValuesParser::new(Purpose::ALL.map(Purpose::name)).map(find)
}

/// Trains, tries the model, and says how good it is.
pub fn run(args: Args, config: &Config) -> Result<(), String> {
    let log = args.log.unwrap_or_else(|| config.engine.state_dir.join(crate::sinks::examples::FOLDER));
    let published = args.publish.then(|| models::registry(config)).transpose()?;
    let python = args.python.as_ref().unwrap_or(&config.training.python);
    let order = Order { python, recipe: args.kind, purpose: args.purpose, log: &log, out: &args.out, aside: false };
    let Made { model, figures } = follow(&order)?;
    let loaded = if cfg!(feature = "onnx") && names_library(config) {
        let loaded = registry::load(&model, &config.onnx.library).map_err(|e| e.to_string())?;
        format!("ONNX Runtime gives the scores it must ({})", loaded.digest)
    } else {
        "not tried: no library of ONNX Runtime is named (scripts/fetch-onnxruntime.sh gets it)".to_string()
    };
    say(&told(&model, args.purpose, &figures, &loaded))?;
    published.map_or(Ok(()), |registry| say(&models::publish(&registry, &model, None, config)?))
}

fn names_library(config: &Config) -> bool {
    !config.onnx.library.is_empty() || std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| !path.is_empty())
}

/// Shows how far training is until it ends.
fn follow(order: &Order) -> Result<Made, String> {
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
