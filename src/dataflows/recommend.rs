//! The whole path, from records to answers, as one pure function: no I/O, no clock but the epoch's, no random number, no order of
//! a hash map.
//!
//! ```text
//! rows ─┬▶ dead
//!       ├▶ catalogue ─▶ places, cards ─┬───────────────────────────────────────────┐
//!       └▶ ledger ─▶ updates (±1) ─────┼▶ signals ─▶ trending ─▶ lists ─▶ board ───┼▶ slates ─▶ changes
//!          (profiles, orders)          ├▶ neighbours ───────────────────▶ board ───┤
//!                                      ├▶ trails ─▶ tallies, links ▶ feature store ┤
//!                                      ├▶ factors ─▶ liked ────────────────────────┤
//!                                      ├▶ interests ───────────────────────────────┘
//!                                      └▶ experiments
//! ```

use std::sync::Arc;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::probe::Handle;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Concat, Concatenate, OkErr, Probe};

use super::board::Post;
use super::cards::cards;
use super::catalogue::{Said, catalogue};
use super::experiments::experiments;
use super::factors::factors;
use super::feature_store::Fact;
use super::interests::interests;
use super::ledger::{Entry, UserDelta, ledger};
use super::links::links;
use super::neighbours::neighbours;
use super::places::places;
use super::signals::signals;
use super::slates::slates;
use super::tallies::tallies;
use super::trails::trails;
use super::trending::{self, Order, trending};
use super::{Params, slates as refresh};
use crate::model::changes::{Account, Scope};
use crate::model::{Change, Dead, Epoch, Input, Origin, Row};
use crate::operators::{Route, Vault};

/// A stream whose time is the epoch.
type Stream<'scope, T> = StreamVec<'scope, u64, T>;

/// How far each stage has come, for whoever watches.
#[derive(Clone, Default)]
pub struct Probes {
    pub ledger: Handle<u64>,
    pub signals: Handle<u64>,
    pub interests: Handle<u64>,
    pub neighbours: Handle<u64>,
    pub trending: Handle<u64>,
    pub slates: Handle<u64>,
}

impl Probes {
    /// Each stage by name, in path order.
    pub fn stages(&self) -> [(&'static str, &Handle<u64>); 6] {
        [
            ("ledger", &self.ledger),
            ("signals", &self.signals),
            ("interests", &self.interests),
            ("neighbours", &self.neighbours),
            ("trending", &self.trending),
            ("slates", &self.slates),
        ]
    }
}

/// Every record of every epoch, and on each worker one [`Epoch`] per epoch; out comes everything that changed, at the epoch that
/// changed it, on the worker that owns its key; the account of an epoch in parts. What the stages keep comes from `vault` and is left there.
pub fn recommend<'scope>(
    rows: Stream<'scope, Row>,
    clock: Stream<'scope, Epoch>,
    params: &Params,
    vault: &Vault,
    probes: &Probes,
) -> Stream<'scope, Change> {
    let (scope, kept) = (rows.scope(), params.trending.kept);
    let (usable, dead): (Stream<(Origin, Input)>, Stream<Dead>) = rows.ok_err(|row| row.input.map(|input| (row.origin, input)));
    let (said, entries): (Stream<Said>, Stream<Entry>) = usable.ok_err(item_or_entry);

    let items = catalogue(said, clock.clone(), vault);
    let own_items = items.clone().owned(|(item, _)| item.0);
    let (deltas, judged) = ledger(entries, items.clone(), clock.clone(), params, vault);
    let deltas = deltas.probe_with(&probes.ledger);
    let signals = signals(deltas.clone(), clock.clone(), params, vault).probe_with(&probes.signals);
    let interests = interests(deltas.clone(), clock.clone(), params, vault).probe_with(&probes.interests);
    let neighbours = neighbours(deltas.clone(), clock.clone(), params, vault).probe_with(&probes.neighbours);
    let (warmth, lists) = trending(own_items.clone(), signals.clone(), clock.clone(), params, vault);
    let lists = lists.probe_with(&probes.trending);
    let cards = cards(own_items.clone(), clock.clone(), vault);
    let near = params.near.enabled.then(|| places(own_items.clone(), clock.clone(), &params.near, vault));

    let standings = experiments(deltas.clone(), clock.clone(), params, vault);
    let remembered = params.learn.enabled.then(|| remembered(deltas.clone(), clock.clone(), params, vault));
    let board = scope.concatenate([
        warmth.map(|(item, warmth)| Post::Warmth(item, warmth)),
        neighbours.clone().map(|(item, users, nearest)| Post::Neighbours(item, users, nearest)),
        lists.clone().map(Post::List),
    ]);
    let factors = params.factors.enabled.then(|| factors(deltas.clone(), clock.clone(), &params.factors, vault));
    let (liked, ranked) = factors.unzip();
    let looked_up = scope.concatenate([
        items.map(|(item, facts)| Post::Item(item, facts)).concat(board.to_all()).map(refresh::Row::Post),
        interests.clone().map(refresh::Row::Interests),
        deltas.map(refresh::Row::Delta),
    ]);
    let liked = liked.map(|liked| liked.map(refresh::Row::Liked));
    let looked_up = scope.concatenate(remembered.into_iter().chain(liked).chain([looked_up]));
    let sampled = slates(looked_up, clock.clone(), params, vault).probe_with(&probes.slates);
    let (refreshed, slates) = sampled.ok_err(|change| match change {
        Change::Account(account) => Ok(account),
        change => Err(change),
    });

    let unusable = dead.clone().map(|_| Account { consumed: 1, dead: 1, ..Account::default() });
    let mut changes = vec![
        slates,
        signals.map(|change| Change::Signals(change.key, change.signals)),
        interests.map(|(user, interests)| Change::Interests(user, interests)),
        neighbours.map(|(item, users, nearest)| Change::Neighbours(item, users, nearest.to_vec())),
        lists.flat_map(move |told| published(&told, kept)),
        own_items.map(|(item, facts)| Change::Catalogue(item, facts.is_some_and(|f| f.available))),
        cards,
        standings,
        dead.map(Change::Dead),
        scope.concatenate([judged, refreshed, unusable]).map(Change::Account),
    ];
    changes.extend(near);
    changes.extend(ranked);
    scope.concatenate(changes)
}

/// What the learned blend looks at: the rings of users, and what is counted of items, on every worker.
fn remembered<'scope>(
    deltas: Stream<'scope, Arc<UserDelta>>,
    clock: Stream<'scope, Epoch>,
    params: &Params,
    vault: &Vault,
) -> Stream<'scope, refresh::Row> {
    let (rings, counts, found) = trails(deltas, clock.clone(), vault);
    let tallies = tallies(counts, clock.clone(), vault).map(|(item, tally)| Fact::Tally(item, tally));
    let links = links(found, clock, params.learn.links, vault).map(Fact::Row);
    let facts = tallies.concat(links).to_all().map(refresh::Row::Fact);
    facts.concat(rings.map(|(user, ring)| refresh::Row::Ring(user, ring)))
}

/// What describes items, and what goes through the ledger.
fn item_or_entry((origin, input): (Origin, Input)) -> Result<Said, Entry> {
    match input {
        Input::Item(item, facts) => Ok(Said { origin, item, facts }),
        Input::User(user, profile) => Err(Entry::User(origin, user, profile)),
        Input::Event(event) => Err(Entry::Event(origin, event)),
        Input::Control(control) => Err(Entry::Control(origin, control)),
    }
}

/// The lists that readers see.
fn published((list, best): &trending::Told, kept: usize) -> Option<Change> {
    let scope = match (list.order, list.scope) {
        (Order::Trending, scope) => scope,
        (Order::Popular, Scope::Global) => Scope::Popular,
        (Order::Fresh, Scope::Global) => Scope::Fresh,
        _ => return None,
    };
    Some(Change::Trending(scope, best.iter().take(kept).copied().collect()))
}
