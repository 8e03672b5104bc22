//! A version on logged examples: the model and what ranks without it on the same candidates, as they would have served.

use std::path::Path;

use crate::registry::{Onnx, Registry};
use crate::scoring::columns;
use crate::scoring::ranker::Model;
use crate::training::{Measured, Wanted, measure};

/// Measures, and says what came out.
pub fn told(registry: &Registry, version: &str, log: &Path, all: bool, onnx: &Onnx) -> Result<String, String> {
    let about = registry.about(version).map_err(|e| e.to_string())?;
    let model = registry.load(version, onnx).map_err(|e| e.to_string())?;
    let later = about.figures.as_ref().map(|figures| figures.held_out_from_ms).filter(|_| !all);
    let measured = measure(&model, &Wanted { against: None, without: model.begins(), log, from: later, auc: true }, || Ok(()))?;
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
    Ok(format!("{version} ({}) on {} examples{which}:\n{}", about.digest(), measured.examples, figures(&model, &measured)))
}

fn figures(model: &Model, measured: &Measured) -> String {
    let without = if model.begins() == columns::FIXED { "the fixed weights'" } else { "the blend's" };
    let ([ours, blend], (low, high)) = (measured.ndcg, measured.ahead);
    let [auc, blend_auc] = measured.auc.map(|auc| auc.map_or("–".to_string(), |auc| format!("{auc:.3}")));
    format!(
        "NDCG@10 {ours:.4}, {without} {blend:.4} (ahead by {low:.4} to {high:.4} in 95 of 100 draws of users)\n\
         AUC {auc}, {without} {blend_auc}\n\
         {} candidates scored, {} in vain\n",
        measured.tally.scored, measured.tally.unscored,
    )
}
