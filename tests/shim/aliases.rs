//! What clients of other systems send, letter by letter as their documents print it, and what they must get.

use overdrive::model::Role;
use serde_json::{Value, json};

use super::client::{accepted, get, post, send};
use super::world::World;
use super::{both, conforms, fill, openapi};

/// "Test the System": recommendations.
const RECOMMEND: &str = r#"{
        "user_id": "user_123",
        "num_recommendations": 10
      }"#;

/// "Test the System": feedback.
const FEEDBACK: &str = r#"{
        "user_id": "user_123",
        "item_id": "item_456",
        "event_type": "click"
      }"#;

/// "Real-Time Signal Processing"; it is printed with `{...}` where a client puts what it likes, which is no JSON.
const SIGNAL: &str = r#"{
  "user_id": "user123",
  "signal_type": "view",
  "content_id": "content1",
  "duration": 30.5,
  "intensity": 1.0,
  "metadata": {
    "scroll_position": 100,
    "device_info": {...}
  }
}"#;

/// "Home Feed Recommendation".
const HOME_FEED: &str = r#"{
  "user_id": "user_123",
  "ctx_timestamp": 1640995200,
  "ctx_device": "mobile",
  "ctx_locale": "en-US"
}"#;

/// "Ranking Request".
const RANK: &str = r#"{
  "user_id": "user123",
  "candidate_items": [
    {
      "id": "note1",
      "content": "Check out this amazing content!",
      "hashtags": ["gaming", "fun"],
      "media_types": ["image"],
      "engagement_rate": 0.12,
      "quality_score": 0.8
    }
  ],
  "limit": 20
}"#;

/// "Test ranking"; it is printed with `[...]` where a client puts its items, which is no JSON.
const RANK_TEST: &str = r#"{
    "user_id": "test_user",
    "candidate_items": [...],
    "limit": 20
  }"#;

/// "Enhanced Ranking"; it is printed with `{...}` where a client puts what it likes, which is no JSON.
const RANK_ENHANCED: &str = r#"{
  "user_id": "user123",
  "candidate_items": [
    {
      "id": "content1",
      "text": "Sample content",
      "type": "text",
      "metadata": {...}
    }
  ],
  "limit": 20
}"#;

fn answered(addr: std::net::SocketAddr, path: &str, status: u16, body: &str) -> Value {
    let answer = post(addr, path, body);
    assert_eq!(answer.status, status, "{path}: {}", answer.body);
    conforms(&openapi(), path, "post", &status.to_string(), &answer.json());
    answer.json()
}

#[test]
fn recommendations_are_the_home_feed() {
    both(|mut w| {
        fill(&mut w);
        let items: Vec<String> = (0..12).map(|i| format!("i{i}")).collect();
        w.write(&[w.slate("user_123", &items.iter().map(String::as_str).collect::<Vec<_>>())]);
        let mut given = answered(w.addr, "/recommend", 200, RECOMMEND);
        for other in ["/api/v1/recommend", "/ml/recommend"] {
            assert_eq!(answered(w.addr, other, 200, RECOMMEND)["items"], given["items"], "{other}");
        }
        let mut own = get(w.addr, "/v1/feeds/home/user_123?k=10").json();
        assert_eq!(given["items"].as_array().map(Vec::len), Some(10));
        assert!(given["request_id"].take().is_string() && own["request_id"].take().is_string());
        assert_eq!(given, own, "over {}", w.name);
        for (body, code) in [
            (r#"{"user_id":"u","num_recommendations":0}"#, "bad_k"),
            (r#"{"num_recommendations":1}"#, "bad_json"),
            (r#"{"user_id":"a\u0000b"}"#, "bad_id"),
        ] {
            assert_eq!(post(w.addr, "/recommend", body).refusal(), (400, code.to_string()), "{body}");
        }
    });
}

/// The documents show no answer: it is that of /v1/rank, which takes the same candidates by our names.
#[test]
fn candidates_are_put_in_order_under_every_name() {
    both(|mut w| {
        fill(&mut w);
        for (path, sent, id) in [
            ("/rank/for-you", RANK.to_string(), "note1"),
            ("/rank/for-you", RANK_TEST.replace("[...]", r#"[{"id": "note1"}]"#), "note1"),
            ("/rank/for-you/enhanced", RANK_ENHANCED.replace("{...}", r#"{"any": 1}"#), "content1"),
            ("/api/v1/rank", RANK.to_string(), "note1"),
        ] {
            let given = answered(w.addr, path, 200, &sent);
            assert_eq!((&given["items"][0]["item_id"], &given["fallback"]), (&json!(id), &json!(true)), "{path} over {}", w.name);
        }
        let theirs = json!({"user_id": "u1", "candidate_items": [{"id": "a"}, {"id": "b", "hashtags": ["live"]}], "limit": 1});
        let ours = json!({"user_id": "u1", "items": ["a", {"item_id": "b", "tags": ["live"]}], "k": 1});
        let mut given = answered(w.addr, "/rank/for-you", 200, &theirs.to_string());
        let mut own = answered(w.addr, "/v1/rank", 200, &ours.to_string());
        assert!(given["request_id"].take().is_string() && own["request_id"].take().is_string());
        assert_eq!(given, own);
        let none = post(w.addr, "/rank/for-you", r#"{"user_id":"u1","candidate_items":[]}"#);
        assert_eq!(none.refusal(), (400, "bad_items".to_string()));
    });
}

/// Shown as the document shows it: request_id and streams, each with stream_id, score and reason.
#[test]
fn the_home_scenario_is_a_list_of_streams() {
    both(|mut w| {
        w.write(&[w.slate("user_123", &["stream_789", "stream_790"])]);
        let asked = ["content-type: application/json".to_string(), "x-request-id: req_456".to_string()];
        let answer = send(w.addr, "POST", "/v1/scenarios/home_feed", &asked, HOME_FEED.as_bytes()).json();
        conforms(&openapi(), "/v1/scenarios/home_feed", "post", "200", &answer);
        let stream = |id: &str, score: f64| json!({"stream_id": id, "score": score, "reason": "because you shared i0"});
        let streams = json!([stream("stream_789", 0.9), stream("stream_790", 0.899999)]);
        assert_eq!(answer, json!({"request_id": "req_456", "streams": streams}), "over {}", w.name);
    });
}

/// "Category Feed Recommendation".
const CATEGORY_FEED: &str = r#"{
  "user_id": "user_123",
  "category_id": "gaming",
  "ctx_timestamp": 1640995200,
  "ctx_device": "desktop"
}"#;

#[test]
fn the_category_scenario_is_the_feed_of_a_category() {
    both(|mut w| {
        w.write(&[w.slate("user_123", &["stream_789"]), w.trending(Some("gaming"), &["stream_791"])]);
        let path = "/v1/scenarios/category_feed";
        let mut answer = answered(w.addr, path, 200, CATEGORY_FEED);
        assert!(answer["request_id"].take().is_string());
        let stream = |id: &str, score: f64, reason: &str| json!({"stream_id": id, "score": score, "reason": reason});
        let expected = json!([stream("stream_791", 10.0, "popular in gaming now")]);
        assert_eq!(answer["streams"], expected, "over {}", w.name);
        let jazz = answered(w.addr, path, 200, &CATEGORY_FEED.replace("gaming", "jazz"));
        assert_eq!(jazz["streams"], json!([stream("stream_789", 0.9, "because you shared i0")]), "over {}", w.name);
        // Streams have categories with numbers; to JSON 7 and 7.0 are one.
        w.write(&[w.trending(Some("7"), &["stream_7"])]);
        for number in ["7", "7.0", "\"7\""] {
            let answer = answered(w.addr, path, 200, &CATEGORY_FEED.replace("\"gaming\"", number));
            assert_eq!(answer["streams"][0]["stream_id"], "stream_7", "{number} over {}", w.name);
        }
        for body in [
            r#"{"user_id":"u"}"#,
            r#"{"user_id":"u","category_id":""}"#,
            r#"{"user_id":"u","category_id":7.5}"#,
            r#"{"user_id":"u","category_id":-1}"#,
        ] {
            let refused = post(w.addr, path, body);
            assert_eq!(refused.refusal(), (400, "bad_category".to_string()), "{body}");
            assert!(refused.body.contains("category_id"), "{}", refused.body);
        }
        // Elsewhere it is one of the things that are not used.
        for other in ["/recommend", "/v1/scenarios/home_feed"] {
            for category in [r#""""#, "5"] {
                let body = format!(r#"{{"user_id":"u","category_id":{category}}}"#);
                assert_eq!(post(w.addr, other, &body).status, 200, "{other} {body}");
            }
        }
    });
}

/// A read by another name waits for a write, too, or says so.
#[test]
fn c02_an_alias_takes_the_token_of_a_write() {
    let mut w = World::memory(|params| params.token_wait = std::time::Duration::from_millis(50));
    fill(&mut w);
    let token = accepted(w.addr, "/feedback", FEEDBACK);
    let read = |w: &World, token: &str| {
        let headers = ["content-type: application/json".to_string(), format!("x-overdrive-token: {token}")];
        send(w.addr, "POST", "/recommend", &headers, RECOMMEND.as_bytes())
    };
    assert_eq!(read(&w, &token).json()["stale"], true);
    let headers = ["content-type: application/json".to_string(), format!("x-overdrive-token: {token}")];
    let home = |w: &World| send(w.addr, "POST", "/v1/scenarios/home_feed", &headers, HOME_FEED.as_bytes());
    assert_eq!(home(&w).header("x-overdrive-stale"), Some("true"), "its shape has no room for it");
    assert_eq!(read(&w, "x").refusal(), (400, "bad_token".to_string()));
    w.caught_up(true);
    w.write(&[w.slate("user_123", &["new"])]);
    assert_eq!((read(&w, &token).ids(), &read(&w, &token).json()["stale"]), (vec!["new".to_string()], &json!(false)));
    assert_eq!(home(&w).header("x-overdrive-stale"), None);
}

#[test]
fn feedback_and_signals_are_events() {
    let w = World::memory(|_| {});
    let signal = SIGNAL.replace("{...}", "{}");
    for (path, body) in [("/feedback", FEEDBACK), ("/signals/process", signal.as_str())] {
        let receipt = answered(w.addr, path, 202, body);
        assert_eq!((&receipt["accepted"], &receipt["rejected"]), (&json!(1), &json!([])), "{path}");
    }
    let mut logged = w.payloads(Role::Events);
    logged.sort();
    let mut sent = [FEEDBACK.to_string(), signal];
    sent.sort();
    assert_eq!(logged, sent, "as they were sent");
    let keys: Vec<_> = w.logged().into_iter().map(|record| record.key.expect("a key")).collect();
    assert!(keys.iter().any(|key| &key[..] == b"user_123") && keys.iter().any(|key| &key[..] == b"user123"));
}

#[test]
fn what_is_read_by_another_name_is_the_same() {
    both(|mut w| {
        fill(&mut w);
        w.write(&[w.seen("u1", &["i7"])]);
        for (alias, own) in [
            ("/features/u1", "/v1/users/u1/features"),
            ("/interests/u1", "/v1/users/u1/interests"),
            ("/insights/u1", "/v1/users/u1/insights"),
            ("/analytics/user/u1", "/v1/users/u1/activity"),
            ("/analytics/user/u1/realtime", "/v1/users/u1/insights"),
            ("/api/v1/features/user/u1", "/v1/users/u1/features"),
            ("/api/v1/health", "/health"),
            ("/ab/status", "/v1/experiments"),
        ] {
            let (given, expected) = (get(w.addr, alias), get(w.addr, own));
            assert_eq!((given.status, given.json()), (200, expected.json()), "{alias} over {}", w.name);
        }
        let stats = get(w.addr, "/performance/system").json();
        conforms(&openapi(), "/performance/system", "get", "200", &stats);
        assert_eq!(get(w.addr, "/features/nobody").refusal(), (404, "unknown_user".to_string()));
    });
}
