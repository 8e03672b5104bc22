//! All vectors of a matrix at once, sweep by sweep: what the dataflow comes to when nothing changes, and what evaluations measure.

use super::{Base, Gram, Settings, Solver, Vector};

/// Who took what: by user and by item, each in the order the pairs came in.
#[derive(Clone, Debug, Default)]
pub struct Matrix {
    pub users: Vec<Vec<u32>>,
    pub items: Vec<Vec<u32>>,
}

impl Matrix {
    /// Of pairs of a user and an item, each once.
    pub fn of(users: usize, items: usize, pairs: impl IntoIterator<Item = (u32, u32)>) -> Self {
        let mut matrix = Self { users: vec![Vec::new(); users], items: vec![Vec::new(); items] };
        for (user, item) in pairs {
            matrix.users[user as usize].push(item);
            matrix.items[item as usize].push(user);
        }
        matrix
    }

    fn pairs(&self) -> usize {
        self.users.iter().map(Vec::len).sum()
    }
}

/// A matrix and its vectors.
pub struct Batch<'a> {
    matrix: &'a Matrix,
    settings: Settings,
    solver: Solver,
    pub users: Vec<Vector>,
    pub items: Vec<Vector>,
}

impl<'a> Batch<'a> {
    /// Users' vectors as drawn, items' the best there are for them.
    pub fn new(matrix: &'a Matrix, settings: Settings) -> Self {
        let users: Vec<Vector> = (0..matrix.users.len() as u64).map(Vector::drawn).collect();
        let items = vec![Vector::ZERO; matrix.items.len()];
        let mut batch = Self { matrix, settings, solver: Solver::default(), users, items };
        batch.items = half(&mut batch.solver, &settings, &matrix.items, &batch.users);
        batch
    }

    /// Solves every user, then every item.
    pub fn sweep(&mut self) {
        self.users = half(&mut self.solver, &self.settings, &self.matrix.users, &self.items);
        self.items = half(&mut self.solver, &self.settings, &self.matrix.items, &self.users);
    }

    /// Sweeps until one changes the loss by less than `least` of it, `most` times at most; how often it was.
    pub fn converge(&mut self, least: f64, most: usize) -> usize {
        let mut before = f64::INFINITY;
        for sweep in 0..most {
            let loss = self.loss();
            if before - loss < least * loss {
                return sweep;
            }
            before = loss;
            self.sweep();
        }
        most
    }

    /// The loss, divided by the confidence in all pairs.
    pub fn loss(&self) -> f64 {
        let (users, items) = (Gram::of(&self.users), Gram::of(&self.items));
        let alpha = f64::from(self.settings.alpha);
        let mut loss = users.squares(&items) + f64::from(self.settings.reg) * (users.lengths() + items.lengths());
        for (user, taken) in self.matrix.users.iter().enumerate() {
            for item in taken {
                let x = f64::from(self.users[user].dot(&self.items[*item as usize]));
                loss += alpha * (1.0 - x) * (1.0 - x) - x * x;
            }
        }
        let (all, taken) = (self.matrix.users.len() as f64 * self.matrix.items.len() as f64, self.matrix.pairs() as f64);
        loss / (all + (alpha - 1.0) * taken)
    }
}

/// One side, solved against the other.
fn half(solver: &mut Solver, settings: &Settings, rows: &[Vec<u32>], others: &[Vector]) -> Vec<Vector> {
    let base = Base::new(&Gram::of(others), settings);
    let solve =
        |taken: &Vec<u32>| solver.solve(&base, taken.iter().map(|other| &others[*other as usize])).unwrap_or(Vector::ZERO);
    rows.iter().map(solve).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two groups of users with tastes of their own: who took half of a group's items is shown the other half.
    #[test]
    fn the_loss_only_falls_and_tastes_are_found() {
        let pairs = (0..40u32).flat_map(|user| (0..30u32).map(move |item| (user, item)));
        let like = |(user, item): &(u32, u32)| (user % 2 == item % 2) && (user * 7 + item * 3) % 5 > 1;
        let matrix = Matrix::of(40, 30, pairs.filter(like));
        let mut batch = Batch::new(&matrix, Settings { alpha: 5.0, reg: 1.0 });
        let mut before = batch.loss();
        for _ in 0..10 {
            batch.sweep();
            assert!(batch.loss() <= before * 1.000_001, "{} after {before}", batch.loss());
            before = batch.loss();
        }
        let (own, other) = (batch.users[0].dot(&batch.items[0]), batch.users[0].dot(&batch.items[1]));
        assert!(own > 0.02 && own > 20.0 * other.abs(), "{own} {other}");
        assert!(batch.converge(1e-3, 50) < 50);
    }
}
