//! `overdrive models`: the versions in the folder of `[ranker] registry`, and which of them ranks.

use clap::Subcommand;
use std::fmt::Write;
use std::path::PathBuf;

use super::{moment, say, snapshot};
use crate::config::Config;
use crate::model::Serving;
use crate::model::serving::{BLEND, Version};
use crate::model::time::now_ms;
use crate::registry::{About, Figures, LoadError, Registry};
use crate::state::{Address, Look};

mod evaluate;
pub mod order;

/// Arguments of `overdrive models`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the versions with their figures
    List,
    /// Try a model and make a version of it, its golden rows and its report
    Publish {
        /// An ONNX file, as `overdrive train` writes it
        model: PathBuf,
        /// What to call it; the model's name with the next number when it is not given
        #[arg(long)]
        name: Option<String>,
    },
    /// Have a version rank, from the epoch on in which the engine reads the order; `blend`: none
    Promote {
        #[arg(value_name = "VERSION")]
        name: String,
    },
    /// Have what ranked before the last change rank again
    Rollback,
    /// Measure a version on logged examples: by default on those later than what it was trained on
    Evaluate {
        #[arg(value_name = "VERSION")]
        name: String,
        /// The folder of examples; that of the engine's state folder when it is not given
        #[arg(long, value_name = "DIR")]
        log: Option<PathBuf>,
        /// On all examples, also those it was trained on
        #[arg(long)]
        all: bool,
    },
}

/// Lists, publishes or measures.
pub fn run(args: Args, config: &Config) -> Result<(), String> {
    let registry = registry(config)?;
    match args.action {
        Action::List => {
            let (versions, serving) = (registry.versions().map_err(|e| e.to_string())?, serving(config)?);
            say(&format!("{}{}", list(&versions, serving.as_ref()), told(serving.as_ref())))
        }
        Action::Promote { name } => say(&order::promote(&registry, &name, config)?),
        Action::Rollback => say(&order::rollback(config)?),
        Action::Publish { model, name } => say(&publish(&registry, &model, name.as_deref(), config)?),
        Action::Evaluate { name, log, all } => {
            let log = log.unwrap_or_else(|| config.engine.state_dir.join(crate::sinks::examples::FOLDER));
            say(&evaluate::told(&registry, &name, &log, all, &config.onnx)?)
        }
    }
}

/// The folder that the settings name.
pub fn registry(config: &Config) -> Result<Registry, String> {
    match config.recommend.ranker.registry.as_str() {
        "" => Err("ranker.registry names no folder of models; set it, or OVERDRIVE_RANKER__REGISTRY".to_string()),
        named => Registry::open(named, &config.engine.state_dir),
    }
}

/// Publishes, and says what was.
pub fn publish(registry: &Registry, model: &std::path::Path, version: Option<&str>, config: &Config) -> Result<String, String> {
    let version = registry.publish(model, version, now_ms(), &config.onnx)?;
    Ok(format!("published as {version}\n"))
}

/// What ranks as of the last epoch that the state of an engine tells of; `None`: there is no state here.
fn serving(config: &Config) -> Result<Option<Serving>, String> {
    let address = snapshot::address(config)?;
    if matches!(&address, Address::Folder(dir) if !dir.is_dir()) {
        return Ok(None);
    }
    Look::at(&address).and_then(|look| look.serving()).map_err(|e| e.to_string())
}

fn told(serving: Option<&Serving>) -> String {
    let Some(serving) = serving else {
        return "which of them ranks is not known: there is no state of an engine here (engine.state_dir, recovery.url)\n"
            .to_string();
    };
    let version = |version: &Option<Version>| version.as_ref().map_or(BLEND.to_string(), ToString::to_string);
    let refused = serving
        .refused
        .map_or_else(String::new, |epoch| format!("; the order of epoch {epoch} was refused, see its dead letter"));
    format!("{} ranks, before it {}{refused}\n", version(&serving.now), version(&serving.before))
}

fn list(versions: &[(String, Result<About, LoadError>)], serving: Option<&Serving>) -> String {
    if versions.is_empty() {
        return "no versions yet; `overdrive models publish MODEL` makes one\n".to_string();
    }
    let width = versions.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(7);
    let mut text = format!(
        "{:width$}  {:<12} {:<16}  {:<20}  {:>8}  {:>7} {:>7}  {:>6}\n",
        "version", "model", "digest", "created", "held out", "NDCG@10", "blend's", "AUC"
    );
    let now = serving.and_then(|serving| serving.now.as_ref());
    let ranks =
        |name: &str, about: &About| now.is_some_and(|now| now.name == name && format!("{:016x}", now.digest) == about.digest());
    for (name, about) in versions {
        match about {
            Ok(about) => writeln!(text, "{name:width$}  {}{}", line(about), if ranks(name, about) { "  ranks" } else { "" }),
            Err(why) => writeln!(text, "{name:width$}  unusable: {}", why.reason),
        }
        .expect("a string takes everything");
    }
    text
}

fn line(about: &About) -> String {
    let (model, digest, created) = (&about.model, about.digest(), moment(about.created_ms));
    let known = format!("{model:<12} {digest:<16}  {created:<20}");
    let Some(Figures { examples, ndcg_10, auc, .. }) = &about.figures else { return format!("{known}  {:>8}", "–") };
    let auc = auc.model.map_or("–".to_string(), |auc| format!("{auc:.3}"));
    format!("{known}  {:>8}  {:>7.4} {:>7.4}  {auc:>6}", examples.held_out, ndcg_10.model, ndcg_10.blend)
}
