//! The workers of one process, all in this thread: whoever holds the crew says which of them steps.
//!
//! Timely means a worker to live in a thread of its own, and an allocator to be built there: it gives every peer a queue, then waits
//! for theirs. Here all are built in one thread, the next one while the one before begins to wait: timely asks for the first buffer
//! just then. What workers send each other goes as bytes, as it does between processes.

use overdrive::dataflows::{self, recommend};
use overdrive::model::{Change, Epoch, Handed, Row, Saved};
use overdrive::operators::{Clock, Vault};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::DerefMut;
use std::rc::Rc;
use std::sync::Arc;
use timely::communication::Allocator;
use timely::communication::allocator::zero_copy::bytes_slab::BytesRefill;
use timely::communication::allocator::{Process, ProcessBuilder};
use timely::dataflow::InputHandleVec;
use timely::dataflow::operators::Input as _;
use timely::worker::Worker;

/// A worker's share of an epoch.
pub type Slice = (Epoch, Vec<Row>);

/// What workers say.
pub enum Said {
    /// A worker passed an epoch, with what it changed.
    Part(u64, Vec<Change>),
    /// An operator handed over what it keeps.
    Kept(u64, Handed),
}

type Told = Rc<RefCell<Vec<Said>>>;

/// What operators keep, by uid.
pub type Restored = Arc<BTreeMap<String, Vec<Saved>>>;

/// Workers that step one at a time.
pub struct Crew {
    members: Vec<Member>,
    told: Told,
}

struct Member {
    worker: Worker,
    rows: InputHandleVec<u64, Row>,
    clock: InputHandleVec<u64, Epoch>,
    slices: VecDeque<Slice>,
}

impl Crew {
    pub fn new(workers: usize, params: &dataflows::Params, restored: &Restored) -> Self {
        let told = Told::default();
        let members = allocators(workers).into_iter().map(|allocator| Member::new(allocator, params, restored, &told)).collect();
        Self { members, told }
    }

    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Gives a worker its share of an epoch.
    pub fn give(&mut self, worker: usize, slice: Slice) {
        self.members[worker].slices.push_back(slice);
    }

    /// One worker takes a share, if one waits and it shall, and steps.
    pub fn step(&mut self, worker: usize, takes: bool) {
        self.members[worker].step(takes);
    }

    /// What was said since the last time.
    pub fn said(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.told.borrow_mut())
    }
}

impl Member {
    fn new(allocator: Allocator, params: &dataflows::Params, restored: &Restored, told: &Told) -> Self {
        let mut worker = Worker::new(timely::WorkerConfig::default(), allocator, None);
        let (mut rows, mut clock) = (InputHandleVec::new(), InputHandleVec::new());
        let (kept, parts) = (told.clone(), told.clone());
        let hand_over = move |epoch: &Epoch, handed| kept.borrow_mut().push(Said::Kept(epoch.number, handed));
        let vault = Vault::new(restored.clone(), hand_over);
        worker.dataflow(|scope| {
            let (clock, rows) = Clock::pacing(scope.input_from(&mut clock), scope.input_from(&mut rows));
            let tell = move |epoch: &Epoch, changes: &mut Vec<Change>, _: &mut Vec<()>| {
                parts.borrow_mut().push(Said::Part(epoch.number, std::mem::take(changes)));
            };
            recommend(rows, &clock, params, &vault).per_epoch(&clock, "Out", tell);
        });
        Self { worker, rows, clock, slices: VecDeque::new() }
    }

    fn step(&mut self, takes: bool) {
        if let Some((epoch, mut rows)) = takes.then(|| self.slices.pop_front()).flatten() {
            self.rows.send_batch(&mut rows);
            self.clock.send(epoch);
            self.rows.advance_to(epoch.number + 1);
            self.clock.advance_to(epoch.number + 1);
        }
        self.worker.step();
    }
}

impl Drop for Member {
    /// Nothing is completed: so dies a process.
    fn drop(&mut self) {
        self.worker.installed_dataflows().into_iter().for_each(|dataflow| self.worker.drop_dataflow(dataflow));
    }
}

thread_local! {
    static TO_BUILD: RefCell<VecDeque<ProcessBuilder>> = RefCell::default();
    static BUILT: RefCell<Vec<Process>> = RefCell::default();
}

fn allocators(workers: usize) -> Vec<Allocator> {
    let refill = BytesRefill { logic: Arc::new(buffer), limit: None };
    TO_BUILD.set(ProcessBuilder::new_bytes_vector(workers, refill, None).into());
    build_next();
    let built = BUILT.take();
    assert_eq!(built.len(), workers, "each builder asks for a buffer once it has given every peer its queue");
    built.into_iter().rev().map(Allocator::Process).collect()
}

/// Builds the next allocator, and while it does so those after it; so the last is built first.
fn build_next() {
    if let Some(builder) = TO_BUILD.with_borrow_mut(VecDeque::pop_front) {
        let built = builder.build();
        BUILT.with_borrow_mut(|all| all.push(built));
    }
}

/// A buffer for what is sent; whoever asks for the first one begins to wait for their peers.
fn buffer(bytes: usize) -> Box<dyn DerefMut<Target = [u8]> + Send> {
    build_next();
    Box::new(vec![0; bytes])
}
