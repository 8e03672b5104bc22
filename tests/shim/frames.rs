//! HTTP/2 by hand: frames as bytes, also those that no client's library would send.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::client::connect;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const GO_AWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Error codes.
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame that came.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a reset, or of a farewell.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GO_AWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// A connection that has said hello.
pub fn open(addr: SocketAddr) -> TcpStream {
    let mut stream = connect(addr);
    let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
    stream.write_all(&hello).expect("open");
    stream
}

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a call, without tables and without Huffman's code.
pub fn head(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let usual =
        [(":method", "POST"), (":scheme", "http"), (":path", path), ("content-type", "application/grpc"), ("te", "trailers")];
    let mut block = Vec::new();
    for (name, value) in usual.iter().chain(more) {
        block.push(0);
        [name, value].iter().for_each(|text| put_text(&mut block, text));
    }
    block
}

/// Its length in a prefix of seven bits, then itself.
fn put_text(block: &mut Vec<u8>, text: &str) {
    match text.len() {
        short @ 0..127 => block.push(short as u8),
        long => {
            block.push(127);
            let mut rest = long - 127;
            while rest >= 128 {
                block.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            block.push(rest as u8);
        }
    }
    block.extend(text.as_bytes());
}

/// The next frame; `None` when the server has closed.
pub fn next(stream: &mut TcpStream) -> Option<Frame> {
    let mut head = [0; 9];
    match stream.read_exact(&mut head) {
        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("the server neither answered nor closed"),
        read => read.ok()?,
    }
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some(Frame { kind: head[3], stream: u32::from_be_bytes(head[5..].try_into().expect("four bytes")), payload })
}

/// The next frame of a kind and a stream.
pub fn wait(stream: &mut TcpStream, kind: u8, of: u32) -> Frame {
    std::iter::from_fn(|| next(stream))
        .find(|frame| (frame.kind, frame.stream) == (kind, of))
        .unwrap_or_else(|| panic!("closed without a frame {kind} of stream {of}"))
}
