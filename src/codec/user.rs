//! One user, whatever form they came in. `interests` holds what was named at sign-up and the followed categories; a bare word is
//! both a category and a tag, because a sign-up form does not know which.

use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

use super::Limits;
use super::item::labels;
use super::text::{Loose, Text, Words, required, tokens, utf8, within, word, words};
use crate::model::ids::TokenKind;
use crate::model::names::Collision;
use crate::model::{Input, ItemId, Names, User};

/// A user as they were sent: our own fields, with S4's names as aliases, then Gorse's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Raw<'a> {
    #[serde(borrow, alias = "UserId")]
    pub(super) user_id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) interests: Words<'a>,
    #[serde(borrow)]
    pub(super) language: Option<Text<'a>>,
    #[serde(alias = "latitude")]
    pub(super) lat: Option<f64>,
    #[serde(alias = "longitude")]
    pub(super) lon: Option<f64>,
    #[serde(borrow)]
    pub(super) city: Option<Cow<'a, str>>,
    #[serde(borrow, alias = "preferred_categories")]
    pub(super) categories: Words<'a>,
    #[serde(alias = "local_preference_strength")]
    pub(super) local_preference: Option<f64>,
    #[serde(alias = "user_total_watch_hours")]
    pub(super) total_watch_hours: Option<f64>,
    #[serde(borrow)]
    pub(super) blocked_authors: Words<'a>,
    #[serde(borrow)]
    pub(super) blocked_items: Words<'a>,
    pub(super) allow_mature: Option<bool>,
    #[serde(borrow, alias = "Comment")]
    pub(super) bio: Option<Cow<'a, str>>,

    #[serde(rename = "Labels")]
    pub(super) gorse_labels: Value,
    /// Metarank's discriminator.
    #[serde(borrow)]
    pub(super) event: Loose<'a>,
}

impl Raw<'_> {
    /// Whether this is one of Metarank's events: those name the user `user`.
    pub(super) fn is_metarank(&self) -> bool {
        self.user_id.is_none() && super::foreign::is_metarank(&self.event)
    }
}

/// The user a record describes; its key is the id when the payload has none.
pub(super) fn input(raw: Raw, key: Option<&[u8]>, names: &Names, limits: Limits) -> Result<Input, String> {
    let key = key.map(|k| utf8("the key", k)).transpose()?.map(Text::from);
    let id = required("user_id", raw.user_id.as_ref().or(key.as_ref()), limits)?;
    let language = raw.language.as_ref().map(|l| word("language", l, limits)).transpose()?;
    let mut interests = words("interests", &raw.interests, limits)?;
    let labels = labels(&raw.gorse_labels);
    interests.extend(words("Labels", &labels, limits)?);
    let interests = interests.into_iter().map(Interest::read).collect::<Result<Vec<_>, _>>()?;
    let categories = words("categories", &raw.categories, limits)?;
    let blocked_authors = words("blocked_authors", &raw.blocked_authors, limits)?;
    let blocked_items = words("blocked_items", &raw.blocked_items, limits)?;
    let mut user = User {
        lat: within("lat", raw.lat, -90.0, 90.0)?,
        lon: within("lon", raw.lon, -180.0, 180.0)?,
        city: raw.city.as_deref().map(str::to_string),
        local_preference: within("local_preference", raw.local_preference, 0.0, 1.0)?,
        total_watch_hours: within("total_watch_hours", raw.total_watch_hours, 0.0, 1e6)?,
        allow_mature: raw.allow_mature.unwrap_or(false),
        bio: raw.bio.as_deref().map(str::to_string),
        ..Default::default()
    };
    let id = names.user(id).map_err(said)?;
    let named = |kind, name: &str| names.said(id, kind, name);
    let (mut interest_tokens, mut category_tokens) = (Vec::new(), Vec::new());
    for interest in interests {
        for kind in interest.kinds {
            tokens(named, *kind, &[interest.name], &mut interest_tokens)?;
        }
    }
    tokens(named, TokenKind::Category, &categories, &mut category_tokens)?;
    tokens(named, TokenKind::Category, &categories, &mut interest_tokens)?;
    tokens(named, TokenKind::Author, &blocked_authors, &mut user.blocked_authors)?;
    user.interests = interest_tokens.into();
    user.categories = category_tokens.into();
    user.language = language.map(|l| named(TokenKind::Language, l)).transpose().map_err(said)?;
    user.blocked_items = blocked_items.iter().map(|i| names.item(i)).collect::<Result<Vec<ItemId>, _>>().map_err(said)?;
    Ok(Input::User(id, Some(Arc::new(user))))
}

/// The end of a user's profile: its key, without a payload. (To forget the person, send `forget` to the control topic.)
pub(super) fn deleted(key: Option<&str>, names: &Names, limits: Limits) -> Result<Input, String> {
    let key = key.map(Text::from).ok_or("a deletion without a key; send the user's id as the key")?;
    let id = names.user(word("key", &key, limits)?).map_err(said)?;
    Ok(Input::User(id, None))
}

/// A word of interest and what it may describe.
struct Interest<'a> {
    name: &'a str,
    kinds: &'static [TokenKind],
}

impl<'a> Interest<'a> {
    fn read(word: &'a str) -> Result<Self, String> {
        let (kinds, name) = TokenKind::of_interest(word);
        if name.is_empty() {
            return Err(format!("`interests` has `{word}` without a name; add one or leave it out"));
        }
        Ok(Self { name, kinds })
    }
}

fn said(collision: Collision) -> String {
    collision.to_string()
}
