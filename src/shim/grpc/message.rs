//! A message as gRPC puts it into a body: a byte that says whether it is compressed, its length in four bytes, itself. And a refusal as
//! gRPC tells it: a status, the message, and for programs `x-overdrive-code` and `retry-after`.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::{Buf, Bytes};
use http_body_util::{BodyExt, Full};
use prost::Message;
use std::convert::Infallible;
use std::time::Duration;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::shim::Refusal;
use crate::shim::guard::Counted;
use crate::shim::http::body;

/// Bytes before a message.
const PREFIX: usize = 5;
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The only message of a request with a body of `most` bytes.
pub async fn taken<M: Message + Default>(request: Request, most: usize) -> Result<M, Refusal> {
    let (parts, stream) = request.into_parts();
    if !is_grpc(&parts.headers) {
        let message = "content-type is not application/grpc; HTTP with JSON is answered on service.port";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    }
    read(body::whole(&parts.headers, stream, most).await?)
}

/// The only message of a body.
pub fn read<M: Message + Default>(mut body: Bytes) -> Result<M, Refusal> {
    let &[compressed, ref length @ ..] = body.first_chunk::<PREFIX>().ok_or_else(|| broken("it ends before its message"))?;
    if compressed != 0 {
        let message = "the message is compressed; send it as it is";
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "compressed", message));
    }
    if u32::from_be_bytes(*length) as usize != body.len() - PREFIX {
        return Err(broken("it is not one message of the length it says"));
    }
    body.advance(PREFIX);
    M::decode(body).map_err(|e| Refusal::bad("bad_message", format!("the message cannot be read by its schema: {e}")))
}

fn broken(what: &str) -> Refusal {
    Refusal::bad("bad_message", format!("the body cannot be read: {what}"))
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let rest = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()?.strip_prefix("application/grpc"));
    // Not what begins with it, such as grpc-web.
    rest.is_some_and(|rest| rest.is_empty() || rest == "+proto" || rest.starts_with(';'))
}

/// An answer, and that it is whole.
pub fn given(message: &impl Message) -> Response {
    let length = message.encoded_len();
    let mut framed = Vec::with_capacity(PREFIX + length);
    framed.push(0);
    framed.extend(u32::try_from(length).expect("an answer has less than 4 GiB").to_be_bytes());
    message.encode(&mut framed).expect("a vector grows");
    let done = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from(framed)).with_trailers(async { Some(Ok::<_, Infallible>(done)) });
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
    response
}

/// No answer, and why.
pub fn refuse(refusal: Refusal) -> Response {
    let mut status = Status::new(code(&refusal), refusal.message);
    status.metadata_mut().insert("x-overdrive-code", MetadataValue::from_static(refusal.code));
    if let Some(seconds) = refusal.retry_after {
        status.metadata_mut().insert("retry-after", MetadataValue::from(seconds));
    }
    let mut response = status.into_http();
    // Who does not speak gRPC would not see the status.
    if refusal.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        *response.status_mut() = refusal.status;
    }
    response.extensions_mut().insert(Counted(refusal.status));
    response
}

/// What a status of HTTP is called here.
fn code(refusal: &Refusal) -> Code {
    match refusal.status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::CONFLICT => Code::FailedPrecondition,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::INTERNAL_SERVER_ERROR => Code::Internal,
        StatusCode::NOT_IMPLEMENTED => Code::Unimplemented,
        StatusCode::SERVICE_UNAVAILABLE if refusal.code == "timeout" => Code::DeadlineExceeded,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        _ => Code::InvalidArgument,
    }
}

/// How long the client waits for an answer; what cannot be read says nothing.
pub fn patience(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_read_in_every_unit() {
        let of = |text: &str| {
            patience(&HeaderMap::from_iter([("grpc-timeout".parse().expect("a name"), text.parse().expect("text"))]))
        };
        let cases =
            [("2H", 7_200_000_000_000), ("3M", 180_000_000_000), ("5S", 5_000_000_000), ("100m", 100_000_000), ("7u", 7_000)];
        for (text, nanos) in cases {
            assert_eq!(of(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        assert_eq!(of("9n"), Some(Duration::from_nanos(9)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for text in ["", "5", "S", "5s", "-5S", "123456789S", "5\u{e9}"] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(patience(&HeaderMap::new()), None);
    }
}
