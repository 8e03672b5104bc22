//! Scores as a slate shows them, and as diversity weighs them: of any margins, from 1 downwards.

/// Scores from 1 downwards that fall by the odds, and by a millionth at least wherever what they are made of falls, however far apart that
/// is. `temperature`: how far apart two must be for one to count e times as much.
pub fn falling(scores: &[f32], temperature: f64) -> Vec<f64> {
    let mut steps: Vec<f32> = scores.to_vec();
    steps.sort_unstable_by(|a, b| b.total_cmp(a));
    steps.dedup();
    let most = steps.first().copied().unwrap_or_default();
    let under = steps.len().saturating_sub(1) as f64 * 1e-6;
    let score = |score: &f32| {
        let place = steps.partition_point(|step| step.total_cmp(score).is_gt());
        (1.0 - under) * libm::exp(f64::from(score - most) / temperature) + under - place as f64 * 1e-6
    };
    scores.iter().map(score).collect()
}

/// Of the scores of models, whose margins are odds.
pub const OF_MODELS: f64 = 1.0;

/// In millionths.
pub fn micro(score: f64) -> i32 {
    (score * 1e6 + 0.5) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_one_and_no_two_that_differ_fall_together() {
        let scores = falling(&[0.0, 2.0, 2.0, -500.0, -501.0], OF_MODELS);
        assert_eq!((micro(scores[1]), scores[1]), (1_000_000, scores[2]));
        assert!((scores[0] - libm::exp(-2.0)).abs() < 1e-5 && scores[0] < falling(&[0.0, 2.0], 4.0)[0]);
        assert!(micro(scores[3]) > micro(scores[4]) && scores[4] >= 0.0, "{scores:?}");
        assert_eq!(falling(&[], OF_MODELS), Vec::<f64>::new());
    }
}
