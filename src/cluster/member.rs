//! What a process says of itself, and in what two of them differ. Pure.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A process of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Of the cluster, so that two on the same machines do not mix.
    pub name: String,
    pub process: usize,
    pub processes: usize,
    /// Of each process.
    pub workers: usize,
    pub key_groups: u64,
    pub version: String,
    /// Digest of the program's file: what is sent has no version of its own.
    pub program: String,
    /// Whatever decides what is computed.
    pub settings: BTreeMap<String, String>,
    /// Claimed by process 0; `None`: not yet heard of.
    pub generation: Option<u32>,
}

impl Member {
    /// From what [`Self::encode`] made.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        postcard::from_bytes(bytes).map_err(|e| format!("what it says of itself cannot be read: {e}"))
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain data has a form in bytes")
    }

    /// In what the other must not differ from this one, and does: a phrase each.
    pub fn differences(&self, other: &Member) -> Vec<String> {
        let here = [
            ("[cluster] name", &self.name, &other.name),
            ("version", &self.version, &other.version),
            ("program", &self.program, &other.program),
        ];
        let texts = here.map(|(what, mine, theirs)| differs(what, mine, theirs));
        let numbers = [
            ("processes", self.processes as u64, other.processes as u64),
            ("workers", self.workers as u64, other.workers as u64),
            ("key groups", self.key_groups, other.key_groups),
        ];
        let numbers = numbers.map(|(what, mine, theirs)| differs(what, &mine.to_string(), &theirs.to_string()));
        let keys = self.settings.keys().chain(other.settings.keys().filter(|key| !self.settings.contains_key(*key)));
        let of =
            |settings: &BTreeMap<String, String>, key| settings.get(key).map_or("not set", |value: &String| value).to_string();
        let settings = keys.map(|key| differs(key, &of(&self.settings, key), &of(&other.settings, key)));
        texts.into_iter().chain(numbers).chain(settings).flatten().collect()
    }
}

fn differs(what: &str, mine: &str, theirs: &str) -> Option<String> {
    (mine != theirs).then(|| format!("{what} is {theirs} there and {mine} here"))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn member(process: usize) -> Member {
        Member {
            name: "overdrive".into(),
            process,
            processes: 2,
            workers: 1,
            key_groups: 1024,
            version: "1".into(),
            program: "p".into(),
            settings: BTreeMap::from([("slates.kept".into(), "200".into())]),
            generation: None,
        }
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        let (here, mut there) = (member(0), member(1));
        assert_eq!(here.differences(&there), Vec::<String>::new(), "the number of the process and the generation may");
        (there.workers, there.version) = (2, "2".into());
        there.settings.insert("slates.kept".into(), "100".into());
        there.settings.insert("slates.new".into(), "1".into());
        let named = [
            "version is 2 there and 1 here",
            "workers is 2 there and 1 here",
            "slates.kept is 100 there and 200 here",
            "slates.new is 1 there and not set here",
        ];
        assert_eq!(here.differences(&there), named);
        assert_eq!(Member::decode(&there.encode()), Ok(there));
        assert!(Member::decode(b"\xff\xff\xff\xff\xff").is_err());
    }
}
