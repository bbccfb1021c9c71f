//! Compiled modules, as the real images have them: without them every start of pip would compile
//! itself anew. The image's own interpreter makes them, through the image's own loader, so neither
//! root nor a sandbox is needed. Their bytes depend on no time and no path of the host.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::tree::{Node, Tree};
use crate::{Result, process};

/// Where Debian has the loader and the libraries.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Adds the compiled form of every module below the interpreter's library folder. The tree is written
/// out to `root` for that, which must not exist and is left behind.
pub(crate) fn add(tree: &mut Tree, python: &str, root: &Path) -> Result<()> {
    write_out(tree, root)?;
    let modules = format!("var/lang/lib/python{python}");
    let mut command = Command::new(root.join(LIBRARIES).join("ld-linux-x86-64.so.2"));
    command.env_clear().env("PYTHONHOME", root.join("var/lang")).env("PYTHONHASHSEED", "0");
    // Else what the compiler itself imports would be there first, with times and host paths in it.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
        .arg("--library-path")
        .arg(root.join(LIBRARIES))
        .arg(root.join(format!("var/lang/bin/python{python}")));
    // Hash-based and never checked: the unpacked image has other file times than the layers.
    command.args(["-S", "-m", "compileall", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash"]);
    command.arg("-s").arg(root).args(["-p", "/"]).arg(root.join(&modules));
    process::output(&mut command)?;
    collect(root, &modules, tree)
}

/// Writes directories, files and links below `root`; modes only as far as running needs them.
fn write_out(tree: &Tree, root: &Path) -> Result<()> {
    for (path, node) in tree.iter() {
        let place = root.join(path);
        if let Some(parent) = place.parent() {
            fs_err::create_dir_all(parent)?;
        }
        match node {
            Node::Directory { .. } => fs_err::create_dir_all(&place)?,
            Node::Symlink(target) => fs_err::os::unix::fs::symlink(target, &place)?,
            Node::File { mode, data, .. } => {
                fs_err::write(&place, data)?;
                let mode = 0o600 | (mode & 0o111);
                fs_err::set_permissions(&place, std::fs::Permissions::from_mode(mode))?;
            }
        }
    }
    Ok(())
}

/// Takes what was compiled back into the tree.
fn collect(root: &Path, folder: &str, tree: &mut Tree) -> Result<()> {
    for entry in fs_err::read_dir(root.join(folder))? {
        let entry = entry?;
        let name =
            entry.file_name().into_string().map_err(|name| format!("{}: not UTF-8", name.display()))?;
        let path = format!("{folder}/{name}");
        if entry.file_type()?.is_dir() {
            collect(root, &path, tree)?;
        } else if path.contains("/__pycache__/") && tree.get(&path).is_none() {
            tree.add_file(&path, 0o644, fs_err::read(entry.path())?);
        }
    }
    Ok(())
}
