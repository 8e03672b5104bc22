//! Experiments: what the users of each arm did, summed and told at ticks.
//!
//! Two stages. `Members`, at the user, keeps where each was and what they did there; `Totals`, in one place, sums them up. The fact that
//! must stay true: after a tick the sums are those over the users who take part, or took, of what they did while they did; what was told
//! is told again only where it changed, or as often as a store must hear of it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

use timely::dataflow::StreamVec;

use super::Params;
use super::ledger::UserDelta;
use super::members::{Members, Part};
use crate::model::experiment::{Arm, Standing, Sums};
use crate::model::time::Millis;
use crate::model::{Change, Epoch};
use crate::operators::route::owner;
use crate::operators::turns::AGAIN_AFTER;
use crate::operators::{Arrive, Clock, Durable, Route, Saver, Vault};
use crate::scoring::experiments;

/// Decides the worker that sums up, and the key group that is told again.
pub const HASH: u64 = 0;

/// The stage: what changed of users in; how the experiments stand, out, at ticks.
pub fn experiments<'scope>(
    deltas: StreamVec<'scope, u64, Arc<UserDelta>>,
    clock: &Clock,
    params: &Params,
    vault: &Vault,
) -> StreamVec<'scope, u64, Change> {
    let (index, workers, drawn) = (deltas.scope().index() as u64, deltas.scope().peers(), params.experiments.clone());
    // what users say is remembered of all of them: an experiment that begins later may ask for it
    let tells = move |delta: &Arc<UserDelta>| delta.profile.is_some() || !delta.updates.is_empty() && drawn.may_have(delta.user);
    let theirs = deltas.arrive().flat_map(move |delta| Some(delta).filter(&tells));
    let parts = theirs.keep(clock, Members::new(params), vault, Members::step);
    let totals = Totals::new(params.experiments.clone(), owner(HASH, workers) == index);
    parts.route(|_| HASH).keep(clock, totals, vault, Totals::step)
}

/// What was told, and when.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Told {
    standings: Vec<Standing>,
    at: Millis,
}

/// The sums of all arms. They are not saved: the parts of all users are told in the first epoch.
pub struct Totals {
    params: experiments::Params,
    /// Whether this worker is the one that sums up.
    here: bool,
    sums: BTreeMap<experiments::Place, Sums>,
    /// When each experiment began to count, by its digest.
    began: BTreeMap<u64, Millis>,
    told: Told,
}

impl Totals {
    /// Nothing told yet.
    pub fn new(params: experiments::Params, here: bool) -> Self {
        Self { params, here, sums: BTreeMap::new(), began: BTreeMap::new(), told: Told::default() }
    }

    /// One epoch.
    pub fn step(&mut self, epoch: &Epoch, parts: &mut Vec<Part>, out: &mut Vec<Change>) {
        for (place, part) in parts.drain(..) {
            self.sums.entry(place).or_default().add(&part, 1);
        }
        if !self.here {
            return;
        }
        let known = std::mem::take(&mut self.began);
        let digests = self.params.list.iter().map(experiments::Experiment::digest);
        self.began = digests.map(|of| (of, known.get(&of).copied().unwrap_or(epoch.clock_ms))).collect();
        if !epoch.tick() && !epoch.retells(HASH) {
            return;
        }
        let standings = self.standings();
        let due = !standings.is_empty() && (epoch.retells(HASH) || epoch.clock_ms - self.told.at >= AGAIN_AFTER);
        if due || standings != self.told.standings {
            self.told = Told { standings: standings.clone(), at: epoch.clock_ms };
            out.push(Change::Experiments(Arc::new(standings)));
        }
    }

    fn standings(&self) -> Vec<Standing> {
        let sums = |experiment, arm| self.sums.get(&experiments::Place { experiment, arm }).copied().unwrap_or_default();
        let arms = |at: u16, of: &experiments::Experiment| {
            let arms = (0..).zip(&of.arms);
            arms.map(|(arm, told)| Arm { name: told.name.clone(), ranks: told.ranks.name().to_string(), sums: sums(at, arm) })
                .collect()
        };
        let standing = |(at, of): (u16, &experiments::Experiment)| Standing {
            name: of.name.clone(),
            rollout: of.rollout,
            whom: of.cohort.whom(),
            began: self.began.get(&of.digest()).copied().unwrap_or_default(),
            arms: arms(at, of),
        };
        (0..).zip(&self.params.list).map(standing).collect()
    }
}

impl Durable for Totals {
    const UID: &'static str = "totals/2";

    fn save(&self, into: &mut Saver) {
        if self.here {
            let (began, told) = (self.began.clone(), self.told.clone());
            into.own(0, HASH, move || (began, told));
        }
    }

    fn load(&mut self, _tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        (self.began, self.told) = postcard::from_bytes(body)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Turn;
    use crate::scoring::cohorts::Cohort;
    use crate::scoring::experiments::{Arm, Experiment, Params, Place, Ranks};

    fn params(names: &[&str]) -> Params {
        let arm = |name: &str| Arm { name: name.into(), weight: 1.0, ranks: Ranks::Blend };
        let arms = || vec![arm("one"), arm("two")];
        let of = |name: &&str| Experiment { name: name.to_string(), rollout: 1.0, cohort: Cohort::default(), arms: arms() };
        Params { list: names.iter().map(of).collect(), versions: BTreeMap::new() }
    }

    /// What is told in an epoch: of each experiment when it began and the users of its arms.
    fn told(totals: &mut Totals, clock_ms: Millis, tick: bool, parts: &[Part]) -> Option<Vec<(String, Millis, Vec<i64>)>> {
        let epoch = Epoch { clock_ms, turn: Turn::all_if(tick), ..Epoch::default() };
        tell(totals, &epoch, parts)
    }

    fn tell(totals: &mut Totals, epoch: &Epoch, parts: &[Part]) -> Option<Vec<(String, Millis, Vec<i64>)>> {
        let mut out = Vec::new();
        totals.step(epoch, &mut parts.to_vec(), &mut out);
        let change = out.pop()?;
        let Change::Experiments(standings) = change else { panic!("{change:?}") };
        let users = |of: &Standing| of.arms.iter().map(|arm| arm.sums.users).collect();
        Some(standings.iter().map(|of| (of.name.clone(), of.began, users(of))).collect())
    }

    fn user(experiment: u16, arm: u16) -> Part {
        (Place { experiment, arm }, Sums { users: 1, ..Sums::default() })
    }

    #[test]
    fn sums_are_told_at_ticks_when_they_changed_again_later_and_when_they_are_lost() {
        let mut totals = Totals::new(params(&["a", "b"]), true);
        let of = |a: [i64; 2], b: [i64; 2]| Some(vec![("a".to_string(), 10, a.to_vec()), ("b".to_string(), 10, b.to_vec())]);
        assert_eq!(told(&mut totals, 10, false, &[user(0, 1)]), None);
        assert_eq!(told(&mut totals, 20, true, &[user(1, 0), user(0, 1)]), of([0, 2], [1, 0]));
        assert_eq!(told(&mut totals, 30, true, &[]), None);
        let mut parts = [user(1, 0)];
        parts[0].1.users = -1;
        assert_eq!(told(&mut totals, 40, true, &parts), of([0, 2], [0, 0]));
        assert_eq!(told(&mut totals, 39 + AGAIN_AFTER, true, &[]), None);
        assert_eq!(told(&mut totals, 40 + AGAIN_AFTER, true, &[]), of([0, 2], [0, 0]));
        let lost = Epoch { clock_ms: 50 + AGAIN_AFTER, retell: Some((0, 8)), ..Epoch::default() };
        assert_eq!(tell(&mut totals, &lost, &[]), of([0, 2], [0, 0]));
        assert_eq!(tell(&mut totals, &Epoch { retell: Some((8, 16)), ..lost }, &[]), None);
        let mut elsewhere = Totals::new(params(&["a"]), false);
        assert_eq!(told(&mut elsewhere, 20, true, &[]), None, "one worker tells");
    }

    /// The state goes on under other settings: what ended is told of no more, what is new begins.
    #[test]
    fn experiments_end_and_begin() {
        let mut totals = Totals::new(params(&["a", "b"]), true);
        told(&mut totals, 10, true, &[]);
        let next = |totals: &Totals, names: &[&str]| {
            let mut next = Totals::new(params(names), true);
            next.load(0, &postcard::to_stdvec(&(&totals.began, &totals.told)).expect("plain")).expect("as it was saved");
            next
        };
        let mut totals = next(&totals, &["c", "b"]);
        let expected = vec![("c".to_string(), 70, vec![0, 0]), ("b".to_string(), 10, vec![0, 0])];
        assert_eq!(told(&mut totals, 70, true, &[]), Some(expected));
        let mut totals = next(&totals, &[]);
        assert_eq!(told(&mut totals, 80, true, &[]), Some(vec![]));
        assert_eq!(told(&mut totals, 90, true, &[]), None);
        assert_eq!(tell(&mut totals, &Epoch { clock_ms: 99, retell: Some((0, 8)), ..Epoch::default() }, &[]), None);
    }
}
