//! The way in: events, items and users, checked one by one, appended to the log as they were sent; and the order to forget a user.
//!
//! Each record is decoded here exactly as the engine will decode it, so what is accepted will not turn up among the dead
//! letters. The spellings met on the way are dropped with the request: they are the engine's business.

use axum::http::StatusCode;
use bytes::Bytes;
use serde::Serialize;
use std::sync::Arc;

use crate::codec::{Decoder, Limits};
use crate::model::{Input, Names, Role};
use crate::shim::access::Who;
use crate::shim::guard::Caller;
use crate::shim::{Refusal, State as Shim, now_ms};

/// What became of a batch.
#[derive(Serialize)]
pub struct Receipt {
    pub accepted: usize,
    pub rejected: Vec<Rejected>,
    /// Send it as `x-overdrive-token` with a read that must contain the batch. `null` when nothing was accepted.
    pub token: Option<String>,
}

/// A record that was not taken.
#[derive(Serialize)]
pub struct Rejected {
    /// Its place in the batch, from 0.
    pub index: usize,
    pub reason: String,
}

/// Forgets a user: an order on the control topic, ordered like everything else.
pub async fn forget(shim: &Shim, user: &str, caller: &Caller) -> Result<Receipt, Refusal> {
    caller.who.personal(user)?;
    let order = Bytes::from(serde_json::json!({"op": "forget", "user_id": user}).to_string());
    let known = decoder(shim, Arc::default()).decode(Role::Control, None, Some(&order), now_ms());
    if let Err(reason) = known {
        return Err(Refusal::bad("bad_id", reason));
    }
    shim.access.note(caller.deed("forget", user)).await?;
    let gone = || {
        shim.recent.forget(user);
        shim.last_good.forget(shim.rules.kept(), user);
    };
    gone(); // whoever asked may not wait for the end
    let receipt = self::order(shim, Bytes::copy_from_slice(user.as_bytes()), order).await;
    gone(); // what was read meanwhile
    receipt
}

/// Takes a batch of records of one role, each as it is to lie in the log.
pub async fn take(shim: &Shim, who: &Who, role: Role, records: Vec<Bytes>) -> Result<Receipt, Refusal> {
    if records.len() > shim.params.batch_limit {
        let (count, most) = (records.len(), shim.params.batch_limit);
        let message = format!("the batch has {count} records, at most {most} are taken at once; send it in pieces");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "batch_too_large", message));
    }
    let (accepted, rejected) = check(shim, role, records);
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

/// Puts an order on the control topic, once it is known to be one.
pub async fn order(shim: &Shim, key: Bytes, order: Bytes) -> Result<Receipt, Refusal> {
    append(shim, Role::Control, vec![(key, Some(order))], Vec::new()).await
}

type Records = Vec<(Bytes, Option<Bytes>)>;

async fn append(shim: &Shim, role: Role, records: Records, rejected: Vec<Rejected>) -> Result<Receipt, Refusal> {
    let accepted = records.len();
    let token = if records.is_empty() {
        None
    } else {
        let unsure = |why| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "log_unavailable", why);
        Some(shim.append(role, records).await.map_err(unsure)?.text())
    };
    Ok(Receipt { accepted, rejected, token })
}

/// Sorts the records into those the engine will take, each under its key, and the others.
fn check(shim: &Shim, role: Role, sent: Vec<Bytes>) -> (Records, Vec<Rejected>) {
    let names = Arc::new(Names::default());
    let limits = Limits { dimensions: shim.rules.dimensions, ..limits(shim) };
    let (decoder, now) = (Decoder::new(names.clone(), limits), now_ms());
    let (mut records, mut rejected) = (Vec::with_capacity(sent.len()), Vec::new());
    for (index, record) in sent.into_iter().enumerate() {
        match decoder.decode(role, None, Some(&record), now).and_then(|input| key(&input, &names)) {
            Ok(key) => records.push((Bytes::copy_from_slice(key.as_bytes()), Some(record))),
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

/// Reads records as the engine will, into these names; but embeddings, which nobody looks at here, may have any width.
pub fn decoder(shim: &Shim, names: Arc<Names>) -> Decoder {
    Decoder::new(names, limits(shim))
}

fn limits(shim: &Shim) -> Limits {
    Limits { id_bytes: shim.params.max_id_bytes, payload_bytes: shim.params.body_limit, dimensions: 0 }
}
