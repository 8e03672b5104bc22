//! Versions in an object store, of which every process keeps what it needed in a folder of its own: a version never changes, so it is fetched
//! once.
//!
//! The facts that must stay true: of any number that publish under one name exactly one does, for the model itself is put only where there is
//! none; and a version is there when its `version.json` is, which is put last.

use bytes::Bytes;
use object_store::{Error, ObjectStore};
use std::fmt::{Debug, Formatter, Result as Written};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::versions::{ABOUT, About, MODEL, digest_of, sync};
use crate::objects::{Objects, Read};

/// Bytes of a file of a version at most.
const MOST: u64 = 4 << 30;

/// Versions fetched by this process: two threads that fetch one at once do not meet.
static FETCHED: AtomicU64 = AtomicU64::new(0);

/// A place in an object store.
pub struct Remote {
    url: String,
    store: Objects,
}

impl Debug for Remote {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        f.write_str(&self.url)
    }
}

impl Remote {
    /// Of an address `s3://bucket/prefix`.
    pub fn at(url: &str) -> Result<Self, String> {
        Ok(Self { url: url.to_string(), store: Objects::at(url)? })
    }

    /// Of a store that is open, under this name.
    pub fn of(store: Arc<dyn ObjectStore>, url: &str) -> Result<Self, String> {
        Ok(Self { url: url.to_string(), store: Objects::new(store)? })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn failed(&self, what: &str, path: &str, error: &Error) -> String {
        format!("cannot {what} {path} in {}: {error}; check the address and the credentials", self.url)
    }

    /// What is called as a version would be.
    pub fn names(&self) -> Result<Vec<String>, String> {
        self.store.folders().map_err(|e| self.failed("list", "the versions", &e))
    }

    /// A small object beside the versions.
    pub fn read(&self, path: &str) -> Result<Option<Bytes>, String> {
        match self.store.read(path, MOST).map_err(|e| self.failed("read", path, &e))? {
            Read::Missing => Ok(None),
            Read::TooLarge(bytes) => Err(format!("{path} in {} has {bytes} bytes, more than any file here may have", self.url)),
            Read::Whole(bytes) => Ok(Some(bytes)),
        }
    }

    /// The same, whole, in place of what was there.
    pub fn write(&self, path: &str, bytes: Vec<u8>) -> Result<(), String> {
        self.store.put(path, bytes.into()).map_err(|e| self.failed("write", path, &e))
    }

    /// Puts a version into a folder, unless it is there or there is none: whole or not at all, and as it was published.
    pub fn fetch(&self, version: &str, folder: &Path) -> Result<(), String> {
        let place = folder.join(version);
        if place.is_dir() {
            return Ok(());
        }
        let Some(text) = self.read(&format!("{version}/{ABOUT}"))? else {
            let files = self.store.files(version).map_err(|e| self.failed("list", version, &e))?;
            return if files.is_empty() { Ok(()) } else { Err(format!("it is no version, for it lacks {ABOUT}")) };
        };
        let about: About = serde_json::from_slice(&text).map_err(|e| format!("{ABOUT} is not as it should be: {e}"))?;
        let nth = FETCHED.fetch_add(1, Ordering::Relaxed);
        let unfinished = folder.join(format!(".{version}.{}-{nth}.fetched.unfinished", std::process::id()));
        let failed = |e: std::io::Error| format!("it cannot be kept in {}: {e}", folder.display());
        let kept = fs::create_dir_all(&unfinished).map_err(failed).and_then(|()| self.copy(version, &about, &text, &unfinished));
        let kept = kept.and_then(|()| match fs::rename(&unfinished, &place).and_then(|()| sync(folder)) {
            Err(e) if !place.is_dir() => Err(failed(e)),
            _ => Ok(()), // or somebody else fetched it meanwhile
        });
        let _left = fs::remove_dir_all(&unfinished); // what stays is passed over
        kept
    }

    /// Every file of a version, durably, each as it was published.
    fn copy(&self, version: &str, about: &About, text: &[u8], into: &Path) -> Result<(), String> {
        let keep = |name: &str, bytes: &[u8]| {
            let path = into.join(name);
            let kept = fs::write(&path, bytes).and_then(|()| sync(&path));
            kept.map_err(|e| format!("{name} cannot be kept in {}: {e}", into.display()))
        };
        for (name, wanted) in &about.files {
            if name.starts_with('.') || name.contains(['/', '\\']) {
                return Err(format!("{ABOUT} names `{name}`, which is no name of a file here; publish it again"));
            }
            let bytes = self.read(&format!("{version}/{name}"))?;
            let bytes = bytes.ok_or_else(|| format!("{name} is missing; publish it again under another name"))?;
            let found = digest_of(&bytes);
            if found != *wanted {
                return Err(format!(
                    "{name} is not what was published ({found}, not {wanted}); publish it again under another name"
                ));
            }
            keep(name, &bytes)?;
        }
        keep(ABOUT, text)?;
        sync(into).map_err(|e| format!("it cannot be kept in {}: {e}", into.display()))
    }

    /// Publishes what lies in a folder as a version.
    pub fn publish(&self, version: &str, folder: &Path, about: &About) -> Result<(), String> {
        let unread = |name: &str, e: std::io::Error| format!("{} cannot be published: {e}", folder.join(name).display());
        let object = |name: &str| fs::read(folder.join(name)).map(Bytes::from).map_err(|e| unread(name, e));
        let path = |name: &str| format!("{version}/{name}");
        let claimed = self.store.create(&path(MODEL), object(MODEL)?).map_err(|e| self.failed("write", version, &e))?;
        if !claimed {
            return Err(format!("{}/{version} is there, and versions are never changed; give another name", self.url));
        }
        for name in about.files.keys().map(String::as_str).filter(|name| *name != MODEL).chain([ABOUT]) {
            let put = self.store.put(&path(name), object(name)?);
            put.map_err(|e| format!("{}; the name is taken now, publish under another one", self.failed("write", version, &e)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use object_store::memory::InMemory;
    use std::collections::BTreeMap;
    use tempfile::TempDir;

    /// What a version is made of, as `Registry::publish` lays it out, its model being any bytes.
    fn made(dir: &Path, model: &str) -> About {
        let files = [(MODEL, model), ("model.golden.json", "{}")].map(|(name, text)| {
            fs::write(dir.join(name), text).expect("there is room");
            (name.to_string(), digest_of(text.as_bytes()))
        });
        let about = About { model: "lr".into(), created_ms: 7, files: BTreeMap::from(files), figures: None };
        fs::write(dir.join(ABOUT), serde_json::to_vec(&about).expect("JSON")).expect("there is room");
        about
    }

    fn dir() -> TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn remote(store: &Arc<InMemory>) -> Remote {
        Remote::of(store.clone(), "s3://models/here").expect("a thread")
    }

    #[test]
    fn a_version_is_fetched_once_by_each_process_and_survives_the_store_being_emptied() {
        let (store, from) = (Arc::new(InMemory::new()), dir());
        let about = made(from.path(), "a model");
        remote(&store).publish("lr-1", from.path(), &about).expect("nobody has the name");
        for _ in 0..2 {
            let kept = dir();
            let registry = Registry::remote(remote(&store), kept.path().join("kept"));
            assert_eq!(registry.versions(), Ok(vec![("lr-1".to_string(), Ok(about.clone()))]));
            let id = registry.find(crate::model::serving::Version { name: "lr-1".into(), digest: digest(&about) }.id());
            assert_eq!(id.expect("it is there").name, "lr-1");
        }
        let kept = dir();
        let of = |store: &Arc<InMemory>| Registry::remote(remote(store), kept.path());
        assert_eq!(of(&store).about("lr-1"), Ok(about.clone()));
        let emptied = of(&Arc::new(InMemory::new()));
        assert_eq!(emptied.about("lr-1"), Ok(about.clone()), "what was fetched is here");
        assert_eq!(emptied.versions(), Ok(vec![]), "but no longer offered");
        let id = crate::model::serving::Version { name: "lr-1".into(), digest: digest(&about) }.id();
        assert_eq!(emptied.find(id).map(|version| version.name), Ok("lr-1".into()), "a start finds what ranked");
        assert_eq!(fs::read_dir(kept.path()).expect("a folder").count(), 1, "nothing half fetched is left");
    }

    fn digest(about: &About) -> u64 {
        u64::from_str_radix(about.digest(), 16).expect("hexadecimal")
    }

    #[test]
    fn a_copy_that_is_damaged_is_fetched_again() {
        let (store, from, kept) = (Arc::new(InMemory::new()), dir(), dir());
        let about = made(from.path(), "a model");
        remote(&store).publish("lr-1", from.path(), &about).expect("nobody has the name");
        let registry = Registry::remote(remote(&store), kept.path());
        assert_eq!(registry.about("lr-1"), Ok(about.clone()));
        fs::write(kept.path().join("lr-1/model.onnx"), "worn").expect("there is room");
        assert_eq!(registry.about("lr-1"), Ok(about));
        let left = fs::read_to_string(kept.path().join("lr-1/model.onnx"));
        assert_eq!(left.expect("it is there"), "a model");
    }

    #[test]
    fn of_two_that_publish_under_one_name_one_does() {
        let (store, first, second) = (Arc::new(InMemory::new()), dir(), dir());
        let (about, other) = (made(first.path(), "a model"), made(second.path(), "another"));
        remote(&store).publish("lr-1", first.path(), &about).expect("nobody has the name");
        let why = remote(&store).publish("lr-1", second.path(), &other).expect_err("it is taken");
        assert!(why.contains("s3://models/here/lr-1 is there") && why.contains("give another name"), "{why}");
        let kept = dir();
        assert_eq!(Registry::remote(remote(&store), kept.path()).about("lr-1"), Ok(about));
    }

    #[test]
    fn what_is_not_what_was_published_is_named_and_not_kept() {
        let (store, from) = (Arc::new(InMemory::new()), dir());
        let about = made(from.path(), "a model");
        let put = |path: &str, text: &str| remote(&store).write(path, text.into()).expect("there is room");
        remote(&store).publish("changed", from.path(), &about).expect("nobody has the name");
        put("changed/model.onnx", "another");
        put("half/model.onnx", "a model");
        let text = serde_json::to_string(&about).expect("JSON");
        put("lacking/version.json", &text);
        put("outside/version.json", &text.replace("model.golden.json", "../../outside"));
        put("training.json", "{}");
        let kept = dir();
        let registry = Registry::remote(remote(&store), kept.path());
        for (name, says) in [
            ("changed", "model.onnx is not what was published"),
            ("half", "it is no version, for it lacks version.json"),
            ("lacking", "model.golden.json is missing"),
            ("outside", "names `../../outside`, which is no name of a file here"),
            ("nowhere", "there is no such version"),
        ] {
            let why = registry.about(name).expect_err("of no use").to_string();
            assert!(why.contains(says) && why.contains(&format!("s3://models/here/{name}")), "{why}");
        }
        assert_eq!(registry.versions().expect("listed").len(), 4);
        assert_eq!(fs::read_dir(kept.path()).expect("a folder").count(), 0, "nothing of them is kept");
        assert_eq!(registry.beside("training.json"), Ok(Some(b"{}".to_vec())));
        registry.put_beside("training.json", b"[]".to_vec()).expect("there is room");
        assert_eq!((registry.beside("training.json"), registry.beside("other")), (Ok(Some(b"[]".to_vec())), Ok(None)));
    }
}
