//! A Redis server of the test's own, on a free port, gone when the value is dropped.

// Each test file uses another part of it.
#![allow(dead_code)]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to answer before the test is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; nothing it holds outlives it.
pub struct RedisServer {
    child: Child,
    /// It speaks nothing but TLS.
    secured: bool,
    port: u16,
    dir: tempfile::TempDir,
    extra: Vec<String>,
}

impl RedisServer {
    /// A server that keeps nothing on disk.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with further options, for instance `["--requirepass", "secret"]`.
    pub fn start_with(extra: &[&str]) -> Self {
        Self::start_as(false, extra)
    }

    /// A server that speaks nothing but TLS: with this certificate, its key and that authority for certificates of clients.
    pub fn start_secured([cert, key, ca]: [&Path; 3], extra: &[&str]) -> Self {
        let [cert, key, ca] = [cert, key, ca].map(|path| path.to_str().expect("a plain path"));
        let tls = ["--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca];
        Self::start_as(true, &[&tls, extra].concat())
    }

    fn start_as(secured: bool, extra: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a folder for the server");
        let extra: Vec<String> = extra.iter().map(|s| s.to_string()).collect();
        let port = free_port();
        let mut server = Self { child: spawn(secured, port, &dir, &extra), secured, port, dir, extra };
        let give_up = Instant::now() + PATIENCE;
        while !server.answers(give_up) {
            assert!(Instant::now() < give_up, "redis-server does not start: {}", server.log());
            // Somebody took the port in between: another one.
            server.kill();
            server.port = free_port();
            server.child = spawn(secured, server.port, &server.dir, &server.extra);
        }
        server
    }

    /// `redis://127.0.0.1:<port>/0`, over TLS `rediss://`
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}/0", if self.secured { "rediss" } else { "redis" }, self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Holds it: connections stay open, and nothing comes.
    pub fn hang(&self) {
        self.tell(Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.tell(Signal::CONT);
    }

    fn tell(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Whether it keeps on disk what it has acknowledged.
    pub fn keeps(&self) -> bool {
        self.extra.iter().any(|option| option == "--appendonly")
    }

    /// Has it put a copy of everything on disk: what it is when it is started again.
    pub fn copy(&self) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the server answers");
        stream.write_all(b"SAVE\r\n").expect("the server answers");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("the server answers");
        assert_eq!(&answer, b"+OK\r\n", "it saves");
    }

    /// Starts it again on the same port, with what it kept on disk.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.secured, self.port, &self.dir, &self.extra);
        assert!(self.answers(Instant::now() + PATIENCE), "redis-server does not start again: {}", self.log());
    }

    /// Waits until it answers. `false`: it has ended, or time is up.
    fn answers(&mut self, give_up: Instant) -> bool {
        while Instant::now() < give_up && matches!(self.child.try_wait(), Ok(None)) {
            if self.secured && TcpStream::connect(("127.0.0.1", self.port)).is_ok() || !self.secured && ping(self.port) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

fn spawn(secured: bool, port: u16, dir: &tempfile::TempDir, extra: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    let (plain, tls) = if secured { (0, port) } else { (port, 0) };
    command.args(["--port", &plain.to_string(), "--tls-port", &tls.to_string()]);
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--logfile", "log"]);
    command.arg("--dir").arg(dir.path()).args(extra).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server is on the PATH (apt-get install redis-server)")
}

/// Whether a ready server answers: loading ones and strangers do not count, one that asks for a password does.
fn ping(port: u16) -> bool {
    let asked = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    matches!(asked().as_ref().map(|a| &a[..]), Ok(b"+PONG\r\n" | b"-NOAUTH"))
}

/// What a reader of the server sees, as the store in memory dumps itself: without what stays of deleted keys, and without the fence
/// of sorted sets (that of values and hashes is part of them).
#[cfg(feature = "redis")]
pub fn dump(redis: &mut redis::Connection) -> std::collections::BTreeMap<String, overdrive::sinks::memory::Dumped> {
    use overdrive::sinks::{layout, memory::Dumped};
    let mut all = raw_dump(redis);
    all.retain(|_, dumped| match dumped {
        Dumped::Value(value) => !layout::is_deleted_value(value),
        Dumped::Fields(fields) => !layout::is_deleted_fields(fields),
        Dumped::Ranked(members) => {
            members.retain(|(_, score)| *score > f64::NEG_INFINITY);
            !members.is_empty()
        }
    });
    all
}

/// Everything a server holds, but the lease: that is between writers.
#[cfg(feature = "redis")]
pub fn raw_dump(redis: &mut redis::Connection) -> std::collections::BTreeMap<String, overdrive::sinks::memory::Dumped> {
    use overdrive::sinks::memory::Dumped;
    let mut keys: Vec<String> = ask(redis, &["KEYS", "*"]);
    keys.retain(|key| key != "od:lease");
    let dump_key = |key: &String| match ask::<String>(redis, &["TYPE", key]).as_str() {
        "string" => ask::<Option<Vec<u8>>>(redis, &["GET", key]).map(|value| Dumped::Value(value.into())),
        "hash" => Some(Dumped::Fields(ask(redis, &["HGETALL", key]))),
        "zset" => Some(Dumped::Ranked(ask(redis, &["ZREVRANGE", key, "0", "-1", "WITHSCORES"]))),
        "none" => None, // it expired in between
        other => panic!("{key} is a {other}"),
    };
    let dumped: Vec<_> = keys.iter().map(dump_key).collect();
    keys.into_iter().zip(dumped).filter_map(|(key, dumped)| Some((key, dumped?))).collect()
}

#[cfg(feature = "redis")]
fn ask<T: redis::FromRedisValue>(redis: &mut redis::Connection, command: &[&str]) -> T {
    redis::cmd(command[0]).arg(&command[1..]).query(redis).expect("the server answers")
}
