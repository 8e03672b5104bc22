//! The table of features: what is known of a candidate at the moment of a refresh, each column under a name that stays. Models say by name
//! which columns they take, the log of examples holds all of them, and training reads them there: one table for all three.
//! `schemas/features.md` says what each column means.
//!
//! To add a column: its name here, in `learned.rs` or in `at_hand.rs`, its value there or in `dataflows/sampler.rs`, its line in
//! `schemas/features.md`.

use super::at_hand;
use super::learned::{CONTEXT, FEATURES, NAMES};

/// Changes when a column of the same name means something else.
pub const SCHEMA: &str = "1";
/// How many columns there are.
pub const COLUMNS: usize = TOWER + 1;
/// The place of the score that the learned blend gives.
pub const BLEND: usize = FEATURES + CONTEXT;
/// From here on they are those that are at hand in the shim, too.
pub const AT_HAND: usize = BLEND + 1;
/// From here on only the engine knows them again: how alike a candidate is to what the user took lately.
pub const ALIKE: usize = AT_HAND + at_hand::COLUMNS;
/// The place of what the towers say.
pub const TOWER: usize = ALIKE + OF_CONTENT.len();
/// The place of the score that the fixed weights give.
pub const FIXED: usize = AT_HAND + 5;

/// What the columns of a request are called, which are the same for all its candidates.
const OF_REQUEST: [&str; CONTEXT] =
    ["user_new", "user_few", "user_some", "user_many", "user_events", "user_pause", "day_sin", "day_cos", "items_known"];

/// How alike a candidate is to what the user took lately, at most and on average, by the directions of their content.
const OF_CONTENT: [&str; 2] = ["alike_most", "alike_mean"];

/// The same of one candidate.
pub type Alike = [f32; OF_CONTENT.len()];

/// What the towers say of a candidate: the cosine of its vector and the user's.
const OF_TOWERS: &str = "tower";

/// What is looked up of a candidate where a model or an example takes it.
#[derive(Clone, Copy, Debug)]
pub struct LookedUp {
    pub at_hand: at_hand::Row,
    pub alike: Alike,
    pub tower: f32,
}

/// One row: every column of one candidate.
pub type Row = [f32; COLUMNS];

/// The names, in the order of a [`Row`].
pub fn names() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().chain(OF_REQUEST).chain(["blend"]).chain(at_hand::NAMES).chain(OF_CONTENT).chain([OF_TOWERS])
}

/// The place of a column.
pub fn find(name: &str) -> Option<usize> {
    names().position(|known| known == name)
}

/// The row of a candidate with these features, in a request with this context, to which the blend gave this score. What is
/// looked up is left open: [`put_looked_up`].
pub fn row(features: &[f32; FEATURES], context: &[f32; CONTEXT], blend: f32) -> Row {
    let mut row = [0.0; COLUMNS];
    row[..FEATURES].copy_from_slice(features);
    row[FEATURES..BLEND].copy_from_slice(context);
    row[BLEND] = blend;
    row
}

/// The row of a candidate of which no more than this is known.
pub fn row_at_hand(at_hand: &at_hand::Row) -> Row {
    let mut row = [0.0; COLUMNS];
    put_at_hand(&mut row, at_hand);
    row
}

/// Puts what is at hand in its place.
fn put_at_hand(row: &mut Row, at_hand: &at_hand::Row) {
    row[AT_HAND..ALIKE].copy_from_slice(at_hand);
}

/// The same with what only the engine looks up.
pub fn put_looked_up(row: &mut Row, LookedUp { at_hand, alike, tower }: &LookedUp) {
    put_at_hand(row, at_hand);
    row[ALIKE..TOWER].copy_from_slice(alike);
    row[TOWER] = *tower;
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
    fn a_row_holds_features_then_context_then_the_blend_then_what_is_looked_up() {
        let mut row = row(&[1.0; FEATURES], &[2.0; CONTEXT], 3.0);
        assert_eq!((row[0], row[FEATURES], row[BLEND], row[AT_HAND]), (1.0, 2.0, 3.0, 0.0));
        put_looked_up(&mut row, &LookedUp { at_hand: [4.0; at_hand::COLUMNS], alike: [5.0; 2], tower: 6.0 });
        let looked_up = [AT_HAND, ALIKE - 1, ALIKE, TOWER - 1, TOWER].map(|at| row[at]);
        assert_eq!((row[BLEND], looked_up, row[COLUMNS - 1]), (3.0, [4.0, 4.0, 5.0, 5.0, 6.0], 6.0));
        assert_eq!((find("blend"), find("content"), find("fixed")), (Some(BLEND), Some(AT_HAND), Some(FIXED)));
        assert_eq!(row_at_hand(&[4.0; at_hand::COLUMNS])[..AT_HAND], [0.0; AT_HAND]);
    }
}
