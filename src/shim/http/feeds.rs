//! `GET /v1/feeds/{surface}/{user}`: one round trip to the store, or what is remembered when it is away.

use axum::extract::State;
use serde::Serialize;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::time::Instant;

use super::guard::RequestId;
use super::params::{Sent, SurfaceAndUser, Wanted};
use crate::shim::commons::Common;
use crate::shim::feed::{self, Kind, Lists, Page};
use crate::shim::{Cadence, Parts, Refusal, State as Shim, Token, Unavailable};
use crate::sinks::layout::{self, StoredSlate};
use crate::telemetry::STORE_ERRORS;

/// A feed as it is answered.
#[derive(Serialize)]
struct Feed<'a> {
    request_id: &'a str,
    user_id: &'a str,
    surface: &'static str,
    /// Whether it may lack the write whose token was sent, or is what was remembered of a store that is away.
    stale: bool,
    #[serde(flatten)]
    page: Page<'a>,
}

/// What was read for a feed.
struct Found {
    slate: Option<StoredSlate>,
    seen: Vec<(String, f64)>,
    common: Arc<Common>,
    stale: bool,
}

pub async fn feed(
    State(shim): State<Arc<Shim>>,
    SurfaceAndUser(surface, user): SurfaceAndUser,
    wanted: Wanted,
    Sent(token): Sent,
    id: RequestId,
) -> Result<super::views::Body, Refusal> {
    let Some(kind) = Kind::parse(&surface) else {
        return Err(Refusal::unknown("unknown_surface", format!("there is no surface `{surface}`; use home or trending")));
    };
    let found = find(&shim, kind, &user, token.as_ref()).await?;
    let seen: HashSet<&str> = found.seen.iter().map(|(item, _)| item.as_str()).collect();
    let Common { gone, trending } = &*found.common;
    let lists = Lists { slate: found.slate.as_ref(), trending, seen: &seen, gone };
    let page = feed::page(kind, &lists, &wanted.cursor, wanted.k, wanted.explain);
    let feed = Feed { request_id: &id.0, user_id: &user, surface: kind.name(), stale: found.stale, page };
    Ok(super::views::Body::of(&feed))
}

async fn find(shim: &Shim, kind: Kind, user: &str, token: Option<&Token>) -> Result<Found, Refusal> {
    match read(shim, kind, user, token).await {
        Ok(found) => Ok(found),
        Err(away) => remembered(shim).ok_or_else(|| away.into()),
    }
}

async fn read(shim: &Shim, kind: Kind, user: &str, token: Option<&Token>) -> Result<Found, Unavailable> {
    let (slate, seen) = (shim.keys.slate(Kind::Home.name(), None, user), shim.keys.seen(user));
    let cadence = if kind == Kind::Trending { Cadence::Tick } else { Cadence::Epoch };
    let mut parts = shim.reader.feed(&slate, &seen).await?;
    let mut stale = false;
    let common = match token {
        None => shim.commons.get(&*shim.reader, &shim.keys).await?,
        Some(token) => {
            if !token.covered_by(cadence.of(&parts.applied)) {
                stale = !shim.visible(token, cadence).await?;
                parts = shim.reader.feed(&slate, &seen).await?;
            }
            shim.commons.since(Instant::now(), &*shim.reader, &shim.keys).await?
        }
    };
    let Parts { slate, seen, .. } = parts;
    Ok(Found { slate: slate.and_then(|value| decoded(&value)), seen, common, stale })
}

/// A slate that cannot be read is as good as none: the user gets what is trending, the operator a warning.
fn decoded(value: &[u8]) -> Option<StoredSlate> {
    match layout::decode_slate(value) {
        Ok(slate) => Some(slate),
        Err(error) => {
            metrics::counter!(STORE_ERRORS).increment(1);
            tracing::warn!(%error, "a stored slate cannot be read; its user gets what is trending");
            None
        }
    }
}

/// The last trending list read, for everybody, while the store is away.
fn remembered(shim: &Shim) -> Option<Found> {
    let common = shim.commons.stored().filter(|common| !common.trending.items.is_empty())?;
    metrics::counter!(STORE_ERRORS).increment(1);
    Some(Found { slate: None, seen: Vec::new(), common, stale: true })
}
