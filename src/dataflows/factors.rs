//! Latent factors of users and items, trained all the time: who acts is folded in at once and exactly, and gets the items whose
//! vectors speak for them most.
//!
//! ```text
//! deltas ─▶ tastes (user) ─▶ shares, takers ─▶ makers (item) ─▶ vectors ─▶ shelves (every worker)
//!             ▲ └▶ liked, rankings                                            │
//!             └───────────────── an epoch later ──────────────────────────────┘
//! ```
//!
//! Two sets of vectors are kept. One serves: users are folded in as they act, items that somebody took or gave back are solved again from
//! their latest 256 users when it is their key group's turn. The other grows: from vectors drawn by hash, every user and then every item
//! is solved, a few key groups an epoch, over and over, until it has converged; then it takes the place of the first, and growing
//! begins anew. So the background does not only train: it forgets.
//!
//! The facts that must stay true: what is served once a set has grown follows from what is counted and from epochs alone, not from what
//! was counted before the set began; whatever an epoch reads of others' keys is as of the epoch before, on every worker; and sums over
//! vectors are exact (`scoring/factors`), so nothing depends on who is where.

use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{ConnectLoop, Feedback, OkErr};

use super::FactorsParams;
use super::ledger::UserDelta;
use super::shelves::{Keeper, Makers, Shelves};
use super::tastes::{Output, Row, Tastes, Told};
use crate::model::ids::KEY_GROUPS;
use crate::model::{Change, Epoch, ItemId, UserId};
use crate::operators::{Arrive, Clock, Route, Vault};

/// The items whose vectors speak for a user most, best first.
pub type Best = Arc<Vec<ItemId>>;

/// Whose best they are, and whether they are of just before the epoch, because a ranking was asked for.
pub type Liked = (UserId, Best, bool);

/// The stage: users' changes in, what they like most and the rankings that were asked for out.
pub fn factors<'scope>(
    deltas: StreamVec<'scope, u64, Arc<UserDelta>>,
    clock: &Clock,
    params: &FactorsParams,
    vault: &Vault,
) -> (StreamVec<'scope, u64, Liked>, StreamVec<'scope, u64, Change>) {
    let scope = deltas.scope();
    let shelves: Rc<RefCell<Shelves>> = Rc::default();
    let tastes = Tastes::new(params.clone(), shelves.clone(), scope.index() as u64, scope.peers());
    let (known, after) = scope.feedback(1);
    let touched: StreamVec<u64, ItemId> = deltas.clone().flat_map(|delta| touched(&delta));
    let rows = deltas.arrive().map(Row::Delta).concat(touched.to_all().map(Row::Touched)).concat(after.arrive());
    let out = rows.keep(clock, tastes, vault, Tastes::step);
    let (told, said): (StreamVec<u64, Told>, StreamVec<u64, Output>) = out.ok_err(|output| match output {
        Output::Told(told) => Ok(told),
        other => Err(other),
    });
    let (liked, rankings): (StreamVec<u64, Liked>, StreamVec<u64, Change>) = said.ok_err(|output| match output {
        Output::Liked(liked) => Ok(liked),
        Output::Ranking(ranking) => Err(ranking),
        Output::Told(_) => unreachable!("what is told was taken out above"),
    });
    let made = told.deliver(Told::to).keep(clock, Makers::new(params.clone()), vault, Makers::step);
    let kept = made.to_all().keep(clock, Keeper::new(params.clone(), shelves), vault, Keeper::step);
    kept.connect_loop(known);
    (liked, rankings)
}

/// The items of which a user's changes may make another one who took them, or one less.
fn touched(delta: &UserDelta) -> Vec<ItemId> {
    let mut items: Vec<ItemId> = delta.updates.iter().filter(|u| u.kind.is_positive()).map(|u| u.item).collect();
    items.sort_unstable();
    items.dedup();
    items
}

/// What the growing set is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Users' vectors are drawn.
    Drawn,
    /// Items are solved.
    Items,
    /// Users are solved, for the last time or not.
    Users { last: bool },
}

/// How far the growing set has come. It follows from the turns of epochs alone, and is kept alike wherever it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Which set it is that grows; the one before it serves.
    pub generation: u64,
    half: u32,
    round: u32,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { generation: 1, half: 0, round: 0 }
    }
}

/// The place of the set of a generation: two are kept.
pub fn slot(generation: u64) -> usize {
    (generation & 1) as usize
}

impl Schedule {
    /// The key groups whose turn it is at all, and those of them that are solved in this round.
    pub fn turn(&self, epoch: &Epoch, params: &FactorsParams) -> impl Iterator<Item = (usize, bool)> + use<> {
        let (round, rounds) = (self.round as usize, params.rounds as usize);
        (usize::from(epoch.turn.from)..usize::from(epoch.turn.to)).map(move |group| (group, group % rounds == round))
    }

    /// What is done in this round.
    pub fn half(&self, params: &FactorsParams) -> Half {
        match self.half {
            0 => Half::Drawn,
            half if half % 2 == 1 => Half::Items,
            half => Half::Users { last: half == 2 * params.sweeps },
        }
    }

    /// Called at the end of an epoch; whether a set has grown in it.
    pub fn pass(&mut self, epoch: &Epoch, params: &FactorsParams) -> bool {
        self.round += u32::from(epoch.tick());
        if self.round < params.rounds {
            return false;
        }
        (self.round, self.half) = (0, self.half + 1);
        if self.half <= 2 * params.sweeps {
            return false;
        }
        (self.half, self.generation) = (0, self.generation + 1);
        true
    }
}

/// As many queues as there are key groups.
pub fn by_group<T: Default>() -> Vec<T> {
    (0..KEY_GROUPS).map(|_| T::default()).collect()
}
