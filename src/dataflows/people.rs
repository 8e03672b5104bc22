//! What readers are told of each user, so that a request need only say who it is: where they are, what they speak, and whom they turned
//! away.
//!
//! The facts that must stay true: after an epoch what is told of a user is what their profile last said and what their muting and
//! blocking still come to; of whom nothing of this is known nothing is told, and what was is taken back, with whoever is forgotten; it
//! is told when it changes, and once in [`AGAIN_AFTER`](crate::operators::turns::AGAIN_AFTER), because a store lets go of what it does
//! not hear of.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use timely::dataflow::StreamVec;

use super::ledger::UserDelta;
use crate::model::catalogue::User;
use crate::model::changes::Profile;
use crate::model::ids::key_group;
use crate::model::{Change, Epoch, ItemId, TokenId, UserId};
use crate::operators::{Arrive, Clock, Durable, Saver, Turns, Vault};

/// The stage: what changed of users in, at their owner; what readers are told of them out.
pub fn people<'scope>(
    deltas: StreamVec<'scope, u64, Arc<UserDelta>>,
    clock: &Clock,
    vault: &Vault,
) -> StreamVec<'scope, u64, Change> {
    deltas.arrive().keep(clock, People::default(), vault, People::step)
}

/// A user by their key group.
type Place = (u16, UserId);

/// One user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Person {
    /// Of the profile, but for those they turned away since.
    said: Option<Profile>,
    /// Authors who were turned away, by the item it was done on.
    against: BTreeMap<ItemId, TokenId>,
}

/// The users of one worker.
#[derive(Default)]
pub(super) struct People {
    people: BTreeMap<Place, Arc<Person>>,
    turns: Turns,
}

impl People {
    fn step(&mut self, epoch: &Epoch, deltas: &mut Vec<Arc<UserDelta>>, out: &mut Vec<Change>) {
        let mut news = BTreeSet::new();
        for delta in deltas.drain(..) {
            let place = (key_group(delta.user.0), delta.user);
            if self.take(place, &delta) {
                news.insert(place);
            }
        }
        if let Some((from, to)) = epoch.retell {
            self.again(from, to, &mut news);
        }
        if epoch.tick() {
            self.turns.due(epoch.clock_ms).for_each(|group| self.again(group, group + 1, &mut news));
        }
        let known = |place: &Place| self.people.get(place).map(|person| Arc::new(person.known()));
        out.extend(news.into_iter().map(|place| Change::Profile(place.1, known(&place))));
    }

    /// Whether something else is to be told of the user now.
    fn take(&mut self, place: Place, delta: &UserDelta) -> bool {
        let before = self.people.get(&place);
        let speaks = |(item, touch): &(ItemId, Option<super::ledger::Touch>)| {
            touch.is_some_and(|touch| touch.against.is_some()) || before.is_some_and(|person| person.against.contains_key(item))
        };
        if delta.profile.is_none() && !delta.touches.iter().any(speaks) {
            return false;
        }
        let mut person = before.map(|person| (**person).clone()).unwrap_or_default();
        if let Some(profile) = &delta.profile {
            person.said = profile.as_deref().map(known);
        }
        for (item, touch) in &delta.touches {
            person.against.remove(item);
            person.against.extend(touch.and_then(|touch| touch.against).map(|author| (*item, author)));
        }
        let (was, is) = (before.map(|person| person.known()), person.known());
        let anything = person != Person::default();
        let news = was.as_ref() != anything.then_some(&is);
        match anything {
            true => drop(self.people.insert(place, Arc::new(person))),
            false => drop(self.people.remove(&place)),
        }
        news
    }

    fn again(&self, from: u16, to: u16, news: &mut BTreeSet<Place>) {
        news.extend(self.people.range((from, UserId(0))..(to, UserId(0))).map(|(place, _)| *place));
    }
}

impl Person {
    /// What is told of them.
    fn known(&self) -> Profile {
        let mut known = self.said.clone().unwrap_or_default();
        known.hidden_authors.extend(self.against.values());
        known.hidden_authors.sort_unstable();
        known.hidden_authors.dedup();
        known
    }
}

/// Of a profile, what readers need.
fn known(said: &User) -> Profile {
    let (mut hidden_authors, mut hidden_items) = (said.blocked_authors.clone(), said.blocked_items.clone());
    hidden_authors.sort_unstable();
    hidden_items.sort_unstable();
    hidden_items.dedup();
    Profile {
        lat: said.lat,
        lon: said.lon,
        city: said.city.clone(),
        local_preference: said.local_preference,
        total_watch_hours: said.total_watch_hours,
        language: said.language,
        mature: said.allow_mature,
        hidden_authors,
        hidden_items,
    }
}

impl Durable for People {
    const UID: &'static str = "people/2";

    fn save(&self, into: &mut Saver) {
        for ((_, user), person) in self.people.clone() {
            into.own(0, user.0, move || (user, person));
        }
        let turns = self.turns;
        into.shared(1, 0, move || turns);
    }

    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        match tag {
            0 => {
                let (user, person): (UserId, Arc<Person>) = postcard::from_bytes(body)?;
                self.people.insert((key_group(user.0), user), person);
            }
            _ => self.turns = postcard::from_bytes(body)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Touch;
    use super::*;
    use crate::model::epoch::Turn;
    use crate::model::time::{Millis, SECOND};
    use crate::operators::turns::AGAIN_AFTER;

    const ANN: UserId = UserId(7);

    fn said(city: &str) -> Option<Option<Arc<User>>> {
        let blocked_authors = vec![TokenId(5)];
        Some(Some(Arc::new(User {
            lat: Some(48.1),
            lon: Some(11.5),
            city: Some(city.into()),
            blocked_authors,
            ..User::default()
        })))
    }

    fn touched(item: u64, against: Option<u64>) -> Vec<(ItemId, Option<Touch>)> {
        let touch = |author| Touch { positive: None, kind: None, seen: Some(1), against: Some(TokenId(author)) };
        vec![(ItemId(item), against.map(touch))]
    }

    /// What a step at this clock tells: city and authors of each user, or that there is nothing any more.
    fn told(people: &mut People, clock: Millis, tick: bool, delta: Option<UserDelta>) -> Vec<Option<(String, Vec<u64>)>> {
        let epoch = Epoch { clock_ms: clock, turn: Turn::all_if(tick), ..Epoch::default() };
        let mut out = Vec::new();
        people.step(&epoch, &mut delta.into_iter().map(Arc::new).collect(), &mut out);
        let one = |change| match change {
            Change::Profile(ANN, known) => known.map(|known: Arc<Profile>| {
                (known.city.clone().unwrap_or_default(), known.hidden_authors.iter().map(|author| author.0).collect())
            }),
            other => panic!("{other:?}"),
        };
        out.into_iter().map(one).collect()
    }

    #[test]
    fn c20_what_is_known_of_a_user_is_told_when_it_changes_again_in_time_and_taken_back() {
        let mut people = People::default();
        let of = |delta: UserDelta| Some(UserDelta { user: ANN, ..delta });
        let profile = |profile| of(UserDelta { profile, ..UserDelta::default() });
        let touches = |touches| of(UserDelta { touches, ..UserDelta::default() });
        let is = |city: &str, authors: &[u64]| vec![Some((city.to_string(), authors.to_vec()))];
        let began = 1_000 * SECOND;
        assert_eq!(told(&mut people, began, true, touches(touched(1, None))), [], "nothing of this is known");
        assert_eq!(told(&mut people, began, true, profile(said("Rome"))), is("Rome", &[5]));
        assert_eq!(told(&mut people, began, false, profile(said("Rome"))), [], "said as it was");
        assert_eq!(told(&mut people, began, false, touches(touched(1, Some(9)))), is("Rome", &[5, 9]), "between ticks too");
        assert_eq!(told(&mut people, began, false, touches(touched(2, Some(9)))), [], "the same author once more");
        assert_eq!(told(&mut people, began, false, touches(touched(1, None))), [], "one of two is taken back");
        assert_eq!(told(&mut people, began, false, touches(touched(2, None))), is("Rome", &[5]));
        assert_eq!(told(&mut people, began + AGAIN_AFTER, true, None), is("Rome", &[5]), "before the store lets go of it");
        let lost = Epoch { clock_ms: began + AGAIN_AFTER, retell: Some((0, 1024)), ..Epoch::default() };
        let mut out = Vec::new();
        people.step(&lost, &mut Vec::new(), &mut out);
        assert_eq!(out.len(), 1, "what a store has lost");
        told(&mut people, began, false, touches(touched(1, Some(9))));
        assert_eq!(
            told(&mut people, began, false, profile(Some(None))),
            is("", &[9]),
            "what was done is known without a profile"
        );
        assert_eq!(told(&mut people, began, false, touches(touched(1, None))), [None]);
        assert_eq!(told(&mut people, began + 3 * AGAIN_AFTER, true, None), [], "gone");
    }
}
