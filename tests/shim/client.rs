//! A client of a few lines over a raw socket: it can also send what no proper client would.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.body))
    }

    /// The value of a header; the name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|line| line.split_once(": ")).find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The status and the code of an error.
    pub fn refusal(&self) -> (u16, String) {
        let error = &self.json()["error"];
        assert!(error["message"].as_str().is_some_and(|m| m.len() > 10), "{}", self.body);
        (self.status, error["code"].as_str().expect("an error has a code").to_string())
    }

    /// The ids of a feed or a trending list.
    pub fn ids(&self) -> Vec<String> {
        let items = self.json();
        let items = items["items"].as_array().unwrap_or_else(|| panic!("no items: {}", self.body)).clone();
        items.iter().map(|item| item["item_id"].as_str().expect("an item has an id").to_string()).collect()
    }
}

/// A connection. A generous limit keeps a test from hanging; no test depends on its length.
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the shim listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout can be set");
    stream
}

/// Everything until the server closes; `None` when it closed without a whole answer.
pub fn rest(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let mut piece = [0; 65_536];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => bytes.extend(&piece[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => panic!("the server neither answered nor closed"),
            Err(_) => break,
        }
    }
    parse(&bytes)
}

/// An answer, if it is a whole one.
pub fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.replace('\r', ""), body: body.to_string() })
}

/// One request on its own connection; `headers` are whole lines.
pub fn send(addr: SocketAddr, method: &str, target: &str, headers: &[String], body: &[u8]) -> Answer {
    let mut stream = connect(addr);
    let mut request = format!("{method} {target} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n").into_bytes();
    for header in headers {
        request.extend(format!("{header}\r\n").bytes());
    }
    if !body.is_empty() || method == "POST" {
        request.extend(format!("content-length: {}\r\n", body.len()).bytes());
    }
    request.extend(b"\r\n");
    request.extend(body);
    // A server that has answered already may not take the rest.
    let _ = stream.write_all(&request);
    rest(&mut stream).unwrap_or_else(|| panic!("no answer to {method} {target}"))
}

/// GET.
pub fn get(addr: SocketAddr, target: &str) -> Answer {
    send(addr, "GET", target, &[], b"")
}

/// GET with a token.
pub fn get_with(addr: SocketAddr, target: &str, token: &str) -> Answer {
    send(addr, "GET", target, &[format!("x-overdrive-token: {token}")], b"")
}

/// POST of JSON.
pub fn post(addr: SocketAddr, target: &str, body: &str) -> Answer {
    send(addr, "POST", target, &["content-type: application/json".to_string()], body.as_bytes())
}

/// POST of JSON that must be accepted whole: its token.
pub fn accepted(addr: SocketAddr, target: &str, body: &str) -> String {
    let answer = post(addr, target, body);
    assert_eq!((answer.status, answer.json()["rejected"].as_array().map(Vec::len)), (202, Some(0)), "{}", answer.body);
    answer.json()["token"].as_str().expect("something was written").to_string()
}
