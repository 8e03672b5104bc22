//! An example: the candidates a user had the moment before they took something, what was known of each, and which they took.

use serde::{Deserialize, Serialize};

use super::ids::{ItemId, TokenId, UserId};
use super::time::Millis;

/// Everything was read before the events of the epoch were counted: nothing in it knows what came after.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Example {
    pub user: UserId,
    /// The clock of the epoch.
    pub at: Millis,
    /// Each candidate, and whether it was taken; at least one was.
    pub candidates: Vec<(ItemId, bool)>,
    /// Every column of every candidate, candidate by candidate (`scoring/columns.rs`).
    pub columns: Vec<f32>,
    /// What the user took before, the latest first, as far as towers look back.
    pub history: Vec<ItemId>,
    /// What each candidate is like, in tokens, as far as towers look at them.
    pub tokens: Vec<Vec<TokenId>>,
}
