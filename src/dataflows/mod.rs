//! The stages of the path, each a noun, and the page that puts them together (`recommend`).

pub mod alike;
pub mod board;
pub mod candidates;
pub mod cards;
pub mod catalogue;
pub mod census;
pub mod content;
pub mod experiments;
pub mod explore;
pub mod factors;
pub mod feature_store;
pub mod interests;
pub mod learned;
pub mod learner;
pub mod ledger;
pub mod links;
pub mod members;
pub mod neighbours;
pub mod people;
pub mod places;
pub mod profiles;
pub mod recommend;
pub mod sampler;
pub mod shelves;
pub mod signals;
pub mod slates;
pub mod stays;
pub mod surfaces;
pub mod tallies;
pub mod tastes;
pub mod towers;
pub mod trails;
pub mod trending;

pub use recommend::recommend;

use serde::{Deserialize, Serialize};

use crate::model::content::Space;
use crate::model::kind::{Kind, Weights};
use crate::model::signals::Priors;
use crate::model::time::{Millis, millis};
use crate::scoring::blend::Handover;
use crate::scoring::diversity::Damping;
use crate::scoring::rank;

/// Settings of every stage: one section of the configuration each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub ledger: LedgerParams,
    pub signals: SignalsParams,
    pub weights: KindWeights,
    pub interests: InterestsParams,
    pub neighbours: NeighboursParams,
    pub trending: TrendingParams,
    pub near: NearParams,
    pub slates: SlatesParams,
    pub surfaces: surfaces::SurfacesParams,
    pub explore: ExploreParams,
    pub blend: crate::scoring::blend::Params,
    pub cold: crate::scoring::blend::Cold,
    pub learn: crate::scoring::learned::Params,
    pub ranker: crate::scoring::ranker::Params,
    pub experiments: crate::scoring::experiments::Params,
    pub flags: crate::scoring::flags::Params,
    pub factors: FactorsParams,
    pub content: ContentParams,
    pub towers: crate::scoring::towers::Params,
}

impl Params {
    /// Whether what is near is a source of any surface.
    pub fn looks_near(&self) -> bool {
        self.slates.near > 0 || self.surfaces.list.iter().any(|own| own.near.is_some_and(|near| near > 0))
    }

    /// What orders candidates that a caller brings, as a refresh would under the fixed weights.
    pub fn rank(&self) -> rank::Params {
        rank::Params {
            blend: Handover::new(&self.blend, &self.cold),
            weights: self.weights.table(),
            damping: self.neighbours.damping,
            fresh_half_life: self.slates.fresh_half_life,
            author: self.slates.author_damping(),
            category: self.slates.category_damping(),
        }
    }
}

/// `[ledger]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerParams {
    pub records_per_user: usize,
    pub history_per_user: usize,
    pub events_per_minute: usize,
    #[serde(with = "millis")]
    pub lateness: Millis,
    #[serde(with = "millis")]
    pub ahead: Millis,
    pub dedup_ids_per_user: usize,
}

/// `[signals]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalsParams {
    #[serde(with = "millis")]
    pub half_life: Millis,
    #[serde(with = "millis")]
    pub settle: Millis,
    pub prior_ctr: f64,
    pub prior_engagement: f64,
    pub prior_strength: f64,
}

impl SignalsParams {
    /// The smoothing of the rates.
    pub fn priors(&self) -> Priors {
        Priors { ctr: self.prior_ctr, engagement: self.prior_engagement, strength: self.prior_strength }
    }
}

/// `[weights]`: by the name of each kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KindWeights(pub std::collections::BTreeMap<Kind, f64>);

impl KindWeights {
    /// As the table the stages use.
    pub fn table(&self) -> Weights {
        Weights(Kind::ALL.map(|k| self.0.get(&k).map_or(0, |w| (w * 1000.0).round() as i32)))
    }
}

/// `[interests]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterestsParams {
    #[serde(with = "millis")]
    pub short_half_life: Millis,
    #[serde(with = "millis")]
    pub long_half_life: Millis,
    pub kept: usize,
    pub signup_weight: f64,
}

/// `[neighbours]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighboursParams {
    pub reach: usize,
    pub kept: usize,
    pub damping: f64,
}

/// `[trending]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrendingParams {
    pub kept: usize,
}

/// `[near]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NearParams {
    pub enabled: bool,
    pub kept: usize,
}

/// `[slates]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlatesParams {
    pub kept: usize,
    pub candidates: usize,
    pub neighbours_from: usize,
    pub neighbours: usize,
    pub interests: usize,
    pub trending: usize,
    pub fresh: usize,
    pub near: usize,
    #[serde(with = "millis")]
    pub refresh_every: Millis,
    #[serde(with = "millis")]
    pub active_for: Millis,
    pub busy_refreshes: f64,
    pub author_decay: f64,
    pub author_floor: f64,
    pub category_decay: f64,
    pub category_floor: f64,
    #[serde(with = "millis")]
    pub fresh_half_life: Millis,
}

impl SlatesParams {
    /// How fast a further item of an author is felt.
    pub fn author_damping(&self) -> Damping {
        Damping { decay: self.author_decay, floor: self.author_floor }
    }

    /// The same of a category.
    pub fn category_damping(&self) -> Damping {
        Damping { decay: self.category_decay, floor: self.category_floor }
    }
}

/// `[explore]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExploreParams {
    pub slots: usize,
    pub every: usize,
    pub drawn: usize,
    pub shown: u32,
    #[serde(with = "millis")]
    pub young: Millis,
}

impl ExploreParams {
    /// How often an item must have been shown not to be explored; without slots none is.
    pub fn enough(&self) -> u32 {
        if self.slots > 0 { self.shown } else { 0 }
    }
}

/// `[factors]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FactorsParams {
    pub enabled: bool,
    pub alpha: f64,
    pub reg: f64,
    pub history: usize,
    pub sweeps: u32,
    pub rounds: u32,
    pub kept: usize,
}

/// `[content]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentParams {
    pub enabled: bool,
    pub dimensions: usize,
    pub from: usize,
    pub kept: usize,
    pub text_encoder: String,
    pub image_encoder: String,
    pub text_bytes: usize,
    pub waiting_bytes: usize,
    pub queue: usize,
}

impl ContentParams {
    /// Numbers that an item's embedding has to have; 0: it is not looked at.
    pub fn width(&self) -> usize {
        if self.enabled { self.dimensions } else { 0 }
    }

    /// The folder of what encodes a space, where the settings name one.
    pub fn encoder(&self, space: Space) -> Option<&str> {
        let folder = match space {
            Space::Embedding => "",
            Space::Text => &self.text_encoder,
            Space::Image => &self.image_encoder,
        };
        (self.enabled && !folder.is_empty()).then_some(folder)
    }
}

/// The stages that are watched, by name, with the uid of the operator that tells how far each is.
pub fn watched() -> [(&'static str, &'static str); 6] {
    use crate::operators::Durable;
    [
        ("ledger", ledger::Ledger::UID),
        ("signals", signals::State::UID),
        ("interests", interests::State::UID),
        ("neighbours", neighbours::Rows::UID),
        ("trending", trending::Lists::UID),
        ("slates", slates::State::UID),
    ]
}

/// The uid of every stage that keeps something under these settings.
pub fn uids(params: &Params) -> Vec<&'static str> {
    use crate::operators::Durable;
    let always = [
        catalogue::Withheld::UID,
        cards::Cards::UID,
        ledger::Ledger::UID,
        signals::State::UID,
        interests::State::UID,
        neighbours::Pairs::UID,
        neighbours::Rows::UID,
        trending::Heat::UID,
        trending::Lists::UID,
        slates::State::UID,
        members::Members::UID,
        experiments::Totals::UID,
        people::People::UID,
        census::Counted::UID,
        census::Census::UID,
    ];
    let learning = [trails::Trails::UID, tallies::Tallies::UID, links::Rows::UID, learner::Learner::UID];
    let factors = [tastes::Tastes::UID, shelves::Makers::UID, shelves::Keeper::UID];
    let near = [places::Standings::UID, places::Cells::UID].into_iter().filter(|_| params.near.enabled);
    let learning = learning.into_iter().filter(|_| params.learn.enabled);
    let factors = factors.into_iter().filter(|_| params.factors.enabled);
    let content = params.content.enabled.then_some(content::Pieces::UID);
    always.into_iter().chain(near).chain(learning).chain(factors).chain(content).collect()
}
