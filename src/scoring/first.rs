//! The first few of many, in order, without sorting the rest. Pure.

use std::cmp::Ordering;

/// Up to `most`, in `order`; which of equals they are is the order's to say.
pub fn first<T>(mut all: Vec<T>, most: usize, order: impl Fn(&T, &T) -> Ordering + Copy) -> Vec<T> {
    if all.len() > most && most > 0 {
        all.select_nth_unstable_by(most - 1, order);
    }
    all.truncate(most);
    all.sort_unstable_by(order);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_are_those_of_a_sort(all in prop::collection::vec(0u8..50, 0..60), most in 0usize..70) {
            let mut sorted = all.clone();
            sorted.sort_unstable();
            sorted.truncate(most);
            prop_assert_eq!(first(all, most, u8::cmp), sorted);
        }
    }
}
