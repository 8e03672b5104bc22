//! A slate of which an item is read when it is looked at: a page shows a few of some hundred. What was read is where each item lies.

use bytes::Bytes;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};
use std::ops::Range;

use super::{HEADER, LayoutError, Stamp, open, proto};

/// The lists of [`proto::Slate`], by their tags.
const ITEMS: u32 = 4;
const CATEGORIES: u32 = 7;
const HISTORY: u32 = 9;

/// A slate as it lies in the store, of which nothing but its own fields was read.
#[derive(Clone, Debug, PartialEq)]
pub struct SlatePages {
    pub epoch: u64,
    pub generation: u32,
    pub model: u32,
    pub shell: proto::SlateShell,
    body: Bytes,
    /// Where they lie in the body.
    items: Vec<Range<usize>>,
    categories: Vec<Range<usize>>,
}

impl SlatePages {
    /// Reads the value of a slate key as far as every item has an id.
    pub fn open(value: &Bytes) -> Result<Self, LayoutError> {
        let (stamp, _) = open(value)?;
        Ok(Self::of_body(stamp, value.slice(HEADER..))?)
    }

    /// The same without its header.
    pub fn of_body(Stamp { epoch, generation, model }: Stamp, body: Bytes) -> Result<Self, DecodeError> {
        let (mut items, mut categories, mut fields) = (Vec::with_capacity(256), Vec::new(), Vec::new());
        let mut rest = &body[..];
        while !rest.is_empty() {
            let from = body.len() - rest.len();
            let (tag, wire) = decode_key(&mut rest)?;
            if wire != WireType::LengthDelimited || ![ITEMS, CATEGORIES, HISTORY].contains(&tag) {
                skip_field(wire, tag, &mut rest, DecodeContext::default())?;
                fields.extend_from_slice(&body[from..body.len() - rest.len()]);
                continue;
            }
            let message = delimited(&mut rest).ok_or_else(|| why(&body))?;
            let to = body.len() - rest.len();
            match tag {
                ITEMS => {
                    first_text(message)?;
                    items.push(to - message.len()..to);
                }
                CATEGORIES => categories.push(to - message.len()..to),
                _ => {}
            }
        }
        let shell = proto::SlateShell::decode(&fields[..])?;
        Ok(Self { epoch, generation, model, shell, body, items, categories })
    }

    /// How many items it has.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The id of the item in this place.
    pub fn id(&self, at: usize) -> &str {
        first_text(&self.body[self.items[at].clone()]).expect("read when the slate was opened")
    }

    /// The item in this place.
    pub fn item(&self, at: usize) -> Result<proto::SlateItem, LayoutError> {
        Ok(proto::SlateItem::decode(&self.body[self.items[at].clone()])?)
    }

    /// The places of a category's items.
    pub fn places_of(&self, category: &str) -> Vec<usize> {
        let mut messages = self.categories.iter().map(|of| &self.body[of.clone()]);
        let of = messages.find(|of| first_text(of).is_ok_and(|name| name == category));
        let of = of.and_then(|of| proto::Category::decode(of).ok());
        let places = of.into_iter().flat_map(|of| of.places).map(|place| place as usize);
        places.filter(|place| *place < self.len()).collect()
    }
}

/// What comes after a length, in that length. `None`: there is less.
pub(super) fn delimited<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = decode_varint(rest).ok().and_then(|length| usize::try_from(length).ok())?;
    rest.split_off(..length)
}

/// The text in field 1 of a message; empty where it has none.
fn first_text(message: &[u8]) -> Result<&str, DecodeError> {
    let mut rest = message;
    while !rest.is_empty() {
        let (field, wire) = decode_key(&mut rest)?;
        if (field, wire) != (1, WireType::LengthDelimited) {
            skip_field(wire, field, &mut rest, DecodeContext::default())?;
            continue;
        }
        let text = delimited(&mut rest).and_then(|bytes| std::str::from_utf8(bytes).ok());
        return text.ok_or_else(|| proto::Taken::decode(message).expect_err("its first field is cut, or no text"));
    }
    Ok("")
}

/// What is wrong with a body that ends within one of its lists.
fn why(body: &[u8]) -> DecodeError {
    proto::Slate::decode(body).expect_err("it is cut")
}
