//! JWTs as bearer tokens, signed with HS256 or RS256 by a key of a JWKS file.
//!
//! What must stay true: the algorithm is the key's, never the token's own word; a token without an end is refused; and no key and no
//! token stands in an error.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use std::collections::BTreeSet;

use super::access::{Params, Scope, Who};
use crate::credentials::is_open;

/// Bytes of a secret at least, as RFC 7518 asks for.
const SECRET: usize = 32;

/// The keys that are known.
pub struct Keys(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    /// Words separated by spaces; those that are no scope of ours are passed over.
    #[serde(default)]
    scope: String,
}

impl Keys {
    /// Those of `[access] keys`. The error names the file and the key.
    pub fn open(params: &Params) -> Result<Self, String> {
        let path = &params.keys;
        let wrong = |what: String| format!("[access] keys, {}: {what}", path.display());
        let text = std::fs::read(path).map_err(|e| wrong(format!("it cannot be read: {e}")))?;
        let set: JwkSet = serde_json::from_slice(&text).map_err(|e| wrong(format!("it is no JWKS: line {}", e.line())))?;
        if set.keys.iter().any(|key| secret(key).is_some())
            && is_open(path).map_err(|e| wrong(format!("it cannot be read: {e}")))?
        {
            return Err(wrong("it holds a secret and others may read it; chmod 600 it".to_string()));
        }
        let key = |(place, jwk)| key(jwk, params).map_err(|what| wrong(format!("key {place} {what}")));
        set.keys.iter().enumerate().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// Who the token says is asking; `None` when no key here has signed that, or it has ended.
    pub fn who(&self, token: &str) -> Option<Who> {
        // What a `crit` asks for is not known here, and must not be passed over.
        let header = decode_header(token).ok().filter(|header| header.crit.is_none())?;
        let fits = |key: &&Key| key.algorithm == header.alg && (header.kid.is_none() || header.kid == key.id);
        let signed = |key: &Key| decode::<Claims>(token, &key.key, &key.validation).ok();
        self.0.iter().filter(fits).find_map(signed).map(|found| found.claims.who())
    }
}

impl Claims {
    /// Bound to its subject, but for an admin; without a subject it is a service's, and bound to nobody.
    fn who(self) -> Who {
        let scopes: BTreeSet<Scope> = self.scope.split(' ').filter_map(Scope::parse).collect();
        match self.sub {
            Some(admin) if scopes.contains(&Scope::Admin) => Who { name: format!("jwt:{admin}").into(), scopes, user: None },
            user => Who { name: "jwt".into(), scopes, user },
        }
    }
}

/// The bytes of a key that signs as well as it proves.
fn secret(key: &Jwk) -> Option<Vec<u8>> {
    match &key.algorithm {
        AlgorithmParameters::OctetKey(key) => Some(URL_SAFE_NO_PAD.decode(&key.value).unwrap_or_default()),
        _ => None,
    }
}

fn key(jwk: &Jwk, params: &Params) -> Result<Key, String> {
    let algorithm = match (&jwk.algorithm, jwk.common.key_algorithm) {
        (AlgorithmParameters::OctetKey(_), Some(KeyAlgorithm::HS256)) => Algorithm::HS256,
        (AlgorithmParameters::RSA(_), Some(KeyAlgorithm::RS256)) => Algorithm::RS256,
        _ => return Err("must say `alg`: HS256 with kty oct, or RS256 with kty RSA".to_string()),
    };
    let key = DecodingKey::from_jwk(jwk).map_err(|_| "cannot be read: its numbers are no base64url".to_string())?;
    if secret(jwk).is_some_and(|secret| secret.len() < SECRET) {
        return Err(format!("is shorter than {SECRET} bytes, and could be guessed"));
    }
    Ok(Key { id: jwk.common.key_id.clone(), algorithm, key, validation: validation(algorithm, params) })
}

fn validation(algorithm: Algorithm, params: &Params) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.validate_nbf = true;
    let mut needed = vec!["exp"];
    if !params.issuer.is_empty() {
        validation.set_issuer(&[&params.issuer]);
        needed.push("iss");
    }
    validation.validate_aud = !params.audience.is_empty();
    if validation.validate_aud {
        validation.set_audience(&[&params.audience]);
        needed.push("aud");
    }
    validation.set_required_spec_claims(&needed);
    validation
}
