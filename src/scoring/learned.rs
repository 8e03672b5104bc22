//! The blend that learns: a small model of what a user takes next among the candidates of the moment.
//!
//! `score = (w + w_bucket) . x + V . relu(A x + C z)` for the features `x` of a candidate and the context `z` of the request. The loss is
//! a softmax over the whole candidate set. Every worker turns what it sees in an epoch into a [`Lesson`], a sum of integers, so lessons
//! add up to the same whatever worker saw what; the sum is applied once, by AdaGrad. The fact that must stay true: a model is a
//! function of its seed and the sums of lessons in the order of their epochs, bit by bit.

use serde::{Deserialize, Serialize};

/// What is said of a candidate, in the order of [`NAMES`].
pub const FEATURES: usize = 33;
/// What is said of a request.
pub const CONTEXT: usize = 9;
/// Hidden units.
pub const HIDDEN: usize = 16;
/// Users by how many events they have: none, 1 or 2, 3 to 9, more.
pub const BUCKETS: usize = 4;

/// What users' tastes in popularity are means of: recent and lasting popularity, and age, of the items they took.
pub const READINGS: usize = 3;

/// The features. What each says is in `dataflows/sampler.rs`.
pub const NAMES: [&str; FEATURES] = [
    "pop_10m",
    "pop_40m",
    "pop_3h",
    "pop_11h",
    "pop_2d",
    "pop_7d",
    "pop_28d",
    "pop_114d",
    "pop_all",
    "trend_short",
    "trend_long",
    "age",
    "gap",
    "next",
    "next_count",
    "next_lift",
    "near_1",
    "near_3",
    "near_20",
    "near_20_share",
    "near_20_hot",
    "with_20",
    "with_50",
    "with_50_share",
    "category",
    "text",
    "home",
    "like_2d",
    "like_all",
    "like_age",
    "taste_2d",
    "taste_all",
    "taste_age",
];

/// The place of an item's age among the features.
pub const AGE: usize = 11;

/// What features speak for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    Content,
    Collaborative,
    /// What is taken now.
    Now,
    /// What is taken for long.
    Lasting,
    /// How near an item is to how popular and how old what the user takes is.
    Habit,
    Age,
}

/// How many voices there are.
pub const VOICES: usize = 6;

use Voice::{Age, Collaborative, Content, Habit, Lasting, Now};

/// What each feature speaks for.
const SPEAKS_FOR: [Voice; FEATURES] = [
    Now,
    Now,
    Now,
    Now,
    Lasting,
    Lasting,
    Lasting,
    Lasting,
    Lasting,
    Now,
    Lasting,
    Age,
    Age,
    Collaborative,
    Collaborative,
    Collaborative,
    Collaborative,
    Collaborative,
    Collaborative,
    Collaborative,
    Collaborative,
    Collaborative,
    Collaborative,
    Collaborative,
    Content,
    Content,
    Content,
    Habit,
    Habit,
    Habit,
    Habit,
    Habit,
    Habit,
];

/// Where a model starts: the weights of the fixed blend.
const PRIOR: [(&str, f64); 7] = [
    ("category", 0.15),
    ("text", 0.15),
    ("near_20", 0.25),
    ("pop_3h", 0.125),
    ("pop_2d", 0.125),
    ("like_2d", 0.10),
    ("age", -0.10),
];

/// The features of one candidate: centred over the candidates of the request, in 1/1024.
pub type Row = [i16; FEATURES];

/// One unit of a [`Row`].
pub const UNIT: f32 = 1024.0;

/// The candidates of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub rows: Vec<Row>,
    pub bucket: usize,
    pub context: [f32; CONTEXT],
}

impl Request {
    /// The mean square of each feature, in 1/1024².
    fn squares(&self) -> [i64; FEATURES] {
        let mut sums = [0i64; FEATURES];
        for row in &self.rows {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += i64::from(i32::from(*x) * i32::from(*x)));
        }
        sums.map(|sum| sum / (self.rows.len() as i64).max(1))
    }
}

/// `[learn]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub enabled: bool,
    pub serve_after: u64,
    pub per_source: usize,
    pub links: usize,
    pub linear_rate: f64,
    pub hidden_rate: f64,
    pub share: f64,
    pub busy_share: f64,
    #[serde(with = "crate::model::time::millis")]
    pub late: i64,
    pub logged: f64,
    pub impressions: f64,
    #[serde(with = "crate::model::time::millis")]
    pub click_through: i64,
}

const LINEAR: usize = FEATURES;
const BUCKETED: usize = LINEAR + BUCKETS * FEATURES;
const MIXED: usize = BUCKETED + FEATURES * HIDDEN;
const CONTEXTED: usize = MIXED + CONTEXT * HIDDEN;
/// Weights in all: `w`, `w_bucket`, `A`, `C`, `V`.
pub const WEIGHTS: usize = CONTEXTED + HIDDEN;

/// Gradients are summed in units of 2^-40: integers, because their sum does not depend on the order.
const FINE: f64 = (1u64 << 40) as f64;
/// Readings in units of 2^-32.
const READ: f64 = (1u64 << 32) as f64;

/// What one worker saw in one epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lesson {
    /// Requests whose features were seen, and the sum of their mean squares.
    pub requests: u64,
    squares: Vec<i64>,
    /// Those of them in which something was taken, and their gradient.
    pub groups: u64,
    gradient: Vec<i64>,
    /// Steps, and the sum of what was read of their items.
    pub steps: u64,
    readings: [i64; READINGS],
}

impl Lesson {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.requests == 0 && self.steps == 0
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Lesson) {
        (self.requests, self.groups, self.steps) =
            (self.requests + other.requests, self.groups + other.groups, self.steps + other.steps);
        sum_up(&mut self.squares, &other.squares);
        sum_up(&mut self.gradient, &other.gradient);
        sum_up(&mut self.readings, &other.readings);
    }

    /// Takes what was read of an item that was taken.
    pub fn read(&mut self, reading: [f32; READINGS]) {
        self.steps += 1;
        sum_up(&mut self.readings, &reading.map(|x| (f64::from(x) * READ) as i64));
    }
}

fn sum_up(sums: &mut (impl AsMut<[i64]> + Grow), more: &[i64]) {
    sums.reach(more.len());
    sums.as_mut().iter_mut().zip(more).for_each(|(sum, x)| *sum = sum.saturating_add(*x));
}

/// Sums that are empty until something is added.
trait Grow {
    fn reach(&mut self, len: usize);
}

impl Grow for Vec<i64> {
    fn reach(&mut self, len: usize) {
        self.resize(self.len().max(len), 0);
    }
}

impl Grow for [i64; READINGS] {
    fn reach(&mut self, _len: usize) {}
}

/// The weights, and what they have learned from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    weights: Vec<f64>,
    /// Sum of the squares of all gradients.
    steepness: Vec<f64>,
    /// Running mean square of each feature.
    spread: Vec<f64>,
    /// Requests seen, and those among them something was learned from.
    requests: u64,
    pub groups: u64,
    /// Means over all steps.
    pub means: [f64; READINGS],
    steps: u64,
}

/// The weights as scoring reads them.
#[derive(Clone, Debug)]
pub struct Ready {
    scale: [f32; FEATURES],
    linear: [[f32; FEATURES]; BUCKETS],
    mix: [[f32; HIDDEN]; FEATURES],
    context: [[f32; HIDDEN]; CONTEXT],
    out: [f32; HIDDEN],
    first: bool,
}

/// The scores of the candidates of a request, and what a reason or a gradient needs of them.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    pub scores: Vec<f32>,
    x: Vec<[f32; FEATURES]>,
    before: Vec<[f32; HIDDEN]>,
}

impl Default for Model {
    fn default() -> Self {
        let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
        let mut weights = vec![0.0; WEIGHTS];
        for (name, weight) in PRIOR {
            let feature = NAMES.iter().position(|known| *known == name).expect("the prior names features");
            weights[feature] = weight;
        }
        let width = 1.0 / (FEATURES as f64).sqrt();
        weights[BUCKETED..MIXED].iter_mut().for_each(|w| *w = draw.next(width));
        weights[MIXED..CONTEXTED].iter_mut().for_each(|w| *w = draw.next(0.1));
        let steepness = (0..WEIGHTS).map(|i| if i < BUCKETED { 1e-8 } else { 1e-4 }).collect();
        let (spread, means) = (vec![0.0; FEATURES], [0.0; READINGS]);
        Self { weights, steepness, spread, requests: 0, groups: 0, means, steps: 0 }
    }
}

/// Numbers that look drawn: xorshift64.
struct Draw(u64);

impl Draw {
    /// Between minus `width` and `width`.
    fn next(&mut self, width: f64) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0) * width
    }
}

impl Model {
    /// Takes the sum of an epoch's lessons.
    pub fn apply(&mut self, lesson: &Lesson, params: &Params) {
        if lesson.groups > 0 {
            self.climb(&lesson.gradient, params);
        }
        if lesson.requests > 0 {
            let step = self.step(self.requests, lesson.requests, 0.001);
            let one = f64::from(UNIT * UNIT) * lesson.requests as f64;
            for (spread, sum) in self.spread.iter_mut().zip(&lesson.squares) {
                *spread += step * (*sum as f64 / one - *spread);
            }
        }
        if lesson.steps > 0 {
            let step = self.step(self.steps, lesson.steps, 0.0005);
            for (mean, sum) in self.means.iter_mut().zip(lesson.readings) {
                *mean += step * (sum as f64 / READ / lesson.steps as f64 - *mean);
            }
        }
        self.requests += lesson.requests;
        self.groups += lesson.groups;
        self.steps += lesson.steps;
    }

    /// How far a mean over `known` moves to that of `more`: fully at first, later by `least` for each.
    fn step(&self, known: u64, more: u64, least: f64) -> f64 {
        (more as f64 / (known + more) as f64).max(least * more as f64).min(1.0)
    }

    fn climb(&mut self, gradient: &[i64], params: &Params) {
        for (i, sum) in gradient.iter().enumerate().filter(|(_, sum)| **sum != 0) {
            let (slope, rate) = (*sum as f64 / FINE, if i < BUCKETED { params.linear_rate } else { params.hidden_rate });
            self.steepness[i] += slope * slope;
            self.weights[i] += rate * slope / self.steepness[i].sqrt();
        }
    }

    /// The linear weight of each feature.
    pub fn linear(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        NAMES.into_iter().zip(self.weights.iter().copied())
    }

    /// The weights as scoring reads them.
    pub fn ready(&self) -> Ready {
        let w = |i: usize| self.weights[i] as f32;
        let unit = f64::from(UNIT);
        Ready {
            scale: std::array::from_fn(|f| (1.0 / (unit * (self.spread[f] + 0.001).sqrt())) as f32),
            linear: std::array::from_fn(|b| {
                std::array::from_fn(|f| (self.weights[f] + self.weights[LINEAR + b * FEATURES + f]) as f32)
            }),
            mix: std::array::from_fn(|f| std::array::from_fn(|h| w(BUCKETED + f * HIDDEN + h))),
            context: std::array::from_fn(|z| std::array::from_fn(|h| w(MIXED + z * HIDDEN + h))),
            out: std::array::from_fn(|h| w(CONTEXTED + h)),
            first: self.requests == 0,
        }
    }
}

/// Beyond this a scaled feature says no more.
const CLIP: f32 = 6.0;
/// Candidates whose error is smaller teach nothing.
const LEAST: f32 = 1e-4;

impl Ready {
    /// Scores every candidate.
    pub fn score(&self, request: &Request, into: &mut Scores) {
        let mut scale = self.scale;
        if self.first {
            let unit = f64::from(UNIT);
            let squares = request.squares();
            scale = std::array::from_fn(|f| (1.0 / (unit * (squares[f] as f64 / (unit * unit) + 0.001).sqrt())) as f32);
        }
        let linear = &self.linear[request.bucket.min(BUCKETS - 1)];
        let base = self.base(&request.context);
        into.scores.clear();
        into.x.clear();
        into.before.clear();
        for row in &request.rows {
            let mut x = [0.0f32; FEATURES];
            for ((x, row), scale) in x.iter_mut().zip(row).zip(&scale) {
                *x = (f32::from(*row) * scale).clamp(-CLIP, CLIP);
            }
            let mut before = base;
            let mut score = 0.0;
            for ((x, linear), mix) in x.iter().zip(linear).zip(&self.mix) {
                score += linear * x;
                speak(&mut before, mix, *x);
            }
            let mut fired = [0.0f32; HIDDEN];
            (0..HIDDEN).for_each(|h| fired[h] = self.out[h] * before[h].max(0.0));
            score += fired.iter().sum::<f32>();
            into.scores.push(score);
            into.x.push(x);
            into.before.push(before);
        }
    }

    fn base(&self, context: &[f32; CONTEXT]) -> [f32; HIDDEN] {
        let mut base = [0.0; HIDDEN];
        for (z, weights) in context.iter().zip(&self.context) {
            base.iter_mut().zip(weights).for_each(|(sum, w)| *sum += w * z);
        }
        base
    }

    /// Adds what a request teaches whose `taken` candidates were taken.
    pub fn teach(&self, request: &Request, scored: &Scores, taken: &[usize], lesson: &mut Lesson) {
        lesson.requests += 1;
        sum_up(&mut lesson.squares, &request.squares());
        if taken.is_empty() || request.rows.is_empty() {
            return;
        }
        lesson.groups += 1;
        let mut gradient = vec![0.0f32; WEIGHTS];
        let mut hidden = [0.0f32; HIDDEN];
        for (i, error) in errors(&scored.scores, taken).into_iter().enumerate().filter(|(_, e)| e.abs() >= LEAST) {
            let (x, before) = (&scored.x[i], &scored.before[i]);
            let mut back = [0.0f32; HIDDEN];
            (0..HIDDEN).for_each(|h| back[h] = if before[h] > 0.0 { error * self.out[h] } else { 0.0 });
            for f in 0..FEATURES {
                gradient[f] += error * x[f];
                let mix = &mut gradient[BUCKETED + f * HIDDEN..BUCKETED + (f + 1) * HIDDEN];
                mix.iter_mut().zip(back).for_each(|(sum, back)| *sum += back * x[f]);
            }
            for h in 0..HIDDEN {
                hidden[h] += back[h];
                gradient[CONTEXTED + h] += error * before[h].max(0.0);
            }
        }
        for (z, value) in request.context.iter().enumerate() {
            (0..HIDDEN).for_each(|h| gradient[MIXED + z * HIDDEN + h] = hidden[h] * value);
        }
        let bucket = LINEAR + request.bucket.min(BUCKETS - 1) * FEATURES;
        gradient.copy_within(..LINEAR, bucket);
        let fine: Vec<i64> = gradient.into_iter().map(|x| (f64::from(x) * FINE) as i64).collect();
        sum_up(&mut lesson.gradient, &fine);
    }

    /// What each voice adds to the score of candidate `i`: how much lower it would be if the voice said of the candidate what
    /// it says of the average one.
    pub fn adds(&self, request: &Request, scored: &Scores, i: usize) -> [f32; VOICES] {
        let (x, before) = (&scored.x[i], &scored.before[i]);
        let linear = &self.linear[request.bucket.min(BUCKETS - 1)];
        let mut adds = [0.0; VOICES];
        for (voice, add) in adds.iter_mut().enumerate() {
            let mut said = [0.0f32; HIDDEN];
            for f in features_of(voice) {
                *add += linear[f] * x[f];
                speak(&mut said, &self.mix[f], x[f]);
            }
            let mut lost = [0.0f32; HIDDEN];
            for (((lost, out), before), said) in lost.iter_mut().zip(&self.out).zip(before).zip(&said) {
                *lost = out * (before.max(0.0) - (before - said).max(0.0));
            }
            *add += lost.iter().sum::<f32>();
        }
        adds
    }
}

/// Adds what a feature says to each hidden unit.
#[inline]
fn speak(sums: &mut [f32; HIDDEN], mix: &[f32; HIDDEN], x: f32) {
    sums.iter_mut().zip(mix).for_each(|(sum, mix)| *sum += mix * x);
}

/// The features that speak for a voice: one voice at a time keeps its sums at hand.
fn features_of(voice: usize) -> impl Iterator<Item = usize> {
    const PLACES: ([usize; FEATURES], [usize; VOICES + 1]) = by_voice();
    PLACES.0[PLACES.1[voice]..PLACES.1[voice + 1]].iter().copied()
}

/// The features voice by voice, and where each voice begins.
const fn by_voice() -> ([usize; FEATURES], [usize; VOICES + 1]) {
    let (mut order, mut begins) = ([0; FEATURES], [0; VOICES + 1]);
    let (mut voice, mut next) = (0, 0);
    while voice < VOICES {
        let mut feature = 0;
        while feature < FEATURES {
            if SPEAKS_FOR[feature] as usize == voice {
                order[next] = feature;
                next += 1;
            }
            feature += 1;
        }
        voice += 1;
        begins[voice] = next;
    }
    (order, begins)
}

/// Of each candidate: was it taken, less how likely that seemed, over the root of how many were taken.
fn errors(scores: &[f32], taken: &[usize]) -> Vec<f32> {
    let most = scores.iter().copied().fold(f32::MIN, f32::max);
    let likely: Vec<f64> = scores.iter().map(|s| libm::exp(f64::from(s - most))).collect();
    let (sum, n) = (likely.iter().sum::<f64>(), taken.len() as f64);
    let mut errors: Vec<f64> = likely.into_iter().map(|p| -n * p / sum).collect();
    taken.iter().for_each(|i| errors[*i] += 1.0);
    errors.into_iter().map(|e| (e / n.sqrt()) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn params() -> Params {
        let (linear_rate, hidden_rate, share, busy_share) = (0.02, 0.1, 1.0, 1.0);
        Params {
            enabled: true,
            serve_after: 0,
            per_source: 1,
            links: 1,
            linear_rate,
            hidden_rate,
            share,
            busy_share,
            late: 1,
            logged: 0.0,
            impressions: 0.0,
            click_through: 1_800_000,
        }
    }

    fn request(seed: u64, candidates: usize) -> Request {
        let mut draw = Draw(seed | 1);
        let rows = (0..candidates).map(|_| std::array::from_fn(|_| draw.next(2000.0) as i16)).collect();
        let context = std::array::from_fn(|_| draw.next(1.0) as f32);
        Request { rows, bucket: (seed % 4) as usize, context }
    }

    /// A model whose every weight is used.
    fn practised() -> Model {
        let mut model = Model::default();
        for seed in 1..30 {
            let (ready, request, mut scores, mut lesson) =
                (model.ready(), request(seed, 12), Scores::default(), Lesson::default());
            ready.score(&request, &mut scores);
            ready.teach(&request, &scores, &[(seed % 12) as usize], &mut lesson);
            model.apply(&lesson, &params());
        }
        model
    }

    /// How likely it seems that these were taken: the logarithm, over the root of how many they are.
    fn likelihood(model: &Model, request: &Request, taken: &[usize]) -> f64 {
        let mut scored = Scores::default();
        model.ready().score(request, &mut scored);
        let all: f64 = scored.scores.iter().map(|s| libm::exp(f64::from(*s))).sum();
        let of = |i: &usize| f64::from(scored.scores[*i]) - libm::log(all);
        taken.iter().map(of).sum::<f64>() / (taken.len() as f64).sqrt()
    }

    /// Against the slope measured by moving each weight a little.
    #[test]
    fn a_lesson_is_the_slope_of_the_likelihood() {
        let (model, request, taken) = (practised(), request(77, 9), [2, 5]);
        let (mut scores, mut lesson) = (Scores::default(), Lesson::default());
        model.ready().score(&request, &mut scores);
        model.ready().teach(&request, &scores, &taken, &mut lesson);
        let small = 1e-2;
        let mut steep = 0;
        for i in 0..WEIGHTS {
            let moved = |by: f64| {
                let mut model = model.clone();
                model.weights[i] += by;
                likelihood(&model, &request, &taken)
            };
            let measured = (moved(small) - moved(-small)) / (2.0 * small);
            let taught = lesson.gradient[i] as f64 / FINE;
            assert!((measured - taught).abs() < 0.02 + 0.02 * measured.abs(), "weight {i}: {measured} {taught}");
            steep += u32::from(taught.abs() > 0.05);
        }
        assert!(steep > 100, "{steep}");
    }

    #[test]
    fn what_is_taken_again_and_again_is_learned() {
        let mut model = Model::default();
        let taken = |request: &Request| (0..20).max_by_key(|i| request.rows[*i][3] - request.rows[*i][9]).expect("some");
        let mut hits = 0;
        for seed in 1..400 {
            let (request, mut scored, mut lesson) = (request(seed * 7919, 20), Scores::default(), Lesson::default());
            let (ready, taken) = (model.ready(), taken(&request));
            ready.score(&request, &mut scored);
            let best = (0..20).max_by(|a, b| scored.scores[*a].total_cmp(&scored.scores[*b]));
            hits += u32::from(seed >= 300 && best == Some(taken));
            ready.teach(&request, &scored, &[taken], &mut lesson);
            model.apply(&lesson, &params());
        }
        assert!(hits >= 60, "{hits} of 100");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn lessons_add_up_to_the_same_in_any_order(seeds in prop::collection::vec(1u64..1000, 2..6)) {
            let ready = practised().ready();
            let teach = |seed: &u64, into: &mut Lesson| {
                let (request, mut scores) = (request(*seed, 10), Scores::default());
                ready.score(&request, &mut scores);
                ready.teach(&request, &scores, &[(*seed % 10) as usize], into);
                into.read([*seed as f32, 0.1, -0.3]);
            };
            let (mut forth, mut back) = (Lesson::default(), Lesson::default());
            seeds.iter().for_each(|seed| teach(seed, &mut forth));
            for seed in seeds.iter().rev() {
                let mut one = Lesson::default();
                teach(seed, &mut one);
                back.add(&one);
            }
            prop_assert_eq!(forth, back);
        }
    }

    #[test]
    fn voices_and_what_they_add() {
        let (model, request) = (practised(), request(5, 8));
        let mut scores = Scores::default();
        model.ready().score(&request, &mut scores);
        // without the features of a voice the score is lower by what the voice adds
        for (voice, name) in [(Age, "age"), (Content, "text"), (Collaborative, "next")] {
            let mut without = request.clone();
            let silent = |f: usize| SPEAKS_FOR[f] == voice;
            assert!(silent(NAMES.iter().position(|known| *known == name).expect("a feature")));
            (0..FEATURES).filter(|f| silent(*f)).for_each(|f| without.rows[3][f] = 0);
            let mut lower = Scores::default();
            model.ready().score(&without, &mut lower);
            let adds = model.ready().adds(&request, &scores, 3)[voice as usize];
            assert!((scores.scores[3] - lower.scores[3] - adds).abs() < 1e-4);
        }
    }
}
