//! Sends rows to the worker that owns their key, or to every worker.
//!
//! Ownership is by key group in contiguous ranges, so that the same keys live together at every worker count.

use timely::ExchangeData;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::vec::{Filter, Map};

use super::{Arrivals, Arrive};
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

/// Extension of streams whose time is the epoch.
pub trait Route<'scope, I> {
    /// Each row at the owner of `key(row)`.
    ///
    /// ```
    /// use overdrive::model::Epoch;
    /// use overdrive::operators::{Clock, Route};
    /// use timely::dataflow::operators::{Inspect, vec::ToStream};
    ///
    /// timely::example(|scope| {
    ///     let (clock, rows) = Clock::pacing(vec![Epoch::default()].to_stream(scope), vec![7u64].to_stream(scope));
    ///     rows.route(|x| *x).per_epoch(&clock, "Out", |_, rows, out| out.append(rows)).inspect(|x| assert_eq!(*x, 7));
    /// });
    /// ```
    fn route(self, key: impl Fn(&I) -> u64 + 'static) -> Arrivals<'scope, I>;

    /// Each row at every worker.
    fn to_all(self) -> Arrivals<'scope, I>;

    /// Each row at whom `to(row)` says.
    fn deliver(self, to: impl Fn(&I) -> To + 'static) -> Arrivals<'scope, I>;

    /// Of rows that every worker has, those whose `key(row)` this one owns: among all workers each row stays once.
    fn owned(self, key: impl Fn(&I) -> u64 + 'static) -> Self;
}

impl<'scope, I: ExchangeData + Clone> Route<'scope, I> for StreamVec<'scope, u64, I> {
    fn route(self, key: impl Fn(&I) -> u64 + 'static) -> Arrivals<'scope, I> {
        let workers = self.scope().peers();
        if workers == 1 {
            return self.arrive();
        }
        self.arrive_by(Exchange::new(move |row: &I| owner(key(row), workers)))
    }

    fn to_all(self) -> Arrivals<'scope, I> {
        self.deliver(|_| To::All)
    }

    fn deliver(self, to: impl Fn(&I) -> To + 'static) -> Arrivals<'scope, I> {
        let workers = self.scope().peers();
        if workers == 1 {
            return self.arrive();
        }
        let copies = move |row: I| {
            let (first, last) = match to(&row) {
                To::Owner(hash) => (owner(hash, workers), owner(hash, workers)),
                To::All => (0, workers as u64 - 1),
            };
            (first..=last).zip(std::iter::repeat_n(row, (last - first + 1) as usize))
        };
        self.flat_map(copies).arrive_by(Exchange::new(|(worker, _): &(u64, I)| *worker)).map(|(_, row)| row)
    }

    fn owned(self, key: impl Fn(&I) -> u64 + 'static) -> Self {
        let (index, workers) = (self.scope().index() as u64, self.scope().peers());
        self.filter(move |row| owner(key(row), workers) == index)
    }
}
