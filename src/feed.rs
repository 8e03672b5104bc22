//! Rows and times in, with credit: reads the source, decodes, and cuts what was read into epochs.
//!
//! The facts that must stay true: an epoch's binding and clock are decided here, once, before any worker sees a row of it; epochs that
//! were bound before a restart are read again as they were bound; clocks never go back; and no more epochs are under way than there
//! is credit for, so that what cannot be worked off waits in the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::align::{Aligner, Arrived};
use crate::codec::Decoder;
use crate::config::{ClockKind, Engine};
use crate::model::epoch::BEGIN_ANEW;
use crate::model::ids::KEY_GROUPS;
use crate::model::time::{Millis, now_ms};
use crate::model::{Binding, Dead, Epoch, Input, Origin, Pace, Positions, Role, Row, Serving, Turn};
use crate::sources::{Record, Source, SourceError, file};

mod models;

pub use models::Models;

/// Epochs that may be under way at once. The feed takes, whoever completes an epoch gives back.
#[derive(Clone)]
pub struct Credit(Arc<(Mutex<usize>, Condvar)>);

impl Credit {
    /// Credit for `epochs` epochs.
    pub fn new(epochs: usize) -> Self {
        Self(Arc::new((Mutex::new(epochs), Condvar::new())))
    }

    /// Takes credit for one epoch; `false` when none came back in time.
    fn take(&self, wait: Duration) -> bool {
        let (left, returned) = &*self.0;
        let guard = left.lock().expect("no panic under the lock");
        let (mut left, _) = returned.wait_timeout_while(guard, wait, |left| *left == 0).expect("no panic under the lock");
        let some = *left > 0;
        *left -= usize::from(some);
        some
    }

    /// Gives credit for one epoch back.
    pub fn give(&self) {
        let (left, returned) = &*self.0;
        *left.lock().expect("no panic under the lock") += 1;
        returned.notify_one();
    }
}

/// One epoch as it was cut.
#[derive(Clone, Debug)]
pub struct Cut {
    pub binding: Binding,
    pub rows: Vec<Row>,
    /// When the log accepted each event; not those of a backfill, which were accepted long ago.
    pub accepted_ms: Vec<i64>,
    /// With this epoch everything was said once more that the store had lost.
    pub retold: Option<u64>,
}

/// When epochs close and what time it is in them. Pure: the time of day is handed in.
#[derive(Clone, Debug)]
pub struct Cutter {
    clock_kind: ClockKind,
    tick: Millis,
    lateness: Millis,
    full_rows: usize,
    /// Refreshes per event while the input is behind.
    busy_refreshes: f64,
    next: u64,
    clock: Millis,
    pace: Pace,
    serving: Serving,
}

/// Full epochs of records that may wait for the slowest partition under an event clock: more than a client prefetches of the others.
const ALIGNED_EPOCHS: usize = 512;

/// Full epochs after which there is a tick, however little time has passed: a history read at full speed.
const TICK_EPOCHS: usize = 20;

/// Full epochs in a row after which the input counts as behind.
const BEHIND: u32 = 4;

impl Cutter {
    /// The next epoch is `first`.
    pub fn new(engine: &Engine, lateness: Millis, busy_refreshes: f64, first: u64) -> Self {
        Self {
            clock_kind: engine.clock,
            tick: engine.tick.as_millis() as Millis,
            lateness,
            full_rows: engine.epoch_rows,
            busy_refreshes,
            next: first,
            clock: 0,
            pace: Pace::default(),
            serving: Serving::default(),
        }
    }

    /// Goes on after an epoch that was bound by an earlier run.
    pub fn follow(&mut self, binding: &Binding) {
        (self.next, self.clock, self.pace) = (binding.epoch.number + 1, binding.epoch.clock_ms, binding.pace);
        self.serving = binding.serving.clone();
    }

    /// How the input runs after the last epoch.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// What ranks after the last epoch.
    pub fn serving(&self) -> &Serving {
        &self.serving
    }

    /// What ranks from the next epoch on.
    pub fn serve(&mut self, serving: Serving) {
        self.serving = serving;
    }

    /// The epoch these rows make.
    pub fn close(&mut self, now: Millis, rows: &[Row]) -> Epoch {
        let said = match self.clock_kind {
            ClockKind::Wall => now,
            ClockKind::Event => rows.iter().filter_map(event_time).max().unwrap_or(self.clock),
        };
        let clock_ms = self.clock.max(said);
        // a quiet stream under an event clock has no time to tick by: its empty epochs settle what the last ones changed
        let settles = rows.is_empty() && self.pace.unticked > 0;
        let whole = settles || self.pace.unticked > (TICK_EPOCHS * self.full_rows) as u64;
        let turn = if whole { Turn::ALL } else { self.turn(clock_ms) };
        let ticks = turn.to == Turn::ALL.to;
        self.pace.turn = if ticks { 0 } else { turn.to };
        self.pace.unticked = if ticks { 0 } else { self.pace.unticked + rows.len() as u64 };
        self.clock = clock_ms;
        self.pace.full = if rows.len() >= self.full_rows { self.pace.full + 1 } else { 0 };
        let behind = self.pace.full >= BEHIND;
        let refreshes = behind.then_some((rows.len() as f64 * self.busy_refreshes) as u32);
        let (number, model) = (self.next, self.serving.id());
        self.next += 1;
        Epoch { number, clock_ms, watermark_ms: clock_ms - self.lateness, turn, refreshes, save: false, retell: None, model }
    }

    /// As many key groups of the round under way as the clock has advanced by; all of them in the time of a whole round.
    fn turn(&self, clock_ms: Millis) -> Turn {
        let groups = Millis::from(Turn::ALL.to);
        let passed = (clock_ms - self.clock).min(self.tick) * groups;
        let passed = (self.clock.rem_euclid(self.tick) * groups % self.tick + passed) / self.tick;
        if passed >= groups {
            return Turn::ALL;
        }
        let from = self.pace.turn;
        Turn { from, to: (from + passed as u16).min(Turn::ALL.to) }
    }
}

fn event_time(row: &Row) -> Option<Millis> {
    match &row.input {
        Ok(Input::Event(event)) => Some(event.at),
        _ => None,
    }
}

/// The topic's name of each role, for dead letters.
pub type Topics = [Arc<str>; Role::ALL.len()];

/// What others ask of the feed.
#[derive(Debug, Default)]
pub struct Wishes {
    /// No more is to be read. The last epoch saves.
    pub stop: AtomicBool,
    /// The store has lost what it had, for the nth time: everything is to be said once more. 0: it has not.
    pub retell: AtomicU64,
}

/// Reads, decodes, cuts.
pub struct Feed {
    pub source: Box<dyn Source>,
    pub decoder: Decoder,
    pub cutter: Cutter,
    pub topics: Topics,
    pub engine: Engine,
    pub credit: Credit,
    /// Epochs an earlier run has bound, to be read again.
    pub bound: VecDeque<Binding>,
    /// Nothing is read beyond them.
    pub ends: bool,
    /// How often operators hand over what they keep, and whether what they handed over is still being written; `None`: never.
    pub saves: Option<(Duration, Arc<AtomicBool>)>,
    pub wishes: Arc<Wishes>,
    /// What may rank.
    pub models: Models,
}

/// Key groups said once more in one epoch.
const RETOLD: u16 = 16;

/// What the feed remembers from epoch to epoch.
struct Course {
    saved: Instant,
    retelling: Retelling,
    /// Every partition's position at the start: bound with the first epoch, so that no partition is ever begun anew. (What is gained
    /// later is bound with the next epoch.)
    announced: Option<Positions>,
    /// Read for a bound epoch, and not part of it.
    left_over: VecDeque<Record>,
}

/// How everything is said once more that the store has lost: some key groups in each epoch, then a whole round of what settles.
#[derive(Debug, Default)]
struct Retelling {
    /// The loss that is being made good, and was; 0: none.
    loss: u64,
    left: Left,
}

/// What is left of it.
#[derive(Debug, Default, PartialEq)]
enum Left {
    #[default]
    Nothing,
    /// Key groups from this one on.
    Groups(u16),
    /// What settles: so many ends of rounds. (The round under way did not hear of all.)
    Rounds(u8),
}

impl Retelling {
    /// The key groups that are said once more in this epoch, and the loss that is made good with it.
    fn at(&mut self, epoch: &Epoch, wished: u64) -> (Option<(u16, u16)>, Option<u64>) {
        if wished > self.loss {
            (self.loss, self.left) = (wished, Left::Groups(0));
        }
        let all = KEY_GROUPS as u16;
        match self.left {
            Left::Nothing => (None, None),
            Left::Groups(from) => {
                let to = (from + RETOLD).min(all);
                self.left = if to < all { Left::Groups(to) } else { Left::Rounds(2) };
                (Some((from, to)), None)
            }
            Left::Rounds(left) => {
                let left = if epoch.turn == Turn::ALL { 0 } else { left - u8::from(epoch.tick()) };
                self.left = if left == 0 { Left::Nothing } else { Left::Rounds(left) };
                (None, (left == 0).then_some(self.loss))
            }
        }
    }
}

impl Feed {
    /// Hands epochs to `deliver` until asked to stop, `deliver` says that nobody takes them, or the source fails for good. A source
    /// that ended is followed by empty epochs, so that windows go on expiring.
    pub fn run(mut self, mut deliver: impl FnMut(Cut) -> bool) -> Result<(), SourceError> {
        let mut retries = Retries::default();
        let announced = Some(self.source.positions());
        let mut course = Course { saved: Instant::now(), retelling: Retelling::default(), announced, left_over: VecDeque::new() };
        if !self.replay(&mut course, &mut retries, &mut deliver)? || self.ends {
            return Ok(());
        }
        let mut aligner = match self.engine.clock {
            ClockKind::Event => Some(Aligner::new(&self.source.positions(), ALIGNED_EPOCHS * self.engine.epoch_rows)),
            ClockKind::Wall => None,
        };
        loop {
            let (mut arrived, opened) = match &mut aligner {
                None => self.gather(&mut course, &mut retries)?,
                Some(aligner) => self.gather_aligned(aligner, &mut course, &mut retries)?,
            };
            if !self.wait_for_credit() {
                deliver(self.cut(Vec::new(), &mut course, true)); // what was read and not cut is read again by the next start
                return Ok(());
            }
            if aligner.is_none() && course.left_over.is_empty() {
                self.top_up(&mut arrived, opened);
            }
            let last = self.wishes.stop.load(Ordering::Acquire);
            if !deliver(self.cut(arrived, &mut course, last)) || last {
                return Ok(());
            }
        }
    }

    /// Reads the epochs again that were bound before, as they were. `false`: asked to stop, or nobody takes them.
    fn replay(
        &mut self,
        course: &mut Course,
        retries: &mut Retries,
        deliver: &mut impl FnMut(Cut) -> bool,
    ) -> Result<bool, SourceError> {
        let mut read: BTreeMap<(Role, u32), VecDeque<Record>> = BTreeMap::new();
        while let Some(binding) = self.bound.pop_front() {
            if let Some(announced) = &mut course.announced {
                announced.retain(|place, _| !binding.offsets.contains_key(place));
            }
            while !self.holds(&binding)? {
                let mut records = Vec::new();
                retries.settle(
                    self.source.poll(self.engine.epoch_rows, self.engine.heartbeat, &mut records),
                    self.engine.heartbeat,
                )?;
                records.into_iter().for_each(|record| read.entry((record.role, record.partition)).or_default().push_back(record));
                if self.wishes.stop.load(Ordering::Acquire) {
                    return Ok(false);
                }
            }
            if !self.wait_for_credit() {
                return Ok(false);
            }
            let mut records = Vec::new();
            for (place, (_, to)) in &binding.offsets {
                let of = read.entry(*place).or_default();
                records.extend(std::iter::from_fn(|| of.pop_front_if(|record| record.offset < *to)));
            }
            let mut rows = self.decode_all(records).into_iter().map(|arrived| arrived.row).collect();
            self.models.repeat(&binding, &mut rows, &self.topics);
            self.cutter.follow(&binding);
            if !deliver(Cut { binding, rows, accepted_ms: Vec::new(), retold: None }) {
                return Ok(false);
            }
        }
        course.left_over = read.into_values().flatten().collect();
        Ok(true)
    }

    /// Whether everything of the epoch was read. What cannot be read any more stops the start.
    fn holds(&self, binding: &Binding) -> Result<bool, SourceError> {
        let (positions, ended) = (self.source.positions(), self.source.ended());
        for ((role, partition), (_, to)) in &binding.offsets {
            match positions.get(&(*role, *partition)) {
                Some(next) if next >= to => {}
                Some(_) if !ended => return Ok(false),
                found => {
                    return Err(SourceError::Stop(format!(
                        "epoch {} was bound to {}/{partition} up to offset {to}, but the source has {}; give it the same input as \
                         before ([source], [kafka]), or {BEGIN_ANEW}",
                        binding.epoch.number,
                        role.name(),
                        found.map_or("no such partition".to_string(), |next| format!("nothing beyond {next}")),
                    )));
                }
            }
        }
        Ok(true)
    }

    /// `false`: asked to stop while there was none.
    fn wait_for_credit(&self) -> bool {
        while !self.credit.take(Duration::from_millis(100)) {
            if self.wishes.stop.load(Ordering::Acquire) {
                return false;
            }
        }
        true
    }

    fn poll(
        &mut self,
        most: usize,
        wait: Duration,
        course: &mut Course,
        retries: &mut Retries,
    ) -> Result<Vec<Record>, SourceError> {
        if !course.left_over.is_empty() {
            let most = most.min(course.left_over.len());
            return Ok(course.left_over.drain(..most).collect());
        }
        let mut records = Vec::new();
        retries.settle(self.source.poll(most, wait, &mut records), wait)?;
        Ok(records)
    }

    /// Waits for the first record up to the heartbeat, then the epoch's interval for more, unless it is full.
    fn gather(&mut self, course: &mut Course, retries: &mut Retries) -> Result<(Vec<Arrived>, Instant), SourceError> {
        let (rows, interval, patience) = (self.engine.epoch_rows, self.engine.epoch_interval, self.engine.heartbeat);
        let mut records = self.poll(rows, patience, course, retries)?;
        let opened = Instant::now();
        if !records.is_empty() && records.len() < rows {
            std::thread::sleep(interval); // one wait and one more look cost less than a look for each record
            records.extend(self.poll(rows - records.len(), Duration::ZERO, course, retries)?);
        }
        Ok((self.decode_all(records), opened))
    }

    /// Reads until an epoch can be made of the earliest records, or the source is quiet.
    fn gather_aligned(
        &mut self,
        aligner: &mut Aligner,
        course: &mut Course,
        retries: &mut Retries,
    ) -> Result<(Vec<Arrived>, Instant), SourceError> {
        loop {
            // a shorter silence may be a broker that is busy fetching; a source that was quiet is only looked at
            let known = aligner.quiet && !aligner.is_empty();
            let patience = if known { Duration::ZERO } else { self.engine.heartbeat };
            let records = self.poll(self.engine.epoch_rows, patience, course, retries)?;
            aligner.quiet = records.is_empty();
            self.decode_all(records).into_iter().for_each(|arrived| aligner.push(arrived));
            let taken = aligner.take(self.engine.epoch_rows);
            if aligner.quiet || !taken.is_empty() {
                return Ok((taken, Instant::now()));
            }
        }
    }

    /// What came in while waiting for credit goes along.
    fn top_up(&mut self, arrived: &mut Vec<Arrived>, opened: Instant) {
        let room = self.engine.epoch_rows.saturating_sub(arrived.len());
        if room > 0 && opened.elapsed() > self.engine.epoch_interval {
            let mut records = Vec::new();
            let _later = self.source.poll(room, Duration::ZERO, &mut records); // an error comes again at the next poll
            arrived.extend(self.decode_all(records));
        }
    }

    fn cut(&mut self, arrived: Vec<Arrived>, course: &mut Course, last: bool) -> Cut {
        let mut offsets: BTreeMap<(Role, u32), (u64, u64)> = BTreeMap::new();
        let mut accepted_ms = Vec::with_capacity(arrived.len());
        let mut rows = Vec::with_capacity(arrived.len());
        for Arrived { row, accepted_ms: accepted } in arrived {
            let Origin { role, partition, offset, .. } = row.origin;
            let (_, to) = offsets.entry((role, partition)).or_insert((offset, offset));
            *to = offset + 1;
            accepted_ms.extend(accepted);
            rows.push(row);
        }
        for (place, at) in course.announced.take().into_iter().flatten().chain(self.source.gained()) {
            offsets.entry(place).or_insert((at, at));
        }
        let (serving, refusals) = self.models.obey(self.cutter.next, &mut rows, &self.cutter.serving, &self.topics);
        self.cutter.serve(serving);
        let mut epoch = self.cutter.close(now_ms(), &rows);
        self.models.inbox.iter().for_each(|inbox| inbox.serves(&self.cutter.serving, epoch.clock_ms));
        epoch.save = self.saves(course, last);
        let (retell, retold) = course.retelling.at(&epoch, self.wishes.retell.load(Ordering::Acquire));
        epoch.retell = retell;
        let (pace, serving) = (self.cutter.pace, self.cutter.serving.clone());
        Cut { binding: Binding { epoch, offsets, pace, serving, refusals }, rows, accepted_ms, retold }
    }

    /// Whether operators hand over what they keep at this epoch: at the last, or when it is time and the snapshot before is written.
    fn saves(&self, course: &mut Course, last: bool) -> bool {
        let Some((every, under_way)) = &self.saves else { return false };
        let due = last || course.saved.elapsed() >= *every && !under_way.load(Ordering::Acquire);
        if due {
            course.saved = Instant::now();
            under_way.store(true, Ordering::Release);
        }
        due
    }

    fn decode_all(&self, records: Vec<Record>) -> Vec<Arrived> {
        let fresh = |record: &Record| record.role == Role::Events && record.partition < file::PARTITION;
        let arrive =
            |record: Record| Arrived { accepted_ms: fresh(&record).then_some(record.accepted_ms), row: self.decode(record) };
        records.into_iter().map(arrive).collect()
    }

    fn decode(&self, record: Record) -> Row {
        let origin =
            Origin { role: record.role, partition: record.partition, offset: record.offset, accepted: record.accepted_ms };
        let (key, payload) = (record.key.as_deref(), record.payload.as_deref());
        let input = self.decoder.decode(record.role, key, payload, record.accepted_ms).map_err(|reason| Dead {
            topic: self.topics[record.role as usize].clone(),
            partition: record.partition,
            offset: record.offset,
            reason,
            sample: sample(payload.unwrap_or_default()),
        });
        Row { origin, input }
    }
}

/// The first 256 bytes as text.
fn sample(payload: &[u8]) -> String {
    String::from_utf8_lossy(&payload[..payload.len().min(256)]).into_owned()
}

/// Says once that a source is away and once that it is back.
#[derive(Default)]
struct Retries {
    away: bool,
}

impl Retries {
    fn settle(&mut self, polled: Result<(), SourceError>, wait: Duration) -> Result<(), SourceError> {
        match polled {
            Ok(()) => {
                if std::mem::take(&mut self.away) {
                    tracing::info!("the source answers again");
                }
                Ok(())
            }
            Err(SourceError::Retry(reason)) => {
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!(%reason, "the source does not answer; trying again");
                }
                std::thread::sleep(wait.clamp(Duration::from_millis(1), Duration::from_millis(100)));
                Ok(())
            }
            Err(stop) => Err(stop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Event, ItemId, Kind, Op, UserId};

    fn engine(clock: ClockKind) -> Engine {
        let mut config = crate::config::Config::load(None, std::iter::empty()).expect("the defaults load");
        config.engine.clock = clock;
        config.engine.epoch_rows = 2;
        config.engine.tick = Duration::from_secs(1);
        config.engine
    }

    fn event(at: Millis) -> Row {
        let event = Event { id: 1, user: UserId(1), item: ItemId(1), kind: Kind::View, op: Op::Add, at, value_milli: None };
        Row { origin: Origin::default(), input: Ok(Input::Event(event)) }
    }

    #[test]
    fn an_event_clock_is_the_highest_event_time_and_never_goes_back() {
        let mut cutter = Cutter::new(&engine(ClockKind::Event), 100, 0.5, 7);
        let first = cutter.close(9_999_999, &[event(5_000), event(4_000)]);
        assert_eq!((first.number, first.clock_ms, first.watermark_ms, first.tick()), (7, 5_000, 4_900, true));
        assert_eq!(cutter.close(0, &[event(4_500)]).clock_ms, 5_000);
        let quiet = cutter.close(0, &[]);
        assert!(quiet.tick(), "an empty epoch settles what the one before changed");
        assert!(!cutter.close(0, &[]).tick(), "and then there is nothing to settle");
    }

    #[test]
    fn turns_go_through_all_key_groups_while_the_clock_passes_a_tick() {
        let mut cutter = Cutter::new(&engine(ClockKind::Wall), 100, 0.5, 0);
        assert_eq!(cutter.close(10_500, &[]).turn, Turn::ALL, "the first: nobody knows when the last round was");
        let turns = [10_500, 10_503, 10_750, 11_499, 11_500, 11_501].map(|now| cutter.close(now, &[event(1)]));
        let range = |epoch: &Epoch| (epoch.turn.from, epoch.turn.to, epoch.tick());
        let said: Vec<_> = turns.iter().map(range).collect();
        let whole = [(0, 0, false), (0, 3, false), (3, 256, false), (256, 1022, false), (1022, 1024, true), (0, 1, false)];
        assert_eq!(said, whole);
        assert_eq!(cutter.close(19_000, &[]).turn, Turn::ALL, "a clock that leaps leaves nobody out");
    }

    #[test]
    fn a_loss_is_made_good_with_the_first_whole_round_after_the_last_key_group() {
        let turn = |from, to| Epoch { turn: Turn { from, to }, ..Epoch::default() };
        let groups: Vec<_> = (0..1024 / RETOLD).map(|n| (Some((n * RETOLD, (n + 1) * RETOLD)), None)).collect();
        let (mut retelling, mut wished) = (Retelling::default(), 0);
        assert_eq!(retelling.at(&turn(1000, 1024), wished), (None, None), "nothing is lost");
        for rounds in [
            &[(600, 1024, None), (0, 600, None), (600, 1024, Some(())), (0, 600, None)][..], // two ends: the first round began too early
            &[(0, 1024, Some(())), (0, 1024, None)],
            &[(600, 1024, None), (0, 1024, Some(())), (0, 9, None)],
        ] {
            wished += 1;
            let told: Vec<_> = groups.iter().map(|_| retelling.at(&turn(1000, 1024), wished)).collect();
            assert_eq!(told, groups, "ends of rounds meanwhile count for nothing");
            for (from, to, good) in rounds {
                assert_eq!(retelling.at(&turn(*from, *to), wished), (None, good.map(|()| wished)), "{from}..{to} of {rounds:?}");
            }
        }
        retelling.at(&turn(0, 9), wished + 1);
        assert_eq!(retelling.at(&turn(0, 9), wished + 2), (Some((0, RETOLD)), None), "another loss meanwhile begins again");
    }

    #[test]
    fn full_epochs_in_a_row_mean_the_input_is_behind() {
        let mut cutter = Cutter::new(&engine(ClockKind::Wall), 100, 0.5, 0);
        let budgets: Vec<_> = (0..5).map(|i| cutter.close(i, &[event(1), event(2)]).refreshes).collect();
        assert_eq!(budgets, [None, None, None, Some(1), Some(1)]);
        assert_eq!(cutter.close(9, &[event(1)]).refreshes, None);
    }
}
