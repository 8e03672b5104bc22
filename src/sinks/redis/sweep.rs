//! Looks through all keys for what is older than an epoch, a page at a time, and deletes it: a script looks at the fence of each.

use redis::{Connection, Pipeline, RedisError};
use std::time::Duration;

use super::script::{self, SWEEP};
use super::writer::millis;
use crate::sinks::layout::{self, Keys};
use crate::sinks::{Fence, Sort};

/// Keys looked at in one page, about: Redis serves nobody else for half a millisecond.
const PAGE: usize = 256;

/// One page from `cursor` on; yields where the next one begins, 0: nowhere.
pub(super) fn sweep(
    keys: &Keys,
    cursor: u64,
    before: u64,
    ttl: Duration,
    connection: &mut Connection,
) -> Result<u64, RedisError> {
    let mut scan = redis::cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(keys.pattern()).arg("COUNT").arg(PAGE);
    let answer = script::exchange(&scan.get_packed_command(), 1, connection)?.pop().unwrap_or(redis::Value::Nil);
    let (next, page): (u64, Vec<Vec<u8>>) = redis::from_redis_value(answer)?;
    let ours = page.into_iter().filter_map(|key| String::from_utf8(key).ok());
    let ours: Vec<(String, Sort)> =
        ours.filter_map(|key| Some((keys.sort_of(&key)?, key))).map(|(sort, key)| (key, sort)).collect();
    if !ours.is_empty() {
        let fence = Fence { epoch: before, generation: 0 };
        let mut call = SWEEP.call(ours.len());
        ours.iter().for_each(|(key, _)| _ = call.arg(key));
        call.arg(before).arg(millis(ttl)).arg(layout::deleted_value(fence)).arg(layout::fence_member(fence));
        ours.iter().for_each(|(_, sort)| _ = call.arg(script::letter(*sort)));
        let mut calls = Pipeline::new();
        calls.add_command(call);
        script::send::<Vec<redis::Value>>(&calls, connection)?;
    }
    Ok(next)
}
