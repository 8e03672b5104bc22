//! Clients that mean harm, many at once, with an honest one among them: what is hostile costs its own connection or gets its refusal,
//! and the honest are answered as in peace.
//!
//! How much slower the honest are served meanwhile is not measured here but by `cargo bench --bench shim`.

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::client::{Answer, accepted, connect, get, parse, post, rest, send};
use super::frames::{self, frame, head};
use super::stub::{self, Stub};
use super::world::World;

const FEED: &str = "/v1/feeds/home/u1?k=2";
const GET_FEED: &str = "/overdrive.v1.Recommender/GetFeed";
const JSON: &str = "content-type: application/json";
/// No test depends on its length.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client that keeps its connection and asks the same again and again.
struct Honest(TcpStream);

impl Honest {
    fn ask(&mut self) -> Answer {
        self.0.write_all(format!("GET {FEED} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).expect("open");
        let (mut bytes, mut piece) = (Vec::new(), [0; 65_536]);
        loop {
            let n = self.0.read(&mut piece).expect("an answer");
            assert!(n > 0, "an honest client was cut");
            bytes.extend(&piece[..n]);
            let whole = |answer: &Answer| answer.header("content-length") == Some(&answer.body.len().to_string());
            if let Some(answer) = parse(&bytes).filter(whole) {
                return answer;
            }
        }
    }
}

/// Says that it is over, also when what went on fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does harm while an honest client asks on; each of its answers is that of peace.
fn amid(w: &World, harm: impl FnOnce()) {
    let (mut honest, over) = (Honest(connect(w.addr)), AtomicBool::new(false));
    let peace = honest.ask().ids();
    assert_eq!(peace, ["i1", "i2"]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let answer = honest.ask();
                assert_eq!((answer.status, answer.ids()), (200, peace.clone()));
            }
            assert_eq!(honest.ask().ids(), peace, "and once it is over");
        });
        let _over = Over(&over);
        harm();
    });
}

fn world(change: impl Fn(&mut overdrive::shim::Params)) -> World {
    let mut w = World::memory(|params| {
        params.grpc = true;
        change(params);
    });
    super::fill(&mut w);
    w
}

/// What happened to a connection on which nothing was waited for.
fn state(stream: &TcpStream) -> Option<Vec<u8>> {
    let mut piece = [0; 256];
    stream.set_nonblocking(true).expect("it can be set");
    match stream.peek(&mut piece) {
        Ok(n) => Some(piece[..n].to_vec()),
        Err(e) if e.kind() == ErrorKind::WouldBlock => None,
        Err(_) => Some(Vec::new()),
    }
}

/// Raises what this process may open; how many files that is.
fn open_files() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
    maximum.unwrap_or(u64::MAX)
}

#[test]
fn five_hundred_that_drip_their_heads_are_cut() {
    let most = (open_files() / 4).min(500);
    let w = world(|params| params.header_timeout = Duration::from_millis(500));
    amid(&w, || {
        let mut dripping: Vec<TcpStream> = (0..most).map(|_| connect(w.addr)).collect();
        let bytes = b"GET /livez HTTP/1.1\r\nhost: test\r\nx-slow: ".iter().chain(std::iter::repeat(&b'a'));
        let began = Instant::now();
        for byte in bytes {
            dripping.retain_mut(|stream| stream.write_all(&[*byte]).is_ok());
            if dripping.is_empty() {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{} may still drip", dripping.len());
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

/// As many of ten thousand as the process may hold: both ends are in it, and other tests run beside.
#[test]
fn ten_thousand_that_say_nothing_fill_the_house_and_no_more() {
    let files = open_files();
    let (most, places) = ((files / 3).min(10_000) as usize, (files / 8).min(4_096) as usize);
    if most < 10_000 {
        eprintln!("{most} connections instead of 10,000: the limit of open files, {files}, allows no more");
    }
    let w = world(|params| (params.header_timeout, params.connections) = (PATIENCE * 2, places));
    let places = places - 1; // the honest one has the other
    amid(&w, || {
        let idle: Vec<TcpStream> = (0..most).map(|_| connect(w.addr)).collect();
        let began = Instant::now();
        let states = loop {
            let states: Vec<_> = idle.iter().map(state).collect();
            if states.iter().flatten().count() >= most - places {
                break states;
            }
            assert!(began.elapsed() < PATIENCE, "{} are held", states.iter().filter(|state| state.is_none()).count());
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(states.iter().flatten().count(), most - places, "no connection is cut that has a place");
        let told = |said: &Vec<u8>| said.starts_with(b"HTTP/1.1 503 ") && said.ends_with(b"\r\n\r\n");
        assert!(states.iter().flatten().all(told), "who has no place is told so");
    });
    let began = Instant::now();
    while state_of_livez(&w) != Some(200) {
        assert!(began.elapsed() < PATIENCE, "places are not given back");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn state_of_livez(w: &World) -> Option<u16> {
    let mut stream = connect(w.addr);
    let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    rest(&mut stream).map(|answer| answer.status)
}

#[test]
fn bodies_of_64_megabytes_are_refused_eight_at_a_time() {
    let w = world(|_| {});
    amid(&w, || {
        let told = |told: bool| {
            let length = if told { "content-length: 67108864" } else { "transfer-encoding: chunked" };
            let mut stream = connect(w.addr);
            let head = format!("POST /v1/events HTTP/1.1\r\nhost: test\r\n{JSON}\r\n{length}\r\n\r\n");
            stream.write_all(head.as_bytes()).expect("open");
            let piece = match told {
                true => vec![b' '; 0x10000],
                false => [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat(),
            };
            let taken = (0..1024).take_while(|_| stream.write_all(&piece).is_ok()).count();
            assert!(taken < 1024, "all of it was taken");
            // What was said may be lost with a connection that was closed while more came.
            if let Some(answer) = rest(&mut stream) {
                assert_eq!(answer.refusal(), (413, "body_too_large".to_string()));
            }
        };
        std::thread::scope(|scope| (0..8).for_each(|n| drop(scope.spawn(move || told(n % 2 == 0)))));
    });
    assert!(w.logged().is_empty(), "nothing of it reaches the log");
}

/// A GET with bytes as they are.
fn raw(w: &World, target: &[u8], header: &[u8]) -> Answer {
    let mut stream = connect(w.addr);
    let request = [b"GET ", target, b" HTTP/1.1\r\nhost: test\r\nconnection: close\r\n", header, b"\r\n\r\n"].concat();
    stream.write_all(&request).expect("open");
    rest(&mut stream).expect("an answer")
}

#[test]
fn what_is_no_text_is_refused_wherever_it_stands() {
    let w = world(|_| {});
    let code = |answer: Answer| (answer.status, answer.refusal().1);
    let bad = |code: &str| (400, code.to_string());
    amid(&w, || {
        assert_eq!(code(get(w.addr, "/v1/feeds/home/%ff")), bad("bad_path"));
        assert_eq!(code(get(w.addr, "/v1/items/%c3%28/features")), bad("bad_path"));
        for query in ["category=%ff", "exclude=%c3%28", "%ff=1", "k=1&cursor=%f0%9f%98"] {
            assert_eq!(code(get(w.addr, &format!("/v1/feeds/home/u1?{query}"))), bad("bad_query"), "{query}");
        }
        assert_eq!(raw(&w, b"/v1/feeds/home/\xff\xfe", b"x: y").status, 400, "by hyper");
        assert_eq!(raw(&w, b"/v1/feeds/home/u1?category=\xc3\x28", b"x: y").status, 400, "by hyper");
        assert_eq!(code(raw(&w, FEED.as_bytes(), b"x-overdrive-token: \xff\xfe")), bad("bad_token"));
        for harmless in ["x-request-id", "if-none-match", "authorization", "user-agent"] {
            let answer = raw(&w, FEED.as_bytes(), &[harmless.as_bytes(), b": \xff\xfe"].concat());
            assert_eq!((answer.status, answer.ids()), (200, vec!["i1".to_string(), "i2".to_string()]), "{harmless}");
        }
        assert_eq!(raw(&w, FEED.as_bytes(), b"x-\xff: y").status, 400, "by hyper");
        for path in ["/v1/events", "/v1/feeds/home", "/recommend", "/feedback"] {
            let answer = send(w.addr, "POST", path, &[JSON.to_string()], b"{\"user_id\":\"\xff\xfe\"}");
            assert_eq!(code(answer), bad("bad_utf8"), "{path}");
        }
    });
    assert!(w.logged().is_empty());
}

#[test]
fn ids_of_a_hundred_thousand_letters_are_refused_wherever_they_stand() {
    let w = world(|_| {});
    let long = "a".repeat(100_000);
    let bad = |code: &str| (400, code.to_string());
    amid(&w, || {
        for (method, target) in [("GET", "/v1/feeds/home/"), ("DELETE", "/v1/users/"), ("GET", "/v1/feeds/home/u1?exclude=")] {
            assert_eq!(send(w.addr, method, &format!("{target}{long}"), &[], b"").status, 414, "{target}");
        }
        assert_eq!(post(w.addr, "/v1/feeds/home", &json!({"user_ids": ["u1", long]}).to_string()).refusal(), bad("bad_id"));
        assert_eq!(post(w.addr, "/recommend", &json!({"user_id": long}).to_string()).refusal(), bad("bad_id"));
        let excluded = json!({"user_ids": ["u1"], "exclude": [long]}).to_string();
        assert_eq!(post(w.addr, "/v1/feeds/home", &excluded).refusal(), bad("bad_id"));
        let event = json!({"type": "like", "user_id": long, "item_id": "i1"}).to_string();
        let receipt = post(w.addr, "/v1/events", &event).json();
        assert_eq!((&receipt["accepted"], receipt["rejected"].as_array().map(Vec::len)), (&json!(0), Some(1)));
        let token = send(w.addr, "GET", FEED, &[format!("x-overdrive-token: {long}")], b"");
        assert_eq!(token.refusal(), bad("bad_token"));
        let named = send(w.addr, "GET", FEED, &[format!("x-request-id: {long}")], b"");
        assert_eq!((named.status, named.header("x-request-id").map(str::len)), (200, Some(16)), "it is replaced");
        assert_eq!(send(w.addr, "GET", FEED, &[format!("x-long: {long}{long}")], b"").status, 431, "by hyper");
        let many: Vec<String> = (0..200).map(|n| format!("x-{n}: y")).collect();
        assert_eq!(send(w.addr, "GET", FEED, &many, b"").status, 431, "by hyper");
    });
    assert!(w.logged().is_empty(), "nothing of it reaches the log");
}

/// Calls whose requests never end: the hundred-and-first is refused, and none of the others is harmed.
#[test]
fn a_connection_of_grpc_has_a_hundred_streams() {
    let w = world(|_| {});
    let addr = w.grpc.expect("asked for");
    amid(&w, || {
        let mut stream = frames::open(addr);
        let begin = |n: u32| frame(frames::HEADERS, frames::END_HEADERS, 2 * n + 1, &head(GET_FEED, &[]));
        stream.write_all(&(0..101).flat_map(begin).collect::<Vec<_>>()).expect("open");
        let refused = frames::wait(&mut stream, frames::RST_STREAM, 201);
        assert_eq!(refused.code(), frames::REFUSED_STREAM);
        // The first ends its request now, and is answered: user_id is the second field.
        let message = stub::frame(&[0x12, 2, b'u', b'1']);
        stream.write_all(&frame(frames::DATA, frames::END_STREAM, 1, &message)).expect("open");
        let answer = frames::wait(&mut stream, frames::DATA, 1);
        assert!(answer.payload.windows(2).any(|bytes| bytes == b"i1"), "a feed");
    });
    assert_eq!(feed_by_grpc(&w), ["i1", "i2", "i3"]);
}

#[test]
fn a_head_of_more_than_16_kib_is_refused_and_the_connection_goes_on() {
    let w = world(|_| {});
    amid(&w, || {
        let mut stream = frames::open(w.grpc.expect("asked for"));
        let block = head(GET_FEED, &[("x-long", &"a".repeat(20_000))]);
        let (first, second) = block.split_at(16_000);
        let mut bytes = frame(frames::HEADERS, frames::END_STREAM, 1, first);
        bytes.extend(frame(frames::CONTINUATION, frames::END_HEADERS, 1, second));
        stream.write_all(&bytes).expect("open");
        let said = frames::wait(&mut stream, frames::HEADERS, 1).payload;
        // `:status` by its index in the static table, then three bytes of Huffman's code.
        assert!(said.starts_with(&[0x48, 0x83, 0x69, 0x90, 0xff]), "not 431: {said:02x?}");
        let message = stub::frame(&[0x12, 2, b'u', b'1']);
        let mut next = frame(frames::HEADERS, frames::END_HEADERS, 3, &head(GET_FEED, &[]));
        next.extend(frame(frames::DATA, frames::END_STREAM, 3, &message));
        stream.write_all(&next).expect("open");
        assert!(!frames::wait(&mut stream, frames::DATA, 3).payload.is_empty(), "an answer");
    });
}

#[test]
fn a_flood_of_resets_ends_its_connection() {
    let w = world(|_| {});
    amid(&w, || {
        let mut farewells = 0;
        for _ in 0..10 {
            let mut stream = frames::open(w.grpc.expect("asked for"));
            let taken_back = |n: u32| {
                let begun = frame(frames::HEADERS, frames::END_HEADERS, 2 * n + 1, &head(GET_FEED, &[]));
                [begun, frame(frames::RST_STREAM, 0, 2 * n + 1, &frames::CANCEL.to_be_bytes())].concat()
            };
            // It may be closed before all of it is sent.
            let _ = stream.write_all(&(0..10_000).flat_map(taken_back).collect::<Vec<_>>());
            let end = std::iter::from_fn(|| frames::next(&mut stream)).find(|frame| frame.kind == frames::GO_AWAY);
            if let Some(farewell) = end {
                assert_eq!(farewell.code(), frames::ENHANCE_YOUR_CALM);
                assert!(frames::next(&mut stream).is_none(), "closed");
                farewells += 1;
            }
        }
        assert!(farewells > 0, "each connection is cut without a word");
    });
    assert_eq!(feed_by_grpc(&w), ["i1", "i2", "i3"]);
}

fn feed_by_grpc(w: &World) -> Vec<String> {
    let feed = Stub::new(w.grpc.expect("asked for")).call("GetFeed", json!({"user_id": "u1"})).json();
    let items = feed["items"].as_array().expect("items").iter();
    items.map(|item| item["item_id"].as_str().expect("an id").to_string()).collect()
}

/// Sound requests with some bytes made others, to both doors: no panic, and a write is still taken.
#[test]
fn broken_requests_are_nobodys_panic() {
    let w = world(|_| {});
    let http = format!("GET {FEED} HTTP/1.1\r\nhost: test\r\nconnection: close\r\nx-request-id: broken\r\n\r\n").into_bytes();
    let grpc = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(frames::SETTINGS, 0, 0, &[]),
        frame(frames::HEADERS, frames::END_HEADERS, 1, &head(GET_FEED, &[])),
        frame(frames::DATA, frames::END_STREAM, 1, &stub::frame(&[0x12, 2, b'u', b'1'])),
    ]
    .concat();
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    amid(&w, || {
        for n in 0..500 {
            let (addr, sound) = if n % 2 == 0 { (w.addr, &http) } else { (w.grpc.expect("asked for"), &grpc) };
            let mut broken = sound.clone();
            for _ in 0..1 + rng.next_u32() % 4 {
                broken[rng.next_u32() as usize % sound.len()] = rng.next_u32() as u8;
            }
            let mut stream = connect(addr);
            // It may be closed before all of it is sent.
            let _ = stream.write_all(&broken).and_then(|()| stream.shutdown(Shutdown::Write));
            rest(&mut stream);
        }
    });
    accepted(w.addr, "/v1/events", r#"{"type":"like","user_id":"u1","item_id":"i1"}"#);
    let metrics = get(w.addr, "/metrics").body;
    assert!(!metrics.contains("status=\"500\""), "{metrics}");
}
