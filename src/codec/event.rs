//! One interaction, whatever form it came in: [`Raw`] as sent, [`Event`] as counted. An event without an id of its own gets one
//! from what it says, so that a producer's retry is recognised.

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::text::{Loose, Moment, Text, Unit, millis, required, shown, word};
use super::{Limits, kinds};
use crate::model::interaction::Op;
use crate::model::time::Millis;
use crate::model::{Event, Kind, Names};

/// Largest magnitude of a value: in thousandths it fits an `i32`.
const MAX_VALUE: f64 = 1e6;

/// An interaction as it was sent: our own fields, then what the seeds (S1 `/signals/process`, S2 `/feedback`, S4's table) and
/// Gorse call the same. Where both are there, ours counts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Raw<'a> {
    #[serde(borrow)]
    pub(super) event_id: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) user_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) item_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) ts: Option<Moment<'a>>,
    pub(super) value: Option<f64>,
    #[serde(borrow)]
    pub(super) op: Option<Text<'a>>,

    #[serde(borrow, alias = "event_type", alias = "FeedbackType")]
    pub(super) signal_type: Option<Text<'a>>,
    #[serde(borrow, rename = "UserId")]
    pub(super) gorse_user: Option<Text<'a>>,
    #[serde(borrow, alias = "stream_id", alias = "post_id", alias = "ItemId")]
    pub(super) content_id: Option<Text<'a>>,
    #[serde(borrow, alias = "Timestamp")]
    pub(super) timestamp: Option<Moment<'a>>,
    #[serde(alias = "watch_time")]
    pub(super) duration: Option<f64>,
    pub(super) rating: Option<f64>,
    #[serde(alias = "Value")]
    pub(super) intensity: Option<f64>,
    /// Metarank's discriminator.
    #[serde(borrow)]
    pub(super) event: Loose<'a>,
}

/// An interaction that may be counted; nothing is interned yet.
pub(super) struct Checked<'r> {
    event_id: Option<&'r str>,
    user: &'r str,
    item: &'r str,
    kind: Kind,
    op: Op,
    at: Millis,
    value_milli: Option<i32>,
}

impl Raw<'_> {
    /// Whether this is one of Metarank's events: those name the user `user`.
    pub(super) fn is_metarank(&self) -> bool {
        self.user_id.is_none() && super::foreign::is_metarank(&self.event)
    }

    /// Every rule of the contract, in the order of its fields.
    pub(super) fn check(&self, limits: Limits, accepted_ms: Millis) -> Result<Checked<'_>, String> {
        let kind = self.kind()?;
        Ok(Checked {
            event_id: self.event_id.as_ref().map(|id| word("event_id", id, limits)).transpose()?,
            user: required("user_id", self.user_id.as_ref().or(self.gorse_user.as_ref()), limits)?,
            item: required("item_id", self.item_id.as_ref().or(self.content_id.as_ref()), limits)?,
            kind,
            op: self.op()?,
            at: self.at(accepted_ms)?,
            value_milli: self.value(kind).map(|(field, value)| milli(field, value)).transpose()?,
        })
    }

    /// A record that names no type is a rating if it has one, else time spent if it says how much.
    fn kind(&self) -> Result<Kind, String> {
        match self.kind.as_ref().or(self.signal_type.as_ref()) {
            Some(name) => kinds::kind(&name.0),
            None if self.rating.is_some() => Ok(Kind::Rating),
            None if self.duration.is_some() => Ok(Kind::Dwell),
            None => Err(format!("`type` is missing; send one of {}", kinds::known())),
        }
    }

    fn op(&self) -> Result<Op, String> {
        match self.op.as_ref().map(|op| &*op.0) {
            None | Some("add") => Ok(Op::Add),
            Some("undo") => Ok(Op::Undo),
            Some(op @ ("forget" | "revoke")) => Err(format!("op `{op}` on the events topic; send it to the control topic")),
            Some(op) => Err(format!("unknown op `{}`; known: add, undo", shown(op))),
        }
    }

    fn at(&self, accepted_ms: Millis) -> Result<Millis, String> {
        match (&self.ts, &self.timestamp) {
            (Some(ts), _) => millis("ts", ts, Unit::Millis),
            (None, Some(timestamp)) => millis("timestamp", timestamp, Unit::MillisOrSeconds),
            (None, None) if accepted_ms >= 0 => Ok(accepted_ms),
            (None, None) => Err("`ts` is missing and the log recorded no time; send `ts`".into()),
        }
    }

    /// The number that belongs to the kind: stars of a rating; seconds where time was spent; a ratio or an intensity otherwise.
    fn value(&self, kind: Kind) -> Option<(&'static str, f64)> {
        let (stars, seconds) = (self.rating.map(|v| ("rating", v)), self.duration.map(|v| ("duration", v)));
        let named = match kind {
            Kind::Rating => stars,
            Kind::View | Kind::Dwell | Kind::Click | Kind::Scroll | Kind::Impression => seconds,
            _ => None,
        };
        self.value.map(|v| ("value", v)).or(named).or(self.intensity.map(|v| ("intensity", v)))
    }
}

impl Checked<'_> {
    /// The event, its names remembered.
    pub(super) fn intern(self, names: &Names) -> Result<Event, String> {
        let user = names.user(self.user).map_err(|e| e.to_string())?;
        let item = names.item(self.item).map_err(|e| e.to_string())?;
        let id = match self.event_id {
            Some(id) => xxh3_64(id.as_bytes()),
            None => derived_id(user.0, item.0, self.kind, self.op, self.at),
        };
        Ok(Event { id, user, item, kind: self.kind, op: self.op, at: self.at, value_milli: self.value_milli })
    }
}

/// The id of an event that brought none: (user, type, item, ts), and whether it is an undo, or an undo of the same millisecond
/// would be dropped as a duplicate of what it takes back.
fn derived_id(user: u64, item: u64, kind: Kind, op: Op, at: Millis) -> u64 {
    let mut bytes = [0; 26];
    bytes[..8].copy_from_slice(&user.to_le_bytes());
    bytes[8..16].copy_from_slice(&item.to_le_bytes());
    bytes[16..24].copy_from_slice(&at.to_le_bytes());
    bytes[24] = kind as u8;
    bytes[25] = op as u8;
    xxh3_64(&bytes)
}

fn milli(field: &str, value: f64) -> Result<i32, String> {
    if value.abs() <= MAX_VALUE {
        Ok((value * 1000.0).round() as i32)
    } else {
        Err(format!("`{field}` is {value}; send a finite number from -1e6 to 1e6"))
    }
}
