//! `GET /v1/users/…`, `/v1/items/…` and `/v1/trending/…`: what is known, as JSON.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;

use super::params::{Id, Sent, User};
use crate::shim::queries::asked::Wanted;
use crate::shim::queries::views;
use crate::shim::{Refusal, State as Shim};

/// Says that an answer whose shape has no room for it may lack a write, or is what was remembered while the store is away.
const STALE: HeaderName = HeaderName::from_static("x-overdrive-stale");

/// A JSON answer.
pub struct Body {
    json: Vec<u8>,
    stale: bool,
}

impl Body {
    /// The value as JSON.
    pub fn of(value: &impl Serialize) -> Self {
        Self { json: serde_json::to_vec(value).expect("our answers have string keys"), stale: false }
    }

    /// The same of a shape that others made: a header says whether it is stale.
    pub fn of_theirs(value: &impl Serialize, stale: bool) -> Self {
        Self { stale, ..Self::of(value) }
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.json
    }
}

impl IntoResponse for Body {
    fn into_response(self) -> Response {
        let mut response = ([(header::CONTENT_TYPE, "application/json")], self.json).into_response();
        if self.stale {
            response.headers_mut().insert(STALE, HeaderValue::from_static("true"));
        }
        response
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
