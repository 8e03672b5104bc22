//! Rows of several streams on their way into one operator, and the operator: a plain function, run once per epoch and worker, in
//! order, when every row of the epoch is there.
//!
//! Streams are only connected when the operator is built, each with how its rows find their worker; what they become there they
//! become as they are read. So joining and mapping cost no operators of their own.
//!
//! The fact that must stay true: the function sees each epoch exactly once, after all epochs before it, with all rows routed to this
//! worker, however they were batched on the way. An epoch without rows is run too, because time passes in it.

use std::collections::BTreeMap;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{ParallelizationContract, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, StreamVec};

use super::Clock;
use crate::model::Epoch;

/// Rows on their way into one operator.
pub struct Arrivals<'scope, I> {
    scope: Scope<'scope, u64>,
    inputs: Vec<Connect<'scope, I>>,
}

/// Connects a stream to an operator that is being built.
type Connect<'scope, I> = Box<dyn FnOnce(&mut OperatorBuilder<'scope, u64>) -> Read<I> + 'scope>;

/// Reads what has arrived, batch by batch; who is told of a batch may take its rows.
type Read<I> = Box<dyn FnMut(&mut dyn FnMut(u64, &mut Vec<I>))>;

/// Extension of streams whose time is the epoch.
pub trait Arrive<'scope, I> {
    /// The rows as they are, where they are.
    fn arrive(self) -> Arrivals<'scope, I>;

    /// The rows as they are, at whichever worker `pact` says.
    fn arrive_by<P: ParallelizationContract<u64, Vec<I>> + 'scope>(self, pact: P) -> Arrivals<'scope, I>;
}

impl<'scope, I: Clone + 'static> Arrive<'scope, I> for StreamVec<'scope, u64, I> {
    fn arrive(self) -> Arrivals<'scope, I> {
        self.arrive_by(Pipeline)
    }

    fn arrive_by<P: ParallelizationContract<u64, Vec<I>> + 'scope>(self, pact: P) -> Arrivals<'scope, I> {
        let scope = self.scope();
        let connect: Connect<'scope, I> = Box::new(move |builder| {
            let mut input = builder.new_input(self, pact);
            Box::new(move |take| {
                input.for_each_time(|time, batches| batches.for_each(|batch| take(*time.time(), batch)));
            })
        });
        Arrivals { scope, inputs: vec![connect] }
    }
}

impl<'scope, I: 'static> Arrivals<'scope, I> {
    /// The scope of the operator they arrive at.
    pub fn scope(&self) -> Scope<'scope, u64> {
        self.scope
    }

    /// These and others.
    pub fn concat(mut self, others: Self) -> Self {
        self.inputs.extend(others.inputs);
        self
    }

    /// Each row as what `f` makes of it.
    pub fn map<O: 'static>(self, f: impl Fn(I) -> O + Clone + 'static) -> Arrivals<'scope, O> {
        self.flat_map(move |row| std::iter::once(f(row)))
    }

    /// Each row as all that `f` makes of it.
    pub fn flat_map<O: 'static, R: IntoIterator<Item = O>>(self, f: impl Fn(I) -> R + Clone + 'static) -> Arrivals<'scope, O> {
        let inputs = self.inputs.into_iter().map(|connect| mapped(connect, f.clone())).collect();
        Arrivals { scope: self.scope, inputs }
    }

    /// Calls `step(epoch, rows, out)` for every epoch `clock` tells of once the inputs have passed it, and sends what it put into `out`.
    /// The order of `rows` is not promised: sort before folding.
    ///
    /// ```
    /// use overdrive::model::Epoch;
    /// use overdrive::operators::{Arrive, Clock};
    /// use timely::dataflow::operators::{Inspect, vec::ToStream};
    ///
    /// timely::example(|scope| {
    ///     let epoch = Epoch { number: 0, clock_ms: 1_000, ..Epoch::default() };
    ///     let (clock, rows) = Clock::pacing(vec![epoch].to_stream(scope), vec![3u64, 4].to_stream(scope));
    ///     let doubled = rows.clone().arrive().map(|x| x * 2);
    ///     rows.arrive()
    ///         .concat(doubled)
    ///         .per_epoch(&clock, "Sum", |_epoch, rows, out: &mut Vec<u64>| out.push(rows.drain(..).sum()))
    ///         .inspect(|sum| assert_eq!(*sum, 21));
    /// });
    /// ```
    pub fn per_epoch<O: Clone + 'static>(
        self,
        clock: &Clock,
        name: &str,
        mut step: impl FnMut(&Epoch, &mut Vec<I>, &mut Vec<O>) + 'static,
    ) -> StreamVec<'scope, u64, O> {
        let heard = clock.listen(name);
        let mut builder = OperatorBuilder::new(name.to_string(), self.scope);
        let mut inputs: Vec<Read<I>> = self.inputs.into_iter().map(|connect| connect(&mut builder)).collect();
        let (output, stream) = builder.new_output::<Vec<O>>();
        let mut output = OutputBuilder::<_, CapacityContainerBuilder<Vec<O>>>::from(output);
        builder.build(move |mut capabilities| {
            let mut capability = capabilities.pop();
            let (mut waiting, mut out) = (BTreeMap::<u64, Vec<I>>::new(), Vec::new());
            move |frontiers| {
                inputs.iter_mut().for_each(|read| read(&mut |epoch, rows| put(waiting.entry(epoch).or_default(), rows)));
                let settled = |epoch| !frontiers.iter().any(|frontier| frontier.less_equal(&epoch));
                let mut output = output.activate();
                let next = || heard.borrow_mut().take(settled);
                while let Some(epoch) = next() {
                    let capability = capability.as_mut().expect("it is kept while there may be epochs");
                    capability.downgrade(&epoch.number);
                    step(&epoch, &mut rows_of(&mut waiting, epoch.number), &mut out);
                    output.session(capability).give_container(&mut out);
                    out.clear();
                    heard.borrow_mut().pass(epoch.number);
                }
                match heard.borrow().earliest() {
                    Some(epoch) => {
                        capability.iter_mut().filter(|held| *held.time() < epoch).for_each(|held| held.downgrade(&epoch))
                    }
                    None => capability = None,
                }
            }
        });
        stream
    }
}

fn mapped<'scope, I: 'static, O: 'static, R: IntoIterator<Item = O>>(
    connect: Connect<'scope, I>,
    f: impl Fn(I) -> R + 'static,
) -> Connect<'scope, O> {
    Box::new(move |builder| {
        let (mut read, mut made) = (connect(builder), Vec::new());
        Box::new(move |take| {
            read(&mut |epoch, rows| {
                made.extend(rows.drain(..).flat_map(&f));
                take(epoch, &mut made);
                made.clear();
            });
        })
    })
}

/// Puts a batch to what is there of its epoch.
fn put<I>(stash: &mut Vec<I>, batch: &mut Vec<I>) {
    if stash.is_empty() {
        std::mem::swap(stash, batch);
    } else {
        stash.append(batch);
    }
}

/// The rows of an epoch: all that came since the one before. (The first one's come at time 0, whatever its number.)
fn rows_of<I>(waiting: &mut BTreeMap<u64, Vec<I>>, epoch: u64) -> Vec<I> {
    let mut rows = Vec::new();
    while let Some(first) = waiting.first_entry().filter(|first| *first.key() <= epoch) {
        put(&mut rows, &mut first.remove());
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operators::Route;
    use std::sync::{Arc, Mutex, mpsc};
    use std::time::Duration;
    use timely::dataflow::InputHandle;
    use timely::dataflow::operators::{ConnectLoop, Feedback, Input};
    use timely::worker::Worker;

    /// An epoch and the rows it saw, sorted.
    type Seen = (u64, Vec<u64>);

    /// Runs a loop of two operators on two workers, with the rows given out among them; yields what the second saw on each.
    fn through_a_loop(epochs: &[Seen]) -> [Vec<Seen>; 2] {
        let (epochs, seen) = (epochs.to_vec(), Arc::new(Mutex::new([Vec::new(), Vec::new()])));
        let (sees, (ended, ends)) = (seen.clone(), mpsc::channel());
        std::thread::spawn(move || {
            let guards = timely::execute(timely::Config::process(2), move |worker| run(worker, &epochs, sees.clone()));
            drop(guards.expect("two workers"));
            ended.send(()).expect("the test waits");
        });
        ends.recv_timeout(Duration::from_secs(60)).expect("it ends once its inputs have ended");
        std::mem::take(&mut *seen.lock().expect("no panic"))
    }

    fn run(worker: &mut Worker, epochs: &[Seen], sees: Arc<Mutex<[Vec<Seen>; 2]>>) {
        let (mut rows, mut clock) = (InputHandle::new(), InputHandle::new());
        let index = worker.index();
        worker.dataflow::<u64, _, _>(|scope| {
            let (clock, rows) = Clock::pacing(scope.input_from(&mut clock), scope.input_from(&mut rows));
            let (back, after) = scope.feedback(1);
            let passed = rows.route(|row: &u64| row << 8).concat(after.arrive());
            let passed = passed.per_epoch(&clock, "Pass", |_, rows, out| out.append(rows));
            let last = passed.to_all().per_epoch(&clock, "Last", move |epoch, rows, _| {
                rows.sort_unstable();
                sees.lock().expect("no panic")[index].push((epoch.number, std::mem::take(rows)));
            });
            last.connect_loop(back);
        });
        for (number, all) in epochs {
            all.iter().filter(|row| **row as usize % 2 == index).for_each(|row| rows.send(*row));
            clock.send(Epoch { number: *number, ..Epoch::default() });
            rows.advance_to(number + 1);
            clock.advance_to(number + 1);
            worker.step();
        }
    }

    #[test]
    fn every_epoch_is_passed_once_with_its_rows_whatever_its_number() {
        let began = 1_700_000_000_000; // while timely's times begin at 0
        let epochs = [(began, vec![1, 2, 3]), (began + 1, vec![]), (began + 5, vec![4, 5]), (began + 6, vec![6])];
        assert_eq!(through_a_loop(&epochs), [epochs.to_vec(), epochs.to_vec()]);
    }

    #[test]
    fn without_an_epoch_it_ends() {
        assert_eq!(through_a_loop(&[]), [vec![], vec![]]);
    }
}
