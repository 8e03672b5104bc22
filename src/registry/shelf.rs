//! The versions that were loaded, for all who rank in this process.
//!
//! The fact that must stay true: what is taken from the shelf has the digest it was asked for by, on whichever machine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::{LoadError, Onnx, Registry, RegistryError};
use crate::model::serving::{Serving, Version};
use crate::scoring::ranker::Model;

/// Models by the id of their version. A clone is the same shelf.
#[derive(Clone)]
pub struct Shelf(Arc<Inner>);

struct Inner {
    registry: Registry,
    onnx: Onnx,
    loaded: Mutex<BTreeMap<u64, Model>>,
}

impl Shelf {
    /// Of a registry, with the library of ONNX Runtime at this path (else the one `ORT_DYLIB_PATH` names).
    pub fn new(registry: Registry, onnx: &Onnx) -> Self {
        Self(Arc::new(Inner { registry, onnx: onnx.clone(), loaded: Mutex::default() }))
    }

    /// Loads and proves a version, unless that was done; that its files are there and whole is looked at each time, for the next start
    /// needs them.
    pub fn fetch(&self, version: &Version) -> Result<Model, RegistryError> {
        let about = self.0.registry.about(&version.name)?;
        let unusable = |reason| LoadError { path: self.0.registry.at(&version.name), reason };
        if u64::from_str_radix(about.digest(), 16) != Ok(version.digest) {
            let found = about.digest();
            return Err(unusable(format!("{version} was asked for, but the version of this name has the digest {found}")).into());
        }
        let mut loaded = self.0.loaded.lock().expect("no panic under the lock");
        if let Some(model) = loaded.get(&version.id()) {
            return Ok(model.clone());
        }
        let model = self.0.registry.load(&version.name, &self.0.onnx)?;
        if model.id() != version.digest {
            return Err(unusable(format!("{version} was asked for, but its model changed while it was read")).into());
        }
        loaded.insert(version.id(), model.clone());
        Ok(model)
    }

    /// A version by its name alone; it is not kept.
    pub fn open(&self, version: &str) -> Result<Model, RegistryError> {
        self.0.registry.load(version, &self.0.onnx)
    }

    /// The version that an epoch names by this id.
    pub fn find(&self, id: u64) -> Result<Model, RegistryError> {
        let known = self.0.loaded.lock().expect("no panic under the lock").get(&id).cloned();
        match known {
            Some(model) => Ok(model),
            None => self.fetch(&self.0.registry.find(id)?),
        }
    }

    /// Keeps what ranks and what ranked before it.
    pub fn keep(&self, serving: &Serving) {
        let kept = [&serving.now, &serving.before].map(|version| version.as_ref().map(Version::id));
        self.0.loaded.lock().expect("no panic under the lock").retain(|id, _| kept.contains(&Some(*id)));
    }
}
