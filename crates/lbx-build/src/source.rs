//! The user's own code: from a folder of the project to the files that go into an artifact.
//!
//! Links inside the folder are followed, so that the zip holds files alone; a link that leads out of
//! it is an error, because what it names is not part of the source. What tools leave behind is not
//! even read. The order of the result is no concern here: the listing sorts.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lbx_plan::prune;

use crate::error::{Error, SourceError};
use crate::stamp::Stamp;

/// One file of a source folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceFile {
    /// Its path relative to the folder, with `/` between components.
    pub(crate) path: String,
    /// Where to read it.
    pub(crate) location: PathBuf,
    /// Whether its owner may execute it.
    pub(crate) executable: bool,
    /// By what it is known to be what it was.
    pub(crate) stamp: Stamp,
}

/// What a source folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SourceTree {
    /// The files, in no order.
    pub(crate) files: Vec<SourceFile>,
    /// The folders that were read.
    pub(crate) folders: Vec<(PathBuf, Stamp)>,
    /// Folders that were passed over because they belong to a tool; relative, ending in `/`.
    pub(crate) passed_over: Vec<String>,
}

/// Lists the files of `folder`, which is `name` in messages. The real paths in `exclude` do not exist for it: what an
/// earlier build wrote must not change what this one says.
pub(crate) fn walk(folder: &Path, name: &str, exclude: &[PathBuf]) -> Result<SourceTree, Error> {
    let root = fs_err::canonicalize(folder)?;
    let mut walker =
        Walker { root: &root, name, exclude, tree: SourceTree::default(), open: vec![root.clone()] };
    walker.folder(&root, "")?;
    Ok(walker.tree)
}

/// Lists what an include names: the contents of a folder, or one file under its own name.
pub(crate) fn walk_include(path: &Path, name: &str, exclude: &[PathBuf]) -> Result<SourceTree, Error> {
    if fs_err::metadata(path)?.is_dir() {
        return walk(path, name, exclude);
    }
    let file_name = path.file_name().and_then(|name| name.to_str());
    let file_name = file_name.ok_or_else(|| not_utf8(name, path))?;
    let metadata = fs_err::metadata(path)?;
    let (executable, stamp) = (is_executable(&metadata), Stamp::of(&metadata));
    let file = SourceFile { path: file_name.to_owned(), location: path.to_owned(), executable, stamp };
    Ok(SourceTree { files: vec![file], ..SourceTree::default() })
}

struct Walker<'a> {
    root: &'a Path,
    name: &'a str,
    exclude: &'a [PathBuf],
    tree: SourceTree,
    /// The real paths of the folders that are being read, to end on a link that leads back up.
    open: Vec<PathBuf>,
}

impl Walker<'_> {
    fn folder(&mut self, folder: &Path, prefix: &str) -> Result<(), Error> {
        // Before it is read: what is put into it meanwhile makes it another one.
        self.tree.folders.push((folder.to_owned(), Stamp::of(&fs_err::metadata(folder)?)));
        for entry in fs_err::read_dir(folder)? {
            let entry = entry?;
            let file_name = entry.file_name();
            let file_name = file_name.to_str().ok_or_else(|| not_utf8(self.name, &entry.path()))?;
            // By the folder that is open, which is faster than by the whole path.
            let metadata = entry.metadata()?;
            self.entry((&entry.path(), metadata), file_name, &format!("{prefix}{file_name}"))?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        (location, mut metadata): (&Path, std::fs::Metadata),
        file_name: &str,
        path: &str,
    ) -> Result<(), Error> {
        let mut real = location.to_owned();
        if metadata.is_symlink() {
            real = self.follow(location, path)?;
            metadata = fs_err::metadata(&real)?;
        }
        // Both are real paths: where they are the same, they are written alike.
        if self.exclude.iter().any(|excluded| excluded.as_os_str() == real.as_os_str()) {
            return Ok(());
        }
        if metadata.is_dir() {
            return self.subfolder(&real, file_name, path);
        }
        if !metadata.is_file() {
            let found = "a pipe, a socket or a device".to_owned();
            return Err(SourceError::NotAFile {
                source_name: self.name.to_owned(),
                path: path.to_owned(),
                found,
            }
            .into());
        }
        let (executable, stamp) = (is_executable(&metadata), Stamp::of(&metadata));
        self.tree.files.push(SourceFile { path: path.to_owned(), location: real, executable, stamp });
        Ok(())
    }

    fn subfolder(&mut self, real: &Path, file_name: &str, path: &str) -> Result<(), Error> {
        let is_environment = real.join("pyvenv.cfg").is_file();
        if is_environment || prune::is_tool_folder(file_name) {
            self.tree.passed_over.push(format!("{path}/"));
            return Ok(());
        }
        if self.open.iter().any(|open| open == real) {
            let source_name = self.name.to_owned();
            return Err(SourceError::LinkLoop { source_name, path: path.to_owned() }.into());
        }
        self.open.push(real.to_owned());
        self.folder(real, &format!("{path}/"))?;
        self.open.pop();
        Ok(())
    }

    /// The real path behind a link, which must be inside the source folder.
    fn follow(&self, location: &Path, path: &str) -> Result<PathBuf, Error> {
        let target = fs_err::read_link(location)?.display().to_string();
        let (source_name, path) = (self.name.to_owned(), path.to_owned());
        match fs_err::canonicalize(location) {
            Ok(real) if real.starts_with(self.root) => Ok(real),
            Ok(_) => Err(SourceError::LinkLeaves { source_name, path, target }.into()),
            Err(_) => Err(SourceError::LinkDangles { source_name, path, target }.into()),
        }
    }
}

/// The owner's bit alone: the others follow the umask of whoever checked the file out.
fn is_executable(metadata: &std::fs::Metadata) -> bool {
    metadata.permissions().mode() & 0o100 != 0
}

fn not_utf8(name: &str, path: &Path) -> Error {
    SourceError::NotUtf8 { source_name: name.to_owned(), path: path.display().to_string() }.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn paths(tree: &SourceTree) -> Vec<&str> {
        let mut paths: Vec<_> = tree.files.iter().map(|file| file.path.as_str()).collect();
        paths.sort_unstable();
        paths
    }

    fn write(root: &Path, path: &str) {
        let path = root.join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, "x").unwrap();
    }

    #[test]
    fn links_inside_the_source_are_followed_to_files() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "a/real.py");
        symlink("a/real.py", root.path().join("link.py")).unwrap();
        symlink("a", root.path().join("b")).unwrap();
        let tree = walk(root.path(), "src", &[]).unwrap();
        assert_eq!(paths(&tree), ["a/real.py", "b/real.py", "link.py"]);
    }

    #[test]
    fn a_link_that_leaves_the_source_is_an_error_that_names_both_ends() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        symlink(outside.path(), root.path().join("secret")).unwrap();
        let error = walk(root.path(), "src", &[]).unwrap_err().to_string();
        assert!(
            error.contains("src/secret") && error.contains(&outside.path().display().to_string()),
            "{error}"
        );
        fs_err::remove_file(root.path().join("secret")).unwrap();
        symlink("/etc", root.path().join("dir")).unwrap();
        assert!(walk(root.path(), "src", &[]).is_err());
    }

    #[test]
    fn a_link_to_nothing_and_a_link_to_its_own_folder_are_errors() {
        let root = tempfile::tempdir().unwrap();
        symlink("gone", root.path().join("x")).unwrap();
        assert!(walk(root.path(), "src", &[]).unwrap_err().to_string().contains("gone"));
        fs_err::remove_file(root.path().join("x")).unwrap();
        symlink(".", root.path().join("x")).unwrap();
        assert!(walk(root.path(), "src", &[]).unwrap_err().to_string().contains("src/x"));
    }

    #[test]
    fn what_tools_leave_behind_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        for path in
            ["app.py", ".git/config", "env/pyvenv.cfg", "env/bin/python", "dist/old.zip", ".env", "app.zip"]
        {
            write(root.path(), path);
        }
        let tree =
            walk(root.path(), "src", &[root.path().join("dist"), root.path().join("app.zip")]).unwrap();
        assert_eq!(paths(&tree), [".env", "app.py"]);
        let mut passed_over = tree.passed_over;
        passed_over.sort();
        assert_eq!(passed_over, [".git/", "env/"]);
    }

    #[test]
    fn a_pipe_in_the_source_is_an_error_and_is_never_opened() {
        let root = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("mkfifo").arg(root.path().join("pipe")).status().unwrap();
        assert!(status.success());
        assert!(walk(root.path(), "src", &[]).unwrap_err().to_string().contains("src/pipe"));
    }
}
