//! Where records come from. A source owns its partitions and hands out records with their place; nobody else assigns them.
//!
//! Every source keeps the same promise, checked by one contract test: within a partition offsets ascend, every record is
//! delivered exactly once from the position it was opened at, an error says whether to try again, and opening it again at a
//! recorded offset continues there.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::Secret;
pub use crate::model::epoch::{Positions, TopicIds};
pub use crate::model::interaction::Role;
use crate::model::time::span;

pub mod chained;
pub mod file;
pub mod fluvio;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod log;
mod ranges;
mod security;
pub mod start;
pub mod synthetic;

pub use chained::Chained;
pub use security::{Mechanism, Security};
use start::Start;

/// One record as it lies in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub role: Role,
    pub partition: u32,
    pub offset: u64,
    pub key: Option<Bytes>,
    /// `None`: a deletion, on the compacted topics.
    pub payload: Option<Bytes>,
    /// When the log accepted it, milliseconds since 1970: what freshness is measured from.
    pub accepted_ms: i64,
}

/// Why a source could not deliver.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The cause may pass: ask again.
    #[error("{0}")]
    Retry(String),
    /// Going on would skip or repeat records: stop and tell an operator.
    #[error("{0}")]
    Stop(String),
}

/// Bytes of keys and payloads after which a poll takes no further record: a few hundred large ones are not to fill the memory.
pub const POLL_BYTES: usize = 16 << 20;

/// What a poll may still take.
struct Room {
    records: usize,
    bytes: usize,
}

impl Room {
    /// For so many records.
    fn of(records: usize) -> Self {
        Self { records, bytes: POLL_BYTES }
    }

    /// How many records more.
    fn left(&self) -> usize {
        if self.bytes > 0 { self.records } else { 0 }
    }

    /// Takes one.
    fn take(&mut self, record: Record, into: &mut Vec<Record>) {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        self.records -= 1;
        self.bytes = self.bytes.saturating_sub(len(&record.key) + len(&record.payload));
        into.push(record);
    }
}

/// A stream of records over partitions.
pub trait Source: Send {
    /// Appends what is there to `into`, at most `max` records and past [`POLL_BYTES`] none; waits up to `wait` for the first.
    fn poll(&mut self, max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<(), SourceError>;

    /// Partitions that were found since the last time this was asked, and where they begin.
    fn gained(&mut self) -> Positions {
        Positions::new()
    }

    /// Which topics these are, where the brokers say so: under the name of one there may be another some day.
    fn topics(&self) -> TopicIds {
        TopicIds::new()
    }

    /// Whether there will never be another record (files end, logs do not).
    fn ended(&self) -> bool {
        false
    }

    /// The next offset of every partition: open here to continue.
    fn positions(&self) -> Positions;
}

/// Where an appended record came to lie.
pub type Place = (u32, u64);

/// An answer to come.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A log that can be written: what the shim appends events to.
pub trait Appender: Send + Sync {
    /// Appends all records in order; a record with one key always goes to one partition. Answers when the log has accepted
    /// them (each record's place), or with what went wrong and what to do.
    fn append(&self, role: Role, records: Vec<(Bytes, Option<Bytes>)>) -> Pending<'_, Result<Vec<Place>, String>>;
}

/// The partition of a key: what Kafka's and our own producers agree on.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (xxhash_rust::xxh3::xxh3_64(key) % u64::from(partitions.max(1))) as u32
}

/// The source that `[source]` describes: the live log, behind the backfill file if one is named. `recorded` are the positions to
/// continue at; a live partition that is not in it begins where `[source] start` says.
///
/// The live log is opened first, so that whatever is appended while the file is read lies behind its position: no gap. Record
/// `positions()` before the first poll, or a restart in the middle of the file finds another "latest".
pub fn open(
    source: &Params,
    log: &log::Params,
    kafka: &KafkaParams,
    fluvio: &fluvio::Params,
    state_dir: &Path,
    recorded: &Positions,
) -> Result<Box<dyn Source>, SourceError> {
    let start: Start = source.start.parse().map_err(SourceError::Stop)?;
    let (backfill, live): (Positions, Positions) = recorded.iter().partition(|((_, partition), _)| *partition >= file::PARTITION);
    let live = open_live(source.kind, log, kafka, fluvio, state_dir, start, live)?;
    if source.backfill.is_empty() {
        return Ok(live);
    }
    let file = file::FileSource::open_at(Path::new(&source.backfill), &backfill)?;
    Ok(Box::new(Chained { first: Box::new(file), then: live }))
}

fn open_live(
    kind: Kind,
    log: &log::Params,
    kafka: &KafkaParams,
    fluvio: &fluvio::Params,
    state_dir: &Path,
    start: Start,
    recorded: Positions,
) -> Result<Box<dyn Source>, SourceError> {
    match kind {
        Kind::Log => {
            let dir = log::folder(state_dir);
            let from = start.with(recorded, || log::ends(&dir, log))?;
            Ok(Box::new(log::LogSource::open(&dir, log, from)?))
        }
        #[cfg(feature = "kafka")]
        Kind::Kafka => {
            let from = start.with(recorded, || kafka::ends(kafka))?;
            Ok(Box::new(kafka::KafkaSource::open(kafka, from)?))
        }
        #[cfg(not(feature = "kafka"))]
        Kind::Kafka => Err(SourceError::Stop(no_kafka(kafka))),
        #[cfg(feature = "fluvio")]
        Kind::Fluvio => {
            let from = start.with(recorded, || fluvio::ends(fluvio))?;
            Ok(Box::new(fluvio::open(fluvio, &from)?))
        }
        #[cfg(not(feature = "fluvio"))]
        Kind::Fluvio => Err(SourceError::Stop(no_fluvio(fluvio))),
    }
}

/// Something to append to the live log that `[source] kind` names.
pub fn appender(
    source: &Params,
    log: &log::Params,
    kafka: &KafkaParams,
    fluvio: &fluvio::Params,
    state_dir: &Path,
) -> Result<Arc<dyn Appender>, String> {
    match source.kind {
        Kind::Log => Ok(Arc::new(log::LogAppender::open(&log::folder(state_dir), log)?)),
        #[cfg(feature = "kafka")]
        Kind::Kafka => Ok(Arc::new(kafka::KafkaAppender::open(kafka)?)),
        #[cfg(not(feature = "kafka"))]
        Kind::Kafka => Err(no_kafka(kafka)),
        #[cfg(feature = "fluvio")]
        Kind::Fluvio => Ok(Arc::new(fluvio::FluvioAppender::open(fluvio)?)),
        #[cfg(not(feature = "fluvio"))]
        Kind::Fluvio => Err(no_fluvio(fluvio)),
    }
}

#[cfg(not(feature = "kafka"))]
fn no_kafka(kafka: &KafkaParams) -> String {
    format!("this build cannot reach kafka at {}; build with --features kafka, or set [source] kind to log", kafka.brokers)
}

#[cfg(not(feature = "fluvio"))]
fn no_fluvio(fluvio: &fluvio::Params) -> String {
    format!("this build cannot reach fluvio at {}; build with --features fluvio, or set [source] kind to log", fluvio.endpoint)
}

/// Blocks for an answer, also where an async runtime is running already.
#[cfg(any(feature = "kafka", feature = "fluvio"))]
fn wait_for<T: Send>(answer: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime without I/O needs nothing");
            runtime.block_on(answer)
        });
        waiting.join().expect("waiting for a future does not panic")
    })
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// `Stop` when `start` names a partition that does not exist: it would be left unread without a word.
fn refuse_unknown(start: &Positions, exists: impl Fn(&(Role, u32)) -> bool, place: &str) -> Result<(), SourceError> {
    match start.keys().find(|key| !exists(key)) {
        None => Ok(()),
        Some((role, partition)) => Err(SourceError::Stop(format!(
            "{}/{partition} is to be read, but {place} has no such partition; check [source] start and the number of partitions",
            role.name()
        ))),
    }
}

/// `[source]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub kind: Kind,
    pub backfill: String,
    pub start: String,
}

/// Which log is read live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Log,
    Kafka,
    Fluvio,
}

impl Kind {
    /// The name in settings and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Kafka => "kafka",
            Self::Fluvio => "fluvio",
        }
    }
}

/// `[kafka]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaParams {
    pub brokers: String,
    pub security: Security,
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub sasl_mechanism: Mechanism,
    pub username: String,
    pub password: Secret,
    pub password_file: PathBuf,
    pub events_topic: String,
    pub items_topic: String,
    pub users_topic: String,
    pub control_topic: String,
    pub slates_topic: String,
    pub dead_topic: String,
    pub create_topics: bool,
    pub partitions: u32,
    pub replication: u32,
    #[serde(with = "span")]
    pub topics_every: Duration,
    pub queued_max_kbytes: u32,
    #[serde(with = "span")]
    pub fetch_wait_max: Duration,
    #[serde(with = "span")]
    pub message_timeout: Duration,
}
