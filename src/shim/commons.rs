//! What every feed reads and nobody owns: the items withdrawn, and the shelves for all. Kept here for at most a second, so that a
//! feed costs one round trip, and so that there still is a feed when the store is away.

use std::collections::HashSet;
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::cursor::stamp_of;
use super::feed::Shelf;
use super::read::{Reader, Unavailable};
use crate::model::Source;
use crate::sinks::Applied;
use crate::sinks::layout::{Keys, Segment};

/// From this age on one reader renews them while the others go on with what there is …
const RIPE: Duration = Duration::from_millis(500);
/// … and at this age everybody waits for new ones.
const OLD: Duration = Duration::from_secs(1);
/// Items withdrawn that are remembered, the latest first.
const MOST_GONE: usize = 100_000;
/// Items of a shelf that are remembered: more than a chain of pages can show.
const MOST_SHELVED: usize = 1_000;

/// Withdrawn items and shelves, as of one moment.
#[derive(Clone, Debug)]
pub struct Common {
    pub gone: HashSet<String>,
    /// Trending, popular, fresh.
    pub shelves: [Shelf; 3],
}

/// The latest of them.
pub struct Commons {
    latest: RwLock<Option<(Instant, Arc<Common>)>>,
    /// Held by whoever renews; when the store did not answer the last who did, and what it said.
    renewing: Mutex<Option<(Instant, Unavailable)>>,
}

impl Commons {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { latest: RwLock::new(None), renewing: Mutex::default() }
    }

    /// At most a second old.
    pub async fn get(&self, reader: &dyn Reader, keys: &Keys) -> Result<Arc<Common>, Unavailable> {
        match self.last() {
            Some((at, common)) if at.elapsed() < RIPE => Ok(common),
            Some((at, common)) if at.elapsed() < OLD => match self.renewing.try_lock() {
                Ok(mut failed) => self.renew(&mut failed, reader, keys).await,
                Err(_) => Ok(common),
            },
            _ => self.since(Instant::now(), reader, keys).await,
        }
    }

    /// Read after `moment`: what a reader needs whose own write may be in them. Who waited for another's try that failed does not try again.
    pub async fn since(&self, moment: Instant, reader: &dyn Reader, keys: &Keys) -> Result<Arc<Common>, Unavailable> {
        let mut failed = self.renewing.lock().await;
        match (self.last(), &*failed) {
            (Some((at, common)), _) if at >= moment => Ok(common),
            (_, Some((at, away))) if *at >= moment => Err(away.clone()),
            _ => self.renew(&mut failed, reader, keys).await,
        }
    }

    /// The last ones read, however old: better than nothing while the store is away.
    pub fn stored(&self) -> Option<Arc<Common>> {
        self.last().map(|(_, common)| common)
    }

    fn last(&self) -> Option<(Instant, Arc<Common>)> {
        self.latest.read().expect("no panic under the lock").clone()
    }

    async fn renew(
        &self,
        failed: &mut Option<(Instant, Unavailable)>,
        reader: &dyn Reader,
        keys: &Keys,
    ) -> Result<Arc<Common>, Unavailable> {
        let read = self.read(reader, keys).await;
        *failed = read.as_ref().err().map(|away| (Instant::now(), away.clone()));
        read
    }

    async fn read(&self, reader: &dyn Reader, keys: &Keys) -> Result<Arc<Common>, Unavailable> {
        let at = Instant::now();
        let applied = reader.applied().await?;
        let gone = reader.ranked(&keys.gone(), MOST_GONE).await?.into_iter().map(|(item, _)| item).collect();
        let shelves = [
            trending(Segment::All, reader, keys, &applied).await?,
            shelf(Source::Popular, &keys.popular(), reader, &applied).await?,
            shelf(Source::Fresh, &keys.fresh(), reader, &applied).await?,
        ];
        let common = Arc::new(Common { gone, shelves });
        *self.latest.write().expect("no panic under the lock") = Some((at, common.clone()));
        Ok(common)
    }
}

/// What is trending in a segment, under a mark read before.
pub async fn trending(segment: Segment<'_>, reader: &dyn Reader, keys: &Keys, applied: &Applied) -> Result<Shelf, Unavailable> {
    let mut shelves = trends(&[segment], reader, keys, applied).await?;
    Ok(shelves.pop().expect("one was asked for"))
}

/// The same of several segments, in their order, in one round trip.
pub async fn trends(
    segments: &[Segment<'_>],
    reader: &dyn Reader,
    keys: &Keys,
    applied: &Applied,
) -> Result<Vec<Shelf>, Unavailable> {
    let lists: Vec<String> = segments.iter().map(|segment| keys.trending(*segment)).collect();
    let lists = reader.several(&lists, MOST_SHELVED).await?;
    let shelf = |(segment, items): (&Segment<'_>, _)| {
        let subject = match segment {
            Segment::All => String::new(),
            Segment::Category(name) | Segment::Language(name) => name.to_string(),
            Segment::Cell(_) => "your region".to_string(),
        };
        Shelf { subject, ..shelf_of(Source::Trending, scaled(items, TRENDING_SCALE), applied) }
    };
    Ok(segments.iter().zip(lists).map(shelf).collect())
}

async fn shelf(source: Source, key: &str, reader: &dyn Reader, applied: &Applied) -> Result<Shelf, Unavailable> {
    Ok(shelf_of(source, reader.ranked(key, MOST_SHELVED).await?, applied))
}

fn shelf_of(source: Source, items: Vec<(String, f64)>, applied: &Applied) -> Shelf {
    let stamp = stamp_of(items.iter().map(|(item, _)| item.as_str()));
    Shelf { source, subject: String::new(), items, as_of: applied.clock_ms, epoch: applied.tick_epoch, stamp }
}

/// Trending is stored in thousandths.
pub const TRENDING_SCALE: f64 = 1_000.0;

/// Scores in the unit they are answered in.
pub fn scaled(mut members: Vec<(String, f64)>, scale: f64) -> Vec<(String, f64)> {
    members.iter_mut().for_each(|(_, score)| *score /= scale);
    members
}
