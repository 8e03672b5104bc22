//! An epoch: a definite piece of the input and the only clock the dataflow knows.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::ids::key_group;
use super::interaction::Role;
use super::time::Millis;

/// What every operator is told of an epoch. Everything in it was decided when the input was cut, and is replayed as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// The dataflow's timestamp.
    pub number: u64,
    /// "Now".
    pub clock_ms: Millis,
    /// No event older than this is expected any more; what comes all the same is late.
    pub watermark_ms: Millis,
    /// Stages with a slower cadence (trending, neighbours, scheduled refreshes) act in this epoch.
    pub tick: bool,
    /// How many users may be refreshed, in 1/1024 of a user per key group; `None`: as many as ask.
    pub refreshes: Option<u32>,
    /// Operators hand over what they keep once they have passed this epoch.
    pub save: bool,
    /// Everything of these key groups, from the first up to the second, is said once more: the store has lost it.
    pub retell: Option<(u16, u16)>,
}

impl Epoch {
    /// Whether everything of the key with this hash is said once more.
    pub fn retells(&self, hash: u64) -> bool {
        self.retell.is_some_and(|(from, to)| (from..to).contains(&key_group(hash)))
    }
}

/// Next offset to read, by role and partition.
pub type Positions = BTreeMap<(Role, u32), u64>;

/// An epoch and the offsets it holds: from these two everything downstream can be made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    pub epoch: Epoch,
    /// First offset, and the one after the last.
    #[serde(with = "pairs")]
    pub offsets: BTreeMap<(Role, u32), (u64, u64)>,
    pub pace: Pace,
}

/// How the input runs: what, beside the last epoch, decides when the next one ticks and how many refreshes it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Records since the last tick.
    pub unticked: u64,
    /// Full epochs in a row.
    pub full: u32,
}

/// Maps whose keys are no strings, as lists of pairs.
pub mod pairs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;

    /// A map as a list.
    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(map: &BTreeMap<K, V>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(map)
    }

    /// A list as a map.
    pub fn deserialize<'de, K, V, D>(from: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Vec::<(K, V)>::deserialize(from).map(BTreeMap::from_iter)
    }
}
