//! Real servers for tests: each on free ports of this machine, in a folder of its own, gone when it is dropped or the test
//! process ends, however it ends.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

#[cfg(feature = "redis")]
pub mod actions;
pub mod authority;
#[cfg(feature = "redis")]
pub mod engines;
#[cfg(feature = "fluvio")]
pub mod fluvio;
pub mod input;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod redis;
#[cfg(all(feature = "kafka", feature = "redis"))]
pub mod topics;

/// What a test says when a server is not installed.
pub const MISSING: &str = "run `make test`, which installs it";

/// Longer than anything here takes on any machine.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// Waits for something.
pub fn until<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(there) = there() {
            return there;
        }
        assert!(Instant::now() < give_up, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until something is so.
pub fn wait(what: &str, mut so: impl FnMut() -> bool) {
    until(what, || so().then_some(()));
}

/// A server that lives no longer than this process.
pub struct Server {
    shell: Child,
    says: BufReader<ChildStdout>,
}

impl Server {
    /// Starts a command, its output in `<dir>/server.log`. It runs under a shell that sends it the signals it is told, and starts it
    /// again; when its own input ends, which happens when this process dies as well, it ends the server and removes `dir`.
    pub fn start(dir: &Path, program: &str, args: &[&str]) -> Server {
        let script = r#"dir=$1; shift; "$@" >"$dir/server.log" 2>&1 & pid=$!
            while read word; do
                case $word in
                    START) "$@" >>"$dir/server.log" 2>&1 & pid=$! ;;
                    *) kill -"$word" $pid 2>/dev/null; wait $pid 2>/dev/null; echo ended ;;
                esac
            done
            kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null; rm -rf "$dir""#;
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(dir).arg(program).args(args);
        let shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut shell = shell.expect("a POSIX shell is there");
        let says = BufReader::new(shell.stdout.take().expect("it is piped"));
        Server { shell, says }
    }

    /// Sends the server a signal, `KILL` or `TERM`, and waits until it has ended. Its folder stays.
    pub fn end(&mut self, signal: &str) {
        self.tell(signal);
        self.says.read_line(&mut String::new()).expect("the shell says when the server has ended");
    }

    /// Starts it once more, in the folder as it is.
    pub fn start_again(&mut self) {
        self.tell("START");
    }

    fn tell(&mut self, word: &str) {
        let ear = self.shell.stdin.as_mut().expect("it is piped");
        writeln!(ear, "{word}").expect("the shell listens");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Only then is its port free and its folder gone.
        let _ = self.shell.wait();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// A folder that its server removes.
pub fn server_dir() -> std::path::PathBuf {
    tempfile::tempdir().expect("a temporary folder can be made").keep()
}

/// The last lines of what the server in `dir` said.
pub fn said(dir: &Path) -> String {
    let log = std::fs::read_to_string(dir.join("server.log")).unwrap_or_default();
    let lines: Vec<_> = log.lines().rev().take(15).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
