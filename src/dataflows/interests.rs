//! What each user likes now (half-life one hour) and in general (seven days), in categories, tags and authors.
//!
//! The fact that must stay true: the vectors are a function of the user's retained records, of what the profile names and of when it
//! first did. They are normalised and everything in them decays alike, so the passing of time alone changes nothing and is not
//! emitted.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use timely::dataflow::StreamVec;

use super::InterestsParams;
use super::ledger::{Update, UserDelta};
use crate::model::catalogue::User;
use crate::model::changes::Interests;
use crate::model::decayed::Decayed;
use crate::model::kind::Weights;
use crate::model::time::Millis;
use crate::model::{Epoch, Kind, TokenId, UserId};
use crate::operators::{Arrive, Clock, Durable, Saver, Vault};
use crate::scoring::terms::norm;

/// New interests of a user; `None`: there are none any more.
pub type Change = (UserId, Option<Arc<Interests>>);

/// The stage: each user's changes in, their new interests out.
pub fn interests<'scope>(
    deltas: StreamVec<'scope, u64, Arc<UserDelta>>,
    clock: &Clock,
    params: &super::Params,
    vault: &Vault,
) -> StreamVec<'scope, u64, Change> {
    let state = State::new(params.interests.clone(), params.weights.table());
    deltas.arrive().keep(clock, state, vault, State::step)
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Token {
    short: Decayed,
    long: Decayed,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct OfUser {
    tokens: BTreeMap<TokenId, Token>,
    named: Vec<TokenId>,
    /// Clock of the epoch that named them.
    named_at: Millis,
}

/// The state of one worker: its users, shared with a snapshot that is being written; then copied before they change.
pub struct State {
    params: InterestsParams,
    weights: Weights,
    users: FxHashMap<UserId, Arc<OfUser>>,
}

impl State {
    /// Nothing known yet.
    pub fn new(params: InterestsParams, weights: Weights) -> Self {
        Self { params, weights, users: FxHashMap::default() }
    }

    /// One epoch.
    pub fn step(&mut self, epoch: &Epoch, deltas: &mut Vec<Arc<UserDelta>>, out: &mut Vec<Change>) {
        deltas.sort_by_key(|d| d.user);
        let again = self.retold(epoch, deltas);
        for delta in deltas.drain(..) {
            let of = Arc::make_mut(self.users.entry(delta.user).or_default());
            for update in &delta.updates {
                of.learn(update, &self.params, &self.weights);
            }
            if let Some(profile) = &delta.profile {
                let named = profile.as_deref().map(named).unwrap_or_default();
                if of.named != named {
                    (of.named, of.named_at) = (named, epoch.clock_ms);
                }
            }
            of.prune(epoch.clock_ms, &self.params);
            let empty = of.tokens.is_empty() && of.named.is_empty();
            let interests = (!empty).then(|| Arc::new(of.read(epoch.clock_ms, &self.params)));
            if empty {
                self.users.remove(&delta.user);
            }
            out.push((delta.user, interests));
        }
        for user in again {
            let interests = Some(Arc::new(self.users[&user].read(epoch.clock_ms, &self.params)));
            out.push((user, interests));
        }
    }

    /// The users who are said once more, but for those of whom there is something to say anyway.
    fn retold(&self, epoch: &Epoch, deltas: &[Arc<UserDelta>]) -> BTreeSet<UserId> {
        if epoch.retell.is_none() {
            return BTreeSet::new();
        }
        let said = |user: &UserId| deltas.binary_search_by_key(user, |d| d.user).is_ok();
        self.users.keys().copied().filter(|user| epoch.retells(user.0) && !said(user)).collect()
    }
}

impl Durable for State {
    const UID: &'static str = "interests/1";

    fn save(&self, into: &mut Saver) {
        for (user, of) in self.users.clone() {
            into.own(0, user.0, move || (user, of));
        }
    }

    fn load(&mut self, _tag: u8, body: &[u8]) -> Result<(), postcard::Error> {
        let (user, of) = postcard::from_bytes(body)?;
        self.users.insert(user, Arc::new(of));
        Ok(())
    }
}

/// What a user named at sign-up or follows.
fn named(profile: &User) -> Vec<TokenId> {
    let mut named: Vec<TokenId> = profile.interests.iter().chain(&profile.categories).copied().collect();
    named.sort_unstable();
    named.dedup();
    named
}

/// What an update weighs, in thousandths: the weight of its kind times how strong it was. A dwell or view of 30 s counts once,
/// a longer one up to twice; a completion by its ratio; five stars count once.
fn weight_milli(update: &Update, weights: &Weights) -> i64 {
    let value = update.value_milli.map(i64::from).filter(|v| *v > 0);
    let strength_milli = match (update.kind, value) {
        (Kind::Dwell | Kind::View, Some(v)) => 2_000 * v / (v + 30_000),
        (Kind::Completion, Some(v)) => v.min(1_500),
        (Kind::Rating, Some(v)) => (v / 5).min(2_000),
        _ => 1_000,
    };
    weights.milli(update.kind) * strength_milli / 1_000
}

impl OfUser {
    fn learn(&mut self, update: &Update, params: &InterestsParams, weights: &Weights) {
        let weight = weight_milli(update, weights);
        for token in update.facts.iter().flat_map(|facts| facts.tokens()) {
            let of = self.tokens.entry(token).or_default();
            of.short.add(update.at, weight, update.diff, params.short_half_life);
            of.long.add(update.at, weight, update.diff, params.long_half_life);
        }
    }

    fn prune(&mut self, clock: Millis, params: &InterestsParams) {
        self.tokens.retain(|_, token| {
            token.short.prune(clock, params.short_half_life);
            token.long.prune(clock, params.long_half_life);
            !token.short.is_empty() || !token.long.is_empty()
        });
    }

    fn read(&self, clock: Millis, params: &InterestsParams) -> Interests {
        let short = self.tokens.iter().map(|(t, of)| (*t, of.short.value(clock, params.short_half_life)));
        let mut long: BTreeMap<TokenId, f64> =
            self.tokens.iter().map(|(t, of)| (*t, of.long.value(clock, params.long_half_life))).collect();
        let age = (clock - self.named_at) as f64 / params.long_half_life as f64;
        for token in &self.named {
            *long.entry(*token).or_default() += params.signup_weight * libm::exp2(-age);
        }
        let (short, long) = (strongest(short, params.kept), strongest(long.into_iter(), params.kept));
        let drift = if short.is_empty() || long.is_empty() { 0.0 } else { 1.0 - cosine(&short, &long) };
        Interests { short, long, drift }
    }
}

/// The `kept` largest positive weights, summing to 1.
fn strongest(weights: impl Iterator<Item = (TokenId, f64)>, kept: usize) -> Vec<(TokenId, f64)> {
    let mut positive: Vec<_> = weights.filter(|(_, w)| *w > 0.0).collect();
    positive.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    positive.truncate(kept);
    let sum: f64 = positive.iter().map(|(_, w)| w).sum();
    positive.iter_mut().for_each(|(_, w)| *w /= sum);
    positive
}

fn cosine(a: &[(TokenId, f64)], b: &[(TokenId, f64)]) -> f64 {
    let of = |token: TokenId| b.iter().find(|(t, _)| *t == token).map_or(0.0, |(_, w)| *w);
    let dot: f64 = a.iter().map(|(t, w)| w * of(*t)).sum();
    dot / (norm(a) * norm(b))
}
