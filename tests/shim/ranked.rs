//! A caller's candidates ordered by a model: by the same columns as in the dataflow, under its name; and by the fixed weights where it fails
//! or is not wanted.

use overdrive::model::catalogue::{Item, User};
use overdrive::model::ids::TokenKind;
use overdrive::model::slate::TERMS;
use overdrive::model::time::SECOND;
use overdrive::model::{Change, Event, Example, Input, Kind, Names, Op, TokenId, UserId};
use overdrive::registry::{Onnx, load};
use overdrive::scoring::columns::{self, COLUMNS, Row};
use overdrive::scoring::falling::{OF_MODELS, falling, micro};
use overdrive::scoring::ranker::Ranker;
use overdrive::sinks::encode::Encoder;
use overdrive::sinks::{Applied, Known};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::client::post;
use super::dataflow::{Changes, ITEMS, Log, Run, category, item, params, run_by, user};
use super::hometown::lives;
use super::onnx::{floats, linear, node, write};
use super::world::{CLOCK, World, config};
use super::{conforms, fill, openapi};

/// Every column that is at hand, each with a weight that tells it from the others.
const WEIGHED: [(&str, f32); 20] = [
    ("content", 3.0),
    ("collaborative", 2.1),
    ("real_time", 1.3),
    ("interests", -0.9),
    ("freshness", 0.7),
    ("fixed", 5.3),
    ("distance_km", -0.0003),
    ("proximity_boost", 4.1),
    ("is_local_match", 0.53),
    ("is_regional_match", 0.37),
    ("same_city", 0.71),
    ("same_language", 0.43),
    ("user_local_preference", 0.2),
    ("user_total_watch_hours", 0.001),
    ("stream_quality_score", 0.17),
    ("stream_avg_viewers", 0.0011),
    ("creator_followers", 0.000_13),
    ("is_partnered", 0.29),
    ("mature_content", -0.31),
    ("category_match", 0.61),
];

/// Their sum, and the square of another, so that what is the same for all candidates of a user counts with what is not.
fn weighed(dir: &Path) -> PathBuf {
    let (names, weights): (Vec<&str>, Vec<f32>) = WEIGHED.into_iter().unzip();
    let others: Vec<f32> = weights.iter().enumerate().map(|(at, weight)| weight * (0.3 + 0.02 * at as f32)).collect();
    let mut model = linear(&names, &weights);
    let graph = model.graph.as_mut().expect("it has one");
    graph.node = vec![
        node("MatMul", &["features", "w"], "sum"),
        node("MatMul", &["features", "v"], "other"),
        node("Mul", &["other", "other"], "square"),
        node("Add", &["sum", "square"], "score"),
    ];
    graph.initializer.push(floats("v", &[names.len() as i64, 1], &others));
    let (sum, other) = (weights.iter().sum::<f32>(), others.iter().sum::<f32>());
    write(dir, "weighed", &model, &[vec![1.0; names.len()]], &[sum + other * other])
}

fn ranked(w: &World, body: &Value) -> Value {
    let answer = post(w.addr, "/v1/rank", &body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    conforms(&openapi(), "/v1/rank", "post", "200", &answer.json());
    answer.json()
}

fn ids(answer: &Value) -> Vec<String> {
    let id = |item: &Value| item["item_id"].as_str().expect("a text").to_string();
    answer["items"].as_array().expect("a list").iter().map(id).collect()
}

fn names() -> Arc<Names> {
    let names = Names::default();
    for n in 0..100 {
        names.user(&format!("u{n}")).expect("no collision");
        names.item(&format!("i{n}")).expect("no collision");
    }
    for n in 0..4 {
        names.token(TokenKind::Category, &format!("c{n}")).expect("no collision");
        names.token(TokenKind::Author, &format!("a{n}")).expect("no collision");
    }
    ["en", "de"].iter().for_each(|name| _ = names.token(TokenKind::Language, name).expect("no collision"));
    names.into()
}

/// Of two items more than the catalogue says of the others.
fn told(n: u8) -> Input {
    let facts = Item {
        categories: [category(n % 3)].into_iter().collect(),
        language: Some(TokenId::typed(TokenKind::Language, "de")),
        lat: Some(48.2),
        lon: Some(11.5),
        city: Some("Munich".into()),
        avg_viewers: Some(850.0),
        followers: Some(15_000),
        partnered: true,
        mature: n == 3,
        available: true,
        ..Item::default()
    };
    Input::Item(item(n), Some(Arc::new(facts)))
}

fn said_of(who: u8) -> Input {
    let said = User {
        language: Some(TokenId::typed(TokenKind::Language, if who.is_multiple_of(2) { "de" } else { "en" })),
        lat: Some(48.0 + f64::from(who) / 10.0),
        lon: Some(11.5),
        city: Some(if who < 4 { "munich " } else { "Rome" }.into()),
        local_preference: Some(0.25),
        total_watch_hours: Some(f64::from(who) * 40.0),
        allow_mature: true,
        ..User::default()
    };
    Input::User(user(who), Some(Arc::new(said)))
}

/// Six users with profiles who act, then a round of turns in which nobody does, and they act once more: all that is told in turns was told,
/// so what a store holds before the last epoch is what the dataflow knows in it.
fn log() -> Log {
    let mut log = Log::with_catalogue();
    log.epoch(vec![told(3), told(8)]);
    log.epoch((0..6).map(said_of).collect());
    let kinds = [Kind::View, Kind::Like, Kind::Share, Kind::Click, Kind::Follow];
    let mut id = 0;
    let mut acts = |log: &mut Log, shift: u8, later| {
        let at = log.advance(later);
        let mut act = |who: u8, what: u8| {
            id += 1;
            let kind = kinds[id as usize % kinds.len()];
            Input::Event(Event { id, user: user(who), item: item(what), kind, op: Op::Add, at, value_milli: None })
        };
        let theirs: Vec<Input> = (0..6).map(|who| act(who, (shift * 5 + who * 2 + who % 2) % ITEMS)).collect();
        theirs.into_iter().chain((20..40).map(|who| act(who, 11))).collect::<Vec<_>>()
    };
    for shift in 0..6 {
        let inputs = acts(&mut log, shift, 7 * SECOND);
        log.epoch(inputs);
    }
    (0..3).for_each(|_| log.epoch(Vec::new()));
    let last = acts(&mut log, 6, 0);
    log.epoch(last);
    log
}

fn examples(changes: &Changes, epoch: u64) -> Vec<Arc<Example>> {
    let example = |change: &Change| if let Change::Example(example) = change { Some(example.clone()) } else { None };
    changes[&epoch].iter().filter_map(example).collect()
}

#[test]
fn c25_a_model_sees_of_a_callers_candidates_what_the_dataflow_logs_of_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, log, names) = (weighed(dir.path()), log(), names());
    let mut params = params();
    params.learn.logged = 1.0;
    let changes = run_by(&log, Run::plain(), &params);
    let last = &log.epochs.last().expect("there is one").0;
    let mut scorer = Ranker::new(&load(&model, &Onnx::on_cpu()).expect("it is good"));
    let set = |config: &mut overdrive::config::Config| {
        config.service.rank_by = model.to_str().expect("a plain path").into();
        let slates = &mut config.recommend.slates;
        (slates.author_decay, slates.category_decay) = (1.0, 1.0); // nothing but the score orders
    };
    let mut test = |mut w: World| {
        let encoder = Encoder::new(names.clone(), &config().store);
        for (epoch, _) in log.epochs.iter().filter(|(epoch, _)| epoch.number < last.number) {
            let mut writes = Vec::new();
            changes[&epoch.number].iter().for_each(|change| encoder.writes(change, epoch, 1, &mut writes));
            let applied =
                Applied { epoch: epoch.number, tick_epoch: epoch.number, clock_ms: last.clock_ms, ..Applied::default() };
            w.store.write(&writes, &applied, Known::default()).expect("the store takes it");
        }
        let (mut compared, mut told) = (0, BTreeSet::new());
        for example in examples(&changes, last.number) {
            let rows: Vec<Row> = example.columns.chunks_exact(COLUMNS).map(|row| row.try_into().expect("a row")).collect();
            let mut scores: Vec<f32> = rows.iter().map(|row| row[columns::FIXED]).collect();
            assert_eq!(scorer.rescore(&rows, &mut scores).scored as usize, rows.len());
            let name = |id: u64| names.items.get(id).expect("interned").to_string();
            let scores = falling(&scores, OF_MODELS).into_iter().map(micro);
            let mut expected: Vec<(i32, String)> =
                scores.zip(&example.candidates).map(|(score, (item, _))| (score, name(item.0))).collect();
            let brought: Vec<String> = expected.iter().map(|(_, item)| item.clone()).collect();
            expected.sort_by_key(|(score, item)| (-score, overdrive::model::ItemId::of(item)));
            let who = (0..40).map(|n| format!("u{n}")).find(|who| UserId::of(who) == example.user).expect("one of them");
            let answer = ranked(&w, &json!({"user_id": who, "items": brought, "seen": true, "explain": true}));
            for (of, id) in answer["items"].as_array().expect("a list").iter().zip(ids(&answer)) {
                let row = rows[brought.iter().position(|brought| *brought == id).expect("brought")];
                let terms = TERMS.map(|term| of["terms"][term].as_f64().expect("a number") as f32);
                assert_eq!(terms, row[columns::AT_HAND..columns::FIXED], "{id} of {who} over {}", w.name);
            }
            let found: Vec<(i32, String)> = answer["items"]
                .as_array()
                .expect("a list")
                .iter()
                .zip(ids(&answer))
                .map(|(of, id)| (micro(of["score"].as_f64().expect("a number")), id))
                .collect();
            assert_eq!((&answer["model"], found), (&json!("weighed"), expected), "of {who} over {}", w.name);
            for (at, name) in columns::names().enumerate().skip(columns::AT_HAND) {
                if rows.iter().any(|row| row[at] != rows[0][at]) || rows[0][at] != 0.0 {
                    told.insert(name);
                }
            }
            compared += 1;
        }
        assert!(compared >= 6 && told.len() == WEIGHED.len(), "{compared} users; nothing is told by all but {told:?}");
    };
    test(World::set(set));
    #[cfg(feature = "redis")]
    test(super::over_redis_set(set));
}

/// Where it fails, and for whom it is switched off, the fixed weights order.
#[test]
fn c32_a_model_that_fails_or_is_switched_off_leaves_the_fixed_weights() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = write(dir.path(), "far", &linear(&["distance_km"], &[1.0]), &[vec![2.0]], &[2.0]);
    let steep = write(dir.path(), "steep", &linear(&["distance_km"], &[1e36]), &[vec![2.0]], &[2e36]); // no number for what is far
    let candidates = json!([{"item_id": "here", "lat": 48.1, "lon": 11.5, "created_at": CLOCK}, {"item_id": "there"}]);
    let body = json!({"user_id": "u1", "items": candidates});
    let world = |path: &Path, ml: f64| {
        let mut w = World::set(|config| {
            config.service.rank_by = path.to_str().expect("a plain path").into();
            config.recommend.flags.ml_recommendations = ml;
        });
        fill(&mut w);
        w.write(&[lives(&w, "u1", Some((48.5, 11.5)), |_| {})]);
        w
    };
    let answer = ranked(&world(&path, 1.0), &body);
    assert_eq!((answer["model"].clone(), answer["items"][0]["score"].clone()), (json!("far"), json!(1.0)), "{answer}");
    let answer = ranked(&world(&path, 0.0), &body);
    assert_eq!(answer["model"], "blend", "{answer}");
    let answer = ranked(&world(&steep, 1.0), &body);
    let scores = answer["items"].as_array().map(|items| items.iter().map(|item| item["score"].clone()).collect::<Vec<_>>());
    assert_eq!((&answer["model"], scores), (&json!("steep"), Some(vec![json!(1.0); 2])), "one goes with the other: {answer}");
    let answer = ranked(&world(&steep, 1.0), &json!({"user_id": "u1", "items": ["there", "elsewhere"]}));
    assert_eq!((answer["model"].clone(), ids(&answer).len()), (json!("blend"), 2), "{answer}");
}

#[test]
fn a_model_of_columns_that_are_not_at_hand_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let refused = |rank_by: &str| {
        let mut config = config();
        config.service.rank_by = rank_by.into();
        config.recommend.ranker.registry = dir.path().join("none").to_str().expect("plain").into();
        overdrive::shim::Rules::read(&config).map(drop).expect_err("it must be refused")
    };
    let path = write(dir.path(), "old", &linear(&["fixed", "pop_3h"], &[1.0, 1.0]), &[vec![1.0, 2.0]], &[3.0]);
    let why = refused(path.to_str().expect("plain"));
    assert!(why.contains("service.rank_by") && why.contains("`pop_3h`") && why.contains("--for rank"), "{why}");
    let why = refused("lr-rank-9");
    assert!(why.contains("service.rank_by") && why.contains("lr-rank-9") && why.contains("no such version"), "{why}");
    let why = refused("nowhere.onnx");
    assert!(why.contains("service.rank_by") && why.contains("nowhere.onnx"), "{why}");
}
