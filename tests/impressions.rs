//! What users were shown and what followed, from a made-up stream through a real engine into its files, against a recount of the stream; and a
//! ranker that is trained on it.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float32Type, Int64Type};
use bytes::Bytes;
use overdrive::codec::json;
use overdrive::config::{ClockKind, Config};
use overdrive::model::time::{MINUTE, Millis};
use overdrive::model::{Kind, Names, Positions, Role};
use overdrive::sinks::{impressions, memory::Memory};
use overdrive::sources::synthetic::{Params, World};
use overdrive::sources::{self, Appender, log};
use overdrive::worker::Engine;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

mod support;

const WINDOW: Millis = 30 * MINUTE;

/// One that is not broken, repeated or late.
fn world() -> World {
    let sound = Params { malformed: 0.0, duplicates: 0.0, late: 0.0, ..Params::sized(6_000, 120, 150) };
    World::new(sound).expect("the parameters are good")
}

/// A whole stream through an engine that logs all that is shown.
fn run(dir: &Path) {
    let mut config = Config::defaults();
    config.engine.state_dir = dir.to_path_buf();
    config.engine.clock = ClockKind::Event;
    config.engine.workers = 2;
    let learn = &mut config.recommend.learn;
    (learn.enabled, learn.impressions, learn.busy_share, learn.click_through) = (true, 1.0, 1.0, WINDOW);
    config.engine.epoch_rows = 5; // at full speed epochs are hours long otherwise, and what was shown is told of too late
    let folder = log::folder(dir);
    let appender = log::LogAppender::open(&folder, &config.log).expect("the log opens");
    let world = world();
    let keyed = |key: &str, payload: Vec<u8>| (Bytes::from(key.to_string()), Some(Bytes::from(payload)));
    let items = world.items().map(|i| keyed(&i.item_id, json::bytes(&i))).collect();
    let event = |row| {
        let mut payload = Vec::new();
        world.write(&row, &mut payload);
        keyed(world.user_name(row.user), payload)
    };
    let events = world.events().map(event).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for (role, records) in [(Role::Items, items), (Role::Events, events)] {
        runtime.block_on(appender.append(role, records)).expect("the log takes it");
    }
    let ends = log::ends(&folder, &config.log).expect("the log tells");
    let memory = Memory::new(&config.store.prefix);
    let source = sources::open(&config.source, &config.log, &config.kafka, &config.fluvio, dir, &Positions::new());
    let store = Box::new(memory.clone());
    let engine = Engine::start(&config, Arc::new(Names::default()), source.expect("it opens"), store, None, |_| {});
    let engine = engine.expect("the engine starts");
    support::wait("the stream is through", || {
        let applied = memory.applied();
        ends.iter().all(|(place, end)| applied.tick_offsets.get(place).copied().unwrap_or(0) >= *end)
    });
    engine.stop().1.expect("the source did not fail");
}

/// Kinds, how long after it was shown, and what the event said.
type After = Vec<(String, Millis, Option<f32>)>;

/// When, what, and its value in thousandths.
type Act = (Millis, Kind, Option<i32>);

/// By the plain definition: user, item and time of each impression, and what followed it and no later one, within the window.
fn recounted() -> (BTreeMap<(String, String, Millis), After>, Millis) {
    let world = world();
    let (mut acts, mut once): (BTreeMap<(u32, u32), Vec<Act>>, BTreeSet<_>) = Default::default();
    let mut last = 0;
    for row in world.events() {
        last = last.max(row.at);
        if !row.kind.is_set() || once.insert((row.user, row.item, row.kind)) {
            acts.entry((row.user, row.item)).or_default().push((row.at, row.kind, row.value_milli));
        }
    }
    let mut shown = BTreeMap::new();
    for ((user, item), acts) in acts {
        let times: Vec<Millis> = acts.iter().filter(|(_, kind, _)| *kind == Kind::Impression).map(|(at, ..)| *at).collect();
        for at in &times {
            let until = times.iter().find(|again| *again > at).map_or(at + WINDOW + 1, |again| *again.min(&(at + WINDOW + 1)));
            let mut after: Vec<Act> =
                acts.iter().filter(|(when, kind, _)| (*at..until).contains(when) && *kind != Kind::Impression).copied().collect();
            after.sort();
            let value = |milli: i32| milli as f32 / 1_000.0;
            let told = |(when, kind, milli): Act| (kind.name().to_string(), when - at, milli.map(value));
            let after = after.into_iter().map(told).collect();
            shown.insert((world.user_name(user).to_string(), world.item_name(item).to_string(), *at), after);
        }
    }
    (shown, last)
}

/// A row of the files.
struct Row {
    clock: Millis,
    key: (String, String, Millis),
    taken: bool,
    after: After,
}

fn rows(dir: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    for file in std::fs::read_dir(dir.join(impressions::FOLDER)).expect("a folder") {
        let file = std::fs::File::open(file.expect("a file").path()).expect("it opens");
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|reader| reader.build()).expect("Parquet");
        for batch in reader {
            let batch = batch.expect("whole");
            let column = |name: &str| batch.column_by_name(name).unwrap_or_else(|| panic!("{name} is missing"));
            let text = |name: &str, at| column(name).as_string::<i32>().value(at).to_string();
            let number = |name: &str, at| column(name).as_primitive::<Int64Type>().value(at);
            for at in 0..batch.num_rows() {
                let (kinds, after) =
                    (column("followed").as_list::<i32>().value(at), column("after_ms").as_list::<i32>().value(at));
                let values = column("values").as_list::<i32>().value(at);
                assert_eq!((kinds.len(), kinds.len()), (after.len(), values.len()));
                let after = after.as_primitive::<Int64Type>().values().iter().copied();
                let kinds = kinds.as_string::<i32>().iter().flatten().map(str::to_string);
                rows.push(Row {
                    clock: number("ts_ms", at),
                    key: (text("user_id", at), text("item_id", at), number("shown_ms", at)),
                    taken: column("taken").as_boolean().value(at),
                    after: kinds
                        .zip(after)
                        .zip(values.as_primitive::<Float32Type>())
                        .map(|((kind, after), value)| (kind, after, value))
                        .collect(),
                });
            }
        }
    }
    rows
}

#[test]
fn what_was_shown_is_joined_with_what_followed_and_a_ranker_learns_from_it() {
    let dir = tempfile::tempdir().expect("a folder");
    run(dir.path());
    let (wanted, last) = recounted();
    let found = rows(dir.path());
    for Row { key, taken, after, .. } in &found {
        assert_eq!(Some(after), wanted.get(key), "{key:?}");
        let liked = |kind: &str| Kind::parse(kind).expect("a kind").is_positive();
        assert_eq!(*taken, after.iter().any(|(kind, ..)| liked(kind)), "{key:?}");
    }
    // every impression whose window was over is there, but the later of two of one item in one epoch
    let keys: BTreeSet<_> = found.iter().map(|row| &row.key).collect();
    assert_eq!(keys.len(), found.len(), "each once");
    let first = found.iter().map(|row| row.key.2).min().expect("there are some"); // in the first epoch no item was known
    let last = found.iter().map(|row| row.clock + WINDOW).filter(|end| *end <= last).max().expect("some are over");
    let due: Vec<_> = wanted.keys().filter(|key| (first..last - WINDOW).contains(&key.2)).collect();
    let missing: Vec<_> = due.iter().filter(|key| !keys.contains(**key)).collect();
    let beside = |(user, item, at): &&&(String, String, Millis)| {
        let of = |row: &&Row| (&row.key.0, &row.key.1) == (user, item) && (row.key.2..=row.clock).contains(at);
        found.iter().any(|row| of(&row))
    };
    // partitions are read one after the other: what the user did may be known before, as `tests/learned.rs` has it
    let late = missing.iter().filter(|key| !beside(key)).count();
    assert!(late * 50 <= due.len(), "{late} of {} are missing", due.len());
    let followed = found.iter().filter(|row| row.taken).count();
    assert!(found.len() > 500 && followed > 100 && followed < found.len() - 100, "{followed} of {}", found.len());
    #[cfg(feature = "onnx")]
    train(dir.path());
}

/// From the log alone, by the command an operator would use.
#[cfg(feature = "onnx")]
fn train(dir: &Path) {
    let (log, out) = (dir.join(impressions::FOLDER), dir.join("models"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_overdrive"));
    let output =
        command.args(["train", "lr", "--log"]).arg(log).arg("--out").arg(&out).current_dir(dir).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = std::fs::read_to_string(out.join("lr.report.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    let auc = report["auc"]["model"].as_f64().expect("a figure");
    assert!(auc > 0.6, "{report}");
}
