//! Crash anywhere, go on as if nothing had been: what a start finds of the run before, and who keeps it up to date.
//!
//! The facts that must stay true: no answer of an epoch is written before its binding is durable; a snapshot is committed only when
//! every worker, the writer and the names have handed over; and a start reads again exactly the epochs that were bound after the
//! snapshot it begins with, so that it comes, bit by bit, to where the run before was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, unbounded};
use metrics::{counter, gauge};

use crate::aside;
use crate::dataflows;
use crate::model::epoch::{BEGIN_ANEW, TopicIds};
use crate::model::forget::Order;
use crate::model::ids::{TokenKind, key_group};
use crate::model::time::now_ms;
use crate::model::{Binding, Epoch, Handed, Names, Pace, Part, Positions, Role, Saved, Serving, UserId};
use crate::privacy::Privacy;
use crate::sinks::writer::{self, Left};
use crate::state::{Address, EpochLog, Head, Snapshot, State, StateError};
use crate::telemetry;

/// What a run begins with.
pub struct Recovery {
    /// `None`: what is bound is read again, nothing more is read and nothing is kept.
    state: Option<Arc<State>>,
    snapshot: Option<Snapshot>,
    /// Bound by the run before and not in the snapshot.
    bound: Vec<Binding>,
    config: String,
    keep: usize,
}

/// Why a start does not go on from what is there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// Another start may help.
    #[error("{0}")]
    Retry(String),
    /// Somebody must repair or change something.
    #[error("{0}")]
    Stop(String),
}

impl From<StateError> for RecoveryError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Damaged(_) => Self::Stop(error.to_string()),
            StateError::Busy(_) | StateError::Io(_) | StateError::Fenced(_) => Self::Retry(error.to_string()),
        }
    }
}

/// The spelling of ids under which names are saved, and its version.
const NAMES: &str = "names/2";

impl Recovery {
    /// Takes the state folder `dir` and reads what the run before has left. The error says what is damaged or who has the folder.
    pub fn open(address: &Address, params: &dataflows::Params, keep: usize) -> Result<Self, RecoveryError> {
        Self::of(State::open_at(address)?, params, keep)
    }

    /// As `open`, of a state that was taken.
    pub fn of(state: State, params: &dataflows::Params, keep: usize) -> Result<Self, RecoveryError> {
        let began = Instant::now();
        let snapshot = state.restore()?;
        let bound = state.bindings(snapshot.as_ref().map(|s| s.head.epoch.number))?;
        let config = digest(params);
        if let Some(saved) = snapshot.as_ref().map(|s| &s.head.config).filter(|saved| **saved != config) {
            return Err(RecoveryError::Stop(format!(
                "the state in {} was kept under other [ledger], [weights], [signals], [interests], [neighbours] settings or [learn] \
                 enabled or links or [factors] settings (digest {saved}, now {config}); set them back, or {BEGIN_ANEW} from what the \
                 log retains",
                state.place()
            )));
        }
        if let Some(Snapshot { head, parts }) = &snapshot {
            known(parts, params).map_err(RecoveryError::Stop)?;
            let (epoch, took) = (head.epoch.number, began.elapsed().as_secs_f64());
            tracing::info!(epoch, replays = bound.len(), seconds = took, "going on from a snapshot");
        }
        state.adopt(&bound)?;
        Ok(Self { state: Some(Arc::new(state)), snapshot, bound, config, keep })
    }

    /// A run over these epochs and no others: what it leaves is what any run must leave that was interrupted in whatever way.
    pub fn over(bound: Vec<Binding>) -> Self {
        Self { state: None, snapshot: None, bound, config: String::new(), keep: 0 }
    }

    /// Whether reading ends with what was bound.
    pub fn ends(&self) -> bool {
        self.state.is_none()
    }

    /// The second half of the fence: grows with every start.
    pub fn generation(&self) -> u32 {
        self.state.as_ref().map_or(1, |state| state.generation())
    }

    /// Where it is kept; `None`: nothing is.
    pub fn state(&self) -> Option<&State> {
        self.state.as_deref()
    }

    /// What is committed of what was handed over, by a run of so many workers.
    pub fn snapshot(&self, names: &Names, workers: usize, taken: Taken) -> Snapshot {
        taken.snapshot(names, &self.config, workers)
    }

    /// Where reading begins: at the snapshot, or where the first epoch did.
    pub fn positions(&self) -> Positions {
        let mut positions = self.snapshot.as_ref().map(|s| s.head.positions.clone()).unwrap_or_default();
        for (place, (from, _)) in self.bound.iter().flat_map(|binding| &binding.offsets) {
            positions.entry(*place).or_insert(*from);
        }
        positions
    }

    /// Refuses other topics than those that were read before, and remembers those that were not. Call it before anything is given out.
    pub fn recognise(&self, topics: &TopicIds) -> Result<(), RecoveryError> {
        let Some(state) = &self.state else { return Ok(()) };
        let mut known = state.topics()?;
        let before = known.clone();
        for (role, found) in topics {
            if let Some(known) = known.get(role).filter(|known| known.id != found.id && self.has_read(*role)) {
                return Err(RecoveryError::Stop(known.replaced_by(&found.name, &found.id)));
            }
            known.insert(*role, found.clone());
        }
        if known != before { Ok(state.keep_topics(&known)?) } else { Ok(()) }
    }

    /// Whether there is anything of this role in the snapshot or among what was bound since.
    fn has_read(&self, role: Role) -> bool {
        let saved = self.snapshot.iter().flat_map(|snapshot| &snapshot.head.positions).map(|((of, _), next)| (*of, *next));
        let bound = self.bound.iter().flat_map(|binding| &binding.offsets).map(|((of, _), (_, to))| (*of, *to));
        saved.chain(bound).any(|(of, next)| of == role && next > 0)
    }

    /// The last epoch of the run before and how its input ran.
    pub fn last(&self) -> Option<Binding> {
        let of = |head: &Head| Binding {
            epoch: head.epoch,
            offsets: BTreeMap::new(),
            pace: head.pace,
            serving: head.serving.clone(),
            refusals: Vec::new(),
        };
        self.bound.last().cloned().or_else(|| self.snapshot.as_ref().map(|s| of(&s.head)))
    }

    /// Gives everything its share: the epochs to read again, what the writer had left, what operators keep.
    pub fn give_out(&mut self, names: &Names) -> Result<Given, String> {
        let parts = self.snapshot.as_mut().map(|s| std::mem::take(&mut s.parts)).unwrap_or_default();
        let mut left = Left::of(&parts)?;
        let serving = self.snapshot.as_ref().map(|snapshot| snapshot.head.serving.clone()).unwrap_or_default();
        (left.shown.serving, left.next.serving) = (serving.clone(), serving);
        load_names(&parts, names)?;
        let restored = parts.into_iter().map(|part| (part.uid, part.entries)).collect();
        Ok(Given { bound: std::mem::take(&mut self.bound), left, restored: Arc::new(restored) })
    }

    /// Starts keeping: bindings go to the epoch log, snapshots to the state folder. `on_durable` hears how far the log is. `None`:
    /// nothing is kept.
    pub fn keeper(
        &self,
        names: Arc<Names>,
        workers: usize,
        privacy: Privacy,
        on_durable: impl Fn(u64) + Send + 'static,
        on_failed: impl Fn(String) + Send + 'static,
    ) -> Result<Option<Keeper>, String> {
        let Some(state) = self.state.clone() else { return Ok(None) };
        let log = state.start_log(on_durable, on_failed).map_err(|e| e.to_string())?;
        let (sender, receiver) = unbounded();
        let under_way = Arc::new(AtomicBool::new(false));
        let awaited = Arc::new(Mutex::new(privacy.awaited()));
        let (config, keep, done) = (self.config.clone(), self.keep, under_way.clone());
        let mut commits = Commits { state, names, config, workers, keep, done, privacy };
        let closing = Arc::new(AtomicBool::new(false));
        let hurry = closing.clone();
        let run = move || {
            for due in receiver {
                if hurry.load(Ordering::Acquire) { commits.take(due) } else { standing_back(|| commits.take(due)) }
            }
        };
        let thread = std::thread::Builder::new().name("keeper".into()).spawn(run);
        let thread = thread.map_err(|e| format!("the keeper thread cannot start: {e}"))?;
        let positions = self.positions();
        Ok(Some(Keeper {
            log: Mutex::new(Some(log)),
            sender,
            thread,
            positions: Mutex::new(positions),
            under_way,
            awaited,
            closing,
        }))
    }
}

/// Whether the snapshot holds what this program keeps, no less and no more: a stage without its state would be wrong in silence.
fn known(parts: &[Part], params: &dataflows::Params) -> Result<(), String> {
    let expected: BTreeSet<&str> = dataflows::uids(params).into_iter().chain([NAMES, writer::UID]).collect();
    let found: BTreeSet<&str> = parts.iter().map(|part| part.uid.as_str()).collect();
    let odd: Vec<&str> = expected.symmetric_difference(&found).copied().collect();
    if odd.is_empty() {
        return Ok(());
    }
    let odd = odd.join(", ");
    Err(format!(
        "the snapshot was taken by another version of overdrive, or with other stages switched on ([near], [learn], [factors], \
         [content]): it differs in {odd}; start that version with those settings, or {BEGIN_ANEW} from what the log retains"
    ))
}

/// What a start gives out.
#[derive(Default)]
pub struct Given {
    pub bound: Vec<Binding>,
    pub left: Left,
    pub restored: Arc<BTreeMap<String, Vec<Saved>>>,
}

/// Keeps what the next start will need.
pub struct Keeper {
    /// `None` once it is closed.
    log: Mutex<Option<EpochLog>>,
    sender: Sender<Due>,
    thread: JoinHandle<()>,
    /// Of everything that was bound.
    positions: Mutex<Positions>,
    /// What was handed over is not yet a snapshot.
    pub under_way: Arc<AtomicBool>,
    /// Epochs with orders to forget that the store does not show yet.
    awaited: Arc<Mutex<BTreeSet<u64>>>,
    /// Somebody waits for the last snapshot.
    closing: Arc<AtomicBool>,
}

/// What the keeper's thread is to do, in this order.
enum Due {
    /// An epoch that is about to be worked on took these in.
    Orders(Vec<Order>),
    /// The store shows all epochs up to this one.
    Shown(u64),
    /// A snapshot is to be made.
    Snapshot(Box<Taken>),
}

/// A snapshot to be made: what the operators handed over, and what the writer had left.
pub struct Taken {
    pub epoch: Epoch,
    pub pace: Pace,
    pub serving: Serving,
    pub positions: Positions,
    pub kept: Vec<Handed>,
    pub left: Part,
}

impl Taken {
    fn snapshot(self, names: &Names, config: &str, workers: usize) -> Snapshot {
        let Taken { epoch, pace, serving, positions, kept, left } = self;
        let parts = whole(kept.into_iter().map(Handed::write).chain([left, save_names(names)]));
        Snapshot { head: Head { epoch, pace, serving, positions, workers, config: config.to_string() }, parts }
    }
}

/// Leaves a snapshot's last part with the keeper.
#[derive(Clone)]
pub struct Desk(Sender<Due>);

impl Desk {
    /// Everything is there.
    pub fn hand_over(&self, taken: Taken) {
        let _ended = self.0.send(Due::Snapshot(Box::new(taken))); // a keeper that ended has said why
    }
}

impl Keeper {
    /// A new epoch: durable soon. Call it before any worker sees the epoch.
    pub fn bind(&self, binding: &Binding) {
        let log = self.log.lock().expect("no panic under the lock");
        log.as_ref().expect("nothing is bound after the end").append(binding.clone());
    }

    /// Where the input stands after this epoch; epochs come in order.
    pub fn advance(&self, binding: &Binding) -> Positions {
        let mut positions = self.positions.lock().expect("no panic under the lock");
        positions.extend(binding.offsets.iter().map(|(place, (_, to))| (*place, *to)));
        positions.clone()
    }

    /// Orders to forget that an epoch took in: remembered before any snapshot holds the epoch. Call it before any worker sees that.
    pub fn note(&self, orders: Vec<Order>) {
        if !orders.is_empty() {
            self.awaited.lock().expect("no panic under the lock").extend(orders.iter().map(|order| order.epoch));
            let _ended = self.sender.send(Due::Orders(orders)); // a keeper that ended has said why
        }
    }

    /// What hears how far the store is.
    pub fn on_shown(&self) -> impl Fn(u64) + Send + 'static {
        let (awaited, sender) = (self.awaited.clone(), self.sender.clone());
        move |epoch| {
            let mut awaited = awaited.lock().expect("no panic under the lock");
            if awaited.first().is_some_and(|first| *first <= epoch) {
                awaited.retain(|waiting| *waiting > epoch);
                let _ended = sender.send(Due::Shown(epoch));
            }
        }
    }

    /// Where snapshots are left.
    pub fn desk(&self) -> Desk {
        Desk(self.sender.clone())
    }

    /// Nothing more is bound: makes durable what was, and lets go of whoever hears of it.
    pub fn end_log(&self) {
        self.closing.store(true, Ordering::Release);
        let log = self.log.lock().expect("no panic under the lock").take();
        log.into_iter().for_each(EpochLog::close);
    }

    /// Finishes what was begun. Every desk must be gone.
    pub fn close(self) {
        self.end_log();
        drop(self.sender);
        self.thread.join().expect("the keeper does not panic");
    }
}

/// Does it on a thread before which whoever computes or answers goes. (A thread that stood back cannot come forward again.)
fn standing_back(run: impl FnOnce() + Send) {
    let back = || {
        aside::stand_back();
        run();
    };
    std::thread::scope(|scope| scope.spawn(back).join()).expect("the keeper does not panic");
}

/// What the keeper's thread works with.
struct Commits {
    state: Arc<State>,
    names: Arc<Names>,
    config: String,
    workers: usize,
    keep: usize,
    /// False once what was handed over is a snapshot.
    done: Arc<AtomicBool>,
    privacy: Privacy,
}

impl Commits {
    fn take(&mut self, due: Due) {
        let done = match due {
            Due::Orders(orders) => self.privacy.accept(&orders, now_ms()),
            Due::Shown(epoch) => self.privacy.apply(epoch, now_ms()),
            Due::Snapshot(taken) => self.commit_and_purge(*taken),
        };
        if let Err(error) = done {
            tracing::error!(error, "an order to forget is carried out and cannot be followed to its end; it is tried again");
        }
    }

    fn commit_and_purge(&mut self, taken: Taken) -> Result<(), String> {
        let (epoch, leaving) = (taken.epoch.number, writer::leaving(std::slice::from_ref(&taken.left)));
        let committed = self.commit(taken);
        self.done.store(false, Ordering::Release);
        if committed { self.privacy.purge(&self.state, epoch, &leaving?, now_ms()) } else { Ok(()) }
    }

    fn commit(&self, taken: Taken) -> bool {
        let (epoch, began) = (taken.epoch, Instant::now());
        let committed = self.state.commit(&taken.snapshot(&self.names, &self.config, self.workers), self.keep);
        match &committed {
            Ok(committed) => {
                gauge!(telemetry::SNAPSHOT_SECONDS).set(began.elapsed().as_secs_f64());
                gauge!(telemetry::SNAPSHOT_EPOCH).set(epoch.number as f64);
                gauge!(telemetry::SNAPSHOT_BYTES).set(committed.bytes as f64);
                let (files, written, bytes) = (committed.files, committed.written, committed.bytes);
                tracing::debug!(epoch = epoch.number, files, written, bytes, "snapshot");
            }
            Err(error) => {
                counter!(telemetry::SNAPSHOT_ERRORS).increment(1);
                tracing::error!(epoch = epoch.number, %error, "the snapshot was not taken; the one before stays");
            }
        }
        committed.is_ok()
    }
}

/// One part per operator, of all workers.
fn whole(parts: impl Iterator<Item = Part>) -> Vec<Part> {
    let mut by_uid: BTreeMap<String, Vec<Saved>> = BTreeMap::new();
    parts.for_each(|part| by_uid.entry(part.uid).or_default().extend(part.entries));
    by_uid.into_iter().map(|(uid, entries)| Part { uid, entries }).collect()
}

fn save_names(names: &Names) -> Part {
    let tables = [(0u8, &names.users), (1, &names.items), (2, &names.tokens)];
    let entry = |kind: u8, (hash, name): (u64, Arc<str>)| {
        let payload = [&[kind], name.as_bytes()].concat();
        Saved { group: key_group(hash), shared: true, payload }
    };
    let known = tables.into_iter().flat_map(|(kind, table)| table.all().into_iter().map(move |named| entry(kind, named)));
    let said = names.all_said().into_iter().map(|(user, token)| {
        let payload = [&[3], &user.0.to_le_bytes()[..], token.as_bytes()].concat();
        Saved { group: key_group(user.0), shared: true, payload }
    });
    Part { uid: NAMES.to_string(), entries: known.chain(said).collect() }
}

fn load_names(parts: &[Part], names: &Names) -> Result<(), String> {
    for entry in parts.iter().filter(|part| part.uid == NAMES).flat_map(|part| &part.entries) {
        let (kind, name) = entry.payload.split_first().ok_or("the snapshot holds a name without a kind")?;
        let (user, name) = match (kind, name.split_first_chunk()) {
            (3, None) => return Err("the snapshot holds a token that nobody named".to_string()),
            (3, Some((user, name))) => (UserId(u64::from_le_bytes(*user)), name),
            _ => (UserId::default(), name),
        };
        let name = std::str::from_utf8(name).map_err(|e| format!("the snapshot holds a name that is no text: {e}"))?;
        match kind {
            0 => names.user(name).map(drop),
            1 => names.item(name).map(drop),
            2 => spelt(name).map_or(Ok(()), |(kind, bare)| names.token(kind, bare).map(drop)),
            _ => spelt(name).map_or(Ok(()), |(kind, bare)| names.said(user, kind, bare).map(drop)),
        }
        .map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// `category:jazz` as a kind and a bare name.
fn spelt(name: &str) -> Option<(TokenKind, &str)> {
    let (_, bare) = name.split_once(':')?;
    let kinds = [TokenKind::Category, TokenKind::Tag, TokenKind::Author, TokenKind::Language];
    kinds.into_iter().find(|kind| kind.spell(bare) == name).map(|kind| (kind, bare))
}

/// Of the settings that are in the state: with others it would be neither taken back exactly nor made again.
fn digest(params: &dataflows::Params) -> String {
    let baked = (
        &params.ledger,
        &params.weights,
        &params.signals,
        &params.interests,
        &params.neighbours,
        (params.learn.enabled, params.learn.links),
    );
    let mut text = serde_json::to_string(&baked).expect("settings are plain data");
    if params.factors.enabled {
        text += &serde_json::to_string(&params.factors).expect("settings are plain data");
    }
    blake3::hash(text.as_bytes()).to_hex()[..16].to_string()
}

/// `[recovery]`
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub enabled: bool,
    #[serde(with = "crate::model::time::span")]
    pub snapshot_every: Duration,
    pub snapshots_kept: usize,
    /// Where; empty: in the folder of the engine.
    pub url: String,
    #[serde(with = "crate::model::time::span")]
    pub stalled_after: Duration,
}
