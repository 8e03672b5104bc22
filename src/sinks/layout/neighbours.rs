//! The nearest of an item.

use prost::Message;

use super::header::seal;
use super::{HEADER, LayoutError, Stamp, open, proto};

/// The value of a neighbours key.
pub fn encode_neighbours(neighbours: &proto::Neighbours, stamp: Stamp) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER + neighbours.encoded_len());
    value.resize(HEADER, 0);
    neighbours.encode(&mut value).expect("a vector takes everything");
    seal(&mut value, stamp);
    value
}

/// Reads the value of a neighbours key ([`open`] tells which write made it).
pub fn decode_neighbours(value: &[u8]) -> Result<proto::Neighbours, LayoutError> {
    let (_, body) = open(value)?;
    Ok(proto::Neighbours::decode(body)?)
}
