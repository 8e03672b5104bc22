//! Whether the dataflow moves. An epoch that the workers were given and do not pass ends the process: somewhere a worker, or a whole
//! process of the cluster, hangs, and only a start can help.
//!
//! The facts that must stay true: only computing is judged, so that a store that is away or a quiet input alarms nobody; and time in
//! which this process itself was held does not count, because the watch was held with it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// Looks within the time an epoch may take.
const LOOKS: u32 = 30;
/// What lies between two looks counts for so many looks at most: the rest of it this process was held.
const LONGEST: u32 = 2;
/// The first epoch waits for the workers to load their state: this many times as long.
const FIRST: u32 = 10;

/// How far the workers of this process are. Numbers are of the next epoch: 0 before the first.
pub struct Progress {
    given: AtomicU64,
    passed: Vec<AtomicU64>,
    stages: Vec<(&'static str, Vec<OnceLock<Arc<AtomicU64>>>)>,
}

impl Progress {
    /// Of so many workers, and these stages.
    pub fn new(workers: usize, stages: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            given: AtomicU64::new(0),
            passed: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            stages: stages.into_iter().map(|stage| (stage, vec![OnceLock::new(); workers])).collect(),
        }
    }

    /// The workers were given this epoch.
    pub fn give(&self, epoch: u64) {
        self.given.store(epoch + 1, Ordering::Release);
    }

    /// A worker has passed this epoch.
    pub fn pass(&self, worker: usize, epoch: u64) {
        self.passed[worker].store(epoch + 1, Ordering::Release);
    }

    /// Where a worker's stage says how far it is, said once.
    pub fn watch(&self, worker: usize, stage: &str, next: Arc<AtomicU64>) {
        let told = self.stages.iter().find(|(name, _)| *name == stage);
        told.into_iter().for_each(|(_, told)| drop(told[worker].set(next.clone())));
    }

    /// How far each stage is at the slowest worker of this process.
    pub fn stages(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.stages.iter().map(|(stage, told)| (*stage, slowest(told.iter().filter_map(OnceLock::get).map(Arc::as_ref))))
    }

    fn given(&self) -> u64 {
        self.given.load(Ordering::Acquire)
    }

    fn passed(&self) -> u64 {
        slowest(self.passed.iter())
    }

    /// `ledger 812, signals 812, …`
    fn frontiers(&self) -> String {
        let each = self.stages().map(|(stage, next)| format!("{stage} {next}"));
        each.collect::<Vec<_>>().join(", ")
    }
}

fn slowest<'a>(of: impl Iterator<Item = &'a AtomicU64>) -> u64 {
    of.map(|at| at.load(Ordering::Acquire)).min().unwrap_or(0)
}

/// For how long nothing has moved. Pure: the time between looks is handed in.
struct Stall {
    allowed: Duration,
    passed: u64,
    stood: Duration,
}

impl Stall {
    fn new(allowed: Duration) -> Self {
        Self { allowed, passed: 0, stood: Duration::ZERO }
    }

    /// A look, so long after the one before; `true`: it has stood for too long.
    fn look(&mut self, since: Duration, given: u64, passed: u64) -> bool {
        let stands = passed < given && passed == self.passed;
        let counts = since.min(self.allowed / LOOKS * LONGEST);
        (self.passed, self.stood) = (passed, if stands { self.stood + counts } else { Duration::ZERO });
        self.stood >= self.allowed * if passed == 0 { FIRST } else { 1 }
    }
}

/// Watches until nobody else holds `progress`; ends the process when it stands for longer than `stalled_after`.
pub fn start(progress: &Arc<Progress>, stalled_after: Duration) -> std::io::Result<()> {
    let watched = Arc::downgrade(progress);
    std::thread::Builder::new().name("watch".into()).spawn(move || watch(&watched, stalled_after)).map(drop)
}

fn watch(watched: &Weak<Progress>, stalled_after: Duration) {
    let (mut stall, mut looked) = (Stall::new(stalled_after), Instant::now());
    loop {
        std::thread::sleep(stalled_after / LOOKS);
        let Some(progress) = watched.upgrade() else { return };
        let (given, passed) = (progress.given(), progress.passed());
        if stall.look(std::mem::replace(&mut looked, Instant::now()).elapsed(), given, passed) {
            let (newest, frontiers) = (given - 1, progress.frontiers());
            tracing::error!(
                epoch = passed,
                newest,
                frontiers,
                "an epoch is not completed: the process ends, to be started again"
            );
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// With 30 s allowed and a look each second.
    fn looks_until_stalled(given: u64, passed: u64) -> Option<u32> {
        let mut stall = Stall::new(30 * SECOND);
        (1..=1000).find(|_| stall.look(SECOND, given, passed))
    }

    #[test]
    fn only_an_epoch_that_stands_is_a_stall() {
        assert_eq!(looks_until_stalled(8, 8), None, "everything is passed: the input is quiet, or the store is away");
        assert_eq!(looks_until_stalled(9, 8), Some(31), "one look more, to have seen it stand");
        assert_eq!(looks_until_stalled(9, 0), Some(300), "state is being loaded");
        let mut stall = Stall::new(30 * SECOND);
        assert!((1..1000).all(|n| !stall.look(SECOND, n + 4, n)), "slow is not stalled");
        assert!((0..10).all(|_| !stall.look(3600 * SECOND, 1003, 999)), "the process itself was held, each time for an hour");
    }

    #[test]
    fn the_slowest_worker_counts_and_frontiers_are_named() {
        let progress = Progress::new(2, ["ledger", "slates"]);
        progress.give(7);
        progress.pass(0, 7);
        assert_eq!((progress.given(), progress.passed()), (8, 0));
        progress.pass(1, 6);
        progress.watch(0, "slates", Arc::new(AtomicU64::new(8)));
        progress.watch(1, "slates", Arc::new(AtomicU64::new(7)));
        assert_eq!((progress.passed(), progress.frontiers().as_str()), (7, "ledger 0, slates 7"));
    }
}
