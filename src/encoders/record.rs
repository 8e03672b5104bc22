//! What encoders say, as records of the control input.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::model::content::{Encoded, Space};

/// From here on what is of this space is encoded by this encoder.
pub fn encoder(space: Space, encoder: u64) -> String {
    json!({"op": "encoder", "space": space.name(), "digest": format!("{encoder:016x}")}).to_string()
}

/// What it made of an item's content.
pub fn encoded(item: &str, of: &Encoded) -> String {
    let (content, digest) = (format!("{:016x}", of.content), format!("{:016x}", of.encoder));
    let mut record = json!({"op": "encoded", "item_id": item, "space": of.space.name(), "content": content, "digest": digest});
    if let Some(direction) = &of.direction {
        let bytes: Vec<u8> = direction.0.iter().map(|x| *x as u8).collect();
        record["direction"] = STANDARD.encode(bytes).into();
    }
    record.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Decoder, Limits};
    use crate::model::content::Direction;
    use crate::model::{Control, Input, ItemId, Role};
    use std::sync::Arc;

    #[test]
    fn c43_what_is_written_is_what_the_engine_reads() {
        let read = |record: String| {
            let decoder = Decoder::new(Arc::default(), Limits::PUBLISHED);
            decoder.decode(Role::Control, Some(b""), Some(record.as_bytes()), 0).expect("a record")
        };
        let named = Control::Encoder { space: Space::Text, encoder: 7 };
        assert_eq!(read(encoder(Space::Text, 7)), Input::Control(named));
        for direction in [None, Some(Arc::new(Direction([127, -127, 0, -1].into())))] {
            let of = Encoded { space: Space::Image, content: u64::MAX, encoder: 1, direction };
            assert_eq!(read(encoded("i \"1", &of)), Input::Control(Control::Encoded(ItemId::of("i \"1"), Arc::new(of))));
        }
    }
}
