//! What `run`, `serve` and `demo` are put together from: names, log, store, engine, shim.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::Config;
use crate::model::{Change, Names};
use crate::recovery::Recovery;
use crate::shim::{self, MemoryReader, Reader, Recent};
use crate::sinks::memory::Memory;
use crate::sinks::writer::Stats;
use crate::sinks::{Completed, Kind, Store};
use crate::worker::Engine;
use crate::{sources, telemetry};

/// What runs in this process.
pub struct Stack {
    engine: Option<Engine>,
    shim: Option<shim::Handle>,
}

/// What a process is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    pub engine: bool,
    pub shim: bool,
}

impl Stack {
    /// Starts the parts, the engine where the run before it ended.
    pub fn start(config: &Config, parts: Parts) -> Result<Self, String> {
        telemetry::recorder()?;
        let recent = Recent::default();
        let (store, reader) = store(config)?;
        let engine = parts.engine.then(|| engine(config, store, recent.clone())).transpose()?;
        let shim = parts.shim.then(|| serve(config, reader, recent)).transpose()?;
        Ok(Self { engine, shim })
    }

    /// Where the shim answers.
    pub fn addr(&self) -> Option<std::net::SocketAddr> {
        self.shim.as_ref().map(|shim| shim.addr)
    }

    /// Waits for Ctrl-C or SIGTERM (or for a source that fails for good), then stops everything in order. Yields what the engine
    /// did.
    pub fn wait(self) -> Result<Option<Stats>, String> {
        let asked = stop_signal()?;
        while !asked.load(Ordering::Acquire) && !self.engine.as_ref().is_some_and(Engine::has_ended) {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.stop()
    }

    /// Stops everything in order: reads end, what was read is completed and written, then the answers end.
    pub fn stop(self) -> Result<Option<Stats>, String> {
        tracing::info!("stopping");
        let stopped = self.engine.map(Engine::stop);
        if let Some(shim) = self.shim {
            shim.stop();
        }
        match stopped {
            None => Ok(None),
            Some((stats, Ok(()))) => Ok(Some(stats)),
            Some((_, Err(failed))) => Err(format!("the source failed: {failed}")),
        }
    }
}

fn engine(config: &Config, store: Box<dyn Store>, recent: Recent) -> Result<Engine, String> {
    let (source, log, kafka) = (&config.source, &config.log, &config.kafka);
    #[cfg(feature = "kafka")]
    if source.kind == sources::Kind::Kafka && kafka.create_topics {
        sources::kafka::create_topics(kafka).map_err(|e| e.to_string())?;
    }
    let dir = super::snapshot::folder(&config.engine.state_dir);
    let recovery = &config.recovery;
    let found = recovery.enabled.then(|| Recovery::open(&dir, &config.recommend, recovery.snapshots_kept)).transpose()?;
    let recorded = found.as_ref().map(Recovery::positions).unwrap_or_default();
    let opened = sources::open(source, log, kafka, &config.engine.state_dir, &recorded).map_err(|e| e.to_string())?;
    let names = Arc::new(Names::default());
    let known = names.clone();
    Engine::start(config, names, opened, store, found, move |completed| note(completed, &known, &recent))
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

fn store(config: &Config) -> Result<Answers, String> {
    match config.store.kind {
        Kind::Memory => {
            let memory = Memory::new(&config.store.prefix);
            Ok((Box::new(memory.clone()), Arc::new(MemoryReader::new(memory))))
        }
        #[cfg(feature = "redis")]
        Kind::Redis => {
            let store = crate::sinks::redis::Redis::open(&config.redis, &config.store.prefix).map_err(|e| e.to_string())?;
            let longest = config.service.request_timeout;
            let reader = shim::RedisReader::new(&config.redis, &config.store.prefix, longest)?;
            Ok((Box::new(store), Arc::new(reader)))
        }
        #[cfg(not(feature = "redis"))]
        Kind::Redis => Err("this build cannot reach redis; build with --features redis, or set [store] kind to memory".into()),
    }
}

fn serve(config: &Config, reader: Arc<dyn Reader>, recent: Recent) -> Result<shim::Handle, String> {
    let log = sources::appender(&config.source, &config.log, &config.kafka, &config.engine.state_dir)?;
    let state = shim::State::new(&config.service, &config.store.prefix, reader, log, recent);
    shim::spawn(&config.service, state)
}

/// For whoever asks twice: nothing is flushed, and nothing is lost, because the log has it.
#[allow(clippy::disallowed_methods, reason = "an error cannot reach main while the engine is still stopping")]
fn end_at_once() -> ! {
    std::process::exit(130)
}

/// Becomes true at the first Ctrl-C or SIGTERM; the second one ends the process.
pub fn stop_signal() -> Result<Arc<AtomicBool>, String> {
    let asked = Arc::new(AtomicBool::new(false));
    let told = asked.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("signals cannot be heard: {e}"))?;
    let hear = move || {
        runtime.block_on(async {
            let mut term =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("SIGTERM can be heard");
            for again in [false, true] {
                tokio::select! {
                    _ = tokio::signal::ctrl_c() => {},
                    _ = term.recv() => {},
                }
                if again {
                    end_at_once();
                }
                told.store(true, Ordering::Release);
            }
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(hear).map_err(|e| format!("signals cannot be heard: {e}"))?;
    Ok(asked)
}
