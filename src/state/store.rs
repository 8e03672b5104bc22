//! What the state asks of the place it lies in. This is its only I/O: everything else in the room decides, on bytes and names.
//!
//! Paths are those of the layout, `folder/name` or `name`. Nothing a store answers is trusted: what was read is checked by whoever
//! asked for it.

use bytes::Bytes;

use super::StateError;

/// A local folder, or an object store. One contract, one test (`tests/state.rs`).
pub trait Store: Send + Sync {
    /// Where it is, for messages.
    fn place(&self) -> String;

    /// Makes the file and answers `true`, or answers `false` because it is there. Of any number that try at once exactly one
    /// hears `true`. A crash may leave the file empty where [`Store::append`] works, and where it does not the whole file or none: there
    /// the epoch log is made of such files. Durable on return.
    fn create(&self, path: &str, bytes: Bytes) -> Result<bool, StateError>;

    /// The whole file, in place of what was there: a reader sees the one or the other, never a part. Durable after [`Store::sync`].
    fn put(&self, path: &str, bytes: Bytes) -> Result<(), StateError>;

    /// Makes every `put` into this folder (`""`: the top) durable.
    fn sync(&self, folder: &str) -> Result<(), StateError>;

    /// Whether [`Store::append`] works. Where it does not, the epoch log is a file per group.
    fn appends(&self) -> bool;

    /// Adds to a file of which `at` bytes are written. Durable on return; a crash may leave a part of `bytes`, and zeros may follow.
    fn append(&self, path: &str, at: u64, bytes: &[u8]) -> Result<(), StateError>;

    /// The whole file, or `None` when there is none. A file of more than `most` bytes is damaged, and not read.
    fn read(&self, path: &str, most: u64) -> Result<Option<Bytes>, StateError>;

    /// The files of one folder (`""`: of the top), not of those below it: name and bytes, by name. None where there is no folder.
    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, StateError>;

    /// Takes the file away. One that is not there is no error.
    fn delete(&self, path: &str) -> Result<(), StateError>;
}

/// A file that is larger than it can be.
pub(super) fn too_large(path: &str, bytes: u64, most: u64) -> StateError {
    StateError::Damaged(format!("{path} has {bytes} bytes, {most} at most were expected"))
}
