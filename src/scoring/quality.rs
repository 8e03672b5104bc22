//! How well rows were ordered: NDCG@10 and AUC of two scores over the same examples, and how far one is ahead. Pure.

use std::collections::BTreeMap;

use super::bootstrap::bounds;
use crate::model::UserId;

/// Places that count.
const PLACES: usize = 10;

/// The discounted gain of an order against that of the best one; ties go to the row that came first. 0 where nothing was taken.
pub fn ndcg(scores: &[f32], taken: &[bool]) -> f64 {
    let discount = |place: usize| 1.0 / libm::log2(place as f64 + 2.0);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let hits = order.iter().take(PLACES).enumerate().filter(|(_, row)| taken[**row]);
    let gain: f64 = hits.map(|(place, _)| discount(place)).fold(0.0, |sum, x| sum + x);
    let best = taken.iter().filter(|taken| **taken).count().min(PLACES);
    let ideal = (0..best).map(discount).fold(0.0, |sum, x| sum + x);
    if ideal > 0.0 { gain / ideal } else { 0.0 }
}

/// The share of pairs of a taken and another row that are in the right order, equal ones counting half. `None`: there are no pairs.
pub fn auc(mut rows: Vec<(f32, bool)>) -> Option<f64> {
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ones = rows.iter().filter(|(_, taken)| *taken).count() as f64;
    let zeros = rows.len() as f64 - ones;
    let (mut below, mut right) = (0.0, 0.0);
    for equal in rows.chunk_by(|a, b| a.0 == b.0) {
        let taken = equal.iter().filter(|(_, taken)| *taken).count() as f64;
        let others = equal.len() as f64 - taken;
        right += taken * (below + others / 2.0);
        below += others;
    }
    (ones > 0.0 && zeros > 0.0).then(|| right / (ones * zeros))
}

/// Where the mean of these differences lies in 95 of 100 draws of users.
pub fn ahead(differences: &[(UserId, f64)]) -> (f64, f64) {
    let mut users: BTreeMap<UserId, (f64, u32)> = BTreeMap::new();
    for (user, difference) in differences {
        let (sum, count) = users.entry(*user).or_default();
        (*sum, *count) = (*sum + difference, *count + 1);
    }
    bounds(&users.into_values().collect::<Vec<_>>()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gains_fall_with_the_place_and_ties_go_to_the_first() {
        assert_eq!(ndcg(&[0.1, 0.9, 0.5], &[false, true, false]), 1.0);
        assert_eq!(ndcg(&[0.9, 0.1], &[false, true]), 1.0 / libm::log2(3.0));
        assert_eq!(ndcg(&[0.5, 0.5], &[true, false]), 1.0);
        let many: Vec<f32> = (0..20).map(|n| n as f32).collect();
        let last: Vec<bool> = (0..20).map(|n| n == 0).collect();
        assert_eq!((ndcg(&many, &last), ndcg(&[], &[]), ndcg(&[1.0], &[false])), (0.0, 0.0, 0.0));
    }

    #[test]
    fn pairs_in_order_are_counted_and_equal_ones_half() {
        assert_eq!(auc(vec![(0.1, false), (0.9, true)]), Some(1.0));
        assert_eq!(auc(vec![(0.9, false), (0.1, true), (0.5, false), (0.5, true)]), Some(0.125));
        assert_eq!(auc(vec![(0.5, false), (0.5, true)]), Some(0.5));
        assert_eq!((auc(vec![(0.5, true)]), auc(vec![])), (None, None));
    }

    #[test]
    fn the_interval_is_of_users_and_not_of_examples() {
        let of = |user: &str, difference| (UserId::of(user), difference);
        assert_eq!(ahead(&[]), (0.0, 0.0));
        assert_eq!(ahead(&[of("a", 0.5), of("a", 0.5)]), (0.5, 0.5), "one user is always drawn");
        let (low, high) = ahead(&(0..100).map(|n| of(&format!("u{n}"), f64::from(n % 2))).collect::<Vec<_>>());
        assert!((0.38..0.44).contains(&low) && (0.56..0.62).contains(&high), "{low} {high}");
    }
}
