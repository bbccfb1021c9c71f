//! The part of an image that comes from PyPI: wheels pinned by digest, fetched with the host's pip
//! and put where the interpreter finds them.

use std::io::{Cursor, Read};
use std::path::Path;
use std::process::Command;

use zip::ZipArchive;

use super::layer;
use super::recipe::{Pin, Recipe};
use super::tree::Tree;
use crate::{Result, process, provision};

/// The levels of the C library that every stand-in can load, oldest last.
const PLATFORMS: [&str; 3] = ["manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64"];

/// Interpreters to ask for a pip: the user's choice first, then Debian's.
const PYTHONS: [&str; 2] = ["python3", "/usr/bin/python3"];

/// A wheel that matches its pin.
pub(crate) struct Wheel {
    pub(crate) pin: Pin,
    bytes: Vec<u8>,
}

/// Fetches every wheel that the recipe pins; when `offline`, those that are missing are an error.
pub(crate) fn download(folder: &Path, recipe: &Recipe, offline: bool) -> Result<Vec<Wheel>> {
    let folder = folder.join(&recipe.runtime);
    fs_err::create_dir_all(&folder)?;
    let mut wheels = pinned(&folder, &recipe.pins)?;
    if wheels.len() < recipe.pins.len() && !offline {
        fetch(&folder, recipe)?;
        wheels = pinned(&folder, &recipe.pins)?;
    }
    match recipe.pins.iter().find(|pin| !wheels.iter().any(|wheel| wheel.pin == **pin)) {
        Some(pin) => {
            Err(format!("{}: no file is {} {} with its digest", folder.display(), pin.name, pin.version)
                .into())
        }
        None => Ok(wheels),
    }
}

fn fetch(folder: &Path, recipe: &Recipe) -> Result<()> {
    let python = python_with_pip()?;
    let mut command = Command::new(python);
    command.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
    ]);
    command.args(["--implementation", "cp", "--python-version", &recipe.python]);
    command.args(PLATFORMS.iter().flat_map(|platform| ["--platform", platform]));
    command.arg("--requirement").arg(&recipe.requirements).arg("--dest").arg(folder);
    process::output(command.env("PIP_DISABLE_PIP_VERSION_CHECK", "1"))?;
    Ok(())
}

/// An interpreter on this host that has pip, which is installed if there is none.
pub(crate) fn python_with_pip() -> Result<&'static str> {
    let find = || {
        let has_pip =
            |python: &&str| process::succeeds(Command::new(python).args(["-m", "pip", "--version"]));
        PYTHONS.into_iter().find(has_pip)
    };
    if let Some(python) = find() {
        return Ok(python);
    }
    provision::ensure(&["python3-pip"])?;
    find().ok_or_else(|| "no Python on this host can run pip".into())
}

/// The wheels in the folder that match a pin, in the order of the pins.
fn pinned(folder: &Path, pins: &[Pin]) -> Result<Vec<Wheel>> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let bytes = fs_err::read(entry?.path())?;
        files.push((layer::sha256(&bytes), bytes));
    }
    let mut wheels = Vec::new();
    for pin in pins {
        let wanted = format!("sha256:{}", pin.sha256);
        if let Some(place) = files.iter().position(|(digest, _)| *digest == wanted) {
            wheels.push(Wheel { pin: pin.clone(), bytes: files.swap_remove(place).1 });
        }
    }
    Ok(wheels)
}

/// Adds the wheel's files to the tree, as an installer would below `folder`. Scripts are left to the
/// recipe, which names the few that the image has.
pub(crate) fn install(wheel: &Wheel, folder: &str, tree: &mut Tree) -> Result<()> {
    let name = &wheel.pin.name;
    let mut archive =
        ZipArchive::new(Cursor::new(&wheel.bytes)).map_err(|error| format!("{name}: {error}"))?;
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).map_err(|error| format!("{name}: {error}"))?;
        let member_name = member.name().map_err(|error| format!("{name}: {error}"))?.into_owned();
        let Some(path) = place(&member_name) else { continue };
        let executable = member.unix_mode().is_some_and(|mode| mode & 0o111 != 0);
        let path = format!("{folder}/{path}");
        if let Some(info) = path.strip_suffix("/WHEEL") {
            tree.add_file(&format!("{info}/INSTALLER"), 0o644, *b"pip\n");
        }
        let mut data = Vec::new();
        member.read_to_end(&mut data)?;
        tree.add_file(&path, if executable { 0o755 } else { 0o644 }, data);
    }
    Ok(())
}

/// Where a member goes below the folder of modules, if it goes there at all.
fn place(member: &str) -> Option<&str> {
    if member.ends_with('/') {
        return None;
    }
    let (top, rest) = member.split_once('/').unwrap_or((member, ""));
    let Some((_, "data")) = top.rsplit_once('.') else { return Some(member) };
    let (kind, below) = rest.split_once('/')?;
    ["purelib", "platlib"].contains(&kind).then_some(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn data_folders_are_mapped_as_installers_map_them() {
        assert_eq!(place("six.py"), Some("six.py"));
        assert_eq!(place("a-1.data/purelib/a/b.py"), Some("a/b.py"));
        assert_eq!(place("a-1.data/scripts/run"), None);
        assert_eq!(place("a/"), None);
    }

    #[test]
    fn a_file_with_another_digest_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::write(folder.path().join("six-1-py3-none-any.whl"), "not what was pinned").unwrap();
        let pin = Pin { name: "six".into(), version: "1".into(), sha256: "0".repeat(64) };
        assert!(pinned(folder.path(), &[pin]).unwrap().is_empty());
    }

    #[test]
    fn without_a_network_a_wheel_that_was_not_fetched_before_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe::read(&workspace::standin_recipes(), "python3.11").unwrap();
        let error = download(folder.path(), &recipe, true).err().unwrap().to_string();
        let pin = &recipe.pins[0];
        assert!(
            error.ends_with(&format!("no file is {} {} with its digest", pin.name, pin.version)),
            "{error}"
        );
    }
}
