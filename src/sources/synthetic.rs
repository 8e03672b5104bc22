//! A made-up world whose truth is known: items, users and a stream of what they did, drawn from a dynamic mixture. The same
//! [`Params`] give the same bytes on every machine; memory grows with users and items, never with events.
//!
//! ```text
//! p(item | user, t, prev) = (1 - kap - lam) * sum_z theta[user][z](t) * phi[z][region](item; t)     taste
//!                         + kap * companions[prev](item)                                            what goes together
//!                         + lam * crowd[region](item; t)                                            what everybody does
//! ```
//! - `phi` draws among the items of category `z` by `exp(appeal + burst(t))`, times 4 for an item of the user's region and 1/4 for
//!   one of another, halved every `life` since it was born; `crowd` has the same weights over all categories.
//! - `companions`: five planted items per item, equally likely. Where the user has no previous item, taste takes the share.
//! - `theta`: Dirichlet(0.15) over categories. It drifts (on average every `drift_h` hours a fifth of it is drawn anew) and breaks:
//!   at 0.5 and 0.8 of the span a quarter of the users draw it anew.
//! - Users and items arrive over time: 60 % of the users and 40 % of the items are there at the start. Six bursts a day lift one
//!   item each by 2 to 4 in the exponent, with half-lives of 1 to 6 hours. The day has a rhythm.
//!
//! Time goes in slices of ten minutes in which the weights stand still, so the true probability of every item at every moment is
//! known, and with it the best possible ranking: the oracle. What becomes of a drawn item is in [`stream`].

use serde::Serialize;
use std::collections::BTreeMap;

use crate::model::rng::Rng;
use crate::model::time::Millis;

mod catalogue;
mod flaws;
mod oracle;
mod slice;
mod stream;

pub use flaws::FLAWS;
pub use oracle::OracleScores;
pub use stream::{Counts, Events, Row};

use catalogue::{CITIES, Labels};

/// What random numbers are for: a stream of its own for every purpose and index, so that more users change nothing about an item.
#[derive(Clone, Copy)]
enum Stream {
    Item = 1,
    User,
    Bursts,
    Taste,
    Drift,
    Play,
    Oracle,
    Words,
    Profile,
    Mishap,
}

impl Stream {
    fn of(self, seed: u64, index: u64) -> Rng {
        Rng::of(seed, [self as u64, index])
    }
}

/// Length of a slice in seconds.
const SLICE: f64 = 600.0;
const DAY: f64 = 86_400.0;
/// Planted companions of an item.
const COMPANIONS: usize = 5;
/// Where in the span tastes break.
const BREAKS: [f64; 2] = [0.5, 0.8];
const BURSTS_PER_DAY: f64 = 6.0;

/// The size and the shape of the world.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Params {
    /// Records of the stream, all told.
    pub events: u64,
    pub users: u32,
    pub items: u32,
    pub days: f64,
    pub seed: u64,
    /// When it begins.
    pub start: Millis,
    pub categories: u32,
    pub regions: u32,
    /// Share of plays that follow a planted companion.
    pub kap: f64,
    /// Share of plays that follow the crowd.
    pub lam: f64,
    /// Hours between two drifts of a user's taste, on average.
    pub drift_h: f64,
    /// Share of the records that are broken on purpose, exactly.
    pub malformed: f64,
    /// Share of the records that repeat an earlier one.
    pub duplicates: f64,
    /// Share of the records that tell of something 25 to 72 hours ago.
    pub late: f64,
    /// How many plays the oracle is asked about, roughly. Changes no byte of the stream.
    pub oracle: u32,
}

impl Params {
    /// A world of this size with the shape of the published figures: ten days from 2023-11-14, nothing broken, no oracle.
    pub fn sized(events: u64, users: u32, items: u32) -> Self {
        Self {
            events,
            users,
            items,
            days: 10.0,
            seed: 1,
            start: 1_700_000_000_000,
            categories: 32,
            regions: 8,
            kap: 0.15,
            lam: 0.2,
            drift_h: 48.0,
            malformed: 0.0,
            duplicates: 0.0,
            late: 0.0,
            oracle: 0,
        }
    }

    fn check(&self) -> Result<(), String> {
        let positive = [
            ("users", f64::from(self.users)),
            ("items", f64::from(self.items)),
            ("days", self.days),
            ("categories", f64::from(self.categories)),
            ("regions", f64::from(self.regions)),
            ("drift-h", self.drift_h),
        ];
        if let Some((name, value)) = positive.into_iter().find(|(_, v)| !(*v > 0.0 && v.is_finite())) {
            return Err(format!("`{name}` is {value}; it must be above 0"));
        }
        if self.days > 3_660.0 {
            return Err(format!("`days` is {}; at most 3660 (ten years)", self.days));
        }
        if self.regions as usize > CITIES.len() {
            return Err(format!("`regions` is {}; at most {}, one a city", self.regions, CITIES.len()));
        }
        let shares = [
            ("kap + lam", self.kap + self.lam, [self.kap, self.lam].to_vec()),
            (
                "malformed + duplicates + late",
                self.malformed + self.duplicates + self.late,
                [self.malformed, self.duplicates, self.late].to_vec(),
            ),
        ];
        for (name, sum, parts) in shares {
            if !(sum <= 1.0 && parts.iter().all(|p| *p >= 0.0)) {
                return Err(format!("`{name}` is {sum}; each must be at least 0, and together at most 1"));
            }
        }
        Ok(())
    }

    fn span(&self) -> f64 {
        self.days * DAY
    }

    /// Seconds since the start as event time.
    fn at(&self, seconds: f64) -> Millis {
        self.start + (seconds * 1000.0) as Millis
    }

    fn slices(&self) -> usize {
        (self.span() / SLICE).ceil() as usize
    }

    /// The slices at whose start tastes break.
    fn break_slices(&self) -> [usize; BREAKS.len()] {
        BREAKS.map(|b| (b * self.span() / SLICE).ceil() as usize)
    }

    fn taste(&self, user: u32) -> Vec<f32> {
        let mut theta = vec![0.0; self.categories as usize];
        Stream::Taste.of(self.seed, u64::from(user)).dirichlet(TASTE_ALPHA, &mut theta);
        theta
    }
}

/// How peaked tastes are: small is one or two categories a user.
const TASTE_ALPHA: f64 = 0.15;

/// One item's place in the model.
struct Item {
    category: u32,
    /// `None`: of no region.
    region: Option<u32>,
    appeal: f64,
    /// Seconds since the start; negative for what was there before.
    born: f64,
    /// Half-life in seconds.
    life: f64,
    /// How long it takes to watch it once: 15 to 600 seconds, half of them below 90.
    seconds: f64,
    companions: [u32; COMPANIONS],
}

/// One user's place in the model.
struct User {
    region: u32,
    born: f64,
    activity: f64,
}

/// An item is lifted for a while.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Burst {
    pub item: String,
    pub at_ms: Millis,
    pub half_life_s: f64,
    /// What is added in the exponent at first.
    pub size: f64,
    #[serde(skip)]
    index: u32,
    #[serde(skip)]
    at: f64,
}

/// Everything that stands still.
pub struct World {
    params: Params,
    items: Vec<Item>,
    users: Vec<User>,
    bursts: Vec<Burst>,
    item_names: Labels,
    user_names: Labels,
}

/// What is known of a world and nobody downstream is told: `truth.json`.
#[derive(Serialize)]
pub struct Truth<'a> {
    pub args: &'a Params,
    pub rows: Counts,
    pub change_points_ms: Vec<Millis>,
    /// Whose taste broke, at each of these moments.
    pub changed_users: Vec<Vec<&'a str>>,
    pub bursts: &'a [Burst],
    /// The planted companions of each item.
    pub companions: BTreeMap<&'a str, [&'a str; COMPANIONS]>,
    /// What the best possible ranking scores: no system can do better but by luck.
    pub oracle: Option<OracleScores>,
}

impl World {
    /// Draws the world. Fails on sizes that make none.
    pub fn new(params: Params) -> Result<Self, String> {
        params.check()?;
        let item_names = Labels::new('i', params.items);
        let bursts = bursts(&params, &item_names);
        Ok(Self {
            items: (0..params.items).map(|i| item(&params, i)).collect(),
            users: (0..params.users).map(|u| user(&params, u)).collect(),
            bursts,
            item_names,
            user_names: Labels::new('u', params.users),
            params,
        })
    }

    /// What it was drawn from.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The stream, from its first record.
    pub fn events(&self) -> Events<'_> {
        Events::new(self)
    }

    /// What only the maker of a world knows, after its stream has been drawn.
    pub fn truth(&self, drawn: &Events) -> Truth<'_> {
        let starts = self.params.break_slices().map(|s| self.params.at(s as f64 * SLICE));
        let named = |i: usize| (self.item_name(i as u32), self.companions(i as u32));
        Truth {
            args: &self.params,
            rows: drawn.counts(),
            change_points_ms: starts.to_vec(),
            changed_users: drawn.changed().iter().map(|users| users.iter().map(|user| self.user_name(*user)).collect()).collect(),
            bursts: &self.bursts,
            companions: (0..self.items.len()).map(named).collect(),
            oracle: drawn.oracle(),
        }
    }

    /// The id of an item.
    pub fn item_name(&self, item: u32) -> &str {
        self.item_names.get(item)
    }

    /// The id of a user.
    pub fn user_name(&self, user: u32) -> &str {
        self.user_names.get(user)
    }

    /// The planted companions of an item.
    pub fn companions(&self, item: u32) -> [&str; COMPANIONS] {
        self.items[item as usize].companions.map(|c| self.item_name(c))
    }
}

fn item(params: &Params, index: u32) -> Item {
    let mut rng = Stream::Item.of(params.seed, u64::from(index));
    let span = params.span();
    // the first is there from the start, so that there is always something to draw
    let old = rng.unit() < 0.4 || index == 0;
    let place = rng.unit();
    let lasting = rng.unit() < 0.3;
    let short = 1.5 * libm::exp(0.6 * rng.normal());
    Item {
        category: rng.below(params.categories),
        region: if rng.unit() < 0.4 { Some(rng.below(params.regions)) } else { None },
        appeal: 1.2 * rng.normal(),
        born: if old { -place * span } else { place * span * 0.98 },
        life: DAY * if lasting { 30.0 } else { short },
        seconds: (90.0 * libm::exp(0.8 * rng.normal())).clamp(15.0, 600.0),
        companions: std::array::from_fn(|_| rng.below(params.items)),
    }
}

fn user(params: &Params, index: u32) -> User {
    let mut rng = Stream::User.of(params.seed, u64::from(index));
    let old = rng.unit() < 0.6 || index == 0;
    let place = rng.unit();
    User {
        region: rng.below(params.regions),
        born: if old { 0.0 } else { place * params.span() * 0.95 },
        activity: (rng.pareto(1.3) + 0.1).min(60.0),
    }
}

fn bursts(params: &Params, names: &Labels) -> Vec<Burst> {
    let mut rng = Stream::Bursts.of(params.seed, 0);
    let mut bursts = Vec::new();
    let mut at = 0.0;
    loop {
        at += rng.exponential() * DAY / BURSTS_PER_DAY;
        if at >= params.span() {
            return bursts;
        }
        let index = rng.below(params.items);
        let half_life_s = 3600.0 * (1.0 + 5.0 * rng.unit());
        let size = 2.0 + 2.0 * rng.unit();
        bursts.push(Burst { item: names.get(index).to_string(), at_ms: params.at(at), half_life_s, size, index, at });
    }
}
