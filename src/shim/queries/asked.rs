//! What a request asks for, checked before anything is read: ids, surface, `k`, cursor, place, token. One check for every protocol.

use std::collections::HashSet;

use crate::model::place::{PREFERENCE, Place};
use crate::shim::access::Who;
use crate::shim::cursor::Cursor;
use crate::shim::feed::{Kind, Narrow, Spot};
use crate::shim::{Params, Refusal, Rules, Token};

/// The surface of this name.
pub fn parse_surface(name: &str, rules: &Rules) -> Result<Kind, Refusal> {
    let all = || rules.kept().map(Kind::Slate).chain(Kind::NARROW);
    all().find(|kind| kind.name() == name).ok_or_else(|| {
        let names: Vec<&str> = all().map(Kind::name).collect();
        Refusal::unknown("unknown_surface", format!("there is no surface `{name}`; use one of {}", names.join(", ")))
    })
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

/// An id that can be one and is there; `field` is where.
pub fn named(field: &str, id: String, params: &Params) -> Result<String, Refusal> {
    if id.is_empty() {
        return Err(Refusal::bad("bad_id", format!("{field} is missing or empty; send the id")));
    }
    check_id(&id, params.max_id_bytes).map(|()| id)
}

/// A user id that can be one, of a user whom the request may be about.
pub fn user(id: String, who: &Who, params: &Params) -> Result<String, Refusal> {
    let id = named("user_id", id, params)?;
    who.about(&id).map(|()| id)
}

/// What is asked of a list, as it was sent.
#[derive(Default)]
pub struct Unchecked {
    pub k: Option<usize>,
    pub cursor: Option<String>,
    pub category: Option<String>,
    pub language: Option<String>,
    pub lat: Option<f64>,
    pub lon: Option<f64>,
    pub local_preference: Option<f64>,
    pub explain: bool,
    pub exclude: Vec<String>,
}

impl Unchecked {
    /// What a request may ask for; what it does not say is as the settings have it.
    pub fn checked(self, params: &Params) -> Result<Wanted, Refusal> {
        Ok(Wanted {
            k: check_k(self.k.unwrap_or(params.default_k), params.max_k)?,
            cursor: self.cursor.map_or(Ok(Cursor::default()), |cursor| parse_cursor(&cursor))?,
            language: self.language.map(|language| parse_name("bad_language", "language", language, params)).transpose()?,
            spot: parse_spot(self.lat, self.lon, self.local_preference)?,
            category: self.category.map(|category| parse_name("bad_category", "category", category, params)).transpose()?,
            explain: self.explain,
            exclude: Exclude::checked(self.exclude, params)?,
        })
    }
}

/// What is asked of a list, checked.
#[derive(Clone, Default)]
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
            (Kind::Slate(_) | Kind::Trending, ..) => Ok(Narrow::Not),
            (Kind::Category, Some(category), _) => Ok(Narrow::Category(category)),
            (Kind::Near, _, Some(spot)) => Ok(Narrow::Near(spot)),
            (Kind::Category, None, _) => {
                Err(Refusal::bad("bad_category", "the surface category needs to know which: send `category`"))
            }
            (Kind::Near, _, None) => Err(Refusal::bad("bad_place", "the surface near needs to know where: send `lat` and `lon`")),
        }
    }
}

/// Items that are not wanted.
#[derive(Clone, Default)]
pub struct Exclude(pub HashSet<String>);

impl Exclude {
    /// Refuses too many of them, and what cannot be an id.
    fn checked(items: Vec<String>, params: &Params) -> Result<Self, Refusal> {
        let (count, most) = (items.len(), params.exclude_limit);
        if count > most {
            return Err(Refusal::bad("bad_exclude", format!("exclude has {count} items, at most {most} are taken")));
        }
        items.into_iter().map(|item| named("an id in exclude", item, params)).collect::<Result<_, _>>().map(Self)
    }
}

fn parse_name(code: &'static str, what: &str, name: String, params: &Params) -> Result<String, Refusal> {
    if name.is_empty() {
        return Err(Refusal::bad(code, format!("the {what} is empty; send its name, or none")));
    }
    check_id(&name, params.max_id_bytes).map(|()| name)
}

/// Refuses half a point, one that is nowhere on the earth, and a preference that is none.
fn parse_spot(lat: Option<f64>, lon: Option<f64>, preference: Option<f64>) -> Result<Option<Spot>, Refusal> {
    let bad = |message: String| Err(Refusal::bad("bad_place", message));
    let preference = preference.unwrap_or(PREFERENCE);
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

/// Refuses a number of items that nobody gets.
pub fn check_k(k: usize, most: usize) -> Result<usize, Refusal> {
    Some(k).filter(|k| (1..=most).contains(k)).ok_or_else(|| bad_k(&k.to_string(), most))
}

/// Tells what `k` must be.
pub fn bad_k(text: &str, most: usize) -> Refusal {
    Refusal::bad("bad_k", format!("k is `{text}`; it must be a whole number from 1 to {most}"))
}

fn parse_cursor(text: &str) -> Result<Cursor, Refusal> {
    Cursor::parse(text).ok_or_else(|| {
        Refusal::bad("bad_cursor", "the cursor is not one of ours; send the `cursor` of the last page unchanged, or none")
    })
}

/// The token a read was sent with; `place` is where.
pub fn parse_token(place: &str, text: Option<&str>) -> Result<Option<Token>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    let message = || format!("{place} is not a token of ours; send the `token` of a write unchanged, or leave it out");
    Token::parse(text).map(Some).ok_or_else(|| Refusal::bad("bad_token", message()))
}
