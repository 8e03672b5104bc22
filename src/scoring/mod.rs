//! How candidates get their scores.

pub mod blend;
