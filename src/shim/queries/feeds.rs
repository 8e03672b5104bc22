//! Feeds of one user or of several: one round trip to the store, or what is remembered when it is away.

use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tokio::time::Instant;

use super::asked::{self, Wanted};
use crate::model::UserId;
use crate::model::place::REGION;
use crate::scoring::flags::Allowed;
use crate::shim::access::Who;
use crate::shim::commons::{Common, trends};
use crate::shim::feed::{self, Kind, List, Lists, Narrow, Page, Shelf};
use crate::shim::guard::{Caller, RequestId};
use crate::shim::near::{self, Near};
use crate::shim::read::readable;
use crate::shim::rules::OwnSurface;
use crate::shim::{Cadence, Own, OwnKeys, Parts, Refusal, State as Shim, Token, Unavailable};
use crate::sinks::layout::{BLEND, Segment, SlatePages, StoredSlate, decode_history, decode_slate, proto};
use crate::telemetry::STORE_ERRORS;

/// A feed as it is answered.
#[derive(Serialize)]
pub struct Feed<'a> {
    /// First: the entity tag is made of what comes after it.
    pub request_id: &'a str,
    pub user_id: &'a str,
    pub surface: &'static str,
    /// Whether it may lack the write whose token was sent, or is what was remembered of a store that is away.
    pub stale: bool,
    #[serde(flatten)]
    pub page: Page<'a>,
}

/// What is asked of each feed.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    kind: Kind,
    narrow: Narrow<'a>,
    wanted: &'a Wanted,
    id: &'a RequestId,
    /// Whether users get what is theirs, and not what everybody gets.
    using: bool,
}

impl<'a> Asked<'a> {
    /// Refuses a surface that needs to know more.
    pub fn new(kind: Kind, wanted: &'a Wanted, caller: &'a Caller) -> Result<Self, Refusal> {
        Ok(Self { kind, narrow: wanted.narrow(kind)?, wanted, id: &caller.id, using: caller.using })
    }
}

/// What was read for feeds; lists in the order of the users.
pub struct Found {
    allowed: Vec<Allowed>,
    own: Vec<Arc<Own>>,
    slates: Vec<Option<SlatePages>>,
    /// What is trending in the segments that were asked about; nothing while the store is away.
    segments: Vec<Shelf>,
    /// What is near the point that was asked about.
    near: BTreeMap<String, Near>,
    /// The clock and the epoch of the mark the last two were read under.
    mark: (i64, u64),
    common: Arc<Common>,
    stale: bool,
    /// Whether it is what was remembered.
    pub away: bool,
}

/// Users that may be asked about at once, by whom it may be about them.
pub fn users(shim: &Shim, who: &Who, users: Vec<String>) -> Result<Vec<String>, Refusal> {
    let (count, most) = (users.len(), shim.params.feeds_limit);
    if count > most {
        let message = format!("user_ids has {count} users, at most {most} are taken at once; ask in pieces");
        return Err(Refusal::bad("too_many_users", message));
    }
    users.into_iter().map(|user| asked::user(user, who, &shim.params)).collect()
}

impl Found {
    /// Of what is held of these users, as far as each of them is to get it.
    fn new(shim: &Shim, users: &[String], own: Vec<Arc<Own>>, common: Arc<Common>, stale: bool) -> Self {
        let allowed: Vec<Allowed> = users.iter().map(|user| shim.rules.flags.of(UserId::of(user))).collect();
        let slate = |(own, allowed): (&Arc<Own>, &Allowed)| {
            let slate = own.pages().filter(|_| allowed.personal);
            slate.filter(|pages| allowed.ml || pages.model == BLEND.0)
        };
        let slates = own.iter().zip(&allowed).map(slate).collect();
        Self { allowed, own, slates, segments: Vec::new(), near: BTreeMap::new(), mark: (0, 0), common, stale, away: false }
    }

    fn seen(&self, at: usize) -> HashSet<&str> {
        self.own[at].seen.iter().map(|(item, _)| item.as_str()).collect()
    }

    /// The feed of `user`, who was the one at this place of those asked about.
    pub fn feed<'a>(&'a self, at: usize, user: &'a str, asked: &Asked<'a>) -> Feed<'a> {
        let Asked { kind, wanted, id, .. } = *asked;
        let (seen, Common { gone, shelves }) = (self.seen(at), &*self.common);
        let [.., fresh] = shelves;
        // What is new stands alone, unless nothing is.
        let only_new = !self.allowed[at].engagement && !fresh.items.is_empty();
        let (shelves, segments) =
            if only_new { (std::slice::from_ref(fresh), [].as_slice()) } else { (&shelves[..], &*self.segments) };
        let slate = self.slates[at].as_ref();
        let of_slate = matches!(kind, Kind::Slate(_));
        let cold = of_slate && slate.is_none() && !segments.is_empty();
        let mixed = match asked.narrow {
            Narrow::Not => cold.then(|| feed::strung(segments.iter().chain(&shelves[..1]))),
            Narrow::Category(category) => Some(feed::narrowed(slate, category, segments.first())),
            Narrow::Near(spot) => Some(feed::nearby(&self.near, slate, spot.preference, self.mark)),
        };
        let own = mixed.as_ref().map(List::Mixed).or(slate.filter(|_| of_slate).map(List::Slate));
        let lists = Lists { own, shelves, seen: &seen, gone, exclude: &wanted.exclude.0 };
        let page = feed::page(kind, &lists, &wanted.cursor, wanted.k, wanted.explain);
        Feed { request_id: &id.0, user_id: user, surface: kind.name(), stale: self.stale, page }
    }
}

/// What stands in for one that cannot be read is what trends.
const SLATE: &str = "a stored slate";

impl Own {
    /// The slate, whole.
    pub fn slate(&self) -> Option<StoredSlate> {
        self.slate.as_deref().map(decode_slate).and_then(|slate| readable(SLATE, slate))
    }

    /// Of the slate, what the user took lately.
    pub fn lately(&self) -> Option<proto::SlateHistory> {
        self.slate.as_deref().map(decode_history).and_then(|lately| readable(SLATE, lately))
    }

    /// The slate, item by item.
    fn pages(&self) -> Option<SlatePages> {
        self.slate.as_ref().map(SlatePages::open).and_then(|pages| readable(SLATE, pages))
    }
}

/// Reads what the feeds of these users are made of; sees the write of the token, or says that it may not. A store that is known to be
/// `away` is not asked.
pub async fn find(shim: &Shim, asked: Asked<'_>, users: &[String], token: Option<&Token>, away: bool) -> Result<Found, Refusal> {
    let remembered = || remembered(shim, asked, users);
    let Some(turn) = shim.last_good.ask().filter(|_| !away) else {
        let being_asked = || Unavailable("the store is away, and another request was or is asking it".to_string());
        return remembered().ok_or_else(|| being_asked().into());
    };
    let found = read(shim, asked, users, token).await;
    turn.answered(found.is_ok());
    match found {
        Ok(found) => {
            if asked.using {
                let keep = |(user, own): (&String, &Arc<Own>)| shim.last_good.keep(asked.kind.slate(), user, own);
                users.iter().zip(&found.own).for_each(keep);
            }
            Ok(found)
        }
        Err(away) => remembered().ok_or_else(|| away.into()),
    }
}

async fn read(shim: &Shim, asked: Asked<'_>, users: &[String], token: Option<&Token>) -> Result<Found, Unavailable> {
    let keys: Vec<OwnKeys> = users.iter().filter(|_| asked.using).map(|user| keys(shim, asked.kind, user)).collect();
    // What trends and what is near is written at ticks.
    let of_slate = matches!(asked.kind, Kind::Slate(_));
    let cadence = if of_slate { Cadence::Epoch } else { Cadence::Tick };
    // A slate says itself of when it is.
    let unmarked = of_slate && asked.using && token.is_none();
    let mut parts = if unmarked {
        Parts { own: shim.reader.own(&keys).await?, ..Parts::default() }
    } else {
        shim.reader.feeds(&keys).await?
    };
    let mut stale = false;
    let common = match token {
        None => shim.commons.get(&*shim.reader, &shim.keys).await?,
        Some(token) => {
            if !token.covered_by(cadence.of(&parts.applied)) {
                stale = !shim.visible(token, cadence).await?;
                parts = shim.reader.feeds(&keys).await?;
            }
            shim.commons.since(Instant::now(), &*shim.reader, &shim.keys).await?
        }
    };
    let Parts { mut own, applied } = parts;
    own.resize_with(users.len(), Own::default);
    let mut found = Found::new(shim, users, own.into_iter().map(Arc::new).collect(), common, stale);
    found.mark = (applied.clock_ms, applied.tick_epoch);
    let (reader, keys) = (&*shim.reader, &shim.keys);
    match asked.narrow {
        Narrow::Not if of_slate && found.slates.iter().any(Option::is_none) => {
            let region = asked.wanted.spot.map(|spot| spot.here.cell(REGION).to_string());
            let segments: Vec<Segment> = segments(asked.wanted, region.as_deref(), shim.rules.own(asked.kind.slate())).collect();
            if !segments.is_empty() {
                let applied = if unmarked { reader.applied().await? } else { applied };
                found.segments = trends(&segments, reader, keys, &applied).await?;
            }
        }
        Narrow::Not => {}
        Narrow::Category(category) => {
            found.segments = trends(&[Segment::Category(category)], reader, keys, &applied).await?;
        }
        Narrow::Near(spot) => {
            let seen: Vec<HashSet<&str>> = (0..users.len()).map(|at| found.seen(at)).collect();
            let enough = |near: &BTreeMap<String, Near>, sure: f64| {
                seen.iter().all(|seen| fills(near, sure, seen, &found.common, asked.wanted))
            };
            let Wanted { k, cursor, exclude, .. } = asked.wanted;
            let hidden = seen.iter().map(HashSet::len).max().unwrap_or(0) + exclude.0.len() + cursor.given();
            found.near = near::around(spot.here, k + hidden + 1, reader, keys, enough).await?;
        }
    }
    Ok(found)
}

/// What the surface is about, then what the request says of a user whom nobody knows, the narrowest first.
fn segments<'a>(wanted: &'a Wanted, region: Option<&'a str>, own: Option<&'a OwnSurface>) -> impl Iterator<Item = Segment<'a>> {
    let categories = own.into_iter().flat_map(|own| &own.categories).map(|name| Segment::Category(name));
    let languages = own.into_iter().flat_map(|own| &own.languages).map(|name| Segment::Language(name));
    let category = wanted.category.as_deref().map(Segment::Category);
    let language = wanted.language.as_deref().map(Segment::Language);
    categories.chain(languages).chain(category).chain(region.map(Segment::Cell)).chain(language)
}

/// Whether there is a page of it that may be shown within `sure` kilometres, and one item more, so that the page knows of the next.
fn fills(near: &BTreeMap<String, Near>, sure: f64, seen: &HashSet<&str>, common: &Common, wanted: &Wanted) -> bool {
    let hidden = |item: &str| common.gone.contains(item) || seen.contains(item) || wanted.exclude.0.contains(item);
    let within = near.values().filter(|near| near.km <= sure).map(|near| &near.item_id);
    within.filter(|item| !hidden(item) && !wanted.cursor.ever_gave(item)).nth(wanted.k).is_some()
}

fn keys(shim: &Shim, kind: Kind, user: &str) -> OwnKeys {
    OwnKeys { slate: shim.keys.slate(kind.slate().name(), None, user), seen: shim.keys.seen(user) }
}

/// While the store is away: what each user's feed was last made of, and the last shelves read for whom there is none. `None` when that
/// would leave somebody without anything.
fn remembered(shim: &Shim, asked: Asked<'_>, users: &[String]) -> Option<Found> {
    let common = shim.commons.stored()?;
    let last = |user: &String| {
        let own = shim.last_good.get(asked.kind.slate(), user);
        own.filter(|_| asked.using).unwrap_or_default()
    };
    let shelved = common.shelves.iter().any(|shelf| !shelf.items.is_empty());
    let found = Found { away: true, ..Found::new(shim, users, users.iter().map(last).collect(), common, true) };
    if !shelved && found.slates.iter().any(Option::is_none) {
        return None;
    }
    metrics::counter!(STORE_ERRORS).increment(1);
    Some(found)
}
