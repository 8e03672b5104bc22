//! What is made of files and made again when they change, without a restart.
//!
//! What must stay true: what is in use was read whole and was sound; files that are not change nothing but the log. A file that is
//! written in place is left alone while it changes, which is as much as can be known of it: who renames the new one into place is
//! sure.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
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
    /// Those of the files in use.
    read: Vec<Stamp>,
    /// Why the files cannot be used, as it was logged. They are tried at each look: what was wrong may not be in them.
    told: Option<String>,
}

/// Inode, length, and time of the last change in seconds and nanoseconds; `None`: there is no such file.
type Stamp = Option<(u64, u64, i64, i64)>;

impl<T> Watched<T> {
    /// What `load` makes of the files. Fails as it does; later failures are logged, and what there is stays.
    pub fn open(paths: Vec<PathBuf>, load: impl Fn() -> Result<T, String> + Send + Sync + 'static) -> Result<Self, String> {
        // Before they are read: what changes in between is seen at the next look.
        let stamps = stamps(&paths);
        let looked = Mutex::new(Looked { at: Instant::now(), read: stamps.clone(), stamps, told: None });
        let current = RwLock::new(Arc::new(load()?));
        Ok(Self { paths, load: Box::new(load), current, looked })
    }

    /// What the files made at the last look, which is at most a second ago; the first to ask after that looks. What changed within
    /// the second before a look waits for the next one.
    pub fn get(&self) -> Arc<T> {
        self.get_at(Instant::now())
    }

    fn get_at(&self, now: Instant) -> Arc<T> {
        if let Ok(mut looked) = self.looked.try_lock()
            && now >= looked.at + LOOK
        {
            looked.at = now;
            self.look(&mut looked);
        }
        self.current.read().expect("no panic under the lock").clone()
    }

    fn look(&self, looked: &mut Looked) {
        let found = stamps(&self.paths);
        let before = std::mem::replace(&mut looked.stamps, found.clone());
        if looked.read == found || (before != found && !found.iter().all(is_settled)) {
            return;
        }
        let made = (self.load)();
        if stamps(&self.paths) != found {
            return;
        }
        match made {
            Ok(made) => {
                (looked.read, looked.told) = (found, None);
                *self.current.write().expect("no panic under the lock") = Arc::new(made);
                tracing::info!(files = ?self.paths, "files that changed are in use");
            }
            Err(why) if looked.told.as_ref() != Some(&why) => {
                tracing::error!(why, "files that changed cannot be used; what was read before stays in use");
                looked.told = Some(why);
            }
            Err(_) => {}
        }
    }
}

/// Whether the last change is longer ago than a look, by the clock of this machine. What is not there does not change.
fn is_settled(stamp: &Stamp) -> bool {
    let Some((_, _, seconds, nanos)) = *stamp else { return true };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let changed = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanos).unwrap_or(0));
    now.checked_sub(changed).is_some_and(|ago| ago >= LOOK)
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

    /// A file with a number, changed long ago.
    struct Number(tempfile::TempDir);

    impl Number {
        fn path(&self) -> PathBuf {
            self.0.path().join("number")
        }

        fn write(&self, text: &str) {
            self.write_at(text, UNIX_EPOCH + Duration::from_secs(text.len() as u64));
        }

        fn write_at(&self, text: &str, changed: SystemTime) {
            let mut file = std::fs::File::create(self.path()).expect("created");
            std::io::Write::write_all(&mut file, text.as_bytes()).expect("written");
            file.set_modified(changed).expect("set");
        }

        fn read(path: &std::path::Path) -> Result<u64, String> {
            std::fs::read_to_string(path).map_err(|e| e.to_string())?.parse::<u64>().map_err(|e| e.to_string())
        }

        fn watched(&self, then: impl Fn(&std::path::Path) + Send + Sync + 'static) -> Result<Watched<u64>, String> {
            let path = self.path();
            Watched::open(vec![path.clone()], move || {
                let read = Number::read(&path);
                then(&path);
                read
            })
        }
    }

    fn number() -> Number {
        Number(tempfile::tempdir().expect("a folder for the test"))
    }

    #[test]
    fn sound_changes_are_taken_and_others_are_not() {
        let file = number();
        assert!(file.watched(|_| {}).is_err(), "there must be something at first");
        file.write("1");
        let watched = file.watched(|_| {}).expect("a number");
        let mut now = Instant::now();
        file.write("22");
        assert_eq!(*watched.get_at(now), 1, "not yet a second");
        let mut later = || {
            now += LOOK;
            *watched.get_at(now)
        };
        assert_eq!(later(), 22);
        file.write("no number");
        assert_eq!(later(), 22);
        assert_eq!(later(), 22, "tried again");
        std::fs::remove_file(file.path()).expect("it was there");
        assert_eq!(later(), 22);
        file.write("333");
        assert_eq!(later(), 333);
    }

    #[test]
    fn what_could_not_be_read_is_tried_again_though_the_file_is_the_same() {
        let file = number();
        file.write("1");
        let fails = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (path, failing) = (file.path(), fails.clone());
        let load = move || match failing.load(std::sync::atomic::Ordering::Relaxed) {
            true => Err("too many open files".to_string()),
            false => Number::read(&path),
        };
        let watched = Watched::open(vec![file.path()], load).expect("a number");
        let now = Instant::now();
        file.write("22");
        fails.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(*watched.get_at(now + LOOK), 1);
        fails.store(false, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(*watched.get_at(now + 2 * LOOK), 22);
    }

    #[test]
    fn what_still_changes_waits() {
        let file = number();
        file.write("1");
        let watched = file.watched(|_| {}).expect("a number");
        let mut now = Instant::now();
        let mut later = || {
            now += LOOK;
            *watched.get_at(now)
        };
        // As long as each look finds it other than the one before; a clock that is ahead keeps nobody waiting for ever.
        let soon = SystemTime::now() + Duration::from_secs(3_600);
        file.write_at("2", soon);
        assert_eq!(later(), 1);
        file.write_at("22", soon);
        assert_eq!(later(), 1);
        assert_eq!(later(), 22);
    }

    #[test]
    fn what_changes_while_it_is_read_is_left_for_the_next_look() {
        let file = number();
        file.write("1");
        // Whoever writes goes on while the first half is read.
        let watched = file.watched(|path| {
            if Number::read(path) == Ok(22) {
                std::fs::write(path, "2222").expect("written");
                std::fs::File::options().write(true).open(path).and_then(|file| file.set_modified(UNIX_EPOCH)).expect("set");
            }
        });
        let (watched, now) = (watched.expect("a number"), Instant::now());
        file.write("22");
        assert_eq!(*watched.get_at(now + LOOK), 1, "22 is half of it");
        assert_eq!(*watched.get_at(now + 2 * LOOK), 2222);
    }
}
