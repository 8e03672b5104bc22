//! One item, whatever form it came in. What it does not say stays unknown, except `available`, which is true.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

use super::Limits;
use super::text::{Loose, Moment, Text, Unit, Words, millis, required, tokens, utf8, within, word, words};
use crate::model::ids::TokenKind;
use crate::model::{Input, Item, ItemId, Names};

/// Most numbers of an embedding.
pub(super) const MAX_DIMENSIONS: usize = 4096;
/// What S4 divides its quality score by.
const S4_QUALITY: f64 = 10.0;

/// An item as it was sent: our own fields, with S4's names as aliases, then Gorse's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Raw<'a> {
    #[serde(borrow, alias = "content_id", alias = "stream_id", alias = "post_id", alias = "ItemId")]
    pub(super) item_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) author_id: Option<Text<'a>>,
    #[serde(borrow, alias = "Categories", alias = "category_id", alias = "genres")]
    pub(super) categories: Words<'a>,
    #[serde(borrow)]
    pub(super) tags: Words<'a>,
    #[serde(borrow)]
    pub(super) language: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) created_at: Option<Moment<'a>>,
    #[serde(alias = "latitude")]
    pub(super) lat: Option<f64>,
    #[serde(alias = "longitude")]
    pub(super) lon: Option<f64>,
    #[serde(borrow)]
    pub(super) city: Option<Cow<'a, str>>,
    pub(super) quality: Option<f64>,
    #[serde(alias = "mature_content")]
    pub(super) mature: Option<bool>,
    pub(super) available: Option<bool>,
    #[serde(alias = "is_partnered")]
    pub(super) partnered: Option<bool>,
    #[serde(alias = "creator_followers")]
    pub(super) followers: Option<u64>,
    #[serde(alias = "avg_viewer_count")]
    pub(super) avg_viewers: Option<f64>,
    #[serde(borrow, alias = "Comment")]
    pub(super) title: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) media_types: Words<'a>,
    pub(super) embedding: Option<Vec<f32>>,
    /// In base64.
    #[serde(borrow)]
    pub(super) image: Option<Cow<'a, str>>,
    /// The same where bytes can be sent as they are.
    #[serde(skip)]
    pub(super) image_bytes: &'a [u8],

    /// S4: 0 to 10.
    pub(super) stream_quality_score: Option<f64>,
    #[serde(rename = "IsHidden")]
    pub(super) gorse_hidden: Option<bool>,
    #[serde(borrow, rename = "Timestamp")]
    pub(super) gorse_created: Option<Moment<'a>>,
    #[serde(rename = "Labels")]
    pub(super) gorse_labels: Value,
    /// Metarank's discriminator.
    #[serde(borrow)]
    pub(super) event: Loose<'a>,
}

impl Raw<'_> {
    /// Whether this is one of Metarank's events: those name the item `item`.
    pub(super) fn is_metarank(&self) -> bool {
        self.item_id.is_none() && super::foreign::is_metarank(&self.event)
    }

    fn quality(&self) -> Result<Option<f64>, String> {
        let s4 = within("stream_quality_score", self.stream_quality_score, 0.0, S4_QUALITY)?.map(|q| q / S4_QUALITY);
        Ok(within("quality", self.quality, 0.0, 1.0)?.or(s4))
    }

    fn created_at(&self) -> Result<Option<i64>, String> {
        let own = self.created_at.as_ref().map(|at| millis("created_at", at, Unit::Millis)).transpose()?;
        let gorse = self.gorse_created.as_ref().map(|at| millis("Timestamp", at, Unit::MillisOrSeconds)).transpose()?;
        Ok(own.or(gorse))
    }

    fn image(&self) -> Result<Option<Arc<[u8]>>, String> {
        let said = |e| format!("`image` is not in base64: {e}; send the bytes of a PNG or JPEG in standard base64");
        let image = match self.image.as_deref() {
            Some(text) => STANDARD.decode(text).map_err(said)?,
            None => self.image_bytes.to_vec(),
        };
        Ok((!image.is_empty()).then(|| image.into()))
    }

    fn embedding(&self, limits: Limits) -> Result<&[f32], String> {
        let embedding = self.embedding.as_deref().unwrap_or_default();
        if embedding.len() > MAX_DIMENSIONS {
            return Err(format!("`embedding` has {} numbers; at most {MAX_DIMENSIONS} are allowed", embedding.len()));
        }
        if ![0, embedding.len()].contains(&limits.dimensions) && !embedding.is_empty() {
            let (numbers, dimensions) = (embedding.len(), limits.dimensions);
            return Err(format!(
                "`embedding` has {numbers} numbers and [content] dimensions is {dimensions}; send {dimensions}, or change the setting"
            ));
        }
        match embedding.iter().position(|x| !x.is_finite()) {
            Some(at) => Err(format!("`embedding` has no finite number at place {at}; send 32-bit floats")),
            None => Ok(embedding),
        }
    }
}

/// The item a record describes; its key is the id when the payload has none.
pub(super) fn input(raw: Raw, key: Option<&[u8]>, names: &Names, limits: Limits) -> Result<Input, String> {
    let key = key.map(|k| utf8("the key", k)).transpose()?.map(Text::from);
    let id = required("item_id", raw.item_id.as_ref().or(key.as_ref()), limits)?;
    let author = raw.author_id.as_ref().map(|a| word("author_id", a, limits)).transpose()?;
    let language = raw.language.as_ref().map(|l| word("language", l, limits)).transpose()?;
    let categories = words("categories", &raw.categories, limits)?;
    let labels = labels(&raw.gorse_labels);
    let mut tags = words("tags", &raw.tags, limits)?;
    tags.extend(words("Labels", &labels, limits)?);
    let mut item = Item {
        created_at: raw.created_at()?,
        lat: within("lat", raw.lat, -90.0, 90.0)?,
        lon: within("lon", raw.lon, -180.0, 180.0)?,
        city: raw.city.as_deref().map(str::to_string),
        quality: raw.quality()?,
        mature: raw.mature.unwrap_or(false),
        available: raw.available.unwrap_or(!raw.gorse_hidden.unwrap_or(false)),
        partnered: raw.partnered.unwrap_or(false),
        followers: raw.followers,
        avg_viewers: within("avg_viewers", raw.avg_viewers, 0.0, 1e12)?,
        title: raw.title.as_deref().map(str::to_string),
        text: raw.text.as_deref().map(str::to_string),
        media_types: words("media_types", &raw.media_types, limits)?.into_iter().map(str::to_string).collect(),
        embedding: raw.embedding(limits)?.to_vec(),
        image: raw.image()?,
        ..Default::default()
    };
    let collision = |e: crate::model::names::Collision| e.to_string();
    let (mut category_tokens, mut tag_tokens) = (Vec::new(), Vec::new());
    let remember = |kind, name: &str| names.token(kind, name);
    tokens(remember, TokenKind::Category, &categories, &mut category_tokens)?;
    tokens(remember, TokenKind::Tag, &tags, &mut tag_tokens)?;
    item.categories = category_tokens.into();
    item.tags = tag_tokens.into();
    item.author = author.map(|a| names.token(TokenKind::Author, a)).transpose().map_err(collision)?;
    item.language = language.map(|l| names.token(TokenKind::Language, l)).transpose().map_err(collision)?;
    Ok(Input::Item(names.item(id).map_err(collision)?, Some(Arc::new(item))))
}

/// An item that is only named.
pub(super) fn named(id: &str, names: &Names, limits: Limits) -> Result<ItemId, String> {
    names.item(word("item_id", &id.into(), limits)?).map_err(|e| e.to_string())
}

/// The end of an item: its key, without a payload.
pub(super) fn deleted(key: Option<&str>, names: &Names, limits: Limits) -> Result<Input, String> {
    let key = key.map(Text::from).ok_or("a deletion without a key; send the item's id as the key")?;
    let id = names.item(word("key", &key, limits)?).map_err(|e| e.to_string())?;
    Ok(Input::Item(id, None))
}

/// Every string in Gorse's labels, however they are nested; their keys and numbers are not words.
pub(super) fn labels(value: &Value) -> Words<'_> {
    fn walk<'v>(value: &'v Value, into: &mut Vec<Text<'v>>) {
        match value {
            Value::String(word) => into.push(word.as_str().into()),
            Value::Array(values) => values.iter().for_each(|v| walk(v, into)),
            Value::Object(fields) => fields.values().for_each(|v| walk(v, into)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut found = Vec::new();
    walk(value, &mut found);
    Words(found)
}
