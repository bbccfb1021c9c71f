//! Moves bytes between the caller's streams and those of a command, in one thread, until the command has ended.
//!
//! The command never holds a stream of the caller's itself: a terminal's other side can be read and its settings
//! changed, a folder leads to all that is above it, and a file can be opened again through /proc, for writing too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// How much is written at once: what a pipe that can be written to takes without blocking. The caller's streams are
/// shared with other processes, so that this one cannot have them not block.
const PIECE: usize = libc::PIPE_BUF;

/// How often it is asked whether to go on, when all that is left to be done is up to the reader of the output.
const PATIENCE_MILLISECONDS: u8 = 100;

/// Whose bytes a channel moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The caller's, to the command. What nobody has read when the command ends, nobody will.
    Input,
    /// The command's, to the caller.
    Output,
}

/// One way for bytes.
#[derive(Debug)]
pub(crate) struct Channel {
    direction: Direction,
    from: OwnedFd,
    to: OwnedFd,
    buffer: Vec<u8>,
    /// How much of the buffer is written.
    written: usize,
}

/// What one step of a channel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Moved,
    SourceEnded,
    SinkGone,
}

impl Channel {
    pub(crate) fn new(direction: Direction, from: OwnedFd, to: OwnedFd) -> Self {
        Self { direction, from, to, buffer: Vec::new(), written: 0 }
    }

    fn pending(&self) -> bool {
        self.written < self.buffer.len()
    }

    fn waits_for(&self) -> PollFd<'_> {
        if self.pending() {
            PollFd::new(self.to.as_fd(), PollFlags::POLLOUT)
        } else {
            PollFd::new(self.from.as_fd(), PollFlags::POLLIN)
        }
    }

    /// Reads or writes once, whichever the channel has waited for.
    fn step(&mut self) -> Step {
        if self.pending() {
            let end = self.buffer.len().min(self.written + PIECE);
            match write(&self.to, &self.buffer[self.written..end]) {
                Ok(count) => self.written += count,
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => return Step::SinkGone,
            }
            return Step::Moved;
        }
        self.buffer.resize(CHUNK, 0);
        let read = read(&self.from, &mut self.buffer);
        self.buffer.truncate(*read.as_ref().unwrap_or(&0));
        self.written = 0;
        match read {
            Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR) => Step::Moved,
            // A pseudo-terminal whose other side is closed gives EIO.
            Ok(_) | Err(_) => Step::SourceEnded,
        }
    }

    /// Whether the caller's side of it is the one that is gone.
    fn lost(&self, step: Step) -> bool {
        match self.direction {
            Direction::Input => step == Step::SourceEnded,
            Direction::Output => step == Step::SinkGone,
        }
    }
}

/// Moves bytes until `end` is readable, which tells the command's end, and all its output is written.
///
/// A channel goes when one of its sides has gone, and closes the other: so the command sees the end of its input, and
/// is told when nobody reads its output. `lost` is called when it was the caller's side. With `given_up`, output that
/// nobody reads is left when the command has ended.
pub(crate) fn run(
    mut channels: Vec<Channel>,
    end: BorrowedFd<'_>,
    lost: &dyn Fn(),
    given_up: &dyn Fn() -> bool,
) -> io::Result<()> {
    let mut alive = true;
    while alive || !(channels.is_empty() || given_up()) {
        let mut waits: Vec<PollFd<'_>> = channels.iter().map(Channel::waits_for).collect();
        if alive {
            waits.push(PollFd::new(end, PollFlags::POLLIN));
        }
        let patience = if alive { PollTimeout::NONE } else { PollTimeout::from(PATIENCE_MILLISECONDS) };
        match poll(&mut waits, patience) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let ready: Vec<bool> = waits.iter().map(|wait| wait.any() != Some(false)).collect();
        drop(waits);
        let mut ready = ready.into_iter();
        channels.retain_mut(|channel| {
            let step = if ready.next() == Some(true) { channel.step() } else { Step::Moved };
            if channel.lost(step) {
                lost();
            }
            step == Step::Moved
        });
        if alive && ready.next() == Some(true) {
            alive = false;
            channels.retain(|channel| channel.direction == Direction::Output);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read, Write};
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    struct Ends {
        user: PipeWriter,
        command: PipeReader,
        channel: Channel,
    }

    fn ends(direction: Direction) -> Ends {
        let (from, user) = io::pipe().expect("a pipe");
        let (command, to) = io::pipe().expect("a pipe");
        Ends { user, command, channel: Channel::new(direction, from.into(), to.into()) }
    }

    /// More than any pipe holds, with every byte that there is.
    fn bytes() -> Vec<u8> {
        (0..1_000_003_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect()
    }

    #[test]
    fn every_byte_arrives_in_both_directions_at_once_and_ends_are_passed_on() {
        let (mut there, mut back) = (ends(Direction::Input), ends(Direction::Output));
        let (end, ended) = io::pipe().expect("a pipe");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                run(vec![there.channel, back.channel], end.as_fd(), &|| {}, &|| false).expect("moved");
            });
            scope.spawn(move || there.user.write_all(&bytes()).expect("written"));
            // A command that copies its input to its output.
            scope.spawn(move || {
                io::copy(&mut there.command, &mut back.user).expect("copied");
                drop(ended);
            });
            let mut arrived = Vec::new();
            back.command.read_to_end(&mut arrived).expect("read");
            assert!(arrived == bytes(), "{} bytes arrived", arrived.len());
        });
    }

    #[test]
    fn output_that_came_before_the_end_arrives_and_input_is_not_waited_for() {
        let (there, mut back) = (ends(Direction::Input), ends(Direction::Output));
        let (end, ended) = io::pipe().expect("a pipe");
        back.user.write_all(b"last words").expect("written");
        drop((back.user, ended));
        run(vec![there.channel, back.channel], end.as_fd(), &|| {}, &|| false).expect("moved");
        let mut arrived = String::new();
        back.command.read_to_string(&mut arrived).expect("read");
        assert_eq!(arrived, "last words");
    }

    #[test]
    fn a_reader_that_goes_away_is_told_on_and_counted_as_lost() {
        let mut back = ends(Direction::Output);
        let (end, ended) = io::pipe().expect("a pipe");
        let lost = AtomicU32::new(0);
        drop(back.command);
        let count = || {
            lost.fetch_add(1, Ordering::SeqCst);
        };
        std::thread::scope(|scope| {
            let channel = back.channel;
            scope.spawn(|| run(vec![channel], end.as_fd(), &count, &|| false).expect("moved"));
            while back.user.write_all(b"more").is_ok() {}
            drop(ended);
        });
        assert_eq!(lost.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn output_that_nobody_reads_is_left_when_it_is_given_up() {
        let (_reader, to) = io::pipe().expect("a pipe");
        fcntl(&to, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a flag");
        while write(&to, b"full").is_ok() {}
        let (from, mut command) = io::pipe().expect("a pipe");
        command.write_all(b"more").expect("written");
        let (end, ended) = io::pipe().expect("a pipe");
        drop(ended);
        let channel = Channel::new(Direction::Output, from.into(), to.into());
        let asked = AtomicU32::new(0);
        let given_up = || asked.fetch_add(1, Ordering::SeqCst) > 2;
        run(vec![channel], end.as_fd(), &|| {}, &given_up).expect("given up");
        assert_eq!(asked.load(Ordering::SeqCst), 4, "it waits until then");
    }
}
