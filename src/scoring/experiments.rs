//! Who takes part in which experiment, in which arm, and by what that arm ranks. Pure.
//!
//! The facts that must stay true: a draw knows the user and names alone, and who belongs to a cohort is known from what they last said,
//! so whoever asks at one moment is told the same; a greater rollout takes users in and moves nobody from arm to arm; and nobody is in
//! two experiments: the first of the list that is for them and draws them has them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

use super::cohorts::{Cohort, Traits};
use super::ranker::Model;
use crate::model::catalogue::User;
use crate::model::ids::lot_of;
use crate::model::{UserId, Variant};

/// `[experiments]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub list: Vec<Experiment>,
    /// The versions that arms name, once they were read.
    #[serde(skip)]
    pub versions: BTreeMap<Arc<str>, Model>,
}

/// `[[experiments.list]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    pub name: String,
    /// The share of the users who take part.
    pub rollout: f64,
    /// Whom it is for; for others it is as if it were not there.
    #[serde(default, skip_serializing_if = "Cohort::is_everybody")]
    pub cohort: Cohort,
    pub arms: Vec<Arm>,
}

/// An entry of `arms`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    pub name: String,
    /// Its part of those who take part, beside the weights of the others.
    pub weight: f64,
    pub ranks: Ranks,
}

/// By what candidates are ordered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Ranks {
    /// The weights of `[blend]`, also where a learned blend serves.
    Fixed,
    /// The learned blend, or the weights of `[blend]` where there is none.
    Blend,
    /// The model that serves, whatever `[ranker] share` says.
    Model,
    /// This version of the registry.
    Version(Arc<str>),
}

impl From<String> for Ranks {
    fn from(name: String) -> Self {
        match name.as_str() {
            "fixed" => Self::Fixed,
            "blend" => Self::Blend,
            "model" => Self::Model,
            _ => Self::Version(name.into()),
        }
    }
}

impl From<Ranks> for String {
    fn from(ranks: Ranks) -> Self {
        ranks.name().to_string()
    }
}

impl Ranks {
    /// As the settings spell it.
    pub fn name(&self) -> &str {
        match self {
            Self::Fixed => "fixed",
            Self::Blend => "blend",
            Self::Model => "model",
            Self::Version(name) => name,
        }
    }
}

/// Where a user is: the experiment's place in the list, and the arm's in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    pub experiment: u16,
    pub arm: u16,
}

impl Params {
    /// Where a user is who last said this of themselves; `None`: in no experiment.
    pub fn place(&self, user: UserId, said: Option<&User>) -> Option<Place> {
        let asked = self.list.iter().any(|experiment| experiment.cohort.asks_profiles());
        self.place_by(user, &said.filter(|_| asked).map(Traits::of).unwrap_or_default())
    }

    /// The same, of whom that is known which cohorts ask for.
    pub fn place_by(&self, user: UserId, said: &Traits) -> Option<Place> {
        let has = |at: &usize| self.list[*at].cohort.has(user, said);
        (0..self.list.len()).filter(has).find_map(|at| self.drawn_by(at, user))
    }

    /// Where a user is in this experiment of the list, if it is for them; `None`: it does not draw them.
    pub fn drawn_by(&self, experiment: usize, user: UserId) -> Option<Place> {
        let arm = self.list[experiment].draw(user)?;
        Some(Place { experiment: experiment as u16, arm: arm as u16 })
    }

    /// Whether there is an experiment that this user is in, or would be, had they said something else of themselves.
    pub fn may_have(&self, user: UserId) -> bool {
        self.list.iter().any(|experiment| experiment.cohort.may_have(user) && experiment.draw(user).is_some())
    }

    /// The arm in this place.
    pub fn arm(&self, place: Place) -> &Arm {
        &self.list[usize::from(place.experiment)].arms[usize::from(place.arm)]
    }

    /// The versions that arms name, each once.
    pub fn named(&self) -> Vec<Arc<str>> {
        let arms = self.list.iter().flat_map(|experiment| &experiment.arms);
        let mut named: Vec<Arc<str>> =
            arms.filter_map(|arm| if let Ranks::Version(name) = &arm.ranks { Some(name.clone()) } else { None }).collect();
        named.sort();
        named.dedup();
        named
    }

    /// What readers are told of each place.
    pub fn variants(&self) -> Vec<Vec<Arc<Variant>>> {
        let variant =
            |experiment: &Experiment, arm: &Arm| Arc::new(Variant { experiment: experiment.name.clone(), arm: arm.name.clone() });
        self.list.iter().map(|of| of.arms.iter().map(|arm| variant(of, arm)).collect()).collect()
    }

    /// Of everything that decides where users are and by what they are ranked.
    pub fn digest(&self) -> u64 {
        let mut text = String::new();
        for experiment in &self.list {
            let _ = writeln!(text, "{:016x} {:x}", experiment.digest(), experiment.rollout.to_bits());
        }
        xxh3_64(text.as_bytes())
    }
}

impl Experiment {
    /// The arm that draws a user it is for; `None`: they do not take part.
    fn draw(&self, user: UserId) -> Option<usize> {
        if lot_of(user, &self.name) >= self.rollout {
            return None;
        }
        let sum: f64 = self.arms.iter().map(|arm| arm.weight).sum();
        let drawn = lot_of(UserId(!user.0), &self.name) * sum; // another draw than the one of who takes part
        let mut below = 0.0;
        let arm = self.arms.iter().position(|arm| {
            below += arm.weight;
            drawn < below
        });
        Some(arm.unwrap_or(self.arms.len().saturating_sub(1)))
    }

    /// Of its name, its cohort and its arms: what was counted under another one says nothing of this.
    pub fn digest(&self) -> u64 {
        let mut text = self.name.clone();
        self.cohort.spell(&mut text);
        for arm in &self.arms {
            let _ = write!(text, "\n{} {:x} {}", arm.name, arm.weight.to_bits(), arm.ranks.name());
        }
        xxh3_64(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::super::cohorts;
    use super::*;
    use crate::model::TokenId;
    use crate::model::ids::TokenKind;

    const USERS: u64 = 20_000;

    fn experiment(name: &str, rollout: f64, weights: &[f64]) -> Experiment {
        let arm = |(at, weight): (usize, &f64)| Arm { name: format!("arm{at}"), weight: *weight, ranks: Ranks::Blend };
        let arms = weights.iter().enumerate().map(arm).collect();
        Experiment { name: name.into(), rollout, cohort: Cohort::default(), arms }
    }

    fn params(list: Vec<Experiment>) -> Params {
        Params { list, versions: BTreeMap::new() }
    }

    fn of_language(name: &str) -> Cohort {
        cohorts::Params { languages: Some(vec![name.into()]), ..cohorts::Params::default() }.into()
    }

    fn speaks(name: &str) -> User {
        User { language: Some(TokenId::typed(TokenKind::Language, name)), ..User::default() }
    }

    fn places(list: Vec<Experiment>) -> Vec<Option<Place>> {
        let params = params(list);
        (0..USERS).map(|n| params.place(UserId::of(&format!("u{n}")), None)).collect()
    }

    fn share(places: &[Option<Place>], of: impl Fn(&Place) -> bool) -> f64 {
        places.iter().flatten().filter(|place| of(place)).count() as f64 / USERS as f64
    }

    #[test]
    fn users_are_drawn_by_rollout_and_weights() {
        let drawn = places(vec![experiment("a", 0.5, &[1.0, 3.0])]);
        let (first, second) = (share(&drawn, |place| place.arm == 0), share(&drawn, |place| place.arm == 1));
        assert!((first - 0.125).abs() < 0.01 && (second - 0.375).abs() < 0.015, "{first} {second}");
        assert_eq!(share(&places(vec![experiment("a", 1.0, &[1.0, 1.0])]), |_| true), 1.0);
        assert_eq!(share(&places(vec![experiment("a", 0.0, &[1.0, 1.0])]), |_| true), 0.0);
        assert!(places(vec![]).iter().all(Option::is_none));
    }

    #[test]
    fn a_greater_rollout_takes_in_and_moves_nobody() {
        let at = |rollout| places(vec![experiment("a", rollout, &[1.0, 1.0])]);
        let (tenth, half, all) = (at(0.1), at(0.5), at(1.0));
        for (few, many) in [(&tenth, &half), (&half, &all)] {
            assert!(few.iter().zip(many).all(|(few, many)| few.is_none() || few == many));
            assert!(share(few, |_| true) < share(many, |_| true));
        }
        let arms = share(&tenth, |place| place.arm == 0) / share(&tenth, |_| true);
        assert!((arms - 0.5).abs() < 0.04, "who takes part says nothing of the arm: {arms}");
    }

    #[test]
    fn draws_of_two_names_know_nothing_of_each_other() {
        let (a, b) = (places(vec![experiment("a", 0.5, &[1.0, 1.0])]), places(vec![experiment("b", 0.5, &[1.0, 1.0])]));
        let both: Vec<_> = a.iter().zip(&b).filter_map(|(a, b)| Some(((*a)?, (*b)?))).collect();
        assert!((both.len() as f64 / USERS as f64 - 0.25).abs() < 0.015, "{}", both.len());
        let same = both.iter().filter(|(a, b)| a.arm == b.arm).count() as f64 / both.len() as f64;
        assert!((same - 0.5).abs() < 0.03, "{same}");
    }

    #[test]
    fn nobody_is_in_two_experiments() {
        let (a, b) = (experiment("a", 0.4, &[1.0, 1.0]), experiment("b", 0.5, &[1.0, 1.0]));
        let (alone, together) = (places(vec![a.clone()]), places(vec![a.clone(), b.clone()]));
        assert!(alone.iter().zip(&together).all(|(alone, together)| alone.is_none() || alone == together));
        let second = share(&together, |place| place.experiment == 1);
        assert!((second - 0.3).abs() < 0.015, "half of the others: {second}");
        let (one, other) = (params(vec![a.clone(), b.clone()]), params(vec![b, a]));
        assert_ne!(one.digest(), other.digest());
    }

    /// Whoever is not of its cohort goes on to the next as if it were not there; whoever is, is drawn as without one.
    #[test]
    fn c29_an_experiment_is_not_there_for_who_is_not_of_its_cohort() {
        let (a, b) = (experiment("a", 0.5, &[1.0, 1.0]), experiment("b", 0.8, &[1.0, 2.0]));
        let limited = Experiment { cohort: of_language("de"), ..a.clone() };
        let (with, without) = (params(vec![limited, b.clone()]), params(vec![a, b.clone()]));
        let (alone, second) = (params(vec![b]), |place: Place| Place { experiment: 1, ..place });
        let (german, english) = (speaks("de"), speaks("en"));
        for user in (0..USERS).map(|n| UserId::of(&format!("u{n}"))) {
            assert_eq!(with.place(user, Some(&german)), without.place(user, None));
            for said in [None, Some(&english)] {
                assert_eq!(with.place(user, said), alone.place(user, None).map(second));
            }
            let anywhere = [None, Some(&german)].iter().any(|said| with.place(user, *said).is_some());
            assert_eq!(with.may_have(user), anywhere);
        }
    }

    #[test]
    fn what_decides_is_in_the_digest() {
        let good = experiment("a", 0.5, &[1.0, 1.0]);
        let changed = |change: &dyn Fn(&mut Experiment)| {
            let mut other = good.clone();
            change(&mut other);
            (other.digest() != good.digest(), params(vec![other]).digest() != params(vec![good.clone()]).digest())
        };
        assert_eq!(changed(&|_| {}), (false, false));
        assert_eq!(changed(&|e| e.rollout = 0.6), (false, true), "who was counted goes on being counted");
        assert_eq!(changed(&|e| e.name.push('b')), (true, true));
        assert_eq!(changed(&|e| e.cohort = of_language("de")), (true, true));
        assert_eq!(changed(&|e| e.arms[1].weight = 2.0), (true, true));
        assert_eq!(changed(&|e| e.arms[0].name.push('b')), (true, true));
        assert_eq!(changed(&|e| e.arms[0].ranks = Ranks::Model), (true, true));
    }

    #[test]
    fn ranks_are_spelt_as_they_are_read() {
        for name in ["fixed", "blend", "model", "lr-7"] {
            assert_eq!(String::from(Ranks::from(name.to_string())), name);
        }
        let mut two = params(vec![experiment("a", 1.0, &[1.0, 1.0, 1.0])]);
        two.list[0].arms[1].ranks = Ranks::Version("lr-7".into());
        two.list[0].arms[2].ranks = Ranks::Version("lr-7".into());
        assert_eq!(two.named(), [Arc::<str>::from("lr-7")]);
        let variant = Variant { experiment: "a".into(), arm: "arm1".into() };
        assert_eq!(*two.variants()[0][1], variant);
    }
}
