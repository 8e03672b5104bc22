//! A map that forgets: what was put last is there, what is too much or too old goes. Two halves: entries go into the young one; when
//! that is full or half a lifetime old, it becomes the old one, and what the old one held is gone.
//!
//! What must stay true: the weights of all entries together never exceed what was allowed, and nothing is found that is older than
//! its lifetime.

use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// The map; keys are texts.
pub struct Aging<V> {
    most: usize,
    lifetime: Duration,
    young: Half<V>,
    old: Half<V>,
}

struct Half<V> {
    begun: Instant,
    weight: usize,
    entries: HashMap<Box<str>, (V, usize)>,
}

impl<V> Half<V> {
    fn new(begun: Instant) -> Self {
        Self { begun, weight: 0, entries: HashMap::new() }
    }

    fn remove(&mut self, key: &str) {
        if let Some((_, weight)) = self.entries.remove(key) {
            self.weight -= weight;
        }
    }
}

impl<V> Aging<V> {
    /// An empty one, for entries of `most` weight together. An entry is there for at least half of `lifetime`, if there is room, and
    /// at most all of it.
    pub fn new(most: usize, lifetime: Duration, now: Instant) -> Self {
        Self { most, lifetime, young: Half::new(now), old: Half::new(now) }
    }

    /// Puts an entry in the place of the one before. What weighs more than half of everything is not kept.
    pub fn put(&mut self, key: &str, value: V, weight: usize, now: Instant) {
        self.remove(key);
        if weight > self.most / 2 {
            return;
        }
        if self.young.weight + weight > self.most / 2 || now >= self.young.begun + self.lifetime / 2 {
            self.old = std::mem::replace(&mut self.young, Half::new(now));
        }
        self.young.weight += weight;
        self.young.entries.insert(key.into(), (value, weight));
    }

    /// The entry put last, if it is still there.
    pub fn get(&self, key: &str, now: Instant) -> Option<&V> {
        let halves = [&self.young, &self.old].into_iter().filter(|half| now < half.begun + self.lifetime);
        halves.into_iter().find_map(|half| half.entries.get(key)).map(|(value, _)| value)
    }

    /// Takes an entry out.
    pub fn remove(&mut self, key: &str) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(10);

    #[test]
    fn what_is_too_much_or_too_old_goes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut map = Aging::new(4, LIFETIME, start);
        map.put("a", 1, 1, start);
        map.put("b", 2, 1, start);
        map.put("c", 3, 1, at(1));
        assert_eq!(["a", "b", "c"].map(|key| map.get(key, at(1)).copied()), [Some(1), Some(2), Some(3)]);
        map.put("a", 4, 2, at(2));
        assert_eq!(["a", "b", "c"].map(|key| map.get(key, at(2)).copied()), [Some(4), None, Some(3)], "the third half");
        map.put("c", 5, 3, at(2));
        assert_eq!(map.get("c", at(2)), None, "too heavy, and the one before is no longer true");
        assert_eq!((map.get("a", at(11)), map.get("a", at(12))), (Some(&4), None));
        map.remove("a");
        assert_eq!(map.get("a", at(2)), None);
    }

    #[test]
    fn a_lifetime_ends_halves_that_are_not_full() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut map = Aging::new(100, LIFETIME, start);
        map.put("a", 1, 1, at(4));
        map.put("b", 2, 1, at(6));
        assert_eq!(map.get("a", at(9)), Some(&1));
        assert_eq!((map.get("a", at(10)), map.get("b", at(10))), (None, Some(&2)));
        map.put("c", 3, 1, at(11));
        assert_eq!((map.old.entries.len(), map.young.entries.len()), (1, 1), "what was old is not even held");
    }
}
