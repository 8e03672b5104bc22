//! Redis as a reader: one multiplexed connection, pipelines without transactions, and nothing tried twice inside a request. A
//! lost connection is made again by whichever request comes next. What stays of a deleted key, and the fence of a sorted set, are
//! not shown.

use bytes::Bytes;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, FromRedisValue, Pipeline, Value};
use std::time::Duration;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use super::{Answer, Fields, Many, ManyOf, Own, OwnKeys, Parts, Reader, SEEN, Unavailable};
use crate::sinks::{Applied, RedisParams, layout};

/// How often waiting readers look at the mark, all of them together.
const LOOK: Duration = Duration::from_millis(2);

/// Reads what the engine wrote to Redis.
pub struct RedisReader {
    client: Client,
    config: ConnectionManagerConfig,
    /// Made by the first reader, because it belongs to the runtime that reads.
    connection: OnceCell<ConnectionManager>,
    meta: String,
    /// The last mark any waiting reader fetched, and when: many waiters cost one look.
    mark: Mutex<Option<(Instant, Applied)>>,
    patience: Duration,
}

impl RedisReader {
    /// Opens nothing yet. `prefix` is of every key; an answer is awaited for at most `longest` (and never longer than
    /// `[redis] response_timeout`). Fails on a URL that cannot be read.
    pub fn new(params: &RedisParams, prefix: &str, longest: Duration) -> Result<Self, String> {
        let client = crate::sinks::redis::client(params).map_err(|e| e.to_string())?;
        let patience = params.response_timeout.min(longest);
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(params.connect_timeout.min(longest)))
            .set_response_timeout(Some(patience));
        Ok(Self {
            client,
            config,
            connection: OnceCell::new(),
            meta: layout::Keys::new(prefix).meta(),
            mark: Mutex::new(None),
            patience,
        })
    }

    async fn connection(&self) -> Result<ConnectionManager, Unavailable> {
        let make = || async { ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone()) };
        self.connection.get_or_try_init(make).await.cloned().map_err(|e| self.away(&e))
    }

    async fn ask<T: FromRedisValue>(&self, pipeline: Pipeline) -> Result<T, Unavailable> {
        let mut connection = self.connection().await?;
        // Connecting and waiting together are bounded too.
        match tokio::time::timeout(self.patience, pipeline.query_async(&mut connection)).await {
            Ok(answer) => answer.map_err(|e| self.away(&e)),
            Err(_) => Err(Unavailable(format!("redis did not answer within {:?}", self.patience))),
        }
    }

    /// What went wrong, but neither where nor who asked: whoever asks the shim may read it.
    fn away(&self, error: &redis::RedisError) -> Unavailable {
        Unavailable(crate::sinks::redis::explained(&self.client, error))
    }

    fn meta(&self, pipeline: &mut Pipeline) {
        pipeline.cmd("HGETALL").arg(&self.meta);
    }
}

/// An empty hash is a store nobody has written yet.
fn mark_of(meta: &Fields) -> Result<Applied, Unavailable> {
    if meta.is_empty() {
        return Ok(Applied::default());
    }
    layout::decode_applied(meta).map_err(|e| Unavailable(format!("the mark in redis cannot be read: {e}")))
}

fn present(value: Option<Vec<u8>>) -> Option<Bytes> {
    value.filter(|value| !layout::is_deleted_value(value)).map(Bytes::from)
}

fn written(fields: Fields) -> Option<Fields> {
    (!fields.is_empty() && !layout::is_deleted_fields(&fields)).then_some(fields)
}

/// Asks for slate and seen of each user.
fn ask_own(pipeline: &mut Pipeline, users: &[OwnKeys]) {
    for keys in users {
        pipeline.cmd("GET").arg(&keys.slate);
        highest(pipeline, &keys.seen, SEEN);
    }
}

/// Asks for binary values, if there are any to ask for.
fn ask_values(pipeline: &mut Pipeline, keys: &[String]) {
    if !keys.is_empty() {
        pipeline.cmd("MGET").arg(keys);
    }
}

fn values_of(answers: &mut impl Iterator<Item = Value>, keys: &[String]) -> Result<Vec<Option<Bytes>>, Unavailable> {
    let values: Vec<Option<Vec<u8>>> = if keys.is_empty() { Vec::new() } else { next(answers)? };
    Ok(values.into_iter().map(present).collect())
}

fn own_of(answers: &mut impl Iterator<Item = Value>, users: usize) -> Result<Vec<Own>, Unavailable> {
    (0..users).map(|_| Ok(Own { slate: present(next(answers)?), seen: next(answers)? })).collect()
}

fn next<T: FromRedisValue>(answers: &mut impl Iterator<Item = Value>) -> Result<T, Unavailable> {
    let answer = answers.next().ok_or_else(|| Unavailable("redis gave fewer answers than it was asked for".to_string()))?;
    T::from_redis_value(answer).map_err(|e| Unavailable(format!("redis answers what cannot be read: {e}")))
}

fn highest(pipeline: &mut Pipeline, key: &str, limit: usize) {
    if limit > 0 {
        // Without −∞, the score of the fence.
        pipeline.cmd("ZREVRANGEBYSCORE").arg(key).arg("+inf").arg("(-inf").arg("WITHSCORES").arg("LIMIT").arg(0).arg(limit);
    }
}

impl Reader for RedisReader {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn value<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Bytes>> {
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            pipeline.cmd("GET").arg(key);
            let (value,): (Option<Vec<u8>>,) = self.ask(pipeline).await?;
            Ok(present(value))
        })
    }

    fn fields<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Fields>> {
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            pipeline.cmd("HGETALL").arg(key);
            let (fields,): (Fields,) = self.ask(pipeline).await?;
            Ok(written(fields))
        })
    }

    fn ranked<'a>(&'a self, key: &'a str, limit: usize) -> Answer<'a, Vec<(String, f64)>> {
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            highest(&mut pipeline, key, limit.max(1));
            let (mut members,): (Vec<(String, f64)>,) = self.ask(pipeline).await?;
            members.truncate(limit);
            Ok(members)
        })
    }

    fn several<'a>(&'a self, keys: &'a [String], limit: usize) -> Answer<'a, Vec<Vec<(String, f64)>>> {
        Box::pin(async move {
            if keys.is_empty() {
                return Ok(Vec::new());
            }
            let mut pipeline = redis::pipe();
            keys.iter().for_each(|key| highest(&mut pipeline, key, limit.max(1)));
            let mut lists: Vec<Vec<(String, f64)>> = self.ask(pipeline).await?;
            lists.iter_mut().for_each(|list| list.truncate(limit));
            Ok(lists)
        })
    }

    fn many<'a>(&'a self, values: &'a [String], hashes: &'a [String]) -> Answer<'a, Many> {
        Box::pin(async move {
            if values.is_empty() && hashes.is_empty() {
                return Ok(Many::default());
            }
            let mut pipeline = redis::pipe();
            ask_values(&mut pipeline, values);
            for key in hashes {
                pipeline.cmd("HGETALL").arg(key);
            }
            let mut answers = self.ask::<Vec<Value>>(pipeline).await?.into_iter();
            let values = values_of(&mut answers, values)?;
            let fields = hashes.iter().map(|_| next(&mut answers).map(written)).collect::<Result<_, _>>()?;
            Ok(Many { values, fields })
        })
    }

    fn many_of<'a>(&'a self, values: &'a [String], hashes: &'a [String], field: &'a str) -> Answer<'a, ManyOf> {
        Box::pin(async move {
            if values.is_empty() && hashes.is_empty() {
                return Ok(ManyOf::default());
            }
            let mut pipeline = redis::pipe();
            ask_values(&mut pipeline, values);
            for key in hashes {
                pipeline.cmd("HGET").arg(key).arg(field); // what stays of a deleted hash has no such field
            }
            let mut answers = self.ask::<Vec<Value>>(pipeline).await?.into_iter();
            let values = values_of(&mut answers, values)?;
            Ok(ManyOf { values, field: hashes.iter().map(|_| next(&mut answers)).collect::<Result<_, _>>()? })
        })
    }

    fn starts<'a>(&'a self, values: &'a [String], bytes: usize) -> Answer<'a, Vec<Option<Bytes>>> {
        Box::pin(async move {
            if values.is_empty() {
                return Ok(Vec::new());
            }
            let mut pipeline = redis::pipe();
            for key in values {
                pipeline.cmd("GETRANGE").arg(key).arg(0).arg(bytes.saturating_sub(1));
            }
            let starts: Vec<Vec<u8>> = self.ask(pipeline).await?;
            Ok(starts.into_iter().map(|start| present(Some(start).filter(|start| !start.is_empty()))).collect())
        })
    }

    fn applied(&self) -> Answer<'_, Applied> {
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            self.meta(&mut pipeline);
            let (meta,): (Fields,) = self.ask(pipeline).await?;
            mark_of(&meta)
        })
    }

    fn own<'a>(&'a self, users: &'a [OwnKeys]) -> Answer<'a, Vec<Own>> {
        Box::pin(async move {
            if users.is_empty() {
                return Ok(Vec::new());
            }
            let mut pipeline = redis::pipe();
            ask_own(&mut pipeline, users);
            own_of(&mut self.ask::<Vec<Value>>(pipeline).await?.into_iter(), users.len())
        })
    }

    fn feeds<'a>(&'a self, users: &'a [OwnKeys]) -> Answer<'a, Parts> {
        Box::pin(async move {
            let mut pipeline = redis::pipe();
            // The mark first: what it promises was written before it, so the reads after it find it.
            self.meta(&mut pipeline);
            ask_own(&mut pipeline, users);
            let mut answers = self.ask::<Vec<Value>>(pipeline).await?.into_iter();
            let applied = mark_of(&next(&mut answers)?)?;
            Ok(Parts { applied, own: own_of(&mut answers, users.len())? })
        })
    }

    fn moved<'a>(&'a self, last: &'a Applied) -> Answer<'a, Applied> {
        Box::pin(async move {
            loop {
                let mut mark = self.mark.lock().await;
                let looked = match &*mark {
                    Some((at, applied)) if at.elapsed() < LOOK => applied.clone(),
                    _ => {
                        let applied = self.applied().await?;
                        *mark = Some((Instant::now(), applied.clone()));
                        applied
                    }
                };
                drop(mark);
                if looked != *last {
                    return Ok(looked);
                }
                tokio::time::sleep(LOOK).await;
            }
        })
    }
}
