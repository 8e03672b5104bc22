//! What every source promises, told once and held against the embedded log, a real Kafka broker and files: offsets ascend
//! densely, every record arrives exactly once from where the source was opened, and opened where another left off it goes on
//! there. Then what only one of them has to do.

use bytes::Bytes;
use overdrive::config::Config;
use overdrive::sources::file::{self, FileSource};
use overdrive::sources::log::{self, LogAppender, LogSource};
use overdrive::sources::{Appender, POLL_BYTES, Place, Positions, Record, Role, Source, SourceError, partition_of};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[path = "sources/fluvio.rs"]
mod fluvio;
#[cfg(feature = "kafka-tls")]
#[path = "sources/kafka_tls.rs"]
mod kafka_tls;
mod support;

type Sent = Vec<(Bytes, Option<Bytes>)>;

/// Long enough for any machine; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// A source with something behind it that can be written.
trait Case {
    fn append(&self, role: Role, records: Sent) -> Vec<Place>;
    fn open(&self, start: Positions) -> Result<Box<dyn Source>, SourceError>;
    /// Whether a record may lack a payload.
    fn deletes(&self) -> bool {
        true
    }
    /// Whether what is appended after opening arrives.
    fn live(&self) -> bool {
        true
    }
}

fn events(range: std::ops::Range<usize>) -> Sent {
    let event = |i| {
        let user = format!("u{}", i % 37);
        let payload = format!(r#"{{"user_id":"{user}","item_id":"i{i}","type":"view","ts":{i}}}"#);
        (Bytes::from(user), Some(Bytes::from(payload)))
    };
    range.map(event).collect()
}

fn items(range: std::ops::Range<usize>) -> Sent {
    let item = |i| {
        let key = format!("i{i}");
        let payload = format!(r#"{{"item_id":"{key}"}}"#);
        (Bytes::from(key), Some(Bytes::from(payload)))
    };
    range.map(item).collect()
}

/// Polls until `count` records are there.
fn read(source: &mut dyn Source, count: usize, at_once: usize) -> Vec<Record> {
    let (mut records, until) = (Vec::new(), Instant::now() + PATIENCE);
    while records.len() < count {
        let before = records.len();
        source.poll(at_once.min(count - before), Duration::from_millis(50), &mut records).expect("reads");
        assert!(records.len() - before <= at_once, "more than was asked for");
        assert!(Instant::now() < until, "{} of {count} records arrived", records.len());
    }
    records
}

/// That nothing (more) is there.
fn read_nothing(source: &mut dyn Source) {
    let mut records = Vec::new();
    for _ in 0..5 {
        source.poll(100, Duration::from_millis(20), &mut records).expect("reads");
    }
    assert_eq!(records, []);
}

fn by_partition(records: &[Record]) -> BTreeMap<(Role, u32), Vec<&Record>> {
    let mut partitions: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for record in records {
        partitions.entry((record.role, record.partition)).or_default().push(record);
    }
    partitions
}

fn assert_dense(records: &[Record], from: &Positions) {
    for (place, records) in by_partition(records) {
        let first = from.get(&place).copied().unwrap_or(0);
        let offsets: Vec<_> = records.iter().map(|r| r.offset).collect();
        assert_eq!(offsets, (first..first + records.len() as u64).collect::<Vec<_>>(), "{place:?}");
    }
}

/// What was sent, and nothing else, each key in its order.
fn assert_same(records: &[Record], role: Role, sent: &Sent) {
    let of_key = |pairs: Vec<(Bytes, Option<Bytes>)>| {
        let mut keys: BTreeMap<Bytes, Vec<Option<Bytes>>> = BTreeMap::new();
        pairs.into_iter().for_each(|(key, payload)| keys.entry(key).or_default().push(payload));
        keys
    };
    let read = records.iter().filter(|r| r.role == role);
    let read = read.map(|r| (r.key.clone().expect("records here have keys"), r.payload.clone())).collect();
    assert_eq!(of_key(read), of_key(sent.clone()));
}

fn stop(result: Result<Box<dyn Source>, SourceError>) -> String {
    match result {
        Ok(_) => panic!("opened where there is nothing"),
        Err(SourceError::Retry(message)) => panic!("trying again would not help: {message}"),
        Err(SourceError::Stop(message)) => message,
    }
}

/// The promise.
fn keeps_the_contract(case: &dyn Case) {
    let (views, mut catalogue) = (events(0..1000), items(0..50));
    if case.deletes() {
        catalogue.push(("i3".into(), None));
    }
    let places = case.append(Role::Events, views.clone());
    assert_eq!(places.len(), views.len());
    assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), views.len(), "every record has a place of its own");
    case.append(Role::Items, catalogue.clone());
    let total = views.len() + catalogue.len();

    // Everything, from the beginning.
    let mut source = case.open(Positions::new()).expect("opens");
    let begin = source.positions();
    assert!(begin.values().all(|next| *next == 0), "{begin:?}");
    let all = read(&mut *source, total, 300);
    assert_dense(&all, &begin);
    assert_same(&all, Role::Events, &views);
    assert_same(&all, Role::Items, &catalogue);
    if case.live() {
        let at: BTreeMap<_, _> =
            all.iter().map(|r| ((r.partition, r.offset), r)).filter(|(_, r)| r.role == Role::Events).collect();
        for (place, (key, payload)) in places.iter().zip(&views) {
            assert_eq!((at[place].key.as_ref(), &at[place].payload), (Some(key), payload), "a place tells where a record lies");
        }
    }
    let end = source.positions();
    read_nothing(&mut *source);

    // In three pieces, each opened where the one before left off.
    let (mut pieces, mut from) = (Vec::new(), Positions::new());
    for count in [7, total / 2, total - 7 - total / 2] {
        let mut source = case.open(from.clone()).expect("opens again");
        let piece = read(&mut *source, count, 100);
        assert_dense(&piece, &from);
        pieces.extend(piece);
        from = source.positions();
    }
    assert_eq!(from, end);
    let sorted = |mut records: Vec<Record>| {
        records.sort_by_key(|r| (r.role, r.partition, r.offset));
        records
    };
    assert_eq!(sorted(pieces), sorted(all));

    // What comes while it is open, and only that.
    let mut source = case.open(end.clone()).expect("opens at the end");
    if case.live() {
        assert!(!source.ended());
        let late = events(1000..1200);
        case.append(Role::Events, late.clone());
        let records = read(&mut *source, late.len(), 64);
        assert_dense(&records, &end);
        assert_same(&records, Role::Events, &late);
    } else {
        read_nothing(&mut *source);
        assert!(source.ended());
    }

    // Where nothing is.
    let (place, next) = end.iter().find(|((role, _), _)| *role == Role::Items).expect("items have a partition");
    let message = stop(case.open(Positions::from([(*place, next + 5)])));
    assert!(message.contains(&(next + 5).to_string()) && message.contains(&format!("0..{next}")), "{message}");
    let message = stop(case.open(Positions::from([((Role::Events, 77), 0)])));
    assert!(message.contains("events/77"), "{message}");
}

/// Items of the size that those with an image have do not come all at once, however many are asked for.
fn brings_large_records_bit_by_bit(case: &dyn Case) {
    let text = "x".repeat(700_000);
    let large = |i| (Bytes::from(format!("i{i}")), Some(Bytes::from(format!(r#"{{"item_id":"i{i}","text":"{text}"}}"#))));
    let sent: Sent = (0..40).map(large).collect();
    case.append(Role::Items, sent.clone());
    let mut source = case.open(Positions::new()).expect("opens");
    let (mut records, until) = (Vec::new(), Instant::now() + PATIENCE);
    while records.len() < sent.len() {
        let mut some = Vec::new();
        source.poll(1_000, Duration::from_millis(50), &mut some).expect("reads");
        let bytes: usize = some.iter().filter_map(|record| record.payload.as_ref()).map(Bytes::len).sum();
        assert!(bytes < POLL_BYTES + 2 * text.len(), "{bytes} bytes at once");
        records.extend(some);
        assert!(Instant::now() < until, "{} of {} records arrived", records.len(), sent.len());
    }
    assert_dense(&records, &Positions::new());
    assert_same(&records, Role::Items, &sent);
}

struct LogCase {
    dir: TempDir,
    params: log::Params,
    appender: LogAppender,
}

impl LogCase {
    fn new(partitions: u32, segment_bytes: u64) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let params = log::Params { partitions, segment_bytes, fsync: false };
        let appender = LogAppender::open(dir.path(), &params).expect("an empty log");
        Self { dir, params, appender }
    }

    fn source(&self) -> LogSource {
        LogSource::open(self.dir.path(), &self.params, Positions::new()).expect("opens")
    }

    /// The last segment of the only partition.
    fn last_segment(&self) -> PathBuf {
        let folder = self.dir.path().join("events-0");
        let files = std::fs::read_dir(folder).expect("the partition").map(|entry| entry.expect("a file").path());
        files.max().expect("a segment")
    }
}

impl Case for LogCase {
    fn append(&self, role: Role, records: Sent) -> Vec<Place> {
        self.appender.append_now(role, &records).expect("appends")
    }

    fn open(&self, start: Positions) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(LogSource::open(self.dir.path(), &self.params, start)?))
    }
}

#[test]
fn the_log_keeps_the_contract() {
    keeps_the_contract(&LogCase::new(4, 1 << 20));
    brings_large_records_bit_by_bit(&LogCase::new(4, 1 << 30));
}

#[test]
fn the_log_keeps_the_contract_across_many_segments() {
    keeps_the_contract(&LogCase::new(3, 700));
}

#[test]
fn a_record_cut_at_any_byte_is_not_read_and_the_next_appender_heals_it() {
    let case = LogCase::new(1, 1 << 20);
    case.append(Role::Events, events(0..3));
    let path = case.last_segment();
    let whole = std::fs::read(&path).expect("a segment");
    case.append(Role::Events, events(3..4));
    let longer = std::fs::read(&path).expect("a segment");
    for cut in whole.len()..longer.len() {
        std::fs::write(&path, &longer[..cut]).expect("cut");
        let mut source = case.source();
        let before = read(&mut source, 3, 10);
        assert_same(&before, Role::Events, &events(0..3));
        read_nothing_once(&mut source);
        let appender = LogAppender::open(case.dir.path(), &case.params).expect("opens");
        assert_eq!(appender.append_now(Role::Events, &events(9..10)), Ok(vec![(0, 3)]), "cut at {cut}");
        assert_same(&read(&mut source, 1, 10), Role::Events, &events(9..10));
    }
}

fn read_nothing_once(source: &mut dyn Source) {
    let mut records = Vec::new();
    source.poll(10, Duration::ZERO, &mut records).expect("a torn end is no error");
    assert_eq!(records, []);
}

#[test]
fn a_damaged_last_record_waits_and_a_damaged_record_with_more_behind_it_stops() {
    let case = LogCase::new(1, 1);
    case.append(Role::Events, events(0..1));
    case.append(Role::Events, events(1..2));
    let path = case.last_segment();
    let mut bytes = std::fs::read(&path).expect("a segment");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&path, &bytes).expect("damaged");

    let mut source = case.source();
    read(&mut source, 1, 10);
    read_nothing_once(&mut source);

    std::fs::File::create_new(case.dir.path().join("events-0").join(format!("{:020}.log", 2))).expect("a later segment");
    let error = source.poll(10, Duration::ZERO, &mut Vec::new()).expect_err("damaged for good");
    assert!(matches!(&error, SourceError::Stop(m) if m.contains("events/0: record 1 at byte 0")), "{error}");
}

#[test]
fn two_appenders_and_two_readers_agree() {
    let case = LogCase::new(2, 4_000);
    let other = LogAppender::open(case.dir.path(), &case.params).expect("a second handle");
    let sent: Vec<Sent> = (0..2).map(|who| events(who * 2000..who * 2000 + 2000)).collect();
    let (mut one, mut two) = (case.source(), case.source());
    let places: Vec<Vec<Place>> = std::thread::scope(|scope| {
        let write = |appender: LogAppender, sent: &Sent| {
            let sent = sent.clone();
            scope.spawn(move || {
                sent.chunks(9).flat_map(|batch| appender.append_now(Role::Events, batch).expect("appends")).collect()
            })
        };
        let writers = [write(case.appender.clone(), &sent[0]), write(other, &sent[1])];
        let readers = [&mut one, &mut two].map(|source| scope.spawn(move || read(source, 4000, 500)));
        let [first, second] = readers.map(|reader| by_place(reader.join().expect("reads")));
        assert_eq!(first, second);
        writers.map(|writer| writer.join().expect("appends")).into()
    });
    let all: BTreeSet<Place> = places.iter().flatten().copied().collect();
    assert_eq!(all.len(), 4000, "no place is given twice");
    let records = by_place(read(&mut case.source(), 4000, 4000));
    for (place, (key, payload)) in places.iter().flatten().zip(sent.iter().flatten()) {
        assert_eq!(records[place], (key.clone(), payload.clone()), "{place:?}");
    }
}

fn by_place(records: Vec<Record>) -> BTreeMap<Place, (Bytes, Option<Bytes>)> {
    assert_dense(&records, &Positions::new());
    records.into_iter().map(|r| ((r.partition, r.offset), (r.key.expect("a key"), r.payload))).collect()
}

#[test]
fn partitions_may_grow_but_not_shrink() {
    let mut case = LogCase::new(2, 1 << 20);
    case.append(Role::Events, events(0..100));
    case.params.partitions = 3;
    let appender = LogAppender::open(case.dir.path(), &case.params).expect("grows");
    let places = appender.append_now(Role::Events, &events(100..200)).expect("appends");
    assert!(places.iter().any(|(partition, _)| *partition == 2));
    read(&mut case.source(), 200, 200);

    case.params.partitions = 2;
    let message = stop(case.open(Positions::new()));
    assert!(message.contains("has 3 events partitions but [log] partitions is 2; set it to 3"), "{message}");
    assert!(LogAppender::open(case.dir.path(), &case.params).is_err());
}

#[test]
fn a_position_before_the_first_segment_stops_and_no_position_begins_there() {
    let case = LogCase::new(1, 1);
    (0..5).for_each(|i| drop(case.append(Role::Events, events(i..i + 1))));
    for gone in 0..2 {
        std::fs::remove_file(case.dir.path().join("events-0").join(format!("{gone:020}.log"))).expect("an old segment");
    }
    let message = stop(case.open(Positions::from([((Role::Events, 0), 1)])));
    assert!(message.contains("events/0: offset 1 is gone") && message.contains("begins at 2"), "{message}");
    let offsets: Vec<_> = read(&mut case.source(), 3, 10).iter().map(|r| r.offset).collect();
    assert_eq!(offsets, [2, 3, 4]);
}

#[test]
fn what_is_written_with_fsync_and_from_async_code_is_there_too() {
    let mut case = LogCase::new(2, 500);
    case.params.fsync = true;
    let appender = LogAppender::open(case.dir.path(), &case.params).expect("opens");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let places = runtime.block_on(appender.append(Role::Events, events(0..20))).expect("appends");
    assert_eq!(places.len(), 20);
    assert_same(&read(&mut case.source(), 20, 20), Role::Events, &events(0..20));
}

#[test]
fn a_record_too_long_for_the_log_is_refused_and_nothing_of_its_batch_is_there() {
    let case = LogCase::new(1, 1 << 20);
    let long = vec![("a".into(), None), ("b".into(), Some(Bytes::from(vec![0; log::frame::MAX_BODY])))];
    let error = case.appender.append_now(Role::Events, &long).expect_err("too long");
    assert!(error.contains("too long for the log"), "{error}");
    read_nothing_once(&mut case.source());
}

struct FileCase {
    dir: TempDir,
}

impl Case for FileCase {
    fn append(&self, role: Role, records: Sent) -> Vec<Place> {
        let lines: Vec<_> = records.iter().map(|(_, payload)| payload.as_deref().expect("no deletions in files")).collect();
        std::fs::write(self.dir.path().join(format!("{}.jsonl", role.name())), lines.join(&b'\n')).expect("written");
        (0..records.len()).map(|row| (file::PARTITION, row as u64)).collect()
    }

    fn open(&self, start: Positions) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(FileSource::open_at(self.dir.path(), &start)?))
    }

    fn deletes(&self) -> bool {
        false
    }

    fn live(&self) -> bool {
        false
    }
}

#[test]
fn files_keep_the_contract() {
    keeps_the_contract(&FileCase { dir: tempfile::tempdir().expect("a folder") });
    brings_large_records_bit_by_bit(&FileCase { dir: tempfile::tempdir().expect("a folder") });
}

#[test]
fn a_folder_gives_items_before_users_before_events() {
    let case = FileCase { dir: tempfile::tempdir().expect("a folder") };
    case.append(Role::Events, events(0..3));
    case.append(Role::Items, items(0..2));
    std::fs::write(case.dir.path().join("users.jsonl"), r#"{"user_id":"u1"}"#).expect("written");
    let mut source = case.open(Positions::new()).expect("opens");
    let roles: Vec<_> = read(&mut *source, 6, 4).iter().map(|r| r.role).collect();
    assert_eq!(roles, [Role::Items, Role::Items, Role::Users, Role::Events, Role::Events, Role::Events]);
}

#[test]
fn what_is_not_there_or_not_clear_stops() {
    let dir = tempfile::tempdir().expect("a folder");
    let open = |path: &Path| stop(FileSource::open(path).map(|s| Box::new(s) as Box<dyn Source>));
    assert!(open(dir.path()).contains("holds no items.*"));
    assert!(open(&dir.path().join("events.jsonl")).contains("cannot read"));
    for name in ["events.jsonl", "events.parquet", "events.csv"] {
        std::fs::write(dir.path().join(name), "x").expect("written");
    }
    assert!(open(dir.path()).contains("more than one file of events"));
    assert!(open(&dir.path().join("events.csv")).contains("neither .jsonl nor .parquet"));
    assert!(open(&dir.path().join("events.parquet")).contains("cannot read"));
}

fn config() -> Config {
    toml::from_str(include_str!("../overdrive.toml")).expect("the defaults are complete")
}

/// The hand-over: what came to the log before it was opened is read with it, what came while the file was read as well, each
/// once, and a stop in the middle of the file loses neither.
#[test]
fn a_backfill_hands_over_to_the_log_without_gap_or_repetition() {
    let (state, mut config) = (tempfile::tempdir().expect("a folder"), config());
    let history = FileCase { dir: tempfile::tempdir().expect("a folder") };
    history.append(Role::Events, events(0..100));
    config.source.backfill = history.dir.path().to_string_lossy().into_owned();
    let log = LogAppender::open(&log::folder(state.path()), &config.log).expect("opens");
    let append = |range| log.append_now(Role::Events, &events(range)).expect("appends");
    let open = |config: &Config, recorded: &Positions| {
        overdrive::sources::open(&config.source, &config.log, &config.kafka, &config.fluvio, state.path(), recorded)
            .expect("opens")
    };
    append(100..120);
    let mut source = open(&config, &Positions::new());
    let mut records = read(&mut *source, 30, 10);
    append(120..140);
    records.extend(read(&mut *source, 20, 10));
    assert!(records.iter().all(|r| r.partition == file::PARTITION), "nothing of the log before the end of the file");

    // What is recorded wins, also over a start that would leave the records of meanwhile out.
    config.source.start = "latest".into();
    let mut source = open(&config, &source.positions());
    records.extend(read(&mut *source, 90, 10));
    read_nothing(&mut *source);
    assert!(!source.ended());
    assert_dense(&records, &Positions::new());
    assert_same(&records, Role::Events, &events(0..140));
}

/// Through the settings: `[source]` opens what it names, where it says.
#[test]
fn the_settings_choose_the_source_and_where_it_begins() {
    let (state, mut config) = (tempfile::tempdir().expect("a folder"), config());
    let open = |config: &Config, recorded: &Positions| {
        overdrive::sources::open(&config.source, &config.log, &config.kafka, &config.fluvio, state.path(), recorded)
    };
    let appender =
        overdrive::sources::appender(&config.source, &config.log, &config.kafka, &config.fluvio, state.path()).expect("opens");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let append = |records| runtime.block_on(appender.append(Role::Events, records)).expect("appends");
    let places = append(events(0..10));

    read(&mut *open(&config, &Positions::new()).expect("opens"), 10, 10);

    config.source.start = "latest".into();
    let mut latest = open(&config, &Positions::new()).expect("opens");
    let recorded = Positions::from([((Role::Events, places[0].0), places[0].1)]);
    let mut resumed = open(&config, &recorded).expect("opens");
    append(events(10..20));
    assert_same(&read(&mut *latest, 10, 10), Role::Events, &events(10..20));
    read_nothing(&mut *latest);
    let resumed = read(&mut *resumed, 11, 100);
    assert!(resumed.iter().any(|r| (r.partition, r.offset) == places[0]), "what is recorded wins over latest");

    config.source.start = "events/9=0".into();
    assert!(stop(open(&config, &Positions::new())).contains("events/9"));
    config.source.start = "soon".into();
    assert!(stop(open(&config, &Positions::new())).contains("`soon` in [source] start is not a place"));
}

fn replay(from: &Path, limit: Option<u64>, config: &Config) -> Result<(), String> {
    use overdrive::commands::replay::{Args, Speed, run};
    run(Args { from: from.to_path_buf(), to: None, speed: Speed::Max, limit }, config)
}

#[test]
fn a_folder_is_replayed_into_the_log() {
    let (case, state) = (FileCase { dir: tempfile::tempdir().expect("a folder") }, tempfile::tempdir().expect("a folder"));
    case.append(Role::Events, events(0..5000));
    case.append(Role::Items, items(0..20));
    let mut config = config();
    config.engine.state_dir = state.path().to_path_buf();
    replay(case.dir.path(), Some(3333), &config).expect("replays");

    let dir = log::folder(state.path());
    let mut source = LogSource::open(&dir, &config.log, Positions::new()).expect("opens");
    let records = read(&mut source, 3353, 1000);
    read_nothing(&mut source);
    assert_same(&records, Role::Events, &events(0..3333));
    assert_same(&records, Role::Items, &items(0..20));
    for record in records.iter().filter(|r| r.role == Role::Events) {
        assert_eq!(record.partition, partition_of(record.key.as_deref().expect("a key"), 4));
    }
    assert!(replay(Path::new("no/such/folder"), None, &config).is_err());
}

#[cfg(feature = "kafka")]
mod kafka {
    use super::support::{self, kafka::KafkaBroker};
    use super::*;
    use overdrive::sources::KafkaParams;
    use overdrive::sources::kafka::{KafkaAppender, KafkaSource, create_topics, ends};
    use rdkafka::ClientConfig;
    use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, ResourceSpecifier};
    use rdkafka::client::DefaultClientContext;
    use rdkafka::{Offset, TopicPartitionList};

    struct KafkaCase {
        params: KafkaParams,
        appender: KafkaAppender,
        runtime: tokio::runtime::Runtime,
    }

    impl KafkaCase {
        fn new(test: &str) -> Self {
            let params = KafkaBroker::shared().params(test);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            Self { appender: KafkaAppender::open(&params).expect("opens"), params, runtime }
        }

        fn admin(&self) -> AdminClient<DefaultClientContext> {
            ClientConfig::new().set("bootstrap.servers", &self.params.brokers).create().expect("a client")
        }
    }

    impl Case for KafkaCase {
        fn append(&self, role: Role, records: Sent) -> Vec<Place> {
            self.runtime.block_on(self.appender.append(role, records)).expect("appends")
        }

        fn open(&self, start: Positions) -> Result<Box<dyn Source>, SourceError> {
            Ok(Box::new(KafkaSource::open(&self.params, start)?))
        }
    }

    #[test]
    fn kafka_keeps_the_contract() {
        keeps_the_contract(&KafkaCase::new("contract"));
        brings_large_records_bit_by_bit(&KafkaCase::new("large"));
    }

    #[test]
    fn keys_go_where_they_go_in_the_log() {
        let case = KafkaCase::new("routing");
        let sent = events(0..200);
        let places = case.append(Role::Events, sent.clone());
        for ((key, _), (partition, _)) in sent.iter().zip(places) {
            assert_eq!(partition, partition_of(key, 3));
        }
        let end: u64 = ends(&case.params).expect("ends").values().sum();
        assert_eq!(end, 200);
    }

    /// A retention that went too far: the gap is told, at once and not only when the source is opened.
    #[test]
    fn offsets_that_are_gone_stop() {
        let case = KafkaCase::new("gone");
        case.append(Role::Items, items(0..40));
        case.append(Role::Users, events(0..40));
        let mut events_before = case.open(Positions::new()).expect("opens");
        let delete = |topic: &str, offset| {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, 0, Offset::Offset(offset)).expect("an offset");
            let deleted = case.runtime.block_on(case.admin().delete_records(&list, &AdminOptions::new()));
            deleted.expect("deletes").elements().iter().for_each(|e| e.error().expect("deletes"));
        };
        // Compacted topics keep their records, control's can be deleted.
        case.append(Role::Control, events(0..40));
        read(&mut *events_before, 120, 200);
        delete(&case.params.control_topic, 30);
        let control = (Role::Control, 0);
        let message = stop(case.open(Positions::from([(control, 12)])));
        assert!(message.contains("control/0: offset 12") && message.contains("30..40"), "{message}");

        let from_first = case.open(Positions::new()).expect("opens");
        assert_eq!(from_first.positions()[&control], 30, "no position: the first record there is");

        // Opened in time, overtaken while it was not reading.
        case.append(Role::Control, events(40..50));
        let mut slow = case.open(Positions::from([(control, 35)])).expect("opens");
        delete(&case.params.control_topic, 50);
        case.append(Role::Control, events(50..60));
        let until = Instant::now() + PATIENCE;
        let (mut seen, mut told) = (Vec::new(), None);
        while told.is_none() && !seen.iter().any(|r: &Record| r.role == Role::Control && r.offset == 59) {
            told = slow.poll(100, Duration::from_millis(50), &mut seen).err();
            assert!(Instant::now() < until, "neither records nor an error");
        }
        let control: Vec<_> = seen.iter().filter(|r| r.role == Role::Control).map(|r| r.offset).collect();
        match told {
            // It had fetched everything before the deletion.
            None => assert_eq!(control, (35..60).collect::<Vec<_>>()),
            Some(error) => {
                assert!(matches!(&error, SourceError::Stop(m) if m.contains("control/0") && m.contains("50..60")), "{error}");
                assert_eq!(control, (35..35 + control.len() as u64).collect::<Vec<_>>(), "nothing is skipped before it stops");
            }
        }
    }

    #[test]
    fn partitions_that_a_topic_gains_are_read_from_their_first_record_and_a_topic_that_goes_stops() {
        let mut case = KafkaCase::new("gained");
        case.params.topics_every = Duration::from_millis(100);
        create_topics(&case.params).expect("creates");
        case.append(Role::Events, events(0..90));
        let mut source = case.open(Positions::new()).expect("opens");
        let mut records = read(&mut *source, 50, 10);
        let more = [NewPartitions::new(&case.params.events_topic, 5)];
        let made = case.runtime.block_on(case.admin().create_partitions(&more, &AdminOptions::new())).expect("answers");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        // By an appender that knows of them: there they are before the source does.
        let appender = KafkaAppender::open(&case.params).expect("opens");
        let places = case.runtime.block_on(appender.append(Role::Events, events(90..300))).expect("appends");
        assert!(places.iter().any(|(partition, _)| *partition >= 3), "{places:?}");
        records.extend(read(&mut *source, 250, 100));
        assert_dense(&records, &Positions::new());
        // A key whose partition changed has no order over both.
        let sorted = |mut payloads: Vec<Option<Bytes>>| {
            payloads.sort();
            payloads
        };
        let got = sorted(records.into_iter().map(|record| record.payload).collect());
        assert!(got == sorted(events(0..300).into_iter().map(|(_, payload)| payload).collect()), "each once");
        assert_eq!(source.gained(), Positions::from([((Role::Events, 3), 0), ((Role::Events, 4), 0)]));
        assert_eq!(source.gained(), Positions::new(), "told once");

        let gone = case.runtime.block_on(case.admin().delete_topics(&[&case.params.control_topic], &AdminOptions::new()));
        assert!(gone.expect("answers").iter().all(Result::is_ok));
        let until = Instant::now() + PATIENCE;
        let message = loop {
            match source.poll(10, Duration::from_millis(50), &mut Vec::new()) {
                Ok(()) | Err(SourceError::Retry(_)) => assert!(Instant::now() < until, "nobody notices"),
                Err(SourceError::Stop(message)) => break message,
            }
        };
        assert!(message.contains(&case.params.control_topic), "{message}");
    }

    #[test]
    fn missing_topics_are_created_as_they_must_be_or_named() {
        let mut params = KafkaBroker::shared().params("topics");
        params.create_topics = false;
        let message = stop(KafkaSource::open(&params, Positions::new()).map(|s| Box::new(s) as Box<dyn Source>));
        assert!(message.contains("there is no topic topics.overdrive.events") && message.contains("create_topics"), "{message}");

        create_topics(&params).expect("creates");
        create_topics(&params).expect("what is there stays");
        let source = KafkaSource::open(&params, Positions::new()).expect("opens");
        let partitions: Vec<_> = source.positions().into_keys().collect();
        let wanted =
            [0, 1, 2].map(|p| (Role::Events, p)).into_iter().chain([Role::Items, Role::Users, Role::Control].map(|r| (r, 0)));
        assert_eq!(partitions, wanted.collect::<Vec<_>>());

        let case = KafkaCase::new("topics");
        for (topic, policy) in
            [(&params.items_topic, "compact"), (&params.users_topic, "compact"), (&params.control_topic, "delete")]
        {
            let asked = [ResourceSpecifier::Topic(topic)];
            let answer = case.runtime.block_on(case.admin().describe_configs(&asked, &AdminOptions::new())).expect("answers");
            let config = answer.into_iter().next().expect("one topic").expect("exists");
            assert_eq!(config.get("cleanup.policy").and_then(|e| e.value.as_deref()), Some(policy), "{topic}");
        }
    }

    #[test]
    fn a_broker_that_is_away_may_come_back_but_not_without_its_data() {
        let mut params = KafkaBroker::shared().params("away");
        let port = support::free_port();
        let broker = KafkaBroker::start_on(port);
        params.brokers = broker.brokers();
        params.message_timeout = Duration::from_secs(5); // a broker that has just started may take its time
        let case = KafkaCase {
            appender: KafkaAppender::open(&params).expect("opens"),
            params,
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"),
        };
        case.append(Role::Events, events(0..10));
        let mut source = case.open(Positions::new()).expect("opens");
        read(&mut *source, 10, 10);
        drop(broker);
        let error = case.runtime.block_on(case.appender.append(Role::Events, events(10..15))).expect_err("nobody there");
        assert!(error.contains("5 of 5 records for topic away.overdrive.events were not accepted"), "{error}");
        let mut nothing = Vec::new();
        for _ in 0..20 {
            match source.poll(10, Duration::from_millis(50), &mut nothing) {
                Ok(()) | Err(SourceError::Retry(_)) => {}
                Err(SourceError::Stop(message)) => panic!("it may come back: {message}"),
            }
        }
        assert!(nothing.is_empty());

        // It comes back without its data: the source must not begin anew in silence.
        let _broker = KafkaBroker::start_on(port);
        create_topics(&case.params).expect("creates");
        let until = Instant::now() + PATIENCE;
        let message = loop {
            match source.poll(10, Duration::from_millis(50), &mut nothing) {
                Ok(()) | Err(SourceError::Retry(_)) => assert!(Instant::now() < until, "the loss is not noticed"),
                Err(SourceError::Stop(message)) => break message,
            }
        };
        let by_how_soon_it_was_made_anew = [
            "is not in topic away.overdrive.events, which holds 0..0",
            "topic away.overdrive.events had 3 partitions",
            "it was deleted and created anew",
        ];
        assert!(by_how_soon_it_was_made_anew.iter().any(|known| message.contains(known)), "{message}");
        assert!(nothing.is_empty());
    }

    #[test]
    fn a_folder_is_replayed_into_kafka_in_order() {
        let (case, files) = (KafkaCase::new("replay"), FileCase { dir: tempfile::tempdir().expect("a folder") });
        files.append(Role::Events, events(0..20_000));
        files.append(Role::Items, items(0..30));
        let mut config = config();
        (config.kafka, config.source.kind) = (case.params.clone(), overdrive::sources::Kind::Kafka);
        replay(files.dir.path(), None, &config).expect("replays");
        let records = read(&mut *case.open(Positions::new()).expect("opens"), 20_030, 5000);
        assert_same(&records, Role::Events, &events(0..20_000));
        assert_same(&records, Role::Items, &items(0..30));
    }
}

#[test]
fn a_real_redis_starts_answers_and_ends_with_its_handle() {
    let server = support::redis::RedisServer::start();
    let port = server.port();
    assert_eq!(server.url(), format!("redis://127.0.0.1:{port}/0"));
    drop(server);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "ended");
}
