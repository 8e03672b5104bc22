//! One connection of HTTP/2, as gRPC speaks it: many requests at once, limits on their number, their heads and on silence.
//!
//! What must stay true: a connection on which nothing begins or ends for `idle_timeout` is closed, unless a health watch is open on
//! it and the client answers pings; so is one with any other request that is older than that, and one that does not ask within
//! `header_timeout`. What is under way then has `request_timeout` to end.

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http2;
use hyper::{Request, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tower::ServiceExt;

use super::Params;
use super::grpc::Lasting;
use super::server::{Peer, stopped};
use super::wire::{Busy, Wire};

/// Requests of one connection at once.
const STREAMS: u32 = 100;
/// Requests that were taken back before they were looked at; more are a flood, and end the connection.
const RESETS: usize = 20;
/// Bytes of a request's head at most.
const MAX_HEAD: u32 = 16 * 1024;

/// Answers the requests of a connection until it ends.
pub async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    params: &Params,
    router: Router,
    stream: S,
    peer: SocketAddr,
    mut shutdown: watch::Receiver<bool>,
) {
    let busy = Busy::default();
    // Frames of many requests come mixed: the wire only sees to it that answers are taken.
    busy.begin();
    let wire = Wire::new(stream, busy, params.header_timeout, params.idle_timeout);
    let lately = Lately::default();
    let begun = lately.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        let (router, turn) = (router.clone(), begun.begin());
        async move {
            let answer = router.oneshot(request).await?;
            let lasting = answer.extensions().get::<Lasting>().is_some();
            Ok::<_, Infallible>(answer.map(|body| Held { body, _turn: turn.lasting(lasting) }))
        }
    });
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new()).max_concurrent_streams(STREAMS).max_header_list_size(MAX_HEAD);
    http.max_pending_accept_reset_streams(RESETS);
    http.keep_alive_interval(params.idle_timeout).keep_alive_timeout(params.header_timeout);
    let mut connection = pin!(http.serve_connection(TokioIo::new(wire), service));
    tokio::select! {
        done = connection.as_mut() => return tell(done, peer),
        () = stopped(&mut shutdown) => {}
        () = lately.quiet(params.header_timeout, params.idle_timeout) => {}
    }
    if lately.see().asked == 0 {
        return;
    }
    connection.as_mut().graceful_shutdown();
    match timeout(params.request_timeout, connection).await {
        Ok(done) => tell(done, peer),
        Err(_) => tracing::debug!(%peer, "the client does not take its answers"),
    }
}

fn tell(done: hyper::Result<()>, peer: SocketAddr) {
    if let Err(error) = done {
        tracing::debug!(%error, %peer, "connection ended early");
    }
}

/// What happened last on a connection.
#[derive(Clone)]
struct Lately(Arc<Mutex<Last>>);

struct Last {
    /// When a request began or ended, or the connection opened.
    at: Instant,
    /// How many requests there were.
    asked: u64,
    /// When those began that are under way, and must end.
    open: BTreeMap<u64, Instant>,
    /// Answers that are under way and may last.
    lasting: usize,
}

impl Default for Lately {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Last { at: Instant::now(), asked: 0, open: BTreeMap::new(), lasting: 0 })))
    }
}

impl Lately {
    fn see(&self) -> MutexGuard<'_, Last> {
        self.0.lock().expect("no panic under the lock")
    }

    fn begin(&self) -> Turn {
        let mut last = self.see();
        let now = Instant::now();
        (last.at, last.asked) = (now, last.asked + 1);
        let number = last.asked;
        last.open.insert(number, now);
        Turn { lately: self.clone(), number, lasting: false }
    }

    /// Returns when nothing happened for so long, before the first request and after it, or a request takes longer.
    async fn quiet(&self, first: Duration, then: Duration) {
        loop {
            let now = Instant::now();
            let until = self.see().until(first, then).unwrap_or(now + then);
            if until <= now {
                return;
            }
            sleep_until(until.min(now + then)).await; // what is looked for may have become another by then
        }
    }
}

impl Last {
    /// When it has been quiet, or a request under way, for too long; `None`: answers that may last are all there is.
    fn until(&self, first: Duration, then: Duration) -> Option<Instant> {
        let quiet = (self.lasting == 0).then(|| self.at + if self.asked > 0 { then } else { first });
        let oldest = self.open.values().next().map(|begun| *begun + then);
        quiet.into_iter().chain(oldest).min()
    }
}

/// A request under way, until its answer is taken.
struct Turn {
    lately: Lately,
    number: u64,
    lasting: bool,
}

impl Turn {
    fn lasting(mut self, lasting: bool) -> Self {
        self.lasting = lasting;
        if lasting {
            let mut last = self.lately.see();
            last.lasting += 1;
            last.open.remove(&self.number);
        }
        self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut last = self.lately.see();
        last.at = Instant::now();
        last.lasting -= usize::from(self.lasting);
        last.open.remove(&self.number);
    }
}

/// The body of an answer, with the turn it is of.
struct Held {
    body: Body,
    _turn: Turn,
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
