//! Examples for training, as Parquet files in `examples/` of the state folder: a row for each candidate, what was known of it before the
//! user took something, and whether it was what they took.
//!
//! Behind what every such log has (`parquet/table.rs`) stand three columns for towers, `item`, `tokens` and `history`: ids as hashes of the
//! item, of what it is like in tokens, and, on rows that were taken, of what the user took before.
//!
//! After a crash the last epochs are written again, so a reader keeps one of two rows with the same epoch, time, user and item; what a crash
//! took before it was a file is lost, and so is what comes faster than it can be written: examples are a sample.

use arrow::array::{ArrayRef, Int64Array, Int64Builder, ListBuilder, RecordBatch};
use arrow::datatypes::{DataType, Field};
use std::path::Path;
use std::sync::Arc;

use super::jsonl::Undelivered;
use super::parquet::Folder;
use super::parquet::log::{Log, Rows};
use super::parquet::table::Table;
use crate::model::forget::Eraser;
use crate::model::{Example, Names};
use crate::scoring::columns::COLUMNS;

pub mod read;

/// Examples that may wait for the thread that writes.
const WAITING: usize = 256;

/// The name of the folder.
pub const FOLDER: &str = "examples";

/// Where examples go. Dropping it writes what waits.
pub struct Examples(Log<Told>);

/// An example of an epoch.
type Told = (u64, Arc<Example>);

impl Examples {
    /// In `state_dir`, with the spelling of ids.
    pub fn open(state_dir: &Path, names: Arc<Names>) -> Result<Self, Undelivered> {
        let folder = Folder::open(state_dir.join(FOLDER))?;
        Ok(Self(Log::spawn(FOLDER, WAITING, Waiting { folder, names, examples: Vec::new(), rows: 0 })?))
    }

    /// Takes an example of an epoch, unless too many wait.
    pub fn offer(&self, epoch: u64, example: Arc<Example>) {
        self.0.offer((epoch, example));
    }

    /// Takes an example of an epoch, and waits where too many wait.
    pub fn take(&self, epoch: u64, example: Arc<Example>) {
        self.0.take((epoch, example));
    }
}

/// What takes users out of every file of `state_dir`, and out of what waits to become one where the log is open.
pub fn eraser(state_dir: &Path, open: Option<&Examples>) -> Eraser {
    Log::eraser(state_dir.join(FOLDER), open.map(|open| &open.0))
}

/// What the thread keeps.
struct Waiting {
    folder: Folder,
    names: Arc<Names>,
    examples: Vec<Told>,
    rows: usize,
}

impl Rows for Waiting {
    type Record = Told;

    fn take(&mut self, (epoch, example): Told) {
        self.rows += example.candidates.len();
        self.examples.push((epoch, example));
    }

    fn waiting(&self) -> usize {
        self.rows
    }

    fn flush(&mut self) {
        let waiting = std::mem::take(&mut self.examples);
        self.rows = 0;
        if let Some(((first, _), (last, _))) = waiting.first().zip(waiting.last()) {
            self.folder.put((*first, *last), &batch(&waiting, &self.names));
        }
    }

    fn folder(&self) -> &Folder {
        &self.folder
    }
}

/// The rows of examples whose users and items have names.
fn batch(examples: &[(u64, Arc<Example>)], names: &Names) -> RecordBatch {
    let mut table = Table::default();
    let (mut items, mut tokens, mut histories) = (Vec::new(), list(), list());
    for (epoch, example) in examples {
        let Some(user) = names.users.get(example.user.0) else { continue };
        let candidates = example.candidates.iter().zip(&example.tokens).zip(example.columns.chunks_exact(COLUMNS));
        for (((item, taken), like), values) in candidates {
            let Some(name) = names.items.get(item.0) else { continue };
            table.push((*epoch, example.at), &user, name, *taken, values);
            items.push(item.0 as i64);
            put(&mut tokens, like.iter().map(|token| token.0));
            put(&mut histories, example.history.iter().filter(|_| *taken).map(|item| item.0));
        }
    }
    let hashes = |name| Field::new(name, DataType::new_list(DataType::Int64, false), false);
    table.finish(vec![
        (Field::new("item", DataType::Int64, false), Arc::new(Int64Array::from(items)) as ArrayRef),
        (hashes("tokens"), Arc::new(tokens.finish())),
        (hashes("history"), Arc::new(histories.finish())),
    ])
}

/// Lists of ids, as towers take them.
fn list() -> ListBuilder<Int64Builder> {
    ListBuilder::new(Int64Builder::new()).with_field(Field::new_list_field(DataType::Int64, false))
}

fn put(lists: &mut ListBuilder<Int64Builder>, ids: impl Iterator<Item = u64>) {
    ids.for_each(|id| lists.values().append_value(id as i64));
    lists.append(true);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::forget::{Leavers, Until};
    use crate::model::{ItemId, TokenId, UserId};
    use crate::scoring::columns;
    use crate::sinks::parquet;
    use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use arrow::array::AsArray;
    use arrow::datatypes::UInt64Type;
    use std::fs::File;

    fn example(names: &Names, user: &str, first: f32) -> Arc<Example> {
        let user = names.user(user).expect("a new name");
        let item = |name| names.item(name).expect("a new name");
        let columns = (0..2 * COLUMNS).map(|n| first + n as f32).collect();
        let (candidates, history) = (vec![(item("i1"), false), (item("i2"), true)], vec![ItemId(u64::MAX), ItemId(5)]);
        Arc::new(Example { user, at: 77, candidates, columns, history, tokens: vec![vec![TokenId(7)], Vec::new()] })
    }

    fn rows(folder: &Path) -> Vec<(u64, String, String, bool, f32)> {
        let mut rows = Vec::new();
        for path in parquet::files(folder).expect("a folder") {
            let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("there")).expect("Parquet");
            assert_eq!(builder.schema().metadata()["overdrive.schema"], columns::SCHEMA);
            for batch in builder.build().expect("Parquet") {
                let batch = batch.expect("whole");
                let text = |name| batch.column_by_name(name).expect(name).as_string::<i32>();
                let last = batch.column_by_name(columns::names().last().expect("some")).expect("the last column");
                let last = last.as_primitive::<arrow::datatypes::Float32Type>();
                let epoch = batch.column_by_name("epoch").expect("it").as_primitive::<UInt64Type>();
                let taken = batch.column_by_name("taken").expect("it").as_boolean();
                let row = |at| {
                    let (user, item) = (text("user_id").value(at).to_string(), text("item_id").value(at).to_string());
                    (epoch.value(at), user, item, taken.value(at), last.value(at))
                };
                rows.extend((0..batch.num_rows()).map(row));
            }
        }
        rows
    }

    #[test]
    fn examples_become_rows_and_forgotten_users_leave_files_and_what_waits() {
        let dir = tempfile::tempdir().expect("a folder");
        let names = Arc::new(Names::default());
        let folder = dir.path().join(FOLDER);
        let row = |epoch, user: &str, item: &str, first: f32, n: usize| {
            (epoch, user.to_string(), item.to_string(), n == 1, first + ((n + 1) * COLUMNS - 1) as f32)
        };
        let log = Examples::open(dir.path(), names.clone()).expect("it opens");
        log.take(5, example(&names, "gone", 0.0));
        log.take(5, example(&names, "stays", 1.0));
        drop(log);
        let of = |user: &str, epoch, first| [row(epoch, user, "i1", first, 0), row(epoch, user, "i2", first, 1)];
        assert_eq!(rows(&folder), [of("gone", 5, 0.0), of("stays", 5, 1.0)].concat());

        let half = folder.join("of-a-crash.unfinished");
        std::fs::write(&half, "gone").expect("there is room");
        let log = Examples::open(dir.path(), names.clone()).expect("it opens again");
        assert!(!half.exists(), "what a crash left may name anybody");
        log.take(8, example(&names, "gone", 2.0));
        log.take(9, example(&names, "gone", 3.0));
        let users = [(UserId::of("gone"), Until { accepted: 0, epoch: 8 })].into();
        let open = eraser(dir.path(), Some(&log));
        assert_eq!(open(&Leavers { users, ..Leavers::default() }), Ok(4));
        drop(log);
        assert_eq!(rows(&folder), [of("stays", 5, 1.0), of("gone", 9, 3.0)].concat());
        for (closed, rows) in [(open, Ok(2)), (eraser(dir.path(), None), Ok(0))] {
            let users = [(UserId::of("gone"), Until { accepted: 0, epoch: 9 })].into();
            assert_eq!(closed(&Leavers { users, ..Leavers::default() }), rows, "of a log that is closed");
        }
    }
}
