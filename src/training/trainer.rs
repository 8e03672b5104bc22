//! The thread that trains when it is due or asked for, and holds what it promoted against what ranked before.

use serde_json::json;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Params;
use super::inbox::Inbox;
use super::measure::{Measured, measure};
use super::script::{self, Made};
use super::status::{Attempt, Doing, Status};
use super::{schedule, verdict};
use crate::aside::stand_back;
use crate::model::serving::{BLEND, Recipe, Version};
use crate::model::time::{Millis, now_ms};
use crate::registry::{Figures, Registry};
use crate::scoring::ranker::Model;
use crate::telemetry;

/// Where things lie.
pub struct Place {
    pub registry: Registry,
    /// The library of ONNX Runtime; empty: the one `ORT_DYLIB_PATH` names.
    pub library: String,
    /// The folder of examples.
    pub log: PathBuf,
    /// A folder for what is not yet a version.
    pub out: PathBuf,
}

/// The thread. Dropping it ends what runs.
pub struct Trainer {
    inbox: Inbox,
    thread: Option<JoinHandle<()>>,
}

/// How long the thread sleeps at most: clocks are set.
const NAP: Duration = Duration::from_secs(60);
/// How often it is written down how far a training is.
const SAID_EVERY: Duration = Duration::from_millis(500);

impl Trainer {
    /// Trains from now on. `order` puts an order into the input.
    pub fn start(
        params: Params,
        place: Place,
        inbox: Inbox,
        order: impl FnMut(String) -> Result<(), String> + Send + 'static,
    ) -> Result<Self, String> {
        let work = Work { params, place, inbox: inbox.clone(), order, watched: Instant::now(), started: now_ms() };
        let thread = std::thread::Builder::new().name("trainer".to_string()).spawn(move || work.run());
        let thread = thread.map_err(|e| format!("the thread that trains cannot start: {e}"))?;
        Ok(Self { inbox, thread: Some(thread) })
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        self.inbox.stop();
        self.thread.take().into_iter().for_each(|thread| _ = thread.join());
    }
}

/// What the thread works with.
struct Work<O> {
    params: Params,
    place: Place,
    inbox: Inbox,
    order: O,
    watched: Instant,
    started: Millis,
}

impl<O: FnMut(String) -> Result<(), String>> Work<O> {
    fn run(mut self) {
        stand_back();
        loop {
            let next = self.next();
            let (asked, stop) = {
                let known = self.inbox.known();
                (known.status.asked, known.stop)
            };
            let due = next.is_some_and(|next| next <= now_ms()).then_some(self.params.model);
            match asked.or(due) {
                _ if stop => return,
                Some(recipe) => self.train(recipe),
                None if self.watched.elapsed() >= self.params.watch => self.watch(),
                None => {
                    let until = next.map_or(NAP, |next| Duration::from_millis((next - now_ms()).max(0) as u64));
                    self.inbox.wait(until.min(self.params.watch.saturating_sub(self.watched.elapsed())).min(NAP));
                }
            }
        }
    }

    /// When training is next due, written down where that is another moment.
    fn next(&self) -> Option<Millis> {
        let known = self.inbox.known();
        let last = known.status.began_ms.unwrap_or(self.started);
        let next = schedule::next(last, self.params.at, self.params.every);
        let changed = known.status.next_ms != next;
        drop(known);
        if changed {
            self.note(|status| status.next_ms = next);
        }
        next
    }

    fn note(&self, change: impl FnOnce(&mut Status)) {
        let written = self.inbox.write(|known| change(&mut known.status));
        written.unwrap_or_else(|why| tracing::warn!(why, "how training stands is not written down"));
    }

    fn going_on(&self) -> Result<(), String> {
        if self.inbox.known().stop { Err("the engine stopped".to_string()) } else { Ok(()) }
    }

    /// Trains, publishes, and has it rank where the settings allow it.
    fn train(&mut self, model: Recipe) {
        let began_ms = now_ms();
        tracing::info!(model = model.name(), "training begins");
        self.note(|status| {
            status.asked = None;
            status.began_ms = Some(began_ms);
            status.running = Some(Doing { model, began_ms, done: 0.0, what: "starting".to_string() });
        });
        let (mut version, mut figures, mut promoted) = (None, None, false);
        let came = self.made(model).and_then(|made| {
            version = Some(made.0.clone());
            figures = Some(made.1.clone());
            self.judged(&made.0, &made.1)
        });
        let why = match came {
            Ok(why) => {
                promoted = true;
                why
            }
            Err(why) => why,
        };
        let outcome = if promoted {
            "promoted"
        } else if version.is_some() {
            "kept"
        } else {
            "failed"
        };
        metrics::counter!(telemetry::TRAININGS, "outcome" => outcome).increment(1);
        tracing::info!(model = model.name(), version, outcome, why, "training ended");
        let ordered = version.clone().filter(|_| promoted);
        self.note(|status| {
            status.running = None;
            status.promoted = ordered.map(|version| (version, None)).or(status.promoted.take());
            status.last = Some(Attempt { model, began_ms, ended_ms: now_ms(), version, figures, promoted, why });
        });
    }

    /// Trains by Python and publishes what came out.
    fn made(&self, recipe: Recipe) -> Result<(String, Figures), String> {
        let Place { registry, library, log, out } = &self.place;
        let order = script::Order { python: &self.params.python, recipe, log, out, aside: true };
        let mut said: Option<Instant> = None;
        let say = |done, what: String| {
            if said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
                said = Some(Instant::now());
                self.note(|status| status.running.iter_mut().for_each(|doing| (doing.done, doing.what) = (done, what.clone())));
            }
        };
        let Made { model, figures } = script::run(&order, say, || self.going_on())?;
        Ok((registry.publish(&model, None, now_ms(), library)?, figures))
    }

    /// Orders that a version ranks where the settings allow it; says why, or why not.
    fn judged(&mut self, version: &str, figures: &Figures) -> Result<String, String> {
        let now = self.inbox.known().serving.now.clone();
        let measured = self.measured(version, now.as_ref(), figures.held_out_from_ms)?;
        let against = now.map_or(BLEND.to_string(), |now| now.name);
        let why = verdict::promotes(self.params.promote, &measured, self.params.least, &against)?;
        (self.order)(self.place.registry.order(version).map_err(|e| e.to_string())?)?;
        Ok(why)
    }

    /// A version against another, or the blend, on what was logged from a time on.
    fn measured(&self, version: &str, against: Option<&Version>, from: Millis) -> Result<Measured, String> {
        let ours = self.loaded(version)?;
        let theirs = against.map(|against| self.loaded(&against.name)).transpose()?;
        measure(&ours, theirs.as_ref(), &self.place.log, Some(from), || self.going_on())
    }

    fn loaded(&self, version: &str) -> Result<Model, String> {
        self.place.registry.load(version, &self.place.library).map_err(|e| e.to_string())
    }

    /// Takes back what was promoted from here and is, on what was logged since it ranks, surely behind what ranked before.
    fn watch(&mut self) {
        self.watched = Instant::now();
        let (promoted, serving) = {
            let known = self.inbox.known();
            (known.status.promoted.clone(), known.serving.clone())
        };
        let Some((version, Some(since))) = promoted.filter(|(version, _)| serving.now.is_some_and(|now| now.name == *version))
        else {
            return;
        };
        match self.measured(&version, serving.before.as_ref(), since) {
            Ok(measured) if verdict::worse(&measured, self.params.least) => self.take_back(version, &measured),
            Ok(_) => {}
            Err(why) => tracing::warn!(version, why, "what ranks cannot be held against what ranked before"),
        }
    }

    fn take_back(&mut self, version: String, measured: &Measured) {
        let why = format!("behind what ranked before: {}", verdict::told(measured));
        match (self.order)(json!({"op": "rollback"}).to_string()) {
            Ok(()) => {
                tracing::warn!(version, why, "what was promoted is taken back");
                metrics::counter!(telemetry::TRAININGS, "outcome" => "taken_back").increment(1);
                self.note(|status| (status.promoted, status.taken_back) = (None, Some((version, why))));
            }
            Err(error) => tracing::warn!(version, error, "what was promoted could not be taken back; it is tried again"),
        }
    }
}
