//! What the kinds of recorded data sets are called on our wire. A kind that is not in the table passes as it is: decoding knows
//! it, or puts the row among the dead letters with its place.

/// Recorded kind, kind on the wire, and whether it takes one back.
const TABLE: [(&str, &str, bool); 6] = [
    ("watch", "completion", false),    // value: watched / duration
    ("long_view", "dwell", false),     // KuaiRand
    ("forward", "share", false),       // KuaiRand
    ("profile_enter", "click", false), // KuaiRand: to the author's page
    ("hate", "not_interested", false), // KuaiRand
    ("return", "purchase", true),      // Online Retail: a cancelled invoice line
];

/// The kind on the wire, and `true` for an undo of it.
pub fn wire(recorded: &str) -> (&str, bool) {
    match TABLE.iter().find(|(name, _, _)| *name == recorded) {
        Some((_, kind, undo)) => (kind, *undo),
        None => (recorded, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Kind;

    #[test]
    fn every_translation_is_a_kind_and_no_kind_of_ours_is_translated() {
        for (recorded, kind, _) in TABLE {
            assert!(Kind::parse(kind).is_some(), "{kind}");
            assert!(Kind::parse(recorded).is_none(), "{recorded}");
        }
        for kind in Kind::ALL {
            assert_eq!(wire(kind.name()), (kind.name(), false));
        }
        assert_eq!(wire("stare"), ("stare", false));
    }
}
