//! Windowed counts of one key and what is read from them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::ids::{ItemId, TokenId, UserId};
use super::kind::{Kind, Weights};
use super::time::Window;

/// Whose signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SignalKey {
    User(UserId),
    Item(ItemId),
    /// A category (`category:…` token).
    Category(TokenId),
    Author(TokenId),
}

impl SignalKey {
    /// The hash that decides worker and key group.
    pub fn hash(self) -> u64 {
        match self {
            Self::User(UserId(h)) | Self::Item(ItemId(h)) | Self::Category(TokenId(h)) | Self::Author(TokenId(h)) => h,
        }
    }
}

/// Counts of one key at the clock of the epoch that emitted them: whole, never a difference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signals {
    /// Per kind, ascending: the count in each window of [`Window::ALL`].
    pub counts: Vec<(Kind, [u32; 5])>,
    /// Sum of weights with the configured half-life (7 days).
    pub decayed: f64,
    /// Derived with the configured weights and priors.
    pub velocity: f64,
    pub ctr: f64,
    pub engagement: f64,
    /// Weighted sums per window, in thousandths.
    pub weighted_milli: [i64; 5],
}

/// How often an item was shown, and how often something positive came of it: the kind that came most often, for one showing may
/// lead to a view, a click and a like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    pub shown: u32,
    pub taken: u32,
}

/// Smoothing of the rates: `(hits + prior * strength) / (trials + strength)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Priors {
    pub ctr: f64,
    pub engagement: f64,
    /// How many imagined impressions the prior is worth.
    pub strength: f64,
}

/// Weighted interactions an hour, out of the weighted sums of each window: half of it the last five minutes' rate, three tenths the
/// last hour's, two tenths the last day's.
pub fn trending_milli(weighted_milli: &[i64; 5]) -> i64 {
    let of = |w: Window| weighted_milli[w as usize];
    (5 * 12 * of(Window::M5) + 3 * of(Window::H1)) / 10 + of(Window::H24) * 2 / 240
}

impl Signals {
    /// [`trending_milli`] of its windows.
    pub fn trending_milli(&self) -> i64 {
        trending_milli(&self.weighted_milli)
    }

    /// Everything that follows from counts and the decayed sum.
    pub fn derive(counts: Vec<(Kind, [u32; 5])>, decayed: f64, weights: &Weights, priors: &Priors) -> Self {
        let mut weighted_milli = [0i64; 5];
        for (kind, windows) in &counts {
            for (sum, n) in weighted_milli.iter_mut().zip(windows) {
                *sum += weights.milli(*kind) * i64::from(*n);
            }
        }
        let velocity = velocity(&counts);
        let (ctr, engagement) = rates(&counts, priors);
        Self { counts, decayed, velocity, ctr, engagement, weighted_milli }
    }

    /// The count of a kind in a window.
    pub fn count(&self, kind: Kind, window: Window) -> u32 {
        self.counts.iter().find(|(k, _)| *k == kind).map_or(0, |(_, n)| n[window as usize])
    }

    /// What was tried of an item in the last day.
    pub fn tried(&self) -> Tried {
        let of = |kind: Kind| self.count(kind, Window::H24);
        let taken = Kind::ALL.into_iter().filter(|kind| kind.is_positive()).map(of).max().unwrap_or(0);
        Tried { shown: of(Kind::Impression).max(taken), taken }
    }

    /// Counts by window, as they are read: only kinds that are there.
    pub fn by_window(&self) -> BTreeMap<&'static str, BTreeMap<&'static str, u32>> {
        let of =
            |w: Window| self.counts.iter().filter(move |(_, n)| n[w as usize] > 0).map(move |(k, n)| (k.name(), n[w as usize]));
        Window::ALL.into_iter().map(|w| (w.name(), of(w).collect())).collect()
    }
}

/// `(rate 5m - baseline 1h) / sqrt(baseline)`, both in interactions a minute (impressions are not interactions); 0 without a
/// baseline.
fn velocity(counts: &[(Kind, [u32; 5])]) -> f64 {
    let total = |w: Window| counts.iter().filter(|(k, _)| *k != Kind::Impression).map(|(_, n)| n[w as usize]).sum::<u32>();
    let (rate, baseline) = (f64::from(total(Window::M5)) / 5.0, f64::from(total(Window::H1)) / 60.0);
    if baseline > 0.0 { (rate - baseline) / baseline.sqrt() } else { 0.0 }
}

/// Click-through rate (clicks per impression) and engagement rate (likes, comments, shares, follows, bookmarks, completions and
/// purchases per impression or view), over 24 h.
fn rates(counts: &[(Kind, [u32; 5])], priors: &Priors) -> (f64, f64) {
    let total = |kinds: &[Kind]| {
        let of = counts.iter().filter(|(k, _)| kinds.contains(k));
        of.map(|(_, n)| f64::from(n[Window::H24 as usize])).sum::<f64>()
    };
    let engaged =
        total(&[Kind::Like, Kind::Comment, Kind::Share, Kind::Follow, Kind::Bookmark, Kind::Completion, Kind::Purchase]);
    let (shown, clicked, viewed) = (total(&[Kind::Impression]), total(&[Kind::Click]), total(&[Kind::View]));
    let smoothed = |hits: f64, trials: f64, prior: f64| (hits + prior * priors.strength) / (trials.max(hits) + priors.strength);
    (smoothed(clicked, shown, priors.ctr), smoothed(engaged, shown + viewed, priors.engagement))
}
