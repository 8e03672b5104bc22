//! State that leaves an operator at an epoch and comes back at the next start, key by key.
//!
//! The facts that must stay true: what is handed over at an epoch is exactly what the operator keeps after that epoch, and an
//! operator that loads it says, epoch for epoch, what the one that saved it would have said, at any number of workers: a key goes
//! to the owner of its group, what is shared goes to every worker.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;
use timely::dataflow::StreamVec;

use super::route::owner;
use super::{Arrivals, Clock};
use crate::model::ids::key_group;
use crate::model::{Epoch, Handed, Saved};

/// An operator's state that outlives the process.
pub trait Durable {
    /// Its name, and the version of what `save` writes: `ledger/1`.
    const UID: &'static str;

    /// Hands over every key.
    fn save(&self, into: &mut Saver);

    /// Takes one entry back: the tag it was saved with, and its bytes. What is shared comes before what is owned.
    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error>;

    /// Called when every entry is there.
    fn loaded(&mut self) {}
}

/// Where `save` puts entries. What an entry says is asked for later, on another thread: an entry takes its values with it, as
/// copies or as pointers to what is copied before it changes.
pub struct Saver {
    worker: u64,
    workers: usize,
    entries: Vec<Box<dyn FnOnce() -> Saved + Send>>,
}

impl Saver {
    /// An entry of the key with this hash, which this worker owns.
    pub fn own<T: Serialize>(&mut self, tag: u8, hash: u64, value: impl FnOnce() -> T + Send + 'static) {
        self.put(tag, hash, false, value);
    }

    /// Whether this worker owns the key with this hash.
    pub fn owns(&self, hash: u64) -> bool {
        owner(hash, self.workers) == self.worker
    }

    /// An entry every worker keeps alike: the owner of its hash saves it, all load it.
    pub fn shared<T: Serialize>(&mut self, tag: u8, hash: u64, value: impl FnOnce() -> T + Send + 'static) {
        if self.owns(hash) {
            self.put(tag, hash, true, value);
        }
    }

    fn put<T: Serialize>(&mut self, tag: u8, hash: u64, shared: bool, value: impl FnOnce() -> T + Send + 'static) {
        self.entries.push(Box::new(move || {
            let payload = postcard::to_extend(&value(), vec![tag]).expect("plain data has a form in bytes");
            Saved { group: key_group(hash), shared, payload }
        }));
    }
}

/// Where operators find what was saved and leave what they save. Without anything restored every operator begins empty.
#[derive(Clone)]
pub struct Vault {
    restored: Arc<BTreeMap<String, Vec<Saved>>>,
    hand_over: Rc<dyn Fn(&Epoch, Handed)>,
}

impl Default for Vault {
    fn default() -> Self {
        Self { restored: Arc::default(), hand_over: Rc::new(|_, _| {}) }
    }
}

impl Vault {
    /// What was restored, by uid, and who takes what is saved.
    pub fn new(restored: Arc<BTreeMap<String, Vec<Saved>>>, hand_over: impl Fn(&Epoch, Handed) + 'static) -> Self {
        Self { restored, hand_over: Rc::new(hand_over) }
    }

    fn load<S: Durable>(&self, state: &mut S, worker: u64, workers: usize) {
        let entries = self.restored.get(S::UID).map(Vec::as_slice).unwrap_or_default();
        let (shared, own): (Vec<&Saved>, Vec<&Saved>) = entries.iter().partition(|entry| entry.shared);
        let mine = own.into_iter().filter(|entry| owner(u64::from(entry.group), workers) == worker);
        for entry in shared.into_iter().chain(mine) {
            let (tag, body) = entry.payload.split_first().expect("an entry has a tag");
            let loaded = state.load(*tag, body);
            loaded.unwrap_or_else(|e| panic!("a verified snapshot holds an entry of {} that cannot be read: {e}", S::UID));
        }
        state.loaded();
    }
}

impl<'scope, I: 'static> Arrivals<'scope, I> {
    /// [`Arrivals::per_epoch`] over a state that is restored from `vault` first and left there at every epoch that says so.
    pub fn keep<O: Clone + 'static, S: Durable + 'static>(
        self,
        clock: &Clock,
        mut state: S,
        vault: &Vault,
        mut step: impl FnMut(&mut S, &Epoch, &mut Vec<I>, &mut Vec<O>) + 'static,
    ) -> StreamVec<'scope, u64, O> {
        let (worker, workers) = (self.scope().index() as u64, self.scope().peers());
        vault.load(&mut state, worker, workers);
        let hand_over = vault.hand_over.clone(); // not what was restored: it is needed once
        self.per_epoch(clock, S::UID, move |epoch, rows, out| {
            step(&mut state, epoch, rows, out);
            if epoch.save {
                let mut saver = Saver { worker, workers, entries: Vec::new() };
                state.save(&mut saver);
                hand_over(epoch, Handed { uid: S::UID.to_string(), entries: saver.entries });
            }
        })
    }
}
