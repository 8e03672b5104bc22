//! What operators keep, as bytes by key group: the form in which state leaves the dataflow and comes back.

use serde::{Deserialize, Serialize};

/// One key of one operator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Saved {
    /// Whose it is: `hash & (KEY_GROUPS - 1)`.
    pub group: u16,
    /// Every worker keeps it, whoever saved it.
    pub shared: bool,
    pub payload: Vec<u8>,
}

/// The state of one operator as a worker hands it over: not yet bytes. Making them takes longer than handing over, and no answer
/// should wait for it, so whoever takes it does that, on a thread of its own.
pub struct Handed {
    pub uid: String,
    pub entries: Vec<Box<dyn FnOnce() -> Saved + Send>>,
}

impl Handed {
    /// As bytes.
    pub fn write(self) -> Part {
        Part { uid: self.uid, entries: self.entries.into_iter().map(|entry| entry()).collect() }
    }
}

impl From<Part> for Handed {
    /// What came as bytes.
    fn from(part: Part) -> Self {
        let entry = |saved: Saved| -> Box<dyn FnOnce() -> Saved + Send> { Box::new(move || saved) };
        Self { uid: part.uid, entries: part.entries.into_iter().map(entry).collect() }
    }
}

/// The state of one operator, over all workers. `uid` is its name and the version of its format.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub uid: String,
    pub entries: Vec<Saved>,
}

/// A part is sent in pieces of about this many bytes.
const PIECE: usize = 1 << 20;

impl Part {
    /// The same entries in parts that are not too long to be sent at once; one at least, because that nothing is kept is said, too.
    pub fn pieces(self) -> impl Iterator<Item = Part> {
        let Part { uid, entries } = self;
        let (mut rest, mut first) = (entries.into_iter().peekable(), true);
        std::iter::from_fn(move || {
            let mut entries = Vec::from_iter(rest.next());
            let mut bytes = entries.first().map_or(0, |entry| entry.payload.len());
            while let Some(entry) = rest.next_if(|entry| bytes + entry.payload.len() <= PIECE) {
                bytes += entry.payload.len();
                entries.push(entry);
            }
            (std::mem::take(&mut first) || !entries.is_empty()).then(|| Part { uid: uid.clone(), entries })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_not_too_long_and_hold_everything_once() {
        let entry = |group: u16, bytes: usize| Saved { group, shared: false, payload: vec![group as u8; bytes] };
        let entries = vec![entry(1, 10), entry(2, 2 * PIECE), entry(3, PIECE), entry(4, 0), entry(5, 7)];
        let pieces: Vec<Part> = Part { uid: "a/1".into(), entries: entries.clone() }.pieces().collect();
        assert_eq!(pieces.iter().map(|piece| piece.entries.len()).collect::<Vec<_>>(), [1, 1, 2, 1]);
        assert_eq!(pieces.into_iter().flat_map(|piece| piece.entries).collect::<Vec<_>>(), entries);
        let nothing = Part { uid: "a/1".into(), entries: vec![] };
        assert_eq!(nothing.clone().pieces().collect::<Vec<_>>(), [nothing]);
    }
}
