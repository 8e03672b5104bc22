//! Passwords, private keys and certificates, from files that settings name. Errors begin with the setting, such as `[kafka] ca`.
//!
//! What must stay true: no error says anything of a secret, and a secret that others than its owner may read is not used.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt::Display;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A password: the file as it is, without the line's end.
pub fn password(setting: &str, path: &Path) -> Result<String, String> {
    closed(setting, path)?;
    let text = std::fs::read_to_string(path).map_err(|e| wrong(setting, path, format!("it cannot be read: {e}")))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(wrong(setting, path, "it is empty; it must hold the password and nothing else")),
        password => Ok(password.to_string()),
    }
}

/// A private key, as PEM.
pub fn key(setting: &str, path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    closed(setting, path)?;
    PrivateKeyDer::from_pem_file(path)
        .map_err(|_| wrong(setting, path, "it holds no private key in PEM (an encrypted one is not read)"))
}

/// Certificates, as PEM; at least one.
pub fn certificates(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|e| wrong(setting, path, format!("it cannot be read: {e}")))?;
    Some(found).filter(|found| !found.is_empty()).ok_or_else(|| wrong(setting, path, "it holds no certificate in PEM"))
}

/// Whether others than its owner may read a file.
pub fn is_open(path: &Path) -> std::io::Result<bool> {
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

/// Whose fault it is and where.
pub fn wrong(setting: &str, path: &Path, what: impl Display) -> String {
    format!("{setting}, {}: {what}", path.display())
}

fn closed(setting: &str, path: &Path) -> Result<(), String> {
    match is_open(path).map_err(|e| wrong(setting, path, format!("it cannot be read: {e}")))? {
        true => Err(wrong(setting, path, "it is a secret and others may read it; chmod 600 it")),
        false => Ok(()),
    }
}
