//! What is held of one user, put together: what they do (`activity`), what follows from it (`insights`), and all of it (`export`); and
//! whether a write, such as the order to forget them, has been carried out (`receipt`).

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::params::{Sent, User, bad_path};
use super::views::Body;
use crate::model::Surface;
use crate::shim::feed::{self, Shown};
use crate::shim::guard::Caller;
use crate::shim::queries::asked::Wanted;
use crate::shim::queries::views::{FeaturesView, InterestsView, Of, stale, unknown, unreadable};
use crate::shim::{Cadence, Refusal, State as Shim, Token, now_ms};
use crate::sinks::layout::{self, StoredProfile, StoredSlate};

/// Items of `seen:` that are read: the store keeps no more.
const ALL: usize = 100_000;
/// Tokens of `insights` at most.
const STRONGEST: usize = 20;

/// Everything the store holds of a user.
struct Held {
    features: Option<FeaturesView>,
    interests: Option<InterestsView>,
    profile: Option<ProfileView>,
    /// Of home first, then of the surfaces of the settings.
    slates: Vec<(Surface, Option<StoredSlate>)>,
    seen: Vec<Seen>,
}

impl Held {
    /// The slate of home.
    fn home(&self) -> Option<&StoredSlate> {
        self.slates.first().and_then(|(_, slate)| slate.as_ref())
    }
}

/// What they said of themselves, and whom they turned away.
#[derive(Serialize)]
struct ProfileView {
    as_of: i64,
    epoch: u64,
    lat: Option<f64>,
    lon: Option<f64>,
    city: Option<String>,
    local_preference: Option<f64>,
    language: Option<String>,
    mature: bool,
    hidden_authors: BTreeSet<String>,
    hidden_items: BTreeSet<String>,
}

impl From<StoredProfile> for ProfileView {
    fn from(of: StoredProfile) -> Self {
        let StoredProfile { as_of, epoch, place, city, local_preference, language, mature, hidden_authors, hidden_items } = of;
        let (lat, lon) = place.unzip();
        Self { as_of, epoch, lat, lon, city, local_preference, language, mature, hidden_authors, hidden_items }
    }
}

/// An item the user has met.
#[derive(Serialize)]
struct Seen {
    item_id: String,
    /// The last time, milliseconds since 1970.
    at: i64,
}

#[derive(Serialize)]
struct Activity {
    #[serde(flatten)]
    features: FeaturesView,
    latest: Vec<Seen>,
}

#[derive(Serialize)]
struct Insights<'a> {
    as_of: i64,
    epoch: u64,
    drift: f64,
    /// The strongest first, by the greater of the two weights.
    interests: Vec<Interest<'a>>,
    /// How many items of the slate come from each source.
    sources: BTreeMap<&'static str, usize>,
    /// How many stand in it for which reason.
    reasons: BTreeMap<String, usize>,
}

#[derive(Serialize)]
struct Interest<'a> {
    token: &'a str,
    short: f64,
    long: f64,
    /// `short - long`: above zero what the user turns to.
    change: f64,
}

#[derive(Serialize)]
struct Export<'a> {
    exported_at: i64,
    features: Option<FeaturesView>,
    interests: Option<InterestsView>,
    profile: Option<ProfileView>,
    slate: Option<SlateView<'a>>,
    /// The slates of the surfaces of the settings, by name.
    surfaces: BTreeMap<&'static str, SlateView<'a>>,
    seen: Vec<Seen>,
}

#[derive(Serialize)]
struct SlateView<'a> {
    as_of: i64,
    epoch: u64,
    model: &'a str,
    experiment: &'a str,
    variant: &'a str,
    items: Vec<Shown<'a>>,
    /// What it was made from, latest first.
    history: Vec<Taken<'a>>,
    /// How many items they took in all.
    taken: u32,
}

#[derive(Serialize)]
struct Taken<'a> {
    item_id: &'a str,
    interaction: &'a str,
}

pub async fn activity(
    State(shim): State<Arc<Shim>>,
    User(user): User,
    wanted: Wanted,
    Sent(token): Sent,
) -> Result<Body, Refusal> {
    let stale = stale(&shim, token.as_ref(), Cadence::Epoch).await?;
    let Held { features, seen, .. } = held(&shim, &user, wanted.k).await?;
    let features = features.ok_or_else(|| unknown("unknown_user", "user", stale))?;
    Ok(Body::of(&Of::user(&user, stale, Activity { features, latest: seen })))
}

pub async fn insights(State(shim): State<Arc<Shim>>, User(user): User, Sent(token): Sent) -> Result<Body, Refusal> {
    let stale = stale(&shim, token.as_ref(), Cadence::Epoch).await?;
    let held = held(&shim, &user, 1).await?;
    let items = held.home().map(|slate| feed::shown(slate, false)).unwrap_or_default();
    let (mut sources, mut reasons) = (BTreeMap::new(), BTreeMap::new());
    for item in &items {
        *sources.entry(item.source).or_default() += 1;
        *reasons.entry(item.reason.to_string()).or_default() += 1;
    }
    let interests = held.interests.as_ref().ok_or_else(|| unknown("unknown_user", "user", stale))?;
    let InterestsView { as_of, epoch, drift, .. } = *interests;
    let rest = Insights { as_of, epoch, drift, interests: strongest(interests), sources, reasons };
    Ok(Body::of(&Of::user(&user, stale, rest)))
}

fn strongest(view: &InterestsView) -> Vec<Interest<'_>> {
    let mut weights: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    view.short.iter().for_each(|(token, weight)| weights.entry(token).or_default().0 = *weight);
    view.long.iter().for_each(|(token, weight)| weights.entry(token).or_default().1 = *weight);
    let interest = |(token, (short, long))| Interest { token, short, long, change: short - long };
    let mut all: Vec<_> = weights.into_iter().map(interest).collect();
    all.sort_by(|a, b| b.short.max(b.long).total_cmp(&a.short.max(a.long)));
    all.truncate(STRONGEST);
    all
}

pub async fn export(State(shim): State<Arc<Shim>>, User(user): User, caller: Caller) -> Result<Body, Refusal> {
    caller.who.personal(&user)?;
    shim.access.note(caller.deed("export", &user)).await?;
    let Held { features, interests, profile, slates, seen } = held(&shim, &user, ALL).await?;
    let mut surfaces: BTreeMap<&'static str, SlateView> = BTreeMap::new();
    for (surface, slate) in &slates {
        surfaces.extend(slate.as_ref().map(|slate| (surface.name(), SlateView::of(slate))));
    }
    if features.is_none() && interests.is_none() && profile.is_none() && surfaces.is_empty() && seen.is_empty() {
        return Err(unknown("unknown_user", "user", None));
    }
    let slate = surfaces.remove(Surface::HOME.name());
    let rest = Export { exported_at: now_ms(), features, interests, profile, slate, surfaces, seen };
    Ok(Body::of(&Of::user(&user, None, rest)))
}

impl<'a> SlateView<'a> {
    fn of(stored: &'a StoredSlate) -> Self {
        let StoredSlate { epoch, slate, .. } = stored;
        Self {
            as_of: slate.as_of_ms,
            epoch: *epoch,
            model: &slate.model,
            experiment: &slate.experiment,
            variant: &slate.variant,
            items: feed::shown(stored, true),
            history: slate.history.iter().map(|of| Taken { item_id: &of.item_id, interaction: &of.interaction }).collect(),
            taken: slate.taken,
        }
    }
}

/// How far a write has come.
#[derive(Serialize)]
struct Progress {
    /// Slates, features and interests show it.
    applied: bool,
    /// So do trending and neighbours.
    everywhere: bool,
    as_of: i64,
    epoch: u64,
}

/// Says at once whether the write of a token is visible. The token names places in the log, nobody's data.
pub async fn receipt(State(shim): State<Arc<Shim>>, path: Result<Path<String>, PathRejection>) -> Result<Body, Refusal> {
    let Path(token) = path.map_err(bad_path)?;
    let message = "this is not a token of ours; send the `token` of a write unchanged";
    let token = Token::parse(&token).ok_or_else(|| Refusal::bad("bad_token", message))?;
    let mark = shim.reader.applied().await?;
    let shows = |cadence: Cadence| token.covered_by(cadence.of(&mark));
    let (applied, in_ticks) = (shows(Cadence::Epoch), shows(Cadence::Tick));
    Ok(Body::of(&Progress { applied, everywhere: applied && in_ticks, as_of: mark.clock_ms, epoch: mark.epoch }))
}

/// Reads all of it at once; of the items the user has met the latest `seen`.
async fn held(shim: &Shim, user: &str, seen: usize) -> Result<Held, Refusal> {
    let keys = &shim.keys;
    let (features, interests) = (keys.user(user), keys.interests(user));
    let (surfaces, met): (Vec<Surface>, String) = (shim.rules.kept().collect(), keys.seen(user));
    let slates: Vec<String> = surfaces.iter().map(|surface| keys.slate(surface.name(), None, user)).collect();
    let (reader, profile) = (&*shim.reader, keys.profile(user));
    let (features, interests, profile, slates, met) = tokio::try_join!(
        reader.fields(&features),
        reader.fields(&interests),
        reader.fields(&profile),
        reader.many(&slates, &[]),
        reader.ranked(&met, seen)
    )?;
    let decoded = |value: Option<bytes::Bytes>| value.map(|value| layout::decode_slate(&value)).transpose().map_err(unreadable);
    let slates: Vec<Option<StoredSlate>> = slates.values.into_iter().map(decoded).collect::<Result<_, _>>()?;
    let features = features.map(|fields| layout::decode_features(&fields)).transpose().map_err(unreadable)?;
    let interests = interests.map(|fields| layout::decode_interests(&fields)).transpose().map_err(unreadable)?;
    Ok(Held {
        features: features.as_ref().map(FeaturesView::from),
        interests: interests.map(InterestsView::from),
        profile: profile.map(|fields| layout::decode_profile(&fields)).transpose().map_err(unreadable)?.map(ProfileView::from),
        slates: surfaces.into_iter().zip(slates).collect(),
        seen: met.into_iter().map(|(item_id, at)| Seen { item_id, at: at as i64 }).collect(),
    })
}
