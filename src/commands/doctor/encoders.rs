//! The encoders that the settings name: the engine starts without them, so nothing else says at once what they lack.

use std::path::Path;

use super::Finding;
use crate::config::Config;
use crate::encoders;
use crate::model::content::Space;
use crate::registry::Onnx;

/// Every encoder that is named, opened and tried; of a cluster only process 0 encodes.
pub fn findings(config: &Config) -> Vec<Finding> {
    let content = &config.recommend.content;
    if config.cluster.process > 0 {
        return Vec::new();
    }
    let named = Space::ENCODED.into_iter().filter_map(|space| Some((space, content.encoder(space)?)));
    named.map(|(space, folder)| encoder(space, folder, &config.onnx)).collect()
}

fn encoder(space: Space, folder: &str, onnx: &Onnx) -> Finding {
    let what = match space {
        Space::Image => "image encoder",
        Space::Text | Space::Embedding => "text encoder",
    };
    match encoders::caught(|| encoders::open(space, Path::new(folder), onnx)) {
        Ok(encoder) => Finding::good(what, format!("{folder}: {:016x}", encoder.digest())),
        Err(why) => Finding::bad(what, why, "until then items have no direction of this kind; slates go on without it"),
    }
}
