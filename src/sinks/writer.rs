//! The thread between the dataflow and the store. It takes every epoch that is complete, keeps the latest change of each key,
//! writes, and only then says how far the answers have come. While the store is away epochs go on being merged, so nothing is
//! lost and the latest value of each key is written on return; past a number of dirty keys it stops taking epochs, and the
//! input waits.

use crossbeam_channel::{Receiver, RecvTimeoutError};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::changes::Feed;
use super::dead_letters::DeadLetters;
use super::dirty::{Accepted, Dated, Dirty};
use super::encode::Encoder;
use super::jsonl::Undelivered;
use super::rebuild::Rebuild;
use super::{Applied, Completed, Found, Known, Store, StoreError, Swept, Write};
use crate::model::changes::{Account, Arms, Compared};
use crate::model::{Binding, Change, Epoch, Part, Positions, Saved, SignalKey, UserId};

/// Keys in one batch at most.
const BATCH: usize = 2048;
/// Keys that settle written along with the urgent ones, so that no epoch waits long behind a tick.
const SETTLED: usize = 64;
/// The first pause when the store is away; it doubles up to `retry_max`.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Epochs that may have been read, and their names met, before the writer sees the first of them: a name met by then is still needed.
pub const READ_AHEAD: u64 = 640;
/// After the last epoch, how long a store that is away is tried before what is dirty is left to the next start. A process that is
/// asked to stop has 25 s in all, and one try may take a round trip's limit.
const LAST_TRIES: Duration = Duration::from_secs(10);

/// What a writer needs to know.
#[derive(Clone, Debug)]
pub struct Params {
    /// Grows each time the engine starts; the second half of the fence.
    pub generation: u32,
    /// Keys that may wait while the store is away.
    pub max_dirty_keys: usize,
    /// The longest pause between two tries.
    pub retry_max: Duration,
    /// What an earlier run had left to do; empty without one.
    pub left: Left,
    /// Epochs up to here may have been written by an earlier run.
    pub repeats_until: u64,
}

/// What a writer has not yet written at an epoch, and how far the answers are when it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Left {
    /// What the store shows at least.
    pub shown: Applied,
    pub next: Applied,
    /// The epoch in which the round of turns under way began, and the positions then.
    pub round: Option<(u64, Positions)>,
    pub dirty: Vec<(Change, Epoch)>,
    pub forgotten: Vec<(UserId, u64)>,
}

/// The name under which it is saved, and its version.
pub const UID: &str = "dirty/6";

impl Left {
    /// As saved.
    pub fn of(parts: &[Part]) -> Result<Self, String> {
        let mut left = Self::default();
        for entry in parts.iter().filter(|part| part.uid == UID).flat_map(|part| &part.entries) {
            match entry.payload.split_first() {
                Some((0, body)) => (left.shown, left.next, left.round, left.forgotten) = marks(body)?,
                Some((_, body)) => left.dirty.push(postcard::from_bytes(body).map_err(unreadable)?),
                None => return Err(format!("the snapshot's {UID} has an empty entry")),
            }
        }
        Ok(left)
    }
}

/// The users whose names are to go and are not gone, as saved.
pub fn leaving(parts: &[Part]) -> Result<BTreeSet<UserId>, String> {
    let entries = parts.iter().filter(|part| part.uid == UID).flat_map(|part| &part.entries);
    let of_marks = entries.filter_map(|entry| entry.payload.strip_prefix(&[0]));
    let users = of_marks.map(|body| Ok(marks(body)?.3.into_iter().map(|(user, _)| user)));
    Ok(users.collect::<Result<Vec<_>, String>>()?.into_iter().flatten().collect())
}

/// What the store shows and will show, the round under way, and who is to be forgotten since which epoch.
type Marks = (Applied, Applied, Option<(u64, Positions)>, Vec<(UserId, u64)>);

fn marks(body: &[u8]) -> Result<Marks, String> {
    postcard::from_bytes(body).map_err(unreadable)
}

fn unreadable(error: postcard::Error) -> String {
    format!("the snapshot's {UID} cannot be read: {error}")
}

/// Whom a writer tells.
pub struct Hooks {
    /// After each batch that brought the answers further.
    pub applied: Box<dyn Fn(&Applied) + Send>,
    /// The store lost what it had, for the nth time since the writer began: everything must be told again, from an epoch that
    /// tells the first key groups up to one whose [`Completed::retold`] is n. Until that is written, and what is older is gone, the
    /// mark says that the store is rebuilding.
    pub lost: Box<dyn Fn(u64) + Send>,
}

/// What a writer did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub epochs: u64,
    /// The accounts of all epochs, summed.
    pub account: Account,
    /// Keys written, each as often as it was.
    pub writes: u64,
    /// Batches the store did not take.
    pub errors: u64,
    /// Writes the store had something newer for.
    pub refused: u64,
    /// How often the store had lost what it had shown.
    pub lost: u64,
    /// Rows left out because an id has no known name.
    pub skipped: u64,
    /// Dirty keys given up at the end, with a store that did not come back.
    pub unwritten: usize,
    /// How far the answers have come.
    pub applied: Applied,
}

/// The running thread.
pub struct Writer {
    thread: JoinHandle<Stats>,
    /// Told by `close`: a full writer does not look at the channel, so it cannot see there that the sender is gone.
    closing: Arc<AtomicBool>,
}

impl Writer {
    /// Starts the thread. It ends when the sender of `rx` is dropped and everything is written (or given up, when the store stays away).
    pub fn spawn(
        store: Box<dyn Store>,
        encoder: Encoder,
        params: Params,
        rx: Receiver<Completed>,
        changes: Box<dyn Feed>,
        dead: DeadLetters,
        hooks: Hooks,
    ) -> std::io::Result<Self> {
        let closing = Arc::new(AtomicBool::new(false));
        let told = closing.clone();
        let run = move || {
            let writing = WriteBehind::new(store, encoder, params, changes, dead, hooks);
            Loop { writing, rx, closing: told, give_up: None }.run()
        };
        let thread = std::thread::Builder::new().name("writer".to_string()).spawn(run)?;
        Ok(Self { thread, closing })
    }

    /// From now on a store that is away holds nobody up: what still comes is taken, tried a few more times, then given up.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Waits for the end. Drop the sender of epochs first.
    pub fn join(self) -> Stats {
        self.close();
        self.thread.join().expect("the writer does not panic")
    }
}

/// What drives the writing on a thread: takes epochs, writes, waits while the store is away.
struct Loop {
    writing: WriteBehind,
    rx: Receiver<Completed>,
    closing: Arc<AtomicBool>,
    /// Until when the store is tried after the last epoch, however often it comes and goes; `None`: it was not away since.
    give_up: Option<Instant>,
}

/// What was merged and is not yet written. It knows no thread and waits for nobody: whoever has it merges epochs and lets it write.
pub struct WriteBehind {
    store: Box<dyn Store>,
    encoder: Encoder,
    params: Params,
    changes: Box<dyn Feed>,
    dead: DeadLetters,
    hooks: Hooks,
    dirty: Dirty,
    /// Users whose names go, and the epoch that forgot them.
    forgotten: BTreeMap<UserId, u64>,
    /// Deletions of what is left of those whose names went; they spell them, so they are not dirty keys.
    farewells: Vec<Write>,
    accepted: Accepted,
    /// What the store shows.
    shown: Applied,
    /// What it will show when nothing is dirty.
    next: Applied,
    /// The epoch in which the round of turns under way began, and the positions then.
    round: Option<(u64, Positions)>,
    /// The first epoch that no run before has written; 0 until one was merged.
    since: u64,
    rebuild: Rebuild,
    pause: Duration,
    /// Why the last batch was not taken.
    away: Option<Class>,
    /// Whether these failed the last time: each failure is logged once.
    feed_fails: bool,
    letters_fail: bool,
    model_fails: bool,
    tower_fails: bool,
    batch: Vec<Write>,
    stats: Stats,
    meters: Meters,
}

/// The sorts of [`StoreError`], for telling a change of state.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Retry,
    Refused,
}

impl Loop {
    fn run(mut self) -> Stats {
        let mut open = self.take_epochs();
        while open || self.writing.owes() {
            match self.writing.write_some() {
                Ok(()) => {
                    self.writing.is_back();
                    open = self.take_epochs();
                }
                Err(error) => {
                    let pause = self.writing.is_away(&error);
                    if open {
                        open = self.take_epochs_for(pause);
                    } else if !self.tries_again(pause) {
                        break;
                    }
                }
            }
        }
        let late = self.rx.clone();
        late.iter().for_each(|epoch| self.writing.merge(epoch));
        self.writing.finish()
    }

    /// Takes the epochs that are there; waits for one when nothing is left to write. `false`: there will be none.
    fn take_epochs(&mut self) -> bool {
        if !self.writing.behind() {
            let Ok(first) = self.rx.recv() else { return false };
            self.writing.merge(first);
        }
        // Those that are there now: what arrives meanwhile must not put the writing off.
        for _ in 0..self.rx.len() {
            if !self.writing.has_room() {
                break;
            }
            let Ok(epoch) = self.rx.try_recv() else { break };
            self.writing.merge(epoch);
        }
        true
    }

    /// Waits, when there are no more epochs. `false`: the store was away for too long.
    fn tries_again(&mut self, pause: Duration) -> bool {
        let until = *self.give_up.get_or_insert_with(|| Instant::now() + LAST_TRIES);
        let left = until.saturating_duration_since(Instant::now());
        std::thread::sleep(pause.min(left));
        !left.is_zero()
    }

    /// Takes epochs while the store is away. `false`: there will be none.
    fn take_epochs_for(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        while self.writing.has_room() {
            match self.rx.recv_deadline(until) {
                Ok(epoch) => self.writing.merge(epoch),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        !self.closing.load(Ordering::Relaxed)
    }
}

impl WriteBehind {
    /// Begins with what an earlier run had left to do.
    pub fn new(
        store: Box<dyn Store>,
        encoder: Encoder,
        mut params: Params,
        changes: Box<dyn Feed>,
        dead: DeadLetters,
        hooks: Hooks,
    ) -> Self {
        // whether a loss was made good is asked of the store: who asked for it to be made good is gone
        let of = |applied: &Applied| Applied { generation: params.generation, rebuilding: false, ..applied.clone() };
        let (shown, next) = (of(&params.left.shown), of(&params.left.next));
        let mut dirty = Dirty::default();
        std::mem::take(&mut params.left.dirty).into_iter().for_each(|(change, epoch)| dirty.merge(change, epoch));
        Self {
            store,
            encoder,
            changes,
            dead,
            hooks,
            dirty,
            forgotten: params.left.forgotten.iter().copied().collect(),
            farewells: Vec::new(),
            accepted: Accepted::default(),
            shown,
            next,
            round: params.left.round.clone(),
            since: 0,
            rebuild: Rebuild::default(),
            pause: FIRST_PAUSE,
            away: None,
            feed_fails: false,
            letters_fail: false,
            model_fails: false,
            tower_fails: false,
            batch: Vec::new(),
            stats: Stats::default(),
            meters: Meters::new(),
            params,
        }
    }

    /// Whether another epoch may be merged.
    pub fn has_room(&self) -> bool {
        self.dirty.len() < self.params.max_dirty_keys
    }

    /// Whether there is something to write, to show, or to sweep.
    pub fn behind(&self) -> bool {
        self.owes() || self.rebuild.is_due()
    }

    /// Whether there is something to write, or to show. What is to be swept the next start sweeps, which finds `rebuilding`.
    pub fn owes(&self) -> bool {
        self.dirty.len() > 0 || self.shown != self.next || !self.farewells.is_empty()
    }

    /// Takes an epoch newer than all before; what it changed replaces what was not yet written.
    pub fn merge(&mut self, completed: Completed) {
        let Completed { binding, changes, accepted_ms, save, retold } = completed;
        self.advance(&binding);
        if self.since == 0 {
            self.since = binding.epoch.number.max(self.params.repeats_until.saturating_add(1));
        }
        accepted_ms.into_iter().for_each(|at| self.accepted.push(at));
        self.bury(binding.epoch.number, &changes);
        self.forget(binding.epoch.number, &changes);
        self.rebuild.hear(&binding.epoch, &changes);
        for change in changes {
            if let Change::Account(account) = &change {
                self.stats.account.add(account);
                self.meters.account(account);
            }
            if let Change::Arms(arms) = &change {
                self.meters.arms(arms);
                self.tell_failures(arms);
            }
            self.dirty.merge(change, binding.epoch);
        }
        if retold == Some(self.stats.lost) {
            self.rebuild.told().into_iter().for_each(|all| self.dirty.merge(all, binding.epoch));
        }
        self.stats.epochs += 1;
        self.meters.dirty.set(self.dirty.len() as f64);
        if let Some(save) = save {
            save.0(self.left());
        }
    }

    /// Says once why a model failed, and once why a tower did.
    fn tell_failures(&mut self, arms: &Arms) {
        if let Some(why) = arms.failed.as_ref().filter(|_| !std::mem::replace(&mut self.model_fails, true)) {
            tracing::warn!(why, "the model failed, and the blend stood in; further failures are counted and not repeated here");
        }
        if let Some(why) = arms.towers.1.as_ref().filter(|_| !std::mem::replace(&mut self.tower_fails, true)) {
            tracing::warn!(why, "a tower failed, and other sources stood in; further failures are counted and not repeated here");
        }
    }

    /// What is not yet written, in the form of [`Left::of`].
    fn left(&self) -> Part {
        let entry = |tag: u8, value: postcard::Result<Vec<u8>>| {
            let mut payload = vec![tag];
            payload.extend(value.expect("plain data has a form in bytes"));
            Saved { group: 0, shared: false, payload }
        };
        let forgotten: Vec<(UserId, u64)> = self.forgotten.iter().map(|(user, epoch)| (*user, *epoch)).collect();
        let marks = entry(0, postcard::to_stdvec(&(&self.shown, &self.next, &self.round, forgotten)));
        let dirty = self.dirty.all().map(|dated| entry(1, postcard::to_stdvec(&dated)));
        Part { uid: UID.to_string(), entries: std::iter::once(marks).chain(dirty).collect() }
    }

    fn advance(&mut self, binding: &Binding) {
        let (next, epoch) = (&mut self.next, &binding.epoch);
        (next.epoch, next.clock_ms, next.watermark_ms) = (epoch.number, epoch.clock_ms, epoch.watermark_ms);
        next.serving.clone_from(&binding.serving);
        next.offsets.extend(binding.offsets.iter().map(|(place, (_, to))| (*place, *to)));
        if epoch.turn.from == 0 && epoch.turn.to > 0 {
            self.round = Some((epoch.number, next.offsets.clone()));
        }
        // what has its turn first was told first: everything of the round's first epoch is in it, of later ones not
        if epoch.tick()
            && let Some((number, offsets)) = self.round.take()
        {
            (next.tick_epoch, next.tick_offsets) = (number, offsets);
        }
    }

    fn bury(&mut self, epoch: u64, changes: &[Change]) {
        let letters = changes.iter().filter_map(|change| if let Change::Dead(dead) = change { Some(dead) } else { None });
        let written = self.dead.write(epoch, letters);
        warn_once(&mut self.letters_fail, "dead letters could not be written", written);
    }

    /// Notes whose names are to go; a user of whom there is something new in this epoch or a later one keeps theirs.
    fn forget(&mut self, epoch: u64, changes: &[Change]) {
        let gone = changes.iter().filter_map(|c| if let Change::Forgotten(user) = c { Some((*user, epoch)) } else { None });
        self.forgotten.extend(gone);
        if !self.forgotten.is_empty() {
            let news: BTreeSet<UserId> = changes.iter().filter_map(news_of).collect();
            self.forgotten.retain(|user, _| !news.contains(user));
        }
    }

    /// Writes all that is urgent, then a little of what settles. On an error the same is written the next time.
    pub fn write_some(&mut self) -> Result<(), StoreError> {
        while self.dirty.urgent() > BATCH {
            let urgent = self.dirty.take_urgent(BATCH);
            self.write(urgent)?;
        }
        let mut taken = self.dirty.take_urgent(BATCH);
        taken.extend(self.dirty.take_settling(SETTLED));
        if !taken.is_empty() || self.behind() {
            self.write(taken)?;
        }
        self.sweep_some()
    }

    /// Lets the store look for some of what nobody told again.
    fn sweep_some(&mut self) -> Result<(), StoreError> {
        if self.dirty.len() == 0 {
            self.rebuild.written();
        }
        let Some(since) = self.rebuild.sweeps() else { return Ok(()) };
        if self.store.sweep(since, self.encoder.tombstone_ttl())? == Swept::All {
            self.rebuild = Rebuild::Swept;
        }
        Ok(())
    }

    /// Writes what was taken, then shows how far that brings the answers.
    fn write(&mut self, taken: Vec<Dated>) -> Result<(), StoreError> {
        for (change, epoch) in &taken {
            self.encoder.writes(change, epoch, self.params.generation, &mut self.batch);
        }
        self.batch.extend(self.farewells.iter().cloned());
        let mark = self.mark();
        let first = self.farewells.is_empty() && taken.iter().all(|(_, epoch)| epoch.number > self.params.repeats_until);
        let (shown, rebuilding) = (&self.shown, self.next.rebuilding);
        let known = Known { epoch: shown.epoch, tick_epoch: shown.tick_epoch, rebuilding, since: self.since, first };
        let written = self.store.write(&self.batch, &mark, known);
        let writes = self.batch.len() as u64;
        self.encoder.reuse(&mut self.batch);
        let found = match written {
            Ok(found) => found,
            Err(error) => {
                self.dirty.put_back(taken);
                return Err(error);
            }
        };
        self.farewells.clear();
        self.count_writes(writes, found.refused);
        self.feed(taken);
        let lost = self.has_lost(&found, &mark);
        self.next.rebuilding = mark.rebuilding;
        if matches!(self.rebuild, Rebuild::Swept) {
            self.rebuild = Rebuild::Whole;
        }
        if mark != self.shown {
            self.show(mark);
        }
        if lost {
            self.mourn(&found);
        }
        Ok(())
    }

    /// Whether the store no longer has all it showed, or is still without what another run of the engine missed. (A mark ahead of
    /// ours is another run's, whose writes we have yet to repeat.)
    fn has_lost(&self, found: &Found, mark: &Applied) -> bool {
        let went_back = found.epoch < self.shown.epoch || found.tick_epoch < self.shown.tick_epoch;
        let inherited = found.rebuilding && !self.next.rebuilding && found.epoch <= mark.epoch;
        went_back || inherited || found.dropped
    }

    fn mourn(&mut self, found: &Found) {
        self.stats.lost += 1;
        self.meters.lost.increment(1);
        self.next.rebuilding = true;
        self.rebuild = Rebuild::Asked;
        let (found, loss) = (found.epoch, self.stats.lost);
        tracing::error!(
            found,
            loss,
            "the store lost answers it had shown; everything is asked for again, `meta` says rebuilding"
        );
        (self.hooks.lost)(loss);
    }

    /// How far the answers are when everything is written that is not dirty.
    fn mark(&self) -> Applied {
        let (shown, next) = (&self.shown, &self.next);
        let epoch = if self.dirty.urgent() == 0 { next } else { shown };
        let all = self.dirty.len() == 0;
        let tick = if all { next } else { shown };
        Applied {
            tick_epoch: tick.tick_epoch,
            tick_offsets: tick.tick_offsets.clone(),
            rebuilding: next.rebuilding && !matches!(self.rebuild, Rebuild::Swept),
            ..epoch.clone()
        }
    }

    fn count_writes(&mut self, writes: u64, refused: u64) {
        self.stats.writes += writes;
        self.stats.refused += refused;
        self.meters.fenced.increment(refused);
        self.meters.writes.increment(writes);
        self.meters.dirty.set(self.dirty.len() as f64);
    }

    /// Gives the slates that are now in the store to the change feed, epoch by epoch.
    fn feed(&mut self, written: Vec<Dated>) {
        let mut epochs = BTreeMap::<u64, (Epoch, Vec<Change>)>::new();
        for (change, epoch) in written.into_iter().filter(|(change, _)| matches!(change, Change::Slate { .. })) {
            epochs.entry(epoch.number).or_insert_with(|| (epoch, Vec::new())).1.push(change);
        }
        for (epoch, slates) in epochs.values() {
            let told = self.changes.slates(epoch, slates);
            warn_once(&mut self.feed_fails, "changes of slates could not be given out", told);
        }
    }

    /// The store shows a newer mark: says so, measures, and forgets the names of who is gone.
    fn show(&mut self, mark: Applied) {
        self.shown = mark;
        (self.hooks.applied)(&self.shown);
        self.meters.shown(&self.shown, &mut self.accepted);
        let skipped = self.encoder.skipped();
        self.meters.skipped.increment(skipped - std::mem::replace(&mut self.stats.skipped, skipped));
        let shown = self.shown.epoch;
        let due: Vec<UserId> =
            self.forgotten.extract_if(.., |_, epoch| shown >= *epoch + READ_AHEAD).map(|(user, _)| user).collect();
        due.into_iter().for_each(|user| self.let_go(user));
    }

    /// A name that nothing needs any more. What it still stands on in the store is written with the next batch.
    fn let_go(&mut self, user: UserId) {
        let Applied { epoch: number, clock_ms, watermark_ms, .. } = self.shown;
        let now = Epoch { number, clock_ms, watermark_ms, ..Epoch::default() };
        self.encoder.writes(&Change::Forgotten(user), &now, self.params.generation, &mut self.farewells);
        let names = self.encoder.names();
        if let Some(name) = names.users.get(user.0) {
            let told = self.changes.gone(&name);
            warn_once(&mut self.feed_fails, "changes of slates could not be given out", told);
        }
        names.forget(user);
    }

    /// Notes that the store did not take a batch; yields how long to wait.
    fn is_away(&mut self, error: &StoreError) -> Duration {
        self.stats.errors += 1;
        let (class, pause) = match error {
            StoreError::Retry(_) => (Class::Retry, self.pause.min(self.params.retry_max)),
            StoreError::Refused(_) => (Class::Refused, self.params.retry_max),
        };
        self.meters.error(class);
        self.pause = (self.pause * 2).min(self.params.retry_max);
        if self.away.replace(class) != Some(class) {
            let dirty_keys = self.dirty.len();
            match class {
                Class::Retry => tracing::warn!(%error, dirty_keys, "the store is away; answers are kept and tried again"),
                Class::Refused => tracing::error!(%error, dirty_keys, "the store refuses the answers; somebody must look"),
            }
        }
        pause
    }

    fn is_back(&mut self) {
        self.pause = FIRST_PAUSE;
        if self.dirty.urgent() == 0 && self.away.take().is_some() {
            tracing::info!(epoch = self.shown.epoch, "the store is back and has every answer");
        }
    }

    /// Gives up what is not written.
    pub fn finish(mut self) -> Stats {
        self.stats.unwritten = self.dirty.len();
        if self.owes() {
            let (dirty_keys, epoch) = (self.dirty.len(), self.next.epoch);
            tracing::error!(dirty_keys, epoch, "the store did not come back: these answers were not written");
        }
        self.stats.skipped = self.encoder.skipped();
        self.stats.applied = self.shown;
        self.stats
    }
}

fn warn_once(fails: &mut bool, what: &str, done: Result<(), Undelivered>) {
    let failed = done.is_err();
    match done {
        Err(error) if !*fails => tracing::warn!(%error, "{what}; further failures are not repeated here"),
        _ => {}
    }
    *fails = failed;
}

/// The user of whom this change says something other than that there is nothing.
fn news_of(change: &Change) -> Option<UserId> {
    match change {
        Change::Slate { user, slate: Some(_), .. }
        | Change::Signals(SignalKey::User(user), Some(_))
        | Change::Interests(user, Some(_))
        | Change::Profile(user, Some(_)) => Some(*user),
        Change::AllSeen(user, items) if !items.is_empty() => Some(*user),
        Change::Seen(user, items) if items.iter().any(|(_, at)| at.is_some()) => Some(*user),
        _ => None,
    }
}

/// What the writer counts. Made when the thread starts: a recorder must be installed by then.
struct Meters {
    freshness: Histogram,
    dirty: Gauge,
    epoch: Gauge,
    clock_ms: Gauge,
    writes: Counter,
    skipped: Counter,
    fenced: Counter,
    lost: Counter,
    retry: Counter,
    refused: Counter,
    refreshes: Counter,
    coalesced: Counter,
    outcomes: [Counter; 5],
    tower_failures: Counter,
    by_model: [Counter; 2],
    shadow: [Counter; 11],
    arms: [[Counter; 3]; 2],
}

impl Meters {
    fn new() -> Self {
        Self {
            freshness: histogram!("overdrive_freshness_seconds"),
            dirty: gauge!("overdrive_dirty_keys"),
            epoch: gauge!("overdrive_epoch"),
            clock_ms: gauge!("overdrive_clock_ms"),
            writes: counter!("overdrive_store_writes_total"),
            skipped: counter!("overdrive_rows_skipped_total"),
            fenced: counter!("overdrive_store_fenced_total"),
            lost: counter!("overdrive_store_lost_total"),
            retry: counter!("overdrive_store_errors_total", "class" => "retry"),
            refused: counter!("overdrive_store_errors_total", "class" => "refused"),
            refreshes: counter!("overdrive_refreshes_total"),
            coalesced: counter!("overdrive_refreshes_coalesced_total"),
            outcomes: ["applied", "duplicate", "late", "filtered", "dead"]
                .map(|outcome| counter!("overdrive_events_total", "outcome" => outcome)),
            arms: ["model", "blend"].map(|arm| {
                ["impression", "click", "taken"]
                    .map(|event| counter!("overdrive_arm_events_total", "arm" => arm, "event" => event))
            }),
            shadow: Compared::default().counts().map(|(count, _)| counter!("overdrive_shadow_total", "count" => count)),
            tower_failures: counter!("overdrive_tower_failures_total"),
            by_model: ["scored", "unscored"].map(|outcome| counter!("overdrive_model_rows_total", "outcome" => outcome)),
        }
    }

    fn account(&self, account: &Account) {
        let Account { applied, duplicate, late, filtered, dead, .. } = *account;
        for (counter, n) in self.outcomes.iter().zip([applied, duplicate, late, filtered, dead]) {
            counter.increment(n);
        }
        self.refreshes.increment(account.refreshed);
        self.coalesced.increment(account.coalesced);
    }

    fn arms(&self, arms: &Arms) {
        for (counters, acts) in self.arms.iter().zip([arms.by_model, arms.by_blend]) {
            let counts = [acts.impressions, acts.clicks, acts.taken];
            counters.iter().zip(counts).for_each(|(counter, n)| counter.increment(n));
        }
        self.shadow.iter().zip(arms.shadow.counts()).for_each(|(counter, (_, n))| counter.increment(n));
        self.tower_failures.increment(arms.towers.0);
        for (counter, n) in self.by_model.iter().zip([arms.scored, arms.unscored]) {
            counter.increment(n);
        }
    }

    fn error(&self, class: Class) {
        match class {
            Class::Retry => self.retry.increment(1),
            Class::Refused => self.refused.increment(1),
        }
    }

    /// The answers to these events can be read from now on.
    fn shown(&self, applied: &Applied, accepted: &mut Accepted) {
        self.epoch.set(applied.epoch as f64);
        self.clock_ms.set(applied.clock_ms as f64);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        for (at, events) in accepted.drain() {
            self.freshness.record_many((now - at as f64 / 1000.0).max(0.0), events);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    fn every_event_has_a_freshness_and_every_outcome_a_count() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let meters = metrics::with_local_recorder(&recorder, Meters::new);
        let account =
            Account { consumed: 15, applied: 1, duplicate: 2, late: 3, filtered: 4, dead: 5, refreshed: 6, ..Default::default() };
        meters.account(&account);
        meters.error(Class::Refused);
        let mut accepted = Accepted::default();
        [1_000, 1_000, 2_000].into_iter().for_each(|at| accepted.push(at));
        meters.shown(&Applied { epoch: 9, clock_ms: 8, ..Default::default() }, &mut accepted);
        let text = recorder.handle().render();
        let expected = [
            "overdrive_freshness_seconds_count 3",
            "overdrive_events_total{outcome=\"applied\"} 1",
            "overdrive_events_total{outcome=\"duplicate\"} 2",
            "overdrive_events_total{outcome=\"late\"} 3",
            "overdrive_events_total{outcome=\"filtered\"} 4",
            "overdrive_events_total{outcome=\"dead\"} 5",
            "overdrive_refreshes_total 6",
            "overdrive_store_errors_total{class=\"refused\"} 1",
            "overdrive_epoch 9",
            "overdrive_clock_ms 8",
        ];
        for line in expected {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
    }
}
