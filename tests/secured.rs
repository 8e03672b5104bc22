//! Redis over TLS, with users who may do what SECURITY.md lists and nothing else: a real server that speaks nothing but TLS, the
//! engine and a shim as processes, every right taken away in turn, and whoever is not who they should be.
#![cfg(feature = "redis")]

#[path = "shim/client.rs"]
#[allow(dead_code, reason = "this binary uses a part of it")]
mod client;
mod support;

use client::{accepted, get};
use overdrive::config::Config;
use overdrive::model::Signals;
use overdrive::shim::{Reader, RedisReader};
use overdrive::sinks::layout::{self, Stamp, proto};
use overdrive::sinks::redis::{self as store, Redis};
use overdrive::sinks::{Applied, Fence, Known, RedisParams, Sort, Store, StoreError, Swept, Write};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;
use support::authority::{Authority, Files};
use support::redis::RedisServer;
use support::wait;

/// In no file that a process writes.
const PASSWORDS: [&str; 3] = ["hunter-of-the-engine", "hunter-of-the-shim", "hunter-of-the-admin"];
/// Without them something is slower or not noticed, and all is written.
const OPTIONAL: [&str; 10] = ["get", "multi", "exec", "watch", "unwatch", "zremrangebyscore", "info", "scan", "hexists", "zcard"];

/// A server that speaks nothing but TLS to users it knows, and the files that its clients need.
struct Secured {
    server: RedisServer,
    files: Files,
    authority: Authority,
}

impl Secured {
    /// Its certificate is for an address and for no name; `clients`: whether they must have one, too.
    fn start(clients: bool) -> Self {
        let (files, authority) = (Files::new(), Authority::new());
        let (ours, theirs) = (authority.issue("127.0.0.1"), authority.issue("client"));
        let [cert, key] = [files.put("server.pem", &ours.certificate), files.put("server.key", &ours.key)];
        files.put("client.pem", &theirs.certificate);
        files.put("client.key", &theirs.key);
        let ca = files.put("ca.pem", &authority.pem);
        let admin = format!("user default off\nuser admin on >{} ~* &* +@all\n", PASSWORDS[2]);
        let users = published().map(|line| line + "\n").concat();
        let acl = files.put("users.acl", &(admin + &users));
        for (user, password) in ["engine", "shim", "admin"].into_iter().zip(PASSWORDS) {
            files.put(user, &format!("{password}\n"));
        }
        let clients = if clients { "yes" } else { "no" };
        let extra = ["--aclfile", acl.to_str().expect("a plain path"), "--tls-auth-clients", clients];
        Self { server: RedisServer::start_secured([&cert, &key, &ca], &extra), files, authority }
    }

    /// The settings of a user.
    fn params(&self, user: &str) -> RedisParams {
        let mut params = Config::defaults().redis;
        params.url = self.server.url();
        params.username = if user == "admin" { user.to_string() } else { format!("overdrive-{user}") };
        (params.password_file, params.ca) = (self.files.path(user), self.files.path("ca.pem"));
        params
    }

    fn store(&self) -> Redis {
        Redis::open(&self.params("engine"), "od:").expect("the settings are sound")
    }

    fn admin(&self) -> redis::Connection {
        store::client(&self.params("admin")).expect("sound").get_connection().expect("the server answers")
    }

    fn tell(&self, command: &[&str]) {
        redis::cmd(command[0]).arg(&command[1..]).exec(&mut self.admin()).expect("the server answers");
    }

    /// The commands that somebody was refused since this was asked last.
    fn refused(&self) -> BTreeSet<String> {
        let log: Vec<std::collections::HashMap<String, redis::Value>> =
            redis::cmd("ACL").arg("LOG").query(&mut self.admin()).expect("it answers");
        self.tell(&["ACL", "LOG", "RESET"]);
        log.into_iter().map(|entry| redis::from_redis_value(entry["object"].clone()).expect("a name")).collect()
    }
}

/// The lines of users as SECURITY.md publishes them, the engine's first, with passwords of ours.
fn published() -> [String; 2] {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SECURITY.md")).expect("it is there");
    [("overdrive-engine", "a-password", PASSWORDS[0]), ("overdrive-shim", "another", PASSWORDS[1])].map(|(user, said, ours)| {
        let line = text.lines().find(|line| line.starts_with(&format!("user {user} on >{said} "))).expect("a line for each");
        line.replacen(said, ours, 1)
    })
}

/// The commands that a line permits.
fn rights(line: &str) -> Vec<&str> {
    line.split(' ').filter_map(|word| word.strip_prefix('+')).collect()
}

/// Everything that is ever done to a key, at two epochs, by scripts and in transactions, and a sweep of what is older.
fn work(store: &mut Redis, epoch: u64) -> Result<(), StoreError> {
    let batch = |store: &mut Redis, epoch, first| {
        let applied = Applied { epoch, generation: 1, tick_epoch: epoch, ..Applied::default() };
        store.write(&writes(epoch), &applied, Known { since: 1, first, ..Known::default() }).map(|_| ())
    };
    batch(store, epoch, false)?;
    batch(store, epoch + 1, true)?;
    batch(store, epoch + 2, false)?;
    while store.sweep(epoch + 3, Duration::from_secs(60))? == Swept::Some {}
    batch(store, epoch + 3, false)
}

fn writes(epoch: u64) -> Vec<Write> {
    let (fence, ttl) = (Fence { epoch, generation: 1 }, Duration::from_secs(600));
    let key = |family: &str| format!("od:{family}:{epoch}");
    let signals = Signals { counts: vec![], decayed: 1.0, velocity: 0.0, ctr: 0.1, engagement: 0.1, weighted_milli: [0; 5] };
    let stamp = Stamp { epoch, generation: 1, model: 0 };
    let members = vec![("i1".to_string(), Some(1.0)), ("i2".to_string(), None)];
    let delete = |key, sort| Write::Delete { key, sort, ttl, fence };
    vec![
        Write::Value {
            key: key("neighbours"),
            value: layout::encode_neighbours(&proto::Neighbours::default(), stamp),
            ttl,
            fence,
        },
        Write::Fields { key: key("item"), fields: layout::encode_features(&signals, 0, fence), ttl, fence },
        Write::Ranked { key: key("trending"), members: vec![("i1".into(), 1.0)], ttl, fence },
        Write::Members { key: "od:gone".into(), members: members.clone(), ttl, fence },
        Write::Members { key: key("seen"), members, ttl, fence },
        delete(key("card"), Sort::Value),
        delete(key("user"), Sort::Fields),
        delete(key("near"), Sort::Ranked),
    ]
}

#[test]
fn c37_each_right_of_the_engine_is_needed_and_said_when_it_is_missing_and_nothing_is_lost() {
    let secured = Secured::start(false);
    work(&mut secured.store(), 1).expect("what SECURITY.md lists is enough");
    assert_eq!(secured.refused(), BTreeSet::new());
    let whole = support::redis::raw_dump(&mut secured.admin());
    let line = &published()[0];
    for right in rights(line) {
        secured.tell(&["FLUSHALL"]);
        secured.tell(&["ACL", "SETUSER", "overdrive-engine", &format!("-{right}")]);
        let mut store = secured.store();
        let said = work(&mut store, 1);
        assert!(secured.refused().contains(right), "+{right} is listed, and nobody misses it");
        match said {
            Ok(()) => assert!(OPTIONAL.contains(&right), "without +{right} something was not written, and nobody was told"),
            Err(StoreError::Refused(text)) => {
                assert!(!OPTIONAL.contains(&right), "+{right} is said to be optional: {text}");
                let clear = text.starts_with("redis at 127.0.0.1:") && text.ends_with("the rights that SECURITY.md lists");
                assert!(clear && !text.contains(PASSWORDS[0]), "{right}: {text}");
            }
            Err(StoreError::Retry(text)) => panic!("+{right}: it does not pass by itself: {text}"),
        }
        secured.tell(&["ACL", "SETUSER", "overdrive-engine", &format!("+{right}")]);
        work(&mut store, 1).unwrap_or_else(|e| panic!("+{right} is back, {e}"));
        let dump = support::redis::raw_dump(&mut secured.admin());
        assert_eq!(dump.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>(), "+{right}");
    }
    // What is newer stays, though the one who may not look at fences writes without end.
    let newer = Write::Value {
        key: "od:neighbours:9".into(),
        value: layout::deleted_value(Fence { epoch: 90, generation: 1 }),
        ttl: Duration::from_secs(600),
        fence: Fence { epoch: 90, generation: 1 },
    };
    secured.store().write(&[newer], &Applied::default(), Known::default()).expect("all is permitted");
    secured.tell(&["ACL", "SETUSER", "overdrive-engine", "-getrange"]);
    secured.store().write(&writes(9), &Applied::default(), Known::default()).expect_err("it may not look");
    let kept: Vec<u8> = redis::cmd("GET").arg("od:neighbours:9").query(&mut secured.admin()).expect("it answers");
    assert_eq!(kept, layout::deleted_value(Fence { epoch: 90, generation: 1 }));
}

/// Asks as a shim does; yields what its clients are told.
fn asked(params: &RedisParams) -> Result<(), String> {
    let reader = RedisReader::new(params, "od:", Duration::from_secs(5))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(reader.applied()).map(|_| ()).map_err(|e| e.to_string())
}

/// Writes as the engine does; yields what its log says.
fn written(params: &RedisParams) -> Result<(), StoreError> {
    Redis::open(params, "od:")?.write(&[], &Applied::default(), Known::default()).map(|_| ())
}

#[test]
fn c37_the_shim_may_read_and_nothing_else() {
    let secured = Secured::start(false);
    work(&mut secured.store(), 1).expect("written");
    let params = secured.params("shim");
    let reader = RedisReader::new(&params, "od:", Duration::from_secs(5)).expect("the settings are sound");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let keys = overdrive::shim::OwnKeys { slate: "od:slate:home:{u}".into(), seen: "od:seen:3".into() };
    let asked = async {
        assert_eq!(reader.applied().await.expect("permitted").epoch, 4);
        assert!(reader.fields("od:item:3").await.expect("permitted").is_none(), "swept");
        assert_eq!(reader.ranked("od:trending:4", 3).await.expect("permitted"), [("i1".to_string(), 1.0)]);
        assert_eq!(reader.feeds(&[keys]).await.expect("permitted").applied.epoch, 4);
        let (card, item) = (["od:card:1".to_string()], ["od:item:3".to_string()]);
        assert_eq!(reader.many(&card, &item).await.expect("permitted").values.len(), 1);
        assert_eq!(reader.many_of(&card, &item, "weighted").await.expect("permitted").field, [None]);
        assert_eq!(reader.starts(&card, 30).await.expect("permitted").len(), 1);
        assert_eq!(reader.several(&["od:gone".to_string()], 1).await.expect("permitted").len(), 1);
    };
    runtime.block_on(asked);
    assert_eq!(secured.refused(), BTreeSet::new());
    let elsewhere = runtime.block_on(reader.value("elsewhere")).expect_err("not below the prefix").to_string();
    assert!(elsewhere.contains("NOPERM") && elsewhere.contains("SECURITY.md"), "{elsewhere}");
    let Err(StoreError::Refused(text)) = written(&params) else { panic!("it may not write") };
    assert!(text.contains("SECURITY.md"), "{text}");
    for right in rights(&published()[1]) {
        secured.tell(&["ACL", "SETUSER", "overdrive-shim", &format!("-{right}")]);
        let said = match right {
            "get" => runtime.block_on(reader.value("od:card:1")).err(),
            "mget" => runtime.block_on(reader.many(&["od:card:1".into()], &[])).err(),
            "getrange" => runtime.block_on(reader.starts(&["od:card:1".into()], 30)).err(),
            "hget" => runtime.block_on(reader.many_of(&[], &["od:item:3".into()], "weighted")).err(),
            "hgetall" => runtime.block_on(reader.applied()).err(),
            _ => runtime.block_on(reader.ranked("od:gone", 1)).err(),
        };
        let said = said.unwrap_or_else(|| panic!("nobody misses +{right}")).to_string();
        let clear = said.contains(right) && said.contains("SECURITY.md") && !said.contains("overdrive-shim");
        assert!(clear && !said.contains(PASSWORDS[1]), "{said}");
        secured.tell(&["ACL", "SETUSER", "overdrive-shim", &format!("+{right}")]);
    }
}

#[test]
fn c37_who_is_not_who_they_should_be_is_told_and_what_to_do() {
    let (secured, plain, mutual) = (Secured::start(false), RedisServer::start(), Secured::start(true));
    let stranger = secured.files.put("stranger.pem", &Authority::new().pem);
    let wrong = secured.files.put("wrong", "hunter-of-nobody\n");
    let port = secured.server.port();
    let of = |change: &dyn Fn(&mut RedisParams)| {
        let mut params = secured.params("engine");
        (params.connect_timeout, params.response_timeout) = (Duration::from_secs(5), Duration::from_secs(5));
        change(&mut params);
        params
    };
    let no_ca = PathBuf::new();
    for (params, says) in [
        (of(&|p| p.password_file = wrong.clone()), "check [redis] username and password_file"),
        (of(&|p| p.username = "nobody".into()), "check [redis] username and password_file"),
        (of(&|p| p.ca = stranger.clone()), "from none of the authorities in [redis] ca"),
        (of(&|p| p.ca = no_ca.clone()), "without one: from none of the system's"),
        (of(&|p| p.url = format!("rediss://localhost:{port}/0")), "call it in [redis] url as the certificate does"),
        (of(&|p| (p.url, p.ca) = (mutual.server.url(), mutual.files.path("ca.pem"))), "check [redis] cert and key"),
    ] {
        let Err(StoreError::Refused(log)) = written(&params) else { panic!("{says}: somebody must look") };
        let told = asked(&params).expect_err("no answer");
        for said in [&log, &told] {
            assert!(said.contains(says), "{says}: {said}");
            assert!(!said.contains("hunter"), "{said}");
        }
        let where_ = params.url.rsplit('/').nth(1).expect("scheme://host:port/0");
        assert!(log.contains(where_) && !told.contains(where_), "{log}, {told}");
    }
    // Where one speaks TLS and the other does not, neither understands a word; it ends all the same.
    let unsecured = of(&|p| (p.url, p.ca) = (secured.server.url().replace("rediss:", "redis:"), no_ca.clone()));
    let too_secured = of(&|p| p.url = plain.url().replace("redis:", "rediss:"));
    for params in [unsecured, too_secured] {
        assert!(written(&params).is_err() && asked(&params).is_err());
    }

    let mut known = secured.params("engine");
    (known.url, known.ca) = (mutual.server.url(), mutual.files.path("ca.pem"));
    (known.cert, known.key) = (mutual.files.path("client.pem"), mutual.files.path("client.key"));
    assert!(
        written(&known).is_ok() && asked(&known).is_err_and(|why| why.contains("SECURITY.md")),
        "the engine's user reads no hashes"
    );
    let of_another = secured.authority.issue("client");
    (known.cert, known.key) =
        (secured.files.put("other.pem", &of_another.certificate), secured.files.put("other.key", &of_another.key));
    assert!(written(&known).is_err(), "a certificate of another authority");
}

#[test]
fn c37_a_file_that_cannot_be_used_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new();
    let identity = Authority::new().issue("client");
    let [cert, key] = [files.put("cert.pem", &identity.certificate), files.put("key.pem", &identity.key)];
    let [open, empty] = [files.put("open", "hunter\n"), files.put("empty", "\n")];
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).expect("ours");
    let says = |change: &dyn Fn(&mut RedisParams)| {
        let mut params = Config::defaults().redis;
        params.url = "rediss://localhost:1/0".into();
        change(&mut params);
        let Err(StoreError::Refused(text)) = store::client(&params).map(|_| ()) else { panic!("it must be refused") };
        assert!(!text.contains("hunter"), "{text}");
        text
    };
    assert!(says(&|p| p.password_file = "no/such".into()).starts_with("[redis] password_file, no/such: it cannot be read"));
    assert!(says(&|p| p.password_file = open.clone()).ends_with("others may read it; chmod 600 it"));
    assert!(says(&|p| p.password_file = empty.clone()).ends_with("it must hold the password and nothing else"));
    assert!(says(&|p| p.username = "engine".into()).contains("names the user engine and no password"));
    assert!(
        says(&|p| p.ca = key.clone()).starts_with("[redis] ca, ")
            && says(&|p| p.ca = empty.clone()).ends_with("no certificate in PEM")
    );
    let no_key = says(&|p| (p.cert, p.key) = (cert.clone(), cert.clone()));
    assert!(no_key.starts_with("[redis] key, ") && no_key.contains("holds no private key in PEM"), "{no_key}");
}

/// `overdrive run` and `overdrive serve`, killed when dropped; what they say is kept.
struct Run {
    children: Vec<Child>,
    shim: SocketAddr,
    dir: tempfile::TempDir,
}

impl Run {
    fn start(secured: &Secured) -> Self {
        let (dir, port) = (tempfile::tempdir().expect("a folder"), support::free_port());
        let start = |what: &str, user: &str| {
            let log = std::fs::File::create(dir.path().join(format!("{what}.log"))).expect("a file");
            let mut command = overdrive(secured, user, dir.path(), port);
            command.arg(what).stdout(log.try_clone().expect("a file")).stderr(log).spawn().expect("the binary starts")
        };
        let children = vec![start("run", "engine"), start("serve", "shim")];
        let run = Self { children, shim: SocketAddr::from(([127, 0, 0, 1], port)), dir };
        wait("the shim listens", || std::net::TcpStream::connect(run.shim).is_ok());
        run
    }

    /// What both have said.
    fn said(&self) -> String {
        ["run", "serve"]
            .map(|what| std::fs::read_to_string(self.dir.path().join(format!("{what}.log"))).expect("a file"))
            .concat()
    }

    /// A user likes something; yields what their feed shows once the store has it.
    fn act(&self, user: &str, item: &str) {
        let event = format!(r#"{{"type":"like","user_id":"{user}","item_id":"{item}"}}"#);
        accepted(self.shim, "/v1/events", &event);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The binary with the settings of a user and no others.
fn overdrive(secured: &Secured, user: &str, dir: &Path, port: u16) -> Command {
    let params = secured.params(user);
    let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
    command.env_clear().current_dir(dir).env("OVERDRIVE_STATE_DIR", dir.join("state"));
    command.env("OVERDRIVE_STORE__KIND", "redis").env("OVERDRIVE_REDIS_URL", params.url);
    command.env("OVERDRIVE_REDIS__USERNAME", params.username).env("OVERDRIVE_REDIS__PASSWORD_FILE", params.password_file);
    command.env("OVERDRIVE_REDIS__CA", params.ca).env("OVERDRIVE_REDIS__RETRY_MAX", "100ms");
    command.env("OVERDRIVE_SERVICE_PORT", port.to_string()).env("OVERDRIVE_SERVICE__GRPC_PORT", "0");
    command
}

#[test]
fn c37_from_the_event_to_the_feed_over_tls_with_the_fewest_rights() {
    let mut secured = Secured::start(false);
    let run = Run::start(&secured);
    let slates = |secured: &Secured| {
        let keys: Vec<String> = redis::cmd("KEYS").arg("od:slate:home:*").query(&mut secured.admin()).expect("it answers");
        BTreeSet::from_iter(keys)
    };
    let users: Vec<String> = (0..20).map(|i| format!("u{i}")).collect();
    users.iter().enumerate().for_each(|(i, user)| run.act(user, &format!("i{}", i % 7)));
    wait("every user has a slate", || slates(&secured).len() == users.len());
    let feed = |user: &str| get(run.shim, &format!("/v1/feeds/home/{user}?k=5"));
    wait("the shim reads them", || feed("u3").status == 200 && !feed("u3").ids().is_empty());

    // The server loses everything, and then its memory as a whole.
    secured.tell(&["FLUSHALL"]);
    wait("all is written again", || slates(&secured).len() == users.len());
    secured.server.restart();
    wait("all is written to the next one", || slates(&secured).len() == users.len());
    wait("the shim reads it", || feed("u3").status == 200 && !feed("u3").ids().is_empty());

    // A right is taken away while it runs: it is said, and what came meanwhile is written when it is back.
    secured.tell(&["ACL", "SETUSER", "overdrive-engine", "-set"]);
    run.act("late", "i1");
    wait("it is said", || run.said().contains("somebody must look"));
    assert!(run.said().contains("the rights that SECURITY.md lists"), "{}", run.said());
    assert!(!slates(&secured).contains("od:slate:home:{late}"));
    secured.tell(&["ACL", "SETUSER", "overdrive-engine", "+set"]);
    wait("nothing was lost", || slates(&secured).contains("od:slate:home:{late}"));

    for user in ["engine", "shim"] {
        let done = |args: &[&str]| {
            let output = overdrive(&secured, user, run.dir.path(), support::free_port()).args(args).output().expect("it runs");
            (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
        };
        let (code, shown) = done(&["doctor"]);
        assert!(code == Some(0) && shown.contains(if user == "engine" { "✓ redis" } else { "– redis" }), "{shown}");
        let (code, printed) = done(&["config", "print"]);
        assert_eq!(code, Some(0), "{printed}");
        for text in [shown, printed] {
            assert!(PASSWORDS.iter().all(|password| !text.contains(password)), "{text}");
        }
    }
    assert!(PASSWORDS.iter().all(|password| !run.said().contains(password)), "{}", run.said());
}
