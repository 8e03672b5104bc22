//! A model in the hands of ONNX Runtime: one session for each worker, on the worker's own thread.

use ort::session::Session;
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};
use std::path::Path;
use std::sync::Arc;

use super::runtime::session;
use super::{Card, Golden};
use crate::scoring::columns::Row;
use crate::scoring::ranker::{Model, Open, ScoreError, Scorer};

/// What a model calls what it takes, and what it gives.
const TAKES: &str = "features";
const GIVES: &str = "score";
/// Rows that are scored in one call.
const BATCH: usize = 256;

/// One session.
struct Onnx {
    session: Session,
    columns: Arc<[usize]>,
    input: Vec<f32>,
}

/// Reads, checks and tries a model.
pub fn load(path: &Path, onnx: &super::Onnx) -> Result<Model, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("the file cannot be read: {e}"))?;
    let digest = blake3::hash(&bytes).to_hex()[..16].to_string();
    let opened = session(onnx, &bytes)?;
    let card = card(&opened)?;
    let golden = Golden::read(path)?;
    golden.check(card.columns.len())?;
    let mut first = Onnx { session: opened, columns: card.columns.as_slice().into(), input: Vec::new() };
    let mut scores = Vec::new();
    for batch in golden.rows.chunks(BATCH) {
        first.input.clear();
        batch.iter().for_each(|row| first.input.extend(row));
        first.run(batch.len(), &mut scores).map_err(|e| format!("it fails on its golden rows: {e}"))?;
    }
    golden.agrees(&scores)?;
    let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let (kind, columns, bytes): (_, Arc<[usize]>, _) = (card.kind, card.columns.into(), Arc::new(bytes));
    let (takes, onnx) = (columns.clone(), onnx.clone());
    let open: Open = Arc::new(move || {
        let session = session(&onnx, &bytes).map_err(ScoreError)?;
        Ok(Box::new(Onnx { session, columns: takes.clone(), input: Vec::new() }))
    });
    Ok(Model { name, digest, kind, columns, open })
}

impl Scorer for Onnx {
    fn score(&mut self, rows: &[Row], into: &mut Vec<f32>) -> Result<(), ScoreError> {
        for batch in rows.chunks(BATCH) {
            self.input.clear();
            for row in batch {
                self.input.extend(self.columns.iter().map(|column| row[*column]));
            }
            self.run(batch.len(), into).map_err(ScoreError)?;
        }
        Ok(())
    }
}

impl Onnx {
    /// Scores the rows in `input`.
    fn run(&mut self, rows: usize, into: &mut Vec<f32>) -> Result<(), String> {
        let shape = [rows, self.columns.len()];
        let said = |e: ort::Error| e.to_string();
        let input = TensorRef::from_array_view((shape, &self.input[..])).map_err(said)?;
        let outputs = self.session.run(ort::inputs![TAKES => input]).map_err(said)?;
        let (_, scores) = outputs[GIVES].try_extract_tensor::<f32>().map_err(said)?;
        if scores.len() != rows {
            return Err(format!("it gave {} scores to {rows} rows", scores.len()));
        }
        into.extend(scores);
        Ok(())
    }
}

/// What the model says, held against what it takes and gives.
fn card(session: &Session) -> Result<Card, String> {
    let metadata = session.metadata().map_err(|e| format!("its metadata cannot be read: {e}"))?;
    let card = Card::read(|key| metadata.custom(key))?;
    let width = card.columns.len() as i64;
    fits(
        "input",
        session.inputs(),
        TAKES,
        TensorElementType::Float32,
        |shape| shape.len() == 2 && [-1, width].contains(&shape[1]),
        &format!("[rows, {width}]"),
    )?;
    let column = |shape: &[i64]| shape.len() == 1 || shape.len() == 2 && shape[1] == 1;
    fits("output", session.outputs(), GIVES, TensorElementType::Float32, column, "[rows] or [rows, 1]")?;
    if session.inputs().len() > 1 {
        return Err(format!("it has {} inputs; it must take `{TAKES}` alone", session.inputs().len()));
    }
    Ok(card)
}

/// Whether a tensor of this name is there, of these elements and such a shape.
pub(super) fn fits(
    what: &str,
    outlets: &[Outlet],
    name: &str,
    of: TensorElementType,
    good: impl Fn(&[i64]) -> bool,
    wanted: &str,
) -> Result<(), String> {
    let named = || outlets.iter().map(|outlet| format!("`{}`", outlet.name())).collect::<Vec<_>>().join(", ");
    let outlet = outlets.iter().find(|outlet| outlet.name() == name);
    match outlet.ok_or_else(|| format!("it has no {what} `{name}`, but {}", named()))?.dtype() {
        ValueType::Tensor { ty, shape, .. } if *ty == of && good(shape) => Ok(()),
        ValueType::Tensor { ty, shape, .. } => {
            Err(format!("its {what} `{name}` is {ty} of shape {:?}; it must be {of} of shape {wanted}", &shape[..]))
        }
        other => Err(format!("its {what} `{name}` is {other}; it must be a tensor of {of} of shape {wanted}")),
    }
}
