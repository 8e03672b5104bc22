//! What tells every operator of one worker of the epochs, and knows how far each has come.
//!
//! Epochs come as a stream; operators do not read it, they look at a queue of their own, because a channel to each of them costs
//! timely's accounts more than the epochs are worth. The facts that must stay true: every operator is told of every epoch, in rising
//! order; and none sees its inputs pass an epoch it was not told of, because the times of its inputs come from here, and here a time
//! is held until it was told of.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::model::Epoch;

/// The epochs of one worker, for its operators.
#[derive(Clone, Default)]
pub struct Clock(Rc<RefCell<Vec<Listener>>>);

/// One operator's ear.
struct Listener {
    operator: String,
    heard: Rc<RefCell<Heard>>,
}

/// What an operator was told and has not passed yet.
#[derive(Debug, Default)]
pub struct Heard {
    epochs: VecDeque<Epoch>,
    /// No more will come.
    ended: bool,
    /// One more than the last it passed; 0: none yet. Others may look at it.
    next: Arc<AtomicU64>,
}

impl Clock {
    /// Tells of `epochs`, one [`Epoch`] per epoch in rising order. The rows that come out are those that went in; no operator sees
    /// them pass an epoch before it was told of it. All operators that are to hear of epochs must take what they take from those rows.
    pub fn pacing<'scope, R: Clone + 'static>(
        epochs: StreamVec<'scope, u64, Epoch>,
        rows: StreamVec<'scope, u64, R>,
    ) -> (Self, StreamVec<'scope, u64, R>) {
        let clock = Self::default();
        let told = clock.clone();
        let rows = rows.binary_frontier(epochs, Pipeline, Pipeline, "Clock", move |capability, _info| {
            let mut held = Some(capability);
            move |(rows, rows_frontier), (epochs, epochs_frontier), output| {
                epochs.for_each_time(|_, batches| batches.flat_map(|batch| batch.drain(..)).for_each(|epoch| told.tell(epoch)));
                rows.for_each_time(|time, batches| output.session(&time).give_containers(batches));
                let fronts = [rows_frontier, epochs_frontier].map(|front| front.frontier().first().copied());
                let earliest = fronts.into_iter().flatten().min();
                match earliest {
                    Some(time) => held.iter_mut().filter(|held| *held.time() < time).for_each(|held| held.downgrade(&time)),
                    None if held.take().is_some() => told.end(),
                    None => {}
                }
            }
        });
        (clock, rows)
    }

    /// What an operator is told from now on.
    pub fn listen(&self, operator: &str) -> Rc<RefCell<Heard>> {
        let heard = Rc::<RefCell<Heard>>::default();
        self.0.borrow_mut().push(Listener { operator: operator.to_string(), heard: heard.clone() });
        heard
    }

    /// One more than the last epoch that the operator of this name has passed, 0 before the first, now and whenever it is looked at.
    pub fn next_of(&self, operator: &str) -> Option<Arc<AtomicU64>> {
        let listeners = self.0.borrow();
        let listener = listeners.iter().find(|listener| listener.operator == operator)?;
        Some(listener.heard.borrow().next.clone())
    }

    fn tell(&self, epoch: Epoch) {
        self.0.borrow().iter().for_each(|listener| listener.heard.borrow_mut().epochs.push_back(epoch));
    }

    fn end(&self) {
        self.0.borrow().iter().for_each(|listener| listener.heard.borrow_mut().ended = true);
    }
}

impl Heard {
    /// The next epoch, if it is `settled`.
    pub fn take(&mut self, settled: impl Fn(u64) -> bool) -> Option<Epoch> {
        self.epochs.pop_front_if(|epoch| settled(epoch.number))
    }

    /// An epoch that was taken is worked off.
    pub fn pass(&mut self, epoch: u64) {
        debug_assert!(epoch >= self.next(), "epochs rise");
        self.next.store(epoch + 1, Ordering::Release);
    }

    /// No epoch before this one will be passed any more; `None`: none at all.
    pub fn earliest(&self) -> Option<u64> {
        match self.epochs.front() {
            Some(epoch) => Some(epoch.number),
            None => (!self.ended).then_some(self.next()),
        }
    }

    fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }
}
