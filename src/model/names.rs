//! The spelling of every id this process has met. Decoding interns, encoding looks up; the dataflow between them sees numbers.

use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet};
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

/// Tokens that users named, by token: the spelling, and by whom. It goes with the last of them.
type Said = BTreeMap<u64, (Arc<str>, BTreeSet<u64>)>;

/// The tables of a process.
#[derive(Default)]
pub struct Names {
    pub users: Table,
    pub items: Table,
    /// What describes items.
    pub tokens: Table,
    said: RwLock<Said>,
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

    /// The id of a token that a user named, remembered as long as that user is.
    pub fn said(&self, user: UserId, kind: TokenKind, name: &str) -> Result<TokenId, Collision> {
        let spelt = kind.spell(name);
        let id = TokenId::of(&spelt);
        let known = |known: &Said| known.get(&id.0).is_some_and(|(_, by)| by.contains(&user.0));
        if !known(&self.said.read().expect("no panic under the lock")) {
            let mut said = self.said.write().expect("no panic under the lock");
            let (known, by) = said.entry(id.0).or_insert_with(|| (Arc::from(&*spelt), BTreeSet::new()));
            same(known, &spelt)?;
            by.insert(user.0);
        }
        match self.tokens.get(id.0) {
            Some(known) => same(&known, &spelt).map(|()| id),
            None => Ok(id),
        }
    }

    /// Who named which token, by token and user.
    pub fn all_said(&self) -> Vec<(UserId, Arc<str>)> {
        let said = self.said.read().expect("no panic under the lock");
        let of =
            |(spelt, by): &(Arc<str>, BTreeSet<u64>)| by.iter().map(|user| (UserId(*user), spelt.clone())).collect::<Vec<_>>();
        said.values().flat_map(of).collect()
    }

    /// Forgets the spelling of a user, and of what only they have named.
    pub fn forget(&self, user: UserId) {
        self.users.forget(user.0);
        let mut said = self.said.write().expect("no panic under the lock");
        said.retain(|_, (_, by)| !by.remove(&user.0) || !by.is_empty());
    }

    /// The full spelling of a token.
    pub fn spelling(&self, id: TokenId) -> Option<Arc<str>> {
        let said = || self.said.read().expect("no panic under the lock").get(&id.0).map(|(spelt, _)| spelt.clone());
        self.tokens.get(id.0).or_else(said)
    }

    /// The spelling of a token without its kind: `jazz` for `category:jazz`.
    pub fn bare_token(&self, id: TokenId) -> Option<String> {
        self.spelling(id).map(|s| s.split_once(':').map_or(s.to_string(), |(_, bare)| bare.to_string()))
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

    #[test]
    fn what_a_user_named_goes_with_the_last_who_named_it_unless_an_item_has_it() {
        let names = Names::default();
        let users = ["a", "b"].map(|user| names.user(user).expect("no collision"));
        let said = |user: usize, name| names.said(users[user], TokenKind::Tag, name).expect("no collision");
        let (own, shared, known) = (said(0, "own"), said(0, "shared"), said(0, "known"));
        assert_eq!(said(1, "shared"), shared);
        names.token(TokenKind::Tag, "known").expect("no collision");
        let spelt = || [own, shared, known].map(|token| names.bare_token(token));
        assert_eq!(spelt(), ["own", "shared", "known"].map(|name| Some(name.to_string())));
        names.forget(users[0]);
        assert_eq!(spelt(), [None, Some("shared".to_string()), Some("known".to_string())]);
        assert_eq!(names.all_said(), [(users[1], Arc::from("tag:shared"))]);
        assert_eq!((names.users.get(users[0].0), names.users.len()), (None, 1));
    }
}
