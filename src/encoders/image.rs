//! Directions of images: `model.onnx` as the image side of CLIP is exported, and how it wants its pictures in `preprocessor_config.json`.

use ort::value::{Tensor, TensorElementType};
use std::path::Path;

use super::model::{Batch, Model, digest};
use super::picture::Recipe;
use super::{Encode, golden};
use crate::model::content::Direction;
use crate::registry::Onnx;

/// Pictures in one call.
const AT_ONCE: usize = 4;

const FILE: &str = "preprocessor_config.json";

/// An image encoder.
pub struct Image {
    model: Model,
    /// What it calls what it takes.
    input: String,
    recipe: Recipe,
    digest: u64,
}

impl Image {
    /// Reads, checks and tries what lies in a folder.
    pub fn open(folder: &Path, onnx: &Onnx) -> Result<Self, String> {
        let said = match std::fs::read_to_string(folder.join(FILE)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            read => Some(read.map_err(|e| format!("{FILE} cannot be read: {e}"))?),
        };
        let recipe = Recipe::read(said.as_deref())?;
        let model = Model::open(folder, onnx)?;
        let input = takes(&model, recipe.crop)?;
        model.pooled("export a pooled output named image_embeds")?;
        let mut image = Self { model, input, recipe, digest: digest(folder)? };
        image.run(1, vec![0.0; 3 * image.recipe.crop.0 * image.recipe.crop.1])?;
        golden::check(folder, &mut image)?;
        Ok(image)
    }

    fn run(&mut self, rows: usize, numbers: Vec<f32>) -> Result<Vec<Option<Direction>>, String> {
        let (height, width) = self.recipe.crop;
        let tensor = Tensor::from_array(([rows, 3, height, width], numbers)).map_err(|e| e.to_string())?;
        let vectors = self.model.run(vec![(self.input.clone(), tensor.into())], &Batch { rows, mask: &[] })?;
        Ok(vectors.iter().map(|vector| Direction::of(vector)).collect())
    }
}

impl Encode for Image {
    fn digest(&self) -> u64 {
        self.digest
    }

    fn encode(&mut self, bodies: &[&[u8]]) -> Result<Vec<Option<Direction>>, String> {
        let mut directions = vec![None; bodies.len()];
        for (chunk, into) in bodies.chunks(AT_ONCE).zip(directions.chunks_mut(AT_ONCE)) {
            let read: Vec<(usize, Vec<f32>)> =
                chunk.iter().enumerate().filter_map(|(n, body)| Some((n, self.recipe.numbers(body)?))).collect();
            if !read.is_empty() {
                let made = self.run(read.len(), read.iter().flat_map(|(_, numbers)| numbers).copied().collect())?;
                read.iter().zip(made).for_each(|((n, _), direction)| into[*n] = direction);
            }
        }
        Ok(directions)
    }
}

/// The name of the one input, which takes pictures of this height and width.
fn takes(model: &Model, (height, width): (usize, usize)) -> Result<String, String> {
    let inputs = model.inputs(TensorElementType::Float32)?;
    let [(name, shape)] = &inputs[..] else {
        let names = inputs.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        return Err(format!("model.onnx takes {names}; it must take pictures alone: export the image side"));
    };
    let is = |place: usize, length: usize| [-1, length as i64].contains(&shape[place]);
    if shape.len() == 4 && is(1, 3) && is(2, height) && is(3, width) {
        return Ok(name.clone());
    }
    Err(format!(
        "model.onnx: its input `{name}` has the shape {shape:?}; with {FILE} it must be [images, 3, {height}, {width}]; change crop_size \
         there, or the model"
    ))
}
