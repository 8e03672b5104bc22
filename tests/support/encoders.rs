//! Encoders for tests, in the shape of those that people bring: a text model over tokens of 384 numbers with its tokenizer, and an image
//! model of the image side of CLIP, 224 by 224 pixels to 512 numbers. What they make is simple enough to be known beforehand.

use super::onnx::{Dim, F32, Graph, I64, Length, Model, Node, OpSet, Shape, TensorType, Type, Value, floats, longs, node};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::json;
use std::path::Path;

/// Words the tokenizer knows, after its five tokens of its own.
pub const WORDS: [&str; 8] = ["red", "apple", "pie", "tart", "fast", "car", "new", "old"];
pub const TEXT_WIDTH: usize = 384;
pub const IMAGE_WIDTH: usize = 512;

/// Numbers that follow from a seed, around 0.
fn drawn(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

/// A tensor whose first lengths are open.
fn open(name: &str, elem_type: i32, open: usize, fixed: &[i64]) -> Value {
    let dims = (0..open).map(|n| Length::Named(format!("n{n}"))).chain(fixed.iter().map(|length| Length::Fixed(*length)));
    let shape = Some(Shape { dim: dims.map(|length| Dim { length: Some(length) }).collect() });
    Value { name: name.into(), r#type: Some(Type { tensor_type: Some(TensorType { elem_type, shape }) }) }
}

fn save(folder: &Path, node: Vec<Node>, initializer: Vec<super::onnx::Tensor>, input: Vec<Value>, output: Value) {
    let graph = Graph { node, name: "encoder".into(), initializer, input, output: vec![output] };
    let opset_import = vec![OpSet { domain: String::new(), version: 17 }];
    let model = Model { ir_version: 8, graph: Some(graph), opset_import, metadata_props: Vec::new() };
    std::fs::create_dir_all(folder).expect("there is room");
    std::fs::write(folder.join("model.onnx"), model.encode_to_vec()).expect("there is room");
}

/// How a text encoder is unlike the plain one.
#[derive(Default)]
pub struct Unlike {
    /// It takes its time.
    pub rounds: usize,
    /// It takes no mask, and mixes all tokens into each.
    pub maskless: bool,
    /// It knows so many positions and fails where there are more, and its tokenizer does not say so.
    pub positions: usize,
}

/// A text encoder. Each word has a vector; padding has one too, so who counts it in is found out. With `rounds` it takes its time.
pub fn text(folder: &Path, rounds: usize) {
    text_unlike(folder, Unlike { rounds, ..Unlike::default() });
}

pub fn text_unlike(folder: &Path, Unlike { rounds, maskless, positions }: Unlike) {
    let mut vectors = drawn(7, (WORDS.len() + 5) * TEXT_WIDTH);
    vectors[..TEXT_WIDTH].iter_mut().for_each(|x| *x = 9.0);
    let (count, width, wide) = (WORDS.len() as i64 + 5, TEXT_WIDTH as i64, 4096);
    let mut nodes = vec![
        node("Gather", &["words", "input_ids"], "of_words"),
        node("Gather", &["kinds", "token_type_ids"], "of_kinds"),
        node("Add", &["of_words", "of_kinds"], "sum"),
    ];
    let mut initializer = vec![
        floats("words", &[count, width], &vectors),
        floats("kinds", &[2, width], &vec![0.0; 2 * TEXT_WIDTH]),
        floats("nothing", &[1], &[0.0]),
    ];
    let mut sum = "sum";
    if maskless || positions > 0 {
        initializer.push(longs("axis", &[1]));
    }
    if maskless {
        nodes.extend([node("ReduceSum", &[sum, "axis"], "all"), node("Add", &[sum, "all"], "mixed")]);
        sum = "mixed";
    }
    if positions > 0 {
        initializer.push(floats("positions", &[positions as i64 + 1, width], &vec![0.0; (positions + 1) * TEXT_WIDTH]));
        nodes.extend([
            node("CumSum", &["attention_mask", "axis"], "places"),
            node("Gather", &["positions", "places"], "of_places"),
            node("Add", &[sum, "of_places"], "placed"),
        ]);
        sum = "placed";
    }
    let mut last = sum.to_string();
    if rounds > 0 {
        initializer.push(floats("up", &[width, wide], &vec![0.001; TEXT_WIDTH * wide as usize]));
        initializer.push(floats("down", &[wide, width], &vec![0.001; TEXT_WIDTH * wide as usize]));
        for n in 0..rounds {
            nodes.push(node("MatMul", &[&last, "up"], &format!("up{n}")));
            nodes.push(node("MatMul", &[&format!("up{n}"), "down"], &format!("down{n}")));
            last = format!("down{n}");
        }
        nodes.push(node("Mul", &[&last, "nothing"], "heat"));
        last = "heat".to_string();
    }
    let (op, input) = if rounds > 0 { ("Add", &[sum, last.as_str()][..]) } else { ("Identity", &[sum][..]) };
    nodes.push(node(op, input, "last_hidden_state"));
    let takes =
        ["input_ids", "attention_mask", "token_type_ids"].into_iter().filter(|name| !maskless || *name != "attention_mask");
    let input = takes.map(|name| open(name, I64, 2, &[])).collect();
    save(folder, nodes, initializer, input, open("last_hidden_state", F32, 2, &[width]));
    std::fs::write(folder.join("tokenizer.json"), tokenizer((positions == 0).then_some(16))).expect("there is room");
}

/// As BERT's is written, with few words; cut at so many tokens, if that is said. Nobody here wants a stride.
fn tokenizer(most: Option<usize>) -> String {
    let truncation = most.map(|most| json!({"direction": "Right", "max_length": most, "strategy": "OnlyFirst", "stride": 14}));
    let own = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let vocab: serde_json::Map<_, _> =
        own.iter().chain(&WORDS).enumerate().map(|(n, word)| (word.to_string(), json!(n))).collect();
    let special = |n: usize| json!({"id": own[n], "ids": [n], "tokens": [own[n]]});
    let added = own.iter().enumerate().map(|(id, content)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
    });
    let part = |kind: &str, id: &str| json!({kind: {"id": id, "type_id": 0}});
    json!({
        "version": "1.0",
        "truncation": truncation,
        "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [part("SpecialToken", "[CLS]"), part("Sequence", "A"), part("SpecialToken", "[SEP]")],
            "pair": [part("SpecialToken", "[CLS]"), part("Sequence", "A"), part("SpecialToken", "[SEP]"), part("Sequence", "B"), part("SpecialToken", "[SEP]")],
            "special_tokens": {"[CLS]": special(2), "[SEP]": special(3)}
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab}
    })
    .to_string()
}

/// An image encoder: of the mean colour of a picture.
pub fn image(folder: &Path) {
    let nodes = vec![
        node("GlobalAveragePool", &["pixel_values"], "means"),
        node("Reshape", &["means", "rows"], "colours"),
        node("MatMul", &["colours", "mix"], "image_embeds"),
    ];
    let initializer = vec![longs("rows", &[0, 3]), floats("mix", &[3, IMAGE_WIDTH as i64], &drawn(11, 3 * IMAGE_WIDTH))];
    let input = vec![open("pixel_values", F32, 1, &[3, 224, 224])];
    save(folder, nodes, initializer, input, open("image_embeds", F32, 1, &[IMAGE_WIDTH as i64]));
}

/// One that gives a vector for each patch of a picture, and none for the picture.
pub fn patches(folder: &Path) {
    let nodes = vec![node("Reshape", &["pixel_values", "rows"], "last_hidden_state")];
    let input = vec![open("pixel_values", F32, 1, &[3, 224, 224])];
    save(folder, nodes, vec![longs("rows", &[0, 196, 768])], input, open("last_hidden_state", F32, 1, &[196, 768]));
}

/// A PNG of one colour.
pub fn picture(width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("a header");
    writer.write_image_data(&colour.repeat((width * height) as usize)).expect("pixels");
    writer.finish().expect("an end");
    bytes
}

/// As it is sent in JSON.
pub fn in_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
