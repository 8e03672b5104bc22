//! `overdrive token`: draws a token and says what the shim is told of it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::BTreeSet;
use std::io;

use crate::shim::{Entries, Entry, Scope};

/// Arguments of `overdrive token`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose it is, as the audit log will say
    #[arg(long)]
    name: String,
    /// What it is for; several are separated by commas
    #[arg(long = "for", value_enum, value_delimiter = ',', required = true, value_name = "SCOPE")]
    scopes: Vec<Scope>,
    /// The only user it is about
    #[arg(long)]
    user: Option<String>,
}

/// Prints the entry for the file of `[access] tokens` to standard output, and the token, which is kept nowhere, to the error stream.
pub fn run(args: Args) -> Result<(), String> {
    let token = draw().map_err(|e| format!("cannot draw a random number: {e}"))?;
    let scopes: BTreeSet<Scope> = args.scopes.into_iter().collect();
    let hash = blake3::hash(token.as_bytes()).to_hex().to_string();
    let entries = Entries { token: vec![Entry { name: args.name, hash, scopes, user: args.user }] };
    let text = toml::to_string(&entries).map_err(|e| format!("the entry cannot be written: {e}"))?;
    eprintln!("The token, shown this once: {token}");
    super::say(&text)
}

fn draw() -> io::Result<String> {
    let mut drawn = [0; 32];
    let count = rustix::rand::getrandom(&mut drawn[..], rustix::rand::GetRandomFlags::empty())?;
    assert_eq!(count, drawn.len(), "the system gives 256 bytes or fewer at once");
    Ok(format!("od_{}", URL_SAFE_NO_PAD.encode(drawn)))
}
