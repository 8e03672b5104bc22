//! What comes in: decoded interactions, catalogue changes and control events, each with the place it was read from.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

use super::catalogue::{Item, User};
use super::content::{Encoded, Space};
use super::ids::{ItemId, UserId};
use super::kind::Kind;
use super::serving::{BLEND, Recipe, Version};
use super::time::Millis;

/// What a topic carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Role {
    #[default]
    Events = 0,
    Items = 1,
    Users = 2,
    Control = 3,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::Events, Role::Items, Role::Users, Role::Control];

    /// The name in configurations, tokens and messages.
    pub fn name(self) -> &'static str {
        match self {
            Role::Events => "events",
            Role::Items => "items",
            Role::Users => "users",
            Role::Control => "control",
        }
    }
}

/// Where a record was read, the canonical order inside an epoch, and when the log took it, the only order between topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    pub role: Role,
    pub partition: u32,
    pub offset: u64,
    pub accepted: Millis,
}

/// Add an interaction, or take one back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Op {
    Add,
    Undo,
}

/// One interaction as it was sent; the ledger decides whether it counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Event {
    /// Hash of the event id, or of (user, kind, item, time) where none was sent.
    pub id: u64,
    pub user: UserId,
    pub item: ItemId,
    pub kind: Kind,
    pub op: Op,
    pub at: Millis,
    /// Seconds, a ratio, stars: what the kind makes of it; in thousandths.
    pub value_milli: Option<i32>,
}

/// By what a full ranking is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ranker {
    /// The learned blend over its candidates.
    Blend,
    /// Popularity at one scale of time alone: a place in the ladder.
    Popularity(u8),
    /// Nearness to what the user took alone, then popularity at this scale.
    Nearness(u8),
    /// The vectors of user and items alone.
    Factors,
    /// What follows the user's last item oftener than chance would have it.
    Next,
    /// The fixed weights, as they make a slate without factors.
    Fixed,
}

/// An order: from the control topic, or from whoever drives the dataflow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Control {
    /// Everything goes that is kept of the user and was accepted before.
    Forget { user: UserId },
    /// The users' interactions with `from <= at < to` go, as far as they were accepted before.
    Revoke { users: Vec<UserId>, from: Millis, to: Millis },
    /// What the user would be shown just before this epoch, in full and in order. No topic carries this order.
    Rank { user: UserId, by: Ranker },
    /// Another model ranks, or one is trained. Obeyed where the input is cut: no worker ever sees it.
    Model(ModelOrder),
    /// What is encoded in this space is encoded by this encoder from now on; what another one made counts no more.
    Encoder { space: Space, encoder: u64 },
    /// What an encoder made of a piece of an item's content.
    Encoded(ItemId, Arc<Encoded>),
}

/// Which model is to rank, or to be trained.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ModelOrder {
    /// This version; `None`: none.
    Promote(Option<Version>),
    /// The one before.
    Rollback,
    /// This version, and only where what is called so (`blend`: no version) ranks: what was found out meanwhile by somebody else stays.
    Replace(Option<Version>, String),
    /// A new version is made of what was logged; `None`: by the recipe of the settings. What ranks stays.
    Train(Option<Recipe>),
}

impl fmt::Display for ModelOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Promote(Some(version)) => write!(f, "rank by {version}"),
            Self::Promote(None) => write!(f, "rank by no version"),
            Self::Replace(version, instead_of) => {
                let version = version.as_ref().map_or(BLEND.to_string(), ToString::to_string);
                write!(f, "rank by {version} instead of {instead_of}")
            }
            Self::Rollback => write!(f, "rank by what ranked before"),
            Self::Train(Some(recipe)) => write!(f, "train {}", recipe.name()),
            Self::Train(None) => write!(f, "train"),
        }
    }
}

/// A usable record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    Event(Event),
    Item(ItemId, Option<Arc<Item>>),
    User(UserId, Option<Arc<User>>),
    Control(Control),
}

/// A record that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dead {
    pub topic: Arc<str>,
    pub partition: u32,
    pub offset: u64,
    /// What is wrong and what to do, in one sentence.
    pub reason: String,
    /// The first 256 bytes, lossily as text.
    pub sample: String,
}

/// One record of a partition, decoded or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub origin: Origin,
    pub input: Result<Input, Dead>,
}
