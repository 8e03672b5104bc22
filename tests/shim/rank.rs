//! A caller's candidates in order: the same order, scores, reasons and terms as in the slate the engine made, and what is said of those it
//! does not know.

use overdrive::model::ids::TokenKind;
use overdrive::model::time::SECOND;
use overdrive::model::{Change, Event, Input, Kind, Names, Op, Slate};
use overdrive::scoring::blend;
use overdrive::sinks::encode::Encoder;
use overdrive::sinks::layout::{self, SlateValue, Stamp, proto};
use overdrive::sinks::{Applied, Known, Write};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::client::{post, send};
use super::dataflow::{Changes, ITEMS, Log, Run, item, params, run_by, user};
use super::world::{CLOCK, World, config};
use super::{JSON, both, conforms, fill, openapi};

const USERS: u8 = 9;

fn ranked(w: &World, body: &Value) -> Value {
    let answer = post(w.addr, "/v1/rank", &body.to_string());
    assert_eq!(answer.status, 200, "{}", answer.body);
    conforms(&openapi(), "/v1/rank", "post", "200", &answer.json());
    answer.json()
}

fn ids(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().expect("a list").iter().map(|item| item["item_id"].as_str().expect("a text")).collect()
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
    names.token(TokenKind::Language, "en").expect("no collision");
    names.into()
}

/// What nine users did, six of them each in a category, three with the same items, while a crowd looks at one item. It ends with a tick in
/// which all nine act, so that every slate is of the last epoch.
fn log() -> Log {
    let mut log = Log::with_catalogue();
    let kinds = [Kind::View, Kind::Like, Kind::Share, Kind::Click, Kind::Follow];
    let act = |id: u64, who: u8, what: u8, at| {
        let kind = kinds[id as usize % kinds.len()];
        Input::Event(Event { id, user: user(who), item: item(what), kind, op: Op::Add, at, value_milli: None })
    };
    let mut id = 0;
    let mut all = |log: &mut Log, shift: u8| {
        let at = log.advance(7 * SECOND);
        let each = |who: u8| {
            id += 1;
            let what = if who < 6 { who % 3 + 3 * ((shift + who / 3) % 4) } else { (shift * 5 + who % 2) % ITEMS };
            act(id, who, what, at)
        };
        let acts: Vec<Input> = (0..USERS).map(each).collect();
        let crowd = (20..80).map(|who| act(10_000 + u64::from(shift) * 100 + u64::from(who), who, 11, at));
        acts.into_iter().chain(crowd).collect::<Vec<_>>()
    };
    for shift in 0..2 {
        let inputs = all(&mut log, shift);
        log.epoch(inputs);
    }
    assert_eq!(log.epochs.len() % 3, 0, "the next epoch is a tick");
    let last = all(&mut log, 2);
    log.epoch(last);
    log
}

fn slates(changes: &Changes, last: u64) -> BTreeMap<String, Arc<Slate>> {
    let name = |slate: &Slate| (0..USERS).map(|n| format!("u{n}")).find(|name| overdrive::model::UserId::of(name) == slate.user);
    let of = |change: &Change| if let Change::Slate { slate: Some(slate), .. } = change { Some(slate.clone()) } else { None };
    changes[&last].iter().filter_map(of).filter_map(|slate| Some((name(&slate)?, slate))).collect()
}

#[test]
fn c25_candidates_of_a_caller_stand_as_the_engine_has_them_in_the_slate() {
    let (log, names) = (log(), names());
    let mut params = params();
    params.learn.enabled = false;
    params.explore.slots = 0; // what is explored stands where no score puts it
    let changes = run_by(&log, Run::plain(), &params);
    both(|mut w| {
        let encoder = Encoder::new(names.clone(), &config().store);
        for (epoch, _) in &log.epochs {
            let mut writes = Vec::new();
            changes[&epoch.number].iter().for_each(|change| encoder.writes(change, epoch, 1, &mut writes));
            let applied =
                Applied { epoch: epoch.number, tick_epoch: epoch.number, clock_ms: epoch.clock_ms, ..Applied::default() };
            w.store.write(&writes, &applied, Known::default()).expect("the store takes it");
        }
        let (mut sources, mut compared) = (BTreeSet::new(), 0);
        for (user, slate) in slates(&changes, log.epochs.len() as u64 - 1) {
            let item = |n: &overdrive::model::ItemId| names.items.get(n.0).expect("interned").to_string();
            let mut brought: Vec<String> = slate.items.iter().map(|row| item(&row.item)).collect();
            let expected = brought.clone();
            brought.sort();
            let answer = ranked(&w, &json!({"user_id": user, "items": brought, "explain": true}));
            assert_eq!(ids(&answer), expected, "of {user} over {}", w.name);
            assert_eq!(
                (&answer["fallback"], &answer["left_out"], &answer["model"]),
                (&json!(false), &json!([]), &json!("blend"))
            );
            for (row, placed) in slate.items.iter().zip(answer["items"].as_array().expect("a list")) {
                let terms = overdrive::model::slate::TERMS.map(|term| placed["terms"][term].as_f64().expect("a number"));
                assert_eq!(blend::stored(&terms), row.terms, "{placed} of {user}");
                assert_eq!(placed["score"], json!(f64::from(row.score_micro) / 1e6), "{placed} of {user}");
                assert_eq!(
                    (&placed["source"], &placed["known"]),
                    (&json!(row.source.name()), &json!(true)),
                    "{placed} of {user}"
                );
                sources.insert(row.source.name());
                compared += 1;
            }
            let feed = super::get(w.addr, &format!("/v1/feeds/home/{user}?k=20")).json();
            let reasons =
                |of: &Value| of["items"].as_array().expect("a list").iter().map(|i| i["reason"].clone()).collect::<Vec<_>>();
            assert_eq!(reasons(&answer), reasons(&feed), "in the same words");
        }
        assert!(compared >= 60 && sources.len() >= 3, "{compared} places from {sources:?}");
    });
}

fn card(w: &World, card: proto::Card) -> Write {
    let value = layout::encode_card(&card, Stamp { epoch: w.applied.epoch + 1, generation: 1, model: 0 });
    Write::Value { key: w.keys.card(&card.item_id), value, ttl: Duration::from_secs(60), fence: w.fence() }
}

/// Of items the store has no card of, what the caller says counts; what must not be shown is left out and listed.
#[test]
fn unknown_items_count_by_what_is_said_of_them_and_hidden_ones_are_listed() {
    both(|mut w| {
        fill(&mut w);
        let rock = proto::Card { item_id: "r".into(), categories: vec!["rock".into()], ..proto::Card::default() };
        let adult = proto::Card { item_id: "m".into(), mature: true, ..proto::Card::default() };
        let writes = [card(&w, rock), card(&w, adult), w.gone("g"), w.seen("u1", &["s"])];
        w.write(&writes);
        let items = json!([
            "nothing",
            {"item_id": "jazzy", "categories": ["jazz"]},
            {"item_id": "r", "categories": ["jazz"], "created_at": CLOCK},
            "m", "g", "s",
            {"item_id": "x", "available": false},
        ]);
        let answer = ranked(&w, &json!({"user_id": "u1", "items": items, "explain": true}));
        assert_eq!(ids(&answer), ["jazzy", "r", "nothing"], "over {}: {answer}", w.name);
        let known = answer["items"].as_array().expect("a list").iter().map(|item| &item["known"]).collect::<Vec<_>>();
        assert_eq!(known, [&json!(false), &json!(true), &json!(false)], "a card goes before what the caller says");
        assert_eq!(answer["items"][0]["reason"], "because you like jazz");
        let out = json!([
            {"item_id": "m", "why": "mature"}, {"item_id": "g", "why": "withdrawn"},
            {"item_id": "s", "why": "seen"}, {"item_id": "x", "why": "withdrawn"},
        ]);
        assert_eq!(answer["left_out"], out);
        let answer = ranked(&w, &json!({"user_id": "u1", "items": items, "seen": true, "mature": true, "k": 1}));
        assert_eq!((ids(&answer), answer["left_out"].as_array().map(Vec::len)), (vec!["jazzy"], Some(3)));
        assert_eq!(answer["left_out"][0], json!({"item_id": "m", "why": "mature"}), "whatever the request says");
        assert_eq!(answer["items"][0].get("terms"), None, "only where they are asked for");
        let stranger = ranked(&w, &json!({"user_id": "nobody", "items": ["b", "a"]}));
        assert_eq!((&stranger["fallback"], ids(&stranger).len()), (&json!(true), 2));
    });
}

/// A list that an earlier version wrote says last how many users took its item; it counts the same.
#[test]
fn c25_a_list_of_an_earlier_version_counts_as_one_of_this_does() {
    let before = include_bytes!("../../testdata/layout/neighbours-before.bin");
    let of_nine = layout::decode_neighbours(before).expect("a list of before");
    assert_eq!((of_nine.item_id.as_str(), of_nine.users, layout::crowd(before)), ("i9", 424, None));
    both(|mut w| {
        fill(&mut w);
        let stamp = Stamp { epoch: w.applied.epoch + 1, generation: 1, model: 0 };
        let write = |w: &World, key, value: &[u8]| Write::Value {
            key,
            value: value.to_vec(),
            ttl: Duration::from_secs(60),
            fence: w.fence(),
        };
        let mut slate = SlateValue::new(Vec::new(), "u7", "home", CLOCK);
        slate.took("i1", "like");
        slate.in_all(1);
        let near = proto::Neighbour { item_id: "i9".into(), similarity_micro: 1, users: 300 };
        let of_one =
            proto::Neighbours { item_id: "i1".into(), users: 350, neighbours: vec![near], ..proto::Neighbours::default() };
        let (slate_key, one, nine) = (w.keys.slate("home", None, "u7"), w.keys.neighbours("i1"), w.keys.neighbours("i9"));
        let writes = [write(&w, slate_key, &slate.finish(stamp)), write(&w, one, &layout::encode_neighbours(&of_one, stamp))];
        w.write(&writes);
        let collaborative = |w: &World| {
            let answer = ranked(w, &json!({"user_id": "u7", "items": ["i9"], "explain": true}));
            answer["items"][0]["terms"]["collaborative"].as_f64().expect("a term")
        };
        let unknown = collaborative(&w);
        let mut counted = |value: &[u8]| {
            let writes = [write(&w, nine.clone(), value)];
            w.write(&writes);
            collaborative(&w)
        };
        let (old, new) = (counted(before), counted(&layout::encode_neighbours(&of_nine, stamp)));
        assert!(old == new && 0.0 < old && old < unknown, "{old} {new}, of an item nobody took {unknown}");
    });
}

#[test]
fn what_cannot_be_put_in_order_is_refused_by_name() {
    let w = World::memory(|params| (params.candidates_limit, params.max_id_bytes) = (3, 8));
    let long = "x".repeat(9);
    for (body, code, says) in [
        (json!({"user_id": "u", "items": []}), "bad_items", "items has 0 candidates; send 1 to 3"),
        (json!({"user_id": "u", "items": ["a", "b", "c", "d"]}), "bad_items", "items has 4 candidates; send 1 to 3"),
        (json!({"user_id": "u", "items": ["a", "b", "a"]}), "bad_items", "items[2] is `a` once more"),
        (json!({"user_id": "u", "items": ["a", 7]}), "bad_items", "items[1] cannot be read"),
        (json!({"user_id": "u", "items": ["a", {"tags": ["x"]}]}), "bad_items", "items[1] cannot be read: `item_id`"),
        (json!({"user_id": "u", "items": [long]}), "bad_items", "items[0] cannot be read: `item_id`"),
        (json!({"user_id": "u", "items": [{"item_id": "a", "quality": 7}]}), "bad_items", "`quality`"),
        (json!({"user_id": "u", "items": ["a"], "k": 0}), "bad_k", "k is `0`"),
        (json!({"user_id": long, "items": ["a"]}), "bad_id", "9 bytes"),
        (json!({"user_id": "u", "candidates": ["a"]}), "bad_json", "unknown field `candidates`"),
    ] {
        let answer = post(w.addr, "/v1/rank", &body.to_string());
        assert_eq!(answer.refusal(), (400, code.to_string()), "{body}: {}", answer.body);
        assert!(answer.body.contains(says), "{body}: {}", answer.body);
    }
    let lines = send(w.addr, "POST", "/v1/rank", &["content-type: application/x-ndjson".to_string()], b"{}");
    assert_eq!(lines.refusal(), (415, "unsupported_media_type".to_string()));
    let bad = send(w.addr, "POST", "/v1/rank", &[JSON.to_string()], b"{\"user_id\":\"u\xff\",\"items\":[\"a\"]}");
    assert_eq!(bad.refusal(), (400, "bad_utf8".to_string()));
}

/// A card is written at ticks: who has just described an item waits for one, who has just liked it does not.
#[test]
fn the_write_of_an_item_is_in_the_order_from_the_next_tick_on() {
    let mut w = World::memory(|params| params.token_wait = Duration::from_millis(50));
    fill(&mut w);
    let token =
        |w: &World, path: &str, body: &str| post(w.addr, path, body).json()["token"].as_str().expect("a token").to_string();
    let described = token(&w, "/v1/items", r#"{"item_id":"new","categories":["jazz"]}"#);
    let liked = token(&w, "/v1/events", r#"{"type":"like","user_id":"u1","item_id":"new"}"#);
    let stale = |w: &World, token: &str| {
        let headers = [JSON.to_string(), format!("x-overdrive-token: {token}")];
        send(w.addr, "POST", "/v1/rank", &headers, br#"{"user_id":"u1","items":["new"]}"#).json()["stale"].clone()
    };
    assert_eq!([stale(&w, &described), stale(&w, &liked)], [json!(true), json!(true)]);
    w.caught_up(false);
    w.write(&[]);
    assert_eq!([stale(&w, &described), stale(&w, &liked)], [json!(true), json!(false)]);
    w.caught_up(true);
    w.write(&[]);
    assert_eq!([stale(&w, &described), stale(&w, &liked)], [json!(false), json!(false)]);
}
