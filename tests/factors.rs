//! Factors in the whole path: the same for any workers, batching and stop; those of a plain sequential computation once a set has
//! grown; and what was undone or forgotten before a set began was never there. Their arithmetic is tested beside it, their quality
//! by `overdrive eval`.

#[path = "support/dataflow.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod dataflow;

use dataflow::{Kept, Log, Run, item, resume_by, run_by, user};
use overdrive::dataflows::Params;
use overdrive::model::time::SECOND;
use overdrive::model::{Change, Control, Event, Input, ItemId, Kind, Op, Ranker, UserId};
use overdrive::scoring::factors::{Base, Gram, Settings, Solver, Vector};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Settings under which a set grows within thirty epochs: five halves of two rounds of three.
fn params() -> Params {
    let mut params = dataflow::params();
    params.factors.enabled = true;
    (params.factors.sweeps, params.factors.rounds) = (2, 2);
    params
}

const GROWN: usize = 30;

fn view(user: UserId, item: ItemId, id: u64, at: i64) -> Event {
    Event { id, user, item, kind: Kind::View, op: Op::Add, at, value_milli: None }
}

/// Users take items, each event at a second of its own, two an epoch.
fn log(acts: &[(u8, u8)]) -> Log {
    let mut log = Log::with_catalogue();
    for (n, acts) in acts.chunks(2).enumerate() {
        let events = acts.iter().enumerate().map(|(i, (who, what))| {
            let clock = log.advance(SECOND);
            Input::Event(view(user(*who), item(*what), (n * 2 + i) as u64 * 0x9e37_79b9, clock))
        });
        let events = events.collect();
        log.epoch(events);
    }
    log
}

/// Two sets grow, then everyone is ranked.
fn with_rest(mut log: Log) -> Log {
    (0..2 * GROWN + 6).for_each(|_| log.epoch(vec![]));
    log.epoch((0..8).map(|who| Input::Control(Control::Rank { user: user(who), by: Ranker::Factors })).collect());
    log
}

fn rankings(log: &Log, how: Run) -> BTreeMap<UserId, Vec<ItemId>> {
    let changes = run_by(log, how, &params());
    let ranking = |change: Change| match change {
        Change::Ranking(user, ranking) => Some((user, ranking.into_iter().map(|(item, _)| item).collect())),
        _ => None,
    };
    changes.into_values().flatten().filter_map(ranking).collect()
}

/// What the stages of the factors keep, in an order of its own.
fn of_factors(kept: &Kept) -> [Vec<(u16, Vec<u8>)>; 3] {
    ["tastes/1", "makers/1", "shelves/1"].map(|uid| {
        let mut entries: Vec<_> = kept[uid].iter().map(|entry| (entry.group, entry.payload.clone())).collect();
        entries.sort_unstable();
        entries
    })
}

fn acts() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0u8..8, 0u8..12), 10..60)
}

/// The set that grows of what was taken, by plain loops: all users, all items, in turn.
fn plainly(acts: &[(u8, u8)]) -> BTreeMap<UserId, Vec<ItemId>> {
    let mut first: BTreeMap<(UserId, ItemId), i64> = BTreeMap::new();
    acts.iter().enumerate().for_each(|(n, (who, what))| _ = first.entry((user(*who), item(*what))).or_insert(n as i64));
    let factors = params().factors;
    let settings = Settings { alpha: factors.alpha as f32, reg: factors.reg as f32 };
    let latest = |mut of: Vec<(i64, u64)>| {
        of.sort_unstable_by_key(|(at, _)| -at);
        of.into_iter().map(|(_, id)| id).collect::<Vec<u64>>()
    };
    let by = |key: fn(&(UserId, ItemId)) -> u64, other: fn(&(UserId, ItemId)) -> u64| {
        let mut rows: BTreeMap<u64, Vec<(i64, u64)>> = BTreeMap::new();
        first.iter().for_each(|(pair, at)| rows.entry(key(pair)).or_default().push((*at, other(pair))));
        rows.into_iter().map(|(key, row)| (key, latest(row))).collect::<BTreeMap<u64, Vec<u64>>>()
    };
    let (users, items) = (by(|p| p.0.0, |p| p.1.0), by(|p| p.1.0, |p| p.0.0));
    let mut solver = Solver::default();
    let mut half = |rows: &BTreeMap<u64, Vec<u64>>, others: &BTreeMap<u64, Vector>| -> BTreeMap<u64, Vector> {
        let base = Base::new(&Gram::of(others.values()), &settings);
        let solve = |(key, row): (&u64, &Vec<u64>)| {
            (*key, solver.solve(&base, row.iter().map(|other| &others[other])).expect("somebody"))
        };
        rows.iter().map(solve).collect()
    };
    let mut of_users: BTreeMap<u64, Vector> = users.keys().map(|user| (*user, Vector::drawn(*user))).collect();
    let mut of_items = BTreeMap::new();
    for _ in 0..factors.sweeps {
        of_items = half(&items, &of_users);
        of_users = half(&users, &of_items);
    }
    let ranked = |(user, vector): (&u64, &Vector)| {
        let taken: BTreeSet<u64> = users[user].iter().copied().collect();
        let others = of_items.iter().filter(|(item, _)| !taken.contains(item));
        let mut scores: Vec<(f32, u64)> = others.map(|(item, of)| (vector.dot(of), *item)).collect();
        scores.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        (UserId(*user), scores.into_iter().map(|(_, item)| ItemId(item)).collect())
    };
    of_users.iter().map(ranked).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_for_any_workers_batching_and_stop(acts in acts(), cut in 0.0f64..1.0) {
        // some act while a set grows and when one serves; newcomers take what others give back, and somebody is forgotten
        let mut log = with_rest(log(&acts));
        for (n, (who, what)) in acts.iter().take(20).enumerate() {
            let (at, who) = (1 + n * 7 % (log.epochs.len() - 1), who + 8 * (n % 2) as u8);
            log.insert(at, Input::Event(view(user(who), item(11 - *what), 900_000 + n as u64, 0)));
        }
        for (n, (who, what)) in acts.iter().take(20).enumerate().filter(|(n, _)| n % 3 == 0) {
            let undo = Event { op: Op::Undo, ..view(user(*who), item(*what), 950_000 + n as u64, 0) };
            log.insert(1 + (n * 11 + 5) % (log.epochs.len() - 1), Input::Event(undo));
        }
        log.insert(log.epochs.len() * 2 / 3, Input::Control(Control::Forget { user: user(acts[0].0) }));
        let whole = run_by(&log, Run { workers: 1, one_by_one: false }, &params());
        for (workers, one_by_one) in [(2, false), (4, true)] {
            prop_assert_eq!(&whole, &run_by(&log, Run { workers, one_by_one }, &params()), "{} workers", workers);
        }
        let cut = (log.epochs.len() as f64 * cut) as u64;
        let kept = |log: &Log, from: &Kept, workers| resume_by(&log.saved_at_the_end(), from, Run { workers, one_by_one: false }, &params());
        let (_, at_cut) = kept(&log.until(cut), &Kept::new(), 4);
        let (resumed, at_end) = kept(&log.since(cut), &at_cut, 2);
        prop_assert_eq!(resumed.range(cut..).collect::<Vec<_>>(), whole.range(cut..).collect::<Vec<_>>());
        prop_assert!(of_factors(&at_end) == of_factors(&kept(&log, &Kept::new(), 1).1), "what is kept after a stop, and by one worker");
    }

    #[test]
    fn what_has_grown_is_that_of_plain_loops(acts in acts()) {
        let ranked = rankings(&with_rest(log(&acts)), Run { workers: 2, one_by_one: false });
        let mut wanted = plainly(&acts);
        (0..8).for_each(|who| _ = wanted.entry(user(who)).or_default());
        prop_assert_eq!(ranked, wanted);
    }

    #[test]
    fn an_undo_leaves_no_trace(acts in acts(), at in 0.0f64..1.0, until in 0.0f64..1.0) {
        let without = log(&acts);
        let mut with = without.clone();
        let (first, last) = dataflow::two_places(without.epochs.len(), at, until);
        let event = |op| Input::Event(Event { op, ..view(user(3), item(20), 777_777, 0) });
        with.insert(first, event(Op::Add));
        with.insert(last, event(Op::Undo));
        prop_assert_eq!(rankings(&with_rest(with), Run::plain()), rankings(&with_rest(without), Run::plain()));
    }

    #[test]
    fn a_forgotten_user_was_never_there(acts in acts(), who in 0u8..8) {
        let mut with = log(&acts);
        let mut without = with.without_user(user(who));
        with.epoch(vec![Input::Control(Control::Forget { user: user(who) })]);
        without.epoch(vec![]);
        let (with, without) = (with_rest(with), with_rest(without));
        prop_assert_eq!(rankings(&with, Run::plain()), rankings(&without, Run::plain()));
        let kept = |log: &Log| {
            let (_, kept) = resume_by(&log.saved_at_the_end(), &Kept::new(), Run::plain(), &params());
            of_factors(&kept)
        };
        prop_assert!(kept(&with) == kept(&without), "what is kept tells that there was somebody");
    }
}

/// Two crowds with tastes of their own. A newcomer who takes two items of the one is shown the others of it.
#[test]
fn a_newcomer_is_folded_in_at_once_and_shown_what_the_factors_say() {
    let mut log = Log::with_catalogue();
    let mut id = 0;
    for who in 0..40u8 {
        for what in (0..12u8).filter(|what| what % 2 == who % 2 && (who / 2 + what) % 6 > 1) {
            let clock = log.advance(SECOND);
            id += 1;
            log.epoch(vec![Input::Event(view(user(who), item(what), id, clock))]);
        }
    }
    (0..2 * GROWN).for_each(|_| log.epoch(vec![]));
    let clock = log.advance(SECOND);
    log.epoch([1, 3].map(|what| Input::Event(view(user(200), item(what), 90_000 + u64::from(what), clock))).to_vec());
    log.epoch(vec![Input::Control(Control::Rank { user: user(200), by: Ranker::Factors })]);
    let ranked = &rankings(&log, Run::plain())[&user(200)];
    let odd: BTreeSet<ItemId> = [5, 7, 9, 11].map(item).into_iter().collect();
    assert_eq!(ranked[..4].iter().copied().collect::<BTreeSet<_>>(), odd);
    let mut told = run_by(&log, Run::plain(), &params()).into_values().flatten().filter_map(|change| match change {
        Change::Slate { user: of, slate: Some(slate), .. } if of == user(200) => Some(slate),
        _ => None,
    });
    let slate = told.next().expect("who takes something has a slate");
    assert!(slate.items.iter().any(|shown| odd.contains(&shown.item)));
}
