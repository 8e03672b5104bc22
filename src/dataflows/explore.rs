//! Explored places: a few of a slate's, for items of which too little is known to tell whether they are good.
//!
//! Thompson sampling. What is believed of an item's rate is a beta distribution: of how often it was shown in the last day and what
//! came of it, over the prior of `[signals]`. A number is drawn from it, and the highest draws get the places: the less is known of an
//! item, the further its draws scatter, and the sooner it has its turn.
//!
//! The facts that must stay true: what chance there is in a draw holds for an hour and follows from user, item and hour alone, so
//! that a slate moves with what is known and not by itself, and every machine draws the same; and an item that was shown enough, or is
//! not young any more, is not explored.

use super::ExploreParams;
use super::board::{Board, Card};
use super::profiles::Filter;
use super::trending::{List, Order};
use crate::model::changes::Scope;
use crate::model::ids::lot;
use crate::model::rng::Rng;
use crate::model::signals::{Priors, Tried};
use crate::model::time::{HOUR, Millis};
use crate::model::{ItemId, UserId};
use crate::scoring::first::first;
use crate::scoring::terms::Viewer;

/// What is explored, and how much of it.
pub struct Explore {
    params: ExploreParams,
    /// Imagined showings that came to something, and that did not.
    prior: [f64; 2],
}

/// Whom it is explored for, and when.
pub struct Explorer<'a> {
    pub user: UserId,
    pub clock: Millis,
    pub filter: &'a Filter<'a>,
    pub viewer: &'a Viewer,
}

impl Explore {
    /// With the prior of the click-through rate.
    pub fn new(params: ExploreParams, priors: Priors) -> Self {
        Self { params, prior: [priors.ctr * priors.strength, (1.0 - priors.ctr) * priors.strength] }
    }

    /// Where the explored places are in a slate of so many, from 0.
    pub fn places(&self, slate: usize) -> impl Iterator<Item = usize> + use<> {
        let (every, slots) = (self.params.every, self.params.slots);
        (1..=slots).map(move |n| n * every - 1).take_while(move |place| *place < slate)
    }

    /// Up to `most` items to explore, the most promising first; none for which `shown` holds.
    pub fn pick<'b>(
        &self,
        explorer: &Explorer,
        board: &'b Board,
        most: usize,
        shown: impl Fn(ItemId) -> bool,
    ) -> Vec<(ItemId, &'b Card)> {
        let Explorer { user, clock, filter, .. } = *explorer;
        let hour = (clock / HOUR) as u64;
        let list = board.list(List { order: Order::Untried, scope: Scope::Global });
        let young = list.iter().take_while(|(_, created)| clock - created <= self.params.young).map(|(item, _)| *item);
        let turn = |item: ItemId| lot(user.0 ^ item.0.rotate_left(17) ^ hour.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let turns = young.filter(|item| !shown(*item)).map(|item| (turn(item), item)).collect();
        let drawn = first(turns, self.params.drawn, |a: &(f64, ItemId), b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let promise = |(_, item): (f64, ItemId)| {
            let card = board.item(item);
            let tried = card.warmth.and_then(|warmth| warmth.tried).unwrap_or_default();
            let promise = self.draw(user, item, hour, tried) * (1.0 + explorer.fit(card));
            filter.passes(item, card.gate.as_ref()).then_some((promise, item, card))
        };
        let promising = drawn.into_iter().filter_map(promise).collect();
        let best = first(promising, most, |a: &(f64, ItemId, &Card), b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        best.into_iter().map(|(_, item, card)| (item, card)).collect()
    }

    /// A rate that may be the item's.
    fn draw(&self, user: UserId, item: ItemId, hour: u64, tried: Tried) -> f64 {
        let [hits, misses] = self.prior;
        let (taken, left) = (f64::from(tried.taken), f64::from(tried.shown - tried.taken));
        Rng::of(user.0, [item.0, hour]).beta(hits + taken, misses + left)
    }
}

impl Explorer<'_> {
    /// How well an item's categories, tags and author fit what the user likes, 0 to 1.
    fn fit(&self, card: &Card) -> f64 {
        self.viewer.content(&card.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataflows::board::Post;
    use crate::dataflows::profiles::Profile;
    use crate::dataflows::trending::Warmth;
    use crate::model::catalogue::{Item, User};
    use crate::model::changes::Interests;
    use crate::model::ids::{TokenId, TokenKind};
    use crate::model::time::DAY;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const NOW: Millis = 1_000 * DAY;

    fn board(items: &[(u64, Tried, Item, Millis)]) -> Board {
        let mut board = Board::default();
        for (item, tried, facts, _) in items {
            let warmth = Warmth { trending_milli: 0, created: None, tried: Some(*tried) };
            board.post(Post::Item(ItemId(*item), Some(Arc::new(Item { available: true, ..facts.clone() }))));
            board.post(Post::Warmth(ItemId(*item), Some(warmth)));
        }
        let list = items.iter().map(|(item, _, _, created)| (ItemId(*item), *created)).collect();
        board.post(Post::List((List { order: Order::Untried, scope: Scope::Global }, Arc::new(list))));
        board
    }

    fn explore(drawn: usize) -> Explore {
        let params = ExploreParams { slots: 2, every: 10, drawn, shown: 100, young: 3 * DAY };
        Explore::new(params, Priors { ctr: 0.05, engagement: 0.1, strength: 20.0 })
    }

    /// What is picked for each of a thousand users, two items each.
    fn picked(explore: &Explore, board: &Board, interests: Option<&Interests>, clock: Millis) -> BTreeMap<u64, Vec<u64>> {
        let (profile, viewer) = (Profile::default(), Viewer::new(interests, 0, clock, DAY));
        let of = |user| {
            let explorer = Explorer { user: UserId(user), clock, filter: &profile.filter(), viewer: &viewer };
            (user, explore.pick(&explorer, board, 2, |item| item == ItemId(99)).into_iter().map(|(item, _)| item.0).collect())
        };
        (0..1_000u64).map(|user| user.wrapping_mul(0x2545_f491_4f6c_dd1d)).map(of).collect()
    }

    fn share(picked: &BTreeMap<u64, Vec<u64>>, item: u64) -> f64 {
        picked.values().filter(|items| items.first() == Some(&item)).count() as f64 / picked.len() as f64
    }

    fn tried(shown: u32, taken: u32) -> Tried {
        Tried { shown, taken }
    }

    #[test]
    fn c33_of_what_was_tried_the_better_goes_first_and_the_unknown_gets_its_turns() {
        let items = [tried(90, 0), tried(90, 30), tried(0, 0), tried(90, 5)];
        let items: Vec<_> = items.iter().zip(1..).map(|(tried, n)| (n, *tried, Item::default(), NOW)).collect();
        let picked = picked(&explore(16), &board(&items), None, NOW);
        assert!(share(&picked, 2) > 0.9, "what a third took: {}", share(&picked, 2));
        let second = |item| picked.values().filter(|items| items.get(1) == Some(&item)).count();
        assert!(second(3) > 200 && second(3) < 800, "what nobody was shown, before what few took: {}", second(3));
        assert!(second(4) > second(1), "{} {}", second(4), second(1));
    }

    #[test]
    fn c33_a_draw_holds_for_an_hour_and_is_another_after_it() {
        let items: Vec<_> = (0..200).map(|n| (n, tried(0, 0), Item::default(), NOW)).collect();
        let (explore, board) = (explore(16), board(&items));
        let first = picked(&explore, &board, None, NOW);
        assert_eq!(first, picked(&explore, &board, None, NOW + HOUR - 1));
        let later = picked(&explore, &board, None, NOW + HOUR);
        assert!(first.iter().zip(&later).filter(|(a, b)| a != b).count() > 900);
        let explored: std::collections::BTreeSet<u64> = first.values().flatten().copied().collect();
        assert!(explored.len() > 190 && !explored.contains(&99), "every one of them has its turn, but what is shown anyway");
    }

    #[test]
    fn c33_what_fits_goes_before_what_does_not_and_nothing_old_or_blocked_is_explored() {
        let jazz = TokenId::typed(TokenKind::Category, "jazz");
        let facts = |categories: &[TokenId]| Item { categories: categories.into(), ..Item::default() };
        let items = [
            (1, tried(80, 8), facts(&[jazz]), NOW),
            (2, tried(80, 8), facts(&[]), NOW),
            (3, tried(80, 80), facts(&[]), NOW - 3 * DAY - 1),
        ];
        let (explore, board) = (explore(16), board(&items));
        let interests = Interests { long: vec![(jazz, 1.0)], short: vec![], drift: 0.0 };
        let (fits, any) = (picked(&explore, &board, Some(&interests), NOW), picked(&explore, &board, None, NOW));
        assert!(share(&fits, 1) > 0.85 && share(&any, 1) < 0.6, "{} {}", share(&fits, 1), share(&any, 1));
        assert!(fits.values().flatten().all(|item| *item != 3));
        let mut profile = Profile::default();
        profile.said = Some(Arc::new(User { blocked_items: [ItemId(1)].into(), ..User::default() }));
        let viewer = Viewer::new(None, 0, NOW, DAY);
        let explorer = Explorer { user: UserId(7), clock: NOW, filter: &profile.filter(), viewer: &viewer };
        let items: Vec<ItemId> = explore.pick(&explorer, &board, 2, |_| false).into_iter().map(|(item, _)| item).collect();
        assert_eq!(items, [ItemId(2)]);
    }
}
