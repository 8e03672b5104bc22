//! The factorisation by itself: a matrix to convergence, its loss and its rankings, to hold beside another program's on the same matrix.

use super::split::{RANKED, Shown, Split};
use crate::scoring::factors::{Batch, Settings, Vector};

/// What came of it.
pub struct Converged {
    pub sweeps: usize,
    pub loss: f64,
    /// By the place of a user: the best a hundred.
    pub rankings: Vec<Vec<Shown>>,
}

/// A sweep that gains less of the loss is the last.
const LEAST: f64 = 1e-6;

/// Factorises what is learned of a split.
pub fn converge(split: &Split, settings: Settings, most: usize) -> Converged {
    let mut batch = Batch::new(&split.matrix, settings);
    let sweeps = batch.converge(LEAST, most);
    let ranked = |user: usize| if split.asked.contains_key(&user) { ranking(split, user, &batch) } else { Vec::new() };
    Converged { sweeps, loss: batch.loss(), rankings: (0..split.users.len()).map(ranked).collect() }
}

/// The items a user did not take, best first; of equals what was there first.
fn ranking(split: &Split, user: usize, batch: &Batch) -> Vec<Shown> {
    let of: &Vector = &batch.users[user];
    let mut scores: Vec<f32> = batch.items.iter().map(|item| of.dot(item)).collect();
    split.matrix.users[user].iter().for_each(|item| scores[*item as usize] = f32::NEG_INFINITY);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    order.into_iter().take(RANKED).map(|item| (split.items[item], 0)).collect()
}
