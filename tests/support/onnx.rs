//! Models for tests, written as ONNX by hand: the messages of `onnx.proto` that a ranker needs, and a few graphs.

use prost::Message;
use std::path::{Path, PathBuf};

#[derive(Clone, PartialEq, Message)]
pub struct Model {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OpSet>,
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<Said>,
}

#[derive(Clone, PartialEq, Message)]
pub struct OpSet {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Said {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "4")]
    pub op_type: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Value {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Type {
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorType {
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dim>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Dim {
    #[prost(oneof = "Length", tags = "1, 2")]
    pub length: Option<Length>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Length {
    #[prost(int64, tag = "1")]
    Fixed(i64),
    #[prost(string, tag = "2")]
    Named(String),
}

/// Types of elements.
pub const F32: i32 = 1;
pub const I64: i32 = 7;

/// A tensor of any number of rows, with these further lengths.
pub fn rows_of(name: &str, elem_type: i32, lengths: &[i64]) -> Value {
    let first = Dim { length: Some(Length::Named("rows".into())) };
    let others = lengths.iter().map(|length| Dim { length: Some(Length::Fixed(*length)) });
    let shape = Some(Shape { dim: std::iter::once(first).chain(others).collect() });
    Value { name: name.into(), r#type: Some(Type { tensor_type: Some(TensorType { elem_type, shape }) }) }
}

pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> Tensor {
    let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { dims: dims.into(), data_type: F32, name: name.into(), raw_data }
}

pub fn longs(name: &str, values: &[i64]) -> Tensor {
    let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { dims: vec![values.len() as i64], data_type: I64, name: name.into(), raw_data }
}

pub fn node(op: &str, input: &[&str], output: &str) -> Node {
    Node { input: input.iter().map(|name| name.to_string()).collect(), output: vec![output.into()], op_type: op.into() }
}

/// A weighted sum of columns.
pub fn linear(columns: &[&str], weights: &[f32]) -> Model {
    let width = columns.len() as i64;
    let graph = Graph {
        node: vec![node("MatMul", &["features", "w"], "score")],
        name: "linear".into(),
        initializer: vec![floats("w", &[width, 1], weights)],
        input: vec![rows_of("features", F32, &[width])],
        output: vec![rows_of("score", F32, &[1])],
    };
    model(graph, columns, "margin")
}

/// A graph with what it has to say of itself.
pub fn model(graph: Graph, columns: &[&str], score: &str) -> Model {
    let said = [("overdrive.schema", "1"), ("overdrive.score", score), ("overdrive.features", &columns.join(","))];
    let said = said.map(|(key, value)| Said { key: key.into(), value: value.into() });
    let opset_import = vec![OpSet { domain: String::new(), version: 17 }];
    Model { ir_version: 8, graph: Some(graph), opset_import, metadata_props: said.into() }
}

/// Writes a model and its golden rows; yields its path.
pub fn write(dir: &Path, name: &str, model: &Model, rows: &[Vec<f32>], scores: &[f32]) -> PathBuf {
    let path = dir.join(format!("{name}.onnx"));
    std::fs::write(&path, model.encode_to_vec()).expect("there is room");
    let golden = serde_json::json!({ "rows": rows, "scores": scores });
    std::fs::write(path.with_extension("golden.json"), golden.to_string()).expect("there is room");
    path
}
