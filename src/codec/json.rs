//! JSON, both ways: records into borrowed structs without a detour over a tree, and events onto the wire. What [`write_event`]
//! writes, the decoder takes.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

use super::text::shown;

/// Reads one object. Only the error is slow: it is read again to name the field.
pub(super) fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|_| match explained::<T>(text) {
        (field, e) if field == "." => format!("not a JSON object of this topic: {}; send one object a record", shown_error(&e)),
        (field, e) => format!("field `{}`: {}", shown(&field), shown_error(&e)),
    })
}

fn explained<'de, T: Deserialize<'de>>(text: &'de str) -> (String, serde_json::Error) {
    let mut from = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize::<_, T>(&mut from) {
        Err(e) => (e.path().to_string(), e.into_inner()),
        Ok(_) => (".".into(), from.end().expect_err("the object was whole, so what follows it was refused")),
    }
}

/// serde's words may quote a whole string of the payload.
fn shown_error(e: &serde_json::Error) -> String {
    let said = e.to_string();
    if said.len() <= 200 { said } else { format!("{}… at line {} column {}", shown(&said), e.line(), e.column()) }
}

/// An event as producers send it. Absent fields are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WireEvent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Cow<'a, str>>,
    #[serde(rename = "type")]
    pub kind: &'a str,
    pub user_id: Cow<'a, str>,
    pub item_id: Cow<'a, str>,
    /// Milliseconds since 1970.
    pub ts: i64,
    /// Seconds, a ratio, stars: what the kind makes of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// `add` or `undo`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Cow<'a, str>>,
    /// Place in the list that was shown, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub surface: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<WireContext<'a>>,
}

/// Where and on what an event happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WireContext<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locale: Option<Cow<'a, str>>,
    /// Degrees north.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lat: Option<f64>,
    /// Degrees east.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lon: Option<f64>,
}

/// An item as its topic carries it. Absent fields are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WireItem<'a> {
    pub item_id: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author_id: Option<Cow<'a, str>>,
    pub categories: Vec<Cow<'a, str>>,
    pub tags: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Cow<'a, str>>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lat: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lon: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<Cow<'a, str>>,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<f64>,
    pub mature: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub followers: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<Cow<'a, str>>,
}

/// A user as their topic carries them. Absent fields are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WireUser<'a> {
    pub user_id: Cow<'a, str>,
    pub interests: Vec<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lat: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lon: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub city: Option<Cow<'a, str>>,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_preference: Option<f64>,
    pub allow_mature: bool,
}

/// The JSON of a wire struct.
pub fn bytes<T: Serialize>(wire: &T) -> Vec<u8> {
    let mut into = Vec::with_capacity(256);
    write(wire, &mut into);
    into
}

/// Appends the JSON of a wire struct, without a line end.
pub fn write<T: Serialize>(wire: &T, into: &mut Vec<u8>) {
    serde_json::to_writer(into, wire).expect("wire structs have string keys, and a vector takes every byte");
}

/// The JSON of an event.
pub fn event(wire: &WireEvent) -> Vec<u8> {
    bytes(wire)
}
