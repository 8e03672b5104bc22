//! TLS and mTLS with certificates made here, and files that change under a running shim.

use overdrive::shim::{Access, AccessParams, Params};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::{Answer, connect, get, parse};
use super::support::authority::{self, Authority, Identity};
use super::support::wait;
use super::world::World;

/// How long a write may take before the test is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The files of a shim with TLS.
struct Files(authority::Files);

impl Files {
    fn new(identity: &Identity, client_ca: Option<&Authority>) -> Self {
        let files = Self(authority::Files::new());
        files.put(identity);
        client_ca.inspect(|ca| files.replace("ca.pem", &ca.pem));
        files
    }

    fn put(&self, identity: &Identity) {
        self.replace("key.pem", &identity.key);
        self.replace("cert.pem", &identity.certificate);
    }

    fn replace(&self, name: &str, text: &str) {
        self.0.put(name, text);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    fn world(&self) -> World {
        self.world_with(|_| {})
    }

    fn world_with(&self, change: impl Fn(&mut Params)) -> World {
        World::with(change, |access| self.name_in(access))
    }

    /// Names the files in the settings.
    fn name_in(&self, access: &mut AccessParams) {
        let ca = Some(self.path("ca.pem")).filter(|path| path.exists()).unwrap_or_default();
        (access.tls_cert, access.tls_key, access.client_ca) = (self.path("cert.pem"), self.path("key.pem"), ca);
    }
}

/// A client that trusts an authority and may have a certificate.
fn client(trusts: &Authority, has: Option<&Identity>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusts.pem.as_bytes()).expect("a certificate")).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let builder = builder.with_root_certificates(roots);
    let config = match has {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key")).expect("they fit")
        }
    };
    Arc::new(config)
}

/// TLS over a connection of its own; hands are shaken when something is written.
fn secured(addr: SocketAddr, client: &Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let name = ServerName::try_from("shim.test").expect("a name");
    StreamOwned::new(ClientConnection::new(client.clone(), name).expect("a client"), connect(addr))
}

/// GET over TLS; `None` when the two do not come together.
fn get_by(addr: SocketAddr, client: &Arc<ClientConfig>, target: &str) -> Option<Answer> {
    let mut stream = secured(addr, client);
    write!(stream, "GET {target} HTTP/1.1\r\nhost: shim.test\r\nconnection: close\r\n\r\n").ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    parse(&bytes)
}

/// Asks until the files must have been looked at and read as they are now; all the while `as_before` must be true. A change is read at
/// a request two seconds after it at the latest, unless one within the second before that did so.
fn looked_at(mut as_before: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(3);
    loop {
        let last = Instant::now() >= until;
        assert!(as_before(), "a file that is wrong changes something");
        if last {
            return;
        }
    }
}

#[test]
fn c37_with_a_certificate_the_shim_speaks_tls_and_nothing_else() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let files = Files::new(&ours.issue("shim.test"), None);
    let mut w = files.world();
    super::fill(&mut w);
    let feed = get_by(w.addr, &client(&ours, None), "/v1/feeds/home/u1").expect("an answer");
    assert_eq!((feed.status, feed.ids()), (200, vec!["i1".to_string(), "i2".to_string(), "i3".to_string()]));
    assert!(get_by(w.addr, &client(&theirs, None), "/livez").is_none(), "a client that does not trust it");
    let mut plain = connect(w.addr);
    plain.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n").expect("sent");
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes);
    assert!(!bytes.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&bytes));
}

#[test]
fn with_an_authority_for_clients_nobody_else_gets_an_answer() {
    let (ours, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let w = Files::new(&ours.issue("shim.test"), Some(&clients)).world();
    let known = client(&ours, Some(&clients.issue("feeds")));
    assert_eq!(get_by(w.addr, &known, "/livez").map(|answer| answer.status), Some(200));
    for stranger in [None, Some(strangers.issue("feeds"))] {
        assert!(get_by(w.addr, &client(&ours, stranger.as_ref()), "/livez").is_none(), "{}", stranger.is_some());
    }
}

#[test]
fn where_certificates_alone_are_asked_for_their_holders_may_do_everything() {
    let ours = Authority::new();
    let left_open_to = |client_ca: Option<&Authority>, tokens: bool| {
        let files = Files::new(&ours.issue("shim.test"), client_ca);
        let mut params = super::world::config().access;
        files.name_in(&mut params);
        if tokens {
            params.tokens = files.path("tokens.toml");
            std::fs::write(&params.tokens, "").expect("written");
        }
        Access::open(&params, files.0.dir.path()).expect("they are sound").left_open_to()
    };
    assert!(left_open_to(Some(&ours), false).is_some_and(|whoever| whoever.contains("certificate")));
    assert!(left_open_to(None, false).is_some_and(|whoever| !whoever.contains("certificate")));
    assert_eq!((left_open_to(Some(&ours), true), left_open_to(None, true)), (None, None));
}

/// How the connection of a client ends that asks without end and reads no answer.
fn deaf(mut stream: impl Write) -> ErrorKind {
    let requests = "GET /openapi.json HTTP/1.1\r\nhost: test\r\n\r\n".repeat(100);
    loop {
        if let Err(error) = stream.write_all(requests.as_bytes()) {
            return error.kind();
        }
    }
}

#[test]
fn who_does_not_take_answers_is_cut() {
    let ours = Authority::new();
    let soon = |params: &mut Params| params.idle_timeout = Duration::from_millis(200);
    let (plain, secret) = (World::memory(soon), Files::new(&ours.issue("shim.test"), None).world_with(soon));
    let stream = connect(plain.addr);
    stream.set_write_timeout(Some(PATIENCE)).expect("set");
    assert_ne!(deaf(stream), ErrorKind::WouldBlock, "held for ever");
    let stream = secured(secret.addr, &client(&ours, None));
    stream.sock.set_write_timeout(Some(PATIENCE)).expect("set");
    assert_ne!(deaf(stream), ErrorKind::WouldBlock, "held for ever over TLS");
}

#[test]
fn a_full_house_says_nothing_in_plain_where_tls_is_spoken() {
    let ours = Authority::new();
    let w = Files::new(&ours.issue("shim.test"), None).world_with(|params| params.connections = 1);
    let mut first = secured(w.addr, &client(&ours, None));
    first.write_all(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n").expect("let in");
    assert!(first.read(&mut [0; 4_096]).expect("an answer") > 0);
    let mut bytes = Vec::new();
    connect(w.addr).read_to_end(&mut bytes).expect("closed");
    assert_eq!(bytes, b"");
}

/// A client of gRPC over TLS; `None` when the two do not come together.
fn feed_by(addr: SocketAddr, client: &Arc<ClientConfig>) -> Option<tonic::Code> {
    let mut client = ClientConfig::clone(client);
    client.alpn_protocols = vec![b"h2".to_vec()];
    let runtime = super::stub::runtime();
    let stream = runtime.block_on(async {
        let name = ServerName::try_from("shim.test").expect("a name");
        let stream = tokio::net::TcpStream::connect(addr).await.expect("the shim listens");
        tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await.ok()
    })?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    // With TLS 1.3 the server looks at our certificate only now.
    super::stub::Stub::over(runtime, stream)?.try_call("GetFeed", serde_json::json!({"user_id": "u1"}))
}

#[test]
fn grpc_is_spoken_over_the_same_tls() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let files = Files::new(&ours.issue("shim.test"), Some(&ours));
    let mut w = files.world_with(|params| params.grpc = true);
    super::fill(&mut w);
    let addr = w.grpc.expect("asked for");
    let (known, stranger) = (ours.issue("client"), theirs.issue("client"));
    assert_eq!(feed_by(addr, &client(&ours, Some(&known))), Some(tonic::Code::Ok));
    assert_eq!(feed_by(addr, &client(&ours, None)), None);
    assert_eq!(feed_by(addr, &client(&ours, Some(&stranger))), None);
    assert_eq!(feed_by(addr, &client(&theirs, Some(&known))), None);
}

#[test]
fn a_renewed_certificate_is_taken_without_a_restart() {
    let (before, after) = (Authority::new(), Authority::new());
    let files = Files::new(&before.issue("shim.test"), None);
    let w = files.world();
    let (old, new) = (client(&before, None), client(&after, None));
    assert!(get_by(w.addr, &old, "/livez").is_some() && get_by(w.addr, &new, "/livez").is_none());
    files.replace("cert.pem", "no certificate");
    looked_at(|| get_by(w.addr, &old, "/livez").is_some());
    files.put(&after.issue("shim.test"));
    wait("the new certificate", || get_by(w.addr, &new, "/livez").is_some());
    assert!(get_by(w.addr, &old, "/livez").is_none());
}

#[test]
fn what_is_wrong_with_the_files_is_said_without_the_key() {
    let (ours, theirs) = (Authority::new().issue("shim.test"), Authority::new().issue("shim.test"));
    let refused = |change: &dyn Fn(&Files)| {
        let files = Files::new(&ours, None);
        change(&files);
        let mut params = super::world::config().access;
        files.name_in(&mut params);
        Access::open(&params, files.0.dir.path()).err().expect("it must be refused")
    };
    let open = |files: &Files| {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(files.path("key.pem"), open).expect("set");
    };
    let cases: [(&dyn Fn(&Files), &str); 5] = [
        (&|files| std::fs::remove_file(files.path("cert.pem")).expect("it was there"), "tls_cert"),
        (&|files| files.replace("cert.pem", ""), "it holds no certificate"),
        (&|files| files.replace("key.pem", &ours.certificate), "it holds no private key"),
        (&|files| files.replace("key.pem", &theirs.key), "tls_key"),
        (&open, "chmod 600"),
    ];
    for (change, says) in cases {
        let why = refused(change);
        assert!(why.contains(says) && why.contains(".pem") && !why.contains("PRIVATE"), "{says}: {why}");
    }
}

/// Tokens come and go with their file; a file that is wrong takes nobody's away.
#[test]
fn the_file_of_tokens_is_read_again_when_it_changes() {
    let dir = tempfile::tempdir().expect("a folder");
    let path: &Path = &dir.path().join("tokens.toml");
    let write = |text: &str| std::fs::write(path, text).expect("written");
    let token = |name: &str| super::access::tokens(&[(name, "\"read\"", None)]);
    write(&token("first"));
    let mut w = World::with_access(|access| access.tokens = path.to_path_buf());
    super::fill(&mut w);
    let status = |name: &str| super::access::ask(w.addr, "GET", "/v1/feeds/home/u1", name, "").status;
    assert_eq!((status("first"), status("second")), (200, 401));
    write("[[token]]\nname = 7");
    looked_at(|| (status("first"), status("second")) == (200, 401));
    write(&token("second"));
    wait("the second token", || status("second") == 200);
    assert_eq!(status("first"), 401);
    assert_eq!(get(w.addr, "/livez").status, 200);
}
