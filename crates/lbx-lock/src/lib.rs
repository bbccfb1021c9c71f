//! File locks between processes, also where a file system has none, as NFS without its lock service and Lustre without
//! an option of its mount.
//!
//! What lbx makes has names that are taken once, is locked while its maker lives, and becomes visible by a rename. So a
//! lock that cannot be had costs little: what killed processes have left stays where it is, and two processes may do the
//! same work. Nothing becomes wrong. Whoever would remove what others use has to ask for a lock that there is.

use std::fs::{File, TryLockError};
use std::io;

use rustix::io::Errno;

/// Who has a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// This process.
    Held,
    /// Another one.
    Taken,
    /// Nobody can tell: there are no locks.
    Unknown,
}

/// Takes a file for this process, if nobody has it.
pub fn claim(file: &File) -> io::Result<Claim> {
    match file.try_lock() {
        Ok(()) => Ok(Claim::Held),
        Err(TryLockError::WouldBlock) => Ok(Claim::Taken),
        Err(TryLockError::Error(error)) if are_missing(&error) => Ok(Claim::Unknown),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Marks a file that this process has just made as its own; false where somebody who removes what is nobody's was
/// faster.
pub fn mark(file: &File) -> bool {
    !matches!(claim(file), Ok(Claim::Taken))
}

/// Whether its maker is gone, so that a file may be removed. Where nobody can tell, it may not.
pub fn is_left_behind(file: &File) -> bool {
    matches!(claim(file), Ok(Claim::Held))
}

/// Waits for a lock that many may have at a time. Where there are none, nobody is waited for.
pub fn share(file: &File) -> io::Result<()> {
    unless_missing(file.lock_shared())
}

/// Waits for a lock that one may have. Where there are none, nobody is waited for.
pub fn take(file: &File) -> io::Result<()> {
    unless_missing(file.lock())
}

fn unless_missing(locked: io::Result<()>) -> io::Result<()> {
    locked.or_else(|error| if are_missing(&error) { Ok(()) } else { Err(error) })
}

/// Whether an error says that a file system has no locks.
pub fn are_missing(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_one_processes_until_it_is_closed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = || file.reopen().unwrap();
        assert!(mark(file.as_file()));
        assert_eq!(claim(&other()).unwrap(), Claim::Taken);
        assert!(!mark(&other()) && !is_left_behind(&other()));
        let path = file.into_temp_path();
        assert!(is_left_behind(fs_err::File::open(&path).unwrap().file()));
    }

    #[test]
    fn only_what_says_that_there_are_no_locks_is_taken_for_it() {
        let errors = [Errno::NOLCK, Errno::NOSYS, Errno::OPNOTSUPP, Errno::IO, Errno::BADF];
        let missing = errors.map(|errno| are_missing(&errno.into()));
        assert_eq!(missing, [true, true, true, false, false]);
        assert!(!are_missing(&io::Error::other("no number")));
    }
}
