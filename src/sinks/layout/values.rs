//! The binary values that are one message behind the header: what is near an item, and its card.

use prost::Message;
use prost::encoding::{int64, message, string, uint32};

use super::header::seal;
use super::{HEADER, LayoutError, Stamp, open, proto};

/// The value of a neighbours key. How many users took the item comes first, so that the first bytes say it
/// ([`crowd`](super::crowd)).
pub fn encode_neighbours(list: &proto::Neighbours, stamp: Stamp) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER + list.encoded_len());
    value.resize(HEADER, 0);
    uint32::encode(4, &list.users, &mut value);
    string::encode(1, &list.item_id, &mut value);
    int64::encode(2, &list.as_of_ms, &mut value);
    message::encode_repeated(3, &list.neighbours, &mut value);
    seal(&mut value, stamp);
    value
}

/// Reads the value of a neighbours key ([`open`] tells which write made it).
pub fn decode_neighbours(value: &[u8]) -> Result<proto::Neighbours, LayoutError> {
    decode(value)
}

/// The value of a card's key.
pub fn encode_card(card: &proto::Card, stamp: Stamp) -> Vec<u8> {
    encode(card, stamp)
}

/// Reads the value of a card's key.
pub fn decode_card(value: &[u8]) -> Result<proto::Card, LayoutError> {
    decode(value)
}

fn encode(message: &impl Message, stamp: Stamp) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER + message.encoded_len());
    value.resize(HEADER, 0);
    message.encode(&mut value).expect("a vector takes everything");
    seal(&mut value, stamp);
    value
}

fn decode<M: Message + Default>(value: &[u8]) -> Result<M, LayoutError> {
    let (_, body) = open(value)?;
    Ok(M::decode(body)?)
}
