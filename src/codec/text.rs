//! The scalars of a record (ids, moments, lists of words) and what each must keep. An id that passes is 1 to `id_bytes` bytes of
//! UTF-8 without control characters; a moment that passes lies between 1990 and 2200.

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use time::format_description::well_known::{Iso8601, Rfc3339};
use time::{Date, OffsetDateTime, PrimitiveDateTime, Time};

use super::Limits;
use crate::model::ids::{TokenId, TokenKind};
use crate::model::names::Collision;
use crate::model::time::{Millis, SECOND};

/// 1990-01-01, the first plausible moment.
const EARLIEST: Millis = 631_152_000_000;
/// 2200-01-01, the first moment that is not plausible any more.
const LATEST: Millis = 7_258_118_400_000;
/// Most entries of a list of categories, tags, interests, blocked authors or items.
const MAX_WORDS: usize = 1024;

/// An id: a string, or an integer that means its decimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Text(Cow::Borrowed(text))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a string or an integer")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(text.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_string())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(number.to_string())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(number.to_string())))
    }
}

/// A moment as it was sent: digits, as a number or a string, or ISO 8601.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Moment<'a> {
    Number(i64),
    Written(Cow<'a, str>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Moment<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(MomentVisitor)
    }
}

struct MomentVisitor;

impl<'de> Visitor<'de> for MomentVisitor {
    type Value = Moment<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("milliseconds as an integer or a string, or ISO 8601")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Moment::Written(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Moment::Written(Cow::Owned(text.to_string())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Moment::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Moment::Number(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

/// A string where there is one; anything else is passed over. For fields that only mean something in a foreign shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Loose<'a>(pub(super) Option<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Loose<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Loose(Some(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Loose(Some(Cow::Owned(text.to_string()))))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Loose(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Loose(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Loose(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Loose(None))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Loose(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Loose(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Loose(None))
    }
}

/// A list of words; a single word stands for a list of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words<'a>(pub(super) Vec<Text<'a>>);

impl<'a> From<&'a Vec<String>> for Words<'a> {
    fn from(words: &'a Vec<String>) -> Self {
        Words(words.iter().map(|w| w.as_str().into()).collect())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Words<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(WordsVisitor)
    }
}

struct WordsVisitor;

impl<'de> Visitor<'de> for WordsVisitor {
    type Value = Words<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of strings")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Words(vec![text.into()]))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        TextVisitor.visit_str(text).map(|t| Words(vec![t]))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        TextVisitor.visit_u64(number).map(|t| Words(vec![t]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut words = Vec::new();
        while let Some(word) = seq.next_element()? {
            words.push(word);
        }
        Ok(Words(words))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Words::default())
    }
}

/// Bytes as text; `what` is named in the error.
pub(super) fn utf8<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a str, String> {
    std::str::from_utf8(bytes).map_err(|e| format!("{what} is not UTF-8 at byte {}; send UTF-8", e.valid_up_to()))
}

/// What a sender wrote, short and printable, for an error.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        shown.push('…');
    }
    shown
}

/// An id that must be there.
pub(super) fn required<'a>(field: &str, text: Option<&'a Text>, limits: Limits) -> Result<&'a str, String> {
    match text {
        Some(text) => word(field, text, limits),
        None => Err(format!("`{field}` is missing; send a string or an integer")),
    }
}

/// An id, checked.
pub(super) fn word<'a>(field: &str, text: &'a Text, limits: Limits) -> Result<&'a str, String> {
    let (text, max) = (&*text.0, limits.id_bytes);
    if text.is_empty() {
        return Err(format!("`{field}` is empty; send 1 to {max} bytes"));
    }
    if text.len() > max {
        return Err(format!("`{field}` has {} bytes; at most {max} are allowed", text.len()));
    }
    match text.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, _)) => Err(format!("`{field}` has a control character at byte {at}; remove it")),
        None => Ok(text),
    }
}

/// Every word of a list, checked.
pub(super) fn words<'a>(field: &str, words: &'a Words, limits: Limits) -> Result<Vec<&'a str>, String> {
    if words.0.len() > MAX_WORDS {
        return Err(format!("`{field}` has {} entries; at most {MAX_WORDS} are allowed", words.0.len()));
    }
    words.0.iter().map(|w| word(field, w, limits)).collect()
}

/// The tokens of a list of names, as `remember` knows them; each once, in the order sent.
pub(super) fn tokens(
    remember: impl Fn(TokenKind, &str) -> Result<TokenId, Collision>,
    kind: TokenKind,
    words: &[&str],
    into: &mut Vec<TokenId>,
) -> Result<(), String> {
    for word in words {
        let token = remember(kind, word).map_err(|e| e.to_string())?;
        if !into.contains(&token) {
            into.push(token);
        }
    }
    Ok(())
}

/// A number of a range, where it was sent.
pub(super) fn within(field: &str, value: Option<f64>, low: f64, high: f64) -> Result<Option<f64>, String> {
    match value {
        Some(v) if !(low..=high).contains(&v) => Err(format!("`{field}` is {v}; send a number from {low} to {high}")),
        other => Ok(other),
    }
}

/// Whether a bare number may also be seconds. Ours may not; what others call `timestamp` often is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Millis,
    MillisOrSeconds,
}

/// The moment in milliseconds since 1970. Seconds and milliseconds cannot be mistaken for each other between 1990 and 2200.
pub(super) fn millis(field: &str, moment: &Moment, unit: Unit) -> Result<Millis, String> {
    let number = match moment {
        Moment::Number(n) => *n,
        Moment::Written(text) => match text.trim().parse() {
            Ok(n) => n,
            Err(_) => return written(field, text.trim()),
        },
    };
    match number {
        n if (EARLIEST..LATEST).contains(&n) => Ok(n),
        n if !(EARLIEST / SECOND..LATEST / SECOND).contains(&n) => Err(implausible(field, n)),
        n if unit == Unit::MillisOrSeconds => Ok(n * SECOND),
        n => Err(format!("`{field}` {n} looks like seconds; send milliseconds since 1970")),
    }
}

fn implausible(field: &str, n: i64) -> String {
    let larger = [("microseconds", 1_000), ("nanoseconds", 1_000_000)];
    match larger.iter().find(|(_, factor)| (EARLIEST..LATEST).contains(&(n / factor))) {
        Some((unit, _)) => format!("`{field}` {n} looks like {unit}; send milliseconds since 1970"),
        None => format!("`{field}` {n} is not between 1990 and 2200; send milliseconds since 1970"),
    }
}

fn written(field: &str, text: &str) -> Result<Millis, String> {
    let at = iso8601(text).ok_or_else(|| {
        format!(
            "`{field}` `{}` is not a time; send milliseconds since 1970 or ISO 8601 such as 2025-11-20T01:02:03Z",
            shown(text)
        )
    })?;
    let ms = (at.unix_timestamp_nanos() / 1_000_000) as Millis;
    if (EARLIEST..LATEST).contains(&ms) { Ok(ms) } else { Err(format!("`{field}` `{text}` is not between 1990 and 2200")) }
}

/// ISO 8601, without an offset meaning UTC, a date alone meaning its first moment; a space may stand for the `T`.
fn iso8601(text: &str) -> Option<OffsetDateTime> {
    if text.len() > 64 {
        return None;
    }
    let text = text.replacen(' ', "T", 1);
    let local = |t: &str| PrimitiveDateTime::parse(t, &Iso8601::DEFAULT).map(PrimitiveDateTime::assume_utc);
    let date = |t: &str| Date::parse(t, &Iso8601::DATE).map(|d| d.with_time(Time::MIDNIGHT).assume_utc());
    let offset = |t: &str| OffsetDateTime::parse(t, &Iso8601::DEFAULT);
    OffsetDateTime::parse(&text, &Rfc3339).or_else(|_| offset(&text)).or_else(|_| local(&text)).or_else(|_| date(&text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_in_every_spelling() {
        let written = |t: &str| millis("ts", &Moment::Written(t.to_string().into()), Unit::Millis);
        for (text, expected) in [
            ("1763600000123", 1_763_600_000_123),
            ("2025-11-20T00:53:20.123Z", 1_763_600_000_123),
            ("2025-11-20T01:53:20.123+01:00", 1_763_600_000_123),
            ("2025-11-20T00:53:20", 1_763_600_000_000),
            ("2025-11-20 00:53:20", 1_763_600_000_000),
            ("20251120T005320Z", 1_763_600_000_000),
            ("2025-11-20", 1_763_596_800_000),
        ] {
            assert_eq!(written(text), Ok(expected), "{text}");
        }
        assert!(written("yesterday").expect_err("no time").contains("`ts` `yesterday` is not a time"));
        assert!(written("1066-10-14T09:00:00Z").expect_err("too early").contains("not between 1990 and 2200"));
    }

    #[test]
    fn a_bare_number_is_milliseconds_unless_the_field_is_foreign() {
        let at = |n, unit| millis("ts", &Moment::Number(n), unit);
        assert!(at(1_763_600_000, Unit::Millis).expect_err("seconds").contains("looks like seconds"));
        assert_eq!(at(1_763_600_000, Unit::MillisOrSeconds), Ok(1_763_600_000_000));
        assert!(at(1_763_600_000_123_456, Unit::MillisOrSeconds).expect_err("µs").contains("looks like microseconds"));
        assert!(at(1_763_600_000_123_456_789, Unit::Millis).expect_err("ns").contains("looks like nanoseconds"));
        assert!(at(-1, Unit::Millis).expect_err("before").contains("not between 1990 and 2200"));
        assert_eq!(at(EARLIEST, Unit::Millis), Ok(EARLIEST));
        assert!(at(LATEST, Unit::Millis).is_err());
    }
}
