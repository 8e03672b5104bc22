//! What a request carries, checked before anything is read: ids, `k`, cursor, token.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::StatusCode;
use axum::http::request::Parts;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::guard::RequestId;
use crate::model::UserId;
use crate::model::place::Place;
use crate::shim::access::Who;
use crate::shim::cursor::Cursor;
use crate::shim::feed::{Kind, Narrow, Spot};
use crate::shim::server::Peer;
use crate::shim::trail::Deed;
use crate::shim::{Params, Refusal, State, Token};

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
        extension::<Who>(parts)?.about(&user).map(|()| Self(user))
    }
}

/// Surface and user of a feed.
pub struct SurfaceAndUser(pub Kind, pub String);

impl FromRequestParts<Arc<State>> for SurfaceAndUser {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Refusal> {
        let path: Result<Path<(String, String)>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path((surface, user)) = path.map_err(bad_path)?;
        check_id(&user, state.params.max_id_bytes)?;
        extension::<Who>(parts)?.about(&user)?;
        Ok(Self(parse_surface(&surface)?, user))
    }
}

/// The surface of feeds of several users.
pub struct Surface(pub Kind);

impl FromRequestParts<Arc<State>> for Surface {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Refusal> {
        let path: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path(surface) = path.map_err(bad_path)?;
        parse_surface(&surface).map(Self)
    }
}

fn parse_surface(name: &str) -> Result<Kind, Refusal> {
    let unknown = || {
        let names = Kind::ALL.map(Kind::name).join(", ");
        Refusal::unknown("unknown_surface", format!("there is no surface `{name}`; use one of {names}"))
    };
    Kind::parse(name).ok_or_else(unknown)
}

/// A path that is no text.
pub fn bad_path(rejection: PathRejection) -> Refusal {
    Refusal::bad("bad_path", format!("the path cannot be read: {}", rejection.body_text()))
}

/// Refuses an id that cannot be one.
pub fn check_id(id: &str, most: usize) -> Result<(), Refusal> {
    if id.len() > most {
        return Err(Refusal::bad("bad_id", format!("the id has {} bytes, at most {most} are taken", id.len())));
    }
    if id.chars().any(char::is_control) {
        return Err(Refusal::bad("bad_id", "the id has a control character in it"));
    }
    Ok(())
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

/// Items that are not wanted.
#[derive(Default)]
pub struct Exclude(pub HashSet<String>);

impl Exclude {
    /// Refuses too many of them, and what cannot be an id.
    pub fn checked(items: Vec<String>, params: &Params) -> Result<Self, Refusal> {
        let (count, most) = (items.len(), params.exclude_limit);
        if count > most {
            return Err(Refusal::bad("bad_exclude", format!("exclude has {count} items, at most {most} are taken")));
        }
        items.iter().try_for_each(|item| check_id(item, params.max_id_bytes))?;
        Ok(Self(items.into_iter().collect()))
    }
}

/// The checked query of a list.
#[derive(Default)]
pub struct Wanted {
    pub k: usize,
    pub cursor: Cursor,
    pub category: Option<String>,
    pub language: Option<String>,
    pub spot: Option<Spot>,
    pub explain: bool,
    pub exclude: Exclude,
}

impl Wanted {
    /// What a surface is narrowed to; refuses a request that does not say it where it must.
    pub fn narrow(&self, kind: Kind) -> Result<Narrow<'_>, Refusal> {
        match (kind, self.category.as_deref(), self.spot) {
            (Kind::Home | Kind::Trending, ..) => Ok(Narrow::Not),
            (Kind::Category, Some(category), _) => Ok(Narrow::Category(category)),
            (Kind::Near, _, Some(spot)) => Ok(Narrow::Near(spot)),
            (Kind::Category, None, _) => {
                Err(Refusal::bad("bad_category", "the surface category needs to know which: send `category`"))
            }
            (Kind::Near, _, None) => Err(Refusal::bad("bad_place", "the surface near needs to know where: send `lat` and `lon`")),
        }
    }
}

impl FromRequestParts<Arc<State>> for Wanted {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Refusal> {
        let query: Result<Query<Vec<(String, String)>>, QueryRejection> = Query::from_request_parts(parts, state).await;
        let refused = |e: QueryRejection| Refusal::bad("bad_query", format!("the query cannot be read: {}", e.body_text()));
        let Query(pairs) = query.map_err(refused)?;
        let mut written = Written::default();
        pairs.into_iter().try_for_each(|(name, value)| written.take(&name, value))?;
        let (most, usual) = (state.params.max_k, state.params.default_k);
        Ok(Self {
            k: written.k.map_or(Ok(usual), |k| parse_k(&k, most))?,
            cursor: written.cursor.map_or(Ok(Cursor::default()), |cursor| parse_cursor(&cursor))?,
            language: written.language.map(|language| parse_language(language, &state.params)).transpose()?,
            spot: parse_spot(
                parse_number("lat", written.lat)?,
                parse_number("lon", written.lon)?,
                parse_number("local_preference", written.local_preference)?,
            )?,
            category: written.category.map(|category| parse_category(category, &state.params)).transpose()?,
            explain: written.explain.map_or(Ok(false), |explain| parse_flag(&explain))?,
            exclude: Exclude::checked(written.exclude, &state.params)?,
        })
    }
}

/// Refuses what cannot be the name of a category.
pub fn parse_category(name: String, params: &Params) -> Result<String, Refusal> {
    parse_name("bad_category", "category", name, params)
}

/// Refuses what cannot be the name of a language.
pub fn parse_language(name: String, params: &Params) -> Result<String, Refusal> {
    parse_name("bad_language", "language", name, params)
}

fn parse_name(code: &'static str, what: &str, name: String, params: &Params) -> Result<String, Refusal> {
    if name.is_empty() {
        return Err(Refusal::bad(code, format!("the {what} is empty; send its name, or none")));
    }
    check_id(&name, params.max_id_bytes).map(|()| name)
}

fn parse_number(name: &str, text: Option<String>) -> Result<Option<f64>, Refusal> {
    let number = |text: String| {
        text.parse().map_err(|_| Refusal::bad("bad_place", format!("{name} is `{text}`; it must be a number, as 48.137")))
    };
    text.map(number).transpose()
}

/// Refuses half a point, one that is nowhere on the earth, and a preference that is none.
pub fn parse_spot(lat: Option<f64>, lon: Option<f64>, preference: Option<f64>) -> Result<Option<Spot>, Refusal> {
    let bad = |message: String| Err(Refusal::bad("bad_place", message));
    let preference = preference.unwrap_or(1.0);
    if !(0.0..=1.0).contains(&preference) {
        return bad(format!("local_preference is {preference}; it must be a number from 0 to 1"));
    }
    match (lat, lon) {
        (None, None) => Ok(None),
        (Some(lat), Some(lon)) => match Place::new(lat, lon) {
            Some(here) => Ok(Some(Spot { here, preference })),
            None => bad(format!("lat {lat}, lon {lon} is nowhere: send degrees, lat from -90 to 90 and lon from -180 to 180")),
        },
        _ => bad("half a place: send both `lat` and `lon`, or neither".to_string()),
    }
}

fn parse_k(text: &str, most: usize) -> Result<usize, Refusal> {
    text.parse().map_err(|_| bad_k(text, most)).and_then(|k| check_k(k, most))
}

/// Refuses a number of items that nobody gets.
pub fn check_k(k: usize, most: usize) -> Result<usize, Refusal> {
    Some(k).filter(|k| (1..=most).contains(k)).ok_or_else(|| bad_k(&k.to_string(), most))
}

fn bad_k(text: &str, most: usize) -> Refusal {
    Refusal::bad("bad_k", format!("k is `{text}`; it must be a whole number from 1 to {most}"))
}

fn parse_cursor(text: &str) -> Result<Cursor, Refusal> {
    Cursor::parse(text).ok_or_else(|| {
        Refusal::bad("bad_cursor", "the cursor is not one of ours; send the `cursor` of the last page unchanged, or none")
    })
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
        let Some(text) = parts.headers.get(TOKEN) else { return Ok(Self(None)) };
        let token = text.to_str().ok().and_then(Token::parse);
        let message = format!("{TOKEN} is not a token of ours; send the `token` of a write unchanged, or no such header");
        token.map(|token| Self(Some(token))).ok_or_else(|| Refusal::bad("bad_token", message))
    }
}

impl FromRequestParts<Arc<State>> for RequestId {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<State>) -> Result<Self, Refusal> {
        extension(parts)
    }
}

impl FromRequestParts<Arc<State>> for Who {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<State>) -> Result<Self, Refusal> {
        extension(parts)
    }
}

/// Who sends a request, and which it is.
pub struct Caller {
    pub who: Who,
    id: RequestId,
    address: Option<IpAddr>,
}

impl Caller {
    /// What the audit trail says of this request.
    pub fn deed(&self, event: &'static str, user: &str) -> Deed {
        let (by, request_id) = (self.who.name.clone(), self.id.0.clone());
        Deed { event, user: UserId::of(user), by, address: self.address, request_id }
    }
}

impl FromRequestParts<Arc<State>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<State>) -> Result<Self, Refusal> {
        let address = parts.extensions.get::<Peer>().map(|peer| peer.0);
        Ok(Self { who: extension(parts)?, id: extension(parts)?, address })
    }
}

/// What the layers around the route left with the request.
fn extension<T: Clone + Send + Sync + 'static>(parts: &Parts) -> Result<T, Refusal> {
    let missing = || Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the request did not come through its guards");
    parts.extensions.get::<T>().cloned().ok_or_else(missing)
}
