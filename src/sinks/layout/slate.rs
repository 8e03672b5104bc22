//! Slates, and why an item stands in one.

use prost::{Message, length_delimiter_len};

use super::header::seal;
use super::{HEADER, LayoutError, Stamp, open, proto};
use crate::model::Kind;
use crate::model::slate::{Reason, Source, TERMS};
use crate::model::time::Millis;

/// Why an item is there, in names.
#[derive(Clone, Copy, Debug)]
pub struct Why<'a> {
    pub kind: proto::ReasonKind,
    /// The name of the interaction, or empty.
    pub interaction: &'a str,
    /// An item's id, a bare token, or empty.
    pub subject: &'a str,
}

impl<'a> Why<'a> {
    /// Of a reason; `subject` is the name of what it mentions, of a token with its kind or without.
    pub fn of(reason: &Reason, subject: &'a str) -> Self {
        let (kind, interaction, subject) = match reason {
            Reason::Because { kind, .. } => (proto::ReasonKind::Because, kind.name(), subject),
            Reason::Likes { .. } => (proto::ReasonKind::Likes, "", bare(subject)),
            Reason::Trending { .. } => (proto::ReasonKind::Trending, "", bare(subject)),
            Reason::New { .. } => (proto::ReasonKind::New, "", bare(subject)),
            Reason::Popular => (proto::ReasonKind::Popular, "", subject),
        };
        Self { kind, interaction, subject }
    }

    /// The same with names of its own.
    pub fn stored(&self) -> proto::Reason {
        let Self { kind, interaction, subject } = *self;
        proto::Reason { kind: kind as i32, interaction: interaction.to_string(), subject: subject.to_string() }
    }

    /// Appends it as it lies in an item of a slate.
    pub fn encode(&self, into: &mut Vec<u8>) {
        put_number(into, 1, self.kind as u64);
        put_text(into, 2, self.interaction);
        put_text(into, 3, self.subject);
    }
}

/// `category:jazz` → `jazz`.
pub fn bare(token: &str) -> &str {
    token.split_once(':').map_or(token, |(_, bare)| bare)
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
        put_begin(&mut self.value, 4, text_len(item) + numbers.len + why.len() + 2 + shares.len);
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
        let list = if places.is_empty() { 0 } else { 1 + length_delimiter_len(places.len()) + places.len() };
        put_begin(&mut self.value, 7, text_len(name) + list);
        put_text(&mut self.value, 1, name);
        if !places.is_empty() {
            put_bytes(&mut self.value, 2, places);
        }
    }

    /// The experiment that the variant is an arm of, or empty; after the categories.
    pub fn under(&mut self, experiment: &str) {
        put_text(&mut self.value, 8, experiment);
    }

    /// The next item of the history, latest first; after the experiment.
    pub fn took(&mut self, item: &str, interaction: &str) {
        put_begin(&mut self.value, 9, text_len(item) + text_len(interaction));
        put_text(&mut self.value, 1, item);
        put_text(&mut self.value, 2, interaction);
    }

    /// How many items the user took in all; after the history.
    pub fn in_all(&mut self, taken: u32) {
        put_number(&mut self.value, 10, u64::from(taken));
    }

    /// The whole value, header and all.
    pub fn finish(mut self, stamp: Stamp) -> Vec<u8> {
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

/// The length of a text with its field, which is left out where it is empty.
fn text_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { 1 + length_delimiter_len(text.len()) + text.len() }
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

/// Of the value of a slate key, what the user took lately.
pub fn decode_history(value: &[u8]) -> Result<proto::SlateHistory, LayoutError> {
    let (_, body) = open(value)?;
    Ok(proto::SlateHistory::decode(body)?)
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
    use super::super::*;
    use super::*;
    use proptest::prelude::*;

    fn why(reason: &proto::Reason) -> Why<'_> {
        Why { kind: reason.kind(), interaction: &reason.interaction, subject: &reason.subject }
    }

    fn slate_of(ids: &[String], scores: &[i32], terms: [u16; 5]) -> proto::Slate {
        let kinds = [proto::ReasonKind::Because, proto::ReasonKind::Trending, proto::ReasonKind::Unspecified];
        let item = |(i, (id, score)): (usize, (&String, &i32))| proto::SlateItem {
            item_id: id.clone(),
            score_micro: *score,
            source: Source::ALL[i % Source::ALL.len()] as i32,
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
            history: vec![proto::Taken { item_id: ids[0].clone(), interaction: ["", "like"][ids.len() % 2].into() }],
            taken: ids.len() as u32 * 100,
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
        value.under(&slate.experiment);
        slate.history.iter().for_each(|taken| value.took(&taken.item_id, &taken.interaction));
        value.in_all(slate.taken);
        value.finish(stamp)
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
            let pages = SlatePages::open(&value.clone().into()).expect("what was written");
            prop_assert_eq!((pages.epoch, pages.generation, pages.model, pages.len()), (epoch, generation, model, slate.items.len()));
            for (at, item) in slate.items.iter().enumerate() {
                prop_assert_eq!(pages.id(at), &item.item_id);
                prop_assert_eq!(&pages.item(at).expect("as it was written"), item);
            }
            let shell = pages.shell.clone();
            prop_assert_eq!(shell.as_of_ms, slate.as_of_ms);
            prop_assert_eq!([shell.model, shell.variant, shell.experiment],
                [slate.model.clone(), slate.variant.clone(), slate.experiment.clone()]);
            let places: Vec<usize> = slate.categories[0].places.iter().map(|place| *place as usize).collect();
            prop_assert_eq!(pages.places_of(&slate.categories[0].name), places);
            prop_assert_eq!(decode_slate(&value), Ok(StoredSlate { epoch, generation, model, slate }));
        }

        /// Whatever lies there, it is read as the whole slate is, or refused, or its first bad item is.
        #[test]
        fn any_body_is_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..60), shift in 0usize..60) {
            let mut value = vec![0; HEADER];
            let sound = slate_of(&["a".into(), "b".into()], &[1, 2], [7; 5]).encode_to_vec();
            value.extend_from_slice(&sound[..shift.min(sound.len())]);
            value.extend_from_slice(&body);
            seal(&mut value, Stamp::default());
            let (whole, pages) = (decode_slate(&value), SlatePages::open(&value.into()));
            if let Ok(whole) = whole {
                let pages = pages.expect("what is sound as a whole is sound in pieces");
                let items: Result<Vec<_>, _> = (0..pages.len()).map(|at| pages.item(at)).collect();
                prop_assert_eq!(items.expect("every item is sound"), whole.slate.items);
            }
        }

        #[test]
        fn any_flipped_byte_is_noticed(at in 0usize..200, bit in 0u8..8) {
            let mut value = written(&slate_of(&["a".into(), "b".into()], &[1, 2], [7; 5]), Stamp::default());
            let at = at % value.len();
            value[at] ^= 1 << bit;
            prop_assert!(decode_slate(&value).is_err());
        }
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
        let fields = as_map(&deleted_fields(fence));
        assert_eq!((fields["epoch"].as_str(), fields["generation"].as_str()), ("7", "3"));
        assert!(
            is_deleted_fields(&fields)
                && !is_deleted_fields(&as_map(&encode_interests(&StoredInterests::<String>::default(), 3)))
        );
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
