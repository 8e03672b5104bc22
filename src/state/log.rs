//! The epoch log: the binding of every epoch, durable before the epoch has an effect. Of one epoch the newest generation's binding
//! counts; what an older one appended from there on is as if it had not been, because it followed epochs that were replaced.

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::frame::{self, Contents, Header};
use super::store::Store;
use super::{StateError, fence};
use crate::model::Binding;

/// A new file is begun after this many bytes, so that what is no longer needed can be deleted.
const ROLL: u64 = 4 << 20;
/// A longer file is none of ours.
const MOST: u64 = 256 << 20;
/// Bindings in one group at most.
const GROUP: usize = 1024;
/// Bindings that may wait; epochs in flight are far fewer.
const WAITING: usize = 1 << 14;

/// A file of the log. In order of preference, the last first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub generation: u32,
    /// The first epoch.
    pub first: u64,
    /// The last epoch, in a store whose files are written once.
    pub last: Option<u64>,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { generation, first, last } = self;
        match last {
            Some(last) => write!(f, "{generation:010}-{first:020}-{last:020}.log"),
            None => write!(f, "{generation:010}-{first:020}.log"),
        }
    }
}

impl Name {
    fn parse(file: &str) -> Option<Self> {
        let mut numbers = file.strip_suffix(".log")?.split('-');
        let (generation, first) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
        let last = numbers.next().map(str::parse).transpose().ok()?;
        let name = Self { generation, first, last };
        (name.to_string() == file).then_some(name)
    }

    fn path(&self) -> String {
        format!("epochs/{self}")
    }
}

/// All files, by generation and first epoch.
pub fn files(store: &dyn Store) -> Result<Vec<Name>, StateError> {
    let mut files: Vec<Name> = store.list("epochs")?.iter().filter_map(|(name, _)| Name::parse(name)).collect();
    files.sort_unstable();
    Ok(files)
}

/// Each file with the epoch at which a later file or a newer generation takes over from it.
fn with_ends(files: Vec<Name>) -> Vec<(Name, u64)> {
    let ends = files.iter().rev().scan(u64::MAX, |end, file| {
        let here = *end;
        *end = here.min(file.first);
        Some(here)
    });
    let ends: Vec<u64> = ends.collect();
    files.into_iter().zip(ends.into_iter().rev()).collect()
}

/// What a file holds, checked against its name.
pub fn load(store: &dyn Store, name: Name) -> Result<Contents, StateError> {
    let path = name.path();
    let damaged = |what: String| StateError::Damaged(format!("{path} {what}"));
    let bytes = store.read(&path, MOST)?.ok_or_else(|| damaged("is gone".to_string()))?;
    let contents = frame::decode(&bytes).map_err(damaged)?;
    let Header { generation, first, .. } = contents.header;
    if (generation, first) != (name.generation, name.first) {
        return Err(damaged(format!("is of generation {generation} from epoch {first} on by its header")));
    }
    if name.last.is_some() && name.last != contents.bindings.last().map(|binding| binding.epoch.number) {
        return Err(damaged("does not hold the epochs of its name".to_string()));
    }
    if contents.torn > 0 {
        tracing::warn!(file = path, bytes = contents.torn, "left out a group that a crash left half written");
    }
    Ok(contents)
}

/// The bindings of all epochs after `after` (`None`: from the first ever). They must reach `known`, an epoch of which there is a
/// snapshot, unless `after` does.
pub fn read(store: &dyn Store, after: Option<u64>, known: Option<u64>) -> Result<Vec<Binding>, StateError> {
    let mut chain = Chain { next: None, from: format!("epoch {}", after.unwrap_or_default()), bindings: Vec::new() };
    if let Some(after) = after {
        let Some(next) = after.checked_add(1) else { return Ok(Vec::new()) };
        chain.next = Some(next);
    }
    for (name, end) in with_ends(files(store)?) {
        if end > name.first && after.is_none_or(|after| end - 1 > after) {
            chain.add(name, load(store, name)?, end)?;
        }
    }
    let reached = chain.bindings.last().map(|binding| binding.epoch.number).or(after);
    match known.filter(|known| reached.is_none_or(|reached| reached < *known)) {
        None => Ok(chain.bindings),
        Some(known) => Err(StateError::Damaged(format!(
            "the epoch log in {} ends at {}, though there was a snapshot of epoch {known}: its end was lost; {}",
            store.place(),
            chain.from,
            super::WHAT_TO_DO
        ))),
    }
}

/// Bindings without a hole.
struct Chain {
    /// The epoch that must come next, once it is known.
    next: Option<u64>,
    /// Where the one before was, for messages.
    from: String,
    bindings: Vec<Binding>,
}

impl Chain {
    fn add(&mut self, name: Name, contents: Contents, end: u64) -> Result<(), StateError> {
        if self.next.is_none() && !contents.header.begins {
            return Err(hole(format!("the epochs before {} (the first of {})", name.first, name.path())));
        }
        let next = *self.next.get_or_insert(name.first);
        if name.first > next {
            return Err(hole(format!("epochs {next} to {} (between {} and {})", name.first - 1, self.from, name.path())));
        }
        for binding in contents.bindings {
            let number = binding.epoch.number;
            if self.next == Some(number) && number < end {
                self.next = number.checked_add(1);
                self.bindings.push(binding);
            }
        }
        if let Some(next) = self.next {
            self.from = format!("epoch {} in {}", next.saturating_sub(1), name.path());
        }
        Ok(())
    }
}

fn hole(what: String) -> StateError {
    StateError::Damaged(format!("the epoch log lacks {what}; {}", super::WHAT_TO_DO))
}

/// Deletes the files of which no epoch after `oldest` is needed.
pub fn trim(store: &dyn Store, oldest: u64) -> Result<(), StateError> {
    let passed = with_ends(files(store)?).into_iter().filter(|(_, end)| *end <= oldest.saturating_add(1));
    passed.map(|(name, _)| name).try_for_each(|name| store.delete(&name.path()))
}

/// Appends bindings on a thread of its own: those that come while a group is being written are the next group.
pub struct EpochLog {
    queue: Sender<Binding>,
    thread: JoinHandle<()>,
}

impl EpochLog {
    pub(super) fn start(
        mut tail: Tail,
        on_durable: impl Fn(u64) + Send + 'static,
        on_failed: impl Fn(String) + Send + 'static,
    ) -> Result<Self, StateError> {
        let (queue, waiting) = crossbeam_channel::bounded(WAITING);
        let place = tail.store.place();
        let run = move || {
            // On an error the queue is dropped with this closure, and nobody waits for it any more.
            while let Some(group) = next_group(&waiting) {
                match tail.append(&group) {
                    Ok(epoch) => on_durable(epoch),
                    Err(e) => return on_failed(e.to_string()),
                }
            }
        };
        let thread = std::thread::Builder::new().name("epoch-log".to_string()).spawn(run);
        let thread = thread.map_err(|e| StateError::Io(format!("cannot start the thread of the epoch log in {place}: {e}")))?;
        Ok(Self { queue, thread })
    }

    /// Queues a binding; `on_durable` tells when it is safe. Epochs come in order, without a hole. Waits only when thousands do.
    pub fn append(&self, binding: Binding) {
        // After an error, which `on_failed` told, nothing is taken any more.
        drop(self.queue.send(binding));
    }

    /// Writes what waits and ends.
    pub fn close(self) {
        drop(self.queue);
        self.thread.join().expect("the epoch log does not panic");
    }
}

/// All that wait, after waiting for the first; `None` when no more will come.
fn next_group(waiting: &Receiver<Binding>) -> Option<Vec<Binding>> {
    let first = waiting.recv().ok()?;
    Some(std::iter::once(first).chain(waiting.try_iter()).take(GROUP).collect())
}

/// The end of the log, as this generation writes it, group by group.
pub struct Tail {
    store: Arc<dyn Store>,
    generation: u32,
    begins: bool,
    /// The epoch that must come next, once there was one.
    next: Option<u64>,
    /// The file being appended to, and its length.
    file: Option<(String, u64)>,
}

impl Tail {
    /// `begins`: no epoch was ever bound before the first that will be appended.
    pub(super) fn new(store: Arc<dyn Store>, generation: u32, begins: bool) -> Self {
        Self { store, generation, begins, next: None, file: None }
    }

    /// Makes a group durable; answers its last epoch. After an error nothing more may be appended.
    pub fn append(&mut self, group: &[Binding]) -> Result<u64, StateError> {
        let first = group.first().map(|binding| binding.epoch.number).expect("a group holds the binding it was begun with");
        let mut next = self.next.unwrap_or(first);
        for binding in group {
            let number = binding.epoch.number;
            if number != next {
                return Err(StateError::Io(format!(
                    "cannot append epoch {number} to the epoch log: {next} comes next; report this"
                )));
            }
            next += 1;
        }
        self.write(first, next - 1, &frame::encode(group))?;
        // Looked at after the write: a generation that was claimed before it may have read the log without it, one that is
        // claimed from now on will see it.
        fence(&*self.store, self.generation)?;
        self.begins = false;
        self.next = Some(next);
        Ok(next - 1)
    }

    fn write(&mut self, first: u64, last: u64, frame: &[u8]) -> Result<(), StateError> {
        let header = Header { begins: self.begins, generation: self.generation, first }.encode();
        let name = Name { generation: self.generation, first, last: (!self.store.appends()).then_some(last) };
        if !self.store.appends() {
            let whole = Bytes::from([&header[..], frame].concat());
            return match self.store.create(&name.path(), whole)? {
                true => Ok(()),
                false => {
                    Err(StateError::Fenced(format!("{} is there already: another process writes this epoch log", name.path())))
                }
            };
        }
        let (path, at) = match self.file.take().filter(|(_, at)| *at < ROLL) {
            Some(file) => file,
            None => (self.begin(name, &header)?, header.len() as u64),
        };
        self.store.append(&path, at, frame)?;
        self.file = Some((path, at + frame.len() as u64));
        Ok(())
    }

    /// A file that has a header from its first moment on.
    fn begin(&self, name: Name, header: &[u8]) -> Result<String, StateError> {
        self.store.put(&name.path(), Bytes::copy_from_slice(header))?;
        self.store.sync("epochs")?;
        Ok(name.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(files: &[(u32, u64)]) -> Vec<u64> {
        let files = files.iter().map(|(generation, first)| Name { generation: *generation, first: *first, last: None }).collect();
        with_ends(files).into_iter().map(|(_, end)| end).collect()
    }

    #[test]
    fn a_newer_generation_takes_over_where_it_begins() {
        assert_eq!(ends(&[(1, 0), (1, 50), (2, 70)]), [50, 70, u64::MAX]);
        assert_eq!(ends(&[(1, 0), (1, 50), (2, 40), (3, 90)]), [40, 40, 90, u64::MAX], "nothing is left of the second");
        assert_eq!(ends(&[]), Vec::<u64>::new());
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for last in [None, Some(9)] {
            let name = Name { generation: 3, first: 7, last };
            assert_eq!(Name::parse(&name.to_string()), Some(name));
        }
        for other in ["3-7.log", "0000000003-00000000000000000007-.log", "0000000003.log", "x"] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
