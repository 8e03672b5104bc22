//! The laws of `recommend`, over random small logs with explicit times: any number of workers, any batching, stopped and resumed,
//! undone and forgotten, the answers are the same; and the windows and links are those of a plain recount.
//!
//! What these tests cannot catch: an error in the order of slates that every run makes alike; that is what the tables beside
//! `scoring` and the golden runs are for.

#[path = "support/dataflow.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod dataflow;
#[path = "support/oracle.rs"]
mod oracle;

use dataflow::{Changes, Kept, Log, Run, accumulated, differences, resume_by, run_by};
use overdrive::dataflows::Params;
use overdrive::dataflows::surfaces::{OnlyParams, SurfaceParams};
use overdrive::model::catalogue::{Item, User};
use overdrive::model::content::{Direction, Encoded, Space, hash};
use overdrive::model::ids::{TokenId, TokenKind};
use overdrive::model::slate::Slate;
use overdrive::model::time::{DAY, HOUR, MINUTE, SECOND};
use overdrive::model::{Change, Control, Event, Input, ItemId, Kind, Op, Row, SignalKey, Source, Surface, UserId};
use overdrive::scoring::blend;
use overdrive::scoring::cohorts::{self, Cohort};
use overdrive::scoring::experiments::{Arm, Experiment, Place, Ranks};
use overdrive::scoring::factors::{DIMENSIONS, Vector};
use overdrive::scoring::ranker::ScoreError;
use overdrive::scoring::towers::{Tower, Towers};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The settings of the harness, an experiment for who speaks German and one that has some of the others, a second surface, and much that is
/// explored.
fn params() -> Params {
    let mut params = dataflow::params();
    let arm = |name: &str, ranks: &str| Arm { name: name.into(), weight: 1.0, ranks: Ranks::from(ranks.to_string()) };
    let arms = vec![arm("control", "blend"), arm("fixed", "fixed")];
    let german = cohorts::Params { languages: Some(vec!["de".into()]), ..cohorts::Params::default() };
    params.experiments.list = vec![
        Experiment { name: "de".into(), rollout: 0.5, cohort: german.into(), arms: arms.clone() },
        Experiment { name: "first".into(), rollout: 0.5, cohort: Cohort::default(), arms },
    ];
    params.surfaces.list = vec![second()];
    (params.content.enabled, params.content.text_encoder, params.content.kept) = (true, "there".into(), 3);
    (params.explore.every, params.explore.shown, params.explore.young) = (2, 4, 100 * DAY);
    params.towers.loaded = Some(Towers { name: "drawn".into(), digest: "1".into(), open: Arc::new(|| Ok(Box::new(Draw))) });
    params.towers.kept = 3;
    params
}

/// Towers that know every item by its id and tokens, and a user by the sum of what they took, the latest most.
struct Draw;

impl Tower for Draw {
    fn item(&mut self, item: ItemId, tokens: &[TokenId]) -> Result<[f32; DIMENSIONS], ScoreError> {
        let drawn = tokens.iter().fold(Vector::drawn(item.0).0, |sum, token| add(sum, &Vector::drawn(token.0), 1.0));
        Ok(drawn.map(|x| 2.0 * x))
    }

    fn user(&mut self, history: &[&Vector]) -> Result<[f32; DIMENSIONS], ScoreError> {
        let places = history.iter().enumerate();
        Ok(places.fold([0.0; DIMENSIONS], |sum, (back, vector)| add(sum, vector, 1.0 / (1.0 + back as f32))))
    }
}

fn add(mut sum: [f32; DIMENSIONS], vector: &Vector, times: f32) -> [f32; DIMENSIONS] {
    sum.iter_mut().zip(vector.0).for_each(|(sum, x)| *sum += times * x);
    sum
}

/// Three places for what is of one category.
fn second() -> SurfaceParams {
    let only = OnlyParams { categories: vec!["c1".into()], ..OnlyParams::default() };
    let blend = Some(blend::Params { real_time: 1.0, freshness: 1.0, ..blend::Params::default() });
    SurfaceParams { name: "second".into(), kept: Some(3), neighbours: Some(0), blend, only, ..SurfaceParams::default() }
}

fn run(log: &Log, how: Run) -> Changes {
    run_by(log, how, &params())
}

fn resume(log: &Log, kept: &Kept, how: Run) -> (Changes, Kept) {
    resume_by(log, kept, how, &params())
}

#[test]
fn the_users_of_these_tests_are_in_both_arms_and_in_none() {
    let (experiments, german) = (params().experiments, speaks("de"));
    let places = |said: Option<&User>| (0..6).map(|n| experiments.place(dataflow::user(n), said)).collect::<BTreeSet<_>>();
    let of = |experiment| [0, 1].map(|arm| Some(Place { experiment, arm })).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(places(None), &of(1) | &[None].into());
    assert!(places(Some(&german)).is_superset(&of(0)), "{:?}", places(Some(&german)));
    assert!((0..6).any(|n| experiments.place(dataflow::user(n), Some(&german)).is_some_and(|place| place.experiment == 1)));
}

/// What encoders say is in slates under these settings, so the laws are about it too.
#[test]
fn c43_content_is_in_what_these_laws_are_about() {
    let mut log = Log::with_catalogue();
    log.epoch(vec![said(4, Content::Text(Some(0))), said(9, Content::Text(Some(2))), said(9, Content::Encoder(1))]);
    let made = |text, direction| Content::Encoded { encoder: 1, text, direction: Some(direction) };
    log.epoch(vec![said(4, made(0, 1)), said(9, made(2, 1))]);
    let clock = log.advance(SECOND);
    let like = Act { content: None, says: None, user: 1, item: 4, kind: 1, undo: false, ago: 0, id: 50 };
    log.epoch(vec![input(&like, clock, 1)]);
    let sources = sources(&run(&log, Run::plain()));
    assert!(sources.contains(&Source::Content), "{sources:?}");
}

/// And so is what towers find.
#[test]
fn c14_towers_are_in_what_these_laws_are_about() {
    let mut log = Log::with_catalogue();
    for (id, item) in [4, 7, 9].into_iter().enumerate() {
        let clock = log.advance(SECOND);
        let like = Act { content: None, says: None, user: 1, item, kind: 1, undo: false, ago: 0, id: id as u8 };
        log.epoch(vec![input(&like, clock, 1)]);
    }
    let changes = run(&log, Run::plain());
    assert!(sources(&changes).contains(&Source::Towers), "{:?}", sources(&changes));
}

/// Of everything in slates.
fn sources(changes: &Changes) -> BTreeSet<Source> {
    let slates = changes.values().flatten().filter_map(|change| match change {
        Change::Slate { slate: Some(slate), .. } => Some(slate),
        _ => None,
    });
    slates.flat_map(|slate| &slate.items).map(|item| item.source).collect()
}

fn speaks(language: &str) -> User {
    User { language: Some(TokenId::typed(TokenKind::Language, language)), ..User::default() }
}

/// What is said of an item's content.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// Its text, one of a few, and with some an embedding; `None`: none any more.
    Text(Option<u8>),
    Encoder(u8),
    /// What an encoder made of one of the texts, one of a few directions or none.
    Encoded {
        encoder: u8,
        text: u8,
        direction: Option<u8>,
    },
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        3 => prop::option::weighted(0.9, 0u8..3).prop_map(Content::Text),
        1 => (0u8..2).prop_map(Content::Encoder),
        6 => (0u8..2, 0u8..3, prop::option::weighted(0.9, 0u8..5))
            .prop_map(|(encoder, text, direction)| Content::Encoded { encoder, text, direction }),
    ]
}

fn pointing(n: u8) -> Option<Arc<Direction>> {
    let angle = f32::from(n) * 0.4;
    Direction::of(&[angle.cos(), angle.sin(), 0.3]).map(Arc::new)
}

/// The records that say so, of an item that is in the catalogue.
fn said(item: u8, content: Content) -> Input {
    let text = |n: u8| format!("text {n}");
    match content {
        Content::Text(Some(n)) => {
            let embedding = if n > 0 { vec![f32::from(n), f32::from(item) - 3.0] } else { Vec::new() };
            dataflow::described_with(item, Item { text: Some(text(n)), embedding, ..Item::default() })
        }
        Content::Text(None) => dataflow::described_with(item, Item::default()),
        Content::Encoder(encoder) => Input::Control(Control::Encoder { space: Space::Text, encoder: u64::from(encoder) }),
        Content::Encoded { encoder, text: n, direction } => {
            let (content, direction) = (hash(text(n).as_bytes()), direction.and_then(pointing));
            let encoded = Encoded { space: Space::Text, content, encoder: u64::from(encoder), direction };
            Input::Control(Control::Encoded(dataflow::item(item), Arc::new(encoded)))
        }
    }
}

/// What a user does; or says of themselves, or what is said of the item, in place of it.
#[derive(Clone, Debug)]
struct Act {
    content: Option<Content>,
    /// A profile: of who speaks German or not, or none any more.
    says: Option<Option<bool>>,
    user: u8,
    item: u8,
    kind: usize,
    undo: bool,
    /// Event time before the epoch's clock.
    ago: i64,
    id: u8,
}

fn act() -> impl Strategy<Value = Act> {
    let ago = prop_oneof![6 => 0..30 * SECOND, 2 => 0..26 * HOUR, 1 => -10 * MINUTE..0i64];
    let says = prop::option::weighted(0.15, prop::option::weighted(0.8, any::<bool>()));
    let content = prop::option::weighted(0.3, content());
    (0u8..6, 0u8..10, 0..Kind::ALL.len(), prop::bool::weighted(0.15), ago, any::<u8>(), says, content)
        .prop_map(|(user, item, kind, undo, ago, id, says, content)| Act { content, says, user, item, kind, undo, ago, id })
}

fn input(act: &Act, clock: i64, salt: u64) -> Input {
    if let Some(content) = act.content {
        return said(act.item, content);
    }
    match act.says {
        Some(profile) => {
            let said = profile.map(|german| Arc::new(speaks(if german { "de" } else { "en" })));
            Input::User(dataflow::user(act.user), said)
        }
        None => Input::Event(event(act, clock, salt)),
    }
}

/// Epochs: how far the clock moves before each, and what happens in it.
fn acts() -> impl Strategy<Value = Vec<(i64, Vec<Act>)>> {
    let step = prop_oneof![8 => 0..3 * SECOND, 2 => 0..20 * MINUTE, 1 => 0..5 * HOUR];
    prop::collection::vec((step, prop::collection::vec(act(), 0..5)), 1..25)
}

fn event(act: &Act, clock: i64, salt: u64) -> Event {
    Event {
        // now and then an id that was there before
        id: if act.id < 40 { u64::from(act.id) } else { salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) },
        user: dataflow::user(act.user),
        item: dataflow::item(act.item),
        kind: Kind::ALL[act.kind],
        op: if act.undo { Op::Undo } else { Op::Add },
        at: clock - act.ago,
        value_milli: act.id.is_multiple_of(3).then_some(i32::from(act.id) * 500),
    }
}

/// The log of some acts, after a catalogue.
fn log(acts: &[(i64, Vec<Act>)]) -> Log {
    let mut log = Log::with_catalogue();
    for (epoch, (step, acts)) in acts.iter().enumerate() {
        let clock = log.advance(*step);
        let inputs = acts.iter().enumerate().map(|(i, act)| input(act, clock, (1000 + epoch * 31 + i) as u64));
        log.epoch(inputs.collect());
    }
    log
}

/// The last word on every key that is not the user's.
fn of_others(log: &Log, user: UserId) -> BTreeMap<String, String> {
    let mut all = accumulated(&run(log, Run::plain()));
    all.retain(|key, _| !key.contains(&format!("{user:?}")));
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn workers_and_batching_change_nothing(acts in acts()) {
        let log = log(&acts);
        let one = run(&log, Run { workers: 1, one_by_one: false });
        for (workers, one_by_one) in [(1, true), (2, false), (4, true)] {
            prop_assert_eq!(&one, &run(&log, Run { workers, one_by_one }), "{} workers, one by one: {}", workers, one_by_one);
        }
    }

    /// A run that ends at any frontier said what the whole run said until there, and one that goes on from what it kept, with other
    /// workers, says the same after it, and keeps the same; also where the input is behind and refreshes are put off.
    #[test]
    fn stopped_at_any_frontier_and_resumed_it_says_the_same(
        acts in acts(),
        cut in 0.0f64..1.0,
        refreshes in prop::option::of(1u32..1500),
    ) {
        let log = log(&acts).with_budget(refreshes);
        let whole = run(&log, Run { workers: 1, one_by_one: false });
        let cut = (log.epochs.len() as f64 * cut) as u64;
        let before = run(&log.until(cut), Run { workers: 4, one_by_one: true });
        prop_assert_eq!(before.range(..cut).collect::<Vec<_>>(), whole.range(..cut).collect::<Vec<_>>());
        let kept = |from: &Kept, log: &Log, workers| resume(&log.saved_at_the_end(), from, Run { workers, one_by_one: false });
        let (_, at_cut) = resume(&log.saved_after(cut as usize), &Kept::new(), Run { workers: 4, one_by_one: false });
        let (resumed, at_end) = kept(&at_cut, &log.since(cut), 2);
        prop_assert_eq!(resumed.range(cut..).collect::<Vec<_>>(), whole.range(cut..).collect::<Vec<_>>());
        let (_, plainly) = kept(&Kept::new(), &log, 1);
        let sizes = |kept: &Kept| kept.iter().map(|(uid, entries)| (uid.clone(), entries.len())).collect::<Vec<_>>();
        prop_assert_eq!(sizes(&at_end), sizes(&plainly));
    }

    #[test]
    fn accounts_counts_and_links_equal_a_recount_at_every_epoch(acts in acts()) {
        let log = log(&acts);
        oracle::check(&log, &run(&log, Run { workers: 2, one_by_one: false }), &params())?;
    }

    /// An applied event and its undo, put anywhere into a log, leave every number as it was.
    #[test]
    fn an_undo_leaves_no_trace(acts in acts(), at in 0.0f64..1.0, until in 0.0f64..1.0, kind in 0..Kind::ALL.len()) {
        let without = log(&acts);
        let mut with = without.clone();
        let (user, item) = (dataflow::user(1), dataflow::item(11)); // an item no other act takes
        let x = |op| Input::Event(Event { id: 777_777, user, item, kind: Kind::ALL[kind], op, at: 0, value_milli: None });
        let (first, last) = dataflow::two_places(without.epochs.len(), at, until);
        with.insert(first, x(Op::Add));
        with.insert(last, x(Op::Undo));
        let actors = without.actors();
        let (with, without) = (with.with_common_end(&actors), without.with_common_end(&actors));
        let (with, without) = (accumulated(&run(&with, Run::plain())), accumulated(&run(&without, Run::plain())));
        prop_assert_eq!(differences(&with, &without), Vec::<String>::new());
    }

    /// After `forget`, everything equals a run that never saw the user, and of the user there is nothing.
    #[test]
    fn a_forgotten_user_was_never_there(acts in acts(), user in 0u8..6) {
        let user = dataflow::user(user);
        let mut with = log(&acts);
        let mut without = with.without_user(user);
        with.advance(SECOND);
        without.advance(SECOND);
        with.epoch(vec![Input::Control(Control::Forget { user })]);
        without.epoch(vec![]);
        let actors = without.actors();
        let (with, without) = (with.with_common_end(&actors), without.with_common_end(&actors));
        prop_assert_eq!(differences(&of_others(&with, user), &of_others(&without, user)), Vec::<String>::new());
        let all = accumulated(&run(&with, Run::plain()));
        let kept: Vec<_> = all.keys().filter(|key| key.contains(&format!("{user:?}"))).collect();
        prop_assert!(kept.is_empty(), "kept of the forgotten user: {:?}", kept);
    }

    /// Topics have no common order: what a user did before being forgotten, or revoked, may be read after it. It counts no more.
    #[test]
    fn what_was_accepted_before_it_was_taken_back_is_not_read_again(acts in acts(), user in 0u8..6, revoke in any::<bool>()) {
        let user = dataflow::user(user);
        let late = log(&acts);
        let mut with = late.without_user(user);
        let mut without = with.clone();
        with.advance(SECOND);
        without.advance(SECOND);
        let control = if revoke { Control::Revoke { users: vec![user], from: i64::MIN, to: i64::MAX } } else { Control::Forget { user } };
        with.epoch(vec![Input::Control(control)]);
        without.epoch(vec![]);
        with.epoch(vec![]);
        without.epoch(vec![]);
        let of_user = |row: &&Row| matches!(&row.input, Ok(Input::Event(event)) if event.user == user);
        let read_late = late.epochs.iter().flat_map(|(_, rows)| rows).filter(of_user).cloned();
        with.epochs.last_mut().expect("there is one").1.extend(read_late);
        let actors = without.actors();
        let (with, without) = (with.with_common_end(&actors), without.with_common_end(&actors));
        prop_assert_eq!(differences(&accumulated(&run(&with, Run::plain())), &accumulated(&run(&without, Run::plain()))), Vec::<String>::new());
    }

    /// Revoking a user's interactions of all time is as if they had not been.
    #[test]
    fn revoked_interactions_were_never_there(acts in acts(), user in 0u8..6) {
        let user = dataflow::user(user);
        let mut with = log(&acts);
        let mut without = with.without_acts_of(user);
        with.advance(SECOND);
        without.advance(SECOND);
        with.epoch(vec![Input::Control(Control::Revoke { users: vec![user], from: i64::MIN, to: i64::MAX })]);
        without.epoch(vec![]);
        let actors = without.actors();
        let (with, without) = (with.with_common_end(&actors), without.with_common_end(&actors));
        prop_assert_eq!(differences(&of_others(&with, user), &of_others(&without, user)), Vec::<String>::new());
    }
}

/// Somebody who is forgotten and signs up again, all within one epoch.
#[test]
fn a_profile_that_came_after_the_forget_stays() {
    let mut log = Log::with_catalogue();
    let (user, clock) = (dataflow::user(1), log.advance(SECOND));
    let profile = |blocked| User { blocked_items: vec![dataflow::item(blocked)], ..User::default() };
    log.epoch(vec![Input::Control(Control::Forget { user }), Input::User(user, Some(profile(2).into()))]);
    let (_, rows) = log.epochs.last_mut().expect("there is one");
    let accepted = |row: &Row| row.origin.accepted;
    assert!(accepted(&rows[0]) <= accepted(&rows[1]));
    rows[1].origin.accepted = accepted(&rows[0]) + 1;
    let view = Event { id: 9, user, item: dataflow::item(1), kind: Kind::Like, op: Op::Add, at: clock, value_milli: None };
    log.advance(SECOND);
    log.epoch(vec![Input::Event(view)]);
    let changes = run(&log, Run::plain());
    let mut slates = changes.values().flatten().filter_map(|change| match change {
        Change::Slate { user: of, slate: Some(slate), .. } if *of == user => Some(slate.clone()),
        _ => None,
    });
    let last = slates.next_back().expect("who likes something has a slate");
    assert!(!last.items.is_empty() && last.items.iter().all(|shown| shown.item != dataflow::item(2)), "{last:?}");
}

/// A surface of what is near and of nothing else, as far as there is enough of it.
fn local(near: usize) -> Params {
    let mut params = dataflow::params();
    let none = Some(0);
    params.surfaces.list = vec![SurfaceParams {
        name: "local".into(),
        candidates: Some(2),
        neighbours: none,
        interests: none,
        trending: none,
        fresh: none,
        near: Some(near),
        ..SurfaceParams::default()
    }];
    params
}

/// Who lives in a town is shown what is there, not what is popular elsewhere; on every number of workers alike, and from a snapshot of an
/// engine that did not look there.
#[test]
fn c20_what_is_near_is_a_source() {
    let mut log = Log::with_catalogue();
    let lives = User { lat: Some(48.03), lon: Some(11.5), ..User::default() };
    log.advance(SECOND);
    log.epoch(vec![Input::User(dataflow::user(1), Some(lives.into()))]);
    let act = |log: &mut Log, user: u8, item: u8| {
        let (clock, id) = (log.advance(SECOND), u64::from(user) * 100 + u64::from(item));
        let (user, item) = (dataflow::user(user), dataflow::item(item));
        log.epoch(vec![Input::Event(Event { id, user, item, kind: Kind::Share, op: Op::Add, at: clock, value_milli: None })]);
    };
    (3..7).for_each(|user| [3, 5, 7].into_iter().for_each(|item| act(&mut log, user, item)));
    (0..6).for_each(|_| log.epoch(vec![]));
    let cut = log.epochs.len() as u64;
    (0..6).for_each(|_| log.epoch(vec![]));
    act(&mut log, 1, 9);
    act(&mut log, 2, 9);
    let shown = |changes: &Changes| {
        let of =
            |user: u8| slates(changes, "local")[&dataflow::user(user)].items.iter().map(|row| row.item).collect::<BTreeSet<_>>();
        [of(1), of(2)]
    };
    let there = [0, 6].map(dataflow::item).into();
    let [at_home, elsewhere] = shown(&run_by(&log, Run::plain(), &local(5)));
    assert_eq!(at_home, there);
    assert!(elsewhere.is_disjoint(&there), "nobody knows where the other one lives");
    let [nowhere, _] = shown(&run_by(&log, Run::plain(), &local(0)));
    assert!(nowhere.is_disjoint(&there), "what is popular stands there without it");
    for workers in [2, 4] {
        let how = Run { workers, one_by_one: true };
        assert_eq!(shown(&run_by(&log, how, &local(5))), [at_home.clone(), elsewhere.clone()], "{workers} workers");
    }
    let (_, kept) = resume_by(&log.until(cut).saved_at_the_end(), &Kept::new(), Run::plain(), &local(0));
    let (after, _) = resume_by(&log.since(cut), &kept, Run { workers: 2, one_by_one: false }, &local(5));
    assert_eq!(shown(&after), [at_home, elsewhere], "from a snapshot");
}

/// An engine that knew of no experiment is started with one for a cohort: who signed up before belongs to it, slates and sums say so from
/// the first epoch on, at any number of workers, and who leaves takes along nothing that they did.
#[test]
fn c29_a_cohort_of_new_settings_has_who_signed_up_before() {
    let mut log = Log::with_catalogue();
    let experiments = params().experiments;
    let mut drawn = (0..200).filter(|n| experiments.drawn_by(0, dataflow::user(*n)).is_some());
    let [german, english] = [(); 2].map(|()| drawn.next().expect("half of them"));
    let epoch = |log: &mut Log, inputs: &dyn Fn(i64) -> Vec<Input>| {
        let clock = log.advance(10 * MINUTE); // past what may lie ahead of the clock of a start
        log.epoch(inputs(clock));
        (0..3).for_each(|_| log.epoch(vec![]));
    };
    let says = |user, language: &str| Input::User(dataflow::user(user), Some(speaks(language).into()));
    let click = |user: u8, item: u8, at| {
        let id = u64::from(user) * 100 + u64::from(item);
        let (user, item, kind) = (dataflow::user(user), dataflow::item(item), Kind::Click);
        Input::Event(Event { id, user, item, kind, op: Op::Add, at, value_milli: None })
    };
    let both = |item: u8| move |at| vec![click(german, item, at), click(english, item, at)];
    epoch(&mut log, &|_| vec![says(german, "de"), says(english, "en")]);
    epoch(&mut log, &both(1));
    let cut = log.epochs.len() as u64;
    epoch(&mut log, &|_| vec![]);
    epoch(&mut log, &both(2));
    let named = |changes: &Changes| {
        let slates = slates(changes, "home");
        let of = |user: u8| slates[&dataflow::user(user)].variant.as_ref().map(|variant| variant.experiment.clone());
        [of(german), of(english)]
    };
    let clicks = |changes: &Changes| {
        let mut told = changes.values().flatten().filter_map(|change| match change {
            Change::Experiments(all) => Some(all[0].arms.iter().map(|arm| arm.sums.clicks).sum::<i64>()),
            _ => None,
        });
        told.next_back().expect("told at a tick")
    };
    let mut before = params();
    before.experiments.list.clear();
    let (_, kept) = resume_by(&log.until(cut).saved_at_the_end(), &Kept::new(), Run::plain(), &before);
    let here = |user: u8, said: &User| {
        experiments
            .place(dataflow::user(user), Some(said))
            .map(|place| experiments.list[usize::from(place.experiment)].name.clone())
    };
    let expected = [Some("de".to_string()), here(english, &speaks("en"))];
    for workers in [1, 2, 4] {
        let (after, _) = resume(&log.since(cut), &kept, Run { workers, one_by_one: false });
        assert_eq!((named(&after), clicks(&after)), (expected.clone(), 1), "{workers} workers");
    }
    epoch(&mut log, &|_| vec![says(german, "en")]);
    epoch(&mut log, &both(3));
    let (left, _) = resume(&log.since(cut), &kept, Run::plain());
    assert_eq!((named(&left), clicks(&left)), ([here(german, &speaks("en")), here(english, &speaks("en"))], 1));
}

/// The last slate of every user on a surface; none where it was taken away.
fn slates(changes: &Changes, surface: &str) -> BTreeMap<UserId, Arc<Slate>> {
    let mut all = BTreeMap::new();
    for change in changes.values().flatten() {
        if let Change::Slate { user, surface: on, slate, .. } = change
            && *on == Surface::named(surface)
        {
            match slate {
                Some(slate) => all.insert(*user, slate.clone()),
                None => all.remove(user),
            };
        }
    }
    all
}

/// Six users who like a few items, and enough ticks for everything to be told.
fn likes() -> Log {
    let mut log = Log::with_catalogue();
    for round in 0..4u8 {
        let clock = log.advance(SECOND);
        let like = |n: u8| {
            let (user, item) = (dataflow::user(n), dataflow::item((n + 3 * round) % 8));
            let id = u64::from(round) * 10 + u64::from(n);
            Input::Event(Event { id, user, item, kind: Kind::Like, op: Op::Add, at: clock, value_milli: None })
        };
        log.epoch((0..6).map(like).collect());
        (0..3).for_each(|_| log.epoch(vec![]));
    }
    log
}

#[test]
fn c20_a_surface_of_the_settings_has_its_own_filter_weights_and_length_and_home_stays_as_it_is() {
    let log = likes();
    let changes = run(&log, Run::plain());
    let (second, home) = (slates(&changes, "second"), slates(&changes, "home"));
    assert_eq!(second.len(), 6);
    for (user, slate) in &second {
        assert!((1..=3).contains(&slate.items.len()) && home[user].items.len() > 3, "{slate:?}");
        let shown = |n: &u8| slate.items.iter().any(|row| row.item == dataflow::item(*n));
        assert!((0..dataflow::ITEMS).filter(|n| n % 3 != 1).all(|n| !shown(&n)), "every item is of category c1: {slate:?}");
        assert!(slate.items.iter().all(|row| row.source != Source::Explored), "only home explores");
        let scores: Vec<i32> = slate.items.iter().map(|row| row.score_micro).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    }
    let mut without = params();
    without.surfaces.list.clear();
    let alone = run_by(&log, Run::plain(), &without);
    assert_eq!(slates(&alone, "home"), home);
    assert!(slates(&alone, "second").is_empty());
}

#[test]
fn c20_a_surface_that_leaves_the_settings_takes_its_slates_along() {
    let (log, mut without) = (likes(), params());
    without.surfaces.list.clear();
    let cut = log.epochs.len() as u64 - 4;
    let (before, kept) = resume(&log.until(cut).saved_at_the_end(), &Kept::new(), Run::plain());
    let there = slates(&before, "second");
    let (after, _) = resume_by(&log.since(cut), &kept, Run::plain(), &without);
    let gone = after.values().flatten().filter_map(|change| match change {
        Change::Slate { user, surface, slate: None, left, .. } if surface.name() == "second" => Some((*user, left.len())),
        _ => None,
    });
    let expected: BTreeMap<UserId, usize> = there.iter().map(|(user, slate)| (*user, slate.items.len())).collect();
    assert_eq!(gone.collect::<BTreeMap<_, _>>(), expected);
}

#[test]
fn c33_explored_items_have_their_places_until_they_were_shown_enough() {
    let mut log = likes();
    let explored = |changes: &Changes| -> BTreeSet<_> {
        let all = slates(changes, "home").into_values();
        all.flat_map(|slate| slate.items.clone()).filter(|row| row.source == Source::Explored).map(|row| row.item).collect()
    };
    let mut few = params();
    few.slates.kept = 6; // else every item is in every slate already
    let at_first = run_by(&log, Run::plain(), &few);
    for (user, slate) in slates(&at_first, "home") {
        let places: Vec<usize> =
            slate.items.iter().enumerate().filter(|(_, row)| row.source == Source::Explored).map(|(at, _)| at).collect();
        assert!(!places.is_empty() && places.iter().all(|at| [1, 3].contains(at)), "{places:?} of {user:?}");
        let items: BTreeSet<_> = slate.items.iter().map(|row| row.item).collect();
        assert_eq!(items.len(), slate.items.len(), "no item stands twice");
        let scores: Vec<i32> = slate.items.iter().map(|row| row.score_micro).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    }
    let tried: BTreeSet<_> = explored(&at_first);
    let clock = log.advance(SECOND);
    let impressions = (0..dataflow::ITEMS).flat_map(|n| (0..4u8).map(move |who| (n, who)));
    let shown = |(n, who): (u8, u8)| {
        let (user, item) = (dataflow::user(50 + who), dataflow::item(n));
        let id = 5_000 + u64::from(n) * 10 + u64::from(who);
        Input::Event(Event { id, user, item, kind: Kind::Impression, op: Op::Add, at: clock, value_milli: None })
    };
    log.epoch(impressions.map(shown).collect());
    (0..6).for_each(|_| log.epoch(vec![]));
    let again = |n: u8| {
        let (user, item) = (dataflow::user(n), dataflow::item(11));
        Input::Event(Event { id: 9_000 + u64::from(n), user, item, kind: Kind::View, op: Op::Add, at: clock, value_milli: None })
    };
    log.epoch((0..6).map(again).collect());
    assert!(!tried.is_empty());
    assert_eq!(explored(&run_by(&log, Run::plain(), &few)), BTreeSet::new(), "each was shown four times");
}

#[test]
fn a_quiet_stream_expires_by_the_clock() {
    let mut log = Log::with_catalogue();
    let clock = log.advance(SECOND);
    let item = dataflow::item(1);
    let view = |id| Event { id, user: UserId(3), item, kind: Kind::View, op: Op::Add, at: clock, value_milli: None };
    log.epoch((0..3).map(|id| Input::Event(view(id))).collect());
    log.advance(2 * MINUTE);
    log.epoch(vec![]);
    let changes = run(&log, Run::plain());
    let told = |epoch: u64| {
        changes[&epoch].iter().find_map(|change| match change {
            Change::Signals(SignalKey::Item(of), Some(signals)) if *of == item => Some(signals.clone()),
            _ => None,
        })
    };
    let (before, after) = (told(1).expect("told with the views"), told(2).expect("told by the clock alone"));
    assert_eq!(before.counts, [(Kind::View, [3, 3, 3, 3, 3])]);
    assert_eq!(before.weighted_milli, [3_000; 5]);
    assert_eq!(after.counts, [(Kind::View, [0, 3, 3, 3, 3])]);
}

#[test]
fn an_undo_whose_record_is_gone_takes_no_other() {
    let mut log = Log::with_catalogue();
    let clock = log.advance(SECOND);
    let item = dataflow::item(1);
    let x = |id, op, at| Input::Event(Event { id, user: UserId(3), item, kind: Kind::View, op, at, value_milli: None });
    log.epoch(vec![x(1, Op::Add, clock - SECOND), x(2, Op::Add, clock)]);
    log.epoch(vec![Input::Control(Control::Revoke { users: vec![UserId(3)], from: clock - SECOND, to: clock })]);
    log.epoch(vec![x(1, Op::Undo, clock)]);
    let changes = run(&log, Run::plain());
    let views = |epoch: u64| {
        changes[&epoch].iter().find_map(|change| match change {
            Change::Signals(SignalKey::Item(of), Some(signals)) if *of == item => Some(signals.counts.clone()),
            _ => None,
        })
    };
    assert_eq!(views(1), Some(vec![(Kind::View, [2; 5])]));
    assert_eq!(views(2), Some(vec![(Kind::View, [1; 5])]));
    assert_eq!(views(3), None, "nothing changed");
}

/// What is said once more is what a reader finds anyway, and it changes nothing that comes after.
#[test]
fn what_is_said_once_more_is_whole_and_changes_nothing() {
    let mut log = Log::with_catalogue();
    for round in 0..6u8 {
        let clock = log.advance(SECOND);
        let view = |n: u8| {
            let (user, item) = (dataflow::user(n % 4), dataflow::item((n * 7 + round) % 12));
            Input::Event(Event {
                id: u64::from(round) * 100 + u64::from(n),
                user,
                item,
                kind: Kind::Like,
                op: Op::Add,
                at: clock,
                value_milli: None,
            })
        };
        log.epoch((0..8).map(view).collect());
    }
    (0..6).for_each(|_| log.epoch(vec![]));
    // who says something of themselves gets a new slate, of what ticks have told since they acted
    log.epoch((0..4).map(|n| Input::User(dataflow::user(n), Some(User::default().into()))).collect());
    (0..6).for_each(|_| log.epoch(vec![]));
    let before = run(&log, Run::plain());
    let mut again = log.clone();
    let told = again.epochs.len() - 4;
    again.epochs[told].0.retell = Some((0, 1024));
    let mut after = run(&again, Run { workers: 2, one_by_one: false });
    // decayed sums are as of the epoch that says them
    let lasting = |changes: &Changes| {
        let mut all = accumulated(changes);
        all.retain(|key, _| !key.starts_with("signals"));
        all
    };
    assert_eq!(differences(&lasting(&after), &lasting(&before)), Vec::<String>::new());
    after.retain(|epoch, _| *epoch >= told as u64);
    let said = accumulated(&after);
    let missing: Vec<_> = accumulated(&before).into_keys().filter(|key| !said.contains_key(key)).collect();
    assert_eq!(missing, Vec::<String>::new(), "everything is said once more");
}
