//! The table of features: what is known of a candidate at the moment of a refresh, each column under a name that stays. Models say by name
//! which columns they take, the log of examples holds all of them, and training reads them there: one table for all three.
//! `schemas/features.md` says what each column means.
//!
//! To add a column: its name here or in `learned.rs`, its value there or in `dataflows/sampler.rs`, its line in `schemas/features.md`.

use super::learned::{CONTEXT, FEATURES, NAMES};

/// Changes when a column of the same name means something else.
pub const SCHEMA: &str = "1";
/// How many columns there are.
pub const COLUMNS: usize = FEATURES + CONTEXT + 1;

/// What the columns of a request are called, which are the same for all its candidates.
const OF_REQUEST: [&str; CONTEXT] =
    ["user_new", "user_few", "user_some", "user_many", "user_events", "user_pause", "day_sin", "day_cos", "items_known"];

/// One row: every column of one candidate.
pub type Row = [f32; COLUMNS];

/// The names, in the order of a [`Row`].
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().chain(OF_REQUEST).chain(["blend"])
}

/// The place of a column.
pub fn find(name: &str) -> Option<usize> {
    names().position(|known| known == name)
}

/// The row of a candidate with these features, in a request with this context, to which the blend gave this score.
pub fn row(features: &[f32; FEATURES], context: &[f32; CONTEXT], blend: f32) -> Row {
    let mut row = [0.0; COLUMNS];
    row[..FEATURES].copy_from_slice(features);
    row[FEATURES..FEATURES + CONTEXT].copy_from_slice(context);
    row[COLUMNS - 1] = blend;
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_column_has_a_name_of_its_own_and_its_line_in_the_published_table() {
        let names: Vec<&str> = names().collect();
        assert_eq!(names.len(), COLUMNS);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), COLUMNS);
        let published = include_str!("../../schemas/features.md");
        let lines = published.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        assert_eq!(lines.map(|(name, _)| name).collect::<Vec<_>>(), names);
        assert!(names.iter().enumerate().all(|(place, name)| find(name) == Some(place)) && find("no_such").is_none());
    }

    #[test]
    fn a_row_holds_features_then_context_then_the_blend() {
        let row = row(&[1.0; FEATURES], &[2.0; CONTEXT], 3.0);
        assert_eq!((row[0], row[FEATURES], row[COLUMNS - 1]), (1.0, 2.0, 3.0));
        assert_eq!(find("blend"), Some(COLUMNS - 1));
    }
}
