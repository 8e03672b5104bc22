//! Models on disk: what a file must say of itself and prove before it scores anything.
//!
//! A model is an ONNX file and, beside it, rows with the scores it must give: `ranker.onnx` and `ranker.golden.json`. It takes one tensor
//! `features` of 32-bit floats, a row for each candidate, and gives one `score` for each. Its metadata name the columns it takes
//! (`overdrive.features`), what those names mean (`overdrive.schema`) and what its score is (`overdrive.score`: `margin` or
//! `probability`).
//!
//! The fact that must stay true: a model that was loaded has shown, on the machine it runs on, that it gives the scores it was
//! shipped with.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

use crate::scoring::columns;
use crate::scoring::ranker::Kind;
use crate::scoring::towers::Towers;

#[cfg(feature = "onnx")]
mod onnx;
mod publish;
mod remote;
#[cfg(feature = "onnx")]
pub mod runtime;
mod shelf;
pub mod towers;
#[cfg(feature = "onnx")]
mod towers_onnx;
mod versions;

pub use remote::Remote;
pub use shelf::Shelf;
pub use versions::{ADDRESSES, About, Examples, Figures, Registry, is_address};

/// Why a model is not used: which file, what is wrong with it, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model {path} cannot be used: {reason}")]
pub struct LoadError {
    pub path: PathBuf,
    pub reason: String,
}

/// Why a registry or a version of it is not at hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The store or a disk cannot be read or written now: another try may help.
    #[error("{0}")]
    Away(String),
    /// Somebody must change something.
    #[error(transparent)]
    Unusable(#[from] LoadError),
}

/// `[onnx]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Onnx {
    pub library: String,
    pub device: Device,
}

impl Onnx {
    /// The library that `ORT_DYLIB_PATH` names, on the CPU.
    pub fn on_cpu() -> Self {
        Self { library: String::new(), device: Device::Cpu }
    }
}

/// What models run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// The GPU where ONNX Runtime can use one, else the CPU.
    Auto,
    Cpu,
    /// The GPU, or nothing.
    Cuda,
}

impl Device {
    /// As it is spelt in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

/// What a model says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The columns it takes, in its order.
    pub columns: Vec<usize>,
    pub kind: Kind,
}

/// Rows, of the columns the model takes, and the scores it gives them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    pub rows: Vec<Vec<f32>>,
    pub scores: Vec<f32>,
}

/// How far a score may lie from the golden one, as a share of the greater of it and 1.
const TOLERANCE: f32 = 1e-4;

/// Reads a model, with ONNX Runtime as the settings have it.
#[cfg(feature = "onnx")]
pub fn load(path: &Path, onnx: &Onnx) -> Result<crate::scoring::ranker::Model, LoadError> {
    self::onnx::load(path, onnx).map_err(|reason| LoadError { path: path.to_path_buf(), reason })
}

/// What the models of this process run on, and why not on a GPU where one was looked for; `None`: none was opened yet.
pub fn runs_on() -> Option<(Device, Option<String>)> {
    #[cfg(feature = "onnx")]
    return runtime::runs_on();
    #[cfg(not(feature = "onnx"))]
    return None;
}

/// This build runs no models.
#[cfg(not(feature = "onnx"))]
pub fn load(path: &Path, _: &Onnx) -> Result<crate::scoring::ranker::Model, LoadError> {
    let reason = "this build has no ONNX Runtime; build with the feature `onnx`, or leave ranker.model empty".to_string();
    Err(LoadError { path: path.to_path_buf(), reason })
}

/// Reads two towers, with ONNX Runtime as the settings have it.
#[cfg(feature = "onnx")]
pub fn load_towers(folder: &Path, onnx: &Onnx) -> Result<Towers, LoadError> {
    towers_onnx::load(folder, onnx).map_err(|reason| LoadError { path: folder.to_path_buf(), reason })
}

/// This build runs no models.
#[cfg(not(feature = "onnx"))]
pub fn load_towers(folder: &Path, _: &Onnx) -> Result<Towers, LoadError> {
    let reason = "this build has no ONNX Runtime; build with the feature `onnx`, or leave towers.model empty".to_string();
    Err(LoadError { path: folder.to_path_buf(), reason })
}

/// The file with the golden rows of a model.
pub fn golden_path(model: &Path) -> PathBuf {
    model.with_extension("golden.json")
}

impl Card {
    /// From the metadata, asked for by key.
    pub fn read(metadata: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let get = |key: &str| metadata(key).ok_or(format!("its metadata lack `{key}`; export it as training/ does"));
        let schema = get("overdrive.schema")?;
        if schema != columns::SCHEMA {
            let known = columns::SCHEMA;
            return Err(format!("it was trained on schema {schema} of the features, this program has {known}; train it again"));
        }
        let kind = match get("overdrive.score")?.as_str() {
            "margin" => Kind::Margin,
            "probability" => Kind::Probability,
            other => return Err(format!("its `overdrive.score` is `{other}`; it must be margin or probability")),
        };
        let names = get("overdrive.features")?;
        let find = |name: &str| {
            columns::find(name).ok_or(format!("it takes `{name}`, which is no feature here; schemas/features.md lists them"))
        };
        Ok(Self { columns: names.split(',').map(str::trim).map(find).collect::<Result<_, _>>()?, kind })
    }
}

impl Golden {
    /// Of the file beside a model.
    pub fn read(model: &Path) -> Result<Self, String> {
        let path = golden_path(model);
        let text = std::fs::read(&path).map_err(|e| format!("its golden rows, {}, cannot be read: {e}", path.display()))?;
        serde_json::from_slice(&text).map_err(|e| format!("its golden rows, {}, are not as they should be: {e}", path.display()))
    }

    /// Whether there is something to compare, and of this many columns.
    pub fn check(&self, width: usize) -> Result<(), String> {
        if self.rows.is_empty() || self.rows.len() != self.scores.len() {
            return Err(format!("its golden file has {} rows and {} scores", self.rows.len(), self.scores.len()));
        }
        match self.rows.iter().position(|row| row.len() != width) {
            Some(at) => Err(format!("golden row {at} has {} numbers, the model takes {width}", self.rows[at].len())),
            None => Ok(()),
        }
    }

    /// Whether these are the scores the rows must get.
    pub fn agrees(&self, scores: &[f32]) -> Result<(), String> {
        if scores.len() != self.scores.len() {
            return Err(format!("it gave {} scores to {} golden rows", scores.len(), self.scores.len()));
        }
        let far = |(wanted, got): (&f32, &f32)| got.is_nan() || (wanted - got).abs() > TOLERANCE * wanted.abs().max(1.0);
        match self.scores.iter().zip(scores).position(far) {
            Some(at) => Err(format!("golden row {at} gets {} here, it must get {}", scores[at], self.scores[at])),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(lacks: &str, changed: (&str, &str)) -> Result<Card, String> {
        let said = [("overdrive.schema", "1"), ("overdrive.score", "margin"), ("overdrive.features", "pop_3h, blend")];
        Card::read(|key| {
            let value = said.iter().find(|(known, _)| *known == key && key != lacks).map(|(_, value)| *value);
            value.map(|value| if key == changed.0 { changed.1 } else { value }.to_string())
        })
    }

    #[test]
    fn what_a_model_says_of_itself_is_read_or_the_fault_is_named() {
        let good = card("", ("", "")).expect("it says all");
        assert_eq!((good.columns, good.kind), (vec![2, columns::BLEND], Kind::Margin));
        assert_eq!(card("", ("overdrive.score", "probability")).map(|card| card.kind), Ok(Kind::Probability));
        for (lacks, changed, says) in [
            ("overdrive.schema", ("", ""), "`overdrive.schema`"),
            ("overdrive.score", ("", ""), "`overdrive.score`"),
            ("overdrive.features", ("", ""), "`overdrive.features`"),
            ("", ("overdrive.schema", "2"), "schema 2"),
            ("", ("overdrive.score", "stars"), "`stars`"),
            ("", ("overdrive.features", "pop_3h,colour"), "`colour`"),
        ] {
            assert!(card(lacks, changed).is_err_and(|why| why.contains(says)), "{says}");
        }
    }

    #[test]
    fn golden_rows_must_be_there_fit_and_agree() {
        let golden = Golden { rows: vec![vec![1.0, 2.0], vec![3.0, 4.0]], scores: vec![0.5, 200.0] };
        assert_eq!(golden.check(2), Ok(()));
        assert_eq!(golden.agrees(&[0.500_05, 200.01]), Ok(()));
        for (wrong, says) in [(vec![0.5, 200.1], "golden row 1"), (vec![f32::NAN, 200.0], "row 0"), (vec![0.5], "1 scores")] {
            assert!(golden.agrees(&wrong).is_err_and(|why| why.contains(says)), "{says}");
        }
        assert!(golden.check(3).is_err_and(|why| why.contains("row 0 has 2 numbers, the model takes 3")));
        assert!(Golden { rows: vec![], scores: vec![] }.check(3).is_err_and(|why| why.contains("0 rows")));
        let dir = tempfile::tempdir().expect("a folder");
        let model = dir.path().join("m.onnx");
        assert!(Golden::read(&model).is_err_and(|why| why.contains("m.golden.json")));
        std::fs::write(golden_path(&model), "{\"rows\":1}").expect("room");
        assert!(Golden::read(&model).is_err_and(|why| why.contains("not as they should be")));
    }
}
