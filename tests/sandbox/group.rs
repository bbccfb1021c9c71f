//! Limits on all processes of a run together, in control groups: of a kernel that is started for it in an emulator,
//! because few hosts give their groups away.
//!
//! One test starts it. The others are run in there, each in a group of its own.

use std::path::Path;
use std::process::{Command, Stdio};

use lbx_sandbox::{Backend, End, Keeper, Limits, Reached, Streams};

use crate::attacks::armed;
use crate::limits::{attack, in_memory};
use crate::machine;
use crate::support::{Kind, Rootfs, launcher, run};

/// Each test, with the user that it is run as and who owns its group; and who else is in the group.
const TESTS: [&str; 7] = [
    "all_processes_together_have_the_memory 0 0 alone",
    "all_processes_together_are_counted 0 0 alone",
    "a_group_of_a_killed_caller_is_removed_by_the_next 0 0 alone",
    "a_caller_that_is_alone_makes_room_and_moves_back 0 0 alone",
    "a_user_who_was_given_a_group_can_use_it 1000 1000 alone",
    "a_caller_with_company_moves_nobody 1000 1000 company",
    "a_group_of_another_user_is_not_touched 1000 0 alone",
];

/// Runs them, and says the last words when all have passed.
const SCRIPT: &str = r#"
mount -t cgroup2 none /sys/fs/cgroup && echo "+memory +pids" > /sys/fs/cgroup/cgroup.subtree_control || exit
try() {
    group=/sys/fs/cgroup/$1
    mkdir $group && chown -R $3 $group
    [ $4 = alone ] || { sleep 1000 & echo $! > $group/cgroup.procs; }
    sh -c 'echo $$ > $0/cgroup.procs && exec $SETPRIV --reuid $2 --clear-groups $PROGRAM --exact group::$1 --ignored' \
        $group $1 $2 2>&1
}
TESTS echo "all of them passed"
"#;

#[test]
fn control_groups_hold_all_processes_together_to_the_limits() {
    let tests = TESTS.map(|test| format!("try {test} && ")).concat();
    let Some(said) = machine::run(&SCRIPT.replace("TESTS", &tests)) else { return };
    assert!(said.contains("\nall of them passed"), "{said}");
}

/// The roots to run in there, where all is slow: in a namespace and outside. What a group does is the same in all.
fn few() -> Vec<Rootfs> {
    let one = |root: &Rootfs| {
        root.kind == Kind::Tree && matches!(root.backend, Backend::Namespaces | Backend::Chroot)
    };
    let roots: Vec<_> = armed().into_iter().filter(one).collect();
    assert!(!roots.is_empty(), "there is nothing to run");
    roots
}

/// A root that can be run in there.
fn root() -> Rootfs {
    few().swap_remove(0)
}

/// The groups below the one that this process is in, and whether they can have limits.
fn below() -> (String, Vec<String>, String) {
    let own = fs_err::read_to_string("/proc/self/cgroup").expect("a group");
    let own = own.trim().strip_prefix("0::/").expect("v2").to_owned();
    let directory = Path::new("/sys/fs/cgroup").join(&own);
    let entries = fs_err::read_dir(&directory).expect("a listing").map(|entry| entry.expect("an entry"));
    let groups = entries.filter(|entry| entry.file_type().expect("a type").is_dir());
    let groups = groups.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    (own, groups, fs_err::read_to_string(directory.join("cgroup.subtree_control")).expect("a list"))
}

/// What a process that is alone in its group must find there, and leave there.
fn uses_its_group_and_leaves_nothing() {
    let before = below();
    assert!(before.1.is_empty() && before.2.trim().is_empty(), "{before:?}");
    assert_eq!(Keeper::of_this_process(), Keeper::Group);
    let mut spec = root().shell("sleep 1000");
    spec.limits = Limits { processes: Some(20), ..Limits::default() };
    let runs = [(); 3].map(|()| launcher().spawn(&spec, Streams::default()).expect("started"));
    let (own, groups, enabled) = below();
    assert!(own.ends_with("-caller") && groups.is_empty() && enabled.trim().is_empty(), "{own} {groups:?}");
    drop(runs);
    assert_eq!(below(), before);
}

/// What a process that cannot use its group does: nothing to it, and as much as it can without.
fn does_without_a_group() {
    let before = below();
    assert_eq!(Keeper::of_this_process(), Keeper::Process);
    let limits = Limits { memory: Some(64 << 20), ..Limits::default() };
    assert_eq!(attack(&root(), &["memory_hog"], limits).stdout, "ENOMEM\n");
    assert_eq!(below(), before);
}

#[test]
#[ignore = "run in the kernel of this file's first test"]
fn all_processes_together_have_the_memory() {
    for root in few() {
        let limits = |megabytes: u64| Limits { memory: Some(megabytes << 20), ..Limits::default() };
        let hogs = [&["memory_hog"][..], &["memory_hogs"], &["fill_disk", "/tmp"]];
        for hog in hogs.into_iter().filter(|hog| hog.len() == 1 || in_memory(&root)) {
            let few = if hog.len() == 2 { 16 } else { 128 };
            let exit = attack(&root, hog, limits(few)).exit;
            assert_eq!(exit.end, End::Signal(libc::SIGKILL), "{hog:?} {exit:?}");
            assert_eq!(exit.reached, Some(Reached::Memory(few << 20)), "{hog:?}");
            let exit = attack(&root, hog, limits(600)).exit;
            assert_eq!((exit.end, exit.reached), (End::Code(0), None), "{hog:?}");
            let peak = exit.usage.peak;
            assert!(peak.is_none_or(|peak| peak > few << 20 && peak < 600 << 20), "{hog:?} {peak:?}");
        }
    }
}

#[test]
#[ignore = "run in the kernel of this file's first test"]
fn all_processes_together_are_counted() {
    for root in few() {
        let limits = |processes: u64| Limits { processes: Some(processes), ..Limits::default() };
        let bomb = attack(&root, &["fork_bomb", "60"], limits(20));
        assert_eq!((bomb.code(), &*bomb.stdout), (1, "EAGAIN\n"), "{} {bomb:?}", root.backend);
        assert_eq!(bomb.exit.reached, Some(Reached::Processes(20)));
        let bomb = attack(&root, &["fork_bomb", "60"], limits(100));
        assert_eq!((bomb.code(), bomb.exit.reached), (0, None), "{} {bomb:?}", root.backend);
    }
}

#[test]
#[ignore = "run in the kernel of this file's first test"]
fn a_caller_that_is_alone_makes_room_and_moves_back() {
    uses_its_group_and_leaves_nothing();
}

#[test]
#[ignore = "run in the kernel of this file's first test"]
fn a_user_who_was_given_a_group_can_use_it() {
    uses_its_group_and_leaves_nothing();
}

#[test]
#[ignore = "run in the kernel of this file's first test"]
fn a_caller_with_company_moves_nobody() {
    does_without_a_group();
}

#[test]
#[ignore = "run in the kernel of this file's first test"]
fn a_group_of_another_user_is_not_touched() {
    does_without_a_group();
}

#[test]
#[ignore = "run in the kernel of this file's first test"]
fn a_group_of_a_killed_caller_is_removed_by_the_next() {
    // In the top group, where nobody has to move.
    fs_err::write("/sys/fs/cgroup/cgroup.procs", "0").expect("moved");
    let groups = || below().1.into_iter().filter(|name| name.starts_with("lbx-")).collect::<Vec<_>>();
    let mut caller = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "group::helper_that_is_killed", "--ignored"])
        .stdout(Stdio::null())
        .spawn()
        .expect("a caller");
    while groups().is_empty() {
        assert!(caller.try_wait().expect("a status").is_none(), "the caller ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let left = groups();
    assert_eq!(Keeper::of_this_process(), Keeper::Group);
    assert_eq!(groups(), left, "a caller that lives keeps its group");
    caller.kill().expect("killed");
    caller.wait().expect("reaped");
    assert_eq!(groups(), left);
    // Again, because what was in it may take a while to die.
    while !groups().is_empty() {
        assert_eq!(Keeper::of_this_process(), Keeper::Group);
    }
}

/// Not a test: the caller that is killed.
#[test]
#[ignore = "run by a_group_of_a_killed_caller_is_removed_by_the_next"]
fn helper_that_is_killed() {
    let mut spec = root().shell("sleep 1000");
    spec.limits = Limits { processes: Some(20), ..Limits::default() };
    run(&spec);
}
