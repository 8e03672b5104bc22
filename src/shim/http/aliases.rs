//! The routes that others' clients know by other names: each is one of ours, asked and answered as they do.
//!
//! What must stay true: an alias knows nothing of its own. Where a client's documents show no answer, it gets ours; what nothing
//! here can answer has no alias.

use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::views::Body;
use super::{Route, about, body, experiments, feeds, ingest, open, read, status, views, write};
use crate::shim::access::Who;
use crate::shim::feed::Kind;
use crate::shim::guard::RequestId;
use crate::shim::queries::asked::Unchecked;
use crate::shim::queries::feeds::Feed;
use crate::shim::{Refusal, Scope, State as Shim};

/// All aliases.
pub fn routes() -> Vec<Route> {
    vec![
        read("/features/{user}", views::user_features),
        read("/interests/{user}", views::interests),
        read("/insights/{user}", about::insights),
        read("/analytics/user/{user}", about::activity),
        read("/analytics/user/{user}/realtime", about::insights),
        read("/performance/system", status::stats),
        read("/ab/status", experiments::experiments),
        read("/api/v1/features/user/{user}", views::user_features),
        read("/api/v1/features/post/{item}", views::item_features),
        open("/api/v1/health", status::health),
        write("/signals/process", ingest::events),
        write("/feedback", ingest::events),
        Route { scope: Some(Scope::Read), ..write("/recommend", recommend) },
        Route { scope: Some(Scope::Read), ..write("/v1/scenarios/home_feed", home_feed) },
        Route { scope: Some(Scope::Read), ..write("/v1/scenarios/category_feed", category_feed) },
    ]
}

/// Whose feed is asked for; what else is said of the context is not used.
#[derive(Deserialize)]
struct Asked {
    user_id: String,
    #[serde(default, deserialize_with = "body::count")]
    num_recommendations: Option<usize>,
}

/// The same of a category's feed.
#[derive(Deserialize)]
struct OfCategory {
    #[serde(flatten)]
    asked: Asked,
    category_id: Option<String>,
}

/// A page of streams, as the scenarios answer it.
#[derive(Serialize)]
struct Scenario<'a> {
    request_id: &'a str,
    streams: Vec<Recommended<'a>>,
}

#[derive(Serialize)]
struct Recommended<'a> {
    stream_id: &'a str,
    score: f64,
    reason: &'a str,
}

impl<'a> From<&'a Feed<'_>> for Scenario<'a> {
    fn from(feed: &'a Feed<'_>) -> Self {
        let items = feed.page.items.iter();
        let streams = items.map(|item| Recommended { stream_id: item.item_id, score: item.score, reason: &item.reason });
        Self { request_id: feed.request_id, streams: streams.collect() }
    }
}

async fn recommend(
    State(shim): State<Arc<Shim>>,
    who: Who,
    id: RequestId,
    headers: HeaderMap,
    body: Stream,
) -> Result<Body, Refusal> {
    let asked: Asked = body::json(&headers, body, shim.params.body_limit).await?;
    feed(&shim, &id, &who, asked, None, |feed| Body::of(feed)).await
}

async fn home_feed(
    State(shim): State<Arc<Shim>>,
    who: Who,
    id: RequestId,
    headers: HeaderMap,
    body: Stream,
) -> Result<Body, Refusal> {
    let asked: Asked = body::json(&headers, body, shim.params.body_limit).await?;
    feed(&shim, &id, &who, asked, None, |feed| Body::of(&Scenario::from(feed))).await
}

async fn category_feed(
    State(shim): State<Arc<Shim>>,
    who: Who,
    id: RequestId,
    headers: HeaderMap,
    body: Stream,
) -> Result<Body, Refusal> {
    let OfCategory { asked, category_id } = body::json(&headers, body, shim.params.body_limit).await?;
    let Some(category) = category_id.filter(|category| !category.is_empty()) else {
        return Err(Refusal::bad("bad_category", "category_id is missing or empty; send the name of a category"));
    };
    feed(&shim, &id, &who, asked, Some(category), |feed| Body::of(&Scenario::from(feed))).await
}

async fn feed(
    shim: &Shim,
    id: &RequestId,
    who: &Who,
    asked: Asked,
    category: Option<String>,
    show: impl FnOnce(&Feed<'_>) -> Body,
) -> Result<Body, Refusal> {
    let Asked { user_id, num_recommendations } = asked;
    let kind = if category.is_some() { Kind::Category } else { Kind::Home };
    let unchecked = Unchecked { k: num_recommendations, category, ..Unchecked::default() };
    feeds::first_page(shim, id, who, kind, user_id, unchecked, show).await
}
