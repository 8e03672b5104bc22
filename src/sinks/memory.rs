//! The store inside the process: what Redis would hold, key for key and byte for byte, so that one reader serves both.
//! A reader sees every value whole, and an applied mark only after the writes it stands for.

use bytes::Bytes;
use rustc_hash::FxHashMap;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::layout::{Fields, Keys, as_map, encode_applied};
use super::{Applied, Fence, Found, Known, Store, StoreError, Swept, Write};

const SHARDS: usize = 64;
/// One shard is swept of expired keys this often, so all of them within two seconds; reads look at the time themselves.
const SWEEP_EVERY: Duration = Duration::from_millis(25);

/// A handle on the store; clones share it.
#[derive(Clone)]
pub struct Memory(Arc<Inner>);

struct Inner {
    keys: Keys,
    shards: [RwLock<Shard>; SHARDS],
    applied: watch::Sender<Applied>,
    sweep: Mutex<Sweep>,
}

type Shard = FxHashMap<String, Entry>;

struct Entry {
    content: Content,
    /// Only something newer replaces it.
    fence: Fence,
    /// `None`: stays.
    expires: Option<Instant>,
}

enum Content {
    /// Deleted, which is kept for a while so that nothing older comes back. Readers do not see it.
    Nothing,
    Value(Bytes),
    Fields(Fields),
    Ranked(Ranked),
}

/// A sorted set. Most are written whole and only read; the few that change member by member are kept searchable.
enum Ranked {
    /// Highest first.
    List(Vec<(String, f64)>),
    Set {
        scores: FxHashMap<Arc<str>, f64>,
        order: BTreeSet<Placed>,
    },
}

struct Sweep {
    shard: usize,
    at: Instant,
}

/// A whole value as [`Memory::dump`] shows it.
#[derive(Clone, Debug, PartialEq)]
pub enum Dumped {
    Value(Bytes),
    Fields(BTreeMap<String, String>),
    /// Highest first.
    Ranked(Vec<(String, f64)>),
}

/// What a family of keys takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub keys: usize,
    /// Of keys and contents, without the bookkeeping around them.
    pub bytes: usize,
}

impl Memory {
    /// An empty store whose keys begin with `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self(Arc::new(Inner {
            keys: Keys::new(prefix),
            shards: std::array::from_fn(|_| RwLock::default()),
            applied: watch::Sender::default(),
            sweep: Mutex::new(Sweep { shard: 0, at: Instant::now() }),
        }))
    }

    /// A binary value. `None`: no such key, or it holds something else.
    pub fn value(&self, key: &str) -> Option<Bytes> {
        self.read(key, |content| match content {
            Content::Value(value) => Some(value.clone()),
            _ => None,
        })
    }

    /// All fields of a hash.
    pub fn fields(&self, key: &str) -> Option<BTreeMap<String, String>> {
        self.read(key, |content| match content {
            Content::Fields(fields) => Some(as_map(fields)),
            _ => None,
        })
    }

    /// The `limit` highest members of a sorted set with their scores, highest first, of equal ones the greater member first, as
    /// `ZREVRANGE` yields them. Empty when there is no such key.
    pub fn ranked(&self, key: &str, limit: usize) -> Vec<(String, f64)> {
        let of = |content: &Content| match content {
            Content::Ranked(ranked) => Some(ranked.highest(limit)),
            _ => None,
        };
        self.read(key, of).unwrap_or_default()
    }

    /// The score of one member of a sorted set, as `ZSCORE` yields it.
    pub fn score(&self, key: &str, member: &str) -> Option<f64> {
        self.read(key, |content| match content {
            Content::Ranked(ranked) => ranked.score(member),
            _ => None,
        })
    }

    /// How far the answers have come.
    pub fn applied(&self) -> Applied {
        self.0.applied.borrow().clone()
    }

    /// Tells each time the answers have come further.
    pub fn subscribe(&self) -> watch::Receiver<Applied> {
        self.0.applied.subscribe()
    }

    /// Every key with its whole value.
    pub fn dump(&self) -> BTreeMap<String, Dumped> {
        let mut all = BTreeMap::new();
        self.each_live(|key, content| {
            let dumped = match content {
                Content::Nothing => return,
                Content::Value(value) => Dumped::Value(value.clone()),
                Content::Fields(fields) => Dumped::Fields(as_map(fields)),
                Content::Ranked(ranked) => Dumped::Ranked(ranked.highest(usize::MAX)),
            };
            all.insert(key.to_string(), dumped);
        });
        all
    }

    /// Keys and bytes by family (`slate`, `user`, …).
    pub fn sizes(&self) -> BTreeMap<String, Size> {
        let mut sizes = BTreeMap::<String, Size>::new();
        self.each_live(|key, content| {
            let size = sizes.entry(self.0.keys.family_of(key).to_string()).or_default();
            size.keys += 1;
            size.bytes += key.len() + content.bytes();
        });
        sizes
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        let mut keys = 0;
        self.each_live(|_, _| keys += 1);
        keys
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn read<T>(&self, key: &str, of: impl Fn(&Content) -> Option<T>) -> Option<T> {
        let shard = self.0.shard(key).read().expect("no panic under the lock");
        let entry = shard.get(key)?;
        // Without a time to live the clock need not be asked.
        if entry.expires.is_some() && !entry.live(Instant::now()) {
            return None;
        }
        of(&entry.content)
    }

    fn each_live(&self, mut see: impl FnMut(&str, &Content)) {
        let now = Instant::now();
        for shard in &self.0.shards {
            let shard = shard.read().expect("no panic under the lock");
            shard.iter().filter(|(_, e)| e.live(now) && !e.content.is_nothing()).for_each(|(key, e)| see(key, &e.content));
        }
    }
}

impl Store for Memory {
    fn write(&mut self, writes: &[Write], applied: &Applied, known: Known) -> Result<Found, StoreError> {
        let now = Instant::now();
        let refused = writes.iter().filter(|write| !self.0.put(write, now)).count() as u64;
        let held = self.applied();
        let mut mark = held.clone();
        mark.advance(applied);
        let lost = held.epoch < known.epoch || held.tick_epoch < known.tick_epoch;
        mark.rebuilding |= lost || held.rebuilding && !known.rebuilding;
        let fence = Fence { epoch: mark.epoch, generation: mark.generation };
        self.0.show(Entry { content: Content::Fields(encode_applied(&mark)), fence, expires: None });
        self.0.applied.send_replace(mark);
        self.0.expire(now);
        Ok(Found { epoch: held.epoch, tick_epoch: held.tick_epoch, rebuilding: held.rebuilding, refused, dropped: false })
    }

    fn sweep(&mut self, before: u64, ttl: Duration) -> Result<Swept, StoreError> {
        let (mark, now) = (self.0.keys.meta(), Instant::now());
        for shard in &self.0.shards {
            let mut shard = shard.write().expect("no panic under the lock");
            for (_, old) in
                shard.iter_mut().filter(|(key, old)| **key != mark && old.fence.epoch < before && !old.content.is_nothing())
            {
                let fence = Fence { epoch: before, generation: 0 };
                *old = Entry { content: Content::Nothing, fence, expires: Some(now + ttl) };
            }
        }
        Ok(Swept::All)
    }
}

impl Inner {
    fn shard(&self, key: &str) -> &RwLock<Shard> {
        &self.shards[xxh3_64(key.as_bytes()) as usize % SHARDS]
    }

    /// Whether the write was newer than what its key holds.
    fn put(&self, write: &Write, now: Instant) -> bool {
        match write {
            Write::Value { key, value, ttl, fence } => {
                self.replace(key, *fence, now, *ttl, || Content::Value(Bytes::copy_from_slice(value)))
            }
            Write::Fields { key, fields, ttl, fence } => self.replace(key, *fence, now, *ttl, || Content::Fields(fields.clone())),
            Write::Ranked { key, members, ttl, fence } => {
                self.replace(key, *fence, now, *ttl, || Content::Ranked(Ranked::list(members)))
            }
            Write::Members { key, members, ttl, fence } => self.put_members(key, members, *fence, now, *ttl),
            Write::Delete { key, ttl, fence, .. } => self.replace(key, *fence, now, *ttl, || Content::Nothing),
        }
    }

    fn replace(&self, key: &str, fence: Fence, now: Instant, ttl: Duration, with: impl Fn() -> Content) -> bool {
        let mut shard = self.shard(key).write().expect("no panic under the lock");
        let entry = || Entry { content: with(), fence, expires: Some(now + ttl) };
        match shard.get_mut(key) {
            Some(old) if old.live(now) && old.fence >= fence => return false,
            Some(old) => *old = entry(),
            None => drop(shard.insert(key.to_string(), entry())),
        }
        true
    }

    fn show(&self, mark: Entry) {
        let key = self.keys.meta();
        self.shard(&key).write().expect("no panic under the lock").insert(key, mark);
    }

    fn put_members(&self, key: &str, members: &[(String, Option<f64>)], fence: Fence, now: Instant, ttl: Duration) -> bool {
        let mut shard = self.shard(key).write().expect("no panic under the lock");
        let old = match shard.remove(key).filter(|e| e.live(now)) {
            Some(old) if old.fence >= fence => {
                shard.insert(key.to_string(), old);
                return false;
            }
            old => old,
        };
        let mut set = match old.map(|e| e.content) {
            Some(Content::Ranked(ranked)) => ranked.searchable(),
            _ => Ranked::List(Vec::new()).searchable(),
        };
        members.iter().for_each(|(member, score)| set.place(member, *score));
        shard.insert(key.to_string(), Entry { content: Content::Ranked(set), fence, expires: Some(now + ttl) });
        true
    }

    fn expire(&self, now: Instant) {
        let mut sweep = self.sweep.lock().expect("no panic under the lock");
        if now.duration_since(sweep.at) < SWEEP_EVERY {
            return;
        }
        (sweep.at, sweep.shard) = (now, (sweep.shard + 1) % SHARDS);
        self.shards[sweep.shard].write().expect("no panic under the lock").retain(|_, entry| entry.live(now));
    }
}

impl Entry {
    fn live(&self, now: Instant) -> bool {
        self.expires.is_none_or(|at| now < at)
    }
}

impl Content {
    /// Whether readers see no key here; Redis, too, has neither empty hashes nor empty sets.
    fn is_nothing(&self) -> bool {
        match self {
            Content::Nothing => true,
            Content::Value(_) => false,
            Content::Fields(fields) => fields.is_empty(),
            Content::Ranked(ranked) => ranked.is_empty(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Content::Nothing => 0,
            Content::Value(value) => value.len(),
            Content::Fields(fields) => fields.iter().map(|(name, value)| name.len() + value.len()).sum(),
            Content::Ranked(Ranked::List(members)) => members.iter().map(|(member, _)| member.len() + 8).sum(),
            Content::Ranked(Ranked::Set { scores, .. }) => scores.keys().map(|member| member.len() + 8).sum(),
        }
    }
}

impl Ranked {
    fn list(members: &[(String, f64)]) -> Self {
        let mut members = members.to_vec();
        members.sort_unstable_by(|(a, x), (b, y)| by_rank((*y, b), (*x, a)));
        Self::List(members)
    }

    fn searchable(self) -> Self {
        let Self::List(members) = self else { return self };
        let mut set = Self::Set { scores: FxHashMap::default(), order: BTreeSet::new() };
        for (member, score) in members {
            set.place(&member, Some(score));
        }
        set
    }

    /// Puts a member in, moves it, or with `None` takes it out. Only of a searchable one.
    fn place(&mut self, member: &str, score: Option<f64>) {
        let Self::Set { scores, order } = self else { unreachable!("place is called on searchable sets") };
        if let Some((member, old)) = scores.remove_entry(member) {
            order.remove(&Placed(old, member));
        }
        if let Some(score) = score {
            let member: Arc<str> = Arc::from(member);
            scores.insert(member.clone(), score);
            order.insert(Placed(score, member));
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::List(members) => members.is_empty(),
            Self::Set { scores, .. } => scores.is_empty(),
        }
    }

    fn highest(&self, limit: usize) -> Vec<(String, f64)> {
        match self {
            Self::List(members) => members.iter().take(limit).cloned().collect(),
            Self::Set { order, .. } => order.iter().rev().take(limit).map(|p| (p.1.to_string(), p.0)).collect(),
        }
    }

    fn score(&self, member: &str) -> Option<f64> {
        match self {
            Self::List(members) => members.iter().find(|(m, _)| m == member).map(|(_, score)| *score),
            Self::Set { scores, .. } => scores.get(member).copied(),
        }
    }
}

/// A member in its place.
struct Placed(f64, Arc<str>);

/// Redis' order of a sorted set: by score, then by the bytes of the member.
fn by_rank(a: (f64, &str), b: (f64, &str)) -> Ordering {
    a.0.total_cmp(&b.0).then_with(|| a.1.cmp(b.1))
}

impl Ord for Placed {
    fn cmp(&self, other: &Self) -> Ordering {
        by_rank((self.0, &self.1), (other.0, &other.1))
    }
}

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Placed {}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn value(key: &str, value: &[u8], ttl: Duration) -> Write {
        Write::Value { key: key.into(), value: value.to_vec(), ttl, fence: Fence::default() }
    }

    fn members(epoch: u64, members: &[(&str, Option<f64>)]) -> Write {
        let members = members.iter().map(|(m, s)| (m.to_string(), *s)).collect();
        Write::Members { key: "od:gone".into(), members, ttl: LONG, fence: Fence { epoch, generation: 1 } }
    }

    fn pairs(pairs: &[(&str, f64)]) -> Vec<(String, f64)> {
        pairs.iter().map(|(m, s)| (m.to_string(), *s)).collect()
    }

    fn write(store: &Memory, writes: &[Write]) {
        store.clone().write(writes, &Applied::default(), Known::default()).expect("memory is always there");
    }

    #[test]
    fn ranks_as_redis_does() {
        let store = Memory::new("od:");
        let all = pairs(&[("b", 1.0), ("z", -1.0), ("a", 1.0), ("c", 2.5)]);
        write(&store, &[Write::Ranked { key: "od:gone".into(), members: all, ttl: LONG, fence: Fence::default() }]);
        assert_eq!(store.ranked("od:gone", 3), pairs(&[("c", 2.5), ("b", 1.0), ("a", 1.0)]));
        write(&store, &[members(2, &[("a", Some(9.0)), ("d", Some(1.0)), ("b", None), ("nobody", None)])]);
        write(&store, &[members(1, &[("a", None), ("b", Some(7.0))])]);
        assert_eq!(store.ranked("od:gone", 9), pairs(&[("a", 9.0), ("c", 2.5), ("d", 1.0), ("z", -1.0)]));
        assert_eq!((store.score("od:gone", "d"), store.score("od:gone", "b")), (Some(1.0), None));
        write(&store, &[members(3, &["a", "c", "d", "z"].map(|m| (m, None)))]);
        assert_eq!(store.dump().into_keys().collect::<Vec<_>>(), ["od:meta"], "an empty set is no key");
    }

    #[test]
    fn an_expired_key_is_not_there_and_its_room_comes_back() {
        let store = Memory::new("od:");
        let short = Duration::from_millis(1);
        let writes: Vec<Write> = (0..1000).map(|i| value(&format!("od:item:{i}"), b"x", short)).collect();
        write(&store, &writes);
        std::thread::sleep(short * 2);
        assert_eq!((store.value("od:item:1"), store.len()), (None, 1));
        let held = || store.0.shards.iter().map(|s| s.read().expect("no panic under the lock").len()).sum::<usize>();
        while held() > 1 {
            std::thread::sleep(SWEEP_EVERY / 8);
            write(&store, &[]);
        }
    }

    #[test]
    fn a_subscriber_hears_of_what_is_there_already() {
        let store = Memory::new("od:");
        let mut told = store.subscribe();
        let applied = Applied { epoch: 3, ..Default::default() };
        store.clone().write(&[value("od:item:1", b"x", LONG)], &applied, Known::default()).expect("memory is always there");
        assert!(told.has_changed().expect("the store lives"));
        assert_eq!(*told.borrow_and_update(), applied);
        assert_eq!(store.value("od:item:1").as_deref(), Some(&b"x"[..]));
        assert_eq!(store.fields("od:meta").expect("written with it")["epoch"], "3");
        assert_eq!(store.sizes()["item"], Size { keys: 1, bytes: 10 });
    }
}
