//! What is near a user, asked for by who they are: the engine wrote down where they live. And how much there is.
//!
//! What must stay true: how far something is is measured or not said; of whom nobody knows where they live gets what stands in for it.

use serde::{Serialize, Serializer};

use super::asked::{self, Exclude, Unchecked, Wanted};
use super::feeds::{self, Asked};
use super::views::{self, unreadable};
use crate::model::UserId;
use crate::model::place::Place;
use crate::shim::feed::{Kind, Spot};
use crate::shim::guard::Caller;
use crate::shim::{Cadence, Refusal, State as Shim, Token};
use crate::sinks::layout::{self, StoredProfile, proto};

/// Cities that are named.
const NAMED: usize = 5;
/// What orders what is near, in the words of those who ask.
const ALGORITHM: &str = "Proximity boost B = 1 / (1 + distance_km)";

/// What is near, best first.
#[derive(Serialize)]
pub struct Hometown {
    streams: Vec<Stream>,
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

/// What is near where a user lives.
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
    let profile = profile(shim, caller, &users[0], token).await;
    let wanted = at_home(wanted, &profile, shim.params.max_k);
    let kind = if wanted.spot.is_some() { Kind::Near } else { Kind::Trending };
    let asked = Asked::new(kind, &wanted, caller)?;
    let found = feeds::find(shim, asked, &users, token).await?;
    let feed = found.feed(0, &users[0], &asked);
    let keys: Vec<String> = feed.page.items.iter().map(|item| shim.keys.card(item.item_id)).collect();
    // While the store is away nobody knows what a remembered item is like.
    let cards = async { Ok(shim.reader.many(&keys, &[]).await?.values) };
    let mut cards = if_there(shim, cards).await.unwrap_or_default();
    cards.resize(keys.len(), None);
    let mut streams = Vec::new();
    for (item, card) in feed.page.items.iter().zip(cards) {
        let card = card.and_then(|value| layout::decode_card(&value).ok()); // one that cannot be read is as good as none
        let theirs = |card: &proto::Card| profile.hidden_authors.contains(&card.author);
        if card.as_ref().map_or(!profile.hidden_authors.is_empty(), theirs) {
            continue; // by whom it is they turned away, or nobody knows by whom
        }
        let card = card.unwrap_or_default();
        let city = Some(card.city).filter(|city| !city.is_empty());
        streams.push(Stream { stream_id: item.item_id.to_string(), city, score: item.score, distance_km: item.distance_km });
    }
    streams.truncate(k);
    Ok(Hometown { streams })
}

/// What is known of them, if it is to be used; while the store is away nothing is.
async fn profile(shim: &Shim, caller: &Caller, user: &str, token: Option<&Token>) -> StoredProfile {
    let personal = caller.using && shim.rules.flags.of(UserId::of(user)).personal;
    let read = async {
        views::stale(shim, token, Cadence::Epoch).await?;
        let fields = shim.reader.fields(&shim.keys.profile(user)).await?;
        fields.map(|fields| layout::decode_profile(&fields).map_err(unreadable)).transpose()
    };
    if personal { if_there(shim, read).await.flatten().unwrap_or_default() } else { StoredProfile::default() }
}

/// What the store answers, unless it is away: then one request at a time asks it.
async fn if_there<T>(shim: &Shim, read: impl Future<Output = Result<T, Refusal>>) -> Option<T> {
    let _turn = shim.last_good.ask()?;
    read.await.ok()
}

/// Around where they live, without what they turned away.
fn at_home(wanted: Wanted, profile: &StoredProfile, most: usize) -> Wanted {
    let here = profile.place.and_then(|(lat, lon)| Place::new(lat, lon));
    let spot = here.map(|here| Spot { here, preference: profile.local_preference.unwrap_or(1.0) });
    // Some of it may be by authors who go again: the store does not know by whom what is near is.
    let k = if profile.hidden_authors.is_empty() { wanted.k } else { most };
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
