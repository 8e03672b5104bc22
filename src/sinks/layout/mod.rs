//! The published layout, `schemas/redis.md`, in both directions: keys, slates, neighbours, cards, features, interests and the mark of
//! what is applied. Pure. What is written here is read back equal, and the bytes of binary values change only together with a version
//! number.

mod census;
mod experiments;
mod features;
mod fields;
mod glance;
mod header;
mod interests;
mod keys;
mod mark;
mod pages;
mod profile;
mod slate;
mod values;

pub use super::proto;
use super::{Applied, Fence, Sort};
use crate::model::serving;
pub use census::{StoredCensus, decode_census, encode_census};
pub use experiments::{StoredExperiments, decode_experiments, encode_experiments};
pub use features::{Features, WEIGHTED, WindowFeatures, decode_features, decode_weighted, encode_features};
pub use fields::{Fields, as_map, deleted_fields, is_deleted_fields};
pub use glance::{CROWD, CardGlance, crowd, near};
pub use header::{HEADER, Stamp, deleted_value, fence_member, is_deleted_value, open};
pub use interests::{StoredInterests, decode_interests, encode_interests};
pub use keys::{Keys, MAX_ID_BYTES, Segment, decode_id};
pub use mark::{decode_applied, encode_applied, encode_epoch_half, encode_tick_half};
pub use pages::SlatePages;
pub use profile::{StoredProfile, decode_profile, encode_profile};
pub use slate::{SlateValue, StoredSlate, Why, bare, decode_history, decode_slate, put_place, reason_text};
pub use values::{decode_card, decode_neighbours, encode_card, encode_neighbours};

/// The version in the header of every binary value.
pub const VERSION: u8 = 1;
/// The version of the layout as a whole, in `meta`.
pub const SCHEMA: &str = "1";
/// Number and name of what scores while no model is loaded.
pub const BLEND: (u32, &str) = (0, serving::BLEND);
const MAGIC: [u8; 2] = *b"OD";

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
    #[error("the value's body is cut, or what should be text in it is none: something else wrote it")]
    Cut,
    #[error("the hash has no field `{0}`: something else lies under this key")]
    Missing(&'static str),
    #[error("field `{field}` is `{value}`, not a number")]
    Number { field: String, value: String },
    #[error("field `{field}` is `{value}`, not {expected} numbers separated by commas")]
    Numbers { field: String, value: String, expected: usize },
    #[error("field `{field}` is `{value}`, not a cohort as JSON")]
    Cohort { field: String, value: String },
    #[error("the layout has schema `{0}`, this reader knows {SCHEMA}: upgrade the reader")]
    Schema(String),
    #[error("field `{0}` does not name a role and a partition")]
    Partition(String),
}
