//! What dpkg would know of the packages of an image, had it installed them, and where apt looks for others.

use std::fmt::Write as _;
use std::io::Read;

use tar::Archive;

use super::debian::{Apt, Package};
use super::recipe::PackageManager;
use super::tree::Tree;
use crate::Result;

/// Where dpkg has all that it knows.
const DPKG: &str = "var/lib/dpkg";

/// Adds it, for all packages but those that are not to be known.
pub(crate) fn add(apt: &Apt, packages: &[Package], manager: &PackageManager, tree: &mut Tree) -> Result<()> {
    let mut status = String::new();
    for package in packages.iter().filter(|package| !manager.unrecorded.contains(&package.name)) {
        let stanza = record(apt, package, tree)?;
        writeln!(status, "{stanza}")?;
    }
    tree.add_file(&format!("{DPKG}/status"), 0o644, status.into_bytes());
    for folder in ["info", "updates", "triggers", "parts", "alternatives"] {
        tree.add_directory(&format!("{DPKG}/{folder}"), 0o755);
    }
    tree.add_file(&format!("{DPKG}/info/format"), 0o644, *b"1\n");
    tree.add_file(&format!("{DPKG}/available"), 0o644, *b"");
    for folder in ["var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/cache/debconf"] {
        tree.add_directory(folder, 0o755);
    }
    tree.add_file("etc/apt/sources.list.d/standin.sources", 0o644, apt.source()?);
    Ok(())
}

/// Adds what dpkg keeps of one package, and returns its part of the status.
fn record(apt: &Apt, package: &Package, tree: &mut Tree) -> Result<String> {
    let control = apt.control_of(package)?;
    let mut files = Vec::new();
    for entry in Archive::new(control.as_slice()).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        let mut data = Vec::new();
        entry.read_to_end(&mut data)?;
        files.push((path, entry.header().mode()? & 0o777, data));
    }
    let stanza = files.iter().find(|(path, ..)| path == "control").map(|(.., data)| data.as_slice());
    let stanza =
        String::from_utf8(stanza.ok_or_else(|| format!("{}: no control file", package.name))?.into())?;
    // Packages of several architectures may be there at once, and have it in their files' names.
    let is_shared = stanza.lines().any(|line| line == "Multi-Arch: same");
    let name =
        if is_shared { format!("{}:{}", package.name, package.architecture) } else { package.name.clone() };
    for (path, mode, data) in files.iter().filter(|(path, ..)| path != "control" && !path.is_empty()) {
        tree.add_file(&format!("{DPKG}/info/{name}.{path}"), *mode, data.as_slice());
    }
    let list = list(&apt.archive_of(package)?)?;
    tree.add_file(&format!("{DPKG}/info/{name}.list"), 0o644, list.into_bytes());
    let (first, rest) = stanza.split_once('\n').unwrap_or((&stanza, ""));
    Ok(format!("{first}\nStatus: install ok installed\n{rest}"))
}

/// The paths of a package, as dpkg lists them.
fn list(archive: &[u8]) -> Result<String> {
    let mut list = String::from("/.\n");
    for entry in Archive::new(archive).entries()? {
        let path = String::from_utf8(entry?.path_bytes().into_owned())?;
        let path = path.trim_start_matches("./").trim_end_matches('/');
        if !path.is_empty() {
            writeln!(list, "/{path}")?;
        }
    }
    Ok(list)
}
