//! What content costs, on one thread, in CPU time: the nearest items of one by looking at all of them, beside the same numbers multiplied
//! in one bare loop; what is remembered, corrected after so many changes; and 200 candidates held against five items.

mod common;

use common::{Rng, median, thread_cpu};
use overdrive::model::ItemId;
use overdrive::model::content::{Direction, Points};
use overdrive::scoring::alike::Shelf;
use std::hint::black_box;
use std::sync::Arc;

const WIDTH: usize = 384;
const KEPT: usize = 40;
const TURNS: usize = 9;
const CANDIDATES: u32 = 200;
const TAKEN: u32 = 5;

/// Milliseconds of CPU that some work takes, the median of several turns.
fn timed(mut work: impl FnMut(usize)) -> f64 {
    let turn = |n| {
        let began = thread_cpu();
        work(n);
        (thread_cpu() - began) * 1e3
    };
    median((0..TURNS).map(turn).collect())
}

fn direction(rng: &mut Rng) -> Direction {
    let vector: Vec<f32> = (0..WIDTH).map(|_| (rng.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.4).collect();
    Direction::of(&vector).expect("it points somewhere")
}

fn points(item: usize, rng: &mut Rng) -> Points {
    Points { item: ItemId(item as u64), directions: [Some(Arc::new(direction(rng))), None, None], offered: true }
}

/// The products alone, of numbers that lie one behind another.
fn bare(rows: &[i8], one: &[i8]) -> i64 {
    let product = |row: &[i8]| row.iter().zip(one).map(|(a, b)| i32::from(i16::from(*a) * i16::from(*b))).sum::<i32>();
    rows.chunks_exact(WIDTH).map(|row| i64::from(product(row))).sum()
}

fn main() {
    for items in [10_000usize, 50_000, 200_000] {
        let mut rng = Rng(7);
        let mut shelf = Shelf::new(KEPT);
        (0..items).for_each(|item| shelf.put(&points(item, &mut rng)));
        let nearest = |shelf: &mut Shelf, item: usize| _ = black_box(shelf.nearest(ItemId(item as u64)));
        let anew = timed(|n| nearest(&mut shelf, n));
        let known = timed(|n| nearest(&mut shelf, n));
        let rows: Vec<i8> = (0..items).flat_map(|_| direction(&mut rng).0).collect();
        let one = direction(&mut rng);
        let bare = timed(|_| _ = black_box(bare(&rows, &one.0)));
        println!(
            "{items} items, the nearest {KEPT} of one: {anew:.2} ms, {:.2} of a bare loop; remembered {:.1} µs",
            anew / bare,
            known * 1e3
        );
        for changes in [1usize, 64, 1_000] {
            let corrected = median(
                (0..TURNS)
                    .map(|n| {
                        let changed = |c: usize| items / 2 + (n * changes + c) % (items / 2);
                        nearest(&mut shelf, n); // right up to here
                        (0..changes).for_each(|c| shelf.put(&points(changed(c), &mut rng)));
                        let began = thread_cpu();
                        nearest(&mut shelf, n);
                        (thread_cpu() - began) * 1e3
                    })
                    .collect(),
            );
            println!("  after {changes} changes: {corrected:.3} ms, {:.2} of looking anew", corrected / anew);
        }
        let refresh = timed(|n| {
            let at = |k: u32| (k * 7_919 + n as u32) % items as u32;
            let pairs = (0..CANDIDATES).flat_map(|candidate| (0..TAKEN).map(move |taken| (candidate + TAKEN, taken)));
            let sum: i64 = pairs.map(|(one, other)| i64::from(shelf.likeness(at(one), at(other)))).sum();
            black_box(sum);
        });
        println!("  {CANDIDATES} candidates held against {TAKEN} items: {refresh:.2} ms");
    }
}
