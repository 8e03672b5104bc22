//! What a refresh knows of a user: what they touched, what they like, what they do not want to see.

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::ledger::{Touch, UserDelta};
use crate::model::catalogue::{Gate, User, city};
use crate::model::changes::Interests;
use crate::model::time::Millis;
use crate::model::{ItemId, Kind, TokenId};
use crate::scoring::at_hand::Asker;
use crate::scoring::first::first;

/// One user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Profile {
    touches: FxHashMap<ItemId, Touch>,
    /// Authors the user turned away by muting or blocking, with how many items they did it on.
    against: FxHashMap<TokenId, u32>,
    pub interests: Option<Arc<Interests>>,
    pub said: Option<Arc<User>>,
}

/// An item of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recent {
    pub item: ItemId,
    pub kind: Kind,
    pub at: Millis,
}

/// What a user took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The latest first, as far as they are looked at.
    pub latest: Vec<Recent>,
    /// How many items it was in all.
    pub taken: usize,
}

/// What changed in what must not be shown again: an item with the time of the last interaction, or `None` when it may be shown.
pub type SeenChange = (ItemId, Option<Millis>);

impl Profile {
    /// Takes what the ledger let out.
    pub fn take(&mut self, delta: &UserDelta) -> Vec<SeenChange> {
        if let Some(said) = &delta.profile {
            self.said = said.clone();
        }
        delta.touches.iter().filter_map(|(item, touch)| self.touch(*item, *touch)).collect()
    }

    fn touch(&mut self, item: ItemId, touch: Option<Touch>) -> Option<SeenChange> {
        let before = match touch {
            Some(touch) => self.touches.insert(item, touch),
            None => self.touches.remove(&item),
        };
        let against = |t: Option<Touch>| t.and_then(|t| t.against);
        if against(before) != against(touch) {
            if let Some(author) = against(touch) {
                *self.against.entry(author).or_insert(0) += 1;
            }
            if let Some(before) = against(before).and_then(|author| self.against.get_mut(&author)) {
                *before -= 1;
            }
            self.against.retain(|_, n| *n > 0);
        }
        let seen = |t: Option<Touch>| t.and_then(|t| t.seen);
        (seen(before) != seen(touch)).then(|| (item, seen(touch)))
    }

    /// Everything that must not be shown again, by item.
    pub fn seen(&self) -> Vec<(ItemId, Millis)> {
        let mut seen: Vec<(ItemId, Millis)> = self.touches.iter().filter_map(|(item, t)| Some((*item, t.seen?))).collect();
        seen.sort_unstable();
        seen
    }

    /// The history, of which the `n` items with the latest positive interaction are looked at.
    pub fn history(&self, n: usize) -> History {
        let positive = |(item, touch): (&ItemId, &Touch)| {
            let ((_, at), kind) = (touch.positive?, touch.kind?);
            Some(Recent { item: *item, kind, at })
        };
        let all: Vec<Recent> = self.touches.iter().filter_map(positive).collect();
        let taken = all.len();
        History { taken, latest: first(all, n, |a: &Recent, b| b.at.cmp(&a.at).then(a.item.cmp(&b.item))) }
    }

    /// Where the user lives.
    pub fn city(&self) -> Option<TokenId> {
        self.said.as_ref().and_then(|said| said.city.as_deref()).and_then(city)
    }

    /// Who they are, as they said.
    pub fn asker(&self) -> Asker {
        let said = self.said.as_deref();
        Asker {
            place: said.and_then(User::place),
            city: self.city(),
            language: said.and_then(|said| said.language),
            local_preference: said.and_then(|said| said.local_preference),
            watch_hours: said.and_then(|said| said.total_watch_hours),
        }
    }

    /// The weightiest kind of what was done with an item.
    pub fn kind(&self, item: ItemId) -> Option<Kind> {
        self.touches.get(&item).and_then(|touch| touch.kind)
    }

    /// The rules by which items are kept from this user.
    pub fn filter(&self) -> Filter<'_> {
        let said = self.said.as_deref();
        Filter {
            touches: &self.touches,
            items: said.map(|s| s.blocked_items.iter().copied().collect()).unwrap_or_default(),
            authors: said
                .into_iter()
                .flat_map(|s| s.blocked_authors.iter().copied())
                .chain(self.against.keys().copied())
                .collect(),
            mature: said.is_some_and(|s| s.allow_mature),
        }
    }

    /// Whether nothing is known of the user.
    pub fn is_empty(&self) -> bool {
        self.touches.is_empty() && self.interests.is_none() && self.said.is_none()
    }
}

/// Seen, blocked, mature and unavailable items.
pub struct Filter<'a> {
    touches: &'a FxHashMap<ItemId, Touch>,
    items: FxHashSet<ItemId>,
    authors: FxHashSet<TokenId>,
    mature: bool,
}

impl Filter<'_> {
    /// Whether the user may be shown this item; without a gate the catalogue does not know it.
    pub fn passes(&self, item: ItemId, gate: Option<&Gate>) -> bool {
        let by_author = |author: &TokenId| self.authors.is_empty() || !self.authors.contains(author);
        let fits = |g: &Gate| g.available && (self.mature || !g.mature) && g.author.as_ref().is_none_or(by_author);
        let blocked = || !self.items.is_empty() && self.items.contains(&item);
        gate.is_none_or(fits) && !blocked() && self.touches.get(&item).is_none_or(|t| t.seen.is_none())
    }

    /// Whether it is known that the user did something with an item, beside being shown it, at this time or later.
    pub fn done_since(&self, item: ItemId, at: Millis) -> bool {
        self.touches.get(&item).and_then(|touch| touch.seen).is_some_and(|seen| seen >= at)
    }
}
