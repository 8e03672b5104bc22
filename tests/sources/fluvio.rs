//! The Fluvio source: over a cluster in this process whose streams leave records out, repeat them and break off, always; over a real
//! cluster, named in `FLUVIO_ENDPOINT` or started with `FLUVIO_RUN`, on request (`make fluvio`). The first knows every fault by name; only the second is Fluvio.

use super::*;
use overdrive::sources::fluvio::{Arrival, Cluster, Reader};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// What a partition holds and which stream of it is open.
#[derive(Clone, Default)]
struct Partition {
    records: Vec<Record>,
    /// First record still held.
    first: u64,
    /// The opening and the next record of its stream; `None`: there is none.
    stream: Option<(u32, u64)>,
}

/// How often streams fail, in hundredths of what they bring.
#[derive(Clone, Copy)]
struct Faults {
    gaps: u64,
    repetitions: u64,
    ends: u64,
}

const NONE: Faults = Faults { gaps: 0, repetitions: 0, ends: 0 };

/// A cluster that keeps everything, and streams that do not.
#[derive(Clone)]
struct Faulty {
    held: Arc<Mutex<BTreeMap<(Role, u32), Partition>>>,
    faults: Faults,
    random: u64,
    turn: usize,
    /// These come first: what an earlier opening still sends, or what a test says.
    before: VecDeque<Arrival>,
    /// Records that no stream ever brings.
    never: Option<((Role, u32), std::ops::Range<u64>)>,
    opened: Arc<Mutex<usize>>,
}

impl Faulty {
    fn new(partitions: u32, faults: Faults) -> Self {
        let of_events = (0..partitions).map(|partition| (Role::Events, partition));
        let others = [Role::Items, Role::Users, Role::Control].map(|role| (role, 0));
        let held = of_events.chain(others).map(|place| (place, Partition::default())).collect();
        Self {
            held: Arc::new(Mutex::new(held)),
            faults,
            random: 7,
            turn: 0,
            before: VecDeque::new(),
            never: None,
            opened: Arc::default(),
        }
    }

    /// A number below `n`.
    fn draw(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.random >> 33) % n
    }

    fn missing(&self, place: (Role, u32), offset: u64) -> bool {
        self.never.as_ref().is_some_and(|(at, offsets)| *at == place && offsets.contains(&offset))
    }

    /// What the stream of a partition brings now.
    fn bring(&mut self, place: (Role, u32)) -> Option<Arrival> {
        let held = self.held.clone();
        let mut held = held.lock().expect("no panic");
        let partition = held.get_mut(&place)?;
        let (opening, mut at) = partition.stream?;
        while self.missing(place, at) {
            at += 1;
        }
        let Faults { gaps, repetitions, ends } = self.faults;
        let chance = self.draw(100);
        if chance < ends {
            partition.stream = None;
            return Some(Arrival { partition: place, opening, what: Err(None) });
        }
        // Not over the end: what nothing follows is not noticed at once, and has a test of its own.
        if chance < ends + gaps && at + 1 < partition.records.len() as u64 {
            at += 1 + self.draw((partition.records.len() as u64 - at - 1).min(5));
        } else if chance < ends + gaps + repetitions {
            at = at.saturating_sub(self.draw(5)).max(partition.first);
        }
        let record = partition.records.get(at as usize)?.clone();
        partition.stream = Some((opening, at + 1));
        Some(Arrival { partition: place, opening, what: Ok(record) })
    }
}

impl Cluster for Faulty {
    fn place(&self) -> String {
        "the faulty cluster".to_string()
    }

    fn topic(&self, role: Role) -> &str {
        role.name()
    }

    fn ranges(&mut self) -> Result<BTreeMap<(Role, u32), (u64, u64)>, SourceError> {
        let held = self.held.lock().expect("no panic");
        Ok(held.iter().map(|(place, of)| (*place, (of.first, of.records.len() as u64))).collect())
    }

    fn open(&mut self, partition: (Role, u32), offset: u64, opening: u32) {
        *self.opened.lock().expect("no panic") += 1;
        // What the stream before had under way still comes.
        let late = self.bring(partition);
        self.before.extend(late.filter(|arrival| arrival.opening != opening));
        let mut held = self.held.lock().expect("no panic");
        held.get_mut(&partition).expect("only partitions there are").stream = Some((opening, offset));
    }

    fn next(&mut self, wait: Duration) -> Option<Arrival> {
        let places: Vec<_> = self.held.lock().expect("no panic").keys().copied().collect();
        let first = self.before.pop_front();
        let found = first.or_else(|| {
            self.turn += 1;
            (0..places.len()).find_map(|i| self.bring(places[(self.turn + i) % places.len()]))
        });
        if found.is_none() {
            std::thread::sleep(wait);
        }
        found
    }
}

impl Case for Faulty {
    fn append(&self, role: Role, records: Sent) -> Vec<Place> {
        let mut held = self.held.lock().expect("no panic");
        let partitions = held.keys().filter(|(of, _)| *of == role).count() as u32;
        let append = |(key, payload): (Bytes, Option<Bytes>)| {
            let partition = partition_of(&key, partitions);
            let records = &mut held.get_mut(&(role, partition)).expect("counted").records;
            let offset = records.len() as u64;
            records.push(Record { role, partition, offset, key: Some(key), payload, accepted_ms: 1 });
            (partition, offset)
        };
        records.into_iter().map(append).collect()
    }

    fn open(&self, start: Positions) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(Reader::open(self.clone(), &start, Duration::from_millis(150))?))
    }
}

#[test]
fn streams_with_gaps_repetitions_and_ends_keep_the_contract() {
    keeps_the_contract(&Faulty::new(3, NONE));
    let faults = Faults { gaps: 12, repetitions: 12, ends: 6 };
    let case = Faulty::new(3, faults);
    keeps_the_contract(&case);
    let opened = *case.opened.lock().expect("no panic");
    assert!(opened > 150, "the streams of this test fail: opened {opened} times");
}

/// What is missing at the end of a stream shows by nothing that follows it: the cluster is asked, and it is fetched.
#[test]
fn the_last_records_of_a_stream_that_falls_silent_are_fetched() {
    let case = Faulty::new(1, NONE);
    case.append(Role::Events, events(0..50));
    let place = (Role::Events, 0);
    let mut source = Reader::open(case.clone(), &Positions::new(), Duration::ZERO).expect("opens");
    read(&mut source, 50, 50);
    case.append(Role::Events, events(50..60));
    case.held.lock().expect("no panic").get_mut(&place).expect("there").stream = Some((0, 60));
    let records = read(&mut source, 10, 50);
    assert_dense(&records, &Positions::from([(place, 50)]));
    assert_same(&records, Role::Events, &events(50..60));
}

#[test]
fn a_gap_that_stays_stops_and_names_what_is_missing() {
    let mut case = Faulty::new(1, NONE);
    case.append(Role::Events, events(0..20));
    case.never = Some(((Role::Events, 0), 7..9));
    let mut source = case.open(Positions::new()).expect("opens");
    let (mut records, until) = (Vec::new(), Instant::now() + PATIENCE);
    let error = loop {
        match source.poll(100, Duration::from_millis(10), &mut records) {
            Ok(()) => assert!(Instant::now() < until, "the gap is not noticed"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, SourceError::Stop(m) if m.contains("events/0") && m.contains("7..9")), "{error}");
    assert_eq!(records.len(), 7, "nothing after the gap was handed out");
    assert_eq!(source.positions()[&(Role::Events, 0)], 7);
}

#[test]
fn a_stream_that_fails_is_told_and_goes_on_and_one_that_was_evicted_stops() {
    let mut case = Faulty::new(1, NONE);
    case.append(Role::Events, events(0..30));
    let partition = (Role::Events, 0);
    case.before.push_back(Arrival { partition, opening: 0, what: Err(Some("connection reset".into())) });
    let mut source = case.open(Positions::from([(partition, 10)])).expect("opens");
    let mut records = Vec::new();
    let error = source.poll(100, Duration::from_millis(10), &mut records).expect_err("it failed");
    assert!(matches!(&error, SourceError::Retry(m) if m.contains("connection reset")), "{error}");
    assert_dense(&read(&mut *source, 20, 100), &Positions::from([(partition, 10)]));

    case.append(Role::Events, events(30..40));
    case.held.lock().expect("no panic").get_mut(&partition).expect("there").first = 25;
    let message = stop(case.open(Positions::from([(partition, 10)])));
    assert!(message.contains("events/0: offset 10") && message.contains("25..40"), "{message}");
}

#[cfg(feature = "fluvio")]
mod real {
    use super::*;
    use crate::support::fluvio::FluvioCluster;
    use overdrive::sources::fluvio::{self, FluvioAppender, Params};

    struct Real {
        params: Params,
        appender: FluvioAppender,
        runtime: tokio::runtime::Runtime,
    }

    impl Real {
        /// Topics that only `test` of this process uses.
        fn new(test: &str) -> Self {
            let mut params = config().fluvio;
            params.endpoint = std::env::var("FLUVIO_ENDPOINT").unwrap_or_else(|_| FluvioCluster::shared().endpoint());
            let of = |role: &str| format!("{test}-{}-{role}", std::process::id());
            (params.events_topic, params.items_topic) = (of("events"), of("items"));
            (params.users_topic, params.control_topic) = (of("users"), of("control"));
            params.partitions = 3;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            Self { appender: FluvioAppender::open(&params).expect("opens"), params, runtime }
        }
    }

    impl Case for Real {
        fn append(&self, role: Role, records: Sent) -> Vec<Place> {
            self.runtime.block_on(self.appender.append(role, records)).expect("appends")
        }

        fn open(&self, start: Positions) -> Result<Box<dyn Source>, SourceError> {
            Ok(Box::new(fluvio::open(&self.params, &start)?))
        }
    }

    #[test]
    #[ignore = "needs FLUVIO_RUN, or a cluster in FLUVIO_ENDPOINT: make fluvio"]
    fn fluvio_keeps_the_contract() {
        keeps_the_contract(&Real::new("contract"));
    }

    /// As many as a catch-up read was seen to lose a part of.
    #[test]
    #[ignore = "needs FLUVIO_RUN, or a cluster in FLUVIO_ENDPOINT: make fluvio"]
    fn catching_up_leaves_nothing_out() {
        let (case, sent) = (Real::new("catch-up"), events(0..70_000));
        for batch in sent.chunks(5_000) {
            case.append(Role::Events, batch.to_vec());
        }
        let mut source = case.open(Positions::new()).expect("opens");
        let records = read(&mut *source, sent.len(), 1_000);
        assert_dense(&records, &Positions::new());
        assert_same(&records, Role::Events, &sent);
        let end: u64 = fluvio::ends(&case.params).expect("ends").values().sum();
        assert_eq!(end, 70_000);
    }
}
