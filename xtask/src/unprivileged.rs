//! The user that tests run as when the task itself runs as root: lbx is about users without privileges,
//! and a test of that which runs as root proves nothing.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Result, process, workspace};

/// A user id without an entry in any user database, as containers on some platforms have it.
const USER: u32 = 62_000;

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Has the command run as the test user, without root's groups, when this process is root.
pub(crate) fn demote(command: &mut Command) -> &mut Command {
    if is_root() {
        // Setting a user id as root drops the supplementary groups, too.
        command.uid(USER).gid(USER);
    }
    command
}

/// Gives a folder, and what is in it, to the test user.
pub(crate) fn hand_over(folder: &Path) -> Result<()> {
    if is_root() {
        process::output(Command::new("chown").arg("-R").arg(format!("{USER}:{USER}")).arg(folder))?;
    }
    Ok(())
}

/// Lets the test user read a folder and all that is in it, when this process is root.
pub(crate) fn open_to_all(folder: &Path) -> Result<()> {
    if is_root() {
        process::output(Command::new("chmod").args(["-R", "a+rX"]).arg(folder))?;
    }
    Ok(())
}

/// The checkout, if the test user cannot enter it or the folder that cargo builds in, as a copy where that user can.
pub(crate) fn copy_for_tests() -> Result<Option<PathBuf>> {
    let root = workspace::root();
    let target = workspace::target()?;
    if !is_root() || (is_open_to_all(&root)? && can_be_entered(&target)?) {
        return Ok(None);
    }
    let name = root.display().to_string().replace('/', "-");
    let copy = PathBuf::from(format!("/var/tmp/lbx-checkout{name}"));
    fs_err::create_dir_all(&copy)?;
    // What was built before stays, so that the second run is as fast as in the checkout itself.
    let mut copying = Command::new("tar");
    if let Ok(target) = target.strip_prefix(&root) {
        copying.arg(format!("--exclude=./{}", target.display()));
    }
    copying
        .args(["--create", "--exclude=./target", "--exclude=./.git", "--file=-", "--directory"])
        .arg(&root)
        .arg(".");
    let archive = process::output(&mut copying)?;
    let file = copy.join(".checkout.tar");
    fs_err::write(&file, archive)?;
    let mut unpacking = Command::new("tar");
    process::output(
        unpacking.args(["--extract", "--mode=a+rX", "--file"]).arg(&file).arg("--directory").arg(&copy),
    )?;
    open_to_all(&copy)?;
    fs_err::remove_file(&file)?;
    Ok(Some(copy))
}

/// Whether everyone may enter a folder and all above it, and read its manifest.
fn is_open_to_all(folder: &Path) -> Result<bool> {
    Ok(can_be_entered(folder)? && fs_err::metadata(folder.join("Cargo.toml"))?.mode() & 0o004 != 0)
}

/// Whether everyone may enter a folder and all above it.
fn can_be_entered(folder: &Path) -> Result<bool> {
    for path in folder.ancestors() {
        if fs_err::metadata(path)?.permissions().mode() & 0o001 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}
