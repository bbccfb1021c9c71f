//! How much there is in a folder that a command writes to while somebody looks.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, fstatat};

/// Folders inside each other that are looked into. Each is a descriptor.
const DEEPEST: usize = 64;

/// What the kernel counts the size of a file in.
const BLOCK: u64 = 512;

const FLAGS: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// The bytes on the disk of all that is in a folder; no more is counted than is needed to know that it is over `enough`.
///
/// Nothing is followed, and what cannot be read counts for nothing: this is to notice a mistake, and not to be a wall.
pub fn bytes_in(folder: &Path, enough: u64) -> u64 {
    let mut sum = 0;
    if let Ok(folder) = open(folder, FLAGS, Mode::empty()) {
        // Things come and go while this looks.
        let _ = add(folder, enough, 0, &mut sum);
    }
    sum
}

/// The bytes that can still be written to a folder's disk by this user.
pub fn room_in(folder: &Path) -> Option<u64> {
    let found = nix::sys::statvfs::statvfs(folder).ok()?;
    Some(found.blocks_available().saturating_mul(found.fragment_size()))
}

fn add(folder: OwnedFd, enough: u64, depth: usize, sum: &mut u64) -> Result<(), Errno> {
    let mut entries = Dir::from_fd(folder)?;
    let names: Vec<_> = entries.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
    for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
        if *sum > enough {
            return Ok(());
        }
        let Ok(stat) = fstatat(&entries, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        // The name takes room too.
        *sum += blocks * BLOCK + BLOCK;
        if stat.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR
            && depth < DEEPEST
            && let Ok(below) = openat(&entries, name.as_c_str(), FLAGS, Mode::empty())
        {
            let _ = add(below, enough, depth + 1, sum);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_and_what_links_lead_to_does_not() {
        let folder = tempfile::tempdir().expect("a directory");
        let far = tempfile::tempdir().expect("a directory");
        fs_err::write(far.path().join("big"), vec![1; 4 << 20]).expect("a file");
        std::os::unix::fs::symlink(far.path(), folder.path().join("link")).expect("a link");
        fs_err::create_dir_all(folder.path().join("a/b")).expect("a directory");
        assert!(bytes_in(folder.path(), u64::MAX) < 1 << 20);
        fs_err::write(folder.path().join("a/b/file"), vec![1; 2 << 20]).expect("a file");
        let all = bytes_in(folder.path(), u64::MAX);
        assert!((2 << 20..3 << 20).contains(&all), "{all}");
    }

    #[test]
    fn a_hole_is_no_room_and_what_is_not_there_neither() {
        let folder = tempfile::tempdir().expect("a directory");
        let file = fs_err::File::create(folder.path().join("file")).expect("a file");
        file.set_len(1 << 40).expect("a hole");
        assert!(bytes_in(folder.path(), u64::MAX) < 1 << 20);
        assert_eq!(bytes_in(&folder.path().join("file"), u64::MAX), 0);
        assert_eq!(bytes_in(&folder.path().join("nothing"), u64::MAX), 0);
    }

    #[test]
    fn nobody_counts_on_when_it_is_enough_or_too_deep() {
        let folder = tempfile::tempdir().expect("a directory");
        for number in 0..100 {
            fs_err::write(folder.path().join(number.to_string()), vec![1; 8192]).expect("a file");
        }
        assert!(bytes_in(folder.path(), 20_000) < 60_000);
        let deep = tempfile::tempdir().expect("a directory");
        fs_err::create_dir_all(deep.path().join("d/".repeat(500))).expect("directories");
        assert!(bytes_in(deep.path(), u64::MAX) < 500 * 8192);
    }
}
