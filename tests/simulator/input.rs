//! The input log: what a seed makes users, producers and operators say, in two partitions of events and one of each other topic.
//! Repeated, late, broken, taken back and forgotten records are among them.

use bytes::Bytes;
use overdrive::codec::json::{WireEvent, WireItem, WireUser, bytes};
use overdrive::model::time::{DAY, HOUR, Millis};
use overdrive::model::{Binding, Positions, Role};
use overdrive::sources::Record;
use std::collections::BTreeMap;

use super::dice::Dice;

pub const START: Millis = 1_700_000_000_000;
const USERS: usize = 5;
const ITEMS: usize = 7;
const PARTITIONS: u32 = 2;

type Place = (Role, u32);

/// Every record, by place and offset.
pub struct Input {
    places: BTreeMap<Place, Vec<Record>>,
    accepted: Millis,
    dice: Dice,
}

impl Input {
    /// A catalogue, then so many records.
    pub fn new(dice: Dice, records: usize) -> Self {
        let roles = [Role::Items, Role::Users, Role::Control].map(|role| (role, 0));
        let events = (0..PARTITIONS).map(|partition| (Role::Events, partition));
        let places = roles.into_iter().chain(events).map(|place| (place, Vec::new())).collect();
        let mut input = Self { places, accepted: START, dice };
        (0..ITEMS).for_each(|item| input.describe(item));
        (0..records).for_each(|_| input.record());
        input
    }

    /// Where each place ends.
    pub fn ends(&self) -> Positions {
        self.places.iter().map(|(place, records)| (*place, records.len() as u64)).collect()
    }

    /// How many events there are, broken ones among them.
    pub fn events(&self) -> u64 {
        self.ends().iter().filter(|((role, _), _)| *role == Role::Events).map(|(_, end)| end).sum()
    }

    /// What a place holds from one offset up to another.
    pub fn read(&self, place: Place, from: u64, to: u64) -> &[Record] {
        &self.places[&place][from as usize..to as usize]
    }

    /// What an epoch holds.
    pub fn bound(&self, binding: &Binding) -> Vec<Record> {
        binding.offsets.iter().flat_map(|(place, (from, to))| self.read(*place, *from, *to).iter().cloned()).collect()
    }

    fn append(&mut self, role: Role, partition: u32, key: &str, payload: Option<Vec<u8>>) {
        self.accepted += self.dice.below(800) as Millis;
        let accepted_ms = self.accepted;
        let records = self.places.get_mut(&(role, partition)).expect("every place is there");
        let (offset, key) = (records.len() as u64, Some(Bytes::from(key.to_string())));
        records.push(Record { role, partition, offset, key, payload: payload.map(Bytes::from), accepted_ms });
    }

    fn record(&mut self) {
        match self.dice.below(100) {
            0..4 => self.item(),
            4..7 => self.profile(),
            7..12 => self.order(),
            12..16 => self.again(),
            16..18 => self.append(Role::Events, 0, "u0", Some(b"{broken".to_vec())),
            _ => self.event(),
        }
    }

    fn user(&mut self) -> (usize, String) {
        let user = self.dice.below(USERS);
        (user, format!("u{user}"))
    }

    fn event(&mut self) {
        let (user, name) = self.user();
        let kinds = ["view", "view", "like", "click", "share", "impression", "skip", "hide", "follow", "purchase"];
        let kind = kinds[self.dice.below(kinds.len())];
        let age = match self.dice.below(20) {
            0 => 25 * HOUR,
            1 => DAY / 2,
            _ => self.dice.below(3_000) as Millis,
        };
        let wire = WireEvent {
            event_id: Some(format!("e{}", self.accepted + self.dice.below(3) as Millis).into()),
            kind,
            user_id: name.as_str().into(),
            item_id: format!("i{}", self.dice.below(ITEMS)).into(),
            ts: self.accepted - age,
            op: self.dice.percent(12).then_some("undo"),
            ..WireEvent::default()
        };
        self.append(Role::Events, user as u32 % PARTITIONS, &name, Some(bytes(&wire)));
    }

    /// A record that was sent before.
    fn again(&mut self) {
        let partition = self.dice.below(PARTITIONS as usize) as u32;
        let sent = &self.places[&(Role::Events, partition)];
        if let Some(again) = sent.last().cloned() {
            let key = String::from_utf8(again.key.unwrap_or_default().to_vec()).expect("a name");
            self.append(Role::Events, partition, &key, again.payload.map(Vec::from));
        }
    }

    fn describe(&mut self, item: usize) {
        let name = format!("i{item}");
        let wire = WireItem {
            item_id: name.as_str().into(),
            author_id: Some(format!("a{}", item % 3).into()),
            categories: vec![format!("c{}", self.dice.below(3)).into()],
            created_at: START - self.dice.below(9) as Millis * DAY,
            ..WireItem::default()
        };
        self.append(Role::Items, 0, &name, Some(bytes(&wire)));
    }

    /// An item is described anew, withdrawn or deleted.
    fn item(&mut self) {
        let item = self.dice.below(ITEMS);
        let name = format!("i{item}");
        match self.dice.below(3) {
            0 => self.describe(item),
            1 => {
                let withdrawn = format!(r#"{{"item_id":"{name}","categories":["c1"],"available":false}}"#);
                self.append(Role::Items, 0, &name, Some(withdrawn.into_bytes()));
            }
            _ => self.append(Role::Items, 0, &name, None),
        }
    }

    fn profile(&mut self) {
        let (_, name) = self.user();
        let interests = vec![format!("c{}", self.dice.below(3)).into()];
        let wire = WireUser { user_id: name.as_str().into(), interests, ..WireUser::default() };
        let payload = self.dice.percent(80).then(|| bytes(&wire));
        self.append(Role::Users, 0, &name, payload);
    }

    /// Forget, or revoke the last minute.
    fn order(&mut self) {
        let (_, name) = self.user();
        let order = match self.dice.percent(70) {
            true => format!(r#"{{"op":"forget","user_id":"{name}"}}"#),
            false => format!(r#"{{"op":"revoke","user_id":"{name}","from":{},"to":{}}}"#, self.accepted - 60_000, self.accepted),
        };
        self.append(Role::Control, 0, &name, Some(order.into_bytes()));
    }
}
