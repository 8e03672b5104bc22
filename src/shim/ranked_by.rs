//! The model that puts a caller's candidates in order, at work in the shim.
//!
//! What must stay true: a model scores on threads for work that blocks, no more requests at once than the machine has cores, whatever becomes
//! of whoever asked; one that fails, or is too busy, costs its request nothing but the model, is counted, and says why, not more often
//! than every ten seconds.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::Config;
use crate::registry::{self, Registry, RegistryError};
use crate::scoring::rank::{Candidate, Moment, Params, Person, Ranked, rank};
use crate::scoring::ranker::{Model, Ranker, Tally};
use crate::telemetry::RANK_ROWS;

/// How often it is said that a model fails.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// How long a request waits for a thread.
const PATIENCE: Duration = Duration::from_millis(100);

/// A model and who works with it.
pub struct RankedBy {
    model: Model,
    room: Arc<Semaphore>,
    /// Those who wait for work, none of whom has just failed.
    idle: Arc<Mutex<Vec<Ranker>>>,
    said: Mutex<Option<Instant>>,
}

/// One request: for whom, what, when, and how many of it are wanted.
pub struct Request {
    pub params: Params,
    pub person: Person,
    pub candidates: Vec<Candidate>,
    pub moment: Moment,
    pub k: usize,
}

impl Request {
    /// Its order by a model, or by the fixed weights.
    pub fn ranked(&self, by: Option<&mut Ranker>) -> (Vec<Ranked>, Tally) {
        rank(&self.params, &self.person, &self.candidates, self.moment, self.k, by)
    }
}

/// What came of a request: the order, how many candidates were scored, and why a batch failed.
type Done = (Vec<Ranked>, Tally, Option<String>);

/// The model of the settings, read and found good; the error says what to do.
pub fn read(config: &Config) -> Result<Option<Model>, String> {
    let (named, folder) = (&config.service.rank_by, &config.recommend.ranker.registry);
    let model = match named.as_str() {
        "" => return Ok(None),
        file if file.ends_with(".onnx") => registry::load(Path::new(file), &config.onnx).map_err(Into::into),
        version => Registry::open(folder, &config.engine.state_dir)?.load(version, &config.onnx),
    };
    let model = model.map_err(|e: RegistryError| format!("service.rank_by: {e}"))?;
    match model.takes_beyond() {
        None => Ok(Some(model)),
        Some(column) => Err(format!(
            "service.rank_by: the model {named} takes `{column}`, which only the engine knows; train one with `overdrive train --for \
             rank`, or take the columns that schemas/features.md lists as at hand"
        )),
    }
}

impl RankedBy {
    /// With so many threads at most as there are cores.
    pub fn new(model: Model) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { model, room: Arc::new(Semaphore::new(cores)), idle: Arc::default(), said: Mutex::default() }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.model.name
    }

    /// The order of a request, and whether the model has made it.
    pub async fn order(&self, request: Request) -> (Vec<Ranked>, bool) {
        let (asked, request) = (request.candidates.len() as u64, Arc::new(request));
        let done = match tokio::time::timeout(PATIENCE, self.room.clone().acquire_owned()).await {
            Ok(place) => self.on_a_thread(request.clone(), place.expect("nobody closes it")).await,
            Err(_) => Err(format!("no thread was free for it within {PATIENCE:?}")),
        };
        match done {
            Ok((ranked, tally, failed)) => {
                self.note(tally, failed.as_deref());
                (ranked, tally.scored > 0)
            }
            Err(why) => {
                self.note(Tally { scored: 0, unscored: asked }, Some(&why));
                (request.ranked(None).0, false)
            }
        }
    }

    async fn on_a_thread(&self, request: Arc<Request>, place: OwnedSemaphorePermit) -> Result<Done, String> {
        let (model, idle) = (self.model.clone(), self.idle.clone());
        let work = move || {
            let _place = place; // until the work is done, even if nobody waits for it any more
            let waiting = idle.lock().expect("no panic under the lock").pop();
            let mut ranker = waiting.unwrap_or_else(|| Ranker::new(&model));
            let (ranked, tally) = request.ranked(Some(&mut ranker));
            let failed = ranker.failed();
            if failed.is_none() {
                idle.lock().expect("no panic under the lock").push(ranker);
            }
            (ranked, tally, failed)
        };
        tokio::task::spawn_blocking(work).await.map_err(|e| format!("its thread ended: {e}"))
    }

    fn note(&self, Tally { scored, unscored }: Tally, failed: Option<&str>) {
        metrics::counter!(RANK_ROWS, "outcome" => "scored").increment(scored);
        metrics::counter!(RANK_ROWS, "outcome" => "unscored").increment(unscored);
        let Some(reason) = failed else { return };
        let mut said = self.said.lock().expect("no panic under the lock");
        if said.is_none_or(|at| at.elapsed() > SAID_EVERY) {
            *said = Some(Instant::now());
            tracing::warn!(
                model = self.name(),
                reason,
                "the model failed on a caller's candidates; the fixed weights order them"
            );
        }
    }
}
