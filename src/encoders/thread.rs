//! The thread that encodes: it opens what the settings name, says by which encoder it works, and answers what the inbox holds.
//!
//! The facts that must stay true: an encoder is named in the input before anything it made; whatever cannot be opened, encoded or written
//! is told, counted and tried again, while everything else goes on; and who stops it waits for a moment and no longer, whatever a model does.

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::inbox::Inbox;
use super::{Encode, caught, record};
use crate::aside::stand_back;
use crate::model::Names;
use crate::model::content::{Direction, Encoded, Space, Work};
use crate::telemetry;

/// Opens what encodes a space.
pub type Open = Box<dyn FnMut(Space) -> Result<Box<dyn Encode>, String> + Send>;
/// Puts records into the control input.
pub type Write = Box<dyn FnMut(Vec<String>) -> Result<(), String> + Send>;

/// What the thread works with.
pub struct Place {
    /// What is encoded.
    pub spaces: Vec<Space>,
    pub inbox: Inbox,
    pub names: Arc<Names>,
    pub open: Open,
    pub write: Write,
}

/// The thread. Dropping it tells it to stop and waits for it, but not for long.
pub struct Encoders {
    inbox: Inbox,
    thread: Option<JoinHandle<()>>,
    /// Nothing comes here; it closes when the thread ends.
    ended: Receiver<Infallible>,
}

/// What the thread is called.
const NAME: &str = "encoders";
/// How long who drops it waits: a call of a model cannot be broken off, and may take longer than a process has to stop.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// How long the thread sleeps at most.
const NAP: Duration = Duration::from_secs(1);
/// When what could not be opened is tried again.
const OPENED_AGAIN: Duration = Duration::from_secs(30);
/// How long it pauses where its records cannot be written.
const UNWRITTEN: Duration = Duration::from_secs(1);
/// Pieces that are taken at once.
const BATCH: usize = 16;
/// Pieces an encoder is given at once; before each time it is looked whether to stop.
const AT_ONCE: usize = 8;
/// What was made lately that is remembered, for the same content on other items.
const REMEMBERED: usize = 4096;

/// Whether a thread was left in a call of a model, or of the broker.
static LEFT: AtomicBool = AtomicBool::new(false);

/// Whether a model may still be called though its encoders were stopped: what ends the process then must not clean up under it.
pub fn one_is_left() -> bool {
    LEFT.load(Ordering::Acquire)
}

impl Encoders {
    /// Encodes from now on.
    pub fn start(place: Place) -> Result<Self, String> {
        let inbox = place.inbox.clone();
        let (runs, ended) = bounded(0);
        let run = move || {
            let _runs = runs;
            Bench::new(place).run();
        };
        let thread = std::thread::Builder::new().name(NAME.to_string()).spawn(run);
        let thread = thread.map_err(|e| format!("the thread that encodes cannot start: {e}"))?;
        Ok(Self { inbox, thread: Some(thread), ended })
    }

    /// Tells it to stop after the call of a model it is in, and does not wait for that.
    pub fn stop(&self) {
        self.inbox.stop();
    }
}

impl Drop for Encoders {
    fn drop(&mut self) {
        self.stop();
        match self.ended.recv_timeout(ENDS_WITHIN) {
            Err(RecvTimeoutError::Timeout) => {
                LEFT.store(true, Ordering::Release);
                tracing::warn!(thread = NAME, waited = ?ENDS_WITHIN, "a call of a model, or of the broker, takes long; its thread is left to the end of the process");
            }
            _ => self.thread.take().into_iter().for_each(|thread| _ = thread.join()),
        }
    }
}

/// What encodes one space.
#[derive(Default)]
struct Desk {
    encoder: Option<Box<dyn Encode>>,
    /// When it was last tried to open it, and what was wrong with it.
    tried: Option<Instant>,
    wrong: String,
    /// Whether the input names it.
    named: bool,
}

/// A piece by its space, its content and what encoded it.
type Known = (Space, u64, u64);

struct Bench {
    place: Place,
    desks: BTreeMap<Space, Desk>,
    made: BTreeMap<Known, Option<Arc<Direction>>>,
    oldest: VecDeque<Known>,
    /// Whether it was told that records cannot be written.
    unwritten: bool,
}

impl Bench {
    fn new(place: Place) -> Self {
        let desks = place.spaces.iter().map(|space| (*space, Desk::default())).collect();
        Self { place, desks, made: BTreeMap::new(), oldest: VecDeque::new(), unwritten: false }
    }

    fn run(mut self) {
        stand_back();
        while !self.place.inbox.stops() {
            for space in self.place.spaces.clone() {
                if !self.place.inbox.stops() {
                    self.ready(space); // opening takes seconds
                }
            }
            let works = self.place.inbox.take(BATCH, NAP);
            if let Some(space) = works.first().map(|work| work.space) {
                self.answer(space, works);
            }
        }
    }

    /// Opens what encodes a space, and names it in the input.
    fn ready(&mut self, space: Space) {
        let Some(desk) = self.desks.get_mut(&space) else { return };
        if desk.encoder.is_none() && desk.tried.is_none_or(|tried| tried.elapsed() >= OPENED_AGAIN) {
            desk.tried = Some(Instant::now());
            match caught(|| (self.place.open)(space)) {
                Ok(encoder) => {
                    let digest = format!("{:016x}", encoder.digest());
                    tracing::info!(space = space.name(), digest, "an encoder is ready");
                    (desk.encoder, desk.named) = (Some(encoder), false);
                }
                Err(why) if why != desk.wrong => {
                    tracing::warn!(why, "what it would encode stays without a direction; it is tried again");
                    desk.wrong = why;
                }
                Err(_) => {}
            }
            telemetry::encodes(space, desk.encoder.is_some());
        }
        let digest = desk.encoder.as_ref().map(|encoder| encoder.digest()).filter(|_| !desk.named);
        if let Some(digest) = digest {
            let named = self.write(vec![record::encoder(space, digest)]);
            self.desks.entry(space).or_default().named = named;
        }
    }

    /// Encodes pieces of one space and writes what came of them. What failed is not written: it is asked for again.
    fn answer(&mut self, space: Space, works: Vec<Arc<Work>>) {
        let desk = self.desks.get_mut(&space).filter(|desk| desk.named);
        let Some(encoder) = desk.and_then(|desk| desk.encoder.as_mut()) else {
            return telemetry::encoded(space, "missing", works.len());
        };
        let digest = encoder.digest();
        let mut new: Vec<&Arc<Work>> = Vec::new();
        for work in &works {
            let made = self.made.contains_key(&(space, work.content, digest));
            if !made && new.iter().all(|other| other.content != work.content) {
                new.push(work);
            }
        }
        new.sort_by_key(|work| work.body.len()); // texts of nearly one length are encoded together
        let made: Vec<_> = new.chunks(AT_ONCE).flat_map(|works| encoded(encoder.as_mut(), &self.place, works)).collect();
        let newly = made.len();
        for (content, direction) in made {
            self.remember((space, content, digest), direction.map(Arc::new));
        }
        let record = |work: &Arc<Work>| {
            let direction = self.made.get(&(space, work.content, digest))?.clone();
            let item = self.place.names.items.get(work.item.0)?;
            Some(record::encoded(&item, &Encoded { space, content: work.content, encoder: digest, direction }))
        };
        let records: Vec<String> = works.iter().filter_map(record).collect();
        let (answered, stops) = (records.len(), self.place.inbox.stops());
        telemetry::encoded(space, "failed", if stops { 0 } else { works.len() - answered });
        if answered > 0 && self.write(records) {
            telemetry::encoded(space, "known", answered.saturating_sub(newly));
        }
    }

    fn remember(&mut self, known: Known, direction: Option<Arc<Direction>>) {
        if self.made.insert(known, direction).is_none() {
            self.oldest.push_back(known);
        }
        while self.oldest.len() > REMEMBERED {
            self.oldest.pop_front().into_iter().for_each(|oldest| _ = self.made.remove(&oldest));
        }
    }

    /// Whether records were written; if not, it pauses.
    fn write(&mut self, records: Vec<String>) -> bool {
        let written = (self.place.write)(records);
        match &written {
            Ok(()) => self.unwritten = false,
            Err(why) => {
                if !std::mem::replace(&mut self.unwritten, true) {
                    tracing::warn!(why, "what encoders make cannot be put into the input; it is tried again");
                }
                self.place.inbox.nap(UNWRITTEN);
            }
        }
        written.is_ok()
    }
}

/// What an encoder makes of pieces, by their content. Where it fails on all of them, each is tried alone: one must not spoil the others.
fn encoded(encoder: &mut dyn Encode, place: &Place, works: &[&Arc<Work>]) -> Vec<(u64, Option<Direction>)> {
    if place.inbox.stops() {
        return Vec::new();
    }
    let bodies: Vec<&[u8]> = works.iter().map(|work| &*work.body).collect();
    match (caught(|| encoder.encode(&bodies)), works) {
        (Ok(directions), _) => {
            let (space, nothing) = (works[0].space, directions.iter().filter(|direction| direction.is_none()).count());
            telemetry::encoded(space, "encoded", works.len() - nothing);
            telemetry::encoded(space, "nothing", nothing);
            works.iter().map(|work| work.content).zip(directions).collect()
        }
        (Err(why), [work]) => {
            let item = place.names.items.get(work.item.0);
            tracing::warn!(item = item.as_deref(), space = work.space.name(), why, "what cannot be encoded is tried again");
            Vec::new()
        }
        (Err(_), _) => works.iter().flat_map(|work| encoded(encoder, place, &[work])).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Sender, unbounded};
    use serde_json::Value;

    /// Fails on what holds a body that begins with `!`, panics on `#`, makes nothing of `?`. Tells of a call, and then waits for leave, if it
    /// must.
    struct Fake {
        calls: Sender<Vec<String>>,
        leave: Option<Receiver<()>>,
    }

    impl Encode for Fake {
        fn digest(&self) -> u64 {
            7
        }

        fn encode(&mut self, bodies: &[&[u8]]) -> Result<Vec<Option<Direction>>, String> {
            let said = bodies.iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect();
            let _nobody_listens = self.calls.send(said);
            self.leave.iter().for_each(|leave| _ = leave.recv());
            assert!(!bodies.iter().any(|body| body.starts_with(b"#")), "a body that nobody thought of");
            if bodies.iter().any(|body| body.starts_with(b"!")) {
                return Err("it cannot".to_string());
            }
            Ok(bodies.iter().map(|body| Direction::of(&[f32::from(u8::from(*body != b"?"))])).collect())
        }
    }

    struct Scene {
        encoders: Encoders,
        inbox: Inbox,
        names: Arc<Names>,
        calls: Receiver<Vec<String>>,
        records: Receiver<Value>,
        /// How often writing fails.
        fails: Sender<()>,
    }

    fn scene(leave: Option<Receiver<()>>, open: impl Fn() -> Result<(), String> + Send + 'static, failures: usize) -> Scene {
        let (calls_in, calls) = unbounded();
        let (records_in, records) = unbounded();
        let (fails, failing) = unbounded::<()>();
        (0..failures).for_each(|_| fails.send(()).expect("it is there"));
        let (inbox, names) = (Inbox::new(1_000), Arc::new(Names::default()));
        let fake = move |_| {
            open()?;
            Ok(Box::new(Fake { calls: calls_in.clone(), leave: leave.clone() }) as Box<dyn Encode>)
        };
        let write = move |records: Vec<String>| {
            if failing.try_recv().is_ok() {
                return Err("the log is away".to_string());
            }
            let read = |record: &String| serde_json::from_str(record).expect("a record is JSON");
            records.iter().for_each(|record| _ = records_in.send(read(record)));
            Ok(())
        };
        let (open, write): (Open, Write) = (Box::new(fake), Box::new(write));
        let place = Place { spaces: vec![Space::Text], inbox: inbox.clone(), names: names.clone(), open, write };
        Scene { encoders: Encoders::start(place).expect("a thread"), inbox, names, calls, records, fails }
    }

    /// Longer than anything here takes on any machine.
    const PATIENCE: Duration = Duration::from_secs(60);

    impl Scene {
        fn call(&self) -> Vec<String> {
            self.calls.recv_timeout(PATIENCE).expect("a call")
        }

        fn offer(&self, item: &str, body: &str) {
            let item = self.names.item(item).expect("no collision");
            let content = crate::model::content::hash(body.as_bytes());
            self.inbox.offer(Arc::new(Work { item, space: Space::Text, content, body: body.as_bytes().into() }));
        }

        fn record(&self) -> Value {
            self.records.recv_timeout(PATIENCE).expect("a record")
        }

        fn items(&self, count: usize) -> Vec<(String, bool)> {
            let item = |record: Value| {
                assert_eq!((&record["op"], &record["digest"]), (&"encoded".into(), &format!("{:016x}", 7).into()));
                (record["item_id"].as_str().expect("an id").to_string(), record.get("direction").is_some())
            };
            (0..count).map(|_| item(self.record())).collect()
        }
    }

    #[test]
    fn c43_an_encoder_is_named_first_and_the_same_content_is_encoded_once() {
        let (give, leave) = unbounded();
        let scene = scene(Some(leave), || Ok(()), 2);
        for (item, body) in [("a", "one"), ("b", "one"), ("c", "?")] {
            scene.offer(item, body);
        }
        let named = scene.record(); // at the third try
        assert_eq!((named["op"].as_str(), named["space"].as_str()), (Some("encoder"), Some("text")));
        // what was offered before it was named may be asked for again
        ["a", "b"].iter().for_each(|item| scene.offer(item, "one"));
        scene.offer("c", "?");
        (0..9).for_each(|_| give.send(()).expect("it listens"));
        let mut answered = scene.items(3);
        answered.sort();
        answered.dedup();
        assert!(answered.contains(&("a".to_string(), true)) && answered.contains(&("c".to_string(), false)), "{answered:?}");
        drop(scene.encoders);
        let calls: Vec<String> = scene.calls.try_iter().flatten().collect();
        assert_eq!(calls.iter().filter(|body| *body == "one").count(), 1, "{calls:?}");
        drop(scene.fails);
    }

    #[test]
    fn c43_one_piece_that_cannot_be_encoded_does_not_spoil_the_others() {
        let (give, leave) = unbounded();
        let scene = scene(Some(leave), || Ok(()), 0);
        scene.record();
        for (item, body) in [("first", "first"), ("a", "one"), ("bad", "!"), ("worse", "#"), ("b", "two")] {
            scene.offer(item, body);
        }
        (0..99).for_each(|_| give.send(()).expect("it listens"));
        let all: Vec<(String, bool)> = ["first", "a", "b"].map(|item| (item.to_string(), true)).into();
        assert_eq!(scene.items(3), all);
        scene.offer("c", "three");
        assert_eq!(scene.items(1), [("c".to_string(), true)], "neither an error nor a panic ends it");
    }

    /// A bench on the thread of the test; the encoder panics as it is opened the first time, and records cannot be written the first time.
    fn bench(names: Arc<Names>) -> Bench {
        let (mut opened, mut written) = (0, 0);
        let open = move |_| {
            opened += 1;
            assert!(opened > 1, "a file that nobody thought of");
            Ok(Box::new(Fake { calls: unbounded().0, leave: None }) as Box<dyn Encode>)
        };
        let write = move |_| {
            written += 1;
            if written == 1 { Err("the log is away".to_string()) } else { Ok(()) }
        };
        Bench::new(Place { spaces: vec![Space::Text], inbox: Inbox::new(1), names, open: Box::new(open), write: Box::new(write) })
    }

    #[test]
    fn c43_each_piece_is_counted_by_what_became_of_it() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let told = recorder.handle();
        let count = |outcome: &str| -> u64 {
            let of = format!("{}{{space=\"text\",outcome=\"{outcome}\"}} ", telemetry::ENCODED);
            told.render().lines().find_map(|line| line.strip_prefix(&of)?.parse().ok()).unwrap_or(0)
        };
        let counts = || ["missing", "encoded", "nothing", "failed", "known"].map(count);
        let names = Arc::new(Names::default());
        let works: Vec<Arc<Work>> = [("a", "one"), ("twin of a", "one"), ("bad", "!"), ("twin of bad", "!"), ("c", "?")]
            .map(|(item, body)| {
                let (item, content) = (names.item(item).expect("no collision"), crate::model::content::hash(body.as_bytes()));
                Arc::new(Work { item, space: Space::Text, content, body: body.as_bytes().into() })
            })
            .into();
        metrics::with_local_recorder(&recorder, || {
            let mut bench = bench(names.clone());
            bench.ready(Space::Text); // that it panics is told, and nothing dies
            bench.answer(Space::Text, works.clone());
            assert_eq!(counts(), [5, 0, 0, 0, 0]);
            bench.desks.entry(Space::Text).or_default().tried = None;
            bench.ready(Space::Text); // there, but it cannot be named
            bench.answer(Space::Text, works.clone());
            assert_eq!(counts(), [10, 0, 0, 0, 0]);
            bench.ready(Space::Text);
            bench.answer(Space::Text, works.clone());
            assert_eq!(counts(), [10, 1, 1, 2, 1]);
            bench.answer(Space::Text, works);
            assert_eq!(counts(), [10, 1, 1, 4, 4]);
        });
    }

    /// Before an encoder is given more it is looked whether to stop; after that it is given nothing, of a batch as of pieces that are tried alone.
    #[test]
    fn c43_who_stops_it_waits_for_one_call_at_most() {
        for (bodies, begun) in [((10..26).map(|n| n.to_string()).collect::<Vec<_>>(), AT_ONCE), (vec!["!".into(), "a".into()], 2)]
        {
            let (give, leave) = unbounded();
            let scene = scene(Some(leave), || Ok(()), 0);
            scene.record();
            scene.offer("first", "first");
            assert_eq!(scene.call(), ["first"]);
            bodies.iter().for_each(|body| scene.offer(body, body));
            give.send(()).expect("it listens");
            assert_eq!(scene.call().len(), begun);
            scene.encoders.stop();
            drop(give);
            drop(scene.encoders);
            assert_eq!(scene.calls.try_iter().next(), None);
        }
    }

    #[test]
    fn c43_a_call_that_never_returns_holds_nobody_up_who_stops() {
        let (give, leave) = unbounded();
        let scene = scene(Some(leave), || Ok(()), 0);
        scene.record();
        scene.offer("a", "one");
        scene.call();
        let (done, stopped) = bounded::<()>(1);
        std::thread::spawn(move || {
            drop(scene.encoders);
            done.send(()).expect("the test listens");
        });
        stopped.recv_timeout(PATIENCE).expect("the thread is left alone");
        drop(give);
    }

    /// Whatever the encoder does, who leaves something for it is not held up.
    #[test]
    fn c43_leaving_work_for_an_encoder_that_hangs_or_is_not_there_takes_no_time() {
        let (give, leave) = unbounded();
        let stuck = scene(Some(leave), || Ok(()), 0);
        stuck.record();
        let missing = scene(None, || Err("no file".to_string()), 0);
        stuck.offer("first", "first");
        assert_eq!(stuck.call(), ["first"]);
        for n in 0..5_000 {
            stuck.offer(&format!("i{n}"), &format!("text {n}"));
            missing.offer(&format!("i{n}"), &format!("text {n}"));
        }
        assert!(stuck.calls.try_recv().is_err() && stuck.records.try_recv().is_err(), "it is in its first call");
        drop(give); // it goes on
        assert!(stuck.items(1)[0].1);
        drop((stuck.encoders, missing.encoders));
        assert!(missing.records.try_recv().is_err() && missing.calls.try_recv().is_err());
    }
}
