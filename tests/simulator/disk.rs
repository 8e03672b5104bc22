//! The state's store in memory, as unkind as the contract allows: what was put is lost by a coin when the power fails before it is
//! synced, and so is a deletion; an append that a crash cuts leaves any part of itself; and a process may die before, in and after
//! every call.

use bytes::Bytes;
use overdrive::state::StateError;
use overdrive::state::manifest::{Manifest, Name};
use overdrive::state::store::Store;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::crash::Fate;
use super::dice::Dice;
use super::mutant::Mutant;

type Files = BTreeMap<String, Bytes>;

/// What survives processes.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<Platter>>);

struct Platter {
    files: Files,
    /// What was under names that were changed and not synced.
    unsynced: BTreeMap<String, Option<Bytes>>,
    /// A folder, else an object store.
    appends: bool,
    dice: Dice,
}

fn folder(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Disk {
    pub fn new(mut dice: Dice) -> Self {
        let appends = dice.percent(50);
        Self(Arc::new(Mutex::new(Platter { files: Files::new(), unsynced: BTreeMap::new(), appends, dice })))
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().expect("nobody dies under the lock")
    }

    /// Whether one process at a time has it: a folder is locked, an object store is not.
    pub fn is_locked(&self) -> bool {
        self.platter().appends
    }

    /// What is under which name.
    pub fn photo(&self) -> Files {
        self.platter().files.clone()
    }

    /// What was not synced is there or not.
    pub fn lose_power(&self) {
        let platter = &mut *self.platter();
        for (path, before) in std::mem::take(&mut platter.unsynced) {
            if platter.dice.percent(50) {
                platter.set(&path, before);
            }
        }
    }

    /// Every durable manifest names segments that are durable.
    pub fn check(&self) -> Result<(), String> {
        let platter = self.platter();
        let durable = |path: &str| platter.unsynced.get(path).cloned().unwrap_or_else(|| platter.files.get(path).cloned());
        for name in platter.files.keys().filter_map(|path| Name::parse(path)) {
            let Some(bytes) = durable(&name.to_string()) else { continue };
            let manifest = Manifest::decode(name, &bytes).map_err(|refused| refused.what())?;
            let lacks = manifest.segments().find(|s| durable(&s.path).is_none_or(|bytes| bytes.len() as u64 != s.bytes));
            if let Some(segment) = lacks {
                return Err(format!("{name} names {}, which is not durable", segment.path));
            }
        }
        Ok(())
    }
}

impl Platter {
    fn set(&mut self, path: &str, bytes: Option<Bytes>) {
        match bytes {
            Some(bytes) => drop(self.files.insert(path.to_string(), bytes)),
            None => drop(self.files.remove(path)),
        }
    }

    /// A change that is durable once it is synced, at once in an object store.
    fn change(&mut self, path: &str, bytes: Option<Bytes>) {
        let before = self.files.get(path).cloned();
        if self.appends {
            self.unsynced.entry(path.to_string()).or_insert(before);
        }
        self.set(path, bytes);
    }
}

/// The disk as one process sees it.
pub struct Mount {
    pub disk: Disk,
    pub fate: Fate,
    pub mutant: Option<Mutant>,
    /// What is read in place of what is there, claims excepted.
    pub photo: Mutex<Option<Files>>,
    /// The generation that was claimed here.
    pub claimed: AtomicU32,
}

impl Mount {
    pub fn new(disk: &Disk, fate: &Fate, mutant: Option<Mutant>) -> Self {
        Self { disk: disk.clone(), fate: fate.clone(), mutant, photo: Mutex::default(), claimed: AtomicU32::default() }
    }

    fn see<T>(&self, path: &str, look: impl FnOnce(&Files) -> T) -> T {
        self.fate.point();
        let photo = self.photo.lock().expect("nobody dies under the lock");
        match photo.as_ref().filter(|_| !path.starts_with("generation")) {
            Some(photo) => look(photo),
            None => look(&self.disk.platter().files),
        }
    }

    /// Claims that a process does not see which ignores them.
    fn hides(&self, folder: &str, name: &str) -> bool {
        let claimed = self.claimed.load(Ordering::Relaxed);
        let newer = || name.parse().is_ok_and(|generation: u32| generation > claimed);
        self.mutant == Some(Mutant::GenerationIgnored) && folder == "generation" && claimed > 0 && newer()
    }
}

impl Store for Mount {
    fn place(&self) -> String {
        "the simulated disk".to_string()
    }

    fn create(&self, path: &str, bytes: Bytes) -> Result<bool, StateError> {
        self.fate.point();
        if self.disk.platter().files.contains_key(path) {
            return Ok(false);
        }
        if self.appends() {
            self.disk.platter().set(path, Some(Bytes::new()));
        }
        self.fate.point();
        self.disk.platter().set(path, Some(bytes));
        self.fate.point();
        if let Some(generation) = path.strip_prefix("generation/").and_then(|name| name.parse().ok()) {
            self.claimed.store(generation, Ordering::Relaxed);
        }
        Ok(true)
    }

    fn put(&self, path: &str, bytes: Bytes) -> Result<(), StateError> {
        self.fate.point();
        self.disk.platter().change(path, Some(bytes));
        self.fate.point();
        Ok(())
    }

    fn sync(&self, synced: &str) -> Result<(), StateError> {
        self.fate.point();
        if self.mutant != Some(Mutant::ManifestFirst) || synced != "segments" {
            self.disk.platter().unsynced.retain(|path, _| folder(path) != synced);
        }
        self.fate.point();
        Ok(())
    }

    fn appends(&self) -> bool {
        self.disk.platter().appends
    }

    fn append(&self, path: &str, at: u64, bytes: &[u8]) -> Result<(), StateError> {
        self.fate.point();
        let with = |part: &[u8], room: usize| {
            let platter = &mut *self.disk.platter();
            let there = platter.files.get(path).map_or(&[][..], |bytes| &bytes[..at as usize]);
            let whole = [there, part, &vec![0; room]].concat();
            platter.set(path, Some(whole.into()));
        };
        let (part, room) = {
            let dice = &mut self.disk.platter().dice;
            (dice.below(bytes.len() + 1), dice.below(64))
        };
        if self.fate.is_near(1) {
            with(&bytes[..part], room);
        }
        self.fate.point();
        with(bytes, room);
        self.fate.point();
        Ok(())
    }

    fn read(&self, path: &str, most: u64) -> Result<Option<Bytes>, StateError> {
        let bytes = self.see(path, |files| files.get(path).cloned());
        assert!(bytes.as_ref().is_none_or(|bytes| bytes.len() as u64 <= most), "{path} is larger than it can be");
        Ok(bytes)
    }

    fn list(&self, listed: &str) -> Result<Vec<(String, u64)>, StateError> {
        let name = |(path, bytes): (&String, &Bytes)| (path.rsplit('/').next().unwrap_or(path).to_string(), bytes.len() as u64);
        let here = |files: &Files| files.iter().filter(|(path, _)| folder(path) == listed).map(name).collect::<Vec<_>>();
        let mut files = self.see(listed, here);
        files.retain(|(name, _)| !self.hides(listed, name));
        Ok(files)
    }

    fn delete(&self, path: &str) -> Result<(), StateError> {
        self.fate.point();
        self.disk.platter().change(path, None);
        self.fate.point();
        Ok(())
    }
}
