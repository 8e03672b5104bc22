//! The rooms' settings put together: `overdrive.toml` as compiled in, then a file, then the environment, key by key.
//!
//! What must stay true: a [`Config`] that exists is valid. Every default stands once, in `overdrive.toml`; no setting has a
//! default of its own in the code, and a key that nobody reads is refused.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::time::span;

mod layers;
mod rules;

pub use layers::{Layers, Origin, variable};

/// `overdrive.toml` as it was when this binary was built.
pub const DEFAULTS: &str = include_str!("../overdrive.toml");

/// Every setting. `overdrive.toml` holds the defaults and is compiled in.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub engine: Engine,
    pub recovery: crate::recovery::Params,
    pub supervisor: crate::supervisor::Params,
    pub cluster: crate::cluster::Params,
    pub privacy: crate::privacy::Params,
    pub source: crate::sources::Params,
    pub log: crate::sources::log::Params,
    pub kafka: crate::sources::KafkaParams,
    pub fluvio: crate::sources::fluvio::Params,
    pub store: crate::sinks::Params,
    pub redis: crate::sinks::RedisParams,
    #[serde(flatten)]
    pub recommend: crate::dataflows::Params,
    pub changes: crate::sinks::changes::Params,
    pub service: crate::shim::Params,
    pub access: crate::shim::AccessParams,
    pub metrics: Metrics,
    pub logging: Logging,
    pub onnx: crate::registry::Onnx,
    pub training: crate::training::Params,
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

/// What is wrong with a configuration: one line for each problem, each naming the key, where its value came from and what is
/// allowed. Never a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct ConfigError {
    pub problems: Vec<String>,
}

impl From<String> for ConfigError {
    fn from(problem: String) -> Self {
        Self { problems: vec![problem] }
    }
}

impl Config {
    /// The defaults, overridden by a file (`file`, else the one `OVERDRIVE_CONFIG` names, else `./overdrive.toml` when it is
    /// there), overridden by the environment. Reads no variable but those in `env`.
    pub fn load(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
        Layers::read(file, env)?.config()
    }

    /// The settings of `overdrive.toml` as compiled in.
    pub fn defaults() -> Config {
        Layers::defaults().config().expect("a test loads the embedded overdrive.toml")
    }

    /// Every setting as (`section.key`, value), sorted by section, with passwords replaced by `***`. Durations and numbers are
    /// spelt canonically, so that two configurations can be compared line by line.
    pub fn settings(&self) -> Vec<(String, toml::Value)> {
        let mut settings = Vec::new();
        for (section, table) in self.table() {
            let toml::Value::Table(table) = table else { unreachable!("every field of Config is a section") };
            settings.extend(table.into_iter().map(|(key, value)| (format!("{section}.{key}"), value)));
        }
        settings
    }

    /// The settings that differ from the defaults, as `settings` spells them.
    pub fn changed(&self) -> Vec<(String, toml::Value)> {
        let defaults = Config::defaults().settings();
        self.settings().into_iter().filter(|setting| !defaults.contains(setting)).collect()
    }

    /// All settings as TOML tables, passwords replaced by `***`.
    fn table(&self) -> toml::Table {
        let mut shown = self.clone();
        shown.redis.url = redacted(&self.redis.url);
        toml::Table::try_from(&shown).expect("every setting has a TOML type")
    }
}

/// Shows every setting but no password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Config").field(&self.table()).finish()
    }
}

/// A URL without its password: `redis://user:***@host`. What is not a URL is returned as it is.
pub fn redacted(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    // A password may hold an unescaped `@` or `/`: the host begins after the last `@`.
    let authority = match rest.rsplit_once('@') {
        Some((login, host)) => match login.split_once(':') {
            Some((user, _)) => format!("{user}:***@{host}"),
            None => format!("{login}@{host}"),
        },
        None => rest.to_string(),
    };
    scheme + &without_pass(&authority)
}

/// The `pass=` of a unix socket's URL.
fn without_pass(rest: &str) -> String {
    let Some((path, query)) = rest.split_once('?') else { return rest.to_string() };
    let hide = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if name.starts_with("pass") => format!("{name}=***"),
        _ => pair.to_string(),
    };
    format!("{path}?{}", query.split('&').map(hide).collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_hidden_wherever_it_stands() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
            ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
            ("rediss://app:se:cr@et@host", "rediss://app:***@host"),
            ("redis://app@host", "redis://app@host"),
            ("unix:///run/redis.sock?db=1&pass=secret", "unix:///run/redis.sock?db=1&pass=***"),
            ("app:secret@host", "app:***@host"),
        ] {
            assert_eq!(redacted(url), shown);
        }
    }
}
