//! Bytes to model: every record becomes one [`Input`] or one sentence saying why not. Pure: no I/O, no clock, no panic, and the
//! same bytes give the same answer everywhere. A refused record leaves no trace in [`Names`].
//!
//! ```text
//! payload ▶ framing ─┬▶ json  (own shape, S1, S2, S4, Gorse) ─┬▶ event ───┐
//!                    │    └▶ foreign (Metarank)               ├▶ item     ├▶ Input
//!                    └▶ protobuf (schemas/events.proto) ──────┴▶ user     │
//!                                                      control ───────────┘
//! ```
//! What each form carries is read into one borrowed struct (`event::Raw`, `item::Raw`, …), and only that is checked and interned,
//! so that JSON and Protobuf cannot mean two things.

use std::sync::Arc;

use crate::model::time::Millis;
use crate::model::{Input, ItemId, Names, Role};

mod control;
mod event;
mod foreign;
mod framing;
mod item;
pub mod json;
mod kinds;
pub mod protobuf;
mod text;
mod user;

pub use kinds::{ALIASES, kind};

/// How large what is read may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest id, category, tag or language, in bytes.
    pub id_bytes: usize,
    /// Longest payload, in bytes.
    pub payload_bytes: usize,
    /// How many numbers an embedding has; 0: any number.
    pub dimensions: usize,
}

impl Limits {
    /// What `schemas/` promises: ids of 1 to 256 bytes, payloads of at most 1 MiB.
    pub const PUBLISHED: Limits = Limits { id_bytes: 256, payload_bytes: 1 << 20, dimensions: 0 };
}

/// Turns payloads into inputs. Cheap to clone; threads may share one.
#[derive(Clone)]
pub struct Decoder {
    names: Arc<Names>,
    limits: Limits,
}

/// A moment as people write it (milliseconds since 1970 or ISO 8601); `field` is named in the error.
pub fn moment(field: &str, text: &str) -> Result<Millis, String> {
    text::millis(field, &text::Moment::Written(text.into()), text::Unit::Millis)
}

impl Decoder {
    /// A decoder that remembers the spelling of every id in `names`.
    pub fn new(names: Arc<Names>, limits: Limits) -> Self {
        Self { names, limits }
    }

    /// The item that an id names. The error is a sentence, as of [`Decoder::decode`].
    pub fn item(&self, id: &str) -> Result<ItemId, String> {
        item::named(id, &self.names, self.limits)
    }

    /// The input a record stands for. `accepted_ms` is when the log took it: the event time of an event without one.
    ///
    /// Without a payload it is a deletion, on the topics of items and users. The error is a sentence: what is wrong, where, and
    /// what to do.
    pub fn decode(&self, role: Role, key: Option<&[u8]>, payload: Option<&[u8]>, accepted_ms: i64) -> Result<Input, String> {
        let Some(payload) = payload else { return self.deletion(role, key) };
        if payload.len() > self.limits.payload_bytes {
            let (size, limit) = (payload.len(), self.limits.payload_bytes);
            return Err(format!("the payload has {size} bytes; at most {limit} are allowed"));
        }
        match framing::open(payload)? {
            framing::Form::Json(bytes) => self.json(role, key, text::utf8("the payload", bytes)?, accepted_ms),
            framing::Form::Protobuf(bytes) => self.protobuf(role, key, bytes, accepted_ms),
        }
    }

    fn deletion(&self, role: Role, key: Option<&[u8]>) -> Result<Input, String> {
        let name = || key.map(|k| text::utf8("the key", k)).transpose();
        match role {
            Role::Items => item::deleted(name()?, &self.names, self.limits),
            Role::Users => user::deleted(name()?, &self.names, self.limits),
            Role::Events | Role::Control => {
                Err(format!("a record without a payload on the {} topic; only items and users can be deleted so", role.name()))
            }
        }
    }

    fn json(&self, role: Role, key: Option<&[u8]>, text: &str, accepted_ms: i64) -> Result<Input, String> {
        let (names, limits) = (&*self.names, self.limits);
        match role {
            Role::Events => match json::read::<event::Raw>(text)? {
                raw if raw.is_metarank() => foreign::metarank(text, names, limits, accepted_ms),
                raw => raw.check(limits, accepted_ms)?.intern(names).map(Input::Event),
            },
            Role::Items => match json::read::<item::Raw>(text)? {
                raw if raw.is_metarank() => foreign::metarank(text, names, limits, accepted_ms),
                raw => item::input(raw, key, names, limits),
            },
            Role::Users => match json::read::<user::Raw>(text)? {
                raw if raw.is_metarank() => foreign::metarank(text, names, limits, accepted_ms),
                raw => user::input(raw, key, names, limits),
            },
            Role::Control => control::input(json::read::<control::Raw>(text)?, names, limits),
        }
    }

    fn protobuf(&self, role: Role, key: Option<&[u8]>, bytes: &[u8], accepted_ms: i64) -> Result<Input, String> {
        let (names, limits) = (&*self.names, self.limits);
        match role {
            Role::Events => {
                let message = protobuf::read::<protobuf::Event>(bytes)?;
                event::Raw::from(&message).check(limits, accepted_ms)?.intern(names).map(Input::Event)
            }
            Role::Items => item::input((&protobuf::read::<protobuf::Item>(bytes)?).into(), key, names, limits),
            Role::Users => user::input((&protobuf::read::<protobuf::User>(bytes)?).into(), key, names, limits),
            Role::Control => control::input((&protobuf::read::<protobuf::Control>(bytes)?).into(), names, limits),
        }
    }
}
