//! How the experiments stand: what the users of each arm did, how surely that is known, and how far it is from the first arm.

use serde::Serialize;

use super::views::unreadable;
use crate::model::experiment::{Arm, Standing, Whom};
use crate::scoring::intervals::{self, Difference, Estimate, Measured, Verdict};
use crate::shim::access::Who;
use crate::shim::{Refusal, State as Shim};
use crate::sinks::layout::{self, StoredExperiments};

/// The experiments that run.
#[derive(Serialize)]
pub struct All {
    pub as_of: i64,
    pub epoch: u64,
    pub experiments: Vec<View>,
}

/// One of them.
#[derive(Serialize)]
pub struct One {
    pub as_of: i64,
    pub epoch: u64,
    #[serde(flatten)]
    pub experiment: View,
}

/// How it stands.
#[derive(Serialize)]
pub struct View {
    pub name: String,
    pub rollout: f64,
    /// `None`: it is for everybody.
    pub cohort: Option<Whom>,
    pub began: i64,
    pub arms: Vec<ArmView>,
}

/// What the users of an arm did.
#[derive(Serialize)]
pub struct ArmView {
    pub name: String,
    pub ranks: String,
    pub users: i64,
    pub impressions: i64,
    pub clicks: i64,
    pub taken: i64,
    pub dwell_seconds: f64,
    /// Clicks per impression.
    pub ctr: Option<Measure>,
    /// Of a user.
    pub engagement_seconds: Option<Measure>,
    /// Everything positive but clicks, of a user.
    pub taken_per_user: Option<Measure>,
    /// Of the click-through rate; the first arm has none.
    pub verdict: Option<Verdict>,
}

/// A number, and how far it is from the first arm's.
#[derive(Serialize)]
pub struct Measure {
    #[serde(flatten)]
    pub estimate: Estimate,
    pub difference: Option<Difference>,
}

/// All of them.
pub async fn experiments(shim: &Shim, who: &Who) -> Result<All, Refusal> {
    who.about_all()?;
    let StoredExperiments { as_of, epoch, standings } = stored(shim).await?;
    Ok(All { as_of, epoch, experiments: standings.into_iter().map(View::from).collect() })
}

/// The one of this name.
pub async fn experiment(shim: &Shim, who: &Who, name: &str) -> Result<One, Refusal> {
    let All { as_of, epoch, experiments } = experiments(shim, who).await?;
    let found = experiments.into_iter().find(|experiment| experiment.name == name);
    let message = || format!("there is no experiment `{name}`; /v1/experiments lists those that run");
    let experiment = found.ok_or_else(|| Refusal::unknown("unknown_experiment", message()))?;
    Ok(One { as_of, epoch, experiment })
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
    fn from(Standing { name, rollout, whom, began, arms }: Standing) -> Self {
        let first = arms.first().cloned();
        let view = |(at, arm): (usize, &Arm)| ArmView::of(arm, first.as_ref().filter(|_| at > 0));
        Self { name, rollout, cohort: whom, began, arms: arms.iter().enumerate().map(view).collect() }
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
