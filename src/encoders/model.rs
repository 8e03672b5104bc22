//! The ONNX model of an encoder: what it may take, which of its outputs is read, and how that becomes one vector for each piece.
//!
//! A model that gives a vector for each piece (`sentence_embedding`, `text_embeds`, `image_embeds`, or a first output of two dimensions) is
//! taken at its word; of one that gives a vector for each token (a first output of three dimensions) the mean over the tokens is taken that
//! the mask lets through.

use ort::session::{Session, SessionInputValue};
use ort::value::{Outlet, TensorElementType, ValueType};
use std::path::{Path, PathBuf};

use super::golden;
use crate::registry::Onnx;
use crate::registry::runtime::session_of;

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
    /// Of a folder, with ONNX Runtime as the settings have it.
    pub fn open(folder: &Path, onnx: &Onnx) -> Result<Self, String> {
        let path = folder.join(FILE);
        if !path.is_file() {
            return Err(format!("there is no {FILE}; put the model there, or leave the setting empty"));
        }
        let session = session_of(onnx, &path).map_err(|e| format!("{FILE}: {e}"))?;
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

    /// Refuses a model that gives more than one vector for a piece.
    pub fn pooled(&self, advice: &str) -> Result<(), String> {
        if !self.tokens {
            return Ok(());
        }
        Err(format!("{FILE}: its output `{}` has many vectors for each piece; {advice}", self.output))
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

/// The first eight bytes of a BLAKE3 of a folder: of the name and the content of each of its files, in the order of the names. All, because
/// weights may lie beside the model, under any name; but for hidden ones, and for the golden pieces, which change nothing of what is made.
pub fn digest(folder: &Path) -> Result<u64, String> {
    let mut paths = Vec::new();
    files(folder, &mut paths).map_err(|e| format!("its files cannot be read: {e}"))?;
    paths.retain(|path| *path != folder.join(golden::FILE));
    paths.sort();
    let mut hasher = blake3::Hasher::new();
    for path in paths {
        let mut content = blake3::Hasher::new();
        let read = std::fs::File::open(&path).and_then(|file| content.update_reader(file).map(drop));
        read.map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
        let name = path.strip_prefix(folder).unwrap_or(&path).as_os_str().as_encoded_bytes();
        hasher.update(blake3::hash(name).as_bytes()).update(content.finalize().as_bytes());
    }
    let bytes = hasher.finalize();
    Ok(u64::from_be_bytes(*bytes.as_bytes().first_chunk().expect("it has 32 bytes")))
}

/// The files of a folder and of those in it that are not hidden; links to files too, as caches of models are made of.
fn files(folder: &Path, into: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        match entry.file_name().as_encoded_bytes().starts_with(b".") {
            true => {}
            false if entry.file_type()?.is_dir() => files(&path, into)?,
            false => into.extend(path.is_file().then_some(path)),
        }
    }
    Ok(())
}
