//! The weights of all items during one slice, per region, as running sums in the order of categories: one binary search draws an
//! item of a category, or of all. A living item's weight is never zero, so there is always something to draw.

use super::{Item, SLICE, World};

/// How much more a region's own items weigh, and how much less another's.
const LOCAL: f64 = 4.0;
/// Below it a weight would vanish from the sums.
const LEAST: f64 = 1e-200;

/// The tables of one slice.
pub(super) struct Slice {
    /// The middle of the slice, in seconds since the start.
    at: f64,
    /// Items by category.
    order: Vec<u32>,
    /// Where each category begins in `order`; one more than there are categories.
    starts: Vec<usize>,
    /// Per item: weight without the region's factor; 0 before it is born.
    weights: Vec<f64>,
    /// Per region: running sums of the weights, in `order`.
    sums: Vec<Vec<f64>>,
}

impl Slice {
    /// Room for the tables; nothing can be drawn before [`Slice::turn`].
    pub(super) fn new(world: &World) -> Self {
        let mut order: Vec<u32> = (0..world.params.items).collect();
        order.sort_by_key(|i| world.items[*i as usize].category);
        let first_of = |z| order.partition_point(|i| world.items[*i as usize].category < z);
        Self {
            at: 0.0,
            starts: (0..=world.params.categories).map(first_of).collect(),
            weights: vec![0.0; order.len()],
            sums: vec![vec![0.0; order.len()]; world.params.regions as usize],
            order,
        }
    }

    /// The tables of slice `number`.
    pub(super) fn turn(&mut self, world: &World, number: usize) {
        self.at = (number as f64 + 0.5) * SLICE;
        // logarithms first, NaN for the unborn: a burst adds to the exponent
        for (weight, item) in self.weights.iter_mut().zip(&world.items) {
            *weight = if item.born <= self.at {
                item.appeal - std::f64::consts::LN_2 * (self.at - item.born) / item.life
            } else {
                f64::NAN
            };
        }
        for burst in world.bursts.iter().filter(|b| b.at <= self.at && self.at - b.at < 6.0 * b.half_life_s) {
            self.weights[burst.index as usize] += burst.size * libm::exp2(-(self.at - burst.at) / burst.half_life_s);
        }
        for weight in &mut self.weights {
            *weight = if weight.is_nan() { 0.0 } else { libm::exp(*weight).max(LEAST) };
        }
        for (region, sums) in self.sums.iter_mut().enumerate() {
            let mut sum = 0.0;
            for (place, item) in sums.iter_mut().zip(&self.order) {
                sum += self.weights[*item as usize] * factor(&world.items[*item as usize], region as u32);
                *place = sum;
            }
        }
    }

    /// Whether an item is born.
    pub(super) fn lives(&self, item: u32) -> bool {
        self.weights[item as usize] > 0.0
    }

    /// An item of a category, or `None` where none lives. `x` in [0, 1) decides.
    pub(super) fn of_category(&self, region: u32, category: usize, x: f64) -> Option<u32> {
        let sums = &self.sums[region as usize];
        let (from, to) = (self.starts[category], self.starts[category + 1]);
        let total = self.category_total(region, category);
        if total <= 0.0 {
            return None;
        }
        let target = self.before(region, category) + x * total;
        // rounding may carry the target past the last living item: step back to it
        let place = (from + sums[from..to].partition_point(|s| *s <= target)).min(to - 1);
        self.order[from..=place].iter().rev().copied().find(|i| self.lives(*i))
    }

    /// An item of all. `x` in [0, 1) decides.
    pub(super) fn of_crowd(&self, region: u32, x: f64) -> u32 {
        let sums = &self.sums[region as usize];
        let place = sums.partition_point(|s| *s <= x * self.total(region)).min(sums.len() - 1);
        let alive = self.order[..=place].iter().rev().copied().find(|i| self.lives(*i));
        alive.expect("the first item lives from the start, and whatever was drawn lies at or behind a living one")
    }

    /// An item's weight for a region.
    pub(super) fn weight(&self, world: &World, region: u32, item: u32) -> f64 {
        self.weights[item as usize] * factor(&world.items[item as usize], region)
    }

    /// The weight of all items for a region.
    pub(super) fn total(&self, region: u32) -> f64 {
        self.sums[region as usize].last().copied().unwrap_or(0.0)
    }

    /// The weight of a category for a region.
    pub(super) fn category_total(&self, region: u32, category: usize) -> f64 {
        let end = self.starts[category + 1];
        if end == 0 { 0.0 } else { self.sums[region as usize][end - 1] - self.before(region, category) }
    }

    fn before(&self, region: u32, category: usize) -> f64 {
        let start = self.starts[category];
        if start == 0 { 0.0 } else { self.sums[region as usize][start - 1] }
    }
}

fn factor(item: &Item, region: u32) -> f64 {
    match item.region {
        None => 1.0,
        Some(own) if own == region => LOCAL,
        Some(_) => 1.0 / LOCAL,
    }
}
