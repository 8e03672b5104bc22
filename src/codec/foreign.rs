//! Metarank's events, which name their fields unlike anybody else: `interaction` is an event, `item` and `user` update the
//! catalogue. A `ranking` is many impressions in one record and is refused with that advice.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::text::{Loose, Moment, Text, shown};
use super::{Limits, event, item, json, user};
use crate::model::time::Millis;
use crate::model::{Input, Names};

#[derive(Deserialize)]
struct Metarank<'a> {
    #[serde(borrow)]
    event: Text<'a>,
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    timestamp: Option<Moment<'a>>,
    #[serde(borrow, default)]
    user: Option<Text<'a>>,
    #[serde(borrow, default)]
    item: Option<Text<'a>>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(default)]
    fields: Vec<Field>,
}

#[derive(Deserialize)]
struct Field {
    name: String,
    value: Value,
}

/// Whether a field `event` says so.
pub(super) fn is_metarank(event: &Loose) -> bool {
    matches!(event.0.as_deref(), Some("interaction" | "item" | "user" | "ranking"))
}

/// One of Metarank's events, on any topic.
pub(super) fn metarank(text: &str, names: &Names, limits: Limits, accepted_ms: Millis) -> Result<Input, String> {
    let sent: Metarank = json::read(text)?;
    match &*sent.event.0 {
        "item" => {
            let fields = catalogue(sent.fields, "item_id", sent.item);
            item::input(read("item", &fields)?, None, names, limits)
        }
        "user" => {
            let fields = catalogue(sent.fields, "user_id", sent.user);
            user::input(read("user", &fields)?, None, names, limits)
        }
        "interaction" => {
            let Metarank { id: event_id, kind, user: user_id, item: item_id, timestamp, .. } = sent;
            let raw = event::Raw { event_id, kind, user_id, item_id, timestamp, ..Default::default() };
            raw.check(limits, accepted_ms)?.intern(names).map(Input::Event)
        }
        other => Err(format!("metarank event `{}` is not read; send each item shown as an `impression`", shown(other))),
    }
}

/// Metarank's `[{name, value}]` as an object of ours; a name that means nothing to us is passed over later.
fn catalogue(fields: Vec<Field>, id_field: &str, id: Option<Text>) -> Value {
    let mut object: Map<String, Value> = fields.into_iter().map(|f| (f.name, f.value)).collect();
    if let Some(id) = id {
        object.insert(id_field.into(), Value::String(id.0.into_owned()));
    }
    Value::Object(object)
}

fn read<'v, T: Deserialize<'v>>(what: &str, fields: &'v Value) -> Result<T, String> {
    T::deserialize(fields).map_err(|e| format!("the fields of a metarank {what}: {e}"))
}
