//! What sums over users say of an arm and of its difference to another, and how surely. Pure.
//!
//! Users are independent of each other, the acts of one user are not: so a mean over users has the variance of users, and the ratio of
//! two sums, such as clicks and impressions, that of the delta method. With c and i the two counts of a user, n users who were shown
//! something and R = Σc/Σi,
//!
//! ```text
//! var R ≈ n/(n-1) · Σ(c - R·i)² / (Σi)²  =  n/(n-1) · (Σc² - 2R·Σci + R²·Σi²) / (Σi)²
//! ```
//!
//! Differences of two arms have the sum of their variances. The sums are integers, and exact; what is made of them is not.

use serde::Serialize;

use crate::model::experiment::Sums;

/// Of a normal distribution 95 % lie within so many standard deviations.
const NORMAL_95: f64 = 1.959_963_984_540_054;
/// With fewer users than this in an arm nothing is decided: what is assumed holds for many.
const LEAST_USERS: i64 = 30;

/// A number that was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub value: f64,
    /// The lower and the upper end of 95 %; `None`: too few users to say.
    pub interval: Option<[f64; 2]>,
}

/// Which way a difference goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "&'static str")]
pub enum Verdict {
    /// More than the first arm: the whole interval lies above 0.
    Ahead,
    /// Less: it lies below.
    Behind,
    Undecided,
}

impl Verdict {
    /// As it is answered.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ahead => "ahead",
            Self::Behind => "behind",
            Self::Undecided => "undecided",
        }
    }
}

impl From<Verdict> for &'static str {
    fn from(verdict: Verdict) -> Self {
        verdict.name()
    }
}

/// A number of one arm less that of another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    #[serde(flatten)]
    pub estimate: Estimate,
    pub verdict: Verdict,
}

/// A mean or a ratio, and the variance it has as an estimate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    value: f64,
    /// `None`: of one user, nothing can be said of others.
    variance: Option<f64>,
    users: i64,
}

/// Clicks per impression; `None` without an impression.
pub fn ctr(sums: &Sums) -> Option<Measured> {
    let (clicks, impressions) = (sums.clicks as f64, sums.impressions as f64);
    if sums.impressions <= 0 {
        return None;
    }
    let ratio = clicks / impressions;
    let [squared, products, impressions_squared] =
        [sums.clicks_squared, sums.clicks_by_impressions, sums.impressions_squared].map(|sum| sum as f64);
    let left = (squared - 2.0 * ratio * products + ratio * ratio * impressions_squared).max(0.0);
    let variance = bessel(sums.shown).map(|factor| factor * left / (impressions * impressions));
    Some(Measured { value: ratio, variance, users: sums.shown })
}

/// Seconds of a user; `None` without users.
pub fn engagement_seconds(sums: &Sums) -> Option<Measured> {
    mean(sums.users, sums.dwell_ms, sums.dwell_squared, 1e-3)
}

/// What else a user took, of any positive kind; `None` without users.
pub fn taken(sums: &Sums) -> Option<Measured> {
    mean(sums.users, sums.taken, sums.taken_squared, 1.0)
}

fn mean(users: i64, sum: i64, squared: i128, unit: f64) -> Option<Measured> {
    if users <= 0 {
        return None;
    }
    let n = users as f64;
    // n·Σx² - (Σx)² in integers: the two are large and close
    let scattered = i128::from(users).checked_mul(squared).zip(i128::from(sum).checked_mul(sum.into()));
    let scattered = scattered.and_then(|(all, one)| all.checked_sub(one));
    let scattered = scattered.map_or_else(|| n * squared as f64 - (sum as f64).powi(2), |exact| exact as f64);
    let variance = bessel(users).map(|factor| factor * scattered.max(0.0) / (n * n * n) * unit * unit);
    Some(Measured { value: sum as f64 / n * unit, variance, users })
}

/// n/(n-1)
fn bessel(users: i64) -> Option<f64> {
    (users > 1).then(|| users as f64 / (users - 1) as f64)
}

impl Measured {
    /// With its interval.
    pub fn estimate(&self) -> Estimate {
        Estimate { value: self.value, interval: self.variance.map(|variance| around(self.value, variance)) }
    }

    /// How far it is from `first`.
    pub fn less(&self, first: &Self) -> Difference {
        let value = self.value - first.value;
        let interval = self.variance.zip(first.variance).map(|(own, its)| around(value, own + its));
        let enough = self.users.min(first.users) >= LEAST_USERS;
        let verdict = match interval.filter(|_| enough) {
            Some([low, _]) if low > 0.0 => Verdict::Ahead,
            Some([_, high]) if high < 0.0 => Verdict::Behind,
            _ => Verdict::Undecided,
        };
        Difference { estimate: Estimate { value, interval }, verdict }
    }
}

fn around(value: f64, variance: f64) -> [f64; 2] {
    let reach = NORMAL_95 * variance.sqrt();
    [value - reach, value + reach]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::experiment::Counts;

    fn sums(users: &[(i32, i32, i32, i64)]) -> Sums {
        let mut sums = Sums::default();
        for &(impressions, clicks, taken, dwell_ms) in users {
            sums.add(&Sums::of(&Counts { records: 1, impressions, clicks, taken, dwell_ms }), 1);
        }
        sums
    }

    fn near(measured: Measured, value: f64, variance: f64) {
        let found = measured.variance.expect("of several users");
        assert!((measured.value - value).abs() < 1e-12 && (found - variance).abs() < 1e-12, "{measured:?}");
    }

    /// Three users by hand: impressions 10, 20, 30, clicks 1, 4, 4; 3, 0, 6 things taken; 1, 2 and 6 seconds.
    #[test]
    fn a_few_users_by_hand() {
        let three = sums(&[(10, 1, 3, 1_000), (20, 4, 0, 2_000), (30, 4, 6, 6_000)]);
        // R = 9/60 = 0.15; residuals -0.5, 1, -0.5; their squares sum to 1.5
        near(ctr(&three).expect("impressions"), 0.15, 1.5 * 1.5 / 3_600.0);
        // mean 3, deviations -2, -1, 3: variance 14/2 = 7 of a user, 7/3 of the mean
        near(engagement_seconds(&three).expect("users"), 3.0, 7.0 / 3.0);
        // mean 3, deviations 0, -3, 3: 18/2 = 9, 3 of the mean
        near(taken(&three).expect("users"), 3.0, 3.0);
        let estimate = taken(&three).expect("users").estimate();
        let [low, high] = estimate.interval.expect("of several users");
        assert!((low - (3.0 - NORMAL_95 * 3.0f64.sqrt())).abs() < 1e-12 && (high + low - 6.0).abs() < 1e-12);
    }

    #[test]
    fn where_nothing_can_be_said_nothing_is() {
        assert_eq!((ctr(&Sums::default()), taken(&Sums::default()), engagement_seconds(&Sums::default())), (None, None, None));
        let one = sums(&[(10, 1, 3, 1_000)]);
        assert_eq!(ctr(&one).expect("impressions").estimate(), Estimate { value: 0.1, interval: None });
        assert_eq!(ctr(&sums(&[(0, 1, 3, 1_000)])), None, "clicks without impressions are no rate");
        let alike = sums(&vec![(10, 1, 3, 1_000); 50]);
        let estimate = ctr(&alike).expect("impressions").estimate();
        let [low, high] = estimate.interval.expect("of many users");
        assert!((low - 0.1).abs() < 1e-9 && (high - 0.1).abs() < 1e-9, "no variance is no number below 0: {estimate:?}");
    }

    #[test]
    fn a_verdict_needs_an_interval_on_one_side_and_enough_users() {
        let arm = |clicks: [i32; 2], users: usize| {
            let users: Vec<_> = (0..users).map(|n| (10, clicks[n % 2], 0, 0)).collect();
            ctr(&sums(&users)).expect("impressions")
        };
        let (low, high, same) = (arm([1, 2], 40), arm([4, 6], 40), arm([2, 1], 40));
        assert_eq!(high.less(&low).verdict, Verdict::Ahead);
        assert_eq!(low.less(&high).verdict, Verdict::Behind);
        assert_eq!(same.less(&low).verdict, Verdict::Undecided);
        let difference = high.less(&low).estimate;
        assert!((difference.value - 0.35).abs() < 1e-12 && difference.interval.is_some_and(|[from, _]| from > 0.3));
        assert_eq!(arm([4, 6], 29).less(&low).verdict, Verdict::Undecided, "one user too few");
    }

    /// Numbers that look drawn, the same in every run.
    struct Drawn(u64);

    impl Drawn {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((self.0 >> 33) as f64 + 0.5) / (1u64 << 31) as f64
        }

        /// A user whose impressions, taste and pauses are their own: events of one user are far from independent.
        fn user(&mut self, rate: f64) -> (i32, i32, i32, i64) {
            let impressions = 1 + (-libm::log(self.next()) * 15.0) as i32;
            let own = rate * 2.0 * self.next();
            let clicks = (0..impressions).filter(|_| self.next() < own).count() as i32;
            let dwell_ms = (-libm::log(self.next()) * 20_000.0) as i64;
            (impressions, clicks, 0, dwell_ms)
        }

        fn arm(&mut self, users: usize, rate: f64) -> Sums {
            let users: Vec<_> = (0..users).map(|_| self.user(rate)).collect();
            sums(&users)
        }
    }

    #[test]
    fn nineteen_of_twenty_intervals_hold_the_truth() {
        let (mut drawn, rounds, rate) = (Drawn(7), 2_000, 0.1);
        let holds = |interval: Option<[f64; 2]>, truth: f64| interval.is_some_and(|[low, high]| low <= truth && truth <= high);
        // what the mean of the draws comes to, of as many users as are in all rounds together
        let truth = engagement_seconds(&Drawn(11).arm(400_000, rate)).expect("users").value;
        let (mut rates, mut differences, mut times, mut wrong) = (0, 0, 0, 0);
        for _ in 0..rounds {
            let (a, b) = (drawn.arm(200, rate), drawn.arm(200, rate));
            let (first, second) = (ctr(&a).expect("impressions"), ctr(&b).expect("impressions"));
            rates += usize::from(holds(first.estimate().interval, rate));
            let difference = second.less(&first);
            differences += usize::from(holds(difference.estimate.interval, 0.0));
            wrong += usize::from(difference.verdict != Verdict::Undecided);
            times += usize::from(holds(engagement_seconds(&a).expect("users").estimate().interval, truth));
        }
        let share = |count: usize| count as f64 / rounds as f64;
        for (what, held) in [("rates", rates), ("differences", differences), ("times", times)] {
            assert!((0.925..0.97).contains(&share(held)), "{what}: {}", share(held));
        }
        assert_eq!(wrong + differences, rounds, "a verdict is an interval without 0");
    }

    /// The same users, taken for independent events: what the delta method is there for.
    #[test]
    fn intervals_over_events_would_be_too_narrow() {
        let (mut drawn, rounds, rate) = (Drawn(3), 500, 0.1);
        let naive = |sums: &Sums| {
            let (p, n) = (sums.clicks as f64 / sums.impressions as f64, sums.impressions as f64);
            let [low, high] = around(p, p * (1.0 - p) / n);
            low <= rate && rate <= high
        };
        let held = (0..rounds).filter(|_| naive(&drawn.arm(200, rate))).count() as f64 / f64::from(rounds);
        assert!(held < 0.92, "{held}");
    }
}
