//! The best vector of one user or item: a sum of products, a Cholesky factor, two triangles. Pure arithmetic.
//!
//! Every loop runs over whole blocks of lanes that do not depend on each other, so a machine with wider registers does the same
//! additions in the same order, more of them at once.

use super::{BLOCKS, DIMENSIONS, Gram, LANES, Settings, Vector};

type Rows = [[f32; DIMENSIONS]; DIMENSIONS];

/// Compiles a function for the registers of several machines, and calls the one for this machine. Nothing is fused or put in another
/// order: the answers are the same.
macro_rules! widest {
    ($(#[$doc:meta])* $see:vis fn $name:ident = $plain:ident($($value:ident: $type:ty),*)) => {
        $(#[$doc])*
        $see fn $name($($value: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                fn sixteen($($value: $type),*) {
                    $plain($($value),*);
                }
                #[target_feature(enable = "avx2")]
                fn eight($($value: $type),*) {
                    $plain($($value),*);
                }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the machine has what the function was compiled for
                    return unsafe { sixteen($($value),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: as above
                    return unsafe { eight($($value),*) };
                }
            }
            $plain($($value),*);
        }
    };
}

widest! {
    /// Adds `sign` times the products of a vector with itself, right of the diagonal.
    pub fn widest_share = share(sums: &mut [[f64; DIMENSIONS]; DIMENSIONS], vector: &[f32; DIMENSIONS], sign: f64)
}

widest! {
    /// Solves; what stands in `rows` and `right` is used up, the answer stands in `right`.
    fn widest_solve = solve(rows: &mut Rows, right: &mut [f32; DIMENSIONS], taken: &[Vector], alpha: f32)
}

/// What all solves of one side have in common: the sum over the other side, and what a long vector costs.
#[derive(Clone, Debug)]
pub struct Base {
    rows: Box<Rows>,
    alpha: f32,
}

impl Base {
    /// Of the sum over the other side. Panics beyond [`Gram::LIMIT`].
    pub fn new(gram: &Gram, settings: &Settings) -> Self {
        gram.must_be_exact();
        let mut rows = Box::new([[0.0; DIMENSIONS]; DIMENSIONS]);
        for (row, sums) in rows.iter_mut().zip(gram.0.iter()) {
            row.iter_mut().zip(sums).for_each(|(x, sum)| *x = *sum as f32);
        }
        (0..DIMENSIONS).for_each(|i| rows[i][i] += settings.reg);
        Self { rows, alpha: settings.alpha }
    }
}

/// Buffers that are reused from solve to solve.
#[derive(Debug)]
pub struct Solver {
    rows: Box<Rows>,
    taken: Vec<Vector>,
}

impl Default for Solver {
    fn default() -> Self {
        Self { rows: Box::new([[0.0; DIMENSIONS]; DIMENSIONS]), taken: Vec::new() }
    }
}

impl Solver {
    /// The best vector of who took these, in their order; `None` where they are none.
    pub fn solve<'a>(&mut self, base: &Base, taken: impl IntoIterator<Item = &'a Vector>) -> Option<Vector> {
        self.taken.clear();
        self.taken.extend(taken);
        self.rows.copy_from_slice(base.rows.as_slice());
        let mut right = [0.0; DIMENSIONS];
        widest_solve(&mut self.rows, &mut right, &self.taken, base.alpha);
        (!self.taken.is_empty()).then(|| Vector::near(&right))
    }
}

#[inline(always)]
fn share(sums: &mut [[f64; DIMENSIONS]; DIMENSIONS], vector: &[f32; DIMENSIONS], sign: f64) {
    let wide = vector.map(f64::from);
    for (i, row) in sums.iter_mut().enumerate() {
        let x = sign * wide[i];
        let from = i / LANES * LANES;
        row[from..].iter_mut().zip(&wide[from..]).for_each(|(sum, y)| *sum += x * y);
    }
}

#[inline(always)]
fn solve(rows: &mut Rows, right: &mut [f32; DIMENSIONS], taken: &[Vector], alpha: f32) {
    let (fours, others) = taken.as_chunks::<4>();
    fours.iter().for_each(|four| products(rows, four, alpha - 1.0));
    others.iter().for_each(|one| products(rows, std::array::from_ref(one), alpha - 1.0));
    for vector in taken {
        right.iter_mut().zip(&vector.0).for_each(|(sum, x)| *sum += alpha * x);
    }
    let scales = factorise(rows);
    forward(rows, &scales, right);
    backward(rows, &scales, right);
}

/// Adds `weight` times the products of each vector with itself. Several at once read and write the rows once; the order of the
/// additions is that of the vectors.
#[inline(always)]
fn products<const N: usize>(rows: &mut Rows, vectors: &[Vector; N], weight: f32) {
    for (i, row) in rows.iter_mut().enumerate() {
        let scaled: [f32; N] = std::array::from_fn(|n| weight * vectors[n].0[i]);
        for (block, sums) in row.as_chunks_mut::<LANES>().0.iter_mut().enumerate().skip(i / LANES) {
            for n in 0..N {
                let others = &vectors[n].0.as_chunks::<LANES>().0[block];
                (0..LANES).for_each(|lane| sums[lane] += scaled[n] * others[lane]);
            }
        }
    }
}

/// How many rows are taken away from those below them at once.
const PANEL: usize = 4;

/// Less than this nothing is divided by.
const LEAST: f32 = 1e-20;

/// Puts R with `rows = R^T R` in place of the rows, right of the diagonal; yields one over its diagonal.
#[inline(always)]
fn factorise(rows: &mut Rows) -> [f32; DIMENSIONS] {
    let mut scales = [0.0; DIMENSIONS];
    for first in (0..DIMENSIONS).step_by(PANEL) {
        for i in first..first + PANEL {
            for above in first..i {
                let other = rows[above];
                take_away(&mut rows[i], i, &[other]);
            }
            scales[i] = 1.0 / rows[i][i].max(LEAST).sqrt();
            let from = i / LANES * LANES;
            rows[i][from..i].fill(0.0); // whatever stood there
            rows[i][from..].iter_mut().for_each(|x| *x *= scales[i]);
        }
        let panel: [[f32; DIMENSIONS]; PANEL] = std::array::from_fn(|n| rows[first + n]);
        (first + PANEL..DIMENSIONS).for_each(|i| take_away(&mut rows[i], i, &panel));
    }
    scales
}

/// Takes from row `i` the share of rows that are done.
#[inline(always)]
fn take_away<const N: usize>(row: &mut [f32; DIMENSIONS], i: usize, done: &[[f32; DIMENSIONS]; N]) {
    for block in i / LANES..BLOCKS {
        let sums = &mut row.as_chunks_mut::<LANES>().0[block];
        for other in done {
            let others = &other.as_chunks::<LANES>().0[block];
            (0..LANES).for_each(|lane| sums[lane] -= other[i] * others[lane]);
        }
    }
}

/// `R^T y = right`.
#[inline(always)]
fn forward(rows: &Rows, scales: &[f32; DIMENSIONS], right: &mut [f32; DIMENSIONS]) {
    let mut left = *right;
    for i in 0..DIMENSIONS {
        let y = left[i] * scales[i];
        right[i] = y;
        let from = i / LANES * LANES;
        left[from..].iter_mut().zip(&rows[i][from..]).for_each(|(sum, x)| *sum -= y * x);
    }
}

/// `R x = right`.
#[inline(always)]
fn backward(rows: &Rows, scales: &[f32; DIMENSIONS], right: &mut [f32; DIMENSIONS]) {
    let mut found = [0.0f32; DIMENSIONS];
    for i in (0..DIMENSIONS).rev() {
        let mut sums = [0.0f32; LANES];
        for block in i / LANES..BLOCKS {
            let (row, found) = (&rows[i].as_chunks::<LANES>().0[block], &found.as_chunks::<LANES>().0[block]);
            (0..LANES).for_each(|lane| sums[lane] += row[lane] * found[lane]);
        }
        found[i] = (right[i] - sums.iter().sum::<f32>()) * scales[i];
    }
    *right = found;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same by elimination in doubles.
    fn plainly(gram: &Gram, settings: &Settings, taken: &[Vector]) -> [f64; DIMENSIONS] {
        let mut rows = [[0.0f64; DIMENSIONS + 1]; DIMENSIONS];
        for (i, row) in rows.iter_mut().enumerate() {
            for (j, x) in row.iter_mut().enumerate().take(DIMENSIONS) {
                *x = gram.0[i.min(j)][i.max(j)] + if i == j { f64::from(settings.reg) } else { 0.0 };
                *x += taken.iter().map(|v| f64::from(settings.alpha - 1.0) * f64::from(v.0[i]) * f64::from(v.0[j])).sum::<f64>();
            }
            row[DIMENSIONS] = taken.iter().map(|v| f64::from(settings.alpha) * f64::from(v.0[i])).sum();
        }
        for i in 0..DIMENSIONS {
            let pivot = rows[i];
            for row in rows.iter_mut().skip(i + 1) {
                let times = row[i] / pivot[i];
                row.iter_mut().zip(&pivot).for_each(|(x, p)| *x -= times * p);
            }
        }
        let mut found = [0.0; DIMENSIONS];
        for i in (0..DIMENSIONS).rev() {
            let known: f64 = (i + 1..DIMENSIONS).map(|j| rows[i][j] * found[j]).sum();
            found[i] = (rows[i][DIMENSIONS] - known) / rows[i][i];
        }
        found
    }

    #[test]
    fn a_solve_is_exact_and_the_same_however_wide_the_machine_is() {
        let settings = Settings { alpha: 8.0, reg: 0.5 };
        let long = |key: u64| Vector::near(&Vector::drawn(key).0.map(|x| x * 9.0));
        let gram = Gram::of(&(0..500).map(long).collect::<Vec<_>>());
        let (base, mut solver) = (Base::new(&gram, &settings), Solver::default());
        assert_eq!(solver.solve(&base, &[]), None);
        for n in [1, 2, 3, 4, 5, 50, 333] {
            let taken: Vec<Vector> = (0..n).map(|key| long(key * 3)).collect();
            let found = solver.solve(&base, &taken).expect("something was taken");
            let wanted = plainly(&gram, &settings, &taken);
            for (x, y) in found.0.iter().zip(wanted) {
                assert!((f64::from(*x) - y).abs() < 1e-4, "{x} {y}");
            }
            let (mut rows, mut right) = (base.rows.clone(), [0.0; DIMENSIONS]);
            solve(&mut rows, &mut right, &taken, base.alpha);
            assert_eq!(Vector::near(&right), found, "{n} taken");
        }
    }
}
