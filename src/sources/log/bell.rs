//! Wakes the readers of a folder when something was appended to it in this process. Other processes are not heard: a reader
//! looks for itself from time to time as well.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::time::Duration;

static BELLS: LazyLock<Mutex<BTreeMap<PathBuf, Arc<Bell>>>> = LazyLock::new(Mutex::default);

const UNPOISONED: &str = "nothing under this lock panics";

/// One per folder and process.
#[derive(Default)]
pub struct Bell {
    rung: Mutex<u64>,
    waiting: Condvar,
}

impl Bell {
    /// The bell of a folder that exists, whatever path it is reached by.
    pub fn of(folder: &Path) -> std::io::Result<Arc<Bell>> {
        let folder = folder.canonicalize()?;
        Ok(BELLS.lock().expect(UNPOISONED).entry(folder).or_default().clone())
    }

    /// Something was appended.
    pub fn ring(&self) {
        *self.rung.lock().expect(UNPOISONED) += 1;
        self.waiting.notify_all();
    }

    /// How often it has rung: read it, look, and wait with the answer, and nothing slips between.
    pub fn count(&self) -> u64 {
        *self.rung.lock().expect(UNPOISONED)
    }

    /// Returns when it has rung since `seen`, or after `wait`.
    pub fn wait(&self, seen: u64, wait: Duration) {
        let rung = self.rung.lock().expect(UNPOISONED);
        drop(self.waiting.wait_timeout_while(rung, wait, |rung| *rung == seen).expect(UNPOISONED));
    }
}
