//! Signals as features: counts, weighted sums and rates.

use std::collections::BTreeMap;

use super::fields::{decimal, join, number, push_when, put_decimal, put_whole, split};
use super::{Fence, Fields, LayoutError};
use crate::model::time::{Millis, Window};
use crate::model::{Kind, Signals};

/// Features of a user, an item, a category or an author.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// The clock of the epoch that wrote them.
    pub as_of: Millis,
    pub epoch: u64,
    /// In the order of [`Window::ALL`].
    pub windows: [WindowFeatures; Window::ALL.len()],
    /// (interactions a minute over 5m − over 1h) / √(over 1h).
    pub velocity: f64,
    /// Sum of weights, half-life 7 days by default.
    pub decayed: f64,
    /// Smoothed, 0 to 1.
    pub ctr: f64,
    /// Smoothed, 0 to 1.
    pub engagement: f64,
}

/// What happened in one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WindowFeatures {
    /// Only kinds that occurred.
    pub counts: BTreeMap<Kind, u32>,
    pub weighted: f64,
}

impl Features {
    /// The features of one window.
    pub fn window(&self, window: Window) -> &WindowFeatures {
        &self.windows[window as usize]
    }
}

/// The hash of a key's signals. A kind or the weighted sum is one field for all windows: what a write costs Redis grows with the square
/// of the number of fields.
pub fn encode_features(signals: &Signals, as_of: Millis, fence: Fence) -> Fields {
    let mut fields = Vec::with_capacity(8 + signals.counts.len());
    let occurred = signals.counts.iter().filter(|(_, windows)| windows.iter().any(|n| *n > 0));
    fields.extend(occurred.map(|(kind, windows)| (kind.name().into(), join(windows.iter().copied(), put_whole))));
    fields.push((WEIGHTED.into(), join(signals.weighted_milli.iter().map(|milli| *milli as f64 / 1000.0), put_decimal)));
    let numbers =
        [("velocity", signals.velocity), ("decayed", signals.decayed), ("ctr", signals.ctr), ("engagement", signals.engagement)];
    fields.extend(numbers.map(|(name, value)| (name.into(), decimal(value))));
    push_when(&mut fields, as_of, fence);
    fields
}

/// Reads the hash of a key's signals. Fields it does not know are skipped: later versions may add some.
pub fn decode_features(fields: &BTreeMap<String, String>) -> Result<Features, LayoutError> {
    let mut features = Features {
        as_of: number(fields, "as_of")?,
        epoch: number(fields, "epoch")?,
        velocity: number(fields, "velocity")?,
        decayed: number(fields, "decayed")?,
        ctr: number(fields, "ctr")?,
        engagement: number(fields, "engagement")?,
        windows: Default::default(),
    };
    let weighted = fields.get(WEIGHTED).ok_or(LayoutError::Missing(WEIGHTED))?;
    for (window, sum) in features.windows.iter_mut().zip(decode_weighted(weighted)?) {
        window.weighted = sum;
    }
    for (field, value) in fields {
        let Some(kind) = Kind::parse(field) else { continue };
        for (window, n) in features.windows.iter_mut().zip(split::<u32, { Window::ALL.len() }>(field, value)?) {
            if n > 0 {
                window.counts.insert(kind, n);
            }
        }
    }
    Ok(features)
}

/// The field that has the weighted sum of every window.
pub const WEIGHTED: &str = "weighted";

/// Reads that field alone.
pub fn decode_weighted(field: &str) -> Result<[f64; Window::ALL.len()], LayoutError> {
    split(WEIGHTED, field)
}

#[cfg(test)]
mod tests {
    use super::super::as_map;
    use super::*;

    #[test]
    fn features_round_trip() {
        let counts = vec![(Kind::View, [0, 2, 3, 4, 5]), (Kind::NotInterested, [0, 0, 0, 0, 1])];
        let signals = Signals {
            counts,
            decayed: 1.0 / 3.0,
            velocity: -2.5e-9,
            ctr: 0.05,
            engagement: 1.0,
            weighted_milli: [0, 2_000, 3_000, 4_000, 3_001],
        };
        let fields = as_map(&encode_features(&signals, 1_763_600_000_000, Fence { epoch: 42, generation: 3 }));
        assert_eq!((fields["view"].as_str(), fields["not_interested"].as_str()), ("0,2,3,4,5", "0,0,0,0,1"));
        assert_eq!(fields.get("like"), None, "a kind that did not occur is not written");
        assert_eq!(fields["weighted"], "0.0,2.0,3.0,4.0,3.001");
        let read = decode_features(&fields).expect("what was written");
        assert_eq!((read.as_of, read.epoch), (1_763_600_000_000, 42));
        assert_eq!((read.decayed, read.velocity, read.ctr, read.engagement), (1.0 / 3.0, -2.5e-9, 0.05, 1.0));
        assert_eq!(read.window(Window::H24).counts, [(Kind::View, 5), (Kind::NotInterested, 1)].into());
        assert_eq!(read.windows.clone().map(|w| w.weighted), [0.0, 2.0, 3.0, 4.0, 3.001]);

        let mut odd = fields.clone();
        odd.insert("view".into(), "0,two,3,4,5".into());
        let wrong = LayoutError::Number { field: "view".into(), value: "two".into() };
        assert_eq!(decode_features(&odd), Err(wrong));
        odd.insert("view".into(), "0,2,3,4".into());
        let wrong = LayoutError::Numbers { field: "view".into(), value: "0,2,3,4".into(), expected: 5 };
        assert_eq!(decode_features(&odd), Err(wrong));
        assert_eq!(decode_features(&BTreeMap::new()), Err(LayoutError::Missing("as_of")));
    }
}
