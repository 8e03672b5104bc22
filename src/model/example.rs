//! What models are trained on: the candidates a user had the moment before they took something, or what they were shown, with what was known of
//! each; and what they took, or what followed.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::ids::{ItemId, TokenId, UserId};
use super::kind::Kind;
use super::time::Millis;

/// Everything was read before the events of the epoch were counted: nothing in it knows what came after.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Example {
    pub user: UserId,
    /// The clock of the epoch.
    pub at: Millis,
    /// Each candidate, and whether it was taken: at least one was, or, of what was shown, none yet.
    pub candidates: Vec<(ItemId, bool)>,
    /// Every column of every candidate, candidate by candidate (`scoring/columns.rs`).
    pub columns: Vec<f32>,
    /// What the user took before, the latest first, as far as towers look back.
    pub history: Vec<ItemId>,
    /// What each candidate is like, in tokens, as far as towers look at them.
    pub tokens: Vec<Vec<TokenId>>,
}

/// What a user was shown and did in an epoch, for who puts the two together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    pub user: UserId,
    pub steps: Vec<Step>,
    /// What they were shown, if it is one of those that are logged.
    pub example: Option<Example>,
}

impl Watched {
    /// When each item was shown first in this epoch.
    pub fn shown(&self) -> BTreeMap<ItemId, Millis> {
        let mut shown = BTreeMap::new();
        for step in self.steps.iter().filter(|step| step.kind == Kind::Impression && step.diff > 0) {
            shown.entry(step.item).and_modify(|at: &mut Millis| *at = step.at.min(*at)).or_insert(step.at);
        }
        shown
    }
}

/// An interaction that came to count (`diff` 1), or no longer does (-1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub item: ItemId,
    pub kind: Kind,
    pub at: Millis,
    pub value_milli: Option<i32>,
    pub diff: i64,
}
