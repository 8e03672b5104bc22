//! Taking users' records out of the log that are not read again. Each becomes a blank of its length, so that offsets and bytes stay
//! where they were: a reader passes over it, whether it came before or after. Only segments that nobody appends to are written, beside
//! themselves, and renamed whole.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use super::frame::{self, Frame};
use super::segment::{self, Cursor};
use super::{Params, append, name, partition_folder, partitions, prepare};
use crate::codec::{Decoder, Limits};
use crate::model::forget::Leavers;
use crate::model::{Control, Input, Names, UserId};
use crate::sources::{Role, SourceError};

/// How the names of files end that are being written.
const UNFINISHED: &str = ".unfinished";

/// Blanks what the log in `dir` holds of these users; yields how many records that were. What describes items is not theirs.
pub fn erase(dir: &Path, params: &Params, leavers: &Leavers) -> Result<u64, String> {
    prepare(dir, params)?;
    let below = |place| leavers.below.get(&place).copied().unwrap_or_default();
    let partition = |(role, partition)| Partition { dir, role, partition, leavers, below: below((role, partition)) };
    let theirs: Vec<_> = partitions(params).filter(|(role, _)| *role != Role::Items).map(partition).collect();
    theirs.iter().try_for_each(Partition::is_read).map_err(|e| e.to_string())?;
    theirs.iter().map(Partition::erase).sum::<Result<u64, _>>().map_err(|e| e.to_string())
}

struct Partition<'a> {
    dir: &'a Path,
    role: Role,
    partition: u32,
    leavers: &'a Leavers,
    /// Records before this offset are looked at.
    below: u64,
}

/// A record's new bytes, as many as it had, and where they go.
type Patch = (u64, Vec<u8>);

impl Partition<'_> {
    fn erase(&self) -> Result<u64, SourceError> {
        let folder = partition_folder(self.dir, self.role, self.partition);
        let failed = |e: io::Error| SourceError::Retry(format!("cannot take records out of {}: {e}", folder.display()));
        clear_unfinished(&folder).map_err(failed)?;
        let (bases, mut erased) = (segment::bases(&folder).map_err(failed)?, 0);
        for base in bases.iter().copied().filter(|base| *base < self.below) {
            let patches = self.patches(&folder, base)?;
            if patches.is_empty() {
                continue;
            }
            if bases.last() == Some(&base) {
                append::begin_segment(self.dir, self.role, self.partition)?;
            }
            erased += patches.len() as u64;
            rewrite(&segment::path(&folder, base), &patches).map_err(failed)?;
        }
        Ok(erased)
    }

    /// An error when records that were accepted before an order lie beyond what every snapshot has read: they wait.
    fn is_read(&self) -> Result<(), SourceError> {
        let folder = partition_folder(self.dir, self.role, self.partition);
        let mut cursor = Cursor::open(&folder, &name(self.role, self.partition), Some(self.below))?;
        let unread = cursor.read()?.filter(|frame| self.leavers.users.values().any(|until| frame.accepted_ms <= until.accepted));
        let (name, below) = (name(self.role, self.partition), self.below);
        unread.map_or(Ok(()), |_| {
            Err(SourceError::Retry(format!(
                "{name} holds records from {below} on of before the order, and no snapshot has read them"
            )))
        })
    }

    fn patches(&self, folder: &Path, base: u64) -> Result<Vec<Patch>, SourceError> {
        let names = Arc::new(Names::default());
        let decoder = Decoder::new(names.clone(), Limits::PUBLISHED);
        let mut cursor = Cursor::open(folder, &name(self.role, self.partition), Some(base))?;
        let mut patches = Vec::new();
        while cursor.next_offset() < self.below {
            let Some((at, frame)) = next_in(&mut cursor, base)? else { break };
            patches.extend(self.instead(&frame, &decoder, &names).map(|bytes| (at, bytes)));
        }
        Ok(patches)
    }

    /// What is to stand in place of a record; `None`: it stays.
    fn instead(&self, frame: &Frame, decoder: &Decoder, names: &Names) -> Option<Vec<u8>> {
        let (accepted, payload) = (frame.accepted_ms, frame.payload.as_deref());
        let takes = |user: UserId| self.leavers.takes(user, accepted);
        let theirs = match decoder.decode(self.role, Some(&frame.key), payload, accepted) {
            _ if frame.blank => false,
            _ if std::str::from_utf8(&frame.key).is_ok_and(|key| takes(UserId::of(key))) => true,
            Ok(Input::Event(event)) => takes(event.user),
            Ok(Input::User(user, _) | Input::Control(Control::Forget { user } | Control::Rank { user, .. })) => takes(user),
            Ok(Input::Control(Control::Revoke { users, .. })) => {
                let gone: Vec<UserId> = users.iter().copied().filter(|user| takes(*user)).collect();
                if !gone.is_empty() && gone.len() < users.len() {
                    return Some(masked(frame, &gone, names));
                }
                !gone.is_empty()
            }
            Ok(Input::Item(..) | Input::Control(Control::Model(_) | Control::Encoder { .. } | Control::Encoded(..))) => false,
            Err(_) => {
                let text = String::from_utf8_lossy(payload.unwrap_or_default());
                self.leavers.named_in(&text, |until| accepted <= until.accepted)
            }
        };
        theirs.then(|| frame::blanked(frame))
    }
}

/// The next record of the segment that begins at `base`, and its first byte.
fn next_in(cursor: &mut Cursor, base: u64) -> Result<Option<(u64, Frame)>, SourceError> {
    let at = cursor.at();
    let frame = cursor.read()?;
    Ok(frame.filter(|_| cursor.base() == base).map(|frame| (at, frame)))
}

/// An order that concerns others too, with the names of these users struck out.
fn masked(frame: &Frame, gone: &[UserId], names: &Names) -> Vec<u8> {
    let mut payload = frame.payload.as_deref().unwrap_or_default().to_vec();
    for name in gone.iter().filter_map(|user| names.users.get(user.0)) {
        let name = name.as_bytes();
        for at in 0..(payload.len() + 1).saturating_sub(name.len()) {
            if payload[at..].starts_with(name) {
                payload[at..at + name.len()].fill(b'_');
            }
        }
    }
    let mut bytes = Vec::new();
    frame::encode(frame.accepted_ms, &frame.key, Some(&payload), &mut bytes);
    bytes
}

fn rewrite(path: &Path, patches: &[Patch]) -> io::Result<()> {
    let mut bytes = std::fs::read(path)?;
    for (at, patch) in patches {
        let at = *at as usize;
        let place = bytes.get_mut(at..at + patch.len());
        place.ok_or_else(|| io::Error::other("the file is shorter than it was"))?.copy_from_slice(patch);
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(UNFINISHED);
    let mut file = File::create(&beside)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// What a crash left: it may hold what is to go.
fn clear_unfinished(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(UNFINISHED) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{LogAppender, LogSource};
    use super::*;
    use crate::model::Positions;
    use crate::model::forget::Until;
    use crate::sources::{Record, Source};
    use bytes::Bytes;
    use std::collections::BTreeMap;
    use std::time::Duration;

    fn event(user: &str, key: &str) -> (Bytes, Option<Bytes>) {
        let payload = format!(r#"{{"user_id":"{user}","item_id":"i","type":"view"}}"#);
        (Bytes::copy_from_slice(key.as_bytes()), Some(payload.into()))
    }

    fn all(source: &mut LogSource) -> Vec<Record> {
        let mut records = Vec::new();
        loop {
            let before = records.len();
            source.poll(100, Duration::ZERO, &mut records).expect("reads");
            if records.len() == before {
                return records;
            }
        }
    }

    fn everything(dir: &Path) -> Vec<u8> {
        let mut files: Vec<_> = std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
        files.sort();
        let read =
            |path: &std::path::PathBuf| if path.is_dir() { everything(path) } else { std::fs::read(path).expect("a file") };
        files.iter().flat_map(read).collect()
    }

    #[test]
    fn a_users_records_go_and_every_other_stays_at_its_offset_for_old_and_new_readers_and_for_appenders() {
        for segment_bytes in [1, 200, 1 << 20] {
            let dir = tempfile::tempdir().expect("a folder");
            let params = Params { partitions: 1, segment_bytes, fsync: false };
            let log = LogAppender::open(dir.path(), &params).expect("opens");
            let append = |role, records: &[(Bytes, Option<Bytes>)]| log.append_now(role, records).expect("appends");
            // By the payload, by the key, broken, and beyond the positions.
            let sent = [event("other", "k"), event("canary", "k"), event("other", "canary"), event("other2", "k")];
            append(Role::Events, &sent);
            append(Role::Events, &[("k".into(), Some(r#"{"user_id":"canary","item_"#.into()))]);
            append(Role::Users, &[("canary".into(), Some(r#"{"user_id":"canary","bio":"sings"}"#.into()))]);
            let revoke = r#"{"op":"revoke","user_ids":["other","canary"]}"#;
            let forget = ("canary".into(), Some(r#"{"op":"forget","user_id":"canary"}"#.into()));
            append(Role::Control, &[("k".into(), Some(revoke.into())), forget]);
            append(Role::Items, &[("canary".into(), Some(r#"{"item_id":"canary"}"#.into()))]);

            let open = || LogSource::open(dir.path(), &params, Positions::new()).expect("opens");
            let mut early = open();
            early.poll(1, Duration::ZERO, &mut Vec::new()).expect("reads");
            let accepted = all(&mut open()).iter().map(|r| r.accepted_ms).max().expect("records");
            std::thread::sleep(Duration::from_millis(2));
            append(Role::Events, &[event("canary", "k")]); // they are back
            let before = all(&mut open());
            let leavers = |accepted, events| Leavers {
                users: BTreeMap::from([(UserId::of("canary"), Until { accepted, epoch: 0 })]),
                below: [((Role::Events, 0), events), ((Role::Users, 0), 1), ((Role::Control, 0), 2), ((Role::Items, 0), 1)]
                    .into(),
            };
            let early_error = erase(dir.path(), &params, &leavers(accepted, 4)).expect_err("record 4 is not read");
            assert!(early_error.contains("events/0 holds records from 4 on"), "{early_error}");
            assert_eq!(erase(dir.path(), &params, &leavers(accepted, 5)), Ok(6));
            assert_eq!(erase(dir.path(), &params, &leavers(accepted, 6)), Ok(0), "nothing is left to do");

            let after = all(&mut open());
            let places = |records: &[Record]| records.iter().map(|r| (r.role, r.offset)).collect::<Vec<_>>();
            let kept = [(Role::Control, 0), (Role::Items, 0), (Role::Events, 0), (Role::Events, 3), (Role::Events, 5)];
            let mut found = places(&after);
            found.sort();
            let mut kept = kept.to_vec();
            kept.sort();
            assert_eq!(found, kept);
            for record in &after {
                let same = before.iter().find(|b| (b.role, b.offset) == (record.role, record.offset)).expect("it was there");
                let revoke = revoke.replace("canary", "______");
                let payload = if record.role == Role::Control { Some(revoke.into()) } else { same.payload.clone() };
                assert_eq!((&record.payload, record.accepted_ms), (&payload, same.accepted_ms));
            }
            assert!(!all(&mut early).is_empty(), "a reader that was open goes on");
            assert_eq!(append(Role::Events, &[event("other3", "k")]), [(0, 6)], "and so does an appender");

            assert_eq!(erase(dir.path(), &params, &leavers(i64::MAX, 7)), Ok(1), "forgotten once more");
            for partition in ["events-0", "users-0", "control-0"] {
                let bytes = everything(&dir.path().join(partition));
                assert!(!bytes.windows(6).any(|six| six == b"canary"), "{partition}");
            }
            assert!(all(&mut open()).iter().any(|r| (r.role, r.offset) == (Role::Events, 6)));
        }
    }
}
