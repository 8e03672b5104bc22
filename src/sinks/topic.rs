//! A Kafka topic that is only written. A full queue makes the caller wait; what the broker did not take in time is counted, for
//! `flush` and `send` say nothing of it.

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::jsonl::Undelivered;
use crate::sources::{KafkaParams, kafka};

/// How long a full queue is left to empty before the next try.
const PAUSE: Duration = Duration::from_millis(1);

/// A topic and the producer that writes to it.
pub(super) struct Topic {
    name: String,
    producer: ThreadedProducer<Deliveries>,
    lost: Arc<AtomicU64>,
    patience: Duration,
}

/// Counts what the broker did not take.
struct Deliveries(Arc<AtomicU64>);

impl rdkafka::ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        kafka::say(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka::warn(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result
            && self.0.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::warn!(topic = message.topic(), %error, "a record was not taken by the broker in time and is lost; the rest is counted");
        }
    }
}

impl Topic {
    /// A producer for `name`. Connects in the background: an absent broker is seen when records are lost.
    pub(super) fn open(params: &KafkaParams, name: &str) -> Result<Self, Undelivered> {
        let lost = Arc::new(AtomicU64::new(0));
        let unmade = |e: String| Undelivered(format!("could not make a producer for topic {name}: {e}; check [kafka]"));
        let mut config = kafka::client(params).map_err(unmade)?;
        // Order within a partition is the order of epochs, and a retry repeats nothing.
        config.set("enable.idempotence", "true");
        config.set("message.timeout.ms", params.message_timeout.as_millis().to_string());
        config.set("linger.ms", "5");
        config.set("compression.type", "zstd");
        let producer = config.create_with_context(Deliveries(lost.clone())).map_err(|e| unmade(e.to_string()))?;
        Ok(Self { name: name.to_string(), producer, lost, patience: params.message_timeout })
    }

    /// Queues a record; waits while the queue is full (records leave it when taken or out of time).
    pub(super) fn send(&self, key: &str, payload: &[u8]) -> Result<(), Undelivered> {
        self.queue(BaseRecord::to(&self.name).key(key).payload(payload))
    }

    /// Queues a deletion of a key.
    pub(super) fn delete(&self, key: &str) -> Result<(), Undelivered> {
        self.queue(BaseRecord::to(&self.name).key(key))
    }

    fn queue(&self, mut record: BaseRecord<'_, str, [u8]>) -> Result<(), Undelivered> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(PAUSE);
                }
                Err((error, _)) => {
                    return Err(Undelivered(format!("could not send to topic {}: {error}; check [kafka]", self.name)));
                }
            }
        }
    }

    /// Records the broker did not take, so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // Every record is settled by then, one way or the other.
        let _ = self.producer.flush(self.patience);
        if self.lost() > 0 {
            tracing::warn!(topic = self.name, lost = self.lost(), "records were not taken by the broker");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;
    use crate::sources::{Mechanism, Security};
    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::{Offset, TopicPartitionList};

    pub(crate) fn params(brokers: &str) -> KafkaParams {
        KafkaParams {
            brokers: brokers.to_string(),
            security: Security::Plaintext,
            ca: "".into(),
            cert: "".into(),
            key: "".into(),
            sasl_mechanism: Mechanism::Plain,
            username: String::new(),
            password: Secret::default(),
            password_file: "".into(),
            events_topic: "events".into(),
            items_topic: "items".into(),
            users_topic: "users".into(),
            control_topic: "control".into(),
            slates_topic: "slates".into(),
            dead_topic: "dead".into(),
            create_topics: false,
            partitions: 1,
            replication: 1,
            topics_every: Duration::from_secs(30),
            queued_max_kbytes: 1024,
            fetch_wait_max: Duration::from_millis(5),
            message_timeout: Duration::from_secs(20),
        }
    }

    #[test]
    fn records_arrive_in_order_under_their_keys() {
        let cluster = MockCluster::<DefaultProducerContext>::new(1).expect("a broker in this process");
        cluster.create_topic("slates", 1, 1).expect("the broker is there");
        let topic = Topic::open(&params(&cluster.bootstrap_servers()), "slates").expect("settings are fine");
        for n in 0..100 {
            topic.send(&format!("u{n}"), format!("line {n}").as_bytes()).expect("the queue has room");
        }
        let lost = topic.lost.clone();
        drop(topic);
        assert_eq!(lost.load(Ordering::Relaxed), 0);

        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers()).set("group.id", "test").set("fetch.wait.max.ms", "5");
        let consumer: BaseConsumer = config.create().expect("settings are fine");
        let mut all = TopicPartitionList::new();
        all.add_partition_offset("slates", 0, Offset::Beginning).expect("a valid offset");
        consumer.assign(&all).expect("a valid assignment");
        for n in 0..100 {
            let record = consumer.poll(Duration::from_secs(30)).expect("in time").expect("no error");
            let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.expect("it has one")).into_owned();
            assert_eq!((text(record.key()), text(record.payload())), (format!("u{n}"), format!("line {n}")));
        }
    }

    #[test]
    fn what_no_broker_takes_is_counted() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
        let params = KafkaParams { message_timeout: Duration::from_millis(50), ..params(&free.to_string()) };
        let topic = Topic::open(&params, "slates").expect("settings are fine");
        topic.send("u", b"line").expect("the queue has room");
        while topic.lost() < 1 {
            std::thread::sleep(PAUSE);
        }
    }
}
