//! Tries every backend, to say what works here and what does not. Runs no command.

use std::path::Path;

use nix::errno::Errno;

use crate::backend::{Backend, Claims};
use crate::error::Error;
use crate::launch::Launcher;

impl Launcher {
    /// Runs the self-test of every backend, all at the same time, strongest first in the result.
    ///
    /// `scratch` is as for [`Launcher::choose`], which asks for no more than it needs.
    pub fn survey(&self, scratch: &Path) -> Vec<(Backend, Result<Claims, Error>)> {
        let mut found: Vec<_> = std::thread::scope(|scope| {
            let test = |backend| scope.spawn(move || self.test(backend, scratch));
            let tests: Vec<_> = Backend::all().map(|backend| (backend, test(backend))).collect();
            let result = |(backend, test): (Backend, std::thread::ScopedJoinHandle<'_, _>)| {
                let result =
                    test.join().unwrap_or_else(|_| Err(Error::Spec("the self-test panicked".to_owned())));
                (backend, result)
            };
            tests.into_iter().map(result).collect()
        });
        for (backend, result) in &mut found {
            // The others may have been what used a limit up.
            if result.as_ref().is_err_and(is_limit) {
                *result = self.test(*backend, scratch);
            }
        }
        found
    }
}

fn is_limit(error: &Error) -> bool {
    let Error::Setup { failure, .. } = error else { return false };
    matches!(
        Errno::from_raw(failure.errno),
        Errno::EAGAIN | Errno::ENOSPC | Errno::EUSERS | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE
    )
}
