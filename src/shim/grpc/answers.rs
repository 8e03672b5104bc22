//! What a query answers, as the message of it.

use std::collections::BTreeMap;

use super::proto;
use crate::model::experiment::Whom;
use crate::model::serving::Recipe;
use crate::registry::Figures;
use crate::scoring::intervals::{Difference, Estimate, Verdict};
use crate::shim::feed::{Page, Shown};
use crate::shim::queries::about::{Activity, Export, Insights, Interest, Kept, ProfileView, Progress, Seen, SlateView, Taken};
use crate::shim::queries::experiments::{All, ArmView, Measure, One, View};
use crate::shim::queries::feeds::Feed;
use crate::shim::queries::ingest::{Receipt, Rejected};
use crate::shim::queries::models::{Models, Status, TrainingView, VersionView};
use crate::shim::queries::rank::{LeftOut, Order, Placed};
use crate::shim::queries::stats::Stats;
use crate::shim::queries::views::{
    FeaturesView, InterestsView, NeighbourView, NeighboursView, Of, Rates, Scored, TrendingView, WindowView,
};
use crate::training::{Attempt, Doing, TakenBack};

/// Texts and what they stand for.
fn named<K: ToString, V, N: From<V>>(of: impl IntoIterator<Item = (K, V)>) -> BTreeMap<String, N> {
    of.into_iter().map(|(name, value)| (name.to_string(), value.into())).collect()
}

fn all<T, M: From<T>>(of: impl IntoIterator<Item = T>) -> Vec<M> {
    of.into_iter().map(Into::into).collect()
}

impl From<Feed<'_>> for proto::Feed {
    fn from(Feed { request_id, user_id, surface, stale, page }: Feed<'_>) -> Self {
        let Page { as_of, epoch, model, experiment, variant, fallback, items, cursor } = page;
        Self {
            request_id: request_id.to_string(),
            user_id: user_id.to_string(),
            surface: surface.to_string(),
            stale,
            as_of,
            epoch,
            model: model.to_string(),
            experiment: experiment.to_string(),
            variant: variant.to_string(),
            fallback,
            items: all(items),
            cursor,
        }
    }
}

impl From<Shown<'_>> for proto::FeedItem {
    fn from(Shown { item_id, score, source, reason, distance_km, terms }: Shown<'_>) -> Self {
        let (item_id, source, reason) = (item_id.to_string(), source.to_string(), reason.into_owned());
        Self { item_id, score, source, reason, distance_km, terms: named(terms.unwrap_or_default()) }
    }
}

impl From<Order<'_>> for proto::Ranking {
    fn from(Order { request_id, user_id, as_of, epoch, model, stale, fallback, items, left_out }: Order<'_>) -> Self {
        let (request_id, model) = (request_id.to_string(), model.to_string());
        let (items, left_out) = (all(items), all(left_out));
        Self { request_id, user_id, as_of, epoch, model, stale, fallback, items, left_out }
    }
}

impl From<Placed> for proto::RankedItem {
    fn from(Placed { item_id, score, source, reason, known, terms }: Placed) -> Self {
        Self { item_id, score, source: source.to_string(), reason, known, terms: named(terms.unwrap_or_default()) }
    }
}

impl From<LeftOut> for proto::LeftOutItem {
    fn from(LeftOut { item_id, why, .. }: LeftOut) -> Self {
        Self { item_id, why: why.to_string() }
    }
}

impl From<Of<'_, NeighboursView>> for proto::ItemNeighbours {
    fn from(Of { item_id, stale, rest, .. }: Of<'_, NeighboursView>) -> Self {
        let NeighboursView { as_of, epoch, neighbours } = rest;
        let view = |NeighbourView { item_id, similarity, users }| proto::ItemNeighbour { item_id, similarity, users };
        let neighbours = neighbours.into_iter().map(view).collect();
        Self { item_id: item_id.unwrap_or_default().to_string(), stale, as_of, epoch, neighbours }
    }
}

impl From<Of<'_, TrendingView>> for proto::Trending {
    fn from(Of { stale, rest, .. }: Of<'_, TrendingView>) -> Self {
        let TrendingView { scope, as_of, epoch, items } = rest;
        let items = items.into_iter().map(|Scored { item_id, score }| proto::TrendingItem { item_id, score }).collect();
        Self { scope, stale, as_of, epoch, items }
    }
}

impl From<WindowView> for proto::WindowCounts {
    fn from(WindowView { counts, weighted }: WindowView) -> Self {
        Self { counts: named(counts), weighted }
    }
}

impl From<Rates> for proto::Rates {
    fn from(Rates { ctr, engagement }: Rates) -> Self {
        Self { ctr, engagement }
    }
}

impl From<FeaturesView> for proto::Features {
    fn from(FeaturesView { as_of, epoch, windows, velocity, decayed, rates }: FeaturesView) -> Self {
        let (id, stale, windows, rates) = (String::new(), None, named(windows), Some(rates.into()));
        Self { id, stale, as_of, epoch, windows, velocity, decayed, rates }
    }
}

impl From<Of<'_, FeaturesView>> for proto::Features {
    fn from(Of { user_id, item_id, stale, rest }: Of<'_, FeaturesView>) -> Self {
        Self { id: user_id.or(item_id).unwrap_or_default().to_string(), stale, ..rest.into() }
    }
}

impl From<InterestsView> for proto::UserInterests {
    fn from(InterestsView { as_of, epoch, short, long, drift }: InterestsView) -> Self {
        Self { user_id: String::new(), stale: None, as_of, epoch, short: named(short), long: named(long), drift }
    }
}

impl From<Of<'_, InterestsView>> for proto::UserInterests {
    fn from(Of { user_id, stale, rest, .. }: Of<'_, InterestsView>) -> Self {
        Self { user_id: user_id.unwrap_or_default().to_string(), stale, ..rest.into() }
    }
}

impl From<Of<'_, Activity>> for proto::UserActivity {
    fn from(Of { user_id, stale, rest: Activity { features, latest }, .. }: Of<'_, Activity>) -> Self {
        let FeaturesView { as_of, epoch, windows, velocity, decayed, rates } = features;
        let (user_id, windows, rates) = (user_id.unwrap_or_default().to_string(), named(windows), Some(rates.into()));
        Self { user_id, stale, as_of, epoch, windows, velocity, decayed, rates, latest: all(latest) }
    }
}

impl From<Seen> for proto::SeenItem {
    fn from(Seen { item_id, at }: Seen) -> Self {
        Self { item_id, at }
    }
}

impl From<Of<'_, Insights>> for proto::UserInsights {
    fn from(Of { user_id, stale, rest, .. }: Of<'_, Insights>) -> Self {
        let Insights { as_of, epoch, drift, interests, sources, reasons } = rest;
        let (user_id, interests) = (user_id.unwrap_or_default().to_string(), all(interests));
        Self { user_id, stale, as_of, epoch, drift, interests, sources: named(sources), reasons }
    }
}

impl From<Interest> for proto::Interest {
    fn from(Interest { token, short, long, change }: Interest) -> Self {
        Self { token, short, long, change }
    }
}

impl From<Of<'_, Export>> for proto::UserExport {
    fn from(Of { user_id, rest, .. }: Of<'_, Export>) -> Self {
        let Export { exported_at, features, interests, profile, slate, surfaces, seen } = rest;
        Self {
            user_id: user_id.unwrap_or_default().to_string(),
            exported_at,
            features: features.map(Into::into),
            interests: interests.map(Into::into),
            profile: profile.map(Into::into),
            slate: slate.map(Into::into),
            surfaces: named(surfaces),
            seen: all(seen),
        }
    }
}

impl From<ProfileView> for proto::Profile {
    fn from(of: ProfileView) -> Self {
        Self {
            as_of: of.as_of,
            epoch: of.epoch,
            lat: of.lat,
            lon: of.lon,
            city: of.city.unwrap_or_default(),
            local_preference: of.local_preference,
            total_watch_hours: of.total_watch_hours,
            language: of.language.unwrap_or_default(),
            mature: of.mature,
            hidden_authors: all(of.hidden_authors),
            hidden_items: all(of.hidden_items),
        }
    }
}

impl From<Kept> for proto::UserSlate {
    fn from(kept: Kept) -> Self {
        let SlateView { as_of, epoch, model, experiment, variant, items, history, taken } = kept.view();
        let [model, experiment, variant] = [model, experiment, variant].map(str::to_string);
        Self { as_of, epoch, model, experiment, variant, items: all(items), history: all(history), taken }
    }
}

impl From<Taken<'_>> for proto::TakenItem {
    fn from(Taken { item_id, interaction }: Taken<'_>) -> Self {
        Self { item_id: item_id.to_string(), interaction: interaction.to_string() }
    }
}

impl From<All> for proto::Experiments {
    fn from(All { as_of, epoch, experiments }: All) -> Self {
        Self { as_of, epoch, experiments: all(experiments) }
    }
}

impl From<One> for proto::Experiments {
    fn from(One { as_of, epoch, experiment }: One) -> Self {
        Self { as_of, epoch, experiments: vec![experiment.into()] }
    }
}

impl From<View> for proto::Experiment {
    fn from(View { name, rollout, cohort, began, arms }: View) -> Self {
        Self { name, rollout, began, arms: all(arms), cohort: cohort.map(Into::into) }
    }
}

impl From<Whom> for proto::Cohort {
    fn from(Whom { languages, cities, interests, users }: Whom) -> Self {
        Self { languages, cities, interests, users }
    }
}

impl From<ArmView> for proto::Arm {
    fn from(of: ArmView) -> Self {
        Self {
            name: of.name,
            ranks: of.ranks,
            users: of.users,
            impressions: of.impressions,
            clicks: of.clicks,
            taken: of.taken,
            dwell_seconds: of.dwell_seconds,
            ctr: of.ctr.map(Into::into),
            engagement_seconds: of.engagement_seconds.map(Into::into),
            taken_per_user: of.taken_per_user.map(Into::into),
            verdict: of.verdict.map_or("", Verdict::name).to_string(),
        }
    }
}

impl From<Measure> for proto::Measure {
    fn from(Measure { estimate, difference }: Measure) -> Self {
        let Estimate { value, interval } = estimate;
        Self { value, interval: interval.into_iter().flatten().collect(), difference: difference.map(Into::into) }
    }
}

impl From<Difference> for proto::Difference {
    fn from(Difference { estimate: Estimate { value, interval }, verdict }: Difference) -> Self {
        Self { value, interval: interval.into_iter().flatten().collect(), verdict: verdict.name().to_string() }
    }
}

impl From<Models> for proto::Models {
    fn from(Models { status, versions, training }: Models) -> Self {
        let Status { serving, digest, created_at, served_before, refused_epoch, as_of, epoch } = status;
        let [digest, served_before] = [digest, served_before].map(Option::unwrap_or_default);
        let (versions, training) = (all(versions), Some(training.into()));
        Self { serving, digest, created_at, served_before, refused_epoch, as_of, epoch, versions, training }
    }
}

impl From<VersionView> for proto::ModelVersion {
    fn from(VersionView { name, serves, model, digest, created_at, figures, unusable }: VersionView) -> Self {
        let [model, digest, unusable] = [model, digest, unusable].map(Option::unwrap_or_default);
        Self { name, serves, model, digest, created_at, figures: figures.map(Into::into), unusable }
    }
}

impl From<Figures> for proto::Figures {
    fn from(Figures { examples, held_out_from_ms, ndcg_10, auc }: Figures) -> Self {
        let (low, high) = ndcg_10.ahead;
        Self {
            examples: Some(proto::Examples { earlier: examples.earlier, held_out: examples.held_out }),
            held_out_from_ms,
            ndcg_10: Some(proto::Ndcg { model: ndcg_10.model, blend: ndcg_10.blend, ahead: vec![low, high] }),
            auc: Some(proto::Auc { model: auc.model, blend: auc.blend }),
        }
    }
}

impl From<TrainingView> for proto::Training {
    fn from(TrainingView { enabled, asked, running, last, next_ms, taken_back }: TrainingView) -> Self {
        let asked = all(asked.into_iter().map(Recipe::name));
        let (running, last, taken_back) = (running.map(Into::into), last.map(Into::into), taken_back.map(Into::into));
        Self { enabled, asked, running, last, next_ms, taken_back }
    }
}

impl From<Doing> for proto::RunningTraining {
    fn from(Doing { model, began_ms, done, what }: Doing) -> Self {
        Self { model: model.name().to_string(), began_ms, done, what }
    }
}

impl From<Attempt> for proto::EndedTraining {
    fn from(Attempt { model, began_ms, ended_ms, version, figures, promoted, why }: Attempt) -> Self {
        let (model, version, figures) = (model.name().to_string(), version.unwrap_or_default(), figures.map(Into::into));
        Self { model, began_ms, ended_ms, version, figures, promoted, why }
    }
}

impl From<TakenBack> for proto::TakenBack {
    fn from(TakenBack { version, why }: TakenBack) -> Self {
        Self { version, why }
    }
}

impl From<Stats> for proto::Stats {
    fn from(of: Stats) -> Self {
        Self {
            store: of.store.to_string(),
            epoch: of.epoch,
            tick_epoch: of.tick_epoch,
            as_of: of.as_of,
            watermark: of.watermark,
            lag_ms: of.lag_ms,
            rebuilding: of.rebuilding,
            uptime_ms: of.uptime_ms,
            keys: of.keys.unwrap_or_default().into_iter().map(|(family, keys)| (family, keys as u64)).collect(),
            recent_users: of.recent_users,
        }
    }
}

impl From<Progress> for proto::Progress {
    fn from(Progress { applied, everywhere, as_of, epoch }: Progress) -> Self {
        Self { applied, everywhere, as_of, epoch }
    }
}

impl From<Receipt> for proto::Receipt {
    fn from(Receipt { accepted, rejected, token }: Receipt) -> Self {
        let place = |Rejected { index, reason }| proto::Rejected { index: index as u64, reason };
        Self { accepted: accepted as u64, rejected: rejected.into_iter().map(place).collect(), token }
    }
}
