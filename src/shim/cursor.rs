//! The place in a chain of pages. While the list behind it is the one the cursor was made from, the next page begins exactly
//! where the last ended; when the list was replaced, it is read from the start without the items already given.
//!
//! Text: URL-safe base64 without padding of `version u8 | stamp u64 | position u16 | given | crc32 u32` (big-endian), `given`
//! being two lists (items given from earlier lists, items given from this one) of 20-bit digests: a count and ascending
//! differences as varints, about two bytes an item. Another item meets one of 200 digests, and is skipped, once in five
//! thousand times, and only after the list was replaced. A chain ends after [`LONGEST`] items, so that a cursor fits a URI.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::encoding::{decode_varint, encode_varint};
use std::collections::BTreeSet;
use xxhash_rust::xxh3::xxh3_64;

/// Items in a chain at most.
pub const LONGEST: usize = 500;
const VERSION: u8 = 1;
const DIGEST_BITS: u32 = 20;

/// Where a chain of pages stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Which state of which list it belongs to.
    stamp: u64,
    /// First item of that list not looked at.
    position: usize,
    /// Items given from lists before this one.
    before: BTreeSet<u32>,
    /// Items given from this list.
    now: BTreeSet<u32>,
}

impl Cursor {
    /// Goes over to the list of `stamp`: where to begin in it.
    pub fn enter(&mut self, stamp: u64) -> usize {
        if stamp != self.stamp {
            self.before.append(&mut self.now);
            (self.stamp, self.position) = (stamp, 0);
        }
        self.position
    }

    /// Whether the item was given from an earlier list. (From this one it cannot come again: positions only ascend.)
    pub fn gave(&self, item: &str) -> bool {
        !self.before.is_empty() && self.before.contains(&digest(item))
    }

    /// Whether the item was given at all: for counting what is left of a list that may yet grow.
    pub fn ever_gave(&self, item: &str) -> bool {
        self.now.contains(&digest(item)) || self.gave(item)
    }

    /// Notes an item as given.
    pub fn give(&mut self, item: &str) {
        self.now.insert(digest(item));
    }

    /// Notes how far the list has been looked at.
    pub fn advance(&mut self, position: usize) {
        self.position = position;
    }

    /// How many items may still be given.
    pub fn room(&self) -> usize {
        LONGEST.saturating_sub(self.given())
    }

    /// How many items were given.
    pub fn given(&self) -> usize {
        self.before.len() + self.now.len()
    }

    /// As text that fits a query.
    pub fn text(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.stamp.to_be_bytes());
        bytes.extend((self.position as u16).to_be_bytes());
        put_digests(&self.before, &mut bytes);
        put_digests(&self.now, &mut bytes);
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads [`Cursor::text`]; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let (&[version], rest) = body.split_first_chunk::<1>()?;
        let (stamp, rest) = rest.split_first_chunk::<8>()?;
        let (position, mut rest) = rest.split_first_chunk::<2>()?;
        if version != VERSION || crc32fast::hash(body) != u32::from_be_bytes(*crc) {
            return None;
        }
        let (before, now) = (take_digests(&mut rest)?, take_digests(&mut rest)?);
        let position = usize::from(u16::from_be_bytes(*position));
        rest.is_empty().then_some(Self { stamp: u64::from_be_bytes(*stamp), position, before, now })
    }
}

/// The stamp of a list that has no epoch of its own: what is in it and in which order.
pub fn stamp_of<'a>(items: impl Iterator<Item = &'a str>) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3Default::new();
    for item in items {
        hash.update(item.as_bytes());
        hash.update(&[0]);
    }
    hash.digest()
}

fn digest(item: &str) -> u32 {
    (xxh3_64(item.as_bytes()) >> (64 - DIGEST_BITS)) as u32
}

fn put_digests(digests: &BTreeSet<u32>, into: &mut Vec<u8>) {
    encode_varint(digests.len() as u64, into);
    let mut last = 0;
    for &digest in digests {
        encode_varint(u64::from(digest - last), into);
        last = digest;
    }
}

fn take_digests(from: &mut &[u8]) -> Option<BTreeSet<u32>> {
    let count = decode_varint(from).ok().filter(|n| *n <= LONGEST as u64)?;
    let mut last = 0u32;
    let mut next = || {
        let step = u32::try_from(decode_varint(from).ok()?).ok()?;
        last = last.checked_add(step).filter(|d| d >> DIGEST_BITS == 0)?;
        Some(last)
    };
    (0..count).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_chain_fits_a_uri() {
        let mut cursor = Cursor::default();
        cursor.enter(u64::MAX);
        (0..LONGEST).for_each(|i| cursor.give(&format!("item-{i}")));
        cursor.advance(LONGEST);
        let text = cursor.text();
        assert!(text.len() < 1_400, "{} characters", text.len());
        assert_eq!(Cursor::parse(&text), Some(cursor));
    }

    #[test]
    fn the_same_list_goes_on_and_another_starts_again_without_what_was_given() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.enter(7), 0);
        cursor.give("a");
        cursor.advance(1);
        assert_eq!(cursor.enter(7), 1);
        assert!(!cursor.gave("a"), "positions keep it from coming again");
        assert_eq!(cursor.enter(8), 0);
        assert!(cursor.gave("a"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut whole = bytes;
            whole.extend(crc32fast::hash(&whole).to_be_bytes());
            let _ = Cursor::parse(&URL_SAFE_NO_PAD.encode(whole));
        }
    }
}
