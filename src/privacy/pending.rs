//! The orders that are not done, in a file of their own: `pending.json`. It holds numbers, no name: a user is the hash of one.

use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::model::forget::Order;
use crate::model::time::Millis;
use crate::model::{Origin, UserId};

/// An order and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiting {
    pub user: UserId,
    /// Where the order lies in the log, which tells it from others.
    pub origin: Origin,
    pub epoch: u64,
    /// The store shows answers without the user.
    pub applied: bool,
    /// The first snapshot without the user, and when it was taken.
    pub clean: Option<(u64, Millis)>,
}

/// All of them, and the file.
pub struct Pending {
    folder: PathBuf,
    waiting: Vec<Waiting>,
    /// What the file holds.
    saved: Vec<Waiting>,
}

impl Pending {
    /// As the run before left them in `folder`.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let path = folder.join("pending.json");
        let waiting: Vec<Waiting> = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                format!(
                    "{} makes no sense: {e}; put back a copy, or move it away and give the orders to forget again",
                    path.display()
                )
            })?,
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(format!("cannot read {}: {e}; check the disk and the permissions", path.display())),
        };
        Ok(Self { folder: folder.to_path_buf(), saved: waiting.clone(), waiting })
    }

    pub fn all(&self) -> &[Waiting] {
        &self.waiting
    }

    pub fn all_mut(&mut self) -> &mut Vec<Waiting> {
        &mut self.waiting
    }

    /// An epoch took an order in: perhaps again, as another epoch than before a crash.
    pub fn add(&mut self, order: &Order) {
        let Order { user, origin, epoch } = *order;
        let new = Waiting { user, origin, epoch, applied: false, clean: None };
        match self.waiting.iter_mut().find(|known| known.user == user && known.origin == origin) {
            Some(known) if known.epoch == epoch => {}
            Some(known) => *known = new,
            None => self.waiting.push(new),
        }
    }

    /// These are done.
    pub fn remove(&mut self, done: &[Waiting]) {
        self.waiting.retain(|waiting| !done.contains(waiting));
    }

    /// Durably, when there is something new.
    pub fn save(&mut self) -> Result<(), String> {
        if self.saved != self.waiting {
            let place = self.folder.join("pending.json");
            self.write(&place)
                .map_err(|e| format!("cannot write {}: {e}; check the disk and the permissions", place.display()))?;
            self.saved.clone_from(&self.waiting);
        }
        Ok(())
    }

    fn write(&self, place: &Path) -> io::Result<()> {
        let beside = self.folder.join("pending.json.unfinished");
        let mut file = File::create(&beside)?;
        file.write_all(&serde_json::to_vec(&self.waiting).expect("numbers are JSON"))?;
        file.sync_all()?;
        std::fs::rename(&beside, place)?;
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_there_after_a_crash_and_an_order_in_another_epoch_begins_anew() {
        let dir = tempfile::tempdir().expect("a folder for the test");
        let order = |offset, epoch| {
            let origin = Origin { offset, ..Origin::default() };
            Order { user: UserId(u64::MAX), origin, epoch }
        };
        let mut pending = Pending::open(dir.path()).expect("nothing waits");
        [order(1, 7), order(2, 8), order(1, 7)].iter().for_each(|order| pending.add(order));
        pending.all_mut()[0].applied = true;
        pending.save().expect("written");
        let mut again = Pending::open(dir.path()).expect("reads");
        assert_eq!(again.all(), pending.all());
        again.add(&order(1, 7));
        assert!(again.all()[0].applied, "the same epoch once more");
        again.add(&order(1, 9));
        assert_eq!((again.all()[0].epoch, again.all()[0].applied), (9, false));
        let done = again.all()[..1].to_vec();
        again.remove(&done);
        again.save().expect("written");
        assert_eq!(Pending::open(dir.path()).expect("reads").all(), &pending.all()[1..]);

        std::fs::write(dir.path().join("pending.json"), "{").expect("damaged");
        let error = Pending::open(dir.path()).err().expect("it makes no sense");
        assert!(error.contains("pending.json makes no sense"), "{error}");
    }
}
