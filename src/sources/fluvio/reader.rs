//! All partitions as a source, over anything that opens streams. What must stay true: a position only ever moves past a record that
//! was handed out, so whatever is missing from a stream is asked for again until it comes, or is said to be gone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::succession::{Step, Succession};
use crate::sources::ranges::{Ranges, out_of_range, outside, positions};
use crate::sources::{Positions, Record, Role, Room, Source, SourceError, refuse_unknown};

/// Openings of a stream that bring no record before the cluster is asked what it still holds.
const FRUITLESS: u32 = 10;
/// How often a silent cluster is asked whether it has what it does not send.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is asked again for an end that it must have had already.
const ASK: Duration = Duration::from_millis(100);

/// Something that opens a stream of records for each partition.
pub trait Cluster: Send {
    /// Where it is, for messages.
    fn place(&self) -> String;

    /// The topic of a role.
    fn topic(&self, role: Role) -> &str;

    /// What every partition holds, as far as the cluster has told; ends may lag behind.
    fn ranges(&mut self) -> Result<Ranges, SourceError>;

    /// Begins a stream at `offset`, in place of the one before. That it cannot be had arrives like its end.
    fn open(&mut self, partition: (Role, u32), offset: u64, opening: u32);

    /// What comes next, of any partition; waits for it up to `wait`.
    fn next(&mut self, wait: Duration) -> Option<Arrival>;
}

/// What a stream brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub partition: (Role, u32),
    /// Of which opening.
    pub opening: u32,
    /// A record; or the stream ended, and why, if it says so.
    pub what: Result<Record, Option<String>>,
}

/// Reads every partition.
pub struct Reader<C> {
    cluster: C,
    partitions: BTreeMap<(Role, u32), Succession>,
    /// When the cluster was last asked, and which partitions it then had more of.
    looked: Instant,
    behind: Positions,
    /// An error met after records had been handed out: told by the next poll.
    held: Option<SourceError>,
}

impl<C: Cluster> Reader<C> {
    /// Opens all partitions at `start`; one that it leaves out begins at its first record. `Stop` when a position is outside of what
    /// its partition holds; the cluster has `patience` to say that it has what lies before it.
    pub fn open(mut cluster: C, start: &Positions, patience: Duration) -> Result<Self, SourceError> {
        let ranges = reached(&mut cluster, start, patience)?;
        refuse_unknown(start, |place| ranges.contains_key(place), &cluster.place())?;
        let next = positions(&ranges, start, |role| cluster.topic(role))?;
        next.iter().for_each(|(partition, offset)| cluster.open(*partition, *offset, 0));
        let partitions = next.into_iter().map(|(partition, offset)| (partition, Succession::at(offset))).collect();
        Ok(Self { cluster, partitions, looked: Instant::now(), behind: Positions::new(), held: None })
    }

    fn take(&mut self, max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<(), SourceError> {
        let (before, mut room, mut wait) = (into.len(), Room::of(max), wait);
        while room.left() > 0 {
            let Some(arrival) = self.cluster.next(wait) else { break };
            self.hear(arrival, &mut room, into)?;
            // Only the first is waited for; the others are here or come with the next poll.
            wait = if into.len() == before { wait } else { Duration::ZERO };
        }
        Ok(())
    }

    fn hear(
        &mut self,
        Arrival { partition, opening, what }: Arrival,
        room: &mut Room,
        into: &mut Vec<Record>,
    ) -> Result<(), SourceError> {
        let Some(succession) = self.partitions.get_mut(&partition).filter(|of| of.opening() == opening) else { return Ok(()) };
        match what {
            Ok(record) => match succession.step(record.offset) {
                Step::Next => room.take(record, into),
                Step::Seen => {}
                Step::Gap => {
                    let (next, came) = (succession.next(), record.offset);
                    tracing::debug!(topic = self.cluster.topic(partition.0), partition = partition.1, next, came, "a gap");
                    return self.reopen(partition, Failure::Gap(came));
                }
            },
            Err(None) => return self.reopen(partition, Failure::End),
            Err(Some(why)) => {
                self.reopen(partition, Failure::Error(why.clone()))?;
                return Err(SourceError::Retry(format!("{}: {why}", self.cluster.place())));
            }
        }
        Ok(())
    }

    /// Opens a partition's stream anew where it failed. An error when that has brought nothing for many times.
    fn reopen(&mut self, partition: (Role, u32), why: Failure) -> Result<(), SourceError> {
        let succession = self.partitions.get_mut(&partition).expect("only partitions that are read are opened anew");
        succession.reopen();
        let (next, opening, fruitless) = (succession.next(), succession.opening(), succession.fruitless());
        self.cluster.open(partition, next, opening);
        if fruitless.is_multiple_of(FRUITLESS) { self.explain(partition, next, why) } else { Ok(()) }
    }

    /// What is wrong, if anything: a stream that ends may have brought all there is.
    fn explain(&mut self, partition: (Role, u32), next: u64, why: Failure) -> Result<(), SourceError> {
        let held = self.cluster.ranges()?.get(&partition).copied().unwrap_or_default();
        let (topic, place) = (self.cluster.topic(partition.0), self.cluster.place());
        if outside(next, held) {
            return Err(out_of_range(topic, partition, next, held));
        }
        let name = format!("{}/{} (topic {topic} at {place})", partition.0.name(), partition.1);
        Err(match why {
            Failure::End if next == held.1 => return Ok(()),
            Failure::End => SourceError::Retry(format!("{name}: the stream from record {next} on ends again and again")),
            Failure::Silence(end) => {
                SourceError::Retry(format!("{name}: nothing comes from record {next} on, though it holds them up to {end}"))
            }
            Failure::Error(why) => SourceError::Retry(format!("{name}: {why}")),
            Failure::Gap(came) => SourceError::Stop(format!(
                "{name}: the records {next}..{came} do not come, however often they are asked for; restore them, or start at {came}"
            )),
        })
    }

    /// A stream may leave out the last records there are, and nothing after them shows it: the cluster is asked. What it twice had
    /// more of is opened anew.
    fn look(&mut self) -> Result<(), SourceError> {
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        self.looked = Instant::now();
        let ranges = self.cluster.ranges()?;
        let before = std::mem::take(&mut self.behind);
        for (partition, next) in self.positions() {
            let held = ranges.get(&partition).copied().unwrap_or_default();
            if next < held.0 {
                return Err(out_of_range(self.cluster.topic(partition.0), partition, next, held));
            }
            if next < held.1 && before.get(&partition) == Some(&next) {
                self.reopen(partition, Failure::Silence(held.1))?;
            } else if next < held.1 {
                self.behind.insert(partition, next);
            }
        }
        Ok(())
    }
}

/// Why a stream is opened anew.
enum Failure {
    /// This record came, and others were due before it.
    Gap(u64),
    End,
    /// Nothing came, though the partition holds records up to here.
    Silence(u64),
    Error(String),
}

/// What is held, once that reaches `start`, or when there was patience enough: what was read from it before must be there.
fn reached<C: Cluster>(cluster: &mut C, start: &Positions, patience: Duration) -> Result<Ranges, SourceError> {
    let until = Instant::now() + patience;
    loop {
        let ranges = cluster.ranges()?;
        let lags = start.iter().any(|(place, offset)| ranges.get(place).is_some_and(|(_, end)| end < offset));
        if !lags || Instant::now() > until {
            return Ok(ranges);
        }
        std::thread::sleep(ASK);
    }
}

impl<C: Cluster> Source for Reader<C> {
    fn poll(&mut self, max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<(), SourceError> {
        if let Some(error) = self.held.take() {
            return Err(error);
        }
        let before = into.len();
        let taken = self.take(max, wait, into);
        if into.len() > before {
            self.held = taken.err();
            return Ok(());
        }
        taken.and_then(|()| self.look())
    }

    fn positions(&self) -> Positions {
        self.partitions.iter().map(|(partition, succession)| (*partition, succession.next())).collect()
    }
}
