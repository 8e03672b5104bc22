//! Directions of texts: `model.onnx` and `tokenizer.json`, as sentence encoders are exported.
//!
//! The fact that must stay true: what is made of a text does not depend on the texts it is encoded with. They are padded to one length where the
//! model is told what is padding, and where it is not each is encoded alone.

use ort::session::SessionInputValue;
use ort::value::{Tensor, TensorElementType};
use std::path::Path;
use tokenizers::{Encoding, Tokenizer, TruncationParams, TruncationStrategy};

use super::model::{Batch, Model, digest};
use super::{Encode, golden};
use crate::model::content::Direction;
use crate::registry::Onnx;

/// What a model may take, in this order here.
const TAKES: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];
const MASK: usize = 1;
/// Tokens of a text that are looked at: as `tokenizer.json` says, or this many.
const USUAL_TOKENS: usize = 256;
/// And never more.
const MOST_TOKENS: usize = 512;
/// Texts in one call, of nearly one length.
const AT_ONCE: usize = 8;

const FILE: &str = "tokenizer.json";

/// A text encoder.
pub struct Text {
    model: Model,
    tokenizer: Tokenizer,
    /// Which of [`TAKES`] the model takes.
    takes: Vec<usize>,
    padding: i64,
    digest: u64,
}

impl Text {
    /// Reads, checks and tries what lies in a folder.
    pub fn open(folder: &Path, onnx: &Onnx) -> Result<Self, String> {
        let bytes =
            std::fs::read(folder.join(FILE)).map_err(|e| format!("{FILE} cannot be read: {e}; put it beside model.onnx"))?;
        let (tokenizer, padding, most) = tokenizer(&bytes)?;
        let model = Model::open(folder, onnx)?;
        let takes = takes(&model)?;
        let mut text = Self { model, tokenizer, takes, padding, digest: digest(folder)? };
        text.encode(&[b"a text"])?;
        let long = "a text ".repeat(most);
        text.encode(&[long.as_bytes()]).map_err(|why| {
            format!("{why}; it cannot read {most} tokens: set truncation.max_length in {FILE} to what the model takes")
        })?;
        golden::check(folder, &mut text)?;
        Ok(text)
    }

    /// Directions of texts of nearly one length.
    fn run(&mut self, encodings: &[&Encoding]) -> Result<Vec<Option<Direction>>, String> {
        let (rows, length) = (encodings.len(), encodings.iter().map(|of| of.len()).max().unwrap_or(0));
        let padded = |of: fn(&Encoding) -> &[u32], padding: i64| -> Vec<i64> {
            let row = |encoding: &&Encoding| {
                let tokens = of(encoding).iter().map(|x| i64::from(*x)).collect::<Vec<_>>();
                tokens.into_iter().chain(std::iter::repeat(padding)).take(length).collect::<Vec<_>>()
            };
            encodings.iter().flat_map(row).collect()
        };
        let all =
            [padded(Encoding::get_ids, self.padding), padded(Encoding::get_attention_mask, 0), padded(Encoding::get_type_ids, 0)];
        let mut inputs: Vec<(String, SessionInputValue)> = Vec::new();
        for of in &self.takes {
            let tensor = Tensor::from_array(([rows, length], all[*of].clone())).map_err(|e| e.to_string())?;
            inputs.push((TAKES[*of].to_string(), tensor.into()));
        }
        let vectors = self.model.run(inputs, &Batch { rows, mask: &all[MASK] })?;
        Ok(vectors.iter().map(|vector| Direction::of(vector)).collect())
    }
}

impl Encode for Text {
    fn digest(&self) -> u64 {
        self.digest
    }

    fn encode(&mut self, bodies: &[&[u8]]) -> Result<Vec<Option<Direction>>, String> {
        let said = |e: tokenizers::Error| format!("{FILE} fails: {e}");
        let tokens = |body: &&[u8]| self.tokenizer.encode(String::from_utf8_lossy(body).into_owned(), true).map_err(said);
        let encodings = bodies.iter().map(tokens).collect::<Result<Vec<_>, _>>()?;
        let mut order: Vec<usize> = (0..bodies.len()).filter(|n| !encodings[*n].is_empty()).collect();
        order.sort_by_key(|n| encodings[*n].len());
        let mut directions = vec![None; bodies.len()];
        let at_once = if self.takes.contains(&MASK) { AT_ONCE } else { 1 };
        for places in order.chunks(at_once) {
            let chunk: Vec<&Encoding> = places.iter().map(|n| &encodings[*n]).collect();
            let made = self.run(&chunk)?;
            places.iter().zip(made).for_each(|(n, direction)| directions[*n] = direction);
        }
        Ok(directions)
    }
}

/// The tokenizer, cut at a length and without padding of its own, what it pads with, and the length.
fn tokenizer(bytes: &[u8]) -> Result<(Tokenizer, i64, usize), String> {
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| format!("{FILE} is no tokenizer: {e}"))?;
    let named = || ["[PAD]", "<pad>"].into_iter().find_map(|token| tokenizer.token_to_id(token));
    let padding = tokenizer.get_padding().map(|padding| padding.pad_id).or_else(named).unwrap_or(0);
    let cut = tokenizer.get_truncation().cloned();
    let (max_length, direction) =
        cut.map_or((USUAL_TOKENS, TruncationParams::default().direction), |cut| (cut.max_length, cut.direction));
    let max_length = max_length.clamp(8, MOST_TOKENS);
    tokenizer.with_padding(None);
    // of one text the rest is not looked at; a stride is for those who do, and one that is too long makes the crate panic
    let truncation = Some(TruncationParams { max_length, direction, strategy: TruncationStrategy::LongestFirst, stride: 0 });
    tokenizer.with_truncation(truncation).map_err(|e| format!("{FILE}: it cannot be cut at {max_length} tokens: {e}"))?;
    Ok((tokenizer, padding.into(), max_length))
}

/// The places of the model's inputs in [`TAKES`].
fn takes(model: &Model) -> Result<Vec<usize>, String> {
    let inputs = model.inputs(TensorElementType::Int64)?;
    let place = |(name, shape): &(String, Vec<i64>)| {
        let known = TAKES.iter().position(|takes| takes == name).filter(|_| shape.len() == 2);
        known.ok_or_else(|| {
            let known = TAKES.map(|name| format!("`{name}`")).join(", ");
            format!("model.onnx: its input `{name}` has the shape {shape:?}; it may take {known}, of shape [texts, tokens]")
        })
    };
    let places = inputs.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    if places.contains(&0) { Ok(places) } else { Err(format!("model.onnx does not take `{}`", TAKES[0])) }
}
