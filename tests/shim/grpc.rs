//! gRPC: what it answers is what HTTP answers, and who may ask, how much and how long is the same.

use overdrive::model::Role;
use overdrive::model::serving::{Serving, Version};
use overdrive::shim::Params;
use prost_reflect::prost::Message;
use serde_json::{Value, json};
use std::time::Duration;
use tonic::Code;

use super::access::tokens;
use super::client::{Answer, accepted, get, post, send};
use super::hometown::{card, lives};
use super::models::{figures, version};
use super::stub::{Reply, Stub, frame, schema};
use super::world::{CLOCK, World};

const FEED: &str = "overdrive.v1.Recommender/GetFeed";
const CHECK: &str = "grpc.health.v1.Health/Check";
const WATCH: &str = "grpc.health.v1.Health/Watch";
const JSON: &str = "content-type: application/json";

fn grpc(params: &mut Params) {
    params.grpc = true;
}

fn stub(w: &World) -> Stub {
    Stub::new(w.grpc.expect("asked for"))
}

/// Without what has its default value, as messages are.
fn bare(value: Value) -> Value {
    let empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) => false,
    };
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name, bare(value)));
            Value::Object(fields.filter(|(_, value)| !empty(value)).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(bare).collect()),
        // Reading JSON may be wrong in the last bit.
        Value::Number(n) if n.is_f64() => json!((n.as_f64().expect("it is") * 1e12).round() / 1e12),
        other => other,
    }
}

/// GET, or POST where there is a body, as the request `same`.
fn http(w: &World, target: &str, body: Option<&Value>) -> Answer {
    http_as(w, "nobody", target, body)
}

fn call(stub: &Stub, method: &str, asked: Value) -> Reply {
    call_as(stub, "nobody", method, asked)
}

/// With the token of this name.
fn http_as(w: &World, who: &str, target: &str, body: Option<&Value>) -> Answer {
    let headers = ["x-request-id: same".to_string(), JSON.to_string(), format!("authorization: Bearer od_{who}")];
    match body {
        None => send(w.addr, "GET", target, &headers, b""),
        Some(body) => send(w.addr, "POST", target, &headers, body.to_string().as_bytes()),
    }
}

fn call_as(stub: &Stub, who: &str, method: &str, asked: Value) -> Reply {
    let metadata = [("x-request-id", "same"), ("authorization", &*format!("Bearer od_{who}"))];
    stub.call_with(&format!("overdrive.v1.Recommender/{method}"), asked, &metadata)
}

/// Both refuse in the same words, here with this code.
fn refused_alike(here: &Reply, there: &Answer, code: Code, what: &str) {
    assert_eq!((here.http, here.code), (200, code), "{what}: {}", here.message);
    let error = &there.json()["error"];
    let told = (Some(here.message.as_str()), here.said("x-overdrive-code"));
    assert_eq!(told, (error["message"].as_str(), error["code"].as_str()), "{what}");
}

/// Every kind of answer, over a store.
fn answers_as_http(mut w: World) {
    super::fill(&mut w);
    let mut writes = w.near(&[("n1", 48.13, 11.57, 0.5), ("n2", 48.2, 11.6, 0.9)]);
    let lives = lives(&w, "u1", Some((48.5, 11.25)), |of| {
        (of.city, of.mature) = (Some("München".into()), true);
        of.hidden_authors = ["bob".to_string()].into();
    });
    writes.extend([w.seen("u1", &["i7", "i8"]), w.slate_on("jazzy", "u1", &["j1"], 2), lives, card(&w, "known", "Rome", "ann")]);
    writes.extend([card(&w, "turned", "", "bob"), w.gone("gone"), super::experiment(&w)]);
    w.write(&writes);
    let stub = stub(&w);
    let munich = json!({"lat": 48.137, "lon": 11.575});
    let cursor = get(w.addr, "/v1/feeds/home/u1?k=1").json()["cursor"].as_str().expect("there is more").to_string();
    let cases = [
        ("GetFeed", json!({"user_id": "u1"}), "/v1/feeds/home/u1".to_string()),
        (
            "GetFeed",
            json!({"surface": "home", "user_id": "u1", "k": 2, "explain": true}),
            "/v1/feeds/home/u1?k=2&explain=1".into(),
        ),
        ("GetFeed", json!({"user_id": "u1", "k": 1, "cursor": cursor}), format!("/v1/feeds/home/u1?k=1&cursor={cursor}")),
        ("GetFeed", json!({"user_id": "u1", "exclude": ["i1", "i2"]}), "/v1/feeds/home/u1?exclude=i1,i2".into()),
        ("GetFeed", json!({"user_id": "nobody"}), "/v1/feeds/home/nobody".into()),
        ("GetFeed", json!({"user_id": "nobody", "category": "jazz"}), "/v1/feeds/home/nobody?category=jazz".into()),
        (
            "GetFeed",
            json!({"surface": "category", "user_id": "u1", "category": "jazz"}),
            "/v1/feeds/category/u1?category=jazz".into(),
        ),
        (
            "GetFeed",
            json!({"surface": "near", "user_id": "u1", "position": munich, "explain": true}),
            "/v1/feeds/near/u1?lat=48.137&lon=11.575&explain=1".into(),
        ),
        (
            "GetFeed",
            json!({"surface": "near", "user_id": "u1", "position": {"lat": 48.137, "lon": 11.575, "local_preference": 0.25}}),
            "/v1/feeds/near/u1?lat=48.137&lon=11.575&local_preference=0.25".into(),
        ),
        ("GetFeed", json!({"surface": "trending", "user_id": "u1"}), "/v1/feeds/trending/u1".into()),
        ("GetItemNeighbours", json!({"item_id": "i1"}), "/v1/items/i1/neighbours".into()),
        ("GetTrending", json!({}), "/v1/trending/global".into()),
        ("GetTrending", json!({"scope": "category:jazz", "k": 5}), "/v1/trending/category%3Ajazz?k=5".into()),
        ("GetUserFeatures", json!({"user_id": "u1"}), "/v1/users/u1/features".into()),
        ("GetItemFeatures", json!({"item_id": "i1"}), "/v1/items/i1/features".into()),
        ("GetUserInterests", json!({"user_id": "u1"}), "/v1/users/u1/interests".into()),
        ("GetUserActivity", json!({"user_id": "u1"}), "/v1/users/u1/activity".into()),
        ("GetUserActivity", json!({"user_id": "u1", "k": 1}), "/v1/users/u1/activity?k=1".into()),
        ("GetUserInsights", json!({"user_id": "u1"}), "/v1/users/u1/insights".into()),
        ("GetExperiments", json!({}), "/v1/experiments".into()),
        ("GetModels", json!({}), "/v1/models".into()),
    ];
    for (method, asked, target) in cases {
        let (here, there) = (call(&stub, method, asked), http(&w, &target, None));
        assert_eq!((here.said("x-request-id"), there.status), (Some("same"), 200), "{target}: {}", there.body);
        assert_eq!(bare(here.json()), bare(there.json()), "{} {method} {target}", w.name);
    }
    let many = json!({"user_ids": ["u1", "nobody"], "k": 2, "exclude": ["i2"], "explain": true});
    let (here, there) = (call(&stub, "BatchGetFeeds", many.clone()), http(&w, "/v1/feeds/home", Some(&many)));
    assert_eq!(bare(here.json()), bare(there.json()));
    assert_eq!(here.json()["feeds"].as_array().map(Vec::len), Some(2));
    ranks_as_http(&w, &stub);
    let one = call(&stub, "GetExperiments", json!({"name": "first"})).json();
    assert_eq!(bare(one), bare(http(&w, "/v1/experiments", None).json()), "there is one");
    let without = |mut answer: Value, fields: &[&str]| {
        let all = answer.as_object_mut().expect("an object");
        fields.iter().for_each(|field| assert!(all.remove(*field).is_some_and(|value| value.as_i64() > Some(0)), "{field}"));
        bare(answer)
    };
    let (here, there) = (call(&stub, "ExportUser", json!({"user_id": "u1"})), http(&w, "/v1/users/u1/export", None));
    let (here, there) = (without(here.json(), &["exported_at"]), without(there.json(), &["exported_at"]));
    assert_eq!(here, there, "{}", w.name);
    let held = ["features", "interests", "profile", "slate", "surfaces", "seen"];
    assert!(held.iter().all(|part| here.get(part).is_some()), "{here}");
    let (here, there) = (call(&stub, "GetStats", json!({})), http(&w, "/v1/stats", None));
    let moving = ["lag_ms", "uptime_ms"];
    assert_eq!(without(here.json(), &moving), without(there.json(), &moving), "{}", w.name);
    receipts_as_http(w, &stub);
}

/// Candidates that are known, unknown, described, hidden, withdrawn and for adults.
fn ranks_as_http(w: &World, stub: &Stub) {
    let described = json!({"item_id": "new", "categories": ["jazz"], "tags": ["live"], "author_id": "ann", "created_at": CLOCK});
    let adult = json!({"item_id": "adult", "mature": true});
    let names = ["known", "turned", "gone", "i7", "i1", "unheard"].map(|id| json!({"item_id": id}));
    let items: Vec<Value> = names.into_iter().chain([described, adult, json!({"item_id": "out", "available": false})]).collect();
    for (user, more) in [
        ("u1", json!({})),
        ("u1", json!({"k": 2, "explain": true, "seen": true})),
        ("u1", json!({"mature": false})),
        ("nobody", json!({"explain": true, "mature": true})),
    ] {
        let mut asked = json!({"user_id": user, "items": items});
        asked.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let (here, there) = (call(stub, "Rank", asked.clone()), http(w, "/v1/rank", Some(&asked)));
        assert_eq!(there.status, 200, "{}", there.body);
        assert_eq!(bare(here.json()), bare(there.json()), "{} of {user} with {more}", w.name);
        assert!(here.json()["left_out"].as_array().is_some_and(|out| out.len() >= 2), "{}", there.body);
    }
    let all = call(stub, "Rank", json!({"user_id": "u1", "items": items})).json();
    assert_eq!(all["items"].as_array().map(Vec::len), Some(5), "known, i1, unheard, new and, as the profile says, adult: {all}");
}

/// How far the order to forget a user has come.
fn receipts_as_http(mut w: World, stub: &Stub) {
    let token = stub.call("ForgetUser", json!({"user_id": "u1"})).json()["token"].as_str().expect("a token").to_string();
    let far = |w: &World| {
        let (here, there) = (call(stub, "GetReceipt", json!({"token": token})), http(w, &format!("/v1/receipts/{token}"), None));
        assert_eq!(bare(here.json()), bare(there.json()), "{}", w.name);
        [there.json()["applied"] == true, there.json()["everywhere"] == true]
    };
    let before = far(&w);
    w.caught_up(false);
    w.write(&[]);
    let applied = far(&w);
    w.caught_up(true);
    w.write(&[]);
    assert_eq!([before, applied, far(&w)], [[false, false], [true, false], [true, true]], "{}", w.name);
}

#[test]
fn c39_every_answer_is_that_of_http() {
    answers_as_http(World::memory(grpc));
    #[cfg(feature = "redis")]
    answers_as_http(super::over_redis(grpc));
}

#[test]
fn a_user_whom_nobody_knows_gets_a_feed_that_says_so() {
    let mut w = World::memory(grpc);
    super::fill(&mut w);
    let feed = stub(&w).call("GetFeed", json!({"user_id": "nobody"})).json();
    assert_eq!((&feed["fallback"], feed["items"].as_array().map(Vec::len)), (&json!(true), Some(3)));
}

#[test]
fn every_refusal_is_that_of_http() {
    let mut w = World::memory(|params| {
        grpc(params);
        (params.feeds_limit, params.exclude_limit, params.candidates_limit) = (2, 2, 3);
    });
    super::fill(&mut w);
    let (stub, long) = (stub(&w), "x".repeat(257));
    let many = json!({"user_ids": ["a", "b", "c"]});
    let candidates = |user: &str, ids: &[&str]| json!({"user_id": user, "items": ids.iter().map(|id| json!({"item_id": id})).collect::<Vec<_>>()});
    let (none, twice, too_many) = (candidates("u", &[]), candidates("u", &["a", "a"]), candidates("u", &["a", "b", "c", "d"]));
    let (nobody, mut no_k) = (candidates("", &["a"]), candidates("u", &["a"]));
    no_k["k"] = json!(0);
    let bad = json!({"user_id": "u", "items": [{"item_id": "a"}, {"item_id": "b", "quality": 7.0}]});
    let nothing = json!({});
    let cases = [
        ("GetFeed", json!({"user_id": "u1", "k": 501}), "/v1/feeds/home/u1?k=501".to_string(), None, Code::InvalidArgument),
        ("GetFeed", json!({"user_id": "u1", "k": 0}), "/v1/feeds/home/u1?k=0".into(), None, Code::InvalidArgument),
        ("GetFeed", json!({"user_id": "u1", "cursor": "x"}), "/v1/feeds/home/u1?cursor=x".into(), None, Code::InvalidArgument),
        ("GetFeed", json!({"user_id": long}), format!("/v1/feeds/home/{long}"), None, Code::InvalidArgument),
        ("GetFeed", json!({"user_id": "a\nb"}), "/v1/feeds/home/a%0Ab".into(), None, Code::InvalidArgument),
        ("GetFeed", json!({"surface": "x", "user_id": "u"}), "/v1/feeds/x/u".into(), None, Code::NotFound),
        ("GetFeed", json!({"surface": "category", "user_id": "u"}), "/v1/feeds/category/u".into(), None, Code::InvalidArgument),
        ("GetFeed", json!({"surface": "near", "user_id": "u"}), "/v1/feeds/near/u".into(), None, Code::InvalidArgument),
        (
            "GetFeed",
            json!({"user_id": "u", "position": {"lat": 91}}),
            "/v1/feeds/home/u?lat=91&lon=0".into(),
            None,
            Code::InvalidArgument,
        ),
        (
            "GetFeed",
            json!({"user_id": "u", "exclude": ["a", "b", "c"]}),
            "/v1/feeds/home/u?exclude=a,b,c".into(),
            None,
            Code::InvalidArgument,
        ),
        ("BatchGetFeeds", many.clone(), "/v1/feeds/home".into(), Some(&many), Code::InvalidArgument),
        ("GetItemNeighbours", json!({"item_id": "x"}), "/v1/items/x/neighbours".into(), None, Code::NotFound),
        ("GetTrending", json!({"scope": "x"}), "/v1/trending/x".into(), None, Code::NotFound),
        ("GetUserFeatures", json!({"user_id": "x"}), "/v1/users/x/features".into(), None, Code::NotFound),
        ("GetItemFeatures", json!({"item_id": "x"}), "/v1/items/x/features".into(), None, Code::NotFound),
        ("GetUserInterests", json!({"user_id": "x"}), "/v1/users/x/interests".into(), None, Code::NotFound),
        ("GetUserActivity", json!({"user_id": "x"}), "/v1/users/x/activity".into(), None, Code::NotFound),
        ("GetUserActivity", json!({"user_id": "u1", "k": 0}), "/v1/users/u1/activity?k=0".into(), None, Code::InvalidArgument),
        ("GetUserInsights", json!({"user_id": "x"}), "/v1/users/x/insights".into(), None, Code::NotFound),
        ("ExportUser", json!({"user_id": "x"}), "/v1/users/x/export".into(), None, Code::NotFound),
        ("GetExperiments", json!({"name": "x"}), "/v1/experiments/x".into(), None, Code::NotFound),
        ("GetExperiments", json!({"name": "a\nb"}), "/v1/experiments/a%0Ab".into(), None, Code::InvalidArgument),
        ("PromoteModel", json!({"name": "x"}), "/v1/models/x/promote".into(), Some(&nothing), Code::FailedPrecondition),
        ("PromoteModel", json!({"name": "a\nb"}), "/v1/models/a%0Ab/promote".into(), Some(&nothing), Code::InvalidArgument),
        ("PromoteModel", json!({"name": long}), format!("/v1/models/{long}/promote"), Some(&nothing), Code::InvalidArgument),
        ("TrainModel", json!({"name": "lr"}), "/v1/models/lr/train".into(), Some(&nothing), Code::FailedPrecondition),
        ("TrainModel", json!({}), "/api/v1/train".into(), Some(&nothing), Code::FailedPrecondition),
        ("TrainModel", json!({"name": "x"}), "/v1/models/x/train".into(), Some(&nothing), Code::NotFound),
        ("TrainModel", json!({"name": "a\nb"}), "/v1/models/a%0Ab/train".into(), Some(&nothing), Code::InvalidArgument),
        ("GetReceipt", json!({"token": "x"}), "/v1/receipts/x".into(), None, Code::InvalidArgument),
        ("Rank", json!({"user_id": "u"}), "/v1/rank".into(), Some(&none), Code::InvalidArgument),
        ("Rank", twice.clone(), "/v1/rank".into(), Some(&twice), Code::InvalidArgument),
        ("Rank", too_many.clone(), "/v1/rank".into(), Some(&too_many), Code::InvalidArgument),
        ("Rank", no_k.clone(), "/v1/rank".into(), Some(&no_k), Code::InvalidArgument),
        ("Rank", nobody.clone(), "/v1/rank".into(), Some(&nobody), Code::InvalidArgument),
        ("Rank", bad.clone(), "/v1/rank".into(), Some(&bad), Code::InvalidArgument),
    ];
    for (method, asked, target, body, code) in cases {
        let (here, there) = (call(&stub, method, asked), http(&w, &target, body));
        refused_alike(&here, &there, code, &target);
    }
    let needed =
        [("GetFeed", "user_id"), ("GetUserFeatures", "user_id"), ("GetItemFeatures", "item_id"), ("PromoteModel", "name")];
    for (method, field) in needed {
        let refused = stub.call(method, json!({}));
        assert_eq!((refused.code, refused.said("x-overdrive-code")), (Code::InvalidArgument, Some("bad_id")), "{method}");
        assert!(refused.message.contains(field), "{}", refused.message);
    }
    let metrics = get(w.addr, "/metrics").body;
    let counted = |route: &str, status: u16| {
        let line = |line: &&str| {
            line.contains(&format!("route=\"/overdrive.v1.Recommender/{route}\"")) && line.contains(&format!("\"{status}\""))
        };
        metrics.lines().any(|found| line(&found))
    };
    assert!(counted("GetTrending", 404) && counted("GetFeed", 400) && !counted("GetTrending", 500), "{metrics}");
    assert!(counted("PromoteModel", 409), "{metrics}");
}

/// Versions that rank, ranked before, could and could not, and training that runs, ended and was taken back; orders that are followed and
/// that are refused: the same words, the same records in the log, the same lines in the audit trail.
#[test]
fn c35_models_are_told_promoted_and_trained_as_over_http() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (version(folder.path(), "lr-1", 5, &Value::Null), version(folder.path(), "lr-2", 6, &figures()));
    version(folder.path(), "torn", 7, &Value::Null);
    std::fs::write(folder.path().join("torn/model.onnx"), "something else").expect("there is room");
    let everybody = [
        ("reader", "\"read\"", None),
        ("writer", "\"read\", \"write\"", None),
        ("admin", "\"admin\"", None),
        ("own", "\"admin\"", Some("u1")),
    ];
    let file = tempfile::NamedTempFile::new().expect("a file for the tokens");
    std::fs::write(file.path(), tokens(&everybody)).expect("written");
    let mut w = World::set(|config| {
        grpc(&mut config.service);
        config.recommend.ranker.registry = folder.path().to_string_lossy().into_owned();
        config.access.tokens = file.path().to_path_buf();
        config.training.enabled = true;
    });
    super::fill(&mut w);
    let stub = stub(&w);
    let told = |w: &World| {
        let (here, there) = (call_as(&stub, "reader", "GetModels", json!({})), http_as(w, "reader", "/v1/models", None));
        assert_eq!(bare(here.json()), bare(there.json()));
        here.json()
    };
    let before = told(&w);
    assert_eq!((&before["serving"], &before["training"]), (&json!("blend"), &json!({"enabled": true})));
    let named =
        |name: &str, digest: &str| Version { name: name.into(), digest: u64::from_str_radix(digest, 16).expect("hexadecimal") };
    w.applied.serving = Serving { now: Some(named("lr-2", &new)), before: Some(named("lr-1", &old)), refused: Some(1) };
    w.write(&[]);
    let last = json!({"model": "lr", "began_ms": 1, "ended_ms": 2, "version": "lr-1", "figures": figures(), "promoted": true,
        "why": "better"});
    let running = json!({"model": "lambdarank", "began_ms": 3, "done": 0.5, "what": "tree 7"});
    let training = json!({"asked": ["lr"], "running": running, "last": last, "next_ms": 9,
        "taken_back": {"version": "lr-0", "why": "behind"}});
    std::fs::write(folder.path().join("training.json"), training.to_string()).expect("written");
    let after = told(&w);
    assert_eq!(["serving", "served_before", "digest"].map(|name| &after[name]), [&json!("lr-2"), &json!("lr-1"), &json!(new)]);
    assert_eq!(after["versions"][1]["figures"]["ndcg_10"]["ahead"], json!([0.125, 0.375]));
    assert!(after["versions"][2]["unusable"].is_string(), "{after}");
    let parts = ["enabled", "asked", "running", "last", "next_ms", "taken_back"];
    assert!(parts.iter().all(|part| after["training"].get(part).is_some()), "{after}");

    let nothing = json!({});
    let both = |who: &str, method: &str, asked: &Value, target: &str| {
        (call_as(&stub, who, method, asked.clone()), http_as(&w, who, target, Some(&nothing)))
    };
    for (method, name, target) in [
        ("PromoteModel", "lr-9", "/v1/models/lr-9/promote"),
        ("PromoteModel", "../lr-1", "/v1/models/..%2Flr-1/promote"),
        ("PromoteModel", "torn", "/v1/models/torn/promote"),
        ("TrainModel", "towers", "/v1/models/towers/train"),
    ] {
        let (here, there) = both("admin", method, &json!({"name": name}), target);
        refused_alike(&here, &there, Code::NotFound, target);
    }
    let orders = [
        ("PromoteModel", json!({"name": "lr-1"}), "/v1/models/lr-1/promote"),
        ("PromoteModel", json!({"name": "blend"}), "/v1/models/blend/promote"),
        ("TrainModel", json!({"name": "lr"}), "/v1/models/lr/train"),
        ("TrainModel", json!({"name": "lambdarank"}), "/v1/models/lambdarank/train"),
        ("TrainModel", json!({}), "/api/v1/train"),
    ];
    for (method, asked, target) in &orders {
        for (who, code) in [
            ("stranger", Code::Unauthenticated),
            ("reader", Code::PermissionDenied),
            ("writer", Code::PermissionDenied),
            ("own", Code::PermissionDenied),
        ] {
            let (here, there) = both(who, method, asked, target);
            refused_alike(&here, &there, code, &format!("{target} as {who}"));
        }
    }
    let trail = || std::fs::read_to_string(w.log_dir().join("access.jsonl")).unwrap_or_default();
    assert_eq!((w.payloads(Role::Control).len(), trail()), (0, String::new()), "who was refused did nothing");
    for (method, asked, target) in &orders {
        let (here, there) = both("admin", method, asked, target);
        let tokens = [here.json(), there.json()].map(|answer| (answer["accepted"] == 1, answer["token"].is_string()));
        assert_eq!((there.status, tokens), (202, [(true, true); 2]), "{target}");
    }
    let ordered = w.payloads(Role::Control);
    let lines: Vec<Value> = trail().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((ordered.len(), lines.len()), (2 * orders.len(), 2 * orders.len()));
    assert_eq!(ordered[8], json!({"op": "train"}).to_string(), "what the settings name");
    assert!(ordered.chunks(2).all(|pair| pair[0] == pair[1]), "{ordered:?}");
    let without_time = |line: &Value| {
        let mut line = line.clone();
        assert!(line.as_object_mut().expect("an object").remove("at_ms").is_some(), "{line}");
        line
    };
    assert!(lines.chunks(2).all(|pair| without_time(&pair[0]) == without_time(&pair[1])), "{lines:?}");
    let first = json!({"event": "promote", "version": "lr-1", "by": "admin", "address": "127.0.0.1", "request_id": "same"});
    assert_eq!(without_time(&lines[0]), first);
}

#[test]
fn events_lie_in_the_log_as_they_were_sent_and_bad_ones_are_told_one_by_one() {
    let w = World::memory(|params| {
        grpc(params);
        params.batch_limit = 3;
    });
    let stub = stub(&w);
    let like = json!({"type": "like", "user_id": "u1", "item_id": "i1", "ts": 1_763_600_000_123_i64});
    let bad = json!({"type": "like", "user_id": "u1"});
    let here = stub.call("SendEvents", json!({"events": [like, bad, like]})).json();
    let there = post(w.addr, "/v1/events", &json!([like, bad]).to_string()).json();
    assert_eq!(here["accepted"], 2);
    assert_eq!((&here["rejected"][0]["index"], &here["rejected"][0]["reason"]), (&json!(1), &there["rejected"][0]["reason"]));
    let mut logged =
        w.logged().into_iter().filter(|record| record.role == Role::Events).map(|record| record.payload.expect("sent"));
    let method = stub.method("overdrive.v1.Recommender/SendEvents");
    let event = method.input().get_field_by_name("events").expect("it has events").kind();
    let event =
        prost_reflect::DynamicMessage::deserialize(event.as_message().expect("messages").clone(), &like).expect("an event");
    assert!(logged.any(|payload| payload == event.encode_to_vec()));
    drop(logged);
    let newer = [event.encode_to_vec(), vec![0xc2, 0x3e, 1, b'x']].concat(); // a field 1000 that this schema does not know
    let place = method.input().get_field_by_name("events").expect("it has events").number() as u8;
    let sent = [vec![place << 3 | 2, u8::try_from(newer.len()).expect("short")], newer.clone()].concat();
    assert_eq!(stub.send("overdrive.v1.Recommender/SendEvents", frame(&sent), &[]).code, Code::Ok);
    assert!(w.logged().into_iter().any(|record| record.payload.is_some_and(|payload| payload == newer)));
    let none = stub.call("SendEvents", json!({"events": [bad]}));
    assert_eq!(
        (none.code, none.json().get("token"), none.json()["rejected"].as_array().map(Vec::len)),
        (Code::Ok, None, Some(1))
    );
    let items = stub.call("SendItems", json!({"items": [{"item_id": "i1", "categories": ["jazz"]}]})).json();
    let users = stub.call("SendUsers", json!({"users": [{"user_id": "u1"}, {}]})).json();
    assert_eq!((&items["accepted"], &users["accepted"], &users["rejected"][0]["index"]), (&json!(1), &json!(1), &json!(1)));
    let many = stub.call("SendEvents", json!({"events": [like, like, like, like]}));
    assert_eq!((many.code, many.said("x-overdrive-code")), (Code::ResourceExhausted, Some("batch_too_large")));
}

#[test]
fn a_read_waits_for_the_write_of_its_token_or_says_stale() {
    let mut w = World::memory(|params| {
        grpc(params);
        params.token_wait = Duration::from_millis(50);
    });
    super::fill(&mut w);
    let stub = stub(&w);
    let like = json!({"type": "like", "user_id": "u1", "item_id": "i1"});
    let sent = stub.call("SendEvents", json!({"events": [like]})).json();
    let token = sent["token"].as_str().expect("something was written");
    let feed = json!({"user_id": "u1", "at_least": token});
    assert_eq!(stub.call("GetFeed", feed.clone()).json()["stale"], true);
    assert_eq!(stub.call("GetUserFeatures", feed.clone()).json()["stale"], true);
    w.caught_up(true);
    w.write(&[]);
    assert_eq!(stub.call("GetFeed", feed.clone()).json().get("stale"), None, "what is false is not sent");
    assert_eq!(stub.call("GetUserFeatures", feed).json()["stale"], false, "what may be unknown is");
    let refused = stub.call("GetFeed", json!({"user_id": "u1", "at_least": "x"}));
    assert_eq!((refused.code, refused.said("x-overdrive-code")), (Code::InvalidArgument, Some("bad_token")));
}

#[test]
fn who_gives_up_first_is_told_so() {
    let mut w = World::memory(grpc);
    super::fill(&mut w);
    let token = accepted(w.addr, "/v1/events", r#"{"type":"like","user_id":"u1","item_id":"i1"}"#);
    let asked = json!({"user_id": "u1", "at_least": token});
    let late = stub(&w).call_with(FEED, asked, &[("grpc-timeout", "30m")]);
    assert_eq!((late.code, late.said("x-overdrive-code")), (Code::DeadlineExceeded, Some("timeout")), "{}", late.message);
}

#[test]
fn a_token_opens_what_its_scopes_and_its_user_say() {
    let everybody = [("reader", "\"read\"", None), ("admin", "\"admin\"", None), ("own", "\"read\", \"write\"", Some("u1"))];
    let memory = tokens(&everybody);
    let mut w = World::guarded_with(&memory, grpc, |_| {});
    super::fill(&mut w);
    let stub = stub(&w);
    let like = |user: &str| json!({"events": [{"type": "like", "user_id": user, "item_id": "i1"}]});
    let (open, out, shut, unheard) = (Code::Ok, Code::Unauthenticated, Code::PermissionDenied, Code::NotFound);
    let unable = Code::FailedPrecondition; // without versions, or training
    let candidates = |user: &str| json!({"user_id": user, "items": [{"item_id": "a"}]});
    let sent = stub.call_with("overdrive.v1.Recommender/SendEvents", like("u1"), &[("authorization", "Bearer od_admin")]).json();
    let token = sent["token"].as_str().expect("something was written");
    let cases = [
        ("GetFeed", json!({"user_id": "u1"}), [out, out, open, open, open]),
        ("GetFeed", json!({"user_id": "u2"}), [out, out, open, open, shut]),
        ("BatchGetFeeds", json!({"user_ids": ["u1", "u2"]}), [out, out, open, open, shut]),
        ("GetUserFeatures", json!({"user_id": "u1"}), [out, out, open, open, open]),
        ("GetItemFeatures", json!({"item_id": "i1"}), [out, out, open, open, open]),
        ("GetItemNeighbours", json!({"item_id": "i1"}), [out, out, open, open, open]),
        ("GetTrending", json!({}), [out, out, open, open, open]),
        ("Rank", candidates("u1"), [out, out, open, open, open]),
        ("Rank", candidates("u2"), [out, out, open, open, shut]),
        ("GetUserInterests", json!({"user_id": "u1"}), [out, out, open, open, open]),
        ("GetUserInterests", json!({"user_id": "u2"}), [out, out, unheard, unheard, shut]),
        ("GetUserActivity", json!({"user_id": "u1"}), [out, out, open, open, open]),
        ("GetUserActivity", json!({"user_id": "u2"}), [out, out, unheard, unheard, shut]),
        ("GetUserInsights", json!({"user_id": "u1"}), [out, out, open, open, open]),
        ("GetUserInsights", json!({"user_id": "u2"}), [out, out, unheard, unheard, shut]),
        ("ExportUser", json!({"user_id": "u1"}), [out, out, shut, open, open]),
        ("ExportUser", json!({"user_id": "u2"}), [out, out, shut, unheard, shut]),
        ("GetExperiments", json!({}), [out, out, open, open, shut]),
        ("GetModels", json!({}), [out, out, open, open, shut]),
        ("PromoteModel", json!({"name": "lr-1"}), [out, out, shut, unable, shut]),
        ("TrainModel", json!({"name": "lr"}), [out, out, shut, unable, shut]),
        ("GetStats", json!({}), [out, out, open, open, shut]),
        ("GetReceipt", json!({"token": token}), [out, out, open, open, open]),
        ("SendUsers", json!({"users": [{"user_id": "u1"}]}), [out, out, shut, open, open]),
        ("SendUsers", json!({"users": [{"user_id": "u2"}]}), [out, out, shut, open, shut]),
        ("SendEvents", like("u1"), [out, out, shut, open, open]),
        ("SendEvents", like("u2"), [out, out, shut, open, shut]),
        ("SendItems", json!({"items": [{"item_id": "i1"}]}), [out, out, shut, open, shut]),
        ("ForgetUser", json!({"user_id": "u2"}), [out, out, shut, open, shut]),
        ("ForgetUser", json!({"user_id": "u1"}), [out, out, shut, open, open]),
    ];
    for (method, asked, expected) in cases {
        let found = ["", "stranger", "reader", "admin", "own"].map(|who| {
            let bearer = format!("Bearer od_{who}");
            let metadata: &[(&str, &str)] = if who.is_empty() { &[] } else { &[("authorization", &bearer)] };
            stub.call_with(&format!("overdrive.v1.Recommender/{method}"), asked.clone(), metadata).code
        });
        assert_eq!(found, expected, "{method} {asked}");
    }
    assert_eq!(w.payloads(Role::Control).len(), 3, "each order to forget that was let through");
    assert_eq!(stub.call_with(CHECK, json!({}), &[]).code, Code::Ok, "probes have no token");
    let trail = std::fs::read_to_string(w.log_dir().join("access.jsonl")).expect("a trail");
    let lines: Vec<Value> = trail.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let by: Vec<_> = lines.iter().map(|line| (line["event"].as_str(), line["by"].as_str(), line["address"].as_str())).collect();
    let noted = |event, by| (Some(event), Some(by), Some("127.0.0.1"));
    let exported = [noted("export", "admin"), noted("export", "own"), noted("export", "admin")];
    let forgot = [noted("forget", "admin"), noted("forget", "admin"), noted("forget", "own")];
    assert_eq!(by, [exported, forgot].concat());
}

#[test]
fn who_asks_too_often_is_told_when_to_come_back() {
    let w = World::guarded_with(&tokens(&[("reader", "\"read\"", None)]), grpc, |access| {
        (access.token_rate, access.token_burst) = (1, 2);
        (access.address_rate, access.address_burst) = (1, 500);
    });
    let stub = stub(&w);
    let metadata = [("authorization", "Bearer od_reader")];
    let often = |path: &str| {
        let asked = || stub.call_with(path, json!({"user_id": "u1"}), &metadata);
        (0..100).map(|_| asked()).find(|reply| reply.code != Code::Ok).expect("a hundred at once are too many")
    };
    let refused = often(FEED);
    assert_eq!((refused.code, refused.said("x-overdrive-code")), (Code::ResourceExhausted, Some("too_many_requests")));
    assert!(refused.said("retry-after").is_some() && refused.message.contains("this token"), "{}", refused.message);
    let probes = (0..1_000).map(|_| stub.call_with(CHECK, json!({}), &[])).find(|reply| reply.code != Code::Ok);
    let refused = probes.expect("a thousand of one address are too many");
    assert!(refused.code == Code::ResourceExhausted && refused.message.contains("this address"), "{}", refused.message);
}

#[test]
fn what_is_no_proper_request_is_refused() {
    let w = World::memory(|params| {
        grpc(params);
        params.body_limit = 1_000;
    });
    let stub = stub(&w);
    let told = |body: Vec<u8>| stub.send(FEED, body, &[]);
    let large = told(frame(&vec![0; 2_000]));
    assert_eq!((large.code, large.said("x-overdrive-code")), (Code::ResourceExhausted, Some("body_too_large")));
    let mut compressed = frame(b"");
    compressed[0] = 1;
    assert_eq!(told(compressed).code, Code::Unimplemented);
    let not_text = [0x12, 2, 0xc3, 0x28];
    for (what, body) in [
        ("no text", frame(&not_text)),
        ("no message", frame(&[0xff; 8])),
        ("nothing", Vec::new()),
        ("half a prefix", vec![0, 0]),
        ("half a message", frame(&[0x12, 1, b'u'])[..7].to_vec()),
        ("two messages", [frame(b""), frame(b"")].concat()),
        ("four gigabytes, it says", vec![0, 0xff, 0xff, 0xff, 0xff, 1]),
    ] {
        let refused = told(body);
        assert_eq!((refused.code, refused.said("x-overdrive-code")), (Code::InvalidArgument, Some("bad_message")), "{what}");
    }
    assert_eq!(stub.send("overdrive.v1.Recommender/Nothing", frame(b""), &[]).code, Code::Unimplemented);
    let other = stub.send(FEED, b"{}".to_vec(), &[("content-type", "application/json")]);
    assert_eq!((other.http, other.code), (415, Code::InvalidArgument));
    assert_eq!(stub.call("GetFeed", json!({"user_id": "u1"})).code, Code::Ok, "the connection goes on");
}

#[test]
fn c39_health_is_what_readyz_says_and_a_watch_ends_with_the_shim() {
    let mut w = World::memory(grpc);
    let stub = stub(&w);
    let check = |service: &str| stub.call_with(CHECK, json!({"service": service}), &[]);
    let status = |service: &str| check(service).json()["status"].clone();
    assert_eq!((status(""), get(w.addr, "/readyz").status), (json!("NOT_SERVING"), 503));
    assert_eq!(check("overdrive.v1.Nothing").code, Code::NotFound);
    let mut watch = stub.begin(WATCH, frame(b""), &[]).into_body();
    let mut next = || {
        let message = stub.next(WATCH, &mut watch)?;
        Some(message.get_field_by_name("status").expect("it has one").as_enum_number().expect("an enum"))
    };
    let (serving, not_serving) = (Some(1), Some(2));
    assert_eq!(next(), not_serving);
    super::fill(&mut w);
    assert_eq!((next(), status(""), status("overdrive.v1.Recommender")), (serving, json!("SERVING"), json!("SERVING")));
    w.stop();
    assert_eq!((next(), next()), (not_serving, None));
}

#[test]
fn a_silent_connection_is_closed_and_a_watched_one_stays() {
    let w = World::memory(|params| {
        grpc(params);
        (params.header_timeout, params.idle_timeout) = (Duration::from_secs(20), Duration::from_millis(200));
    });
    let (mut silent, watching) = (stub(&w), stub(&w));
    let mut watch = watching.begin(WATCH, frame(b""), &[]).into_body();
    assert!(watching.next(WATCH, &mut watch).is_some());
    assert_eq!(silent.call_with(CHECK, json!({}), &[]).code, Code::Ok);
    silent.closed();
    assert_eq!(watching.call_with(CHECK, json!({}), &[]).code, Code::Ok);
    let early = World::memory(|params| {
        grpc(params);
        params.header_timeout = Duration::from_millis(100);
    });
    stub(&early).closed();
}

#[test]
fn a_watch_keeps_no_connection_whose_other_requests_do_not_end() {
    let mut w = World::memory(|params| {
        grpc(params);
        (params.header_timeout, params.idle_timeout) = (Duration::from_secs(20), Duration::from_millis(200));
        (params.token_wait, params.request_timeout) = (Duration::from_millis(600), Duration::from_secs(3));
    });
    super::fill(&mut w);
    let token = accepted(w.addr, "/v1/events", r#"{"type":"like","user_id":"u1","item_id":"i1"}"#);
    let mut watched = stub(&w);
    let mut watch = watched.begin(WATCH, frame(b""), &[]).into_body();
    assert!(watched.next(WATCH, &mut watch).is_some());
    let slow = watched.call("GetFeed", json!({"user_id": "u1", "at_least": token}));
    assert_eq!(slow.json()["stale"], true, "what is under way has time to end");
    watched.closed();
}

#[test]
fn reflection_tells_of_the_service_by_the_schema() {
    let w = World::memory(grpc);
    let stub = stub(&w);
    for version in ["v1", "v1alpha"] {
        let path = format!("grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        // Both versions have the same messages.
        let known = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        let ask = |asked: Value| {
            let asked = prost_reflect::DynamicMessage::deserialize(stub.method(known).input(), asked).expect("by its schema");
            let body = stub.begin(&path, frame(&asked.encode_to_vec()), &[]).into_body();
            stub.next(known, &mut { body }).expect("an answer")
        };
        let list = ask(json!({"list_services": ""})).to_string();
        for service in ["overdrive.v1.Recommender", "grpc.health.v1.Health"] {
            assert!(list.contains(service), "{version}: {list}");
        }
        let file = ask(json!({"file_containing_symbol": "overdrive.v1.Recommender"})).encode_to_vec();
        let name = b"service.proto";
        assert!(file.windows(name.len()).any(|part| part == name), "{version}");
    }
}

/// `OVERDRIVE_BLESS=1` writes it.
#[test]
fn the_compiled_schema_is_that_of_the_schema_and_every_method_of_it_is_served() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/service.binpb");
    let compiled = schema().encode_to_vec();
    if std::env::var_os("OVERDRIVE_BLESS").is_some() {
        std::fs::write(path, &compiled).expect("written");
    }
    let same = std::fs::read(path).expect("it is there") == compiled;
    assert!(same, "schemas/service.binpb is not what service.proto says; run this test with OVERDRIVE_BLESS=1 and build again");
    let w = World::memory(grpc);
    let stub = stub(&w);
    let service = stub.method(FEED).parent_service().clone();
    assert_eq!(service.methods().len(), 21);
    for method in service.methods() {
        let reply = stub.send(&format!("{}/{}", service.full_name(), method.name()), frame(b""), &[]);
        assert_ne!(reply.code, Code::Unimplemented, "{}", method.name());
    }
}
