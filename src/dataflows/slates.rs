//! Refresh to slate: who gets a new slate in an epoch, and which.
//!
//! The facts that must stay true: a user who acts is refreshed in the same epoch, once, unless the epoch's budget puts it off; what
//! is put off keeps its weight and goes before weaker ones; a slate is let out only when its items, their order or their reasons
//! changed; and nothing here depends on the number of workers: budgets are per key group.

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;

use super::Params;
use super::board::{Board, Post};
use super::candidates::Candidates;
use super::features::Features;
use super::interests;
use super::ledger::UserDelta;
use super::profiles::Profile;
use crate::model::changes::Account;
use crate::model::ids::{KEY_GROUPS, key_group};
use crate::model::kind::Weights;
use crate::model::slate::{Reason, Slate, SlateItem, Source, Surface};
use crate::model::time::{Millis, SECOND};
use crate::model::{Change, Epoch, ItemId, Kind, UserId};
use crate::operators::{Durable, Keep, Saver, Vault};
use crate::scoring::blend::{self, Blend};
use crate::scoring::diversity::{self, Damping};

/// What a refresh stage takes in. The order of the variants is the order of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Row {
    Post(Post),
    Interests(interests::Change),
    Delta(Arc<UserDelta>),
}

impl Row {
    fn place(&self) -> (u8, UserId) {
        match self {
            Row::Post(_) => (0, UserId::default()),
            Row::Interests((user, _)) => (1, *user),
            Row::Delta(delta) => (2, delta.user),
        }
    }
}

/// The stage: what changed of the board and of the users in, new slates out.
pub fn slates<'scope>(
    rows: StreamVec<'scope, u64, Row>,
    clock: StreamVec<'scope, u64, Epoch>,
    params: &Params,
    vault: &Vault,
) -> StreamVec<'scope, u64, Change> {
    let state = State::new(params);
    rows.keep(clock, Pipeline, state, vault, State::step)
}

/// One key group's queue.
#[derive(Clone, Debug, Default)]
struct Queue {
    /// Users who acted and wait, the strongest signals first.
    pending: BTreeSet<(Reverse<i64>, UserId)>,
    /// When each active user is due again.
    due: BTreeSet<(Millis, UserId)>,
    /// What is left of the budget, in 1/1024 of a refresh.
    credit: u32,
}

/// When a user is due again whose slate came out empty: at the start the board has not been told anything yet.
const SOON: Millis = SECOND;

/// A user and their latest slate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct OfUser {
    profile: Profile,
    shown: Vec<ItemId>,
    digest: u64,
    /// Weight of the signals since the last refresh; `None`: not waiting.
    pending: Option<i64>,
    due: Option<Millis>,
    active: Millis,
}

/// The users of one worker, and its board.
pub struct State {
    params: Params,
    weights: Weights,
    blend: Blend,
    candidates: Candidates,
    board: Board,
    /// Shared with a snapshot that is being written; then copied before it changes.
    users: FxHashMap<UserId, Arc<OfUser>>,
    queues: Vec<Queue>,
}

impl State {
    /// Nobody known yet.
    pub fn new(params: &Params) -> Self {
        let weights = params.weights.table();
        Self {
            weights: weights.clone(),
            blend: Blend::new(&params.blend),
            candidates: Candidates::new(params.slates.clone(), weights, params.neighbours.damping),
            board: Board::default(),
            users: FxHashMap::default(),
            queues: vec![Queue::default(); KEY_GROUPS as usize],
            params: params.clone(),
        }
    }

    /// One epoch.
    pub fn step(&mut self, epoch: &Epoch, rows: &mut Vec<Row>, out: &mut Vec<Change>) {
        rows.sort_by_key(Row::place);
        for row in rows.drain(..) {
            match row {
                Row::Post(post) => self.board.post(post),
                Row::Interests((user, interests)) => self.user(user).profile.interests = interests,
                Row::Delta(delta) => self.take(epoch, &delta, out),
            }
        }
        let mut account = Account::default();
        for group in 0..self.queues.len() {
            for user in self.turn(epoch, group) {
                self.refresh(epoch, user, out);
                account.refreshed += 1;
            }
            account.coalesced += self.queues[group].pending.len() as u64;
        }
        for user in self.retold(epoch) {
            self.tell_again(epoch, user, out);
        }
        if account != Account::default() {
            out.push(Change::Account(account));
        }
    }

    fn user(&mut self, user: UserId) -> &mut OfUser {
        Arc::make_mut(self.users.entry(user).or_default())
    }

    fn retold(&self, epoch: &Epoch) -> BTreeSet<UserId> {
        if epoch.retell.is_none() {
            return BTreeSet::new();
        }
        self.users.keys().copied().filter(|user| epoch.retells(user.0)).collect()
    }

    /// A slate made anew, because nobody keeps the old one whole, and all that was seen.
    fn tell_again(&mut self, epoch: &Epoch, user: UserId, out: &mut Vec<Change>) {
        let of = self.users.get_mut(&user).map(Arc::make_mut).expect("a known user is told again");
        of.digest = !of.digest;
        if let Some(weight) = of.pending {
            self.queues[key_group(user.0) as usize].pending.remove(&(Reverse(weight), user));
        }
        let seen = of.profile.seen();
        out.extend((!seen.is_empty()).then_some(Change::Seen(user, seen)));
        self.refresh(epoch, user, out);
    }

    fn take(&mut self, epoch: &Epoch, delta: &UserDelta, out: &mut Vec<Change>) {
        let of = Arc::make_mut(self.users.entry(delta.user).or_default());
        let seen = of.profile.take(delta);
        if !seen.is_empty() {
            out.push(Change::Seen(delta.user, seen));
        }
        if delta.forgotten || of.profile.is_empty() {
            self.leave(delta.user, out);
            out.extend(delta.forgotten.then_some(Change::Forgotten(delta.user)));
            return;
        }
        let acts = || delta.updates.iter().filter(|u| u.kind != Kind::Impression); // what was only shown changes no slate
        if acts().next().is_none() && delta.profile.is_none() {
            return;
        }
        let weight: i64 = acts().map(|u| self.weights.milli(u.kind).abs() + 1).sum();
        let waiting = of.pending.unwrap_or(0);
        of.pending = Some(waiting + weight);
        of.active = epoch.clock_ms;
        let queue = &mut self.queues[key_group(delta.user.0) as usize];
        queue.pending.remove(&(Reverse(waiting), delta.user));
        queue.pending.insert((Reverse(waiting + weight), delta.user));
    }

    /// A user of whom nothing is left has no slate.
    fn leave(&mut self, user: UserId, out: &mut Vec<Change>) {
        let of = self.users.remove(&user).map(Arc::unwrap_or_clone).unwrap_or_default();
        let queue = &mut self.queues[key_group(user.0) as usize];
        of.pending.map(|weight| queue.pending.remove(&(Reverse(weight), user)));
        of.due.map(|due| queue.due.remove(&(due, user)));
        if !of.shown.is_empty() {
            out.push(Change::Slate { user, surface: Surface::Home, slate: None, entered: Vec::new(), left: of.shown });
        }
    }

    /// The users of a key group whose turn it is: those who acted, as far as the budget goes, and at most one that is due.
    fn turn(&mut self, epoch: &Epoch, group: usize) -> Vec<UserId> {
        let queue = &mut self.queues[group];
        if let Some(credit) = epoch.refreshes {
            queue.credit = (queue.credit + credit).min(4 * KEY_GROUPS as u32);
        }
        let mut pay = || match epoch.refreshes {
            None => true,
            Some(_) if queue.credit < KEY_GROUPS as u32 => false,
            Some(_) => {
                queue.credit -= KEY_GROUPS as u32;
                true
            }
        };
        let mut users = Vec::new();
        while !queue.pending.is_empty() && pay() {
            users.extend(queue.pending.pop_first().map(|(_, user)| user));
        }
        if queue.pending.is_empty() && queue.due.first().is_some_and(|(due, _)| *due <= epoch.clock_ms) && pay() {
            users.extend(queue.due.pop_first().map(|(_, user)| user).filter(|user| !users.contains(user)));
        }
        users
    }

    fn refresh(&mut self, epoch: &Epoch, user: UserId, out: &mut Vec<Change>) {
        let Some(of) = self.users.get_mut(&user).map(Arc::make_mut) else { return };
        let queue = &mut self.queues[key_group(user.0) as usize];
        of.pending = None;
        of.due.take().map(|due| queue.due.remove(&(due, user)));
        let items = slate(&of.profile, &self.board, &mut self.candidates, &self.blend, epoch.clock_ms, &self.params);
        if epoch.clock_ms - of.active < self.params.slates.active_for {
            let due = epoch.clock_ms + if items.is_empty() { SOON } else { self.params.slates.refresh_every };
            of.due = Some(due);
            queue.due.insert((due, user));
        }
        let digest = digest(&items);
        if std::mem::replace(&mut of.digest, digest) == digest {
            return;
        }
        let ids: Vec<ItemId> = items.iter().map(|i| i.item).collect();
        let before = std::mem::replace(&mut of.shown, ids);
        let (entered, left) = (missing(&of.shown, &before), missing(&before, &of.shown));
        let slate = (!items.is_empty()).then(|| Arc::new(Slate { user, surface: Surface::Home, items }));
        out.push(Change::Slate { user, surface: Surface::Home, slate, entered, left });
    }
}

impl Durable for State {
    const UID: &'static str = "slates/1";

    fn save(&self, into: &mut Saver) {
        self.board.save(0, 1, into);
        for (user, of) in self.users.clone() {
            into.own(2, user.0, move || (user, of));
        }
        for (group, credit) in self.queues.iter().map(|queue| queue.credit).enumerate() {
            // credit gathers on every worker; only the owner of a group spends it
            if credit > 0 && into.owns(group as u64) {
                into.own(3, group as u64, move || (group, credit));
            }
        }
    }

    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        match tag {
            0 => return self.board.load_card(body),
            1 => return self.board.load_list(body),
            2 => {
                let (user, of): (UserId, OfUser) = postcard::from_bytes(body)?;
                let queue = &mut self.queues[key_group(user.0) as usize];
                queue.pending.extend(of.pending.map(|weight| (Reverse(weight), user)));
                queue.due.extend(of.due.map(|due| (due, user)));
                self.users.insert(user, Arc::new(of));
            }
            _ => {
                let (group, credit): (usize, u32) = postcard::from_bytes(body)?;
                self.queues.iter_mut().skip(group).take(1).for_each(|queue| queue.credit = credit);
            }
        }
        Ok(())
    }
}

/// One slate: candidates, features, scores, diversity.
fn slate(
    profile: &Profile,
    board: &Board,
    candidates: &mut Candidates,
    blend: &Blend,
    clock: Millis,
    params: &Params,
) -> Vec<SlateItem> {
    let recent = profile.recent(params.slates.neighbours_from);
    let features = Features::new(profile, board, clock, &params.slates);
    let mut scored: Vec<Scored> = candidates
        .gather(profile, &recent, board)
        .iter()
        .map(|candidate| {
            let (terms, source, reason) = features.terms(candidate, blend);
            let score_micro = blend.score_micro(&terms);
            Scored { item: candidate.item, score_micro, source, reason, terms }
        })
        .collect();
    let order = |s: &Scored| (Reverse(s.score_micro), s.item);
    if scored.len() > params.slates.candidates {
        scored.select_nth_unstable_by_key(params.slates.candidates - 1, order);
        scored.truncate(params.slates.candidates);
    }
    let entry = |s: &Scored| {
        let card = board.item(s.item);
        diversity::Entry {
            item: s.item,
            score_micro: s.score_micro,
            author: card.and_then(|c| c.author()),
            category: card.and_then(|c| c.category()),
        }
    };
    let entries: Vec<diversity::Entry> = scored.iter().map(entry).collect();
    let author = Damping { decay: params.slates.author_decay, floor: params.slates.author_floor };
    let category = Damping { decay: params.slates.category_decay, floor: params.slates.category_floor };
    let chosen = diversity::choose(&entries, author, category, params.slates.kept);
    chosen.into_iter().map(|(index, score_micro)| scored[index].shown(score_micro)).collect()
}

/// A candidate with its score, before diversity.
struct Scored {
    item: ItemId,
    score_micro: i32,
    source: Source,
    reason: Reason,
    terms: blend::Terms,
}

impl Scored {
    fn shown(&self, score_micro: i32) -> SlateItem {
        SlateItem { item: self.item, score_micro, source: self.source, reason: self.reason, terms: blend::stored(&self.terms) }
    }
}

/// Of items, order and reasons; the empty slate is 0. Scores move with time and are left out.
fn digest(items: &[SlateItem]) -> u64 {
    use std::hash::{Hash, Hasher};
    let mut hasher = rustc_hash::FxHasher::default();
    items.iter().for_each(|i| (i.item, i.source, i.reason).hash(&mut hasher));
    if items.is_empty() { 0 } else { hasher.finish() | 1 }
}

/// What stands in `items` and not in `others`, in order.
fn missing(items: &[ItemId], others: &[ItemId]) -> Vec<ItemId> {
    let others: FxHashSet<ItemId> = others.iter().copied().collect();
    items.iter().filter(|i| !others.contains(i)).copied().collect()
}
