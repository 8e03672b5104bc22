//! The messages of `schemas/events.proto`, written by hand so that building needs no `protoc`; a test compiles the schema and
//! compares. Which message a payload is, its topic says.

use std::borrow::Cow;

use super::text::{Moment, Text};
use super::{control, event, item, user};

/// `overdrive.v1.Event`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    #[prost(string, tag = "2")]
    pub event_id: String,
    #[prost(string, tag = "3")]
    pub r#type: String,
    #[prost(string, tag = "5")]
    pub user_id: String,
    #[prost(string, tag = "6")]
    pub item_id: String,
    #[prost(int64, optional, tag = "7")]
    pub ts: Option<i64>,
    #[prost(double, optional, tag = "8")]
    pub value: Option<f64>,
    #[prost(enumeration = "Op", tag = "9")]
    pub op: i32,
    #[prost(string, tag = "10")]
    pub session_id: String,
    #[prost(string, tag = "11")]
    pub request_id: String,
    #[prost(uint32, optional, tag = "12")]
    pub position: Option<u32>,
    #[prost(string, tag = "13")]
    pub surface: String,
    #[prost(message, optional, tag = "14")]
    pub ctx: Option<Context>,
}

/// `overdrive.v1.Op`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Op {
    Add = 0,
    Undo = 1,
}

/// `overdrive.v1.Context`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Context {
    #[prost(string, tag = "2")]
    pub device: String,
    #[prost(string, tag = "3")]
    pub locale: String,
    #[prost(double, optional, tag = "5")]
    pub lat: Option<f64>,
    #[prost(double, optional, tag = "6")]
    pub lon: Option<f64>,
}

/// `overdrive.v1.Item`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Item {
    #[prost(string, tag = "2")]
    pub item_id: String,
    #[prost(string, tag = "3")]
    pub author_id: String,
    #[prost(string, repeated, tag = "5")]
    pub categories: Vec<String>,
    #[prost(string, repeated, tag = "6")]
    pub tags: Vec<String>,
    #[prost(string, tag = "7")]
    pub language: String,
    #[prost(int64, optional, tag = "8")]
    pub created_at: Option<i64>,
    #[prost(double, optional, tag = "9")]
    pub lat: Option<f64>,
    #[prost(double, optional, tag = "10")]
    pub lon: Option<f64>,
    #[prost(string, tag = "11")]
    pub city: String,
    #[prost(double, optional, tag = "12")]
    pub quality: Option<f64>,
    #[prost(bool, tag = "13")]
    pub mature: bool,
    #[prost(bool, optional, tag = "14")]
    pub available: Option<bool>,
    #[prost(bool, tag = "16")]
    pub partnered: bool,
    #[prost(uint64, optional, tag = "17")]
    pub followers: Option<u64>,
    #[prost(double, optional, tag = "18")]
    pub avg_viewers: Option<f64>,
    #[prost(string, tag = "19")]
    pub title: String,
    #[prost(string, tag = "20")]
    pub text: String,
    #[prost(string, repeated, tag = "21")]
    pub media_types: Vec<String>,
    #[prost(float, repeated, tag = "22")]
    pub embedding: Vec<f32>,
    #[prost(bytes = "bytes", tag = "23")]
    pub image: bytes::Bytes,
}

/// `overdrive.v1.User`
#[derive(Clone, PartialEq, prost::Message)]
pub struct User {
    #[prost(string, tag = "2")]
    pub user_id: String,
    #[prost(string, repeated, tag = "3")]
    pub interests: Vec<String>,
    #[prost(string, tag = "5")]
    pub language: String,
    #[prost(double, optional, tag = "6")]
    pub lat: Option<f64>,
    #[prost(double, optional, tag = "7")]
    pub lon: Option<f64>,
    #[prost(string, tag = "8")]
    pub city: String,
    #[prost(string, repeated, tag = "9")]
    pub categories: Vec<String>,
    #[prost(double, optional, tag = "10")]
    pub local_preference: Option<f64>,
    #[prost(string, repeated, tag = "11")]
    pub blocked_authors: Vec<String>,
    #[prost(string, repeated, tag = "12")]
    pub blocked_items: Vec<String>,
    #[prost(bool, tag = "13")]
    pub allow_mature: bool,
    #[prost(string, tag = "14")]
    pub bio: String,
    #[prost(double, optional, tag = "15")]
    pub total_watch_hours: Option<f64>,
}

/// `overdrive.v1.Control`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Control {
    #[prost(enumeration = "Order", tag = "2")]
    pub op: i32,
    #[prost(string, tag = "3")]
    pub user_id: String,
    #[prost(string, repeated, tag = "5")]
    pub user_ids: Vec<String>,
    #[prost(int64, optional, tag = "6")]
    pub from: Option<i64>,
    #[prost(int64, optional, tag = "7")]
    pub to: Option<i64>,
    #[prost(string, tag = "8")]
    pub version: String,
    #[prost(string, tag = "9")]
    pub digest: String,
    #[prost(string, tag = "10")]
    pub model: String,
    #[prost(string, tag = "11")]
    pub instead_of: String,
    #[prost(string, tag = "12")]
    pub item_id: String,
    #[prost(string, tag = "13")]
    pub space: String,
    #[prost(string, tag = "14")]
    pub content: String,
    #[prost(bytes = "bytes", tag = "15")]
    pub direction: bytes::Bytes,
}

/// `overdrive.v1.Order`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Order {
    Unspecified = 0,
    Forget = 1,
    Revoke = 2,
    Model = 3,
    Rollback = 4,
    Train = 5,
    Encoder = 6,
    Encoded = 7,
}

/// Reads one message.
pub(super) fn read<M: prost::Message + Default + prost::Name>(bytes: &[u8]) -> Result<M, String> {
    M::decode(bytes).map_err(|e| format!("neither JSON (no `{{` first) nor a protobuf {}: {e}", M::full_name()))
}

macro_rules! named {
    ($($message:ident),*) => {$(
        impl prost::Name for $message {
            const NAME: &'static str = stringify!($message);
            const PACKAGE: &'static str = "overdrive.v1";
        }
    )*};
}
named!(Event, Item, User, Control);

/// In proto3 an empty string is an absent one.
fn text(field: &str) -> Option<Text<'_>> {
    (!field.is_empty()).then(|| field.into())
}

fn cow(field: &str) -> Option<Cow<'_, str>> {
    (!field.is_empty()).then_some(Cow::Borrowed(field))
}

impl<'a> From<&'a Event> for event::Raw<'a> {
    fn from(sent: &'a Event) -> Self {
        let op = match Op::try_from(sent.op) {
            Ok(Op::Add) => None,
            Ok(Op::Undo) => Some("undo".into()),
            Err(_) => Some(Text(Cow::Owned(sent.op.to_string()))),
        };
        Self {
            event_id: text(&sent.event_id),
            kind: text(&sent.r#type),
            user_id: text(&sent.user_id),
            item_id: text(&sent.item_id),
            ts: sent.ts.map(Moment::Number),
            value: sent.value,
            op,
            ..Default::default()
        }
    }
}

impl<'a> From<&'a Item> for item::Raw<'a> {
    fn from(sent: &'a Item) -> Self {
        Self {
            item_id: text(&sent.item_id),
            author_id: text(&sent.author_id),
            categories: (&sent.categories).into(),
            tags: (&sent.tags).into(),
            language: text(&sent.language),
            created_at: sent.created_at.map(Moment::Number),
            lat: sent.lat,
            lon: sent.lon,
            city: cow(&sent.city),
            quality: sent.quality,
            mature: Some(sent.mature),
            available: sent.available,
            partnered: Some(sent.partnered),
            followers: sent.followers,
            avg_viewers: sent.avg_viewers,
            title: cow(&sent.title),
            text: cow(&sent.text),
            media_types: (&sent.media_types).into(),
            embedding: Some(sent.embedding.clone()),
            image_bytes: &sent.image,
            ..Default::default()
        }
    }
}

impl<'a> From<&'a User> for user::Raw<'a> {
    fn from(sent: &'a User) -> Self {
        Self {
            user_id: text(&sent.user_id),
            interests: (&sent.interests).into(),
            language: text(&sent.language),
            lat: sent.lat,
            lon: sent.lon,
            city: cow(&sent.city),
            categories: (&sent.categories).into(),
            local_preference: sent.local_preference,
            total_watch_hours: sent.total_watch_hours,
            blocked_authors: (&sent.blocked_authors).into(),
            blocked_items: (&sent.blocked_items).into(),
            allow_mature: Some(sent.allow_mature),
            bio: cow(&sent.bio),
            ..Default::default()
        }
    }
}

impl<'a> From<&'a Control> for control::Raw<'a> {
    fn from(sent: &'a Control) -> Self {
        let op = match Order::try_from(sent.op) {
            Ok(Order::Unspecified) => None,
            Ok(Order::Forget) => Some("forget".into()),
            Ok(Order::Revoke) => Some("revoke".into()),
            Ok(Order::Model) => Some("model".into()),
            Ok(Order::Rollback) => Some("rollback".into()),
            Ok(Order::Train) => Some("train".into()),
            Ok(Order::Encoder) => Some("encoder".into()),
            Ok(Order::Encoded) => Some("encoded".into()),
            Err(_) => Some(Text(Cow::Owned(sent.op.to_string()))),
        };
        Self {
            op,
            user_id: text(&sent.user_id),
            user_ids: (&sent.user_ids).into(),
            from: sent.from.map(Moment::Number),
            to: sent.to.map(Moment::Number),
            version: text(&sent.version),
            digest: text(&sent.digest),
            model: text(&sent.model),
            instead_of: text(&sent.instead_of),
            item_id: text(&sent.item_id),
            space: text(&sent.space),
            content: text(&sent.content),
            direction_bytes: &sent.direction,
            ..Default::default()
        }
    }
}
