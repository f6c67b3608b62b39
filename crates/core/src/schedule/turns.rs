//! Parts that have to do something one after the other, in the order of their numbers, whatever order
//! they run in: read the next bytes of a stream, sum what can only be summed in order.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard, watch};

/// What they do it with. Cheap to clone; the clones are one. Parts must be admitted in order: each
/// waits for the one before it.
#[derive(Debug)]
pub(crate) struct Turns<T>(Arc<Inner<T>>);

impl<T> Clone for Turns<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Inner<T> {
    next: watch::Sender<u32>,
    with: Mutex<T>,
}

/// The turn of one part. Dropped before it ends, it is nobody's turn any more.
pub(crate) struct Turn<'a, T> {
    with: MutexGuard<'a, T>,
    next: &'a watch::Sender<u32>,
}

impl<T> Turns<T> {
    /// Part 1 is the first.
    pub(crate) fn new(with: T) -> Self {
        Self(Arc::new(Inner { next: watch::Sender::new(1), with: Mutex::new(with) }))
    }

    /// Waits for the turn of part `number`.
    pub(crate) async fn of(&self, number: u32) -> Turn<'_, T> {
        // The sender lives as long as this does.
        let _ = self.0.next.subscribe().wait_for(|next| *next == number).await;
        Turn { with: self.0.with.lock().await, next: &self.0.next }
    }

    /// What it was done with, once all had their turn; `instead` takes its place.
    pub(crate) fn take(&self, instead: T) -> Option<T> {
        let mut with = self.0.with.try_lock().ok()?;
        Some(std::mem::replace(&mut with, instead))
    }
}

impl<T> Turn<'_, T> {
    /// The next one's turn comes.
    pub(crate) fn end(self) {
        self.next.send_modify(|next| *next += 1);
    }
}

impl<T> Deref for Turn<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.with
    }
}

impl<T> DerefMut for Turn<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.with
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_comes_first_it_goes_by_number() {
        let turns = Turns::new(Vec::new());
        let of = |number| {
            let turns = turns.clone();
            async move {
                let mut turn = turns.of(number).await;
                turn.push(number);
                tokio::task::yield_now().await;
                turn.end();
            }
        };
        futures::join!(of(3), of(1), of(4), of(2));
        assert_eq!(turns.take(Vec::new()).expect("all had theirs"), [1, 2, 3, 4]);
    }
}
