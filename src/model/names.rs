//! The spelling of every id this process has met. Decoding interns, encoding looks up; the dataflow between them sees numbers.

use rustc_hash::FxHashMap;
use std::sync::{Arc, RwLock};

use super::ids::{ItemId, TokenId, TokenKind, UserId};

const SHARDS: usize = 64;

/// One kind of name. Sharded, because decoding threads and the sink meet here.
pub struct Table {
    shards: [Shard; SHARDS],
}

impl Default for Table {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Shard::default()) }
    }
}

#[derive(Default)]
struct Shard(RwLock<FxHashMap<u64, Arc<str>>>);

/// Two different names with one 64-bit hash. The second is refused: an event that carries it goes to the dead letters.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the id `{name}` has the same 64-bit hash as `{known}`; rename it")]
pub struct Collision {
    pub name: String,
    pub known: String,
}

impl Table {
    /// Remembers that `hash` is spelt `name`.
    pub fn intern(&self, hash: u64, name: &str) -> Result<(), Collision> {
        let shard = &self.shards[hash as usize % SHARDS].0;
        if let Some(known) = shard.read().expect("no panic under the lock").get(&hash) {
            return same(known, name);
        }
        let mut shard = shard.write().expect("no panic under the lock");
        let known = shard.entry(hash).or_insert_with(|| Arc::from(name));
        same(known, name)
    }

    /// The spelling of `hash`, if this process has met it.
    pub fn get(&self, hash: u64) -> Option<Arc<str>> {
        self.shards[hash as usize % SHARDS].0.read().expect("no panic under the lock").get(&hash).cloned()
    }

    /// Forgets a spelling; what remains is a number.
    pub fn forget(&self, hash: u64) {
        self.shards[hash as usize % SHARDS].0.write().expect("no panic under the lock").remove(&hash);
    }

    /// Every name with its hash.
    pub fn all(&self) -> Vec<(u64, Arc<str>)> {
        let of = |shard: &Shard| {
            let known = shard.0.read().expect("no panic under the lock");
            known.iter().map(|(hash, name)| (*hash, name.clone())).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(of).collect()
    }

    /// How many names are known.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.0.read().expect("no panic under the lock").len()).sum()
    }

    /// Whether no name is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn same(known: &Arc<str>, name: &str) -> Result<(), Collision> {
    if &**known == name { Ok(()) } else { Err(Collision { name: name.to_string(), known: known.to_string() }) }
}

/// The three tables of a process.
#[derive(Default)]
pub struct Names {
    pub users: Table,
    pub items: Table,
    pub tokens: Table,
}

impl Names {
    /// The id of a user, remembered.
    pub fn user(&self, name: &str) -> Result<UserId, Collision> {
        let id = UserId::of(name);
        self.users.intern(id.0, name).map(|()| id)
    }

    /// The id of an item, remembered.
    pub fn item(&self, name: &str) -> Result<ItemId, Collision> {
        let id = ItemId::of(name);
        self.items.intern(id.0, name).map(|()| id)
    }

    /// The id of a category, tag, author or language, remembered under its full spelling (`category:jazz`).
    pub fn token(&self, kind: TokenKind, name: &str) -> Result<TokenId, Collision> {
        let spelt = kind.spell(name);
        let id = TokenId::of(&spelt);
        self.tokens.intern(id.0, &spelt).map(|()| id)
    }

    /// The spelling of a token without its kind: `jazz` for `category:jazz`.
    pub fn bare_token(&self, id: TokenId) -> Option<String> {
        self.tokens.get(id.0).map(|s| s.split_once(':').map_or(s.to_string(), |(_, bare)| bare.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_name_with_the_same_hash_is_refused() {
        let table = Table::default();
        assert_eq!(table.intern(7, "a"), Ok(()));
        assert_eq!(table.intern(7, "a"), Ok(()));
        let refused = table.intern(7, "b").expect_err("another spelling");
        assert_eq!((refused.name.as_str(), refused.known.as_str()), ("b", "a"));
        table.forget(7);
        assert_eq!(table.get(7), None);
    }
}
