//! One page of a feed from the lists it may come from: the user's slate, then the shelves kept for everyone: what is trending,
//! what is popular, what is new.
//!
//! Nothing withdrawn and nothing the request excludes is ever shown. What the user has seen is left out while anything else is there,
//! so a feed is empty only when there is no other item at all. Pure: no store, no clock.

use serde::Serialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};

use super::cursor::Cursor;
use crate::model::slate::TERMS;
use crate::model::{Source, Surface};
use crate::sinks::layout::{self, StoredSlate};
use crate::sinks::proto::{self, ReasonKind};

/// A list kept for everyone, best first.
#[derive(Clone, Debug)]
pub struct Shelf {
    /// Trending, popular or fresh; it also names the model of a page that no model ordered.
    pub source: Source,
    /// With scores in a unit of the shelf's own.
    pub items: Vec<(String, f64)>,
    /// The clock and the epoch of the mark it was read under.
    pub as_of: i64,
    pub epoch: u64,
    pub stamp: u64,
}

/// What a page is made from.
pub struct Lists<'a, 'f> {
    pub slate: Option<&'a StoredSlate>,
    /// In the order in which they stand in for a slate.
    pub shelves: &'a [Shelf],
    pub seen: &'f HashSet<&'f str>,
    pub gone: &'f HashSet<String>,
    /// What the request itself does not want.
    pub exclude: &'f HashSet<String>,
}

/// Which feed is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Home,
    Trending,
}

impl Kind {
    /// The name in routes and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Home => Surface::Home.name(),
            Self::Trending => Source::Trending.name(),
        }
    }

    /// The kind of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Home, Self::Trending].into_iter().find(|kind| kind.name() == name)
    }
}

/// A page, as it is answered but for the request's own fields.
#[derive(Debug, Serialize)]
pub struct Page<'a> {
    pub as_of: i64,
    pub epoch: u64,
    pub model: &'a str,
    pub variant: &'a str,
    pub fallback: bool,
    pub items: Vec<Shown<'a>>,
    pub cursor: Option<String>,
}

/// One item of a page.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    pub item_id: &'a str,
    pub score: f64,
    pub source: &'static str,
    pub reason: Cow<'static, str>,
    /// The blend's terms before their weights, 0 to 1; only when they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terms: Option<BTreeMap<&'static str, f64>>,
}

/// The page when there is no list at all.
const NOTHING: Page<'static> =
    Page { as_of: 0, epoch: 0, model: "", variant: "", fallback: true, items: Vec::new(), cursor: None };

/// The list a page is taken from.
#[derive(Clone, Copy)]
enum List<'a> {
    Slate(&'a StoredSlate),
    Shelf(&'a Shelf),
}

/// The next `k` items (fewer at the end) after `cursor`.
pub fn page<'a>(kind: Kind, lists: &Lists<'a, '_>, cursor: &Cursor, k: usize, explain: bool) -> Page<'a> {
    let slate = lists.slate.filter(|_| kind == Kind::Home).map(List::Slate);
    let shelves = || lists.shelves.iter().map(List::Shelf);
    let unseen = slate.into_iter().chain(shelves()).map(|list| (list, true));
    let tries = unseen.chain(shelves().chain(slate).map(|list| (list, false)));
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
        Some((list, taken, next)) => list.page(&taken, next, kind, explain),
        None => NOTHING,
    }
}

impl<'a> List<'a> {
    fn len(self) -> usize {
        match self {
            Self::Slate(stored) => stored.slate.items.len(),
            Self::Shelf(shelf) => shelf.items.len(),
        }
    }

    fn item(self, at: usize) -> &'a str {
        match self {
            Self::Slate(stored) => &stored.slate.items[at].item_id,
            Self::Shelf(shelf) => &shelf.items[at].0,
        }
    }

    fn stamp(self) -> u64 {
        match self {
            // A slate is written once per epoch and generation.
            Self::Slate(stored) => xxhash_rust::xxh3::xxh3_64_with_seed(&stored.epoch.to_be_bytes(), stored.generation.into()),
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

    fn page(self, taken: &[usize], next: Option<Cursor>, kind: Kind, explain: bool) -> Page<'a> {
        let items = taken.iter().map(|&at| self.shown(at, explain)).collect();
        let cursor = next.map(|cursor| cursor.text());
        match self {
            Self::Slate(StoredSlate { epoch, slate, .. }) => Page {
                as_of: slate.as_of_ms,
                epoch: *epoch,
                model: &slate.model,
                variant: &slate.variant,
                fallback: false,
                items,
                cursor,
            },
            Self::Shelf(shelf) => Page {
                as_of: shelf.as_of,
                epoch: shelf.epoch,
                model: shelf.source.name(),
                variant: "",
                fallback: kind == Kind::Home || shelf.source != Source::Trending,
                items,
                cursor,
            },
        }
    }

    fn shown(self, at: usize, explain: bool) -> Shown<'a> {
        match self {
            Self::Slate(stored) => of_slate(&stored.slate.items[at], explain),
            Self::Shelf(shelf) => of_shelf(shelf, at, explain),
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
    let reason = proto::Reason { kind: kind as i32, ..Default::default() };
    Shown {
        item_id,
        score: *score,
        source: shelf.source.name(),
        reason: layout::reason_text(&reason, None).into(),
        terms: explain.then(BTreeMap::new),
    }
}

/// All items of a slate.
pub fn shown(stored: &StoredSlate, explain: bool) -> Vec<Shown<'_>> {
    stored.slate.items.iter().map(|item| of_slate(item, explain)).collect()
}

fn of_slate(item: &proto::SlateItem, explain: bool) -> Shown<'_> {
    let source = Source::ALL.into_iter().find(|source| *source as i32 == item.source);
    Shown {
        item_id: &item.item_id,
        score: f64::from(item.score_micro) / 1e6,
        source: source.map_or("unknown", Source::name),
        reason: item.reason.as_ref().map_or(Cow::Borrowed(""), |reason| layout::reason_text(reason, None).into()),
        terms: explain.then(|| TERMS.into_iter().zip(item.terms.iter().map(|term| f64::from(*term) / 1e4)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::cursor::stamp_of;
    use proptest::prelude::*;

    fn slate(epoch: u64, items: &[u32]) -> StoredSlate {
        let item = |i: &u32| proto::SlateItem { item_id: format!("i{i}"), ..Default::default() };
        let slate = proto::Slate { items: items.iter().map(item).collect(), ..Default::default() };
        StoredSlate { epoch, generation: 1, model: 0, slate }
    }

    fn shelf(source: Source, items: &[u32]) -> Shelf {
        let items: Vec<_> = items.iter().map(|i| (format!("i{i}"), 1.0)).collect();
        Shelf { source, stamp: stamp_of(items.iter().map(|i| i.0.as_str())), items, as_of: 5, epoch: 5 }
    }

    struct World {
        slate: Option<StoredSlate>,
        shelves: [Shelf; 2],
        seen: Vec<&'static str>,
        gone: HashSet<String>,
        exclude: HashSet<String>,
    }

    impl World {
        fn page(&self, kind: Kind, cursor: &Cursor, k: usize) -> (Vec<String>, Option<Cursor>, bool) {
            let seen = self.seen.iter().copied().collect();
            let (gone, exclude) = (&self.gone, &self.exclude);
            let lists = Lists { slate: self.slate.as_ref(), shelves: &self.shelves, seen: &seen, gone, exclude };
            let page = page(kind, &lists, cursor, k, false);
            let next = page.cursor.map(|text| Cursor::parse(&text).expect("our own cursor"));
            (page.items.iter().map(|i| i.item_id.to_string()).collect(), next, page.fallback)
        }
    }

    fn world(items: Option<&[u32]>, trends: &[u32]) -> World {
        let shelves = [shelf(Source::Trending, trends), shelf(Source::Fresh, &[])];
        World { slate: items.map(|i| slate(1, i)), shelves, seen: vec![], gone: HashSet::new(), exclude: HashSet::new() }
    }

    /// The order in which lists are tried, and what each rule leaves out.
    #[test]
    fn a_feed_is_empty_only_when_there_is_nothing() {
        let ids = |world: &World| world.page(Kind::Home, &Cursor::default(), 10);
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
        let (first, cursor, _) = w.page(Kind::Home, &Cursor::default(), 2);
        assert_eq!(first, ["i1", "i2"]);
        w.slate = Some(slate(2, &[9, 2, 3, 1, 8]));
        let (second, cursor, _) = w.page(Kind::Home, &cursor.expect("more"), 2);
        assert_eq!(second, ["i9", "i3"]);
        let (third, cursor, _) = w.page(Kind::Home, &cursor.expect("more"), 2);
        assert_eq!((third, cursor), (vec!["i8".to_string()], None));
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
                let (items, next, _) = w.page(Kind::Home, &at, k);
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
