//! `overdrive generate`: a made-up world into files or the live log. The catalogue goes first, then the events in the order in
//! which they are sent, then `truth.json`: what only the maker knows. The same arguments give the same bytes.

use arrow::array::{ArrayRef, Float32Builder, Int64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::runtime::Runtime;

use crate::codec::{json, moment};
use crate::config::Config;
use crate::model::time::Millis;
use crate::sources::synthetic::{Events, Params, Row, World};
use crate::sources::{Appender, Kind, Role, appender};

/// Records handed to the log at once.
const BATCH: usize = 1000;
/// Rows that become one group of a Parquet file.
const GROUP: usize = 1 << 16;
/// Records between two updates of the progress.
const STEP: u64 = 1 << 13;

/// Arguments of `overdrive generate`.
#[derive(clap::Args, Debug, Clone)]
pub struct Args {
    /// Records of the stream; 100k and 5M are understood
    #[arg(long, default_value = "100k", value_parser = count)]
    pub events: u64,
    /// How many users there are
    #[arg(long, default_value = "8000", value_parser = small_count)]
    pub users: u32,
    /// How many items there are
    #[arg(long, default_value = "5000", value_parser = small_count)]
    pub items: u32,
    /// How long the stream lasts
    #[arg(long, default_value_t = 10.0)]
    pub days: f64,
    /// The same seed and sizes give the same bytes
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// When it begins: now, now-10d, ISO 8601, or milliseconds since 1970
    #[arg(long, default_value = "2023-11-14T22:13:20Z")]
    pub start: String,
    /// Categories of items and taste
    #[arg(long, default_value_t = 32)]
    pub categories: u32,
    /// Regions of users and items, at most 12
    #[arg(long, default_value_t = 8)]
    pub regions: u32,
    /// Share of plays that follow a planted companion of the item before
    #[arg(long, default_value_t = 0.15)]
    pub kap: f64,
    /// Share of plays that follow the crowd
    #[arg(long, default_value_t = 0.2)]
    pub lam: f64,
    /// Hours between two drifts of a user's taste, on average
    #[arg(long, default_value_t = 48.0)]
    pub drift_h: f64,
    /// Share of records that are broken on purpose
    #[arg(long, default_value_t = 0.0)]
    pub malformed: f64,
    /// Share of records that repeat an earlier one
    #[arg(long, default_value_t = 0.0)]
    pub duplicates: f64,
    /// Share of records that tell of something 25 to 72 hours ago
    #[arg(long, default_value_t = 0.0)]
    pub late: f64,
    /// How many plays the best possible ranking is scored on, for truth.json
    #[arg(long, default_value = "20k", value_parser = small_count)]
    pub oracle: u32,
    /// What to write: files in --out, the embedded log, or Kafka
    #[arg(long, value_enum, default_value = "jsonl")]
    pub to: To,
    /// The folder for events.*, items.jsonl, users.jsonl and truth.json
    #[arg(long, default_value = "synthetic")]
    pub out: PathBuf,
}

/// Where the records go.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// events.jsonl: a payload a line
    Jsonl,
    /// events.parquet: user, item, kind, timestamp_ms, value, event_id
    Parquet,
    /// The embedded log under state_dir
    Log,
    /// The topics of [kafka]
    Kafka,
    /// The topics of [fluvio]
    Fluvio,
}

impl Args {
    /// The world asked for; `now` in milliseconds since 1970.
    fn params(&self, now: Millis) -> Result<Params, String> {
        if self.to == To::Parquet && self.malformed > 0.0 {
            return Err("a Parquet file cannot hold malformed records; write --to jsonl, or leave --malformed out".into());
        }
        Ok(Params {
            events: self.events,
            users: self.users,
            items: self.items,
            days: self.days,
            seed: self.seed,
            start: start(&self.start, now)?,
            categories: self.categories,
            regions: self.regions,
            kap: self.kap,
            lam: self.lam,
            drift_h: self.drift_h,
            malformed: self.malformed,
            duplicates: self.duplicates,
            late: self.late,
            oracle: self.oracle,
        })
    }
}

/// `now`, `now-10d`, or a moment.
fn start(text: &str, now: Millis) -> Result<Millis, String> {
    match text.strip_prefix("now") {
        Some("") => Ok(now),
        Some(ago) => {
            let ago = ago.strip_prefix('-').ok_or_else(|| format!("start `{text}` is not understood; write now or now-10d"))?;
            let ago = humantime::parse_duration(ago).map_err(|e| format!("start `{text}`: {e}; write now or now-10d"))?;
            Ok(now - ago.as_millis() as Millis)
        }
        None => moment("start", text),
    }
}

/// `5M` as 5,000,000.
fn count(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'G') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let number = digits.replace('_', "").parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    number.ok_or_else(|| format!("`{text}` is no count; write for instance 100000, 100k or 5M"))
}

fn small_count(text: &str) -> Result<u32, String> {
    count(text)?.try_into().map_err(|_| format!("`{text}` is too many; at most {}", u32::MAX))
}

/// Makes the world, writes it, and says what was written.
pub fn run(args: Args, config: &Config) -> Result<(), String> {
    let since =
        SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| format!("the clock of this machine is before 1970: {e}"))?;
    let world = World::new(args.params(since.as_millis() as Millis)?)?;
    std::fs::create_dir_all(&args.out).map_err(|e| cannot("make the folder", &args.out, e))?;
    let bar = progress_bar(args.events);
    let drawn = match args.to {
        To::Jsonl => to_lines(&world, &args.out, &bar),
        To::Parquet => to_parquet(&world, &args.out, &bar),
        To::Log => produce(&world, &*live(Kind::Log, config)?, &bar),
        To::Kafka => produce(&world, &*live(Kind::Kafka, config)?, &bar),
        To::Fluvio => produce(&world, &*live(Kind::Fluvio, config)?, &bar),
    }?;
    let truth = args.out.join("truth.json");
    let mut file = create(&truth)?;
    serde_json::to_writer_pretty(&mut file, &world.truth(&drawn)).map_err(|e| cannot("write", &truth, e))?;
    file.flush().map_err(|e| cannot("write", &truth, e))?;
    bar.finish_and_clear();
    tell(&args, &drawn, &bar)
}

fn live(kind: Kind, config: &Config) -> Result<Arc<dyn Appender>, String> {
    let source = crate::sources::Params { kind, ..config.source.clone() };
    appender(&source, &config.log, &config.kafka, &config.fluvio, &config.engine.state_dir)
}

fn tell(args: &Args, drawn: &Events, bar: &ProgressBar) -> Result<(), String> {
    let counts = drawn.counts();
    let wrote = HumanCount(counts.all);
    let besides = match args.to {
        To::Jsonl | To::Parquet => "",
        To::Log => " to the embedded log, and truth.json",
        To::Kafka => " to Kafka, and truth.json",
        To::Fluvio => " to Fluvio, and truth.json",
    };
    let told = format!(
        "{wrote} events ({} malformed, {} duplicates, {} late), {} items, {} users{besides} in {} ({})\n",
        counts.malformed,
        counts.duplicates,
        counts.late,
        args.items,
        args.users,
        args.out.display(),
        HumanDuration(bar.elapsed()),
    );
    super::say(&told)
}

fn progress_bar(events: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32} {human_pos} of {human_len} events  {per_sec}  {eta} left");
    ProgressBar::new(events).with_style(style.expect("a template that parses"))
}

/// Draws the whole stream.
fn pour<'w>(world: &'w World, bar: &ProgressBar, mut each: impl FnMut(&Row) -> Result<(), String>) -> Result<Events<'w>, String> {
    let mut events = world.events();
    while let Some(row) = events.next() {
        each(&row)?;
        if events.counts().all.is_multiple_of(STEP) {
            bar.set_position(events.counts().all);
        }
    }
    Ok(events)
}

fn to_lines<'w>(world: &'w World, out: &Path, bar: &ProgressBar) -> Result<Events<'w>, String> {
    catalogue_lines(world, out)?;
    let path = out.join("events.jsonl");
    let mut file = create(&path)?;
    let mut line = Vec::with_capacity(512);
    let drawn = pour(world, bar, |row| {
        line.clear();
        world.write(row, &mut line);
        line.push(b'\n');
        file.write_all(&line).map_err(|e| cannot("write", &path, e))
    })?;
    file.flush().map_err(|e| cannot("write", &path, e))?;
    Ok(drawn)
}

fn catalogue_lines(world: &World, out: &Path) -> Result<(), String> {
    write_lines(&out.join("items.jsonl"), world.items())?;
    write_lines(&out.join("users.jsonl"), world.users())
}

fn write_lines<T: Serialize>(path: &Path, rows: impl Iterator<Item = T>) -> Result<(), String> {
    let mut file = create(path)?;
    let mut line = Vec::with_capacity(512);
    for row in rows {
        line.clear();
        json::write(&row, &mut line);
        line.push(b'\n');
        file.write_all(&line).map_err(|e| cannot("write", path, e))?;
    }
    file.flush().map_err(|e| cannot("write", path, e))
}

fn create(path: &Path) -> Result<BufWriter<File>, String> {
    File::create(path).map(|file| BufWriter::with_capacity(1 << 18, file)).map_err(|e| cannot("create", path, e))
}

fn cannot(what: &str, path: &Path, error: impl std::fmt::Display) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

/// The columns of a group of rows.
#[derive(Default)]
struct Columns {
    rows: usize,
    user: StringBuilder,
    item: StringBuilder,
    kind: StringBuilder,
    timestamp_ms: Int64Builder,
    value: Float32Builder,
    event_id: StringBuilder,
}

impl Columns {
    fn push(&mut self, world: &World, row: &Row) {
        let wire = world.wire(row);
        self.rows += 1;
        self.user.append_value(&wire.user_id);
        self.item.append_value(&wire.item_id);
        self.kind.append_value(wire.kind);
        self.timestamp_ms.append_value(wire.ts);
        self.value.append_option(wire.value.map(|v| v as f32));
        self.event_id.append_option(wire.event_id.as_deref());
    }

    fn schema() -> Arc<Schema> {
        let text = |name| Field::new(name, DataType::Utf8, false);
        let number = |name, kind, nullable| Field::new(name, kind, nullable);
        Arc::new(Schema::new(vec![
            text("user"),
            text("item"),
            text("kind"),
            number("timestamp_ms", DataType::Int64, false),
            number("value", DataType::Float32, true),
            text("event_id"),
        ]))
    }

    /// The rows so far; none are left.
    fn take(&mut self) -> RecordBatch {
        self.rows = 0;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.user.finish()),
            Arc::new(self.item.finish()),
            Arc::new(self.kind.finish()),
            Arc::new(self.timestamp_ms.finish()),
            Arc::new(self.value.finish()),
            Arc::new(self.event_id.finish()),
        ];
        RecordBatch::try_new(Self::schema(), columns).expect("a value is pushed to every column, of the schema's types")
    }
}

/// The catalogue is nested and goes into lines, the events into one table.
fn to_parquet<'w>(world: &'w World, out: &Path, bar: &ProgressBar) -> Result<Events<'w>, String> {
    catalogue_lines(world, out)?;
    let path = out.join("events.parquet");
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(Default::default())).build();
    let writer = ArrowWriter::try_new(create(&path)?, Columns::schema(), Some(properties));
    let mut writer = writer.map_err(|e| cannot("write", &path, e))?;
    let mut columns = Columns::default();
    let drawn = pour(world, bar, |row| {
        columns.push(world, row);
        if columns.rows < GROUP {
            return Ok(());
        }
        writer.write(&columns.take()).map_err(|e| cannot("write", &path, e))
    })?;
    writer.write(&columns.take()).map_err(|e| cannot("write", &path, e))?;
    writer.close().map_err(|e| cannot("write", &path, e))?;
    Ok(drawn)
}

/// Appends the catalogue, then the events, in order.
fn produce<'w>(world: &'w World, log: &dyn Appender, bar: &ProgressBar) -> Result<Events<'w>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("cannot start a runtime: {e}"))?;
    let mut items = Batch::new(&runtime, log, Role::Items);
    for item in world.items() {
        items.push(&item.item_id, json::bytes(&item))?;
    }
    items.send()?;
    let mut users = Batch::new(&runtime, log, Role::Users);
    for user in world.users() {
        users.push(&user.user_id, json::bytes(&user))?;
    }
    users.send()?;
    let mut events = Batch::new(&runtime, log, Role::Events);
    let drawn = pour(world, bar, |row| {
        let mut payload = Vec::with_capacity(160);
        world.write(row, &mut payload);
        events.push(world.user_name(row.user), payload)
    })?;
    events.send()?;
    Ok(drawn)
}

/// Records on their way to the log.
struct Batch<'a> {
    runtime: &'a Runtime,
    log: &'a dyn Appender,
    role: Role,
    records: Vec<(Bytes, Option<Bytes>)>,
    sent: usize,
}

impl<'a> Batch<'a> {
    fn new(runtime: &'a Runtime, log: &'a dyn Appender, role: Role) -> Self {
        Self { runtime, log, role, records: Vec::with_capacity(BATCH), sent: 0 }
    }

    fn push(&mut self, key: &str, payload: Vec<u8>) -> Result<(), String> {
        self.records.push((Bytes::copy_from_slice(key.as_bytes()), Some(payload.into())));
        if self.records.len() < BATCH { Ok(()) } else { self.send() }
    }

    fn send(&mut self) -> Result<(), String> {
        let records = std::mem::replace(&mut self.records, Vec::with_capacity(BATCH));
        let count = records.len();
        if count > 0 {
            let answer = self.runtime.block_on(self.log.append(self.role, records));
            answer.map_err(|e| format!("after {} {} records: {e}", self.sent, self.role.name()))?;
            self.sent += count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_as_people_write_them() {
        assert_eq!(count("100000"), Ok(100_000));
        assert_eq!(count("1_000"), Ok(1_000));
        assert_eq!(count("20k"), Ok(20_000));
        assert_eq!(count("5M"), Ok(5_000_000));
        assert_eq!(count("2G"), Ok(2_000_000_000));
        for wrong in ["", "k", "-1", "1.5M", "many", "99999999999G"] {
            assert!(count(wrong).expect_err(wrong).contains("is no count"), "{wrong}");
        }
        assert!(small_count("5G").expect_err("beyond 32 bits").contains("too many"));
    }

    #[test]
    fn starts_as_people_write_them() {
        let now = 1_763_600_000_000;
        assert_eq!(start("now", now), Ok(now));
        assert_eq!(start("now-10d", now), Ok(now - 864_000_000));
        assert_eq!(start("now-1h 30m", now), Ok(now - 5_400_000));
        assert_eq!(start("2023-11-14T22:13:20Z", now), Ok(1_700_000_000_000));
        assert_eq!(start("1700000000000", now), Ok(1_700_000_000_000));
        for wrong in ["now+1d", "now-", "soon"] {
            assert!(start(wrong, now).is_err(), "{wrong}");
        }
    }
}
