//! What the content of items says to one user at one moment: what is likest to the items they took lately, and how alike any item is to
//! these.
//!
//! The fact that must stay true: everything here follows from the shelf and from the history, not from what was asked before.

use rustc_hash::FxHashMap;

use super::ContentParams;
use super::profiles::{History, Recent};
use crate::model::slate::{Reason, Source};
use crate::model::{ItemId, Kind};
use crate::scoring::alike::{Likeness, Near, Shelf};
use crate::scoring::columns;

/// How much an item further back in the history counts where the likest are chosen.
const RECENCY: f64 = 0.9;

/// How alike an item is to the likest of what a user took, and which that is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Like {
    /// 0 to 1.
    pub likeness: f64,
    pub kind: Kind,
    pub item: ItemId,
}

impl Like {
    /// What a slate says of it.
    pub fn because(&self) -> (Source, Reason) {
        (Source::Content, Reason::Because { kind: self.kind, item: self.item })
    }
}

/// One user's.
pub struct Alike<'a> {
    shelf: &'a Shelf,
    /// What they took lately whose content is known, the latest first, each with its place on the shelf.
    recent: Vec<(Recent, u32)>,
    best: Vec<ItemId>,
}

impl<'a> Alike<'a> {
    /// Of who has this history.
    pub fn new(shelf: &'a mut Shelf, history: &History, params: &ContentParams) -> Self {
        let latest = history.latest.iter().take(params.from);
        let recent: Vec<_> = latest.filter_map(|of| Some((*of, shelf.place(of.item)?))).collect();
        let mut worth: FxHashMap<ItemId, i64> = FxHashMap::default();
        let mut fade = 1.0;
        for (from, _) in &recent {
            for Near { item, likeness } in shelf.nearest(from.item) {
                let here = (f64::from(*likeness) * fade) as i64;
                worth.entry(*item).and_modify(|worth| *worth = here.max(*worth)).or_insert(here);
            }
            fade *= RECENCY;
        }
        let mut best: Vec<(i64, ItemId)> = worth.into_iter().map(|(item, worth)| (-worth, item)).collect();
        best.sort_unstable();
        Self { shelf, recent, best: best.into_iter().map(|(_, item)| item).collect() }
    }

    /// What is likest to what they took, the likest first.
    pub fn best(&self) -> &[ItemId] {
        &self.best
    }

    /// How alike an item is to each of them but itself.
    fn each(&self, item: ItemId) -> impl Iterator<Item = (Likeness, Recent)> {
        let place = self.shelf.place(item);
        let others = self.recent.iter().filter(move |(recent, _)| recent.item != item);
        others.map(move |(recent, at)| (place.map_or(0, |place| self.shelf.likeness(place, *at)), *recent))
    }

    /// Which of what they took an item is likest to; of equals the latest.
    pub fn to(&self, item: ItemId) -> Option<Like> {
        let likest = self.each(item).reduce(|likest, other| if other.0 > likest.0 { other } else { likest });
        let (likeness, Recent { kind, item, .. }) = likest.filter(|(likeness, _)| *likeness > 0)?;
        Some(Like { likeness: f64::from(likeness) / 1e6, kind, item })
    }

    /// The columns of an item.
    pub fn columns(&self, item: ItemId) -> columns::Alike {
        let (mut most, mut sum, mut count) = (0, 0i64, 0);
        for (likeness, _) in self.each(item) {
            (most, sum, count) = (most.max(likeness), sum + i64::from(likeness), count + 1);
        }
        [(f64::from(most) / 1e6) as f32, (sum as f64 / 1e6 / f64::from(count.max(1))) as f32]
    }
}
