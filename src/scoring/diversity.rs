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
    fn factor(self, above: u32) -> f64 {
        (1.0 - self.floor) * libm::pow(self.decay, f64::from(above)) + self.floor
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
    let mut above: FxHashMap<TokenId, u32> = FxHashMap::default();
    let mut heap: BinaryHeap<_> = entries.iter().enumerate().map(|(i, e)| (e.score_micro, Reverse(e.item), i)).collect();
    let mut chosen = Vec::with_capacity(kept.min(entries.len()));
    while let Some((score, item, index)) = heap.pop() {
        let entry = &entries[index];
        let count = |token: Option<TokenId>| token.and_then(|t| above.get(&t)).copied().unwrap_or(0);
        let factor = author.factor(count(entry.author)) * category.factor(count(entry.category));
        let now = libm::round(f64::from(entry.score_micro) * factor) as i32;
        if now < score {
            heap.push((now, item, index)); // scores only fall, so the first that stands is the best
            continue;
        }
        chosen.push((index, now));
        if chosen.len() == kept {
            break;
        }
        for token in entry.author.iter().chain(&entry.category) {
            *above.entry(*token).or_insert(0) += 1;
        }
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
