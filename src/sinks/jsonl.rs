//! A file of JSON lines that never grows past twice a limit: a full one is set aside as `<name>.1`, replacing the one before.
//! Lines are whole after every flush. Clones write the same file, and wait for each other.

use serde::Serialize;
use std::fs::{File, OpenOptions, create_dir_all, remove_file, rename};
use std::io::{BufRead, BufReader, BufWriter, Error, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Why lines did not reach a file or a topic: what, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Undelivered(pub String);

/// The file.
#[derive(Clone)]
pub(super) struct Jsonl(Arc<Mutex<Open>>);

/// The open file.
struct Open {
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
        Ok(Self(Arc::new(Mutex::new(Open { path: path.to_path_buf(), max_bytes, out, bytes }))))
    }

    /// Appends one line.
    pub(super) fn append(&self, line: &impl Serialize) -> Result<(), Undelivered> {
        self.0.lock().expect("no panic under the lock").append(line)
    }

    /// Gives what was appended to the operating system.
    pub(super) fn flush(&self) -> Result<(), Undelivered> {
        self.0.lock().expect("no panic under the lock").flush()
    }

    /// Puts `instead` of every line of the file and of the old one, durably; `None`: the line goes. Yields how many lines are not
    /// what they were. Nothing is appended meanwhile.
    pub(super) fn rewrite(&self, instead: impl Fn(&str) -> Option<String>) -> Result<u64, Undelivered> {
        let mut open = self.0.lock().expect("no panic under the lock");
        open.flush()?;
        let changed = rewrite(&old(&open.path), &instead)? + rewrite(&open.path, &instead)?;
        (open.out, open.bytes) = append_to(&open.path)?;
        Ok(changed)
    }
}

impl Open {
    fn append(&mut self, line: &impl Serialize) -> Result<(), Undelivered> {
        let mut text = serde_json::to_vec(line).map_err(|e| undelivered("write a line for", &self.path, e.into()))?;
        text.push(b'\n');
        if self.bytes > 0 && self.bytes + text.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        self.out.write_all(&text).map_err(|e| undelivered("append to", &self.path, e))?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Undelivered> {
        self.out.flush().map_err(|e| undelivered("append to", &self.path, e))
    }

    fn rotate(&mut self) -> Result<(), Undelivered> {
        self.flush()?;
        rename(&self.path, old(&self.path)).map_err(|e| undelivered("set aside", &self.path, e))?;
        (self.out, self.bytes) = append_to(&self.path)?;
        Ok(())
    }
}

/// `<name>.1`
fn old(path: &Path) -> PathBuf {
    with_ending(path, ".1")
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.to_path_buf().into_os_string();
    name.push(ending);
    name.into()
}

/// Writes a file anew where a line of it changes; one that is not there has none.
fn rewrite(path: &Path, instead: &impl Fn(&str) -> Option<String>) -> Result<u64, Undelivered> {
    let beside = with_ending(path, ".unfinished");
    let written = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
        file => file.and_then(|file| rewrite_to(&beside, BufReader::new(file), instead)),
    };
    let renamed = written.and_then(|changed| if changed > 0 { rename(&beside, path).map(|()| changed) } else { Ok(0) });
    let left = if beside.exists() { remove_file(&beside) } else { Ok(()) };
    renamed.and_then(|changed| left.map(|()| changed)).map_err(|e| undelivered("write anew", path, e))
}

fn rewrite_to(beside: &Path, mut lines: impl BufRead, instead: &impl Fn(&str) -> Option<String>) -> Result<u64, Error> {
    let (mut out, mut changed, mut line) = (BufWriter::new(File::create(beside)?), 0, Vec::new());
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        let (before, after) = (text.trim_end_matches('\n'), instead(text.trim_end_matches('\n')));
        changed += u64::from(after.as_deref() != Some(before));
        if let Some(after) = after {
            out.write_all(after.as_bytes())?;
            out.write_all(b"\n")?;
        }
        line.clear();
    }
    out.into_inner().map_err(|e| e.into_error())?.sync_all()?;
    Ok(changed)
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
        let lines = Jsonl::open(&path, 10).expect("it opens");
        for n in 100..105 {
            lines.append(&n).expect("there is room");
        }
        lines.flush().expect("there is room");
        let read = |name: &str| std::fs::read_to_string(dir.path().join("deep/er").join(name)).expect("it is there");
        assert_eq!((read("lines.jsonl.1").as_str(), read("lines.jsonl").as_str()), ("102\n103\n", "104\n"));
        drop(lines);
        let lines = Jsonl::open(&path, 10).expect("it opens again");
        lines.append(&105).and_then(|()| lines.append(&106)).and_then(|()| lines.flush()).expect("there is room");
        assert_eq!((read("lines.jsonl.1").as_str(), read("lines.jsonl").as_str()), ("104\n105\n", "106\n"));
        assert_eq!(std::fs::read_dir(dir.path().join("deep/er")).expect("it is there").count(), 2);
    }

    #[test]
    fn lines_are_replaced_and_taken_out_of_both_files_and_appending_goes_on() {
        let dir = tempfile::tempdir().expect("a folder for the test");
        let lines = Jsonl::open(&dir.path().join("lines.jsonl"), 10).expect("it opens");
        [100, 101, 102, 103].iter().for_each(|n| lines.append(n).expect("there is room"));
        let instead = |line: &str| match line {
            "101" => None,
            "102" => Some("\"gone\"".to_string()),
            line => Some(line.to_string()),
        };
        assert_eq!(lines.rewrite(instead).expect("written"), 2);
        assert_eq!(lines.rewrite(instead).expect("written"), 0);
        lines.append(&104).and_then(|()| lines.flush()).expect("there is room");
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("it is there");
        assert_eq!((read("lines.jsonl.1").as_str(), read("lines.jsonl").as_str()), ("\"gone\"\n103\n", "104\n"));
        assert_eq!(std::fs::read_dir(dir.path()).expect("it is there").count(), 2);
    }

    #[test]
    fn an_error_says_where() {
        let dir = tempfile::tempdir().expect("a folder for the test");
        std::fs::write(dir.path().join("file"), "").expect("there is room");
        let error = Jsonl::open(&dir.path().join("file/lines.jsonl"), 10).err().expect("a file is no folder");
        assert!(error.to_string().contains("file"), "{error}");
    }
}
