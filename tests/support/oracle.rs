//! A slow, obvious program: the rules of the ledger over a list, and a recount of everything at every epoch.

use super::dataflow::{Changes, Log};
use overdrive::dataflows::Params;
use overdrive::model::catalogue::{Item, User};
use overdrive::model::changes::Account;
use overdrive::model::ids::key_group;
use overdrive::model::time::{Millis, Window};
use overdrive::model::{Change, Event, Input, ItemId, Kind, Op, Origin, SignalKey, Surface, UserId};
use overdrive::scoring::experiments::Place;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A record that counts.
#[derive(Clone, Debug)]
struct Kept {
    event: Event,
    origin: Origin,
    facts: Option<Arc<Item>>,
}

/// Since when each user was where in the experiments.
type Stays = BTreeMap<UserId, Vec<(Millis, Option<Place>)>>;

type Counts = BTreeMap<SignalKey, BTreeMap<Kind, [u32; 5]>>;

/// Compares accounts, the counts of every key, the neighbours of every item, the sums of experiments and the arms that slates name with a
/// plain recount, epoch by epoch.
pub fn check(log: &Log, changes: &Changes, params: &Params) -> Result<(), TestCaseError> {
    let (mut kept, mut ids, mut items) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    let (mut told, mut neighbours, mut linked) = (Counts::new(), BTreeMap::new(), BTreeMap::new());
    let (mut standings, mut stays, mut said) = (Vec::new(), Stays::new(), BTreeMap::new());
    let variants = params.experiments.variants();
    for (epoch, rows) in &log.epochs {
        let mut rows: Vec<_> = rows.iter().map(|r| (r.origin, r.input.as_ref().expect("usable"))).collect();
        rows.sort_by_key(|(origin, _)| *origin);
        for (_, input) in &rows {
            if let Input::Item(item, Some(facts)) = input {
                items.insert(*item, facts.clone());
            }
        }
        for (_, input) in &rows {
            if let Input::User(user, profile) = input {
                said.insert(*user, profile.clone());
                let place = params.experiments.place(*user, profile.as_deref());
                stays.entry(*user).or_default().push((epoch.clock_ms + 1, place));
            }
        }
        let mut account = Account::default();
        for (origin, input) in &rows {
            if let Input::Event(event) = input {
                judge(event, *origin, epoch.clock_ms, params, &items, &mut kept, &mut ids, &mut account);
            }
        }
        let of_epoch: &[Change] = changes.get(&epoch.number).map_or(&[], |c| c.as_slice());
        let mut told_of = Account::default();
        for change in of_epoch {
            match change {
                Change::Signals(key, Some(s)) => drop(told.insert(*key, s.counts.iter().copied().collect())),
                Change::Signals(key, None) => drop(told.remove(key)),
                Change::Neighbours(item, _, list) => drop(neighbours.insert(*item, list.clone())),
                Change::Experiments(all) => standings = all.to_vec(),
                Change::Slate { user, surface: Surface::HOME, slate: Some(slate), .. } => {
                    let words = said.get(user).and_then(|profile: &Option<Arc<User>>| profile.as_deref());
                    let arm = params
                        .experiments
                        .place(*user, words)
                        .map(|of| &variants[usize::from(of.experiment)][usize::from(of.arm)]);
                    let named = slate.variant.as_ref();
                    prop_assert_eq!(named, arm, "where a slate says its user is, at epoch {}", epoch.number);
                }
                Change::Account(a) => told_of = Account { refreshed: 0, coalesced: 0, ..*a },
                _ => {}
            }
        }
        prop_assert_eq!(told_of, account, "the account of epoch {}", epoch.number);
        prop_assert!(told_of.balances());
        told.retain(|_, kinds| !kinds.is_empty());
        prop_assert_eq!(&told, &recount(&kept, epoch.clock_ms), "counts at epoch {}", epoch.number);
        if epoch.tick() {
            let arms = standings.iter().flat_map(|of| &of.arms).map(|arm| arm.sums.numbers());
            prop_assert_eq!(arms.collect::<Vec<_>>(), arms_of(&kept, &stays, params), "experiments at epoch {}", epoch.number);
        }
        let plain = relink(&kept, params);
        let has_turn = |item: &ItemId| (epoch.turn.from..epoch.turn.to).contains(&key_group(item.0));
        linked.retain(|item, _| !has_turn(item));
        linked.extend(plain.into_iter().filter(|(item, _)| has_turn(item)));
        {
            let told: BTreeMap<_, BTreeMap<_, _>> = neighbours
                .iter()
                .filter(|(_, list): &(_, &Vec<_>)| !list.is_empty())
                .map(|(item, list)| (*item, list.iter().map(|n| (n.item, n.users)).collect()))
                .collect();
            prop_assert_eq!(&told, &linked, "neighbours at epoch {}", epoch.number);
        }
    }
    Ok(())
}

#[allow(clippy::too_many_arguments)]
fn judge(
    event: &Event,
    origin: Origin,
    clock: Millis,
    params: &Params,
    items: &BTreeMap<ItemId, Arc<Item>>,
    kept: &mut Vec<Kept>,
    ids: &mut BTreeSet<(UserId, Op, u64)>,
    account: &mut Account,
) {
    account.consumed += 1;
    let mut event = event.clone();
    let same = |k: &Kept| (k.event.user, k.event.item, k.event.kind) == (event.user, event.item, event.kind);
    if event.op == Op::Undo {
        if !kept.iter().any(|k| k.event.user == event.user) && !ids.iter().any(|(user, _, _)| *user == event.user) {
            account.filtered += 1; // nothing was ever kept of this user, not even an id
        } else if !ids.insert((event.user, Op::Undo, event.id)) {
            account.duplicate += 1;
        } else if let Some(index) = kept.iter().position(|k| same(k) && k.event.id == event.id) {
            kept.remove(index);
            account.applied += 1;
        } else if let Some(latest) = kept.iter().filter(|k| same(k)).map(|k| (k.event.at, k.origin)).max() {
            kept.retain(|k| !(same(k) && (k.event.at, k.origin) == latest));
            account.applied += 1;
        } else {
            account.filtered += 1;
        }
        return;
    }
    if event.at > clock + params.ledger.ahead {
        event.at = clock;
        account.clamped += 1;
    }
    if ids.contains(&(event.user, Op::Add, event.id)) || (event.kind.is_set() && kept.iter().any(same)) {
        account.duplicate += 1;
        return;
    }
    ids.insert((event.user, Op::Add, event.id));
    if event.at < clock - params.ledger.lateness {
        account.late += 1
    } else {
        account.applied += 1
    }
    kept.push(Kept { facts: items.get(&event.item).cloned(), event, origin });
}

fn recount(kept: &[Kept], clock: Millis) -> Counts {
    let mut counts = Counts::new();
    for Kept { event, facts, .. } in kept {
        let mut keys = vec![SignalKey::User(event.user), SignalKey::Item(event.item)];
        let facts = facts.as_deref();
        keys.extend(facts.into_iter().flat_map(|f| f.categories.iter().map(|c| SignalKey::Category(*c))));
        keys.extend(facts.and_then(|f| f.author).map(SignalKey::Author));
        for window in Window::ALL.into_iter().filter(|w| w.holds(event.at, clock)) {
            for key in &keys {
                counts.entry(*key).or_default().entry(event.kind).or_default()[window as usize] += 1;
            }
        }
    }
    counts
}

/// The sums of every arm: what counts for where its user was at the time it says.
fn arms_of(kept: &[Kept], stays: &Stays, params: &Params) -> Vec<[i128; 11]> {
    let place_of = |event: &Event| match stays.get(&event.user).and_then(|all| all.iter().rfind(|(from, _)| *from <= event.at)) {
        Some((_, place)) => *place,
        None => params.experiments.place(event.user, None),
    };
    let users: BTreeSet<UserId> = kept.iter().map(|k| k.event.user).collect();
    let mut all = Vec::new();
    for (at, experiment) in params.experiments.list.iter().enumerate() {
        for arm in 0..experiment.arms.len() {
            let mut sums = [0; 11];
            for user in &users {
                let here = Some(Place { experiment: at as u16, arm: arm as u16 });
                let theirs = kept.iter().map(|k| &k.event).filter(|event| event.user == *user);
                let of: Vec<&Event> = theirs.filter(|event| place_of(event) == here).collect();
                if of.is_empty() {
                    continue;
                }
                let count = |is: &dyn Fn(Kind) -> bool| of.iter().filter(|event| is(event.kind)).count() as i128;
                let (i, c) = (count(&|kind| kind == Kind::Impression), count(&|kind| kind == Kind::Click));
                let t = count(&|kind| kind != Kind::Click && kind.is_positive());
                let timed = of.iter().filter(|event| matches!(event.kind, Kind::View | Kind::Dwell));
                let d: i128 =
                    timed.filter_map(|event| event.value_milli).map(|milli| i128::from(milli.clamp(0, 3_600_000))).sum();
                let own = [1, i, c, t, d, i * i, c * c, c * i, t * t, d * d, i128::from(i > 0)];
                sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
            }
            all.push(sums);
        }
    }
    all
}

/// How many users have both items within reach in their history.
fn relink(kept: &[Kept], params: &Params) -> BTreeMap<ItemId, BTreeMap<ItemId, u32>> {
    let mut firsts: BTreeMap<UserId, BTreeMap<ItemId, Millis>> = BTreeMap::new();
    for Kept { event, .. } in kept.iter().filter(|k| k.event.kind.is_positive()) {
        let first = firsts.entry(event.user).or_default().entry(event.item).or_insert(event.at);
        *first = event.at.min(*first);
    }
    let mut links: BTreeMap<ItemId, BTreeMap<ItemId, u32>> = BTreeMap::new();
    for items in firsts.values() {
        let mut history: Vec<_> = items.iter().map(|(item, first)| (*first, *item)).collect();
        history.sort_unstable();
        for (i, (_, a)) in history.iter().enumerate() {
            for (_, b) in history.iter().skip(i + 1).take(params.neighbours.reach) {
                *links.entry(*a).or_default().entry(*b).or_default() += 1;
                *links.entry(*b).or_default().entry(*a).or_default() += 1;
            }
        }
    }
    links
}
