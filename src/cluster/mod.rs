//! Several processes that compute together: who they are, how they prove it to each other, and the connections between them.
//!
//! ```text
//! process 0 ── claims the generation, restores ──▶ listens ─┬─ handshake ─ ready ─ its share of the state, go ─▶ process 1
//!           (source, feed, epoch log, snapshots, writer)    └─ handshake ─ ready ─ its share of the state, go ─▶ process 2
//!                                                                    process 1 ◀─ handshake ─ process 2
//! ```
//! The facts that must stay true: a connection is handed over only when both ends have proven the secret and are the same program
//! under the same settings, in one generation; whatever else connects is closed, told of, and never waited for; and nothing starts
//! before every process is there.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::model::time::span;
use crate::model::{Part, Secret};

mod door;
pub mod handshake;
mod hosts;
pub mod member;
mod share;
pub mod wire;

use door::Door;
use handshake::{Key, Refused, Role};
use hosts::Hosts;
pub use member::Member;

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub processes: usize,
    pub process: usize,
    pub hosts: PathBuf,
    pub name: String,
    pub secret: Secret,
    #[serde(with = "span")]
    pub handshake_timeout: Duration,
    #[serde(with = "span")]
    pub peer_timeout: Duration,
}

/// Why the processes do not come together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// Another start may help.
    #[error("{0}")]
    Retry(String),
    /// Somebody must change something.
    #[error("{0}")]
    Stop(String),
}

/// A connection to each other process, by its number; `None` to this one.
pub type Sockets = Vec<Option<TcpStream>>;

/// Between two tries to reach a process.
const AGAIN: Duration = Duration::from_millis(250);
/// How often it is said who is missing.
const SAY: Duration = Duration::from_secs(10);

/// What everybody needs to connect.
struct Post<'a> {
    hosts: &'a Hosts,
    key: &'a Key,
    params: &'a Params,
}

/// Process 0: waits for all others, then gives each its share of the state.
pub fn lead(params: &Params, me: &Member, share_of: impl Fn(usize) -> Vec<Part>) -> Result<Sockets, ClusterError> {
    let hosts = Hosts::read(params)?;
    let listener = listen(hosts.of(0))?;
    let key = Key::of(params.secret.reveal());
    let mut sockets = everybody(Door::open(listener, key, me.clone(), Role::Leader, params))?;
    for (process, socket) in sockets.iter_mut().enumerate() {
        if let Some(socket) = socket {
            share::send(socket, share_of(process), params.peer_timeout)
                .map_err(|e| ClusterError::Retry(format!("process {process} was lost while it was given its state: {e}")))?;
        }
    }
    released(sockets, params)
}

/// Waits until everybody is there and alive.
fn everybody(door: Door) -> Result<Sockets, ClusterError> {
    let mut present = BTreeMap::new();
    let mut said = Instant::now();
    loop {
        present.extend(door.next(AGAIN));
        present.retain(|_, socket| lives(socket));
        let missing: Vec<usize> = door.expected().filter(|process| !present.contains_key(process)).collect();
        if missing.is_empty() {
            return Ok(seated(present, door.expected().end));
        }
        if said.elapsed() > SAY {
            said = Instant::now();
            tracing::info!(?missing, "waiting for the other processes of the cluster");
        }
    }
}

fn seated(present: BTreeMap<usize, TcpStream>, processes: usize) -> Sockets {
    let mut sockets: Sockets = (0..processes).map(|_| None).collect();
    present.into_iter().for_each(|(process, socket)| sockets[process] = Some(socket));
    sockets
}

/// What another process than 0 is given.
pub struct Joined {
    pub sockets: Sockets,
    pub generation: u32,
    /// What the operators of this process's workers kept.
    pub share: Vec<Part>,
}

/// Another process than 0: comes to the others, and waits for its share of the state. `me` is without a generation.
pub fn follow(params: &Params, me: &Member) -> Result<Joined, ClusterError> {
    let (hosts, key) = (Hosts::read(params)?, Key::of(params.secret.reveal()));
    let last = me.process + 1 == me.processes;
    let listener = (!last).then(|| listen(hosts.of(me.process))).transpose()?;
    let post = Post { hosts: &hosts, key: &key, params };
    let mut told = None;
    loop {
        match post.join(me, listener.as_ref()) {
            Err(ClusterError::Retry(reason)) => {
                if told.as_ref() != Some(&reason) {
                    tracing::warn!(reason, "the cluster did not come together; trying again");
                    told = Some(reason);
                }
                std::thread::sleep(AGAIN);
            }
            done => return done,
        }
    }
}

impl Post<'_> {
    fn join(&self, me: &Member, listener: Option<&TcpListener>) -> Result<Joined, ClusterError> {
        let (mut leader, theirs) = self.dial(0, me, || true)?;
        let generation = theirs.generation.ok_or_else(|| ClusterError::Retry("process 0 has no generation yet".into()))?;
        let me = Member { generation: Some(generation), ..me.clone() };
        let watched = leader.try_clone().map_err(|e| ClusterError::Retry(e.to_string()))?;
        let mut present = BTreeMap::new();
        for process in 1..me.process {
            present.insert(process, self.dial(process, &me, || lives(&watched))?.0);
        }
        if let Some(listener) = listener {
            let listener = listener.try_clone().map_err(|e| ClusterError::Retry(e.to_string()))?;
            let door = Door::open(listener, self.key.clone(), me.clone(), Role::Follower, self.params);
            while door.expected().any(|process| !present.contains_key(&process)) {
                self.still(&watched)?;
                present.extend(door.next(AGAIN));
            }
        }
        let share =
            share::receive(&mut leader).map_err(|e| ClusterError::Retry(format!("process 0 went away before the start: {e}")))?;
        present.insert(0, leader);
        let sockets = released(seated(present, me.processes), self.params)?;
        Ok(Joined { sockets, generation, share })
    }

    fn still(&self, leader: &TcpStream) -> Result<(), ClusterError> {
        if lives(leader) { Ok(()) } else { Err(ClusterError::Retry("process 0 went away before the start".into())) }
    }

    /// Connects to a process, until `go_on` says that it is of no use.
    fn dial(&self, process: usize, me: &Member, go_on: impl Fn() -> bool) -> Result<(TcpStream, Member), ClusterError> {
        let (host, mut said) = (self.hosts.of(process), Instant::now());
        while go_on() {
            let tried = wire::connect(host, self.params.handshake_timeout).map_err(Refused::from);
            match tried.and_then(|mut stream| {
                let theirs = handshake::shake(&mut stream, self.key, Role::Guest, me, self.params.handshake_timeout)?;
                Ok((stream, theirs))
            }) {
                Ok((stream, theirs)) if theirs.process == process => return Ok((stream, theirs)),
                Ok((_, theirs)) => {
                    let they = theirs.process;
                    return Err(ClusterError::Stop(format!(
                        "process {they} answers at {host}, where line {} of {} has process {process}; give all processes the same file",
                        process + 1,
                        self.params.hosts.display()
                    )));
                }
                Err(Refused::Stranger(what)) => return Err(ClusterError::Stop(format!("process {process} at {host}: {what}"))),
                Err(Refused::Differs(what)) => return Err(ClusterError::Stop(format!("process {process} at {host}: {what}"))),
                Err(Refused::Generation(what)) => {
                    return Err(ClusterError::Retry(format!("process {process} at {host}: {what}")));
                }
                Err(Refused::Io(what)) => {
                    if said.elapsed() > SAY {
                        said = Instant::now();
                        tracing::info!(process, host, what, "waiting for another process of the cluster");
                    }
                    std::thread::sleep(AGAIN);
                }
            }
        }
        Err(ClusterError::Retry("process 0 went away before the start".into()))
    }
}

fn listen(host: &str) -> Result<TcpListener, ClusterError> {
    let failed = |e| ClusterError::Retry(format!("cannot listen at {host}, which the hosts file gives this process: {e}"));
    TcpListener::bind(host).map_err(failed)
}

/// Whether the other end is still there.
fn lives(socket: &TcpStream) -> bool {
    let looked = socket.set_nonblocking(true).and_then(|()| socket.peek(&mut [0]));
    let blocks_again = socket.set_nonblocking(false).is_ok();
    let there = match looked {
        Ok(bytes) => bytes > 0,
        Err(e) => e.kind() == std::io::ErrorKind::WouldBlock,
    };
    blocks_again && there
}

/// Ready to be handed over: no deadline of ours is left on them, only the kernel's on a peer that does not answer.
fn released(sockets: Sockets, params: &Params) -> Result<Sockets, ClusterError> {
    for socket in sockets.iter().flatten() {
        wire::release(socket, params.peer_timeout)
            .map_err(|e| ClusterError::Retry(format!("a connection of the cluster cannot be set up: {e}")))?;
    }
    Ok(sockets)
}
