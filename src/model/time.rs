//! Milliseconds of event time, the windows, and the one rule that says which pane a moment belongs to.

use serde::{Deserialize, Serialize};

/// A moment of event time, in milliseconds since 1970.
pub type Millis = i64;

pub const SECOND: Millis = 1_000;
pub const MINUTE: Millis = 60 * SECOND;
pub const HOUR: Millis = 60 * MINUTE;
pub const DAY: Millis = 24 * HOUR;

/// The time of day. Only the edges ask; inside, the clock is the epoch's.
pub fn now_ms() -> Millis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as Millis
}

/// A sliding window. A record of event time `t` counts at clock `T` while
/// `floor(T/r) - W/r < floor(t/r) <= floor(T/r)`, with `r` the window's resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Window {
    M1,
    M5,
    M15,
    H1,
    H24,
}

impl Window {
    /// Every window, shortest first; the order is part of the stored layouts.
    pub const ALL: [Window; 5] = [Window::M1, Window::M5, Window::M15, Window::H1, Window::H24];

    /// How long it is.
    pub fn width(self) -> Millis {
        match self {
            Window::M1 => MINUTE,
            Window::M5 => 5 * MINUTE,
            Window::M15 => 15 * MINUTE,
            Window::H1 => HOUR,
            Window::H24 => DAY,
        }
    }

    /// The width of its panes.
    pub fn resolution(self) -> Millis {
        match self {
            Window::M1 | Window::M5 | Window::M15 => 5 * SECOND,
            Window::H1 => MINUTE,
            Window::H24 => 10 * MINUTE,
        }
    }

    /// What it is called: `1m`, `5m`, `15m`, `1h`, `24h`.
    pub fn name(self) -> &'static str {
        match self {
            Window::M1 => "1m",
            Window::M5 => "5m",
            Window::M15 => "15m",
            Window::H1 => "1h",
            Window::H24 => "24h",
        }
    }

    /// Whether a record of time `at` counts in this window at `clock`.
    pub fn holds(self, at: Millis, clock: Millis) -> bool {
        let (pane, now) = (at.div_euclid(self.resolution()), clock.div_euclid(self.resolution()));
        now - self.width() / self.resolution() < pane && pane <= now
    }
}

/// Durations as people write them (`90s`, `7d`), for serde: `#[serde(with = "crate::model::time::millis")]`.
pub mod millis {
    use super::Millis;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// `7d` as milliseconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Millis, D::Error> {
        let text = String::deserialize(from)?;
        let parsed =
            humantime::parse_duration(&text).map_err(|e| D::Error::custom(format!("`{text}` is not a duration: {e}")))?;
        Ok(parsed.as_millis() as Millis)
    }

    /// Milliseconds as `7d`.
    pub fn serialize<S: Serializer>(millis: &Millis, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(std::time::Duration::from_millis(*millis as u64)))
    }
}

/// The same where there may be none.
pub mod maybe_millis {
    use super::{Millis, millis};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Span(#[serde(with = "millis")] Millis);

    /// `7d` as milliseconds.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Millis>, D::Error> {
        Ok(Option::<Span>::deserialize(from)?.map(|Span(span)| span))
    }

    /// Milliseconds as `7d`.
    pub fn serialize<S: Serializer>(span: &Option<Millis>, to: S) -> Result<S::Ok, S::Error> {
        span.map(Span).serialize(to)
    }
}

/// The same for `std::time::Duration`: `#[serde(with = "crate::model::time::span")]`.
pub mod span {
    use serde::{Deserializer, Serializer};
    use std::time::Duration;

    /// `250ms` as a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        super::millis::deserialize(from).map(|ms| Duration::from_millis(ms as u64))
    }

    /// A duration as `250ms`.
    pub fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_takes_its_last_pane_and_drops_the_one_before_the_first() {
        let clock = 1_000_000_000;
        assert!(Window::M1.holds(clock, clock));
        assert!(Window::M1.holds(clock + 4_999, clock), "same pane as the clock");
        assert!(!Window::M1.holds(clock + 5_000, clock), "not yet");
        assert!(Window::M1.holds(clock - 55_000, clock));
        assert!(!Window::M1.holds(clock - 55_001, clock));
    }
}
