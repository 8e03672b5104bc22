//! What the engine's settings say that reads go by.

use crate::model::Surface;
use crate::scoring::rank;

/// How the engine orders, and what slates it keeps.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Orders candidates that callers bring.
    pub ranking: rank::Params,
    /// Beside home.
    pub surfaces: Vec<OwnSurface>,
}

/// A surface of the settings, and what it shows: what trends there stands in for a slate.
#[derive(Clone, Debug)]
pub struct OwnSurface {
    pub surface: Surface,
    pub categories: Vec<String>,
    pub languages: Vec<String>,
}

impl Engine {
    /// Every surface of which slates are kept.
    pub fn kept(&self) -> impl Iterator<Item = Surface> {
        [Surface::HOME].into_iter().chain(self.surfaces.iter().map(|own| own.surface))
    }

    /// What the settings say of a surface; of home they say nothing here.
    pub fn own(&self, surface: Surface) -> Option<&OwnSurface> {
        self.surfaces.iter().find(|own| own.surface == surface)
    }
}
