//! What partitions hold, and where reading them begins. A position outside of what its partition holds is never read from: records
//! would be missing without a word.

use std::collections::BTreeMap;

use super::{Positions, Role, SourceError};
use crate::model::epoch::BEGIN_ANEW;

/// First offset and the one after the last, of every partition.
pub type Ranges = BTreeMap<(Role, u32), (u64, u64)>;

/// Whether a reader cannot go on at `offset`.
pub fn outside(offset: u64, (first, end): (u64, u64)) -> bool {
    offset < first || offset > end
}

/// Why not.
pub fn out_of_range(topic: &str, (role, partition): (Role, u32), offset: u64, (first, end): (u64, u64)) -> SourceError {
    let (missing, why) = match offset < first {
        true => (offset..first, "retention took them before they were read"),
        false => (end..offset, "the topic was emptied or created anew"),
    };
    SourceError::Stop(format!(
        "{}/{partition}: offset {offset} is not in topic {topic}, which holds {first}..{end}: records {}..{} are gone ({why}?). Bring \
         them back, or {BEGIN_ANEW} with what is there",
        role.name(),
        missing.start,
        missing.end,
    ))
}

/// Every partition's next offset: what `start` says, or its first record. `topic` names that of a role.
pub fn positions<'a>(ranges: &Ranges, start: &Positions, topic: impl Fn(Role) -> &'a str) -> Result<Positions, SourceError> {
    let position = |(place, held): (&(Role, u32), &(u64, u64))| match start.get(place) {
        Some(offset) if outside(*offset, *held) => Err(out_of_range(topic(place.0), *place, *offset, *held)),
        Some(offset) => Ok((*place, *offset)),
        None => Ok((*place, held.0)),
    };
    ranges.iter().map(position).collect()
}
