//! The items' side of the factors: their owners make vectors of who took them, and every worker keeps all of them.
//!
//! The facts that must stay true: a vector is made from the latest 256 who took the item and the sum over all users, both as of the
//! epoch; and the shelves at the end of an epoch are the same on every worker.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::FactorsParams;
use super::factors::{Schedule, slot};
use super::tastes::{LATEST, Row, Takers, Told};
use crate::model::{Epoch, ItemId};
use crate::operators::{Durable, Saver};
use crate::scoring::factors::{Base, Gram, Settings, Solver, Vector};
use crate::scoring::scan::Shelf;

/// What the loss weighs.
pub fn settings(params: &FactorsParams) -> Settings {
    Settings { alpha: params.alpha as f32, reg: params.reg as f32 }
}

/// A new vector of an item in the set of a slot; `None`: nobody took it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Made {
    slot: usize,
    item: ItemId,
    vector: Option<Vector>,
}

/// Solves the items of one worker.
pub struct Makers {
    params: FactorsParams,
    schedule: Schedule,
    /// The sums over the users of both sets, as every worker has them.
    sums: [Gram; 2],
    solver: Solver,
}

impl Makers {
    /// Nobody known yet.
    pub fn new(params: FactorsParams) -> Self {
        Self { params, schedule: Schedule::default(), sums: Default::default(), solver: Solver::default() }
    }

    /// One epoch.
    pub fn step(&mut self, epoch: &Epoch, told: &mut Vec<Told>, out: &mut Vec<Made>) {
        let mut items: BTreeMap<(usize, ItemId), Takers> = BTreeMap::new();
        for told in told.drain(..) {
            match told {
                Told::Share(slot, share) => self.sums[slot].sum(&share),
                Told::Item(slot, item, mut takers) => items.entry((slot, item)).or_default().append(&mut takers),
            }
        }
        let mut bases: [Option<Base>; 2] = [None, None];
        for ((slot, item), mut takers) in items {
            takers.sort_unstable_by_key(|(at, user, _)| (*at, *user));
            takers.truncate(LATEST);
            let base = bases[slot].get_or_insert_with(|| Base::new(&self.sums[slot], &settings(&self.params)));
            out.push(Made { slot, item, vector: self.solver.solve(base, takers.iter().map(|(_, _, vector)| vector)) });
        }
        if self.schedule.pass(epoch, &self.params) {
            self.sums[slot(self.schedule.generation)] = Gram::default();
        }
    }
}

impl Durable for Makers {
    const UID: &'static str = "makers/1";

    fn save(&self, into: &mut Saver) {
        let (schedule, sums) = (self.schedule, self.sums.clone());
        into.shared(0, 0, move || (schedule, sums));
    }

    fn load(&mut self, _tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        (self.schedule, self.sums) = postcard::from_bytes(body)?;
        Ok(())
    }
}

/// The items of one set.
#[derive(Default)]
pub struct Items {
    places: FxHashMap<ItemId, u32>,
    pub shelf: Shelf,
    pub gram: Gram,
}

impl Items {
    /// The vector of an item.
    pub fn vector(&self, item: ItemId) -> Option<&Vector> {
        self.places.get(&item).map(|place| self.shelf.vector(*place))
    }

    fn put(&mut self, item: ItemId, vector: Option<Vector>) {
        let before = match (self.places.get(&item).copied(), vector) {
            (Some(place), Some(vector)) => Some(self.shelf.replace(place, vector)),
            (Some(place), None) => {
                self.places.remove(&item);
                let before = self.shelf.swap_remove(place);
                if (place as usize) < self.shelf.len() {
                    self.places.insert(self.shelf.id(place), place);
                }
                Some(before)
            }
            (None, Some(vector)) => {
                self.places.insert(item, self.shelf.push(item, vector));
                None
            }
            (None, None) => None,
        };
        before.iter().for_each(|before| self.gram.remove(before));
        vector.iter().for_each(|vector| self.gram.add(vector));
    }
}

/// Both sets, by slot, shared by those who read them and the one who keeps them.
#[derive(Default)]
pub struct Shelves(pub [Items; 2]);

/// Puts new vectors on the shelves of one worker.
pub struct Keeper {
    params: FactorsParams,
    schedule: Schedule,
    shelves: Rc<RefCell<Shelves>>,
}

impl Keeper {
    /// Of shared shelves.
    pub fn new(params: FactorsParams, shelves: Rc<RefCell<Shelves>>) -> Self {
        Self { params, schedule: Schedule::default(), shelves }
    }

    /// One epoch. Nothing goes out but that it is over.
    pub fn step(&mut self, epoch: &Epoch, made: &mut Vec<Made>, _out: &mut Vec<Row>) {
        let sets = &mut self.shelves.borrow_mut().0;
        made.drain(..).for_each(|made| sets[made.slot].put(made.item, made.vector));
        if self.schedule.pass(epoch, &self.params) {
            sets[slot(self.schedule.generation)] = Items::default();
        }
    }
}

impl Durable for Keeper {
    const UID: &'static str = "shelves/1";

    fn save(&self, into: &mut Saver) {
        let schedule = self.schedule;
        into.shared(0, 0, move || schedule);
        for (slot, items) in self.shelves.borrow().0.iter().enumerate() {
            for (item, vector) in items.shelf.iter() {
                let vector = *vector;
                into.shared(1, item.0, move || (slot, item, vector));
            }
        }
    }

    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        if tag == 0 {
            self.schedule = postcard::from_bytes(body)?;
            return Ok(());
        }
        let (slot, item, vector): (usize, ItemId, Vector) = postcard::from_bytes(body)?;
        self.shelves.borrow_mut().0[slot].put(item, Some(vector));
        Ok(())
    }
}
