//! Kernels and hosts that lack something: every fallback is taken once, every denial is explained.
//!
//! What is missing is taken away by a system call filter on the thread that starts the sandbox; the
//! sandbox inherits it.

use std::process::Command;

use lbx_sandbox::filter::{Action, Filter, Rule};
use lbx_sandbox::{Access, Bind, Diagnosis, Error, Layer, Level, Outcome, Overlay, Root};

use crate::support::{Kind, Rootfs, launcher, roots, run, try_run};

const CLOSE_RANGE: libc::c_long = 436;
const CLONE3: libc::c_long = 435;
const MOUNT_SETATTR: libc::c_long = 442;

/// Runs `work` on a thread where these calls fail with these errors.
pub(crate) fn without<T: Send + 'static>(
    calls: &[(libc::c_long, i32)],
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let refuse = |(call, errno): &(libc::c_long, i32)| Rule::always(*call, error(*errno));
    under(calls.iter().map(refuse).collect(), work)
}

pub(crate) fn error(errno: i32) -> Action {
    Action::Errno(u16::try_from(errno).expect("an errno"))
}

/// Runs `work` on a thread where these rules hold for system calls.
pub(crate) fn under<T: Send + 'static>(rules: Vec<Rule>, work: impl FnOnce() -> T + Send + 'static) -> T {
    let filter = Filter { rules, otherwise: Action::Allow, beyond: None, foreign: Action::Allow };
    std::thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().expect("allowed to everybody");
        filter.install().expect("the kernel takes it");
        work()
    })
    .join()
    .expect("the work")
}

/// Linux 6.1: no Landlock for files, none for processes and sockets, nothing that came after.
#[test]
fn on_an_older_kernel_namespaces_keep_every_guarantee() {
    const MODULES: [&str; 4] = ["guarantees::", "hostile::", "lifetime::", "views::"];
    let user = if nix::unistd::geteuid().is_root() { 0 } else { 1000 };
    let modules = MODULES.join(" ");
    let script =
        format!("$SETPRIV --reuid {user} --clear-groups $PROGRAM {modules} 2>&1 && echo all of them passed");
    let Some(said) = crate::machine::run(&script) else { return };
    assert!(said.contains("\nall of them passed\n"), "{said}");
}

/// A run whose success needs each of the guarantees that the newer calls give.
fn check_guarantees(root: &Rootfs) {
    let script =
        "cd /proc/self/fd && echo *; cat /lbx/in/f; echo x > /lbx/in/g; echo x > /etc/g; cd /; ls -d /..;
        grep -c ' /lbx/in ro,nosuid,nodev' /proc/self/mountinfo";
    let mut spec = root.shell(script);
    let shared = root.layer(8);
    fs_err::write(shared.join("f"), "f\n").expect("a file");
    spec.binds.push(Bind { source: shared.clone(), target: "/lbx/in".into(), access: Access::ReadOnly });
    // A descriptor that the caller forgot to mark.
    let file = fs_err::File::open(shared.join("f")).expect("a file");
    let leak = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_DUPFD(90)).expect("a descriptor");
    let output = run(&spec);
    nix::unistd::close(leak).expect("closed");
    let rest = output.stdout.strip_prefix("0 1 2 3\n").or(output.stdout.strip_prefix("0 1 2\n"));
    assert_eq!(rest, Some("f\n/..\n1\n"), "{:?}: {output:?}", root.kind);
    assert!(!shared.join("g").exists() && !root.base().join("etc/g").exists());
}

#[test]
fn without_close_range() {
    for root in roots() {
        without(&[(CLOSE_RANGE, libc::ENOSYS)], move || check_guarantees(&root));
    }
}

#[test]
fn without_mount_setattr() {
    for errno in [libc::ENOSYS, libc::EPERM] {
        for root in roots() {
            without(&[(MOUNT_SETATTR, errno)], move || check_guarantees(&root));
        }
    }
}

#[test]
fn without_clone3() {
    for root in roots() {
        without(&[(CLONE3, libc::ENOSYS)], move || check_guarantees(&root));
    }
}

#[test]
fn without_pivot_root_on_an_initial_file_system_or_under_a_filter() {
    for errno in [libc::EINVAL, libc::EPERM] {
        for root in roots() {
            without(&[(libc::SYS_pivot_root, errno)], move || check_guarantees(&root));
        }
    }
}

/// Podman's filter allows namespaces, and denies their host name.
#[test]
fn without_sethostname() {
    for root in roots() {
        without(&[(libc::SYS_sethostname, libc::EPERM)], move || check_guarantees(&root));
    }
}

#[test]
fn without_anything_new() {
    for root in roots() {
        // clone3, open_tree … mount_setattr, openat2 and whatever came later.
        let calls: Vec<_> = (424..470).map(|n| (n, libc::ENOSYS)).collect();
        without(&calls, move || check_guarantees(&root));
    }
}

fn finding(diagnosis: &Diagnosis, layer: Layer) -> (String, Option<String>, Option<String>) {
    let finding = diagnosis.findings.iter().find(|f| f.layer == layer).expect("a finding");
    let errno = match &finding.outcome {
        Outcome::Denied(failure) => failure.errno_name(),
        other => format!("{other:?}"),
    };
    (errno, finding.cause.clone(), finding.fix.clone())
}

#[test]
fn the_filter_of_docker_is_recognised() {
    let Some(root) = roots().pop() else { return };
    let calls = [
        (libc::SYS_unshare, libc::EPERM),
        (libc::SYS_mount, libc::EPERM),
        (libc::SYS_pivot_root, libc::EPERM),
        (CLONE3, libc::ENOSYS),
    ];
    without(&calls, move || {
        let error = try_run(&root.shell("true")).expect_err("denied");
        let text = error.to_string();
        assert!(text.starts_with("cannot create namespaces: unshare(CLONE_NEW"), "{text}");
        assert!(text.ends_with("): EPERM"), "{text}");
        let Error::Setup { diagnosis: Some(diagnosis), .. } = error else { panic!("no diagnosis") };
        assert!(!diagnosis.can_run());
        let (errno, cause, fix) = finding(&diagnosis, Layer::UserNamespace);
        assert_eq!(errno, "EPERM");
        assert!(cause.expect("a cause").contains("Docker"));
        assert!(fix.expect("a fix").contains("seccomp=unconfined"));
        assert_eq!(finding(&diagnosis, Layer::Mount).0, "NotTried");
    });
}

#[test]
fn exhausted_user_namespaces_are_not_a_full_disk() {
    if roots().is_empty() {
        return;
    }
    without(&[(libc::SYS_unshare, libc::ENOSPC)], || {
        let diagnosis = launcher().diagnose(None).expect("a diagnosis");
        let (errno, cause, fix) = finding(&diagnosis, Layer::UserNamespace);
        assert_eq!(errno, "ENOSPC");
        assert!(cause.expect("a cause").contains("not about disk space"));
        assert!(fix.expect("a fix").contains("max_user_namespaces"));
    });
}

#[test]
fn denied_mounts_are_a_finding_of_their_own() {
    let Some(root) = roots().pop() else { return };
    let directory = root.dir.path().to_owned();
    without(&[(libc::SYS_mount, libc::EPERM)], move || {
        let diagnosis = launcher().diagnose(Some(&directory)).expect("a diagnosis");
        assert_eq!(finding(&diagnosis, Layer::UserNamespace).0, "Allowed");
        assert_eq!(finding(&diagnosis, Layer::Mount).0, "EPERM");
        assert_eq!(finding(&diagnosis, Layer::Overlay).0, "NotTried");
        assert!(!diagnosis.can_run());
    });
}

#[test]
fn a_host_that_allows_everything_has_nothing_to_say() {
    for root in roots().into_iter().filter(|r| r.kind == Kind::Layers) {
        let diagnosis = launcher().diagnose(Some(root.dir.path())).expect("a diagnosis");
        assert!(diagnosis.can_run());
        // Landlock is not everywhere, and Yama may forbid tracing; the rest is what a sandbox needs.
        let comforts = [Layer::Landlock, Layer::Tracing];
        for finding in diagnosis.findings.iter().filter(|finding| !comforts.contains(&finding.layer)) {
            assert_eq!(finding.outcome, Outcome::Allowed, "{finding}");
        }
        let json = serde_json::to_string(&diagnosis).expect("JSON");
        assert_eq!(serde_json::from_str::<Diagnosis>(&json).expect("a diagnosis"), diagnosis);
    }
}

#[test]
fn a_refused_overlay_is_a_clear_error() {
    for root in roots().into_iter().filter(|r| r.kind == Kind::Layers) {
        let mut spec = root.shell("true");
        // The kernel takes no layer from a file system whose names come and go.
        spec.root = Root::Layers(vec![root.base(), "/proc/sys".into()]);
        let error = try_run(&spec).expect_err("refused").to_string();
        assert!(error.starts_with(r#"cannot assemble the sandbox's root: mount("overlay""#), "{error}");
        assert!(error.contains("lowerdir=s:1:0,userxattr") && error.ends_with("EINVAL"), "{error}");
    }
}

#[test]
fn the_overlay_probe_leaves_nothing_and_explains_a_refusal() {
    let Some(root) = roots().pop() else { return };
    let count = || fs_err::read_dir(root.dir.path()).expect("a listing").count();
    let before = count();
    launcher().overlay_supported(root.dir.path()).expect("an answer");
    assert_eq!(count(), before);
    let answer = launcher().overlay_supported("/proc/sys".as_ref()).expect("an answer");
    let Overlay::Refused(finding) = answer else { panic!("{answer:?}") };
    assert!(finding.to_string().starts_with("overlay: denied: mkdtemp("), "{finding}");
    assert!(finding.fix.is_some());
}

/// Runs an ignored test of this program below a shell command that changes its surroundings first.
pub(crate) fn inside(surroundings: &str, through: &str, helper: &str) {
    let this = std::env::current_exe().expect("this program");
    let script = format!("{surroundings} && exec {through} \"$0\" --exact {helper} --ignored --nocapture");
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(this)
        .output()
        .expect("unshare");
    let said = String::from_utf8_lossy(&output.stdout);
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{messages}");
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
fn with_a_masked_proc_the_outer_one_is_bound_read_only() {
    if !roots().is_empty() {
        inside("mount -t tmpfs mask /proc/driver", "", "kernel::helper_with_a_masked_proc");
    }
}

#[test]
#[ignore = "run by with_a_masked_proc_the_outer_one_is_bound_read_only"]
fn helper_with_a_masked_proc() {
    let diagnosis = launcher().diagnose(None).expect("a diagnosis");
    let (errno, cause, _) = finding(&diagnosis, Layer::Proc);
    assert_eq!(errno, "EPERM");
    assert!(cause.expect("a cause").contains("masked"));
    assert!(diagnosis.can_run());
    for root in roots() {
        check_guarantees(&root);
        let claims = launcher().test(root.backend, root.dir.path()).expect("the self-test passes");
        assert!(!claims.processes_hidden && claims.level() == Level::Partial, "{claims:?}");
        let me = std::process::id();
        let script = format!(
            "test -d /proc/{me} && ! echo x > /proc/sys/kernel/hostname && ! cat /proc/{me}/environ && ls /proc/driver"
        );
        let output = run(&root.shell(&script));
        assert_eq!((output.code(), output.stdout.as_str()), (0, ""), "{output:?}");
        assert!(output.stderr.contains("Read-only file system"), "{output:?}");
    }
}

#[test]
fn in_a_chroot_the_cause_is_the_chroot() {
    // A copy of the host's top directory, made of binds; /mnt holds it and is left out.
    let copy = "mount -t tmpfs copy /mnt && mkdir /mnt/in && for e in /*; do
        if [ -L $e ]; then cp -P $e /mnt/in$e;
        elif [ -d $e ] && [ $e != /mnt ]; then mkdir /mnt/in$e && mount --rbind $e /mnt/in$e || exit 9; fi;
        done";
    if !roots().is_empty() {
        inside(copy, "/usr/sbin/chroot /mnt/in", "kernel::helper_in_a_chroot");
    }
}

#[test]
#[ignore = "run by in_a_chroot_the_cause_is_the_chroot"]
fn helper_in_a_chroot() {
    let diagnosis = launcher().diagnose(None).expect("a diagnosis");
    let (errno, cause, fix) = finding(&diagnosis, Layer::UserNamespace);
    assert_eq!(errno, "EPERM");
    assert!(cause.expect("a cause").contains("chroot"));
    assert!(fix.is_some());
}

#[test]
#[expect(unsafe_code, reason = "keyrings have no safe wrapper")]
fn keys_of_the_session_are_out_of_reach() {
    const SESSION_KEYRING: libc::c_long = -3;
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    const SET_PERMISSIONS: libc::c_long = 5;
    /// Only those who hold the keyring may see the key; being the same user is not enough.
    const POSSESSOR_ONLY: libc::c_long = 0x3f00_0000;
    let Some(root) = roots().pop() else { return };
    std::thread::spawn(move || {
        let (kind, name, secret) = (c"user", c"lbx-test-key", c"secret");
        let no_name = std::ptr::null::<u8>();
        // SAFETY: all strings live through the calls; the keyring is this thread's alone and goes with it.
        let added = unsafe {
            libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, no_name);
            let (kind, name, secret) = (kind.as_ptr(), name.as_ptr(), secret.as_ptr());
            let key = libc::syscall(libc::SYS_add_key, kind, name, secret, 6_usize, SESSION_KEYRING);
            libc::syscall(libc::SYS_keyctl, SET_PERMISSIONS, key, POSSESSOR_ONLY) == 0
        };
        // The control: from out here the key can be seen.
        let seen = fs_err::read_to_string("/proc/keys").unwrap_or_default();
        if !added || !seen.contains("lbx-test-key") {
            return crate::support::skip("this kernel has no keyrings");
        }
        let keys = run(&root.shell("cat /proc/keys")).stdout;
        assert!(!keys.contains("lbx-test-key"), "{keys}");
        true
    })
    .join()
    .expect("the thread");
}
