//! How training stands: a file beside the versions, for whoever reads the registry.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use crate::model::serving::Recipe;
use crate::model::time::Millis;
use crate::registry::{Figures, Registry};

/// Its name beside the versions.
const FILE: &str = "training.json";

/// What is done now, what came of the last time, and when the next is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Status {
    /// Asked for, and not yet ended.
    pub asked: BTreeSet<Recipe>,
    pub running: Option<Doing>,
    /// How often what runs was begun: it may end with its process.
    pub tries: u32,
    pub last: Option<Attempt>,
    /// When training last began: the next is counted from there.
    pub began_ms: Option<Millis>,
    pub next_ms: Option<Millis>,
    pub promoted: Option<Promoted>,
    /// What is to be taken back, until it is.
    pub taking_back: Option<TakenBack>,
    pub taken_back: Option<TakenBack>,
}

/// The version that was last ordered to rank from here, and the clock from which it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promoted {
    pub version: String,
    pub since_ms: Option<Millis>,
}

/// A version that ranked and turned out worse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakenBack {
    pub version: String,
    pub why: String,
}

/// Training that is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Doing {
    pub model: Recipe,
    pub began_ms: Millis,
    /// From 0 to 1.
    pub done: f64,
    pub what: String,
}

/// Training that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    pub model: Recipe,
    pub began_ms: Millis,
    pub ended_ms: Millis,
    /// What it was published as; `None`: it failed.
    pub version: Option<String>,
    pub figures: Option<Figures>,
    /// Whether it was ordered to rank.
    pub promoted: bool,
    /// Why it failed or was not promoted, or what it was better than.
    pub why: String,
}

impl Status {
    /// As it was last written; nothing where nothing was.
    pub fn read(registry: &Registry) -> Result<Self, String> {
        let Some(text) = registry.beside(FILE)? else { return Ok(Self::default()) };
        Self::parse(&text).map_err(|e| format!("{}/{FILE} is not as it should be: {e}; delete it", registry.place()))
    }

    /// The same; what is damaged is put aside, and it begins anew. What cannot be read now is not touched.
    pub fn read_or_begin(registry: &Registry) -> Result<Self, String> {
        let Some(text) = registry.beside(FILE)? else { return Ok(Self::default()) };
        Ok(Self::parse(&text).unwrap_or_else(|why| {
            let aside = format!("{FILE}.damaged");
            let kept = registry.put_beside(&aside, text).and_then(|()| Self::default().write(registry)).is_ok();
            tracing::warn!(%why, kept, aside, "how training stood is not known; it begins anew");
            Self::default()
        }))
    }

    fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// The whole of it or none, durably.
    pub fn write(&self, registry: &Registry) -> Result<(), String> {
        registry.put_beside(FILE, serde_json::to_vec_pretty(self).expect("texts and numbers are JSON"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_it_was_written_and_damage_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("models");
        let registry = Registry::new(&folder);
        assert_eq!(Status::read(&registry), Ok(Status::default()));
        let attempt = Attempt {
            model: Recipe::Lr,
            began_ms: 1,
            ended_ms: 2,
            version: None,
            figures: None,
            promoted: false,
            why: "no Python".into(),
        };
        let status = Status { asked: [Recipe::Lambdarank].into(), last: Some(attempt), next_ms: Some(7), ..Status::default() };
        status.write(&registry).expect("there is room");
        assert_eq!(Status::read(&registry), Ok(status));
        std::fs::write(folder.join(FILE), "{").expect("there is room");
        assert!(Status::read(&registry).is_err_and(|why| why.contains("training.json") && why.contains("delete it")));
        assert_eq!((Status::read_or_begin(&registry), Status::read(&registry)), (Ok(Status::default()), Ok(Status::default())));
        assert_eq!(std::fs::read(folder.join("training.json.damaged")).expect("it is kept"), b"{");
        std::fs::remove_file(folder.join(FILE)).and_then(|()| std::fs::create_dir(folder.join(FILE))).expect("there is room");
        assert!(
            Status::read_or_begin(&registry).is_err_and(|why| why.contains("cannot be read")),
            "it is not known what it says"
        );
    }
}
