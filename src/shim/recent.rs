//! The users seen last, for the console's picker: a short ring, each user once, nothing stored.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// How many are remembered.
const KEPT: usize = 32;

/// A ring that the shim fills with who posts, and the engine may fill with who acts.
#[derive(Clone, Default)]
pub struct Recent(Arc<Mutex<VecDeque<String>>>);

impl Recent {
    /// Puts a user in front.
    pub fn note(&self, user: &str) {
        let mut ring = self.0.lock().expect("no panic under the lock");
        let name = match ring.iter().position(|known| known == user) {
            Some(at) => ring.remove(at).expect("it was just found"),
            None => user.to_string(),
        };
        ring.push_front(name);
        ring.truncate(KEPT);
    }

    /// Takes a user out: a forgotten one is not to be shown.
    pub fn forget(&self, user: &str) {
        self.0.lock().expect("no panic under the lock").retain(|known| known != user);
    }

    /// Latest first.
    pub fn users(&self) -> Vec<String> {
        self.0.lock().expect("no panic under the lock").iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latest_first_each_once_and_bounded() {
        let recent = Recent::default();
        (0..KEPT + 5).for_each(|i| recent.note(&format!("u{i}")));
        recent.note("u20");
        let users = recent.users();
        assert_eq!((users.len(), users[0].as_str(), users[1].as_str()), (KEPT, "u20", "u36"));
        recent.forget("u20");
        assert_eq!(recent.users()[0], "u36");
    }
}
