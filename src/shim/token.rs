//! The token of a write: the next offset of each partition written. A read that carries it sees the write, or says it does not.
//!
//! Text: URL-safe base64 without padding of `version u8 | entries | crc32 u32`, an entry being
//! `role u8 | partition u32 | offset u64`, all big-endian.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::model::Positions;
use crate::sources::{Place, Role};

const VERSION: u8 = 1;
const ENTRY: usize = 13;
/// More partitions than one batch of events can touch in a deployment we know of; bounds what a reader may send.
const MAX_ENTRIES: usize = 1024;

/// What has to be applied before the write is visible.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token(Positions);

impl Token {
    /// Of the places a batch came to lie.
    pub fn of(role: Role, places: &[Place]) -> Self {
        let mut next = Positions::new();
        for &(partition, offset) in places {
            let entry = next.entry((role, partition)).or_default();
            *entry = (*entry).max(offset + 1);
        }
        Self(next)
    }

    /// Whether everything written is contained in `applied`.
    pub fn covered_by(&self, applied: &Positions) -> bool {
        self.0.iter().all(|(at, next)| applied.get(at).is_some_and(|reached| reached >= next))
    }

    /// Whether it names a write of records of this role.
    pub fn is_of(&self, role: Role) -> bool {
        self.0.keys().any(|(of, _)| *of == role)
    }

    /// As text that fits a header or a query.
    pub fn text(&self) -> String {
        let mut bytes = vec![VERSION];
        for (&(role, partition), &offset) in &self.0 {
            bytes.push(role as u8);
            bytes.extend(partition.to_be_bytes());
            bytes.extend(offset.to_be_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads [`Token::text`]; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > (MAX_ENTRIES * ENTRY + 5).div_ceil(3) * 4 {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let (&version, entries) = body.split_first()?;
        if version != VERSION || crc32fast::hash(body) != u32::from_be_bytes(*crc) || entries.len() % ENTRY != 0 {
            return None;
        }
        entries.chunks_exact(ENTRY).map(entry).collect::<Option<Positions>>().map(Self)
    }
}

fn entry(bytes: &[u8]) -> Option<((Role, u32), u64)> {
    let (&role, rest) = bytes.split_first()?;
    let (partition, offset) = rest.split_first_chunk::<4>()?;
    let role = Role::ALL.into_iter().find(|r| *r as u8 == role)?;
    Some(((role, u32::from_be_bytes(*partition)), u64::from_be_bytes(offset.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn covers_what_was_written_and_nothing_less() {
        let token = Token::of(Role::Events, &[(1, 4), (1, 9), (3, 0)]);
        let applied = |a: u64, b: u64| Positions::from([((Role::Events, 1), a), ((Role::Events, 3), b)]);
        assert!(token.covered_by(&applied(10, 1)));
        assert!(!token.covered_by(&applied(9, 1)));
        assert!(!token.covered_by(&Positions::from([((Role::Events, 1), 10)])), "a partition nobody has read");
        assert_eq!(Token::parse(&token.text()), Some(token));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_read(text in ".{0,200}") {
            let _ = Token::parse(&text);
        }

        #[test]
        fn a_changed_letter_is_refused(partition in 0u32..9, offset in 0u64..1 << 40, at in 0usize..24) {
            let text = Token::of(Role::Items, &[(partition, offset)]).text();
            let mut other = text.clone().into_bytes();
            other[at % text.len()] = if other[at % text.len()] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).expect("ascii");
            prop_assert!(Token::parse(&other).is_none_or(|t| t.text() == text), "{other} is not {text}");
        }
    }
}
