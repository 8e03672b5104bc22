//! When it is time to train again. Pure.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

use crate::model::time::{DAY, Millis};

/// An hour of the day, UTC, as `02:00`; empty: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Daily(Option<u16>);

const MINUTE: Millis = 60_000;

impl TryFrom<String> for Daily {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let digits = |part: &str| part.parse::<u16>().ok().filter(|_| part.len() == 2 && !part.starts_with('+'));
        let minute = text.split_once(':').and_then(|(hour, minute)| {
            let (hour, minute) = (digits(hour)?, digits(minute)?);
            (hour < 24 && minute < 60).then_some(hour * 60 + minute)
        });
        minute
            .map(|minute| Self(Some(minute)))
            .ok_or_else(|| format!("`{text}` is no hour of the day; write it as 02:00, or empty"))
    }
}

impl From<Daily> for String {
    fn from(daily: Daily) -> String {
        daily.to_string()
    }
}

impl fmt::Display for Daily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |minute| write!(f, "{:02}:{:02}", minute / 60, minute % 60))
    }
}

impl Daily {
    /// The first such hour after a moment.
    fn after(self, at: Millis) -> Option<Millis> {
        let hour = at - at.rem_euclid(DAY) + Millis::from(self.0?) * MINUTE;
        Some(if hour > at { hour } else { hour + DAY })
    }
}

/// When training that last began at a moment is due again: at the hour, or when `every` has passed, whichever is first; 0: it does not.
pub fn next(last: Millis, at: Daily, every: Duration) -> Option<Millis> {
    let passed = (!every.is_zero()).then(|| last + every.as_millis() as Millis);
    at.after(last).into_iter().chain(passed).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c35_training_is_due_at_its_hour_every_day_and_when_so_long_has_passed() {
        let daily = |text: &str| Daily::try_from(text.to_string()).expect("an hour");
        let (two, never) = (daily("02:00"), Duration::ZERO);
        assert_eq!(next(0, two, never), Some(2 * 60 * MINUTE));
        assert_eq!(next(2 * 60 * MINUTE, two, never), Some(DAY + 2 * 60 * MINUTE), "an hour that has come is over");
        assert_eq!(next(DAY - 1, daily("00:00"), never), Some(DAY));
        assert_eq!(next(7, daily(""), never), None);
        assert_eq!(next(7, daily(""), Duration::from_secs(1)), Some(1_007));
        assert_eq!(next(0, two, Duration::from_secs(60)), Some(MINUTE), "whichever is first");
        assert_eq!(next(2 * 60 * MINUTE - 1, two, Duration::from_secs(60)), Some(2 * 60 * MINUTE));
        for text in ["02:00", "23:59", ""] {
            assert_eq!(daily(text).to_string(), text);
        }
        for wrong in ["2:00", "24:00", "02:60", "02", "02:0x", "+2:00", "02:00:00"] {
            assert!(Daily::try_from(wrong.to_string()).is_err_and(|why| why.contains("write it as 02:00")), "{wrong}");
        }
    }
}
