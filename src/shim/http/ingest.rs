//! The way in over HTTP: a body of JSON taken apart into records.

use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use std::sync::Arc;

use super::body;
use super::params::User;
use super::views::Body;
use crate::model::Role;
use crate::shim::access::Who;
use crate::shim::guard::Caller;
use crate::shim::queries::ingest;
use crate::shim::{Refusal, State as Shim};

pub async fn events(
    State(shim): State<Arc<Shim>>,
    who: Who,
    headers: HeaderMap,
    body: Stream,
) -> Result<(StatusCode, Body), Refusal> {
    take(&shim, &who, Role::Events, &headers, body).await
}

pub async fn items(
    State(shim): State<Arc<Shim>>,
    who: Who,
    headers: HeaderMap,
    body: Stream,
) -> Result<(StatusCode, Body), Refusal> {
    take(&shim, &who, Role::Items, &headers, body).await
}

pub async fn users(
    State(shim): State<Arc<Shim>>,
    who: Who,
    headers: HeaderMap,
    body: Stream,
) -> Result<(StatusCode, Body), Refusal> {
    take(&shim, &who, Role::Users, &headers, body).await
}

pub async fn forget(State(shim): State<Arc<Shim>>, User(user): User, caller: Caller) -> Result<(StatusCode, Body), Refusal> {
    Ok((StatusCode::ACCEPTED, Body::of(&ingest::forget(&shim, &user, &caller).await?)))
}

async fn take(shim: &Shim, who: &Who, role: Role, headers: &HeaderMap, body: Stream) -> Result<(StatusCode, Body), Refusal> {
    let lines = body::is_lines(headers)?;
    let body = body::whole(headers, body, shim.params.body_limit).await?;
    let records = split(&body, lines)?.into_iter().map(|part| body.slice_ref(part)).collect();
    Ok((StatusCode::ACCEPTED, Body::of(&ingest::take(shim, who, role, records).await?)))
}

/// The records of a body: one object, an array, `{"events":[…]}` (or `items`, `users`), or a record a line.
fn split(body: &[u8], lines: bool) -> Result<Vec<&[u8]>, Refusal> {
    if lines || goes_on_after_a_line(body) {
        return Ok(body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()).collect());
    }
    let body = body.trim_ascii();
    body::text(body)?;
    let unreadable = |e: serde_json::Error| Refusal::bad("bad_json", format!("the body is not JSON: {e}"));
    match body.first() {
        Some(b'[') => serde_json::from_slice(body).map(raw).map_err(unreadable),
        _ => match serde_json::from_slice::<Wrapped>(body).map_err(unreadable)?.events {
            Some(records) => Ok(raw(records)),
            None => Ok(vec![body]),
        },
    }
}

/// Whether the first line is a value and something follows it: then every line is one.
fn goes_on_after_a_line(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    let Some(end) = body.iter().position(|byte| *byte == b'\n') else { return false };
    serde_json::from_slice::<IgnoredAny>(&body[..end]).is_ok()
}

fn raw(records: Vec<&RawValue>) -> Vec<&[u8]> {
    records.into_iter().map(|record| record.get().as_bytes()).collect()
}

/// An object that wraps records; without any, the object is itself the record.
#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow, alias = "items", alias = "users")]
    events: Option<Vec<&'a RawValue>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(body: &str, lines: bool) -> Result<Vec<String>, String> {
        let parts = split(body.as_bytes(), lines).map_err(|refusal| refusal.message)?;
        Ok(parts.into_iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect())
    }

    #[test]
    fn every_shape_of_a_body_is_split() {
        let two = Ok(vec![r#"{"a":1}"#.to_string(), r#"{"b":2}"#.to_string()]);
        assert_eq!(pieces(r#" [{"a":1}, {"b":2}] "#, false), two);
        assert_eq!(pieces(r#"{"events":[{"a":1},{"b":2}]}"#, false), two);
        assert_eq!(pieces(r#"{"users":[{"a":1},{"b":2}]}"#, false), two);
        assert_eq!(pieces("{\"a\":1}\n{\"b\":2}\n", false), two, "lines are known by the second");
        assert_eq!(pieces("{\"a\":1}\r\n\r\n{\"b\":2}", true), two);
        assert_eq!(pieces("{\n \"a\":1\n}", false), Ok(vec!["{\n \"a\":1\n}".to_string()]));
        assert_eq!(pieces("[\n{\"a\":1},\n{\"b\":2}\n]", false), two);
        assert_eq!(pieces("[]", false), Ok(vec![]));
    }

    #[test]
    fn what_is_not_json_is_refused_whole_unless_it_comes_in_lines() {
        for body in ["", "{", "[1,", "hello", "{\"a\":1} x", "{\"events\":3}"] {
            assert!(pieces(body, false).expect_err(body).contains("not JSON"), "{body}");
        }
        assert_eq!(pieces("{\"a\":1}\nrubbish", false), Ok(vec!["{\"a\":1}".to_string(), "rubbish".to_string()]));
    }
}
