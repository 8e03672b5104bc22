//! What is asked of the shim, whatever it is asked in: each query checks, reads and answers in one place, and `http` and `grpc` only
//! take requests apart and put answers together.

use axum::http::StatusCode;

use super::{Refusal, State};
use crate::sinks::Applied;

pub mod about;
pub mod asked;
pub mod candidates;
pub mod experiments;
pub mod feeds;
pub mod hometown;
pub mod ingest;
pub mod models;
pub mod pair;
pub mod rank;
pub mod stats;
pub mod views;

/// The epoch that is applied; refuses while there is none, or no store.
pub async fn ready(shim: &State) -> Result<u64, Refusal> {
    let applied = shim.reader.applied().await?;
    if !applied_once(&applied) {
        let message = "no epoch is applied yet; start the engine, or wait for it";
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", message));
    }
    Ok(applied.epoch)
}

/// An epoch has a clock; the mark of an empty store has none.
pub fn applied_once(applied: &Applied) -> bool {
    applied.clock_ms != 0 || applied.epoch != 0
}
