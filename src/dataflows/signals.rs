//! Windowed counts, weighted sums, velocity, decay and rates of users, items, categories and authors.
//!
//! The fact that must stay true: what is emitted for a key is whole and right at the clock of its epoch. A user or item changed by a
//! record is emitted in the same epoch. What changed by expiry alone, and categories and authors, which every other record
//! changes, are emitted within `settle`, key group by key group, so that a pane that closes is no burst.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Map;

use super::SignalsParams;
use super::ledger::{Update, UserDelta};
use crate::model::decayed::{Decayed, Share};
use crate::model::ids::{KEY_GROUPS, key_group};
use crate::model::kind::Weights;
use crate::model::signals::Priors;
use crate::model::time::{DAY, Millis};
use crate::model::{Epoch, Kind, SignalKey, Signals, Turn};
use crate::operators::window::{Entry, Panes};
use crate::operators::{Clock, Durable, Route, Saver, Vault};

/// One record of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Count {
    pub key: SignalKey,
    pub kind: Kind,
    pub at: Millis,
    pub diff: i32,
    pub share: Share,
}

/// Whole new signals of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub key: SignalKey,
    /// `None`: nothing counts any more.
    pub signals: Option<Arc<Signals>>,
    /// The decayed sum in a form that time does not change ([`Decayed::forward_micro`]).
    pub forward_micro: Option<i64>,
}

/// The stage: each user's changes in, new signals of every key they count for out.
pub fn signals<'scope>(
    deltas: StreamVec<'scope, u64, Arc<UserDelta>>,
    clock: &Clock,
    params: &super::Params,
    vault: &Vault,
) -> StreamVec<'scope, u64, Change> {
    let (weights, half_life) = (params.weights.table(), params.signals.half_life);
    let state = State::new(&params.signals, weights.clone());
    let own = deltas.flat_map(move |delta| counts(&delta, &weights, half_life)).route(|count| count.key.hash());
    own.keep(clock, state, vault, State::step)
}

/// The records of a user's delta, under every key they count for.
pub fn counts(delta: &UserDelta, weights: &Weights, half_life: Millis) -> Vec<Count> {
    let mut counts = Vec::with_capacity(delta.updates.len() * 4);
    for update in &delta.updates {
        let (at, diff) = (update.at, update.diff);
        let share = Share::new(at, weights.milli(update.kind), diff, half_life);
        counts.extend(keys(delta, update).map(|key| Count { key, kind: update.kind, at, diff: diff as i32, share }));
    }
    counts
}

fn keys<'a>(delta: &UserDelta, update: &'a Update) -> impl Iterator<Item = SignalKey> + use<'a> {
    let facts = update.facts.as_deref();
    let categories = facts.into_iter().flat_map(|f| f.categories.iter().map(|c| SignalKey::Category(*c)));
    let author = facts.and_then(|f| f.author).map(SignalKey::Author);
    [SignalKey::User(delta.user), SignalKey::Item(update.item)].into_iter().chain(categories).chain(author)
}

/// What is kept of one key beside its panes.
#[derive(Clone, Debug, Default)]
struct Key {
    slots: SmallVec<[(Kind, u32); 4]>,
    decayed: Decayed,
    /// Changed since it was last emitted.
    dirty: bool,
    /// What was emitted last was something.
    shown: bool,
}

/// The state of one worker.
pub struct State {
    weights: Weights,
    priors: Priors,
    half_life: Millis,
    settle: Millis,
    panes: Panes,
    keys: FxHashMap<SignalKey, Key>,
    /// The key of each slot.
    owners: Vec<SignalKey>,
    free: Vec<u32>,
    /// Keys that are not emitted at once, per key group, until the group's turn.
    settling: Vec<BTreeSet<SignalKey>>,
    turn: Option<i64>,
    day: i64,
}

/// A key as it is saved: its panes by kind.
#[derive(Serialize, Deserialize)]
struct Kept {
    name: SignalKey,
    counts: Vec<(Kind, Vec<Entry>)>,
    decayed: Decayed,
    dirty: bool,
    settling: bool,
    shown: bool,
}

impl Durable for State {
    const UID: &'static str = "signals/1";

    fn save(&self, into: &mut Saver) {
        let clocks = (self.panes.clocks(), self.turn, self.day);
        into.shared(0, 0, move || clocks);
        let panes = self.panes.clone();
        let by_slot = Arc::new(LazyLock::new(move || panes.by_slot()));
        for (name, Key { slots, decayed, dirty, shown }) in self.keys.clone() {
            let by_slot = by_slot.clone();
            let settling = self.settling[key_group(name.hash()) as usize].contains(&name);
            into.own(1, name.hash(), move || {
                let counts = slots.iter().map(|(kind, slot)| (*kind, by_slot.of(*slot).to_vec())).collect();
                Kept { name, counts, decayed, dirty, settling, shown }
            });
        }
    }

    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        if tag == 0 {
            let (clocks, turn, day): (Option<Vec<i64>>, _, _) = postcard::from_bytes(body)?;
            (self.turn, self.day) = (turn, day);
            clocks.iter().for_each(|clocks| self.panes.set_clocks(clocks));
            return Ok(());
        }
        let kept: Kept = postcard::from_bytes(body)?;
        let mut key = Key { slots: SmallVec::new(), decayed: kept.decayed, dirty: kept.dirty, shown: kept.shown };
        for (kind, entries) in kept.counts {
            let slot = self.slot(kept.name);
            key.slots.push((kind, slot));
            entries.into_iter().for_each(|entry| self.panes.put(slot, entry));
        }
        if kept.settling {
            self.settling[key_group(kept.name.hash()) as usize].insert(kept.name);
        }
        self.keys.insert(kept.name, key);
        Ok(())
    }
}

impl State {
    /// Nothing counted yet.
    pub fn new(params: &SignalsParams, weights: Weights) -> Self {
        Self {
            weights,
            priors: params.priors(),
            half_life: params.half_life,
            settle: params.settle,
            panes: Panes::default(),
            keys: FxHashMap::default(),
            owners: Vec::new(),
            free: Vec::new(),
            settling: vec![BTreeSet::new(); KEY_GROUPS as usize],
            turn: None,
            day: 0,
        }
    }

    /// One epoch.
    pub fn step(&mut self, epoch: &Epoch, counts: &mut Vec<Count>, out: &mut Vec<Change>) {
        self.expire(epoch.clock_ms);
        let mut touched: Vec<SignalKey> = Vec::with_capacity(counts.len());
        for count in counts.drain(..) {
            self.count(count);
            match count.key {
                SignalKey::User(_) | SignalKey::Item(_) => touched.push(count.key),
                shared => drop(self.settling[key_group(shared.hash()) as usize].insert(shared)),
            }
        }
        if epoch.retell.is_some() {
            touched.extend(self.retold(epoch));
        }
        touched.sort_unstable();
        touched.dedup();
        for key in touched.into_iter().chain(self.settled(epoch)) {
            self.emit(key, epoch.clock_ms, out);
        }
        self.sweep(epoch.clock_ms, out);
    }

    fn expire(&mut self, clock: Millis) {
        let (owners, keys, settling) = (&self.owners, &mut self.keys, &mut self.settling);
        self.panes.advance(clock, |slot| {
            let owner = owners[slot as usize];
            let key = keys.get_mut(&owner).expect("a slot in a pane has an owner");
            if !key.dirty {
                key.dirty = true;
                settling[key_group(owner.hash()) as usize].insert(owner);
            }
        });
    }

    fn count(&mut self, count: Count) {
        let known = self.keys.get(&count.key).and_then(|key| key.slots.iter().find(|(kind, _)| *kind == count.kind));
        let known = known.map(|(_, slot)| *slot);
        let slot = known.unwrap_or_else(|| self.slot(count.key));
        let key = self.keys.entry(count.key).or_default();
        if known.is_none() {
            key.slots.push((count.kind, slot));
            key.slots.sort_unstable();
        }
        key.dirty = true;
        key.decayed.put(count.share);
        self.panes.add(slot, count.at, count.diff);
    }

    /// The keys that are said once more.
    fn retold(&mut self, epoch: &Epoch) -> Vec<SignalKey> {
        let again = self.keys.iter_mut().filter(|(key, of)| of.shown && epoch.retells(key.hash()));
        let dirty = again.map(|(key, of)| {
            of.dirty = true;
            *key
        });
        dirty.collect()
    }

    fn slot(&mut self, name: SignalKey) -> u32 {
        let slot = self.free.pop().unwrap_or(self.owners.len() as u32);
        if slot as usize == self.owners.len() {
            self.owners.push(name);
        }
        self.owners[slot as usize] = name;
        slot
    }

    /// The keys whose group has its turn between the last clock and this one.
    fn settled(&mut self, epoch: &Epoch) -> Vec<SignalKey> {
        let groups = KEY_GROUPS as i64;
        let turn = epoch.clock_ms * groups / self.settle.max(1);
        let passed = turn - self.turn.replace(turn).unwrap_or(turn);
        // a tick of a clock that stands still: a quiet stream of recorded events has no other turn
        let all = self.settle == 0 || (epoch.turn == Turn::ALL && passed == 0);
        let due = if all { groups } else { passed.min(groups) };
        (turn - due..turn).flat_map(|t| std::mem::take(&mut self.settling[t.rem_euclid(groups) as usize])).collect()
    }

    fn emit(&mut self, key: SignalKey, clock: Millis, out: &mut Vec<Change>) {
        let Some(of) = self.keys.get_mut(&key).filter(|k| k.dirty) else { return };
        of.dirty = false;
        of.decayed.prune(clock, self.half_life);
        let counts: Vec<_> = of.slots.iter().map(|(kind, slot)| (*kind, self.panes.totals(*slot))).collect();
        let live: Vec<_> = counts.into_iter().filter(|(_, n)| n.iter().any(|n| *n > 0)).collect();
        of.shown = !live.is_empty() || !of.decayed.is_empty();
        let decayed = of.decayed.value(clock, self.half_life);
        let signals = of.shown.then(|| Arc::new(Signals::derive(live, decayed, &self.weights, &self.priors)));
        out.push(Change { key, signals, forward_micro: of.decayed.forward_micro() });
    }

    /// Once a day, lets go of keys of which nothing counts any more.
    fn sweep(&mut self, clock: Millis, out: &mut Vec<Change>) {
        let day = clock.div_euclid(DAY);
        if std::mem::replace(&mut self.day, day) == day {
            return;
        }
        let (panes, half_life, free) = (&self.panes, self.half_life, &mut self.free);
        let mut gone: Vec<SignalKey> = Vec::new();
        self.keys.retain(|name, key| {
            key.decayed.prune(clock, half_life);
            let keep = key.dirty || !key.decayed.is_empty() || key.slots.iter().any(|(_, slot)| panes.holds(*slot));
            if !keep {
                free.extend(key.slots.iter().map(|(_, slot)| *slot));
                gone.extend(key.shown.then_some(*name));
            }
            keep
        });
        gone.sort_unstable();
        out.extend(gone.into_iter().map(|key| Change { key, signals: None, forward_micro: None }));
    }
}
