//! The console of `overdrive demo` in a headless Chromium: acting as a user changes the slate while one looks, with the mouse and with the
//! keyboard alone; it fits a phone and a desk, every control has a name, and nothing comes from elsewhere.

#[path = "support/browser.rs"]
mod browser;
#[path = "shim/client.rs"]
#[allow(dead_code, reason = "this binary uses a part of it")]
mod client;
mod support;

use browser::{Browser, ENTER, TAB};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// The command a newcomer starts, with a small world. Killed when dropped.
struct Demo {
    child: Child,
    addr: SocketAddr,
    dir: tempfile::TempDir,
}

impl Demo {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let log = std::fs::File::create(dir.path().join("server.log")).expect("a file for what it says");
        let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
        command.args(["demo", "--history", "4000", "--rate", "20", "--users", "80", "--items", "200"]);
        command.env("OVERDRIVE_STATE_DIR", dir.path()).env("OVERDRIVE_SERVICE_PORT", "0");
        command.env("OVERDRIVE_SERVICE__TOKEN_WAIT", "30s").env("OVERDRIVE_SERVICE__REQUEST_TIMEOUT", "60s");
        command.env("OVERDRIVE_SERVICE__GRPC_PORT", "0").current_dir(dir.path());
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("the demo starts");
        let mut demo = Self { child, addr: ([127, 0, 0, 1], 0).into(), dir };
        demo.addr = support::until("the demo says where its console is", || demo.console());
        support::wait("the demo is ready", || client::get(demo.addr, "/readyz").status == 200);
        demo
    }

    /// Where it says that its console is, once it has.
    fn console(&mut self) -> Option<SocketAddr> {
        let ended = self.child.try_wait().expect("it can be asked");
        assert!(ended.is_none(), "the demo ended:\n{}", support::said(self.dir.path()));
        let said = std::fs::read_to_string(self.dir.path().join("server.log")).expect("what it said");
        said.split_once("http://")?.1.split_once('/')?.0.parse().ok()
    }

    /// Its console, with a slate on it.
    fn shown(&self, browser: &Browser) {
        browser.open(&format!("http://{}/", self.addr));
        browser.until("return document.querySelectorAll('#items .item').length >= 10");
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn acting_as_a_user_changes_the_slate_while_one_looks() {
    let (demo, browser) = (Demo::start(), Browser::start());
    demo.shown(&browser);
    browser.until("return Number(document.getElementById('epoch').textContent.replaceAll(',', '')) > 0");
    browser.until("return Number(document.getElementById('rate').textContent.replaceAll(',', '')) > 0");
    browser.until("return document.querySelectorAll('#trending li .id').length > 3");
    browser.until("return document.querySelectorAll('#interests .track').length > 0");
    let reasons = browser.run("return [...document.querySelectorAll('#items .reason')].map((r) => r.textContent)");
    assert!(
        reasons.as_array().expect("a list").iter().all(|reason| reason.as_str().is_some_and(|text| text.len() > 2)),
        "{reasons}"
    );

    let user = browser.run("return document.getElementById('user').value");
    let item = browser.run("return document.querySelector('#items .item').dataset.item");
    browser.click(&format!("#items [data-item={item}] [data-act=hide]"));
    let effect = browser.until(
        "const e = document.getElementById('effect'); return !e.hidden && e.textContent.includes('hide') && e.textContent",
    );
    assert!(effect.as_str().is_some_and(|text| text.contains("visible after")), "{effect}");
    let shown = browser.run("return [...document.querySelectorAll('#items .item')].map((i) => i.dataset.item)");
    assert!(!shown.as_array().expect("a list").contains(&item), "{item} is hidden and still there");
    let user = user.as_str().expect("a user").to_string();
    let feed = client::get(demo.addr, &format!("/v1/feeds/home/{user}?k=50")).ids();
    assert!(!feed.iter().any(|id| json!(id) == item), "and so it is in what is served");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// From the top of the page with Tab and Enter: to the slate, to a user, to an act, and the focus stays where one works.
#[test]
fn the_keyboard_alone_is_enough() {
    let (demo, browser) = (Demo::start(), Browser::start());
    demo.shown(&browser);
    browser.press(TAB);
    assert_eq!(browser.run("return document.activeElement.className"), "skip", "first comes the way past the rest");
    assert_eq!(browser.run("return getComputedStyle(document.activeElement).outlineStyle !== 'none'"), json!(true));
    browser.press(ENTER);
    assert_eq!(browser.run("return document.activeElement.id"), "slate-title");
    browser.press(TAB);
    assert_eq!(browser.run("return document.activeElement.id"), "user");
    let other = browser.run("return [...document.querySelectorAll('#users option')].map((o) => o.value).find((v) => v !== document.getElementById('user').value)");
    browser.run("document.getElementById('user').select()");
    browser.press(other.as_str().expect("a second user acted lately"));
    browser.press(ENTER);
    browser.until(&format!(
        "return location.hash === '#' + encodeURIComponent({other}) && document.querySelectorAll('#items .item').length > 0"
    ));

    let like = "document.activeElement.dataset.act === 'like'";
    for _ in 0..30 {
        if browser.run(&format!("return {like}")) == json!(true) {
            break;
        }
        browser.press(TAB);
    }
    assert_eq!(browser.run(&format!("return {like}")), json!(true), "Tab comes to the acts");
    let name = browser.run("return document.activeElement.getAttribute('aria-label')");
    assert!(name.as_str().is_some_and(|name| name.contains(other.as_str().expect("a name"))), "{name} says as whom");
    browser.press(ENTER);
    browser.until("const e = document.getElementById('effect'); return !e.hidden && e.textContent.includes('like')");
    browser.until("return document.activeElement.closest('#items') !== null");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn it_fits_a_phone_and_a_desk_names_its_controls_and_loads_nothing_from_elsewhere() {
    let (demo, browser) = (Demo::start(), Browser::start());
    for (width, height) in [(390, 844), (1280, 900)] {
        browser.resize(width, height);
        demo.shown(&browser);
        let wide = browser.run("return document.scrollingElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(wide, json!(0), "at {width} it scrolls sideways");
        let outside = "return [...document.querySelectorAll('button, input, a:not(.skip), .figure, .reason')]
            .filter((e) => { const r = e.getBoundingClientRect(); return r.width > 0 && (r.left < 0 || r.right > innerWidth + 1); })
            .map((e) => e.outerHTML)";
        assert_eq!(browser.run(outside), json!([]), "at {width} these stand outside");
        let small = "return [...document.querySelectorAll('button')]
            .filter((e) => { const r = e.getBoundingClientRect(); return r.width > 0 && (r.height < 24 || r.width < 24); })
            .map((e) => e.outerHTML)";
        assert_eq!(browser.run(small), json!([]), "at {width} these are too small for a finger");
    }
    let nameless = "return [...document.querySelectorAll('button, input, a')]
        .filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || (e.labels && e.labels.length)))
        .map((e) => e.outerHTML)";
    assert_eq!(browser.run(nameless), json!([]));
    let loaded = browser.run("return performance.getEntriesByType('resource').map((e) => e.name)");
    let own = format!("http://{}/", demo.addr);
    let elsewhere = |name: &&Value| !name.as_str().is_some_and(|name| name.starts_with(&own));
    let loaded = loaded.as_array().expect("a list");
    assert!(loaded.len() >= 4 && loaded.iter().find(elsewhere).is_none(), "{loaded:?}");
    browser.open(&format!("http://{}/docs", demo.addr));
    browser.until("return document.body.innerText.includes('/v1/rank')");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
