//! What a Redis server says of itself, and what is wrong with it as a place for answers.

use metrics::{Gauge, gauge};
use redis::{Connection, InfoDict, RedisResult};

/// From `INFO`.
#[derive(Clone, Debug, Default)]
pub struct Health {
    pub version: String,
    /// Which start of the server this is: it counts from 0 at each.
    pub run: String,
    /// Bytes in use.
    pub used: u64,
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
            run: info.get("run_id").unwrap_or_default(),
            used: info.get("used_memory").unwrap_or_default(),
            maxmemory: info.get("maxmemory").unwrap_or_default(),
            policy: info.get("maxmemory_policy").unwrap_or_default(),
            evicted: info.get("evicted_keys").unwrap_or_default(),
        })
    }

    /// Whether it drops keys when it is full.
    fn forgets(&self) -> bool {
        self.maxmemory > 0 && self.policy != "noeviction"
    }

    /// Whether it would keep what was written to it now. One that drops keys stays full to the brim: writing to it what it has
    /// dropped makes it drop something else.
    fn has_room(&self) -> bool {
        !self.forgets() || self.used < self.maxmemory - self.maxmemory / 16
    }

    /// Why answers may be missing: what was found, and what to do.
    pub fn complaints(&self) -> Vec<(String, &'static str)> {
        let mut complaints = Vec::new();
        if self.forgets() {
            complaints.push((
                format!("maxmemory-policy is {}: a full server drops answers without a word", self.policy),
                "set maxmemory-policy noeviction and give it memory: everything expires by itself",
            ));
        }
        if self.evicted > 0 {
            complaints.push((
                format!("{} keys were evicted since it started", self.evicted),
                "give it more memory: then they are written again; until then feeds of those users fall back to trending",
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
    /// The server's run, and how many keys it had dropped when it was asked last.
    seen: (String, u64),
    /// Keys were dropped since everything was written.
    owed: bool,
}

impl Watch {
    pub(super) fn new() -> Self {
        let evicted = gauge!("overdrive_store_evicted_keys");
        Self { evicted, forgetful: gauge!("overdrive_store_evicts"), told: Vec::new(), seen: Default::default(), owed: false }
    }

    /// Takes what the server says now. Yields whether it has dropped keys and has room for them again: they must be written anew, for
    /// which of them it was it does not say. What was dropped before the first look counts: who wrote it may not have seen it.
    pub(super) fn look(&mut self, health: &Health) -> bool {
        self.evicted.set(health.evicted as f64);
        self.forgetful.set(f64::from(health.forgets()));
        let complaints = health.complaints();
        if complaints != self.told {
            complaints.iter().for_each(|(found, advice)| tracing::warn!("redis: {found}; {advice}"));
            self.told = complaints;
        }
        let before = if self.seen.0 == health.run { self.seen.1 } else { 0 };
        self.owed |= health.evicted > before;
        self.seen = (health.run.clone(), health.evicted);
        health.has_room() && std::mem::take(&mut self.owed)
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
        watch.look(&Health { maxmemory: 0, ..health });
        watch.look(&Health::default());
        assert_eq!((watch.told.len(), recorder.handle().render().contains("overdrive_store_evicts 0")), (0, true));
    }

    #[test]
    fn what_was_dropped_is_owed_until_there_is_room_and_then_once() {
        let mut watch = Watch::new();
        let full = Health { run: "a".into(), used: 100, maxmemory: 100, policy: "allkeys-lru".into(), ..Health::default() };
        let said = |watch: &mut Watch, evicted, used| watch.look(&Health { evicted, used, ..full.clone() });
        assert!(!said(&mut watch, 0, 50), "nothing was dropped");
        assert!(!said(&mut watch, 3, 99), "there is no room yet");
        assert!(said(&mut watch, 3, 50) && !said(&mut watch, 3, 50), "once");
        assert!(said(&mut watch, 4, 50), "one more");
        assert!(!said(&mut watch, 9, 99), "owed");
        assert!(
            watch.look(&Health { run: "b".into(), ..full.clone() }.with_memory()),
            "also by its next run, which has counted none"
        );
        assert!(Watch::new().look(&Health { evicted: 1, ..Health::default() }), "nobody knows who made that good");
    }

    impl Health {
        fn with_memory(self) -> Self {
            Self { maxmemory: 0, ..self }
        }
    }
}
