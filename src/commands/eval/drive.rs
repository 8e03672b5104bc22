//! Drives the dataflow over a recorded stream, a group an epoch, and notes the rank of every row that is tested.
//!
//! What must stay true: the ranking of a group is asked for in the epoch that brings its rows, or before it when the engine hears of
//! events late; `recommend` answers such a question with what it knew before the epoch.

use indicatif::{ProgressBar, ProgressStyle};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use timely::dataflow::InputHandle;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::{Input as _, Probe};
use timely::worker::Worker;

use super::metrics::Ranked;
use super::stream::Stream;
use crate::dataflows::{Params, Probes, recommend};
use crate::model::time::Millis;
use crate::model::{Change, Control, Epoch, Input, ItemId, Origin, Ranker, Role, Row, UserId};
use crate::operators::{PerEpoch, Vault};

/// How a stream is driven.
pub struct Drive {
    pub by: Ranker,
    /// How late the engine hears of events.
    pub lag: Millis,
    pub workers: usize,
    pub quiet: bool,
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

impl Drive {
    /// The rank of every row tested from a tenth of the stream on.
    pub fn run(&self, stream: &Stream, params: &Params) -> Result<Vec<Ranked>, String> {
        let plan = Arc::new(self.plan(stream));
        let ranked: Arc<Mutex<Vec<Ranked>>> = Arc::default();
        let (bar, params, notes) = (self.bar(plan.epochs.len()), measured_by(params), ranked.clone());
        let config = if self.workers == 1 { timely::Config::thread() } else { timely::Config::process(self.workers) };
        let workers = timely::execute(config, move |worker| work(worker, &plan, &params, &notes, &bar));
        for result in workers.map_err(|e| format!("the workers cannot start: {e}"))?.join() {
            result.map_err(|e| format!("a worker broke off: {e}"))?;
        }
        let mut ranked = std::mem::take(&mut *ranked.lock().expect("no panic under the lock"));
        ranked.sort_unstable();
        Ok(ranked)
    }

    fn bar(&self, epochs: usize) -> ProgressBar {
        let style = "{bar:30} {human_pos}/{human_len} groups, {per_sec}, {eta} left";
        let style = ProgressStyle::with_template(style).expect("a template that a test has seen");
        let bar = if self.quiet { ProgressBar::hidden() } else { ProgressBar::new(epochs as u64) };
        bar.with_style(style)
    }

    fn plan(&self, stream: &Stream) -> Plan {
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
        }
        plan
    }
}

fn of_user(input: &Input, user: UserId) -> Option<ItemId> {
    match input {
        Input::Event(event) if event.user == user => Some(event.item),
        _ => None,
    }
}

/// The settings a measurement runs under: nothing a user took is forgotten, and nothing is left out because there is too much.
fn measured_by(params: &Params) -> Params {
    let mut params = params.clone();
    (params.ledger.records_per_user, params.ledger.events_per_minute) = (usize::MAX, usize::MAX);
    params.learn.enabled = true;
    params.learn.busy_share = params.learn.share;
    params
}

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
}

/// One worker. The first one has all the input.
fn work(worker: &mut Worker, plan: &Arc<Plan>, params: &Params, ranked: &Arc<Mutex<Vec<Ranked>>>, bar: &ProgressBar) {
    let (mut rows, mut clock) = (InputHandle::new(), InputHandle::new());
    let (asked, noted) = (plan.clone(), ranked.clone());
    let probe = worker.dataflow(|scope| {
        let (rows, clock) = (scope.input_from(&mut rows), scope.input_from(&mut clock));
        let note = move |epoch: &Epoch, changes: &mut Vec<Change>, _: &mut Vec<()>| {
            let answers = changes.drain(..).filter_map(|change| match change {
                Change::Ranking(_, ranking) => Some(ranking),
                _ => None,
            });
            let found: Vec<Ranked> = answers.flat_map(|ranking| asked.questions[&epoch.number].answer(&ranking)).collect();
            noted.lock().expect("no panic under the lock").extend(found);
        };
        let changes = recommend(rows, clock.clone(), params, &Vault::default(), &Probes::default());
        changes.per_epoch(clock, Pipeline, "Rank", note).probe().0
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
    fn answer(&self, ranking: &[(ItemId, u16)]) -> Vec<Ranked> {
        let mut places: BTreeMap<ItemId, (u32, u16)> = BTreeMap::new();
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
