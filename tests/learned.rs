//! The learned blend in the whole path: the same for any workers, batching and stop; what it ranks and learns from is what was known
//! before; and the reasons it gives are those of its scores. Its arithmetic is tested beside it, its quality by `overdrive eval`.

#[path = "support/dataflow.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod dataflow;

use dataflow::{Kept, Log, Run, item, resume_by, run_by, user};
use overdrive::dataflows::Params;
use overdrive::model::time::{MINUTE, SECOND};
use overdrive::model::{Change, Control, Event, Example, Input, ItemId, Kind, Op, Ranker, Reason, Slate, Source, UserId};
use overdrive::scoring::columns::COLUMNS;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Settings under which the learned blend serves soon.
fn params() -> Params {
    let mut params = dataflow::params();
    params.learn.serve_after = 5;
    params
}

fn view(user: UserId, item: ItemId, id: u64, at: i64) -> Event {
    Event { id, user, item, kind: Kind::View, op: Op::Add, at, value_milli: None }
}

/// A log in which users take one item after another: mostly the next of a ring of thirty.
fn log(acts: &[(u8, u8, i64)]) -> Log {
    let mut log = Log::with_catalogue();
    let mut at_item: BTreeMap<u8, u8> = BTreeMap::new();
    for (n, acts) in acts.chunks(2).enumerate() {
        let clock = log.advance(acts[0].2);
        let events = acts.iter().enumerate().map(|(i, (who, jump, _))| {
            let last = at_item.entry(*who).or_insert(who * 7 % 30);
            *last = (*last + if *jump < 40 { 1 } else { *jump }) % 30;
            Input::Event(view(user(*who), item(*last), (n * 2 + i) as u64 * 0x9e37_79b9, clock))
        });
        log.epoch(events.collect());
    }
    log
}

fn acts() -> impl Strategy<Value = Vec<(u8, u8, i64)>> {
    prop::collection::vec((0u8..8, 0u8..50, 0..20 * SECOND), 20..60)
}

fn slates(changes: &dataflow::Changes) -> Vec<Arc<Slate>> {
    let all = changes.values().flatten();
    all.filter_map(|change| if let Change::Slate { slate: Some(slate), .. } = change { Some(slate.clone()) } else { None })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_for_any_workers_batching_and_stop(acts in acts(), cut in 0.0f64..1.0) {
        let log = log(&acts);
        let whole = run_by(&log, Run { workers: 1, one_by_one: false }, &params());
        for (workers, one_by_one) in [(2, false), (4, true)] {
            prop_assert_eq!(&whole, &run_by(&log, Run { workers, one_by_one }, &params()), "{} workers", workers);
        }
        let cut = (log.epochs.len() as f64 * cut) as u64;
        let (_, kept) = resume_by(&log.until(cut).saved_at_the_end(), &Kept::new(), Run { workers: 4, one_by_one: false }, &params());
        let (resumed, _) = resume_by(&log.since(cut), &kept, Run { workers: 2, one_by_one: true }, &params());
        prop_assert_eq!(resumed.range(cut..).collect::<Vec<_>>(), whole.range(cut..).collect::<Vec<_>>());
    }

    /// Rankings by what is counted alone: after an event and its undo, put anywhere, they are as if it had not been.
    #[test]
    fn an_undo_leaves_no_trace_in_what_is_counted(acts in acts(), at in 0.0f64..1.0, until in 0.0f64..1.0, what in 0u8..12) {
        let mut without = log(&acts);
        let clock = without.advance(SECOND);
        let rank = |who: u8, by| Input::Control(Control::Rank { user: user(who), by });
        without.epoch(vec![]);
        for by in [Ranker::Popularity(2), Ranker::Popularity(8), Ranker::Nearness(4)] {
            without.epoch((0..8).map(|who| rank(who, by)).collect());
        }
        let mut with = without.clone();
        let (first, last) = dataflow::two_places(without.epochs.len() - 3, at, until);
        let event = |op| Input::Event(Event { op, ..view(user(3), item(what), 777_777, clock) });
        with.insert(first, event(Op::Add));
        with.insert(last, event(Op::Undo));
        let rankings = |log: &Log| {
            let changes = run_by(log, Run::plain(), &params());
            changes.into_values().flatten().filter(|change| matches!(change, Change::Ranking(..))).collect::<Vec<_>>()
        };
        let (with, without) = (rankings(&with), rankings(&without));
        prop_assert_eq!(without.len(), 24);
        prop_assert_eq!(with, without);
    }
}

/// What is ranked in the epoch that brings a user's events is what was known before it.
#[test]
fn a_ranking_does_not_know_the_events_of_its_epoch() {
    let acts: Vec<(u8, u8, i64)> = (0..80).map(|n| (n % 8, 0, SECOND)).collect();
    let ask = Input::Control(Control::Rank { user: user(2), by: Ranker::Blend });
    let (mut before, mut with) = (log(&acts), log(&acts));
    let clock = before.advance(MINUTE);
    with.advance(MINUTE);
    before.epoch(vec![ask.clone()]);
    let events = (0..20).map(|n| Input::Event(view(user(n % 8), item(40 + n), 5_000 + u64::from(n), clock)));
    with.epoch([ask].into_iter().chain(events).collect());
    let ranking = |log: &Log| {
        let changes = run_by(log, Run::plain(), &params());
        let last = changes.into_values().flatten().filter_map(|change| match change {
            Change::Ranking(_, ranking) => Some(ranking),
            _ => None,
        });
        last.last().expect("it was asked for")
    };
    assert_eq!(ranking(&before), ranking(&with));
    assert!(ranking(&before).len() > 5);
}

/// Everyone who takes an item of a pair takes the other one next. Who has one of a pair is shown the other, because of it.
#[test]
fn the_reason_names_what_made_the_score() {
    let mut log = Log::with_catalogue();
    let mut id = 0;
    for round in 0..120u8 {
        let pair = round % 5;
        let clock = log.advance(10 * SECOND);
        let first = item(2 * pair);
        id += 2;
        log.epoch(vec![Input::Event(view(user(round), first, id, clock))]);
        let clock = log.advance(SECOND);
        log.epoch(vec![Input::Event(view(user(round), item(2 * pair + 1), id + 1, clock))]);
    }
    let clock = log.advance(10 * SECOND);
    log.epoch(vec![Input::Event(view(user(200), item(4), 9_999, clock))]);
    let learned = run_by(&log, Run::plain(), &params());
    let last_slate =
        |changes: &dataflow::Changes| slates(changes).into_iter().rfind(|slate| slate.user == user(200)).expect("a slate");
    let last = last_slate(&learned);
    let top = &last.items[0];
    let because = Reason::Because { kind: Kind::View, item: item(4) };
    assert_eq!((top.item, top.source, top.reason), (item(5), Source::Neighbours, because));
    assert_eq!(top.score_micro, 1_000_000, "the best is one");
    assert!(last.items.windows(2).all(|two| two[0].score_micro >= two[1].score_micro));

    let mut fixed = params();
    fixed.learn.enabled = false;
    let unlearned = last_slate(&run_by(&log, Run::plain(), &fixed));
    assert_ne!(unlearned.items, last.items, "the learned blend is what serves");
    let mut told = learned.values().flatten().filter_map(|c| if let Change::Learned(learned) = c { Some(learned) } else { None });
    let told = told.next_back().expect("what was learned is told");
    assert!(told.serves && told.groups > 100 && told.weights.iter().any(|(name, weight)| name == "next" && *weight > 0.0));
}

/// What is logged of an item that is shown is what a lesson of the same epoch says of it, for any number of workers.
#[test]
fn what_is_logged_of_what_is_shown_was_known_before_it() {
    let acts: Vec<(u8, u8, i64)> = (0..120).map(|n| (n % 8, n % 50, SECOND)).collect();
    let mut log = log(&acts);
    let clock = log.advance(MINUTE);
    let of = |who: u8, what: u8, kind, n: u64| Input::Event(Event { kind, ..view(user(who), item(what), 9_000 + n, clock) });
    let shown = |who: u8| [0, 1, 11].map(|what| of(who, what, Kind::Impression, u64::from(who) * 16 + u64::from(what)));
    let took = |who: u8| of(who, 11, Kind::Like, u64::from(who) * 16 + 15);
    log.epoch((0..8).flat_map(|who| shown(who).into_iter().chain([took(who)])).collect());
    let logged = |share: f64, workers| {
        let mut params = params();
        (params.learn.logged, params.learn.impressions) = (1.0, share);
        let changes = run_by(&log, Run { workers, one_by_one: false }, &params);
        changes.into_iter().next_back().expect("an epoch").1
    };
    let changes = logged(1.0, 1);
    assert_eq!(changes, logged(1.0, 4));
    let watched: Vec<_> =
        changes.iter().filter_map(|change| if let Change::Watched(of) = change { Some(of.clone()) } else { None }).collect();
    assert_eq!(watched.len(), 8);
    let row = |example: &Example, place: usize| example.columns[place * COLUMNS..][..COLUMNS].to_vec();
    let place = |example: &Example, what| example.candidates.iter().position(|(of, _)| *of == what);
    let mut compared = 0;
    for watched in watched {
        let shown = watched.example.as_ref().expect("all is logged");
        let mut items: Vec<ItemId> = shown.candidates.iter().map(|(item, _)| *item).collect();
        items.sort_unstable();
        let mut wanted = [0, 1, 11].map(item);
        wanted.sort_unstable();
        assert_eq!((items, shown.columns.len()), (wanted.to_vec(), 3 * COLUMNS), "each item once, with every column");
        assert_eq!((watched.steps.len(), watched.shown().len()), (4, 3), "and what was done");
        for change in &changes {
            let Change::Example(lesson) = change else { continue };
            let both = |what| Some((place(shown, item(what))?, place(lesson, item(what))?));
            for (here, there) in [0, 1, 11].into_iter().filter_map(both).filter(|_| lesson.user == watched.user) {
                assert_eq!(row(shown, here), row(lesson, there));
                compared += 1;
            }
        }
    }
    assert!(compared > 2, "{compared}");
    assert!(!logged(0.0, 1).iter().any(|change| matches!(change, Change::Watched(_))), "by nobody's wish nothing");
}

/// Of an impression that comes after what followed it, and of one whose window is over, nothing is said: what followed is known by then. Nor
/// of an item that the catalogue does not know.
#[test]
fn what_was_shown_and_is_told_of_too_late_is_not_logged() {
    let mut log = log(&(0..120).map(|n| (n % 8, n % 50, SECOND)).collect::<Vec<_>>());
    let clock = log.advance(MINUTE);
    let of = |who: u8, what: u8, kind, n: u64, at| Input::Event(Event { kind, ..view(user(who), item(what), 9_000 + n, at) });
    log.epoch(vec![of(1, 20, Kind::Like, 1, clock)]);
    log.advance(SECOND);
    let shown = |who, what, n, at| of(who, what, Kind::Impression, n, at);
    let window = params().learn.click_through;
    log.epoch(vec![
        shown(1, 20, 2, clock - 1), // before what is known to have followed
        shown(1, 21, 3, clock - 1),
        shown(1, 22, 4, clock - window), // its window is over
        shown(2, 20, 5, clock - window),
        shown(3, 20, 6, clock - 1),  // another user's
        shown(3, 222, 7, clock - 1), // in no catalogue
        shown(4, 222, 8, clock - 1),
    ]);
    let mut params = params();
    params.learn.impressions = 1.0;
    let mut found = BTreeMap::new();
    for change in run_by(&log, Run::plain(), &params).into_iter().next_back().expect("an epoch").1 {
        if let Change::Watched(watched) = change {
            let candidates = watched.example.as_ref().map(|of| of.candidates.iter().map(|(item, _)| *item).collect::<Vec<_>>());
            found.insert(watched.user, candidates);
        }
    }
    let wanted = [(1, Some(vec![item(21)])), (2, None), (3, Some(vec![item(20)])), (4, None)];
    assert_eq!(found, wanted.map(|(who, items)| (user(who), items)).into());
}
