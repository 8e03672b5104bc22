//! TLS for the shim: the server's certificate and, where `client_ca` is set, certificates of its clients (mTLS).
//!
//! What must stay true: where `client_ca` is set, who has no certificate of it gets not one byte of an answer; no key is said.

use rustls::server::{WebPkiClientVerifier, danger::ClientCertVerifier};
use rustls::{RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;

use super::access::Params;
use super::guard::Protocol;
use crate::credentials::{certificates, key, wrong};

const TLS_CERT: &str = "[access] tls_cert";
const TLS_KEY: &str = "[access] tls_key";
const CLIENT_CA: &str = "[access] client_ca";

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
    let chain = certificates(TLS_CERT, tls_cert)?;
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| wrong(TLS_CERT, tls_cert, e))?;
    let builder = match client_ca.as_os_str().is_empty() {
        true => builder.with_no_client_auth(),
        false => builder.with_client_cert_verifier(verifier(client_ca, provider)?),
    };
    let config = builder.with_single_cert(chain, key(TLS_KEY, tls_key)?).map_err(|e| wrong(TLS_KEY, tls_key, e))?;
    let speaks = |protocol: &[u8]| {
        let mut config = config.clone();
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    };
    Ok(Proof { http: speaks(b"http/1.1"), grpc: speaks(b"h2") })
}

fn verifier(path: &Path, provider: Arc<rustls::crypto::CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CLIENT_CA, path)? {
        roots.add(certificate).map_err(|e| wrong(CLIENT_CA, path, e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    verifier.build().map_err(|e| wrong(CLIENT_CA, path, e))
}
