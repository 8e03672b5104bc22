//! The terms of a candidate for a user, each between 0 and 1, and the reason that names the strongest.

use rustc_hash::FxHashMap;

use super::SlatesParams;
use super::board::{Board, Card};
use super::candidates::Candidate;
use super::interests::norm;
use super::profiles::Profile;
use super::trending::{List, Order};
use crate::model::TokenId;
use crate::model::changes::Scope;
use crate::model::slate::{Reason, Source};
use crate::model::time::Millis;
use crate::scoring::blend::{Blend, Term, Terms};

/// A taste in a form that is quick to ask.
#[derive(Default)]
struct Taste {
    weights: FxHashMap<TokenId, f64>,
    norm: f64,
}

impl Taste {
    fn of(weights: &[(TokenId, f64)]) -> Self {
        Self { weights: weights.iter().copied().collect(), norm: norm(weights) }
    }

    /// The cosine with an item's tokens, and the token that gives most of it.
    fn likes(&self, card: &Card) -> (f64, Option<TokenId>) {
        let Some(facts) = card.facts.as_deref().filter(|_| self.norm > 0.0) else { return (0.0, None) };
        let (mut sum, mut best, mut count) = (0.0, (0.0, None), 0u32);
        for token in facts.tokens() {
            count += 1;
            let weight = self.weights.get(&token).copied().unwrap_or(0.0);
            sum += weight;
            if weight > best.0 {
                best = (weight, Some(token));
            }
        }
        if count == 0 { (0.0, None) } else { (sum / (libm::sqrt(f64::from(count)) * self.norm), best.1) }
    }
}

/// Affinity at which the collaborative term is one half.
const HALF_AFFINITY: f64 = 0.1;

/// What all candidates of one refresh share.
pub struct Features<'a> {
    board: &'a Board,
    long: Taste,
    short: Taste,
    hottest: f64,
    clock: Millis,
    fresh_half_life: f64,
}

impl<'a> Features<'a> {
    /// Of one user at one clock.
    pub fn new(profile: &Profile, board: &'a Board, clock: Millis, params: &SlatesParams) -> Self {
        let taste = |pick: fn(&crate::model::changes::Interests) -> &Vec<(TokenId, f64)>| {
            profile.interests.as_deref().map(|i| Taste::of(pick(i))).unwrap_or_default()
        };
        let hottest = board.list(List { order: Order::Trending, scope: Scope::Global }).first().map_or(0, |best| best.1);
        Self {
            board,
            long: taste(|i| &i.long),
            short: taste(|i| &i.short),
            hottest: libm::log1p(hottest.max(0) as f64 / 1000.0),
            clock,
            fresh_half_life: params.fresh_half_life as f64,
        }
    }

    /// The terms of a candidate, and its reason.
    pub fn terms(&self, candidate: &Candidate, blend: &Blend) -> (Terms, Source, Reason) {
        let nothing = Card::default();
        let card = self.board.item(candidate.item).unwrap_or(&nothing);
        let (content, token) = self.long.likes(card);
        let (now, token_now) = self.short.likes(card);
        let terms = [
            content,
            candidate.affinity / (candidate.affinity + HALF_AFFINITY),
            self.heat(card),
            now,
            card.created().map_or(0.0, |created| libm::exp2(-((self.clock - created).max(0) as f64) / self.fresh_half_life)),
        ];
        let (source, reason) = reason(candidate, card, token.or(token_now), &blend.contributions(&terms));
        (terms, source, reason)
    }

    fn heat(&self, card: &Card) -> f64 {
        let trending = card.warmth.map_or(0, |w| w.trending_milli).max(0) as f64 / 1000.0;
        if self.hottest > 0.0 { libm::log1p(trending) / self.hottest } else { 0.0 }
    }
}

/// The source whose terms add most to the score.
fn reason(candidate: &Candidate, card: &Card, token: Option<TokenId>, adds: &Terms) -> (Source, Reason) {
    let of = |term: Term| adds[term as usize];
    let (collaborative, taste) = (of(Term::Collaborative), of(Term::Content) + of(Term::Interests));
    let (heat, freshness) = (of(Term::RealTime), of(Term::Freshness));
    let most = collaborative.max(taste).max(heat).max(freshness);
    match (candidate.because, token) {
        _ if most <= 0.0 => (Source::Popular, Reason::Popular),
        (Some((kind, item)), _) if collaborative == most => (Source::Neighbours, Reason::Because { kind, item }),
        (_, Some(token)) if taste == most => (Source::Interests, Reason::Likes { token }),
        _ if heat == most => (Source::Trending, Reason::Trending { token: card.category() }),
        _ => (Source::Fresh, Reason::New { token: card.category() }),
    }
}
