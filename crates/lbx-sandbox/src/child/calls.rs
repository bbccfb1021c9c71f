//! Which system calls the command may make. Everything is allowed but what opens the kernel's rarely used parts, undoes
//! the sandbox, or reaches out of it.
//!
//! Where the C library falls back to an older call, the answer is ENOSYS, so that it does.

use libc::{EACCES, ENOSYS, EOPNOTSUPP, EPERM, EPROTONOSUPPORT};

use crate::filter::{Action, Compare, Condition, Filter, INT, Rule};

/// The newest call that was looked at: what comes later does not exist yet, as far as the command can see.
/// 469 is `file_setattr`, of Linux 6.17.
const NEWEST: u32 = 469;

/// `CLONE_NEW…`, in the argument of `clone` and `unshare`; the time namespace is of `unshare` only, because its bit is
/// one of the exit signal in `clone`.
const NEW_NAMESPACES: u64 = 0x7E02_0000;
const NEW_TIME: u64 = 0x80;
/// The setuid and the setgid bit.
const SET_ID: u64 = 0o6000;

/// Calls that undo the sandbox, look into other processes, or configure the machine.
#[rustfmt::skip]
const DENIED: &[libc::c_long] = &[
    // Namespaces, roots and mounts.
    libc::SYS_setns, libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot,
    libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount,
    libc::SYS_fspick, libc::SYS_mount_setattr, libc::SYS_open_by_handle_at,
    // Other processes.
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_pidfd_getfd,
    libc::SYS_kcmp, libc::SYS_process_madvise,
    // Keys, which belong to the user and not to the sandbox.
    libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key,
    // The machine.
    libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_reboot, libc::SYS_kexec_load, libc::SYS_init_module,
    libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_acct, libc::SYS_syslog, libc::SYS_quotactl,
    libc::SYS_quotactl_fd, libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime,
    libc::SYS_adjtimex, libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_vhangup,
    // Large and rarely used.
    libc::SYS_bpf, libc::SYS_perf_event_open, libc::SYS_userfaultfd, libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie, libc::SYS_nfsservctl,
];

#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const DENIED_HERE: &[libc::c_long] = &[
    libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib,
    libc::SYS__sysctl,
];

#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[libc::c_long] = &[];

/// Calls that libraries do without. `clone3` keeps its flags in memory, where a filter cannot look.
const MISSING: &[libc::c_long] =
    &[libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// What a tracer does to the processes that it started. Others are out of its reach by its Landlock domain alone.
const TRACING: &[libc::c_long] = &[libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev];

/// What describes files and is not in them, as far as builds do without. Modes and times they cannot do without.
#[rustfmt::skip]
const OWNERS_AND_ATTRIBUTES: &[libc::c_long] = &[
    libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_fsetxattr,
    libc::SYS_removexattr, libc::SYS_lremovexattr, libc::SYS_fremovexattr,
];

/// What a package manager asks for besides, and where there is one user and no disk to wait for there is nothing to do.
#[rustfmt::skip]
const IDS_AND_SYNC: &[libc::c_long] = &[
    libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresuid,
    libc::SYS_setresgid, libc::SYS_setgroups, libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_capset,
    libc::SYS_sync, libc::SYS_syncfs, libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync_file_range,
];

/// Who it is. Done means 0.
const OWN_IDS: &[libc::c_long] = &[libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid];

#[cfg(target_arch = "x86_64")]
const OWNERS_HERE: &[libc::c_long] = &[libc::SYS_chown, libc::SYS_lchown];

#[cfg(not(target_arch = "x86_64"))]
const OWNERS_HERE: &[libc::c_long] = &[];

/// Which sockets of the internet there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Internet {
    /// None.
    None,
    /// All: where they lead is somebody else's business, or nowhere.
    All,
    /// Those that are given, connected already, to whoever asks for one. Connecting them once more does nothing.
    Given,
    /// Streams of the older protocol, where nobody gives any.
    Streams,
}

/// What a filter is to leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    pub(super) internet: Internet,
    /// Whether it may trace others, because tracing is how it is isolated.
    pub(super) traces: bool,
    /// Whether paths are those of a root of its own. Elsewhere they are the host's, and a Landlock domain is not asked
    /// about the names of sockets, nor about owners and attributes.
    pub(super) own_root: bool,
    /// Whether it is to look like the root user.
    pub(super) administers: bool,
    /// Whether it is told so because it has another id.
    pub(super) pretends: bool,
}

/// The filter of a command.
pub(super) fn filter(reach: Reach) -> Filter {
    let Reach { internet, traces, own_root, administers, pretends } = reach;
    let (denied, missing) = (errno(EPERM), errno(ENOSYS));
    let calls = DENIED.iter().chain(DENIED_HERE).filter(|call| !(traces && TRACING.contains(call)));
    let mut rules: Vec<_> = calls.map(|call| Rule::always(*call, denied)).collect();
    rules.extend(MISSING.iter().map(|call| Rule::always(*call, missing)));
    rules.extend(namespaces(denied));
    rules.extend(terminal_input(denied));
    if administers {
        let done = errno(0);
        rules.extend(devices(done));
        let told: &[libc::c_long] = if pretends { OWN_IDS } else { &[] };
        let calls = OWNERS_AND_ATTRIBUTES.iter().chain(OWNERS_HERE).chain(IDS_AND_SYNC).chain(told);
        rules.extend(calls.map(|call| Rule::always(*call, done)));
        // `setxattrat` and `removexattrat`, of Linux 6.13.
        rules.extend([463, 466].map(|call| Rule::always(call, done)));
        // A kernel that audits nothing is one in which users can be added; one that does not let them say so is not.
        let audit = [(0, libc::AF_NETLINK), (2, libc::NETLINK_AUDIT)];
        let audit = audit.map(|(argument, value)| is(argument, u64::from(value.unsigned_abs())));
        rules.push(Rule::when(libc::SYS_socket, audit, errno(EPROTONOSUPPORT)));
    } else {
        rules.extend(modes(denied));
        rules.extend(devices(denied));
    }
    rules.extend(personalities(denied));
    rules.extend(sockets(internet, own_root));
    if !own_root {
        rules.extend(OWNERS_AND_ATTRIBUTES.iter().chain(OWNERS_HERE).map(|call| Rule::always(*call, denied)));
        // `setxattrat` and `removexattrat`, of Linux 6.13, and `file_setattr`, of 6.17.
        rules.extend([463, 466, 469].map(|call| Rule::always(call, missing)));
    }
    Filter { rules, otherwise: Action::Allow, beyond: Some((NEWEST, missing)), foreign: Action::Kill }
}

fn errno(number: i32) -> Action {
    Action::Errno(u16::try_from(number).unwrap_or(u16::MAX))
}

fn has(argument: u8, bits: u64) -> Condition {
    Condition::new(argument, bits, Compare::NotEqual, 0)
}

fn is(argument: u8, value: u64) -> Condition {
    Condition::new(argument, INT, Compare::Equal, value)
}

fn namespaces(denied: Action) -> [Rule; 2] {
    [
        Rule::when(libc::SYS_clone, [has(0, NEW_NAMESPACES)], denied),
        Rule::when(libc::SYS_unshare, [has(0, NEW_NAMESPACES | NEW_TIME)], denied),
    ]
}

/// Typing on somebody's terminal, and pasting on a console. The kernel looks at 32 bits of the request.
fn terminal_input(denied: Action) -> [Rule; 2] {
    [0x5412, 0x541C].map(|request| Rule::when(libc::SYS_ioctl, [is(1, request)], denied))
}

/// Programs that run as somebody else.
fn modes(denied: Action) -> Vec<Rule> {
    vec![
        Rule::when(libc::SYS_fchmod, [has(1, SET_ID)], denied),
        Rule::when(libc::SYS_fchmodat, [has(2, SET_ID)], denied),
        // Of Linux 6.6; the same number everywhere, like all calls since 5.1.
        Rule::when(452, [has(2, SET_ID)], denied),
        #[cfg(target_arch = "x86_64")]
        Rule::when(libc::SYS_chmod, [has(1, SET_ID)], denied),
    ]
}

/// Device nodes.
fn devices(action: Action) -> Vec<Rule> {
    let mut rules = Vec::new();
    let format = u64::from(libc::S_IFMT);
    let of_kind =
        |argument: u8, kind: libc::mode_t| Condition::new(argument, format, Compare::Equal, u64::from(kind));
    for kind in [libc::S_IFCHR, libc::S_IFBLK] {
        rules.push(Rule::when(libc::SYS_mknodat, [of_kind(2, kind)], action));
        #[cfg(target_arch = "x86_64")]
        rules.push(Rule::when(libc::SYS_mknod, [of_kind(1, kind)], action));
    }
    rules
}

/// Ways to behave like another system that are more than the name of the machine: `setarch` and the C library ask for
/// these, and exploits for a memory layout that can be guessed.
fn personalities(denied: Action) -> Vec<Rule> {
    const NORMAL: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
    let allowed =
        NORMAL.iter().map(|value| Rule::when(libc::SYS_personality, [is(0, *value)], Action::Allow));
    allowed.chain([Rule::always(libc::SYS_personality, denied)]).collect()
}

/// Sockets between processes of the sandbox, and questions about interfaces; the internet where there is one.
fn sockets(internet: Internet, named: bool) -> Vec<Rule> {
    let number = |number: libc::c_int| u64::from(number.unsigned_abs());
    let socket = |conditions: Vec<Condition>, action| Rule::when(libc::SYS_socket, conditions, action);
    let allowed = |conditions| socket(conditions, Action::Allow);
    let mut rules = vec![allowed(vec![is(0, number(libc::AF_NETLINK)), is(2, number(libc::NETLINK_ROUTE))])];
    if named {
        rules.push(allowed(vec![is(0, number(libc::AF_UNIX))]));
    }
    // The type has flags above it.
    let is_stream = Condition::new(1, 0xf, Compare::Equal, number(libc::SOCK_STREAM));
    let streams = [0, libc::IPPROTO_TCP]
        .map(|protocol| vec![is(0, number(libc::AF_INET)), is_stream, is(2, number(protocol))]);
    match internet {
        Internet::None => {}
        Internet::All => {
            rules.extend([libc::AF_INET, libc::AF_INET6].map(|inet| allowed(vec![is(0, number(inet))])));
        }
        Internet::Given => {
            rules.extend(streams.map(|stream| socket(stream, Action::Ask)));
            rules.push(Rule::always(libc::SYS_connect, errno(0)));
        }
        Internet::Streams => rules.extend(streams.map(allowed)),
    }
    if matches!(internet, Internet::Given | Internet::Streams) {
        // A connection by way of sending, about which a Landlock domain is not asked.
        let fast =
            |call, argument| Rule::when(call, [has(argument, number(libc::MSG_FASTOPEN))], errno(EOPNOTSUPP));
        rules.extend([fast(libc::SYS_sendto, 3), fast(libc::SYS_sendmsg, 2), fast(libc::SYS_sendmmsg, 3)]);
    }
    rules.push(Rule::always(libc::SYS_socket, errno(EACCES)));
    rules.push(Rule::when(libc::SYS_socketpair, [is(0, number(libc::AF_UNIX))], Action::Allow));
    rules.push(Rule::always(libc::SYS_socketpair, errno(EACCES)));
    rules
}
