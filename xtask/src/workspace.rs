//! Where things are in the checkout, and where cargo builds. Paths only; nothing is created here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::{Result, check, process};

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The data of the stand-in images' recipes.
pub(crate) fn standin_recipes() -> PathBuf {
    root().join("images/standin")
}

/// Where assembled stand-in images are kept.
pub(crate) fn standin_images() -> Result<PathBuf> {
    Ok(target()?.join("standin"))
}

/// A program as a release build leaves it.
pub(crate) fn release(program: &str) -> Result<PathBuf> {
    Ok(target()?.join("release").join(program))
}

/// A program as an ordinary build leaves it, with all checks of its own.
pub(crate) fn debug(program: &str) -> Result<PathBuf> {
    Ok(target()?.join("debug").join(program))
}

/// The folder that cargo builds in. Environment and configuration can move it, so cargo is asked, once.
pub(crate) fn target() -> Result<PathBuf> {
    static TARGET: OnceLock<PathBuf> = OnceLock::new();
    if let Some(known) = TARGET.get() {
        return Ok(known.clone());
    }
    let asked = ask(&mut check::command(&["metadata", "--no-deps", "--format-version", "1"]))?;
    Ok(TARGET.get_or_init(|| asked).clone())
}

fn ask(cargo: &mut Command) -> Result<PathBuf> {
    let metadata: Value = serde_json::from_slice(&process::output(cargo)?)?;
    let folder = metadata["target_directory"].as_str().ok_or("cargo does not say where it builds")?;
    Ok(PathBuf::from(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_that_cargo_builds_in_is_where_the_environment_says() {
        if !process::succeeds(&mut check::command(&["--version"])) {
            eprintln!("SKIP: this user cannot start {}", env!("CARGO"));
            return;
        }
        let mut cargo = check::command(&["metadata", "--no-deps", "--format-version", "1"]);
        let moved = ask(cargo.env("CARGO_TARGET_DIR", "/elsewhere/target")).unwrap();
        assert_eq!(moved, Path::new("/elsewhere/target"));
    }

    /// A folder of that name beside the manifest is only the default.
    #[test]
    fn no_task_takes_it_for_granted_that_cargo_builds_in_the_checkout() {
        let mut open = vec![root().join("xtask/src")];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs_err::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let text = fs_err::read_to_string(&path).unwrap();
            let guess = ["root()", ".join(\"target"].concat();
            assert!(!text.contains(&guess), "{}", path.display());
        }
    }
}
