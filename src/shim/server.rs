//! The accept loop: one task a connection, a cap on connections, limits on heads, rests and answers, and an end that lets
//! requests finish. A client can cost a connection, never more.

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::Params;
use super::access::Tls;
use super::guard::Protocol;
use super::streams;
use super::wire::{Busy, Wire};
use crate::telemetry;

/// Bytes of a request's head at most: past a URI of this length hyper itself answers 414 or 431.
const MAX_HEAD: usize = 128 * 1024;
/// How long a stop waits for requests under way.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// How long to wait when the system has no more file descriptors for us.
const NO_DESCRIPTORS: Duration = Duration::from_millis(50);
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: 1\r\nconnection: close\r\n\r\n";

/// Where a request comes from: the other end of its connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// What the doors of a shim share.
pub struct House {
    pub params: Arc<Params>,
    /// A place for each connection.
    pub room: Arc<Semaphore>,
    pub tls: Option<Tls>,
}

/// Answers on `listener`, over TLS if it is given, until `shutdown` turns true (or its sender is gone); then takes no more connections
/// and returns when the requests under way are answered, or after five seconds.
pub async fn serve(
    House { params, room, tls }: House,
    protocol: Protocol,
    router: Router,
    listener: TcpListener,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match room.clone().try_acquire_owned() {
                    Ok(place) => {
                        let talk = talk(params.clone(), protocol, router.clone(), stream, tls.clone(), peer, shutdown.clone());
                        open.spawn(async move {
                            metrics::gauge!(telemetry::CONNECTIONS).increment(1);
                            talk.await;
                            metrics::gauge!(telemetry::CONNECTIONS).decrement(1);
                            drop(place);
                        });
                    }
                    // The answer fits the socket's buffer or is lost: a full house does not wait for anybody.
                    Err(_) if tls.is_none() && protocol == Protocol::Http => drop(stream.try_write(FULL)),
                    // Before a handshake there is nothing to say to who expects TLS, or HTTP/2.
                    Err(_) => drop(stream),
                },
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(NO_DESCRIPTORS).await;
                }
            },
            () = stopped(&mut shutdown) => break,
            Some(_) = open.join_next(), if !open.is_empty() => {}
        }
    }
    drop(listener);
    let finish = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_REQUESTS, finish).await.is_err() {
        tracing::warn!("requests were still running after {LAST_REQUESTS:?} and are cut");
    }
}

/// Returns when it is time to end.
pub async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it whoever could have kept us running.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn talk(
    params: Arc<Params>,
    protocol: Protocol,
    router: Router,
    stream: TcpStream,
    tls: Option<Tls>,
    peer: SocketAddr,
    shutdown: watch::Receiver<bool>,
) {
    // Without it an answer waits for the acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "connection gone");
        return;
    }
    let Some(tls) = tls else { return converse(&params, protocol, router, stream, peer, shutdown).await };
    // Who says nothing, or goes on saying hello, has the time of a head.
    match tokio::time::timeout(params.header_timeout, TlsAcceptor::from(tls.get().of(protocol)).accept(stream)).await {
        Ok(Ok(stream)) => converse(&params, protocol, router, stream, peer, shutdown).await,
        Ok(Err(error)) => tracing::debug!(%error, %peer, "no TLS with this client"),
        Err(_) => tracing::debug!(%peer, "the handshake took too long"),
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    params: &Params,
    protocol: Protocol,
    router: Router,
    stream: S,
    peer: SocketAddr,
    mut shutdown: watch::Receiver<bool>,
) {
    if protocol == Protocol::Grpc {
        return streams::converse(params, router, stream, peer, shutdown).await;
    }
    let busy = Busy::default();
    let wire = Wire::new(stream, busy.clone(), params.header_timeout, params.idle_timeout);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        let (router, busy) = (router.clone(), busy.clone());
        busy.begin();
        async move {
            let answer = router.oneshot(request).await;
            busy.end();
            answer
        }
    });
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(params.idle_timeout)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(wire), service)
    );
    let done = tokio::select! {
        done = connection.as_mut() => done,
        () = stopped(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = done {
        tracing::debug!(%error, %peer, "connection ended early");
    }
}
