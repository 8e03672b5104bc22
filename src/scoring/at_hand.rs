//! The columns that are at hand wherever candidates are put in order: at a refresh, in the log of examples, and in the shim, which knows of
//! a user and of an item what the engine wrote down. First what the fixed weights make of a candidate, then fourteen facts of who
//! asks and what is offered. Pure; what each column says is in `schemas/features.md`.
//!
//! To add a column: its name and its value here, its line in `schemas/features.md`.

use super::blend::Terms;
use crate::model::TokenId;
use crate::model::catalogue::{Item, USUAL_QUALITY, city};
use crate::model::place::{LOCAL_KM, PREFERENCE, Place, REGION_KM, proximity};

/// How many there are.
pub const COLUMNS: usize = 20;

/// What they are called, in their order.
pub const NAMES: [&str; COLUMNS] = [
    "content",
    "collaborative",
    "real_time",
    "interests",
    "freshness",
    "fixed",
    "distance_km",
    "proximity_boost",
    "is_local_match",
    "is_regional_match",
    "same_city",
    "same_language",
    "user_local_preference",
    "user_total_watch_hours",
    "stream_quality_score",
    "stream_avg_viewers",
    "creator_followers",
    "is_partnered",
    "mature_content",
    "category_match",
];

/// One candidate's.
pub type Row = [f32; COLUMNS];

/// How far away something is of which nobody knows where it is: as far as anything on the earth.
const FARTHEST_KM: f64 = 20_015.0;

/// Who asks, as they said.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Asker {
    pub place: Option<Place>,
    pub city: Option<TokenId>,
    pub language: Option<TokenId>,
    /// 0 to 1.
    pub local_preference: Option<f64>,
    pub watch_hours: Option<f64>,
}

/// What is offered, as the catalogue says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Offer {
    pub place: Option<Place>,
    pub city: Option<TokenId>,
    pub language: Option<TokenId>,
    /// 0 to 1.
    pub quality: Option<f64>,
    pub avg_viewers: Option<f64>,
    pub followers: Option<u64>,
    pub partnered: bool,
    pub mature: bool,
}

impl Offer {
    /// Of what the catalogue says, or a caller in its place.
    pub fn of(facts: &Item) -> Self {
        Self {
            place: facts.place(),
            city: facts.city.as_deref().and_then(city),
            language: facts.language,
            quality: facts.quality,
            avg_viewers: facts.avg_viewers,
            followers: facts.followers,
            partnered: facts.partnered,
            mature: facts.mature,
        }
    }
}

/// The row of an offer of which the fixed weights say this, and of whose first category the user is fond or not.
pub fn row(terms: &Terms, fixed: f64, asker: &Asker, offer: &Offer, fond: bool) -> Row {
    let known = asker.place.zip(offer.place).map(|(here, there)| here.km(there));
    let same = |one: Option<TokenId>, other: Option<TokenId>| one.is_some() && one == other;
    let [content, collaborative, real_time, interests, freshness] = *terms;
    let row = [
        content,
        collaborative,
        real_time,
        interests,
        freshness,
        fixed,
        known.unwrap_or(FARTHEST_KM),
        known.map_or(0.0, proximity),
        known.is_some_and(|km| km < LOCAL_KM).into(),
        known.is_some_and(|km| km < REGION_KM).into(),
        same(asker.city, offer.city).into(),
        same(asker.language, offer.language).into(),
        asker.local_preference.unwrap_or(PREFERENCE),
        asker.watch_hours.unwrap_or(0.0),
        10.0 * offer.quality.unwrap_or(USUAL_QUALITY),
        offer.avg_viewers.unwrap_or(0.0),
        offer.followers.unwrap_or(0) as f64,
        offer.partnered.into(),
        offer.mature.into(),
        fond.into(),
    ];
    row.map(|value: f64| value as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, row: &Row) -> f32 {
        row[NAMES.iter().position(|known| *known == name).expect("a column")]
    }

    #[test]
    fn where_who_and_what() {
        let (munich, augsburg) = (Place::new(48.137, 11.575), Place::new(48.371, 10.898));
        let (city, german) = (Some(TokenId(7)), Some(TokenId(8)));
        let asker = Asker { place: munich, city, language: german, local_preference: Some(0.25), watch_hours: Some(120.5) };
        let offer = Offer {
            place: augsburg,
            city: Some(TokenId(9)),
            language: german,
            quality: Some(0.72),
            avg_viewers: Some(850.0),
            followers: Some(15_000),
            partnered: true,
            mature: false,
        };
        let terms = [0.1, 0.2, 0.3, 0.4, 0.5];
        let row_of = |asker: &Asker, offer: &Offer, fond| row(&terms, 0.9, asker, offer, fond);
        let near = row_of(&asker, &offer, true);
        assert_eq!(near[..6], [0.1, 0.2, 0.3, 0.4, 0.5, 0.9]);
        let km = of("distance_km", &near);
        assert!((56.0..58.0).contains(&km) && (of("proximity_boost", &near) - 1.0 / (1.0 + km)).abs() < 1e-6, "{km}");
        assert_eq!(near[8..], [1.0, 1.0, 0.0, 1.0, 0.25, 120.5, 7.2, 850.0, 15_000.0, 1.0, 0.0, 1.0]);
        let rome = Place::new(41.9, 12.5);
        let far = row_of(&asker, &Offer { place: rome, city, language: None, ..offer }, false);
        assert_eq!((of("is_local_match", &far), of("is_regional_match", &far)), (0.0, 1.0));
        assert_eq!((of("same_city", &far), of("same_language", &far), of("category_match", &far)), (1.0, 0.0, 0.0));
        let unknown = row_of(&Asker::default(), &Offer::default(), false);
        assert_eq!(unknown[6..], [20_015.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
