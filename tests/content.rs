//! What items are like, in the whole path: what is like something a user took is offered with a true reason, wherever it stands in the
//! catalogue, and is gone with what made it alike; without content nothing of it is there. And encoders: models in the shape of real ones
//! under the real ONNX Runtime, in a real process.

#[cfg(feature = "onnx")]
#[path = "support/encoders.rs"]
mod bring;
#[cfg(feature = "onnx")]
#[path = "shim/client.rs"]
#[allow(dead_code, reason = "this binary uses a part of it")]
mod client;
#[path = "support/dataflow.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod dataflow;
#[cfg(feature = "onnx")]
#[path = "support/onnx.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod onnx;
#[cfg(feature = "onnx")]
#[path = "support/running.rs"]
mod running;
#[cfg(feature = "onnx")]
mod support;

use dataflow::{Changes, Kept, Log, Run, described_with, item, resume_by, run_by, user};
use overdrive::dataflows::Params;
use overdrive::model::catalogue::Item;
use overdrive::model::content::{Direction, Encoded, Space, hash};
use overdrive::model::slate::{Reason, Slate, SlateItem, Source};
use overdrive::model::time::{MINUTE, SECOND};
use overdrive::model::{Change, Control, Event, Input, Kind, Op, UserId};
use std::sync::Arc;

/// Content alone brings candidates, and counts most.
fn params() -> Params {
    let mut params = dataflow::params();
    params.learn.enabled = false;
    (params.content.enabled, params.content.text_encoder) = (true, "there".into());
    (params.slates.neighbours, params.slates.interests, params.slates.trending, params.slates.fresh) = (0, 0, 0, 0);
    (params.slates.candidates, params.explore.slots) = (3, 0);
    (params.blend.content, params.cold.content) = (10.0, 10.0);
    params
}

fn like(what: u8, id: u64, at: i64) -> Input {
    let (user, item) = (user(1), item(what));
    Input::Event(Event { id, user, item, kind: Kind::Like, op: Op::Add, at, value_milli: None })
}

fn slate(changes: &Changes, of: UserId) -> Option<Arc<Slate>> {
    let mut slates = changes.values().flatten().filter_map(|change| match change {
        Change::Slate { user, slate, .. } if *user == of => Some(slate.clone()),
        _ => None,
    });
    slates.next_back().flatten()
}

/// What stands in the last slate because it is like something: the item, and what it is like.
fn alike(changes: &Changes) -> Vec<(u8, u8)> {
    let number = |id| (0..dataflow::ITEMS).find(|n| item(*n) == id).expect("of the catalogue");
    let of = |of: &SlateItem| match of.reason {
        Reason::Because { kind: Kind::Like, item } if of.source == Source::Content => Some((number(of.item), number(item))),
        _ => None,
    };
    slate(changes, user(1)).iter().flat_map(|slate| &slate.items).filter_map(of).collect()
}

/// Item 9 lies where item 4 does, item 8 near it; 7 points away, and 6 nowhere.
fn embedded() -> Vec<Input> {
    let at = |n: u8, angle: f32| described_with(n, Item { embedding: vec![angle.cos(), angle.sin()], ..Item::default() });
    vec![at(4, 0.5), at(9, 0.5), at(8, 0.9), at(7, 3.5)]
}

fn after(log: &mut Log, inputs: Vec<Input>) {
    let clock = log.advance(SECOND);
    let timed = |input| if let Input::Event(event) = input { Input::Event(Event { at: clock, ..event }) } else { input };
    log.epoch(inputs.into_iter().map(timed).collect());
}

#[test]
fn c11_what_is_like_something_a_user_took_is_offered_and_says_so() {
    let mut log = Log::with_catalogue();
    after(&mut log, embedded());
    after(&mut log, vec![like(4, 1, 0)]);
    for workers in [1, 2, 4] {
        let found = alike(&run_by(&log, Run { workers, one_by_one: workers == 2 }, &params()));
        assert_eq!(found, [(9, 4), (8, 4)], "{workers} workers");
    }
    let terms = slate(&run_by(&log, Run::plain(), &params()), user(1)).expect("a slate").items[0].terms;
    assert_eq!(terms[0], 10_000, "it is as alike as can be");
    let off = Params { content: overdrive::dataflows::ContentParams { enabled: false, ..params().content }, ..params() };
    assert_eq!(alike(&run_by(&log, Run::plain(), &off)), []);
    let (_, kept) = resume_by(&log.saved_at_the_end(), &Kept::new(), Run::plain(), &off);
    assert!(!kept.contains_key("content/2"), "nothing is built");
    assert!(kept["slates/6"].iter().all(|entry| entry.payload[0] != 6), "and nothing is kept");

    // what made it alike goes, item by item
    after(&mut log, vec![Input::Item(item(9), None)]);
    after(&mut log, vec![described_with(8, Item::default())]);
    after(&mut log, vec![like(10, 2, 0)]);
    let (changes, kept) = resume_by(&log.saved_at_the_end(), &Kept::new(), Run::plain(), &params());
    assert_eq!(alike(&changes), []);
    assert_eq!(kept["content/2"].len(), 3, "of items 4 and 7, and the encoders");
}

#[test]
fn c11_nobody_is_shown_as_alike_what_they_may_not_see() {
    let mut log = Log::with_catalogue();
    after(&mut log, embedded());
    let hide = Event { id: 7, user: user(1), item: item(9), kind: Kind::Hide, op: Op::Add, at: 0, value_milli: None };
    after(&mut log, vec![Input::Event(hide), like(4, 1, 0)]);
    assert_eq!(alike(&run_by(&log, Run::plain(), &params())), [(8, 4)]);
}

fn text(n: u8, said: &str) -> Input {
    described_with(n, Item { text: Some(said.into()), ..Item::default() })
}

fn encoded(n: u8, said: &str, encoder: u64, vector: &[f32]) -> Input {
    let direction = Direction::of(vector).map(Arc::new);
    let of = Encoded { space: Space::Text, content: hash(said.as_bytes()), encoder, direction };
    Input::Control(Control::Encoded(item(n), Arc::new(of)))
}

/// The items whose text was to be encoded, with the epoch.
fn asked(changes: &Changes) -> Vec<(u64, String)> {
    let of = |(epoch, changes): (&u64, &Vec<Change>)| -> Vec<(u64, String)> {
        let body = |change: &Change| match change {
            Change::Encode(work) => Some((*epoch, String::from_utf8_lossy(&work.body).into_owned())),
            _ => None,
        };
        changes.iter().filter_map(body).collect()
    };
    let mut all: Vec<_> = changes.iter().flat_map(of).collect();
    all.sort();
    all
}

#[test]
fn c43_what_encoders_say_is_a_record_like_any_other() {
    let mut log = Log::with_catalogue();
    after(&mut log, vec![text(4, "four"), text(9, "nine")]);
    after(&mut log, vec![like(4, 1, 0)]);
    let name = |encoder| Input::Control(Control::Encoder { space: Space::Text, encoder });
    after(&mut log, vec![name(1), encoded(4, "four", 1, &[1.0, 0.0]), encoded(9, "nine", 1, &[1.0, 0.1])]);
    after(&mut log, vec![like(10, 2, 0)]);
    let how = Run::plain();
    assert_eq!(asked(&run_by(&log, how, &params())), [(1, "four".to_string()), (1, "nine".to_string())]);
    assert_eq!(alike(&run_by(&log, how, &params())), [(9, 4)]);
    assert_eq!(alike(&run_by(&log.until(4), how, &params())), [], "no slate waits for an encoder");

    // of a text that is no more it says nothing
    let mut late = log.clone();
    after(&mut late, vec![text(9, "new"), encoded(9, "nine", 1, &[1.0, 0.1])]);
    after(&mut late, vec![like(11, 3, 0)]);
    assert_eq!(alike(&run_by(&late, how, &params())), []);

    // a run that goes on from what was kept asks for nothing that was encoded, and for what was not once it is time
    let (_, kept) = resume_by(&late.saved_at_the_end(), &Kept::new(), how, &params());
    let until = late.epochs.len() as u64;
    late.advance(MINUTE);
    (0..3).for_each(|_| late.epoch(vec![]));
    let (resumed, _) = resume_by(&late.since(until), &kept, Run { workers: 2, one_by_one: false }, &params());
    assert_eq!(asked(&resumed).into_iter().map(|(_, body)| body).collect::<Vec<_>>(), ["new"]);
}

/// With real models under the real ONNX Runtime, and a real process.
#[cfg(feature = "onnx")]
mod encoders {
    use super::bring;
    use super::client::{get, get_with};
    use super::running::Running;
    use super::support::{free_port, until};
    use overdrive::encoders::{cosine, open};
    use overdrive::model::content::{Direction, Space};
    use overdrive::registry::Onnx;
    use serde_json::{Value, json};
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    fn made(space: Space, folder: &Path, bodies: &[&[u8]]) -> Vec<Option<Direction>> {
        open(space, folder, &Onnx::on_cpu()).and_then(|mut encoder| encoder.encode(bodies)).unwrap_or_else(|why| panic!("{why}"))
    }

    fn refused(space: Space, folder: &Path) -> String {
        open(space, folder, &Onnx::on_cpu()).map(|encoder| encoder.digest()).expect_err("it is refused")
    }

    #[test]
    fn c43_a_text_is_the_mean_of_its_tokens_whatever_it_is_encoded_with() {
        let dir = tempfile::tempdir().expect("a folder");
        bring::text(dir.path(), 0);
        let alone = made(Space::Text, dir.path(), &[b"red apple"]);
        let long = "old car ".repeat(40);
        let among = made(Space::Text, dir.path(), &[long.as_bytes(), b"red apple", b"Red, APPLE!", b""]);
        assert_eq!(alone[0].as_ref().map(|direction| direction.0.len()), Some(bring::TEXT_WIDTH));
        assert_eq!(alone[0], among[1], "padding does not count");
        let [long, red, written, empty] = &among[..] else { panic!("a direction each") };
        let of = |direction: &Option<Direction>| cosine(direction.as_ref().expect("some"), red.as_ref().expect("some"));
        assert!(of(written) > 0.7 && of(long) < 0.7 && of(empty) < 0.9, "{} {} {}", of(written), of(long), of(empty));
    }

    #[test]
    fn c43_a_model_that_takes_no_mask_sees_no_padding() {
        let dir = tempfile::tempdir().expect("a folder");
        bring::text_unlike(dir.path(), bring::Unlike { maskless: true, ..bring::Unlike::default() });
        let alone = made(Space::Text, dir.path(), &[b"red apple"]);
        let among = made(Space::Text, dir.path(), &[b"old car new car old car", b"red apple", b"new pie"]);
        assert!(alone[0].is_some() && alone[0] == among[1]);
    }

    /// CLIP's text side takes 77 tokens; not every tokenizer that comes with it says so.
    #[test]
    fn c43_a_model_that_takes_fewer_tokens_than_its_tokenizer_makes_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        bring::text_unlike(dir.path(), bring::Unlike { positions: 77, ..bring::Unlike::default() });
        let said = refused(Space::Text, dir.path());
        assert!(
            said.contains("cannot read 256 tokens: set truncation.max_length in tokenizer.json to what the model takes"),
            "{said}"
        );
        let file = dir.path().join("tokenizer.json");
        let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&file).expect("it is there")).expect("it is JSON");
        tokenizer["truncation"] = json!({"direction": "Right", "max_length": 77, "strategy": "LongestFirst", "stride": 0});
        std::fs::write(&file, tokenizer.to_string()).expect("there is room");
        assert!(made(Space::Text, dir.path(), &["old car ".repeat(99).as_bytes()])[0].is_some());
    }

    #[test]
    fn c43_pictures_are_cut_from_the_middle_and_what_is_none_has_no_direction() {
        let dir = tempfile::tempdir().expect("a folder");
        bring::image(dir.path());
        let (red, wide, blue) = (
            bring::picture(300, 230, [220, 10, 10]),
            bring::picture(900, 100, [215, 14, 10]),
            bring::picture(224, 224, [10, 10, 220]),
        );
        let made = made(Space::Image, dir.path(), &[&red, b"no picture", &wide, &blue, &red[..60], b"\xff\xd8\xff", b""]);
        let there: Vec<bool> = made.iter().map(Option::is_some).collect();
        assert_eq!(there, [true, false, true, true, false, false, false]);
        let of = |one: usize, other: usize| cosine(made[one].as_ref().expect("some"), made[other].as_ref().expect("some"));
        assert!(of(0, 2) > 0.99 && of(0, 3) < 0.6, "{} {}", of(0, 2), of(0, 3));
        assert_eq!(made[0].as_ref().map(|direction| direction.0.len()), Some(bring::IMAGE_WIDTH));
    }

    #[test]
    fn c43_what_is_wrong_with_an_encoder_is_said_with_what_to_do() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = |name: &str| dir.path().join(name);
        assert!(refused(Space::Text, &folder("none")).contains("tokenizer.json cannot be read"));
        assert!(refused(Space::Image, &folder("none")).contains("there is no model.onnx; put the model there"));
        bring::text(&folder("text"), 0);
        bring::image(&folder("image"));
        let copy = |from: &str, file: &str, to: &str| {
            std::fs::create_dir_all(folder(to)).expect("there is room");
            std::fs::copy(folder(from).join(file), folder(to).join(file)).expect("it is there");
        };
        copy("text", "tokenizer.json", "mixed");
        copy("image", "model.onnx", "mixed");
        assert!(refused(Space::Text, &folder("mixed")).contains("its input `pixel_values`"));
        assert!(refused(Space::Image, &folder("text")).contains("its input `input_ids`"));
        let write = |of: &str, file: &str, text: &str| std::fs::write(folder(of).join(file), text).expect("there is room");
        write("image", "preprocessor_config.json", r#"{"crop_size": 200}"#);
        let said = refused(Space::Image, &folder("image"));
        assert!(said.contains("[images, 3, 200, 200]") && said.contains("change crop_size"), "{said}");
        write("image", "preprocessor_config.json", r#"{"do_resize": false}"#);
        assert!(refused(Space::Image, &folder("image")).contains("do_resize"));
        let digest = |of: &str| open(Space::Text, &folder(of), &Onnx::on_cpu()).map(|encoder| encoder.digest());
        let before = digest("text").expect("it is good");
        let golden = made(Space::Text, &folder("text"), &[b"red apple"])[0].clone().expect("some");
        let golden: Vec<f32> = golden.0.iter().map(|x| f32::from(*x)).collect();
        write("text", "golden.json", &json!({"texts": ["red apple"], "vectors": [golden]}).to_string());
        assert_eq!(digest("text"), Ok(before), "golden pieces change nothing of what is made");
        write("text", "golden.json", &json!({"texts": ["fast car"], "vectors": [golden]}).to_string());
        let said = refused(Space::Text, &folder("text"));
        assert!(said.contains("golden piece 0") && said.contains("of one export"), "{said}");
        std::fs::remove_file(folder("text").join("golden.json")).expect("it is there");
        let digests = ["", "weights", "others"].map(|weights| {
            write("text", "model.onnx_data", weights);
            digest("text").expect("it is good")
        });
        assert!(digests.iter().all(|other| *other != before) && digests[1] != digests[2], "weights beside the model count");
        bring::patches(&folder("patches"));
        let said = refused(Space::Image, &folder("patches"));
        assert!(said.contains("`last_hidden_state`") && said.contains("export a pooled output named image_embeds"), "{said}");
        write("image", "preprocessor_config.json", r#"{"image_std": [0, 0, 0]}"#);
        assert!(refused(Space::Image, &folder("image")).contains("preprocessor_config.json: image_std is [0.0, 0.0, 0.0]"));
        write("mixed", "model.onnx", "no model");
        assert!(refused(Space::Text, &folder("mixed")).contains("ONNX Runtime refuses it"));
        write("mixed", "tokenizer.json", "{}");
        assert!(refused(Space::Text, &folder("mixed")).contains("tokenizer.json is no tokenizer"));
    }

    const SETTINGS: &str = "
[content]
enabled = true
dimensions = 0
text_encoder = 'text'
image_encoder = 'image'
[slates]
refresh_every = '1s'
[explore]
slots = 0
[blend]
content = 10.0
[cold]
content = 10.0
[recovery]
snapshot_every = '1s'
[logging]
filter = 'off'
";

    /// By these settings.
    fn start(dir: &Path) -> Running {
        std::fs::write(dir.join("settings.toml"), SETTINGS).expect("there is room");
        Running::start(dir, &[])
    }

    fn like(run: &Running, user: &str, item: &str) -> String {
        run.send("/v1/events", &[json!({"type": "like", "user_id": user, "item_id": item})])
    }

    /// What stands in a user's feed because it is like something: item and reason.
    fn alike(run: &Running, user: &str) -> Vec<(String, String)> {
        let feed = get(run.shim, &format!("/v1/feeds/home/{user}?k=50")).json();
        let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_string();
        let items = feed["items"].as_array().cloned().unwrap_or_default();
        items.iter().filter(|of| of["source"] == json!("content")).map(|of| (text(of, "item_id"), text(of, "reason"))).collect()
    }

    /// Pieces of a space with this outcome, of this process.
    fn count(run: &Running, space: &str, outcome: &str) -> u64 {
        let metrics = get(run.shim, "/metrics").body;
        let of = |line: &&str| {
            line.starts_with("overdrive_encoded_total")
                && [space, outcome].iter().all(|label| line.contains(&format!("\"{label}\"")))
        };
        metrics.lines().find(of).and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }

    fn ready(run: &Running, space: &str) -> Option<bool> {
        let metrics = get(run.shim, "/metrics").body;
        let of = |line: &&str| line.starts_with("overdrive_encoder_ready") && line.contains(&format!("\"{space}\""));
        metrics.lines().find(of).map(|line| line.ends_with(" 1"))
    }

    fn texts() -> Vec<Value> {
        vec![
            json!({"item_id": "pie", "title": "Red apple", "text": "pie"}),
            json!({"item_id": "tart", "title": "Red apple tart"}),
            json!({"item_id": "again", "title": "Red apple tart"}),
            json!({"item_id": "racer", "title": "Fast car"}),
        ]
    }

    fn pictures() -> Vec<Value> {
        let of = |colour| bring::in_base64(&bring::picture(320, 240, colour));
        vec![
            json!({"item_id": "rose", "image": of([220, 10, 10])}),
            json!({"item_id": "poppy", "image": of([210, 20, 12])}),
            json!({"item_id": "sea", "image": of([10, 10, 220])}),
            json!({"item_id": "noise", "image": bring::in_base64(b"no picture at all")}),
        ]
    }

    /// A run starts without its encoders, so who asks is told.
    #[test]
    fn c43_doctor_tries_the_encoders_that_are_named() {
        let dir = tempfile::tempdir().expect("a folder");
        bring::text(&dir.path().join("text"), 0);
        std::fs::write(dir.path().join("settings.toml"), SETTINGS).expect("there is room");
        let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
        command.arg("doctor").arg("--config").arg(dir.path().join("settings.toml")).current_dir(dir.path());
        command
            .env("OVERDRIVE_SERVICE_PORT", free_port().to_string())
            .env("OVERDRIVE_SERVICE__GRPC_PORT", free_port().to_string());
        let told = command.output().expect("the binary starts");
        let shown = String::from_utf8_lossy(&told.stdout);
        assert!(shown.contains("✓ text encoder") && shown.contains("✗ image encoder"), "{shown}");
        assert!(shown.contains("in image") && shown.contains("there is no model.onnx") && !told.status.success(), "{shown}");
    }

    /// From what is sent over HTTP to what is shown; and a process that is killed and started again encodes nothing twice.
    #[test]
    fn c43_texts_and_images_that_are_sent_get_neighbours_by_content_and_a_restart_encodes_nothing_twice() {
        let dir = tempfile::tempdir().expect("a folder");
        bring::text(&dir.path().join("text"), 0);
        bring::image(&dir.path().join("image"));
        let run = start(dir.path());
        run.send("/v1/items", &texts());
        run.send("/v1/items", &pictures());
        like(&run, "ann", "pie");
        let found = until("what is like the pie is shown", || Some(alike(&run, "ann")).filter(|found| found.len() >= 2));
        let shown: Vec<&str> = found.iter().take(2).map(|(item, _)| item.as_str()).collect();
        assert!(shown.contains(&"tart") && shown.contains(&"again"), "{found:?}");
        assert!(found[0].1 == "because you liked pie", "{found:?}");
        until("all is encoded", || (count(&run, "text", "encoded") == 3 && count(&run, "image", "encoded") == 3).then_some(()));
        until("what is no picture is known to be none", || (count(&run, "image", "nothing") == 1).then_some(()));
        assert_eq!((count(&run, "text", "known"), ready(&run, "text"), ready(&run, "image")), (1, Some(true), Some(true)));
        std::thread::sleep(Duration::from_secs(3)); // a snapshot, and epochs after it
        run.kill(dir.path());

        let run = start(dir.path());
        until("the encoders are ready", || {
            (ready(&run, "text") == Some(true) && ready(&run, "image") == Some(true)).then_some(())
        });
        run.send("/v1/items", &texts());
        run.send("/v1/items", &pictures());
        like(&run, "bob", "rose");
        let found = until("what is like the rose is shown", || Some(alike(&run, "bob")).filter(|found| !found.is_empty()));
        assert_eq!(found[0].0, "poppy", "{found:?}");
        // and the directions of the texts are there as well, or they would have to be encoded, which is counted
        like(&run, "carl", "pie");
        let found = until("what is like the pie is shown", || Some(alike(&run, "carl")).filter(|found| found.len() >= 2));
        let shown: Vec<&str> = found.iter().take(2).map(|(item, _)| item.as_str()).collect();
        assert!(shown.contains(&"tart") && shown.contains(&"again"), "{found:?}");
        let counts = ["encoded", "known", "nothing", "failed", "missing"]
            .map(|outcome| count(&run, "text", outcome) + count(&run, "image", outcome));
        assert_eq!(counts, [0; 5], "nothing was asked for again");
    }

    /// A call of a model cannot be broken off, and this one takes minutes: the process ends without it, and as one that ends in order.
    #[test]
    fn c43_a_process_in_a_long_call_of_a_model_stops_as_any_other() {
        let dir = tempfile::tempdir().expect("a folder");
        bring::text_unlike(
            &dir.path().join("text"),
            bring::Unlike { rounds: 10_000, positions: 300, ..bring::Unlike::default() },
        );
        let mut run = start(dir.path());
        std::thread::sleep(Duration::from_secs(3)); // it has begun to open it
        let pid = rustix::process::Pid::from_child(&run.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let status = until("it ends", || run.child.try_wait().expect("it is ours"));
        assert!(status.success(), "{status}");
    }

    /// Texts that are to be encoded while feeds come: of a slow encoder the work of minutes.
    const TEXTS: usize = 400;

    /// Feeds come as if there were none: where the files are missing or damaged, and where a batch of texts takes seconds.
    #[test]
    fn c43_an_encoder_that_is_missing_broken_or_slow_delays_no_slate() {
        for (name, rounds) in [("broken", 0), ("slow", 200)] {
            let dir = tempfile::tempdir().expect("a folder");
            bring::text(&dir.path().join("text"), rounds);
            if name == "broken" {
                std::fs::write(dir.path().join("text/model.onnx"), "no model").expect("there is room");
            }
            let run = start(dir.path());
            let words = |n: usize| (0..14).map(|at| bring::WORDS[(n >> (at % 8)) % 2 + at % 7]).collect::<Vec<_>>().join(" ");
            let item = |n: usize| json!({"item_id": format!("i{n}"), "title": words(n)});
            run.send("/v1/items", &(0..TEXTS).map(item).collect::<Vec<_>>());
            for n in 0..20 {
                let user = format!("u{n}");
                let token = like(&run, &user, &format!("i{n}"));
                until("the write is in the feed", || {
                    let feed = get_with(run.shim, &format!("/v1/feeds/home/{user}"), &token).json();
                    let items = feed["items"].as_array().map_or(0, Vec::len);
                    (feed["stale"] == json!(false) && feed["fallback"] == json!(false) && items > 0).then_some(())
                });
            }
            let encoded = count(&run, "text", "encoded");
            assert!(encoded < TEXTS as u64, "{name}: feeds came after all was encoded; give it more to do");
            if rounds > 0 {
                until("it has encoded some", || (count(&run, "text", "encoded") > 0).then_some(()));
            } else {
                until("it is counted", || {
                    (count(&run, "text", "missing") > 0 && ready(&run, "text") == Some(false)).then_some(())
                });
                assert_eq!(ready(&run, "image"), Some(false), "its folder is not there");
            }
        }
    }
}
