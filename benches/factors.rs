//! What factors cost, on one thread, in CPU time: a user folded in, beside a bare loop that does the same arithmetic on vectors that lie
//! one behind another; and the best hundred of 200,000 items for 256 users, beside what the machine's instructions for small whole
//! numbers do at most.

#![allow(clippy::needless_range_loop, reason = "the bare loop is written as in a textbook, by rows and columns")]

mod common;

use common::{Rng, Zipf, median, thread_cpu};
use overdrive::model::ItemId;
use overdrive::scoring::factors::{Base, DIMENSIONS, Gram, Settings, Solver, Vector};
use overdrive::scoring::scan::{Asked, Path, Shelf};
use rustc_hash::FxHashMap;
use std::hint::black_box;

const ITEMS: usize = 20_000;
const SCANNED: usize = 200_000;
const USERS: usize = 256;
const BEST: usize = 100;

fn timed(work: impl FnOnce()) -> f64 {
    let began = thread_cpu();
    work();
    thread_cpu() - began
}

fn vector(rng: &mut Rng) -> Vector {
    Vector(std::array::from_fn(|_| {
        let sum: f32 = (0..4).map(|_| (rng.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5).sum();
        (sum * 8_192.0).round() / 32_768.0
    }))
}

type Rows = [[f32; DIMENSIONS]; DIMENSIONS];

/// The same arithmetic as one function: sum of products, Cholesky, two triangles; no more, and in the simplest order there is.
#[inline(always)]
fn bare(base: &Rows, taken: &[Vector], alpha: f32) -> [f32; DIMENSIONS] {
    let mut a = *base;
    let mut b = [0.0f32; DIMENSIONS];
    for q in taken {
        for i in 0..DIMENSIONS {
            let x = (alpha - 1.0) * q.0[i];
            for j in i..DIMENSIONS {
                a[i][j] += x * q.0[j];
            }
            b[i] += alpha * q.0[i];
        }
    }
    let mut scale = [0.0f32; DIMENSIONS];
    for k in 0..DIMENSIONS {
        scale[k] = 1.0 / a[k][k].sqrt();
        for j in k..DIMENSIONS {
            a[k][j] *= scale[k];
        }
        let above = a[k];
        for i in k + 1..DIMENSIONS {
            for j in i..DIMENSIONS {
                a[i][j] -= above[i] * above[j];
            }
        }
    }
    for k in 0..DIMENSIONS {
        b[k] *= scale[k];
        for j in k + 1..DIMENSIONS {
            b[j] -= b[k] * a[k][j];
        }
    }
    for k in (0..DIMENSIONS).rev() {
        let known: f32 = (k + 1..DIMENSIONS).map(|j| a[k][j] * b[j]).sum();
        b[k] = (b[k] - known) * scale[k];
    }
    b
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn bare_512(base: &Rows, taken: &[Vector], alpha: f32) -> [f32; DIMENSIONS] {
    bare(base, taken, alpha)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn bare_256(base: &Rows, taken: &[Vector], alpha: f32) -> [f32; DIMENSIONS] {
    bare(base, taken, alpha)
}

/// For the widest registers the machine has, as the stage is.
fn bare_loop(base: &Rows, taken: &[Vector], alpha: f32) -> [f32; DIMENSIONS] {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the machine has it
            return unsafe { bare_512(base, taken, alpha) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has it
            return unsafe { bare_256(base, taken, alpha) };
        }
    }
    bare(base, taken, alpha)
}

fn fold_in() {
    let (mut rng, settings) = (Rng(42), Settings { alpha: 8.0, reg: 5.0 });
    let vectors: Vec<Vector> = (0..ITEMS).map(|_| vector(&mut rng)).collect();
    let gram = Gram::of(&vectors);
    let base = Base::new(&gram, &settings);
    let rows: Rows = plain_rows(&vectors, settings.reg);
    let id = |n: usize| ItemId::of(&n.to_string());
    let places: FxHashMap<ItemId, u32> = (0..ITEMS).map(|n| (id(n), n as u32)).collect();
    let zipf = Zipf::new(ITEMS);
    for taken in [10, 50, 200, 1_000] {
        let times = 200_000 / (taken + 200);
        let histories: Vec<Vec<u64>> = (0..times).map(|_| (0..taken).map(|_| zipf.draw(&mut rng)).collect()).collect();
        let ids: Vec<Vec<ItemId>> = histories.iter().map(|of| of.iter().map(|n| id(*n as usize)).collect()).collect();
        let dense: Vec<Vec<Vector>> = histories.iter().map(|of| of.iter().map(|n| vectors[*n as usize]).collect()).collect();
        let (mut solver, mut sum) = (Solver::default(), gram.clone());
        let (mut by_stage, mut by_hand) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            by_stage.push(timed(|| {
                for ids in &ids {
                    let known = ids.iter().filter_map(|item| places.get(item)).map(|place| &vectors[*place as usize]);
                    let vector = solver.solve(&base, known).expect("something was taken");
                    sum.remove(&vectors[0]);
                    sum.add(&vector);
                }
            }));
            by_hand.push(timed(|| dense.iter().for_each(|taken| _ = black_box(bare_loop(&rows, taken, settings.alpha)))));
        }
        black_box(&sum);
        let ratio = median(by_stage.iter().zip(&by_hand).map(|(a, b)| a / b).collect());
        let micros = |of: Vec<f64>| median(of) * 1e6 / times as f64;
        println!(
            "fold-in of {taken} items, looked up, solved, exchanged in the sum: {:.1} µs; bare loop {:.1} µs; {ratio:.2}",
            micros(by_stage),
            micros(by_hand)
        );
    }
}

fn plain_rows(vectors: &[Vector], reg: f32) -> Rows {
    let mut rows = [[0.0f32; DIMENSIONS]; DIMENSIONS];
    for i in 0..DIMENSIONS {
        for j in i..DIMENSIONS {
            let sum: f64 = vectors.iter().map(|v| f64::from(v.0[i]) * f64::from(v.0[j])).sum();
            rows[i][j] = sum as f32 + if i == j { reg } else { 0.0 };
        }
    }
    rows
}

/// Products a second that the instruction of a path makes at most, on registers alone.
#[cfg(target_arch = "x86_64")]
mod peak {
    use std::arch::x86_64::*;

    pub const ROUNDS: usize = 4_000_000;

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn vnni() -> (f64, i32) {
        let (items, users) = (_mm512_set1_epi8(3), _mm512_set1_epi8(5));
        let mut sums = [_mm512_setzero_si512(); 24];
        for _ in 0..ROUNDS {
            let items = std::hint::black_box(items);
            sums.iter_mut().for_each(|sum| *sum = _mm512_dpbusd_epi32(*sum, items, users));
        }
        let sum = sums.into_iter().fold(_mm512_setzero_si512(), |a, b| _mm512_add_epi32(a, b));
        ((ROUNDS * 24 * 64) as f64, _mm512_reduce_add_epi32(sum))
    }

    #[target_feature(enable = "avx2")]
    pub fn avx2() -> (f64, i32) {
        let (items, users, ones) = (_mm256_set1_epi8(3), _mm256_set1_epi8(5), _mm256_set1_epi16(1));
        let mut sums = [_mm256_setzero_si256(); 12];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                let pairs = _mm256_maddubs_epi16(std::hint::black_box(items), users);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        let sum = sums.into_iter().fold(_mm256_setzero_si256(), |a, b| _mm256_add_epi32(a, b));
        ((ROUNDS * 12 * 32) as f64, _mm256_extract_epi32::<0>(sum))
    }

    /// What no product of matrices of floats is faster than.
    #[target_feature(enable = "avx512f")]
    pub fn floats_512() -> (f64, i32) {
        let (items, users) = (_mm512_set1_ps(0.5), _mm512_set1_ps(0.25));
        let mut sums = [_mm512_setzero_ps(); 24];
        for _ in 0..ROUNDS {
            let items = std::hint::black_box(items);
            sums.iter_mut().for_each(|sum| *sum = _mm512_fmadd_ps(items, users, *sum));
        }
        let sum = sums.into_iter().fold(_mm512_setzero_ps(), |a, b| _mm512_add_ps(a, b));
        ((ROUNDS * 24 * 16) as f64, _mm512_reduce_add_ps(sum) as i32)
    }

    /// The same with half as wide registers.
    #[target_feature(enable = "avx2,fma")]
    pub fn floats_256() -> (f64, i32) {
        let (items, users) = (_mm256_set1_ps(0.5), _mm256_set1_ps(0.25));
        let mut sums = [_mm256_setzero_ps(); 12];
        for _ in 0..ROUNDS {
            let items = std::hint::black_box(items);
            sums.iter_mut().for_each(|sum| *sum = _mm256_fmadd_ps(items, users, *sum));
        }
        let sum = sums.into_iter().fold(_mm256_setzero_ps(), |a, b| _mm256_add_ps(a, b));
        ((ROUNDS * 12 * 8) as f64, _mm256_cvtss_f32(sum) as i32)
    }
}

/// Products a second at most, of bytes as a path multiplies them, and of floats in registers as wide; `None`: not measured.
fn at_most(path: Path) -> Option<[f64; 2]> {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: only paths the machine has are asked for, and what has VNNI has AVX-512
    return match path {
        Path::Vnni => Some([a_second(|| unsafe { peak::vnni() }), a_second(|| unsafe { peak::floats_512() })]),
        Path::Avx2 => Some([a_second(|| unsafe { peak::avx2() }), a_second(|| unsafe { peak::floats_256() })]),
        Path::Plain => None,
    };
    #[cfg(not(target_arch = "x86_64"))]
    None
}

#[cfg(target_arch = "x86_64")]
fn a_second(products: impl Fn() -> (f64, i32)) -> f64 {
    let mut made = 0.0;
    let took = timed(|| made = black_box(products()).0);
    made / took
}

fn scan() {
    let mut rng = Rng(7);
    let mut shelf = Shelf::default();
    (0..SCANNED as u64).for_each(|n| _ = shelf.push(ItemId(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), vector(&mut rng)));
    let users: Vec<Vector> = (0..USERS).map(|_| vector(&mut rng)).collect();
    let asked: Vec<Asked> = users.iter().map(|vector| Asked { vector, without: &[] }).collect();
    for path in Path::all() {
        let times = if path == Path::Plain { 1 } else { 5 };
        let (mut scans, mut ratios) = (Vec::new(), [Vec::new(), Vec::new()]);
        black_box(shelf.best_by(path, &asked[..1], BEST));
        for _ in 0..times {
            let peak = at_most(path);
            let took = timed(|| _ = black_box(shelf.best_by(path, &asked, BEST)));
            scans.push(took);
            for (ratios, peak) in ratios.iter_mut().zip(peak.into_iter().flatten()) {
                ratios.push((SCANNED * USERS * DIMENSIONS) as f64 / took / peak);
            }
        }
        let [bytes, floats] = ratios.map(|of| if of.is_empty() { "-".to_string() } else { format!("{:.2}", median(of)) });
        let took = median(scans);
        println!(
            "best {BEST} of {SCANNED} for {USERS} users, {path:?}: {:.1} ms, {:.0} users/s; of the peak of bytes {bytes}, of floats {floats}",
            took * 1e3,
            USERS as f64 / took
        );
    }
    let took = timed(|| _ = black_box(asked.iter().take(16).map(|asked| shelf.plainly(asked, BEST)).collect::<Vec<_>>()));
    println!("the same one user at a time in floats: {:.0} users/s", 16.0 / took);
}

fn main() {
    fold_in();
    scan();
}
