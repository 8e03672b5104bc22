//! A client of gRPC that knows `schemas/*.proto` and nothing of the code: it says JSON by the schema, and can send what no proper
//! client would.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, SerializeOptions};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tonic::Code;

/// No test depends on its length.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection.
pub struct Stub {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
    pool: DescriptorPool,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// Of HTTP: 200 as long as gRPC is spoken.
    pub http: u16,
    pub code: Code,
    pub message: String,
    /// Of the answer, and what follows it.
    pub metadata: HeaderMap,
    pub answer: Option<DynamicMessage>,
}

impl Reply {
    /// The answer as JSON, without what has its default value.
    pub fn json(&self) -> Value {
        let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
        let answer = self.answer.as_ref().unwrap_or_else(|| panic!("no answer: {self:?}"));
        assert_eq!(self.code, Code::Ok, "{}", self.message);
        assert_eq!(answer.unknown_fields().count(), 0, "the schema knows all of it");
        answer.serialize_with_options(serde_json::value::Serializer, &options).expect("messages are JSON")
    }

    /// A value of the metadata.
    pub fn said(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(|value| value.to_str().expect("text"))
    }
}

/// `schemas/service.proto` as it is compiled anew.
pub fn schema() -> prost_reflect::prost_types::FileDescriptorSet {
    protox::Compiler::new(["schemas"])
        .and_then(|mut compiler| {
            compiler.include_source_info(false).include_imports(true);
            compiler.open_file("service.proto")?;
            Ok(compiler.file_descriptor_set())
        })
        .expect("the schema compiles")
}

impl Stub {
    /// Over a connection of its own.
    pub fn new(addr: SocketAddr) -> Self {
        let runtime = runtime();
        let stream = runtime.block_on(tokio::net::TcpStream::connect(addr)).expect("the shim listens");
        Self::over(runtime, stream).expect("HTTP/2 is spoken")
    }

    /// Over any stream, unless the server has closed it.
    pub fn over(runtime: Runtime, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Option<Self> {
        let (sender, connection) = runtime.block_on(handshake(TokioExecutor::new(), TokioIo::new(stream))).ok()?;
        runtime.spawn(connection);
        let mut pool = DescriptorPool::from_file_descriptor_set(schema()).expect("the schema is whole");
        for known in [tonic_health::pb::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET] {
            pool.decode_file_descriptor_set(known).expect("sound");
        }
        Some(Self { runtime, sender, pool })
    }

    /// Calls a method of our service.
    pub fn call(&self, method: &str, asked: Value) -> Reply {
        self.call_with(&format!("overdrive.v1.Recommender/{method}"), asked, &[])
    }

    /// Calls any method by its path, with metadata; of a stream of answers the first one.
    pub fn call_with(&self, path: &str, asked: Value, metadata: &[(&str, &str)]) -> Reply {
        let method = self.method(path);
        let asked = DynamicMessage::deserialize(method.input(), asked).expect("as the schema has it");
        self.send(path, frame(&asked.encode_to_vec()), metadata)
    }

    /// What comes of a call of a method of our service; `None` when the connection is gone.
    pub fn try_call(&self, method: &str, asked: Value) -> Option<Code> {
        let path = format!("overdrive.v1.Recommender/{method}");
        let asked = DynamicMessage::deserialize(self.method(&path).input(), asked).expect("as the schema has it");
        let response = self.try_begin(&path, frame(&asked.encode_to_vec()), &[])?;
        Some(self.whole(&path, response).code)
    }

    /// The method of this path.
    pub fn method(&self, path: &str) -> MethodDescriptor {
        let (service, method) = path.split_once('/').expect("service/method");
        let service = self.pool.get_service_by_name(service).expect("a known service");
        service.methods().find(|known| known.name() == method).unwrap_or_else(|| panic!("{path} is not in the schema"))
    }

    /// Sends a body as it is.
    pub fn send(&self, path: &str, body: Vec<u8>, metadata: &[(&str, &str)]) -> Reply {
        let response = self.begin(path, body, metadata);
        self.whole(path, response)
    }

    fn whole(&self, path: &str, response: Response<Incoming>) -> Reply {
        self.runtime.block_on(async {
            let (head, body) = response.into_parts();
            let body = tokio::time::timeout(PATIENCE, body.collect()).await.expect("an end").expect("whole");
            let mut metadata = head.headers;
            metadata.extend(body.trailers().cloned().unwrap_or_default());
            let code = metadata.get("grpc-status").map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()));
            let message = tonic::Status::from_header_map(&metadata).map_or(String::new(), |status| status.message().to_string());
            let bytes = body.to_bytes();
            let answer = (!bytes.is_empty()).then(|| self.read(path, &bytes));
            Reply { http: head.status.as_u16(), code, message, metadata, answer }
        })
    }

    /// The head of an answer, whose body is not read.
    pub fn begin(&self, path: &str, body: Vec<u8>, metadata: &[(&str, &str)]) -> Response<Incoming> {
        self.try_begin(path, body, metadata).expect("an answer")
    }

    fn try_begin(&self, path: &str, body: Vec<u8>, metadata: &[(&str, &str)]) -> Option<Response<Incoming>> {
        let mut request = Request::post(format!("http://shim.test/{path}"));
        let usual = [("content-type", "application/grpc"), ("te", "trailers")];
        for (name, value) in usual.iter().filter(|(name, _)| metadata.iter().all(|(given, _)| given != name)).chain(metadata) {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let answer = self.sender.clone().send_request(request);
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, answer).await.expect("an answer, or the end").ok() })
    }

    /// The first message of a body.
    pub fn read(&self, path: &str, body: &[u8]) -> DynamicMessage {
        let (prefix, message) = body.split_at(5);
        let length = u32::from_be_bytes(prefix[1..].try_into().expect("four bytes")) as usize;
        DynamicMessage::decode(self.method(path).output(), &message[..length]).expect("by the schema")
    }

    /// The next message of a stream of answers; `None` at its end.
    pub fn next(&self, path: &str, body: &mut Incoming) -> Option<DynamicMessage> {
        let frame = async { tokio::time::timeout(PATIENCE, body.frame()).await.expect("a message, or the end") };
        let frame = self.runtime.block_on(frame)?.expect("whole");
        frame.into_data().ok().map(|data| self.read(path, &data))
    }

    /// Returns when the server has closed the connection.
    pub fn closed(&mut self) {
        let sender = &mut self.sender;
        self.runtime.block_on(async {
            let closed = async {
                while sender.ready().await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(PATIENCE, closed).await.expect("the server closes")
        });
    }
}

/// A thread for connections.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a thread")
}

/// A message as it goes into a body.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a small message").to_be_bytes();
    [&[0], length.as_slice(), message].concat()
}
