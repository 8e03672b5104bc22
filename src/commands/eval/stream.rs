//! A recorded stream as the protocol sees it: which rows count, which are tested, and which belong together.
//!
//! What must stay true: whether a row is tested depends on the rows before it alone.

use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::{Decoder, Limits};
use crate::model::{Event, Input, ItemId, Names, UserId};
use crate::sources::file::FileSource;
use crate::sources::{Record, Role, Source};

/// One row that counts.
#[derive(Clone, Debug)]
pub struct Row {
    pub event: Event,
    /// The first of its user and item, and of a kind that is tested.
    pub tested: bool,
    /// Rows of its kind are tested, where they are the first of their user and item.
    pub kind_is_tested: bool,
    /// Its user stood in no row before.
    pub new_user: bool,
}

/// A recorded stream.
#[derive(Clone, Default)]
pub struct Stream {
    pub described: Vec<Input>,
    pub rows: Vec<Row>,
    /// Where each group begins, and at the end the number of rows: runs of one user with one timestamp.
    pub groups: Vec<usize>,
    /// How ids are spelt.
    pub names: Arc<Names>,
}

/// What the protocol needs of a row beside the event.
#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "type")]
    kind: String,
    value: Option<f64>,
    session_id: Option<serde_json::Value>,
}

/// By whose rules a stream is read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rules {
    /// Values from here on.
    Value(f64),
    /// Purchases, one per user, item and session.
    Baskets,
    Likes,
    /// Everything counts; views are tested.
    Views,
    Everything,
}

impl Rules {
    fn of(name: &str) -> Self {
        match name {
            _ if name.starts_with("ml-") => Self::Value(4.0),
            _ if name.starts_with("movietweetings") => Self::Value(7.0),
            _ if name.starts_with("online-retail") => Self::Baskets,
            _ if name.starts_with("kuairand") => Self::Likes,
            _ if name.starts_with("synth") => Self::Views,
            _ => Self::Everything,
        }
    }

    fn counts(self, raw: &Raw, event: &Event, baskets: &mut BTreeSet<(UserId, ItemId, String)>) -> bool {
        match self {
            Self::Value(least) => raw.value.is_some_and(|value| value >= least),
            Self::Baskets => {
                let session = raw.session_id.as_ref().map(ToString::to_string).unwrap_or_default();
                event.op == crate::model::Op::Add && raw.kind == "purchase" && baskets.insert((event.user, event.item, session))
            }
            Self::Likes => raw.kind == "like",
            Self::Views | Self::Everything => event.op == crate::model::Op::Add,
        }
    }
}

impl Stream {
    /// Reads a folder by the rules of the data set `name`, at most `limit` rows of it, with or without what describes items and users.
    pub fn read(folder: &Path, name: &str, limit: Option<usize>, described: bool) -> Result<Self, String> {
        let rules = Rules::of(name);
        let mut source = FileSource::open(folder).map_err(|e| e.to_string())?;
        let (mut stream, mut baskets, mut records) = (Self::default(), BTreeSet::new(), Vec::new());
        let decoder = Decoder::new(stream.names.clone(), Limits::PUBLISHED);
        let mut events = Vec::new();
        while !source.ended() && limit.is_none_or(|limit| events.len() < limit) {
            source.poll(4096, Duration::ZERO, &mut records).map_err(|e| e.to_string())?;
            for record in records.drain(..) {
                let at = format!("{}: record {}", folder.display(), record.offset);
                let Some((raw, input)) = decoded(&decoder, &record).map_err(|e| format!("{at}: {e}"))? else { continue };
                match (raw, input) {
                    (Some(raw), Input::Event(event)) if rules.counts(&raw, &event, &mut baskets) => {
                        events.push((event, rules != Rules::Views || raw.kind == "view"));
                    }
                    (None, input) if described => stream.described.push(input),
                    _ => {}
                }
            }
        }
        events.truncate(limit.unwrap_or(usize::MAX));
        stream.lay_out(events);
        Ok(stream)
    }

    /// Puts events in their groups; each comes with whether its kind is tested.
    pub fn lay_out(&mut self, events: Vec<(Event, bool)>) {
        let (mut pairs, mut users) = (BTreeSet::new(), BTreeSet::new());
        for (event, kind_is_tested) in events {
            let starts = self.rows.last().is_none_or(|last| (last.event.user, last.event.at) != (event.user, event.at));
            self.groups.extend(starts.then_some(self.rows.len()));
            let tested = pairs.insert((event.user, event.item)) && kind_is_tested;
            let new_user = users.insert(event.user);
            self.rows.push(Row { event, tested, kind_is_tested, new_user });
        }
        self.groups.push(self.rows.len());
    }

    /// The rows of each group, in order, with the number of the first.
    pub fn grouped(&self) -> impl Iterator<Item = (usize, &[Row])> {
        self.groups.windows(2).map(|ends| (ends[0], &self.rows[ends[0]..ends[1]]))
    }
}

/// What a record says; `None` for an order.
fn decoded(decoder: &Decoder, record: &Record) -> Result<Option<(Option<Raw>, Input)>, String> {
    let raw = match (record.role, &record.payload) {
        (Role::Events, Some(payload)) => Some(serde_json::from_slice(payload).map_err(|e| e.to_string())?),
        (Role::Control, _) => return Ok(None),
        _ => None,
    };
    let input = decoder.decode(record.role, record.key.as_deref(), record.payload.as_deref(), record.accepted_ms)?;
    Ok(Some((raw, input)))
}
