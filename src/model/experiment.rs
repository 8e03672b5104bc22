//! What users did in the arms of experiments: of one user, and summed over those of an arm.
//!
//! The fact that must stay true: everything is a sum of integers over records that count now, so what is taken back leaves no trace and
//! parts of workers add up. Sums of squares and products over users are kept too: intervals are over users, not over events.

use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

use super::kind::Kind;
use super::time::{HOUR, Millis};

/// The arm a user is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Variant {
    pub experiment: String,
    pub arm: String,
}

/// No single record counts for more time than this.
const LONGEST: Millis = HOUR;

/// What one user did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records of any kind.
    pub records: i32,
    pub impressions: i32,
    pub clicks: i32,
    /// Everything else that is positive.
    pub taken: i32,
    /// Time spent, as views and dwells say it.
    pub dwell_ms: i64,
}

impl Counts {
    /// One record more (`diff` 1) or less (-1).
    pub fn add(&mut self, kind: Kind, value_milli: Option<i32>, diff: i64) {
        let one = diff as i32;
        self.records += one;
        match kind {
            Kind::Impression => self.impressions += one,
            Kind::Click => self.clicks += one,
            kind if kind.is_positive() => self.taken += one,
            _ => {}
        }
        if let (Kind::View | Kind::Dwell, Some(spent)) = (kind, value_milli) {
            self.dwell_ms += i64::from(spent).clamp(0, LONGEST) * diff;
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.impressions += other.impressions;
        self.clicks += other.clicks;
        self.taken += other.taken;
        self.dwell_ms += other.dwell_ms;
    }
}

/// Sums over the users of an arm; of squares and products where an interval needs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Those with a record that counts.
    pub users: i64,
    pub impressions: i64,
    pub clicks: i64,
    pub taken: i64,
    pub dwell_ms: i64,
    pub impressions_squared: i128,
    pub clicks_squared: i128,
    pub clicks_by_impressions: i128,
    pub taken_squared: i128,
    pub dwell_squared: i128,
    /// Those with an impression that counts.
    pub shown: i64,
}

impl Sums {
    /// Of one user.
    pub fn of(counts: &Counts) -> Self {
        let Counts { records, impressions, clicks, taken, dwell_ms } = *counts;
        let [i, c, t] = [impressions, clicks, taken].map(i128::from);
        Self {
            users: i64::from(records != 0),
            impressions: impressions.into(),
            clicks: clicks.into(),
            taken: taken.into(),
            dwell_ms,
            impressions_squared: i * i,
            clicks_squared: c * c,
            clicks_by_impressions: c * i,
            taken_squared: t * t,
            dwell_squared: i128::from(dwell_ms).pow(2),
            shown: i64::from(impressions != 0),
        }
    }

    /// Adds another part so many times: 1, or -1 to take it out.
    pub fn add(&mut self, other: &Self, times: i64) {
        self.users += other.users * times;
        self.impressions += other.impressions * times;
        self.clicks += other.clicks * times;
        self.taken += other.taken * times;
        self.dwell_ms += other.dwell_ms * times;
        self.shown += other.shown * times;
        let times = i128::from(times);
        self.impressions_squared += other.impressions_squared * times;
        self.clicks_squared += other.clicks_squared * times;
        self.clicks_by_impressions += other.clicks_by_impressions * times;
        self.taken_squared += other.taken_squared * times;
        self.dwell_squared += other.dwell_squared * times;
    }

    /// All of them, in the stored order.
    pub fn numbers(&self) -> [i128; 11] {
        [
            self.users.into(),
            self.impressions.into(),
            self.clicks.into(),
            self.taken.into(),
            self.dwell_ms.into(),
            self.impressions_squared,
            self.clicks_squared,
            self.clicks_by_impressions,
            self.taken_squared,
            self.dwell_squared,
            self.shown.into(),
        ]
    }

    /// Of [`Sums::numbers`]; `None` where one is too large to be one of ours.
    pub fn from_numbers(numbers: [i128; 11]) -> Option<Self> {
        let [users, impressions, clicks, taken, dwell_ms, squares @ ..] = numbers;
        let [impressions_squared, clicks_squared, clicks_by_impressions, taken_squared, dwell_squared, shown] = squares;
        Some(Self {
            users: users.try_into().ok()?,
            impressions: impressions.try_into().ok()?,
            clicks: clicks.try_into().ok()?,
            taken: taken.try_into().ok()?,
            dwell_ms: dwell_ms.try_into().ok()?,
            impressions_squared,
            clicks_squared,
            clicks_by_impressions,
            taken_squared,
            dwell_squared,
            shown: shown.try_into().ok()?,
        })
    }
}

/// For whom an experiment is, where it is not for everybody: every criterion that is given holds of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whom {
    /// Of their profiles, as the settings spell them: one of these; none: any.
    pub languages: Vec<String>,
    pub cities: Vec<String>,
    pub interests: Vec<String>,
    /// How many are named; `None`: nobody is.
    pub users: Option<u32>,
}

/// One arm, and what its users did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    pub name: String,
    /// By what it ranks, as the settings spell it.
    pub ranks: String,
    pub sums: Sums,
}

/// An experiment and how its arms stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    pub name: String,
    /// The share of the users who take part.
    pub rollout: f64,
    /// `None`: of all of them.
    pub whom: Option<Whom>,
    /// The clock when it began with these arms.
    pub began: Millis,
    /// In the order of the settings; the others are held against the first.
    pub arms: Vec<Arm>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_and_taken_back_leaves_nothing() {
        let acts = [
            (Kind::Impression, None),
            (Kind::Impression, Some(9_000)),
            (Kind::Click, Some(4_000)),
            (Kind::Like, None),
            (Kind::View, Some(2_500)),
            (Kind::Dwell, Some(i32::MAX)),
            (Kind::Dwell, Some(-5)),
            (Kind::Hide, None),
        ];
        let mut counts = Counts::default();
        acts.iter().for_each(|(kind, value)| counts.add(*kind, *value, 1));
        let dwell_ms = 2_500 + LONGEST;
        assert_eq!(counts, Counts { records: 8, impressions: 2, clicks: 1, taken: 4, dwell_ms });
        let sums = Sums::of(&counts);
        let squares = [4, 1, 2, 16, i128::from(dwell_ms).pow(2), 1];
        assert_eq!(sums.numbers(), [&[1, 2, 1, 4, i128::from(dwell_ms)][..], &squares].concat()[..]);
        assert_eq!(Sums::from_numbers(sums.numbers()), Some(sums));
        assert_eq!(Sums::from_numbers([i128::MAX; 11]), None);
        let mut all = Sums::default();
        all.add(&sums, 1);
        all.add(&sums, -1);
        acts.iter().for_each(|(kind, value)| counts.add(*kind, *value, -1));
        assert_eq!((all, counts, Sums::of(&counts)), (Sums::default(), Counts::default(), Sums::default()));
    }
}
