//! How what the store lost is made good: everything is told again, and then what the store still holds from before goes, for
//! nobody told it again. (A failover to an older copy brings back what was deleted since.)
//!
//! ```text
//! Whole ─loss─▶ Asked ─first key groups─▶ Telling ─all told─▶ Told ─all written─▶ Sweeping ─▶ Swept ─mark shown─▶ Whole
//! ```
//! A loss leads to Asked from wherever. What must stay true: whatever is there is told in some epoch of `Telling`, the first among
//! them; so what is older than that epoch when all is written is not there.

use std::collections::BTreeMap;

use crate::model::time::Millis;
use crate::model::{Change, Epoch, ItemId};

/// How far it is.
#[derive(Debug, Default)]
pub(super) enum Rebuild {
    /// The store has everything, as far as anybody knows.
    #[default]
    Whole,
    Asked,
    Telling {
        since: u64,
        gone: BTreeMap<ItemId, Millis>,
    },
    Told {
        since: u64,
    },
    Sweeping {
        since: u64,
    },
    Swept,
}

impl Rebuild {
    /// An epoch in which some key groups may have been told again, with all that it changes.
    pub(super) fn hear(&mut self, epoch: &Epoch, changes: &[Change]) {
        let begins = epoch.retell.is_some_and(|(from, _)| from == 0);
        if begins && !matches!(self, Self::Whole) {
            *self = Self::Telling { since: epoch.number, gone: BTreeMap::new() };
        }
        let Self::Telling { gone, .. } = self else { return };
        for change in changes {
            match change {
                Change::Catalogue(item, true) => drop(gone.remove(item)),
                Change::Catalogue(item, false) => drop(gone.insert(*item, epoch.clock_ms)),
                _ => {}
            }
        }
    }

    /// Everything has been told. Yields the one set that no single key group knows.
    pub(super) fn told(&mut self) -> Option<Change> {
        let Self::Telling { since, gone } = self else { return None };
        let all = Change::AllGone(std::mem::take(gone).into_iter().collect());
        *self = Self::Told { since: *since };
        Some(all)
    }

    /// What was told is in the store.
    pub(super) fn written(&mut self) {
        if let Self::Told { since } = *self {
            *self = Self::Sweeping { since };
        }
    }

    /// The epoch that everything older than goes.
    pub(super) fn sweeps(&self) -> Option<u64> {
        if let Self::Sweeping { since } = self { Some(*since) } else { None }
    }

    /// Whether there is something to do for it.
    pub(super) fn is_due(&self) -> bool {
        matches!(self, Self::Sweeping { .. } | Self::Swept)
    }
}
