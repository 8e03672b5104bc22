//! Candidates of one refresh: what may stand in the user's slate, from every source, each item once.
//!
//! Sources in order: neighbours of the latest items of the history; what factors say, where they are on; what is like the latest items,
//! where content is looked at; what towers find, where there are some; items of the categories the user likes; what is near where they live; trending; fresh; popular, as far as room is left.
//!
//! To add a source: a function here, and its line in [`gather`].

use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

use super::SlatesParams;
use super::alike::{Alike, Like};
use super::board::{Board, Card};
use super::profiles::{Filter, History, Profile, Recent};
use super::surfaces::Only;
use super::towers::Found;
use super::trending::{List, Order};
use crate::model::catalogue::User;
use crate::model::changes::Scope;
use crate::model::kind::Weights;
use crate::model::place::{Place, REGION};
use crate::model::time::Millis;
use crate::model::{ItemId, Kind};
use crate::scoring::affinity::{Voices, loudness};
use crate::scoring::terms::Known;

/// An item to be scored.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub item: ItemId,
    pub card: &'a Card,
    /// Sum over the history of how much each item of it speaks for this one.
    pub affinity: f64,
    /// The item of the history that speaks loudest.
    pub because: Option<(Kind, ItemId)>,
}

impl Candidate<'_> {
    /// What its terms are made of.
    pub fn known(&self) -> Known<'_> {
        let Self { card, affinity, because, .. } = *self;
        let (tokens, category, created, heat) = (&card.tokens[..], card.category, card.created(), card.heat);
        Known { tokens, category, created, heat, affinity, because, ..Known::default() }
    }

    /// The same with what its content is like, and what the towers say.
    pub fn known_with(&self, alike: Option<&Alike>, found: Option<&Found>) -> Known<'_> {
        let like = |Like { likeness, kind, item }| (likeness, (kind, item));
        let tower = found.map(|found| f64::from(found.says(self.item).clamp(0.0, 1.0)));
        Known { alike: alike.and_then(|alike| alike.to(self.item)).map(like), tower, ..self.known() }
    }
}

/// For whom candidates are gathered, and when.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub profile: &'a Profile,
    pub history: &'a History,
    /// What the factors say they like.
    pub liked: &'a [ItemId],
    /// What the content of items says to them, where it is looked at.
    pub alike: Option<&'a Alike<'a>>,
    /// What the towers say to them, where there are some.
    pub found: Option<&'a Found<'a>>,
    pub clock: Millis,
}

/// Settings, and buffers that are reused from refresh to refresh.
pub struct Candidates {
    params: SlatesParams,
    only: Arc<Only>,
    weights: Weights,
    damping: f64,
    /// What is alike: how many at most.
    alike: usize,
    voices: FxHashMap<ItemId, Voices>,
    heard: Vec<Heard>,
    known: FxHashSet<ItemId>,
}

/// What the history says of an item, and what that makes of it.
#[derive(Clone, Copy, Debug)]
struct Heard {
    item: ItemId,
    affinity: f64,
    back: usize,
}

/// So many more than are wanted are put in order, for some of them may not be shown.
const SPARE: usize = 32;

/// What may be shown: of the user's rules and the surface's.
struct Gates<'a> {
    user: Filter<'a>,
    only: &'a Only,
    clock: Millis,
    /// Where the user lives.
    here: Option<Place>,
}

impl<'a> Gates<'a> {
    fn new(asked: &Asked<'a>, only: &'a Only) -> Self {
        Self { user: asked.profile.filter(), only, clock: asked.clock, here: asked.profile.said.as_deref().and_then(User::place) }
    }

    fn pass(&self, item: ItemId, card: &Card) -> bool {
        self.user.passes(item, card.gate.as_ref()) && self.only.passes(card, self.clock, self.here)
    }
}

impl Candidates {
    /// `damping` as in `[neighbours]`, `alike` as `kept` in `[content]`.
    pub fn new(params: SlatesParams, only: Only, weights: Weights, damping: f64, alike: usize) -> Self {
        let (voices, heard, known) = (FxHashMap::default(), Vec::new(), FxHashSet::default());
        Self { params, only: Arc::new(only), weights, damping, alike, voices, heard, known }
    }

    /// All candidates of a user, in a fixed order; the less is known of them (`coldness`, 0 to 1), the more of where they live and what
    /// they speak.
    pub fn gather<'a>(&mut self, asked: &Asked, coldness: f64, board: &'a Board) -> Vec<Candidate<'a>> {
        let only = self.only.clone();
        let gates = Gates::new(asked, &only);
        let mut all = Vec::with_capacity(self.params.candidates);
        let found = &mut all;
        self.known.clear();
        self.neighbours(&asked.history.latest, board, &gates, found);
        asked.liked.iter().for_each(|item| _ = self.push(*item, board, &gates, found));
        self.alike(asked, board, &gates, found);
        self.found(asked, board, &gates, found);
        self.near(board, &gates, found);
        let (interests, trending, fresh, kept) =
            (self.params.interests, self.params.trending, self.params.fresh, self.params.candidates);
        let (categories, everywhere) = (categories(asked, board), only.scopes());
        let (own_segments, segments) = (only.segments().collect::<Vec<_>>(), segments(asked.profile, gates.here));
        self.lists(&[Order::Trending, Order::Popular], &categories, interests, board, &gates, found);
        self.lists(&[Order::Trending], &own_segments, trending, board, &gates, found);
        self.lists(&[Order::Trending], &segments, share(trending / 2, coldness), board, &gates, found);
        self.lists(&[Order::Trending], &everywhere, trending, board, &gates, found);
        self.lists(&[Order::Fresh], &categories, fresh / 2, board, &gates, found);
        self.lists(&[Order::Fresh], &everywhere, fresh - fresh / 2, board, &gates, found);
        let room = kept.saturating_sub(found.len());
        self.lists(&[Order::Popular, Order::Fresh], &everywhere, room, board, &gates, found);
        all
    }

    /// What the learned blend's own sources do not bring: items of the categories the user likes, and new ones nobody took yet; then
    /// popular ones, as far as room is left beside `known`.
    pub fn explore<'a>(&mut self, asked: &Asked, coldness: f64, board: &'a Board, known: usize) -> Vec<Candidate<'a>> {
        let only = self.only.clone();
        let gates = Gates::new(asked, &only);
        let mut all = Vec::with_capacity(self.params.candidates);
        let found = &mut all;
        self.known.clear();
        let (interests, fresh, kept) = (self.params.interests, self.params.fresh, self.params.candidates);
        let (categories, everywhere) = (categories(asked, board), only.scopes());
        let segments = segments(asked.profile, gates.here);
        self.near(board, &gates, found);
        self.lists(&[Order::Trending, Order::Popular], &categories, interests, board, &gates, found);
        self.lists(&[Order::Trending], &segments, share(interests / 2, coldness), board, &gates, found);
        self.lists(&[Order::Fresh], &categories, fresh / 2, board, &gates, found);
        self.lists(&[Order::Fresh], &everywhere, fresh - fresh / 2, board, &gates, found);
        let room = kept.saturating_sub(known + found.len());
        self.lists(&[Order::Popular, Order::Fresh], &everywhere, room, board, &gates, found);
        all
    }

    /// What the history says of each of these items.
    pub fn look_up<'a>(&mut self, items: &[ItemId], recent: &[Recent], board: &'a Board) -> Vec<Candidate<'a>> {
        self.listen(recent, board);
        let candidate = |item: &ItemId| {
            let voices = self.voices.get(item);
            let affinity = voices.map_or(0.0, |voices| voices.affinity(board.users(*item), self.damping));
            let because = voices.map(|voices| (recent[voices.back].kind, recent[voices.back].item));
            Candidate { item: *item, card: board.item(*item), affinity, because }
        };
        items.iter().map(candidate).collect()
    }

    /// What is likest to what the user took lately.
    fn alike<'a>(&mut self, asked: &Asked, board: &'a Board, gates: &Gates, found: &mut Vec<Candidate<'a>>) {
        let Some(alike) = asked.alike else { return };
        self.first(alike.best(), self.alike, board, gates, found);
    }

    /// What the towers find.
    fn found<'a>(&mut self, asked: &Asked, board: &'a Board, gates: &Gates, found: &mut Vec<Candidate<'a>>) {
        let Some(towers) = asked.found else { return };
        self.first(towers.best(), towers.kept, board, gates, found);
    }

    /// Up to `most` new items from the top of a list.
    fn first<'a>(&mut self, list: &[ItemId], most: usize, board: &'a Board, gates: &Gates, found: &mut Vec<Candidate<'a>>) {
        let mut left = most;
        for item in list {
            if left == 0 {
                break;
            }
            left -= usize::from(self.push(*item, board, gates, found));
        }
    }

    /// What is in the region where the user lives, then in the regions around it.
    fn near<'a>(&mut self, board: &'a Board, gates: &Gates, found: &mut Vec<Candidate<'a>>) {
        let (most, before) = (self.params.near, found.len());
        let Some(region) = gates.here.filter(|_| most > 0).map(|here| here.cell(REGION)) else { return };
        let orders = [Order::Trending, Order::Popular, Order::Fresh];
        self.lists(&orders, &[Scope::Cell(region)], most, board, gates, found);
        let around = region.ring(1).into_iter().map(Scope::Cell);
        let around: Vec<Scope> = around.filter(|scope| is_told(&orders, *scope, board)).collect();
        self.lists(&orders, &around, most - (found.len() - before), board, gates, found);
    }

    /// The items nearest to the history, by the cosine of who took them, each item of the history weighted by its kind and recency.
    fn neighbours<'a>(&mut self, recent: &[Recent], board: &'a Board, gates: &Gates, found: &mut Vec<Candidate<'a>>) {
        self.listen(recent, board);
        let mut left = std::mem::take(&mut self.heard);
        let heard = |(item, voices): (&ItemId, &Voices)| Heard {
            item: *item,
            affinity: voices.affinity(board.users(*item), self.damping),
            back: voices.back,
        };
        left.extend(self.voices.iter().map(heard));
        while found.len() < self.params.neighbours && !left.is_empty() {
            // a few of them may not be shown, which is asked of those alone whose turn it is
            let best = (self.params.neighbours - found.len() + SPARE).min(left.len());
            let order = |a: &Heard, b: &Heard| b.affinity.total_cmp(&a.affinity).then(a.item.cmp(&b.item));
            if best < left.len() {
                left.select_nth_unstable_by(best - 1, order);
            }
            left[..best].sort_unstable_by(order);
            for Heard { item, affinity, back } in left.drain(..best) {
                if found.len() == self.params.neighbours {
                    break;
                }
                let card = board.item(item);
                let because = Some((recent[back].kind, recent[back].item));
                if !card.is_empty() && gates.pass(item, card) {
                    found.push(Candidate { item, card, affinity, because });
                }
            }
        }
        left.clear();
        self.heard = left;
        self.known.extend(found.iter().map(|candidate| candidate.item));
    }

    /// What the history says of each item near it.
    fn listen(&mut self, recent: &[Recent], board: &Board) {
        self.voices.clear();
        for (back, from) in recent.iter().enumerate() {
            let card = board.item(from.item);
            let Some(nearest) = &card.nearest else { continue };
            let loudness = loudness(from.kind, back, card.users, &self.weights, self.damping);
            for neighbour in nearest.iter() {
                self.voices.entry(neighbour.item).or_default().hear(loudness * f64::from(neighbour.users), back);
            }
        }
    }

    /// Up to `most` new items from the tops of lists: an equal share of each scope in turn, the first order first.
    fn lists<'a>(
        &mut self,
        orders: &[Order],
        scopes: &[Scope],
        most: usize,
        board: &'a Board,
        gates: &Gates,
        found: &mut Vec<Candidate<'a>>,
    ) {
        let mut room = most;
        for (turn, scope) in scopes.iter().enumerate() {
            let mut share = room.div_ceil(scopes.len() - turn);
            for order in orders {
                for (item, _) in board.list(List { order: *order, scope: *scope }) {
                    if share == 0 {
                        break;
                    }
                    if self.push(*item, board, gates, found) {
                        share -= 1;
                        room -= 1;
                    }
                }
            }
        }
    }

    /// Whether an item is one more candidate: not found before, and the user may be shown it.
    fn push<'a>(&mut self, item: ItemId, board: &'a Board, gates: &Gates, found: &mut Vec<Candidate<'a>>) -> bool {
        if self.known.contains(&item) {
            return false;
        }
        let card = board.item(item);
        let shown = gates.pass(item, card);
        if shown {
            self.known.insert(item);
            found.push(Candidate { item, card, affinity: 0.0, because: None });
        }
        shown
    }
}

/// A share of so many, to the nearest.
fn share(most: usize, of: f64) -> usize {
    (most as f64 * of + 0.5) as usize
}

/// Where a user lives and what they speak, as they said at sign-up.
fn segments(profile: &Profile, here: Option<Place>) -> Vec<Scope> {
    let language = profile.said.as_deref().and_then(|said| said.language);
    here.map(|here| Scope::Cell(here.cell(REGION))).into_iter().chain(language.map(Scope::Language)).collect()
}

/// How many categories are asked for candidates.
const CATEGORIES: usize = 6;

/// The categories the user likes most, in general and now, then those of the latest items.
fn categories(asked: &Asked, board: &Board) -> Vec<Scope> {
    let (recent, interests) = (&asked.history.latest, asked.profile.interests.as_deref());
    let liked = interests.into_iter().flat_map(|i| i.long.iter().take(8).chain(i.short.iter().take(4)).map(|(token, _)| *token));
    let latest = recent.iter().take(8).filter_map(|r| board.item(r.item).category);
    let mut scopes = Vec::with_capacity(CATEGORIES);
    for token in liked.chain(latest) {
        let scope = Scope::Category(token);
        let known = is_told(&[Order::Trending, Order::Popular], scope, board);
        if known && !scopes.contains(&scope) && scopes.len() < CATEGORIES {
            scopes.push(scope);
        }
    }
    scopes
}

/// Whether there is anything in one of the lists of a scope.
fn is_told(orders: &[Order], scope: Scope, board: &Board) -> bool {
    orders.iter().any(|order| !board.list(List { order: *order, scope }).is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataflows::board::Post;
    use crate::dataflows::surfaces::OnlyParams;
    use crate::model::TokenId;
    use crate::model::catalogue::Item;
    use crate::model::changes::Neighbour;
    use crate::model::ids::TokenKind;

    fn defaults() -> SlatesParams {
        let defaults: toml::Table = toml::from_str(include_str!("../../overdrive.toml")).expect("the defaults");
        defaults["slates"].clone().try_into().expect("the section of slates")
    }

    /// Of a hundred items near the history the first that may be shown, whether few or nearly all of the best may not.
    #[test]
    fn the_nearest_that_may_be_shown_are_found_however_many_may_not() {
        let mut board = Board::default();
        let near = |n: u64| Neighbour { item: ItemId(n), similarity_micro: 0, users: (200 - n) as u32 };
        board.post(Post::Neighbours(ItemId(999), 9, Arc::new((1..=100).map(near).collect())));
        for n in 1..=100 {
            board.post(Post::Item(ItemId(n), Some(Arc::new(Item { available: true, ..Item::default() }))));
        }
        let recent = [Recent { item: ItemId(999), kind: Kind::Like, at: 0 }];
        for blocked in [0, 2, SPARE as u64 + 9, 98, 100] {
            let params = SlatesParams { neighbours: 3, ..defaults() };
            let (weights, only) = (Weights([1_000; Kind::ALL.len()]), Only::new(&OnlyParams::default()));
            let mut candidates = Candidates::new(params, only.clone(), weights, 5.0, 0);
            let mut profile = Profile::default();
            profile.said = Some(Arc::new(User { blocked_items: (1..=blocked).map(ItemId).collect(), ..User::default() }));
            let mut found = Vec::new();
            let gates = Gates { user: profile.filter(), only: &only, clock: 0, here: None };
            candidates.neighbours(&recent, &board, &gates, &mut found);
            let found: Vec<u64> = found.iter().map(|candidate| candidate.item.0).collect();
            let expected: Vec<u64> = (blocked + 1..=100).take(3).collect();
            assert_eq!(found, expected, "{blocked} are blocked");
        }
    }

    /// What trends only in a language or a region is for those who said at sign-up that it is theirs, and the less the more they took.
    #[test]
    fn c21_what_trends_where_they_live_hands_over_to_what_they_took() {
        let params = defaults();
        let german = TokenId::typed(TokenKind::Language, "de");
        let place = Place::new(48.137, 11.575).expect("on the earth");
        let mut board = Board::default();
        let scopes = [Scope::Language(german), Scope::Cell(place.cell(REGION))];
        for (scope, from) in scopes.into_iter().zip([100u64, 200]) {
            let items: Vec<ItemId> = (from..from + 50).map(ItemId).collect();
            for item in &items {
                board.post(Post::Item(*item, Some(Arc::new(Item { available: true, ..Item::default() }))));
            }
            let best = items.into_iter().map(|item| (item, 5)).collect();
            board.post(Post::List((List { order: Order::Trending, scope }, Arc::new(best))));
        }
        let most = params.trending / 2;
        let mut candidates =
            Candidates::new(params, Only::new(&OnlyParams::default()), Weights([1_000; Kind::ALL.len()]), 5.0, 0);
        let said = User { language: Some(german), lat: Some(48.137), lon: Some(11.575), ..User::default() };
        let mut found = |said: Option<User>, coldness: f64| -> (usize, usize) {
            let mut profile = Profile::default();
            profile.said = said.map(Arc::new);
            let asked = Asked { profile: &profile, history: &History::default(), liked: &[], alike: None, found: None, clock: 0 };
            let found = candidates.gather(&asked, coldness, &board);
            (found.iter().filter(|of| of.item.0 < 200).count(), found.iter().filter(|of| of.item.0 >= 200).count())
        };
        assert_eq!(found(Some(said.clone()), 1.0), (most / 2, most / 2));
        assert_eq!(found(Some(User { language: None, ..said.clone() }), 1.0), (0, most));
        assert_eq!(found(None, 1.0), (0, 0));
        assert_eq!(found(Some(said.clone()), 0.5), (most / 4, most / 4));
        assert_eq!(found(Some(said), 0.0), (0, 0));
    }

    /// A surface about a language has what trends in it, however well a user is known.
    #[test]
    fn c20_a_surface_of_a_language_looks_where_its_items_are() {
        let only = OnlyParams { languages: vec!["de".into()], ..OnlyParams::default() };
        let german = TokenId::typed(TokenKind::Language, "de");
        let mut board = Board::default();
        let of = |language| Item { available: true, language, ..Item::default() };
        for n in 1..=60 {
            board.post(Post::Item(ItemId(n), Some(Arc::new(of((n <= 30).then_some(german))))));
        }
        let list = |scope, from: u64| {
            let best = (from..from + 30).map(|n| (ItemId(n), 100 - n as i64)).collect();
            Post::List((List { order: Order::Trending, scope }, Arc::new(best)))
        };
        board.post(list(Scope::Global, 31));
        board.post(list(Scope::Language(german), 1));
        let params = SlatesParams { trending: 20, ..defaults() };
        let mut candidates = Candidates::new(params, Only::new(&only), Weights([1_000; Kind::ALL.len()]), 5.0, 0);
        let (profile, history) = (Profile::default(), History::default());
        let asked = Asked { profile: &profile, history: &history, liked: &[], alike: None, found: None, clock: 0 };
        for coldness in [0.0, 1.0] {
            let found: Vec<u64> = candidates.gather(&asked, coldness, &board).iter().map(|of| of.item.0).collect();
            assert_eq!(found, (1..=20).collect::<Vec<_>>());
        }
    }

    /// What is near comes from the user's own region first, and nothing from farther away than a surface allows.
    #[test]
    fn c20_a_surface_may_look_where_the_user_lives() {
        let (home, most) = (Place::new(48.137, 11.575).expect("on the earth"), 60.0);
        let mut board = Board::default();
        let mut post = |scope: Scope, from: u64, lat: f64| {
            for n in from..from + 20 {
                let (lat, lon) = (Some(lat + 0.001 * (n - from) as f64), Some(11.575));
                board.post(Post::Item(ItemId(n), Some(Arc::new(Item { available: true, lat, lon, ..Item::default() }))));
            }
            let best = (from..from + 20).map(|n| (ItemId(n), 100 - n as i64)).collect();
            board.post(Post::List((List { order: Order::Fresh, scope }, Arc::new(best))));
        };
        post(Scope::Cell(home.cell(REGION)), 1, 48.137);
        post(Scope::Cell(home.cell(REGION).ring(1)[0]), 101, 48.5);
        post(Scope::Global, 201, 40.0);
        let lives = User { lat: Some(48.137), lon: Some(11.575), ..User::default() };
        let found = |near: usize, within_km: Option<f64>, said: Option<User>| -> Vec<u64> {
            let params = SlatesParams { near, fresh: 4, candidates: 30, ..defaults() };
            let only = Only::new(&OnlyParams { within_km, ..OnlyParams::default() });
            let mut candidates = Candidates::new(params, only, Weights([1_000; Kind::ALL.len()]), 5.0, 0);
            let mut profile = Profile::default();
            profile.said = said.map(Arc::new);
            let asked = Asked { profile: &profile, history: &History::default(), liked: &[], alike: None, found: None, clock: 0 };
            candidates.gather(&asked, 0.0, &board).iter().map(|of| of.item.0).collect()
        };
        let (own, around, far) = (1..=20, 101..=105, 201..=205);
        assert_eq!(found(25, None, Some(lives.clone())), own.clone().chain(around.clone()).chain(far).collect::<Vec<_>>());
        assert_eq!(found(25, Some(most), Some(lives.clone())), own.clone().chain(around).collect::<Vec<_>>(), "nothing far away");
        assert_eq!(found(25, Some(most), None), Vec::<u64>::new(), "nobody knows where they live");
        assert_eq!(found(0, Some(1.0), Some(lives)), Vec::<u64>::new(), "near is not asked for");
    }
}
