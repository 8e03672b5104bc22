//! What orders slates, which versions of it there are, how good each was when it was made, how training stands, and the orders that
//! another one ranks or is made.
//!
//! What must stay true: nothing is said of a version but what its files say, or that they are not those that were published; and the
//! order is the one that `overdrive models promote` gives, which the engine follows, or refuses, where it reads it.

use axum::http::StatusCode;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::ingest::{self, Receipt};
use crate::model::Role;
use crate::model::serving::{BLEND, Recipe, Serving};
use crate::registry::{About, Figures, RegistryError};
use crate::shim::access::Who;
use crate::shim::guard::Caller;
use crate::shim::{Refusal, State as Shim, now_ms};
use crate::training::{Attempt, Doing, Status as TrainingStatus, TakenBack};

/// Reading a version means reading its files.
const READ_FOR: Duration = Duration::from_secs(10);

/// Versions by their names, or why they are of no use.
pub type Versions = Vec<(String, Result<About, String>)>;

/// What ranks.
#[derive(Serialize)]
pub struct Status {
    /// A version, the model that the settings name, or `blend`.
    pub serving: String,
    /// Of the version's model, 16 hex digits; of what no order named it is not known here.
    pub digest: Option<String>,
    /// When the version was published, milliseconds since 1970.
    pub created_at: Option<i64>,
    /// What ranked before it, where a rollback leads.
    pub served_before: Option<String>,
    /// The last epoch with an order that was refused.
    pub refused_epoch: Option<u64>,
    pub as_of: i64,
    pub epoch: u64,
}

/// How good what ranks was when it was made.
#[derive(Serialize)]
pub struct Evaluation {
    pub serving: String,
    /// On examples later than those it was trained on; `None`: nothing says so, or nothing was trained.
    pub figures: Option<Figures>,
    /// Where what users do under it is counted.
    pub live: &'static str,
}

/// What ranks, and every version there is.
#[derive(Serialize)]
pub struct Models {
    #[serde(flatten)]
    pub status: Status,
    /// By the time they were published.
    pub versions: Vec<VersionView>,
    /// How training stands.
    pub training: TrainingView,
}

/// How training stands where the engine trains.
#[derive(Default, Serialize)]
pub struct TrainingView {
    /// Whether the settings have it.
    pub enabled: bool,
    /// What was asked for and has not ended.
    pub asked: BTreeSet<Recipe>,
    pub running: Option<Doing>,
    /// What came of the last time.
    pub last: Option<Attempt>,
    /// When the next is due, milliseconds since 1970.
    pub next_ms: Option<i64>,
    /// What was promoted and turned out worse.
    pub taken_back: Option<TakenBack>,
}

/// A version.
#[derive(Serialize)]
pub struct VersionView {
    pub name: String,
    pub serves: bool,
    pub model: Option<String>,
    pub digest: Option<String>,
    pub created_at: Option<i64>,
    pub figures: Option<Figures>,
    /// Why it cannot be used.
    pub unusable: Option<String>,
}

/// What ranks.
pub async fn status(shim: &Shim, who: &Who) -> Result<Status, Refusal> {
    who.about_all()?;
    ranks(shim).await
}

/// What ranks, for whoever may read.
pub async fn ranks(shim: &Shim) -> Result<Status, Refusal> {
    Ok(standing(shim).await?.0)
}

/// What ranks as of what is applied, and the versions by which that is said.
async fn standing(shim: &Shim) -> Result<(Status, Arc<Versions>), Refusal> {
    let applied = shim.reader.applied().await?;
    let Serving { now, before, refused } = applied.serving;
    let versions = versions(shim).await?;
    let created_at = now.as_ref().and_then(|version| about(&versions, &version.name)).map(|about| about.created_ms);
    let status = Status {
        digest: now.as_ref().map(|version| format!("{:016x}", version.digest)),
        serving: now.map_or_else(|| named(&shim.rules.model), |version| version.name),
        created_at,
        served_before: before.map(|version| version.name),
        refused_epoch: refused,
        as_of: applied.clock_ms,
        epoch: applied.epoch,
    };
    Ok((status, versions))
}

/// The model that a setting names by its file.
fn named(file: &str) -> String {
    Path::new(file).file_stem().map_or(BLEND.to_string(), |stem| stem.to_string_lossy().into_owned())
}

/// How good what ranks was when it was made.
pub async fn evaluation(shim: &Shim, who: &Who) -> Result<Evaluation, Refusal> {
    who.about_all()?;
    let (Status { serving, .. }, versions) = standing(shim).await?;
    let figures = about(&versions, &serving).and_then(|about| about.figures.clone());
    Ok(Evaluation { serving, figures, live: "/v1/experiments" })
}

fn about<'a>(versions: &'a Versions, name: &str) -> Option<&'a About> {
    versions.iter().find(|(known, _)| known == name).and_then(|(_, about)| about.as_ref().ok())
}

/// What ranks, and every version there is.
pub async fn models(shim: &Shim, who: &Who) -> Result<Models, Refusal> {
    who.about_all()?;
    let (status, versions) = standing(shim).await?;
    let view = |(name, about): &(String, Result<About, String>)| {
        let (about, unusable) = (about.as_ref().ok(), about.as_ref().err().cloned());
        VersionView {
            serves: *name == status.serving,
            model: about.map(|about| about.model.clone()),
            digest: about.map(|about| about.digest().to_string()),
            created_at: about.map(|about| about.created_ms),
            figures: about.and_then(|about| about.figures.clone()),
            unusable,
            name: name.clone(),
        }
    };
    let versions = versions.iter().map(view).collect();
    Ok(Models { status, versions, training: training(shim).await? })
}

/// How training stands, as it was last written down.
async fn training(shim: &Shim) -> Result<TrainingView, Refusal> {
    let enabled = shim.rules.training;
    let Some(registry) = shim.rules.registry.clone() else { return Ok(TrainingView::default()) };
    let read = blocking(move || TrainingStatus::read(&registry)).await?;
    let TrainingStatus { asked, running, last, next_ms, taken_back, .. } = read.map_err(|why| {
        tracing::error!(%why, "how training stands");
        away("how training stands cannot be read; the reason is in the log")
    })?;
    Ok(TrainingView { enabled, asked, running, last, next_ms: next_ms.filter(|_| enabled), taken_back })
}

/// Read every ten seconds at most, and not on a thread that answers requests. Without a folder there are none.
async fn versions(shim: &Shim) -> Result<Arc<Versions>, Refusal> {
    let Some(registry) = shim.rules.registry.clone() else { return Ok(Arc::default()) };
    let read = async {
        let listed = blocking(move || registry.versions()).await?;
        let listed = listed.map_err(|why| unread(&why.to_string()))?;
        Ok(Arc::new(listed.into_iter().map(|(name, about)| (name, about.map_err(|error| error.reason))).collect()))
    };
    shim.versions.get(READ_FOR, read).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| away("the registry could not be read"))
}

/// Where things lie is for the log.
fn unread(why: &str) -> Refusal {
    tracing::error!(why, "the registry");
    away("the registry cannot be read; the reason is in the log")
}

fn away(message: &str) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "registry_unavailable", message)
}

/// Orders that a model is trained, where the engine trains; `None`: the one of the settings.
pub async fn train(shim: &Shim, caller: &Caller, model: Option<String>) -> Result<Receipt, Refusal> {
    caller.who.about_all()?;
    if let Some(name) = model.as_deref().filter(|name| Recipe::find(name).is_none()) {
        let known = Recipe::ALL.map(Recipe::name).join(", ");
        return Err(Refusal::unknown("unknown_model", format!("`{name}` cannot be trained; {known} can")));
    }
    if !shim.rules.training {
        let message = "the engine does not train; set training.enabled, or run `overdrive train`";
        return Err(Refusal::new(StatusCode::CONFLICT, "no_training", message));
    }
    shim.access.note(caller.training(model.as_deref().unwrap_or("settings"))).await?;
    let order = match model {
        Some(model) => serde_json::json!({"op": "train", "model": model}),
        None => serde_json::json!({"op": "train"}),
    };
    ingest::order(shim, Default::default(), order.to_string().into()).await
}

/// Orders that a version ranks, from the epoch on in which the engine reads this; `blend`: none.
pub async fn promote(shim: &Shim, caller: &Caller, version: String) -> Result<Receipt, Refusal> {
    caller.who.about_all()?;
    let Some(registry) = shim.rules.registry.clone() else {
        let message = "there is no folder of versions here; set ranker.registry";
        return Err(Refusal::new(StatusCode::CONFLICT, "no_registry", message));
    };
    let found = {
        let version = version.clone();
        blocking(move || registry.order(&version)).await?
    };
    let order = found.map_err(|error| match error {
        RegistryError::Unusable(why) => Refusal::unknown("unknown_model", format!("`{version}` cannot rank: {}", why.reason)),
        RegistryError::Away(why) => unread(&why),
    })?;
    let known = ingest::decoder(shim, Arc::default()).decode(Role::Control, None, Some(order.as_bytes()), now_ms());
    known.map_err(|reason| Refusal::bad("bad_model", reason))?;
    shim.access.note(caller.promotion(&version)).await?;
    // no key: whoever is forgotten takes what has theirs
    ingest::order(shim, Default::default(), order.into()).await
}
