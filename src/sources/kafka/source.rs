//! All partitions of our four topics as a source. A position only ever moves past a record that was handed out.

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};
use std::time::{Duration, Instant};

use super::{Context, identities, identity, partitions, prepared, range, ranges, topic};
use crate::model::epoch::{BEGIN_ANEW, TopicIds};
use crate::sources::ranges::{out_of_range, outside, positions};
use crate::sources::{KafkaParams, Positions, Record, Role, Room, Source, SourceError, now_ms, refuse_unknown};

/// How long a question about partitions may hold the reading up.
const GLANCE: Duration = Duration::from_secs(1);

/// Reads every partition of the topics of all roles, also those that a topic gains.
pub struct KafkaSource {
    params: KafkaParams,
    consumer: BaseConsumer<Context>,
    next: Positions,
    /// Which topics these are.
    topics: TopicIds,
    /// An error met after records had been handed out: told by the next poll.
    held: Option<SourceError>,
    gained: Positions,
    /// When a topic was last asked for its partitions, and which role's is next.
    looked: (Instant, usize),
}

impl KafkaSource {
    /// Opens all partitions at `start`; one that it leaves out begins at its first record. `Retry` when no broker answers,
    /// `Stop` when a position is outside of what its partition holds.
    pub fn open(params: &KafkaParams, start: Positions) -> Result<Self, SourceError> {
        let consumer = prepared(params)?;
        let ranges = ranges(&consumer, params)?;
        refuse_unknown(&start, |place| ranges.contains_key(place), &format!("kafka at {}", params.brokers))?;
        let next = positions(&ranges, &start, |role| topic(params, role))?;
        consumer.assign(&assignment(params, &next)?).map_err(|e| SourceError::Stop(format!("cannot assign partitions: {e}")))?;
        let (looked, topics) = ((Instant::now(), 0), identities(&consumer, params)?);
        Ok(Self { params: params.clone(), consumer, next, topics, held: None, gained: Positions::new(), looked })
    }

    fn take(&mut self, max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<(), SourceError> {
        let (mut room, mut wait) = (Room::of(max), wait);
        while room.left() > 0 {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let record = record(&self.params, &message)?;
                    self.next.insert((record.role, record.partition), record.offset + 1);
                    room.take(record, into);
                }
                Some(Err(error)) => return Err(self.explain(&error)),
            }
            // Only the first is waited for; the others are here or come with the next poll.
            wait = Duration::ZERO;
        }
        Ok(())
    }

    /// Now and then asks one topic whether it is still the same and has gained partitions; all of them within `topics_every`.
    fn look(&mut self) -> Result<(), SourceError> {
        let (last, turn) = self.looked;
        if last.elapsed() < self.params.topics_every / Role::ALL.len() as u32 {
            return Ok(());
        }
        self.looked = (Instant::now(), (turn + 1) % Role::ALL.len());
        let role = Role::ALL[turn];
        self.recognise(role)?;
        let known = self.next.keys().filter(|(of, _)| *of == role).count() as u32;
        match partitions(&self.consumer, &self.params, topic(&self.params, role), GLANCE) {
            Ok(Some(count)) if count > known => self.gain(role, known..count),
            Ok(Some(count)) if count == known => Ok(()),
            Ok(found) => Err(SourceError::Stop(format!(
                "topic {} had {known} partitions and has {} now: it was deleted or created anew; what was read of it and what it holds \
                 do not belong together. Give it back, or {BEGIN_ANEW}",
                topic(&self.params, role),
                found.unwrap_or(0)
            ))),
            Err(SourceError::Retry(_)) => Ok(()), // a broker that is away is told of by what is read
            Err(stop) => Err(stop),
        }
    }

    /// A topic that was deleted and created anew may hold as many records as the one before: offsets do not tell.
    fn recognise(&self, role: Role) -> Result<(), SourceError> {
        let Some(known) = self.topics.get(&role) else { return Ok(()) };
        match identity::id(&self.consumer, &self.params, &known.name, GLANCE) {
            Ok(Some(id)) if id != known.id => Err(SourceError::Stop(known.replaced_by(&known.name, &id))),
            Ok(_) | Err(SourceError::Retry(_)) => Ok(()), // one that is gone, or a broker that is away, is told of by others
            Err(stop) => Err(stop),
        }
    }

    /// New partitions are read from their first record, whenever they were found.
    fn gain(&mut self, role: Role, new: std::ops::Range<u32>) -> Result<(), SourceError> {
        let topic = topic(&self.params, role);
        tracing::info!(topic, partitions = new.end, "the topic has gained partitions; they are read from offset 0");
        self.gained.extend(new.map(|partition| ((role, partition), 0)));
        self.next.extend(&self.gained);
        let all = assignment(&self.params, &self.next)?;
        self.consumer
            .assign(&all)
            .map_err(|e| SourceError::Stop(format!("cannot assign the partitions that {topic} gained: {e}")))
    }

    fn explain(&self, error: &KafkaError) -> SourceError {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => self.lost(),
            Some(
                Code::UnknownTopic
                | Code::UnknownPartition
                | Code::UnknownTopicOrPartition
                | Code::TopicAuthorizationFailed
                | Code::Authentication
                | Code::SaslAuthenticationFailed,
            ) => SourceError::Stop(format!("kafka at {} refuses: {error}; check topics and permissions", self.params.brokers)),
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                SourceError::Stop(format!("the kafka client gave up: {error}; start again"))
            }
            _ => SourceError::Retry(format!("kafka at {}: {error}{}", self.params.brokers, self.consumer.context().cause())),
        }
    }

    /// Which position it is that the broker does not have any more.
    fn lost(&self) -> SourceError {
        for ((role, partition), next) in &self.next {
            match range(&self.consumer, &self.params, *role, *partition) {
                Err(error) => return error,
                Ok(held) if outside(*next, held) => {
                    return out_of_range(topic(&self.params, *role), (*role, *partition), *next, held);
                }
                Ok(_) => {}
            }
        }
        SourceError::Stop("the broker refused an offset that it does hold; start again".into())
    }
}

fn assignment(params: &KafkaParams, next: &Positions) -> Result<TopicPartitionList, SourceError> {
    let mut list = TopicPartitionList::new();
    for ((role, partition), offset) in next {
        list.add_partition_offset(topic(params, *role), *partition as i32, Offset::Offset(*offset as i64))
            .map_err(|e| SourceError::Stop(format!("{}/{partition} cannot be read from {offset}: {e}", role.name())))?;
    }
    Ok(list)
}

fn record(params: &KafkaParams, message: &BorrowedMessage<'_>) -> Result<Record, SourceError> {
    let role = Role::ALL.into_iter().find(|role| topic(params, *role) == message.topic());
    Ok(Record {
        role: role.ok_or_else(|| SourceError::Stop(format!("a record of topic {}, which was not asked for", message.topic())))?,
        partition: message.partition() as u32,
        offset: message.offset() as u64,
        key: message.key().map(Bytes::copy_from_slice),
        payload: message.payload().map(Bytes::copy_from_slice),
        // Only brokers of before 2016 send none.
        accepted_ms: message.timestamp().to_millis().unwrap_or_else(now_ms),
    })
}

impl Source for KafkaSource {
    fn poll(&mut self, max: usize, wait: Duration, into: &mut Vec<Record>) -> Result<(), SourceError> {
        if let Some(error) = self.held.take() {
            return Err(error);
        }
        let before = into.len();
        let taken = self.look().and_then(|()| self.take(max, wait, into));
        if into.len() > before {
            self.held = taken.err();
            return Ok(());
        }
        taken
    }

    fn gained(&mut self) -> Positions {
        std::mem::take(&mut self.gained)
    }

    fn topics(&self) -> TopicIds {
        self.topics.clone()
    }

    fn positions(&self) -> Positions {
        self.next.clone()
    }
}
