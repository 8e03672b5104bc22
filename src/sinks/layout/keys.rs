//! The names of all keys, and the ids in them.

use std::fmt::Write as _;
use xxhash_rust::xxh3::xxh3_64;

use super::Sort;
use crate::model::place::{Cell, REGION};

/// An id longer than this many bytes stands in keys as its beginning and its hash.
pub const MAX_ID_BYTES: usize = 256;
const LONG_ID_KEPT: usize = 128;

/// What trends is kept for all items together, and for some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    All,
    /// By its bare name.
    Category(&'a str),
    /// By its bare name.
    Language(&'a str),
    /// As H3 writes it, of [`REGION`].
    Cell(&'a str),
}

impl<'a> Segment<'a> {
    /// Reads [`Segment::name`]; `None` of anything else.
    pub fn parse(name: &'a str) -> Option<Self> {
        match name.split_once(':') {
            None => (name == "global").then_some(Self::All),
            Some((_, "")) => None,
            Some(("category", name)) => Some(Self::Category(name)),
            Some(("language", name)) => Some(Self::Language(name)),
            Some(("cell", name)) => Cell::parse(name).filter(|cell| cell.is_of(REGION)).map(|_| Self::Cell(name)),
            Some(_) => None,
        }
    }

    /// As it is asked for: `global`, `category:jazz`, `language:en`, `cell:841f8d7ffffffff`.
    pub fn name(self) -> String {
        match self.parts() {
            (sort, "") => sort.to_string(),
            (sort, name) => format!("{sort}:{name}"),
        }
    }

    fn parts(self) -> (&'static str, &'a str) {
        match self {
            Self::All => ("global", ""),
            Self::Category(name) => ("category", name),
            Self::Language(name) => ("language", name),
            Self::Cell(name) => ("cell", name),
        }
    }
}

/// The names of all keys under one prefix.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    /// Keys that begin with `prefix` (which must not contain braces, or Redis Cluster takes it for a hash tag).
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_string() }
    }

    /// The slate of a user: a binary value.
    pub fn slate(&self, surface: &str, variant: Option<&str>, user: &str) -> String {
        let mut key = self.family("slate", surface.len() + user.len() + 3);
        push_id(&mut key, surface);
        key.push(':');
        if let Some(variant) = variant {
            push_id(&mut key, variant);
            key.push(':');
        }
        push_tag(&mut key, user);
        key
    }

    /// Features of a user: a hash.
    pub fn user(&self, user: &str) -> String {
        self.tagged("user", user)
    }

    /// Interests of a user: a hash.
    pub fn interests(&self, user: &str) -> String {
        self.tagged("interests", user)
    }

    /// Items not to be shown to a user again: a sorted set by time of the last interaction.
    pub fn seen(&self, user: &str) -> String {
        self.tagged("seen", user)
    }

    /// Where a user is, what they speak and whom they turned away: a hash.
    pub fn profile(&self, user: &str) -> String {
        self.tagged("profile", user)
    }

    /// Features of an item: a hash.
    pub fn item(&self, item: &str) -> String {
        self.plain("item", item)
    }

    /// What the catalogue says of an item: a binary value.
    pub fn card(&self, item: &str) -> String {
        self.plain("card", item)
    }

    /// Features of a category (its bare name): a hash.
    pub fn category(&self, category: &str) -> String {
        self.plain("category", category)
    }

    /// Features of an author (the bare name): a hash.
    pub fn author(&self, author: &str) -> String {
        self.plain("author", author)
    }

    /// Neighbours of an item: a binary value.
    pub fn neighbours(&self, item: &str) -> String {
        self.plain("neighbours", item)
    }

    /// What is trending in a segment: a sorted set by score in thousandths.
    pub fn trending(&self, segment: Segment<'_>) -> String {
        let (sort, name) = segment.parts();
        let mut key = self.family("trending", sort.len() + name.len() + 1);
        key.push_str(sort);
        if !name.is_empty() {
            key.push(':');
            push_id(&mut key, name);
        }
        key
    }

    /// Items in a cell of the earth (as H3 writes it): a sorted set by where they stand.
    pub fn near(&self, cell: &str) -> String {
        self.plain("near", cell)
    }

    /// What is popular over the days, shown when nothing trends: a sorted set by the forward logarithm of the decayed sum.
    pub fn popular(&self) -> String {
        format!("{}trending:popular", self.prefix)
    }

    /// The newest items: a sorted set by creation time.
    pub fn fresh(&self) -> String {
        format!("{}trending:fresh", self.prefix)
    }

    /// Items withdrawn: a sorted set by the time they went.
    pub fn gone(&self) -> String {
        format!("{}gone", self.prefix)
    }

    /// How every experiment stands: a hash.
    pub fn experiments(&self) -> String {
        format!("{}experiments", self.prefix)
    }

    /// How much there is: a hash.
    pub fn census(&self) -> String {
        format!("{}census", self.prefix)
    }

    /// How far the answers have come: a hash.
    pub fn meta(&self) -> String {
        format!("{}meta", self.prefix)
    }

    /// Which run of the engine may write without looking at fences: `<first epoch>:<generation>`.
    pub fn lease(&self) -> String {
        format!("{}lease", self.prefix)
    }

    /// The family a key belongs to: `slate` for `od:slate:home:{u1}`. Empty for a key of somebody else.
    pub fn family_of<'k>(&self, key: &'k str) -> &'k str {
        let rest = key.strip_prefix(&self.prefix).unwrap_or("");
        rest.split(':').next().unwrap_or("")
    }

    /// What kind of value lies under a key. `None`: the mark, the lease, or somebody else's key.
    pub fn sort_of(&self, key: &str) -> Option<Sort> {
        match self.family_of(key) {
            "slate" | "neighbours" | "card" => Some(Sort::Value),
            "user" | "interests" | "profile" | "item" | "category" | "author" | "experiments" | "census" => Some(Sort::Fields),
            "seen" | "trending" | "near" | "gone" => Some(Sort::Ranked),
            _ => None,
        }
    }

    /// A pattern of Redis that every key of ours matches.
    pub fn pattern(&self) -> String {
        let escaped = self.prefix.chars().flat_map(|c| r"\*?[]^-".contains(c).then_some('\\').into_iter().chain([c]));
        escaped.chain(['*']).collect()
    }

    fn family(&self, family: &str, room: usize) -> String {
        let mut key = String::with_capacity(self.prefix.len() + family.len() + room + 3);
        key.push_str(&self.prefix);
        key.push_str(family);
        key.push(':');
        key
    }

    fn plain(&self, family: &str, id: &str) -> String {
        let mut key = self.family(family, id.len());
        push_id(&mut key, id);
        key
    }

    fn tagged(&self, family: &str, id: &str) -> String {
        let mut key = self.family(family, id.len());
        push_tag(&mut key, id);
        key
    }
}

/// Braces around a user's id put all keys of one user on one node of a Redis Cluster.
fn push_tag(key: &mut String, id: &str) {
    key.push('{');
    push_id(key, id);
    key.push('}');
}

fn push_id(key: &mut String, id: &str) {
    if id.len() <= MAX_ID_BYTES {
        return push_escaped(key, id);
    }
    push_escaped(key, &id[..id.floor_char_boundary(LONG_ID_KEPT)]);
    // `%~` is no escape, so a shortened id meets no other one.
    let _ = write!(key, "%~{:016x}", xxh3_64(id.as_bytes()));
}

fn push_escaped(key: &mut String, id: &str) {
    if !id.bytes().any(needs_escape) {
        return key.push_str(id);
    }
    for c in id.chars() {
        match u8::try_from(c) {
            Ok(byte) if needs_escape(byte) => write!(key, "%{byte:02X}").expect("a string takes everything"),
            _ => key.push(c),
        }
    }
}

fn needs_escape(byte: u8) -> bool {
    matches!(byte, b'{' | b'}' | b'%' | b':' | 0..=0x1f | 0x7f)
}

/// The id that stands in a key in this form. `None` for a shortened one (see [`MAX_ID_BYTES`]) and for what no writer writes.
pub fn decode_id(escaped: &str) -> Option<String> {
    let mut id = String::with_capacity(escaped.len());
    let mut parts = escaped.split('%');
    id.push_str(parts.next()?);
    for part in parts {
        let byte = u8::from_str_radix(part.get(..2)?, 16).ok().filter(|b| needs_escape(*b))?;
        id.push(char::from(byte));
        id.push_str(&part[2..]);
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_round_trip_and_leave_nothing_that_a_key_means(id in "(?s).{0,80}") {
            let key = Keys::new("od:").user(&id);
            let inner = key.strip_prefix("od:user:{").and_then(|k| k.strip_suffix('}')).expect("its form");
            let free = !inner.bytes().any(|b| b != b'%' && needs_escape(b));
            prop_assert!(free);
            prop_assert_eq!(decode_id(inner), Some(id));
        }
    }

    #[test]
    fn keys_are_those_of_the_table() {
        let keys = Keys::new("od:");
        assert_eq!(keys.slate("home", None, "u1"), "od:slate:home:{u1}");
        assert_eq!(keys.slate("home", Some("b"), "u1"), "od:slate:home:b:{u1}");
        assert_eq!(keys.user("a{b}:%\n"), "od:user:{a%7Bb%7D%3A%25%0A}");
        assert_eq!(keys.interests("ü"), "od:interests:{ü}");
        assert_eq!(keys.seen("u1"), "od:seen:{u1}");
        assert_eq!(keys.item("i:9"), "od:item:i%3A9");
        assert_eq!((keys.category("jazz"), keys.author("ann")), ("od:category:jazz".into(), "od:author:ann".into()));
        assert_eq!(keys.neighbours("i9"), "od:neighbours:i9");
        assert_eq!(
            (keys.trending(Segment::All), keys.trending(Segment::Category("a:b"))),
            ("od:trending:global".into(), "od:trending:category:a%3Ab".into())
        );
        let segments = ["global", "category:a:b", "language:en", "cell:841f8d7ffffffff"];
        assert_eq!(segments.map(|name| Segment::parse(name).expect("a segment").name()), segments);
        assert_eq!(keys.trending(Segment::Language("en")), "od:trending:language:en");
        assert_eq!(keys.trending(Segment::Cell("841f8d7ffffffff")), "od:trending:cell:841f8d7ffffffff");
        for odd in ["", "popular", "category:", "category", "cell:841F", "cell:881fb4662dfffff", "city:berlin"] {
            assert_eq!(Segment::parse(odd), None, "{odd}");
        }
        assert_eq!(keys.near("881fb46625fffff"), "od:near:881fb46625fffff");
        assert_eq!((keys.gone(), keys.meta()), ("od:gone".into(), "od:meta".into()));
        assert_eq!([keys.sort_of("od:meta"), keys.sort_of("od:lease"), keys.sort_of("user:{u1}")], [None; 3]);
        assert_eq!((keys.pattern(), Keys::new("a*[b]:").pattern()), ("od:*".into(), r"a\*\[b\]:*".into()));
        assert_eq!((keys.experiments(), keys.sort_of("od:experiments")), ("od:experiments".into(), Some(Sort::Fields)));
        assert_eq!(keys.family_of("od:slate:home:{u1}"), "slate");
        assert_eq!((keys.family_of("od:meta"), keys.family_of("other:x")), ("meta", ""));
    }

    #[test]
    fn long_ids_are_cut_and_stay_apart() {
        let keys = Keys::new("od:");
        let (a, b) = ("ü".repeat(50_000), "ü".repeat(50_001));
        assert_ne!(keys.item(&a), keys.item(&b));
        assert!(keys.item(&a).len() < 200);
        assert_eq!(decode_id(keys.item(&a).strip_prefix("od:item:").expect("its form")), None);
    }
}
