//! A payload a line, as it is: bytes that are no JSON pass too, for decoding to refuse them by their place. Blank lines are not
//! rows.

use bytes::Bytes;
use serde::Deserialize;
use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::{Row, Rows, beyond, cannot};
use crate::sources::{Role, SourceError};

/// A line that is longer is cut here, which no decoder takes: one lost newline must not fill the memory.
const LONGEST: u64 = 4 << 20;

/// The lines of a file.
pub struct Lines {
    role: Role,
    path: PathBuf,
    reader: BufReader<File>,
    read: u64,
    bytes: u64,
}

impl Lines {
    /// From row `start` on.
    pub fn open(role: Role, path: &Path, start: u64) -> Result<Self, SourceError> {
        let file = File::open(path).map_err(|e| cannot("open", path, &e))?;
        let bytes = file.metadata().map_err(|e| cannot("read", path, &e))?.len();
        let mut lines = Self { role, path: path.to_path_buf(), reader: BufReader::with_capacity(1 << 18, file), read: 0, bytes };
        for row in 0..start {
            if lines.line()?.is_none() {
                return Err(beyond(path, start, row));
            }
        }
        Ok(lines)
    }

    /// The next line that is not blank, without its end.
    fn line(&mut self) -> Result<Option<Vec<u8>>, SourceError> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read =
                self.reader.by_ref().take(LONGEST).read_until(b'\n', &mut line).map_err(|e| cannot("read", &self.path, &e))?;
            if read == 0 {
                return Ok(None);
            }
            self.read += read as u64;
            if line.last() != Some(&b'\n') && read as u64 == LONGEST {
                self.read += skip_line(&mut self.reader).map_err(|e| cannot("read", &self.path, &e))?;
            }
            line.truncate(line.trim_ascii_end().len());
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
    }
}

fn skip_line(reader: &mut impl BufRead) -> std::io::Result<u64> {
    let mut skipped = 0;
    loop {
        let there = reader.fill_buf()?;
        let end = there.iter().position(|b| *b == b'\n');
        let length = end.map_or(there.len(), |at| at + 1);
        reader.consume(length);
        skipped += length as u64;
        if end.is_some() || length == 0 {
            return Ok(skipped);
        }
    }
}

impl Rows for Lines {
    fn next(&mut self) -> Result<Option<Row>, SourceError> {
        Ok(self.line()?.map(|line| (key(self.role, &line), Bytes::from(line))))
    }

    fn fraction(&self) -> f64 {
        self.read as f64 / (self.bytes as f64).max(1.0)
    }
}

/// The two ids a key is made of, under the names that decoding accepts as well.
#[derive(Deserialize)]
struct Ids<'a> {
    #[serde(borrow, default, alias = "user", alias = "UserId")]
    user_id: Option<Id<'a>>,
    #[serde(borrow, default, alias = "item", alias = "ItemId")]
    item_id: Option<Id<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Id<'a> {
    #[serde(borrow)]
    Text(Cow<'a, str>),
    Number(serde_json::Number),
}

/// The key the record would have in the log; `None` when the line does not show one.
fn key(role: Role, line: &[u8]) -> Option<Bytes> {
    let ids: Ids<'_> = serde_json::from_slice(line).ok()?;
    let id = if role == Role::Items { ids.item_id } else { ids.user_id };
    match id? {
        Id::Text(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        Id::Number(number) => Some(Bytes::from(number.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &[u8], start: u64) -> Vec<Row> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("events.jsonl");
        std::fs::write(&path, text).expect("a file");
        let mut lines = Lines::open(Role::Events, &path, start).expect("opens");
        let rows = std::iter::from_fn(|| lines.next().expect("reads")).collect();
        assert_eq!(lines.fraction(), 1.0);
        rows
    }

    #[test]
    fn blank_lines_are_no_rows_and_the_last_needs_no_end() {
        let text = b"{\"user_id\":\"u1\"}\n\n \r\n{\"UserId\":7}\r\nnot json";
        let all = rows(text, 0);
        let keys: Vec<_> = all.iter().map(|(key, _)| key.clone()).collect();
        assert_eq!(keys, [Some("u1".into()), Some("7".into()), None]);
        assert_eq!(all[2].1, "not json");
        assert_eq!(rows(text, 1), all[1..]);
    }

    #[test]
    fn an_escaped_key_is_unescaped() {
        assert_eq!(key(Role::Users, br#"{"user_id":"a\"b"}"#), Some("a\"b".into()));
        assert_eq!(key(Role::Items, br#"{"user_id":"u","item_id":"i"}"#), Some("i".into()));
    }

    #[test]
    fn an_endless_line_is_cut_and_the_next_is_whole() {
        let mut text = vec![b'x'; LONGEST as usize + 300_000];
        text.extend(b"\n{\"user\":\"u\"}\n");
        let rows = rows(&text, 0);
        assert_eq!(rows.iter().map(|(_, payload)| payload.len()).collect::<Vec<_>>(), [LONGEST as usize, 12]);
    }
}
