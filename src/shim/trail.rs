//! The audit trail of requests that are about all that is kept of a user, and of what ranks: who asked for what, when and from where. A line is durable
//! before what it tells of is done. A user stands in it as a hash salted with the secret of the state folder, as in the log of
//! `[privacy] audit` of the same folder.

use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::now_ms;
use crate::model::UserId;
use crate::privacy::Salt;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Deed {
    pub event: &'static str,
    pub of: About,
    /// The name of the token.
    pub by: Arc<str>,
    pub address: Option<IpAddr>,
    pub request_id: Arc<str>,
}

/// What it is about.
#[derive(Clone, Debug)]
pub enum About {
    User(UserId),
    /// Of a model.
    Version(String),
}

#[derive(Serialize)]
struct Line<'a> {
    at_ms: i64,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    by: &'a str,
    address: Option<IpAddr>,
    request_id: &'a str,
}

/// The file; opened by the first line, since a shim that is asked for nothing of the kind needs no folder.
pub struct Trail {
    path: PathBuf,
    folder: PathBuf,
    open: Mutex<Option<(File, Salt)>>,
}

impl Trail {
    /// Lines go to `path` in `state_dir`.
    pub fn new(path: &Path, state_dir: &Path) -> Self {
        Self { path: state_dir.join(path), folder: state_dir.join("privacy"), open: Mutex::new(None) }
    }

    /// Adds a line, durably. Waits for the disk: not for a thread that answers requests.
    pub fn say(&self, deed: &Deed) -> Result<(), String> {
        let mut open = self.open.lock().expect("no panic under the lock");
        if open.is_none() {
            *open = Some((self.file().map_err(|e| self.failed(&e))?, Salt::of(&self.folder)?));
        }
        let (file, salt) = open.as_mut().expect("it was just opened");
        let Deed { event, of, by, address, request_id } = deed;
        let (user, version) = match of {
            About::User(user) => (Some(salt.name(*user)), None),
            About::Version(version) => (None, Some(version.as_str())),
        };
        let line = Line { at_ms: now_ms(), event, user: user.as_deref(), version, by, address: *address, request_id };
        let mut text = serde_json::to_vec(&line).expect("numbers and texts are JSON");
        text.push(b'\n');
        file.write_all(&text).and_then(|()| file.sync_data()).map_err(|e| self.failed(&e))
    }

    fn file(&self) -> io::Result<File> {
        self.path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)
    }

    fn failed(&self, error: &io::Error) -> String {
        format!("cannot write the audit log {}: {error}; check [access] audit and the disk", self.path.display())
    }
}
