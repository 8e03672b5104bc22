//! The whole path, from records to answers, as one pure function: no I/O, no clock but the epoch's, no random number but what
//! follows from ids and the epoch's hour, no order of a hash map.
//!
//! ```text
//! rows ─┬▶ dead
//!       ├▶ content ─▶ directions ────────────────────────────────────────────────────┤
//!       ├▶ catalogue ─▶ places, cards ─┬───────────────────────────────────────────┐
//!       └▶ ledger ─▶ updates (±1) ─────┼▶ signals ─▶ trending ─▶ lists ─▶ board ───┼▶ slates ─▶ changes
//!          (profiles, orders)          ├▶ neighbours ───────────────────▶ board ───┤
//!                                      ├▶ trails ─▶ tallies, links ▶ feature store ┤
//!                                      ├▶ factors ─▶ liked ────────────────────────┤
//!                                      ├▶ interests ───────────────────────────────┘
//!                                      └▶ experiments, people, census
//! ```

use std::sync::Arc;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::OkErr;

use super::board::Post;
use super::cards::cards;
use super::catalogue::{Said, catalogue};
use super::census::census;
use super::content::content;
use super::experiments::experiments;
use super::factors::factors;
use super::feature_store::Fact;
use super::interests::interests;
use super::ledger::{Entry, UserDelta, ledger};
use super::links::links;
use super::neighbours::neighbours;
use super::people::people;
use super::places::places;
use super::signals::signals;
use super::slates::slates;
use super::tallies::tallies;
use super::trails::trails;
use super::trending::{self, Order, trending};
use super::{Params, slates as refresh};
use crate::model::changes::{Account, Scope};
use crate::model::{Change, Dead, Input, Item, Origin, Row};
use crate::operators::{Arrivals, Arrive, Clock, Route, Vault};

/// A stream whose time is the epoch.
type Stream<'scope, T> = StreamVec<'scope, u64, T>;

/// Every record of every epoch that `clock` paces; out comes everything that changed, at the epoch that changed it, on the worker
/// that owns its key; the account of an epoch in parts. What the stages keep comes from `vault` and is left there.
pub fn recommend<'scope>(rows: Stream<'scope, Row>, clock: &Clock, params: &Params, vault: &Vault) -> Arrivals<'scope, Change> {
    let kept = params.trending.kept;
    let (usable, dead): (Stream<(Origin, Input)>, Stream<Dead>) = rows.ok_err(|row| row.input.map(|input| (row.origin, input)));
    let (points, asked) = params.content.enabled.then(|| content(usable.clone(), clock, &params.content, vault)).unzip();
    let (said, entries): (Stream<Said>, Stream<Entry>) = usable.ok_err(item_or_entry);

    let items = catalogue(said, clock, vault);
    let own_items = items.clone().owned(|(item, _)| item.0);
    let (deltas, judged) = ledger(entries, items.clone(), clock, params, vault);
    let signals = signals(deltas.clone(), clock, params, vault);
    let interests = interests(deltas.clone(), clock, params, vault);
    let neighbours = neighbours(deltas.clone(), clock, params, vault);
    let (warmth, lists) = trending(own_items.clone(), signals.clone(), clock, params, vault);
    let cards = cards(own_items.clone(), clock, vault);
    let near = params.near.enabled.then(|| places(own_items.clone(), clock, &params.near, vault));
    let people = people(deltas.clone(), clock, vault);
    let counts = census(own_items.clone(), deltas.clone(), clock, vault);
    let standings = experiments(deltas.clone(), clock, params, vault);
    let remembered = params.learn.enabled.then(|| remembered(deltas.clone(), clock, params, vault));
    let (liked, ranked) = params.factors.enabled.then(|| factors(deltas.clone(), clock, &params.factors, vault)).unzip();

    let board = (items.arrive().map(|(item, facts)| Post::Item(item, facts)))
        .concat(warmth.to_all().map(|(item, warmth)| Post::Warmth(item, warmth)))
        .concat(neighbours.clone().to_all().map(|(item, users, nearest)| Post::Neighbours(item, users, nearest)))
        .concat(lists.clone().to_all().map(Post::List));
    let of_users = deltas.arrive().map(refresh::Row::Delta).concat(interests.clone().arrive().map(refresh::Row::Interests));
    let liked = liked.map(|liked| liked.arrive().map(refresh::Row::Liked));
    let points = points.map(|points| points.map(refresh::Row::Points));
    let looked_up =
        [remembered, liked, points].into_iter().flatten().fold(board.map(refresh::Row::Post).concat(of_users), Arrivals::concat);
    let slates = slates(looked_up, clock, params, vault);

    let unusable = dead.clone().arrive().map(|_| Account { consumed: 1, dead: 1, ..Account::default() });
    let changes = slates
        .concat(signals.arrive().map(|change| Change::Signals(change.key, change.signals)))
        .concat(interests.arrive().map(|(user, interests)| Change::Interests(user, interests)))
        .concat(neighbours.arrive().map(|(item, users, nearest)| Change::Neighbours(item, users, nearest.to_vec())))
        .concat(lists.arrive().flat_map(move |told| published(&told, kept)))
        .concat(own_items.arrive().map(|(item, facts)| Change::Catalogue(item, facts.is_some_and(|f| f.available))))
        .concat(cards.arrive())
        .concat(standings.arrive())
        .concat(people.arrive())
        .concat(counts.arrive())
        .concat(dead.arrive().map(Change::Dead))
        .concat(judged.arrive().concat(unusable).map(Change::Account));
    near.into_iter().chain(ranked).chain(asked).map(Arrive::arrive).fold(changes, Arrivals::concat)
}

/// What the learned blend looks at: the rings of users, and what is counted of items, on every worker.
fn remembered<'scope>(
    deltas: Stream<'scope, Arc<UserDelta>>,
    clock: &Clock,
    params: &Params,
    vault: &Vault,
) -> Arrivals<'scope, refresh::Row> {
    let (rings, counts, found) = trails(deltas, clock, vault);
    let tallies = tallies(counts, clock, vault).to_all().map(|(item, tally)| Fact::Tally(item, tally));
    let links = links(found, clock, params.learn.links, vault).to_all().map(Fact::Row);
    tallies.concat(links).map(refresh::Row::Fact).concat(rings.arrive().map(|(user, ring)| refresh::Row::Ring(user, ring)))
}

/// What describes items, and what goes through the ledger.
fn item_or_entry((origin, input): (Origin, Input)) -> Result<Said, Entry> {
    match input {
        Input::Item(item, facts) => Ok(Said { origin, item, facts: facts.map(Item::light) }),
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
