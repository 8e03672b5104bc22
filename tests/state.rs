//! The state on disk: one contract over a local folder and object stores, and damage of every kind. What comes back is exactly what
//! was committed, or an error that says what is wrong; the long form is `OVERDRIVE_MUTATIONS=500 cargo test --test state`.

use bytes::Bytes;
use crossbeam_channel::{Receiver, unbounded};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

use overdrive::model::{Binding, Epoch, Pace, Part, Role, Saved, Serving, Turn};
use overdrive::state::folder::Folder;
use overdrive::state::manifest::{Manifest, Name};
use overdrive::state::objects::Objects;
use overdrive::state::store::Store;
use overdrive::state::{Address, EpochLog, Head, Look, Snapshot, State, StateError};

/// A place for a state, which can be opened again.
struct Home {
    name: &'static str,
    open: Box<dyn Fn() -> Arc<dyn Store>>,
    _dir: TempDir,
}

fn homes() -> Vec<Home> {
    let dir = || tempfile::tempdir().expect("a temporary folder");
    let objects =
        |store: Arc<dyn object_store::ObjectStore>| -> Arc<dyn Store> { Arc::new(Objects::new(store).expect("a thread")) };
    let (folder, files, none) = (dir(), dir(), dir());
    let (path, memory) = (folder.path().join("state"), Arc::new(InMemory::new()));
    let local = Arc::new(LocalFileSystem::new_with_prefix(files.path()).expect("a folder"));
    vec![
        Home { name: "folder", open: Box::new(move || Arc::new(Folder::open(&path).expect("free"))), _dir: folder },
        Home { name: "memory", open: Box::new(move || objects(memory.clone())), _dir: none },
        Home { name: "object files", open: Box::new(move || objects(local.clone())), _dir: files },
    ]
}

impl Home {
    fn state(&self) -> State {
        State::open_in((self.open)()).unwrap_or_else(|e| panic!("{}: {e}", self.name))
    }
}

/// Numbers that look random, the same in every run.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

fn epoch(number: u64) -> Epoch {
    let clock_ms = 1_763_600_000_000 + number as i64;
    Epoch {
        number,
        clock_ms,
        watermark_ms: clock_ms - 5,
        turn: Turn::all_if(number.is_multiple_of(7)),
        refreshes: Some(9),
        save: number.is_multiple_of(10),
        retell: None,
        model: None,
    }
}

/// A binding of as many partitions; `by` tells two of one epoch apart.
fn binding_of(number: u64, partitions: u32, by: u64) -> Binding {
    let offsets = (0..partitions).map(|partition| ((Role::Events, partition), (number, number + by))).collect();
    Binding {
        epoch: epoch(number),
        offsets,
        pace: Pace { unticked: number, turn: 3, full: 1 },
        serving: Serving::default(),
        refusals: Vec::new(),
    }
}

fn binding(number: u64) -> Binding {
    binding_of(number, 2, 1)
}

fn bindings(epochs: std::ops::RangeInclusive<u64>) -> Vec<Binding> {
    epochs.map(binding).collect()
}

/// A state of three operators: 6 MB that stay, a few entries that every epoch changes, and nothing.
fn snapshot(number: u64) -> Snapshot {
    let mut seeded = Seeded(1);
    let mut quiet: Vec<Saved> = (0..1024).map(|group| Saved { group, shared: false, payload: seeded.bytes(6_000) }).collect();
    // Only the last quarter of the key groups has seen a change.
    quiet[1000].payload = number.to_le_bytes().to_vec();
    let mut seeded = Seeded(number);
    let mut busy: Vec<Saved> =
        (0..40).map(|at| Saved { group: at * 20, shared: at % 2 == 0, payload: seeded.bytes(30) }).collect();
    busy.push(busy[3].clone());
    let mut parts = vec![
        Part { uid: "interests.1".into(), entries: quiet },
        Part { uid: "ledger.2".into(), entries: busy },
        Part { uid: "trending.1".into(), entries: Vec::new() },
    ];
    parts.iter_mut().for_each(|part| part.entries.sort());
    let positions = BTreeMap::from([((Role::Events, 0), number), ((Role::Control, 0), 3)]);
    Snapshot {
        head: Head {
            epoch: epoch(number),
            pace: Pace { unticked: 3, turn: 3, full: 1 },
            serving: Serving::default(),
            positions,
            workers: 4,
            config: "c0ffee".into(),
        },
        parts,
    }
}

/// A log that tells what is durable, and why nothing more is.
fn start(state: &State) -> (EpochLog, Receiver<Result<u64, String>>) {
    let (told, heard) = unbounded();
    let failed = told.clone();
    let log = state.start_log(move |epoch| drop(told.send(Ok(epoch))), move |what| drop(failed.send(Err(what))));
    (log.expect("a sound log"), heard)
}

/// Appends in groups of one to three, each durable before the next begins.
fn append(state: &State, bindings: Vec<Binding>) {
    let (log, heard) = start(state);
    for group in bindings.chunks(3) {
        group.iter().for_each(|binding| log.append(binding.clone()));
        let last = group.last().expect("a chunk is not empty").epoch.number;
        while heard.recv().expect("the log lives") != Ok(last) {}
    }
    log.close();
}

fn manifests(store: &dyn Store) -> Vec<Name> {
    store.list("").expect("listed").iter().filter_map(|(name, _)| Name::parse(name)).collect()
}

fn manifest(store: &dyn Store, name: Name) -> Manifest {
    let bytes = store.read(&name.to_string(), u64::MAX).expect("readable").expect("there");
    Manifest::decode(name, &bytes).expect("sound")
}

#[test]
fn every_store_keeps_the_contract() {
    for home in homes() {
        let (store, name) = ((home.open)(), home.name);
        assert_eq!(store.read("segments/x", 9), Ok(None), "{name}");
        assert_eq!(store.list("nowhere"), Ok(vec![]), "{name}");
        assert_eq!(store.delete("segments/x"), Ok(()), "{name}: nothing to delete is no error");

        let made: Vec<bool> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..8)
                .map(|by| (by, store.clone()))
                .map(|(by, store)| scope.spawn(move || store.create("generation/7", Bytes::from(vec![by])).expect("answered")))
                .collect();
            makers.into_iter().map(|maker| maker.join().expect("no panic")).collect()
        });
        assert_eq!(made.iter().filter(|made| **made).count(), 1, "{name}: one makes it");
        let winner = made.iter().position(|made| *made).expect("one") as u8;
        assert_eq!(store.read("generation/7", 9), Ok(Some(Bytes::from(vec![winner]))), "{name}");

        store.put("segments/b", Bytes::from_static(b"first, and long")).expect("put");
        store.put("segments/b", Bytes::from_static(b"second")).expect("put again");
        store.put("segments/a", Bytes::new()).expect("put");
        store.put("top", Bytes::from_static(b"t")).expect("put");
        store.sync("segments").and_then(|()| store.sync("")).expect("synced");
        assert_eq!(store.read("segments/b", 6), Ok(Some(Bytes::from_static(b"second"))), "{name}");
        assert!(matches!(store.read("segments/b", 5), Err(StateError::Damaged(_))), "{name}: more than can be");
        assert_eq!(store.list("segments"), Ok(vec![("a".into(), 0), ("b".into(), 6)]), "{name}");
        assert_eq!(store.list(""), Ok(vec![("top".into(), 1)]), "{name}: not what lies below");
        store.delete("segments/b").expect("deleted");
        assert_eq!(store.list("segments"), Ok(vec![("a".into(), 0)]), "{name}");

        if store.appends() {
            store.append("segments/a", 0, b"one").and_then(|()| store.append("segments/a", 3, b"two")).expect("appended");
            let read = store.read("segments/a", 1 << 20).expect("readable").expect("there");
            let (written, room) = read.split_at(6);
            assert!(written == b"onetwo" && room.iter().all(|byte| *byte == 0), "{name}");
            assert!(store.append("segments/a", 3, b"!").is_err(), "{name}: somebody else appended");
        }
        assert!(store.append("segments/none", 0, b"!").is_err(), "{name}");
    }
}

#[test]
fn what_was_saved_comes_back_from_every_store() {
    for home in homes() {
        let (state, name) = (home.state(), home.name);
        assert_eq!((state.generation(), state.restore(), state.bindings(None)), (1, Ok(None), Ok(vec![])), "{name}");
        append(&state, bindings(0..=12));
        assert_eq!(state.bindings(None), Ok(bindings(0..=12)), "{name}");
        let committed = state.commit(&snapshot(10), 3).expect("committed");
        assert_eq!((committed.epoch, committed.files, committed.written), (10, 5, 5), "{name}");
        drop(state);

        let state = home.state();
        assert_eq!(state.generation(), 2, "{name}");
        assert_eq!(state.restore(), Ok(Some(snapshot(10))), "{name}");
        assert_eq!(state.bindings(Some(10)), Ok(bindings(11..=12)), "{name}");
        append(&state, bindings(13..=20));
        drop(state);
        assert_eq!(home.state().bindings(Some(11)), Ok(bindings(12..=20)), "{name}: over two generations");
        assert_eq!(Look::of((home.open)()).verify().map(|found| found.damaged), Ok(vec![]), "{name}");
    }
}

#[test]
fn a_log_whose_process_ended_before_its_first_group_is_begun_again() {
    let home = homes().remove(0);
    let state = home.state();
    let (log, _heard) = start(&state);
    log.append(binding(0));
    log.close();
    drop(state);
    let path = home._dir.path().join("state/epochs/0000000001-00000000000000000000.log");
    let bytes = std::fs::read(&path).expect("a log");
    std::fs::write(&path, &bytes[..40]).expect("torn");
    let state = home.state();
    assert_eq!(state.bindings(None), Ok(vec![]));
    append(&state, bindings(0..=3));
    assert_eq!(state.bindings(None), Ok(bindings(0..=3)));
}

#[test]
fn addresses_are_opened_or_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let address = Address::parse(&format!("file://{}", dir.path().join("state").display()), Path::new("")).expect("an address");
    let state = State::open_at(&address).expect("a folder");
    assert!(matches!(State::open_at(&address), Err(StateError::Busy(_))));
    drop(state);
    let state = State::open_at(&Address::Objects("memory://".into())).expect("memory");
    state.commit(&snapshot(1), 1).expect("committed");
    assert_eq!(state.restore(), Ok(Some(snapshot(1))));
}

/// Against a real server: `OVERDRIVE_TEST_S3=s3://bucket/prefix`, with the environment that the store itself reads.
#[test]
#[cfg(feature = "s3")]
#[ignore = "needs OVERDRIVE_TEST_S3"]
fn an_s3_store_keeps_what_a_folder_keeps() {
    let url = std::env::var("OVERDRIVE_TEST_S3").expect("OVERDRIVE_TEST_S3 names a bucket and a prefix");
    let address = Address::parse(&url, Path::new("")).expect("an address");
    let first = State::open_at(&address).expect("the store is there");
    append(&first, bindings(0..=3));
    first.commit(&snapshot(1), 1).expect("committed");
    let second = State::open_at(&address).expect("there is no lock");
    assert!(second.generation() > first.generation());
    assert_eq!(second.restore(), Ok(Some(snapshot(1))));
    assert_eq!(Look::at(&address).expect("the store is there").verify().map(|found| found.damaged), Ok(vec![]));
}

#[test]
fn a_second_process_hears_who_has_the_folder() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let first = State::open(dir.path()).expect("free");
    let Err(StateError::Busy(what)) = State::open(dir.path()) else { panic!("two have it") };
    assert_eq!(
        what,
        format!(
            "the state in {} is in use by another process; stop that one, or give this one a state_dir of its own",
            dir.path().display()
        )
    );
    let log = start(&first).0;
    drop(first);
    assert!(matches!(State::open(dir.path()), Err(StateError::Busy(_))), "its log is still being written");
    log.close();
    assert_eq!(State::open(dir.path()).map(|state| state.generation()), Ok(2), "who was refused claimed nothing");
}

#[test]
fn a_zombie_commits_and_binds_nothing() {
    for home in homes() {
        let store = (home.open)();
        let open = || State::open_in(store.clone()).expect("opened");
        let zombie = open();
        append(&zombie, bindings(0..=4));
        let newer = open();
        assert!(
            matches!(zombie.commit(&snapshot(3), 3), Err(StateError::Fenced(what)) if what.contains("generation 2 has taken over"))
        );
        assert_eq!(manifests(&*store), [], "{}", home.name);
        let (log, heard) = start(&zombie);
        log.append(binding(5));
        log.append(binding(6));
        log.close();
        let heard: Vec<_> = heard.iter().collect();
        assert!(matches!(&heard[..], [Err(what)] if what.contains("generation 2 has taken over")), "{}: {heard:?}", home.name);
        newer.commit(&snapshot(3), 3).expect("the newest may");
        assert_eq!(manifests(&*store), [Name { epoch: 3, generation: 2 }], "{}", home.name);
    }
}

#[test]
fn the_newer_generation_counts_from_its_first_epoch_on() {
    for home in homes() {
        let store = (home.open)();
        let open = || State::open_in(store.clone()).expect("opened");
        let older = open();
        append(&older, bindings(0..=24));
        older.commit(&snapshot(10), 3).expect("committed");
        older.commit(&snapshot(20), 3).expect("committed");
        // As one does that read the log when it reached 14.
        let newer = open();
        let changed: Vec<Binding> = (15..=17).map(|number| binding_of(number, 2, 100)).collect();
        append(&newer, changed.clone());
        let last = open();
        assert_eq!(last.restore(), Ok(Some(snapshot(10))), "{}: 20 was made of epochs that were replaced", home.name);
        let expected: Vec<Binding> = bindings(11..=14).into_iter().chain(changed).collect();
        assert_eq!(last.bindings(Some(10)), Ok(expected), "{}: 18 to 24 followed what was replaced", home.name);
        append(&last, bindings(18..=19));
        last.commit(&snapshot(19), 1).expect("committed");
        assert_eq!(manifests(&*store), [Name { epoch: 19, generation: 3 }], "{}: and 20 is deleted", home.name);
    }
}

#[test]
fn only_what_changed_is_written() {
    for home in homes() {
        let state = home.state();
        let first = state.commit(&snapshot(10), 3).expect("committed");
        let same = state.commit(&Snapshot { head: snapshot(20).head, ..snapshot(10) }, 3).expect("committed");
        assert_eq!((same.files, same.written, same.bytes), (first.files, 0, 0), "{}", home.name);
        let mut turned = snapshot(10);
        turned.parts.iter_mut().for_each(|part| part.entries.reverse());
        assert_eq!(
            state.commit(&turned, 3).map(|committed| committed.written),
            Ok(0),
            "{}: the order does not matter",
            home.name
        );
        let some = state.commit(&snapshot(30), 3).expect("committed");
        assert_eq!((some.files, some.written), (5, 2), "{}: the busy operator, and one run of the quiet one", home.name);
        drop(state);
        let state = home.state();
        assert_eq!(state.restore(), Ok(Some(snapshot(30))), "{}", home.name);
        let again = state.commit(&snapshot(40), 3).expect("committed");
        assert_eq!(again.written, 2, "{}: a restart knows what it read", home.name);
    }
}

#[test]
fn what_the_kept_manifests_name_stays_and_the_rest_goes() {
    for home in homes() {
        let store = (home.open)();
        let state = State::open_in(store.clone()).expect("opened");
        store.put(&format!("segments/{}.parquet", "ab".repeat(32)), Bytes::from_static(b"an orphan")).expect("put");
        for number in [10, 20, 30, 40] {
            state.commit(&snapshot(number), 2).expect("committed");
        }
        let names = manifests(&*store);
        assert_eq!(names, [30, 40].map(|epoch| Name { epoch, generation: state.generation() }), "{}", home.name);
        let manifests: Vec<Manifest> = names.iter().map(|name| manifest(&*store, *name)).collect();
        let named: BTreeSet<String> = manifests.iter().flat_map(|m| m.segments().map(|segment| segment.path.clone())).collect();
        let there: BTreeSet<String> =
            store.list("segments").expect("listed").into_iter().map(|(name, _)| format!("segments/{name}")).collect();
        assert_eq!(there, named, "{}", home.name);
        assert_eq!(manifests[1].parent, Some(names[0].to_string()), "{}", home.name);
        for name in names.iter().rev() {
            assert_eq!(state.restore(), Ok(Some(snapshot(name.epoch))), "{}", home.name);
            store.delete(&name.to_string()).expect("deleted");
        }
        let lost = state.restore().expect_err("not silently empty");
        assert!(matches!(&lost, StateError::Damaged(what) if what.contains("no manifest is left")), "{lost:?}");
    }
}

#[test]
fn the_log_is_trimmed_behind_the_oldest_kept_snapshot() {
    for home in homes() {
        let store = (home.open)();
        let state = State::open_in(store.clone()).expect("opened");
        let all: Vec<Binding> = (0..200).map(|number| binding_of(number, 2_000, 1)).collect();
        append(&state, all.clone());
        let before = store.list("epochs").expect("listed").len();
        assert!(before >= 3, "{}: {before} files", home.name);
        for number in [90, 150, 199] {
            state.commit(&snapshot(number), 2).expect("committed");
        }
        let after = store.list("epochs").expect("listed").len();
        assert!(after < before && after > 0, "{}: {after} of {before} files are left", home.name);
        assert_eq!(
            state.bindings(Some(150)).map(|found| found == all[151..]),
            Ok(true),
            "{}: the oldest kept needs them",
            home.name
        );
        for gone in [None, Some(3)] {
            let what = state.bindings(gone).expect_err("trimmed").to_string();
            assert!(what.starts_with("the epoch log lacks "), "{}: {what}", home.name);
        }
    }
}

#[test]
fn a_torn_group_is_left_out_and_a_damaged_one_is_not() {
    let home = homes().remove(0);
    append(&home.state(), bindings(0..=8));
    let path = home._dir.path().join("state/epochs/0000000001-00000000000000000000.log");
    let whole = without_room(&path);
    std::fs::write(&path, &whole[..whole.len() - 3]).expect("torn");
    let state = home.state();
    let left = state.bindings(None).expect("a torn end is no damage");
    assert_eq!(left, bindings(0..=left.len() as u64 - 1));
    assert!((6..9).contains(&left.len()), "groups of at most three, and one is lost: {}", left.len());
    append(&state, bindings(left.len() as u64..=11));
    assert_eq!(state.bindings(None), Ok(bindings(0..=11)), "the next generation goes on where the whole groups end");

    let mut damaged = whole;
    damaged[60] ^= 1;
    std::fs::write(&path, damaged).expect("damaged");
    let what = state.bindings(None).expect_err("not a torn end: whole groups follow").to_string();
    assert!(what.starts_with("epochs/0000000001-00000000000000000000.log is damaged from byte 24 to byte "), "{what}");
}

#[test]
fn a_hole_in_the_log_is_named() {
    let home = homes().remove(0);
    append(&home.state(), bindings(0..=4));
    append(&home.state(), bindings(8..=9));
    let state = home.state();
    let what = state.bindings(Some(1)).expect_err("a hole").to_string();
    let between = "the epoch log lacks epochs 5 to 7 (between epoch 4 in epochs/0000000001-00000000000000000000.log and \
                   epochs/0000000002-00000000000000000008.log); ";
    assert!(what.starts_with(between), "{what}");
    assert_eq!(state.bindings(Some(7)), Ok(bindings(8..=9)), "after the hole there is none");
    state.commit(&snapshot(30), 3).expect("committed");
    let what = state.bindings(Some(8)).expect_err("an end that was lost").to_string();
    assert!(
        what.contains("ends at epoch 9 in epochs/0000000002-00000000000000000008.log, though there was a snapshot of epoch 30"),
        "{what}"
    );
    let (log, heard) = start(&state);
    log.append(binding(31));
    log.append(binding(33));
    log.close();
    let last = heard.iter().last().expect("an answer");
    assert!(matches!(&last, Err(what) if what.contains("32 comes next")), "nobody can make one: {last:?}");
}

/// What is logged while `run` runs.
fn logged<T>(run: impl FnOnce() -> T) -> (T, String) {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let to = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || to.clone()).with_ansi(false).finish();
    let done = tracing::subscriber::with_default(subscriber, run);
    let bytes = lines.0.lock().expect("no panic").clone();
    (done, String::from_utf8(bytes).expect("UTF-8"))
}

#[test]
fn a_damaged_snapshot_is_told_of_passed_over_and_healed() {
    let home = homes().remove(0);
    let state = home.state();
    append(&state, bindings(0..=22));
    state.commit(&snapshot(10), 3).expect("committed");
    state.commit(&snapshot(20), 3).expect("committed");
    drop(state);
    let store = (home.open)();
    let of = |epoch| manifest(&*store, Name { epoch, generation: 1 });
    let older: BTreeSet<String> = of(10).segments().map(|segment| segment.path.clone()).collect();
    let only_newer = of(20).segments().find(|segment| !older.contains(&segment.path)).expect("something changed").clone();
    let mut bytes = store.read(&only_newer.path, u64::MAX).expect("read").expect("there").to_vec();
    bytes[7] ^= 4;
    let found = blake3::hash(&bytes).to_hex();
    store.put(&only_newer.path, bytes.into()).expect("put");

    let state = State::open_in(store.clone()).expect("opened");
    let (restored, lines) = logged(|| state.restore());
    assert_eq!(restored, Ok(Some(snapshot(10))));
    let told = format!(
        "WARN overdrive::state: snapshot 20 unusable: {} blake3 expected {} found {found}; falling back to 10",
        only_newer.path, only_newer.blake3
    );
    assert!(lines.contains(&told), "{lines}");
    assert_eq!(state.bindings(Some(10)), Ok(bindings(11..=22)), "the log reaches back");
    append(&state, bindings(23..=23));
    let healed = state.commit(&Snapshot { head: snapshot(23).head, ..snapshot(20) }, 1).expect("committed");
    assert_eq!(healed.written, 2, "what lay there under the right name was not trusted");
    assert_eq!(state.restore(), Ok(Some(Snapshot { head: snapshot(23).head, ..snapshot(20) })));
}

#[test]
fn another_format_stops_instead_of_falling_back() {
    let home = homes().remove(1);
    let state = home.state();
    state.commit(&snapshot(10), 3).expect("committed");
    state.commit(&snapshot(20), 3).expect("committed");
    let store = (home.open)();
    let newer = Manifest { format: 2, ..manifest(&*store, Name { epoch: 20, generation: 1 }) };
    store.put(&newer.name().to_string(), newer.encode().into()).expect("put");
    let what = state.restore().expect_err("not ours to read").to_string();
    assert!(what.contains("has format 2, this version of Overdrive reads 1"), "{what}");
}

/// Cuts the room for more off a log: no byte of what is left may change unnoticed.
fn without_room(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).expect("a log");
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    std::fs::write(path, &bytes).expect("writable");
    bytes
}

/// A state folder with three snapshots and a log of two generations.
struct Victim {
    dir: TempDir,
    /// Files of each snapshot: its manifest and its segments.
    files: BTreeMap<u64, BTreeSet<String>>,
}

const SNAPSHOTS: [u64; 3] = [10, 20, 30];
const LAST: u64 = 35;
const LAST_LOG: &str = "epochs/0000000002-00000000000000000025.log";

impl Victim {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let state = State::open(dir.path()).expect("free");
        append(&state, bindings(0..=24));
        state.commit(&snapshot(10), 3).expect("committed");
        state.commit(&snapshot(20), 3).expect("committed");
        drop(state);
        let state = State::open(dir.path()).expect("free");
        assert_eq!(state.restore(), Ok(Some(snapshot(20))));
        append(&state, bindings(25..=LAST));
        state.commit(&snapshot(30), 3).expect("committed");
        drop(state);
        let store = Folder::look(dir.path());
        for (log, _) in store.list("epochs").expect("listed") {
            without_room(&dir.path().join("epochs").join(log));
        }
        let named = |name: Name| {
            let segments: Vec<String> = manifest(&store, name).segments().map(|segment| segment.path.clone()).collect();
            (name.epoch, segments.into_iter().chain([name.to_string()]).collect())
        };
        let files = manifests(&store).into_iter().map(named).collect();
        Self { dir, files }
    }

    fn all_files(&self) -> Vec<String> {
        let store = Folder::look(self.dir.path());
        let of = |folder: &'static str| {
            let names = store.list(folder).expect("listed").into_iter();
            names.map(move |(name, _)| if folder.is_empty() { name } else { format!("{folder}/{name}") })
        };
        ["", "epochs", "generation", "segments"].into_iter().flat_map(of).chain(["lock".to_string()]).collect()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }
}

/// What was done to the folder: the files, as they were before.
struct Mutation {
    what: String,
    before: Vec<(String, Vec<u8>)>,
    deleted: bool,
}

impl Mutation {
    fn apply(victim: &Victim, seeded: &mut Seeded) -> Self {
        loop {
            let files = victim.all_files();
            let file = files[seeded.below(files.len())].clone();
            let other = files[seeded.below(files.len())].clone();
            let read = |file: &str| std::fs::read(victim.path(file)).expect("a file");
            let write = |file: &str, bytes: &[u8]| std::fs::write(victim.path(file), bytes).expect("writable");
            let bytes = read(&file);
            let before = vec![(file.clone(), bytes.clone())];
            match seeded.below(4) {
                0 if !bytes.is_empty() => {
                    let bit = seeded.below(bytes.len() * 8);
                    let mut changed = bytes;
                    changed[bit / 8] ^= 1 << (bit % 8);
                    write(&file, &changed);
                    return Self { what: format!("bit {bit} of {file}"), before, deleted: false };
                }
                1 if !bytes.is_empty() => {
                    let cut = seeded.below(bytes.len());
                    write(&file, &bytes[..cut]);
                    return Self { what: format!("{file} cut at {cut}"), before, deleted: false };
                }
                2 => {
                    std::fs::remove_file(victim.path(&file)).expect("deleted");
                    return Self { what: format!("{file} deleted"), before, deleted: true };
                }
                3 if read(&other) != bytes => {
                    let others = read(&other);
                    write(&file, &others);
                    write(&other, &bytes);
                    let before = vec![(file.clone(), bytes), (other.clone(), others)];
                    return Self { what: format!("{file} swapped with {other}"), before, deleted: false };
                }
                _ => {}
            }
        }
    }

    fn undo(&self, victim: &Victim) {
        self.before.iter().for_each(|(file, bytes)| std::fs::write(victim.path(file), bytes).expect("writable"));
    }

    fn touches(&self, file: &str) -> bool {
        self.before.iter().any(|(touched, _)| touched == file)
    }

    fn touches_log(&self) -> bool {
        self.before.iter().any(|(file, _)| file.starts_with("epochs/"))
    }
}

/// Opens what is left and holds every answer against what was written; answers what came of it.
fn examine(victim: &Victim, mutation: &Mutation) -> &'static str {
    let what = &mutation.what;
    let verified = Look::folder(victim.dir.path()).verify().unwrap_or_else(|e| panic!("{what}: {e}"));
    let state = State::open(victim.dir.path()).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(state.generation() > 2, "{what}: a generation is never claimed twice");
    let whole = |epoch: &&u64| !victim.files[*epoch].iter().any(|file| mutation.touches(file));
    let newest = SNAPSHOTS.iter().rev().find(whole).copied();
    let restored = state.restore();
    match (&restored, newest) {
        (Ok(Some(restored)), Some(newest)) => assert!(*restored == snapshot(newest), "{what}: not the snapshot of {newest}"),
        (Err(StateError::Damaged(_)), None) => {}
        (restored, newest) => panic!(
            "{what}: {newest:?} is the newest that is whole, {:?} came back",
            restored.as_ref().map(|s| s.as_ref().map(|s| s.head.epoch.number))
        ),
    }
    let lost_manifest = mutation.deleted && mutation.before[0].0.starts_with("manifest-");
    let harmless =
        mutation.before.iter().all(|(file, _)| file.starts_with("generation/") || file == "committed" || file == "lock");
    assert!(!harmless || newest == Some(30), "{what}");
    let Some(after) = newest else {
        assert!(!verified.damaged.is_empty(), "{what}: `verify` says that all is well");
        return "no snapshot is whole, and it says so";
    };
    let wanted = bindings(after + 1..=LAST);
    let log = match state.bindings(Some(after)) {
        Err(StateError::Damaged(_)) => "damaged",
        Err(e) => panic!("{what}: {e}"),
        Ok(found) if found == wanted => "whole",
        Ok(found) => {
            assert_eq!(found, wanted[..found.len()], "{what}: bindings that were never written");
            let reached = found.last().map_or(after, |binding| binding.epoch.number);
            let known = if lost_manifest { after } else { 30 };
            assert!(reached >= known && mutation.touches(LAST_LOG), "{what}: the log ends at {reached} in silence");
            "cut"
        }
    };
    assert!(log == "whole" || mutation.touches_log(), "{what}: the log is {log}");
    let noticed = !verified.damaged.is_empty();
    assert!(noticed || harmless || lost_manifest || mutation.touches(LAST_LOG), "{what}: `verify` says that all is well");
    assert!(!noticed || !harmless, "{what}: {:?}", verified.damaged);
    match log {
        "damaged" => "the log is damaged, and it says so",
        "cut" => "the last groups of the log were taken for torn ones",
        _ if after < 30 => "an older snapshot was taken, with all bindings after it",
        _ if noticed => "nothing that was needed; `verify` names it",
        _ => "nothing that matters",
    }
}

#[test]
fn no_damage_gives_back_what_was_never_committed() {
    let rounds = std::env::var("OVERDRIVE_MUTATIONS").map_or(60, |n| n.parse().expect("OVERDRIVE_MUTATIONS is a number"));
    let victim = Victim::new();
    let pristine = victim.all_files();
    let mut came: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..rounds {
        let mutation = Mutation::apply(&victim, &mut Seeded(seed));
        *came.entry(examine(&victim, &mutation)).or_default() += 1;
        mutation.undo(&victim);
        for file in victim.all_files().iter().filter(|file| !pristine.contains(file)) {
            std::fs::remove_file(victim.path(file)).expect("the claim of this round");
        }
    }
    println!("{rounds} mutations: {came:#?}");
    assert!(came.len() >= 4, "the mutations reach every kind of file: {came:?}");
}

/// Runs the binary on a state folder.
fn overdrive(state_dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_overdrive"));
    let output = command.args(args).env_clear().env("OVERDRIVE_STATE_DIR", state_dir).current_dir(state_dir).output();
    let output = output.expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_line_lists_shows_and_names_what_is_damaged() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (code, _, complaint) = overdrive(dir.path(), &["snapshot", "list"]);
    assert!(code == Some(1) && complaint.contains("there is no state in "), "{complaint}");
    let state = State::open(&dir.path().join("state")).expect("free");
    assert_eq!(overdrive(dir.path(), &["snapshot", "list"]), (Some(0), "no snapshots yet\n".into(), String::new()));
    append(&state, bindings(0..=21));
    state.commit(&snapshot(10), 3).expect("committed");
    state.commit(&snapshot(20), 3).expect("committed");

    // The engine still has the folder.
    let (code, listed, _) = overdrive(dir.path(), &["snapshot", "list"]);
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((code, &rows[0][..]), (Some(0), &["epoch", "generation", "workers", "files", "bytes", "written"][..]));
    assert_eq!((&rows[1][..4], &rows[2][..4]), (&["20", "1", "4", "5"][..], &["10", "1", "4", "5"][..]));
    let (code, shown, _) = overdrive(dir.path(), &["snapshot", "inspect", "--epoch", "10"]);
    let (head, parts) = shown.split_once("\n\n").expect("head, then operators");
    assert_eq!((code, serde_json::from_str::<Head>(head).expect("JSON")), (Some(0), snapshot(10).head));
    let rows: Vec<Vec<&str>> = parts.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((&rows[1][..3], &rows[2][..3]), (&["interests.1", "4", "1024"][..], &["ledger.2", "1", "41"][..]));
    assert_eq!(rows[3], ["trending.1", "0", "0", "0"]);
    assert!(overdrive(dir.path(), &["snapshot", "inspect"]).1.contains("\"number\": 20,"));
    let (code, _, complaint) = overdrive(dir.path(), &["snapshot", "inspect", "--epoch", "11"]);
    assert!(code == Some(1) && complaint.contains("there is no snapshot of epoch 11 in "), "{complaint}");
    let (code, fine, _) = overdrive(dir.path(), &["snapshot", "verify"]);
    assert_eq!((code, fine.as_str()), (Some(0), "ok: 10 files, none damaged\n"));

    let folder = dir.path().join("state");
    let damage = |file: &str| {
        let mut bytes = std::fs::read(folder.join(file)).expect("a file");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 16;
        std::fs::write(folder.join(file), bytes).expect("writable");
    };
    let newer = Name { epoch: 20, generation: 1 };
    let segment =
        manifest(&Folder::look(&folder), Name { epoch: 10, generation: 1 }).segments().last().expect("one").path.clone();
    damage(&newer.to_string());
    damage(&segment);
    let (code, named, complaint) = overdrive(dir.path(), &["snapshot", "verify"]);
    assert_eq!(code, Some(1), "{named}{complaint}");
    let named: Vec<&str> = named.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(named, [newer.to_string(), segment]);
    let (_, listed, _) = overdrive(dir.path(), &["snapshot", "list"]);
    assert!(listed.lines().nth(1).expect("a row").contains("unusable: manifest-"), "{listed}");
}
