//! The blend: a weighted sum of five terms between 0 and 1, quantised before it orders anything.

use serde::{Deserialize, Serialize};

use crate::model::slate::TERMS;

/// `[blend]`: the weights of the terms, in the order of [`TERMS`]; one that is not named is 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    pub content: f64,
    pub collaborative: f64,
    pub real_time: f64,
    pub interests: f64,
    pub freshness: f64,
}

/// `[cold]`: the weights for a user who took nothing yet, and how soon `[blend]` takes over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cold {
    pub n0: f64,
    pub content: f64,
    pub collaborative: f64,
    pub real_time: f64,
    pub interests: f64,
    pub freshness: f64,
}

impl Cold {
    /// Its weights.
    pub fn weights(&self) -> Params {
        let Self { content, collaborative, real_time, interests, freshness, .. } = *self;
        Params { content, collaborative, real_time, interests, freshness }
    }
}

/// A place in [`TERMS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    Content,
    Collaborative,
    RealTime,
    Interests,
    Freshness,
}

/// The terms of one candidate.
pub type Terms = [f64; TERMS.len()];

/// Weights that sum to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blend {
    weights: Terms,
}

impl Blend {
    /// The configured weights over their sum.
    pub fn new(params: &Params) -> Self {
        let weights = [params.content, params.collaborative, params.real_time, params.interests, params.freshness];
        let sum: f64 = weights.iter().sum();
        Self { weights: weights.map(|w| w / sum) }
    }

    /// The score in millionths. A term that is not a number counts nothing.
    pub fn score_micro(&self, terms: &Terms) -> i32 {
        let sum: f64 = self.contributions(terms).iter().sum();
        (sum * 1e6 + 0.5) as i32 // never negative; `round` is a call where the machine has no instruction for it
    }

    /// The score, 0 to 1.
    pub fn score(&self, terms: &Terms) -> f64 {
        f64::from(self.score_micro(terms)) / 1e6
    }

    /// What each term adds to the score.
    pub fn contributions(&self, terms: &Terms) -> Terms {
        let mut contributions = self.weights;
        for (weight, term) in contributions.iter_mut().zip(terms) {
            *weight *= if term.is_finite() { term.clamp(0.0, 1.0) } else { 0.0 };
        }
        contributions
    }
}

/// From the weights for who took nothing yet to those for who took much.
#[derive(Clone, Debug, PartialEq)]
pub struct Handover {
    cold: Terms,
    warm: Terms,
    n0: f64,
}

impl Handover {
    /// `warm` takes over from `cold`.
    pub fn new(warm: &Params, cold: &Cold) -> Self {
        Self { cold: Blend::new(&cold.weights()).weights, warm: Blend::new(warm).weights, n0: cold.n0 }
    }

    /// These weights for everybody.
    pub fn none(weights: &Params) -> Self {
        let Blend { weights } = Blend::new(weights);
        Self { cold: weights, warm: weights, n0: 0.0 }
    }

    /// How little is known of who took so many items: `n0 / (n + n0)`; of who took nothing, nothing.
    pub fn coldness(&self, taken: usize) -> f64 {
        if taken == 0 { 1.0 } else { self.n0 / (taken as f64 + self.n0) }
    }

    /// The weights for them.
    pub fn after(&self, taken: usize) -> Blend {
        let coldness = if self.n0 > 0.0 { self.coldness(taken) } else { 0.0 };
        Blend { weights: std::array::from_fn(|term| self.warm[term] + coldness * (self.cold[term] - self.warm[term])) }
    }
}

/// A term as it is stored: in 1/10000.
pub fn stored(terms: &Terms) -> [u16; TERMS.len()] {
    terms.map(|t| if t.is_finite() { (t.clamp(0.0, 1.0) * 1e4 + 0.5) as u16 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_relative_and_a_nan_counts_nothing() {
        let params = Params { content: 3.0, collaborative: 2.5, real_time: 2.5, interests: 1.0, freshness: 1.0 };
        let blend = Blend::new(&params);
        assert_eq!(blend.score_micro(&[1.0; 5]), 1_000_000);
        assert_eq!(blend.score_micro(&[1.0, 0.0, 0.0, 0.0, 0.0]), 300_000);
        assert_eq!(blend.score_micro(&[f64::NAN, 2.0, -1.0, 0.5, 0.0]), 300_000);
        let cold = Cold { n0: 4.0, content: 0.0, collaborative: 0.0, real_time: 2.0, interests: 0.0, freshness: 0.0 };
        let handover = Handover::new(&params, &cold);
        let scores = [0, 4, 12, 1_000_000].map(|taken| handover.after(taken).score_micro(&[0.0, 0.0, 1.0, 0.0, 0.0]));
        assert_eq!(scores, [1_000_000, 625_000, 437_500, 250_003]);
        assert_eq!(Handover::new(&params, &Cold { n0: 0.0, ..cold }).after(0), blend);
        assert_eq!(stored(&[f64::NAN, 2.0, -1.0, 0.5, 0.0]), [0, 10_000, 0, 5_000, 0]);
    }
}
