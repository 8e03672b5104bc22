//! `GET /v1/models` and `POST /v1/models/{name}/promote`: what ranks, what could, and that something else does.

use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;

use super::params::Id;
use super::views::Body;
use crate::shim::guard::Caller;
use crate::shim::queries::models;
use crate::shim::{Refusal, State as Shim};

pub async fn models(State(shim): State<Arc<Shim>>) -> Result<Body, Refusal> {
    Ok(Body::of(&models::models(&shim).await?))
}

pub async fn status(State(shim): State<Arc<Shim>>) -> Result<Body, Refusal> {
    Ok(Body::of(&models::status(&shim).await?))
}

pub async fn evaluate(State(shim): State<Arc<Shim>>) -> Result<Body, Refusal> {
    Ok(Body::of(&models::evaluation(&shim).await?))
}

pub async fn promote(State(shim): State<Arc<Shim>>, Id(name): Id, caller: Caller) -> Result<(StatusCode, Body), Refusal> {
    Ok((StatusCode::ACCEPTED, Body::of(&models::promote(&shim, &caller, name).await?)))
}
