//! The body of a request: of a type that was said, whole, and no larger than is taken.

use axum::body::{Body as Stream, to_bytes};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::LengthLimitError;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use std::error::Error;

use crate::shim::Refusal;

/// One JSON value.
pub async fn json<T: DeserializeOwned>(headers: &HeaderMap, body: Stream, most: usize) -> Result<T, Refusal> {
    read(&bytes(headers, body, most).await?)
}

/// The bytes of one JSON value, which may be read in place.
pub async fn bytes(headers: &HeaderMap, body: Stream, most: usize) -> Result<Bytes, Refusal> {
    if is_lines(headers)? {
        return Err(unsupported("a record a line", "application/json"));
    }
    whole(headers, body, most).await
}

/// One JSON value out of its bytes.
pub fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refusal> {
    serde_json::from_str(text(body)?).map_err(unreadable)
}

/// How many, if that is said; to JSON 20 and 20.0 are one number.
pub fn count<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
    let whole = |number: f64| match number.fract() == 0.0 && number >= 0.0 {
        true => Ok(number as usize),
        false => Err(D::Error::custom(format!("{number} is not a whole number of things"))),
    };
    Option::<f64>::deserialize(from)?.map(whole).transpose()
}

/// A body as text.
pub fn text(body: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(body).map_err(|e| Refusal::bad("bad_utf8", format!("the body is not UTF-8: {e}")))
}

/// A body that is not the JSON that was asked for.
pub fn unreadable(error: serde_json::Error) -> Refusal {
    use serde_json::error::Category;
    let what = if error.classify() == Category::Data { "does not have the shape asked for" } else { "is not JSON" };
    Refusal::bad("bad_json", format!("the body {what}: {error}"))
}

/// Whether the body is said to be a record a line. A body without a type could come from any page a browser shows, so one is
/// asked for.
pub fn is_lines(headers: &HeaderMap) -> Result<bool, Refusal> {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = text.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => Ok(true),
        "application/json" => Ok(false),
        _ => Err(unsupported(&format!("`{essence}`"), "application/json or application/x-ndjson")),
    }
}

fn unsupported(given: &str, taken: &str) -> Refusal {
    let message = format!("content-type is {given}; send {taken}");
    Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
}

/// The body to its end, of `most` bytes.
pub async fn whole(headers: &HeaderMap, body: Stream, most: usize) -> Result<Bytes, Refusal> {
    let too_large = || {
        let message = format!("the body is larger than {most} bytes; send it in pieces");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    let told = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|length| length > most as u64) {
        return Err(too_large());
    }
    to_bytes(body, most).await.map_err(|error| match error.source().is_some_and(|cause| cause.is::<LengthLimitError>()) {
        true => too_large(),
        false => Refusal::bad("bad_body", format!("the body could not be read to its end: {error}")),
    })
}
