//! What other systems call our kinds: one table. A name that is in neither list is refused, never guessed.

use super::text::shown;
use crate::model::Kind;

/// Other systems' names. `play` and `watch` say that it began, so they are views; `complete` and `watched` say that it ended.
pub const ALIASES: &[(&str, Kind)] = &[
    ("read", Kind::View),
    ("open", Kind::View),
    ("visit", Kind::View),
    ("play", Kind::View),
    ("watch", Kind::View),
    ("pageview", Kind::View),
    ("page_view", Kind::View),
    ("star", Kind::Like),
    ("heart", Kind::Like),
    ("favorite", Kind::Like),
    ("favourite", Kind::Like),
    ("upvote", Kind::Like),
    ("thumbs_up", Kind::Like),
    ("reply", Kind::Comment),
    ("repost", Kind::Share),
    ("retweet", Kind::Share),
    ("reshare", Kind::Share),
    ("subscribe", Kind::Follow),
    ("save", Kind::Bookmark),
    ("tap", Kind::Click),
    ("time_spent", Kind::Dwell),
    ("complete", Kind::Completion),
    ("completed", Kind::Completion),
    ("finish", Kind::Completion),
    ("watched", Kind::Completion),
    ("exposure", Kind::Impression),
    ("shown", Kind::Impression),
    ("swipe", Kind::Skip),
    ("dislike", Kind::NotInterested),
    ("downvote", Kind::NotInterested),
    ("thumbs_down", Kind::NotInterested),
    ("not-interested", Kind::NotInterested),
    ("dismiss", Kind::Hide),
    ("mute", Kind::MuteAuthor),
    ("block", Kind::BlockAuthor),
    ("flag", Kind::Report),
    ("buy", Kind::Purchase),
    ("order", Kind::Purchase),
    ("rate", Kind::Rating),
];

/// The kind of a name or an alias, in any case. The error lists every kind.
pub fn kind(name: &str) -> Result<Kind, String> {
    let own = Kind::parse(name).or_else(|| Kind::ALL.into_iter().find(|k| k.name().eq_ignore_ascii_case(name)));
    let alias = || ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name)).map(|(_, kind)| *kind);
    own.or_else(alias).ok_or_else(|| format!("unknown type `{}`; known: {}", shown(name), known()))
}

/// Every kind's name, for an error.
pub(super) fn known() -> String {
    Kind::ALL.map(Kind::name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_means_one_kind() {
        for (i, (alias, expected)) in ALIASES.iter().enumerate() {
            assert_eq!(kind(alias), Ok(*expected));
            assert_eq!(Kind::parse(alias), None, "{alias} is a name of its own");
            assert!(!ALIASES[..i].iter().any(|(other, _)| other == alias), "{alias} stands twice");
        }
        assert_eq!(kind("Not_Interested"), Ok(Kind::NotInterested));
        assert_eq!(kind("WATCH"), Ok(Kind::View));
        assert!(kind("stare").expect_err("unknown").starts_with("unknown type `stare`; known: view, like, comment,"));
    }
}
