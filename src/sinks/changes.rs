//! The change feed of slates.

use serde::{Deserialize, Serialize};

/// `[changes]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub kind: Kind,
    pub max_bytes: u64,
}

/// Where changed slates go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    File,
    Kafka,
    None,
}
