//! How much a history speaks for an item: the cosine of who took both, each item of the history weighted by its kind and by how far
//! back it lies.

use crate::model::Kind;
use crate::model::kind::Weights;

/// How much each further item back in the history counts.
const RECENCY: f64 = 0.9;

/// How loudly the item `back` places back in the history speaks for each user who took it and another one; `users` took it at all.
pub fn loudness(kind: Kind, back: usize, users: u32, weights: &Weights, damping: f64) -> f64 {
    let heaviest = weights.milli(Kind::Follow).max(1) as f64;
    let weight = (weights.milli(kind) as f64 / heaviest).clamp(0.1, 1.0) * libm::pow(RECENCY, back as f64);
    weight / (f64::from(users) + damping).sqrt()
}

/// What the history says of an item.
#[derive(Clone, Copy, Debug, Default)]
pub struct Voices {
    sum: f64,
    loudest: f64,
    /// Which item of the history speaks loudest.
    pub back: usize,
}

impl Voices {
    /// One more item of the history speaks.
    pub fn hear(&mut self, voice: f64, back: usize) {
        self.sum += voice;
        if voice > self.loudest {
            (self.loudest, self.back) = (voice, back);
        }
    }

    /// What that makes of an item that `users` took.
    pub fn affinity(&self, users: u32, damping: f64) -> f64 {
        self.sum / (f64::from(users) + damping).sqrt()
    }
}
