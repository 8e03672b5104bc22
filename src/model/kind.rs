//! The kinds of interaction: what each is called, whether it counts as a set or a bag, and what it weighs.

use serde::{Deserialize, Serialize};

/// What a user did with an item. The order is part of the stored layouts: add at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Kind {
    View,
    Like,
    Comment,
    Share,
    Follow,
    Bookmark,
    Click,
    Scroll,
    Dwell,
    Completion,
    Impression,
    Skip,
    NotInterested,
    Hide,
    MuteAuthor,
    BlockAuthor,
    Report,
    Purchase,
    Rating,
}

use Kind::*;

impl Kind {
    /// Every kind, in stored order.
    pub const ALL: [Kind; 19] = [
        View,
        Like,
        Comment,
        Share,
        Follow,
        Bookmark,
        Click,
        Scroll,
        Dwell,
        Completion,
        Impression,
        Skip,
        NotInterested,
        Hide,
        MuteAuthor,
        BlockAuthor,
        Report,
        Purchase,
        Rating,
    ];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            View => "view",
            Like => "like",
            Comment => "comment",
            Share => "share",
            Follow => "follow",
            Bookmark => "bookmark",
            Click => "click",
            Scroll => "scroll",
            Dwell => "dwell",
            Completion => "completion",
            Impression => "impression",
            Skip => "skip",
            NotInterested => "not_interested",
            Hide => "hide",
            MuteAuthor => "mute_author",
            BlockAuthor => "block_author",
            Report => "report",
            Purchase => "purchase",
            Rating => "rating",
        }
    }

    /// The kind of this name; `None` when there is none.
    pub fn parse(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|k| k.name() == name)
    }

    /// Set semantics: a second one of the same user and item changes nothing. The others are bags.
    pub fn is_set(self) -> bool {
        matches!(self, Like | Follow | Bookmark) || self.is_negative()
    }

    /// A wish to see less.
    pub fn is_negative(self) -> bool {
        matches!(self, Skip | NotInterested | Hide | MuteAuthor | BlockAuthor | Report)
    }

    /// A sign of taste: it enters history, neighbours and interests. An impression was only shown.
    pub fn is_positive(self) -> bool {
        !self.is_negative() && self != Impression
    }

    /// The verb of a reason: "because you shared A".
    pub fn verb(self) -> &'static str {
        match self {
            View | Impression => "viewed",
            Like => "liked",
            Comment => "commented on",
            Share => "shared",
            Follow => "followed",
            Bookmark => "bookmarked",
            Click => "clicked",
            Scroll => "scrolled through",
            Dwell => "spent time on",
            Completion => "finished",
            Skip => "skipped",
            NotInterested => "were not interested in",
            Hide => "hid",
            MuteAuthor => "muted the author of",
            BlockAuthor => "blocked the author of",
            Report => "reported",
            Purchase => "bought",
            Rating => "rated",
        }
    }
}

/// What each kind weighs, in thousandths, by `Kind as usize`. Weights are data: sums are kept as counts and weighed when read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights(pub [i32; Kind::ALL.len()]);

impl Weights {
    /// The weight of one interaction of this kind, in thousandths.
    pub fn milli(&self, kind: Kind) -> i64 {
        i64::from(self.0[kind as usize])
    }

    /// The weighted sum of counts per kind, in thousandths.
    pub fn sum_milli<'a>(&self, counts: impl IntoIterator<Item = &'a (Kind, u32)>) -> i64 {
        counts.into_iter().map(|(k, n)| self.milli(*k) * i64::from(*n)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_order_is_fixed() {
        for (i, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, i);
            assert_eq!(Kind::parse(kind.name()), Some(kind));
        }
        assert_eq!(Kind::parse("stare"), None);
    }
}
