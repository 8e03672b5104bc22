//! The best of very many items for many users at once, exactly.
//!
//! Every product is made in whole numbers first: seven bits of an item's number by eight of a user's. How far that may be from the
//! truth is known of each user and each run of items, so whatever may be among the best is kept, and made again in floats.
//!
//! ```text
//! |p.q - p'.q'| <= |p| |q - q'| + |p - p'| |q'|        p', q' as rounded
//! ```
//!
//! How much an item must be worth to be looked at is guessed first, of one item in sixteen: a little less than what will be wanted.
//! Whoever then has fewer than are wanted above the guess is scanned for again without one, so a guess costs time at worst.
//!
//! The facts that must stay true: the answer is that of a plain scan, score by score and tie by tie (of equals the smaller id); and the
//! sums of whole numbers are the same on every machine, whatever instructions it has for them.

use std::cmp::Reverse;
use std::ops::Range;

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
/// Tiles of a run: four panels each.
const TILES: usize = RUN / PANELS;
/// A guess is made of one item in so many: those of one tile of every run, of the next tile in each next run.
const SPARSE: usize = TILES;
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

/// The rounded numbers of users whose sums are made together, and the least sum of each that is noted.
type Numbers = [[i32; QUADS]; USERS];
type Bounds = [i32; USERS];

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
struct Found {
    /// What it is worth, and the place.
    items: Vec<(f32, u32)>,
    /// What is worth less is not looked for.
    floor: f32,
    /// How many there may be before the floor is raised again.
    room: usize,
}

/// Sums that reached their users' bounds: whose they are, and of which item of the run. There is always room for sixteen more.
struct Hits {
    count: usize,
    at: Vec<u32>,
    sums: Vec<i32>,
}

impl Hits {
    /// Room for all sums of a run, and for what is written past the last one.
    fn new() -> Self {
        let room = USERS * IN_RUN + SIDE;
        Self { count: 0, at: vec![0; room], sums: vec![0; room] }
    }

    /// The user's place in the tile and the item's in the run, as one number.
    fn at(user: usize, item: usize) -> u32 {
        (user << 16 | item) as u32
    }

    /// Notes those of sixteen sums of which `which` has a bit.
    fn note(&mut self, which: u32, sums: &[i32; SIDE], user: usize, first: usize) {
        let mut left = which;
        while left != 0 {
            let lane = left.trailing_zeros() as usize;
            (self.at[self.count], self.sums[self.count]) = (Self::at(user, first + lane), sums[lane]);
            self.count += 1;
            left &= left - 1;
        }
    }

    /// User, item and sum of each.
    fn iter(&self) -> impl Iterator<Item = (usize, usize, i32)> {
        let split = |(at, sum): (&u32, &i32)| ((at >> 16) as usize, (at & 0xffff) as usize, *sum);
        self.at[..self.count].iter().zip(&self.sums[..self.count]).map(split)
    }
}

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
            let vnni =
                [is_x86_feature_detected!("avx512f"), is_x86_feature_detected!("avx512vnni"), is_x86_feature_detected!("popcnt")];
            let vnni = vnni.iter().all(|has| *has);
            all.extend(vnni.then_some(Self::Vnni));
            all.extend(is_x86_feature_detected!("avx2").then_some(Self::Avx2));
        }
        all.push(Self::Plain);
        all
    }

    /// Notes the sums of panels, four at a time, with six users that reach the users' bounds.
    fn tiles(self, tiles: &[[Panel; PANELS]], users: &Numbers, bounds: &Bounds, first: usize, hits: &mut Hits) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `best_by` lets in only what `all` yields: paths whose instructions the machine has
            Self::Vnni => unsafe { wide::vnni(tiles, users, bounds, first, hits) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above
            Self::Avx2 => unsafe { wide::avx2(tiles, users, bounds, first, hits) },
            Self::Plain => plain(tiles, users, bounds, first, hits),
        }
    }
}

impl Path {
    /// [`Vector::dot`], its sixteen lanes at once.
    fn dot(self, one: &Vector, other: &Vector) -> f32 {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as for `tiles`
            Self::Vnni => unsafe { wide::dot_16(one, other) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above
            Self::Avx2 => unsafe { wide::dot_8(one, other) },
            Self::Plain => one.dot(other),
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
        if k == 0 {
            return vec![Vec::new(); asked.len()];
        }
        self.round();
        let guesses = self.guesses(path, asked, k);
        let mut best = self.above(path, asked, k, &guesses);
        let too_high = |i: &usize| best[*i].get(k - 1).is_none_or(|(score, _)| *score < guesses[*i]);
        let again: Vec<usize> = (0..asked.len()).filter(|i| guesses[*i] > f32::NEG_INFINITY && too_high(i)).collect();
        let of: Vec<Asked> = again.iter().map(|i| asked[*i]).collect();
        let anew = self.above(path, &of, k, &vec![f32::NEG_INFINITY; of.len()]);
        again.into_iter().zip(anew).for_each(|(i, found)| best[i] = found);
        best
    }

    /// What some two or three times `k` items are worth to each, as a few of all items say. Where items stand as if shuffled, one guess in
    /// thousands is more than `k` are worth.
    fn guesses(&self, path: Path, asked: &[Asked], k: usize) -> Vec<f32> {
        let expected = k as f32 / SPARSE as f32;
        let rank = (expected + 3.5 * expected.sqrt() + 1.0) as usize;
        if self.len() < 2 * rank * SPARSE {
            return vec![f32::NEG_INFINITY; asked.len()];
        }
        let sample = |run: usize| run % TILES..run % TILES + 1;
        let found = self.sift(path, asked, rank, &vec![f32::NEG_INFINITY; asked.len()], sample, false);
        found.into_iter().map(|mut found| if found.settle(rank, 0) { found.floor } else { f32::NEG_INFINITY }).collect()
    }

    /// The `k` best of each, as far as they are worth more than the user's floor.
    fn above(&self, path: Path, asked: &[Asked], k: usize, floors: &[f32]) -> Vec<Vec<(f32, ItemId)>> {
        let found = self.sift(path, asked, k, floors, |_| 0..TILES, true);
        let ids = |found: Found| found.items.into_iter().map(|(score, place)| (score, self.id(place))).collect();
        found.into_iter().map(|found| highest(ids(found), k)).collect()
    }

    /// The `k` best of each and some more, as far as they are worth their floors, of the tiles that `which` says of each run;
    /// by what they are worth, or else by what the sums say of it.
    fn sift(
        &self,
        path: Path,
        asked: &[Asked],
        k: usize,
        floors: &[f32],
        which: impl Fn(usize) -> Range<usize>,
        exactly: bool,
    ) -> Vec<Found> {
        let users: Vec<Rounded> = asked.iter().map(|asked| Rounded::of(asked.vector)).collect();
        let numbers: Vec<Numbers> = users.chunks(USERS).map(side_by_side).collect();
        let mut found: Vec<Found> = floors.iter().map(|floor| Found::above(*floor, k)).collect();
        // vectors lie apart in memory: those of hits are asked for, and looked at after the sums of the next six users
        let (mut hits, mut before, mut last) = (Hits::new(), Hits::new(), (0, 0));
        for (run, of) in self.runs.iter().enumerate() {
            let panels = &self.panels[run * RUN..self.panels.len().min((run + 1) * RUN)];
            let (tiles, which) = (panels.as_chunks::<PANELS>().0, which(run));
            let first = which.start * PANELS * SIDE;
            let tiles = tiles.get(which.start..which.end.min(tiles.len())).unwrap_or_default();
            if tiles.is_empty() {
                continue;
            }
            for (group, numbers) in numbers.iter().enumerate() {
                let from = group * USERS;
                path.tiles(tiles, numbers, &bounds(&users[from..], &found[from..], of), first, &mut hits);
                if exactly {
                    hits.iter().for_each(|(_, item, _)| self.fetch((run * IN_RUN + item).min(self.len() - 1)));
                }
                let (run_before, from_before) = std::mem::replace(&mut last, (run, from));
                std::mem::swap(&mut hits, &mut before);
                self.look(path, run_before, from_before, &mut hits, asked, &users, &mut found, exactly);
                settle(&mut found[from_before..], k);
            }
        }
        self.look(path, last.0, last.1, &mut before, asked, &users, &mut found, exactly);
        found
    }

    /// What hits in a run are worth to users from `from` on.
    #[allow(clippy::too_many_arguments, reason = "what a scan goes through, each once")]
    fn look(
        &self,
        path: Path,
        run: usize,
        from: usize,
        hits: &mut Hits,
        asked: &[Asked],
        users: &[Rounded],
        found: &mut [Found],
        exactly: bool,
    ) {
        for (user, item, sum) in hits.iter() {
            let (user, place) = (from + user, run * IN_RUN + item);
            if self.is_asked_for(place, &asked[user]) {
                let exact = || path.dot(asked[user].vector, &self.vectors[place]);
                let worth = if exactly { exact() } else { users[user].worth(sum, &self.runs[run]) };
                found[user].take(worth, place as u32);
            }
        }
        hits.count = 0;
    }

    /// Whether there is an item at a place, and it is not left out.
    fn is_asked_for(&self, place: usize, asked: &Asked) -> bool {
        place < self.len() && (asked.without.is_empty() || asked.without.binary_search(&self.ids[place]).is_err())
    }

    /// The same one by one: what it must come to.
    pub fn plainly(&self, asked: &Asked, k: usize) -> Vec<(f32, ItemId)> {
        let others = self.iter().filter(|(id, _)| asked.without.binary_search(id).is_err());
        highest(others.map(|(id, vector)| (asked.vector.dot(vector), id)).collect(), k)
    }

    /// Asks for the vector at a place, without waiting for it.
    fn fetch(&self, place: usize) {
        #[cfg(target_arch = "x86_64")]
        for line in self.vectors[place].0.as_chunks::<SIDE>().0 {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: every x86-64 has it, and it changes nothing but caches
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = place;
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

    /// What a sum says an item is worth.
    fn worth(&self, sum: i32, run: &Run) -> f32 {
        (sum - self.lift) as f32 * (self.unit * run.unit)
    }

    /// How far what a sum says an item is worth may be from what it is.
    fn off(&self, run: &Run) -> f32 {
        (self.long * run.off + self.off * run.long) * 1.001 + SLACK * self.long * (run.long + run.off)
    }

    /// Sums below it are of items worth less than `floor`.
    fn bound(&self, floor: f32, run: &Run) -> i32 {
        let least = f64::from(floor - self.off(run)) / (f64::from(self.unit) * f64::from(run.unit));
        ((least + f64::from(self.lift)).floor() as i32).saturating_sub(1)
    }
}

/// The numbers of up to six users.
fn side_by_side(users: &[Rounded]) -> Numbers {
    std::array::from_fn(|i| users.get(i).map_or([0; QUADS], |user| user.numbers))
}

/// Drops what is no more among the best of the first six.
fn settle(found: &mut [Found], k: usize) {
    found.iter_mut().take(USERS).for_each(|found| _ = found.settle(k, found.room));
}

/// The bounds of up to six users in a run.
fn bounds(users: &[Rounded], found: &[Found], run: &Run) -> Bounds {
    let mut bounds = [i32::MAX; USERS];
    bounds.iter_mut().zip(users).zip(found).for_each(|((bound, user), found)| *bound = user.bound(found.floor, run));
    bounds
}

impl Found {
    /// Nothing yet.
    fn above(floor: f32, k: usize) -> Self {
        Self { items: Vec::new(), floor, room: 2 * k + 64 }
    }

    fn take(&mut self, worth: f32, place: u32) {
        if worth >= self.floor {
            self.items.push((worth, place));
        }
    }

    /// Raises the floor to what `k` are worth and drops what lies below it, once there are more than `many`; says whether there were.
    fn settle(&mut self, k: usize, many: usize) -> bool {
        if self.items.len() < k || self.items.len() <= many {
            return false;
        }
        let (_, (floor, _), _) = self.items.select_nth_unstable_by_key(k - 1, |(worth, _)| Reverse(order(*worth)));
        let floor = *floor;
        self.floor = floor;
        self.items.retain(|(worth, _)| *worth >= floor);
        self.room = self.room.max(2 * self.items.len());
        true
    }
}

/// Whole numbers that order as floats do.
fn order(x: f32) -> i32 {
    let bits = x.to_bits() as i32;
    bits ^ ((bits >> 31) as u32 >> 1) as i32
}

fn plain(tiles: &[[Panel; PANELS]], users: &Numbers, bounds: &Bounds, first: usize, hits: &mut Hits) {
    for (p, panel) in tiles.as_flattened().iter().enumerate() {
        for (u, user) in users.iter().enumerate() {
            let mut sums = [0i32; SIDE];
            for (quad, four) in panel.0.iter().zip(user) {
                let four = four.to_le_bytes().map(|x| i32::from(x as i8));
                for (sum, item) in sums.iter_mut().zip(quad.as_chunks::<4>().0) {
                    *sum += (0..4).map(|i| i32::from(item[i]) * four[i]).sum::<i32>();
                }
            }
            let which = sums.iter().enumerate().fold(0, |which, (lane, sum)| which | u32::from(*sum >= bounds[u]) << lane);
            hits.note(which, &sums, u, first + p * SIDE);
        }
    }
}

/// The same by instructions that not every machine has.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::needless_range_loop, reason = "rows and columns of registers, by number")]
mod wide {
    use super::{Bounds, Hits, Numbers, PANELS, Panel, QUADS, SIDE, USERS, Vector};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f")]
    pub fn dot_16(one: &Vector, other: &Vector) -> f32 {
        let mut sums = _mm512_setzero_ps();
        for (a, b) in one.0.as_chunks::<SIDE>().0.iter().zip(other.0.as_chunks::<SIDE>().0) {
            // SAFETY: there are sixteen in each
            let (a, b) = unsafe { (_mm512_loadu_ps(a.as_ptr()), _mm512_loadu_ps(b.as_ptr())) };
            sums = _mm512_add_ps(sums, _mm512_mul_ps(a, b));
        }
        let mut lanes = [0.0f32; SIDE];
        // SAFETY: there is room for sixteen
        unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), sums) };
        lanes.iter().sum()
    }

    #[target_feature(enable = "avx2")]
    pub fn dot_8(one: &Vector, other: &Vector) -> f32 {
        let mut sums = [_mm256_setzero_ps(); 2];
        for (a, b) in one.0.as_chunks::<SIDE>().0.iter().zip(other.0.as_chunks::<SIDE>().0) {
            for half in 0..2 {
                // SAFETY: there are twice eight in each
                let (a, b) = unsafe { (_mm256_loadu_ps(a[half * 8..].as_ptr()), _mm256_loadu_ps(b[half * 8..].as_ptr())) };
                sums[half] = _mm256_add_ps(sums[half], _mm256_mul_ps(a, b));
            }
        }
        let mut lanes = [0.0f32; SIDE];
        // SAFETY: there is room for twice eight
        unsafe {
            _mm256_storeu_ps(lanes.as_mut_ptr(), sums[0]);
            _mm256_storeu_ps(lanes[8..].as_mut_ptr(), sums[1]);
        }
        lanes.iter().sum()
    }

    /// Twenty-four registers of sums; whether any of a user's sixty-four items reaches the bound is one comparison.
    #[target_feature(enable = "avx512f,avx512vnni,popcnt")]
    pub fn vnni(tiles: &[[Panel; PANELS]], users: &Numbers, bounds: &Bounds, first: usize, hits: &mut Hits) {
        for (t, tile) in tiles.iter().enumerate() {
            let mut sums = [[_mm512_setzero_si512(); PANELS]; USERS];
            let next: *const Panel = tile.as_ptr().wrapping_add(PANELS);
            for quad in 0..QUADS {
                // four lines of the next tile: that changes nothing but caches, wherever it points to
                (0..PANELS)
                    .for_each(|p| _mm_prefetch::<_MM_HINT_T0>(next.cast::<i8>().wrapping_add((quad * PANELS + p) * 4 * SIDE)));
                // SAFETY: sixty-four bytes are there, at an address that is a multiple of sixty-four
                let items: [__m512i; PANELS] =
                    std::array::from_fn(|p| unsafe { _mm512_load_si512(tile[p].0[quad].as_ptr().cast()) });
                for u in 0..USERS {
                    let user = _mm512_set1_epi32(users[u][quad]);
                    for p in 0..PANELS {
                        sums[u][p] = _mm512_dpbusd_epi32(sums[u][p], items[p], user);
                    }
                }
            }
            let first = first + t * PANELS * SIDE;
            // written out, so that sums stay in their registers
            macro_rules! of_users {
                ($($u:literal)*) => { $(
                    let [a, b, c, d] = sums[$u];
                    let most = _mm512_max_epi32(_mm512_max_epi32(a, b), _mm512_max_epi32(c, d));
                    if _mm512_cmpge_epi32_mask(most, _mm512_set1_epi32(bounds[$u])) != 0 {
                        note([a, b, c, d], bounds[$u], Hits::at($u, first), hits);
                    }
                )* };
            }
            of_users!(0 1 2 3 4 5);
        }
    }

    const _: () = assert!(USERS == 6);

    /// Notes what of sixty-four sums reaches the bound, without asking of each.
    #[inline]
    #[target_feature(enable = "avx512f,popcnt")]
    fn note(sums: [__m512i; PANELS], bound: i32, at: u32, hits: &mut Hits) {
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        for (p, sums) in sums.into_iter().enumerate() {
            let which = _mm512_cmpge_epi32_mask(sums, _mm512_set1_epi32(bound));
            let places = _mm512_add_epi32(lanes, _mm512_set1_epi32(at as i32 + (p * SIDE) as i32));
            let (at, of) = (&mut hits.at[hits.count..][..SIDE], &mut hits.sums[hits.count..][..SIDE]);
            // SAFETY: there is room for sixteen in each
            unsafe {
                _mm512_storeu_si512(at.as_mut_ptr().cast(), _mm512_maskz_compress_epi32(which, places));
                _mm512_storeu_si512(of.as_mut_ptr().cast(), _mm512_maskz_compress_epi32(which, sums));
            }
            hits.count += which.count_ones() as usize;
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn avx2(tiles: &[[Panel; PANELS]], users: &Numbers, bounds: &Bounds, first: usize, hits: &mut Hits) {
        let ones = _mm256_set1_epi16(1);
        for (p, panel) in tiles.as_flattened().iter().enumerate() {
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
                let bound = _mm256_set1_epi32(bounds[u]);
                let below = |sums| _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(bound, sums))) as u32;
                if below(_mm256_max_epi32(halves[0], halves[1])) != 0xff {
                    let mut sixteen = [0i32; SIDE];
                    let to: *mut __m256i = sixteen.as_mut_ptr().cast();
                    // SAFETY: there is room for twice eight
                    unsafe {
                        _mm256_storeu_si256(to, halves[0]);
                        _mm256_storeu_si256(to.add(1), halves[1]);
                    }
                    let which = !(below(halves[0]) | below(halves[1]) << 8) & 0xffff;
                    hits.note(which, &sixteen, u, first + p * SIDE);
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

    /// Where the best items stand just where a guess is made, it is more than others are worth, and must not hide them.
    #[test]
    fn a_guess_that_is_too_high_hides_nothing() {
        let guessed_of = |n: u64| n as usize / IN_RUN % TILES == n as usize % IN_RUN / (PANELS * SIDE);
        let mut shelf = Shelf::default();
        (0..5_000u64).for_each(|n| _ = shelf.push(ItemId(n ^ 0x55), vector(n, if guessed_of(n) { 12.0 } else { 1.0 })));
        let users: Vec<Vector> = (0..7).map(|n| vector(1_000_000 + n, 8.0)).collect();
        let asked: Vec<Asked> = users.iter().map(|vector| Asked { vector, without: &[] }).collect();
        shelf.round();
        let guesses = shelf.guesses(Path::Plain, &asked, 150);
        let worth_less = |(asked, guess): (&Asked, &f32)| shelf.plainly(asked, 150)[149].0 < *guess;
        assert!(asked.iter().zip(&guesses).all(worth_less), "the guesses are not too high: {guesses:?}");
        check(&mut shelf, &users, &[], 150);
    }

    /// Sum by sum, not only in what comes of them.
    #[test]
    fn every_path_makes_the_same_sums_and_products() {
        let mut shelf = Shelf::default();
        (0..3_000u64).for_each(|n| _ = shelf.push(ItemId(n), vector(n, 1.0 + (n % 5) as f32)));
        shelf.round();
        let users: Vec<Rounded> = (0..USERS as u64).map(|n| Rounded::of(&vector(7_000 + n, 3.0))).collect();
        let tiles = shelf.panels[..RUN].as_chunks::<PANELS>().0;
        let noted = |path: Path, bounds: &Bounds| {
            let mut hits = Hits::new();
            path.tiles(tiles, &side_by_side(&users), bounds, 0, &mut hits);
            let mut noted: Vec<_> = hits.iter().collect();
            noted.sort_unstable();
            noted
        };
        let bounds: Bounds = std::array::from_fn(|u| users[u].lift + [i32::MIN / 2, 0, 20_000, 40_000, -20_000, i32::MAX / 2][u]);
        let wanted = noted(Path::Plain, &bounds);
        let of = |user: usize| wanted.iter().filter(|(u, ..)| *u == user).count();
        assert!(of(0) == IN_RUN && (1..5).all(|user| (1..IN_RUN).contains(&of(user))) && of(5) == 0);
        for path in Path::all() {
            assert_eq!(noted(path, &bounds), wanted, "{path:?}");
            for n in 0..500 {
                let (one, other) = (vector(n, 9.0), vector(n + 1_000, 0.3));
                assert_eq!(path.dot(&one, &other).to_bits(), one.dot(&other).to_bits(), "{path:?}");
            }
        }
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
