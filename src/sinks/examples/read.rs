//! Examples as they were logged: each once, whole, file after file.
//!
//! The fact that must stay true: an example that was written twice, as after a crash, is read once.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int64Type, UInt64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use crate::model::UserId;
use crate::model::time::Millis;
use crate::scoring::at_hand;
use crate::scoring::columns::{self, COLUMNS, Row};
use crate::sinks::parquet::files;

/// What a user could have been shown just before they took something.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logged {
    pub user: UserId,
    pub at: Millis,
    pub rows: Vec<Row>,
    /// Which of the rows they took.
    pub taken: Vec<bool>,
}

/// Where an example belongs: epoch, time, user.
type Key = (u64, Millis, UserId);

/// Hands every example of a folder to `each`; those of an earlier version, without the columns that are at hand, only where these are
/// not needed (`at_hand`), as 0. An error names the file.
pub fn read(folder: &Path, at_hand: bool, mut each: impl FnMut(Logged) -> Result<(), String>) -> Result<(), String> {
    let mut known: BTreeSet<Key> = BTreeSet::new();
    for path in files(folder)? {
        let named = |e: &dyn std::fmt::Display| format!("{} cannot be read: {e}", path.display());
        let file = match File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue, // an engine that runs makes room
            opened => opened.map_err(|e| named(&e))?,
        };
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| named(&e))?;
        let schema = builder.schema().metadata().get("overdrive.schema").cloned().unwrap_or_default();
        if schema != columns::SCHEMA {
            return Err(named(&format!("it is of schema `{schema}` of the features, this program has {}", columns::SCHEMA)));
        }
        if at_hand && at_hand::NAMES.iter().any(|name| builder.schema().column_with_name(name).is_none()) {
            continue; // of an earlier version
        }
        let mut gathered: Option<(Key, Logged)> = None;
        for batch in builder.build().map_err(|e| named(&e))? {
            let batch = batch.map_err(|e| named(&e))?;
            let rows =
                rows(&batch).ok_or_else(|| named(&"it lacks columns of examples; it is of another version, move it away"))?;
            for (key, row, taken) in rows {
                if gathered.as_ref().is_some_and(|(of, _)| *of != key) {
                    tell(gathered.take(), &mut known, &mut each)?;
                }
                let (_, example) = gathered.get_or_insert_with(|| {
                    let (_, at, user) = key;
                    (key, Logged { user, at, ..Logged::default() })
                });
                example.rows.push(row);
                example.taken.push(taken);
            }
        }
        tell(gathered, &mut known, &mut each)?;
    }
    Ok(())
}

fn tell(
    gathered: Option<(Key, Logged)>,
    known: &mut BTreeSet<Key>,
    each: &mut impl FnMut(Logged) -> Result<(), String>,
) -> Result<(), String> {
    match gathered {
        Some((key, example)) if known.insert(key) => each(example),
        _ => Ok(()),
    }
}

fn rows(batch: &RecordBatch) -> Option<Vec<(Key, Row, bool)>> {
    let epochs = batch.column_by_name("epoch")?.as_primitive_opt::<UInt64Type>()?;
    let clocks = batch.column_by_name("ts_ms")?.as_primitive_opt::<Int64Type>()?;
    let users = batch.column_by_name("user_id")?.as_string_opt::<i32>()?;
    let taken = batch.column_by_name("taken")?.as_boolean_opt()?;
    let column = |name: &str| batch.column_by_name(name)?.as_primitive_opt::<Float32Type>();
    let columns: Vec<_> = columns::names().map(column).collect();
    if columns.iter().take(columns::AT_HAND).any(Option::is_none) {
        return None;
    }
    let row = |at: usize| {
        let mut row: Row = [0.0; COLUMNS];
        row.iter_mut().zip(&columns).for_each(|(value, column)| *value = column.map_or(0.0, |column| column.value(at)));
        ((epochs.value(at), clocks.value(at), UserId::of(users.value(at))), row, taken.value(at))
    };
    Some((0..batch.num_rows()).map(row).collect())
}
