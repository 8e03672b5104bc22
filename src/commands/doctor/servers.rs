//! What the servers and libraries that the settings name have. What is not named is not contacted.

use std::path::{Path, PathBuf};

use super::Finding;
use crate::config::Config;
use crate::registry::{self, Registry};
use crate::{sinks, sources};

/// Every check of a server or library.
pub fn findings(config: &Config) -> Vec<Finding> {
    let used = config.source.kind == sources::Kind::Kafka || config.changes.kind == sinks::changes::Kind::Kafka;
    let mut findings = match used {
        true => kafka(config),
        false => vec![Finding::note("kafka", format!("not used: source.kind is {}", config.source.kind.name()), "")],
    };
    if config.source.kind == sources::Kind::Fluvio {
        findings.extend(fluvio(&config.fluvio));
    }
    findings.extend(match config.store.kind {
        sinks::Kind::Redis => redis(config),
        sinks::Kind::Memory => vec![Finding::note("redis", "not used: store.kind is memory", "")],
    });
    let library = match config.onnx.library.as_str() {
        "" => std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from),
        path => Some(PathBuf::from(path)),
    };
    findings.push(match library {
        Some(path) => onnx(&path),
        None => Finding::note(
            "onnx runtime",
            "no library named: the blend serves",
            "scripts/fetch-onnxruntime.sh gets it; then set onnx.library or ORT_DYLIB_PATH",
        ),
    });
    findings.extend((!config.recommend.ranker.model.is_empty()).then(|| ranker(config)));
    findings.extend((!config.recommend.towers.model.is_empty()).then(|| towers(config)));
    findings.extend((!config.recommend.ranker.registry.is_empty()).then(|| versions(config)));
    findings
}

/// The versions that may be ordered to rank.
fn versions(config: &Config) -> Finding {
    const WHAT: &str = "registry";
    let named = &config.recommend.ranker.registry;
    match Registry::open(named, &config.engine.state_dir).and_then(|registry| registry.versions().map_err(|e| e.to_string())) {
        Ok(versions) => match versions.iter().find_map(|(_, about)| about.as_ref().err()) {
            Some(why) => Finding::bad(WHAT, why.to_string(), "publish it again under another name, and move this one away"),
            None => Finding::good(WHAT, format!("{named}: {} versions", versions.len())),
        },
        Err(why) => Finding::bad(WHAT, why, "name a registry that can be read, or leave ranker.registry empty"),
    }
}

/// The model that is to rank, tried on its golden rows.
fn ranker(config: &Config) -> Finding {
    const WHAT: &str = "ranker";
    match registry::load(Path::new(&config.recommend.ranker.model), &config.onnx) {
        Ok(model) => Finding::good(WHAT, format!("{} gives the scores it must ({})", model.name, model.digest)),
        Err(e) => Finding::bad(WHAT, e.to_string(), "repair the file, or leave ranker.model empty: the blend serves then"),
    }
}

/// The towers that are to find candidates, tried on their golden vectors.
fn towers(config: &Config) -> Finding {
    const WHAT: &str = "towers";
    match registry::load_towers(Path::new(&config.recommend.towers.model), &config.onnx) {
        Ok(towers) => Finding::good(WHAT, format!("{} give the vectors they must ({})", towers.name, towers.digest)),
        Err(e) => Finding::bad(WHAT, e.to_string(), "repair the folder, or leave towers.model empty: other sources serve then"),
    }
}

/// What models run on, once the others were tried.
pub fn device() -> Option<Finding> {
    const WHAT: &str = "device of models";
    let (device, why) = registry::runs_on()?;
    Some(match why {
        Some(why) => Finding::note(
            WHAT,
            format!("{}: {why}", device.name()),
            "fine without a GPU; onnx.device = \"cpu\" does not look for one",
        ),
        None => Finding::good(WHAT, device.name()),
    })
}

#[cfg(feature = "redis")]
fn redis(config: &Config) -> Vec<Finding> {
    match redis_state(&config.redis) {
        Ok(state) => redis_findings(&state),
        Err(why) => vec![Finding::bad("redis", why.to_string(), "start Redis 7, or set redis.url (OVERDRIVE_REDIS_URL)")],
    }
}

/// What a Redis server says of itself; a user with few rights may not be told.
#[cfg(feature = "redis")]
#[derive(Clone, Debug)]
struct RedisState {
    health: Option<sinks::redis::Health>,
    /// Its clock minus ours.
    ahead_ms: Option<i64>,
}

#[cfg(feature = "redis")]
fn redis_state(params: &sinks::RedisParams) -> Result<RedisState, sinks::StoreError> {
    let client = sinks::redis::client(params)?;
    let ask = || {
        let mut connection = client.get_connection_with_timeout(params.connect_timeout)?;
        connection.set_read_timeout(Some(params.response_timeout))?;
        let health = permitted(sinks::redis::Health::ask(&mut connection))?;
        let time: Option<(i64, i64)> = permitted(redis::cmd("TIME").query(&mut connection))?;
        Ok(RedisState { health, ahead_ms: time.map(|(seconds, micros)| seconds * 1000 + micros / 1000 - now_ms()) })
    };
    ask().map_err(|error| sinks::redis::store_error(&client, &error))
}

/// What the user may not ask is not known.
#[cfg(feature = "redis")]
fn permitted<T>(answer: redis::RedisResult<T>) -> redis::RedisResult<Option<T>> {
    match answer {
        Err(error) if error.code() == Some("NOPERM") => Ok(None),
        answer => answer.map(Some),
    }
}

#[cfg(feature = "redis")]
fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(feature = "redis")]
fn redis_findings(state: &RedisState) -> Vec<Finding> {
    let Some(health) = &state.health else {
        return vec![Finding::note(
            "redis",
            "answers, but does not say its version",
            "permit the user INFO; 7 or newer is needed",
        )];
    };
    let version = &health.version;
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    let mut findings = vec![match major >= 7 {
        true => Finding::good("redis", format!("version {version}")),
        false => Finding::bad(
            "redis",
            format!("version {version}"),
            "install Redis 7 or newer: older ones let scripts pass the access list",
        ),
    }];
    findings.extend(health.complaints().into_iter().map(|(found, advice)| Finding::note("redis memory", found, advice)));
    if let Some(ahead) = state.ahead_ms.filter(|ahead| ahead.abs() > 1000) {
        let found = format!("its clock is {} ms {}", ahead.abs(), if ahead > 0 { "ahead" } else { "behind" });
        findings.push(Finding::note("redis clock", found, "keep both machines set with NTP"));
    }
    findings
}

#[cfg(not(feature = "redis"))]
fn redis(_: &Config) -> Vec<Finding> {
    unreachable!("a checked setting: store.kind = redis needs the feature")
}

/// Partitions of each topic a broker has.
#[cfg(any(feature = "kafka", feature = "fluvio"))]
type Topics = std::collections::BTreeMap<String, usize>;

#[cfg(feature = "kafka")]
fn kafka(config: &Config) -> Vec<Finding> {
    let brokers = &config.kafka.brokers;
    match sources::kafka::topics(&config.kafka) {
        Ok((count, topics)) => {
            let mut findings = vec![Finding::good("kafka", format!("{brokers} answers, {count} broker(s)"))];
            findings.extend(topic_findings(&config.kafka, &topics));
            findings
        }
        Err(e) => {
            let advice = "start Kafka, or set kafka.brokers (OVERDRIVE_KAFKA_BROKERS); its advertised.listeners must be reachable from here";
            vec![Finding::bad("kafka", e.to_string(), advice)]
        }
    }
}

#[cfg(feature = "kafka")]
fn topic_findings(params: &sources::KafkaParams, topics: &Topics) -> Vec<Finding> {
    let wanted = [&params.events_topic, &params.items_topic, &params.users_topic, &params.control_topic];
    found_topics(("kafka topics", "kafka.create_topics"), params.create_topics, &wanted.map(String::as_str), topics)
}

/// Which of the wanted topics are there; `what` is checked, and a setting says whether the engine creates what is missing.
#[cfg(any(feature = "kafka", feature = "fluvio"))]
fn found_topics((what, setting): (&'static str, &str), creates: bool, wanted: &[&str], topics: &Topics) -> Vec<Finding> {
    let (there, missing): (Vec<_>, Vec<_>) = wanted.iter().copied().partition(|topic| topics.contains_key(*topic));
    let mut findings = Vec::new();
    if !there.is_empty() {
        let list: Vec<String> = there.iter().map(|topic| format!("{topic} ({})", topics[*topic])).collect();
        findings.push(Finding::good(what, format!("with partitions: {}", list.join(", "))));
    }
    if !missing.is_empty() {
        let found = format!("missing: {}", missing.join(", "));
        findings.push(match creates {
            true => Finding::note(what, found, "nothing to do: the engine creates them when it starts"),
            false => Finding::bad(what, found, format!("create them, or set {setting} = true")),
        });
    }
    findings
}

#[cfg(not(feature = "kafka"))]
fn kafka(_: &Config) -> Vec<Finding> {
    unreachable!("a checked setting: source.kind = kafka and changes.kind = kafka need the feature")
}

#[cfg(feature = "fluvio")]
fn fluvio(params: &sources::fluvio::Params) -> Vec<Finding> {
    match sources::fluvio::topics(params) {
        Ok(topics) => {
            let topics: Topics = topics.into_iter().map(|(topic, partitions)| (topic, partitions as usize)).collect();
            let wanted = sources::Role::ALL.map(|role| params.topic(role));
            let mut findings = vec![Finding::good("fluvio", format!("{} answers", params.endpoint))];
            findings.extend(found_topics(("fluvio topics", "fluvio.create_topics"), params.create_topics, &wanted, &topics));
            findings
        }
        Err(e) => {
            vec![Finding::bad("fluvio", e.to_string(), "start Fluvio, or set fluvio.endpoint; its SPUs must be reachable too")]
        }
    }
}

#[cfg(not(feature = "fluvio"))]
fn fluvio(_: &sources::fluvio::Params) -> Vec<Finding> {
    unreachable!("a checked setting: source.kind = fluvio needs the feature")
}

#[cfg(feature = "onnx")]
fn onnx(path: &std::path::Path) -> Finding {
    const WHAT: &str = "onnx runtime";
    match ort::init_from(path) {
        Ok(_) => Finding::good(WHAT, format!("{}: {}", path.display(), onnx_version(ort::info()))),
        Err(e) => Finding::bad(WHAT, e.to_string(), "run scripts/fetch-onnxruntime.sh and name what it prints in onnx.library"),
    }
}

/// "version 1.31.1" of "ORT Build Info: git-branch=rel-1.31.1, git-commit-id=…".
#[cfg(feature = "onnx")]
fn onnx_version(info: &str) -> String {
    let branch = info.split_once("git-branch=").map_or(info, |(_, rest)| rest.split(',').next().unwrap_or(rest));
    branch.strip_prefix("rel-").map_or_else(|| format!("built from {branch}"), |version| format!("version {version}"))
}

#[cfg(not(feature = "onnx"))]
fn onnx(path: &std::path::Path) -> Finding {
    let found = format!("{} is named, but this binary was built without it: the blend serves", path.display());
    Finding::note("onnx runtime", found, "build with the feature `onnx`")
}

#[cfg(all(test, any(feature = "redis", feature = "kafka", feature = "onnx")))]
mod tests {
    use super::super::Mark;
    use super::*;

    #[cfg(feature = "redis")]
    #[test]
    fn an_old_redis_fails_and_a_forgetful_one_is_noted() {
        use crate::sinks::redis::Health;
        let health = Health { version: "7.0.15".into(), maxmemory: 0, policy: "noeviction".into(), ..Health::default() };
        let of = |health: Health, ahead_ms| RedisState { health: Some(health), ahead_ms: Some(ahead_ms) };
        let marks = |state: &RedisState| redis_findings(state).iter().map(|f| (f.mark, f.what)).collect::<Vec<_>>();
        assert_eq!(marks(&of(health.clone(), 3)), [(Mark::Good, "redis")]);
        assert_eq!(marks(&of(Health { version: "6.2.6".into(), ..health.clone() }, 3)), [(Mark::Bad, "redis")]);
        assert_eq!(
            marks(&of(Health { policy: "allkeys-lru".into(), ..health.clone() }, 3)),
            [(Mark::Good, "redis")],
            "no limit, no eviction"
        );
        let forgetful = of(Health { maxmemory: 1 << 30, policy: "allkeys-lru".into(), evicted: 7, ..health }, -2000);
        let notes =
            [(Mark::Good, "redis"), (Mark::Note, "redis memory"), (Mark::Note, "redis memory"), (Mark::Note, "redis clock")];
        assert_eq!(marks(&forgetful), notes);
        assert_eq!(marks(&RedisState { health: None, ahead_ms: None }), [(Mark::Note, "redis")], "a user who may not ask");
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn missing_topics_fail_only_when_nobody_creates_them() {
        let mut params = Config::defaults().kafka;
        let topics = Topics::from([("overdrive.events".to_string(), 4), ("overdrive.items".to_string(), 1)]);
        let findings = topic_findings(&params, &topics);
        assert_eq!(findings[0].found, "with partitions: overdrive.events (4), overdrive.items (1)");
        assert_eq!((findings[1].mark, findings[1].found.as_str()), (Mark::Note, "missing: overdrive.users, overdrive.control"));
        params.create_topics = false;
        assert_eq!(topic_findings(&params, &topics)[1].mark, Mark::Bad);
    }

    #[cfg(feature = "onnx")]
    #[test]
    fn a_library_that_is_not_there_says_where_to_get_it() {
        let finding = onnx(std::path::Path::new("no/such/libonnxruntime.so"));
        assert!(finding.mark == Mark::Bad && finding.advice.contains("fetch-onnxruntime"), "{finding:?}");
        assert_eq!(onnx_version("ORT Build Info: git-branch=rel-1.31.1, git-commit-id=26"), "version 1.31.1");
        assert_eq!(onnx_version("ORT Build Info: git-branch=main, x"), "built from main");
    }
}
