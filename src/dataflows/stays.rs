//! Where one user was in the experiments, from when on, and what they did while they were there.
//!
//! ```text
//!            began              moved             moved
//!              │   none            │   german        │   none
//!   ───────────┼───────────────────┼─────────────────┼──────────────▶ the time a record says
//!   not counted│ for nobody        │ for its arm     │ for nobody
//! ```
//!
//! The facts that must stay true: a record counts in the stay that its time lies in, whenever it is let out; and stays follow from the
//! moves alone, never from records. So what is counted is a function of the records that count now and of the moves, in whatever order
//! they came, and a record is taken back where it was counted.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::model::Kind;
use crate::model::experiment::Counts;
use crate::model::time::Millis;

/// Stays of a user. Of who moved oftener the oldest count for nobody.
const MOST: usize = 32;

/// An experiment, by its digest; `None`: none.
pub type In = Option<u64>;

/// From one move to the next.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Stay {
    of: In,
    from: Millis,
    counts: Counts,
}

/// What of a record is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    pub at: Millis,
    pub kind: Kind,
    pub value_milli: Option<i32>,
}

/// All of one user; none before they were met.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stays {
    /// In order of time, the last without an end.
    stays: Vec<Stay>,
    /// What is counted in the last of them and lies ahead of the clock: a move may come before it.
    ahead: Vec<Act>,
}

impl Stays {
    /// Where they are now; `None`: they were not met.
    pub fn now(&self) -> Option<In> {
        self.stays.last().map(|stay| stay.of)
    }

    /// They are met, unless they were: what they do from this time on counts.
    pub fn meet(&mut self, of: In, from: Millis) {
        if self.stays.is_empty() {
            self.stays.push(Stay { of, from, counts: Counts::default() });
        }
    }

    /// One record more (`diff` 1) or less (-1).
    pub fn count(&mut self, clock: Millis, act: Act, diff: i64) {
        let Some(stay) = self.stays.iter_mut().rfind(|stay| stay.from <= act.at) else { return };
        stay.counts.add(act.kind, act.value_milli, diff);
        self.ahead.retain(|of| of.at > clock);
        if act.at > clock && diff > 0 {
            self.ahead.push(act);
        } else if let Some(taken_back) = self.ahead.iter().position(|of| *of == act) {
            self.ahead.remove(taken_back);
        }
    }

    /// They are there from now on: what they do after the clock counts for it.
    pub fn turn_to(&mut self, clock: Millis, of: In) {
        let Some(last) = self.stays.last_mut() else { return };
        let mut stay = Stay { of, from: last.from.max(clock + 1), counts: Counts::default() };
        if stay.from == last.from {
            stay.counts = last.counts; // no time lies in that one any more
            self.stays.pop();
        } else {
            for act in self.ahead.iter().filter(|act| act.at >= stay.from) {
                last.counts.add(act.kind, act.value_milli, -1);
                stay.counts.add(act.kind, act.value_milli, 1);
            }
        }
        match self.stays.last_mut() {
            Some(last) if last.of == of => last.counts += stay.counts, // there and back at one clock
            _ => self.stays.push(stay),
        }
        if self.stays.len() > MOST {
            let second = self.stays.remove(1);
            self.stays[0].of = None;
            self.stays[0].counts += second.counts;
        }
    }

    /// They were never anywhere else: what counts counts for this.
    pub fn turn_back(&mut self, of: In) {
        let Some(first) = self.stays.first().copied() else { return };
        let mut counts = Counts::default();
        self.stays.iter().for_each(|stay| counts += stay.counts);
        self.stays = vec![Stay { of, counts, ..first }];
    }

    /// Of whom nothing counts and who never moved, there is nothing to keep.
    pub fn tidy(&mut self) {
        if self.stays.len() == 1 && self.stays[0].counts.records == 0 {
            *self = Self::default();
        }
    }

    /// Of whom nothing is counted anywhere, nothing need be known: they are met again by what they do.
    pub fn forget_if_idle(&mut self) {
        if self.stays.iter().all(|stay| stay.of.is_none() || stay.counts.records == 0) {
            *self = Self::default();
        }
    }

    /// What was counted for these counts for nobody.
    pub fn end(&mut self, gone: impl Fn(u64) -> bool) {
        for stay in &mut self.stays {
            stay.of = stay.of.filter(|of| !gone(*of));
        }
    }

    /// What they did in each experiment, over all their stays there.
    pub fn counts(&self) -> SmallVec<[(u64, Counts); 2]> {
        let mut all: SmallVec<[(u64, Counts); 2]> = SmallVec::new();
        for (of, counts) in self.stays.iter().filter_map(|stay| Some((stay.of?, stay.counts))) {
            match all.iter_mut().find(|(known, _)| *known == of) {
                Some((_, sum)) => *sum += counts,
                None => all.push((of, counts)),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const A: In = Some(1);
    const B: In = Some(2);

    fn click(at: Millis) -> Act {
        Act { at, kind: Kind::Click, value_milli: None }
    }

    fn met(of: In) -> Stays {
        let mut stays = Stays::default();
        stays.meet(of, Millis::MIN);
        stays
    }

    /// Clicks by experiment; those without one are not in it.
    fn clicks(stays: &Stays) -> Vec<(u64, i32)> {
        stays.counts().iter().map(|(of, counts)| (*of, counts.clicks)).collect()
    }

    #[test]
    fn c29_what_is_done_counts_where_the_user_was_then() {
        let mut stays = met(None);
        stays.count(10, click(9), 1);
        stays.turn_to(20, A);
        stays.count(30, click(20), 1); // at the clock of the move nobody had seen anything of it yet
        stays.count(30, click(21), 1);
        stays.turn_to(40, B);
        stays.count(50, click(40), 1); // late, and done before they left
        stays.count(50, click(45), 1);
        assert_eq!(clicks(&stays), [(1, 2), (2, 1)]);
        stays.turn_to(60, A);
        stays.count(70, click(65), 1);
        assert_eq!(clicks(&stays), [(1, 3), (2, 1)], "one user, once back in A");
        stays.count(80, click(21), -1);
        stays.count(80, click(9), -1);
        assert_eq!(clicks(&stays), [(1, 2), (2, 1)]);
    }

    #[test]
    fn c29_what_lies_ahead_of_the_clock_counts_where_the_user_is_by_then() {
        let mut stays = met(A);
        stays.count(10, click(15), 1);
        stays.count(10, click(25), 1);
        stays.turn_to(20, B);
        assert_eq!(clicks(&stays), [(1, 1), (2, 1)]);
        stays.count(22, click(25), -1);
        stays.turn_to(23, None);
        assert_eq!(clicks(&stays), [(1, 1), (2, 0)], "taken back, it does not move on");
    }

    #[test]
    fn there_and_back_at_one_clock_is_no_move() {
        let mut stays = met(A);
        stays.count(10, click(25), 1);
        let before = stays.clone();
        stays.turn_to(20, B);
        assert_eq!(clicks(&stays), [(1, 0), (2, 1)]);
        stays.turn_to(20, A);
        assert_eq!(stays, before);
    }

    #[test]
    fn who_moved_too_often_keeps_the_latest() {
        let mut stays = met(A);
        stays.count(5, click(5), 1);
        for n in 1..=MOST as i64 {
            stays.turn_to(10 * n, if n % 2 == 0 { A } else { B });
            stays.count(10 * n + 5, click(10 * n + 5), 1);
        }
        let half = MOST as i32 / 2;
        assert_eq!((stays.stays.len(), clicks(&stays)), (MOST, vec![(1, half), (2, half - 1)]), "the two oldest are one");
        stays.count(999, click(15), -1);
        stays.count(999, click(5), -1);
        assert_eq!((clicks(&stays), stays.stays[0].counts), (vec![(1, half), (2, half - 1)], Counts::default()));
    }

    #[test]
    fn who_is_forgotten_was_never_anywhere_else() {
        let mut stays = met(None);
        stays.turn_to(20, A);
        stays.count(30, click(25), 1);
        stays.count(30, click(15), 1);
        stays.turn_back(B);
        assert_eq!(clicks(&stays), [(2, 2)]);
        stays.count(40, click(25), -1);
        stays.count(40, click(15), -1);
        stays.tidy();
        assert_eq!(stays, Stays::default());
        let mut moved = met(None);
        moved.turn_to(20, A);
        moved.tidy();
        assert_eq!(moved.now(), Some(A), "where they were does not depend on what they did");
    }

    #[test]
    fn what_ended_counts_for_nobody() {
        let mut stays = met(A);
        stays.count(10, click(10), 1);
        stays.turn_to(20, B);
        stays.end(|of| Some(of) == A);
        stays.count(30, click(10), -1);
        assert_eq!(clicks(&stays), [(2, 0)]);
    }

    /// What comes to a user: how far the clock moves before it, and a move, or a record and how far it lies ahead of the clock.
    fn step() -> impl Strategy<Value = (Millis, Option<In>, Millis, bool)> {
        let moves = prop_oneof![3 => Just(None), 1 => prop_oneof![Just(None), Just(A), Just(B)].prop_map(Some)];
        (0..4i64, moves, -20..6i64, any::<bool>())
    }

    proptest! {
        /// Whatever the order, what is counted is what a plain loop finds that looks up the stay of every record at the end.
        #[test]
        fn c29_counts_are_those_of_a_recount(steps in prop::collection::vec(step(), 0..60), begins in -5..5i64) {
            let (mut stays, mut clock) = (Stays::default(), 0);
            stays.meet(None, begins);
            let (mut moves, mut kept): (Vec<(Millis, In)>, Vec<Act>) = (vec![(begins, None)], Vec::new());
            for (passed, turn, ahead, undone) in steps {
                clock += passed;
                match turn {
                    Some(of) if stays.now() != Some(of) => {
                        stays.turn_to(clock, of);
                        moves.push((begins.max(clock + 1), of));
                    }
                    Some(_) => {}
                    None if undone => {
                        if let Some(act) = kept.pop() {
                            stays.count(clock, act, -1);
                        }
                    }
                    None => {
                        let act = click(clock + ahead);
                        stays.count(clock, act, 1);
                        kept.insert(kept.len() / 2, act);
                    }
                }
                let mut expected: BTreeMap<u64, i32> = BTreeMap::new();
                for act in kept.iter().filter(|act| act.at >= begins) {
                    let at = moves.iter().rfind(|(from, _)| *from <= act.at).and_then(|(_, of)| *of);
                    at.into_iter().for_each(|of| *expected.entry(of).or_default() += 1);
                }
                let mut found: BTreeMap<u64, i32> = clicks(&stays).into_iter().collect();
                found.retain(|_, clicks| *clicks > 0);
                prop_assert_eq!(found, expected);
            }
        }
    }
}
