//! (being written)

pub mod generate;
pub mod replay;
