//! Writes as plain commands in a transaction: half of what the script costs Redis, because no fence is read and no argument goes
//! through the interpreter. Only for whoever holds the lease, with epochs that no run before can have written: then every key
//! that is written is older.
//!
//! ```text
//! claim: lease.lua, WATCH lease, GET lease ─▶ ours? ─▶ MULTI … EXEC, WATCH lease, GET lease ─▶ ours? ─▶ …
//! ```
//! The fact that must stay true: another run of the engine claims the lease before it writes anything, and that changes
//! the watched key; so from then on a transaction of ours comes to nothing. Losing the lease costs nothing but speed: the script is always right.

use redis::{Cmd, Connection, RedisError, Value};
use std::time::Duration;

use super::script::{self, LEASE};
use super::writer::{LOWEST, millis, push_pairs, show};
use crate::sinks::layout::{self, Fields, Keys};
use crate::sinks::{Applied, Fence, Found, Known, Sort, Write};

/// Asks for the lease. `false`: a later run of the engine has it.
pub(super) fn claim(keys: &Keys, since: u64, generation: u32, connection: &mut Connection) -> Result<bool, RedisError> {
    let mut ask = LEASE.call(2);
    ask.arg(keys.lease()).arg(keys.meta()).arg(since).arg(generation);
    let mut wire = Vec::new();
    let mut commands = Commands::new(&mut wire);
    commands.push("UNWATCH", |_| {});
    commands.add(&ask);
    push_watch(&mut commands, keys);
    is_ours(commands.send(connection)?.pop(), since, generation)
}

/// Writes all, `limit` writes at a time, and shows how far that brings the answers. `None`: the lease is lost; the caller writes all of
/// it by the script.
pub(super) fn write(
    writes: &[Write],
    limit: usize,
    keys: &Keys,
    applied: &Applied,
    known: Known,
    wire: &mut Vec<u8>,
    connection: &mut Connection,
) -> Result<Option<Found>, RedisError> {
    let run = (known.since, applied.generation);
    let (first, last) = writes.split_at(writes.len().saturating_sub(1) / limit * limit);
    for part in first.chunks(limit) {
        if transact(part, None, keys, run, wire, connection)?.is_none() {
            return Ok(None);
        }
    }
    let mark = show(&keys.meta(), &[], applied, known);
    let Some(shown) = transact(last, Some(mark), keys, run, wire, connection)? else { return Ok(None) };
    let (epoch, tick_epoch, rebuilding) = redis::from_redis_value(shown)?;
    Ok(Some(Found { epoch, tick_epoch, rebuilding, refused: 0, dropped: false }))
}

/// One transaction of this run; yields the answer to its last command. `None`: the lease is lost.
fn transact(
    writes: &[Write],
    mark: Option<Cmd>,
    keys: &Keys,
    (since, generation): (u64, u32),
    wire: &mut Vec<u8>,
    connection: &mut Connection,
) -> Result<Option<Value>, RedisError> {
    let mut commands = Commands::new(wire);
    commands.push("MULTI", |_| {});
    writes.iter().for_each(|write| push_write(&mut commands, write));
    mark.iter().for_each(|mark| commands.add(mark));
    commands.push("EXEC", |_| {});
    push_watch(&mut commands, keys);
    let mut answers = commands.send(connection)?;
    let ours = is_ours(answers.pop(), since, generation)?;
    answers.pop(); // WATCH
    match answers.pop() {
        Some(Value::Array(mut done)) if ours => Ok(done.pop()),
        _ => Ok(None),
    }
}

/// Commands as they go over the wire. Thousands go in a batch, so none is an object of its own, and batch after batch goes into
/// the same room.
struct Commands<'w> {
    wire: &'w mut Vec<u8>,
    next: Cmd,
    count: usize,
}

impl<'w> Commands<'w> {
    fn new(wire: &'w mut Vec<u8>) -> Self {
        wire.clear();
        Self { wire, next: Cmd::new(), count: 0 }
    }

    fn push(&mut self, name: &str, arguments: impl FnOnce(&mut Cmd)) {
        self.next.clear();
        arguments(self.next.arg(name));
        self.next.write_packed_command(self.wire);
        self.count += 1;
    }

    fn add(&mut self, command: &Cmd) {
        command.write_packed_command(self.wire);
        self.count += 1;
    }

    /// Sends them; yields the answers.
    fn send(self, connection: &mut Connection) -> Result<Vec<Value>, RedisError> {
        script::exchange(self.wire, self.count, connection)
    }
}

fn push_watch(commands: &mut Commands, keys: &Keys) {
    for name in ["WATCH", "GET"] {
        commands.push(name, |command| _ = command.arg(keys.lease()));
    }
}

/// Whether the lease names this run.
fn is_ours(holder: Option<Value>, since: u64, generation: u32) -> Result<bool, RedisError> {
    let holder: Option<String> = redis::from_redis_value(holder.unwrap_or(Value::Nil))?;
    Ok(holder == Some(format!("{since}:{generation}")))
}

fn push_write(commands: &mut Commands, write: &Write) {
    match write {
        Write::Value { key, value, ttl, .. } => push_value(commands, key, value, *ttl),
        Write::Fields { key, fields, ttl, .. } => push_fields(commands, key, fields, *ttl),
        Write::Ranked { key, members, ttl, fence } => push_ranked(commands, key, members, *ttl, *fence),
        Write::Members { key, members, ttl, fence } => push_members(commands, key, members, *ttl, *fence),
        Write::Delete { key, sort: Sort::Value, ttl, fence } => push_value(commands, key, &layout::deleted_value(*fence), *ttl),
        Write::Delete { key, sort: Sort::Fields, ttl, fence } => {
            push_fields(commands, key, &layout::deleted_fields(*fence), *ttl);
        }
        Write::Delete { key, sort: Sort::Ranked, ttl, fence } => push_ranked(commands, key, &[], *ttl, *fence),
    }
}

fn push_value(commands: &mut Commands, key: &str, value: &[u8], ttl: Duration) {
    commands.push("SET", |set| _ = set.arg(key).arg(value).arg("PX").arg(millis(ttl)));
}

fn push_fields(commands: &mut Commands, key: &str, fields: &Fields, ttl: Duration) {
    commands.push("DEL", |del| _ = del.arg(key));
    commands.push("HSET", |put| push_pairs(put.arg(key), fields));
    push_ttl(commands, key, ttl);
}

fn push_ranked(commands: &mut Commands, key: &str, members: &[(String, f64)], ttl: Duration, fence: Fence) {
    commands.push("DEL", |del| _ = del.arg(key));
    commands.push("ZADD", |put| {
        put.arg(key).arg(LOWEST).arg(layout::fence_member(fence));
        for (member, score) in members {
            put.arg(*score).arg(member);
        }
    });
    push_ttl(commands, key, ttl);
}

fn push_members(commands: &mut Commands, key: &str, members: &[(String, Option<f64>)], ttl: Duration, fence: Fence) {
    commands.push("ZREMRANGEBYSCORE", |take| _ = take.arg(key).arg(LOWEST).arg(LOWEST));
    commands.push("ZADD", |put| {
        put.arg(key).arg(LOWEST).arg(layout::fence_member(fence));
        for (member, score) in members.iter().filter_map(|(member, score)| Some((member, (*score)?))) {
            put.arg(score).arg(member);
        }
    });
    if members.iter().any(|(_, score)| score.is_none()) {
        commands.push("ZREM", |take| {
            take.arg(key);
            for (member, _) in members.iter().filter(|(_, score)| score.is_none()) {
                take.arg(member);
            }
        });
    }
    push_ttl(commands, key, ttl);
}

fn push_ttl(commands: &mut Commands, key: &str, ttl: Duration) {
    commands.push("PEXPIRE", |expire| _ = expire.arg(key).arg(millis(ttl)));
}
