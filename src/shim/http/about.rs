//! `GET /v1/users/{user}/{activity,insights,export}` and `GET /v1/receipts/{token}`: what is held of one user, put together; and how far a
//! write has come.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use std::sync::Arc;

use super::params::{Sent, User, bad_path};
use super::views::Body;
use crate::shim::guard::Caller;
use crate::shim::queries::about;
use crate::shim::queries::asked::Wanted;
use crate::shim::{Refusal, State as Shim};

pub async fn activity(
    State(shim): State<Arc<Shim>>,
    User(user): User,
    wanted: Wanted,
    Sent(token): Sent,
) -> Result<Body, Refusal> {
    Ok(Body::of(&about::activity(&shim, &user, wanted.k, token.as_ref()).await?))
}

pub async fn insights(State(shim): State<Arc<Shim>>, User(user): User, Sent(token): Sent) -> Result<Body, Refusal> {
    Ok(Body::of(&about::insights(&shim, &user, token.as_ref()).await?))
}

pub async fn export(State(shim): State<Arc<Shim>>, User(user): User, caller: Caller) -> Result<Body, Refusal> {
    Ok(Body::of(&about::export(&shim, &user, &caller).await?))
}

pub async fn receipt(State(shim): State<Arc<Shim>>, path: Result<Path<String>, PathRejection>) -> Result<Body, Refusal> {
    let Path(token) = path.map_err(bad_path)?;
    Ok(Body::of(&about::receipt(&shim, &token).await?))
}
