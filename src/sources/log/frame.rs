//! One record as bytes of a segment: `length u32 | crc32 u32 | body`, little endian, where the body is
//! `accepted_ms i64 | key length u32 | key | 1 payload, or 0 for a deletion, or 2 zeros for what was blanked`. A frame is whole or it is not there: a cut or
//! changed frame never decodes to a record.

use bytes::Bytes;

/// Length and checksum, before the body.
pub const HEADER: usize = 8;
/// A longer body is a damaged length, not a record.
pub const MAX_BODY: usize = 16 << 20;
/// Of a body without key and payload.
const FIXED: usize = 8 + 4 + 1;

/// A decoded record; key and payload share the buffer they were read into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Milliseconds since 1970.
    pub accepted_ms: i64,
    pub key: Bytes,
    /// `None`: a deletion.
    pub payload: Option<Bytes>,
    /// Its content was taken out: its offset is all that is left of it.
    pub blank: bool,
}

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A record, and how many bytes it takes.
    Whole(Frame, usize),
    /// The bytes end before the record does; it takes this many.
    Short(usize),
    /// No record: a length that cannot be, or a checksum that does not fit.
    Damaged,
}

/// How many bytes the body takes.
pub fn body_length(key: &[u8], payload: Option<&[u8]>) -> usize {
    FIXED + key.len() + payload.map_or(0, <[u8]>::len)
}

/// Appends a frame. The body must not be longer than [`MAX_BODY`].
pub fn encode(accepted_ms: i64, key: &[u8], payload: Option<&[u8]>, into: &mut Vec<u8>) {
    let length = body_length(key, payload);
    debug_assert!(length <= MAX_BODY, "the appender refuses longer records");
    into.reserve(HEADER + length);
    into.extend_from_slice(&(length as u32).to_le_bytes());
    let crc_at = into.len();
    into.extend_from_slice(&[0; 4]);
    into.extend_from_slice(&accepted_ms.to_le_bytes());
    into.extend_from_slice(&(key.len() as u32).to_le_bytes());
    into.extend_from_slice(key);
    into.push(u8::from(payload.is_some()));
    into.extend_from_slice(payload.unwrap_or_default());
    let crc = crc32fast::hash(&into[crc_at + 4..]);
    into[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the frame at the beginning of `bytes`.
pub fn decode(bytes: &Bytes) -> Decoded {
    let Some(length) = u32_at(bytes, 0) else { return Decoded::Short(HEADER) };
    let length = length as usize;
    if !(FIXED..=MAX_BODY).contains(&length) {
        return Decoded::Damaged;
    }
    let end = HEADER + length;
    if bytes.len() < end {
        return Decoded::Short(end);
    }
    let body = bytes.slice(HEADER..end);
    if u32_at(bytes, 4) != Some(crc32fast::hash(&body)) {
        return Decoded::Damaged;
    }
    match decode_body(&body) {
        Some(frame) => Decoded::Whole(frame, end),
        None => Decoded::Damaged,
    }
}

fn decode_body(body: &Bytes) -> Option<Frame> {
    let accepted_ms = i64::from_le_bytes(body.get(..8)?.try_into().ok()?);
    let key_end = 12 + u32_at(body, 8)? as usize;
    let (payload, blank) = match body.get(key_end)? {
        0 => (None, false),
        2 => (None, true),
        _ => (Some(body.slice(key_end + 1..)), false),
    };
    Some(Frame { accepted_ms, key: body.slice(12..key_end), payload, blank })
}

/// A frame that takes as many bytes as this one and holds nothing of it but when it was accepted.
pub fn blanked(frame: &Frame) -> Vec<u8> {
    let mut body = vec![0; body_length(&frame.key, frame.payload.as_deref())];
    body[..8].copy_from_slice(&frame.accepted_ms.to_le_bytes());
    body[12] = 2;
    [&(body.len() as u32).to_le_bytes()[..], &crc32fast::hash(&body).to_le_bytes(), &body].concat()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn frame() -> impl Strategy<Value = Frame> {
        (any::<i64>(), vec(any::<u8>(), 0..40), proptest::option::of(vec(any::<u8>(), 0..200))).prop_map(
            |(accepted_ms, key, payload)| Frame { accepted_ms, key: key.into(), payload: payload.map(Bytes::from), blank: false },
        )
    }

    fn bytes_of(frame: &Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(frame.accepted_ms, &frame.key, frame.payload.as_deref(), &mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_and_what_follows_is_left_alone(frame in frame(), tail in vec(any::<u8>(), 0..50)) {
            let mut bytes = bytes_of(&frame);
            let length = bytes.len();
            bytes.extend(tail);
            prop_assert_eq!(decode(&bytes.into()), Decoded::Whole(frame, length));
        }

        #[test]
        fn a_blank_is_as_long_as_what_it_was_and_holds_nothing_of_it(frame in frame()) {
            let (bytes, blank) = (bytes_of(&frame), blanked(&frame));
            prop_assert_eq!(bytes.len(), blank.len());
            let left = Frame { key: Bytes::new(), payload: None, blank: true, ..frame };
            prop_assert_eq!(decode(&blank.into()), Decoded::Whole(left, bytes.len()));
        }

        #[test]
        fn cut_at_any_byte_it_is_short(frame in frame()) {
            let bytes = Bytes::from(bytes_of(&frame));
            for cut in 0..bytes.len() {
                let wanted = if cut < 4 { HEADER } else { bytes.len() };
                prop_assert_eq!(decode(&bytes.slice(..cut)), Decoded::Short(wanted), "cut at {}", cut);
            }
        }

        #[test]
        fn one_changed_bit_is_noticed(frame in frame(), bit in any::<prop::sample::Index>()) {
            let mut bytes = bytes_of(&frame);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!matches!(decode(&bytes.into()), Decoded::Whole(..)));
        }

        #[test]
        fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..300)) {
            decode(&bytes.into());
        }

        /// A right checksum over a wrong body: the lengths inside must be distrusted too.
        #[test]
        fn any_body_with_its_checksum_is_survived(body in vec(any::<u8>(), 0..300)) {
            let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
            bytes.extend(crc32fast::hash(&body).to_le_bytes());
            bytes.extend(body);
            decode(&bytes.into());
        }
    }

    #[test]
    fn the_layout_stays() {
        let frame = Frame { accepted_ms: 1, key: "k".into(), payload: Some("v".into()), blank: false };
        let bytes = bytes_of(&frame);
        assert_eq!(bytes[..4], [15, 0, 0, 0]);
        assert_eq!(bytes[8..], [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'k', 1, b'v']);
    }
}
