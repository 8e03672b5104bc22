//! What two towers say to one user at one moment: the items they would be likest to take, and how much speaks for any item.
//!
//! ```text
//! latest items ─▶ their vectors ─▶ user tower ─▶ the user's vector ─▶ exact scan over the vectors of all items ─▶ the best
//! ```
//!
//! The fact that must stay true: everything here follows from the board, the history and the towers, so it is the same on every worker and no
//! state.

use rustc_hash::{FxBuildHasher, FxHashSet};

use super::Params;
use super::board::{Board, Post};
use super::profiles::{Profile, Recent};
use crate::model::ItemId;
use crate::model::slate::{Reason, Source};
use crate::scoring::factors::Vector;
use crate::scoring::towers::{HISTORY, Shelf, Towers};

/// So many more than are wanted are looked for, for some of them may not be shown.
const SPARE: usize = 32;

/// The vectors of all items of a worker's board.
pub struct Vectors {
    shelf: Shelf,
    /// Candidates under the fixed weights.
    kept: usize,
    /// So many are looked for.
    most: usize,
    /// Of what the board was told something new that may change its vector; `None`: nothing was looked at yet.
    changed: Option<FxHashSet<ItemId>>,
}

impl Vectors {
    /// Of the settings, where they name towers.
    pub fn of(params: &Params) -> Option<Self> {
        let most = params.towers.kept.max(if params.learn.enabled { params.learn.per_source } else { 0 });
        let new =
            |towers: &Towers| Self { shelf: Shelf::new(towers), kept: params.towers.kept, most: most + SPARE, changed: None };
        params.towers.loaded.as_ref().map(new)
    }

    /// The board is about to be told this.
    pub fn note(&mut self, post: &Post) {
        let changed = match post {
            Post::Item(item, _) => Some(*item),
            Post::Warmth(item, warmth) => Some(*item).filter(|item| warmth.is_some() != self.shelf.has(*item)),
            Post::Neighbours(item, users, _) => Some(*item).filter(|item| (*users > 0) != self.shelf.has(*item)),
            Post::List(_) => None,
        };
        self.changed.iter_mut().for_each(|all| all.extend(changed));
    }

    /// Makes the vectors of what changed, of everything at first: after a start the board may hold what nobody was told of.
    pub fn settle(&mut self, board: &Board) {
        let none = FxHashSet::with_hasher(FxBuildHasher);
        match self.changed.replace(none) {
            Some(changed) => changed.into_iter().for_each(|item| self.put(item, board)),
            None => board.known().collect::<Vec<_>>().into_iter().for_each(|item| self.put(item, board)),
        }
    }

    fn put(&mut self, item: ItemId, board: &Board) {
        let card = board.item(item);
        if card.is_empty() {
            return self.shelf.take_away(item);
        }
        self.shelf.put(item, &card.tokens, card.gate.is_none_or(|gate| gate.available));
    }

    /// What they say to a user.
    pub fn ask(&mut self, profile: &Profile) -> Option<Found<'_>> {
        let latest = profile.history(HISTORY).latest;
        let user = self.shelf.user(latest.iter().map(|recent| recent.item))?;
        let seen: Vec<ItemId> = profile.seen().into_iter().map(|(item, _)| item).collect();
        let best = self.shelf.best(&user, &seen, self.most);
        Some(Found { shelf: &self.shelf, kept: self.kept, latest, user, best })
    }

    /// How many calls of a tower gave nothing since this was last asked, and why the last one did not.
    pub fn failures(&mut self) -> (u64, Option<String>) {
        self.shelf.failures()
    }
}

/// One user's.
pub struct Found<'a> {
    shelf: &'a Shelf,
    pub kept: usize,
    /// What they took, the latest first.
    latest: Vec<Recent>,
    user: Vector,
    best: Vec<ItemId>,
}

impl Found<'_> {
    /// What speaks most for them, best first, with some to spare: not all of it may be shown.
    pub fn best(&self) -> &[ItemId] {
        &self.best
    }

    /// How much speaks for an item.
    pub fn says(&self, item: ItemId) -> f32 {
        self.shelf.vector(item).map_or(0.0, |vector| self.user.dot(vector))
    }

    /// What a slate says of an item: to which of what they took it is nearest, as far as it is near to any; of equals the latest.
    pub fn because(&self, item: ItemId) -> Option<(Source, Reason)> {
        let vector = self.shelf.vector(item)?;
        let others = self.latest.iter().filter(|recent| recent.item != item);
        let near = others.filter_map(|recent| Some((self.shelf.vector(recent.item)?.dot(vector), recent)));
        let nearest = near.reduce(|nearest, other| if other.0 > nearest.0 { other } else { nearest });
        nearest
            .filter(|(cosine, _)| *cosine > 0.0)
            .map(|(_, Recent { kind, item, .. })| (Source::Towers, Reason::Because { kind: *kind, item: *item }))
    }
}
