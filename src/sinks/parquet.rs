//! A folder of Parquet files that name users. A file is there whole or not at all; what a crash took before it was a file is lost; old files
//! go when all are more than a limit; and users can be taken out of every file.

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, Schema, UInt64Type};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::jsonl::Undelivered;
use crate::model::UserId;
use crate::model::forget::Leavers;

pub mod log;
pub mod table;

/// All files together; beyond it the oldest go.
const MOST_BYTES: u64 = 1 << 30;
const MOST_FILES: usize = 10_000;
/// What is not yet a file.
const UNFINISHED: &str = "unfinished";

/// A folder that one thread writes to.
pub struct Folder {
    path: PathBuf,
    /// Files so far: two of the same epochs are two.
    written: u64,
    fails: bool,
}

impl Folder {
    /// Made if it is not there; what a crash left half written goes.
    pub fn open(path: PathBuf) -> Result<Self, Undelivered> {
        fs::create_dir_all(&path).map_err(|e| Undelivered(format!("cannot create {}: {e}", path.display())))?;
        clear(&path).map_err(Undelivered)?;
        Ok(Self { path, written: 0, fails: false })
    }

    /// Makes a file of rows of these epochs, if there are any. One that cannot be written is told once, and its rows are lost.
    pub fn put(&mut self, (first, last): (u64, u64), batch: &RecordBatch) {
        if batch.num_rows() == 0 {
            return;
        }
        let run = std::process::id();
        let path = self.path.join(format!("{first:020}-{last:020}-{run}-{}.parquet", self.written));
        self.written += 1;
        let written = write(&path, batch.schema(), std::slice::from_ref(batch)).and_then(|()| make_room(&self.path));
        if let Err(reason) = &written
            && !self.fails
        {
            tracing::warn!(reason, "rows could not be written; they are lost until this ends");
        }
        self.fails = written.is_err();
    }

    /// Takes users out of every file; yields how many rows that were.
    pub fn erase(&self, leavers: &Leavers) -> Result<u64, String> {
        erase(&self.path, leavers)
    }
}

/// Takes users out of every file of a folder that need not be there; yields how many rows that were.
pub fn erase(folder: &Path, leavers: &Leavers) -> Result<u64, String> {
    clear(folder)?;
    files(folder)?.iter().map(|path| erase_from(path, leavers)).sum()
}

/// The files, the oldest first.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    listed(folder, "parquet")
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
fn erase_from(path: &Path, leavers: &Leavers) -> Result<u64, String> {
    let named = |e: &dyn std::fmt::Display| format!("{} cannot be read: {e}; repair or delete it", path.display());
    let file = File::open(path).map_err(|e| named(&e))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| named(&e))?;
    let schema = builder.schema().clone(); // an old file keeps its own
    let reader = builder.build().map_err(|e| named(&e))?;
    let (mut kept, mut gone) = (Vec::new(), 0);
    for batch in reader {
        let batch = batch.map_err(|e| named(&e))?;
        let stays = stays(&batch, leavers).ok_or_else(|| named(&"it lacks the columns that say whose rows are whose"))?;
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
