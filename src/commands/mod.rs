//! (being written)

pub mod replay;
