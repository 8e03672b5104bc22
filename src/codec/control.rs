//! Orders: forget a user, revoke what users did in a span of time, rank by another model, train one; and what encoders say, which come
//! from beside the engine. An order that names nobody is refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::borrow::Cow;
use std::sync::Arc;

use super::Limits;
use super::item::MAX_DIMENSIONS;
use super::text::{Loose, Moment, Text, Unit, Words, millis, required, shown, word, words};
use crate::model::content::{Direction, Encoded, Space};
use crate::model::interaction::{Control, ModelOrder};
use crate::model::serving::{BLEND, Recipe, Version};
use crate::model::time::Millis;
use crate::model::{Input, Names, UserId};

/// An order as it was sent. `type` stands for a missing `op`, and `users` for `user_ids`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Raw<'a> {
    #[serde(borrow)]
    pub(super) op: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    pub(super) kind: Loose<'a>,
    #[serde(borrow)]
    pub(super) user_id: Option<Text<'a>>,
    #[serde(borrow, alias = "users")]
    pub(super) user_ids: Words<'a>,
    #[serde(borrow)]
    pub(super) from: Option<Moment<'a>>,
    #[serde(borrow)]
    pub(super) to: Option<Moment<'a>>,
    #[serde(borrow)]
    pub(super) version: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) digest: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) model: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) instead_of: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) item_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) space: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) content: Option<Text<'a>>,
    /// In base64.
    #[serde(borrow)]
    pub(super) direction: Option<Cow<'a, str>>,
    /// The same where bytes can be sent as they are.
    #[serde(skip)]
    pub(super) direction_bytes: &'a [u8],
}

/// The order a record gives.
pub(super) fn input(raw: Raw, names: &Names, limits: Limits) -> Result<Input, String> {
    match raw.op.as_ref().map(|op| &op.0).or(raw.kind.0.as_ref()).map(|op| op.to_ascii_lowercase()).as_deref() {
        Some("forget") => forget(&raw, names, limits),
        Some("revoke") => revoke(&raw, names, limits),
        Some("model") => model(&raw, limits).map(Control::Model),
        Some("rollback") => Ok(Control::Model(ModelOrder::Rollback)),
        Some("train") => train(&raw, limits).map(Control::Model),
        Some("encoder") => Ok(Control::Encoder { space: space(&raw, limits)?, encoder: digest("digest", &raw.digest, limits)? }),
        Some("encoded") => encoded(&raw, names, limits),
        Some(op) => Err(format!(
            "unknown op `{}`; known on the control topic: forget, revoke, model, rollback, train, encoder, encoded",
            shown(op)
        )),
        None => Err("`op` is missing; send forget, revoke, model, rollback, train, encoder or encoded".into()),
    }
    .map(Input::Control)
}

fn forget(raw: &Raw, names: &Names, limits: Limits) -> Result<Control, String> {
    let user = required("user_id", raw.user_id.as_ref(), limits)?;
    Ok(Control::Forget { user: intern(names, user)? })
}

/// A version, whatever ranks, or only instead of one.
fn model(raw: &Raw, limits: Limits) -> Result<ModelOrder, String> {
    let version = version(raw, limits)?;
    let instead_of = raw.instead_of.as_ref().map(|name| word("instead_of", name, limits)).transpose()?;
    Ok(match instead_of {
        Some(instead_of) => ModelOrder::Replace(version, instead_of.to_string()),
        None => ModelOrder::Promote(version),
    })
}

/// A version by its name and digest, or `blend`: no version.
fn version(raw: &Raw, limits: Limits) -> Result<Option<Version>, String> {
    let name = required("version", raw.version.as_ref(), limits)?;
    if name == BLEND {
        return Ok(None);
    }
    Ok(Some(Version { name: name.to_string(), digest: digest("digest", &raw.digest, limits)? }))
}

/// Sixteen hexadecimal digits.
fn digest(field: &str, said: &Option<Text>, limits: Limits) -> Result<u64, String> {
    let text = required(field, said.as_ref(), limits)?;
    let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let digest = u64::from_str_radix(text, 16).ok().filter(|_| digits);
    digest.ok_or_else(|| format!("`{field}` is `{}`; it must have 16 hexadecimal digits", shown(text)))
}

fn space(raw: &Raw, limits: Limits) -> Result<Space, String> {
    let name = required("space", raw.space.as_ref(), limits)?;
    Space::encoded(name).ok_or_else(|| format!("`space` is `{}`; encoders are of text or image", shown(name)))
}

/// What an encoder made of an item; without a direction it could make nothing of it.
fn encoded(raw: &Raw, names: &Names, limits: Limits) -> Result<Control, String> {
    let item = required("item_id", raw.item_id.as_ref(), limits)?;
    let (content, encoder) = (digest("content", &raw.content, limits)?, digest("digest", &raw.digest, limits)?);
    let direction = direction(raw)?.map(Arc::new);
    let encoded = Encoded { space: space(raw, limits)?, content, encoder, direction };
    Ok(Control::Encoded(names.item(item).map_err(|e| e.to_string())?, Arc::new(encoded)))
}

/// Signed bytes.
fn direction(raw: &Raw) -> Result<Option<Direction>, String> {
    let said = |e| format!("`direction` is not in base64: {e}; send signed bytes in standard base64");
    let bytes = match raw.direction.as_deref() {
        Some(text) => STANDARD.decode(text).map_err(said)?,
        None if raw.direction_bytes.is_empty() => return Ok(None),
        None => raw.direction_bytes.to_vec(),
    };
    let numbers: Box<[i8]> = bytes.into_iter().map(|byte| byte as i8).collect();
    match numbers.len() {
        1..=MAX_DIMENSIONS if numbers.iter().any(|x| *x != 0) => Ok(Some(Direction(numbers))),
        count => Err(format!("`direction` has {count} numbers; it must have 1 to {MAX_DIMENSIONS}, one of them not 0")),
    }
}

/// By the recipe of this name, or by that of the settings.
fn train(raw: &Raw, limits: Limits) -> Result<ModelOrder, String> {
    let Some(model) = &raw.model else { return Ok(ModelOrder::Train(None)) };
    let name = word("model", model, limits)?;
    let recipe = Recipe::find(name).ok_or_else(|| {
        let known = Recipe::ALL.map(Recipe::name).join(", ");
        format!("`model` is `{}`; what can be trained: {known}", shown(name))
    })?;
    Ok(ModelOrder::Train(Some(recipe)))
}

/// Without `from` since ever, without `to` until ever.
fn revoke(raw: &Raw, names: &Names, limits: Limits) -> Result<Control, String> {
    let bound = |field, at: &Option<Moment>, open: Millis| at.as_ref().map_or(Ok(open), |at| millis(field, at, Unit::Millis));
    let (from, to) = (bound("from", &raw.from, 0)?, bound("to", &raw.to, Millis::MAX)?);
    if from >= to {
        return Err(format!("`from` {from} is not before `to` {to}; the span is from <= ts < to"));
    }
    let mut users = words("user_ids", &raw.user_ids, limits)?;
    users.extend(raw.user_id.as_ref().map(|u| word("user_id", u, limits)).transpose()?);
    if users.is_empty() {
        return Err("`user_ids` is missing; send the ids of those whose interactions shall go".into());
    }
    let mut users = users.into_iter().map(|u| intern(names, u)).collect::<Result<Vec<_>, _>>()?;
    users.sort();
    users.dedup();
    Ok(Control::Revoke { users, from, to })
}

fn intern(names: &Names, user: &str) -> Result<UserId, String> {
    names.user(user).map_err(|e| e.to_string())
}
