//! The workers of one process: what each is given, what it says, how it sleeps.
//!
//! ```text
//! process 0          rows, clock ▶ worker ▶ recommend ▶ changes, kept ▶ out
//!                          clock │               ▲              ▲
//! another process                ╰─▶ worker ▶ recommend ▶ changes, kept
//! ```
//! The facts that must stay true: only process 0 is given input, and only there anything comes out; every worker is told of every
//! epoch; and what operators handed over at an epoch comes out with it, from whichever process it is.

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use timely::communication::{Hooks, WorkerGuards};
use timely::dataflow::InputHandle;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::Input as _;
use timely::worker::Worker;

use super::peers::Restored;
use super::{Said, Slice};
use crate::cluster::Sockets;
use crate::dataflows::{self, recommend};
use crate::model::{Change, Epoch, Handed, Part};
use crate::operators::{Arrivals, Arrive, Clock, Lead, Vault};
use crate::telemetry;
use crate::watch::Progress;

/// How long a worker sleeps when nobody wakes it.
const NAP: Duration = Duration::from_millis(100);
/// How often the metrics are told how far the stages are.
const TELL: Duration = Duration::from_millis(500);

/// What the workers of a process have in common.
pub struct Common {
    pub params: dataflows::Params,
    /// In this process.
    pub workers: usize,
    pub progress: Arc<Progress>,
}

/// What process 0's workers are given, and whom they tell.
pub struct Led {
    pub slices: Vec<Receiver<Slice>>,
    pub threads: Arc<Vec<OnceLock<Thread>>>,
    pub said: Sender<Said>,
}

/// What one worker takes with it.
struct Luggage {
    restored: Arc<Restored>,
    /// Of those who are given something.
    led: Option<(Receiver<Slice>, Sender<Said>)>,
}

/// Starts the workers of this process, with what operators kept of their keys; without `led` those of another process than 0.
pub fn start(
    common: Common,
    restored: Arc<Restored>,
    sockets: Option<(usize, Sockets)>,
    led: Option<Led>,
) -> Result<WorkerGuards<()>, String> {
    let (allocators, others) = allocators(common.workers, sockets)?;
    let (threads, led): (_, Vec<_>) = match led {
        Some(Led { slices, threads, said }) => {
            (Some(threads), slices.into_iter().map(|slices| Some((slices, said.clone()))).collect())
        }
        None => (None, (0..common.workers).map(|_| None).collect()),
    };
    let luggage = |led| Mutex::new(Some(Luggage { restored: restored.clone(), led }));
    let luggage: Vec<_> = led.into_iter().map(luggage).collect();
    let run = move |worker: &mut Worker| {
        let here = worker.index() % common.workers;
        let mine = luggage[here].lock().expect("no panic under the lock").take().expect("taken once, by its worker");
        threads.iter().for_each(|threads| threads[here].set(std::thread::current()).expect("set once, by its worker"));
        work(worker, &common, mine);
    };
    let config = timely::WorkerConfig::default();
    timely::execute::execute_from(allocators, others, config, run).map_err(|e| format!("the workers cannot start: {e}"))
}

/// How the workers reach each other, those of other processes over `sockets`, as this process's number.
fn allocators(workers: usize, sockets: Option<(usize, Sockets)>) -> Result<(Vec<AllocatorBuilder>, Box<dyn Any + Send>), String> {
    use timely::CommunicationConfig::{Process, Thread};
    let Some((process, sockets)) = sockets else {
        return if workers == 1 { Thread } else { Process(workers) }.try_build();
    };
    let hooks = Hooks::default();
    let here = ProcessBuilder::new_typed_vector(workers, hooks.refill.clone(), hooks.spill.clone());
    let (builders, threads) = initialize_networking_from_sockets(here, sockets, process, workers, hooks)
        .map_err(|e| format!("the connections between the processes cannot be used: {e}"))?;
    Ok((builders.into_iter().map(AllocatorBuilder::Tcp).collect(), Box::new(threads)))
}

/// One worker: takes its slices, steps, parks. One of another process than 0 is given nothing, and only builds its part.
fn work(worker: &mut Worker, common: &Common, Luggage { restored, led }: Luggage) {
    let (mut rows, mut clock) = (InputHandle::new(), InputHandle::new());
    let kept = Kept::default();
    let (slices, said) = led.unzip();
    let (index, workers, progress) = (worker.index(), common.workers, common.progress.clone());
    let vault = Vault::new(restored, kept.taker());
    worker.dataflow(|scope| {
        let (rows, epochs) = (scope.input_from(&mut rows), scope.input_from(&mut clock));
        let epochs = if scope.peers() > workers { epochs.to_followers(workers) } else { epochs };
        let (clock, rows) = Clock::pacing(epochs, rows);
        let changes = recommend(rows, &clock, &common.params, &vault);
        let out = move |epoch: &Epoch, said_of: Said| {
            if let Some(said) = &said {
                said.send(said_of).expect("the collector outlives the workers");
                progress.pass(index, epoch.number);
            }
        };
        if scope.peers() > workers {
            let told = told(changes, &clock, kept.clone(), workers).arrive();
            told.per_epoch(&clock, "Out", move |e, told, _: &mut Vec<()>| out(e, Said::of(e.number, told, kept.take(e.number))));
        } else {
            changes.per_epoch(&clock, "Out", move |e, changes, _: &mut Vec<()>| {
                out(e, Said::Part(e.number, std::mem::take(changes), kept.take(e.number)));
            });
        }
        for (stage, operator) in dataflows::watched() {
            clock.next_of(operator).into_iter().for_each(|next| common.progress.watch(index % workers, stage, next));
        }
    });
    drop(vault); // what was restored is needed once
    let Some(slices) = slices else { return }; // timely steps on until the dataflow is complete
    let mut told = Instant::now();
    loop {
        match slices.try_recv() {
            Ok((epoch, mut batch)) => {
                rows.send_batch(&mut batch);
                clock.send(epoch);
                rows.advance_to(epoch.number + 1);
                clock.advance_to(epoch.number + 1);
                worker.step();
            }
            Err(TryRecvError::Empty) => drop(worker.step_or_park(Some(NAP))),
            Err(TryRecvError::Disconnected) => return,
        }
        if index == 0 && told.elapsed() > TELL {
            told = Instant::now();
            tell(*clock.time(), &common.progress);
        }
    }
}

/// What comes out of a worker and goes to process 0.
#[derive(Clone, Serialize, Deserialize)]
pub enum Told {
    Changed(Change),
    Kept(Part),
}

/// What changed and what the followers' operators handed over, on process 0.
fn told<'scope>(changes: Arrivals<'scope, Change>, clock: &Clock, kept: Kept, workers: usize) -> StreamVec<'scope, u64, Told> {
    let follows = changes.scope().index() >= workers;
    let told = changes.per_epoch(clock, "Tell", move |epoch, changes, out| {
        let handed = if follows { kept.take(epoch.number) } else { Vec::new() };
        out.extend(handed.into_iter().flat_map(|handed| handed.write().pieces()).map(Told::Kept));
        out.extend(changes.drain(..).map(Told::Changed));
    });
    told.to_leader(workers)
}

/// What this worker's operators handed over and nobody has taken.
#[derive(Clone, Default)]
struct Kept(Rc<RefCell<Vec<(u64, Handed)>>>);

impl Kept {
    fn taker(&self) -> impl Fn(&Epoch, Handed) + 'static {
        let kept = self.0.clone();
        move |epoch, handed| kept.borrow_mut().push((epoch.number, handed))
    }

    /// Everything of an epoch that all operators have passed.
    fn take(&self, epoch: u64) -> Vec<Handed> {
        let (now, later) = self.0.take().into_iter().partition(|(number, _)| *number <= epoch);
        *self.0.borrow_mut() = later;
        let now: Vec<(u64, Handed)> = now;
        now.into_iter().map(|(_, handed)| handed).collect()
    }
}

/// How many epochs each stage is behind the last that was given; before its first one it is behind none.
fn tell(given: u64, progress: &Progress) {
    for (stage, next) in progress.stages() {
        let behind = if next == 0 { 0 } else { given.saturating_sub(next) };
        metrics::gauge!(telemetry::FRONTIER_LAG, "stage" => stage).set(behind as f64);
    }
}
