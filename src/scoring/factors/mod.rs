//! Latent factors: a vector for every user and every item, by implicit alternating least squares.
//!
//! ```text
//! loss = sum over all pairs of c (taken - p.q)^2 + reg (sum |p|^2 + sum |q|^2)      c = alpha on a pair that was taken, 1 elsewhere
//! (G + reg I + (alpha - 1) sum q q^T) p = alpha sum q        q over what the user took, G = sum of q q^T over all items
//! ```
//!
//! The second line is the best vector of one user while all else is held, exactly; an item's is the same with the sides exchanged.
//! There is no learning rate, no drawing of negatives, and whoever is solved again without a record has forgotten it.
//!
//! The facts that must stay true: the numbers of a vector are multiples of 2^-15 and at most 16, so a sum of their products is exact in
//! a double and a [`Gram`] is the same in whatever order vectors came and went; and a solve is the same bits on every machine:
//! additions and multiplications of single floats in one order, however many of them a machine does at once.

use serde::{Deserialize, Serialize};

mod batch;
mod solve;

pub use batch::{Batch, Matrix};
pub use solve::{Base, Solver};

/// How long a vector is.
pub const DIMENSIONS: usize = 64;

/// What is done at once: as many numbers as the widest registers hold.
const LANES: usize = 16;
const BLOCKS: usize = DIMENSIONS / LANES;

/// What the loss weighs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Confidence in a pair that was taken; in one that was not it is 1.
    pub alpha: f32,
    /// How much a long vector costs.
    pub reg: f32,
}

/// The vector of a user or an item.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vector(pub [f32; DIMENSIONS]);

/// One number of a vector is a multiple of this, …
const UNIT: f32 = 1.0 / 32_768.0;
/// … and not beyond so many of them: 16.
const MOST: f32 = 524_288.0;

impl Vector {
    /// Nothing.
    pub const ZERO: Self = Self([0.0; DIMENSIONS]);

    /// The nearest there is to these numbers; what is no number is nothing.
    pub fn near(numbers: &[f32; DIMENSIONS]) -> Self {
        Self(numbers.map(|x| {
            let units = (x / UNIT).clamp(-MOST, MOST);
            (units + if units < 0.0 { -0.5 } else { 0.5 }) as i32 as f32 * UNIT
        }))
    }

    /// One that looks drawn, the same for a key wherever it is asked: where training begins.
    pub fn drawn(key: u64) -> Self {
        let mut state = key;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = state;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            // twelve bits: -1/16 to 1/16
            (((bits ^ (bits >> 31)) >> 52) as f32 - 2_048.0) * UNIT
        }))
    }

    /// How much one speaks for the other.
    #[inline]
    pub fn dot(&self, other: &Self) -> f32 {
        let mut sums = [0.0f32; LANES];
        let (ours, theirs) = (self.0.as_chunks::<LANES>().0, other.0.as_chunks::<LANES>().0);
        for (a, b) in ours.iter().zip(theirs) {
            (0..LANES).for_each(|lane| sums[lane] += a[lane] * b[lane]);
        }
        sums.iter().sum()
    }
}

/// As numbers of units: half the bytes of floats, for most.
impl Serialize for Vector {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|x| (x / UNIT) as i32))
    }
}

impl<'de> Deserialize<'de> for Vector {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let units: Vec<i32> = Vec::deserialize(from)?;
        let units: [i32; DIMENSIONS] = units.try_into().map_err(|_| serde::de::Error::custom("a vector of another length"))?;
        Ok(Self(units.map(|x| x as f32 * UNIT)))
    }
}

/// The sum of `v v^T` over vectors, right of the diagonal. Every number in it is a multiple of 2^-30, and exact up to 8 million; see
/// [`Gram::LIMIT`].
#[derive(Clone, Debug, PartialEq)]
pub struct Gram(Box<[[f64; DIMENSIONS]; DIMENSIONS]>);

impl Default for Gram {
    fn default() -> Self {
        Self(Box::new([[0.0; DIMENSIONS]; DIMENSIONS]))
    }
}

impl Gram {
    /// What no sum of squares may exceed: 4 million users (or items) of whom one number of the vector is 1. A double holds multiples of
    /// 2^-30 up to twice as much, so while some vectors are exchanged for others, no sum between the old and the new one is rounded.
    pub const LIMIT: f64 = (1 << 22) as f64;

    /// Of vectors.
    pub fn of<'a>(vectors: impl IntoIterator<Item = &'a Vector>) -> Self {
        let mut gram = Self::default();
        vectors.into_iter().for_each(|vector| gram.add(vector));
        gram
    }

    /// Adds a vector's share.
    pub fn add(&mut self, vector: &Vector) {
        solve::widest_share(&mut self.0, &vector.0, 1.0);
    }

    /// Takes a vector's share away: nothing of it is left.
    pub fn remove(&mut self, vector: &Vector) {
        solve::widest_share(&mut self.0, &vector.0, -1.0);
    }

    /// Adds another sum.
    pub fn sum(&mut self, other: &Self) {
        self.0.as_flattened_mut().iter_mut().zip(other.0.as_flattened()).for_each(|(sum, x)| *sum += x);
    }

    /// Panics where sums are so large that they may have been rounded: every worker would then go on with other bits.
    pub(crate) fn must_be_exact(&self) {
        let most = (0..DIMENSIONS).map(|i| self.0[i][i]).fold(0.0, f64::max);
        let limit = Self::LIMIT;
        assert!(
            most <= limit,
            "factors: the squares of one number of all vectors sum to {most:.0}, above {limit:.0} sums are no longer exact; \
             raise factors.reg, which makes vectors shorter, or set factors.enabled = false"
        );
    }

    /// Whether it is the sum of nothing.
    pub fn is_zero(&self) -> bool {
        self.0.as_flattened().iter().all(|x| *x == 0.0)
    }

    /// The sum of `(p.q)^2` over all pairs of two sets of vectors, of which these are the sums.
    pub fn squares(&self, other: &Self) -> f64 {
        let row = |i: usize| {
            let beside: f64 = (i + 1..DIMENSIONS).map(|j| 2.0 * self.0[i][j] * other.0[i][j]).sum();
            self.0[i][i] * other.0[i][i] + beside
        };
        (0..DIMENSIONS).map(row).sum()
    }

    /// The sum of `|v|^2`.
    pub fn lengths(&self) -> f64 {
        (0..DIMENSIONS).map(|i| self.0[i][i]).sum()
    }
}

/// What stands right of the diagonal, as it is kept and told.
impl Serialize for Gram {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let numbers: Vec<f64> = self.0.iter().enumerate().flat_map(|(i, row)| &row[i..]).copied().collect();
        numbers.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Gram {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let numbers: Vec<f64> = Vec::deserialize(from)?;
        let mut gram = Self::default();
        let places = (0..DIMENSIONS).flat_map(|i| (i..DIMENSIONS).map(move |j| (i, j)));
        if numbers.len() != DIMENSIONS * (DIMENSIONS + 1) / 2 {
            return Err(serde::de::Error::custom("a sum of another size"));
        }
        places.zip(numbers).for_each(|((i, j), x)| gram.0[i][j] = x);
        Ok(gram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gram_forgets_exactly_in_any_order() {
        let vectors: Vec<Vector> = (0..200).map(Vector::drawn).collect();
        let (mut one, mut other) = (Gram::default(), Gram::of(&vectors));
        vectors.iter().rev().for_each(|v| one.add(v));
        vectors.iter().step_by(3).for_each(|v| one.remove(v));
        vectors.iter().step_by(3).rev().for_each(|v| other.remove(v));
        let left: Vec<Vector> = vectors.iter().enumerate().filter(|(i, _)| i % 3 > 0).map(|(_, v)| *v).collect();
        let bytes = |gram: &Gram| postcard::to_allocvec(gram).expect("plain data");
        assert_eq!((bytes(&one), bytes(&other)), (bytes(&Gram::of(&left)), bytes(&Gram::of(&left))));
        let dots: f64 = left.iter().flat_map(|a| vectors.iter().map(|b| f64::from(a.dot(b)).powi(2))).sum();
        assert!((one.squares(&Gram::of(&vectors)) / dots - 1.0).abs() < 1e-5);
        left.iter().for_each(|v| one.remove(v));
        assert!(one.is_zero());
    }

    /// The longest vectors there are: more of them than the limit holds are refused, though a double would hold as many again.
    #[test]
    #[should_panic(expected = "above 4194304 sums are no longer exact; raise factors.reg")]
    fn sums_that_may_be_rounded_are_refused() {
        let (long, settings) = (Vector([16.0; DIMENSIONS]), Settings { alpha: 8.0, reg: 20.0 });
        let mut gram = Gram::of(std::iter::repeat_n(&long, (Gram::LIMIT / 256.0) as usize));
        let _at_the_limit = Base::new(&gram, &settings);
        let small = Vector([UNIT; DIMENSIONS]);
        gram.add(&small);
        let other = gram.clone();
        gram.remove(&long);
        gram.sum(&other);
        (0..2).for_each(|_| gram.remove(&small));
        assert_eq!(gram.lengths(), 64.0 * (2.0 * Gram::LIMIT - 256.0), "below twice the limit nothing is rounded");
        let _beyond = Base::new(&gram, &settings);
    }

    #[test]
    fn vectors_and_sums_come_back_as_they_were() {
        let vector = Vector::near(&std::array::from_fn(|i| (i as f32 - 31.0) * 0.777));
        assert_eq!(vector.0[0], -16.0, "not beyond");
        let bytes = postcard::to_allocvec(&vector).expect("plain data");
        assert_eq!(postcard::from_bytes::<Vector>(&bytes), Ok(vector));
        let gram = Gram::of(&[vector, Vector::drawn(7)]);
        let bytes = postcard::to_allocvec(&gram).expect("plain data");
        let again: Gram = postcard::from_bytes(&bytes).expect("it was written");
        assert_eq!(postcard::to_allocvec(&again).expect("plain data"), bytes);
        assert_eq!(Vector::near(&[f32::NAN; DIMENSIONS]), Vector::ZERO);
    }
}
