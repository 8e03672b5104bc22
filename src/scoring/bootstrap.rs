//! How far a mean is beyond chance: by drawing users anew, with repetition. The draws are the same each time. Pure.

/// How often users are drawn anew.
const DRAWS: usize = 1_000;

/// Between which bounds the mean of all rows lies, `users` being each one's sum and rows, with as many drawn as there are: of all but its 25 least and 25 greatest of a thousand draws.
pub fn bounds(users: &[(f64, u32)]) -> [f64; 2] {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut user = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        users[(state % users.len() as u64) as usize]
    };
    let mut draw = || {
        let sum = |(gains, rows): (f64, u32), _: &_| {
            let (gain, count) = user();
            (gains + gain, rows + count)
        };
        let (gains, rows) = users.iter().fold((0.0, 0), sum);
        gains / f64::from(rows)
    };
    let mut means: Vec<f64> = (0..if users.is_empty() { 0 } else { DRAWS }).map(|_| draw()).collect();
    means.sort_by(f64::total_cmp);
    let at = |place: usize| means.get(place).copied().unwrap_or_default();
    [at(DRAWS / 40), at(DRAWS - 1 - DRAWS / 40)]
}
