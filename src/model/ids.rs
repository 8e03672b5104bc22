//! Identifiers: the xxh3 hash of a name. An id is the same in every process and at every worker count, so nothing has to be
//! coordinated; `Names` remembers the spelling and refuses a second name with the same hash.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// How many groups of keys the state is cut into. Part of the state format: caps and budgets are per group, never per worker.
pub const KEY_GROUPS: u64 = 1024;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

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

impl TokenId {
    /// The id of `kind:name`, for instance `category:jazz`.
    pub fn typed(kind: TokenKind, name: &str) -> Self {
        Self::of(&kind.spell(name))
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
        let kind = match self {
            Self::Category => "category",
            Self::Tag => "tag",
            Self::Author => "author",
            Self::Language => "language",
        };
        format!("{kind}:{name}")
    }
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
}
