//! Real servers for tests: each on free ports of this machine, in a folder of its own, gone when it is dropped or the test
//! process ends, however it ends.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

#[cfg(feature = "redis")]
pub mod engines;
#[cfg(feature = "fluvio")]
pub mod fluvio;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod redis;

/// What a test says when a server is not installed.
pub const MISSING: &str = "run `make test`, which installs it";

/// A server that lives no longer than this process.
pub struct Server {
    shell: Child,
}

impl Server {
    /// Starts a command, its output in `<dir>/server.log`. It runs under a shell that waits for its own input to end, which
    /// happens when this process dies as well, and then ends the server and removes `dir`.
    pub fn start(dir: &Path, program: &str, args: &[&str]) -> Server {
        let script = r#"dir=$1; shift; "$@" >"$dir/server.log" 2>&1 & pid=$!
            read _; kill -9 $pid 2>/dev/null; wait $pid 2>/dev/null; rm -rf "$dir""#;
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(dir).arg(program).args(args);
        let shell = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Server { shell: shell.expect("a POSIX shell is there") }
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
