//! The read side.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::model::time::span;

/// `[service]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub bind: String,
    pub port: u16,
    pub threads: usize,
    pub body_limit: usize,
    pub batch_limit: usize,
    pub connections: usize,
    #[serde(with = "span")]
    pub header_timeout: Duration,
    #[serde(with = "span")]
    pub idle_timeout: Duration,
    #[serde(with = "span")]
    pub request_timeout: Duration,
    #[serde(with = "span")]
    pub token_wait: Duration,
    pub default_k: usize,
    pub max_k: usize,
    pub max_id_bytes: usize,
}
