//! Whatever bytes arrive, nothing panics: every decoder of bytes that others write, on mutations of sound inputs. The mutations are drawn
//! from a seed; a failure names target, seed and number, which make the same input again, and shows it in hex.
//!
//! `make fuzz N=2000000` is the long form. No coverage guides it: a nightly compiler would be needed for that. What has a checksum is
//! mutated inside as well, under a checksum that fits, or nothing behind it would ever be reached.

use bytes::Bytes;
use overdrive::cluster::handshake::{self as cluster, Key, converse};
use overdrive::cluster::member::Member;
use overdrive::cluster::wire::{Stream, Timed};
use overdrive::codec::{Decoder, Limits, protobuf as pb};
use overdrive::config::Layers;
use overdrive::model::epoch::{Binding, Epoch, Pace, Positions, Turn};
use overdrive::model::experiment::Standing;
use overdrive::model::serving::{Serving, Version};
use overdrive::model::{Part, Role, Saved};
use overdrive::scoring::intervals;
use overdrive::sinks::{layout, writer};
use overdrive::sources::log::frame as record;
use overdrive::state::manifest::{FORMAT, Files, Manifest, Name};
use overdrive::state::segment::{self, Segment};
use overdrive::state::{Head, frame as epochs};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, Value};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};
use std::time::Duration;

/// Executions of each target in `cargo test`.
const SHORT: u64 = 3_000;
/// The longest input.
const LONGEST: usize = 8 << 10;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

/// Draws; the same seed draws the same.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// A range of some bytes, short more often than long.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let from = self.below(length + 1);
        let most = if self.below(4) == 0 { length - from } else { (length - from).min(8) };
        from..from + self.below(most + 1)
    }
}

/// What formats are made of and numbers end at.
const PIECES: [&[u8]; 34] = [
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"{\"",
    b"\":",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"1e999",
    b"-0",
    b"9223372036854775807",
    b"18446744073709551616",
    b"0.1",
    b"NaN",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x80\x80\x80\x80\x10",
    b"\x7f",
    b"\xc3\x28",
    b"\xef\xbb\xbf",
    b"[[[[[[[[",
    b"{\"a\":{\"a\":",
    b",",
    b"\n",
    b"=",
    b"'''",
    b"ODEP",
    b"ODGR",
    b"PAR1",
    b"%00",
    b"2025-02-30",
    b"user_id",
    b"type",
];

fn mutate(dice: &mut Dice, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[dice.below(corpus.len())].clone();
    for _ in 0..1 + dice.below(6) {
        let (at, range) = (dice.below(bytes.len() + 1), dice.range(bytes.len()));
        match dice.below(9) {
            0 => bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << dice.below(8)),
            1 => bytes.get_mut(at).into_iter().for_each(|byte| *byte = dice.next() as u8),
            2 => drop(bytes.drain(range)),
            3 => bytes.truncate(at),
            4 => bytes.splice(at..at, PIECES[dice.below(PIECES.len())].iter().copied()).for_each(drop),
            5 => bytes.splice(range, PIECES[dice.below(PIECES.len())].iter().copied()).for_each(drop),
            6 => {
                let copy = bytes[range].to_vec();
                bytes.splice(at..at, copy).for_each(drop);
            }
            7 => {
                let other = &corpus[dice.below(corpus.len())];
                let part = other[dice.range(other.len())].to_vec();
                bytes.splice(at..at, part).for_each(drop);
            }
            _ => {
                let number =
                    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, i32::MAX as u64, u32::MAX as u64, i64::MAX as u64, u64::MAX];
                let number = number[dice.below(number.len())];
                let width = [1, 2, 4, 8][dice.below(4)];
                let number =
                    if dice.below(2) == 0 { number.to_le_bytes() } else { number.rotate_right(8 * width as u32).to_be_bytes() };
                let room = bytes.len().saturating_sub(at).min(width);
                bytes[at..at + room].copy_from_slice(&number[..room]);
            }
        }
        bytes.truncate(LONGEST);
    }
    bytes
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Panics of a thread that expects them are not printed.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                before(panic);
            }
        }));
    });
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, row) in bytes.chunks(32).enumerate() {
        let codes: String = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown: String = row.iter().map(|b| if b.is_ascii_graphic() { *b as char } else { '.' }).collect();
        writeln!(text, "{:06x} {codes:64} {shown}", number * 32).expect("a string takes everything");
    }
    text
}

/// The input of one execution.
fn input(target: &str, seed: u64, at: u64, corpus: &[Vec<u8>]) -> Vec<u8> {
    let name = target.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    mutate(&mut Dice(name.wrapping_add(at.wrapping_mul(0x2545_f491_4f6c_dd1d))), corpus)
}

/// Runs a target on everything of its corpus, then on mutations of it; `FUZZ_AT` runs one of them alone. `run` says whether the input was
/// taken for a sound one.
fn fuzz(target: &str, corpus: Vec<Vec<u8>>, run: impl Fn(&[u8]) -> bool) {
    assert!(corpus.iter().all(|input| run(input)), "{target}: the corpus is sound");
    let (runs, seed) = (number("FUZZ_RUNS", SHORT), number("FUZZ_SEED", 1));
    let only = std::env::var("FUZZ_AT").ok().map(|at| at.parse::<u64>().expect("FUZZ_AT is a number"));
    let range = only.map_or(0..runs, |at| at..at + 1);
    quiet_panics();
    let mut taken = 0;
    for at in range {
        let bytes = input(target, seed, at, &corpus);
        QUIET.set(only.is_none());
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&bytes)));
        QUIET.set(false);
        match outcome {
            Ok(sound) => taken += u64::from(sound),
            Err(_) => panic!(
                "{target} panics; repeat: FUZZ_SEED={seed} FUZZ_AT={at} cargo test --test fuzz {target} -- --exact\n{}",
                hex(&bytes)
            ),
        }
    }
    eprintln!("{target}: {runs} executions, seed {seed}, {taken} inputs taken for sound");
}

fn lines(file: &str) -> Vec<serde_json::Value> {
    file.lines().map(|line| serde_json::from_str(line).expect("a golden row is JSON")).collect()
}

/// What the golden tables send, of the cases whose name begins with one of these.
fn sent(prefixes: &[&str]) -> Vec<Vec<u8>> {
    let all = lines(include_str!("../testdata/codec/accepted.jsonl"));
    let of = |row: &&serde_json::Value| prefixes.iter().any(|p| row["case"].as_str().is_some_and(|case| case.starts_with(p)));
    let text = |row: &serde_json::Value| row["text"].as_str().map_or_else(|| row["sent"].to_string(), str::to_string);
    all.iter().filter(of).map(|row| text(row).into_bytes()).collect()
}

/// As every role, with a key and without, into names of its own.
fn decodes(payload: &[u8]) -> bool {
    let decoder = Decoder::new(Arc::default(), Limits::PUBLISHED);
    let as_role = |role| {
        let key = payload.get(..payload.len().min(9));
        [None, key].map(|key| decoder.decode(role, key, Some(payload), 5).is_ok()).contains(&true)
    };
    Role::ALL.map(as_role).contains(&true)
}

#[test]
fn json() {
    let mut corpus = sent(&["own"]);
    for text in [
        r#"{"item_id":"i9","title":"t","description":"d","categories":["a","b"],"tags":["x"],"author":"ann","language":"en","created_ms":1763600000123,"quality":0.5,"lat":1.5,"lon":2.5,"mature":false}"#,
        r#"{"user_id":"u1","interests":["jazz","tag:x","author:ann"],"categories":["a"],"language":"en","lat":1,"lon":2,"blocked_authors":["b"],"blocked_items":["i"],"allow_mature":true,"bio":"x"}"#,
        r#"{"op":"forget","user_id":"u1"}"#,
        r#"{"op":"revoke","user_ids":["u1","u2"],"from":0,"to":"2025-11-20T01:53:20.123+01:00"}"#,
    ] {
        corpus.push(text.as_bytes().to_vec());
    }
    fuzz("json", corpus, decodes);
}

#[test]
fn foreign() {
    let all = lines(include_str!("../testdata/codec/accepted.jsonl"));
    let text =
        |row: &serde_json::Value| row["text"].as_str().map_or_else(|| row["sent"].to_string(), str::to_string).into_bytes();
    let foreign = |row: &&serde_json::Value| !row["case"].as_str().is_some_and(|case| case.starts_with("own"));
    fuzz("foreign", all.iter().filter(foreign).map(text).collect(), decodes);
}

#[test]
fn protobuf() {
    let event = pb::Event { user_id: "u1".into(), item_id: "i9".into(), event_id: "e".into(), ..pb::Event::default() };
    let mut event = event;
    event.r#type = "view".into();
    let item = pb::Item { item_id: "i9".into(), categories: vec!["a".into()], tags: vec!["b".into()], ..pb::Item::default() };
    let user = pb::User { user_id: "u1".into(), interests: vec!["jazz".into()], ..pb::User::default() };
    let control = pb::Control { op: 1, user_id: "u1".into(), ..pb::Control::default() };
    let plain = [event.encode_to_vec(), item.encode_to_vec(), user.encode_to_vec(), control.encode_to_vec()];
    let framed = plain.iter().map(|bytes| [&[0, 0, 0, 0, 7, 0], &bytes[..]].concat());
    fuzz("protobuf", plain.iter().cloned().chain(framed).collect(), decodes);
}

#[test]
fn config() {
    let small =
        b"[engine]\nworkers = 3\ntick = \"1s\"\n[slates]\nkept = 50\n[weights]\nlike = 2.5\n[kafka]\nbrokers = \"a:1,b:2\"\n";
    let sections = overdrive::config::DEFAULTS.split("\n[").skip(1).map(|section| format!("[{section}").into_bytes());
    let corpus = sections.chain([small.to_vec(), Vec::new()]).collect();
    fuzz("config", corpus, |bytes| Layers::of_text(&String::from_utf8_lossy(bytes)).and_then(|layers| layers.config()).is_ok());
}

fn head(number: u64) -> Head {
    let epoch = Epoch {
        number,
        clock_ms: 7,
        watermark_ms: -3,
        turn: Turn { from: 900, to: 1024 },
        refreshes: Some(9),
        save: true,
        retell: Some((0, 16)),
        model: Some(u64::MAX),
    };
    let positions = Positions::from([((Role::Events, 3), u64::MAX), ((Role::Control, 0), 0)]);
    let now = Some(Version { name: "a".into(), digest: u64::MAX });
    let serving = Serving { now, before: None, refused: Some(3) };
    Head { epoch, pace: Pace { unticked: 1, turn: 3, full: 2 }, serving, positions, workers: 4, config: "c0ffee".into() }
}

fn entries() -> Vec<Saved> {
    let entry = |n: u16| Saved { group: n % 1024, shared: n.is_multiple_of(3), payload: vec![n as u8; usize::from(n % 40)] };
    let mut entries: Vec<Saved> = (0..60).map(|n| entry(n * 17)).collect();
    entries.sort();
    entries
}

fn sound_segment() -> (Segment, Vec<u8>) {
    let entries = entries();
    segment::encode(&entries.iter().collect::<Vec<_>>()).expect("sound entries")
}

#[test]
fn manifest() {
    let parts = vec![Files { uid: "ledger/1".into(), files: vec![sound_segment().0] }];
    let manifest = Manifest { format: FORMAT, generation: 7, written_ms: 1, parent: None, head: head(4812), parts };
    let name = Name { epoch: 4812, generation: 7 };
    let whole = manifest.encode();
    let inner = serde_json::to_vec(&manifest).expect("it is JSON");
    fuzz("manifest", vec![whole, inner], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let digest = blake3::hash(text.as_bytes()).to_hex();
        let framed = format!("{{\"blake3\":\"{digest}\",\n\"manifest\":{text}}}\n");
        Name::parse(&text);
        Manifest::decode(name, bytes).is_ok() | Manifest::decode(name, framed.as_bytes()).is_ok()
    });
}

#[test]
fn segments() {
    let (sound, bytes) = sound_segment();
    fuzz("segments", vec![bytes], |bytes| {
        let blake3 = blake3::hash(bytes).to_hex().to_string();
        let named = Segment { path: segment::path(&blake3), bytes: bytes.len() as u64, blake3, ..sound.clone() };
        segment::decode(&named, &Bytes::copy_from_slice(bytes)).is_ok()
    });
}

#[test]
fn epoch_log() {
    let binding = |number| Binding {
        epoch: head(number).epoch,
        offsets: [((Role::Events, 0), (1, 5))].into(),
        pace: Pace::default(),
        serving: head(number).serving,
        refusals: Vec::new(),
    };
    let header = epochs::Header { begins: true, generation: 3, first: 10 }.encode();
    let frames = [10..13, 13..14].map(|group| epochs::encode(&group.map(binding).collect::<Vec<_>>()));
    let whole = [&header[..], &frames[0], &frames[1]].concat();
    let body = frames[0][12..].to_vec();
    fuzz("epoch_log", vec![whole, body], |bytes| {
        let length = (bytes.len() as u32).to_le_bytes();
        let checked = crc32fast::hash(&[&length, bytes].concat()).to_le_bytes();
        let framed = [&header[..], b"ODGR", &length, &checked, bytes].concat();
        epochs::decode(bytes).is_ok() | epochs::decode(&framed).is_ok()
    });
}

#[test]
fn log_records() {
    let mut whole = Vec::new();
    record::encode(5, b"key", Some(b"payload"), &mut whole);
    record::encode(6, b"", None, &mut whole);
    let body = whole[record::HEADER..whole.len()].to_vec();
    fuzz("log_records", vec![whole, body], |bytes| {
        let framed = [&(bytes.len() as u32).to_le_bytes()[..], &crc32fast::hash(bytes).to_le_bytes(), bytes].concat();
        let sound = |bytes: Vec<u8>| matches!(record::decode(&bytes.into()), record::Decoded::Whole(..));
        sound(bytes.to_vec()) | sound(framed)
    });
}

/// Values of Redis, and the same bytes under a header that fits them.
#[test]
fn redis_values() {
    let corpus: [&[u8]; 4] = [
        include_bytes!("../testdata/layout/slate.bin"),
        include_bytes!("../testdata/layout/card.bin"),
        include_bytes!("../testdata/layout/neighbours.bin"),
        include_bytes!("../testdata/layout/deleted.bin"),
    ];
    fuzz("redis_values", corpus.map(<[u8]>::to_vec).into(), |bytes| {
        let decode = |value: &[u8]| {
            layout::is_deleted_value(value);
            let pages = layout::SlatePages::open(&value.to_vec().into());
            pages
                .iter()
                .for_each(|pages| (0..pages.len()).for_each(|at| _ = (pages.id(at), pages.item(at), pages.places_of("jazz"))));
            let decoded = layout::decode_slate(value).is_ok() | layout::decode_neighbours(value).is_ok();
            let decoded = decoded | layout::decode_card(value).is_ok();
            layout::open(value).is_ok() | decoded
        };
        decode(bytes) | decode(&under_a_fitting_header(bytes))
    });
}

fn under_a_fitting_header(bytes: &[u8]) -> Vec<u8> {
    let mut value = include_bytes!("../testdata/layout/slate.bin")[..24].to_vec();
    value.extend(bytes.get(24..).unwrap_or(bytes));
    let crc = layout_checksum(&value);
    value[20..24].copy_from_slice(&crc.to_be_bytes());
    value
}

/// Of the header before it and the body after it (`schemas/redis.md`).
fn layout_checksum(value: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&value[..20]);
    crc.update(&value[24..]);
    crc.finalize()
}

/// What is said of sums that nobody checked.
fn measure(standing: &Standing) {
    for arm in &standing.arms {
        let measured = [intervals::ctr(&arm.sums), intervals::engagement_seconds(&arm.sums), intervals::taken(&arm.sums)];
        let _: Vec<_> = measured.into_iter().flatten().map(|of| (of.estimate(), of.less(&of))).collect();
    }
}

/// Hashes of Redis: the golden ones, with the bytes in place of some fields' values.
#[test]
fn redis_fields() {
    let golden = [
        include_str!("../testdata/layout/user.json"),
        include_str!("../testdata/layout/interests.json"),
        include_str!("../testdata/layout/meta.json"),
        include_str!("../testdata/layout/deleted.json"),
        include_str!("../testdata/layout/experiments.json"),
        include_str!("../testdata/layout/profile.json"),
        include_str!("../testdata/layout/census.json"),
    ];
    fuzz("redis_fields", golden.map(|text| text.as_bytes().to_vec()).into(), |bytes| {
        let Ok(fields) = serde_json::from_slice::<BTreeMap<String, String>>(bytes) else { return false };
        layout::is_deleted_fields(&fields);
        let (features, interests) = (layout::decode_features(&fields).is_ok(), layout::decode_interests(&fields).is_ok());
        let experiments = layout::decode_experiments(&fields).map(|found| found.standings.iter().for_each(measure)).is_ok();
        let (profile, census) = (layout::decode_profile(&fields).is_ok(), layout::decode_census(&fields).is_ok());
        features
            | interests
            | experiments
            | profile
            | census
            | layout::decode_applied(&fields).is_ok()
            | layout::is_deleted_fields(&fields)
    });
}

/// A message with something in every field.
fn filled(of: MessageDescriptor) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields() {
        let one = match field.kind() {
            Kind::String => Value::String("u1".into()),
            Kind::Bool => Value::Bool(true),
            Kind::Uint32 => Value::U32(7),
            Kind::Uint64 => Value::U64(u64::MAX),
            Kind::Int64 => Value::I64(i64::MIN),
            Kind::Double => Value::F64(0.5),
            Kind::Float => Value::F32(0.5),
            Kind::Bytes => Value::Bytes(b"\x89PNG\r\n"[..].into()),
            Kind::Enum(_) => Value::EnumNumber(1),
            Kind::Message(of) => Value::Message(filled(of)),
            other => panic!("{}: what is in a field of {other:?}?", field.full_name()),
        };
        message.set_field(&field, if field.is_list() { Value::List(vec![one]) } else { one });
    }
    message
}

/// Bodies of gRPC, and the same bytes as one message of its length, read as a request of every method.
#[test]
fn grpc_requests() {
    let framed = |message: &[u8]| [&[0], &(message.len() as u32).to_be_bytes()[..], message].concat();
    let schema = DescriptorPool::decode(include_bytes!("../schemas/service.binpb").as_slice()).expect("sound");
    let service = schema.get_service_by_name("overdrive.v1.Recommender").expect("it is there");
    let readers = overdrive::shim::readers();
    assert_eq!(readers.len(), service.methods().len());
    let mut corpus = Vec::new();
    for method in service.methods() {
        let path = format!("/{}/{}", service.full_name(), method.name());
        let (_, reads) = readers.iter().find(|(known, _)| *known == path).expect("every method is served");
        let message = filled(method.input()).encode_to_vec();
        assert!(reads(&framed(&message)), "{path}");
        corpus.extend([framed(&message), message]);
    }
    let read = |bytes: &[u8]| readers.iter().fold(false, |sound, (_, reads)| reads(bytes) | sound);
    fuzz("grpc_requests", corpus, |bytes| read(bytes) | read(&framed(bytes)));
}

/// Ids as they stand in keys.
#[test]
fn escaped_ids() {
    fuzz("escaped_ids", vec![b"a%7Bb%7D%3A%25%0A".to_vec(), b"plain".to_vec()], |bytes| {
        layout::decode_id(&String::from_utf8_lossy(bytes)).is_some()
    });
}

/// Who knows the secret and says `said`: greeting and hello, each under a proof that fits, or nothing behind the proofs would be reached.
struct Peer<'a> {
    key: &'a Key,
    role: cluster::Role,
    said: &'a [u8],
    fits: bool,
    heard: Vec<u8>,
    says: Vec<u8>,
    step: usize,
}

const GREETING: usize = 8 + 1 + 32;

impl Peer<'_> {
    fn next(&mut self) -> Option<Vec<u8>> {
        let (greeting, hello) = self.said.split_at(self.said.len().min(GREETING));
        let nonce = |greeting: &[u8]| greeting.get(9..GREETING).unwrap_or_default().to_vec();
        let (mine, theirs) = (nonce(greeting), nonce(&self.heard));
        let (asked, answered) = if self.role == cluster::Role::Guest { (&mine, &theirs) } else { (&theirs, &mine) };
        let proof = |of: &[u8]| self.key.proof(self.role, &[asked, answered, of]).as_bytes().to_vec();
        self.step += 1;
        match self.step {
            1 if !self.fits => Some(self.said.to_vec()),
            1 => Some(greeting.to_vec()),
            2 if self.fits => Some(proof(b"")),
            3 if self.fits => Some([&proof(hello.get(4..).unwrap_or_default())[..], hello].concat()),
            _ => None,
        }
    }
}

impl Read for Peer<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.says.is_empty() {
            let Some(more) = self.next() else { return Ok(0) };
            self.says = more;
        }
        let read = self.says.len().min(into.len());
        into[..read].copy_from_slice(&self.says[..read]);
        self.says.drain(..read);
        Ok(read)
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.heard.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for Peer<'_> {
    fn wait_at_most(&self, _: Duration) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn handshake() {
    let member = |process, generation| Member {
        name: "overdrive".into(),
        process,
        processes: 2,
        workers: 1,
        key_groups: 1024,
        version: "1".into(),
        program: "p".into(),
        settings: [("slates.kept".into(), "200".into())].into(),
        generation,
    };
    let said = |member: &Member| {
        let hello = member.encode();
        [b"OVRDRIVE\x01", &[7; 32][..], &(hello.len() as u32).to_be_bytes(), &hello].concat()
    };
    let (leader, guest, key) = (member(0, Some(7)), member(1, None), Key::of("open"));
    let corpus = [&leader, &guest].map(said).to_vec();
    fuzz("handshake", corpus, |said| {
        let meets = |me: &Member, mine, role, fits| {
            let mut peer = Peer { key: &key, role, said, fits, heard: Vec::new(), says: Vec::new(), step: 0 };
            converse(&mut Timed::new(&mut peer, Duration::from_secs(60)), &key, mine, me).is_ok()
        };
        let one = meets(&leader, cluster::Role::Leader, cluster::Role::Guest, true);
        let other = meets(&guest, cluster::Role::Guest, cluster::Role::Leader, true);
        assert!(!meets(&leader, cluster::Role::Leader, cluster::Role::Guest, false), "who proves nothing is let in");
        one | other
    });
}

/// What the writer left, as a snapshot holds it. (Operators read their own entries only behind a digest that agrees.)
#[test]
fn what_a_writer_left() {
    let writer::Left { shown, next, round, forgotten, .. } = writer::Left::default();
    let marks = (shown, next, round, forgotten);
    let marks = [&[0], &postcard::to_stdvec(&marks).expect("plain data")[..]].concat();
    let entry = |payload: &[u8]| Saved { group: 0, shared: false, payload: payload.to_vec() };
    fuzz("what_a_writer_left", vec![marks], |bytes| {
        let parts = [Part { uid: writer::UID.to_string(), entries: vec![entry(bytes)] }];
        let dirty = [Part { uid: writer::UID.to_string(), entries: vec![entry(&[&[1], bytes].concat())] }];
        writer::leaving(&parts).is_ok() & writer::Left::of(&parts).is_ok() | writer::Left::of(&dirty).is_ok()
    });
}
