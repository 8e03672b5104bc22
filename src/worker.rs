//! The engine: the only place that knows everybody. It hands epochs to the workers, steps or parks them, and gathers what they say of
//! each epoch for the writer.
//!
//! ```text
//! source ▶ feed ──cut──▶ worker 0 … n ──parts──▶ collector ──completed epochs──▶ writer ▶ store
//!            ▲                                       │
//!            └──────────────── credit ◀──────────────┘
//! ```
//! The facts that must stay true: an epoch is completed when every worker has passed it, in order; credit goes back only when the
//! epoch is queued for the writer, a bounded queue, so a store that is away holds the input back in the end; and a thread that panics
//! takes the process with it (`failstop`).

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;
use timely::communication::WorkerGuards;

use crate::cluster::ClusterError;
use crate::codec::{Decoder, Limits};
use crate::config::Config;
use crate::dataflows;
use crate::encoders;
use crate::feed::{Credit, Cut, Cutter, Feed, Models, Topics, Wishes};
use crate::model::changes::Account;
use crate::model::content::Space;
use crate::model::forget::{Eraser, Order};
use crate::model::time::now_ms;
use crate::model::{Binding, Change, Epoch, Handed, Names, Role, Row};
use crate::privacy::{self, Privacy};
use crate::recovery::{Keeper, Recovery, RecoveryError, Taken};
use crate::registry::{self, Registry, RegistryError, Shelf};
use crate::scoring::ranker::Finder;
use crate::sinks;
use crate::sinks::changes;
use crate::sinks::dead_letters::DeadLetters;
use crate::sinks::encode::Encoder;
use crate::sinks::examples::{self, Examples};
use crate::sinks::impressions::{self, Impressions};
use crate::sinks::writer::{self, Hooks, Stats, Writer};
use crate::sinks::{Applied, Completed, Save, Store};
use crate::sources::{self, Kind, Source, SourceError};
use crate::telemetry;
use crate::training::Inbox;
use crate::watch::{self, Progress};

mod crew;
mod failstop;
mod peers;

use crew::{Common, Led, Told};
pub use peers::Follower;

/// Completed epochs that may wait for the writer.
const WAITING: usize = 64;

/// A running engine.
pub struct Engine {
    wishes: Arc<Wishes>,
    feed: JoinHandle<Result<(), SourceError>>,
    workers: WorkerGuards<()>,
    collector: JoinHandle<()>,
    writer: Writer,
    keeper: Option<Arc<Keeper>>,
    training: Option<Inbox>,
    encoding: Option<Encoding>,
}

/// Where pieces of content go that are to be encoded, and what items are called.
#[derive(Clone)]
pub struct Encoding {
    pub inbox: encoders::Inbox,
    pub names: Arc<Names>,
}

/// What the collector hears.
enum Said {
    /// The feed cut an epoch.
    Cut(Binding, Accepted),
    /// A worker passed an epoch, with what changed there, and what operators handed over.
    Part(u64, Vec<Change>, Vec<Handed>),
    /// Bindings up to this epoch are durable.
    Durable(u64),
}

/// When the log accepted each event of an epoch, and the loss that is made good with it.
type Accepted = (Vec<i64>, Option<u64>);

/// A worker's share of an epoch.
type Slice = (Epoch, Vec<Row>);

/// How to reach the workers: a channel each, and the thread to wake.
#[derive(Clone)]
struct Desk {
    slices: Vec<Sender<Slice>>,
    threads: Arc<Vec<OnceLock<Thread>>>,
    progress: Arc<Progress>,
}

impl Said {
    /// What a worker says of an epoch it has passed: what it was told, and what its own operators handed over.
    fn of(epoch: u64, told: &mut Vec<Told>, mut kept: Vec<Handed>) -> Self {
        let mut changes = Vec::with_capacity(told.len());
        for told in told.drain(..) {
            match told {
                Told::Changed(change) => changes.push(change),
                Told::Kept(part) => kept.push(part.into()),
            }
        }
        Said::Part(epoch, changes, kept)
    }
}

/// Why an engine does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Another start may help.
    #[error("{0}")]
    Retry(String),
    /// Somebody must change something.
    #[error("{0}")]
    Stop(String),
}

impl From<String> for StartError {
    fn from(reason: String) -> Self {
        Self::Retry(reason)
    }
}

impl From<SourceError> for StartError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Retry(reason) => Self::Retry(reason),
            SourceError::Stop(reason) => Self::Stop(reason),
        }
    }
}

impl From<RegistryError> for StartError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Away(reason) => Self::Retry(reason),
            RegistryError::Unusable(error) => Self::Stop(error.to_string()),
        }
    }
}

impl From<RecoveryError> for StartError {
    fn from(error: RecoveryError) -> Self {
        match error {
            RecoveryError::Retry(reason) => Self::Retry(reason),
            RecoveryError::Stop(reason) => Self::Stop(reason),
        }
    }
}

impl From<ClusterError> for StartError {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::Retry(reason) => Self::Retry(reason),
            ClusterError::Stop(reason) => Self::Stop(reason),
        }
    }
}

impl Engine {
    /// Starts reading `source` and writing to `store`, from what `recovery` found; without it from nothing, and nothing is kept.
    /// `heard` is told every completed epoch before it is written.
    pub fn start(
        config: &Config,
        names: Arc<Names>,
        source: Box<dyn Source>,
        store: Box<dyn Store>,
        mut recovery: Option<Recovery>,
        heard: impl FnMut(&Completed) + Send + 'static,
    ) -> Result<Self, StartError> {
        failstop::arm();
        let shelf = shelf(config).map_err(StartError::Stop)?;
        let stages = with_model(config, shelf.as_ref())?;
        recovery.as_ref().map_or(Ok(()), |found| found.recognise(&source.topics()))?;
        let (said, hears) = unbounded();
        let (completed, takes) = bounded(WAITING);
        let credit = Credit::new(config.engine.epochs_in_flight);
        let wishes = Arc::new(Wishes::default());
        let generation = recovery.as_ref().map_or((now_ms() / 1000) as u32, Recovery::generation);
        let last = recovery.as_ref().and_then(Recovery::last);
        let given = recovery.as_mut().map(|found| found.give_out(&names)).transpose()?.unwrap_or_default();
        let training = config.training.enabled.then(|| registry(config)).transpose().map_err(StartError::Stop)?;
        let training = training.map(|registry| Inbox::open(registry, config.training.model)).transpose()?;
        let served = last.as_ref().map(|last| (&last.serving, last.epoch.clock_ms));
        training.iter().zip(served).for_each(|(inbox, (serving, clock))| inbox.serves(serving, clock));
        let models = Models { shelf, inbox: training.clone() };
        models.must_rank(given.bound.iter().chain(&last))?;
        let content = &config.recommend.content;
        let encodes = Space::ENCODED.into_iter().any(|space| content.encoder(space).is_some());
        let encoding = encodes.then(|| Encoding { inbox: encoders::Inbox::new(content.queue), names: names.clone() });
        let files = Files::open(config, names.clone())?;
        let keeper = recovery.as_ref().map(|found| keeper(config, found, names.clone(), &files, said.clone()));
        let keeper = keeper.transpose()?.flatten().map(Arc::new);
        let shown = keeper.as_ref().map(|keeper| keeper.on_shown());
        let lost = {
            let wishes = wishes.clone();
            move |loss| wishes.retell.store(loss, Ordering::Release)
        };
        let applied = move |applied: &Applied| shown.iter().for_each(|shown| shown(applied.epoch));
        let hooks = Hooks { applied: Box::new(applied), lost: Box::new(lost) };
        let bound_until = last.as_ref().map(|last| last.epoch.number);
        let params = writer::Params {
            generation,
            max_dirty_keys: config.store.max_dirty_keys,
            retry_max: config.redis.retry_max,
            left: given.left,
            repeats_until: bound_until.unwrap_or(0),
        };
        let encoder = Encoder::new(names.clone(), &config.store);
        let writer = Writer::spawn(store, encoder, params, takes, files.changes, files.dead, hooks);
        let writer = writer.map_err(|e| format!("the writer cannot start: {e}"))?;
        let (desk, workers) = start_workers(config, stages, said.clone(), generation, given.restored)?;
        let mut feed = feed(config, names, source, credit.clone(), wishes.clone());
        feed.models = models;
        feed.saves = keeper.as_ref().map(|keeper| (config.recovery.snapshot_every, keeper.under_way.clone()));
        feed.ends = recovery.as_ref().is_some_and(Recovery::ends);
        last.iter().for_each(|last| feed.cutter.follow(last));
        feed.bound = given.bound.into();
        let collector = Collector {
            workers: config.engine.workers,
            epochs: BTreeMap::new(),
            completed,
            credit,
            heard,
            durable: if keeper.is_some() { bound_until } else { Some(u64::MAX) },
            keeper: keeper.clone(),
            examples: files.examples,
            impressions: files.impressions,
            encoding: encoding.clone().map(|encoding| encoding.inbox),
            known_until: bound_until,
        };
        Ok(Self {
            feed: spawn("feed", {
                let keeper = keeper.clone();
                move || {
                    feed.run(|cut| {
                        let new = bound_until.is_none_or(|last| cut.binding.epoch.number > last);
                        keeper.iter().filter(|_| new).for_each(|keeper| keeper.bind(&cut.binding));
                        let number = cut.binding.epoch.number;
                        keeper.iter().for_each(|keeper| keeper.note(Order::among(number, &cut.rows)));
                        desk.deliver(cut, &said)
                    })
                }
            })?,
            collector: spawn("collector", move || collector.run(&hears))?,
            wishes,
            workers,
            writer,
            keeper,
            training,
            encoding,
        })
    }

    /// Where training is asked for; `None`: nobody trains here.
    pub fn inbox(&self) -> Option<Inbox> {
        self.training.clone()
    }

    /// Where what is to be encoded waits; `None`: nothing is.
    pub fn encoding(&self) -> Option<Encoding> {
        self.encoding.clone()
    }

    /// Whether the source failed for good: nothing more is read.
    pub fn has_ended(&self) -> bool {
        self.feed.is_finished()
    }

    /// Stops reading, completes what was read, writes it. Yields what was done, or why the source failed.
    pub fn stop(self) -> (Stats, Result<(), SourceError>) {
        self.wishes.stop.store(true, Ordering::Release);
        let fed = self.feed.join().expect("the feed does not panic");
        self.keeper.iter().for_each(|keeper| keeper.end_log());
        for result in self.workers.join() {
            result.expect("a worker that panics takes the process with it");
        }
        self.writer.close();
        self.collector.join().expect("the collector does not panic");
        let stats = self.writer.join();
        if let Some(keeper) = self.keeper.and_then(Arc::into_inner) {
            keeper.close();
        }
        (stats, fed)
    }
}

/// The keeper of what the next start needs. A log that cannot be written ends the process: nothing more could be answered for.
fn keeper(
    config: &Config,
    found: &Recovery,
    names: Arc<Names>,
    files: &Files,
    said: Sender<Said>,
) -> Result<Option<Keeper>, String> {
    let privacy = privacy(config, files)?;
    let on_durable = move |epoch| drop(said.send(Said::Durable(epoch)));
    let on_failed = |reason: String| {
        tracing::error!(reason, "the epoch log cannot be written: nothing more is answered");
        std::process::abort();
    };
    found.keeper(names, config.cluster.processes * config.engine.workers, privacy, on_durable, on_failed)
}

/// Who follows orders to forget, with every place of ours that may hold records of users.
fn privacy(config: &Config, files: &Files) -> Result<Privacy, String> {
    let (dir, log) = (config.engine.state_dir.clone(), config.log.clone());
    let mut erasers: BTreeMap<&'static str, Eraser> = BTreeMap::from([("dead_letters", files.dead.eraser())]);
    erasers.extend(files.changes.eraser().map(|eraser| ("changes", eraser)));
    erasers.insert("examples", examples::eraser(&dir, files.examples.as_ref()));
    erasers.insert("impressions", impressions::eraser(&dir, files.impressions.as_ref()));
    if config.source.kind == Kind::Log {
        let folder = sources::log::folder(&dir);
        erasers.insert("log", Box::new(move |leavers| sources::log::erase(&folder, &log, leavers)));
    }
    let remembers = config.store.kind == sinks::Kind::Redis;
    let tombstone_ttl = if remembers { config.store.tombstone_ttl } else { Duration::ZERO };
    let pace = privacy::Pace { tombstone_ttl, snapshot_every: config.recovery.snapshot_every };
    Privacy::open(&config.privacy, pace, &dir, erasers)
}

/// What the writer writes beside the store.
struct Files {
    changes: Box<dyn changes::Feed>,
    dead: DeadLetters,
    /// `None`: nobody asked for any.
    examples: Option<Examples>,
    impressions: Option<Impressions>,
}

impl Files {
    fn open(config: &Config, names: Arc<Names>) -> Result<Self, String> {
        let (state_dir, kafka) = (&config.engine.state_dir, &config.kafka);
        let learn = &config.recommend.learn;
        let [logs, watches] = [learn.logged, learn.impressions].map(|share| learn.enabled && share > 0.0);
        let examples = logs.then(|| Examples::open(state_dir, names.clone())).transpose().map_err(|e| e.to_string())?;
        let impressions = watches.then(|| Impressions::open(state_dir, names.clone(), learn.click_through)).transpose();
        let impressions = impressions.map_err(|e| e.to_string())?;
        let changes = changes::open(&config.changes, state_dir, kafka, names).map_err(|e| e.to_string())?;
        let to_kafka = (config.source.kind == Kind::Kafka).then_some(kafka);
        let dead = DeadLetters::open(state_dir, to_kafka).map_err(|e| e.to_string())?;
        Ok(Self { changes, dead, examples, impressions })
    }
}

fn spawn<T: Send + 'static>(name: &str, run: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, String> {
    std::thread::Builder::new().name(name.to_string()).spawn(run).map_err(|e| format!("the {name} thread cannot start: {e}"))
}

fn feed(config: &Config, names: Arc<Names>, source: Box<dyn Source>, credit: Credit, wishes: Arc<Wishes>) -> Feed {
    let (engine, ledger) = (config.engine.clone(), &config.recommend.ledger);
    // without a run before, epochs are numbered above any that such a run can have left in Redis: it refuses what is older
    let first = if config.store.kind == sinks::Kind::Redis { now_ms().max(0) as u64 } else { 0 };
    let cutter = Cutter::new(&engine, ledger.lateness, config.recommend.slates.busy_refreshes, first);
    let kafka = &config.kafka;
    let topics: Topics = match config.source.kind {
        Kind::Fluvio => Role::ALL.map(|role| config.fluvio.topic(role).into()),
        Kind::Log | Kind::Kafka => {
            [&kafka.events_topic, &kafka.items_topic, &kafka.users_topic, &kafka.control_topic].map(|t| t.as_str().into())
        }
    };
    let limits = Limits { dimensions: config.recommend.content.width(), ..Limits::PUBLISHED };
    let (decoder, bound) = (Decoder::new(names, limits), VecDeque::new());
    Feed { source, decoder, cutter, topics, engine, credit, bound, ends: false, saves: None, wishes, models: Models::default() }
}

/// The versions of the registry that the settings name.
pub fn shelf(config: &Config) -> Result<Option<Shelf>, String> {
    let named = !config.recommend.ranker.registry.is_empty();
    Ok(named.then(|| registry(config)).transpose()?.map(|registry| Shelf::new(registry, &config.onnx)))
}

fn registry(config: &Config) -> Result<Registry, String> {
    Registry::open(&config.recommend.ranker.registry, &config.engine.state_dir)
}

/// What the stages are set to, with the model they are to rank by once it has proven itself, and the shelf on which they find others.
pub fn with_model(config: &Config, shelf: Option<&Shelf>) -> Result<dataflows::Params, StartError> {
    let mut params = config.recommend.clone();
    let shadow = &config.recommend.ranker.shadow;
    if let Some(shelf) = shelf.filter(|_| !shadow.is_empty()) {
        params.ranker.shadowing = Some(shelf.open(shadow)?);
    }
    for name in params.experiments.named() {
        let shelf =
            shelf.ok_or_else(|| StartError::Stop(format!("the version {name} is asked for, and ranker.registry is empty")))?;
        params.experiments.versions.insert(name.clone(), shelf.open(&name)?);
    }
    params.ranker.found = shelf.cloned().map(|shelf| Finder(Arc::new(move |id| shelf.find(id).map_err(|e| e.to_string()))));
    if !params.ranker.model.is_empty() {
        let model = registry::load(Path::new(&params.ranker.model), &config.onnx);
        let model = model.map_err(|e| StartError::Stop(e.to_string()))?;
        tracing::info!(model = model.name, digest = model.digest, "candidates are ranked by a model");
        params.ranker.loaded = Some(model);
    }
    if !params.towers.model.is_empty() {
        let towers = registry::load_towers(Path::new(&params.towers.model), &config.onnx);
        let towers = towers.map_err(|e| StartError::Stop(e.to_string()))?;
        tracing::info!(towers = towers.name, digest = towers.digest, "candidates are found by towers");
        params.towers.loaded = Some(towers);
    }
    telemetry::device(registry::runs_on());
    Ok(params)
}

/// Starts the workers and says how to reach them; waits for the other processes of a cluster first.
fn start_workers(
    config: &Config,
    params: dataflows::Params,
    said: Sender<Said>,
    generation: u32,
    restored: Arc<peers::Restored>,
) -> Result<(Desk, WorkerGuards<()>), StartError> {
    let sockets = peers::lead(config, &params, generation, &restored)?;
    let workers = config.engine.workers;
    let (senders, slices): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded()).unzip();
    let threads: Arc<Vec<OnceLock<Thread>>> = Arc::new((0..workers).map(|_| OnceLock::new()).collect());
    let progress = Arc::new(Progress::new(workers, dataflows::watched().map(|(stage, _)| stage)));
    let stalled = watch::start(&progress, config.recovery.stalled_after);
    stalled.map_err(|e| format!("the watch cannot start: {e}"))?;
    let common = Common { params, workers, progress: progress.clone() };
    let led = Led { slices, threads: threads.clone(), said };
    Ok((Desk { slices: senders, threads, progress }, crew::start(common, restored, sockets, Some(led))?))
}

impl Desk {
    /// Gives every worker its partitions' rows and wakes it; `false` when the workers are gone.
    fn deliver(&self, cut: Cut, said: &Sender<Said>) -> bool {
        let epoch = cut.binding.epoch;
        let mut slices = vec![Vec::new(); self.slices.len()];
        for row in cut.rows {
            slices[row.origin.partition as usize % self.slices.len()].push(row);
        }
        self.progress.give(epoch.number);
        let mut taken = said.send(Said::Cut(cut.binding, (cut.accepted_ms, cut.retold))).is_ok();
        for (slice, (sender, thread)) in slices.into_iter().zip(self.slices.iter().zip(self.threads.iter())) {
            taken &= sender.send((epoch, slice)).is_ok();
            if let Some(thread) = thread.get() {
                thread.unpark();
            }
        }
        taken
    }
}

impl Drop for Desk {
    /// Wakes the workers, so that they see at once that there is nothing more.
    fn drop(&mut self) {
        self.slices.clear();
        self.threads.iter().filter_map(OnceLock::get).for_each(Thread::unpark);
    }
}

/// Puts the workers' parts of each epoch together.
struct Collector<F> {
    workers: usize,
    epochs: BTreeMap<u64, Gathering>,
    completed: Sender<Completed>,
    credit: Credit,
    heard: F,
    /// Epochs up to here may have effects.
    durable: Option<u64>,
    keeper: Option<Arc<Keeper>>,
    examples: Option<Examples>,
    impressions: Option<Impressions>,
    encoding: Option<encoders::Inbox>,
    /// Epochs up to here were completed by a run before: what they have to be encoded may have been.
    known_until: Option<u64>,
}

#[derive(Default)]
struct Gathering {
    cut: Option<(Binding, Accepted)>,
    parts: usize,
    changes: Vec<Change>,
    kept: Vec<Handed>,
}

impl<F: FnMut(&Completed)> Collector<F> {
    fn run(mut self, hears: &Receiver<Said>) {
        for said in hears {
            self.hear(said);
            while let Some(gathered) = self.next() {
                if !self.complete(gathered) {
                    return;
                }
            }
        }
    }

    /// The next epoch, when everything of it is there and it may have effects.
    fn next(&mut self) -> Option<Gathering> {
        let first = self.epochs.first_entry()?;
        let there = first.get().cut.is_some() && first.get().parts == self.workers;
        (there && self.durable >= Some(*first.key())).then(|| first.remove())
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Cut(binding, accepted) => {
                let gathering = self.epochs.entry(binding.epoch.number).or_default();
                gathering.cut = Some((binding, accepted));
            }
            Said::Part(epoch, changes, kept) => {
                let gathering = self.epochs.entry(epoch).or_default();
                gathering.parts += 1;
                gathering.changes.extend(changes);
                gathering.kept.extend(kept);
            }
            Said::Durable(epoch) => self.durable = self.durable.max(Some(epoch)),
        }
    }

    /// Passes an epoch on; `false` when nobody takes it.
    fn complete(&mut self, Gathering { cut, mut changes, kept, .. }: Gathering) -> bool {
        Account::sum_up(&mut changes);
        let (binding, (accepted_ms, retold)) = cut.expect("complete, so cut");
        for change in changes.extract_if(.., |change| matches!(change, Change::Example(_))) {
            if let (Change::Example(example), Some(examples)) = (change, &self.examples) {
                examples.offer(binding.epoch.number, example);
            }
        }
        let watched = changes.extract_if(.., |change| matches!(change, Change::Watched(_)));
        let watched: Vec<_> =
            watched.filter_map(|change| if let Change::Watched(of) = change { Some(of) } else { None }).collect();
        if let Some(impressions) = &self.impressions {
            impressions.offer(binding.epoch.number, binding.epoch.clock_ms, watched);
        }
        for change in changes.extract_if(.., |change| matches!(change, Change::Encode(_))) {
            let new = self.known_until.is_none_or(|last| binding.epoch.number > last);
            if let (Change::Encode(work), Some(inbox), true) = (change, &self.encoding, new) {
                inbox.offer(work);
            }
        }
        let save = self.keeper.as_ref().and_then(|keeper| save(keeper, &binding, kept));
        let completed = Completed { binding, changes, accepted_ms, save, retold };
        balance(&completed);
        tell_learned(&completed);
        (self.heard)(&completed);
        let taken = self.completed.send(completed).is_ok();
        self.credit.give();
        taken
    }
}

/// What the writer does with its part of a snapshot, at an epoch that saves.
fn save(keeper: &Keeper, binding: &Binding, kept: Vec<Handed>) -> Option<Save> {
    let positions = keeper.advance(binding);
    let (epoch, pace, serving, desk) = (binding.epoch, binding.pace, binding.serving.clone(), keeper.desk());
    epoch.save.then(|| {
        let kept = Mutex::new(kept);
        Save(Arc::new(move |left| {
            let kept = std::mem::take(&mut *kept.lock().expect("no panic under the lock"));
            let (serving, positions) = (serving.clone(), positions.clone());
            desk.hand_over(Taken { epoch, pace, serving, positions, kept, left });
        }))
    })
}

/// The conservation law: every event consumed has one outcome.
fn balance(completed: &Completed) {
    for change in &completed.changes {
        if let Change::Account(account) = change
            && !account.balances()
        {
            let epoch = completed.binding.epoch.number;
            tracing::error!(epoch, ?account, "events consumed and outcomes differ: this is a bug of overdrive, please report it");
            debug_assert!(account.balances(), "conservation in epoch {epoch}: {account:?}");
        }
    }
}

/// What the blend has learned, as numbers.
fn tell_learned(completed: &Completed) {
    for change in &completed.changes {
        let Change::Learned(learned) = change else { continue };
        metrics::gauge!(telemetry::LEARNED).set(learned.groups as f64);
        metrics::gauge!(telemetry::SERVES).set(f64::from(u8::from(learned.serves)));
        for (feature, weight) in &learned.weights {
            metrics::gauge!(telemetry::WEIGHT, "feature" => feature.clone()).set(*weight);
        }
    }
}
