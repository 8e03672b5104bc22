//! Files as a source that ends: `.jsonl` with one payload a line, as it would come from the log, and `.parquet` with a row each.
//! A file's records are counted from 0 in the order of the file, so the same file always gives the same records at the same
//! offsets.

use bytes::Bytes;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Positions, Record, Role, Room, Source, SourceError, refuse_unknown};

mod columns;
mod jsonl;
pub mod kinds;
mod parquet;

/// The partition that a file's records have. Live partitions have lower numbers, and what has this one or a higher one is
/// backfill: its positions do not collide with the live ones, and its age says nothing about freshness.
pub const PARTITION: u32 = 4_000_000_000;

/// The files of a folder in the order in which they are read: what is known of items and users comes before what they did.
const ORDER: [Role; 4] = [Role::Items, Role::Users, Role::Events, Role::Control];

/// A row: key if it has one, and payload.
type Row = (Option<Bytes>, Bytes);

/// Rows of one file, one after the other.
trait Rows: Send {
    /// The next row, `None` after the last.
    fn next(&mut self) -> Result<Option<Row>, SourceError>;

    /// How much of the file has been read, 0 to 1.
    fn fraction(&self) -> f64;
}

/// One or several files, each read to its end, in constant memory.
pub struct FileSource {
    parts: Vec<Part>,
    /// Index of the file being read.
    current: usize,
    /// An error met after records had been handed out: told by the next poll.
    held: Option<SourceError>,
}

struct Part {
    role: Role,
    rows: Box<dyn Rows>,
    bytes: u64,
    /// A file is accepted when it was last written: the same at every reading.
    accepted_ms: i64,
    next: u64,
}

impl FileSource {
    /// A `.jsonl` or `.parquet` file (items or users where its name begins so, events otherwise), or a folder with one of
    /// `items.*`, `users.*`, `events.*`, `control.*` each. `Stop` when it cannot be read or lacks a column.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        Self::open_at(path, &Positions::new())
    }

    /// The same, continued at recorded positions; a file that is left out is read from its beginning.
    pub fn open_at(path: &Path, start: &Positions) -> Result<Self, SourceError> {
        let files = if path.is_dir() { files_of(path)? } else { VecDeque::from([(role_of(path), path.to_path_buf())]) };
        let known: Vec<_> = files.iter().map(|(role, _)| (*role, PARTITION)).collect();
        refuse_unknown(start, |place| known.contains(place), &path.display().to_string())?;
        let parts = files.into_iter().map(|(role, path)| Part::open(role, &path, start.get(&(role, PARTITION)).copied()));
        Ok(Self { parts: parts.collect::<Result<_, _>>()?, current: 0, held: None })
    }

    /// How much has been read, 0 to 1, by bytes.
    pub fn fraction(&self) -> f64 {
        let total: u64 = self.parts.iter().map(|p| p.bytes).sum();
        let read = |(i, part): (usize, &Part)| match i.cmp(&self.current) {
            std::cmp::Ordering::Less => part.bytes as f64,
            std::cmp::Ordering::Equal => part.bytes as f64 * part.rows.fraction(),
            std::cmp::Ordering::Greater => 0.0,
        };
        self.parts.iter().enumerate().map(read).sum::<f64>() / (total as f64).max(1.0)
    }

    fn take(&mut self, max: usize, into: &mut Vec<Record>) -> Result<(), SourceError> {
        let mut room = Room::of(max);
        while room.left() > 0 {
            let Some(part) = self.parts.get_mut(self.current) else { break };
            match part.take()? {
                Some(record) => room.take(record, into),
                None => self.current += 1,
            }
        }
        Ok(())
    }
}

impl Part {
    fn open(role: Role, path: &Path, start: Option<u64>) -> Result<Self, SourceError> {
        let about = std::fs::metadata(path).map_err(|e| cannot("read", path, &e))?;
        let written = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let (bytes, next) = (about.len(), start.unwrap_or(0));
        let accepted_ms = written.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        Ok(Self { role, rows: open_rows(role, path, next)?, bytes, accepted_ms, next })
    }

    fn take(&mut self) -> Result<Option<Record>, SourceError> {
        let Some((key, payload)) = self.rows.next()? else { return Ok(None) };
        let (role, offset, accepted_ms) = (self.role, self.next, self.accepted_ms);
        self.next += 1;
        Ok(Some(Record { role, partition: PARTITION, offset, key, payload: Some(payload), accepted_ms }))
    }
}

impl Source for FileSource {
    fn poll(&mut self, max: usize, _wait: Duration, into: &mut Vec<Record>) -> Result<(), SourceError> {
        if let Some(error) = self.held.take() {
            return Err(error);
        }
        let before = into.len();
        let taken = self.take(max, into);
        if into.len() > before {
            self.held = taken.err();
            return Ok(());
        }
        taken
    }

    fn ended(&self) -> bool {
        self.current == self.parts.len() && self.held.is_none()
    }

    fn positions(&self) -> Positions {
        self.parts.iter().map(|part| ((part.role, PARTITION), part.next)).collect()
    }
}

fn files_of(folder: &Path) -> Result<VecDeque<(Role, PathBuf)>, SourceError> {
    let mut files: VecDeque<(Role, PathBuf)> = VecDeque::new();
    let mut there = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| cannot("list", folder, &e))? {
        there.push(entry.map_err(|e| cannot("list", folder, &e))?.path());
    }
    there.sort();
    for role in ORDER {
        let mut of_role = there.iter().filter(|p| is_file_of(p, role));
        files.extend(of_role.next().map(|path| (role, path.clone())));
        if let Some(second) = of_role.next() {
            return Err(SourceError::Stop(format!(
                "{} holds more than one file of {}; take {} away or name one file",
                folder.display(),
                role.name(),
                second.display()
            )));
        }
    }
    if files.is_empty() {
        let folder = folder.display();
        return Err(SourceError::Stop(format!("{folder} holds no items.*, users.* or events.* in .jsonl or .parquet")));
    }
    Ok(files)
}

fn is_file_of(path: &Path, role: Role) -> bool {
    let extension = path.extension().and_then(|e| e.to_str());
    path.file_stem().is_some_and(|stem| stem == role.name()) && matches!(extension, Some("jsonl" | "parquet"))
}

fn role_of(path: &Path) -> Role {
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    ORDER.into_iter().find(|role| stem.starts_with(role.name())).unwrap_or(Role::Events)
}

fn open_rows(role: Role, path: &Path, start: u64) -> Result<Box<dyn Rows>, SourceError> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("jsonl") => Ok(Box::new(jsonl::Lines::open(role, path, start)?)),
        Some("parquet") => Ok(Box::new(parquet::Table::open(role, path, start)?)),
        _ => Err(SourceError::Stop(format!("{} is neither .jsonl nor .parquet; convert it", path.display()))),
    }
}

fn cannot(what: &str, path: &Path, error: &dyn std::fmt::Display) -> SourceError {
    SourceError::Stop(format!("cannot {what} {}: {error}", path.display()))
}

fn beyond(path: &Path, start: u64, rows: u64) -> SourceError {
    let path = path.display();
    SourceError::Stop(format!("row {start} is beyond the end of {path}, which has 0..{rows}; was the file replaced?"))
}
