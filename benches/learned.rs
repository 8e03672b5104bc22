//! What learning costs: microseconds of CPU per event that is learned from and per request, on one thread, by part. A made-up stream
//! goes through the very stages of the learned blend, ten events an epoch; the last third is measured, and comes at 5,000 events a
//! second. `EVENTS`, `USERS`, `ITEMS` change the workload.

mod common;

use common::{number, thread_cpu};
use overdrive::codec::{Decoder, Limits, json};
use overdrive::dataflows::board::{Board, Post};
use overdrive::dataflows::feature_store::{Fact, FeatureStore, Now};
use overdrive::dataflows::ledger::{Touch, Update, UserDelta};
use overdrive::dataflows::links::Rows;
use overdrive::dataflows::profiles::Profile;
use overdrive::dataflows::sampler::{Sampler, Viewer};
use overdrive::dataflows::tallies::Tallies;
use overdrive::dataflows::trails::{Output, Ring, Trails};
use overdrive::model::{Epoch, Input, ItemId, Names, Origin, Role, UserId};
use overdrive::scoring::learned::{Lesson, Model, Params, Ready, Request, Scores};
use overdrive::sources::synthetic::{self, World};
use rustc_hash::FxHashMap;
use std::hint::black_box;
use std::sync::Arc;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PER_EPOCH: usize = 10;

/// What each part took in microseconds, in the order it is first met.
#[derive(Default)]
struct Parts {
    measured: bool,
    parts: Vec<(&'static str, f64)>,
}

impl Parts {
    fn of<T>(&mut self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let began = thread_cpu();
        let done = work();
        let took = (thread_cpu() - began) * 1e6;
        if self.measured {
            match self.parts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += took,
                None => self.parts.push((name, took)),
            }
        }
        done
    }

    fn print(&self, what: &str, times: u64) {
        let all: f64 = self.parts.iter().map(|(_, sum)| sum).sum();
        let parts: Vec<String> = self.parts.iter().map(|(name, sum)| format!("{name} {:.1}", sum / times as f64)).collect();
        println!("learned: {:.1} µs per {what}: {}", all / times as f64, parts.join(", "));
    }
}

struct Stages {
    trails: Trails,
    tallies: Tallies,
    links: Rows,
    store: FeatureStore,
    board: Board,
    users: FxHashMap<UserId, (Profile, Arc<Ring>)>,
    sampler: Sampler,
    scores: Scores,
    model: Model,
}

impl Stages {
    fn new(links: usize) -> Self {
        Self {
            trails: Trails::default(),
            tallies: Tallies::default(),
            links: Rows::new(links),
            store: FeatureStore::default(),
            board: Board::default(),
            users: FxHashMap::default(),
            sampler: Sampler::default(),
            scores: Scores::default(),
            model: Model::default(),
        }
    }

    /// A user's request, scored.
    fn request(&mut self, user: UserId, epoch: &Epoch, best: usize, ready: &Ready, parts: &mut Parts) -> Request {
        let (profile, ring) = self.users.entry(user).or_default();
        let filter = profile.filter();
        let viewer =
            Viewer { ring, habit: Some([0.0; 3]), city: profile.city(), filter: &filter, liked: &[], near: &[], found: &[] };
        let now = Now::at(epoch.clock_ms);
        let (sampler, store, scores) = (&mut self.sampler, &self.store, &mut self.scores);
        let known = parts.of("candidates", || sampler.gather(&viewer, store, &now, best, &[]));
        let request = parts.of("features", || sampler.describe(known, &viewer, store, &now, &self.model.means));
        parts.of("scores", || ready.score(&request, scores));
        request
    }

    fn taken(&self, delta: &UserDelta) -> Vec<usize> {
        let place = |update: &Update| self.sampler.drawn.iter().position(|d| self.store.item(d.slot).id == update.item);
        delta.updates.iter().filter_map(place).take(1).collect()
    }

    /// What an epoch changes.
    fn learn(&mut self, epoch: &Epoch, deltas: &[Arc<UserDelta>], parts: &mut Parts) {
        let (mut out, mut counts, mut links, mut facts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        parts.of("trails", || self.trails.step(epoch, &mut deltas.to_vec(), &mut out));
        for output in out {
            match output {
                Output::Ring(user, ring) => self.users.entry(user).or_default().1 = ring,
                Output::Count(count) => counts.push(count),
                Output::Link(link) => links.push(link),
            }
        }
        let (mut tallies, mut rows) = (Vec::new(), Vec::new());
        parts.of("tallies", || self.tallies.step(epoch, &mut counts, &mut tallies));
        parts.of("links", || self.links.step(epoch, &mut links, &mut rows));
        facts.extend(tallies.into_iter().map(|(item, tally)| Fact::Tally(item, tally)));
        facts.extend(rows.into_iter().map(Fact::Row));
        parts.of("store", || facts.drain(..).for_each(|fact| self.store.take(fact)));
        deltas.iter().for_each(|delta| drop(self.users.entry(delta.user).or_default().0.take(delta)));
    }
}

/// Epochs of what users took.
fn stream(world: &World) -> Vec<(Epoch, Vec<Arc<UserDelta>>)> {
    let mut positive: Vec<_> = world.events().filter(|row| row.kind.is_positive()).collect();
    let two_thirds = positive.len() / 3 * 2;
    let (slow, fast) = positive.split_at_mut(two_thirds);
    let began = slow.last().map_or(0, |row| row.at);
    fast.iter_mut().enumerate().for_each(|(n, row)| row.at = began + n as i64 / 5);
    let delta = |row: &synthetic::Row| {
        let (user, item) = (UserId::of(world.user_name(row.user)), ItemId::of(world.item_name(row.item)));
        let origin = Origin { offset: row.number, ..Origin::default() };
        let update = Update { item, kind: row.kind, at: row.at, value_milli: None, origin, facts: None, diff: 1 };
        let touch = Touch { positive: Some((row.at, row.at)), kind: Some(row.kind), seen: Some(row.at), against: None };
        Arc::new(UserDelta { user, updates: vec![update], touches: vec![(item, Some(touch))], ..UserDelta::default() })
    };
    let epoch = |(number, rows): (usize, &[synthetic::Row])| {
        let epoch = Epoch { number: number as u64, clock_ms: rows[rows.len() - 1].at, ..Epoch::default() };
        (epoch, rows.iter().map(delta).collect())
    };
    positive.chunks(PER_EPOCH).enumerate().map(epoch).collect()
}

fn describe(world: &World, stages: &mut Stages) {
    let decoder = Decoder::new(Arc::new(Names::default()), Limits::PUBLISHED);
    for item in world.items() {
        let decoded = decoder.decode(Role::Items, Some(item.item_id.as_bytes()), Some(&json::bytes(&item)), 0);
        if let Ok(Input::Item(item, facts)) = decoded {
            stages.store.describe(item, facts.as_deref());
            stages.board.post(Post::Item(item, facts));
        }
    }
}

fn main() {
    let params: Params = overdrive::config::Config::defaults().recommend.learn;
    let (events, users, items) = (number("EVENTS", 100_000), number("USERS", 5_000), number("ITEMS", 5_000));
    let world = World::new(synthetic::Params::sized(events, users as u32, items as u32)).expect("good parameters");
    let epochs = stream(&world);
    let mut stages = Stages::new(params.links);
    describe(&world, &mut stages);
    let (mut learned, mut requested, mut changed) = (Parts::default(), Parts::default(), Parts::default());
    let (mut count, mut candidates, mut ring) = (0u64, 0usize, 0usize);
    for (n, (epoch, deltas)) in epochs.iter().enumerate() {
        let measured = n >= epochs.len() / 3 * 2;
        (learned.measured, requested.measured, changed.measured) = (measured, measured, measured);
        let (ready, mut lesson) = (stages.model.ready(), Lesson::default());
        if measured || n % 10 == 0 {
            for delta in deltas {
                let request = stages.request(delta.user, epoch, params.per_source, &ready, &mut learned);
                let taken = stages.taken(delta);
                learned.of("gradient", || ready.teach(&request, &stages.scores, &taken, &mut lesson));
            }
        }
        learned.of("weights", || {
            stages.model.apply(&lesson, &params);
            black_box(stages.model.ready());
        });
        stages.learn(epoch, deltas, &mut changed);
        for delta in deltas.iter().filter(|_| measured) {
            let request = stages.request(delta.user, epoch, params.per_source, &ready, &mut requested);
            requested
                .of("reasons", || (0..request.rows.len()).for_each(|i| _ = black_box(ready.adds(&request, &stages.scores, i))));
            (count, candidates) = (count + 1, candidates + request.rows.len());
            ring += stages.users[&delta.user].1.items.len();
        }
    }
    let mean = |sum: usize| sum as f64 / count as f64;
    println!("learned: {} requests of {:.0} candidates, users with {:.0} items", count, mean(candidates), mean(ring));
    requested.print("request", count);
    learned.print("lesson", count);
    changed.print("event's state", count);
    let all = [&learned, &changed].iter().flat_map(|parts| &parts.parts).map(|(_, sum)| sum).sum::<f64>();
    println!("learned: {:.1} µs per learned event", all / count as f64);
}
