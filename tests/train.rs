//! From a recorded stream to a model that ranks, and engines that make their own: examples by `overdrive eval`, training by the real LightGBM, the model under the real ONNX
//! Runtime. `make test` installs both.

#![cfg(feature = "onnx")]

#[path = "shim/client.rs"]
#[allow(dead_code, reason = "this binary uses a part of it")]
mod client;
mod support;

use overdrive::model::place::Place;
use overdrive::model::rng::Rng;
use overdrive::model::{Example, Names, TokenId};
use overdrive::registry::{self, Golden, Onnx};
use overdrive::scoring::at_hand::{self, Asker, Offer};
use overdrive::scoring::{columns, quality};
use overdrive::sinks::examples::Examples;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

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

fn versions() -> PathBuf {
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
    python();
    let out = made().dir.path().join(kind);
    let settings = [("OVERDRIVE_RANKER__REGISTRY", path(&versions()).to_string()), ("OVERDRIVE_LEARN__ENABLED", "true".into())];
    let settings = settings.each_ref().map(|(key, value)| (*key, value.as_str()));
    let said = good(&["train", kind, "--log", path(&made().examples()), "--out", path(&out), "--publish"], &settings);
    // what was measured in training is found again by the engine's own code, on the same examples
    let found = good(&["models", "evaluate", &format!("{kind}-1"), "--log", path(&made().examples())], &settings);
    for word in ["NDCG@10", "the blend's", "AUC"] {
        assert!((figure(&said, word) - figure(&found, word)).abs() < 0.01, "{word}: {said}{found}");
    }
    for says in ["published as", "ONNX Runtime gives what it must", "later ones NDCG@10", "OVERDRIVE_RANKER__MODEL="] {
        assert!(said.contains(says), "{says}: {said}");
    }
    let page = std::fs::read_to_string(out.join(format!("{kind}.report.html"))).expect("a report");
    assert!(page.contains("<svg") && page.contains("NDCG@10"));
    let report = std::fs::read_to_string(out.join(format!("{kind}.report.json"))).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert!(report["held_out_from_ms"].as_i64() > report["from_ms"].as_i64(), "{report}");
    assert!(report["auc"]["model"].as_f64().expect("a figure") > 0.7, "{report}");
    // lr begins at nothing, the others at the blend
    let of = |what: &str| report["ndcg_10"][what].as_f64().expect("a figure");
    assert!(kind == "lr" || of("model") > 0.97 * of("blend"), "{report}");
    out.join(format!("{kind}.onnx"))
}

/// Trained once, for two tests.
fn deepfm() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| train("deepfm"))
}

#[test]
fn what_is_trained_ranks_the_stream_and_is_named() {
    for kind in ["lr", "lambdarank", "deepfm"] {
        let model = if kind == "deepfm" { deepfm().to_path_buf() } else { train(kind) };
        let settings = [("OVERDRIVE_LEARN__ENABLED", "true"), ("OVERDRIVE_RANKER__MODEL", path(&model))];
        let data = made().stream();
        let ranked = ndcg(&good(&["eval", "prequential", "--dataset", "synth", "--data", path(&data), "--json"], &settings));
        assert!(ranked > 0.6 * made().blend && ranked != made().blend, "{kind}: {ranked} after {}", made().blend);
    }
}

fn python() {
    let python = std::env::var_os("OVERDRIVE_PYTHON").unwrap_or_default();
    assert!(Path::new(&python).is_file(), "OVERDRIVE_PYTHON names no Python: run `make test`, which makes one");
}

/// Of the same examples: they are proven, find what popularity does not, and are a source of the stream's rankings. (Of a stream they were trained on: how much
/// they find of it says nothing about another.)
#[test]
fn c14_towers_are_trained_and_find() {
    python();
    let (out, log) = (made().dir.path().join("towers"), made().examples());
    for kind in ["twotower", "sequence"] {
        let said = good(&["train", kind, "--log", path(&log), "--out", path(&out)], &[]);
        assert!(said.contains("ONNX Runtime gives what it must") && said.contains("OVERDRIVE_TOWERS__MODEL="), "{said}");
        assert!(figure(&said, "recall@50") > figure(&said, "most taken:"), "{said}");
        let page = std::fs::read_to_string(out.join(kind).join("report.html")).expect("a report");
        assert!(page.contains("<svg") && page.contains("ecall"), "{page}");
        let (folder, data) = (out.join(kind), made().stream());
        let settings = [("OVERDRIVE_LEARN__ENABLED", "true"), ("OVERDRIVE_TOWERS__MODEL", path(&folder))];
        let ranked = good(&["eval", "prequential", "--dataset", "synth", "--data", path(&data), "--json"], &settings);
        assert!(ndcg(&ranked) > 0.9 * made().blend, "{kind}: {} after {}", ndcg(&ranked), made().blend);
        let said: serde_json::Value = serde_json::from_str(&ranked).expect("one object");
        assert!(said["hits_by_source"]["towers"].as_f64().is_some_and(|share| share > 0.1), "{kind}: {}", said["hits_by_source"]);
    }
    for (wrong, says) in [(&["--publish"][..], "--publish is for rankers"), (&["--for", "rank"], "--for rank is for rankers")] {
        let output = overdrive(&[&["train", "twotower", "--log", path(&log)], wrong].concat(), &[]);
        assert!(!output.status.success() && text(&output.stderr).contains(says), "{}", text(&output.stderr));
    }
}

/// Users go from item to item by a rule that no popularity knows: what comes next is learned, by id where nothing else is said of items.
#[test]
fn c16_what_comes_next_is_learned_from_what_came_before() {
    python();
    let dir = tempfile::tempdir().expect("a folder");
    const ITEMS: usize = 120;
    let (names, mut rng) = (Arc::new(Names::default()), Rng::of(5, [0, 0]));
    let items: Vec<_> = (0..ITEMS).map(|n| names.item(&format!("i{n}")).expect("no collision")).collect();
    let examples = Examples::open(dir.path(), names.clone()).expect("a folder");
    let mut at = vec![Vec::new(); 150];
    for n in 0..6_000u64 {
        let who = rng.below(150) as usize;
        let last = at[who].first().copied().unwrap_or(rng.below(ITEMS as u32) as usize);
        let next = (last * 7 + 3) % ITEMS;
        let user = names.user(&format!("u{who}")).expect("no collision");
        let history = at[who].iter().map(|item: &usize| items[*item]).collect();
        let candidates: Vec<_> = [next, rng.below(ITEMS as u32) as usize].map(|of| (items[of], of == next)).to_vec();
        let candidates = if candidates[1].1 { candidates[..1].to_vec() } else { candidates };
        let (columns, tokens) = (vec![0.0; candidates.len() * columns::COLUMNS], vec![Vec::new(); candidates.len()]);
        examples.take(1 + n, Arc::new(Example { user, at: 1_000 * n as i64, candidates, columns, history, tokens }));
        at[who].retain(|item| *item != next);
        at[who].insert(0, next);
        at[who].truncate(5);
    }
    drop(examples);
    let (log, out) = (dir.path().join("examples"), dir.path().join("out"));
    for kind in ["twotower", "sequence"] {
        let said = good(&["train", kind, "--log", path(&log), "--out", path(&out)], &[]);
        let report = std::fs::read_to_string(out.join(kind).join("report.json")).expect("a report");
        let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
        let of = |what: &str| report["ndcg_10"][what].as_f64().expect("a figure");
        assert!(of("model") > 0.8 && of("popular") < 0.3, "{kind}: {said}");
    }
}

/// For callers' candidates, out of the same examples: what comes out takes what is at hand and nothing else, and orders what was held out better than the
/// fixed weights, but for the logistic regression, which sees nothing of what a user took.
#[test]
fn c25_what_is_trained_for_rank_takes_what_is_at_hand() {
    python();
    let out = made().dir.path().join("rank");
    let settings = [("OVERDRIVE_RANKER__REGISTRY", path(&out).to_string()), ("OVERDRIVE_LEARN__ENABLED", "true".into())];
    let settings = settings.each_ref().map(|(key, value)| (*key, value.as_str()));
    for (kind, width) in [("lr", 14), ("lambdarank", 20), ("deepfm", 20)] {
        let log = made().examples();
        let train = ["train", kind, "--for", "rank", "--log", path(&log), "--out", path(&out), "--publish"];
        let said = good(&train, &settings);
        let found = good(&["models", "evaluate", &format!("{kind}-rank-1"), "--log", path(&log)], &settings);
        for word in ["NDCG@10", "the fixed weights'", "AUC"] {
            assert!((figure(&said, word) - figure(&found, word)).abs() < 0.01, "{word}: {said}{found}");
        }
        assert!(said.contains("OVERDRIVE_SERVICE__RANK_BY="), "{said}");
        let model = registry::load(&out.join(format!("{kind}-rank.onnx")), &Onnx::on_cpu()).expect("a model");
        assert_eq!((model.takes_beyond(), model.columns.len()), (None, width), "{kind}");
        let (ours, fixed) = (figure(&said, "NDCG@10"), figure(&said, "the fixed weights'"));
        assert!(kind == "lr" || ours > fixed, "{said}");
        let report = std::fs::read_to_string(out.join(format!("{kind}-rank.report.html"))).expect("a report");
        assert!(report.contains("fixed weights"), "{report}");
    }
}

/// 25,000 pairs of a user and a stream, ten at a time, as the hometown recommender of those who asked for this was trained on: somebody
/// clicks with the chance `base engagement * nearness * how well it fits`. Yields how well the chances themselves order the last fifth.
fn hometown(dir: &Path) -> f64 {
    let (names, mut rng) = (Arc::new(Names::default()), Rng::of(4, [25_000, 14]));
    let examples = Examples::open(dir, names.clone()).expect("a folder");
    let items: Vec<_> = (0..10).map(|n| names.item(&format!("stream_{n:06}")).expect("no collision")).collect();
    let (city, language) = (|n: u32| TokenId(100 + u64::from(n)), |n: u32| TokenId(200 + u64::from(n)));
    let place = |n: u32, rng: &mut Rng| Place::new(40.0 + 4.0 * f64::from(n) + 0.1 * rng.normal(), 2.0 + 0.1 * rng.normal());
    let mut later = Vec::new();
    for n in 0..2_500 {
        let home = rng.below(5);
        let asker = Asker {
            place: place(home, &mut rng),
            city: Some(city(home)),
            language: Some(language(home % 3)),
            local_preference: Some(rng.unit()),
            watch_hours: Some(500.0 * rng.unit()),
        };
        let (mut columns, mut candidates) = (Vec::new(), Vec::new());
        for item in &items {
            let there = if rng.unit() < 0.3 { home } else { rng.below(5) };
            let offer = Offer {
                place: place(there, &mut rng),
                city: Some(city(there)),
                language: Some(language(if rng.unit() < 0.7 { there % 3 } else { rng.below(3) })),
                quality: Some(rng.unit()),
                avg_viewers: Some(1_000.0 * rng.unit()),
                followers: Some(u64::from(rng.below(100_000))),
                partnered: rng.unit() < 0.3,
                mature: rng.unit() < 0.1,
            };
            let fond = rng.unit() < 0.35;
            let row = at_hand::row(&[0.0; 5], 0.0, &asker, &offer, fond);
            let of = |name: &str| f64::from(row[at_hand::NAMES.iter().position(|known| *known == name).expect("a column")]);
            let base = 0.25 + 0.055 * of("stream_quality_score") + 0.1 * of("is_partnered");
            let near = if of("is_local_match") > 0.0 { 1.0 } else { 0.5 - 0.4 * of("user_local_preference") };
            let fits = if fond { 1.0 } else { 0.3 } * if of("same_language") > 0.0 { 1.0 } else { 0.45 };
            let chance = base * near * fits;
            let clicked = rng.unit() < chance;
            if n >= 2_000 {
                later.push((chance as f32, clicked));
            }
            candidates.push((*item, clicked));
            columns.extend(columns::row_at_hand(&row));
        }
        let user = names.user(&format!("user_{n:06}")).expect("no collision");
        examples.take(
            1 + n,
            Arc::new(Example {
                user,
                at: 1_700_000_000_000 + 1_000 * n as i64,
                tokens: vec![Vec::new(); candidates.len()],
                candidates,
                columns,
                ..Example::default()
            }),
        );
    }
    quality::auc(later).expect("some clicked")
}

#[test]
fn c15_a_logistic_regression_on_fourteen_features_orders_the_hometown_data_as_well_as_chance_allows() {
    let python = std::env::var_os("OVERDRIVE_PYTHON").unwrap_or_default();
    assert!(Path::new(&python).is_file(), "OVERDRIVE_PYTHON names no Python: run `make test`, which makes one");
    let dir = tempfile::tempdir().expect("a folder");
    let best = hometown(dir.path());
    let (log, out) = (dir.path().join("examples"), dir.path().join("models"));
    good(&["train", "lr", "--for", "rank", "--log", path(&log), "--out", path(&out)], &[]);
    let report = std::fs::read(out.join("lr-rank.report.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
    let auc = report["auc"]["model"].as_f64().expect("a figure");
    println!("AUC {auc:.3}; of the chances themselves {best:.3}");
    assert!(auc >= 0.80 && auc > best - 0.02 && auc < best + 0.01, "{auc} where {best} is the best");
    let strongest = &report["importance"];
    assert!(strongest["category_match"].as_f64() > strongest["stream_avg_viewers"].as_f64(), "{strongest}");
}

/// A model's golden rows as rows of the whole table; DeepFM takes all columns up to the blend's score but `user_pause`.
fn golden_rows(golden: &Golden) -> Vec<columns::Row> {
    let taken: Vec<usize> =
        columns::names().take(columns::AT_HAND).enumerate().filter(|(_, name)| *name != "user_pause").map(|(at, _)| at).collect();
    let whole = |given: &Vec<f32>| {
        assert_eq!(given.len(), taken.len());
        let mut row = [0.0; columns::COLUMNS];
        taken.iter().zip(given).for_each(|(at, value)| row[*at] = *value);
        row
    };
    golden.rows.iter().map(whole).collect()
}

#[test]
fn deepfm_is_the_same_bit_by_bit_from_the_same_examples_and_scores_as_in_training() {
    let (model, again) = (deepfm(), made().dir.path().join("again"));
    // the files as they lie in the folder, in place of those compiled in
    let python = std::env::var_os("OVERDRIVE_PYTHON").expect("train has seen it");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/training/train.py");
    let mut command = Command::new(python);
    command.args([script, "deepfm", "--log", path(&made().examples()), "--out", path(&again), "--aside"]);
    let output = command.env("PYTHONDONTWRITEBYTECODE", "1").output().expect("it runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    for file in ["deepfm.onnx", "deepfm.golden.json", "deepfm.report.json"] {
        let read = |folder: &Path| std::fs::read(folder.join(file)).expect("written");
        assert!(read(model.parent().expect("a folder")) == read(&again), "{file} differs");
    }

    let golden = Golden::read(model).expect("golden rows");
    let mut scorer = (registry::load(model, &Onnx::on_cpu()).expect("a model").open)().expect("it opens");
    let (mut rows, mut scores) = (golden_rows(&golden), Vec::new());
    scorer.score(&rows, &mut scores).expect("it scores");
    let far = golden.scores.iter().zip(&scores).map(|(wanted, got)| (wanted - got).abs()).fold(0.0, f32::max);
    assert!(scores.len() == 64 && far < 1e-5, "{far}");
    // what is no number makes none, of its own row alone
    rows[3][0] = f32::NAN;
    let mut with = Vec::new();
    scorer.score(&rows, &mut with).expect("it scores");
    assert_eq!(with.iter().map(|score| score.is_nan()).collect::<Vec<_>>(), (0..64).map(|row| row == 3).collect::<Vec<_>>());
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

/// Engines that train, promote and take back by themselves: real processes, a real Python and ONNX Runtime.
mod engine {
    use super::*;
    use crate::client;
    use crate::support::{free_port, until};
    use overdrive::model::UserId;
    use overdrive::model::time::{Millis, now_ms};
    use serde_json::{Value, json};
    use std::net::SocketAddr;
    use std::process::Child;

    const JSON: &str = "content-type: application/json";

    /// An engine with its shim, ended when dropped.
    struct Engine {
        child: Child,
        shim: SocketAddr,
    }

    impl Engine {
        /// `overdrive run` in a folder, with this Python.
        fn start(dir: &Path, python: &Path, every: &str) -> Self {
            let port = free_port();
            let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
            command.args(["run", "--serve"]).env("OVERDRIVE_STATE_DIR", dir).env("OVERDRIVE_SERVICE_PORT", port.to_string());
            command.env("OVERDRIVE_SERVICE__GRPC_PORT", "0").env("OVERDRIVE_PYTHON", python);
            command.env("OVERDRIVE_LEARN__ENABLED", "true").env("OVERDRIVE_LEARN__LOGGED", "1");
            command.env("OVERDRIVE_RANKER__REGISTRY", dir.join("models")).env("OVERDRIVE_TRAINING__ENABLED", "true");
            command
                .env("OVERDRIVE_TRAINING__AT", "")
                .env("OVERDRIVE_TRAINING__LEAST", "50")
                .env("OVERDRIVE_TRAINING__WATCH", "200ms");
            command.env("OVERDRIVE_TRAINING__EVERY", every);
            let engine = Self { child: command.spawn().expect("it starts"), shim: SocketAddr::from(([127, 0, 0, 1], port)) };
            until("it listens", || std::net::TcpStream::connect(engine.shim).is_ok().then_some(()));
            engine
        }

        fn models(&self) -> Option<Value> {
            let answer = client::send(self.shim, "GET", "/v1/models", &[], b"");
            (answer.status == 200).then(|| answer.json())
        }

        /// What is told of models once this holds.
        fn once(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
            until(what, || self.models().filter(&holds))
        }

        fn train(&self, model: &str) {
            let answer = client::send(self.shim, "POST", &format!("/v1/models/{model}/train"), &[JSON.to_string()], b"{}");
            assert_eq!(answer.status, 202, "{}", answer.body);
        }
    }

    impl Drop for Engine {
        fn drop(&mut self) {
            let pid = rustix::process::Pid::from_child(&self.child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
            self.child.wait().expect("it ends");
        }
    }

    /// Examples from a time on, a second apart, of which the users always took the candidate with the greatest (`sign` 1) or the least value
    /// (-1) of one feature; to the blend the least is always the best.
    fn log(dir: &Path, from: Millis, count: usize, sign: f32) {
        let names = Arc::new(Names::default());
        let examples = Examples::open(dir, names.clone()).expect("a folder");
        let (feature, blend) = (columns::find("category").expect("a feature"), columns::BLEND);
        let items: Vec<_> = (0..8).map(|n| names.item(&format!("i{n}")).expect("no collision")).collect();
        for n in 0..count {
            let user: UserId = names.user(&format!("u{}", n % 50)).expect("no collision");
            let best = n * 7 % items.len();
            let mut of = vec![0.0; items.len() * columns::COLUMNS];
            for (row, of) in of.chunks_exact_mut(columns::COLUMNS).enumerate() {
                of[feature] = if row == best { sign } else { (row as f32) / 100.0 };
                of[blend] = -of[feature];
            }
            let candidates: Vec<_> = items.iter().enumerate().map(|(row, item)| (*item, row == best)).collect();
            let (at, tokens) = (from + 1_000 * n as Millis, vec![Vec::new(); candidates.len()]);
            let example = Example { user, at, candidates, columns: of, tokens, ..Example::default() };
            examples.take(1 + n as u64, Arc::new(example));
        }
    }

    #[test]
    fn c35_a_ranker_is_trained_on_demand_ranks_where_it_is_surely_better_and_is_taken_back_where_it_is_worse() {
        let python = PathBuf::from(std::env::var_os("OVERDRIVE_PYTHON").unwrap_or_default());
        assert!(python.is_file(), "OVERDRIVE_PYTHON names no Python: run `make test`, which makes one");
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        log(dir, now_ms() - 3_600_000, 1_500, 1.0);
        {
            // Without Python nothing is made, and what ranks ranks on.
            let engine = Engine::start(dir, Path::new("/no/such/python"), "0s");
            engine.train("lr");
            let models = engine.once("it fails", |models| models["training"]["last"] != Value::Null);
            let last = &models["training"]["last"];
            assert_eq!((&models["serving"], &last["version"], &last["promoted"]), (&json!("blend"), &Value::Null, &json!(false)));
            assert!(
                last["why"]
                    .as_str()
                    .is_some_and(|why| why.contains("training.python cannot be run") && !why.contains("/no/such")),
                "{last}"
            );
        }
        let engine = Engine::start(dir, &python, "0s");
        engine.train("lr");
        engine.once("it ranks", |models| models["serving"] == "lr-1");
        let last =
            engine.once("it is told", |models| models["training"]["last"]["version"] == "lr-1")["training"]["last"].clone();
        assert!(last["promoted"] == true && last["why"].as_str().is_some_and(|why| why.contains("better than blend")), "{last}");
        let models = engine.once("it is listed", |models| models["versions"] != json!([]));
        assert_eq!((&models["versions"][0]["name"], &models["versions"][0]["serves"]), (&json!("lr-1"), &json!(true)));
        assert!(last["figures"]["ndcg_10"]["model"].as_f64() > Some(0.99), "{last}");

        // Made of the same, the next is no better, and is only kept.
        engine.train("lr");
        let models = engine.once("another is made", |models| models["training"]["last"]["version"] == "lr-2");
        assert_eq!((&models["serving"], &models["training"]["last"]["promoted"]), (&json!("lr-1"), &json!(false)));
        let why = models["training"]["last"]["why"].as_str().expect("a reason");
        assert!(why.contains("neither surely better nor surely worse than lr-1"), "{why}");
        assert_eq!(models["training"]["asked"], json!([]));

        // Users change their minds: what ranks is surely worse than what ranked before.
        log(dir, now_ms(), 200, -1.0);
        let models = engine.once("it is taken back", |models| models["serving"] == "blend");
        assert_eq!(models["served_before"], "lr-1");
        let back =
            engine.once("it is told", |models| models["training"]["taken_back"] != Value::Null)["training"]["taken_back"].clone();
        assert!(back["version"] == "lr-1" && back["why"].as_str().is_some_and(|why| why.contains("behind")), "{back}");
    }

    #[test]
    fn c35_training_is_due_by_itself_and_stops_with_the_engine() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        log(dir, now_ms() - 3_600_000, 300, 1.0);
        // a Python that never ends
        let python = dir.join("python");
        std::fs::write(
            &python,
            "#!/bin/sh\necho $$ > \"$(dirname \"$0\")/pid\"\necho '{\"done\":0.25,\"what\":\"a tree\"}'\nexec sleep 3600\n",
        )
        .expect("written");
        std::fs::set_permissions(&python, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
        let engine = Engine::start(dir, &python, "1s");
        let running = engine.once("it trains", |models| models["training"]["running"]["what"] == "a tree");
        assert_eq!(running["training"]["running"]["model"], "lambdarank");
        drop(engine); // it would wait for an hour
        let pid = std::fs::read_to_string(dir.join("pid")).expect("it ran");
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "what trained is gone with the engine");
        let left = std::fs::read_to_string(dir.join("models/training.json")).expect("it is written down");
        assert!(left.contains("\"running\": {"), "it is begun again by the next start: {left}");
    }
}
