//! What a command left in a folder, opened by descriptor once the command is dead. Reads none of it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat};

/// A file that a command left behind.
#[derive(Debug)]
pub struct Output {
    /// Its name in the folder.
    pub name: String,
    /// The file itself: no name is asked for again.
    pub file: File,
}

/// Why a folder's files cannot be taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// Under a name that is wanted lies something else than a file.
    #[error("`{name}` is {found}, expected a file")]
    NotAFile {
        /// The name in the folder.
        name: String,
        /// What it is.
        found: &'static str,
    },
    /// The system refuses something.
    #[error("failed to open `{}`", path.display())]
    Io {
        /// What was opened.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Opens the files of a folder whose names are `wanted`, sorted by name. No symlink is followed, and nothing is opened
/// that is not a file: a pipe would wait for a writer, and a device might do something.
///
/// Names that are not UTF-8 are nobody's.
pub fn outputs(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<Output>, OutputError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |errno: nix::errno::Errno| OutputError::Io { path, source: errno.into() }
    };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = open(folder, flags, Mode::empty()).map_err(failed(folder))?;
    let mut entries = Dir::openat(&directory, ".", flags, Mode::empty()).map_err(failed(folder))?;
    let names: Vec<_> = entries.iter().collect::<Result<_, _>>().map_err(failed(folder))?;
    let names = names.iter().filter_map(|entry| entry.file_name().to_str().ok());
    let mut names: Vec<&str> = names.filter(|name| !matches!(*name, "." | "..") && wanted(name)).collect();
    names.sort_unstable();
    names.into_iter().map(|name| take(&directory, folder, name)).collect()
}

fn take(directory: &OwnedFd, folder: &Path, name: &str) -> Result<Output, OutputError> {
    let failed = |errno: nix::errno::Errno| OutputError::Io { path: folder.join(name), source: errno.into() };
    // A look at the thing itself comes first, whatever it is.
    let place = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let stat = openat(directory, name, place, Mode::empty()).and_then(fstat).map_err(failed)?;
    let found = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => None,
        SFlag::S_IFLNK => Some("a symbolic link"),
        SFlag::S_IFDIR => Some("a folder"),
        SFlag::S_IFIFO => Some("a pipe"),
        SFlag::S_IFSOCK => Some("a socket"),
        _ => Some("a device"),
    };
    if let Some(found) = found {
        return Err(OutputError::NotAFile { name: name.to_owned(), found });
    }
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty()).map_err(failed)?;
    let opened = fstat(&file).map_err(failed)?;
    if (opened.st_dev, opened.st_ino) != (stat.st_dev, stat.st_ino) {
        return Err(failed(nix::errno::Errno::ESTALE));
    }
    Ok(Output { name: name.to_owned(), file: file.into() })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_taken_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        fs_err::write(path("b.whl"), "b").expect("a file");
        fs_err::write(path("a.whl"), "a").expect("a file");
        symlink("/etc/passwd", path("c.txt")).expect("a link");
        let wanted = |name: &str| name.ends_with("whl");
        let mut found = outputs(directory.path(), wanted).expect("two files");
        let names: Vec<_> = found.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(names, ["a.whl", "b.whl"], "what is not wanted is not looked at");
        // The name is not asked again.
        fs_err::remove_file(path("a.whl")).expect("removed");
        symlink("/etc/passwd", path("a.whl")).expect("a link");
        let mut text = String::new();
        found[0].file.read_to_string(&mut text).expect("its contents");
        assert_eq!(text, "a");
    }

    #[test]
    fn what_is_no_file_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x.whl");
        let refused = || outputs(directory.path(), |_| true).expect_err("refused").to_string();
        symlink("/etc/passwd", &path).expect("a link");
        assert_eq!(refused(), "`x.whl` is a symbolic link, expected a file");
        fs_err::remove_file(&path).expect("removed");
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
        assert_eq!(refused(), "`x.whl` is a pipe, expected a file");
        fs_err::remove_file(&path).expect("removed");
        fs_err::create_dir(&path).expect("a folder");
        assert_eq!(refused(), "`x.whl` is a folder, expected a file");
        // The folder itself must be one, too.
        let link = directory.path().join("link");
        symlink(directory.path(), &link).expect("a link");
        assert!(matches!(outputs(&link, |_| true), Err(OutputError::Io { .. })));
    }
}
