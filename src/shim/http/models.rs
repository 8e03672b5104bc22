//! `GET /v1/models`, `POST /v1/models/{name}/promote` and `/train`: what ranks, what could, that something else does, and that one is made.

use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use std::sync::Arc;

use super::body;
use super::params::Id;
use super::views::Body;
use crate::shim::access::Who;
use crate::shim::guard::Caller;
use crate::shim::queries::models;
use crate::shim::{Refusal, State as Shim};

/// There is nothing to be said but the name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Clients that know of one model say things of it that are not used.
#[derive(Deserialize)]
struct Anything {}

pub async fn models(State(shim): State<Arc<Shim>>, who: Who) -> Result<Body, Refusal> {
    Ok(Body::of(&models::models(&shim, &who).await?))
}

pub async fn status(State(shim): State<Arc<Shim>>, who: Who) -> Result<Body, Refusal> {
    Ok(Body::of(&models::status(&shim, &who).await?))
}

pub async fn evaluate(State(shim): State<Arc<Shim>>, who: Who) -> Result<Body, Refusal> {
    Ok(Body::of(&models::evaluation(&shim, &who).await?))
}

/// With a type that no page of another site may send without asking.
pub async fn promote(
    State(shim): State<Arc<Shim>>,
    Id(name): Id,
    caller: Caller,
    headers: HeaderMap,
    body: Stream,
) -> Result<(StatusCode, Body), Refusal> {
    let _: Nothing = body::json(&headers, body, shim.params.body_limit).await?;
    Ok((StatusCode::ACCEPTED, Body::of(&models::promote(&shim, &caller, name).await?)))
}

pub async fn train(
    State(shim): State<Arc<Shim>>,
    Id(model): Id,
    caller: Caller,
    headers: HeaderMap,
    body: Stream,
) -> Result<(StatusCode, Body), Refusal> {
    let _: Nothing = body::json(&headers, body, shim.params.body_limit).await?;
    Ok((StatusCode::ACCEPTED, Body::of(&models::train(&shim, &caller, Some(model)).await?)))
}

/// The one that the settings name.
pub async fn train_any(
    State(shim): State<Arc<Shim>>,
    caller: Caller,
    headers: HeaderMap,
    body: Stream,
) -> Result<(StatusCode, Body), Refusal> {
    let _: Anything = body::json(&headers, body, shim.params.body_limit).await?;
    Ok((StatusCode::ACCEPTED, Body::of(&models::train(&shim, &caller, None).await?)))
}
