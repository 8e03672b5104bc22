//! A segment: entries of one operator, of a run of key groups, as a Parquet file. Its name is the BLAKE3 of its bytes, so what is
//! named is what was written: nothing of it is decoded before that agrees.

use arrow::array::{Array, AsArray, BinaryArray, BooleanArray, RecordBatch, UInt16Array};
use arrow::datatypes::{DataType, Field, Schema, UInt16Type};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::panic::catch_unwind;
use std::sync::Arc;

use crate::model::Saved;

/// A run of key groups with more than this, uncompressed, is halved.
const TARGET: usize = 2 << 20;
/// Where one key group alone has more it is cut before an entry whose checksum ends in six zeros, or here at the latest.
const MOST: usize = 4 * TARGET;
/// What an entry takes beside its payload.
const BESIDE: usize = 8;

/// A segment as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// `segments/<64 hex>.parquet`, the hex being `blake3`.
    pub path: String,
    /// First and last key group.
    pub first: u16,
    pub last: u16,
    pub rows: u64,
    pub bytes: u64,
    pub blake3: String,
}

/// The path of the segment with this digest.
pub fn path(blake3: &str) -> String {
    format!("segments/{blake3}.parquet")
}

/// Whether this is the name of a segment, without its folder.
pub fn is_name(name: &str) -> bool {
    name.strip_suffix(".parquet").is_some_and(is_hex)
}

fn is_hex(digest: &str) -> bool {
    digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Segment {
    /// What a manifest says must hold together before a path of it is read.
    pub fn check(&self) -> Result<(), String> {
        if !is_hex(&self.blake3) || self.path != path(&self.blake3) {
            return Err(format!("names {:?}, which is no segment", self.path));
        }
        if self.first > self.last || self.rows == 0 {
            return Err(format!("says that {} holds {} rows of groups {} to {}", self.path, self.rows, self.first, self.last));
        }
        Ok(())
    }
}

/// Entries in runs of key groups, each for one segment. Where a run ends depends on what lies near it only, so that a change does
/// not move the ends of all runs after it.
pub fn split<'a>(sorted: &'a [&'a Saved]) -> Vec<&'a [&'a Saved]> {
    let mut runs = Vec::new();
    halve(sorted, 0..1 << 16, &mut runs);
    runs
}

fn halve<'a>(rows: &'a [&'a Saved], groups: Range<u32>, runs: &mut Vec<&'a [&'a Saved]>) {
    if rows.is_empty() {
        return;
    }
    if rows.iter().map(|row| weight(row)).sum::<usize>() <= TARGET {
        return runs.push(rows);
    }
    if groups.len() == 1 {
        return cut_by_content(rows, runs);
    }
    let middle = groups.start + groups.len() as u32 / 2;
    let (below, above) = rows.split_at(rows.partition_point(|row| u32::from(row.group) < middle));
    halve(below, groups.start..middle, runs);
    halve(above, middle..groups.end, runs);
}

fn cut_by_content<'a>(rows: &'a [&'a Saved], runs: &mut Vec<&'a [&'a Saved]>) {
    let (mut from, mut bytes) = (0, 0);
    for (at, row) in rows.iter().enumerate() {
        let here = bytes >= MOST || bytes >= TARGET / 2 && crc32fast::hash(&row.payload).trailing_zeros() >= 6;
        if here {
            runs.push(&rows[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += weight(row);
    }
    runs.push(&rows[from..]);
}

fn weight(row: &Saved) -> usize {
    row.payload.len() + BESIDE
}

/// What the entries are, whatever a segment of them looks like: two runs with one digest need one file.
pub fn digest<'a>(rows: impl IntoIterator<Item = &'a Saved>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for row in rows {
        let mut beside = [0; 11];
        beside[..2].copy_from_slice(&row.group.to_le_bytes());
        beside[2] = u8::from(row.shared);
        beside[3..].copy_from_slice(&(row.payload.len() as u64).to_le_bytes());
        hasher.update(&beside).update(&row.payload);
    }
    *hasher.finalize().as_bytes()
}

/// The file of some entries (at least one), and what a manifest says of it. Equal entries give equal bytes.
pub fn encode(rows: &[&Saved]) -> Result<(Segment, Vec<u8>), String> {
    let bytes = write(rows).map_err(|e| format!("cannot encode {} entries as Parquet: {e}", rows.len()))?;
    let blake3 = blake3::hash(&bytes).to_hex().to_string();
    let (first, last) =
        rows.first().zip(rows.last()).map(|(first, last)| (first.group, last.group)).ok_or("a segment of nothing")?;
    Ok((Segment { path: path(&blake3), first, last, rows: rows.len() as u64, bytes: bytes.len() as u64, blake3 }, bytes))
}

fn write(rows: &[&Saved]) -> Result<Vec<u8>, ParquetError> {
    let schema = Arc::new(schema());
    let groups = UInt16Array::from_iter_values(rows.iter().map(|row| row.group));
    let shared: BooleanArray = rows.iter().map(|row| Some(row.shared)).collect();
    let payloads = BinaryArray::from_iter_values(rows.iter().map(|row| &row.payload));
    let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(groups), Arc::new(shared), Arc::new(payloads)])?;
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, Some(properties()?))?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(bytes)
}

/// One row group a file: the file itself is the run of key groups that is read or left alone.
fn properties() -> Result<WriterProperties, ParquetError> {
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(None)
        .set_created_by("overdrive".to_string())
        .build())
}

fn schema() -> Schema {
    let column = |name: &str, of| Field::new(name, of, false);
    Schema::new(vec![column("group", DataType::UInt16), column("shared", DataType::Boolean), column("payload", DataType::Binary)])
}

/// The entries of the segment `of`, of which `bytes` were read; or what is wrong with them, beginning with the path.
pub fn decode(of: &Segment, bytes: &Bytes) -> Result<Vec<Saved>, String> {
    let found = blake3::hash(bytes).to_hex();
    if found.as_str() != of.blake3 {
        return Err(format!("{} blake3 expected {} found {found}", of.path, of.blake3));
    }
    // The Parquet reader panics on some bytes that no writer writes; a digest that agrees does not rule them out.
    let rows = catch_unwind(|| read(of, bytes)).unwrap_or_else(|_| Err("its reader gave up on it".to_string()));
    let rows = rows.map_err(|e| format!("{} is no segment: {e}", of.path))?;
    let ordered = rows.is_sorted() && rows.first().is_some_and(|row| row.group == of.first);
    if !ordered || rows.last().is_none_or(|row| row.group != of.last) {
        return Err(format!("{} does not hold the groups {} to {} in order", of.path, of.first, of.last));
    }
    Ok(rows)
}

fn read(of: &Segment, bytes: &Bytes) -> Result<Vec<Saved>, String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).map_err(|e| e.to_string())?;
    let total = builder.metadata().file_metadata().num_rows();
    if u64::try_from(total) != Ok(of.rows) {
        return Err(format!("it has {total} rows, {} were expected", of.rows));
    }
    let mut rows = Vec::new();
    for batch in builder.build().map_err(|e| e.to_string())? {
        take(&batch.map_err(|e| e.to_string())?, &mut rows).ok_or("its columns are not group, shared and payload")?;
    }
    Ok(rows)
}

fn take(batch: &RecordBatch, rows: &mut Vec<Saved>) -> Option<()> {
    let groups = batch.column_by_name("group")?.as_primitive_opt::<UInt16Type>()?;
    let shared = batch.column_by_name("shared")?.as_boolean_opt()?;
    let payloads = batch.column_by_name("payload")?.as_binary_opt::<i32>()?;
    if groups.null_count() + shared.null_count() + payloads.null_count() > 0 {
        return None;
    }
    let entry = |at| Saved { group: groups.value(at), shared: shared.value(at), payload: payloads.value(at).to_vec() };
    rows.extend((0..batch.num_rows()).map(entry));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn entries(groups: u16, each: usize, bytes: usize) -> Vec<Saved> {
        let payload = |group: u16, at: usize| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&group.to_le_bytes()).update(&at.to_le_bytes());
            let mut payload = vec![0; bytes];
            hasher.finalize_xof().fill(&mut payload);
            payload
        };
        let mut all: Vec<Saved> = (0..groups)
            .flat_map(|group| (0..each).map(move |at| Saved { group, shared: at % 2 == 1, payload: payload(group, at) }))
            .collect();
        all.sort();
        all
    }

    fn digests(entries: &[Saved]) -> Vec<[u8; 32]> {
        let rows: Vec<&Saved> = entries.iter().collect();
        let runs = split(&rows);
        assert_eq!(runs.concat(), rows, "every entry is in one run, in order");
        assert!(runs.iter().all(|run| run.iter().map(|row| weight(row)).sum::<usize>() <= MOST + 1_100));
        runs.iter().map(|run| digest(run.iter().copied())).collect()
    }

    #[test]
    fn a_change_leaves_the_other_runs_as_they_were() {
        let mut before = entries(1024, 10, 1_000);
        let runs = digests(&before);
        assert_eq!(runs.len(), 8, "10 MB by halves of at most 2 MiB");
        before[5_003].payload = vec![1; 1_000];
        before.sort();
        let after = digests(&before);
        assert_eq!(runs.iter().filter(|run| !after.contains(run)).count(), 1);
    }

    #[test]
    fn one_large_group_is_cut_where_its_entries_say() {
        let mut before = entries(1, 8_000, 1_000);
        let runs = digests(&before);
        assert!((6..=8).contains(&runs.len()), "8 MB by 1 MiB and a little: {}", runs.len());
        before.remove(0);
        let after = digests(&before);
        assert_eq!(runs.iter().filter(|run| !after.contains(run)).count(), 1, "only the run it was in");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_encoded_is_decoded(mut saved in vec((0..1024u16, any::<bool>(), vec(any::<u8>(), 0..40)), 1..60)) {
            saved.sort();
            let saved: Vec<Saved> = saved.into_iter().map(|(group, shared, payload)| Saved { group, shared, payload }).collect();
            let rows: Vec<&Saved> = saved.iter().collect();
            let (segment, bytes) = encode(&rows).expect("encoded");
            prop_assert_eq!(encode(&rows).expect("encoded"), (segment.clone(), bytes.clone()), "the same bytes again");
            prop_assert_eq!(segment.check(), Ok(()));
            prop_assert_eq!(decode(&segment, &bytes.into()), Ok(saved));
        }

        #[test]
        fn any_bytes_are_refused_by_their_name(bytes in vec(any::<u8>(), 0..300), parquet in any::<bool>()) {
            let (segment, _) = encode(&[&Saved { group: 3, shared: false, payload: vec![1] }]).expect("encoded");
            let bytes = if parquet { [b"PAR1", &bytes[..], b"PAR1"].concat() } else { bytes };
            prop_assert!(decode(&segment, &bytes.clone().into()).is_err());
            // And were they named: an error of Parquet.
            let blake3 = blake3::hash(&bytes).to_hex().to_string();
            let named = Segment { path: path(&blake3), bytes: bytes.len() as u64, blake3, ..segment };
            prop_assert!(decode(&named, &bytes.into()).is_err());
        }
    }
}
