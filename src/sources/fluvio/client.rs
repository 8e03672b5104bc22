//! A real Fluvio cluster: its topics, what their partitions hold, and a stream for each. Streams run on a thread of their own and
//! meet in one queue; a stream that was opened anew is cut off, and what it had sent is told apart by its opening.

use bytes::Bytes;
use fluvio::consumer::{ConsumerConfigExtBuilder, ConsumerStream, RetryMode};
use fluvio::dataplane::link::ErrorCode;
use fluvio::dataplane::record::ConsumerRecord;
use fluvio::metadata::partition::PartitionSpec;
use fluvio::metadata::topic::{CleanupPolicy, SegmentBasedPolicy, TopicSpec};
use fluvio::{Fluvio, FluvioClusterConfig, Isolation, Offset};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

use super::{Arrival, Cluster, Params};
use crate::sources::ranges::Ranges;
use crate::sources::{Record, Role, SourceError, wait_for};

/// Records that may wait to be polled.
const WAITING: usize = 4096;
/// Before a created topic is asked for again.
const ASK: Duration = Duration::from_millis(100);
/// After a failed opening, so that a cluster that is away is not asked without a pause.
const PAUSE: Duration = Duration::from_millis(100);
/// Of topics that must keep all they have: in seconds, the longest there is.
const EVER: SegmentBasedPolicy = SegmentBasedPolicy { time_in_seconds: u32::MAX };

/// A cluster and the streams that are open.
pub struct Client {
    params: Params,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    sender: Sender<Arrival>,
    arrivals: Receiver<Arrival>,
    streams: BTreeMap<(Role, u32), JoinHandle<()>>,
}

impl Client {
    /// Asks the cluster for the topics of all roles, creating what is missing if it may.
    pub fn connect(params: &Params) -> Result<Self, SourceError> {
        wait_for(prepare(params))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("fluvio").enable_time().build();
        let runtime = runtime.map_err(|e| SourceError::Stop(format!("cannot start the thread of the fluvio client: {e}")))?;
        let (sender, arrivals) = channel(WAITING);
        Ok(Self { params: params.clone(), runtime: Some(runtime), sender, arrivals, streams: BTreeMap::new() })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Not waited for: a stream may be in the middle of connecting.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

impl Cluster for Client {
    fn place(&self) -> String {
        format!("fluvio at {}", self.params.endpoint)
    }

    fn topic(&self, role: Role) -> &str {
        self.params.topic(role)
    }

    fn ranges(&mut self) -> Result<Ranges, SourceError> {
        wait_for(ranges(&self.params))
    }

    fn open(&mut self, partition: (Role, u32), offset: u64, opening: u32) {
        let stream = stream(self.params.clone(), partition, offset, opening, self.sender.clone());
        let runtime = self.runtime.as_ref().expect("there until it is dropped");
        if let Some(before) = self.streams.insert(partition, runtime.spawn(stream)) {
            before.abort();
        }
    }

    fn next(&mut self, wait: Duration) -> Option<Arrival> {
        if let Ok(arrival) = self.arrivals.try_recv() {
            return Some(arrival);
        }
        let runtime = self.runtime.as_ref().expect("there until it is dropped");
        runtime.block_on(async { tokio::time::timeout(wait, self.arrivals.recv()).await.ok().flatten() })
    }
}

/// Hands the records of a partition over, and in the end why there are no more.
async fn stream(params: Params, partition: (Role, u32), offset: u64, opening: u32, to: Sender<Arrival>) {
    let what = match begin(&params, partition, offset).await {
        Ok(stream) => Err(forward(Box::pin(stream), partition, opening, &to).await),
        Err(why) => Err(Some(why)),
    };
    tokio::time::sleep(PAUSE).await;
    let _nobody_listens = to.send(Arrival { partition, opening, what }).await;
}

async fn begin(
    params: &Params,
    (role, partition): (Role, u32),
    offset: u64,
) -> Result<impl ConsumerStream<Item = Result<ConsumerRecord, ErrorCode>> + use<>, String> {
    let start = Offset::absolute(offset as i64).map_err(|e| e.to_string())?;
    let config = ConsumerConfigExtBuilder::default()
        .topic(params.topic(role))
        .partition(partition)
        .offset_start(start)
        // What is not on every replica may still be taken back.
        .isolation(Isolation::ReadCommitted)
        // The client would go on where it believes to be: we know where we are.
        .retry_mode(RetryMode::Disabled)
        .build();
    let config = config.map_err(|e| e.to_string())?;
    let opened = async { connect(params).await?.consumer_with_config(config).await.map_err(|e| e.to_string()) };
    in_time(params, opened).await
}

async fn forward<S>(mut stream: Pin<Box<S>>, partition: (Role, u32), opening: u32, to: &Sender<Arrival>) -> Option<String>
where
    S: ConsumerStream<Item = Result<ConsumerRecord, ErrorCode>>,
{
    loop {
        match std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await {
            Some(Ok(found)) => {
                let arrival = Arrival { partition, opening, what: Ok(record(partition, &found)) };
                if to.send(arrival).await.is_err() {
                    return None;
                }
            }
            Some(Err(error)) => return Some(error.to_string()),
            None => return None,
        }
    }
}

fn record((role, partition): (Role, u32), found: &ConsumerRecord) -> Record {
    Record {
        role,
        partition,
        offset: found.offset().max(0) as u64,
        key: found.key().map(Bytes::copy_from_slice),
        payload: Some(found.value()).filter(|value| !value.is_empty()).map(Bytes::copy_from_slice),
        // The producer's clock, there is no other. Without one: the same at every reading.
        accepted_ms: found.timestamp().max(0),
    }
}

async fn connect(params: &Params) -> Result<Fluvio, String> {
    Fluvio::connect_with_config(&FluvioClusterConfig::new(&params.endpoint)).await.map_err(|e| e.to_string())
}

async fn in_time<T>(params: &Params, answer: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| format!("no answer within {}", humantime::format_duration(params.timeout));
    tokio::time::timeout(params.timeout, answer).await.map_err(late)?
}

fn away(params: &Params) -> impl Fn(String) -> SourceError {
    |why| SourceError::Retry(format!("fluvio at {} does not answer: {why}; check [fluvio] endpoint", params.endpoint))
}

/// How many partitions each topic of the cluster has.
pub fn topics(params: &Params) -> Result<BTreeMap<String, u32>, SourceError> {
    wait_for(async { in_time(params, list(params)).await.map_err(away(params)) })
}

async fn list(params: &Params) -> Result<BTreeMap<String, u32>, String> {
    let admin = connect(params).await?.admin().await;
    let topics = admin.all::<TopicSpec>().await.map_err(|e| e.to_string())?;
    Ok(topics.into_iter().map(|topic| (topic.name, topic.spec.partitions())).collect())
}

/// What every partition of our topics holds.
async fn ranges(params: &Params) -> Result<Ranges, SourceError> {
    let all = async {
        let admin = connect(params).await?.admin().await;
        admin.all::<PartitionSpec>().await.map_err(|e| e.to_string())
    };
    let role = |topic: &str| Role::ALL.into_iter().find(|role| params.topic(*role) == topic);
    let range = |name: &str, status: fluvio::metadata::partition::PartitionStatus| {
        let (topic, partition) = name.rsplit_once('-')?;
        let (first, end) = (status.base_offset.max(0) as u64, status.leader.hw.max(0) as u64);
        Some(((role(topic)?, partition.parse().ok()?), (first, end.max(first))))
    };
    let all = in_time(params, all).await.map_err(away(params))?;
    Ok(all.into_iter().filter_map(|partition| range(&partition.name, partition.status)).collect())
}

/// Sees to it that the topics of all roles are there, and each of their partitions.
async fn prepare(params: &Params) -> Result<(), SourceError> {
    let mut wanted = in_time(params, list(params)).await.map_err(away(params))?;
    for role in Role::ALL.into_iter().filter(|role| !wanted.contains_key(params.topic(*role))).collect::<Vec<_>>() {
        let topic = params.topic(role).to_string();
        if !params.create_topics {
            let place = &params.endpoint;
            return Err(SourceError::Stop(format!(
                "there is no topic {topic} at {place}; create it, or set [fluvio] create_topics"
            )));
        }
        wanted.insert(topic, create(params, role).await?);
    }
    let wanted: u32 = Role::ALL.iter().map(|role| wanted[params.topic(*role)]).sum();
    let until = Instant::now() + params.timeout;
    while ranges(params).await?.len() < wanted as usize {
        if Instant::now() > until {
            return Err(SourceError::Retry(format!("the topics at {} have partitions that do not appear", params.endpoint)));
        }
        tokio::time::sleep(ASK).await;
    }
    Ok(())
}

async fn create(params: &Params, role: Role) -> Result<u32, SourceError> {
    let (topic, partitions) = (params.topic(role), if role == Role::Events { params.partitions } else { 1 });
    let mut spec = TopicSpec::new_computed(partitions, params.replication, None);
    if role != Role::Events {
        spec.set_cleanup_policy(CleanupPolicy::Segment(EVER)); // there is no compaction, and what they say stays true
    }
    let created = async {
        let admin = connect(params).await?.admin().await;
        admin.create(topic.to_string(), false, spec).await.map_err(|e| e.to_string())
    };
    match in_time(params, created).await {
        Ok(()) => tracing::info!(topic, "created"),
        // Another process was quicker.
        Err(why) if list(params).await.is_ok_and(|there| there.contains_key(topic)) => tracing::debug!(topic, why),
        Err(why) => {
            let place = &params.endpoint;
            return Err(SourceError::Stop(format!(
                "cannot create topic {topic} at {place}: {why}; create it by hand and unset [fluvio] create_topics"
            )));
        }
    }
    Ok(partitions)
}
