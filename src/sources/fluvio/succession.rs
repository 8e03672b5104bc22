//! Whether a record is the next of its partition. Whatever a stream leaves out, repeats or breaks off, what is taken has offsets
//! without a hole and without a repetition.

/// A partition as it is being read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succession {
    next: u64,
    /// Which opening of the stream is listened to: what earlier ones still bring is not looked at.
    opening: u32,
    /// Openings since the last record that was taken.
    fruitless: u32,
}

/// What to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take it.
    Next,
    /// It was taken before.
    Seen,
    /// Records before it are missing: open the stream anew at the first of them.
    Gap,
}

impl Succession {
    /// Before the record `next`.
    pub fn at(next: u64) -> Self {
        Self { next, opening: 0, fruitless: 0 }
    }

    /// The offset of the next record.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The opening that is listened to.
    pub fn opening(&self) -> u32 {
        self.opening
    }

    /// Openings since the last record that was taken.
    pub fn fruitless(&self) -> u32 {
        self.fruitless
    }

    /// A record with this offset has come.
    pub fn step(&mut self, offset: u64) -> Step {
        match offset.cmp(&self.next) {
            std::cmp::Ordering::Less => Step::Seen,
            std::cmp::Ordering::Greater => Step::Gap,
            std::cmp::Ordering::Equal => {
                (self.next, self.fruitless) = (self.next + 1, 0);
                Step::Next
            }
        }
    }

    /// The stream is opened anew, at the next record.
    pub fn reopen(&mut self) {
        self.opening = self.opening.wrapping_add(1);
        self.fruitless = self.fruitless.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn a_gap_is_not_passed_and_a_repetition_is_not_taken() {
        let mut partition = Succession::at(5);
        let steps = [5, 5, 4, 7, 6, 8, 7].map(|offset| partition.step(offset));
        assert_eq!(steps, [Step::Next, Step::Seen, Step::Seen, Step::Gap, Step::Next, Step::Gap, Step::Next]);
        partition.reopen();
        partition.reopen();
        assert_eq!((partition.next(), partition.opening(), partition.fruitless()), (8, 2, 2));
        partition.step(8);
        assert_eq!((partition.next(), partition.opening(), partition.fruitless()), (9, 2, 0));
    }

    proptest! {
        #[test]
        fn whatever_comes_what_is_taken_is_without_a_hole(offsets in vec(0..20u64, 0..200)) {
            let mut partition = Succession::at(3);
            let taken: Vec<u64> = offsets.into_iter().filter(|offset| partition.step(*offset) == Step::Next).collect();
            prop_assert_eq!(taken, (3..partition.next()).collect::<Vec<_>>());
        }
    }
}
