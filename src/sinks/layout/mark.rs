//! The mark: how far the answers have come, and what ranks in them.

use std::collections::BTreeMap;

use super::fields::{number, parse, push_fence};
use super::{Applied, BLEND, Fence, Fields, LayoutError, SCHEMA};
use crate::model::serving::{Serving, Version};
use crate::model::{Positions, Role};

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

#[cfg(test)]
mod tests {
    use super::super::as_map;
    use super::*;

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
        let mut fields = as_map(&encode_applied(&applied));
        assert_eq!((fields["serving"].as_str(), fields["served_before"].as_str()), ("a-1/00000000000000fe", "blend"));
        assert_eq!(fields["offset:events:3"], u64::MAX.to_string());
        assert_eq!(decode_applied(&fields), Ok(applied));
        fields.insert("offset:stars:1".into(), "1".into());
        assert_eq!(decode_applied(&fields), Err(LayoutError::Partition("offset:stars:1".into())));
        fields.insert("schema".into(), "2".into());
        assert_eq!(decode_applied(&fields), Err(LayoutError::Schema("2".into())));
    }
}
