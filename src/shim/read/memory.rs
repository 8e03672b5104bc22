//! The memory of this process as a reader: every answer is there at once.

use bytes::Bytes;
use std::future::ready;

use super::{Answer, Fields, Many, ManyOf, Own, OwnKeys, Parts, Reader, SEEN, Sizes, Unavailable};
use crate::sinks::Applied;
use crate::sinks::memory::Memory;

/// Reads a [`Memory`].
pub struct MemoryReader(Memory);

impl MemoryReader {
    /// Over the store the engine writes.
    pub fn new(memory: Memory) -> Self {
        Self(memory)
    }
}

fn now<'a, T: Send + 'a>(answer: T) -> Answer<'a, T> {
    Box::pin(ready(Ok(answer)))
}

fn own(memory: &Memory, users: &[OwnKeys]) -> Vec<Own> {
    let own = |keys: &OwnKeys| Own { slate: memory.value(&keys.slate), seen: memory.ranked(&keys.seen, SEEN) };
    users.iter().map(own).collect()
}

impl Reader for MemoryReader {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn value<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Bytes>> {
        now(self.0.value(key))
    }

    fn fields<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Fields>> {
        now(self.0.fields(key))
    }

    fn ranked<'a>(&'a self, key: &'a str, limit: usize) -> Answer<'a, Vec<(String, f64)>> {
        now(self.0.ranked(key, limit))
    }

    fn several<'a>(&'a self, keys: &'a [String], limit: usize) -> Answer<'a, Vec<Vec<(String, f64)>>> {
        now(keys.iter().map(|key| self.0.ranked(key, limit)).collect())
    }

    fn many<'a>(&'a self, values: &'a [String], hashes: &'a [String]) -> Answer<'a, Many> {
        let values = values.iter().map(|key| self.0.value(key)).collect();
        now(Many { values, fields: hashes.iter().map(|key| self.0.fields(key)).collect() })
    }

    fn many_of<'a>(&'a self, values: &'a [String], hashes: &'a [String], field: &'a str) -> Answer<'a, ManyOf> {
        let values = values.iter().map(|key| self.0.value(key)).collect();
        let of = |key: &String| self.0.fields(key).and_then(|mut fields| fields.remove(field));
        now(ManyOf { values, field: hashes.iter().map(of).collect() })
    }

    fn starts<'a>(&'a self, values: &'a [String], bytes: usize) -> Answer<'a, Vec<Option<Bytes>>> {
        now(values.iter().map(|key| self.0.value(key).map(|value| value.slice(..bytes.min(value.len())))).collect())
    }

    fn applied(&self) -> Answer<'_, Applied> {
        now(self.0.applied())
    }

    fn own<'a>(&'a self, users: &'a [OwnKeys]) -> Answer<'a, Vec<Own>> {
        now(own(&self.0, users))
    }

    fn feeds<'a>(&'a self, users: &'a [OwnKeys]) -> Answer<'a, Parts> {
        now(Parts { applied: self.0.applied(), own: own(&self.0, users) })
    }

    fn moved<'a>(&'a self, last: &'a Applied) -> Answer<'a, Applied> {
        Box::pin(async move {
            let mut marks = self.0.subscribe();
            let mark = marks.wait_for(|mark| mark != last).await;
            mark.map(|m| m.clone()).map_err(|_| Unavailable("the store in memory has no writer any more".to_string()))
        })
    }

    fn sizes(&self) -> Option<Sizes> {
        Some(self.0.sizes().into_iter().map(|(family, size)| (family, size.keys)).collect())
    }
}
