//! Orders to rank by another version, on the control input: the engine follows them where it reads them.

use bytes::Bytes;

use crate::config::Config;
use crate::model::serving::BLEND;
use crate::registry::Registry;
use crate::sources::{Appender, Place, Role, appender};
use std::sync::Arc;

/// Orders that a version ranks, once it was found good here; says where the order lies.
pub fn promote(registry: &Registry, version: &str, config: &Config) -> Result<String, String> {
    if version != BLEND {
        registry.load(version, &config.onnx).map_err(|e| e.to_string())?;
    }
    append(registry.order(version).map_err(|e| e.to_string())?, config).map(|place| told(&place))
}

/// Orders that what ranked before ranks again.
pub fn rollback(config: &Config) -> Result<String, String> {
    append(serde_json::json!({"op": "rollback"}).to_string(), config).map(|place| told(&place))
}

fn told(place: &str) -> String {
    format!("ordered{place}: the engine follows when it reads this; `overdrive models list` says what ranks\n")
}

/// What writes orders into the input.
pub struct Pen {
    appender: Arc<dyn Appender>,
    runtime: tokio::runtime::Runtime,
}

impl Pen {
    /// For the input of the settings.
    pub fn open(config: &Config) -> Result<Self, String> {
        let appender = appender(&config.source, &config.log, &config.kafka, &config.fluvio, &config.engine.state_dir)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Ok(Self { appender, runtime: runtime.map_err(|e| format!("cannot start a runtime: {e}"))? })
    }

    /// Puts orders into the input, one after another; says where they lie.
    pub fn write(&self, orders: Vec<String>) -> Result<Vec<Place>, String> {
        // no key: whoever is forgotten takes what has theirs
        let records = orders.into_iter().map(|order| (Bytes::new(), Some(order.into()))).collect();
        self.runtime.block_on(self.appender.append(Role::Control, records))
    }
}

/// Puts an order into the input; says where it lies.
pub fn append(order: String, config: &Config) -> Result<String, String> {
    let places = Pen::open(config)?.write(vec![order])?;
    Ok(places.first().map_or_else(String::new, |(partition, offset)| format!(", at control/{partition}={offset}")))
}
