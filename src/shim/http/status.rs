//! How the shim and its store are: for people, for probes, for Prometheus.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;

use super::views::Body;
use crate::shim::access::Who;
use crate::shim::queries::stats::{self, lag_ms};
use crate::shim::queries::{applied_once, models, ready};
use crate::shim::{Refusal, State as Shim};

pub async fn stats(State(shim): State<Arc<Shim>>, who: Who) -> Result<Body, Refusal> {
    Ok(Body::of(&stats::stats(&shim, &who).await?))
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    version: &'static str,
    store: &'static str,
    epoch: Option<u64>,
    as_of: Option<i64>,
}

/// How answers are, and what orders them.
#[derive(Serialize)]
struct Ml {
    status: &'static str,
    version: &'static str,
    store: &'static str,
    lag_ms: i64,
    rebuilding: bool,
    model: models::Status,
}

pub async fn ml(State(shim): State<Arc<Shim>>) -> Result<Body, Refusal> {
    let (applied, model) = (shim.reader.applied().await?, models::ranks(&shim).await?);
    Ok(Body::of(&Ml {
        status: if applied_once(&applied) { "ok" } else { "starting" },
        version: env!("CARGO_PKG_VERSION"),
        store: shim.reader.name(),
        lag_ms: lag_ms(&applied),
        rebuilding: applied.rebuilding,
        model,
    }))
}

/// 200 while reads are answered (`ok`, or `starting` before the first epoch), 503 `degraded` while the store is away.
pub async fn health(State(shim): State<Arc<Shim>>) -> (StatusCode, Body) {
    let applied = shim.reader.applied().await.ok();
    let (code, status) = match &applied {
        None => (StatusCode::SERVICE_UNAVAILABLE, "degraded"),
        Some(applied) if applied_once(applied) => (StatusCode::OK, "ok"),
        Some(_) => (StatusCode::OK, "starting"),
    };
    let (epoch, as_of) = (applied.as_ref().map(|a| a.epoch), applied.as_ref().map(|a| a.clock_ms));
    let (version, store) = (env!("CARGO_PKG_VERSION"), shim.reader.name());
    (code, Body::of(&Health { status, version, store, epoch, as_of }))
}

/// Whether the process answers at all: asks nothing of the store.
pub async fn livez() -> Body {
    Body::of(&serde_json::json!({"status": "ok"}))
}

/// Whether reads are worth sending here: the store answers and an epoch is applied.
pub async fn readyz(State(shim): State<Arc<Shim>>) -> Result<Body, Refusal> {
    let epoch = ready(&shim).await?;
    Ok(Body::of(&serde_json::json!({"status": "ok", "epoch": epoch})))
}

/// Prometheus text.
pub async fn metrics(State(shim): State<Arc<Shim>>, who: Who) -> Result<Response, Refusal> {
    who.about_all()?;
    let failed = |why: &String| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", why);
    let text = shim.metrics.as_ref().map_err(failed)?.render();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
