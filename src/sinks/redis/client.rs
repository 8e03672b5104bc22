//! Who the server is and who we are to it: address, user, certificates; and what the server's errors mean.
//!
//! What must stay true: every connection is made by [`client`], and no error text has a password in it.

use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, TlsCertificates,
};
use rustls::CertificateError::{
    self, BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer,
};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use crate::credentials;
use crate::sinks::{RedisParams, StoreError};

/// A client for the server `params` name, with TCP_NODELAY (its own default is off). `Refused` when a setting, or a file it names,
/// cannot be used.
pub fn client(params: &RedisParams) -> Result<Client, StoreError> {
    // The cause may quote the URL with its password, so it stays out.
    let unreadable = |_| {
        let form = "redis://[user:password@]host:port/database";
        StoreError::Refused(format!("the redis url cannot be read; it should look like {form} (in [redis] url)"))
    };
    let info = params.url.as_str().into_connection_info().map_err(unreadable)?;
    let info = logged_in(info, params)?.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        return Client::open(info).map_err(unreadable);
    }
    // Other crates may bring other implementations of cryptography: rustls would not know which to take.
    let _was_there = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let certificates = certificates(params).map_err(StoreError::Refused)?;
    Client::build_with_tls(info, certificates).map_err(|e| StoreError::Refused(format!("[redis] ca, cert, key: {e}")))
}

/// With the user and the password of the settings, where they name them.
fn logged_in(info: ConnectionInfo, params: &RedisParams) -> Result<ConnectionInfo, StoreError> {
    let mut settings = info.redis_settings().clone();
    if !params.username.is_empty() {
        settings = settings.set_username(&params.username);
    }
    if is_named(&params.password_file) {
        let password = credentials::password("[redis] password_file", &params.password_file).map_err(StoreError::Refused)?;
        settings = settings.set_password(password);
    }
    if let (Some(user), None) = (settings.username(), settings.password()) {
        return Err(StoreError::Refused(format!(
            "[redis] names the user {user} and no password; name a password_file, or put it into the url"
        )));
    }
    Ok(info.set_redis_settings(settings))
}

fn certificates(params: &RedisParams) -> Result<TlsCertificates, String> {
    let RedisParams { ca, cert, key, .. } = params;
    let root_cert = is_named(ca).then(|| pem("[redis] ca", ca)).transpose()?;
    let client_tls = match is_named(cert) {
        true => {
            credentials::key("[redis] key", key)?;
            let client_key = std::fs::read(key).map_err(|e| credentials::wrong("[redis] key", key, e))?;
            Some(ClientTlsConfig { client_cert: pem("[redis] cert", cert)?, client_key })
        }
        false => None,
    };
    Ok(TlsCertificates { client_tls, root_cert })
}

/// A file that holds certificates. (The client takes one without any for an authority that nobody comes from.)
fn pem(setting: &str, path: &Path) -> Result<Vec<u8>, String> {
    credentials::certificates(setting, path)?;
    std::fs::read(path).map_err(|e| credentials::wrong(setting, path, e))
}

fn is_named(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

/// What an error of the client means to the writer, in words without secrets.
pub fn store_error(client: &Client, error: &RedisError) -> StoreError {
    let info = client.get_connection_info();
    let at = format!("redis at {}/{}", info.addr(), info.redis_settings().db());
    let text = without(info.redis_settings().password(), text_of(error));
    match remedy(error) {
        Some(remedy) => StoreError::Refused(format!("{at} refuses: {text}; {remedy}")),
        None => StoreError::Retry(format!("{at} does not take writes: {text}")),
    }
}

/// The same for those who ask a shim: they are told neither where the server is nor who the shim is to it.
pub fn explained(client: &Client, error: &RedisError) -> String {
    let settings = client.get_connection_info().redis_settings();
    let text = match tls_error(error) {
        Some(_) => "it and we do not agree on TLS".to_string(), // the cause names hosts
        None => without(settings.username(), without(settings.password(), text_of(error))),
    };
    match remedy(error) {
        Some(remedy) => format!("redis refuses: {text}; {remedy}"),
        None => format!("redis does not answer: {text}"),
    }
}

fn without(secret: Option<&str>, text: String) -> String {
    match secret {
        Some(secret) if !secret.is_empty() => text.replace(secret, "***"),
        _ => text,
    }
}

/// The first thing the server said, or what happened on the way. (All errors of a pipeline may be thousands.)
pub(super) fn text_of(error: &RedisError) -> String {
    match error.clone().into_server_errors().as_deref() {
        Some([(_, first), ..]) => format!("{} {}", first.code(), first.details().unwrap_or_default()),
        _ => error.to_string(),
    }
}

/// Whether trying again cannot help before somebody changes something.
pub(super) fn is_refusal(error: &RedisError) -> bool {
    remedy(error).is_some()
}

/// What somebody must do before another try can help; `None`: nothing, it may pass.
fn remedy(error: &RedisError) -> Option<&'static str> {
    const LOGIN: &str = "check [redis] username and password_file, or user and password in url";
    const RIGHTS: &str = "give the user of [redis] the rights that SECURITY.md lists";
    const SERVER: &str = "check [redis] url, the user's permissions and the server's version";
    if let Some([(_, first), ..]) = error.clone().into_server_errors().as_deref() {
        let says = first.details().unwrap_or_default();
        return match first.code() {
            "NOAUTH" | "WRONGPASS" => Some(LOGIN),
            "NOPERM" => Some(RIGHTS),
            "ERR" if says.starts_with("The user executing the script") => Some(RIGHTS),
            "ERR" if says.starts_with("max number of clients") => None,
            "WRONGTYPE" | "ERR" => Some(SERVER),
            // OOM, LOADING, READONLY, MISCONF, MASTERDOWN, BUSY and what else may pass.
            _ => None,
        };
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => Some(LOGIN),
        ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported => Some(SERVER),
        _ => tls_error(error).and_then(tls_remedy),
    }
}

/// What went wrong while hands were shaken, if that did.
fn tls_error(error: &RedisError) -> Option<&rustls::Error> {
    let cause = error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    cause.downcast_ref().or_else(|| cause.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref())
}

fn tls_remedy(error: &rustls::Error) -> Option<&'static str> {
    use rustls::{AlertDescription as Alert, Error as Tls};
    match error {
        Tls::InvalidCertificate(reason) => Some(certificate_remedy(reason)),
        Tls::AlertReceived(Alert::CertificateRequired | Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown) => {
            Some("it wants a certificate that it trusts: check [redis] cert and key")
        }
        Tls::InvalidMessage(_) => Some("it may not speak TLS on this port: check [redis] url"),
        Tls::PeerIncompatible(_) => Some("give it TLS 1.2 or 1.3"),
        _ => None,
    }
}

fn certificate_remedy(reason: &CertificateError) -> &'static str {
    match reason {
        UnknownIssuer | BadSignature => {
            "its certificate comes from none of the authorities in [redis] ca (without one: from none of the system's)"
        }
        NotValidForName | NotValidForNameContext { .. } => {
            "its certificate is for another name: call it in [redis] url as the certificate does"
        }
        Expired | ExpiredContext { .. } => "renew its certificate",
        _ => "give it a certificate that holds",
    }
}
