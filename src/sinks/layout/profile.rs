//! What readers need to know of a user beside what they did.

use std::collections::{BTreeMap, BTreeSet};

use super::fields::{decimal, number, parse, push_when};
use super::{Fence, Fields, LayoutError};
use crate::model::time::Millis;

/// A user, as they lie in the store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredProfile {
    pub as_of: Millis,
    pub epoch: u64,
    /// Latitude and longitude, degrees.
    pub place: Option<(f64, f64)>,
    pub city: Option<String>,
    /// 0 to 1: how much nearness matters.
    pub local_preference: Option<f64>,
    pub total_watch_hours: Option<f64>,
    /// By its bare name.
    pub language: Option<String>,
    /// Whether items for adults may be shown.
    pub mature: bool,
    /// By their bare names.
    pub hidden_authors: BTreeSet<String>,
    pub hidden_items: BTreeSet<String>,
}

/// Before the name of an author, and of an item, who is not to be shown.
const AUTHOR: &str = "author:";
const ITEM: &str = "item:";

/// The hash of a user's profile, written by this generation of the engine.
pub fn encode_profile(profile: &StoredProfile, generation: u32) -> Fields {
    let mut fields = Fields::new();
    let numbers = [
        ("lat", profile.place.map(|(lat, _)| lat)),
        ("lon", profile.place.map(|(_, lon)| lon)),
        ("local_preference", profile.local_preference),
        ("total_watch_hours", profile.total_watch_hours),
    ];
    fields.extend(numbers.into_iter().filter_map(|(name, number)| Some((name.into(), decimal(number?)))));
    let texts = [("city", &profile.city), ("language", &profile.language)];
    fields.extend(texts.into_iter().filter_map(|(name, text)| Some((name.into(), text.clone()?))));
    fields.push(("mature".into(), u8::from(profile.mature).to_string()));
    let hidden = [(AUTHOR, &profile.hidden_authors), (ITEM, &profile.hidden_items)];
    let hidden = hidden.into_iter().flat_map(|(kind, names)| names.iter().map(move |name| format!("{kind}{name}")));
    fields.extend(hidden.map(|field| (field.into(), "hidden".to_string())));
    push_when(&mut fields, profile.as_of, Fence { epoch: profile.epoch, generation });
    fields
}

/// Reads the hash of a user's profile.
pub fn decode_profile(fields: &BTreeMap<String, String>) -> Result<StoredProfile, LayoutError> {
    let decimal = |name: &str| fields.get(name).map(|text| parse::<f64>(name, text)).transpose();
    let hidden = |kind: &str| fields.keys().filter_map(|field| field.strip_prefix(kind)).map(String::from).collect();
    Ok(StoredProfile {
        as_of: number(fields, "as_of")?,
        epoch: number(fields, "epoch")?,
        place: decimal("lat")?.zip(decimal("lon")?),
        city: fields.get("city").cloned(),
        local_preference: decimal("local_preference")?,
        total_watch_hours: decimal("total_watch_hours")?,
        language: fields.get("language").cloned(),
        mature: number::<u8>(fields, "mature")? != 0,
        hidden_authors: hidden(AUTHOR),
        hidden_items: hidden(ITEM),
    })
}

#[cfg(test)]
mod tests {
    use super::super::as_map;
    use super::*;

    #[test]
    fn profiles_round_trip_and_what_is_not_said_is_not_written() {
        let profile = StoredProfile {
            as_of: 5,
            epoch: 6,
            place: Some((48.137, -0.5)),
            city: Some("München".into()),
            local_preference: Some(0.25),
            total_watch_hours: Some(120.5),
            language: Some("de".into()),
            mature: true,
            hidden_authors: ["ann".to_string(), "a:b".to_string()].into(),
            hidden_items: ["i1".to_string()].into(),
        };
        let fields = as_map(&encode_profile(&profile, 3));
        assert_eq!((fields["lat"].as_str(), fields["author:a:b"].as_str(), fields["mature"].as_str()), ("48.137", "hidden", "1"));
        assert_eq!(decode_profile(&fields), Ok(profile));
        let bare = StoredProfile { as_of: 5, epoch: 6, ..StoredProfile::default() };
        let fields = as_map(&encode_profile(&bare, 3));
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["as_of", "epoch", "generation", "mature"]);
        assert_eq!(decode_profile(&fields), Ok(bare));
        assert_eq!(decode_profile(&BTreeMap::new()), Err(LayoutError::Missing("as_of")));
    }
}
