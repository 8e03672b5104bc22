//! Which columns of a Parquet file become which fields on the wire, and how a row of them is written as JSON. Types are taken as
//! they come: any integer or string for an id, dictionary or plain, lists or `A|B`.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, TimeUnit};
use arrow::error::ArrowError;
use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::kinds;
use crate::sources::Role;

/// A field on the wire, the columns it may come from (the first that is there), and what it holds.
type Spec = (&'static str, &'static [&'static str], Holds);

#[derive(Clone, Copy, PartialEq)]
enum Holds {
    Text,
    /// Integers, moments, or text that says the same.
    Whole,
    Number,
    Flag,
    /// A list, `A|B`, or a single one.
    Texts,
    Numbers,
    /// The kind of interaction, translated by `kinds`.
    Kind,
    /// A region number: `region-7`; negative ones mean none.
    Region,
    /// A country or the like, inside `ctx`.
    Geo,
}

use Holds::*;

const EVENTS: &[Spec] = &[
    ("event_id", &["event_id"], Text),
    ("type", &["type", "kind"], Kind),
    ("op", &["op"], Text),
    ("user_id", &["user_id", "user"], Text),
    ("item_id", &["item_id", "item"], Text),
    ("ts", &["ts", "timestamp_ms"], Whole),
    ("value", &["value"], Number),
    ("session_id", &["session_id", "session"], Text),
    ("request_id", &["request_id"], Text),
    ("position", &["position"], Whole),
    ("surface", &["surface"], Text),
    ("ctx", &["geo"], Geo),
];

const ITEMS: &[Spec] = &[
    ("item_id", &["item_id", "item"], Text),
    ("author_id", &["author_id", "author"], Text),
    ("categories", &["categories", "category"], Texts),
    ("tags", &["tags"], Texts),
    ("language", &["language"], Text),
    ("created_at", &["created_at", "born_ms"], Whole),
    ("lat", &["lat"], Number),
    ("lon", &["lon"], Number),
    ("city", &["city"], Text),
    ("city", &["region"], Region),
    ("quality", &["quality"], Number),
    ("mature", &["mature"], Flag),
    ("available", &["available"], Flag),
    ("partnered", &["partnered"], Flag),
    ("followers", &["followers"], Whole),
    ("avg_viewers", &["avg_viewers"], Number),
    ("title", &["title"], Text),
    ("text", &["text"], Text),
    ("media_types", &["media_types"], Texts),
    ("embedding", &["embedding"], Numbers),
    ("image", &["image"], Text),
];

const USERS: &[Spec] = &[
    ("user_id", &["user_id", "user"], Text),
    ("interests", &["interests"], Texts),
    ("categories", &["categories"], Texts),
    ("language", &["language"], Text),
    ("created_at", &["created_at", "born_ms"], Whole),
    ("lat", &["lat"], Number),
    ("lon", &["lon"], Number),
    ("city", &["city"], Text),
    ("city", &["region"], Region),
    ("local_preference", &["local_preference"], Number),
    ("total_watch_hours", &["total_watch_hours"], Number),
    ("blocked_authors", &["blocked_authors"], Texts),
    ("blocked_items", &["blocked_items"], Texts),
    ("allow_mature", &["allow_mature"], Flag),
    ("bio", &["bio"], Text),
];

const CONTROL: &[Spec] = &[("op", &["op"], Text), ("user_id", &["user_id", "user"], Text)];

/// What must be there, by the name it has in a message, and the fields one of which will do.
fn needed(role: Role) -> &'static [(&'static str, &'static [&'static str])] {
    match role {
        Role::Events => &[
            ("user or session", &["user_id", "session_id"]),
            ("item", &["item_id"]),
            ("kind", &["type"]),
            ("timestamp_ms", &["ts"]),
        ],
        Role::Items => &[("item", &["item_id"])],
        Role::Users => &[("user", &["user_id"])],
        Role::Control => &[("op", &["op"]), ("user", &["user_id"])],
    }
}

fn specs(role: Role) -> &'static [Spec] {
    match role {
        Role::Events => EVENTS,
        Role::Items => ITEMS,
        Role::Users => USERS,
        Role::Control => CONTROL,
    }
}

/// The columns of a file that are read: field, index in the file, and what it holds.
pub struct Plan {
    role: Role,
    chosen: Vec<(&'static str, usize, Holds)>,
}

impl Plan {
    /// Chooses among the columns of a file. An error names the one that is missing.
    pub fn new(role: Role, schema: &Schema) -> Result<Self, String> {
        let mut chosen: Vec<(&'static str, usize, Holds)> = Vec::new();
        for (field, names, holds) in specs(role) {
            let index = names.iter().find_map(|name| schema.index_of(name).ok());
            // The first column of a field wins: a city over a region.
            if let Some(index) = index.filter(|_| !chosen.iter().any(|(known, _, _)| known == field)) {
                chosen.push((field, index, *holds));
            }
        }
        let lacking = |(_, fields): &&(&str, &[&str])| !chosen.iter().any(|(field, _, _)| fields.contains(field));
        match needed(role).iter().find(lacking) {
            None => Ok(Self { role, chosen }),
            Some((name, _)) => {
                let there: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                Err(format!("no column `{name}` for {}; there are {}", role.name(), there.join(", ")))
            }
        }
    }

    /// Indices of the columns to be read, ascending.
    pub fn indices(&self) -> Vec<usize> {
        let mut indices: Vec<_> = self.chosen.iter().map(|(_, index, _)| *index).collect();
        indices.sort_unstable();
        indices
    }

    /// The columns of a batch that was read with these indices only.
    pub fn columns(&self, batch: &RecordBatch) -> Result<Columns, ArrowError> {
        let indices = self.indices();
        let column = |(field, index, holds): &(&'static str, usize, Holds)| {
            let at = indices.binary_search(index).expect("indices hold every chosen one");
            Ok((*field, Values::of(batch.column(at), *holds)?))
        };
        Ok(Columns { role: self.role, columns: self.chosen.iter().map(column).collect::<Result<_, ArrowError>>()? })
    }
}

/// Some rows, column by column, in the types they are written in.
pub struct Columns {
    role: Role,
    columns: Vec<(&'static str, Values)>,
}

enum Values {
    Text(StringArray),
    Whole(Int64Array),
    Number(Float64Array),
    Flag(BooleanArray),
    Split(StringArray),
    Texts(ListArray),
    Numbers(ListArray),
    Kind(StringArray),
    Region(StringArray),
    Geo(StringArray),
}

impl Values {
    fn of(column: &ArrayRef, holds: Holds) -> Result<Self, ArrowError> {
        let list = column.data_type().is_nested();
        let list_of = |item| DataType::List(Field::new_list_field(item, true).into());
        Ok(match holds {
            Holds::Text => Values::Text(text(column)?),
            Holds::Kind => Values::Kind(text(column)?),
            Holds::Region => Values::Region(text(column)?),
            Holds::Geo => Values::Geo(text(column)?),
            Holds::Number => Values::Number(cast(column, &DataType::Float64)?.as_primitive().clone()),
            Holds::Flag => Values::Flag(cast(column, &DataType::Boolean)?.as_boolean().clone()),
            Holds::Whole if is_text(column.data_type()) => Values::Text(text(column)?),
            Holds::Whole => Values::Whole(cast(&moments(column)?, &DataType::Int64)?.as_primitive().clone()),
            Holds::Texts if list => Values::Texts(cast(column, &list_of(DataType::Utf8))?.as_list().clone()),
            Holds::Texts => Values::Split(text(column)?),
            Holds::Numbers => Values::Numbers(cast(column, &list_of(DataType::Float64))?.as_list().clone()),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Values::Text(a) | Values::Split(a) | Values::Kind(a) | Values::Region(a) | Values::Geo(a) => a.is_null(row),
            Values::Whole(a) => a.is_null(row),
            // JSON has no word for "not a number".
            Values::Number(a) => a.is_null(row) || !a.value(row).is_finite(),
            Values::Flag(a) => a.is_null(row),
            Values::Texts(a) | Values::Numbers(a) => a.is_null(row),
        }
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        other => matches!(other, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
    }
}

/// An id that went through a table with gaps has become a float: `17.0` means `17`.
fn text(column: &ArrayRef) -> Result<StringArray, ArrowError> {
    let whole = if column.data_type().is_floating() { cast(column, &DataType::Int64)? } else { column.clone() };
    Ok(cast(&whole, &DataType::Utf8)?.as_string().clone())
}

fn moments(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::Timestamp(_, zone) => cast(column, &DataType::Timestamp(TimeUnit::Millisecond, zone.clone())),
        _ => Ok(column.clone()),
    }
}

impl Columns {
    /// The row as the log would carry it: key and JSON. `id` is the event id of an event that brings none.
    pub fn row(&self, row: usize, id: &str) -> (Option<Bytes>, Bytes) {
        let field = if self.role == Role::Items { "item_id" } else { "user_id" };
        let key = self.text(field, row).map(|key| Bytes::copy_from_slice(key.as_bytes()));
        let nobody = (self.role == Role::Events && key.is_none()).then(|| self.nobody(row)).flatten();
        let payload = serde_json::to_vec(&Written { columns: self, row, id, nobody: nobody.as_deref() });
        let payload = payload.expect("strings, numbers and lists are always written");
        (key.or(nobody.map(Bytes::from)), Bytes::from(payload))
    }

    /// Who acted in an event without a user: the session alone, which still tells what goes together.
    fn nobody(&self, row: usize) -> Option<String> {
        self.text("session_id", row).map(|session| format!("session-{session}"))
    }

    fn text(&self, field: &str, row: usize) -> Option<&str> {
        self.columns.iter().find_map(|(name, values)| match values {
            Values::Text(array) if *name == field && array.is_valid(row) => Some(array.value(row)),
            _ => None,
        })
    }
}

/// A row on its way to JSON.
struct Written<'a> {
    columns: &'a Columns,
    row: usize,
    id: &'a str,
    nobody: Option<&'a str>,
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        if self.columns.role == Role::Events && self.columns.text("event_id", self.row).is_none() {
            map.serialize_entry("event_id", self.id)?;
        }
        if let Some(nobody) = self.nobody {
            map.serialize_entry("user_id", nobody)?;
        }
        for (field, values) in &self.columns.columns {
            if !values.is_null(self.row) {
                self.entry(field, values, &mut map)?;
            }
        }
        map.end()
    }
}

impl Written<'_> {
    fn entry<M: SerializeMap>(&self, field: &str, values: &Values, map: &mut M) -> Result<(), M::Error> {
        let row = self.row;
        match values {
            Values::Text(a) => map.serialize_entry(field, a.value(row)),
            Values::Whole(a) => map.serialize_entry(field, &a.value(row)),
            Values::Number(a) => number(field, a.value(row), map),
            Values::Flag(a) => map.serialize_entry(field, &a.value(row)),
            Values::Split(a) => {
                let parts: Vec<_> = a.value(row).split('|').map(str::trim).filter(|part| !part.is_empty()).collect();
                map.serialize_entry(field, &parts)
            }
            Values::Texts(a) => {
                let list = a.value(row);
                map.serialize_entry(field, &list.as_string::<i32>().iter().flatten().collect::<Vec<_>>())
            }
            Values::Numbers(a) => {
                let list = a.value(row);
                let numbers: Vec<_> = list.as_primitive::<Float64Type>().iter().map(|n| n.unwrap_or(0.0) as f32).collect();
                map.serialize_entry(field, &numbers)
            }
            Values::Kind(a) => {
                let (kind, undo) = kinds::wire(a.value(row));
                map.serialize_entry(field, kind)?;
                if undo && self.columns.text("op", row).is_none() { map.serialize_entry("op", "undo") } else { Ok(()) }
            }
            Values::Region(a) => match a.value(row) {
                none if none.starts_with('-') => Ok(()),
                region if region.bytes().all(|b| b.is_ascii_digit()) => map.serialize_entry(field, &format!("region-{region}")),
                region => map.serialize_entry(field, region),
            },
            Values::Geo(a) => map.serialize_entry(field, &std::collections::BTreeMap::from([("geo", a.value(row))])),
        }
    }
}

/// A number that was stored in 32 bits is written with as few digits as it needs: `15.3`, not `15.300000190734863`.
fn number<M: SerializeMap>(field: &str, value: f64, map: &mut M) -> Result<(), M::Error> {
    let short = value as f32;
    if f64::from(short) == value { map.serialize_entry(field, &short) } else { map.serialize_entry(field, &value) }
}
