//! Where answers go. The dataflow yields whole values; `encode` turns them into writes on keys; a store takes writes.
//!
//! A store keeps this promise, checked by one contract test over both: a write replaces the whole value of its key, a batch is
//! acknowledged only when all of it is there, and the applied mark of an epoch becomes visible after its writes.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

use crate::model::epoch::pairs;
use crate::model::time::span;
use crate::model::{Binding, Change, Part, Positions};

pub mod changes;
pub mod dead_letters;
mod dirty;
pub mod encode;
mod jsonl;
pub mod layout;
pub mod memory;
pub mod proto;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "kafka")]
mod topic;
pub mod writer;

/// One write: the whole new value of one key. The layout is `schemas/redis.md`.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A binary string.
    Value { key: String, value: Vec<u8>, ttl: Duration },
    /// A hash, all fields.
    Fields { key: String, fields: Vec<(String, String)>, ttl: Duration },
    /// A sorted set, all members with their scores.
    Ranked { key: String, members: Vec<(String, f64)>, ttl: Duration },
    /// One member of a sorted set: put in with its score, or with `None` taken out.
    Member { key: String, member: String, score: Option<f64>, ttl: Duration },
    /// Nothing any more.
    Delete { key: String },
}

impl Write {
    /// The key it replaces.
    pub fn key(&self) -> &str {
        match self {
            Self::Value { key, .. }
            | Self::Fields { key, .. }
            | Self::Ranked { key, .. }
            | Self::Member { key, .. }
            | Self::Delete { key } => key,
        }
    }
}

/// How far the answers have come: stored as the hash `<prefix>meta`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// All writes of epochs up to here are in the store, but for trending and neighbours.
    pub epoch: u64,
    /// The last epoch with a tick: trending and neighbours contain everything up to here.
    pub tick_epoch: u64,
    pub clock_ms: i64,
    pub watermark_ms: i64,
    /// Next offset per role and partition, as of `epoch`.
    #[serde(with = "pairs")]
    pub offsets: Positions,
    /// The same as of `tick_epoch`.
    #[serde(with = "pairs")]
    pub tick_offsets: Positions,
}

/// An epoch whose answers are complete: every worker has passed it.
#[derive(Clone, Debug)]
pub struct Completed {
    pub binding: Binding,
    pub changes: Vec<Change>,
    /// When the log accepted each event of the epoch, milliseconds since 1970: what freshness is measured from.
    pub accepted_ms: Vec<i64>,
    /// Where to leave what is not yet written once this epoch is merged, if the epoch saves.
    pub save: Option<Save>,
}

/// Takes what the writer keeps, at an epoch that saves.
#[derive(Clone)]
pub struct Save(pub Arc<dyn Fn(Part) + Send + Sync>);

impl std::fmt::Debug for Save {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Save")
    }
}

/// Why a store did not take a batch.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is away or busy: the batch is kept and tried again.
    #[error("{0}")]
    Retry(String),
    /// Trying again cannot help (credentials, permissions): loud, and tried again slowly.
    #[error("{0}")]
    Refused(String),
}

/// Something that holds answers.
pub trait Store: Send {
    /// Takes all writes, then shows `applied`. On an error nothing is promised; the caller writes the same keys again.
    fn write(&mut self, writes: &[Write], applied: &Applied) -> Result<(), StoreError>;
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub kind: Kind,
    pub prefix: String,
    #[serde(with = "span")]
    pub user_ttl: Duration,
    #[serde(with = "span")]
    pub item_ttl: Duration,
    #[serde(with = "span")]
    pub slate_ttl: Duration,
    #[serde(with = "span")]
    pub trending_ttl: Duration,
    pub max_dirty_keys: usize,
}

/// Which store holds the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Memory,
    Redis,
}

/// `[redis]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisParams {
    pub url: String,
    #[serde(with = "span")]
    pub response_timeout: Duration,
    #[serde(with = "span")]
    pub connect_timeout: Duration,
    pub pipeline: usize,
    #[serde(with = "span")]
    pub retry_max: Duration,
}
