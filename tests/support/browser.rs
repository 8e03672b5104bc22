//! A headless Chromium, driven as the WebDriver standard says, with Chromium's own extensions for the size of a phone and for what the page
//! complains of.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::support::{MISSING, Server, free_port, server_dir};

/// The name under which the standard hands out an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Longer than anything here takes on any machine.
const PATIENCE: Duration = Duration::from_secs(60);
pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";

/// One request and the value it is answered with. The driver keeps connections open, so the answer ends where it says.
fn tell(driver: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(driver).expect("chromedriver listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {driver}\r\ncontent-length: {length}\r\n\r\n{body}").expect("it is sent");
    let (mut reader, mut status, mut length) = (BufReader::new(stream), 0, 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("chromedriver answers");
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(rest) = line.strip_prefix("http/1.1 ") {
            status = rest.split(' ').next().and_then(|status| status.parse().ok()).expect("a status");
        } else if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse().expect("a length");
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a whole answer");
    let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
    (status, answer["value"].take())
}

/// One window. Closed when dropped, and its driver ended.
pub struct Browser {
    driver: SocketAddr,
    session: String,
    _server: Server,
}

impl Browser {
    /// Opens a window of 1280 by 900.
    pub fn start() -> Self {
        let port = free_port();
        let driver: SocketAddr = ([127, 0, 0, 1], port).into();
        let dir = server_dir();
        let server = Server::start(&dir, "chromedriver", &[&format!("--port={port}")]);
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(driver).is_err() {
            assert!(Instant::now() < until, "chromedriver does not listen; {MISSING}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let args = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"];
        let wanted = json!({"goog:chromeOptions": {"args": args}, "goog:loggingPrefs": {"browser": "ALL"}});
        let asked = json!({"capabilities": {"alwaysMatch": wanted}});
        let (status, answer) = tell(driver, "POST", "/session", &asked.to_string());
        assert_eq!(status, 200, "chromedriver opens no window: {answer}; {MISSING}");
        let session = answer["sessionId"].as_str().expect("a session").to_string();
        Self { driver, session, _server: server }
    }

    fn ask(&self, method: &str, what: &str, body: Value) -> Value {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let (status, value) = tell(self.driver, method, &format!("/session/{}/{what}", self.session), &body);
        assert_eq!(status, 200, "{method} {what} {body}: {value}");
        value
    }

    /// Opens an address and waits until it is loaded.
    pub fn open(&self, address: &str) {
        self.ask("POST", "url", json!({"url": address}));
    }

    /// What a function body returns in the page.
    pub fn run(&self, script: &str) -> Value {
        self.ask("POST", "execute/sync", json!({"script": script, "args": []}))
    }

    /// Waits until a function body returns something true, and gives it.
    pub fn until(&self, script: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let value = self.run(script);
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            assert!(
                Instant::now() < until,
                "still not true: {script}; the page says {}",
                self.run("return document.body.innerText")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Clicks the first element a selector finds, as a mouse does: something in front of it is a failure.
    pub fn click(&self, selector: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            let element = self.ask("POST", "element", json!({"using": "css selector", "value": selector}));
            let id = element[ELEMENT].as_str().expect("an element").to_string();
            let (status, why) = tell(self.driver, "POST", &format!("/session/{}/element/{id}/click", self.session), "{}");
            // the page may have drawn it anew meanwhile
            if status == 200 {
                return;
            }
            assert!(status == 404 && Instant::now() < until, "{selector} cannot be clicked: {why}");
        }
    }

    /// Presses keys one after the other, wherever the focus is.
    pub fn press(&self, keys: &str) {
        let strokes =
            keys.chars().flat_map(|key| [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})]);
        let actions = json!([{"type": "key", "id": "keyboard", "actions": strokes.collect::<Vec<_>>()}]);
        self.ask("POST", "actions", json!({ "actions": actions }));
    }

    /// Makes the window that of a device of this width.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.ask("POST", "goog/cdp/execute", json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": size}));
    }

    /// What the page complained of since the last time this was asked.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.ask("POST", "se/log", json!({"type": "browser"}));
        let severe = |entry: &&Value| entry["level"] == "SEVERE" || entry["level"] == "WARNING";
        log.as_array().expect("a list").iter().filter(severe).map(|entry| entry["message"].to_string()).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Also while a test fails: then nothing more must.
        let path = format!("/session/{}", self.session);
        let _ = std::panic::catch_unwind(|| tell(self.driver, "DELETE", &path, ""));
    }
}
