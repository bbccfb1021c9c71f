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

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn stamp(file: &tempfile::NamedTempFile) -> Stamp {
        Stamp::of(&file.as_file().metadata().unwrap())
    }

    #[test]
    fn content_of_the_same_size_with_its_old_time_has_another_stamp() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs_err::write(file.path(), "one").unwrap();
        let (before, time) = (stamp(&file), file.as_file().metadata().unwrap().modified().unwrap());
        std::thread::sleep(Duration::from_millis(30));
        fs_err::write(file.path(), "two").unwrap();
        file.as_file().set_modified(time).unwrap();
        assert_ne!(stamp(&file), before);
    }

    #[test]
    fn only_what_was_left_alone_for_longer_than_a_tick_is_older() {
        let at = |changed| Stamp { inode: 1, size: 1, mode: 1, modified: 0, changed };
        let now = at(10_000_000_000);
        assert!(at(7_999_999_999).is_older(&now));
        for later in [8_000_000_000, 9_000_000_000, 10_000_000_000, 11_000_000_000] {
            assert!(!at(later).is_older(&now), "{later}");
        }
    }

    #[test]
    fn a_time_that_no_clock_will_show_is_a_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // The year 2400, beyond what nanoseconds in 64 bits can say.
        file.as_file().set_modified(UNIX_EPOCH + Duration::from_hours(430 * 8766)).unwrap();
        assert_eq!(stamp(&file).modified, i64::MAX);
    }
}
