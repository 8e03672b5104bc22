//! What the learned blend looks at for one user at one moment: candidates from every source, and the features of each.
//!
//! Rows of links are long, candidates few. So candidates are found by the strongest links alone, and only what the ring says of
//! them is added up over whole rows; and what does not depend on the user is worked out once a second for an item.
//!
//! The facts that must stay true: candidates stand in an order that follows from their values and ids alone; every sum runs in the
//! order of the ring; so a request is the same, bit by bit, on every worker. To add a source: its line in [`Sampler::sources`];
//! a feature: its name in `scoring/learned.rs` and its line in [`Sampler::features`].

use rustc_hash::FxHashMap;

use super::feature_store::{FeatureStore, Now, ORDERS, Slot};
use super::profiles::Filter;
use super::tallies::RUNGS;
use super::trails::{ONE, Ring, Strength};
use crate::model::time::{DAY, MINUTE, Millis};
use crate::model::{ItemId, Ranker, TokenId};
use crate::scoring::learned::{AGE, CONTEXT, FEATURES, READINGS, Request, Row, UNIT};
use crate::scoring::ln::ln;

/// Rungs of the ladder that are called by name.
mod rung {
    pub const MINUTES_10: usize = 0;
    pub const HOURS_3: usize = 2;
    pub const HOURS_11: usize = 3;
    pub const DAYS_2: usize = 4;
    pub const DAYS_7: usize = 5;
    pub const DAYS_114: usize = 7;
}

/// The candidate sources, in their order: each yields its best.
pub const SOURCES: [&str; 17] = [
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
    "factors",
    "content",
    "towers",
];

/// The places of those that bring a list from elsewhere.
const FACTORS: usize = 14;
const CONTENT: usize = 15;
const TOWERS: usize = 16;

/// The bit of the factors among the sources of a candidate: they rank by themselves too.
pub const OF_FACTORS: u32 = 1 << FACTORS;
/// The bit of the towers.
pub const OF_TOWERS: u32 = 1 << TOWERS;

/// How many items a ranking by one source alone has at most.
pub const RANKED_ALONE: usize = 1_000;

/// The orders by popularity among them.
const POPULAR: [usize; 8] = [0, 1, 2, 3, 4, 5, 7, RUNGS];

/// Whose request it is.
pub struct Viewer<'a> {
    pub ring: &'a Ring,
    /// How popular and how old what the user takes is, on average; `None`: they took nothing yet.
    pub habit: Option<[f64; READINGS]>,
    /// Where the user lives.
    pub city: Option<TokenId>,
    /// Whom the user may be shown what.
    pub filter: &'a Filter<'a>,
    /// What the factors say the user likes, best first.
    pub liked: &'a [ItemId],
    /// What is likest to what they took lately, the likest first.
    pub near: &'a [ItemId],
    /// What towers find for them, best first.
    pub found: &'a [ItemId],
}

/// A candidate: where it came from, and which item of the ring speaks loudest for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    pub slot: Slot,
    /// Bit by bit, as [`SOURCES`].
    pub sources: u32,
    pub because: Option<ItemId>,
}

/// What the ring's strongest links say of an item: enough to find candidates by.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    round: u32,
    /// Place among the candidates, plus one.
    place: u16,
    /// 0: not asked yet, 1: may be shown, 2: may not.
    allowed: u8,
    next: f32,
    near_3: f32,
    near_20: f32,
    with_50: f32,
}

/// How many of the strongest links of a ring's item candidates are found by: fewer, the longer ago it was taken.
fn heads(back: usize) -> usize {
    match back {
        0..3 => 256,
        3..20 => 64,
        _ => 16,
    }
}

/// What the whole rows of the ring say of a candidate. Every link adds to all sums at once.
#[derive(Clone, Copy, Debug, Default)]
struct Voices {
    /// In the order of [`WITH_50`] and the others.
    sums: [f32; 8],
    /// The loudest voice as bits that order as it does, and below them how far back it is, the nearest greatest.
    loudest: u64,
}

/// Places in [`Voices::sums`].
const WITH_50: usize = 0;
const SHARE_50: usize = 1;
const WITH_20: usize = 2;
const NEAR_20: usize = 3;
const SHARE_20: usize = 4;
const NEAR_3: usize = 5;
const NEAR_1: usize = 6;
const NEXT: usize = 7;

/// What one item of the ring makes of its links: factors of `s`, `d` and `m` for each sum.
struct Speaker {
    s: [f32; 8],
    d: [f32; 8],
    m: [f32; 8],
    loud: [f32; 2],
    back: u64,
}

impl Speaker {
    fn at(back: usize, rarity: f32, share: f32, [fade_3, fade_20, fade_s]: [f32; 3]) -> Self {
        let (mut s, mut d, mut m) = ([0.0; 8], [0.0; 8], [0.0; 8]);
        (s[WITH_50], s[SHARE_50]) = (rarity, share);
        if back < 20 {
            (s[WITH_20], d[NEAR_20], d[SHARE_20]) = (fade_s * rarity, fade_20 * rarity, fade_20 * share);
        }
        if back < 3 {
            d[NEAR_3] = fade_3 * rarity;
        }
        if back == 0 {
            (d[NEAR_1], m[NEXT]) = (rarity, 1.0);
        }
        Self { s, d, m, loud: [fade_20 * rarity, 0.2 * rarity], back: 255 - back as u64 }
    }

    fn tell(&self, strength: &Strength, voices: &mut Voices) {
        let (d, s, m) = (strength.d as f32 / ONE as f32, strength.s as f32, strength.m as f32);
        for (i, sum) in voices.sums.iter_mut().enumerate() {
            *sum += self.s[i] * s + self.d[i] * d + self.m[i] * m;
        }
        let loud = self.loud[0] * d + self.loud[1] * s;
        voices.loudest = voices.loudest.max(u64::from(loud.to_bits()) << 8 | self.back);
    }
}

/// The features of an item that are the same for every user, and when they were worked out.
#[derive(Clone, Copy, Debug, Default)]
struct Warm {
    clock: Millis,
    version: u32,
    features: [f32; WARM],
}

/// How many features are the same for every user: they come first.
const WARM: usize = 13;

/// Buffers that are reused from request to request.
#[derive(Default)]
pub struct Sampler {
    heard: Vec<Heard>,
    touched: Vec<Slot>,
    round: u32,
    /// Log lift of each token the ring has, by round.
    liked: Vec<(u32, f32, f32)>,
    liked_tokens: Vec<u32>,
    pub drawn: Vec<Drawn>,
    /// By item: place among the candidates, plus one. Zero but while whole rows are read.
    places: Vec<u16>,
    hits: Vec<(u32, u16)>,
    found: Vec<(u16, Strength)>,
    voices: Vec<Voices>,
    warm: Vec<Warm>,
    said: Vec<[f32; VOICED]>,
    raw: Vec<[f32; FEATURES]>,
    fine: Vec<[i32; FEATURES]>,
    keys: Vec<u64>,
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
        let known = self.gather(viewer, store, now, best, others);
        self.describe(known, viewer, store, now, means)
    }

    /// Finds the candidates; yields how many the sources gave, which come first.
    pub fn gather(&mut self, viewer: &Viewer, store: &FeatureStore, now: &Now, best: usize, others: &[ItemId]) -> usize {
        self.listen(viewer, store, heads);
        self.sources(viewer, store, now, best);
        let known = self.drawn.len();
        others.iter().filter_map(|item| store.find(*item)).for_each(|slot| self.draw(slot, 0));
        self.add_up(viewer.ring, store);
        known
    }

    /// The features of the candidates just gathered.
    pub fn describe(
        &mut self,
        known: usize,
        viewer: &Viewer,
        store: &FeatureStore,
        now: &Now,
        means: &[f64; READINGS],
    ) -> Request {
        self.features(viewer, store, now, means);
        Request { rows: self.centred(known), bucket: bucket(viewer.ring.steps), context: context(viewer.ring, store, now) }
    }

    /// The features of the candidates just described, as they were before they were centred.
    pub fn raw(&self) -> &[[f32; FEATURES]] {
        &self.raw
    }

    /// The best of one source alone, in its order; ties go to what was there first.
    pub fn only(&mut self, by: Ranker, viewer: &Viewer, store: &FeatureStore, best: usize) -> &[Drawn] {
        self.listen(viewer, store, |_| usize::MAX);
        let last = viewer.ring.items.first().and_then(|item| store.find(*item)).filter(|_| by == Ranker::Next);
        let expected = last.map(|slot| expected_next(slot, store)).unwrap_or_default();
        let value = |slot: Slot, v: &Heard| match by {
            Ranker::Next => expected.get(&slot).map_or(0.0, |expected| beyond_chance(v.next, *expected)),
            _ => v.near_20 * store.rarity(slot),
        };
        if let Ranker::Nearness(_) | Ranker::Next = by {
            self.loudest(0, viewer, store, best, value);
        }
        let nearest = self.drawn.len();
        let order =
            if let Ranker::Popularity(order) | Ranker::Nearness(order) = by { usize::from(order).min(ORDERS - 1) } else { 0 };
        if by != Ranker::Next {
            self.popular(1, order, viewer, store, best);
        }
        let first = |drawn: &Drawn| (store.item(drawn.slot).tally.first, store.item(drawn.slot).id);
        let (heard, (near_ones, others)) = (&self.heard, self.drawn.split_at_mut(nearest));
        let value = |drawn: &Drawn| value(drawn.slot, &heard[drawn.slot as usize]);
        near_ones.sort_by(|a, b| value(b).total_cmp(&value(a)).then(first(a).cmp(&first(b))));
        others.sort_by_key(|drawn| (std::cmp::Reverse(store.popularity(order, drawn.slot)), first(drawn)));
        &self.drawn
    }

    /// Hears what the strongest links of the ring's items say; as many of each as `heads` says.
    fn listen(&mut self, viewer: &Viewer, store: &FeatureStore, heads: impl Fn(usize) -> usize) {
        self.round = self.round.wrapping_add(1).max(1);
        self.heard.resize(store.slot_count(), Heard::default());
        self.touched.clear();
        self.drawn.clear();
        let (mut fade_3, mut fade_20) = (1.0f32, 1.0f32);
        for (back, item) in viewer.ring.items.iter().enumerate() {
            let Some(slot) = store.find(*item) else { continue };
            let (rarity, near_3) = (store.rarity(slot), if back < 3 { fade_3 } else { 0.0 });
            let (near_20, next) = (if back < 20 { fade_20 } else { 0.0 }, if back == 0 { 1.0 } else { 0.0 });
            for (to, strength) in store.item(slot).links.head(heads(back)) {
                let heard = &mut self.heard[to as usize];
                if heard.round != self.round {
                    *heard = Heard { round: self.round, ..Heard::default() };
                    self.touched.push(to);
                }
                let d = strength.d as f32 / ONE as f32 * rarity;
                heard.with_50 += strength.s as f32 * rarity;
                heard.near_20 += near_20 * d;
                heard.near_3 += near_3 * d;
                heard.next += next * strength.m as f32;
            }
            (fade_3, fade_20) = (fade_3 * 0.7, fade_20 * 0.9);
        }
        // what the user took is linked with itself most of all: it need not be weighed
        for slot in viewer.ring.items.iter().filter_map(|item| store.find(*item)) {
            self.allows(slot, viewer, store);
        }
        let (heard, round) = (&self.heard, self.round);
        self.touched.retain(|slot| heard[*slot as usize].round == round && heard[*slot as usize].allowed != 2);
    }

    /// Adds up what the whole rows of the ring say of the candidates.
    fn add_up(&mut self, ring: &Ring, store: &FeatureStore) {
        self.places.resize(store.slot_count(), 0);
        self.voices.clear();
        self.voices.resize(self.drawn.len(), Voices::default());
        for (place, drawn) in self.drawn.iter().enumerate() {
            self.places[drawn.slot as usize] = place as u16 + 1;
        }
        let mut fades = [1.0f32; 3];
        for (back, item) in ring.items.iter().enumerate() {
            let Some(slot) = store.find(*item) else { continue };
            let from = store.item(slot);
            let speaker = Speaker::at(back, store.rarity(slot), 1.0 / (from.tally.steps as f32 + 1.0), fades);
            self.found.clear();
            let hits = hits(from.links.to(), &self.places, &mut self.hits);
            // looked up first: memory is then asked for many at once
            self.found.extend(hits.iter().map(|(at, place)| (*place, *from.links.strength(*at as usize))));
            for (place, strength) in &self.found {
                speaker.tell(strength, &mut self.voices[usize::from(*place) - 1]);
            }
            fades = [fades[0] * 0.7, fades[1] * 0.9, fades[2] * 0.95];
        }
        for (drawn, voices) in self.drawn.iter_mut().zip(&self.voices) {
            self.places[drawn.slot as usize] = 0;
            drawn.because = (voices.loudest >> 8 > 0).then(|| ring.items[255 - (voices.loudest & 255) as usize]);
        }
    }

    fn sources(&mut self, viewer: &Viewer, store: &FeatureStore, now: &Now, best: usize) {
        (0..SOURCES.len()).for_each(|source| self.source(source, viewer, store, now, best));
    }

    fn source(&mut self, source: usize, viewer: &Viewer, store: &FeatureStore, now: &Now, best: usize) {
        let hot = |rung: usize| {
            move |slot: Slot, v: &Heard| {
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
            13 => self.loudest(source, viewer, store, best, |slot, v| v.with_50 * store.rarity(slot)),
            FACTORS => self.listed(source, viewer.liked, viewer, store, best),
            CONTENT => self.listed(source, viewer.near, viewer, store, best),
            _ => self.listed(source, viewer.found, viewer, store, best),
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
                self.draw(slot, 1 << source);
                left -= 1;
            }
        }
    }

    /// What was found elsewhere: by the factors, by what items are like, or by towers.
    fn listed(&mut self, source: usize, list: &[ItemId], viewer: &Viewer, store: &FeatureStore, best: usize) {
        let mut left = best;
        for slot in list.iter().filter_map(|item| store.find(*item)) {
            if left > 0 && self.allows(slot, viewer, store) {
                self.draw(slot, 1 << source);
                left -= 1;
            }
        }
    }

    /// The items with the largest value, as far as it is positive; of equals the smaller ids.
    fn loudest(
        &mut self,
        source: usize,
        viewer: &Viewer,
        store: &FeatureStore,
        best: usize,
        value: impl Fn(Slot, &Heard) -> f32,
    ) {
        let (mut keys, mut found) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.best));
        keys.clear();
        for (place, slot) in self.touched.iter().enumerate() {
            let value = value(*slot, &self.heard[*slot as usize]);
            if value > 0.0 {
                keys.push(u64::from(value.to_bits()) << 32 | place as u64); // positive numbers order as their bits do
            }
        }
        let mut most = best.saturating_add(SPARE);
        loop {
            self.strongest(&mut keys, most, store, &mut found);
            let all = found.len();
            found.retain(|(_, _, slot)| self.allows(*slot, viewer, store));
            if found.len() >= best || all == keys.len() {
                break;
            }
            most = most.saturating_mul(4);
        }
        found.iter().take(best).for_each(|(_, _, slot)| self.draw(*slot, 1 << source));
        (self.keys, self.best) = (keys, found);
    }

    /// The items of the `most` greatest keys, in order.
    fn strongest(&self, keys: &mut [u64], most: usize, store: &FeatureStore, found: &mut Vec<(f32, ItemId, Slot)>) {
        let mut least = 0;
        if keys.len() > most {
            keys.select_nth_unstable_by(most - 1, |a, b| b.cmp(a));
            least = keys[most - 1] >> 32; // all that are equal to it are looked at: which of them goes first is a matter of ids
        }
        found.clear();
        for key in keys.iter().filter(|key| **key >> 32 >= least) {
            let slot = self.touched[*key as u32 as usize];
            found.push((f32::from_bits((key >> 32) as u32), store.item(slot).id, slot));
        }
        found.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    }

    fn heard(&mut self, slot: Slot) -> &mut Heard {
        let heard = &mut self.heard[slot as usize];
        if heard.round != self.round {
            *heard = Heard { round: self.round, ..Heard::default() };
        }
        heard
    }

    fn allows(&mut self, slot: Slot, viewer: &Viewer, store: &FeatureStore) -> bool {
        let heard = self.heard(slot);
        if heard.allowed == 0 {
            heard.allowed = if viewer.filter.passes(store.item(slot).id, store.gate(slot)) { 1 } else { 2 };
        }
        heard.allowed == 1
    }

    fn draw(&mut self, slot: Slot, source: u32) {
        let next = self.drawn.len() as u16 + 1;
        let heard = self.heard(slot);
        if heard.place > 0 {
            let place = usize::from(heard.place) - 1;
            self.drawn[place].sources |= source;
        } else if next < u16::MAX {
            heard.place = next;
            self.drawn.push(Drawn { slot, sources: source, because: None });
        }
    }

    /// The features of an item that are the same for every user.
    fn warm(&mut self, slot: Slot, store: &FeatureStore, now: &Now) -> &[f32; WARM] {
        let known = &mut self.warm[slot as usize];
        if known.clock != now.clock || known.version != store.version(slot) {
            *known = Warm { clock: now.clock, version: store.version(slot), features: warm(slot, store, now) };
        }
        &known.features
    }

    /// What each candidate is like.
    fn features(&mut self, viewer: &Viewer, store: &FeatureStore, now: &Now, means: &[f64; READINGS]) {
        self.warm.resize(store.slot_count(), Warm { clock: Millis::MIN, ..Warm::default() });
        let taste = self.taste(viewer.ring, store);
        let means = means.map(|mean| mean as f32);
        let habit = viewer.habit.map(|habit| habit.map(|mean| mean as f32));
        let near = |x: f32, i: usize| habit.map_or(0.0, |habit| -0.25 * (x - habit[i]) * (x - habit[i]));
        let cross = |x: f32, i: usize| habit.map_or(0.0, |habit| x * (habit[i] - means[i]));
        self.say(viewer.ring, store);
        let mut raw = std::mem::take(&mut self.raw);
        raw.clear();
        raw.resize(self.drawn.len(), [0.0; FEATURES]);
        for (place, features) in raw.iter_mut().enumerate() {
            let slot = self.drawn[place].slot;
            let item = store.item(slot);
            features[..WARM].copy_from_slice(self.warm(slot, store, now));
            features[WARM..WARM + VOICED].copy_from_slice(&self.said[place]);
            let (lp_10m, lp_2d, lp_all, age) = (features[0], features[4], features[8], features[AGE]);
            features[HOT] = 0.2 * features[NEAR] * (lp_10m - lp_2d);
            features[WARM + VOICED..].copy_from_slice(&[
                self.lift(&item.tokens, taste),
                self.lift(&item.words, taste),
                home(item.city, viewer.city),
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

    /// What the ring says of each candidate, as features: first all numbers, then all their logarithms.
    fn say(&mut self, ring: &Ring, store: &FeatureStore) {
        let last = ring.items.first().and_then(|item| store.find(*item));
        let onward = last.map_or(0.0, |slot| store.item(slot).onward as f32);
        self.said.clear();
        for (drawn, voices) in self.drawn.iter().zip(&self.voices) {
            let share = (store.item(drawn.slot).tally.steps as f32 + 1.0) / (store.steps as f32 + 1.0);
            self.said.push(collaborative(&voices.sums, store.rarity(drawn.slot), onward, share));
        }
        self.said.as_flattened_mut().iter_mut().for_each(|x| *x = ln(*x));
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
    fn centred(&mut self, known: usize) -> Vec<Row> {
        let mut sums = [0i64; FEATURES];
        self.fine.clear();
        self.fine.resize(self.raw.len(), [0; FEATURES]);
        for (place, (fine, raw)) in self.fine.iter_mut().zip(&self.raw).enumerate() {
            for (fine, x) in fine.iter_mut().zip(raw) {
                *fine = (x * UNIT + if *x < 0.0 { -0.5 } else { 0.5 }).clamp(-FINEST, FINEST) as i32;
            }
            if place < known {
                sums.iter_mut().zip(&*fine).for_each(|(sum, x)| *sum += i64::from(*x));
            }
        }
        let means = sums.map(|sum| sum.div_euclid(known.max(1) as i64) as i32);
        let mut rows = vec![[0; FEATURES]; self.fine.len()];
        for (row, fine) in rows.iter_mut().zip(&self.fine) {
            for ((x, fine), mean) in row.iter_mut().zip(fine).zip(&means) {
                *x = (fine - mean).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
            }
        }
        rows
    }
}

/// Beyond this, in units, a feature says no more, be the others as far out as they may.
const FINEST: f32 = (1 << 20) as f32;

/// How many more items of a source are looked at than are wanted: so many may turn out not to be shown.
const SPARE: usize = 8;

/// The links to candidates: where they stand in the row, and whose they are. Written without a branch: which of them are hits is
/// not to be foreseen.
fn hits<'a>(to: &[Slot], places: &[u16], into: &'a mut Vec<(u32, u16)>) -> &'a [(u32, u16)] {
    into.resize(into.len().max(to.len() + 1), (0, 0));
    let mut count = 0;
    for (at, slot) in to.iter().enumerate() {
        let place = places[*slot as usize];
        into[count] = (at as u32, place);
        count += usize::from(place > 0);
    }
    &into[..count]
}

/// How often each item linked with this one would follow it if who takes both took them in any order: by its share of all steps,
/// times how much oftener than chance the two go together at any distance. Of few links that is not sure, hence [`DOUBT`].
fn expected_next(from: Slot, store: &FeatureStore) -> FxHashMap<Slot, f32> {
    let row = || store.item(from).links.head(usize::MAX);
    let together = |slot: Slot| store.item(slot).links.head(usize::MAX).map(|(_, strength)| strength.s as f32).sum::<f32>();
    let others: Vec<f32> = row().map(|(to, _)| together(to)).collect();
    let share = together(from) / others.iter().sum::<f32>().max(1.0);
    let onward = store.item(from).onward as f32 / (store.steps as f32).max(1.0);
    let expected = |((to, strength), other): ((Slot, &Strength), &f32)| {
        let oftener = (strength.s as f32 + DOUBT) / (share * other + DOUBT);
        (to, onward * store.item(to).tally.steps as f32 * oftener)
    };
    row().zip(&others).map(expected).collect()
}

/// Added to both counts: few are no proof.
const DOUBT: f32 = 2.0;

/// By how much `seen` is more than `expected`, as the log-likelihood ratio of a Poisson count; nothing where it is not more.
fn beyond_chance(seen: f32, expected: f32) -> f32 {
    if seen > expected && expected > 0.0 { seen * ln(seen / expected) - (seen - expected) } else { 0.0 }
}

/// Popularity at every scale, trends, age, and the time since the item was last taken.
fn warm(slot: Slot, store: &FeatureStore, now: &Now) -> [f32; WARM] {
    let (tally, of) = (&store.item(slot).tally, store.heat(slot));
    let heat: [f32; RUNGS] = std::array::from_fn(|rung| of.at(rung, now));
    let trend = |fast: usize, slow: usize| (heat[fast] + 0.5) / (heat[slow] / 16.0 + 0.5);
    let minutes = |at: Millis| if tally.steps > 0 { 1.0 + ((now.clock - at).max(0) / MINUTE) as f32 } else { 1.0 };
    let mut features = [0.0; WARM];
    (0..RUNGS).for_each(|rung| features[rung] = heat[rung] + 0.05);
    features[RUNGS..].copy_from_slice(&[
        tally.steps as f32 + 0.05,
        trend(rung::MINUTES_10, rung::HOURS_3),
        trend(rung::HOURS_11, rung::DAYS_7),
        minutes(tally.first),
        minutes(tally.last),
    ]);
    features.iter_mut().for_each(|x| *x = ln(*x));
    features
}

/// How many features are made of what the ring says.
const VOICED: usize = 11;

/// The places of two features among all: how near the ring an item is, and the same by how much more it is taken now than lately.
const NEAR: usize = WARM + 5;
const HOT: usize = WARM + 7;

/// What the ring says of an item, in the order of the names, before the logarithm.
fn collaborative(voices: &[f32; 8], rarity: f32, onward: f32, share: f32) -> [f32; VOICED] {
    let of = |x: f32| 1.0 + 100.0 * x;
    let next = voices[NEXT];
    [
        of(next / (onward + 1.0)),
        1.0 + next,
        (next + 5.0 * share) / ((onward + 5.0) * share),
        of(voices[NEAR_1] * rarity),
        of(voices[NEAR_3] * rarity),
        of(voices[NEAR_20] * rarity),
        of(voices[SHARE_20]),
        1.0, // worked out of two others
        of(voices[WITH_20] * rarity),
        of(voices[WITH_50] * rarity),
        of(voices[SHARE_50]),
    ]
}

/// Whether an item is of the user's city: 1, of another: -1, or nobody knows: 0.
fn home(there: Option<TokenId>, here: Option<TokenId>) -> f32 {
    match (there, here) {
        (Some(there), Some(here)) if there == here => 1.0,
        (Some(_), Some(_)) => -1.0,
        _ => 0.0,
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

const _: () = assert!(ORDERS == RUNGS + 1 && SOURCES.len() == TOWERS + 1 && TOWERS < 32);

#[cfg(test)]
mod tests {
    use super::super::feature_store::Fact;
    use super::super::links::RowChange;
    use super::super::profiles::Profile;
    use super::super::tallies::Tally;
    use super::*;
    use std::sync::Arc;

    const ITEMS: u64 = 600;

    /// A store in which items got their numbers in steps of `stride`; rows are long, and many links equally strong.
    fn store(stride: u64) -> FeatureStore {
        let mut store = FeatureStore::default();
        (0..ITEMS).for_each(|n| _ = store.slot(ItemId(n * stride % ITEMS)));
        for a in 0..ITEMS {
            let steps = 1 + (a * 37 % 11) as u32;
            store.take(Fact::Tally(ItemId(a), Tally { steps, ..Tally::default() }));
            let of =
                |b: u64| Strength { d: (a * b % 3) as i32 * 512, s: 1 + (b * 7 % 4) as i32, m: (a + b).is_multiple_of(5).into() };
            let links = (0..400).map(|n| ((a + 1 + n) % ITEMS, n)).map(|(b, _)| (ItemId(b), of(b))).collect();
            store.take(Fact::Row(Arc::new(RowChange { item: ItemId(a), onward: 9, links })));
        }
        store
    }

    #[test]
    fn sources_that_bring_a_list_stand_where_they_are_called() {
        assert_eq!([FACTORS, CONTENT, TOWERS].map(|at| SOURCES[at]), ["factors", "content", "towers"]);
    }

    #[test]
    fn a_request_does_not_depend_on_the_numbers_of_items() {
        let (one, other) = (store(1), store(7));
        let (profile, ring) =
            (Profile::default(), Ring { items: (0..45).map(|n| ItemId(n * 13)).collect(), steps: 60, last: Some(5) });
        let filter = profile.filter();
        let viewer =
            Viewer { ring: &ring, habit: Some([0.5, 0.2, 3.0]), city: None, filter: &filter, liked: &[], near: &[], found: &[] };
        let seen = |store: &FeatureStore| {
            let mut sampler = Sampler::default();
            let request = sampler.request(&viewer, store, &Now::at(1_700_000_000_000), &[0.1; READINGS], 40, &[ItemId(3)]);
            let named = |drawn: &Drawn| (store.item(drawn.slot).id, drawn.sources, drawn.because);
            (request, sampler.drawn.iter().map(named).collect::<Vec<_>>())
        };
        assert_eq!(seen(&one), seen(&other));
        assert!(seen(&one).1.len() > 100 && seen(&one).1.iter().any(|(_, sources, because)| *sources > 0 && because.is_some()));
    }
}
