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
use crate::shim::guard::Caller;
use crate::shim::queries::candidates::Proposed;
use crate::shim::queries::rank::{Also, Asked, Mature, order};
use crate::shim::{Refusal, State as Shim};

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
    mature: Option<bool>,
}

pub async fn rank(
    State(shim): State<Arc<Shim>>,
    Sent(token): Sent,
    caller: Caller,
    headers: HeaderMap,
    body: Stream,
) -> Result<Body, Refusal> {
    let body = body::bytes(&headers, body, shim.params.body_limit).await?;
    let Candidates { user_id, items, k, explain, seen, mature } = body::read(&body)?;
    let also = Also { seen, mature: Mature::asked(mature) };
    let asked = Asked { k, explain, also, ..Asked::of(user_id, items.into_iter().map(candidate).collect()) };
    Ok(Body::of(&order(&shim, &caller, asked, token.as_ref()).await?))
}

/// A candidate: an item, or only its id.
fn candidate(sent: &RawValue) -> Proposed<'_> {
    let text = sent.get();
    match serde_json::from_str::<&str>(text) {
        Ok(id) => Proposed::Id(id.into()),
        // it is written with escapes, or is none
        Err(_) => serde_json::from_str(text).map_or(Proposed::Item(text.as_bytes().into()), Proposed::Id),
    }
}
