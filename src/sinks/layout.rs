//! The published layout, `schemas/redis.md`, in both directions: keys, slates, neighbours, features, interests and the mark of
//! what is applied. Pure. What is written here is read back equal, and the bytes of binary values change only together with a version
//! number.

use prost::{Message, length_delimiter_len};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr;
use xxhash_rust::xxh3::xxh3_64;

pub use super::proto;
use super::{Applied, Fence, Sort};
use crate::model::experiment::{Arm, Standing, Sums};
use crate::model::place::{Cell, REGION};
use crate::model::serving::{self, Serving, Version};
use crate::model::slate::{Source, TERMS};
use crate::model::time::{Millis, Window};
use crate::model::{Kind, Positions, Role, Signals};

/// The version in the header of every binary value.
pub const VERSION: u8 = 1;
/// The version of the layout as a whole, in `meta`.
pub const SCHEMA: &str = "1";
/// Bytes before the Protobuf body.
pub const HEADER: usize = 24;
/// An id longer than this many bytes stands in keys as its beginning and its hash.
pub const MAX_ID_BYTES: usize = 256;
/// Number and name of what scores while no model is loaded.
pub const BLEND: (u32, &str) = (0, serving::BLEND);

const MAGIC: [u8; 2] = *b"OD";
/// In the flags of a header: there is nothing under this key any more.
const DELETED: u8 = 1;
/// The field of a hash that says the same.
const DELETED_FIELD: &str = "deleted";
const LONG_ID_KEPT: usize = 128;

/// Fields of a hash, as they are written: most names are known beforehand.
pub type Fields = Vec<(Cow<'static, str>, String)>;

/// Fields as a reader gets them.
pub fn as_map(fields: &Fields) -> BTreeMap<String, String> {
    fields.iter().map(|(name, value)| (name.to_string(), value.clone())).collect()
}

/// Why a stored value cannot be read. Somebody else wrote it, or it was cut.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum LayoutError {
    #[error("the value has {0} bytes, its header alone has {HEADER}: something else lies under this key")]
    Short(usize),
    #[error("the value begins with {0:02x?} instead of {MAGIC:02x?} (\"OD\"): something else lies under this key")]
    Magic([u8; 2]),
    #[error("the value has layout version {0}, this reader knows {VERSION}: upgrade the reader")]
    Version(u8),
    #[error("the value's checksum is {stored:08x} but its bytes make {computed:08x}: it was cut or overwritten")]
    Crc { stored: u32, computed: u32 },
    #[error("the value's body is not the expected message: {0}")]
    Body(#[from] prost::DecodeError),
    #[error("the hash has no field `{0}`: something else lies under this key")]
    Missing(&'static str),
    #[error("field `{field}` is `{value}`, not a number")]
    Number { field: String, value: String },
    #[error("field `{field}` is `{value}`, not {expected} numbers separated by commas")]
    Numbers { field: String, value: String, expected: usize },
    #[error("the layout has schema `{0}`, this reader knows {SCHEMA}: upgrade the reader")]
    Schema(String),
    #[error("field `{0}` does not name a role and a partition")]
    Partition(String),
}

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

    /// Features of an item: a hash.
    pub fn item(&self, item: &str) -> String {
        self.plain("item", item)
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
            "slate" | "neighbours" => Some(Sort::Value),
            "user" | "interests" | "item" | "category" | "author" | "experiments" => Some(Sort::Fields),
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

/// Which write made a binary value: newer (epoch, generation) replaces older.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    pub epoch: u64,
    /// Grows each time the engine starts.
    pub generation: u32,
    /// The number of what scored it.
    pub model: u32,
}

impl Stamp {
    /// What decides whether it replaces another one.
    pub fn fence(&self) -> Fence {
        Fence { epoch: self.epoch, generation: self.generation }
    }
}

/// The member that holds the fence of a sorted set. Its score is −∞, and no id begins with its first byte.
pub fn fence_member(fence: Fence) -> String {
    format!("\0fence:{}:{}", fence.epoch, fence.generation)
}

/// What stays of a deleted binary value: a header without a body, which also reads as an empty list.
pub fn deleted_value(fence: Fence) -> Vec<u8> {
    let mut value = vec![0; HEADER];
    seal_flagged(&mut value, Stamp { epoch: fence.epoch, generation: fence.generation, model: 0 }, DELETED);
    value
}

/// What stays of a deleted hash.
pub fn deleted_fields(fence: Fence) -> Fields {
    let mut fields = vec![(DELETED_FIELD.into(), "1".to_string())];
    push_fence(&mut fields, fence);
    fields
}

/// Whether this is what stays of a binary value.
pub fn is_deleted_value(value: &[u8]) -> bool {
    value.len() >= HEADER && value[..2] == MAGIC && value[3] & DELETED != 0
}

/// Whether this is what stays of a hash.
pub fn is_deleted_fields(fields: &BTreeMap<String, String>) -> bool {
    fields.contains_key(DELETED_FIELD)
}

/// Puts the header before a body that was written from byte [`HEADER`] on.
fn seal(value: &mut [u8], stamp: Stamp) {
    seal_flagged(value, stamp, 0);
}

fn seal_flagged(value: &mut [u8], stamp: Stamp, flags: u8) {
    value[..2].copy_from_slice(&MAGIC);
    value[2] = VERSION;
    value[3] = flags;
    value[4..12].copy_from_slice(&stamp.epoch.to_be_bytes());
    value[12..16].copy_from_slice(&stamp.generation.to_be_bytes());
    value[16..20].copy_from_slice(&stamp.model.to_be_bytes());
    let crc = checksum(value);
    value[20..HEADER].copy_from_slice(&crc.to_be_bytes());
}

/// Of everything but the checksum itself.
fn checksum(value: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&value[..20]);
    crc.update(&value[HEADER..]);
    crc.finalize()
}

/// Checks the header of a binary value; yields who wrote it and the body.
pub fn open(value: &[u8]) -> Result<(Stamp, &[u8]), LayoutError> {
    let header: &[u8; HEADER] = value.first_chunk().ok_or(LayoutError::Short(value.len()))?;
    if header[..2] != MAGIC {
        return Err(LayoutError::Magic([header[0], header[1]]));
    }
    if header[2] != VERSION {
        return Err(LayoutError::Version(header[2]));
    }
    let u32_at = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (stored, computed) = (u32_at(20), checksum(value));
    if stored != computed {
        return Err(LayoutError::Crc { stored, computed });
    }
    let epoch = u64::from(u32_at(4)) << 32 | u64::from(u32_at(8));
    Ok((Stamp { epoch, generation: u32_at(12), model: u32_at(16) }, &value[HEADER..]))
}

/// Why an item is there, in names.
#[derive(Clone, Copy, Debug)]
pub struct Why<'a> {
    pub kind: proto::ReasonKind,
    /// The name of the interaction, or empty.
    pub interaction: &'a str,
    /// An item's id, a bare token, or empty.
    pub subject: &'a str,
}

impl Why<'_> {
    /// Appends it as it lies in an item of a slate.
    pub fn encode(&self, into: &mut Vec<u8>) {
        put_number(into, 1, self.kind as u64);
        put_text(into, 2, self.interaction);
        put_text(into, 3, self.subject);
    }
}

/// A slate being written, item by item, straight from borrowed names: the same bytes [`proto::Slate`] makes of owned ones, at a
/// fraction of the cost (this is the hottest encoding there is).
pub struct SlateValue {
    value: Vec<u8>,
}

impl SlateValue {
    /// Begins a slate in this room.
    pub fn new(mut value: Vec<u8>, user: &str, surface: &str, as_of: Millis) -> Self {
        value.clear();
        value.resize(HEADER, 0);
        put_text(&mut value, 1, user);
        put_text(&mut value, 2, surface);
        put_number(&mut value, 3, as_of as u64);
        Self { value }
    }

    /// The next item, best first, with its [`Why::encode`]d reason.
    pub fn push(&mut self, item: &str, score_micro: i32, source: Source, why: &[u8], terms: &[u16; TERMS.len()]) {
        let (mut numbers, mut shares) = (Few::default(), Few::default());
        put_number(&mut numbers, 2, zigzag(score_micro));
        put_number(&mut numbers, 3, source as u64);
        put_begin(&mut numbers, 4, why.len());
        terms.iter().for_each(|term| put_varint(&mut shares, u64::from(*term)));
        let name = if item.is_empty() { 0 } else { 1 + length_delimiter_len(item.len()) + item.len() };
        put_begin(&mut self.value, 4, name + numbers.len + why.len() + 2 + shares.len);
        put_text(&mut self.value, 1, item);
        self.value.extend_from_slice(numbers.bytes());
        self.value.extend_from_slice(why);
        put_bytes(&mut self.value, 5, shares.bytes());
    }

    /// What ordered the items, after the last of them.
    pub fn ordered_by(&mut self, model: &str, variant: &str) {
        put_text(&mut self.value, 5, model);
        put_text(&mut self.value, 6, variant);
    }

    /// A category (its bare name) with the [`put_place`]s of its items among those pushed; after what ordered them.
    pub fn categorise(&mut self, name: &str, places: &[u8]) {
        let text = if name.is_empty() { 0 } else { 1 + length_delimiter_len(name.len()) + name.len() };
        let list = if places.is_empty() { 0 } else { 1 + length_delimiter_len(places.len()) + places.len() };
        put_begin(&mut self.value, 7, text + list);
        put_text(&mut self.value, 1, name);
        if !places.is_empty() {
            put_bytes(&mut self.value, 2, places);
        }
    }

    /// The whole value, header and all. `experiment` is empty where there is none.
    pub fn finish(mut self, experiment: &str, stamp: Stamp) -> Vec<u8> {
        put_text(&mut self.value, 8, experiment);
        seal(&mut self.value, stamp);
        self.value
    }
}

/// Appends a place of a category.
pub fn put_place(into: &mut Vec<u8>, place: u16) {
    put_varint(into, u64::from(place));
}

const VARINT: u8 = 0;
const BYTES: u8 = 2;

/// What messages are put into.
trait Bytes {
    fn put(&mut self, byte: u8);
}

impl Bytes for Vec<u8> {
    fn put(&mut self, byte: u8) {
        self.push(byte);
    }
}

/// A few numbers of a message: what goes into a vector at once costs it one look at its room.
#[derive(Default)]
struct Few {
    room: [u8; 32],
    len: usize,
}

impl Few {
    fn bytes(&self) -> &[u8] {
        &self.room[..self.len]
    }
}

impl Bytes for Few {
    fn put(&mut self, byte: u8) {
        self.room[self.len] = byte;
        self.len += 1;
    }
}

/// What comes before `length` bytes.
fn put_begin(into: &mut impl Bytes, field: u8, length: usize) {
    into.put(field << 3 | BYTES);
    put_varint(into, length as u64);
}

fn put_bytes(into: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    put_begin(into, field, bytes.len());
    into.extend_from_slice(bytes);
}

/// proto3 leaves out what is empty …
fn put_text(into: &mut Vec<u8>, field: u8, text: &str) {
    if !text.is_empty() {
        put_bytes(into, field, text.as_bytes());
    }
}

/// … and what is zero.
fn put_number(into: &mut impl Bytes, field: u8, number: u64) {
    if number != 0 {
        into.put(field << 3 | VARINT);
        put_varint(into, number);
    }
}

fn put_varint(into: &mut impl Bytes, mut number: u64) {
    while number >= 0x80 {
        into.put(number as u8 | 0x80);
        number >>= 7;
    }
    into.put(number as u8);
}

fn zigzag(n: i32) -> u64 {
    u64::from(((n << 1) ^ (n >> 31)) as u32)
}

/// A slate as it lies in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSlate {
    pub epoch: u64,
    pub generation: u32,
    pub model: u32,
    pub slate: proto::Slate,
}

/// Reads the value of a slate key.
pub fn decode_slate(value: &[u8]) -> Result<StoredSlate, LayoutError> {
    let (stamp, body) = open(value)?;
    let slate = proto::Slate::decode(body)?;
    Ok(StoredSlate { epoch: stamp.epoch, generation: stamp.generation, model: stamp.model, slate })
}

/// The value of a neighbours key.
pub fn encode_neighbours(neighbours: &proto::Neighbours, stamp: Stamp) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER + neighbours.encoded_len());
    value.resize(HEADER, 0);
    neighbours.encode(&mut value).expect("a vector takes everything");
    seal(&mut value, stamp);
    value
}

/// Reads the value of a neighbours key ([`open`] tells which write made it).
pub fn decode_neighbours(value: &[u8]) -> Result<proto::Neighbours, LayoutError> {
    let (_, body) = open(value)?;
    Ok(proto::Neighbours::decode(body)?)
}

/// Features of a user, an item, a category or an author.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// The clock of the epoch that wrote them.
    pub as_of: Millis,
    pub epoch: u64,
    /// In the order of [`Window::ALL`].
    pub windows: [WindowFeatures; Window::ALL.len()],
    /// (interactions a minute over 5m − over 1h) / √(over 1h).
    pub velocity: f64,
    /// Sum of weights, half-life 7 days by default.
    pub decayed: f64,
    /// Smoothed, 0 to 1.
    pub ctr: f64,
    /// Smoothed, 0 to 1.
    pub engagement: f64,
}

/// What happened in one window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WindowFeatures {
    /// Only kinds that occurred.
    pub counts: BTreeMap<Kind, u32>,
    pub weighted: f64,
}

impl Features {
    /// The features of one window.
    pub fn window(&self, window: Window) -> &WindowFeatures {
        &self.windows[window as usize]
    }
}

/// The hash of a key's signals. A kind or the weighted sum is one field for all windows: what a write costs Redis grows with the square
/// of the number of fields.
pub fn encode_features(signals: &Signals, as_of: Millis, fence: Fence) -> Fields {
    let mut fields = Vec::with_capacity(8 + signals.counts.len());
    let occurred = signals.counts.iter().filter(|(_, windows)| windows.iter().any(|n| *n > 0));
    fields.extend(occurred.map(|(kind, windows)| (kind.name().into(), join(windows.iter().copied(), put_whole))));
    fields.push((WEIGHTED.into(), join(signals.weighted_milli.iter().map(|milli| *milli as f64 / 1000.0), put_decimal)));
    let numbers =
        [("velocity", signals.velocity), ("decayed", signals.decayed), ("ctr", signals.ctr), ("engagement", signals.engagement)];
    fields.extend(numbers.map(|(name, value)| (name.into(), decimal(value))));
    push_when(&mut fields, as_of, fence);
    fields
}

/// Reads the hash of a key's signals. Fields it does not know are skipped: later versions may add some.
pub fn decode_features(fields: &BTreeMap<String, String>) -> Result<Features, LayoutError> {
    let mut features = Features {
        as_of: number(fields, "as_of")?,
        epoch: number(fields, "epoch")?,
        velocity: number(fields, "velocity")?,
        decayed: number(fields, "decayed")?,
        ctr: number(fields, "ctr")?,
        engagement: number(fields, "engagement")?,
        windows: Default::default(),
    };
    let weighted = fields.get(WEIGHTED).ok_or(LayoutError::Missing(WEIGHTED))?;
    for (window, sum) in features.windows.iter_mut().zip(split::<f64, { Window::ALL.len() }>(WEIGHTED, weighted)?) {
        window.weighted = sum;
    }
    for (field, value) in fields {
        let Some(kind) = Kind::parse(field) else { continue };
        for (window, n) in features.windows.iter_mut().zip(split::<u32, { Window::ALL.len() }>(field, value)?) {
            if n > 0 {
                window.counts.insert(kind, n);
            }
        }
    }
    Ok(features)
}

const WEIGHTED: &str = "weighted";

/// Numbers in one field, in their published order.
fn join<N>(numbers: impl Iterator<Item = N>, put: impl Fn(&mut String, N)) -> String {
    let mut text = String::with_capacity(40);
    for (i, number) in numbers.enumerate() {
        if i > 0 {
            text.push(',');
        }
        put(&mut text, number);
    }
    text
}

fn put_whole(text: &mut String, number: u32) {
    text.push_str(itoa::Buffer::new().format(number));
}

/// The shortest decimal that reads back as the same number, with a point or an exponent in it.
fn put_decimal(text: &mut String, number: f64) {
    text.push_str(zmij::Buffer::new().format(number));
}

fn decimal(number: f64) -> String {
    join(std::iter::once(number), put_decimal)
}

/// Exactly `N` numbers out of one field.
fn split<T: FromStr, const N: usize>(field: &str, value: &str) -> Result<[T; N], LayoutError> {
    let numbers = value.split(',').map(|number| parse(field, number)).collect::<Result<Vec<T>, _>>()?;
    numbers.try_into().map_err(|_| LayoutError::Numbers { field: field.to_string(), value: value.to_string(), expected: N })
}

/// The interests of a user: token as it is spelt (`category:jazz`) and weight, strongest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredInterests<T = String> {
    pub as_of: Millis,
    pub epoch: u64,
    /// Half-life one hour by default, summing to 1.
    pub short: Vec<(T, f64)>,
    /// Half-life seven days by default, summing to 1.
    pub long: Vec<(T, f64)>,
    /// One minus the cosine of the two.
    pub drift: f64,
}

/// The hash of a user's interests, written by this generation of the engine: a field a token, its long weight and its short one.
pub fn encode_interests<T: AsRef<str>>(interests: &StoredInterests<T>, generation: u32) -> Fields {
    let halves = [&interests.long, &interests.short].into_iter().enumerate();
    let mut weights: Vec<(&str, usize, f64)> =
        halves.flat_map(|(half, of)| of.iter().map(move |(token, weight)| (token.as_ref(), half, *weight))).collect();
    weights.sort_unstable_by_key(|(token, half, _)| (*token, *half));
    let mut fields = Vec::with_capacity(weights.len() + 4);
    for of in weights.chunk_by(|a, b| a.0 == b.0) {
        let mut halves = [0.0; 2];
        of.iter().for_each(|(_, half, weight)| halves[*half] = *weight);
        fields.push((of[0].0.to_string().into(), join(halves.into_iter(), put_decimal)));
    }
    fields.push(("drift".into(), decimal(interests.drift)));
    push_when(&mut fields, interests.as_of, Fence { epoch: interests.epoch, generation });
    fields
}

/// Reads the hash of a user's interests.
pub fn decode_interests(fields: &BTreeMap<String, String>) -> Result<StoredInterests, LayoutError> {
    let mut interests = StoredInterests {
        as_of: number(fields, "as_of")?,
        epoch: number(fields, "epoch")?,
        drift: number(fields, "drift")?,
        ..Default::default()
    };
    for (token, value) in fields.iter().filter(|(f, _)| f.contains(':')) {
        for (half, weight) in [&mut interests.long, &mut interests.short].into_iter().zip(split::<f64, 2>(token, value)?) {
            if weight != 0.0 {
                half.push((token.clone(), weight));
            }
        }
    }
    for weights in [&mut interests.short, &mut interests.long] {
        weights.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    }
    Ok(interests)
}

/// How every experiment stands, as it lies in the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredExperiments {
    pub as_of: Millis,
    pub epoch: u64,
    /// In the order of the settings.
    pub standings: Vec<Standing>,
}

const EXPERIMENTS: &str = "experiments";

/// The hash `experiments`. Names of experiments, arms and versions have neither commas nor colons in them.
pub fn encode_experiments(standings: &[Standing], as_of: Millis, fence: Fence) -> Fields {
    let list = |names: &mut dyn Iterator<Item = &str>| names.collect::<Vec<_>>().join(",");
    let mut fields = vec![(EXPERIMENTS.into(), list(&mut standings.iter().map(|of| of.name.as_str())))];
    for Standing { name, rollout, began, arms } in standings {
        let about = [
            ("rollout", decimal(*rollout)),
            ("began", began.to_string()),
            ("arms", list(&mut arms.iter().map(|arm| arm.name.as_str()))),
            ("ranks", list(&mut arms.iter().map(|arm| arm.ranks.as_str()))),
        ];
        fields.extend(about.map(|(what, text)| (format!("{what}:{name}").into(), text)));
        let sums = |arm: &Arm| arm.sums.numbers().map(|sum| sum.to_string()).join(",");
        fields.extend(arms.iter().map(|arm| (format!("arm:{name}:{}", arm.name).into(), sums(arm))));
    }
    push_when(&mut fields, as_of, fence);
    fields
}

/// Reads the hash `experiments`.
pub fn decode_experiments(fields: &BTreeMap<String, String>) -> Result<StoredExperiments, LayoutError> {
    let names = fields.get(EXPERIMENTS).ok_or(LayoutError::Missing(EXPERIMENTS))?;
    let standings = names.split(',').map(|name| standing(fields, name)).collect::<Result<_, _>>()?;
    Ok(StoredExperiments { as_of: number(fields, "as_of")?, epoch: number(fields, "epoch")?, standings })
}

fn standing(fields: &BTreeMap<String, String>, name: &str) -> Result<Standing, LayoutError> {
    let about = |what: &'static str| {
        let field = format!("{what}:{name}");
        let text = fields.get(&field).ok_or(LayoutError::Missing(what))?;
        Ok::<_, LayoutError>((field, text))
    };
    let ((rollout, share), (began, at)) = (about("rollout")?, about("began")?);
    let arms = about("arms")?.1.split(',').zip(about("ranks")?.1.split(','));
    let arm = |(arm, ranks): (&str, &str)| {
        let field = format!("arm:{name}:{arm}");
        let text = fields.get(&field).ok_or(LayoutError::Missing("arm"))?;
        let too_large = || LayoutError::Number { field: field.clone(), value: text.clone() };
        let sums = Sums::from_numbers(split(&field, text)?).ok_or_else(too_large)?;
        Ok(Arm { name: arm.to_string(), ranks: ranks.to_string(), sums })
    };
    Ok(Standing {
        name: name.to_string(),
        rollout: parse(&rollout, share)?,
        began: parse(&began, at)?,
        arms: arms.map(arm).collect::<Result<_, LayoutError>>()?,
    })
}

const OFFSET: &str = "offset:";
const REBUILDING: &str = "rebuilding";
const TICK_OFFSET: &str = "tick_offset:";
const SERVING: &str = "serving";
const SERVED: &str = "served_before";
const REFUSED: &str = "model_refused_epoch";

/// The hash `meta`.
pub fn encode_applied(applied: &Applied) -> Fields {
    let mut fields = encode_epoch_half(applied);
    fields.extend(encode_tick_half(applied));
    fields
}

/// The fields of `meta` that stand for `epoch`.
pub fn encode_epoch_half(applied: &Applied) -> Fields {
    let mut fields = vec![
        ("schema".into(), SCHEMA.to_string()),
        ("clock_ms".into(), applied.clock_ms.to_string()),
        ("watermark_ms".into(), applied.watermark_ms.to_string()),
        ("model".into(), BLEND.1.to_string()),
    ];
    push_fence(&mut fields, Fence { epoch: applied.epoch, generation: applied.generation });
    if applied.rebuilding {
        fields.push((REBUILDING.into(), "1".to_string()));
    }
    push_serving(&mut fields, &applied.serving);
    push_offsets(&mut fields, OFFSET, &applied.offsets);
    fields
}

/// Which version ranks, once an order said so: its name and digest, or what ranks without one.
fn push_serving(fields: &mut Fields, serving: &Serving) {
    if *serving == Serving::default() {
        return;
    }
    let text = |version: &Option<Version>| {
        version.as_ref().map_or(BLEND.1.to_string(), |version| format!("{}/{:016x}", version.name, version.digest))
    };
    fields.push((SERVING.into(), text(&serving.now)));
    fields.push((SERVED.into(), text(&serving.before)));
    fields.extend(serving.refused.map(|epoch| (REFUSED.into(), epoch.to_string())));
}

fn serving(fields: &BTreeMap<String, String>) -> Result<Serving, LayoutError> {
    let version = |field: &'static str| match fields.get(field).and_then(|text| text.rsplit_once('/')) {
        None => Ok(None),
        Some((name, digest)) => match u64::from_str_radix(digest, 16) {
            Ok(digest) => Ok(Some(Version { name: name.to_string(), digest })),
            Err(_) => Err(LayoutError::Missing(field)),
        },
    };
    let refused = fields.get(REFUSED).map(|epoch| parse(REFUSED, epoch)).transpose()?;
    Ok(Serving { now: version(SERVING)?, before: version(SERVED)?, refused })
}

/// Those that stand for `tick_epoch`; their names begin with `tick_`.
pub fn encode_tick_half(applied: &Applied) -> Fields {
    let mut fields = vec![("tick_epoch".into(), applied.tick_epoch.to_string())];
    push_offsets(&mut fields, TICK_OFFSET, &applied.tick_offsets);
    fields
}

fn push_offsets(fields: &mut Fields, prefix: &str, offsets: &Positions) {
    let named = offsets.iter().map(|((role, partition), next)| (format!("{prefix}{}:{partition}", role.name()), next));
    fields.extend(named.map(|(name, next)| (name.into(), next.to_string())));
}

/// Reads the hash `meta`.
pub fn decode_applied(fields: &BTreeMap<String, String>) -> Result<Applied, LayoutError> {
    match fields.get("schema") {
        Some(schema) if schema == SCHEMA => {}
        Some(other) => return Err(LayoutError::Schema(other.clone())),
        None => return Err(LayoutError::Missing("schema")),
    }
    Ok(Applied {
        epoch: number(fields, "epoch")?,
        // Absent from a mark that an engine without a fence left.
        generation: fields.get("generation").map_or(Ok(0), |generation| parse("generation", generation))?,
        rebuilding: fields.contains_key(REBUILDING),
        tick_epoch: number(fields, "tick_epoch")?,
        clock_ms: number(fields, "clock_ms")?,
        watermark_ms: number(fields, "watermark_ms")?,
        serving: serving(fields)?,
        offsets: positions(fields, OFFSET)?,
        tick_offsets: positions(fields, TICK_OFFSET)?,
    })
}

fn positions(fields: &BTreeMap<String, String>, prefix: &str) -> Result<Positions, LayoutError> {
    let named = fields.iter().filter_map(|(field, next)| Some((field, field.strip_prefix(prefix)?, next)));
    named.map(|(field, place, next)| Ok((partition(field, place)?, parse(field, next)?))).collect()
}

fn partition(field: &str, place: &str) -> Result<(Role, u32), LayoutError> {
    let parts = place.split_once(':').and_then(|(role, partition)| {
        let role = Role::ALL.into_iter().find(|r| r.name() == role)?;
        Some((role, partition.parse().ok()?))
    });
    parts.ok_or_else(|| LayoutError::Partition(field.to_string()))
}

fn push_when(fields: &mut Fields, as_of: Millis, fence: Fence) {
    fields.push(("as_of".into(), as_of.to_string()));
    push_fence(fields, fence);
}

fn push_fence(fields: &mut Fields, fence: Fence) {
    fields.push(("epoch".into(), fence.epoch.to_string()));
    fields.push(("generation".into(), fence.generation.to_string()));
}

fn number<T: FromStr>(fields: &BTreeMap<String, String>, field: &'static str) -> Result<T, LayoutError> {
    parse(field, fields.get(field).ok_or(LayoutError::Missing(field))?)
}

fn parse<T: FromStr>(field: &str, value: &str) -> Result<T, LayoutError> {
    value.parse().map_err(|_| LayoutError::Number { field: field.to_string(), value: value.to_string() })
}

/// A reason in words. `title` is the title of the item it names; without one its id has to do.
pub fn reason_text(reason: &proto::Reason, title: Option<&str>) -> String {
    let subject = title.unwrap_or(&reason.subject);
    let token = reason.subject.as_str();
    match (reason.kind(), token) {
        (proto::ReasonKind::Because, _) => {
            let verb = Kind::parse(&reason.interaction).map_or("chose", Kind::verb);
            format!("because you {verb} {subject}")
        }
        (proto::ReasonKind::Likes, _) => format!("because you like {token}"),
        (proto::ReasonKind::Trending, "") => "trending now".to_string(),
        (proto::ReasonKind::Trending, _) => format!("popular in {token} now"),
        (proto::ReasonKind::New, "") => "new".to_string(),
        (proto::ReasonKind::New, _) => format!("new in {token}"),
        (proto::ReasonKind::Popular, _) => "popular".to_string(),
        // Written by a later version: say nothing rather than something wrong.
        (proto::ReasonKind::Unspecified, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn why(reason: &proto::Reason) -> Why<'_> {
        Why { kind: reason.kind(), interaction: &reason.interaction, subject: &reason.subject }
    }

    fn map(fields: Fields) -> BTreeMap<String, String> {
        as_map(&fields)
    }

    #[test]
    fn fractions_are_the_shortest_that_read_back() {
        let written = [1.0, 0.1, 0.00005, 1e-7, -2.5, 1e15, 1e16].map(decimal);
        assert_eq!(written, ["1.0", "0.1", "0.00005", "1e-7", "-2.5", "1000000000000000.0", "1e+16"]);
        assert_eq!(join([1.5, 0.0].into_iter(), put_decimal), "1.5,0.0");
        assert!(written.iter().all(|text| text.parse::<f64>().is_ok()));
    }

    fn slate_of(ids: &[String], scores: &[i32], terms: [u16; 5]) -> proto::Slate {
        let kinds = [proto::ReasonKind::Because, proto::ReasonKind::Trending, proto::ReasonKind::Unspecified];
        let item = |(i, (id, score)): (usize, (&String, &i32))| proto::SlateItem {
            item_id: id.clone(),
            score_micro: *score,
            source: Source::ALL[i % 6] as i32,
            reason: Some(proto::Reason {
                kind: kinds[i % 3] as i32,
                interaction: ["share", ""][i % 2].to_string(),
                subject: ids[0].clone(),
            }),
            terms: terms.map(u32::from).to_vec(),
        };
        proto::Slate {
            user_id: ids[0].clone(),
            surface: "home".into(),
            as_of_ms: 1_763_600_000_000,
            items: ids.iter().zip(scores).enumerate().map(item).collect(),
            model: "blend".into(),
            variant: ids[0].clone(),
            experiment: ids[ids.len() - 1].clone(),
            categories: vec![proto::Category { name: ids[0].clone(), places: (0..ids.len() as u32).collect() }],
        }
    }

    fn written(slate: &proto::Slate, stamp: Stamp) -> Vec<u8> {
        let mut value = SlateValue::new(Vec::new(), &slate.user_id, &slate.surface, slate.as_of_ms);
        for item in &slate.items {
            let terms: Vec<u16> = item.terms.iter().map(|t| *t as u16).collect();
            let source = Source::ALL[item.source as usize - 1];
            let mut reason = Vec::new();
            why(item.reason.as_ref().expect("always written")).encode(&mut reason);
            value.push(&item.item_id, item.score_micro, source, &reason, &terms.try_into().expect("five"));
        }
        value.ordered_by(&slate.model, &slate.variant);
        for category in &slate.categories {
            let mut places = Vec::new();
            category.places.iter().for_each(|place| put_place(&mut places, *place as u16));
            value.categorise(&category.name, &places);
        }
        value.finish(&slate.experiment, stamp)
    }

    proptest! {
        #[test]
        fn the_fast_writer_makes_the_bytes_of_the_message(
            ids in prop::collection::vec(".{0,200}", 1..20),
            scores in prop::collection::vec(any::<i32>(), 20),
            terms in any::<[u16; 5]>(),
            epoch in any::<u64>(), generation in any::<u32>(), model in any::<u32>(),
        ) {
            let slate = slate_of(&ids, &scores, terms);
            let value = written(&slate, Stamp { epoch, generation, model });
            prop_assert_eq!(&value[HEADER..], slate.encode_to_vec());
            prop_assert_eq!(decode_slate(&value), Ok(StoredSlate { epoch, generation, model, slate }));
        }

        #[test]
        fn any_flipped_byte_is_noticed(at in 0usize..200, bit in 0u8..8) {
            let mut value = written(&slate_of(&["a".into(), "b".into()], &[1, 2], [7; 5]), Stamp::default());
            let at = at % value.len();
            value[at] ^= 1 << bit;
            prop_assert!(decode_slate(&value).is_err());
        }

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

    #[test]
    fn what_is_wrong_with_a_value_is_named() {
        let value = written(&slate_of(&["a".into()], &[1], [7; 5]), Stamp::default());
        assert_eq!(decode_slate(&value[..7]), Err(LayoutError::Short(7)));
        assert_eq!(decode_slate(&[b'{'; 40]), Err(LayoutError::Magic([b'{'; 2])));
        let mut newer = value.clone();
        newer[2] = 2;
        assert_eq!(decode_slate(&newer), Err(LayoutError::Version(2)));
        assert!(matches!(decode_slate(&value[..value.len() - 1]), Err(LayoutError::Crc { .. })));
        let mut odd = vec![0; HEADER];
        odd.push(0xff);
        seal(&mut odd, Stamp::default());
        assert!(matches!(decode_slate(&odd), Err(LayoutError::Body(_))));
    }

    #[test]
    fn what_stays_of_a_deleted_key_carries_its_fence_and_no_content() {
        let fence = Fence { epoch: 7, generation: 3 };
        let value = deleted_value(fence);
        let read = decode_slate(&value).expect("a whole value");
        assert_eq!((read.epoch, read.generation, read.slate), (7, 3, proto::Slate::default()));
        assert!(is_deleted_value(&value) && !is_deleted_value(&value[..HEADER - 1]) && !is_deleted_value(b"OD rubbish"));
        assert!(!is_deleted_value(&written(&slate_of(&["a".into()], &[1], [7; 5]), Stamp::default())));
        let fields = map(deleted_fields(fence));
        assert_eq!((fields["epoch"].as_str(), fields["generation"].as_str()), ("7", "3"));
        assert!(
            is_deleted_fields(&fields) && !is_deleted_fields(&map(encode_interests(&StoredInterests::<String>::default(), 3)))
        );
    }

    #[test]
    fn features_round_trip() {
        let counts = vec![(Kind::View, [0, 2, 3, 4, 5]), (Kind::NotInterested, [0, 0, 0, 0, 1])];
        let signals = Signals {
            counts,
            decayed: 1.0 / 3.0,
            velocity: -2.5e-9,
            ctr: 0.05,
            engagement: 1.0,
            weighted_milli: [0, 2_000, 3_000, 4_000, 3_001],
        };
        let fields = map(encode_features(&signals, 1_763_600_000_000, Fence { epoch: 42, generation: 3 }));
        assert_eq!((fields["view"].as_str(), fields["not_interested"].as_str()), ("0,2,3,4,5", "0,0,0,0,1"));
        assert_eq!(fields.get("like"), None, "a kind that did not occur is not written");
        assert_eq!(fields["weighted"], "0.0,2.0,3.0,4.0,3.001");
        let read = decode_features(&fields).expect("what was written");
        assert_eq!((read.as_of, read.epoch), (1_763_600_000_000, 42));
        assert_eq!((read.decayed, read.velocity, read.ctr, read.engagement), (1.0 / 3.0, -2.5e-9, 0.05, 1.0));
        assert_eq!(read.window(Window::H24).counts, [(Kind::View, 5), (Kind::NotInterested, 1)].into());
        assert_eq!(read.windows.clone().map(|w| w.weighted), [0.0, 2.0, 3.0, 4.0, 3.001]);

        let mut odd = fields.clone();
        odd.insert("view".into(), "0,two,3,4,5".into());
        let wrong = LayoutError::Number { field: "view".into(), value: "two".into() };
        assert_eq!(decode_features(&odd), Err(wrong));
        odd.insert("view".into(), "0,2,3,4".into());
        let wrong = LayoutError::Numbers { field: "view".into(), value: "0,2,3,4".into(), expected: 5 };
        assert_eq!(decode_features(&odd), Err(wrong));
        assert_eq!(decode_features(&BTreeMap::new()), Err(LayoutError::Missing("as_of")));
    }

    #[test]
    fn interests_round_trip_strongest_first() {
        let weights = |pairs: &[(&str, f64)]| pairs.iter().map(|(t, w)| (t.to_string(), *w)).collect::<Vec<_>>();
        let interests = StoredInterests {
            as_of: 5,
            epoch: 6,
            short: weights(&[("tag:live", 0.75), ("category:jazz", 0.25)]),
            long: weights(&[("category:jazz", 0.5), ("author:a:b", 0.25), ("tag:short:x", 0.25)]),
            drift: 0.1,
        };
        let fields = map(encode_interests(&interests, 3));
        assert_eq!((fields["category:jazz"].as_str(), fields["tag:live"].as_str()), ("0.5,0.25", "0.0,0.75"));
        assert_eq!(decode_interests(&fields), Ok(interests));
    }

    #[test]
    fn the_mark_round_trips() {
        let applied = Applied {
            epoch: 9,
            generation: 3,
            rebuilding: true,
            tick_epoch: 8,
            clock_ms: -1,
            watermark_ms: -2,
            serving: Serving { now: Some(Version { name: "a-1".into(), digest: 0xfe }), before: None, refused: Some(7) },
            offsets: [((Role::Events, 3), u64::MAX), ((Role::Control, 0), 1)].into(),
            tick_offsets: [((Role::Events, 3), 7)].into(),
        };
        let mut fields = map(encode_applied(&applied));
        assert_eq!((fields["serving"].as_str(), fields["served_before"].as_str()), ("a-1/00000000000000fe", "blend"));
        assert_eq!(fields["offset:events:3"], u64::MAX.to_string());
        assert_eq!(decode_applied(&fields), Ok(applied));
        fields.insert("offset:stars:1".into(), "1".into());
        assert_eq!(decode_applied(&fields), Err(LayoutError::Partition("offset:stars:1".into())));
        fields.insert("schema".into(), "2".into());
        assert_eq!(decode_applied(&fields), Err(LayoutError::Schema("2".into())));
    }

    #[test]
    fn experiments_round_trip_and_what_is_wrong_is_named() {
        let arm = |name: &str, of: i128| {
            let sums = Sums::from_numbers(std::array::from_fn(|n| of + n as i128)).expect("small");
            Arm { name: name.into(), ranks: "lr-1".into(), sums }
        };
        let one = |name: &str| Standing { name: name.into(), rollout: 0.1, began: -5, arms: vec![arm("a", 1), arm("b", 20)] };
        let standings = vec![one("z"), one("y")];
        let fields = map(encode_experiments(&standings, 7, Fence { epoch: 9, generation: 3 }));
        assert_eq!(fields["arm:y:b"], "20,21,22,23,24,25,26,27,28,29,30");
        assert_eq!(decode_experiments(&fields), Ok(StoredExperiments { as_of: 7, epoch: 9, standings }));
        let broken = |field: &str, value: Option<&str>| {
            let mut fields = fields.clone();
            fields.remove(field);
            fields.extend(value.map(|value| (field.to_string(), value.to_string())));
            decode_experiments(&fields).expect_err("it must be refused").to_string()
        };
        assert!(broken("arm:y:b", None).contains("no field `arm`"));
        assert!(broken("rollout:z", Some("all")).contains("`rollout:z` is `all`"));
        assert!(broken("arm:y:b", Some("1,2")).contains("not 11 numbers"));
        let large = format!("{},1,1,1,1,1,1,1,1,1,1", u64::MAX);
        assert!(broken("arm:y:b", Some(&large)).contains("`arm:y:b` is"));
    }

    #[test]
    fn reasons_in_words() {
        use proto::ReasonKind as R;
        let text = |kind: R, interaction: &str, subject: &str, title: Option<&str>| {
            reason_text(&proto::Reason { kind: kind as i32, interaction: interaction.into(), subject: subject.into() }, title)
        };
        assert_eq!(text(R::Because, "share", "i9", Some("A")), "because you shared A");
        assert_eq!(text(R::Because, "comment", "i9", None), "because you commented on i9");
        assert_eq!(text(R::Because, "hum", "i9", None), "because you chose i9");
        assert_eq!(text(R::Likes, "", "jazz", None), "because you like jazz");
        assert_eq!(text(R::Trending, "", "", None), "trending now");
        assert_eq!(text(R::Trending, "", "jazz", None), "popular in jazz now");
        assert_eq!(text(R::New, "", "", None), "new");
        assert_eq!(text(R::New, "", "jazz", None), "new in jazz");
        assert_eq!(text(R::Popular, "", "", None), "popular");
        assert_eq!(text(R::Unspecified, "", "x", None), "");
    }
}
