//! What is known of a user and an item together, and what the blend says of such pairs: each as if it were the only one.
//!
//! What must stay true: a number is one that the engine wrote or that its functions make of what it wrote; what is not known is `null`.

use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

use super::asked;
use super::candidates::Proposed;
use super::rank::{self, AS_BROUGHT, Also, LeftOut, Mature, Order, Placed, order};
use super::views::{unknown, unreadable};
use crate::model::place::Place;
use crate::shim::guard::Caller;
use crate::shim::near;
use crate::shim::{Many, OwnKeys, Refusal, State as Shim, Token};
use crate::sinks::layout::{self, StoredProfile, StoredSlate, proto};

/// A user and an item.
#[derive(Serialize)]
pub struct Interaction {
    user_id: String,
    item_id: String,
    as_of: i64,
    epoch: u64,
    /// Whether it may lack the write whose token was sent.
    stale: bool,
    #[serde(flatten)]
    compatibility: Compatibility,
    /// Since it came into being.
    age_ms: Option<i64>,
    distance_km: Option<f64>,
    same_city: Option<bool>,
    same_language: Option<bool>,
    /// The last time the user did something with it, milliseconds since 1970.
    seen_at: Option<i64>,
    /// The weightiest of it, where it is among the latest that the user took.
    interaction: Option<String>,
    /// Where it stands in the user's feed, the first place being 1.
    position: Option<usize>,
    /// Why it is not shown to them, if so.
    hidden: Option<&'static str>,
}

/// What the fixed weights make of them.
#[derive(Default, Serialize)]
struct Compatibility {
    score: Option<f64>,
    source: Option<&'static str>,
    reason: Option<String>,
    /// The blend's terms before their weights, 0 to 1.
    terms: Option<BTreeMap<&'static str, f64>>,
}

/// What is known of a user and an item together; sees the write of the token.
pub async fn interaction(
    shim: &Shim,
    caller: &Caller,
    user: String,
    item: String,
    token: Option<&Token>,
) -> Result<Interaction, Refusal> {
    let user = asked::user(user, &caller.who, &shim.params)?;
    let item = asked::named("item_id", item, &shim.params)?;
    let also = Also { seen: true, mature: Mature::ToBeTold };
    let asked = rank::Asked { explain: true, alone: true, also, ..rank::Asked::of(user, vec![Proposed::named(&item)]) };
    let Order { user_id, as_of, epoch, model, stale, items, left_out, .. } = order(shim, caller, asked, token).await?;

    let (keys, card) = (&shim.keys, [shim.keys.card(&item)]);
    let own = [OwnKeys { slate: keys.slate("home", None, &user_id), seen: keys.seen(&user_id) }];
    let hashes = [keys.item(&item), keys.profile(&user_id), keys.user(&user_id)];
    let (own, many) = tokio::try_join!(shim.reader.own(&own), shim.reader.many(&card, &hashes))?;
    let Many { mut values, fields } = many;
    let card = values.pop().flatten().map(|value| layout::decode_card(&value).map_err(unreadable)).transpose()?;
    let own = own.into_iter().next().unwrap_or_default();
    let slate = own.slate().map(|StoredSlate { slate, .. }| slate);
    if card.is_none() && fields[0].is_none() {
        return Err(unknown("unknown_item", "item", None));
    }
    if slate.is_none() && own.seen.is_empty() && fields[1].is_none() && fields[2].is_none() {
        return Err(unknown("unknown_user", "user", None));
    }
    let profile = fields[1].as_ref().map(|fields| layout::decode_profile(fields).map_err(unreadable)).transpose()?;
    let taken = slate.iter().flat_map(|slate| &slate.history).find(|taken| taken.item_id == item);
    let place = slate.iter().flat_map(|slate| &slate.items).position(|place| place.item_id == item);
    let (card, profile) = (card.unwrap_or_default(), profile.unwrap_or_default());
    Ok(Interaction {
        as_of,
        epoch,
        stale,
        compatibility: items.into_iter().next().filter(|_| model != AS_BROUGHT).map(Compatibility::from).unwrap_or_default(),
        age_ms: (card.created_ms > 0).then(|| as_of - card.created_ms),
        distance_km: distance(&card, &profile),
        same_city: same(&card.city, profile.city.as_deref().map(str::trim)),
        same_language: same(&card.language, profile.language.as_deref()),
        seen_at: own.seen.iter().find(|(seen, _)| *seen == item).map(|(_, at)| *at as i64),
        interaction: taken.map(|taken| taken.interaction.clone()),
        position: place.map(|at| at + 1),
        hidden: left_out.first().map(|LeftOut { why, .. }| *why).or((card.mature && !profile.mature).then_some("mature")),
        user_id,
        item_id: item,
    })
}

impl From<Placed> for Compatibility {
    fn from(Placed { score, source, reason, terms, .. }: Placed) -> Self {
        Self { score: Some(score), source: Some(source), reason: Some(reason), terms }
    }
}

/// Along the great circle, where both are somewhere, as it is told.
fn distance(card: &proto::Card, profile: &StoredProfile) -> Option<f64> {
    let at = |(lat, lon): (f64, f64)| Place::new(lat, lon);
    Some(near::told(at(profile.place?)?.km(at(card.lat.zip(card.lon)?)?)))
}

fn same(of_item: &str, of_user: Option<&str>) -> Option<bool> {
    of_user.filter(|_| !of_item.is_empty()).map(|of_user| of_item.trim().eq_ignore_ascii_case(of_user))
}

/// What is said of pairs, in the order they were sent.
#[derive(Serialize)]
pub struct Predictions {
    pub predictions: Vec<Prediction>,
}

/// What is said of one.
#[derive(Clone, Serialize)]
pub struct Prediction {
    pub user_id: String,
    pub post_id: String,
    /// What the model says, 0 to 1; no probability. `None`: it is not to be shown to them, or nothing scored it.
    pub score: Option<f64>,
    pub model: Cow<'static, str>,
    pub reason: Option<String>,
    /// Why it is not to be shown to them.
    pub hidden: Option<&'static str>,
    /// Whether the catalogue says what it is like.
    pub known: bool,
    pub stale: bool,
    /// Whether nothing is known of the user.
    pub fallback: bool,
}

/// Scores pairs of a user and an item, each as if it were the only one.
pub async fn predict(
    shim: &Shim,
    caller: &Caller,
    pairs: Vec<(String, String)>,
    token: Option<&Token>,
) -> Result<Predictions, Refusal> {
    let (count, most) = (pairs.len(), shim.params.candidates_limit);
    if !(1..=most).contains(&count) {
        return Err(Refusal::bad("bad_items", format!("there are {count} pairs; send 1 to {most}")));
    }
    let mut of_users = BTreeMap::<&str, Vec<&str>>::new();
    pairs.iter().for_each(|(user, item)| of_users.entry(user).or_default().push(item));
    let users = shim.params.feeds_limit;
    if of_users.len() > users {
        let message = format!("the pairs are of {} users, at most {users} are taken at once; ask in pieces", of_users.len());
        return Err(Refusal::bad("too_many_users", message));
    }
    of_users.keys().try_for_each(|user| asked::user(user.to_string(), &caller.who, &shim.params).map(drop))?;
    // The write is waited for once, and a store that is away is asked once.
    let (late, mut away) = match rank::caught_up(shim, token).await {
        Ok((late, _)) => (late, false),
        Err(refusal) if refusal.is_away() => (false, true),
        Err(refusal) => return Err(refusal),
    };
    let mut said = BTreeMap::new();
    for (user, mut items) in of_users {
        items.sort_unstable();
        items.dedup();
        let also = Also { seen: true, ..Also::default() };
        let items = items.into_iter().map(Proposed::named).collect();
        let asked = rank::Asked { alone: true, away, also, ..rank::Asked::of(user.to_string(), items) };
        let Order { model, stale, fallback, items, left_out, user_id, .. } = order(shim, caller, asked, None).await?;
        away |= stale;
        let stale = stale || late;
        let placed = items.into_iter().map(|Placed { item_id, score, reason, known, .. }| Prediction {
            user_id: user_id.clone(),
            post_id: item_id,
            score: Some(score).filter(|_| model != AS_BROUGHT),
            model: model.clone(),
            reason: Some(reason),
            hidden: None,
            known,
            stale,
            fallback,
        });
        let hidden = left_out.into_iter().map(|LeftOut { item_id, why, known }| Prediction {
            user_id: user_id.clone(),
            post_id: item_id,
            score: None,
            model: model.clone(),
            reason: None,
            hidden: Some(why),
            known,
            stale,
            fallback,
        });
        said.extend(placed.chain(hidden).map(|of| ((of.user_id.clone(), of.post_id.clone()), of)));
    }
    let predictions = pairs.iter().filter_map(|pair| said.get(pair).cloned()).collect();
    Ok(Predictions { predictions })
}
