//! One simulation: a seed decides what happens next, again and again; then everything comes to rest and is compared.

use overdrive::model::time::{HOUR, MINUTE, Millis};
use overdrive::model::{Binding, Positions};
use overdrive::state::State;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::answers::{Answers, Line, Reader};
use super::crash::{Fate, survive};
use super::dice::Dice;
use super::disk::{Disk, Mount};
use super::input::{Input, START};
use super::mutant::Mutant;
use super::oracle::{less_generations, undisturbed};
use super::process::{Process, Started};
use super::settings::Settings;

/// Actions of a disturbed life; then it is left in peace.
const ACTIONS: usize = 420;
/// Actions after which what is left in peace must have come to rest.
const PATIENCE: usize = 60_000;
/// A zombie lives on for so many actions at most.
const LIMBO: usize = 60;

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Action {
    Bind,
    Append,
    Step,
    Merge,
    Write,
    Commit,
    /// The clock moves, sometimes far.
    Time,
    /// The answer store goes away or comes back.
    Outage,
    /// A batch that was given up arrives.
    Late,
    /// The process dies at a point of what it does next.
    Kill,
    /// All die, and what was not synced may be lost.
    PowerLoss,
    /// Another process takes over while this one goes on.
    TakeOver,
}

const DISTURBED: [(usize, Action); 12] = [
    (120, Action::Bind),
    (80, Action::Append),
    (600, Action::Step),
    (80, Action::Merge),
    (70, Action::Write),
    (60, Action::Commit),
    (30, Action::Time),
    (6, Action::Outage),
    (15, Action::Late),
    (9, Action::Kill),
    (3, Action::PowerLoss),
    (5, Action::TakeOver),
];

const IN_PEACE: [(usize, Action); 7] = [
    (120, Action::Bind),
    (80, Action::Append),
    (600, Action::Step),
    (80, Action::Merge),
    (60, Action::Write),
    (60, Action::Commit),
    (20, Action::Late),
];

/// A process and what may kill it.
struct Running {
    process: Process,
    fate: Fate,
}

/// What a simulation came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub starts: usize,
    pub deaths: usize,
    pub epochs: usize,
    pub keys: usize,
    /// What must not be.
    pub violation: Option<String>,
    /// What happened to processes, for whoever looks for the reason.
    pub story: Vec<String>,
}

struct World {
    settings: Settings,
    dice: Dice,
    disk: Disk,
    answers: Answers,
    reader: Reader,
    input: Input,
    now: Millis,
    running: Option<Running>,
    /// A process that was taken over from and does not know, and how long it still lives.
    zombie: Option<(Running, usize)>,
    /// Bindings that were said to be durable, or found so.
    durable: BTreeMap<u64, Binding>,
    away: bool,
    /// No more harm is done.
    peace: bool,
    outcome: Outcome,
}

/// Runs one seed.
pub fn simulate(seed: u64, mutant: Option<Mutant>, letters: &Path) -> Outcome {
    let mut world = World::new(seed, mutant, letters);
    if let Err(violation) = world.run() {
        world.outcome.violation = Some(violation);
    }
    world.outcome
}

impl World {
    fn new(seed: u64, mutant: Option<Mutant>, letters: &Path) -> Self {
        let mut dice = Dice::new(seed);
        let records = 60 + dice.below(60);
        Self {
            settings: Settings::new(letters, mutant),
            disk: Disk::new(dice.other()),
            answers: Answers::new(dice.other(), mutant),
            reader: Reader::default(),
            input: Input::new(dice.other(), records),
            now: START,
            running: None,
            zombie: None,
            durable: BTreeMap::new(),
            away: false,
            peace: false,
            outcome: Outcome::default(),
            dice,
        }
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..ACTIONS {
            let action = self.dice.weighted(&DISTURBED);
            self.act(action)?;
            self.haunt()?;
        }
        self.rest()?;
        self.compare()
    }

    /// No more harm is done, and all of the input is answered.
    fn rest(&mut self) -> Result<(), String> {
        (self.zombie, self.peace) = (None, true);
        self.answers.be_away(false);
        for _ in 0..PATIENCE {
            let done = self.running.as_ref().is_some_and(|running| running.process.is_done(&self.input));
            if done {
                return Ok(());
            }
            let action = self.dice.weighted(&IN_PEACE);
            self.act(action)?;
        }
        Err("it does not come to rest".to_string())
    }

    /// Something happens; then a reader looks.
    fn act(&mut self, action: Action) -> Result<(), String> {
        while self.running.is_none() {
            self.start()?;
        }
        match action {
            Action::Time => self.pass_time(),
            Action::Outage => {
                self.away = !self.away && self.dice.percent(60);
                self.answers.be_away(self.away);
            }
            Action::Late => drop(self.answers.deliver_late()),
            Action::Kill => {
                let points = 1 + self.dice.below(40);
                self.running.iter().for_each(|running| running.fate.seal(points));
            }
            Action::PowerLoss => self.lose_power()?,
            Action::TakeOver => self.take_over()?,
            action => {
                let running = self.running.take();
                self.running = self.drive(running.expect("it was started"), action)?;
            }
        }
        self.reader.look(&self.answers)
    }

    /// The zombie does something.
    fn haunt(&mut self) -> Result<(), String> {
        if self.dice.percent(50)
            && let Some((zombie, left)) = self.zombie.take()
        {
            let action = self.dice.weighted(&IN_PEACE);
            self.zombie = self.drive(zombie, action)?.filter(|_| left > 0).map(|zombie| (zombie, left.saturating_sub(1)));
            self.reader.look(&self.answers)?;
        }
        Ok(())
    }

    /// A process does something. `None`: it died of it.
    fn drive(&mut self, mut running: Running, action: Action) -> Result<Option<Running>, String> {
        let process = &mut running.process;
        let done = survive(|| match action {
            Action::Bind => {
                // a quiet stream closes empty epochs for ever
                if !(self.peace && process.has_read(&self.input)) {
                    process.bind(&self.input, self.now);
                }
                Ok(true)
            }
            Action::Append => Ok(process.append().is_ok()),
            Action::Merge => process.merge().map(|()| true),
            Action::Write => {
                process.write();
                Ok(true)
            }
            Action::Commit => {
                process.commit();
                Ok(true)
            }
            _ => {
                process.step();
                Ok(true)
            }
        });
        self.acknowledge(&mut running.process)?;
        self.disk.check()?;
        match done {
            Some(Ok(true)) => Ok(Some(running)),
            Some(Err(violation)) => Err(violation),
            Some(Ok(false)) | None => {
                self.dies(format!("{} dies, or learns that it is fenced, in {action:?}", running.process.generation()));
                Ok(None)
            }
        }
    }

    /// Notes what the process was told to be durable: of one epoch one binding only.
    fn acknowledge(&mut self, process: &mut Process) -> Result<(), String> {
        let generation = process.generation();
        for binding in process.bound.drain(..std::mem::take(&mut process.acknowledged)) {
            let number = binding.epoch.number;
            self.outcome.story.push(format!("{} has epoch {number} durable", generation));
            match self.durable.insert(number, binding.clone()) {
                Some(before) if before != binding => return Err(format!("epoch {number} was made durable twice, differently")),
                _ => {}
            }
        }
        Ok(())
    }

    fn dies(&mut self, how: String) {
        self.outcome.deaths += 1;
        self.outcome.story.push(how);
    }

    fn pass_time(&mut self) {
        self.now += match self.dice.below(12) {
            0 => HOUR,
            1 | 2 => 2 * MINUTE,
            _ => self.dice.below(900) as Millis,
        };
    }

    fn lose_power(&mut self) -> Result<(), String> {
        (self.running, self.zombie) = (None, None);
        self.dies("the power fails".to_string());
        self.disk.lose_power();
        self.disk.check()
    }

    fn take_over(&mut self) -> Result<(), String> {
        let old = self.running.take().map(|running| (running, LIMBO));
        self.zombie = old.filter(|_| !self.disk.is_locked());
        self.outcome.story.push("another process takes over".to_string());
        self.start()
    }

    /// Starts a process; it may die of it.
    fn start(&mut self) -> Result<(), String> {
        let (fate, workers) = (Fate::default(), 1 + self.dice.below(3));
        if self.dice.percent(8) {
            fate.seal(1 + self.dice.below(30));
        }
        let mount = Arc::new(Mount::new(&self.disk, &fate, self.settings.mutant));
        let line = Line { answers: self.answers.clone(), fate: fate.clone() };
        if self.settings.mutant == Some(Mutant::ClaimedLate) {
            *mount.photo.lock().expect("nobody dies under the lock") = Some(self.disk.photo());
            (0..20).try_for_each(|_| self.haunt())?;
        }
        self.outcome.starts += 1;
        let dice = self.dice.other();
        let started = survive(|| {
            let state = State::open_in(mount.clone()).map_err(|e| e.to_string())?;
            let started = Process::start(&self.settings, state, Box::new(line), &self.input, workers, dice);
            *mount.photo.lock().expect("nobody dies under the lock") = None;
            started
        });
        match started {
            Some(started) => {
                let Started { process, after, found } = started?;
                let (generation, until) = (process.generation(), found.last().map(|binding| binding.epoch.number));
                self.outcome
                    .story
                    .push(format!("{generation} starts with {workers} workers after {after:?}, replays to {until:?}"));
                self.believe(after, found)?;
                self.running = Some(Running { process, fate });
            }
            None => self.dies("a process dies in its start".to_string()),
        }
        Ok(())
    }

    /// Nothing may be missing that was said to be durable; what else a start found is durable from now on.
    fn believe(&mut self, after: Option<u64>, found: Vec<Binding>) -> Result<(), String> {
        let found: BTreeMap<u64, Binding> = found.into_iter().map(|binding| (binding.epoch.number, binding)).collect();
        let replayed = self.durable.split_off(&after.map_or(0, |after| after + 1));
        for (number, binding) in replayed {
            match found.get(&number) {
                None => return Err(format!("epoch {number} was durable, and a start does not find it")),
                Some(found) if *found != binding => return Err(format!("epoch {number} was durable, and is another one now")),
                Some(_) => {}
            }
        }
        self.durable.extend(found);
        Ok(())
    }

    /// What is left is what an undisturbed run leaves.
    fn compare(&mut self) -> Result<(), String> {
        while self.answers.deliver_late() {
            self.reader.look(&self.answers)?;
        }
        let bindings: Vec<Binding> = self.durable.values().cloned().collect();
        covers(&bindings, &self.input.ends())?;
        let intact = Settings { mutant: None, ..self.settings.clone() };
        let (expected, account) = undisturbed(&intact, &self.input, &bindings);
        if !account.balances() || account.consumed != self.input.events() {
            return Err(format!("of {} events there are {account:?}", self.input.events()));
        }
        let left = less_generations(self.answers.dump());
        (self.outcome.epochs, self.outcome.keys) = (bindings.len(), left.len());
        let differ = expected.keys().chain(left.keys()).find(|key| expected.get(*key) != left.get(*key));
        match differ {
            None => Ok(()),
            Some(key) => Err(format!("{key} should be {:?} and is {:?}", expected.get(key), left.get(key))),
        }
    }
}

/// The bindings lead from the first record to the last, without a gap and without an overlap.
fn covers(bindings: &[Binding], ends: &Positions) -> Result<(), String> {
    let mut next = Positions::new();
    for (at, binding) in bindings.iter().enumerate() {
        if binding.epoch.number != at as u64 {
            return Err(format!("epoch {} comes as number {at}", binding.epoch.number));
        }
        for (place, (from, to)) in &binding.offsets {
            let reached = next.insert(*place, *to).unwrap_or(0);
            if reached != *from {
                return Err(format!("epoch {} begins {place:?} at {from}, not at {reached}", binding.epoch.number));
            }
        }
    }
    if next == *ends { Ok(()) } else { Err(format!("the bindings end at {next:?}, the input at {ends:?}")) }
}
