//! What a Redis server says of itself, and what is wrong with it as a place for answers.

use metrics::{Gauge, gauge};
use redis::{Connection, InfoDict, RedisResult};

/// From `INFO`.
#[derive(Clone, Debug, Default)]
pub struct Health {
    pub version: String,
    /// Bytes; 0 is no limit.
    pub maxmemory: u64,
    pub policy: String,
    /// Keys dropped for want of memory since the server started.
    pub evicted: u64,
}

impl Health {
    /// Asks a server.
    pub fn ask(connection: &mut Connection) -> RedisResult<Self> {
        let info: InfoDict = redis::cmd("INFO").query(connection)?;
        Ok(Self {
            version: info.get("redis_version").unwrap_or_default(),
            maxmemory: info.get("maxmemory").unwrap_or_default(),
            policy: info.get("maxmemory_policy").unwrap_or_default(),
            evicted: info.get("evicted_keys").unwrap_or_default(),
        })
    }

    /// Why answers may be missing: what was found, and what to do.
    pub fn complaints(&self) -> Vec<(String, &'static str)> {
        let mut complaints = Vec::new();
        if self.maxmemory > 0 && self.policy != "noeviction" {
            complaints.push((
                format!("maxmemory-policy is {}: a full server drops answers without a word", self.policy),
                "set maxmemory-policy noeviction and give it memory: everything expires by itself",
            ));
        }
        if self.evicted > 0 {
            complaints.push((
                format!("{} keys were evicted since it started", self.evicted),
                "give it more memory; feeds of those users fall back to trending",
            ));
        }
        complaints
    }
}

/// Tells of a server's health in the log, each state once, and in numbers.
pub(super) struct Watch {
    evicted: Gauge,
    forgetful: Gauge,
    told: Vec<(String, &'static str)>,
}

impl Watch {
    pub(super) fn new() -> Self {
        let evicted = gauge!("overdrive_store_evicted_keys");
        Self { evicted, forgetful: gauge!("overdrive_store_evicts"), told: Vec::new() }
    }

    /// Takes what the server says now.
    pub(super) fn look(&mut self, health: &Health) {
        self.evicted.set(health.evicted as f64);
        self.forgetful.set(f64::from(health.maxmemory > 0 && health.policy != "noeviction"));
        let complaints = health.complaints();
        if complaints != self.told {
            complaints.iter().for_each(|(found, advice)| tracing::warn!("redis: {found}; {advice}"));
            self.told = complaints;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics_exporter_prometheus::PrometheusBuilder;

    #[test]
    fn a_forgetful_server_is_told_of_once_and_stands_in_the_numbers() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let mut watch = metrics::with_local_recorder(&recorder, Watch::new);
        let health = Health { maxmemory: 1 << 30, policy: "allkeys-lru".into(), evicted: 7, ..Health::default() };
        watch.look(&health);
        assert_eq!(watch.told.len(), 2);
        let text = recorder.handle().render();
        for line in ["overdrive_store_evicted_keys 7", "overdrive_store_evicts 1"] {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
        watch.look(&Health { maxmemory: 0, evicted: 0, ..health });
        assert_eq!((watch.told.len(), recorder.handle().render().contains("overdrive_store_evicts 0")), (0, true));
    }
}
