//! What puts candidates in order, read where it lies in the store's values: a request looks at some hundred of them, and needs neither all
//! that they say nor words of its own.

use prost::encoding::{WireType, decode_key, decode_varint};
use smallvec::SmallVec;

use super::pages::delimited;
use super::{HEADER, LayoutError, open};

/// A few words of a value.
pub type Words<'v> = SmallVec<[&'v str; 4]>;

/// A [`Card`](super::proto::Card), as far as it is about the order of candidates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CardGlance<'v> {
    pub created_ms: i64,
    pub categories: Words<'v>,
    pub tags: Words<'v>,
    pub author: &'v str,
    pub mature: bool,
    pub language: &'v str,
    pub city: &'v str,
    pub lat: Option<f64>,
    pub lon: Option<f64>,
    pub quality: Option<f64>,
    pub avg_viewers: Option<f64>,
    pub followers: Option<u64>,
    pub partnered: bool,
}

impl<'v> CardGlance<'v> {
    /// Reads the value of a card's key.
    pub fn of(value: &'v [u8]) -> Result<Self, LayoutError> {
        let (_, mut body) = open(value)?;
        let mut card = Self::default();
        while let Some((tag, field)) = next(&mut body)? {
            match (tag, field) {
                (3, Field::Whole(at)) => card.created_ms = at as i64,
                (4, Field::Bytes(name)) => card.categories.push(text(name)?),
                (5, Field::Bytes(name)) => card.tags.push(text(name)?),
                (6, Field::Bytes(name)) => card.author = text(name)?,
                (8, Field::Whole(yes)) => card.mature = yes != 0,
                (9, Field::Bytes(name)) => card.language = text(name)?,
                (10, Field::Bytes(name)) => card.city = text(name)?,
                (11, Field::Real(lat)) => card.lat = Some(lat),
                (12, Field::Real(lon)) => card.lon = Some(lon),
                (13, Field::Real(quality)) => card.quality = Some(quality),
                (14, Field::Real(viewers)) => card.avg_viewers = Some(viewers),
                (15, Field::Whole(followers)) => card.followers = Some(followers),
                (16, Field::Whole(yes)) => card.partnered = yes != 0,
                _ => {}
            }
        }
        Ok(card)
    }
}

/// Bytes of the value of a neighbours key that hold how many users took the item, whatever else is in it.
pub const CROWD: usize = HEADER + 6;

/// Reads these first bytes. `None`: an earlier version wrote it, which put that number last.
pub fn crowd(mut start: &[u8]) -> Option<u32> {
    start.split_off(..HEADER)?;
    match next(&mut start) {
        Ok(Some((4, Field::Whole(users)))) => u32::try_from(users).ok(),
        _ => None,
    }
}

/// Reads the value of a neighbours key: each item near another with how many users took both, most similar first. Yields how many
/// took the item itself.
pub fn near(value: &[u8], mut each: impl FnMut(&str, u32)) -> Result<u32, LayoutError> {
    let (_, mut body) = open(value)?;
    let mut users = 0;
    while let Some((tag, field)) = next(&mut body)? {
        match (tag, field) {
            (3, Field::Bytes(mut neighbour)) => {
                let (mut item, mut both) = ("", 0);
                while let Some((tag, field)) = next(&mut neighbour)? {
                    match (tag, field) {
                        (1, Field::Bytes(name)) => item = text(name)?,
                        (3, Field::Whole(users)) => both = users as u32,
                        _ => {}
                    }
                }
                each(item, both);
            }
            (4, Field::Whole(took)) => users = took as u32,
            _ => {}
        }
    }
    Ok(users)
}

/// A field of a message, where it lies.
enum Field<'v> {
    Whole(u64),
    Real(f64),
    Bytes(&'v [u8]),
    /// Of a sort that no message here has: a later version's.
    Other,
}

/// The next field of a message and its tag, taken off its beginning.
fn next<'v>(rest: &mut &'v [u8]) -> Result<Option<(u32, Field<'v>)>, LayoutError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let (tag, wire) = decode_key(rest)?;
    let field = match wire {
        WireType::Varint => Field::Whole(decode_varint(rest)?),
        WireType::SixtyFourBit => Field::Real(f64::from_le_bytes(fixed(rest)?)),
        WireType::ThirtyTwoBit => fixed::<4>(rest).map(|_| Field::Other)?,
        WireType::LengthDelimited => Field::Bytes(delimited(rest).ok_or(LayoutError::Cut)?),
        WireType::StartGroup | WireType::EndGroup => return Err(LayoutError::Cut),
    };
    Ok(Some((tag, field)))
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], LayoutError> {
    rest.split_off(..N).and_then(|bytes| bytes.try_into().ok()).ok_or(LayoutError::Cut)
}

fn text(bytes: &[u8]) -> Result<&str, LayoutError> {
    std::str::from_utf8(bytes).map_err(|_| LayoutError::Cut)
}

#[cfg(test)]
mod tests {
    use super::super::{Stamp, decode_card, decode_neighbours, encode_card, encode_neighbours, header, proto};
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    const STAMP: Stamp = Stamp { epoch: 7, generation: 2, model: 0 };

    fn words() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec("[a-zä ]{0,9}", 0..6)
    }

    fn cards() -> impl Strategy<Value = proto::Card> {
        let names = (words(), words(), "[a-z]{0,9}", "[a-z]{0,9}", "[a-zü]{0,9}", "[a-z ]{0,30}");
        let numbers = (any::<i64>(), any::<Option<f64>>(), any::<Option<f64>>(), any::<Option<f64>>(), any::<Option<u64>>());
        (names, numbers, any::<bool>(), any::<bool>()).prop_map(|(names, numbers, mature, partnered)| {
            let (categories, tags, author, language, city, title) = names;
            let (created_ms, lat, quality, avg_viewers, followers) = numbers;
            let (item_id, as_of_ms, lon) = ("i".to_string(), 5, lat.map(|lat| -lat));
            let where_and_whose = proto::Card { author, language, city, title, lat, lon, ..proto::Card::default() };
            let counted = proto::Card { quality, avg_viewers, followers, mature, partnered, ..where_and_whose };
            proto::Card { item_id, as_of_ms, created_ms, categories, tags, ..counted }
        })
    }

    /// The bits of what may be no number.
    fn bits(number: Option<f64>) -> Option<u64> {
        number.map(f64::to_bits)
    }

    proptest! {
        #[test]
        fn a_glance_at_a_card_sees_what_reading_it_whole_does(card in cards()) {
            let value = encode_card(&card, STAMP);
            let (whole, seen) = (decode_card(&value).expect("whole"), CardGlance::of(&value).expect("whole"));
            prop_assert_eq!((seen.categories.to_vec(), seen.tags.to_vec()), (
                whole.categories.iter().map(String::as_str).collect::<Vec<_>>(),
                whole.tags.iter().map(String::as_str).collect::<Vec<_>>(),
            ));
            prop_assert_eq!((seen.author, seen.language, seen.city), (&*whole.author, &*whole.language, &*whole.city));
            prop_assert_eq!((seen.created_ms, seen.mature, seen.partnered), (whole.created_ms, whole.mature, whole.partnered));
            prop_assert_eq!([seen.lat, seen.lon, seen.quality, seen.avg_viewers].map(bits),
                [whole.lat, whole.lon, whole.quality, whole.avg_viewers].map(bits));
            prop_assert_eq!(seen.followers, whole.followers);
        }

        #[test]
        fn what_is_cut_or_scribbled_on_is_an_error_and_never_a_panic(card in cards(), at in 0usize..400, byte: u8) {
            let mut body = encode_card(&card, STAMP)[HEADER..].to_vec();
            body.truncate(at.max(1));
            let last = body.len().saturating_sub(1);
            body.iter_mut().skip(last / 2).take(1).for_each(|b| *b = byte);
            let mut value = vec![0; HEADER];
            value.extend(&body);
            header::seal(&mut value, STAMP);
            let whole = proto::Card::decode(&body[..]);
            prop_assert!(whole.is_err() || CardGlance::of(&value).is_ok(), "{:?}", CardGlance::of(&value));
        }
    }

    #[test]
    fn a_list_is_read_where_it_lies_and_its_crowd_from_its_first_bytes() {
        let neighbour = |n: u32| proto::Neighbour { item_id: format!("i{n}"), similarity_micro: -3, users: n };
        for users in [0, 1, 300, u32::MAX] {
            let list = proto::Neighbours { item_id: "i".into(), as_of_ms: 9, neighbours: (0..3).map(neighbour).collect(), users };
            let value = encode_neighbours(&list, STAMP);
            assert_eq!(decode_neighbours(&value).as_ref(), Ok(&list));
            let mut seen = Vec::new();
            assert_eq!(near(&value, |item, both| seen.push((item.to_string(), both))), Ok(users));
            assert_eq!(seen, (0..3).map(|n| (format!("i{n}"), n)).collect::<Vec<_>>());
            assert_eq!(crowd(&value[..CROWD]), Some(users));
        }
    }

    /// A list written before says it last; a deleted one and what is none say nothing.
    #[test]
    fn the_crowd_of_an_older_list_is_not_guessed() {
        let list = proto::Neighbours { item_id: "i".into(), users: 12, ..proto::Neighbours::default() };
        let mut older = vec![0; HEADER];
        older.extend(list.encode_to_vec());
        header::seal(&mut older, STAMP);
        assert_eq!((crowd(&older), near(&older, |_, _| {})), (None, Ok(12)));
        assert_eq!((crowd(&older[..HEADER]), crowd(b"OD"), crowd(b"")), (None, None, None));
    }
}
