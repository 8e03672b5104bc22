//! Logs and numbers about this process: the subscriber, the one recorder, and the table of every metric with its unit.
//!
//! A label is a route, a status, an outcome, a stage or a feature: never an id of a user or an item.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

use crate::config::Logging;
use crate::model::content::Space;
use crate::registry::Device;

/// From the log's acceptance of an event to its effect being readable, in seconds.
pub const FRESHNESS: &str = "overdrive_freshness_seconds";
/// What became of events: applied, duplicate, late, filtered, dead.
pub const EVENTS: &str = "overdrive_events_total";
/// How far a stage is behind the newest epoch.
pub const FRONTIER_LAG: &str = "overdrive_frontier_lag_epochs";
/// Users whose slate was made again.
pub const REFRESHES: &str = "overdrive_refreshes_total";
/// Candidates a model was given.
pub const MODEL_ROWS: &str = "overdrive_model_rows_total";
/// What models run on.
pub const DEVICE: &str = "overdrive_onnx_device";
/// Calls of a tower that gave no vector.
pub const TOWER_FAILURES: &str = "overdrive_tower_failures_total";
/// Candidates of callers that a model was given.
pub const RANK_ROWS: &str = "overdrive_rank_rows_total";
/// What a model in the shadow would have done.
pub const SHADOW: &str = "overdrive_shadow_total";
/// Orders to rank by another model.
pub const MODEL_ORDERS: &str = "overdrive_model_orders_total";
/// Rankers that were trained by the engine itself.
pub const TRAININGS: &str = "overdrive_trainings_total";
/// What users did, by what ranks for them.
pub const ARM_EVENTS: &str = "overdrive_arm_events_total";
/// Refreshes put off by the budget of an epoch.
pub const COALESCED: &str = "overdrive_refreshes_coalesced_total";
/// Times the blend has learned.
pub const LEARNED: &str = "overdrive_blend_learned_groups";
/// Whether the learned blend serves.
pub const SERVES: &str = "overdrive_blend_serves";
/// The linear weight of each feature.
pub const WEIGHT: &str = "overdrive_blend_weight";
/// Keys that wait for the store.
pub const DIRTY_KEYS: &str = "overdrive_dirty_keys";
/// Batches the store did not take, and reads it did not answer.
pub const STORE_ERRORS: &str = "overdrive_store_errors_total";
/// How often the store was found without answers it had shown.
pub const STORE_LOST: &str = "overdrive_store_lost_total";
/// Writes the store had something newer for.
pub const STORE_FENCED: &str = "overdrive_store_fenced_total";
/// Keys the store dropped for want of memory.
pub const STORE_EVICTED: &str = "overdrive_store_evicted_keys";
/// Whether the store may drop keys for want of memory.
pub const STORE_EVICTS: &str = "overdrive_store_evicts";
/// The newest epoch whose answers are in the store.
pub const EPOCH: &str = "overdrive_epoch";
/// The clock of that epoch.
pub const CLOCK: &str = "overdrive_clock_ms";
/// The epoch of the newest snapshot.
pub const SNAPSHOT_EPOCH: &str = "overdrive_snapshot_epoch";
/// Its size.
pub const SNAPSHOT_BYTES: &str = "overdrive_snapshot_bytes";
/// How long writing it took.
pub const SNAPSHOT_SECONDS: &str = "overdrive_snapshot_seconds";
/// Snapshots that could not be written.
pub const SNAPSHOT_ERRORS: &str = "overdrive_snapshot_errors_total";
/// Requests answered by the shim.
pub const REQUESTS: &str = "overdrive_requests_total";
/// From the head of a request to the head of its answer, in seconds.
pub const REQUEST_TIME: &str = "overdrive_request_seconds";
/// Whether an encoder is there.
pub const ENCODER: &str = "overdrive_encoder_ready";
/// What became of pieces of content that were to be encoded.
pub const ENCODED: &str = "overdrive_encoded_total";
/// Connections the shim holds.
pub const CONNECTIONS: &str = "overdrive_connections";

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Counter,
    Gauge,
    Histogram,
}

/// One row of the table of metrics: name, sort, unit and help text.
pub type Metric = (&'static str, Sort, metrics::Unit, &'static str);

use Sort::{Counter, Gauge, Histogram};
use metrics::Unit::{Bytes, Count, Milliseconds, Seconds};

/// Every metric of Overdrive.
pub const METRICS: [Metric; 33] = [
    (FRESHNESS, Histogram, Seconds, "from the acceptance of an event by the log to its effect in the store"),
    (EVENTS, Counter, Count, "events by outcome: applied, duplicate, late, filtered, dead"),
    (FRONTIER_LAG, Gauge, Count, "epochs a stage is behind the newest one"),
    (REFRESHES, Counter, Count, "slates made again"),
    (MODEL_ROWS, Counter, Count, "candidates given to the model, by outcome: scored, or unscored where the blend stood in"),
    (DEVICE, Gauge, Count, "1 for what models run on, by device: cpu, cuda; absent where none was opened"),
    (
        TOWER_FAILURES,
        Counter,
        Count,
        "calls of an item or user tower that gave no vector; what it was for is not found by the towers",
    ),
    (
        RANK_ROWS,
        Counter,
        Count,
        "candidates of callers given to the model of service.rank_by, by outcome: scored, or unscored where the fixed weights stood in",
    ),
    (
        SHADOW,
        Counter,
        Count,
        "a model in the shadow against what served, by count: requests, candidates, screen (places in the first ten), agreed (of them \
         the same items), moved (places apart), taken (by users), ahead and behind (of their place when served), first, served_first, unscored",
    ),
    (
        MODEL_ORDERS,
        Counter,
        Count,
        "orders to rank by another model, or to train one, by outcome: followed, or refused where the one before serves on",
    ),
    (
        TRAININGS,
        Counter,
        Count,
        "rankers trained by the engine itself, by outcome: promoted, kept (published, and not good enough to rank), failed, or taken_back after it ranked",
    ),
    (
        ARM_EVENTS,
        Counter,
        Count,
        "events by what ranks for their user (arm: model, blend) and what they are: impression, click, taken",
    ),
    (COALESCED, Counter, Count, "refreshes put off because the input was behind"),
    (LEARNED, Gauge, Count, "events the blend has learned from"),
    (SERVES, Gauge, Count, "1 once the learned blend serves, 0 while the fixed one does"),
    (WEIGHT, Gauge, Count, "linear weight of each feature of the learned blend"),
    (DIRTY_KEYS, Gauge, Count, "keys waiting for the store"),
    (STORE_ERRORS, Counter, Count, "batches not taken and reads not answered by the store"),
    (STORE_LOST, Counter, Count, "times the store was found without answers it had shown"),
    (STORE_FENCED, Counter, Count, "writes the store had something newer for: replays, and engines that were replaced"),
    (STORE_EVICTED, Gauge, Count, "keys the store dropped for want of memory"),
    (STORE_EVICTS, Gauge, Count, "1 where the store's policy lets it drop keys for want of memory"),
    (EPOCH, Gauge, Count, "newest epoch whose answers are in the store"),
    (CLOCK, Gauge, Milliseconds, "clock of that epoch, since 1970"),
    (SNAPSHOT_EPOCH, Gauge, Count, "epoch of the newest snapshot"),
    (SNAPSHOT_BYTES, Gauge, Bytes, "size of the newest snapshot"),
    (SNAPSHOT_SECONDS, Gauge, Seconds, "how long writing the newest snapshot took"),
    (SNAPSHOT_ERRORS, Counter, Count, "snapshots that could not be written"),
    (REQUESTS, Counter, Count, "requests answered, by route and status"),
    (REQUEST_TIME, Histogram, Seconds, "from the head of a request to the head of its answer, by route and status"),
    (ENCODER, Gauge, Count, "1 where what encodes a space (text, image) is there, 0 where it cannot be opened"),
    (
        ENCODED,
        Counter,
        Count,
        "pieces of content by space and outcome: encoded, known (answered with what was made of the same before), nothing (it can make nothing \
         of it), failed, missing (no encoder is there, or it could not be named in the input), full (too much waited), all three asked for \
         again, or dropped (no room to keep the image)",
    ),
    (CONNECTIONS, Gauge, Count, "connections open at the shim"),
];

/// Counts pieces of content that were to be encoded.
pub fn encoded(space: Space, outcome: &'static str, count: usize) {
    if count > 0 {
        metrics::counter!(ENCODED, "space" => space.name(), "outcome" => outcome).increment(count as u64);
    }
}

/// Tells whether what encodes a space is there.
pub fn encodes(space: Space, ready: bool) {
    metrics::gauge!(ENCODER, "space" => space.name()).set(f64::from(u8::from(ready)));
}

/// Bounds of freshness, seconds: dense around the 10 ms that are promised.
const FRESHNESS_BOUNDS: [f64; 18] =
    [0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 30.0, 300.0];
/// Bounds of request times, seconds: dense below the 5 ms that are promised.
const REQUEST_BOUNDS: [f64; 15] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];

/// How often recorded samples are folded into buckets when nobody scrapes; without it they would pile up.
const UPKEEP: Duration = Duration::from_secs(5);

/// Starts logging to stderr as `[logging]` says. Fails on a filter or format that cannot be read, or when called twice.
pub fn init(logging: &Logging) -> Result<(), String> {
    let filter = EnvFilter::try_new(&logging.filter).map_err(|e| {
        format!("logging.filter `{}` cannot be read: {e}; write it as RUST_LOG, for instance `info`", logging.filter)
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = match logging.format.as_str() {
        "text" => builder.try_init(),
        "json" => builder.json().try_init(),
        other => return Err(format!("logging.format `{other}` is not known; use text or json")),
    };
    done.map_err(|e| format!("logging cannot start: {e}"))
}

/// Tells what models run on, once some were opened, and why it is not a GPU where one was looked for.
pub fn device(runs_on: Option<(Device, Option<String>)>) {
    let Some((device, why)) = runs_on else { return };
    metrics::gauge!(DEVICE, "device" => device.name()).set(1.0);
    match why {
        Some(why) => tracing::info!(device = device.name(), why, "models run without a GPU"),
        None => tracing::info!(device = device.name(), "models run here"),
    }
}

/// The recorder of this process, installed at the first call; later calls give the same one.
pub fn recorder() -> Result<PrometheusHandle, String> {
    static RECORDER: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    RECORDER.get_or_init(install).clone()
}

fn install() -> Result<PrometheusHandle, String> {
    let bounds = |name: &str| Matcher::Full(name.to_string());
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(bounds(FRESHNESS), &FRESHNESS_BOUNDS)
        .and_then(|b| b.set_buckets_for_metric(bounds(REQUEST_TIME), &REQUEST_BOUNDS))
        .and_then(|b| b.install_recorder())
        .map_err(|e| format!("the metrics recorder cannot start: {e}"))?;
    METRICS.iter().for_each(describe);
    let upkeep = handle.clone();
    let keep = move || loop {
        std::thread::sleep(UPKEEP);
        upkeep.run_upkeep();
    };
    std::thread::Builder::new()
        .name("metrics".to_string())
        .spawn(keep)
        .map_err(|e| format!("the thread of the metrics recorder cannot start: {e}"))?;
    Ok(handle)
}

fn describe(&(name, sort, unit, help): &Metric) {
    match sort {
        Counter => metrics::describe_counter!(name, unit, help),
        Gauge => metrics::describe_gauge!(name, unit, help),
        Histogram => metrics::describe_histogram!(name, unit, help),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorder_is_one_and_shows_buckets_and_help() {
        let handle = recorder().expect("first call");
        recorder().expect("second call gives the same");
        metrics::histogram!(FRESHNESS).record(0.0042);
        metrics::counter!(EVENTS, "outcome" => "applied").increment(3);
        let text = handle.render();
        assert!(text.contains("overdrive_freshness_seconds_bucket{le=\"0.005\"}"), "{text}");
        assert!(text.contains("overdrive_events_total{outcome=\"applied\"} 3"), "{text}");
        assert!(text.contains("# HELP overdrive_freshness_seconds"), "{text}");
    }

    #[test]
    fn a_filter_or_format_that_cannot_be_read_is_refused() {
        let logging = |filter: &str, format: &str| Logging { filter: filter.to_string(), format: format.to_string() };
        assert!(init(&logging("a=b=c", "text")).expect_err("bad filter").contains("logging.filter"));
        assert!(init(&logging("info", "xml")).expect_err("bad format").contains("text or json"));
    }

    #[test]
    fn every_metric_stands_once() {
        let mut names: Vec<_> = METRICS.iter().map(|m| m.0).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), METRICS.len());
    }
}
