//! State in a local folder. A file is whole or absent under its name: it is written beside it, synced, and renamed; and while
//! this process has the folder no other opens it.

use bytes::Bytes;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::StateError;
use super::store::{Store, too_large};

/// What the layout keeps in folders of its own.
const FOLDERS: [&str; 3] = ["epochs", "generation", "segments"];
/// How the names of files end that are being written. No reader sees them.
const UNFINISHED: &str = ".unfinished";
/// A file that is appended to grows by so many bytes, zeros ahead of what comes: an append within them changes nothing that the file
/// system keeps of the file, so its sync waits neither for the journal nor for what others have in it.
const ROOM: usize = 512 << 10;

/// A folder, with its lock while it is written.
pub struct Folder {
    dir: PathBuf,
    /// Held as long as this lives; the system gives it back when the process ends, however it ends.
    _lock: Option<File>,
}

impl Folder {
    /// Makes the folder where there is none and takes its lock.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let folder = Self { dir: dir.to_path_buf(), _lock: None };
        folder.prepare().map_err(|e| folder.failed("make the folder", "", &e))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock"));
        let lock = lock.map_err(|e| folder.failed("open the lock", "lock", &e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy(dir)),
            Err(TryLockError::Error(e)) => return Err(folder.failed("lock", "lock", &e)),
        }
        folder.clear_unfinished()?;
        Ok(Self { _lock: Some(lock), ..folder })
    }

    /// For reading only: takes no lock and makes nothing.
    pub fn look(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), _lock: None }
    }

    fn prepare(&self) -> io::Result<()> {
        let made = FOLDERS.iter().map(|folder| std::fs::create_dir_all(self.dir.join(folder)));
        made.collect::<io::Result<Vec<()>>>()?;
        sync_folder(&self.dir)?;
        let above = self.dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_folder(above)
    }

    /// What a crash left half written.
    fn clear_unfinished(&self) -> Result<(), StateError> {
        for folder in FOLDERS.iter().chain(&[""]) {
            for (name, _) in self.entries(folder)?.into_iter().filter(|(name, _)| name.ends_with(UNFINISHED)) {
                self.delete(&join(folder, &name))?;
            }
        }
        Ok(())
    }

    fn entries(&self, folder: &str) -> Result<Vec<(String, u64)>, StateError> {
        let entries = match std::fs::read_dir(self.dir.join(folder)) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| self.failed("list", folder, &e))?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| self.failed("list", folder, &e))?;
            match entry.metadata() {
                // Deleted since the folder was read.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(self.failed("look at", &entry.file_name().to_string_lossy(), &e)),
                Ok(about) if about.is_file() => files.push((entry.file_name().to_string_lossy().into_owned(), about.len())),
                Ok(_) => {}
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn failed(&self, what: &str, path: &str, error: &io::Error) -> StateError {
        StateError::Io(format!("cannot {what} {}: {error}; check the disk and the permissions", self.dir.join(path).display()))
    }
}

impl Store for Folder {
    fn place(&self) -> String {
        self.dir.display().to_string()
    }

    fn create(&self, path: &str, bytes: Bytes) -> Result<bool, StateError> {
        let at = self.dir.join(path);
        let mut file = match File::create_new(&at) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(false),
            file => file.map_err(|e| self.failed("make", path, &e))?,
        };
        let written = file.write_all(&bytes).and_then(|()| file.sync_all()).and_then(|()| sync_folder(above(&at)));
        written.map_err(|e| self.failed("write", path, &e))?;
        Ok(true)
    }

    fn put(&self, path: &str, bytes: Bytes) -> Result<(), StateError> {
        let at = self.dir.join(path);
        let beside = self.dir.join(format!("{path}{UNFINISHED}"));
        let written = File::create(&beside)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&beside, &at));
        written.map_err(|e| {
            // It would be cleared when the folder is next opened; a full disk is helped at once.
            drop(std::fs::remove_file(&beside));
            self.failed("write", path, &e)
        })
    }

    fn sync(&self, folder: &str) -> Result<(), StateError> {
        sync_folder(&self.dir.join(folder)).map_err(|e| self.failed("sync", folder, &e))
    }

    fn appends(&self) -> bool {
        true
    }

    fn append(&self, path: &str, at: u64, bytes: &[u8]) -> Result<(), StateError> {
        let append = || {
            let mut file = OpenOptions::new().read(true).write(true).open(self.dir.join(path))?;
            let (length, end) = (file.seek(SeekFrom::End(0))?, at + bytes.len() as u64);
            if length < at {
                return Err(io::Error::other(format!("it has {length} bytes where this process wrote {at}")));
            }
            let mut there = vec![0; (length.min(end) - at) as usize];
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut there)?;
            if there.iter().any(|byte| *byte != 0) {
                return Err(io::Error::other(format!("there is something after the {at} bytes that this process wrote")));
            }
            file.seek(SeekFrom::Start(at))?;
            file.write_all(bytes)?;
            if length < end {
                file.write_all(&vec![0; ROOM - end as usize % ROOM])?;
            }
            file.sync_data()
        };
        append().map_err(|e| self.failed("append to", path, &e))
    }

    fn read(&self, path: &str, most: u64) -> Result<Option<Bytes>, StateError> {
        let file = match File::open(self.dir.join(path)) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|e| self.failed("open", path, &e))?,
        };
        let mut bytes = Vec::new();
        file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| self.failed("read", path, &e))?;
        let length = bytes.len() as u64;
        if length > most { Err(too_large(path, length, most)) } else { Ok(Some(bytes.into())) }
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, StateError> {
        let mut files = self.entries(folder)?;
        files.retain(|(name, _)| !(name.ends_with(UNFINISHED) || folder.is_empty() && name == "lock"));
        Ok(files)
    }

    fn delete(&self, path: &str) -> Result<(), StateError> {
        match std::fs::remove_file(self.dir.join(path)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.failed("delete", path, &e)),
            _ => Ok(()),
        }
    }
}

fn busy(dir: &Path) -> StateError {
    let dir = dir.display();
    StateError::Busy(format!(
        "the state in {dir} is in use by another process; stop that one, or give this one a state_dir of its own"
    ))
}

fn above(path: &Path) -> &Path {
    path.parent().expect("a file lies in a folder")
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_string() } else { format!("{folder}/{name}") }
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
