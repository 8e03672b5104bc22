//! Candidates of one refresh: what may stand in the user's slate, from every source, each item once.
//!
//! Sources in order: neighbours of the latest items of the history; what factors say, where they are on; items of the categories the
//! user likes; trending; fresh; popular, as far as room is left. To add a source: a function here, and its line in [`gather`].

use rustc_hash::FxHashMap;

use super::SlatesParams;
use super::board::Board;
use super::profiles::{Filter, Profile, Recent};
use super::trending::{List, Order};
use crate::model::changes::Scope;
use crate::model::kind::Weights;
use crate::model::{ItemId, Kind};

/// An item to be scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub item: ItemId,
    /// Sum over the history of how much each item of it speaks for this one.
    pub affinity: f64,
    /// The item of the history that speaks loudest.
    pub because: Option<(Kind, ItemId)>,
}

/// How much each further item back in the history counts.
const RECENCY: f64 = 0.9;

/// Settings, and buffers that are reused from refresh to refresh.
pub struct Candidates {
    params: SlatesParams,
    weights: Weights,
    damping: f64,
    voices: FxHashMap<ItemId, Voices>,
    found: Vec<Candidate>,
    places: FxHashMap<ItemId, usize>,
}

#[derive(Clone, Copy, Debug)]
struct Voices {
    sum: f64,
    loudest: f64,
    because: (Kind, ItemId),
}

impl Candidates {
    /// `damping` as in `[neighbours]`.
    pub fn new(params: SlatesParams, weights: Weights, damping: f64) -> Self {
        Self { params, weights, damping, voices: FxHashMap::default(), found: Vec::new(), places: FxHashMap::default() }
    }

    /// All candidates of a user, in a fixed order.
    pub fn gather(&mut self, profile: &Profile, recent: &[Recent], liked: &[(ItemId, i32)], board: &Board) -> &[Candidate] {
        let filter = profile.filter();
        self.found.clear();
        self.places.clear();
        self.neighbours(recent, board, &filter);
        self.liked(liked, board, &filter);
        let (interests, trending, fresh, kept) =
            (self.params.interests, self.params.trending, self.params.fresh, self.params.candidates);
        let categories = categories(profile, recent, board);
        self.lists(&[Order::Trending, Order::Popular], &categories, interests, board, &filter);
        self.lists(&[Order::Trending], &[Scope::Global], trending, board, &filter);
        self.lists(&[Order::Fresh], &categories, fresh / 2, board, &filter);
        self.lists(&[Order::Fresh], &[Scope::Global], fresh - fresh / 2, board, &filter);
        let room = kept.saturating_sub(self.found.len());
        self.lists(&[Order::Popular, Order::Fresh], &[Scope::Global], room, board, &filter);
        &self.found
    }

    /// What the learned blend's own sources do not bring: items of the categories the user likes, and new ones nobody took yet; then
    /// popular ones, as far as room is left beside `known`.
    pub fn explore(&mut self, profile: &Profile, recent: &[Recent], board: &Board, known: usize) -> &[Candidate] {
        let filter = profile.filter();
        self.found.clear();
        self.places.clear();
        let (interests, fresh, kept) = (self.params.interests, self.params.fresh, self.params.candidates);
        let categories = categories(profile, recent, board);
        self.lists(&[Order::Trending, Order::Popular], &categories, interests, board, &filter);
        self.lists(&[Order::Fresh], &categories, fresh / 2, board, &filter);
        self.lists(&[Order::Fresh], &[Scope::Global], fresh - fresh / 2, board, &filter);
        let room = kept.saturating_sub(known + self.found.len());
        self.lists(&[Order::Popular, Order::Fresh], &[Scope::Global], room, board, &filter);
        &self.found
    }

    /// The items nearest to the history, by the cosine of who took them, each item of the history weighted by its kind and recency.
    fn neighbours(&mut self, recent: &[Recent], board: &Board, filter: &Filter) {
        self.voices.clear();
        let heaviest = self.weights.milli(Kind::Follow).max(1) as f64;
        for (back, from) in recent.iter().enumerate() {
            let Some((card, nearest)) = board.item(from.item).and_then(|c| Some((c, c.nearest.as_ref()?))) else { continue };
            let weight = (self.weights.milli(from.kind) as f64 / heaviest).clamp(0.1, 1.0) * libm::pow(RECENCY, back as f64);
            let loudness = weight / (f64::from(card.users) + self.damping).sqrt();
            for neighbour in nearest.iter() {
                let voice = loudness * f64::from(neighbour.users);
                let because = (from.kind, from.item);
                let voices = self.voices.entry(neighbour.item).or_insert(Voices { sum: 0.0, loudest: 0.0, because });
                voices.sum += voice;
                if voice > voices.loudest {
                    (voices.loudest, voices.because) = (voice, because);
                }
            }
        }
        let fitting = self.voices.iter().filter_map(|(item, voices)| {
            let card = board.item(*item)?;
            let affinity = voices.sum / (f64::from(card.users) + self.damping).sqrt();
            let allowed = filter.allows(*item, card.facts.as_deref());
            allowed.then_some(Candidate { item: *item, affinity, because: Some(voices.because) })
        });
        let mut best: Vec<Candidate> = fitting.collect();
        best.sort_unstable_by(|a, b| b.affinity.total_cmp(&a.affinity).then(a.item.cmp(&b.item)));
        best.truncate(self.params.neighbours);
        for candidate in best {
            self.push(candidate);
        }
    }

    /// What the factors say the user likes.
    fn liked(&mut self, liked: &[(ItemId, i32)], board: &Board, filter: &Filter) {
        for (item, _) in liked {
            let facts = board.item(*item).and_then(|card| card.facts.as_deref());
            if !self.places.contains_key(item) && filter.allows(*item, facts) {
                self.push(Candidate { item: *item, affinity: 0.0, because: None });
            }
        }
    }

    /// Up to `most` new items from the tops of lists: an equal share of each scope in turn, the first order first.
    fn lists(&mut self, orders: &[Order], scopes: &[Scope], most: usize, board: &Board, filter: &Filter) {
        let mut room = most;
        for (turn, scope) in scopes.iter().enumerate() {
            let mut share = room.div_ceil(scopes.len() - turn);
            for order in orders {
                for (item, _) in board.list(List { order: *order, scope: *scope }) {
                    if share == 0 {
                        break;
                    }
                    let facts = board.item(*item).and_then(|c| c.facts.as_deref());
                    if !self.places.contains_key(item) && filter.allows(*item, facts) {
                        self.push(Candidate { item: *item, affinity: 0.0, because: None });
                        share -= 1;
                        room -= 1;
                    }
                }
            }
        }
    }

    fn push(&mut self, candidate: Candidate) {
        self.places.insert(candidate.item, self.found.len());
        self.found.push(candidate);
    }
}

/// How many categories are asked for candidates.
const CATEGORIES: usize = 6;

/// The categories the user likes most, in general and now, then those of the latest items.
fn categories(profile: &Profile, recent: &[Recent], board: &Board) -> Vec<Scope> {
    let interests = profile.interests.as_deref();
    let liked = interests.into_iter().flat_map(|i| i.long.iter().take(8).chain(i.short.iter().take(4)).map(|(token, _)| *token));
    let latest = recent.iter().take(8).filter_map(|r| board.item(r.item).and_then(|c| c.category()));
    let mut scopes = Vec::with_capacity(CATEGORIES);
    for token in liked.chain(latest) {
        let scope = Scope::Category(token);
        let known = [Order::Trending, Order::Popular].iter().any(|o| !board.list(List { order: *o, scope }).is_empty());
        if known && !scopes.contains(&scope) && scopes.len() < CATEGORIES {
            scopes.push(scope);
        }
    }
    scopes
}
