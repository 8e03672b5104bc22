//! The embedded log.

use serde::{Deserialize, Serialize};

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub partitions: u32,
    pub segment_bytes: u64,
    pub fsync: bool,
}
