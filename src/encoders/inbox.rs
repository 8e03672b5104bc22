//! Where the engine leaves what is to be encoded.
//!
//! The fact that must stay true: leaving something there waits for nobody. What finds no room is left out; the engine offers it again.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::model::content::Work;
use crate::telemetry;

/// The inbox. A clone is the same one.
#[derive(Clone)]
pub struct Inbox(Arc<Inner>);

struct Inner {
    /// How many pieces may wait.
    room: usize,
    held: Mutex<Held>,
    rings: Condvar,
}

#[derive(Default)]
struct Held {
    waiting: VecDeque<Arc<Work>>,
    stop: bool,
}

impl Inbox {
    /// With room for so many pieces.
    pub fn new(room: usize) -> Self {
        Self(Arc::new(Inner { room, held: Mutex::default(), rings: Condvar::new() }))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().expect("no panic under the lock")
    }

    /// Offers a piece, as far as there is room.
    pub fn offer(&self, work: Arc<Work>) {
        if work.body.is_empty() {
            return telemetry::encoded(work.space, "dropped", 1);
        }
        let mut held = self.held();
        if held.waiting.len() >= self.0.room {
            drop(held);
            return telemetry::encoded(work.space, "full", 1);
        }
        held.waiting.push_back(work);
        self.0.rings.notify_all();
    }

    /// Up to `most` pieces of one space, that of the one that waits longest; none after `patience`.
    pub fn take(&self, most: usize, patience: Duration) -> Vec<Arc<Work>> {
        let idle = |held: &mut Held| held.waiting.is_empty() && !held.stop;
        let (mut held, _) = self.0.rings.wait_timeout_while(self.held(), patience, idle).expect("no panic under the lock");
        let Some(space) = held.waiting.front().map(|work| work.space) else { return Vec::new() };
        let mut taken = Vec::new();
        held.waiting.retain(|work| {
            let take = work.space == space && taken.len() < most;
            taken.extend(take.then(|| work.clone()));
            !take
        });
        taken
    }

    /// Nothing more is to be encoded.
    pub fn stop(&self) {
        self.held().stop = true;
        self.0.rings.notify_all();
    }

    /// Whether that was said.
    pub fn stops(&self) -> bool {
        self.held().stop
    }

    /// Waits so long, or until nothing more is to be encoded.
    pub fn nap(&self, longest: Duration) {
        drop(self.0.rings.wait_timeout_while(self.held(), longest, |held| !held.stop).expect("no panic under the lock"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ItemId;
    use crate::model::content::Space;

    #[test]
    fn c43_what_finds_no_room_is_left_out_and_nobody_waits() {
        let inbox = Inbox::new(3);
        let work = |item, space| Arc::new(Work { item: ItemId(item), space, content: item, body: Arc::from([1]) });
        for (item, space) in [(1, Space::Text), (2, Space::Image), (3, Space::Text), (4, Space::Text)] {
            inbox.offer(work(item, space));
        }
        let take = |most| inbox.take(most, Duration::ZERO).iter().map(|work| work.item.0).collect::<Vec<_>>();
        assert_eq!([take(9), take(9), take(9)], [vec![1, 3], vec![2], vec![]]);
        (5..8).for_each(|item| inbox.offer(work(item, Space::Text)));
        let take = |most| inbox.take(most, Duration::ZERO).iter().map(|work| work.item.0).collect::<Vec<_>>();
        assert_eq!([take(2), take(2)], [vec![5, 6], vec![7]]);
        inbox.stop();
        assert!(inbox.take(1, Duration::from_secs(600)).is_empty() && inbox.stops());
        inbox.nap(Duration::from_secs(600));
    }
}
