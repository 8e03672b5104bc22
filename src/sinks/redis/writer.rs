//! Writes become calls of one script, a few dozen keys in a call and a few hundred in a round trip. A script runs as a whole, so a
//! reader sees the old value of a key or the new one.
//!
//! The fence is looked at here and nowhere else: the script reads the (epoch, generation) that lies in each value, binary ones in
//! the header, hashes in their fields, sorted sets in the member with score −∞, and replaces only what is older.

use redis::{Cmd, Connection, Pipeline, RedisError, Value};
use std::time::Duration;

use super::script::{self, MARK, WRITE};
use crate::sinks::layout::{self, Fields};
use crate::sinks::{Applied, Fence, Found, Known, Sort, Write};

/// Keys in one call: enough to spread the cost of a call, and Redis serves nobody else for less than half a millisecond.
const KEYS: usize = 32;
/// The score of the member that holds the fence.
pub(super) const LOWEST: &str = "-inf";

/// Calls under way to one connection.
pub(super) struct Pipelines<'w> {
    calls: Pipeline,
    /// The last write of each of them.
    last: Vec<&'w Write>,
    /// Writes of the next call.
    open: Vec<&'w Write>,
    /// Writes gathered since the last round trip.
    gathered: usize,
    limit: usize,
    refused: u64,
}

impl<'w> Pipelines<'w> {
    /// Pipelines of about `limit` writes.
    pub(super) fn new(limit: usize) -> Self {
        Self { calls: Pipeline::new(), last: Vec::new(), open: Vec::with_capacity(KEYS), gathered: 0, limit, refused: 0 }
    }

    /// Adds a write; sends what has gathered when it is enough.
    pub(super) fn add(&mut self, write: &'w Write, connection: &mut Connection) -> Result<(), RedisError> {
        self.open.push(write);
        self.gathered += 1;
        if self.open.len() == KEYS {
            self.close();
        }
        if self.gathered >= self.limit { self.send(connection) } else { Ok(()) }
    }

    /// Sends the rest, and on its heels how far the answers have come: one round trip. Yields what was shown before, and how many
    /// writes were not newer than what their keys held.
    pub(super) fn finish(
        mut self,
        mark: &str,
        applied: &Applied,
        known: Known,
        connection: &mut Connection,
    ) -> Result<Found, RedisError> {
        self.close();
        self.calls.add_command(show(mark, &self.last, applied, known));
        let mut answers: Vec<Value> = script::send(&self.calls, connection)?;
        let (epoch, tick_epoch, rebuilding) = redis::from_redis_value(answers.pop().unwrap_or(Value::Nil))?;
        self.count(answers)?;
        Ok(Found { epoch, tick_epoch, rebuilding, refused: self.refused, dropped: false })
    }

    fn send(&mut self, connection: &mut Connection) -> Result<(), RedisError> {
        self.close();
        let answers = script::send(&self.calls, connection)?;
        self.count(answers)?;
        self.calls.clear();
        self.last.clear();
        self.gathered = 0;
        Ok(())
    }

    fn count(&mut self, answers: Vec<Value>) -> Result<(), RedisError> {
        let refused = answers.into_iter().map(redis::from_redis_value::<u64>).sum::<Result<u64, _>>()?;
        self.refused += refused;
        Ok(())
    }

    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let mut call = WRITE.call(self.open.len());
        for write in &self.open {
            call.arg(write.key());
        }
        self.last.extend(self.open.last());
        self.open.drain(..).for_each(|write| push_write(&mut call, write));
        self.calls.add_command(call);
    }
}

/// The arguments of one key, as `write.lua` reads them.
fn push_write(call: &mut Cmd, write: &Write) {
    match write {
        Write::Value { value, ttl, fence, .. } => push_value(call, value, *ttl, *fence),
        Write::Fields { fields, ttl, fence, .. } => push_fields(call, fields, *ttl, *fence),
        Write::Ranked { members, ttl, fence, .. } => push_ranked(call, members, *ttl, *fence),
        Write::Members { members, ttl, fence, .. } => push_members(call, members, *ttl, *fence),
        Write::Delete { sort: Sort::Value, ttl, fence, .. } => push_value(call, &layout::deleted_value(*fence), *ttl, *fence),
        Write::Delete { sort: Sort::Fields, ttl, fence, .. } => push_fields(call, &layout::deleted_fields(*fence), *ttl, *fence),
        Write::Delete { sort: Sort::Ranked, ttl, fence, .. } => push_ranked(call, &[], *ttl, *fence),
    }
}

fn push_head(call: &mut Cmd, sort: &str, fence: Fence, ttl: Duration, puts: usize, arguments: usize) {
    call.arg(sort).arg(fence.epoch).arg(fence.generation).arg(millis(ttl)).arg(puts).arg(arguments);
}

fn push_value(call: &mut Cmd, value: &[u8], ttl: Duration, fence: Fence) {
    push_head(call, "v", fence, ttl, 0, 1);
    call.arg(value);
}

fn push_fields(call: &mut Cmd, fields: &Fields, ttl: Duration, fence: Fence) {
    push_head(call, "h", fence, ttl, 0, fields.len() * 2);
    push_pairs(call, fields);
}

pub(super) fn push_pairs(call: &mut Cmd, fields: &Fields) {
    for (name, value) in fields {
        call.arg(name.as_bytes()).arg(value);
    }
}

fn push_ranked(call: &mut Cmd, members: &[(String, f64)], ttl: Duration, fence: Fence) {
    push_head(call, "z", fence, ttl, 0, members.len() * 2 + 2);
    call.arg(LOWEST).arg(layout::fence_member(fence));
    for (member, score) in members {
        call.arg(*score).arg(member);
    }
}

fn push_members(call: &mut Cmd, members: &[(String, Option<f64>)], ttl: Duration, fence: Fence) {
    let put = members.iter().filter_map(|(member, score)| Some((member, (*score)?)));
    let taken = members.iter().filter(|(_, score)| score.is_none());
    let puts = put.clone().count();
    push_head(call, "m", fence, ttl, puts * 2 + 2, members.len() + puts + 2);
    call.arg(LOWEST).arg(layout::fence_member(fence));
    for (member, score) in put {
        call.arg(score).arg(member);
    }
    for (member, _) in taken {
        call.arg(member);
    }
}

/// Shows how far the answers have come, if the writes that came before it are there.
pub(super) fn show(key: &str, last: &[&Write], applied: &Applied, known: Known) -> Cmd {
    let (epoch_half, tick_half) = (layout::encode_epoch_half(applied), layout::encode_tick_half(applied));
    let mut call = MARK.call(1 + last.len());
    call.arg(key);
    for write in last {
        call.arg(write.key());
    }
    call.arg(applied.epoch).arg(applied.generation).arg(applied.tick_epoch);
    call.arg(known.epoch).arg(known.tick_epoch).arg(u8::from(known.rebuilding)).arg(epoch_half.len() * 2);
    for write in last {
        let fence = write.fence();
        call.arg(sort(write)).arg(fence.epoch).arg(fence.generation);
    }
    push_pairs(&mut call, &epoch_half);
    push_pairs(&mut call, &tick_half);
    call
}

/// The sort of a write, as the scripts call it.
fn sort(write: &Write) -> &'static str {
    match write {
        Write::Value { .. } => script::letter(Sort::Value),
        Write::Fields { .. } => script::letter(Sort::Fields),
        Write::Ranked { .. } => script::letter(Sort::Ranked),
        Write::Delete { sort, .. } => script::letter(*sort),
        Write::Members { .. } => "m",
    }
}

/// Redis refuses a lifetime of nothing.
pub(super) fn millis(ttl: Duration) -> u64 {
    (ttl.as_millis() as u64).max(1)
}
