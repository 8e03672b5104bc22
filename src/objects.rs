//! Object stores, waited for on the thread that asks. An object is put whole, and a claim is a conditional put: of any number that try at once
//! exactly one makes it.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ListResult, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Any store of the `object_store` crate.
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    /// Where it is, for messages.
    place: String,
    /// `None`: it is being dropped.
    runtime: Option<Runtime>,
}

/// What was read.
pub enum Read {
    Missing,
    /// It has so many bytes, more than were to be read.
    TooLarge(u64),
    Whole(Bytes),
}

impl Objects {
    /// No function of it may be called from an asynchronous task: they wait.
    pub fn new(store: Arc<dyn ObjectStore>) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("objects").enable_all().build();
        let runtime = Some(runtime.map_err(|e| format!("cannot start a thread for the object store: {e}"))?);
        Ok(Self { place: store.to_string(), store, runtime })
    }

    /// Of an address `s3://bucket/prefix`; a request that fails is tried again for so long. (Any other is empty and ends with the process: for tests.)
    pub fn at(url: &str, patience: Duration) -> Result<Self, String> {
        match url.strip_prefix("s3://") {
            Some(place) => {
                let mut objects = Self::new(s3(url, place, patience)?)?;
                objects.place = url.to_string();
                Ok(objects)
            }
            None => Self::new(Arc::new(object_store::memory::InMemory::new())),
        }
    }

    /// Where it is, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("it is not being dropped").block_on(work)
    }

    /// The whole object, in place of what was there.
    pub fn put(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        self.put_as(path, bytes, PutMode::Overwrite)
    }

    /// The whole object, and `true`; or `false`, because it is there.
    pub fn create(&self, path: &str, bytes: Bytes) -> Result<bool, Error> {
        match self.put_as(path, bytes, PutMode::Create) {
            Err(Error::AlreadyExists { .. }) => Ok(false),
            put => put.map(|()| true),
        }
    }

    fn put_as(&self, path: &str, bytes: Bytes, mode: PutMode) -> Result<(), Error> {
        let options = PutOptions { mode, ..PutOptions::default() };
        self.wait(self.store.put_opts(&Path::from(path), bytes.into(), options)).map(drop)
    }

    /// An object of so many bytes at most.
    pub fn read(&self, path: &str, most: u64) -> Result<Read, Error> {
        let read = self.wait(async {
            let found = self.store.get(&Path::from(path)).await?;
            let size = found.meta.size;
            if size > most { Ok(Read::TooLarge(size)) } else { found.bytes().await.map(Read::Whole) }
        });
        match read {
            Err(Error::NotFound { .. }) => Ok(Read::Missing),
            read => read,
        }
    }

    /// The objects of one folder (`""`: of the top), not of those below it: name and bytes, by name.
    pub fn files(&self, folder: &str) -> Result<Vec<(String, u64)>, Error> {
        let named = |object: &object_store::ObjectMeta| Some((object.location.filename()?.to_string(), object.size));
        let mut files: Vec<_> = self.list(folder)?.map_or(Vec::new(), |of| of.objects.iter().filter_map(named).collect());
        files.sort_unstable();
        Ok(files)
    }

    /// The folders of the top, by name.
    pub fn folders(&self) -> Result<Vec<String>, Error> {
        let named = |path: &Path| path.filename().map(str::to_string);
        let mut folders: Vec<_> = self.list("")?.map_or(Vec::new(), |of| of.common_prefixes.iter().filter_map(named).collect());
        folders.sort_unstable();
        Ok(folders)
    }

    fn list(&self, folder: &str) -> Result<Option<ListResult>, Error> {
        let prefix = (!folder.is_empty()).then(|| Path::from(folder));
        match self.wait(self.store.list_with_delimiter(prefix.as_ref())) {
            Err(Error::NotFound { .. }) => Ok(None),
            listed => listed.map(Some),
        }
    }

    /// Takes an object away. One that is not there is no error.
    pub fn delete(&self, path: &str) -> Result<(), Error> {
        match self.wait(self.store.delete(&Path::from(path))) {
            Err(Error::NotFound { .. }) => Ok(()),
            deleted => deleted,
        }
    }
}

impl Drop for Objects {
    /// On whichever thread, be it one that must not wait.
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// A bucket, and what all names in it begin with. Region, endpoint and credentials come from the environment (`AWS_REGION`,
/// `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID` …), as with Amazon's own tools. A server must know conditional puts.
#[cfg(feature = "s3")]
fn s3(url: &str, place: &str, patience: Duration) -> Result<Arc<dyn ObjectStore>, String> {
    use object_store::RetryConfig;
    use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch);
    let retry = RetryConfig { retry_timeout: patience, ..RetryConfig::default() };
    let bucket = builder.with_retry(retry).build().map_err(|e| format!("cannot use {url}: {e}"))?;
    Ok(Arc::new(object_store::prefix::PrefixStore::new(bucket, prefix)))
}

#[cfg(not(feature = "s3"))]
fn s3(url: &str, _place: &str, _patience: Duration) -> Result<Arc<dyn ObjectStore>, String> {
    Err(format!("cannot use {url}: this binary was built without the feature s3; build it with --features s3"))
}
