//! The front door: per user, the interactions that still count anywhere. It turns events into updates; every number downstream is
//! a function of what it lets out, so an undo, a correction and a forgotten user are one mechanism: the same record with `-1`.
//!
//! The facts that must stay true: what is retained is exactly what was let out and not taken back; and every event of an epoch has
//! one outcome in its [`Account`].

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use timely::dataflow::StreamVec;
use timely::dataflow::operators::OkErr;

use super::{LedgerParams, catalogue};
use crate::model::catalogue::{Item, User};
use crate::model::changes::Account;
use crate::model::kind::Weights;
use crate::model::time::{MINUTE, Millis};
use crate::model::{Control, Epoch, Event, ItemId, Kind, Op, Origin, Ranker, TokenId, UserId};
use crate::operators::{Arrive, Clock, Durable, Route, Saver, To, Vault};

/// What reaches the ledger of one worker. The order of the variants is the order of an epoch: the catalogue first, then what users
/// say and do, then the orders that take back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    Item(ItemId, Option<Arc<Item>>),
    User(Origin, UserId, Option<Arc<User>>),
    Event(Origin, Event),
    Control(Origin, Control),
}

impl Entry {
    /// What concerns one user goes to the user's owner, the rest to everyone.
    fn to(&self) -> To {
        match self {
            Self::User(_, user, _) | Self::Control(_, Control::Forget { user } | Control::Rank { user, .. }) => To::Owner(user.0),
            Self::Control(_, Control::Encoded(item, _)) => To::Owner(item.0),
            Self::Control(_, Control::Encoder { .. }) => To::Owner(0),
            Self::Event(_, event) => To::Owner(event.user.0),
            Self::Item(..) | Self::Control(_, Control::Revoke { .. } | Control::Model(_)) => To::All,
        }
    }

    fn place(&self) -> (u8, Origin) {
        match self {
            Self::Item(..) => (0, Origin::default()),
            Self::User(origin, ..) => (1, *origin),
            Self::Event(origin, _) => (2, *origin),
            Self::Control(origin, _) => (3, *origin),
        }
    }
}

/// A record let out (`diff` 1) or taken back (-1), whole, so that what was added can be subtracted anywhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    pub item: ItemId,
    pub kind: Kind,
    pub at: Millis,
    pub value_milli: Option<i32>,
    /// Where the record was read: with its time, its place in the history.
    pub origin: Origin,
    /// The catalogue's entry when the record was let out: it counts under the categories the item had then.
    pub facts: Option<Arc<Item>>,
    pub diff: i64,
}

/// What a user has done with one item, over all retained records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touch {
    /// Time of the first and last positive record; `None`: there is none.
    pub positive: Option<(Millis, Millis)>,
    /// The weightiest positive kind.
    pub kind: Option<Kind>,
    /// The item is not to be shown again: something was done with it beside being shown.
    pub seen: Option<Millis>,
    /// The author who is turned away with it, by the latest muting or blocking of one that was known.
    pub against: Option<TokenId>,
}

/// Everything an epoch changed for one user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UserDelta {
    pub user: UserId,
    pub updates: Vec<Update>,
    /// The new state of each item the updates touched; `None`: no record of it is left.
    pub touches: Vec<(ItemId, Option<Touch>)>,
    /// A new profile, or with `Some(None)` its deletion.
    pub profile: Option<Option<Arc<User>>>,
    pub forgotten: bool,
    /// There was an order to forget them: what is kept, if anything, is of somebody who was not there before.
    pub anew: bool,
    /// A full ranking is asked for, as of before this epoch.
    pub asked: Option<Ranker>,
}

/// The stage: entries in, and what changed of items, on every worker; each user's changes and the account of the events out.
pub fn ledger<'scope>(
    entries: StreamVec<'scope, u64, Entry>,
    items: StreamVec<'scope, u64, catalogue::Change>,
    clock: &Clock,
    params: &super::Params,
    vault: &Vault,
) -> (StreamVec<'scope, u64, Arc<UserDelta>>, StreamVec<'scope, u64, Account>) {
    let state = Ledger::new(params.ledger.clone(), params.weights.table());
    let own = entries.deliver(Entry::to).concat(items.arrive().map(|(item, facts)| Entry::Item(item, facts)));
    own.keep(clock, state, vault, Ledger::step).ok_err(|output| match output {
        Output::Delta(delta) => Ok(delta),
        Output::Account(account) => Err(account),
    })
}

/// What the ledger lets out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Output {
    Delta(Arc<UserDelta>),
    Account(Account),
}

#[derive(Clone, Debug)]
struct Record {
    at: Millis,
    origin: Origin,
    id: u64,
    item: ItemId,
    kind: Kind,
    value_milli: Option<i32>,
    facts: Option<Arc<Item>>,
}

impl Record {
    fn update(&self, diff: i64) -> Update {
        let Self { item, kind, at, value_milli, origin, .. } = *self;
        Update { item, kind, at, value_milli, origin, facts: self.facts.clone(), diff }
    }
}

/// The retained records of one user, by (time, place), and the ids that were seen beside theirs.
#[derive(Clone, Debug, Default)]
struct History {
    records: VecDeque<Record>,
    ids: FxHashSet<u64>,
    past_ids: VecDeque<u64>,
}

/// The state of one worker: its users, and the catalogue.
pub struct Ledger {
    params: LedgerParams,
    weights: Weights,
    /// Shared with a snapshot that is being written; then copied before it changes. So are the items.
    users: FxHashMap<UserId, Arc<History>>,
    items: Arc<FxHashMap<ItemId, Arc<Item>>>,
    /// What was taken back, for records that were accepted before and are read after: topics have no common order.
    forgotten: FxHashMap<UserId, Millis>,
    revoked: FxHashMap<UserId, Vec<Revoked>>,
}

/// A span of event time in which a user's records go that were accepted up to `accepted`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Revoked {
    from: Millis,
    to: Millis,
    accepted: Millis,
}

impl Revoked {
    fn contains(&self, other: &Self) -> bool {
        self.from <= other.from && other.to <= self.to && other.accepted <= self.accepted
    }

    fn covers(&self, at: Millis, accepted: Millis) -> bool {
        self.from <= at && at < self.to && accepted <= self.accepted
    }
}

/// A record as it is saved: facts that are the catalogue's of today are not repeated.
#[derive(Serialize, Deserialize)]
struct Row {
    at: Millis,
    origin: Origin,
    id: u64,
    item: ItemId,
    kind: Kind,
    value_milli: Option<i32>,
    facts: Facts,
}

impl Row {
    fn of(record: &Record, items: &FxHashMap<ItemId, Arc<Item>>) -> Self {
        let facts = match (&record.facts, items.get(&record.item)) {
            (None, _) => Facts::None,
            (Some(facts), Some(current)) if Arc::ptr_eq(facts, current) => Facts::Current,
            (Some(facts), _) => Facts::Own(facts.clone()),
        };
        let Record { at, origin, id, item, kind, value_milli, .. } = *record;
        Self { at, origin, id, item, kind, value_milli, facts }
    }
}

#[derive(Serialize, Deserialize)]
enum Facts {
    None,
    Current,
    Own(Arc<Item>),
}

impl Durable for Ledger {
    const UID: &'static str = "ledger/1";

    fn save(&self, into: &mut Saver) {
        for (item, facts) in self.items.iter().map(|(item, facts)| (*item, facts.clone())) {
            into.shared(0, item.0, move || (item, facts));
        }
        for (user, history) in self.users.clone() {
            let items = self.items.clone();
            into.own(1, user.0, move || {
                let rows: Vec<Row> = history.records.iter().map(|record| Row::of(record, &items)).collect();
                (user, rows, history.other_ids(), history.past_ids.clone())
            });
        }
        for (user, accepted) in self.forgotten.clone() {
            into.own(2, user.0, move || (user, accepted));
        }
        for (user, spans) in self.revoked.clone() {
            into.shared(3, user.0, move || (user, spans)); // an order of this kind goes to every worker
        }
    }

    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        match tag {
            0 => {
                let (item, facts) = postcard::from_bytes(body)?;
                Arc::make_mut(&mut self.items).insert(item, facts);
            }
            1 => {
                let (user, rows, others, past_ids): (UserId, Vec<Row>, Vec<u64>, VecDeque<u64>) = postcard::from_bytes(body)?;
                let ids = rows.iter().map(|row| row.id).chain(others).collect();
                let records = rows.into_iter().map(|row| self.record(row)).collect();
                self.users.insert(user, Arc::new(History { records, ids, past_ids }));
            }
            2 => {
                let (user, accepted) = postcard::from_bytes(body)?;
                self.forgotten.insert(user, accepted);
            }
            _ => {
                let (user, spans) = postcard::from_bytes(body)?;
                self.revoked.insert(user, spans);
            }
        }
        Ok(())
    }
}

/// The outcome of one event.
enum Outcome {
    Applied,
    Late,
    Duplicate,
    Filtered,
}

/// Undo events are remembered under ids of their own.
const UNDO_SALT: u64 = 0x9e37_79b9_7f4a_7c15;

impl Ledger {
    /// An empty ledger.
    pub fn new(params: LedgerParams, weights: Weights) -> Self {
        Self {
            params,
            weights,
            users: FxHashMap::default(),
            items: Arc::default(),
            forgotten: FxHashMap::default(),
            revoked: FxHashMap::default(),
        }
    }

    /// One epoch.
    pub fn step(&mut self, epoch: &Epoch, entries: &mut Vec<Entry>, out: &mut Vec<Output>) {
        entries.sort_by_key(Entry::place);
        let mut account = Account::default();
        let mut deltas: BTreeMap<UserId, UserDelta> = BTreeMap::new();
        let mut profiled: BTreeMap<UserId, Millis> = BTreeMap::new();
        for entry in entries.drain(..) {
            match entry {
                Entry::Item(item, Some(facts)) => drop(Arc::make_mut(&mut self.items).insert(item, facts)),
                Entry::Item(item, None) => drop(Arc::make_mut(&mut self.items).remove(&item)),
                Entry::User(origin, user, _) if self.is_forgotten(user, origin) => {}
                Entry::User(origin, user, profile) => {
                    delta(&mut deltas, user).profile = Some(profile);
                    profiled.insert(user, origin.accepted);
                }
                Entry::Event(origin, event) => self.judge(epoch, origin, event, &mut deltas, &mut account),
                Entry::Control(origin, Control::Forget { user }) => {
                    let newer = profiled.get(&user).is_some_and(|accepted| *accepted > origin.accepted);
                    self.forget(user, origin.accepted, newer, delta(&mut deltas, user));
                }
                Entry::Control(_, Control::Rank { user, by }) => delta(&mut deltas, user).asked = Some(by),
                Entry::Control(_, Control::Model(_)) => {} // the epoch says what ranks
                Entry::Control(_, Control::Encoder { .. } | Control::Encoded(..)) => {} // of items, not of users
                Entry::Control(origin, Control::Revoke { users, from, to }) => {
                    self.revoke(&users, Revoked { from, to, accepted: origin.accepted }, &mut deltas);
                }
            }
        }
        for (user, mut delta) in deltas.into_iter().filter(|(_, delta)| delta.says_something()) {
            self.touch(user, &mut delta);
            out.push(Output::Delta(Arc::new(delta)));
        }
        if account != Account::default() {
            out.push(Output::Account(account));
        }
    }

    fn record(&self, Row { at, origin, id, item, kind, value_milli, facts }: Row) -> Record {
        let facts = match facts {
            Facts::None => None,
            Facts::Current => self.items.get(&item).cloned(),
            Facts::Own(facts) => Some(facts),
        };
        Record { at, origin, id, item, kind, value_milli, facts }
    }

    fn judge(
        &mut self,
        epoch: &Epoch,
        origin: Origin,
        mut event: Event,
        deltas: &mut BTreeMap<UserId, UserDelta>,
        account: &mut Account,
    ) {
        account.consumed += 1;
        let delta = delta(deltas, event.user);
        if event.op == Op::Add && event.at > epoch.clock_ms + self.params.ahead {
            event.at = epoch.clock_ms; // before it is held against what was revoked: that goes by the time it counts at
            account.clamped += 1;
        }
        let outcome = match event.op {
            _ if self.is_forgotten(event.user, origin) || self.is_revoked(&event, origin) => Outcome::Filtered,
            Op::Undo => self.undo(&event, delta),
            Op::Add => self.add(epoch, origin, event, delta),
        };
        match outcome {
            Outcome::Applied => account.applied += 1,
            Outcome::Late => account.late += 1,
            Outcome::Duplicate => account.duplicate += 1,
            Outcome::Filtered => account.filtered += 1,
        }
    }

    fn add(&mut self, epoch: &Epoch, origin: Origin, event: Event, delta: &mut UserDelta) -> Outcome {
        let history = Arc::make_mut(self.users.entry(event.user).or_default());
        if history.ids.contains(&event.id) {
            return Outcome::Duplicate;
        }
        if event.kind.is_set() && history.records.iter().any(|r| r.item == event.item && r.kind == event.kind) {
            return Outcome::Duplicate;
        }
        if history.in_minute_of(event.at) >= self.params.events_per_minute {
            return Outcome::Filtered;
        }
        let late = event.at < epoch.clock_ms - self.params.lateness;
        let record = Record {
            at: event.at,
            origin,
            id: event.id,
            item: event.item,
            kind: event.kind,
            value_milli: event.value_milli,
            facts: self.items.get(&event.item).cloned(),
        };
        delta.updates.push(record.update(1));
        history.insert(record);
        if history.records.len() > self.params.records_per_user {
            let oldest = history.remove(0, self.params.dedup_ids_per_user);
            delta.updates.push(oldest.update(-1));
        }
        if late { Outcome::Late } else { Outcome::Applied }
    }

    fn is_forgotten(&self, user: UserId, origin: Origin) -> bool {
        self.forgotten.get(&user).is_some_and(|accepted| origin.accepted <= *accepted)
    }

    fn is_revoked(&self, event: &Event, origin: Origin) -> bool {
        self.revoked.get(&event.user).is_some_and(|spans| spans.iter().any(|span| span.covers(event.at, origin.accepted)))
    }

    /// Takes back the record with the event's id, or else the latest of the same item and kind. An id that is known and has no
    /// record any more means that there is nothing left to take back.
    fn undo(&mut self, event: &Event, delta: &mut UserDelta) -> Outcome {
        let Some(history) = self.users.get_mut(&event.user).map(Arc::make_mut) else { return Outcome::Filtered };
        if !history.remember(event.id ^ UNDO_SALT, self.params.dedup_ids_per_user) {
            return Outcome::Duplicate;
        }
        let same = |r: &Record| r.item == event.item && r.kind == event.kind;
        let named = history.records.iter().position(|r| same(r) && r.id == event.id);
        let latest = || history.records.iter().rposition(same).filter(|_| !history.ids.contains(&event.id));
        match named.or_else(latest) {
            Some(index) => {
                let record = history.remove(index, self.params.dedup_ids_per_user);
                delta.updates.push(record.update(-1));
                Outcome::Applied
            }
            None => Outcome::Filtered,
        }
    }

    /// Takes back what was accepted up to `accepted`; the profile in `delta` stays where it is newer.
    fn forget(&mut self, user: UserId, accepted: Millis, newer: bool, delta: &mut UserDelta) {
        let known = self.forgotten.entry(user).or_insert(accepted);
        *known = accepted.max(*known);
        let (gone, kept): (VecDeque<Record>, _) = self
            .users
            .remove(&user)
            .map(Arc::unwrap_or_clone)
            .unwrap_or_default()
            .records
            .into_iter()
            .partition(|r| r.origin.accepted <= accepted);
        delta.updates.extend(gone.iter().map(|r| r.update(-1)));
        if !newer {
            delta.profile = Some(None);
        }
        delta.forgotten = kept.is_empty() && !newer;
        delta.anew = true;
        for record in kept {
            Arc::make_mut(self.users.entry(user).or_default()).insert(record);
        }
    }

    fn revoke(&mut self, users: &[UserId], span: Revoked, deltas: &mut BTreeMap<UserId, UserDelta>) {
        for user in users {
            let spans = self.revoked.entry(*user).or_default();
            spans.retain(|known| !span.contains(known));
            if !spans.iter().any(|known| known.contains(&span)) {
                spans.push(span);
            }
            let Some(history) = self.users.get_mut(user).map(Arc::make_mut) else { continue };
            let delta = delta(deltas, *user);
            while let Some(index) = history.records.iter().position(|r| span.covers(r.at, r.origin.accepted)) {
                delta.updates.push(history.remove(index, self.params.dedup_ids_per_user).update(-1));
            }
        }
    }

    /// The new state of every item the updates of a user touched.
    fn touch(&self, user: UserId, delta: &mut UserDelta) {
        let touched: BTreeSet<ItemId> = delta.updates.iter().map(|u| u.item).collect();
        let history = self.users.get(&user);
        let state = |item| history.and_then(|h| h.touch(item, &self.weights));
        delta.touches = touched.into_iter().map(|item| (item, state(item))).collect();
    }
}

impl UserDelta {
    fn says_something(&self) -> bool {
        !self.updates.is_empty() || self.profile.is_some() || self.forgotten || self.asked.is_some()
    }
}

fn delta(deltas: &mut BTreeMap<UserId, UserDelta>, user: UserId) -> &mut UserDelta {
    deltas.entry(user).or_insert_with(|| UserDelta { user, ..UserDelta::default() })
}

impl History {
    /// How many retained records lie in the same minute of event time.
    fn in_minute_of(&self, at: Millis) -> usize {
        let start = at.div_euclid(MINUTE) * MINUTE;
        let until = |t: Millis| self.records.partition_point(|r| r.at < t);
        until(start + MINUTE) - until(start)
    }

    fn insert(&mut self, record: Record) {
        let index = self.records.partition_point(|r| (r.at, r.origin) < (record.at, record.origin));
        self.ids.insert(record.id);
        self.records.insert(index, record);
    }

    /// Removes a record; its id stays known, so that a redelivery does not bring it back.
    fn remove(&mut self, index: usize, past_ids: usize) -> Record {
        let record = self.records.remove(index).expect("the index was found in these records");
        self.ids.remove(&record.id);
        self.remember(record.id, past_ids);
        record
    }

    /// Keeps an id beside those of the records; `false` when it was known.
    fn remember(&mut self, id: u64, past_ids: usize) -> bool {
        let new = self.ids.insert(id);
        if new {
            self.past_ids.push_back(id);
        }
        while self.past_ids.len() > past_ids {
            self.past_ids.pop_front().map(|old| self.ids.remove(&old));
        }
        new
    }

    /// The ids that are known beside those of the records.
    fn other_ids(&self) -> Vec<u64> {
        let records: FxHashSet<u64> = self.records.iter().map(|r| r.id).collect();
        let mut others: Vec<u64> = self.ids.iter().copied().filter(|id| !records.contains(id)).collect();
        others.sort_unstable();
        others
    }

    fn touch(&self, item: ItemId, weights: &Weights) -> Option<Touch> {
        let mut touch = None;
        for record in self.records.iter().filter(|r| r.item == item) {
            touch.get_or_insert(Touch { positive: None, kind: None, seen: None, against: None }).take(record, weights);
        }
        touch
    }
}

impl Touch {
    fn take(&mut self, record: &Record, weights: &Weights) {
        if record.kind.is_positive() {
            let (first, _) = self.positive.unwrap_or((record.at, record.at));
            self.positive = Some((first, record.at));
            self.kind = self.kind.max_by_weight(record.kind, weights);
        }
        if record.kind != Kind::Impression {
            self.seen = Some(record.at);
        }
        if matches!(record.kind, Kind::MuteAuthor | Kind::BlockAuthor) {
            self.against = record.facts.as_ref().and_then(|f| f.author).or(self.against);
        }
    }
}

/// The weightier of two kinds; the smaller one when they weigh the same.
trait MaxByWeight {
    fn max_by_weight(self, other: Kind, weights: &Weights) -> Option<Kind>;
}

impl MaxByWeight for Option<Kind> {
    fn max_by_weight(self, other: Kind, weights: &Weights) -> Option<Kind> {
        let rank = |k: Kind| (weights.milli(k), std::cmp::Reverse(k));
        Some(self.map_or(other, |kind| if rank(other) > rank(kind) { other } else { kind }))
    }
}
