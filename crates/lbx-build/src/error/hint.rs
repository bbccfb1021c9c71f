//! What the user can do about an error: advice, which is never in the message.

use super::{Error, SourceError, no_space};
use crate::limits::bytes;
use crate::pip;

impl Error {
    /// What the user can do, where there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Plan(error) => error.hint(),
            Self::Image { source, .. } | Self::Store(source) => source.hint(),
            Self::Index(source) => source.hint(),
            Self::Fetch { source, .. } => source.hint(),
            Self::NoIndex => Some("set PIP_INDEX_URL, or name one in lbx.toml with [[index]]".to_owned()),
            Self::NoSpace { .. } => Some(STORE_FULL.to_owned()),
            Self::PipNoSpace { tmp, .. } => {
                let holds = tmp.map(|tmp| format!(" (up to {}: --tmp-limit)", bytes(tmp)));
                Some(format!("{STORE_OR_MEMORY_FULL}{}", holds.unwrap_or_default()))
            }
            // What is written into the store has its own errors, so this is the output folder.
            Self::Archive { .. } | Self::Io(_) if no_space(self).is_some() => Some(OUTPUT_FULL.to_owned()),
            Self::Source(error) => Some(error.hint().to_owned()),
            Self::Encoding { source, .. } => Some(source.hint().to_owned()),
            Self::NotText { .. } => Some("save it as UTF-8".to_owned()),
            Self::Pip { output, met, .. } => met.clone().or_else(|| pip::hint(output)),
            Self::Git { output, .. } if output.is_empty() => None,
            Self::Git { url, .. } => Some(format!(
                "your own git is asked, and cannot ask you: `GIT_TERMINAL_PROMPT=0 git ls-remote {url}` must work"
            )),
            Self::Build { source_name, output, met, build_image, .. } => {
                met.clone().or_else(|| pip::build_hint(source_name, build_image, output))
            }
            Self::Packages(error) => error.hint(),
            Self::Zip(error) => error.hint(),
            Self::ForeignBuild { sources, arch, .. } => {
                let wheels = super::listed(sources.iter().map(|(_, wheel)| wheel));
                Some(format!(
                    "here it comes to {wheels}; pin versions that have a wheel for {arch}, build on such a host, or \
                     {EMULATION}"
                ))
            }
            Self::Vendor { .. } => Some("`lbx vendor` writes it anew, where there is a network".to_owned()),
            Self::VendorInTheWay { .. } => Some("name one that does not exist yet".to_owned()),
            Self::NothingToLock { locks } if locks.is_empty() => {
                Some("name requirement files in lbx.toml, or with -r".to_owned())
            }
            Self::NothingToLock { .. } => Some("the tool that made it makes it anew".to_owned()),
            Self::NoOrigin { .. } => Some(
                "pip builds where a line has --hash or an option of pip's: lock without these, the lock has hashes"
                    .to_owned(),
            ),
            Self::NotLocked { .. } => Some("`lbx lock` writes one that can".to_owned()),
            Self::NothingFits { files, .. } if files.is_empty() => {
                Some("no index has a file with one of its hashes: lock again".to_owned())
            }
            Self::NothingFits { files, .. } => Some(format!(
                "there are {}; lock for this runtime and CPU, or a version that has a wheel for them",
                few(files)
            )),
            Self::Incomplete { .. } => Some(
                "where lines have hashes, all packages must stand there: `pip-compile --generate-hashes` writes them"
                    .to_owned(),
            ),
            Self::OtherPackage { .. } => {
                Some("the lock was changed by hand, or the index is not to be trusted: lock again".to_owned())
            }
            Self::PathMissing { .. } => Some(
                "folders of archives are relative to the file that names them, all else to the project's folder"
                    .to_owned(),
            ),
            Self::SourceMissing { .. } => Some("paths are relative to the folder of lbx.toml".to_owned()),
            Self::SourceOutside { .. } => {
                Some("move it into the project, or put lbx.toml in a folder above both".to_owned())
            }
            Self::Sandbox(error) if is_unexplained(error) => Some(ANOTHER_BACKEND.to_owned()),
            Self::Output(lbx_sandbox::OutputError::NotAFile { .. }) => {
                Some("a package that is built from source left it: look at its build".to_owned())
            }
            Self::TwoWheels { .. } => {
                Some("a package that is built from source left a wheel of another one: look at its build".to_owned())
            }
            Self::PythonFails { .. } => Some(
                "if the image is sound, its copy in the store is damaged: remove the store's `layers` and `flat` and \
                 build again"
                    .to_owned(),
            ),
            Self::TreeNotOurs { .. } => Some("name a folder that is empty or not there".to_owned()),
            Self::StoreInUse { .. } => Some("wait until builds, `lbx run` and `lbx shell` have ended".to_owned()),
            Self::StoreLock { .. } => {
                Some("its file system may have no locks: keep the store on a local disk".to_owned())
            }
            Self::NotBuilt { .. } => Some("build first: lbx build".to_owned()),
            Self::Bytecode(_) => Some("set `bytecode = false`, or take another image".to_owned()),
            Self::ForeignCpu { arch, .. } => Some(format!(
                "build on a host with that CPU, or set `arch` to something other than {arch}, or {EMULATION}"
            )),
            Self::NoPython { .. } => {
                Some("use an image with Python, such as the runtime's own (leave `image` out)".to_owned())
            }
            Self::NoPip { .. } => {
                Some("use an image with pip, such as the runtime's own (leave `image` out)".to_owned())
            }
            Self::WrongPython { found, .. } => {
                let minor: Vec<&str> = found.split('.').take(2).collect();
                Some(format!("set the runtime to python{}, or take another image", minor.join(".")))
            }
            Self::Conflict { .. } | Self::FolderConflict { .. } => {
                Some("only one of them can be in the zip: rename or remove the other".to_owned())
            }
            Self::StoreInProject { .. } => Some(
                "what a command writes must not reach later builds: point LBX_CACHE_DIR elsewhere, or leave --write out"
                    .to_owned(),
            ),
            Self::FolderName { .. } => Some("rename it".to_owned()),
            Self::WheelPlatform { .. } => Some(
                "pin a version that has a wheel for this runtime, or one that builds from source".to_owned(),
            ),
            _ => None,
        }
    }
}

/// How programs of another CPU can be run.
const EMULATION: &str = "install qemu-user-static: from Linux 6.7 on, with the backend namespaces, that is all, and \
     otherwise it must be registered with the host (binfmt)";

/// What to do when a backend was asked for by name, and nothing that the host denies says why it cannot be had.
const ANOTHER_BACKEND: &str = "`lbx doctor` says which ways to isolate builds work here; without --backend, the \
     strongest of them is taken";

/// What to do when there is no room for a zip.
const OUTPUT_FULL: &str = "there is no room on the disk of the output folder: free some, or use --out-dir";

/// What to do when there is no room in the store.
const STORE_FULL: &str =
    "free some space on its file system, or point LBX_CACHE_DIR at another; nothing half-written was kept";

/// What to do when there is no room in the store, or in memory.
const STORE_OR_MEMORY_FULL: &str = "free some space on the store's file system, or point LBX_CACHE_DIR at another; if \
     there is plenty, it is memory, which holds what pip downloads and unpacks";

/// Whether one backend alone was tried and cannot be had, or not as wanted, and the lines about what the host denies are none.
fn is_unexplained(error: &lbx_sandbox::Error) -> bool {
    use lbx_sandbox::Error::{Setup, TooWeak};
    let (Setup { diagnosis, others, .. } | TooWeak { diagnosis, others, .. }) = error else { return false };
    others.is_empty() && diagnosis.as_ref().is_none_or(|diagnosis| diagnosis.problems().next().is_none())
}

impl SourceError {
    /// What the user can do.
    fn hint(&self) -> &'static str {
        match self {
            Self::LinkLeaves { .. } => "put a copy there, or name the shared folder in `include`",
            Self::LinkDangles { .. } | Self::LinkLoop { .. } => "remove the link",
            Self::NotAFile { .. } => "move it out of the source",
            Self::NotUtf8 { .. } => "rename it",
        }
    }
}

/// The first few of a list.
fn few(all: &[String]) -> String {
    const FEW: usize = 3;
    match all.len().checked_sub(FEW + 1) {
        None => all.join(", "),
        Some(more) => format!("{} and {} more", all[..FEW].join(", "), more + 1),
    }
}
