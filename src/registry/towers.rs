//! Two towers on disk: a folder with `item.onnx`, `user.onnx` and `golden.json`, and what these must say and prove before anybody is found by
//! them.
//!
//! `item.onnx` takes `item`, an id, and `tokens`, up to sixteen of the item's, as 64-bit integers (0: none); `user.onnx` takes `history`, the vectors of
//! up to fifty items, the latest first, zeros behind them. Both give a `vector` of 64 numbers. Their metadata say `overdrive.schema` and which
//! tower they are (`overdrive.tower`: `item` or `user`).

use serde::Deserialize;

use super::TOLERANCE;
use crate::model::{ItemId, TokenId};
use crate::scoring::columns;
use crate::scoring::factors::{DIMENSIONS, Vector};
use crate::scoring::ranker::ScoreError;
use crate::scoring::towers::{HISTORY, TOKENS, Tower};

/// The file of what they must give.
pub(super) const GOLDEN: &str = "golden.json";

/// Items and histories with the vectors they must get.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    pub items: Vec<GoldenItem>,
    pub vectors: Vec<Vec<f32>>,
    /// Places among the items, the latest first.
    pub histories: Vec<Vec<usize>>,
    pub users: Vec<Vec<f32>>,
}

/// An item as it is known to the towers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenItem {
    pub item: i64,
    pub tokens: Vec<i64>,
}

impl Golden {
    /// Of the text of its file.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let golden: Self = serde_json::from_slice(text).map_err(|e| format!("its {GOLDEN} is not as it should be: {e}"))?;
        let Self { items, vectors, histories, users } = &golden;
        if items.is_empty() || histories.is_empty() || items.len() != vectors.len() || histories.len() != users.len() {
            let counts = [items.len(), vectors.len(), histories.len(), users.len()];
            return Err(format!(
                "its {GOLDEN} has so many items, vectors, histories and users: {counts:?}; two by two they must be as many"
            ));
        }
        if let Some(at) = vectors.iter().chain(users).position(|vector| vector.len() != DIMENSIONS) {
            return Err(format!("vector {at} of its {GOLDEN} has not {DIMENSIONS} numbers"));
        }
        let wrong = |history: &Vec<usize>| history.len() > HISTORY || history.iter().any(|at| *at >= items.len());
        match histories.iter().position(wrong) {
            Some(at) => Err(format!("history {at} of its {GOLDEN} names more than {HISTORY} items, or one that is not there")),
            None => Ok(golden),
        }
    }

    /// Whether these towers give the vectors they must.
    pub fn agrees(&self, tower: &mut dyn Tower) -> Result<(), String> {
        for (at, (of, wanted)) in self.items.iter().zip(&self.vectors).enumerate() {
            let tokens: Vec<TokenId> = of.tokens.iter().map(|token| TokenId(*token as u64)).collect();
            let got = tower.item(ItemId(of.item as u64), &tokens[..tokens.len().min(TOKENS)]);
            near(
                wanted,
                &got.map_err(|ScoreError(why)| format!("golden item {at} fails: {why}"))?,
                &format!("golden item {at}"),
            )?;
        }
        let vectors: Vec<Vector> = self.vectors.iter().map(|vector| Vector(std::array::from_fn(|at| vector[at]))).collect();
        for (at, (history, wanted)) in self.histories.iter().zip(&self.users).enumerate() {
            let taken: Vec<&Vector> = history.iter().map(|at| &vectors[*at]).collect();
            let got = tower.user(&taken);
            near(
                wanted,
                &got.map_err(|ScoreError(why)| format!("golden user {at} fails: {why}"))?,
                &format!("golden user {at}"),
            )?;
        }
        Ok(())
    }
}

fn near(wanted: &[f32], got: &[f32], what: &str) -> Result<(), String> {
    let far = |(wanted, got): (&f32, &f32)| got.is_nan() || (wanted - got).abs() > TOLERANCE * wanted.abs().max(1.0);
    match wanted.iter().zip(got).position(far) {
        Some(n) => Err(format!("{what}: number {n} of its vector is {} here, it must be {}", got[n], wanted[n])),
        None => Ok(()),
    }
}

/// What a tower says of itself, asked for by key.
pub fn check(which: &str, metadata: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    for (key, wanted) in [("overdrive.schema", columns::SCHEMA), ("overdrive.tower", which)] {
        match metadata(key) {
            Some(said) if said == wanted => {}
            Some(said) => return Err(format!("{which}.onnx says {key} is {said}; here it must be {wanted}")),
            None => return Err(format!("the metadata of {which}.onnx lack `{key}`; export it as training/ does")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(change: impl FnOnce(&mut serde_json::Value)) -> Result<Golden, String> {
        let along = |n: usize| (0..DIMENSIONS).map(|at| if at == n { 1.0 } else { 0.0 }).collect::<Vec<f32>>();
        let mut text = serde_json::json!({
            "items": [{"item": -5, "tokens": [1, -2]}, {"item": 7, "tokens": []}],
            "vectors": [along(5), along(7)], "histories": [[1, 0], []], "users": [along(7), along(0)],
        });
        change(&mut text);
        Golden::read(text.to_string().as_bytes())
    }

    /// Points along the id, or the latest item; told wrong, elsewhere.
    struct Axes {
        turned: bool,
    }

    impl Tower for Axes {
        fn item(&mut self, item: ItemId, tokens: &[TokenId]) -> Result<[f32; DIMENSIONS], ScoreError> {
            let n = (item.0 as i64).unsigned_abs() as usize + usize::from(self.turned && tokens.is_empty());
            Ok(std::array::from_fn(|at| if at == n { 1.0 } else { 0.0 }))
        }

        fn user(&mut self, history: &[&Vector]) -> Result<[f32; DIMENSIONS], ScoreError> {
            let none = std::array::from_fn(|at| if at == 0 { 1.0 } else { 0.0 });
            Ok(history.first().map_or(none, |vector| vector.0))
        }
    }

    #[test]
    fn c14_golden_vectors_must_be_there_fit_and_agree() {
        let good = golden(|_| {}).expect("it is as it should be");
        assert_eq!(good.agrees(&mut Axes { turned: false }), Ok(()));
        let why = good.agrees(&mut Axes { turned: true }).expect_err("it points elsewhere");
        assert_eq!(why, "golden item 1: number 7 of its vector is 0 here, it must be 1");
        for (change, says) in [
            (("/items", serde_json::json!([])), "[0, 2, 2, 2]"),
            (("/users", serde_json::json!([])), "[2, 2, 2, 0]"),
            (("/vectors/1", serde_json::json!([1.0])), "vector 1 of its golden.json has not 64 numbers"),
            (("/histories/0", serde_json::json!([2])), "history 0"),
            (("/histories/1", serde_json::json!(vec![0; 51])), "history 1"),
            (("/items/0/item", serde_json::json!(0.5)), "not as it should be"),
        ] {
            let (at, value) = change;
            let why = golden(|text| *text.pointer_mut(at).expect("it is there") = value).expect_err(says);
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn c14_a_tower_says_which_it_is() {
        let said = |schema: &str, tower: &str| {
            let said = [("overdrive.schema", schema.to_string()), ("overdrive.tower", tower.to_string())];
            check("item", |key| {
                said.iter().find(|(known, value)| *known == key && !value.is_empty()).map(|(_, value)| value.clone())
            })
        };
        assert_eq!(said("1", "item"), Ok(()));
        for (schema, tower, says) in
            [("2", "item", "overdrive.schema is 2"), ("1", "user", "must be item"), ("1", "", "`overdrive.tower`")]
        {
            assert!(said(schema, tower).is_err_and(|why| why.contains(says)), "{says}");
        }
    }
}
