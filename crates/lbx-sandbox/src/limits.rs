//! What a run may use, and which of it was used up: plain data. What all processes may use together is held to by
//! `group`, what each of them may use by `child::rlimits`.

use nix::sys::resource::{Resource, getrlimit};
use serde::{Deserialize, Serialize};

/// The most that a run may use. What is `None` is not limited here, and the host's own limits stay in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of memory: of all processes together, with what they write to directories in memory, where a control
    /// group can be made; elsewhere the data of each process for itself.
    pub memory: Option<u64>,
    /// Processes and threads at one time.
    pub processes: Option<u64>,
    /// Files that each process has open.
    pub open_files: Option<u64>,
    /// Bytes of any one file.
    pub file_size: Option<u64>,
    /// Bytes in each writable directory in memory that has no size of its own, and in `/dev/shm`. Where nothing can be
    /// mounted these are directories on a disk, and without a bound; a bubblewrap with root's rights sets none either.
    pub tmp: Option<u64>,
}

impl Limits {
    /// The same, lowered to what this process could allow others: the values that will be in force, for messages.
    #[must_use]
    pub fn within_the_host(self) -> Self {
        let lowered = |limit: Option<u64>, resource| {
            let hard = getrlimit(resource).map_or(u64::MAX, |(_, hard)| hard);
            limit.map(|limit| limit.min(hard))
        };
        Self {
            open_files: lowered(self.open_files, Resource::RLIMIT_NOFILE),
            file_size: lowered(self.file_size, Resource::RLIMIT_FSIZE),
            ..self
        }
    }
}

/// A limit that the kernel says was reached, with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reached {
    /// All processes together wanted more memory, and were killed.
    Memory(u64),
    /// A process wanted to start another one, and was refused.
    Processes(u64),
    /// The command wrote to a file past the limit, and was killed.
    FileSize(u64),
}

/// Who holds a run to its limits on memory and processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keeper {
    /// A control group, for all processes together.
    Group,
    /// The limits of each process.
    Process,
}

impl Keeper {
    /// Who it will be for runs of this process, found out by making a control group.
    pub fn of_this_process() -> Self {
        let limits = Limits { processes: Some(1), ..Limits::default() };
        if crate::group::Group::new(&limits).is_some() { Self::Group } else { Self::Process }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_forbids_is_no_value_to_name() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        let many = Limits { open_files: Some(u64::MAX), memory: Some(7), ..Limits::default() };
        assert_eq!(many.within_the_host(), Limits { open_files: Some(hard), ..many });
        let few = Limits { open_files: Some(hard / 2), ..many };
        assert_eq!(few.within_the_host(), few);
    }
}
