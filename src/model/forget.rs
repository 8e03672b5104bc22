//! What it takes to make away with what is kept of users who are to be forgotten, outside of the state that the dataflow maintains.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::epoch::Positions;
use super::ids::UserId;
use super::interaction::{Control, Input, Origin, Row};
use super::time::Millis;

/// An order to forget a user, as an epoch took it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    pub user: UserId,
    pub origin: Origin,
    pub epoch: u64,
}

impl Order {
    /// The orders among the rows of an epoch.
    pub fn among(epoch: u64, rows: &[Row]) -> Vec<Order> {
        let order = |row: &Row| match row.input {
            Ok(Input::Control(Control::Forget { user })) => Some(Order { user, origin: row.origin, epoch }),
            _ => None,
        };
        rows.iter().filter_map(order).collect()
    }
}

/// Until when what is kept of a user goes. What came later is kept: they are back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Until {
    /// Of what the log accepted.
    pub accepted: Millis,
    /// Of what was answered.
    pub epoch: u64,
}

/// Whose records go, and which.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leavers {
    pub users: BTreeMap<UserId, Until>,
    /// Records of the log before these positions: nothing reads them again, whichever snapshot it begins with.
    pub below: Positions,
}

impl Leavers {
    /// Whether what was accepted then of this user goes.
    pub fn takes(&self, user: UserId, accepted: Millis) -> bool {
        self.users.get(&user).is_some_and(|until| accepted <= until.accepted)
    }

    /// Whether what was answered to this user in that epoch goes.
    pub fn takes_answer(&self, user: UserId, epoch: u64) -> bool {
        self.users.get(&user).is_some_and(|until| epoch <= until.epoch)
    }

    /// Whether one of the users whom `at` takes is named in a text that could not be read as a record: as a word of it, or between
    /// two quotes.
    pub fn named_in(&self, text: &str, at: impl Fn(&Until) -> bool) -> bool {
        let quoted = text.split('"');
        let words = text.split(|c: char| !(c.is_alphanumeric() || "_-.:@".contains(c)));
        quoted.chain(words).filter(|word| !word.is_empty()).any(|word| self.users.get(&UserId::of(word)).is_some_and(&at))
    }
}

/// Takes what one place keeps of users out of it; yields how many records that were, or what went wrong and what to do.
pub type Eraser = Box<dyn Fn(&Leavers) -> Result<u64, String> + Send>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_in_a_broken_record_and_a_longer_name_is_somebody_else() {
        let until = Until { accepted: 5, epoch: 9 };
        let users = BTreeMap::from([(UserId::of("u 7/ä"), until), (UserId::of("u8"), until)]);
        let leavers = Leavers { users, below: Positions::new() };
        for text in [r#"{"user_id":"u 7/ä","item"#, "u8", "x=u8;", "{\"user_id\": u8}", r#"the user "u8" is …"#] {
            assert!(leavers.named_in(text, |_| true), "{text}");
        }
        for text in [r#"{"user_id":"u88"}"#, "u8-2", "", "\"\""] {
            assert!(!leavers.named_in(text, |_| true), "{text}");
        }
        assert!(!leavers.named_in("u8", |until| until.epoch < 9), "of a later epoch");
        assert!(leavers.takes(UserId::of("u8"), 5) && !leavers.takes(UserId::of("u8"), 6));
        assert!(leavers.takes_answer(UserId::of("u8"), 9) && !leavers.takes_answer(UserId::of("u8"), 10));
    }
}
