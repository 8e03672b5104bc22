//! The rooms' settings put together.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

use crate::model::time::span;

/// Every setting. `overdrive.toml` holds the defaults and is compiled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub engine: Engine,
    pub source: crate::sources::Params,
    pub log: crate::sources::log::Params,
    pub kafka: crate::sources::KafkaParams,
    pub store: crate::sinks::Params,
    pub redis: crate::sinks::RedisParams,
    #[serde(flatten)]
    pub recommend: crate::dataflows::Params,
    pub changes: crate::sinks::changes::Params,
    pub service: crate::shim::Params,
    pub metrics: Metrics,
    pub logging: Logging,
    pub onnx: Onnx,
}

/// `[engine]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    pub workers: usize,
    pub clock: ClockKind,
    #[serde(with = "span")]
    pub epoch_interval: Duration,
    pub epoch_rows: usize,
    #[serde(with = "span")]
    pub heartbeat: Duration,
    #[serde(with = "span")]
    pub tick: Duration,
    pub epochs_in_flight: usize,
    pub state_dir: PathBuf,
}

/// Whose time an epoch's clock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockKind {
    Wall,
    Event,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    pub bind: String,
    pub port: u16,
}

/// `[logging]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    pub filter: String,
    pub format: String,
}

/// `[onnx]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Onnx {
    pub library: String,
}
