//! One helper that runs `recommend` over a log of epochs, and what tests ask of its changes.

use overdrive::dataflows::Params;
use overdrive::dataflows::recommend;
use overdrive::model::catalogue::Item;
use overdrive::model::changes::{Account, Counts};
use overdrive::model::ids::TokenKind;
use overdrive::model::time::{DAY, Millis, SECOND};
use overdrive::model::{Change, Epoch, Event, Handed, Input, ItemId, Kind, Op, Origin, Role, Row, Saved, TokenId, Turn, UserId};
use overdrive::operators::{Clock, Vault};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use timely::dataflow::InputHandle;
use timely::dataflow::operators::{Input as _, Probe};

/// The changes of each epoch, in an order of their own.
pub type Changes = BTreeMap<u64, Vec<Change>>;

pub const START: Millis = 1_700_000_000_000;
pub const ITEMS: u8 = 12;

pub fn user(n: u8) -> UserId {
    UserId::of(&format!("u{n}"))
}

pub fn item(n: u8) -> ItemId {
    ItemId::of(&format!("i{n}"))
}

pub fn category(n: u8) -> TokenId {
    TokenId::typed(TokenKind::Category, &format!("c{n}"))
}

/// The embedded defaults, with expiry told in the epoch that sees it, and learning.
pub fn params() -> Params {
    let text = include_str!("../../overdrive.toml");
    let all: toml::Table = toml::from_str(text).expect("the defaults parse");
    let rooms = [
        "ledger",
        "signals",
        "weights",
        "interests",
        "neighbours",
        "trending",
        "near",
        "slates",
        "surfaces",
        "explore",
        "blend",
        "cold",
        "learn",
        "ranker",
        "experiments",
        "flags",
        "factors",
        "content",
        "towers",
    ];
    let of = |room: &str| (room.to_string(), all[room].clone());
    let mut params: Params = toml::Value::Table(rooms.map(of).into_iter().collect()).try_into().expect("the defaults fit");
    params.signals.settle = 0;
    params.learn.enabled = true;
    params
}

/// An input as it was cut: epochs, each with its records.
#[derive(Clone, Debug)]
pub struct Log {
    pub epochs: Vec<(Epoch, Vec<Row>)>,
    clock: Millis,
    offset: u64,
}

impl Log {
    /// An epoch 0 with twelve items in three categories by four authors.
    pub fn with_catalogue() -> Self {
        let mut log = Self { epochs: Vec::new(), clock: START, offset: 0 };
        log.epoch((0..ITEMS).map(described).collect());
        log
    }

    /// A log that was cut elsewhere.
    pub fn of(epochs: Vec<(Epoch, Vec<Row>)>) -> Self {
        Self { epochs, clock: 0, offset: 0 }
    }

    /// Moves the clock; answers it.
    pub fn advance(&mut self, by: Millis) -> Millis {
        self.clock += by;
        self.clock
    }

    /// Closes an epoch; a round of turns takes three.
    pub fn epoch(&mut self, inputs: Vec<Input>) {
        let number = self.epochs.len() as u64;
        let epoch = Epoch {
            number,
            clock_ms: self.clock,
            watermark_ms: self.clock - DAY,
            turn: [Turn { from: 700, to: 1024 }, Turn { from: 0, to: 350 }, Turn { from: 350, to: 700 }][number as usize % 3],
            refreshes: None,
            save: false,
            retell: None,
            model: None,
        };
        let rows = inputs.into_iter().map(|input| self.row(input)).collect();
        self.epochs.push((epoch, rows));
    }

    fn row(&mut self, input: Input) -> Row {
        self.offset += 1;
        let key = if let Input::Event(event) = &input { event.user.0 } else { self.offset }; // a user has one partition
        let (partition, accepted) = ((key % 3) as u32, self.offset as i64);
        Row { origin: Origin { role: Role::Events, partition, offset: self.offset, accepted }, input: Ok(input) }
    }

    /// Puts a record at the end of an epoch; an event's time becomes the epoch's clock.
    pub fn insert(&mut self, epoch: usize, input: Input) {
        let clock = self.epochs[epoch].0.clock_ms;
        let input = match input {
            Input::Event(event) => Input::Event(Event { at: clock, ..event }),
            other => other,
        };
        let mut row = self.row(input);
        row.origin.offset += 1_000_000;
        self.epochs[epoch].1.push(row);
    }

    pub fn until(&self, epoch: u64) -> Self {
        let mut log = self.clone();
        log.epochs.truncate(epoch as usize);
        log
    }

    pub fn since(&self, epoch: u64) -> Self {
        let mut log = self.clone();
        log.epochs.drain(..epoch as usize);
        log
    }

    /// With everything saved after its first `epochs` epochs.
    pub fn saved_after(&self, epochs: usize) -> Self {
        let mut log = self.clone();
        log.epochs.iter_mut().take(epochs).last().into_iter().for_each(|(epoch, _)| epoch.save = true);
        log
    }

    /// With everything saved at its last epoch.
    pub fn saved_at_the_end(&self) -> Self {
        self.saved_after(self.epochs.len())
    }

    /// With so many refreshes in every second epoch, in 1/1024 of one per key group.
    pub fn with_budget(mut self, refreshes: Option<u32>) -> Self {
        self.epochs.iter_mut().skip(1).step_by(2).for_each(|(epoch, _)| epoch.refreshes = refreshes);
        self
    }

    /// Without what the user did and said.
    pub fn without_user(&self, user: UserId) -> Self {
        let mut log = self.without_acts_of(user);
        for (_, rows) in &mut log.epochs {
            rows.retain(|row| !matches!(&row.input, Ok(Input::User(of, _)) if *of == user));
        }
        log
    }

    /// Without what the user did.
    pub fn without_acts_of(&self, user: UserId) -> Self {
        let mut log = self.clone();
        for (_, rows) in &mut log.epochs {
            rows.retain(|row| !matches!(&row.input, Ok(Input::Event(event)) if event.user == user));
        }
        log
    }

    /// A last epoch in which a newcomer views every item and each of `actors` views one, and a tick: so every key speaks once more.
    pub fn with_common_end(mut self, actors: &[UserId]) -> Self {
        self.advance(SECOND);
        let view = |user: UserId, item: ItemId, id: u64, at| {
            Input::Event(Event { id, user, item, kind: Kind::View, op: Op::Add, at, value_milli: None })
        };
        let clock = self.clock;
        let newcomer = (0..ITEMS).map(|i| view(user(99), item(i), 1_000_000 + u64::from(i), clock));
        let everyone = actors.iter().enumerate().map(|(i, u)| view(*u, item(10), 2_000_000 + i as u64, clock));
        self.epoch(newcomer.chain(everyone).collect());
        for _ in 0..3 {
            self.epoch(vec![]);
        }
        self.advance(2 * DAY);
        for _ in 0..3 {
            self.epoch(vec![]);
        }
        self
    }

    /// The users who did or said something.
    pub fn actors(&self) -> Vec<UserId> {
        let inputs = self.epochs.iter().flat_map(|(_, rows)| rows).filter_map(|row| row.input.as_ref().ok());
        let users = inputs.filter_map(|input| match input {
            Input::Event(event) => Some(event.user),
            Input::User(user, _) => Some(*user),
            _ => None,
        });
        users.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }
}

fn described(n: u8) -> Input {
    described_with(n, Item::default())
}

/// An item of the catalogue, with such content.
pub fn described_with(n: u8, content: Item) -> Input {
    let facts = Item {
        author: Some(TokenId::typed(TokenKind::Author, &format!("a{}", n % 4))),
        categories: [category(n % 3)].into_iter().collect(),
        created_at: Some(START - i64::from(n) * DAY),
        available: true,
        // half of them in three towns, a few kilometres apart within each
        lat: n.is_multiple_of(2).then_some(48.0 + f64::from(n % 3) + f64::from(n) / 100.0),
        lon: n.is_multiple_of(2).then_some(11.5),
        language: n.is_multiple_of(3).then(|| TokenId::typed(TokenKind::Language, "en")),
        quality: n.is_multiple_of(4).then_some(0.8),
        ..content
    };
    Input::Item(item(n), Some(Arc::new(facts)))
}

/// Two epochs after the catalogue, the first not after the second.
pub fn two_places(epochs: usize, a: f64, b: f64) -> (usize, usize) {
    let place = |x: f64| 1 + ((epochs - 1) as f64 * x) as usize;
    let (a, b) = (place(a).min(epochs - 1), place(b).min(epochs - 1));
    (a.min(b), a.max(b))
}

/// How to run a log.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub workers: usize,
    /// Record by record with a step of the worker between, or an epoch at once.
    pub one_by_one: bool,
}

impl Run {
    pub fn plain() -> Self {
        Self { workers: 1, one_by_one: false }
    }
}

/// Runs the dataflow from nothing.
pub fn run(log: &Log, how: Run) -> Changes {
    resume(log, &Kept::new(), how).0
}

/// Runs the dataflow from nothing, with these settings.
pub fn run_by(log: &Log, how: Run, params: &Params) -> Changes {
    resume_by(log, &Kept::new(), how, params).0
}

/// What operators keep, by uid.
pub type Kept = BTreeMap<String, Vec<Saved>>;

/// Runs the dataflow from what was kept; records go to workers by partition, as the feed sends them. Yields what was saved by the way.
pub fn resume(log: &Log, kept: &Kept, how: Run) -> (Changes, Kept) {
    resume_by(log, kept, how, &params())
}

/// The same, with these settings.
pub fn resume_by(log: &Log, kept: &Kept, how: Run, params: &Params) -> (Changes, Kept) {
    let params = params.clone();
    let (changes, saved): (Arc<Mutex<Changes>>, Arc<Mutex<Vec<Handed>>>) = Default::default();
    let (out, hand_over, restored) = (changes.clone(), saved.clone(), Arc::new(kept.clone()));
    let epochs = log.epochs.clone();
    let config = if how.workers == 1 { timely::Config::thread() } else { timely::Config::process(how.workers) };
    let guards = timely::execute(config, move |worker| {
        let (mut rows, mut clock) = (InputHandle::new(), InputHandle::new());
        let (out, hand_over) = (out.clone(), hand_over.clone());
        let vault = Vault::new(restored.clone(), move |_, kept: Handed| hand_over.lock().expect("no panic").push(kept));
        let probe = worker.dataflow(|scope| {
            let (clock, rows) = Clock::pacing(scope.input_from(&mut clock), scope.input_from(&mut rows));
            let collect = move |epoch: &Epoch, changes: &mut Vec<Change>, _: &mut Vec<()>| {
                out.lock().expect("no panic").entry(epoch.number).or_default().append(changes);
            };
            recommend(rows, &clock, &params, &vault).per_epoch(&clock, "Collect", collect).probe().0
        });
        let (index, peers) = (worker.index(), worker.peers());
        for (epoch, all) in &epochs {
            for row in all.iter().filter(|r| r.origin.partition as usize % peers == index) {
                rows.send(row.clone());
                if how.one_by_one {
                    rows.flush();
                    worker.step();
                }
            }
            clock.send(*epoch);
            rows.advance_to(epoch.number + 1);
            clock.advance_to(epoch.number + 1);
            if how.one_by_one {
                worker.step_while(|| probe.less_than(&(epoch.number + 1)));
            }
        }
    });
    for result in guards.expect("the workers start").join() {
        result.expect("no worker panics");
    }
    let mut changes = Arc::try_unwrap(changes).expect("the workers are gone").into_inner().expect("no panic");
    changes.values_mut().for_each(Account::sum_up);
    changes.values_mut().for_each(|of_epoch| of_epoch.sort_by_cached_key(|change| format!("{change:?}")));
    // only now, as in the engine: epochs have gone by since it was handed over
    let saved = Arc::try_unwrap(saved).ok().expect("the workers are gone").into_inner().expect("no panic");
    let mut kept = Kept::new();
    saved.into_iter().map(Handed::write).for_each(|part| kept.entry(part.uid).or_default().extend(part.entries));
    (changes, kept)
}

/// The last word on every key, as a reader would find it: what was taken away is not there. Slates without their scores, which
/// move with the clock of their refresh.
pub fn accumulated(changes: &Changes) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for change in changes.values().flatten() {
        let (key, value) = match change {
            Change::Slate { user, surface, slate, .. } => (
                format!("slate {surface:?} {user:?}"),
                slate.as_ref().map(|s| {
                    let items: Vec<_> = s.items.iter().map(|i| (i.item, i.source, i.reason)).collect();
                    format!("{items:?} after {:?}", s.history)
                }),
            ),
            Change::Signals(key, signals) => (format!("signals {key:?}"), signals.as_ref().map(|s| format!("{s:?}"))),
            Change::Interests(user, interests) => (format!("interests {user:?}"), interests.as_ref().map(|i| format!("{i:?}"))),
            Change::Neighbours(item, users, list) => {
                (format!("neighbours {item:?}"), (*users > 0).then(|| format!("{users} {list:?}")))
            }
            Change::Card(item, card) => (format!("card {item:?}"), card.as_ref().map(|card| format!("{card:?}"))),
            Change::Trending(scope, list) => (format!("trending {scope:?}"), (!list.is_empty()).then(|| format!("{list:?}"))),
            Change::Near(cell, list) => (format!("near {cell}"), (!list.is_empty()).then(|| format!("{list:?}"))),
            Change::Experiments(all) => ("experiments".to_string(), (!all.is_empty()).then(|| format!("{all:?}"))),
            Change::Profile(user, profile) => (format!("profile {user:?}"), profile.as_ref().map(|of| format!("{of:?}"))),
            Change::Census(counts) => ("census".to_string(), (**counts != Counts::default()).then(|| format!("{counts:?}"))),
            Change::Seen(user, seen) => {
                for (item, at) in seen {
                    set(&mut all, format!("seen {user:?} {item:?}"), at.map(|at| at.to_string()));
                }
                continue;
            }
            Change::AllSeen(user, seen) => {
                all.retain(|key, _| !key.starts_with(&format!("seen {user:?} ")));
                all.extend(seen.iter().map(|(item, at)| (format!("seen {user:?} {item:?}"), at.to_string())));
                continue;
            }
            Change::Catalogue(..) | Change::AllGone(_) | Change::Forgotten(_) | Change::Dead(_) | Change::Account(_) => continue,
            Change::Ranking(..)
            | Change::Example(_)
            | Change::Watched(_)
            | Change::Arms(_)
            | Change::Learned(_)
            | Change::Encode(_) => continue,
        };
        set(&mut all, key, value);
    }
    all
}

fn set(all: &mut BTreeMap<String, String>, key: String, value: Option<String>) {
    match value {
        Some(value) => all.insert(key, value),
        None => all.remove(&key),
    };
}

/// Keys whose last words differ, with both.
pub fn differences(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<String> {
    let keys: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let differ = keys.into_iter().filter(|key| a.get(*key) != b.get(*key));
    differ.map(|key| format!("{key}:\n  {:?}\n  {:?}", a.get(key), b.get(key))).collect()
}
