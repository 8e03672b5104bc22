//! The candidates that a caller brings: as they were sent, and what the store says of them.
//!
//! What must stay true: nothing is made of an item twice, and what the store says is read where it lies: a request is about some hundred
//! of them.

use bytes::Bytes;
use rustc_hash::FxHashSet;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{ingest, views};
use crate::codec::Decoder;
use crate::model::catalogue::city;
use crate::model::ids::TokenKind;
use crate::model::place::Place;
use crate::model::signals::trending_milli;
use crate::model::time::{Millis, Window};
use crate::model::{Input, Item, ItemId, Names, Role, TokenId};
use crate::scoring::at_hand::Offer;
use crate::scoring::rank::{Candidate, Near};
use crate::shim::{ManyOf, Refusal, State as Shim, now_ms};
use crate::sinks::layout::{self, CROWD, CardGlance, LayoutError, proto};

/// A candidate as it was sent.
pub enum Proposed<'a> {
    /// Only named.
    Id(Cow<'a, str>),
    /// As the topic of items takes it.
    Item(Cow<'a, [u8]>),
}

impl Proposed<'_> {
    /// An item that is only named.
    pub fn named(id: &str) -> Proposed<'static> {
        Proposed::Id(id.to_string().into())
    }

    fn read(&self, by: &Decoder, now: Millis) -> Result<(ItemId, Option<Arc<Item>>), String> {
        match self {
            Self::Id(id) => by.item(id).map(|item| (item, None)),
            Self::Item(record) => match by.decode(Role::Items, None, Some(record), now)? {
                Input::Item(item, facts) => Ok((item, facts)),
                _ => Err("it is not an item".to_string()),
            },
        }
    }
}

/// A candidate, under its name, and what its caller says of it.
pub struct Brought {
    pub item: ItemId,
    pub name: Arc<str>,
    pub facts: Option<Arc<Item>>,
}

/// The candidates of a request; refuses too many, one that cannot be read, and one that stands there twice.
pub fn brought(shim: &Shim, items: &[Proposed<'_>], names: &Arc<Names>) -> Result<Vec<Brought>, Refusal> {
    let (count, most) = (items.len(), shim.params.candidates_limit);
    if !(1..=most).contains(&count) {
        return Err(Refusal::bad("bad_items", format!("items has {count} candidates; send 1 to {most}")));
    }
    let (decoder, now) = (ingest::decoder(shim, names.clone()), now_ms());
    let mut already = BTreeSet::new();
    let read = |(at, sent): (usize, &Proposed<'_>)| {
        let bad = |why: String| Refusal::bad("bad_items", format!("items[{at}] cannot be read: {why}"));
        let (item, facts) = sent.read(&decoder, now).map_err(bad)?;
        let name = names.items.get(item.0).expect("the decoder has just interned it");
        if !already.insert(item) {
            return Err(Refusal::bad("bad_items", format!("items[{at}] is `{name}` once more; name each candidate once")));
        }
        Ok(Brought { item, name, facts })
    };
    items.iter().enumerate().map(read).collect()
}

/// What the store holds of candidates and of a history, as it lies there.
pub struct Held {
    /// What is near each item of the history, in its order.
    near: Vec<Option<Bytes>>,
    /// Of each candidate, in their order.
    cards: Vec<Option<Bytes>>,
    weighted: Vec<Option<String>>,
}

impl Held {
    /// Looks it up, in one round trip.
    pub async fn of(shim: &Shim, history: &[proto::Taken], brought: &[Brought]) -> Result<Self, Refusal> {
        let near = history.iter().map(|taken| shim.keys.neighbours(&taken.item_id));
        let cards = brought.iter().map(|brought| shim.keys.card(&brought.name));
        let values: Vec<String> = near.chain(cards).collect();
        let features: Vec<String> = brought.iter().map(|brought| shim.keys.item(&brought.name)).collect();
        let ManyOf { values: mut near, field: weighted } = shim.reader.many_of(&values, &features, layout::WEIGHTED).await?;
        let cards = near.split_off(history.len());
        Ok(Self { near, cards, weighted })
    }

    /// What the catalogue says of each candidate, where it says something.
    pub fn cards(&self) -> Result<Vec<Option<CardGlance<'_>>>, Refusal> {
        self.cards
            .iter()
            .map(|value| value.as_deref().map(CardGlance::of).transpose())
            .collect::<Result<_, _>>()
            .map_err(views::unreadable)
    }

    /// The trending score of each candidate, in thousandths.
    pub fn trending_milli(&self) -> Result<Vec<i64>, Refusal> {
        let trending =
            |field: &Option<String>| field.as_deref().map_or(Ok(0), |field| layout::decode_weighted(field).map(warmth));
        self.weighted.iter().map(trending).collect::<Result<_, _>>().map_err(views::unreadable)
    }

    /// Of each item of the history the candidates that are near it.
    pub fn near(&self, candidates: &[Candidate]) -> Result<Vec<Near>, Refusal> {
        let wanted: FxHashSet<ItemId> = candidates.iter().map(|candidate| candidate.item).collect();
        let near = |value: &Option<Bytes>| -> Result<Near, LayoutError> {
            let mut near = Near::default();
            let Some(value) = value else { return Ok(near) };
            near.users = layout::near(value, |item, both| {
                let item = ItemId::of(item);
                near.nearest.extend(wanted.contains(&item).then_some((item, both)));
            })?;
            Ok(near)
        };
        self.near.iter().map(near).collect::<Result<_, _>>().map_err(views::unreadable)
    }
}

/// Its trending score, in thousandths.
fn warmth(weighted: [f64; Window::ALL.len()]) -> i64 {
    trending_milli(&weighted.map(|sum| (sum * 1e3).round() as i64))
}

/// What its card says of a candidate; without one, what the request does.
pub fn candidate(brought: &Brought, card: Option<&CardGlance<'_>>, trending_milli: i64) -> Candidate {
    let offer = offer(brought.facts.as_deref(), card);
    let of = Candidate { item: brought.item, trending_milli, offer, ..Candidate::default() };
    match (card, brought.facts.as_deref()) {
        (Some(card), _) => {
            let tokens: Vec<TokenId> = words(card).map(|(kind, name)| TokenId::typed(kind, name)).collect();
            let category = tokens.first().filter(|_| !card.categories.is_empty()).copied();
            let author = tokens.last().filter(|_| !card.author.is_empty()).copied();
            Candidate { tokens, category, author, created: Some(card.created_ms), ..of }
        }
        (None, Some(facts)) => {
            let (category, author) = (facts.categories.first().copied(), facts.author);
            Candidate { tokens: facts.tokens().collect(), category, author, created: facts.created_at, ..of }
        }
        (None, None) => of,
    }
}

/// What a card says its item is like: categories, tags, author.
fn words<'c>(card: &'c CardGlance<'_>) -> impl Iterator<Item = (TokenKind, &'c str)> {
    let of = |kind, names: &'c [&'c str]| names.iter().map(move |name| (kind, *name));
    let author = Some((TokenKind::Author, card.author)).filter(|(_, name)| !name.is_empty());
    of(TokenKind::Category, &card.categories).chain(of(TokenKind::Tag, &card.tags)).chain(author)
}

/// The full spelling of a token: as the card has it, or as the request does.
pub fn spelt(token: TokenId, card: Option<&CardGlance<'_>>, names: &Names) -> Option<String> {
    let of_card = card.and_then(|card| words(card).find(|(kind, name)| TokenId::typed(*kind, name) == token));
    of_card.map(|(kind, name)| kind.spell(name)).or_else(|| names.spelling(token).map(|name| name.to_string()))
}

/// What is offered with it.
fn offer(said: Option<&Item>, card: Option<&CardGlance<'_>>) -> Offer {
    match (card, said) {
        (Some(card), _) => Offer {
            place: card.lat.zip(card.lon).and_then(|(lat, lon)| Place::new(lat, lon)),
            city: city(card.city),
            language: Some(card.language).filter(|name| !name.is_empty()).map(language),
            quality: card.quality,
            avg_viewers: card.avg_viewers,
            followers: card.followers,
            partnered: card.partnered,
            mature: card.mature,
        },
        (None, Some(said)) => Offer::of(said),
        (None, None) => Offer::default(),
    }
}

/// The token of a language.
pub fn language(name: &str) -> TokenId {
    TokenId::typed(TokenKind::Language, name)
}

/// Notes how many users took each candidate that is near the history; of the others it does not matter.
pub async fn count_crowds(
    shim: &Shim,
    near: &[Near],
    candidates: &mut [Candidate],
    brought: impl Iterator<Item = &Brought>,
) -> Result<(), Refusal> {
    let heard: FxHashSet<ItemId> = near.iter().flat_map(|near| near.nearest.iter().map(|(item, _)| *item)).collect();
    let of = brought.filter(|brought| heard.contains(&brought.item));
    let keys = of.map(|of| (of.item, shim.keys.neighbours(&of.name))).collect();
    let crowds = crowds(shim, keys).await?;
    candidates.iter_mut().for_each(|candidate| candidate.users = crowds.get(&candidate.item).copied().unwrap_or(0));
    Ok(())
}

/// The first bytes of a list say it; of one that an earlier version wrote the whole list does.
async fn crowds(shim: &Shim, keys: Vec<(ItemId, String)>) -> Result<HashMap<ItemId, u32>, Refusal> {
    let (items, keys): (Vec<ItemId>, Vec<String>) = keys.into_iter().unzip();
    let starts = shim.reader.starts(&keys, CROWD).await?;
    let mut crowds = HashMap::with_capacity(items.len());
    let mut older = (Vec::new(), Vec::new());
    for ((item, key), start) in items.into_iter().zip(keys).zip(starts) {
        match start.as_deref().map(layout::crowd) {
            None => {}
            Some(Some(users)) => _ = crowds.insert(item, users),
            Some(None) => {
                older.0.push(item);
                older.1.push(key);
            }
        }
    }
    let values = shim.reader.many(&older.1, &[]).await?.values;
    for (item, value) in older.0.into_iter().zip(values) {
        let users = value.map_or(Ok(0), |value| layout::near(&value, |_, _| {})).map_err(views::unreadable)?;
        crowds.insert(item, users);
    }
    Ok(crowds)
}
