//! What a client is told when it gets no answer: `{"error":{"code","message"}}` with a status that says whose turn it is.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::time::Duration;

use super::read::Unavailable;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: StatusCode,
    /// One word for programs.
    pub code: &'static str,
    /// One sentence for people: what, where, what to do.
    pub message: String,
    /// Seconds after which another try may do better.
    pub retry_after: Option<u64>,
    away: bool,
}

impl Refusal {
    /// The code of a store that does not answer, or not as it was written.
    pub const STORE: &str = "store_unavailable";

    /// Whether the store did not answer at all.
    pub fn is_away(&self) -> bool {
        self.away
    }

    /// Any refusal.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        Self { status, code, message: message.into(), retry_after, away: false }
    }

    /// 400.
    pub fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 404.
    pub fn unknown(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// 429: a token or an address asked too often, and may again after `wait`.
    pub fn too_many(whose: &str, wait: Duration) -> Self {
        let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
        let message = format!("too many requests of this {whose}; wait {seconds} s, and ask less often");
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message);
        Self { retry_after: Some(seconds), ..refusal }
    }

    /// 503: the store, or something in it that cannot be read.
    pub fn store(message: impl std::fmt::Display) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, Self::STORE, format!("{message}; try again, and see /readyz"))
    }
}

impl From<Unavailable> for Refusal {
    fn from(away: Unavailable) -> Self {
        metrics::counter!(crate::telemetry::STORE_ERRORS).increment(1);
        Self { away: true, ..Self::store(away) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({"error": {"code": self.code, "message": self.message}}).to_string();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
