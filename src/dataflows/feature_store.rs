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
use crate::model::catalogue::{Gate, Item};
use crate::model::time::{Millis, SECOND};
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

/// The links of an item, the strongest first; of equals the smaller id.
#[derive(Clone, Debug, Default)]
pub struct Links {
    to: Vec<Slot>,
    strengths: Vec<Strength>,
}

impl Links {
    /// To which items, apart from how strong: whoever looks for few of them reads no more than that.
    pub fn to(&self) -> &[Slot] {
        &self.to
    }

    /// How strong the link at a place is.
    pub fn strength(&self, place: usize) -> &Strength {
        &self.strengths[place]
    }

    /// The `n` strongest.
    pub fn head(&self, n: usize) -> impl Iterator<Item = (Slot, &Strength)> {
        self.to.iter().copied().zip(&self.strengths).take(n)
    }

    /// Takes a new strength; zero takes the link away.
    fn put(&mut self, to: Slot, strength: Strength, id: impl Fn(Slot) -> ItemId) {
        let place = place_of(&self.to, to);
        let new = (to, strength);
        match place {
            Some(place) if strength.is_zero() => {
                self.to.remove(place);
                self.strengths.remove(place);
            }
            Some(place) if strength.weight() >= self.strengths[place].weight() => {
                self.strengths[place] = strength;
                let first = self.first_after(0, place, new, id);
                self.to[first..=place].rotate_right(1);
                self.strengths[first..=place].rotate_right(1);
            }
            Some(place) => {
                self.strengths[place] = strength;
                let last = self.first_after(place + 1, self.to.len(), new, id) - 1;
                self.to[place..=last].rotate_left(1);
                self.strengths[place..=last].rotate_left(1);
            }
            None if strength.is_zero() => {}
            None => {
                let place = self.first_after(0, self.to.len(), new, id);
                self.to.insert(place, to);
                self.strengths.insert(place, strength);
            }
        }
    }

    /// The first place between `from` and `until` whose link goes after `new`.
    fn first_after(&self, mut from: usize, mut until: usize, new: (Slot, Strength), id: impl Fn(Slot) -> ItemId) -> usize {
        while from < until {
            let middle = from.midpoint(until);
            if goes_before((self.to[middle], self.strengths[middle]), new, &id) { from = middle + 1 } else { until = middle }
        }
        from
    }

    /// Takes many new strengths, in one walk over the row. `marks` are by number of an item, and all false.
    fn put_all(&mut self, new: &mut [(Slot, Strength)], marks: &mut [bool], id: impl Fn(Slot) -> ItemId) {
        new.iter().for_each(|(to, _)| marks[*to as usize] = true);
        let all = self.to.len() + new.len();
        let old = std::mem::replace(self, Self { to: Vec::with_capacity(all), strengths: Vec::with_capacity(all) });
        let mut stayed = old.to.into_iter().zip(old.strengths).filter(|(to, _)| !marks[*to as usize]).peekable();
        new.sort_unstable_by(|a, b| b.1.weight().cmp(&a.1.weight()).then_with(|| id(a.0).cmp(&id(b.0))));
        for link in new.iter().filter(|(_, strength)| !strength.is_zero()) {
            while let Some(stays) = stayed.next_if(|stays| goes_before(*stays, *link, &id)) {
                self.push(stays);
            }
            self.push(*link);
        }
        stayed.for_each(|stays| self.push(stays));
        new.iter().for_each(|(to, _)| marks[*to as usize] = false);
    }

    fn push(&mut self, (to, strength): (Slot, Strength)) {
        self.to.push(to);
        self.strengths.push(strength);
    }
}

/// Whether one link goes before another in a row.
fn goes_before(one: (Slot, Strength), other: (Slot, Strength), id: impl Fn(Slot) -> ItemId) -> bool {
    let (weight, than) = (one.1.weight(), other.1.weight());
    weight > than || (weight == than && id(one.0) < id(other.0))
}

/// Where a number stands: sixteen are looked at in one go.
fn place_of(slots: &[Slot], wanted: Slot) -> Option<usize> {
    let there = |chunk: &[Slot]| chunk.iter().fold(false, |there, slot| there | (*slot == wanted));
    let chunk = slots.chunks(16).position(there)?;
    let within = slots[chunk * 16..].iter().position(|slot| *slot == wanted)?;
    Some(chunk * 16 + within)
}

/// What is known of an item.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub id: ItemId,
    pub tally: Tally,
    pub onward: u32,
    /// Shared with a snapshot that is being written; then copied before they change.
    pub links: Arc<Links>,
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
    /// At a moment, to the second: so what it says of an item holds for all who ask within it.
    pub fn at(clock: Millis) -> Self {
        let clock = clock.div_euclid(SECOND) * SECOND;
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

/// So many changes of a row are made in one walk over it.
const MANY: usize = 6;

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
    gates: Vec<Option<Gate>>,
    /// How often what is counted of each item changed since the start.
    versions: Vec<u32>,
    orders: [BTreeSet<(Reverse<i64>, ItemId, Slot)>; ORDERS],
    tokens: FxHashMap<TokenId, u32>,
    /// By the number of a token: its id, and steps to items that have it.
    named: Vec<TokenId>,
    carried: Vec<u64>,
    /// Buffers that are reused: what changes of a row, and a mark for each item.
    new: Vec<(Slot, Strength)>,
    marks: Vec<bool>,
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
        self.gates[slot] = facts.map(Gate::of);
        self.items[slot].city = facts.and_then(|f| f.city.as_deref()).map(TokenId::city);
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

    /// Whom an item may be shown to; `None`: the catalogue does not say.
    pub fn gate(&self, slot: Slot) -> Option<&Gate> {
        self.gates[slot as usize].as_ref()
    }

    /// Another number whenever what is counted of an item changed.
    pub fn version(&self, slot: Slot) -> u32 {
        self.versions[slot as usize]
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
            self.gates.push(None);
            self.versions.push(0);
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
        self.versions[slot] = self.versions[slot].wrapping_add(1);
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
        let mut new = std::mem::take(&mut self.new);
        new.clear();
        new.extend(change.links.iter().map(|(item, strength)| (self.slot(*item), *strength)));
        let id = |slot: Slot| self.items[slot as usize].id;
        if new.len() >= MANY {
            self.marks.resize(self.items.len(), false);
            links.put_all(&mut new, &mut self.marks, id);
        } else {
            new.iter().for_each(|(to, strength)| links.put(*to, *strength, id));
        }
        self.new = new;
        self.items[slot].links = kept;
    }

    /// Hands over every item. The store is the same on every worker. What the catalogue says is kept elsewhere.
    pub fn save(&self, tag: u8, into: &mut Saver) {
        let ids: Arc<Vec<ItemId>> = Arc::new(self.items.iter().map(|of| of.id).collect());
        for of in self.items.iter().filter(|of| of.tally.steps > 0 || !of.links.to.is_empty()) {
            let (item, tally, onward, links, ids) = (of.id, of.tally, of.onward, of.links.clone(), ids.clone());
            into.shared(tag, item.0, move || {
                let links: Vec<(ItemId, Strength)> =
                    links.head(usize::MAX).map(|(to, strength)| (ids[to as usize], *strength)).collect();
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
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn words_of_a_title() {
        let word = |w: &str| TokenId::of(&format!("word:{w}"));
        assert_eq!(words("The 39 Steps, A  THE"), BTreeSet::from([word("the"), word("39"), word("steps")]));
    }

    proptest! {
        #[test]
        fn links_stand_in_their_order_however_they_are_put(changes in prop::collection::vec(prop::collection::vec((0u32..40, 0i32..6), 1..9), 1..30)) {
            let id = |slot: Slot| ItemId(u64::from(slot * 7 % 40));
            let (mut one_by_one, mut at_once, mut plainly) = (Links::default(), Links::default(), BTreeMap::new());
            let mut marks = vec![false; 40];
            for epoch in changes {
                let epoch: BTreeMap<Slot, Strength> = epoch.into_iter().map(|(to, s)| (to, Strength { s, ..Strength::default() })).collect();
                epoch.iter().for_each(|(to, strength)| one_by_one.put(*to, *strength, id));
                at_once.put_all(&mut epoch.iter().map(|(to, strength)| (*to, *strength)).collect::<Vec<_>>(), &mut marks, id);
                plainly.extend(epoch);
                plainly.retain(|_, strength| !strength.is_zero());
                let mut sorted: Vec<(Slot, Strength)> = plainly.iter().map(|(to, strength)| (*to, *strength)).collect();
                sorted.sort_by_key(|(to, strength)| (Reverse(strength.weight()), id(*to)));
                for links in [&one_by_one, &at_once] {
                    prop_assert_eq!(&links.head(usize::MAX).map(|(to, strength)| (to, *strength)).collect::<Vec<_>>(), &sorted);
                }
            }
        }
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
