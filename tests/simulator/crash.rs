//! Death at a point between any two calls: the process of a fate unwinds to whoever ran it, and nothing of it happens any more.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many points a process still passes.
#[derive(Clone)]
pub struct Fate(Arc<AtomicUsize>);

/// What unwinds; no panic hook hears of it.
struct Died;

impl Default for Fate {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(usize::MAX)))
    }
}

impl Fate {
    /// Dies at the nth point from here, 1 the next; if it comes that far.
    pub fn seal(&self, points: usize) {
        self.0.store(points, Ordering::Relaxed);
    }

    /// Whether it dies within so many points.
    pub fn is_near(&self, points: usize) -> bool {
        self.0.load(Ordering::Relaxed) <= points
    }

    /// A place where a process may die.
    pub fn point(&self) {
        match self.0.load(Ordering::Relaxed) {
            usize::MAX => {}
            1 => resume_unwind(Box::new(Died)),
            points => self.0.store(points - 1, Ordering::Relaxed),
        }
    }
}

/// What `run` yields; `None`: its process died in it.
pub fn survive<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => Some(done),
        Err(died) if died.is::<Died>() => None,
        Err(panicked) => resume_unwind(panicked),
    }
}
