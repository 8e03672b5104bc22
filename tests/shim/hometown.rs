//! What is near a user, asked for by who they are, and how much there is.

use overdrive::model::changes::Counts;
use overdrive::sinks::Write;
use overdrive::sinks::layout::{self, Fields, Stamp, StoredProfile, proto};
use serde_json::{Value, json};
use std::time::Duration;

use super::client::{get, post, send};
use super::world::{CLOCK, World};
use super::{JSON, both, conforms, openapi};

const PATH: &str = "/v1/scenarios/hometown";
/// "Get Recommendations", and the same asked in other places.
const FIVE: &str = r#"{"user_id": "user_000001", "max_results": 5}"#;
const PARIS: &str = r#"{"user_id": "user_000001"}"#;
const TORONTO: &str = r#"{"user_id": "user_000002"}"#;
const TEN: &str = r#"{"user_id": "user_000001", "max_results": 10}"#;
const THREE: &str = r#"{"user_id": "user_000001", "max_results": 3}"#;
const KM: f64 = 1.0 / 111.194_926_6; // of latitude

fn fields(w: &World, key: String, fields: Fields) -> Write {
    Write::Fields { key, fields, ttl: Duration::from_secs(60), fence: w.fence() }
}

/// Who lives at a latitude and longitude.
pub fn lives(w: &World, user: &str, place: Option<(f64, f64)>, change: impl FnOnce(&mut StoredProfile)) -> Write {
    let mut profile = StoredProfile { as_of: CLOCK, epoch: w.applied.epoch + 1, place, ..StoredProfile::default() };
    change(&mut profile);
    fields(w, w.keys.profile(user), layout::encode_profile(&profile, 1))
}

/// What the catalogue says of an item.
pub fn card(w: &World, item: &str, city: &str, author: &str) -> Write {
    let card =
        proto::Card { item_id: item.into(), city: city.into(), author: author.into(), created_ms: CLOCK, ..Default::default() };
    let value = layout::encode_card(&card, Stamp { epoch: w.applied.epoch + 1, generation: 1, model: 0 });
    Write::Value { key: w.keys.card(item), value, ttl: Duration::from_secs(60), fence: w.fence() }
}

fn streams(w: &World, body: &str) -> Value {
    let answer = post(w.addr, PATH, body);
    assert_eq!(answer.status, 200, "{body}: {}", answer.body);
    conforms(&openapi(), PATH, "post", "200", &answer.json());
    answer.json()["streams"].clone()
}

fn ids(streams: &Value) -> Vec<&str> {
    streams.as_array().expect("a list").iter().map(|stream| stream["stream_id"].as_str().expect("an id")).collect()
}

/// Paris, and what is there; somebody in Toronto.
fn paris() -> (f64, f64) {
    (48.8566, 2.3522)
}

fn world(w: &mut World) {
    let (lat, lon) = paris();
    let near = w.near(&[
        ("stream_000294", lat + 10.0 * KM, lon, 1.0),
        ("stream_000083", lat + 10.0 * KM, lon, 0.5),
        ("far", lat + 300.0 * KM, lon, 0.2),
    ]);
    w.write(&near);
    let writes = [
        lives(w, "user_000001", Some((lat, lon)), |of| of.local_preference = Some(0.5)),
        lives(w, "user_000002", Some((43.65, -79.38)), |_| {}),
        card(w, "stream_000294", "Paris", "ann"),
        card(w, "stream_000083", "Paris", "bob"),
        card(w, "far", "", ""),
        w.trending(None, &["t1", "stream_000294"]),
    ];
    w.write(&writes);
}

/// As the document prints it: who asks is enough, and each stream has its city, its score and how far it is.
#[test]
fn c20_hometown_is_asked_for_by_who_one_is() {
    both(|mut w| {
        world(&mut w);
        let score = |quality: f64, km: f64| 1.5 * 0.5 / (1.0 + km) + quality;
        let given = streams(&w, FIVE);
        assert_eq!(ids(&given), ["stream_000294", "stream_000083", "far"], "over {}", w.name);
        for (at, (city, quality, km)) in
            [(json!("Paris"), 1.0, 10.0), (json!("Paris"), 0.5, 10.0), (Value::Null, 0.2, 300.0)].iter().enumerate()
        {
            let (stream, near) =
                (&given[at], |name: &str, about: f64, by: f64| (given[at][name].as_f64().expect("a number") - about).abs() < by);
            assert_eq!(&stream["city"], city);
            assert!(near("distance_km", *km, 0.02) && near("score", score(*quality, *km), 0.005), "{stream}");
        }
        assert_eq!(streams(&w, PARIS), given);
        assert_eq!(streams(&w, TEN), given);
        assert_eq!(ids(&streams(&w, THREE)).len(), 3);
        assert_eq!(ids(&streams(&w, r#"{"user_id": "user_000001", "max_results": 1}"#)), ["stream_000294"]);
        // Nothing is near Toronto, and of strangers nobody knows where they are: then it is what trends, at no distance.
        for body in [TORONTO, r#"{"user_id": "stranger"}"#] {
            let given = streams(&w, body);
            assert_eq!(ids(&given), ["t1", "stream_000294"], "{body} over {}", w.name);
            assert_eq!(
                (&given[0]["distance_km"], &given[0]["city"], &given[1]["city"]),
                (&Value::Null, &Value::Null, &json!("Paris"))
            );
        }
        let off = [JSON.to_string(), "x-use-overdrive: 0".to_string()];
        assert_eq!(ids(&send(w.addr, "POST", PATH, &off, FIVE.as_bytes()).json()["streams"]), ["t1", "stream_000294"]);
        // What they turned away is not there, and does not cost them others.
        w.write(&[lives(&w, "user_000001", Some(paris()), |of| {
            of.hidden_authors = ["ann".to_string()].into();
            of.hidden_items = ["far".to_string()].into();
        })]);
        assert_eq!(ids(&streams(&w, r#"{"user_id": "user_000001", "max_results": 1}"#)), ["stream_000083"]);
        assert_eq!(ids(&streams(&w, PARIS)), ["stream_000083"]);
        for (body, code) in
            [(r#"{"user_id": ""}"#, "bad_id"), (r#"{"user_id": "u", "max_results": 0}"#, "bad_k"), ("{}", "bad_json")]
        {
            assert_eq!(post(w.addr, PATH, body).refusal(), (400, code.to_string()), "{body}");
        }
    });
}

/// With a token the answer waits for the profile that was just sent.
#[test]
fn c20_who_has_just_moved_is_at_home_where_they_are_now() {
    let mut w = World::memory(|params| params.token_wait = Duration::from_millis(50));
    world(&mut w);
    let token = super::accepted(w.addr, "/v1/users", r#"{"user_id":"new","lat":48.8566,"lon":2.3522}"#);
    w.caught_up(true);
    w.write(&[lives(&w, "new", Some(paris()), |_| {})]);
    let headers = [JSON.to_string(), format!("x-overdrive-token: {token}")];
    let given = send(w.addr, "POST", PATH, &headers, br#"{"user_id":"new"}"#).json();
    assert_eq!(ids(&given["streams"]), ["stream_000294", "stream_000083", "far"]);
}

#[test]
fn c28_hometown_stats_are_the_engines_counts() {
    both(|mut w| {
        let stats = || {
            let answer = get(w.addr, "/v1/scenarios/hometown/stats");
            conforms(&openapi(), "/v1/scenarios/hometown/stats", "get", "200", &answer.json());
            answer
        };
        let algorithm = "Proximity boost B = 1 / (1 + distance_km)";
        let none = json!({"total_streams": 0, "total_users": 0, "cities_covered": 0, "top_cities": {}, "algorithm": algorithm});
        assert_eq!(stats().json(), none, "over {}", w.name);
        let cities = [("Los Angeles", 60), ("New York", 43), ("Tokyo", 42), ("Berlin", 40), ("Seoul", 38), ("Bern", 1)];
        let cities = cities.map(|(city, n)| (city.to_string(), n)).into();
        let counts = Counts { items: 500, users: 1_000, covered: 32, cities };
        let write = fields(&w, w.keys.census(), layout::encode_census(&counts, CLOCK, w.fence()));
        w.write(&[write]);
        let answer = get(w.addr, "/v1/scenarios/hometown/stats");
        let printed = json!({
            "total_streams": 500,
            "total_users": 1000,
            "cities_covered": 32,
            "top_cities": {"Los Angeles": 60, "New York": 43, "Tokyo": 42, "Berlin": 40, "Seoul": 38},
            "algorithm": algorithm,
        });
        assert_eq!(answer.json(), printed, "as it is printed");
        let places =
            ["Los Angeles", "New York", "Tokyo", "Berlin", "Seoul"].map(|city| answer.body.find(city).expect("it is there"));
        assert!(places.is_sorted(), "the most first: {}", answer.body);
    });
}

/// Whom they turned away has all that is nearest: the others are looked for farther away, and at last in what trends.
#[test]
fn c20_what_they_turned_away_takes_nobodys_place() {
    both(|mut w| {
        let (lat, lon) = paris();
        let ids: Vec<String> = (0..40).map(|n| format!("i{n:02}")).collect();
        let places: Vec<_> = ids.iter().enumerate().map(|(n, id)| (id.as_str(), lat + n as f64 * KM, lon, 0.5)).collect();
        let mut writes = w.near(&places);
        let author = |n: usize| if n < 33 { "ann" } else { "bob" };
        writes.extend(ids.iter().enumerate().map(|(n, id)| card(&w, id, "", author(n))));
        let turned = |authors: &[&str]| {
            let authors = authors.iter().map(|author| author.to_string()).collect();
            lives(&w, "u", Some((lat, lon)), |of| of.hidden_authors = authors)
        };
        writes.extend([turned(&["ann"]), w.trending(None, &["t1"]), card(&w, "t1", "", "cid")]);
        w.write(&writes);
        let five = r#"{"user_id": "u", "max_results": 5}"#;
        assert_eq!(self::ids(&streams(&w, five)), ["i33", "i34", "i35", "i36", "i37"], "over {}", w.name);
        assert_eq!(self::ids(&streams(&w, r#"{"user_id": "u"}"#)).len(), 7, "there are no more");
        let turned = lives(&w, "u", Some((lat, lon)), |of| of.hidden_authors = ["ann", "bob"].map(String::from).into());
        w.write(&[turned]);
        assert_eq!(self::ids(&streams(&w, five)), ["t1"], "over {}", w.name);
    });
}

/// A tenth of a kilometre is told, not where somebody lives; what is nearest stands first all the same.
#[test]
fn c20_a_distance_is_told_to_a_tenth_of_a_kilometre() {
    both(|mut w| {
        let (lat, lon) = paris();
        let near = [("far", 0.74), ("b", 0.02), ("a", 0.04)].map(|(id, km)| (id, lat + km * KM, lon, 0.5));
        let mut writes = w.near(&near);
        writes.push(lives(&w, "u", Some((lat, lon)), |_| {}));
        writes.extend(["a", "b", "far"].map(|id| card(&w, id, "", "")));
        w.write(&writes);
        let given = streams(&w, r#"{"user_id": "u"}"#);
        assert_eq!(ids(&given), ["b", "a", "far"], "over {}", w.name);
        let of =
            |at: usize| (given[at]["distance_km"].as_f64().expect("a number"), given[at]["score"].as_f64().expect("a number"));
        assert_eq!([of(0), of(1)], [(0.0, of(0).1); 2], "nothing tells them apart");
        assert_eq!(of(2), (0.7, 1.5 / 1.7 + (of(0).1 - 1.5)));
        let feed = get(w.addr, &format!("/v1/feeds/near/u?lat={lat}&lon={lon}&explain=1")).json();
        let told = |at: usize| (feed["items"][at]["distance_km"].clone(), feed["items"][at]["terms"]["proximity"].clone());
        assert_eq!(
            [told(0), told(1), told(2)],
            [(json!(0.0), json!(1.0)), (json!(0.0), json!(1.0)), (json!(0.7), json!(1.0 / 1.7))]
        );
    });
}

/// Nobody is shown what they may have turned away because it cannot be read, and the answer says why there is none.
#[test]
fn a_profile_that_cannot_be_read_is_said() {
    both(|mut w| {
        world(&mut w);
        let mut broken = lives(&w, "user_000001", Some(paris()), |_| {});
        let Write::Fields { fields, .. } = &mut broken else { panic!("a profile is a hash") };
        fields.iter_mut().filter(|(name, _)| *name == "lat").for_each(|(_, lat)| *lat = "north".into());
        w.write(&[broken]);
        let before = super::store_errors(&w);
        assert_eq!(post(w.addr, PATH, FIVE).refusal(), (503, "store_unavailable".to_string()), "over {}", w.name);
        assert!(super::store_errors(&w) > before, "it is counted");
    });
}

/// The shape has no room for it: a header says that the write is not seen yet.
#[test]
fn hometown_says_in_a_header_that_it_is_stale() {
    let mut w = World::memory(|params| params.token_wait = Duration::from_millis(50));
    world(&mut w);
    let token = super::accepted(w.addr, "/v1/users", r#"{"user_id":"user_000001","lat":48.8566,"lon":2.3522}"#);
    let asked = |w: &World| {
        let headers = [JSON.to_string(), format!("x-overdrive-token: {token}")];
        let answer = send(w.addr, "POST", PATH, &headers, FIVE.as_bytes());
        assert_eq!(ids(&answer.json()["streams"]).len(), 3, "{}", answer.body);
        answer.header("x-overdrive-stale").map(String::from)
    };
    assert_eq!(asked(&w).as_deref(), Some("true"));
    w.caught_up(true);
    w.write(&[]);
    assert_eq!(asked(&w), None);
}

/// While the store is away nobody knows where anybody lives.
#[cfg(feature = "redis")]
#[test]
fn c32_while_redis_is_away_hometown_is_what_trended() {
    let mut w = super::over_redis(|_| {});
    world(&mut w);
    assert_eq!(ids(&streams(&w, FIVE)).len(), 3);
    w.redis.as_mut().expect("over redis").kill();
    let answer = post(w.addr, PATH, FIVE);
    let given = &answer.json()["streams"];
    assert_eq!((ids(given), &given[0]["distance_km"]), (vec!["t1", "stream_000294"], &Value::Null));
    assert_eq!(answer.header("x-overdrive-stale"), Some("true"));
}

/// Candidates by whom the user turned away are left out, and items for adults are shown to who asked for them at sign-up.
#[test]
fn c25_candidates_obey_what_a_profile_says() {
    both(|mut w| {
        super::fill(&mut w);
        let body =
            json!({"user_id": "u1", "items": ["a", "b", {"item_id": "c", "author_id": "ann"}, {"item_id": "m", "mature": true}]});
        let out = |w: &World, mature: Value| {
            let mut body = body.clone();
            body["mature"] = mature;
            post(w.addr, "/v1/rank", &body.to_string()).json()["left_out"].clone()
        };
        let order = |w: &World| out(w, Value::Null);
        let adult = json!([{"item_id": "m", "why": "mature"}]);
        for mature in [Value::Null, json!(true), json!(false)] {
            assert_eq!(out(&w, mature), adult, "no request shows more than the profile: over {}", w.name);
        }
        let profile = lives(&w, "u1", None, |of| {
            of.hidden_authors = ["ann".to_string()].into();
            of.hidden_items = ["b".to_string()].into();
            of.mature = true;
        });
        w.write(&[profile, card(&w, "a", "", "ann")]);
        let hidden = ["a", "b", "c"].map(|item| json!({"item_id": item, "why": "hidden"}));
        assert_eq!((order(&w), out(&w, json!(true))), (json!(hidden), json!(hidden)), "over {}", w.name);
        let all = [hidden.as_slice(), &[adult[0].clone()]].concat();
        assert_eq!(out(&w, json!(false)), json!(all), "a request may want fewer");
    });
}
