//! Windows against a brute-force recount on a long stream: a generated one with repeated, late and undone records, or with
//! `OVERDRIVE_TEST_DATA=DIR` a recorded one. The ledger itself has its oracle in `laws.rs`; here its updates are the truth, and every
//! key's counts in every window must be those of the records let out and not taken back.

#[path = "support/dataflow.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod dataflow;

use dataflow::{Log, Run, params, run};
use overdrive::codec::{Decoder, Limits, json};
use overdrive::dataflows::ledger::{Entry, Ledger, Output};
use overdrive::model::time::{DAY, Millis, Window};
use overdrive::model::{Change, Epoch, Input, Kind, Names, Origin, Role, Row, SignalKey, Turn};
use overdrive::sources::Source;
use overdrive::sources::file::FileSource;
use overdrive::sources::synthetic::{Params as Size, World};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

type Counts = BTreeMap<SignalKey, BTreeMap<Kind, [u32; 5]>>;

const PER_EPOCH: usize = 500;
/// Epochs between two recounts.
const STRIDE: usize = 7;

fn generated() -> Vec<Row> {
    let names = Arc::new(Names::default());
    let decoder = Decoder::new(names, Limits::PUBLISHED);
    let world = World::new(Size { late: 0.05, duplicates: 0.05, days: 3.0, ..Size::sized(30_000, 300, 200) }).expect("good");
    let row = |role, offset, payload: Vec<u8>| Row {
        origin: Origin { role, partition: 0, offset, accepted: 0 },
        input: Ok(decoder.decode(role, None, Some(&payload), 0).expect("what the generator writes is read")),
    };
    let items = world.items().enumerate().map(|(i, item)| row(Role::Items, i as u64, json::bytes(&item)));
    let mut rows: Vec<Row> = items.collect();
    for (offset, event) in world.events().enumerate() {
        let mut wire = world.wire(&event);
        // now and then what was just done is taken back
        let undone = offset.is_multiple_of(41).then(|| {
            json::event(&{
                let mut undo = wire.clone();
                undo.op = Some("undo");
                undo.event_id = None;
                undo
            })
        });
        wire.op = None;
        rows.push(row(Role::Events, 2 * offset as u64, json::event(&wire)));
        rows.extend(undone.map(|undo| row(Role::Events, 2 * offset as u64 + 1, undo)));
    }
    rows
}

fn recorded(dir: &str) -> Vec<Row> {
    let decoder = Decoder::new(Arc::new(Names::default()), Limits::PUBLISHED);
    let mut source = FileSource::open(Path::new(dir)).expect("the data opens");
    let (mut records, mut rows) = (Vec::new(), Vec::new());
    while !source.ended() {
        source.poll(10_000, Duration::ZERO, &mut records).expect("the data reads");
        for record in records.drain(..) {
            let input = decoder.decode(record.role, record.key.as_deref(), record.payload.as_deref(), record.accepted_ms);
            let origin = Origin { role: record.role, partition: 0, offset: record.offset, accepted: record.accepted_ms };
            rows.extend(input.ok().map(|input| Row { origin, input: Ok(input) }));
        }
    }
    rows
}

fn epochs(rows: Vec<Row>) -> Vec<(Epoch, Vec<Row>)> {
    let mut clock = 0;
    let cut = |(number, rows): (usize, &[Row])| {
        let at = |row: &Row| if let Ok(Input::Event(event)) = &row.input { event.at } else { 0 };
        clock = rows.iter().map(at).max().unwrap_or(0).max(clock);
        let number = number as u64;
        (
            Epoch {
                number,
                clock_ms: clock,
                watermark_ms: clock - DAY,
                turn: Turn::ALL,
                refreshes: Some(0),
                save: false,
                retell: None,
                model: None,
            },
            rows.to_vec(),
        )
    };
    rows.chunks(PER_EPOCH).enumerate().map(cut).collect()
}

fn entry(row: &Row) -> Option<Entry> {
    Some(match row.input.clone().ok()? {
        Input::Event(event) => Entry::Event(row.origin, event),
        Input::Item(item, facts) => Entry::Item(item, facts),
        Input::User(user, profile) => Entry::User(row.origin, user, profile),
        Input::Control(control) => Entry::Control(row.origin, control),
    })
}

#[test]
fn every_window_of_every_key_is_a_plain_count() {
    let rows = std::env::var("OVERDRIVE_TEST_DATA").map_or_else(|_| generated(), |dir| recorded(&dir));
    let (epochs, params) = (epochs(rows), params());
    let changes = run(&Log::of(epochs.clone()), Run { workers: 2, one_by_one: false });
    let mut ledger = Ledger::new(params.ledger.clone(), params.weights.table());
    let (mut records, mut told, mut compared) = (Vec::<(SignalKey, Kind, Millis, i64)>::new(), Counts::new(), 0);
    for (epoch, rows) in &epochs {
        let mut out = Vec::new();
        ledger.step(epoch, &mut rows.iter().filter_map(entry).collect(), &mut out);
        for delta in out.iter().filter_map(|o| if let Output::Delta(delta) = o { Some(delta) } else { None }) {
            for update in &delta.updates {
                let mut keys = vec![SignalKey::User(delta.user), SignalKey::Item(update.item)];
                let facts = update.facts.as_deref();
                keys.extend(facts.into_iter().flat_map(|f| f.categories.iter().map(|c| SignalKey::Category(*c))));
                keys.extend(facts.and_then(|f| f.author).map(SignalKey::Author));
                records.extend(keys.into_iter().map(|key| (key, update.kind, update.at, update.diff)));
            }
        }
        for change in changes.get(&epoch.number).into_iter().flatten() {
            match change {
                Change::Signals(key, Some(s)) => drop(told.insert(*key, s.counts.iter().copied().collect())),
                Change::Signals(key, None) => drop(told.remove(key)),
                _ => {}
            }
        }
        if (epoch.number as usize).is_multiple_of(STRIDE) || epoch.number as usize + 1 == epochs.len() {
            records.retain(|(_, _, at, _)| *at > epoch.clock_ms - 2 * DAY);
            told.retain(|_, kinds| !kinds.is_empty());
            assert_eq!(told, recount(&records, epoch.clock_ms), "epoch {}", epoch.number);
            compared += told.len();
        }
    }
    eprintln!("{} epochs, {compared} keys compared", epochs.len());
    assert!(compared > 1_000, "{compared} keys compared");
}

fn recount(records: &[(SignalKey, Kind, Millis, i64)], clock: Millis) -> Counts {
    let mut sums: BTreeMap<SignalKey, BTreeMap<Kind, [i64; 5]>> = BTreeMap::new();
    for (key, kind, at, diff) in records {
        for window in Window::ALL.into_iter().filter(|w| w.holds(*at, clock)) {
            sums.entry(*key).or_default().entry(*kind).or_default()[window as usize] += diff;
        }
    }
    let counts = |kinds: BTreeMap<Kind, [i64; 5]>| {
        let live = kinds.into_iter().filter(|(_, n)| n.iter().any(|n| *n != 0));
        live.map(|(kind, n)| (kind, n.map(|n| u32::try_from(n).expect("nothing is taken back twice")))).collect()
    };
    let all = sums.into_iter().map(|(key, kinds)| (key, counts(kinds)));
    all.filter(|(_, kinds): &(_, BTreeMap<_, _>)| !kinds.is_empty()).collect()
}
