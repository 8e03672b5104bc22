//! Diversity: the more often an author or a category already stands in a slate, the less a further item of it counts.
//!
//! Item after item is chosen by its score times `(1 - floor) * decay^k + floor` for its author and for its first category, `k`
//! being how many of them stand above. A pure function of the candidates.

use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::model::{ItemId, TokenId};

/// How fast repetition is felt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Damping {
    pub decay: f64,
    pub floor: f64,
}

impl Damping {
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

/// How often something stands above, and what that makes of a score.
struct Above {
    factors: Vec<f64>,
    counts: FxHashMap<TokenId, usize>,
}

impl Above {
    fn new(damping: Damping) -> Self {
        Self { factors: damping.factors(), counts: FxHashMap::default() }
    }

    fn factor(&self, token: Option<TokenId>) -> f64 {
        let above = token.and_then(|t| self.counts.get(&t)).copied().unwrap_or(0);
        self.factors[above.min(self.factors.len() - 1)]
    }

    fn add(&mut self, token: Option<TokenId>) {
        if let Some(token) = token {
            *self.counts.entry(token).or_insert(0) += 1;
        }
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

/// Chooses up to `kept` entries; yields their index and the score by which each was chosen, in order. Ties go to the smaller
/// item.
pub fn choose(entries: &[Entry], author: Damping, category: Damping, kept: usize) -> Vec<(usize, i32)> {
    let (mut authors, mut categories) = (Above::new(author), Above::new(category));
    let mut heap: BinaryHeap<_> = entries.iter().enumerate().map(|(i, e)| (e.score_micro, Reverse(e.item), i)).collect();
    let mut chosen = Vec::with_capacity(kept.min(entries.len()));
    while let Some((score, item, index)) = heap.pop() {
        let entry = &entries[index];
        let factor = authors.factor(entry.author) * categories.factor(entry.category);
        let now = (f64::from(entry.score_micro) * factor).round() as i32;
        if now < score {
            heap.push((now, item, index)); // scores only fall, so the first that stands is the best
            continue;
        }
        chosen.push((index, now));
        if chosen.len() == kept {
            break;
        }
        authors.add(entry.author);
        categories.add(entry.category);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(item: u64, score_micro: i32, author: u64) -> Entry {
        Entry { item: ItemId(item), score_micro, author: Some(TokenId(author)), category: None }
    }

    #[test]
    fn a_third_item_of_an_author_yields_to_a_weaker_one_of_another() {
        let (author, none) = (Damping { decay: 0.5, floor: 0.25 }, Damping { decay: 1.0, floor: 1.0 });
        let entries = [entry(1, 1000, 7), entry(2, 990, 7), entry(3, 980, 7), entry(4, 500, 8), entry(5, 500, 9)];
        // the second of author 7 counts 0.625, the third 0.4375
        assert_eq!(choose(&entries, author, none, 5), [(0, 1000), (1, 619), (3, 500), (4, 500), (2, 429)]);
        assert_eq!(choose(&entries, none, none, 2), [(0, 1000), (1, 990)]);
    }
}
