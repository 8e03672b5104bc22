//! State in an object store. An object is put whole, and a claim is a conditional put: of two processes exactly one makes it. There
//! is no lock; the generation alone keeps two engines apart.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use std::sync::Arc;
use tokio::runtime::Runtime;

use super::StateError;
use super::store::{Store, too_large};

/// Any store of the `object_store` crate, waited for on the thread that asks.
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
}

impl Objects {
    /// Must not be called from an asynchronous task, nor any of its functions: they wait.
    pub fn new(store: Arc<dyn ObjectStore>) -> Result<Self, StateError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("objects").enable_all().build();
        let runtime = runtime.map_err(|e| StateError::Io(format!("cannot start a thread for the object store: {e}")))?;
        Ok(Self { store, runtime })
    }

    /// Of an address.
    pub fn at(url: &str) -> Result<Self, StateError> {
        match url.strip_prefix("s3://") {
            Some(place) => Self::new(s3(url, place)?),
            None => Self::new(Arc::new(object_store::memory::InMemory::new())),
        }
    }

    fn put_as(&self, path: &str, bytes: Bytes, mode: PutMode) -> Result<(), Error> {
        let options = PutOptions { mode, ..PutOptions::default() };
        self.runtime.block_on(self.store.put_opts(&Path::from(path), bytes.into(), options)).map(drop)
    }

    fn failed(&self, what: &str, path: &str, error: &Error) -> StateError {
        StateError::Io(format!("cannot {what} {path} in {}: {error}; check the address and the credentials", self.store))
    }
}

/// A bucket, and what all names in it begin with. Region, endpoint and credentials come from the environment (`AWS_REGION`,
/// `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID` …), as with Amazon's own tools. A server must know conditional puts.
#[cfg(feature = "s3")]
fn s3(url: &str, place: &str) -> Result<Arc<dyn ObjectStore>, StateError> {
    use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch);
    let bucket = builder.build().map_err(|e| StateError::Io(format!("cannot use {url} for the state: {e}")))?;
    Ok(Arc::new(object_store::prefix::PrefixStore::new(bucket, prefix)))
}

#[cfg(not(feature = "s3"))]
fn s3(url: &str, _place: &str) -> Result<Arc<dyn ObjectStore>, StateError> {
    Err(StateError::Io(format!(
        "cannot use {url} for the state: this binary was built without the feature s3; build it with --features s3"
    )))
}

impl Store for Objects {
    fn place(&self) -> String {
        self.store.to_string()
    }

    fn create(&self, path: &str, bytes: Bytes) -> Result<bool, StateError> {
        match self.put_as(path, bytes, PutMode::Create) {
            Err(Error::AlreadyExists { .. }) => Ok(false),
            put => put.map(|()| true).map_err(|e| self.failed("make", path, &e)),
        }
    }

    fn put(&self, path: &str, bytes: Bytes) -> Result<(), StateError> {
        self.put_as(path, bytes, PutMode::Overwrite).map_err(|e| self.failed("write", path, &e))
    }

    fn sync(&self, _folder: &str) -> Result<(), StateError> {
        Ok(())
    }

    fn appends(&self) -> bool {
        false
    }

    fn append(&self, path: &str, _at: u64, _bytes: &[u8]) -> Result<(), StateError> {
        Err(StateError::Io(format!("cannot append to {path} in {}: objects are put whole", self.store)))
    }

    fn read(&self, path: &str, most: u64) -> Result<Option<Bytes>, StateError> {
        let read = self.runtime.block_on(async {
            let found = self.store.get(&Path::from(path)).await?;
            let size = found.meta.size;
            if size > most { Ok(Err(size)) } else { found.bytes().await.map(Ok) }
        });
        match read {
            Err(Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed("read", path, &e)),
            Ok(Err(size)) => Err(too_large(path, size, most)),
            Ok(Ok(bytes)) => Ok(Some(bytes)),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>, StateError> {
        let prefix = (!folder.is_empty()).then(|| Path::from(folder));
        let listed = match self.runtime.block_on(self.store.list_with_delimiter(prefix.as_ref())) {
            Err(Error::NotFound { .. }) => return Ok(Vec::new()),
            listed => listed.map_err(|e| self.failed("list", folder, &e))?,
        };
        let named = |object: &object_store::ObjectMeta| Some((object.location.filename()?.to_string(), object.size));
        let mut files: Vec<_> = listed.objects.iter().filter_map(named).collect();
        files.sort_unstable();
        Ok(files)
    }

    fn delete(&self, path: &str) -> Result<(), StateError> {
        match self.runtime.block_on(self.store.delete(&Path::from(path))) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failed("delete", path, &e)),
        }
    }
}
