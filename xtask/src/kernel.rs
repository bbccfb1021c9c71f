//! A kernel for tests that need one of their own, run in an emulator: Debian's for virtual machines, as a file.

use std::io::Read;
use std::path::PathBuf;

use tar::Archive;

use crate::image::debian::Apt;
use crate::image::recipe::Architecture;
use crate::{Result, workspace};

/// The release that it is taken from.
const SUITE: &str = "bookworm";
/// Depends on the newest of them.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// Fetches it, unless that was done before, and returns its path.
pub(crate) fn fetch() -> Result<PathBuf> {
    let folder = workspace::target()?.join("kernel");
    let kernel = folder.join("vmlinuz");
    if !kernel.exists() {
        let apt = Apt::open(&folder.join("apt"), SUITE, Architecture::Amd64)?;
        let plan = apt.plan(&[PACKAGE.to_owned()])?;
        let is_kernel = |name: &str| name.starts_with("linux-image-") && name != PACKAGE;
        let package = plan.iter().find(|package| is_kernel(&package.name));
        let package = package.ok_or_else(|| format!("{PACKAGE} of {SUITE} depends on no kernel"))?;
        let image = kernel_in(&apt.files_of(package)?)?;
        let whole = folder.join("vmlinuz.new");
        fs_err::write(&whole, image)?;
        fs_err::rename(whole, &kernel)?;
    }
    Ok(kernel)
}

/// The kernel itself, out of the archive of its package's files.
fn kernel_in(archive: &[u8]) -> Result<Vec<u8>> {
    for entry in Archive::new(archive).entries()? {
        let mut entry = entry?;
        if entry.path_bytes().starts_with(b"./boot/vmlinuz-") {
            let mut image = Vec::new();
            entry.read_to_end(&mut image)?;
            return Ok(image);
        }
    }
    Err("the package of the kernel has no kernel".into())
}
