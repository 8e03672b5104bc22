//! Who is let in: tokens, scopes, a token's own user, rates, and the trail that is left.

use overdrive::model::{Role, UserId};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Command;

use super::client::{Answer, get, send};
use super::world::World;

/// The file of tokens; the token of each is `od_<name>`.
pub fn tokens(entries: &[(&str, &str, Option<&str>)]) -> String {
    let entry = |(name, scopes, user): &(&str, &str, Option<&str>)| {
        let hash = blake3::hash(format!("od_{name}").as_bytes()).to_hex();
        let user = user.map_or(String::new(), |user| format!("user = \"{user}\"\n"));
        format!("[[token]]\nname = \"{name}\"\nhash = \"{hash}\"\nscopes = [{scopes}]\n{user}")
    };
    entries.iter().map(entry).collect()
}

const EVERYBODY: [(&str, &str, Option<&str>); 4] = [
    ("reader", "\"read\"", None),
    ("writer", "\"write\"", None),
    ("admin", "\"admin\"", None),
    ("own", "\"read\", \"write\"", Some("u1")),
];

/// With the token `od_<token>`, or none.
pub fn ask(addr: SocketAddr, method: &str, target: &str, token: &str, body: &str) -> Answer {
    let mut headers = vec!["content-type: application/json".to_string()];
    if !token.is_empty() {
        headers.push(format!("authorization: Bearer od_{token}"));
    }
    send(addr, method, target, &headers, body.as_bytes())
}

/// A request of each kind, and who may make it: of nobody, reader, writer, admin, a stranger, and the token of u1.
#[test]
fn c37_a_token_opens_what_its_scopes_and_its_user_say() {
    let mut w = World::guarded(&tokens(&EVERYBODY), |_| {});
    super::fill(&mut w);
    let like = |user: &str| format!(r#"{{"type":"like","user_id":"{user}","item_id":"i1"}}"#);
    let (mine, theirs) = (like("u1"), format!("[{},{}]", like("u1"), like("u2")));
    let but = |may: [u16; 4]| [401, may[0], may[1], may[2], 401, may[3]];
    let cases = [
        ("GET", "/v1/feeds/home/u1", "", but([200, 403, 200, 200])),
        ("GET", "/v1/feeds/home/u2", "", but([200, 403, 200, 403])),
        ("POST", "/v1/feeds/home", r#"{"user_ids":["u1"]}"#, but([200, 403, 200, 200])),
        ("POST", "/v1/feeds/home", r#"{"user_ids":["u1","u2"]}"#, but([200, 403, 200, 403])),
        ("GET", "/v1/users/u1/features", "", but([200, 403, 200, 200])),
        ("GET", "/v1/users/u2/interests", "", but([404, 403, 404, 403])),
        ("GET", "/v1/items/i1/features", "", but([200, 403, 200, 200])),
        ("GET", "/v1/trending/global", "", but([200, 403, 200, 200])),
        ("GET", "/v1/stats", "", but([200, 403, 200, 403])),
        ("GET", "/metrics", "", but([200, 403, 200, 403])),
        ("POST", "/v1/events", &mine, but([403, 202, 202, 202])),
        ("POST", "/v1/events", &theirs, but([403, 202, 202, 403])),
        ("POST", "/v1/users", r#"{"user_id":"u2"}"#, but([403, 202, 202, 403])),
        ("POST", "/v1/items", r#"{"item_id":"i1"}"#, but([403, 202, 202, 403])),
        ("DELETE", "/v1/users/u2", "", but([403, 403, 202, 403])),
        ("DELETE", "/v1/users/u1", "", but([403, 403, 202, 202])),
        ("GET", "/v1/users/u1/export", "", but([403, 403, 200, 200])),
        ("GET", "/v1/users/u2/export", "", but([403, 403, 404, 403])),
        ("GET", "/v1/users/u2/activity", "", but([404, 403, 404, 403])),
        ("GET", "/v1/users/u2/insights", "", but([404, 403, 404, 403])),
        ("POST", "/recommend", r#"{"user_id":"u1"}"#, but([200, 403, 200, 200])),
        ("POST", "/v1/scenarios/home_feed", r#"{"user_id":"u2"}"#, but([200, 403, 200, 403])),
        ("POST", "/v1/scenarios/category_feed", r#"{"user_id":"u2","category_id":"c"}"#, but([200, 403, 200, 403])),
        ("POST", "/feedback", &mine, but([403, 202, 202, 202])),
        ("GET", "/features/u2", "", but([404, 403, 404, 403])),
        ("GET", "/performance/system", "", but([200, 403, 200, 403])),
        ("GET", "/v1/experiments", "", but([200, 403, 200, 403])),
        ("GET", "/v1/experiments/first", "", but([404, 403, 404, 403])),
        ("GET", "/ab/status", "", but([200, 403, 200, 403])),
        ("PUT", "/v1/events", "", [405; 6]),
        ("GET", "/nowhere", "", [404; 6]),
        ("GET", "/livez", "", [200; 6]),
        ("GET", "/health", "", [200; 6]),
        ("GET", "/readyz", "", [200; 6]),
        ("GET", "/docs", "", [200; 6]),
        ("GET", "/", "", [200; 6]),
    ];
    for (method, target, body, expected) in cases {
        let found = ["", "reader", "writer", "admin", "stranger", "own"].map(|who| ask(w.addr, method, target, who, body).status);
        assert_eq!(found, expected, "{method} {target} {body}");
    }
    assert!(
        w.payloads(Role::Events).iter().filter(|event| event.contains("u2")).count() == 2,
        "by the writer and the admin alone"
    );
}

#[test]
fn what_is_no_token_is_refused_and_never_repeated() {
    let w = World::guarded(&tokens(&EVERYBODY), |_| {});
    for header in
        ["Bearer hunter2", "Bearer", "Basic b2RfcmVhZGVy", "od_reader", "Bearer od_reader od_reader", "Bearer od_\u{e9}"]
    {
        let refused = send(w.addr, "GET", "/v1/feeds/home/u1", &[format!("authorization: {header}")], b"");
        assert_eq!(refused.refusal(), (401, "unauthorized".to_string()), "{header}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        assert!(!refused.body.contains("hunter2") && !refused.body.contains("od_reader"), "{}", refused.body);
    }
    let spelt = send(w.addr, "GET", "/v1/feeds/home/u1", &["Authorization: bearer od_reader".to_string()], b"");
    assert_eq!(spelt.status, 200, "the scheme in any letters");
}

#[test]
fn a_token_that_asks_too_often_is_told_when_to_come_back() {
    let w = World::guarded(&tokens(&EVERYBODY), |access| (access.token_rate, access.token_burst) = (1, 2));
    let refused = (0..100).map(|_| ask(w.addr, "GET", "/v1/feeds/home/u1", "reader", "")).find(|answer| answer.status != 200);
    let refused = refused.expect("a hundred at once are too many");
    assert_eq!((refused.refusal(), refused.header("retry-after")), ((429, "too_many_requests".to_string()), Some("1")));
    assert_eq!(ask(w.addr, "GET", "/v1/feeds/home/u1", "admin", "").status, 200, "another token has a bucket of its own");
    assert_eq!(ask(w.addr, "GET", "/livez", "", "").status, 200);
}

#[test]
fn c37_an_address_that_asks_too_often_is_told_so_with_or_without_a_token() {
    let w = World::guarded(&tokens(&EVERYBODY), |access| (access.address_rate, access.address_burst) = (1, 2));
    let who = ["", "stranger", "admin", "reader"];
    let refused = (0..100).map(|i| ask(w.addr, "GET", "/v1/feeds/home/u1", who[i % 4], "")).find(|answer| answer.status == 429);
    assert!(refused.is_some_and(|answer| answer.body.contains("of this address")));
}

#[test]
fn c37_who_had_a_user_exported_or_forgotten_is_in_the_trail_and_the_user_is_not() {
    let w = World::guarded(&tokens(&EVERYBODY), |_| {});
    assert_eq!(ask(w.addr, "DELETE", "/v1/users/canary", "reader", "").status, 403);
    let asked = ["authorization: Bearer od_admin".to_string(), "x-request-id: mine".to_string()];
    assert_eq!(send(w.addr, "DELETE", "/v1/users/canary", &asked, b"").status, 202);
    assert_eq!(send(w.addr, "GET", "/v1/users/canary/export", &asked, b"").status, 404);
    let text = std::fs::read_to_string(w.log_dir().join("access.jsonl")).expect("there is a trail");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let salt = std::fs::read(w.log_dir().join("privacy/salt")).expect("the salt of the folder");
    let salt: [u8; 32] = salt.try_into().expect("32 bytes");
    let user = blake3::keyed_hash(&salt, &UserId::of("canary").0.to_le_bytes()).to_hex()[..32].to_string();
    let line = |at: usize, event: &str| {
        json!({"at_ms": lines[at]["at_ms"], "event": event, "user": user, "by": "admin", "address": "127.0.0.1",
            "request_id": "mine"})
    };
    assert_eq!(lines, [line(0, "forget"), line(1, "export")], "who was refused did nothing");
    assert!(lines[0]["at_ms"].as_i64().is_some_and(|at| at > 1_700_000_000_000));
    assert!(!text.contains("canary") && !text.contains("od_admin"));
}

#[test]
fn what_cannot_be_put_in_the_trail_is_not_done() {
    let w = World::guarded(&tokens(&EVERYBODY), |access| access.audit = "taken".into());
    std::fs::create_dir(w.log_dir().join("taken")).expect("a folder where the file should be");
    let refused = ask(w.addr, "DELETE", "/v1/users/u1", "admin", "");
    assert_eq!(refused.refusal(), (503, "audit_unavailable".to_string()));
    assert!(w.payloads(Role::Control).is_empty());
}

#[test]
fn a_token_that_the_command_draws_is_let_in() {
    let draw = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_overdrive")).arg("token").args(args).output().expect("it runs");
    let drawn = draw(&["--name", "phone", "--for", "read,write", "--user", "u1"]);
    let (entry, said) = (String::from_utf8_lossy(&drawn.stdout), String::from_utf8_lossy(&drawn.stderr));
    let token = said.trim_end().strip_prefix("The token, shown this once: od_").unwrap_or_else(|| panic!("{said}"));
    assert!(!entry.contains(token) && entry.contains("user = \"u1\""), "{entry}");
    let w = World::guarded(&entry, |_| {});
    assert_eq!(["u1", "u2"].map(|user| ask(w.addr, "GET", &format!("/v1/feeds/home/{user}"), token, "").status), [200, 403]);
    assert_eq!(get(w.addr, "/v1/feeds/home/u1").status, 401);
    assert_ne!(draw(&["--name", "a", "--for", "read"]).stdout, draw(&["--name", "a", "--for", "read"]).stdout);
    assert_eq!(draw(&["--name", "a", "--for", "everything"]).status.code(), Some(2));
}

/// With a JWT, or anything else.
fn show(addr: SocketAddr, target: &str, bearer: &str) -> Answer {
    send(addr, "GET", target, &[format!("authorization: Bearer {bearer}")], b"")
}

/// One of `testdata/jwt/tokens.json`: made by OpenSSL, whose word does not depend on the code under test.
fn made(name: &str) -> String {
    let tokens: Value = serde_json::from_str(include_str!("../../testdata/jwt/tokens.json")).expect("JSON");
    tokens[name].as_str().expect("a token of this name").to_string()
}

/// Signed with the secret of `testdata/jwt/jwks.json`.
fn signed(claims: Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(b"a secret of the test, 32 bytes!!");
    let header = jsonwebtoken::Header { kid: Some("h".to_string()), ..Default::default() };
    jsonwebtoken::encode(&header, &claims, &key).expect("claims can be signed")
}

const FAR: i64 = 4_102_444_800;

#[test]
fn c37_a_jwt_of_a_known_key_opens_what_it_says_for_whom_it_says() {
    let w = World::signed(|_| {});
    let status = |bearer: &str| {
        let targets = ["/v1/feeds/home/u1", "/v1/feeds/home/u2", "/v1/stats", "/v1/users/u1/export"];
        targets.map(|target| show(w.addr, target, bearer).status)
    };
    assert_eq!(status(&made("rs256")), [200, 403, 403, 404], "bound to its subject, whose export is empty");
    assert_eq!(status(&made("rs256_no_kid")), [200, 403, 403, 404], "the only key of its algorithm");
    assert_eq!(status(&made("hs256")), [200, 200, 200, 403], "without a subject it is bound to nobody");
    assert_eq!(status(&signed(json!({"sub": "ann", "scope": "admin", "exp": FAR}))), [200, 200, 200, 404]);
    assert_eq!(status(&signed(json!({"sub": "u1", "scope": "write", "exp": FAR}))), [403; 4]);
    assert_eq!(status(&signed(json!({"sub": "u1", "exp": FAR}))), [403; 4], "no scope");
    let trail = std::fs::read_to_string(w.log_dir().join("access.jsonl")).expect("there is a trail");
    let by: Vec<Value> = trail.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["by"].clone()).collect();
    assert_eq!(by, ["jwt", "jwt", "jwt:ann"], "an admin is named, a user is not");
}

#[test]
fn a_jwt_that_proves_nothing_is_refused() {
    let w = World::signed(|_| {});
    let (good, now) = (made("rs256"), 1_763_600_000);
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    let cases = [
        ("changed", format!("{head}.{other}{}", &signature[1..])),
        ("cut", head.to_string()),
        ("unsigned", made("none")),
        ("HS256 with the public key of an RS256 key", made("confused")),
        ("HS256 under the name of an RS256 key", made("confused_h")),
        ("ended", signed(json!({"scope": "read", "exp": now - 100_000_000}))),
        ("never ending", signed(json!({"scope": "read"}))),
        ("not yet", signed(json!({"scope": "read", "exp": FAR, "nbf": FAR - 1}))),
        ("not yet, said otherwise", signed(json!({"scope": "read", "exp": FAR, "nbf": (FAR - 1).to_string()}))),
        ("of no key", good.replacen('.', "", 1)),
    ];
    for (what, token) in cases {
        assert_eq!(show(w.addr, "/v1/feeds/home/u1", &token).refusal(), (401, "unauthorized".to_string()), "{what}");
    }
    assert_eq!(show(w.addr, "/v1/feeds/home/u1", &good).status, 200);
}

#[test]
fn a_jwt_for_somebody_else_is_refused() {
    let w = World::signed(|access| (access.issuer, access.audience) = ("us".to_string(), "feeds".to_string()));
    let status = |claims: Value| show(w.addr, "/v1/trending/global", &signed(claims)).status;
    assert_eq!(status(json!({"scope": "read", "exp": FAR, "iss": "us", "aud": "feeds"})), 200);
    assert_eq!(status(json!({"scope": "read", "exp": FAR, "iss": "us", "aud": ["ads", "feeds"]})), 200);
    for claims in [
        json!({"scope": "read", "exp": FAR, "iss": "us"}),
        json!({"scope": "read", "exp": FAR, "aud": "feeds"}),
        json!({"scope": "read", "exp": FAR, "iss": "them", "aud": "feeds"}),
        json!({"scope": "read", "exp": FAR, "iss": "us", "aud": "ads"}),
    ] {
        assert_eq!(status(claims.clone()), 401, "{claims}");
    }
}

#[test]
fn a_file_of_keys_that_is_wrong_is_refused_without_repeating_a_key() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().expect("a file for the keys");
    let mut params = super::world::config().access;
    params.keys = file.path().to_path_buf();
    let refused = |text: &str| {
        std::fs::write(file.path(), text).expect("written");
        overdrive::shim::Access::open(&params, file.path().parent().expect("a folder")).err().unwrap_or_default()
    };
    let secret = r#"{"kty":"oct","alg":"HS256","k":"YSBzZWNyZXQgb2YgdGhlIHRlc3QsIDMyIGJ5dGVzISE"}"#;
    assert_eq!(refused(&format!("{{\"keys\":[{secret}]}}")), "");
    for (keys, says) in [
        (secret.replace("IDMyIGJ5dGVzISE", ""), "key 0 is shorter than 32 bytes"),
        (secret.replace("HS256", "HS512"), "key 0 must say `alg`"),
        (secret.replace("\"alg\":\"HS256\",", ""), "key 0 must say `alg`"),
        (secret.replace("\"k\"", "\"K\""), "it is no JWKS"),
    ] {
        let why = refused(&format!("{{\"keys\":[{keys}]}}"));
        assert!(why.contains(says) && why.contains("[access] keys") && !why.contains("YSBz"), "{keys}: {why}");
    }
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).expect("ours");
    assert!(refused(&format!("{{\"keys\":[{secret}]}}")).contains("chmod 600"));
}
