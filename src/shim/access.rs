//! Who may ask what: bearer tokens of a file, JWTs of known keys, TLS, and how often each token and address may ask.
//!
//! What must stay true: no token is kept or said, only its BLAKE3; where neither tokens nor keys are set, whoever reaches the shim (with
//! `client_ca`, whoever has a certificate) may do everything; where one is, nobody without.

use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::time::Instant;

use super::Refusal;
use super::jwt::Keys;
use super::rate::Rate;
use super::tls;
use super::trail::{Deed, Trail};
use super::watched::Watched;

/// `[access]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub tokens: PathBuf,
    pub keys: PathBuf,
    pub issuer: String,
    pub audience: String,
    pub token_rate: u32,
    pub token_burst: u32,
    pub address_rate: u32,
    pub address_burst: u32,
    pub tls_cert: PathBuf,
    pub tls_key: PathBuf,
    pub client_ca: PathBuf,
    pub audit: PathBuf,
}

/// What a token is for. `admin` is everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    Read,
    Write,
    Admin,
}

impl Scope {
    /// The scope of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Read, Self::Write, Self::Admin].into_iter().find(|scope| scope.name() == name)
    }

    /// As it is written in tokens and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The name of the token.
    pub name: Arc<str>,
    pub scopes: BTreeSet<Scope>,
    /// The only user it is about.
    pub user: Option<String>,
}

impl Who {
    fn anyone() -> Self {
        Self { name: "anyone".into(), scopes: BTreeSet::from([Scope::Admin]), user: None }
    }

    fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Whose requests are counted together.
    fn bucket(&self) -> Cow<'_, str> {
        self.user.as_ref().map_or(Cow::Borrowed(&*self.name), |user| format!("{} {user}", self.name).into())
    }

    /// Refuses what is about another user.
    pub fn about(&self, user: &str) -> Result<(), Refusal> {
        match &self.user {
            Some(own) if own != user => Err(forbidden("this token is bound to one user, and the request is about another")),
            _ => Ok(()),
        }
    }

    /// Refuses what is about all users.
    pub fn about_all(&self) -> Result<(), Refusal> {
        match &self.user {
            Some(_) => Err(forbidden("this token is bound to one user, and the request is about all")),
            None => Ok(()),
        }
    }

    /// Refuses what only an admin or the user may do.
    pub fn personal(&self, user: &str) -> Result<(), Refusal> {
        self.about(user)?;
        match self.user.is_some() || self.may(Scope::Admin) {
            true => Ok(()),
            false => Err(forbidden("only the scope admin, or a token bound to this user, may do this")),
        }
    }
}

/// One `[[token]]` of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Whose it is, for people.
    pub name: String,
    /// BLAKE3 of the token, 64 hex digits.
    pub hash: String,
    pub scopes: BTreeSet<Scope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// The file of tokens.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entries {
    #[serde(default)]
    pub token: Vec<Entry>,
}

/// How the shim proves who it is, as its files say by now.
pub type Tls = Arc<Watched<tls::Proof>>;

/// Tokens, keys and rates.
pub struct Access {
    tokens: Option<Watched<HashMap<blake3::Hash, Who>>>,
    keys: Option<Watched<Keys>>,
    tls: Option<Tls>,
    /// Whether TLS lets in only whom an authority vouches for.
    mutual: bool,
    of_token: Rate,
    of_address: Rate,
    trail: Arc<Trail>,
}

impl Access {
    /// Reads the files of tokens, keys and certificates, which are read again when they change. The audit trail goes to `state_dir`. The error
    /// names the file and what is wrong in it.
    pub fn open(params: &Params, state_dir: &Path) -> Result<Self, String> {
        let now = Instant::now();
        let named = |paths: &[&PathBuf]| {
            let paths: Vec<_> = paths.iter().filter(|path| !path.as_os_str().is_empty()).map(|path| path.to_path_buf()).collect();
            (!paths.is_empty()).then_some(paths)
        };
        let (of_tokens, of_keys, of_tls) = (params.clone(), params.clone(), params.clone());
        let tokens = named(&[&params.tokens]).map(|paths| Watched::open(paths, move || read(&of_tokens.tokens)));
        let keys = named(&[&params.keys]).map(|paths| Watched::open(paths, move || Keys::open(&of_keys)));
        let tls = named(&[&params.tls_cert, &params.tls_key, &params.client_ca]);
        let tls = tls.map(|paths| Watched::open(paths, move || tls::config(&of_tls)));
        Ok(Self {
            tokens: tokens.transpose()?,
            keys: keys.transpose()?,
            tls: tls.transpose()?.map(Arc::new),
            mutual: named(&[&params.client_ca]).is_some(),
            of_token: Rate::new(params.token_rate, params.token_burst, now),
            of_address: Rate::new(params.address_rate, params.address_burst, now),
            trail: Arc::new(Trail::new(&params.audit, state_dir)),
        })
    }

    /// Whether anybody is asked who they are.
    pub fn is_asked(&self) -> bool {
        self.tokens.is_some() || self.keys.is_some()
    }

    /// Who may do everything, where nobody is asked who they are.
    pub fn left_open_to(&self) -> Option<&'static str> {
        let whoever = if self.mutual { "whoever has a certificate of [access] client_ca" } else { "whoever reaches the shim" };
        (!self.is_asked()).then_some(whoever)
    }

    /// What connections are proven by, where TLS is spoken.
    pub fn tls(&self) -> Option<Tls> {
        self.tls.clone()
    }

    /// Puts a deed in the audit trail before it is done; what cannot be put there is not to be done.
    pub async fn note(&self, deed: Deed) -> Result<(), Refusal> {
        let trail = self.trail.clone();
        let noted = tokio::task::spawn_blocking(move || trail.say(&deed)).await;
        noted.unwrap_or_else(|e| Err(e.to_string())).map_err(|why| {
            tracing::error!(%why, "the audit trail");
            let message = "this cannot be done while the audit log cannot be written; the reason is in the log";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "audit_unavailable", message)
        })
    }

    /// Counts a request of an address; refuses it when there were too many.
    pub fn count(&self, address: IpAddr) -> Result<(), Refusal> {
        if !self.of_address.is_set() {
            return Ok(());
        }
        self.of_address.take(&place(address), Instant::now()).map_err(|wait| Refusal::too_many("address", wait))
    }

    /// Who sends these headers; refuses who may not do what needs `scope`.
    pub fn admit(&self, headers: &HeaderMap, scope: Scope) -> Result<Who, Refusal> {
        if !self.is_asked() {
            return Ok(Who::anyone());
        }
        let bearer = bearer(headers).ok_or_else(|| unauthorized("send a token as `authorization: Bearer <token>`"))?;
        let who = self.who(bearer);
        let who = who.ok_or_else(|| unauthorized("the token is not known here, or no longer; ask whoever runs this for one"))?;
        self.of_token.take(&who.bucket(), Instant::now()).map_err(|wait| Refusal::too_many("token", wait))?;
        match who.may(scope) {
            true => Ok(who),
            false => Err(forbidden(&format!("the token lacks the scope {}", scope.name()))),
        }
    }

    fn who(&self, bearer: &str) -> Option<Who> {
        let of_file = self.tokens.as_ref().and_then(|tokens| tokens.get().get(&blake3::hash(bearer.as_bytes())).cloned());
        of_file.or_else(|| self.keys.as_ref()?.get().who(bearer))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What counts as one address: of IPv6 the network, since a host may have all of it.
fn place(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{:x?}", &address.segments()[..4]),
    }
}

fn unauthorized(message: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
}

fn forbidden(message: &str) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "forbidden", message)
}

fn read(path: &Path) -> Result<HashMap<blake3::Hash, Who>, String> {
    let wrong = |what: String| format!("[access] tokens, {}: {what}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("it cannot be read: {e}")))?;
    // Only the message: the text around it may hold a token that was put where its hash belongs.
    let entries: Entries = toml::from_str(&text).map_err(|e| wrong(e.message().to_string()))?;
    let mut tokens = HashMap::new();
    let mut names = BTreeSet::new();
    for Entry { name, hash, scopes, user } in entries.token {
        let hash = blake3::Hash::from_hex(&hash);
        let hash = hash.map_err(|_| wrong(format!("the hash of `{name}` must be 64 hex digits; `overdrive token` prints it")))?;
        if scopes.is_empty() {
            return Err(wrong(format!("`{name}` has no scope; give it read, write or admin")));
        }
        let who = Who { name: name.as_str().into(), scopes, user };
        if !names.insert(name.clone()) || tokens.insert(hash, who).is_some() {
            return Err(wrong(format!("`{name}` is there twice, by name or by hash; names tell tokens apart in the audit log")));
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let dir = tempfile::tempdir().expect("a folder for the test");
        let path = dir.path().join("tokens.toml");
        std::fs::write(&path, text).expect("written");
        read(&path).expect_err("it must be refused")
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_without_repeating_a_token() {
        let token = |name: &str, hash: &str, rest: &str| format!("[[token]]\nname = \"{name}\"\nhash = \"{hash}\"\n{rest}\n");
        let hash = |of: &str| blake3::hash(of.as_bytes()).to_hex().to_string();
        let read = "scopes = [\"read\"]";
        let cases = [
            (token("a", "od_secret", read), "the hash of `a` must be 64 hex digits"),
            (token("a", &hash("1"), "scopes = []"), "`a` has no scope"),
            (token("a", &hash("1"), "scopes = [\"all\"]"), "unknown variant `all`"),
            (token("a", &hash("1"), "scopes = [\"read\"]\nrole = 1"), "unknown field `role`"),
            (token("a", &hash("1"), read) + &token("a", &hash("2"), read), "`a` is there twice"),
            (token("a", &hash("1"), read) + &token("b", &hash("1"), read), "`b` is there twice"),
            ("[[token]]\nhash = od_secret".to_string(), "tokens.toml"),
        ];
        for (text, says) in cases {
            let why = refused(&text);
            assert!(why.contains(says) && why.contains("tokens.toml") && !why.contains("od_secret"), "{text}: {why}");
        }
    }

    #[test]
    fn what_is_personal_is_for_the_user_and_for_admins() {
        let who = |scopes: &[Scope], user: Option<&str>| Who {
            name: "test".into(),
            scopes: scopes.iter().copied().collect(),
            user: user.map(String::from),
        };
        let cases = [
            (who(&[Scope::Admin], None), [true, true, true]),
            (who(&[Scope::Read, Scope::Write], None), [true, true, false]),
            (who(&[Scope::Write], Some("u1")), [true, false, true]),
            (who(&[Scope::Admin], Some("u2")), [false, false, false]),
            (Who::anyone(), [true, true, true]),
        ];
        for (who, may) in cases {
            let found = [who.about("u1"), who.about_all(), who.personal("u1")].map(|done| done.is_ok());
            assert_eq!(found, may, "{who:?}");
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| place(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
