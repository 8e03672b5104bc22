//! A version on logged examples: the model and the blend on the same candidates, as they would have served.

use std::path::Path;

use super::figures;
use crate::model::UserId;
use crate::registry::Registry;
use crate::scoring::columns::COLUMNS;
use crate::scoring::ranker::{Ranker, Tally};
use crate::sinks::examples::read::{Logged, read};

/// What was measured so far.
struct Measured {
    ranker: Ranker,
    tally: Tally,
    examples: usize,
    /// Sums of NDCG@10, and by how much the model was ahead for each example's user.
    model: f64,
    blend: f64,
    ahead: Vec<(UserId, f64)>,
    /// Every row as the model and as the blend scored it.
    by_model: Vec<(f32, bool)>,
    by_blend: Vec<(f32, bool)>,
}

/// Measures, and says what came out.
pub fn told(registry: &Registry, version: &str, log: &Path, all: bool, library: &str) -> Result<String, String> {
    let about = registry.about(version).map_err(|e| e.to_string())?;
    let model = registry.load(version, library).map_err(|e| e.to_string())?;
    let later = about.figures.as_ref().map(|figures| figures.held_out_from_ms).filter(|_| !all);
    let mut measured = Measured::of(Ranker::new(&model));
    read(log, |example| {
        if later.is_none_or(|from| example.at >= from) {
            measured.take(&example);
        }
        Ok(())
    })?;
    if measured.examples == 0 {
        let which =
            if later.is_some() { "examples later than what it was trained on; --all takes the others" } else { "examples" };
        return Err(format!("{} holds no {which}; the engine logs some with learn.logged above 0", log.display()));
    }
    let which = match (later, all) {
        (Some(_), _) => " later than what it was trained on",
        (None, true) => "",
        (None, false) => ", all there are: no report says what it was trained on",
    };
    let (digest, examples) = (about.digest(), measured.examples);
    Ok(format!("{version} ({digest}) on {examples} examples{which}:\n{}", measured.told()))
}

impl Measured {
    fn of(ranker: Ranker) -> Self {
        let (by_model, by_blend) = (Vec::new(), Vec::new());
        Self { ranker, tally: Tally::default(), examples: 0, model: 0.0, blend: 0.0, ahead: Vec::new(), by_model, by_blend }
    }

    fn take(&mut self, example: &Logged) {
        let blend: Vec<f32> = example.rows.iter().map(|row| row[COLUMNS - 1]).collect();
        let mut model = blend.clone();
        self.tally.add(self.ranker.rescore(&example.rows, &mut model));
        let (ours, theirs) = (figures::ndcg(&model, &example.taken), figures::ndcg(&blend, &example.taken));
        self.examples += 1;
        (self.model, self.blend) = (self.model + ours, self.blend + theirs);
        self.ahead.push((example.user, ours - theirs));
        self.by_model.extend(model.into_iter().zip(example.taken.iter().copied()));
        self.by_blend.extend(blend.into_iter().zip(example.taken.iter().copied()));
    }

    fn told(self) -> String {
        let mean = |sum: f64| sum / self.examples as f64;
        let (low, high) = figures::ahead(&self.ahead);
        let shown = |auc: Option<f64>| auc.map_or("–".to_string(), |auc| format!("{auc:.3}"));
        format!(
            "NDCG@10 {:.4}, the blend's {:.4} (ahead by {low:.4} to {high:.4} in 95 of 100 draws of users)\n\
             AUC {}, the blend's {}\n\
             {} candidates scored, {} in vain\n",
            mean(self.model),
            mean(self.blend),
            shown(figures::auc(self.by_model)),
            shown(figures::auc(self.by_blend)),
            self.tally.scored,
            self.tally.unscored,
        )
    }
}
