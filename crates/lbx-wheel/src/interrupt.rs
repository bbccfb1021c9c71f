//! Stopping in the middle of a large file: the caller's question, asked between two reads.

use crate::WheelError;

/// Whether to go on. Threads that verify a wheel ask at the same time, hence `Sync`.
#[derive(Clone, Copy)]
pub(crate) struct GoOn<'a>(pub(crate) &'a (dyn Fn() -> bool + Sync));

impl GoOn<'static> {
    /// For work that no one stops.
    pub(crate) const ALWAYS: Self = Self(&|| true);
}

impl GoOn<'_> {
    pub(crate) fn check(self) -> Result<(), WheelError> {
        if (self.0)() { Ok(()) } else { Err(WheelError::Interrupted) }
    }
}
