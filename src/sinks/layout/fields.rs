//! Fields of hashes: numbers in words, and who wrote them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr;

use super::{Fence, LayoutError};
use crate::model::time::Millis;

/// The field of a hash that says the same.
const DELETED_FIELD: &str = "deleted";

/// Fields of a hash, as they are written: most names are known beforehand.
pub type Fields = Vec<(Cow<'static, str>, String)>;

/// Fields as a reader gets them.
pub fn as_map(fields: &Fields) -> BTreeMap<String, String> {
    fields.iter().map(|(name, value)| (name.to_string(), value.clone())).collect()
}

/// What stays of a deleted hash.
pub fn deleted_fields(fence: Fence) -> Fields {
    let mut fields = vec![(DELETED_FIELD.into(), "1".to_string())];
    push_fence(&mut fields, fence);
    fields
}

/// Whether this is what stays of a hash.
pub fn is_deleted_fields(fields: &BTreeMap<String, String>) -> bool {
    fields.contains_key(DELETED_FIELD)
}

/// Numbers in one field, in their published order.
pub(super) fn join<N>(numbers: impl Iterator<Item = N>, put: impl Fn(&mut String, N)) -> String {
    let mut text = String::with_capacity(40);
    for (i, number) in numbers.enumerate() {
        if i > 0 {
            text.push(',');
        }
        put(&mut text, number);
    }
    text
}

pub(super) fn put_whole(text: &mut String, number: u32) {
    text.push_str(itoa::Buffer::new().format(number));
}

/// The shortest decimal that reads back as the same number, with a point or an exponent in it.
pub(super) fn put_decimal(text: &mut String, number: f64) {
    text.push_str(zmij::Buffer::new().format(number));
}

pub(super) fn decimal(number: f64) -> String {
    join(std::iter::once(number), put_decimal)
}

/// Exactly `N` numbers out of one field.
pub(super) fn split<T: FromStr, const N: usize>(field: &str, value: &str) -> Result<[T; N], LayoutError> {
    let numbers = value.split(',').map(|number| parse(field, number)).collect::<Result<Vec<T>, _>>()?;
    numbers.try_into().map_err(|_| LayoutError::Numbers { field: field.to_string(), value: value.to_string(), expected: N })
}

pub(super) fn push_when(fields: &mut Fields, as_of: Millis, fence: Fence) {
    fields.push(("as_of".into(), as_of.to_string()));
    push_fence(fields, fence);
}

pub(super) fn push_fence(fields: &mut Fields, fence: Fence) {
    fields.push(("epoch".into(), fence.epoch.to_string()));
    fields.push(("generation".into(), fence.generation.to_string()));
}

pub(super) fn number<T: FromStr>(fields: &BTreeMap<String, String>, field: &'static str) -> Result<T, LayoutError> {
    parse(field, fields.get(field).ok_or(LayoutError::Missing(field))?)
}

pub(super) fn parse<T: FromStr>(field: &str, value: &str) -> Result<T, LayoutError> {
    value.parse().map_err(|_| LayoutError::Number { field: field.to_string(), value: value.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_the_shortest_that_read_back() {
        let written = [1.0, 0.1, 0.00005, 1e-7, -2.5, 1e15, 1e16].map(decimal);
        assert_eq!(written, ["1.0", "0.1", "0.00005", "1e-7", "-2.5", "1000000000000000.0", "1e+16"]);
        assert_eq!(join([1.5, 0.0].into_iter(), put_decimal), "1.5,0.0");
        assert!(written.iter().all(|text| text.parse::<f64>().is_ok()));
    }
}
