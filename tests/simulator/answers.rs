//! The answer store: the real memory store behind a line that is at times cut, loses an answer, or delivers a batch long after it was
//! given up; and a reader who looks at every key after every action.

use overdrive::sinks::layout;
use overdrive::sinks::memory::{Dumped, Memory};
use overdrive::sinks::{Applied, Fence, Found, Known, Store, StoreError, Swept, Write};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::crash::Fate;
use super::dice::Dice;
use super::mutant::Mutant;

/// What survives processes.
#[derive(Clone)]
pub struct Answers(Arc<Mutex<Server>>);

struct Server {
    memory: Memory,
    away: bool,
    /// Batches on their way that their writer has given up.
    late: Vec<Vec<Write>>,
    dice: Dice,
    mutant: Option<Mutant>,
    /// Writes so far.
    taken: u64,
}

impl Answers {
    pub fn new(dice: Dice, mutant: Option<Mutant>) -> Self {
        let memory = Memory::new("od:");
        Self(Arc::new(Mutex::new(Server { memory, away: false, late: Vec::new(), dice, mutant, taken: 0 })))
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        self.0.lock().expect("nobody dies under the lock")
    }

    /// From now on nothing arrives, or everything does.
    pub fn be_away(&self, away: bool) {
        self.server().away = away;
    }

    /// Delivers a batch that was given up; `false`: there is none.
    pub fn deliver_late(&self) -> bool {
        let server = &mut *self.server();
        if server.late.is_empty() {
            return false;
        }
        let at = server.dice.below(server.late.len());
        let batch = server.late.swap_remove(at);
        for write in &batch {
            server.take(write);
        }
        true
    }

    /// Writes so far: whether there is something new to read.
    pub fn taken(&self) -> u64 {
        self.server().taken
    }

    /// Every key as readers find it.
    pub fn dump(&self) -> BTreeMap<String, Dumped> {
        self.server().memory.dump()
    }
}

impl Server {
    fn take(&mut self, write: &Write) -> Found {
        self.taken += 1;
        let write = match self.mutant {
            Some(Mutant::Unfenced) => unfenced(write.clone(), self.taken),
            Some(Mutant::NoTombstone) => without_tombstone(write.clone()),
            _ => return self.write(std::slice::from_ref(write)),
        };
        self.write(&[write])
    }

    fn write(&mut self, writes: &[Write]) -> Found {
        self.memory.write(writes, &Applied::default(), Known::default()).expect("memory is always there")
    }

    fn show(&mut self, applied: &Applied, known: Known) -> Found {
        self.taken += 1;
        self.memory.write(&[], applied, known).expect("memory is always there")
    }
}

/// Newer than whatever is there.
fn unfenced(mut write: Write, taken: u64) -> Write {
    match &mut write {
        Write::Value { fence, .. }
        | Write::Fields { fence, .. }
        | Write::Ranked { fence, .. }
        | Write::Members { fence, .. }
        | Write::Delete { fence, .. } => *fence = Fence { epoch: u64::MAX, generation: taken as u32 },
    }
    write
}

fn without_tombstone(mut write: Write) -> Write {
    if let Write::Delete { ttl, .. } = &mut write {
        *ttl = Duration::ZERO;
    }
    write
}

/// The store as one process reaches it.
pub struct Line {
    pub answers: Answers,
    pub fate: Fate,
}

impl Line {
    /// Some keys of a batch, which may be the last that this process does.
    fn take(&self, writes: &[Write]) -> u64 {
        let take = |write: &Write| {
            let refused = self.answers.server().take(write).refused;
            self.fate.point();
            refused
        };
        writes.iter().map(take).sum()
    }

    fn some(&self, writes: &[Write]) -> usize {
        self.answers.server().dice.below(writes.len() + 1)
    }
}

impl Store for Line {
    fn write(&mut self, writes: &[Write], applied: &Applied, known: Known) -> Result<Found, StoreError> {
        self.fate.point();
        let retry = |what: &str| Err(StoreError::Retry(what.to_string()));
        let luck = self.answers.server().dice.below(100);
        if self.answers.server().away {
            return retry("away");
        }
        match luck {
            0..5 => {
                self.answers.server().late.push(writes.to_vec());
                return retry("given up");
            }
            5..10 => {
                self.take(&writes[..self.some(writes)]);
                return retry("cut");
            }
            _ => {}
        }
        let refused = self.take(writes);
        let found = self.answers.server().show(applied, known);
        self.fate.point();
        if luck < 15 { retry("the answer is lost") } else { Ok(Found { refused, ..found }) }
    }

    fn sweep(&mut self, _before: u64, _ttl: Duration) -> Result<Swept, StoreError> {
        unreachable!("nothing is ever lost here")
    }
}

/// What a reader has seen of each key: the epoch, and what it said.
#[derive(Default)]
pub struct Reader {
    seen: BTreeMap<String, (u64, Dumped)>,
    looked_at: u64,
}

impl Reader {
    /// Looks at every key: none may go back, or say another thing of the same epoch.
    pub fn look(&mut self, answers: &Answers) -> Result<(), String> {
        let taken = answers.taken();
        if std::mem::replace(&mut self.looked_at, taken) == taken {
            return Ok(());
        }
        for (key, dumped) in answers.dump() {
            let Some((epoch, content)) = epoch_of(&key, dumped)? else { continue };
            match self.seen.get(&key) {
                Some((before, _)) if epoch < *before => return Err(format!("{key} went back from epoch {before} to {epoch}")),
                // the mark moves its other half within one epoch
                Some((before, said)) if epoch == *before && *said != content && key != "od:meta" => {
                    return Err(format!("{key} says two things of epoch {epoch}"));
                }
                _ => drop(self.seen.insert(key, (epoch, content))),
            }
        }
        Ok(())
    }
}

/// The epoch a key shows, and what else, less the generation. `None`: it shows none.
fn epoch_of(key: &str, dumped: Dumped) -> Result<Option<(u64, Dumped)>, String> {
    let epoch = match &dumped {
        Dumped::Value(value) => layout::open(value).map_err(|e| format!("{key}: {e}"))?.0.epoch,
        Dumped::Fields(fields) => fields.get("epoch").and_then(|e| e.parse().ok()).ok_or(format!("{key} has no epoch"))?,
        Dumped::Ranked(_) => return Ok(None),
    };
    Ok(Some((epoch, less_generation(dumped))))
}

/// Less what tells runs apart: the generation and its checksum.
pub fn less_generation(dumped: Dumped) -> Dumped {
    match dumped {
        Dumped::Value(value) => Dumped::Value([&value[..12], &value[16..20], &value[24..]].concat().into()),
        Dumped::Fields(mut fields) => {
            fields.remove("generation");
            Dumped::Fields(fields)
        }
        ranked => ranked,
    }
}
