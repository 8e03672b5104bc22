//! How the store stands, and who is active.

use serde::Serialize;
use std::convert::Infallible;
use std::time::Duration;

use super::applied_once;
use crate::shim::access::Who;
use crate::shim::{Refusal, Sizes, State as Shim, now_ms};
use crate::sinks::Applied;

/// Counting walks the whole store.
const COUNTED_FOR: Duration = Duration::from_secs(10);

/// How it stands.
#[derive(Serialize)]
pub struct Stats {
    pub store: &'static str,
    pub epoch: u64,
    pub tick_epoch: u64,
    /// The clock of the epoch.
    pub as_of: i64,
    pub watermark: i64,
    /// How far that clock is behind the time of day.
    pub lag_ms: i64,
    /// Whether the store lost answers that are not all in it again.
    pub rebuilding: bool,
    pub uptime_ms: u64,
    /// By family; `null` where counting them would cost the store a scan.
    pub keys: Option<Sizes>,
    pub recent_users: Vec<String>,
}

/// How the store stands now.
pub async fn stats(shim: &Shim, who: &Who) -> Result<Stats, Refusal> {
    who.about_all()?;
    let applied = shim.reader.applied().await?;
    Ok(Stats {
        store: shim.reader.name(),
        epoch: applied.epoch,
        tick_epoch: applied.tick_epoch,
        as_of: applied.clock_ms,
        watermark: applied.watermark_ms,
        lag_ms: lag_ms(&applied),
        rebuilding: applied.rebuilding,
        uptime_ms: shim.started.elapsed().as_millis() as u64,
        keys: sizes(shim).await,
        recent_users: shim.recent.users(),
    })
}

/// Counted every ten seconds at most, and not on a thread that answers requests.
async fn sizes(shim: &Shim) -> Option<Sizes> {
    let reader = shim.reader.clone();
    let count = async { Ok::<_, Infallible>(tokio::task::spawn_blocking(move || reader.sizes()).await.ok().flatten()) };
    shim.sizes.get(COUNTED_FOR, count).await.unwrap_or_else(|never| match never {})
}

/// How far the clock of what is applied is behind the time of day.
pub fn lag_ms(applied: &Applied) -> i64 {
    if applied_once(applied) { now_ms() - applied.clock_ms } else { 0 }
}
