//! What readers are told of each item: what the catalogue says of it, and when it came into being.
//!
//! The facts that must stay true: after a tick every card is what the catalogue last said; a withdrawn item, or one that is not
//! available, has none; a card is told when it changes, and once in [`AGAIN_AFTER`](crate::operators::turns::AGAIN_AFTER), because a
//! store lets go of what it does not hear of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use timely::dataflow::StreamVec;

use super::catalogue;
use crate::model::catalogue::Item;
use crate::model::ids::key_group;
use crate::model::time::Millis;
use crate::model::{Change, Epoch, ItemId};
use crate::operators::{Arrive, Clock, Durable, Saver, Turns, Vault};

/// The stage: the catalogue in, at its owner; cards that changed, or whose turn it is, out, at ticks.
pub fn cards<'scope>(
    items: StreamVec<'scope, u64, catalogue::Change>,
    clock: &Clock,
    vault: &Vault,
) -> StreamVec<'scope, u64, Change> {
    items.arrive().keep(clock, Cards::default(), vault, Cards::step)
}

/// An item by its key group.
type Place = (u16, ItemId);

/// What an item is, and when it was first named.
type Card = (Arc<Item>, Millis);

/// The cards of one worker.
#[derive(Default)]
pub(super) struct Cards {
    cards: BTreeMap<Place, Card>,
    /// What changed since the last tick.
    dirty: BTreeSet<Place>,
    turns: Turns,
}

impl Cards {
    fn step(&mut self, epoch: &Epoch, items: &mut Vec<catalogue::Change>, out: &mut Vec<Change>) {
        for (item, facts) in items.drain(..) {
            self.take(item, facts, epoch.clock_ms);
        }
        if let Some((from, to)) = epoch.retell {
            self.again(from, to);
        }
        if epoch.tick() {
            self.turns.due(epoch.clock_ms).for_each(|group| self.again(group, group + 1));
        }
        if epoch.tick() || epoch.retell.is_some() {
            let shown = |place| self.cards.get(&place).filter(|(facts, _)| facts.available);
            let card = |(facts, named): &Card| (facts.clone(), facts.created_at.unwrap_or(*named));
            let tell = |place: Place| Change::Card(place.1, shown(place).map(card));
            out.extend(std::mem::take(&mut self.dirty).into_iter().map(tell));
        }
    }

    /// An item of which nobody says when it was created is as old as its name here.
    fn take(&mut self, item: ItemId, facts: Option<Arc<Item>>, clock: Millis) {
        let place = (key_group(item.0), item);
        let before = self.cards.remove(&place);
        let named = before.as_ref().map_or(clock, |(_, named)| *named);
        let card = facts.map(|facts| (facts, named));
        if card != before {
            self.dirty.insert(place);
        }
        self.cards.extend(card.map(|card| (place, card)));
    }

    fn again(&mut self, from: u16, to: u16) {
        self.dirty.extend(self.cards.range((from, ItemId(0))..(to, ItemId(0))).map(|(place, _)| *place));
    }
}

impl Durable for Cards {
    const UID: &'static str = "cards/1";

    fn save(&self, into: &mut Saver) {
        for ((_, item), card) in self.cards.clone() {
            into.own(0, item.0, move || (item, card));
        }
        for (_, item) in self.dirty.clone() {
            into.own(1, item.0, move || item);
        }
        let turns = self.turns;
        into.shared(2, 0, move || turns);
    }

    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        match tag {
            0 => {
                let (item, card): (ItemId, Card) = postcard::from_bytes(body)?;
                self.cards.insert((key_group(item.0), item), card);
            }
            1 => {
                let item: ItemId = postcard::from_bytes(body)?;
                self.dirty.insert((key_group(item.0), item));
            }
            _ => self.turns = postcard::from_bytes(body)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::epoch::Turn;
    use crate::model::time::SECOND;
    use crate::operators::turns::AGAIN_AFTER;

    /// What a step at this clock, a tick, tells of items.
    fn told(cards: &mut Cards, number: u64, clock: Millis, mut items: Vec<catalogue::Change>) -> Vec<(u64, Option<Millis>)> {
        let epoch = Epoch { number, clock_ms: clock, turn: Turn::ALL, ..Epoch::default() };
        let mut out = Vec::new();
        cards.step(&epoch, &mut items, &mut out);
        let card =
            |change| if let Change::Card(item, card) = change { (item.0, card.map(|c| c.1)) } else { panic!("{change:?}") };
        out.into_iter().map(card).collect()
    }

    #[test]
    fn a_card_is_told_when_it_changes_and_again_in_time_and_taken_back_with_its_item() {
        let item = |created_at, title: &str| {
            Some(Arc::new(Item { available: true, created_at, title: Some(title.into()), ..Item::default() }))
        };
        let mut cards = Cards::default();
        let began = 1_000 * SECOND;
        assert_eq!(
            told(&mut cards, 1, began, vec![(ItemId(7), item(None, "a")), (ItemId(8), item(Some(5), "b"))]),
            [(7, Some(began)), (8, Some(5))]
        );
        let later = began + 2 * SECOND;
        assert_eq!(told(&mut cards, 2, later, vec![(ItemId(7), item(None, "a"))]), [], "said as it was");
        assert_eq!(told(&mut cards, 3, later, vec![(ItemId(7), item(None, "c"))]), [(7, Some(began))], "no younger for that");
        let again = told(&mut cards, 4, later + AGAIN_AFTER, vec![]);
        assert_eq!(again, [(7, Some(began)), (8, Some(5))]);
        let withheld = Some(Arc::new(Item { available: false, ..Item::default() }));
        let gone = told(&mut cards, 5, later + AGAIN_AFTER, vec![(ItemId(7), None), (ItemId(8), withheld)]);
        assert_eq!(gone, [(7, None), (8, None)]);
        let shown = told(&mut cards, 6, later + AGAIN_AFTER, vec![(ItemId(7), item(None, "d")), (ItemId(8), item(None, "e"))]);
        assert_eq!(shown, [(7, Some(later + AGAIN_AFTER)), (8, Some(began))], "withdrawn it comes anew, withheld it comes back");
    }
}
