//! A partition on disk: a folder of segments, each named by the offset of its first record. `Cursor` walks over their records
//! and sees a record only when all of it is there.
//!
//! A new segment begins exactly where the one before ends, so a file named by the next offset proves that the segment in hand is
//! finished; and nobody ever takes a whole record out of a segment, so what a cursor has passed stays as it was.

use bytes::Bytes;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::frame::{self, Decoded, Frame};
use crate::sources::SourceError;

/// What is read at once: a few hundred records.
const CHUNK: u64 = 256 << 10;

/// The file of the segment that begins at `base`.
pub fn path(folder: &Path, base: u64) -> PathBuf {
    folder.join(format!("{base:020}.log"))
}

/// First offsets of all segments of a partition, ascending.
pub fn bases(folder: &Path) -> io::Result<Vec<u64>> {
    let mut bases = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        bases.extend(name.to_str().and_then(|n| n.strip_suffix(".log")).and_then(|n| n.parse::<u64>().ok()));
    }
    bases.sort_unstable();
    Ok(bases)
}

/// A place between two records of a partition.
pub struct Cursor {
    /// `events/3`: for messages.
    name: String,
    folder: PathBuf,
    file: File,
    base: u64,
    /// Byte of the segment at which the next record begins.
    at: u64,
    next: u64,
    /// Bytes of the segment from `at` on. Whole records in it are final; a cut one is read again.
    buffer: Bytes,
    warned: bool,
}

impl Cursor {
    /// Before the record `offset`, or before the first one there is. `Stop` when the partition does not hold that place.
    pub fn open(folder: &Path, name: &str, offset: Option<u64>) -> Result<Self, SourceError> {
        let bases = bases(folder).map_err(|e| cannot("list", folder, &e))?;
        let first = bases.first().copied().ok_or_else(|| no_segments(folder, name))?;
        let wanted = offset.unwrap_or(first);
        let Some(base) = bases.into_iter().rev().find(|b| *b <= wanted) else {
            return Err(SourceError::Stop(format!(
                "{name}: offset {wanted} is gone, the log in {} begins at {first}; start at {first} or later",
                folder.display()
            )));
        };
        let mut cursor = Self::at_segment(folder, name, base)?;
        cursor.skip_to(wanted, first)?;
        Ok(cursor)
    }

    /// After the last whole record.
    pub fn open_end(folder: &Path, name: &str) -> Result<Self, SourceError> {
        let bases = bases(folder).map_err(|e| cannot("list", folder, &e))?;
        let base = bases.last().copied().ok_or_else(|| no_segments(folder, name))?;
        let mut cursor = Self::at_segment(folder, name, base)?;
        while cursor.read()?.is_some() {}
        Ok(cursor)
    }

    fn at_segment(folder: &Path, name: &str, base: u64) -> Result<Self, SourceError> {
        let path = path(folder, base);
        let file = File::open(&path).map_err(|e| cannot("open", &path, &e))?;
        let (name, folder) = (name.to_string(), folder.to_path_buf());
        Ok(Self { name, folder, file, base, at: 0, next: base, buffer: Bytes::new(), warned: false })
    }

    fn skip_to(&mut self, wanted: u64, first: u64) -> Result<(), SourceError> {
        while self.next < wanted {
            if self.read()?.is_none() {
                return Err(SourceError::Stop(format!(
                    "{}: offset {wanted} is beyond the end, the log in {} holds {first}..{}; was it replaced? start at {} or earlier",
                    self.name,
                    self.folder.display(),
                    self.next,
                    self.next
                )));
            }
        }
        Ok(())
    }

    /// The offset of the next record.
    pub fn next_offset(&self) -> u64 {
        self.next
    }

    /// First offset of the segment in hand.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Byte of the segment at which the next record begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next record, or `None` when there is none yet. `Stop` when it is damaged for good.
    pub fn read(&mut self) -> Result<Option<Frame>, SourceError> {
        if let Some(frame) = self.take() {
            return Ok(Some(frame));
        }
        loop {
            self.refill()?;
            if let Some(frame) = self.take() {
                return Ok(Some(frame));
            }
            if self.next > self.base && path(&self.folder, self.next).exists() {
                self.enter_next()?;
                continue;
            }
            return if self.buffer.is_empty() { Ok(None) } else { self.look_closer() };
        }
    }

    /// Goes past `records` records of `bytes` bytes in all that the caller has just written here.
    pub fn wrote(&mut self, records: u64, bytes: u64) {
        self.buffer = Bytes::new();
        self.next += records;
        self.at += bytes;
    }

    /// Into the segment named by the next offset.
    pub fn enter_next(&mut self) -> Result<(), SourceError> {
        *self = Self::at_segment(&self.folder, &self.name, self.next)?;
        Ok(())
    }

    fn take(&mut self) -> Option<Frame> {
        let Decoded::Whole(frame, length) = frame::decode(&self.buffer) else { return None };
        self.buffer = self.buffer.slice(length..);
        self.at += length as u64;
        self.next += 1;
        self.warned = false;
        Some(frame)
    }

    /// Reads from `at` on: at least the record that begins there, as far as it is written.
    fn refill(&mut self) -> Result<(), SourceError> {
        let mut bytes = self.read_at(CHUNK)?;
        if let Decoded::Short(length) = frame::decode(&bytes)
            && length as u64 > CHUNK
        {
            bytes = self.read_at(length as u64)?;
        }
        self.buffer = bytes;
        Ok(())
    }

    fn read_at(&mut self, length: u64) -> Result<Bytes, SourceError> {
        self.try_read_at(length).map_err(|e| cannot("read", &path(&self.folder, self.base), &e))
    }

    fn try_read_at(&mut self, length: u64) -> io::Result<Bytes> {
        let there = self.file.metadata()?.len().saturating_sub(self.at);
        if there == 0 {
            return Ok(Bytes::new());
        }
        let length = there.min(length);
        let mut bytes = Vec::with_capacity(length as usize);
        self.file.seek(SeekFrom::Start(self.at))?;
        Read::by_ref(&mut self.file).take(length).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    /// Bytes that are no record: one being written, the torn end a crash left (the next appender cuts it off), or, with
    /// segments after it, damage that waiting does not heal.
    fn look_closer(&mut self) -> Result<Option<Frame>, SourceError> {
        let bases = bases(&self.folder).map_err(|e| cannot("list", &self.folder, &e))?;
        if bases.last().is_some_and(|last| *last > self.next) {
            // An appender may have cut, filled and left this segment since it was read.
            self.refill()?;
            return match self.take() {
                Some(frame) => Ok(Some(frame)),
                None => Err(self.damaged()),
            };
        }
        if !std::mem::replace(&mut self.warned, true) {
            tracing::debug!(partition = self.name, offset = self.next, bytes = self.buffer.len(), "record not complete yet");
        }
        Ok(None)
    }

    fn damaged(&self) -> SourceError {
        SourceError::Stop(format!(
            "{}: record {} at byte {} of {} is damaged and more follows; restore the file from a copy, or start after it",
            self.name,
            self.next,
            self.at,
            path(&self.folder, self.base).display()
        ))
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> SourceError {
    SourceError::Retry(format!("cannot {what} {}: {error}; check the disk and the permissions", path.display()))
}

fn no_segments(folder: &Path, name: &str) -> SourceError {
    SourceError::Stop(format!("{name}: no segments in {}; was the folder emptied while in use?", folder.display()))
}
