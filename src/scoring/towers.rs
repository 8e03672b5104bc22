//! Two towers: what somebody took lately and what an item is become vectors of one space, and items whose vectors point where the user's
//! does are those they will take. The towers are models that somebody brings; here is what is asked of them and who is found.
//!
//! The facts that must stay true: a tower is asked for one vector at a time, and what it gives is made to be of length one and rounded to multiples of
//! 2^-15, so that neither batches nor the number of workers show in it; an item without a vector, or a user without one, is simply not found.

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
    items: FxHashMap<ItemId, Place>,
    /// What may be shown.
    offered: scan::Shelf,
    /// Calls that gave no vector.
    in_vain: u64,
    /// Why the last of them did not, until somebody asks.
    failed: Option<String>,
}

/// Where the vector of an item is.
enum Place {
    /// On the shelf that is scanned.
    Offered(u32),
    /// Here: it may not be shown, but somebody may have taken it.
    Apart(Box<Vector>),
    /// There is none, and nobody asks again until something else is said of the item.
    Nowhere,
}

impl Shelf {
    /// Without items yet. Towers that do not open give no vector, and say why.
    pub fn new(towers: &Towers) -> Self {
        let tower = (towers.open)().unwrap_or_else(|error| Box::new(Broken(error)));
        Self { tower, items: FxHashMap::default(), offered: scan::Shelf::default(), in_vain: 0, failed: None }
    }

    /// Whether an item was put here.
    pub fn has(&self, item: ItemId) -> bool {
        self.items.contains_key(&item)
    }

    /// The vector of an item.
    pub fn vector(&self, item: ItemId) -> Option<&Vector> {
        match self.items.get(&item)? {
            Place::Offered(place) => Some(self.offered.vector(*place)),
            Place::Apart(vector) => Some(vector),
            Place::Nowhere => None,
        }
    }

    /// An item that is like these tokens, and whether it may be shown.
    pub fn put(&mut self, item: ItemId, tokens: &[TokenId], offered: bool) {
        let made = self.tower.item(item, &tokens[..tokens.len().min(TOKENS)]);
        let vector = self.rounded(made);
        self.take_away(item);
        let place = match vector {
            Some(vector) if offered => Place::Offered(self.offered.push(item, vector)),
            Some(vector) => Place::Apart(Box::new(vector)),
            None => Place::Nowhere,
        };
        self.items.insert(item, place);
    }

    /// Nothing is known of an item any more.
    pub fn take_away(&mut self, item: ItemId) {
        let Some(Place::Offered(place)) = self.items.remove(&item) else { return };
        self.offered.swap_remove(place);
        if (place as usize) < self.offered.len() {
            self.items.insert(self.offered.id(place), Place::Offered(place)); // the last one came here
        }
    }

    /// The vector of who took these items, the latest first; of those that have none nothing is seen.
    pub fn user(&mut self, history: impl Iterator<Item = ItemId>) -> Option<Vector> {
        let taken: Vec<Vector> = history.filter_map(|item| self.vector(item).copied()).take(HISTORY).collect();
        if taken.is_empty() {
            return None;
        }
        let made = self.tower.user(&taken.iter().collect::<Vec<_>>());
        self.rounded(made)
    }

    /// The items that speak most for a user, as far as they speak for them at all, best first, without some, which are in their order.
    pub fn best(&mut self, user: &Vector, without: &[ItemId], k: usize) -> Vec<ItemId> {
        let best = self.offered.best(&[Asked { vector: user, without }], k).pop().unwrap_or_default();
        best.into_iter().take_while(|(score, _)| *score > 0.0).map(|(_, item)| item).collect()
    }

    /// How many calls gave no vector since this was last asked, and why the last one did not.
    pub fn failures(&mut self) -> (u64, Option<String>) {
        (std::mem::take(&mut self.in_vain), self.failed.take())
    }

    /// What was made, of length one and rounded; what points nowhere is none.
    fn rounded(&mut self, made: Result<[f32; DIMENSIONS], ScoreError>) -> Option<Vector> {
        match made.map(|numbers| (numbers, numbers.iter().map(|x| x * x).sum::<f32>().sqrt())) {
            Ok((numbers, length)) if length.is_normal() => return Some(Vector::near(&numbers.map(|x| x / length))),
            Ok(_) => self.failed = Some("it gave a vector that points nowhere".to_string()),
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

    /// An item points along its number, beyond 1,000 away from there, item 0 nowhere; a user where what they took last does, after item 14 nowhere.
    struct Axes;

    fn axis(n: u64) -> [f32; DIMENSIONS] {
        let length = if n > 1_000 { -5.0 } else { 20.0 * n.min(1) as f32 };
        std::array::from_fn(|at| if at as u64 == n % 1_000 % DIMENSIONS as u64 { length } else { 0.001 * length })
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
        for item in [1, 2, 3, 65, 129, 193] {
            shelf.put(ItemId(item), &[], item != 193);
        }
        let user = shelf.user(items(&[77, 1, 2])).expect("item 1 has a vector");
        assert_eq!(
            shelf.best(&user, &[ItemId(1)], 2),
            [ItemId(65), ItemId(129)],
            "77 is not known, 1 was taken, 193 may not be shown"
        );
        shelf.put(ItemId(65), &[TokenId(9)], true); // it is something else now
        shelf.take_away(ItemId(129));
        assert_eq!(shelf.best(&user, &[], 1), [ItemId(1)]);
        assert!(!shelf.has(ItemId(129)) && shelf.vector(ItemId(3)).is_some());
        assert_eq!(shelf.user(items(&[77, 129])), None, "nothing is known of what they took");
        assert_eq!(shelf.user(items(&[193])), Some(user), "what may not be shown was taken all the same");
        shelf.put(ItemId(193), &[], true);
        assert_eq!(shelf.best(&user, &[ItemId(1)], 1), [ItemId(193)]);
        assert_eq!(shelf.failures(), (0, None));
    }

    /// However long the vectors are that towers give, what is said of them is a cosine, and nothing speaks for what points away.
    #[test]
    fn c14_what_towers_say_is_a_cosine() {
        let mut shelf = shelf();
        [1, 2, 3, 1_001].into_iter().for_each(|item| shelf.put(ItemId(item), &[], true));
        let user = shelf.user(items(&[1])).expect("item 1 has a vector");
        for (item, cosine) in [(1, 1.0), (2, 0.002), (1_001, -1.0)] {
            let says = user.dot(shelf.vector(ItemId(item)).expect("a vector"));
            assert!((says - cosine).abs() < 1e-3, "{item}: {says}");
        }
        assert_eq!(shelf.best(&user, &[], 9), [ItemId(1), ItemId(2), ItemId(3)]);
    }

    #[test]
    fn c14_what_gives_no_vector_is_counted_and_said() {
        let mut shelf = shelf();
        shelf.put(ItemId(13), &[], true);
        assert!(shelf.has(ItemId(13)) && shelf.vector(ItemId(13)).is_none(), "it is not asked for again");
        assert_eq!(shelf.failures(), (1, Some("thirteen".into())));
        shelf.put(ItemId(14), &[], true);
        let nowhere = || (1, Some("it gave a vector that points nowhere".to_string()));
        assert_eq!((shelf.user(items(&[14])), shelf.failures()), (None, nowhere()));
        shelf.put(ItemId(14), &[TokenId(1), TokenId(2), TokenId(3)], true);
        assert_eq!(shelf.failures(), (0, None));
        shelf.put(ItemId(0), &[], true);
        assert_eq!((shelf.vector(ItemId(0)).is_none(), shelf.failures()), (true, nowhere()));
        let open: Open = Arc::new(|| Err(ScoreError("no memory".into())));
        let mut broken = Shelf::new(&Towers { name: "b".into(), digest: "2".into(), open });
        broken.put(ItemId(1), &[], true);
        assert_eq!((broken.vector(ItemId(1)).is_none(), broken.failures()), (true, (1, Some("no memory".into()))));
    }
}
