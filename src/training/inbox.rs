//! Where the feed and whoever trains meet: what was asked for, and what ranks since when.
//!
//! The facts that must stay true: what was asked for is written down before the epoch that has the order is bound, and stays so until it
//! was done, so that no crash forgets it; one that comes twice is one. The feed waits for no file but at such an order.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::status::{Attempt, Promoted, Status};
use crate::model::serving::{Recipe, Serving};
use crate::model::time::{Millis, now_ms};
use crate::registry::Registry;

/// How often a training may end with its process before it is given up.
const TRIES: u32 = 3;

/// The inbox. A clone is the same one.
#[derive(Clone)]
pub struct Inbox(Arc<Inner>);

struct Inner {
    registry: Registry,
    /// What is trained where an order does not say.
    model: Recipe,
    known: Mutex<Known>,
    /// Held by whoever writes the file; taken before what is known is looked at, so that the latest is written last.
    file: Mutex<()>,
    rings: Condvar,
}

/// What is known there.
#[derive(Default)]
pub(super) struct Known {
    pub status: Status,
    pub serving: Serving,
    /// Whether the file lacks something.
    pub unwritten: bool,
    pub stop: bool,
}

impl Inbox {
    /// In the registry, where it was left: what ran and ended with its process is asked for again.
    pub fn open(registry: Registry, model: Recipe) -> Result<Self, String> {
        let mut status = Status::read_or_begin(&registry)?;
        if let Some(ended) = status.running.take() {
            if status.tries < TRIES {
                status.asked.insert(ended.model);
            } else {
                status.asked.remove(&ended.model);
                status.tries = 0;
                let why = format!("it ended with the engine {TRIES} times; the log of the engine says why");
                let (version, figures, promoted) = (None, None, false);
                let (model, began_ms, ended_ms) = (ended.model, ended.began_ms, now_ms());
                status.last = Some(Attempt { model, began_ms, ended_ms, version, figures, promoted, why });
            }
        }
        let known = Mutex::new(Known { status, ..Known::default() });
        Ok(Self(Arc::new(Inner { registry, model, known, file: Mutex::default(), rings: Condvar::new() })))
    }

    /// Asks for a model, by this recipe or by that of the settings. What could not be written down is not asked for.
    pub fn ask(&self, recipe: Option<Recipe>) -> Result<(), String> {
        let recipe = recipe.unwrap_or(self.0.model);
        let _file = self.0.file.lock().expect("no panic under the lock");
        let mut status = self.known().status.clone();
        status.asked.insert(recipe);
        status.write(&self.0.registry)?;
        self.known().status.asked.insert(recipe);
        self.0.rings.notify_all();
        Ok(())
    }

    /// Hears what ranks from an epoch on, and its clock.
    pub fn serves(&self, serving: &Serving, clock: Millis) {
        let mut known = self.known();
        let now = serving.now.as_ref().map(|now| now.name.as_str());
        let waits = known.status.promoted.as_ref().is_some_and(|of| of.since_ms.is_none() && now == Some(of.version.as_str()));
        if known.serving == *serving && !waits {
            return;
        }
        known.serving = serving.clone();
        match known.status.promoted.take() {
            Some(Promoted { version, since_ms }) if now == Some(version.as_str()) => {
                known.status.promoted = Some(Promoted { version, since_ms: since_ms.or(Some(clock)) });
            }
            Some(Promoted { version, since_ms: None }) => {
                known.status.promoted = Some(Promoted { version, since_ms: None }); // its order is on the way
            }
            Some(Promoted { version, .. }) => {
                let back = known.status.taking_back.take().filter(|back| back.version == version);
                known.status.taken_back = back.or(known.status.taken_back.take());
            }
            None => {}
        }
        known.unwritten = true;
        self.0.rings.notify_all();
    }

    pub(super) fn stop(&self) {
        self.known().stop = true;
        self.0.rings.notify_all();
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().expect("no panic under the lock")
    }

    /// Changes how training stands and writes it down. What cannot be written is told and tried again with the next.
    pub(super) fn note(&self, change: impl FnOnce(&mut Status)) {
        let _file = self.0.file.lock().expect("no panic under the lock");
        let status = {
            let mut known = self.known();
            change(&mut known.status);
            known.unwritten = false;
            known.status.clone()
        };
        if let Err(why) = status.write(&self.0.registry) {
            tracing::warn!(why, "how training stands is not written down");
        }
    }

    /// Waits so long, or until something is asked for, has to be written down, or is to stop.
    pub(super) fn wait(&self, longest: Duration) {
        let waits = |known: &mut Known| !known.stop && !known.unwritten && known.status.asked.is_empty();
        drop(self.0.rings.wait_timeout_while(self.known(), longest, waits).expect("no panic under the lock"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::{Doing, TakenBack};
    use super::*;
    use crate::model::serving::Version;

    const LONG: Duration = Duration::from_secs(600);

    fn serving(name: &str) -> Serving {
        Serving { now: Some(Version { name: name.into(), digest: 1 }), ..Serving::default() }
    }

    fn status(inbox: &Inbox) -> Status {
        inbox.known().status.clone()
    }

    #[test]
    fn c35_what_is_asked_for_outlives_the_process_also_when_it_has_begun_but_not_for_ever() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || Inbox::open(Registry::new(dir.path()), Recipe::Lambdarank).expect("it can be read");
        let inbox = open();
        inbox.ask(None).expect("written");
        inbox.ask(Some(Recipe::Lr)).expect("written");
        inbox.wait(LONG); // something is asked for
        assert_eq!(status(&open()).asked, [Recipe::Lr, Recipe::Lambdarank].into());
        let doing = Doing { model: Recipe::Lr, began_ms: 1, done: 0.5, what: "a tree".into() };
        for tries in 1..=TRIES {
            inbox.note(|status| (status.asked, status.running, status.tries) = ([].into(), Some(doing.clone()), tries));
            let again = status(&open());
            assert_eq!((again.running, again.asked.contains(&Recipe::Lr)), (None, tries < TRIES));
            assert_eq!(again.last.is_some_and(|last| last.why.contains("3 times")), tries == TRIES);
        }
        inbox.note(|status| status.running = None);
        inbox.stop();
        inbox.wait(LONG);

        let folder = dir.path().join("folder");
        let nowhere = Inbox::open(Registry::new(&folder), Recipe::Lr).expect("nothing was asked for");
        std::fs::write(&folder, "a file").expect("there is room");
        assert!(nowhere.ask(None).is_err_and(|why| why.contains("cannot be written")));
        assert_eq!(status(&nowhere).asked, [].into(), "what could not be written down is not asked for");
    }

    #[test]
    fn c35_a_promoted_version_is_followed_from_when_it_ranks_until_something_else_does() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = || Inbox::open(Registry::new(dir.path()), Recipe::Lambdarank).expect("it can be read");
        let inbox = open();
        let since = |inbox: &Inbox| status(inbox).promoted.map(|of| (of.version, of.since_ms));
        inbox.note(|status| status.promoted = Some(Promoted { version: "lr-1".into(), since_ms: None }));
        inbox.serves(&serving("other"), 5);
        assert_eq!(since(&inbox), Some(("lr-1".into(), None)), "its order is on the way");
        inbox.serves(&serving("lr-1"), 7);
        inbox.serves(&serving("lr-1"), 8);
        inbox.wait(LONG); // there is something to be written down
        inbox.note(|_| ());
        let again = open();
        again.serves(&serving("lr-1"), 9);
        assert_eq!(since(&again), Some(("lr-1".into(), Some(7))));
        again.serves(&serving("other"), 10);
        assert_eq!((since(&again), status(&again).taken_back), (None, None), "somebody had something else rank");
        again.serves(&serving("lr-1"), 11);
        assert_eq!(since(&again), None, "and what they have rank is theirs to take back");

        inbox.note(|status| status.taking_back = Some(TakenBack { version: "lr-1".into(), why: "behind".into() }));
        inbox.serves(&serving("lr-1"), 12);
        assert_eq!(status(&inbox).taken_back, None, "the order is on the way");
        inbox.serves(&Serving::default(), 13);
        assert_eq!(status(&inbox).taken_back.map(|back| back.version), Some("lr-1".into()));
    }
}
