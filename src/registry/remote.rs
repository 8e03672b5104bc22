//! Versions in an object store, of which every process keeps what it needed in a folder of its own: a version never changes, so it is fetched
//! once.
//!
//! The facts that must stay true: of any number that publish under one name exactly one does, for the model itself is put only where there is
//! none; and a version is there when its `version.json` is, which is put last.

use bytes::Bytes;
use object_store::{Error, ObjectStore};
use std::collections::BTreeMap;
use std::fmt::{Debug, Formatter, Result as Written};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::versions::{ABOUT, About, MODEL, NONE, digest_of, name_is_good, sync};
use super::{LoadError, RegistryError};
use crate::objects::{Objects, Read};

/// Bytes of a file of a version at most, and of what is said of one.
const MOST: u64 = 4 << 30;
const MOST_SAID: u64 = 1 << 20;
/// How long a request is tried again: orders wait for it, and a start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A place in an object store.
pub struct Remote {
    url: String,
    store: Objects,
    /// What was read of versions: it does not change.
    known: Mutex<BTreeMap<String, About>>,
}

impl Debug for Remote {
    fn fmt(&self, f: &mut Formatter<'_>) -> Written {
        f.write_str(&self.url)
    }
}

impl Remote {
    /// Of an address `s3://bucket/prefix`.
    pub fn at(url: &str) -> Result<Self, String> {
        Ok(Self { url: url.to_string(), store: Objects::at(url, PATIENCE)?, known: Mutex::default() })
    }

    /// Of a store that is open, under this name.
    pub fn of(store: Arc<dyn ObjectStore>, url: &str) -> Result<Self, String> {
        Ok(Self { url: url.to_string(), store: Objects::new(store)?, known: Mutex::default() })
    }

    /// One of which nothing can be read any more.
    #[cfg(test)]
    pub fn out_of_reach(place: &Path) -> Self {
        fs::create_dir(place).expect("there is room");
        let store = object_store::local::LocalFileSystem::new_with_prefix(place).expect("a folder");
        fs::remove_dir(place).and_then(|()| fs::write(place, "no folder any more")).expect("there is room");
        Self::of(Arc::new(store), "s3://models/here").expect("a thread")
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn failed(&self, what: &str, path: &str, error: &Error) -> String {
        format!("cannot {what} {path} in {}: {error}; check the address and the credentials", self.url)
    }

    fn away(&self, what: &str, path: &str, error: &Error) -> RegistryError {
        RegistryError::Away(self.failed(what, path, error))
    }

    fn unusable(&self, version: &str, reason: String) -> RegistryError {
        LoadError { path: format!("{}/{version}", self.url).into(), reason }.into()
    }

    /// What is called as a version would be.
    pub fn names(&self) -> Result<Vec<String>, RegistryError> {
        self.store.folders().map_err(|e| self.away("list", "the versions", &e))
    }

    /// A small object beside the versions.
    pub fn beside(&self, path: &str) -> Result<Option<Bytes>, String> {
        match self.store.read(path, MOST_SAID).map_err(|e| self.failed("read", path, &e))? {
            Read::Missing => Ok(None),
            Read::TooLarge(bytes) => Err(format!("{path} in {} has {bytes} bytes, more than it may have", self.url)),
            Read::Whole(bytes) => Ok(Some(bytes)),
        }
    }

    /// The same, whole, in place of what was there.
    pub fn put_beside(&self, path: &str, bytes: Vec<u8>) -> Result<(), String> {
        self.store.put(path, bytes.into()).map_err(|e| self.failed("write", path, &e))
    }

    /// What a version says of itself; of its files only this is read.
    pub fn about(&self, version: &str) -> Result<About, RegistryError> {
        let known = || self.known.lock().expect("no panic under the lock");
        if let Some(about) = known().get(version) {
            return Ok(about.clone());
        }
        let (about, _) = self.described(version)?;
        known().insert(version.to_string(), about.clone());
        Ok(about)
    }

    /// The same, with its text.
    fn described(&self, version: &str) -> Result<(About, Bytes), RegistryError> {
        name_is_good(version).map_err(|reason| self.unusable(version, reason))?;
        let Some(text) = self.file(version, ABOUT, MOST_SAID)? else {
            let files = self.store.files(version).map_err(|e| self.away("list", version, &e))?;
            let reason = if files.is_empty() { NONE.to_string() } else { format!("it is no version, for it lacks {ABOUT}") };
            return Err(self.unusable(version, reason));
        };
        Ok((About::read(&text).map_err(|reason| self.unusable(version, reason))?, text))
    }

    /// A file of a version, of so many bytes at most.
    fn file(&self, version: &str, name: &str, most: u64) -> Result<Option<Bytes>, RegistryError> {
        let path = format!("{version}/{name}");
        match self.store.read(&path, most).map_err(|e| self.away("read", &path, &e))? {
            Read::Missing => Ok(None),
            Read::TooLarge(bytes) => Err(self.unusable(version, format!("{name} has {bytes} bytes, more than it may have"))),
            Read::Whole(bytes) => Ok(Some(bytes)),
        }
    }

    /// Puts every file of a version into a folder, durably, each as it was published.
    pub fn fetch(&self, version: &str, into: &Path) -> Result<(), RegistryError> {
        let (about, text) = self.described(version)?;
        let unkept = |e: io::Error| RegistryError::Away(format!("{version} cannot be kept in {}: {e}", into.display()));
        let keep = |name: &str, bytes: &[u8]| {
            let path = into.join(name);
            fs::write(&path, bytes).and_then(|()| sync(&path)).map_err(unkept)
        };
        for (name, wanted) in &about.files {
            let unusable = |reason: String| self.unusable(version, reason);
            if name.starts_with('.') || name.contains(['/', '\\']) {
                return Err(unusable(format!("{ABOUT} names `{name}`, which is no name of a file here; publish it again")));
            }
            let bytes = self.file(version, name, MOST)?;
            let bytes = bytes.ok_or_else(|| unusable(format!("{name} is missing; publish it again under another name")))?;
            let found = digest_of(&bytes);
            if found != *wanted {
                let reason =
                    format!("{name} is not what was published ({found}, not {wanted}); publish it again under another name");
                return Err(unusable(reason));
            }
            keep(name, &bytes)?;
        }
        keep(ABOUT, &text)?;
        sync(into).map_err(unkept)
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
    use crate::model::serving::Version;
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

    fn digest(about: &About) -> u64 {
        u64::from_str_radix(about.digest(), 16).expect("hexadecimal")
    }

    fn id(about: &About) -> u64 {
        Version { name: "lr-1".into(), digest: digest(about) }.id()
    }

    fn in_it(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_version_is_fetched_when_it_is_needed_and_survives_the_store_being_emptied() {
        let (store, from) = (Arc::new(InMemory::new()), dir());
        let about = made(from.path(), "a model");
        remote(&store).publish("lr-1", from.path(), &about).expect("nobody has the name");
        let other = made(from.path(), "another");
        remote(&store).publish("lr-2", from.path(), &other).expect("nobody has the name");
        let kept = dir();
        let of = |store: &Arc<InMemory>| Registry::remote(remote(store), kept.path().join("kept"));
        let all = [("lr-1", about.clone()), ("lr-2", other)].map(|(name, about)| (name.to_string(), Ok(about)));
        assert_eq!(of(&store).versions(), Ok(all.to_vec()));
        assert_eq!(of(&store).find(id(&about)).map(|version| version.name), Ok("lr-1".into()));
        assert_eq!(in_it(&kept.path().join("kept")), [""; 0], "to find one nothing is fetched");
        assert_eq!(of(&store).about("lr-1"), Ok(about.clone()));
        assert_eq!(in_it(&kept.path().join("kept")), ["lr-1"], "nothing half fetched is left");
        let emptied = of(&Arc::new(InMemory::new()));
        assert_eq!(emptied.about("lr-1"), Ok(about.clone()), "what was fetched is here");
        assert_eq!(emptied.versions(), Ok(vec![]), "but no longer offered");
        assert_eq!(emptied.find(id(&about)).map(|version| version.name), Ok("lr-1".into()), "a start finds what ranked");
    }

    #[test]
    fn a_store_that_is_away_is_told_from_what_is_of_no_use() {
        let (store, from, kept) = (Arc::new(InMemory::new()), dir(), dir());
        let about = made(from.path(), "a model");
        remote(&store).publish("lr-1", from.path(), &about).expect("nobody has the name");
        Registry::remote(remote(&store), kept.path()).about("lr-1").expect("fetched");
        let place = dir();
        let registry = Registry::remote(Remote::out_of_reach(&place.path().join("store")), kept.path());
        assert_eq!(registry.about("lr-1"), Ok(about.clone()), "what was fetched is here");
        assert_eq!(registry.find(id(&about)).map(|version| version.name), Ok("lr-1".into()));
        let is_away = |error| matches!(error, RegistryError::Away(why) if why.contains("s3://models/here: "));
        assert!(registry.about("lr-2").is_err_and(is_away));
        fs::write(kept.path().join("lr-1/model.onnx"), "worn").expect("there is room");
        assert!(registry.about("lr-1").is_err_and(is_away));
        assert_eq!(in_it(kept.path()), ["lr-1"], "there is no other");
        assert!(matches!(registry.about("../x"), Err(RegistryError::Unusable(_))));
        assert!(matches!(Registry::remote(remote(&store), kept.path()).about("lr-2"), Err(RegistryError::Unusable(_))));
    }

    #[test]
    fn a_copy_that_is_damaged_is_fetched_again() {
        let (store, from, kept) = (Arc::new(InMemory::new()), dir(), dir());
        let about = made(from.path(), "a model");
        remote(&store).publish("lr-1", from.path(), &about).expect("nobody has the name");
        let registry = Registry::remote(remote(&store), kept.path());
        for (file, text) in [("model.onnx", "worn"), ("version.json", "{"), ("model.golden.json", "")] {
            assert_eq!(registry.about("lr-1"), Ok(about.clone()));
            fs::write(kept.path().join("lr-1").join(file), text).expect("there is room");
            assert_eq!(registry.find(id(&about)).map(|version| version.name), Ok("lr-1".into()), "{file}");
            assert_eq!(registry.about("lr-1"), Ok(about.clone()), "{file}");
        }
        let left = fs::read_to_string(kept.path().join("lr-1/model.onnx"));
        assert_eq!((left.expect("it is there").as_str(), in_it(kept.path())), ("a model", vec!["lr-1".to_string()]));
    }

    #[test]
    fn of_many_that_publish_under_one_name_one_does() {
        let store = Arc::new(InMemory::new());
        let publish = |n: usize| {
            let (remote, from) = (remote(&store), dir());
            let about = made(from.path(), &format!("model {n}"));
            remote.publish("lr-1", from.path(), &about).map(|()| about)
        };
        let came: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|n| scope.spawn(move || publish(n))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let (did, did_not): (Vec<_>, Vec<_>) = came.into_iter().partition(Result::is_ok);
        let kept = dir();
        let found = Registry::remote(remote(&store), kept.path()).about("lr-1").expect("it is whole");
        assert_eq!((did, did_not.len()), (vec![Ok(found)], 7));
        for why in did_not.into_iter().map(|came| came.expect_err("it is taken")) {
            assert!(why.contains("s3://models/here/lr-1 is there") && why.contains("give another name"), "{why}");
        }
    }

    #[test]
    fn what_is_not_what_was_published_is_named_and_not_kept() {
        let (store, from) = (Arc::new(InMemory::new()), dir());
        let about = made(from.path(), "a model");
        let put = |path: &str, text: &str| remote(&store).put_beside(path, text.into()).expect("there is room");
        remote(&store).publish("changed", from.path(), &about).expect("nobody has the name");
        put("changed/model.onnx", "another");
        put("half/model.onnx", "a model");
        let text = serde_json::to_string(&about).expect("JSON");
        put("lacking/version.json", &text);
        let mut outside = about.clone();
        outside.files.insert("../../outside".into(), "0".into());
        put("outside/version.json", &serde_json::to_string(&outside).expect("JSON"));
        put("old/version.json", "{\"format\":0}");
        put("large/version.json", &" ".repeat(MOST_SAID as usize + 1));
        put("training.json", "{}");
        let kept = dir();
        let registry = Registry::remote(remote(&store), kept.path());
        for (name, says) in [
            ("changed", "model.onnx is not what was published"),
            ("half", "it is no version, for it lacks version.json"),
            ("lacking", "model.golden.json is missing"),
            ("outside", "names `../../outside`, which is no name of a file here"),
            ("old", "version.json is not as it should be"),
            ("large", "version.json has 1048577 bytes"),
            ("nowhere", "there is no such version"),
        ] {
            let why = registry.about(name).expect_err("of no use").to_string();
            assert!(why.contains(says) && why.contains(&format!("s3://models/here/{name}")), "{why}");
        }
        let listed = registry.versions().expect("it can be read");
        let good: Vec<&str> = listed.iter().filter(|(_, about)| about.is_ok()).map(|(name, _)| name.as_str()).collect();
        assert_eq!((listed.len(), good), (6, vec!["changed", "lacking", "outside"]), "by what they say of themselves");
        assert_eq!(in_it(kept.path()), [""; 0], "nothing of them is kept");
        assert_eq!(registry.beside("training.json"), Ok(Some(b"{}".to_vec())));
        registry.put_beside("training.json", b"[]".to_vec()).expect("there is room");
        assert_eq!((registry.beside("training.json"), registry.beside("other")), (Ok(Some(b"[]".to_vec())), Ok(None)));
    }
}
