//! This program once more, in the place of the command, inside a sandbox that another program makes: it gives up there
//! what the other program leaves, watches over the command and reports how it ended.
//!
//! The root of an image may hold another C library than this program needs, or none: it brings its own files along.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{dup2_stderr, dup2_stdout};

use super::domain::Enforced;
use super::door::{self, Door};
use super::elf::Program;
use super::payload::{self, Order, Purpose, Situation};
use super::selftest::{self, Paths};
use super::{Job, init, prepare, report_failure, send_report};
use crate::error::{Failure, OrFail, Stage};
use crate::syscalls;
use crate::wire::{self, Outside, Report, Request};

/// Where this program's files are inside.
pub(super) const FOLDER: &str = "/lbx/.sandbox";

/// The exit code of a process that has reported: what the other program ends with then. Nothing that goes wrong in it
/// has this one.
pub(super) const REPORTED: i32 = 97;

/// The files of this program: itself, its loader and its libraries.
pub(super) struct Files {
    /// Where they are on the host.
    pub(super) paths: Vec<PathBuf>,
    /// How it is started inside, when each is in [`FOLDER`] under its own name.
    pub(super) command: Vec<String>,
}

impl Files {
    /// Those that are mapped into this process.
    pub(super) fn of_this_process() -> Result<Self, Failure> {
        let stage = Stage::Sources;
        let program =
            fs_err::read_link("/proc/self/exe").or_fail(stage, || "readlink(/proc/self/exe)".to_owned())?;
        let maps = fs_err::read_to_string("/proc/self/maps")
            .or_fail(stage, || "read(/proc/self/maps)".to_owned())?;
        let mut paths: Vec<PathBuf> = maps.lines().filter_map(mapped).map(PathBuf::from).collect();
        paths.sort();
        paths.dedup();
        // What is only data, such as a locale, is not missed.
        paths.retain(|path| *path == program || name(path).contains(".so"));
        let bytes = fs_err::read(&program).or_fail(stage, || format!("read({program:?})"))?;
        let loader = Program::parse(&bytes).and_then(|program| program.loader().map(Path::new).map(name));
        let mut command: Vec<String> = match &loader {
            Some(loader) => [format!("{FOLDER}/{loader}"), "--library-path".into(), FOLDER.into()].into(),
            None => Vec::new(),
        };
        command.extend([format!("{FOLDER}/{}", name(&program)), wire::INSIDE.to_owned()]);
        Ok(Self { paths, command })
    }

    /// Each file with its place inside.
    pub(super) fn targets(&self) -> impl Iterator<Item = (&Path, String)> {
        self.paths.iter().map(|path| (path.as_path(), format!("{FOLDER}/{}", name(path))))
    }
}

/// The path of a line of `/proc/PID/maps`.
fn mapped(line: &str) -> Option<&str> {
    line.find('/').map(|start| &line[start..])
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// How the process inside is told what to do, as its standard input, and how it says that it is done.
pub(super) struct Channel {
    pub(super) ours: OwnedFd,
    pub(super) theirs: OwnedFd,
}

impl Channel {
    pub(super) fn new() -> Result<Self, Failure> {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .or_fail(Stage::Prepare, || "socketpair(AF_UNIX)".to_owned())?;
        Ok(Self { ours, theirs })
    }

    /// Sends what is to be done; with `enforced`, where all is given up already.
    pub(super) fn send(&self, job: &Job<'_>, enforced: Option<Enforced>) -> Result<(), Failure> {
        let stage = Stage::Prepare;
        let mut spec = Box::new(job.spec.clone());
        let contents: Vec<_> = spec.files.iter_mut().map(|file| std::mem::take(&mut file.contents)).collect();
        let sizes = contents.iter().map(Vec::len).collect();
        let contents: Vec<_> = contents.iter().map(Vec::as_slice).collect();
        let outside = match job.purpose {
            Purpose::Command => None,
            Purpose::Test(outside) => Some(outside),
        };
        let request = wire::pack(&Request::Inside { spec, sizes, outside, enforced }, &contents)
            .or_fail(stage, || "memfd_create()".to_owned())?;
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let descriptors: [BorrowedFd<'_>; 5] =
            [request.as_fd(), job.stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), job.socket.as_fd()];
        wire::send(self.ours.as_fd(), &(), &descriptors).or_fail(stage, || "sendmsg(inside)".to_owned())
    }
}

/// The process inside. Its exit code says whether it has reported.
pub(super) fn main() -> i32 {
    let Ok(inbox) = io::stdin().as_fd().try_clone_to_owned() else { return 2 };
    // Nobody can be told yet.
    let Ok(Some(((), descriptors))) = wire::receive::<()>(inbox.as_fd()) else { return 3 };
    let Ok([request, stdin, stdout, stderr, socket]) = <[OwnedFd; 5]>::try_from(descriptors) else {
        return 4;
    };
    let Ok(Request::Inside { spec, outside, enforced, .. }) = wire::unpack(request) else { return 5 };
    prepare();
    let done = dup2_stdout(&stdout)
        .and_then(|()| dup2_stderr(&stderr))
        .or_fail(Stage::Prepare, || "dup2(stdout, 1)".to_owned());
    drop((stdout, stderr));
    let purpose = outside.map_or(Purpose::Command, Purpose::Test);
    let job = Job { socket: &socket, spec: &spec, stdin, purpose, door: None };
    let done = done.and_then(|()| match (enforced, purpose) {
        (None, _) => first_process(job),
        (Some(enforced), Purpose::Test(outside)) => tested(&job, enforced, outside),
        (Some(_), Purpose::Command) => watched(job),
    });
    if let Err(failure) = done {
        report_failure(&socket, failure);
    }
    // Somebody may be waiting for it, where the end of this process is not seen.
    let _ = wire::send(inbox.as_fd(), &(), &[]);
    REPORTED
}

/// A self-test where all is given up already.
fn tested(job: &Job<'_>, enforced: Enforced, outside: Outside) -> Result<(), Failure> {
    let claims = selftest::run(job.spec, enforced, outside, Paths::OwnRoot)?;
    send_report(job.socket, &Report::Tested(claims));
    Ok(())
}

/// A command where all is given up already.
fn watched(job: Job<'_>) -> Result<(), Failure> {
    let order = Order::in_root(job.spec, Situation::BARE);
    report_end(job, None, |job| payload::resume_command(job, &order))
}

fn report_end(
    job: Job<'_>,
    door: Option<Door>,
    become_command: impl FnOnce(&Job<'_>) -> Report,
) -> Result<(), Failure> {
    syscalls::close_on_exec_from(3);
    super::supervised_signals()
        .thread_block()
        .or_fail(Stage::Prepare, || "sigprocmask(SIG_BLOCK)".to_owned())?;
    let socket = job.socket;
    if let Some(exit) = init::start(job, door, become_command)? {
        send_report(socket, &Report::Exited(exit));
    }
    Ok(())
}

/// PID 1 of a process id namespace, which has no capabilities that would keep the command from looking into it.
fn first_process(mut job: Job<'_>) -> Result<(), Failure> {
    let stage = Stage::Prepare;
    if nix::unistd::getpid().as_raw() != 1 {
        return Err(Failure::new(stage, "getpid(), which must be 1", Errno::EPROTO));
    }
    prctl::set_dumpable(false).or_fail(stage, || "prctl(PR_SET_DUMPABLE, 0)".to_owned())?;
    let order = Order::in_root(job.spec, Situation::NAMESPACES);
    let door = door::open(&mut job, true)?;
    report_end(job, door, |job| payload::become_command(job, &order))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_comes_with_all_that_it_needs() {
        let files = Files::of_this_process().expect("the files");
        let directory = tempfile::tempdir().expect("a directory");
        for (path, target) in files.targets() {
            let name = target.strip_prefix(FOLDER).expect("in the folder").trim_start_matches('/');
            fs_err::copy(path, directory.path().join(name)).expect("a copy");
        }
        let mut command: Vec<String> = files.command.clone();
        assert_eq!(command.pop().as_deref(), Some(wire::INSIDE));
        let folder = directory.path().to_str().expect("UTF-8");
        let command: Vec<_> = command.iter().map(|word| word.replace(FOLDER, folder)).collect();
        let run = std::process::Command::new(&command[0]).args(&command[1..]).arg("--list").output();
        let run = run.expect("it starts");
        assert!(run.status.success(), "{run:?}");
    }

    #[test]
    fn a_path_with_spaces_is_one_path() {
        let line = "7f00-7f01 r-xp 00000000 fe:00 123   /opt/my tools/lbx";
        assert_eq!(mapped(line), Some("/opt/my tools/lbx"));
        assert_eq!(mapped("7ffe-7fff rw-p 00000000 00:00 0   [stack]"), None);
    }
}
