//! A model becomes a version: proven, whole, and under a name that nothing had.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::versions::{ABOUT, About, Figures, MODEL, digest, name_is_good, sync};
use super::{Onnx, Registry, golden_path, load};
use crate::model::time::Millis;
use crate::scoring::ranker::Model;

/// What the training of a model says of it, beside it; a model may come without.
const REPORTS: [&str; 2] = ["report.json", "report.html"];

impl Registry {
    /// Proves the model in a file and makes a version of it, its golden rows and its report; yields its name. Without a name it gets that
    /// of the file and the next number.
    pub fn publish(&self, model: &Path, version: Option<&str>, at: Millis, onnx: &Onnx) -> Result<String, String> {
        let proven = load(model, onnx).map_err(|e| e.to_string())?;
        let version = version.map_or_else(|| self.next(&proven.name), |name| Ok(name.to_string()))?;
        name_is_good(&version).map_err(|reason| format!("`{version}` cannot be the name of a version: {reason}"))?;
        let place = self.folder.join(&version);
        if place.exists() {
            return Err(format!("{} is there, and versions are never changed; give another name", self.at(&version).display()));
        }
        let failed = |e: io::Error| format!("{} cannot be published: {e}", place.display());
        let unfinished = self.unfinished(&version).map_err(failed)?;
        let made = self.make(&unfinished, model, &proven, at).and_then(|about| self.told(&version, &unfinished, &place, &about));
        let _left = fs::remove_dir_all(&unfinished); // what stays is passed over
        made.map(|()| version)
    }

    /// Makes a version of what lies in a folder.
    fn told(&self, version: &str, unfinished: &Path, place: &Path, about: &About) -> Result<(), String> {
        let kept = || fs::rename(unfinished, place).and_then(|()| sync(&self.folder));
        let Some(remote) = &self.remote else {
            return kept().map_err(|e| format!("{} cannot be published: {e}", place.display()));
        };
        remote.publish(version, unfinished, about)?;
        if let Err(error) = kept() {
            tracing::warn!(version, %error, "what was published is not kept here; it is fetched when it is needed");
        }
        Ok(())
    }

    /// All files of a version, durably.
    fn make(&self, folder: &Path, model: &Path, proven: &Model, at: Millis) -> Result<About, String> {
        let failed = |path: &Path, e: io::Error| format!("{} cannot be published: {e}", path.display());
        let reports = REPORTS.map(|end| (model.with_extension(end), Path::new(MODEL).with_extension(end)));
        let parts = [(model.to_path_buf(), PathBuf::from(MODEL)), (golden_path(model), golden_path(Path::new(MODEL)))];
        let mut files = BTreeMap::new();
        for (from, name) in parts.into_iter().chain(reports.into_iter().filter(|(from, _)| from.exists())) {
            let to = folder.join(&name);
            fs::copy(&from, &to).and_then(|_| sync(&to)).map_err(|e| failed(&from, e))?;
            files.insert(name.to_string_lossy().into_owned(), digest(&to).map_err(|e| failed(&to, e))?);
        }
        if files.get(MODEL) != Some(&proven.digest) {
            return Err(format!("{} changed while it was published; publish it again", model.display()));
        }
        let report = model.with_extension(REPORTS[0]);
        let about = About { model: proven.name.clone(), created_ms: at, files, figures: figures(&report)? };
        let (text, path) = (serde_json::to_vec_pretty(&about).expect("texts and numbers are JSON"), folder.join(ABOUT));
        fs::write(&path, text).and_then(|()| sync(&path)).and_then(|()| sync(folder)).map_err(|e| failed(&path, e))?;
        Ok(about)
    }

    /// The name of a model with the next number.
    pub(super) fn next(&self, model: &str) -> Result<String, String> {
        let number = |name: &str| name.strip_prefix(model)?.strip_prefix('-')?.parse::<u64>().ok();
        let names = self.names().map_err(|e| e.to_string())?;
        let greatest = names.iter().filter_map(|name| number(name)).max().unwrap_or(0);
        Ok(format!("{model}-{}", greatest + 1))
    }
}

fn figures(report: &Path) -> Result<Option<Figures>, String> {
    let text = match fs::read(report) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|e| format!("{} cannot be read: {e}", report.display()))?,
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| format!("{} is no report of `overdrive train`: {e}", report.display()))
}
