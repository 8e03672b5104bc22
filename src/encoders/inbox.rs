//! Where the engine leaves what is to be encoded.
//!
//! The facts that must stay true: leaving something there waits for nobody, and a piece waits there once, however often it is offered. What
//! finds no room is left out; the engine offers it again.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::model::ItemId;
use crate::model::content::{Space, Work};
use crate::telemetry;

/// Bytes that may wait: images of a whole catalogue must not be held twice. A piece that comes to an empty inbox always finds room.
const MOST_BYTES: usize = 64 << 20;

/// The inbox. A clone is the same one.
#[derive(Clone)]
pub struct Inbox(Arc<Inner>);

struct Inner {
    /// How many pieces may wait.
    room: usize,
    /// And how many bytes of them.
    bytes: usize,
    held: Mutex<Held>,
    rings: Condvar,
}

#[derive(Default)]
struct Held {
    waiting: VecDeque<Arc<Work>>,
    /// What they are. The engine, which does not see how far the encoder is, offers again what waits for long.
    known: BTreeSet<(ItemId, Space, u64)>,
    /// Their bytes.
    bytes: usize,
    stop: bool,
}

fn known(work: &Work) -> (ItemId, Space, u64) {
    (work.item, work.space, work.content)
}

impl Inbox {
    /// With room for so many pieces.
    pub fn new(room: usize) -> Self {
        Self::within(room, MOST_BYTES)
    }

    fn within(room: usize, bytes: usize) -> Self {
        Self(Arc::new(Inner { room, bytes, held: Mutex::default(), rings: Condvar::new() }))
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
        if held.known.contains(&known(&work)) {
            return;
        }
        let heavy = !held.waiting.is_empty() && held.bytes + work.body.len() > self.0.bytes;
        if heavy || held.waiting.len() >= self.0.room {
            drop(held);
            return telemetry::encoded(work.space, "full", 1);
        }
        held.known.insert(known(&work));
        held.bytes += work.body.len();
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
        for work in &taken {
            held.known.remove(&known(work));
            held.bytes -= work.body.len();
        }
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

    #[test]
    fn c43_a_piece_waits_once_and_what_waits_is_bounded_by_bytes() {
        let inbox = Inbox::within(9, 10);
        let offer = |item, content, bytes| {
            inbox.offer(Arc::new(Work { item: ItemId(item), space: Space::Image, content, body: vec![1; bytes].into() }));
        };
        let take = || inbox.take(9, Duration::ZERO).iter().map(|work| (work.item.0, work.content)).collect::<Vec<_>>();
        for (item, content, bytes) in [(1, 1, 4), (1, 1, 4), (1, 2, 4), (2, 1, 2), (3, 3, 1)] {
            offer(item, content, bytes);
        }
        assert_eq!(take(), [(1, 1), (1, 2), (2, 1)], "a piece once, and 10 bytes of them");
        offer(1, 1, 11);
        offer(4, 4, 1);
        assert_eq!(take(), [(1, 1)], "what was taken may come again, and a large one comes alone");
        offer(4, 4, 1);
        assert_eq!(take(), [(4, 4)]);
    }
}
