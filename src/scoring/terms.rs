//! The terms of a candidate for a user, each between 0 and 1, and the reason that names the strongest. The dataflow asks it at a
//! refresh and the shim where a caller brings the candidates: both get the same from the same.

use rustc_hash::FxHashMap;

use super::blend::{Blend, Term, Terms};
use crate::model::changes::Interests;
use crate::model::slate::{Reason, Source};
use crate::model::time::Millis;
use crate::model::{ItemId, Kind, TokenId};

/// What is known of a candidate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// What it is like: categories, tags, author.
    pub tokens: &'a [TokenId],
    /// Its first category.
    pub category: Option<TokenId>,
    pub created: Option<Millis>,
    /// [`heat`] of its trending score.
    pub heat: f64,
    /// How much the history speaks for it, and what of it speaks loudest.
    pub affinity: f64,
    pub because: Option<(Kind, ItemId)>,
    /// How alike its content is to that of something the user took, 0 to 1, and to what of it most.
    pub alike: Option<(f64, (Kind, ItemId))>,
    /// How much the towers say for it, 0 to 1.
    pub tower: Option<f64>,
}

/// A trending score (in thousandths) on the scale by which candidates are compared: twice as hot is one step more, not twice as good.
pub fn heat(trending_milli: i64) -> f64 {
    libm::log1p(trending_milli.max(0) as f64 / 1000.0)
}

/// The length of a vector of weights.
pub fn norm(weights: &[(TokenId, f64)]) -> f64 {
    weights.iter().map(|(_, w)| w * w).sum::<f64>().sqrt()
}

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
    fn likes(&self, tokens: &[TokenId]) -> Liking {
        let mut liking: Liking = [(0.0, None); 2];
        let mut best = [0.0; 2];
        for token in tokens {
            let Some(weights) = self.weights.get(token) else { continue };
            for (when, weight) in weights.iter().enumerate() {
                liking[when].0 += weight;
                if *weight > best[when] {
                    (best[when], liking[when].1) = (*weight, Some(*token));
                }
            }
        }
        for (when, (sum, _)) in liking.iter_mut().enumerate() {
            let length = (tokens.len() as f64).sqrt() * self.norms[when];
            *sum = if length > 0.0 { *sum / length } else { 0.0 };
        }
        liking
    }
}

/// Affinity at which the collaborative term is one half.
const HALF_AFFINITY: f64 = 0.1;

/// What all candidates of one refresh share.
pub struct Viewer {
    taste: Taste,
    hottest: f64,
    clock: Millis,
    fresh_half_life: f64,
}

impl Viewer {
    /// Of one user at one clock; `hottest_milli` is the trending score of the hottest item there is.
    pub fn new(interests: Option<&Interests>, hottest_milli: i64, clock: Millis, fresh_half_life: Millis) -> Self {
        let taste = interests.map(Taste::of).unwrap_or_default();
        Self { taste, hottest: heat(hottest_milli), clock, fresh_half_life: fresh_half_life as f64 }
    }

    /// How well an item of these tokens fits what the user likes in general.
    pub fn content(&self, tokens: &[TokenId]) -> f64 {
        self.taste.likes(tokens)[0].0
    }

    /// Whether the user likes items of this category in general.
    pub fn is_fond_of(&self, category: Option<TokenId>) -> bool {
        category.and_then(|category| self.taste.weights.get(&category)).is_some_and(|[long, _]| *long > 0.0)
    }

    /// The terms of a candidate, and its reason; where the towers speak loudest, what of the history they speak of is for them to say.
    pub fn terms(&self, known: &Known, blend: &Blend) -> (Terms, Source, Reason) {
        let [(named, token), (now, token_now)] = self.taste.likes(known.tokens);
        // what it is called or what it is like, whichever fits better
        let alike = known.alike.filter(|(likeness, _)| *likeness > named);
        let collaborative = known.affinity / (known.affinity + HALF_AFFINITY);
        let terms = [
            alike.map_or(named, |(likeness, _)| likeness),
            collaborative.max(known.tower.unwrap_or(0.0)),
            if self.hottest > 0.0 { (known.heat / self.hottest).min(1.0) } else { 0.0 }, // the list may be older than the item's signals
            now,
            known.created.map_or(0.0, |created| libm::exp2(-((self.clock - created).max(0) as f64) / self.fresh_half_life)),
        ];
        let towers = known.tower.is_some_and(|tower| tower > collaborative);
        let like = alike.map(|(_, like)| like);
        let (source, reason) = reason(known, like, token.or(token_now), towers, &blend.contributions(&terms));
        (terms, source, reason)
    }
}

/// The source whose terms add most to the score.
fn reason(known: &Known, alike: Option<(Kind, ItemId)>, token: Option<TokenId>, towers: bool, adds: &Terms) -> (Source, Reason) {
    let of = |term: Term| adds[term as usize];
    let (collaborative, taste) = (of(Term::Collaborative), of(Term::Content) + of(Term::Interests));
    let (heat, freshness) = (of(Term::RealTime), of(Term::Freshness));
    let most = collaborative.max(taste).max(heat).max(freshness);
    let like = alike.filter(|_| taste == most && of(Term::Content) >= of(Term::Interests));
    match (known.because, token) {
        _ if most <= 0.0 => (Source::Popular, Reason::Popular),
        _ if towers && collaborative == most => (Source::Towers, Reason::Popular),
        (Some((kind, item)), _) if collaborative == most => (Source::Neighbours, Reason::Because { kind, item }),
        _ if let Some((kind, item)) = like => (Source::Content, Reason::Because { kind, item }),
        (_, Some(token)) if taste == most => (Source::Interests, Reason::Likes { token }),
        _ if heat == most => (Source::Trending, Reason::Trending { token: known.category }),
        _ => (Source::Fresh, Reason::New { token: known.category }),
    }
}
