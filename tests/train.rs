//! From a recorded stream to a model that ranks: examples by `overdrive eval`, training by the real LightGBM, the model under the real ONNX
//! Runtime. `make test` installs both.

#![cfg(feature = "onnx")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Made once: a stream, and the examples of it.
struct Made {
    dir: tempfile::TempDir,
    /// NDCG@10 of the blend along the stream.
    blend: f64,
}

impl Made {
    fn stream(&self) -> PathBuf {
        self.dir.path().join("stream")
    }

    fn examples(&self) -> PathBuf {
        self.dir.path().join("examples")
    }
}

fn overdrive(args: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
    command.args(args).envs(settings.iter().copied()).current_dir(env!("CARGO_TARGET_TMPDIR"));
    command.output().expect("it runs")
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What it says where all goes well.
fn good(args: &[&str], settings: &[(&str, &str)]) -> String {
    let output = overdrive(args, settings);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn ndcg(said: &str) -> f64 {
    let said: serde_json::Value = serde_json::from_str(said).expect("one object");
    said["reported"]["ndcg10"].as_f64().expect("a figure")
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a folder");
        let stream = dir.path().join("stream");
        let size = ["--events", "12000", "--users", "200", "--items", "250", "--malformed", "0"];
        good(&[&["generate", "--to", "parquet", "--out", path(&stream)], &size[..]].concat(), &[]);
        let examples = ["--examples", path(dir.path()), "--json"];
        let said = good(&[&["eval", "prequential", "--dataset", "synth", "--data", path(&stream)], &examples[..]].concat(), &[]);
        Made { blend: ndcg(&said), dir }
    })
}

fn registry() -> PathBuf {
    made().dir.path().join("registry")
}

/// The figure after a word.
fn figure(said: &str, word: &str) -> f64 {
    let rest = said.split_once(word).unwrap_or_else(|| panic!("{word}: {said}")).1;
    let digits: String =
        rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    digits.parse().unwrap_or_else(|e| panic!("{word}: {e}: {said}"))
}

fn train(kind: &str) -> PathBuf {
    let python = std::env::var_os("OVERDRIVE_PYTHON").unwrap_or_default();
    assert!(Path::new(&python).is_file(), "OVERDRIVE_PYTHON names no Python: run `make test`, which makes one");
    let out = made().dir.path().join(kind);
    let settings = [("OVERDRIVE_RANKER__REGISTRY", path(&registry()).to_string()), ("OVERDRIVE_LEARN__ENABLED", "true".into())];
    let settings = settings.each_ref().map(|(key, value)| (*key, value.as_str()));
    let said = good(&["train", kind, "--log", path(&made().examples()), "--out", path(&out), "--publish"], &settings);
    // what was measured in training is found again by the engine's own code, on the same examples
    let found = good(&["models", "evaluate", &format!("{kind}-1"), "--log", path(&made().examples())], &settings);
    for word in ["NDCG@10", "the blend's", "AUC"] {
        assert!((figure(&said, word) - figure(&found, word)).abs() < 0.01, "{word}: {said}{found}");
    }
    for says in ["published as", "ONNX Runtime gives the scores it must", "later ones NDCG@10", "OVERDRIVE_RANKER__MODEL="] {
        assert!(said.contains(says), "{says}: {said}");
    }
    let page = std::fs::read_to_string(out.join(format!("{kind}.report.html"))).expect("a report");
    assert!(page.contains("<svg") && page.contains("NDCG@10"));
    let report = std::fs::read_to_string(out.join(format!("{kind}.report.json"))).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert!(report["held_out_from_ms"].as_i64() > report["from_ms"].as_i64(), "{report}");
    assert!(report["auc"]["model"].as_f64().expect("a figure") > 0.7, "{report}");
    out.join(format!("{kind}.onnx"))
}

#[test]
fn what_is_trained_ranks_the_stream_and_is_named() {
    for kind in ["lr", "lambdarank"] {
        let model = train(kind);
        let settings = [("OVERDRIVE_LEARN__ENABLED", "true"), ("OVERDRIVE_RANKER__MODEL", path(&model))];
        let data = made().stream();
        let ranked = ndcg(&good(&["eval", "prequential", "--dataset", "synth", "--data", path(&data), "--json"], &settings));
        assert!(ranked > 0.6 * made().blend && ranked != made().blend, "{kind}: {ranked} after {}", made().blend);
    }
}

#[test]
fn training_that_cannot_be_done_says_why_and_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let failed = |args: &[&str]| {
        let output = overdrive(&[&["train", "lr", "--out", path(dir.path())], args].concat(), &[]);
        assert!(!output.status.success());
        text(&output.stderr)
    };
    let empty = failed(&["--log", path(dir.path())]);
    assert!(empty.contains("holds no examples") && empty.contains("learn.logged"), "{empty}");
    let nowhere = failed(&["--log", path(dir.path()), "--python", "/no/such/python"]);
    assert!(nowhere.contains("/no/such/python cannot be run") && nowhere.contains("OVERDRIVE_PYTHON"), "{nowhere}");
    let broken = dir.path().join("x.parquet");
    std::fs::write(&broken, b"no Parquet").expect("there is room");
    let broken = failed(&["--log", path(dir.path())]);
    assert!(broken.contains("training failed"), "{broken}");
}
