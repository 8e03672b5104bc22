//! `overdrive doctor`: what this machine and the servers have and lack, and what to do about it. It changes nothing, and only
//! what the settings ask for can fail.

use std::fmt::Write;

use super::say;
use crate::config::Config;

mod encoders;
mod machine;
mod servers;

/// Arguments of `overdrive doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only ask http://HOST:PORT/PATH and succeed when it answers 200: a health check without curl
    #[arg(long, value_name = "HOST:PORT/PATH")]
    ask: Option<String>,
}

/// Checks everything and prints a table, or asks one address.
pub fn run(args: Args, config: &Config) -> Result<(), String> {
    if let Some(address) = args.ask {
        return machine::ask(&address);
    }
    let opened = [machine::findings(config), servers::findings(config), encoders::findings(config)].concat();
    let findings: Vec<Finding> = opened.into_iter().chain(servers::device()).collect();
    say(&table(&findings))?;
    match findings.iter().filter(|finding| finding.mark == Mark::Bad).count() {
        0 => Ok(()),
        bad => Err(format!("{bad} of {} checks failed", findings.len())),
    }
}

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Good,
    /// The settings ask for it and it is not there.
    Bad,
    /// Not asked for, or it works and could be better.
    Note,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    mark: Mark,
    what: &'static str,
    found: String,
    /// What to do; empty when there is nothing to do.
    advice: String,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { mark: Mark::Good, what, found: found.into(), advice: String::new() }
    }

    fn bad(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { mark: Mark::Bad, what, found: found.into(), advice: advice.into() }
    }

    fn note(what: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { mark: Mark::Note, what, found: found.into(), advice: advice.into() }
    }
}

fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { mark, what, found, advice } in findings {
        let mark = match mark {
            Mark::Good => '✓',
            Mark::Bad => '✗',
            Mark::Note => '–',
        };
        writeln!(text, "{mark} {what:width$}  {found}").expect("a string takes everything");
        if !advice.is_empty() {
            writeln!(text, "  {:width$}  → {advice}", "").expect("a string takes everything");
        }
    }
    text
}
