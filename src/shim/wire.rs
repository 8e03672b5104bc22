//! A TCP stream that gives up on a client that dribbles: a request's head must be complete within a deadline from its first
//! byte (from the connection's opening for the first one), and an answer must keep being taken.
//!
//! Hyper has a timer for heads, but only one: it also runs between requests, where a client may rest for longer. So hyper's
//! measures the rest and this one the head.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// No request yet, or the next one is awaited.
const WAITING: u8 = 0;
/// A request is being answered.
const BUSY: u8 = 1;
/// It is answered, and the wire has not looked since.
const ANSWERED: u8 = 2;

/// What a connection is doing; told by the service, read by the wire.
#[derive(Clone, Default)]
pub struct Busy(Arc<AtomicU8>);

impl Busy {
    /// A head is complete: the request's own time limit holds from here.
    pub fn begin(&self) {
        self.0.store(BUSY, Ordering::Relaxed);
    }

    /// The answer is handed over.
    pub fn end(&self) {
        self.0.store(ANSWERED, Ordering::Relaxed);
    }

    /// Whether the head read so far is done with; an answered request gives way to the next.
    fn past_head(&self) -> bool {
        match self.0.compare_exchange(ANSWERED, WAITING, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => true,
            Err(now) => now == BUSY,
        }
    }
}

/// The stream with its two deadlines.
pub struct Wire<S> {
    stream: S,
    busy: Busy,
    head: Deadline,
    taken: Deadline,
}

impl<S> Wire<S> {
    /// `head`: for the head of a request. `stall`: for the client to take more of an answer.
    pub fn new(stream: S, busy: Busy, head: Duration, stall: Duration) -> Self {
        let mut wire = Self { stream, busy, head: Deadline::new(head), taken: Deadline::new(stall) };
        wire.head.start();
        wire
    }

    /// What the stream said of giving something to the client, or that it has waited too long. Over TLS it is the flush that waits:
    /// what is written goes to a buffer first.
    fn in_time<T>(&mut self, context: &mut Context<'_>, said: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if said.is_ready() {
            self.taken.stop();
            return said;
        }
        self.taken.start();
        self.taken.poll(context, "the client does not take its answer").map(Err)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.busy.past_head() {
            self.head.stop();
        }
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(done) => {
                if self.busy.0.load(Ordering::Relaxed) == WAITING {
                    self.head.start();
                }
                Poll::Ready(done)
            }
            Poll::Pending => self.head.poll(context, "the head of a request took too long").map(Err),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.in_time(context, said)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.in_time(context, said)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let said = Pin::new(&mut self.stream).poll_flush(context);
        self.in_time(context, said)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let said = Pin::new(&mut self.stream).poll_shutdown(context);
        self.in_time(context, said)
    }
}

/// A moment after which waiting is an error; stopped, it never comes.
struct Deadline {
    after: Duration,
    running: bool,
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    fn new(after: Duration) -> Self {
        Self { after, running: false, sleep: Box::pin(sleep_until(Instant::now())) }
    }

    /// Begins to run, if it does not run already: more bytes do not move it.
    fn start(&mut self) {
        if !self.running {
            self.running = true;
            self.sleep.as_mut().reset(Instant::now() + self.after);
        }
    }

    fn stop(&mut self) {
        self.running = false;
    }

    fn poll(&mut self, context: &mut Context<'_>, passed: &'static str) -> Poll<io::Error> {
        if !self.running {
            return Poll::Pending;
        }
        ready!(self.sleep.as_mut().poll(context));
        self.running = false;
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, passed))
    }
}
