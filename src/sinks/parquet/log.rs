//! The thread that makes files of what it is told, and the end of it that others hold.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Folder, erase};
use crate::model::forget::{Eraser, Leavers};
use crate::sinks::jsonl::Undelivered;

/// A file is closed at so many rows, …
const ROWS: usize = 50_000;
/// … or after so long.
const AGE: Duration = Duration::from_secs(30);

/// What the thread keeps.
pub trait Rows {
    /// What it is told.
    type Record;

    /// Takes a record.
    fn take(&mut self, record: Self::Record);

    /// How many rows wait to become a file.
    fn waiting(&self) -> usize;

    /// Makes a file of what waits, if anything does.
    fn flush(&mut self);

    /// Takes users out of what does not wait for a file yet; yields how many rows that were.
    fn erase_open(&mut self, _: &Leavers) -> u64 {
        0
    }

    /// Where the files go.
    fn folder(&self) -> &Folder;
}

enum Told<R> {
    Record(R),
    Erase(Leavers, SyncSender<Result<u64, String>>),
    Close,
}

/// Where records go. Dropping it writes what waits.
pub struct Log<R> {
    tx: SyncSender<Told<R>>,
    thread: Option<JoinHandle<()>>,
}

impl<R: Send + 'static> Log<R> {
    /// A thread of this name, for which so many records may wait.
    pub fn spawn(name: &str, waiting: usize, rows: impl Rows<Record = R> + Send + 'static) -> Result<Self, Undelivered> {
        let (tx, rx) = sync_channel(waiting);
        let thread = std::thread::Builder::new().name(name.to_string()).spawn(move || run(rows, &rx));
        let thread = thread.map_err(|e| Undelivered(format!("the thread that writes {name} cannot start: {e}")))?;
        Ok(Self { tx, thread: Some(thread) })
    }

    /// Tells a record, unless too many wait: then `false`.
    pub fn offer(&self, record: R) -> bool {
        self.tx.try_send(Told::Record(record)).is_ok()
    }

    /// Tells a record, and waits where too many wait.
    pub fn take(&self, record: R) {
        drop(self.tx.send(Told::Record(record))); // the thread lives until this is dropped
    }

    /// What takes users out of every file of the folder, and out of what is to become one where the log is open.
    pub fn eraser(folder: PathBuf, open: Option<&Self>) -> Eraser {
        let tx = open.map(|open| open.tx.clone());
        Box::new(move |leavers| {
            let (reply, answer) = sync_channel(1);
            let asked = tx.as_ref().is_some_and(|tx| tx.send(Told::Erase(leavers.clone(), reply)).is_ok());
            let answered = if asked { answer.recv().ok() } else { None };
            answered.unwrap_or_else(|| erase(&folder, leavers)) // a log that is closed writes no more files
        })
    }
}

impl<R> Drop for Log<R> {
    fn drop(&mut self) {
        drop(self.tx.send(Told::Close)); // what erases may hold the channel open
        self.thread.take().into_iter().for_each(|thread| _ = thread.join());
    }
}

/// Until it is told to close. Whoever waits for an answer then hears that nobody is there any more, for the channel goes with it.
fn run<R>(mut rows: impl Rows<Record = R>, rx: &Receiver<Told<R>>) {
    let mut since = Instant::now(); // when the first of those that wait came
    loop {
        match rx.recv_timeout(AGE) {
            Ok(Told::Record(record)) => {
                if rows.waiting() == 0 {
                    since = Instant::now();
                }
                rows.take(record);
            }
            Ok(Told::Erase(leavers, reply)) => {
                rows.flush();
                let open = rows.erase_open(&leavers);
                drop(reply.send(rows.folder().erase(&leavers).map(|gone| open + gone)));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Told::Close) | Err(RecvTimeoutError::Disconnected) => return rows.flush(),
        }
        if rows.waiting() >= ROWS || since.elapsed() > AGE {
            rows.flush();
        }
    }
}
