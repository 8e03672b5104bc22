//! The terms of a candidate for a user, each between 0 and 1, and the reason that names the strongest.

use rustc_hash::FxHashMap;

use super::SlatesParams;
use super::board::{Board, Card, heat};
use super::candidates::Candidate;
use super::interests::norm;
use super::profiles::Profile;
use super::trending::{List, Order};
use crate::model::TokenId;
use crate::model::changes::{Interests, Scope};
use crate::model::slate::{Reason, Source};
use crate::model::time::Millis;
use crate::scoring::blend::{Blend, Term, Terms};

/// What a user likes in general and now, in a form that is quick to ask.
#[derive(Default)]
struct Taste {
    /// Weight in general and now.
    weights: FxHashMap<TokenId, [f64; 2]>,
    norms: [f64; 2],
}

/// How well an item fits a taste in general and now, and the token that gives most of each.
type Liking = [(f64, Option<TokenId>); 2];

impl Taste {
    fn of(interests: &Interests) -> Self {
        let mut weights: FxHashMap<TokenId, [f64; 2]> = FxHashMap::default();
        for (when, vector) in [&interests.long, &interests.short].into_iter().enumerate() {
            vector.iter().for_each(|(token, weight)| weights.entry(*token).or_default()[when] = *weight);
        }
        Self { weights, norms: [norm(&interests.long), norm(&interests.short)] }
    }

    /// The cosines with an item's tokens.
    fn likes(&self, card: &Card) -> Liking {
        let mut liking: Liking = [(0.0, None); 2];
        let mut best = [0.0; 2];
        for token in &card.tokens {
            let Some(weights) = self.weights.get(token) else { continue };
            for (when, weight) in weights.iter().enumerate() {
                liking[when].0 += weight;
                if *weight > best[when] {
                    (best[when], liking[when].1) = (*weight, Some(*token));
                }
            }
        }
        for (when, (sum, _)) in liking.iter_mut().enumerate() {
            let length = (card.tokens.len() as f64).sqrt() * self.norms[when];
            *sum = if length > 0.0 { *sum / length } else { 0.0 };
        }
        liking
    }
}

/// Affinity at which the collaborative term is one half.
const HALF_AFFINITY: f64 = 0.1;

/// What all candidates of one refresh share.
pub struct Features {
    taste: Taste,
    hottest: f64,
    clock: Millis,
    fresh_half_life: f64,
}

impl Features {
    /// Of one user at one clock.
    pub fn new(profile: &Profile, board: &Board, clock: Millis, params: &SlatesParams) -> Self {
        let hottest = board.list(List { order: Order::Trending, scope: Scope::Global }).first().map_or(0, |best| best.1);
        Self {
            taste: profile.interests.as_deref().map(Taste::of).unwrap_or_default(),
            hottest: heat(hottest),
            clock,
            fresh_half_life: params.fresh_half_life as f64,
        }
    }

    /// The terms of a candidate, and its reason.
    pub fn terms(&self, candidate: &Candidate, blend: &Blend) -> (Terms, Source, Reason) {
        let card = candidate.card;
        let [(content, token), (now, token_now)] = self.taste.likes(card);
        let terms = [
            content,
            candidate.affinity / (candidate.affinity + HALF_AFFINITY),
            self.heat(card),
            now,
            card.created().map_or(0.0, |created| libm::exp2(-((self.clock - created).max(0) as f64) / self.fresh_half_life)),
        ];
        let (source, reason) = reason(candidate, token.or(token_now), &blend.contributions(&terms));
        (terms, source, reason)
    }

    fn heat(&self, card: &Card) -> f64 {
        if self.hottest > 0.0 { card.heat / self.hottest } else { 0.0 }
    }
}

/// The source whose terms add most to the score.
fn reason(candidate: &Candidate, token: Option<TokenId>, adds: &Terms) -> (Source, Reason) {
    let of = |term: Term| adds[term as usize];
    let (collaborative, taste) = (of(Term::Collaborative), of(Term::Content) + of(Term::Interests));
    let (heat, freshness) = (of(Term::RealTime), of(Term::Freshness));
    let most = collaborative.max(taste).max(heat).max(freshness);
    let category = candidate.card.category;
    match (candidate.because, token) {
        _ if most <= 0.0 => (Source::Popular, Reason::Popular),
        (Some((kind, item)), _) if collaborative == most => (Source::Neighbours, Reason::Because { kind, item }),
        (_, Some(token)) if taste == most => (Source::Interests, Reason::Likes { token }),
        _ if heat == most => (Source::Trending, Reason::Trending { token: category }),
        _ => (Source::Fresh, Reason::New { token: category }),
    }
}
