//! One process, from its start to its death, in pieces that whoever has it runs one at a time: it binds epochs, makes bindings
//! durable, steps its workers, merges what they completed, writes, and commits snapshots. All but the order is the shipped code's.

use overdrive::feed::Cutter;
use overdrive::model::time::Millis;
use overdrive::model::{Binding, Epoch, Handed, Names, Origin, Part, Positions, Role, Row};
use overdrive::recovery::{Recovery, Taken};
use overdrive::sinks::writer::{self, WriteBehind};
use overdrive::sinks::{Completed, Save, Store};
use overdrive::sources::Record;
use overdrive::state::{State, Tail};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use super::crew::Crew;
use super::dice::Dice;
use super::gather::{Decoding, Gathered, balance};
use super::input::Input;
use super::mutant::Mutant;
use super::settings::Settings;

/// Epochs given to the workers and not yet complete.
const IN_FLIGHT: usize = 4;
/// Snapshots kept.
const KEPT: usize = 2;

/// A running process.
pub struct Process {
    settings: Settings,
    recovery: Recovery,
    tail: Tail,
    decoding: Decoding,
    cutter: Cutter,
    crew: Crew,
    writing: WriteBehind,
    dice: Dice,
    /// Where reading goes on.
    reads: Positions,
    /// Places of which nothing is bound yet.
    announced: Positions,
    /// Bound by the runs before, to be read again.
    replays: VecDeque<Binding>,
    /// Bound here and not durable.
    waiting: Vec<Binding>,
    durable: Option<u64>,
    gathered: Gathered,
    completed: VecDeque<Completed>,
    /// Of everything that was completed.
    positions: Positions,
    dues: Arc<Mutex<VecDeque<Taken>>>,
    /// What was handed over is not yet a snapshot.
    saving: bool,
    /// Bound here, and whether it was said to be durable.
    pub bound: Vec<Binding>,
    pub acknowledged: usize,
}

/// What a start found, and the process that goes on from it.
pub struct Started {
    pub process: Process,
    /// The epoch of the snapshot.
    pub after: Option<u64>,
    pub found: Vec<Binding>,
}

impl Process {
    /// Takes up what is in `state`.
    pub fn start(
        settings: &Settings,
        state: State,
        store: Box<dyn Store>,
        input: &Input,
        workers: usize,
        dice: Dice,
    ) -> Result<Started, String> {
        let config = &settings.config;
        let mut recovery = Recovery::of(state, settings.params(), KEPT).map_err(|e| e.to_string())?;
        let (generation, last, from) = (recovery.generation(), recovery.last(), recovery.positions());
        let names = Arc::new(Names::default());
        let given = recovery.give_out(&names)?;
        let tail = recovery.state().expect("it is kept").tail().map_err(|e| e.to_string())?;
        let params = writer::Params {
            generation,
            max_dirty_keys: 1000,
            retry_max: config.redis.retry_max,
            left: given.left,
            repeats_until: u64::MAX,
        };
        let mut cutter = Cutter::new(&config.engine, config.recommend.ledger.lateness, config.recommend.slates.busy_refreshes, 0);
        last.iter().for_each(|last| cutter.follow(last));
        let mut reads: Positions = input.ends().into_keys().map(|place| (place, 0)).collect();
        reads.extend(&from);
        for (place, (_, to)) in given.bound.iter().flat_map(|binding| &binding.offsets) {
            reads.insert(*place, *to);
        }
        let process = Self {
            writing: settings.writing(&names, store, params),
            crew: Crew::new(workers, settings.params(), &given.restored),
            decoding: Decoding::new(&names),
            settings: settings.clone(),
            tail,
            cutter,
            dice,
            announced: reads.clone().into_iter().filter(|(place, _)| !from.contains_key(place)).collect(),
            reads,
            replays: given.bound.clone().into(),
            waiting: Vec::new(),
            durable: last.map(|last| last.epoch.number),
            gathered: Gathered::default(),
            completed: VecDeque::new(),
            positions: from,
            dues: Arc::default(),
            saving: false,
            bound: Vec::new(),
            acknowledged: 0,
            recovery,
        };
        let first = given.bound.first().map(|binding| binding.epoch.number);
        let after = first.map_or(process.durable, |first| first.checked_sub(1));
        Ok(Started { process, after, found: given.bound })
    }

    pub fn generation(&self) -> u32 {
        self.recovery.generation()
    }

    /// Whether everything of the input is bound.
    pub fn has_read(&self, input: &Input) -> bool {
        self.replays.is_empty() && self.reads == input.ends()
    }

    /// Whether everything of the input is answered.
    pub fn is_done(&self, input: &Input) -> bool {
        let idle = self.waiting.is_empty() && self.gathered.len() == 0 && self.completed.is_empty();
        idle && self.has_read(input) && !self.writing.behind()
    }

    /// Gives the workers an epoch: one that was bound before, else a new one of some records that are there at `now`.
    pub fn bind(&mut self, input: &Input, now: Millis) {
        if self.gathered.len() >= IN_FLIGHT {
            return;
        }
        if let Some(binding) = self.replays.pop_front() {
            return self.deliver(input, binding);
        }
        let offsets = self.draw(input);
        let records: Vec<Record> =
            offsets.iter().flat_map(|(place, (from, to))| input.read(*place, *from, *to).iter().cloned()).collect();
        let rows: Vec<Row> = records.into_iter().map(|record| self.decoding.row(record)).collect();
        let mut epoch = self.cutter.close(now, &rows);
        epoch.save = !self.saving && self.dice.percent(12);
        self.saving |= epoch.save;
        let binding =
            Binding { epoch, offsets, pace: self.cutter.pace(), serving: self.cutter.serving().clone(), refusals: Vec::new() };
        self.waiting.push(binding.clone());
        self.bound.push(binding.clone());
        self.deliver(input, binding);
    }

    /// Some of what comes next in some places, one epoch full at most; with every place that was never bound.
    fn draw(&mut self, input: &Input) -> BTreeMap<(Role, u32), (u64, u64)> {
        let mut room = self.settings.config.engine.epoch_rows as u64;
        let mut offsets = BTreeMap::new();
        let full = self.dice.percent(60);
        for (place, end) in input.ends() {
            let from = self.reads[&place];
            let most = (end - from).min(room);
            let some = if full { most } else { self.dice.below(most as usize + 1) as u64 };
            let announced = self.announced.remove(&place).is_some();
            if some > 0 || announced {
                offsets.insert(place, (from, from + some));
                self.reads.insert(place, from + some);
                room -= some;
            }
        }
        offsets
    }

    fn deliver(&mut self, input: &Input, binding: Binding) {
        let mut rows: Vec<Row> = input.bound(&binding).into_iter().map(|record| self.decoding.row(record)).collect();
        if self.settings.is(Mutant::AnyOrder) {
            self.disorder(&mut rows);
        }
        let workers = self.crew.len();
        for worker in 0..workers {
            let mine = rows.iter().filter(|row| row.origin.partition as usize % workers == worker).cloned().collect();
            self.crew.give(worker, (self.as_told(binding.epoch), mine));
        }
        self.gathered.bound(binding);
    }

    /// Gives every record the place of another one of its topic.
    fn disorder(&mut self, rows: &mut [Row]) {
        let mut origins: Vec<Origin> = rows.iter().map(|row| row.origin).collect();
        self.dice.shuffle(&mut origins);
        let mut by_role: BTreeMap<Role, Vec<Origin>> = BTreeMap::new();
        origins.into_iter().for_each(|origin| by_role.entry(origin.role).or_default().push(origin));
        for row in rows {
            let origin = by_role.get_mut(&row.origin.role).and_then(Vec::pop).expect("as many as rows");
            row.origin = Origin { accepted: row.origin.accepted, ..origin };
        }
    }

    fn as_told(&self, epoch: Epoch) -> Epoch {
        let share = |budget: u32| budget / self.crew.len() as u32;
        let refreshes = if self.settings.is(Mutant::BudgetPerWorker) { epoch.refreshes.map(share) } else { epoch.refreshes };
        Epoch { refreshes, ..epoch }
    }

    /// Makes some of the bindings durable that wait. An error ends the process.
    pub fn append(&mut self) -> Result<(), String> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let some = 1 + self.dice.below(self.waiting.len());
        self.durable = Some(self.tail.append(&self.waiting[..some]).map_err(|e| e.to_string())?);
        self.waiting.drain(..some);
        self.acknowledged += some;
        Ok(())
    }

    /// One worker steps.
    pub fn step(&mut self) {
        let (worker, takes) = (self.dice.below(self.crew.len()), self.dice.percent(50));
        self.crew.step(worker, takes);
        self.crew.said().into_iter().for_each(|told| self.gathered.hear(told));
        let ungated = self.settings.is(Mutant::EffectsBeforeBinding);
        let durable = if ungated { Some(u64::MAX) } else { self.durable };
        while let Some((binding, changes, kept)) = self.gathered.next(self.crew.len(), durable) {
            let save = self.save(&binding, kept);
            self.completed.push_back(Completed { binding, changes, accepted_ms: Vec::new(), save, retold: None });
        }
    }

    /// Takes what the operators handed over, and once it is merged what is not written.
    fn save(&mut self, binding: &Binding, kept: Vec<Handed>) -> Option<Save> {
        self.positions.extend(binding.offsets.iter().map(|(place, (_, to))| (*place, *to)));
        let (epoch, pace, positions, dues) = (binding.epoch, binding.pace, self.positions.clone(), self.dues.clone());
        let serving = binding.serving.clone();
        let (kept, cut) = (Mutex::new(kept), self.settings.is(Mutant::NoDirtyKeys));
        let save = move |left: Part| {
            let kept = std::mem::take(&mut *kept.lock().expect("nobody dies under the lock"));
            let left = if cut { without_dirty(left) } else { left };
            dues.lock().expect("nobody dies under the lock").push_back(Taken {
                epoch,
                pace,
                serving: serving.clone(),
                positions: positions.clone(),
                kept,
                left,
            });
        };
        epoch.save.then(|| Save(Arc::new(save)))
    }

    /// Merges a completed epoch. The error says which does not add up.
    pub fn merge(&mut self) -> Result<(), String> {
        match self.completed.pop_front() {
            Some(completed) => {
                balance(&completed.changes).map_err(|e| format!("epoch {}: {e}", completed.binding.epoch.number))?;
                self.writing.merge(completed);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Writes; a store that does not take it is tried again another time.
    pub fn write(&mut self) {
        let _away = self.writing.write_some();
    }

    /// Commits what was handed over; a failure leaves the snapshot before.
    pub fn commit(&mut self) {
        let taken = self.dues.lock().expect("nobody dies under the lock").pop_front();
        if let Some(taken) = taken {
            let snapshot = self.recovery.snapshot(self.decoding.names(), self.crew.len(), taken);
            let _kept = self.recovery.state().expect("it is kept").commit(&snapshot, KEPT);
            self.saving = false;
        }
    }
}

/// What the writer kept, less the keys.
fn without_dirty(mut left: Part) -> Part {
    left.entries.retain(|entry| entry.payload.first() == Some(&0));
    left
}
