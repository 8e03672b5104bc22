//! What costs much to find out and need not be of this moment: one of those who ask finds it out anew, and the others go on with what
//! there is. Where there is nothing yet, they wait.

use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// The latest of it.
pub struct Renewed<T> {
    latest: Mutex<Option<(Instant, T)>>,
    /// Held by whoever finds it out.
    renewing: tokio::sync::Mutex<()>,
}

impl<T: Clone> Renewed<T> {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { latest: Mutex::default(), renewing: tokio::sync::Mutex::default() }
    }

    /// What was found out within `lifetime`, or before that while somebody finds it out anew; else what `find` says, which is not asked
    /// by two at once. What fails leaves what there is.
    pub async fn get<E>(&self, lifetime: Duration, find: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let fresh = || self.last().filter(|(at, _)| at.elapsed() < lifetime).map(|(_, value)| value);
        if let Some(value) = fresh() {
            return Ok(value);
        }
        let _turn = match (self.renewing.try_lock(), self.last()) {
            (Ok(turn), _) => turn,
            (Err(_), Some((_, value))) => return Ok(value),
            (Err(_), None) => self.renewing.lock().await,
        };
        if let Some(value) = fresh() {
            return Ok(value);
        }
        let value = find.await?;
        *self.latest.lock().expect("no panic under the lock") = Some((Instant::now(), value.clone()));
        Ok(value)
    }

    fn last(&self) -> Option<(Instant, T)> {
        self.latest.lock().expect("no panic under the lock").clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::future::{pending, ready};

    const LONG: Duration = Duration::from_secs(3_600);

    async fn found(of: &Renewed<u8>, lifetime: Duration, value: u8) -> Result<u8, Infallible> {
        of.get(lifetime, ready(Ok(value))).await
    }

    #[tokio::test]
    async fn it_is_found_out_once_in_its_lifetime_and_what_fails_leaves_what_there_is() {
        let of = Renewed::new();
        assert_eq!(of.get(LONG, ready(Err::<u8, _>("no"))).await, Err("no"));
        assert_eq!((found(&of, LONG, 1).await, found(&of, LONG, 2).await), (Ok(1), Ok(1)));
        assert_eq!(of.get(Duration::ZERO, ready(Err("no"))).await, Err("no"));
        assert_eq!(found(&of, LONG, 3).await, Ok(1));
        assert_eq!(found(&of, Duration::ZERO, 4).await, Ok(4));
    }

    #[tokio::test]
    async fn who_comes_while_another_finds_it_out_goes_on_with_what_there_is() {
        let of = Renewed::new();
        let (slow, next) = (of.get(LONG, pending::<Result<u8, Infallible>>()), found(&of, LONG, 7));
        let first = tokio::select! {
            biased;
            never = slow => never,
            waits = next => waits,
            () = tokio::task::yield_now() => Ok(0),
        };
        assert_eq!(first, Ok(0), "there is nothing yet: both wait");
        assert_eq!(found(&of, LONG, 1).await, Ok(1), "whoever was to find it out has left");
        let slow = of.get(Duration::ZERO, pending::<Result<u8, Infallible>>());
        let meanwhile = tokio::select! {
            biased;
            never = slow => never,
            value = found(&of, Duration::ZERO, 2) => value,
        };
        assert_eq!(meanwhile, Ok(1));
    }
}
