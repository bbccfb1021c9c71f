//! In the command's place, with all that is denied to it denied: tries what must not work. Draws no conclusions from
//! what the host says about itself.

use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::kill;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, chroot, getppid};

use super::domain::Enforced;
use crate::backend::Claims;
use crate::error::{Failure, NO_ERROR, Stage};
use crate::spec::{Network, Spec};
use crate::wire::Outside;

/// What the paths of a self-test mean.
#[derive(Debug, Clone, Copy)]
pub(super) enum Paths<'a> {
    /// They are those of a root of its own.
    OwnRoot,
    /// They are the host's, of which this directory is for temporary files.
    Host(&'a Path),
}

/// What is promised of this run, after a look at what holds; the first thing that should have been denied, if any.
///
/// What only a Landlock domain can deny is tried where there is one, and not promised elsewhere.
pub(super) fn run(
    spec: &Spec,
    enforced: Enforced,
    outside: Outside,
    paths: Paths<'_>,
) -> Result<Claims, Failure> {
    let mut claims = spec.backend.claims();
    // A container that masks its /proc allows no new one, and its own shows its processes.
    claims.processes_hidden &= !foreign_proc();
    let own_root = spec.backend.changes_root();
    let own_processes = spec.backend.claims().nothing_survives;
    if !own_processes {
        // Another process may have the same user id.
        claims.processes_untouchable &= enforced.scope;
    }
    if !own_root {
        claims.files_hidden &= enforced.files;
        claims.files_unwritable &= enforced.files;
    }
    claims.network_served &= enforced.network;
    calls()?;
    network(spec, enforced, outside.port)?;
    let outside = Pid::from_raw(outside.process);
    if own_root || enforced.files {
        files(spec, paths)?;
    }
    // A process outside is another user's where the root is changed without namespaces, and out of the domain's scope.
    if own_root || enforced.scope {
        denied(&format!("kill({outside}, 0)"), kill(outside, None))?;
    }
    // The first process of a namespace ignores what comes from it, so that it may be reached by those of its user; and
    // a tracer is of the same domain.
    if own_root && (enforced.scope || !own_processes) {
        denied(&format!("kill({}, 0)", getppid()), kill(getppid(), None))?;
    }
    no_capabilities()?;
    working(paths)?;
    Ok(claims)
}

fn calls() -> Result<(), Failure> {
    denied("unshare(CLONE_NEWUSER)", unshare(CloneFlags::CLONE_NEWUSER))?;
    denied("unshare(CLONE_NEWNS)", unshare(CloneFlags::CLONE_NEWNS))?;
    denied("chroot(\"/tmp\")", chroot("/tmp"))?;
    denied("socket(AF_PACKET)", socket_of(AddressFamily::Packet, SockType::Raw))
}

/// What is served can be connected to, and another port of this machine cannot.
fn network(spec: &Spec, enforced: Enforced, other: u16) -> Result<(), Failure> {
    let Network::Served(port) = spec.network else {
        return denied("socket(AF_INET)", socket_of(AddressFamily::Inet, SockType::Stream));
    };
    let connect = |port: u16| {
        // Where connections are given, the address makes no difference.
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(|error| errno(&error))?;
        Ok(stream.peer_addr().map_err(|error| errno(&error))?.port())
    };
    let call = |port: u16| format!("connect(127.0.0.1:{port})");
    allowed(&call(port), connect(port).map(drop))?;
    match connect(other) {
        Ok(reached) if reached == other && enforced.network => denied(&call(other), Ok(())),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn files(spec: &Spec, paths: Paths<'_>) -> Result<(), Failure> {
    let look = |path: &Path| open(path, OFlag::O_RDONLY, Mode::empty()).map(drop);
    denied("open(\"/lbx-self-test\", O_CREAT)", create(Path::new("/lbx-self-test")))?;
    denied("open(\"/etc/passwd\", O_RDWR)", open("/etc/passwd", OFlag::O_RDWR, Mode::empty()).map(drop))?;
    denied("open(\"/proc/1/root\")", look(Path::new("/proc/1/root/.")))?;
    if let Some(scratch) = &spec.scratch {
        denied(&format!("open({scratch:?})"), look(scratch))?;
    }
    match paths {
        Paths::OwnRoot => Ok(()),
        Paths::Host(_) => ["/", "/etc/passwd", "/root", "/home"]
            .iter()
            .try_for_each(|path| denied(&format!("open({path:?})"), look(Path::new(path)))),
    }
}

/// What must work, or nothing else will.
fn working(paths: Paths<'_>) -> Result<(), Failure> {
    let temporary = match paths {
        Paths::OwnRoot => Path::new("/tmp"),
        Paths::Host(directory) => directory,
    };
    let path = temporary.join("lbx-self-test");
    allowed(&format!("open({path:?}, O_CREAT)"), create(&path))?;
    allowed("open(\"/dev/null\", O_RDWR)", open("/dev/null", OFlag::O_RDWR, Mode::empty()).map(drop))
}

/// Whether /proc is that of another process id namespace: this process has another number there.
fn foreign_proc() -> bool {
    let own = nix::unistd::getpid().to_string();
    nix::fcntl::readlink("/proc/self").is_ok_and(|found| found != *own)
}

fn denied(call: &str, result: nix::Result<()>) -> Result<(), Failure> {
    match result {
        // Success is no error number; the words say what is wrong.
        Ok(()) => Err(Failure::new(Stage::SelfTest, format!("{call}, which must be denied"), NO_ERROR)),
        Err(_) => Ok(()),
    }
}

fn allowed(call: &str, result: nix::Result<()>) -> Result<(), Failure> {
    result.map_err(|errno| Failure::new(Stage::SelfTest, call, errno))
}

fn socket_of(family: AddressFamily, kind: SockType) -> nix::Result<()> {
    socket(family, kind, SockFlag::SOCK_CLOEXEC, None).map(|_: OwnedFd| ())
}

fn create(path: &Path) -> nix::Result<()> {
    open(path, OFlag::O_CREAT | OFlag::O_WRONLY, Mode::from_bits_truncate(0o600)).map(drop)
}

fn no_capabilities() -> Result<(), Failure> {
    for set in [caps::CapSet::Effective, caps::CapSet::Permitted, caps::CapSet::Inheritable] {
        let held = caps::read(None, set).unwrap_or_default();
        if !held.is_empty() {
            let call = format!("{set:?} capabilities {held:?}, which must be empty");
            return Err(Failure::new(Stage::SelfTest, call, NO_ERROR));
        }
    }
    Ok(())
}
