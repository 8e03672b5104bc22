//! Diversity: the more often an author or a category already stands in a slate, the less a further item of it counts.
//!
//! Item after item is chosen by its score times `(1 - floor) * decay^k + floor` for its author and for its first category, `k`
//! being how many of them stand above. A pure function of the candidates.

use rustc_hash::FxHashMap;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use crate::model::{ItemId, TokenId};

/// How fast repetition is felt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Damping {
    pub decay: f64,
    pub floor: f64,
}

impl Damping {
    /// It is not felt at all.
    pub const NONE: Self = Self { decay: 0.0, floor: 1.0 };

    /// The factors of the first, second, … item of an author or category, as far as they differ from the floor.
    fn factors(self) -> Vec<f64> {
        let mut factors = vec![1.0];
        let mut power = 1.0;
        while factors.len() < LONGEST && power > 1e-6 {
            power *= self.decay;
            factors.push((1.0 - self.floor) * power + self.floor);
        }
        factors
    }
}

/// Factors worked out beforehand at most; further items count like the last.
const LONGEST: usize = 256;

/// How often each of some tokens stands above, and what that makes of a score. Tokens are asked for by the place they were given.
struct Above {
    factors: Vec<f64>,
    places: FxHashMap<TokenId, usize>,
    counts: Vec<usize>,
}

/// The place of what has no token: it is never counted.
const NONE: usize = 0;

impl Above {
    fn new(damping: Damping) -> Self {
        Self { factors: damping.factors(), places: FxHashMap::default(), counts: vec![0] }
    }

    fn clear(&mut self) {
        self.places.clear();
        self.counts.truncate(1);
    }

    fn place(&mut self, token: Option<TokenId>) -> usize {
        let Some(token) = token else { return NONE };
        *self.places.entry(token).or_insert_with(|| {
            self.counts.push(0);
            self.counts.len() - 1
        })
    }

    fn factor(&self, place: usize) -> f64 {
        self.factors[self.counts[place].min(self.factors.len() - 1)]
    }

    fn add(&mut self, place: usize) {
        self.counts[place] += usize::from(place != NONE);
    }
}

/// What diversity looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    pub item: ItemId,
    pub score_micro: i32,
    pub author: Option<TokenId>,
    pub category: Option<TokenId>,
}

/// An entry in the race, ordered by what it counts, then by the smaller item.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Runner {
    /// At most this: what it counted when it was last looked at.
    counts: f64,
    item: Reverse<ItemId>,
    /// The entry, or the category whose best it is.
    index: usize,
}

impl Eq for Runner {}

impl Ord for Runner {
    fn cmp(&self, other: &Self) -> Ordering {
        self.counts.total_cmp(&other.counts).then(self.item.cmp(&other.item))
    }
}

impl PartialOrd for Runner {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The race of one slate after another, in the same room.
pub struct Race {
    authors: Above,
    categories: Above,
    places: Vec<(usize, usize)>,
    /// Of each category, best first.
    runners: Vec<BinaryHeap<Runner>>,
    /// The best of each category.
    leaders: BinaryHeap<Runner>,
}

impl Race {
    /// With how fast repetition is felt.
    pub fn new(author: Damping, category: Damping) -> Self {
        let (authors, categories) = (Above::new(author), Above::new(category));
        Self { authors, categories, places: Vec::new(), runners: Vec::new(), leaders: BinaryHeap::new() }
    }

    /// Chooses up to `kept` entries; yields their index and the score by which each was chosen, in order. Ties go to the smaller
    /// item.
    ///
    /// What counts only falls, so a runner that still counts what it did when it was last looked at is the best of its heap. Within a
    /// category only authors tell runners apart; categories race by their best. So a choice makes one category fall, not all of its
    /// items.
    pub fn choose(&mut self, entries: &[Entry], kept: usize) -> Vec<(usize, i32)> {
        self.line_up(entries);
        let Self { authors, categories, places, runners, leaders } = self;
        let mut chosen = Vec::with_capacity(kept.min(entries.len()));
        while let Some(mut leader) = leaders.peek_mut().filter(|_| chosen.len() < kept) {
            let category = leader.index;
            let of = &mut runners[category];
            let mut first = of.peek_mut().expect("a category in the race has a runner");
            let index = first.index;
            let now = f64::from(entries[index].score_micro) * authors.factor(places[index].0);
            if now < first.counts {
                first.counts = now;
                drop(first);
            } else {
                PeekMut::pop(first);
                chosen.push((index, (now * categories.factor(category)).round() as i32));
                authors.add(places[index].0);
                categories.add(category);
            }
            match best(of, categories.factor(category), category) {
                Some(best) => *leader = best,
                None => drop(PeekMut::pop(leader)),
            }
        }
        chosen
    }

    fn line_up(&mut self, entries: &[Entry]) {
        let Self { authors, categories, places, runners, leaders } = self;
        authors.clear();
        categories.clear();
        places.clear();
        places.extend(entries.iter().map(|e| (authors.place(e.author), categories.place(e.category))));
        let of_categories = categories.counts.len();
        runners.resize_with(runners.len().max(of_categories), BinaryHeap::new);
        runners.iter_mut().for_each(BinaryHeap::clear);
        for (index, (entry, (_, category))) in entries.iter().zip(&*places).enumerate() {
            runners[*category].push(Runner { counts: f64::from(entry.score_micro), item: Reverse(entry.item), index });
        }
        leaders.clear();
        leaders.extend(runners[..of_categories].iter().enumerate().filter_map(|(i, of)| best(of, 1.0, i)));
    }
}

/// The best of a category as it races against others.
fn best(of: &BinaryHeap<Runner>, factor: f64, category: usize) -> Option<Runner> {
    of.peek().map(|runner| Runner { counts: runner.counts * factor, index: category, ..*runner })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(item: u64, score_micro: i32, author: u64) -> Entry {
        Entry { item: ItemId(item), score_micro, author: Some(TokenId(author)), category: None }
    }

    #[test]
    fn c22_a_third_item_of_an_author_yields_to_a_weaker_one_of_another() {
        let (author, none) = (Damping { decay: 0.5, floor: 0.25 }, Damping { decay: 1.0, floor: 1.0 });
        let entries = [entry(1, 1000, 7), entry(2, 990, 7), entry(3, 980, 7), entry(4, 500, 8), entry(5, 500, 9)];
        // the second of author 7 counts 0.625, the third 0.4375
        assert_eq!(Race::new(author, none).choose(&entries, 5), [(0, 1000), (1, 619), (3, 500), (4, 500), (2, 429)]);
        assert_eq!(Race::new(none, none).choose(&entries, 2), [(0, 1000), (1, 990)]);
    }
    /// Every choice looks at all entries.
    fn plainly(entries: &[Entry], author: Damping, category: Damping, kept: usize) -> Vec<(usize, i32)> {
        let (authors, categories) = (author.factors(), category.factors());
        let mut chosen: Vec<(usize, i32)> = Vec::new();
        while chosen.len() < kept.min(entries.len()) {
            let above = |of: fn(&Entry) -> Option<TokenId>, entry: &Entry, factors: &[f64]| {
                let same = |c: &&(usize, i32)| of(entry).is_some() && of(&entries[c.0]) == of(entry);
                factors[chosen.iter().filter(same).count().min(factors.len() - 1)]
            };
            let counts =
                |e: &Entry| f64::from(e.score_micro) * above(|e| e.author, e, &authors) * above(|e| e.category, e, &categories);
            let left = (0..entries.len()).filter(|i| chosen.iter().all(|c| c.0 != *i));
            let key = |i: &usize| (counts(&entries[*i]), Reverse(entries[*i].item));
            let best = left.max_by(|a, b| key(a).partial_cmp(&key(b)).expect("no score is a nan")).expect("one is left");
            let score = counts(&entries[best]).round() as i32;
            chosen.push((best, score));
        }
        chosen
    }

    proptest! {
        #[test]
        fn each_choice_is_the_best_there_is(drawn in prop::collection::vec((0i32..1_000_000, 0u64..8, 0u64..5), 1..60), kept in 1usize..70) {
            let token = |n: u64| (n > 0).then_some(TokenId(n));
            let entry = |(item, (score_micro, a, c)): (usize, &(i32, u64, u64))| {
                Entry { item: ItemId(item as u64), score_micro: *score_micro, author: token(*a), category: token(*c) }
            };
            let entries: Vec<Entry> = drawn.iter().enumerate().map(entry).collect();
            let (author, category) = (Damping { decay: 0.5, floor: 0.25 }, Damping { decay: 0.9, floor: 0.1 });
            let mut race = Race::new(author, category);
            race.choose(&entries[entries.len() / 2..], kept); // what another slate left behind is not seen
            prop_assert_eq!(race.choose(&entries, kept), plainly(&entries, author, category, kept));
        }
    }
}
