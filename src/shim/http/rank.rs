//! `POST /v1/rank`: a caller's candidates in the order of one user's taste.

use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;

use super::body;
use super::params::Sent;
use super::views::Body;
use crate::shim::access::Who;
use crate::shim::guard::RequestId;
use crate::shim::queries::rank::Asked;
use crate::shim::queries::{self, asked};
use crate::shim::{Refusal, State as Shim, Token};

/// Whose taste, and what is to be put in order.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Candidates<'a> {
    user_id: String,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
    #[serde(default, deserialize_with = "body::count")]
    k: Option<usize>,
    #[serde(default)]
    explain: bool,
    #[serde(default)]
    seen: bool,
    #[serde(default)]
    mature: bool,
}

pub async fn rank(
    State(shim): State<Arc<Shim>>,
    Sent(token): Sent,
    id: RequestId,
    who: Who,
    headers: HeaderMap,
    body: Stream,
) -> Result<Body, Refusal> {
    let body = body::bytes(&headers, body, shim.params.body_limit).await?;
    let Candidates { user_id, items, k, explain, seen, mature } = body::read(&body)?;
    let user = asked::user(user_id, &who, &shim.params)?;
    let asked = Asked { user: &user, items: &items, k, explain, seen, mature };
    Ok(Body::of(&queries::rank::order(&shim, &id, &asked, token.as_ref()).await?))
}

/// The best `k` of these, with nothing but what everybody may be shown.
pub async fn order(
    shim: &Shim,
    id: &RequestId,
    who: &Who,
    user: String,
    items: &[&RawValue],
    k: Option<usize>,
    token: Option<&Token>,
) -> Result<Body, Refusal> {
    let user = asked::user(user, who, &shim.params)?;
    let asked = Asked { user: &user, items, k, explain: false, seen: false, mature: false };
    Ok(Body::of(&queries::rank::order(shim, id, &asked, token).await?))
}
