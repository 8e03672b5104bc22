//! What the learned blend reads of items: tallies, the strongest links, tokens, and the orders by popularity at every scale; the same
//! on every worker.
//!
//! The facts that must stay true: at an epoch the store holds what tallies and links told up to and including that epoch; and
//! nothing read from it depends on the numbers items have here, which differ from worker to worker: ties go to the smaller id, and
//! sums over links run in the order of the ring.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::links::RowChange;
use super::tallies::{HALF_LIVES, RUNGS, Tally};
use super::trails::Strength;
use crate::model::catalogue::Item;
use crate::model::time::Millis;
use crate::model::{ItemId, TokenId};
use crate::operators::Saver;

/// A change of the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    Tally(ItemId, Tally),
    Row(Arc<RowChange>),
}

/// The number of an item in this store.
pub type Slot = u32;

/// A link as it is read: to which item, and how strong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Linked {
    pub to: Slot,
    pub strength: Strength,
}

/// What is known of an item.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub id: ItemId,
    pub tally: Tally,
    pub onward: u32,
    /// Shared with a snapshot that is being written; then copied before they change.
    pub links: Arc<Vec<Linked>>,
    /// Categories, tags and author.
    pub tokens: SmallVec<[u32; 4]>,
    /// Of the title.
    pub words: SmallVec<[u32; 6]>,
    pub city: Option<TokenId>,
}

/// What is read of items other than by their number: kept apart, because it is read of many.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heat {
    block: [i32; RUNGS],
    sum: [f32; RUNGS],
}

/// The clock as decayed sums are read by it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    pub clock: Millis,
    block: [i32; RUNGS],
    fraction: [f32; RUNGS],
}

impl Now {
    /// At a moment.
    pub fn at(clock: Millis) -> Self {
        let fraction = |h: Millis| libm::exp2(-(clock.rem_euclid(h) as f64) / h as f64) as f32;
        Self { clock, block: HALF_LIVES.map(|h| clock.div_euclid(h) as i32), fraction: HALF_LIVES.map(fraction) }
    }
}

impl Heat {
    /// The decayed count at a rung of the ladder.
    pub fn at(&self, rung: usize, now: &Now) -> f32 {
        let power = (127 + i64::from(self.block[rung]) - i64::from(now.block[rung])).clamp(0, 254) as u32;
        self.sum[rung] * f32::from_bits(power << 23) * now.fraction[rung]
    }
}

/// The orders by popularity: one for each half-life, and the plain count.
pub const ORDERS: usize = RUNGS + 1;

/// The store of one worker.
#[derive(Default)]
pub struct FeatureStore {
    slots: FxHashMap<ItemId, Slot>,
    items: Vec<Known>,
    heat: Vec<Heat>,
    /// One over the root of each item's steps.
    rarity: Vec<f32>,
    orders: [BTreeSet<(Reverse<i64>, ItemId, Slot)>; ORDERS],
    tokens: FxHashMap<TokenId, u32>,
    /// By the number of a token: its id, and steps to items that have it.
    named: Vec<TokenId>,
    carried: Vec<u64>,
    /// All steps, and items with any.
    pub steps: u64,
    pub alive: usize,
}

impl FeatureStore {
    /// Takes a change.
    pub fn take(&mut self, fact: Fact) {
        match fact {
            Fact::Tally(item, tally) => self.count(item, tally),
            Fact::Row(change) => self.link(&change),
        }
    }

    /// Takes what the catalogue says of an item.
    pub fn describe(&mut self, item: ItemId, facts: Option<&Item>) {
        let slot = self.slot(item) as usize;
        let tokens = facts.into_iter().flat_map(Item::tokens).collect::<BTreeSet<TokenId>>();
        let words = facts.and_then(|f| f.title.as_deref()).map(words).unwrap_or_default();
        let tokens = tokens.into_iter().map(|token| self.token(token)).collect();
        let words = words.into_iter().map(|word| self.token(word)).collect();
        let steps = self.items[slot].tally.steps;
        self.carry(slot, -i64::from(steps));
        (self.items[slot].tokens, self.items[slot].words) = (tokens, words);
        self.items[slot].city = facts.and_then(|f| f.city.as_deref()).map(city);
        self.carry(slot, i64::from(steps));
    }

    /// The number of an item; `None` where it has none.
    pub fn find(&self, item: ItemId) -> Option<Slot> {
        self.slots.get(&item).copied()
    }

    /// What is known of the item of a number.
    pub fn item(&self, slot: Slot) -> &Known {
        &self.items[slot as usize]
    }

    /// How often an item was taken, at every scale.
    pub fn heat(&self, slot: Slot) -> &Heat {
        &self.heat[slot as usize]
    }

    /// One over the root of an item's steps.
    pub fn rarity(&self, slot: Slot) -> f32 {
        self.rarity[slot as usize]
    }

    /// How many numbers are given out.
    pub fn slot_count(&self) -> usize {
        self.items.len()
    }

    /// How many tokens are.
    pub fn token_count(&self) -> usize {
        self.named.len()
    }

    /// The id of a token, and steps to items that have it.
    pub fn carried(&self, token: u32) -> (TokenId, u64) {
        (self.named[token as usize], self.carried[token as usize])
    }

    /// Items by popularity, the most popular first, each with what orders it.
    pub fn order(&self, order: usize) -> impl Iterator<Item = (i64, Slot)> + '_ {
        self.orders[order].iter().map(|(score, _, slot)| (score.0, *slot))
    }

    /// What orders an item by popularity.
    pub fn popularity(&self, order: usize, slot: Slot) -> Option<i64> {
        popularity(&self.item(slot).tally, order)
    }

    /// The number of an item, given out now if it has none.
    pub fn slot(&mut self, item: ItemId) -> Slot {
        let next = self.items.len() as Slot;
        let slot = *self.slots.entry(item).or_insert(next);
        if slot == next {
            self.items.push(Known { id: item, ..Known::default() });
            self.heat.push(Heat::default());
            self.rarity.push(0.0);
        }
        slot
    }

    fn token(&mut self, token: TokenId) -> u32 {
        let next = self.named.len() as u32;
        let number = *self.tokens.entry(token).or_insert(next);
        if number == next {
            self.named.push(token);
            self.carried.push(0);
        }
        number
    }

    /// Counts steps for the tokens of an item.
    fn carry(&mut self, slot: usize, steps: i64) {
        let of = &self.items[slot];
        for token in of.tokens.iter().chain(&of.words) {
            let carried = &mut self.carried[*token as usize];
            *carried = carried.wrapping_add_signed(steps);
        }
    }

    fn count(&mut self, item: ItemId, tally: Tally) {
        let slot = self.slot(item) as usize;
        let before = std::mem::replace(&mut self.items[slot].tally, tally);
        let more = i64::from(tally.steps) - i64::from(before.steps);
        self.carry(slot, more);
        self.steps = self.steps.wrapping_add_signed(more);
        self.alive = self.alive + usize::from(tally.steps > 0) - usize::from(before.steps > 0);
        self.heat[slot] = Heat { block: tally.ladder.map(|rung| rung.block), sum: tally.ladder.map(|rung| rung.sum) };
        self.rarity[slot] = if tally.steps > 0 { 1.0 / (tally.steps as f32).sqrt() } else { 0.0 };
        for (order, of) in self.orders.iter_mut().enumerate() {
            let (before, after) = (popularity(&before, order), popularity(&tally, order));
            if before != after {
                before.map(|score| of.remove(&(Reverse(score), item, slot as Slot)));
                after.map(|score| of.insert((Reverse(score), item, slot as Slot)));
            }
        }
    }

    fn link(&mut self, change: &RowChange) {
        let slot = self.slot(change.item) as usize;
        self.items[slot].onward = change.onward;
        let mut kept = std::mem::take(&mut self.items[slot].links);
        let links = Arc::make_mut(&mut kept);
        for (item, strength) in &change.links {
            let to = self.slot(*item);
            match links.iter().position(|linked| linked.to == to) {
                Some(place) if strength.is_zero() => drop(links.swap_remove(place)),
                Some(place) => links[place].strength = *strength,
                None if strength.is_zero() => {}
                None => links.push(Linked { to, strength: *strength }),
            }
        }
        self.items[slot].links = kept;
    }

    /// Hands over every item. The store is the same on every worker. What the catalogue says is kept elsewhere.
    pub fn save(&self, tag: u8, into: &mut Saver) {
        let ids: Arc<Vec<ItemId>> = Arc::new(self.items.iter().map(|of| of.id).collect());
        for of in self.items.iter().filter(|of| of.tally.steps > 0 || !of.links.is_empty()) {
            let (item, tally, onward, links, ids) = (of.id, of.tally, of.onward, of.links.clone(), ids.clone());
            into.shared(tag, item.0, move || {
                let mut links: Vec<(ItemId, Strength)> = links.iter().map(|l| (ids[l.to as usize], l.strength)).collect();
                links.sort_unstable();
                (item, tally, RowChange { item, onward, links })
            });
        }
    }

    /// Takes an item back.
    pub fn load(&mut self, body: &[u8]) -> Result<(), postcard::Error> {
        let (item, tally, row): (ItemId, Tally, RowChange) = postcard::from_bytes(body)?;
        self.count(item, tally);
        self.link(&row);
        Ok(())
    }
}

/// The id of a city, however it is written.
pub fn city(name: &str) -> TokenId {
    TokenId::of(&format!("city:{}", name.trim().to_lowercase()))
}

/// What orders an item by popularity.
fn popularity(tally: &Tally, order: usize) -> Option<i64> {
    match tally.ladder.get(order) {
        Some(rung) => (tally.steps > 0 && rung.sum > 0.0).then_some(rung.order),
        None => (tally.steps > 0).then_some(i64::from(tally.steps)),
    }
}

/// The words of a title: lower case, of two letters or more, each once.
fn words(title: &str) -> BTreeSet<TokenId> {
    let lower = title.to_lowercase();
    let words = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().nth(1).is_some());
    words.map(|word| TokenId::of(&format!("word:{word}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_title() {
        let word = |w: &str| TokenId::of(&format!("word:{w}"));
        assert_eq!(words("The 39 Steps, A  THE"), BTreeSet::from([word("the"), word("39"), word("steps")]));
    }

    #[test]
    fn a_token_is_carried_by_the_steps_to_what_has_it() {
        let (mut store, category) = (FeatureStore::default(), TokenId(5));
        let facts = Item { categories: [category].into_iter().collect(), ..Item::default() };
        store.describe(ItemId(1), Some(&facts));
        store.take(Fact::Tally(ItemId(1), Tally { steps: 3, ..Tally::default() }));
        store.take(Fact::Tally(ItemId(2), Tally { steps: 4, ..Tally::default() }));
        assert_eq!((store.carried(0), store.steps, store.alive), ((category, 3), 7, 2));
        store.describe(ItemId(2), Some(&facts));
        store.take(Fact::Tally(ItemId(1), Tally::default()));
        assert_eq!((store.carried(0), store.steps, store.alive), ((category, 4), 4, 1));
        assert_eq!(store.order(RUNGS).map(|(n, slot)| (n, store.item(slot).id)).collect::<Vec<_>>(), [(4, ItemId(2))]);
    }
}
