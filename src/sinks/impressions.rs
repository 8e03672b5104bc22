//! What users were shown, as Parquet files in `impressions/` of the state folder: a row for each item, what was known of it when it was shown,
//! and what followed within the window (`[learn] click_through`).
//!
//! Behind what every such log has (`parquet/table.rs`; `taken`: something of a sign of taste followed) stand
//!
//! ```text
//! shown_ms   int64           when it was shown, as the event says; ts_ms is the clock of its epoch
//! followed   list<string>    the kinds of what followed, negative ones too, in the order of time
//! after_ms   list<int64>     how long after it was shown
//! values     list<float>     what the events said: seconds, a ratio, stars; null: nothing
//! ```
//!
//! A row is written when its window is over by the clock of the stream. What is open is kept in memory alone: what an end of the process takes
//! is lost, and so is all that is open where the thread that writes falls behind, for nobody knows what followed. They are a sample.

use arrow::array::{ArrayRef, Float32Builder, Int64Array, Int64Builder, ListBuilder, RecordBatch, StringBuilder};
use arrow::datatypes::Field;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::join::{Closed, Join};
use super::jsonl::Undelivered;
use super::parquet::Folder;
use super::parquet::log::{Log, Rows};
use super::parquet::table::Table;
use crate::model::forget::{Eraser, Leavers};
use crate::model::time::Millis;
use crate::model::{Names, Watched};
use crate::scoring::columns::COLUMNS;

mod join;

/// Epochs that may wait for the thread that writes.
const WAITING: usize = 1_024;

/// The name of the folder.
pub const FOLDER: &str = "impressions";

/// Where impressions go. Dropping it writes what is over.
pub struct Impressions {
    log: Log<Told>,
    /// The last epoch was not told.
    torn: AtomicBool,
}

/// What users were shown and did in an epoch.
struct Told {
    epoch: u64,
    clock: Millis,
    watched: Vec<Arc<Watched>>,
    /// Epochs before it were not told.
    torn: bool,
}

impl Impressions {
    /// In `state_dir`, with the spelling of ids and the length of the window.
    pub fn open(state_dir: &Path, names: Arc<Names>, window: Millis) -> Result<Self, Undelivered> {
        let (folder, join) = (Folder::open(state_dir.join(FOLDER))?, Join::new(window));
        let open = Open { folder, names, join, over: Vec::new(), rows: 0, full: false };
        Ok(Self { log: Log::spawn(FOLDER, WAITING, open)?, torn: AtomicBool::new(false) })
    }

    /// Takes an epoch, unless too many wait: then everything that is open is let go.
    pub fn offer(&self, epoch: u64, clock: Millis, watched: Vec<Arc<Watched>>) {
        let torn = self.torn.load(Ordering::Relaxed);
        let told = self.log.offer(Told { epoch, clock, watched, torn });
        self.torn.store(!told, Ordering::Relaxed);
    }
}

/// What takes users out of every file of `state_dir`, and out of what is open or waits to become one where the log is open.
pub fn eraser(state_dir: &Path, open: Option<&Impressions>) -> Eraser {
    Log::eraser(state_dir.join(FOLDER), open.map(|open| &open.log))
}

/// What the thread keeps.
struct Open {
    folder: Folder,
    names: Arc<Names>,
    join: Join,
    /// What waits to become a file.
    over: Vec<Closed>,
    rows: usize,
    /// More was shown than may wait for its end, and that was said.
    full: bool,
}

impl Rows for Open {
    type Record = Told;

    fn take(&mut self, Told { epoch, clock, watched, torn }: Told) {
        if torn {
            tracing::warn!("impressions come faster than they can be written; those whose window is open are let go");
            self.join.clear();
        }
        let passed_over = watched.iter().filter(|watched| !self.join.take(epoch, watched)).count();
        if passed_over > 0 && !std::mem::replace(&mut self.full, true) {
            tracing::warn!("more impressions wait for what follows than may; some are passed over (lower learn.impressions)");
        }
        let closed = self.join.close(clock);
        self.rows += closed.iter().map(|closed| closed.outcomes.len()).sum::<usize>();
        self.over.extend(closed);
    }

    fn waiting(&self) -> usize {
        self.rows
    }

    fn flush(&mut self) {
        let over = std::mem::take(&mut self.over);
        self.rows = 0;
        let epochs = || over.iter().map(|closed| closed.epoch);
        if let Some(span) = epochs().min().zip(epochs().max()) {
            self.folder.put(span, &batch(&over, &self.names));
        }
    }

    fn erase_open(&mut self, leavers: &Leavers) -> u64 {
        self.join.erase(leavers)
    }

    fn folder(&self) -> &Folder {
        &self.folder
    }
}

/// The rows of what is over whose users and items have names.
fn batch(waiting: &[Closed], names: &Names) -> RecordBatch {
    let mut table = Table::default();
    let mut shown = Vec::new();
    let mut kinds = ListBuilder::new(StringBuilder::new());
    let (mut after, mut values) = (ListBuilder::new(Int64Builder::new()), ListBuilder::new(Float32Builder::new()));
    for closed in waiting {
        let Some(example) = &closed.example.example else { continue };
        let Some(user) = names.users.get(example.user.0) else { continue };
        for outcome in &closed.outcomes {
            let Some(name) = names.items.get(example.candidates[outcome.place].0.0) else { continue };
            let columns = &example.columns[outcome.place * COLUMNS..][..COLUMNS];
            let taken = outcome.followed.iter().any(|act| act.kind.is_positive());
            table.push((closed.epoch, example.at), &user, name, taken, columns);
            shown.push(outcome.shown);
            for act in &outcome.followed {
                kinds.values().append_value(act.kind.name());
                after.values().append_value(act.after);
                values.values().append_option(act.value_milli.map(|value| value as f32 / 1_000.0));
            }
            kinds.append(true);
            after.append(true);
            values.append(true);
        }
    }
    let lists: [(&str, ArrayRef); 3] =
        [("followed", Arc::new(kinds.finish())), ("after_ms", Arc::new(after.finish())), ("values", Arc::new(values.finish()))];
    let shown = ("shown_ms", Arc::new(Int64Array::from(shown)) as ArrayRef);
    let added = [shown].into_iter().chain(lists);
    table.finish(added.map(|(name, array)| (Field::new(name, array.data_type().clone(), false), array)).collect())
}
