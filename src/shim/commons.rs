//! What every feed reads and nobody owns: the items withdrawn and what is trending for all. Kept here for at most a second, so
//! that a feed costs one round trip, and so that there still is a feed when the store is away.

use std::collections::HashSet;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::cursor::stamp_of;
use super::feed::Trending;
use super::read::{Reader, Unavailable};
use crate::sinks::layout::Keys;

/// From this age on one reader renews them while the others go on with what there is …
const RIPE: Duration = Duration::from_millis(500);
/// … and at this age everybody waits for new ones.
const OLD: Duration = Duration::from_secs(1);
/// Items withdrawn that are remembered, the latest first.
const MOST_GONE: usize = 100_000;
/// Trending items that are remembered: all that are stored by default.
const MOST_TRENDING: usize = 1_000;

/// Withdrawn and trending, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct Common {
    pub gone: HashSet<String>,
    pub trending: Trending,
}

/// The latest of them.
pub struct Commons {
    latest: RwLock<Option<(Instant, Arc<Common>)>>,
    /// Held by whoever renews.
    renewing: Mutex<()>,
}

impl Commons {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { latest: RwLock::new(None), renewing: Mutex::new(()) }
    }

    /// At most a second old.
    pub async fn get(&self, reader: &dyn Reader, keys: &Keys) -> Result<Arc<Common>, Unavailable> {
        match self.last() {
            Some((at, common)) if at.elapsed() < RIPE => Ok(common),
            Some((at, common)) if at.elapsed() < OLD => match self.renewing.try_lock() {
                Ok(_renewing) => self.renew(reader, keys).await,
                Err(_) => Ok(common),
            },
            _ => self.since(Instant::now(), reader, keys).await,
        }
    }

    /// Read after `moment`: what a reader needs whose own write may be in them.
    pub async fn since(&self, moment: Instant, reader: &dyn Reader, keys: &Keys) -> Result<Arc<Common>, Unavailable> {
        let _renewing = self.renewing.lock().await;
        match self.last() {
            Some((at, common)) if at >= moment => Ok(common),
            _ => self.renew(reader, keys).await,
        }
    }

    /// The last ones read, however old: better than nothing while the store is away.
    pub fn stored(&self) -> Option<Arc<Common>> {
        self.last().map(|(_, common)| common)
    }

    fn last(&self) -> Option<(Instant, Arc<Common>)> {
        self.latest.read().expect("no panic under the lock").clone()
    }

    async fn renew(&self, reader: &dyn Reader, keys: &Keys) -> Result<Arc<Common>, Unavailable> {
        let at = Instant::now();
        let applied = reader.applied().await?;
        let (gone, trending) = (keys.gone(), keys.trending(None));
        let gone = reader.ranked(&gone, MOST_GONE).await?.into_iter().map(|(item, _)| item).collect();
        let items = scores(reader.ranked(&trending, MOST_TRENDING).await?);
        let stamp = stamp_of(items.iter().map(|(item, _)| item.as_str()));
        let trending = Trending { items, as_of: applied.clock_ms, epoch: applied.tick_epoch, stamp };
        let common = Arc::new(Common { gone, trending });
        *self.latest.write().expect("no panic under the lock") = Some((at, common.clone()));
        Ok(common)
    }
}

/// Trending is stored in thousandths.
pub fn scores(mut members: Vec<(String, f64)>) -> Vec<(String, f64)> {
    members.iter_mut().for_each(|(_, score)| *score /= 1000.0);
    members
}
