//! Keeps an engine running: starts it as a child, starts it again when it dies, and gives up when that does not help.
//!
//! The facts that must stay true: a child that ends well, or says that starting it again is of no use, is not started again; whoever
//! stops the supervisor stops the child; a child never outlives its supervisor; and one that is held (SIGSTOP) is ended, because
//! its peers in a cluster wait for it.

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::collections::VecDeque;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use crate::model::time::span;

/// `[supervisor]`
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub restarts: usize,
    #[serde(with = "span")]
    pub within: Duration,
    #[serde(with = "span")]
    pub first_pause: Duration,
    #[serde(with = "span")]
    pub longest_pause: Duration,
}

/// Exit codes after which another start would end the same: a wrong command line or setting, and what a person must repair.
pub const LASTING: [i32; 2] = [2, 78];

/// How often the child is looked after.
const LOOK: Duration = Duration::from_millis(50);

/// What lies between two looks counts for so much at most: the supervisor may have been held itself.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// The child's last word.
    Code(u8),
    /// It died too often, or cannot be started.
    GivenUp(String),
}

/// When a child that died is started again. Pure: the time is handed in.
struct Restarts {
    params: Params,
    died: VecDeque<Instant>,
    /// Died soon after their start, one after another.
    in_a_row: u32,
}

impl Restarts {
    /// How long to wait before the next start; `None`: it is of no use.
    fn after(&mut self, now: Instant, lived: Duration) -> Option<Duration> {
        self.died.push_back(now);
        while self.died.front().is_some_and(|then| now.duration_since(*then) > self.params.within) {
            self.died.pop_front();
        }
        self.in_a_row = if lived > self.params.longest_pause { 0 } else { self.in_a_row.saturating_add(1) };
        let doubled = 1u32 << self.in_a_row.saturating_sub(1).min(16);
        let pause = (self.params.first_pause * doubled).min(self.params.longest_pause);
        (self.died.len() <= self.params.restarts).then_some(pause)
    }
}

/// Starts a child with `start` until it ends for good. `signals` are passed on to it; `held` is how long it may be stopped.
pub fn supervise(
    mut start: impl FnMut() -> io::Result<Child>,
    signals: &Receiver<Signal>,
    params: &Params,
    held: Duration,
) -> Ended {
    let mut restarts = Restarts { params: params.clone(), died: VecDeque::new(), in_a_row: 0 };
    loop {
        let began = Instant::now();
        let mut child = match start() {
            Ok(child) => child,
            Err(e) => return Ended::GivenUp(format!("the engine cannot be started: {e}")),
        };
        let (status, asked) = match look_after(&mut child, signals, held) {
            Ok(ended) => ended,
            Err(e) => return Ended::GivenUp(format!("the engine cannot be looked after: {e}")),
        };
        if let Some(code) = last_word(status, asked) {
            return Ended::Code(code);
        }
        let Some(pause) = restarts.after(Instant::now(), began.elapsed()) else {
            let (times, within) = (restarts.died.len(), humantime::format_duration(params.within));
            return Ended::GivenUp(format!(
                "the engine ended {times} times within {within}, at last with {status}; its log says why"
            ));
        };
        tracing::warn!(%status, ?pause, "the engine ended and is started again");
        if asked_within(pause, signals) {
            return Ended::Code(0);
        }
    }
}

/// Waits for the child's end, passing signals on. With how it ended, and the last signal that was passed on.
fn look_after(child: &mut Child, signals: &Receiver<Signal>, held: Duration) -> io::Result<(ExitStatus, Option<Signal>)> {
    let (pid, mut asked, mut stopped, mut looked) = (Pid::from_child(child), None, Duration::ZERO, Instant::now());
    loop {
        match signals.recv_timeout(LOOK) {
            Ok(signal) => {
                asked = Some(signal);
                rustix::process::kill_process(pid, signal)?; // not yet reaped: the number is still its own
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK),
        }
        if let Some(status) = child.try_wait()? {
            return Ok((status, asked));
        }
        let since = std::mem::replace(&mut looked, Instant::now()).elapsed().min(LONGEST_LOOK);
        stopped = if is_stopped(pid)? { stopped + since } else { Duration::ZERO };
        if stopped > held {
            tracing::error!(?held, "the engine was stopped (SIGSTOP) for too long: it is ended");
            child.kill()?;
        }
    }
}

fn is_stopped(pid: Pid) -> io::Result<bool> {
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(rustix::process::waitid(WaitId::Pid(pid), options)?.is_some_and(|status| status.stopped()))
}

/// The code to end with, unless the child is to be started again.
fn last_word(status: ExitStatus, asked: Option<Signal>) -> Option<u8> {
    let obeyed = asked.is_some_and(|signal| status.signal() == Some(signal.as_raw())); // it had not yet begun
    match status.code() {
        _ if obeyed => Some(0),
        Some(code) if code == 0 || asked.is_some() || LASTING.contains(&code) => Some(u8::try_from(code).unwrap_or(1)),
        None if asked.is_some() => Some(1),
        _ => None,
    }
}

/// Whether a signal came during the pause.
fn asked_within(pause: Duration, signals: &Receiver<Signal>) -> bool {
    match signals.recv_timeout(pause) {
        Ok(_) => true,
        Err(RecvTimeoutError::Timeout) => false,
        Err(RecvTimeoutError::Disconnected) => {
            std::thread::sleep(pause);
            false
        }
    }
}

/// Ends this process with its supervisor, whose id is `parent`; `false` when that has ended already.
pub fn die_with(parent: u32) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(std::os::unix::process::parent_id() == parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Sender, never, unbounded};
    use std::process::Command;

    fn params(restarts: usize) -> Params {
        let ms = Duration::from_millis;
        Params { restarts, within: Duration::from_secs(600), first_pause: ms(1), longest_pause: ms(4) }
    }

    /// A shell that appends a line to a file at each start, and then does `then`.
    fn shell(dir: &tempfile::TempDir, then: &str) -> impl FnMut() -> io::Result<Child> + use<> {
        let script = format!("echo started >>{}/starts; {then}", dir.path().display());
        move || Command::new("sh").args(["-c", &script]).spawn()
    }

    fn starts(dir: &tempfile::TempDir) -> usize {
        std::fs::read_to_string(dir.path().join("starts")).map_or(0, |text| text.lines().count())
    }

    fn send_once_started(dir: &tempfile::TempDir, signal: Signal, to: Sender<Signal>) -> std::thread::JoinHandle<()> {
        let file = dir.path().join("starts");
        std::thread::spawn(move || {
            while !file.exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            to.send(signal).expect("somebody hears");
        })
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_a_long_life_begins_anew() {
        let secs = Duration::from_secs;
        let params = Params { restarts: 20, within: secs(600), first_pause: Duration::from_millis(500), longest_pause: secs(30) };
        let mut restarts = Restarts { params, died: VecDeque::new(), in_a_row: 0 };
        let start = Instant::now();
        let pauses: Vec<_> =
            (0..8).map(|n| restarts.after(start + secs(n), secs(1)).expect("not too often").as_millis()).collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(restarts.after(start + secs(60), secs(31)), Some(Duration::from_millis(500)));
        (0..11).for_each(|n| assert!(restarts.after(start + secs(70 + n), secs(1)).is_some()));
        assert_eq!(restarts.after(start + secs(99), secs(1)), None, "the 21st within ten minutes");
        assert!(restarts.after(start + secs(900), secs(1)).is_some(), "the old ones are forgotten");
    }

    #[test]
    fn what_ends_well_or_cannot_be_helped_is_not_started_again() {
        for (script, code) in [("exit 0", 0), ("exit 2", 2), ("exit 78", 78)] {
            let dir = tempfile::tempdir().expect("a folder");
            let ended = supervise(shell(&dir, script), &never(), &params(5), Duration::from_secs(60));
            assert_eq!((ended, starts(&dir)), (Ended::Code(code), 1), "{script}");
        }
    }

    #[test]
    fn what_dies_is_started_again_until_it_is_too_often() {
        for (script, says) in [("exit 1", "exit status: 1"), ("kill -9 $$", "signal: 9")] {
            let dir = tempfile::tempdir().expect("a folder");
            let ended = supervise(shell(&dir, script), &never(), &params(3), Duration::from_secs(60));
            let Ended::GivenUp(reason) = ended else { panic!("{ended:?}") };
            assert!(reason.contains("4 times within 10m") && reason.contains(says), "{reason}");
            assert_eq!(starts(&dir), 4);
        }
    }

    #[test]
    fn a_signal_is_passed_on_and_the_answer_counts() {
        for (script, code) in [
            ("trap 'exit 7' TERM; while :; do sleep 0.01; done", 7),
            ("trap 'exit 0' TERM; while :; do sleep 0.01; done", 0),
            ("exec sleep 60", 0), // it has no handler yet
        ] {
            let (dir, (tell, signals)) = (tempfile::tempdir().expect("a folder"), unbounded());
            let told = send_once_started(&dir, Signal::TERM, tell.clone());
            let ended = supervise(shell(&dir, script), &signals, &params(5), Duration::from_secs(60));
            told.join().expect("it was told");
            // A shell that is told before it has set its trap dies of the signal, which is as good.
            assert!([Ended::Code(code), Ended::Code(0)].contains(&ended) && starts(&dir) == 1, "{script}: {ended:?}");
        }
    }

    #[test]
    fn what_is_held_for_too_long_is_ended_and_started_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let script = format!("[ $(wc -l <{}/starts) -gt 1 ] && exit 0; kill -STOP $$", dir.path().display());
        let ended = supervise(shell(&dir, &script), &never(), &params(5), Duration::from_millis(200));
        assert_eq!((ended, starts(&dir)), (Ended::Code(0), 2));
    }
}
