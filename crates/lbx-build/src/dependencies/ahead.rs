//! Copying ahead: while it is found out what a zip begins with, the bytes that the last one began with are copied. They
//! nearly always are the same, and the kernel copies them on another core.

use std::path::Path;
use std::thread::JoinHandle;

use lbx_archive::copy_prefix;
use tempfile::NamedTempFile;

use super::kept::open_file;
use super::{Part, folder};
use crate::publish::Staging;
use crate::stamp::Stamp;

/// A copy that is being made. Whoever does not take it waits until it is gone.
#[derive(Debug)]
pub(crate) struct Ahead(Option<JoinHandle<Option<Copied>>>);

/// A copy, and by what the file is known that it is one of.
#[derive(Debug)]
struct Copied {
    to: NamedTempFile,
    of: Stamp,
}

impl Ahead {
    /// Begins a copy of a part, if there is one, and it is still kept.
    pub(crate) fn start(cache_dir: &Path, staging: &Staging, key: Option<&str>) -> Option<Self> {
        let bytes = open_file(&folder(cache_dir, key?).join("bytes")).ok()?;
        let mut to = staging.temporary().ok()?;
        Some(Self(Some(std::thread::spawn(move || {
            let metadata = bytes.metadata().ok()?;
            copy_prefix(&bytes, to.as_file_mut(), metadata.len()).ok()?;
            Some(Copied { to, of: Stamp::of(&metadata) })
        }))))
    }

    /// The copy, with its position at the end, if it is one of this part.
    pub(crate) fn take(mut self, part: &Part) -> Option<NamedTempFile> {
        let copied = self.0.take()?.join().ok()??;
        let now = Stamp::of(&part.bytes.as_ref()?.metadata().ok()?);
        // A part that was changed meanwhile has another time of change.
        (copied.of == now).then_some(copied.to)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some(copying) = self.0.take() {
            let _ = copying.join();
        }
    }
}
