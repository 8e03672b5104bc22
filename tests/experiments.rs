//! Experiments in a real process, from the settings to the shim: users are ranked for as their arm says and told so, what they do is
//! counted, taken back and forgotten, and a process that is killed goes on from there.
//!
//! What it cannot catch: sums that are wrong in an order of events that it does not send; `tests/laws.rs` holds them against a recount.

#![cfg(feature = "onnx")]

#[path = "shim/client.rs"]
#[allow(dead_code, reason = "this binary uses a part of it")]
mod client;
#[path = "support/onnx.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod onnx;
#[path = "support/running.rs"]
mod running;
mod support;

use client::{get, get_with, send};
use overdrive::config::Config;
use overdrive::model::UserId;
use overdrive::registry::{Onnx, Registry};
use overdrive::scoring::experiments::Params;
use running::Running;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{PATIENCE, until};

const USERS: usize = 160;

/// Two thirds of the users are in an experiment: half of them ranked for by the blend, half by a version that likes what is young.
const SETTINGS: &str = "
[learn]
enabled = true
[recovery]
snapshot_every = '1s'
[[experiments.list]]
name = 'youth'
rollout = 0.66
arms = [{ name = 'control', weight = 1, ranks = 'blend' }, { name = 'young', weight = 1, ranks = 'young-1' }]
";

/// By the settings in the folder, with the versions that lie there.
fn start(dir: &Path) -> Running {
    Running::start(dir, &[("OVERDRIVE_RANKER__REGISTRY", "registry")])
}

/// Sends what users say of themselves, and waits until the engine knows it: what they do from then on they do as such.
fn say(run: &Running, profiles: &[Value]) {
    let token = run.send("/v1/users", profiles);
    let user = profiles[0]["user_id"].as_str().expect("an id");
    let read = || get_with(run.shim, &format!("/v1/feeds/home/{user}"), &token).json();
    until("the profiles are known", || (read()["stale"] == json!(false)).then_some(()));
    std::thread::sleep(Duration::from_millis(2)); // what has the time of the last of them was done before
}

/// The experiment, once its arms have so many (users, impressions, clicks, seconds).
fn stands(run: &Running, name: &str, expected: &BTreeMap<String, [u64; 4]>) -> Value {
    let mut last = Value::Null;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let answer = get(run.shim, &format!("/v1/experiments/{name}"));
        if answer.status == 200 {
            last = answer.json();
            if arms(&last) == *expected {
                return last;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("expected {expected:?}, found {last:#}");
}

fn arms(experiment: &Value) -> BTreeMap<String, [u64; 4]> {
    let arm = |arm: &Value| {
        let number = |field: &str| arm[field].as_f64().expect("a number") as u64;
        let name = arm["name"].as_str().expect("a name").to_string();
        (name, ["users", "impressions", "clicks", "dwell_seconds"].map(number))
    };
    experiment["arms"].as_array().expect("a list").iter().map(arm).collect()
}

/// The settings, and the version they name.
fn prepared(dir: &Path, settings: &str) -> Params {
    std::fs::write(dir.join("settings.toml"), settings).expect("there is room");
    let model = onnx::write(dir, "young", &onnx::linear(&["age"], &[-1.0]), &[vec![2.0]], &[-2.0]);
    let version = Registry::new(dir.join("registry")).publish(&model, None, 1, &Onnx::on_cpu()).expect("it is good");
    assert_eq!(version, "young-1");
    let registry = ("OVERDRIVE_RANKER__REGISTRY".to_string(), "registry".to_string());
    let config = Config::load(Some(&dir.join("settings.toml")), [registry].into_iter()).expect("the settings are allowed");
    config.recommend.experiments
}

/// The arm of each user: what the process must come to by itself.
fn arm_of(experiments: &Params, user: &str) -> Option<String> {
    experiments.place(UserId::of(user), None).map(|place| experiments.arm(place).name.clone())
}

/// What a user does: sees ten items, clicks on a few, more of them in the arm `young`, and spends three seconds on each of these.
fn acts(user: &str, n: usize, arm: Option<&str>) -> Vec<Value> {
    let clicks = if arm == Some("young") { 4 } else { 1 } + n % 2;
    let event = |kind: &str, item: usize| json!({"type": kind, "user_id": user, "item_id": format!("i{item}")});
    let seen = (0..10).map(|item| event("impression", item));
    let taken = (0..clicks).flat_map(|item| {
        let mut dwell = event("dwell", item);
        dwell["value"] = json!(3);
        [event("click", item), dwell]
    });
    seen.chain(taken).collect()
}

/// Sums over users of what [`acts`] sends.
fn expected<'a>(experiments: &Params, users: impl Iterator<Item = (usize, &'a String)>) -> BTreeMap<String, [u64; 4]> {
    let mut sums: BTreeMap<String, [u64; 4]> = [("control".into(), [0; 4]), ("young".into(), [0; 4])].into();
    for (n, user) in users {
        let Some(arm) = arm_of(experiments, user) else { continue };
        let of = acts(user, n, Some(&arm));
        let count = |kind: &str| of.iter().filter(|event| event["type"] == kind).count() as u64;
        let own = [1, count("impression"), count("click"), 3 * count("dwell")];
        sums.entry(arm).or_default().iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
    }
    sums
}

#[test]
fn an_experiment_ranks_counts_forgets_and_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let experiments = prepared(dir.path(), SETTINGS);
    let users: Vec<String> = (0..USERS).map(|n| format!("u{n}")).collect();
    let run = start(dir.path());
    let items: Vec<Value> = (0..30).map(|n| json!({"item_id": format!("i{n}"), "categories": [format!("c{}", n % 3)]})).collect();
    run.send("/v1/items", &items);
    let all = |(n, user): (usize, &String)| acts(user, n, arm_of(&experiments, user).as_deref());
    run.send("/v1/events", &users.iter().enumerate().flat_map(all).collect::<Vec<_>>());

    let sums = expected(&experiments, users.iter().enumerate());
    assert!(sums.values().all(|arm| arm[0] > 30) && sums.values().map(|arm| arm[0]).sum::<u64>() < 130, "{sums:?}");
    let told = stands(&run, "youth", &sums);
    let (control, young) = (&told["arms"][0], &told["arms"][1]);
    assert_eq!((&control["ranks"], &young["ranks"]), (&json!("blend"), &json!("young-1")));
    assert_eq!((&control["verdict"], &young["verdict"]), (&Value::Null, &json!("ahead")), "{told:#}");
    assert_eq!(young["ctr"]["value"].as_f64(), Some(sums["young"][2] as f64 / sums["young"][1] as f64));
    let [low, high] = [0, 1].map(|end| young["ctr"]["difference"]["interval"][end].as_f64().expect("a number"));
    assert!(low > 0.2 && high < 0.4 && low < high, "three clicks more of ten: {low} {high}");
    assert_eq!(told["rollout"], json!(0.66));

    // whoever acted was refreshed under their arm
    for user in &users {
        // the first slates were empty: nothing was known of any item
        let feed = until("a slate of their own", || {
            let feed = get(run.shim, &format!("/v1/feeds/home/{user}")).json();
            (feed["fallback"] == json!(false)).then_some(feed)
        });
        let arm = arm_of(&experiments, user);
        let named = arm.as_deref().map_or(("", ""), |arm| ("youth", arm));
        assert_eq!((feed["experiment"].as_str(), feed["variant"].as_str()), (Some(named.0), Some(named.1)), "{user}: {feed}");
        let model = if arm.as_deref() == Some("young") { "young-1" } else { "blend" };
        assert_eq!(feed["model"], json!(model), "{user}");
    }

    // what is taken back is not counted: a click of one user, everything of another
    let member = |n: &usize| arm_of(&experiments, &users[*n]).as_deref() == Some("young");
    let mut members = (0..USERS).filter(member);
    let (undoes, leaves) = (members.next().expect("some"), members.next().expect("some"));
    let undo = json!({"type": "click", "user_id": users[undoes], "item_id": "i0", "op": "undo"});
    run.send("/v1/events", &[undo]);
    assert_eq!(send(run.shim, "DELETE", &format!("/v1/users/{}", users[leaves]), &[], b"").status, 202);
    let mut sums = expected(&experiments, users.iter().enumerate().filter(|(n, _)| *n != leaves));
    sums.get_mut("young").expect("an arm")[2] -= 1;
    let told = stands(&run, "youth", &sums);

    // a process that is killed counts on
    run.kill(dir.path());
    let run = start(dir.path());
    let late = json!({"type": "click", "user_id": users[undoes], "item_id": "i9"});
    run.send("/v1/events", &[late]);
    sums.get_mut("young").expect("an arm")[2] += 1;
    let again = stands(&run, "youth", &sums);
    assert_eq!(again["began"], told["began"]);
}

/// One experiment for who speaks German and likes jazz, the next for everybody.
const COHORTS: &str = "
[learn]
enabled = true
[recovery]
snapshot_every = '1s'
[[experiments.list]]
name = 'german'
rollout = 1.0
cohort = { languages = ['de'], interests = ['jazz'] }
arms = [{ name = 'control', weight = 1, ranks = 'blend' }, { name = 'young', weight = 1, ranks = 'young-1' }]
[[experiments.list]]
name = 'rest'
rollout = 1.0
arms = [{ name = 'control', weight = 1, ranks = 'blend' }, { name = 'young', weight = 1, ranks = 'young-1' }]
";

/// The arm that an experiment draws a user into who belongs to it.
fn arm_in(experiments: &Params, name: &str, user: &str) -> String {
    let at = experiments.list.iter().position(|of| of.name == name).expect("it is in the settings");
    experiments.arm(experiments.drawn_by(at, UserId::of(user)).expect("everybody is drawn")).name.clone()
}

/// One impression and one click each, by experiment.
fn one_each<'a>(experiments: &Params, name: &str, users: impl Iterator<Item = &'a String>) -> BTreeMap<String, [u64; 4]> {
    let mut sums: BTreeMap<String, [u64; 4]> = [("control".into(), [0; 4]), ("young".into(), [0; 4])].into();
    for user in users {
        let arm = sums.entry(arm_in(experiments, name, user)).or_default();
        arm.iter_mut().zip([1, 1, 1, 0]).for_each(|(sum, one)| *sum += one);
    }
    sums
}

#[test]
fn c29_an_experiment_is_for_its_cohort_and_keeps_what_they_did_in_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let experiments = prepared(dir.path(), COHORTS);
    let (germans, others): (Vec<String>, Vec<String>) =
        (0..40).map(|n| format!("u{n}")).partition(|user| user.ends_with(['1', '3', '5']));
    let run = start(dir.path());
    let items: Vec<Value> = (0..30).map(|n| json!({"item_id": format!("i{n}"), "categories": [format!("c{}", n % 3)]})).collect();
    run.send("/v1/items", &items);
    let german = |user: &String| json!({"user_id": user, "language": "de", "interests": ["jazz", "rock"]});
    let lacks = |(n, user): (usize, &String)| match n % 3 {
        0 => json!({"user_id": user, "language": "de", "interests": ["rock"]}),
        _ => json!({"user_id": user, "language": "en", "interests": ["jazz"]}),
    };
    let english = others.iter().enumerate().filter(|(n, _)| n % 3 < 2).map(lacks); // some say nothing
    say(&run, &germans.iter().map(german).chain(english).collect::<Vec<_>>());
    let acts = |user: &String, item: usize| {
        ["impression", "click"].map(|kind| json!({"type": kind, "user_id": user, "item_id": format!("i{item}")}))
    };
    run.send("/v1/events", &germans.iter().chain(&others).flat_map(|user| acts(user, 0)).collect::<Vec<_>>());
    let told = stands(&run, "german", &one_each(&experiments, "german", germans.iter()));
    assert_eq!(told["cohort"], json!({"languages": ["de"], "cities": [], "interests": ["jazz"], "users": null}));
    let rest = stands(&run, "rest", &one_each(&experiments, "rest", others.iter()));
    assert_eq!(rest["cohort"], Value::Null);
    let shown_as = |run: &Running, user: &String, name: &str| {
        let arm = arm_in(&experiments, name, user);
        let model = if arm == "young" { "young-1" } else { "blend" };
        let expected = [json!(name), json!(arm), json!(model)];
        until("a slate of their own under their arm", || {
            let feed = get(run.shim, &format!("/v1/feeds/home/{user}")).json();
            (["experiment", "variant", "model"].map(|field| feed[field].clone()) == expected).then_some(())
        });
    };
    germans.iter().for_each(|user| shown_as(&run, user, "german"));
    others.iter().for_each(|user| shown_as(&run, user, "rest"));

    // some are not interested any more: what they did stays where it was done, what they do goes on in the next experiment
    let (left, stayed) = germans.split_at(4);
    say(&run, &left.iter().map(|user| json!({"user_id": user, "language": "de"})).collect::<Vec<_>>());
    left.iter().for_each(|user| shown_as(&run, user, "rest"));
    run.send("/v1/events", &left.iter().flat_map(|user| acts(user, 1)).collect::<Vec<_>>());
    let told = stands(&run, "german", &one_each(&experiments, "german", germans.iter()));
    stands(&run, "rest", &one_each(&experiments, "rest", others.iter().chain(left)));

    // a process that is killed knows who belongs to whom, and forgets in both
    run.kill(dir.path());
    let run = start(dir.path());
    assert_eq!(send(run.shim, "DELETE", &format!("/v1/users/{}", left[0]), &[], b"").status, 202);
    let again = stands(&run, "german", &one_each(&experiments, "german", left[1..].iter().chain(stayed)));
    assert_eq!(again["began"], told["began"]);
    stands(&run, "rest", &one_each(&experiments, "rest", others.iter().chain(&left[1..])));
    left[1..].iter().for_each(|user| shown_as(&run, user, "rest"));
    stayed.iter().for_each(|user| shown_as(&run, user, "german"));
}
