//! Appending to Kafka. A batch is accepted only when the broker has confirmed each of its records, and batches lie in the order
//! in which they were handed over.

use bytes::Bytes;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::future_producer::{DeliveryFuture, OwnedDeliveryResult};
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::Mutex;

use super::{Context, client, partitions_of, prepared, topic};
use crate::sources::{Appender, KafkaParams, Pending, Place, Role, partition_of};

/// How long to wait before trying again when the producer's own queue is full.
const FULL: Duration = Duration::from_millis(2);

/// Appends to the topics of all roles.
pub struct KafkaAppender {
    params: KafkaParams,
    producer: FutureProducer<Context>,
    /// How many there were when it was opened.
    partitions: BTreeMap<Role, u32>,
    /// Held while a batch is queued, so that one that waits for room is not overtaken by the next.
    queueing: Mutex<()>,
}

impl KafkaAppender {
    /// Asks the brokers for the partitions of all topics, creating what is missing if it may.
    pub fn open(params: &KafkaParams) -> Result<Self, String> {
        let consumer = prepared(params).map_err(|e| e.to_string())?;
        let count = |role| Ok((role, partitions_of(&consumer, params, role).map_err(|e| e.to_string())?));
        let partitions = Role::ALL.into_iter().map(count).collect::<Result<_, String>>()?;
        let producer = producer(params).map_err(|e| format!("cannot set up a kafka producer: {e}"))?;
        Ok(Self { params: params.clone(), producer, partitions, queueing: Mutex::new(()) })
    }

    async fn queue(&self, role: Role, records: &[(Bytes, Option<Bytes>)]) -> Vec<Result<DeliveryFuture, KafkaError>> {
        let _turn = self.queueing.lock().await;
        let mut queued = Vec::with_capacity(records.len());
        for (key, payload) in records {
            queued.push(self.queue_one(role, key, payload.as_deref()).await);
        }
        queued
    }

    async fn queue_one(&self, role: Role, key: &[u8], payload: Option<&[u8]>) -> Result<DeliveryFuture, KafkaError> {
        let partition = partition_of(key, self.partitions[&role]) as i32;
        let mut record = FutureRecord::to(topic(&self.params, role)).partition(partition).key(key);
        record.payload = payload;
        loop {
            match self.producer.send_result(record) {
                Ok(delivery) => return Ok(delivery),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    record = refused;
                    tokio::time::sleep(FULL).await;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }
}

fn producer(params: &KafkaParams) -> Result<FutureProducer<Context>, String> {
    client(params)?
        // Accepted means: on every replica in sync.
        .set("acks", "all")
        // A try that was repeated after a lost answer must not be there twice, nor overtake.
        .set("enable.idempotence", "true")
        // Somebody waits for the answer; under load batches fill by themselves.
        .set("linger.ms", "0")
        .set("message.timeout.ms", params.message_timeout.as_millis().to_string())
        .create_with_context(Context::default())
        .map_err(|e| e.to_string())
}

impl Appender for KafkaAppender {
    /// Needs a tokio runtime with time. Every record's own delivery result is looked at: a flush reports success also when
    /// deliveries failed.
    fn append(&self, role: Role, records: Vec<(Bytes, Option<Bytes>)>) -> Pending<'_, Result<Vec<Place>, String>> {
        Box::pin(async move {
            let mut places = Vec::with_capacity(records.len());
            let mut refused: Vec<String> = Vec::new();
            for queued in self.queue(role, &records).await {
                match delivered(queued).await {
                    Ok(place) => places.push(place),
                    Err(error) => refused.push(error),
                }
            }
            match refused.first() {
                None => Ok(places),
                Some(first) => Err(format!(
                    "{} of {} records for topic {} were not accepted by kafka at {}: {first}; check the brokers and send them again",
                    refused.len(),
                    records.len(),
                    topic(&self.params, role),
                    self.params.brokers
                )),
            }
        })
    }
}

async fn delivered(queued: Result<DeliveryFuture, KafkaError>) -> Result<Place, String> {
    let answer: OwnedDeliveryResult =
        queued.map_err(|e| e.to_string())?.await.map_err(|_| "the producer was closed".to_string())?;
    answer.map(|delivery| (delivery.partition as u32, delivery.offset as u64)).map_err(|(error, _)| error.to_string())
}
