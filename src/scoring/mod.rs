//! How candidates get their scores and their order. Pure functions.

pub mod blend;
pub mod columns;
pub mod diversity;
pub mod factors;
pub mod first;
pub mod learned;
pub mod ln;
pub mod ranker;
pub mod scan;
pub mod shadow;
