//! `overdrive replay`: recorded files into the live log, as fast as it takes them or paced as they happened. Records of one key
//! arrive in the order of the file; a run that broke off can be repeated, because event ids are the same each time.

use bytes::Bytes;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::Config;
use crate::sources::file::FileSource;
use crate::sources::{Appender, Kind, Params, Place, Record, Role, Source, appender};

/// Records handed to the log at once.
const BATCH: usize = 1000;
/// Batches that may be unconfirmed: enough to hide a broker's round trip.
const IN_FLIGHT: usize = 32;

/// Arguments of `overdrive replay`.
#[derive(clap::Args, Debug, Clone)]
#[command(after_help = "Example: overdrive replay --from testdata/small --to log --speed max")]
pub struct Args {
    /// A .jsonl or .parquet file, or a folder with items.*, users.* and events.*, which go in this order
    #[arg(long)]
    pub from: PathBuf,
    /// Where to: the embedded log, Kafka or Fluvio; left out, whatever [source] kind says
    #[arg(long, value_enum)]
    pub to: Option<To>,
    /// 1: as it happened, 100: a hundred times as fast, max: without waiting
    #[arg(long, default_value = "max")]
    pub speed: Speed,
    /// Stop after this many events; items and users are not counted
    #[arg(long)]
    pub limit: Option<u64>,
}

/// Which log is written.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    Log,
    Kafka,
    Fluvio,
}

/// How many times faster than it happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    Max,
    Times(f64),
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            _ if text == "max" => Ok(Speed::Max),
            Ok(times) if times.is_finite() && times > 0.0 => Ok(Speed::Times(times)),
            _ => Err(format!("`{text}` is no speed; write max or a number above 0, for instance 100")),
        }
    }
}

/// Replays and tells the progress. An error says how far it came.
pub fn run(args: Args, config: &Config) -> Result<(), String> {
    let kind = args.to.map_or(config.source.kind, |to| match to {
        To::Log => Kind::Log,
        To::Kafka => Kind::Kafka,
        To::Fluvio => Kind::Fluvio,
    });
    let file = FileSource::open(&args.from).map_err(|e| e.to_string())?;
    let source = Params { kind, ..config.source.clone() };
    let appender = appender(&source, &config.log, &config.kafka, &config.fluvio, &config.engine.state_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("cannot start a runtime: {e}"))?;
    let mut replay = Replay::new(file, appender, args);
    let done = runtime.block_on(replay.all());
    replay.tell_end(kind, done.is_ok());
    done
}

struct Replay {
    file: FileSource,
    appender: Arc<dyn Appender>,
    args: Args,
    pace: Option<Pace>,
    in_flight: JoinSet<Result<(Role, usize), String>>,
    sent: BTreeMap<Role, u64>,
    accepted: BTreeMap<Role, u64>,
    bar: ProgressBar,
}

impl Replay {
    fn new(file: FileSource, appender: Arc<dyn Appender>, args: Args) -> Self {
        let pace = match args.speed {
            Speed::Max => None,
            Speed::Times(speed) => Some(Pace { speed, began: None }),
        };
        let (sent, accepted, bar) = (BTreeMap::new(), BTreeMap::new(), progress_bar());
        Self { file, appender, args, pace, in_flight: JoinSet::new(), sent, accepted, bar }
    }

    async fn all(&mut self) -> Result<(), String> {
        let mut records = Vec::with_capacity(BATCH);
        while !self.file.ended() && self.left() > 0 {
            let max = self.left().min(BATCH as u64) as usize;
            self.file.poll(max, Duration::ZERO, &mut records).map_err(|e| e.to_string())?;
            self.send_all(&mut records).await?;
        }
        while !self.in_flight.is_empty() {
            self.confirm().await?;
        }
        Ok(())
    }

    /// Events that may still be sent.
    fn left(&self) -> u64 {
        let sent = self.sent.get(&Role::Events).copied().unwrap_or(0);
        self.args.limit.map_or(u64::MAX, |limit| limit.saturating_sub(sent))
    }

    /// Sends what was read, cut where the role changes and, when paced, where the next is not due yet.
    async fn send_all(&mut self, records: &mut Vec<Record>) -> Result<(), String> {
        let mut batch: Vec<Record> = Vec::with_capacity(records.len());
        for record in records.drain(..) {
            let due = self.pace.as_mut().and_then(|pace| pace.due(&record)).filter(|due| *due > Instant::now());
            if due.is_some() || batch.first().is_some_and(|first| first.role != record.role) {
                self.send(std::mem::take(&mut batch)).await?;
            }
            if let Some(due) = due {
                self.wait_until(due).await?;
            }
            batch.push(record);
        }
        self.send(batch).await
    }

    /// Waits without neglecting what is in flight: an answer that is an error should end the replay now.
    async fn wait_until(&mut self, due: Instant) -> Result<(), String> {
        while Instant::now() < due {
            if self.in_flight.is_empty() {
                tokio::time::sleep_until(due).await;
            } else if let Ok(confirmed) = tokio::time::timeout_at(due, self.confirm()).await {
                confirmed?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, batch: Vec<Record>) -> Result<(), String> {
        let Some(role) = batch.first().map(|record| record.role) else { return Ok(()) };
        while self.in_flight.len() >= IN_FLIGHT {
            self.confirm().await?;
        }
        *self.sent.entry(role).or_default() += batch.len() as u64;
        let appender = self.appender.clone();
        self.in_flight.spawn(async move { append(&*appender, role, batch).await });
        // Lets the task queue its records before the next batch is read: this is what keeps their order.
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn confirm(&mut self) -> Result<(), String> {
        let Some(done) = self.in_flight.join_next().await else { return Ok(()) };
        let (role, count) = done.map_err(|e| format!("an append broke off: {e}"))??;
        *self.accepted.entry(role).or_default() += count as u64;
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        let accepted: u64 = self.accepted.values().sum();
        let whole = accepted as f64 / self.file.fraction().max(1e-9);
        let events = self.accepted.get(&Role::Events).copied().unwrap_or(0);
        let limit = self.args.limit.map_or(u64::MAX, |limit| limit + accepted - events);
        self.bar.set_length((whole as u64).min(limit).max(accepted));
        self.bar.set_position(accepted);
    }

    fn tell_end(&self, kind: Kind, complete: bool) {
        let took = self.bar.elapsed();
        self.bar.finish_and_clear();
        let counts: Vec<_> = self.accepted.iter().map(|(role, n)| format!("{} {}", HumanCount(*n), role.name())).collect();
        let counts = if counts.is_empty() { "nothing".to_string() } else { counts.join(", ") };
        let seconds = took.as_secs_f64().max(1e-3);
        let rate = self.accepted.values().sum::<u64>() as f64 / seconds;
        let how = if complete { "replayed" } else { "broken off; confirmed so far:" };
        println!("{how} {counts} to {} in {seconds:.1} s ({} records/s)", kind.name(), HumanCount(rate as u64));
    }
}

async fn append(appender: &dyn Appender, role: Role, batch: Vec<Record>) -> Result<(Role, usize), String> {
    let records = batch.into_iter().map(|record| (record.key.unwrap_or_default(), record.payload)).collect::<Vec<(Bytes, _)>>();
    let places: Vec<Place> = appender.append(role, records).await?;
    Ok((role, places.len()))
}

fn progress_bar() -> ProgressBar {
    let style = "{bar:30} {human_pos}/~{human_len} records, {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(style).expect("a template that a test has seen");
    ProgressBar::new(0).with_style(style)
}

/// When each event is due: the first one now, the others as far behind it as they happened, divided by the speed.
struct Pace {
    speed: f64,
    began: Option<(Instant, i64)>,
}

impl Pace {
    /// `None`: at once. Items and users are not waited for, nor is an event whose time cannot be read.
    fn due(&mut self, record: &Record) -> Option<Instant> {
        let at = (record.role == Role::Events).then(|| event_time(record.payload.as_deref()?)).flatten()?;
        let (began, first) = *self.began.get_or_insert_with(|| (Instant::now(), at));
        let behind = (at - first).max(0) as f64 / self.speed;
        began.checked_add(Duration::from_millis(behind as u64))
    }
}

#[derive(Deserialize)]
struct Timed {
    #[serde(alias = "timestamp", alias = "Timestamp")]
    ts: Moment,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Moment {
    Millis(i64),
    Text(String),
}

fn event_time(payload: &[u8]) -> Option<i64> {
    match serde_json::from_slice::<Timed>(payload).ok()?.ts {
        Moment::Millis(ms) => Some(ms),
        Moment::Text(text) => text.parse().ok().or_else(|| {
            let at = OffsetDateTime::parse(&text, &Iso8601::DEFAULT).ok()?;
            i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds() {
        assert_eq!("max".parse(), Ok(Speed::Max));
        assert_eq!("100".parse(), Ok(Speed::Times(100.0)));
        for wrong in ["0", "-1", "fast", "inf", "NaN", ""] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn event_times_as_they_are_sent() {
        assert_eq!(event_time(br#"{"ts":1763600000123}"#), Some(1_763_600_000_123));
        assert_eq!(event_time(br#"{"ts":"1763600000123"}"#), Some(1_763_600_000_123));
        assert_eq!(event_time(br#"{"timestamp":"2025-11-20T00:53:20.123Z"}"#), Some(1_763_600_000_123));
        assert_eq!(event_time(br#"{"ts":null}"#), None);
        assert_eq!(event_time(b"x"), None);
    }

    #[tokio::test]
    async fn an_event_is_due_as_far_behind_the_first_as_it_happened() {
        let record = |role, ts: i64| Record {
            role,
            partition: 0,
            offset: 0,
            key: None,
            payload: Some(format!(r#"{{"ts":{ts}}}"#).into()),
            accepted_ms: 0,
        };
        let mut pace = Pace { speed: 100.0, began: None };
        assert_eq!(pace.due(&record(Role::Items, 5)), None);
        let first = pace.due(&record(Role::Events, 1_000)).expect("has a time");
        assert_eq!(pace.due(&record(Role::Events, 61_000)), Some(first + Duration::from_millis(600)));
        assert_eq!(pace.due(&record(Role::Events, 400)), Some(first), "late ones at once");
    }

    #[test]
    fn the_bar_has_a_template_that_parses() {
        assert_eq!(progress_bar().position(), 0);
    }
}
