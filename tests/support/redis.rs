//! A real `redis-server`, without persistence.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{MISSING, Server, free_port, said, server_dir};

/// Killed on drop.
pub struct RedisServer {
    _server: Server,
    port: u16,
}

impl RedisServer {
    /// On a free port, answering.
    pub fn start() -> RedisServer {
        Self::start_on(free_port())
    }

    /// On a given port: for a server that comes back.
    pub fn start_on(port: u16) -> RedisServer {
        let installed = std::process::Command::new("redis-server").arg("--version").output().is_ok();
        assert!(installed, "redis-server is missing: {MISSING}");
        let dir = server_dir();
        let (folder, number) = (dir.to_string_lossy(), port.to_string());
        let args = ["--bind", "127.0.0.1", "--port", &number, "--dir", &folder, "--save", "", "--appendonly", "no"];
        let server = Server::start(&dir, "redis-server", &args);
        let until = Instant::now() + Duration::from_secs(20);
        while !answers(port) {
            assert!(Instant::now() < until, "redis-server does not answer on port {port}:\n{}", said(&dir));
            std::thread::sleep(Duration::from_millis(20));
        }
        RedisServer { _server: server, port }
    }

    /// `redis://127.0.0.1:<port>/0`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut answer = [0; 7];
    stream.write_all(b"PING\r\n").and_then(|()| stream.read_exact(&mut answer)).is_ok() && &answer == b"+PONG\r\n"
}
