//! The catalogue's changes: of several in one epoch the last one counts, by place in the log. Every worker hears all of them: the next
//! stages look items up wherever they are, and so need not wait for one more exchange.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::dataflow::StreamVec;

use crate::model::catalogue::Item;
use crate::model::{Epoch, ItemId, Origin};
use crate::operators::{Clock, Durable, Route, Saver, Vault};

/// What one record of the items topic says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said {
    pub origin: Origin,
    pub item: ItemId,
    pub facts: Option<Arc<Item>>,
}

/// An item as it is from now on; `None`: withdrawn.
pub type Change = (ItemId, Option<Arc<Item>>);

/// The stage: what the items topic says, at most one change per item and epoch out, on every worker.
pub fn catalogue<'scope>(said: StreamVec<'scope, u64, Said>, clock: &Clock, vault: &Vault) -> StreamVec<'scope, u64, Change> {
    said.to_all().keep(clock, Withheld::default(), vault, Withheld::step)
}

/// The items that are not to be shown, withdrawn or not available: what is said once more where it was lost.
#[derive(Default)]
pub(super) struct Withheld(BTreeMap<ItemId, Option<Arc<Item>>>);

impl Withheld {
    fn step(&mut self, epoch: &Epoch, rows: &mut Vec<Said>, out: &mut Vec<Change>) {
        rows.sort_by_key(|said| said.origin);
        let again = self.0.iter().filter(|(item, _)| epoch.retells(item.0)).map(|(item, facts)| (*item, facts.clone()));
        let mut changes: BTreeMap<ItemId, Option<Arc<Item>>> = again.collect();
        changes.extend(rows.drain(..).map(|said| (said.item, said.facts)));
        for (item, facts) in &changes {
            if facts.as_ref().is_some_and(|f| f.available) {
                self.0.remove(item);
            } else {
                self.0.insert(*item, facts.clone());
            }
        }
        out.extend(changes);
    }
}

impl Durable for Withheld {
    const UID: &'static str = "catalogue/2";

    fn save(&self, into: &mut Saver) {
        for (item, facts) in self.0.clone() {
            into.shared(0, item.0, move || (item, facts));
        }
    }

    fn load(&mut self, _tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        let (item, facts) = postcard::from_bytes(body)?;
        self.0.insert(item, facts);
        Ok(())
    }
}
