//! What the scorer adds to ONNX Runtime: 200 rows by the engine's ranker, and the same rows, laid out beforehand, by a bare session with
//! the same options. `MODELS`: files as `overdrive train` writes them, with commas between; `PAIRS` (5) of measurements in turns.

mod common;

use common::{Rng, median, number};
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;
use overdrive::registry::{Onnx, load};
use overdrive::scoring::columns::{COLUMNS, Row, find};
use overdrive::scoring::ranker::Ranker;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const ROWS: usize = 200;
/// Calls of a measurement.
const CALLS: usize = 500;

fn main() {
    let mut rng = Rng(3);
    let rows: Vec<Row> = (0..ROWS).map(|_| [(); COLUMNS].map(|()| (rng.below(2_000) as f32 - 1_000.0) / 300.0)).collect();
    if let Ok(model) = std::env::var("BARE") {
        return bare(Path::new(&model), &rows);
    }
    let models = std::env::var("MODELS").expect("MODELS names files; overdrive train makes some");
    models.split(',').for_each(|model| compare(Path::new(model), &rows));
}

/// Rows a second of both, in turns; the bare one in a process of its own, for one has one environment of ONNX Runtime.
fn compare(path: &Path, rows: &[Row]) {
    let mut ranker = Ranker::new(&load(path, &Onnx::on_cpu()).expect("it is good"));
    let mut scores = vec![0.0; rows.len()];
    let mut ours = || _ = ranker.rescore(rows, &mut scores);
    let bare = || {
        let run = Command::new(std::env::current_exe().expect("this")).env("BARE", path).output().expect("it runs");
        String::from_utf8_lossy(&run.stdout).trim().parse::<f64>().expect("a number")
    };
    let (mut rates, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..number("PAIRS", 5) {
        let (ours, theirs) = (rate(&mut ours), bare());
        rates.push(ours);
        ratios.push(ours / theirs);
    }
    println!("{}: {:.0} rows/s, {:.2} of bare ONNX Runtime's", path.display(), median(rates), median(ratios));
}

fn rate(call: &mut dyn FnMut()) -> f64 {
    call();
    let begun = Instant::now();
    (0..CALLS).for_each(|_| call());
    (CALLS * ROWS) as f64 / begun.elapsed().as_secs_f64()
}

/// Prints the rows a second of a bare session over rows that were laid out beforehand.
fn bare(path: &Path, rows: &[Row]) {
    let library = std::env::var_os("ORT_DYLIB_PATH").expect("ORT_DYLIB_PATH names the library");
    let environment = ort::init_from(library).expect("it loads").build().expect("it starts");
    let builder = Session::builder(&environment).expect("a session").with_intra_threads(1).expect("an option");
    let builder = builder.with_optimization_level(GraphOptimizationLevel::All).expect("an option");
    let mut builder = builder.with_intra_op_spinning(false).expect("an option");
    let mut session = builder.commit_from_file(path).expect("a model");
    let names = session.metadata().expect("what it says").custom("overdrive.features").expect("its columns");
    let columns: Vec<usize> = names.split(',').map(|name| find(name).expect("a column")).collect();
    let laid_out: Vec<f32> = rows.iter().flat_map(|row| columns.iter().map(|column| row[*column])).collect();
    let shape = [rows.len(), columns.len()];
    let mut call = || {
        let input = TensorRef::from_array_view((shape, &laid_out[..])).expect("a tensor");
        let outputs = session.run(ort::inputs!["features" => input]).expect("it scores");
        let (_, scores) = outputs["score"].try_extract_tensor::<f32>().expect("numbers");
        assert_eq!(scores.len(), ROWS);
    };
    println!("{}", rate(&mut call));
}
