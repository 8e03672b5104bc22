//! The catalogue's changes: of several in one epoch the last one counts, by place in the log.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;

use crate::model::catalogue::Item;
use crate::model::{Epoch, ItemId, Origin};
use crate::operators::{PerEpoch, Route};

/// What one record of the items topic says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said {
    pub origin: Origin,
    pub item: ItemId,
    pub facts: Option<Arc<Item>>,
}

/// An item as it is from now on; `None`: withdrawn.
pub type Change = (ItemId, Option<Arc<Item>>);

/// The stage: what the items topic says, at most one change per item and epoch out.
pub fn catalogue<'scope>(
    said: StreamVec<'scope, u64, Said>,
    clock: StreamVec<'scope, u64, Epoch>,
) -> StreamVec<'scope, u64, Change> {
    said.route(|said| said.item.0).per_epoch(clock, Pipeline, "Catalogue", |_epoch, rows, out: &mut Vec<Change>| {
        rows.sort_by_key(|said| said.origin);
        out.extend(rows.drain(..).map(|said| (said.item, said.facts)).collect::<BTreeMap<_, _>>());
    })
}
