//! The order of candidates that a caller brings, for one user: looked up in three round trips, then put in order by the functions that
//! order a slate under the fixed weights, or by a model of the settings.
//!
//! What must stay true: of what the engine wrote last, a candidate gets the terms it would have in a slate; what the caller says of an
//! item counts where the store has no card of it; and every candidate is either in its place or left out for a reason that is said.
//! While the store is away, and for whom no order of their own is wanted, the caller's own order is the answer.

use serde::Serialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use tokio::time::Instant;

use super::asked::{self, check_k};
use super::candidates::{Brought, Held, Proposed, brought, candidate, count_crowds, language, spelt};
use super::views;
use crate::model::catalogue::city;
use crate::model::changes::Interests;
use crate::model::names::Collision;
use crate::model::place::Place;
use crate::model::slate::TERMS;
use crate::model::{Item, Kind, Names, Reason, Role, Surface, TokenId, UserId};
use crate::scoring::at_hand::Asker;
use crate::scoring::diversity::Damping;
use crate::scoring::rank::{self, Candidate, Moment, Near, Person, Ranked};
use crate::shim::commons::{Common, TRENDING_SCALE};
use crate::shim::guard::Caller;
use crate::shim::ranked_by::Request;
use crate::shim::{Cadence, OwnKeys, Refusal, State as Shim, Token};
use crate::sinks::Applied;
use crate::sinks::layout::{self, CardGlance, StoredInterests, StoredProfile, Why, bare, proto};

/// What orders them.
const MODEL: &str = layout::BLEND.1;
/// What did, where we do not.
pub const AS_BROUGHT: &str = "caller";
/// And why an item stands where it does.
const AS_SENT: &str = "in the order they were sent";

/// What is asked for.
pub struct Asked<'a> {
    pub user: String,
    pub items: Vec<Proposed<'a>>,
    pub k: Option<usize>,
    pub explain: bool,
    /// Each is scored as if it were the only one.
    pub alone: bool,
    /// The store is known to be away: it is not asked.
    pub away: bool,
    pub also: Also,
}

impl<'a> Asked<'a> {
    /// All of them in order, and nothing else.
    pub fn of(user: String, items: Vec<Proposed<'a>>) -> Self {
        Self { user, items, k: None, explain: false, alone: false, away: false, also: Also::default() }
    }
}

/// What is wanted too that is otherwise left out.
#[derive(Clone, Copy, Default)]
pub struct Also {
    /// What the user has seen.
    pub seen: bool,
    pub mature: Mature,
}

/// What becomes of items for adults.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Mature {
    /// They are there for whom the profile says so.
    #[default]
    ByProfile,
    /// They are not there.
    Without,
    /// They are there: what is said of them goes to nobody's feed.
    ToBeTold,
}

impl Mature {
    /// A request may want fewer than the profile lets through, and never more.
    pub fn asked(mature: Option<bool>) -> Self {
        if mature == Some(false) { Self::Without } else { Self::ByProfile }
    }

    /// Whether they are there for a user whose profile says this of them.
    fn shown(self, profile: bool) -> bool {
        match self {
            Self::ByProfile => profile,
            Self::Without => false,
            Self::ToBeTold => true,
        }
    }
}

/// The candidates in order, as they are answered.
#[derive(Serialize)]
pub struct Order<'a> {
    pub request_id: &'a str,
    pub user_id: String,
    pub as_of: i64,
    pub epoch: u64,
    pub model: Cow<'static, str>,
    pub stale: bool,
    /// Whether nothing is known of the user, or this is no order of theirs.
    pub fallback: bool,
    pub items: Vec<Placed>,
    pub left_out: Vec<LeftOut>,
}

/// One of them.
#[derive(Serialize)]
pub struct Placed {
    pub item_id: String,
    pub score: f64,
    pub source: &'static str,
    pub reason: String,
    /// Whether the catalogue says what it is like; else what the request said of it counts.
    pub known: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terms: Option<BTreeMap<&'static str, f64>>,
}

/// One that is not shown.
#[derive(Serialize)]
pub struct LeftOut {
    pub item_id: String,
    pub why: &'static str,
    /// As of [`Placed`].
    #[serde(skip)]
    pub known: bool,
}

/// What the store holds of the user.
struct Owner {
    applied: Applied,
    /// What they took lately, as their slate says it.
    lately: Option<proto::SlateHistory>,
    seen: HashSet<String>,
    interests: Option<StoredInterests>,
    profile: StoredProfile,
}

/// Candidates that may be shown, each with its card if the store has one, and the others.
#[derive(Default)]
struct Sorted<'a, 'v> {
    shown: Vec<(&'a Brought, Option<&'a CardGlance<'v>>)>,
    candidates: Vec<Candidate>,
    left_out: Vec<LeftOut>,
}

impl Owner {
    /// Latest first.
    fn history(&self) -> &[proto::Taken] {
        self.lately.as_ref().map_or(&[], |lately| &lately.history)
    }
}

/// A request that was read and found good.
struct Checked<'a> {
    request_id: &'a str,
    user_id: String,
    names: Arc<Names>,
    brought: Vec<Brought>,
    k: usize,
    explain: bool,
    alone: bool,
    also: Also,
}

/// Puts a caller's candidates in order; sees the write of the token, or says that it may not.
pub async fn order<'a>(shim: &Shim, caller: &'a Caller, asked: Asked<'_>, token: Option<&Token>) -> Result<Order<'a>, Refusal> {
    let Asked { user, items, k, explain, alone, away, also } = asked;
    let user_id = asked::user(user, &caller.who, &shim.params)?;
    let names = Arc::new(Names::default());
    let brought = brought(shim, &items, &names)?;
    let k = k.map_or(Ok(brought.len()), |k| check_k(k, shim.params.candidates_limit))?;
    let personal = shim.rules.flags.of(UserId::of(&user_id)).personal;
    let checked = Checked { request_id: &caller.id.0, user_id, names, brought, k, explain, alone, also };
    if away {
        return Ok(remembered(shim, &checked, caller.using));
    }
    // While the store is away, one request at a time asks it.
    let Some(turn) = shim.last_good.ask() else { return Ok(remembered(shim, &checked, caller.using)) };
    let answer = match (caller.using, personal) {
        (true, true) => ordered(shim, &checked, k, token).await,
        (true, false) => ordered(shim, &checked, checked.brought.len(), token).await.map(|order| order.put_back(&checked)),
        (false, _) => for_everybody(shim, &checked).await,
    };
    let away = answer.as_ref().is_err_and(Refusal::is_away);
    turn.answered(!away);
    if away { Ok(remembered(shim, &checked, caller.using)) } else { answer }
}

impl Order<'_> {
    /// What is shown of it as it was brought.
    fn put_back(mut self, checked: &Checked) -> Self {
        let place: HashMap<&str, usize> = checked.brought.iter().enumerate().map(|(at, brought)| (&*brought.name, at)).collect();
        self.items.sort_by_key(|item| place.get(item.item_id.as_str()).copied());
        self.items.truncate(checked.k);
        let unscored = |item: Placed| Placed {
            score: 0.0,
            source: AS_BROUGHT,
            reason: AS_SENT.to_string(),
            terms: item.terms.map(|_| BTreeMap::new()),
            ..item
        };
        Self { model: AS_BROUGHT.into(), fallback: true, items: self.items.into_iter().map(unscored).collect(), ..self }
    }
}

/// As they were brought, but for what nobody is to be shown.
async fn for_everybody<'a>(shim: &Shim, checked: &Checked<'a>) -> Result<Order<'a>, Refusal> {
    let common = shim.commons.get(&*shim.reader, &shim.keys).await?;
    let held = Held::of(shim, &[], &checked.brought).await?;
    Ok(as_brought(checked, &held.cards()?, Some(&common), &HashSet::new()))
}

/// While the store is away: as they were brought, but for what is known here not to be shown.
fn remembered<'a>(shim: &Shim, checked: &Checked<'a>, theirs: bool) -> Order<'a> {
    let copy = shim.last_good.get(Surface::HOME, &checked.user_id).filter(|_| theirs);
    let seen = copy.iter().flat_map(|own| &own.seen).map(|(item, _)| item.as_str()).collect();
    let cards = vec![None; checked.brought.len()];
    Order { stale: true, ..as_brought(checked, &cards, shim.commons.stored().as_deref(), &seen) }
}

fn as_brought<'a>(
    checked: &Checked<'a>,
    cards: &[Option<CardGlance>],
    common: Option<&Common>,
    seen: &HashSet<&str>,
) -> Order<'a> {
    let Checked { request_id, user_id, brought, k, explain, also, .. } = checked;
    let (mut items, mut left_out) = (Vec::new(), Vec::new());
    for (Brought { name, facts, .. }, card) in brought.iter().zip(cards) {
        let withdrawn = common.is_some_and(|common| common.gone.contains(&**name));
        let mature = also.mature.shown(false); // nobody looked at the profile
        let known = card.is_some();
        match hidden(withdrawn, facts.as_deref(), card.as_ref(), mature, !also.seen && seen.contains(&**name)) {
            Some(why) => left_out.push(LeftOut { item_id: name.to_string(), why, known }),
            None => items.push(Placed {
                item_id: name.to_string(),
                score: 0.0,
                source: AS_BROUGHT,
                reason: AS_SENT.to_string(),
                known,
                terms: explain.then(BTreeMap::new),
            }),
        }
    }
    items.truncate(*k);
    let (as_of, epoch) = common.map_or((0, 0), |common| (common.shelves[0].as_of, common.shelves[0].epoch));
    let (request_id, user_id) = (*request_id, user_id.clone());
    Order { request_id, user_id, as_of, epoch, model: AS_BROUGHT.into(), stale: false, fallback: true, items, left_out }
}

/// How candidates are ordered; alone none of them is in the way of another.
fn ranking(shim: &Shim, alone: bool) -> rank::Params {
    let ranking = shim.rules.ranking.clone();
    if alone { rank::Params { author: Damping::NONE, category: Damping::NONE, ..ranking } } else { ranking }
}

/// Waits for the write of a token; whether it may still be missing, and what is read for everybody since.
pub async fn caught_up(shim: &Shim, token: Option<&Token>) -> Result<(bool, Arc<Common>), Refusal> {
    // what the catalogue says is written at ticks
    let cadence = if token.is_some_and(|token| token.is_of(Role::Items)) { Cadence::Tick } else { Cadence::Epoch };
    let stale = views::stale(shim, token, cadence).await?.unwrap_or(false);
    let common = match token {
        None => shim.commons.get(&*shim.reader, &shim.keys).await?,
        Some(_) => shim.commons.since(Instant::now(), &*shim.reader, &shim.keys).await?,
    };
    Ok((stale, common))
}

async fn ordered<'a>(shim: &Shim, checked: &Checked<'a>, k: usize, token: Option<&Token>) -> Result<Order<'a>, Refusal> {
    let Checked { request_id, user_id, names, brought, explain, alone, also, .. } = checked;
    let (stale, common) = caught_up(shim, token).await?;
    let owner = owner(shim, user_id).await?;
    let held = Held::of(shim, owner.history(), brought).await?;
    let (cards, trending_milli) = (held.cards()?, held.trending_milli()?);
    let known =
        brought.iter().zip(&cards).zip(trending_milli).map(|((brought, card), trending)| (brought, card.as_ref(), trending));
    let Sorted { shown, mut candidates, left_out } = sort_out(known, *also, &owner, &common, names);
    let near = held.near(&candidates)?;
    count_crowds(shim, &near, &mut candidates, shown.iter().map(|(brought, _)| *brought)).await?;
    let person = person(&owner, near, names)?;
    let hottest = common.shelves[0].items.first().map_or(0.0, |(_, score)| score * TRENDING_SCALE);
    let moment = Moment { clock: owner.applied.clock_ms, hottest_milli: hottest.round() as i64 };
    let request = Request { params: ranking(shim, *alone), person, candidates, moment, k };
    let allowed = shim.rules.flags.of(UserId::of(user_id));
    let by = shim.ranked_by.as_ref().filter(|_| !alone && allowed.ml && allowed.personal);
    let (ranked, by_model) = match by {
        Some(by) => by.order(request).await,
        None => (request.ranked(None).0, false),
    };
    let model = by.filter(|_| by_model).map_or(MODEL.into(), |by| by.name().to_string().into());
    let placed = |ranked: Ranked| {
        let (brought, card) = shown[ranked.at];
        let terms = || TERMS.into_iter().zip(ranked.terms).collect();
        Placed {
            item_id: brought.name.to_string(),
            score: f64::from(ranked.score_micro) / 1e6,
            source: ranked.source.name(),
            reason: in_words(&ranked.reason, card, names),
            known: card.is_some(),
            terms: explain.then(terms),
        }
    };
    Ok(Order {
        request_id,
        user_id: user_id.clone(),
        as_of: owner.applied.clock_ms,
        epoch: owner.applied.epoch,
        model,
        stale,
        fallback: owner.lately.is_none() && owner.interests.is_none(),
        items: ranked.into_iter().map(placed).collect(),
        left_out,
    })
}

/// Why an item is not shown, if so; what the caller says of it counts where there is no card. `mature`: whether it is if it is for
/// adults; `seen`: whether it is to be left out as seen.
fn hidden(withdrawn: bool, facts: Option<&Item>, card: Option<&CardGlance>, mature: bool, seen: bool) -> Option<&'static str> {
    let said = facts.filter(|_| card.is_none());
    let for_adults = card.is_some_and(|card| card.mature) || said.is_some_and(|facts| facts.mature);
    match () {
        () if withdrawn || said.is_some_and(|facts| !facts.available) => Some("withdrawn"),
        () if for_adults && !mature => Some("mature"),
        () if seen => Some("seen"),
        () => None,
    }
}

/// Whether the user turned it or its author away.
fn turned_away(brought: &Brought, card: Option<&CardGlance>, profile: &StoredProfile, names: &Names) -> bool {
    let said = || brought.facts.as_ref().and_then(|facts| facts.author).and_then(|author| names.spelling(author));
    let by = match card {
        Some(card) => profile.hidden_authors.contains(card.author),
        None => said().is_some_and(|author| profile.hidden_authors.contains(bare(&author))),
    };
    by || profile.hidden_items.contains(&*brought.name)
}

/// What may be shown, and why the rest may not.
fn sort_out<'a, 'v>(
    known: impl Iterator<Item = (&'a Brought, Option<&'a CardGlance<'v>>, i64)>,
    also: Also,
    owner: &Owner,
    common: &Common,
    names: &Names,
) -> Sorted<'a, 'v> {
    let mut sorted = Sorted::default();
    for (brought, card, trending_milli) in known {
        let name = &*brought.name;
        let withdrawn = common.gone.contains(name);
        let (mature, seen) = (also.mature.shown(owner.profile.mature), !also.seen && owner.seen.contains(name));
        let why = hidden(withdrawn, brought.facts.as_deref(), card, mature, seen);
        let turned_away = || turned_away(brought, card, &owner.profile, names).then_some("hidden");
        if let Some(why) = why.or_else(turned_away) {
            sorted.left_out.push(LeftOut { item_id: name.to_string(), why, known: card.is_some() });
            continue;
        }
        sorted.shown.push((brought, card));
        sorted.candidates.push(candidate(brought, card, trending_milli));
    }
    sorted
}

async fn owner(shim: &Shim, user: &str) -> Result<Owner, Refusal> {
    let keys = [OwnKeys { slate: shim.keys.slate("home", None, user), seen: shim.keys.seen(user) }];
    let hashes = [shim.keys.interests(user), shim.keys.profile(user)];
    let (parts, many) = tokio::join!(shim.reader.feeds(&keys), shim.reader.many(&[], &hashes));
    let (mut parts, mut hashes) = (parts?, many?.fields.into_iter());
    let mut hash = || hashes.next().flatten();
    let (interests, profile) = (hash(), hash());
    let own = parts.own.pop().unwrap_or_default();
    let interests = interests.map(|fields| layout::decode_interests(&fields).map_err(views::unreadable)).transpose()?;
    let profile = profile.map(|fields| layout::decode_profile(&fields).map_err(views::unreadable)).transpose()?;
    let lately = own.lately();
    let seen = own.seen.into_iter().map(|(item, _)| item).collect();
    Ok(Owner { applied: parts.applied, lately, seen, interests, profile: profile.unwrap_or_default() })
}

fn asker(profile: &StoredProfile) -> Asker {
    Asker {
        place: profile.place.and_then(|(lat, lon)| Place::new(lat, lon)),
        city: profile.city.as_deref().and_then(city),
        language: profile.language.as_deref().map(language),
        local_preference: profile.local_preference,
        watch_hours: profile.total_watch_hours,
    }
}

fn person(owner: &Owner, near: Vec<Near>, names: &Names) -> Result<Person, Refusal> {
    let ids = |of: &[(String, f64)]| of.iter().map(|(token, weight)| (TokenId::of(token), *weight)).collect();
    let interests = owner.interests.as_ref();
    let interests = interests.map(|of| Interests { short: ids(&of.short), long: ids(&of.long), drift: of.drift });
    let mut history = Vec::new();
    for (taken, near) in owner.history().iter().zip(near) {
        let Some(kind) = Kind::parse(&taken.interaction) else { continue }; // of a later version
        history.push((kind, names.item(&taken.item_id).map_err(collides)?, near));
    }
    let taken = owner.lately.as_ref().map_or(0, |lately| lately.taken as usize);
    Ok(Person { interests, history, taken, asker: asker(&owner.profile) })
}

/// As slates say it.
fn in_words(reason: &Reason, card: Option<&CardGlance>, names: &Names) -> String {
    let subject = match reason {
        Reason::Because { item, .. } => names.items.get(item.0).map(|name| name.to_string()),
        Reason::Likes { token } => spelt(*token, card, names),
        Reason::Trending { token } | Reason::New { token } => token.and_then(|token| spelt(token, card, names)),
        Reason::Popular => None,
    };
    layout::reason_text(&Why::of(reason, subject.as_deref().unwrap_or("")).stored(), None)
}

/// Two names with one hash: as good as never, and not to be answered wrongly.
fn collides(collision: Collision) -> Refusal {
    Refusal::store(collision)
}
