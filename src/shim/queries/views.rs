//! What is known of one user, item or scope, as the engine last wrote it. With a token the answer also says `stale`.

use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

use crate::model::Role;
use crate::model::time::Window;
use crate::shim::commons::{TRENDING_SCALE, scaled};
use crate::shim::{Cadence, Refusal, State as Shim, Token};
use crate::sinks::layout::{self, Features, LayoutError, Segment, StoredInterests};

/// An answer and whose it is; `stale` only where a token was sent.
#[derive(Serialize)]
pub struct Of<'a, T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<bool>,
    #[serde(flatten)]
    pub rest: T,
}

impl<'a, T> Of<'a, T> {
    /// Of a user.
    pub fn user(id: &'a str, stale: Option<bool>, rest: T) -> Self {
        Self { user_id: Some(id), item_id: None, stale, rest }
    }

    fn item(id: &'a str, stale: Option<bool>, rest: T) -> Self {
        Self { user_id: None, item_id: Some(id), stale, rest }
    }
}

/// Windowed counts as they are answered.
#[derive(Serialize)]
pub struct FeaturesView {
    pub as_of: i64,
    pub epoch: u64,
    pub windows: BTreeMap<&'static str, WindowView>,
    pub velocity: f64,
    pub decayed: f64,
    pub rates: Rates,
}

/// What happened within a window.
#[derive(Serialize)]
pub struct WindowView {
    pub counts: BTreeMap<&'static str, u32>,
    pub weighted: f64,
}

/// Smoothed.
#[derive(Serialize)]
pub struct Rates {
    pub ctr: f64,
    pub engagement: f64,
}

impl From<&Features> for FeaturesView {
    fn from(features: &Features) -> Self {
        let window = |window: Window| {
            let found = features.window(window);
            let counts = found.counts.iter().map(|(kind, n)| (kind.name(), *n)).collect();
            (window.name(), WindowView { counts, weighted: found.weighted })
        };
        Self {
            as_of: features.as_of,
            epoch: features.epoch,
            windows: Window::ALL.into_iter().map(window).collect(),
            velocity: features.velocity,
            decayed: features.decayed,
            rates: Rates { ctr: features.ctr, engagement: features.engagement },
        }
    }
}

/// What was done with an item, and what the catalogue says of it.
#[derive(Serialize)]
pub struct PostView {
    #[serde(flatten)]
    features: FeaturesView,
    created_at: Option<i64>,
    /// At the clock of the counts.
    age_ms: Option<i64>,
    author: Option<String>,
    /// What was done with everything of theirs over seven days, as `decayed` is of the item.
    author_popularity: Option<f64>,
    categories: Vec<String>,
    tags: Vec<String>,
    language: Option<String>,
    city: Option<String>,
    quality: Option<f64>,
    mature: bool,
}

/// Interests as they are answered, strongest first.
#[derive(Serialize)]
pub struct InterestsView {
    pub as_of: i64,
    pub epoch: u64,
    #[serde(serialize_with = "as_map")]
    pub short: Vec<(String, f64)>,
    #[serde(serialize_with = "as_map")]
    pub long: Vec<(String, f64)>,
    pub drift: f64,
}

impl From<StoredInterests> for InterestsView {
    fn from(StoredInterests { as_of, epoch, short, long, drift }: StoredInterests) -> Self {
        Self { as_of, epoch, short, long, drift }
    }
}

/// As an object, in the order of the list.
fn as_map<S: Serializer>(weights: &[(String, f64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(weights.iter().map(|(token, weight)| (token, weight)))
}

/// Neighbours as they are answered, most similar first. Of an item that has none nobody knows as of when.
#[derive(Serialize)]
pub struct NeighboursView {
    pub as_of: Option<i64>,
    pub epoch: Option<u64>,
    pub neighbours: Vec<NeighbourView>,
}

/// One neighbour.
#[derive(Serialize)]
pub struct NeighbourView {
    pub item_id: String,
    pub similarity: f64,
    pub users: u32,
}

/// What is trending in a scope, best first.
#[derive(Serialize)]
pub struct TrendingView {
    pub scope: String,
    pub as_of: i64,
    pub epoch: u64,
    pub items: Vec<Scored>,
}

/// An item of it.
#[derive(Serialize)]
pub struct Scored {
    pub item_id: String,
    pub score: f64,
}

/// What a user did, in windows.
pub async fn user_features<'a>(shim: &Shim, user: &'a str, token: Option<&Token>) -> Result<Of<'a, FeaturesView>, Refusal> {
    let stale = stale(shim, token, Cadence::Epoch).await?;
    let features = features(shim, &shim.keys.user(user)).await?;
    let features = features.ok_or_else(|| unknown("unknown_user", "user", stale))?;
    Ok(Of::user(user, stale, FeaturesView::from(&features)))
}

/// What was done with an item, in windows.
pub async fn item_features<'a>(shim: &Shim, item: &'a str, token: Option<&Token>) -> Result<Of<'a, FeaturesView>, Refusal> {
    let stale = stale(shim, token, Cadence::Epoch).await?;
    let features = features(shim, &shim.keys.item(item)).await?;
    let features = features.ok_or_else(|| unknown("unknown_item", "item", stale))?;
    Ok(Of::item(item, stale, FeaturesView::from(&features)))
}

/// What was done with an item, and what the catalogue says of it.
pub async fn post_features<'a>(shim: &Shim, item: &'a str, token: Option<&Token>) -> Result<Of<'a, PostView>, Refusal> {
    // what the catalogue says is written at ticks
    let cadence = if token.is_some_and(|token| token.is_of(Role::Items)) { Cadence::Tick } else { Cadence::Epoch };
    let stale = stale(shim, token, cadence).await?;
    let Of { rest: features, .. } = item_features(shim, item, None).await?;
    let card = shim.reader.value(&shim.keys.card(item)).await?;
    let card = card.map(|value| layout::decode_card(&value).map_err(unreadable)).transpose()?.unwrap_or_default();
    let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let author = said(&card.author);
    let of_author = match &author {
        Some(author) => self::features(shim, &shim.keys.author(author)).await?,
        None => None,
    };
    let created_at = Some(card.created_ms).filter(|at| *at > 0);
    let rest = PostView {
        age_ms: created_at.map(|at| features.as_of - at),
        features,
        created_at,
        author,
        author_popularity: of_author.map(|features| features.decayed),
        language: said(&card.language),
        city: said(&card.city),
        categories: card.categories,
        tags: card.tags,
        quality: card.quality,
        mature: card.mature,
    };
    Ok(Of::item(item, stale, rest))
}

/// What a user turns to.
pub async fn interests<'a>(shim: &Shim, user: &'a str, token: Option<&Token>) -> Result<Of<'a, InterestsView>, Refusal> {
    let stale = stale(shim, token, Cadence::Epoch).await?;
    let fields = shim.reader.fields(&shim.keys.interests(user)).await?;
    let fields = fields.ok_or_else(|| unknown("unknown_user", "user", stale))?;
    let found = layout::decode_interests(&fields).map_err(unreadable)?;
    Ok(Of::user(user, stale, InterestsView::from(found)))
}

/// Items that are taken by the users of an item.
pub async fn neighbours<'a>(shim: &Shim, item: &'a str, token: Option<&Token>) -> Result<Of<'a, NeighboursView>, Refusal> {
    let stale = stale(shim, token, Cadence::Tick).await?;
    let rest = match shim.reader.value(&shim.keys.neighbours(item)).await? {
        Some(value) => {
            let (stamp, _) = layout::open(&value).map_err(unreadable)?;
            let found = layout::decode_neighbours(&value).map_err(unreadable)?;
            let view = |n: layout::proto::Neighbour| NeighbourView {
                item_id: n.item_id,
                similarity: f64::from(n.similarity_micro) / 1e6,
                users: n.users,
            };
            let neighbours = found.neighbours.into_iter().map(view).collect();
            NeighboursView { as_of: Some(found.as_of_ms), epoch: Some(stamp.epoch), neighbours }
        }
        // An item nobody took together with another one is still an item.
        None => match shim.reader.fields(&shim.keys.item(item)).await? {
            Some(_) => NeighboursView { as_of: None, epoch: None, neighbours: Vec::new() },
            None => return Err(unknown("unknown_item", "item", stale)),
        },
    };
    Ok(Of::item(item, stale, rest))
}

/// What is trending in a scope, the best `k`.
pub async fn trending(shim: &Shim, scope: &str, k: usize, token: Option<&Token>) -> Result<Of<'static, TrendingView>, Refusal> {
    let message =
        || format!("there is no scope `{scope}`; use global, category:<name>, language:<name> or cell:<H3 cell of resolution 4>");
    let segment = Segment::parse(scope).ok_or_else(|| Refusal::unknown("unknown_scope", message()))?;
    let stale = stale(shim, token, Cadence::Tick).await?;
    let applied = shim.reader.applied().await?;
    let members = scaled(shim.reader.ranked(&shim.keys.trending(segment), k).await?, TRENDING_SCALE);
    let items = members.into_iter().map(|(item_id, score)| Scored { item_id, score }).collect();
    let rest = TrendingView { scope: segment.name(), as_of: applied.clock_ms, epoch: applied.tick_epoch, items };
    Ok(Of { user_id: None, item_id: None, stale, rest })
}

/// With a token: waits for its write, and says whether the answer may lack it.
pub async fn stale(shim: &Shim, token: Option<&Token>, cadence: Cadence) -> Result<Option<bool>, Refusal> {
    match token {
        None => Ok(None),
        Some(token) => Ok(Some(!shim.visible(token, cadence).await?)),
    }
}

async fn features(shim: &Shim, key: &str) -> Result<Option<Features>, Refusal> {
    let fields = shim.reader.fields(key).await?;
    fields.map(|fields| layout::decode_features(&fields).map_err(unreadable)).transpose()
}

/// Something in the store that is not as it was written.
pub fn unreadable(error: LayoutError) -> Refusal {
    metrics::counter!(crate::telemetry::STORE_ERRORS).increment(1);
    Refusal::store(error)
}

/// 404; says so when the write of a token may yet make it known.
pub fn unknown(code: &'static str, what: &str, stale: Option<bool>) -> Refusal {
    let mut message = format!("nothing is known of this {what}, or nothing lately");
    if stale == Some(true) {
        message.push_str("; the write of the token you sent was not visible yet");
    }
    Refusal::unknown(code, message)
}
