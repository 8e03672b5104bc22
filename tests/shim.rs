//! The shim as its clients meet it: a real server on a free port, over the memory store and over a real Redis, with the embedded
//! log behind the way in.
//!
//! What these tests can catch: shapes, statuses, limits, filters, waiting and forgetting to wait. What they cannot: how fast.

use overdrive::model::Role;
use overdrive::model::experiment::{Arm, Counts, Standing, Sums, Whom};
use overdrive::sinks::Write;
use overdrive::sinks::layout::{self, Segment};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write as _};
use std::time::Duration;

#[path = "shim/access.rs"]
mod access;
#[path = "shim/aliases.rs"]
mod aliases;
#[path = "shim/client.rs"]
mod client;
#[path = "support/dataflow.rs"]
#[allow(dead_code, reason = "this binary uses a part of it")]
mod dataflow;
#[path = "shim/flags.rs"]
mod flags;
#[path = "shim/frames.rs"]
mod frames;
#[path = "shim/grpc.rs"]
mod grpc;
#[path = "shim/hometown.rs"]
mod hometown;
#[path = "shim/hostile.rs"]
mod hostile;
#[path = "shim/models.rs"]
mod models;
#[cfg(feature = "onnx")]
#[path = "support/onnx.rs"]
#[allow(dead_code, reason = "this binary uses a part of it")]
mod onnx;
#[path = "shim/rank.rs"]
mod rank;
#[cfg(feature = "onnx")]
#[path = "shim/ranked.rs"]
mod ranked;
#[path = "shim/stub.rs"]
mod stub;
mod support;
#[path = "shim/tls.rs"]
mod tls;
#[path = "shim/world.rs"]
mod world;

use client::{accepted, connect, get, get_with, post, rest, send};
use world::{CLOCK, World};

const JSON: &str = "content-type: application/json";

/// Runs a test over both stores.
fn both(test: impl Fn(World)) {
    test(World::memory(|_| {}));
    #[cfg(feature = "redis")]
    test(over_redis(|_| {}));
}

#[cfg(feature = "redis")]
fn over_redis(change: impl Fn(&mut overdrive::shim::Params)) -> World {
    over_redis_set(|config| change(&mut config.service))
}

#[cfg(feature = "redis")]
fn over_redis_set(change: impl Fn(&mut overdrive::config::Config)) -> World {
    over_redis_within(Duration::from_secs(2), change)
}

/// Over a Redis that is waited for so long.
#[cfg(feature = "redis")]
fn over_redis_within(longest: Duration, change: impl Fn(&mut overdrive::config::Config)) -> World {
    use overdrive::shim::RedisReader;
    let server = support::redis::RedisServer::start();
    let mut config = world::config();
    config.redis.url = server.url();
    let reader = RedisReader::new(&config.redis, world::PREFIX, longest).expect("the url is one");
    let store = overdrive::sinks::redis::Redis::open(&config.redis, world::PREFIX).expect("the url is one");
    let mut world = World::of("redis", std::sync::Arc::new(reader), Box::new(store), change);
    world.redis = Some(server);
    world
}

/// A store with one of everything.
fn fill(w: &mut World) {
    let (user, item) = (w.keys.user("u1"), w.keys.item("i1"));
    let writes = [
        w.slate("u1", &["i1", "i2", "i3"]),
        w.features(user),
        w.features(item),
        w.interests("u1"),
        w.neighbours("i1", "i2"),
        w.trending(None, &["t1", "t2", "t3"]),
        w.trending(Some("jazz"), &["t2"]),
    ];
    w.write(&writes);
}

fn openapi() -> Value {
    serde_json::from_str(include_str!("../schemas/openapi.json")).expect("the document is JSON")
}

/// The body has the fields its schema asks for, and no others.
fn conforms(document: &Value, path: &str, method: &str, status: &str, body: &Value) {
    let mut answer = &document["paths"][path][method]["responses"][status];
    if let Some(to) = answer["$ref"].as_str() {
        answer = document.pointer(&to[1..]).expect("the reference leads somewhere");
    }
    let to = answer["content"]["application/json"]["schema"]["$ref"].as_str().unwrap_or_else(|| panic!("{path} {status}"));
    let schema = document.pointer(&to[1..]).expect("the reference leads somewhere");
    let fields: BTreeSet<&str> = body.as_object().expect("an object").keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = schema["properties"].as_object().expect("an object").keys().map(String::as_str).collect();
    let needed = schema["required"].as_array().expect("a list").iter().map(|name| name.as_str().expect("a name"));
    assert!(needed.collect::<BTreeSet<_>>().is_subset(&fields), "{path} lacks fields: {body}");
    assert!(fields.is_subset(&known), "{path} has fields that are not described: {body}");
}

#[test]
fn c39_every_route_answers_as_it_is_described() {
    let document = openapi();
    both(|mut w| {
        fill(&mut w);
        let read = |path: &str, target: &str| {
            let answer = get(w.addr, target);
            assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{}", answer.body);
            let body = answer.json();
            conforms(&document, path, "get", "200", &body);
            body
        };
        read("/v1/items/{item}/features", "/v1/items/i1/features");
        read("/v1/users/{user}/features", "/v1/users/u1/features");
        let mut feed = read("/v1/feeds/{surface}/{user}", "/v1/feeds/home/u1?k=1&explain=true");
        let cursor = feed["cursor"].take();
        assert!(cursor.is_string() && feed["request_id"].take().is_string());
        let terms = json!({"content": 0.4, "collaborative": 0.9, "real_time": 0.1, "interests": 0.6, "freshness": 0.25});
        let item =
            json!({"item_id": "i1", "score": 0.9, "source": "neighbours", "reason": "because you shared i0", "terms": terms});
        let whole = json!({"request_id": null, "user_id": "u1", "surface": "home", "stale": false, "as_of": CLOCK, "epoch": 1,
            "model": "blend", "experiment": "", "variant": "", "fallback": false, "items": [item], "cursor": null});
        assert_eq!(feed, whole, "{}", w.name);
        assert_eq!(read("/v1/feeds/{surface}/{user}", "/v1/feeds/home/u1")["items"][0].get("terms"), None);
        let trending = read("/v1/feeds/{surface}/{user}", "/v1/feeds/trending/u1?k=1");
        let first = json!([{"item_id": "t1", "score": 10.0, "source": "trending", "reason": "trending now"}]);
        assert_eq!((&trending["items"], &trending["fallback"], &trending["model"]), (&first, &json!(false), &json!("trending")));
        assert_eq!(
            read("/v1/users/{user}/interests", "/v1/users/u1/interests"),
            json!({"user_id": "u1", "as_of": CLOCK, "epoch": 1, "drift": 0.4, "short": {"category:rock": 0.75, "category:jazz": 0.25},
                "long": {"category:jazz": 0.75, "category:rock": 0.25}})
        );
        assert_eq!(
            read("/v1/items/{item}/neighbours", "/v1/items/i1/neighbours"),
            json!({"item_id": "i1", "as_of": CLOCK, "epoch": 1, "neighbours": [{"item_id": "i2", "similarity": 0.41, "users": 12}]})
        );
        assert_eq!(
            read("/v1/trending/{scope}", "/v1/trending/category%3Ajazz"),
            json!({"scope": "category:jazz", "as_of": CLOCK, "epoch": 1, "items": [{"item_id": "t2", "score": 10.0}]})
        );
        assert_eq!(read("/v1/trending/{scope}", "/v1/trending/global?k=2")["items"].as_array().map(Vec::len), Some(2));
        read("/v1/stats", "/v1/stats");
        assert_eq!(read("/health", "/health")["status"], "ok");
        assert_eq!(read("/livez", "/livez"), json!({"status": "ok"}));
        assert_eq!(read("/readyz", "/readyz"), json!({"status": "ok", "epoch": 1}));
    });
}

/// Row 24: every item says why it is there, and on request what its score is made of.
#[test]
fn c24_every_item_has_its_reason_and_on_request_its_terms() {
    both(|mut w| {
        fill(&mut w);
        let items = |target: &str| get(w.addr, target).json()["items"].clone();
        let each = |target: &str, field: &str| -> Vec<Value> {
            items(target).as_array().expect("a list").iter().map(|item| item[field].clone()).collect()
        };
        let because = json!("because you shared i0");
        assert_eq!(each("/v1/feeds/home/u1", "reason"), vec![because.clone(); 3], "over {}", w.name);
        assert_eq!(each("/v1/feeds/home/u1", "terms"), vec![Value::Null; 3]);
        let terms = json!({"content": 0.4, "collaborative": 0.9, "real_time": 0.1, "interests": 0.6, "freshness": 0.25});
        assert_eq!(each("/v1/feeds/home/u1?explain=true", "terms"), vec![terms; 3]);
        assert_eq!(each("/v1/feeds/trending/u1", "reason"), vec![json!("trending now"); 3]);
        assert_eq!(
            each("/v1/feeds/category/u1?category=jazz", "reason"),
            [because.clone(), because, json!("popular in jazz now")]
        );
    });
}

/// Row 26: what was done by a user, and with an item, in each window.
#[test]
fn c26_counts_of_users_and_items_are_told_by_window() {
    both(|mut w| {
        fill(&mut w);
        let windows = json!({
            "1m": {"counts": {"view": 3}, "weighted": 3.0}, "5m": {"counts": {"like": 1, "view": 3}, "weighted": 5.0},
            "15m": {"counts": {"like": 1, "view": 3}, "weighted": 5.0}, "1h": {"counts": {"like": 1, "view": 3}, "weighted": 5.0},
            "24h": {"counts": {"like": 1, "view": 3}, "weighted": 5.0},
        });
        let features = |name: &str, id: &str| {
            json!({name: id, "as_of": CLOCK, "epoch": 1, "windows": windows, "velocity": 1.25, "decayed": 5.0,
                "rates": {"ctr": 0.05, "engagement": 0.125}})
        };
        assert_eq!(get(w.addr, "/v1/items/i1/features").json(), features("item_id", "i1"));
        assert_eq!(get(w.addr, "/v1/users/u1/features").json(), features("user_id", "u1"));
    });
}

/// Row 28: how the system stands.
#[test]
fn c28_stats_tell_the_store_the_epoch_and_its_age() {
    both(|mut w| {
        fill(&mut w);
        let stats = get(w.addr, "/v1/stats").json();
        assert_eq!((&stats["epoch"], &stats["as_of"], &stats["store"]), (&json!(1), &json!(CLOCK), &json!(w.name)));
        assert_eq!(stats["keys"]["slate"], if w.name == "memory" { json!(1) } else { Value::Null });
        assert_eq!(get(w.addr, "/performance/system").json()["epoch"], json!(1), "by its other name");
    });
}

/// Forty users an arm, in three arms: of a tenth clicked, of a third, and nobody who was shown anything.
fn experiment(w: &World) -> Write {
    let arm = |name: &str, clicks: i32, impressions: i32| {
        let mut sums = Sums::default();
        for n in 0..40 {
            let clicks = clicks + if n % 2 == 0 { 1 } else { -1 };
            let counts = Counts { records: 99, impressions, clicks, taken: 2, dwell_ms: 1_500 };
            sums.add(&Sums::of(&counts), 1);
        }
        Arm { name: name.into(), ranks: "blend".into(), sums }
    };
    let arms = vec![arm("control", 3, 30), arm("more", 10, 30), arm("blind", 3, 0)];
    let whom = Some(Whom { cities: vec!["Rome, \"old\"".into()], users: Some(3), ..Whom::default() });
    let standing = Standing { name: "first".into(), rollout: 0.5, whom, began: 7, arms };
    let fields = layout::encode_experiments(&[standing], CLOCK, w.fence());
    Write::Fields { key: w.keys.experiments(), fields, ttl: Duration::from_secs(60), fence: w.fence() }
}

#[test]
fn c29_experiments_are_told_with_intervals_and_verdicts() {
    let document = openapi();
    both(|mut w| {
        let none = get(w.addr, "/v1/experiments").json();
        assert_eq!(none, json!({"as_of": 0, "epoch": 0, "experiments": []}), "over {}", w.name);
        w.write(&[experiment(&w)]);
        let read = |path: &str, target: &str| {
            let body = get(w.addr, target).json();
            conforms(&document, path, "get", "200", &body);
            body
        };
        let all = read("/v1/experiments", "/v1/experiments");
        assert_eq!((&all["as_of"], &all["epoch"]), (&json!(CLOCK), &json!(1)));
        let mut one = read("/v1/experiments/{name}", "/v1/experiments/first");
        let arms = one["arms"].clone();
        one.as_object_mut().expect("an object").retain(|field, _| field != "as_of" && field != "epoch");
        assert_eq!(all["experiments"], json!([one]), "over {}", w.name);
        assert_eq!((&one["name"], &one["rollout"], &one["began"]), (&json!("first"), &json!(0.5), &json!(7)));
        let cohort = json!({"languages": [], "cities": ["Rome, \"old\""], "interests": [], "users": 3});
        assert_eq!(one["cohort"], cohort);
        let verdicts = [0, 1, 2].map(|at| &arms[at]["verdict"]);
        assert_eq!(verdicts, [&Value::Null, &json!("ahead"), &json!("undecided")]);
        assert_eq!((&arms[0]["ctr"]["value"], &arms[0]["ctr"]["difference"]), (&json!(0.1), &Value::Null));
        // residuals of one click: var = 40/39 · 40/1200²
        let reach = 1.959_963_984_540_054 * (40.0 / 39.0 * 40.0 / 1_440_000.0f64).sqrt();
        let low = arms[0]["ctr"]["interval"][0].as_f64().expect("a number");
        assert!((low - (0.1 - reach)).abs() < 1e-12, "{low}");
        let difference = &arms[1]["ctr"]["difference"];
        let high = difference["interval"][1].as_f64().expect("a number");
        assert!((high - (7.0 / 30.0 + reach * 2.0f64.sqrt())).abs() < 1e-12, "{high}");
        assert_eq!((&arms[2]["ctr"], &arms[2]["clicks"], &arms[2]["users"]), (&Value::Null, &json!(120), &json!(40)));
        let seconds = json!({"value": 1.5, "interval": [1.5, 1.5], "difference": null});
        assert_eq!((&arms[0]["engagement_seconds"], &arms[0]["dwell_seconds"]), (&seconds, &json!(60.0)));
        assert_eq!(arms[1]["taken_per_user"]["difference"]["verdict"], json!("undecided"));
        assert_eq!(get(w.addr, "/v1/experiments/second").refusal(), (404, "unknown_experiment".to_string()));
    });
}

#[test]
fn c27_what_is_held_of_a_user_can_be_read_together() {
    let document = openapi();
    both(|mut w| {
        fill(&mut w);
        w.write(&[w.seen("u1", &["i7", "i8"])]);
        w.write(&[hometown::lives(&w, "u1", Some((48.5, 11.25)), |of| of.city = Some("München".into()))]);
        let read = |route: &str| {
            let body = get(w.addr, &format!("/v1/users/u1/{route}")).json();
            if route != "features" && route != "interests" {
                conforms(&document, &format!("/v1/users/{{user}}/{route}"), "get", "200", &body);
            }
            body
        };
        let without = |mut body: Value| {
            body.as_object_mut().expect("an object").remove("user_id");
            body
        };
        let (features, interests) = (without(read("features")), without(read("interests")));
        let seen = json!([{"item_id": "i7", "at": CLOCK}, {"item_id": "i8", "at": CLOCK - 1}]);

        let mut activity = features.clone();
        (activity["user_id"], activity["latest"]) = (json!("u1"), seen.clone());
        assert_eq!(read("activity"), activity, "over {}", w.name);
        assert_eq!(get(w.addr, "/v1/users/u1/activity?k=1").json()["latest"], json!([seen[0]]));

        let tokens = json!([{"token": "category:jazz", "short": 0.25, "long": 0.75, "change": -0.5},
            {"token": "category:rock", "short": 0.75, "long": 0.25, "change": 0.5}]);
        assert_eq!(
            read("insights"),
            json!({"user_id": "u1", "as_of": CLOCK, "epoch": 1, "drift": 0.4, "interests": tokens,
                "sources": {"neighbours": 3}, "reasons": {"because you shared i0": 3}}),
            "over {}",
            w.name
        );

        let mut export = read("export");
        assert!(export["exported_at"].take().as_i64().is_some_and(|at| at > CLOCK));
        let items = get(w.addr, "/v1/feeds/home/u1?explain=true").json()["items"].clone();
        assert_eq!(items.as_array().map(Vec::len), Some(3));
        let slate = json!({"as_of": CLOCK, "epoch": 1, "model": "blend", "experiment": "", "variant": "", "items": items,
            "history": [{"item_id": "i0", "interaction": "share"}], "taken": 1});
        let profile = json!({"as_of": CLOCK, "epoch": 3, "lat": 48.5, "lon": 11.25, "city": "München", "local_preference": null, "total_watch_hours": null,
            "language": null, "mature": false, "hidden_authors": [], "hidden_items": []});
        let whole = json!({"user_id": "u1", "exported_at": null, "features": features, "interests": interests,
            "profile": profile, "slate": slate, "surfaces": {}, "seen": seen});
        assert_eq!(export, whole, "over {}", w.name);

        // Who has only been seen somewhere is held all the same.
        w.write(&[w.seen("u2", &["i7"])]);
        let part = get(w.addr, "/v1/users/u2/export").json();
        assert_eq!((&part["slate"], &part["seen"][0]["item_id"]), (&Value::Null, &json!("i7")), "over {}", w.name);
    });
}

#[test]
fn a_receipt_says_how_far_a_write_has_come() {
    both(|mut w| {
        fill(&mut w);
        let token = send(w.addr, "DELETE", "/v1/users/u1", &[], b"").json()["token"].as_str().expect("a token").to_string();
        let addr = w.addr;
        let far = || {
            let body = get(addr, &format!("/v1/receipts/{token}")).json();
            conforms(&openapi(), "/v1/receipts/{token}", "get", "200", &body);
            (body["applied"].clone(), body["everywhere"].clone(), body["epoch"].clone())
        };
        assert_eq!(far(), (json!(false), json!(false), json!(1)), "over {}", w.name);
        w.caught_up(false);
        w.write(&[]);
        assert_eq!(far(), (json!(true), json!(false), json!(2)), "over {}", w.name);
        w.caught_up(true);
        w.write(&[]);
        assert_eq!(far(), (json!(true), json!(true), json!(3)), "over {}", w.name);
    });
}

#[test]
fn an_item_without_neighbours_is_an_item() {
    both(|mut w| {
        let key = w.keys.item("alone");
        w.write(&[w.features(key)]);
        let body = get(w.addr, "/v1/items/alone/neighbours").json();
        assert_eq!(body, json!({"item_id": "alone", "as_of": null, "epoch": null, "neighbours": []}));
        assert_eq!(get(w.addr, "/v1/items/none/neighbours").refusal(), (404, "unknown_item".to_string()));
    });
}

#[test]
fn pages_load_nothing_from_elsewhere() {
    let w = World::memory(|_| {});
    for (target, media) in [
        ("/", "text/html; charset=utf-8"),
        ("/docs", "text/html; charset=utf-8"),
        ("/console.css", "text/css; charset=utf-8"),
        ("/console.js", "text/javascript; charset=utf-8"),
        ("/openapi.json", "application/json"),
    ] {
        let page = get(w.addr, target);
        assert_eq!((page.status, page.header("content-type")), (200, Some(media)), "{target}");
        let policy = page.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        let named = page.body.replace("http://www.w3.org/2000/svg", "");
        assert!(!named.contains("://"), "{target} names another host");
        assert!(!page.body.contains("style=\"") && !page.body.contains("onclick"), "{target} needs what the policy forbids");
    }
    assert!(get(w.addr, "/docs").body.contains("/v1/feeds/{surface}/{user}"));
    let metrics = get(w.addr, "/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(metrics.body.contains("overdrive_requests_total{route=\"/docs\",status=\"200\"}"), "{}", metrics.body);
    assert!(metrics.body.contains("overdrive_request_seconds_bucket"), "{}", metrics.body);
}

#[test]
fn what_cannot_be_used_is_refused_with_its_reason() {
    both(|mut w| {
        fill(&mut w);
        let (long, longer) = ("a".repeat(257), "a".repeat(100_000));
        let cases = [
            ("/v1/feeds/home/u1?k=0", 400, "bad_k"),
            ("/v1/feeds/home/u1?k=501", 400, "bad_k"),
            ("/v1/feeds/home/u1?k=-1", 400, "bad_k"),
            ("/v1/feeds/home/u1?k=ten", 400, "bad_k"),
            ("/v1/feeds/home/u1?k=1&k=2", 400, "bad_query"),
            (&format!("/v1/feeds/home/u1?exclude={}", "i,".repeat(501)), 400, "bad_exclude"),
            (&format!("/v1/feeds/home/u1?exclude={long}"), 400, "bad_id"),
            ("/v1/feeds/home/u1?explain=perhaps", 400, "bad_explain"),
            ("/v1/feeds/home/u1?cursor=AAAA", 400, "bad_cursor"),
            ("/v1/feeds/home/u1?cursor=%F0%9F%98%80", 400, "bad_cursor"),
            ("/v1/feeds/home/%ff%fe", 400, "bad_path"),
            ("/v1/feeds/home/a%00b", 400, "bad_id"),
            ("/v1/feeds/category/u1", 400, "bad_category"),
            ("/v1/feeds/category/u1?category=", 400, "bad_category"),
            (&format!("/v1/feeds/category/u1?category={long}"), 400, "bad_id"),
            ("/v1/feeds/category/u1?category=a&category=b", 400, "bad_query"),
            ("/v1/feeds/near/u1", 400, "bad_place"),
            ("/v1/feeds/near/u1?lat=48.1", 400, "bad_place"),
            ("/v1/feeds/near/u1?lat=91&lon=0", 400, "bad_place"),
            ("/v1/feeds/near/u1?lat=0&lon=-180.1", 400, "bad_place"),
            ("/v1/feeds/near/u1?lat=NaN&lon=0", 400, "bad_place"),
            ("/v1/feeds/near/u1?lat=here&lon=0", 400, "bad_place"),
            ("/v1/feeds/near/u1?lat=0&lon=0&local_preference=2", 400, "bad_place"),
            ("/v1/feeds/home/u1?lon=0", 400, "bad_place"),
            ("/v1/feeds/elsewhere/u1", 404, "unknown_surface"),
            (&format!("/v1/feeds/home/{long}"), 400, "bad_id"),
            (&format!("/v1/items/{long}/features"), 400, "bad_id"),
            (&format!("/v1/feeds/home/{}", "a".repeat(2_040)), 414, "uri_too_long"),
            ("/v1/items/nobody/features", 404, "unknown_item"),
            ("/v1/users/nobody/features", 404, "unknown_user"),
            ("/v1/users/nobody/interests", 404, "unknown_user"),
            ("/v1/users/nobody/activity", 404, "unknown_user"),
            ("/v1/users/nobody/insights", 404, "unknown_user"),
            ("/v1/users/nobody/export", 404, "unknown_user"),
            ("/v1/receipts/AQ", 400, "bad_token"),
            ("/v1/receipts/%ff", 400, "bad_path"),
            ("/v1/trending/nowhere", 404, "unknown_scope"),
            ("/v1/trending/category:", 404, "unknown_scope"),
            ("/v1/trending/cell:munich", 404, "unknown_scope"),
            ("/v1/feeds/home/u1?language=", 400, "bad_language"),
            ("/v2/feeds", 404, "not_found"),
            ("/v1/events", 405, "method_not_allowed"),
        ];
        for (target, status, code) in cases {
            assert_eq!(get(w.addr, target).refusal(), (status, code.to_string()), "{target} over {}", w.name);
        }
        // So long that hyper itself refuses it.
        assert_eq!(get(w.addr, &format!("/v1/items/{longer}/features")).status, 414);
        for token in ["x", "AQ", "%%%", "AQAAAAABAAAAAAAAAAr_3q0l"] {
            assert_eq!(get_with(w.addr, "/v1/feeds/home/u1", token).refusal(), (400, "bad_token".to_string()), "{token}");
        }
        assert_eq!(send(w.addr, "PUT", "/v1/events", &[], b"").refusal(), (405, "method_not_allowed".to_string()));
        assert_eq!(send(w.addr, "DELETE", "/v1/users/a%0Ab", &[], b"").refusal(), (400, "bad_id".to_string()));
        let event = br#"{"type":"like","user_id":"u","item_id":"i"}"#;
        for header in [vec![], vec!["content-type: text/plain".to_string()]] {
            assert_eq!(send(w.addr, "POST", "/v1/events", &header, event).refusal(), (415, "unsupported_media_type".to_string()));
        }
        for body in ["", "{", "nonsense", "\"\u{fffd}", "[1,2", "{\"events\":7}"] {
            assert_eq!(post(w.addr, "/v1/events", body).refusal(), (400, "bad_json".to_string()), "{body}");
        }
        assert_eq!(
            send(w.addr, "POST", "/v1/events", &[JSON.to_string()], b"{\"a\":\"\xff\xfe\"}").refusal(),
            (400, "bad_utf8".into())
        );
        let users = format!("{{\"user_ids\":[{}\"u\"]}}", "\"u\",".repeat(100));
        for (body, status, code) in [
            (users.as_str(), 400, "too_many_users"),
            (&users.replace("user_ids", "users"), 400, "bad_json"),
            (r#"{"user_ids":["u1","a\u0000b"]}"#, 400, "bad_id"),
            (r#"{"user_ids":["u1",""]}"#, 400, "bad_id"),
            (r#"{"user_ids":["u1"],"exclude":[""]}"#, 400, "bad_id"),
            (r#"{"user_ids":["u1"],"k":1.5}"#, 400, "bad_json"),
            (r#"{"user_ids":["u1"],"k":-1}"#, 400, "bad_json"),
            (r#"{"user_ids":["u1"],"k":0}"#, 400, "bad_k"),
            (r#"{"user_ids":["u1"],"lat":1000,"lon":0}"#, 400, "bad_place"),
            (r#"{"user_ids":["u1"],"category":"a\u0000b"}"#, 400, "bad_id"),
            (&format!(r#"{{"user_ids":[],"exclude":[{}"i"]}}"#, "\"i\",".repeat(500)), 400, "bad_exclude"),
        ] {
            assert_eq!(post(w.addr, "/v1/feeds/home", body).refusal(), (status, code.to_string()), "{body}");
        }
        assert_eq!(post(w.addr, "/v1/feeds/elsewhere", "{}").refusal(), (404, "unknown_surface".to_string()));
        let lines = send(w.addr, "POST", "/v1/feeds/home", &["content-type: application/x-ndjson".to_string()], b"{}");
        assert_eq!(lines.refusal(), (415, "unsupported_media_type".to_string()));
        let many = format!("[{}1]", "1,".repeat(1_000));
        let refused = post(w.addr, "/v1/events", &many);
        assert_eq!(refused.refusal(), (413, "batch_too_large".to_string()));
        assert!(refused.body.contains("at most 1000"), "the limit is named: {}", refused.body);
        assert!(w.logged().is_empty(), "nothing refused reaches the log");
        assert_eq!(get(w.addr, "/livez").status, 200);
        // Hostile input is an error of the client's, each time: no other test in this process may cause a 500 either.
        let metrics = get(w.addr, "/metrics").body;
        assert!(!metrics.contains("status=\"500\""), "{metrics}");
    });
}

#[test]
fn c38_a_request_id_comes_back_or_is_made() {
    let w = World::memory(|_| {});
    let given = send(w.addr, "GET", "/v1/feeds/home/u1", &["x-request-id: mine-7".to_string()], b"");
    assert_eq!((given.header("x-request-id"), &given.json()["request_id"]), (Some("mine-7"), &json!("mine-7")));
    let (one, other) = (get(w.addr, "/nowhere"), get(w.addr, "/nowhere"));
    assert_eq!(one.header("x-request-id").map(str::len), Some(16));
    assert_ne!(one.header("x-request-id"), other.header("x-request-id"));
}

#[test]
fn c02_good_events_go_in_as_they_were_sent_and_bad_ones_are_named() {
    let w = World::memory(|_| {});
    let good = |id: u32| format!(r#"{{"event_id":"e{id}","type":"like","user_id":"u{id}","item_id":"i9","ts":1763600000123}}"#);
    let batch =
        format!(r#"{{"events":[{},{{"type":"stare","user_id":"u","item_id":"i"}},{},{{"type":"like"}}]}}"#, good(1), good(2));
    let answer = post(w.addr, "/v1/events", &batch);
    let body = answer.json();
    assert_eq!((answer.status, &body["accepted"]), (202, &json!(2)));
    conforms(&openapi(), "/v1/events", "post", "202", &body);
    let rejected = body["rejected"].as_array().expect("a list");
    assert_eq!(rejected.iter().map(|r| r["index"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(3)]);
    assert!(rejected[0]["reason"].as_str().is_some_and(|reason| reason.contains("stare")), "{body}");
    accepted(w.addr, "/v1/events", &good(3));
    accepted(w.addr, "/v1/events", &format!("[{}]", good(4)));
    let lines = format!("{}\n{}\n", good(5), good(6));
    assert_eq!(
        send(w.addr, "POST", "/v1/events", &["content-type: application/x-ndjson".to_string()], lines.as_bytes()).status,
        202
    );
    accepted(w.addr, "/v1/items", r#"[{"item_id":"i9","categories":["jazz"]}]"#);
    accepted(w.addr, "/v1/users", r#"{"user_id":"u1","interests":["jazz"]}"#);
    let mut events = w.payloads(Role::Events);
    events.sort();
    assert_eq!(events, (1..=6).map(good).collect::<Vec<_>>());
    assert_eq!(w.payloads(Role::Items), [r#"{"item_id":"i9","categories":["jazz"]}"#]);
    assert_eq!(w.payloads(Role::Users), [r#"{"user_id":"u1","interests":["jazz"]}"#]);
    for record in w.logged() {
        let payload: Value = serde_json::from_slice(&record.payload.expect("a payload")).expect("JSON");
        let key = if record.role == Role::Items { &payload["item_id"] } else { &payload["user_id"] };
        assert_eq!(record.key.as_deref(), key.as_str().map(str::as_bytes), "one user's events share a partition");
    }
    let nothing = post(w.addr, "/v1/events", "[]").json();
    assert_eq!(nothing, json!({"accepted": 0, "rejected": [], "token": null}));
    assert_eq!(get(w.addr, "/v1/stats").json()["recent_users"][0], "u6");
}

/// What the engine would put among the dead letters is refused where it is sent.
#[test]
fn c43_an_embedding_of_another_width_is_refused_at_the_door() {
    let width =
        |enabled| World::set(|config| (config.recommend.content.enabled, config.recommend.content.dimensions) = (enabled, 2));
    let items = r#"[{"item_id":"i1","embedding":[1,2]},{"item_id":"i2","embedding":[1,2,3]},{"item_id":"i3"}]"#;
    let w = width(true);
    let body = post(w.addr, "/v1/items", items).json();
    assert_eq!((&body["accepted"], &body["rejected"][0]["index"]), (&json!(2), &json!(1)), "{body}");
    let reason = body["rejected"][0]["reason"].as_str().expect("a reason");
    assert!(reason.contains("3 numbers") && reason.contains("content"), "{reason}");
    assert_eq!(w.payloads(Role::Items).len(), 2);
    assert_eq!(post(width(false).addr, "/v1/items", items).json()["accepted"], 3, "nobody looks at it there");
}

#[test]
fn a_log_that_is_gone_is_said() {
    let w = World::memory(|_| {});
    std::fs::remove_dir_all(w.log_dir()).expect("the folder is there");
    let refused = post(w.addr, "/v1/events", r#"{"type":"like","user_id":"u","item_id":"i"}"#);
    assert_eq!(refused.refusal(), (503, "log_unavailable".to_string()));
    assert!(refused.body.contains("send all of them again"), "{}", refused.body);
}

#[test]
fn c37_to_forget_is_an_order_in_the_log() {
    let w = World::memory(|_| {});
    let answer = send(w.addr, "DELETE", "/v1/users/u%201", &[], b"");
    assert_eq!((answer.status, &answer.json()["accepted"]), (202, &json!(1)));
    let orders: Vec<Value> = w.payloads(Role::Control).iter().map(|p| serde_json::from_str(p).expect("JSON")).collect();
    assert_eq!(orders, [json!({"op": "forget", "user_id": "u 1"})]);
}

/// The write becomes visible while the read waits for it.
#[test]
fn c02_a_read_with_a_token_waits_for_its_write() {
    both(|mut w| {
        fill(&mut w);
        let token = accepted(w.addr, "/v1/events", r#"{"type":"share","user_id":"u1","item_id":"i2"}"#);
        let addr = w.addr;
        let waiting: Vec<_> = ["/v1/feeds/home/u1", "/v1/users/u1/features", "/v1/trending/global"]
            .into_iter()
            .map(|target| (target, token.clone()))
            .map(|(target, token)| std::thread::spawn(move || get_with(addr, target, &token)))
            .collect();
        // An epoch that does not contain it, then the one that does.
        w.write(&[]);
        w.caught_up(true);
        let slate = w.slate("u1", &["new", "i1"]);
        w.write(&[slate]);
        let answers: Vec<_> = waiting.into_iter().map(|t| t.join().expect("no panic")).collect();
        for answer in &answers {
            assert_eq!((answer.status, &answer.json()["stale"]), (200, &json!(false)), "{}", answer.body);
        }
        assert_eq!(answers[0].ids(), ["new", "i1"], "over {}", w.name);
    });
}

#[test]
fn a_write_that_does_not_become_visible_makes_the_answer_stale() {
    let soon = |params: &mut overdrive::shim::Params| params.token_wait = Duration::from_millis(50);
    let test = |mut w: World| {
        fill(&mut w);
        let token = accepted(w.addr, "/v1/events", r#"{"type":"share","user_id":"u1","item_id":"i2"}"#);
        let stale = |target: &str| get_with(w.addr, target, &token).json()["stale"].clone();
        for target in ["/v1/feeds/home/u1", "/v1/feeds/trending/u1", "/v1/users/u1/interests", "/v1/items/i1/neighbours"] {
            assert_eq!(stale(target), json!(true), "{target} over {}", w.name);
        }
        let unknown = get_with(w.addr, "/v1/users/nobody/features", &token);
        assert!(unknown.status == 404 && unknown.body.contains("not visible yet"), "{}", unknown.body);
        // Trending and neighbours follow at ticks only.
        w.caught_up(false);
        w.write(&[]);
        let stale = |target: &str| get_with(w.addr, target, &token).json()["stale"].clone();
        assert_eq!(stale("/v1/users/u1/interests"), json!(false));
        assert_eq!(stale("/v1/feeds/home/u1"), json!(false));
        for surface in ["trending/u1", "category/u1?category=jazz", "near/u1?lat=1&lon=1"] {
            assert_eq!(stale(&format!("/v1/feeds/{surface}")), json!(true), "{surface} over {}", w.name);
        }
        assert_eq!(stale("/v1/trending/global"), json!(true));
        assert_eq!(stale("/v1/items/i1/neighbours"), json!(true));
    };
    test(World::memory(soon));
    #[cfg(feature = "redis")]
    test(over_redis(soon));
}

#[test]
fn c19_a_chain_of_pages_neither_repeats_nor_skips() {
    both(|mut w| {
        let names: Vec<String> = (0..50).map(|i| format!("i{i}")).collect();
        let items: Vec<&str> = names.iter().map(String::as_str).collect();
        w.write(&[w.slate("u1", &items), w.seen("u1", &["i7"]), w.gone("i8")]);
        let page = |cursor: &Value| {
            let next = cursor.as_str().map_or(String::new(), |cursor| format!("&cursor={cursor}"));
            let answer = get(w.addr, &format!("/v1/feeds/home/u1?k=7{next}"));
            (answer.ids(), answer.json()["cursor"].clone())
        };
        let (mut all, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let (ids, next) = page(&cursor);
            all.extend(ids);
            if next.is_null() {
                break;
            }
            cursor = next;
        }
        let expected: Vec<_> = items.iter().filter(|i| **i != "i7" && **i != "i8").map(|i| i.to_string()).collect();
        assert_eq!(all, expected, "over {}", w.name);
        // Replaced in the middle of a chain: the new slate, without what was given.
        let (first, cursor) = page(&Value::Null);
        w.write(&[w.slate("u1", &["x", "i3", "y", "i40", "i0"])]);
        let next = get(w.addr, &format!("/v1/feeds/home/u1?k=9&cursor={}", cursor.as_str().expect("more")));
        assert!(first.contains(&"i3".to_string()) && first.contains(&"i0".to_string()));
        assert_eq!((next.ids(), &next.json()["cursor"]), (vec!["x".into(), "y".into(), "i40".into()], &Value::Null));
    });
}

/// Row 20: the slate narrowed to the category, then what is trending in it, over one chain of pages.
/// `jazzy` is a surface of the settings, about jazz.
#[test]
fn c20_a_surface_of_the_settings_is_read_as_home_is() {
    both(|mut w| {
        w.write(&[
            w.slate("u1", &["i1", "i2"]),
            w.slate_on("jazzy", "u1", &["j1", "j2", "j3"], 2),
            w.trending(Some("jazz"), &["j9", "j1"]),
            w.trending(None, &["t1"]),
            w.seen("u1", &["j2"]),
            w.gone("j9"),
        ]);
        let page = |user: &str| {
            let answer = get(w.addr, &format!("/v1/feeds/jazzy/{user}"));
            conforms(&openapi(), "/v1/feeds/{surface}/{user}", "get", "200", &answer.json());
            (answer.ids(), answer.json())
        };
        let (items, body) = page("u1");
        assert_eq!(items, ["j1", "j3"], "over {}", w.name);
        assert_eq!((&body["surface"], &body["fallback"], &body["model"]), (&json!("jazzy"), &json!(false), &json!("blend")));
        // Who has no slate there gets what trends in what it is about, then what trends at all.
        let (items, body) = page("u2");
        assert_eq!((items, &body["fallback"]), (vec!["j1".to_string(), "t1".to_string()], &json!(true)), "over {}", w.name);
        assert_eq!(body["items"][0]["reason"], "popular in jazz now");
        let many = post(w.addr, "/v1/feeds/jazzy", r#"{"user_ids":["u1","u2"]}"#).json();
        assert_eq!(many["feeds"][0]["items"][1]["item_id"], "j3");
        let export = get(w.addr, "/v1/users/u1/export").json();
        conforms(&openapi(), "/v1/users/{user}/export", "get", "200", &export);
        assert_eq!(export["slate"]["items"][0]["item_id"], "i1");
        assert_eq!(export["surfaces"]["jazzy"]["items"][2]["item_id"], "j3", "over {}", w.name);
        let unknown = get(w.addr, "/v1/feeds/jazz/u1");
        let why = unknown.json()["error"]["message"].as_str().expect("a message").to_string();
        assert!(why.contains("home, jazzy, category, near, trending"), "{why}");
    });
}

#[test]
fn c20_a_category_is_a_surface_of_its_own() {
    both(|mut w| {
        w.write(&[
            w.slate("u1", &["i0", "x1", "i2", "x3", "i4", "x5", "i6"]),
            w.trending(Some("jazz"), &["i4", "t1", "i2", "t2", "t3"]),
            w.trending(None, &["t9"]),
            w.seen("u1", &["i2", "t2"]),
            w.gone("i6"),
        ]);
        let page = |user: &str, query: &str| {
            let answer = get(w.addr, &format!("/v1/feeds/category/{user}?category=jazz&{query}"));
            conforms(&openapi(), "/v1/feeds/{surface}/{user}", "get", "200", &answer.json());
            (answer.ids(), answer.json())
        };
        let (whole, body) = page("u1", "");
        assert_eq!(whole, ["i0", "i4", "t1", "t3"], "over {}", w.name);
        assert_eq!((&body["surface"], &body["fallback"], &body["model"]), (&json!("category"), &json!(false), &json!("blend")));
        let sources: Vec<_> = body["items"].as_array().expect("items").iter().map(|item| item["source"].clone()).collect();
        assert_eq!(sources, ["neighbours", "neighbours", "trending", "trending"]);
        assert_eq!(body["items"][2]["reason"], "popular in jazz now");
        let (mut chain, mut cursor) = (Vec::new(), String::new());
        loop {
            let (ids, body) = page("u1", &format!("k=1{cursor}"));
            chain.extend(ids);
            match body["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(chain, whole, "over {}", w.name);
        // The slate is replaced within a chain: nothing comes again, nothing new is passed over.
        let (first, body) = page("u1", "k=3");
        let next = body["cursor"].as_str().expect("more").to_string();
        w.write(&[w.slate("u1", &["i8", "x1", "i4"])]);
        let rest = get(w.addr, &format!("/v1/feeds/category/u1?category=jazz&cursor={next}")).ids();
        assert_eq!((first, rest), (vec!["i0".into(), "i4".into(), "t1".into()], vec!["i8".into(), "t3".into()]));
        // Who has no slate gets what is trending in it, and who asks for what nobody knows what is trending at all.
        let stranger = get(w.addr, "/v1/feeds/category/u2?category=jazz").json();
        assert_eq!((&stranger["items"][0]["item_id"], &stranger["fallback"]), (&json!("i4"), &json!(true)));
        let unheard = get(w.addr, "/v1/feeds/category/u2?category=polka");
        assert_eq!((unheard.ids(), &unheard.json()["fallback"]), (vec!["t9".to_string()], &json!(true)));
        // Many at once are those of the single route.
        let body = r#"{"user_ids":["u1","u2"],"category":"jazz"}"#;
        let headers = ["x-request-id: mine".to_string(), JSON.to_string()];
        let many = send(w.addr, "POST", "/v1/feeds/category", &headers, body.as_bytes()).json();
        let single =
            |user: &str| send(w.addr, "GET", &format!("/v1/feeds/category/{user}?category=jazz"), &headers[..1], b"").json();
        assert_eq!(many, json!({"feeds": [single("u1"), single("u2")]}), "over {}", w.name);
    });
}

/// Row 20: what is near, ring by ring until there is enough, nearer things and better ones first.
#[test]
fn c20_what_is_near_is_found_ring_by_ring() {
    const KM: f64 = 1.0 / 111.194_926_6; // of latitude
    both(|mut w| {
        let (lat, lon) = (48.137, 11.575);
        let north = |km: f64| lat + km * KM;
        let mut writes = w.near(&[
            ("here", lat, lon, 0.2),
            ("walk", north(1.0), lon, 1.0),
            ("seen", north(1.5), lon, 1.0),
            ("town", north(12.0), lon, 0.4),
            ("city", north(90.0), lon, 0.6),
            ("region", north(400.0), lon, 1.0),
            ("edge", north(990.0), lon, 0.8),
            ("beyond", north(1_010.0), lon, 1.0),
            ("dateline", 0.0, -179.99, 0.5),
        ]);
        writes.extend([w.seen("u1", &["seen"]), w.trending(None, &["t1"]), w.slate("u2", &["town"])]);
        w.write(&writes);
        let addr = w.addr;
        let page = |user: &str, query: &str| {
            let answer = get(addr, &format!("/v1/feeds/near/{user}?lat={lat}&lon={lon}&{query}"));
            conforms(&openapi(), "/v1/feeds/{surface}/{user}", "get", "200", &answer.json());
            (answer.ids(), answer.json())
        };
        // One is wanted: it is the best of what is around.
        let (first, body) = page("u1", "k=1&explain=1");
        assert_eq!(first, ["walk"], "over {}", w.name);
        assert_eq!((&body["surface"], &body["model"], &body["fallback"]), (&json!("near"), &json!("near"), &json!(false)));
        let item = &body["items"][0];
        assert_eq!((&item["source"], &item["reason"], &item["distance_km"]), (&json!("near"), &json!("near you"), &json!(1.0)));
        let close = |value: &Value, to: f64| (value.as_f64().expect("a number") - to).abs() < 0.01;
        assert!(close(&item["score"], 1.5 / 2.0 + 1.0) && close(&item["terms"]["proximity"], 0.5), "{item}");
        // All of it, in the order of the formula, but for what is beyond the region and what was seen.
        let (all, body) = page("u1", "k=50");
        assert_eq!(all, ["walk", "here", "region", "edge", "city", "town"], "over {}", w.name);
        let far: Vec<f64> =
            body["items"].as_array().expect("items").iter().map(|i| i["distance_km"].as_f64().expect("km")).collect();
        for (found, expected) in far.iter().zip([1.0, 0.0, 400.0, 990.0, 90.0, 12.0]) {
            assert!((found - expected).abs() < 0.011, "{far:?}");
        }
        assert_eq!(body["items"][2]["reason"], "in your region");
        // A chain shows each of them once, though each page looks farther than the one before.
        let (mut chain, mut cursor) = (Vec::new(), String::new());
        loop {
            let (ids, body) = page("u1", &format!("k=1{cursor}"));
            chain.extend(ids);
            match body["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(chain.iter().collect::<BTreeSet<_>>(), all.iter().collect(), "over {}", w.name);
        assert_eq!(chain.len(), all.len(), "nothing twice: {chain:?}");
        // Who does not care for nearness gets what is good; what the slate says of an item counts.
        assert_eq!(page("u1", "k=50&local_preference=0").0[..2], ["region", "walk"], "over {}", w.name);
        let score = |user: &str| {
            let (_, body) = page(user, "k=50");
            let items = body["items"].as_array().expect("items").clone();
            items.iter().find(|item| item["item_id"] == "town").expect("it is near")["score"].as_f64().expect("a number")
        };
        assert!((score("u2") - score("u1") - 0.45).abs() < 1e-6, "half of the 0.9 in the slate of u2");
        // Across the date line, where there is only one thing; in the middle of nowhere what all share.
        let across = get(addr, "/v1/feeds/near/u1?lat=0&lon=179.99");
        assert_eq!((across.ids(), &across.json()["items"][0]["distance_km"]), (vec!["dateline".to_string()], &json!(2.2)));
        let nowhere = get(addr, "/v1/feeds/near/u1?lat=-60&lon=-30");
        assert_eq!((nowhere.ids(), &nowhere.json()["fallback"]), (vec!["t1".to_string()], &json!(true)));
        assert_eq!(get(addr, "/v1/feeds/near/u1?lat=90&lon=0").status, 200);
        let body = format!(r#"{{"user_ids":["u1","u2"],"lat":{lat},"lon":{lon},"k":50}}"#);
        let many = post(addr, "/v1/feeds/near", &body).json();
        assert_eq!(many["feeds"][0]["items"], page("u1", "k=50").1["items"]);
        assert_eq!(many["feeds"][1]["items"], page("u2", "k=50").1["items"]);
        // What goes is gone at once.
        w.write(&[w.gone("walk")]);
        let token = accepted(addr, "/v1/events", r#"{"type":"view","user_id":"u1","item_id":"x"}"#);
        w.caught_up(true);
        w.write(&[]);
        let fresh = get_with(addr, &format!("/v1/feeds/near/u1?lat={lat}&lon={lon}&k=1"), &token);
        assert_eq!(fresh.ids(), ["here"], "over {}", w.name);
    });
}

/// For who cares for nearness alone, whatever the rings: as many as are wanted, and none farther while a nearer one is left out.
#[test]
fn the_nearest_of_equals_are_those_of_a_search_of_all() {
    use overdrive::model::place::Place;
    let mut w = World::memory(|_| {});
    // So sparse that the rings of several levels are needed, and without a pattern that fits theirs.
    let names: Vec<String> = (0..4_000).map(|i| format!("p{i}")).collect();
    let spread = |i: usize, by: f64| (i as f64 * by).fract() - 0.5;
    let at: Vec<(f64, f64)> =
        (0..names.len()).map(|i| (48.0 + 3.0 * spread(i, 0.618_034), 11.0 + 4.0 * spread(i, 0.754_878))).collect();
    let items: Vec<_> = names.iter().zip(&at).map(|(name, &(lat, lon))| (name.as_str(), lat, lon, 0.5)).collect();
    let writes = w.near(&items);
    w.write(&writes);
    for step in 0..60 {
        let (lat, lon) = (48.0 + 2.0 * spread(step, 0.569_840), 11.0 + 3.0 * spread(step, 0.682_328));
        let here = Place::new(lat, lon).expect("on the earth");
        let mut all: Vec<_> =
            names.iter().zip(&at).map(|(name, &(lat, lon))| (here.km(Place::new(lat, lon).expect("on it")), name)).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        for k in [1, 4] {
            let found = get(w.addr, &format!("/v1/feeds/near/u1?lat={lat}&lon={lon}&k={k}")).ids();
            // What is kept of a place is a few metres off.
            let expected: Vec<_> = all.iter().take(k).map(|(_, name)| name.to_string()).collect();
            assert_eq!(found, expected, "{k} at {lat} {lon}");
        }
    }
}

/// Row 21: who has no slate gets what trends in what the request says of them, then what trends anywhere; each item says why.
#[test]
fn c21_a_cold_start_goes_from_the_narrowest_segment_to_the_widest() {
    both(|mut w| {
        w.write(&[
            w.trending_in(Segment::Category("jazz"), &["j1", "c1"]),
            w.trending_in(Segment::Cell("841f8d7ffffffff"), &["c1", "c2", "seen"]),
            w.trending_in(Segment::Language("de"), &["l1", "g2", "gone"]),
            w.trending(None, &["g1", "g2", "c2"]),
            w.slate("u1", &["i1"]),
            w.seen("u2", &["seen"]),
            w.gone("gone"),
        ]);
        let addr = w.addr;
        let feed = |user: &str, query: &str| {
            let answer = get(addr, &format!("/v1/feeds/home/{user}?{query}"));
            conforms(&openapi(), "/v1/feeds/{surface}/{user}", "get", "200", &answer.json());
            (answer.ids(), answer.json())
        };
        let query = "category=jazz&language=de&lat=48.137&lon=11.575";
        let (all, body) = feed("u2", query);
        assert_eq!(all, ["j1", "c1", "c2", "l1", "g2", "g1"], "over {}", w.name);
        assert_eq!((&body["fallback"], &body["model"]), (&json!(true), &json!("trending")));
        let reasons: Vec<_> = body["items"].as_array().expect("items").iter().map(|item| item["reason"].clone()).collect();
        let expected = ["in jazz", "in jazz", "in your region", "in de", "in de", ""].map(|subject| match subject {
            "" => json!("trending now"),
            subject => json!(format!("popular {subject} now")),
        });
        assert_eq!(reasons, expected);
        let (mut chain, mut cursor) = (Vec::new(), String::new());
        loop {
            let (ids, body) = feed("u2", &format!("k=2&{query}{cursor}"));
            chain.extend(ids);
            match body["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(chain, all, "over {}", w.name);
        // A segment in which nothing trends is passed over, and a slate needs none.
        assert_eq!(feed("u2", "language=fr&lat=0&lon=0").0, ["g1", "g2", "c2"]);
        let (own, body) = feed("u1", query);
        assert_eq!((own, &body["fallback"]), (vec!["i1".to_string()], &json!(false)));
        let body = r#"{"user_ids":["u1","u2"],"category":"jazz","language":"de","lat":48.137,"lon":11.575}"#;
        let many = post(addr, "/v1/feeds/home", body).json();
        assert_eq!([0, 1].map(|at| many["feeds"][at]["items"][0]["item_id"].clone()), [json!("i1"), json!("j1")]);
        for (scope, first) in [("language:de", "l1"), ("cell:841f8d7ffffffff", "c1")] {
            let body = get(addr, &format!("/v1/trending/{scope}")).json();
            assert_eq!((&body["scope"], &body["items"][0]["item_id"]), (&json!(scope), &json!(first)), "over {}", w.name);
        }
    });
}

#[test]
fn what_is_excluded_is_on_no_page_and_nothing_else_is_missing() {
    both(|mut w| {
        let names: Vec<String> = (0..30).map(|i| format!("i{i}")).collect();
        let items: Vec<&str> = names.iter().map(String::as_str).collect();
        w.write(&[w.slate("u1", &items), w.trending(None, &["i2", "t1", "t2"])]);
        let exclude = ["i0", "i3", "i4", "i29", "t1"];
        let chain = |query: &str| {
            let (mut all, mut cursor) = (Vec::new(), String::new());
            loop {
                let page = get(w.addr, &format!("/v1/feeds/home/u1?k=4&{query}{cursor}"));
                all.extend(page.ids());
                match page.json()["cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => return all,
                }
            }
        };
        let kept = |item: &&String| !exclude.contains(&item.as_str());
        let expected: Vec<String> = names.iter().filter(kept).cloned().collect();
        assert_eq!(chain(&format!("exclude={}", exclude.join(","))), expected, "over {}", w.name);
        assert_eq!(chain(&format!("exclude={}", exclude.join("&exclude="))), expected, "over {}", w.name);
        let nobody = get(w.addr, "/v1/feeds/home/nobody?exclude=t1,i2");
        assert_eq!(nobody.ids(), ["t2"], "from what all share it is left out too");
        assert_eq!(get(w.addr, "/v1/feeds/home/nobody?exclude=t1,i2,t2").ids(), Vec::<String>::new(), "rather nothing");
    });
}

#[test]
fn an_answer_the_client_has_is_not_sent_again() {
    both(|mut w| {
        fill(&mut w);
        let addr = w.addr;
        let ask = |target: &str, tags: &str| send(addr, "GET", target, &[format!("if-none-match: {tags}")], b"");
        let first = get(addr, "/v1/feeds/home/u1");
        let tag = first.header("etag").expect("a tag").to_string();
        assert!(tag.starts_with("W/\"1-") && first.header("cache-control") == Some("private, no-cache"), "{}", first.head);
        for tags in [tag.as_str(), "*", &format!("\"other\", {tag}")] {
            let again = ask("/v1/feeds/home/u1", tags);
            assert_eq!((again.status, again.body.as_str(), again.header("etag")), (304, "", Some(tag.as_str())), "{tags}");
        }
        for other in ["/v1/feeds/home/u1?k=2", "/v1/feeds/home/u1?exclude=i1", "/v1/feeds/home/u1?explain=1", "/v1/feeds/home/u2"]
        {
            assert_eq!(ask(other, &tag).status, 200, "{other}");
        }
        w.write(&[w.seen("u1", &["i3"])]);
        let changed = ask("/v1/feeds/home/u1", &tag);
        assert_eq!(
            (changed.status, changed.ids()),
            (200, vec!["i1".to_string(), "i2".to_string()]),
            "the same slate, shown otherwise"
        );
        w.write(&[w.slate("u1", &["i1", "i2"])]);
        let newer = ask("/v1/feeds/home/u1", changed.header("etag").expect("a tag"));
        assert_eq!((newer.status, newer.ids()), (200, changed.ids()), "the same items of another epoch");
    });
}

#[test]
fn c36_many_feeds_at_once_are_those_of_the_single_route() {
    both(|mut w| {
        fill(&mut w);
        w.write(&[w.slate("u2", &["i4", "i5"]), w.seen("u2", &["i4"])]);
        let body = r#"{"user_ids":["u2","nobody","u1","u2"],"k":2,"explain":true,"exclude":["i1"]}"#;
        let headers = ["x-request-id: mine".to_string(), JSON.to_string()];
        for surface in ["home", "trending"] {
            let many = send(w.addr, "POST", &format!("/v1/feeds/{surface}"), &headers, body.as_bytes()).json();
            conforms(&openapi(), "/v1/feeds/{surface}", "post", "200", &many);
            let single = |user: &&str| {
                let target = format!("/v1/feeds/{surface}/{user}?k=2&explain=true&exclude=i1");
                send(w.addr, "GET", &target, &headers[..1], b"").json()
            };
            let each: Vec<Value> = ["u2", "nobody", "u1", "u2"].iter().map(single).collect();
            assert_eq!(many, json!({"feeds": each}), "over {}", w.name);
        }
        let home = post(w.addr, "/v1/feeds/home", body).json();
        let first = |at: usize| home["feeds"][at]["items"][0]["item_id"].clone();
        assert_eq!([first(0), first(1), first(2)], [json!("i5"), json!("t1"), json!("i2")], "over {}", w.name);
        assert_eq!(post(w.addr, "/v1/feeds/home", r#"{"user_ids":[]}"#).json(), json!({"feeds": []}));
        for (path, body) in [
            ("/v1/feeds/home", r#"{"user_ids":["u1"],"k":1.0}"#),
            ("/recommend", r#"{"user_id":"u1","num_recommendations":1.0}"#),
        ] {
            assert_eq!(post(w.addr, path, body).status, 200, "to JSON 1.0 is a whole number: {path}");
        }
        // The write of a token is in all of them.
        let token = accepted(w.addr, "/v1/events", r#"{"type":"share","user_id":"u1","item_id":"i2"}"#);
        w.caught_up(true);
        w.write(&[w.slate("u1", &["new"])]);
        let sent = [JSON.to_string(), format!("x-overdrive-token: {token}")];
        let many = send(w.addr, "POST", "/v1/feeds/home", &sent, br#"{"user_ids":["u2","u1"]}"#).json();
        assert_eq!((&many["feeds"][1]["items"][0]["item_id"], &many["feeds"][1]["stale"]), (&json!("new"), &json!(false)));
    });
}

#[test]
fn a_user_nobody_knows_gets_what_is_trending() {
    both(|mut w| {
        let empty = get(w.addr, "/v1/feeds/home/nobody");
        assert_eq!((empty.status, empty.ids().len(), &empty.json()["fallback"]), (200, 0, &json!(true)), "{}", empty.body);
        assert_eq!(get(w.addr, "/readyz").refusal(), (503, "not_ready".to_string()));
        assert_eq!(get(w.addr, "/health").json()["status"], "starting");
        fill(&mut w);
        // What is common to all is at most a second old; a token asks for it anew.
        let token = accepted(w.addr, "/v1/events", r#"{"type":"view","user_id":"other","item_id":"i2"}"#);
        w.caught_up(true);
        w.write(&[w.gone("t1"), w.seen("nobody", &["t2"])]);
        let feed = get_with(w.addr, "/v1/feeds/home/nobody", &token);
        assert_eq!((feed.ids(), &feed.json()["fallback"]), (vec!["t3".to_string()], &json!(true)));
        w.write(&[w.seen("nobody", &["t2", "t3"])]);
        let feed = get_with(w.addr, "/v1/feeds/home/nobody", &token);
        assert_eq!(feed.ids(), ["t2", "t3"], "all of it seen: better again than nothing");
    });
}

#[test]
fn c32_where_nothing_trends_what_is_new_stands_in() {
    both(|mut w| {
        w.write(&[w.fresh(&["n1", "n2"])]);
        let feed = get(w.addr, "/v1/feeds/home/nobody");
        let body = feed.json();
        assert_eq!(
            (feed.ids(), &body["fallback"], &body["model"]),
            (vec!["n1".into(), "n2".into()], &json!(true), &json!("fresh"))
        );
        assert_eq!((&body["items"][0]["source"], &body["items"][0]["reason"]), (&json!("fresh"), &json!("new")));
        assert_eq!(get(w.addr, "/v1/feeds/trending/nobody").json()["fallback"], true, "asked for trending, given what is new");
    });
}

#[test]
fn c23_nothing_withdrawn_and_nothing_seen_is_shown() {
    both(|mut w| {
        fill(&mut w);
        assert_eq!(get(w.addr, "/v1/feeds/home/u1").ids(), ["i1", "i2", "i3"]);
        let token = accepted(w.addr, "/v1/items", r#"{"item_id":"i1","available":false}"#);
        w.caught_up(true);
        w.write(&[w.gone("i1"), w.seen("u1", &["i3"])]);
        assert_eq!(get_with(w.addr, "/v1/feeds/home/u1", &token).ids(), ["i2"], "over {}", w.name);
    });
}

#[test]
fn what_is_deleted_is_not_there_and_a_store_that_is_rebuilt_says_so() {
    use overdrive::sinks::{Sort, Write};
    both(|mut w| {
        fill(&mut w);
        assert_eq!(get(w.addr, "/v1/stats").json()["rebuilding"], json!(false));
        let (keys, fence, ttl) = (w.keys.clone(), w.fence(), Duration::from_secs(60));
        let delete = |key, sort| Write::Delete { key, sort, ttl, fence };
        let writes = [
            delete(keys.slate("home", None, "u1"), Sort::Value),
            delete(keys.user("u1"), Sort::Fields),
            delete(keys.interests("u1"), Sort::Fields),
            delete(keys.trending(Segment::Category("jazz")), Sort::Ranked),
        ];
        w.applied.rebuilding = true;
        w.write(&writes);
        let feed = get(w.addr, "/v1/feeds/home/u1");
        assert_eq!((feed.ids(), &feed.json()["fallback"]), (vec!["t1".into(), "t2".into(), "t3".into()], &json!(true)));
        assert_eq!(get(w.addr, "/v1/users/u1/features").status, 404, "over {}", w.name);
        assert_eq!(get(w.addr, "/v1/users/u1/interests").status, 404, "over {}", w.name);
        assert_eq!(get(w.addr, "/v1/trending/category%3Ajazz").json()["items"], json!([]), "over {}", w.name);
        assert_eq!(get(w.addr, "/v1/stats").json()["rebuilding"], json!(true), "over {}", w.name);
    });
}

#[test]
fn c32_a_slate_that_cannot_be_read_is_as_good_as_none() {
    both(|mut w| {
        fill(&mut w);
        let mut slate = w.slate("u1", &["i1", "i2"]);
        let overdrive::sinks::Write::Value { value, .. } = &mut slate else { panic!("a slate is a value") };
        value.truncate(30); // its fence stays, its checksum is no longer right
        w.write(&[slate]);
        let feed = get(w.addr, "/v1/feeds/home/u1");
        assert_eq!((feed.ids(), &feed.json()["fallback"]), (vec!["t1".into(), "t2".into(), "t3".into()], &json!(true)));
    });
}

/// How often something in the store could not be read or had, over all shims of this process.
fn store_errors(w: &World) -> f64 {
    let metrics = get(w.addr, "/metrics").body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(overdrive::telemetry::STORE_ERRORS)?.trim().parse().ok());
    line.unwrap_or(0.0)
}

/// The others are shown, and it is counted.
#[test]
fn c32_an_item_of_a_slate_that_cannot_be_read_is_left_out_and_counted() {
    both(|mut w| {
        let mut slate = layout::SlateValue::new(Vec::new(), "u1", "home", CLOCK);
        let mut why = Vec::new();
        layout::Why { kind: layout::proto::ReasonKind::Because, interaction: "share", subject: "i0" }.encode(&mut why);
        for (item, why) in [("i1", why.as_slice()), ("i2", [0xff; 3].as_slice()), ("i3", why.as_slice())] {
            slate.push(item, 900_000, overdrive::model::Source::Neighbours, why, &[0; 5]);
        }
        slate.ordered_by("blend", "");
        let value = slate.finish(layout::Stamp { epoch: 1, generation: 1, model: 0 });
        let key = w.keys.slate("home", None, "u1");
        w.write(&[Write::Value { key, value, ttl: Duration::from_secs(60), fence: w.fence() }]);
        let before = store_errors(&w);
        assert_eq!(get(w.addr, "/v1/feeds/home/u1").ids(), ["i1", "i3"], "over {}", w.name);
        assert!(store_errors(&w) > before);
    });
}

#[cfg(feature = "redis")]
#[test]
fn c32_while_redis_is_away_feeds_go_on_and_the_rest_says_so() {
    let mut w = over_redis(|_| {});
    fill(&mut w);
    w.write(&[w.seen("u1", &["i3"])]);
    let before = get(w.addr, "/v1/feeds/home/u1?k=1");
    assert_eq!(before.ids(), ["i1"]);
    w.redis.as_mut().expect("over redis").kill();
    for target in ["/v1/items/i1/features", "/v1/trending/global", "/readyz", "/v1/stats"] {
        let refused = get(w.addr, target);
        assert_eq!(refused.refusal(), (503, "store_unavailable".to_string()), "{target}");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    assert_eq!((get(w.addr, "/livez").status, get(w.addr, "/health").status), (200, 503));
    let said = |feed: &Value| {
        let ids = feed["items"].as_array().expect("items").iter().map(|item| item["item_id"].clone());
        (Value::from_iter(ids), feed["fallback"].clone(), feed["stale"].clone())
    };
    let (own, shelf) = (json!(["i1", "i2"]), json!(["t1", "t2", "t3"]));
    // Who was read lately keeps their feed, goes on in it, and is told; the others get what is trending.
    let kept = (own.clone(), json!(false), json!(true));
    assert_eq!(said(&get(w.addr, "/v1/feeds/home/u1").json()), kept);
    let next = get(w.addr, &format!("/v1/feeds/home/u1?cursor={}", before.json()["cursor"].as_str().expect("more")));
    assert_eq!((next.ids(), &next.json()["stale"]), (vec!["i2".to_string()], &json!(true)));
    let known =
        send(w.addr, "GET", "/v1/feeds/home/u1?k=1", &[format!("if-none-match: {}", before.header("etag").expect("a tag"))], b"");
    assert_eq!(known.status, 200, "the same items, but stale");
    assert_eq!(said(&get(w.addr, "/v1/feeds/home/u2").json()), (shelf.clone(), json!(true), json!(true)));
    let many = post(w.addr, "/v1/feeds/home", r#"{"user_ids":["u2","u1"]}"#).json();
    assert_eq!([said(&many["feeds"][0]), said(&many["feeds"][1])], [(shelf.clone(), json!(true), json!(true)), kept]);
    let addr = w.addr;
    let crowd: Vec<_> = (0..16).map(|_| std::thread::spawn(move || get(addr, "/v1/feeds/home/u1").json())).collect();
    crowd.into_iter().for_each(|asked| assert_eq!(said(&asked.join().expect("no panic")).0, own));
    // A user who asks to be forgotten is not remembered for that.
    assert_eq!(send(w.addr, "DELETE", "/v1/users/u1", &[], b"").status, 202);
    assert_eq!(said(&get(w.addr, "/v1/feeds/home/u1").json()).0, shelf);
    w.redis.as_mut().expect("over redis").restart();
    // The writer's connection is its own affair: it may need a try to notice.
    let ready = (0..200).any(|_| {
        w.applied.epoch = 10;
        let slate = w.slate("u1", &["back"]);
        w.applied.clock_ms = CLOCK;
        let written = w.store.write(&[slate], &w.applied, overdrive::sinks::Known::default()).is_ok();
        std::thread::sleep(Duration::from_millis(20));
        written && get(w.addr, "/readyz").status == 200
    });
    assert!(ready, "{}", get(w.addr, "/readyz").body);
    assert_eq!(said(&get(w.addr, "/v1/feeds/home/u1").json()), (json!(["back"]), json!(false), json!(false)));
}

/// A server that hangs takes nobody's answer: many who ask at once do not wait for one another.
#[cfg(feature = "redis")]
#[test]
fn c32_while_redis_hangs_what_is_remembered_is_answered() {
    const CROWD: u32 = 16;
    let wait = Duration::from_millis(200);
    let mut w = over_redis_within(wait, |config| config.service.request_timeout = wait * CROWD / 2);
    fill(&mut w);
    let home = || get(w.addr, "/v1/feeds/home/u1");
    assert_eq!((home().ids(), &home().json()["stale"]), (vec!["i1".into(), "i2".into(), "i3".into()], &json!(false)));
    std::thread::sleep(Duration::from_millis(1_100)); // so that what all share is to be read anew
    let redis = w.redis.as_ref().expect("over redis");
    redis.hang();
    let (addr, body) = (w.addr, r#"{"user_id":"u1","items":["b","a"]}"#);
    let crowd: Vec<_> = (0..CROWD).map(|_| std::thread::spawn(move || post(addr, "/v1/rank", body))).collect();
    for answer in crowd.into_iter().map(|asked| asked.join().expect("no panic")) {
        assert_eq!((answer.status, &answer.json()["stale"]), (200, &json!(true)), "{}", answer.body);
        assert_eq!(answer.ids(), ["b", "a"]);
    }
    let crowd: Vec<_> = (0..CROWD).map(|_| std::thread::spawn(move || get(addr, "/v1/feeds/home/u1"))).collect();
    for answer in crowd.into_iter().map(|asked| asked.join().expect("no panic")) {
        assert_eq!((answer.status, &answer.json()["stale"]), (200, &json!(true)), "{}", answer.body);
        assert_eq!(answer.ids(), ["i1", "i2", "i3"]);
    }
    let near_home = post(addr, "/v1/scenarios/hometown", r#"{"user_id":"u1"}"#);
    assert_eq!((near_home.status, near_home.header("x-overdrive-stale")), (200, Some("true")), "{}", near_home.body);
    assert_eq!(get(addr, "/v1/items/i1/features").refusal(), (503, "store_unavailable".to_string()));
    redis.go_on();
    let back = (0..1_000).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        home().json()["stale"] == false
    });
    assert!(back, "{}", home().body);
}

#[cfg(feature = "redis")]
#[test]
fn a_redis_that_was_never_there_is_no_secret_but_its_password_is() {
    let mut config = world::config();
    config.redis.url = format!("redis://someone:hunter2@127.0.0.1:{}/0", support::free_port());
    let reader = overdrive::shim::RedisReader::new(&config.redis, world::PREFIX, Duration::from_secs(2)).expect("the url is one");
    let store = overdrive::sinks::memory::Memory::new(world::PREFIX);
    let w = World::over("redis", std::sync::Arc::new(reader), Box::new(store), |_| {});
    let refused = get(w.addr, "/v1/feeds/home/u1");
    assert_eq!(refused.refusal(), (503, "store_unavailable".to_string()));
    assert!(!refused.body.contains("hunter2") && !refused.body.contains("someone"), "{}", refused.body);
    config.redis.url = "redis://someone:hunter2@[".to_string();
    let refused = overdrive::shim::RedisReader::new(&config.redis, world::PREFIX, Duration::from_secs(2)).err();
    assert!(refused.is_some_and(|why| !why.contains("hunter2")));
}

#[test]
fn a_client_that_dribbles_or_says_nothing_is_cut() {
    let w = World::memory(|params| params.header_timeout = Duration::from_millis(200));
    let mut silent = connect(w.addr);
    assert!(rest(&mut silent).is_none(), "closed without a word");
    let mut dribbling = connect(w.addr);
    let cut = b"GET /livez HTTP/1.1\r\nhost: test\r\nx-slow: ".iter().chain(std::iter::repeat(&b'a')).take(2_000).any(|byte| {
        std::thread::sleep(Duration::from_millis(10));
        dribbling.write_all(&[*byte]).is_err()
    });
    assert!(cut, "twenty seconds of dribbling were taken");
    // A connection that rests between two requests is no dribbler.
    let mut resting = connect(w.addr);
    for _ in 0..2 {
        resting.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n").expect("still open");
        let mut answer = [0; 4_096];
        let n = resting.read(&mut answer).expect("an answer");
        assert!(answer[..n].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..n]));
        std::thread::sleep(Duration::from_millis(600));
    }
}

#[test]
fn a_connection_that_rests_too_long_is_closed() {
    let w = World::memory(|params| params.idle_timeout = Duration::from_millis(200));
    let mut resting = connect(w.addr);
    resting.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n").expect("open");
    assert_eq!(rest(&mut resting).map(|answer| answer.status), Some(200), "answered, then closed by the server");
}

#[test]
fn a_body_that_is_too_large_is_refused_told_or_not() {
    let w = World::memory(|_| {});
    let body = vec![b' '; 64 << 20];
    let refused = send(w.addr, "POST", "/v1/events", &[JSON.to_string()], &body);
    assert_eq!(refused.refusal(), (413, "body_too_large".to_string()));
    assert!(refused.body.contains("1048576"), "the limit is named: {}", refused.body);
    let mut stream = connect(w.addr);
    let head = format!("POST /v1/events HTTP/1.1\r\nhost: test\r\n{JSON}\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("open");
    let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
    let _ = (0..64).try_for_each(|_| stream.write_all(&chunk));
    assert_eq!(rest(&mut stream).expect("an answer").refusal(), (413, "body_too_large".to_string()));
    assert_eq!(get(w.addr, "/livez").status, 200);
}

#[test]
fn a_body_that_never_ends_is_given_up() {
    let w = World::memory(|params| params.request_timeout = Duration::from_millis(300));
    let mut stream = connect(w.addr);
    let head = format!("POST /v1/events HTTP/1.1\r\nhost: test\r\n{JSON}\r\ncontent-length: 100\r\n\r\n{{");
    stream.write_all(head.as_bytes()).expect("open");
    assert_eq!(rest(&mut stream).expect("an answer").refusal(), (503, "timeout".to_string()));
}

#[test]
fn a_full_house_says_so_and_takes_the_next_when_one_leaves() {
    let w = World::memory(|params| params.connections = 2);
    let keep = || {
        let mut stream = connect(w.addr);
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n").expect("open");
        let n = stream.read(&mut [0; 4_096]).expect("an answer");
        assert!(n > 0);
        stream
    };
    let (one, two) = (keep(), keep());
    let mut third = connect(w.addr);
    assert_eq!(rest(&mut third).map(|answer| answer.status), Some(503));
    drop((one, two));
    let again = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        let mut next = connect(w.addr);
        let _ = next.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        rest(&mut next).is_some_and(|answer| answer.status == 200)
    });
    assert!(again);
}

/// A stop lets the request under way finish: here one that waits for its write until it is told that there is none.
#[test]
fn a_stop_lets_requests_finish() {
    let mut w = World::memory(|params| params.token_wait = Duration::from_millis(500));
    let token = accepted(w.addr, "/v1/events", r#"{"type":"share","user_id":"u1","item_id":"i2"}"#);
    let mut stream = connect(w.addr);
    let request = format!("GET /v1/feeds/home/u1 HTTP/1.1\r\nhost: test\r\nx-overdrive-token: {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("open");
    // Only when its head was read is it under way.
    std::thread::sleep(Duration::from_millis(150));
    w.stop();
    let answer = rest(&mut stream).expect("an answer");
    assert_eq!((answer.status, &answer.json()["stale"]), (200, &json!(true)));
    assert!(std::net::TcpStream::connect(w.addr).is_err(), "nobody listens any more");
}
