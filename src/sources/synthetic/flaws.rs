//! The ways in which a record is broken on purpose. Each must be refused by the decoder, and none contains a line end, so that a
//! file of lines can carry it.

use serde_json::{Value, json};

use crate::codec::json::{WireEvent, bytes};

type Break = fn(&WireEvent) -> Vec<u8>;

/// Every sort, by what is wrong.
pub const FLAWS: [(&str, Break); 18] = [
    ("cut off", |e| bytes(e).split_last_chunk::<20>().expect("an event is longer").0.to_vec()),
    ("not UTF-8", |e| {
        [&br#"{"type":"view","user_id":"u"#[..], b"\xff\xfe", br#"","item_id":"#, e.item_id.as_bytes(), b"}"].concat()
    }),
    ("no user", |e| without(e, "user_id")),
    ("no item", |e| without(e, "item_id")),
    ("no type", |e| without(e, "type")),
    ("unknown type", |e| with(e, "type", json!("stare"))),
    ("time in seconds", |e| with(e, "ts", json!(e.ts / 1000))),
    ("time in words", |e| with(e, "ts", json!("yesterday"))),
    ("time out of range", |e| with(e, "ts", json!(-1))),
    ("user is an object", |e| with(e, "user_id", json!({"id": e.user_id}))),
    ("user is empty", |e| with(e, "user_id", json!(""))),
    ("user has a control character", |e| with(e, "user_id", json!(format!("{}\u{7}", e.user_id)))),
    ("item is too long", |e| with(e, "item_id", json!("x".repeat(257)))),
    ("value is text", |e| with(e, "value", json!("much"))),
    ("value is too large", |e| with(e, "value", json!(1e9))),
    ("unknown op", |e| with(e, "op", json!("redo"))),
    ("a list", |e| [b"[", bytes(e).as_slice(), b"]"].concat()),
    ("noise", |e| vec![0xff; 12 + e.ts.rem_euclid(20) as usize]),
];

/// An event broken in one of the ways.
pub(super) fn broken(flaw: u8, event: &WireEvent) -> Vec<u8> {
    FLAWS[flaw as usize].1(event)
}

fn object(event: &WireEvent) -> Value {
    serde_json::to_value(event).expect("wire structs have string keys")
}

fn with(event: &WireEvent, field: &str, value: Value) -> Vec<u8> {
    let mut object = object(event);
    object[field] = value;
    bytes(&object)
}

fn without(event: &WireEvent, field: &str) -> Vec<u8> {
    let mut object = object(event);
    object.as_object_mut().expect("an event is an object").remove(field);
    bytes(&object)
}
