//! What feeds were last made of, by surface and user: while the store is away they are made of it again, and say `stale`.
//!
//! What must stay true: the memory is bounded; while the store is away one request at a time asks it, so that the others wait for
//! nothing and the first answer of its return is noticed.

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
    /// Held by whoever asks a store that is away.
    asking: tokio::sync::Mutex<()>,
}

impl LastGood {
    /// At most `bytes` of them, each for at most `lifetime`.
    pub fn new(bytes: usize, lifetime: Duration) -> Self {
        let copies = Mutex::new(Aging::new(bytes, lifetime, Instant::now()));
        Self { copies, away: AtomicBool::new(false), asking: tokio::sync::Mutex::new(()) }
    }

    /// The right to ask the store; `None` while it is away and somebody else is asking.
    pub fn ask(&self) -> Option<Ask<'_>> {
        match self.away.load(Ordering::Relaxed) {
            true => self.asking.try_lock().ok().map(|turn| Ask(Some(turn))),
            false => Some(Ask(None)),
        }
    }

    /// The store answered, or did not.
    pub fn answered(&self, whether: bool) {
        self.away.store(!whether, Ordering::Relaxed);
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
pub struct Ask<'a>(#[expect(dead_code, reason = "held, not read")] Option<MutexGuard<'a, ()>>);

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
        let copies = LastGood::new(0, Duration::from_secs(60));
        assert!(copies.ask().is_some() && copies.ask().is_some());
        copies.answered(false);
        let turn = copies.ask();
        assert!(turn.is_some() && copies.ask().is_none());
        drop(turn);
        assert!(copies.ask().is_some());
        copies.answered(true);
        let (one, other) = (copies.ask(), copies.ask());
        assert!(one.is_some() && other.is_some());
    }
}
