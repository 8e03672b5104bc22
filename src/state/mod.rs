//! State that outlives the process: the epoch log and the snapshots. What is given back is exactly what was given, or an error that
//! names the file; never a part, and never nothing where there was something.
//!
//! Nine rules keep this so, and here are those that are kept in this room. A generation is claimed before anything is read, and a
//! process that sees a newer one writes no more. A binding is durable before it is told so. A manifest is written when all it names
//! is durable. What is on disk is believed when its checksum agrees. The layout is published in `schemas/snapshot.md`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::model::epoch::TopicIds;
use crate::model::time::now_ms;
use crate::model::{Binding, Epoch, Pace, Part, Positions, Saved, Serving};

mod address;
pub mod folder;
pub mod frame;
mod log;
pub mod look;
pub mod manifest;
pub mod objects;
pub mod segment;
pub mod store;

pub use address::Address;
pub use log::{EpochLog, Tail};
pub use look::Look;

use folder::Folder;
use look::Manifests;
use manifest::{Files, Manifest, Name, Refused};
use objects::Objects;
use segment::Segment;
use store::Store;

/// There since the first snapshot: whoever finds it and no manifest knows that something was lost.
const COMMITTED: &str = "committed";
/// Which topics the epochs were read from.
const TOPICS: &str = "topics.json";
const WHAT_TO_DO: &str = "put back a copy of the state, or move it away to begin again from the start of the input";
/// Bindings in one file of those that a start makes its own.
const ADOPTED: usize = 1 << 14;
const UNPOISONED: &str = "nothing under this lock panics";

/// Why the state does not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another process has it.
    #[error("{0}")]
    Busy(String),
    /// It is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// The disk or the network failed.
    #[error("{0}")]
    Io(String),
    /// A newer generation has taken over; this process must stop.
    #[error("{0}")]
    Fenced(String),
}

/// Where a snapshot stands in the input, and what must be the same when it is taken up again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    pub epoch: Epoch,
    pub pace: Pace,
    #[serde(default)]
    pub serving: Serving,
    #[serde(with = "crate::model::epoch::pairs")]
    pub positions: Positions,
    pub workers: usize,
    /// Digest of what must not change.
    pub config: String,
}

/// The state of all operators after an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub head: Head,
    /// Entries come back sorted.
    pub parts: Vec<Part>,
}

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub epoch: u64,
    /// Segments of the snapshot.
    pub files: usize,
    /// Those that had to be written, and their bytes.
    pub written: usize,
    pub bytes: u64,
}

/// An opened state.
pub struct State {
    store: Arc<dyn Store>,
    generation: u32,
    /// Segments that this process wrote or checked, by the digest of their entries. What is merely there is not relied upon.
    sound: Mutex<BTreeMap<[u8; 32], Segment>>,
    /// Snapshots that were found unusable; they do not count as kept.
    unusable: Mutex<BTreeSet<Name>>,
}

impl State {
    /// Takes the lock of a folder (made where there is none) and claims the next generation, durably and before anything is read.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        Self::open_in(Arc::new(Folder::open(dir)?))
    }

    /// As `open`, of an address: see [`Address`].
    pub fn open_at(address: &Address) -> Result<Self, StateError> {
        match address {
            Address::Folder(dir) => Self::open(dir),
            Address::Objects(url) => Self::open_in(Arc::new(Objects::at(url)?)),
        }
    }

    /// In any store. Where it has no lock, two may be open: the older generation is fenced.
    pub fn open_in(store: Arc<dyn Store>) -> Result<Self, StateError> {
        let generation = claim(&*store)?;
        Ok(Self { store, generation, sound: Mutex::default(), unusable: Mutex::default() })
    }

    /// Grows with each opening.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Where it is, for messages.
    pub fn place(&self) -> String {
        self.store.place()
    }

    /// The newest usable snapshot; those that are damaged are told of and passed over. `None` only if there never was one.
    pub fn restore(&self) -> Result<Option<Snapshot>, StateError> {
        let Manifests { names, .. } = look::manifests(&*self.store)?;
        if names.is_empty() {
            return self.never_committed().map(|()| None);
        }
        let mut first = None;
        for (at, name) in names.iter().enumerate() {
            match self.take_up(*name) {
                Err(StateError::Damaged(what)) => {
                    self.unusable.lock().expect(UNPOISONED).insert(*name);
                    let then =
                        names.get(at + 1).map_or("no older one is left".to_string(), |n| format!("falling back to {}", n.epoch));
                    tracing::warn!("snapshot {} unusable: {what}; {then}", name.epoch);
                    first.get_or_insert(what);
                }
                snapshot => return snapshot.map(Some),
            }
        }
        let (all, place) = (names.len(), self.store.place());
        let first = first.expect("there was a snapshot, and it was damaged");
        Err(StateError::Damaged(format!(
            "none of {all} snapshots in {place} is usable, the newest because {first}; {WHAT_TO_DO}"
        )))
    }

    fn never_committed(&self) -> Result<(), StateError> {
        let place = self.store.place();
        match self.store.read(COMMITTED, manifest::MOST)? {
            None => Ok(()),
            Some(_) => {
                Err(StateError::Damaged(format!("there were snapshots in {place}, and no manifest is left; {WHAT_TO_DO}")))
            }
        }
    }

    fn take_up(&self, name: Name) -> Result<Snapshot, StateError> {
        let manifest = match look::load(&*self.store, name)? {
            Ok(manifest) => manifest,
            Err(Refused::Damaged(what)) => return Err(StateError::Damaged(what)),
            // Nothing is wrong with it: to fall back behind it would be wrong.
            Err(Refused::Foreign(what)) => return Err(StateError::Io(what)),
        };
        let parts = manifest.parts.iter().map(|part| self.part(part)).collect::<Result<_, _>>()?;
        Ok(Snapshot { head: manifest.head, parts })
    }

    fn part(&self, part: &Files) -> Result<Part, StateError> {
        let mut entries = Vec::new();
        for segment in &part.files {
            let rows = look::entries(&*self.store, segment)?;
            self.sound.lock().expect(UNPOISONED).insert(segment::digest(&rows), segment.clone());
            entries.extend(rows);
        }
        Ok(Part { uid: part.uid.clone(), entries })
    }

    /// The bindings of the epochs after `after` (`None`: from the first), in order, without a hole.
    pub fn bindings(&self, after: Option<u64>) -> Result<Vec<Binding>, StateError> {
        let Manifests { names, .. } = look::manifests(&*self.store)?;
        log::read(&*self.store, after, names.first().map(|name| name.epoch))
    }

    /// The topics that were read so far; none where nobody told.
    pub fn topics(&self) -> Result<TopicIds, StateError> {
        let Some(bytes) = self.store.read(TOPICS, manifest::MOST)? else { return Ok(TopicIds::new()) };
        serde_json::from_slice(&bytes)
            .map_err(|e| StateError::Damaged(format!("{TOPICS} in {} cannot be read: {e}; {WHAT_TO_DO}", self.store.place())))
    }

    /// Remembers them, durably. Call it before anything of them is bound.
    pub fn keep_topics(&self, topics: &TopicIds) -> Result<(), StateError> {
        fence(&*self.store, self.generation)?;
        let text = serde_json::to_string(topics).expect("names and ids are plain data");
        self.store.put(TOPICS, Bytes::from(text + "\n"))?;
        self.store.sync("")
    }

    /// Makes the bindings its own that a start has read and will give effects, where nothing keeps older processes from appending yet:
    /// what they still write counts no more, nor what lies there of them unread.
    pub fn adopt(&self, bound: &[Binding]) -> Result<(), StateError> {
        if self.store.appends() {
            return Ok(()); // a folder has one process at a time
        }
        let Manifests { names, overtaken } = look::manifests(&*self.store)?;
        let mut tail = Tail::new(self.store.clone(), self.generation, names.is_empty() && overtaken.is_empty());
        bound.chunks(ADOPTED).try_for_each(|group| tail.append(group).map(drop))
    }

    /// Starts the thread that appends. `on_durable` hears the last epoch of each group that is safe; `on_failed` hears once why no
    /// more will be.
    pub fn start_log(
        &self,
        on_durable: impl Fn(u64) + Send + 'static,
        on_failed: impl Fn(String) + Send + 'static,
    ) -> Result<EpochLog, StateError> {
        EpochLog::start(self.tail()?, on_durable, on_failed)
    }

    /// The end of the epoch log, for whoever appends on a thread of their own.
    pub fn tail(&self) -> Result<Tail, StateError> {
        let Manifests { names, overtaken } = look::manifests(&*self.store)?;
        let begins = names.is_empty() && overtaken.is_empty() && self.bindings(None)?.is_empty();
        Ok(Tail::new(self.store.clone(), self.generation, begins))
    }

    /// Writes a snapshot, of an epoch whose binding is durable: segments, then the manifest, if this generation is still the newest.
    /// Then deletes what is older than the `keep` newest.
    pub fn commit(&self, snapshot: &Snapshot, keep: usize) -> Result<Committed, StateError> {
        fence(&*self.store, self.generation)?;
        let parent = look::manifests(&*self.store)?.names.first().map(Name::to_string);
        let mut writing =
            Writing { state: self, there: self.store.list("segments")?.into_iter().collect(), written: 0, bytes: 0 };
        let parts = snapshot.parts.iter().map(|part| writing.part(part)).collect::<Result<_, _>>()?;
        let Writing { written, bytes, .. } = writing;
        self.store.sync("segments")?;
        let (format, generation, head) = (manifest::FORMAT, self.generation, snapshot.head.clone());
        let manifest = Manifest { format, generation, written_ms: now_ms(), parent, head, parts };
        self.publish(&manifest)?;
        if let Err(e) = self.clean(keep.max(1), 0) {
            tracing::warn!("snapshot {} is safe, but what it makes superfluous is still there: {e}", manifest.head.epoch.number);
        }
        Ok(Committed { epoch: manifest.head.epoch.number, files: manifest.segments().count(), written, bytes })
    }

    fn publish(&self, manifest: &Manifest) -> Result<(), StateError> {
        fence(&*self.store, self.generation)?;
        self.store.put(&manifest.name().to_string(), manifest.encode().into())?;
        self.store.sync("")?;
        self.unusable.lock().expect(UNPOISONED).remove(&manifest.name());
        fence(&*self.store, self.generation)?;
        self.store.create(COMMITTED, Bytes::from_static(b"there is a snapshot here since this file was made\n")).map(drop)
    }

    /// Deletes snapshots of before this epoch, but never the newest.
    pub fn drop_before(&self, epoch: u64) -> Result<(), StateError> {
        self.clean(usize::MAX, epoch)
    }

    /// Where the oldest usable snapshot stands: nothing before it is read again.
    pub fn oldest(&self) -> Result<Option<Head>, StateError> {
        let Kept { first, .. } = self.kept(usize::MAX, 0)?;
        Ok(first)
    }

    /// Deletes manifests after the `keep` newest that are usable, or of before the epoch `from`, segments that no manifest names any more, what of the log came
    /// before the oldest, and older claims.
    fn clean(&self, keep: usize, from: u64) -> Result<(), StateError> {
        fence(&*self.store, self.generation)?;
        let Kept { superfluous, named, first } = self.kept(keep, from)?;
        superfluous.iter().try_for_each(|name| self.store.delete(&name.to_string()))?;
        // Before the segments: a manifest that came back after a crash would name what is gone.
        self.store.sync("")?;
        for (name, _) in self.store.list("segments")?.into_iter().filter(|(name, _)| segment::is_name(name)) {
            let path = format!("segments/{name}");
            if !named.contains(&path) {
                self.store.delete(&path)?;
            }
        }
        self.sound.lock().expect(UNPOISONED).retain(|_, segment| named.contains(&segment.path));
        log::trim(&*self.store, first.map_or(0, |head| head.epoch.number))?;
        let older = claims(&*self.store)?.into_iter().filter(|generation| *generation < self.generation);
        older.map(claim_path).try_for_each(|path| self.store.delete(&path))
    }

    fn kept(&self, keep: usize, from: u64) -> Result<Kept, StateError> {
        let Manifests { names, overtaken } = look::manifests(&*self.store)?;
        let mut kept = Kept { superfluous: overtaken, named: BTreeSet::new(), first: None };
        let mut usable = 0;
        for name in names {
            if usable == keep || usable > 0 && name.epoch < from {
                kept.superfluous.push(name);
                continue;
            }
            match look::load(&*self.store, name)? {
                Ok(manifest) => {
                    kept.named.extend(manifest.segments().map(|segment| segment.path.clone()));
                    if !self.unusable.lock().expect(UNPOISONED).contains(&name) {
                        (usable, kept.first) = (usable + 1, Some(manifest.head));
                    }
                }
                Err(Refused::Damaged(_)) => {}
                Err(Refused::Foreign(what)) => return Err(StateError::Io(what)),
            }
        }
        Ok(kept)
    }
}

struct Kept {
    superfluous: Vec<Name>,
    /// Paths of segments.
    named: BTreeSet<String>,
    /// Of the oldest usable one.
    first: Option<Head>,
}

/// A commit under way.
struct Writing<'a> {
    state: &'a State,
    /// Names and sizes of the segments in the store.
    there: BTreeMap<String, u64>,
    written: usize,
    bytes: u64,
}

impl Writing<'_> {
    fn part(&mut self, part: &Part) -> Result<Files, StateError> {
        let mut rows: Vec<&Saved> = part.entries.iter().collect();
        rows.sort_unstable();
        let files = segment::split(&rows).into_iter().map(|run| self.segment(run)).collect::<Result<_, _>>()?;
        Ok(Files { uid: part.uid.clone(), files })
    }

    /// Writes a segment, unless this process knows that it is there.
    fn segment(&mut self, rows: &[&Saved]) -> Result<Segment, StateError> {
        let digest = segment::digest(rows.iter().copied());
        let known = self.state.sound.lock().expect(UNPOISONED).get(&digest).cloned();
        if let Some(known) = known.filter(|known| self.is_there(known)) {
            return Ok(known);
        }
        let (segment, bytes) = segment::encode(rows).map_err(StateError::Io)?;
        (self.written, self.bytes) = (self.written + 1, self.bytes + segment.bytes);
        let began = Instant::now();
        self.state.store.put(&segment.path, bytes.into())?;
        // an append to the epoch log waits for what the file system has under way, and every answer waits for that append
        std::thread::sleep(2 * began.elapsed().min(LONGEST_REST));
        if let Some(name) = segment.path.strip_prefix("segments/") {
            self.there.insert(name.to_string(), segment.bytes);
        }
        self.state.sound.lock().expect(UNPOISONED).insert(digest, segment.clone());
        Ok(segment)
    }

    fn is_there(&self, segment: &Segment) -> bool {
        segment.path.strip_prefix("segments/").and_then(|name| self.there.get(name)) == Some(&segment.bytes)
    }
}

/// What bounds the rest between two segments, where a disk is very slow.
const LONGEST_REST: Duration = Duration::from_millis(50);

fn claim_path(generation: u32) -> String {
    format!("generation/{generation:010}")
}

/// Generations that were claimed.
fn claims(store: &dyn Store) -> Result<Vec<u32>, StateError> {
    Ok(store.list("generation")?.iter().filter_map(|(name, _)| name.parse().ok()).collect())
}

/// Claims the generation after every one of which there is a trace.
fn claim(store: &dyn Store) -> Result<u32, StateError> {
    loop {
        let Manifests { names, overtaken } = look::manifests(store)?;
        let manifests = names.iter().chain(&overtaken).map(|name| name.generation);
        let logs = log::files(store)?.into_iter().map(|file| file.generation);
        let newest = claims(store)?.into_iter().chain(manifests).chain(logs).max().unwrap_or(0);
        let next = newest.checked_add(1);
        let next =
            next.ok_or_else(|| StateError::Damaged(format!("{} in {} is no generation", claim_path(newest), store.place())))?;
        if store.create(&claim_path(next), format!("{next}\n").into())? {
            return Ok(next);
        }
    }
}

/// An error when a newer generation than this was claimed.
fn fence(store: &dyn Store, generation: u32) -> Result<(), StateError> {
    match claims(store)?.into_iter().max().filter(|newest| *newest > generation) {
        None => Ok(()),
        Some(newest) => Err(StateError::Fenced(format!(
            "generation {newest} has taken over the state in {}; this process is generation {generation} and must stop",
            store.place()
        ))),
    }
}
