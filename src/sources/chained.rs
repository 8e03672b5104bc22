//! A backfill and then the live log, as one source. Nothing of the second is delivered before the first has ended.

use std::time::Duration;

use super::{Positions, Record, Source, SourceError, TopicIds};

/// `first` until it ends, then `then`. Their partitions must differ, and `then` must be open already: what is appended to it
/// while `first` is read lies behind its position and is read afterwards. A record in both is dropped later, by its event id.
pub struct Chained {
    pub first: Box<dyn Source>,
    pub then: Box<dyn Source>,
}

impl Source for Chained {
    fn poll(&mut self, max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<(), SourceError> {
        if !self.first.ended() {
            let before = into.len();
            self.first.poll(max, wait, into)?;
            if into.len() > before || !self.first.ended() {
                return Ok(());
            }
        }
        self.then.poll(max, wait, into)
    }

    fn ended(&self) -> bool {
        self.first.ended() && self.then.ended()
    }

    fn gained(&mut self) -> Positions {
        self.then.gained() // a file gains none
    }

    fn topics(&self) -> TopicIds {
        self.then.topics() // a file is none
    }

    fn positions(&self) -> Positions {
        let mut positions = self.first.positions();
        positions.extend(self.then.positions());
        positions
    }
}
