//! A load over kept connections, from a thread of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::percentile;

/// Answers a second, and how long each took, milliseconds.
pub struct Load {
    pub rate: f64,
    pub took: Vec<f64>,
}

impl Load {
    /// The time that this share of the answers took at most.
    pub fn p(&self, share: f64) -> f64 {
        percentile(&mut self.took.clone(), share)
    }
}

/// When a connection asks again.
#[derive(Clone, Copy)]
pub enum Pace {
    /// So long after an answer.
    After(Duration),
    /// So many times a second, all connections together, whether answers come or not. How long one took counts from when it was due, or
    /// from when the timer woke its connection; what was due and could not be sent by the end lowers the rate and is not in the times.
    Rate(f64),
}

/// Asks over kept connections.
pub fn load(addr: SocketAddr, asked: &Arc<Vec<Vec<u8>>>, connections: usize, seconds: f64, pace: Pace) -> Load {
    let asked = asked.clone();
    let run = async move {
        let begun = Instant::now();
        let until = begun + Duration::from_secs_f64(seconds);
        let mut clients = tokio::task::JoinSet::new();
        for n in 0..connections {
            let due = move |asked: usize, answered: Instant| match pace {
                Pace::After(pause) => answered + pause,
                Pace::Rate(rate) => begun + Duration::from_secs_f64((asked * connections + n) as f64 / rate),
            };
            clients.spawn(client(addr, asked.clone(), n * asked.len() / connections, until, due));
        }
        clients.join_all().await.concat()
    };
    let thread = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(run)
    });
    let took = thread.join().expect("the load ends");
    Load { rate: took.len() as f64 / seconds, took }
}

async fn client(
    addr: SocketAddr,
    asked: Arc<Vec<Vec<u8>>>,
    first: usize,
    until: Instant,
    due: impl Fn(usize, Instant) -> Instant,
) -> Vec<f64> {
    let mut stream = tokio::net::TcpStream::connect(addr).await.expect("it listens");
    stream.set_nodelay(true).expect("it can be set");
    let (mut took, mut buffer) = (Vec::new(), Vec::with_capacity(65_536));
    let mut next = due(0, Instant::now());
    for request in asked.iter().cycle().skip(first) {
        if next > Instant::now() {
            tokio::time::sleep_until(next.into()).await;
            next = Instant::now(); // a timer is a millisecond late, which is not the shim's
        }
        if Instant::now() >= until {
            break;
        }
        stream.write_all(request).await.expect("open");
        buffer.clear();
        while !whole(&buffer) {
            assert!(stream.read_buf(&mut buffer).await.expect("an answer") > 0, "an honest connection was cut");
        }
        took.push(next.elapsed().as_secs_f64() * 1e3);
        next = due(took.len(), Instant::now());
    }
    took
}

/// Whether it is a whole answer; one that is not 200 ends the benchmark.
fn whole(bytes: &[u8]) -> bool {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = std::str::from_utf8(&bytes[..end]).expect("a head is text");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    bytes.len() >= end + 4 + length.parse::<usize>().expect("a number")
}
