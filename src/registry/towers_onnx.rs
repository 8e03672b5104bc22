//! Two towers in the hands of ONNX Runtime: a session of each for each worker, which makes one vector a call.

use ort::session::Session;
use ort::value::{TensorElementType, TensorRef};
use std::path::Path;
use std::sync::Arc;

use super::Onnx as Settings;
use super::onnx::fits;
use super::runtime::session;
use super::towers::{GOLDEN, Golden, check};
use crate::model::{ItemId, TokenId};
use crate::scoring::factors::{DIMENSIONS, Vector};
use crate::scoring::ranker::ScoreError;
use crate::scoring::towers::{HISTORY, Open, TOKENS, Tower, Towers};

/// What the towers call what they take, and what they give.
const OF_ITEM: [&str; 2] = ["item", "tokens"];
const OF_USER: &str = "history";
const GIVES: &str = "vector";

/// Both sessions, and room for what the user tower is shown.
struct Onnx {
    item: Session,
    user: Session,
    history: Vec<f32>,
}

/// Reads, checks and tries the towers of a folder.
pub fn load(folder: &Path, onnx: &Settings) -> Result<Towers, String> {
    let onnx = onnx.clone();
    let read = |name: &str| std::fs::read(folder.join(name)).map_err(|e| format!("its {name} cannot be read: {e}"));
    let (item, user) = (Arc::new(read("item.onnx")?), Arc::new(read("user.onnx")?));
    let golden = Golden::read(&read(GOLDEN)?)?;
    let both = [&item, &user].map(|bytes| *blake3::hash(bytes).as_bytes()).concat();
    let digest = blake3::hash(&both).to_hex()[..16].to_string();
    let open = move || -> Result<Onnx, String> {
        let opened = |bytes: &[u8], which: &str| session(&onnx, bytes).map_err(|e| format!("{which}.onnx: {e}"));
        Ok(Onnx { item: opened(&item, "item")?, user: opened(&user, "user")?, history: Vec::new() })
    };
    let mut first = open()?;
    first.check()?;
    golden.agrees(&mut first)?;
    let name = folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let open: Open = Arc::new(move || open().map(|onnx| Box::new(onnx) as Box<dyn Tower>).map_err(ScoreError));
    Ok(Towers { name, digest, open })
}

impl Onnx {
    /// What the towers say of themselves, held against what they take and give.
    fn check(&self) -> Result<(), String> {
        let width = |lengths: &'static [i64]| {
            move |shape: &[i64]| {
                shape.len() == lengths.len() + 1 && shape[1..].iter().zip(lengths).all(|(one, of)| [-1, *of].contains(one))
            }
        };
        for (which, session) in [("item", &self.item), ("user", &self.user)] {
            let metadata = session.metadata().map_err(|e| format!("the metadata of {which}.onnx cannot be read: {e}"))?;
            check(which, |key| metadata.custom(key))?;
            let inputs: &[(&str, TensorElementType, &'static [i64])] = match which {
                "item" => {
                    &[(OF_ITEM[0], TensorElementType::Int64, &[1]), (OF_ITEM[1], TensorElementType::Int64, &[TOKENS as i64])]
                }
                _ => &[(OF_USER, TensorElementType::Float32, &[HISTORY as i64, DIMENSIONS as i64])],
            };
            let named = |e| format!("{which}.onnx: {e}");
            if session.inputs().len() != inputs.len() {
                return Err(named(format!("it has {} inputs; it must have {}", session.inputs().len(), inputs.len())));
            }
            for (name, of, lengths) in inputs {
                let wanted = format!("[rows, {}]", lengths.iter().map(i64::to_string).collect::<Vec<_>>().join(", "));
                fits("input", session.inputs(), name, *of, width(lengths), &wanted).map_err(named)?;
            }
            let wanted = format!("[rows, {DIMENSIONS}]");
            let of = TensorElementType::Float32;
            fits("output", session.outputs(), GIVES, of, width(&[DIMENSIONS as i64]), &wanted).map_err(named)?;
        }
        Ok(())
    }
}

impl Tower for Onnx {
    fn item(&mut self, item: ItemId, tokens: &[TokenId]) -> Result<[f32; DIMENSIONS], ScoreError> {
        let (item, mut all) = ([item.0 as i64], [0i64; TOKENS]);
        all.iter_mut().zip(tokens).for_each(|(to, token)| *to = token.0 as i64);
        let said = |e: ort::Error| ScoreError(format!("item.onnx: {e}"));
        let item = TensorRef::from_array_view(([1usize, 1], &item[..])).map_err(said)?;
        let tokens = TensorRef::from_array_view(([1usize, TOKENS], &all[..])).map_err(said)?;
        let outputs = self.item.run(ort::inputs![OF_ITEM[0] => item, OF_ITEM[1] => tokens]).map_err(said)?;
        outputs[GIVES].try_extract_tensor::<f32>().map_err(said).and_then(|(_, numbers)| vector(numbers))
    }

    fn user(&mut self, history: &[&Vector]) -> Result<[f32; DIMENSIONS], ScoreError> {
        self.history.clear();
        history.iter().take(HISTORY).for_each(|vector| self.history.extend(vector.0));
        self.history.resize(HISTORY * DIMENSIONS, 0.0);
        let said = |e: ort::Error| ScoreError(format!("user.onnx: {e}"));
        let history = TensorRef::from_array_view(([1usize, HISTORY, DIMENSIONS], &self.history[..])).map_err(said)?;
        let outputs = self.user.run(ort::inputs![OF_USER => history]).map_err(said)?;
        outputs[GIVES].try_extract_tensor::<f32>().map_err(said).and_then(|(_, numbers)| vector(numbers))
    }
}

fn vector(numbers: &[f32]) -> Result<[f32; DIMENSIONS], ScoreError> {
    numbers.try_into().map_err(|_| ScoreError(format!("it gave {} numbers for a vector of {DIMENSIONS}", numbers.len())))
}
