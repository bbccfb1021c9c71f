//! A tree that a stranger's programs have made as root: what of it may stay, and that its owner can read it.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::error::Error;

/// Takes away what only a root user could have given: setuid bits, devices, pipes and sockets. Directories can be entered
/// and files be read by their owner, who is not root any more. What says that a lower layer's file is gone stays.
pub(super) fn tame(directory: &Path) -> Result<(), Error> {
    let mode = fs_err::symlink_metadata(directory)?.permissions().mode();
    set_mode(directory, mode, (mode & 0o1777) | 0o700)?;
    for entry in fs_err::read_dir(directory)? {
        let path = entry?.path();
        let found = fs_err::symlink_metadata(&path)?;
        let kind = found.file_type();
        if kind.is_dir() {
            tame(&path)?;
        } else if kind.is_file() {
            let mode = found.permissions().mode();
            set_mode(&path, mode, (mode & 0o777) | 0o400)?;
        } else if !(kind.is_symlink() || kind.is_char_device() && found.rdev() == 0) {
            fs_err::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Each change is one to the disk, and most files need none.
fn set_mode(path: &Path, found: u32, wanted: u32) -> Result<(), Error> {
    if found & 0o7777 != wanted {
        fs_err::set_permissions(path, PermissionsExt::from_mode(wanted))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_a_root_user_alone_could_give_goes_and_what_is_closed_opens() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs_err::create_dir(at("closed")).unwrap();
        for (name, mode) in [("closed/secret", 0o000), ("setuid", 0o6755), ("plain", 0o644)] {
            fs_err::write(at(name), "x").unwrap();
            fs_err::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        fs_err::set_permissions(at("closed"), PermissionsExt::from_mode(0o1000)).unwrap();
        fs_err::os::unix::fs::symlink("/etc/shadow", at("link")).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        // Anybody may make what says that a file is gone.
        for (program, arguments) in [("mkfifo", &["pipe"][..]), ("mknod", &["gone", "c", "0", "0"])] {
            let made = Command::new(program).args(arguments).current_dir(folder.path()).status();
            assert!(made.unwrap().success());
        }
        tame(folder.path()).unwrap();
        let mode = |name: &str| fs_err::symlink_metadata(at(name)).unwrap().permissions().mode() & 0o7777;
        let modes = ["closed", "closed/secret", "setuid", "plain"].map(mode);
        assert_eq!(modes, [0o1700, 0o400, 0o755, 0o644]);
        assert!(!at("socket").exists() && !at("pipe").exists());
        assert!(fs_err::symlink_metadata(at("gone")).is_ok() && fs_err::symlink_metadata(at("link")).is_ok());
    }
}
