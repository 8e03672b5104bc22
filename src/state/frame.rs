//! A file of the epoch log as bytes: a header, then a frame for each group of bindings that was made durable at once. All
//! integers are little endian.
//!
//! A frame is written when the one before is durable. So only the last can be cut by a crash, and that one was promised to nobody;
//! anything else that is wrong is damage, and said to be. Zeros after the last frame are room for the next.

use crate::model::Binding;

/// What a header takes.
pub const HEADER: usize = 24;
/// Of a frame, before its body.
const BEFORE: usize = 12;
/// A longer body is a damaged length, not a group.
const MOST: usize = 64 << 20;

const FILE: [u8; 4] = *b"ODEP";
const FRAME: [u8; 4] = *b"ODGR";
const VERSION: u16 = 2;
/// Written before models were swapped: read as it is.
const OLDEST: u16 = 1;
/// No epoch was bound before this file's first.
const BEGINS: u16 = 1;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// No epoch was bound before the first of this file.
    pub begins: bool,
    pub generation: u32,
    pub first: u64,
}

impl Header {
    /// As bytes: `ODEP`, version u16, flags u16, generation u32, first epoch u64, CRC-32 of all that.
    pub fn encode(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&FILE);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&(if self.begins { BEGINS } else { 0 }).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.generation.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.first.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..HEADER - 4]);
        bytes[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let header = bytes.get(..HEADER).ok_or_else(|| format!("has {} bytes, less than a header", bytes.len()))?;
        if header[..4] != FILE || u32_at(header, HEADER - 4) != Some(crc32fast::hash(&header[..HEADER - 4])) {
            return Err("does not begin with the header of an epoch log".to_string());
        }
        let version = u16::from_le_bytes([header[4], header[5]]);
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(format!(
                "has version {version}, this version of Overdrive reads {OLDEST} to {VERSION}; start the one that wrote it"
            ));
        }
        let first = header[12..20].try_into().map(u64::from_le_bytes).expect("eight bytes");
        let generation = u32_at(header, 8).expect("the header is longer");
        Ok(Self { begins: u16::from_le_bytes([header[6], header[7]]) & BEGINS != 0, generation, first })
    }
}

/// A group as a frame: `ODGR`, length of the body u32, CRC-32 of length and body, and the body, a JSON list of bindings.
pub fn encode(group: &[Binding]) -> Vec<u8> {
    let body = serde_json::to_vec(group).expect("numbers and lists are JSON");
    let length = u32::try_from(body.len()).expect("groups are kept small").to_le_bytes();
    let mut frame = Vec::with_capacity(BEFORE + body.len());
    frame.extend_from_slice(&FRAME);
    frame.extend_from_slice(&length);
    frame.extend_from_slice(&checksum(&length, &body).to_le_bytes());
    frame.extend_from_slice(&body);
    frame
}

fn checksum(length: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(length);
    crc.update(body);
    crc.finalize()
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    pub header: Header,
    /// Without a hole, from the header's first epoch on.
    pub bindings: Vec<Binding>,
    /// Bytes at the end that a crash left half written.
    pub torn: usize,
}

/// Reads a whole file. An error says what is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<Contents, String> {
    let header = Header::decode(bytes)?;
    let (mut at, mut bindings) = (HEADER, Vec::new());
    while bytes[at..].iter().any(|byte| *byte != 0) {
        let Some(body) = frame_at(bytes, at) else {
            return match frame_after(bytes, at + 1) {
                Some(next) => Err(format!("is damaged from byte {at} to byte {next}")),
                None => Ok(Contents { header, bindings, torn: bytes.len() - at }),
            };
        };
        let group: Vec<Binding> = serde_json::from_slice(body).map_err(|e| format!("makes no sense at byte {at}: {e}"))?;
        if group.is_empty() {
            return Err(format!("holds an empty group at byte {at}"));
        }
        for binding in group {
            let expected = header.first.checked_add(bindings.len() as u64);
            if expected != Some(binding.epoch.number) {
                return Err(format!("holds epoch {} out of order at byte {at}", binding.epoch.number));
            }
            bindings.push(binding);
        }
        at += BEFORE + body.len();
    }
    Ok(Contents { header, bindings, torn: 0 })
}

/// The body of the whole frame that begins at `at`.
fn frame_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let frame = bytes.get(at..)?.strip_prefix(&FRAME)?;
    let length = u32_at(frame, 0)? as usize;
    let body = frame.get(8..8usize.checked_add(length)?).filter(|_| length <= MOST)?;
    (u32_at(frame, 4)? == checksum(&frame[..4], body)).then_some(body)
}

/// Where the next whole frame begins.
fn frame_after(bytes: &[u8], from: usize) -> Option<usize> {
    let places = bytes.get(from..)?.windows(FRAME.len()).enumerate().filter(|(_, four)| *four == FRAME);
    places.map(|(at, _)| from + at).find(|at| frame_at(bytes, *at).is_some())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, Pace, Role, Serving};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn binding(number: u64) -> Binding {
        let epoch = Epoch { number, clock_ms: 1, ..Epoch::default() };
        Binding {
            epoch,
            offsets: BTreeMap::from([((Role::Events, 0), (number, number + 1))]),
            pace: Pace::default(),
            serving: Serving::default(),
            refusals: Vec::new(),
        }
    }

    const HEAD: Header = Header { begins: true, generation: 3, first: 10 };

    /// Three frames, and where each begins.
    fn file() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (HEAD.encode().to_vec(), Vec::new());
        for group in [10..13, 13..14, 14..16] {
            starts.push(bytes.len());
            bytes.extend(encode(&group.map(binding).collect::<Vec<_>>()));
        }
        (bytes, starts)
    }

    fn epochs(contents: &Contents) -> Vec<u64> {
        contents.bindings.iter().map(|binding| binding.epoch.number).collect()
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let contents = decode(&file().0).expect("sound");
        assert_eq!((contents.header, epochs(&contents), contents.torn), (HEAD, (10..16).collect(), 0));
    }

    #[test]
    fn a_changed_bit_costs_the_last_group_or_is_damage() {
        let (bytes, starts) = file();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            match decode(&changed) {
                Ok(contents) => {
                    assert!(bit / 8 >= starts[2], "bit {bit} went unnoticed");
                    assert_eq!((epochs(&contents), contents.torn), ((10..14).collect(), bytes.len() - starts[2]));
                }
                Err(_) => assert!(bit / 8 < starts[2], "bit {bit} is in the last group, which a crash may cut"),
            }
        }
    }

    #[test]
    fn cut_anywhere_the_whole_groups_before_are_read() {
        let (bytes, starts) = file();
        for cut in HEADER..bytes.len() {
            let contents = decode(&bytes[..cut]).expect("a torn end");
            let whole = [13, 14].into_iter().zip(&starts[1..]).rev().find(|(_, end)| **end <= cut).map_or(10, |(next, _)| next);
            assert_eq!(epochs(&contents), (10..whole).collect::<Vec<_>>(), "cut at {cut}");
        }
        assert!((0..HEADER).all(|cut| decode(&bytes[..cut]).is_err()), "a header is never cut: the file is made with it");
    }

    #[test]
    fn room_for_more_is_no_torn_end() {
        let (bytes, _) = file();
        let contents = decode(&[&bytes[..], &[0; 1000]].concat()).expect("sound");
        assert_eq!((epochs(&contents), contents.torn), ((10..16).collect(), 0));
    }

    #[test]
    fn an_epoch_out_of_order_is_damage() {
        let bytes = [&HEAD.encode()[..], &encode(&[binding(10), binding(12)])].concat();
        assert_eq!(decode(&bytes), Err("holds epoch 12 out of order at byte 24".to_string()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..300), body in vec(any::<u8>(), 0..100)) {
            prop_assert!(decode(&bytes).is_err());
            let contents = decode(&[&HEAD.encode()[..], &bytes].concat()).expect("a torn end");
            let torn = if bytes.iter().any(|byte| *byte != 0) { bytes.len() } else { 0 };
            prop_assert_eq!(contents, Contents { header: HEAD, bindings: Vec::new(), torn });
            // A whole frame of anything.
            let length = (body.len() as u32).to_le_bytes();
            let crc = checksum(&length, &body).to_le_bytes();
            prop_assert!(decode(&[&HEAD.encode()[..], &FRAME, &length, &crc, &body].concat()).is_err());
        }
    }
}
