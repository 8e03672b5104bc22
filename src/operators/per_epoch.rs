//! Runs a plain function once per epoch and worker, in order, when every row of the epoch is there.
//!
//! The fact that must stay true: the function sees each epoch exactly once, after all epochs before it, with all rows routed to
//! this worker, however they were batched on the way. An epoch without rows is run too, because time passes in it.

use std::collections::BTreeMap;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::{ParallelizationContract, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

use crate::model::Epoch;

/// Extension of streams whose time is the epoch.
pub trait PerEpoch<'scope, I> {
    /// Calls `step(epoch, rows, out)` for every row of `clock` once the frontiers have passed it, and sends what it put into `out`.
    ///
    /// `clock` carries one [`Epoch`] per epoch on every worker. The order of `rows` is not promised: sort before folding.
    ///
    /// ```
    /// use overdrive::model::Epoch;
    /// use overdrive::operators::PerEpoch;
    /// use timely::dataflow::channels::pact::Pipeline;
    /// use timely::dataflow::operators::{Inspect, vec::ToStream};
    ///
    /// timely::example(|scope| {
    ///     let epoch = Epoch { number: 0, clock_ms: 1_000, ..Epoch::default() };
    ///     let clock = vec![epoch].to_stream(scope);
    ///     let rows = vec![3u64, 4].to_stream(scope);
    ///     rows.per_epoch(clock, Pipeline, "Sum", |_epoch, rows, out: &mut Vec<u64>| out.push(rows.drain(..).sum()))
    ///         .inspect(|sum| assert_eq!(*sum, 7));
    /// });
    /// ```
    fn per_epoch<O, P, L>(self, clock: StreamVec<'scope, u64, Epoch>, pact: P, name: &str, step: L) -> StreamVec<'scope, u64, O>
    where
        O: Clone + 'static,
        P: ParallelizationContract<u64, Vec<I>>,
        L: FnMut(&Epoch, &mut Vec<I>, &mut Vec<O>) + 'static;
}

/// What has arrived for one epoch so far.
struct Waiting<I> {
    rows: Vec<I>,
    epoch: Option<(Capability<u64>, Epoch)>,
}

impl<I> Default for Waiting<I> {
    fn default() -> Self {
        Self { rows: Vec::new(), epoch: None }
    }
}

impl<'scope, I: Clone + 'static> PerEpoch<'scope, I> for StreamVec<'scope, u64, I> {
    fn per_epoch<O, P, L>(
        self,
        clock: StreamVec<'scope, u64, Epoch>,
        pact: P,
        name: &str,
        mut step: L,
    ) -> StreamVec<'scope, u64, O>
    where
        O: Clone + 'static,
        P: ParallelizationContract<u64, Vec<I>>,
        L: FnMut(&Epoch, &mut Vec<I>, &mut Vec<O>) + 'static,
    {
        let mut waiting: BTreeMap<u64, Waiting<I>> = BTreeMap::new();
        let mut out = Vec::new();
        self.binary_frontier(clock, pact, Pipeline, name, move |_capability, _info| {
            move |(rows, rows_frontier), (clock, clock_frontier), output| {
                rows.for_each_time(|time, batches| {
                    let stash = &mut waiting.entry(*time.time()).or_default().rows;
                    for batch in batches {
                        if stash.is_empty() {
                            std::mem::swap(stash, batch);
                        } else {
                            stash.append(batch);
                        }
                    }
                });
                clock.for_each_time(|time, epochs| {
                    let stash = waiting.entry(*time.time()).or_default();
                    for epoch in epochs.flat_map(|e| e.drain(..)) {
                        stash.epoch = Some((time.retain(output.output_index()), epoch));
                    }
                });
                let settled = |number: &u64| !rows_frontier.less_equal(number) && !clock_frontier.less_equal(number);
                while let Some(first) = waiting.first_entry().filter(|first| settled(first.key())) {
                    let mut complete = first.remove();
                    if let Some((capability, epoch)) = complete.epoch {
                        step(&epoch, &mut complete.rows, &mut out);
                        output.session(&capability).give_container(&mut out);
                        out.clear();
                    }
                }
            }
        })
    }
}
