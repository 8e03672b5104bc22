//! The users' side of the factors: what each user took, their vectors, and who took each item.
//!
//! The facts that must stay true: whatever is told of users' vectors adds up, set by set, to the sum over the vectors that are kept; and
//! of a user who took nothing any more nothing is left here.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use super::FactorsParams;
use super::factors::{Best, Half, Liked, Schedule, by_group, slot};
use super::ledger::UserDelta;
use super::sampler::{OF_FACTORS, RANKED_ALONE};
use super::shelves::{Shelves, settings};
use crate::model::ids::key_group;
use crate::model::time::Millis;
use crate::model::{Change, Epoch, ItemId, Ranker, UserId};
use crate::operators::route::owner;
use crate::operators::{Durable, Saver, To};
use crate::scoring::factors::{Base, Gram, Solver, Vector};
use crate::scoring::scan::Asked;

/// What comes in; within an epoch the order does not matter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Row {
    Delta(Arc<UserDelta>),
    /// An item somebody took or gave back, wherever they are.
    Touched(ItemId),
}

/// Who took an item, the latest first, with their vectors.
pub type Takers = Vec<(Reverse<Millis>, UserId, Vector)>;

/// What the makers of items' vectors are told, of the set in a slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Told {
    /// By how much the sum over users changed.
    Share(usize, Arc<Gram>),
    /// An item is to be solved.
    Item(usize, ItemId, Takers),
}

impl Told {
    /// Sums go to everyone, items to their owners.
    pub fn to(&self) -> To {
        match self {
            Self::Share(..) => To::All,
            Self::Item(_, item, _) => To::Owner(item.0),
        }
    }
}

/// What goes out.
#[derive(Clone, Debug)]
pub enum Output {
    Told(Told),
    Liked(Liked),
    Ranking(Change),
}

/// How many of those who took an item its vector is made from.
pub const LATEST: usize = 256;

/// What a user took, the latest first, and their vectors in both sets, each with the generation it is of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct OfUser {
    taken: Vec<(Reverse<Millis>, ItemId)>,
    vectors: [Option<(u64, Vector)>; 2],
}

/// The users of one worker.
pub struct Tastes {
    params: FactorsParams,
    shelves: Rc<RefCell<Shelves>>,
    worker: u64,
    workers: usize,
    schedule: Schedule,
    /// By key group. Shared with a snapshot that is being written; then copied before they change.
    users: Vec<FxHashMap<UserId, Arc<OfUser>>>,
    /// By key group of the item: who took it, of this worker's users.
    takers: Vec<FxHashMap<ItemId, BTreeSet<(Reverse<Millis>, UserId)>>>,
    /// Items somebody took or gave back since they were last solved in the set that serves, and in the one that grows.
    touched: [Vec<BTreeSet<ItemId>>; 2],
    solver: Solver,
    /// For one epoch: what solves have in common, and what changes of the sums.
    bases: [Option<Base>; 2],
    shares: [Option<Gram>; 2],
}

impl Tastes {
    /// Nobody known yet.
    pub fn new(params: FactorsParams, shelves: Rc<RefCell<Shelves>>, worker: u64, workers: usize) -> Self {
        Self {
            params,
            shelves,
            worker,
            workers,
            schedule: Schedule::default(),
            users: by_group(),
            takers: by_group(),
            touched: [by_group(), by_group()],
            solver: Solver::default(),
            bases: [None, None],
            shares: [None, None],
        }
    }

    /// One epoch.
    pub fn step(&mut self, epoch: &Epoch, rows: &mut Vec<Row>, out: &mut Vec<Output>) {
        self.bases = [None, None];
        let mut acted: BTreeMap<UserId, bool> = BTreeMap::new();
        let mut asked: Vec<UserId> = Vec::new();
        for row in rows.iter() {
            if let Row::Delta(delta) = row {
                match delta.asked {
                    Some(Ranker::Factors) => asked.push(delta.user),
                    Some(Ranker::Blend) => _ = acted.insert(delta.user, true),
                    _ => {}
                }
            }
        }
        self.rank(&asked, out);
        self.like(&acted.keys().copied().collect::<Vec<_>>(), true, out);
        for row in rows.drain(..) {
            match row {
                Row::Delta(delta) => self.take(&delta, &mut acted),
                Row::Touched(item) => self.touch(item),
            }
        }
        let changed: Vec<UserId> = acted.into_iter().filter(|(_, before)| !before).map(|(user, _)| user).collect();
        self.like(&changed, false, out);
        self.have_turns(epoch, out);
        for (slot, share) in self.shares.iter_mut().enumerate() {
            let share = share.take().filter(|share| !share.is_zero());
            out.extend(share.map(|share| Output::Told(Told::Share(slot, Arc::new(share)))));
        }
        if self.schedule.pass(epoch, &self.params) {
            // what was not solved in the set that grew is to be solved in it now that it serves
            let [serving, growing] = &mut self.touched;
            serving.iter_mut().zip(growing).for_each(|(serving, growing)| serving.append(growing));
        }
    }

    fn growing(&self) -> u64 {
        self.schedule.generation
    }

    fn serving(&self) -> u64 {
        self.schedule.generation - 1
    }

    fn touch(&mut self, item: ItemId) {
        self.touched.iter_mut().for_each(|touched| _ = touched[usize::from(key_group(item.0))].insert(item));
    }

    /// Takes what a user took and gave back.
    fn take(&mut self, delta: &UserDelta, acted: &mut BTreeMap<UserId, bool>) {
        let group = usize::from(key_group(delta.user.0));
        let mut changed = false;
        for (item, touch) in &delta.touches {
            let now = touch.and_then(|touch| touch.positive).map(|(first, _)| (Reverse(first), *item));
            let known = self.users[group].get(&delta.user);
            let before = known.and_then(|of| of.taken.iter().find(|(_, known)| known == item)).copied();
            if before == now {
                continue;
            }
            changed = true;
            let of = Arc::make_mut(self.users[group].entry(delta.user).or_default());
            let takers = self.takers[usize::from(key_group(item.0))].entry(*item).or_default();
            if let Some(before) = before {
                of.taken.retain(|known| *known != before);
                takers.remove(&(before.0, delta.user));
            }
            if let Some(now) = now {
                of.taken.insert(of.taken.partition_point(|known| *known < now), now);
                takers.insert((now.0, delta.user));
            }
            if takers.is_empty() {
                self.takers[usize::from(key_group(item.0))].remove(item);
            }
        }
        if !changed {
            return;
        }
        acted.entry(delta.user).or_insert(false);
        self.solve(group, delta.user, self.serving());
        // nobody comes by again before this set serves
        if let Half::Users { last: true } = self.schedule.half(&self.params) {
            self.solve(group, delta.user, self.growing());
        }
        if self.users[group].get(&delta.user).is_some_and(|of| of.taken.is_empty()) {
            [self.serving(), self.growing()].into_iter().for_each(|generation| self.set(group, delta.user, generation, None));
            self.users[group].remove(&delta.user);
        }
    }

    /// The best vector of a user by the items of a set; `None` where the set has none of theirs.
    fn fold_in(&mut self, group: usize, user: UserId, generation: u64) -> Option<Vector> {
        let of = self.users[group].get(&user)?;
        let shelves = self.shelves.borrow();
        let items = &shelves.0[slot(generation)];
        let base = self.bases[slot(generation)].get_or_insert_with(|| Base::new(&items.gram, &settings(&self.params)));
        let known = of.taken.iter().filter_map(|(_, item)| items.vector(*item));
        self.solver.solve(base, known.take(self.params.history))
    }

    fn solve(&mut self, group: usize, user: UserId, generation: u64) {
        let vector = self.fold_in(group, user, generation);
        self.set(group, user, generation, vector);
    }

    /// Gives a user a vector in a set, and notes what it changes of the sum.
    fn set(&mut self, group: usize, user: UserId, generation: u64, vector: Option<Vector>) {
        let Some(of) = self.users[group].get_mut(&user) else { return };
        let slot = slot(generation);
        let before = of.vector(generation);
        if before == vector.as_ref() {
            return;
        }
        let share = self.shares[slot].get_or_insert_default();
        before.into_iter().for_each(|before| share.remove(before));
        vector.iter().for_each(|vector| share.add(vector));
        Arc::make_mut(of).vectors[slot] = vector.map(|vector| (generation, vector));
    }

    /// Solves the users, or has the items solved, whose turn it is.
    fn have_turns(&mut self, epoch: &Epoch, out: &mut Vec<Output>) {
        let half = self.schedule.half(&self.params);
        for (group, due) in self.schedule.turn(epoch, &self.params) {
            self.solve_again(group, due, out);
            if !due {
                continue;
            }
            match half {
                Half::Items => self.grow_items(group, out),
                Half::Drawn | Half::Users { .. } => self.grow_users(group, half),
            }
        }
    }

    /// Has the touched items of a key group solved in the set that serves; where it is not `due`, only those the set does not know.
    fn solve_again(&mut self, group: usize, due: bool, out: &mut Vec<Output>) {
        if self.touched[0][group].is_empty() || self.serving() == 0 && !due {
            return;
        }
        let serving = self.serving();
        let mut touched = std::mem::take(&mut self.touched[0][group]);
        let known = |item: &ItemId| self.shelves.borrow().0[slot(serving)].vector(*item).is_some();
        let left = if due { BTreeSet::new() } else { touched.extract_if(.., |item| known(item)).collect() };
        if serving > 0 {
            touched.iter().for_each(|item| self.tell(*item, serving, true, out));
        }
        self.touched[0][group] = left;
    }

    fn grow_items(&mut self, group: usize, out: &mut Vec<Output>) {
        let touched = std::mem::take(&mut self.touched[1][group]);
        let taken: Vec<ItemId> = self.takers[group].keys().copied().collect();
        // the owner of an item that was touched must hear of it even where none of its takers has a vector: it may keep one of others
        taken.iter().for_each(|item| self.tell(*item, self.growing(), touched.contains(item), out));
        let left = touched.iter().filter(|item| !self.takers[group].contains_key(item));
        left.for_each(|item| self.tell(*item, self.growing(), true, out));
    }

    fn grow_users(&mut self, group: usize, half: Half) {
        let (users, growing): (Vec<UserId>, u64) = (self.users[group].keys().copied().collect(), self.growing());
        for user in users {
            match half {
                Half::Drawn => self.set(group, user, growing, Some(Vector::drawn(user.0))),
                _ => self.solve(group, user, growing),
            }
        }
    }

    /// Tells who took an item; where nobody did here, only if the owner must hear of it, from its own worker.
    fn tell(&self, item: ItemId, generation: u64, must: bool, out: &mut Vec<Output>) {
        let takers = self.takers[usize::from(key_group(item.0))].get(&item);
        let vector = |user: UserId| self.users[usize::from(key_group(user.0))].get(&user)?.vector(generation).copied();
        let with_vector = |(at, user): &(Reverse<Millis>, UserId)| vector(*user).map(|vector| (*at, *user, vector));
        let told: Takers = takers.into_iter().flatten().filter_map(with_vector).take(LATEST).collect();
        if !told.is_empty() || must && owner(item.0, self.workers) == self.worker {
            out.push(Output::Told(Told::Item(slot(generation), item, told)));
        }
    }

    /// What these users like most of what they did not take.
    fn like(&mut self, users: &[UserId], before: bool, out: &mut Vec<Output>) {
        let kept = self.params.kept;
        for (user, best) in users.iter().zip(self.best(users, kept)) {
            let best: Best = Arc::new(best.into_iter().map(|(_, item)| item).collect());
            out.push(Output::Liked((*user, best, before)));
        }
    }

    fn rank(&mut self, users: &[UserId], out: &mut Vec<Output>) {
        for (user, best) in users.iter().zip(self.best(users, RANKED_ALONE)) {
            let ranking = best.into_iter().map(|(_, item)| (item, OF_FACTORS)).collect();
            out.push(Output::Ranking(Change::Ranking(*user, ranking)));
        }
    }

    /// By the vectors they have now, folded in anew; nothing for whom the set knows nothing of.
    fn best(&mut self, users: &[UserId], k: usize) -> Vec<Vec<(f32, ItemId)>> {
        let serving = self.serving();
        let mut asked: Vec<(usize, Vector, Vec<ItemId>)> = Vec::new();
        for (place, user) in users.iter().enumerate() {
            let group = usize::from(key_group(user.0));
            let Some(vector) = self.fold_in(group, *user, serving) else { continue };
            let mut taken: Vec<ItemId> = self.users[group][user].taken.iter().map(|(_, item)| *item).collect();
            taken.sort_unstable();
            asked.push((place, vector, taken));
        }
        let mut best = vec![Vec::new(); users.len()];
        if !asked.is_empty() {
            let shelf = &mut self.shelves.borrow_mut().0[slot(serving)].shelf;
            let of: Vec<Asked> = asked.iter().map(|(_, vector, without)| Asked { vector, without }).collect();
            asked.iter().zip(shelf.best(&of, k)).for_each(|((place, ..), found)| best[*place] = found);
        }
        best
    }
}

impl OfUser {
    fn vector(&self, generation: u64) -> Option<&Vector> {
        self.vectors[slot(generation)].as_ref().filter(|(of, _)| *of == generation).map(|(_, vector)| vector)
    }
}

impl Durable for Tastes {
    const UID: &'static str = "tastes/1";

    fn save(&self, into: &mut Saver) {
        let schedule = self.schedule;
        into.shared(0, 0, move || schedule);
        for (user, of) in self.users.iter().flatten() {
            let (user, mut of) = (*user, of.clone());
            into.own(1, user.0, move || {
                // what is of neither set is left from one before them
                let kept = |of: &Option<(u64, Vector)>| of.filter(|(generation, _)| *generation + 1 >= schedule.generation);
                if of.vectors.iter().any(|vector| *vector != kept(vector)) {
                    let vectors = of.vectors.each_ref().map(kept);
                    Arc::make_mut(&mut of).vectors = vectors;
                }
                (user, of)
            });
        }
        for (set, touched) in self.touched.iter().enumerate() {
            for (group, items) in touched.iter().enumerate().filter(|(_, items)| !items.is_empty()) {
                let items = items.clone();
                into.shared(2, group as u64, move || (set, group, items));
            }
        }
    }

    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        match tag {
            0 => self.schedule = postcard::from_bytes(body)?,
            1 => {
                let (user, of): (UserId, Arc<OfUser>) = postcard::from_bytes(body)?;
                for (at, item) in &of.taken {
                    self.takers[usize::from(key_group(item.0))].entry(*item).or_default().insert((*at, user));
                }
                self.users[usize::from(key_group(user.0))].insert(user, of);
            }
            _ => {
                let (set, group, items): (usize, usize, BTreeSet<ItemId>) = postcard::from_bytes(body)?;
                self.touched[set][group] = items;
            }
        }
        Ok(())
    }
}
