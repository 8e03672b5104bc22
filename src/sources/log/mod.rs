//! The embedded log: `<folder>/<role>-<partition>/<first offset>.log`, append-only, with the contract of a Kafka topic. An
//! offset, once read, means the same record for ever, or none any more.
//!
//! | file | what it holds |
//! |---|---|
//! | `frame` | one record as bytes |
//! | `segment` | a partition on disk, and walking over it |
//! | `append` | writing, by several processes in turn |
//! | `source` | reading all partitions, without locks |
//! | `erase` | taking users' records out |
//! | `bell` | waking readers in this process |

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::sources::{Positions, Role, SourceError};

mod append;
mod bell;
mod erase;
pub mod frame;
mod segment;
mod source;

pub use append::LogAppender;
pub use erase::erase;
pub use source::LogSource;

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub partitions: u32,
    pub segment_bytes: u64,
    pub fsync: bool,
}

/// Where the embedded log of a state folder lies.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("log")
}

/// The offset after the last record of every partition: where a reader begins that wants only what is new.
pub fn ends(dir: &Path, params: &Params) -> Result<Positions, SourceError> {
    prepare(dir, params).map_err(SourceError::Stop)?;
    partitions(params)
        .map(|(role, partition)| {
            let cursor = segment::Cursor::open_end(&partition_folder(dir, role, partition), &name(role, partition))?;
            Ok(((role, partition), cursor.next_offset()))
        })
        .collect()
}

/// Every partition: what describes the world first, events last, so that a reader from the start meets items before likes.
fn partitions(params: &Params) -> impl Iterator<Item = (Role, u32)> + use<> {
    let events = 0..params.partitions;
    [Role::Control, Role::Items, Role::Users].map(|role| (role, 0)).into_iter().chain(events.map(|p| (Role::Events, p)))
}

fn partition_folder(dir: &Path, role: Role, partition: u32) -> PathBuf {
    dir.join(format!("{}-{partition}", role.name()))
}

fn name(role: Role, partition: u32) -> String {
    format!("{}/{partition}", role.name())
}

/// Makes every partition there is to be, each with a first segment. An error when there are more than `params` says: keys of
/// the others would never be read.
fn prepare(dir: &Path, params: &Params) -> Result<(), String> {
    if params.partitions == 0 {
        return Err("[log] partitions is 0; set it to 1 or more".into());
    }
    try_prepare(dir, params).map_err(|e| format!("cannot prepare the log in {}: {e}; check the permissions", dir.display()))?;
    match existing(dir) {
        Ok(there) if there > params.partitions => Err(format!(
            "the log in {} has {there} events partitions but [log] partitions is {}; set it to {there}, or begin an empty log",
            dir.display(),
            params.partitions
        )),
        Ok(_) => Ok(()),
        Err(e) => Err(format!("cannot list {}: {e}", dir.display())),
    }
}

fn try_prepare(dir: &Path, params: &Params) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let lock = lock_file(dir)?;
    let _locked = Locked::new(&lock)?;
    for (role, partition) in partitions(params) {
        let folder = partition_folder(dir, role, partition);
        std::fs::create_dir_all(&folder)?;
        if segment::bases(&folder)?.is_empty() {
            File::create_new(segment::path(&folder, 0))?;
        }
    }
    Ok(())
}

fn existing(dir: &Path) -> io::Result<u32> {
    let mut there = 0;
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix("events-")).and_then(|n| n.parse::<u32>().ok());
        there = there.max(number.map_or(0, |n| n.saturating_add(1)));
    }
    Ok(there)
}

fn lock_file(dir: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock"))
}

/// The right to append, among all processes and handles.
struct Locked<'a>(&'a File);

impl<'a> Locked<'a> {
    fn new(file: &'a File) -> io::Result<Self> {
        file.lock()?;
        Ok(Self(file))
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "cannot unlock the log; other processes wait until this one ends");
        }
    }
}
