//! Orders to rank by another model, obeyed where the input is cut: the version is loaded and proven here, on the feed's thread, before
//! the epoch of the order is bound. Workers find it ready, and what cannot be used changes nothing.
//!
//! The fact that must stay true: what serves in an epoch is bound with it. An epoch that is read again is ranked by the same model, or not
//! read at all.

use crate::model::serving::Serving;
use crate::model::{Binding, Control, Dead, Input, ModelOrder, Origin, Row};
use crate::registry::Shelf;
use crate::sources::SourceError;
use crate::telemetry;

use super::Topics;
use crate::model::epoch::BEGIN_ANEW;

/// Why an order is not followed that was refused before: the reason stands in the log of that time.
const BEFORE: &str = "it was refused when this epoch was first read";

/// Where versions come from; `None`: the settings name no registry.
#[derive(Clone, Default)]
pub struct Models(pub Option<Shelf>);

impl Models {
    /// Takes the orders out of the rows of epoch `number` and follows the last, if its version is good; yields what serves from this
    /// epoch on. An order that is not followed becomes a dead letter, and what served before serves on.
    pub fn obey(&self, number: u64, rows: &mut Vec<Row>, serving: &Serving, topics: &Topics) -> Serving {
        let Some((origin, order)) = take(rows) else { return serving.clone() };
        let followed = serving.after(&order).and_then(|next| self.ready(&next).map(|()| next));
        match followed {
            Ok(next) => {
                self.0.iter().for_each(|shelf| shelf.keep(&next));
                let version = next.now.as_ref().map_or("none".to_string(), ToString::to_string);
                tracing::info!(epoch = number, version, "another model ranks from this epoch on");
                metrics::counter!(telemetry::MODEL_ORDERS, "outcome" => "followed").increment(1);
                next
            }
            Err(reason) => {
                tracing::warn!(epoch = number, order = %order, reason, "an order to rank by a model is not followed: the one before serves on");
                metrics::counter!(telemetry::MODEL_ORDERS, "outcome" => "refused").increment(1);
                rows.push(refused(origin, &order, &reason, topics));
                serving.refused(number)
            }
        }
    }

    /// The same of an epoch that was bound before, as it was bound.
    pub fn repeat(&self, binding: &Binding, rows: &mut Vec<Row>, topics: &Topics) {
        if let Some((origin, order)) = take(rows)
            && binding.serving.refused == Some(binding.epoch.number)
        {
            rows.push(refused(origin, &order, BEFORE, topics));
        }
    }

    /// Epochs are bound to versions: without these nothing can go on. Called before any of them is read again.
    pub fn must_rank<'a>(&self, bound: impl IntoIterator<Item = &'a Binding>) -> Result<(), SourceError> {
        bound.into_iter().try_for_each(|Binding { epoch, serving, .. }| {
            let stop = |reason| {
                let number = epoch.number;
                SourceError::Stop(format!(
                    "epoch {number} is ranked by a model that cannot be used: {reason}; put it back, or {BEGIN_ANEW}"
                ))
            };
            self.ready(serving).map_err(stop)
        })
    }

    fn ready(&self, serving: &Serving) -> Result<(), String> {
        match (&serving.now, &self.0) {
            (None, _) => Ok(()),
            (Some(version), Some(shelf)) => shelf.fetch(version).map(drop),
            (Some(version), None) => Err(format!("{version} is asked for, and ranker.registry names no folder of versions")),
        }
    }
}

/// Takes every order out of the rows; yields the last, by when the log took it.
fn take(rows: &mut Vec<Row>) -> Option<(Origin, ModelOrder)> {
    let is_order = |row: &mut Row| matches!(row.input, Ok(Input::Control(Control::Model(_))));
    let orders = rows.extract_if(.., is_order).filter_map(|row| match row.input {
        Ok(Input::Control(Control::Model(order))) => Some((row.origin, order)),
        _ => None,
    });
    orders.max_by_key(|(origin, _)| (origin.accepted, origin.partition, origin.offset))
}

fn refused(origin: Origin, order: &ModelOrder, reason: &str, topics: &Topics) -> Row {
    let (topic, Origin { partition, offset, .. }) = (topics[origin.role as usize].clone(), origin);
    let dead =
        Dead { topic, partition, offset, reason: format!("the order is not followed: {reason}"), sample: order.to_string() };
    Row { origin, input: Err(dead) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::serving::Version;
    use crate::model::{Epoch, Pace, Role, UserId};

    fn row(offset: u64, control: Control) -> Row {
        let origin = Origin { role: Role::Control, partition: 0, offset, accepted: offset as i64 };
        Row { origin, input: Ok(Input::Control(control)) }
    }

    fn promote(name: Option<&str>) -> Control {
        Control::Model(ModelOrder::Promote(name.map(|name| Version { name: name.into(), digest: 1 })))
    }

    fn topics() -> Topics {
        Role::ALL.map(|role| role.name().into())
    }

    #[test]
    fn the_last_order_of_an_epoch_counts_and_one_that_is_refused_is_a_dead_letter_again_when_it_is_read_again() {
        let (models, forget) = (Models::default(), Control::Forget { user: UserId(1) });
        let served = Serving { before: Some(Version { name: "b".into(), digest: 2 }), ..Serving::default() };
        let all = vec![row(7, promote(None)), row(8, forget.clone()), row(9, promote(Some("a"))), row(3, promote(Some("c")))];
        let mut rows = all.clone();
        let serving = models.obey(5, &mut rows, &served, &topics());
        assert_eq!(serving, Serving { refused: Some(5), ..served.clone() });
        let (offset, dead) = (rows[1].origin.offset, rows[1].input.clone().expect_err("a dead letter"));
        assert_eq!((rows.len(), &rows[0], offset, dead.offset), (2, &row(8, forget.clone()), 9, 9));
        assert!(
            dead.reason.contains("ranker.registry names no folder") && dead.sample.contains("a (0000000000000001)"),
            "{dead:?}"
        );

        let binding =
            Binding { epoch: Epoch { number: 5, ..Epoch::default() }, offsets: [].into(), pace: Pace::default(), serving };
        let mut again = all.clone();
        models.repeat(&binding, &mut again, &topics());
        assert_eq!((again.len(), again[1].origin), (2, rows[1].origin));
        let mut followed = all[..2].to_vec();
        assert_eq!(models.obey(6, &mut followed, &served, &topics()), served, "the blend serves already");
        assert_eq!(followed, [row(8, forget)]);

        let now = Some(Version { name: "a".into(), digest: 1 });
        let lost = Binding { serving: Serving { now, ..Serving::default() }, ..binding };
        let Err(SourceError::Stop(why)) = models.must_rank([&lost]) else { panic!("it is not there") };
        assert!(why.contains("epoch 5 is ranked by a model") && why.contains("begin anew"), "{why}");
    }
}
