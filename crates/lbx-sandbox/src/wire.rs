//! What the two processes say to each other, and how it is packed. Knows nothing of namespaces.
//!
//! The child's standard input is one end of a socket pair of packets. The first packet carries a sealed
//! memory file with the request and the command's own standard input; after it the caller may send
//! [`Command`]s. The child answers with at most one [`Report`]. The end of the stream means that the
//! other side is gone.

use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::backend::Claims;
use crate::child::Enforced;
use crate::emulation::Emulator;
use crate::error::Failure;
use crate::launch::Exit;
use crate::spec::Spec;
use crate::syscalls;

/// The `argv[0]` that makes a process a sandbox child.
pub(crate) const MARKER: &str = "lbx-sandbox-child";

/// The `argv[1]` of the process inside a sandbox that another program makes: nobody else can choose its `argv[0]`.
pub(crate) const INSIDE: &str = "lbx-sandbox-inside";

/// A report is a few hundred bytes; a failed mount quotes at most a page of options.
const MAX_PACKET: usize = 16 * 1024;

/// What the child is started for.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Run the command of this specification. The sizes are those of its files' contents, which follow.
    Run { spec: Box<Spec>, sizes: Vec<usize> },
    /// The same, with a self-test in place of the command, which tries to reach this process too.
    Test { spec: Box<Spec>, sizes: Vec<usize>, outside: Outside },
    /// For the process inside a sandbox that another program made: run the command, or the self-test when there is a
    /// process `outside` for it to try; there, `enforced` says that all is given up already.
    Inside { spec: Box<Spec>, sizes: Vec<usize>, outside: Option<Outside>, enforced: Option<Enforced> },
    /// Try one thing in a throw-away namespace.
    Probe(Probe),
}

/// What a self-test must not reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outside {
    /// A process.
    pub(crate) process: i32,
    /// A port of this machine that somebody listens at.
    pub(crate) port: u16,
}

/// One thing to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Probe {
    /// A user namespace alone.
    UserNamespace,
    /// A user namespace and its id maps.
    IdMap,
    /// A mount in a mount namespace.
    Mount,
    /// A process id namespace with its own /proc.
    Proc,
    /// The namespaces for processes, IPC and host names.
    OtherNamespaces,
    /// A network namespace with its loopback interface.
    Network,
    /// A filter of system calls.
    Filter,
    /// A Landlock domain with all the rules that commands get.
    Landlock,
    /// A child that is traced.
    Tracing,
    /// An overlay with a whiteout and an opaque directory, prepared in this directory.
    Overlay(PathBuf),
    /// A registry of a user namespace's own, with this emulator in it.
    Emulator(Emulator),
}

/// What the caller may send after the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Send this signal to the command.
    Signal(i32),
}

/// How it went.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// A call failed before the command ran.
    Failed(Failure),
    /// What the command may connect to: with a descriptor, this socket, in its own network; without one, the caller's.
    Listening,
    /// The command ended.
    Exited(Exit),
    /// The self-test was passed; this is what holds.
    Tested(Claims),
    /// The probe was tried, in this setting.
    Probed { failure: Option<Failure>, setting: Setting },
}

/// What the process knows about those who may have restricted it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    /// The `Seccomp:` line of /proc/self/status; 2 is a filter.
    pub(crate) seccomp: Option<u8>,
    /// The label of the security module, for instance an AppArmor profile.
    pub(crate) label: Option<String>,
    /// What `clone3` answers to an empty request.
    pub(crate) clone3: String,
    /// How many Landlock domains it is in.
    pub(crate) landlock_domains: usize,
}

/// Packs a request: the length of its JSON, the JSON, then the contents of the files.
pub(crate) fn pack(request: &Request, contents: &[&[u8]]) -> io::Result<OwnedFd> {
    let json = serde_json::to_vec(request)?;
    let memory = memfd_create("lbx-sandbox", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = std::fs::File::from(memory);
    file.write_all(&(json.len() as u64).to_le_bytes())?;
    file.write_all(&json)?;
    for part in contents {
        file.write_all(part)?;
    }
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
    Ok(file.into())
}

/// Unpacks what `pack` made.
pub(crate) fn unpack(memory: OwnedFd) -> io::Result<Request> {
    let bytes = syscalls::read_all(memory)?;
    let truncated = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(truncated)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(io::Error::other)?;
    let (json, mut rest) = rest.split_at_checked(length).ok_or_else(truncated)?;
    let mut request: Request = serde_json::from_slice(json)?;
    let files = match &mut request {
        Request::Run { spec, sizes }
        | Request::Test { spec, sizes, .. }
        | Request::Inside { spec, sizes, .. } => Some((spec, sizes)),
        Request::Probe(_) => None,
    };
    if let Some((spec, sizes)) = files {
        for (file, size) in spec.files.iter_mut().zip(sizes) {
            let (contents, after) = rest.split_at_checked(*size).ok_or_else(truncated)?;
            file.contents = contents.to_vec();
            rest = after;
        }
    }
    Ok(request)
}

/// Sends one packet with descriptors. Never raises SIGPIPE.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    loop {
        let parts = [IoSlice::new(&bytes)];
        match sendmsg::<()>(socket.as_fd().as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop).map_err(io::Error::from),
        }
    }
}

/// Receives one packet; `None` when the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; MAX_PACKET];
    let (length, descriptors) = match syscalls::receive(socket, &mut buffer) {
        // A peer that died with unread packets in its queue.
        Err(Errno::ECONNRESET) => return Ok(None),
        other => other?,
    };
    if length == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&buffer[..length])?, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{File, Root};

    #[test]
    fn a_request_survives_packing_with_its_contents() {
        let mut spec = Spec::new(Root::Layers(vec!["/a".into()]), ["/bin/true", "é"]);
        for contents in [vec![0, 255, 7], vec![], vec![b'x'; 300_000]] {
            spec.files.push(File { target: "/f".into(), contents, executable: true });
        }
        let sizes = spec.files.iter().map(|f| f.contents.len()).collect();
        let contents: Vec<_> = spec.files.iter().map(|f| f.contents.as_slice()).collect();
        let packed = pack(&Request::Run { spec: Box::new(spec.clone()), sizes }, &contents).expect("packed");
        let Request::Run { spec: unpacked, .. } = unpack(packed).expect("unpacked") else { panic!("a run") };
        assert_eq!(unpacked.files, spec.files);
        assert_eq!(unpacked.argv, spec.argv);
    }

    #[test]
    fn a_packed_request_cannot_be_changed() {
        let packed = pack(&Request::Probe(Probe::Mount), &[]).expect("packed");
        assert!(std::fs::File::from(packed).write_all(b"x").is_err());
    }
}
