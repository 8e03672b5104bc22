//! What towers cost, on one thread, in CPU time: the vector of an item, that of a user, and the exact scan for the best of many items, each as a
//! refresh asks for it. `MODELS`: folders as `overdrive train twotower` or `sequence` makes them, with commas between.

mod common;

use common::{Rng, median, thread_cpu};
use overdrive::model::{ItemId, TokenId};
use overdrive::registry::{Onnx, load_towers};
use overdrive::scoring::factors::{DIMENSIONS, Vector};
use overdrive::scoring::ranker::ScoreError;
use overdrive::scoring::towers::{HISTORY, Shelf, Tower, Towers};
use std::path::Path;
use std::sync::Arc;

const TURNS: usize = 9;
const CALLS: usize = 100;
/// As many as are looked for under the defaults.
const BEST: usize = 132;

/// Microseconds of CPU of one call, the median of several turns.
fn timed(mut call: impl FnMut(usize)) -> f64 {
    let turn = |turn: usize| {
        let began = thread_cpu();
        (0..CALLS).for_each(|n| call(turn * CALLS + n));
        (thread_cpu() - began) * 1e6 / CALLS as f64
    };
    median((0..TURNS).map(turn).collect())
}

/// Points somewhere, for every item elsewhere; a user where the latest item does.
struct Draw;

impl Tower for Draw {
    fn item(&mut self, item: ItemId, _: &[TokenId]) -> Result<[f32; DIMENSIONS], ScoreError> {
        Ok(Vector::drawn(item.0).0)
    }

    fn user(&mut self, history: &[&Vector]) -> Result<[f32; DIMENSIONS], ScoreError> {
        Ok(history[0].0)
    }
}

fn main() {
    let models = std::env::var("MODELS").expect("MODELS names folders; overdrive train twotower makes one");
    models.split(',').for_each(|folder| call(Path::new(folder)));
    [20_000, 200_000].into_iter().for_each(scan);
}

/// Calls of the towers of a folder.
fn call(folder: &Path) {
    let (mut rng, towers) = (Rng(7), load_towers(folder, &Onnx::on_cpu()).expect("they are good"));
    let mut shelf = Shelf::new(&towers);
    let tokens = [(); 4].map(|()| TokenId(rng.next()));
    let mut put = |n: usize| shelf.put(ItemId(1 + n as u64), &tokens, true);
    let item = timed(&mut put);
    for taken in [5, HISTORY] {
        let history = |n: usize| (0..taken).map(move |back| ItemId(1 + (n + 7 * back) as u64 % 500));
        let user = timed(|n| _ = shelf.user(history(n)));
        println!("{}: an item {item:.1} µs, a user who took {taken} {user:.1} µs", towers.name);
    }
}

/// The best of so many items, of which no two point the same way.
fn scan(items: u64) {
    let mut shelf = Shelf::new(&Towers { name: String::new(), digest: String::new(), open: Arc::new(|| Ok(Box::new(Draw))) });
    (1..=items).for_each(|item| shelf.put(ItemId(item), &[], true));
    let users: Vec<_> = (0..CALLS as u64).filter_map(|n| shelf.user([ItemId(1 + n * 7 % items)].into_iter())).collect();
    let best = timed(|n| _ = shelf.best(&users[n % users.len()], &[], BEST));
    println!("the best {BEST} of {items}: {best:.1} µs");
}
