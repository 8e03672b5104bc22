//! What items and users are called and what is told of them: names, authors, tags, places. An author keeps to one category, a tag
//! belongs to one, a region is a city: so content says something about taste, but not all.

use super::Stream;
use super::World;
use crate::codec::json::{WireItem, WireUser};
use crate::model::rng::Rng;

/// Name, degrees north, degrees east, language.
pub(super) const CITIES: [(&str, f64, f64, &str); 12] = [
    ("Berlin", 52.52, 13.40, "de"),
    ("Paris", 48.86, 2.35, "fr"),
    ("Madrid", 40.42, -3.70, "es"),
    ("Lagos", 6.52, 3.38, "en"),
    ("Delhi", 28.61, 77.21, "hi"),
    ("Tokyo", 35.68, 139.69, "ja"),
    ("Sydney", -33.87, 151.21, "en"),
    ("Toronto", 43.65, -79.38, "en"),
    ("Mexico City", 19.43, -99.13, "es"),
    ("Recife", -8.05, -34.88, "pt"),
    ("Seoul", 37.57, 126.98, "ko"),
    ("Cairo", 30.04, 31.24, "ar"),
];

const CATEGORIES: [&str; 32] = [
    "jazz",
    "cooking",
    "chess",
    "football",
    "travel",
    "history",
    "gardening",
    "films",
    "physics",
    "fashion",
    "cycling",
    "birds",
    "opera",
    "cars",
    "painting",
    "software",
    "hiking",
    "poetry",
    "tennis",
    "coffee",
    "sailing",
    "ceramics",
    "dance",
    "astronomy",
    "comedy",
    "economics",
    "dogs",
    "baking",
    "guitar",
    "climbing",
    "theatre",
    "rivers",
];

const STYLES: [&str; 8] = ["live", "classic", "new", "indie", "local", "deep", "short", "best"];

/// Items an author makes, on average.
const ITEMS_PER_AUTHOR: u32 = 20;
/// From this share of a taste on, a category is named at sign-up.
const NAMED: f32 = 0.15;

/// `i000000`, `i000001`, …: all of one width, in one string.
pub(super) struct Labels {
    text: String,
    width: usize,
}

impl Labels {
    pub(super) fn new(prefix: char, count: u32) -> Self {
        let digits = count.saturating_sub(1).to_string().len().max(6);
        let text = (0..count).map(|i| format!("{prefix}{i:0digits$}")).collect();
        Self { text, width: digits + 1 }
    }

    pub(super) fn get(&self, index: u32) -> &str {
        &self.text[index as usize * self.width..][..self.width]
    }
}

/// What a category is called.
fn category_name(category: u32) -> String {
    let name = CATEGORIES[category as usize % CATEGORIES.len()];
    match category as usize / CATEGORIES.len() {
        0 => name.to_string(),
        round => format!("{name}-{round}"),
    }
}

/// A number to so many decimals, so that its JSON is short.
fn rounded(number: f64, decimals: i32) -> f64 {
    let scale = libm::pow(10.0, f64::from(decimals));
    libm::round(number * scale) / scale
}

/// A point near a city, to 4 decimals.
fn near(rng: &mut Rng, centre: f64) -> Option<f64> {
    Some(rounded(centre + 0.2 * rng.normal(), 4))
}

impl World {
    /// Every item as its topic carries it.
    pub fn items(&self) -> impl Iterator<Item = WireItem<'_>> {
        (0..self.params.items).map(|i| self.item(i))
    }

    /// Every user as their topic carries them.
    pub fn users(&self) -> impl Iterator<Item = WireUser<'_>> {
        (0..self.params.users).map(|u| self.user(u))
    }

    fn item(&self, index: u32) -> WireItem<'_> {
        let item = &self.items[index as usize];
        let mut rng = Stream::Words.of(self.params.seed, u64::from(index));
        let category = category_name(item.category);
        let authors = (self.params.items / ITEMS_PER_AUTHOR / self.params.categories).max(1);
        let author = item.category + self.params.categories * rng.below(authors);
        let first = rng.below(8) as usize;
        let tags = (0..=rng.below(3) as usize).map(|n| format!("{category}-{}", STYLES[(first + n) % 8]).into()).collect();
        let city = item.region.map(|r| CITIES[r as usize]);
        let from = city.map_or(String::new(), |c| format!(" from {}", c.0));
        WireItem {
            item_id: self.item_name(index).into(),
            author_id: Some(format!("a{author:04}").into()),
            title: Some(format!("{category} {index}{from}").into()),
            categories: vec![category.into()],
            tags,
            language: Some(city.map_or("en", |c| c.3).into()),
            created_at: self.params.at(item.born),
            lat: city.and_then(|c| near(&mut rng, c.1)),
            lon: city.and_then(|c| near(&mut rng, c.2)),
            city: city.map(|c| c.0.into()),
            quality: Some(rounded(1.0 / (1.0 + libm::exp(-item.appeal)), 3)),
            mature: rng.unit() < 0.03,
            followers: Some((100.0 * rng.pareto(1.1)).min(1e7) as u64),
        }
    }

    fn user(&self, index: u32) -> WireUser<'_> {
        let mut rng = Stream::Profile.of(self.params.seed, u64::from(index));
        let city = CITIES[self.users[index as usize].region as usize];
        let taste = self.params.taste(index);
        let named = taste.iter().enumerate().filter(|(_, share)| **share >= NAMED);
        WireUser {
            user_id: self.user_name(index).into(),
            interests: named.map(|(z, _)| format!("category:{}", category_name(z as u32)).into()).collect(),
            language: Some(city.3.into()),
            lat: near(&mut rng, city.1),
            lon: near(&mut rng, city.2),
            city: Some(city.0.into()),
            local_preference: Some(rounded(rng.unit(), 2)),
            allow_mature: rng.unit() < 0.2,
        }
    }
}
