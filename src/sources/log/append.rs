//! Writing the embedded log: whole batches, under a lock that all processes respect. A whole record is never taken back, not
//! even when the rest of its batch failed, because a reader may have passed it.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::bell::Bell;
use super::segment::{self, Cursor};
use super::{Locked, Params, frame, lock_file, name, partition_folder, prepare};
use crate::sources::{Appender, Pending, Place, Role, SourceError, now_ms, partition_of};

/// Appends to every role and partition; clones share one handle.
#[derive(Clone)]
pub struct LogAppender {
    /// One batch at a time: a partition's bytes must lie in the order of its offsets.
    inner: Arc<Mutex<Inner>>,
    fsync: bool,
}

struct Inner {
    dir: PathBuf,
    params: Params,
    lock: Arc<File>,
    bell: Arc<Bell>,
    tails: BTreeMap<(Role, u32), Tail>,
}

/// The end of a partition as this handle knows it; another process may have gone on since.
struct Tail {
    folder: PathBuf,
    name: String,
    end: Cursor,
    file: File,
    file_base: u64,
}

impl LogAppender {
    /// Opens the log in `dir` (made if it is not there). An error when it has more partitions than `params` says.
    pub fn open(dir: &Path, params: &Params) -> Result<Self, String> {
        prepare(dir, params)?;
        let lock = lock_file(dir).map_err(|e| format!("cannot open the lock of the log in {}: {e}", dir.display()))?;
        let bell = Bell::of(dir).map_err(|e| format!("cannot find {}: {e}", dir.display()))?;
        let (dir, params, fsync) = (dir.to_path_buf(), params.clone(), params.fsync);
        let inner = Inner { dir, params, lock: Arc::new(lock), bell, tails: BTreeMap::new() };
        Ok(Self { inner: Arc::new(Mutex::new(inner)), fsync })
    }

    /// Appends all records in order and answers where each came to lie. Blocks: for the file writes, for another process that
    /// is appending, and with `fsync` for the disk. On an error some of the records may have been appended.
    pub fn append_now(&self, role: Role, records: &[(Bytes, Option<Bytes>)]) -> Result<Vec<Place>, String> {
        self.inner.lock().map_err(|_| "an earlier append panicked; restart the process".to_string())?.append(role, records)
    }
}

impl Appender for LogAppender {
    /// Without `fsync` the write goes to the page cache and is over in microseconds, sooner than a hand-over to another thread:
    /// it is done in place. With `fsync` the disk is waited for, on a thread that may.
    fn append(&self, role: Role, records: Vec<(Bytes, Option<Bytes>)>) -> Pending<'_, Result<Vec<Place>, String>> {
        Box::pin(async move {
            if !self.fsync || tokio::runtime::Handle::try_current().is_err() {
                return self.append_now(role, &records);
            }
            let appender = self.clone();
            let done = tokio::task::spawn_blocking(move || appender.append_now(role, &records)).await;
            done.map_err(|e| format!("appending to the log broke off: {e}"))?
        })
    }
}

impl Inner {
    fn append(&mut self, role: Role, records: &[(Bytes, Option<Bytes>)]) -> Result<Vec<Place>, String> {
        let batches = self.encode(role, records)?;
        let lock = self.lock.clone();
        let _locked = Locked::new(&lock).map_err(|e| self.failed(&e))?;
        let mut first_offsets = BTreeMap::new();
        for (partition, (count, bytes)) in batches {
            first_offsets.insert(partition, self.write(role, partition, count, &bytes)?);
        }
        self.bell.ring();
        Ok(self.places(role, records, first_offsets))
    }

    /// The records of each partition as bytes, with how many they are.
    fn encode(&self, role: Role, records: &[(Bytes, Option<Bytes>)]) -> Result<BTreeMap<u32, (u64, Vec<u8>)>, String> {
        let accepted_ms = now_ms();
        let mut batches: BTreeMap<u32, (u64, Vec<u8>)> = BTreeMap::new();
        for (key, payload) in records {
            let length = frame::body_length(key, payload.as_deref());
            if length > frame::MAX_BODY {
                return Err(format!("a record of {length} bytes is too long for the log; the most is {}", frame::MAX_BODY));
            }
            let (count, bytes) = batches.entry(self.partition(role, key)).or_default();
            *count += 1;
            frame::encode(accepted_ms, key, payload.as_deref(), bytes);
        }
        Ok(batches)
    }

    fn partition(&self, role: Role, key: &[u8]) -> u32 {
        if role == Role::Events { partition_of(key, self.params.partitions) } else { 0 }
    }

    fn places(&self, role: Role, records: &[(Bytes, Option<Bytes>)], mut next: BTreeMap<u32, u64>) -> Vec<Place> {
        let place = |(key, _): &(Bytes, Option<Bytes>)| {
            let partition = self.partition(role, key);
            let next = next.get_mut(&partition).expect("every record's partition was written");
            *next += 1;
            (partition, *next - 1)
        };
        records.iter().map(place).collect()
    }

    /// Appends `count` records; answers the offset of the first.
    fn write(&mut self, role: Role, partition: u32, count: u64, bytes: &[u8]) -> Result<u64, String> {
        let written = self.try_write(role, partition, count, bytes);
        if written.is_err() {
            // Part of it may be on disk: the next append looks at the partition anew.
            self.tails.remove(&(role, partition));
        }
        written.map_err(|e| self.failed(&e))
    }

    fn try_write(&mut self, role: Role, partition: u32, count: u64, bytes: &[u8]) -> Result<u64, SourceError> {
        let Params { segment_bytes, fsync, .. } = self.params;
        let tail = match self.tails.entry((role, partition)) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(unknown) => unknown.insert(Tail::open(&self.dir, role, partition)?),
        };
        tail.catch_up()?;
        if tail.end.at() >= segment_bytes {
            tail.begin_segment(fsync)?;
        }
        tail.append(count, bytes, fsync)
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> String {
        format!("cannot append to the log in {}: {error}", self.dir.display())
    }
}

/// Begins a new segment of a partition, so that nobody appends any more to those there are.
pub(super) fn begin_segment(dir: &Path, role: Role, partition: u32) -> Result<(), SourceError> {
    let lock = lock_file(dir).map_err(retry)?;
    let _locked = Locked::new(&lock).map_err(retry)?;
    let mut tail = Tail::open(dir, role, partition)?;
    tail.catch_up()?;
    if tail.end.next_offset() > tail.end.base() { tail.begin_segment(true) } else { Ok(()) }
}

impl Tail {
    fn open(dir: &Path, role: Role, partition: u32) -> Result<Self, SourceError> {
        let (folder, name) = (partition_folder(dir, role, partition), name(role, partition));
        let end = Cursor::open_end(&folder, &name)?;
        let (file, file_base) = (open_for_writing(&folder, end.base())?, end.base());
        Ok(Self { folder, name, end, file, file_base })
    }

    /// To the end of what others appended, cutting off what a crash left half written.
    fn catch_up(&mut self) -> Result<(), SourceError> {
        while self.end.read()?.is_some() {}
        if self.file_base != self.end.base() {
            self.file = open_for_writing(&self.folder, self.end.base())?;
            self.file_base = self.end.base();
        }
        let length = self.file.metadata().map_err(retry)?.len();
        if length > self.end.at() {
            let (offset, bytes) = (self.end.next_offset(), length - self.end.at());
            tracing::warn!(partition = self.name, offset, bytes, "cut off a record that a crash left half written");
            self.file.set_len(self.end.at()).map_err(retry)?;
        }
        Ok(())
    }

    fn begin_segment(&mut self, fsync: bool) -> Result<(), SourceError> {
        let base = self.end.next_offset();
        File::create_new(segment::path(&self.folder, base)).map_err(retry)?;
        if fsync {
            // The name of the new file must survive as well.
            File::open(&self.folder).and_then(|f| f.sync_all()).map_err(retry)?;
        }
        self.end.enter_next()?;
        self.file = open_for_writing(&self.folder, base)?;
        self.file_base = base;
        Ok(())
    }

    fn append(&mut self, count: u64, bytes: &[u8], fsync: bool) -> Result<u64, SourceError> {
        let first = self.end.next_offset();
        self.file.seek(SeekFrom::Start(self.end.at())).map_err(retry)?;
        self.file.write_all(bytes).map_err(retry)?;
        if fsync {
            self.file.sync_data().map_err(retry)?;
        }
        self.end.wrote(count, bytes.len() as u64);
        Ok(first)
    }
}

fn open_for_writing(folder: &Path, base: u64) -> Result<File, SourceError> {
    OpenOptions::new().write(true).open(segment::path(folder, base)).map_err(retry)
}

fn retry(error: std::io::Error) -> SourceError {
    SourceError::Retry(format!("{error}; check the disk and the permissions"))
}
