//! What tells every operator of one worker of the epochs, and is told how far each has come.
//!
//! Epochs come as a stream; operators do not read it, they look at a queue of their own, because a channel to each of them costs
//! timely's accounts more than the epochs are worth. The facts that must stay true: every operator is told of every epoch, in order;
//! and none sees its inputs pass an epoch it was not told of, because the rows they come from pass by here first.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use crate::model::Epoch;

/// The epochs of one worker, for its operators.
#[derive(Clone, Default)]
pub struct Clock(Rc<RefCell<Vec<Listener>>>);

/// One operator's ear.
#[derive(Clone)]
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
    /// The number of the next epoch it has not passed; 0 before the first.
    next: u64,
}

impl Clock {
    /// Tells of `epochs`, one [`Epoch`] per epoch; the rows that come out are those that went in, none of them before every operator
    /// was told of its epoch. All operators that are to hear of epochs must take what they take from those rows.
    pub fn pacing<'scope, R: Clone + 'static>(
        epochs: StreamVec<'scope, u64, Epoch>,
        rows: StreamVec<'scope, u64, R>,
    ) -> (Self, StreamVec<'scope, u64, R>) {
        let clock = Self::default();
        let told = clock.clone();
        let rows = rows.binary_frontier(epochs, Pipeline, Pipeline, "Clock", move |_capability, _info| {
            move |(rows, rows_frontier), (epochs, epochs_frontier), output| {
                epochs.for_each_time(|_, batches| batches.flat_map(|batch| batch.drain(..)).for_each(|epoch| told.tell(epoch)));
                rows.for_each_time(|time, batches| output.session(&time).give_containers(batches));
                if rows_frontier.is_empty() && epochs_frontier.is_empty() {
                    told.end();
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

    /// The next epoch of the operator of this name; `None`: there is no such operator, or it was told of none yet.
    pub fn next(&self, operator: &str) -> Option<u64> {
        let listeners = self.0.borrow();
        let listener = listeners.iter().find(|listener| listener.operator == operator)?;
        let next = listener.heard.borrow().next;
        (next > 0).then_some(next)
    }

    fn tell(&self, epoch: Epoch) {
        self.0.borrow().iter().for_each(|listener| listener.heard.borrow_mut().epochs.push_back(epoch));
    }

    fn end(&self) {
        self.0.borrow().iter().for_each(|listener| listener.heard.borrow_mut().ended = true);
    }
}

impl Heard {
    /// The next epoch, if it is `settled`: it counts as passed.
    pub fn pass(&mut self, settled: impl Fn(u64) -> bool) -> Option<Epoch> {
        let epoch = self.epochs.pop_front_if(|epoch| settled(epoch.number))?;
        self.next = epoch.number + 1;
        Some(epoch)
    }

    /// No epoch before this one will be passed any more; `None`: none at all.
    pub fn earliest(&self) -> Option<u64> {
        match self.epochs.front() {
            Some(epoch) => Some(epoch.number),
            None => (!self.ended).then_some(self.next),
        }
    }
}
