//! `GET /v1/feeds/{surface}/{user}` and, for many users at once, `POST /v1/feeds/{surface}`.

use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::params::{Named, Sent, Surface, SurfaceAndUser};
use super::views::Body;
use super::{body, etag};
use crate::shim::feed::Kind;
use crate::shim::guard::Caller;
use crate::shim::queries::asked::{self, Unchecked, Wanted};
use crate::shim::queries::feeds::{self, Asked, Feed};
use crate::shim::{Refusal, State as Shim, Token};

/// Several feeds, in the order of their users.
#[derive(Serialize)]
struct Feeds<'a> {
    feeds: Vec<Feed<'a>>,
}

/// Whose feeds are asked for at once.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Many {
    user_ids: Vec<String>,
    #[serde(default, deserialize_with = "body::count")]
    k: Option<usize>,
    category: Option<String>,
    language: Option<String>,
    lat: Option<f64>,
    lon: Option<f64>,
    local_preference: Option<f64>,
    #[serde(default)]
    explain: bool,
    #[serde(default)]
    exclude: Vec<String>,
}

pub async fn feed(
    State(shim): State<Arc<Shim>>,
    SurfaceAndUser(kind, user): SurfaceAndUser,
    wanted: Wanted,
    Sent(token): Sent,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    page(&shim, &caller, kind, user, &wanted, token.as_ref(), &headers).await
}

/// Of the user whom the token is bound to or the query names; of nobody: what everybody gets.
pub async fn for_you(
    State(shim): State<Arc<Shim>>,
    Named(named): Named,
    wanted: Wanted,
    Sent(token): Sent,
    mut caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let user = named.or_else(|| caller.who.user.clone());
    caller.using &= user.is_some();
    let user = user.map_or(Ok(String::new()), |user| asked::user(user, &caller.who, &shim.params))?;
    page(&shim, &caller, Kind::HOME, user, &wanted, token.as_ref(), &headers).await
}

async fn page(
    shim: &Shim,
    caller: &Caller,
    kind: Kind,
    user: String,
    wanted: &Wanted,
    token: Option<&Token>,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let asked = Asked::new(kind, wanted, caller)?;
    let found = feeds::find(shim, asked, std::slice::from_ref(&user), token, false).await?;
    let feed = found.feed(0, &user, &asked);
    Ok(etag::answer(headers, feed.page.epoch, &caller.id, Body::of(&feed)))
}

pub async fn feeds(
    State(shim): State<Arc<Shim>>,
    Surface(kind): Surface,
    Sent(token): Sent,
    caller: Caller,
    headers: HeaderMap,
    body: Stream,
) -> Result<Body, Refusal> {
    let Many { user_ids, k, category, language, lat, lon, local_preference, explain, exclude } =
        body::json(&headers, body, shim.params.body_limit).await?;
    let users = feeds::users(&shim, &caller.who, user_ids)?;
    let cursor = None;
    let unchecked = Unchecked { k, cursor, category, language, lat, lon, local_preference, explain, exclude };
    let wanted = unchecked.checked(&shim.params)?;
    let asked = Asked::new(kind, &wanted, &caller)?;
    let found = feeds::find(&shim, asked, &users, token.as_ref(), false).await?;
    Ok(Body::of(&Feeds { feeds: users.iter().enumerate().map(|(at, user)| found.feed(at, user, &asked)).collect() }))
}

/// The first page of one user's feed, answered as `show` says.
pub async fn first_page(
    shim: &Shim,
    caller: &Caller,
    token: Option<&Token>,
    kind: Kind,
    user: String,
    unchecked: Unchecked,
    show: impl FnOnce(&Feed<'_>) -> Body,
) -> Result<Body, Refusal> {
    let users = feeds::users(shim, &caller.who, vec![user])?;
    let wanted = unchecked.checked(&shim.params)?;
    let asked = Asked::new(kind, &wanted, caller)?;
    let found = feeds::find(shim, asked, &users, token, false).await?;
    Ok(show(&found.feed(0, &users[0], &asked)))
}
