//! What ranks, what could, the order that something else does; and what is said of a user and an item together.

use overdrive::model::Role;
use overdrive::model::serving::{Serving, Version};
use overdrive::sinks::Write;
use serde_json::{Value, json};
use std::path::Path;

use super::access::tokens;
use super::client::{get, post, send};
use super::hometown::{card, lives};
use super::world::{CLOCK, World};
use super::{both, conforms, fill, openapi};

fn answered(w: &World, path: &str, target: &str) -> Value {
    let answer = get(w.addr, target);
    assert_eq!(answer.status, 200, "{target}: {}", answer.body);
    conforms(&openapi(), path, "get", "200", &answer.json());
    answer.json()
}

/// A version as `overdrive models publish` leaves it, of any bytes.
pub fn version(folder: &Path, name: &str, at: i64, figures: &Value) -> String {
    let place = folder.join(name);
    std::fs::create_dir_all(&place).expect("there is room");
    let digest = |file: &str| {
        let text = format!("{name} {file}");
        std::fs::write(place.join(file), &text).expect("there is room");
        blake3::hash(text.as_bytes()).to_hex()[..16].to_string()
    };
    let files = json!({"model.onnx": digest("model.onnx"), "model.golden.json": digest("model.golden.json")});
    let about = json!({"model": "lr", "created_ms": at, "files": files, "figures": figures});
    std::fs::write(place.join("version.json"), about.to_string()).expect("there is room");
    files["model.onnx"].as_str().expect("a digest").to_string()
}

pub fn figures() -> Value {
    json!({"examples": {"earlier": 900, "held_out": 100}, "held_out_from_ms": CLOCK,
        "ndcg_10": {"model": 0.5, "blend": 0.25, "ahead": [0.125, 0.375]}, "auc": {"model": 0.75, "blend": null}})
}

#[test]
fn c35_what_ranks_and_what_could_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, new) = (version(folder.path(), "lr-1", 5, &Value::Null), version(folder.path(), "lr-2", 6, &figures()));
    version(folder.path(), "torn", 7, &Value::Null);
    std::fs::write(folder.path().join("torn/model.onnx"), "something else").expect("there is room");
    let mut w = World::set(|config| config.recommend.ranker.registry = folder.path().to_string_lossy().into_owned());
    fill(&mut w);
    let before = answered(&w, "/api/v1/model/status", "/api/v1/model/status");
    let nothing = json!({"serving": "blend", "digest": null, "created_at": null, "served_before": null, "refused_epoch": null,
        "as_of": CLOCK, "epoch": 1});
    assert_eq!(before, nothing);
    assert_eq!(answered(&w, "/api/v1/model/evaluate", "/api/v1/model/evaluate")["figures"], Value::Null);
    let named =
        |name: &str, digest: &str| Version { name: name.into(), digest: u64::from_str_radix(digest, 16).expect("hexadecimal") };
    w.applied.serving = Serving { now: Some(named("lr-2", &new)), before: Some(named("lr-1", &old)), refused: Some(1) };
    w.write(&[]);
    let status = answered(&w, "/api/v1/model/status", "/api/v1/model/status");
    let serves = json!({"serving": "lr-2", "digest": new, "created_at": 6, "served_before": "lr-1", "refused_epoch": 1,
        "as_of": CLOCK, "epoch": 2});
    assert_eq!(status, serves);
    let ml = answered(&w, "/ml/status", "/ml/status");
    assert_eq!((&ml["status"], &ml["model"], &ml["store"]), (&json!("ok"), &serves, &json!("memory")));
    let evaluation = answered(&w, "/api/v1/model/evaluate", "/api/v1/model/evaluate");
    assert_eq!(evaluation, json!({"serving": "lr-2", "figures": figures(), "live": "/v1/experiments"}));
    let models = answered(&w, "/v1/models", "/v1/models");
    let versions = models["versions"].as_array().expect("a list");
    let names: Vec<_> = versions.iter().map(|of| (of["name"].clone(), of["serves"].clone(), of["digest"].clone())).collect();
    assert_eq!(names[..2], [(json!("lr-1"), json!(false), json!(old)), (json!("lr-2"), json!(true), json!(new))]);
    let torn = versions[2]["unusable"].as_str().expect("a reason");
    assert!(torn.contains("is not what was published") && !torn.contains(&*folder.path().to_string_lossy()), "{torn}");
    // Without a folder there are none, and the model of the settings is named by its file.
    let w = World::set(|config| config.recommend.ranker.model = "models/mine.onnx".into());
    let models = answered(&w, "/v1/models", "/v1/models");
    assert_eq!((&models["serving"], &models["versions"]), (&json!("mine"), &json!([])));
}

#[test]
fn c35_an_admin_has_a_version_rank_by_the_order_that_the_command_gives() {
    let folder = tempfile::tempdir().expect("a folder");
    let digest = version(folder.path(), "lr-1", 5, &Value::Null);
    let everybody = [("admin", "\"admin\"", None), ("writer", "\"read\", \"write\"", None)];
    let file = tempfile::NamedTempFile::new().expect("a file for the tokens");
    std::fs::write(file.path(), tokens(&everybody)).expect("written");
    let w = World::set(|config| {
        config.recommend.ranker.registry = folder.path().to_string_lossy().into_owned();
        config.access.tokens = file.path().to_path_buf();
    });
    let promote = |who: &str, name: &str| {
        let asked = [format!("authorization: Bearer od_{who}"), "x-request-id: mine".to_string(), super::JSON.to_string()];
        send(w.addr, "POST", &format!("/v1/models/{name}/promote"), &asked, b"{}")
    };
    assert_eq!(promote("writer", "lr-1").status, 403);
    for unknown in ["lr-9", "..%2Flr-1"] {
        assert_eq!(promote("admin", unknown).refusal(), (404, "unknown_model".to_string()), "{unknown}");
    }
    assert!(w.payloads(Role::Control).is_empty());
    let done = promote("admin", "lr-1");
    assert_eq!(done.status, 202, "{}", done.body);
    conforms(&openapi(), "/v1/models/{name}/promote", "post", "202", &done.json());
    assert_eq!(promote("admin", "blend").status, 202);
    let orders: Vec<Value> = w.payloads(Role::Control).iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
    assert_eq!(orders, [json!({"op": "model", "version": "lr-1", "digest": digest}), json!({"op": "model", "version": "blend"})]);
    let trail = std::fs::read_to_string(w.log_dir().join("access.jsonl")).expect("there is a trail");
    let lines: Vec<Value> = trail.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let line = json!({"at_ms": lines[0]["at_ms"], "event": "promote", "version": "lr-1", "by": "admin", "address": "127.0.0.1",
        "request_id": "mine"});
    assert_eq!((&lines[0], lines.len()), (&line, 2), "who was refused did nothing");
    // Who may have one rank may not have one made where nobody makes any.
    let asked = ["authorization: Bearer od_admin".to_string(), super::JSON.to_string()];
    let train = send(w.addr, "POST", "/v1/models/lr/train", &asked, b"{}");
    assert_eq!(train.refusal(), (409, "no_training".to_string()));
    let train = send(w.addr, "POST", "/v1/models/towers/train", &asked, b"{}");
    assert_eq!(train.refusal(), (404, "unknown_model".to_string()), "what nobody can train is unknown everywhere");
    let w = World::memory(|_| {});
    assert_eq!(post(w.addr, "/v1/models/lr-1/promote", "{}").refusal(), (409, "no_registry".to_string()));
    // What cannot be read now may be there.
    let torn = folder.path().join("torn");
    std::fs::write(&torn, "no folder").expect("there is room");
    let w = World::set(|config| config.recommend.ranker.registry = torn.to_string_lossy().into_owned());
    let away = send(w.addr, "GET", "/v1/models", &[], b"");
    assert_eq!(away.refusal(), (503, "registry_unavailable".to_string()));
    assert!(!away.body.contains(&*torn.to_string_lossy()), "{}", away.body);
    // What a page of any site may send without asking is not enough.
    let simple = send(w.addr, "POST", "/v1/models/lr-1/promote", &["content-type: text/plain".to_string()], b"{}");
    assert_eq!(simple.refusal(), (415, "unsupported_media_type".to_string()));
}

/// `POST /api/v1/train`, `POST /api/v1/retrain`, `POST /ml/train`: "Trigger model training".
#[test]
fn c35_an_admin_has_a_model_trained_and_is_told_how_it_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let everybody = [("admin", "\"admin\"", None), ("writer", "\"read\", \"write\"", None)];
    let file = tempfile::NamedTempFile::new().expect("a file for the tokens");
    std::fs::write(file.path(), tokens(&everybody)).expect("written");
    let w = World::set(|config| {
        config.recommend.ranker.registry = folder.path().to_string_lossy().into_owned();
        config.access.tokens = file.path().to_path_buf();
        config.training.enabled = true;
    });
    let ask = |who: &str, path: &str, body: &[u8]| {
        let asked = [format!("authorization: Bearer od_{who}"), super::JSON.to_string()];
        send(w.addr, "POST", path, &asked, body)
    };
    for path in ["/v1/models/lr/train", "/api/v1/train", "/api/v1/retrain", "/ml/train"] {
        assert_eq!(ask("writer", path, b"{}").status, 403, "{path}");
    }
    assert_eq!(ask("admin", "/v1/models/towers/train", b"{}").refusal(), (404, "unknown_model".to_string()));
    assert_eq!(ask("admin", "/v1/models/lr/train", b"").refusal().0, 400, "it is asked with an object");
    let done = ask("admin", "/v1/models/lr/train", b"{}");
    assert_eq!(done.status, 202, "{}", done.body);
    conforms(&openapi(), "/v1/models/{name}/train", "post", "202", &done.json());
    for alias in ["/api/v1/train", "/api/v1/retrain", "/ml/train"] {
        let done = ask("admin", alias, br#"{"force":true}"#);
        assert_eq!(done.status, 202, "{alias}: {}", done.body);
        conforms(&openapi(), alias, "post", "202", &done.json());
    }
    let orders: Vec<Value> = w.payloads(Role::Control).iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
    let any = json!({"op": "train"});
    assert_eq!(orders, [json!({"op": "train", "model": "lr"}), any.clone(), any.clone(), any]);
    let trail = std::fs::read_to_string(w.log_dir().join("access.jsonl")).expect("there is a trail");
    assert!(trail.lines().count() == 4 && trail.contains(r#""event":"train","version":"lr""#), "{trail}");

    let told = || {
        let answer = send(w.addr, "GET", "/v1/models", &["authorization: Bearer od_writer".to_string()], b"");
        conforms(&openapi(), "/v1/models", "get", "200", &answer.json());
        answer.json()["training"].clone()
    };
    let nothing = json!({"enabled": true, "asked": [], "running": null, "last": null, "next_ms": null, "taken_back": null});
    assert_eq!(told(), nothing);
    let last = json!({"model": "lr", "began_ms": 1, "ended_ms": 2, "version": "lr-1", "figures": figures(), "promoted": true, "why": "better"});
    let running = json!({"model": "lambdarank", "began_ms": 3, "done": 0.5, "what": "tree 7"});
    let status = json!({"asked": ["lr"], "tries": 1, "running": running, "last": last, "began_ms": 3, "next_ms": 9, "promoted": {"version": "lr-1", "since_ms": 2},
        "taken_back": {"version": "lr-0", "why": "behind"}});
    std::fs::write(folder.path().join("training.json"), status.to_string()).expect("written");
    let taken_back = json!({"version": "lr-0", "why": "behind"});
    let whole =
        json!({"enabled": true, "asked": ["lr"], "running": running, "last": last, "next_ms": 9, "taken_back": taken_back});
    assert_eq!(told(), whole);
}

/// "Client Integration": `fetch('/v1/feeds/for-you', {headers: {'x-use-overdrive': '1'}})`.
#[test]
fn c42_for_you_is_the_feed_of_whoever_asks() {
    both(|mut w| {
        fill(&mut w);
        let asked = ["x-use-overdrive: 1".to_string()];
        let answer = send(w.addr, "GET", "/v1/feeds/for-you", &asked, b"");
        conforms(&openapi(), "/v1/feeds/for-you", "get", "200", &answer.json());
        let feed = answer.json();
        assert_eq!(
            (answer.ids(), &feed["user_id"], &feed["fallback"]),
            (vec!["t1".into(), "t2".into(), "t3".into()], &json!(""), &json!(true))
        );
        let mut named = get(w.addr, "/v1/feeds/for-you?user_id=u1&k=2").json();
        let mut home = get(w.addr, "/v1/feeds/home/u1?k=2").json();
        (named["request_id"], home["request_id"]) = (Value::Null, Value::Null);
        assert_eq!(named, home, "over {}", w.name);
        for bad in ["user_id=", "user_id=a&user_id=b", "user_id=u1&k=0"] {
            assert_eq!(get(w.addr, &format!("/v1/feeds/for-you?{bad}")).status, 400, "{bad}");
        }
    });
    let mut w = World::guarded(&tokens(&[("own", "\"read\"", Some("u1"))]), |_| {});
    fill(&mut w);
    let own = |target: &str| send(w.addr, "GET", target, &["authorization: Bearer od_own".to_string()], b"");
    assert_eq!(own("/v1/feeds/for-you").ids(), ["i1", "i2", "i3"], "the token says who");
    assert_eq!(own("/v1/feeds/for-you?user_id=u2").status, 403);
}

#[test]
fn c26_a_user_and_an_item_together() {
    both(|mut w| {
        fill(&mut w);
        let near = lives(&w, "u1", Some((48.0, 11.0)), |of| (of.city, of.language) = (Some("Rome".into()), Some("en".into())));
        let writes = [near, card(&w, "i2", " rome ", "ann"), w.seen("u1", &["i2"]), card(&w, "i9", "", "")];
        w.write(&writes);
        let path = "/api/v1/features/interaction/{user}/{item}";
        let of = |item: &str| answered(&w, path, &format!("/api/v1/features/interaction/u1/{item}"));
        let pair = of("i2");
        assert_eq!((&pair["position"], &pair["seen_at"], &pair["age_ms"]), (&json!(2), &json!(CLOCK), &json!(0)), "{pair}");
        assert_eq!(pair["stale"], json!(false));
        assert_eq!(
            (&pair["same_city"], &pair["same_language"], &pair["distance_km"]),
            (&json!(true), &Value::Null, &Value::Null)
        );
        let alone = json!({"user_id": "u1", "items": ["i2"], "seen": true, "mature": true, "explain": true});
        let ranked = post(w.addr, "/v1/rank", &alone.to_string()).json()["items"][0].clone();
        for name in ["score", "terms", "reason", "source"] {
            assert_eq!(pair[name], ranked[name], "{name} over {}", w.name);
        }
        assert_eq!((&of("i9")["position"], &of("i9")["seen_at"]), (&Value::Null, &Value::Null));
        let unknown = |user: &str, item: &str| get(w.addr, &format!("/api/v1/features/interaction/{user}/{item}")).refusal();
        assert_eq!(unknown("u1", "nothing"), (404, "unknown_item".to_string()));
        assert_eq!(unknown("nobody", "i2"), (404, "unknown_user".to_string()));
    });
}

/// Each pair by itself: others in the request change nothing.
#[test]
fn c42_predictions_are_of_each_pair_alone() {
    both(|mut w| {
        fill(&mut w);
        let cards: Vec<Write> = ["a", "b", "c"].map(|item| card(&w, item, "", "ann")).into();
        w.write(&cards);
        w.write(&[w.gone("g")]);
        let predict = |body: &Value| {
            let answer = post(w.addr, "/ml/predict", &body.to_string());
            assert_eq!(answer.status, 200, "{body}: {}", answer.body);
            conforms(&openapi(), "/ml/predict", "post", "200", &answer.json());
            answer.json()["predictions"].as_array().expect("a list").clone()
        };
        let all = predict(&json!({"user_id": "u1", "post_ids": ["c", "g", "a", "b"]}));
        let names: Vec<_> = all.iter().map(|of| of["post_id"].as_str().expect("an id")).collect();
        assert_eq!(names, ["c", "g", "a", "b"], "as they were sent");
        assert_eq!((&all[1]["score"], &all[1]["hidden"]), (&Value::Null, &json!("withdrawn")));
        assert_eq!([&all[0]["known"], &all[1]["known"]], [&json!(true), &json!(false)], "of `g` the catalogue says nothing");
        for of in [&all[0], &all[2], &all[3]] {
            assert_eq!(&predict(&json!({"user_id": "u1", "post_ids": [of["post_id"]]}))[0], of, "over {}", w.name);
        }
        assert!(all[0]["score"].as_f64().is_some_and(|score| score > 0.0), "{:?}", all[0]);
        let pairs = predict(&json!({"pairs": [{"user_id": "nobody", "post_id": "a"}, {"user_id": "u1", "post_id": "a"}]}));
        assert_eq!((&pairs[0]["fallback"], &pairs[1]), (&json!(true), &all[2]));
        for (body, code) in [
            (json!({"user_id": "u1", "post_ids": []}), "bad_items"),
            (json!({"pairs": []}), "bad_items"),
            (json!({"user_id": "", "post_ids": ["a"]}), "bad_id"),
            (json!({"user_id": "u1"}), "bad_json"),
        ] {
            assert_eq!(post(w.addr, "/ml/predict", &body.to_string()).refusal(), (400, code.to_string()), "{body}");
        }
    });
}

#[test]
fn c26_a_post_is_told_with_its_age_and_its_author() {
    both(|mut w| {
        fill(&mut w);
        let author = w.features(w.keys.author("ann"));
        w.write(&[card(&w, "i1", "Rome", "ann"), author]);
        let post = answered(&w, "/api/v1/features/post/{item}", "/api/v1/features/post/i1");
        let own = get(w.addr, "/v1/items/i1/features").json();
        for (name, value) in own.as_object().expect("an object") {
            assert_eq!(post[name], *value, "{name}");
        }
        assert_eq!((&post["author"], &post["author_popularity"], &post["age_ms"]), (&json!("ann"), &json!(5.0), &json!(0)));
        assert_eq!(get(w.addr, "/api/v1/features/post/none").refusal(), (404, "unknown_item".to_string()));
    });
}
