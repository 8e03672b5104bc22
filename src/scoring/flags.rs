//! What is switched on, and for which share of the users: drawn by their ids, so that a greater share takes users in and lets none go.

use serde::{Deserialize, Serialize};

use crate::model::UserId;
use crate::model::ids::lot_of;

/// `[flags]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub ml_recommendations: f64,
    pub personalized_feed: f64,
    pub engagement_ranking: f64,
}

/// What a user gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Orders that were learned; else the weights of `[blend]` and `[cold]`.
    pub ml: bool,
    /// A slate of their own; else what everybody gets.
    pub personal: bool,
    /// What others take, as trending and popular items; else new ones.
    pub engagement: bool,
}

impl Params {
    /// What this user gets.
    pub fn of(&self, user: UserId) -> Allowed {
        let drawn = |share: f64, name: &str| lot_of(user, name) < share;
        Allowed {
            ml: self.ml(user),
            personal: drawn(self.personalized_feed, "personalized_feed"),
            engagement: drawn(self.engagement_ranking, "engagement_ranking"),
        }
    }

    /// Whether what was learned may order this user's slate.
    pub fn ml(&self, user: UserId) -> bool {
        lot_of(user, "ml_recommendations") < self.ml_recommendations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(share: f64) -> Params {
        Params { ml_recommendations: share, personalized_feed: share, engagement_ranking: share }
    }

    #[test]
    fn c31_a_greater_share_only_adds_users() {
        let users: Vec<UserId> = (0..20_000).map(|n| UserId::of(&format!("u{n}"))).collect();
        let on = |share: f64| users.iter().map(|user| params(share).of(*user)).collect::<Vec<_>>();
        let count = |of: &[Allowed], on: fn(&Allowed) -> bool| of.iter().filter(|allowed| on(allowed)).count();
        let flags: [fn(&Allowed) -> bool; 3] = [|of| of.ml, |of| of.personal, |of| of.engagement];
        let (none, some, more, all) = (on(0.0), on(0.2), on(0.5), on(1.0));
        for flag in flags {
            assert_eq!((count(&none, flag), count(&all, flag)), (0, users.len()));
            assert!((count(&some, flag) as f64 / 20_000.0 - 0.2).abs() < 0.02);
            assert!(some.iter().zip(&more).all(|(before, after)| !flag(before) || flag(after)), "nobody is let go");
        }
        assert!(some.iter().any(|of| of.ml != of.personal), "each is drawn by itself");
    }
}
