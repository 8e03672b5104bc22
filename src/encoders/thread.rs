//! The thread that encodes: it opens what the settings name, says by which encoder it works, and answers what the inbox holds.
//!
//! The facts that must stay true: an encoder is named in the input before anything it made; and whatever cannot be opened, encoded or
//! written is told, counted and tried again, while everything else goes on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::inbox::Inbox;
use super::{Encode, record};
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

/// The thread. Dropping it ends it after what is being encoded.
pub struct Encoders {
    inbox: Inbox,
    thread: Option<JoinHandle<()>>,
}

/// How long the thread sleeps at most.
const NAP: Duration = Duration::from_secs(1);
/// When what could not be opened is tried again.
const OPENED_AGAIN: Duration = Duration::from_secs(30);
/// How long it pauses where its records cannot be written.
const UNWRITTEN: Duration = Duration::from_secs(1);
/// Pieces that are encoded at once.
const BATCH: usize = 16;
/// What was made lately that is remembered, for the same content on other items.
const REMEMBERED: usize = 4096;

impl Encoders {
    /// Encodes from now on.
    pub fn start(place: Place) -> Result<Self, String> {
        let inbox = place.inbox.clone();
        let thread = std::thread::Builder::new().name("encoders".to_string()).spawn(move || Bench::new(place).run());
        let thread = thread.map_err(|e| format!("the thread that encodes cannot start: {e}"))?;
        Ok(Self { inbox, thread: Some(thread) })
    }
}

impl Drop for Encoders {
    fn drop(&mut self) {
        self.inbox.stop();
        self.thread.take().into_iter().for_each(|thread| _ = thread.join());
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
                self.ready(space);
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
            match (self.place.open)(space) {
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
            let known = self.made.contains_key(&(space, work.content, digest));
            if !known && new.iter().all(|other| other.content != work.content) {
                new.push(work);
            }
        }
        telemetry::encoded(space, "known", works.len() - new.len());
        let made = encoded(encoder.as_mut(), space, &new);
        for (content, direction) in made {
            self.remember((space, content, digest), direction.map(Arc::new));
        }
        let record = |work: &Arc<Work>| {
            let direction = self.made.get(&(space, work.content, digest))?.clone();
            let item = self.place.names.items.get(work.item.0)?;
            Some(record::encoded(&item, &Encoded { space, content: work.content, encoder: digest, direction }))
        };
        let records: Vec<String> = works.iter().filter_map(record).collect();
        if !records.is_empty() {
            self.write(records);
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
fn encoded(encoder: &mut dyn Encode, space: Space, works: &[&Arc<Work>]) -> Vec<(u64, Option<Direction>)> {
    if works.is_empty() {
        return Vec::new();
    }
    let bodies: Vec<&[u8]> = works.iter().map(|work| &*work.body).collect();
    match encoder.encode(&bodies) {
        Ok(directions) => {
            let nothing = directions.iter().filter(|direction| direction.is_none()).count();
            telemetry::encoded(space, "encoded", works.len() - nothing);
            telemetry::encoded(space, "nothing", nothing);
            works.iter().map(|work| work.content).zip(directions).collect()
        }
        Err(_) if works.len() > 1 => works.iter().flat_map(|work| encoded(encoder, space, &[work])).collect(),
        Err(why) => {
            tracing::warn!(space = space.name(), why, "a piece of content cannot be encoded; it is tried again");
            telemetry::encoded(space, "failed", 1);
            Vec::new()
        }
    }
}
