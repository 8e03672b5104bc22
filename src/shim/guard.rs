//! What every request goes through: its id, the limits on how often it comes, on its URI and on its time, and a panic that stays its
//! own; and what the request of a route for some goes through: who sends it.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::access::Who;
use super::server::Peer;
use super::trail::{About, Deed};
use super::{Refusal, Scope, State as Shim, grpc};
use crate::model::UserId;
use crate::telemetry::{REQUEST_TIME, REQUESTS};

/// Bytes of a URI at most.
pub const MAX_URI: usize = 2_048;
/// Bytes of a request id at most; a longer one is replaced.
const MAX_REQUEST_ID: usize = 128;
/// Whether what the engine computes is wanted, and not what everybody gets.
const USE: &str = "x-use-overdrive";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request: the client's, or one of ours. In the answer's `x-request-id`.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

/// How a request is spoken, and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Grpc,
}

impl Protocol {
    /// What its port is set by.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Http => "service.port",
            Self::Grpc => "service.grpc_port",
        }
    }

    /// A refusal in its words.
    fn refuse(self, refusal: Refusal) -> Response {
        match self {
            Self::Http => refusal.into_response(),
            Self::Grpc => grpc::refuse(refusal),
        }
    }

    /// How long the client waits for an answer, where it says so.
    fn patience(self, headers: &HeaderMap) -> Option<Duration> {
        match self {
            Self::Http => None,
            Self::Grpc => grpc::patience(headers),
        }
    }
}

/// The status that is counted, where the one that is sent says less.
#[derive(Clone, Copy)]
pub struct Counted(pub StatusCode);

/// Whether a request wants what the engine computes for a user, as the client says it; who says nothing does. Else it gets what everybody
/// gets.
fn using(headers: &HeaderMap) -> Result<bool, Refusal> {
    let mut said = headers.get_all(USE).iter();
    let first = said.next().map(|value| value.as_bytes().to_ascii_lowercase());
    match (first.as_deref(), said.next()) {
        (None | Some(b"1" | b"true" | b"on"), None) => Ok(true),
        (Some(b"0" | b"false" | b"off"), None) => Ok(false),
        _ => {
            let message = format!("{USE} must be 1, true or on (as without it), or 0, false or off for what everybody gets");
            Err(Refusal::bad("bad_use_overdrive", message))
        }
    }
}

/// Who sends a request, which it is, and what for.
pub struct Caller {
    pub who: Who,
    pub id: RequestId,
    /// Whether it wants what the engine computes for a user, and not what everybody gets.
    pub using: bool,
    address: Option<IpAddr>,
}

impl Caller {
    /// As the guards left it with the request, and as the request says.
    pub fn of(extensions: &Extensions, headers: &HeaderMap) -> Result<Self, Refusal> {
        let address = extensions.get::<Peer>().map(|peer| peer.0);
        Ok(Self { who: extension(extensions)?, id: extension(extensions)?, using: using(headers)?, address })
    }

    /// What the audit trail says of this request.
    pub fn deed(&self, event: &'static str, user: &str) -> Deed {
        let (by, request_id) = (self.who.name.clone(), self.id.0.clone());
        Deed { event, of: About::User(UserId::of(user)), by, address: self.address, request_id }
    }

    /// What it says of one that has a version rank.
    pub fn promotion(&self, version: &str) -> Deed {
        self.of_models("promote", version)
    }

    /// What it says of one that has a model trained.
    pub fn training(&self, model: &str) -> Deed {
        self.of_models("train", model)
    }

    fn of_models(&self, event: &'static str, name: &str) -> Deed {
        let (by, request_id) = (self.who.name.clone(), self.id.0.clone());
        Deed { event, of: About::Version(name.to_string()), by, address: self.address, request_id }
    }
}

/// What the guards left with the request.
pub fn extension<T: Clone + Send + Sync + 'static>(extensions: &Extensions) -> Result<T, Refusal> {
    let missing = || Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request did not come through its guards");
    extensions.get::<T>().cloned().ok_or_else(missing)
}

/// Around every route.
pub async fn guard(State((shim, protocol)): State<(Arc<Shim>, Protocol)>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(request.headers().get(&REQUEST_ID));
    let route = request.extensions().get::<MatchedPath>().cloned();
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = answer(&shim, protocol, request, next).await.unwrap_or_else(|refusal| protocol.refuse(refusal));
    response.headers_mut().insert(REQUEST_ID, HeaderValue::from_str(&id).expect("an id is visible ascii"));
    let status = response.extensions().get::<Counted>().map_or(response.status(), |counted| counted.0);
    record(route.as_ref().map_or("none", MatchedPath::as_str), status, begun);
    response
}

/// Around a route that needs a scope.
pub async fn admit(
    State((shim, protocol, scope)): State<(Arc<Shim>, Protocol, Scope)>,
    mut request: Request,
    next: Next,
) -> Response {
    match shim.access.admit(request.headers(), scope) {
        Ok(who) => {
            request.extensions_mut().insert(who);
            next.run(request).await
        }
        Err(refusal) => protocol.refuse(refusal),
    }
}

async fn answer(shim: &Shim, protocol: Protocol, request: Request, next: Next) -> Result<Response, Refusal> {
    if let Some(Peer(address)) = request.extensions().get() {
        shim.access.count(*address)?;
    }
    let length = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
    if length > MAX_URI {
        let message = format!("the uri has {length} bytes, at most {MAX_URI} are taken");
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, "uri_too_long", message));
    }
    let most = shim.params.request_timeout;
    let patience = protocol.patience(request.headers()).map_or(most, |patience| patience.min(most));
    match tokio::time::timeout(patience, contained(next.run(request))).await {
        Ok(Some(response)) => Ok(response),
        Ok(None) => {
            let message = "the request met a fault of ours, which is in the log under this x-request-id";
            Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message))
        }
        Err(_) => {
            let message = format!(
                "no answer within {patience:?}; try again, with the same event_id where something was sent: it may have been taken"
            );
            Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", message))
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
