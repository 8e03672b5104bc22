//! TLS for the shim: the server's certificate and, where `client_ca` is set, certificates of its clients (mTLS).
//!
//! What must stay true: where `client_ca` is set, who has no certificate of it gets not one byte of an answer; no key is said.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{WebPkiClientVerifier, danger::ClientCertVerifier};
use rustls::{RootCertStore, ServerConfig};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use super::access::Params;
use super::guard::Protocol;
use super::jwt::is_open;

/// One proof of who the shim is, for each protocol it speaks.
pub struct Proof {
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
}

impl Proof {
    /// For connections of one.
    pub fn of(&self, protocol: Protocol) -> Arc<ServerConfig> {
        match protocol {
            Protocol::Http => self.http.clone(),
            Protocol::Grpc => self.grpc.clone(),
        }
    }
}

/// What `[access]` says of TLS. The error names the file and what is wrong in it.
pub fn config(params: &Params) -> Result<Proof, String> {
    let Params { tls_cert, tls_key, client_ca, .. } = params;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = certificates("tls_cert", tls_cert)?;
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| wrong("tls_cert", tls_cert, e))?;
    let builder = match client_ca.as_os_str().is_empty() {
        true => builder.with_no_client_auth(),
        false => builder.with_client_cert_verifier(verifier(client_ca, provider)?),
    };
    let config = builder.with_single_cert(chain, key(tls_key)?).map_err(|e| wrong("tls_key", tls_key, e))?;
    let speaks = |protocol: &[u8]| {
        let mut config = config.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    };
    Ok(Proof { http: speaks(b"http/1.1"), grpc: speaks(b"h2") })
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    if is_open(path).map_err(|e| wrong("tls_key", path, format!("it cannot be read: {e}")))? {
        return Err(wrong("tls_key", path, "it is a secret and others may read it; chmod 600 it"));
    }
    PrivateKeyDer::from_pem_file(path).map_err(|_| wrong("tls_key", path, "it holds no private key in PEM"))
}

fn verifier(path: &Path, provider: Arc<rustls::crypto::CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca", path)? {
        roots.add(certificate).map_err(|e| wrong("client_ca", path, e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    verifier.build().map_err(|e| wrong("client_ca", path, e))
}

fn certificates(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|e| wrong(setting, path, format!("it cannot be read: {e}")))?;
    Some(found).filter(|found| !found.is_empty()).ok_or_else(|| wrong(setting, path, "it holds no certificate in PEM"))
}

fn wrong(setting: &str, path: &Path, what: impl Display) -> String {
    format!("[access] {setting}, {}: {what}", path.display())
}
