//! Trees as they are compared: a folder that pip made, and a zip that lbx wrote. The zip is read by a library that is not
//! lbx's own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zip::ZipArchive;

use crate::Result;

/// What is at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Node {
    File {
        bytes: Vec<u8>,
        executable: bool,
    },
    /// With what it points to.
    Symlink(String),
    /// A folder with nothing in it. Others are part of the paths of what they have.
    EmptyFolder,
}

/// Everything, by its path.
pub(super) type Tree = BTreeMap<String, Node>;

/// Reads a folder.
pub(super) fn of_folder(folder: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    read_folder(folder, "", &mut tree)?;
    Ok(tree)
}

fn read_folder(folder: &Path, prefix: &str, tree: &mut Tree) -> Result<()> {
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| format!("{}: not UTF-8", entry.path().display()))?;
        let path = format!("{prefix}{name}");
        let metadata = entry.metadata()?;
        let node = if metadata.is_dir() {
            if fs_err::read_dir(entry.path())?.next().is_some() {
                read_folder(&entry.path(), &format!("{path}/"), tree)?;
                continue;
            }
            Node::EmptyFolder
        } else if metadata.is_symlink() {
            Node::Symlink(fs_err::read_link(entry.path())?.to_string_lossy().into_owned())
        } else {
            let executable = metadata.permissions().mode() & 0o111 != 0;
            Node::File { bytes: fs_err::read(entry.path())?, executable }
        };
        tree.insert(path, node);
    }
    Ok(())
}

/// Reads what a zip has below a folder; it is an error if there is something elsewhere, or with another mode than lbx
/// gives files.
pub(super) fn of_zip(zip: &Path, folder: &str) -> Result<Tree> {
    let mut archive = open(zip)?;
    let mut tree = Tree::new();
    for index in 0..archive.len() {
        let mut member = archive.by_index(index)?;
        let name = member.name()?.into_owned();
        let path = name.strip_prefix(folder).ok_or_else(|| format!("{name} is not below {folder}"))?;
        let mode = member.unix_mode().unwrap_or_default();
        let mut bytes = Vec::with_capacity(usize::try_from(member.size())?);
        member.read_to_end(&mut bytes)?;
        let node = match mode {
            0o100_644 | 0o100_755 => Node::File { bytes, executable: mode == 0o100_755 },
            _ if member.is_symlink() => Node::Symlink(String::from_utf8_lossy(&bytes).into_owned()),
            _ if member.is_dir() => Node::EmptyFolder,
            _ => return Err(format!("{name} has the mode {mode:o}").into()),
        };
        tree.insert(path.to_owned(), node);
    }
    Ok(tree)
}

fn open(zip: &Path) -> Result<ZipArchive<File>> {
    let file = fs_err::File::open(zip)?.into_file();
    ZipArchive::new(file).map_err(|error| format!("{}: {error}", zip.display()).into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn file(bytes: &str, executable: bool) -> Node {
        Node::File { bytes: bytes.into(), executable }
    }

    #[test]
    fn a_folder_is_read_with_modes_links_and_empty_folders() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        fs_err::create_dir_all(at("a/empty")).unwrap();
        fs_err::write(at("a/x"), "x").unwrap();
        fs_err::write(at("run"), "#!").unwrap();
        fs_err::set_permissions(at("run"), std::fs::Permissions::from_mode(0o755)).unwrap();
        symlink("run", at("link")).unwrap();
        let expected = [
            ("a/empty", Node::EmptyFolder),
            ("a/x", file("x", false)),
            ("link", Node::Symlink("run".into())),
            ("run", file("#!", true)),
        ];
        assert_eq!(
            of_folder(folder.path()).unwrap(),
            expected.map(|(path, node)| (path.into(), node)).into()
        );
    }

    /// A zip of files by name and mode.
    fn zip(folder: &Path, files: &[(&str, u32)]) -> PathBuf {
        let path = folder.join("a.zip");
        let mut zip = ZipWriter::new(fs_err::File::create(&path).unwrap().into_file());
        for (name, mode) in files {
            zip.start_file(*name, SimpleFileOptions::default().unix_permissions(*mode)).unwrap();
            zip.write_all(b"x").unwrap();
        }
        zip.finish().unwrap();
        path
    }

    #[test]
    fn a_zip_is_read_with_modes_below_its_folder_and_nothing_may_be_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = zip(folder.path(), &[("python/a/x", 0o644), ("python/run", 0o755)]);
        let expected = [("a/x", file("x", false)), ("run", file("x", true))];
        assert_eq!(
            of_zip(&path, "python/").unwrap(),
            expected.map(|(path, node)| (path.into(), node)).into()
        );
        let path = zip(folder.path(), &[("elsewhere", 0o644), ("python/x", 0o644)]);
        let error = of_zip(&path, "python/").unwrap_err().to_string();
        assert_eq!(error, "elsewhere is not below python/");
    }

    #[test]
    fn a_mode_that_lbx_gives_no_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = zip(folder.path(), &[("python/x", 0o600)]);
        assert_eq!(of_zip(&path, "python/").unwrap_err().to_string(), "python/x has the mode 100600");
    }
}
