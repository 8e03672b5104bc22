//! Defaults, file and environment laid over each other. Each value knows where it came from, so that a complaint can say so.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use toml::Value;

use super::{Config, ConfigError, DEFAULTS, redacted, rules};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Variable(String),
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("the default"),
            Origin::File { path, line } => write!(f, "{} line {line}", path.display()),
            Origin::Variable(name) => write!(f, "the environment variable {name}"),
            Origin::Flag(name) => write!(f, "the flag {name}"),
        }
    }
}

/// Names without a section. Later ones win; `OVERDRIVE_<SECTION>__<KEY>` wins over all of them.
const SHORT: [(&str, &str); 9] = [
    ("REDIS_URL", "redis.url"),
    ("KAFKA_BOOTSTRAP_SERVERS", "kafka.brokers"),
    ("SERVICE_PORT", "service.port"),
    ("OVERDRIVE_REDIS_URL", "redis.url"),
    ("OVERDRIVE_KAFKA_BROKERS", "kafka.brokers"),
    ("OVERDRIVE_SERVICE_PORT", "service.port"),
    ("OVERDRIVE_STATE_DIR", "engine.state_dir"),
    ("OVERDRIVE_PYTHON", "training.python"),
    ("OVERDRIVE_FEATURE_TTL_SECONDS", "store.user_ttl"),
];

/// Keys of a file as clients of other systems spell them.
const SPELT: [(&str, &str); 3] = [
    ("flags.mlRecommendations", "flags.ml_recommendations"),
    ("flags.personalizedFeed", "flags.personalized_feed"),
    ("flags.engagementRanking", "flags.engagement_ranking"),
];

/// Variables that are not settings: which file to read, and what the tests need.
const NOT_SETTINGS: [&str; 2] = ["OVERDRIVE_CONFIG", "OVERDRIVE_KAFKA_JARS"];

/// Of other programs, accepted so that a shared `.env` works.
const IGNORED: [&str; 1] = ["OVERDRIVE_CLIENT_BASE_URL"];

/// Settings that are a secret as a whole: those of the type [`Secret`](crate::model::Secret).
const SECRETS: [&str; 2] = ["cluster.secret", "kafka.password"];

/// A value and its origin, by `section.key`.
type Settings = BTreeMap<String, (Value, Origin)>;

/// A key of the file and what stands behind it, each with its place.
type Entry<'t, 'i> = (&'t toml::Spanned<toml::de::DeString<'i>>, &'t toml::Spanned<toml::de::DeValue<'i>>);

/// All settings before they are checked.
#[derive(Clone)]
pub struct Layers {
    settings: Settings,
    /// What a user should know, and nothing is wrong.
    pub notes: Vec<String>,
}

impl Layers {
    /// The embedded file alone.
    pub fn defaults() -> Self {
        static PARSED: LazyLock<Layers> = LazyLock::new(Layers::parse_defaults);
        PARSED.clone()
    }

    fn parse_defaults() -> Self {
        let table: toml::Table = DEFAULTS.parse().expect("a test parses the embedded overdrive.toml");
        let mut settings = Settings::new();
        for (section, keys) in table {
            let Value::Table(keys) = keys else { unreachable!("a test finds every default in a section") };
            settings.extend(keys.into_iter().map(|(key, value)| (format!("{section}.{key}"), (value, Origin::Default))));
        }
        Self { settings, notes: Vec::new() }
    }

    /// The defaults, a file and the environment. Fails with every unknown key and every value of a wrong type.
    pub fn read(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let env: BTreeMap<String, String> = env.collect();
        let mut layers = Self::defaults();
        let mut problems = Vec::new();
        let named = file.map(PathBuf::from).or_else(|| env.get("OVERDRIVE_CONFIG").filter(|p| !p.is_empty()).map(PathBuf::from));
        let here = PathBuf::from("overdrive.toml");
        if let Some(path) = named.or_else(|| here.is_file().then_some(here)) {
            layers.lay_file(&path, &mut problems)?;
        }
        layers.lay_environment(&env, &mut problems);
        if problems.is_empty() { Ok(layers) } else { Err(ConfigError { problems }) }
    }

    /// With what the command line says of settings: flag, key and value of each.
    pub fn lay_flags(mut self, flags: Vec<(&'static str, &'static str, String)>) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        for (flag, key, text) in flags {
            self.lay_text(Origin::Flag(flag.to_string()), key, &text, &mut problems);
        }
        if problems.is_empty() { Ok(self) } else { Err(ConfigError { problems }) }
    }

    /// The defaults and the text of a file.
    pub fn of_text(text: &str) -> Result<Self, ConfigError> {
        let (mut layers, mut problems) = (Self::defaults(), Vec::new());
        layers.lay_file_text(Path::new("overdrive.toml"), text, &mut problems)?;
        if problems.is_empty() { Ok(layers) } else { Err(ConfigError { problems }) }
    }

    /// The settings as the rooms take them. Fails with every value that is not allowed.
    pub fn config(&self) -> Result<Config, ConfigError> {
        let defaults = Self::defaults();
        let problems: Vec<String> = self.settings.keys().filter_map(|key| self.refused(&defaults, key)).collect();
        if !problems.is_empty() {
            return Err(ConfigError { problems });
        }
        let config = build(&self.settings).map_err(|e| ConfigError::from(format!("cannot put the settings together: {e}")))?;
        let problems: Vec<String> = rules::broken(&config, self).into_iter().map(|b| self.complaint(b)).collect();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }

    /// Where the value of `section.key` came from; `None` when there is no such key.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.settings.get(key).map(|(_, origin)| origin)
    }

    /// Every setting that is a text.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().filter_map(|(key, (value, _))| Some((key.as_str(), value.as_str()?)))
    }

    /// Whether the setting's default is spelt as a duration.
    pub(super) fn is_duration(&self, key: &str) -> bool {
        self.settings.get(key).and_then(|(value, _)| value.as_str()).is_some_and(|text| humantime::parse_duration(text).is_ok())
    }

    fn lay_file(&mut self, path: &Path, problems: &mut Vec<String>) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| format!("cannot read the configuration file {}: {e}; name another with --config", path.display()))?;
        self.lay_file_text(path, &text, problems)
    }

    fn lay_file_text(&mut self, path: &Path, text: &str, problems: &mut Vec<String>) -> Result<(), ConfigError> {
        let shown = path.display();
        // The parser's own report quotes the line, which may hold a password: only its message is passed on.
        let syntax = |e: toml::de::Error| {
            let line = e.span().map_or(1, |span| line_of(text, span.start));
            format!("{shown} line {line} is not TOML: {}", e.message().trim_end().replace('\n', ", "))
        };
        let spans = toml::de::DeTable::parse(text).map_err(syntax)?;
        let table: toml::Table = text.parse().map_err(syntax)?;
        let line = |at: std::ops::Range<usize>| line_of(text, at.start);
        for (section, keys) in in_order(spans.get_ref()) {
            let (name, here): (&str, _) = (section.get_ref(), line(section.span()));
            if let Err(unknown) = self.known_section(name) {
                problems.push(format!("unknown section `{name}` in {shown} line {here}; {unknown}"));
                continue;
            }
            let (toml::de::DeValue::Table(keys), Some(Value::Table(values))) = (keys.get_ref(), table.get(name)) else {
                problems.push(format!("`{name}` in {shown} line {here} must be a section: write [{name}]"));
                continue;
            };
            let mut already = BTreeMap::new();
            for (key, _) in in_order(keys) {
                let value = values[&**key.get_ref()].clone();
                let here = line(key.span());
                let key = format!("{name}.{}", key.get_ref());
                let ours = SPELT.iter().find(|(spelt, _)| *spelt == key).map_or(&*key, |(_, ours)| ours);
                if let Some((other, there)) = already.insert(ours.to_string(), (key.clone(), here)) {
                    problems.push(format!(
                        "`{other}` in {shown} line {there} and `{key}` in line {here} are one setting by two names; leave one of them"
                    ));
                    continue;
                }
                self.lay(ours, value, Origin::File { path: path.into(), line: here }, problems);
            }
        }
        Ok(())
    }

    fn lay_environment(&mut self, env: &BTreeMap<String, String>, problems: &mut Vec<String>) {
        for (name, key) in SHORT {
            let Some(value) = env.get(name) else { continue };
            // Compose files hand on unset variables as empty ones.
            if !value.is_empty() || name.starts_with("OVERDRIVE_") {
                let unit = if name.ends_with("_SECONDS") { "s" } else { "" };
                self.lay_variable(name, key, &format!("{value}{unit}"), problems);
            }
        }
        for (name, value) in env {
            let Some(rest) = name.strip_prefix("OVERDRIVE_") else { continue };
            if let Some((section, key)) = rest.split_once("__") {
                self.lay_variable(name, &format!("{section}.{key}").to_lowercase(), value, problems);
            } else if IGNORED.contains(&name.as_str()) {
                self.notes.push(format!("the environment variable {name} is for clients; the engine does not use it"));
            } else if !is_known(name) {
                problems.push(self.unknown_variable(name));
            }
        }
    }

    fn lay_variable(&mut self, name: &str, key: &str, text: &str, problems: &mut Vec<String>) {
        if !self.settings.contains_key(key) {
            return problems.push(self.unknown_variable(name));
        }
        self.lay_text(Origin::Variable(name.to_string()), key, text, problems);
    }

    fn lay_text(&mut self, origin: Origin, key: &str, text: &str, problems: &mut Vec<String>) {
        // The default's type decides what the text means; what does not fit stays text and is refused as such.
        let value = match self.settings.get(key) {
            Some((Value::Integer(_), _)) => text.trim().parse().map(Value::Integer).ok(),
            Some((Value::Float(_), _)) => text.trim().parse().map(Value::Float).ok(),
            Some((Value::Boolean(_), _)) => text.trim().parse().map(Value::Boolean).ok(),
            Some((Value::Array(_), _)) => format!("list = {text}").parse().ok().and_then(|mut of: toml::Table| of.remove("list")),
            _ => None,
        };
        self.lay(key, value.unwrap_or_else(|| Value::String(text.to_string())), origin, problems);
    }

    fn lay(&mut self, key: &str, value: Value, origin: Origin, problems: &mut Vec<String>) {
        let Some((default, _)) = self.settings.get(key) else {
            return problems.push(format!("unknown key `{key}` in {origin}; {}", self.nearest_key(key)));
        };
        match typed(default, value) {
            Ok(value) => _ = self.settings.insert(key.to_string(), (value, origin)),
            Err(value) => problems.push(format!("`{key}` = {} in {origin}: must be {}", spelt(key, &value), type_name(default))),
        }
    }

    /// Why the value of one key is not of its setting's type, if so: the key alone is laid over the defaults and read.
    fn refused(&self, defaults: &Self, key: &str) -> Option<String> {
        let (value, origin) = &self.settings[key];
        if *origin == Origin::Default {
            return None;
        }
        let mut alone = defaults.settings.clone();
        alone.insert(key.to_string(), (value.clone(), origin.clone()));
        let error = build(&alone).err()?;
        // The reader names its own type for a number that does not fit; a person wants the range.
        let allowed = match error.message().trim_end() {
            unknown if unknown.starts_with("unknown field `") => unknown_field(unknown),
            outside if !value.is_integer() => outside.to_string(),
            outside if outside.ends_with("u16") => "must be 0 to 65535".to_string(),
            outside if outside.ends_with("u32") => "must be 0 to 4294967295".to_string(),
            _ => "must be 0 or more".to_string(),
        };
        Some(format!("`{key}` = {} in {origin}: {allowed}", spelt(key, value)))
    }

    /// "`a.b` = 3 (the default), `a.c` = 2 (overdrive.toml line 7): must be …"
    fn complaint(&self, broken: rules::Broken) -> String {
        let values = broken.keys.iter().map(|key| {
            let (value, origin) = &self.settings[key];
            format!("`{key}` = {} ({origin})", spelt(key, value))
        });
        format!("{}: {}", values.collect::<Vec<_>>().join(", "), broken.allowed)
    }

    fn known_section(&self, name: &str) -> Result<(), String> {
        let mut sections: Vec<&str> = self.settings.keys().map(|key| section_of(key)).collect();
        sections.dedup();
        if sections.contains(&name) {
            return Ok(());
        }
        // A key that stands before any section is the likelier mistake when its name is exactly that of a setting.
        let stray = self.settings.keys().find(|key| key.split_once('.').is_some_and(|(_, last)| last == name));
        Err(match stray {
            Some(key) => format!("did you mean `{key}`?"),
            None => nearest(name, sections.iter().copied()).map_or_else(
                || format!("the sections are {}", sections.join(", ")),
                |section| format!("did you mean `{section}`?"),
            ),
        })
    }

    fn nearest_key(&self, key: &str) -> String {
        match nearest(key, self.settings.keys().map(String::as_str)) {
            Some(known) => format!("did you mean `{known}`?"),
            None => {
                let section = section_of(key);
                let of: Vec<&str> = self.settings.keys().filter(|k| section_of(k) == section).map(|k| last_of(k)).collect();
                format!("[{section}] has {}", of.join(", "))
            }
        }
    }

    fn unknown_variable(&self, name: &str) -> String {
        if name == "OVERDRIVE_PORT" || name == "OVERDRIVE_SERVICE_HOST" || name.starts_with("OVERDRIVE_PORT_") {
            return format!(
                "unknown environment variable {name}: Kubernetes sets it for a service called overdrive; set enableServiceLinks: \
                 false in the pod, or its OVERDRIVE_SERVICE_PORT would be taken for service.port"
            );
        }
        let settings: Vec<String> = self.settings.keys().map(|key| variable(key)).collect();
        let names = settings.iter().map(String::as_str).chain(SHORT.map(|(name, _)| name)).chain(NOT_SETTINGS);
        let hint = nearest(name, names).map_or_else(
            || "`overdrive config print --env` lists them all".to_string(),
            |known| format!("did you mean {known}?"),
        );
        format!("unknown environment variable {name}; {hint}")
    }
}

/// The environment's name of a setting: `OVERDRIVE_ENGINE__WORKERS` for `engine.workers`.
pub fn variable(key: &str) -> String {
    format!("OVERDRIVE_{}", key.replacen('.', "__", 1).to_uppercase())
}

fn is_known(name: &str) -> bool {
    NOT_SETTINGS.contains(&name) || name.starts_with("OVERDRIVE_TEST_") || SHORT.iter().any(|(short, _)| *short == name)
}

/// The values as the sections they stand in, read by the rooms.
fn build(settings: &Settings) -> Result<Config, toml::de::Error> {
    let mut table = toml::Table::new();
    for (key, (value, _)) in settings {
        let section = table.entry(section_of(key)).or_insert_with(|| Value::Table(toml::Table::new()));
        section.as_table_mut().expect("made a table one line above").insert(last_of(key).to_string(), value.clone());
    }
    table.try_into()
}

/// `value` as the type of `default`; a whole number is a number with a fraction too.
fn typed(default: &Value, value: Value) -> Result<Value, Value> {
    match (default, value) {
        (Value::Float(_), Value::Integer(whole)) => Ok(Value::Float(whole as f64)),
        (default, value) if default.same_type(&value) => Ok(value),
        (_, value) => Err(value),
    }
}

fn type_name(default: &Value) -> &'static str {
    match default {
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list",
        _ => "text in quotes",
    }
}

/// A value as a complaint shows it.
fn spelt(key: &str, value: &Value) -> String {
    match value {
        Value::String(text) if key == "redis.url" => format!("\"{}\"", redacted(text)),
        Value::String(text) if text.is_empty() => "\"\"".to_string(),
        _ if SECRETS.contains(&key) || key == "redis.url" => "\"***\"".to_string(),
        value => without_users(value).to_string(),
    }
}

/// The same without the ids of users that stand in it: complaints are logged.
fn without_users(value: &Value) -> Value {
    let of = |(key, value): (&String, &Value)| match value {
        Value::Array(ids) if key == "users" => (key.clone(), Value::String(format!("{} ids", ids.len()))),
        value => (key.clone(), without_users(value)),
    };
    match value {
        Value::Array(values) => Value::Array(values.iter().map(without_users).collect()),
        Value::Table(table) => Value::Table(table.iter().map(of).collect()),
        value => value.clone(),
    }
}

/// The known name with the fewest edits, if it is near enough to be what was meant.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|k| (strsim::damerau_levenshtein(name, k), k)).min()?;
    (near.0 <= 1 + name.len() / 6).then_some(near.1)
}

/// What the reader says of a key it does not know, "unknown field `a`, expected one of `b`, `c`", with the one that was meant.
fn unknown_field(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (Some(unknown), known) = (quoted.next(), quoted) else { return message.to_string() };
    match nearest(unknown, known) {
        Some(known) => format!("unknown field `{unknown}`; did you mean `{known}`?"),
        None => message.to_string(),
    }
}

fn section_of(key: &str) -> &str {
    key.split_once('.').map_or(key, |(section, _)| section)
}

fn last_of(key: &str) -> &str {
    key.split_once('.').map_or(key, |(_, last)| last)
}

/// The entries of a table as they stand in the file.
fn in_order<'t, 'i>(table: &'t toml::de::DeTable<'i>) -> Vec<Entry<'t, 'i>> {
    let mut entries: Vec<Entry> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// The line of a byte, counted from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1
}
