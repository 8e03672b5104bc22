//! Identifiers: the xxh3 hash of a name. An id is the same in every process and at every worker count, so nothing has to be
//! coordinated; `Names` remembers the spelling and refuses a second name with the same hash.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// How many groups of keys the state is cut into. Part of the state format: caps and budgets are per group, never per worker.
pub const KEY_GROUPS: u64 = 1024;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(#[serde(with = "whole")] pub u64);

        impl $name {
            /// The id of a name.
            pub fn of(name: &str) -> Self {
                Self(xxh3_64(name.as_bytes()))
            }
        }
    };
}

id!(/// A user.
    UserId);
id!(/// An item.
    ItemId);
id!(/// An author, or a category, or a tag: whatever describes an item in one word. The kind is part of the hashed text.
    TokenId);

/// Hashes fill all their bits: as bytes they are shorter than as numbers of variable length, and quicker to write.
mod whole {
    use serde::de::{Deserialize, Deserializer, Error, Visitor};
    use serde::ser::Serializer;
    use std::fmt;

    pub fn serialize<S: Serializer>(hash: &u64, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.serialize_u64(*hash) } else { to.serialize_bytes(&hash.to_le_bytes()) }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        if from.is_human_readable() { u64::deserialize(from) } else { from.deserialize_bytes(EightBytes) }
    }

    struct EightBytes;

    impl Visitor<'_> for EightBytes {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("eight bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<u64, E> {
            bytes.try_into().map(u64::from_le_bytes).map_err(|_| E::invalid_length(bytes.len(), &self))
        }
    }
}

impl TokenId {
    /// The id of `kind:name`, for instance `category:jazz`.
    pub fn typed(kind: TokenKind, name: &str) -> Self {
        let mut spelt: SmallVec<[u8; 96]> = SmallVec::from_slice(kind.prefix().as_bytes());
        spelt.extend_from_slice(name.as_bytes());
        Self(xxh3_64(&spelt))
    }

    /// The id of a city, however it is written.
    pub fn city(name: &str) -> Self {
        Self::of(&format!("city:{}", name.trim().to_lowercase()))
    }
}

/// What a token says of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TokenKind {
    Category,
    Tag,
    Author,
    Language,
}

impl TokenKind {
    /// The full spelling under which a token is interned: `category:jazz`.
    pub fn spell(self, name: &str) -> String {
        [self.prefix(), name].concat()
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Category => "category:",
            Self::Tag => "tag:",
            Self::Author => "author:",
            Self::Language => "language:",
        }
    }

    /// What a word of interest may describe, and its name: `#jazz` and `tag:jazz` a tag, `category:jazz` a category, `author:ann` an
    /// author; a bare word both a category and a tag, because a sign-up form does not know which.
    pub fn of_interest(word: &str) -> (&'static [Self], &str) {
        let prefixes: [(&str, &[Self]); 4] =
            [("#", &[Self::Tag]), ("tag:", &[Self::Tag]), ("category:", &[Self::Category]), ("author:", &[Self::Author])];
        let typed = prefixes.iter().find_map(|(prefix, kinds)| word.strip_prefix(prefix).map(|name| (*kinds, name)));
        typed.unwrap_or((&[Self::Category, Self::Tag], word))
    }
}

/// A number from 0 to 1 that is the same for a key wherever it is asked: who belongs to a share.
pub fn lot(key: u64) -> f64 {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1u64 << 53) as f64
}

/// The same of a user, drawn anew under every name.
pub fn lot_of(user: UserId, name: &str) -> f64 {
    lot(xxh3_64_with_seed(name.as_bytes(), user.0))
}

/// The key group of a hashed key: its low ten bits.
pub fn key_group(hash: u64) -> u16 {
    (hash & (KEY_GROUPS - 1)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_two_kinds_do_not_meet() {
        assert_ne!(TokenId::typed(TokenKind::Category, "rock"), TokenId::typed(TokenKind::Tag, "rock"));
        assert_eq!(TokenId::typed(TokenKind::Tag, "rock"), TokenId::of("tag:rock"));
    }

    #[test]
    fn a_word_of_interest_says_what_it_describes_or_may_be_either() {
        use TokenKind::*;
        for (word, kinds, name) in [
            ("jazz", &[Category, Tag][..], "jazz"),
            ("#jazz", &[Tag], "jazz"),
            ("tag:jazz", &[Tag], "jazz"),
            ("category:jazz", &[Category], "jazz"),
            ("author:ann", &[Author], "ann"),
            ("mood:blue", &[Category, Tag], "mood:blue"),
            ("#", &[Tag], ""),
        ] {
            assert_eq!(TokenKind::of_interest(word), (kinds, name), "{word}");
        }
        assert_eq!(TokenId::city(" München\t"), TokenId::city("münchen"));
    }
}
