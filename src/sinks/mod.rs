//! Where answers go. The dataflow yields whole values; `encode` turns them into writes on keys; a store takes writes.
//!
//! A store keeps this promise, checked by one contract test over both: a write replaces the whole value of its key and only an
//! older one, a batch is acknowledged only when all of it is there (or something newer), and the applied mark of an epoch becomes
//! visible after its writes.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::epoch::pairs;
use crate::model::time::span;
use crate::model::{Binding, Change, Part, Positions, Serving};

pub mod changes;
pub mod dead_letters;
mod dirty;
pub mod encode;
pub mod examples;
pub mod impressions;
mod jsonl;
pub mod layout;
pub mod memory;
pub mod parquet;
pub mod proto;
mod rebuild;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "kafka")]
mod topic;
pub mod writer;

/// Which write is newer: the later epoch, and of one epoch the later run of the engine.
///
/// A value with an equal fence is the same value: replays yield the same bytes, and one run writes a key once per epoch. So a
/// write takes effect only where its fence is greater. A batch that is tried again costs a look per key, a replay is silent until
/// it has caught up, and an engine that was paused and woke up changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence {
    pub epoch: u64,
    /// Grows each time the engine starts.
    pub generation: u32,
}

/// One write: the whole new value of one key. The layout is `schemas/redis.md`.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// A binary string with `fence` in its header.
    Value { key: String, value: Vec<u8>, ttl: Duration, fence: Fence },
    /// A hash, all fields, `fence` among them.
    Fields { key: String, fields: layout::Fields, ttl: Duration, fence: Fence },
    /// A sorted set, all members with their scores.
    Ranked { key: String, members: Vec<(String, f64)>, ttl: Duration, fence: Fence },
    /// Members of a sorted set, each once: put in with its score, or with `None` taken out. They must be all that the epochs up
    /// to the fence say of the key and that is not yet in it: older words on it are not heard any more.
    Members { key: String, members: Vec<(String, Option<f64>)>, ttl: Duration, fence: Fence },
    /// Nothing any more. For its lifetime, longer than any replay reaches back, nothing older comes back.
    Delete { key: String, sort: Sort, ttl: Duration, fence: Fence },
}

/// What kind of value lies under a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Value,
    Fields,
    Ranked,
}

impl Write {
    /// The key it replaces.
    pub fn key(&self) -> &str {
        match self {
            Self::Value { key, .. }
            | Self::Fields { key, .. }
            | Self::Ranked { key, .. }
            | Self::Members { key, .. }
            | Self::Delete { key, .. } => key,
        }
    }

    /// What it must be newer than.
    pub fn fence(&self) -> Fence {
        match self {
            Self::Value { fence, .. }
            | Self::Fields { fence, .. }
            | Self::Ranked { fence, .. }
            | Self::Members { fence, .. }
            | Self::Delete { fence, .. } => *fence,
        }
    }
}

/// How far the answers have come: stored as the hash `<prefix>meta`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// All writes of epochs up to here are in the store, but for trending and neighbours.
    pub epoch: u64,
    /// The run of the engine that says so.
    pub generation: u32,
    /// The store lost what it had, and not everything is in it again.
    pub rebuilding: bool,
    /// The last epoch with a tick: trending and neighbours contain everything up to here.
    pub tick_epoch: u64,
    pub clock_ms: i64,
    pub watermark_ms: i64,
    /// What ranks in `epoch`. Bindings and the heads of snapshots say it, so what is saved with the writer need not.
    #[serde(skip)]
    pub serving: Serving,
    /// Next offset per role and partition, as of `epoch`.
    #[serde(with = "pairs")]
    pub offsets: Positions,
    /// The same as of `tick_epoch`.
    #[serde(with = "pairs")]
    pub tick_offsets: Positions,
}

impl Applied {
    /// Takes what is not older, as a store does: the mark never goes back, neither of its halves.
    pub fn advance(&mut self, to: &Applied) {
        let mut next = if (to.epoch, to.generation) >= (self.epoch, self.generation) { to.clone() } else { self.clone() };
        let tick = if to.tick_epoch >= self.tick_epoch { to } else { &*self };
        next.tick_epoch = tick.tick_epoch;
        next.tick_offsets.clone_from(&tick.tick_offsets);
        *self = next;
    }
}

/// What a store held when a batch came, and what it did not need of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Of the mark; 0 without one.
    pub epoch: u64,
    pub tick_epoch: u64,
    pub rebuilding: bool,
    /// Writes that were not newer than what their keys held.
    pub refused: u64,
    /// Some keys it had are gone though the mark is not, and there is room for them again.
    pub dropped: bool,
}

/// How far a store has come in letting go what is old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// There may be more.
    Some,
    All,
}

/// What the writer knows of the mark a store shows. One that shows less has lost something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub epoch: u64,
    pub tick_epoch: u64,
    /// It may say so: what was lost is being told again.
    pub rebuilding: bool,
    /// The first epoch that no run of the engine before this one can have written; 0: nobody knows.
    pub since: u64,
    /// All these writes are of such epochs, each newer than its key's last.
    pub first: bool,
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
    /// With this epoch everything has been told again because of this loss (see [`writer::Hooks`]).
    pub retold: Option<u64>,
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
    /// Takes those writes that are newer than what it holds, then shows `applied` unless it shows something newer, and that it is
    /// rebuilding when it shows less than what is `known`. On an error nothing is promised; the caller writes the same keys again.
    fn write(&mut self, writes: &[Write], applied: &Applied, known: Known) -> Result<Found, StoreError>;

    /// Deletes a few of the keys whose fence is of an epoch before this one, but for the mark and what is between writers, and leaves
    /// tombstones for `ttl`. What has no fence is somebody else's.
    /// Called over and over until it says that that was all; on an error it may begin anew.
    fn sweep(&mut self, before: u64, ttl: Duration) -> Result<Swept, StoreError>;
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
    #[serde(with = "span")]
    pub near_ttl: Duration,
    #[serde(with = "span")]
    pub card_ttl: Duration,
    #[serde(with = "span")]
    pub tombstone_ttl: Duration,
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
    pub username: String,
    pub password_file: PathBuf,
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
    #[serde(with = "span")]
    pub response_timeout: Duration,
    #[serde(with = "span")]
    pub connect_timeout: Duration,
    pub pipeline: usize,
    #[serde(with = "span")]
    pub retry_max: Duration,
}
