//! How candidates get their scores and their order. Pure functions.

pub mod blend;
pub mod diversity;
pub mod learned;
pub mod ln;
