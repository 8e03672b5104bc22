//! What is like what: items by the directions of their content, the nearest of each found by looking at all of them.
//!
//! Two items are as alike as the mean of the cosines over the spaces in which both have a direction; what points away from each other is
//! not alike at all. Products are whole numbers, so every machine and every worker says the same.
//!
//! The fact that must stay true: what is remembered of an item's nearest is what looking at all items anew would say. So it is no state:
//! whoever forgets it finds it again.

use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::sync::Arc;

use super::first::first;
use crate::model::ItemId;
use crate::model::content::{Direction, Directions, SPACES};

/// How alike two items are, in millionths: 0 not at all, 1,000,000 the same.
pub type Likeness = i32;

/// An item that is like another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Near {
    pub item: ItemId,
    pub likeness: Likeness,
}

impl Near {
    /// The likest first; of equals the smaller id.
    fn order(&self) -> (Reverse<Likeness>, ItemId) {
        (Reverse(self.likeness), self.item)
    }
}

/// Changed items after which all that is remembered is found again, for that costs less than to correct it.
const MANY: usize = 64;
/// Items whose nearest are remembered at most.
const REMEMBERED: usize = 1 << 16;

/// One item's directions, each with what makes its length 1.
type Place = [Option<(Arc<Direction>, f64)>; SPACES];

fn place(directions: &Directions) -> Place {
    let unit = |square: i32| if square > 0 { 1.0 / f64::from(square).sqrt() } else { 0.0 };
    directions.clone().map(|of| of.map(|of| (of.clone(), unit(of.square()))))
}

/// All items with a direction.
pub struct Shelf {
    /// How many of the nearest are wanted.
    kept: usize,
    places: FxHashMap<ItemId, u32>,
    ids: Vec<ItemId>,
    directions: Vec<Place>,
    /// The nearest of items that were asked for.
    near: FxHashMap<ItemId, Vec<Near>>,
    /// Items that changed since what is remembered was last right.
    changed: Vec<ItemId>,
}

impl Shelf {
    /// Nothing yet.
    pub fn new(kept: usize) -> Self {
        let (places, ids, directions) = (FxHashMap::default(), Vec::new(), Vec::new());
        Self { kept, places, ids, directions, near: FxHashMap::default(), changed: Vec::new() }
    }

    /// Where an item's content points from now on; nowhere takes it off the shelf.
    pub fn put(&mut self, item: ItemId, directions: &Directions) {
        let some = directions.iter().any(Option::is_some);
        let directions = place(directions);
        match (self.places.get(&item).copied(), some) {
            (Some(place), true) => self.directions[place as usize] = directions,
            (Some(place), false) => self.take_off(item, place as usize),
            (None, true) => {
                self.places.insert(item, self.ids.len() as u32);
                self.ids.push(item);
                self.directions.push(directions);
            }
            (None, false) => return,
        }
        if !self.near.is_empty() {
            self.changed.push(item);
        }
    }

    fn take_off(&mut self, item: ItemId, place: usize) {
        self.places.remove(&item);
        self.ids.swap_remove(place);
        self.directions.swap_remove(place);
        if let Some(moved) = self.ids.get(place) {
            self.places.insert(*moved, place as u32);
        }
    }

    /// Every item with where it points.
    pub fn iter(&self) -> impl Iterator<Item = (ItemId, Directions)> {
        let directions = |of: &Place| of.clone().map(|of| of.map(|(direction, _)| direction));
        self.ids.iter().zip(&self.directions).map(move |(item, of)| (*item, directions(of)))
    }

    /// The place of an item, until another one is put or taken away.
    pub fn place(&self, item: ItemId) -> Option<u32> {
        self.places.get(&item).copied()
    }

    /// How alike the items at two places are.
    pub fn likeness(&self, one: u32, other: u32) -> Likeness {
        widest_likeness(&self.directions[one as usize], &self.directions[other as usize])
    }

    /// The items likest to one, the likest first, as far as they are like it at all.
    pub fn nearest(&mut self, item: ItemId) -> &[Near] {
        self.correct();
        let Some(place) = self.places.get(&item) else { return &[] };
        if self.near.len() >= REMEMBERED && !self.near.contains_key(&item) {
            self.near.clear();
        }
        let (ids, directions, kept) = (&self.ids, &self.directions, self.kept);
        self.near.entry(item).or_insert_with(|| {
            let mut found = Vec::new();
            widest_scan(ids, directions, *place as usize, &mut found);
            first(found, kept, |a: &Near, b| a.order().cmp(&b.order()))
        })
    }

    /// Makes what is remembered right again.
    fn correct(&mut self) {
        if self.changed.len() > MANY {
            self.near.clear();
        }
        for item in std::mem::take(&mut self.changed) {
            self.near.remove(&item);
            let (places, directions, kept) = (&self.places, &self.directions, self.kept);
            let at = |item: &ItemId| places.get(item).map(|place| &directions[*place as usize]);
            let now = at(&item);
            self.near.retain(|of, near| {
                let likeness = now.zip(at(of)).map_or(0, |(one, other)| widest_likeness(one, other));
                corrected(near, Near { item, likeness }, kept)
            });
        }
    }
}

/// Puts an item where it now belongs among the nearest of another one; `false` where what comes after the last of them would have to
/// be known for that.
fn corrected(near: &mut Vec<Near>, now: Near, kept: usize) -> bool {
    let all = near.len() < kept;
    if let Some(place) = near.iter().position(|known| known.item == now.item) {
        if !all {
            return false;
        }
        near.remove(place);
    }
    if now.likeness > 0 {
        near.insert(near.partition_point(|known| known.order() < now.order()), now);
        near.truncate(kept);
    }
    true
}

/// The mean of the cosines over the spaces both have.
#[inline(always)]
fn likeness(one: &Place, other: &Place) -> Likeness {
    let (mut sum, mut spaces) = (0.0, 0);
    for pair in one.iter().zip(other) {
        if let (Some((a, a_unit)), Some((b, b_unit))) = pair
            && a.0.len() == b.0.len()
        {
            sum += f64::from(product(&a.0, &b.0)) * (a_unit * b_unit);
            spaces += 1;
        }
    }
    if spaces == 0 { 0 } else { (sum / f64::from(spaces) * 1e6 + 0.5).max(0.0) as Likeness }
}

#[inline(always)]
fn product(a: &[i8], b: &[i8]) -> i32 {
    a.iter().zip(b).map(|(a, b)| i32::from(i16::from(*a) * i16::from(*b))).sum()
}

/// Notes what is like the item at a place.
#[inline(always)]
fn scan(ids: &[ItemId], directions: &[Place], of: usize, found: &mut Vec<Near>) {
    let one = &directions[of];
    for (place, other) in directions.iter().enumerate() {
        let likeness = likeness(one, other);
        if likeness > 0 && place != of {
            found.push(Near { item: ids[place], likeness });
        }
    }
}

/// Compiles a function for wider registers too, and calls the one for this machine: whole numbers add up to the same in any order.
macro_rules! widest {
    (fn $name:ident = $plain:ident($($value:ident: $type:ty),*) -> $made:ty) => {
        fn $name($($value: $type),*) -> $made {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn wide($($value: $type),*) -> $made {
                    $plain($($value),*)
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the machine has what the function was compiled for
                    return unsafe { wide($($value),*) };
                }
            }
            $plain($($value),*)
        }
    };
}

widest! { fn widest_scan = scan(ids: &[ItemId], directions: &[Place], of: usize, found: &mut Vec<Near>) -> () }
widest! { fn widest_likeness = likeness(one: &Place, other: &Place) -> Likeness }

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rng::Rng;
    use proptest::prelude::*;

    fn pointing(vector: &[f32]) -> Option<Arc<Direction>> {
        Direction::of(vector).map(Arc::new)
    }

    fn drawn(seed: u64, width: usize) -> Option<Arc<Direction>> {
        let mut rng = Rng::of(seed, [0; 2]);
        pointing(&(0..width).map(|_| rng.unit() as f32 - 0.3).collect::<Vec<_>>())
    }

    /// All pairs, one after another.
    fn plainly(all: &FxHashMap<ItemId, Directions>, item: ItemId, kept: usize) -> Vec<Near> {
        let Some(one) = all.get(&item) else { return Vec::new() };
        let near = |(other, of): (&ItemId, &Directions)| Near { item: *other, likeness: likeness(&place(one), &place(of)) };
        let mut near: Vec<Near> = all.iter().filter(|(other, _)| **other != item).map(near).collect();
        near.retain(|near| near.likeness > 0);
        near.sort_by_key(Near::order);
        near.truncate(kept);
        near
    }

    /// Whatever registers the machine has, and however many numbers there are.
    #[test]
    fn every_path_makes_the_same_products() {
        for width in [1, 15, 16, 17, 384, 511] {
            let of = |seed| place(&[drawn(seed, width), None, None]);
            (0..50).for_each(|n| assert_eq!(likeness(&of(n), &of(n + 1)), widest_likeness(&of(n), &of(n + 1)), "{width}"));
        }
    }

    #[test]
    fn c11_alike_is_the_mean_over_the_spaces_both_have() {
        let mut shelf = Shelf::new(10);
        let (east, north, west) = (pointing(&[2.0, 0.0]), pointing(&[0.0, 1.0]), pointing(&[-1.0, 0.0]));
        let wider = pointing(&[1.0, 0.0, 0.0]);
        for (item, directions) in [
            (1, [east.clone(), None, None]),
            (2, [east.clone(), north.clone(), None]),
            (3, [east.clone(), east.clone(), None]),
            (4, [north, None, None]),
            (5, [west, None, None]),
            (6, [None, None, east]),
            (7, [wider, None, None]),
        ] {
            shelf.put(ItemId(item), &directions);
        }
        let mut near = |item| shelf.nearest(ItemId(item)).iter().map(|near| (near.item.0, near.likeness)).collect::<Vec<_>>();
        assert_eq!(
            near(1),
            [(2, 1_000_000), (3, 1_000_000)],
            "what is across, against, elsewhere or of another width is not alike"
        );
        assert_eq!(near(2), [(1, 1_000_000), (3, 500_000)]);
        assert_eq!(near(6), []);
        let place = |item| shelf.place(ItemId(item));
        assert_eq!(place(3).zip(place(2)).map(|(one, other)| shelf.likeness(one, other)), Some(500_000));
        assert_eq!(place(99), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever comes, changes and goes between, what is remembered is what all pairs say.
        #[test]
        fn c11_what_is_remembered_is_what_looking_anew_would_say(
            acts in prop::collection::vec((0u64..24, 0u8..6, any::<u64>()), 1..200),
            kept in 1usize..8,
        ) {
            let (mut shelf, mut all) = (Shelf::new(kept), FxHashMap::default());
            for (item, act, seed) in acts {
                let item = ItemId(item);
                match act {
                    0 => {
                        shelf.put(item, &Directions::default());
                        all.remove(&item);
                    }
                    1 | 2 => {
                        // few different ones: ties are common
                        let of = [drawn(seed % 9, 5), (act == 2).then(|| drawn(seed % 7, 3)).flatten(), None];
                        shelf.put(item, &of);
                        if of.iter().any(Option::is_some) { all.insert(item, of) } else { all.remove(&item) };
                    }
                    _ => prop_assert_eq!(shelf.nearest(item), plainly(&all, item, kept)),
                }
            }
            for item in 0..24 {
                prop_assert_eq!(shelf.nearest(ItemId(item)), plainly(&all, ItemId(item), kept));
            }
        }
    }

    /// Too many changes at once are not corrected one by one.
    #[test]
    fn c11_many_changes_at_once_are_no_exception() {
        let (mut shelf, mut all) = (Shelf::new(5), FxHashMap::default());
        for round in 0..3u64 {
            for n in 0..200 {
                let of = [drawn(n ^ round << 32, 16), None, None];
                shelf.put(ItemId(n), &of);
                all.insert(ItemId(n), of);
            }
            (0..200).for_each(|n| assert_eq!(shelf.nearest(ItemId(n)), plainly(&all, ItemId(n), 5)));
        }
    }
}
