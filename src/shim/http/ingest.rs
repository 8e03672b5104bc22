//! The way in: events, items and users as JSON, checked one by one, appended to the log as they were sent.
//!
//! Each record is decoded here exactly as the engine will decode it, so what is accepted will not turn up among the dead
//! letters. The spellings met on the way are dropped with the request: they are the engine's business.

use axum::body::Body as Stream;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::sync::Arc;

use super::body;
use super::params::{Caller, User};
use super::views::Body;
use crate::codec::{Decoder, Limits};
use crate::model::{Input, Names, Role};
use crate::shim::access::Who;
use crate::shim::{Refusal, State as Shim, now_ms};

/// What became of a batch.
#[derive(Serialize)]
struct Receipt {
    accepted: usize,
    rejected: Vec<Rejected>,
    /// Send it as `x-overdrive-token` with a read that must contain the batch. `null` when nothing was accepted.
    token: Option<String>,
}

/// A record that was not taken.
#[derive(Serialize)]
struct Rejected {
    /// Its place in the batch, from 0.
    index: usize,
    reason: String,
}

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

/// Forgets a user: an order on the control topic, ordered like everything else.
pub async fn forget(State(shim): State<Arc<Shim>>, User(user): User, caller: Caller) -> Result<(StatusCode, Body), Refusal> {
    caller.who.personal(&user)?;
    let order = Bytes::from(serde_json::json!({"op": "forget", "user_id": user}).to_string());
    let known = decoder(&shim, Arc::default()).decode(Role::Control, None, Some(&order), now_ms());
    if let Err(reason) = known {
        return Err(Refusal::bad("bad_id", reason));
    }
    shim.access.note(caller.deed("forget", &user)).await?;
    let receipt = append(&shim, Role::Control, vec![(Bytes::from(user.clone()), Some(order))], Vec::new()).await?;
    shim.recent.forget(&user);
    shim.last_good.forget(&user);
    Ok(receipt)
}

async fn take(shim: &Shim, who: &Who, role: Role, headers: &HeaderMap, body: Stream) -> Result<(StatusCode, Body), Refusal> {
    let lines = body::is_lines(headers)?;
    let body = body::whole(headers, body, shim.params.body_limit).await?;
    let parts = split(&body, lines)?;
    if parts.len() > shim.params.batch_limit {
        let (count, most) = (parts.len(), shim.params.batch_limit);
        let message = format!("the batch has {count} records, at most {most} are taken at once; send it in pieces");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "batch_too_large", message));
    }
    let (accepted, rejected) = check(shim, role, &body, &parts);
    whose(who, role, &accepted)?;
    if role == Role::Events {
        accepted.iter().for_each(|(user, _)| shim.recent.note(&String::from_utf8_lossy(user)));
    }
    append(shim, role, accepted, rejected).await
}

/// Refuses a batch with a record that is not the caller's to write.
fn whose(who: &Who, role: Role, records: &Records) -> Result<(), Refusal> {
    match role {
        Role::Items => who.about_all(),
        _ => records.iter().try_for_each(|(user, _)| who.about(&String::from_utf8_lossy(user))),
    }
}

type Records = Vec<(Bytes, Option<Bytes>)>;

async fn append(shim: &Shim, role: Role, records: Records, rejected: Vec<Rejected>) -> Result<(StatusCode, Body), Refusal> {
    let accepted = records.len();
    let token = if records.is_empty() {
        None
    } else {
        let unsure = |why| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "log_unavailable", why);
        Some(shim.append(role, records).await.map_err(unsure)?.text())
    };
    Ok((StatusCode::ACCEPTED, Body::of(&Receipt { accepted, rejected, token })))
}

/// Sorts the records into those the engine will take, each under its key, and the others.
fn check(shim: &Shim, role: Role, body: &Bytes, parts: &[&[u8]]) -> (Records, Vec<Rejected>) {
    let names = Arc::new(Names::default());
    let (decoder, now) = (decoder(shim, names.clone()), now_ms());
    let (mut records, mut rejected) = (Vec::with_capacity(parts.len()), Vec::new());
    for (index, part) in parts.iter().enumerate() {
        match decoder.decode(role, None, Some(part), now).and_then(|input| key(&input, &names)) {
            Ok(key) => {
                records.push((Bytes::copy_from_slice(key.as_bytes()), Some(body.slice_ref(part))));
            }
            Err(reason) => rejected.push(Rejected { index, reason }),
        }
    }
    (records, rejected)
}

/// The name of what a record is about: all of one user's events lie in one partition.
fn key(input: &Input, names: &Names) -> Result<Arc<str>, String> {
    let key = match input {
        Input::Event(event) => names.users.get(event.user.0),
        Input::User(user, _) => names.users.get(user.0),
        Input::Item(item, _) => names.items.get(item.0),
        Input::Control(_) => {
            return Err("orders are not taken here; forget a user with DELETE /v1/users/{user}".to_string());
        }
    };
    Ok(key.expect("the decoder has just interned it"))
}

fn decoder(shim: &Shim, names: Arc<Names>) -> Decoder {
    Decoder::new(names, Limits { id_bytes: shim.params.max_id_bytes, payload_bytes: shim.params.body_limit })
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
