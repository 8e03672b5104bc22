//! The order of candidates that a caller brings: the terms, the weights and the diversity of a refresh, over what was looked up for
//! one request; or a model in place of the weights, which gets the columns that are at hand, as at a refresh. Pure.

use rustc_hash::{FxHashMap, FxHashSet};

use super::affinity::{Voices, loudness};
use super::at_hand::{self, Asker, Offer};
use super::blend::{Blend, Handover, Terms};
use super::columns;
use super::diversity::{Damping, Entry, Race};
use super::falling::{OF_MODELS, falling, micro};
use super::ranker::{Ranker, Tally};
use super::terms::{Known, Viewer, heat};
use crate::model::changes::Interests;
use crate::model::kind::Weights;
use crate::model::slate::{Reason, Source};
use crate::model::time::Millis;
use crate::model::{ItemId, Kind, TokenId};

/// The settings of the dataflow that decide the order.
#[derive(Clone, Debug)]
pub struct Params {
    pub blend: Handover,
    pub weights: Weights,
    /// As in `[neighbours]`.
    pub damping: f64,
    pub fresh_half_life: Millis,
    pub author: Damping,
    pub category: Damping,
}

/// What is near an item of the history.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Near {
    /// Users who took the item.
    pub users: u32,
    /// Items, and users who took both.
    pub nearest: Vec<(ItemId, u32)>,
}

/// For whom.
#[derive(Clone, Debug, Default)]
pub struct Person {
    pub interests: Option<Interests>,
    /// Latest first, each with what is near it.
    pub history: Vec<(Kind, ItemId, Near)>,
    /// Items they took, of which the history has the latest.
    pub taken: usize,
    pub asker: Asker,
}

/// What is known of a candidate.
#[derive(Clone, Debug, Default)]
pub struct Candidate {
    pub item: ItemId,
    /// Categories, tags, author.
    pub tokens: Vec<TokenId>,
    /// Its first category.
    pub category: Option<TokenId>,
    pub author: Option<TokenId>,
    pub created: Option<Millis>,
    pub trending_milli: i64,
    /// How many users took it.
    pub users: u32,
    pub offer: Offer,
}

/// When, and how hot the hottest item of all is.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub clock: Millis,
    pub hottest_milli: i64,
}

/// A candidate in its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ranked {
    /// Which candidate.
    pub at: usize,
    /// After diversity.
    pub score_micro: i32,
    pub terms: Terms,
    pub source: Source,
    pub reason: Reason,
}

/// The best `k` candidates, best first; by the model, if there is one and it has scores, and how many it has.
pub fn rank(
    params: &Params,
    person: &Person,
    candidates: &[Candidate],
    moment: Moment,
    k: usize,
    by: Option<&mut Ranker>,
) -> (Vec<Ranked>, Tally) {
    let blend = params.blend.after(person.taken);
    let viewer = Viewer::new(person.interests.as_ref(), moment.hottest_milli, moment.clock, params.fresh_half_life);
    let voices = listen(params, person, candidates);
    let scored: Vec<(Terms, Source, Reason)> = candidates
        .iter()
        .map(|candidate| {
            let heard = voices.get(&candidate.item);
            let because = heard.map(|voices| &person.history[voices.back]).map(|(kind, item, _)| (*kind, *item));
            let affinity = heard.map_or(0.0, |voices| voices.affinity(candidate.users, params.damping));
            let Candidate { tokens, category, created, trending_milli, .. } = candidate;
            let heat = heat(*trending_milli);
            let known = Known { tokens, category: *category, created: *created, heat, affinity, because, ..Known::default() };
            viewer.terms(&known, &blend)
        })
        .collect();
    let terms: Vec<Terms> = scored.iter().map(|(terms, ..)| *terms).collect();
    let (by_model, tally) = by.map(|by| rescored(by, person, candidates, &viewer, &terms, &blend)).unwrap_or_default();
    let score = |at: usize| by_model.as_ref().map_or_else(|| blend.score_micro(&terms[at]), |scores| scores[at]);
    let entry = |(at, candidate): (usize, &Candidate)| {
        let Candidate { item, author, category, .. } = *candidate;
        Entry { item, score_micro: score(at), author, category }
    };
    let entries: Vec<Entry> = candidates.iter().enumerate().map(entry).collect();
    let places = Race::new(params.author, params.category).choose(&entries, k);
    let ranked = |(at, score_micro): (usize, i32)| {
        let (terms, source, reason) = scored[at];
        Ranked { at, score_micro, terms, source, reason }
    };
    (places.into_iter().map(ranked).collect(), tally)
}

/// The scores of a model, in millionths, where it has any. `terms`: what the fixed weights weigh of each candidate.
fn rescored(
    by: &mut Ranker,
    person: &Person,
    candidates: &[Candidate],
    viewer: &Viewer,
    terms: &[Terms],
    blend: &Blend,
) -> (Option<Vec<i32>>, Tally) {
    let row = |(candidate, terms): (&Candidate, &Terms)| {
        let fond = viewer.is_fond_of(candidate.category);
        columns::row_at_hand(&at_hand::row(terms, blend.score(terms), &person.asker, &candidate.offer, fond))
    };
    let rows: Vec<columns::Row> = candidates.iter().zip(terms).map(row).collect();
    let mut scores: Vec<f32> = rows.iter().map(|row| row[columns::FIXED]).collect();
    let tally = by.rescore(&rows, &mut scores);
    let in_place = || falling(&scores, OF_MODELS).into_iter().map(micro).collect();
    ((tally.scored > 0).then(in_place), tally)
}

/// What the history says of each candidate it knows of.
fn listen(params: &Params, person: &Person, candidates: &[Candidate]) -> FxHashMap<ItemId, Voices> {
    let wanted: FxHashSet<ItemId> = candidates.iter().map(|candidate| candidate.item).collect();
    let mut voices: FxHashMap<ItemId, Voices> = FxHashMap::default();
    for (back, (kind, _, near)) in person.history.iter().enumerate() {
        let loudness = loudness(*kind, back, near.users, &params.weights, params.damping);
        for (item, users) in near.nearest.iter().filter(|(item, _)| wanted.contains(item)) {
            voices.entry(*item).or_default().hear(loudness * f64::from(*users), back);
        }
    }
    voices
}

#[cfg(test)]
mod tests {
    use super::super::blend::Cold;
    use super::super::ranker::{self, Model, Open, ScoreError, Scorer};
    use super::*;
    use crate::model::ids::TokenKind;
    use crate::model::place::Place;
    use std::sync::Arc;

    fn params() -> Params {
        let table: toml::Table = toml::from_str(include_str!("../../overdrive.toml")).expect("the defaults");
        let warm = table["blend"].clone().try_into().expect("the section of the blend");
        let cold = Cold { n0: 0.0, ..table["cold"].clone().try_into().expect("the section of the cold start") };
        let blend = Handover::new(&warm, &cold);
        let mut weights = Weights([1_000; Kind::ALL.len()]);
        weights.0[Kind::Follow as usize] = 5_000;
        let none = Damping { decay: 1.0, floor: 1.0 };
        Params { blend, weights, damping: 5.0, fresh_half_life: 1_000, author: none, category: none }
    }

    fn by_weights(params: &Params, person: &Person, candidates: &[Candidate], moment: Moment, k: usize) -> Vec<Ranked> {
        rank(params, person, candidates, moment, k, None).0
    }

    fn items(ranked: &[Ranked], candidates: &[Candidate]) -> Vec<u64> {
        ranked.iter().map(|ranked| candidates[ranked.at].item.0).collect()
    }

    #[test]
    fn each_term_speaks_for_what_it_is_about_and_names_it() {
        let jazz = TokenId::typed(TokenKind::Category, "jazz");
        let of = |item, candidate: Candidate| Candidate { item: ItemId(item), ..candidate };
        let candidates = [
            of(1, Candidate::default()),
            of(2, Candidate { created: Some(-9_000), ..Candidate::default() }),
            of(3, Candidate { trending_milli: 4_000, ..Candidate::default() }),
            of(4, Candidate { users: 3, ..Candidate::default() }),
            of(5, Candidate { tokens: vec![jazz], category: Some(jazz), ..Candidate::default() }),
        ];
        let near = Near { users: 4, nearest: vec![(ItemId(77), 4), (ItemId(4), 3)] };
        let long = vec![(jazz, 1.0)];
        let person = Person {
            interests: Some(Interests { short: long.clone(), long, drift: 0.0 }),
            history: vec![(Kind::Follow, ItemId(9), near)],
            taken: 1,
            ..Person::default()
        };
        let moment = Moment { clock: 0, hottest_milli: 40_000 };
        let ranked = by_weights(&params(), &person, &candidates, moment, 5);
        assert_eq!(items(&ranked, &candidates), [5, 4, 3, 2, 1]);
        let reasons: Vec<Reason> = ranked.iter().map(|ranked| ranked.reason).collect();
        let because = Reason::Because { kind: Kind::Follow, item: ItemId(9) };
        let trending = Reason::Trending { token: None };
        assert_eq!(reasons, [Reason::Likes { token: jazz }, because, trending, Reason::New { token: None }, Reason::Popular]);
        assert_eq!(ranked[4].score_micro, 0, "of the first nothing is known");
        assert_eq!(items(&by_weights(&params(), &person, &candidates, moment, 2), &candidates), [5, 4]);
        let stranger = by_weights(&params(), &Person::default(), &candidates, moment, 5);
        assert_eq!(items(&stranger, &candidates), [3, 2, 1, 4, 5], "what says nothing is in the order of ids");
    }

    #[test]
    fn a_further_item_of_an_author_counts_less() {
        let ann = Some(TokenId::typed(TokenKind::Author, "ann"));
        let of = |item, author, trending_milli| Candidate { item: ItemId(item), author, trending_milli, ..Candidate::default() };
        let candidates = [of(1, ann, 9_000), of(2, ann, 8_000), of(3, None, 7_000)];
        let moment = Moment { clock: 0, hottest_milli: 9_000 };
        let mut params = params();
        assert_eq!(items(&by_weights(&params, &Person::default(), &candidates, moment, 3), &candidates), [1, 2, 3]);
        params.author = Damping { decay: 0.5, floor: 0.25 };
        assert_eq!(items(&by_weights(&params, &Person::default(), &candidates, moment, 3), &candidates), [1, 3, 2]);
    }

    /// Has the shortest way first, and fails where it is told to.
    struct Nearest {
        fails: bool,
    }

    impl Scorer for Nearest {
        fn score(&mut self, rows: &[columns::Row], into: &mut Vec<f32>) -> Result<(), ScoreError> {
            let km = columns::find("distance_km").expect("a column");
            into.extend(rows.iter().map(|row| -row[km]));
            if self.fails { Err(ScoreError("told to".into())) } else { Ok(()) }
        }
    }

    fn nearest(fails: bool) -> Ranker {
        let open: Open = Arc::new(move || Ok(Box::new(Nearest { fails })));
        let columns = [columns::AT_HAND + 6].into();
        Ranker::new(&Model { name: "nearest".into(), digest: "07".into(), kind: ranker::Kind::Margin, columns, open })
    }

    #[test]
    fn c25_a_model_orders_by_what_is_at_hand_and_the_weights_where_it_fails() {
        let at = |item, lat: Option<f64>, trending_milli| {
            let offer = Offer { place: lat.and_then(|lat| Place::new(lat, 11.0)), ..Offer::default() };
            Candidate { item: ItemId(item), trending_milli, offer, ..Candidate::default() }
        };
        let candidates = [at(1, Some(50.0), 9_000), at(2, None, 8_000), at(3, Some(48.5), 7_000), at(4, Some(48.0), 6_000)];
        let asker = Asker { place: Place::new(48.0, 11.0), ..Asker::default() };
        let person = Person { asker, ..Person::default() };
        let moment = Moment { clock: 0, hottest_milli: 9_000 };
        let (ranked, tally) = rank(&params(), &person, &candidates, moment, 4, Some(&mut nearest(false)));
        assert_eq!((items(&ranked, &candidates), tally), (vec![4, 3, 1, 2], Tally { scored: 4, unscored: 0 }));
        assert!(ranked[0].score_micro == 1_000_000 && ranked.is_sorted_by(|a, b| a.score_micro > b.score_micro), "{ranked:?}");
        assert_eq!(ranked[0].reason, Reason::Trending { token: None }, "what the weights say of it");
        let (ranked, tally) = rank(&params(), &person, &candidates, moment, 4, Some(&mut nearest(true)));
        assert_eq!((items(&ranked, &candidates), tally), (vec![1, 2, 3, 4], Tally { scored: 0, unscored: 4 }));
    }
}
