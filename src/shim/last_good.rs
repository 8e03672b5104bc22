//! What feeds were last made of, by surface and user: while the store is away they are made of it again, and say `stale`.
//!
//! What must stay true: the memory is bounded; while the store is away one request at a time asks it, and then nobody does for as long as
//! that took, half a second at most: the others wait for nothing, and the return of the store is noticed within a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use super::aging::Aging;
use super::read::Own;
use crate::model::Surface;

/// Bytes an entry costs besides its texts: the map's and the vectors' own.
const ENTRY: usize = 160;
/// The same for each item seen.
const SEEN_ITEM: usize = 32;

/// The copies.
pub struct LastGood {
    copies: Mutex<Aging<Arc<Own>>>,
    away: AtomicBool,
    /// Held by whoever asks a store that is away; until when nobody does.
    asking: tokio::sync::Mutex<()>,
    rests_until: Mutex<Option<Instant>>,
}

/// How long nobody asks a store that was long in not answering.
const REST: Duration = Duration::from_millis(500);

impl LastGood {
    /// At most `bytes` of them, each for at most `lifetime`.
    pub fn new(bytes: usize, lifetime: Duration) -> Self {
        let copies = Mutex::new(Aging::new(bytes, lifetime, Instant::now()));
        Self { copies, away: AtomicBool::new(false), asking: tokio::sync::Mutex::new(()), rests_until: Mutex::default() }
    }

    /// The right to ask the store; `None` while it is away, and somebody else is asking or has just asked.
    pub fn ask(&self) -> Option<Ask<'_>> {
        self.ask_at(Instant::now())
    }

    fn ask_at(&self, begun: Instant) -> Option<Ask<'_>> {
        let ask = |turn| Ask { of: self, begun, _turn: turn };
        if !self.away.load(Ordering::Relaxed) {
            return Some(ask(None));
        }
        let rests = self.rests_until.lock().expect("no panic under the lock").is_some_and(|until| begun < until);
        self.asking.try_lock().ok().filter(|_| !rests).map(|turn| ask(Some(turn)))
    }

    /// Keeps what a feed was made of. What holds nothing takes the place of what did.
    pub fn keep(&self, surface: Surface, user: &str, own: &Arc<Own>) {
        let (mut copies, key) = (self.copies.lock().expect("no panic under the lock"), key(surface, user));
        match (&own.slate, own.seen.is_empty()) {
            (None, true) => copies.remove(&key),
            _ => copies.put(&key, own.clone(), weight(&key, own), Instant::now()),
        }
    }

    /// What the user's feed was last made of.
    pub fn get(&self, surface: Surface, user: &str) -> Option<Arc<Own>> {
        self.copies.lock().expect("no panic under the lock").get(&key(surface, user), Instant::now()).cloned()
    }

    /// Drops the copies of a user who is to be forgotten.
    pub fn forget(&self, surfaces: impl Iterator<Item = Surface>, user: &str) {
        let mut copies = self.copies.lock().expect("no panic under the lock");
        surfaces.for_each(|surface| copies.remove(&key(surface, user)));
    }
}

/// A name of a surface has no colon in it.
fn key(surface: Surface, user: &str) -> String {
    format!("{}:{user}", surface.name())
}

/// The right to ask, given back when it is dropped.
pub struct Ask<'a> {
    of: &'a LastGood,
    begun: Instant,
    _turn: Option<MutexGuard<'a, ()>>,
}

impl Ask<'_> {
    /// The store answered, or did not.
    pub fn answered(&self, whether: bool) {
        self.answered_at(whether, Instant::now());
    }

    fn answered_at(&self, whether: bool, now: Instant) {
        let until = (!whether).then(|| now + (now - self.begun).min(REST));
        *self.of.rests_until.lock().expect("no panic under the lock") = until;
        self.of.away.store(!whether, Ordering::Relaxed);
    }
}

fn weight(key: &str, own: &Own) -> usize {
    let seen: usize = own.seen.iter().map(|(item, _)| item.len() + SEEN_ITEM).sum();
    ENTRY + key.len() + own.slate.as_ref().map_or(0, bytes::Bytes::len) + seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(slate: &'static [u8]) -> Arc<Own> {
        Arc::new(Own { slate: Some(slate.into()), seen: Vec::new() })
    }

    #[test]
    fn the_last_word_on_a_user_counts_and_memory_is_bounded() {
        let copies = LastGood::new(4 * (ENTRY + 13), Duration::from_secs(60));
        copies.keep(Surface::HOME, "u", &own(b"old"));
        copies.keep(Surface::HOME, "u", &own(b"new"));
        assert_eq!(copies.get(Surface::HOME, "u").and_then(|own| own.slate.clone()).as_deref(), Some(b"new".as_slice()));
        copies.keep(Surface::HOME, "u", &Arc::default());
        assert!(copies.get(Surface::HOME, "u").is_none(), "a user who is gone from the store is gone here");
        (0..100).for_each(|i| copies.keep(Surface::HOME, &format!("u{i}"), &own(b"slate")));
        assert!((2..=4).contains(&(0..100).filter(|i| copies.get(Surface::HOME, &format!("u{i}")).is_some()).count()));
        let more = Surface::named("more");
        copies.keep(more, "u99", &own(b"more"));
        assert!(copies.get(Surface::HOME, "u99").is_some() && copies.get(more, "u99").is_some(), "each surface has its own");
        copies.forget([Surface::HOME, more].into_iter(), "u99");
        assert!(copies.get(more, "u99").is_none());
        assert!(copies.get(Surface::HOME, "u99").is_none());
    }

    #[test]
    fn one_at_a_time_asks_a_store_that_is_away() {
        let (copies, now) = (LastGood::new(0, Duration::from_secs(60)), Instant::now());
        let asks = |at: Instant| copies.ask_at(at);
        assert!(asks(now).is_some_and(|_one| asks(now).is_some()));
        asks(now).expect("it is there").answered_at(false, now);
        let turn = asks(now).expect("nobody asks");
        assert!(asks(now).is_none());
        turn.answered_at(false, now + Duration::from_secs(1));
        drop(turn);
        let [rests, rested] = [1_499, 1_500].map(|ms| now + Duration::from_millis(ms));
        assert!(asks(rests).is_none(), "half a second after it gave up");
        asks(rested).expect("nobody asks").answered_at(true, rested);
        assert!(asks(rested).is_some_and(|_one| asks(rested).is_some()));
    }
}
