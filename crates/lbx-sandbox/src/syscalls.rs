//! The only unsafe code of the project: system calls that have no safe wrapper. No decisions here.
#![expect(unsafe_code, reason = "raw system calls; every block says why it is sound")]

use std::io::{IoSliceMut, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;

use crate::filter::Instruction;

/// Attributes of `mount_setattr(2)`; `libc` has them only for some targets.
pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x1;
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 0x2;
pub(crate) const MOUNT_ATTR_NODEV: u64 = 0x4;

/// The same number on every architecture, like all calls since 5.1.
const SYS_CLOSE_RANGE: libc::c_long = 436;
const SYS_MOUNT_SETATTR: libc::c_long = 442;
const SYS_CLONE3: libc::c_long = 435;

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Has the C library's allocator take from the kernel, one by one, whatever is larger than `threshold` bytes, and give it back
/// when it is freed. glibc's own threshold grows with what is freed.
#[cfg(target_env = "gnu")]
pub(crate) fn set_mmap_threshold(threshold: libc::c_int) {
    // SAFETY: this sets a number of the allocator under its own lock. Where it cannot, it does nothing.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, threshold) };
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn set_mmap_threshold(_: libc::c_int) {}

/// Forks. `None` is the child.
///
/// The caller must be single-threaded: another thread could hold the allocator's lock.
pub(crate) fn fork() -> nix::Result<Option<Pid>> {
    debug_assert_eq!(thread_count(), 1, "fork in a process with threads");
    // SAFETY: the process has one thread, so the child inherits no lock that nobody will release.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child)),
        nix::unistd::ForkResult::Child => Ok(None),
    }
}

fn thread_count() -> usize {
    // The link count of `task` is two more than the number of threads; without /proc, assume the best.
    use std::os::unix::fs::MetadataExt;
    fs_err::metadata("/proc/self/task")
        .map_or(1, |m| usize::try_from(m.nlink()).unwrap_or(usize::MAX).saturating_sub(2))
}

/// Reaps one child that has ended; its raw wait status. `None` when there is none.
///
/// `nix` has no name for real-time signals and turns a child that one of them ended into an error.
pub(crate) fn wait_any() -> nix::Result<Option<(Pid, libc::c_int)>> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for an int.
        match Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }) {
            Ok(0) | Err(Errno::ECHILD) => return Ok(None),
            Ok(pid) => return Ok(Some((Pid::from_raw(pid), status))),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Waits for a child to end, and reaps it. ECHILD when there is none.
pub(crate) fn wait_blocking() -> nix::Result<Pid> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for an int.
    Errno::result(unsafe { libc::waitpid(-1, &raw mut status, 0) }).map(Pid::from_raw)
}

/// Takes from a process the right to start others. It may have ended, and then nothing happens.
pub(crate) fn forbid_processes(pid: Pid) {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the new limit lives through the call, and no old one is asked for.
    unsafe { libc::prlimit(pid.as_raw(), libc::RLIMIT_NPROC, &raw const none, std::ptr::null_mut()) };
}

/// Ends the process without running destructors or exit handlers, which belong to the forked parent.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any value and does not return.
    unsafe { libc::_exit(code) }
}

/// Receives one message and the descriptors that came with it, which are closed on exec.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; 8]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = loop {
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel has just installed these descriptors for us; nobody else owns them.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok((message.bytes, descriptors))
}

/// Closes every descriptor from `first` up. Nothing in this process may own one of them.
pub(crate) fn close_from(first: RawFd) {
    // SAFETY: closing is memory-safe; the callers' contract is that no `OwnedFd` has one of these numbers.
    if unsafe { libc::syscall(SYS_CLOSE_RANGE, first, libc::c_uint::MAX, 0) } == 0 {
        return;
    }
    for fd in open_descriptors().into_iter().filter(|fd| *fd >= first) {
        // SAFETY: as above. A number that is not open (the one the listing used) gives EBADF, unused.
        unsafe { libc::close(fd) };
    }
}

/// Marks every descriptor from `first` up to be closed on exec. Since 5.11; where it is missing, the
/// flag that each descriptor was opened with has to do.
pub(crate) fn close_on_exec_from(first: RawFd) {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: sets a flag on descriptors and closes none of them now.
    unsafe { libc::syscall(SYS_CLOSE_RANGE, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
}

/// The numbers that may be open: from /proc, or all up to the limit where there is no /proc.
fn open_descriptors() -> Vec<RawFd> {
    if let Ok(entries) = fs_err::read_dir("/proc/self/fd") {
        return entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    }
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    (0..RawFd::try_from(limit.map_or(1024, |(soft, _)| soft)).unwrap_or(RawFd::MAX)).collect()
}

/// Sets attributes on the mount that `mount` is the root of, and on all mounts below it. Since 5.12.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, attributes: u64) -> nix::Result<()> {
    let attr = MountAttr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the path is a C string, `attr` lives through the call and its size is passed along.
    let result = unsafe {
        let path = c"".as_ptr();
        libc::syscall(
            SYS_MOUNT_SETATTR,
            mount.as_raw_fd(),
            path,
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// Makes a file system of this kind and a mount of it that is nowhere: it goes with its descriptor. Since 5.2.
pub(crate) fn detached_mount(kind: &std::ffi::CStr) -> nix::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    let owned = |raw: libc::c_long| {
        let raw = RawFd::try_from(raw).map_err(|_| Errno::EBADF)?;
        // SAFETY: the kernel has just made this descriptor, and nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    };
    // SAFETY: the kind is a C string.
    let raw = Errno::result(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    let context: OwnedFd = owned(raw)?;
    let nothing = std::ptr::null::<u8>();
    // SAFETY: this command reads no key and no value.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, nothing, nothing, 0)
    })?;
    let attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    // SAFETY: integer arguments only.
    let raw = Errno::result(unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes)
    })?;
    owned(raw)
}

/// Removes every capability from the bounding set, those that this program has no name for included.
pub(crate) fn drop_bounding_set() -> nix::Result<()> {
    for capability in 0..64 {
        // SAFETY: a prctl with integer arguments only.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            Ok(_) => {}
            // Past the last capability that this kernel knows.
            Err(Errno::EINVAL) if capability > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Makes uid 0 and uid changes worthless for capabilities, for good.
pub(crate) fn lock_securebits() -> nix::Result<()> {
    // NOROOT, NO_SETUID_FIXUP and NO_CAP_AMBIENT_RAISE set; these and KEEP_CAPS (clear) locked.
    let bits: libc::c_ulong = 0b1110_1111;
    // SAFETY: a prctl with integer arguments only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0) }).map(drop)
}

/// Puts a system call filter on this process and all that it becomes. The process must have `no_new_privs`.
pub(crate) fn install_filter(program: &[Instruction]) -> nix::Result<()> {
    set_filter(program, 0).map(drop)
}

/// The same, and returns a descriptor that hears of the calls that the filter asks about. Since 5.0; EBUSY where
/// another filter on this process has one already.
pub(crate) fn install_filter_and_listen(program: &[Instruction]) -> nix::Result<OwnedFd> {
    const SECCOMP_FILTER_FLAG_NEW_LISTENER: libc::c_long = 1 << 3;
    let raw = set_filter(program, SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    let raw = RawFd::try_from(raw).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn set_filter(program: &[Instruction], flags: libc::c_long) -> nix::Result<libc::c_long> {
    const SECCOMP_SET_MODE_FILTER: libc::c_long = 1;
    /// Filtering is no reason to slow the processor down; the default since 5.16.
    const SECCOMP_FILTER_FLAG_SPEC_ALLOW: libc::c_long = 1 << 2;
    let length = libc::c_ushort::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    let install = |flags: libc::c_long| {
        // SAFETY: an `Instruction` is laid out as a `sock_filter`; the kernel copies `len` of them, and writes none.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        })
    };
    match install(flags | SECCOMP_FILTER_FLAG_SPEC_ALLOW) {
        // A kernel before 4.17 has no such flag.
        Err(Errno::EINVAL) => install(flags),
        other => other,
    }
}

/// A call that a filter asks about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    id: u64,
    pub(crate) arguments: [u64; 6],
}

nix::ioctl_readwrite!(receive_notification, b'!', 0, libc::seccomp_notif);
nix::ioctl_readwrite!(send_response, b'!', 1, libc::seccomp_notif_resp);
nix::ioctl_write_ptr!(add_descriptor, b'!', 3, libc::seccomp_notif_addfd);

/// The next call that the filter asks about. ENOENT when whoever made it is gone.
pub(crate) fn question(listener: BorrowedFd<'_>) -> nix::Result<Question> {
    // SAFETY: all zeros are valid, and what the kernel asks for.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the request writes a `seccomp_notif`.
    unsafe { receive_notification(listener.as_raw_fd(), &raw mut asked) }?;
    Ok(Question { id: asked.id, arguments: asked.data.args })
}

impl Question {
    /// Lets the call fail.
    pub(crate) fn refuse(self, listener: BorrowedFd<'_>, errno: Errno) -> nix::Result<()> {
        self.respond(listener, 0, -(errno as i32))
    }

    /// Gives whoever asked a copy of a descriptor, whose number there is what the call returns. Since 5.9.
    pub(crate) fn give(
        self,
        listener: BorrowedFd<'_>,
        descriptor: BorrowedFd<'_>,
        close_on_exec: bool,
    ) -> nix::Result<()> {
        let number = libc::seccomp_notif_addfd {
            id: self.id,
            flags: 0,
            srcfd: descriptor.as_raw_fd().unsigned_abs(),
            newfd: 0,
            newfd_flags: if close_on_exec { libc::O_CLOEXEC.unsigned_abs() } else { 0 },
        };
        // SAFETY: both descriptors are open, and the request reads a `seccomp_notif_addfd`.
        let there = unsafe { add_descriptor(listener.as_raw_fd(), &raw const number) }?;
        self.respond(listener, there.into(), 0)
    }

    fn respond(self, listener: BorrowedFd<'_>, value: i64, error: i32) -> nix::Result<()> {
        let mut response = libc::seccomp_notif_resp { id: self.id, val: value, error, flags: 0 };
        // SAFETY: the descriptor is open, and the request reads a `seccomp_notif_resp`.
        unsafe { send_response(listener.as_raw_fd(), &raw mut response) }.map(drop)
    }
}

/// Gives every signal its default action again; ignored signals would survive exec.
pub(crate) fn reset_signal_actions() {
    /// Larger than the kernel's own `sigaction` on every architecture; all zeros are `SIG_DFL`.
    const DEFAULT: [u64; 8] = [0; 8];
    for signal in 1..=64 {
        let old = std::ptr::null_mut::<u8>();
        // SAFETY: SIG_DFL runs none of our code; the last argument is the size of the signal mask. The
        // call is raw because the C library hides two signals that it uses itself, and a parent that
        // ignores them passes that on. KILL and STOP give EINVAL, which is right.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), old, size_of::<u64>()) };
    }
}

/// Leaves the session keyring of the caller, with the keys that it makes readable, for an empty one.
///
/// Not an error where it is denied: a container's filter that knows the call denies the other key calls too.
pub(crate) fn leave_session_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    let no_name = std::ptr::null::<u8>();
    // SAFETY: without a name the call reads no memory.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, no_name) };
}

/// Makes a set of Landlock rules for these accesses to files and the network, and these scopes. ENOSYS where the kernel
/// has none, EOPNOTSUPP where it is switched off, E2BIG or EINVAL where it knows less than is asked for.
pub(crate) fn landlock_ruleset(attributes: [u64; 3]) -> nix::Result<OwnedFd> {
    // The first kernels knew files only, and take nothing longer than that.
    let size = if attributes[1..] == [0, 0] { size_of::<u64>() } else { size_of_val(&attributes) };
    // SAFETY: the attributes live through the call, and no more than their size is passed along.
    let raw = Errno::result(unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size, 0)
    })?;
    let raw = RawFd::try_from(raw).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Enters a Landlock domain with these rules. The process must have `no_new_privs`.
pub(crate) fn landlock_restrict(ruleset: &OwnedFd) -> nix::Result<()> {
    // SAFETY: integer arguments only.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    Errno::result(result).map(drop)
}

/// Asks to be traced by the parent.
pub(crate) fn trace_me() -> nix::Result<()> {
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: this request reads none of its other arguments.
    Errno::result(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, nothing, nothing) }).map(drop)
}

/// Brings up the loopback interface of the current network namespace.
pub(crate) fn loopback_up() -> nix::Result<()> {
    /// `IFF_UP` and `IFF_RUNNING`, which are wider constants than the field that takes them.
    const UP_AND_RUNNING: libc::c_short = 0x41;
    // SAFETY: integer arguments only; the result is checked before use.
    let raw =
        Errno::result(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the socket was just made and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = UP_AND_RUNNING;
    // SAFETY: the request is the ifreq that SIOCSIFFLAGS reads.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(result).map(drop)
}

/// What `clone3` answers to a request that no kernel accepts: EINVAL where the call exists, ENOSYS or
/// EPERM where it is missing or filtered. Creates nothing.
pub(crate) fn clone3_answer() -> Errno {
    // SAFETY: with a size of zero the kernel rejects the call before it looks at the pointer.
    match Errno::result(unsafe { libc::syscall(SYS_CLONE3, std::ptr::null::<u8>(), 0) }) {
        Ok(_) => Errno::UnknownErrno,
        Err(errno) => errno,
    }
}

/// What `clone3` answers to a request for a process with an id that there cannot be: EAGAIN when the user may have no more
/// processes, and otherwise another error, because the limit is looked at before the id. Creates nothing.
pub(crate) fn clone3_impossible() -> Errno {
    /// The part of the kernel's structure that a request with an id needs, since 5.5.
    #[repr(C)]
    struct Request {
        flags: u64,
        unused: [u64; 3],
        exit_signal: u64,
        stack: [u64; 3],
        set_tid: u64,
        set_tid_size: u64,
    }
    let id = libc::pid_t::MAX;
    let request = Request {
        // Nothing is to be copied for what is not to be.
        flags: (libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES).unsigned_abs().into(),
        unused: [0; 3],
        exit_signal: libc::SIGCHLD.unsigned_abs().into(),
        stack: [0; 3],
        set_tid: (&raw const id) as u64,
        set_tid_size: 1,
    };
    // SAFETY: the request and the id live through the call. The largest number is no process id on any kernel, so that
    // there is no child that would share this one's stack.
    match Errno::result(unsafe { libc::syscall(SYS_CLONE3, &raw const request, size_of::<Request>()) }) {
        Ok(_) => Errno::UnknownErrno,
        Err(errno) => errno,
    }
}

/// Reads a descriptor to its end from the start, whatever its offset is.
pub(crate) fn read_all(descriptor: OwnedFd) -> std::io::Result<Vec<u8>> {
    use std::io::Seek;
    let mut file = std::fs::File::from(descriptor);
    file.rewind()?;
    let mut bytes = Vec::with_capacity(usize::try_from(file.metadata()?.len()).unwrap_or(0));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Sets an extended attribute of an open file or directory.
pub(crate) fn set_xattr(file: &OwnedFd, name: &std::ffi::CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: the name is a C string, and the value is passed with its length.
    let result =
        unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result).map(drop)
}

/// Opens the other side of a pseudo-terminal, wherever /dev/pts is and whatever is there. Since 4.13.
pub(crate) fn open_peer(master: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the argument of this request is a number.
    let raw = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Makes a terminal the controlling one of this process's session, which this process leads and which has none.
pub(crate) fn take_terminal(terminal: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: the argument of this request is a number: zero takes no terminal away from another session.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// How many rows and columns a terminal has.
pub(crate) fn window_size(terminal: BorrowedFd<'_>) -> nix::Result<libc::winsize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request writes a `winsize`, and `size` is one.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    Errno::result(result).map(|_| size)
}

/// Gives a terminal another size, which its foreground processes are told by SIGWINCH.
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, size: &libc::winsize) -> nix::Result<()> {
    // SAFETY: the request reads a `winsize`, and `size` is one.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const *size) };
    Errno::result(result).map(drop)
}
