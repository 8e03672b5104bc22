//! Overdrive: a streaming dataflow recommender. Modules in the order an event meets them.

pub mod align;
mod aside;
pub mod cluster;
pub mod codec;
pub mod commands;
pub mod config;
pub mod credentials;
pub mod dataflows;
pub mod encoders;
pub mod feed;
pub mod model;
pub mod objects;
pub mod operators;
pub mod privacy;
pub mod recovery;
pub mod registry;
pub mod scoring;
pub mod shim;
pub mod sinks;
pub mod sources;
pub mod state;
pub mod supervisor;
pub mod telemetry;
pub mod training;
pub mod watch;
pub mod worker;
