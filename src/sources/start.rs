//! Where partitions begin when nothing is recorded. What is recorded always wins.

use std::str::FromStr;

use super::{Positions, Role, SourceError};

/// `[source] start`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    /// The partitions named here; the others at their first record.
    At(Positions),
}

impl Start {
    /// The recorded positions, completed; `ends` is asked only when it matters. What stays out begins at its first record.
    pub fn with(
        self,
        recorded: Positions,
        ends: impl FnOnce() -> Result<Positions, SourceError>,
    ) -> Result<Positions, SourceError> {
        let mut from = match self {
            // With something recorded, a partition that is not in it is newer, and all of it is new.
            Start::Latest if recorded.is_empty() => ends()?,
            Start::Earliest | Start::Latest => Positions::new(),
            Start::At(positions) => positions,
        };
        from.extend(recorded);
        Ok(from)
    }
}

impl FromStr for Start {
    type Err = String;

    /// `earliest`, `latest`, or `events/0=1200,events/1=900`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "earliest" => Ok(Start::Earliest),
            "latest" => Ok(Start::Latest),
            places => parse_places(places).map(Start::At),
        }
    }
}

fn parse_places(text: &str) -> Result<Positions, String> {
    let mut positions = Positions::new();
    for part in text.split(',').map(str::trim) {
        let (place, offset) = parse_place(part).ok_or_else(|| {
            format!("`{part}` in [source] start is not a place; write earliest, latest, or events/0=1200,events/1=900")
        })?;
        if positions.insert(place, offset).is_some() {
            return Err(format!("[source] start names {}/{} twice; leave one out", place.0.name(), place.1));
        }
    }
    Ok(positions)
}

fn parse_place(text: &str) -> Option<((Role, u32), u64)> {
    let (place, offset) = text.split_once('=')?;
    let (role, partition) = place.split_once('/')?;
    let role = Role::ALL.into_iter().find(|r| r.name() == role)?;
    Some(((role, partition.parse().ok()?), offset.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms() {
        assert_eq!("earliest".parse(), Ok(Start::Earliest));
        assert_eq!("latest".parse(), Ok(Start::Latest));
        let places = Positions::from([((Role::Events, 0), 1200), ((Role::Users, 0), 9)]);
        assert_eq!("events/0=1200, users/0=9".parse(), Ok(Start::At(places)));
    }

    #[test]
    fn a_mistake_is_named() {
        for wrong in ["", "first", "events=3", "events/0", "likes/0=3", "events/0=-1", "events/0=1,,"] {
            let error = wrong.parse::<Start>().expect_err(wrong);
            assert!(error.contains("is not a place; write earliest, latest"), "{error}");
        }
        let twice = "events/0=1,events/0=2".parse::<Start>().expect_err("twice");
        assert_eq!(twice, "[source] start names events/0 twice; leave one out");
    }

    #[test]
    fn what_is_recorded_wins_over_where_to_start() {
        let recorded = Positions::from([((Role::Events, 0), 7)]);
        let all = Positions::from([((Role::Events, 0), 100), ((Role::Events, 1), 50)]);
        let from = |start: Start, recorded: &Positions| start.with(recorded.clone(), || Ok(all.clone())).expect("ends are known");
        assert_eq!(from(Start::Latest, &recorded), recorded, "the other was gained since: it is read from its first record");
        assert_eq!(from(Start::Latest, &Positions::new()), all);
        let named = Positions::from([((Role::Events, 0), 3), ((Role::Events, 1), 4)]);
        assert_eq!(from(Start::At(named), &recorded), Positions::from([((Role::Events, 0), 7), ((Role::Events, 1), 4)]));
    }
}
