//! Rows of candidates, each with what was known of it, as every log that models are trained on has them:
//!
//! ```text
//! epoch  ts_ms  user_id  item_id  taken  <every column of scoring/columns.rs> …  <what this log adds>
//! ```

use arrow::array::{ArrayRef, BooleanArray, Float32Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use std::collections::HashMap;
use std::sync::Arc;

use crate::model::time::Millis;
use crate::scoring::columns::{self, COLUMNS};

/// What is gathered for a file.
pub struct Table {
    keys: Vec<(u64, Millis, Arc<str>, Arc<str>, bool)>,
    columns: Vec<Vec<f32>>,
}

impl Default for Table {
    fn default() -> Self {
        Self { keys: Vec::new(), columns: vec![Vec::new(); COLUMNS] }
    }
}

impl Table {
    /// A row: its epoch and the clock of that, the names of the user and the item, whether it was taken, and every column.
    pub fn push(&mut self, (epoch, at): (u64, Millis), user: &Arc<str>, item: Arc<str>, taken: bool, values: &[f32]) {
        self.keys.push((epoch, at, user.clone(), item, taken));
        self.columns.iter_mut().zip(values).for_each(|(column, value)| column.push(*value));
    }

    /// All rows, and behind them what the log adds.
    pub fn finish(self, added: Vec<(Field, ArrayRef)>) -> RecordBatch {
        let (fields, more): (Vec<Field>, Vec<ArrayRef>) = added.into_iter().unzip();
        let rows = &self.keys;
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.2))),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.3))),
            Arc::new(rows.iter().map(|row| Some(row.4)).collect::<BooleanArray>()),
        ];
        arrays.extend(self.columns.into_iter().map(|column| Arc::new(Float32Array::from(column)) as ArrayRef));
        arrays.extend(more);
        RecordBatch::try_new(Arc::new(schema(fields)), arrays).expect("a field and a value of each row for every column")
    }
}

/// The schema of every file of a log that adds these.
fn schema(added: Vec<Field>) -> Schema {
    let keys = [
        ("epoch", DataType::UInt64),
        ("ts_ms", DataType::Int64),
        ("user_id", DataType::Utf8),
        ("item_id", DataType::Utf8),
        ("taken", DataType::Boolean),
    ];
    let keys = keys.into_iter().map(|(name, of)| Field::new(name, of, false));
    let columns = columns::names().map(|name| Field::new(name, DataType::Float32, false));
    let fields: Vec<Field> = keys.chain(columns).chain(added).collect();
    Schema::new_with_metadata(fields, HashMap::from([("overdrive.schema".to_string(), columns::SCHEMA.to_string())]))
}
