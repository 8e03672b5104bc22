//! What every process of a simulation is given: the defaults but for a few, and the rule that is broken, if one is.

use overdrive::config::{Config, Engine};
use overdrive::dataflows;
use overdrive::model::Names;
use overdrive::scoring::cohorts::{self, Cohort};
use overdrive::scoring::experiments::{Arm, Experiment, Ranks};
use overdrive::sinks::Store;
use overdrive::sinks::changes;
use overdrive::sinks::dead_letters::DeadLetters;
use overdrive::sinks::encode::Encoder;
use overdrive::sinks::writer::{self, Hooks, WriteBehind};
use std::path::Path;
use std::sync::Arc;

use super::mutant::Mutant;

/// What every process of a simulation is given.
#[derive(Clone)]
pub struct Settings {
    pub config: Arc<Config>,
    pub mutant: Option<Mutant>,
}

impl Settings {
    /// The defaults, with epochs of few records, budgets that let somebody wait, the blend that learns, and experiments.
    pub fn new(letters: &Path, mutant: Option<Mutant>) -> Self {
        let mut config = Config::defaults();
        config.engine = Engine { epoch_rows: 5, state_dir: letters.to_path_buf(), ..config.engine };
        config.recommend.slates.busy_refreshes = 90.0;
        config.recommend.learn.enabled = true;
        config.recommend.experiments.list = experiments();
        config.changes.kind = changes::Kind::None;
        Self { config: Arc::new(config), mutant }
    }

    pub fn params(&self) -> &dataflows::Params {
        &self.config.recommend
    }

    /// Whether this rule is broken.
    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// What holds back what is written.
    pub fn writing(&self, names: &Arc<Names>, store: Box<dyn Store>, params: writer::Params) -> WriteBehind {
        let (state_dir, kafka) = (&self.config.engine.state_dir, &self.config.kafka);
        let changes = changes::open(&self.config.changes, state_dir, kafka, names.clone()).expect("there is no feed");
        let dead = DeadLetters::open(state_dir, None).expect("a temporary folder takes letters");
        let lost = |_| panic!("nothing is ever lost here");
        let hooks = Hooks { applied: Box::new(|_| {}), lost: Box::new(lost) };
        WriteBehind::new(store, Encoder::new(names.clone(), &self.config.store), params, changes, dead, hooks)
    }
}

/// One for who named an interest, and one that has some of the others.
fn experiments() -> Vec<Experiment> {
    let arm = |name: &str, ranks| Arm { name: name.into(), weight: 1.0, ranks };
    let arms = || vec![arm("control", Ranks::Blend), arm("fixed", Ranks::Fixed)];
    let interested = cohorts::Params { interests: Some(vec!["c1".into()]), ..cohorts::Params::default() };
    let of = |name: &str, rollout, cohort| Experiment { name: name.into(), rollout, cohort, arms: arms() };
    vec![of("interested", 0.8, interested.into()), of("some", 0.5, Cohort::default())]
}
