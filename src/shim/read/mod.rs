//! Reading answers, whoever holds them. One trait over the memory of this process and over Redis.
//!
//! What must stay true: where one call answers several things, the applied mark is the oldest of them, so that whatever the
//! mark promises is in the rest.

use bytes::Bytes;
use std::collections::BTreeMap;

use crate::sinks::Applied;
use crate::sinks::layout::LayoutError;
use crate::sources::Pending;
use crate::telemetry::STORE_ERRORS;

mod memory;
#[cfg(feature = "redis")]
mod redis;

pub use memory::MemoryReader;
#[cfg(feature = "redis")]
pub use redis::RedisReader;

/// The store did not answer: what was tried and why it failed, without credentials.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// An answer of the store to come.
pub type Answer<'a, T> = Pending<'a, Result<T, Unavailable>>;

/// A hash: field and value.
pub type Fields = BTreeMap<String, String>;

/// Number of keys by family: `slate`, `item`, ….
pub type Sizes = BTreeMap<String, usize>;

/// What feeds are made of.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Read before the rest.
    pub applied: Applied,
    /// In the order they were asked for.
    pub own: Vec<Own>,
}

/// What one user's feed is made of, but for what all share.
#[derive(Clone, Debug, Default)]
pub struct Own {
    pub slate: Option<Bytes>,
    /// The latest [`SEEN`] items, latest first.
    pub seen: Vec<(String, f64)>,
}

/// The keys of [`Own`].
#[derive(Clone, Debug)]
pub struct OwnKeys {
    pub slate: String,
    pub seen: String,
}

/// What lies under several keys, in the order they were asked for.
#[derive(Clone, Debug, Default)]
pub struct Many {
    pub values: Vec<Option<Bytes>>,
    pub fields: Vec<Option<Fields>>,
}

/// The same with one field of each hash.
#[derive(Clone, Debug, Default)]
pub struct ManyOf {
    pub values: Vec<Option<Bytes>>,
    pub field: Vec<Option<String>>,
}

/// Something in the store that is not as it was written is as good as none where an answer can do without it: it is counted, and told to
/// the operator.
pub fn readable<T>(what: &str, read: Result<T, LayoutError>) -> Option<T> {
    let warn = |error: &LayoutError| {
        metrics::counter!(STORE_ERRORS).increment(1);
        tracing::warn!(%error, "{what} cannot be read; the answer does without it");
    };
    read.inspect_err(warn).ok()
}

/// How many of the latest seen items a feed is filtered by; older ones are gone from the slate itself.
pub const SEEN: usize = 100;

/// A store that can be read. Keys are whole keys, with the prefix.
pub trait Reader: Send + Sync {
    /// What the store is called in answers about it.
    fn name(&self) -> &'static str;

    /// The binary value of a key.
    fn value<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Bytes>>;

    /// The hash of a key.
    fn fields<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Fields>>;

    /// The highest `limit` members of a sorted set, highest first.
    fn ranked<'a>(&'a self, key: &'a str, limit: usize) -> Answer<'a, Vec<(String, f64)>>;

    /// The highest `limit` members of each of several sorted sets, in the order they were asked for, in one round trip.
    fn several<'a>(&'a self, keys: &'a [String], limit: usize) -> Answer<'a, Vec<Vec<(String, f64)>>>;

    /// The binary values of some keys and the hashes of others, in one round trip.
    fn many<'a>(&'a self, values: &'a [String], hashes: &'a [String]) -> Answer<'a, Many>;

    /// The binary values of some keys and one field of the hashes of others, in one round trip.
    fn many_of<'a>(&'a self, values: &'a [String], hashes: &'a [String], field: &'a str) -> Answer<'a, ManyOf>;

    /// The first bytes of the binary values of some keys, at most so many, in one round trip.
    fn starts<'a>(&'a self, values: &'a [String], bytes: usize) -> Answer<'a, Vec<Option<Bytes>>>;

    /// How far the answers have come; the default mark when nothing was ever applied.
    fn applied(&self) -> Answer<'_, Applied>;

    /// What the feeds of these users are made of, in one round trip.
    fn own<'a>(&'a self, users: &'a [OwnKeys]) -> Answer<'a, Vec<Own>>;

    /// The same, and the mark.
    fn feeds<'a>(&'a self, users: &'a [OwnKeys]) -> Answer<'a, Parts>;

    /// Waits until the mark is another one than `last`, and gives it. The caller bounds the wait.
    fn moved<'a>(&'a self, last: &'a Applied) -> Answer<'a, Applied>;

    /// Number of keys by family, where the store can say it without a scan over the wire. May take long: not for a thread that
    /// answers requests.
    fn sizes(&self) -> Option<Sizes> {
        None
    }
}
