//! Orders to forget a user, followed to their end: when each was accepted, when every answer was without the user, and when nothing that
//! is kept names them any more.
//!
//! The dataflow takes a user out of all it maintains in the epoch of the order. What is left then lies in files: snapshots of before,
//! the embedded log, dead letters, examples, impressions, the feed of changes, deletions that Redis remembers. They are purged when nothing needs them any
//! more, at the latest `purge_after` the order. The facts that must stay true: an order is durable in `pending` before a snapshot
//! holds its epoch; a record is taken out of the log only when no snapshot is kept that would read it again; and no file of this room
//! holds a name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::UserId;
use crate::model::forget::{Eraser, Leavers, Order, Until};
use crate::model::time::{Millis, span};
use crate::state::State;

mod audit;
mod pending;

pub use audit::Salt;
use audit::{Audit, What};
use pending::{Pending, Waiting};

/// `[privacy]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    #[serde(with = "span")]
    pub purge_after: Duration,
    pub audit: PathBuf,
}

/// What else decides when an order is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long the store remembers a deletion under the user's name.
    pub tombstone_ttl: Duration,
    pub snapshot_every: Duration,
}

/// Follows orders. Not for the threads that answer: it waits for the disk.
pub struct Privacy {
    params: Params,
    pace: Pace,
    audit: Audit,
    pending: Pending,
    /// The places to purge, by name.
    erasers: BTreeMap<&'static str, Eraser>,
}

impl Privacy {
    /// Goes on with the orders that the run before left in `state_dir`.
    pub fn open(params: &Params, pace: Pace, state_dir: &Path, erasers: BTreeMap<&'static str, Eraser>) -> Result<Self, String> {
        let folder = state_dir.join("privacy");
        let audit = Audit::open(&state_dir.join(&params.audit), &folder)?;
        Ok(Self { params: params.clone(), pace, audit, pending: Pending::open(&folder)?, erasers })
    }

    /// Epochs of orders that are not known to be answered.
    pub fn awaited(&self) -> BTreeSet<u64> {
        self.pending.all().iter().filter(|waiting| !waiting.applied).map(|waiting| waiting.epoch).collect()
    }

    /// An epoch took these orders in.
    pub fn accept(&mut self, orders: &[Order], now: Millis) -> Result<(), String> {
        orders.iter().for_each(|order| self.pending.add(order));
        self.pending.save()?;
        let accepted = |order: &Order| What::Accepted { accepted_ms: order.origin.accepted };
        orders.iter().try_for_each(|order| self.audit.say(now, order.user, order.origin, accepted(order)))
    }

    /// The store shows what all epochs up to this one came to.
    pub fn apply(&mut self, epoch: u64, now: Millis) -> Result<(), String> {
        for waiting in self.pending.all_mut().iter_mut().filter(|waiting| !waiting.applied && waiting.epoch <= epoch) {
            self.audit.say(now, waiting.user, waiting.origin, What::Applied { epoch: waiting.epoch })?;
            waiting.applied = true;
        }
        self.pending.save()
    }

    /// A snapshot of this epoch was committed; `named` are the users whose names go and are not yet gone from it. Purges what can be.
    pub fn purge(&mut self, state: &State, epoch: u64, named: &BTreeSet<UserId>, now: Millis) -> Result<(), String> {
        if self.pending.all().is_empty() {
            return Ok(());
        }
        for waiting in self.pending.all_mut() {
            waiting.clean = waiting.clean.or_else(|| clean_since(waiting, epoch, named).then_some((epoch, now)));
        }
        self.pending.save()?;
        if let Some(from) = self.pending.all().iter().filter_map(|waiting| self.is_urgent(waiting, now)).max() {
            state.drop_before(from).map_err(|e| e.to_string())?;
        }
        let Some(oldest) = state.oldest().map_err(|e| e.to_string())? else { return Ok(()) };
        let done: Vec<Waiting> =
            self.pending.all().iter().filter(|waiting| self.is_due(waiting, oldest.epoch.number, now)).cloned().collect();
        if done.is_empty() {
            return Ok(());
        }
        let erased = self.erase(&Leavers { users: users(&done), below: oldest.positions })?;
        for waiting in &done {
            self.audit.say(now, waiting.user, waiting.origin, What::Purged { epoch, erased: erased.clone() })?;
        }
        self.pending.remove(&done);
        self.pending.save()
    }

    /// The first snapshot without the user, when older ones cannot wait until enough newer ones are there.
    fn is_urgent(&self, waiting: &Waiting, now: Millis) -> Option<u64> {
        let last = waiting.origin.accepted + ms(self.params.purge_after) - 2 * ms(self.pace.snapshot_every);
        waiting.clean.filter(|_| now >= last).map(|(epoch, _)| epoch)
    }

    /// Whether nothing needs the user's records any more, and the store remembers no deletion of theirs.
    fn is_due(&self, waiting: &Waiting, oldest: u64, now: Millis) -> bool {
        waiting.clean.is_some_and(|(epoch, since)| epoch <= oldest && now >= since + ms(self.pace.tombstone_ttl))
    }

    fn erase(&self, leavers: &Leavers) -> Result<BTreeMap<&'static str, u64>, String> {
        let erase = |(place, eraser): (&&'static str, &Eraser)| Ok((*place, eraser(leavers)?));
        self.erasers.iter().map(erase).collect()
    }
}

/// Whether a snapshot of this epoch holds nothing of a user who was to be forgotten.
fn clean_since(waiting: &Waiting, epoch: u64, named: &BTreeSet<UserId>) -> bool {
    waiting.applied && waiting.epoch <= epoch && !named.contains(&waiting.user)
}

/// Of several orders about one user the latest counts.
fn users(done: &[Waiting]) -> BTreeMap<UserId, Until> {
    let mut users: BTreeMap<UserId, Until> = BTreeMap::new();
    for Waiting { user, origin, epoch, .. } in done {
        let until = users.entry(*user).or_default();
        *until = Until { accepted: until.accepted.max(origin.accepted), epoch: until.epoch.max(*epoch) };
    }
    users
}

fn ms(span: Duration) -> Millis {
    span.as_millis() as Millis
}
