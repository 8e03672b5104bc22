//! Changes become writes: names are looked up, values are laid out, lifetimes set. Pure but for a count: the same change, epoch
//! and names always make the same bytes.

use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::layout::{self, Keys, Segment, SlateValue, Stamp, StoredInterests, StoredProfile, Why, bare, proto};
use super::{Fence, Params, Sort, Write};
use crate::model::catalogue::Item;
use crate::model::changes::{Counts, Interests, Neighbour, Profile, Scope};
use crate::model::experiment::Standing;
use crate::model::time::Millis;
use crate::model::{Change, Epoch, ItemId, Names, Reason, SignalKey, Signals, Slate, Surface, TokenId, UserId};

/// Slates whose room is kept for the next ones.
const ROOMS: usize = 64;

/// Writes changes down in the published layout.
pub struct Encoder {
    names: Arc<Names>,
    /// Names of items met here: a slate asks for hundreds, and this table has no lock. (Only users are ever forgotten.)
    items: RefCell<FxHashMap<ItemId, Arc<str>>>,
    reasons: RefCell<Reasons>,
    groups: RefCell<Groups>,
    /// Room for the next slates: of those that were written.
    room: RefCell<Vec<Vec<u8>>>,
    keys: Keys,
    user_ttl: Duration,
    item_ttl: Duration,
    slate_ttl: Duration,
    trending_ttl: Duration,
    near_ttl: Duration,
    card_ttl: Duration,
    tombstone_ttl: Duration,
    skipped: AtomicU64,
}

/// The reasons of a slate, each once: two hundred items have a few dozen between them, and looking names up is most of the work.
#[derive(Default)]
struct Reasons {
    encoded: Vec<u8>,
    /// Where each lies; `None`: a name it mentions is unknown.
    places: FxHashMap<Reason, Option<Range<usize>>>,
}

impl Reasons {
    fn clear(&mut self) {
        self.encoded.clear();
        self.places.clear();
    }

    fn get(&mut self, reason: &Reason, encode: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> Option<&[u8]> {
        let Self { encoded, places } = self;
        let place = places.entry(*reason).or_insert_with(|| {
            let begins = encoded.len();
            encode(encoded).map(|()| begins..encoded.len())
        });
        place.clone().map(|place| &encoded[place])
    }
}

/// The places of each category of a slate, in room that is kept from slate to slate.
#[derive(Default)]
struct Groups {
    found: FxHashMap<TokenId, usize>,
    /// The first `found.len()` are those of this slate.
    groups: Vec<(TokenId, Vec<u8>)>,
}

impl Groups {
    fn clear(&mut self) {
        self.found.clear();
    }

    fn put(&mut self, category: TokenId, place: u16) {
        let Self { found, groups } = self;
        let next = found.len();
        let at = *found.entry(category).or_insert(next);
        if at == groups.len() {
            groups.push((category, Vec::new()));
        }
        if at == next {
            groups[at].0 = category;
            groups[at].1.clear();
        }
        layout::put_place(&mut groups[at].1, place);
    }

    /// By category.
    fn sorted(&mut self) -> &[(TokenId, Vec<u8>)] {
        let groups = &mut self.groups[..self.found.len()];
        groups.sort_unstable_by_key(|(category, _)| *category);
        groups
    }
}

/// When and by whom a value is written.
#[derive(Clone, Copy)]
struct When {
    as_of: Millis,
    stamp: Stamp,
}

impl When {
    fn fence(&self) -> Fence {
        self.stamp.fence()
    }
}

impl Encoder {
    /// With the spelling of ids, and prefix and lifetimes of keys.
    pub fn new(names: Arc<Names>, params: &Params) -> Self {
        Self {
            names,
            items: RefCell::default(),
            reasons: RefCell::default(),
            groups: RefCell::default(),
            room: RefCell::default(),
            keys: Keys::new(&params.prefix),
            user_ttl: params.user_ttl,
            item_ttl: params.item_ttl,
            slate_ttl: params.slate_ttl,
            trending_ttl: params.trending_ttl,
            near_ttl: params.near_ttl,
            card_ttl: params.card_ttl,
            tombstone_ttl: params.tombstone_ttl,
            skipped: AtomicU64::new(0),
        }
    }

    /// The spelling of ids.
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// How long what stays of a deleted key does.
    pub fn tombstone_ttl(&self) -> Duration {
        self.tombstone_ttl
    }

    /// Rows left out because an id in them has no known name: a change, an item of a slate, a member of a list.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Appends what `change`, made in `epoch` by this `generation` of the engine, writes: one write, or none. What
    /// is said of withdrawn items right after each other becomes one write, as new as the last of it.
    pub fn writes(&self, change: &Change, epoch: &Epoch, generation: u32, out: &mut Vec<Write>) {
        let stamp = Stamp { epoch: epoch.number, generation, model: layout::BLEND.0 };
        let when = When { as_of: epoch.clock_ms, stamp };
        let write = match change {
            Change::Slate { user, surface, slate, .. } => self.slate(*user, *surface, slate.as_deref(), when),
            Change::Signals(key, signals) => self.signals(*key, signals.as_deref(), when),
            Change::Interests(user, interests) => self.interests(*user, interests.as_deref(), when),
            Change::Seen(user, items) => self.seen(*user, items, when),
            Change::AllSeen(user, items) => self.all_seen(*user, items, when),
            Change::AllGone(items) => Some(self.ranked(self.keys.gone(), items, self.slate_ttl, when)),
            Change::Neighbours(item, users, neighbours) => self.neighbours(*item, *users, neighbours, when),
            Change::Card(item, card) => self.card(*item, card.as_ref(), when),
            Change::Trending(scope, items) => self.trending(*scope, items, when),
            Change::Experiments(standings) => Some(self.experiments(standings, when)),
            Change::Profile(user, profile) => self.profile(*user, profile.as_deref(), when),
            Change::Census(counts) => Some(self.census(counts, when)),
            Change::Near(cell, items) => Some(self.ranked(self.keys.near(&cell.to_string()), items, self.near_ttl, when)),
            Change::Catalogue(item, available) => return self.catalogue(*item, *available, when, out),
            Change::Forgotten(user) => self.farewell(*user, when),
            Change::Dead(_) | Change::Account(_) => return,
            Change::Ranking(..)
            | Change::Example(_)
            | Change::Watched(_)
            | Change::Arms(_)
            | Change::Learned(_)
            | Change::Encode(_) => return,
        };
        match write {
            Some(write) => out.push(write),
            None => self.skip(),
        }
    }

    /// All that is still there of a user of whom everything was taken back: the fence of what they had seen, under their name.
    fn farewell(&self, user: UserId, when: When) -> Option<Write> {
        let key = self.keys.seen(&self.user_name(user)?);
        Some(self.delete(key, Sort::Ranked, when))
    }

    fn slate(&self, user: UserId, surface: Surface, slate: Option<&Slate>, when: When) -> Option<Write> {
        let user = self.user_name(user)?;
        let key = self.keys.slate(surface.name(), None, &user);
        let Some(slate) = slate else { return Some(self.delete(key, Sort::Value, when)) };
        let room = self.room.borrow_mut().pop().unwrap_or_default();
        let mut value = SlateValue::new(room, &user, surface.name(), when.as_of);
        let mut reasons = self.reasons.borrow_mut();
        reasons.clear();
        let mut places = Vec::with_capacity(slate.items.len());
        let mut written = 0;
        for row in &slate.items {
            let why = reasons.get(&row.reason, |into| self.why(&row.reason, into));
            let pushed = why
                .and_then(|why| self.with_name(row.item, |item| value.push(item, row.score_micro, row.source, why, &row.terms)));
            places.push(pushed.map(|()| written));
            match pushed {
                Some(()) => written += 1,
                None => self.skip(),
            }
        }
        let (number, name) = slate.model.as_deref().map_or(layout::BLEND, |model| (model.number, model.name.as_str()));
        let (experiment, variant) = slate.variant.as_deref().map_or(("", ""), |of| (of.experiment.as_str(), of.arm.as_str()));
        value.ordered_by(name, variant);
        self.categories(slate, &places, &mut value);
        value.under(experiment);
        for (kind, item) in &slate.history {
            if self.with_name(*item, |item| value.took(item, kind.name())).is_none() {
                self.skip();
            }
        }
        value.in_all(slate.taken);
        let value = value.finish(Stamp { model: number, ..when.stamp });
        Some(Write::Value { key, value, ttl: self.slate_ttl, fence: when.fence() })
    }

    /// Adds the categories of a slate whose items lie in `places`, if they could be written.
    fn categories(&self, slate: &Slate, places: &[Option<u16>], value: &mut SlateValue) {
        let mut groups = self.groups.borrow_mut();
        groups.clear();
        for (category, place) in &slate.categories {
            if let Some(Some(written)) = places.get(usize::from(*place)) {
                groups.put(*category, *written);
            }
        }
        for (category, places) in groups.sorted() {
            match self.token_name(*category) {
                Some(name) => value.categorise(bare(&name), places),
                None => self.skip(),
            }
        }
    }

    /// Takes back the room of what was written.
    pub fn reuse(&self, writes: &mut Vec<Write>) {
        let mut room = self.room.borrow_mut();
        let values = writes.drain(..).filter_map(|write| if let Write::Value { value, .. } = write { Some(value) } else { None });
        values.for_each(|value| {
            if room.len() < ROOMS {
                room.push(value);
            }
        });
    }

    /// Appends a reason as it lies in a slate; `None` when a name it mentions is unknown.
    fn why(&self, reason: &Reason, into: &mut Vec<u8>) -> Option<()> {
        let subject = match reason {
            Reason::Because { item, .. } => Some(self.item_name(*item)?),
            Reason::Likes { token } | Reason::Trending { token: Some(token) } | Reason::New { token: Some(token) } => {
                Some(self.token_name(*token)?)
            }
            Reason::Trending { token: None } | Reason::New { token: None } | Reason::Popular => None,
        };
        Why::of(reason, subject.as_deref().unwrap_or("")).encode(into);
        Some(())
    }

    fn signals(&self, key: SignalKey, signals: Option<&Signals>, when: When) -> Option<Write> {
        let (key, ttl) = match key {
            SignalKey::User(user) => (self.keys.user(&self.user_name(user)?), self.user_ttl),
            SignalKey::Item(item) => (self.keys.item(&self.item_name(item)?), self.item_ttl),
            SignalKey::Category(token) => (self.keys.category(bare(&self.token_name(token)?)), self.item_ttl),
            SignalKey::Author(token) => (self.keys.author(bare(&self.token_name(token)?)), self.item_ttl),
        };
        let Some(signals) = signals else { return Some(self.delete(key, Sort::Fields, when)) };
        let fields = layout::encode_features(signals, when.as_of, when.fence());
        Some(Write::Fields { key, fields, ttl, fence: when.fence() })
    }

    fn interests(&self, user: UserId, interests: Option<&Interests>, when: When) -> Option<Write> {
        let key = self.keys.interests(&self.user_name(user)?);
        let Some(interests) = interests else { return Some(self.delete(key, Sort::Fields, when)) };
        let stored = StoredInterests {
            as_of: when.as_of,
            epoch: when.stamp.epoch,
            short: self.named(&interests.short, |t| self.token_name(t)),
            long: self.named(&interests.long, |t| self.token_name(t)),
            drift: interests.drift,
        };
        let fields = layout::encode_interests(&stored, when.stamp.generation);
        Some(Write::Fields { key, fields, ttl: self.user_ttl, fence: when.fence() })
    }

    /// Member by member: an event changes one. The set lives as long as the slates it filters.
    fn seen(&self, user: UserId, items: &[(ItemId, Option<Millis>)], when: When) -> Option<Write> {
        let key = self.keys.seen(&self.user_name(user)?);
        let members = self.named(items, |i| self.item_name(i)).into_iter();
        let members = members.map(|(item, at)| (item.to_string(), at.map(|at| at as f64))).collect();
        Some(Write::Members { key, members, ttl: self.slate_ttl, fence: when.fence() })
    }

    fn all_seen(&self, user: UserId, items: &[(ItemId, Millis)], when: When) -> Option<Write> {
        let key = self.keys.seen(&self.user_name(user)?);
        Some(self.ranked(key, items, self.slate_ttl, when))
    }

    fn neighbours(&self, item: ItemId, users: u32, neighbours: &[Neighbour], when: When) -> Option<Write> {
        let item_id = self.item_name(item)?.to_string();
        let key = self.keys.neighbours(&item_id);
        if users == 0 && neighbours.is_empty() {
            return Some(self.delete(key, Sort::Value, when));
        }
        let pairs: Vec<(ItemId, Neighbour)> = neighbours.iter().map(|n| (n.item, *n)).collect();
        let named = self.named(&pairs, |i| self.item_name(i)).into_iter();
        let neighbour = |(item_id, n): (Arc<str>, Neighbour)| {
            let Neighbour { similarity_micro, users, .. } = n;
            proto::Neighbour { item_id: item_id.to_string(), similarity_micro, users }
        };
        let list = proto::Neighbours { item_id, as_of_ms: when.as_of, neighbours: named.map(neighbour).collect(), users };
        let value = layout::encode_neighbours(&list, when.stamp);
        Some(Write::Value { key, value, ttl: self.card_ttl, fence: when.fence() })
    }

    fn card(&self, item: ItemId, card: Option<&(Arc<Item>, Millis)>, when: When) -> Option<Write> {
        let item_id = self.item_name(item)?.to_string();
        let key = self.keys.card(&item_id);
        let Some((facts, created)) = card else { return Some(self.delete(key, Sort::Value, when)) };
        let card = proto::Card {
            item_id,
            as_of_ms: when.as_of,
            created_ms: *created,
            categories: self.bare_names(&facts.categories),
            tags: self.bare_names(&facts.tags),
            author: facts.author.and_then(|author| self.bare_name(author)).unwrap_or_default(),
            title: facts.title.clone().unwrap_or_default(),
            mature: facts.mature,
            language: facts.language.and_then(|language| self.bare_name(language)).unwrap_or_default(),
            city: facts.city.clone().unwrap_or_default(),
            lat: facts.lat,
            lon: facts.lon,
            quality: facts.quality,
            avg_viewers: facts.avg_viewers,
            followers: facts.followers,
            partnered: facts.partnered,
        };
        let value = layout::encode_card(&card, when.stamp);
        Some(Write::Value { key, value, ttl: self.card_ttl, fence: when.fence() })
    }

    /// The names of tokens without their kinds; one without a name is left out and counted.
    fn bare_names(&self, tokens: &[TokenId]) -> Vec<String> {
        tokens.iter().filter_map(|token| self.bare_name(*token)).collect()
    }

    fn bare_name(&self, token: TokenId) -> Option<String> {
        let name = self.token_name(token).map(|name| bare(&name).to_string());
        if name.is_none() {
            self.skip();
        }
        name
    }

    fn trending(&self, scope: Scope, items: &[(ItemId, i64)], when: When) -> Option<Write> {
        let key = match scope {
            Scope::Global => self.keys.trending(Segment::All),
            Scope::Category(token) => self.keys.trending(Segment::Category(bare(&self.token_name(token)?))),
            Scope::Language(token) => self.keys.trending(Segment::Language(bare(&self.token_name(token)?))),
            Scope::Cell(cell) => self.keys.trending(Segment::Cell(&cell.to_string())),
            Scope::Popular => self.keys.popular(),
            Scope::Fresh => self.keys.fresh(),
        };
        Some(self.ranked(key, items, self.trending_ttl, when))
    }

    fn ranked(&self, key: String, items: &[(ItemId, i64)], ttl: Duration, when: When) -> Write {
        let members: Vec<_> =
            self.named(items, |i| self.item_name(i)).into_iter().map(|(item, n)| (item.to_string(), n as f64)).collect();
        // A set without members is no key.
        if members.is_empty() {
            return self.delete(key, Sort::Ranked, when);
        }
        Write::Ranked { key, members, ttl, fence: when.fence() }
    }

    fn experiments(&self, standings: &[Standing], when: When) -> Write {
        let key = self.keys.experiments();
        if standings.is_empty() {
            return self.delete(key, Sort::Fields, when);
        }
        let fields = layout::encode_experiments(standings, when.as_of, when.fence());
        Write::Fields { key, fields, ttl: self.trending_ttl, fence: when.fence() }
    }

    fn profile(&self, user: UserId, profile: Option<&Profile>, when: When) -> Option<Write> {
        let key = self.keys.profile(&self.user_name(user)?);
        let Some(of) = profile else { return Some(self.delete(key, Sort::Fields, when)) };
        let items: Vec<(ItemId, ())> = of.hidden_items.iter().map(|item| (*item, ())).collect();
        let stored = StoredProfile {
            as_of: when.as_of,
            epoch: when.stamp.epoch,
            place: of.lat.zip(of.lon),
            city: of.city.clone(),
            local_preference: of.local_preference,
            total_watch_hours: of.total_watch_hours,
            language: of.language.and_then(|language| self.bare_name(language)),
            mature: of.mature,
            hidden_authors: self.bare_names(&of.hidden_authors).into_iter().collect(),
            hidden_items: self.named(&items, |i| self.item_name(i)).into_iter().map(|(item, ())| item.to_string()).collect(),
        };
        let fields = layout::encode_profile(&stored, when.stamp.generation);
        Some(Write::Fields { key, fields, ttl: self.card_ttl, fence: when.fence() })
    }

    fn census(&self, counts: &Counts, when: When) -> Write {
        let fields = layout::encode_census(counts, when.as_of, when.fence());
        Write::Fields { key: self.keys.census(), fields, ttl: self.card_ttl, fence: when.fence() }
    }

    /// A withdrawn item stays listed at least as long as a slate that may still hold it.
    fn catalogue(&self, item: ItemId, available: bool, when: When, out: &mut Vec<Write>) {
        let Some(item) = self.item_name(item) else { return self.skip() };
        let member = (item.to_string(), (!available).then_some(when.as_of as f64));
        let gone = self.keys.gone();
        match out.last_mut() {
            Some(Write::Members { key, members, fence, .. }) if *key == gone => {
                members.push(member);
                *fence = when.fence().max(*fence);
            }
            _ => out.push(Write::Members { key: gone, members: vec![member], ttl: self.slate_ttl, fence: when.fence() }),
        }
    }

    fn delete(&self, key: String, sort: Sort, when: When) -> Write {
        Write::Delete { key, sort, ttl: self.tombstone_ttl, fence: when.fence() }
    }

    /// Names in place of ids; a row without a name is left out and counted.
    fn named<I: Copy, T: Copy>(&self, rows: &[(I, T)], name: impl Fn(I) -> Option<Arc<str>>) -> Vec<(Arc<str>, T)> {
        let named = |(id, what): &(I, T)| {
            let name = name(*id);
            if name.is_none() {
                self.skip();
            }
            name.map(|name| (name, *what))
        };
        rows.iter().filter_map(named).collect()
    }

    fn user_name(&self, user: UserId) -> Option<Arc<str>> {
        self.names.users.get(user.0)
    }

    fn item_name(&self, item: ItemId) -> Option<Arc<str>> {
        self.with_name(item, Arc::clone)
    }

    /// What is made of an item's name; `None` where it is unknown.
    fn with_name<T>(&self, item: ItemId, make: impl FnOnce(&Arc<str>) -> T) -> Option<T> {
        if let Some(name) = self.items.borrow().get(&item) {
            return Some(make(name));
        }
        let name = self.names.items.get(item.0)?;
        let made = make(&name);
        self.items.borrow_mut().insert(item, name);
        Some(made)
    }

    fn token_name(&self, token: TokenId) -> Option<Arc<str>> {
        self.names.spelling(token)
    }

    fn skip(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::TokenKind;
    use crate::model::interaction::Dead;
    use crate::model::place::Cell;
    use crate::model::{Kind, SlateItem, Source};

    const EPOCH: Epoch = Epoch {
        number: 42,
        clock_ms: 1_763_600_000_000,
        watermark_ms: 0,
        turn: crate::model::Turn::NONE,
        refreshes: None,
        save: false,
        retell: None,
        model: None,
    };

    const FENCE: Fence = Fence { epoch: 42, generation: 7 };

    fn params() -> Params {
        let hours = |n: u64| Duration::from_secs(3600 * n);
        Params {
            kind: super::super::Kind::Memory,
            prefix: "od:".into(),
            user_ttl: hours(1),
            item_ttl: hours(2),
            slate_ttl: hours(3),
            trending_ttl: hours(4),
            near_ttl: hours(6),
            card_ttl: hours(7),
            tombstone_ttl: hours(5),
            max_dirty_keys: 10,
        }
    }

    fn encoder() -> (Encoder, Arc<Names>) {
        let names = Arc::new(Names::default());
        (Encoder::new(names.clone(), &params()), names)
    }

    fn write_of(encoder: &Encoder, change: Change) -> Option<Write> {
        let mut out = Vec::new();
        encoder.writes(&change, &EPOCH, 7, &mut out);
        assert!(out.len() <= 1);
        out.pop()
    }

    #[test]
    fn every_reason_and_term_of_a_slate_is_written_by_name() {
        let (encoder, names) = encoder();
        let user = names.user("u:1").expect("no collision");
        let jazz = names.token(TokenKind::Category, "jazz").expect("no collision");
        let shared = names.item("i0").expect("no collision");
        let reasons = [
            (Reason::Because { kind: Kind::Share, item: shared }, "because you shared i0"),
            (Reason::Likes { token: jazz }, "because you like jazz"),
            (Reason::Trending { token: None }, "trending now"),
            (Reason::Trending { token: Some(jazz) }, "popular in jazz now"),
            (Reason::New { token: None }, "new"),
            (Reason::New { token: Some(jazz) }, "new in jazz"),
            (Reason::Popular, "popular"),
        ];
        let item = |(i, (reason, _)): (usize, &(Reason, &str))| SlateItem {
            item: names.item(&format!("i{i}")).expect("no collision"),
            score_micro: 1_000 - i as i32,
            source: Source::ALL[i % Source::ALL.len()],
            reason: *reason,
            terms: [1, 2, 3, 4, i as u16],
        };
        let items = reasons.iter().enumerate().map(item).collect();
        let categories = vec![(jazz, 0), (jazz, 2)];
        let history = vec![(Kind::Share, shared)];
        let slate = Slate { user, surface: Surface::HOME, model: None, variant: None, items, categories, history, taken: 1 };
        let change = Change::Slate { user, surface: Surface::HOME, slate: Some(slate.into()), entered: vec![], left: vec![] };
        let Some(Write::Value { key, value, ttl, fence }) = write_of(&encoder, change) else { panic!("a slate is a value") };
        assert_eq!(fence, FENCE);
        assert_eq!((key.as_str(), ttl), ("od:slate:home:{u%3A1}", params().slate_ttl));
        let stored = layout::decode_slate(&value).expect("what was written");
        assert_eq!((stored.epoch, stored.generation, stored.model), (42, 7, 0));
        assert_eq!((stored.slate.user_id.as_str(), stored.slate.surface.as_str()), ("u:1", "home"));
        assert_eq!((stored.slate.as_of_ms, stored.slate.model.as_str()), (EPOCH.clock_ms, "blend"));
        for (i, (item, (_, text))) in stored.slate.items.iter().zip(reasons).enumerate() {
            let reason = item.reason.as_ref().expect("always written");
            assert_eq!((item.item_id.clone(), layout::reason_text(reason, None).as_str()), (format!("i{i}"), text));
            assert_eq!((item.score_micro, item.source), (1_000 - i as i32, Source::ALL[i % Source::ALL.len()] as i32));
            assert_eq!(item.terms, [1, 2, 3, 4, i as u32]);
        }
        assert_eq!(stored.slate.categories, [proto::Category { name: "jazz".into(), places: vec![0, 2] }]);
        assert_eq!(stored.slate.history, [proto::Taken { item_id: "i0".into(), interaction: "share".into() }]);
        assert_eq!((stored.slate.items.len(), encoder.skipped()), (reasons.len(), 0));
    }

    #[test]
    fn what_is_gone_is_deleted() {
        let (encoder, names) = encoder();
        let (user, item) = (names.user("u").expect("no collision"), names.item("i").expect("no collision"));
        let token = names.token(TokenKind::Author, "a").expect("no collision");
        let english = names.token(TokenKind::Language, "en").expect("no collision");
        let slate = Change::Slate { user, surface: Surface::HOME, slate: None, entered: vec![], left: vec![item] };
        let table = [
            (slate, "od:slate:home:{u}", Sort::Value),
            (Change::Signals(SignalKey::User(user), None), "od:user:{u}", Sort::Fields),
            (Change::Signals(SignalKey::Item(item), None), "od:item:i", Sort::Fields),
            (Change::Signals(SignalKey::Category(token), None), "od:category:a", Sort::Fields),
            (Change::Signals(SignalKey::Author(token), None), "od:author:a", Sort::Fields),
            (Change::Interests(user, None), "od:interests:{u}", Sort::Fields),
            (Change::Neighbours(item, 0, vec![]), "od:neighbours:i", Sort::Value),
            (Change::Card(item, None), "od:card:i", Sort::Value),
            (Change::Trending(Scope::Global, vec![]), "od:trending:global", Sort::Ranked),
            (Change::Trending(Scope::Category(token), vec![]), "od:trending:category:a", Sort::Ranked),
            (Change::Trending(Scope::Popular, vec![]), "od:trending:popular", Sort::Ranked),
            (Change::Trending(Scope::Fresh, vec![]), "od:trending:fresh", Sort::Ranked),
            (Change::Trending(Scope::Language(english), vec![]), "od:trending:language:en", Sort::Ranked),
            (Change::Trending(Scope::Cell(Cell(0x841_f8d7_ffff_ffff)), vec![]), "od:trending:cell:841f8d7ffffffff", Sort::Ranked),
            (Change::Near(Cell(0x0881_fb46_625f_ffff), vec![]), "od:near:881fb46625fffff", Sort::Ranked),
        ];
        for (change, key, sort) in table {
            let expected = Write::Delete { key: key.into(), sort, ttl: params().tombstone_ttl, fence: FENCE };
            assert_eq!(write_of(&encoder, change), Some(expected));
        }
    }

    #[test]
    fn what_is_said_of_withdrawn_items_is_one_write_as_new_as_its_last_word() {
        let (encoder, names) = encoder();
        let items = ["i", "j"].map(|i| names.item(i).expect("no collision"));
        let mut out = Vec::new();
        encoder.writes(&Change::Catalogue(items[0], true), &EPOCH, 7, &mut out);
        encoder.writes(&Change::Catalogue(items[1], false), &Epoch { number: 43, ..EPOCH }, 7, &mut out);
        let members = vec![("i".to_string(), None), ("j".to_string(), Some(EPOCH.clock_ms as f64))];
        let fence = Fence { epoch: 43, generation: 7 };
        assert_eq!(out, [Write::Members { key: "od:gone".into(), members, ttl: params().slate_ttl, fence }]);
    }

    #[test]
    fn lists_carry_their_scores_and_lifetimes() {
        let (encoder, names) = encoder();
        let user = names.user("u").expect("no collision");
        let items: Vec<ItemId> = (0..6).map(|i| names.item(&format!("i{i}")).expect("no collision")).collect();
        let seen = write_of(&encoder, Change::Seen(user, vec![(items[0], Some(10)), (items[1], None)]));
        let members = vec![("i0".to_string(), Some(10.0)), ("i1".to_string(), None)];
        assert_eq!(seen, Some(Write::Members { key: "od:seen:{u}".into(), members, ttl: params().slate_ttl, fence: FENCE }));

        let trending = write_of(&encoder, Change::Trending(Scope::Global, vec![(items[3], 1_500), (items[1], -2)]));
        let members = vec![("i3".to_string(), 1_500.0), ("i1".to_string(), -2.0)];
        let expected = Write::Ranked { key: "od:trending:global".into(), members, ttl: params().trending_ttl, fence: FENCE };
        assert_eq!(trending, Some(expected));

        let neighbour = Neighbour { item: items[1], similarity_micro: 500_000, users: 3 };
        let Some(Write::Value { value, ttl, .. }) = write_of(&encoder, Change::Neighbours(items[0], 6, vec![neighbour])) else {
            panic!("a value")
        };
        let read = layout::decode_neighbours(&value).expect("what was written");
        let neighbours = vec![proto::Neighbour { item_id: "i1".into(), similarity_micro: 500_000, users: 3 }];
        assert_eq!(read, proto::Neighbours { item_id: "i0".into(), as_of_ms: EPOCH.clock_ms, neighbours, users: 6 });
        assert_eq!(ttl, params().card_ttl);
    }

    #[test]
    fn a_card_says_what_the_catalogue_does_in_bare_names() {
        let (encoder, names) = encoder();
        let item = names.item("i").expect("no collision");
        let token = |kind, name| names.token(kind, name).expect("no collision");
        let facts = Item {
            author: Some(token(TokenKind::Author, "ann")),
            categories: [token(TokenKind::Category, "jazz"), TokenId(1)].into_iter().collect(),
            tags: [token(TokenKind::Tag, "live")].into_iter().collect(),
            title: Some("A".into()),
            lat: Some(0.0),
            quality: Some(0.5),
            followers: Some(7),
            partnered: true,
            ..Item::default()
        };
        let Some(Write::Value { value, ttl, .. }) = write_of(&encoder, Change::Card(item, Some((Arc::new(facts), 5)))) else {
            panic!("a value")
        };
        let expected = proto::Card {
            item_id: "i".into(),
            as_of_ms: EPOCH.clock_ms,
            created_ms: 5,
            categories: vec!["jazz".into()],
            tags: vec!["live".into()],
            author: "ann".into(),
            title: "A".into(),
            lat: Some(0.0),
            quality: Some(0.5),
            followers: Some(7),
            partnered: true,
            ..proto::Card::default()
        };
        assert_eq!(layout::decode_card(&value), Ok(expected));
        assert_eq!((ttl, encoder.skipped()), (params().card_ttl, 1));
    }

    #[test]
    fn interests_are_written_by_full_spelling() {
        let (encoder, names) = encoder();
        let user = names.user("u").expect("no collision");
        let jazz = names.token(TokenKind::Category, "jazz").expect("no collision");
        let interests = Interests { short: vec![(jazz, 1.0)], long: vec![(jazz, 0.75)], drift: 0.0 };
        let Some(Write::Fields { fields, .. }) = write_of(&encoder, Change::Interests(user, Some(interests.into()))) else {
            panic!("a hash")
        };
        let read = layout::decode_interests(&layout::as_map(&fields)).expect("what was written");
        assert_eq!((read.as_of, read.epoch, read.drift), (EPOCH.clock_ms, 42, 0.0));
        assert_eq!((read.short, read.long), (vec![("category:jazz".into(), 1.0)], vec![("category:jazz".into(), 0.75)]));
    }

    #[test]
    fn unknown_names_are_skipped_and_counted() {
        let (encoder, names) = encoder();
        let (user, item) = (names.user("u").expect("no collision"), names.item("i").expect("no collision"));
        assert_eq!(write_of(&encoder, Change::Interests(UserId(1), None)), None);
        assert_eq!(write_of(&encoder, Change::Signals(SignalKey::Author(TokenId(1)), None)), None);
        assert_eq!(encoder.skipped(), 2);
        let change = Change::Trending(Scope::Global, vec![(ItemId(1), 5), (item, 4)]);
        let Some(Write::Ranked { members, .. }) = write_of(&encoder, change) else { panic!("the known one stays") };
        assert_eq!((members, encoder.skipped()), (vec![("i".to_string(), 4.0)], 3));
        let row = |item, reason| SlateItem { item, score_micro: 1, source: Source::Fresh, reason, terms: [0; 5] };
        let because = Reason::Because { kind: Kind::Like, item: ItemId(1) };
        let items = vec![row(ItemId(1), Reason::Popular), row(item, because), row(item, Reason::Popular)];
        let jazz = names.token(TokenKind::Category, "jazz").expect("no collision");
        let categories = vec![(jazz, 0), (jazz, 1), (jazz, 2), (TokenId(1), 2)];
        let (surface, history) = (Surface::HOME, vec![(Kind::Like, ItemId(1)), (Kind::Like, item)]);
        let slate = Some(Arc::new(Slate { user, surface, model: None, variant: None, items, categories, history, taken: 1 }));
        let change = Change::Slate { user, surface: Surface::HOME, slate, entered: vec![], left: vec![] };
        let Some(Write::Value { value, .. }) = write_of(&encoder, change) else { panic!("the known one stays") };
        let read = layout::decode_slate(&value).expect("written").slate;
        assert_eq!((read.items.len(), read.history.len(), encoder.skipped()), (1, 1, 7));
        assert_eq!(read.categories, [proto::Category { name: "jazz".into(), places: vec![0] }], "the place it was written to");
    }

    #[test]
    fn what_stays_of_a_forgotten_user_goes_soon() {
        let (encoder, names) = encoder();
        let user = names.user("u").expect("no collision");
        let (key, ttl) = ("od:seen:{u}".to_string(), params().tombstone_ttl);
        let expected = Write::Delete { key, sort: Sort::Ranked, ttl, fence: FENCE };
        assert_eq!(write_of(&encoder, Change::Forgotten(user)), Some(expected));
    }

    #[test]
    fn some_changes_are_not_for_the_store() {
        let (encoder, _) = encoder();
        let dead = Dead { topic: "t".into(), partition: 0, offset: 0, reason: "r".into(), sample: "s".into() };
        for change in [Change::Dead(dead), Change::Account(Default::default())] {
            assert_eq!(write_of(&encoder, change), None);
        }
        assert_eq!(encoder.skipped(), 0);
    }
}
