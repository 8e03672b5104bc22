//! What an undisturbed run leaves: one worker over the same bindings, and everything written at once.

use overdrive::model::changes::Account;
use overdrive::model::{Binding, Change, Names};
use overdrive::sinks::Completed;
use overdrive::sinks::memory::{Dumped, Memory};
use overdrive::sinks::writer::{self, Left};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::answers::less_generation;
use super::crew::{Crew, Restored};
use super::gather::{Decoding, Gathered, balance};
use super::input::Input;
use super::settings::Settings;

/// The keys that are left, less what tells runs apart, and the accounts of all epochs, summed.
pub fn undisturbed(settings: &Settings, input: &Input, bindings: &[Binding]) -> (BTreeMap<String, Dumped>, Account) {
    let (names, memory) = (Arc::new(Names::default()), Memory::new("od:"));
    let params = writer::Params {
        generation: 1,
        max_dirty_keys: 1000,
        retry_max: settings.config.redis.retry_max,
        left: Left::default(),
        repeats_until: 0,
    };
    let mut writing = settings.writing(&names, Box::new(memory.clone()), params);
    let (mut crew, mut gathered) = (Crew::new(1, settings.params(), &Restored::default()), Gathered::default());
    let (decoding, mut account) = (Decoding::new(&names), Account::default());
    for binding in bindings {
        let rows = input.bound(binding).into_iter().map(|record| decoding.row(record)).collect();
        gathered.bound(binding.clone());
        crew.give(0, (binding.epoch, rows));
        let (binding, changes, _kept) = loop {
            crew.step(0, true);
            crew.said().into_iter().for_each(|said| gathered.hear(said));
            if let Some(complete) = gathered.next(1, Some(u64::MAX)) {
                break complete;
            }
        };
        balance(&changes).expect("an undisturbed epoch adds up");
        sum(&changes, &mut account);
        writing.merge(Completed { binding, changes, accepted_ms: Vec::new(), save: None, retold: None });
    }
    while writing.behind() {
        writing.write_some().expect("memory is always there");
    }
    (less_generations(memory.dump()), account)
}

fn sum(changes: &[Change], into: &mut Account) {
    for change in changes {
        if let Change::Account(account) = change {
            into.add(account);
        }
    }
}

/// Every key less its generation.
pub fn less_generations(dump: BTreeMap<String, Dumped>) -> BTreeMap<String, Dumped> {
    dump.into_iter().map(|(key, dumped)| (key, less_generation(dumped))).collect()
}
