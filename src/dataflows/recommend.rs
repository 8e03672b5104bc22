//! The whole path, from records to answers, as one pure function: no I/O, no clock but the epoch's, no random number, no order of
//! a hash map.
//!
//! ```text
//! rows ─┬▶ dead
//!       ├▶ catalogue ──────────────┬───────────────────────────────────────────┐
//!       └▶ ledger ─▶ updates (±1) ─┼▶ signals ─▶ trending ─▶ lists ─▶ board ───┼▶ slates ─▶ changes
//!          (profiles, orders)      ├▶ neighbours ───────────────────▶ board ───┤
//!                                  ├▶ trails ─▶ tallies, links ▶ feature store ─┤
//!                                  ├▶ factors ─▶ liked ────────────────────────┤
//!                                  └▶ interests ───────────────────────────────┘
//! ```

use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::probe::Handle;
use timely::dataflow::operators::vec::{Filter, Map};
use timely::dataflow::operators::{Concat, Concatenate, OkErr, Probe};

use super::board::Post;
use super::catalogue::{Said, catalogue};
use super::factors::factors;
use super::feature_store::Fact;
use super::interests::interests;
use super::ledger::{Entry, ledger};
use super::links::links;
use super::neighbours::neighbours;
use super::signals::signals;
use super::slates::slates;
use super::tallies::tallies;
use super::trails::trails;
use super::trending::{self, Order, trending};
use super::{Params, slates as refresh};
use crate::model::changes::{Account, Scope};
use crate::model::{Change, Dead, Epoch, Input, Origin, Row};
use crate::operators::{PerEpoch, Route, Vault};

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
/// changed it, on the worker that owns its key. What the stages keep comes from `vault` and is left there.
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
    let entries = entries.concat(items.clone().map(|(item, facts)| Entry::Item(item, facts)));
    let (deltas, judged) = ledger(entries, clock.clone(), params, vault);
    let deltas = deltas.probe_with(&probes.ledger);
    let signals = signals(deltas.clone(), clock.clone(), params, vault).probe_with(&probes.signals);
    let interests = interests(deltas.clone(), clock.clone(), params, vault).probe_with(&probes.interests);
    let neighbours = neighbours(deltas.clone(), clock.clone(), params, vault).probe_with(&probes.neighbours);
    let (warmth, lists) = trending(items.clone(), signals.clone(), clock.clone(), params, vault);
    let lists = lists.probe_with(&probes.trending);

    let learns = params.learn.enabled;
    let taught = deltas.clone().filter(move |_| learns);
    let (rings, counts, links_found) = trails(taught, clock.clone(), vault);
    let tallies = tallies(counts, clock.clone(), vault).map(|(item, tally)| Fact::Tally(item, tally));
    let rows = links(links_found, clock.clone(), params.learn.links, vault).map(Fact::Row);

    let board = scope.concatenate([
        items.clone().map(|(item, facts)| Post::Item(item, facts)),
        warmth.map(|(item, warmth)| Post::Warmth(item, warmth)),
        neighbours.clone().map(|(item, users, nearest)| Post::Neighbours(item, users, nearest)),
        lists.clone().map(Post::List),
    ]);
    let mut looked_up = vec![
        board.to_all().map(refresh::Row::Post),
        tallies.concat(rows).to_all().map(refresh::Row::Fact),
        interests.clone().map(refresh::Row::Interests),
        rings.map(|(user, ring)| refresh::Row::Ring(user, ring)),
        deltas.clone().map(refresh::Row::Delta),
    ];
    let mut ranked = None;
    if params.factors.enabled {
        let (liked, by_factors) = factors(deltas, clock.clone(), &params.factors, vault);
        looked_up.push(liked.map(refresh::Row::Liked));
        ranked = Some(by_factors);
    }
    let sampled = slates(scope.concatenate(looked_up), clock.clone(), params, vault).probe_with(&probes.slates);
    let (refreshed, slates) = sampled.ok_err(|change| match change {
        Change::Account(account) => Ok(account),
        change => Err(change),
    });

    let unusable = dead.clone().map(|_| Account { consumed: 1, dead: 1, ..Account::default() });
    let mut changes = vec![
        slates,
        signals.map(|change| Change::Signals(change.key, change.signals)),
        interests.map(|(user, interests)| Change::Interests(user, interests)),
        neighbours.map(|(item, _, nearest)| Change::Neighbours(item, nearest.to_vec())),
        lists.flat_map(move |told| published(&told, kept)),
        items.map(|(item, facts)| Change::Catalogue(item, facts.is_some_and(|f| f.available))),
        dead.map(Change::Dead),
        account(scope.concatenate([judged, refreshed, unusable]), clock),
    ];
    changes.extend(ranked);
    scope.concatenate(changes)
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

/// One account per epoch over all workers.
fn account<'scope>(parts: Stream<'scope, Account>, clock: Stream<'scope, Epoch>) -> Stream<'scope, Change> {
    parts.route(|_| 0).per_epoch(clock, Pipeline, "Account", |_epoch, parts, out| {
        let mut whole = Account::default();
        let some = !parts.is_empty();
        parts.drain(..).for_each(|part| whole.add(&part));
        out.extend(some.then_some(Change::Account(whole)));
    })
}
