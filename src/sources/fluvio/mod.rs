//! Fluvio as a source and as something to append to. Its client has been seen to leave records out at the seams of what it fetches,
//! and to end streams; so nothing it hands out is believed but the offsets, and those must follow each other.
//!
//! | file | what it holds |
//! |---|---|
//! | `succession` | whether a record is the next of its partition: pure |
//! | `reader` | the source, over anything that opens streams |
//! | `client` | a real cluster: topics, what they hold, streams |
//! | `append` | writing |
//!
//! Fluvio knows no deletion: an empty value stands for one.

use serde::{Deserialize, Serialize};
use std::time::Duration;

use super::Role;
#[cfg(feature = "fluvio")]
use super::{Positions, SourceError};
use crate::model::time::span;

#[cfg(feature = "fluvio")]
mod append;
#[cfg(feature = "fluvio")]
mod client;
pub mod reader;
mod succession;

#[cfg(feature = "fluvio")]
pub use append::FluvioAppender;
#[cfg(feature = "fluvio")]
pub use client::{Client, topics};
pub use reader::{Arrival, Cluster, Reader};

/// `[fluvio]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub endpoint: String,
    pub events_topic: String,
    pub items_topic: String,
    pub users_topic: String,
    pub control_topic: String,
    pub create_topics: bool,
    pub partitions: u32,
    pub replication: u32,
    #[serde(with = "span")]
    pub timeout: Duration,
}

impl Params {
    /// The topic that carries a role.
    pub fn topic(&self, role: Role) -> &str {
        match role {
            Role::Events => &self.events_topic,
            Role::Items => &self.items_topic,
            Role::Users => &self.users_topic,
            Role::Control => &self.control_topic,
        }
    }
}

/// The source: all partitions of the four topics from `start` on.
#[cfg(feature = "fluvio")]
pub fn open(params: &Params, start: &Positions) -> Result<Reader<Client>, SourceError> {
    Reader::open(Client::connect(params)?, start, params.timeout)
}

/// The offset after the last record of every partition: where a reader begins that wants only what is new.
#[cfg(feature = "fluvio")]
pub fn ends(params: &Params) -> Result<Positions, SourceError> {
    let ranges = Client::connect(params)?.ranges()?;
    Ok(ranges.into_iter().map(|(place, (_, end))| (place, end)).collect())
}
