//! What the dataflow says to the world: whole new values of keys, one per key and epoch, and the account of each epoch.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::catalogue::Item;
use super::content::Work;
use super::example::{Example, Watched};
use super::experiment::Standing;
use super::ids::{ItemId, TokenId, UserId};
use super::interaction::Dead;
use super::place::Cell;
use super::signals::{SignalKey, Signals};
use super::slate::{Slate, Surface};
use super::time::Millis;

/// A list of items kept for everyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    Global,
    /// A `category:…` token.
    Category(TokenId),
    /// All items, by seven-day decay: what is shown when nothing trends.
    Popular,
    /// All items, the newest first.
    Fresh,
    /// A `language:…` token.
    Language(TokenId),
    /// A cell of the earth, of [`REGION`](super::place::REGION).
    Cell(Cell),
}

/// Interests of a user: token and weight, strongest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interests {
    /// Half-life one hour, summing to 1.
    pub short: Vec<(TokenId, f64)>,
    /// Half-life seven days, summing to 1.
    pub long: Vec<(TokenId, f64)>,
    /// One minus the cosine of the two: 0 the same taste, 1 another one.
    pub drift: f64,
}

/// What readers need to know of a user beside what they did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    pub lat: Option<f64>,
    pub lon: Option<f64>,
    pub city: Option<String>,
    /// 0 to 1: how much nearness matters.
    pub local_preference: Option<f64>,
    pub total_watch_hours: Option<f64>,
    pub language: Option<TokenId>,
    /// Whether items for adults may be shown.
    pub mature: bool,
    /// Blocked, or muted by what they did.
    pub hidden_authors: Vec<TokenId>,
    pub hidden_items: Vec<ItemId>,
}

/// How much there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// That may be shown.
    pub items: i64,
    /// With a profile.
    pub users: i64,
    /// Cities with an item.
    pub covered: i64,
    /// Those with the most items, most first.
    pub cities: Vec<(String, i64)>,
}

/// A neighbour of an item: users who took both, and their share of those who took the item, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Neighbour {
    pub item: ItemId,
    pub similarity_micro: i32,
    pub users: u32,
}

/// What the users of one arm of an experiment did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Acts {
    pub impressions: u64,
    pub clicks: u64,
    /// Everything else that is positive.
    pub taken: u64,
}

/// What a model in the shadow of what serves would have done. All are counts, of what it scored too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Compared {
    /// Slates both scored, and their candidates.
    pub requests: u64,
    pub candidates: u64,
    /// Places in the first ten, and those whose item is among the first ten of both.
    pub screen: u64,
    pub agreed: u64,
    /// Sum over all candidates of how many places apart the two orders have them.
    pub moved: u64,
    /// Candidates users took, those it had before and behind the place they served at, those it had first, and those that served first.
    pub taken: u64,
    pub ahead: u64,
    pub behind: u64,
    pub first: u64,
    pub served_first: u64,
    /// Candidates it had no score for.
    pub unscored: u64,
}

impl Compared {
    /// Adds another part.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.candidates += other.candidates;
        self.screen += other.screen;
        self.agreed += other.agreed;
        self.moved += other.moved;
        self.taken += other.taken;
        self.ahead += other.ahead;
        self.behind += other.behind;
        self.first += other.first;
        self.served_first += other.served_first;
        self.unscored += other.unscored;
    }

    /// Every count with its name.
    pub fn counts(&self) -> [(&'static str, u64); 11] {
        [
            ("requests", self.requests),
            ("candidates", self.candidates),
            ("screen", self.screen),
            ("agreed", self.agreed),
            ("moved", self.moved),
            ("taken", self.taken),
            ("ahead", self.ahead),
            ("behind", self.behind),
            ("first", self.first),
            ("served_first", self.served_first),
            ("unscored", self.unscored),
        ]
    }
}

/// What a loaded model did in an epoch, and what the users did whom it ranks for, and the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arms {
    /// Candidates it scored, and those it was asked for in vain: the blend stood in.
    pub scored: u64,
    pub unscored: u64,
    pub by_model: Acts,
    pub by_blend: Acts,
    /// What another one would have done.
    pub shadow: Compared,
    /// Why a batch failed, if one did.
    pub failed: Option<String>,
    /// Calls of a tower that gave no vector, and why one did not.
    pub towers: (u64, Option<String>),
}

/// What became of the events of one epoch: `consumed` is the sum of the other five, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Account {
    pub consumed: u64,
    pub applied: u64,
    pub duplicate: u64,
    /// Older than 24 h at arrival: out of every window, but in history, neighbours and interests.
    pub late: u64,
    /// Valid, but without effect by a rule: an undo of nothing, a cap.
    pub filtered: u64,
    pub dead: u64,
    /// Of the applied: more than 5 min ahead of a wall clock, counted as of now.
    pub clamped: u64,
    /// Users whose refresh was put off by the budget of this epoch.
    pub coalesced: u64,
    /// Users refreshed.
    pub refreshed: u64,
}

impl Account {
    /// The conservation law.
    pub fn balances(&self) -> bool {
        self.consumed == self.applied + self.duplicate + self.late + self.filtered + self.dead
    }

    /// Adds another worker's part.
    pub fn add(&mut self, other: &Account) {
        self.consumed += other.consumed;
        self.applied += other.applied;
        self.duplicate += other.duplicate;
        self.late += other.late;
        self.filtered += other.filtered;
        self.dead += other.dead;
        self.clamped += other.clamped;
        self.coalesced += other.coalesced;
        self.refreshed += other.refreshed;
    }

    /// Makes one account of all parts among the changes of an epoch.
    pub fn sum_up(changes: &mut Vec<Change>) {
        let parts = changes.extract_if(.., |change| matches!(change, Change::Account(_)));
        let mut sum = None::<Self>;
        for part in parts {
            if let Change::Account(part) = part {
                sum.get_or_insert_default().add(&part);
            }
        }
        changes.extend(sum.map(Change::Account));
    }
}

/// What the blend has learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// How many times it has learned.
    pub groups: u64,
    /// Whether it serves.
    pub serves: bool,
    /// The linear weight of each feature.
    pub weights: Vec<(String, f64)>,
}

/// One output of the dataflow. `None` in a value means: there is nothing any more, delete the key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// With the items that were not in the previous slate, and those that are in it no more.
    Slate {
        user: UserId,
        surface: Surface,
        slate: Option<Arc<Slate>>,
        entered: Vec<ItemId>,
        left: Vec<ItemId>,
    },
    Signals(SignalKey, Option<Arc<Signals>>),
    Interests(UserId, Option<Arc<Interests>>),
    /// Items not to be shown to the user again, with the time of the last interaction, or `None` for one that may be shown again.
    Seen(UserId, Vec<(ItemId, Option<Millis>)>),
    /// How many users have the item in their history, and the nearest.
    Neighbours(ItemId, u32, Vec<Neighbour>),
    /// The best of a scope, best first, with the score in thousandths.
    Trending(Scope, Vec<(ItemId, i64)>),
    /// The best of a cell, best first, each with its packed [`Standing`](super::place::Standing).
    Near(Cell, Vec<(ItemId, i64)>),
    /// An item came, changed or went: what the read side needs of it to filter.
    Catalogue(ItemId, bool),
    /// What was asked for by `Control::Rank`: every candidate, best first, with the sources it came from, bit by bit.
    Ranking(UserId, Vec<(ItemId, u32)>),
    /// What somebody took, out of what they could have been shown: to train models with.
    Example(Arc<Example>),
    /// What a user was shown and did: to train models with what followed.
    Watched(Arc<Watched>),
    /// A worker's part of what a loaded model did.
    Arms(Arc<Arms>),
    /// What the blend has learned by now.
    Learned(Arc<Learned>),
    /// The last word on a forgotten user, after the deletions of all their keys.
    Forgotten(UserId),
    Dead(Dead),
    Account(Account),
    /// All that is not to be shown to the user again: whatever else the store holds of that goes.
    AllSeen(UserId, Vec<(ItemId, Millis)>),
    /// All items that are withdrawn, with the time: whatever else the store holds of that goes.
    AllGone(Vec<(ItemId, Millis)>),
    /// How every experiment stands, in the order of the settings.
    Experiments(Arc<Vec<Standing>>),
    /// What the catalogue says of an item that may be shown, and when it came into being.
    Card(ItemId, Option<(Arc<Item>, Millis)>),
    /// What readers need to know of a user beside what they did.
    Profile(UserId, Option<Arc<Profile>>),
    /// How much there is.
    Census(Arc<Counts>),
    /// A piece of content for which there is no direction yet.
    Encode(Arc<Work>),
}
