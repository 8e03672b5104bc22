//! Appending to Fluvio. A batch is accepted only when the cluster has said where each of its records lies, and batches lie in the
//! order in which they were handed over. A try that is repeated may leave a record twice: events carry ids, and are counted once.

use bytes::Bytes;
use fluvio::{
    Fluvio, FluvioClusterConfig, Isolation, Partitioner, PartitionerConfig, ProduceOutput, TopicProducerConfigBuilder,
    TopicProducerPool,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

use super::{Client, Params};
use crate::sources::{Appender, Pending, Place, Role, partition_of, wait_for};

/// Appends to the topics of all roles.
pub struct FluvioAppender {
    params: Params,
    producers: BTreeMap<Role, TopicProducerPool>,
    /// Held while a batch is queued, so that one that waits for room is not overtaken by the next.
    queueing: Mutex<()>,
}

/// A key goes where it goes in the other logs.
struct ByKey;

impl Partitioner for ByKey {
    fn partition(&self, config: &PartitionerConfig, key: Option<&[u8]>, _: &[u8]) -> u32 {
        partition_of(key.unwrap_or_default(), config.partition_count())
    }
}

impl FluvioAppender {
    /// Asks the cluster for all topics, creating what is missing if it may.
    pub fn open(params: &Params) -> Result<Self, String> {
        drop(Client::connect(params).map_err(|e| e.to_string())?);
        let producers = wait_for(producers(params)).map_err(|why| {
            format!("cannot set up producers for fluvio at {}: {why}; check [fluvio] endpoint", params.endpoint)
        })?;
        Ok(Self { params: params.clone(), producers, queueing: Mutex::new(()) })
    }

    async fn queue(&self, role: Role, records: &[(Bytes, Option<Bytes>)]) -> Vec<Result<ProduceOutput, String>> {
        let (_turn, producer) = (self.queueing.lock().await, &self.producers[&role]);
        let mut queued = Vec::with_capacity(records.len());
        for (key, payload) in records {
            let sent = producer.send(key.to_vec(), payload.as_deref().unwrap_or_default().to_vec()).await;
            queued.push(sent.map_err(|e| e.to_string()));
        }
        queued
    }
}

async fn producers(params: &Params) -> Result<BTreeMap<Role, TopicProducerPool>, String> {
    let fluvio = Fluvio::connect_with_config(&FluvioClusterConfig::new(&params.endpoint)).await.map_err(|e| e.to_string())?;
    let mut producers = BTreeMap::new();
    for role in Role::ALL {
        let config = TopicProducerConfigBuilder::default()
            // Somebody waits for the answer; under load batches fill by themselves.
            .linger(Duration::from_millis(1))
            // Accepted means: on every replica in sync.
            .isolation(Isolation::ReadCommitted)
            .timeout(params.timeout)
            .partitioner(Arc::new(ByKey))
            .build();
        let config = config.map_err(|e| e.to_string())?;
        let producer = fluvio.topic_producer_with_config(params.topic(role), config).await.map_err(|e| e.to_string())?;
        producers.insert(role, producer);
    }
    Ok(producers)
}

impl Appender for FluvioAppender {
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
            let Some(first) = refused.first() else { return Ok(places) };
            // Until it is told to go on, a producer that failed once refuses everything.
            self.producers[&role].clear_errors().await;
            Err(format!(
                "{} of {} records for topic {} were not accepted by fluvio at {}: {first}; check the cluster and send them again",
                refused.len(),
                records.len(),
                self.params.topic(role),
                self.params.endpoint
            ))
        })
    }
}

async fn delivered(queued: Result<ProduceOutput, String>) -> Result<Place, String> {
    let answer = queued?.wait().await.map_err(|e| e.to_string())?;
    Ok((answer.partition_id(), answer.offset().max(0) as u64))
}
