//! What the learned blend does for one user: it ranks when asked, learns from what was taken, and scores a slate with its reasons.
//!
//! The fact that must stay true: what is learned from an event, and what it is ranked by, is what was known before its epoch.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::alike::Alike;
use super::board::{Board, Card};
use super::candidates::Asked;
use super::feature_store::{FeatureStore, Now};
use super::learner::Weights;
use super::ledger::{Update, UserDelta};
use super::sampler::{Drawn, OF_TOWERS, RANKED_ALONE, Sampler, Viewer};
use super::surfaces::{Rules, Scored};
use super::towers::Found;
use super::trails::Ring;
use crate::model::catalogue::User as Said;
use crate::model::changes::Compared;
use crate::model::ids::lot;
use crate::model::slate::{Reason, Source, TERMS};
use crate::model::time::Millis;
use crate::model::{Epoch, Example, ItemId, Kind, ModelName, Ranker, UserId};
use crate::scoring::columns;
use crate::scoring::experiments::{self, Ranks};
use crate::scoring::falling::{OF_MODELS, falling, micro};
use crate::scoring::flags;
use crate::scoring::learned::{AGE, Lesson, Params, READINGS, Request, Scores, VOICES, Voice};
use crate::scoring::ranker::{self, Tally};
use crate::scoring::shadow::Shadow;

/// Settings, and buffers that are reused from request to request.
pub struct Learned {
    params: Params,
    sampler: Sampler,
    scores: Scores,
    /// The models that order in place of the blend.
    rankers: Rankers,
    ranking: ranker::Params,
    experiments: experiments::Params,
    flags: flags::Params,
    /// What only compares itself with what serves.
    shadow: Option<Shadow>,
    /// Whether any model here takes columns that are looked up for it.
    takes_looked_up: bool,
    table: Vec<columns::Row>,
    tally: Tally,
}

/// A model, and what it is called.
type Named = (ranker::Ranker, Arc<ModelName>);

/// The model that serves, and the versions that arms of experiments name.
#[derive(Default)]
struct Rankers {
    served: Option<Named>,
    versions: BTreeMap<Arc<str>, Named>,
}

impl Rankers {
    fn open(model: &ranker::Model) -> Named {
        (ranker::Ranker::new(model), Arc::new(ModelName { number: model.number(), name: model.name.clone() }))
    }

    fn of(&mut self, ranks: &Ranks) -> Option<&mut Named> {
        match ranks {
            Ranks::Model => self.served.as_mut(),
            Ranks::Version(name) => self.versions.get_mut(name),
            Ranks::Fixed | Ranks::Blend => None,
        }
    }

    fn has(&self, ranks: &Ranks) -> bool {
        match ranks {
            Ranks::Model => self.served.is_some(),
            Ranks::Version(name) => self.versions.contains_key(name),
            Ranks::Fixed | Ranks::Blend => false,
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Named> {
        self.served.iter_mut().chain(self.versions.values_mut())
    }
}

/// Looks up what is at hand of items, and how alike they are to what the user took.
pub type LookUp<'a> = dyn FnMut(&[ItemId]) -> Vec<columns::LookedUp> + 'a;

/// What was asked for and learned of a user's steps.
#[derive(Default)]
pub struct Seen {
    pub ranking: Option<Vec<(ItemId, u32)>>,
    /// Without what is known of the user and the items elsewhere.
    pub example: Option<Example>,
    /// The same of what they were shown.
    pub shown: Option<Example>,
}

/// A user, as a slate is made for them.
pub struct User<'a> {
    pub id: UserId,
    pub asked: Asked<'a>,
    pub ring: &'a Ring,
    pub habit: Option<[f64; READINGS]>,
}

impl Learned {
    /// Of the settings.
    pub fn new(params: Params, ranking: &ranker::Params, experiments: &experiments::Params, flags: &flags::Params) -> Self {
        let (sampler, scores, table) = (Sampler::default(), Scores::default(), Vec::new());
        let mut learned = Self {
            params,
            sampler,
            scores,
            rankers: Rankers::default(),
            ranking: ranking.clone(),
            experiments: experiments.clone(),
            flags: flags.clone(),
            shadow: None,
            takes_looked_up: false,
            table,
            tally: Tally::default(),
        };
        learned.shadow = ranking.shadowing.as_ref().map(|model| Shadow::new(model, ranking.shadow_share));
        learned.rankers.versions =
            experiments.versions.iter().map(|(name, model)| (name.clone(), Rankers::open(model))).collect();
        learned.rank_by(ranking);
        learned
    }

    /// Ranks by what is loaded from now on.
    pub fn rank_by(&mut self, ranking: &ranker::Params) {
        self.rankers.served = ranking.loaded.as_ref().map(Rankers::open);
        self.ranking = ranking.clone();
        let models = ranking.loaded.iter().chain(&ranking.shadowing).chain(self.experiments.versions.values());
        self.takes_looked_up = models.into_iter().any(ranker::Model::takes_looked_up);
    }

    /// By what this user's candidates are ordered: an experiment decides, or else the share of the model that serves; by nothing
    /// learned for whom that is switched off.
    fn ranks(&self, user: UserId, said: Option<&Said>) -> Ranks {
        match self.experiments.place(user, said) {
            _ if !self.flags.ml(user) => Ranks::Fixed,
            Some(place) => self.experiments.arm(place).ranks.clone(),
            None if self.ranking.ranks_for(user) => Ranks::Model,
            None => Ranks::Blend,
        }
    }

    /// Where there is any model: whether one orders for this user.
    pub fn models_for(&self, user: UserId, said: Option<&Said>) -> Option<bool> {
        let any = self.rankers.served.is_some() || !self.rankers.versions.is_empty();
        any.then(|| self.rankers.has(&self.ranks(user, said)))
    }

    /// Whether this user's slates are scored by the learned weights, or by a model.
    pub fn serves(&self, user: UserId, said: Option<&Said>, weights: &Weights) -> bool {
        let ranks = self.ranks(user, said);
        let learned = weights.model.groups >= self.params.serve_after || self.rankers.has(&ranks);
        self.params.enabled && ranks != Ranks::Fixed && learned
    }

    /// What the model was asked for since this was last read.
    pub fn tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// What the shadow compared since this was last read.
    pub fn compared(&mut self) -> Compared {
        self.shadow.as_mut().map(Shadow::compared).unwrap_or_default()
    }

    /// Why the model failed, if it did since this was last asked.
    pub fn failed(&mut self) -> Option<String> {
        self.rankers.all().find_map(|(ranker, _)| ranker.failed())
    }

    /// Ranks, if that is asked for, and adds what the user's steps teach.
    #[allow(clippy::too_many_arguments, reason = "what a request is made of, each once")]
    pub fn look_back(
        &mut self,
        epoch: &Epoch,
        delta: &UserDelta,
        said: Option<&Said>,
        viewer: &Viewer,
        store: &FeatureStore,
        now: &Now,
        weights: &Weights,
        look_up: &mut LookUp,
        lesson: &mut Lesson,
    ) -> Seen {
        let taken = self.lessons_of(epoch, delta, viewer, store);
        let asked = delta.asked.filter(|by| !matches!(by, Ranker::Factors | Ranker::Fixed)); // these are asked elsewhere
        if let Some(by @ (Ranker::Popularity(_) | Ranker::Nearness(_) | Ranker::Next)) = asked {
            let drawn = self.sampler.only(by, viewer, store, RANKED_ALONE);
            let ranking = drawn.iter().map(|drawn| (store.item(drawn.slot).id, drawn.sources)).collect();
            return Seen { ranking: Some(ranking), ..Seen::default() };
        }
        let shown = self.what_was_shown(epoch, delta, viewer, store, now, weights, look_up);
        if asked.is_none() && taken.is_empty() {
            return Seen { shown, ..Seen::default() };
        }
        let request = self.sampler.request(viewer, store, now, &weights.model.means, self.params.per_source, &[]);
        weights.ready.score(&request, &mut self.scores);
        let mut example = None;
        if !taken.is_empty() {
            let place = |item: &ItemId| self.sampler.drawn.iter().position(|drawn| store.item(drawn.slot).id == *item);
            let taken: Vec<usize> = taken.iter().filter_map(place).collect();
            weights.ready.teach(&request, &self.scores, &taken, lesson);
            example = self.example(epoch, delta, &request, &taken, store, look_up);
            self.compare_taken(delta.user, said, &request, &taken, store, look_up);
        }
        if asked.is_some() {
            self.rerank(delta.user, said, &request, store, look_up);
        }
        Seen { ranking: asked.map(|_| self.ranking(store)), example, shown }
    }

    /// What was known of the items the user was shown, if it is one of those that are logged. An item that is told of too late is passed over:
    /// what the user did with it since is known already, or what others did.
    #[allow(clippy::too_many_arguments, reason = "what a request is made of, each once")]
    fn what_was_shown(
        &mut self,
        epoch: &Epoch,
        delta: &UserDelta,
        viewer: &Viewer,
        store: &FeatureStore,
        now: &Now,
        weights: &Weights,
        look_up: &mut LookUp,
    ) -> Option<Example> {
        let mut first: BTreeMap<ItemId, Millis> = BTreeMap::new();
        for Update { item, at, .. } in self.shows(epoch, delta) {
            first.entry(*item).and_modify(|first| *first = *at.min(first)).or_insert(*at);
        }
        let since = epoch.clock_ms - self.params.late.min(self.params.click_through);
        first.retain(|item, at| *at >= since && !viewer.filter.done_since(*item, *at));
        let items: Vec<ItemId> = first.into_keys().collect();
        if items.is_empty() {
            return None;
        }
        let request = self.sampler.request(viewer, store, now, &weights.model.means, self.params.per_source, &items);
        weights.ready.score(&request, &mut self.scores);
        self.tabulate(&request);
        self.put_looked_up(store, look_up);
        let rows = self.sampler.drawn.iter().map(|drawn| store.item(drawn.slot).id).zip(&self.table);
        let (mut candidates, mut columns) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len() * columns::COLUMNS));
        for (item, row) in rows.filter(|(item, _)| items.binary_search(item).is_ok()) {
            candidates.push((item, false));
            columns.extend_from_slice(row);
        }
        let example = Example { user: delta.user, at: epoch.clock_ms, candidates, columns, ..Example::default() };
        Some(example).filter(|example| !example.candidates.is_empty()) // the catalogue knows none of them
    }

    /// What the user was shown that is logged, unless it is told of too late.
    fn shows<'d>(&self, epoch: &Epoch, delta: &'d UserDelta) -> impl Iterator<Item = &'d Update> {
        let share = if self.watches() { self.params.impressions } else { 0.0 };
        let share = if epoch.refreshes.is_some() { share * self.params.busy_share } else { share };
        let logged = lot((delta.user.0 ^ epoch.number).rotate_left(16)) < share;
        delta.updates.iter().filter(move |u| logged && u.diff > 0 && u.kind == Kind::Impression)
    }

    /// Whether what users were shown is put together with what they then do.
    pub fn watches(&self) -> bool {
        self.params.enabled && self.params.impressions > 0.0
    }

    /// The request just scored as an example, if it is one of those that are logged.
    fn example(
        &mut self,
        epoch: &Epoch,
        delta: &UserDelta,
        request: &Request,
        taken: &[usize],
        store: &FeatureStore,
        look_up: &mut LookUp,
    ) -> Option<Example> {
        if taken.is_empty() || lot((delta.user.0 ^ epoch.number).rotate_left(32)) >= self.params.logged {
            return None;
        }
        self.tabulate(request);
        self.put_looked_up(store, look_up);
        let touched = |item| delta.updates.iter().any(|update| update.item == item && update.kind.is_positive());
        let (mut candidates, mut columns) = (Vec::with_capacity(self.table.len()), Vec::new());
        for (place, (drawn, row)) in self.sampler.drawn.iter().zip(&self.table).enumerate() {
            let (item, taken) = (store.item(drawn.slot).id, taken.contains(&place));
            // what they took without its being a lesson is neither an item taken nor one left
            if taken || !touched(item) {
                candidates.push((item, taken));
                columns.extend_from_slice(row);
            }
        }
        Some(Example { user: delta.user, at: epoch.clock_ms, candidates, columns, ..Example::default() })
    }

    /// Where the shadow and what serves had the items the user then took, among the candidates just scored.
    #[allow(clippy::too_many_arguments, reason = "what a request is made of, each once")]
    fn compare_taken(
        &mut self,
        user: UserId,
        said: Option<&Said>,
        request: &Request,
        taken: &[usize],
        store: &FeatureStore,
        look_up: &mut LookUp,
    ) {
        if taken.is_empty() || !self.is_shadowed(user) {
            return;
        }
        self.tabulate_for_models(request, store, look_up);
        let ranks = self.ranks(user, said);
        let blend = &self.scores.scores;
        let mut served = blend.clone();
        if let Some((ranker, _)) = self.rankers.of(&ranks) {
            ranker.rescore(&self.table, &mut served);
        }
        self.shadow.iter_mut().for_each(|shadow| shadow.compare_taken(&self.table, blend, &served, taken));
    }

    fn is_shadowed(&self, user: UserId) -> bool {
        self.shadow.as_ref().is_some_and(|shadow| shadow.scores_for(user))
    }

    /// Every column of the candidates just scored.
    fn tabulate(&mut self, request: &Request) {
        let features = self.sampler.raw().iter().zip(&self.scores.scores);
        self.table.clear();
        self.table.extend(features.map(|(features, blend)| columns::row(features, &request.context, *blend)));
    }

    /// The same with what models take.
    fn tabulate_for_models(&mut self, request: &Request, store: &FeatureStore, look_up: &mut LookUp) {
        self.tabulate(request);
        if self.takes_looked_up {
            self.put_looked_up(store, look_up);
        }
    }

    fn put_looked_up(&mut self, store: &FeatureStore, look_up: &mut LookUp) {
        let items: Vec<ItemId> = self.sampler.drawn.iter().map(|drawn| store.item(drawn.slot).id).collect();
        self.table.iter_mut().zip(look_up(&items)).for_each(|(row, found)| columns::put_looked_up(row, &found));
    }

    /// Puts the model's scores in place of the blend's, if it ranks for this user; yields its name where it gave any.
    fn rerank(
        &mut self,
        user: UserId,
        said: Option<&Said>,
        request: &Request,
        store: &FeatureStore,
        look_up: &mut LookUp,
    ) -> Option<Arc<ModelName>> {
        let ranks = self.ranks(user, said);
        if !self.rankers.has(&ranks) {
            return None;
        }
        self.tabulate_for_models(request, store, look_up);
        let (ranker, name) = self.rankers.of(&ranks)?;
        let tally = ranker.rescore(&self.table, &mut self.scores.scores);
        self.tally.add(tally);
        (tally.scored > 0).then(|| name.clone())
    }

    /// Whether candidates may be asked for to rank or to learn from: whoever wants to look up something for them needs to only then.
    pub fn looks_back(&self, epoch: &Epoch, delta: &UserDelta) -> bool {
        delta.asked.is_some() || self.teaching(epoch, delta).next().is_some() || self.shows(epoch, delta).next().is_some()
    }

    /// What the user did from which something may be learned.
    fn teaching<'d>(&self, epoch: &Epoch, delta: &'d UserDelta) -> impl Iterator<Item = &'d Update> {
        let share = if epoch.refreshes.is_some() { self.params.busy_share } else { self.params.share };
        let (user, since, enabled) = (delta.user.0, epoch.clock_ms - self.params.late, self.params.enabled);
        let timely = move |update: &&Update| update.at >= since && lot(user ^ update.at as u64) < share;
        delta.updates.iter().filter(move |u| enabled && u.diff > 0 && u.kind.is_positive()).filter(timely)
    }

    /// The items the user took for the first time from which something may be learned.
    fn lessons_of(&self, epoch: &Epoch, delta: &UserDelta, viewer: &Viewer, store: &FeatureStore) -> Vec<ItemId> {
        let mut taken: Vec<ItemId> = Vec::new();
        let allows = |item| viewer.filter.passes(item, store.find(item).and_then(|slot| store.gate(slot)));
        for update in self.teaching(epoch, delta) {
            if allows(update.item) && !taken.contains(&update.item) {
                taken.push(update.item);
            }
        }
        taken
    }

    /// The candidates just scored, best first; ties go to what was there first.
    fn ranking(&self, store: &FeatureStore) -> Vec<(ItemId, u32)> {
        let mut order: Vec<(f32, Millis, &Drawn)> = Vec::with_capacity(self.sampler.drawn.len());
        for (drawn, score) in self.sampler.drawn.iter().zip(&self.scores.scores) {
            order.push((*score, store.item(drawn.slot).tally.first, drawn));
        }
        let id = |drawn: &Drawn| store.item(drawn.slot).id;
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(id(a.2).cmp(&id(b.2))));
        order.into_iter().map(|(_, _, drawn)| (id(drawn), drawn.sources)).collect()
    }

    /// The candidates of a slate with their scores, between 0 and 1, the best is 1; and the model they are from, if they are not the
    /// blend's.
    #[allow(clippy::too_many_arguments, reason = "what a slate is made of, each once")]
    pub fn scored<'b>(
        &mut self,
        user: &User,
        board: &'b Board,
        store: &FeatureStore,
        rules: &mut Rules,
        weights: &Weights,
    ) -> (Vec<Scored<'b>>, Option<Arc<ModelName>>) {
        let Asked { profile, liked, alike, found, clock, .. } = user.asked;
        let filter = profile.filter();
        let (near, found) = (alike.map_or(&[][..], Alike::best), found.map_or(&[][..], Found::best));
        let viewer = Viewer { ring: user.ring, habit: user.habit, city: profile.city(), filter: &filter, liked, near, found };
        let others = rules.others(&user.asked, board, self.params.per_source);
        let now = Now::at(clock);
        let request = self.sampler.request(&viewer, store, &now, &weights.model.means, self.params.per_source, &others);
        weights.ready.score(&request, &mut self.scores);
        let blend = self.is_shadowed(user.id).then(|| self.scores.scores.clone());
        let look_up: &mut LookUp = &mut |items| rules.look_up(&user.asked, board, items);
        if blend.is_some() {
            self.tabulate_for_models(&request, store, look_up);
        }
        let model = self.rerank(user.id, profile.said.as_deref(), &request, store, look_up);
        if let (Some(blend), Some(shadow)) = (blend, &mut self.shadow) {
            shadow.compare(&self.table, &blend, &self.scores.scores);
        }
        self.hold_back();
        let temperature = if model.is_some() { OF_MODELS } else { TEMPERATURE };
        let scores = falling(&self.scores.scores, temperature);
        let shown = |(i, drawn): (usize, &Drawn)| self.shown(i, drawn, scores[i], user, board, store, weights, &request);
        (self.sampler.drawn.iter().enumerate().map(shown).collect(), model)
    }

    /// The model has learned nothing of items its sources do not bring, as those nobody took yet: none of them goes before the
    /// average candidate.
    fn hold_back(&mut self) {
        let known = || self.sampler.drawn.iter().zip(&self.scores.scores).filter(|(drawn, _)| drawn.sources != 0);
        let (sum, count) = known().fold((0.0f32, 0u32), |(sum, count), (_, score)| (sum + score, count + 1));
        let average = if count > 0 { sum / count as f32 } else { f32::MAX };
        for (drawn, score) in self.sampler.drawn.iter().zip(&mut self.scores.scores) {
            if drawn.sources == 0 {
                *score = score.min(average);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what a reason is made of, each once")]
    fn shown<'b>(
        &self,
        i: usize,
        drawn: &Drawn,
        score: f64,
        user: &User,
        board: &'b Board,
        store: &FeatureStore,
        weights: &Weights,
        request: &Request,
    ) -> Scored<'b> {
        let item = store.item(drawn.slot).id;
        let card = board.item(item);
        let adds = weights.ready.adds(request, &self.scores, i);
        let (source, reason) = self.reason(drawn, card, &adds, user, store, request.rows[i][AGE] < 0);
        Scored { item, card, score_micro: micro(score), source, reason, terms: terms(&adds) }
    }

    /// The voice that adds most, as far as it can be said in words; then the next.
    fn reason(
        &self,
        drawn: &Drawn,
        card: &Card,
        adds: &[f32; VOICES],
        user: &User,
        store: &FeatureStore,
        young: bool,
    ) -> (Source, Reason) {
        let found = user.asked.found.filter(|_| drawn.sources == OF_TOWERS); // by nothing else
        if let Some(because) = found.and_then(|found| found.because(store.item(drawn.slot).id)) {
            return because;
        }
        let mut voices = [Voice::Content, Voice::Collaborative, Voice::Now, Voice::Lasting, Voice::Habit, Voice::Age];
        voices.sort_by(|a, b| adds[*b as usize].total_cmp(&adds[*a as usize]));
        let in_words = |voice: &Voice| match voice {
            Voice::Content => {
                let named = |token| card.tokens.contains(&token);
                match self.sampler.favourite(drawn.slot, store, named) {
                    Some(token) => Some((Source::Interests, Reason::Likes { token })),
                    None => user.asked.alike?.to(store.item(drawn.slot).id).map(|like| like.because()),
                }
            }
            Voice::Collaborative => {
                let item = drawn.because?;
                let kind = user.asked.profile.kind(item)?;
                Some((Source::Neighbours, Reason::Because { kind, item }))
            }
            Voice::Now => Some((Source::Trending, Reason::Trending { token: card.category })),
            Voice::Lasting | Voice::Habit => Some((Source::Popular, Reason::Popular)),
            Voice::Age => young.then_some((Source::Fresh, Reason::New { token: card.category })),
        };
        let positive = voices.iter().take_while(|voice| adds[**voice as usize] > 0.0);
        positive.filter_map(in_words).next().unwrap_or((Source::Popular, Reason::Popular))
    }
}

/// How far apart scores must be to count e times as much where diversity weighs them.
const TEMPERATURE: f64 = 4.0;

/// The share of each term in what speaks for an item.
fn terms(adds: &[f32; VOICES]) -> [f64; TERMS.len()] {
    let of = |voice: Voice| f64::from(adds[voice as usize].max(0.0));
    let terms =
        [of(Voice::Content), of(Voice::Collaborative), of(Voice::Now) + of(Voice::Lasting), of(Voice::Habit), of(Voice::Age)];
    let sum: f64 = terms.iter().sum();
    if sum > 0.0 { terms.map(|term| term / sum) } else { terms }
}
