//! A second model that scores what is scored anyway, and whose scores are only compared.
//!
//! The facts that must stay true: nothing here reaches a slate; and every figure is a sum of integers, so parts of workers add up.

use super::columns::Row;
use super::ranker::{Model, Ranker};
use crate::model::UserId;
use crate::model::changes::Compared;
use crate::model::ids::lot;

/// Places that a screen shows.
const SCREEN: usize = 10;

/// A model at work in the shadow of what serves, on one worker.
pub struct Shadow {
    ranker: Ranker,
    share: f64,
    /// Tells the users it is drawn for from those of other shares.
    salt: u64,
    scores: Vec<f32>,
    compared: Compared,
}

impl Shadow {
    /// Of a model, for a share of the users.
    pub fn new(model: &Model, share: f64) -> Self {
        let salt = model.id().rotate_left(17);
        Self { ranker: Ranker::new(model), share, salt, scores: Vec::new(), compared: Compared::default() }
    }

    /// Whether it scores for this user, who is drawn by their id.
    pub fn scores_for(&self, user: UserId) -> bool {
        lot(user.0 ^ self.salt) < self.share
    }

    /// Scores the rows that something else gave the scores `served`, and compares the two orders. `blend` stands where it has no score.
    pub fn compare(&mut self, rows: &[Row], blend: &[f32], served: &[f32]) {
        if !self.score(rows, blend) {
            return;
        }
        let (ours, theirs) = (places(&self.scores), places(served));
        self.compared.requests += 1;
        self.compared.candidates += rows.len() as u64;
        self.compared.screen += rows.len().min(SCREEN) as u64;
        for (ours, theirs) in ours.iter().zip(&theirs) {
            self.compared.moved += ours.abs_diff(*theirs) as u64;
            self.compared.agreed += u64::from(*ours < SCREEN && *theirs < SCREEN);
        }
    }

    /// The same of rows of which the user then took some: where each order had them.
    pub fn compare_taken(&mut self, rows: &[Row], blend: &[f32], served: &[f32], taken: &[usize]) {
        if !self.score(rows, blend) {
            return;
        }
        let (ours, theirs) = (places(&self.scores), places(served));
        for row in taken {
            let (ours, theirs) = (ours[*row], theirs[*row]);
            self.compared.taken += 1;
            self.compared.ahead += u64::from(ours < theirs);
            self.compared.behind += u64::from(ours > theirs);
            self.compared.first += u64::from(ours == 0);
            self.compared.served_first += u64::from(theirs == 0);
        }
    }

    /// What was compared since this was last read.
    pub fn compared(&mut self) -> Compared {
        std::mem::take(&mut self.compared)
    }

    /// `false`: it has no score for any row.
    fn score(&mut self, rows: &[Row], blend: &[f32]) -> bool {
        self.scores.clear();
        self.scores.extend_from_slice(blend);
        let tally = self.ranker.rescore(rows, &mut self.scores);
        self.compared.unscored += tally.unscored;
        tally.scored > 0
    }
}

/// The place of each row by its score, the best is 0; ties go to the row that comes first.
fn places(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    let mut places = vec![0; scores.len()];
    order.into_iter().enumerate().for_each(|(place, row)| places[row] = place);
    places
}

#[cfg(test)]
mod tests {
    use super::super::columns::COLUMNS;
    use super::super::ranker::{Kind, Open, ScoreError, Scorer};
    use super::*;
    use std::sync::Arc;

    /// Says the first column.
    struct First;

    impl Scorer for First {
        fn score(&mut self, rows: &[Row], into: &mut Vec<f32>) -> Result<(), ScoreError> {
            into.extend(rows.iter().map(|row| row[0]));
            Ok(())
        }
    }

    fn shadow(share: f64) -> Shadow {
        let open: Open = Arc::new(|| Ok(Box::new(First)));
        Shadow::new(
            &Model { name: "first".into(), digest: "0000000000000002".into(), kind: Kind::Margin, columns: [0].into(), open },
            share,
        )
    }

    fn rows(firsts: &[f32]) -> Vec<Row> {
        firsts.iter().map(|first| std::array::from_fn::<f32, COLUMNS, _>(|i| if i == 0 { *first } else { 0.0 })).collect()
    }

    #[test]
    fn orders_are_compared_place_by_place() {
        let mut same = shadow(1.0);
        let twelve: Vec<f32> = (0..12).map(|n| n as f32).collect();
        same.compare(&rows(&twelve), &[0.0; 12], &twelve);
        let expected = Compared { requests: 1, candidates: 12, screen: 10, agreed: 10, ..Compared::default() };
        assert_eq!(same.compared(), expected);
        let reverse: Vec<f32> = twelve.iter().rev().copied().collect();
        same.compare(&rows(&twelve), &[0.0; 12], &reverse);
        assert_eq!(same.compared(), Compared { moved: 72, agreed: 8, ..expected });
        // rows by the model: 2, 0, 1; by what served: 0, 1, 2
        same.compare_taken(&rows(&[2.0, 1.0, 3.0]), &[0.0; 3], &[3.0, 2.0, 1.0], &[2, 1]);
        let expected = Compared { taken: 2, ahead: 1, behind: 1, first: 1, ..Compared::default() };
        assert_eq!((same.compared(), same.compared()), (expected, Compared::default()));
        same.compare(&rows(&[f32::NAN]), &[0.0], &[0.0]);
        assert_eq!(same.compared(), Compared { unscored: 1, ..Compared::default() }, "nothing to compare");
        same.compare(&[], &[], &[]);
        assert_eq!(same.compared(), Compared::default());
    }

    #[test]
    fn a_share_of_the_users_is_drawn_by_their_ids() {
        let drawn = |share| (0..10_000u64).filter(|n| shadow(share).scores_for(UserId::of(&format!("u{n}")))).count();
        assert_eq!((drawn(0.0), drawn(1.0)), (0, 10_000));
        assert!((400..600).contains(&drawn(0.05)), "{}", drawn(0.05));
    }
}
