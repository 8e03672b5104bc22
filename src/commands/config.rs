//! `overdrive config`: what the settings are. By the time it runs they are known to be valid.

use clap::Subcommand;
use std::collections::BTreeMap;
use toml::Value;

use super::say;
use crate::config::{Config, variable};

/// Arguments of `overdrive config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Read file and environment, say whether everything in them is allowed and what differs from the defaults
    Check,
    /// Print the settings as TOML, passwords as ***
    Print {
        /// Only those that differ from the defaults
        #[arg(long)]
        changed: bool,
        /// As environment variables
        #[arg(long)]
        env: bool,
    },
}

/// Checks or prints the settings.
pub fn run(args: Args, config: &Config) -> Result<(), String> {
    match args.action {
        Action::Check => say(&summary(config)),
        Action::Print { changed, env } => {
            let settings = if changed { config.changed() } else { config.settings() };
            say(&if env { as_variables(&settings) } else { as_toml(settings) })
        }
    }
}

/// "ok: 98 settings, 2 changed from the defaults: engine.workers = 4, store.kind = "redis""
fn summary(config: &Config) -> String {
    let changed: Vec<String> = config.changed().iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let list = if changed.is_empty() { String::new() } else { format!(": {}", changed.join(", ")) };
    format!("ok: {} settings, {} changed from the defaults{list}\n", config.settings().len(), changed.len())
}

fn as_toml(settings: Vec<(String, Value)>) -> String {
    let mut sections: BTreeMap<String, toml::Table> = BTreeMap::new();
    for (key, value) in settings {
        let (section, key) = key.split_once('.').expect("settings are spelt section.key");
        sections.entry(section.to_string()).or_default().insert(key.to_string(), value);
    }
    toml::to_string(&sections).expect("sections of plain values are TOML")
}

/// `NAME='value'`, as a shell and a compose file's `.env` read it.
fn as_variables(settings: &[(String, Value)]) -> String {
    let line = |(key, value): &(String, Value)| match value {
        Value::String(text) => format!("{}='{}'\n", variable(key), text.replace('\'', r"'\''")),
        value => format!("{}={value}\n", variable(key)),
    };
    settings.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Config {
        let env = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Config::load(None, env).expect("allowed values")
    }

    #[test]
    fn check_names_what_changed() {
        assert!(summary(&Config::defaults()).ends_with("0 changed from the defaults\n"));
        let text = summary(&with(&[("OVERDRIVE_ENGINE__WORKERS", "4"), ("OVERDRIVE_LEDGER__LATENESS", "60m")]));
        assert!(text.ends_with("2 changed from the defaults: engine.workers = 4, ledger.lateness = \"1h\"\n"), "{text}");
    }

    #[test]
    fn the_same_duration_in_other_words_is_no_change() {
        assert_eq!(with(&[("OVERDRIVE_LEDGER__LATENESS", "1day")]).changed(), vec![]);
    }

    #[test]
    fn what_is_printed_is_read_back_as_the_same() {
        let config = with(&[("OVERDRIVE_STORE__PREFIX", "it's:"), ("OVERDRIVE_WEIGHTS__LIKE", "3"), ("SERVICE_PORT", "9000")]);
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), as_toml(config.settings())).expect("writable");
        assert_eq!(Config::load(Some(file.path()), std::iter::empty()), Ok(config.clone()));
        std::fs::write(file.path(), as_toml(config.changed())).expect("writable");
        assert_eq!(Config::load(Some(file.path()), std::iter::empty()), Ok(config.clone()));
        assert_eq!(
            as_variables(&config.changed()),
            "OVERDRIVE_SERVICE__PORT=9000\nOVERDRIVE_STORE__PREFIX='it'\\''s:'\nOVERDRIVE_WEIGHTS__LIKE=3.0\n"
        );
    }
}
