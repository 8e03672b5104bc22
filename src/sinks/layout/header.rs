//! The header of binary values: who wrote one, and whether it is whole.

use super::{Fence, LayoutError, MAGIC, VERSION};

/// Bytes before the Protobuf body.
pub const HEADER: usize = 24;
/// In the flags of a header: there is nothing under this key any more.
const DELETED: u8 = 1;

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

/// Whether this is what stays of a binary value.
pub fn is_deleted_value(value: &[u8]) -> bool {
    value.len() >= HEADER && value[..2] == MAGIC && value[3] & DELETED != 0
}

/// Puts the header before a body that was written from byte [`HEADER`] on.
pub(super) fn seal(value: &mut [u8], stamp: Stamp) {
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
