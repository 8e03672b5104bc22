//! What is held of one user, put together: what they do (`activity`), what follows from it (`insights`), and all of it (`export`); and
//! whether a write, such as the order to forget them, has been carried out (`receipt`).

use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

use super::views::{FeaturesView, InterestsView, Of, stale, unknown, unreadable};
use crate::model::Surface;
use crate::shim::feed::{self, Shown};
use crate::shim::guard::Caller;
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
pub struct ProfileView {
    pub as_of: i64,
    pub epoch: u64,
    pub lat: Option<f64>,
    pub lon: Option<f64>,
    pub city: Option<String>,
    pub local_preference: Option<f64>,
    pub total_watch_hours: Option<f64>,
    pub language: Option<String>,
    pub mature: bool,
    pub hidden_authors: BTreeSet<String>,
    pub hidden_items: BTreeSet<String>,
}

impl From<StoredProfile> for ProfileView {
    fn from(of: StoredProfile) -> Self {
        let (lat, lon) = of.place.unzip();
        Self {
            as_of: of.as_of,
            epoch: of.epoch,
            lat,
            lon,
            city: of.city,
            local_preference: of.local_preference,
            total_watch_hours: of.total_watch_hours,
            language: of.language,
            mature: of.mature,
            hidden_authors: of.hidden_authors,
            hidden_items: of.hidden_items,
        }
    }
}

/// An item the user has met.
#[derive(Serialize)]
pub struct Seen {
    pub item_id: String,
    /// The last time, milliseconds since 1970.
    pub at: i64,
}

/// What a user did.
#[derive(Serialize)]
pub struct Activity {
    #[serde(flatten)]
    pub features: FeaturesView,
    pub latest: Vec<Seen>,
}

/// What follows from it.
#[derive(Serialize)]
pub struct Insights {
    pub as_of: i64,
    pub epoch: u64,
    pub drift: f64,
    /// The strongest first, by the greater of the two weights.
    pub interests: Vec<Interest>,
    /// How many items of the slate come from each source.
    pub sources: BTreeMap<&'static str, u32>,
    /// How many stand in it for which reason.
    pub reasons: BTreeMap<String, u32>,
}

/// How much a user turns to something.
#[derive(Serialize)]
pub struct Interest {
    pub token: String,
    pub short: f64,
    pub long: f64,
    /// `short - long`: above zero what the user turns to.
    pub change: f64,
}

/// All that is held of a user.
#[derive(Serialize)]
pub struct Export {
    pub exported_at: i64,
    pub features: Option<FeaturesView>,
    pub interests: Option<InterestsView>,
    pub profile: Option<ProfileView>,
    pub slate: Option<Kept>,
    /// The slates of the surfaces of the settings, by name.
    pub surfaces: BTreeMap<&'static str, Kept>,
    pub seen: Vec<Seen>,
}

/// A slate as it is kept.
pub struct Kept(StoredSlate);

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.view().serialize(to)
    }
}

/// A slate as it is told.
#[derive(Serialize)]
pub struct SlateView<'a> {
    pub as_of: i64,
    pub epoch: u64,
    pub model: &'a str,
    pub experiment: &'a str,
    pub variant: &'a str,
    pub items: Vec<Shown<'a>>,
    /// What it was made from, latest first.
    pub history: Vec<Taken<'a>>,
    /// How many items they took in all.
    pub taken: u32,
}

/// An item of the history.
#[derive(Serialize)]
pub struct Taken<'a> {
    pub item_id: &'a str,
    pub interaction: &'a str,
}

impl Kept {
    /// All of it.
    pub fn view(&self) -> SlateView<'_> {
        let StoredSlate { epoch, slate, .. } = &self.0;
        SlateView {
            as_of: slate.as_of_ms,
            epoch: *epoch,
            model: &slate.model,
            experiment: &slate.experiment,
            variant: &slate.variant,
            items: feed::shown(&self.0, true),
            history: slate.history.iter().map(|of| Taken { item_id: &of.item_id, interaction: &of.interaction }).collect(),
            taken: slate.taken,
        }
    }
}

/// What a user did, and the latest `k` items they met.
pub async fn activity<'a>(shim: &Shim, user: &'a str, k: usize, token: Option<&Token>) -> Result<Of<'a, Activity>, Refusal> {
    let stale = stale(shim, token, Cadence::Epoch).await?;
    let Held { features, seen, .. } = held(shim, user, k).await?;
    let features = features.ok_or_else(|| unknown("unknown_user", "user", stale))?;
    Ok(Of::user(user, stale, Activity { features, latest: seen }))
}

/// What follows from what a user did.
pub async fn insights<'a>(shim: &Shim, user: &'a str, token: Option<&Token>) -> Result<Of<'a, Insights>, Refusal> {
    let stale = stale(shim, token, Cadence::Epoch).await?;
    let held = held(shim, user, 1).await?;
    let items = held.home().map(|slate| feed::shown(slate, false)).unwrap_or_default();
    let (mut sources, mut reasons) = (BTreeMap::new(), BTreeMap::new());
    for item in &items {
        *sources.entry(item.source).or_default() += 1;
        *reasons.entry(item.reason.to_string()).or_default() += 1;
    }
    let interests = held.interests.as_ref().ok_or_else(|| unknown("unknown_user", "user", stale))?;
    let InterestsView { as_of, epoch, drift, .. } = *interests;
    let rest = Insights { as_of, epoch, drift, interests: strongest(interests), sources, reasons };
    Ok(Of::user(user, stale, rest))
}

fn strongest(view: &InterestsView) -> Vec<Interest> {
    let mut weights: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    view.short.iter().for_each(|(token, weight)| weights.entry(token).or_default().0 = *weight);
    view.long.iter().for_each(|(token, weight)| weights.entry(token).or_default().1 = *weight);
    let interest = |(token, (short, long)): (&str, _)| Interest { token: token.to_string(), short, long, change: short - long };
    let mut all: Vec<_> = weights.into_iter().map(interest).collect();
    all.sort_by(|a, b| b.short.max(b.long).total_cmp(&a.short.max(a.long)));
    all.truncate(STRONGEST);
    all
}

/// All that is held of a user, for them or for an admin.
pub async fn export<'a>(shim: &Shim, user: &'a str, caller: &Caller) -> Result<Of<'a, Export>, Refusal> {
    caller.who.personal(user)?;
    shim.access.note(caller.deed("export", user)).await?;
    let Held { features, interests, profile, slates, seen } = held(shim, user, ALL).await?;
    let kept = slates.into_iter().filter_map(|(surface, slate)| Some((surface.name(), Kept(slate?))));
    let mut surfaces: BTreeMap<_, _> = kept.collect();
    if features.is_none() && interests.is_none() && profile.is_none() && surfaces.is_empty() && seen.is_empty() {
        return Err(unknown("unknown_user", "user", None));
    }
    let slate = surfaces.remove(Surface::HOME.name());
    Ok(Of::user(user, None, Export { exported_at: now_ms(), features, interests, profile, slate, surfaces, seen }))
}

/// How far a write has come.
#[derive(Serialize)]
pub struct Progress {
    /// Slates, features and interests show it.
    pub applied: bool,
    /// So do trending and neighbours.
    pub everywhere: bool,
    pub as_of: i64,
    pub epoch: u64,
}

/// Says at once whether the write of a token is visible. The token names places in the log, nobody's data.
pub async fn receipt(shim: &Shim, token: &str) -> Result<Progress, Refusal> {
    let message = "this is not a token of ours; send the `token` of a write unchanged";
    let token = Token::parse(token).ok_or_else(|| Refusal::bad("bad_token", message))?;
    let mark = shim.reader.applied().await?;
    let shows = |cadence: Cadence| token.covered_by(cadence.of(&mark));
    let (applied, in_ticks) = (shows(Cadence::Epoch), shows(Cadence::Tick));
    Ok(Progress { applied, everywhere: applied && in_ticks, as_of: mark.clock_ms, epoch: mark.epoch })
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
