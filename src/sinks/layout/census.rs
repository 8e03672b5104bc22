//! How much there is.

use std::collections::BTreeMap;

use super::fields::{number, parse, push_when};
use super::{Fence, Fields, LayoutError};
use crate::model::changes::Counts;
use crate::model::time::Millis;

/// How much there is, as it lies in the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredCensus {
    pub as_of: Millis,
    pub epoch: u64,
    pub counts: Counts,
}

/// Before the name of a city.
const CITY: &str = "city:";

/// The hash `census`.
pub fn encode_census(counts: &Counts, as_of: Millis, fence: Fence) -> Fields {
    let numbers = [("items", counts.items), ("users", counts.users), ("cities", counts.covered)];
    let mut fields: Fields = numbers.map(|(name, number)| (name.into(), number.to_string())).into();
    fields.extend(counts.cities.iter().map(|(city, items)| (format!("{CITY}{city}").into(), items.to_string())));
    push_when(&mut fields, as_of, fence);
    fields
}

/// Reads the hash `census`.
pub fn decode_census(fields: &BTreeMap<String, String>) -> Result<StoredCensus, LayoutError> {
    let cities = fields.iter().filter_map(|(field, text)| Some((field.strip_prefix(CITY)?, field, text)));
    let city = |(city, field, text): (&str, &String, &String)| Ok((city.to_string(), parse::<i64>(field, text)?));
    let mut cities: Vec<(String, i64)> = cities.map(city).collect::<Result<_, LayoutError>>()?;
    cities.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let counts =
        Counts { items: number(fields, "items")?, users: number(fields, "users")?, covered: number(fields, "cities")?, cities };
    Ok(StoredCensus { as_of: number(fields, "as_of")?, epoch: number(fields, "epoch")?, counts })
}

#[cfg(test)]
mod tests {
    use super::super::as_map;
    use super::*;

    #[test]
    fn a_census_round_trips_with_the_largest_city_first() {
        let cities = vec![("Rome: old".to_string(), 7), ("Bern".to_string(), 2), ("Oslo".to_string(), 2)];
        let counts = Counts { items: 12, users: 3, covered: 40, cities };
        let fields = as_map(&encode_census(&counts, 7, Fence { epoch: 9, generation: 3 }));
        assert_eq!((fields["city:Rome: old"].as_str(), fields["cities"].as_str()), ("7", "40"));
        assert_eq!(decode_census(&fields), Ok(StoredCensus { as_of: 7, epoch: 9, counts }));
        assert_eq!(decode_census(&BTreeMap::new()), Err(LayoutError::Missing("items")));
    }
}
