//! Sends rows to the worker that owns their key, or to every worker.
//!
//! Ownership is by key group in contiguous ranges, so that the same keys live together at every worker count.

use timely::ExchangeData;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::Exchange;
use timely::dataflow::operators::vec::{Broadcast, Filter, Map};

use crate::model::ids::{KEY_GROUPS, key_group};

/// The worker that owns a hashed key.
pub fn owner(hash: u64, workers: usize) -> u64 {
    u64::from(key_group(hash)) * workers as u64 / KEY_GROUPS
}

/// Who gets a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The owner of a hashed key.
    Owner(u64),
    All,
}

/// Extension of streams.
pub trait Route<'scope, I> {
    /// Sends each row to the owner of `key(row)`.
    ///
    /// ```
    /// use overdrive::operators::Route;
    /// use timely::dataflow::operators::{Inspect, vec::ToStream};
    ///
    /// timely::example(|scope| {
    ///     vec![7u64].to_stream(scope).route(|x| *x).inspect(|x| assert_eq!(*x, 7));
    /// });
    /// ```
    fn route(self, key: impl Fn(&I) -> u64 + 'static) -> Self;

    /// Sends each row to every worker.
    fn to_all(self) -> Self;

    /// Of rows that every worker has, those whose `key(row)` this one owns: among all workers each row stays once.
    fn owned(self, key: impl Fn(&I) -> u64 + 'static) -> Self;

    /// Sends each row to whom `to(row)` says.
    fn deliver(self, to: impl Fn(&I) -> To + 'static) -> Self;
}

impl<'scope, I: ExchangeData + Clone> Route<'scope, I> for StreamVec<'scope, u64, I> {
    fn route(self, key: impl Fn(&I) -> u64 + 'static) -> Self {
        let workers = self.scope().peers();
        if workers == 1 {
            return self;
        }
        self.exchange(move |row| owner(key(row), workers))
    }

    fn to_all(self) -> Self {
        if self.scope().peers() == 1 { self } else { self.broadcast() }
    }

    fn owned(self, key: impl Fn(&I) -> u64 + 'static) -> Self {
        let (index, workers) = (self.scope().index() as u64, self.scope().peers());
        self.filter(move |row| owner(key(row), workers) == index)
    }

    fn deliver(self, to: impl Fn(&I) -> To + 'static) -> Self {
        let workers = self.scope().peers();
        if workers == 1 {
            return self;
        }
        let copies = move |row: I| {
            let (first, last) = match to(&row) {
                To::Owner(hash) => (owner(hash, workers), owner(hash, workers)),
                To::All => (0, workers as u64 - 1),
            };
            (first..=last).map(move |worker| (worker, row.clone()))
        };
        self.flat_map(copies).exchange(|(worker, _)| *worker).map(|(_, row)| row)
    }
}
