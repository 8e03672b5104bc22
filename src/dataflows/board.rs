//! What a refresh looks up: every item's card and the lists kept for everyone, the same on every worker.
//!
//! The fact that must stay true: at an epoch the board holds what the maintained stages told up to and including that epoch, so
//! all workers see the same board. Bodies are shared between the workers of a process; a card costs each worker about 200 bytes
//! (see `decisions/0002-replicated-board.md`).

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::Arc;

use super::trending::{List, Told, Warmth};
use crate::model::catalogue::{Gate, Item};
use crate::model::changes::Neighbour;
use crate::model::place::Place;
use crate::model::time::Millis;
use crate::model::{ItemId, TokenId};
use crate::operators::Saver;
use crate::scoring::at_hand::Offer;
use crate::scoring::terms::heat;

/// A change of the board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Post {
    Item(ItemId, Option<Arc<Item>>),
    Warmth(ItemId, Option<Warmth>),
    Neighbours(ItemId, u32, Arc<Vec<Neighbour>>),
    List(Told),
}

/// What is known of one item.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Card {
    pub facts: Option<Arc<Item>>,
    /// Of the facts, what every refresh asks of every candidate: here it costs no look elsewhere.
    #[serde(skip)]
    pub gate: Option<Gate>,
    /// Its first category.
    #[serde(skip)]
    pub category: Option<TokenId>,
    /// What it is like, in tokens.
    #[serde(skip)]
    pub tokens: SmallVec<[TokenId; 6]>,
    /// How many of these, from the first on, are categories.
    #[serde(skip)]
    categories: usize,
    #[serde(skip)]
    created: Option<Millis>,
    pub warmth: Option<Warmth>,
    /// [`heat`] of its trending score.
    pub heat: f64,
    /// How many users have it in their history.
    pub users: u32,
    pub nearest: Option<Arc<Vec<Neighbour>>>,
}

impl Card {
    /// When it came into being, where the catalogue knows.
    pub fn created(&self) -> Option<Millis> {
        self.created.or(self.warmth.and_then(|w| w.created))
    }

    /// Its categories.
    pub fn categories(&self) -> &[TokenId] {
        &self.tokens[..self.categories]
    }

    /// Its author.
    pub fn author(&self) -> Option<TokenId> {
        self.gate.and_then(|gate| gate.author)
    }

    /// Where it is.
    pub fn place(&self) -> Option<Place> {
        self.facts.as_deref().and_then(Item::place)
    }

    /// What is offered with it.
    pub fn offer(&self) -> Offer {
        self.facts.as_deref().map(Offer::of).unwrap_or_default()
    }

    fn describe(&mut self, facts: Option<Arc<Item>>) {
        self.gate = facts.as_deref().map(Gate::of);
        self.category = facts.as_deref().and_then(|facts| facts.categories.first().copied());
        self.tokens = facts.as_deref().map(|facts| facts.tokens().collect()).unwrap_or_default();
        self.categories = facts.as_deref().map_or(0, |facts| facts.categories.len());
        self.created = facts.as_deref().and_then(|facts| facts.created_at);
        self.facts = facts;
    }

    /// Whether nothing is known of it.
    pub fn is_empty(&self) -> bool {
        self.facts.is_none() && self.warmth.is_none() && self.users == 0 && self.nearest.is_none()
    }
}

/// The board of one worker.
#[derive(Default)]
pub struct Board {
    items: FxHashMap<ItemId, Card>,
    /// `users` of the cards, where it is not 0: asked of many items of which only a few become candidates.
    crowds: FxHashMap<ItemId, u32>,
    lists: FxHashMap<List, Arc<Vec<(ItemId, i64)>>>,
    blank: Card,
}

impl Board {
    /// Takes a change.
    pub fn post(&mut self, post: Post) {
        match post {
            Post::Item(item, facts) => self.card(item, |card| card.describe(facts)),
            Post::Warmth(item, warmth) => self.card(item, |card| {
                card.heat = heat(warmth.map_or(0, |w| w.trending_milli));
                card.warmth = warmth;
            }),
            Post::Neighbours(item, users, nearest) => {
                self.count(item, users);
                self.card(item, |card| {
                    card.users = users;
                    card.nearest = (!nearest.is_empty()).then_some(nearest);
                });
            }
            Post::List((list, best)) if best.is_empty() => drop(self.lists.remove(&list)),
            Post::List((list, best)) => drop(self.lists.insert(list, best)),
        }
    }

    /// Hands over every card and list. The board is the same on every worker.
    pub fn save(&self, cards: u8, lists: u8, into: &mut Saver) {
        for (item, card) in self.items.clone() {
            into.shared(cards, item.0, move || (item, card));
        }
        for (list, best) in self.lists.clone() {
            into.shared(lists, list.hash(), move || (list, best));
        }
    }

    /// Takes a card back.
    pub fn load_card(&mut self, body: &[u8]) -> Result<(), postcard::Error> {
        let (item, mut card): (ItemId, Card) = postcard::from_bytes(body)?;
        let facts = card.facts.take();
        card.describe(facts);
        self.count(item, card.users);
        self.items.insert(item, card);
        Ok(())
    }

    /// Takes a list back.
    pub fn load_list(&mut self, body: &[u8]) -> Result<(), postcard::Error> {
        let (list, best) = postcard::from_bytes(body)?;
        self.lists.insert(list, best);
        Ok(())
    }

    fn card(&mut self, item: ItemId, change: impl FnOnce(&mut Card)) {
        let card = self.items.entry(item).or_default();
        change(card);
        if card.is_empty() {
            self.items.remove(&item);
        }
    }

    fn count(&mut self, item: ItemId, users: u32) {
        match users {
            0 => drop(self.crowds.remove(&item)),
            users => drop(self.crowds.insert(item, users)),
        }
    }

    /// How many users have an item in their history.
    pub fn users(&self, item: ItemId) -> u32 {
        self.crowds.get(&item).copied().unwrap_or(0)
    }

    /// The card of an item; a blank one where nothing is known of it.
    pub fn item(&self, item: ItemId) -> &Card {
        self.items.get(&item).unwrap_or(&self.blank)
    }

    /// Every item of which something is known.
    pub fn known(&self) -> impl Iterator<Item = ItemId> {
        self.items.keys().copied()
    }

    /// What the catalogue says of each item, where it says something.
    pub fn facts(&self) -> impl Iterator<Item = (ItemId, &Item)> {
        self.items.iter().filter_map(|(item, card)| Some((*item, card.facts.as_deref()?)))
    }

    /// A list, best first; empty where there is none.
    pub fn list(&self, list: List) -> &[(ItemId, i64)] {
        self.lists.get(&list).map_or(&[], |best| best.as_slice())
    }
}
