//! Counts per key over sliding windows, by panes.
//!
//! The fact that must stay true: at every clock the total of a key in a window is the sum of the differences of its records whose
//! pane the window holds (see [`Window::holds`]), late, early or taken back. Each resolution keeps the panes its longest window
//! needs; when the clock passes a pane's boundary, what enters is added and what leaves is subtracted, and each key that changed
//! is marked.

use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::time::{Millis, Window};

const WINDOWS: usize = Window::ALL.len();

/// Panes of one width and the windows made of them.
#[derive(Clone, Debug)]
struct Ring {
    resolution: Millis,
    /// Index in [`Window::ALL`] and width in panes, ascending.
    windows: Vec<(usize, i64)>,
    /// Shared with copies of the whole; then copied before they change.
    panes: BTreeMap<i64, Arc<FxHashMap<u32, i32>>>,
    /// The pane of the clock; nothing counts before the first clock.
    now: i64,
}

/// A count of one slot in one pane: ring, pane, count.
pub type Entry = (u8, i64, i32);

/// The entries of all slots, one slot after another.
pub struct BySlot {
    ends: Vec<usize>,
    entries: Vec<Entry>,
}

impl BySlot {
    /// Those of one slot.
    pub fn of(&self, slot: u32) -> &[Entry] {
        let slot = slot as usize;
        self.ends.get(slot..slot + 2).map_or(&[], |ends| &self.entries[ends[0]..ends[1]])
    }
}

/// Windowed counts by slot: a dense number the caller gives to each thing it counts. A copy shares the panes until they change.
#[derive(Clone, Debug)]
pub struct Panes {
    rings: Vec<Ring>,
    totals: Vec<[u32; WINDOWS]>,
    started: bool,
}

impl Default for Panes {
    fn default() -> Self {
        let mut rings: Vec<Ring> = Vec::new();
        for (index, window) in Window::ALL.into_iter().enumerate() {
            let width = (index, window.width() / window.resolution());
            match rings.iter_mut().find(|r| r.resolution == window.resolution()) {
                Some(ring) => ring.windows.push(width),
                None => {
                    rings.push(Ring { resolution: window.resolution(), windows: vec![width], panes: BTreeMap::new(), now: 0 })
                }
            }
        }
        Self { rings, totals: Vec::new(), started: false }
    }
}

impl Panes {
    /// The counts of a slot in each window.
    pub fn totals(&self, slot: u32) -> [u32; WINDOWS] {
        self.totals.get(slot as usize).copied().unwrap_or_default()
    }

    /// Moves the clock; calls `changed` for every slot with a count that entered or left a window.
    pub fn advance(&mut self, clock: Millis, mut changed: impl FnMut(u32)) {
        for ring in &mut self.rings {
            let now = clock.div_euclid(ring.resolution);
            if !self.started {
                ring.now = now;
            } else if now > ring.now {
                ring.move_to(now, &mut self.totals, &mut changed);
            }
        }
        self.started = true;
    }

    /// Counts a record (or with -1 takes it back). Out of every window it changes nothing; ahead of the clock it waits.
    pub fn add(&mut self, slot: u32, at: Millis, diff: i32) {
        self.reach(slot);
        let totals = &mut self.totals[slot as usize];
        for ring in &mut self.rings {
            ring.add(slot, at.div_euclid(ring.resolution), diff, totals);
        }
    }

    /// The pane of the clock in each ring, once there was a clock.
    pub fn clocks(&self) -> Option<Vec<i64>> {
        self.started.then(|| self.rings.iter().map(|ring| ring.now).collect())
    }

    /// Sets the clocks of empty panes to what [`Panes::clocks`] said.
    pub fn set_clocks(&mut self, clocks: &[i64]) {
        self.rings.iter_mut().zip(clocks).for_each(|(ring, now)| ring.now = *now);
        self.started = true;
    }

    /// Every slot's entries.
    pub fn by_slot(&self) -> BySlot {
        let all = || {
            let rings = self.rings.iter().enumerate();
            let panes = rings.flat_map(|(ring, of)| of.panes.iter().map(move |(pane, entries)| (ring as u8, *pane, entries)));
            panes
                .flat_map(|(ring, pane, entries)| entries.iter().map(move |(slot, count)| (*slot as usize, (ring, pane, *count))))
        };
        let mut ends = vec![0; self.totals.len() + 1];
        all().for_each(|(slot, _)| ends[slot + 1] += 1);
        for slot in 1..ends.len() {
            ends[slot] += ends[slot - 1];
        }
        let mut next = ends.clone();
        let mut entries = vec![Entry::default(); next[self.totals.len()]];
        for (slot, entry) in all() {
            entries[next[slot]] = entry;
            next[slot] += 1;
        }
        BySlot { ends, entries }
    }

    /// Puts an entry of [`Panes::by_slot`] back.
    pub fn put(&mut self, slot: u32, (ring, pane, count): Entry) {
        self.reach(slot);
        let Self { rings, totals, .. } = self;
        if let Some(ring) = rings.get_mut(usize::from(ring)) {
            ring.add(slot, pane, count, &mut totals[slot as usize]);
        }
    }

    fn reach(&mut self, slot: u32) {
        if self.totals.len() <= slot as usize {
            self.totals.resize(slot as usize + 1, [0; WINDOWS]);
        }
    }

    /// Whether some pane still holds an entry of this slot.
    pub fn holds(&self, slot: u32) -> bool {
        self.rings.iter().flat_map(|ring| ring.panes.values()).any(|pane| pane.contains_key(&slot))
    }
}

impl Ring {
    fn longest(&self) -> i64 {
        self.windows.last().expect("a ring has at least one window").1
    }

    fn add(&mut self, slot: u32, pane: i64, diff: i32, totals: &mut [u32; WINDOWS]) {
        if pane <= self.now - self.longest() {
            return;
        }
        let entries = Arc::make_mut(self.panes.entry(pane).or_default());
        let count = entries.entry(slot).or_insert(0);
        *count += diff;
        if *count == 0 {
            entries.remove(&slot);
        }
        if pane <= self.now {
            for (window, width) in &self.windows {
                if pane > self.now - width {
                    totals[*window] = totals[*window].wrapping_add_signed(diff);
                }
            }
        }
    }

    fn move_to(&mut self, now: i64, totals: &mut [[u32; WINDOWS]], changed: &mut impl FnMut(u32)) {
        for (window, width) in &self.windows {
            let leaving = self.panes.range(self.now - width + 1..=(now - width).min(self.now)).map(|p| (p, -1));
            let entering = self.panes.range((self.now + 1).max(now - width + 1)..=now).map(|p| (p, 1));
            for ((_, entries), sign) in leaving.chain(entering) {
                for (slot, count) in entries.iter() {
                    let total = &mut totals[*slot as usize][*window];
                    *total = total.wrapping_add_signed(sign * count);
                    changed(*slot);
                }
            }
        }
        self.now = now;
        self.panes = self.panes.split_off(&(now - self.longest() + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a recount of every record at every clock.
        #[test]
        fn totals_equal_a_recount(steps in prop::collection::vec((0i64..2_000_000, prop::collection::vec((0u32..3, -90_000_000i64..400_000), 0..6)), 1..40)) {
            let mut panes = Panes::default();
            let mut records: Vec<(u32, Millis)> = Vec::new();
            let mut clock = 1_700_000_000_000;
            for (advance, adds) in steps {
                clock += advance;
                let mut before: Vec<_> = (0..3).map(|s| panes.totals(s)).collect();
                panes.advance(clock, |slot| before[slot as usize] = [u32::MAX; WINDOWS]);
                for slot in 0..3u32 {
                    prop_assert!(before[slot as usize][0] == u32::MAX || before[slot as usize] == panes.totals(slot), "a change is marked");
                }
                for (slot, ago) in adds {
                    records.push((slot, clock + ago));
                    panes.add(slot, clock + ago, 1);
                    if ago % 5 == 0 {
                        let (slot, at) = records.remove(records.len() / 2);
                        panes.add(slot, at, -1);
                    }
                }
                for slot in 0..3u32 {
                    let expected: Vec<u32> = Window::ALL.iter().map(|w| records.iter().filter(|(s, at)| *s == slot && w.holds(*at, clock)).count() as u32).collect();
                    prop_assert_eq!(panes.totals(slot).to_vec(), expected);
                }
            }
        }
    }
}
