//! Where each user is in the experiments, what they did there, and how much that changes the sums of their arms.
//!
//! The facts that must stay true: where a user is follows from their id and from what they last said of themselves, as the slates ask it
//! in the same epoch; a user's part is a function of those of their records that count now and were let out since they were met, and of
//! when they moved ([`Stays`]); so what is taken back was counted before, and of whom nothing is left nothing is kept, but when they moved,
//! until they are forgotten.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Params;
use super::experiments::HASH;
use super::ledger::UserDelta;
use super::stays::{Act, In, Stays};
use crate::model::experiment::Sums;
use crate::model::time::Millis;
use crate::model::{Epoch, UserId};
use crate::operators::{Durable, Saver};
use crate::scoring::cohorts::Traits;
use crate::scoring::experiments::{self, Place};

/// What the sums of an arm change by.
pub type Part = (Place, Sums);

/// One user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Member {
    /// Of everybody who said something, whoever takes part: an experiment that begins later may ask for it.
    said: Traits,
    /// Of who takes part, or would, had they said something else.
    stays: Stays,
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
    book: Book,
    ahead: Millis,
    common: Option<Common>,
    /// Whether what is kept was counted under these settings.
    settled: bool,
    /// Shared with a snapshot that is being written; then copied before it changes.
    users: FxHashMap<UserId, Arc<Member>>,
}

/// Who is where, and what was not yet said of that.
struct Book {
    params: experiments::Params,
    /// Of each experiment.
    digests: Vec<u64>,
    unsaid: BTreeMap<Place, Sums>,
}

impl Book {
    /// Where a user is who said this.
    fn find(&self, user: UserId, said: &Traits) -> In {
        self.params.place_by(user, said).map(|place| self.digests[usize::from(place.experiment)])
    }

    /// A user's place in an experiment; `None`: it ended, or does not draw them any more.
    fn place(&self, user: UserId, of: u64) -> Option<Place> {
        let experiment = self.digests.iter().position(|digest| *digest == of)?;
        self.params.drawn_by(experiment, user)
    }

    /// Adds what a user did, so many times: 1, or -1 to take it out.
    fn tell(&mut self, user: UserId, stays: &Stays, times: i64) {
        for (of, counts) in stays.counts() {
            let place = self.place(user, of).expect("only who is drawn has a stay, and what ended is dropped");
            self.unsaid.entry(place).or_default().add(&Sums::of(&counts), times);
        }
    }
}

impl Members {
    /// Nobody met yet.
    pub fn new(params: &Params) -> Self {
        let experiments = params.experiments.clone();
        let digests = experiments.list.iter().map(experiments::Experiment::digest).collect();
        let book = Book { params: experiments, digests, unsaid: BTreeMap::new() };
        Self { book, ahead: params.ledger.ahead, common: None, settled: false, users: FxHashMap::default() }
    }

    /// One epoch.
    pub fn step(&mut self, epoch: &Epoch, deltas: &mut Vec<Arc<UserDelta>>, out: &mut Vec<Part>) {
        if !self.settled {
            self.settle(epoch.clock_ms);
        }
        for delta in deltas.drain(..) {
            self.take(epoch.clock_ms, &delta);
        }
        out.extend(std::mem::take(&mut self.book.unsaid).into_iter().filter(|(_, sums)| *sums != Sums::default()));
    }

    /// In the first epoch: where nothing was let out before, everything counts; where the settings are others than they were, what
    /// cannot have been let out under those. What was counted under other arms or for another cohort is let go; who is somewhere else under
    /// these settings is there from then on, and what they did in an experiment that goes on stays counted.
    fn settle(&mut self, clock: Millis) {
        let settings = self.book.params.digest();
        let (from, ahead) = match self.common {
            None => (Millis::MIN, self.ahead),
            Some(common) if common.settings == settings => (common.from, common.ahead.max(self.ahead)),
            Some(common) => (clock + common.ahead + 1, common.ahead.max(self.ahead)),
        };
        self.common = Some(Common { settings, from, ahead });
        self.settled = true;
        let book = &mut self.book;
        self.users.retain(|user, member| {
            let member = Arc::make_mut(member);
            let here = book.params.may_have(*user).then(|| book.find(*user, &member.said));
            let elsewhere = member.stays.now().is_some_and(|now| Some(now) != here);
            member.stays.end(|of| book.place(*user, of).is_none());
            if elsewhere {
                member.stays.turn_to(clock, None);
                member.stays.turn_to(from - 1, here.flatten());
                member.stays.forget_if_idle();
            }
            book.tell(*user, &member.stays, 1);
            *member != Member::default()
        });
    }

    fn take(&mut self, clock: Millis, delta: &UserDelta) {
        let from = self.common.map_or(Millis::MIN, |common| common.from);
        let (user, book) = (delta.user, &mut self.book);
        let member = Arc::make_mut(self.users.entry(user).or_default());
        book.tell(user, &member.stays, -1);
        if delta.anew {
            member.said = Traits::default();
            member.stays.turn_back(book.find(user, &member.said));
        }
        let was = book.find(user, &member.said);
        let mut is = was;
        if let Some(said) = &delta.profile {
            member.said = said.as_deref().map(Traits::of).unwrap_or_default();
            is = book.find(user, &member.said);
        }
        if book.params.may_have(user) {
            if was != is || !delta.updates.is_empty() {
                member.stays.meet(was, from);
            }
            if was != is {
                member.stays.turn_to(clock, is);
            }
            for update in &delta.updates {
                let act = Act { at: update.at, kind: update.kind, value_milli: update.value_milli };
                member.stays.count(clock, act, update.diff);
            }
        }
        member.stays.tidy();
        book.tell(user, &member.stays, 1);
        if *member == Member::default() {
            self.users.remove(&user);
        }
    }
}

impl Durable for Members {
    const UID: &'static str = "members/2";

    fn save(&self, into: &mut Saver) {
        if let Some(common) = self.common {
            into.shared(0, HASH, move || common);
        }
        for (user, member) in self.users.clone() {
            into.own(1, user.0, move || (user, member));
        }
    }

    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        if tag == 0 {
            self.common = Some(postcard::from_bytes(body)?);
            return Ok(());
        }
        let (user, member): (UserId, Arc<Member>) = postcard::from_bytes(body)?;
        self.users.insert(user, member);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::dataflows::ledger::Update;
    use crate::model::catalogue::User;
    use crate::model::ids::TokenKind;
    use crate::model::{ItemId, Kind, Origin, TokenId};
    use crate::scoring::cohorts::{self, Cohort};
    use crate::scoring::experiments::{Arm, Experiment, Ranks};

    const AHEAD: Millis = 300_000;

    fn params(rollout: f64, second: &str) -> Params {
        let mut params = Config::defaults().recommend;
        params.ledger.ahead = AHEAD;
        let arm = |name: &str| Arm { name: name.into(), weight: 1.0, ranks: Ranks::Blend };
        let (cohort, arms) = (Cohort::default(), vec![arm("one"), arm(second)]);
        params.experiments.list = vec![Experiment { name: "a".into(), rollout, cohort, arms }];
        params
    }

    /// The first experiment is for who speaks one of these, the second for everybody.
    fn limited(languages: &[&str]) -> Params {
        let mut params = params(1.0, "two");
        let of =
            cohorts::Params { languages: Some(languages.iter().map(|name| name.to_string()).collect()), ..Default::default() };
        let everybody = Experiment { name: "b".into(), ..params.experiments.list[0].clone() };
        params.experiments.list[0].cohort = of.into();
        params.experiments.list.push(everybody);
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

    fn says(user: UserId, language: Option<&str>) -> Arc<UserDelta> {
        let language =
            language.map(|name| Arc::new(User { language: Some(TokenId::typed(TokenKind::Language, name)), ..User::default() }));
        Arc::new(UserDelta { user, profile: Some(language), ..UserDelta::default() })
    }

    /// What an epoch changes: users and clicks.
    fn step(members: &mut Members, clock_ms: Millis, deltas: &[Arc<UserDelta>]) -> (i64, i64) {
        let parts = parts(members, clock_ms, deltas);
        parts.iter().fold((0, 0), |sum, (_, part)| (sum.0 + part.users, sum.1 + part.clicks))
    }

    fn parts(members: &mut Members, clock_ms: Millis, deltas: &[Arc<UserDelta>]) -> Vec<Part> {
        let mut parts = Vec::new();
        members.step(&Epoch { clock_ms, ..Epoch::default() }, &mut deltas.to_vec(), &mut parts);
        parts
    }

    /// The same by experiment, with those that did not change as 0.
    fn of_each(members: &mut Members, clock_ms: Millis, deltas: &[Arc<UserDelta>]) -> [(i64, i64); 2] {
        let mut each = [(0, 0); 2];
        for (place, part) in parts(members, clock_ms, deltas) {
            let (users, clicks) = &mut each[usize::from(place.experiment)];
            (*users, *clicks) = (*users + part.users, *clicks + part.clicks);
        }
        each
    }

    /// The state as the next start finds it, under other settings.
    fn restarted(members: &Members, params: &Params) -> Members {
        let mut next = Members::new(params);
        let common = postcard::to_stdvec(&members.common.expect("settled")).expect("plain");
        next.load(0, &common).expect("as it was saved");
        for (user, member) in &members.users {
            next.load(1, &postcard::to_stdvec(&(user, member)).expect("plain")).expect("as it was saved");
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

    #[test]
    fn c29_what_somebody_did_in_a_cohort_stays_counted_when_they_leave_it() {
        let mut members = Members::new(&limited(&["de"]));
        let user = users()[0];
        assert_eq!(of_each(&mut members, 10, &[click(user, 9, 1)]), [(0, 0), (1, 1)], "the next experiment has them");
        assert_eq!(of_each(&mut members, 20, &[says(user, Some("de"))]), [(0, 0), (0, 0)]);
        assert_eq!(of_each(&mut members, 30, &[click(user, 20, 1), click(user, 21, 1)]), [(1, 1), (0, 1)]);
        let mut members = restarted(&members, &limited(&["de"]));
        assert_eq!(of_each(&mut members, 35, &[]), [(1, 1), (1, 2)], "told again after a start");
        assert_eq!(of_each(&mut members, 40, &[says(user, Some("en"))]), [(0, 0), (0, 0)]);
        assert_eq!(of_each(&mut members, 50, &[click(user, 45, 1)]), [(0, 0), (0, 1)]);
        assert_eq!(
            of_each(&mut members, 60, &[says(user, None), click(user, 21, -1)]),
            [(-1, -1), (0, 0)],
            "undone where it counted"
        );
    }

    #[test]
    fn c29_whoever_is_forgotten_was_never_anywhere() {
        let mut members = Members::new(&limited(&["de"]));
        let user = users()[0];
        of_each(&mut members, 10, &[says(user, Some("de"))]);
        of_each(&mut members, 20, &[click(user, 15, 1), click(user, 16, 1)]);
        let order = |kept: bool| {
            let gone = click(user, 15, -1)
                .updates
                .iter()
                .cloned()
                .chain((!kept).then(|| click(user, 16, -1).updates[0].clone()))
                .collect();
            Arc::new(UserDelta { user, updates: gone, profile: Some(None), forgotten: !kept, anew: true, ..UserDelta::default() })
        };
        let mut kept = restarted(&members, &limited(&["de"]));
        assert_eq!(of_each(&mut kept, 25, &[]), [(1, 2), (0, 0)]);
        assert_eq!(
            of_each(&mut kept, 30, &[order(true)]),
            [(-1, -2), (1, 1)],
            "what was accepted after the order is a stranger's"
        );
        assert_eq!(of_each(&mut members, 30, &[order(false)]), [(-1, -2), (0, 0)]);
        assert!(members.users.is_empty());
    }

    /// What users say is known before any experiment asks for it; a cohort that is changed begins anew.
    #[test]
    fn c29_a_cohort_of_new_settings_knows_who_signed_up_before_and_begins_anew() {
        let [german, english] = [users()[0], users()[1]];
        let mut none = params(1.0, "two");
        none.experiments.list.clear();
        let mut members = Members::new(&none);
        of_each(&mut members, 10, &[says(german, Some("de")), says(english, Some("en")), click(german, 9, 1)]);
        let mut members = restarted(&members, &limited(&["de"]));
        let from = 20 + AHEAD + 1;
        assert_eq!(of_each(&mut members, 20, &[click(german, 9, -1), click(german, from - 1, 1)]), [(0, 0), (0, 0)]);
        assert_eq!(of_each(&mut members, 20, &[click(german, from, 1), click(english, from, 1)]), [(1, 1), (1, 1)]);
        let mut same = restarted(&members, &limited(&["de"]));
        assert_eq!(of_each(&mut same, from, &[]), [(1, 1), (1, 1)]);
        let mut both = restarted(&members, &limited(&["de", "en"]));
        let again = from + AHEAD + 1;
        assert_eq!(
            of_each(&mut both, from, &[click(german, from, -1)]),
            [(0, 0), (1, 1)],
            "another cohort is another experiment; what was done in the other one stays counted"
        );
        assert_eq!(of_each(&mut both, from, &[click(german, again, 1), click(english, again, 1)]), [(2, 2), (0, 0)]);
    }

    /// Other settings for where somebody went touch nothing of where they were.
    #[test]
    fn c29_who_left_stays_counted_when_what_they_went_to_ends_or_changes() {
        let user = users()[0];
        let mut members = Members::new(&limited(&["de"]));
        of_each(&mut members, 10, &[says(user, Some("de"))]);
        assert_eq!(of_each(&mut members, 20, &[click(user, 15, 1), click(user, 16, 1)]), [(1, 2), (0, 0)]);
        of_each(&mut members, 30, &[says(user, Some("en"))]);
        assert_eq!(of_each(&mut members, 40, &[click(user, 35, 1)]), [(0, 0), (1, 1)]);
        let mut ended = limited(&["de"]);
        ended.experiments.list.truncate(1);
        let mut other_arms = limited(&["de"]);
        other_arms.experiments.list[1].arms[1].name = "three".into();
        for params in [ended, other_arms.clone()] {
            let mut next = restarted(&members, &params);
            assert_eq!(of_each(&mut next, 50, &[]), [(1, 2), (0, 0)], "what ended or changed counts no more, the first goes on");
            assert_eq!(
                of_each(&mut next, 60, &[click(user, 16, -1)]),
                [(0, -1), (0, 0)],
                "and is taken back where it was counted"
            );
            assert_eq!(of_each(&mut next, 60, &[click(user, 35, -1)]), [(0, 0), (0, 0)]);
        }
        let mut next = restarted(&members, &other_arms);
        let from = 50 + AHEAD + 1;
        of_each(&mut next, 50, &[]);
        assert_eq!(
            of_each(&mut next, 60, &[click(user, from - 1, 1), click(user, from, 1)]),
            [(0, 0), (1, 1)],
            "as whoever is met"
        );
    }
}
