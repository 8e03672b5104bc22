//! Where a process lets the others in while a cluster starts.
//!
//! The facts that must stay true: each who knocks is dealt with apart, within a time limit, so that nobody waits for a stranger; of
//! two with one number the later counts, because the earlier has died; and the door closes when the cluster has started.

use crossbeam_channel::{Receiver, Sender, unbounded};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::handshake::{self, Key, Refused, Role};
use super::member::Member;
use super::{Params, share};

/// Who may stand in the door at once; further ones are sent away.
const CROWD: usize = 256;
/// How often it is looked whether somebody knocks.
const LOOK: Duration = Duration::from_millis(20);

/// An open door.
pub struct Door {
    expected: Range<usize>,
    guests: Receiver<(usize, TcpStream)>,
    closed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Who deals with a knock.
#[derive(Clone)]
struct Porter {
    key: Key,
    me: Member,
    role: Role,
    time: Duration,
    crowd: Arc<AtomicUsize>,
    lets_in: Sender<(usize, TcpStream)>,
}

impl Door {
    /// Lets in whoever has a higher number than `me`.
    pub fn open(listener: TcpListener, key: Key, me: Member, role: Role, params: &Params) -> Self {
        let (lets_in, guests) = unbounded();
        let (closed, expected) = (Arc::new(AtomicBool::new(false)), me.process + 1..me.processes);
        let porter = Porter { key, me, role, time: params.handshake_timeout, crowd: Arc::default(), lets_in };
        let told = closed.clone();
        let thread = std::thread::Builder::new().name("door".into()).spawn(move || porter.wait(&listener, &told));
        Self { expected, guests, closed, thread: Some(thread.expect("a thread can be started")) }
    }

    /// The numbers of those who are to come.
    pub fn expected(&self) -> Range<usize> {
        self.expected.clone()
    }

    /// Whoever came in, after at most `wait`.
    pub fn next(&self, wait: Duration) -> Option<(usize, TcpStream)> {
        self.guests.recv_timeout(wait).ok()
    }
}

impl Drop for Door {
    /// The address is free when this returns.
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
        let ended = self.thread.take().map(JoinHandle::join);
        debug_assert!(ended.is_none_or(|ended| ended.is_ok()), "the porter does not panic");
    }
}

impl Porter {
    fn wait(&self, listener: &TcpListener, closed: &AtomicBool) {
        if let Err(error) = listener.set_nonblocking(true) {
            return tracing::error!(%error, "nobody can be let into the cluster");
        }
        while !closed.load(Ordering::Acquire) {
            match listener.accept() {
                Ok((stream, from)) => self.open_to(stream, from.to_string()),
                Err(_) => std::thread::sleep(LOOK), // nobody is there, or they were gone at once
            }
        }
    }

    fn open_to(&self, stream: TcpStream, from: String) {
        if self.crowd.fetch_add(1, Ordering::AcqRel) >= CROWD {
            self.crowd.fetch_sub(1, Ordering::AcqRel);
            return tracing::warn!(from, "too many connect at once: sent away");
        }
        let (porter, crowd) = (self.clone(), self.crowd.clone());
        let knocked = std::thread::Builder::new().name("knock".into()).spawn(move || {
            porter.let_in(stream, &from);
        });
        if let Err(error) = knocked {
            crowd.fetch_sub(1, Ordering::AcqRel);
            tracing::warn!(%error, "somebody who connects cannot be dealt with");
        }
    }

    fn let_in(&self, mut stream: TcpStream, from: &str) {
        let shaken = stream.set_nonblocking(false).map_err(Refused::from);
        let shaken = shaken.and_then(|()| handshake::shake(&mut stream, &self.key, self.role, &self.me, self.time));
        self.crowd.fetch_sub(1, Ordering::AcqRel);
        match shaken {
            Ok(theirs) => {
                if self.role == Role::Leader && share::await_ready(&mut stream).is_err() {
                    return tracing::info!(process = theirs.process, from, "a process of the cluster went away again");
                }
                tracing::info!(process = theirs.process, from, "a process of the cluster is there");
                let _closed = self.lets_in.send((theirs.process, stream));
            }
            Err(Refused::Io(reason)) => tracing::info!(from, reason, "somebody connected to the cluster and was sent away"),
            Err(refused) => tracing::warn!(from, reason = %refused, "a process is refused"),
        }
    }
}
