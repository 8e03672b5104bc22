//! The scripts that write, constant and called by their hash. A server forgets scripts when it restarts or is told to; what was
//! called in vain is then sent again, which the fence makes harmless.

use redis::{Cmd, Connection, FromRedisValue, Pipeline, RedisError, Value, cmd};
use std::sync::LazyLock;

use crate::sinks::Sort;

/// A script and its hash.
pub(super) struct Script {
    code: String,
    hash: String,
}

impl Script {
    fn new(code: &str) -> Self {
        let code = [include_str!("fence.lua"), code].concat();
        let hash = redis::Script::new(&code).get_hash().to_string();
        Self { code, hash }
    }

    /// A call; keys come first, then arguments.
    pub(super) fn call(&self, keys: usize) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(&self.hash).arg(keys);
        call
    }
}

/// Writes whole values under the fence.
pub(super) static WRITE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("write.lua")));
/// Shows how far the answers have come.
pub(super) static MARK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("mark.lua")));

/// Deletes what is older than an epoch.
pub(super) static SWEEP: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("sweep.lua")));

/// Who may write without them.
pub(super) static LEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lease.lua")));

/// A sort of value, as the scripts call it.
pub(super) fn letter(sort: Sort) -> &'static str {
    match sort {
        Sort::Value => "v",
        Sort::Fields => "h",
        Sort::Ranked => "z",
    }
}

/// Gives the server the scripts.
pub(super) fn load(connection: &mut Connection) -> Result<(), RedisError> {
    let mut pipe = redis::pipe();
    for script in [&*WRITE, &*MARK, &*SWEEP, &*LEASE] {
        pipe.cmd("SCRIPT").arg("LOAD").arg(&script.code);
    }
    pipe.exec(connection)
}

/// Sends calls; once more with the scripts when the server has forgotten them.
pub(super) fn send<T: FromRedisValue>(calls: &Pipeline, connection: &mut Connection) -> Result<T, RedisError> {
    let wire = calls.get_packed_pipeline();
    let answers = match exchange(&wire, calls.len(), connection) {
        Err(error) if forgotten(&error) => {
            load(connection)?;
            exchange(&wire, calls.len(), connection)
        }
        answers => answers,
    };
    Ok(redis::from_redis_value(Value::Array(answers?))?)
}

/// Sends commands and waits for every answer; the first that does not come in time is the end. (The client itself would wait as long
/// for each of the others.) What the server refuses is an error when all has been heard: then the connection is in step.
pub(super) fn exchange(wire: &[u8], count: usize, connection: &mut Connection) -> Result<Vec<Value>, RedisError> {
    connection.send_packed_command(wire)?;
    let answers = (0..count).map(|_| connection.recv_response()).collect::<Result<Vec<_>, _>>()?;
    answers.into_iter().map(Value::extract_error).collect()
}

/// Whether a call of the pipeline met a server without the script. Of the others some may have been served.
fn forgotten(error: &RedisError) -> bool {
    let errors = error.clone().into_server_errors();
    errors.is_some_and(|errors| errors.iter().any(|(_, error)| error.code() == "NOSCRIPT"))
}
