//! Two terminals: the user's own, whose settings are borrowed and given back, and the pseudo-terminal that a command
//! gets in its place. Moving bytes between them is left to `relay`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::pty::{posix_openpt, unlockpt};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::syscalls;

/// The user's terminal in raw mode: each key goes to whoever reads it, and none is a signal for this process. Dropping
/// it gives the terminal its settings back.
#[derive(Debug)]
pub(crate) struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    /// Puts a terminal into raw mode.
    pub(crate) fn enter(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        let raw = Self { terminal: terminal.try_clone_to_owned()?, before: tcgetattr(terminal)? };
        let mut settings = raw.before.clone();
        cfmakeraw(&mut settings);
        // What was typed ahead stays, and is the command's.
        tcsetattr(terminal, SetArg::TCSADRAIN, &settings)?;
        Ok(raw)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Without waiting for output: a terminal that takes none must not hold up the end. It can only fail when the
        // terminal is gone.
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}

/// Our side of a pseudo-terminal. Copies share it.
#[derive(Debug, Clone)]
pub(crate) struct Pseudo {
    master: Arc<OwnedFd>,
}

impl Pseudo {
    /// A new one with the settings and the size of a terminal that there is, and its other side.
    pub(crate) fn like(terminal: BorrowedFd<'_>) -> io::Result<(Self, OwnedFd)> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let master = posix_openpt(flags)?;
        unlockpt(&master)?;
        let pseudo = Self { master: Arc::new(OwnedFd::from(master)) };
        let other_side = syscalls::open_peer(pseudo.master.as_fd())?;
        tcsetattr(&other_side, SetArg::TCSANOW, &tcgetattr(terminal)?)?;
        pseudo.resize_like(terminal)?;
        Ok((pseudo, other_side))
    }

    /// Takes over the size of a terminal, and tells who runs in the foreground.
    pub(crate) fn resize_like(&self, terminal: BorrowedFd<'_>) -> io::Result<()> {
        let size = syscalls::window_size(terminal)?;
        Ok(syscalls::set_window_size(self.master.as_fd(), &size)?)
    }

    /// A descriptor of one's own, which does not block.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.master.try_clone()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use nix::pty::openpty;
    use nix::sys::termios::LocalFlags;

    use super::*;

    fn settings(terminal: &OwnedFd) -> libc::termios {
        tcgetattr(terminal).expect("settings").into()
    }

    fn is_raw(terminal: &OwnedFd) -> bool {
        let flags = tcgetattr(terminal).expect("settings").local_flags;
        !flags.intersects(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG)
    }

    #[test]
    fn a_terminal_gets_its_settings_back_also_after_a_panic() {
        let pair = openpty(None, None).expect("a pseudo-terminal");
        let before = settings(&pair.slave);
        let raw = Raw::enter(pair.slave.as_fd()).expect("raw mode");
        assert!(is_raw(&pair.slave));
        drop(raw);
        assert_eq!(settings(&pair.slave), before);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _raw = Raw::enter(pair.slave.as_fd()).expect("raw mode");
            assert!(!is_raw(&pair.slave), "on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!(settings(&pair.slave), before);
    }

    #[test]
    fn what_is_no_terminal_is_refused() {
        let (reader, _writer) = io::pipe().expect("a pipe");
        assert_eq!(Raw::enter(reader.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        assert_eq!(Pseudo::like(reader.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }

    #[test]
    fn a_pseudo_terminal_is_like_the_terminal_it_stands_for_and_follows_its_size() {
        let size = libc::winsize { ws_row: 7, ws_col: 91, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).expect("a pseudo-terminal");
        let mut unusual = tcgetattr(&pair.slave).expect("settings");
        unusual.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&pair.slave, SetArg::TCSANOW, &unusual).expect("settings");
        let (pseudo, other_side) = Pseudo::like(pair.slave.as_fd()).expect("another one");
        assert_eq!(settings(&other_side), settings(&pair.slave));
        let seen = |terminal: &OwnedFd| syscalls::window_size(terminal.as_fd()).expect("a size");
        assert_eq!((seen(&other_side).ws_row, seen(&other_side).ws_col), (7, 91));
        let larger = libc::winsize { ws_row: 50, ..size };
        syscalls::set_window_size(pair.master.as_fd(), &larger).expect("another size");
        pseudo.resize_like(pair.slave.as_fd()).expect("the same size");
        assert_eq!(seen(&other_side).ws_row, 50);
    }
}
