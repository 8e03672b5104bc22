//! State in an object store. There is no lock; the generation alone keeps two engines apart.

use bytes::Bytes;
use object_store::{Error, ObjectStore};
use std::sync::Arc;
use std::time::Duration;

use super::StateError;
use super::store::{Store, too_large};
use crate::objects::{self, Read};

/// How long a request is tried again.
const PATIENCE: Duration = Duration::from_secs(180);

/// Any store of the `object_store` crate, waited for on the thread that asks.
pub struct Objects(objects::Objects);

impl Objects {
    /// Must not be called from an asynchronous task, nor any of its functions: they wait.
    pub fn new(store: Arc<dyn ObjectStore>) -> Result<Self, StateError> {
        objects::Objects::new(store).map(Self).map_err(StateError::Io)
    }

    /// Of an address.
    pub fn at(url: &str) -> Result<Self, StateError> {
        objects::Objects::at(url, PATIENCE).map(Self).map_err(StateError::Io)
    }

    fn failed(&self, what: &str, path: &str, error: &Error) -> StateError {
        StateError::Io(format!("cannot {what} {path} in {}: {error}; check the address and the credentials", self.place()))
    }
}

impl Store for Objects {
    fn place(&self) -> String {
        self.0.place().to_string()
    }

    fn create(&self, path: &str, bytes: Bytes) -> Result<bool, StateError> {
        self.0.create(path, bytes).map_err(|e| self.failed("make", path, &e))
    }

    fn put(&self, path: &str, bytes: Bytes) -> Result<(), StateError> {
        self.0.put(path, bytes).map_err(|e| self.failed("write", path, &e))
    }

    fn sync(&self, _folder: &str) -> Result<(), StateError> {
        Ok(())
    }

    fn appends(&self) -> bool {
        false
    }

    fn append(&self, path: &str, _at: u64, _bytes: &[u8]) -> Result<(), StateError> {
        Err(StateError::Io(format!("cannot append to {path} in {}: objects are put whole", self.place())))
    }

    fn read(&self, path: &str, most: u64) -> Result<Option<Bytes>, StateError> {
        match self.0.read(path, most).map_err(|e| self.failed("read", path, &e))? {
            Read::Missing => Ok(None),
            Read::TooLarge(size) => Err(too_large(path, size, most)),
            Read::Whole(bytes) => Ok(Some(bytes)),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, StateError> {
        self.0.files(folder).map_err(|e| self.failed("list", if folder.is_empty() { "the files" } else { folder }, &e))
    }

    fn delete(&self, path: &str) -> Result<(), StateError> {
        self.0.delete(path).map_err(|e| self.failed("delete", path, &e))
    }
}
