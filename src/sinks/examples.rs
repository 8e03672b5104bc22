//! Examples for training, as Parquet files in `examples/` of the state folder: a row for each candidate, what was known of it before the
//! user took something, and whether it was what they took.
//!
//! ```text
//! epoch  ts_ms  user_id  item_id  taken  <every column of scoring/columns.rs> …  item  tokens  history
//! ```
//! The last three are for towers: ids as hashes of the item, of what it is like in tokens, and, on rows that were taken, of what the user took before.
//!
//! A file is there whole or not at all. After a crash the last epochs are written again, so a reader keeps one of two rows with the same
//! epoch, time, user and item; what a crash took before it was a file is lost, and so is what comes faster than it can be written:
//! examples are a sample. Old files go when all are more than a limit.

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, Float32Array, Int64Array, Int64Builder, ListBuilder, RecordBatch, StringArray, UInt64Array,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt64Type};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::jsonl::Undelivered;
use crate::model::forget::{Eraser, Leavers};
use crate::model::{Example, Names, UserId};
use crate::scoring::columns::{self, COLUMNS};

pub mod read;

/// A file is closed at so many rows, …
const ROWS: usize = 50_000;
/// … or after so long.
const AGE: Duration = Duration::from_secs(30);
/// All files together; beyond it the oldest go.
const MOST_BYTES: u64 = 1 << 30;
const MOST_FILES: usize = 10_000;
/// What is not yet a file.
const UNFINISHED: &str = "unfinished";
/// What may wait for the thread that writes.
const WAITING: usize = 256;

/// The name of the folder.
pub const FOLDER: &str = "examples";

/// Where examples go. Dropping it writes what waits.
pub struct Examples {
    tx: SyncSender<Told>,
    thread: Option<JoinHandle<()>>,
}

enum Told {
    Example(u64, Arc<Example>),
    Erase(Leavers, SyncSender<Result<u64, String>>),
    Close,
}

impl Examples {
    /// In `state_dir`, with the spelling of ids.
    pub fn open(state_dir: &Path, names: Arc<Names>) -> Result<Self, Undelivered> {
        let folder = state_dir.join(FOLDER);
        fs::create_dir_all(&folder).map_err(|e| Undelivered(format!("cannot create {}: {e}", folder.display())))?;
        clear(&folder).map_err(Undelivered)?;
        let (tx, rx) = sync_channel(WAITING);
        let log = Log { folder, names, waiting: Vec::new(), rows: 0, since: Instant::now(), written: 0, fails: false };
        let thread = std::thread::Builder::new().name("examples".to_string()).spawn(move || log.run(rx));
        let thread = thread.map_err(|e| Undelivered(format!("the thread that writes examples cannot start: {e}")))?;
        Ok(Self { tx, thread: Some(thread) })
    }

    /// Takes an example of an epoch, unless too many wait.
    pub fn offer(&self, epoch: u64, example: Arc<Example>) {
        drop(self.tx.try_send(Told::Example(epoch, example)));
    }

    /// Takes an example of an epoch, and waits where too many wait.
    pub fn take(&self, epoch: u64, example: Arc<Example>) {
        drop(self.tx.send(Told::Example(epoch, example))); // it is taken until this is dropped
    }
}

/// What takes users out of every file of `state_dir`, and out of what waits to become one where the log is open.
pub fn eraser(state_dir: &Path, open: Option<&Examples>) -> Eraser {
    let (folder, tx) = (state_dir.join(FOLDER), open.map(|open| open.tx.clone()));
    Box::new(move |leavers| {
        let (reply, answer) = sync_channel(1);
        let asked = tx.as_ref().is_some_and(|tx| tx.send(Told::Erase(leavers.clone(), reply)).is_ok());
        let answered = if asked { answer.recv().ok() } else { None };
        answered.unwrap_or_else(|| erase_all(&folder, leavers)) // a log that is closed writes no more files
    })
}

impl Drop for Examples {
    fn drop(&mut self) {
        drop(self.tx.send(Told::Close)); // what erases may hold the channel open
        self.thread.take().into_iter().for_each(|thread| _ = thread.join());
    }
}

/// What the thread keeps.
struct Log {
    folder: PathBuf,
    names: Arc<Names>,
    waiting: Vec<(u64, Arc<Example>)>,
    rows: usize,
    /// When the first of those that wait came.
    since: Instant,
    /// Files so far: two of the same epochs are two.
    written: u64,
    fails: bool,
}

impl Log {
    /// Until it is told to close. Whoever waits for an answer then hears that nobody is there any more, for the channel goes with it.
    fn run(mut self, rx: Receiver<Told>) {
        loop {
            match rx.recv_timeout(AGE) {
                Ok(Told::Example(epoch, example)) => self.take(epoch, example),
                Ok(Told::Erase(leavers, reply)) => drop(reply.send(self.erase(&leavers))),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Told::Close) | Err(RecvTimeoutError::Disconnected) => return self.flush(),
            }
            if self.rows >= ROWS || self.since.elapsed() > AGE {
                self.flush();
            }
        }
    }

    fn take(&mut self, epoch: u64, example: Arc<Example>) {
        if self.waiting.is_empty() {
            self.since = Instant::now();
        }
        self.rows += example.candidates.len();
        self.waiting.push((epoch, example));
    }

    /// Makes a file of what waits. One that cannot be written is told once, and its examples are lost.
    fn flush(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.rows = 0;
        let Some(((first, _), (last, _))) = waiting.first().zip(waiting.last()) else { return };
        let run = std::process::id();
        let path = self.folder.join(format!("{first:020}-{last:020}-{run}-{}.parquet", self.written));
        self.written += 1;
        let batch = batch(&waiting, &self.names).filter(|batch| batch.num_rows() > 0);
        let written =
            batch.map_or(Ok(()), |batch| write(&path, Arc::new(schema()), &[batch])).and_then(|()| make_room(&self.folder));
        if let Err(reason) = &written
            && !self.fails
        {
            tracing::warn!(reason, "examples could not be written; they are lost until this ends");
        }
        self.fails = written.is_err();
    }

    fn erase(&mut self, leavers: &Leavers) -> Result<u64, String> {
        self.flush();
        erase_all(&self.folder, leavers)
    }
}

fn erase_all(folder: &Path, leavers: &Leavers) -> Result<u64, String> {
    clear(folder)?;
    files(folder)?.iter().map(|path| erase(path, leavers)).sum()
}

/// The schema of every file.
fn schema() -> Schema {
    let known = [
        ("epoch", DataType::UInt64),
        ("ts_ms", DataType::Int64),
        ("user_id", DataType::Utf8),
        ("item_id", DataType::Utf8),
        ("taken", DataType::Boolean),
    ];
    let known = known.into_iter().map(|(name, of)| Field::new(name, of, false));
    let columns = columns::names().map(|name| Field::new(name, DataType::Float32, false));
    let item = Field::new("item", DataType::Int64, false);
    let for_towers = [item].into_iter().chain(["tokens", "history"].map(|name| Field::new(name, hashes(), false)));
    let fields: Vec<Field> = known.chain(columns).chain(for_towers).collect();
    let schema = HashMap::from([("overdrive.schema".to_string(), columns::SCHEMA.to_string())]);
    Schema::new_with_metadata(fields, schema)
}

/// Ids as towers take them.
fn hashes() -> DataType {
    DataType::new_list(DataType::Int64, false)
}

/// The rows of examples whose users and items have names.
fn batch(examples: &[(u64, Arc<Example>)], names: &Names) -> Option<RecordBatch> {
    let mut rows: Vec<(u64, i64, Arc<str>, Arc<str>, bool)> = Vec::new();
    let mut columns: Vec<Vec<f32>> = vec![Vec::new(); COLUMNS];
    let (mut items, mut tokens, mut histories) = (Vec::new(), list(), list());
    for (epoch, example) in examples {
        let Some(user) = names.users.get(example.user.0) else { continue };
        let candidates = example.candidates.iter().zip(&example.tokens).zip(example.columns.chunks_exact(COLUMNS));
        for (((item, taken), like), values) in candidates {
            let Some(name) = names.items.get(item.0) else { continue };
            rows.push((*epoch, example.at, user.clone(), name, *taken));
            items.push(item.0 as i64);
            put(&mut tokens, like.iter().map(|token| token.0));
            put(&mut histories, example.history.iter().filter(|_| *taken).map(|item| item.0));
            columns.iter_mut().zip(values).for_each(|(column, value)| column.push(*value));
        }
    }
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.2))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.3))),
        Arc::new(rows.iter().map(|row| Some(row.4)).collect::<BooleanArray>()),
    ];
    arrays.extend(columns.into_iter().map(|column| Arc::new(Float32Array::from(column)) as ArrayRef));
    arrays.extend([Arc::new(Int64Array::from(items)) as ArrayRef, Arc::new(tokens.finish()), Arc::new(histories.finish())]);
    RecordBatch::try_new(Arc::new(schema()), arrays).ok()
}

/// Lists of ids.
fn list() -> ListBuilder<Int64Builder> {
    ListBuilder::new(Int64Builder::new()).with_field(Field::new_list_field(DataType::Int64, false))
}

fn put(lists: &mut ListBuilder<Int64Builder>, ids: impl Iterator<Item = u64>) {
    ids.for_each(|id| lists.values().append_value(id as i64));
    lists.append(true);
}

/// A file with these rows, in place of the one before, durably.
fn write(path: &Path, schema: Arc<Schema>, batches: &[RecordBatch]) -> Result<(), String> {
    let named = |e: &dyn std::fmt::Display| format!("{} cannot be written: {e}", path.display());
    let unfinished = path.with_extension(UNFINISHED);
    let file = File::create(&unfinished).map_err(|e| named(&e))?;
    let zstd = Compression::ZSTD(ZstdLevel::try_new(1).map_err(|e| named(&e))?);
    let properties = WriterProperties::builder().set_compression(zstd).build();
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).map_err(|e| named(&e))?;
    batches.iter().try_for_each(|batch| writer.write(batch)).map_err(|e| named(&e))?;
    writer.into_inner().map_err(|e| named(&e))?.sync_all().map_err(|e| named(&e))?;
    fs::rename(&unfinished, path).map_err(|e| named(&e))?;
    sync(path.parent().unwrap_or(Path::new("."))).map_err(|e| named(&e))
}

/// What a folder lists outlives a power cut.
fn sync(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Takes away what a crash left half written.
fn clear(folder: &Path) -> Result<(), String> {
    for path in listed(folder, UNFINISHED)? {
        fs::remove_file(&path).map_err(|e| format!("{} cannot be removed: {e}", path.display()))?;
    }
    Ok(())
}

/// The files, the oldest first.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    listed(folder, "parquet")
}

fn listed(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let unread = |e: std::io::Error| format!("{} cannot be read: {e}", folder.display());
    let paths = fs::read_dir(folder).map_err(unread)?.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(unread)?;
    paths.retain(|path| path.extension().is_some_and(|of| of == extension));
    paths.sort();
    Ok(paths)
}

fn make_room(folder: &Path) -> Result<(), String> {
    let mut bytes = 0;
    for (newer, path) in files(folder)?.into_iter().rev().enumerate() {
        bytes += fs::metadata(&path).map_or(0, |of| of.len());
        if bytes > MOST_BYTES || newer >= MOST_FILES {
            fs::remove_file(&path).map_err(|e| format!("{} cannot be removed: {e}", path.display()))?;
        }
    }
    Ok(())
}

/// Takes users out of a file; yields how many rows that were.
fn erase(path: &Path, leavers: &Leavers) -> Result<u64, String> {
    let named = |e: &dyn std::fmt::Display| format!("{} cannot be read: {e}; repair or delete it", path.display());
    let file = File::open(path).map_err(|e| named(&e))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| named(&e))?;
    let schema = builder.schema().clone(); // an old file keeps its own
    let reader = builder.build().map_err(|e| named(&e))?;
    let (mut kept, mut gone) = (Vec::new(), 0);
    for batch in reader {
        let batch = batch.map_err(|e| named(&e))?;
        let stays = stays(&batch, leavers).ok_or_else(|| named(&"it is no file of examples"))?;
        gone += stays.iter().filter(|stays| *stays == Some(false)).count() as u64;
        kept.push(filter_record_batch(&batch, &stays).map_err(|e| named(&e))?);
    }
    kept.retain(|batch| batch.num_rows() > 0);
    match gone {
        0 => {}
        _ if kept.is_empty() => fs::remove_file(path).map_err(|e| named(&e))?,
        _ => write(path, schema, &kept)?,
    }
    Ok(gone)
}

/// Which rows are not of those who leave.
fn stays(batch: &RecordBatch, leavers: &Leavers) -> Option<BooleanArray> {
    let epochs = batch.column_by_name("epoch")?.as_primitive_opt::<UInt64Type>()?;
    let clocks = batch.column_by_name("ts_ms")?.as_primitive_opt::<Int64Type>()?;
    let users = batch.column_by_name("user_id")?.as_string_opt::<i32>()?;
    // the numbers of epochs may have begun again since
    let leaves = |user, at| leavers.takes_answer(user, epochs.value(at)) || leavers.takes(user, clocks.value(at));
    let stays = |at| !leaves(UserId::of(users.value(at)), at);
    Some((0..batch.num_rows()).map(|at| Some(stays(at))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::forget::Until;
    use crate::model::{ItemId, TokenId};

    fn example(names: &Names, user: &str, first: f32) -> Arc<Example> {
        let user = names.user(user).expect("a new name");
        let item = |name| names.item(name).expect("a new name");
        let columns = (0..2 * COLUMNS).map(|n| first + n as f32).collect();
        let (candidates, history) = (vec![(item("i1"), false), (item("i2"), true)], vec![ItemId(u64::MAX), ItemId(5)]);
        Arc::new(Example { user, at: 77, candidates, columns, history, tokens: vec![vec![TokenId(7)], Vec::new()] })
    }

    fn rows(folder: &Path) -> Vec<(u64, String, String, bool, f32)> {
        let mut rows = Vec::new();
        for path in files(folder).expect("a folder") {
            let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("there")).expect("Parquet");
            assert_eq!(builder.schema().metadata()["overdrive.schema"], columns::SCHEMA);
            for batch in builder.build().expect("Parquet") {
                let batch = batch.expect("whole");
                let text = |name| batch.column_by_name(name).expect(name).as_string::<i32>();
                let last = batch.column_by_name(columns::names().last().expect("some")).expect("the last column");
                let last = last.as_primitive::<arrow::datatypes::Float32Type>();
                let epoch = batch.column_by_name("epoch").expect("it").as_primitive::<UInt64Type>();
                let taken = batch.column_by_name("taken").expect("it").as_boolean();
                let row = |at| {
                    let (user, item) = (text("user_id").value(at).to_string(), text("item_id").value(at).to_string());
                    (epoch.value(at), user, item, taken.value(at), last.value(at))
                };
                rows.extend((0..batch.num_rows()).map(row));
            }
        }
        rows
    }

    #[test]
    fn examples_become_rows_and_forgotten_users_leave_files_and_what_waits() {
        let dir = tempfile::tempdir().expect("a folder");
        let names = Arc::new(Names::default());
        let folder = dir.path().join(FOLDER);
        let row = |epoch, user: &str, item: &str, first: f32, n: usize| {
            (epoch, user.to_string(), item.to_string(), n == 1, first + ((n + 1) * COLUMNS - 1) as f32)
        };
        let log = Examples::open(dir.path(), names.clone()).expect("it opens");
        log.take(5, example(&names, "gone", 0.0));
        log.take(5, example(&names, "stays", 1.0));
        drop(log);
        let of = |user: &str, epoch, first| [row(epoch, user, "i1", first, 0), row(epoch, user, "i2", first, 1)];
        assert_eq!(rows(&folder), [of("gone", 5, 0.0), of("stays", 5, 1.0)].concat());

        let half = folder.join("of-a-crash.unfinished");
        std::fs::write(&half, "gone").expect("there is room");
        let log = Examples::open(dir.path(), names.clone()).expect("it opens again");
        assert!(!half.exists(), "what a crash left may name anybody");
        log.take(8, example(&names, "gone", 2.0));
        log.take(9, example(&names, "gone", 3.0));
        let users = [(UserId::of("gone"), Until { accepted: 0, epoch: 8 })].into();
        let open = eraser(dir.path(), Some(&log));
        assert_eq!(open(&Leavers { users, ..Leavers::default() }), Ok(4));
        drop(log);
        assert_eq!(rows(&folder), [of("stays", 5, 1.0), of("gone", 9, 3.0)].concat());
        for (closed, rows) in [(open, Ok(2)), (eraser(dir.path(), None), Ok(0))] {
            let users = [(UserId::of("gone"), Until { accepted: 0, epoch: 9 })].into();
            assert_eq!(closed(&Leavers { users, ..Leavers::default() }), rows, "of a log that is closed");
        }
    }
}
