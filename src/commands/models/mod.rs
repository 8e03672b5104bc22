//! `overdrive models`: the versions in the folder of `[ranker] registry`, and which of them ranks.

use clap::Subcommand;
use std::fmt::Write;
use std::path::PathBuf;

use super::{moment, say};
use crate::config::Config;
use crate::model::time::now_ms;
use crate::registry::{About, Figures, LoadError, Registry};

mod evaluate;
mod figures;

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
        Action::List => say(&list(&registry.versions()?)),
        Action::Publish { model, name } => say(&publish(&registry, &model, name.as_deref(), config)?),
        Action::Evaluate { name, log, all } => {
            let log = log.unwrap_or_else(|| config.engine.state_dir.join(crate::sinks::examples::FOLDER));
            say(&evaluate::told(&registry, &name, &log, all, &config.onnx.library)?)
        }
    }
}

/// The folder that the settings name.
pub fn registry(config: &Config) -> Result<Registry, String> {
    match config.recommend.ranker.registry.as_str() {
        "" => Err("ranker.registry names no folder of models; set it, or OVERDRIVE_RANKER__REGISTRY".to_string()),
        folder => Ok(Registry::new(folder)),
    }
}

/// Publishes, and says what was.
pub fn publish(registry: &Registry, model: &std::path::Path, version: Option<&str>, config: &Config) -> Result<String, String> {
    let version = registry.publish(model, version, now_ms(), &config.onnx.library)?;
    Ok(format!("published as {version}\n"))
}

fn list(versions: &[(String, Result<About, LoadError>)]) -> String {
    if versions.is_empty() {
        return "no versions yet; `overdrive models publish MODEL` makes one\n".to_string();
    }
    let width = versions.iter().map(|(name, _)| name.len()).max().unwrap_or(0).max(7);
    let mut text = format!(
        "{:width$}  {:<12} {:<16}  {:<20}  {:>8}  {:>7} {:>7}  {:>6}\n",
        "version", "model", "digest", "created", "held out", "NDCG@10", "blend's", "AUC"
    );
    for (name, about) in versions {
        match about {
            Ok(about) => writeln!(text, "{name:width$}  {}", line(about)),
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
