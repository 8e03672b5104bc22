//! The read side: what a query means, over any store, and the way in for events; over HTTP and over gRPC.
//!
//! A read computes nothing but the order of candidates that its caller brings, by the functions of `scoring`: it decodes what the
//! engine wrote, leaves out what must not be shown, and says how old it is. A read
//! that carries the token of a write sees that write or says `stale`.

use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::Metrics;
use crate::model::time::span;
use crate::model::{Positions, Role};
use crate::sinks::Applied;
use crate::sinks::layout::Keys;
use crate::sources::Appender;
use crate::telemetry;
use access::Tls;
use guard::Protocol;
use queries::models::Versions;
use renewed::Renewed;

mod access;
mod aging;
mod commons;
mod cursor;
mod error;
mod feed;
mod grpc;
mod guard;
mod http;
mod jwt;
mod last_good;
mod near;
mod queries;
mod ranked_by;
mod rate;
mod read;
mod recent;
mod renewed;
mod rules;
mod server;
mod streams;
mod tls;
mod token;
mod trail;
mod watched;
mod wire;

pub use access::{Access, Entries, Entry, Params as AccessParams, Scope};
pub use error::Refusal;
pub use grpc::readers;
pub use http::served;
#[cfg(feature = "redis")]
pub use read::RedisReader;
pub use read::{Answer, Fields, Many, ManyOf, MemoryReader, Own, OwnKeys, Parts, Reader, Sizes, Unavailable};
pub use recent::Recent;
pub use rules::Rules;
pub use token::Token;

/// `[service]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub bind: String,
    pub port: u16,
    pub grpc: bool,
    pub grpc_port: u16,
    pub threads: usize,
    pub body_limit: usize,
    pub batch_limit: usize,
    pub feeds_limit: usize,
    pub exclude_limit: usize,
    pub candidates_limit: usize,
    pub connections: usize,
    #[serde(with = "span")]
    pub header_timeout: Duration,
    #[serde(with = "span")]
    pub idle_timeout: Duration,
    #[serde(with = "span")]
    pub request_timeout: Duration,
    #[serde(with = "span")]
    pub store_timeout: Duration,
    #[serde(with = "span")]
    pub token_wait: Duration,
    pub default_k: usize,
    pub max_k: usize,
    pub max_id_bytes: usize,
    pub rank_by: String,
    pub copies_bytes: usize,
    #[serde(with = "span")]
    pub copies_ttl: Duration,
}

/// Everything a request may use.
pub struct State {
    params: Params,
    keys: Keys,
    reader: Arc<dyn Reader>,
    log: Arc<dyn Appender>,
    access: Access,
    recent: Recent,
    rules: Rules,
    ranked_by: Option<ranked_by::RankedBy>,
    commons: commons::Commons,
    last_good: last_good::LastGood,
    /// Keys by family.
    sizes: Renewed<Option<Sizes>>,
    versions: Renewed<Arc<Versions>>,
    /// Or why there is none.
    metrics: Result<PrometheusHandle, String>,
    started: Instant,
}

/// Which part of the applied mark a read waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cadence {
    /// What every epoch brings up to date: slates, features, interests.
    Epoch,
    /// What ticks do: trending, near, neighbours and cards.
    Tick,
}

impl Cadence {
    fn of(self, applied: &Applied) -> &Positions {
        match self {
            Self::Epoch => &applied.offsets,
            Self::Tick => &applied.tick_offsets,
        }
    }
}

impl State {
    /// Over a store and a log, for whom `access` lets in. `prefix` is of every key of the store; `recent` may be shared with whoever knows
    /// who is active.
    pub fn new(
        params: &Params,
        prefix: &str,
        reader: Arc<dyn Reader>,
        log: Arc<dyn Appender>,
        access: Access,
        recent: Recent,
        rules: Rules,
    ) -> Arc<Self> {
        let (params, keys) = (params.clone(), Keys::new(prefix));
        let (commons, metrics) = (commons::Commons::new(), telemetry::recorder());
        let last_good = last_good::LastGood::new(params.copies_bytes, params.copies_ttl);
        let (sizes, versions, started) = (Renewed::new(), Renewed::new(), Instant::now());
        let ranked_by = rules.ranked_by.clone().map(ranked_by::RankedBy::new);
        Arc::new(Self {
            params,
            keys,
            reader,
            log,
            access,
            recent,
            rules,
            ranked_by,
            commons,
            last_good,
            sizes,
            versions,
            metrics,
            started,
        })
    }

    /// Waits, at most `token_wait`, until the write of `token` is visible; says whether it is.
    async fn visible(&self, token: &Token, cadence: Cadence) -> Result<bool, Unavailable> {
        let wait = async {
            let mut applied = self.reader.applied().await?;
            while !token.covered_by(cadence.of(&applied)) {
                applied = self.reader.moved(&applied).await?;
            }
            Ok(())
        };
        match tokio::time::timeout(self.params.token_wait, wait).await {
            Ok(done) => done.map(|()| true),
            Err(_) => Ok(false),
        }
    }

    /// Appends records of one role; the token of the write. The error says what is known of the batch.
    async fn append(&self, role: Role, records: Vec<(bytes::Bytes, Option<bytes::Bytes>)>) -> Result<Token, String> {
        let count = records.len();
        // A little less than the request has, so that the answer says what happened.
        let patience = self.params.request_timeout * 9 / 10;
        let done = tokio::time::timeout(patience, self.log.append(role, records)).await;
        let what = match done {
            Ok(Ok(places)) => return Ok(Token::of(role, &places)),
            Ok(Err(why)) => why,
            Err(_) => format!("no answer within {patience:?}"),
        };
        Err(format!(
            "the log did not confirm the {count} records: {what}; some of them may have been taken, so send all of them again \
             with the same event_id: an event is counted once"
        ))
    }
}

/// A running shim with threads of its own.
pub struct Handle {
    /// Where it answers: the port that was chosen when 0 was asked for.
    pub addr: SocketAddr,
    /// Where it answers gRPC, if it does.
    pub grpc: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Handle {
    /// Takes no more connections and returns when the requests under way are answered (at most five seconds).
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the shim's thread had panicked");
        }
    }
}

/// What answers on a port.
struct Door {
    protocol: Protocol,
    port: u16,
    router: axum::Router,
}

/// Serves from threads of its own until [`Handle::stop`]. Fails when an address cannot be had.
pub fn spawn(params: &Params, state: Arc<State>) -> Result<Handle, String> {
    let runtime = threads(params)?;
    let (open_to, tls) = (state.access.left_open_to(), state.access.tls());
    let (stop, stopped) = watch::channel(false);
    let mut doors = vec![Door { protocol: Protocol::Http, port: params.port, router: http::router(state.clone()) }];
    if params.grpc {
        let (reporter, health) = runtime.block_on(grpc::report());
        let router = grpc::router(state.clone(), health);
        doors.push(Door { protocol: Protocol::Grpc, port: params.grpc_port, router });
        runtime.spawn(grpc::follow(state, reporter, stopped.clone()));
    }
    let handle = open(params, runtime, doors, tls, (stop, stopped))?;
    if let Some(whoever) = open_to
        && !handle.addr.ip().is_loopback()
    {
        tracing::warn!(addr = %handle.addr, "{whoever} may read and write everything; set [access] tokens, or keep a gateway in front");
    }
    tracing::info!(addr = %handle.addr, "the shim answers");
    if let Some(addr) = handle.grpc {
        tracing::info!(%addr, "the shim answers gRPC");
    }
    Ok(handle)
}

/// Serves `/metrics` and `/livez` alone, for an engine without a shim, with the limits of `[service]`.
pub fn spawn_metrics(params: &Params, metrics: &Metrics) -> Result<Handle, String> {
    let params = Params { bind: metrics.bind.clone(), threads: 1, ..params.clone() };
    let router = http::metrics_router(telemetry::recorder()?);
    let doors = vec![Door { protocol: Protocol::Http, port: metrics.port, router }];
    let handle = open(&params, threads(&params)?, doors, None, watch::channel(false))?;
    tracing::info!(addr = %handle.addr, "metrics answer");
    Ok(handle)
}

fn threads(params: &Params) -> Result<Runtime, String> {
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(params.threads.max(1))
        .thread_name("shim")
        .enable_all()
        .build();
    threads.map_err(|e| format!("the shim's threads cannot start: {e}"))
}

/// The first door is that of HTTP.
fn open(
    params: &Params,
    runtime: Runtime,
    doors: Vec<Door>,
    tls: Option<Tls>,
    (stop, stopped): (watch::Sender<bool>, watch::Receiver<bool>),
) -> Result<Handle, String> {
    let mut open = Vec::new();
    for door in doors {
        let listener = runtime.block_on(listen(&params.bind, &door))?;
        let addr = listener.local_addr().map_err(|e| format!("the shim's address cannot be read: {e}"))?;
        open.push((addr, listener, door));
    }
    let at = |protocol| open.iter().find(|(_, _, door)| door.protocol == protocol).map(|(addr, ..)| *addr);
    let (addr, grpc) = (at(Protocol::Http).expect("the first door"), at(Protocol::Grpc));
    let (params, room) = (Arc::new(params.clone()), Arc::new(Semaphore::new(params.connections)));
    let serve = async move {
        let mut doors = open.into_iter().map(|(_, listener, Door { protocol, router, .. })| {
            let house = server::House { params: params.clone(), room: room.clone(), tls: tls.clone() };
            server::serve(house, protocol, router, listener, stopped.clone())
        });
        let (http, mut others) = (doors.next().expect("the first door"), JoinSet::new());
        doors.for_each(|door| drop(others.spawn(door)));
        http.await; // on this thread, not on those that answer
        others.join_all().await
    };
    let thread = std::thread::Builder::new()
        .name("shim-main".to_string())
        .spawn(move || drop(runtime.block_on(serve)))
        .map_err(|e| format!("the shim's thread cannot start: {e}"))?;
    Ok(Handle { addr, grpc, stop, thread })
}

/// The time of day, milliseconds since 1970.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

async fn listen(bind: &str, door: &Door) -> Result<TcpListener, String> {
    let (port, setting) = (door.port, door.protocol.setting());
    let listener = TcpListener::bind((bind, port)).await;
    listener.map_err(|e| format!("the shim cannot listen on {bind}:{port}: {e}; choose another {setting} or stop what uses it"))
}
