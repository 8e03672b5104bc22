//! The binary values that are one message behind the header: what is near an item, and its card.

use prost::Message;

use super::header::seal;
use super::{HEADER, LayoutError, Stamp, open, proto};

/// The value of a neighbours key.
pub fn encode_neighbours(neighbours: &proto::Neighbours, stamp: Stamp) -> Vec<u8> {
    encode(neighbours, stamp)
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
