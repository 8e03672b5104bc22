//! What `run`, `serve` and `demo` are put together from: names, log, store, engine, shim.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{models, signals};
use crate::config::Config;
use crate::encoders::{self, Encoders};
use crate::model::content::Space;
use crate::model::{Change, Names};
use crate::recovery::Recovery;
use crate::shim::{self, MemoryReader, Reader, Recent};
use crate::sinks::memory::Memory;
use crate::sinks::writer::Stats;
use crate::sinks::{Completed, Kind, Store, examples};
use crate::training::{self, Inbox, Trainer};
use crate::worker::{Encoding, Engine, Follower, StartError};
use crate::{registry, sources, telemetry};

/// What runs in this process.
pub struct Stack {
    /// Ended first: it orders what the engine follows.
    trainer: Option<Trainer>,
    /// Told to stop before the engine, which waits for none of them.
    encoders: Option<Encoders>,
    engine: Option<Runs>,
    shim: Option<shim::Handle>,
}

/// What computes in this process.
enum Runs {
    Engine(Engine),
    Follower(Follower),
}

/// How long a process that is not the first goes on when it is told to stop: process 0, which is told as well, stops the cluster.
const FOLLOWS: Duration = Duration::from_secs(20);

/// What a process is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    pub engine: bool,
    pub shim: bool,
}

impl Stack {
    /// Starts the parts, the engine where the run before it ended.
    pub fn start(config: &Config, parts: Parts) -> Result<Self, StartError> {
        telemetry::recorder()?;
        let recent = Recent::default();
        let (store, reader) = store(config)?;
        let engine = parts.engine.then(|| runs(config, store, recent.clone())).transpose()?;
        let shim = parts.shim.then(|| serve(config, reader, recent)).transpose()?;
        let trainer = engine.as_ref().and_then(Runs::inbox).map(|inbox| trainer(config, inbox)).transpose()?;
        let encoders = engine.as_ref().and_then(Runs::encoding).map(|encoding| encoders(config, encoding)).transpose()?;
        Ok(Self { trainer, encoders, engine, shim })
    }

    /// Where the shim answers.
    pub fn addr(&self) -> Option<std::net::SocketAddr> {
        self.shim.as_ref().map(|shim| shim.addr)
    }

    /// Waits for Ctrl-C or SIGTERM (or for a source that fails for good), then stops everything in order. Yields what the engine
    /// did.
    pub fn wait(self) -> Result<Option<Stats>, StartError> {
        let asked = signals::stop()?;
        while !asked.load(Ordering::Acquire) && !self.engine.as_ref().is_some_and(Runs::has_ended) {
            std::thread::sleep(LOOK);
        }
        self.stop()
    }

    /// Stops everything in order: reads end, what was read is completed and written, then the answers end.
    pub fn stop(self) -> Result<Option<Stats>, StartError> {
        tracing::info!("stopping");
        drop(self.trainer);
        self.encoders.iter().for_each(Encoders::stop);
        let stopped = self.engine.map(Runs::stop);
        drop(self.encoders);
        if let Some(shim) = self.shim {
            shim.stop();
        }
        stopped.unwrap_or(Ok(None))
    }
}

/// How often it is looked whether there is an end.
const LOOK: Duration = Duration::from_millis(50);

impl Runs {
    /// Where training is asked for; `None`: not here.
    fn inbox(&self) -> Option<Inbox> {
        match self {
            Runs::Engine(engine) => engine.inbox(),
            Runs::Follower(_) => None,
        }
    }

    /// Where what is to be encoded waits; `None`: not here.
    fn encoding(&self) -> Option<Encoding> {
        match self {
            Runs::Engine(engine) => engine.encoding(),
            Runs::Follower(_) => None,
        }
    }

    fn has_ended(&self) -> bool {
        match self {
            Runs::Engine(engine) => engine.has_ended(),
            Runs::Follower(follower) => follower.has_ended(),
        }
    }

    fn stop(self) -> Result<Option<Stats>, StartError> {
        match self {
            Runs::Engine(engine) => match engine.stop() {
                (stats, Ok(())) => Ok(Some(stats)),
                (_, Err(failed)) => Err(failed.into()),
            },
            Runs::Follower(follower) => follow_to_the_end(follower).map(|()| None),
        }
    }
}

/// Goes on computing what process 0 has begun.
fn follow_to_the_end(follower: Follower) -> Result<(), StartError> {
    let until = Instant::now() + FOLLOWS;
    while !follower.has_ended() {
        if Instant::now() > until {
            let waited = humantime::format_duration(FOLLOWS);
            return Err(StartError::Retry(format!(
                "process 0 did not stop the cluster within {waited}; this process ends, and process 0 waits for it to come back"
            )));
        }
        std::thread::sleep(LOOK);
    }
    follower.join();
    Ok(())
}

fn runs(config: &Config, store: Box<dyn Store>, recent: Recent) -> Result<Runs, StartError> {
    if config.cluster.process > 0 {
        return Follower::start(config).map(Runs::Follower);
    }
    engine(config, store, recent).map(Runs::Engine)
}

fn engine(config: &Config, store: Box<dyn Store>, recent: Recent) -> Result<Engine, StartError> {
    let (source, log, kafka) = (&config.source, &config.log, &config.kafka);
    #[cfg(feature = "kafka")]
    if source.kind == sources::Kind::Kafka && kafka.create_topics {
        sources::kafka::create_topics(kafka)?;
    }
    let address = super::snapshot::address(config)?;
    let recovery = &config.recovery;
    let found = recovery.enabled.then(|| Recovery::open(&address, &config.recommend, recovery.snapshots_kept)).transpose()?;
    let recorded = found.as_ref().map(Recovery::positions).unwrap_or_default();
    let opened = sources::open(source, log, kafka, &config.fluvio, &config.engine.state_dir, &recorded)?;
    let names = Arc::new(Names::default());
    let known = names.clone();
    Engine::start(config, names, opened, store, found, move |completed| note(completed, &known, &recent))
}

/// Whoever trains beside the engine.
fn trainer(config: &Config, inbox: Inbox) -> Result<Trainer, String> {
    let place = training::Place {
        registry: models::registry(config)?,
        onnx: config.onnx.clone(),
        log: config.engine.state_dir.join(examples::FOLDER),
        out: config.engine.state_dir.join("training"),
    };
    let settings = config.clone();
    let order = move |order| models::order::append(order, &settings).map(drop);
    Trainer::start(config.training.clone(), place, inbox, order)
}

/// What encodes beside the engine.
fn encoders(config: &Config, Encoding { inbox, names }: Encoding) -> Result<Encoders, String> {
    let (content, settings) = (config.recommend.content.clone(), config.clone());
    let onnx = config.onnx.clone();
    let spaces = Space::ENCODED.into_iter().filter(|space| content.encoder(*space).is_some()).collect();
    let open = move |space| {
        let folder = content.encoder(space).expect("only what has one is encoded");
        let opened = encoders::open(space, Path::new(folder), &onnx);
        telemetry::device(registry::runs_on());
        opened
    };
    let mut pen = None;
    let write = move |orders| {
        let pen = match &mut pen {
            Some(pen) => pen,
            none => none.insert(models::order::Pen::open(&settings)?),
        };
        pen.write(orders).map(drop)
    };
    Encoders::start(encoders::Place { spaces, inbox, names, open: Box::new(open), write: Box::new(write) })
}

/// Keeps the console's list of users who were here lately.
fn note(completed: &Completed, names: &Names, recent: &Recent) {
    let mut slates = completed.changes.iter().filter_map(|change| match change {
        Change::Slate { user, slate: Some(_), .. } => names.users.get(user.0),
        _ => None,
    });
    if let Some(user) = slates.next() {
        recent.note(&user);
    }
    for change in &completed.changes {
        if let Change::Forgotten(user) = change
            && let Some(name) = names.users.get(user.0)
        {
            recent.forget(&name);
        }
    }
}

/// A store and a reader of the same answers.
type Answers = (Box<dyn Store>, Arc<dyn Reader>);

/// What is wrong with the settings of a store stays wrong until somebody changes it.
fn store(config: &Config) -> Result<Answers, StartError> {
    match config.store.kind {
        Kind::Memory => {
            let memory = Memory::new(&config.store.prefix);
            Ok((Box::new(memory.clone()), Arc::new(MemoryReader::new(memory))))
        }
        #[cfg(feature = "redis")]
        Kind::Redis => {
            let store = crate::sinks::redis::Redis::open(&config.redis, &config.store.prefix)
                .map_err(|e| StartError::Stop(e.to_string()))?;
            let longest = config.service.store_timeout;
            let reader = shim::RedisReader::new(&config.redis, &config.store.prefix, longest).map_err(StartError::Stop)?;
            Ok((Box::new(store), Arc::new(reader)))
        }
        #[cfg(not(feature = "redis"))]
        Kind::Redis => Err(StartError::Stop(
            "this build cannot reach redis; build with --features redis, or set [store] kind to memory".into(),
        )),
    }
}

fn serve(config: &Config, reader: Arc<dyn Reader>, recent: Recent) -> Result<shim::Handle, StartError> {
    let log = sources::appender(&config.source, &config.log, &config.kafka, &config.fluvio, &config.engine.state_dir)?;
    let access = shim::Access::open(&config.access, &config.engine.state_dir)?;
    let rules = shim::Rules::read(config).map_err(StartError::Stop)?;
    let state = shim::State::new(&config.service, &config.store.prefix, reader, log, access, recent, rules);
    Ok(shim::spawn(&config.service, state)?)
}
