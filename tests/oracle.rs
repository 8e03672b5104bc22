//! Differential dataflow as the oracle of the neighbours: histories as a collection, links by reduce, users by count. At every epoch
//! its counts are those of our rows.

use differential_dataflow::input::InputSession;
use overdrive::config::Config;
use overdrive::dataflows::ledger::{Touch, UserDelta};
use overdrive::dataflows::neighbours::{Pairs, Rows};
use overdrive::model::{Epoch, ItemId, Kind, Turn, UserId};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A user takes an item at a time, or lets go of it.
type Act = (u64, u64, Option<i64>);
type Counts = BTreeMap<(u64, u64), isize>;

const REACH: usize = 3;
const CAPACITY: usize = 6;

/// Counts of every pair at each epoch, by differential.
fn by_differential(epochs: &[Vec<Act>]) -> Vec<Counts> {
    let (told, epochs) = (Arc::new(Mutex::new(Counts::new())), epochs.to_vec());
    let heard = told.clone();
    timely::execute_directly(move |worker| {
        let mut histories: InputSession<u64, (u64, (i64, u64)), isize> = InputSession::new();
        let probe = worker.dataflow(|scope| {
            let links = histories.to_collection(scope).reduce(|_user, items, out| {
                let latest: Vec<u64> = items.iter().rev().take(CAPACITY).rev().map(|((_, item), _)| *item).collect();
                for (i, a) in latest.iter().enumerate() {
                    out.extend(latest[i + 1..].iter().take(REACH).map(|b| ((*a, *b), 1)));
                }
            });
            let both = links.flat_map(|(_user, (a, b))| [(a, b), (b, a)]);
            let count = both.count().inspect(move |((pair, n), _, diff)| {
                let mut told = told.lock().expect("no panic");
                *told.entry(*pair).or_insert(0) += n * diff;
            });
            count.probe().0
        });
        let (mut all, mut current) = (Vec::new(), BTreeMap::new());
        for (number, acts) in epochs.iter().enumerate() {
            for (user, item, at) in acts {
                let before = match at {
                    Some(at) => current.insert((*user, *item), *at),
                    None => current.remove(&(*user, *item)),
                };
                before.inspect(|at| histories.update((*user, (*at, *item)), -1));
                at.inspect(|at| histories.update((*user, (*at, *item)), 1));
            }
            histories.advance_to(number as u64 + 1);
            histories.flush();
            worker.step_while(|| probe.less_than(histories.time()));
            let mut counts = heard.lock().expect("no panic").clone();
            counts.retain(|_, n| *n != 0);
            all.push(counts);
        }
        all
    })
}

/// The same by the stages.
fn by_stages(epochs: &[Vec<Act>]) -> Vec<Counts> {
    let mut params = Config::defaults().recommend.neighbours;
    params.reach = REACH;
    let (mut pairs, mut rows) = (Pairs::new(&params, CAPACITY), Rows::new(&params));
    let mut step = |(number, acts): (usize, &Vec<Act>)| {
        let epoch = Epoch {
            number: number as u64,
            clock_ms: 0,
            watermark_ms: 0,
            turn: Turn::all_if(number.is_multiple_of(2)),
            refreshes: None,
            save: false,
            retell: None,
            model: None,
        };
        let mut deltas: BTreeMap<u64, UserDelta> = BTreeMap::new();
        for (user, item, at) in acts {
            let delta = deltas.entry(*user).or_insert_with(|| UserDelta { user: UserId(*user), ..UserDelta::default() });
            let touch = at.map(|at| Touch { positive: Some((at, at)), kind: Some(Kind::View), seen: Some(at), against: None });
            delta.touches.push((ItemId(*item), touch));
        }
        let (mut links, mut told) = (Vec::new(), Vec::new());
        pairs.step(&epoch, &mut deltas.into_values().map(Arc::new).collect(), &mut links);
        rows.step(&epoch, &mut links, &mut told);
        rows.counts().map(|(a, b, n)| ((a.0, b.0), n as isize)).collect()
    };
    epochs.iter().enumerate().map(&mut step).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn differential_counts_the_same_users_for_every_pair(
        epochs in prop::collection::vec(prop::collection::vec((0u64..4, 0u64..9, prop::option::weighted(0.75, 0i64..50)), 0..6), 1..20)
    ) {
        prop_assert_eq!(by_stages(&epochs), by_differential(&epochs));
    }
}
