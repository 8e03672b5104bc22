//! Drives the dataflow over a recorded stream, a group an epoch, and hands on every ranking that was asked for.
//!
//! What must stay true: the ranking of a group is asked for in the epoch that brings its rows, or before it when the engine hears of
//! events late; `recommend` answers such a question with what it knew before the epoch.

use indicatif::{ProgressBar, ProgressStyle};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use timely::dataflow::InputHandle;
use timely::dataflow::operators::{Input as _, Probe};
use timely::worker::Worker;

use super::metrics::Ranked;
use super::split::{RANKED, Shown, Split};
use super::stream::Stream;
use crate::dataflows::{Params, recommend};
use crate::model::time::Millis;
use crate::model::{Change, Control, Epoch, Event, Input, ItemId, Kind, Op, Origin, Ranker, Role, Row, Turn, UserId};
use crate::operators::{Clock, Vault};
use crate::sinks::examples::Examples;

/// How a stream is driven.
pub struct Drive {
    pub by: Ranker,
    /// How late the engine hears of events.
    pub lag: Millis,
    pub workers: usize,
    pub quiet: bool,
    /// Where examples to train with are written.
    pub examples: Option<PathBuf>,
}

/// Epochs under way at once.
const UNDER_WAY: u64 = 64;

/// What is asked in an epoch: where the tested rows stand.
#[derive(Clone, Debug, Default)]
struct Question {
    rows: Vec<(usize, ItemId)>,
    new_items: BTreeSet<ItemId>,
    /// What the user took and the engine has not heard of.
    unheard: Vec<ItemId>,
}

/// The whole of a run, laid out before it begins.
#[derive(Default)]
struct Plan {
    epochs: Vec<(Epoch, Vec<Row>)>,
    questions: BTreeMap<u64, Question>,
}

/// By item: what follows it, best first.
pub type After = BTreeMap<ItemId, Vec<Shown>>;

/// Who takes what comes out.
type Note = dyn Fn(&Epoch, Change) + Send + Sync;

impl Drive {
    /// The rank of every row tested from a tenth of the stream on.
    pub fn run(&self, stream: &Stream, params: &Params) -> Result<Vec<Ranked>, String> {
        Ok(self.run_then_ask(stream, &[], params)?.0)
    }

    /// The same, and at the end what follows each of some items: what a newcomer who has just taken it would be shown for it.
    pub fn run_then_ask(&self, stream: &Stream, items: &[ItemId], params: &Params) -> Result<(Vec<Ranked>, After), String> {
        let mut plan = self.plan(stream, self.turns(params));
        let questions = std::mem::take(&mut plan.questions);
        let newcomers: BTreeMap<UserId, ItemId> = items.iter().map(|item| (newcomer(*item), *item)).collect();
        if !newcomers.is_empty() {
            plan.ask_newcomers(&newcomers);
        }
        let noted: Arc<Mutex<(Vec<Ranked>, After)>> = Arc::default();
        let into = noted.clone();
        let examples = self.examples.as_ref().map(|dir| Examples::open(dir, stream.names.clone())).transpose();
        let examples = examples.map_err(|e| e.to_string())?;
        let note = move |epoch: &Epoch, change: Change| match change {
            Change::Ranking(user, ranking) => {
                let mut into = into.lock().expect("no panic under the lock");
                match questions.get(&epoch.number) {
                    Some(question) => into.0.extend(question.answer(&ranking)),
                    None => _ = into.1.insert(newcomers[&user], ranking.into_iter().take(RANKED).collect()),
                }
            }
            Change::Example(example) => examples.iter().for_each(|examples| examples.take(epoch.number, example.clone())),
            _ => {}
        };
        self.work(plan, params, Arc::new(note))?;
        let (mut ranked, after) = std::mem::take(&mut *noted.lock().expect("no panic under the lock"));
        ranked.sort_unstable();
        Ok((ranked, after))
    }

    /// What everyone who is asked about is shown, best first, once all that is learned of a split was learned.
    pub fn rank_at_the_end(&self, split: &Split, params: &Params) -> Result<BTreeMap<UserId, Vec<Shown>>, String> {
        let mut plan = Plan::default();
        plan.epoch(split.learned.rows.first().map_or(0, |row| row.event.at), split.learned.described.clone());
        for (_, rows) in split.learned.grouped() {
            plan.epoch(rows[0].event.at, rows.iter().map(|row| Input::Event(row.event.clone())).collect());
        }
        let at = plan.epochs.last().map_or(0, |(epoch, _)| epoch.clock_ms);
        plan.rest(at, &self.measured_by(params));
        let asked: Vec<UserId> = split.asked.keys().map(|place| split.users[*place]).collect();
        for users in asked.chunks(64) {
            plan.epoch(at, users.iter().map(|user| Input::Control(Control::Rank { user: *user, by: self.by })).collect());
        }
        let rankings: Arc<Mutex<BTreeMap<UserId, Vec<Shown>>>> = Arc::default();
        let noted = rankings.clone();
        let note = move |_: &Epoch, change: Change| {
            if let Change::Ranking(user, ranking) = change {
                let best = ranking.into_iter().take(RANKED).collect();
                noted.lock().expect("no panic under the lock").insert(user, best);
            }
        };
        self.work(plan, params, Arc::new(note))?;
        Ok(std::mem::take(&mut *rankings.lock().expect("no panic under the lock")))
    }

    /// Runs a plan to its end.
    fn work(&self, plan: Plan, params: &Params, note: Arc<Note>) -> Result<(), String> {
        let (bar, params, plan) = (self.bar(plan.epochs.len()), self.measured_by(params), Arc::new(plan));
        let config = if self.workers == 1 { timely::Config::thread() } else { timely::Config::process(self.workers) };
        let workers = timely::execute(config, move |worker| work(worker, &plan, &params, &note, &bar));
        for result in workers.map_err(|e| format!("the workers cannot start: {e}"))?.join() {
            result.map_err(|e| format!("a worker broke off: {e}"))?;
        }
        Ok(())
    }

    fn bar(&self, epochs: usize) -> ProgressBar {
        let style = "{bar:30} {human_pos}/{human_len} groups, {per_sec}, {eta} left";
        let style = ProgressStyle::with_template(style).expect("a template that a test has seen");
        let bar = if self.quiet { ProgressBar::hidden() } else { ProgressBar::new(epochs as u64) };
        bar.with_style(style)
    }

    fn plan(&self, stream: &Stream, turns: Option<u64>) -> Plan {
        let mut plan = Plan::default();
        plan.epoch(stream.rows.first().map_or(0, |row| row.event.at), stream.described.clone());
        let learned_only = stream.rows.len() / 10;
        let mut appeared: BTreeSet<ItemId> = BTreeSet::new();
        let mut late: VecDeque<(Millis, Vec<Input>)> = VecDeque::new();
        for (start, rows) in stream.grouped() {
            let (user, at) = (rows[0].event.user, rows[0].event.at);
            while let Some((due, inputs)) = late.pop_front_if(|(due, _)| self.lag > 0 && *due <= at) {
                plan.epoch(due, inputs);
            }
            let tested = rows.iter().enumerate().map(|(i, row)| (start + i, row));
            let tested = tested.filter(|(n, row)| row.tested && *n >= learned_only).map(|(n, row)| (n, row.event.item));
            let tested: Vec<(usize, ItemId)> = tested.collect();
            let asked = (!tested.is_empty()).then_some(Input::Control(Control::Rank { user, by: self.by }));
            if asked.is_some() {
                let new_items = tested.iter().map(|(_, item)| *item).filter(|item| !appeared.contains(item)).collect();
                let unheard = late.iter().flat_map(|(_, inputs)| inputs).filter_map(|input| of_user(input, user)).collect();
                plan.questions.insert(plan.epochs.len() as u64, Question { rows: tested, new_items, unheard });
            }
            appeared.extend(rows.iter().map(|row| row.event.item));
            let events: Vec<Input> = rows.iter().map(|row| Input::Event(row.event.clone())).collect();
            if self.lag == 0 {
                plan.epoch(at, asked.into_iter().chain(events).collect());
            } else {
                asked.into_iter().for_each(|asked| plan.epoch(at, vec![asked]));
                late.push_back((at + self.lag, events));
            }
            if turns.is_some_and(|every| (plan.epochs.len() as u64).is_multiple_of(every)) {
                plan.turn();
            }
        }
        plan
    }
}

/// Somebody who stands in no stream, one for each item.
fn newcomer(item: ItemId) -> UserId {
    UserId::of(&format!("newcomer to {}", item.0))
}

fn of_user(input: &Input, user: UserId) -> Option<ItemId> {
    match input {
        Input::Event(event) if event.user == user => Some(event.item),
        _ => None,
    }
}

impl Drive {
    /// The settings a measurement runs under: nothing a user took is forgotten, and nothing is left out because there is too much.
    fn measured_by(&self, params: &Params) -> Params {
        let mut params = params.clone();
        (params.ledger.records_per_user, params.ledger.events_per_minute) = (usize::MAX, usize::MAX);
        params.learn.enabled = true;
        params.learn.busy_share = params.learn.share;
        params.learn.logged = if self.examples.is_some() { 1.0 } else { 0.0 };
        params.factors.enabled |= self.by == Ranker::Factors;
        params.factors.rounds = 1;
        params
    }

    /// Groups of rows between two rounds of turns, if there are to be any.
    fn turns(&self, params: &Params) -> Option<u64> {
        match self.by {
            Ranker::Fixed => Some(UNTOLD),
            _ => self.measured_by(params).factors.enabled.then_some(UNTURNED),
        }
    }
}

/// Groups of rows between two rounds of turns, where factors are on: in a round every user or every item is solved.
const UNTURNED: u64 = 200;
/// The same where fixed weights rank: in a round the lists and the neighbours are told that they look at.
const UNTOLD: u64 = 20;

impl Plan {
    fn epoch(&mut self, at: Millis, inputs: Vec<Input>) {
        let number = self.epochs.len() as u64;
        let clock_ms = self.epochs.last().map_or(at, |(epoch, _)| epoch.clock_ms.max(at));
        // no refresh: what is measured are the rankings that are asked for
        let epoch = Epoch { number, clock_ms, watermark_ms: i64::MIN / 2, refreshes: Some(0), ..Epoch::default() };
        let row = |(n, input)| {
            let origin = Origin { role: Role::Events, partition: 0, offset: number * 100_000 + n as u64, accepted: clock_ms };
            Row { origin, input: Ok(input) }
        };
        self.epochs.push((epoch, inputs.into_iter().enumerate().map(row).collect()));
    }

    /// Everyone takes their item at the end, and is asked about in the epoch after.
    fn ask_newcomers(&mut self, newcomers: &BTreeMap<UserId, ItemId>) {
        let at = self.epochs.last().map_or(0, |(epoch, _)| epoch.clock_ms);
        let take = |(user, item): (&UserId, &ItemId)| {
            Input::Event(Event { id: user.0, user: *user, item: *item, kind: Kind::View, op: Op::Add, at, value_milli: None })
        };
        self.epoch(at, newcomers.iter().map(take).collect());
        let ask = |user: &UserId| Input::Control(Control::Rank { user: *user, by: Ranker::Next });
        self.epoch(at, newcomers.keys().map(ask).collect());
    }

    /// Nothing happens until factors have grown from what is there; the clock stands still.
    fn rest(&mut self, at: Millis, params: &Params) {
        let rounds = if params.factors.enabled { 2 * (2 * params.factors.sweeps + 2) } else { 0 };
        for _ in 0..rounds {
            self.epoch(at, Vec::new());
            self.turn();
        }
    }

    /// The last epoch is a whole round of turns.
    fn turn(&mut self) {
        self.epochs.iter_mut().last().into_iter().for_each(|(epoch, _)| epoch.turn = Turn::ALL);
    }
}

/// One worker. The first one has all the input.
fn work(worker: &mut Worker, plan: &Arc<Plan>, params: &Params, note: &Arc<Note>, bar: &ProgressBar) {
    let (mut rows, mut clock) = (InputHandle::new(), InputHandle::new());
    let note = note.clone();
    let probe = worker.dataflow(|scope| {
        let (clock, rows) = Clock::pacing(scope.input_from(&mut clock), scope.input_from(&mut rows));
        let note = move |epoch: &Epoch, changes: &mut Vec<Change>, _: &mut Vec<()>| {
            changes.drain(..).for_each(|change| note(epoch, change));
        };
        recommend(rows, &clock, params, &Vault::default()).per_epoch(&clock, "Rank", note).probe().0
    });
    let first = worker.index() == 0;
    for (epoch, inputs) in &plan.epochs {
        if first {
            rows.send_batch(&mut inputs.clone());
            bar.inc(1);
        }
        clock.send(*epoch);
        rows.advance_to(epoch.number + 1);
        clock.advance_to(epoch.number + 1);
        worker.step_while(|| probe.less_than(&epoch.number.saturating_sub(UNDER_WAY)));
    }
}

impl Question {
    /// Where the tested rows stand in a ranking, without what the user has taken already.
    fn answer(&self, ranking: &[Shown]) -> Vec<Ranked> {
        let mut places: BTreeMap<ItemId, (u32, u32)> = BTreeMap::new();
        for (item, sources) in ranking.iter().filter(|(item, _)| !self.unheard.contains(item)) {
            places.insert(*item, (places.len() as u32 + 1, *sources));
        }
        let of = |(row, item): &(usize, ItemId)| {
            let place = places.get(item);
            let (rank, sources) = (place.map(|p| p.0), place.map_or(0, |p| p.1));
            Ranked { row: *row, rank, new_item: self.new_items.contains(item), sources }
        };
        self.rows.iter().map(of).collect()
    }
}
