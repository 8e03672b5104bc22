//! The best of very many items for many users at once, exactly.
//!
//! Every product is made in whole numbers first: seven bits of an item's number by eight of a user's. How far that may be from the
//! truth is known of each user and each run of items, so whatever may be among the best is kept, and made again in floats.
//!
//! ```text
//! |p.q - p'.q'| <= |p| |q - q'| + |p - p'| |q'|        p', q' as rounded
//! ```
//!
//! The facts that must stay true: the answer is that of a plain scan, score by score and tie by tie (of equals the smaller id); and the
//! sums of whole numbers are the same on every machine, whatever instructions it has for them.

use std::cmp::Reverse;

use super::factors::{DIMENSIONS, Vector};
use super::first::first;
use crate::model::ItemId;

/// Items side by side in a register of the widest kind.
const SIDE: usize = 16;
/// Panels and users of which all sums are in registers at once.
const PANELS: usize = 4;
const USERS: usize = 6;
/// Panels that are rounded alike, and looked at for all users before the next ones: they stay in the nearest caches.
const RUN: usize = 64;
/// Items of a run.
const IN_RUN: usize = RUN * SIDE;
/// Four numbers are multiplied and added up at once.
const QUADS: usize = DIMENSIONS / 4;

/// Rounded numbers of items are -63 to 63, and stand 64 higher, because one side of the product has no sign.
const ITEM_MOST: f32 = 63.0;
const LIFT: i32 = 64;
const USER_MOST: f32 = 127.0;

/// What single floats may be off, as a share of |p| |q|.
const SLACK: f32 = 1e-5;

/// Sixteen items: four numbers of the first, four of the second, …, then the next four of each.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Panel([[u8; 4 * SIDE]; QUADS]);

/// How the items of a run were rounded.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    /// What 1 stands for.
    unit: f32,
    /// The largest |q - q'| and |q'|.
    off: f32,
    long: f32,
}

/// The items, by place.
#[derive(Clone, Default)]
pub struct Shelf {
    ids: Vec<ItemId>,
    vectors: Vec<Vector>,
    panels: Vec<Panel>,
    runs: Vec<Run>,
    /// Runs that are to be rounded anew.
    stale: Vec<bool>,
}

/// Whose best are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub vector: &'a Vector,
    /// Items that are left out, in their order.
    pub without: &'a [ItemId],
}

/// A user, rounded.
struct Rounded {
    numbers: [i32; QUADS],
    unit: f32,
    long: f32,
    off: f32,
    /// What the lift of the items adds to every sum.
    lift: i32,
}

/// What may still be among the best of a user.
#[derive(Default)]
struct Found {
    /// The least and the most it may be worth, and the place.
    items: Vec<(f32, f32, u32)>,
    /// As many as are wanted are worth this at least.
    floor: f32,
    /// How many there may be before the floor is raised again.
    room: usize,
}

/// A sum that reached its user's bound: the user's place in the tile, the item's in the run, and the sum.
type Hit = (u8, u16, i32);

/// What makes the sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Sixty-four products in one instruction.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// Thirty-two in three.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Plain,
}

impl Path {
    /// Those this machine has, the fastest first.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let vnni = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
            all.extend(vnni.then_some(Self::Vnni));
            all.extend(is_x86_feature_detected!("avx2").then_some(Self::Avx2));
        }
        all.push(Self::Plain);
        all
    }

    /// The sums of four panels with six users that reach the users' bounds.
    fn tile(
        self,
        panels: &[Panel; PANELS],
        users: &[[i32; QUADS]; USERS],
        bounds: &[i32; USERS],
        first: usize,
        hits: &mut Vec<Hit>,
    ) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `best_by` lets in only what `all` yields: paths whose instructions the machine has
            Self::Vnni => unsafe { wide::vnni(panels, users, bounds, first, hits) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above
            Self::Avx2 => unsafe { wide::avx2(panels, users, bounds, first, hits) },
            Self::Plain => plain(panels, users, bounds, first, hits),
        }
    }
}

impl Shelf {
    /// How many items there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The item at a place.
    pub fn id(&self, place: u32) -> ItemId {
        self.ids[place as usize]
    }

    /// Its vector.
    pub fn vector(&self, place: u32) -> &Vector {
        &self.vectors[place as usize]
    }

    /// Every item with its vector, by place.
    pub fn iter(&self) -> impl Iterator<Item = (ItemId, &Vector)> {
        self.ids.iter().copied().zip(&self.vectors)
    }

    /// Puts one more item behind the others; yields its place.
    pub fn push(&mut self, id: ItemId, vector: Vector) -> u32 {
        self.ids.push(id);
        self.vectors.push(vector);
        self.put(self.ids.len() - 1);
        self.ids.len() as u32 - 1
    }

    /// Gives the item at a place another vector; yields the one it had.
    pub fn replace(&mut self, place: u32, vector: Vector) -> Vector {
        let before = std::mem::replace(&mut self.vectors[place as usize], vector);
        self.put(place as usize);
        before
    }

    /// Takes an item away. The last one comes to its place.
    pub fn swap_remove(&mut self, place: u32) -> Vector {
        self.ids.swap_remove(place as usize);
        let removed = self.vectors.swap_remove(place as usize);
        if (place as usize) < self.len() {
            self.put(place as usize);
        }
        removed
    }

    /// The `k` best of each, best first, with their scores.
    pub fn best(&mut self, asked: &[Asked], k: usize) -> Vec<Vec<(f32, ItemId)>> {
        let path = Path::all().swap_remove(0);
        self.best_by(path, asked, k)
    }

    /// The same, by a path of one's choice. Panics where this machine has not got it.
    pub fn best_by(&mut self, path: Path, asked: &[Asked], k: usize) -> Vec<Vec<(f32, ItemId)>> {
        assert!(Path::all().contains(&path), "this machine has no {path:?}");
        self.round();
        let users: Vec<Rounded> = asked.iter().map(|asked| Rounded::of(asked.vector)).collect();
        let none = || Found { items: Vec::new(), floor: f32::NEG_INFINITY, room: 0 };
        let mut found: Vec<Found> = users.iter().map(|_| none()).collect();
        let mut hits = Vec::new();
        for run in 0..self.runs.len() {
            let tiles = users.chunks(USERS).zip(asked.chunks(USERS)).zip(found.chunks_mut(USERS));
            for ((users, asked), found) in tiles {
                self.run(path, run, users, found, &mut hits);
                for (user, within, sum) in hits.drain(..) {
                    let (place, user) = (run * IN_RUN + usize::from(within), usize::from(user));
                    if self.ids.get(place).is_some_and(|id| asked[user].without.binary_search(id).is_err()) {
                        let (worth, off) = users[user].worth(sum, &self.runs[run]);
                        found[user].items.push((worth - off, worth + off, place as u32));
                    }
                }
                found.iter_mut().for_each(|found| found.settle(k, found.room.max(2 * k + 64)));
            }
        }
        let exact = |(asked, mut found): (&Asked, Found)| {
            found.settle(k, k);
            self.exact(asked.vector, &found, k)
        };
        asked.iter().zip(found).map(exact).collect()
    }

    /// The same one by one: what it must come to.
    pub fn plainly(&self, asked: &Asked, k: usize) -> Vec<(f32, ItemId)> {
        let others = self.iter().filter(|(id, _)| asked.without.binary_search(id).is_err());
        highest(others.map(|(id, vector)| (asked.vector.dot(vector), id)).collect(), k)
    }

    fn exact(&self, vector: &Vector, found: &Found, k: usize) -> Vec<(f32, ItemId)> {
        let score = |place: u32| (vector.dot(self.vector(place)), self.id(place));
        highest(found.items.iter().map(|(_, _, place)| score(*place)).collect(), k)
    }

    /// What reaches the bounds of some users in a run.
    fn run(&self, path: Path, run: usize, users: &[Rounded], found: &[Found], hits: &mut Vec<Hit>) {
        let (mut numbers, mut bounds) = ([[0; QUADS]; USERS], [i32::MAX; USERS]);
        for (i, (user, found)) in users.iter().zip(found).enumerate() {
            (numbers[i], bounds[i]) = (user.numbers, user.bound(found.floor, &self.runs[run]));
        }
        let panels = &self.panels[run * RUN..self.panels.len().min((run + 1) * RUN)];
        for (i, panels) in panels.as_chunks::<PANELS>().0.iter().enumerate() {
            path.tile(panels, &numbers, &bounds, i * PANELS * SIDE, hits);
        }
    }

    /// Rounds the item at a place as the others of its run, if it is no longer than they are; if it is, the run is to be rounded anew.
    fn put(&mut self, place: usize) {
        let run = place / IN_RUN;
        self.stale.resize(self.stale.len().max(run + 1), true);
        if self.stale[run] {
            return;
        }
        if largest(self.vectors[place].0.iter()) > self.runs[run].unit * ITEM_MOST {
            self.stale[run] = true;
            return;
        }
        self.make_room();
        let (off, long) = self.round_item(place, self.runs[run].unit);
        let of = &mut self.runs[run];
        (of.off, of.long) = (of.off.max(off), of.long.max(long));
    }

    fn make_room(&mut self) {
        let panels = self.len().div_ceil(SIDE * PANELS) * PANELS;
        self.panels.resize(panels, Panel([[LIFT as u8; 4 * SIDE]; QUADS]));
    }

    /// Rounds what changed.
    fn round(&mut self) {
        let runs = self.len().div_ceil(IN_RUN);
        self.stale.resize(runs, true);
        self.runs.resize(runs, Run::default());
        self.make_room();
        for run in 0..runs {
            if std::mem::take(&mut self.stale[run]) {
                self.round_run(run);
            }
        }
    }

    fn round_run(&mut self, run: usize) {
        let places = run * IN_RUN..self.len().min((run + 1) * IN_RUN);
        let unit = largest(self.vectors[places.clone()].iter().flat_map(|vector| &vector.0)) / ITEM_MOST;
        let mut of = Run { unit: if unit > 0.0 { unit } else { 1.0 }, ..Run::default() };
        for place in places {
            let (off, long) = self.round_item(place, of.unit);
            (of.off, of.long) = (of.off.max(off), of.long.max(long));
        }
        self.runs[run] = of;
    }

    /// Yields how far it is from what it was, and how long it is now.
    fn round_item(&mut self, place: usize, unit: f32) -> (f32, f32) {
        let panel = &mut self.panels[place / SIDE].0;
        let (mut off, mut long) = (0.0f32, 0.0f32);
        for (i, x) in self.vectors[place].0.iter().enumerate() {
            let rounded = nearest(x / unit, ITEM_MOST);
            panel[i / 4][place % SIDE * 4 + i % 4] = (rounded + LIFT) as u8;
            let value = rounded as f32 * unit;
            off += (x - value) * (x - value);
            long += value * value;
        }
        (off.sqrt(), long.sqrt())
    }
}

/// The `k` first: the highest scores, of equals the smaller id.
fn highest(scores: Vec<(f32, ItemId)>, k: usize) -> Vec<(f32, ItemId)> {
    first(scores, k, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)))
}

fn largest<'a>(numbers: impl Iterator<Item = &'a f32>) -> f32 {
    numbers.fold(0.0, |most, x| most.max(x.abs()))
}

fn nearest(x: f32, most: f32) -> i32 {
    let x = x.clamp(-most, most);
    (x + if x < 0.0 { -0.5 } else { 0.5 }) as i32
}

fn length(vector: impl Iterator<Item = f32>) -> f32 {
    vector.map(|x| x * x).sum::<f32>().sqrt()
}

impl Rounded {
    fn of(vector: &Vector) -> Self {
        let unit = largest(vector.0.iter()) / USER_MOST;
        let unit = if unit > 0.0 { unit } else { 1.0 };
        let rounded = vector.0.map(|x| nearest(x / unit, USER_MOST));
        let quad = |q: usize| i32::from_le_bytes(std::array::from_fn(|i| rounded[q * 4 + i] as i8 as u8));
        let off = vector.0.iter().zip(rounded).map(|(x, r)| x - r as f32 * unit);
        Self {
            numbers: std::array::from_fn(quad),
            unit,
            long: length(vector.0.iter().copied()),
            off: length(off),
            lift: LIFT * rounded.iter().sum::<i32>(),
        }
    }

    /// What a sum says an item is worth, and how far it may be from that.
    fn worth(&self, sum: i32, run: &Run) -> (f32, f32) {
        ((sum - self.lift) as f32 * (self.unit * run.unit), self.off(run))
    }

    fn off(&self, run: &Run) -> f32 {
        (self.long * run.off + self.off * run.long) * 1.001 + SLACK * self.long * (run.long + run.off)
    }

    /// Sums below it are of items worth less than `floor`.
    fn bound(&self, floor: f32, run: &Run) -> i32 {
        let least = f64::from(floor - self.off(run)) / (f64::from(self.unit) * f64::from(run.unit));
        ((least + f64::from(self.lift)).floor() as i32).saturating_sub(1)
    }
}

impl Found {
    /// Raises the floor and drops what lies below it, once there are more than `many`.
    fn settle(&mut self, k: usize, many: usize) {
        if self.items.len() <= many.max(k) || k == 0 {
            return;
        }
        let (_, (least, ..), _) = self.items.select_nth_unstable_by_key(k - 1, |(least, ..)| Reverse(order(*least)));
        let floor = *least;
        self.floor = floor;
        self.items.retain(|(_, most, _)| *most >= floor);
        self.room = 2 * self.items.len();
    }
}

/// Whole numbers that order as floats do.
fn order(x: f32) -> i32 {
    let bits = x.to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

fn plain(panels: &[Panel; PANELS], users: &[[i32; QUADS]; USERS], bounds: &[i32; USERS], first: usize, hits: &mut Vec<Hit>) {
    for (p, panel) in panels.iter().enumerate() {
        for (u, user) in users.iter().enumerate() {
            let mut sums = [0i32; SIDE];
            for (quad, four) in panel.0.iter().zip(user) {
                let four = four.to_le_bytes().map(|x| i32::from(x as i8));
                for (sum, item) in sums.iter_mut().zip(quad.as_chunks::<4>().0) {
                    *sum += (0..4).map(|i| i32::from(item[i]) * four[i]).sum::<i32>();
                }
            }
            reach(&sums, bounds[u], u, first + p * SIDE, hits);
        }
    }
}

/// Notes what of sixteen sums reaches the bound.
fn reach(sums: &[i32; SIDE], bound: i32, user: usize, first: usize, hits: &mut Vec<Hit>) {
    let reached = sums.iter().enumerate().filter(|(_, sum)| **sum >= bound);
    hits.extend(reached.map(|(i, sum)| (user as u8, (first + i) as u16, *sum)));
}

/// The same by instructions that not every machine has.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop, reason = "rows and columns of registers, by number")]
mod wide {
    use super::{Hit, PANELS, Panel, QUADS, SIDE, USERS, reach};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn vnni(
        panels: &[Panel; PANELS],
        users: &[[i32; QUADS]; USERS],
        bounds: &[i32; USERS],
        first: usize,
        hits: &mut Vec<Hit>,
    ) {
        let mut sums = [[_mm512_setzero_si512(); USERS]; PANELS];
        for quad in 0..QUADS {
            let mut items = [_mm512_setzero_si512(); PANELS];
            for (item, panel) in items.iter_mut().zip(panels) {
                // SAFETY: sixty-four bytes are there, at an address that is a multiple of sixty-four
                *item = unsafe { _mm512_load_si512(panel.0[quad].as_ptr().cast()) };
            }
            for u in 0..USERS {
                let user = _mm512_set1_epi32(users[u][quad]);
                for p in 0..PANELS {
                    sums[p][u] = _mm512_dpbusd_epi32(sums[p][u], items[p], user);
                }
            }
        }
        for u in 0..USERS {
            let bound = _mm512_set1_epi32(bounds[u]);
            for (p, sums) in sums.iter().enumerate() {
                if _mm512_cmpge_epi32_mask(sums[u], bound) != 0 {
                    let mut sixteen = [0i32; SIDE];
                    // SAFETY: there is room for sixteen
                    unsafe { _mm512_storeu_si512(sixteen.as_mut_ptr().cast(), sums[u]) };
                    reach(&sixteen, bounds[u], u, first + p * SIDE, hits);
                }
            }
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn avx2(
        panels: &[Panel; PANELS],
        users: &[[i32; QUADS]; USERS],
        bounds: &[i32; USERS],
        first: usize,
        hits: &mut Vec<Hit>,
    ) {
        let ones = _mm256_set1_epi16(1);
        for (p, panel) in panels.iter().enumerate() {
            let mut sums = [[_mm256_setzero_si256(); 2]; USERS];
            for quad in 0..QUADS {
                let at: *const __m256i = panel.0[quad].as_ptr().cast();
                // SAFETY: sixty-four bytes are there, at an address that is a multiple of sixty-four
                let items = unsafe { [_mm256_load_si256(at), _mm256_load_si256(at.add(1))] };
                for u in 0..USERS {
                    let user = _mm256_set1_epi32(users[u][quad]);
                    for half in 0..2 {
                        // two products are 127 * 127 * 2 at most: they fit
                        let pairs = _mm256_maddubs_epi16(items[half], user);
                        sums[u][half] = _mm256_add_epi32(sums[u][half], _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
            for (u, halves) in sums.iter().enumerate() {
                let below = _mm256_set1_epi32(bounds[u]);
                let reached = halves.map(|half| _mm256_movemask_epi8(_mm256_cmpgt_epi32(below, half)) != -1);
                if reached[0] || reached[1] {
                    let mut sixteen = [0i32; SIDE];
                    let to: *mut __m256i = sixteen.as_mut_ptr().cast();
                    // SAFETY: there is room for twice eight
                    unsafe {
                        _mm256_storeu_si256(to, halves[0]);
                        _mm256_storeu_si256(to.add(1), halves[1]);
                    }
                    reach(&sixteen, bounds[u], u, first + p * SIDE, hits);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector(key: u64, times: f32) -> Vector {
        Vector(Vector::drawn(key).0.map(|x| x * times))
    }

    fn check(shelf: &mut Shelf, users: &[Vector], without: &[ItemId], k: usize) {
        let asked: Vec<Asked> = users.iter().map(|vector| Asked { vector, without }).collect();
        let wanted: Vec<_> = asked.iter().map(|asked| shelf.plainly(asked, k)).collect();
        for path in Path::all() {
            assert_eq!(shelf.best_by(path, &asked, k), wanted, "{path:?}");
        }
        assert_eq!(shelf.best(&asked, k), wanted);
    }

    #[test]
    fn every_path_gives_what_a_plain_scan_gives() {
        let mut shelf = Shelf::default();
        // a few long items among many, some alike to the last bit, in ids of no order
        let item = |n: u64| vector(n % 2_500, if n.is_multiple_of(97) { 16.0 } else { 1.0 + (n % 3) as f32 });
        (0..3_000u64).for_each(|n| _ = shelf.push(ItemId(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), item(n)));
        let users: Vec<Vector> = (0..37).map(|n| vector(1_000_000 + n, 8.0)).chain([Vector::ZERO]).collect();
        check(&mut shelf, &users, &[], 100);
        let mut without: Vec<ItemId> = (0..500).map(|place| shelf.id(place * 5)).collect();
        without.sort_unstable();
        check(&mut shelf, &users, &without, 20);
        check(&mut shelf, &users, &without, 10_000);
        check(&mut Shelf::default(), &users, &[], 10);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn however_items_come_and_go(acts in prop::collection::vec((0u8..4, any::<u32>(), 0.0f32..50.0), 1..400), k in 1usize..40) {
            let mut shelf = Shelf::default();
            for (n, (act, place, times)) in acts.into_iter().enumerate() {
                let place = place % (shelf.len() as u32).max(1);
                match act {
                    0 if !shelf.is_empty() => _ = shelf.swap_remove(place),
                    1 if !shelf.is_empty() => _ = shelf.replace(place, vector(n as u64, times)),
                    _ => _ = shelf.push(ItemId(n as u64 ^ 0x5a), vector(n as u64, times)),
                }
                if n % 61 == 60 {
                    check(&mut shelf, &[vector(77, 3.0), vector(78, 0.1)], &[], k);
                }
            }
            check(&mut shelf, &[vector(79, 3.0)], &[], k);
        }
    }
}
