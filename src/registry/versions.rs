//! A folder of versions, or a place in an object store of which the folder keeps what was needed. A version is a folder of its own that holds a
//! model, its golden rows, its report, and `version.json`, which says when it was published and what its files are.
//!
//! The facts that must stay true: a version is there whole or not at all, and never changes; one whose files are not those that were
//! published is not used.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::remote::Remote;
use super::{LoadError, Onnx, RegistryError, golden_path, load};
use crate::model::serving::{BLEND, Version};
use crate::model::time::Millis;
use crate::scoring::ranker::Model;

/// What the files of a version are called.
pub(super) const MODEL: &str = "model.onnx";
pub(super) const ABOUT: &str = "version.json";
/// What names a registry.
pub const ADDRESSES: &str = "write a folder, file:///a/folder or s3://bucket/prefix";
/// Whether this names a registry.
pub fn is_address(named: &str) -> bool {
    match named.split_once("://") {
        None => true,
        Some(("file", path)) => path.starts_with('/'),
        Some((scheme, place)) => scheme == "s3" && !place.is_empty() && !place.starts_with('/'),
    }
}

/// Where copies of versions are kept, below the state folder.
const KEPT: &str = "registry";
/// How the name of a folder ends that is not yet a version.
const UNFINISHED: &str = ".unfinished";
/// What was left that long ago is nobody's.
const LEFT: Duration = Duration::from_secs(24 * 3600);
/// Why there is nothing under a name.
pub(super) const NONE: &str = "there is no such version; `overdrive models list` names them";
/// Bytes of a name at most.
const LONGEST: usize = 64;

/// What is said of a version in its `version.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// What the model was called when it was published: `lambdarank`.
    pub model: String,
    pub created_ms: Millis,
    /// BLAKE3 of each file, 16 hex digits.
    pub files: BTreeMap<String, String>,
    /// What its report says, if it has one.
    pub figures: Option<Figures>,
}

/// How good a model was on examples later than those it was trained on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub examples: Examples,
    pub held_out_from_ms: Millis,
    pub ndcg_10: Ndcg,
    pub auc: Auc,
}

/// What it was made of, and measured on: examples of which something was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examples {
    pub earlier: u64,
    pub held_out: u64,
}

/// NDCG@10, and how far it was ahead of the blend's in 95 of 100 draws of users.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ndcg {
    pub model: f64,
    pub blend: f64,
    pub ahead: (f64, f64),
}

/// The share of pairs of a taken and another row in the right order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Auc {
    pub model: Option<f64>,
    pub blend: Option<f64>,
}

impl About {
    /// Of the text of a `version.json`.
    pub(super) fn read(text: &[u8]) -> Result<Self, String> {
        let about: Self = serde_json::from_slice(text).map_err(|e| format!("{ABOUT} is not as it should be: {e}"))?;
        match [MODEL, &golden_name()].into_iter().find(|name| !about.files.contains_key(*name)) {
            Some(name) => Err(format!("{ABOUT} says nothing of {name}; publish the model again")),
            None => Ok(about),
        }
    }

    /// BLAKE3 of the model.
    pub fn digest(&self) -> &str {
        self.files.get(MODEL).map_or("", String::as_str)
    }
}

/// The folder. Every error names a path and says what to do.
#[derive(Clone, Debug)]
pub struct Registry {
    pub(super) folder: PathBuf,
    /// What the folder keeps a part of; `None`: it is all there is.
    pub(super) remote: Option<Arc<Remote>>,
}

impl Registry {
    /// In this folder, which need not be there yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), remote: None }
    }

    /// In an object store. What is needed of it is kept in this folder.
    pub fn remote(remote: Remote, folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), remote: Some(Arc::new(remote)) }
    }

    /// As the settings name it: a folder, `file:///a/folder`, or `s3://bucket/prefix`, of which what is needed is kept below `state_dir`.
    pub fn open(named: &str, state_dir: &Path) -> Result<Self, String> {
        match named.split_once("://") {
            _ if !is_address(named) => Err(format!("`{named}` is no registry: {ADDRESSES}")),
            Some(("s3", _)) => {
                let kept = state_dir.join(KEPT).join(digest_of(named.as_bytes()));
                Ok(Self::remote(Remote::at(named)?, kept))
            }
            folder => Ok(Self::new(folder.map_or(named, |(_, path)| path))),
        }
    }

    /// Every version, by time and name, or why it is of no use. Of those in a store nothing is fetched but what they say of themselves.
    pub fn versions(&self) -> Result<Vec<(String, Result<About, LoadError>)>, RegistryError> {
        let mut versions = Vec::new();
        for name in self.names()? {
            let about = match &self.remote {
                Some(remote) => match remote.about(&name) {
                    Err(RegistryError::Unusable(why)) => Err(why),
                    about => Ok(about?),
                },
                None => self.checked(&name),
            };
            versions.push((name, about));
        }
        versions.sort_by_cached_key(|(name, about)| (about.as_ref().map_or(Millis::MAX, |about| about.created_ms), name.clone()));
        Ok(versions)
    }

    /// What is called as a version would be.
    pub(super) fn names(&self) -> Result<Vec<String>, RegistryError> {
        self.remote.as_ref().map_or_else(|| self.here(), |remote| remote.names())
    }

    /// The same of what lies in the folder.
    fn here(&self) -> Result<Vec<String>, RegistryError> {
        let unread = |e: io::Error| RegistryError::Away(format!("the registry {} cannot be read: {e}", self.folder.display()));
        let listed = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(unread)?.collect::<Result<Vec<_>, _>>().map_err(unread)?,
        };
        let folders = listed.iter().filter(|entry| entry.path().is_dir());
        let names = folders.map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| !name.starts_with('.')).collect()) // a point: one that is being published
    }

    /// What a version says of itself, once every file is found here to be the one that was published: what is missing or damaged of a copy is
    /// fetched.
    pub fn about(&self, version: &str) -> Result<About, RegistryError> {
        match (&self.remote, self.checked(version)) {
            (Some(remote), Err(_)) if name_is_good(version).is_ok() => self.fetched(version, remote),
            (_, checked) => Ok(checked?),
        }
    }

    /// What is here of a version, whole.
    fn checked(&self, version: &str) -> Result<About, LoadError> {
        let (folder, about) = (self.folder.join(version), self.said(version)?);
        let unusable = |reason: String| LoadError { path: self.at(version), reason };
        for (name, wanted) in &about.files {
            let found =
                digest(&folder.join(name)).map_err(|e| unusable(format!("{name} cannot be read: {e}; publish it again")))?;
            if found != *wanted {
                return Err(unusable(format!("{name} is not what was published ({found}, not {wanted}); publish it again")));
            }
        }
        Ok(about)
    }

    /// A version, copied from the store. A copy that is of no use is replaced once the new one is whole.
    fn fetched(&self, version: &str, remote: &Remote) -> Result<About, RegistryError> {
        let failed = |e: io::Error| RegistryError::Away(format!("{version} cannot be kept in {}: {e}", self.folder.display()));
        let unfinished = self.unfinished(version).map_err(failed)?;
        let fetched = remote.fetch(version, &unfinished).and_then(|()| self.place_copy(version, &unfinished).map_err(failed));
        let _left = fs::remove_dir_all(&unfinished);
        fetched?;
        Ok(self.checked(version)?)
    }

    /// Puts a whole copy where copies are looked for, unless somebody else did meanwhile.
    fn place_copy(&self, version: &str, whole: &Path) -> io::Result<()> {
        let place = self.folder.join(version);
        if fs::rename(whole, &place).is_err() && self.checked(version).is_err() {
            let worn = self.unfinished(version)?;
            fs::rename(&place, &worn)?;
            let _left = fs::remove_dir_all(&worn);
            fs::rename(whole, &place)?;
        }
        sync(&self.folder)
    }

    /// A folder for what is not yet a version, nobody else's.
    pub(super) fn unfinished(&self, version: &str) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.folder)?;
        self.sweep()?;
        let drawn = RandomState::new().hash_one(version);
        let folder = self.folder.join(format!(".{version}.{drawn:016x}{UNFINISHED}"));
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// Takes away what processes left that ended over it.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let (entry, now) = (entry?, SystemTime::now());
            let old = entry.metadata().and_then(|of| of.modified()).ok().and_then(|at| now.duration_since(at).ok());
            if entry.file_name().to_string_lossy().ends_with(UNFINISHED) && old.is_some_and(|old| old > LEFT) {
                let _passed_over = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }

    /// Where it is, for messages.
    pub fn place(&self) -> String {
        self.remote.as_ref().map_or_else(|| self.folder.display().to_string(), |remote| remote.url().to_string())
    }

    /// Whether what is written there travels.
    pub fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// The folder on this machine.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a version is, for messages.
    pub(super) fn at(&self, version: &str) -> PathBuf {
        self.remote.as_ref().map_or_else(|| self.folder.join(version), |remote| format!("{}/{version}", remote.url()).into())
    }

    /// What lies beside the versions under this name.
    pub fn beside(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        if let Some(remote) = &self.remote {
            return Ok(remote.beside(name)?.map(Into::into));
        }
        let path = self.folder.join(name);
        match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some).map_err(|e| format!("{} cannot be read: {e}", path.display())),
        }
    }

    /// Puts it there: the whole of it or none, durably.
    pub fn put_beside(&self, name: &str, text: Vec<u8>) -> Result<(), String> {
        if let Some(remote) = &self.remote {
            return remote.put_beside(name, text);
        }
        let (path, unfinished) = (self.folder.join(name), self.folder.join(format!(".{name}.unfinished")));
        let written =
            fs::create_dir_all(&self.folder).and_then(|()| fs::write(&unfinished, text)).and_then(|()| sync(&unfinished));
        let written = written.and_then(|()| fs::rename(&unfinished, &path)).and_then(|()| sync(&self.folder));
        written.map_err(|e| format!("{} cannot be written: {e}", path.display()))
    }

    /// The same where only what is called `instead_of` ranks.
    pub fn replacement(&self, version: &str, instead_of: &str) -> Result<String, RegistryError> {
        let mut order: serde_json::Value = serde_json::from_str(&self.order(version)?).expect("an order is JSON");
        order["instead_of"] = instead_of.into();
        Ok(order.to_string())
    }

    /// The order by which a version ranks from the epoch on that has it, once its files are found to be those that were published;
    /// `blend`: none.
    pub fn order(&self, version: &str) -> Result<String, RegistryError> {
        let order = match version {
            BLEND => serde_json::json!({"op": "model", "version": BLEND}),
            _ => serde_json::json!({"op": "model", "version": version, "digest": self.about(version)?.digest()}),
        };
        Ok(order.to_string())
    }

    /// What is said here of a version.
    fn said(&self, version: &str) -> Result<About, LoadError> {
        let folder = self.folder.join(version);
        let unusable = |reason: String| LoadError { path: self.at(version), reason };
        name_is_good(version).map_err(unusable)?;
        let text = match fs::read(folder.join(ABOUT)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && folder.is_dir() => {
                return Err(unusable(format!(
                    "it is no version, for it lacks {ABOUT}; `overdrive models publish` makes versions"
                )));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(unusable(NONE.to_string()));
            }
            read => read.map_err(|e| unusable(format!("{ABOUT} cannot be read: {e}")))?,
        };
        About::read(&text).map_err(unusable)
    }

    /// Reads a version and proves it, under its own name.
    pub fn load(&self, version: &str, onnx: &Onnx) -> Result<Model, RegistryError> {
        self.about(version)?;
        Ok(Model { name: version.to_string(), ..load(&self.folder.join(version).join(MODEL), onnx)? })
    }

    /// The version that an epoch names by this id. What ranked when this process ended is here, be the rest away.
    pub fn find(&self, id: u64) -> Result<Version, RegistryError> {
        let mut unread = None;
        let mut is = |name: String, about: Result<About, RegistryError>| match about {
            Ok(about) => {
                let digest = u64::from_str_radix(about.digest(), 16).ok()?;
                Some(Ok(Version { name, digest })).filter(|of| of.as_ref().is_ok_and(|version: &Version| version.id() == id))
            }
            Err(RegistryError::Unusable(why)) => {
                unread.get_or_insert(why);
                None
            }
            Err(away) => Some(Err(away)),
        };
        let here = self.here()?.into_iter().find_map(|name| is(name.clone(), self.said(&name).map_err(Into::into)));
        let there = |remote: &Arc<Remote>| match remote.names() {
            Ok(names) => names.into_iter().find_map(|name| is(name.clone(), remote.about(&name))),
            Err(away) => Some(Err(away)),
        };
        let found = here.or_else(|| self.remote.as_ref().and_then(there));
        found.unwrap_or_else(|| {
            let also = unread.map_or_else(String::new, |why| format!("; {why}"));
            let reason = format!("no version in it is the one that the epoch names ({id:016x}){also}");
            Err(LoadError { path: self.place().into(), reason }.into())
        })
    }
}

pub(super) fn golden_name() -> String {
    golden_path(Path::new(MODEL)).to_string_lossy().into_owned()
}

pub(super) fn name_is_good(name: &str) -> Result<(), String> {
    let letter = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > LONGEST || name.starts_with('.') || !name.chars().all(letter) {
        return Err(format!("a name has 1 to {LONGEST} letters, digits, `.`, `_` or `-`, and begins with no point"));
    }
    if name == BLEND { Err(format!("`{BLEND}` names what ranks without a model")) } else { Ok(()) }
}

pub(super) fn digest(path: &Path) -> io::Result<String> {
    Ok(digest_of(&fs::read(path)?))
}

pub(super) fn digest_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_string()
}

/// What a file holds, or a folder lists, outlives a power cut.
pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A version as `make` writes it, of anything.
    fn version(registry: &Registry, name: &str, at: Millis) -> PathBuf {
        let folder = registry.folder.join(name);
        fs::create_dir_all(&folder).expect("there is room");
        let files = [MODEL, "model.golden.json"].map(|file| {
            fs::write(folder.join(file), format!("{name} {file}")).expect("there is room");
            (file.to_string(), digest(&folder.join(file)).expect("it is there"))
        });
        let about = About { model: "lr".into(), created_ms: at, files: files.into(), figures: None };
        fs::write(folder.join(ABOUT), serde_json::to_vec(&about).expect("JSON")).expect("there is room");
        folder
    }

    #[test]
    fn versions_are_listed_by_time_and_what_is_damaged_or_foreign_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let registry = Registry::new(dir.path().join("models"));
        assert_eq!(registry.versions(), Ok(vec![]));
        for (name, at) in [("lr-2", 7), ("lr-1", 8), ("x", 9), ("changed", 1), ("lacking", 2), ("old", 3)] {
            version(&registry, name, at);
        }
        let path = |of: &str| registry.folder.join(of);
        fs::write(path("changed/model.onnx"), "another").expect("there is room");
        fs::remove_file(path("lacking/model.golden.json")).expect("it was there");
        fs::write(path("old/version.json"), "{\"format\":0}").expect("there is room");
        fs::create_dir(path("foreign")).expect("there is room");
        fs::create_dir(path(".lr-9.1.unfinished")).expect("there is room");
        fs::write(path("readme.txt"), "no version").expect("there is room");
        let listed = registry.versions().expect("it can be read");
        let names: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["lr-2", "lr-1", "x", "changed", "foreign", "lacking", "old"]);
        for (name, says) in [
            ("changed", "model.onnx is not what was published"),
            ("lacking", "model.golden.json cannot be read"),
            ("old", "version.json is not as it should be"),
            ("foreign", "lacks version.json; `overdrive models publish`"),
            ("nowhere", "no such version"),
            ("../x", "begins with no point"),
            ("blend", "names what ranks without a model"),
        ] {
            let why = registry.about(name).expect_err("of no use").to_string();
            assert!(why.contains(says) && why.contains("models"), "{says}: {why}");
        }
        assert_eq!(registry.next("lr"), Ok("lr-3".into()));
        let digest = u64::from_str_radix(registry.about("lr-1").expect("sound").digest(), 16).expect("hexadecimal");
        let version = Version { name: "lr-1".into(), digest };
        assert_eq!(registry.find(version.id()), Ok(version));
        assert!(registry.find(0).expect_err("none").to_string().contains("the epoch names (0000000000000000)"));
    }
}
