//! Towers that training makes: their recipes, and how good they were.

use serde::Deserialize;

/// How two towers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// The mean of what a user took, and a layer.
    TwoTower,
    /// Attention over what a user took, in its order: the latest item asks the others.
    Sequence,
}

impl Recipe {
    pub const ALL: [Self; 2] = [Self::TwoTower, Self::Sequence];

    /// As it is spelt everywhere; the folder of its towers is called so.
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoTower => "twotower",
            Self::Sequence => "sequence",
        }
    }
}

/// How good towers were at finding what users took next, among all items, on examples later than those they were trained on.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Figures {
    pub examples: crate::registry::Examples,
    /// Among so many.
    pub items: u64,
    pub recall_50: Compared,
    pub ndcg_10: Ndcg,
}

/// Of the towers; of what was taken most; of what was taken soon after the same items.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Compared {
    pub model: f64,
    pub popular: f64,
    pub near: f64,
}

/// The same, and how far the towers were ahead of the better of the others in 95 of 100 draws of users.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Ndcg {
    #[serde(flatten)]
    pub of: Compared,
    pub ahead: (f64, f64),
}
