//! Debian packages that a test lets the package manager of a stand-in install: a compiler, and something to compile with.

use std::path::PathBuf;

use crate::image::debian::Apt;
use crate::image::recipe::Architecture;
use crate::{Result, workspace};

/// The release of the image that they are for.
const SUITE: &str = "bookworm";
const PACKAGES: [&str; 3] = ["gcc", "libc6-dev", "zlib1g-dev"];

/// Fetches them with all that they need, unless that was done before, and returns the folder that has them.
pub(crate) fn fetch() -> Result<PathBuf> {
    let folder = workspace::target()?.join("debs");
    let (apt, done) = (folder.join("apt"), folder.join("done"));
    let archives = apt.join("cache/archives");
    if !done.exists() {
        Apt::open(&apt, SUITE, Architecture::Amd64)?.download(&PACKAGES.map(str::to_owned))?;
        fs_err::write(done, "")?;
    }
    Ok(archives)
}
