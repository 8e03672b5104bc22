//! What operators keep, as bytes by key group: the form in which state leaves the dataflow and comes back.

use serde::{Deserialize, Serialize};

/// One key of one operator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Saved {
    /// Whose it is: `hash & (KEY_GROUPS - 1)`.
    pub group: u16,
    /// Every worker keeps it, whoever saved it.
    pub shared: bool,
    pub payload: Vec<u8>,
}

/// The state of one operator as a worker hands it over: not yet bytes. Making them takes longer than handing over, and no answer
/// should wait for it, so whoever takes it does that, on a thread of its own.
pub struct Handed {
    pub uid: String,
    pub entries: Vec<Box<dyn FnOnce() -> Saved + Send>>,
}

impl Handed {
    /// As bytes.
    pub fn write(self) -> Part {
        Part { uid: self.uid, entries: self.entries.into_iter().map(|entry| entry()).collect() }
    }
}

/// The state of one operator, over all workers. `uid` is its name and the version of its format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub uid: String,
    pub entries: Vec<Saved>,
}
