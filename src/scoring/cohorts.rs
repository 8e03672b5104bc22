//! For whom an experiment is: what its settings ask of a user, and who answers that. Pure.
//!
//! The facts that must stay true: every criterion that is given must hold, one that is not given lets everybody through; and what is
//! asked is who somebody is and what they last said of themselves, never what they did: no undo takes anybody in or out.

use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

use crate::model::catalogue::{Tokens, User};
use crate::model::experiment::Whom;
use crate::model::ids::TokenKind;
use crate::model::{TokenId, UserId};

/// `cohort` of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    pub languages: Option<Vec<String>>,
    /// However they are written: `Munich` is `munich`.
    pub cities: Option<Vec<String>>,
    /// One of them, as profiles name them: `jazz` is the category or the tag.
    pub interests: Option<Vec<String>>,
    /// Nobody but these.
    pub users: Option<Vec<String>>,
}

/// The same, with names as ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Params", into = "Params")]
pub struct Cohort {
    params: Params,
    languages: Vec<TokenId>,
    cities: Vec<TokenId>,
    interests: Vec<TokenId>,
    users: Vec<UserId>,
}

/// Of a profile, what cohorts ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traits {
    pub language: Option<TokenId>,
    pub city: Option<TokenId>,
    pub interests: Tokens,
}

impl Traits {
    /// Of what a user said.
    pub fn of(said: &User) -> Self {
        let city = said.city.as_deref().map(TokenId::city);
        Self { language: said.language, city, interests: said.interests.clone() }
    }
}

impl From<Params> for Cohort {
    fn from(params: Params) -> Self {
        let tokens = |names: &Option<Vec<String>>, tokens: &dyn Fn(&str) -> Vec<TokenId>| {
            sorted(names.iter().flatten().flat_map(|name| tokens(name)).collect())
        };
        let interest = |word: &str| {
            let (kinds, name) = TokenKind::of_interest(word);
            kinds.iter().map(|kind| TokenId::typed(*kind, name)).collect()
        };
        Self {
            languages: tokens(&params.languages, &|name| vec![TokenId::typed(TokenKind::Language, name)]),
            cities: tokens(&params.cities, &|name| vec![TokenId::city(name)]),
            interests: tokens(&params.interests, &interest),
            users: sorted(params.users.iter().flatten().map(|name| UserId::of(name)).collect()),
            params,
        }
    }
}

impl From<Cohort> for Params {
    fn from(cohort: Cohort) -> Self {
        cohort.params
    }
}

fn sorted<T: Ord>(mut all: Vec<T>) -> Vec<T> {
    all.sort_unstable();
    all.dedup();
    all
}

impl Cohort {
    /// As the settings spell it.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Whether nothing is asked.
    pub fn is_everybody(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this user belongs to it, who said this.
    pub fn has(&self, user: UserId, said: &Traits) -> bool {
        let one_of = |asked: &[TokenId], said: &[TokenId]| asked.is_empty() || said.iter().any(|token| asked.contains(token));
        self.may_have(user)
            && one_of(&self.languages, said.language.as_slice())
            && one_of(&self.cities, said.city.as_slice())
            && one_of(&self.interests, &said.interests)
    }

    /// Whether this user belongs to it or would, had they said something else.
    pub fn may_have(&self, user: UserId) -> bool {
        self.users.is_empty() || self.users.binary_search(&user).is_ok()
    }

    /// Whether it depends on what somebody said.
    pub fn asks_profiles(&self) -> bool {
        [&self.languages, &self.cities, &self.interests].iter().any(|asked| !asked.is_empty())
    }

    /// Adds what it asks, the same for cohorts that ask the same; nothing for everybody.
    pub fn spell(&self, text: &mut String) {
        for (what, asked) in [("languages", &self.languages), ("cities", &self.cities), ("interests", &self.interests)] {
            asked.iter().for_each(|token| _ = write!(text, "\n{what} {:x}", token.0));
        }
        self.users.iter().for_each(|user| _ = write!(text, "\nusers {:x}", user.0));
    }

    /// What readers are told: the criteria, and of users how many there are.
    pub fn whom(&self) -> Option<Whom> {
        let Params { languages, cities, interests, users } = self.params.clone();
        let [languages, cities, interests] = [languages, cities, interests].map(Option::unwrap_or_default);
        let whom = Whom { languages, cities, interests, users: users.map(|users| users.len() as u32) };
        (!self.is_everybody()).then_some(whom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Option<Vec<String>> {
        Some(of.iter().map(|name| name.to_string()).collect())
    }

    fn said(language: &str, city: &str, interests: &[(TokenKind, &str)]) -> Traits {
        Traits::of(&User {
            language: Some(TokenId::typed(TokenKind::Language, language)),
            city: Some(city.into()),
            interests: interests.iter().map(|(kind, name)| TokenId::typed(*kind, name)).collect(),
            ..User::default()
        })
    }

    #[test]
    fn c29_every_criterion_that_is_given_must_hold() {
        let ann = UserId::of("ann");
        let jazz = said("de", " MUNICH", &[(TokenKind::Tag, "jazz")]);
        let everything = Params {
            languages: names(&["de", "fr"]),
            cities: names(&["Munich"]),
            interests: names(&["rock", "jazz"]),
            users: names(&["bob", "ann"]),
        };
        let has = |change: &dyn Fn(&mut Params), user, said: &Traits| {
            let mut params = everything.clone();
            change(&mut params);
            Cohort::from(params).has(user, said)
        };
        assert!(has(&|_| {}, ann, &jazz));
        let cases: [(&str, &dyn Fn(&mut Params)); 5] = [
            ("another language", &|of| of.languages = names(&["en"])),
            ("another city", &|of| of.cities = names(&["Rome"])),
            ("other interests", &|of| of.interests = names(&["rock"])),
            ("a tag is no category", &|of| of.interests = names(&["category:jazz"])),
            ("other users", &|of| of.users = names(&["bob"])),
        ];
        for (why, change) in cases {
            assert!(!has(change, ann, &jazz), "{why}");
        }
        assert!(!has(&|_| {}, ann, &Traits::default()), "of whom nothing is known they did not say that");
        assert!(has(&|of| *of = Params { users: names(&["ann"]), ..Params::default() }, ann, &Traits::default()));
        assert!(has(&|of| of.interests = names(&["#jazz"]), ann, &jazz));
        let everybody = Cohort::default();
        assert!(everybody.has(ann, &jazz) && everybody.has(ann, &Traits::default()) && everybody.is_everybody());
    }

    #[test]
    fn c29_who_may_belong_is_known_without_a_profile() {
        let [ann, bob] = ["ann", "bob"].map(UserId::of);
        let by_name = Cohort::from(Params { languages: names(&["de"]), users: names(&["ann"]), ..Params::default() });
        assert_eq!([by_name.may_have(ann), by_name.may_have(bob)], [true, false]);
        let by_language = Cohort::from(Params { languages: names(&["de"]), ..Params::default() });
        assert!(by_language.may_have(ann) && by_language.asks_profiles());
        assert!(!Cohort::from(Params { users: names(&["ann"]), ..Params::default() }).asks_profiles());
    }

    #[test]
    fn cohorts_that_ask_the_same_are_spelt_the_same() {
        let spelt = |params: Params| {
            let mut text = String::new();
            Cohort::from(params).spell(&mut text);
            text
        };
        let of = |languages: &[&str], cities: &[&str]| {
            spelt(Params { languages: names(languages), cities: names(cities), ..Params::default() })
        };
        assert_eq!(of(&["de", "en"], &["Rome"]), of(&["en", "de"], &["rome "]));
        assert_ne!(of(&["de"], &["Rome"]), of(&["en"], &["Rome"]));
        assert_ne!(spelt(Params { languages: names(&["x"]), ..Params::default() }), spelt(Params::default()));
        assert_eq!(spelt(Params::default()), "");
    }

    #[test]
    fn readers_are_told_how_many_users_are_named_and_not_which() {
        let cohort = Cohort::from(Params { cities: names(&["Rome"]), users: names(&["ann", "bob"]), ..Params::default() });
        let whom = Whom { cities: vec!["Rome".into()], users: Some(2), ..Whom::default() };
        assert_eq!((cohort.whom(), Cohort::default().whom()), (Some(whom), None));
    }
}
