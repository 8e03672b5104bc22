//! The routes that others' clients know, taken apart and answered in the shapes of their documents; where those show no answer, in ours.
//!
//! What must stay true: an alias decides nothing, its query does.

use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

use super::params::{Sent, UserAndItem};
use super::views::Body;
use super::{Route, about, admin, ask, body, experiments, feeds, ingest, models, open, read, status, views, write};
use crate::shim::access::Who;
use crate::shim::feed::Kind;
use crate::shim::guard::Caller;
use crate::shim::queries::asked::Unchecked;
use crate::shim::queries::candidates::Proposed;
use crate::shim::queries::feeds::Feed;
use crate::shim::queries::rank::{self, order};
use crate::shim::queries::{hometown, pair};
use crate::shim::{Refusal, State as Shim, Token};

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
        read("/api/v1/features/post/{item}", views::post_features),
        read("/api/v1/features/interaction/{user}/{item}", interaction),
        open("/api/v1/health", status::health),
        read("/api/v1/model/status", models::status),
        read("/api/v1/model/evaluate", models::evaluate),
        admin("/api/v1/train", models::train_any),
        admin("/api/v1/retrain", models::train_any),
        admin("/ml/train", models::train_any),
        read("/ml/status", status::ml),
        ask("/ml/predict", predict),
        write("/signals/process", ingest::events),
        write("/feedback", ingest::events),
        ask("/rank/for-you", rank_for_you),
        ask("/rank/for-you/enhanced", rank_for_you),
        ask("/api/v1/rank", rank_for_you),
        ask("/recommend", recommend),
        ask("/api/v1/recommend", recommend),
        ask("/ml/recommend", recommend),
        ask("/v1/scenarios/home_feed", home_feed),
        ask("/v1/scenarios/category_feed", category_feed),
        ask("/v1/scenarios/hometown", near_home),
        read("/v1/scenarios/hometown/stats", hometown_stats),
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
    #[serde(default)]
    category_id: Option<CategoryId>,
}

/// The largest whole number that JSON carries everywhere.
const LARGEST: f64 = ((1u64 << 53) - 1) as f64;

/// A category by its name, or by the number it goes by elsewhere.
#[derive(Deserialize)]
#[serde(untagged)]
enum CategoryId {
    Name(String),
    Number(f64),
}

/// Candidates to be put in order: an item each, by the names its client has for what it is.
#[derive(Deserialize)]
struct Candidates {
    user_id: String,
    candidate_items: Vec<Map<String, Value>>,
    #[serde(default, deserialize_with = "body::count")]
    limit: Option<usize>,
}

/// What clients call a field of an item, and what it is called here.
const FIELDS: [(&str, &str); 3] = [("id", "item_id"), ("hashtags", "tags"), ("quality_score", "quality")];

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

fn scenario(feed: &Feed<'_>) -> Body {
    Body::of_theirs(&Scenario::from(feed), feed.stale)
}

async fn rank_for_you(
    State(shim): State<Arc<Shim>>,
    Sent(token): Sent,
    caller: Caller,
    headers: HeaderMap,
    body: Stream,
) -> Result<Body, Refusal> {
    let Candidates { user_id, candidate_items, limit } = body::json(&headers, body, shim.params.body_limit).await?;
    let items = candidate_items.into_iter().map(as_item).collect();
    let asked = rank::Asked { k: Some(limit.unwrap_or(shim.params.default_k)), ..rank::Asked::of(user_id, items) };
    Ok(Body::of(&order(&shim, &caller, asked, token.as_ref()).await?))
}

fn as_item(mut fields: Map<String, Value>) -> Proposed<'static> {
    for (theirs, ours) in FIELDS {
        if let Some(value) = fields.remove(theirs) {
            fields.entry(ours).or_insert(value);
        }
    }
    Proposed::Item(Value::from(fields).to_string().into_bytes().into())
}

async fn recommend(
    State(shim): State<Arc<Shim>>,
    Sent(token): Sent,
    caller: Caller,
    headers: HeaderMap,
    body: Stream,
) -> Result<Body, Refusal> {
    let asked: Asked = body::json(&headers, body, shim.params.body_limit).await?;
    feed(&shim, &caller, token.as_ref(), asked, None, |feed| Body::of(feed)).await
}

async fn home_feed(
    State(shim): State<Arc<Shim>>,
    Sent(token): Sent,
    caller: Caller,
    headers: HeaderMap,
    body: Stream,
) -> Result<Body, Refusal> {
    let asked: Asked = body::json(&headers, body, shim.params.body_limit).await?;
    feed(&shim, &caller, token.as_ref(), asked, None, scenario).await
}

async fn category_feed(
    State(shim): State<Arc<Shim>>,
    Sent(token): Sent,
    caller: Caller,
    headers: HeaderMap,
    body: Stream,
) -> Result<Body, Refusal> {
    let OfCategory { asked, category_id } = body::json(&headers, body, shim.params.body_limit).await?;
    let category = match category_id {
        Some(CategoryId::Name(name)) if !name.is_empty() => name,
        Some(CategoryId::Number(number)) if number.fract() == 0.0 && (0.0..=LARGEST).contains(&number) => number.to_string(),
        _ => {
            let message = "category_id is missing, empty or no whole number; send the name or the number of a category";
            return Err(Refusal::bad("bad_category", message));
        }
    };
    feed(&shim, &caller, token.as_ref(), asked, Some(category), scenario).await
}

/// Who asks for what is near them.
#[derive(Deserialize)]
struct OfHometown {
    user_id: String,
    #[serde(default, deserialize_with = "body::count")]
    max_results: Option<usize>,
}

async fn near_home(
    State(shim): State<Arc<Shim>>,
    Sent(token): Sent,
    caller: Caller,
    headers: HeaderMap,
    body: Stream,
) -> Result<Body, Refusal> {
    let OfHometown { user_id, max_results } = body::json(&headers, body, shim.params.body_limit).await?;
    let near = hometown::streams(&shim, &caller, user_id, max_results, token.as_ref()).await?;
    Ok(Body::of_theirs(&near, near.stale))
}

async fn interaction(
    State(shim): State<Arc<Shim>>,
    UserAndItem(user, item): UserAndItem,
    Sent(token): Sent,
    caller: Caller,
) -> Result<Body, Refusal> {
    Ok(Body::of(&pair::interaction(&shim, &caller, user, item, token.as_ref()).await?))
}

/// One user and their posts, or pairs of any users and posts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pairs {
    OfOne {
        user_id: String,
        #[serde(alias = "candidate_items")]
        post_ids: Vec<String>,
    },
    OfAny {
        pairs: Vec<PairOf>,
    },
}

#[derive(Deserialize)]
struct PairOf {
    user_id: String,
    post_id: String,
}

async fn predict(
    State(shim): State<Arc<Shim>>,
    Sent(token): Sent,
    caller: Caller,
    headers: HeaderMap,
    body: Stream,
) -> Result<Body, Refusal> {
    let pairs = match body::json(&headers, body, shim.params.body_limit).await? {
        Pairs::OfOne { user_id, post_ids } => post_ids.into_iter().map(|post| (user_id.clone(), post)).collect(),
        Pairs::OfAny { pairs } => pairs.into_iter().map(|PairOf { user_id, post_id }| (user_id, post_id)).collect(),
    };
    Ok(Body::of(&pair::predict(&shim, &caller, pairs, token.as_ref()).await?))
}

async fn hometown_stats(State(shim): State<Arc<Shim>>, who: Who) -> Result<Body, Refusal> {
    who.about_all()?;
    Ok(Body::of(&hometown::stats(&shim).await?))
}

async fn feed(
    shim: &Shim,
    caller: &Caller,
    token: Option<&Token>,
    asked: Asked,
    category: Option<String>,
    show: impl FnOnce(&Feed<'_>) -> Body,
) -> Result<Body, Refusal> {
    let Asked { user_id, num_recommendations } = asked;
    let kind = if category.is_some() { Kind::Category } else { Kind::HOME };
    let unchecked = Unchecked { k: num_recommendations, category, ..Unchecked::default() };
    feeds::first_page(shim, caller, token, kind, user_id, unchecked, show).await
}
