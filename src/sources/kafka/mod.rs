//! Kafka as a source and as something to append to. Partitions are assigned by us, at offsets of ours; the broker's groups and
//! commits are not used, so nothing but our own record of positions says what has been read.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::ranges::Ranges;
use super::{KafkaParams, Positions, Role, SourceError, wait_for};
use crate::model::epoch::{TopicId, TopicIds};

mod append;
mod client;
mod identity;
mod source;

pub use append::KafkaAppender;
pub(crate) use client::{Context, client, say, warn};
pub use source::KafkaSource;

/// How long the broker may take for a question about topics.
const ANSWER: Duration = Duration::from_secs(10);

/// The topic that carries a role.
pub fn topic(params: &KafkaParams, role: Role) -> &str {
    match role {
        Role::Events => &params.events_topic,
        Role::Items => &params.items_topic,
        Role::Users => &params.users_topic,
        Role::Control => &params.control_topic,
    }
}

/// A consumer that a broker has answered. `Retry`: none does. `Stop`: they refuse us, or we them.
fn consumer(params: &KafkaParams) -> Result<BaseConsumer<Context>, SourceError> {
    let consumer = configured(params).map_err(|e| SourceError::Stop(format!("cannot set up a kafka client: {e}")))?;
    reach(&consumer, params)?;
    Ok(consumer)
}

fn configured(params: &KafkaParams) -> Result<BaseConsumer<Context>, String> {
    client(params)?
        // Asked for by assign(), though the group is never joined.
        .set("group.id", "overdrive")
        // Our own record of positions is the only one.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // An offset that is gone must be told, not skipped.
        .set("auto.offset.reset", "error")
        // What a producer's transaction took back was never there.
        .set("isolation.level", "read_committed")
        // A prefetch that fits into memory; the default is 64 MB.
        .set("queued.max.messages.kbytes", params.queued_max_kbytes.to_string())
        // The default of 1 s is how long a partition stands still each time the prefetch is full.
        .set("fetch.queue.backoff.ms", "2")
        // The default of 500 ms is how late a record may be when another partition is quiet.
        .set("fetch.wait.max.ms", params.fetch_wait_max.as_millis().to_string())
        .set("fetch.error.backoff.ms", "100")
        // The end of a live log is nothing to be told of.
        .set("enable.partition.eof", "false")
        // A misspelt topic must be an error, not a new topic.
        .set("allow.auto.create.topics", "false")
        .create_with_context(Context::default())
        .map_err(|e| e.to_string())
}

/// Waits for a broker. Nothing is assigned yet, so what a poll yields is what the client says, and no record.
fn reach(consumer: &BaseConsumer<Context>, params: &KafkaParams) -> Result<(), SourceError> {
    const TRY: Duration = Duration::from_millis(500);
    const LISTEN: Duration = Duration::from_millis(20);
    let until = Instant::now() + ANSWER;
    loop {
        let Err(error) = consumer.fetch_metadata(Some(&params.events_topic), TRY) else { return Ok(()) };
        while consumer.poll(LISTEN).is_some() {}
        if let Some(refusal) = consumer.context().refusal() {
            return Err(SourceError::Stop(format!("kafka at {} and we do not come together: {refusal}", params.brokers)));
        }
        if Instant::now() > until {
            let cause = consumer.context().cause();
            return Err(SourceError::Retry(format!(
                "kafka at {} does not answer: {error}{cause}; check [kafka] brokers and security",
                params.brokers
            )));
        }
    }
}

/// How many partitions a topic has; `None` when there is no such topic.
fn partitions(
    consumer: &BaseConsumer<Context>,
    params: &KafkaParams,
    topic: &str,
    patience: Duration,
) -> Result<Option<u32>, SourceError> {
    let metadata = consumer.fetch_metadata(Some(topic), patience).map_err(|e| unreachable(params, &e))?;
    let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else { return Ok(None) };
    let led = found.partitions().iter().all(|p| p.leader() >= 0);
    match found.error().map(RDKafkaErrorCode::from) {
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
        Some(RDKafkaErrorCode::LeaderNotAvailable) => Err(SourceError::Retry(format!("topic {topic} has no leader yet"))),
        Some(error) => Err(SourceError::Stop(format!("cannot read about topic {topic}: {error}"))),
        None if !led => Err(SourceError::Retry(format!("a partition of topic {topic} has no leader yet"))),
        None => Ok(Some(found.partitions().len() as u32)),
    }
}

/// The number of partitions of the topic of `role`; waits a little for one just created.
fn partitions_of(consumer: &BaseConsumer<Context>, params: &KafkaParams, role: Role) -> Result<u32, SourceError> {
    let (topic, until) = (topic(params, role), Instant::now() + ANSWER);
    loop {
        match partitions(consumer, params, topic, ANSWER) {
            Ok(Some(count)) if count > 0 => return Ok(count),
            Ok(_) if !params.create_topics => {
                return Err(SourceError::Stop(format!(
                    "there is no topic {topic} at {}; create it, or set [kafka] create_topics",
                    params.brokers
                )));
            }
            Ok(_) if Instant::now() > until => {
                return Err(SourceError::Retry(format!("topic {topic} at {} was created but does not appear", params.brokers)));
            }
            Err(SourceError::Retry(_)) | Ok(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Creates the topics that are missing. Items and users are compacted: their last word on a key is kept for ever. Control is
/// not, since each of its records is an order of its own, and it keeps all of them.
pub fn create_topics(params: &KafkaParams) -> Result<(), SourceError> {
    let consumer = consumer(params)?;
    let replication = params.replication as i32;
    let new = |name, partitions: u32| NewTopic::new(name, partitions as i32, TopicReplication::Fixed(replication));
    // Freshness is measured from the broker's acceptance, not from whatever time a producer claims; and what a user did before
    // being forgotten is told from what they did after by it.
    let input = |name, partitions| new(name, partitions).set("message.timestamp.type", "LogAppendTime");
    let wanted = [
        input(&params.events_topic, params.partitions),
        new(&params.items_topic, 1).set("cleanup.policy", "compact"),
        input(&params.users_topic, 1).set("cleanup.policy", "compact"),
        input(&params.control_topic, 1).set("retention.ms", "-1"),
        new(&params.slates_topic, params.partitions),
        new(&params.dead_topic, 1),
    ];
    let mut missing = Vec::new();
    for topic in &wanted {
        if partitions(&consumer, params, topic.name, ANSWER)?.is_none() {
            missing.push(topic);
        }
    }
    if missing.is_empty() { Ok(()) } else { create(params, &missing) }
}

fn create(params: &KafkaParams, missing: &[&NewTopic<'_>]) -> Result<(), SourceError> {
    let config = client(params).map_err(SourceError::Stop)?;
    let admin: AdminClient<Context> = config.create_with_context(Context::default()).map_err(|e| unreachable(params, &e))?;
    let options = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
    let created = wait_for(admin.create_topics(missing.iter().copied(), &options)).map_err(|e| unreachable(params, &e))?;
    for topic in created {
        match topic {
            Ok(name) => tracing::info!(topic = name, "created"),
            // Another process was quicker.
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, error)) => {
                return Err(SourceError::Stop(format!(
                    "cannot create topic {name} at {}: {error}; create it by hand and unset [kafka] create_topics",
                    params.brokers
                )));
            }
        }
    }
    Ok(())
}

/// The topics of all roles, as far as the brokers say which they are.
fn identities(consumer: &BaseConsumer<Context>, params: &KafkaParams) -> Result<TopicIds, SourceError> {
    let mut identities = TopicIds::new();
    for role in Role::ALL {
        let name = topic(params, role).to_string();
        let id = identity::id(consumer, params, &name, ANSWER)?;
        identities.extend(id.map(|id| (role, TopicId { name, id })));
    }
    Ok(identities)
}

/// First offset and the one after the last, of a partition.
fn range(consumer: &BaseConsumer<Context>, params: &KafkaParams, role: Role, partition: u32) -> Result<(u64, u64), SourceError> {
    let (low, high) =
        consumer.fetch_watermarks(topic(params, role), partition as i32, ANSWER).map_err(|e| unreachable(params, &e))?;
    Ok((low.max(0) as u64, high.max(0) as u64))
}

/// What the partitions of every role hold now.
fn ranges(consumer: &BaseConsumer<Context>, params: &KafkaParams) -> Result<Ranges, SourceError> {
    let mut ranges = Ranges::new();
    for role in Role::ALL {
        for partition in 0..partitions_of(consumer, params, role)? {
            ranges.insert((role, partition), range(consumer, params, role, partition)?);
        }
    }
    Ok(ranges)
}

/// The offset after the last record of every partition: where a reader begins that wants only what is new.
pub fn ends(params: &KafkaParams) -> Result<Positions, SourceError> {
    let consumer = prepared(params)?;
    Ok(ranges(&consumer, params)?.into_iter().map(|(place, (_, end))| (place, end)).collect())
}

/// A consumer of topics that exist, if they may be created.
fn prepared(params: &KafkaParams) -> Result<BaseConsumer<Context>, SourceError> {
    if params.create_topics {
        create_topics(params)?;
    }
    consumer(params)
}

/// How many brokers there are, and the partitions of every topic they show us.
pub fn topics(params: &KafkaParams) -> Result<(usize, BTreeMap<String, usize>), SourceError> {
    let metadata = consumer(params)?.fetch_metadata(None, ANSWER).map_err(|e| unreachable(params, &e))?;
    let topics = metadata.topics().iter().map(|topic| (topic.name().to_string(), topic.partitions().len()));
    Ok((metadata.brokers().len(), topics.collect()))
}

fn unreachable(params: &KafkaParams, error: &KafkaError) -> SourceError {
    SourceError::Retry(format!("kafka at {} does not answer: {error}; check [kafka] brokers", params.brokers))
}
