//! How the experiments stand: what the users of each arm did, how surely that is known, and how far it is from the first arm.

use axum::extract::State;
use serde::Serialize;
use std::sync::Arc;

use super::params::Id;
use super::views::Body;
use crate::model::experiment::{Arm, Standing};
use crate::scoring::intervals::{self, Difference, Estimate, Measured, Verdict};
use crate::shim::access::Who;
use crate::shim::queries::views::unreadable;
use crate::shim::{Refusal, State as Shim};
use crate::sinks::layout::{self, StoredExperiments};

#[derive(Serialize)]
struct All {
    as_of: i64,
    epoch: u64,
    experiments: Vec<View>,
}

#[derive(Serialize)]
struct One {
    as_of: i64,
    epoch: u64,
    #[serde(flatten)]
    experiment: View,
}

#[derive(Serialize)]
struct View {
    name: String,
    rollout: f64,
    began: i64,
    arms: Vec<ArmView>,
}

#[derive(Serialize)]
struct ArmView {
    name: String,
    ranks: String,
    users: i64,
    impressions: i64,
    clicks: i64,
    taken: i64,
    dwell_seconds: f64,
    /// Clicks per impression.
    ctr: Option<Measure>,
    /// Of a user.
    engagement_seconds: Option<Measure>,
    /// Everything positive but clicks, of a user.
    taken_per_user: Option<Measure>,
    /// Of the click-through rate; the first arm has none.
    verdict: Option<Verdict>,
}

/// A number, and how far it is from the first arm's.
#[derive(Serialize)]
struct Measure {
    #[serde(flatten)]
    estimate: Estimate,
    difference: Option<Difference>,
}

pub async fn experiments(State(shim): State<Arc<Shim>>, who: Who) -> Result<Body, Refusal> {
    who.about_all()?;
    let StoredExperiments { as_of, epoch, standings } = stored(&shim).await?;
    Ok(Body::of(&All { as_of, epoch, experiments: standings.into_iter().map(View::from).collect() }))
}

pub async fn experiment(State(shim): State<Arc<Shim>>, Id(name): Id, who: Who) -> Result<Body, Refusal> {
    who.about_all()?;
    let StoredExperiments { as_of, epoch, standings } = stored(&shim).await?;
    let found = standings.into_iter().find(|standing| standing.name == name);
    let message = || format!("there is no experiment `{name}`; /v1/experiments lists those that run");
    let experiment = found.ok_or_else(|| Refusal::unknown("unknown_experiment", message()))?.into();
    Ok(Body::of(&One { as_of, epoch, experiment }))
}

/// As the engine last told of them; where it told of none, as of what is applied.
async fn stored(shim: &Shim) -> Result<StoredExperiments, Refusal> {
    match shim.reader.fields(&shim.keys.experiments()).await? {
        Some(fields) => layout::decode_experiments(&fields).map_err(unreadable),
        None => {
            let applied = shim.reader.applied().await?;
            Ok(StoredExperiments { as_of: applied.clock_ms, epoch: applied.tick_epoch, standings: Vec::new() })
        }
    }
}

impl From<Standing> for View {
    fn from(Standing { name, rollout, began, arms }: Standing) -> Self {
        let first = arms.first().cloned();
        let view = |(at, arm): (usize, &Arm)| ArmView::of(arm, first.as_ref().filter(|_| at > 0));
        Self { name, rollout, began, arms: arms.iter().enumerate().map(view).collect() }
    }
}

impl ArmView {
    /// `first`: the arm it is held against.
    fn of(arm: &Arm, first: Option<&Arm>) -> Self {
        let sums = &arm.sums;
        let measure = |of: fn(&_) -> Option<Measured>| {
            let measured = of(sums)?;
            let difference = first.and_then(|first| Some(measured.less(&of(&first.sums)?)));
            Some(Measure { estimate: measured.estimate(), difference })
        };
        let ctr = measure(intervals::ctr);
        let decided = ctr.as_ref().and_then(|ctr| ctr.difference).map(|difference| difference.verdict);
        Self {
            name: arm.name.clone(),
            ranks: arm.ranks.clone(),
            users: sums.users,
            impressions: sums.impressions,
            clicks: sums.clicks,
            taken: sums.taken,
            dwell_seconds: sums.dwell_ms as f64 / 1e3,
            verdict: first.map(|_| decided.unwrap_or(Verdict::Undecided)),
            ctr,
            engagement_seconds: measure(intervals::engagement_seconds),
            taken_per_user: measure(intervals::taken),
        }
    }
}
