//! `GET /v1/experiments` and `GET /v1/experiments/{name}`: how the experiments stand.

use axum::extract::State;
use std::sync::Arc;

use super::params::Id;
use super::views::Body;
use crate::shim::access::Who;
use crate::shim::queries::experiments;
use crate::shim::{Refusal, State as Shim};

pub async fn experiments(State(shim): State<Arc<Shim>>, who: Who) -> Result<Body, Refusal> {
    Ok(Body::of(&experiments::experiments(&shim, &who).await?))
}

pub async fn experiment(State(shim): State<Arc<Shim>>, Id(name): Id, who: Who) -> Result<Body, Refusal> {
    Ok(Body::of(&experiments::experiment(&shim, &who, &name).await?))
}
