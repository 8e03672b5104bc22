//! The ONNX model of an encoder: what it may take, which of its outputs is read, and how that becomes one vector for each piece.
//!
//! A model that gives a vector for each piece (`sentence_embedding`, `text_embeds`, `image_embeds`, or a first output of two dimensions) is
//! taken at its word; of one that gives a vector for each token (a first output of three dimensions) the mean over the tokens is taken that
//! the mask lets through.

use ort::session::{Session, SessionInputValue};
use ort::value::{Outlet, TensorElementType, ValueType};
use std::path::Path;

use crate::registry::runtime::{environment, session_of};

/// What outputs are called that have one vector for each piece.
const NAMED: [&str; 3] = ["sentence_embedding", "text_embeds", "image_embeds"];
/// Most numbers of a vector.
const MOST: usize = 4096;

/// A session, and the output that is read.
pub struct Model {
    session: Session,
    output: String,
    /// Whether it has a vector for each token.
    tokens: bool,
}

/// What went into a call: how many pieces, and which tokens of them count, a row of the same length for each.
pub struct Batch<'a> {
    pub rows: usize,
    pub mask: &'a [i64],
}

/// The file of the model in a folder.
const FILE: &str = "model.onnx";

impl Model {
    /// Of a folder, by the library of ONNX Runtime at this path.
    pub fn open(folder: &Path, library: &str) -> Result<Self, String> {
        let environment = environment(library)?;
        let path = folder.join(FILE);
        if !path.is_file() {
            return Err(format!("there is no {FILE}; put the model there, or leave the setting empty"));
        }
        let session = session_of(environment, &path).map_err(|e| format!("{FILE}: {e}"))?;
        let (output, tokens) = read(session.outputs())?;
        Ok(Self { session, output, tokens })
    }

    /// What it takes: the name and the shape of each input, which must be of this type.
    pub fn inputs(&self, of: TensorElementType) -> Result<Vec<(String, Vec<i64>)>, String> {
        let input = |outlet: &Outlet| match outlet.dtype() {
            ValueType::Tensor { ty, shape, .. } if *ty == of => Ok((outlet.name().to_string(), shape.to_vec())),
            other => Err(format!("{FILE}: its input `{}` is {other}; it must be a tensor of {of}", outlet.name())),
        };
        self.session.inputs().iter().map(input).collect()
    }

    /// A vector for each piece of a batch.
    pub fn run(&mut self, inputs: Vec<(String, SessionInputValue)>, batch: &Batch) -> Result<Vec<Vec<f32>>, String> {
        let said = |e: ort::Error| format!("{FILE} fails: {e}");
        let outputs = self.session.run(inputs).map_err(said)?;
        let (shape, numbers) = outputs[self.output.as_str()].try_extract_tensor::<f32>().map_err(said)?;
        let wanted = if self.tokens { vec![batch.rows, batch.mask.len() / batch.rows] } else { vec![batch.rows] };
        let (width, first) = shape.split_last().map_or((0, &[][..]), |(width, first)| (*width as usize, first));
        if first.iter().map(|length| *length as usize).ne(wanted.iter().copied()) || !(1..=MOST).contains(&width) {
            return Err(format!(
                "{FILE}: its output `{}` has the shape {:?} for {wanted:?} pieces and tokens",
                self.output,
                &shape[..]
            ));
        }
        let vectors = numbers.chunks(numbers.len() / batch.rows);
        if !self.tokens {
            return Ok(vectors.map(<[f32]>::to_vec).collect());
        }
        let masks = batch.mask.chunks(batch.mask.len() / batch.rows);
        Ok(vectors.zip(masks).map(|(tokens, mask)| mean(tokens, mask, width)).collect())
    }
}

/// Which output is read, and whether it has a vector for each token.
fn read(outputs: &[Outlet]) -> Result<(String, bool), String> {
    let rank = |outlet: &Outlet| match outlet.dtype() {
        ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } => shape.len(),
        _ => 0,
    };
    let named = outputs.iter().find(|outlet| NAMED.contains(&outlet.name()) && rank(outlet) == 2);
    let output = named.or(outputs.first()).ok_or(format!("{FILE} gives nothing"))?;
    match rank(output) {
        2 => Ok((output.name().to_string(), false)),
        3 => Ok((output.name().to_string(), true)),
        _ => Err(format!(
            "{FILE}: its first output `{}` is {}; it must be f32 of shape [pieces, numbers] or [pieces, tokens, numbers]",
            output.name(),
            output.dtype()
        )),
    }
}

/// The mean over the tokens that count; nowhere where none does.
fn mean(tokens: &[f32], mask: &[i64], width: usize) -> Vec<f32> {
    let mut mean = vec![0.0; width];
    let counted = tokens.chunks(width).zip(mask).filter(|(_, counts)| **counts != 0);
    counted.for_each(|(token, _)| mean.iter_mut().zip(token).for_each(|(sum, x)| *sum += x));
    let count = mask.iter().filter(|counts| **counts != 0).count().max(1) as f32;
    mean.iter_mut().for_each(|sum| *sum /= count);
    mean
}

/// The first eight bytes of the BLAKE3 of the model and what belongs to it.
pub fn digest(folder: &Path, others: &[&[u8]]) -> Result<u64, String> {
    let mut hasher = blake3::Hasher::new();
    let read = std::fs::File::open(folder.join(FILE)).and_then(|file| hasher.update_reader(file).map(drop));
    read.map_err(|e| format!("{FILE} cannot be read: {e}"))?;
    others.iter().for_each(|bytes| _ = hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes));
    let bytes = hasher.finalize();
    Ok(u64::from_be_bytes(*bytes.as_bytes().first_chunk().expect("it has 32 bytes")))
}
