//! Two towers through the real ONNX Runtime: what is refused at load and with what words; that what they find is a source of slates, says so and
//! is the same for any number of workers and over any stop; that examples hold what towers are trained on; and that one that fails
//! costs nothing but itself.

#![cfg(feature = "onnx")]

#[path = "support/dataflow.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod dataflow;
#[path = "support/onnx.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod onnx;

use dataflow::{Changes, Kept, Log, Run, category, item, resume_by, run_by, user};
use onnx::{F32, Graph, I64, Model, OpSet, Said, floats, longs, node, rows_of};
use overdrive::dataflows::Params;
use overdrive::model::slate::{Reason, Source};
use overdrive::model::time::SECOND;
use overdrive::model::{Change, Event, Example, Input, ItemId, Kind, Op, SlateItem, UserId};
use overdrive::registry::{Onnx, load_towers};
use overdrive::scoring::columns::{COLUMNS, TOWER};
use overdrive::scoring::factors::Vector;
use overdrive::scoring::flags;
use overdrive::scoring::towers::{HISTORY, Towers};
use prost::Message;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const WIDTH: usize = 64;
/// Vectors that items and tokens share; the first is none.
const BUCKETS: usize = 4_099;

type Numbers = [f32; WIDTH];

/// The vector of a bucket.
fn bucket(n: usize) -> Numbers {
    if n == 0 { [0.0; WIDTH] } else { Vector::drawn(n as u64).0 }
}

fn of_id(id: i64) -> usize {
    id.rem_euclid(BUCKETS as i64) as usize
}

fn sum(all: impl Iterator<Item = Numbers>) -> Numbers {
    all.fold([0.0; WIDTH], |sum, one| std::array::from_fn(|at| sum[at] + one[at]))
}

fn model(graph: Graph, tower: &str) -> Model {
    let said = [("overdrive.schema", "1"), ("overdrive.tower", tower)];
    let metadata_props = said.map(|(key, value)| Said { key: key.into(), value: value.into() }).into();
    let opset_import = vec![OpSet { domain: String::new(), version: 17 }];
    Model { ir_version: 8, graph: Some(graph), opset_import, metadata_props }
}

/// The sum of the vectors of an item's own bucket and of those of its tokens; the bucket of `spoilt` holds what is no number.
fn item_tower(spoilt: Option<ItemId>) -> Model {
    let of = |n| if spoilt.is_some_and(|item| of_id(item.0 as i64) == n) { [f32::NAN; WIDTH] } else { bucket(n) };
    let table: Vec<f32> = (0..BUCKETS).flat_map(of).collect();
    let nodes = [
        ("Mod", ["item", "count"], "own"),
        ("Gather", ["table", "own"], "its"),
        ("Mod", ["tokens", "count"], "said"),
        ("Gather", ["table", "said"], "theirs"),
        ("ReduceSum", ["theirs", "axis"], "all"),
        ("Add", ["its", "all"], "both"),
        ("Squeeze", ["both", "axis"], "vector"),
    ];
    let graph = Graph {
        node: nodes.iter().map(|(op, inputs, output)| node(op, inputs, output)).collect(),
        name: "item".into(),
        initializer: vec![
            floats("table", &[BUCKETS as i64, WIDTH as i64], &table),
            longs("count", &[BUCKETS as i64]),
            longs("axis", &[1]),
        ],
        input: vec![rows_of("item", I64, &[1]), rows_of("tokens", I64, &[16])],
        output: vec![rows_of("vector", F32, &[WIDTH as i64])],
    };
    model(graph, "item")
}

/// The sum of the history.
fn user_tower() -> Model {
    let graph = Graph {
        node: vec![node("ReduceSum", &["history", "axis"], "all"), node("Squeeze", &["all", "axis"], "vector")],
        name: "user".into(),
        initializer: vec![longs("axis", &[1])],
        input: vec![rows_of("history", F32, &[HISTORY as i64, WIDTH as i64])],
        output: vec![rows_of("vector", F32, &[WIDTH as i64])],
    };
    model(graph, "user")
}

fn golden() -> serde_json::Value {
    let items: [(i64, Vec<i64>); 3] = [(-7, vec![]), (5, vec![11, -12]), (i64::MAX, vec![1; 16])];
    let vectors: Vec<Numbers> =
        items.iter().map(|(id, tokens)| sum([id].into_iter().chain(tokens).map(|id| bucket(of_id(*id))))).collect();
    let histories = [vec![], vec![2], vec![0, 1, 2, 1]];
    let users: Vec<Numbers> = histories.iter().map(|history| sum(history.iter().map(|at: &usize| vectors[*at]))).collect();
    let told = |all: Vec<Numbers>| all.iter().map(|one| one.to_vec()).collect::<Vec<_>>();
    let items: Vec<_> = items.iter().map(|(item, tokens)| json!({"item": item, "tokens": tokens})).collect();
    json!({"items": items, "vectors": told(vectors), "histories": histories, "users": told(users)})
}

/// Writes both towers and what they must give, and reads them as the engine does.
fn read(dir: &Path, item: &Model, user: &Model, golden: &serde_json::Value) -> Result<Towers, String> {
    let put = |name: &str, bytes: Vec<u8>| std::fs::write(dir.join(name), bytes).expect("there is room");
    put("item.onnx", item.encode_to_vec());
    put("user.onnx", user.encode_to_vec());
    put("golden.json", golden.to_string().into_bytes());
    load_towers(dir, &Onnx::on_cpu()).map_err(|e| e.to_string())
}

fn good(spoilt: Option<ItemId>) -> Towers {
    let dir = tempfile::tempdir().expect("a folder");
    read(dir.path(), &item_tower(spoilt), &user_tower(), &golden()).expect("they are good")
}

#[test]
fn c14_what_cannot_be_used_is_refused_with_the_file_and_the_cause() {
    let dir = tempfile::tempdir().expect("a folder");
    let (item, user, golden) = (item_tower(None), user_tower(), golden());
    let refused = |item: &Model, user: &Model, golden: &serde_json::Value| {
        read(dir.path(), item, user, golden).expect_err("it must be refused")
    };
    let changed = |model: &Model, change: &dyn Fn(&mut Model)| {
        let mut changed = model.clone();
        change(&mut changed);
        changed
    };
    let graph = |m: &mut Model, change: &dyn Fn(&mut Graph)| change(m.graph.as_mut().expect("it has one"));
    let cases: [(String, &str); 8] = [
        (
            refused(&changed(&item, &|m| m.metadata_props.clear()), &user, &golden),
            "the metadata of item.onnx lack `overdrive.schema`",
        ),
        (refused(&item, &item, &golden), "user.onnx says overdrive.tower is item; here it must be user"),
        (
            refused(&changed(&item, &|m| graph(m, &|g| g.input[1] = rows_of("tokens", I64, &[8]))), &user, &golden),
            "must be i64 of shape [rows, 16]",
        ),
        (
            refused(&changed(&item, &|m| graph(m, &|g| g.input.push(rows_of("more", F32, &[1])))), &user, &golden),
            "item.onnx: it has 3 inputs; it must have 2",
        ),
        (refused(&item, &changed(&user, &|m| graph(m, &|g| g.output[0].name = "x".into())), &golden), "user.onnx"),
        (refused(&item, &user, &json!({})), "its golden.json is not as it should be"),
        (
            refused(&changed(&item, &|m| graph(m, &|g| g.initializer[0].raw_data[4 * WIDTH * 5 + 3] = 0x40)), &user, &golden),
            "golden item 1: number 0 of its vector is",
        ),
        (refused(&item, &changed(&user, &|m| graph(m, &|g| g.node[0].op_type = "ReduceMean".into())), &golden), "user.onnx"),
    ];
    for (why, says) in &cases {
        assert!(why.contains("cannot be used") && why.contains(says), "{says}: {why}");
    }
    std::fs::remove_file(dir.path().join("user.onnx")).expect("it was there");
    let why = load_towers(dir.path(), &Onnx::on_cpu()).expect_err("half of it is missing").to_string();
    assert!(why.contains("its user.onnx cannot be read"), "{why}");
}

#[test]
fn c14_the_towers_are_those_of_the_files() {
    let towers = good(None);
    let mut tower = (towers.open)().expect("they open");
    let (id, tokens) = (item(3), [category(0)]);
    let made = tower.item(id, &tokens).expect("a vector");
    assert_eq!(made, sum([id.0, tokens[0].0].into_iter().map(|id| bucket(of_id(id as i64)))));
    let (one, other) = (Vector(made), Vector([0.25; WIDTH]));
    assert_eq!(tower.user(&[&one, &other]).expect("a vector"), std::array::from_fn(|at| made[at] + 0.25));
    assert_ne!(good(Some(item(3))).digest, towers.digest, "another model is told apart");
}

/// Users take items of the catalogue one after another; what is of one category is near to it by the towers.
fn log() -> Log {
    let mut log = Log::with_catalogue();
    for n in 0..90u64 {
        let clock = log.advance(30 * SECOND);
        let (who, what) = (user((n % 9) as u8), item((n * n % 7 + n % 5) as u8));
        let event = Event { id: n + 1, user: who, item: what, kind: Kind::Like, op: Op::Add, at: clock, value_milli: None };
        log.epoch(vec![Input::Event(event)]);
    }
    log
}

fn params(towers: Option<Towers>, learns: bool) -> Params {
    let mut params = dataflow::params();
    (params.learn.enabled, params.learn.serve_after, params.learn.logged) = (learns, 0, if learns { 1.0 } else { 0.0 });
    params.towers.loaded = towers;
    params
}

/// Every worker tells its part of what failed.
fn without_arms(changes: &Changes) -> Vec<(u64, &Change)> {
    let all = changes.iter().flat_map(|(epoch, changes)| changes.iter().map(|change| (*epoch, change)));
    all.filter(|(_, change)| !matches!(change, Change::Arms(_))).collect()
}

/// What towers brought to slates: for whom, and what.
fn found(changes: &Changes) -> Vec<(UserId, SlateItem)> {
    let slate = |change: &Change| if let Change::Slate { slate, .. } = change { slate.clone() } else { None };
    let slates = changes.values().flatten().filter_map(slate);
    let of = |slate: Arc<overdrive::model::Slate>| slate.items.iter().map(|item| (slate.user, item.clone())).collect::<Vec<_>>();
    slates.flat_map(of).filter(|(_, item)| item.source == Source::Towers).collect()
}

fn examples(changes: &Changes) -> Vec<Arc<Example>> {
    let example = |change: &Change| if let Change::Example(example) = change { Some(example.clone()) } else { None };
    changes.values().flatten().filter_map(example).collect()
}

#[test]
fn c14_what_towers_find_is_shown_with_its_reason_at_any_number_of_workers_and_over_any_stop() {
    let (towers, log) = (good(None), log());
    for learns in [false, true] {
        let params = params(Some(towers.clone()), learns);
        let one = run_by(&log, Run::plain(), &params);
        for workers in [2, 4] {
            let others = run_by(&log, Run { workers, one_by_one: true }, &params);
            assert!(without_arms(&one) == without_arms(&others), "{workers} workers, learning {learns}");
        }
        for stop in [1, 40] {
            let first = log.saved_after(stop).until(stop as u64);
            let (mut changes, kept) = resume_by(&first, &Kept::new(), Run { workers: 2, one_by_one: false }, &params);
            changes.extend(resume_by(&log.since(stop as u64), &kept, Run { workers: 1, one_by_one: false }, &params).0);
            assert!(without_arms(&one) == without_arms(&changes), "stopped after {stop} epochs, learning {learns}");
        }
        let found = found(&one);
        let took = |who: UserId, what: ItemId| {
            let inputs = log.epochs.iter().flat_map(|(_, rows)| rows).filter_map(|row| row.input.as_ref().ok());
            inputs.clone().any(|input| matches!(input, Input::Event(event) if (event.user, event.item) == (who, what)))
        };
        let honest = |(who, shown): &(UserId, SlateItem)| match shown.reason {
            Reason::Because { kind: Kind::Like, item } => item != shown.item && took(*who, item),
            _ => false,
        };
        assert!(found.len() > 20 && found.iter().all(honest), "learning {learns}: {found:?}");
        let without = run_by(&log, Run::plain(), &self::params(None, learns));
        assert!(self::found(&without).is_empty());
    }
}

/// What was learned orders for nobody for whom that is switched off: not by towers either.
#[test]
fn c31_towers_are_off_where_what_was_learned_is() {
    let log = log();
    let by = |towers| {
        let mut params = params(towers, false);
        params.flags = flags::Params { ml_recommendations: 0.0, ..params.flags };
        run_by(&log, Run::plain(), &params)
    };
    assert!(without_arms(&by(Some(good(None)))) == without_arms(&by(None)));
}

/// What towers learn from: the latest items of the user before the act, what every candidate is like, and what the towers say by now.
#[test]
fn c14_examples_hold_what_towers_are_trained_on_and_what_they_say() {
    let log = log();
    let changes = run_by(&log, Run::plain(), &params(Some(good(None)), true));
    let examples = examples(&changes);
    let mut taken: Vec<(UserId, ItemId)> = Vec::new();
    let mut seen = BTreeSet::new();
    for (_, rows) in &log.epochs {
        for row in rows {
            let Ok(Input::Event(event)) = &row.input else { continue };
            let before: Vec<ItemId> = taken.iter().rev().filter(|(of, _)| *of == event.user).map(|(_, item)| *item).collect();
            if let Some(example) = examples.iter().find(|example| (example.user, example.at) == (event.user, event.at)) {
                assert_eq!(example.history, before, "the latest first, without what is taken now");
                assert_eq!(example.tokens.len(), example.candidates.len());
                let like = |(item, tokens): (&ItemId, &Vec<_>)| {
                    (0..12).all(|n| *item != self::item(n) || tokens.contains(&category(n % 3)))
                };
                assert!(example.candidates.iter().map(|(item, _)| item).zip(&example.tokens).all(like));
                seen.insert(event.at);
            }
            if !taken.contains(&(event.user, event.item)) {
                taken.push((event.user, event.item)); // who likes it once more has liked it
            }
        }
    }
    assert!(seen.len() > 10 && seen.len() == examples.len(), "{} of {}", seen.len(), examples.len());
    let says: Vec<f32> = examples
        .iter()
        .filter(|of| !of.history.is_empty())
        .flat_map(|of| of.columns.chunks(COLUMNS).map(|row| row[TOWER]))
        .collect();
    assert!(says.iter().any(|one| one.to_bits() != says[0].to_bits()) && says.iter().all(|one| one.is_finite()), "{says:?}");
    let without = self::examples(&run_by(&log, Run::plain(), &params(None, true)));
    assert!(without.iter().all(|of| of.columns.chunks(COLUMNS).all(|row| row[TOWER] == 0.0)));
}

/// An item of which the tower makes what is no number is not found by it; everything else is as it was, and what failed is counted and said.
#[test]
fn c14_a_tower_that_fails_costs_nothing_but_itself() {
    let (log, spoilt) = (log(), item(5));
    let changes = run_by(&log, Run::plain(), &params(Some(good(Some(spoilt))), false));
    let failures =
        changes.values().flatten().filter_map(|change| if let Change::Arms(arms) = change { Some(&arms.towers) } else { None });
    let failures: Vec<_> = failures.filter(|(count, _)| *count > 0).collect();
    assert!(failures.iter().any(|(_, why)| why.as_deref() == Some("it gave a vector that points nowhere")), "{failures:?}");
    let found = found(&changes);
    assert!(found.len() > 20 && found.iter().all(|(_, shown)| shown.item != spoilt), "{found:?}");
    let shows = |change: &Change| matches!(change, Change::Slate { slate: Some(slate), .. } if slate.items.iter().any(|of| of.item == spoilt));
    assert!(changes.values().flatten().any(shows), "others bring it");
}
