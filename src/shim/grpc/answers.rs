//! What a query answers, as the message of it.

use super::proto;
use crate::shim::feed::{Page, Shown};
use crate::shim::queries::feeds::Feed;
use crate::shim::queries::ingest::{Receipt, Rejected};
use crate::shim::queries::views::{FeaturesView, NeighbourView, NeighboursView, Of, Scored, TrendingView, WindowView};

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
            items: items.into_iter().map(Into::into).collect(),
            cursor,
        }
    }
}

impl From<Shown<'_>> for proto::FeedItem {
    fn from(Shown { item_id, score, source, reason, distance_km, terms }: Shown<'_>) -> Self {
        let terms = terms.unwrap_or_default().into_iter().map(|(name, term)| (name.to_string(), term)).collect();
        let (item_id, source, reason) = (item_id.to_string(), source.to_string(), reason.into_owned());
        Self { item_id, score, source, reason, distance_km, terms }
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

impl From<Of<'_, FeaturesView>> for proto::Features {
    fn from(Of { user_id, item_id, stale, rest }: Of<'_, FeaturesView>) -> Self {
        let FeaturesView { as_of, epoch, windows, velocity, decayed, rates } = rest;
        let counts = |WindowView { counts, weighted }: WindowView| {
            let counts = counts.into_iter().map(|(kind, n)| (kind.to_string(), n)).collect();
            proto::WindowCounts { counts, weighted }
        };
        Self {
            id: user_id.or(item_id).unwrap_or_default().to_string(),
            stale,
            as_of,
            epoch,
            windows: windows.into_iter().map(|(window, view)| (window.to_string(), counts(view))).collect(),
            velocity,
            decayed,
            rates: Some(proto::Rates { ctr: rates.ctr, engagement: rates.engagement }),
        }
    }
}

impl From<Receipt> for proto::Receipt {
    fn from(Receipt { accepted, rejected, token }: Receipt) -> Self {
        let place = |Rejected { index, reason }| proto::Rejected { index: index as u64, reason };
        Self { accepted: accepted as u64, rejected: rejected.into_iter().map(place).collect(), token }
    }
}
