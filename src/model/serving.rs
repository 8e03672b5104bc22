//! What ranks, as orders on the control topic have it.
//!
//! The facts that must stay true: orders count one after another, in whichever epochs they lie; and what became of them is bound with the
//! epoch, so that whoever reads the epoch again tries nothing anew.

use serde::{Deserialize, Serialize};
use std::fmt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::interaction::ModelOrder;

/// A version in the registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    pub name: String,
    /// The first eight bytes of the BLAKE3 of its model.
    pub digest: u64,
}

/// The name of what ranks without a version.
pub const BLEND: &str = "blend";

impl Version {
    /// What an epoch names it by: another name is another version, though the model be the same, for readers are told the name.
    pub fn id(&self) -> u64 {
        xxh3_64_with_seed(self.name.as_bytes(), self.digest)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:016x})", self.name, self.digest)
    }
}

/// How a ranker is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// Logistic regression on fourteen features.
    Lr,
    /// Boosted trees on all features.
    Lambdarank,
    /// Factorisation machine and neural network on all features.
    Deepfm,
}

impl Recipe {
    pub const ALL: [Recipe; 3] = [Recipe::Lr, Recipe::Lambdarank, Recipe::Deepfm];

    /// As it is spelt everywhere; a model made by it is called so.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lr => "lr",
            Self::Lambdarank => "lambdarank",
            Self::Deepfm => "deepfm",
        }
    }

    /// What is spelt so.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|recipe| recipe.name() == name)
    }
}

/// Which version ranks from an epoch on; `None`: what the settings name, and where they name nothing the blend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serving {
    pub now: Option<Version>,
    /// What ranked before it: where a rollback leads.
    pub before: Option<Version>,
    /// The last epoch with an order that could not be followed.
    pub refused: Option<u64>,
}

/// An order that was not followed, bound with its epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    pub partition: u32,
    pub offset: u64,
    pub reason: String,
}

impl Serving {
    /// What an order asks for; an error where there is nothing to go back to.
    pub fn after(&self, order: &ModelOrder) -> Result<Self, String> {
        let next = match order {
            ModelOrder::Promote(version) => version,
            ModelOrder::Rollback if self.before == self.now => return Err("no other model ranked before this one".to_string()),
            ModelOrder::Rollback => &self.before,
            ModelOrder::Replace(version, instead_of) => {
                let now = self.now.as_ref().map_or(BLEND, |now| now.name.as_str());
                if now != instead_of {
                    return Err(format!("{now} ranks, not {instead_of} any more"));
                }
                version
            }
            ModelOrder::Train(_) => &self.now,
        };
        if *next == self.now {
            return Ok(self.clone());
        }
        Ok(Self { now: next.clone(), before: self.now.clone(), refused: self.refused })
    }

    /// The order of this epoch could not be followed: everything stays.
    pub fn refused(&self, epoch: u64) -> Self {
        Self { refused: Some(epoch), ..self.clone() }
    }

    /// What every worker is told.
    pub fn id(&self) -> Option<u64> {
        self.now.as_ref().map(Version::id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_followed_and_one_step_back_is_known() {
        let version = |name: &str| Version { name: name.into(), digest: 255 };
        let promote = |name: &str| ModelOrder::Promote(Some(version(name)));
        let first = Serving::default();
        assert!(first.after(&ModelOrder::Rollback).expect_err("nothing was before").contains("no other model"));
        let a = first.after(&promote("a")).expect("followed");
        assert_eq!((a.now.clone(), a.before.clone(), a.id()), (Some(version("a")), None, Some(version("a").id())));
        assert_eq!(a.after(&promote("a")), Ok(a.clone()), "it serves");
        let b = a.after(&promote("b")).expect("followed").refused(7);
        assert_eq!((b.now.clone(), b.before.clone(), b.refused), (Some(version("b")), Some(version("a")), Some(7)));
        let back = b.after(&ModelOrder::Rollback).expect("followed");
        assert_eq!((back.now.clone(), back.before.clone()), (Some(version("a")), Some(version("b"))));
        assert_eq!(back.after(&ModelOrder::Rollback), Ok(b.clone()), "and back again");
        assert_eq!(a.after(&ModelOrder::Promote(None)).map(|s| s.id()), Ok(None));
        let replace = |name: &str, of: &str| ModelOrder::Replace(Some(version(name)), of.to_string());
        assert_eq!(first.after(&replace("a", BLEND)), Ok(a.clone()));
        assert_eq!(a.after(&ModelOrder::Replace(None, "a".into())).map(|s| (s.now, s.before)), Ok((None, Some(version("a")))));
        assert!(b.after(&replace("c", "a")).is_err_and(|why| why.contains("b ranks, not a any more")));
        assert_eq!(b.after(&ModelOrder::Train(None)), Ok(b.clone()));
        assert_ne!(version("a").id(), version("b").id(), "the same model under another name");
        assert_eq!(version("a").to_string(), "a (00000000000000ff)");
    }
}
