//! Looks through all keys for what is older than an epoch, a page at a time, and deletes it. The fence decides, as it does with any
//! other write: a deletion as of that epoch takes effect where nothing newer is.

use redis::{Connection, RedisError};
use std::time::Duration;

use super::script;
use super::writer::Pipelines;
use crate::sinks::layout::Keys;
use crate::sinks::{Fence, Write};

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
    let fence = Fence { epoch: before, generation: 0 };
    let ours = page.into_iter().filter_map(|key| String::from_utf8(key).ok());
    let deletions: Vec<Write> =
        ours.filter_map(|key| Some(Write::Delete { sort: keys.sort_of(&key)?, key, ttl, fence })).collect();
    let mut pipelines = Pipelines::new(PAGE);
    for deletion in &deletions {
        pipelines.add(deletion, connection)?;
    }
    pipelines.send(connection)?;
    Ok(next)
}
