//! By what a file is known to be what it was, without being read: every change to a file changes its stamp, but for one
//! within the clock's tick of an earlier one. Whoever keeps a stamp has to see to that ([`Stamp::is_older`]).

use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

/// What the file system says of a file or a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Stamp {
    inode: u64,
    /// Bytes.
    pub(crate) size: u64,
    mode: u32,
    /// Time of the last modification, in nanoseconds since 1970.
    modified: i64,
    /// Time of the last change of content or of any of the above, which no program can set.
    changed: i64,
}

/// No clock of a file system that anybody builds on is coarser. Nanoseconds.
const COARSEST: i64 = 2_000_000_000;

impl Stamp {
    pub(crate) fn of(metadata: &std::fs::Metadata) -> Self {
        let time = |seconds: i64, nanoseconds: i64| {
            seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
        };
        Self {
            inode: metadata.ino(),
            size: metadata.len(),
            mode: metadata.mode(),
            modified: time(metadata.mtime(), metadata.mtime_nsec()),
            changed: time(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file had been left alone for so long when `other` was made that whatever happened to it later shows.
    pub(crate) fn is_older(&self, other: &Self) -> bool {
        self.changed < other.changed.saturating_sub(COARSEST)
    }
}
