//! Two orders of the same logged examples: a model's, and the blend's or another model's, as they would have served.

use std::collections::BTreeSet;
use std::path::Path;

use crate::model::UserId;
use crate::model::time::Millis;
use crate::scoring::columns::AT_HAND;
use crate::scoring::quality;
use crate::scoring::ranker::{Model, Ranker, Tally};
use crate::sinks::examples::read::{Logged, read};

/// What came out, of the model first and then of what it was held against; NDCG over the examples of which something was taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    pub examples: usize,
    pub users: usize,
    pub ndcg: [f64; 2],
    /// How far NDCG@10 of the model is ahead in 95 of 100 draws of users.
    pub ahead: (f64, f64),
    /// Where it was asked for.
    pub auc: [Option<f64>; 2],
    /// Of the model's rows.
    pub tally: Tally,
}

/// What is measured.
pub struct Wanted<'a> {
    /// What the model is held against; `None`: the score in the column `without`.
    pub against: Option<&'a Model>,
    /// The column of what ranks without a model.
    pub without: usize,
    /// The folder of examples.
    pub log: &'a Path,
    /// Those from this time on.
    pub from: Option<Millis>,
    /// Whether AUC as well, for which every row has to be kept.
    pub auc: bool,
}

/// Measures a model on logged examples. `asked` is asked at each of them whether to go on.
pub fn measure(
    model: &Model,
    &Wanted { against, without, log, from, auc }: &Wanted,
    mut asked: impl FnMut() -> Result<(), String>,
) -> Result<Measured, String> {
    let mut orders = Orders::of(Ranker::new(model), without, against.map(Ranker::new), auc);
    let at_hand = without >= AT_HAND || [Some(model), against].into_iter().flatten().any(Model::takes_looked_up);
    read(log, at_hand, |example| {
        asked()?;
        if from.is_none_or(|from| example.at >= from) {
            orders.take(&example);
        }
        Ok(())
    })?;
    Ok(orders.measured())
}

/// What was measured so far.
struct Orders {
    ours: Ranker,
    /// The column of what ranks without a model.
    without: usize,
    theirs: Option<Ranker>,
    tally: Tally,
    ndcg: [f64; 2],
    /// By how much the model was ahead for each example's user.
    ahead: Vec<(UserId, f64)>,
    /// Every row as each scored it, where it is kept.
    rows: [Vec<(f32, bool)>; 2],
    keeps: bool,
}

impl Orders {
    fn of(ours: Ranker, without: usize, theirs: Option<Ranker>, keeps: bool) -> Self {
        Self {
            ours,
            without,
            theirs,
            tally: Tally::default(),
            ndcg: [0.0; 2],
            ahead: Vec::new(),
            rows: Default::default(),
            keeps,
        }
    }

    fn take(&mut self, example: &Logged) {
        let blend: Vec<f32> = example.rows.iter().map(|row| row[self.without]).collect();
        let mut scores = [blend.clone(), blend];
        self.tally.add(self.ours.rescore(&example.rows, &mut scores[0]));
        if let Some(theirs) = &mut self.theirs {
            theirs.rescore(&example.rows, &mut scores[1]);
        }
        if example.taken.contains(&true) {
            let ndcg = scores.each_ref().map(|scores| quality::ndcg(scores, &example.taken));
            self.ahead.push((example.user, ndcg[0] - ndcg[1]));
            self.ndcg.iter_mut().zip(ndcg).for_each(|(sum, ndcg)| *sum += ndcg);
        }
        for (at, scores) in scores.into_iter().enumerate() {
            let scores = scores.into_iter().take(if self.keeps { usize::MAX } else { 0 });
            self.rows[at].extend(scores.zip(example.taken.iter().copied()));
        }
    }

    fn measured(self) -> Measured {
        let examples = self.ahead.len();
        let mean = |sum: f64| if examples > 0 { sum / examples as f64 } else { 0.0 };
        Measured {
            examples,
            users: self.ahead.iter().map(|(user, _)| user).collect::<BTreeSet<_>>().len(),
            ndcg: self.ndcg.map(mean),
            ahead: quality::ahead(&self.ahead),
            auc: self.rows.map(quality::auc),
            tally: self.tally,
        }
    }
}
