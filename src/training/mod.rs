//! Rankers made of what the engine logged: by Python, proven, published, and ordered to rank where they are good enough.
//!
//! ```text
//! due, or asked for → script (Python, examples → ONNX) → registry → measure (against what ranks) → verdict → an order in the input
//! ```
//! The facts that must stay true: what ranks changes by orders in the input and in no other way, so a replay knows nothing of this room;
//! and whatever fails here leaves what ranks as it is.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

use crate::model::serving::Recipe;
use crate::model::time::span;

mod inbox;
mod measure;
pub mod schedule;
pub mod script;
mod status;
pub mod towers;
mod trainer;
mod verdict;

pub use inbox::Inbox;
pub use measure::{Measured, Wanted, measure};
pub use schedule::Daily;
pub use status::{Attempt, Doing, Promoted, Status, TakenBack};
pub use trainer::{Place, Trainer};
pub use verdict::Promote;

/// `[training]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub enabled: bool,
    pub model: Recipe,
    pub at: Daily,
    #[serde(with = "span")]
    pub every: Duration,
    pub python: PathBuf,
    pub promote: Promote,
    pub least: usize,
    #[serde(with = "span")]
    pub watch: Duration,
}
