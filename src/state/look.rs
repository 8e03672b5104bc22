//! Reading snapshots: which there are, and whether they are what was written. Reads only, so it may look at a state that an engine
//! is writing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::folder::Folder;
use super::manifest::{self, Manifest, Name, Refused};
use super::objects::Objects;
use super::segment::{self, Segment};
use super::store::Store;
use super::{Address, COMMITTED, StateError, log};
use crate::model::{Saved, Serving};

/// The manifests of a state.
pub struct Manifests {
    /// The newest first.
    pub names: Vec<Name>,
    /// Of a generation that wrote it after a newer one had begun at an earlier epoch: it saw an input that was replaced.
    pub overtaken: Vec<Name>,
}

/// Names only; nothing is read.
pub fn manifests(store: &dyn Store) -> Result<Manifests, StateError> {
    let mut all: Vec<Name> = store.list("")?.iter().filter_map(|(name, _)| Name::parse(name)).collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    let logs = log::files(store)?;
    let overtaken = |name: &Name| logs.iter().any(|log| log.generation > name.generation && log.first <= name.epoch);
    let (overtaken, names) = all.into_iter().partition(overtaken);
    Ok(Manifests { names, overtaken })
}

/// Reads a manifest.
pub fn load(store: &dyn Store, name: Name) -> Result<Result<Manifest, Refused>, StateError> {
    match store.read(&name.to_string(), manifest::MOST) {
        Ok(Some(bytes)) => Ok(Manifest::decode(name, &bytes)),
        Ok(None) => Ok(Err(Refused::Damaged(format!("{name} is gone")))),
        Err(StateError::Damaged(what)) => Ok(Err(Refused::Damaged(what))),
        Err(e) => Err(e),
    }
}

/// Reads a segment and checks it.
pub fn entries(store: &dyn Store, segment: &Segment) -> Result<Vec<Saved>, StateError> {
    let bytes = store.read(&segment.path, segment.bytes)?;
    let bytes = bytes.ok_or_else(|| StateError::Damaged(format!("{} is gone", segment.path)))?;
    segment::decode(segment, &bytes).map_err(StateError::Damaged)
}

/// A state that is looked at, not opened.
pub struct Look {
    store: Arc<dyn Store>,
}

/// What checking everything came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Files that were read.
    pub files: usize,
    /// What is wrong, each beginning with the file.
    pub damaged: Vec<String>,
}

impl Look {
    /// At the state in a folder.
    pub fn folder(dir: &Path) -> Self {
        Self::of(Arc::new(Folder::look(dir)))
    }

    /// At the state in a store.
    pub fn of(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// At the state at an address.
    pub fn at(address: &Address) -> Result<Self, StateError> {
        match address {
            Address::Folder(dir) => Ok(Self::folder(dir)),
            Address::Objects(url) => Ok(Self::of(Arc::new(Objects::at(url)?))),
        }
    }

    /// All manifests that count, the newest first: read, or what is wrong with them.
    pub fn manifests(&self) -> Result<Vec<(Name, Result<Manifest, String>)>, StateError> {
        let read = |name| {
            let manifest = load(&*self.store, name)?;
            Ok((name, manifest.map_err(Refused::what)))
        };
        manifests(&*self.store)?.names.into_iter().map(read).collect()
    }

    /// What ranks as of the last epoch that was bound; `None`: none was.
    pub fn serving(&self) -> Result<Option<Serving>, StateError> {
        let heads = self.manifests()?.into_iter().filter_map(|(_, manifest)| manifest.ok()).map(|manifest| manifest.head);
        let newest = heads.max_by_key(|head| head.epoch.number);
        let mut bound = log::read(&*self.store, newest.as_ref().map(|head| head.epoch.number), None)?;
        Ok(bound.pop().map(|binding| binding.serving).or(newest.map(|head| head.serving)))
    }

    /// Reads every file and checks it.
    pub fn verify(&self) -> Result<Verified, StateError> {
        let mut verified = Verified::default();
        let manifests = self.manifests()?;
        verified.files += manifests.len();
        let mut segments: BTreeMap<String, Segment> = BTreeMap::new();
        for (_, manifest) in &manifests {
            match manifest {
                Ok(manifest) => segments.extend(manifest.segments().map(|segment| (segment.path.clone(), segment.clone()))),
                Err(what) => verified.damaged.push(what.clone()),
            }
        }
        for segment in segments.values() {
            self.check(entries(&*self.store, segment).map(drop), &mut verified)?;
        }
        for file in log::files(&*self.store)? {
            self.check(log::load(&*self.store, file).map(drop), &mut verified)?;
        }
        if manifests.is_empty() && self.store.read(COMMITTED, manifest::MOST)?.is_some() {
            verified.damaged.push(format!("{COMMITTED} says that there were snapshots, and no manifest is left"));
        }
        self.check_chain(&manifests, &mut verified)?;
        Ok(verified)
    }

    fn check(&self, read: Result<(), StateError>, verified: &mut Verified) -> Result<(), StateError> {
        verified.files += 1;
        match read {
            Err(StateError::Damaged(what)) => verified.damaged.push(what),
            read => read?,
        }
        Ok(())
    }

    /// From the oldest snapshot on the log must be without a hole. A file that is damaged was named already.
    fn check_chain(&self, manifests: &[(Name, Result<Manifest, String>)], verified: &mut Verified) -> Result<(), StateError> {
        let oldest = manifests.iter().rev().find(|(_, manifest)| manifest.is_ok()).map(|(name, _)| name.epoch);
        match log::read(&*self.store, oldest, manifests.first().map(|(name, _)| name.epoch)) {
            Err(StateError::Damaged(what)) => {
                let named: BTreeSet<&String> = verified.damaged.iter().collect();
                if !named.contains(&what) {
                    verified.damaged.push(what);
                }
                Ok(())
            }
            read => read.map(drop),
        }
    }
}
