//! The registry and what is done with it: versions that are published whole and proven, orders to rank by another one, and an engine that
//! swaps where the order stands in its input.

#![cfg(feature = "onnx")]

#[path = "support/onnx.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod onnx;

use onnx::{linear, write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs the binary with a registry in a folder.
fn overdrive(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
    command.args(args).current_dir(dir).env("OVERDRIVE_RANKER__REGISTRY", dir.join("registry"));
    command.env("OVERDRIVE_LEARN__ENABLED", "true").env("OVERDRIVE_STATE_DIR", dir.join("state"));
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
