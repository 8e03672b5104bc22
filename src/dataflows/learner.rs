//! The weights of the learned blend: every worker keeps them alike, and changes them once an epoch by the sum of what all workers
//! learned in it.
//!
//! The fact that must stay true: refreshes of an epoch read the weights as of the epoch before. They share them with this operator, and
//! the loop in `slates` lets no refresh of an epoch begin before the one before was applied everywhere; so they are the same for
//! any number of workers.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::model::changes::Learned;
use crate::model::{Change, Epoch};
use crate::operators::{Durable, Saver};
use crate::scoring::learned::{Lesson, Model, Params, Ready};

/// The weights, as kept and as scoring reads them.
pub struct Weights {
    pub model: Model,
    pub ready: Ready,
}

/// The weights of one worker, shared by its refreshes and its learner.
pub type Shared = Rc<RefCell<Weights>>;

/// Weights that have learned nothing yet.
pub fn unlearned() -> Shared {
    let model = Model::default();
    Rc::new(RefCell::new(Weights { ready: model.ready(), model }))
}

/// What changes the weights of one worker.
pub struct Learner {
    params: Params,
    shared: Shared,
    /// Whether this worker tells what was learned, and for how many groups it last did.
    tells: bool,
    told: u64,
}

impl Learner {
    /// Of shared weights. One worker `tells`.
    pub fn new(params: Params, shared: Shared, tells: bool) -> Self {
        Self { params, shared, tells, told: 0 }
    }

    /// One epoch.
    pub fn step(&mut self, epoch: &Epoch, lessons: &mut Vec<Arc<Lesson>>, out: &mut Vec<Change>) {
        let mut weights = self.shared.borrow_mut();
        let mut sum = Lesson::default();
        lessons.drain(..).for_each(|lesson| sum.add(&lesson));
        if !sum.is_empty() {
            weights.model.apply(&sum, &self.params);
            weights.ready = weights.model.ready();
        }
        let groups = weights.model.groups;
        if self.tells && epoch.tick() && std::mem::replace(&mut self.told, groups) != groups {
            let serves = self.params.enabled && groups >= self.params.serve_after;
            let linear = weights.model.linear().map(|(name, weight)| (name.to_string(), weight)).collect();
            out.push(Change::Learned(Arc::new(Learned { groups, serves, weights: linear })));
        }
    }
}

impl Durable for Learner {
    const UID: &'static str = "learner/1";

    fn save(&self, into: &mut Saver) {
        let (model, told) = (self.shared.borrow().model.clone(), self.told);
        into.shared(0, 0, move || model);
        into.shared(1, 0, move || told);
    }

    fn load(&mut self, tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        if tag == 1 {
            self.told = postcard::from_bytes(body)?;
            return Ok(());
        }
        let model: Model = postcard::from_bytes(body)?;
        *self.shared.borrow_mut() = Weights { ready: model.ready(), model };
        Ok(())
    }
}
