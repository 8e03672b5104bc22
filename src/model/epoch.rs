//! An epoch: a definite piece of the input and the only clock the dataflow knows.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::ids::{KEY_GROUPS, key_group};
use super::interaction::Role;
use super::serving::{Refusal, Serving};
use super::time::Millis;

/// What every operator is told of an epoch. Everything in it was decided when the input was cut, and is replayed as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// The dataflow's timestamp.
    pub number: u64,
    /// "Now".
    pub clock_ms: Millis,
    /// No event older than this is expected any more; what comes all the same is late.
    pub watermark_ms: Millis,
    /// The key groups whose slower stages have their turn.
    pub turn: Turn,
    /// How many users may be refreshed, in 1/1024 of a user per key group; `None`: as many as ask.
    pub refreshes: Option<u32>,
    /// Operators hand over what they keep once they have passed this epoch.
    pub save: bool,
    /// Everything of these key groups, from the first up to the second, is said once more: the store has lost it.
    pub retell: Option<(u16, u16)>,
    /// The version that ranks, by its id; `None`: what the settings name.
    #[serde(default)]
    pub model: Option<u64>,
}

/// Key groups, from the first up to the second, whose neighbours are told in an epoch: a few at a time, so that no epoch waits for all.
/// With the last of them a round is complete, and what belongs to no key group (trending) acts too: a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Turn {
    pub from: u16,
    pub to: u16,
}

impl Turn {
    /// A whole round in one epoch.
    pub const ALL: Self = Self { from: 0, to: KEY_GROUPS as u16 };
    /// Nobody's turn.
    pub const NONE: Self = Self { from: 0, to: 0 };

    /// A whole round, or nothing.
    pub fn all_if(whole: bool) -> Self {
        if whole { Self::ALL } else { Self::NONE }
    }
}

impl Epoch {
    /// Whether this epoch completes a round of turns: stages with a slower cadence act.
    pub fn tick(&self) -> bool {
        self.turn.to == Turn::ALL.to
    }

    /// Whether everything of the key with this hash is said once more.
    pub fn retells(&self, hash: u64) -> bool {
        self.retell.is_some_and(|(from, to)| (from..to).contains(&key_group(hash)))
    }
}

/// Next offset to read, by role and partition.
pub type Positions = BTreeMap<(Role, u32), u64>;

/// A topic: its name, and the id it was given when it was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicId {
    pub name: String,
    pub id: String,
}

/// How an operator begins anew, where what was kept cannot be gone on from.
pub const BEGIN_ANEW: &str = "move the state away ([recovery] url, or the folder `state` under state_dir) to begin anew";

/// The topic of each role, as far as they are known.
pub type TopicIds = BTreeMap<Role, TopicId>;

impl TopicId {
    /// Why what was read of this one does not go on with another.
    pub fn replaced_by(&self, name: &str, id: &str) -> String {
        format!(
            "topic {name} has the id {id}, but what was read is of topic {} with the id {}: it was deleted and created anew, or another \
             one is named. Their records do not belong together. Give the old one back, or {BEGIN_ANEW}",
            self.name, self.id
        )
    }
}

/// An epoch and the offsets it holds: from these two everything downstream can be made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    pub epoch: Epoch,
    /// First offset, and the one after the last.
    #[serde(with = "pairs")]
    pub offsets: BTreeMap<(Role, u32), (u64, u64)>,
    pub pace: Pace,
    /// What ranks from this epoch on.
    #[serde(default)]
    pub serving: Serving,
    /// The orders in it to rank by another model that were not followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<Refusal>,
}

/// How the input runs: what, beside the last epoch, decides when the next one ticks and how many refreshes it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Records since the last tick.
    pub unticked: u64,
    /// The first key group that has not had its turn in this round.
    pub turn: u16,
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
