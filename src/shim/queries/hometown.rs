//! What is near a user, asked for by who they are: the engine wrote down where they live. And how much there is.
//!
//! What must stay true: how far something is is measured or not said; of whom nobody knows where they live gets what stands in for it.

use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::asked::{self, Exclude, Unchecked, Wanted};
use super::feeds::{self, Asked};
use super::views::{self, unreadable};
use crate::model::UserId;
use crate::model::place::{PREFERENCE, Place};
use crate::shim::cursor::Cursor;
use crate::shim::feed::{Kind, Page, Shown, Spot};
use crate::shim::guard::Caller;
use crate::shim::read::readable;
use crate::shim::{Cadence, Refusal, State as Shim, Token};
use crate::sinks::layout::{self, StoredProfile, proto};

/// Cities that are named.
const NAMED: usize = 5;
/// What orders what is near, in the words of those who ask.
const ALGORITHM: &str = "Proximity boost B = 1 / (1 + distance_km)";

/// What is near, best first.
#[derive(Default, Serialize)]
pub struct Hometown {
    streams: Vec<Stream>,
    /// Whether it may lack the write whose token was sent, or is what was remembered.
    #[serde(skip)]
    pub stale: bool,
}

#[derive(Serialize)]
struct Stream {
    stream_id: String,
    /// `None`: the catalogue names none.
    city: Option<String>,
    score: f64,
    /// `None`: not near, but standing in for it.
    distance_km: Option<f64>,
}

/// How much there is.
#[derive(Serialize)]
pub struct Stats {
    total_streams: i64,
    total_users: i64,
    cities_covered: i64,
    /// By the number of streams, the most first.
    #[serde(serialize_with = "in_order")]
    top_cities: Vec<(String, i64)>,
    algorithm: &'static str,
}

fn in_order<S: Serializer>(cities: &[(String, i64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(cities.iter().map(|(city, streams)| (city, streams)))
}

/// Who asks, and what is known of them.
struct Asker<'a> {
    caller: &'a Caller,
    users: [String; 1],
    profile: StoredProfile,
    /// Of a write that is there by now.
    token: Option<&'a Token>,
    /// The store is known to be away: it is not asked.
    away: bool,
    k: usize,
}

/// What is near where a user lives; where nothing may be shown of it, what trends.
pub async fn streams(
    shim: &Shim,
    caller: &Caller,
    user: String,
    k: Option<usize>,
    token: Option<&Token>,
) -> Result<Hometown, Refusal> {
    let users = [asked::user(user, &caller.who, &shim.params)?];
    let wanted = Unchecked { k, ..Unchecked::default() }.checked(&shim.params)?;
    let k = wanted.k;
    let known = if_there(shim, known(shim, caller, &users[0], token)).await?;
    let away = known.is_none();
    let (late, profile) = known.unwrap_or_default();
    let of = Asker { caller, users, profile, token: token.filter(|_| !late), away, k };
    let wanted = at_home(wanted, &of.profile, shim.params.max_k);
    let at_home = if wanted.spot.is_some() { found(shim, &of, Kind::Near, &wanted).await? } else { Hometown::default() };
    let found = if at_home.streams.is_empty() { found(shim, &of, Kind::Trending, &wanted).await? } else { at_home };
    Ok(Hometown { stale: found.stale || late, ..found })
}

/// Page by page, each twice as long as the one before, until there are as many as are wanted or no more.
async fn found(shim: &Shim, of: &Asker<'_>, kind: Kind, wanted: &Wanted) -> Result<Hometown, Refusal> {
    let mut all = Hometown::default();
    let (mut cursor, mut k) = (Cursor::default(), wanted.k);
    loop {
        let wanted = Wanted { cursor, k, ..wanted.clone() };
        k = shim.params.max_k.min(2 * k);
        let asked = Asked::new(kind, &wanted, of.caller)?;
        let found = feeds::find(shim, asked, &of.users, of.token, of.away).await?;
        let feed = found.feed(0, &of.users[0], &asked);
        all.stale |= feed.stale;
        all.streams.extend(shown(shim, &feed.page, of, found.away).await?);
        match feed.page.cursor.as_deref().and_then(Cursor::parse) {
            Some(next) if all.streams.len() < of.k => cursor = next,
            _ => break,
        }
    }
    all.streams.truncate(of.k);
    Ok(all)
}

/// What of a page is by nobody whom they turned away.
async fn shown(shim: &Shim, page: &Page<'_>, of: &Asker<'_>, away: bool) -> Result<Vec<Stream>, Refusal> {
    let keys: Vec<String> = page.items.iter().map(|item| shim.keys.card(item.item_id)).collect();
    // While the store is away nobody knows what a remembered item is like.
    let cards = async { Ok(shim.reader.many(&keys, &[]).await?.values) };
    let cards = if away { None } else { if_there(shim, cards).await? };
    let mut cards = cards.unwrap_or_default();
    cards.resize(keys.len(), None);
    let hidden = &of.profile.hidden_authors;
    let stream = |(item, card): (&Shown<'_>, Option<Bytes>)| {
        let card = card.and_then(|value| readable("a stored card", layout::decode_card(&value)));
        let theirs = |card: &proto::Card| hidden.contains(&card.author);
        if card.as_ref().map_or(!hidden.is_empty(), theirs) {
            return None; // by whom it is they turned away, or nobody knows by whom
        }
        let city = card.map(|card| card.city).filter(|city| !city.is_empty());
        Some(Stream { stream_id: item.item_id.to_string(), city, score: item.score, distance_km: item.distance_km })
    };
    Ok(page.items.iter().zip(cards).filter_map(stream).collect())
}

/// What is known of them, if it is to be used, once the write of a token was waited for; and whether that may be missing in all that is
/// read now.
async fn known(shim: &Shim, caller: &Caller, user: &str, token: Option<&Token>) -> Result<(bool, StoredProfile), Refusal> {
    // what is near is written at ticks, after the profile
    let late = views::stale(shim, token, Cadence::Tick).await?.unwrap_or(false);
    if !caller.using || !shim.rules.flags.of(UserId::of(user)).personal {
        return Ok((late, StoredProfile::default()));
    }
    let fields = shim.reader.fields(&shim.keys.profile(user)).await?;
    let profile = fields.map(|fields| layout::decode_profile(&fields).map_err(unreadable)).transpose()?;
    Ok((late, profile.unwrap_or_default()))
}

/// What the store answers; `None` while it is away, when one request at a time asks it.
async fn if_there<T>(shim: &Shim, read: impl Future<Output = Result<T, Refusal>>) -> Result<Option<T>, Refusal> {
    let Some(turn) = shim.last_good.ask() else { return Ok(None) };
    match read.await {
        Err(refusal) if refusal.is_away() => {
            turn.answered(false);
            Ok(None)
        }
        read => read.map(Some),
    }
}

/// Around where they live, without what they turned away.
fn at_home(wanted: Wanted, profile: &StoredProfile, most: usize) -> Wanted {
    let here = profile.place.and_then(|(lat, lon)| Place::new(lat, lon));
    let spot = here.map(|here| Spot { here, preference: profile.local_preference.unwrap_or(PREFERENCE) });
    // Some of it may be by authors who go again: the lists do not know by whom what is near is.
    let k = if profile.hidden_authors.is_empty() { wanted.k } else { most.min(2 * wanted.k) };
    Wanted { k, spot, exclude: Exclude(profile.hidden_items.iter().cloned().collect()), ..wanted }
}

/// How much there is, as the engine last counted it.
pub async fn stats(shim: &Shim) -> Result<Stats, Refusal> {
    let fields = shim.reader.fields(&shim.keys.census()).await?;
    let census = fields.map(|fields| layout::decode_census(&fields).map_err(unreadable)).transpose()?.unwrap_or_default();
    let mut top_cities = census.counts.cities;
    top_cities.truncate(NAMED);
    Ok(Stats {
        total_streams: census.counts.items,
        total_users: census.counts.users,
        cities_covered: census.counts.covered,
        top_cities,
        algorithm: ALGORITHM,
    })
}
