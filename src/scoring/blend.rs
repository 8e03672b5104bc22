//! The blend: a weighted sum of five terms.

use serde::{Deserialize, Serialize};

/// `[blend]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub content: f64,
    pub collaborative: f64,
    pub real_time: f64,
    pub interests: f64,
    pub freshness: f64,
}
