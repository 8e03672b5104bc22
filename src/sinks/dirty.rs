//! What is not yet in the store: per key the latest change and its epoch, and when the events behind them were accepted. Merging
//! any number of epochs keeps, for each key, what the last of them said; nothing else may be lost.

use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;
use std::hash::Hash;

use crate::model::changes::Scope;
use crate::model::place::Cell;
use crate::model::time::Millis;
use crate::model::{Change, Epoch, ItemId, SignalKey, Surface, UserId};

/// A change and the epoch that made it.
pub(super) type Dated = (Change, Epoch);

/// Keys past which an emptied table gives its room back.
const ROOM_KEPT: usize = 1 << 16;

/// What identifies the key a change replaces: cheaper to merge by than its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Slate(UserId, Surface),
    Signals(SignalKey),
    Interests(UserId),
    Seen(UserId),
    Neighbours(ItemId),
    Trending(Scope),
    Near(Cell),
    Card(ItemId),
    Experiments,
    Profile(UserId),
    Census,
}

fn key_of(change: &Change) -> Option<Key> {
    Some(match change {
        Change::Slate { user, surface, .. } => Key::Slate(*user, *surface),
        Change::Signals(key, _) => Key::Signals(*key),
        Change::Interests(user, _) => Key::Interests(*user),
        Change::Seen(user, _) | Change::AllSeen(user, _) => Key::Seen(*user),
        Change::Neighbours(item, ..) => Key::Neighbours(*item),
        Change::Card(item, _) => Key::Card(*item),
        Change::Trending(scope, _) => Key::Trending(*scope),
        Change::Near(cell, _) => Key::Near(*cell),
        Change::Experiments(_) => Key::Experiments,
        Change::Profile(user, _) => Key::Profile(*user),
        Change::Census(_) => Key::Census,
        Change::Catalogue(..) | Change::AllGone(_) | Change::Forgotten(_) | Change::Dead(_) | Change::Account(_) => return None,
        Change::Ranking(..)
        | Change::Example(_)
        | Change::Watched(_)
        | Change::Arms(_)
        | Change::Learned(_)
        | Change::Encode(_) => return None,
    })
}

impl Key {
    /// Whether ticks, not epochs, bring it up to date.
    fn settles(&self) -> bool {
        matches!(self, Self::Neighbours(_) | Self::Trending(_) | Self::Near(_) | Self::Card(_) | Self::Experiments | Self::Census)
    }
}

/// Dirty keys. Slates stand apart because they are written first: they are what users wait for. So does what ticks bring up to date:
/// a tick changes thousands of keys at once, and no epoch has to wait for them.
#[derive(Default)]
pub(super) struct Dirty {
    slates: FxHashMap<Key, Dated>,
    others: FxHashMap<Key, Dated>,
    settling: FxHashMap<Key, Dated>,
    listed: Listed,
}

impl Dirty {
    /// How many keys are dirty.
    pub(super) fn len(&self) -> usize {
        self.urgent() + self.settling()
    }

    /// Those that every epoch brings up to date.
    pub(super) fn urgent(&self) -> usize {
        self.slates.len() + self.others.len() + self.listed.len()
    }

    /// Those that ticks do.
    pub(super) fn settling(&self) -> usize {
        self.settling.len()
    }

    /// Takes a change of an epoch newer than all before. What writes nothing is ignored.
    pub(super) fn merge(&mut self, mut change: Change, epoch: Epoch) {
        match change {
            Change::Catalogue(item, available) => return self.listed.merge(item, available, epoch),
            Change::AllGone(items) => return self.listed.replace(items, epoch),
            _ => {}
        }
        let Some(key) = key_of(&change) else { return };
        let table = match key {
            Key::Slate(..) => &mut self.slates,
            _ if key.settles() => &mut self.settling,
            _ => &mut self.others,
        };
        if let Some((older, _)) = table.get(&key) {
            compose(older, &mut change);
        }
        table.insert(key, (change, epoch));
    }

    /// Up to `most` urgent keys, slates first; they are dirty no more. Of withdrawn items whole epochs, so maybe more.
    pub(super) fn take_urgent(&mut self, most: usize) -> Vec<Dated> {
        let mut taken = take([&mut self.slates, &mut self.others], most);
        self.listed.take(most, &mut taken);
        taken
    }

    /// Up to `most` settling keys; they are dirty no more.
    pub(super) fn take_settling(&mut self, most: usize) -> Vec<Dated> {
        take([&mut self.settling], most)
    }

    /// All of it, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = Dated> {
        let keyed = [&self.slates, &self.others, &self.settling].into_iter().flat_map(|table| table.values().cloned());
        keyed.chain(self.listed.all())
    }

    /// Makes keys dirty again that were taken and could not be written; nothing may have been merged in between.
    pub(super) fn put_back(&mut self, taken: Vec<Dated>) {
        for (change, epoch) in taken {
            self.merge(change, epoch);
        }
    }
}

/// What was said of the one set of withdrawn items, by item. It leaves in the order of epochs and whole epochs at a time: the set
/// has one fence, and whatever is older than that must be in it.
#[derive(Default)]
struct Listed {
    /// All of the set as of an epoch; what follows is of later ones.
    whole: Option<(Vec<(ItemId, Millis)>, Epoch)>,
    latest: FxHashMap<ItemId, u64>,
    epochs: BTreeMap<u64, (Epoch, FxHashMap<ItemId, bool>)>,
}

impl Listed {
    fn len(&self) -> usize {
        self.latest.len() + usize::from(self.whole.is_some())
    }

    fn all(&self) -> impl Iterator<Item = Dated> {
        let of = |(epoch, items): &(Epoch, FxHashMap<ItemId, bool>)| {
            let epoch = *epoch;
            items.iter().map(move |(item, available)| (Change::Catalogue(*item, *available), epoch)).collect::<Vec<_>>()
        };
        let whole = self.whole.iter().map(|(items, epoch)| (Change::AllGone(items.clone()), *epoch));
        whole.chain(self.epochs.values().flat_map(of))
    }

    /// All of the set, as of an epoch.
    fn replace(&mut self, items: Vec<(ItemId, Millis)>, epoch: Epoch) {
        if self.whole.as_ref().is_none_or(|(_, before)| before.number < epoch.number) {
            self.whole = Some((items, epoch));
        }
        let later = self.epochs.split_off(&(epoch.number + 1));
        self.latest.retain(|_, said| *said > epoch.number);
        self.epochs = later;
    }

    fn merge(&mut self, item: ItemId, available: bool, epoch: Epoch) {
        if self.whole.as_ref().is_some_and(|(_, whole)| whole.number >= epoch.number) {
            return;
        }
        if let Some(before) = self.latest.insert(item, epoch.number) {
            self.unsay(item, before);
        }
        self.epochs.entry(epoch.number).or_insert_with(|| (epoch, FxHashMap::default())).1.insert(item, available);
    }

    fn unsay(&mut self, item: ItemId, epoch: u64) {
        let Some((_, items)) = self.epochs.get_mut(&epoch) else { return };
        items.remove(&item);
        if items.is_empty() {
            self.epochs.remove(&epoch);
        }
    }

    /// Adds epochs to `taken` until it holds `most` or nothing is left.
    fn take(&mut self, most: usize, taken: &mut Vec<Dated>) {
        if taken.len() < most {
            taken.extend(self.whole.take().map(|(items, epoch)| (Change::AllGone(items), epoch)));
        }
        while taken.len() < most
            && let Some((_, (epoch, items))) = self.epochs.pop_first()
        {
            for (item, available) in items {
                self.latest.remove(&item);
                taken.push((Change::Catalogue(item, available), epoch));
            }
        }
    }
}

fn take<const N: usize>(tables: [&mut FxHashMap<Key, Dated>; N], most: usize) -> Vec<Dated> {
    let mut taken = Vec::new();
    for table in tables {
        let room = most - taken.len();
        taken.extend(table.extract_if(|_, _| true).take(room).map(|(_, dated)| dated));
        if table.is_empty() && table.capacity() > ROOM_KEPT {
            table.shrink_to(ROOM_KEPT);
        }
    }
    taken
}

/// What two changes of one key come to: whole values replace each other, differences add up. The seen items of both stay, the newer
/// word on each; a slate's `entered` and `left` become the difference to the slate before `older`.
fn compose(older: &Change, newer: &mut Change) {
    match (older, &mut *newer) {
        (Change::Seen(_, before), Change::Seen(_, seen)) => {
            let said: Ids = seen.iter().map(|(item, _)| *item).collect();
            seen.extend(before.iter().filter(|(item, _)| !said.contains(item)));
        }
        (Change::AllSeen(user, before), Change::Seen(_, seen)) => {
            let said: Ids = seen.iter().map(|(item, _)| *item).collect();
            let stay = before.iter().filter(|(item, _)| !said.contains(item)).copied();
            let all = stay.chain(seen.iter().filter_map(|(item, at)| Some((*item, (*at)?)))).collect();
            *newer = Change::AllSeen(*user, all);
        }
        _ => {}
    }
    let Change::Slate { entered: entered_before, left: left_before, .. } = older else { return };
    let Change::Slate { entered, left, .. } = newer else { return };
    let first: (Ids, Ids) = (entered_before.iter().copied().collect(), left_before.iter().copied().collect());
    let second: (Ids, Ids) = (entered.iter().copied().collect(), left.iter().copied().collect());
    entered.retain(|item| !first.1.contains(item));
    entered.extend(entered_before.iter().filter(|item| !second.1.contains(item)));
    left.retain(|item| !first.0.contains(item));
    left.extend(left_before.iter().filter(|item| !second.0.contains(item)));
}

type Ids = FxHashSet<ItemId>;

/// When events were accepted, as (milliseconds since 1970, how many). Its size is bounded: the longer the store is away, the
/// coarser the milliseconds, always far finer than the delay they are there to tell.
#[derive(Default)]
pub(super) struct Accepted {
    runs: Vec<(i64, usize)>,
    grain_ms: i64,
}

const MOST_RUNS: usize = 1 << 15;

impl Accepted {
    /// One more event.
    pub(super) fn push(&mut self, at: i64) {
        if self.runs.len() >= MOST_RUNS {
            self.coarsen();
        }
        let at = at - at.rem_euclid(self.grain_ms.max(1));
        match self.runs.last_mut() {
            Some((last, n)) if *last == at => *n += 1,
            _ => self.runs.push((at, 1)),
        }
    }

    /// Everything since the last time.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = (i64, usize)> + '_ {
        self.grain_ms = 1;
        self.runs.drain(..)
    }

    fn coarsen(&mut self) {
        let mut runs = std::mem::take(&mut self.runs);
        runs.sort_unstable();
        while runs.len() > MOST_RUNS / 2 {
            self.grain_ms = self.grain_ms.max(1) * 2;
            runs.iter_mut().for_each(|(at, _)| *at -= at.rem_euclid(self.grain_ms));
            runs.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                kept.1 += if same { next.1 } else { 0 };
                same
            });
        }
        self.runs = runs;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn epoch(number: u64) -> Epoch {
        Epoch { number, ..Epoch::default() }
    }

    fn slate(user: u64, entered: &[u64], left: &[u64]) -> Change {
        let ids = |ids: &[u64]| ids.iter().map(|i| ItemId(*i)).collect();
        Change::Slate { user: UserId(user), surface: Surface::HOME, slate: None, entered: ids(entered), left: ids(left) }
    }

    #[test]
    fn slates_leave_first_and_the_latest_change_of_a_key_stays() {
        let mut dirty = Dirty::default();
        dirty.merge(Change::Catalogue(ItemId(1), false), epoch(1));
        dirty.merge(Change::Catalogue(ItemId(2), false), epoch(1));
        dirty.merge(slate(1, &[], &[]), epoch(2));
        dirty.merge(Change::Catalogue(ItemId(1), true), epoch(3));
        dirty.merge(Change::Forgotten(UserId(1)), epoch(3));
        assert_eq!(dirty.len(), 3);
        assert_eq!(dirty.take_urgent(1), [(slate(1, &[], &[]), epoch(2))]);
        let rest: BTreeMap<u64, bool> = dirty
            .take_urgent(9)
            .into_iter()
            .map(|(change, _)| if let Change::Catalogue(item, available) = change { (item.0, available) } else { panic!() })
            .collect();
        assert_eq!((rest, dirty.len()), ([(1, true), (2, false)].into(), 0));
    }

    #[test]
    fn withdrawn_items_leave_by_whole_epochs_the_oldest_first() {
        let mut dirty = Dirty::default();
        for (item, number) in [(1, 1), (2, 1), (3, 2), (4, 3), (5, 3), (1, 3)] {
            dirty.merge(Change::Catalogue(ItemId(item), number == 3), epoch(number));
        }
        let items = |taken: &[Dated]| {
            let item = |(change, epoch): &Dated| match change {
                Change::Catalogue(item, available) => (epoch.number, item.0, *available),
                other => panic!("{other:?} was not said"),
            };
            taken.iter().map(item).collect::<BTreeSet<_>>()
        };
        assert_eq!(dirty.urgent(), 5);
        let first = dirty.take_urgent(1);
        assert_eq!(items(&first), [(1, 2, false)].into());
        dirty.put_back(first);
        assert_eq!(items(&dirty.take_urgent(2)), [(1, 2, false), (2, 3, false)].into());
        assert_eq!(items(&dirty.take_urgent(1)), [(3, 1, true), (3, 4, true), (3, 5, true)].into());
        assert_eq!((dirty.len(), dirty.listed.latest.len(), dirty.listed.epochs.len()), (0, 0, 0));
    }

    #[test]
    fn what_ticks_bring_waits_for_what_is_urgent() {
        let mut dirty = Dirty::default();
        dirty.merge(Change::Neighbours(ItemId(1), 0, Vec::new()), epoch(1));
        dirty.merge(slate(1, &[], &[]), epoch(2));
        assert_eq!((dirty.urgent(), dirty.settling()), (1, 1));
        assert_eq!(dirty.take_urgent(9), [(slate(1, &[], &[]), epoch(2))]);
        let settled = dirty.take_settling(9);
        assert_eq!(settled, [(Change::Neighbours(ItemId(1), 0, Vec::new()), epoch(1))]);
        dirty.put_back(settled);
        assert_eq!((dirty.urgent(), dirty.settling()), (0, 1));
    }

    #[test]
    fn all_of_it_is_everything_that_would_be_taken() {
        let changes = [
            slate(1, &[1], &[]),
            Change::Signals(SignalKey::Item(ItemId(1)), None),
            Change::Interests(UserId(1), None),
            Change::Seen(UserId(1), vec![(ItemId(1), None)]),
            Change::Neighbours(ItemId(1), 0, Vec::new()),
            Change::Trending(Scope::Global, Vec::new()),
            Change::Near(Cell(1), Vec::new()),
            Change::Experiments(Default::default()),
            Change::Profile(UserId(1), None),
            Change::Census(Default::default()),
            Change::Catalogue(ItemId(1), false),
        ];
        let mut dirty = Dirty::default();
        changes.iter().for_each(|change| dirty.merge(change.clone(), epoch(1)));
        let text = |dated: Vec<Dated>| dated.iter().map(|d| format!("{d:?}")).collect::<BTreeSet<_>>();
        let all = text(dirty.all().collect());
        assert_eq!((all.len(), dirty.len()), (changes.len(), changes.len()));
        let mut taken = dirty.take_urgent(99);
        taken.extend(dirty.take_settling(99));
        assert_eq!(all, text(taken));
    }

    #[test]
    fn seen_items_of_several_epochs_stay() {
        let mut dirty = Dirty::default();
        let seen =
            |items: &[(u64, Option<i64>)]| Change::Seen(UserId(1), items.iter().map(|(i, at)| (ItemId(*i), *at)).collect());
        dirty.merge(seen(&[(1, Some(10)), (2, Some(11))]), epoch(1));
        dirty.merge(seen(&[(3, Some(12)), (1, None)]), epoch(2));
        assert_eq!(dirty.take_urgent(9), [(seen(&[(3, Some(12)), (1, None), (2, Some(11))]), epoch(2))]);
    }

    proptest! {
        /// Through any slates, the composed difference leads from the first to the last.
        #[test]
        fn differences_compose(slates in prop::collection::vec(prop::collection::btree_set(0u64..8, 0..6), 2..6)) {
            let mut dirty = Dirty::default();
            for (i, two) in slates.windows(2).enumerate() {
                let not_in = |a: &BTreeSet<u64>, b: &BTreeSet<u64>| a.difference(b).copied().collect::<Vec<_>>();
                dirty.merge(slate(1, &not_in(&two[1], &two[0]), &not_in(&two[0], &two[1])), epoch(i as u64));
            }
            let taken = dirty.take_urgent(9);
            let Change::Slate { entered, left, .. } = &taken[0].0 else { panic!("a slate went in") };
            let (first, last) = (&slates[0], &slates[slates.len() - 1]);
            let of = |ids: &[ItemId]| ids.iter().map(|i| i.0).collect::<BTreeSet<_>>();
            prop_assert_eq!(of(entered), last - first);
            prop_assert_eq!(of(left), first - last);
            prop_assert_eq!((entered.len(), left.len()), ((last - first).len(), (first - last).len()));
        }

        #[test]
        fn no_event_is_lost_and_room_is_bounded(steps in prop::collection::vec(0i64..3, 100), times in 1usize..2_000) {
            let (mut accepted, mut at) = (Accepted::default(), 1_763_600_000_000);
            for step in steps.iter().cycle().take(steps.len() * times) {
                at += step;
                accepted.push(at);
                prop_assert!(accepted.runs.len() <= MOST_RUNS);
            }
            prop_assert_eq!(accepted.drain().map(|(_, n)| n).sum::<usize>(), steps.len() * times);
        }
    }

    #[test]
    fn while_the_store_keeps_up_milliseconds_stay_exact() {
        let mut accepted = Accepted::default();
        [5, 5, 7, 6].into_iter().for_each(|at| accepted.push(at));
        assert_eq!(accepted.drain().collect::<Vec<_>>(), [(5, 2), (7, 1), (6, 1)]);
    }
}
