//! The store in Redis, written by a script that looks at the fence of each key, or in transactions while nobody else can have
//! written. A key changes as a whole or not at all, only to something newer, and `meta` changes last. No error text contains a secret of the URL.

mod client;
mod health;
mod script;
mod sweep;
mod transaction;
mod writer;

use redis::{Client, Connection, RedisError};
use std::time::{Duration, Instant};

use super::layout::Keys;
use super::{Applied, Found, Known, RedisParams, Store, StoreError, Swept, Write};
pub use client::{client, explained, store_error};
use client::{is_refusal, text_of};
pub use health::Health;
use health::Watch;
use writer::Pipelines;

/// How often the server is asked how it is: what it drops is missed for so long.
const LOOK: Duration = Duration::from_secs(5);

/// A connection that is made when it is needed and dropped after any error.
pub struct Redis {
    client: Client,
    connection: Option<Connection>,
    /// This connection may write in transactions.
    leased: bool,
    /// This connection was refused something that transactions need.
    barred: bool,
    watch: Option<Watch>,
    /// It has dropped keys and has room for them again, which nobody was told yet.
    dropped: bool,
    /// It may not say how it is.
    silent: bool,
    looked: Instant,
    keys: Keys,
    /// Which sweep is under way, and where it goes on; 0: at the beginning.
    sweep: (u64, u64),
    /// Room for what is sent, kept from batch to batch.
    wire: Vec<u8>,
    pipeline: usize,
    connect_timeout: Duration,
    response_timeout: Duration,
}

impl Redis {
    /// For the server `params` name and keys under `prefix`. Connects with the first write; `Refused` when the URL cannot be
    /// read.
    pub fn open(params: &RedisParams, prefix: &str) -> Result<Self, StoreError> {
        Ok(Self {
            client: client(params)?,
            connection: None,
            leased: false,
            barred: false,
            watch: None,
            dropped: false,
            silent: false,
            looked: Instant::now(),
            keys: Keys::new(prefix),
            sweep: (0, 0),
            wire: Vec::new(),
            pipeline: params.pipeline,
            // A timeout of zero means "for ever" to the operating system.
            connect_timeout: params.connect_timeout.max(Duration::from_millis(1)),
            response_timeout: params.response_timeout.max(Duration::from_millis(1)),
        })
    }

    fn write_all(&mut self, writes: &[Write], applied: &Applied, known: Known) -> Result<Found, RedisError> {
        let mut connection = self.connected()?;
        self.claim(applied, known, &mut connection)?;
        let found = match self.transact(writes, applied, known, &mut connection)? {
            Some(found) => found,
            None => {
                self.claim(applied, known, &mut connection)?; // before anything is written, so that whoever has it hears of us
                self.script(writes, applied, known, &mut connection)?
            }
        };
        // Only now: a connection that failed may have half an answer in it.
        self.connection = Some(connection);
        Ok(Found { dropped: std::mem::take(&mut self.dropped), ..found })
    }

    /// The connection, or a new one; whoever has it gives it back when it is in step.
    fn connected(&mut self) -> Result<Connection, RedisError> {
        match self.connection.take() {
            Some(connection) if self.looked.elapsed() < LOOK => Ok(connection),
            Some(connection) => self.look(connection),
            None => {
                let connection = self.connect()?;
                (self.leased, self.barred, self.sweep) = (false, false, (0, 0));
                self.look(connection)
            }
        }
    }

    fn sweep_some(&mut self, before: u64, ttl: Duration) -> Result<Swept, RedisError> {
        let mut connection = self.connected()?;
        let from = if self.sweep.0 == before { self.sweep.1 } else { 0 };
        let next = match sweep::sweep(&self.keys, from, before, ttl, &mut connection) {
            Err(error) if is_refusal(&error) => {
                tracing::warn!(
                    error = text_of(&error),
                    "redis lets nobody look through its keys: what an older copy brought back stays until its lifetime ends; \
                     SECURITY.md lists the commands to permit"
                );
                0
            }
            next => next?,
        };
        self.sweep = (before, next);
        self.connection = Some(connection);
        Ok(if next == 0 { Swept::All } else { Swept::Some })
    }

    /// The way of whoever holds the lease. `None`: the script has to do it.
    fn transact(
        &mut self,
        writes: &[Write],
        applied: &Applied,
        known: Known,
        connection: &mut Connection,
    ) -> Result<Option<Found>, RedisError> {
        if !(self.leased && known.first) {
            return Ok(None);
        }
        let found = transaction::write(writes, self.pipeline, &self.keys, applied, known, &mut self.wire, connection);
        let found = self.unless_refused(found)?.flatten();
        self.leased = found.is_some();
        Ok(found)
    }

    /// What the server refuses to a transaction (a command that is not permitted, a key of another sort, a script it has forgotten) the
    /// script may do, or say better: no more transactions on this connection.
    fn unless_refused<T>(&mut self, answer: Result<T, RedisError>) -> Result<Option<T>, RedisError> {
        match answer {
            Err(error) if error.clone().into_server_errors().is_some() => {
                tracing::debug!(error = text_of(&error), "redis takes no transaction");
                self.barred = true;
                Ok(None)
            }
            answer => answer.map(Some),
        }
    }

    /// The way that is always right.
    fn script(
        &mut self,
        writes: &[Write],
        applied: &Applied,
        known: Known,
        connection: &mut Connection,
    ) -> Result<Found, RedisError> {
        let mut pipelines = Pipelines::new(self.pipeline);
        for write in writes {
            pipelines.add(write, connection)?;
        }
        let found = pipelines.finish(&self.keys.meta(), applied, known, connection)?;
        Ok(found)
    }

    /// Asks for the lease where there is none, unless this connection was refused something.
    fn claim(&mut self, applied: &Applied, known: Known, connection: &mut Connection) -> Result<(), RedisError> {
        if !self.leased && !self.barred {
            let ours = transaction::claim(&self.keys, known.since, applied.generation, connection);
            self.leased = self.unless_refused(ours)?.unwrap_or(false);
        }
        Ok(())
    }

    /// Looks how the server is. One that does not say (a user may lack the permission) is written to all the same.
    fn look(&mut self, mut connection: Connection) -> Result<Connection, RedisError> {
        self.looked = Instant::now();
        match Health::ask(&mut connection) {
            Ok(health) => self.dropped |= self.watch.get_or_insert_with(Watch::new).look(&health),
            Err(error) if error.clone().into_server_errors().is_some() => {
                if !std::mem::replace(&mut self.silent, true) {
                    tracing::warn!(
                        error = text_of(&error),
                        "redis does not say how it is: keys that it drops are not noticed; permit INFO"
                    );
                }
            }
            Err(error) => return Err(error),
        }
        Ok(connection)
    }

    fn connect(&self) -> Result<Connection, RedisError> {
        let mut connection = self.client.get_connection_with_timeout(self.connect_timeout)?;
        connection.set_read_timeout(Some(self.response_timeout))?;
        connection.set_write_timeout(Some(self.response_timeout))?;
        // A server that wants a password says so to a small command; on a large one it hangs up.
        redis::cmd("PING").exec(&mut connection)?;
        script::load(&mut connection)?;
        Ok(connection)
    }
}

impl Store for Redis {
    fn write(&mut self, writes: &[Write], applied: &Applied, known: Known) -> Result<Found, StoreError> {
        self.write_all(writes, applied, known).map_err(|error| store_error(&self.client, &error))
    }

    fn sweep(&mut self, before: u64, ttl: Duration) -> Result<Swept, StoreError> {
        self.sweep_some(before, ttl).map_err(|error| store_error(&self.client, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(url: &str) -> RedisParams {
        let span = Duration::from_millis(200);
        RedisParams {
            url: url.into(),
            username: String::new(),
            password_file: "".into(),
            ca: "".into(),
            cert: "".into(),
            key: "".into(),
            response_timeout: span,
            connect_timeout: span,
            pipeline: 8,
            retry_max: span,
        }
    }

    #[test]
    fn an_unreadable_url_is_refused_without_quoting_it() {
        for url in ["http://u:hunter2@host", "redis://:hunter2@host:notaport/0", "redis://:hunter2@host:1/zero", ""] {
            let Err(StoreError::Refused(text)) = Redis::open(&params(url), "od:").map(|_| ()) else { panic!("{url} was read") };
            assert!(!text.contains("hunter2") && text.contains("[redis] url"), "{text}");
        }
    }

    #[test]
    fn an_absent_server_is_tried_again() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
        let mut redis = Redis::open(&params(&format!("redis://:hunter2@{free}/3")), "od:").expect("a readable url");
        let Err(StoreError::Retry(text)) = redis.write(&[], &Applied::default(), Known::default()) else {
            panic!("nobody is there")
        };
        assert!(text.contains(&format!("redis at {free}/3")) && !text.contains("hunter2"), "{text}");
    }
}
