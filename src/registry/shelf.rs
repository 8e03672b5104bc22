//! The versions that were loaded, for all who rank in this process.
//!
//! The fact that must stay true: what is taken from the shelf has the digest it was asked for by, on whichever machine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::Registry;
use crate::model::serving::{Serving, Version};
use crate::scoring::ranker::Model;

/// Models by digest. A clone is the same shelf.
#[derive(Clone)]
pub struct Shelf(Arc<Inner>);

struct Inner {
    registry: Registry,
    library: String,
    loaded: Mutex<BTreeMap<u64, Model>>,
}

impl Shelf {
    /// Of a registry, with the library of ONNX Runtime at this path (else the one `ORT_DYLIB_PATH` names).
    pub fn new(registry: Registry, library: &str) -> Self {
        Self(Arc::new(Inner { registry, library: library.to_string(), loaded: Mutex::default() }))
    }

    /// Loads and proves a version, unless that was done. The error says why it cannot be used.
    pub fn fetch(&self, version: &Version) -> Result<Model, String> {
        let mut loaded = self.0.loaded.lock().expect("no panic under the lock");
        if let Some(model) = loaded.get(&version.digest) {
            return Ok(model.clone());
        }
        let model = self.0.registry.load(&version.name, &self.0.library).map_err(|e| e.to_string())?;
        if model.id() != version.digest {
            return Err(format!("{version} was asked for, but the version of this name has the digest {}", model.digest));
        }
        loaded.insert(version.digest, model.clone());
        Ok(model)
    }

    /// A version by its name alone; it is not kept.
    pub fn open(&self, version: &str) -> Result<Model, String> {
        self.0.registry.load(version, &self.0.library).map_err(|e| e.to_string())
    }

    /// The version with this digest, whatever it is called here.
    pub fn find(&self, digest: u64) -> Result<Model, String> {
        let known = self.0.loaded.lock().expect("no panic under the lock").get(&digest).cloned();
        match known {
            Some(model) => Ok(model),
            None => self.fetch(&Version { name: self.0.registry.find(&format!("{digest:016x}"))?, digest }),
        }
    }

    /// Keeps what ranks and what ranked before it.
    pub fn keep(&self, serving: &Serving) {
        let kept = [&serving.now, &serving.before].map(|version| version.as_ref().map(|version| version.digest));
        self.0.loaded.lock().expect("no panic under the lock").retain(|digest, _| kept.contains(&Some(*digest)));
    }
}
