//! Orders to rank by another model, obeyed where the input is cut: the version is loaded and proven here, on the feed's thread, before
//! the epoch of the order is bound. Workers find it ready, and what cannot be used changes nothing. Orders to train one go to the inbox
//! of whoever trains.
//!
//! The fact that must stay true: what serves in an epoch is bound with it. An epoch that is read again is ranked by the same model, or not
//! read at all.

use std::collections::BTreeSet;

use super::Topics;
use crate::model::epoch::BEGIN_ANEW;
use crate::model::serving::{BLEND, Refusal, Serving};
use crate::model::{Binding, Control, Dead, Input, ModelOrder, Origin, Row};
use crate::registry::{LoadError, RegistryError, Shelf};
use crate::sources::SourceError;
use crate::telemetry;
use crate::training::Inbox;

/// Where versions come from, and where they are asked for.
#[derive(Clone, Default)]
pub struct Models {
    /// `None`: the settings name no registry.
    pub shelf: Option<Shelf>,
    /// `None`: nobody trains here.
    pub inbox: Option<Inbox>,
}

impl Models {
    /// Takes the orders out of the rows of epoch `number` and follows each whose version is good, one after another; yields what serves
    /// from this epoch on, and which were refused. Those become dead letters, and what served before them serves on.
    pub fn obey(&self, number: u64, rows: &mut Vec<Row>, serving: &Serving, topics: &Topics) -> (Serving, Vec<Refusal>) {
        let (mut serving, mut refusals) = (serving.clone(), Vec::new());
        for (origin, order) in take(rows) {
            match self.followed(&serving, &order) {
                Ok(next) => {
                    if next.now != serving.now {
                        let version = next.now.as_ref().map_or(BLEND.to_string(), ToString::to_string);
                        tracing::info!(epoch = number, version, "another model ranks from this epoch on");
                    }
                    metrics::counter!(telemetry::MODEL_ORDERS, "outcome" => "followed").increment(1);
                    serving = next;
                    self.shelf.iter().for_each(|shelf| shelf.keep(&serving));
                }
                Err(reason) => {
                    tracing::warn!(epoch = number, order = %order, reason, "an order is not followed: what ranked serves on");
                    metrics::counter!(telemetry::MODEL_ORDERS, "outcome" => "refused").increment(1);
                    rows.push(refused(origin, &order, &reason, topics));
                    refusals.push(Refusal { partition: origin.partition, offset: origin.offset, reason });
                    serving = serving.refused(number);
                }
            }
        }
        (serving, refusals)
    }

    /// What serves once an order is followed.
    fn followed(&self, serving: &Serving, order: &ModelOrder) -> Result<Serving, String> {
        if let ModelOrder::Train(recipe) = order {
            let inbox = self.inbox.as_ref().ok_or("nobody trains here; set training.enabled")?;
            inbox.ask(*recipe)?;
            return Ok(serving.clone());
        }
        let next = serving.after(order)?;
        match self.ready(&next) {
            Err(RegistryError::Away(why)) => Err(format!("the version cannot be read now, order it again later: {why}")),
            ready => ready.map(|()| next).map_err(|e| e.to_string()),
        }
    }

    /// The same of an epoch that was bound before, as it was bound.
    pub fn repeat(&self, binding: &Binding, rows: &mut Vec<Row>, topics: &Topics) {
        for (origin, order) in take(rows) {
            let is = |refusal: &&Refusal| (refusal.partition, refusal.offset) == (origin.partition, origin.offset);
            if let Some(refusal) = binding.refusals.iter().find(is) {
                rows.push(refused(origin, &order, &refusal.reason, topics));
            }
        }
    }

    /// Epochs are bound to versions: without these nothing can go on. Called before any of them is read again.
    pub fn must_rank<'a>(&self, bound: impl IntoIterator<Item = &'a Binding>) -> Result<(), SourceError> {
        let mut ready = BTreeSet::new(); // many epochs are bound to few versions
        bound.into_iter().filter(|binding| ready.insert(binding.serving.id())).try_for_each(
            |Binding { epoch, serving, .. }| {
                let number = epoch.number;
                self.ready(serving).map_err(|why| match why {
                    RegistryError::Away(why) => {
                        SourceError::Retry(format!("the model that ranks in epoch {number} cannot be read now: {why}"))
                    }
                    RegistryError::Unusable(why) => SourceError::Stop(format!(
                        "epoch {number} is ranked by a model that cannot be used: {why}; put it back, or {BEGIN_ANEW}"
                    )),
                })
            },
        )
    }

    fn ready(&self, serving: &Serving) -> Result<(), RegistryError> {
        match (&serving.now, &self.shelf) {
            (None, _) => Ok(()),
            (Some(version), Some(shelf)) => shelf.fetch(version).map(drop),
            (Some(version), None) => {
                let reason = "it is asked for, and ranker.registry names no folder of versions".to_string();
                Err(LoadError { path: version.to_string().into(), reason }.into())
            }
        }
    }
}

/// Takes every order out of the rows; yields them by partition and place in it.
fn take(rows: &mut Vec<Row>) -> Vec<(Origin, ModelOrder)> {
    let is_order = |row: &mut Row| matches!(row.input, Ok(Input::Control(Control::Model(_))));
    let orders = rows.extract_if(.., is_order).filter_map(|row| match row.input {
        Ok(Input::Control(Control::Model(order))) => Some((row.origin, order)),
        _ => None,
    });
    let mut orders: Vec<_> = orders.collect();
    orders.sort_by_key(|(origin, _)| (origin.partition, origin.offset)); // a clock may step back, offsets do not
    orders
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
    use crate::registry::{Onnx, Registry, Remote};

    fn row(offset: u64, control: Control) -> Row {
        let origin = Origin { role: Role::Control, partition: 0, offset, accepted: -(offset as i64) };
        Row { origin, input: Ok(Input::Control(control)) }
    }

    fn promote(name: Option<&str>) -> Control {
        Control::Model(ModelOrder::Promote(name.map(|name| Version { name: name.into(), digest: 1 })))
    }

    fn topics() -> Topics {
        Role::ALL.map(|role| role.name().into())
    }

    #[test]
    fn orders_count_one_after_another_and_one_that_is_refused_is_the_same_dead_letter_when_it_is_read_again() {
        let (models, forget) = (Models::default(), Control::Forget { user: UserId(1) });
        let of = |name: &str, digest| Some(Version { name: name.into(), digest });
        let served = Serving { now: of("b", 2), ..Serving::default() };
        let all = vec![row(7, promote(None)), row(8, forget.clone()), row(9, promote(Some("a"))), row(3, promote(Some("c")))];
        let mut rows = all.clone();
        let (serving, refusals) = models.obey(5, &mut rows, &served, &topics());
        assert_eq!(
            serving,
            Serving { now: None, before: of("b", 2), refused: Some(5) },
            "the good one between two bad ones counts"
        );
        let letters = |rows: &[Row]| -> Vec<(u64, Dead)> {
            rows.iter().filter_map(|row| Some((row.origin.offset, row.input.clone().err()?))).collect()
        };
        let told = letters(&rows);
        assert_eq!((rows.len(), &rows[0]), (3, &row(8, forget.clone())));
        assert_eq!(told.iter().map(|(offset, dead)| (*offset, dead.offset)).collect::<Vec<_>>(), [(3, 3), (9, 9)]);
        let dead = &told[1].1;
        assert!(
            dead.reason.contains("ranker.registry names no folder") && dead.sample.contains("a (0000000000000001)"),
            "{dead:?}"
        );

        let epoch = Epoch { number: 5, ..Epoch::default() };
        let binding = Binding { epoch, offsets: [].into(), pace: Pace::default(), serving: serving.clone(), refusals };
        let mut again = all.clone();
        models.repeat(&binding, &mut again, &topics());
        assert_eq!(letters(&again), told, "word for word");

        // cut apart it comes to the same
        let (mut apart, mut numbers) = (served, 5..);
        for one in [3, 0, 2].map(|at: usize| all[at].clone()) {
            apart = models.obey(numbers.next().expect("no end"), &mut vec![one], &apart, &topics()).0;
        }
        assert_eq!((apart.now, apart.before), (serving.now, serving.before));

        let lost = Binding { serving: Serving { now: of("a", 1), ..Serving::default() }, ..binding };
        let Err(SourceError::Stop(why)) = models.must_rank([&lost]) else { panic!("it is not there") };
        assert!(why.contains("epoch 5 is ranked by a model") && why.contains("begin anew"), "{why}");

        // what cannot be read now may be there: the start is tried again, the order is not
        let dir = tempfile::tempdir().expect("a folder");
        let registry = Registry::remote(Remote::out_of_reach(&dir.path().join("store")), dir.path().join("kept"));
        let models = Models { shelf: Some(Shelf::new(registry, &Onnx::on_cpu())), inbox: None };
        let Err(SourceError::Retry(why)) = models.must_rank([&lost]) else { panic!("it may be there") };
        assert!(why.contains("epoch 5 cannot be read now") && why.contains("s3://models/here"), "{why}");
        let (_, refusals) = models.obey(6, &mut vec![row(4, promote(Some("a")))], &Serving::default(), &topics());
        assert!(refusals[0].reason.contains("order it again later"), "{refusals:?}");
    }
}
