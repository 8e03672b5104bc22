//! Records become rows on their way in, and on their way out the workers' parts of an epoch become one.

use overdrive::codec::{Decoder, Limits};
use overdrive::model::changes::Account;
use overdrive::model::{Binding, Change, Dead, Handed, Names, Origin, Row};
use overdrive::sources::Record;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::crew::Said;

/// Records become rows.
pub struct Decoding {
    decoder: Decoder,
    names: Arc<Names>,
}

impl Decoding {
    pub fn new(names: &Arc<Names>) -> Self {
        Self { decoder: Decoder::new(names.clone(), Limits::PUBLISHED), names: names.clone() }
    }

    pub fn row(&self, record: Record) -> Row {
        let Record { role, partition, offset, accepted_ms, .. } = record;
        let (key, payload) = (record.key.as_deref(), record.payload.as_deref());
        let input = self.decoder.decode(role, key, payload, accepted_ms);
        let dead = |reason| Dead { topic: role.name().into(), partition, offset, reason, sample: String::new() };
        Row { origin: Origin { role, partition, offset, accepted: accepted_ms }, input: input.map_err(dead) }
    }

    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }
}

/// What the parts of an epoch come to.
#[derive(Default)]
pub struct Gathering {
    binding: Option<Binding>,
    parts: usize,
    changes: Vec<Change>,
    kept: Vec<Handed>,
}

/// Puts the workers' parts of each epoch together.
#[derive(Default)]
pub struct Gathered(BTreeMap<u64, Gathering>);

impl Gathered {
    pub fn bound(&mut self, binding: Binding) {
        let number = binding.epoch.number;
        self.0.entry(number).or_default().binding = Some(binding);
    }

    pub fn hear(&mut self, told: Said) {
        match told {
            Said::Part(epoch, changes) => {
                let gathering = self.0.entry(epoch).or_default();
                gathering.parts += 1;
                gathering.changes.extend(changes);
            }
            Said::Kept(epoch, kept) => self.0.entry(epoch).or_default().kept.push(kept),
        }
    }

    /// The next epoch, when every worker has passed it and it is not after `durable`.
    pub fn next(&mut self, workers: usize, durable: Option<u64>) -> Option<(Binding, Vec<Change>, Vec<Handed>)> {
        let first = self.0.first_entry()?;
        let there = first.get().binding.is_some() && first.get().parts == workers && durable >= Some(*first.key());
        let Gathering { binding, mut changes, kept, .. } = there.then(|| first.remove())?;
        Account::sum_up(&mut changes);
        Some((binding?, changes, kept))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Every event has one outcome.
pub fn balance(changes: &[Change]) -> Result<(), String> {
    let accounts = changes.iter().filter_map(|change| if let Change::Account(account) = change { Some(account) } else { None });
    accounts.filter(|account| !account.balances()).try_for_each(|account| Err(format!("{account:?} does not add up")))
}
