//! What is made of files and made again when they change, without a restart.
//!
//! What must stay true: what is in use was read whole and was sound; files that are not change nothing but the log.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use tokio::time::Instant;

/// How often the files are looked at, by whoever asks.
const LOOK: Duration = Duration::from_secs(1);

/// A value made of files.
pub struct Watched<T> {
    paths: Vec<PathBuf>,
    load: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    current: RwLock<Arc<T>>,
    looked: Mutex<Looked>,
}

/// When the files were looked at, and what they were like.
struct Looked {
    at: Instant,
    stamps: Vec<Stamp>,
}

/// Inode, length, and time of the last change in seconds and nanoseconds; `None`: there is no such file.
type Stamp = Option<(u64, u64, i64, i64)>;

impl<T> Watched<T> {
    /// What `load` makes of the files. Fails as it does; later failures are logged, and what there is stays.
    pub fn open(paths: Vec<PathBuf>, load: impl Fn() -> Result<T, String> + Send + Sync + 'static) -> Result<Self, String> {
        // Before they are read: what changes in between is seen at the next look.
        let looked = Mutex::new(Looked { at: Instant::now(), stamps: stamps(&paths) });
        let current = RwLock::new(Arc::new(load()?));
        Ok(Self { paths, load: Box::new(load), current, looked })
    }

    /// What the files made at the last look, which is at most a second ago; the first to ask after that looks.
    pub fn get(&self) -> Arc<T> {
        self.get_at(Instant::now())
    }

    fn get_at(&self, now: Instant) -> Arc<T> {
        if let Ok(mut looked) = self.looked.try_lock()
            && now >= looked.at + LOOK
        {
            looked.at = now;
            self.look(&mut looked.stamps);
        }
        self.current.read().expect("no panic under the lock").clone()
    }

    fn look(&self, known: &mut Vec<Stamp>) {
        let found = stamps(&self.paths);
        if *known == found {
            return;
        }
        *known = found;
        match (self.load)() {
            Ok(made) => {
                *self.current.write().expect("no panic under the lock") = Arc::new(made);
                tracing::info!(files = ?self.paths, "files that changed are in use");
            }
            Err(why) => tracing::error!(%why, "files that changed cannot be used; what was read before stays in use"),
        }
    }
}

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    };
    paths.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_changes_are_taken_and_others_are_not() {
        let dir = tempfile::tempdir().expect("a folder for the test");
        let path = dir.path().join("number");
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        let file = path.clone();
        let load = move || std::fs::read_to_string(&file).map_err(|e| e.to_string())?.parse::<u64>().map_err(|e| e.to_string());
        assert!(Watched::open(vec![path.clone()], load.clone()).is_err(), "there must be something at first");
        write("1");
        let watched = Watched::open(vec![path.clone()], load).expect("a number");
        let mut now = Instant::now();
        write("22");
        assert_eq!(*watched.get_at(now), 1, "not yet a second");
        let mut later = || {
            now += LOOK;
            *watched.get_at(now)
        };
        assert_eq!(later(), 22);
        write("no number");
        assert_eq!(later(), 22);
        std::fs::remove_file(&path).expect("it was there");
        assert_eq!(later(), 22);
        write("333");
        assert_eq!(later(), 333);
    }
}
