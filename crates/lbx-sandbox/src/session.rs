//! A command in the foreground: its streams are the caller's, through pipes or through a pseudo-terminal, and signals
//! reach it. How bytes are moved is left to `relay`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::fstat;

use crate::error::Error;
use crate::launch::{End, Exit, KillHandle, Launcher, Running, Stream, Streams, Usage};
use crate::relay::{self, Channel, Direction};
use crate::spec::Spec;
use crate::terminal::{Pseudo, Raw};

/// A command that was started by [`Launcher::attach`].
#[derive(Debug)]
pub struct Session {
    running: Running,
    channels: Vec<Channel>,
    remote: Remote,
}

/// Reaches the command of a [`Session`] from another thread, at any time; harmless when it has ended.
#[derive(Debug, Clone)]
pub struct Remote {
    handle: KillHandle,
    terminal: Option<Pseudo>,
    /// The signals so far: how many, and the last one.
    asked: Arc<AtomicI32>,
    last: Arc<AtomicI32>,
}

impl Launcher {
    /// Starts a command in the foreground.
    ///
    /// Where the specification asks for a terminal, it gets a pseudo-terminal like the caller's, which standard input
    /// and output have to be; otherwise its streams are pipes. The bytes are moved by [`Session::wait`].
    pub fn attach(&self, spec: &Spec) -> Result<Session, Error> {
        let failed =
            |source| Error::Launch { action: "cannot connect the command's streams".to_owned(), source };
        let connected = if spec.terminal { on_terminal() } else { through_pipes() };
        let Connected { streams, channels, terminal } = connected.map_err(failed)?;
        let running = self.spawn(spec, streams)?;
        let remote =
            Remote { handle: running.kill_handle(), terminal, asked: Arc::default(), last: Arc::default() };
        Ok(Session { running, channels, remote })
    }
}

impl Session {
    /// What reaches the command from other threads.
    pub fn remote(&self) -> Remote {
        self.remote.clone()
    }

    /// Moves bytes until every process of the sandbox has ended, and says how the command did.
    ///
    /// Blocks the thread. The caller's terminal is in raw mode meanwhile, and as it was before afterwards, whatever
    /// happens.
    pub fn wait(self) -> Result<Exit, Error> {
        let Self { running, channels, remote } = self;
        let failed = |action: &str| {
            let action = action.to_owned();
            |source| Error::Launch { action, source }
        };
        let raw = remote.terminal.is_some().then(|| Raw::enter(io::stdin().as_fd())).transpose();
        let raw = raw.map_err(failed("cannot put the terminal into raw mode"))?;
        // A command whose terminal went away has nobody to talk to. Other streams may end at any time.
        let lost = || {
            if remote.terminal.is_some() {
                remote.signal(libc::SIGHUP);
            }
        };
        let given_up = || remote.has_given_up();
        relay::run(channels, running.ended(), &lost, &given_up)
            .map_err(failed("cannot move the command's input and output"))?;
        let exit = running.wait();
        drop(raw);
        match (exit, remote.last.load(Ordering::SeqCst)) {
            // It was killed by this process, which was asked to by a signal: it ended by that.
            (Err(Error::Killed { .. }), signal @ 1..) => {
                Ok(Exit { end: End::Signal(signal), usage: Usage::default(), reached: None })
            }
            (exit, _) => exit,
        }
    }
}

impl Remote {
    /// Passes on a signal that this process got: TERM, INT or HUP.
    ///
    /// The command gets the first one, and the second one kills the sandbox. With a terminal, whose keys reach the
    /// command as they are, a signal comes from elsewhere and means this process; there the first one kills.
    pub fn signal(&self, signal: i32) {
        self.last.store(signal, Ordering::SeqCst);
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.terminal.is_some() {
            self.handle.kill();
        } else if self.handle.signal(signal).is_err() {
            // It cannot be told, and must not go on untold.
            self.handle.kill();
        }
    }

    /// Gives the command's terminal the size of the caller's, which has changed.
    pub fn resize(&self) {
        if let Some(terminal) = &self.terminal {
            // A terminal without a size went away.
            let _ = terminal.resize_like(io::stdin().as_fd());
        }
    }

    fn has_given_up(&self) -> bool {
        self.asked.load(Ordering::SeqCst) > i32::from(self.terminal.is_none())
    }
}

/// A command's streams, and what connects them to the caller's.
struct Connected {
    streams: Streams,
    channels: Vec<Channel>,
    terminal: Option<Pseudo>,
}

/// The command's streams are a pseudo-terminal, but for messages that the caller wants elsewhere.
fn on_terminal() -> io::Result<Connected> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let (pseudo, other_side) = Pseudo::like(stdin.as_fd())?;
    let mut channels = vec![
        Channel::new(Direction::Input, stdin.as_fd().try_clone_to_owned()?, pseudo.descriptor()?),
        Channel::new(Direction::Output, pseudo.descriptor()?, stdout.as_fd().try_clone_to_owned()?),
    ];
    let messages = if io::IsTerminal::is_terminal(&stderr) {
        other_side.try_clone()?
    } else {
        output(stderr.as_fd(), &mut channels)?
    };
    let streams = Streams {
        stdin: Stream::To(other_side.try_clone()?),
        stdout: Stream::To(other_side),
        stderr: Stream::To(messages),
    };
    Ok(Connected { streams, channels, terminal: Some(pseudo) })
}

/// The command's streams are pipes. Output and messages that the caller wants in one place share one, so that they
/// stay in order.
fn through_pipes() -> io::Result<Connected> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let (reader, writer) = io::pipe()?;
    let writer = OwnedFd::from(writer);
    do_not_block(&writer)?;
    let mut channels = vec![Channel::new(Direction::Input, stdin.as_fd().try_clone_to_owned()?, writer)];
    let out = output(stdout.as_fd(), &mut channels)?;
    let messages = if same_file(stdout.as_fd(), stderr.as_fd())? {
        out.try_clone()?
    } else {
        output(stderr.as_fd(), &mut channels)?
    };
    let streams =
        Streams { stdin: Stream::To(reader.into()), stdout: Stream::To(out), stderr: Stream::To(messages) };
    Ok(Connected { streams, channels, terminal: None })
}

/// A pipe whose bytes go to one of the caller's streams: its end for the command.
fn output(to: BorrowedFd<'_>, channels: &mut Vec<Channel>) -> io::Result<OwnedFd> {
    let (reader, writer) = io::pipe()?;
    let reader = OwnedFd::from(reader);
    do_not_block(&reader)?;
    channels.push(Channel::new(Direction::Output, reader, to.try_clone_to_owned()?));
    Ok(writer.into())
}

/// Sets a flag of our own side of a pipe; the command's has its own.
fn do_not_block(side: &OwnedFd) -> io::Result<()> {
    fcntl(side, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

fn same_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}
