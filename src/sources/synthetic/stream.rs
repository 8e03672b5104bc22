//! The stream: users come, an item is drawn, something becomes of it. Records come in the order of their time, except those that
//! are late on purpose; where a broken record or a duplicate is due, it takes the place of an ordinary one.
//!
//! What becomes of a drawn item, with `a` in [0, 1] the user's taste for its category and `w` the watch ratio
//! `clamp(x * (0.4 + a) + 0.3 a, 0.02, 1.5)` for a uniform `x`, each an event a millisecond after the other:
//!
//! | kind | chance | value |
//! |---|---|---|
//! | impression of something else, from the crowd | 0.10 | |
//! | impression of it | 0.25 | |
//! | click | 0.10 + 0.20 a | |
//! | view | always | seconds watched: `w` times the item's length |
//! | dwell | 0.10 | seconds, the same |
//! | completion | where w >= 0.6, most of it | `w` |
//! | skip | 0.05 + 0.15 (1 - a), where w < 0.15 | |
//! | like | 0.04 + 0.20 a | |
//! | hide, where not liked | 0.003 + 0.01 (1 - a) | |
//! | share | 0.01 + 0.04 a | |
//! | comment | 0.01 + 0.03 a | |
//! | bookmark | 0.01 + 0.04 a | |
//! | follow | 0.005 + 0.02 a | |

use serde::Serialize;

use super::Stream;
use super::oracle::{Oracle, OracleScores};
use super::slice::Slice;
use super::{DAY, SLICE, TASTE_ALPHA, World, flaws};
use crate::codec::json::{WireEvent, write};
use crate::model::Kind;
use crate::model::rng::Rng;
use crate::model::time::{HOUR, Millis};

/// How far back a duplicate may repeat, in records.
const RECENT: usize = 64;
/// Records a play becomes, on average: what sizes the oracle's sample.
const ROWS_PER_PLAY: f64 = 1.8;

/// One record before it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What its event id is made of; a duplicate has that of the record it repeats.
    pub number: u64,
    pub user: u32,
    pub item: u32,
    pub kind: Kind,
    pub at: Millis,
    pub value_milli: Option<i32>,
    /// In which of the ways of [`flaws`] it is broken.
    pub flaw: Option<u8>,
}

/// How many records of each sort there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub all: u64,
    pub malformed: u64,
    pub duplicates: u64,
    pub late: u64,
}

/// The records of a world, one by one.
pub struct Events<'w> {
    world: &'w World,
    tables: Slice,
    /// The slice the tables are of, and the records up to its end.
    slice: usize,
    until: u64,
    /// Records before this slice.
    since: u64,
    /// Weight of all slices so far, and of all there are: what shares the records out over the day.
    rhythm: (f64, f64),
    /// Users by birth, and the running sum of their activity.
    by_birth: Vec<u32>,
    activity: Vec<f64>,
    /// Users who are there in this slice.
    born: usize,
    /// Per user, all categories.
    taste: Vec<f32>,
    previous: Vec<Option<u32>>,
    rng: Rng,
    drift: Rng,
    /// Which record is repeated, and how late a late one is: apart, so that they change nothing else.
    mishap: Rng,
    oracle: Option<Oracle>,
    waiting: Vec<Row>,
    recent: Vec<Row>,
    last_at: Millis,
    numbered: u64,
    counts: Counts,
    /// Whose taste broke, at each break so far.
    changed: Vec<Vec<u32>>,
}

impl<'w> Events<'w> {
    pub(super) fn new(world: &'w World) -> Self {
        let params = &world.params;
        let mut by_birth: Vec<u32> = (0..params.users).collect();
        by_birth.sort_by(|a, b| world.users[*a as usize].born.total_cmp(&world.users[*b as usize].born));
        let running = |sum: &mut f64, user: &u32| {
            *sum += world.users[*user as usize].activity;
            Some(*sum)
        };
        let mut events = Self {
            tables: Slice::new(world),
            slice: 0,
            until: 0,
            since: 0,
            rhythm: (0.0, (0..params.slices()).map(rhythm).sum()),
            activity: by_birth.iter().scan(0.0, running).collect(),
            by_birth,
            born: 0,
            taste: (0..params.users).flat_map(|u| params.taste(u)).collect(),
            previous: vec![None; params.users as usize],
            rng: Stream::Play.of(params.seed, 0),
            drift: Stream::Drift.of(params.seed, 0),
            mishap: Stream::Mishap.of(params.seed, 0),
            oracle: (params.oracle > 0).then(|| Oracle::new(params, params.events as f64 / ROWS_PER_PLAY)),
            waiting: Vec::new(),
            recent: Vec::with_capacity(RECENT),
            last_at: Millis::MIN,
            numbered: 0,
            counts: Counts::default(),
            changed: Vec::new(),
            world,
        };
        events.enter(0);
        events
    }

    /// What was drawn so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whose taste broke, at each break so far; ascending.
    pub fn changed(&self) -> &[Vec<u32>] {
        &self.changed
    }

    /// What the best possible ranking scored on the sample so far.
    pub fn oracle(&self) -> Option<OracleScores> {
        self.oracle.as_ref().and_then(Oracle::scores)
    }

    /// Turns to a slice: tastes drift or break, users and items are born.
    fn enter(&mut self, slice: usize) {
        let world = self.world;
        self.slice = slice;
        self.since = self.until;
        self.rhythm.0 += rhythm(slice);
        let last = slice + 1 >= world.params.slices();
        let share = if last { 1.0 } else { self.rhythm.0 / self.rhythm.1 };
        self.until = (world.params.events as f64 * share).floor() as u64;
        let middle = (slice as f64 + 0.5) * SLICE;
        self.born = self.by_birth.partition_point(|u| world.users[*u as usize].born <= middle);
        if slice > 0 {
            self.drift(slice);
        }
        if self.until > self.since {
            self.tables.turn(world, slice);
        }
    }

    fn drift(&mut self, slice: usize) {
        let params = &self.world.params;
        if params.break_slices().contains(&slice) {
            let changed = self.draw_tastes(0.25, 1.0);
            self.changed.push(changed);
        }
        self.draw_tastes((SLICE / (params.drift_h * 3600.0)).min(1.0), 0.2);
    }

    /// Each user with chance `chance` takes `share` of a taste drawn anew. Skips from one to the next without asking the others. Yields
    /// who they were.
    fn draw_tastes(&mut self, chance: f64, share: f32) -> Vec<u32> {
        let mut drawn = Vec::new();
        let categories = self.world.params.categories as usize;
        let mut fresh = vec![0.0; categories];
        let rate = -libm::log1p(-chance.min(1.0 - 1e-12));
        let mut user = (self.drift.exponential() / rate) as usize;
        while user < self.previous.len() {
            self.drift.dirichlet(TASTE_ALPHA, &mut fresh);
            let taste = &mut self.taste[user * categories..][..categories];
            taste.iter_mut().zip(&fresh).for_each(|(old, new)| *old += share * (new - *old));
            drawn.push(user as u32);
            user = user.saturating_add(1 + (self.drift.exponential() / rate) as usize);
        }
        drawn
    }

    /// A user acts: the records of it wait, last first.
    fn play(&mut self) {
        let at = self.moment();
        let user = self.draw_user();
        let companions = self.companions(user);
        let item = self.draw_item(user, &companions);
        let categories = self.world.params.categories as usize;
        let tastes = &self.taste[user as usize * categories..][..categories];
        if let Some(oracle) = &mut self.oracle {
            oracle.drawn(self.world, &self.tables, tastes, &companions, user, item);
        }
        let taste = f64::from(tastes[self.world.items[item as usize].category as usize]);
        self.previous[user as usize] = Some(item);
        self.follow_ups(at, user, item, taste);
        self.waiting.reverse();
    }

    /// The slice is cut evenly into its records, and each falls somewhere in its part.
    fn moment(&mut self) -> Millis {
        let (done, all) = (self.counts.all - self.since, self.until - self.since);
        let part = (done as f64 + self.rng.unit()) / all as f64;
        let end = self.world.params.span();
        self.world.params.at(((self.slice as f64 + part) * SLICE).min(end))
    }

    fn draw_user(&mut self) -> u32 {
        let all = self.activity[self.born - 1];
        let target = self.rng.unit() * all;
        let place = self.activity[..self.born].partition_point(|sum| *sum <= target);
        self.by_birth[place.min(self.born - 1)]
    }

    fn companions(&self, user: u32) -> Companions {
        let mut alive = Companions::default();
        if let Some(previous) = self.previous[user as usize] {
            let planted = self.world.items[previous as usize].companions;
            planted.iter().filter(|c| self.tables.lives(**c)).for_each(|c| alive.push(*c));
        }
        alive
    }

    fn draw_item(&mut self, user: u32, companions: &Companions) -> u32 {
        let (kap, lam) = (self.world.params.kap, self.world.params.lam);
        let (source, x) = (self.rng.unit(), self.rng.unit());
        let region = self.world.users[user as usize].region;
        if source < kap && !companions.is_empty() {
            return companions[(x * companions.len() as f64) as usize];
        }
        if (kap..kap + lam).contains(&source) {
            return self.tables.of_crowd(region, x);
        }
        let category = self.draw_category(user);
        self.tables.of_category(region, category, x).unwrap_or_else(|| self.tables.of_crowd(region, x))
    }

    fn draw_category(&mut self, user: u32) -> usize {
        let categories = self.world.params.categories as usize;
        let tastes = &self.taste[user as usize * categories..][..categories];
        let mut left = self.rng.unit() as f32;
        for (category, share) in tastes.iter().enumerate() {
            left -= share;
            if left < 0.0 {
                return category;
            }
        }
        categories - 1
    }

    fn follow_ups(&mut self, at: Millis, user: u32, item: u32, a: f64) {
        let ratio = (self.rng.unit() * (0.4 + a) + 0.3 * a).clamp(0.02, 1.5);
        let seconds = (ratio * self.world.items[item as usize].seconds * 1000.0) as i32;
        let decoy = self.chance(0.10).then(|| {
            let (region, x) = (self.world.users[user as usize].region, self.rng.unit());
            self.tables.of_crowd(region, x)
        });
        let mut next = at.max(self.last_at);
        let mut push = |events: &mut Self, item, kind, value_milli| {
            let number = events.numbered;
            events.numbered += 1;
            events.last_at = next;
            events.waiting.push(Row { number, user, item, kind, at: next, value_milli, flaw: None });
            next += 1;
        };
        if let Some(decoy) = decoy {
            push(self, decoy, Kind::Impression, None);
        }
        if self.chance(0.25) {
            push(self, item, Kind::Impression, None);
        }
        if self.chance(0.10 + 0.20 * a) {
            push(self, item, Kind::Click, None);
        }
        push(self, item, Kind::View, Some(seconds));
        if self.chance(0.10) {
            push(self, item, Kind::Dwell, Some(seconds));
        }
        if ratio >= 0.6 {
            push(self, item, Kind::Completion, Some((ratio * 1000.0) as i32));
        }
        if ratio < 0.15 && self.chance(0.05 + 0.15 * (1.0 - a)) {
            push(self, item, Kind::Skip, None);
        }
        let opinion = self.rng.unit();
        if opinion < 0.04 + 0.20 * a {
            push(self, item, Kind::Like, None);
        } else if opinion > 1.0 - (0.003 + 0.01 * (1.0 - a)) {
            push(self, item, Kind::Hide, None);
        }
        for (kind, chance) in [
            (Kind::Share, 0.01 + 0.04 * a),
            (Kind::Comment, 0.01 + 0.03 * a),
            (Kind::Bookmark, 0.01 + 0.04 * a),
            (Kind::Follow, 0.005 + 0.02 * a),
        ] {
            if self.chance(chance) {
                push(self, item, kind, None);
            }
        }
    }

    fn chance(&mut self, chance: f64) -> bool {
        self.rng.unit() < chance
    }

    /// The next record as it is meant; it stays.
    fn peek(&mut self) -> Row {
        if self.waiting.is_empty() {
            self.play();
        }
        *self.waiting.last().expect("a play has at least its view")
    }

    /// The next record as it is sent: broken, repeated, late or ordinary, whichever is due.
    fn draw(&mut self) -> Row {
        let params = &self.world.params;
        // half a step early, so that what was put off by another mishap is made good before the end
        let due = |share: f64, done: u64| (self.counts.all + 1) as f64 * share + 0.5 >= (done + 1) as f64;
        let (malformed, duplicate, late) = (
            due(params.malformed, self.counts.malformed),
            due(params.duplicates, self.counts.duplicates) && !self.recent.is_empty(),
            due(params.late, self.counts.late),
        );
        if malformed {
            let flaw = (self.counts.malformed % flaws::FLAWS.len() as u64) as u8;
            self.counts.malformed += 1;
            return Row { flaw: Some(flaw), ..self.peek() };
        }
        if duplicate {
            self.counts.duplicates += 1;
            return self.recent[self.mishap.below(self.recent.len() as u32) as usize];
        }
        let mut row = self.peek();
        self.waiting.pop();
        if late {
            self.counts.late += 1;
            row.at -= 25 * HOUR + i64::from(self.mishap.below(47 * HOUR as u32));
        }
        self.remember(row);
        row
    }

    fn remember(&mut self, row: Row) {
        if self.recent.len() < RECENT {
            self.recent.push(row);
        } else {
            self.recent[(row.number % RECENT as u64) as usize] = row;
        }
    }
}

impl Iterator for Events<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        if self.counts.all >= self.world.params.events {
            return None;
        }
        while self.counts.all >= self.until {
            self.enter(self.slice + 1);
        }
        let row = self.draw();
        self.counts.all += 1;
        Some(row)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.world.params.events - self.counts.all) as usize;
        (left, Some(left))
    }
}

/// The companions of a user's previous item that live.
pub(super) type Companions = smallvec::SmallVec<[u32; super::COMPANIONS]>;

impl World {
    /// A row as an event on the wire; a broken row as it was before.
    pub fn wire(&self, row: &Row) -> WireEvent<'_> {
        WireEvent {
            event_id: Some(format!("{:x}-{:x}", self.params.seed, row.number).into()),
            kind: row.kind.name(),
            user_id: self.user_name(row.user).into(),
            item_id: self.item_name(row.item).into(),
            ts: row.at,
            value: row.value_milli.map(|v| f64::from(v) / 1000.0),
            surface: Some("home".into()),
            ..Default::default()
        }
    }

    /// Appends the payload of a row, broken if it is to be; without a line end, and with none inside. Its key is the user's name.
    pub fn write(&self, row: &Row, into: &mut Vec<u8>) {
        match row.flaw {
            None => write(&self.wire(row), into),
            Some(flaw) => into.extend(flaws::broken(flaw, &self.wire(row))),
        }
    }
}

/// How busy a slice is: the day's rhythm, 1 on average.
fn rhythm(slice: usize) -> f64 {
    let day = (slice as f64 + 0.5) * SLICE / DAY;
    1.0 + 0.6 * libm::sin(std::f64::consts::TAU * (day - 0.3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::synthetic::{BREAKS, Params};

    /// At a break a quarter of the users take a taste that has nothing of their old one; the others keep theirs.
    #[test]
    fn who_changed_is_who_has_another_taste() {
        let params = Params { drift_h: 1e9, ..Params::sized(20_000, 400, 60) };
        let categories = params.categories as usize;
        let world = World::new(params).expect("sizes that make a world");
        let mut events = world.events();
        for broken in 0..BREAKS.len() {
            let mut before = events.taste.clone();
            while events.changed().len() == broken {
                before.copy_from_slice(&events.taste);
                events.next().expect("there is a break to come");
            }
            let tastes = before.chunks(categories).zip(events.taste.chunks(categories));
            let other: Vec<u32> = tastes.enumerate().filter(|(_, (a, b))| a != b).map(|(user, _)| user as u32).collect();
            assert_eq!(events.changed()[broken], other);
            assert!((60..140).contains(&other.len()), "{} of 400", other.len());
        }
    }

    /// Draws many items for one user at one moment, and compares how often each came with what the oracle says.
    #[test]
    fn items_are_drawn_with_the_probabilities_of_the_oracle() {
        let params = Params { categories: 6, regions: 3, oracle: 1, ..Params::sized(20_000, 50, 60) };
        let world = World::new(params.clone()).expect("sizes that make a world");
        let mut events = world.events();
        let mut oracle = Oracle::new(&params, 1.0);
        for draws_before in [0, 100, 10_000] {
            events.by_ref().take(draws_before).for_each(drop);
            let user = (0..50).find(|u| draws_before == 0 || events.previous[*u as usize].is_some()).expect("somebody acted");
            let companions = events.companions(user);
            let tastes: Vec<f32> = events.taste[user as usize * 6..][..6].to_vec();
            oracle.score_items(&world, &events.tables, &tastes, &companions, user);
            assert!((oracle.scores.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{}", oracle.scores.iter().sum::<f64>());
            let n = 200_000;
            let mut drawn = vec![0.0; 60];
            (0..n).for_each(|_| drawn[events.draw_item(user, &companions) as usize] += 1.0);
            for (item, p) in oracle.scores.iter().enumerate() {
                let five_sigma = 5.0 * (p * (1.0 - p) / f64::from(n)).sqrt() + 1e-4;
                assert!(
                    (drawn[item] / f64::from(n) - p).abs() < five_sigma,
                    "item {item}: {} is not {p}",
                    drawn[item] / f64::from(n)
                );
            }
        }
    }
}
