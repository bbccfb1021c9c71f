//! What the operating system said, at the bottom of an error.

use std::io;
use std::path::Path;
use std::sync::Arc;

use lbx_wheel::WheelError;

use super::Error;

impl Error {
    /// Something in a store that may only be read had to be written: says so of the whole store. Which file it was tells
    /// nobody anything.
    pub(crate) fn in_closed_store(self, store: &Path) -> Self {
        let place = store.display().to_string();
        let is_closed = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
                && error.to_string().contains(&place)
        };
        match find_io(&self, is_closed).map(io::Error::kind) {
            Some(io::ErrorKind::ReadOnlyFilesystem) => Self::closed(store, rustix::io::Errno::ROFS),
            Some(_) => Self::closed(store, rustix::io::Errno::ACCESS),
            None => self,
        }
    }

    fn closed(store: &Path, said: rustix::io::Errno) -> Self {
        Self::store(lbx_image::Error::Unwritable { path: store.to_owned(), source: said.into() })
    }
}

/// How the system says that something could not be written for want of room, if it does, at whatever depth.
pub(super) fn no_space(error: &Error) -> Option<io::ErrorKind> {
    let is_full =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    find_io(error, is_full).map(io::Error::kind)
}

/// The first I/O error of this kind, at whatever depth.
fn find_io(error: &Error, is_it: impl Fn(&io::Error) -> bool) -> Option<&io::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(found) = io_error(error).filter(|error| is_it(error)) {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// An I/O error, also one inside a transparent variant, which a walk along `source()` passes over.
fn io_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    if let Some(Error::Io(error)) = error.downcast_ref() {
        return Some(error);
    }
    // Boxed where it stands in this crate's errors, and the box is what is seen.
    let wheel = error.downcast_ref().or_else(|| error.downcast_ref::<Box<WheelError>>().map(|b| &**b));
    if let Some(WheelError::Io(error)) = wheel {
        return Some(error);
    }
    let index = match error.downcast_ref() {
        // Transparent, so that its own causes are seen, and not itself.
        Some(Error::Index(boxed)) => Some(&**boxed),
        _ => error.downcast_ref().or_else(|| error.downcast_ref::<Arc<lbx_index::Error>>().map(|b| &**b)),
    };
    if let Some(lbx_index::Error::Io(error)) = index {
        return Some(error);
    }
    error.downcast_ref()
}
