//! A file of JSON lines that never grows past twice a limit: a full one is set aside as `<name>.1`, replacing the one before.
//! Lines are whole after every flush.

use serde::Serialize;
use std::fs::{File, OpenOptions, create_dir_all, rename};
use std::io::{BufWriter, Error, Write};
use std::path::{Path, PathBuf};

/// Why lines did not reach a file or a topic: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Undelivered(pub String);

/// The open file.
pub(super) struct Jsonl {
    path: PathBuf,
    max_bytes: u64,
    out: BufWriter<File>,
    bytes: u64,
}

impl Jsonl {
    /// Opens `path` to append to it; makes its folder.
    pub(super) fn open(path: &Path, max_bytes: u64) -> Result<Self, Undelivered> {
        let folder = path.parent().unwrap_or(Path::new("."));
        create_dir_all(folder).map_err(|e| undelivered("create", folder, e))?;
        let (out, bytes) = append_to(path)?;
        Ok(Self { path: path.to_path_buf(), max_bytes, out, bytes })
    }

    /// Appends one line.
    pub(super) fn append(&mut self, line: &impl Serialize) -> Result<(), Undelivered> {
        let mut text = serde_json::to_vec(line).map_err(|e| undelivered("write a line for", &self.path, e.into()))?;
        text.push(b'\n');
        if self.bytes > 0 && self.bytes + text.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        self.out.write_all(&text).map_err(|e| undelivered("append to", &self.path, e))?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Gives what was appended to the operating system.
    pub(super) fn flush(&mut self) -> Result<(), Undelivered> {
        self.out.flush().map_err(|e| undelivered("append to", &self.path, e))
    }

    fn rotate(&mut self) -> Result<(), Undelivered> {
        self.flush()?;
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        rename(&self.path, old).map_err(|e| undelivered("set aside", &self.path, e))?;
        (self.out, self.bytes) = append_to(&self.path)?;
        Ok(())
    }
}

fn append_to(path: &Path) -> Result<(BufWriter<File>, u64), Undelivered> {
    let open = || {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok((BufWriter::new(file), bytes))
    };
    open().map_err(|e| undelivered("open", path, e))
}

fn undelivered(what: &str, path: &Path, error: Error) -> Undelivered {
    let path = path.display();
    Undelivered(format!("could not {what} {path}: {error}; check free space and permissions there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_set_aside_and_one_old_one_is_kept() {
        let dir = tempfile::tempdir().expect("a folder for the test");
        let path = dir.path().join("deep/er/lines.jsonl");
        let mut lines = Jsonl::open(&path, 10).expect("it opens");
        for n in 100..105 {
            lines.append(&n).expect("there is room");
        }
        lines.flush().expect("there is room");
        let read = |name: &str| std::fs::read_to_string(dir.path().join("deep/er").join(name)).expect("it is there");
        assert_eq!((read("lines.jsonl.1").as_str(), read("lines.jsonl").as_str()), ("102\n103\n", "104\n"));
        drop(lines);
        let mut lines = Jsonl::open(&path, 10).expect("it opens again");
        lines.append(&105).and_then(|()| lines.append(&106)).and_then(|()| lines.flush()).expect("there is room");
        assert_eq!((read("lines.jsonl.1").as_str(), read("lines.jsonl").as_str()), ("104\n105\n", "106\n"));
        assert_eq!(std::fs::read_dir(dir.path().join("deep/er")).expect("it is there").count(), 2);
    }

    #[test]
    fn an_error_says_where() {
        let dir = tempfile::tempdir().expect("a folder for the test");
        std::fs::write(dir.path().join("file"), "").expect("there is room");
        let error = Jsonl::open(&dir.path().join("file/lines.jsonl"), 10).err().expect("a file is no folder");
        assert!(error.to_string().contains("file"), "{error}");
    }
}
