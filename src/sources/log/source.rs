//! All partitions of the embedded log as a source. Readers take no lock, so they never hold an appender up.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bell::Bell;
use super::segment::Cursor;
use super::{Params, name, partition_folder, partitions, prepare};
use crate::sources::{Positions, Record, Role, Room, Source, SourceError, refuse_unknown};

/// How often a waiting reader looks for what other processes appended.
const LOOK: Duration = Duration::from_millis(2);

/// Reads every role and partition.
pub struct LogSource {
    cursors: Vec<(Role, u32, Cursor)>,
    bell: Arc<Bell>,
    /// Which partition is looked at first: each in turn, so that none starves.
    turn: usize,
    /// An error met after records had been handed out: told by the next poll.
    held: Option<SourceError>,
}

impl LogSource {
    /// Opens the log in `dir` (made if it is not there) at `start`; a partition that `start` leaves out begins at its first
    /// record. `Stop` when a position is outside of what the log holds, or the log has more partitions than `params` says.
    pub fn open(dir: &Path, params: &Params, start: Positions) -> Result<Self, SourceError> {
        prepare(dir, params).map_err(SourceError::Stop)?;
        let all: Vec<_> = partitions(params).collect();
        refuse_unknown(&start, |place| all.contains(place), &format!("the log in {}", dir.display()))?;
        let bell = Bell::of(dir).map_err(|e| SourceError::Stop(format!("cannot find {}: {e}", dir.display())))?;
        let cursors = all.into_iter().map(|(role, partition)| {
            let at = start.get(&(role, partition)).copied();
            let cursor = Cursor::open(&partition_folder(dir, role, partition), &name(role, partition), at)?;
            Ok((role, partition, cursor))
        });
        Ok(Self { cursors: cursors.collect::<Result<_, SourceError>>()?, bell, turn: 0, held: None })
    }

    /// What is there now, at most `max` records, an equal share from each partition that has as many.
    fn take(&mut self, max: usize, into: &mut Vec<Record>) -> Result<(), SourceError> {
        let count = self.cursors.len();
        let mut room = Room::of(max);
        self.turn = (self.turn + 1) % count;
        let mut idle = 0;
        for i in (0..count).cycle() {
            let share = room.left().div_ceil(count);
            if share == 0 || idle == count {
                break;
            }
            let taken = take_some(&mut self.cursors[(self.turn + i) % count], share, &mut room, into)?;
            idle = if taken < share { idle + 1 } else { 0 };
        }
        Ok(())
    }
}

fn take_some(
    (role, partition, cursor): &mut (Role, u32, Cursor),
    max: usize,
    room: &mut Room,
    into: &mut Vec<Record>,
) -> Result<usize, SourceError> {
    let mut taken = 0;
    while taken < max && room.left() > 0 {
        let offset = cursor.next_offset();
        let Some(frame) = cursor.read()? else { break };
        if frame.blank {
            continue;
        }
        let (key, payload, accepted_ms) = (Some(frame.key), frame.payload, frame.accepted_ms);
        room.take(Record { role: *role, partition: *partition, offset, key, payload, accepted_ms }, into);
        taken += 1;
    }
    Ok(taken)
}

impl Source for LogSource {
    fn poll(&mut self, max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<(), SourceError> {
        if let Some(error) = self.held.take() {
            return Err(error);
        }
        let (before, until) = (into.len(), Instant::now() + wait);
        loop {
            let rung = self.bell.count();
            let taken = self.take(max, into);
            if into.len() > before {
                self.held = taken.err();
                return Ok(());
            }
            taken?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.bell.wait(rung, left.min(LOOK));
        }
    }

    fn positions(&self) -> Positions {
        self.cursors.iter().map(|(role, partition, cursor)| ((*role, *partition), cursor.next_offset())).collect()
    }
}
