//! The rows of a Parquet file as wire-format JSON. Pages are read as they are needed, and an event's id is made of the file's
//! name and the row's number: two equal rows (two identical lines of an invoice) are two events, and a second reading repeats
//! the ids of the first.

use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use std::fs::File;
use std::path::{Path, PathBuf};

use super::columns::{Columns, Plan};
use super::{Row, Rows, beyond, cannot};
use crate::sources::{Role, SourceError};

/// Rows that are decoded at once.
const BATCH: usize = 4096;

/// The rows of a file.
pub struct Table {
    path: PathBuf,
    /// What event ids begin with.
    name: String,
    plan: Plan,
    reader: ParquetRecordBatchReader,
    /// Rows in hand, how many they are, and which is next.
    batch: Option<(Columns, usize, usize)>,
    next: u64,
    total: u64,
}

impl Table {
    /// From row `start` on.
    pub fn open(role: Role, path: &Path, start: u64) -> Result<Self, SourceError> {
        let file = File::open(path).map_err(|e| cannot("open", path, &e))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| cannot("read", path, &e))?;
        let plan = Plan::new(role, builder.schema()).map_err(|e| SourceError::Stop(format!("{}: {e}", path.display())))?;
        let total = builder.metadata().file_metadata().num_rows().max(0) as u64;
        if start > total {
            return Err(beyond(path, start, total));
        }
        let mask = ProjectionMask::roots(builder.parquet_schema(), plan.indices());
        let reader = builder.with_projection(mask).with_batch_size(BATCH).with_offset(start as usize).build();
        let reader = reader.map_err(|e| cannot("read", path, &e))?;
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok(Self { path: path.to_path_buf(), name, plan, reader, batch: None, next: start, total })
    }

    fn next_batch(&mut self) -> Result<Option<(Columns, usize, usize)>, SourceError> {
        let Some(batch) = self.reader.next() else { return Ok(None) };
        let batch = batch.map_err(|e| cannot("read", &self.path, &e))?;
        let columns = self.plan.columns(&batch).map_err(|e| cannot("make sense of", &self.path, &e))?;
        Ok(Some((columns, batch.num_rows(), 0)))
    }
}

impl Rows for Table {
    fn next(&mut self) -> Result<Option<Row>, SourceError> {
        loop {
            match &mut self.batch {
                Some((columns, rows, at)) if *at < *rows => {
                    let row = columns.row(*at, &format!("{}:{}", self.name, self.next));
                    *at += 1;
                    self.next += 1;
                    return Ok(Some(row));
                }
                _ => match self.next_batch()? {
                    None => return Ok(None),
                    batch => self.batch = batch,
                },
            }
        }
    }

    fn fraction(&self) -> f64 {
        self.next as f64 / (self.total as f64).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        ArrayRef, DictionaryArray, Float32Array, Float64Array, Int32Array, Int64Array, LargeStringArray, ListArray, RecordBatch,
        StringArray, TimestampSecondArray, UInt32Array,
    };
    use arrow::datatypes::{Int8Type, Int64Type};
    use parquet::arrow::ArrowWriter;
    use std::sync::Arc;

    fn read(role: Role, columns: Vec<(&str, ArrayRef)>, start: u64) -> Result<Vec<(String, String)>, SourceError> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("rows.parquet");
        let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
        let mut writer =
            ArrowWriter::try_new(File::create(&path).expect("a file"), batch.schema(), None).expect("types that are known");
        writer.write(&batch).expect("written");
        writer.close().expect("closed");
        let mut table = Table::open(role, &path, start)?;
        let mut rows = Vec::new();
        while let Some((key, payload)) = table.next()? {
            let key = key.map_or_else(String::new, |key| String::from_utf8(key.into()).expect("utf-8"));
            rows.push((key, String::from_utf8(payload.into()).expect("utf-8")));
        }
        Ok(rows)
    }

    fn column(array: impl arrow::array::Array + 'static) -> ArrayRef {
        Arc::new(array)
    }

    #[test]
    fn events_of_the_public_data_sets() {
        let kinds: DictionaryArray<Int8Type> = ["watch", "return", "stare"].into_iter().collect();
        let geo: DictionaryArray<Int8Type> = [Some("EIRE"), None, None].into_iter().collect();
        let columns = || {
            vec![
                ("user", column(UInt32Array::from(vec![7, 8, 9]))),
                ("item", column(UInt32Array::from(vec![1, 2, 3]))),
                ("kind", column(kinds.clone())),
                ("timestamp_ms", column(Int64Array::from(vec![1_600_000_000_000, 2, 3]))),
                ("value", column(Float32Array::from(vec![Some(15.3), None, Some(f32::NAN)]))),
                ("session", column(UInt32Array::from(vec![Some(5), None, None]))),
                ("geo", column(geo.clone())),
                ("truth_source", column(Int32Array::from(vec![0, 0, 0]))),
            ]
        };
        let rows = read(Role::Events, columns(), 0).expect("reads");
        let expected = [
            concat!(
                r#"{"event_id":"rows.parquet:0","type":"completion","user_id":"7","item_id":"1","ts":1600000000000,"#,
                r#""value":15.3,"session_id":"5","ctx":{"geo":"EIRE"}}"#
            ),
            r#"{"event_id":"rows.parquet:1","type":"purchase","op":"undo","user_id":"8","item_id":"2","ts":2}"#,
            r#"{"event_id":"rows.parquet:2","type":"stare","user_id":"9","item_id":"3","ts":3}"#,
        ];
        assert_eq!(rows.iter().map(|(_, payload)| payload.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!(rows.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["7", "8", "9"]);
        assert_eq!(read(Role::Events, columns(), 2).expect("reads"), rows[2..], "ids do not depend on where reading began");
    }

    #[test]
    fn a_basket_without_a_user_belongs_to_its_session() {
        let columns = vec![
            ("item", column(StringArray::from(vec!["i"]))),
            ("kind", column(StringArray::from(vec!["purchase"]))),
            ("timestamp_ms", column(TimestampSecondArray::from(vec![12]))),
            ("session", column(UInt32Array::from(vec![536_414]))),
            ("event_id", column(StringArray::from(vec!["e1"]))),
        ];
        let wanted = concat!(
            r#"{"user_id":"session-536414","event_id":"e1","type":"purchase","item_id":"i","ts":12000,"#,
            r#""session_id":"536414"}"#
        );
        assert_eq!(read(Role::Events, columns, 0).expect("reads"), [("session-536414".to_string(), wanted.to_string())]);
    }

    #[test]
    fn categories_come_as_text_as_lists_and_as_numbers() {
        let ids = || ("item", column(Int64Array::from(vec![1, 2])));
        let split = column(LargeStringArray::from(vec![Some("Action| Sci-Fi"), None]));
        let rows =
            read(Role::Items, vec![ids(), ("title", column(LargeStringArray::from(vec!["Ä", "B"]))), ("categories", split)], 0)
                .expect("reads");
        assert_eq!(rows[0].1, r#"{"item_id":"1","categories":["Action","Sci-Fi"],"title":"Ä"}"#);
        assert_eq!(rows[1].1, r#"{"item_id":"2","title":"B"}"#);

        let list = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(3), Some(4)]), None]);
        let rows = read(Role::Items, vec![ids(), ("categories", column(list))], 0).expect("reads");
        assert_eq!(rows[0].1, r#"{"item_id":"1","categories":["3","4"]}"#);

        let columns = vec![
            ids(),
            ("category", column(Int32Array::from(vec![15, 16]))),
            ("region", column(Int32Array::from(vec![7, -1]))),
            ("born_ms", column(Int64Array::from(vec![9, 9]))),
        ];
        let rows = read(Role::Items, columns, 0).expect("reads");
        assert_eq!(rows[0].1, r#"{"item_id":"1","categories":["15"],"created_at":9,"city":"region-7"}"#);
        assert_eq!(rows[1].1, r#"{"item_id":"2","categories":["16"],"created_at":9}"#);
    }

    #[test]
    fn users_whose_ids_became_floats_keep_them_and_a_city_wins_over_a_region() {
        let columns = vec![
            ("user_id", column(Float64Array::from(vec![17.0]))),
            ("region", column(Int32Array::from(vec![2]))),
            ("city", column(StringArray::from(vec!["Graz"]))),
            ("lat", column(Float64Array::from(vec![47.07]))),
        ];
        let rows = read(Role::Users, columns, 0).expect("reads");
        assert_eq!(rows, [("17".to_string(), r#"{"user_id":"17","lat":47.07,"city":"Graz"}"#.to_string())]);
    }

    #[test]
    fn a_missing_column_is_named_and_so_is_a_row_beyond_the_end() {
        let columns = || vec![("user", column(StringArray::from(vec!["u"])))];
        let missing = read(Role::Events, columns(), 0).expect_err("no item");
        assert!(
            matches!(&missing, SourceError::Stop(m) if m.contains("no column `item` for events; there are user")),
            "{missing}"
        );
        let beyond = read(Role::Users, columns(), 2).expect_err("one row");
        assert!(
            matches!(&beyond, SourceError::Stop(m) if m.contains("row 2 is beyond the end") && m.contains("0..1")),
            "{beyond}"
        );
    }
}
