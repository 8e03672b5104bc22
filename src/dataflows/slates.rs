//! Refresh to slate: who gets a new slate in an epoch, and which.
//!
//! The facts that must stay true: a user who acts is refreshed in the same epoch, once, unless the epoch's budget puts it off; what
//! is put off keeps its weight and goes before weaker ones; a slate is let out only when its items, their order or their reasons
//! changed; and nothing here depends on the number of workers: budgets are per key group.

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use timely::dataflow::StreamVec;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{ConnectLoop, Feedback, OkErr};

use super::Params;
use super::alike::Alike;
use super::board::{Board, Post};
use super::candidates::Asked;
use super::explore::{Explore, Explorer};
use super::factors::{Best, Liked};
use super::feature_store::{Fact, FeatureStore, Now};
use super::interests;
use super::learned::{self, Learned, LookUp};
use super::learner::{Learner, Shared, unlearned};
use super::ledger::{Update, UserDelta};
use super::profiles::{History, Profile};
use super::sampler::{Viewer, reading};
use super::surfaces::{Rules, Scored};
use super::towers::{Found, Vectors};
use super::trails::Ring;
use crate::model::changes::{Account, Acts, Arms};
use crate::model::content::Points;
use crate::model::example::Step;
use crate::model::ids::{KEY_GROUPS, key_group};
use crate::model::kind::Weights;
use crate::model::slate::{Slate, SlateItem, Surface};
use crate::model::time::{Millis, SECOND};
use crate::model::{Change, Epoch, Example, ItemId, Kind, Ranker, UserId, Variant, Watched};
use crate::operators::{Arrivals, Arrive, Clock, Durable, Route, Saver, Vault};
use crate::scoring::alike::Shelf;
use crate::scoring::blend;
use crate::scoring::learned::{Lesson, READINGS};
use crate::scoring::ranker::Tally;
use crate::scoring::towers::{HISTORY, TOKENS};

/// What a refresh stage takes in. The order of the variants is the order of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Row {
    Post(Post),
    Fact(Fact),
    Interests(interests::Change),
    Ring(UserId, Arc<Ring>),
    Liked(Liked),
    Points(Points),
    Delta(Arc<UserDelta>),
}

impl Row {
    fn place(&self) -> (u8, UserId) {
        match self {
            Row::Post(_) => (0, UserId::default()),
            Row::Fact(_) | Row::Points(_) => (1, UserId::default()),
            Row::Interests((user, _)) => (2, *user),
            Row::Ring(user, _) => (3, *user),
            Row::Liked((user, ..)) => (4, *user),
            Row::Delta(delta) => (5, delta.user),
        }
    }
}

/// What the refreshes let out.
#[derive(Clone, Debug)]
enum Output {
    Change(Change),
    Lesson(Arc<Lesson>),
}

/// The stage: what changed of the board, the feature store and the users in, new slates out. What an epoch taught is applied before
/// the next one begins, on every worker.
pub fn slates<'scope>(rows: Arrivals<'scope, Row>, clock: &Clock, params: &Params, vault: &Vault) -> Arrivals<'scope, Change> {
    let (scope, weights) = (rows.scope(), unlearned());
    if !params.learn.enabled {
        return rows.keep(clock, State::new(params, weights), vault, State::refresh_all).arrive();
    }
    let learner = Learner::new(params.learn.clone(), weights.clone(), scope.index() == 0);
    let (applied, after) = scope.feedback(1);
    let out = rows.concat(after.arrive()).keep(clock, State::new(params, weights), vault, State::learn_and_refresh);
    let (changes, lessons): (StreamVec<u64, Change>, StreamVec<u64, Arc<Lesson>>) = out.ok_err(|output| match output {
        Output::Change(change) => Ok(change),
        Output::Lesson(lesson) => Err(lesson),
    });
    let learned = lessons.to_all().keep(clock, learner, vault, Learner::step);
    learned.clone().flat_map(|_| None::<Row>).connect_loop(applied);
    changes.arrive().concat(learned.arrive())
}

/// One key group's queue.
#[derive(Clone, Debug, Default)]
struct Queue {
    /// Users who acted and wait, the strongest signals first.
    pending: BTreeSet<(Reverse<i64>, UserId)>,
    /// When each active user is due again.
    due: BTreeSet<(Millis, UserId)>,
    /// Nobody is due before.
    soonest: Millis,
    /// What is left of the budget, in 1/1024 of a refresh.
    credit: u32,
}

impl Queue {
    /// A user is due then.
    fn call(&mut self, due: Millis, user: UserId) {
        self.due.insert((due, user));
        self.soonest = self.soonest.min(due);
    }
}

/// When a user is due again whose slate came out empty: at the start the board has not been told anything yet.
const SOON: Millis = SECOND;

/// An example with what the user took before, and what its items are like.
fn told(example: Example, profile: &Profile, board: &Board) -> Example {
    let history = profile.history(HISTORY).latest.iter().map(|recent| recent.item).collect();
    let tokens = |(item, _): &(ItemId, bool)| board.item(*item).tokens.iter().take(TOKENS).copied().collect();
    Example { history, tokens: example.candidates.iter().map(tokens).collect(), ..example }
}

/// What a user did, beside what was known of what they were shown.
fn watched(delta: &UserDelta, example: Option<Example>) -> Watched {
    let step = |update: &Update| {
        let Update { item, kind, at, value_milli, diff, .. } = *update;
        Step { item, kind, at, value_milli, diff }
    };
    Watched { user: delta.user, steps: delta.updates.iter().map(step).collect(), example }
}

/// What was let out of a slate.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Shown {
    items: Vec<ItemId>,
    digest: u64,
}

impl Shown {
    /// The change that makes it this slate, unless it is that already.
    fn turn_into(&mut self, slate: Slate, gone: &mut FxHashSet<ItemId>) -> Option<Change> {
        let digest = digest(&slate);
        if std::mem::replace(&mut self.digest, digest) == digest {
            return None;
        }
        let items: Vec<ItemId> = slate.items.iter().map(|i| i.item).collect();
        let before = std::mem::replace(&mut self.items, items);
        let (entered, left) = differences(&self.items, &before, gone);
        let (user, surface) = (slate.user, slate.surface);
        Some(Change::Slate { user, surface, slate: (!slate.items.is_empty()).then(|| Arc::new(slate)), entered, left })
    }

    /// The change that ends it, if there is anything to end.
    fn end(self, user: UserId, surface: Surface) -> Option<Change> {
        (!self.items.is_empty()).then(|| Change::Slate { user, surface, slate: None, entered: Vec::new(), left: self.items })
    }
}

/// A user and their latest slates.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct OfUser {
    profile: Profile,
    home: Shown,
    /// On the surfaces of the settings.
    elsewhere: Vec<(Surface, Shown)>,
    /// Weight of the signals since the last refresh; `None`: not waiting.
    pending: Option<i64>,
    due: Option<Millis>,
    active: Millis,
    ring: Arc<Ring>,
    /// How popular and how old what they took was, on average, and how much that was.
    habit: [f64; READINGS],
    taken: u32,
}

impl OfUser {
    fn on(&mut self, surface: Surface) -> &mut Shown {
        if surface == Surface::HOME {
            return &mut self.home;
        }
        let at = self.elsewhere.iter().position(|(of, _)| *of == surface);
        let at = at.unwrap_or_else(|| {
            self.elsewhere.push((surface, Shown::default()));
            self.elsewhere.len() - 1
        });
        &mut self.elsewhere[at].1
    }
}

/// The users of one worker, and its board.
pub struct State {
    params: Params,
    weights: Weights,
    home: Rules,
    /// Of the surfaces of the settings.
    others: Vec<Rules>,
    explore: Explore,
    /// Room to tell two slates apart in.
    gone: FxHashSet<ItemId>,
    board: Board,
    store: FeatureStore,
    shared: Shared,
    learned: Learned,
    /// What the arms of experiments are called.
    variants: Vec<Vec<Arc<Variant>>>,
    /// The version that ranks, by its id; every epoch says it.
    serving: Option<u64>,
    /// Shared with a snapshot that is being written; then copied before it changes.
    users: FxHashMap<UserId, Arc<OfUser>>,
    /// What the factors say users like.
    liked: FxHashMap<UserId, Best>,
    /// What items are like, where that is looked at.
    alike: Option<Shelf>,
    /// What items are to the towers, where there are some.
    towers: Option<Vectors>,
    queues: Vec<Queue>,
    /// What those did whom the model ranks for, and the others, in this epoch.
    arms: Arms,
}

fn count(kind: Kind, acts: &mut Acts) {
    match kind {
        Kind::Impression => acts.impressions += 1,
        Kind::Click => acts.clicks += 1,
        kind if kind.is_positive() => acts.taken += 1,
        _ => {}
    }
}

impl State {
    /// Nobody known yet.
    pub fn new(params: &Params, shared: Shared) -> Self {
        Self {
            weights: params.weights.table(),
            home: Rules::home(params),
            others: Rules::elsewhere(params),
            explore: Explore::new(params.explore.clone(), params.signals.priors()),
            gone: FxHashSet::default(),
            board: Board::default(),
            store: FeatureStore::default(),
            shared,
            learned: Learned::new(params.learn.clone(), &params.ranker, &params.experiments, &params.flags),
            variants: params.experiments.variants(),
            serving: None,
            users: FxHashMap::default(),
            liked: FxHashMap::default(),
            alike: params.content.enabled.then(|| Shelf::new(params.content.kept)),
            towers: Vectors::of(params),
            queues: vec![Queue::default(); KEY_GROUPS as usize],
            arms: Arms::default(),
            params: params.clone(),
        }
    }

    /// One epoch of who learns.
    fn learn_and_refresh(&mut self, epoch: &Epoch, rows: &mut Vec<Row>, out: &mut Vec<Output>) {
        let mut changes = Vec::new();
        self.rank_by(epoch.model);
        rows.sort_by_key(Row::place);
        for row in rows.iter() {
            if let Row::Liked((user, best, true)) = row {
                self.like(*user, best.clone());
            }
        }
        out.extend(self.look_back(epoch, rows, &mut changes).map(Output::Lesson));
        for row in &*rows {
            if let Row::Post(Post::Item(item, facts)) = row {
                self.store.describe(*item, facts.as_deref());
            }
        }
        self.refresh_all(epoch, rows, &mut changes);
        out.extend(changes.into_iter().map(Output::Change));
    }

    /// From this epoch on.
    fn rank_by(&mut self, model: Option<u64>) {
        if std::mem::replace(&mut self.serving, model) != model {
            self.params.ranker = self.params.ranker.ranked_by(model);
            self.learned.rank_by(&self.params.ranker);
        }
    }

    fn like(&mut self, user: UserId, best: Best) {
        if best.is_empty() {
            self.liked.remove(&user);
        } else {
            self.liked.insert(user, best);
        }
    }

    /// One epoch.
    fn refresh_all(&mut self, epoch: &Epoch, rows: &mut Vec<Row>, out: &mut Vec<Change>) {
        rows.sort_by_key(Row::place);
        for row in rows.drain(..) {
            match row {
                Row::Post(post) => self.post(post),
                Row::Fact(fact) => self.store.take(fact),
                Row::Interests((user, interests)) => self.user(user).profile.interests = interests,
                Row::Ring(user, ring) => self.user(user).ring = ring,
                Row::Liked((user, best, _)) => self.like(user, best),
                Row::Points(points) => self.alike.iter_mut().for_each(|alike| alike.put(&points)),
                Row::Delta(delta) => self.take(epoch, &delta, out),
            }
        }
        self.refresh_those_due(epoch, out);
    }

    fn post(&mut self, post: Post) {
        self.towers.iter_mut().for_each(|towers| towers.note(&post));
        self.board.post(post);
    }

    /// What the users took in this epoch, seen from just before it: rankings that were asked for, and what is learned.
    fn look_back(&mut self, epoch: &Epoch, rows: &[Row], out: &mut Vec<Change>) -> Option<Arc<Lesson>> {
        let mut lesson = Lesson::default();
        let (now, weights) = (Now::at(epoch.clock_ms), self.shared.borrow());
        self.towers.iter_mut().for_each(|towers| towers.settle(&self.board));
        for row in rows {
            let Row::Delta(delta) = row else { continue };
            let steps = || delta.updates.iter().filter(|u| u.diff > 0 && u.kind.is_positive());
            let watches = self.learned.watches() && !delta.updates.is_empty();
            if delta.asked.is_none() && steps().next().is_none() && !watches {
                continue;
            }
            let of = Arc::make_mut(self.users.entry(delta.user).or_default());
            if delta.asked == Some(Ranker::Fixed) {
                let history = of.profile.history(self.params.slates.neighbours_from);
                let (liked, alike, found) = (&[][..], None, None); // the weights alone
                let asked = Asked { profile: &of.profile, history: &history, liked, alike, found, clock: epoch.clock_ms };
                let viewer = self.home.viewer(&asked, &self.board);
                let scored = self.home.scored(&asked, &viewer, &self.board);
                let ranking = self.home.choose(scored).iter().map(|scored| (scored.item, 0)).collect();
                out.push(Change::Ranking(delta.user, ranking));
            }
            let filter = of.profile.filter();
            let habit = (of.taken > 0).then_some(of.habit);
            let liked = self.liked.get(&delta.user).map_or(&[][..], |best| best);
            let looks = self.learned.looks_back(epoch, delta);
            let history = (looks && self.alike.is_some()).then(|| of.profile.history(self.params.slates.neighbours_from));
            let alike = self.alike.as_mut().zip(history.as_ref());
            let alike = alike.map(|(shelf, history)| Alike::new(shelf, history, &self.params.content));
            let towers = self.towers.as_mut().filter(|_| looks).and_then(|towers| towers.ask(&of.profile));
            let (near, found) = (alike.as_ref().map_or(&[][..], Alike::best), towers.as_ref().map_or(&[][..], Found::best));
            let viewer = Viewer { ring: &of.ring, habit, city: of.profile.city(), filter: &filter, liked, near, found };
            let look_up: &mut LookUp = &mut |items| {
                let history = of.profile.history(self.params.slates.neighbours_from);
                let (liked, alike, found) = (&[][..], alike.as_ref(), towers.as_ref());
                let asked = Asked { profile: &of.profile, history: &history, liked, alike, found, clock: epoch.clock_ms };
                self.home.look_up(&asked, &self.board, items)
            };
            let said = of.profile.said.as_deref();
            let seen = self.learned.look_back(epoch, delta, said, &viewer, &self.store, &now, &weights, look_up, &mut lesson);
            out.extend(seen.ranking.map(|ranking| Change::Ranking(delta.user, ranking)));
            out.extend(seen.example.map(|example| Change::Example(Arc::new(told(example, &of.profile, &self.board)))));
            out.extend(watches.then(|| Change::Watched(Arc::new(watched(delta, seen.shown)))));
            for update in steps() {
                let reading = reading(self.store.find(update.item), &self.store, &now);
                lesson.read(reading);
                of.taken += 1;
                let step = (1.0 / f64::from(of.taken)).max(0.1);
                of.habit.iter_mut().zip(reading).for_each(|(mean, x)| *mean += step * (f64::from(x) - *mean));
            }
        }
        (!lesson.is_empty()).then(|| Arc::new(lesson))
    }

    fn refresh_those_due(&mut self, epoch: &Epoch, out: &mut Vec<Change>) {
        let mut account = Account::default();
        self.towers.iter_mut().for_each(|towers| towers.settle(&self.board));
        for group in 0..self.queues.len() {
            for user in self.turn(epoch, group) {
                self.refresh(epoch, user, out);
                account.refreshed += 1;
            }
            account.coalesced += self.queues[group].pending.len() as u64;
        }
        for user in self.retold(epoch) {
            self.tell_again(epoch, user, out);
        }
        let Tally { scored, unscored } = self.learned.tally();
        let (shadow, failed) = (self.learned.compared(), self.learned.failed());
        let towers = self.towers.as_mut().map(Vectors::failures).unwrap_or_default();
        let arms = Arms { scored, unscored, shadow, failed, towers, ..std::mem::take(&mut self.arms) };
        out.extend((arms != Arms::default()).then(|| Change::Arms(Arc::new(arms))));
        if account != Account::default() {
            out.push(Change::Account(account));
        }
    }

    fn user(&mut self, user: UserId) -> &mut OfUser {
        Arc::make_mut(self.users.entry(user).or_default())
    }

    fn retold(&self, epoch: &Epoch) -> BTreeSet<UserId> {
        if epoch.retell.is_none() {
            return BTreeSet::new();
        }
        self.users.keys().copied().filter(|user| epoch.retells(user.0)).collect()
    }

    /// A slate made anew, because nobody keeps the old one whole, and all that was seen.
    fn tell_again(&mut self, epoch: &Epoch, user: UserId, out: &mut Vec<Change>) {
        let of = self.users.get_mut(&user).map(Arc::make_mut).expect("a known user is told again");
        let all = [&mut of.home].into_iter().chain(of.elsewhere.iter_mut().map(|(_, shown)| shown));
        all.for_each(|shown| shown.digest = !shown.digest);
        if let Some(weight) = of.pending {
            self.queues[key_group(user.0) as usize].pending.remove(&(Reverse(weight), user));
        }
        let seen = of.profile.seen();
        out.push(Change::AllSeen(user, seen));
        self.refresh(epoch, user, out);
    }

    fn take(&mut self, epoch: &Epoch, delta: &UserDelta, out: &mut Vec<Change>) {
        let of = Arc::make_mut(self.users.entry(delta.user).or_default());
        let seen = of.profile.take(delta);
        if let Some(ranked) = self.learned.models_for(delta.user, of.profile.said.as_deref()) {
            let arm = if ranked { &mut self.arms.by_model } else { &mut self.arms.by_blend };
            delta.updates.iter().filter(|update| update.diff > 0).for_each(|update| count(update.kind, arm));
        }
        if !seen.is_empty() {
            out.push(Change::Seen(delta.user, seen));
        }
        if delta.forgotten || of.profile.is_empty() {
            self.leave(delta.user, out);
            out.extend(delta.forgotten.then_some(Change::Forgotten(delta.user)));
            return;
        }
        let acts = || delta.updates.iter().filter(|u| u.kind != Kind::Impression); // what was only shown changes no slate
        if acts().next().is_none() && delta.profile.is_none() {
            return;
        }
        let weight: i64 = acts().map(|u| self.weights.milli(u.kind).abs() + 1).sum();
        let waiting = of.pending.unwrap_or(0);
        of.pending = Some(waiting + weight);
        of.active = epoch.clock_ms;
        let queue = &mut self.queues[key_group(delta.user.0) as usize];
        queue.pending.remove(&(Reverse(waiting), delta.user));
        queue.pending.insert((Reverse(waiting + weight), delta.user));
    }

    /// A user of whom nothing is left has no slate.
    fn leave(&mut self, user: UserId, out: &mut Vec<Change>) {
        let of = self.users.remove(&user).map(Arc::unwrap_or_clone).unwrap_or_default();
        out.push(Change::AllSeen(user, Vec::new()));
        self.liked.remove(&user);
        let queue = &mut self.queues[key_group(user.0) as usize];
        of.pending.map(|weight| queue.pending.remove(&(Reverse(weight), user)));
        of.due.map(|due| queue.due.remove(&(due, user)));
        let shown = [(Surface::HOME, of.home)].into_iter().chain(of.elsewhere);
        out.extend(shown.filter_map(|(surface, shown)| shown.end(user, surface)));
    }

    /// The users of a key group whose turn it is: those who acted, as far as the budget goes, and at most one that is due.
    fn turn(&mut self, epoch: &Epoch, group: usize) -> Vec<UserId> {
        let queue = &mut self.queues[group];
        if let Some(credit) = epoch.refreshes {
            queue.credit = (queue.credit + credit).min(4 * KEY_GROUPS as u32);
        }
        let mut pay = || match epoch.refreshes {
            None => true,
            Some(_) if queue.credit < KEY_GROUPS as u32 => false,
            Some(_) => {
                queue.credit -= KEY_GROUPS as u32;
                true
            }
        };
        let mut users = Vec::new();
        if queue.pending.is_empty() && queue.soonest > epoch.clock_ms {
            return users;
        }
        while !queue.pending.is_empty() && pay() {
            users.extend(queue.pending.pop_first().map(|(_, user)| user));
        }
        if queue.pending.is_empty() && queue.due.first().is_some_and(|(due, _)| *due <= epoch.clock_ms) && pay() {
            users.extend(queue.due.pop_first().map(|(_, user)| user).filter(|user| !users.contains(user)));
        }
        queue.soonest = queue.due.first().map_or(Millis::MAX, |(due, _)| *due);
        users
    }

    fn refresh(&mut self, epoch: &Epoch, user: UserId, out: &mut Vec<Change>) {
        let Some(of) = self.users.get_mut(&user).map(Arc::make_mut) else { return };
        let queue = &mut self.queues[key_group(user.0) as usize];
        of.pending = None;
        of.due.take().map(|due| queue.due.remove(&(due, user)));
        let weights = self.shared.borrow();
        let liked = self.liked.get(&user).map_or(&[][..], |best| best);
        let history = of.profile.history(self.params.slates.neighbours_from);
        let alike = self.alike.as_mut().map(|shelf| Alike::new(shelf, &history, &self.params.content));
        let learned = self.params.flags.ml(user); // towers are, too
        let found = self.towers.as_mut().filter(|_| learned).and_then(|towers| towers.ask(&of.profile));
        let (alike, found) = (alike.as_ref(), found.as_ref());
        let asked = Asked { profile: &of.profile, history: &history, liked, alike, found, clock: epoch.clock_ms };
        let viewer = self.home.viewer(&asked, &self.board);
        let (scored, model) = if self.learned.serves(user, of.profile.said.as_deref(), &weights) {
            let habit = (of.taken > 0).then_some(of.habit);
            let user = learned::User { id: user, asked, ring: &of.ring, habit };
            self.learned.scored(&user, &self.board, &self.store, &mut self.home, &weights)
        } else {
            (self.home.scored(&asked, &viewer, &self.board), None)
        };
        let mut chosen = self.home.choose(scored);
        let explorer = Explorer { user, clock: epoch.clock_ms, filter: &of.profile.filter(), viewer: &viewer };
        self.home.explore(&mut chosen, &self.explore, &explorer, &self.board);
        let place = self.params.experiments.place(user, of.profile.said.as_deref());
        let variant = place.map(|of| self.variants[usize::from(of.experiment)][usize::from(of.arm)].clone());
        let home = Slate { model, variant, ..laid_out(user, Surface::HOME, &chosen, &history) };
        let other = |rules: &mut Rules| {
            let scored = rules.scored(&asked, &rules.viewer(&asked, &self.board), &self.board);
            laid_out(user, rules.surface, &rules.choose(scored), &history)
        };
        let others: Vec<Slate> = self.others.iter_mut().map(other).collect();
        if epoch.clock_ms - of.active < self.params.slates.active_for {
            let due = epoch.clock_ms + if home.items.is_empty() { SOON } else { self.params.slates.refresh_every };
            of.due = Some(due);
            queue.call(due, user);
        } else {
            self.liked.remove(&user); // until they act again
        }
        let none = |surface: &Surface| others.iter().all(|slate| slate.surface != *surface);
        for (surface, shown) in of.elsewhere.extract_if(.., |(surface, _)| none(surface)) {
            out.extend(shown.end(user, surface)); // the settings name it no more
        }
        for slate in [home].into_iter().chain(others) {
            out.extend(of.on(slate.surface).turn_into(slate, &mut self.gone));
        }
    }
}

impl Durable for State {
    const UID: &'static str = "slates/6";

    fn save(&self, into: &mut Saver) {
        self.board.save(0, 1, into);
        for (user, of) in self.users.clone() {
            into.own(2, user.0, move || (user, of));
        }
        for (group, credit) in self.queues.iter().map(|queue| queue.credit).enumerate() {
            // credit gathers on every worker; only the owner of a group spends it
            if credit > 0 && into.owns(group as u64) {
                into.own(3, group as u64, move || (group, credit));
            }
        }
        self.store.save(4, into);
        for (user, best) in self.liked.clone() {
            into.own(5, user.0, move || (user, best));
        }
        for points in self.alike.iter().flat_map(Shelf::iter) {
            into.shared(6, points.item.0, move || points);
        }
    }

    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        match tag {
            0 => return self.board.load_card(body),
            1 => return self.board.load_list(body),
            4 => return self.store.load(body),
            5 => {
                let (user, best) = postcard::from_bytes(body)?;
                self.liked.insert(user, best);
            }
            6 => {
                let points: Points = postcard::from_bytes(body)?;
                self.alike.iter_mut().for_each(|alike| alike.put(&points));
            }
            2 => {
                let (user, of): (UserId, OfUser) = postcard::from_bytes(body)?;
                let queue = &mut self.queues[key_group(user.0) as usize];
                queue.pending.extend(of.pending.map(|weight| (Reverse(weight), user)));
                of.due.into_iter().for_each(|due| queue.call(due, user));
                self.users.insert(user, Arc::new(of));
            }
            _ => {
                let (group, credit): (usize, u32) = postcard::from_bytes(body)?;
                self.queues.iter_mut().skip(group).take(1).for_each(|queue| queue.credit = credit);
            }
        }
        Ok(())
    }

    /// What the catalogue says is on the board.
    fn loaded(&mut self) {
        if !self.params.learn.enabled {
            return;
        }
        self.board.facts().for_each(|(item, facts)| self.store.describe(item, Some(facts)));
    }
}

/// A slate with these places.
fn laid_out(user: UserId, surface: Surface, chosen: &[Scored], history: &History) -> Slate {
    let (mut items, mut categories) = (Vec::with_capacity(chosen.len()), Vec::with_capacity(chosen.len() * 2));
    for (place, Scored { item, card, score_micro, source, reason, terms }) in chosen.iter().enumerate() {
        let (item, score_micro, source, reason, terms) = (*item, *score_micro, *source, *reason, blend::stored(terms));
        items.push(SlateItem { item, score_micro, source, reason, terms });
        let of = card.categories();
        let each = of.iter().enumerate().filter(|(n, category)| !of[..*n].contains(category)); // a catalogue may name one twice
        categories.extend(each.map(|(_, category)| (*category, place as u16)));
    }
    let (latest, taken) = (&history.latest, history.taken as u32);
    let history = latest.iter().map(|recent| (recent.kind, recent.item)).collect();
    Slate { user, surface, model: None, variant: None, items, categories, history, taken }
}

/// Of items, order, reasons, categories, the history they are made from, what ordered them and under which arm; the empty slate is 0.
/// Scores move with time and are left out.
fn digest(slate: &Slate) -> u64 {
    use std::hash::{Hash, Hasher};
    let Slate { model, variant, items, categories, history, taken, .. } = slate;
    let mut hasher = rustc_hash::FxHasher::default();
    items.iter().for_each(|i| (i.item, i.source, i.reason).hash(&mut hasher));
    (categories, history, taken).hash(&mut hasher);
    model.iter().for_each(|model| model.number.hash(&mut hasher));
    variant.iter().for_each(|variant| variant.hash(&mut hasher));
    if items.is_empty() { 0 } else { hasher.finish() | 1 }
}

/// What entered a slate and what left it, in order.
fn differences(now: &[ItemId], before: &[ItemId], gone: &mut FxHashSet<ItemId>) -> (Vec<ItemId>, Vec<ItemId>) {
    gone.clear();
    gone.extend(before);
    let entered = now.iter().filter(|item| !gone.remove(item)).copied().collect();
    (entered, before.iter().filter(|item| gone.contains(item)).copied().collect())
}
