//! How much there is to recommend, and to whom: items that may be shown, users with a profile, and the cities of the items.
//!
//! Two stages. `Counted`, at the owner of each item and user, tells what changed of it; `Census`, in one place, sums it up. The facts that
//! must stay true: after a tick the counts are those of what is there now, for what went was taken back whole; what was told is told again
//! only where it changed, or as often as a store must hear of it.

use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use timely::dataflow::StreamVec;

use super::catalogue;
use super::ledger::UserDelta;
use crate::model::changes::Counts;
use crate::model::time::Millis;
use crate::model::{Change, Epoch, ItemId, UserId};
use crate::operators::route::owner;
use crate::operators::turns::AGAIN_AFTER;
use crate::operators::{Arrive, Clock, Durable, Route, Saver, Vault};
use crate::scoring::first::first;

/// Decides the worker that sums up, and the key group that is told again.
const HASH: u64 = 0;
/// Cities that are named.
const NAMED: usize = 20;

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Of {
    Items,
    Users,
    /// Items in it.
    City(Arc<str>),
}

/// What is counted, and by how much it grew.
type Part = (Of, i64);

/// What is said of an item, or of a user: whether there is a profile.
pub enum Said {
    Item(catalogue::Change),
    User(UserId, bool),
}

/// The stage: the catalogue and what changed of users in, at their owners; the counts out, at ticks.
pub fn census<'scope>(
    items: StreamVec<'scope, u64, catalogue::Change>,
    deltas: StreamVec<'scope, u64, Arc<UserDelta>>,
    clock: &Clock,
    vault: &Vault,
) -> StreamVec<'scope, u64, Change> {
    let (index, workers) = (items.scope().index() as u64, items.scope().peers());
    let users = deltas.arrive().flat_map(|delta| delta.profile.as_ref().map(|said| Said::User(delta.user, said.is_some())));
    let parts = items.arrive().map(Said::Item).concat(users).keep(clock, Counted::default(), vault, Counted::step);
    let here = owner(HASH, workers) == index;
    parts.route(|_| HASH).keep(clock, Census { here, ..Census::default() }, vault, Census::step)
}

/// What one worker's items and users are counted as.
#[derive(Default)]
pub(super) struct Counted {
    /// Those that may be shown, with their cities.
    items: BTreeMap<ItemId, Option<Arc<str>>>,
    users: BTreeSet<UserId>,
}

impl Counted {
    fn step(&mut self, _: &Epoch, said: &mut Vec<Said>, out: &mut Vec<Part>) {
        let mut parts = BTreeMap::<Of, i64>::new();
        for said in said.drain(..) {
            match said {
                Said::Item((item, facts)) => {
                    let shown = facts.filter(|facts| facts.available);
                    let city =
                        shown.map(|facts| facts.city.as_deref().map(str::trim).filter(|city| !city.is_empty()).map(Arc::from));
                    let before = match city.clone() {
                        Some(city) => self.items.insert(item, city),
                        None => self.items.remove(&item),
                    };
                    count(&mut parts, before, -1);
                    count(&mut parts, city, 1);
                }
                Said::User(user, true) => *parts.entry(Of::Users).or_default() += i64::from(self.users.insert(user)),
                Said::User(user, false) => *parts.entry(Of::Users).or_default() -= i64::from(self.users.remove(&user)),
            }
        }
        out.extend(parts.into_iter().filter(|(_, by)| *by != 0));
    }
}

fn count(parts: &mut BTreeMap<Of, i64>, item: Option<Option<Arc<str>>>, by: i64) {
    let Some(city) = item else { return };
    *parts.entry(Of::Items).or_default() += by;
    if let Some(city) = city {
        *parts.entry(Of::City(city)).or_default() += by;
    }
}

impl Durable for Counted {
    const UID: &'static str = "counted/1";

    fn save(&self, into: &mut Saver) {
        for (item, city) in self.items.clone() {
            into.own(0, item.0, move || (item, city));
        }
        for user in self.users.clone() {
            into.own(1, user.0, move || user);
        }
    }

    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        match tag {
            0 => self.items.extend([postcard::from_bytes::<(ItemId, Option<Arc<str>>)>(body)?]),
            _ => _ = self.users.insert(postcard::from_bytes(body)?),
        }
        Ok(())
    }
}

/// The sums.
#[derive(Default)]
pub(super) struct Census {
    /// Whether this worker is the one that sums up.
    here: bool,
    sums: BTreeMap<Of, i64>,
    /// Since it was last looked at.
    grew: bool,
    told: Counts,
    at: Millis,
}

impl Census {
    fn step(&mut self, epoch: &Epoch, parts: &mut Vec<Part>, out: &mut Vec<Change>) {
        parts.drain(..).for_each(|(of, by)| self.add(of, by));
        if !self.here || !(epoch.tick() || epoch.retells(HASH)) {
            return;
        }
        let due = epoch.retells(HASH) || epoch.clock_ms - self.at >= AGAIN_AFTER;
        if !(std::mem::take(&mut self.grew) || due) {
            return;
        }
        let counts = self.counts();
        if counts != self.told || due && counts != Counts::default() {
            (self.told, self.at) = (counts.clone(), epoch.clock_ms);
            out.push(Change::Census(Arc::new(counts)));
        }
    }

    fn add(&mut self, of: Of, by: i64) {
        self.grew = true;
        match self.sums.entry(of) {
            Entry::Vacant(sum) => drop(sum.insert(by)),
            Entry::Occupied(sum) if *sum.get() + by == 0 => drop(sum.remove()),
            Entry::Occupied(mut sum) => *sum.get_mut() += by,
        }
    }

    fn counts(&self) -> Counts {
        let of = |of| self.sums.get(&of).copied().unwrap_or_default();
        let city = |(of, items): (&'_ Of, &i64)| if let Of::City(city) = of { Some((city.clone(), *items)) } else { None };
        let cities: Vec<(Arc<str>, i64)> = self.sums.iter().filter_map(city).collect();
        let covered = cities.len() as i64;
        let most = |a: &(Arc<str>, i64), b: &(Arc<str>, i64)| Reverse(a.1).cmp(&Reverse(b.1)).then_with(|| a.0.cmp(&b.0));
        let cities = first(cities, NAMED, most).into_iter().map(|(city, items)| (city.to_string(), items)).collect();
        Counts { items: of(Of::Items), users: of(Of::Users), covered, cities }
    }
}

impl Durable for Census {
    const UID: &'static str = "census/1";

    fn save(&self, into: &mut Saver) {
        if !self.here {
            return;
        }
        for sum in self.sums.clone() {
            into.own(0, HASH, move || sum);
        }
        let told = (self.told.clone(), self.at);
        into.own(1, HASH, move || told);
    }

    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        match tag {
            0 => {
                let (of, sum): Part = postcard::from_bytes(body)?;
                self.add(of, sum);
            }
            _ => (self.told, self.at) = postcard::from_bytes(body)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Turn;
    use crate::model::catalogue::Item;

    /// Both stages, as one worker has them.
    #[derive(Default)]
    struct Both(Counted, Census);

    impl Both {
        fn told(&mut self, clock_ms: Millis, tick: bool, mut said: Vec<Said>) -> Option<Counts> {
            let epoch = Epoch { clock_ms, turn: Turn::all_if(tick), ..Epoch::default() };
            let (mut parts, mut out) = (Vec::new(), Vec::new());
            self.0.step(&epoch, &mut said, &mut parts);
            self.1.here = true;
            self.1.step(&epoch, &mut parts, &mut out);
            out.pop()
                .map(|change| if let Change::Census(counts) = change { Counts::clone(&counts) } else { panic!("{change:?}") })
        }
    }

    fn item(id: u64, city: &str) -> Said {
        let city = Some(city.to_string()).filter(|city| !city.is_empty());
        Said::Item((ItemId(id), Some(Arc::new(Item { available: true, city, ..Item::default() }))))
    }

    fn counts(items: i64, users: i64, covered: i64, cities: &[(&str, i64)]) -> Option<Counts> {
        let cities = cities.iter().map(|(city, n)| (city.to_string(), *n)).collect();
        Some(Counts { items, users, covered, cities })
    }

    #[test]
    fn c28_counts_are_of_what_is_there_now() {
        let mut both = Both::default();
        assert_eq!(both.told(5, true, vec![]), None, "nothing is nothing to tell");
        assert_eq!(both.told(6, false, vec![item(1, "Rome"), item(2, " Rome "), Said::User(UserId(1), true)]), None, "no tick");
        assert_eq!(both.told(7, true, vec![item(3, "Bern"), item(4, "")]), counts(4, 1, 2, &[("Rome", 2), ("Bern", 1)]));
        assert_eq!(both.told(8, true, vec![item(3, "Bern"), Said::User(UserId(1), true)]), None, "said as it was");
        let moved = both.told(9, true, vec![item(1, "Bern"), Said::User(UserId(2), true)]);
        assert_eq!(moved, counts(4, 2, 2, &[("Bern", 2), ("Rome", 1)]));
        let withheld = Said::Item((ItemId(2), Some(Arc::new(Item { available: false, ..Item::default() }))));
        let gone = both.told(10, true, vec![Said::Item((ItemId(4), None)), withheld, Said::User(UserId(1), false)]);
        assert_eq!(gone, counts(2, 1, 1, &[("Bern", 2)]));
        assert_eq!(both.told(9 + AGAIN_AFTER, true, vec![]), None);
        assert_eq!(both.told(10 + AGAIN_AFTER, true, vec![]), counts(2, 1, 1, &[("Bern", 2)]), "before the store lets go of it");
    }

    #[test]
    fn the_best_are_named_and_all_are_counted() {
        let items: Vec<Said> =
            (0..50).flat_map(|city| (0..=city % 7).map(move |n| item(city * 100 + n, &format!("c{city:02}")))).collect();
        let told = Both::default().told(5, true, items).expect("news");
        assert_eq!((told.covered, told.cities.len()), (50, NAMED));
        assert_eq!((told.cities[0].clone(), told.cities[1].0.as_str()), (("c06".to_string(), 7), "c13"), "of equals by name");
    }
}
