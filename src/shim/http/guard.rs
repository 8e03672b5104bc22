//! What every request goes through: its id, the limits on how often it comes, on its URI and on its time, and a panic that stays its
//! own; and what the request of a route for some goes through: who sends it.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::shim::server::Peer;
use crate::shim::{Refusal, Scope, State as Shim};
use crate::telemetry::{REQUEST_TIME, REQUESTS};

/// Bytes of a URI at most.
pub const MAX_URI: usize = 2_048;
/// Bytes of a request id at most; a longer one is replaced.
const MAX_REQUEST_ID: usize = 128;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request: the client's, or one of ours. In the answer's `x-request-id`.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

/// Around every route.
pub async fn guard(State(shim): State<Arc<Shim>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(request.headers().get(&REQUEST_ID));
    let route = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = answer(&shim, request, next).await;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, HeaderValue::from_str(&id).expect("an id is visible ascii"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Answers are of the moment.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    record(route.as_ref().map_or("none", MatchedPath::as_str), response.status(), begun);
    response
}

/// Around a route that needs a scope.
pub async fn admit(State((shim, scope)): State<(Arc<Shim>, Scope)>, mut request: Request, next: Next) -> Response {
    match shim.access.admit(request.headers(), scope) {
        Ok(who) => {
            request.extensions_mut().insert(who);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

async fn answer(shim: &Shim, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>();
    if let Some(Err(refusal)) = peer.map(|Peer(address)| shim.access.count(*address)) {
        return refusal.into_response();
    }
    let length = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
    if length > MAX_URI {
        let message = format!("the uri has {length} bytes, at most {MAX_URI} are taken");
        return Refusal::new(StatusCode::URI_TOO_LONG, "uri_too_long", message).into_response();
    }
    match tokio::time::timeout(shim.params.request_timeout, contained(next.run(request))).await {
        Ok(Some(response)) => response,
        Ok(None) => {
            let message = "the request met a fault of ours, which is in the log under this x-request-id";
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message).into_response()
        }
        Err(_) => {
            let message = format!("no answer within {:?}; try again", shim.params.request_timeout);
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", message).into_response()
        }
    }
}

/// The future's value, or `None` when it panicked.
async fn contained<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let polled = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(value)) => Poll::Ready(Some(value)),
        Err(_) => Poll::Ready(None),
    });
    polled.await
}

fn record(route: &str, status: StatusCode, begun: Instant) {
    let labels = [("route", route.to_string()), ("status", status.as_u16().to_string())];
    metrics::counter!(REQUESTS, &labels).increment(1);
    metrics::histogram!(REQUEST_TIME, &labels).record(begun.elapsed());
}

fn request_id(given: Option<&HeaderValue>) -> Arc<str> {
    let fits = |id: &&str| !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(|b| b.is_ascii_graphic());
    match given.and_then(|id| id.to_str().ok()).filter(fits) {
        Some(id) => id.into(),
        None => new_id().into(),
    }
}

/// Sixteen digits, different for every request of every process that was started at another nanosecond.
fn new_id() -> String {
    static START: LazyLock<u64> =
        LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64));
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64_with_seed(&number.to_be_bytes(), *START))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_stays_in_its_request() {
        assert_eq!(contained(async { 7 }).await, Some(7));
        let late = async {
            tokio::task::yield_now().await;
            if true {
                panic!("on purpose");
            }
        };
        assert_eq!(contained(late).await, None);
    }

    #[test]
    fn a_request_id_is_kept_when_it_can_be_a_header_and_made_otherwise() {
        let given = HeaderValue::from_static("abc-123");
        assert_eq!(&*request_id(Some(&given)), "abc-123");
        let (one, other) = (request_id(None), request_id(Some(&HeaderValue::from_static("a b"))));
        assert_eq!((one.len(), other.len()), (16, 16));
        assert_ne!(one, other);
    }
}
