//! What a request carries in its path, its query and its headers.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;
use std::sync::Arc;

use crate::shim::access::Who;
use crate::shim::feed::Kind;
use crate::shim::guard::{Caller, RequestId, extension};
use crate::shim::queries::asked::{self, Unchecked, Wanted, bad_k, check_id, parse_surface};
use crate::shim::{Refusal, State, Token};

/// The header with the token of a write that the answer must contain.
const TOKEN: &str = "x-overdrive-token";

/// The only id in the path.
pub struct Id(pub String);

impl FromRequestParts<Arc<State>> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Refusal> {
        let path: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path(id) = path.map_err(bad_path)?;
        check_id(&id, state.params.max_id_bytes).map(|()| Self(id))
    }
}

/// The only id in the path, of a user whom the request may be about.
pub struct User(pub String);

impl FromRequestParts<Arc<State>> for User {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Refusal> {
        let Id(user) = Id::from_request_parts(parts, state).await?;
        asked::user(user, &extension::<Who>(&parts.extensions)?, &state.params).map(Self)
    }
}

/// A user and an item, as the path has them.
pub struct UserAndItem(pub String, pub String);

impl FromRequestParts<Arc<State>> for UserAndItem {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Refusal> {
        let path: Result<Path<(String, String)>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path((user, item)) = path.map_err(bad_path)?;
        Ok(Self(user, item))
    }
}

/// The user whom the query names as `user_id`, if it does; it is not looked at yet.
pub struct Named(pub Option<String>);

impl FromRequestParts<Arc<State>> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Refusal> {
        let mut named = pairs(parts, state).await?.into_iter().filter(|(name, _)| name == "user_id").map(|(_, user)| user);
        match (named.next(), named.next()) {
            (user, None) => Ok(Self(user)),
            _ => Err(Refusal::bad("bad_query", "the query cannot be read: `user_id` is given twice")),
        }
    }
}

/// The query, name by name.
async fn pairs(parts: &mut Parts, state: &Arc<State>) -> Result<Vec<(String, String)>, Refusal> {
    // What is no text would become text that nobody sent.
    let text = percent_decode_str(parts.uri.query().unwrap_or_default()).decode_utf8();
    text.map_err(|e| Refusal::bad("bad_query", format!("the query cannot be read: it is not UTF-8: {e}")))?;
    let query: Result<Query<Vec<(String, String)>>, QueryRejection> = Query::from_request_parts(parts, state).await;
    let refused = |e: QueryRejection| Refusal::bad("bad_query", format!("the query cannot be read: {}", e.body_text()));
    query.map(|Query(pairs)| pairs).map_err(refused)
}

/// Surface and user of a feed.
pub struct SurfaceAndUser(pub Kind, pub String);

impl FromRequestParts<Arc<State>> for SurfaceAndUser {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Refusal> {
        let path: Result<Path<(String, String)>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path((surface, user)) = path.map_err(bad_path)?;
        let user = asked::user(user, &extension::<Who>(&parts.extensions)?, &state.params)?;
        Ok(Self(parse_surface(&surface, &state.rules)?, user))
    }
}

/// The surface of feeds of several users.
pub struct Surface(pub Kind);

impl FromRequestParts<Arc<State>> for Surface {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Refusal> {
        let path: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path(surface) = path.map_err(bad_path)?;
        parse_surface(&surface, &state.rules).map(Self)
    }
}

/// A path that is no text.
pub fn bad_path(rejection: PathRejection) -> Refusal {
    Refusal::bad("bad_path", format!("the path cannot be read: {}", rejection.body_text()))
}

/// The query as it is written; of what may be given once, once.
#[derive(Default)]
struct Written {
    k: Option<String>,
    cursor: Option<String>,
    category: Option<String>,
    language: Option<String>,
    lat: Option<String>,
    lon: Option<String>,
    local_preference: Option<String>,
    explain: Option<String>,
    exclude: Vec<String>,
}

impl Written {
    fn take(&mut self, name: &str, value: String) -> Result<(), Refusal> {
        let place = match name {
            "exclude" => {
                self.exclude.extend(value.split(',').filter(|id| !id.is_empty()).map(String::from));
                return Ok(());
            }
            "k" => &mut self.k,
            "cursor" => &mut self.cursor,
            "category" => &mut self.category,
            "language" => &mut self.language,
            "lat" => &mut self.lat,
            "lon" => &mut self.lon,
            "local_preference" => &mut self.local_preference,
            "explain" => &mut self.explain,
            _ => return Ok(()),
        };
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err(Refusal::bad("bad_query", format!("the query cannot be read: `{name}` is given twice"))),
        }
    }
}

impl FromRequestParts<Arc<State>> for Wanted {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Refusal> {
        let mut written = Written::default();
        pairs(parts, state).await?.into_iter().try_for_each(|(name, value)| written.take(&name, value))?;
        let unchecked = Unchecked {
            k: written.k.map(|k| parse_k(&k, state.params.max_k)).transpose()?,
            cursor: written.cursor,
            category: written.category,
            language: written.language,
            lat: parse_number("lat", written.lat)?,
            lon: parse_number("lon", written.lon)?,
            local_preference: parse_number("local_preference", written.local_preference)?,
            explain: written.explain.map_or(Ok(false), |explain| parse_flag(&explain))?,
            exclude: written.exclude,
        };
        unchecked.checked(&state.params)
    }
}

fn parse_number(name: &str, text: Option<String>) -> Result<Option<f64>, Refusal> {
    let number = |text: String| {
        text.parse().map_err(|_| Refusal::bad("bad_place", format!("{name} is `{text}`; it must be a number, as 48.137")))
    };
    text.map(number).transpose()
}

fn parse_k(text: &str, most: usize) -> Result<usize, Refusal> {
    text.parse().map_err(|_| bad_k(text, most))
}

fn parse_flag(text: &str) -> Result<bool, Refusal> {
    match text {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Refusal::bad("bad_explain", format!("explain is `{text}`; it must be true or false"))),
    }
}

/// The token a read was sent with, if any.
pub struct Sent(pub Option<Token>);

impl FromRequestParts<Arc<State>> for Sent {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<State>) -> Result<Self, Refusal> {
        // What is no text is no token either.
        let text = parts.headers.get(TOKEN).map(|text| text.to_str().unwrap_or_default());
        asked::parse_token(TOKEN, text).map(Self)
    }
}

impl FromRequestParts<Arc<State>> for RequestId {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<State>) -> Result<Self, Refusal> {
        extension(&parts.extensions)
    }
}

impl FromRequestParts<Arc<State>> for Who {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<State>) -> Result<Self, Refusal> {
        extension(&parts.extensions)
    }
}

impl FromRequestParts<Arc<State>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<State>) -> Result<Self, Refusal> {
        Caller::of(&parts.extensions, &parts.headers)
    }
}
