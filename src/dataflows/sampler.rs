//! What the learned blend looks at for one user at one moment: candidates from every source, and the features of each.
//!
//! The facts that must stay true: candidates stand in an order that follows from their values and ids alone; every sum runs in the
//! order of the ring; so a request is the same, bit by bit, on every worker. To add a source: its line in [`Sampler::sources`];
//! a feature: its name in `scoring/learned.rs` and its line in [`Sampler::features`].

use super::feature_store::{FeatureStore, Now, ORDERS, Slot};
use super::tallies::RUNGS;
use super::trails::{ONE, Ring};
use crate::model::time::{DAY, MINUTE};
use crate::model::{ItemId, Ranker, TokenId};
use crate::scoring::learned::{CONTEXT, FEATURES, READINGS, Request, Row, UNIT};
use crate::scoring::ln::ln;

/// Rungs of the ladder by name.
mod rung {
    pub const MINUTES_10: usize = 0;
    pub const MINUTES_40: usize = 1;
    pub const HOURS_3: usize = 2;
    pub const HOURS_11: usize = 3;
    pub const DAYS_2: usize = 4;
    pub const DAYS_7: usize = 5;
    pub const DAYS_28: usize = 6;
    pub const DAYS_114: usize = 7;
}

/// The candidate sources, in their order: each yields its best.
pub const SOURCES: [&str; 14] = [
    "pop_10m",
    "pop_40m",
    "pop_3h",
    "pop_11h",
    "pop_2d",
    "pop_7d",
    "pop_114d",
    "pop_all",
    "near_3h",
    "near_2d",
    "near_114d",
    "next",
    "near_3",
    "with_50",
];

/// The orders by popularity among them.
const POPULAR: [usize; 8] = [0, 1, 2, 3, 4, 5, 7, RUNGS];

/// Whose request it is.
pub struct Viewer<'a> {
    pub ring: &'a Ring,
    /// How popular and how old what the user takes is, on average; `None`: they took nothing yet.
    pub habit: Option<[f64; READINGS]>,
    /// Where the user lives.
    pub city: Option<TokenId>,
    /// Whether the user may be shown an item.
    pub allows: &'a dyn Fn(ItemId) -> bool,
}

/// A candidate: where it came from, and which item of the ring speaks loudest for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    pub slot: Slot,
    /// Bit by bit, as [`SOURCES`].
    pub sources: u16,
    pub because: Option<ItemId>,
}

/// What the ring says of an item.
#[derive(Clone, Copy, Debug, Default)]
struct Voices {
    round: u32,
    /// 0: not asked yet, 1: may be shown, 2: may not.
    allowed: u8,
    loudest_at: u8,
    loudest: f32,
    next: f32,
    near_1: f32,
    near_3: f32,
    near_20: f32,
    share_20: f32,
    with_20: f32,
    with_50: f32,
    share_50: f32,
    /// Place among the candidates, plus one.
    place: u32,
}

/// Buffers that are reused from request to request.
#[derive(Default)]
pub struct Sampler {
    voices: Vec<Voices>,
    touched: Vec<Slot>,
    round: u32,
    /// Log lift of each token the ring has, by round.
    liked: Vec<(u32, f32, f32)>,
    liked_tokens: Vec<u32>,
    pub drawn: Vec<Drawn>,
    raw: Vec<[f32; FEATURES]>,
    best: Vec<(f32, ItemId, Slot)>,
}

impl Sampler {
    /// The candidates of a user, up to `best` from each source, and after them `others`; their features, centred over what the
    /// sources gave.
    pub fn request(
        &mut self,
        viewer: &Viewer,
        store: &FeatureStore,
        now: &Now,
        means: &[f64; READINGS],
        best: usize,
        others: &[ItemId],
    ) -> Request {
        self.listen(viewer.ring, store);
        self.sources(viewer, store, now, best);
        let known = self.drawn.len();
        others.iter().filter_map(|item| store.find(*item)).for_each(|slot| self.draw(slot, 0, viewer.ring));
        self.features(viewer, store, now, means);
        Request { rows: self.centred(known), bucket: bucket(viewer.ring.steps), context: context(viewer.ring, store, now) }
    }

    /// The best of one source alone, in its order; ties go to what was there first.
    pub fn only(&mut self, by: Ranker, viewer: &Viewer, store: &FeatureStore, best: usize) -> &[Drawn] {
        self.listen(viewer.ring, store);
        let near = |slot: Slot, v: &Voices| v.near_20 * store.rarity(slot);
        if let Ranker::Nearness(_) = by {
            self.loudest(0, viewer, store, best, near);
        }
        let nearest = self.drawn.len();
        if let Ranker::Popularity(order) | Ranker::Nearness(order) = by {
            self.popular(1, usize::from(order).min(ORDERS - 1), viewer, store, best);
        }
        let order = usize::from(if let Ranker::Popularity(order) | Ranker::Nearness(order) = by { order } else { 0 });
        let first = |drawn: &Drawn| (store.item(drawn.slot).tally.first, store.item(drawn.slot).id);
        let (voices, (near_ones, others)) = (&self.voices, self.drawn.split_at_mut(nearest));
        let value = |drawn: &Drawn| near(drawn.slot, &voices[drawn.slot as usize]);
        near_ones.sort_by(|a, b| value(b).total_cmp(&value(a)).then(first(a).cmp(&first(b))));
        others.sort_by_key(|drawn| (std::cmp::Reverse(store.popularity(order, drawn.slot)), first(drawn)));
        &self.drawn
    }

    /// Adds up what the items of the ring say of those they are linked with.
    fn listen(&mut self, ring: &Ring, store: &FeatureStore) {
        self.round = self.round.wrapping_add(1).max(1);
        self.voices.resize(store.slot_count(), Voices::default());
        self.touched.clear();
        self.drawn.clear();
        let (mut fade_3, mut fade_20, mut fade_s) = (1.0f32, 1.0f32, 1.0f32);
        for (back, item) in ring.items.iter().enumerate() {
            let Some(slot) = store.find(*item) else { continue };
            let (from, rarity) = (store.item(slot), store.rarity(slot));
            let share = 1.0 / (from.tally.steps as f32 + 1.0);
            for linked in from.links.iter() {
                let voices = &mut self.voices[linked.to as usize];
                if voices.round != self.round {
                    *voices = Voices { round: self.round, ..Voices::default() };
                    self.touched.push(linked.to);
                }
                let (d, s) = (linked.strength.d as f32 / ONE as f32, linked.strength.s as f32);
                voices.with_50 += s * rarity;
                voices.share_50 += s * share;
                if back < 20 {
                    voices.near_20 += fade_20 * d * rarity;
                    voices.share_20 += fade_20 * d * share;
                    voices.with_20 += fade_s * s * rarity;
                }
                if back < 3 {
                    voices.near_3 += fade_3 * d * rarity;
                }
                if back == 0 {
                    voices.near_1 = d * rarity;
                    voices.next = linked.strength.m as f32;
                }
                let loud = (fade_20 * d + 0.2 * s) * rarity;
                if loud > voices.loudest {
                    (voices.loudest, voices.loudest_at) = (loud, back as u8);
                }
            }
            (fade_3, fade_20, fade_s) = (fade_3 * 0.7, fade_20 * 0.9, fade_s * 0.95);
        }
    }

    fn sources(&mut self, viewer: &Viewer, store: &FeatureStore, now: &Now, best: usize) {
        (0..SOURCES.len()).for_each(|source| self.source(source, viewer, store, now, best));
    }

    fn source(&mut self, source: usize, viewer: &Viewer, store: &FeatureStore, now: &Now, best: usize) {
        let hot = |rung: usize| {
            move |slot: Slot, v: &Voices| {
                if v.near_20 > 0.0 {
                    (store.heat(slot).at(rung, now) + 0.05) * (1.0 + 100.0 * v.near_20 * store.rarity(slot))
                } else {
                    0.0
                }
            }
        };
        match source {
            0..8 => self.popular(source, POPULAR[source], viewer, store, best),
            8 => self.loudest(source, viewer, store, best, hot(rung::HOURS_3)),
            9 => self.loudest(source, viewer, store, best, hot(rung::DAYS_2)),
            10 => self.loudest(source, viewer, store, best, hot(rung::DAYS_114)),
            11 => self.loudest(source, viewer, store, best, |_, v| v.next),
            12 => self.loudest(source, viewer, store, best, |slot, v| v.near_3 * store.rarity(slot)),
            _ => self.loudest(source, viewer, store, best, |slot, v| v.with_50 * store.rarity(slot)),
        }
    }

    /// The most popular.
    fn popular(&mut self, source: usize, order: usize, viewer: &Viewer, store: &FeatureStore, best: usize) {
        let mut left = best;
        for (_, slot) in store.order(order) {
            if left == 0 {
                break;
            }
            if self.allows(slot, viewer, store) {
                self.draw(slot, 1 << source, viewer.ring);
                left -= 1;
            }
        }
    }

    /// The items with the largest value, as far as it is positive.
    fn loudest(
        &mut self,
        source: usize,
        viewer: &Viewer,
        store: &FeatureStore,
        best: usize,
        value: impl Fn(Slot, &Voices) -> f32,
    ) {
        let mut found = std::mem::take(&mut self.best);
        found.clear();
        for place in 0..self.touched.len() {
            let slot = self.touched[place];
            let value = value(slot, &self.voices[slot as usize]);
            let id = || store.item(slot).id;
            let beaten = |last: &(f32, ItemId, Slot)| last.0 > value || (last.0 == value && last.1 < id());
            if value <= 0.0 || (found.len() == best && found.last().is_some_and(beaten)) || !self.allows(slot, viewer, store) {
                continue;
            }
            let id = id();
            let at = found.partition_point(|known| known.0 > value || (known.0 == value && known.1 < id));
            found.truncate(best - 1);
            found.insert(at, (value, id, slot));
        }
        found.iter().for_each(|(_, _, slot)| self.draw(*slot, 1 << source, viewer.ring));
        self.best = found;
    }

    fn voices(&mut self, slot: Slot) -> &mut Voices {
        let voices = &mut self.voices[slot as usize];
        if voices.round != self.round {
            *voices = Voices { round: self.round, ..Voices::default() };
        }
        voices
    }

    fn allows(&mut self, slot: Slot, viewer: &Viewer, store: &FeatureStore) -> bool {
        let voices = self.voices(slot);
        if voices.allowed == 0 {
            voices.allowed = if (viewer.allows)(store.item(slot).id) { 1 } else { 2 };
        }
        voices.allowed == 1
    }

    fn draw(&mut self, slot: Slot, source: u16, ring: &Ring) {
        let place = self.drawn.len() as u32 + 1;
        let voices = self.voices(slot);
        if voices.place > 0 {
            let place = voices.place as usize - 1;
            self.drawn[place].sources |= source;
            return;
        }
        voices.place = place;
        let because = (voices.loudest > 0.0).then(|| ring.items[voices.loudest_at as usize]);
        self.drawn.push(Drawn { slot, sources: source, because });
    }

    /// What each candidate is like.
    fn features(&mut self, viewer: &Viewer, store: &FeatureStore, now: &Now, means: &[f64; READINGS]) {
        let taste = self.taste(viewer.ring, store);
        let last = viewer.ring.items.first().and_then(|item| store.find(*item));
        let onward = last.map_or(0.0, |slot| store.item(slot).onward as f32);
        let of = |x: f32| ln(1.0 + 100.0 * x);
        let means = means.map(|mean| mean as f32);
        let habit = viewer.habit.map(|habit| habit.map(|mean| mean as f32));
        let all = store.steps as f32;
        let mut raw = std::mem::take(&mut self.raw);
        raw.clear();
        for place in 0..self.drawn.len() {
            let slot = self.drawn[place].slot;
            let (v, item, rarity) = (*self.voices(slot), store.item(slot), store.rarity(slot));
            let heat = |rung| store.heat(slot).at(rung, now);
            let lp = |rung| ln(heat(rung) + 0.05);
            let trend = |fast, slow| ln((heat(fast) + 0.5) / (heat(slow) / 16.0 + 0.5));
            let minutes = |at: i64| ln(1.0 + ((now.clock - at).max(0) / MINUTE) as f32);
            let steps = item.tally.steps as f32;
            let share = (steps + 1.0) / (all + 1.0);
            let (age, gap) = if steps > 0.0 { (minutes(item.tally.first), minutes(item.tally.last)) } else { (0.0, 0.0) };
            let (lp_10m, lp_2d, lp_all) = (lp(rung::MINUTES_10), lp(rung::DAYS_2), ln(steps + 0.05));
            let d20 = of(v.near_20 * rarity);
            let near = |x: f32, i: usize| habit.map_or(0.0, |habit| -0.25 * (x - habit[i]) * (x - habit[i]));
            let cross = |x: f32, i: usize| habit.map_or(0.0, |habit| x * (habit[i] - means[i]));
            raw.push([
                lp_10m,
                lp(rung::MINUTES_40),
                lp(rung::HOURS_3),
                lp(rung::HOURS_11),
                lp_2d,
                lp(rung::DAYS_7),
                lp(rung::DAYS_28),
                lp(rung::DAYS_114),
                lp_all,
                trend(rung::MINUTES_10, rung::HOURS_3),
                trend(rung::HOURS_11, rung::DAYS_7),
                age,
                gap,
                of(v.next / (onward + 1.0)),
                ln(1.0 + v.next),
                ln((v.next + 5.0 * share) / ((onward + 5.0) * share)),
                of(v.near_1 * rarity),
                of(v.near_3 * rarity),
                d20,
                of(v.share_20),
                0.2 * d20 * (lp_10m - lp_2d),
                of(v.with_20 * rarity),
                of(v.with_50 * rarity),
                of(v.share_50),
                self.lift(&item.tokens, taste),
                self.lift(&item.words, taste),
                match (item.city, viewer.city) {
                    (Some(there), Some(here)) => {
                        if there == here {
                            1.0
                        } else {
                            -1.0
                        }
                    }
                    _ => 0.0,
                },
                near(lp_2d, 0),
                near(lp_all, 1),
                near(age, 2),
                cross(lp_2d, 0),
                cross(lp_all, 1),
                cross(age, 2),
            ]);
        }
        self.raw = raw;
    }

    /// How much more of each token the ring has than everyone. Yields what a token says that the ring does not have; `None` where
    /// nothing can be said.
    fn taste(&mut self, ring: &Ring, store: &FeatureStore) -> Option<f32> {
        self.liked.resize(store.token_count(), (0, 0.0, 0.0));
        self.liked_tokens.clear();
        let (mut fade, mut weight) = (1.0f32, 0.0f32);
        for slot in ring.items.iter().map(|item| store.find(*item)) {
            let tokens = slot.into_iter().flat_map(|slot| store.item(slot).tokens.iter().chain(&store.item(slot).words));
            for token in tokens {
                let liked = &mut self.liked[*token as usize];
                if liked.0 != self.round {
                    *liked = (self.round, 0.0, 0.0);
                    self.liked_tokens.push(*token);
                }
                liked.1 += fade;
            }
            weight += fade;
            fade *= 0.95;
        }
        let steps = store.steps as f32;
        for token in &self.liked_tokens {
            let share = (store.carried(*token).1 as f32 + 1.0) / (steps + 1.0);
            let liked = &mut self.liked[*token as usize];
            liked.2 = ln((liked.1 + 5.0 * share) / ((weight + 5.0) * share));
        }
        (weight > 0.0 && steps > 0.0).then(|| ln(5.0 / (weight + 5.0)))
    }

    /// The mean log lift of an item's tokens, by the root of how many they are.
    fn lift(&self, tokens: &[u32], unknown: Option<f32>) -> f32 {
        let Some(unknown) = unknown.filter(|_| !tokens.is_empty()) else { return 0.0 };
        let of = |token: &u32| {
            let (round, _, lift) = self.liked[*token as usize];
            if round == self.round { lift } else { unknown }
        };
        tokens.iter().map(of).sum::<f32>() / (tokens.len() as f32).sqrt()
    }

    /// The token of an item that the ring has most beyond everyone's share, of those `named`.
    pub fn favourite(&self, slot: Slot, store: &FeatureStore, named: impl Fn(TokenId) -> bool) -> Option<TokenId> {
        let liked = |token: &u32| {
            let (round, _, lift) = self.liked[*token as usize];
            (round == self.round && lift > 0.0).then_some((lift, store.carried(*token).0))
        };
        let tokens = store.item(slot).tokens.iter().filter_map(liked).filter(|(_, token)| named(*token));
        tokens.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))).map(|(_, token)| token)
    }

    /// The features less their mean over the first `known` candidates, quantised.
    fn centred(&self, known: usize) -> Vec<Row> {
        let mut means = [0.0f64; FEATURES];
        for raw in &self.raw[..known] {
            means.iter_mut().zip(raw).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        means.iter_mut().for_each(|sum| *sum /= known.max(1) as f64);
        let centre = |raw: &[f32; FEATURES]| -> Row {
            std::array::from_fn(|f| {
                let fine = (f64::from(raw[f]) - means[f]) * f64::from(UNIT);
                (fine + if fine < 0.0 { -0.5 } else { 0.5 }).clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
            })
        };
        self.raw.iter().map(centre).collect()
    }
}

fn bucket(steps: u32) -> usize {
    match steps {
        0 => 0,
        1..3 => 1,
        3..10 => 2,
        _ => 3,
    }
}

fn context(ring: &Ring, store: &FeatureStore, now: &Now) -> [f32; CONTEXT] {
    let mut context = [0.0; CONTEXT];
    context[bucket(ring.steps)] = 1.0;
    context[4] = 0.3 * ln(1.0 + ring.steps as f32);
    context[5] = ring.last.map_or(0.0, |last| 0.2 * ln(1.0 + (now.clock - last).max(0) as f32 / MINUTE as f32));
    let turn = now.clock.rem_euclid(DAY) as f64 / DAY as f64 * 2.0 * std::f64::consts::PI;
    (context[6], context[7]) = (libm::sin(turn) as f32, libm::cos(turn) as f32);
    context[8] = 0.1 * ln(store.alive as f32 + 1.0);
    context
}

/// How popular and how old an item is, as users' habits are made of.
pub fn reading(item: Option<Slot>, store: &FeatureStore, now: &Now) -> [f32; READINGS] {
    let Some(slot) = item else { return [ln(0.05), ln(0.05), 0.0] };
    let tally = &store.item(slot).tally;
    let minutes = if tally.steps > 0 { ((now.clock - tally.first).max(0) / MINUTE) as f32 } else { 0.0 };
    [ln(store.heat(slot).at(rung::DAYS_2, now) + 0.05), ln(tally.steps as f32 + 0.05), ln(1.0 + minutes)]
}

const _: () = assert!(ORDERS == RUNGS + 1 && SOURCES.len() <= 16);
