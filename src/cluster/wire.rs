//! Bytes over a connection that may be anybody's: framed, bounded, and all within a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Two processes that do not speak: after this silence the kernel asks whether the other is there, …
const SILENCE: Duration = Duration::from_secs(10);
/// … so many times.
const ASKED: u32 = 3;

/// Bytes both ways, with a limit on how long one call waits.
pub trait Stream: Read + Write {
    /// The next reads and writes wait at most so long.
    fn wait_at_most(&self, time: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

/// A connection on which everything must be done by a moment.
pub struct Timed<'a, S> {
    stream: &'a mut S,
    until: Instant,
}

impl<'a, S: Stream> Timed<'a, S> {
    /// From now on for so long.
    pub fn new(stream: &'a mut S, time: Duration) -> Self {
        Self { stream, until: Instant::now() + time }
    }

    fn keep_time(&self) -> io::Result<()> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, "it took too long"));
        }
        self.stream.wait_at_most(left)
    }

    /// Reads exactly so many bytes.
    pub fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads a frame of at most `most` bytes.
    pub fn frame(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let length = u32::from_be_bytes(self.take()?) as usize;
        if length > most {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("a message of {length} bytes, {most} are allowed")));
        }
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, mut rest: &mut [u8]) -> io::Result<()> {
        while !rest.is_empty() {
            self.keep_time()?;
            match self.stream.read(rest) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the connection was closed")),
                Ok(read) => rest = &mut rest[read..],
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {} // the deadline is looked at above
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes bytes as they are.
    pub fn give(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.keep_time()?;
        self.stream.write_all(bytes)
    }

    /// Writes a frame.
    pub fn give_frame(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length =
            u32::try_from(bytes.len()).map_err(|_| io::Error::new(ErrorKind::InvalidInput, "a message too long to send"))?;
        self.give(&[&length.to_be_bytes(), bytes].concat())
    }
}

/// A connection to `host:port`.
pub fn connect(host: &str, time: Duration) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, time) {
            // where nobody listens, the system can connect a socket to itself
            Ok(stream) if stream.local_addr()? == address => failed = ErrorKind::ConnectionRefused.into(),
            Ok(stream) => return Ok(stream),
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

/// Asks the kernel to notice a peer whose machine is gone.
pub fn tend(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENCE)?;
    sockopt::set_tcp_keepintvl(stream, SILENCE / 2)?;
    sockopt::set_tcp_keepcnt(stream, ASKED)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, u32::try_from(patience.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// No deadline of ours is left.
pub fn release(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    tend(stream, patience)
}
