//! Pieces and the vectors an encoder must make of them, shipped beside it as `golden.json`: `{"texts": [...], "vectors": [[...]]}`, or
//! `images` in base64 in place of texts. An encoder without the file is taken at its word.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::path::Path;

use super::Encode;
use crate::model::content::Direction;

/// The file in a folder.
pub const FILE: &str = "golden.json";
/// The least cosine between what is made and what must be.
const LEAST: f64 = 0.999;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    #[serde(default)]
    texts: Vec<String>,
    #[serde(default)]
    images: Vec<String>,
    vectors: Vec<Vec<f32>>,
}

/// Holds an encoder against the golden pieces in its folder, if there are any.
pub fn check(folder: &Path, encoder: &mut dyn Encode) -> Result<(), String> {
    let text = match std::fs::read_to_string(folder.join(FILE)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(|e| format!("{FILE} cannot be read: {e}"))?,
    };
    let golden: Golden = serde_json::from_str(&text).map_err(|e| format!("{FILE} is not what it must be: {e}"))?;
    let image = |image: &String| STANDARD.decode(image).map_err(|e| format!("{FILE}: an image is not in base64: {e}"));
    let images = golden.images.iter().map(image).collect::<Result<Vec<_>, _>>()?;
    let bodies: Vec<&[u8]> = golden.texts.iter().map(String::as_bytes).chain(images.iter().map(Vec::as_slice)).collect();
    if bodies.len() != golden.vectors.len() {
        return Err(format!("{FILE} has {} pieces and {} vectors; it must have as many", bodies.len(), golden.vectors.len()));
    }
    let made = encoder.encode(&bodies)?;
    for (n, (made, vector)) in made.iter().zip(&golden.vectors).enumerate() {
        let cosine = made.as_ref().zip(Direction::of(vector)).map_or(0.0, |(made, wanted)| cosine(made, &wanted));
        if cosine < LEAST {
            return Err(format!(
                "golden piece {n}: what it makes has the cosine {cosine:.4} with what it was shipped with, less than {LEAST}; ship the \
                 model and {FILE} of one export"
            ));
        }
    }
    Ok(())
}

/// How alike two directions are; 0 where they have not as many numbers.
pub fn cosine(one: &Direction, other: &Direction) -> f64 {
    if one.0.len() != other.0.len() {
        return 0.0;
    }
    let product: i64 = one.0.iter().zip(&other.0).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
    product as f64 / (f64::from(one.square()) * f64::from(other.square())).sqrt()
}
