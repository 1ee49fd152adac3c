//! How a caller ends an operation that is in progress.

use tokio::sync::watch;

/// How much the caller wants an operation to end. Ordered: a later wish includes an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// Go on.
    #[default]
    GoOn,
    /// Give up as soon as that leaves everything clean: a first Ctrl-C.
    Cancel,
    /// Give up at once, killing CRIU: a second Ctrl-C.
    Kill,
}

/// The end of an [`Interrupt`] that the caller keeps.
#[derive(Debug)]
pub struct Interrupter(watch::Sender<Wish>);

impl Interrupter {
    /// Wishes for more: the first call cancels, the next one kills.
    pub fn insist(&self) {
        self.0.send_modify(|wish| {
            *wish = match wish {
                Wish::GoOn => Wish::Cancel,
                Wish::Cancel | Wish::Kill => Wish::Kill,
            }
        });
    }
}

/// The end that an operation looks at.
#[derive(Clone, Debug)]
pub struct Interrupt(watch::Receiver<Wish>);

impl Interrupt {
    /// Makes both ends. Dropping the [`Interrupter`] changes nothing.
    pub fn pair() -> (Interrupter, Self) {
        let (sender, receiver) = watch::channel(Wish::GoOn);
        (Interrupter(sender), Self(receiver))
    }

    /// One that never comes.
    pub fn never() -> Self {
        Self::pair().1
    }

    /// What is wished for now.
    pub fn wish(&self) -> Wish {
        *self.0.borrow()
    }

    /// Waits until at least `wish` is wished for.
    ///
    /// # Cancellation
    /// Dropping the future changes nothing.
    pub async fn at_least(&mut self, wish: Wish) {
        if self.0.wait_for(|now| *now >= wish).await.is_err() {
            // The caller is gone and has wished for nothing.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn insisting_twice_kills_and_a_dropped_interrupter_means_nothing() {
        let (caller, mut interrupt) = Interrupt::pair();
        assert_eq!(interrupt.wish(), Wish::GoOn);
        caller.insist();
        interrupt.at_least(Wish::Cancel).await;
        assert_eq!(interrupt.wish(), Wish::Cancel);
        caller.insist();
        interrupt.at_least(Wish::Kill).await;
        let mut never = Interrupt::never();
        let waited = tokio::time::timeout(std::time::Duration::from_millis(1), never.at_least(Wish::Cancel));
        assert!(waited.await.is_err());
    }
}
