//! What a user likes, now and in general.

use std::collections::BTreeMap;

use super::fields::{decimal, join, number, push_when, put_decimal, split};
use super::{Fence, Fields, LayoutError};
use crate::model::time::Millis;

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

#[cfg(test)]
mod tests {
    use super::super::as_map;
    use super::*;

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
        let fields = as_map(&encode_interests(&interests, 3));
        assert_eq!((fields["category:jazz"].as_str(), fields["tag:live"].as_str()), ("0.5,0.25", "0.0,0.75"));
        assert_eq!(decode_interests(&fields), Ok(interests));
    }
}
