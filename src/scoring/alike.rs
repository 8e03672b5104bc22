//! What is like what: items by the directions of their content, the nearest of each found by looking at all of them.
//!
//! Two items are as alike as the mean of the cosines over the spaces in which both have a direction; what points away from each other is
//! not alike at all. Products are whole numbers, so every machine and every worker says the same.
//!
//! The fact that must stay true: what is remembered of an item's nearest is what looking at all items anew would say. So it is no state:
//! whoever forgets it finds it again.

use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;

use super::first::first;
use crate::model::ItemId;
use crate::model::content::{Direction, Directions, Points, SPACES};

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

/// Items whose nearest are remembered at most.
const REMEMBERED: usize = 1 << 16;
/// So many times as much it costs to correct by one change as to look at one item (`cargo bench --bench content`): after more changes
/// than one for so many items the nearest are found anew, which costs less.
const DEARER: usize = 4;
/// After so few they never are.
const FEW: usize = 64;

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
    spots: Vec<Spot>,
    /// The nearest of items that were asked for.
    near: FxHashMap<ItemId, Remembered>,
    /// Items that changed lately, the last one last: what is remembered is corrected by those that came since, when it is asked for.
    changed: VecDeque<ItemId>,
    /// How many changed in all.
    changes: u64,
}

/// Where an item points, and whether it is offered: what is not is nobody's nearest, and has some of its own.
struct Spot {
    place: Place,
    offered: bool,
}

/// The nearest of an item after so many changes.
struct Remembered {
    near: Vec<Near>,
    after: u64,
}

impl Shelf {
    /// Nothing yet.
    pub fn new(kept: usize) -> Self {
        let (places, ids, spots) = (FxHashMap::default(), Vec::new(), Vec::new());
        Self { kept, places, ids, spots, near: FxHashMap::default(), changed: VecDeque::new(), changes: 0 }
    }

    /// Where an item's content points from now on; nowhere takes it off the shelf.
    pub fn put(&mut self, Points { item, directions, offered }: &Points) {
        let spot = Spot { place: place(directions), offered: *offered };
        let some = directions.iter().any(Option::is_some);
        match (self.places.get(item).copied(), some) {
            (Some(place), true) => self.spots[place as usize] = spot,
            (Some(place), false) => self.take_off(*item, place as usize),
            (None, true) => {
                self.places.insert(*item, self.ids.len() as u32);
                self.ids.push(*item);
                self.spots.push(spot);
            }
            (None, false) => return,
        }
        self.changes += 1;
        self.changed.push_back(*item);
        let kept = self.changed.len().min((self.ids.len() / DEARER).max(FEW));
        self.changed.drain(..self.changed.len() - kept);
    }

    fn take_off(&mut self, item: ItemId, place: usize) {
        self.places.remove(&item);
        self.ids.swap_remove(place);
        self.spots.swap_remove(place);
        if let Some(moved) = self.ids.get(place) {
            self.places.insert(*moved, place as u32);
        }
    }

    /// Every item with where it points.
    pub fn iter(&self) -> impl Iterator<Item = Points> {
        let directions = |of: &Place| of.clone().map(|of| of.map(|(direction, _)| direction));
        let points =
            move |(item, of): (&ItemId, &Spot)| Points { item: *item, directions: directions(&of.place), offered: of.offered };
        self.ids.iter().zip(&self.spots).map(points)
    }

    /// The place of an item, until another one is put or taken away.
    pub fn place(&self, item: ItemId) -> Option<u32> {
        self.places.get(&item).copied()
    }

    /// How alike the items at two places are.
    pub fn likeness(&self, one: u32, other: u32) -> Likeness {
        widest_likeness(&self.spots[one as usize].place, &self.spots[other as usize].place)
    }

    /// The items likest to one that are offered, the likest first, as far as they are like it at all.
    pub fn nearest(&mut self, item: ItemId) -> &[Near] {
        let Some(place) = self.places.get(&item).copied() else { return &[] };
        let known = self.near.remove(&item).and_then(|known| self.corrected(place, known));
        let near = known.unwrap_or_else(|| self.found(place));
        if self.near.len() >= REMEMBERED {
            self.near.clear();
        }
        &self.near.entry(item).insert_entry(Remembered { near, after: self.changes }).into_mut().near
    }

    /// The nearest of the item at a place, of all items.
    fn found(&self, place: u32) -> Vec<Near> {
        let mut found = Vec::new();
        widest_scan(&self.ids, &self.spots, place as usize, &mut found);
        first(found, self.kept, |a: &Near, b| a.order().cmp(&b.order()))
    }

    /// What is remembered of the item at a place, with what changed since; `None` where it has to be found anew.
    fn corrected(&self, place: u32, Remembered { mut near, after }: Remembered) -> Option<Vec<Near>> {
        let missed = usize::try_from(self.changes - after).ok().filter(|missed| *missed <= self.changed.len())?;
        for item in self.changed.range(self.changed.len() - missed..) {
            let now = self.place(*item);
            if now == Some(place) {
                return None;
            }
            let offered = now.filter(|now| self.spots[*now as usize].offered);
            let likeness = offered.map_or(0, |now| self.likeness(place, now));
            move_to(&mut near, Near { item: *item, likeness }, self.kept)?;
        }
        Some(near)
    }
}

/// Puts an item where it now belongs among the nearest of another one; `None` where what comes after the last of them would have to
/// be known for that.
fn move_to(near: &mut Vec<Near>, now: Near, kept: usize) -> Option<()> {
    let all = near.len() < kept;
    if let Some(place) = near.iter().position(|known| known.item == now.item) {
        if near[place].likeness == now.likeness {
            return Some(());
        }
        if !all {
            return None;
        }
        near.remove(place);
    }
    if now.likeness > 0 {
        near.insert(near.partition_point(|known| known.order() < now.order()), now);
        near.truncate(kept);
    }
    Some(())
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

/// Notes what is offered and like the item at a place.
#[inline(always)]
fn scan(ids: &[ItemId], spots: &[Spot], of: usize, found: &mut Vec<Near>) {
    let one = &spots[of].place;
    for (place, other) in spots.iter().enumerate().filter(|(place, other)| other.offered && *place != of) {
        let likeness = likeness(one, &other.place);
        if likeness > 0 {
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

widest! { fn widest_scan = scan(ids: &[ItemId], spots: &[Spot], of: usize, found: &mut Vec<Near>) -> () }
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
    fn plainly(all: &FxHashMap<ItemId, Points>, item: ItemId, kept: usize) -> Vec<Near> {
        let Some(one) = all.get(&item).map(|one| place(&one.directions)) else { return Vec::new() };
        let near = |of: &Points| Near { item: of.item, likeness: likeness(&one, &place(&of.directions)) };
        let others = all.values().filter(|other| other.item != item && other.offered);
        let mut near: Vec<Near> = others.map(near).collect();
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
            shelf.put(&Points { item: ItemId(item), directions, offered: true });
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
                        shelf.put(&Points { item, directions: Directions::default(), offered: true });
                        all.remove(&item);
                    }
                    1 | 2 => {
                        // few different ones: ties are common
                        let directions = [drawn(seed % 9, 5), (act == 2).then(|| drawn(seed % 7, 3)).flatten(), None];
                        let points = Points { item, directions, offered: seed % 5 > 0 };
                        shelf.put(&points);
                        let some = points.directions.iter().any(Option::is_some);
                        if some { all.insert(item, points) } else { all.remove(&item) };
                    }
                    _ => prop_assert_eq!(shelf.nearest(item), plainly(&all, item, kept)),
                }
            }
            for item in 0..24 {
                prop_assert_eq!(shelf.nearest(ItemId(item)), plainly(&all, ItemId(item), kept));
            }
        }
    }

    /// What is not asked for while all items change is found anew; what nobody asked for since is corrected by a few changes at a time.
    #[test]
    fn c11_many_changes_at_once_are_no_exception() {
        let (mut shelf, mut all) = (Shelf::new(5), FxHashMap::default());
        for (round, changed) in [200, 200, 3, 1, 60, 199].into_iter().enumerate() {
            for n in 0..changed {
                let directions = [drawn(n ^ (round as u64) << 32, 16), None, None];
                let points = Points { item: ItemId(n), directions, offered: true };
                shelf.put(&points);
                all.insert(points.item, points);
                assert!(shelf.changed.len() <= shelf.ids.len());
            }
            (0..200).step_by(round + 1).for_each(|n| assert_eq!(shelf.nearest(ItemId(n)), plainly(&all, ItemId(n), 5)));
        }
    }
}
