//! Why a build ends without artifacts: one enum, each variant with a kind and perhaps a hint.
//!
//! Messages are lower-case fragments that chain through `source()`. Advice is never in the message; it
//! is [`Error::hint`]. Exit codes are the caller's: it maps [`Error::kind`].

mod cause;
mod hint;
mod system;
mod zip;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lbx_plan::PlanError;

use self::cause::no_space;
pub use self::system::PackagesError;
pub use self::zip::ZipError;
pub use crate::bytecode::BytecodeError;

use crate::page::Page;
use crate::suspect;

/// Why a build ends without artifacts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What the user wrote makes no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A file that should be a short text is far too large.
    #[error("`{path}` has {size} bytes, which no configuration or requirement file has (limit: {limit})")]
    TextTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A name that should be a file's is something else's.
    #[error("`{path}` is not a file")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file that should be text is not.
    #[error("`{path}` is not UTF-8 text")]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// A requirement file is not text in an encoding that lbx reads.
    #[error("the requirement file `{path}` {source}")]
    Encoding {
        /// The file, relative to the project.
        path: String,
        /// Why not.
        source: lbx_plan::EncodingError,
    },
    /// A source or include that the configuration names does not exist.
    #[error("{position}: `{path}` does not exist")]
    SourceMissing {
        /// Where the configuration names it.
        position: String,
        /// The path as written.
        path: String,
    },
    /// A project, archive or folder that requirements name does not exist.
    #[error("`{path}`, which the requirements name, does not exist")]
    PathMissing {
        /// The path, relative to the project.
        path: String,
    },
    /// A source that the configuration names is a file.
    #[error("{position}: the source `{path}` is not a folder")]
    SourceNotAFolder {
        /// Where the configuration names it.
        position: String,
        /// The path as written.
        path: String,
    },
    /// A source or include leads out of the project through a link.
    #[error("{position}: `{path}` is outside the project: it leads to `{target}`")]
    SourceOutside {
        /// Where the configuration names it.
        position: String,
        /// The path as written.
        path: String,
        /// Where it leads.
        target: PathBuf,
    },
    /// A source folder holds something that cannot be packed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The image cannot be had.
    #[error("cannot get the image `{reference}`")]
    Image {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: Box<lbx_image::Error>,
    },
    /// The store cannot be opened.
    #[error("cannot open the store")]
    Store(#[source] Box<lbx_image::Error>),
    /// The folder of wheels cannot be opened.
    #[error("cannot open the store of wheels")]
    WheelStore(#[source] Box<lbx_wheel::WheelError>),
    /// There is no room in the store. Which file it was tells nobody anything: it is gone by then.
    #[error("{} for {what} in the store {}", if *quota { "the disk quota leaves no space" } else { "no space left" }, store.display())]
    NoSpace {
        /// What should have been kept there, in words.
        what: String,
        /// The store.
        store: PathBuf,
        /// Whether it is the user's share of the disk that is full, and not the disk.
        quota: bool,
    },
    /// The image has no Python.
    #[error("the image `{image}` has no Python: tried {}", tried.join(", "))]
    NoPython {
        /// The image.
        image: String,
        /// The interpreters that were looked for.
        tried: Vec<String>,
    },
    /// The image's Python is not the runtime's.
    #[error("the image `{image}` has Python {found}, but {runtime} needs {expected}")]
    WrongPython {
        /// The image.
        image: String,
        /// Its version.
        found: String,
        /// The version that the runtime needs.
        expected: String,
        /// The runtime.
        runtime: String,
    },
    /// The image's Python has no pip.
    #[error("the Python of the image `{image}` has no pip")]
    NoPip {
        /// The image.
        image: String,
    },
    /// This host cannot run the image's programs, which are for another CPU.
    #[error(
        "this host ({host}) cannot run the programs of the image `{image}`, which are for {arch}{}{}",
        if why.is_some() { ": " } else { "" },
        why.as_deref().unwrap_or_default()
    )]
    ForeignCpu {
        /// The image.
        image: String,
        /// The CPU of the image.
        arch: &'static str,
        /// The CPU of this host.
        host: &'static str,
        /// Why there is no emulator for it.
        why: Option<String>,
    },
    /// The image's Python does not run.
    #[error("`{interpreter}` of the image `{image}` does not run ({how}): {output}")]
    PythonFails {
        /// The image.
        image: String,
        /// The interpreter.
        interpreter: String,
        /// How it ended.
        how: String,
        /// What it said.
        output: String,
    },
    /// What a build leaves is not there.
    #[error("`{}` is not there, or not as a build left it", path.display())]
    NotBuilt {
        /// What was looked for.
        path: PathBuf,
    },
    /// What is to be a folder is something else.
    #[error("`{}` is not a folder", path.display())]
    TreeNotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// There is something in a folder that no build has put there.
    #[error("there are files in `{}` that lbx has not made", path.display())]
    TreeNotOurs {
        /// The path.
        path: PathBuf,
    },
    /// Builds run that use the store.
    #[error("the store {} is in use", path.display())]
    StoreInUse {
        /// The store.
        path: PathBuf,
    },
    /// Whether builds run that use the store cannot be found out.
    #[error("cannot lock the store {}", path.display())]
    StoreLock {
        /// The store.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no bytecode.
    #[error(transparent)]
    Bytecode(Box<BytecodeError>),
    /// The sandbox cannot be had.
    #[error("cannot start the sandbox")]
    Sandbox(#[from] lbx_sandbox::Error),
    /// pip says no.
    #[error("pip cannot build the requirements of {requirements} ({how})")]
    Pip {
        /// The requirement files.
        requirements: String,
        /// How pip ended.
        how: String,
        /// What pip said, in full.
        output: String,
        /// What to do about the limit that it met, if it met one.
        met: Option<String>,
    },
    /// pip had no room. It may have been the store's disk or the memory, where temporary files are.
    #[error("no space left for pip's work on {requirements} in the store {} or in memory ({how})", store.display())]
    PipNoSpace {
        /// The requirement files.
        requirements: String,
        /// The store.
        store: PathBuf,
        /// How pip ended.
        how: String,
        /// What pip said, in full.
        output: String,
        /// How much a folder of temporary files holds.
        tmp: Option<u64>,
    },
    /// What the user says of package indexes cannot be, or an index cannot be asked.
    #[error(transparent)]
    Index(Box<lbx_index::Error>),
    /// An index did not give what pip asked for.
    #[error("cannot get the requirements of {requirements}")]
    Fetch {
        /// The requirement files.
        requirements: String,
        /// What pip said, in full.
        output: String,
        /// Why.
        #[source]
        source: Arc<lbx_index::Error>,
    },
    /// A source cannot be built.
    #[error("cannot build {source_name} ({how})")]
    Build {
        /// A file's name, a path or an address.
        source_name: String,
        /// How the build ended.
        how: String,
        /// What it said, in full.
        output: String,
        /// What to do about the limit that it met, if it met one.
        met: Option<String>,
        /// The image of the runtime that has compilers.
        build_image: String,
    },
    /// System packages are not to be had.
    #[error(transparent)]
    Packages(Box<PackagesError>),
    /// A lock was demanded, and there is none that can be used.
    #[error("{lock} cannot be used: {why}")]
    NotLocked {
        /// The lock, relative to the project.
        lock: String,
        /// What is wrong with it.
        why: String,
    },
    /// What `lbx vendor` wrote cannot be used.
    #[error("{} cannot be used: {problem}", path.display())]
    Vendor {
        /// The folder or file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A folder that `lbx vendor` did not make is where it is to write.
    #[error("{} is a folder with something else in it", path.display())]
    VendorInTheWay {
        /// The folder.
        path: PathBuf,
    },
    /// All requirements are locks already.
    #[error("there is nothing to lock: {}", nothing_to_lock(locks))]
    NothingToLock {
        /// The locks.
        locks: Vec<String>,
    },
    /// A package that is to be upgraded is in no lock.
    #[error("there is no package `{name}` to upgrade")]
    UnknownPackage {
        /// The name as written.
        name: String,
    },
    /// Of a package that pip has built itself it is not known from what.
    #[error("{package} cannot be locked: pip has built it itself")]
    NoOrigin {
        /// Name and version.
        package: String,
    },
    /// No file of a locked package is for the target.
    #[error("no file of {package} in {lock} is for {runtime} on {arch}")]
    NothingFits {
        /// Name and version.
        package: String,
        /// The lock, relative to the project.
        lock: String,
        /// The files that there are.
        files: Vec<String>,
        /// The Lambda runtime.
        runtime: String,
        /// The CPU, in Lambda's words.
        arch: String,
    },
    /// A requirement file with hashes lacks what one of its packages requires.
    #[error("{lock} has nothing for `{line}`, which {package} requires")]
    Incomplete {
        /// The file, relative to the project.
        lock: String,
        /// Name and version.
        package: String,
        /// What it requires.
        line: String,
    },
    /// A file of a lock is another package than it says.
    #[error("{file}, which {lock} has for {package}, is {found}")]
    OtherPackage {
        /// The lock, relative to the project.
        lock: String,
        /// Name and version.
        package: String,
        /// The file's name.
        file: String,
        /// Name and version in its metadata.
        found: String,
    },
    /// What is built has code for the CPU of this host, and the artifact is for another one.
    #[error("{} must be built on {arch}", listed(sources.iter().map(|(name, _)| name)))]
    ForeignBuild {
        /// Files' names, paths or addresses, each with the wheel that came of it here.
        sources: Vec<(String, String)>,
        /// The CPU that is wanted, in Lambda's words.
        arch: &'static str,
        /// Why that cannot be done here.
        source: Box<Error>,
    },
    /// A source distribution of an index is an archive of another kind.
    #[error("cannot build {source_name}: only .tar.gz and .zip archives of an index are built")]
    SourceFormat {
        /// The file's name.
        source_name: String,
    },
    /// git does not give a repository.
    #[error("the repository {url} cannot {what}{}{output}", if output.is_empty() { "" } else { ": " })]
    Git {
        /// Its address, without password.
        url: String,
        /// What cannot be done with it.
        what: String,
        /// What git said.
        output: String,
    },
    /// A source says that it needs what cannot be, or more each time that it is asked.
    #[error("the build of {source_name} does not say what it needs")]
    BuildNeeds {
        /// A file's name, a path or an address.
        source_name: String,
    },
    /// A source needs itself to be built.
    #[error("a build needs itself: {chain}")]
    BuildLoop {
        /// The sources, each of which needs the next.
        chain: String,
    },
    /// A backend says that all is well, and there is no wheel.
    #[error("the build of {source_name} left no wheel")]
    NothingBuilt {
        /// A file's name, a path or an address.
        source_name: String,
    },
    /// Nobody says which index there is.
    #[error("there is no package index: nobody names one, and the image's pip knows none")]
    NoIndex,
    /// What build code left under a wheel's name is none, or cannot be opened.
    #[error("cannot take what pip left")]
    Output(#[from] lbx_sandbox::OutputError),
    /// A wheel that pip left behind cannot be used.
    #[error("the wheel `{name}` cannot be used")]
    Wheel {
        /// Its file name.
        name: String,
        /// Why.
        #[source]
        source: Box<lbx_wheel::WheelError>,
    },
    /// A wheel is for another platform than the function runs on.
    #[error("the wheel `{name}` does not run on {runtime} ({arch})")]
    WheelPlatform {
        /// Its file name.
        name: String,
        /// The runtime.
        runtime: String,
        /// The architecture.
        arch: String,
        /// Why.
        #[source]
        source: Box<lbx_wheel::TagMismatch>,
    },
    /// pip left two wheels of one distribution.
    #[error("there are two wheels of one package: `{first}` and `{second}`")]
    TwoWheels {
        /// The file name of one.
        first: String,
        /// The file name of the other.
        second: String,
    },
    /// Two owners claim one path with different bytes.
    #[error("both {first} and {second} have the file `{path}`, with different contents")]
    Conflict {
        /// The path in the zip.
        path: String,
        /// One owner.
        first: String,
        /// The other.
        second: String,
    },
    /// One owner's file is another's folder.
    #[error("`{path}` is a file of {first} and a folder of {second}")]
    FolderConflict {
        /// The path in the zip.
        path: String,
        /// The owner of the file.
        first: String,
        /// The owner of a file below it.
        second: String,
    },
    /// Artifacts that will not work, by what was said of them before.
    #[error("{} not published: see above", listed(artifacts.iter()))]
    Checks {
        /// The page about what was refused, where one was asked for.
        page: Option<Box<Page>>,
        /// Their names.
        artifacts: Vec<String>,
    },
    /// An artifact would hold nothing.
    #[error("the {kind} `{name}` would be empty")]
    Empty {
        /// Function or layer.
        kind: &'static str,
        /// The artifact.
        name: String,
    },
    /// The zip cannot be written.
    #[error("cannot write the zip `{path}`")]
    Archive {
        /// Where it should go.
        path: PathBuf,
        /// Why.
        #[source]
        source: lbx_archive::WriteError,
    },
    /// A zip that is to be compared cannot be read.
    #[error(transparent)]
    Zip(Box<ZipError>),
    /// The operating system refuses something.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A command that may write to the project could write to the store.
    #[error("the store {} and the project {} lie one in the other", store.display(), project.display())]
    StoreInProject {
        /// The store.
        store: PathBuf,
        /// The project's folder.
        project: PathBuf,
    },
    /// A folder cannot be shown to a command, because its name is not text.
    #[error("the name of the folder `{path}` is not UTF-8")]
    FolderName {
        /// The folder.
        path: PathBuf,
    },
    /// The build was asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// Why a source folder cannot be packed. `source_name` is the folder as the configuration names it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A link leads out of the source.
    #[error("the link `{source_name}/{path}` leaves its source: it leads to `{target}`")]
    LinkLeaves {
        /// The folder.
        source_name: String,
        /// The link in it.
        path: String,
        /// What it says.
        target: String,
    },
    /// A link leads to nothing.
    #[error("the link `{source_name}/{path}` leads to `{target}`, which does not exist")]
    LinkDangles {
        /// The folder.
        source_name: String,
        /// The link in it.
        path: String,
        /// What it says.
        target: String,
    },
    /// A link leads to a folder that holds it.
    #[error("the link `{source_name}/{path}` leads to a folder that holds it")]
    LinkLoop {
        /// The folder.
        source_name: String,
        /// The link in it.
        path: String,
    },
    /// Something is neither file, folder nor link.
    #[error("`{source_name}/{path}` is {found}, not a file")]
    NotAFile {
        /// The folder.
        source_name: String,
        /// The path in it.
        path: String,
        /// What it is.
        found: String,
    },
    /// A name is not UTF-8, which zips that every tool reads alike need.
    #[error("the name of `{path}` in `{source_name}` is not UTF-8")]
    NotUtf8 {
        /// The folder.
        source_name: String,
        /// The path.
        path: String,
    },
}

/// What an error is about, for exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// What the user wrote, or the files it names.
    Project,
    /// The image or its registry.
    Image,
    /// The sandbox is not to be had.
    Sandbox,
    /// The requirements cannot be resolved or built.
    Requirements,
    /// The artifact cannot be put together.
    Artifact,
    /// The artifact is there, and will not work.
    Checks,
    /// The operating system refuses something, such as room on the disk.
    System,
    /// The build was asked to stop.
    Interrupted,
}

/// A list as people say it.
fn listed<'a>(all: impl Iterator<Item = &'a String>) -> String {
    let all: Vec<&str> = all.map(String::as_str).collect();
    match all.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

impl Error {
    /// The page about what was not published, where one was asked for.
    pub fn take_page(&mut self) -> Option<Page> {
        match self {
            Self::Checks { page, .. } => page.take().map(|page| *page),
            _ => None,
        }
    }

    /// The store cannot be opened.
    pub(crate) fn store(source: lbx_image::Error) -> Self {
        Self::Store(Box::new(source))
    }

    /// Something about package indexes.
    pub(crate) fn index(source: lbx_index::Error) -> Self {
        Self::Index(Box::new(source))
    }

    /// The image `reference` cannot be had.
    pub(crate) fn image(reference: &str, source: lbx_image::Error) -> Self {
        Self::Image { reference: reference.to_owned(), source: Box::new(source) }
    }

    /// pip failed.
    pub(crate) fn pip(
        requirements: String,
        store: &Path,
        how: String,
        output: String,
        met: Option<String>,
        tmp: Option<u64>,
    ) -> Self {
        if met.is_none() && NO_SPACE.iter().any(|words| output.contains(words)) {
            return Self::PipNoSpace { requirements, store: store.to_owned(), how, output, tmp };
        }
        Self::Pip { requirements, how, output, met }
    }

    /// Something in the store could not be written: says so in full when it was for want of room.
    pub(crate) fn in_store(self, store: &Path, what: &str) -> Self {
        match (no_space(&self), self) {
            (None, error) | (_, error @ (Self::NoSpace { .. } | Self::Image { .. })) => error,
            (Some(kind), _) => {
                let quota = kind == io::ErrorKind::QuotaExceeded;
                Self::NoSpace { what: what.to_owned(), store: store.to_owned(), quota }
            }
        }
    }

    /// The wheel `name` cannot be used.
    pub(crate) fn wheel(name: impl Into<String>, source: lbx_wheel::WheelError) -> Self {
        // The name says which wheel; the path of its copy among temporary files says nothing more.
        let source = match source {
            lbx_wheel::WheelError::Refused { reason, .. } => reason,
            other => Box::new(other),
        };
        Self::Wheel { name: name.into(), source }
    }

    /// What this is about.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Index(source) if matches!(**source, lbx_index::Error::Io(_)) => ErrorKind::System,
            Self::Plan(_)
            | Self::Index(_)
            | Self::NoIndex
            | Self::TextTooLarge { .. }
            | Self::NotText { .. }
            | Self::Encoding { .. }
            | Self::NotAFile { .. }
            | Self::TreeNotAFolder { .. }
            | Self::TreeNotOurs { .. }
            | Self::NotBuilt { .. }
            | Self::SourceMissing { .. }
            | Self::PathMissing { .. }
            | Self::NotLocked { .. }
            | Self::Vendor { .. }
            | Self::VendorInTheWay { .. }
            | Self::NothingToLock { .. }
            | Self::UnknownPackage { .. }
            | Self::SourceNotAFolder { .. }
            | Self::SourceOutside { .. }
            | Self::StoreInProject { .. }
            | Self::FolderName { .. }
            | Self::Source(_) => ErrorKind::Project,
            Self::Image { source, .. } if is_the_systems(source) => ErrorKind::System,
            Self::Image { .. }
            | Self::NoPython { .. }
            | Self::WrongPython { .. }
            | Self::NoPip { .. }
            | Self::ForeignCpu { .. }
            | Self::Bytecode(_)
            | Self::PythonFails { .. } => ErrorKind::Image,
            Self::Sandbox(_) => ErrorKind::Sandbox,
            Self::Packages(error) if matches!(**error, PackagesError::RootNotLent { .. }) => {
                ErrorKind::Sandbox
            }
            Self::Pip { .. }
            | Self::Fetch { .. }
            | Self::Build { .. }
            | Self::Packages(_)
            | Self::Git { .. }
            | Self::BuildNeeds { .. }
            | Self::SourceFormat { .. }
            | Self::ForeignBuild { .. }
            | Self::NothingFits { .. }
            | Self::NoOrigin { .. }
            | Self::OtherPackage { .. }
            | Self::Incomplete { .. }
            | Self::BuildLoop { .. }
            | Self::NothingBuilt { .. } => ErrorKind::Requirements,
            // Reading and writing fail for the system's reasons, and not for the wheel's.
            Self::Wheel { source, .. } if matches!(**source, lbx_wheel::WheelError::Io(_)) => {
                ErrorKind::System
            }
            Self::Output(lbx_sandbox::OutputError::NotAFile { .. })
            | Self::Wheel { .. }
            | Self::WheelPlatform { .. }
            | Self::TwoWheels { .. }
            | Self::Conflict { .. }
            | Self::FolderConflict { .. }
            | Self::Empty { .. } => ErrorKind::Artifact,
            Self::Checks { .. } => ErrorKind::Checks,
            Self::Output(_)
            | Self::StoreInUse { .. }
            | Self::StoreLock { .. }
            | Self::Archive { .. }
            | Self::Zip(_)
            | Self::Io(_)
            | Self::Store(_)
            | Self::WheelStore(_)
            | Self::NoSpace { .. }
            | Self::PipNoSpace { .. } => ErrorKind::System,
            Self::Interrupted => ErrorKind::Interrupted,
        }
    }
}

fn nothing_to_lock(locks: &[String]) -> String {
    match locks {
        [] => "the project has no requirements".to_owned(),
        [one] => format!("{one} is locked already"),
        several => format!("{} are locked already", several.join(", ")),
    }
}

/// How programs say that there is no room.
const NO_SPACE: [&str; 2] = [suspect::NO_SPACE, "Disk quota exceeded"];

/// Whether it was the operating system that refused, and not the image or its registry.
fn is_the_systems(error: &lbx_image::Error) -> bool {
    use lbx_image::Error;
    matches!(error, Error::DiskFull { .. } | Error::Unwritable { .. } | Error::Io(_))
}

impl From<PackagesError> for Error {
    fn from(error: PackagesError) -> Self {
        Self::Packages(Box::new(error))
    }
}

impl From<ZipError> for Error {
    fn from(error: ZipError) -> Self {
        Self::Zip(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_room_is_found_at_any_depth() {
        let full = || io::Error::from_raw_os_error(28);
        let named = || io::Error::new(full().kind(), "failed to write `.new-x`");
        let wheel = lbx_wheel::WheelError::Io;
        let refused =
            |error| lbx_wheel::WheelError::Refused { path: "x".into(), reason: Box::new(wheel(error)) };
        let errors = [
            Error::Io(full()),
            Error::wheel("x", wheel(full())),
            Error::wheel("x", wheel(named())),
            Error::wheel("x", refused(full())),
            Error::WheelStore(Box::new(wheel(named()))),
        ];
        for error in errors {
            let error = error.in_store(Path::new("/store"), "it").in_store(Path::new("/"), "again");
            assert_eq!(error.to_string(), "no space left for it in the store /store");
        }
        let quota = Error::Io(io::ErrorKind::QuotaExceeded.into()).in_store(Path::new("/store"), "it");
        assert_eq!(quota.to_string(), "the disk quota leaves no space for it in the store /store");
        let other = Error::wheel("x", wheel(io::Error::from_raw_os_error(13)));
        assert_eq!(other.kind(), ErrorKind::System);
        assert!(matches!(other.in_store(Path::new("/store"), "it"), Error::Wheel { .. }));
    }
}
