//! Lists kept for everyone: what is trending, popular and fresh, in all and per category, and per region where what is near is a source;
//! what is trending per language and region, and what hardly anybody was shown.
//!
//! Two stages. `Heat`, at the item, turns signals and the catalogue into scores at each tick; `Lists`, at the list, keeps their order.
//! The fact that must stay true: after a tick every list is a function of the signals and the catalogue, in no list stands an
//! item that is mature or unavailable, and nothing is rescored because time passed: trending and what is untried move with their
//! windows, popular and fresh do not depend on the clock.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use timely::dataflow::StreamVec;
use timely::dataflow::operators::OkErr;

use super::signals;
use crate::model::catalogue::Item;
use crate::model::changes::Scope;
use crate::model::place::{Cell, REGION};
use crate::model::signals::Tried;
use crate::model::time::Millis;
use crate::model::{Epoch, ItemId, SignalKey, Signals};
use crate::operators::top::Top;
use crate::operators::{Arrive, Clock, Durable, Route, Saver, Vault};

/// By what a list is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Order {
    /// Mean weighted interactions an hour, seen at three scales, in thousandths.
    Trending,
    /// The decayed sum, in millionths of its forward logarithm.
    Popular,
    /// Creation time.
    Fresh,
    /// The same, of items that hardly anybody was shown in the last day: what is explored.
    Untried,
}

/// The name of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct List {
    pub order: Order,
    pub scope: Scope,
}

impl List {
    /// What decides its worker.
    pub fn hash(&self) -> u64 {
        match self.scope {
            Scope::Category(token) | Scope::Language(token) => token.0,
            Scope::Cell(cell) => cell.hash(),
            _ => self.order as u64,
        }
    }
}

/// The stage: the catalogue and the signals of items in; what the board needs of each item, and the lists that changed, out, at
/// ticks.
pub fn trending<'scope>(
    items: StreamVec<'scope, u64, (ItemId, Option<Arc<Item>>)>,
    signals: StreamVec<'scope, u64, signals::Change>,
    clock: &Clock,
    params: &super::Params,
    vault: &Vault,
) -> (StreamVec<'scope, u64, Warmed>, StreamVec<'scope, u64, Told>) {
    let of_items = signals.arrive().flat_map(|change| matches!(change.key, SignalKey::Item(_)).then_some(Row::Signals(change)));
    let rows = items.arrive().map(|(item, facts)| Row::Item(item, facts)).concat(of_items); // which are with their owner already
    let scored = rows.keep(clock, Heat::new(params.explore.enough(), params.looks_near()), vault, Heat::step);
    let (warmth, members) = scored.ok_err(|output| match output {
        Output::Warmth(item, warmth) => Ok((item, warmth)),
        Output::Member(list, item, score) => Err((list, item, score)),
    });
    let looked_at = params.surfaces.list.iter().map(|own| own.slates(&params.slates).candidates).max().unwrap_or(0);
    let lists = Lists::new(params.trending.kept.max(params.slates.candidates).max(looked_at));
    let members = members.route(|(list, _, _)| list.hash());
    (warmth, members.keep(clock, lists, vault, Lists::step))
}

/// What `Heat` takes in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Row {
    Item(ItemId, Option<Arc<Item>>),
    Signals(signals::Change),
}

impl Row {
    /// The item it speaks of.
    pub fn item(&self) -> ItemId {
        match self {
            Row::Item(item, _) | Row::Signals(signals::Change { key: SignalKey::Item(item), .. }) => *item,
            Row::Signals(_) => ItemId::default(),
        }
    }
}

/// What the board needs to know of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warmth {
    pub trending_milli: i64,
    pub created: Option<Millis>,
    /// Of an item that is explored.
    pub tried: Option<Tried>,
}

/// What the board needs of an item from now on; `None`: nothing is known of it any more.
pub type Warmed = (ItemId, Option<Warmth>);

/// What `Heat` lets out: scores of list members, and what the board needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Output {
    /// `None`: out of the list.
    Member(List, ItemId, Option<i64>),
    /// `None`: neither in the catalogue nor in the signals any more.
    Warmth(ItemId, Option<Warmth>),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct OfItem {
    facts: Option<Arc<Item>>,
    /// Where the facts say it is.
    #[serde(skip)]
    region: Option<Cell>,
    signals: Option<Arc<Signals>>,
    forward_micro: Option<i64>,
    /// When the catalogue first named it.
    listed_at: Option<Millis>,
    listed: BTreeMap<List, i64>,
    told: Option<Warmth>,
}

/// The items of one worker.
#[derive(Default)]
pub struct Heat {
    items: FxHashMap<ItemId, OfItem>,
    dirty: BTreeSet<ItemId>,
    /// An item shown as often as this in a day is not explored.
    enough: u32,
    /// Whether what is near is a source.
    near: bool,
}

impl Heat {
    /// No items yet.
    pub fn new(enough: u32, near: bool) -> Self {
        Self { enough, near, ..Self::default() }
    }

    /// One epoch.
    pub fn step(&mut self, epoch: &Epoch, rows: &mut Vec<Row>, out: &mut Vec<Output>) {
        for row in rows.drain(..) {
            let item = row.item();
            let of = self.items.entry(item).or_default();
            match row {
                Row::Item(_, facts) => {
                    of.listed_at = facts.as_ref().map(|_| of.listed_at.unwrap_or(epoch.clock_ms));
                    of.describe(facts);
                }
                Row::Signals(change) => {
                    of.signals = change.signals;
                    of.forward_micro = change.forward_micro;
                }
            }
            self.dirty.insert(item);
        }
        if epoch.tick() {
            for item in std::mem::take(&mut self.dirty) {
                self.tell(item, out);
            }
        }
    }

    fn tell(&mut self, item: ItemId, out: &mut Vec<Output>) {
        let of = self.items.get_mut(&item).expect("a dirty item exists");
        let tried = of.tried(self.enough);
        let scores = of.scores(tried.is_some(), self.near);
        let gone = of.listed.keys().filter(|list| !scores.contains_key(list));
        out.extend(gone.map(|list| Output::Member(*list, item, None)));
        let new = scores.iter().filter(|(list, score)| of.listed.get(list) != Some(score));
        out.extend(new.map(|(list, score)| Output::Member(*list, item, Some(*score))));
        of.listed = scores;
        let warmth = of.exists().then(|| of.warmth(tried));
        if std::mem::replace(&mut of.told, warmth) != warmth {
            out.push(Output::Warmth(item, warmth));
        }
        if warmth.is_none() {
            self.items.remove(&item);
        }
    }
}

impl OfItem {
    fn exists(&self) -> bool {
        self.facts.is_some() || self.signals.is_some()
    }

    /// When it came into being; `None` of an item only events have named: it is not new, it is unknown.
    fn created(&self) -> Option<Millis> {
        self.facts.as_ref().and_then(|f| f.created_at).or(self.listed_at)
    }

    fn describe(&mut self, facts: Option<Arc<Item>>) {
        let place = facts.as_deref().and_then(Item::place);
        self.region = place.map(|place| place.cell(REGION));
        self.facts = facts;
    }

    fn warmth(&self, tried: Option<Tried>) -> Warmth {
        Warmth { trending_milli: self.signals.as_deref().map_or(0, Signals::trending_milli), created: self.created(), tried }
    }

    /// What was tried of it, if that is not enough yet.
    fn tried(&self, enough: u32) -> Option<Tried> {
        let tried = self.signals.as_deref().map(Signals::tried).unwrap_or_default();
        (self.facts.is_some() && tried.shown < enough).then_some(tried)
    }

    /// In which lists the item belongs, with its score in each.
    fn scores(&self, untried: bool, near: bool) -> BTreeMap<List, i64> {
        if !self.exists() || self.facts.as_ref().is_some_and(|f| f.mature || !f.available) {
            return BTreeMap::new();
        }
        let categories = self.facts.iter().flat_map(|f| f.categories.iter().map(|c| Scope::Category(*c)));
        let region = self.region.map(Scope::Cell);
        let scopes = [Scope::Global].into_iter().chain(categories).chain(region.filter(|_| near));
        let trending = self.signals.as_deref().map(Signals::trending_milli).filter(|score| *score > 0);
        let orders = [(Order::Trending, trending), (Order::Popular, self.forward_micro), (Order::Fresh, self.created())];
        let list = |scope| orders.into_iter().filter_map(move |(order, score)| Some((List { order, scope }, score?)));
        let language = self.facts.as_ref().and_then(|f| f.language).map(Scope::Language);
        let segments = language.into_iter().chain(region.filter(|_| !near));
        let hot = segments.filter_map(|scope| Some((List { order: Order::Trending, scope }, trending?)));
        let explored = self.created().filter(|_| untried);
        let explored = explored.map(|score| (List { order: Order::Untried, scope: Scope::Global }, score));
        scopes.flat_map(list).chain(hot).chain(explored).collect()
    }
}

/// How many members a told list has at most.
const LONGEST: usize = 1000;

/// The lists of one worker.
pub struct Lists {
    top: Top<List, ItemId>,
    kept: usize,
}

impl Lists {
    /// Empty lists, of which the `kept` best are told.
    pub fn new(kept: usize) -> Self {
        Self { top: Top::default(), kept: kept.min(LONGEST) }
    }

    /// One epoch.
    pub fn step(&mut self, epoch: &Epoch, members: &mut Vec<(List, ItemId, Option<i64>)>, out: &mut Vec<Told>) {
        for (list, item, score) in members.drain(..) {
            self.top.set(&list, item, score);
        }
        if epoch.retell.is_some() {
            self.top.again(|list| epoch.retells(list.hash()));
        }
        out.extend(self.top.changed(self.kept).into_iter().map(|(list, best)| (list, Arc::new(best))));
    }
}

impl Durable for Heat {
    const UID: &'static str = "heat/2";

    fn save(&self, into: &mut Saver) {
        for (item, of) in self.items.clone() {
            let dirty = self.dirty.contains(&item);
            into.own(0, item.0, move || (item, of, dirty));
        }
    }

    fn load(&mut self, _tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        let (item, mut of, dirty): (ItemId, OfItem, bool) = postcard::from_bytes(body)?;
        let facts = of.facts.take();
        of.describe(facts);
        // what is explored, and whether what is near is a source, may be set otherwise than it was
        let tried = of.tried(self.enough);
        let told = of.told.is_none_or(|told| told.tried == tried) && of.listed == of.scores(tried.is_some(), self.near);
        self.dirty.extend((dirty || !told).then_some(item));
        self.items.insert(item, of);
        Ok(())
    }
}

impl Durable for Lists {
    const UID: &'static str = "lists/1";

    fn save(&self, into: &mut Saver) {
        for member in self.top.members() {
            into.own(0, member.0.hash(), move || member);
        }
    }

    fn load(&mut self, _tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        let (list, item, score): (List, ItemId, i64) = postcard::from_bytes(body)?;
        self.top.set(&list, item, Some(score));
        Ok(())
    }

    /// What is in the lists was told.
    fn loaded(&mut self) {
        drop(self.top.changed(0));
    }
}

/// A list that changed, best first.
pub type Told = (List, Arc<Vec<(ItemId, i64)>>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::TokenKind;
    use crate::model::place::Place;
    use crate::model::{TokenId, Turn};

    /// Trending by segment comes and goes with what trends and with what the catalogue says.
    #[test]
    fn what_trends_also_trends_where_it_is_and_in_its_language() {
        let english = Scope::Language(TokenId::typed(TokenKind::Language, "en"));
        let region = Scope::Cell(Place::new(48.137, 11.575).expect("on the earth").cell(REGION));
        let Scope::Language(language) = english else { unreachable!("just made") };
        let facts = Item { language: Some(language), lat: Some(48.137), lon: Some(11.575), available: true, ..Item::default() };
        let mut heat = Heat::default();
        let mut tick = |row| {
            let mut out = Vec::new();
            heat.step(&Epoch { turn: Turn::ALL, ..Epoch::default() }, &mut vec![row], &mut out);
            let member = |output| match output {
                Output::Member(list, _, score) if [english, region].contains(&list.scope) => Some((list, score)),
                _ => None,
            };
            out.into_iter().filter_map(member).collect::<BTreeMap<_, _>>()
        };
        let both = |score| [english, region].map(|scope| (List { order: Order::Trending, scope }, score)).into();
        let weighted_milli = [0, 10_000, 0, 0, 0];
        let signals = Signals { counts: vec![], decayed: 0.0, velocity: 0.0, ctr: 0.0, engagement: 0.0, weighted_milli };
        let change = |signals: Option<Signals>| {
            let key = SignalKey::Item(ItemId(1));
            Row::Signals(signals::Change { key, signals: signals.map(Arc::new), forward_micro: None })
        };
        let described = |facts: &Item| Row::Item(ItemId(1), Some(Arc::new(facts.clone())));
        assert_eq!(tick(described(&facts)), BTreeMap::new(), "nobody did anything with it");
        assert_eq!(tick(change(Some(signals))), both(Some(60_000)));
        assert_eq!(tick(described(&Item { mature: true, ..facts.clone() })), both(None));
        assert_eq!(tick(described(&facts)), both(Some(60_000)));
        assert_eq!(tick(change(None)), both(None));
    }

    /// What is near is new there and popular there, also of items that were known before anybody looked there; and no longer, once nobody does.
    #[test]
    fn a_region_has_its_own_lists_where_what_is_near_is_a_source() {
        let region = Scope::Cell(Place::new(48.137, 11.575).expect("on the earth").cell(REGION));
        let facts = Item { lat: Some(48.137), lon: Some(11.575), created_at: Some(7), available: true, ..Item::default() };
        let all = Epoch { turn: Turn::ALL, ..Epoch::default() };
        let of_region = |heat: &mut Heat, rows: Vec<Row>| {
            let (mut rows, mut out) = (rows, Vec::new());
            heat.step(&all, &mut rows, &mut out);
            let member = |output| match output {
                Output::Member(list, _, score) if list.scope == region => Some((list.order, score)),
                _ => None,
            };
            out.into_iter().filter_map(member).collect::<Vec<_>>()
        };
        let restarted = |heat: &Heat, near: bool| {
            let mut next = Heat::new(0, near);
            for (item, of) in &heat.items {
                next.load(0, &postcard::to_stdvec(&(*item, of, false)).expect("plain data")).expect("as it was saved");
            }
            next
        };
        let mut heat = Heat::new(0, false);
        let described = Row::Item(ItemId(1), Some(Arc::new(facts)));
        assert!(of_region(&mut heat, vec![described]).is_empty());
        let mut heat = restarted(&heat, true);
        assert_eq!(of_region(&mut heat, vec![]), [(Order::Fresh, Some(7))]);
        assert!(of_region(&mut restarted(&heat, true), vec![]).is_empty(), "told already");
        assert_eq!(of_region(&mut restarted(&heat, false), vec![]), [(Order::Fresh, None)]);
    }
}
