//! Encoders that users bring: what makes directions of the text and the images of items, on a thread beside the engine.
//!
//! ```text
//! pieces that wait (engine) → inbox → cache, or ONNX Runtime → a record in the control input → engine
//! ```
//! The facts that must stay true: nothing in the engine waits for this room, whatever is missing, slow or broken here; what it makes
//! reaches slates as a record of the input and in no other way; and what finds no room, or fails, is asked for again by the engine.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::model::content::{Direction, Space};
use crate::registry::Onnx;

#[cfg(feature = "onnx")]
mod golden;
#[cfg(feature = "onnx")]
mod image;
mod inbox;
#[cfg(feature = "onnx")]
mod model;
#[cfg(feature = "onnx")]
mod picture;
mod record;
#[cfg(feature = "onnx")]
mod text;
mod thread;

#[cfg(feature = "onnx")]
pub use golden::cosine;
pub use inbox::Inbox;
pub use thread::{Encoders, Place, one_is_left};

/// What makes directions of pieces of one space.
pub trait Encode {
    /// Of its files, by which the engine knows it.
    fn digest(&self) -> u64;

    /// A direction for each body, in their order; `None` where it can make nothing of one. An error is of all of them.
    fn encode(&mut self, bodies: &[&[u8]]) -> Result<Vec<Option<Direction>>, String>;
}

/// Opens what encodes a space, from a folder, with the library of ONNX Runtime at this path (else the one `ORT_DYLIB_PATH` names). What is
/// wrong with it is said with the file and what to do.
#[cfg(feature = "onnx")]
pub fn open(space: Space, folder: &Path, onnx: &Onnx) -> Result<Box<dyn Encode>, String> {
    let said = |why| format!("the {} encoder in {} cannot be used: {why}", space.name(), folder.display());
    match space {
        Space::Text => text::Text::open(folder, onnx).map(|encoder| Box::new(encoder) as Box<dyn Encode>),
        Space::Image => image::Image::open(folder, onnx).map(|encoder| Box::new(encoder) as Box<dyn Encode>),
        Space::Embedding => Err("embeddings come with their items; there is nothing to encode".to_string()),
    }
    .map_err(said)
}

/// What code of others yields; that it panics is an error like any other. It keeps nothing between two calls that a panic could leave half done.
pub fn caught<T>(call: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(format!("it panics: {}", said.unwrap_or("it does not say why")))
    })
}

/// This build runs no models.
#[cfg(not(feature = "onnx"))]
pub fn open(space: Space, _: &Path, _: &Onnx) -> Result<Box<dyn Encode>, String> {
    Err(format!("this build encodes no {}; build with the feature `onnx`", space.name()))
}
