//! How often each item was taken, at every scale of time at once: what the blend reads as popularity, trend and age.
//!
//! The fact that must stay true: a tally is a function of the steps that count now. Its decayed sums are integers, its first and last
//! minute those of steps that are still there.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use timely::dataflow::StreamVec;

use super::trails::Count;
use crate::model::decayed::Decayed;
use crate::model::time::{MINUTE, Millis};
use crate::model::{Epoch, ItemId};
use crate::operators::{Clock, Durable, Route, Saver, Vault};

/// How many half-lives are kept beside the plain count.
pub const RUNGS: usize = 8;

/// The half-lives: ten minutes, and each four times the one before (114 days).
pub const HALF_LIVES: [Millis; RUNGS] = {
    let mut half_lives = [10 * MINUTE; RUNGS];
    let mut rung = 1;
    while rung < RUNGS {
        half_lives[rung] = 4 * half_lives[rung - 1];
        rung += 1;
    }
    half_lives
};

/// A decayed sum: what it was worth at the start of a block of one half-life, and its place among sums of that half-life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    pub block: i32,
    pub sum: f32,
    pub order: i64,
}

/// What is counted of an item. With `steps` 0 there is nothing any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    pub steps: u32,
    pub first: Millis,
    pub last: Millis,
    pub ladder: [Rung; RUNGS],
}

/// The stage: steps in, the tallies that changed out.
pub fn tallies<'scope>(
    counts: StreamVec<'scope, u64, Count>,
    clock: &Clock,
    vault: &Vault,
) -> StreamVec<'scope, u64, (ItemId, Tally)> {
    counts.route(|count| count.item.0).keep(clock, Tallies::default(), vault, Tallies::step)
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct OfItem {
    steps: u32,
    /// Steps by minute.
    minutes: BTreeMap<i32, u32>,
    ladder: [Decayed; RUNGS],
}

/// The items of one worker: shared with a snapshot that is being written; then copied before they change.
#[derive(Default)]
pub struct Tallies(FxHashMap<ItemId, Arc<OfItem>>);

impl Tallies {
    /// One epoch.
    pub fn step(&mut self, epoch: &Epoch, counts: &mut Vec<Count>, out: &mut Vec<(ItemId, Tally)>) {
        let mut changed = BTreeSet::new();
        for count in counts.drain(..) {
            Arc::make_mut(self.0.entry(count.item).or_default()).add(&count);
            changed.insert(count.item);
        }
        for item in changed {
            let of = Arc::make_mut(self.0.get_mut(&item).expect("it was just counted"));
            out.push((item, of.tell(epoch.clock_ms)));
            if of.steps == 0 {
                self.0.remove(&item);
            }
        }
    }
}

impl OfItem {
    fn add(&mut self, count: &Count) {
        self.steps = self.steps.wrapping_add_signed(count.diff);
        let minute = count.at.div_euclid(MINUTE) as i32;
        let steps = self.minutes.entry(minute).or_insert(0);
        *steps = steps.wrapping_add_signed(count.diff);
        if *steps == 0 {
            self.minutes.remove(&minute);
        }
        for (sum, half_life) in self.ladder.iter_mut().zip(HALF_LIVES) {
            sum.add(count.at, 1_000, i64::from(count.diff), half_life);
        }
    }

    fn tell(&mut self, clock: Millis) -> Tally {
        let mut tally = Tally { steps: self.steps, ..Tally::default() };
        tally.first = self.minutes.first_key_value().map_or(0, |(minute, _)| Millis::from(*minute) * MINUTE);
        tally.last = self.minutes.last_key_value().map_or(0, |(minute, _)| Millis::from(*minute) * MINUTE);
        for ((rung, sum), half_life) in tally.ladder.iter_mut().zip(&mut self.ladder).zip(HALF_LIVES) {
            sum.prune(clock, half_life);
            *rung = sum.newest().map_or(Rung::default(), |(block, value)| Rung {
                block,
                sum: value as f32,
                order: sum.forward_micro().unwrap_or(i64::MIN),
            });
        }
        tally
    }
}

impl Durable for Tallies {
    const UID: &'static str = "tallies/1";

    fn save(&self, into: &mut Saver) {
        for (item, of) in self.0.clone() {
            into.own(0, item.0, move || (item, of));
        }
    }

    fn load(&mut self, _tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        let (item, of) = postcard::from_bytes(body)?;
        self.0.insert(item, of);
        Ok(())
    }
}
