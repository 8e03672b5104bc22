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
use super::input::Input;
use super::process::{Decoding, Gathered, Settings, balance};

/// The keys that are left, less what tells runs apart, and the accounts of all epochs, summed.
pub fn undisturbed(settings: &Settings, input: &Input, bindings: &[Binding]) -> (BTreeMap<String, Dumped>, Account) {
    let (names, memory) = (Arc::new(Names::default()), Memory::new("od:"));
    let params =
        writer::Params { generation: 1, max_dirty_keys: 1000, retry_max: settings.config.redis.retry_max, left: Left::default() };
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

/// Temporary.
pub fn explain(settings: &Settings, input: &Input, bindings: &[Binding]) {
    use super::crew::Said;
    use overdrive::model::{Handed, Saved};
    let run = |from: usize, workers: usize, restored: &Restored| {
        let names = Arc::new(Names::default());
        let decoding = Decoding::new(&names);
        for binding in bindings {
            input.bound(binding).into_iter().for_each(|r| drop(decoding.row(r)));
        }
        let mut crew = Crew::new(workers, settings.params(), restored);
        let mut gathered = Gathered::default();
        let mut changes_by = BTreeMap::new();
        let mut kept_by: BTreeMap<u64, BTreeMap<String, Vec<Saved>>> = BTreeMap::new();
        for binding in &bindings[from..] {
            let rows: Vec<_> = input.bound(binding).into_iter().map(|record| decoding.row(record)).collect();
            gathered.bound(binding.clone());
            for w in 0..workers {
                let mine = rows.iter().filter(|row| row.origin.partition as usize % workers == w).cloned().collect();
                crew.give(w, (binding.epoch, mine));
            }
            let (binding, changes, kept) = loop {
                for w in 0..workers {
                    crew.step(w, true);
                }
                crew.said().into_iter().for_each(|said: Said| gathered.hear(said));
                if let Some(complete) = gathered.next(workers, Some(u64::MAX)) {
                    break complete;
                }
            };
            let mut text: Vec<String> = changes.iter().map(|c| format!("{c:?}")).collect();
            text.sort();
            changes_by.insert(binding.epoch.number, text);
            for part in kept.into_iter().map(Handed::write) {
                kept_by.entry(binding.epoch.number).or_default().entry(part.uid).or_default().extend(part.entries);
            }
        }
        (changes_by, kept_by)
    };
    for first in 1..=3 {
        let (whole, kept) = run(0, first, &Restored::default());
        for (epoch, kept) in kept {
            for workers in 1..=3 {
                let (again, _) = run(epoch as usize + 1, workers, &Arc::new(kept.clone()));
                for (number, said) in &again {
                    if *said != whole[number] {
                        eprintln!(
                            "saved at {epoch} by {first}, resumed with {workers}: epoch {number} differs: {:?}",
                            bindings[*number as usize]
                        );
                        for line in said.iter().filter(|l| !whole[number].contains(l)) {
                            eprintln!("  resumed says {line:.600}");
                        }
                        for line in whole[number].iter().filter(|l| !said.contains(l)) {
                            eprintln!("  undisturbed says {line:.600}");
                        }
                        break;
                    }
                }
            }
        }
    }
}
