//! Which limit a failed command probably met. Where the kernel does not tell, the words of the command do: those that
//! programs have for an error that the kernel gives at a limit.

use lbx_sandbox::{Exit, Reached};

use crate::limits::{Limits, bytes};

/// How programs say that there is no room.
pub(crate) const NO_SPACE: &str = "No space left on device";

/// How programs say that they get no memory.
const NO_MEMORY: [&str; 5] = [
    "MemoryError",
    "Cannot allocate memory",
    "std::bad_alloc",
    "virtual memory exhausted",
    // Of Rust.
    "memory allocation of ",
];

/// How programs say that they cannot start a process or a thread.
const NO_PROCESS: [&str; 3] = ["Resource temporarily unavailable", "can't start new thread", "Cannot fork"];

/// How programs say that they can open no more files.
const NO_FILE: [&str; 1] = ["Too many open files"];

/// How programs say that a file cannot become larger.
const NO_SIZE: [&str; 2] = ["File too large", "File size limit exceeded"];

/// What to do about the limit that a command met, if it seems that it met one. `room` is what the disk has left that is
/// written to, in bytes.
pub(crate) fn hint(output: &str, exit: &Exit, limits: &Limits, room: Option<u64>) -> Option<String> {
    let raise = |limit: String, option: &str| Some(format!("{limit}: raise it with {option}"));
    match exit.reached {
        Some(Reached::Processes(limit)) => {
            return raise(format!("the limit of {limit} processes was reached"), "--process-limit");
        }
        Some(Reached::FileSize(limit)) => {
            let limit = format!("the limit of {} for one file was reached", bytes(limit));
            return raise(limit, "--file-size-limit");
        }
        _ => {}
    }
    let says = |words: &[&str]| words.iter().any(|words| output.contains(words));
    let resources = limits.resources;
    // A control group that counted, and stopped nobody, was not it.
    let memory = resources.memory.filter(|_| exit.usage.peak.is_none() && says(&NO_MEMORY));
    let files = resources.open_files.filter(|_| says(&NO_FILE));
    let size = resources.file_size.filter(|_| says(&NO_SIZE));
    // Before a disk with that much room is full, a folder of temporary files is.
    let tmp = resources.tmp.filter(|tmp| says(&[NO_SPACE]) && room.is_some_and(|room| room > *tmp));
    let processes = resources.processes.filter(|_| says(&NO_PROCESS));
    let probably = |limit: String, option| raise(format!("this was probably the limit of {limit}"), option);
    if let Some(limit) = memory {
        probably(format!("{} on the memory of a process", bytes(limit)), "--memory-limit")
    } else if let Some(limit) = files {
        probably(format!("{limit} open files"), "--open-file-limit")
    } else if let Some(limit) = size {
        probably(format!("{} for one file", bytes(limit)), "--file-size-limit")
    } else if let Some(limit) = tmp {
        probably(format!("{} for a folder of temporary files", bytes(limit)), "--tmp-limit")
    } else if let Some(limit) = processes {
        probably(format!("{limit} processes"), "--process-limit")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use lbx_sandbox::{End, Usage};

    use super::*;

    const LIMITS: Limits = Limits {
        time: crate::limits::TimeLimits {
            total: std::time::Duration::ZERO,
            silence: std::time::Duration::ZERO,
        },
        resources: lbx_sandbox::Limits {
            memory: Some(2_000_000_000),
            processes: Some(64),
            open_files: Some(32),
            file_size: Some(1_000_000),
            tmp: Some(8_000_000),
        },
        disk: 0,
    };

    fn exit(reached: Option<Reached>) -> Exit {
        Exit { end: End::Code(1), usage: Usage::default(), reached }
    }

    fn told(output: &str) -> Option<String> {
        hint(output, &exit(None), &LIMITS, Some(9_000_000))
    }

    #[test]
    fn each_error_of_a_limit_names_it_its_value_and_its_option() {
        for (output, expected) in [
            ("MemoryError", "2.0 GB on the memory of a process: raise it with --memory-limit"),
            (
                "OSError: [Errno 24] Too many open files: 'x'",
                "32 open files: raise it with --open-file-limit",
            ),
            ("OSError: [Errno 27] File too large", "1.0 MB for one file: raise it with --file-size-limit"),
            (
                "[Errno 28] No space left on device",
                "8.0 MB for a folder of temporary files: raise it with --tmp-limit",
            ),
            (
                "BlockingIOError: [Errno 11] Resource temporarily unavailable",
                "64 processes: raise it with --process-limit",
            ),
        ] {
            assert_eq!(told(output), Some(format!("this was probably the limit of {expected}")), "{output}");
        }
        assert_eq!(told("error: command 'gcc' failed"), None);
    }

    #[test]
    fn what_is_not_limited_or_was_counted_is_not_suspected() {
        let none = Limits { resources: lbx_sandbox::Limits::default(), ..LIMITS };
        for words in ["MemoryError", "Too many open files", "File too large", NO_SPACE, "Cannot fork"] {
            assert_eq!(hint(words, &exit(None), &none, Some(u64::MAX)), None, "{words}");
        }
        let usage = Usage { peak: Some(1), ..Usage::default() };
        assert_eq!(hint("MemoryError", &Exit { usage, ..exit(None) }, &LIMITS, None), None);
        for room in [None, Some(7_000_000)] {
            assert_eq!(hint(NO_SPACE, &exit(None), &LIMITS, room), None, "it may be the disk");
        }
    }

    #[test]
    fn what_the_kernel_says_needs_no_words() {
        let told = hint("MemoryError", &exit(Some(Reached::Processes(64))), &LIMITS, None);
        assert_eq!(
            told.as_deref(),
            Some("the limit of 64 processes was reached: raise it with --process-limit")
        );
        let told = hint("", &exit(Some(Reached::FileSize(1_000_000))), &LIMITS, None);
        assert_eq!(
            told.as_deref(),
            Some("the limit of 1.0 MB for one file was reached: raise it with --file-size-limit")
        );
    }
}
