//! What each user who takes part in an experiment did, and how much that changes the sums of their arm.
//!
//! The facts that must stay true: a user's part is a function of those of their records that count now and were let out since they take
//! part; so what is taken back was counted before, and with the last record the part is gone.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Params;
use super::experiments::HASH;
use super::ledger::UserDelta;
use crate::model::experiment::{Counts, Sums};
use crate::model::time::Millis;
use crate::model::{Epoch, UserId};
use crate::operators::{Durable, Saver};
use crate::scoring::experiments::{self, Place};

/// What the sums of an arm change by.
pub type Part = (Place, Sums);

/// One user's part in the experiment they are in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Share {
    /// The experiment, by its digest.
    of: u64,
    /// Records of an earlier time are not counted, nor taken back.
    from: Millis,
    counts: Counts,
}

/// What every worker knows alike.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Common {
    /// Of the settings this was counted under.
    settings: u64,
    /// Whoever is met for the first time counts from here: no record of this time or later was let out under other settings.
    from: Millis,
    /// How far ahead of the clock a record can have been let out, under any settings there were.
    ahead: Millis,
}

/// The users of one worker.
pub struct Members {
    params: experiments::Params,
    /// Of each experiment.
    digests: Vec<u64>,
    ahead: Millis,
    common: Option<Common>,
    /// Whether `common` holds under these settings.
    settled: bool,
    users: FxHashMap<UserId, Share>,
    unsaid: BTreeMap<Place, Sums>,
}

impl Members {
    /// Nobody met yet.
    pub fn new(params: &Params) -> Self {
        let experiments = params.experiments.clone();
        let digests = experiments.list.iter().map(experiments::Experiment::digest).collect();
        let (users, unsaid) = (FxHashMap::default(), BTreeMap::new());
        Self { params: experiments, digests, ahead: params.ledger.ahead, common: None, settled: false, users, unsaid }
    }

    /// One epoch.
    pub fn step(&mut self, epoch: &Epoch, deltas: &mut Vec<Arc<UserDelta>>, out: &mut Vec<Part>) {
        if !self.settled {
            self.settle(epoch.clock_ms);
        }
        for delta in deltas.drain(..) {
            self.take(&delta);
        }
        out.extend(std::mem::take(&mut self.unsaid).into_iter().filter(|(_, sums)| *sums != Sums::default()));
    }

    /// In the first epoch: where nothing was let out before, everything counts; where the settings are others than they were, what
    /// cannot have been let out under those.
    fn settle(&mut self, clock: Millis) {
        let settings = self.params.digest();
        let (from, ahead) = match self.common {
            None => (Millis::MIN, self.ahead),
            Some(common) if common.settings == settings => (common.from, common.ahead.max(self.ahead)),
            Some(common) => (clock + common.ahead + 1, common.ahead.max(self.ahead)),
        };
        self.common = Some(Common { settings, from, ahead });
        self.settled = true;
    }

    fn take(&mut self, delta: &UserDelta) {
        let Some(place) = self.params.place(delta.user) else { return };
        let from = self.common.map_or(Millis::MIN, |common| common.from);
        let fresh = Share { of: self.digests[usize::from(place.experiment)], from, counts: Counts::default() };
        let share = self.users.entry(delta.user).or_insert(fresh);
        let before = Sums::of(&share.counts);
        for update in delta.updates.iter().filter(|update| update.at >= share.from) {
            share.counts.add(update.kind, update.value_milli, update.diff);
        }
        let after = Sums::of(&share.counts);
        if share.counts.records == 0 {
            self.users.remove(&delta.user);
        }
        let unsaid = self.unsaid.entry(place).or_default();
        unsaid.add(&after, 1);
        unsaid.add(&before, -1);
    }
}

impl Durable for Members {
    const UID: &'static str = "members/1";

    fn save(&self, into: &mut Saver) {
        if let Some(common) = self.common {
            into.shared(0, HASH, move || common);
        }
        for (user, share) in self.users.clone() {
            into.own(1, user.0, move || (user, share));
        }
    }

    /// Who takes part no more is let go, and so is what was counted under other arms.
    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        if tag == 0 {
            self.common = Some(postcard::from_bytes(body)?);
            return Ok(());
        }
        let (user, share): (UserId, Share) = postcard::from_bytes(body)?;
        let place = self.params.place(user).filter(|place| self.digests[usize::from(place.experiment)] == share.of);
        if let Some(place) = place {
            self.unsaid.entry(place).or_default().add(&Sums::of(&share.counts), 1);
            self.users.insert(user, share);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::dataflows::ledger::Update;
    use crate::model::{ItemId, Kind, Origin};
    use crate::scoring::experiments::{Arm, Experiment, Ranks};

    const AHEAD: Millis = 300_000;

    fn params(rollout: f64, second: &str) -> Params {
        let mut params = Config::defaults().recommend;
        params.ledger.ahead = AHEAD;
        let arm = |name: &str| Arm { name: name.into(), weight: 1.0, ranks: Ranks::Blend };
        params.experiments.list = vec![Experiment { name: "a".into(), rollout, arms: vec![arm("one"), arm(second)] }];
        params
    }

    /// Users by their lot: the first has the lowest.
    fn users() -> Vec<UserId> {
        let mut users: Vec<UserId> = (0..200).map(|n| UserId::of(&format!("u{n}"))).collect();
        users.sort_by(|a, b| crate::model::ids::lot_of(*a, "a").total_cmp(&crate::model::ids::lot_of(*b, "a")));
        users
    }

    fn click(user: UserId, at: Millis, diff: i64) -> Arc<UserDelta> {
        let (item, kind, origin) = (ItemId(1), Kind::Click, Origin::default());
        let update = Update { item, kind, at, value_milli: None, origin, facts: None, diff };
        Arc::new(UserDelta { user, updates: vec![update], ..UserDelta::default() })
    }

    fn step(members: &mut Members, clock_ms: Millis, deltas: &[Arc<UserDelta>]) -> (i64, i64) {
        let mut parts = Vec::new();
        members.step(&Epoch { clock_ms, ..Epoch::default() }, &mut deltas.to_vec(), &mut parts);
        parts.iter().fold((0, 0), |sum, (_, part)| (sum.0 + part.users, sum.1 + part.clicks))
    }

    /// The state as the next start finds it, under other settings.
    fn restarted(members: &Members, params: &Params) -> Members {
        let mut next = Members::new(params);
        let common = postcard::to_stdvec(&members.common.expect("settled")).expect("plain");
        next.load(0, &common).expect("as it was saved");
        for (user, share) in &members.users {
            next.load(1, &postcard::to_stdvec(&(user, share)).expect("plain")).expect("as it was saved");
        }
        next
    }

    #[test]
    fn records_count_and_are_taken_back() {
        let mut members = Members::new(&params(1.0, "two"));
        let user = users()[0];
        assert_eq!(step(&mut members, 1_000, &[click(user, 5, 1), click(user, 1_000, 1)]), (1, 2), "on a fresh state of any age");
        assert_eq!(step(&mut members, 1_000, &[click(user, 5, -1)]), (0, -1));
        assert_eq!(step(&mut members, 1_000, &[click(user, 1_000, -1)]), (-1, -1));
        assert!(members.users.is_empty());
        let mut nobody = Members::new(&params(0.0, "two"));
        assert_eq!((step(&mut nobody, 1_000, &[click(user, 5, 1)]), nobody.users.len()), ((0, 0), 0));
    }

    /// Who joins with a greater rollout did things before that nobody counted: their undo must take back nothing.
    #[test]
    fn who_joins_later_counts_from_then_on() {
        let (old, new) = (users()[0], users()[199]);
        let mut members = Members::new(&params(0.5, "two"));
        assert_eq!(step(&mut members, 1_000, &[click(old, 900, 1), click(new, 900, 1)]), (1, 1));
        let mut members = restarted(&members, &params(1.0, "two"));
        assert_eq!(step(&mut members, 2_000, &[]), (1, 1), "who was in stays in");
        assert_eq!(step(&mut members, 2_000, &[click(new, 900, -1)]), (0, 0));
        assert_eq!(step(&mut members, 2_000, &[click(new, 2_000 + AHEAD, 1)]), (0, 0), "it may have been let out before");
        assert_eq!(step(&mut members, 2_000, &[click(new, 2_001 + AHEAD, 1), click(old, 2_000, 1)]), (1, 2));
        let mut same = restarted(&members, &params(1.0, "two"));
        assert_eq!(step(&mut same, 9_000_000, &[click(new, 2_001 + AHEAD, -1)]), (1, 2), "what was counted is taken back");
        let mut fewer = restarted(&members, &params(0.5, "two"));
        assert_eq!(step(&mut fewer, 9_000_000, &[click(new, 9_900_000, 1)]), (1, 2), "who is out is let go");
        let mut others = restarted(&members, &params(1.0, "three"));
        assert_eq!(step(&mut others, 9_000_000, &[]), (0, 0), "other arms begin anew");
    }
}
