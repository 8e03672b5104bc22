//! What process 0 restored of the state goes to the processes whose workers keep it.
//!
//! What must stay true: a share is whole, or an error; and nobody begins before it has its share.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::Duration;

use super::wire::Timed;
use crate::model::Part;

/// A process has found all others.
const READY: u8 = b'R';
/// A piece with one very long entry is longer.
const MOST: usize = 1 << 30;
/// Until the leader has everybody together there is no telling how long it takes; a dead one is noticed all the same.
const LONG: Duration = Duration::from_secs(365 * 24 * 3600);

/// Waits for the other end to be ready.
pub fn await_ready(stream: &mut TcpStream) -> io::Result<()> {
    match Timed::new(stream, LONG).take()? {
        [READY] => Ok(()),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "it is not ready, and says something else")),
    }
}

/// Sends a share; `time` is for each piece.
pub fn send(stream: &mut TcpStream, share: Vec<Part>, time: Duration) -> io::Result<()> {
    let mut entries = 0u64;
    for piece in share.into_iter().flat_map(Part::pieces) {
        entries += piece.entries.len() as u64;
        let bytes = postcard::to_stdvec(&piece).expect("plain data has a form in bytes");
        Timed::new(stream, time).give_frame(&bytes)?;
    }
    let mut end = Timed::new(stream, time);
    end.give_frame(&[])?;
    end.give(&entries.to_be_bytes())
}

/// Says that this process is ready, and receives its share: parts, each in one or more pieces.
pub fn receive(stream: &mut TcpStream) -> io::Result<Vec<Part>> {
    Timed::new(stream, LONG).give(&[READY])?;
    let (mut share, mut entries) = (Vec::new(), 0);
    loop {
        let bytes = Timed::new(stream, LONG).frame(MOST)?;
        if bytes.is_empty() {
            break;
        }
        let unread = |e| io::Error::new(ErrorKind::InvalidData, format!("a piece of the state cannot be read: {e}"));
        let piece: Part = postcard::from_bytes(&bytes).map_err(unread)?;
        entries += piece.entries.len() as u64;
        share.push(piece);
    }
    let sent = u64::from_be_bytes(Timed::new(stream, LONG).take()?);
    if sent == entries {
        Ok(share)
    } else {
        Err(io::Error::new(ErrorKind::InvalidData, format!("{entries} entries of the state came, {sent} were sent")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Saved;
    use std::net::TcpListener;

    fn entry(group: u16, bytes: usize) -> Saved {
        Saved { group, shared: false, payload: vec![group as u8; bytes] }
    }

    #[test]
    fn a_share_comes_as_it_was_sent_in_pieces() {
        let entries = vec![entry(1, 10), entry(2, 2 << 20), entry(3, 1 << 20), entry(4, 0), entry(5, 7)];
        let share = vec![Part { uid: "a/1".into(), entries }, Part { uid: "b/1".into(), entries: vec![entry(9, 1)] }];
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut guest = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
        let mut host = listener.accept().expect("somebody came").0;
        let sent = share.clone();
        let sends =
            std::thread::spawn(move || await_ready(&mut host).and_then(|()| send(&mut host, sent, Duration::from_secs(30))));
        let came = receive(&mut guest).expect("it comes");
        sends.join().expect("no panic").expect("it is sent");
        let all = |share: &[Part]| -> Vec<(String, Saved)> {
            share.iter().flat_map(|part| part.entries.iter().map(|e| (part.uid.clone(), e.clone()))).collect()
        };
        assert_eq!(all(&came), all(&share));
    }
}
