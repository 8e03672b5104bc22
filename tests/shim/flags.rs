//! Flags, the header `x-use-overdrive`, and the chain of what stands in: each link, in its order, says what it is.

use overdrive::config::Config;
use overdrive::model::UserId;
use overdrive::scoring::flags::Params as Flags;
use overdrive::sinks::layout::{Segment, SlateValue, Stamp};
use overdrive::sinks::{Sort, Write};
use serde_json::{Value, json};
use std::time::Duration;

use super::client::{Answer, get, post, send};
use super::stub::Stub;
use super::world::{CLOCK, World};
use super::{JSON, fill};

/// What a feed says of itself: its items, what ordered them, whether that is a fallback, and whether it may be old.
fn said(feed: &Value) -> (Vec<String>, String, bool, bool) {
    let ids = feed["items"].as_array().expect("items").iter().map(|item| item["item_id"].as_str().expect("an id").to_string());
    let is = |name: &str| feed[name].as_bool().expect("yes or no");
    (ids.collect(), feed["model"].as_str().expect("a name").to_string(), is("fallback"), is("stale"))
}

fn expected(ids: &[&str], model: &str, fallback: bool) -> (Vec<String>, String, bool, bool) {
    (ids.iter().map(|id| id.to_string()).collect(), model.to_string(), fallback, false)
}

fn using(w: &World, target: &str, value: &str) -> Answer {
    send(w.addr, "GET", target, &[format!("x-use-overdrive: {value}")], b"")
}

/// A slate that a model ordered.
fn by_model(w: &World, user: &str, items: &[&str]) -> Write {
    let mut slate = SlateValue::new(Vec::new(), user, "home", CLOCK);
    for (place, item) in items.iter().enumerate() {
        slate.push(item, 900_000 - place as i32, overdrive::model::Source::Neighbours, &[], &[0; 5]);
    }
    slate.ordered_by("lr-1", "");
    let value = slate.finish(Stamp { epoch: w.applied.epoch + 1, generation: 1, model: 77 });
    Write::Value { key: w.keys.slate("home", None, user), value, ttl: Duration::from_secs(60), fence: w.fence() }
}

/// A user for whom the flag is on, and one for whom it is off, at a share of one half.
fn drawn(on: fn(&Flags, UserId) -> bool) -> (String, String) {
    let flags = Flags { ml_recommendations: 0.5, personalized_feed: 0.5, engagement_ranking: 0.5 };
    let find = |whether: bool| (0..).map(|n| format!("u{n}")).find(|user| on(&flags, UserId::of(user)) == whether);
    (find(true).expect("half of them"), find(false).expect("the other half"))
}

fn over(flags: impl Fn(&mut Flags)) -> World {
    World::set(|config: &mut Config| flags(&mut config.recommend.flags))
}

#[test]
fn c31_with_the_header_off_a_read_gives_what_everybody_gets() {
    super::both(|mut w| {
        fill(&mut w);
        let near = w.near(&[("n1", 48.13, 11.57, 0.5), ("n2", 48.2, 11.6, 0.9)]);
        w.write(&near);
        w.write(&[w.seen("u1", &["t1"]), w.trending_in(Segment::Language("en"), &["e1"])]);
        let home = "/v1/feeds/home/u1?language=en";
        for on in ["1", "true", "on", "True"] {
            assert_eq!(said(&using(&w, home, on).json()), expected(&["i1", "i2", "i3"], "blend", false), "over {}", w.name);
        }
        for off in ["0", "false", "off"] {
            assert_eq!(said(&using(&w, home, off).json()), expected(&["e1", "t1", "t2", "t3"], "trending", true), "{off}");
        }
        for (target, ids, model, fallback) in [
            ("/v1/feeds/category/u1?category=jazz", vec!["t2"], "trending", true),
            ("/v1/feeds/trending/u1", vec!["t1", "t2", "t3"], "trending", false),
            ("/v1/feeds/near/u1?lat=48.137&lon=11.575", vec!["n1", "n2"], "near", false),
        ] {
            assert_eq!(said(&using(&w, target, "0").json()), expected(&ids, model, fallback), "{target} over {}", w.name);
        }
        for refused in ["yes", "", "2", "on,off"] {
            let answer = using(&w, home, refused);
            assert_eq!(answer.refusal(), (400, "bad_use_overdrive".to_string()), "{refused:?}");
        }
        let twice = ["x-use-overdrive: 1".to_string(), "x-use-overdrive: 0".to_string()];
        assert_eq!(send(w.addr, "GET", home, &twice, b"").status, 400);
        let headers = [JSON.to_string(), "x-use-overdrive: off".to_string()];
        let many = send(w.addr, "POST", "/v1/feeds/home", &headers, br#"{"user_ids":["u1","u2"]}"#).json();
        assert_eq!(said(&many["feeds"][0]), expected(&["t1", "t2", "t3"], "trending", true));
        let alias = send(w.addr, "POST", "/recommend", &headers, br#"{"user_id":"u1"}"#).json();
        assert_eq!(said(&alias), expected(&["t1", "t2", "t3"], "trending", true));
    });
}

/// Candidates stay as they were sent, but for what nobody is to be shown.
#[test]
fn c31_without_an_order_of_their_own_candidates_stay_as_they_were_sent() {
    let body = r#"{"user_id":"u1","items":["x","i3","g",{"item_id":"m","mature":true},"i1"],"k":2}"#;
    let headers = [JSON.to_string(), "x-use-overdrive: 0".to_string()];
    super::both(|mut w| {
        fill(&mut w);
        w.write(&[w.gone("g"), w.seen("u1", &["x"])]);
        let answer = send(w.addr, "POST", "/v1/rank", &headers, body.as_bytes()).json();
        super::conforms(&super::openapi(), "/v1/rank", "post", "200", &answer);
        assert_eq!(said(&answer), expected(&["x", "i3"], "caller", true), "over {}", w.name);
        let out = json!([{"item_id": "g", "why": "withdrawn"}, {"item_id": "m", "why": "mature"}]);
        assert_eq!(answer["left_out"], out);
    });
    let mut w = over(|flags| flags.personalized_feed = 0.0);
    fill(&mut w);
    assert_eq!(said(&post(w.addr, "/v1/rank", body).json()), expected(&["x", "i3"], "caller", true));
}

#[test]
fn c31_flags_are_obeyed_for_whom_they_are_off() {
    // Nothing of their own: what trends in the segment they name, or anywhere, but for what they have seen.
    let (on, off) = drawn(|flags, user| flags.of(user).personal);
    let mut w = over(|flags| flags.personalized_feed = 0.5);
    fill(&mut w);
    let writes = [&on, &off].map(|user| [w.slate(user, &["i1", "i2"]), w.seen(user, &["t1"])]);
    w.write(writes.as_flattened());
    w.write(&[w.trending_in(Segment::Language("en"), &["e1"])]);
    let feed = |user: &str, rest: &str| said(&get(w.addr, &format!("/v1/feeds/home/{user}{rest}")).json());
    assert_eq!(feed(&on, ""), expected(&["i1", "i2"], "blend", false));
    assert_eq!(feed(&off, ""), expected(&["t2", "t3"], "trending", true));
    assert_eq!(feed(&off, "?language=en"), expected(&["e1", "t2", "t3"], "trending", true));
    let many = post(w.addr, "/v1/feeds/home", &json!({"user_ids": [off, on]}).to_string()).json();
    assert_eq!([said(&many["feeds"][0]).1, said(&many["feeds"][1]).1], ["trending", "blend"]);

    // No model: its slate is not served; the engine makes another at the next refresh.
    let (on, off) = drawn(Flags::ml);
    let mut w = over(|flags| flags.ml_recommendations = 0.5);
    fill(&mut w);
    let writes = [&on, &off].map(|user| by_model(&w, user, &["i1"]));
    w.write(&writes);
    let feed = |w: &World, user: &str| said(&get(w.addr, &format!("/v1/feeds/home/{user}")).json());
    assert_eq!(feed(&w, &on), expected(&["i1"], "lr-1", false));
    assert_eq!(feed(&w, &off), expected(&["t1", "t2", "t3"], "trending", true));
    w.write(&[w.slate(&off, &["i9"])]);
    assert_eq!(feed(&w, &off), expected(&["i9"], "blend", false));

    // Nothing that others take, unless there is nothing else.
    let mut w = over(|flags| flags.engagement_ranking = 0.0);
    fill(&mut w);
    assert_eq!(feed(&w, "u2"), expected(&["t1", "t2", "t3"], "trending", true), "better than nothing");
    let mut w = over(|flags| flags.engagement_ranking = 0.0);
    fill(&mut w);
    w.write(&[w.fresh(&["n1", "n2"]), w.trending_in(Segment::Language("en"), &["e1"])]);
    assert_eq!(feed(&w, "u1"), expected(&["i1", "i2", "i3"], "blend", false), "a slate is their own");
    for target in ["home/u2", "home/u2?language=en", "trending/u2", "category/u2?category=jazz"] {
        assert_eq!(said(&get(w.addr, &format!("/v1/feeds/{target}")).json()), expected(&["n1", "n2"], "fresh", true), "{target}");
    }
}

#[test]
fn c31_over_grpc_the_header_is_metadata() {
    let mut w = World::memory(|params| params.grpc = true);
    fill(&mut w);
    let stub = Stub::new(w.grpc.expect("asked for"));
    let feed =
        |value: &str| stub.call_with("overdrive.v1.Recommender/GetFeed", json!({"user_id": "u1"}), &[("x-use-overdrive", value)]);
    assert_eq!((&feed("0").json()["model"], &feed("0").json()["fallback"]), (&json!("trending"), &json!(true)));
    assert_eq!(feed("on").json()["model"], "blend");
    let refused = feed("maybe");
    assert_eq!((refused.code, refused.said("x-overdrive-code")), (tonic::Code::InvalidArgument, Some("bad_use_overdrive")));
}

/// The chain of a home feed: each link is what is served when all before it are taken away.
#[test]
fn c32_each_link_of_the_chain_stands_in_for_those_before_it() {
    super::both(|mut w| {
        let feed = |w: &World| said(&get(w.addr, "/v1/feeds/home/u1?language=en").json());
        let wait = |w: &World, expected: &(Vec<String>, String, bool, bool)| {
            // What all share is at most a second old.
            let fits = |_| {
                feed(w) == *expected || {
                    std::thread::sleep(Duration::from_millis(100));
                    false
                }
            };
            assert!((0..100).any(fits), "{:?} and not {expected:?} over {}", feed(w), w.name);
        };
        fill(&mut w);
        w.write(&[w.trending_in(Segment::Language("en"), &["e1"]), w.fresh(&["n1"]), popular(&w, &["p1"])]);
        w.write(&[by_model(&w, "u1", &["i1"])]);
        assert_eq!(feed(&w), expected(&["i1"], "lr-1", false), "a model");
        w.write(&[w.slate("u1", &["i2"])]);
        assert_eq!(feed(&w), expected(&["i2"], "blend", false), "the blend");
        let gone = Write::Delete {
            key: w.keys.slate("home", None, "u1"),
            sort: Sort::Value,
            ttl: Duration::from_secs(60),
            fence: w.fence(),
        };
        w.write(&[gone]);
        wait(&w, &expected(&["e1", "t1", "t2", "t3"], "trending", true));
        w.write(&[w.trending_in(Segment::Language("en"), &[])]);
        wait(&w, &expected(&["t1", "t2", "t3"], "trending", true));
        w.write(&[w.trending(None, &[])]);
        wait(&w, &expected(&["p1"], "popular", true));
        w.write(&[popular(&w, &[])]);
        wait(&w, &expected(&["n1"], "fresh", true));
        w.write(&[w.seen("u1", &["n1"])]);
        wait(&w, &expected(&["n1"], "fresh", true));
    });
}

fn popular(w: &World, items: &[&str]) -> Write {
    let members = items.iter().map(|item| (item.to_string(), 5.0)).collect();
    Write::Ranked { key: w.keys.popular(), members, ttl: Duration::from_secs(60), fence: w.fence() }
}

/// Candidates are answered without a store: as they were sent, but for what is known not to be shown; no request waits for the others.
#[cfg(feature = "redis")]
#[test]
fn c32_while_redis_is_away_candidates_stay_as_they_were_sent() {
    let mut w = super::over_redis(|_| {});
    fill(&mut w);
    w.write(&[w.seen("u1", &["s"]), w.gone("g")]);
    let body = r#"{"user_id":"u1","items":["b","s","g","a"]}"#;
    assert_eq!(get(w.addr, "/v1/feeds/home/u1").status, 200);
    let live = post(w.addr, "/v1/rank", body).json();
    assert_eq!((&live["model"], &live["stale"]), (&json!("blend"), &json!(false)));
    w.redis.as_mut().expect("over redis").kill();
    let addr = w.addr;
    let crowd: Vec<_> = (0..8).map(|_| std::thread::spawn(move || post(addr, "/v1/rank", body))).collect();
    for answer in crowd.into_iter().map(|asked| asked.join().expect("no panic")) {
        assert_eq!(answer.status, 200, "{}", answer.body);
        let order = answer.json();
        super::conforms(&super::openapi(), "/v1/rank", "post", "200", &order);
        assert_eq!(said(&order), (vec!["b".into(), "a".into()], "caller".to_string(), true, true));
        assert_eq!(order["left_out"], json!([{"item_id": "s", "why": "seen"}, {"item_id": "g", "why": "withdrawn"}]));
    }
    let alias = post(w.addr, "/rank/for-you", r#"{"user_id":"u9","candidate_items":[{"id":"b"},{"id":"a"}]}"#);
    assert_eq!(said(&alias.json()), (vec!["b".into(), "a".into()], "caller".to_string(), true, true));
    assert_eq!(post(w.addr, "/v1/rank", r#"{"user_id":"u1","items":[]}"#).status, 400, "what is wrong stays wrong");
}

/// With the header off the memory of what a user had is neither read nor lost.
#[cfg(feature = "redis")]
#[test]
fn c32_what_everybody_gets_is_remembered_too() {
    let mut w = super::over_redis(|_| {});
    fill(&mut w);
    let home = "/v1/feeds/home/u1";
    assert_eq!(said(&get(w.addr, home).json()), expected(&["i1", "i2", "i3"], "blend", false));
    assert_eq!(said(&using(&w, home, "0").json()), expected(&["t1", "t2", "t3"], "trending", true));
    w.redis.as_mut().expect("over redis").kill();
    let (own, all) = (said(&get(w.addr, home).json()), said(&using(&w, home, "0").json()));
    assert_eq!((own.1.as_str(), own.3), ("blend", true));
    assert_eq!((all.1.as_str(), all.0.len(), all.3), ("trending", 3, true));
}
