//! What answers go by, besides what is stored: as the settings have it, which the engine goes by, too.

use super::ranked_by;
use crate::config::Config;
use crate::model::Surface;
use crate::registry::{self, Registry};
use crate::scoring::ranker::Model;
use crate::scoring::{flags, rank};
use crate::telemetry;

/// What answers go by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// How candidates are ordered that a caller brings.
    pub ranking: rank::Params,
    /// The model that orders them in place of the fixed weights, once it was read.
    pub ranked_by: Option<Model>,
    /// What is on, and for whom.
    pub flags: flags::Params,
    /// The model that the settings name.
    pub model: String,
    /// Versions of models.
    pub registry: Option<Registry>,
    /// Whether the engine makes some itself.
    pub training: bool,
    /// Numbers that an item's embedding has to have; 0: it is not looked at.
    pub dimensions: usize,
    /// Where slates are kept beside home.
    surfaces: Vec<OwnSurface>,
}

/// A surface of the settings, and what it shows: what trends there stands in for a slate.
#[derive(Clone, Debug)]
pub struct OwnSurface {
    surface: Surface,
    pub categories: Vec<String>,
    pub languages: Vec<String>,
}

impl Rules {
    /// Of the settings, with what they name read; the error says what to do.
    pub fn read(config: &Config) -> Result<Self, String> {
        let ranked_by = ranked_by::read(config)?;
        telemetry::device(registry::runs_on());
        let named = Some(&config.recommend.ranker.registry).filter(|named| !named.is_empty());
        let registry = named.map(|named| Registry::open(named, &config.engine.state_dir)).transpose()?;
        let (ranker, surfaces) = (&config.recommend.ranker, config.recommend.surfaces.list.iter());
        let shown = surfaces.map(|own| (own.surface(), own.only.categories.clone(), own.only.languages.clone()));
        Ok(Self {
            ranking: config.recommend.rank(),
            dimensions: config.recommend.content.width(),
            ranked_by,
            flags: config.recommend.flags.clone(),
            model: ranker.model.clone(),
            registry,
            training: config.training.enabled,
            surfaces: shown.map(|(surface, categories, languages)| OwnSurface { surface, categories, languages }).collect(),
        })
    }

    /// Every surface of which slates are kept.
    pub fn kept(&self) -> impl Iterator<Item = Surface> {
        [Surface::HOME].into_iter().chain(self.surfaces.iter().map(|own| own.surface))
    }

    /// What the settings say of a surface; of home they say nothing here.
    pub fn own(&self, surface: Surface) -> Option<&OwnSurface> {
        self.surfaces.iter().find(|own| own.surface == surface)
    }
}
