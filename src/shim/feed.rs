//! One page of a feed from the lists it may come from: the user's slate, or what is put together for a narrower surface, then the
//! shelves kept for everyone: what is trending, what is popular, what is new.
//!
//! Nothing withdrawn and nothing the request excludes is ever shown. What the user has seen is left out while anything else is there,
//! so a feed is empty only when there is no other item at all. Pure: no store, no clock.

use serde::Serialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::cursor::{Cursor, stamp_of};
use super::near::Near;
use super::read::readable;
use crate::model::place::{LOCAL_KM, proximity};
use crate::model::slate::TERMS;
use crate::model::{self, Source, Surface};
use crate::sinks::layout::{self, SlatePages, StoredSlate};
use crate::sinks::proto::{self, ReasonKind};

/// A list kept for everyone, best first.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// Trending, popular or fresh; it also names the model of a page that no model ordered.
    pub source: Source,
    /// The category it is of; empty: all items.
    pub subject: String,
    /// With scores in a unit of the shelf's own.
    pub items: Vec<(String, f64)>,
    /// The clock and the epoch of the mark it was read under.
    pub as_of: i64,
    pub epoch: u64,
    pub stamp: u64,
}

/// What a page is made from.
pub struct Lists<'a, 'f> {
    /// What the surface itself has for the user.
    pub own: Option<List<'a, 'f>>,
    /// In the order in which they stand in for it.
    pub shelves: &'a [Shelf],
    pub seen: &'f HashSet<&'f str>,
    pub gone: &'f HashSet<String>,
    /// What the request itself does not want.
    pub exclude: &'f HashSet<String>,
}

/// Which feed is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A slate that is kept for the user.
    Slate(Surface),
    /// The user's slate narrowed to a category, then what is trending in it.
    Category,
    /// What is near a point.
    Near,
    Trending,
}

impl Kind {
    /// The name in routes and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slate(surface) => surface.name(),
            Self::Category => "category",
            Self::Near => "near",
            Self::Trending => Source::Trending.name(),
        }
    }

    /// The user's own.
    pub const HOME: Self = Self::Slate(Surface::HOME);

    /// Those that are made of home, or of no slate.
    pub const NARROW: [Self; 3] = [Self::Category, Self::Near, Self::Trending];

    /// Whose slate it is made of.
    pub fn slate(self) -> Surface {
        match self {
            Self::Slate(surface) => surface,
            _ => Surface::HOME,
        }
    }
}

/// What a surface is narrowed to.
#[derive(Clone, Copy, Debug)]
pub enum Narrow<'a> {
    Not,
    Category(&'a str),
    Near(Spot),
}

/// A page, as it is answered but for the request's own fields.
#[derive(Clone, Debug, Serialize)]
pub struct Page<'a> {
    pub as_of: i64,
    pub epoch: u64,
    pub model: &'a str,
    pub experiment: &'a str,
    pub variant: &'a str,
    pub fallback: bool,
    pub items: Vec<Shown<'a>>,
    pub cursor: Option<String>,
}

/// One item of a page.
#[derive(Clone, Debug, Serialize)]
pub struct Shown<'a> {
    pub item_id: &'a str,
    pub score: f64,
    pub source: &'static str,
    pub reason: Cow<'static, str>,
    /// From the point that was asked about; only near it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distance_km: Option<f64>,
    /// The blend's terms before their weights, 0 to 1; only when they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terms: Option<BTreeMap<&'static str, f64>>,
}

/// The page when there is no list at all.
const NOTHING: Page<'static> =
    Page { as_of: 0, epoch: 0, model: "", experiment: "", variant: "", fallback: true, items: Vec::new(), cursor: None };

/// A list a page is taken from.
#[derive(Clone, Copy)]
pub enum List<'a, 'f> {
    Slate(&'a SlatePages),
    Mixed(&'f Mixed<'a>),
    Shelf(&'a Shelf),
}

/// A list put together for one request.
pub struct Mixed<'a> {
    places: Vec<Place<'a>>,
    /// A page of it without items: of a mixture that of the list the first place is from.
    about: Page<'a>,
    /// Of what is in it, in order: lists put together anew that come to the same are the same.
    stamp: u64,
}

/// One place of it.
enum Place<'a> {
    Slate(&'a SlatePages, usize),
    Shelf(&'a Shelf, usize),
    /// With its score, as it is told.
    Near(&'a Near, f64),
}

impl<'a> Place<'a> {
    fn item(&self) -> &'a str {
        match self {
            Self::Slate(slate, at) => slate.id(*at),
            Self::Shelf(shelf, at) => &shelf.items[*at].0,
            Self::Near(near, _) => &near.item_id,
        }
    }
}

/// Where a feed is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spot {
    pub here: model::place::Place,
    /// How much nearness matters, 0 to 1.
    pub preference: f64,
}

/// What is near, best first: by nearness, quality and what the slate says of it. Its order is that of where it is; its scores are of the
/// distances that are told, or they would tell more. `as_of` and `epoch` are of the mark it was read under.
pub fn nearby<'a>(
    found: &'a BTreeMap<String, Near>,
    slate: Option<&'a SlatePages>,
    preference: f64,
    (as_of, epoch): (i64, u64),
) -> Mixed<'a> {
    let items = slate.into_iter().flat_map(|slate| (0..slate.len()).map(|at| (slate.id(at), slate.item(at))));
    let model: HashMap<&str, f64> = items.filter_map(|(id, item)| Some((id, micro(&item.ok()?).clamp(0.0, 1.0)))).collect();
    let score = |near: &Near| near.score(preference, model.get(near.item_id.as_str()).copied().unwrap_or(0.0));
    let mut scored: Vec<(&Near, f64)> = found.values().map(|near| (near, score(near))).collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.item_id.cmp(&b.0.item_id)));
    let places: Vec<Place> = scored.into_iter().map(|(near, _)| Place::Near(near, score(&near.as_told()))).collect();
    let about = Page { as_of, epoch, model: Kind::Near.name(), fallback: false, ..NOTHING };
    Mixed { stamp: stamp_of(places.iter().map(Place::item)), places, about }
}

/// What trends where the user is and in what they like, then what trends anywhere: for a user of whom there is no slate.
pub fn strung<'a>(shelves: impl Iterator<Item = &'a Shelf>) -> Mixed<'a> {
    let shelves: Vec<&Shelf> = shelves.filter(|shelf| !shelf.items.is_empty()).collect();
    let mut already = HashSet::new();
    let all = shelves.iter().flat_map(|shelf| (0..shelf.items.len()).map(move |at| Place::Shelf(shelf, at)));
    let places: Vec<Place> = all.filter(|place| already.insert(place.item())).collect();
    let about = shelves.first().map_or(NOTHING, |shelf| List::Shelf(shelf).about(Kind::HOME));
    Mixed { stamp: stamp_of(places.iter().map(Place::item)), places, about }
}

/// What a slate has of a category, best first, then what else stands on the shelf of the category.
pub fn narrowed<'a>(slate: Option<&'a SlatePages>, category: &str, shelf: Option<&'a Shelf>) -> Mixed<'a> {
    let of_category = |slate: &'a SlatePages| slate.places_of(category).into_iter().map(move |at| Place::Slate(slate, at));
    let personal: Vec<Place> = slate.into_iter().flat_map(of_category).collect();
    let already: HashSet<&str> = personal.iter().map(Place::item).collect();
    let from = slate.filter(|_| !personal.is_empty()).map(List::Slate).or(shelf.map(List::Shelf));
    let about = from.map_or(NOTHING, |list| list.about(Kind::Category));
    let others = shelf.into_iter().flat_map(|shelf| (0..shelf.items.len()).map(move |at| Place::Shelf(shelf, at)));
    let others = others.filter(|place| !already.contains(place.item()));
    let others: Vec<Place> = others.collect();
    let places: Vec<Place> = personal.into_iter().chain(others).collect();
    let stamp = stamp_of(places.iter().map(Place::item));
    Mixed { places, about, stamp }
}

/// The next `k` items (fewer at the end) after `cursor`.
pub fn page<'a>(kind: Kind, lists: &Lists<'a, '_>, cursor: &Cursor, k: usize, explain: bool) -> Page<'a> {
    let shelves = || lists.shelves.iter().map(List::Shelf);
    // Who asks for a category, or what is near, rather has an item of it again than one of another.
    let again = lists.own.filter(|_| matches!(kind, Kind::Category | Kind::Near)).map(|list| (list, false));
    let own = lists.own.map(|list| (list, true)).into_iter().chain(again);
    let unseen = own.chain(shelves().map(|list| (list, true)));
    let tries = unseen.chain(shelves().chain(lists.own).map(|list| (list, false)));
    let mut found = None;
    for (list, unseen) in tries {
        let never = |item: &str| lists.gone.contains(item) || lists.exclude.contains(item);
        let hidden = |item: &str| never(item) || (unseen && lists.seen.contains(item));
        let (taken, next) = list.take(cursor.clone(), k, |item| !hidden(item));
        let any = !taken.is_empty();
        // Without anything to show, the page is still that of the first list.
        if any || found.is_none() {
            found = Some((list, taken, next));
        }
        if any {
            break;
        }
    }
    match found {
        Some((list, taken, next)) => {
            let items = taken.iter().filter_map(|&at| list.shown(at, explain)).collect();
            Page { items, cursor: next.map(|cursor| cursor.text()), ..list.about(kind) }
        }
        None => NOTHING,
    }
}

impl<'a> List<'a, '_> {
    fn len(self) -> usize {
        match self {
            Self::Slate(slate) => slate.len(),
            Self::Mixed(mixed) => mixed.places.len(),
            Self::Shelf(shelf) => shelf.items.len(),
        }
    }

    fn item(self, at: usize) -> &'a str {
        match self {
            Self::Slate(slate) => slate.id(at),
            Self::Mixed(mixed) => mixed.places[at].item(),
            Self::Shelf(shelf) => &shelf.items[at].0,
        }
    }

    fn stamp(self) -> u64 {
        match self {
            // A slate is written once per surface, epoch and generation.
            Self::Slate(slate) => {
                let seed = u64::from(slate.generation) << 32 ^ slate.epoch;
                xxhash_rust::xxh3::xxh3_64_with_seed(slate.shell.surface.as_bytes(), seed)
            }
            Self::Mixed(mixed) => mixed.stamp,
            Self::Shelf(shelf) => shelf.stamp,
        }
    }

    /// The places of the next `k` items, and the cursor after them if there are more.
    fn take(self, mut cursor: Cursor, k: usize, keep: impl Fn(&str) -> bool) -> (Vec<usize>, Option<Cursor>) {
        let start = cursor.enter(self.stamp()).min(self.len());
        let wanted = k.min(cursor.room());
        let mut fit = (start..self.len()).filter(|&at| keep(self.item(at)) && !cursor.gave(self.item(at)));
        let taken: Vec<usize> = fit.by_ref().take(wanted).collect();
        let next = fit.next();
        taken.iter().for_each(|&at| cursor.give(self.item(at)));
        let more = next.filter(|_| cursor.room() > 0 && !taken.is_empty());
        let next = more.map(|at| {
            cursor.advance(at);
            cursor
        });
        (taken, next)
    }

    /// A page of it without items.
    fn about(self, kind: Kind) -> Page<'a> {
        match self {
            Self::Slate(SlatePages { epoch, shell, .. }) => Page {
                as_of: shell.as_of_ms,
                epoch: *epoch,
                model: &shell.model,
                experiment: &shell.experiment,
                variant: &shell.variant,
                fallback: false,
                ..NOTHING
            },
            Self::Mixed(mixed) => mixed.about.clone(),
            Self::Shelf(shelf) => Page {
                as_of: shelf.as_of,
                epoch: shelf.epoch,
                model: shelf.source.name(),
                experiment: "",
                variant: "",
                fallback: kind != Kind::Trending || shelf.source != Source::Trending,
                ..NOTHING
            },
        }
    }

    /// `None`: it cannot be read.
    fn shown(self, at: usize, explain: bool) -> Option<Shown<'a>> {
        match self {
            Self::Slate(slate) => of_pages(slate, at, explain),
            Self::Shelf(shelf) => Some(of_shelf(shelf, at, explain)),
            Self::Mixed(mixed) => match mixed.places[at] {
                Place::Slate(slate, at) => of_pages(slate, at, explain),
                Place::Shelf(shelf, at) => Some(of_shelf(shelf, at, explain)),
                Place::Near(near, score) => Some(of_near(near, score, explain)),
            },
        }
    }
}

fn of_shelf(shelf: &Shelf, at: usize, explain: bool) -> Shown<'_> {
    let (item_id, score) = &shelf.items[at];
    let kind = match shelf.source {
        Source::Trending => ReasonKind::Trending,
        Source::Fresh => ReasonKind::New,
        _ => ReasonKind::Popular,
    };
    let reason = proto::Reason { kind: kind as i32, subject: shelf.subject.clone(), ..Default::default() };
    Shown {
        item_id,
        score: *score,
        source: shelf.source.name(),
        reason: layout::reason_text(&reason, None).into(),
        distance_km: None,
        terms: explain.then(BTreeMap::new),
    }
}

fn of_near(near: &Near, score: f64, explain: bool) -> Shown<'_> {
    let told = near.as_told();
    let reach = if near.km < LOCAL_KM { "near you" } else { "in your region" };
    Shown {
        item_id: &near.item_id,
        score,
        source: Kind::Near.name(),
        reason: reach.into(),
        distance_km: Some(told.km),
        terms: explain.then(|| BTreeMap::from([("proximity", proximity(told.km)), ("quality", near.quality)])),
    }
}

/// All items of a slate.
pub fn shown(stored: &StoredSlate, explain: bool) -> Vec<Shown<'_>> {
    stored.slate.items.iter().map(|item| of_slate(&item.item_id, item, explain)).collect()
}

fn of_pages(slate: &SlatePages, at: usize, explain: bool) -> Option<Shown<'_>> {
    readable("a place of a stored slate", slate.item(at)).map(|item| of_slate(slate.id(at), &item, explain))
}

fn micro(item: &proto::SlateItem) -> f64 {
    f64::from(item.score_micro) / 1e6
}

fn of_slate<'a>(item_id: &'a str, item: &proto::SlateItem, explain: bool) -> Shown<'a> {
    let source = Source::ALL.into_iter().find(|source| *source as i32 == item.source);
    Shown {
        item_id,
        score: micro(item),
        source: source.map_or("unknown", Source::name),
        reason: item.reason.as_ref().map_or(Cow::Borrowed(""), |reason| layout::reason_text(reason, None).into()),
        distance_km: None,
        terms: explain.then(|| TERMS.into_iter().zip(item.terms.iter().map(|term| f64::from(*term) / 1e4)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;

    /// Every other place is jazz.
    fn slate(epoch: u64, items: &[u32]) -> SlatePages {
        with_jazz(epoch, items, (0..items.len() as u32).step_by(2).collect())
    }

    fn with_jazz(epoch: u64, items: &[u32], places: Vec<u32>) -> SlatePages {
        let item = |i: &u32| proto::SlateItem { item_id: format!("i{i}"), ..Default::default() };
        let jazz = proto::Category { name: "jazz".into(), places };
        let slate = proto::Slate { items: items.iter().map(item).collect(), categories: vec![jazz], ..Default::default() };
        let stamp = layout::Stamp { epoch, generation: 1, model: 0 };
        SlatePages::of_body(stamp, slate.encode_to_vec().into()).expect("a slate is one")
    }

    fn shelf(source: Source, items: &[u32]) -> Shelf {
        let items: Vec<_> = items.iter().map(|i| (format!("i{i}"), 1.0)).collect();
        let stamp = stamp_of(items.iter().map(|i| i.0.as_str()));
        Shelf { source, subject: String::new(), stamp, items, as_of: 5, epoch: 5 }
    }

    struct World {
        slate: Option<SlatePages>,
        jazz: Option<Shelf>,
        shelves: [Shelf; 2],
        seen: Vec<&'static str>,
        gone: HashSet<String>,
        exclude: HashSet<String>,
    }

    impl World {
        fn page(&self, kind: Kind, cursor: &Cursor, k: usize) -> (Vec<String>, Option<Cursor>, bool) {
            let seen = self.seen.iter().copied().collect();
            let (gone, exclude) = (&self.gone, &self.exclude);
            let mixed = narrowed(self.slate.as_ref(), "jazz", self.jazz.as_ref());
            let own = match kind {
                Kind::Slate(_) => self.slate.as_ref().map(List::Slate),
                Kind::Category => Some(List::Mixed(&mixed)),
                Kind::Near | Kind::Trending => None,
            };
            let lists = Lists { own, shelves: &self.shelves, seen: &seen, gone, exclude };
            let page = page(kind, &lists, cursor, k, false);
            let next = page.cursor.map(|text| Cursor::parse(&text).expect("our own cursor"));
            (page.items.iter().map(|i| i.item_id.to_string()).collect(), next, page.fallback)
        }
    }

    fn world(items: Option<&[u32]>, trends: &[u32]) -> World {
        let shelves = [shelf(Source::Trending, trends), shelf(Source::Fresh, &[])];
        let slate = items.map(|i| slate(1, i));
        World { slate, jazz: None, shelves, seen: vec![], gone: HashSet::new(), exclude: HashSet::new() }
    }

    /// The order in which lists are tried, and what each rule leaves out.
    #[test]
    fn a_feed_is_empty_only_when_there_is_nothing() {
        let ids = |world: &World| world.page(Kind::HOME, &Cursor::default(), 10);
        let mut w = world(Some(&[1, 2, 3]), &[3, 4]);
        w.seen = vec!["i1"];
        w.gone = HashSet::from(["i2".to_string()]);
        assert_eq!(ids(&w), (vec!["i3".to_string()], None, false));
        w.seen = vec!["i1", "i3"];
        assert_eq!(ids(&w), (vec!["i4".to_string()], None, true), "all seen: what is trending");
        w.seen = vec!["i1", "i3", "i4"];
        assert_eq!(ids(&w), (vec!["i3".to_string(), "i4".to_string()], None, true), "all of that seen too: again");
        w.shelves = [shelf(Source::Trending, &[]), shelf(Source::Fresh, &[7])];
        assert_eq!(ids(&w), (vec!["i7".to_string()], None, true), "nothing trending: what is new");
        w.shelves[1].items.clear();
        assert_eq!(ids(&w), (vec!["i1".to_string(), "i3".to_string()], None, false), "nothing on any shelf: the slate again");
        w.exclude = HashSet::from(["i1".to_string()]);
        assert_eq!(
            ids(&w),
            (vec!["i3".to_string()], None, false),
            "what the request excludes does not come back for want of others"
        );
        assert_eq!(ids(&world(None, &[])), (vec![], None, true));
        let (items, _, fallback) = world(Some(&[1]), &[4]).page(Kind::Trending, &Cursor::default(), 10);
        assert_eq!((items, fallback), (vec!["i4".to_string()], false), "asked for trending it is no fallback");
    }

    #[test]
    fn a_replaced_slate_goes_on_without_repeats() {
        let mut w = world(Some(&[1, 2, 3, 4, 5, 6]), &[]);
        let (first, cursor, _) = w.page(Kind::HOME, &Cursor::default(), 2);
        assert_eq!(first, ["i1", "i2"]);
        w.slate = Some(slate(2, &[9, 2, 3, 1, 8]));
        let (second, cursor, _) = w.page(Kind::HOME, &cursor.expect("more"), 2);
        assert_eq!(second, ["i9", "i3"]);
        let (third, cursor, _) = w.page(Kind::HOME, &cursor.expect("more"), 2);
        assert_eq!((third, cursor), (vec!["i8".to_string()], None));
    }

    /// One chain over what the slate has of the category and what trends in it; then what was seen of it, then what all share.
    #[test]
    fn a_category_is_the_slate_narrowed_and_then_what_trends_in_it() {
        let ids = |ids: &[u32]| ids.iter().map(|i| format!("i{i}")).collect::<Vec<_>>();
        let mut w = world(Some(&[1, 2, 3, 4, 5]), &[9]);
        w.jazz = Some(shelf(Source::Trending, &[3, 7, 8]));
        let (first, cursor, fallback) = w.page(Kind::Category, &Cursor::default(), 2);
        assert_eq!((first, fallback), (ids(&[1, 3]), false));
        let (second, cursor, _) = w.page(Kind::Category, &cursor.expect("more"), 2);
        assert_eq!(second, ids(&[5, 7]));
        let (third, cursor, _) = w.page(Kind::Category, &cursor.expect("more"), 2);
        assert_eq!((third, cursor), (ids(&[8]), None));
        w.seen = vec!["i1", "i3", "i5", "i7", "i8"];
        assert_eq!(w.page(Kind::Category, &Cursor::default(), 9).0, ids(&[1, 3, 5, 7, 8]), "rather again than something else");
        w.slate = None;
        w.seen = vec!["i3"];
        assert_eq!(w.page(Kind::Category, &Cursor::default(), 9), (ids(&[7, 8]), None, true));
        w.jazz = None;
        assert_eq!(w.page(Kind::Category, &Cursor::default(), 9), (ids(&[9]), None, true), "nothing of it at all");
        w.slate = Some(with_jazz(2, &[1, 2], vec![0, 70]));
        assert_eq!(w.page(Kind::Category, &Cursor::default(), 9).0, ids(&[1]), "a place that is not there is none");
    }

    proptest! {
        /// Unchanged: the pages put together are the list without what is excluded. Changed at any moment: nothing twice, and nothing
        /// that is excluded.
        #[test]
        fn pages_add_up(n in 0u32..60, k in 1usize..9, change in proptest::option::of(0usize..8), shift in 0u32..60, not in 1u32..9) {
            let items: Vec<u32> = (0..n).collect();
            let mut w = world(Some(&items), &[]);
            w.exclude = (0..120).filter(|i| i % 9 < not - 1).map(|i| format!("i{i}")).collect();
            let (mut all, mut cursor, mut pages) = (Vec::new(), Some(Cursor::default()), 0);
            while let Some(at) = cursor {
                if change == Some(pages) {
                    w.slate = Some(slate(2, &items.iter().map(|i| i + shift).rev().collect::<Vec<_>>()));
                }
                let (items, next, _) = w.page(Kind::HOME, &at, k);
                all.extend(items);
                (cursor, pages) = (next, pages + 1);
            }
            let mut once = all.clone();
            once.sort();
            once.dedup();
            prop_assert_eq!(once.len(), all.len());
            prop_assert!(all.iter().all(|item| !w.exclude.contains(item)));
            if change.is_none() {
                let names = items.iter().map(|i| format!("i{i}"));
                prop_assert_eq!(all, names.filter(|item| !w.exclude.contains(item)).collect::<Vec<_>>());
            }
        }
    }
}
