//! The neighbours stages against a hand-written loop that keeps the same histories and the same rows: 300 k events over 20 k Zipf
//! items, 1000 events an epoch, a tick every half second; once by 10 k users (30 items a history, as active users have), once by
//! 100 k (3 items, a cold start). Prints events/s of both and the ratio.

mod common;

use common::{Rng, Zipf, median};
use overdrive::dataflows::ledger::{Touch, UserDelta};
use overdrive::dataflows::neighbours;
use overdrive::model::{Epoch, ItemId, Kind, Turn, UserId};
use overdrive::operators::{Arrive, Clock, Vault};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use std::time::Instant;
use timely::dataflow::InputHandle;
use timely::dataflow::operators::{Input, Probe};

const EVENTS: usize = 300_000;
const PER_EPOCH: usize = 1_000;

fn epoch(number: u64) -> Epoch {
    let clock_ms = 1_763_600_000_000 + number as i64 * 200;
    Epoch { number, clock_ms, turn: Turn::all_if(number.is_multiple_of(3)), ..Epoch::default() }
}

fn workload(users: u64) -> Vec<Vec<Arc<UserDelta>>> {
    let (mut rng, zipf, mut seen) = (Rng(42), Zipf::new(20_000), FxHashSet::default());
    let mut delta = |number: u64| loop {
        let (user, item) = (rng.below(users), zipf.draw(&mut rng));
        if seen.insert((user, item)) {
            let (user, item) = (UserId::of(&user.to_string()), ItemId::of(&item.to_string()));
            let at = epoch(number).clock_ms;
            let touch = Touch { positive: Some((at, at)), kind: Some(Kind::View), seen: Some(at), against: None };
            break Arc::new(UserDelta { user, touches: vec![(item, Some(touch))], ..UserDelta::default() });
        }
    };
    (0..(EVENTS / PER_EPOCH) as u64).map(|n| (0..PER_EPOCH).map(|_| delta(n)).collect()).collect()
}

/// The same job as one loop: the last `reach` items of a user, a row of counts per item, the nearest of each changed row at a tick.
fn by_hand(epochs: &[Vec<Arc<UserDelta>>], params: &overdrive::dataflows::Params) -> f64 {
    let (reach, kept) = (params.neighbours.reach, params.neighbours.kept);
    let mut histories: FxHashMap<UserId, Vec<ItemId>> = FxHashMap::default();
    let mut rows: FxHashMap<ItemId, (FxHashMap<ItemId, u32>, u32)> = FxHashMap::default();
    let mut dirty: FxHashSet<ItemId> = FxHashSet::default();
    let began = Instant::now();
    for (number, deltas) in epochs.iter().enumerate() {
        for delta in deltas {
            let item = delta.touches[0].0;
            let history = histories.entry(delta.user).or_default();
            for other in history.iter().rev().take(reach) {
                for (a, b) in [(item, *other), (*other, item)] {
                    let (counts, floor) = rows.entry(a).or_default();
                    let count = counts.entry(b).or_insert(0);
                    *count += 1;
                    if *count >= *floor {
                        dirty.insert(a);
                    }
                }
            }
            history.push(item);
        }
        if epoch(number as u64).tick() {
            for item in dirty.drain() {
                let (counts, floor) = rows.get_mut(&item).expect("known");
                let mut nearest: Vec<_> = counts.iter().map(|(b, n)| (*b, *n)).collect();
                let order = |a: &(ItemId, u32), b: &(ItemId, u32)| b.1.cmp(&a.1).then(a.0.cmp(&b.0));
                if nearest.len() > kept {
                    nearest.select_nth_unstable_by(kept - 1, order);
                    nearest.truncate(kept);
                }
                nearest.sort_unstable_by(order);
                *floor = if nearest.len() < kept { 0 } else { nearest[kept - 1].1 };
                std::hint::black_box(nearest);
            }
        }
    }
    EVENTS as f64 / began.elapsed().as_secs_f64()
}

/// The stages as `recommend` runs them.
fn by_stage(epochs: &Arc<Vec<Vec<Arc<UserDelta>>>>, params: &overdrive::dataflows::Params, workers: usize) -> f64 {
    let (epochs, params) = (epochs.clone(), params.clone());
    let config = if workers == 1 { timely::Config::thread() } else { timely::Config::process(workers) };
    let began = Instant::now();
    let guards = timely::execute(config, move |worker| {
        let (mut deltas, mut clock) = (InputHandle::new(), InputHandle::new());
        let probe = worker.dataflow(|scope| {
            let (clock, deltas) = Clock::pacing(scope.input_from(&mut clock), scope.input_from(&mut deltas));
            let out = neighbours::neighbours(deltas, &clock, &params, &Vault::default());
            out.arrive()
                .per_epoch(&clock, "Drop", |_, rows, _: &mut Vec<()>| drop(std::hint::black_box(std::mem::take(rows))))
                .probe()
                .0
        });
        let (index, peers) = (worker.index(), worker.peers());
        for (number, all) in epochs.iter().enumerate() {
            let mine = all.iter().filter(|d| overdrive::operators::route::owner(d.user.0, peers) == index as u64);
            deltas.send_batch(&mut mine.cloned().collect());
            clock.send(epoch(number as u64));
            deltas.advance_to(number as u64 + 1);
            clock.advance_to(number as u64 + 1);
            worker.step_while(|| probe.less_than(&(number as u64).saturating_sub(8)));
        }
    });
    guards.expect("workers start").join();
    EVENTS as f64 / began.elapsed().as_secs_f64()
}

fn compare(users: u64) {
    let params = overdrive::config::Config::defaults().recommend;
    let epochs = Arc::new(workload(users));
    let (mut hand, mut one, mut two) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..5 {
        hand.push(by_hand(&epochs, &params));
        one.push(by_stage(&epochs, &params, 1));
        two.push(by_stage(&epochs, &params, 2));
    }
    let ratio = |a: &[f64], b: &[f64]| median(a.iter().zip(b).map(|(a, b)| a / b).collect());
    println!(
        "neighbours, {users} users: hand loop {:.0} k events/s, stages {:.0} k, two workers {:.0} k",
        median(hand.clone()) / 1e3,
        median(one.clone()) / 1e3,
        median(two.clone()) / 1e3
    );
    println!(
        "neighbours, {users} users: stages / hand loop {:.2}; two workers / one {:.2}",
        ratio(&one, &hand),
        ratio(&two, &one)
    );
}

fn main() {
    compare(10_000);
    compare(100_000);
}
