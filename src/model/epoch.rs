//! An epoch: a definite piece of the input and the only clock the dataflow knows.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::interaction::Role;
use super::time::Millis;

/// What every operator is told of an epoch. Everything in it was decided when the input was cut, and is replayed as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// The dataflow's timestamp.
    pub number: u64,
    /// "Now".
    pub clock_ms: Millis,
    /// No event older than this is expected any more; what comes all the same is late.
    pub watermark_ms: Millis,
    /// Stages with a slower cadence (trending, neighbours, scheduled refreshes) act in this epoch.
    pub tick: bool,
    /// How many users may be refreshed, in 1/1024 of a user per key group; `None`: as many as ask.
    pub refreshes: Option<u32>,
}

/// Next offset to read, by role and partition.
pub type Positions = BTreeMap<(Role, u32), u64>;

/// An epoch and the offsets it holds: from these two everything downstream can be made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    pub epoch: Epoch,
    /// First offset, and the one after the last.
    pub offsets: BTreeMap<(Role, u32), (u64, u64)>,
}
