//! `GET /v1/users/…`, `/v1/items/…` and `/v1/trending/…`: what is known, as JSON.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;

use super::params::{Id, Sent, User};
use crate::shim::queries::asked::Wanted;
use crate::shim::queries::views;
use crate::shim::{Refusal, State as Shim};

/// A JSON answer.
pub struct Body(Vec<u8>);

impl Body {
    /// The value as JSON.
    pub fn of(value: &impl Serialize) -> Self {
        Self(serde_json::to_vec(value).expect("our answers have string keys"))
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl IntoResponse for Body {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "application/json")], self.0).into_response()
    }
}

pub async fn user_features(State(shim): State<Arc<Shim>>, User(user): User, Sent(token): Sent) -> Result<Body, Refusal> {
    Ok(Body::of(&views::user_features(&shim, &user, token.as_ref()).await?))
}

pub async fn item_features(State(shim): State<Arc<Shim>>, Id(item): Id, Sent(token): Sent) -> Result<Body, Refusal> {
    Ok(Body::of(&views::item_features(&shim, &item, token.as_ref()).await?))
}

pub async fn post_features(State(shim): State<Arc<Shim>>, Id(item): Id, Sent(token): Sent) -> Result<Body, Refusal> {
    Ok(Body::of(&views::post_features(&shim, &item, token.as_ref()).await?))
}

pub async fn interests(State(shim): State<Arc<Shim>>, User(user): User, Sent(token): Sent) -> Result<Body, Refusal> {
    Ok(Body::of(&views::interests(&shim, &user, token.as_ref()).await?))
}

pub async fn neighbours(State(shim): State<Arc<Shim>>, Id(item): Id, Sent(token): Sent) -> Result<Body, Refusal> {
    Ok(Body::of(&views::neighbours(&shim, &item, token.as_ref()).await?))
}

pub async fn trending(State(shim): State<Arc<Shim>>, Id(scope): Id, wanted: Wanted, Sent(token): Sent) -> Result<Body, Refusal> {
    Ok(Body::of(&views::trending(&shim, &scope, wanted.k, token.as_ref()).await?))
}
