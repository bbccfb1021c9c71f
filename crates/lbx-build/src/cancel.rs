//! One switch that stops a build: thrown by a signal, obeyed by every stage.
//!
//! Asynchronous stages wait for it, loops ask it, and whoever started a process registers how to end it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::error::Error;

/// A switch that is thrown once and stays so. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    notify: Notify,
}

#[derive(Default)]
struct State {
    thrown: bool,
    next: u64,
    actions: BTreeMap<u64, Box<dyn Fn() + Send>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Cancel").finish_non_exhaustive()
    }
}

/// Keeps an action registered; dropping it takes the action back.
#[derive(Debug)]
pub(crate) struct Registered {
    inner: Arc<Inner>,
    key: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.inner.with(|state| state.actions.remove(&self.key));
    }
}

impl Inner {
    /// A panic elsewhere does not make the switch unusable: its state is whole between statements.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Cancel {
    /// A switch that nobody has thrown.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything that watches to stop.
    pub fn cancel(&self) {
        self.inner.with(|state| {
            state.thrown = true;
            state.actions.values().for_each(|action| action());
        });
        self.inner.notify.notify_waiters();
    }

    /// Whether it was thrown.
    pub fn is_cancelled(&self) -> bool {
        self.inner.with(|state| state.thrown)
    }

    /// An error when it was thrown.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Has `action` run when the switch is thrown, or now if it was.
    pub(crate) fn on_cancel(&self, action: impl Fn() + Send + 'static) -> Registered {
        let key = self.inner.with(|state| {
            if state.thrown {
                action();
            }
            state.next += 1;
            state.actions.insert(state.next, Box::new(action));
            state.next
        });
        Registered { inner: Arc::clone(&self.inner), key }
    }

    /// Ends when it is thrown.
    pub(crate) async fn cancelled(&self) {
        loop {
            let notified = self.inner.notify.notified();
            let mut notified = std::pin::pin!(notified);
            // The waiter exists before the question is asked: a throw in between is not missed.
            notified.as_mut().enable();
            if self.is_cancelled() {
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn actions_run_once_thrown_and_not_once_taken_back() {
        let count = Arc::new(AtomicU32::new(0));
        let act = |count: &Arc<AtomicU32>| {
            let count = Arc::clone(count);
            move || {
                count.fetch_add(1, Ordering::SeqCst);
            }
        };
        let cancel = Cancel::new();
        let kept = cancel.on_cancel(act(&count));
        drop(cancel.on_cancel(act(&count)));
        cancel.check().unwrap();
        cancel.cancel();
        assert_eq!(count.load(Ordering::SeqCst), 1);
        assert!(matches!(cancel.check(), Err(Error::Interrupted)));
        drop(kept);
        let _late = cancel.on_cancel(act(&count));
        assert_eq!(count.load(Ordering::SeqCst), 2, "an action that comes late runs at once");
    }
}
