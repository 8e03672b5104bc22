//! The audit log: a line of JSON for each step of an order to forget, durable before the next step. A user stands in it as a hash
//! salted with a secret of the state folder: who has the folder and the id can find the lines, nobody can find the id in them. Lines
//! are appended and never changed; what a crash makes happen twice is said once.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::model::time::Millis;
use crate::model::{Origin, UserId};

/// A step of an order.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum What {
    /// The log had taken the order at this time.
    Accepted { accepted_ms: Millis },
    /// Since this epoch no answer depends on the user, and the store shows it.
    Applied { epoch: u64 },
    /// Nothing that is kept holds the user; how many records were taken out where. `epoch` is the newest snapshot's.
    Purged { epoch: u64, erased: BTreeMap<&'static str, u64> },
}

impl What {
    fn name(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::Applied { .. } => "applied",
            Self::Purged { .. } => "purged",
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    at_ms: Millis,
    user: &'a str,
    /// The place of the order in the log.
    order: &'a str,
    #[serde(flatten)]
    what: &'a What,
}

/// What tells one line from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Said {
    event: String,
    order: String,
    user: String,
}

/// The open file.
pub struct Audit {
    path: PathBuf,
    file: File,
    salt: Salt,
    said: BTreeSet<Said>,
}

impl Audit {
    /// Appends to `path`; the salt lies in `folder`. Both are made where they are not there.
    pub fn open(path: &Path, folder: &Path) -> Result<Self, String> {
        let failed = |e: io::Error| format!("cannot open the audit log {}: {e}; check [privacy] audit", path.display());
        let salt = Salt::of(folder)?;
        path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed)?;
        let before = std::fs::read(path).map_err(failed)?;
        if before.last().is_some_and(|last| *last != b'\n') {
            file.write_all(b"\n").map_err(failed)?; // a crash cut the last line
        }
        let said = before.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        Ok(Self { path: path.to_path_buf(), file, salt, said })
    }

    /// Adds a line, durably, unless it is there.
    pub fn say(&mut self, now: Millis, user: UserId, origin: Origin, what: What) -> Result<(), String> {
        let Origin { role, partition, offset, accepted } = origin;
        let order = format!("{}/{partition}/{offset}@{accepted}", role.name());
        let user = self.salt.name(user);
        let said = Said { event: what.name().to_string(), order, user };
        if self.said.contains(&said) {
            return Ok(());
        }
        let line = Line { at_ms: now, user: &said.user, order: &said.order, what: &what };
        let mut text = serde_json::to_vec(&line).expect("numbers and texts are JSON");
        text.push(b'\n');
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        written.map_err(|e| format!("cannot append to the audit log {}: {e}; check the disk", self.path.display()))?;
        self.said.insert(said);
        Ok(())
    }
}

/// The secret of a state folder, under which its audit logs name users.
pub struct Salt([u8; 32]);

impl Salt {
    /// That of the folder, made when it is first asked for.
    pub fn of(folder: &Path) -> Result<Self, String> {
        let read = |e| format!("cannot read {}: {e}; check the disk and the permissions", folder.join("salt").display());
        salt(folder).map(Self).map_err(read)
    }

    /// What stands for a user.
    pub fn name(&self, user: UserId) -> String {
        blake3::keyed_hash(&self.0, &user.0.to_le_bytes()).to_hex()[..32].to_string()
    }
}

fn salt(folder: &Path) -> io::Result<[u8; 32]> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join("salt");
    match std::fs::read(&path) {
        Ok(salt) => salt.try_into().map_err(|_| io::Error::other("a salt has 32 bytes; put back a copy of it")),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let salt = drawn();
            let beside = folder.join("salt.unfinished");
            let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
            file.write_all(&salt)?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)?;
            File::open(folder)?.sync_all()?;
            Ok(salt)
        }
        Err(e) => Err(e),
    }
}

/// Bytes nobody can foretell: the standard library keys its hash maps from the system's source of them.
fn drawn() -> [u8; 32] {
    let mut salt = [0; 32];
    for (number, eight) in salt.chunks_exact_mut(8).enumerate() {
        eight.copy_from_slice(&RandomState::new().hash_one(number).to_le_bytes());
    }
    salt
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;

    #[test]
    fn a_step_is_said_once_without_the_id_and_a_cut_line_harms_nothing() {
        let dir = tempfile::tempdir().expect("a folder for the test");
        let (path, folder) = (dir.path().join("deep/audit.jsonl"), dir.path().join("privacy"));
        let user = UserId::of("canary");
        let origin = Origin { role: Role::Control, partition: 0, offset: 17, accepted: 5 };
        let mut audit = Audit::open(&path, &folder).expect("opens");
        for _ in 0..2 {
            audit.say(7, user, origin, What::Accepted { accepted_ms: 5 }).expect("written");
        }
        drop(audit);
        let mut file = OpenOptions::new().append(true).open(&path).expect("it is there");
        file.write_all(b"{\"at_ms\":8,\"user\":").expect("cut");
        let mut audit = Audit::open(&path, &folder).expect("opens again");
        for now in [9, 10] {
            audit.say(now, user, origin, What::Accepted { accepted_ms: 5 }).expect("said before");
            audit.say(now, user, origin, What::Applied { epoch: 3 }).expect("written");
            audit.say(now, user, origin, What::Purged { epoch: 4, erased: [("log", 2)].into() }).expect("written");
        }
        let text = std::fs::read_to_string(&path).expect("it is there");
        let lines: Vec<serde_json::Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let hash = lines[0]["user"].as_str().expect("a hash");
        let line = |at: i64, what: &str| format!("{{\"at_ms\":{at},\"user\":\"{hash}\",\"order\":\"control/0/17@5\",{what}}}\n");
        let said = [
            line(7, "\"event\":\"accepted\",\"accepted_ms\":5"),
            "{\"at_ms\":8,\"user\":\n".to_string(),
            line(9, "\"event\":\"applied\",\"epoch\":3"),
            line(9, "\"event\":\"purged\",\"epoch\":4,\"erased\":{\"log\":2}"),
        ];
        assert_eq!(text, said.concat());
        assert!(hash.len() == 32 && !text.contains("canary") && !text.contains(&user.0.to_string()));
        let elsewhere = dir.path().join("other");
        let mut other = Audit::open(&elsewhere.join("audit"), &elsewhere).expect("opens");
        other.say(7, user, origin, What::Accepted { accepted_ms: 5 }).expect("written");
        assert!(!std::fs::read_to_string(elsewhere.join("audit")).expect("it is there").contains(hash), "another salt");
    }
}
