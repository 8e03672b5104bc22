//! What makes a slate of one surface: the candidates, their weights, how much of the same, what is left out, and how long it is. Home
//! is made by `[slates]` and `[blend]`; a surface of `[surfaces]` by what it says itself, and by theirs where it says nothing.

use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

use super::board::{Board, Card};
use super::candidates::{Asked, Candidate, Candidates};
use super::explore::{Explore, Explorer};
use super::trending::{List, Order};
use super::{Params, SlatesParams};
use crate::model::changes::Scope;
use crate::model::ids::TokenKind;
use crate::model::place::Place;
use crate::model::slate::{Reason, Source, Surface};
use crate::model::time::{Millis, maybe_millis};
use crate::model::{ItemId, TokenId};
use crate::scoring::at_hand;
use crate::scoring::blend::{self, Handover, Terms};
use crate::scoring::columns;
use crate::scoring::diversity::{Entry, Race};
use crate::scoring::terms::{Known, Viewer};

/// `[surfaces]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SurfacesParams {
    pub list: Vec<SurfaceParams>,
}

/// One surface of the settings; what is `None` is as in `[slates]` and `[blend]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SurfaceParams {
    pub name: String,
    #[serde(default)]
    pub kept: Option<usize>,
    #[serde(default)]
    pub candidates: Option<usize>,
    #[serde(default)]
    pub neighbours: Option<usize>,
    #[serde(default)]
    pub interests: Option<usize>,
    #[serde(default)]
    pub trending: Option<usize>,
    #[serde(default)]
    pub fresh: Option<usize>,
    #[serde(default)]
    pub near: Option<usize>,
    #[serde(default)]
    pub author_decay: Option<f64>,
    #[serde(default)]
    pub author_floor: Option<f64>,
    #[serde(default)]
    pub category_decay: Option<f64>,
    #[serde(default)]
    pub category_floor: Option<f64>,
    #[serde(default, with = "maybe_millis")]
    pub fresh_half_life: Option<Millis>,
    #[serde(default)]
    pub blend: Option<blend::Params>,
    #[serde(default)]
    pub only: OnlyParams,
}

/// What a surface shows; what is empty lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnlyParams {
    pub categories: Vec<String>,
    pub tags: Vec<String>,
    pub languages: Vec<String>,
    #[serde(with = "maybe_millis")]
    pub max_age: Option<Millis>,
    pub min_quality: Option<f64>,
    /// From where the user lives; nothing for a user of whom that is not known.
    pub within_km: Option<f64>,
}

impl SurfaceParams {
    /// Its numbers over those of home.
    pub fn slates(&self, home: &SlatesParams) -> SlatesParams {
        SlatesParams {
            kept: self.kept.unwrap_or(home.kept),
            candidates: self.candidates.unwrap_or(home.candidates),
            neighbours: self.neighbours.unwrap_or(home.neighbours),
            interests: self.interests.unwrap_or(home.interests),
            trending: self.trending.unwrap_or(home.trending),
            fresh: self.fresh.unwrap_or(home.fresh),
            near: self.near.unwrap_or(home.near),
            author_decay: self.author_decay.unwrap_or(home.author_decay),
            author_floor: self.author_floor.unwrap_or(home.author_floor),
            category_decay: self.category_decay.unwrap_or(home.category_decay),
            category_floor: self.category_floor.unwrap_or(home.category_floor),
            fresh_half_life: self.fresh_half_life.unwrap_or(home.fresh_half_life),
            ..home.clone()
        }
    }

    /// What it is called in keys and routes.
    pub fn surface(&self) -> Surface {
        Surface::named(&self.name)
    }
}

/// What a surface shows.
#[derive(Clone, Debug)]
pub struct Only {
    /// Everything.
    all: bool,
    categories: Vec<TokenId>,
    tags: Vec<TokenId>,
    languages: Vec<TokenId>,
    max_age: Option<Millis>,
    min_quality: Option<f64>,
    within_km: Option<f64>,
}

impl Only {
    /// Of the settings.
    pub fn new(params: &OnlyParams) -> Self {
        let of = |kind, names: &[String]| names.iter().map(|name| TokenId::typed(kind, name)).collect();
        Self {
            all: *params == OnlyParams::default(),
            categories: of(TokenKind::Category, &params.categories),
            tags: of(TokenKind::Tag, &params.tags),
            languages: of(TokenKind::Language, &params.languages),
            max_age: params.max_age,
            min_quality: params.min_quality,
            within_km: params.within_km,
        }
    }

    /// Whether it shows this item to who lives `here`.
    pub fn passes(&self, card: &Card, clock: Millis, here: Option<Place>) -> bool {
        self.all || self.narrowly(card, clock, here)
    }

    fn narrowly(&self, card: &Card, clock: Millis, here: Option<Place>) -> bool {
        let facts = card.facts.as_deref();
        let one_of = |wanted: &[TokenId], of: &[TokenId]| wanted.is_empty() || of.iter().any(|token| wanted.contains(token));
        let away = || Some(here?.km(card.place()?));
        let of = |list: fn(&crate::model::Item) -> &[TokenId]| facts.map_or(&[][..], list);
        one_of(&self.categories, of(|facts| &facts.categories))
            && one_of(&self.tags, of(|facts| &facts.tags))
            && one_of(&self.languages, of(|facts| facts.language.as_slice()))
            && self.max_age.is_none_or(|most| card.created().is_some_and(|created| clock - created <= most))
            && self.min_quality.is_none_or(|least| facts.and_then(|facts| facts.quality).is_some_and(|quality| quality >= least))
            && self.within_km.is_none_or(|most| away().is_some_and(|km| km <= most))
    }

    /// Where its items are looked for that are everybody's: in its categories, or else everywhere.
    pub fn scopes(&self) -> Vec<Scope> {
        match self.categories.as_slice() {
            [] => vec![Scope::Global],
            categories => categories.iter().map(|category| Scope::Category(*category)).collect(),
        }
    }

    /// The segments it is about.
    pub fn segments(&self) -> impl Iterator<Item = Scope> {
        self.languages.iter().map(|language| Scope::Language(*language))
    }
}

/// What makes the slates of one surface.
pub struct Rules {
    pub surface: Surface,
    candidates: Candidates,
    params: SlatesParams,
    blend: Handover,
    race: Race,
}

/// A candidate with its score.
#[derive(Clone, Copy)]
pub struct Scored<'b> {
    pub item: ItemId,
    pub card: &'b Card,
    pub score_micro: i32,
    pub source: Source,
    pub reason: Reason,
    pub terms: Terms,
}

impl Rules {
    /// Of home.
    pub fn home(params: &Params) -> Self {
        Self::new(
            Surface::HOME,
            params.slates.clone(),
            Handover::new(&params.blend, &params.cold),
            Only::new(&OnlyParams::default()),
            params,
        )
    }

    /// Of the surfaces of the settings.
    pub fn elsewhere(params: &Params) -> Vec<Self> {
        let of = |surface: &SurfaceParams| {
            let blend = match &surface.blend {
                Some(own) => Handover::none(own),
                None => Handover::new(&params.blend, &params.cold),
            };
            Self::new(surface.surface(), surface.slates(&params.slates), blend, Only::new(&surface.only), params)
        };
        params.surfaces.list.iter().map(of).collect()
    }

    fn new(surface: Surface, slates: SlatesParams, blend: Handover, only: Only, params: &Params) -> Self {
        let race = Race::new(slates.author_damping(), slates.category_damping());
        let candidates =
            Candidates::new(slates.clone(), only, params.weights.table(), params.neighbours.damping, params.content.kept);
        Self { surface, candidates, params: slates, blend, race }
    }

    /// What the learned blend's own sources do not bring, beside `known` that they do.
    pub fn others(&mut self, asked: &Asked, board: &Board, known: usize) -> Vec<ItemId> {
        let coldness = self.blend.coldness(asked.history.taken);
        self.candidates.explore(asked, coldness, board, known).iter().map(|candidate| candidate.item).collect()
    }

    /// How its candidates are looked at.
    pub fn viewer(&self, asked: &Asked, board: &Board) -> Viewer {
        let hottest = board.list(List { order: Order::Trending, scope: Scope::Global }).first().map_or(0, |best| best.1);
        Viewer::new(asked.profile.interests.as_deref(), hottest, asked.clock, self.params.fresh_half_life)
    }

    /// What is looked up of each of these items. What is at hand says nothing of what their content is like: the shim does not know it.
    pub fn look_up(&mut self, asked: &Asked, board: &Board, items: &[ItemId]) -> Vec<columns::LookedUp> {
        let (viewer, blend) = (self.viewer(asked, board), self.blend.after(asked.history.taken));
        let asker = asked.profile.asker();
        let row = |candidate: Candidate| {
            let (terms, ..) = viewer.terms(&candidate.known(), &blend);
            let (offer, fond) = (candidate.card.offer(), viewer.is_fond_of(candidate.card.category));
            let alike = asked.alike.map_or(columns::Alike::default(), |alike| alike.columns(candidate.item));
            let tower = asked.found.map_or(0.0, |found| found.says(candidate.item));
            let at_hand = at_hand::row(&terms, blend.score(&terms), &asker, &offer, fond);
            columns::LookedUp { at_hand, alike, tower }
        };
        self.candidates.look_up(items, &asked.history.latest, board).into_iter().map(row).collect()
    }

    /// The candidates, scored by the fixed weights.
    pub fn scored<'b>(&mut self, asked: &Asked, viewer: &Viewer, board: &'b Board) -> Vec<Scored<'b>> {
        let blend = self.blend.after(asked.history.taken);
        let candidates = self.candidates.gather(asked, self.blend.coldness(asked.history.taken), board);
        let scored = |candidate: &Candidate<'b>| {
            let known = candidate.known_with(asked.alike, asked.found);
            let (terms, mut source, mut reason) = viewer.terms(&known, &blend);
            if source == Source::Towers {
                let because = asked.found.and_then(|found| found.because(candidate.item));
                let others = || viewer.terms(&Known { tower: None, ..known }, &blend);
                (source, reason) = because.unwrap_or_else(|| (others().1, others().2));
            }
            Scored { item: candidate.item, card: candidate.card, score_micro: blend.score_micro(&terms), source, reason, terms }
        };
        candidates.iter().map(scored).collect()
    }

    /// The best candidates in the order that diversity gives them, with the scores they have after it.
    pub fn choose<'b>(&mut self, mut scored: Vec<Scored<'b>>) -> Vec<Scored<'b>> {
        let order = |s: &Scored| (Reverse(s.score_micro), s.item);
        if scored.len() > self.params.candidates {
            scored.select_nth_unstable_by_key(self.params.candidates - 1, order);
            scored.truncate(self.params.candidates);
        }
        let entry = |s: &Scored| {
            let (author, category) = (s.card.author(), s.card.category);
            Entry { item: s.item, score_micro: s.score_micro, author, category }
        };
        let entries: Vec<Entry> = scored.iter().map(entry).collect();
        let chosen = self.race.choose(&entries, self.params.kept);
        chosen.into_iter().map(|(index, score_micro)| Scored { score_micro, ..scored[index] }).collect()
    }

    /// Gives a few places of a slate to what is explored; what stood there moves on by one.
    pub fn explore<'b>(&self, slate: &mut Vec<Scored<'b>>, explore: &Explore, explorer: &Explorer, board: &'b Board) {
        let places: Vec<usize> = explore.places(slate.len()).collect();
        let Some(last) = places.last() else { return };
        let top = &slate[..=*last];
        let picked = explore.pick(explorer, board, places.len(), |item| top.iter().any(|scored| scored.item == item));
        for (place, (item, card)) in places.into_iter().zip(picked) {
            slate.retain(|scored| scored.item != item); // it may have stood further down
            let above = slate[place.saturating_sub(1)].score_micro;
            slate.insert(place, self.explored(item, card, above, explorer.viewer));
        }
        slate.truncate(self.params.kept);
    }

    fn explored<'b>(&self, item: ItemId, card: &'b Card, score_micro: i32, viewer: &Viewer) -> Scored<'b> {
        let known = Candidate { item, card, affinity: 0.0, because: None };
        let (terms, ..) = viewer.terms(&known.known(), &self.blend.after(0));
        Scored { item, card, score_micro, source: Source::Explored, reason: Reason::New { token: card.category }, terms }
    }
}
