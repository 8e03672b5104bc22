//! The registry and what is done with it: versions that are published whole and proven, orders to rank by another one, and an engine that
//! swaps where the order stands in its input.

#![cfg(feature = "onnx")]

#[path = "support/onnx.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod onnx;

#[cfg(feature = "redis")]
#[path = "support/mod.rs"]
mod support;

use onnx::{linear, write};
use overdrive::model::serving::Version;
use overdrive::registry::{Onnx, Registry, Remote, Shelf};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

/// Runs the binary with a registry in a folder.
fn overdrive(dir: &Path, args: &[&str]) -> Output {
    overdrive_on("auto", dir, args)
}

/// The same, with models on a device.
fn overdrive_on(device: &str, dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
    command.args(args).current_dir(dir).env("OVERDRIVE_RANKER__REGISTRY", dir.join("registry"));
    command.env("OVERDRIVE_LEARN__ENABLED", "true").env("OVERDRIVE_STATE_DIR", dir.join("state"));
    command.env("OVERDRIVE_ONNX__DEVICE", device);
    command.output().expect("it runs")
}

fn good(dir: &Path, args: &[&str]) -> String {
    let output = overdrive(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn refused(dir: &Path, args: &[&str]) -> String {
    let output = overdrive(dir, args);
    assert!(!output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).expect("text")
}

/// A model that likes what was taken for the first time long ago, or lately.
fn model(dir: &Path, name: &str, age: f32) -> PathBuf {
    write(dir, name, &linear(&["age"], &[age]), &[vec![2.0]], &[2.0 * age])
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn models_are_published_whole_and_proven_and_never_changed() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    assert!(good(dir, &["models", "list"]).contains("no versions yet"));
    let young = model(dir, "young", -1.0);
    let report = r#"{"examples":{"earlier":80,"held_out":20},"from_ms":1,"held_out_from_ms":5,"until_ms":9,
        "ndcg_10":{"model":0.5,"blend":0.25,"ahead":[0.1,0.3]},"auc":{"model":0.75,"blend":null}}"#;
    std::fs::write(young.with_extension("report.json"), report).expect("there is room");
    assert_eq!(good(dir, &["models", "publish", text(&young)]), "published as young-1\n");
    assert_eq!(good(dir, &["models", "publish", text(&young)]), "published as young-2\n");
    assert_eq!(good(dir, &["models", "publish", text(&model(dir, "old", 1.0)), "--name", "first"]), "published as first\n");
    assert!(refused(dir, &["models", "publish", text(&young), "--name", "first"]).contains("versions are never changed"));
    assert!(refused(dir, &["models", "publish", text(&young), "--name", "a/b"]).contains("letters, digits"));

    let wrong = write(dir, "wrong", &linear(&["age"], &[1.0]), &[vec![2.0]], &[3.0]);
    assert!(refused(dir, &["models", "publish", text(&wrong)]).contains("golden row 0"));
    std::fs::write(wrong.with_extension("report.json"), "{}").expect("there is room");
    let right = write(dir, "wrong", &linear(&["age"], &[1.0]), &[vec![2.0]], &[2.0]);
    assert!(refused(dir, &["models", "publish", text(&right)]).contains("no report of `overdrive train`"));

    let registry = dir.join("registry");
    let names = |of: &Path| {
        let entries = std::fs::read_dir(of).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().expect("text")).collect();
        names.sort();
        names
    };
    assert_eq!(names(&registry), ["first", "young-1", "young-2"], "nothing is left of what was refused");
    assert_eq!(names(&registry.join("young-1")), ["model.golden.json", "model.onnx", "model.report.json", "version.json"]);
    std::fs::write(registry.join("young-2/model.golden.json"), "{}").expect("there is room");
    let listed = good(dir, &["models", "list"]);
    let line = |of: &str| listed.lines().find(|line| line.starts_with(of)).unwrap_or_else(|| panic!("{of}: {listed}"));
    for says in ["young ", "20", "0.5000", "0.2500", "0.750"] {
        assert!(line("young-1").contains(says), "{says}: {listed}");
    }
    assert!(line("young-2").contains("unusable: model.golden.json is not what was published"), "{listed}");
    assert!(line("first").contains("old ") && line("first").ends_with('–'), "{listed}");
}

/// Whoever asks for a GPU gets it or is told; who leaves it open is told what models run on. (The library of `make test` is the one for CPUs.)
#[test]
fn c17_models_do_not_run_on_the_cpu_in_silence() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let young = model(dir, "young", -1.0);
    let publish = ["models", "publish", text(&young)];
    let output = overdrive_on("cuda", dir, &publish);
    let why = String::from_utf8(output.stderr).expect("text");
    assert!(!output.status.success() && why.contains("young.onnx cannot be used: the GPU cannot be used: "), "{why}");
    assert!(why.contains("scripts/fetch-onnxruntime.sh gpu") && why.contains("onnx.device = \"auto\""), "{why}");
    for (n, device) in ["cpu", "auto"].into_iter().enumerate() {
        let output = overdrive_on(device, dir, &publish);
        assert_eq!(String::from_utf8(output.stdout).expect("text"), format!("published as young-{}\n", n + 1));
    }
    let output = overdrive_on("gpu", dir, &publish);
    assert!(String::from_utf8_lossy(&output.stderr).contains("onnx.device"), "{}", String::from_utf8_lossy(&output.stderr));
    for (device, mark, says) in [
        ("cuda", "✗ ranker", "the GPU cannot be used"),
        ("cpu", "✓ device of models", "cpu"),
        ("auto", "– device of models", "cpu: "),
    ] {
        let mut doctor = Command::new(env!("CARGO_BIN_EXE_overdrive"));
        doctor.arg("doctor").current_dir(dir).env("OVERDRIVE_RANKER__MODEL", &young).env("OVERDRIVE_LEARN__ENABLED", "true");
        let output = doctor.env("OVERDRIVE_ONNX__DEVICE", device).output().expect("it runs");
        let shown = String::from_utf8(output.stdout).expect("text");
        let line = shown.lines().find(|line| line.starts_with(mark)).unwrap_or_else(|| panic!("{mark}: {shown}"));
        assert!(line.contains(says), "{shown}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    good(dir, &["models", "publish", text(&model(dir, "young", -1.0))]);
    assert!(refused(dir, &["models", "evaluate", "young-1"]).contains("learn.logged above 0"));
    assert!(refused(dir, &["models", "evaluate", "young-2"]).contains("there is no such version"));
    std::fs::create_dir(dir.join("log")).expect("there is room");
    std::fs::write(dir.join("log/x.parquet"), "no Parquet").expect("there is room");
    assert!(refused(dir, &["models", "evaluate", "young-1", "--log", "log"]).contains("x.parquet cannot be read"));
    let nowhere = Command::new(env!("CARGO_BIN_EXE_overdrive")).args(["models", "list"]).current_dir(dir).output();
    let says = String::from_utf8(nowhere.expect("it runs").stderr).expect("text");
    assert!(says.contains("OVERDRIVE_RANKER__REGISTRY"), "{says}");
}

/// Two processes on one place in an object store: what one publishes the other ranks by, from a copy of its own.
#[test]
fn what_one_process_publishes_into_a_store_another_ranks_by() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Arc::new(object_store::memory::InMemory::new());
    let registry = |kept: &str| {
        let remote = Remote::of(store.clone(), "s3://models/here").expect("a thread");
        Registry::remote(remote, dir.path().join(kept))
    };
    let (ours, theirs, onnx) = (registry("ours"), registry("theirs"), Onnx::on_cpu());
    let young = model(dir.path(), "young", -1.0);
    for version in ["young-1", "young-2"] {
        assert_eq!(ours.publish(&young, None, 7, &onnx).as_deref(), Ok(version));
    }
    let taken = theirs.publish(&young, Some("young-1"), 8, &onnx).expect_err("it is taken");
    assert!(taken.contains("s3://models/here/young-1 is there"), "{taken}");
    let digest = u64::from_str_radix(ours.about("young-1").expect("it is kept").digest(), 16).expect("hexadecimal");
    let shelf = Shelf::new(theirs.clone(), &onnx);
    let found = shelf.find(Version { name: "young-1".into(), digest }.id()).expect("it is in the store");
    assert_eq!((found.name.as_str(), found.id()), ("young-1", digest));
    let kept = std::fs::read_dir(dir.path().join("theirs")).expect("a folder").map(|of| of.expect("an entry").file_name());
    assert_eq!(kept.collect::<Vec<_>>(), ["young-1"], "what was needed, and nothing half made");
}

/// Engines that swap models: real processes over a real Redis.
#[cfg(feature = "redis")]
mod engines {
    use super::support::engines::{Beside, Fleet, Scene, Shape, Stage, connect};
    use super::support::redis::RedisServer;
    use super::support::until;
    use super::*;
    use bytes::Bytes;
    use overdrive::model::Role;
    use std::collections::BTreeMap;

    type Settings = &'static [(&'static str, &'static str)];

    /// What an engine is told of a registry; a scene keeps its settings for ever.
    fn settings(registry: &Path) -> Settings {
        let registry: &'static str = Box::leak(text(registry).to_string().into_boxed_str());
        let settings = [("OVERDRIVE_RANKER__REGISTRY", registry), ("OVERDRIVE_LEARN__ENABLED", "true")];
        Box::leak(Box::new(settings))
    }

    /// Makes versions young-1 and old-1; yields the orders to rank by them.
    fn versions(dir: &Path) -> [String; 2] {
        let registry = Registry::new(dir.join("registry"));
        [("young", -1.0), ("old", 1.0)].map(|(name, weight)| {
            let version = registry.publish(&model(dir, name, weight), None, 1, &Onnx::on_cpu()).expect("it is good");
            let digest = registry.about(&version).expect("it is whole").digest().to_string();
            serde_json::json!({"op": "model", "version": version, "digest": digest}).to_string()
        })
    }

    fn meta(redis: &RedisServer) -> BTreeMap<String, String> {
        redis::cmd("HGETALL").arg("od:meta").query(&mut connect(redis)).expect("redis answers")
    }

    /// Waits until this version ranks.
    fn ranks(redis: &RedisServer, version: &str) {
        let now = || meta(redis).get("serving").is_some_and(|text| text.split('/').next() == Some(version));
        until(&format!("{version} ranks"), || now().then_some(()));
    }

    /// Waits for a slate that this version has ordered.
    fn shows(redis: &RedisServer, version: &str) {
        let mut connection = connect(redis);
        let mut named = |key: String| {
            let value: Vec<u8> = redis::cmd("GET").arg(key).query(&mut connection).expect("redis answers");
            overdrive::sinks::layout::decode_slate(&value).is_ok_and(|stored| stored.slate.model == version)
        };
        until(&format!("a slate of {version}"), || {
            let keys: Vec<String> = redis::cmd("KEYS").arg("od:slate:home:*").query(&mut connect(redis)).expect("redis answers");
            keys.into_iter().any(&mut named).then_some(())
        });
    }

    /// The engine dies around each of several swaps, comes back with other numbers of workers and processes, and in the end Redis holds
    /// what an undisturbed run leaves over the same epochs, slates ordered by each model among it.
    #[test]
    fn killed_around_swaps_it_leaves_what_an_undisturbed_run_leaves() {
        let dir = tempfile::tempdir().expect("a folder");
        let [young, old] = versions(dir.path());
        let settings = settings(&dir.path().join("registry"));
        let scene = Scene::on(Stage { input: None, redis: RedisServer::start(), batch: 1, settings }, 5);
        let mut append = scene.input.appender();
        let mut order = |order: &str| append(Role::Control, vec![(Bytes::new(), Some(Bytes::from(order.to_string())))]);
        let rollback = r#"{"op":"rollback"}"#;
        let steps = [
            (young.as_str(), "young-1", Shape(2, 1)),
            (old.as_str(), "old-1", Shape(1, 1)),
            (rollback, "young-1", Shape(1, 2)),
            (r#"{"op":"model","version":"blend"}"#, "blend", Shape(2, 1)),
            (rollback, "young-1", Shape(3, 1)),
        ];
        let mut fleet = scene.start(Shape(1, 1), &[]);
        for (n, (said, version, shape)) in steps.into_iter().enumerate() {
            order(said);
            if n % 2 == 0 {
                ranks(&scene.redis, version);
            }
            fleet.kill();
            fleet = scene.start(shape, &[]);
            ranks(&scene.redis, version);
            shows(&scene.redis, version);
        }
        assert_eq!(meta(&scene.redis)["served_before"], "blend");
        eprintln!("{}", scene.close(fleet));
    }

    /// What the command line orders is followed, what cannot be followed changes nothing and is told, and an engine does not start
    /// without the version its epochs are bound to.
    #[test]
    fn orders_are_followed_or_refused_with_the_reason_and_what_serves_is_never_replaced_in_silence() {
        let dir = tempfile::tempdir().expect("a folder");
        let (dir, state) = (dir.path(), dir.path().join("state"));
        let [_, old] = versions(dir);
        std::fs::create_dir_all(&state).expect("there is room");
        let redis = RedisServer::start();
        let settings = settings(&dir.join("registry"));
        let fleet = Fleet::start(&state, &redis, Shape(2, 1), settings);
        assert!(good(dir, &["models", "promote", "young-1"]).contains("ordered, at control/0=0"));
        ranks(&redis, "young-1");

        let registry = dir.join("registry");
        std::fs::write(registry.join("old-1/model.onnx"), "damaged").expect("there is room");
        assert!(refused(dir, &["models", "promote", "old-1"]).contains("model.onnx is not what was published"));
        let log = super::support::input::LogInput::new(&state);
        let mut append = super::support::input::Input::appender(&log);
        append(Role::Control, vec![(Bytes::new(), Some(Bytes::from(old)))]);
        until("the order is refused", || meta(&redis).contains_key("model_refused_epoch").then_some(()));
        ranks(&redis, "young-1");
        let letters = std::fs::read_to_string(state.join("dead/dead.jsonl")).expect("dead letters");
        assert!(letters.contains("not followed") && letters.contains("model.onnx is not what was published"), "{letters}");
        let listed = good(dir, &["models", "list"]);
        assert!(listed.contains("young-1 (") && listed.contains(") ranks, before it blend; the order of epoch"), "{listed}");
        assert!(listed.lines().any(|line| line.starts_with("young-1") && line.ends_with("ranks")), "{listed}");

        fleet.stop();
        std::fs::rename(registry.join("young-1"), dir.join("away")).expect("it is there");
        let arguments = ["run".to_string(), "--workers".to_string(), "1".to_string()];
        let mut without = super::support::engines::command(&state, &redis, &arguments[1..], settings);
        let without = Beside::start(move |_| without.output().expect("it runs")).end();
        let said = String::from_utf8_lossy(&without.stderr).into_owned();
        assert!(!without.status.success() && said.contains("put it back"), "{said}");

        std::fs::rename(dir.join("away"), registry.join("young-1")).expect("it is there");
        let fleet = Fleet::start(&state, &redis, Shape(1, 1), settings);
        assert!(good(dir, &["models", "rollback"]).contains("ordered, at control/0=2"));
        ranks(&redis, "blend");
        fleet.stop();
    }
}
