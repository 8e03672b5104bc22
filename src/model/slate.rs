//! A slate: the ordered items one user gets on one surface, each with its score and the reason it is there.

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::experiment::Variant;
use super::ids::{ItemId, TokenId, UserId};
use super::kind::Kind;

/// Where a slate is shown, by its name in keys and routes. There are as many as the settings name, and each name is kept once for as
/// long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Surface(&'static str);

impl Surface {
    /// The one that is always there.
    pub const HOME: Surface = Surface("home");

    /// The surface of this name.
    pub fn named(name: &str) -> Self {
        static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let mut names = NAMES.lock().expect("no panic under the lock");
        let known = names.get(name).copied();
        Self(known.unwrap_or_else(|| {
            let name: &'static str = name.to_string().leak();
            names.insert(name);
            name
        }))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0
    }
}

impl<'de> Deserialize<'de> for Surface {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|name| Self::named(&name))
    }
}

/// Which candidate source spoke loudest for an item. The numbers are part of the stored layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Source {
    Neighbours = 1,
    Interests = 2,
    Trending = 3,
    Fresh = 4,
    Popular = 5,
    History = 6,
    Explored = 7,
    Content = 8,
    Towers = 9,
}

impl Source {
    /// Every source.
    pub const ALL: [Source; 9] = [
        Source::Neighbours,
        Source::Interests,
        Source::Trending,
        Source::Fresh,
        Source::Popular,
        Source::History,
        Source::Explored,
        Source::Content,
        Source::Towers,
    ];

    /// The name readers see.
    pub fn name(self) -> &'static str {
        match self {
            Source::Neighbours => "neighbours",
            Source::Interests => "interests",
            Source::Trending => "trending",
            Source::Fresh => "fresh",
            Source::Popular => "popular",
            Source::History => "history",
            Source::Explored => "explored",
            Source::Content => "content",
            Source::Towers => "towers",
        }
    }
}

/// Why an item is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// "because you shared A"
    Because { kind: Kind, item: ItemId },
    /// "because you like jazz"
    Likes { token: TokenId },
    /// "popular in jazz now" or, without a token, "trending now"
    Trending { token: Option<TokenId> },
    /// "new" or "new in jazz"
    New { token: Option<TokenId> },
    /// "popular"
    Popular,
}

/// The names of the blend's terms, in stored order.
pub const TERMS: [&str; 5] = ["content", "collaborative", "real_time", "interests", "freshness"];

/// One place of a slate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlateItem {
    pub item: ItemId,
    /// In millionths; what orders the slate, after diversity.
    pub score_micro: i32,
    pub source: Source,
    pub reason: Reason,
    /// 0 to 1 in 1/10000, in the order of [`TERMS`]: under the fixed blend the terms before their weights, under the learned one the
    /// share of each in what speaks for the item.
    pub terms: [u16; TERMS.len()],
}

/// A model that ordered a slate in place of the blend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelName {
    /// Of the file it came from; never 0, which is the blend's.
    pub number: u32,
    pub name: String,
}

/// A whole slate; it replaces the previous one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slate {
    pub user: UserId,
    pub surface: Surface,
    /// `None`: the blend.
    pub model: Option<Arc<ModelName>>,
    /// The arm of an experiment it was made under, if any.
    pub variant: Option<Arc<Variant>>,
    pub items: Vec<SlateItem>,
    /// The categories of the items, each with the place of its item, from 0; by place.
    pub categories: Vec<(TokenId, u16)>,
    /// What the user took lately, latest first: what neighbours are asked of.
    pub history: Vec<(Kind, ItemId)>,
    /// How many items they took in all.
    pub taken: u32,
}
