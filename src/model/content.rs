//! What an item is like, as directions: of an embedding its producer sent, of what encoders made of its text and its image.
//!
//! The fact that must stay true: a direction is whole numbers, rounded once where it comes in, so how alike two of them are is the same
//! number on every machine.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

use super::ids::ItemId;

/// Whose directions may be compared with one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Space {
    Embedding,
    Text,
    Image,
}

/// How many spaces there are.
pub const SPACES: usize = 3;

impl Space {
    /// Those that encoders make.
    pub const ENCODED: [Space; 2] = [Space::Text, Space::Image];

    /// As it is spelt everywhere.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Text => "text",
            Self::Image => "image",
        }
    }

    /// What an encoder of this name makes.
    pub fn encoded(name: &str) -> Option<Self> {
        Self::ENCODED.into_iter().find(|space| space.name() == name)
    }
}

/// The largest number of a direction.
const MOST: f32 = 127.0;

/// A vector whose length says nothing, in 127ths of its largest number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Direction(pub Box<[i8]>);

impl Direction {
    /// Of a vector; `None` where it points nowhere: it is empty, all zeros, or has a number that is none.
    pub fn of(vector: &[f32]) -> Option<Self> {
        let most = vector.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let sound = most > 0.0 && vector.iter().all(|x| x.is_finite());
        sound.then(|| Self(vector.iter().map(|x| (f64::from(*x) / f64::from(most) * f64::from(MOST)).round() as i8).collect()))
    }

    /// The sum of its squares.
    pub fn square(&self) -> i32 {
        self.0.iter().map(|x| i32::from(*x) * i32::from(*x)).sum()
    }
}

/// The directions of one item, by space.
pub type Directions = [Option<Arc<Direction>>; SPACES];

/// Where the content of an item points from now on; nowhere: it is not known any more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Points {
    pub item: ItemId,
    pub directions: Directions,
    /// Whether it may be shown at all.
    pub offered: bool,
}

/// What an encoder made of a piece of content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Encoded {
    pub space: Space,
    /// [`hash`] of what was encoded: what has changed since is not described by it.
    pub content: u64,
    /// The encoder, by the first eight bytes of the BLAKE3 of its files.
    pub encoder: u64,
    /// `None`: it can make nothing of it.
    pub direction: Option<Arc<Direction>>,
}

/// A piece of content that is to be encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    pub item: ItemId,
    pub space: Space,
    /// [`hash`] of the body.
    pub content: u64,
    /// Text as UTF-8, or the bytes of a PNG or JPEG; empty where there was no room for it.
    pub body: Arc<[u8]>,
}

/// What a piece of content is known by.
pub fn hash(body: &[u8]) -> u64 {
    xxh3_64(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direction_forgets_the_length_and_refuses_what_points_nowhere() {
        let of = |vector: &[f32]| Direction::of(vector).map(|direction| direction.0.to_vec());
        assert_eq!(of(&[0.5, -1.0, 0.0]), Some(vec![64, -127, 0]));
        assert_eq!(of(&[500.0, -1000.0, 0.0]), of(&[0.5, -1.0, 0.0]));
        assert_eq!(of(&[f32::MIN_POSITIVE / 4.0, 0.0]), Some(vec![127, 0]));
        for nowhere in [&[][..], &[0.0, 0.0], &[1.0, f32::NAN], &[f32::INFINITY, 1.0]] {
            assert_eq!(of(nowhere), None, "{nowhere:?}");
        }
        assert_eq!(Direction(vec![3, -4].into()).square(), 25);
        assert_eq!((Space::encoded("text"), Space::encoded("embedding")), (Some(Space::Text), None));
    }
}
