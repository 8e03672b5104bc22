//! What users were shown and what they then did, put together: an act follows the latest time before it that the user was shown the item, if
//! that is no longer ago than the window.
//!
//! The facts that must stay true: what is said of an impression is what was done within its window and stands at the end of it, an undo
//! counted; and what was known of the item when it was shown is what the dataflow knew then, for nothing here adds to that.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::model::example::Step;
use crate::model::forget::Leavers;
use crate::model::time::Millis;
use crate::model::{Example, ItemId, Kind, UserId, Watched};

/// Impressions that wait for the end of their window at most; what is shown beyond them is passed over.
const MOST: usize = 300_000;

/// Something a user did after an item was shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Followed {
    pub kind: Kind,
    /// After it was shown.
    pub after: Millis,
    pub value_milli: Option<i32>,
}

/// An item that was shown, by its place in the example, when, and what followed, in the order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub place: usize,
    pub shown: Millis,
    pub followed: Vec<Followed>,
}

/// What a user was shown in an epoch, its window over.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    pub epoch: u64,
    pub example: Arc<Watched>,
    pub outcomes: Vec<Outcome>,
}

/// When it closes, and whose of which epoch it is.
type Key = (Millis, u64, UserId);

/// A user's item, while an impression of it is open.
#[derive(Default)]
struct Pair {
    open: usize,
    /// Each time it was shown, as many times as it was said.
    shown: Vec<Millis>,
    acts: Vec<Step>,
}

/// What is open.
pub struct Join {
    window: Millis,
    groups: BTreeMap<Key, Arc<Watched>>,
    pairs: HashMap<(UserId, ItemId), Pair>,
    rows: usize,
}

impl Join {
    /// Nothing shown yet.
    pub fn new(window: Millis) -> Self {
        Self { window, groups: BTreeMap::new(), pairs: HashMap::new(), rows: 0 }
    }

    /// What a user was shown and did in an epoch; `false`: what they were shown is passed over, too many wait.
    pub fn take(&mut self, epoch: u64, watched: &Arc<Watched>) -> bool {
        let room = self.rows < MOST;
        let example = watched.example.as_ref().filter(|_| room);
        if let Some(example) = example {
            let shown = watched.shown().values().max().copied().unwrap_or(example.at);
            self.groups.insert((shown.max(example.at) + self.window, epoch, watched.user), watched.clone());
            self.rows += example.candidates.len();
            for (item, _) in &example.candidates {
                self.pairs.entry((watched.user, *item)).or_default().open += 1;
            }
        }
        for step in &watched.steps {
            if let Some(pair) = self.pairs.get_mut(&(watched.user, step.item)) {
                pair.note(step);
            }
        }
        room || watched.example.is_none()
    }

    /// What is over at this time.
    pub fn close(&mut self, clock: Millis) -> Vec<Closed> {
        let mut closed = Vec::new();
        while let Some(first) = self.groups.first_entry().filter(|first| first.key().0 <= clock) {
            let ((_, epoch, _), watched) = first.remove_entry();
            let shown = watched.shown();
            let candidates = watched.example.iter().flat_map(|example| example.candidates.iter().enumerate());
            let outcome = |(place, (item, _)): (usize, &(ItemId, bool))| {
                let (pair, shown) = (self.pairs.get(&(watched.user, *item))?, *shown.get(item)?);
                // what was taken back was not shown
                pair.shown.contains(&shown).then(|| Outcome { place, shown, followed: pair.followed(shown, self.window) })
            };
            let outcomes: Vec<Outcome> = candidates.filter_map(outcome).collect();
            self.leave(&watched);
            if !outcomes.is_empty() {
                closed.push(Closed { epoch, example: watched, outcomes });
            }
        }
        closed
    }

    /// Takes users out; yields how many rows that were.
    pub fn erase(&mut self, leavers: &Leavers) -> u64 {
        let rows = self.rows;
        let leaves =
            |example: &Example, epoch| leavers.takes_answer(example.user, epoch) || leavers.takes(example.user, example.at);
        let gone = self.groups.extract_if(.., |(_, epoch, _), of| of.example.as_ref().is_some_and(|of| leaves(of, *epoch)));
        let gone: Vec<Arc<Watched>> = gone.map(|(_, watched)| watched).collect();
        gone.iter().for_each(|watched| self.leave(watched));
        (rows - self.rows) as u64
    }

    /// Nothing is known of what followed any more: all that is open goes.
    pub fn clear(&mut self) {
        *self = Self::new(self.window);
    }

    fn leave(&mut self, watched: &Watched) {
        let candidates = watched.example.iter().flat_map(|example| &example.candidates);
        for (item, _) in candidates {
            self.rows -= 1;
            if let Some(pair) = self.pairs.get_mut(&(watched.user, *item)) {
                pair.open -= 1;
                if pair.open == 0 {
                    self.pairs.remove(&(watched.user, *item));
                }
            }
        }
    }
}

impl Pair {
    /// Adds what came, or takes out what was taken back.
    fn note(&mut self, step: &Step) {
        match (step.kind, step.diff > 0) {
            (Kind::Impression, true) => self.shown.push(step.at),
            (Kind::Impression, false) => remove(&mut self.shown, |at| *at == step.at),
            (_, true) => self.acts.push(step.clone()),
            (_, false) => {
                remove(&mut self.acts, |act| (act.kind, act.at, act.value_milli) == (step.kind, step.at, step.value_milli))
            }
        }
    }

    /// What followed the impression of this time and no later one.
    fn followed(&self, shown: Millis, window: Millis) -> Vec<Followed> {
        let again = self.shown.iter().copied().filter(|at| *at > shown).min().unwrap_or(Millis::MAX);
        let until = again.min((shown + window).saturating_add(1));
        let mut acts: Vec<&Step> = self.acts.iter().filter(|act| (shown..until).contains(&act.at)).collect();
        acts.sort_by_key(|act| (act.at, act.kind, act.value_milli));
        acts.into_iter().map(|act| Followed { kind: act.kind, after: act.at - shown, value_milli: act.value_milli }).collect()
    }
}

fn remove<T>(from: &mut Vec<T>, is: impl Fn(&T) -> bool) {
    if let Some(at) = from.iter().position(is) {
        from.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::forget::Until;

    const WINDOW: Millis = 100;
    const WHO: UserId = UserId(7);

    fn step(item: u64, kind: Kind, at: Millis) -> Step {
        Step { item: ItemId(item), kind, at, value_milli: None, diff: 1 }
    }

    fn undone(step: Step) -> Step {
        Step { diff: -1, ..step }
    }

    /// Of an epoch whose clock this is; what is shown is an example of it.
    fn watched(clock: Millis, steps: Vec<Step>) -> Arc<Watched> {
        let shown = steps.iter().filter(|step| step.kind == Kind::Impression && step.diff > 0);
        let mut candidates: Vec<_> = shown.map(|step| (step.item, false)).collect();
        candidates.dedup();
        let example = Example { user: WHO, at: clock, candidates, ..Example::default() };
        Arc::new(Watched { user: WHO, steps, example: Some(example).filter(|example| !example.candidates.is_empty()) })
    }

    /// Item, when it was shown, and what followed after how long.
    fn told(closed: &[Closed]) -> Vec<(u64, Millis, Vec<(Kind, Millis)>)> {
        let outcomes = closed.iter().flat_map(|closed| closed.outcomes.iter().map(|outcome| (&closed.example, outcome)));
        let candidates = |of: &Watched| of.example.as_ref().expect("it was shown").candidates.clone();
        let acts = |of: &Outcome| of.followed.iter().map(|act| (act.kind, act.after)).collect();
        outcomes.map(|(of, outcome)| (candidates(of)[outcome.place].0.0, outcome.shown, acts(outcome))).collect()
    }

    #[test]
    fn an_act_follows_the_latest_impression_within_the_window() {
        let mut join = Join::new(WINDOW);
        let take = |join: &mut Join, epoch, clock, steps| assert!(join.take(epoch, &watched(clock, steps)));
        take(
            &mut join,
            1,
            1_000,
            vec![step(1, Kind::Impression, 1_000), step(2, Kind::Impression, 990), step(3, Kind::View, 995)],
        );
        take(&mut join, 2, 1_050, vec![step(1, Kind::Impression, 1_040), step(1, Kind::View, 1_030), step(2, Kind::Skip, 1_020)]);
        take(&mut join, 3, 1_060, vec![step(1, Kind::Like, 1_045), step(2, Kind::Like, 1_091), step(3, Kind::Like, 1_061)]);
        assert!(join.close(1_099).is_empty(), "the window of none is over");
        let first = join.close(1_100);
        assert_eq!(told(&first), [(1, 1_000, vec![(Kind::View, 30)]), (2, 990, vec![(Kind::Skip, 30)])]);
        assert_eq!(first[0].epoch, 1);
        take(&mut join, 4, 1_120, vec![step(1, Kind::Share, 1_140), step(1, Kind::Share, 1_141)]);
        let second = [(1, 1_040, vec![(Kind::Like, 5), (Kind::Share, 100)])];
        assert_eq!(told(&join.close(2_000)), second, "the end of the window belongs to it");
        assert!(join.pairs.is_empty() && join.rows == 0, "nothing stays of what is over");
    }

    #[test]
    fn what_is_taken_back_was_neither_shown_nor_done() {
        let mut join = Join::new(WINDOW);
        let (shown, liked) = (step(1, Kind::Impression, 1_000), step(2, Kind::Like, 1_010));
        assert!(join.take(1, &watched(1_000, vec![shown.clone(), step(2, Kind::Impression, 1_000)])));
        assert!(join.take(2, &watched(1_010, vec![liked.clone(), step(2, Kind::Like, 1_020), step(1, Kind::Like, 1_020)])));
        assert!(join.take(3, &watched(1_030, vec![undone(shown), undone(liked)])));
        assert_eq!(told(&join.close(2_000)), [(2, 1_000, vec![(Kind::Like, 20)])]);

        let shown = step(1, Kind::Impression, 3_000);
        assert!(join.take(4, &watched(3_000, vec![shown.clone()])) && join.take(5, &watched(3_010, vec![undone(shown)])));
        assert_eq!((join.close(4_000), join.rows), (vec![], 0), "nothing stays of what was taken back whole");
    }

    #[test]
    fn who_leaves_is_in_nothing_that_is_open() {
        let mut join = Join::new(WINDOW);
        assert!(join.take(4, &watched(1_000, vec![step(1, Kind::Impression, 1_000), step(2, Kind::Impression, 1_000)])));
        assert!(join.take(6, &watched(1_050, vec![step(1, Kind::Impression, 1_050), step(1, Kind::Like, 1_051)])));
        let leavers = |epoch| Leavers { users: [(WHO, Until { accepted: 0, epoch })].into(), ..Leavers::default() };
        assert_eq!(join.erase(&leavers(3)), 0);
        assert_eq!(join.erase(&leavers(5)), 2);
        assert_eq!(told(&join.close(2_000)), [(1, 1_050, vec![(Kind::Like, 1)])]);
    }

    #[test]
    fn more_than_may_wait_is_passed_over_and_what_was_lost_is_not_taken_for_nothing() {
        let mut join = Join::new(WINDOW);
        let many: Vec<Step> = (0..MOST as u64).map(|item| step(item, Kind::Impression, 1_000)).collect();
        assert!(join.take(1, &watched(1_000, many)));
        assert!(!join.take(2, &watched(1_000, vec![step(1, Kind::Impression, 1_000)])));
        assert!(join.take(3, &watched(1_000, vec![step(1, Kind::Like, 1_001)])), "acts need no room");
        join.clear();
        assert!(join.close(9_000).is_empty() && join.rows == 0);
    }
}
