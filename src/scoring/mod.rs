//! How candidates get their scores and their order. Pure functions.

pub mod affinity;
pub mod alike;
pub mod at_hand;
pub mod blend;
pub mod bootstrap;
pub mod cohorts;
pub mod columns;
pub mod diversity;
pub mod experiments;
pub mod factors;
pub mod falling;
pub mod first;
pub mod flags;
pub mod intervals;
pub mod learned;
pub mod ln;
pub mod quality;
pub mod rank;
pub mod ranker;
pub mod scan;
pub mod shadow;
pub mod terms;
pub mod towers;
