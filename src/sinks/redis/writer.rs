//! Writes become pipelines: a few hundred commands in one round trip. What replaces a key in more than one command stands
//! between MULTI and EXEC, so a reader sees the old value or the new one.
//!
//! The fence belongs here: [`Pipelines::add`] is the one place that replaces values, and each of them carries its (epoch,
//! generation), the binary ones in the header, the hashes in their fields.

use redis::{Cmd, Connection, Pipeline, RedisError, cmd};
use std::time::Duration;

use crate::sinks::layout::{Fields, encode_applied};
use crate::sinks::{Applied, Write};

/// Commands in one transaction at most: Redis serves nobody else while it runs one.
const TRANSACTION: usize = 96;

/// Commands under way to one connection.
pub(super) struct Pipelines {
    pipe: Pipeline,
    limit: usize,
    /// Commands in the open transaction; `None` outside of one.
    open: Option<usize>,
}

impl Pipelines {
    /// Pipelines of about `limit` commands.
    pub(super) fn new(limit: usize) -> Self {
        Self { pipe: Pipeline::with_capacity(limit), limit, open: None }
    }

    /// Adds a write; sends what has gathered when it is enough.
    pub(super) fn add(&mut self, write: &Write, connection: &mut Connection) -> Result<(), RedisError> {
        match write {
            Write::Value { key, value, ttl } => self.push(cmd("SET").arg(key).arg(value.as_slice()).arg("PX").arg(millis(*ttl))),
            Write::Fields { key, fields, .. } if fields.is_empty() => self.delete(key),
            Write::Fields { key, fields, ttl } => self.replace(key, hset(key, fields), *ttl),
            Write::Ranked { key, members, .. } if members.is_empty() => self.delete(key),
            Write::Ranked { key, members, ttl } => self.replace(key, zadd(key, members), *ttl),
            Write::Member { key, member, score, ttl } => {
                self.begin();
                match score {
                    Some(score) => self.push(cmd("ZADD").arg(key).arg(*score).arg(member)),
                    None => self.push(cmd("ZREM").arg(key).arg(member)),
                }
                self.push(&mut expire(key, *ttl));
            }
            Write::Delete { key } => self.delete(key),
        }
        if self.open.is_some_and(|commands| commands >= TRANSACTION) {
            self.commit();
        }
        if self.pipe.len() >= self.limit { self.finish(connection) } else { Ok(()) }
    }

    /// Sends the rest and checks every answer.
    pub(super) fn finish(&mut self, connection: &mut Connection) -> Result<(), RedisError> {
        self.commit();
        if self.pipe.is_empty() {
            return Ok(());
        }
        self.pipe.exec(connection)?;
        self.pipe.clear();
        Ok(())
    }

    fn replace(&mut self, key: &str, mut with: Cmd, ttl: Duration) {
        self.begin();
        self.delete(key);
        self.push(&mut with);
        self.push(&mut expire(key, ttl));
    }

    fn delete(&mut self, key: &str) {
        self.push(cmd("DEL").arg(key));
    }

    fn begin(&mut self) {
        if self.open.is_none() {
            self.pipe.cmd("MULTI");
            self.open = Some(0);
        }
    }

    fn commit(&mut self) {
        if self.open.take().is_some() {
            self.pipe.cmd("EXEC");
        }
    }

    fn push(&mut self, command: &mut Cmd) {
        self.pipe.add_command(command.take());
        self.open = self.open.map(|commands| commands + 1);
    }
}

/// Shows how far the answers have come.
pub(super) fn write_applied(key: &str, applied: &Applied, connection: &mut Connection) -> Result<(), RedisError> {
    let mut pipe = redis::pipe();
    // As a whole: a partition that is read no more must not stay in it.
    pipe.atomic().cmd("DEL").arg(key).add_command(hset(key, &encode_applied(applied)));
    pipe.exec(connection)
}

fn hset(key: &str, fields: &Fields) -> Cmd {
    let mut command = cmd("HSET");
    command.arg(key);
    for (name, value) in fields {
        command.arg(name).arg(value);
    }
    command
}

fn zadd(key: &str, members: &[(String, f64)]) -> Cmd {
    let mut command = cmd("ZADD");
    command.arg(key);
    for (member, score) in members {
        command.arg(*score).arg(member);
    }
    command
}

fn expire(key: &str, ttl: Duration) -> Cmd {
    let mut command = cmd("PEXPIRE");
    command.arg(key).arg(millis(ttl));
    command
}

/// Redis refuses a lifetime of nothing.
fn millis(ttl: Duration) -> u64 {
    (ttl.as_millis() as u64).max(1)
}
