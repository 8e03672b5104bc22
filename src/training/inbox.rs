//! Where the feed and whoever trains meet: what was asked for, and what ranks since when.
//!
//! The fact that must stay true: what was asked for is written down before the epoch that has the order is bound, so that no crash
//! forgets it; one that comes twice is one.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::status::Status;
use crate::model::serving::{Recipe, Serving};
use crate::model::time::Millis;

/// The inbox. A clone is the same one.
#[derive(Clone)]
pub struct Inbox(Arc<Inner>);

struct Inner {
    registry: PathBuf,
    /// What is trained where an order does not say.
    model: Recipe,
    known: Mutex<Known>,
    rings: Condvar,
}

/// What is known there.
#[derive(Default)]
pub(super) struct Known {
    pub status: Status,
    pub serving: Serving,
    pub stop: bool,
}

impl Inbox {
    /// In the folder of versions, where it was left.
    pub fn open(registry: PathBuf, model: Recipe) -> Result<Self, String> {
        let status = Status { running: None, ..Status::read(&registry)? }; // what ran ended with its process
        let known = Mutex::new(Known { status, ..Known::default() });
        Ok(Self(Arc::new(Inner { registry, model, known, rings: Condvar::new() })))
    }

    /// Asks for a model, by this recipe or by that of the settings.
    pub fn ask(&self, recipe: Option<Recipe>) -> Result<(), String> {
        self.write(|known| known.status.asked = Some(recipe.unwrap_or(self.0.model)))
    }

    /// Hears what ranks from an epoch on, and its clock.
    pub fn serves(&self, serving: &Serving, clock: Millis) {
        let mut known = self.known();
        if known.serving != *serving {
            known.serving = serving.clone();
        }
        let Some((version, since @ None)) = &mut known.status.promoted else { return };
        if serving.now.as_ref().is_some_and(|now| now.name == *version) {
            *since = Some(clock);
            drop(known);
            self.write(|_| ()).unwrap_or_else(|why| tracing::warn!(why, "how training stands is not written down"));
        }
    }

    pub(super) fn stop(&self) {
        self.known().stop = true;
        self.0.rings.notify_all();
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().expect("no panic under the lock")
    }

    /// Changes what is known, writes it down, and wakes who waits.
    pub(super) fn write(&self, change: impl FnOnce(&mut Known)) -> Result<(), String> {
        let mut known = self.known();
        change(&mut known);
        self.0.rings.notify_all();
        known.status.write(&self.0.registry)
    }

    /// Waits so long, or until something is asked for or it is to stop.
    pub(super) fn wait(&self, longest: Duration) {
        let waits = |known: &mut Known| !known.stop && known.status.asked.is_none();
        drop(self.0.rings.wait_timeout_while(self.known(), longest, waits).expect("no panic under the lock"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::serving::Version;

    #[test]
    fn what_is_asked_for_and_since_when_a_promoted_version_ranks_outlive_the_process() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || Inbox::open(dir.path().to_path_buf(), Recipe::Lambdarank).expect("nothing is damaged");
        let inbox = open();
        inbox.ask(None).expect("written");
        assert_eq!(open().known().status.asked, Some(Recipe::Lambdarank));
        inbox.ask(Some(Recipe::Lr)).expect("written");
        inbox.write(|known| known.status.promoted = Some(("lr-1".into(), None))).expect("written");
        let serving = |name: &str| Serving { now: Some(Version { name: name.into(), digest: 1 }), ..Serving::default() };
        inbox.serves(&serving("other"), 5);
        assert_eq!(open().known().status.promoted, Some(("lr-1".to_string(), None)));
        inbox.serves(&serving("lr-1"), 7);
        inbox.serves(&serving("lr-1"), 8);
        let again = open().known().status.clone();
        assert_eq!((again.promoted, again.asked), (Some(("lr-1".into(), Some(7))), Some(Recipe::Lr)));
        inbox.wait(Duration::from_secs(600)); // something is asked for
        inbox.write(|known| known.status.asked = None).expect("written");
        inbox.stop();
        inbox.wait(Duration::from_secs(600));
    }
}
