//! Rows between the process that leads a cluster and those that follow: workers `0..local` are the leader's, whoever else is there
//! follows.
//!
//! What must stay true: nothing is lost or doubled on the way, and a worker's rows stay in their order.

use timely::ExchangeData;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::Concat;
use timely::dataflow::operators::Exchange;
use timely::dataflow::operators::vec::Map;

/// Extension of streams.
pub trait Lead<'scope, I> {
    /// What worker 0 has is at every follower as well.
    fn to_followers(self, local: usize) -> Self;

    /// What a follower has goes to one of the leader's workers.
    ///
    /// ```
    /// use overdrive::operators::Lead;
    /// use timely::dataflow::operators::{Inspect, vec::ToStream};
    ///
    /// timely::execute(timely::Config::process(3), |worker| {
    ///     let index = worker.index();
    ///     worker.dataflow::<u64, _, _>(|scope| {
    ///         vec![7u64].to_stream(scope).to_leader(2).inspect(move |row| assert!(*row == 7 && index < 2));
    ///     });
    /// })
    /// .unwrap();
    /// ```
    fn to_leader(self, local: usize) -> Self;
}

impl<'scope, I: ExchangeData + Clone> Lead<'scope, I> for StreamVec<'scope, u64, I> {
    fn to_followers(self, local: usize) -> Self {
        let (index, peers) = (self.scope().index(), self.scope().peers());
        let copies = move |row: I| (local..peers).filter(move |_| index == 0).map(move |to| (to as u64, row.clone()));
        let sent = self.clone().flat_map(copies).exchange(|(to, _)| *to).map(|(_, row)| row);
        self.concat(sent)
    }

    fn to_leader(self, local: usize) -> Self {
        let to = (self.scope().index() % local) as u64;
        self.exchange(move |_| to)
    }
}
