//! Puts the records of several partitions in the order of their event time, for clocks that are event time.
//!
//! Partitions of a backlog arrive in bursts, one after another; an event clock driven by the first would make everything in the others
//! late. A thin stream makes long epochs, and a clock that is the latest time of an epoch would make its first records late: an epoch
//! spans a quarter of an hour at most. The facts that must stay true: within a partition the order stays, nothing is lost, and as long as every partition has
//! something waiting, what is taken is the earliest there is.

use std::collections::{BTreeMap, VecDeque};

use crate::model::time::{MINUTE, Millis};
use crate::model::{Input, Positions, Role, Row};

/// A decoded record, and when the log accepted it where that is what freshness is measured from.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrived {
    pub row: Row,
    pub accepted_ms: Option<i64>,
}

impl Arrived {
    /// Event time; what has none goes before everything.
    fn at(&self) -> Millis {
        match &self.row.input {
            Ok(Input::Event(event)) => event.at,
            _ => Millis::MIN,
        }
    }
}

/// The longest span of event time in one epoch.
const SPAN: Millis = 15 * MINUTE;

/// Records waiting for their turn, per partition.
#[derive(Debug, Default)]
pub struct Aligner {
    queues: BTreeMap<(Role, u32), VecDeque<Arrived>>,
    waiting: usize,
    most: usize,
    /// The source had nothing when it was asked last.
    pub quiet: bool,
}

impl Aligner {
    /// For these partitions. Past `most` waiting records a partition that has none is no longer waited for.
    pub fn new(partitions: &Positions, most: usize) -> Self {
        let events = partitions.keys().filter(|(role, _)| *role == Role::Events);
        Self { queues: events.map(|place| (*place, VecDeque::new())).collect(), waiting: 0, most, quiet: false }
    }

    /// One more record of its partition.
    pub fn push(&mut self, arrived: Arrived) {
        let origin = arrived.row.origin;
        self.queues.entry((origin.role, origin.partition)).or_default().push_back(arrived);
        self.waiting += 1;
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// Up to `rows` records, the earliest first. Stops when an events partition has nothing waiting, because something earlier may
    /// still come of it, unless the source is quiet or too much waits.
    pub fn take(&mut self, rows: usize) -> Vec<Arrived> {
        let mut taken: Vec<Arrived> = Vec::new();
        while taken.len() < rows && self.waiting > 0 {
            let behind = self.queues.iter().any(|((role, _), queue)| *role == Role::Events && queue.is_empty());
            if behind && !self.quiet && self.waiting < self.most {
                break;
            }
            let heads = self.queues.iter_mut().filter(|(_, queue)| !queue.is_empty());
            let Some((_, earliest)) = heads.min_by_key(|(_, queue)| queue.front().map(Arrived::at)) else { break };
            let first = taken.iter().map(Arrived::at).find(|at| *at > Millis::MIN);
            if first.is_some_and(|first| earliest.front().is_some_and(|next| next.at() > first + SPAN)) {
                break;
            }
            taken.extend(earliest.pop_front());
            self.waiting -= 1;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Event, ItemId, Kind, Op, Origin, UserId};

    fn event(partition: u32, offset: u64, at: Millis) -> Arrived {
        let event = Event { id: 1, user: UserId(1), item: ItemId(1), kind: Kind::View, op: Op::Add, at, value_milli: None };
        let origin = Origin { role: Role::Events, partition, offset, accepted: at };
        Arrived { row: Row { origin, input: Ok(Input::Event(event)) }, accepted_ms: None }
    }

    fn times(taken: &[Arrived]) -> Vec<Millis> {
        taken.iter().map(Arrived::at).collect()
    }

    #[test]
    fn bursts_of_partitions_come_out_by_time_and_wait_for_each_other() {
        let partitions: Positions = [((Role::Events, 0), 0), ((Role::Events, 1), 0)].into();
        let mut aligner = Aligner::new(&partitions, 100);
        [1, 4, 9].iter().enumerate().for_each(|(i, at)| aligner.push(event(0, i as u64, *at)));
        assert_eq!(times(&aligner.take(10)), [0; 0], "partition 1 may have something earlier");
        [2, 3].iter().enumerate().for_each(|(i, at)| aligner.push(event(1, i as u64, *at)));
        assert_eq!(times(&aligner.take(10)), [1, 2, 3]);
        aligner.quiet = true;
        assert_eq!(times(&aligner.take(10)), [4, 9], "a quiet source keeps nobody waiting");
        assert!(aligner.is_empty());
    }

    #[test]
    fn an_empty_partition_does_not_hold_the_others_for_ever() {
        let partitions: Positions = [((Role::Events, 0), 0), ((Role::Events, 1), 0)].into();
        let mut aligner = Aligner::new(&partitions, 3);
        (0..5).for_each(|i| aligner.push(event(0, i, i as Millis)));
        assert_eq!(times(&aligner.take(10)), [0, 1, 2], "down to what may wait");
    }

    #[test]
    fn an_epoch_spans_a_quarter_of_an_hour_at_most() {
        let mut aligner = Aligner::new(&[((Role::Events, 0), 0)].into(), 100);
        aligner.quiet = true;
        [0, SPAN, SPAN + 1].iter().enumerate().for_each(|(i, at)| aligner.push(event(0, i as u64, *at)));
        assert_eq!((times(&aligner.take(10)), times(&aligner.take(10))), (vec![0, SPAN], vec![SPAN + 1]));
    }
}
