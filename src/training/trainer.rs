//! The thread that trains when it is due or asked for, and holds what it promoted against what ranked before.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Params;
use super::inbox::Inbox;
use super::measure::{Measured, Wanted, measure};
use super::script::{self, Made};
use super::status::{Attempt, Doing, Promoted, TakenBack};
use super::{schedule, verdict};
use crate::aside::stand_back;
use crate::model::serving::{BLEND, Recipe, Version};
use crate::model::time::{Millis, now_ms};
use crate::registry::{Figures, Onnx, Registry};
use crate::scoring::columns;
use crate::scoring::ranker::Model;
use crate::telemetry;

/// Where things lie.
pub struct Place {
    pub registry: Registry,
    pub onnx: Onnx,
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
/// A training that takes longer is given up.
const LONGEST: Duration = Duration::from_secs(6 * 3600);
/// How often it is written down how far a training is: in a folder, and in an object store.
const SAID_EVERY: Duration = Duration::from_millis(500);
const SAID_AFAR_EVERY: Duration = Duration::from_secs(10);

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
            let (asked, unwritten, stop) = {
                let known = self.inbox.known();
                (known.status.asked.first().copied(), known.unwritten, known.stop)
            };
            let due = next.is_some_and(|next| next <= now_ms()).then_some(self.params.model);
            match asked.or(due) {
                _ if stop => return,
                _ if unwritten => self.inbox.note(|_| ()),
                Some(recipe) => self.train(recipe),
                None if self.watched.elapsed() >= self.params.watch => self.watch(),
                None => {
                    let until = next.map_or(NAP, |next| Duration::from_millis((next - now_ms()).max(0) as u64));
                    self.inbox.wait(until.min(self.params.watch.saturating_sub(self.watched.elapsed())).min(NAP));
                }
            }
        }
    }

    /// When training is next due, written down where that is another moment. What lies ahead of the clock did not happen: clocks are set.
    fn next(&self) -> Option<Millis> {
        let (last, known) = {
            let known = self.inbox.known();
            (known.status.began_ms.unwrap_or(self.started).min(now_ms()), known.status.next_ms)
        };
        let next = schedule::next(last, self.params.at, self.params.every);
        if known != next {
            self.inbox.note(|status| status.next_ms = next);
        }
        next
    }

    fn stops(&self) -> bool {
        self.inbox.known().stop
    }

    fn going_on(&self) -> Result<(), String> {
        if self.stops() { Err("the engine stopped".to_string()) } else { Ok(()) }
    }

    /// Trains, publishes, and has it rank where the settings allow it. What the end of the engine cuts short is begun again by the next.
    fn train(&mut self, model: Recipe) {
        let began_ms = now_ms();
        tracing::info!(model = model.name(), "training begins");
        self.inbox.note(|status| {
            status.began_ms = Some(began_ms);
            status.tries += 1;
            status.running = Some(Doing { model, began_ms, done: 0.0, what: "starting".to_string() });
        });
        let (mut version, mut figures) = (None, None);
        let came = self.made(model, began_ms).and_then(|(name, of)| {
            let (name, of) = (&*version.insert(name), &*figures.insert(of));
            self.judged(name, of)
        });
        if came.is_err() && version.is_none() && self.stops() {
            self.inbox.note(|status| status.tries -= 1);
            return;
        }
        let promoted = came.is_ok();
        let (Ok(why) | Err(why)) = came;
        let outcome = if promoted {
            "promoted"
        } else if version.is_some() {
            "kept"
        } else {
            "failed"
        };
        metrics::counter!(telemetry::TRAININGS, "outcome" => outcome).increment(1);
        tracing::info!(model = model.name(), version, outcome, why, "training ended");
        let why = self.without_places(why);
        self.inbox.note(|status| {
            status.asked.remove(&model);
            (status.running, status.tries) = (None, 0);
            status.last = Some(Attempt { model, began_ms, ended_ms: now_ms(), version, figures, promoted, why });
        });
    }

    /// What readers are told: not where things lie on this machine.
    fn without_places(&self, why: String) -> String {
        let Place { registry, log, out, .. } = &self.place;
        let why = why.replace(&registry.place(), "ranker.registry");
        let places = [
            (registry.folder(), "ranker.registry"),
            (log.as_path(), "the folder of examples"),
            (out.as_path(), "the folder of training"),
            (self.params.python.as_path(), "training.python"),
        ];
        places.into_iter().fold(why, |why, (place, name)| why.replace(&*place.to_string_lossy(), name))
    }

    /// Trains by Python and publishes what came out.
    fn made(&self, recipe: Recipe, began_ms: Millis) -> Result<(String, Figures), String> {
        let Place { registry, onnx, log, out } = &self.place;
        let (out, begun, mut said) = (out.join(began_ms.to_string()), Instant::now(), None::<Instant>);
        let order = script::Order {
            python: &self.params.python,
            recipe: recipe.name(),
            purpose: script::Purpose::Slates,
            log,
            out: &out,
            aside: true,
        };
        let every = if registry.is_remote() { SAID_AFAR_EVERY } else { SAID_EVERY };
        let say = |done, what: String| {
            if said.is_none_or(|said| said.elapsed() >= every) {
                said = Some(Instant::now());
                self.inbox
                    .note(|status| status.running.iter_mut().for_each(|doing| (doing.done, doing.what) = (done, what.clone())));
            }
        };
        let asked = || match begun.elapsed() > LONGEST {
            true => Err(format!("it was not done after {}", humantime::format_duration(LONGEST))),
            false => self.going_on(),
        };
        let made = script::run(&order, say, asked)
            .and_then(|Made { model, figures }| registry.publish(&model, None, now_ms(), onnx).map(|version| (version, figures)));
        let _left = std::fs::remove_dir_all(&out); // it was published, or is of no use
        made
    }

    /// Orders that a version ranks where the settings allow it; says why, or why not.
    fn judged(&mut self, version: &str, figures: &Figures) -> Result<String, String> {
        let now = self.inbox.known().serving.now.clone();
        let measured = self.measured(version, now.as_ref(), figures.held_out_from_ms)?;
        let against = now.map_or(BLEND.to_string(), |now| now.name);
        let why = verdict::promotes(self.params.promote, &measured, self.params.least, &against)?;
        let before = self.inbox.known().status.promoted.clone();
        self.inbox.note(|status| status.promoted = Some(Promoted { version: version.to_string(), since_ms: None }));
        match self.replace(version, &against) {
            Ok(()) => Ok(why),
            Err(error) => {
                self.inbox.note(|status| status.promoted = before);
                Err(format!("{why}; {error}"))
            }
        }
    }

    /// Orders that a version ranks instead of another one, should that still rank.
    fn replace(&mut self, version: &str, instead_of: &str) -> Result<(), String> {
        let order = self.place.registry.replacement(version, instead_of).map_err(|e| e.to_string())?;
        (self.order)(order).map_err(|error| {
            tracing::warn!(version, error, "an order could not be put into the input");
            "the order could not be put into the input; the log of the engine says why".to_string()
        })
    }

    /// A version against another, or the blend, on what was logged from a time on.
    fn measured(&self, version: &str, against: Option<&Version>, from: Millis) -> Result<Measured, String> {
        let ours = self.loaded(version)?;
        let theirs = against.map(|against| self.loaded(&against.name)).transpose()?;
        let wanted =
            Wanted { against: theirs.as_ref(), without: columns::BLEND, log: &self.place.log, from: Some(from), auc: false };
        measure(&ours, &wanted, || self.going_on())
    }

    fn loaded(&self, version: &str) -> Result<Model, String> {
        self.place.registry.load(version, &self.place.onnx).map_err(|e| e.to_string())
    }

    /// Takes back what was promoted from here and is, on what was logged since it ranks, surely behind what ranked before.
    fn watch(&mut self) {
        self.watched = Instant::now();
        let (promoted, serving) = {
            let known = self.inbox.known();
            (known.status.promoted.clone(), known.serving.clone())
        };
        let Some(Promoted { version, since_ms: Some(since) }) = promoted else { return };
        if serving.now.is_none_or(|now| now.name != version) {
            return;
        }
        match self.measured(&version, serving.before.as_ref(), since) {
            Ok(measured) if verdict::worse(&measured, self.params.least) => self.take_back(version, serving.before, &measured),
            Ok(_) => {}
            Err(why) => tracing::warn!(version, why, "what ranks cannot be held against what ranked before"),
        }
    }

    fn take_back(&mut self, version: String, before: Option<Version>, measured: &Measured) {
        let why = format!("behind what ranked before: {}", verdict::told(measured));
        tracing::warn!(version, why, "what was promoted is to be taken back");
        self.inbox.note(|status| status.taking_back = Some(TakenBack { version: version.clone(), why }));
        match self.replace(before.as_ref().map_or(BLEND, |before| &before.name), &version) {
            Ok(()) => metrics::counter!(telemetry::TRAININGS, "outcome" => "taken_back").increment(1),
            Err(why) => tracing::warn!(version, why, "what was promoted could not be taken back; it is tried again"),
        }
    }
}
