//! A model that somebody brings orders the candidates in place of the blend, row by row of the table in `columns.rs`.
//!
//! The facts that must stay true: scores are rounded before anything is ordered by them, so the last bits of a batch decide nothing; a
//! row the model has no use for keeps its place beside those the blend would have put it next to; and a model that fails costs its
//! request nothing but the model: the blend serves.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

use super::columns::{self, ALIKE, AT_HAND, BLEND, FIXED, Row};
use crate::model::UserId;
use crate::model::ids::lot;

/// `[ranker]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    pub model: String,
    pub registry: String,
    pub share: f64,
    pub shadow: String,
    pub shadow_share: f64,
    /// What the file named there holds, once it was read.
    #[serde(skip)]
    pub loaded: Option<Model>,
    /// The version that only compares itself, once it was read.
    #[serde(skip)]
    pub shadowing: Option<Model>,
    /// Where a model is found that ranks in place of it.
    #[serde(skip)]
    pub found: Option<Finder>,
}

/// Finds a model by the id that an epoch names.
#[derive(Clone)]
pub struct Finder(pub Arc<dyn Fn(u64) -> Result<Model, String> + Send + Sync>);

impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Finder")
    }
}

impl PartialEq for Finder {
    /// What is found under an id is the same everywhere.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Params {
    /// The same, with the model of this id in place of what is loaded.
    ///
    /// Panics where it is not found: it was, when the epoch that names it was cut, and a worker that ranked by something else would
    /// give other answers than the others.
    pub fn ranked_by(&self, id: Option<u64>) -> Self {
        let find = |id| {
            let found =
                self.found.as_ref().map_or(Err("ranker.registry names no folder of versions".to_string()), |found| (found.0)(id));
            found.unwrap_or_else(|why| {
                panic!("the model {id:016x}, which ranks in this epoch, cannot be used here: {why}; give every machine that computes the same registry")
            })
        };
        Self { loaded: id.map(find), ..self.clone() }
    }

    /// Whether the model ranks for this user, who is in the same arm for as long as the share and the model are the same.
    pub fn ranks_for(&self, user: UserId) -> bool {
        let Some(model) = &self.loaded else { return false };
        lot(user.0 ^ u64::from(model.number()).rotate_left(32)) < self.share
    }
}

/// Scores rows. Every row gets a score, in order, or the whole batch fails.
pub trait Scorer: Send {
    /// Appends a score for each row.
    fn score(&mut self, rows: &[Row], into: &mut Vec<f32>) -> Result<(), ScoreError>;
}

/// Why a batch has no scores.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScoreError(pub String);

/// What a model's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any number; the difference of two says how much likelier one is taken than the other, as a logarithm.
    Margin,
    /// How likely a candidate is taken, 0 to 1.
    Probability,
}

/// Makes a scorer for a worker.
pub type Open = Arc<dyn Fn() -> Result<Box<dyn Scorer>, ScoreError> + Send + Sync>;

/// A model that was read and found good.
#[derive(Clone)]
pub struct Model {
    /// What readers are told scored their feed.
    pub name: String,
    /// BLAKE3 of its file.
    pub digest: String,
    pub kind: Kind,
    /// The columns it takes.
    pub columns: Arc<[usize]>,
    pub open: Open,
}

impl Model {
    /// Whether it takes any of the columns that are looked up for it: those at hand in the shim, too, and those behind them.
    pub fn takes_looked_up(&self) -> bool {
        self.columns.iter().any(|column| *column >= AT_HAND)
    }

    /// The column of what ranks in its place where there is no model: the learned blend, or for one that makes do with what is at hand,
    /// the fixed weights.
    pub fn begins(&self) -> usize {
        if self.takes_beyond().is_some() { BLEND } else { FIXED }
    }

    /// The name of a column it takes that is not at hand in the shim, if there is one.
    pub fn takes_beyond(&self) -> Option<&'static str> {
        self.columns.iter().find(|column| !(AT_HAND..ALIKE).contains(*column)).and_then(|column| columns::names().nth(*column))
    }

    /// Its digest as a number.
    pub fn id(&self) -> u64 {
        u64::from_str_radix(&self.digest, 16).unwrap_or(0)
    }

    /// The number in the header of what it scored; never 0, which is the blend's.
    pub fn number(&self) -> u32 {
        let digits = self.digest.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        digits.unwrap_or(1).max(1)
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.digest)
    }
}

impl PartialEq for Model {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// Rows a model scored, and rows it was asked for in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub scored: u64,
    pub unscored: u64,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: Tally) {
        self.scored += other.scored;
        self.unscored += other.unscored;
    }
}

/// A model at work on one worker.
pub struct Ranker {
    kind: Kind,
    scorer: Box<dyn Scorer>,
    scores: Vec<f32>,
    order: Vec<u32>,
    /// Why a batch failed, until somebody asks.
    failed: Option<String>,
}

/// Scores are rounded to this fraction of one.
const FINE: f32 = 1024.0;
/// No odds are told apart beyond these.
const SUREST: f32 = 30.0;
/// Nor margins.
const WIDEST: f32 = 1e6;

impl Ranker {
    /// Of a model. One that does not open fails every batch, and says why.
    pub fn new(model: &Model) -> Self {
        let scorer = (model.open)().unwrap_or_else(|error| Box::new(Broken(error)));
        Self { kind: model.kind, scorer, scores: Vec::new(), order: Vec::new(), failed: None }
    }

    /// Puts the model's scores in place of the blend's. Where the whole batch failed, they are left as they are.
    pub fn rescore(&mut self, rows: &[Row], blend: &mut [f32]) -> Tally {
        self.scores.clear();
        let asked = rows.len() as u64;
        if let Err(ScoreError(why)) = self.scorer.score(rows, &mut self.scores) {
            self.failed = Some(why);
            return Tally { scored: 0, unscored: asked };
        }
        if self.scores.len() != rows.len() {
            self.failed = Some(format!("it gave {} scores to {asked} rows", self.scores.len()));
            return Tally { scored: 0, unscored: asked };
        }
        self.scores.iter_mut().for_each(|score| *score = margin(self.kind, *score));
        let unscored = self.scores.iter().filter(|score| score.is_nan()).count() as u64;
        if unscored == asked {
            return Tally { scored: 0, unscored };
        }
        if unscored > 0 {
            self.fill(blend);
        }
        blend.copy_from_slice(&self.scores);
        Tally { scored: asked - unscored, unscored }
    }

    /// Why the last batch failed that failed since this was last asked.
    pub fn failed(&mut self) -> Option<String> {
        self.failed.take()
    }

    /// A row without a score gets that of the next better one in the blend's order which has one; the first get that of the best.
    fn fill(&mut self, blend: &[f32]) {
        self.order.clear();
        self.order.extend(0..blend.len() as u32);
        self.order.sort_by(|a, b| blend[*b as usize].total_cmp(&blend[*a as usize]).then(a.cmp(b)));
        let first = self.order.iter().map(|i| self.scores[*i as usize]).find(|score| !score.is_nan());
        let mut last = first.expect("one of them has a score");
        for i in &self.order {
            let score = &mut self.scores[*i as usize];
            if score.is_nan() {
                *score = last;
            }
            last = *score;
        }
    }
}

/// What orders: rounded; not a number where a score is none.
fn margin(kind: Kind, score: f32) -> f32 {
    let margin = match kind {
        Kind::Margin if score.is_finite() => score.clamp(-WIDEST, WIDEST),
        Kind::Probability if (0.0..=1.0).contains(&score) => {
            let odds = f64::from(score) / (1.0 - f64::from(score));
            (libm::log(odds) as f32).clamp(-SUREST, SUREST)
        }
        _ => return f32::NAN,
    };
    (margin * FINE).round() / FINE + 0.0 // not -0: it orders below 0
}

/// In place of a model that did not open.
struct Broken(ScoreError);

impl Scorer for Broken {
    fn score(&mut self, _: &[Row], _: &mut Vec<f32>) -> Result<(), ScoreError> {
        Err(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::columns::COLUMNS;
    use super::*;

    /// Says the first column, or fails where that is told to.
    struct First;

    impl Scorer for First {
        fn score(&mut self, rows: &[Row], into: &mut Vec<f32>) -> Result<(), ScoreError> {
            into.extend(rows.iter().map(|row| row[0]));
            if rows.iter().any(|row| row[1] != 0.0) { Err(ScoreError("told to".into())) } else { Ok(()) }
        }
    }

    fn ranker(kind: Kind) -> Ranker {
        let open: Open = Arc::new(|| Ok(Box::new(First)));
        Ranker::new(&Model { name: "first".into(), digest: "00000002".into(), kind, columns: [0].into(), open })
    }

    fn rows(firsts: &[f32]) -> Vec<Row> {
        firsts.iter().map(|first| std::array::from_fn(|i| if i == 0 { *first } else { 0.0 })).collect()
    }

    #[test]
    fn scores_are_rounded_and_put_in_place_of_the_blends() {
        let mut scores = [9.0, 9.0];
        let tally = ranker(Kind::Margin).rescore(&rows(&[0.5, 0.500_001]), &mut scores);
        assert_eq!((scores, tally), ([0.5, 0.5], Tally { scored: 2, unscored: 0 }));
        let tally = ranker(Kind::Probability).rescore(&rows(&[0.5, 1.0]), &mut scores);
        assert_eq!((scores, tally.scored), ([0.0, SUREST], 2));
        ranker(Kind::Margin).rescore(&rows(&[1e36, -1e-9]), &mut scores);
        assert!(scores[0] == WIDEST && scores[1].to_bits() == 0, "{scores:?}");
    }

    #[test]
    fn a_row_without_a_score_stands_where_the_blend_would_have_put_it() {
        // by the blend: 3, 1, 0, 2
        let mut scores = [0.2, 0.5, 0.1, 0.9];
        let tally = ranker(Kind::Margin).rescore(&rows(&[f32::NAN, 7.0, 3.0, f32::INFINITY]), &mut scores);
        assert_eq!((scores, tally), ([7.0, 7.0, 3.0, 7.0], Tally { scored: 2, unscored: 2 }));
        let mut scores = [0.2, 0.5];
        let tally = ranker(Kind::Probability).rescore(&rows(&[1.5, -0.1]), &mut scores);
        assert_eq!((scores, tally), ([0.2, 0.5], Tally { scored: 0, unscored: 2 }));
    }

    #[test]
    fn a_share_of_the_users_is_drawn_by_their_ids() {
        let open: Open = Arc::new(|| Ok(Box::new(First)));
        let model = Model { name: "first".into(), digest: "00000002".into(), kind: Kind::Margin, columns: [0].into(), open };
        let (text, found) = (String::new, None);
        let nothing = Params {
            model: text(),
            registry: text(),
            share: 0.0,
            shadow: text(),
            shadow_share: 0.0,
            loaded: None,
            shadowing: None,
            found,
        };
        let ranks = |share, loaded: &Option<Model>| {
            let params = Params { share, loaded: loaded.clone(), ..nothing.clone() };
            (0..10_000u64).filter(|n| params.ranks_for(UserId::of(&format!("u{n}")))).collect::<Vec<_>>()
        };
        let loaded = Some(model);
        let (some, more) = (ranks(0.1, &loaded), ranks(0.5, &loaded));
        assert!((800..1_200).contains(&some.len()) && (4_700..5_300).contains(&more.len()), "{} {}", some.len(), more.len());
        assert!(some.iter().all(|user| more.contains(user)), "who is in stays in");
        assert_eq!((ranks(0.0, &loaded).len(), ranks(1.0, &loaded).len(), ranks(1.0, &None).len()), (0, 10_000, 0));
    }

    #[test]
    fn a_batch_that_fails_and_a_model_that_does_not_open_leave_the_blend() {
        let mut failing = rows(&[1.0, 2.0]);
        failing[1][1] = 1.0;
        let mut scores = [0.3, 0.4];
        let mut fails = ranker(Kind::Margin);
        assert_eq!(fails.rescore(&failing, &mut scores), Tally { scored: 0, unscored: 2 });
        assert_eq!((fails.failed(), fails.failed()), (Some("told to".to_string()), None));
        let open: Open = Arc::new(|| Err(ScoreError("no memory".into())));
        let broken = Model { name: "b".into(), digest: "not hexadecimal".into(), kind: Kind::Margin, columns: [0].into(), open };
        assert_eq!(Ranker::new(&broken).rescore(&failing, &mut scores), Tally { scored: 0, unscored: 2 });
        assert_eq!((scores, broken.number()), ([0.3, 0.4], 1));
        assert_eq!(rows(&[1.0])[0].len(), COLUMNS);
    }
}
