//! The signals stage against a hand-written loop over the same panes: 100 k users, 20 k Zipf items, 1000 events an epoch, five
//! windows. Prints events/s of both, the ratio, and what a second worker brings.

mod common;

use common::{Rng, Zipf, median};
use overdrive::dataflows::ledger::{Update, UserDelta};
use overdrive::dataflows::signals;
use overdrive::model::decayed::{Decayed, Share};
use overdrive::model::time::Window;
use overdrive::model::{Epoch, ItemId, Kind, Origin, SignalKey, Signals, UserId};
use overdrive::operators::window::Panes;
use overdrive::operators::{Arrive, Clock, Vault};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::time::Instant;
use timely::dataflow::InputHandle;
use timely::dataflow::operators::{Input, Probe};

const EVENTS: usize = 1_000_000;
const PER_EPOCH: usize = 1_000;
const START: i64 = 1_763_600_000_000;

fn epoch(number: u64) -> Epoch {
    let clock_ms = START + number as i64 * 200; // 5,000 events a second
    Epoch { number, clock_ms, ..Epoch::default() }
}

fn workload() -> Vec<Vec<Arc<UserDelta>>> {
    let (mut rng, zipf) = (Rng(42), Zipf::new(20_000));
    let delta = |number: u64, rng: &mut Rng| {
        let (user, item) = (UserId::of(&rng.below(100_000).to_string()), ItemId::of(&zipf.draw(rng).to_string()));
        let kind = [Kind::View, Kind::Click, Kind::Like, Kind::Dwell][rng.below(4) as usize];
        let update =
            Update { item, kind, at: epoch(number).clock_ms, value_milli: None, origin: Origin::default(), facts: None, diff: 1 };
        Arc::new(UserDelta { user, updates: vec![update], ..UserDelta::default() })
    };
    (0..(EVENTS / PER_EPOCH) as u64).map(|n| (0..PER_EPOCH).map(|_| delta(n, &mut rng)).collect()).collect()
}

/// The same job as one loop: no streams, no routing, no queue of what settles later.
fn by_hand(epochs: &[Vec<Arc<UserDelta>>], params: &overdrive::dataflows::Params) -> (f64, usize) {
    #[derive(Default)]
    struct Key {
        slots: Vec<(Kind, u32)>,
        decayed: Decayed,
        dirty: bool,
    }
    let (weights, priors, half_life) = (params.weights.table(), params.signals.priors(), params.signals.half_life);
    let (mut panes, mut keys, mut owners) = (Panes::default(), FxHashMap::<SignalKey, Key>::default(), Vec::new());
    let (mut dirty, mut emitted) = (Vec::new(), 0);
    let began = Instant::now();
    for (number, deltas) in epochs.iter().enumerate() {
        let clock = epoch(number as u64).clock_ms;
        panes.advance(clock, |slot: u32| {
            let owner: SignalKey = owners[slot as usize];
            let key = keys.get_mut(&owner).expect("known");
            if !key.dirty {
                key.dirty = true;
                dirty.push(owner);
            }
        });
        for delta in deltas {
            for update in &delta.updates {
                let share = Share::new(update.at, weights.milli(update.kind), update.diff, half_life);
                for name in [SignalKey::User(delta.user), SignalKey::Item(update.item)] {
                    let key = keys.entry(name).or_default();
                    let slot = match key.slots.iter().find(|(kind, _)| *kind == update.kind) {
                        Some((_, slot)) => *slot,
                        None => {
                            owners.push(name);
                            key.slots.push((update.kind, owners.len() as u32 - 1));
                            owners.len() as u32 - 1
                        }
                    };
                    key.decayed.put(share);
                    panes.add(slot, update.at, 1);
                    if !key.dirty {
                        key.dirty = true;
                        dirty.push(name);
                    }
                }
            }
        }
        for name in dirty.drain(..) {
            let key = keys.get_mut(&name).expect("known");
            key.dirty = false;
            key.decayed.prune(clock, half_life);
            let counts: Vec<_> = key
                .slots
                .iter()
                .map(|(kind, slot)| (*kind, panes.totals(*slot)))
                .filter(|(_, n)| n[Window::H24 as usize] > 0)
                .collect();
            let signals = Arc::new(Signals::derive(counts, key.decayed.value(clock, half_life), &weights, &priors));
            std::hint::black_box((signals, key.decayed.forward_micro()));
            emitted += 1;
        }
    }
    (EVENTS as f64 / began.elapsed().as_secs_f64(), emitted)
}

/// The stage as `recommend` runs it.
fn by_stage(epochs: &Arc<Vec<Vec<Arc<UserDelta>>>>, params: &overdrive::dataflows::Params, workers: usize) -> f64 {
    let (epochs, params) = (epochs.clone(), params.clone());
    let config = if workers == 1 { timely::Config::thread() } else { timely::Config::process(workers) };
    let began = Instant::now();
    let guards = timely::execute(config, move |worker| {
        let (mut deltas, mut clock) = (InputHandle::new(), InputHandle::new());
        let probe = worker.dataflow(|scope| {
            let (clock, deltas) = Clock::pacing(scope.input_from(&mut clock), scope.input_from(&mut deltas));
            let out = signals::signals(deltas, &clock, &params, &Vault::default());
            out.arrive()
                .per_epoch(&clock, "Drop", |_, rows, _: &mut Vec<()>| drop(std::hint::black_box(std::mem::take(rows))))
                .probe()
                .0
        });
        let (index, peers) = (worker.index(), worker.peers());
        for (number, all) in epochs.iter().enumerate() {
            let mut mine: Vec<_> = all.iter().skip(index).step_by(peers).cloned().collect();
            deltas.send_batch(&mut mine);
            clock.send(epoch(number as u64));
            deltas.advance_to(number as u64 + 1);
            clock.advance_to(number as u64 + 1);
            worker.step_while(|| probe.less_than(&(number as u64).saturating_sub(8)));
        }
    });
    guards.expect("workers start").join();
    EVENTS as f64 / began.elapsed().as_secs_f64()
}

fn main() {
    let params = overdrive::config::Config::defaults().recommend;
    let epochs = Arc::new(workload());
    let (mut hand, mut one, mut two) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        hand.push(by_hand(&epochs, &params).0);
        one.push(by_stage(&epochs, &params, 1));
        two.push(by_stage(&epochs, &params, 2));
    }
    let ratio = |a: &[f64], b: &[f64]| median(a.iter().zip(b).map(|(a, b)| a / b).collect());
    println!(
        "signals: hand loop {:.0} k events/s, stage {:.0} k, two workers {:.0} k",
        median(hand.clone()) / 1e3,
        median(one.clone()) / 1e3,
        median(two.clone()) / 1e3
    );
    println!("signals: stage / hand loop {:.2}; two workers / one {:.2}", ratio(&one, &hand), ratio(&two, &one));
}
