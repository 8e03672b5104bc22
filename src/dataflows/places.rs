//! What is near: every item that has a place stands in the list of each cell it lies in, the better quality first.
//!
//! Two stages. `Standings`, at the item, follows the catalogue; `Cells`, at the cell, keeps the order. The facts that must stay true:
//! after a tick every list is a function of the catalogue, and in none stands an item that is mature or unavailable; a list is told
//! when it changes, and when it is its turn again, because a store lets go of what it does not hear of.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

use timely::dataflow::StreamVec;

use super::NearParams;
use crate::model::catalogue::{Item, USUAL_QUALITY};
use crate::model::ids::key_group;
use crate::model::place::{Cell, Standing};
use crate::model::{Change, Epoch, ItemId};
use crate::operators::top::Top;
use crate::operators::{Arrive, Clock, Durable, Route, Saver, Turns, Vault};

/// The stage: the catalogue in, at its owner; the lists of cells that changed out, at ticks.
pub fn places<'scope>(
    items: StreamVec<'scope, u64, (ItemId, Option<Arc<Item>>)>,
    clock: &Clock,
    params: &NearParams,
    vault: &Vault,
) -> StreamVec<'scope, u64, Change> {
    let members = items.arrive().keep(clock, Standings::default(), vault, Standings::step);
    let members = members.route(|(cell, _, _)| cell.hash());
    members.keep(clock, Cells::new(params.kept), vault, Cells::step)
}

/// A member of a cell's list with its packed [`Standing`]; `None`: out of the list.
type Member = (Cell, ItemId, Option<i64>);

/// Where the items of one worker stand.
#[derive(Default)]
pub(super) struct Standings {
    items: FxHashMap<ItemId, OfItem>,
    /// Items that moved since the last tick.
    dirty: BTreeSet<ItemId>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct OfItem {
    now: Option<Standing>,
    told: Option<Standing>,
}

/// Where an item stands that may be shown to all.
fn standing(facts: &Item) -> Option<Standing> {
    let place = facts.place()?;
    (facts.available && !facts.mature).then(|| Standing { place, quality: facts.quality.unwrap_or(USUAL_QUALITY) })
}

impl Standings {
    fn step(&mut self, epoch: &Epoch, rows: &mut Vec<(ItemId, Option<Arc<Item>>)>, out: &mut Vec<Member>) {
        for (item, facts) in rows.drain(..) {
            let now = facts.as_deref().and_then(standing);
            if now.is_some() || self.items.contains_key(&item) {
                self.items.entry(item).or_default().now = now;
                self.dirty.insert(item);
            }
        }
        if epoch.tick() {
            for item in std::mem::take(&mut self.dirty) {
                self.tell(item, out);
            }
        }
    }

    fn tell(&mut self, item: ItemId, out: &mut Vec<Member>) {
        let of = self.items.get_mut(&item).expect("a dirty item exists");
        let told = std::mem::replace(&mut of.told, of.now);
        if told != of.now {
            let cells = |standing: Option<Standing>| standing.map(|s| s.place.cells()).unwrap_or_default();
            let (before, now) = (cells(told), cells(of.now));
            let left = before.iter().filter(|cell| told.is_some() && !now.contains(cell));
            out.extend(left.map(|cell| (*cell, item, None)));
            out.extend(of.now.iter().flat_map(|standing| now.map(|cell| (cell, item, Some(standing.packed())))));
        }
        if of.now.is_none() {
            self.items.remove(&item);
        }
    }
}

/// The lists of one worker's cells, by key group and cell.
pub(super) struct Cells {
    top: Top<(u16, Cell), ItemId>,
    kept: usize,
    turns: Turns,
}

impl Cells {
    fn new(kept: usize) -> Self {
        Self { top: Top::default(), kept, turns: Turns::default() }
    }

    fn step(&mut self, epoch: &Epoch, members: &mut Vec<Member>, out: &mut Vec<Change>) {
        for (cell, item, packed) in members.drain(..) {
            self.top.set(&(key_group(cell.hash()), cell), item, packed);
        }
        if let Some((from, to)) = epoch.retell {
            self.again(from, to);
        }
        if epoch.tick() {
            self.turns.due(epoch.clock_ms).for_each(|group| self.again(group, group + 1));
        }
        out.extend(self.top.changed(self.kept).into_iter().map(|((_, cell), best)| Change::Near(cell, best)));
    }

    fn again(&mut self, from: u16, to: u16) {
        self.top.again_within((from, Cell(0))..(to, Cell(0)));
    }
}

impl Durable for Standings {
    const UID: &'static str = "standings/1";

    fn save(&self, into: &mut Saver) {
        for (item, of) in self.items.clone() {
            let dirty = self.dirty.contains(&item);
            into.own(0, item.0, move || (item, of, dirty));
        }
    }

    fn load(&mut self, _tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        let (item, of, dirty): (ItemId, OfItem, bool) = postcard::from_bytes(body)?;
        self.dirty.extend(dirty.then_some(item));
        self.items.insert(item, of);
        Ok(())
    }
}

impl Durable for Cells {
    const UID: &'static str = "cells/1";

    fn save(&self, into: &mut Saver) {
        for ((_, cell), item, packed) in self.top.members() {
            into.own(0, cell.hash(), move || (cell, item, packed));
        }
        let turns = self.turns;
        into.shared(1, 0, move || turns);
    }

    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        if tag == 1 {
            self.turns = postcard::from_bytes(body)?;
            return Ok(());
        }
        let (cell, item, packed): (Cell, ItemId, i64) = postcard::from_bytes(body)?;
        self.top.set(&(key_group(cell.hash()), cell), item, Some(packed));
        Ok(())
    }

    /// What is in the lists was told.
    fn loaded(&mut self) {
        drop(self.top.changed(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Turn;
    use crate::model::place::Place;
    use crate::model::time::{HOUR, Millis};
    use crate::operators::turns::AGAIN_AFTER;

    fn tick(clock_ms: Millis) -> Epoch {
        Epoch { clock_ms, turn: Turn::ALL, ..Epoch::default() }
    }

    fn facts(lat: f64, quality: Option<f64>) -> Item {
        Item { lat: Some(lat), lon: Some(11.6), quality, available: true, ..Item::default() }
    }

    fn told(standings: &mut Standings, epoch: &Epoch, item: u64, facts: Option<Item>) -> Vec<Member> {
        let mut out = Vec::new();
        standings.step(epoch, &mut vec![(ItemId(item), facts.map(Arc::new))], &mut out);
        out
    }

    /// What an item's changes do to the lists it stands in.
    #[test]
    fn an_item_stands_where_the_catalogue_says_and_nowhere_else() {
        let mut standings = Standings::default();
        let place = |lat| Place::new(lat, 11.6).expect("on the earth");
        let packed = |lat, quality| Some(Standing { place: place(lat), quality }.packed());
        let all = |lat, to: Option<i64>| place(lat).cells().map(|cell| (cell, ItemId(1), to)).to_vec();
        assert_eq!(told(&mut standings, &Epoch::default(), 1, Some(facts(48.1, None))), [], "not at a tick");
        assert_eq!(told(&mut standings, &tick(0), 2, None), all(48.1, packed(48.1, 0.5)));
        assert_eq!(told(&mut standings, &tick(0), 1, Some(facts(48.1, Some(0.5)))), [], "nothing changed");
        assert_eq!(told(&mut standings, &tick(0), 1, Some(facts(48.1, Some(1.0)))), all(48.1, packed(48.1, 1.0)));
        let moved = told(&mut standings, &tick(0), 1, Some(facts(-33.9, None)));
        assert_eq!(moved, [all(48.1, None), all(-33.9, packed(-33.9, 0.5))].concat());
        for hidden in [Item { mature: true, ..facts(-33.9, None) }, Item { available: false, ..facts(-33.9, None) }] {
            assert_eq!(told(&mut standings, &tick(0), 1, Some(hidden)), all(-33.9, None));
            assert_eq!(told(&mut standings, &tick(0), 1, Some(facts(-33.9, None))), all(-33.9, packed(-33.9, 0.5)));
        }
        assert_eq!(told(&mut standings, &tick(0), 1, Some(Item { lon: None, ..facts(-33.9, None) })), all(-33.9, None));
        assert_eq!(told(&mut standings, &tick(0), 1, Some(facts(95.0, None))), []);
        assert!(standings.items.is_empty() && standings.dirty.is_empty());
    }

    /// Each list once in six hours, however the ticks lie, and none twice.
    #[test]
    fn what_does_not_change_is_told_again_in_time() {
        let cells: Vec<Cell> = (0..50).map(|i| Place::new(f64::from(i), 0.0).expect("on the earth").cells()[0]).collect();
        let mut lists = Cells::new(10);
        let mut step = |clock, members: &mut Vec<Member>| {
            let mut out = Vec::new();
            lists.step(&tick(clock), members, &mut out);
            let cell = |change| if let Change::Near(cell, list) = change { (cell, list.len()) } else { panic!("{change:?}") };
            out.into_iter().map(cell).collect::<BTreeSet<_>>()
        };
        let start = 1_763_600_000_000;
        let mut members = cells.iter().map(|cell| (*cell, ItemId(1), Some(5))).collect();
        let all: BTreeSet<_> = cells.iter().map(|cell| (*cell, 1)).collect();
        assert_eq!(step(start, &mut members), all);
        assert_eq!(step(start, &mut vec![]), BTreeSet::new());
        let mut again = Vec::new();
        (1..=12).for_each(|half| again.extend(step(start + half * HOUR / 2, &mut vec![])));
        assert_eq!((again.len(), again.into_iter().collect::<BTreeSet<_>>()), (50, all.clone()));
        assert_eq!(step(start + 100 * AGAIN_AFTER, &mut vec![]), all, "after a long silence once, not a hundred times");
    }
}
