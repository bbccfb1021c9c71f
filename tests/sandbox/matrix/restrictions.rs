//! Each restriction takes away what it says, and without it that is there: a row whose restriction did nothing would
//! prove nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use lbx_testkit::command::{Home, Ran, run, shared_directory_in};
use lbx_testkit::restrict::{self, Calls, Kept, Restriction};

use Restriction::{
    Capabilities, DockerCalls, ExecutableTmp, HostIds, NewPrivileges, Overlays, RealRoot, SharedMemory, User,
    UserNames, UserNamespaces, WholeProc, WritableHome,
};

use crate::builds::{GROUND, is_root};

/// Makes a user namespace.
const NAMESPACE: &str = "unshare --user true";
/// Mounts something.
const MOUNT: &str = "unshare --user --map-root-user --mount mount -t tmpfs none /mnt";

/// Restrictions, and a script that succeeds without them.
const CASES: &[(&[Restriction], &str)] = &[
    (&[HostIds], "test \"$(tr -s ' ' < /proc/self/uid_map | cut -d ' ' -f 4)\" != 1"),
    (&[HostIds, UserNamespaces], NAMESPACE),
    (&[WritableHome], "touch \"$HOME/file\""),
    (&[Overlays], "mkdir -p \"$LBX_CACHE_DIR\" && mknod \"$LBX_CACHE_DIR/whiteout\" c 0 0"),
    (
        &[ExecutableTmp],
        "file=$(mktemp -p /tmp) && echo true > $file && chmod +x $file && code=0; $file || code=1; rm $file; exit $code",
    ),
    (&[SharedMemory], "test -d /dev/shm && test -c /dev/null"),
    (&[UserNames], "grep root /etc/passwd"),
    // Kernels have one or the other of these.
    (&[WholeProc], "for f in interrupts kcore keys timer_list; do test ! -c /proc/$f || exit 1; done"),
    (&[WholeProc], "! grep ' /proc/sys ro' /proc/self/mountinfo"),
    (&[RealRoot], NAMESPACE),
    (&[NewPrivileges], "grep 'NoNewPrivs:.*0' /proc/self/status"),
    (&[NewPrivileges, DockerCalls, Capabilities(Kept::None)], NAMESPACE),
    (&[NewPrivileges, DockerCalls, Capabilities(Kept::None)], MOUNT),
    (&[NewPrivileges, Restriction::Calls(Calls::Clone3)], "is_there 435"),
    (&[NewPrivileges, Restriction::Calls(Calls::Openat2)], "is_there 437"),
    (&[NewPrivileges, Restriction::Calls(Calls::Landlock)], "is_there 444"),
    (&[NewPrivileges, Restriction::Calls(Calls::Mount)], MOUNT),
    (&[NewPrivileges, Restriction::Calls(Calls::UserNamespaces)], NAMESPACE),
];

/// The same for what only root has.
const CASES_OF_ROOT: &[(&[Restriction], &str)] = &[
    (&[User(62_001)], "test \"$(id -u)\" = 0"),
    (&[User(62_001)], "test -r /proc/1/environ"),
    (&[Capabilities(Kept::None)], "grep 'CapBnd:.*[1-9a-f]' /proc/self/status"),
    (&[Capabilities(Kept::None)], "chown 1 \"$HOME\""),
    (&[Capabilities(Kept::Docker)], "unshare --mount true"),
    (&[DockerCalls, Capabilities(Kept::Docker)], "unshare --mount true"),
    // Nothing of the first comes through a change of the user.
    (&[User(62_001), Capabilities(Kept::None)], "chown 1 \"$HOME\""),
];

/// What must still work, so that nothing above fails for another reason.
const STILL_THERE: &[(&[Restriction], &str)] = &[
    (&[Capabilities(Kept::Docker)], "chown 1 \"$HOME\" && grep 'CapEff:.*a80425fb' /proc/self/status"),
    (&[DockerCalls, Capabilities(Kept::Administrator)], "unshare --mount mount -t tmpfs none /mnt"),
    (&[HostIds], MOUNT),
];

/// A shell, with a function that tells whether this kernel has a system call.
fn shell(script: &str) -> (Home, Command) {
    // Overlays leave folders there that nobody can enter before their mode is changed, as is done with this one.
    static STORES: OnceLock<PathBuf> = OnceLock::new();
    let home = Home::new_in(Path::new(GROUND));
    let function = "is_there() { python3 -c 'import ctypes, sys; c = ctypes.CDLL(None, use_errno=True)
c.syscall(int(sys.argv[1]), 0, 0, 0, 0); sys.exit(ctypes.get_errno() == 38)' $1; }";
    let mut command = home.command("/bin/sh");
    command.args(["-c", &format!("{function}; {script}")]);
    let stores = STORES.get_or_init(|| shared_directory_in(Path::new(GROUND)));
    command.env("LBX_CACHE_DIR", stores.join(home.root().file_name().expect("a name")));
    (home, command)
}

fn under(restrictions: &[Restriction], script: &str) -> Ran {
    let (_home, command) = shell(script);
    run(&mut restrict::wrap(restrictions, &command, "helper_restricted"))
}

#[test]
fn each_restriction_takes_away_what_it_says() {
    let cases = if is_root() { [CASES, CASES_OF_ROOT].concat() } else { CASES.to_vec() };
    for (restrictions, script) in cases {
        let (_home, mut command) = shell(script);
        let before = run(&mut command);
        assert_eq!(before.code, 0, "without {restrictions:?}: {script}\n{before:?}");
        let ran = under(restrictions, script);
        assert!(ran.code > 0, "under {restrictions:?}: {script}\n{ran:?}");
        // It was the script that failed, not the way to it.
        assert!(!ran.stderr.contains("panicked"), "under {restrictions:?}: {}", ran.stderr);
    }
}

#[test]
fn a_restriction_takes_away_no_more_than_it_says() {
    let all: &[Restriction] = &[
        NewPrivileges,
        WritableHome,
        Overlays,
        ExecutableTmp,
        SharedMemory,
        UserNames,
        WholeProc,
        RealRoot,
        Restriction::Calls(Calls::Mount),
        Restriction::Calls(Calls::Clone3),
    ];
    let ran = under(all, "test \"$(pwd)\" = \"$PWD\" && touch file && test -c /dev/urandom && is_there 437");
    assert_eq!(ran.code, 0, "{ran:?}");
    if is_root() {
        for (restrictions, script) in STILL_THERE {
            let ran = under(restrictions, script);
            assert_eq!(ran.code, 0, "under {restrictions:?}: {script}\n{ran:?}");
        }
    }
}
