//! What can go wrong, and how a failed system call is put into words. Advice is left to the diagnosis.

use std::{fmt, io};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::backend::{Backend, Level};
use crate::diagnose::Diagnosis;

/// Why a command did not run, or why it is not known how it ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The `Spec` contradicts itself; nothing was started.
    #[error("sandbox specification: {0}")]
    Spec(String),
    /// The sandbox child could not be started or reached.
    #[error("{action}")]
    Launch {
        /// What was tried.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// The child could not assemble the sandbox; the command did not start.
    #[error("{failure}")]
    Setup {
        /// The call that failed.
        failure: Failure,
        /// What this host allows, when the failure may be the host's refusal.
        diagnosis: Option<Box<Diagnosis>>,
        /// Weaker ways that were tried too, each with what went wrong.
        others: Vec<(Backend, String)>,
    },
    /// Less isolation than was asked for.
    #[error("the backend `{backend}` gives {level} isolation here, and {require} isolation is required")]
    TooWeak {
        /// The way that works.
        backend: Backend,
        /// How much that is.
        level: Level,
        /// What was asked for.
        require: Level,
        /// What this host allows.
        diagnosis: Option<Box<Diagnosis>>,
        /// Weaker ways that were tried too, each with what went wrong.
        others: Vec<(Backend, String)>,
    },
    /// The sandbox stood, and its root holds no such program.
    #[error("no program `{program}` in the sandbox")]
    ProgramNotFound {
        /// The first element of `argv`.
        program: String,
    },
    /// The sandbox stood, and the kernel refused to execute the program.
    #[error("cannot execute `{program}` in the sandbox: {failure}")]
    Exec {
        /// The first element of `argv`.
        program: String,
        /// The call that failed.
        failure: Failure,
    },
    /// The sandbox was killed from outside, or through its handle, before the command ended.
    #[error("the sandbox was killed before the command ended ({status})")]
    Killed {
        /// How the sandbox child ended.
        status: String,
    },
}

/// The part of the work during which a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Stage {
    /// Receiving the specification and preparing the process.
    Prepare,
    /// Creating the namespaces.
    Namespaces,
    /// Writing the user and group id maps.
    IdMap,
    /// Opening the root and the sources of the binds.
    Sources,
    /// Stacking or binding the root.
    Root,
    /// Mounting `/proc`.
    Proc,
    /// Assembling `/dev`.
    Devices,
    /// Mounting the writable directories.
    Tmpfs,
    /// Binding directories and files of the host.
    Binds,
    /// Writing files.
    Files,
    /// Leaving the host's root.
    Pivot,
    /// Bringing up the loopback interface.
    Network,
    /// Giving up privileges.
    Privileges,
    /// Entering the working directory.
    WorkingDirectory,
    /// Executing the command.
    Exec,
    /// Trying what must be denied.
    SelfTest,
    /// Waiting for the command.
    Wait,
}

impl Stage {
    /// What the stage does, as a fragment that follows "cannot".
    pub fn action(self) -> &'static str {
        match self {
            Self::Prepare => "prepare the sandbox process",
            Self::Namespaces => "create namespaces",
            Self::IdMap => "map the user id",
            Self::Sources => "open the sandbox's sources",
            Self::Root => "assemble the sandbox's root",
            Self::Proc => "mount /proc",
            Self::Devices => "assemble /dev",
            Self::Tmpfs => "mount a temporary directory",
            Self::Binds => "bind a path of the host",
            Self::Files => "write a file of the sandbox",
            Self::Pivot => "leave the host's root",
            Self::Network => "bring up the loopback interface",
            Self::Privileges => "give up privileges",
            Self::WorkingDirectory => "enter the working directory",
            Self::Exec => "execute the command",
            Self::SelfTest => "trust the sandbox",
            Self::Wait => "wait for the command",
        }
    }

    /// Whether a refusal at this stage may be the host's policy.
    fn depends_on_host(self) -> bool {
        matches!(
            self,
            Self::Namespaces
                | Self::IdMap
                | Self::Root
                | Self::Proc
                | Self::Devices
                | Self::Tmpfs
                | Self::Binds
                | Self::Pivot
                | Self::Network
                | Self::Privileges
        )
    }
}

/// Stands for a call that worked and should not have: no call of a self-test fails with it.
pub(crate) const NO_ERROR: Errno = Errno::EISCONN;

/// A system call that failed, as the call it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When it failed.
    pub stage: Stage,
    /// The call and its arguments, for instance `mount("overlay", "root", "overlay", 0x7, "…")`.
    pub call: String,
    /// The error number.
    pub errno: i32,
}

impl Failure {
    pub(crate) fn new(stage: Stage, call: impl Into<String>, errno: Errno) -> Self {
        Self { stage, call: call.into(), errno: errno as i32 }
    }

    /// Whether it may be the host's policy, so that a diagnosis is worth its time.
    pub(crate) fn may_be_refusal(&self) -> bool {
        let is_refusal = matches!(
            Errno::from_raw(self.errno),
            Errno::EPERM
                | Errno::EACCES
                | Errno::ENOSPC
                | Errno::ENOSYS
                | Errno::EINVAL
                | Errno::EUSERS
                | Errno::ENODEV
                | Errno::EOPNOTSUPP
        );
        is_refusal && self.stage.depends_on_host()
    }

    /// The symbolic name of the error number, for instance `EPERM`.
    pub fn errno_name(&self) -> String {
        format!("{:?}", Errno::from_raw(self.errno))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Errno::from_raw(self.errno) {
            // What worked and should not have has no error.
            NO_ERROR => write!(f, "cannot {}: {}", self.stage.action(), self.call),
            errno => write!(f, "cannot {}: {}: {errno:?}", self.stage.action(), self.call),
        }
    }
}

/// Turns an error number into a `Failure`; the words are only made when they are needed.
pub(crate) trait OrFail<T> {
    fn or_fail(self, stage: Stage, call: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> OrFail<T> for nix::Result<T> {
    fn or_fail(self, stage: Stage, call: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|errno| Failure::new(stage, call(), errno))
    }
}

impl<T> OrFail<T> for io::Result<T> {
    fn or_fail(self, stage: Stage, call: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|e| Failure::new(stage, call(), Errno::from_raw(e.raw_os_error().unwrap_or(0))))
    }
}
