//! Whose turn it is to be told again: a store lets go of what it does not hear of, so every key group has its turn once in
//! [`AGAIN_AFTER`], by the clock of the epochs.

use serde::{Deserialize, Serialize};

use crate::model::ids::KEY_GROUPS;
use crate::model::time::{HOUR, Millis};

/// How long until what did not change is told again.
pub const AGAIN_AFTER: Millis = 6 * HOUR;

/// The part of [`AGAIN_AFTER`] in which the last tick was; a key group has its turn in each.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Turns(Option<i64>);

impl Turns {
    /// The key groups whose turn came since the last time this was asked.
    pub fn due(&mut self, clock: Millis) -> impl Iterator<Item = u16> + use<> {
        let groups = KEY_GROUPS as i64;
        let part = clock.div_euclid(AGAIN_AFTER / groups);
        let before = self.0.replace(part).unwrap_or(part);
        ((before + 1).max(part - groups + 1)..=part).map(move |turn| turn.rem_euclid(groups) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_its_turn_once_in_the_time_however_the_clock_jumps() {
        let mut turns = Turns::default();
        assert_eq!(turns.due(5_000_000).count(), 0, "nothing is due when it begins");
        let mut told = vec![0; KEY_GROUPS as usize];
        for step in [1, AGAIN_AFTER / 3, AGAIN_AFTER / 2] {
            turns.due(5_000_000 + step).for_each(|group| told[usize::from(group)] += 1);
        }
        turns.due(5_000_000 + AGAIN_AFTER).for_each(|group| told[usize::from(group)] += 1);
        assert!(told.iter().all(|n| *n == 1), "{told:?}");
        assert_eq!(turns.due(5_000_000 + 10 * AGAIN_AFTER).count(), KEY_GROUPS as usize, "after a long pause each once");
        assert_eq!(turns.due(5_000_000).count(), 0, "a clock that goes back tells nothing");
    }
}
