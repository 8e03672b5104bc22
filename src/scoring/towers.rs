//! Two towers: what somebody took lately and what an item is become vectors of one space, and items whose vectors point where the user's
//! does are those they will take. The towers are models that somebody brings; here is what is asked of them and who is found.
//!
//! The facts that must stay true: a tower is asked for one vector at a time, and what it gives is rounded to multiples of 2^-15, so that neither
//! batches nor the number of workers show in it; an item without a vector, or a user without one, is simply not found.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

use super::factors::{DIMENSIONS, Vector};
use super::ranker::ScoreError;
use super::scan::{self, Asked};
use crate::model::{ItemId, TokenId};

/// Items that a user tower is shown, the latest first.
pub const HISTORY: usize = 50;
/// Tokens of an item that an item tower is shown.
pub const TOKENS: usize = 16;

/// `[towers]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub model: String,
    pub kept: usize,
    /// What the folder named there holds, once it was read.
    #[serde(skip)]
    pub loaded: Option<Towers>,
}

/// Both towers at work on one worker.
pub trait Tower: Send {
    /// The vector of an item with these tokens.
    fn item(&mut self, item: ItemId, tokens: &[TokenId]) -> Result<[f32; DIMENSIONS], ScoreError>;
    /// The vector of who took items with these vectors, the latest first.
    fn user(&mut self, history: &[&Vector]) -> Result<[f32; DIMENSIONS], ScoreError>;
}

/// Opens both for a worker.
pub type Open = Arc<dyn Fn() -> Result<Box<dyn Tower>, ScoreError> + Send + Sync>;

/// Towers that were read and found good.
#[derive(Clone)]
pub struct Towers {
    pub name: String,
    /// BLAKE3 of their files.
    pub digest: String,
    pub open: Open,
}

impl fmt::Debug for Towers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.digest)
    }
}

impl PartialEq for Towers {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// The vectors of all items of one worker, and the towers that make them.
pub struct Shelf {
    tower: Box<dyn Tower>,
    places: FxHashMap<ItemId, u32>,
    shelf: scan::Shelf,
    /// Calls that gave no vector.
    in_vain: u64,
    /// Why the last of them did not, until somebody asks.
    failed: Option<String>,
}

impl Shelf {
    /// Without items yet. Towers that do not open give no vector, and say why.
    pub fn new(towers: &Towers) -> Self {
        let tower = (towers.open)().unwrap_or_else(|error| Box::new(Broken(error)));
        Self { tower, places: FxHashMap::default(), shelf: scan::Shelf::default(), in_vain: 0, failed: None }
    }

    /// Whether an item has a vector.
    pub fn has(&self, item: ItemId) -> bool {
        self.places.contains_key(&item)
    }

    /// The vector of an item.
    pub fn vector(&self, item: ItemId) -> Option<&Vector> {
        self.places.get(&item).map(|place| self.shelf.vector(*place))
    }

    /// An item that is like these tokens; without them it is gone.
    pub fn put(&mut self, item: ItemId, tokens: Option<&[TokenId]>) {
        let made = tokens.map(|tokens| self.tower.item(item, &tokens[..tokens.len().min(TOKENS)]));
        match (made.and_then(|made| self.rounded(made)), self.places.get(&item).copied()) {
            (Some(vector), Some(place)) => _ = self.shelf.replace(place, vector),
            (Some(vector), None) => _ = self.places.insert(item, self.shelf.push(item, vector)),
            (None, Some(place)) => self.take_away(item, place),
            (None, None) => {}
        }
    }

    fn take_away(&mut self, item: ItemId, place: u32) {
        self.places.remove(&item);
        self.shelf.swap_remove(place);
        if (place as usize) < self.shelf.len() {
            self.places.insert(self.shelf.id(place), place);
        }
    }

    /// The vector of who took these items, the latest first; of those that have none nothing is seen.
    pub fn user(&mut self, history: impl Iterator<Item = ItemId>) -> Option<Vector> {
        let known = history.filter_map(|item| self.places.get(&item));
        let taken: Vec<&Vector> = known.take(HISTORY).map(|place| self.shelf.vector(*place)).collect();
        if taken.is_empty() {
            return None;
        }
        let made = self.tower.user(&taken);
        self.rounded(made)
    }

    /// The items that speak most for a user, best first, without some, which are in their order.
    pub fn best(&mut self, user: &Vector, without: &[ItemId], k: usize) -> Vec<ItemId> {
        let best = self.shelf.best(&[Asked { vector: user, without }], k).pop().unwrap_or_default();
        best.into_iter().map(|(_, item)| item).collect()
    }

    /// How many calls gave no vector since this was last asked, and why the last one did not.
    pub fn failures(&mut self) -> (u64, Option<String>) {
        (std::mem::take(&mut self.in_vain), self.failed.take())
    }

    fn rounded(&mut self, made: Result<[f32; DIMENSIONS], ScoreError>) -> Option<Vector> {
        match made {
            Ok(numbers) if numbers.iter().all(|x| x.is_finite()) => return Some(Vector::near(&numbers)),
            Ok(_) => self.failed = Some("it gave what is no number".to_string()),
            Err(ScoreError(why)) => self.failed = Some(why),
        }
        self.in_vain += 1;
        None
    }
}

/// Towers that did not open.
struct Broken(ScoreError);

impl Tower for Broken {
    fn item(&mut self, _: ItemId, _: &[TokenId]) -> Result<[f32; DIMENSIONS], ScoreError> {
        Err(self.0.clone())
    }

    fn user(&mut self, _: &[&Vector]) -> Result<[f32; DIMENSIONS], ScoreError> {
        Err(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An item points along its number; a user where what they took last does, and nowhere after item 13.
    struct Axes;

    fn axis(n: u64) -> [f32; DIMENSIONS] {
        std::array::from_fn(|at| if at as u64 == n % DIMENSIONS as u64 { 1.0 } else { 0.001 })
    }

    impl Tower for Axes {
        fn item(&mut self, item: ItemId, tokens: &[TokenId]) -> Result<[f32; DIMENSIONS], ScoreError> {
            if item == ItemId(13) { Err(ScoreError("thirteen".into())) } else { Ok(axis(item.0 + tokens.len() as u64)) }
        }

        fn user(&mut self, history: &[&Vector]) -> Result<[f32; DIMENSIONS], ScoreError> {
            let first = history[0].0;
            if first[14] > 0.5 { Ok([f32::NAN; DIMENSIONS]) } else { Ok(first) }
        }
    }

    fn shelf() -> Shelf {
        let open: Open = Arc::new(|| Ok(Box::new(Axes)));
        Shelf::new(&Towers { name: "axes".into(), digest: "1".into(), open })
    }

    fn items(ids: &[u64]) -> impl Iterator<Item = ItemId> {
        ids.iter().copied().map(ItemId)
    }

    #[test]
    fn c14_who_took_an_item_is_found_what_points_the_same_way() {
        let mut shelf = shelf();
        for item in [1, 2, 3, 65, 129] {
            shelf.put(ItemId(item), Some(&[]));
        }
        let user = shelf.user(items(&[77, 1, 2])).expect("item 1 has a vector");
        assert_eq!(shelf.best(&user, &[ItemId(1)], 2), [ItemId(65), ItemId(129)], "77 is not known, 1 was taken");
        shelf.put(ItemId(65), Some(&[TokenId(9)])); // it is something else now
        shelf.put(ItemId(129), None);
        assert_eq!(shelf.best(&user, &[], 1), [ItemId(1)]);
        assert!(!shelf.has(ItemId(129)) && shelf.vector(ItemId(3)).is_some());
        assert_eq!(shelf.user(items(&[77, 129])), None, "nothing is known of what they took");
        assert_eq!(shelf.failures(), (0, None));
    }

    #[test]
    fn c14_what_gives_no_vector_is_counted_and_said() {
        let mut shelf = shelf();
        shelf.put(ItemId(13), Some(&[]));
        assert!(!shelf.has(ItemId(13)));
        assert_eq!(shelf.failures(), (1, Some("thirteen".into())));
        shelf.put(ItemId(14), Some(&[]));
        assert_eq!((shelf.user(items(&[14])), shelf.failures()), (None, (1, Some("it gave what is no number".into()))));
        shelf.put(ItemId(12), Some(&[]));
        shelf.put(ItemId(12), Some(&[TokenId(1), TokenId(2)]));
        assert_eq!(shelf.failures(), (0, None));
        let open: Open = Arc::new(|| Err(ScoreError("no memory".into())));
        let mut broken = Shelf::new(&Towers { name: "b".into(), digest: "2".into(), open });
        broken.put(ItemId(1), Some(&[]));
        assert_eq!((broken.has(ItemId(1)), broken.failures()), (false, (1, Some("no memory".into()))));
    }
}
