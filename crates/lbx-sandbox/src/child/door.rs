//! The one server that a command may connect to, and how it gets there.
//!
//! In a network of its own, the server's socket is made there and handed out. Where there is no such network, the filter
//! asks about each socket of the internet, and the command is given one that is connected already: there is no address
//! in it that somebody else could change, and no way to connect it to anything else.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::Job;
use crate::error::{Failure, OrFail, Stage};
use crate::spec::Network;
use crate::syscalls;
use crate::wire::{self, Report};

/// How long a connection on this machine may take: the server is there, or it is not.
const CONNECTING: Duration = Duration::from_secs(2);

/// Who answers the filter's questions about sockets.
pub(super) struct Door {
    port: u16,
    hears: Hears,
}

enum Hears {
    /// Nothing yet: here comes what it will hear through.
    Waiting(OwnedFd),
    /// The filter's questions.
    Filter(OwnedFd),
    /// Nothing any more: nobody is left who could ask.
    Nothing,
}

/// Tells the caller where the command will find the server, if there is one. Without a network of its own, what the
/// command needs for it goes into the job, and somebody has to attend to the door.
pub(super) fn open(job: &mut Job<'_>, own_network: bool) -> Result<Option<Door>, Failure> {
    let Network::Served(port) = job.spec.network else { return Ok(None) };
    let stage = Stage::Network;
    // When the caller is gone there is nobody left to tell, which others notice.
    if own_network {
        let call = || format!("bind(127.0.0.1:{port}), in a network of its own");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).or_fail(stage, call)?;
        let _ = wire::send(job.socket.as_fd(), &Report::Listening, &[listener.as_fd()]);
        return Ok(None);
    }
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .or_fail(stage, || "socketpair(AF_UNIX)".to_owned())?;
    job.door = Some(theirs);
    let _ = wire::send(job.socket.as_fd(), &Report::Listening, &[]);
    Ok(Some(Door { port, hears: Hears::Waiting(ours) }))
}

impl Door {
    /// What becomes readable when there is something to attend to.
    pub(super) fn bell(&self) -> Option<BorrowedFd<'_>> {
        match &self.hears {
            Hears::Waiting(bell) | Hears::Filter(bell) => Some(bell.as_fd()),
            Hears::Nothing => None,
        }
    }

    /// Does what the bell, with these events, asks for.
    pub(super) fn attend(&mut self, events: PollFlags) {
        self.hears = match std::mem::replace(&mut self.hears, Hears::Nothing) {
            Hears::Waiting(from) => match wire::receive::<()>(from.as_fd()) {
                Ok(Some(((), mut filter))) => filter.pop().map_or(Hears::Nothing, Hears::Filter),
                // It has gone before it asked for anything, or has a filter that does not ask.
                Ok(None) | Err(_) => Hears::Nothing,
            },
            Hears::Filter(filter) if events.contains(PollFlags::POLLIN) => {
                self.answer(filter.as_fd());
                Hears::Filter(filter)
            }
            Hears::Filter(_) | Hears::Nothing => Hears::Nothing,
        };
    }

    fn answer(&self, filter: BorrowedFd<'_>) {
        // Whoever asked may have been killed since.
        let Ok(question) = syscalls::question(filter) else { return };
        let has = |flag: SockFlag| question.arguments[1] & u64::from(flag.bits().unsigned_abs()) != 0;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let connected = TcpStream::connect_timeout(&address, CONNECTING).and_then(|stream| {
            stream.set_nonblocking(has(SockFlag::SOCK_NONBLOCK))?;
            Ok(stream)
        });
        let answered = match connected {
            Ok(stream) => question.give(filter, stream.as_fd(), has(SockFlag::SOCK_CLOEXEC)),
            Err(error) => Err(error.raw_os_error().map_or(Errno::ETIMEDOUT, Errno::from_raw)),
        };
        if let Err(errno) = answered {
            // The same again: it may be gone.
            let _ = question.refuse(filter, errno);
        }
    }
}
