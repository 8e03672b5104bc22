//! Models that order candidates, through the real ONNX Runtime: what is refused at load and with what words; that slates follow the
//! model, name it, and are the same for any number of workers; and that a model that fails costs nothing but itself.

#![cfg(feature = "onnx")]

#[path = "support/dataflow.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod dataflow;
#[path = "support/onnx.rs"]
mod onnx;

use dataflow::{Changes, Kept, Log, Run, item, resume_by, run_by, user};
use onnx::{F32, Graph, I64, Model, floats, linear, longs, model, node, rows_of, write};
use overdrive::dataflows::Params;
use overdrive::model::changes::{Arms, Compared};
use overdrive::model::time::SECOND;
use overdrive::model::{Change, Event, Example, Input, ItemId, Kind, Op, Slate, UserId, Variant};
use overdrive::registry::{Onnx, load};
use overdrive::scoring::cohorts::Cohort;
use overdrive::scoring::columns::{self, COLUMNS, Row};
use overdrive::scoring::experiments::{Arm, Experiment, Ranks};
use overdrive::scoring::ranker::{Finder, Kind as ScoreKind, Tally};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

const TWO: [&str; 2] = ["pop_all", "age"];

fn good() -> Model {
    linear(&TWO, &[1.0, -0.5])
}

fn graph(model: &mut Model) -> &mut Graph {
    model.graph.as_mut().expect("it has one")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn golden() -> (Vec<Vec<f32>>, Vec<f32>) {
    (vec![vec![2.0, 1.0], vec![0.0, 4.0], vec![-1.0, 0.0]], vec![1.5, -2.0, -1.0])
}

/// The model as the engine reads it, or why it does not.
fn read(dir: &Path, model: &Model) -> Result<overdrive::scoring::ranker::Model, String> {
    let (rows, scores) = golden();
    load(&write(dir, "ranker", model, &rows, &scores), &Onnx::on_cpu()).map_err(|e| e.to_string())
}

#[test]
fn a_model_scores_rows_by_the_columns_it_names() {
    let dir = folder();
    let model = read(dir.path(), &good()).expect("it is good");
    assert_eq!((model.name.as_str(), model.kind), ("ranker", ScoreKind::Margin));
    let mut row: Row = [9.0; COLUMNS];
    row[columns::find("pop_all").expect("a column")] = 3.0;
    row[columns::find("age").expect("a column")] = 2.0;
    let mut scores = Vec::new();
    let many = vec![row; 1_000]; // more than a batch
    (model.open)().expect("it opens").score(&many, &mut scores).expect("it scores");
    assert_eq!(scores, vec![2.0; 1_000]);
    assert_ne!(read(dir.path(), &linear(&TWO, &[1.0, -0.499_999])).expect("near enough").digest, model.digest);
}

#[test]
fn what_cannot_be_used_is_refused_with_the_file_and_the_cause() {
    let dir = folder();
    let changed = |change: &dyn Fn(&mut Model)| {
        let mut model = good();
        change(&mut model);
        read(dir.path(), &model).expect_err("it must be refused")
    };
    let cases: [(&dyn Fn(&mut Model), &str); 12] = [
        (&|m| m.metadata_props.clear(), "lack `overdrive.schema`"),
        (&|m| m.metadata_props[2].value = "pop_all,colour".into(), "takes `colour`"),
        (&|m| m.metadata_props[2].value = "pop_all".into(), "it must be f32 of shape [rows, 1]"),
        (&|m| m.metadata_props[1].value = "stars".into(), "`stars`"),
        (&|m| graph(m).input[0] = rows_of("features", I64, &[2]), "refuses it"),
        (&|m| graph(m).input[0].name = "x".into(), "refuses it"),
        (&|m| graph(m).input[0] = rows_of("features", F32, &[3]), "refuses it"),
        (&|m| graph(m).input.push(rows_of("more", F32, &[1])), "it has 2 inputs"),
        (&|m| (graph(m).output[0].name, graph(m).node[0].output[0]) = ("y".into(), "y".into()), "no output `score`, but `y`"),
        (&|m| *m = wide(), "its output `score` is"),
        (&|m| *m = linear(&TWO, &[1.0, -0.4]), "golden row 0 gets 1.6 here, it must get 1.5"),
        (&|m| graph(m).node[0].op_type = "NoSuchOperator".into(), "refuses it"),
    ];
    for (change, says) in cases {
        let why = changed(change);
        assert!(why.contains("ranker.onnx cannot be used") && why.contains(says), "{says}: {why}");
    }
}

/// Three numbers a row where there must be one.
fn wide() -> Model {
    let mut model = linear(&TWO, &[1.0; 6]);
    let graph = graph(&mut model);
    graph.initializer[0].dims = vec![2, 3];
    graph.output[0] = rows_of("score", F32, &[3]);
    model
}

#[test]
fn files_that_are_missing_or_broken_are_named() {
    let dir = folder();
    let why = |path: &Path| load(path, &Onnx::on_cpu()).expect_err("it must be refused").to_string();
    assert!(why(&dir.path().join("none.onnx")).contains("none.onnx cannot be used: the file cannot be read"));
    let path = dir.path().join("broken.onnx");
    std::fs::write(&path, b"not a model").expect("there is room");
    assert!(why(&path).contains("ONNX Runtime refuses it"), "{}", why(&path));
    let (rows, scores) = golden();
    let path = write(dir.path(), "lonely", &good(), &rows, &scores);
    std::fs::remove_file(path.with_extension("golden.json")).expect("it was there");
    assert!(why(&path).contains("lonely.golden.json"), "{}", why(&path));
}

/// Users take items one after another, with pauses.
fn log() -> Log {
    let mut log = Log::with_catalogue();
    for n in 0..150u64 {
        let clock = log.advance(30 * SECOND);
        let (who, what) = (user((n * 7 % 11) as u8), item((n * n % 37) as u8));
        let event = Event { id: n + 1, user: who, item: what, kind: Kind::View, op: Op::Add, at: clock, value_milli: None };
        log.epoch(vec![Input::Event(event)]);
    }
    log
}

fn params(model: Option<overdrive::scoring::ranker::Model>) -> Params {
    let mut params = dataflow::params();
    params.learn.serve_after = 0;
    params.learn.logged = 1.0;
    (params.slates.author_decay, params.slates.category_decay) = (1.0, 1.0); // nothing but the score orders
    params.explore.slots = 0; // nothing but the score orders
    params.ranker.loaded = model;
    params
}

/// Every slate, by epoch and user.
fn slates(changes: &Changes) -> BTreeMap<(u64, UserId), Arc<Slate>> {
    let slate = |change: &Change| if let Change::Slate { slate, .. } = change { slate.clone() } else { None };
    let of = |(epoch, changes): (&u64, &Vec<Change>)| {
        changes.iter().filter_map(slate).map(|slate| ((*epoch, slate.user), slate)).collect::<Vec<_>>()
    };
    changes.iter().flat_map(of).collect()
}

/// Whether a slate shows what was taken for the first time last before what was taken earlier, to the minute: within
/// one, scores are equal. What a round of turns has not yet told of is
/// held back, and not looked at here.
fn is_youngest_first(slate: &Slate, log: &Log, epoch: u64) -> bool {
    let mut firsts: BTreeMap<ItemId, i64> = BTreeMap::new();
    for (_, rows) in &log.epochs[..=epoch as usize - 4] {
        for row in rows {
            if let Ok(Input::Event(event)) = &row.input {
                firsts.entry(event.item).or_insert(event.at);
            }
        }
    }
    let known: Vec<(i32, i64)> =
        slate.items.iter().filter_map(|place| Some((place.score_micro, -*firsts.get(&place.item)?))).collect();
    let groups: Vec<&[(i32, i64)]> = known.chunk_by(|a, b| a.0 == b.0).collect();
    groups.windows(2).all(|pair| pair[0].iter().all(|young| pair[1].iter().all(|old| young.1 <= old.1)))
}

fn sum(changes: &Changes) -> Arms {
    let mut sum = Arms::default();
    for change in changes.values().flatten() {
        let Change::Arms(arms) = change else { continue };
        (sum.scored, sum.unscored) = (sum.scored + arms.scored, sum.unscored + arms.unscored);
        sum.shadow.add(arms.shadow);
        for (sum, acts) in [(&mut sum.by_model, arms.by_model), (&mut sum.by_blend, arms.by_blend)] {
            sum.impressions += acts.impressions;
            sum.clicks += acts.clicks;
            sum.taken += acts.taken;
        }
    }
    sum
}

/// Every worker tells its part of them.
fn without_arms(changes: &Changes) -> Vec<(u64, &Change)> {
    let all = changes.iter().flat_map(|(epoch, changes)| changes.iter().map(|change| (*epoch, change)));
    all.filter(|(_, change)| !matches!(change, Change::Arms(_))).collect()
}

fn asked(changes: &Changes) -> Tally {
    let Arms { scored, unscored, .. } = sum(changes);
    Tally { scored, unscored }
}

#[test]
fn slates_follow_the_model_and_name_it_at_any_number_of_workers() {
    let dir = folder();
    let path = write(dir.path(), "youngest", &linear(&["age"], &[-1.0]), &[vec![2.0]], &[-2.0]);
    let model = load(&path, &Onnx::on_cpu()).expect("it is good");
    let log = log();
    let one = run_by(&log, Run { workers: 1, one_by_one: false }, &params(Some(model.clone())));
    for workers in [2, 4] {
        let others = run_by(&log, Run { workers, one_by_one: true }, &params(Some(model.clone())));
        assert!(without_arms(&one) == without_arms(&others) && sum(&one) == sum(&others), "{workers} workers");
    }
    let by_blend = run_by(&log, Run::plain(), &params(None));
    let slates = slates(&one);
    for ((epoch, _), slate) in &slates {
        let name = slate.model.as_ref().expect("the model ordered it");
        assert_eq!((name.name.as_str(), name.number), ("youngest", model.number()));
        assert!(*epoch < 20 || is_youngest_first(slate, &log, *epoch), "epoch {epoch}: {slate:?}");
    }
    let by_others = self::slates(&by_blend);
    assert!(by_others.values().all(|slate| slate.model.is_none()));
    let others = by_others.iter().filter(|((epoch, _), slate)| *epoch >= 20 && !is_youngest_first(slate, &log, *epoch)).count();
    assert!(slates.len() > 100 && others > by_others.len() / 4, "{others} of {} are in another order", by_others.len());
    let tally = asked(&one);
    assert!(tally.scored > 1_000 && tally.unscored == 0, "{tally:?}");
    assert_eq!(asked(&by_blend), Tally::default());
}

/// What ranks is said by the epoch, so it changes with it, everywhere, and again where a run goes on from what was kept.
#[test]
fn a_swap_comes_with_its_epoch_at_any_number_of_workers_and_over_any_stop() {
    let dir = folder();
    let made = |name, weight: f32| {
        load(&write(dir.path(), name, &linear(&["age"], &[weight]), &[vec![2.0]], &[2.0 * weight]), &Onnx::on_cpu())
            .expect("it is good")
    };
    let models = [made("young", -1.0), made("old", 1.0)];
    let ranks = |epoch: u64| match epoch {
        50..100 | 140.. => Some(&models[0]),
        100..130 => Some(&models[1]),
        _ => None,
    };
    let (mut log, mut params, known) = (log(), params(None), models.clone());
    log.epochs.iter_mut().for_each(|(epoch, _)| epoch.model = ranks(epoch.number).map(|model| model.id()));
    let find = move |digest| known.iter().find(|model| model.id() == digest).cloned().ok_or("no such model".to_string());
    params.ranker.found = Some(Finder(Arc::new(find)));
    let undisturbed = run_by(&log, Run::plain(), &params);
    let mut named = BTreeSet::new();
    for ((epoch, _), slate) in &slates(&undisturbed) {
        let name = slate.model.as_ref().map(|model| model.name.clone());
        assert_eq!(name.as_ref(), ranks(*epoch).map(|model| &model.name), "epoch {epoch}");
        named.insert(name);
    }
    assert_eq!(named.len(), 3, "both models and the blend had their turn: {named:?}");
    for workers in [2, 4] {
        let others = run_by(&log, Run { workers, one_by_one: true }, &params);
        assert!(without_arms(&undisturbed) == without_arms(&others) && sum(&undisturbed) == sum(&others), "{workers} workers");
    }
    for stop in [49, 50, 51, 115] {
        let first = log.saved_after(stop).until(stop as u64);
        let (mut changes, kept) = resume_by(&first, &Kept::new(), Run { workers: 2, one_by_one: false }, &params);
        changes.extend(resume_by(&log.since(stop as u64), &kept, Run { workers: 4, one_by_one: false }, &params).0);
        assert!(without_arms(&undisturbed) == without_arms(&changes), "stopped after {stop} epochs");
    }
}

/// What scores in the shadow changes no slate, no example and nothing that is learned; and its figures are those of the two orders.
#[test]
fn a_shadow_is_compared_and_changes_nothing() {
    let dir = folder();
    let made = |name, weight: f32| {
        load(&write(dir.path(), name, &linear(&["age"], &[weight]), &[vec![2.0]], &[2.0 * weight]), &Onnx::on_cpu())
            .expect("it is good")
    };
    let (young, old, log) = (made("young", -1.0), made("old", 1.0), log());
    let mut params = params(Some(young.clone()));
    params.ranker.share = 0.5;
    let alone = run_by(&log, Run::plain(), &params);
    assert_eq!(sum(&alone).shadow, Compared::default());
    let mut in_the_shadow_of = |ranks: &overdrive::scoring::ranker::Model, share, workers| {
        (params.ranker.shadowing, params.ranker.shadow_share) = (Some(ranks.clone()), share);
        run_by(&log, Run { workers, one_by_one: false }, &params)
    };
    let shadowed = in_the_shadow_of(&old, 1.0, 1);
    assert!(without_arms(&alone) == without_arms(&shadowed), "slates, examples and weights are what they were");
    let figures = sum(&shadowed);
    let Compared { requests, candidates, screen, agreed, moved, taken, ahead, behind, .. } = figures.shadow;
    assert!(requests > 100 && candidates > screen && agreed < screen && moved > candidates, "{figures:?}");
    assert!(taken > 40 && ahead + behind <= taken && ahead > 0 && behind > 0, "{figures:?}");
    let without_shadow = Arms { shadow: Compared::default(), ..figures.clone() };
    assert_eq!(without_shadow, sum(&alone));
    for workers in [2, 4] {
        assert_eq!(sum(&in_the_shadow_of(&old, 1.0, workers)), figures, "{workers} workers");
    }
    let some = sum(&in_the_shadow_of(&old, 0.5, 2)).shadow;
    assert!(some.requests > 0 && some.requests < requests, "{some:?}");
    params_of_all(&mut params, &young);
    let same = sum(&run_by(&log, Run::plain(), &params)).shadow;
    assert!(same.requests > 100 && same.moved == 0 && same.agreed == same.screen && same.ahead + same.behind == 0, "{same:?}");
}

/// The model serves everyone, and is its own shadow.
fn params_of_all(params: &mut Params, model: &overdrive::scoring::ranker::Model) {
    params.ranker.share = 1.0;
    (params.ranker.shadowing, params.ranker.shadow_share) = (Some(model.clone()), 1.0);
}

#[test]
fn a_share_of_the_users_is_ranked_for_and_what_both_arms_do_is_counted() {
    let dir = folder();
    let mut params = params(Some(read(dir.path(), &good()).expect("it is good")));
    params.ranker.share = 0.5;
    let changes = run_by(&log(), Run { workers: 2, one_by_one: false }, &params);
    let mut arms = [0, 0];
    for slate in slates(&changes).values() {
        let ranks = params.ranker.ranks_for(slate.user);
        assert_eq!(slate.model.is_some(), ranks);
        arms[usize::from(ranks)] += 1;
    }
    assert!(arms.iter().all(|slates| *slates > 10), "{arms:?}");
    let (by_model, by_blend) = (sum(&changes).by_model, sum(&changes).by_blend);
    assert_eq!((by_model.taken + by_blend.taken, by_model.impressions + by_blend.clicks), (150, 0));
    assert!(by_model.taken > 20 && by_blend.taken > 20);
}

/// An experiment decides before the share of the model does: each arm is ranked for by what it names, and its slates say so.
#[test]
fn arms_of_an_experiment_are_ranked_for_by_what_they_name() {
    let dir = folder();
    let made = |name, weight: f32| {
        load(&write(dir.path(), name, &linear(&["age"], &[weight]), &[vec![2.0]], &[2.0 * weight]), &Onnx::on_cpu())
            .expect("it is good")
    };
    let (mut params, old) = (params(Some(made("young", -1.0))), made("old", 1.0));
    params.ranker.share = 0.0;
    let arm = |ranks: &str| Arm { name: format!("by-{ranks}"), weight: 1.0, ranks: Ranks::from(ranks.to_string()) };
    let arms = ["blend", "fixed", "model", "old"].map(arm).to_vec();
    params.experiments.list = vec![Experiment { name: "ranks".into(), rollout: 0.8, cohort: Cohort::default(), arms }];
    params.experiments.versions = [("old".into(), old)].into();
    let log = log();
    let one = run_by(&log, Run::plain(), &params);
    for workers in [2, 4] {
        let others = run_by(&log, Run { workers, one_by_one: true }, &params);
        assert!(without_arms(&one) == without_arms(&others) && sum(&one) == sum(&others), "{workers} workers");
    }
    // by the weights of [blend], and by the learned ones
    let by_fixed = slates(&run_by(&log, Run::plain(), &fixed()));
    let by_blend = slates(&run_by(&log, Run::plain(), &self::params(None)));
    let (mut met, mut differ) = (BTreeSet::new(), 0);
    for (when, slate) in &slates(&one) {
        let arm = params.experiments.place(slate.user, None).map(|place| params.experiments.arm(place));
        let variant = arm.map(|arm| Variant { experiment: "ranks".into(), arm: arm.name.clone() });
        assert_eq!(slate.variant.as_deref(), variant.as_ref());
        let model = match arm.map(|arm| arm.ranks.name()) {
            Some("model") => Some("young"),
            Some("old") => Some("old"),
            _ => None,
        };
        assert_eq!(slate.model.as_ref().map(|model| model.name.as_str()), model);
        let is_fixed = arm.is_some_and(|arm| arm.ranks == Ranks::Fixed);
        let items = |slates: &BTreeMap<_, Arc<Slate>>| slates.get(when).map(|slate| slate.items.clone());
        if let (None, Some(blends), Some(fixeds)) = (model, items(&by_blend), items(&by_fixed)) {
            assert_eq!(slate.items, if is_fixed { fixeds.clone() } else { blends.clone() }, "{when:?} {arm:?}");
            differ += usize::from(fixeds != blends);
        }
        met.insert(arm.map(|arm| arm.name.clone()));
    }
    assert_eq!(met.len(), 5, "all arms, and none: {met:?}");
    assert!(differ > 10, "the two blends are two: {differ}");
    let Arms { by_model, by_blend, .. } = sum(&one);
    assert!(by_model.taken > 20 && by_blend.taken > 20 && by_model.taken + by_blend.taken == 150);
}

/// For whom learned orders are off, the weights of `[blend]` rank, whatever else is set.
#[test]
fn c31_for_whom_learned_orders_are_off_the_fixed_weights_rank() {
    let mut params = params_with_youngest_first();
    params.flags.ml_recommendations = 0.5;
    let log = log();
    let by_fixed = slates(&run_by(&log, Run::plain(), &fixed()));
    let all = slates(&run_by(&log, Run::plain(), &params));
    assert_eq!(all, slates(&run_by(&log, Run { workers: 3, one_by_one: true }, &params)));
    let (on, off): (Vec<_>, Vec<_>) = all.iter().partition(|(_, slate)| params.flags.ml(slate.user));
    assert!(on.len() > 10 && off.len() > 10, "{} and {}", on.len(), off.len());
    assert!(on.iter().all(|(_, slate)| slate.model.is_some()));
    for (when, slate) in off {
        assert_eq!((slate.model.as_ref(), Some(&slate.items)), (None, by_fixed.get(when).map(|of| &of.items)), "{when:?}");
    }
}

/// Under a model that puts the youngest first, for everybody.
fn params_with_youngest_first() -> Params {
    let dir = folder();
    let file = write(dir.path(), "young", &linear(&["age"], &[-1.0]), &[vec![2.0]], &[-2.0]);
    params(Some(load(&file, &Onnx::on_cpu()).expect("it is good")))
}

/// The learned blend learns and never serves.
fn fixed() -> Params {
    let mut params = params(None);
    params.learn.serve_after = u64::MAX;
    params
}

#[test]
fn where_a_model_fails_the_blend_serves_and_it_is_counted() {
    let dir = folder();
    let log = log();
    let by_blend = slates(&run_by(&log, Run::plain(), &params(None)));
    // takes three rows, and no other number of them
    let mut three = linear(&TWO, &[1.0, -0.5]);
    let of_three = graph(&mut three);
    of_three.node = vec![node("Reshape", &["features", "shape"], "r"), node("MatMul", &["r", "w"], "score")];
    of_three.initializer.push(longs("shape", &[3, 2]));
    let failing = read(dir.path(), &three).expect("its golden rows are three");
    let changes = run_by(&log, Run::plain(), &params(Some(failing)));
    let mut served = 0;
    for (when, slate) in slates(&changes).iter().filter(|(_, slate)| slate.model.is_none()) {
        if let Some(blends) = by_blend.get(when) {
            assert_eq!(slate.items, blends.items);
            served += 1;
        }
    }
    assert!(served > by_blend.len() / 2, "{served} of {}", by_blend.len());
    let failed = |change: &Change| if let Change::Arms(arms) = change { arms.failed.clone() } else { None };
    let why = changes.values().flatten().find_map(failed).expect("it says why");
    assert!(why.contains("Reshape") && asked(&changes).unscored > 1_000, "{why}");

    // the logarithm of a number below zero is none: of rows older than e minutes
    let logarithm = Graph {
        node: vec![node("Sub", &["one", "features"], "x"), node("Log", &["x"], "score")],
        name: "log".into(),
        initializer: vec![floats("one", &[1, 1], &[1.0])],
        input: vec![rows_of("features", F32, &[1])],
        output: vec![rows_of("score", F32, &[1])],
    };
    let path = write(dir.path(), "log", &model(logarithm, &["age"], "margin"), &[vec![0.0]], &[0.0]);
    let changes = run_by(&log, Run::plain(), &params(Some(load(&path, &Onnx::on_cpu()).expect("its golden row is sound"))));
    let tally = asked(&changes);
    assert!(tally.scored > 0 && tally.unscored > tally.scored, "{tally:?}");
    let partly = slates(&changes);
    let both: Vec<_> = partly.iter().filter_map(|(when, slate)| Some((slate, by_blend.get(when)?))).collect();
    assert!(
        both.len() > 50 && both.iter().all(|(slate, blends)| slate.items.len() == blends.items.len()),
        "no candidate is lost"
    );
}

/// What is logged is what the user could have taken, with all its columns, once for every lesson.
#[test]
fn examples_hold_what_was_known_before_and_what_was_taken() {
    let log = log();
    let examples = |changes: &Changes| -> Vec<Arc<Example>> {
        let example = |change: &Change| if let Change::Example(example) = change { Some(example.clone()) } else { None };
        changes.values().flatten().filter_map(example).collect()
    };
    let all = examples(&run_by(&log, Run { workers: 2, one_by_one: false }, &params(None)));
    assert!(all.len() > 40, "{}", all.len());
    for example in &all {
        assert_eq!(example.columns.len(), example.candidates.len() * COLUMNS);
        assert_eq!(example.candidates.iter().filter(|(_, taken)| *taken).count(), 1, "one event an epoch");
        let items: BTreeSet<_> = example.candidates.iter().map(|(item, _)| item).collect();
        assert_eq!(items.len(), example.candidates.len());
        let user_events = columns::find("user_events").expect("a column");
        let first = example.columns[user_events];
        assert!(example.columns.chunks_exact(COLUMNS).all(|row| row[user_events] == first), "of one request");
    }
    // what comes later changes nothing of it
    let half = log.epochs.len() as u64 / 2;
    let early = examples(&run_by(&log.until(half), Run::plain(), &params(None)));
    assert!(early.len() > 10 && early == all[..early.len()]);
    let mut some = params(None);
    some.learn.logged = 0.3;
    let some = examples(&run_by(&log, Run::plain(), &some)).len();
    assert!(some > all.len() / 10 && some < all.len() / 2, "{some} of {}", all.len());
}
