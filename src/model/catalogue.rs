//! Items and users as their topics describe them.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::Arc;

use super::ids::{ItemId, TokenId};
use super::place::Place;
use super::time::Millis;

/// A few tokens.
pub type Tokens = SmallVec<[TokenId; 4]>;

/// The quality of an item of which the catalogue says none.
pub const USUAL_QUALITY: f64 = 0.5;

/// The id of a city, however it is written; none of what is blank.
pub fn city(name: &str) -> Option<TokenId> {
    let name = name.trim();
    (!name.is_empty()).then(|| TokenId::city(name))
}

/// What is known of an item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Item {
    pub author: Option<TokenId>,
    pub categories: Tokens,
    pub tags: Tokens,
    pub language: Option<TokenId>,
    pub created_at: Option<Millis>,
    pub lat: Option<f64>,
    pub lon: Option<f64>,
    pub city: Option<String>,
    /// 0 to 1.
    pub quality: Option<f64>,
    pub mature: bool,
    /// `false` takes the item out of every slate without deleting it.
    pub available: bool,
    pub partnered: bool,
    pub followers: Option<u64>,
    pub avg_viewers: Option<f64>,
    pub title: Option<String>,
    pub text: Option<String>,
    pub media_types: Vec<String>,
    pub embedding: Vec<f32>,
    /// The bytes of a PNG or JPEG. Only the stage that reads them, on the worker the record comes to, gets to see them: they are not
    /// sent on.
    #[serde(skip)]
    pub image: Option<Arc<[u8]>>,
}

impl Item {
    /// Categories, tags and author: what interests and content similarity are made of.
    pub fn tokens(&self) -> impl Iterator<Item = TokenId> + '_ {
        self.categories.iter().chain(&self.tags).copied().chain(self.author)
    }

    /// Where it is.
    pub fn place(&self) -> Option<Place> {
        Place::new(self.lat?, self.lon?)
    }

    /// Without what is large, which `dataflows/content.rs` alone reads.
    pub fn light(self: Arc<Self>) -> Arc<Self> {
        if self.text.is_none() && self.embedding.is_empty() && self.image.is_none() {
            return self;
        }
        Arc::new(Self { text: None, embedding: Vec::new(), image: None, ..Self::clone(&self) })
    }
}

/// What the catalogue says of whom an item may be shown to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    pub available: bool,
    pub mature: bool,
    pub author: Option<TokenId>,
}

impl Gate {
    /// Of an item.
    pub fn of(facts: &Item) -> Self {
        Self { available: facts.available, mature: facts.mature, author: facts.author }
    }
}

/// What is known of a user beside their interactions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Interests named at sign-up, and followed categories: as `category:` and `tag:` tokens.
    pub interests: Tokens,
    pub categories: Tokens,
    pub language: Option<TokenId>,
    pub lat: Option<f64>,
    pub lon: Option<f64>,
    pub city: Option<String>,
    /// 0 to 1: how much nearness matters.
    pub local_preference: Option<f64>,
    pub blocked_authors: Vec<TokenId>,
    pub blocked_items: Vec<ItemId>,
    /// Mature items are shown only to users who said so.
    pub allow_mature: bool,
    pub bio: Option<String>,
    /// How much they watched, as whoever keeps the users says.
    pub total_watch_hours: Option<f64>,
}

impl User {
    /// Where they said that they live.
    pub fn place(&self) -> Option<Place> {
        Place::new(self.lat?, self.lon?)
    }
}
