//! What `lbx doctor` and every sandbox error say: layer by layer, with one cause and one fix for each that is denied.
//!
//! What cannot be had here, such as AppArmor, is explained from made-up observations in the crate's own tests.

use landlock::{AccessFs, Ruleset, RulesetAttr};
use lbx_sandbox::{Backend, Diagnosis, Error, Finding, Layer, Level, Outcome};

use crate::kernel::{inside, without};
use crate::support::{launcher, roots};

const LANDLOCK_CREATE_RULESET: libc::c_long = 444;

fn finding(diagnosis: &Diagnosis, layer: Layer) -> &Finding {
    diagnosis.findings.iter().find(|finding| finding.layer == layer).expect("a finding")
}

/// The layer is denied with this error, this cause and this fix.
#[track_caller]
fn denied(diagnosis: &Diagnosis, layer: Layer, errno: &str, cause: &str, fix: &str) {
    let finding = finding(diagnosis, layer);
    let Outcome::Denied(failure) = &finding.outcome else { panic!("{finding:?}") };
    assert_eq!(failure.errno_name(), errno, "{finding:?}");
    assert!(finding.cause.as_ref().is_some_and(|found| found.contains(cause)), "{finding:?}");
    assert!(finding.fix.as_ref().is_some_and(|found| found.contains(fix)), "{finding:?}");
}

#[test]
fn landlock_is_a_layer_of_its_own_and_nothing_stops_for_want_of_it() {
    if roots().is_empty() {
        return;
    }
    for (errno, name, cause, fix) in [
        (libc::ENOSYS, "ENOSYS", "the kernel has no Landlock", "CONFIG_SECURITY_LANDLOCK=y"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP", "switched off since boot", "`lsm=`"),
        (libc::E2BIG, "E2BIG", "older than Linux 6.12", "Linux 6.12"),
    ] {
        without(&[(LANDLOCK_CREATE_RULESET, errno)], move || {
            let diagnosis = launcher().diagnose(None).expect("a diagnosis");
            denied(&diagnosis, Layer::Landlock, name, cause, fix);
            assert!(diagnosis.can_run());
            assert_eq!(diagnosis.problems().count(), 1);
            assert!(diagnosis.remedies().is_empty(), "nobody sets that without a boot");
        });
    }
}

#[test]
fn a_denied_filter_is_a_layer_of_its_own_and_no_command_runs_without_one() {
    if roots().is_empty() {
        return;
    }
    without(&[(libc::SYS_seccomp, libc::EINVAL)], || {
        let diagnosis = launcher().diagnose(None).expect("a diagnosis");
        denied(&diagnosis, Layer::Filter, "EINVAL", "built without filters", "CONFIG_SECCOMP_FILTER=y");
        assert!(!diagnosis.can_run());
        let scratch = tempfile::tempdir().expect("a directory");
        let error = launcher().choose(Some(Backend::Namespaces), Level::None, scratch.path());
        let Err(Error::Setup { failure, diagnosis: Some(diagnosis), .. }) = error else {
            panic!("{error:?}")
        };
        assert!(failure.call.starts_with("seccomp("), "{failure}");
        assert!(!diagnosis.can_run());
    });
}

#[test]
fn denied_tracing_is_a_layer_of_its_own() {
    if roots().is_empty() {
        return;
    }
    without(&[(libc::SYS_ptrace, libc::EPERM)], || {
        let diagnosis = launcher().diagnose(None).expect("a diagnosis");
        denied(&diagnosis, Layer::Tracing, "EPERM", "a system call filter (seccomp)", "seccomp=unconfined");
        assert!(diagnosis.can_run());
        assert_eq!(Layer::Tracing.loss(), Some("the backend proot"));
    });
}

/// As qemu-user answers; that it does was seen with qemu-x86_64 7.2.
#[test]
fn an_emulator_of_another_cpu_is_recognised_by_the_calls_that_it_lacks() {
    if roots().is_empty() {
        return;
    }
    let calls = [
        (libc::SYS_unshare, libc::EINVAL),
        (libc::SYS_ptrace, libc::ENOSYS),
        (libc::SYS_seccomp, libc::ENOSYS),
        (LANDLOCK_CREATE_RULESET, libc::ENOSYS),
    ];
    without(&calls, || {
        let diagnosis = launcher().diagnose(None).expect("a diagnosis");
        for finding in diagnosis.problems() {
            assert!(finding.cause.as_ref().is_some_and(|cause| cause.contains("qemu-user")), "{finding:?}");
        }
        assert!(!diagnosis.can_run());
    });
}

#[test]
fn a_landlock_domain_around_us_is_what_denies_mounts() {
    if roots().is_empty() {
        return;
    }
    for domains in [1, 3] {
        let diagnosis = std::thread::spawn(move || {
            for _ in 0..domains {
                let rules = Ruleset::default().handle_access(AccessFs::MakeBlock).expect("an access");
                let status =
                    rules.create().and_then(landlock::RulesetCreated::restrict_self).expect("a domain");
                if status.ruleset == landlock::RulesetStatus::NotEnforced {
                    crate::support::skip("this kernel has no Landlock");
                    return None;
                }
            }
            Some(launcher().diagnose(None).expect("a diagnosis"))
        });
        let Some(diagnosis) = diagnosis.join().expect("the thread") else { return };
        denied(&diagnosis, Layer::Mount, "EPERM", "a Landlock domain around this process", "run lbx outside");
        assert_eq!(finding(&diagnosis, Layer::UserNamespace).outcome, Outcome::Allowed);
    }
}

#[test]
fn a_refused_overlay_names_the_file_system_and_its_place() {
    use lbx_sandbox::Overlay;
    if roots().is_empty() {
        return;
    }
    let Overlay::Refused(finding) = launcher().overlay_supported("/proc/sys".as_ref()).expect("an answer")
    else {
        panic!("an overlay in /proc")
    };
    assert_eq!(finding.cause.as_deref(), Some("layers on proc, at /proc/sys, cannot be stacked"));
    assert!(finding.fix.is_some_and(|fix| fix.contains("ext4, XFS or btrfs")));
}

#[test]
fn a_limit_on_namespaces_of_processes_is_told_from_one_of_users() {
    if !roots().is_empty() {
        inside("echo 0 > /proc/sys/user/max_pid_namespaces", "", "diagnosis::helper_without_pid_namespaces");
    }
}

#[test]
#[ignore = "run by a_limit_on_namespaces_of_processes_is_told_from_one_of_users"]
fn helper_without_pid_namespaces() {
    let diagnosis = launcher().diagnose(None).expect("a diagnosis");
    assert_eq!(finding(&diagnosis, Layer::UserNamespace).outcome, Outcome::Allowed);
    let cause = "user.max_pid_namespaces is 0";
    denied(&diagnosis, Layer::OtherNamespaces, "ENOSPC", cause, "sysctl -w user.max_pid_namespaces=15000");
    assert_eq!(finding(&diagnosis, Layer::Proc).outcome, Outcome::NotTried);
    assert_eq!(diagnosis.remedies().len(), 1);
}

#[test]
fn less_than_required_is_refused_with_what_is_missing_and_why() {
    if !roots().is_empty() {
        inside("mount -t tmpfs mask /proc/driver", "", "diagnosis::helper_with_a_masked_proc");
    }
}

#[test]
#[ignore = "run by less_than_required_is_refused_with_what_is_missing_and_why"]
fn helper_with_a_masked_proc() {
    let scratch = tempfile::tempdir().expect("a directory");
    let refused = launcher().choose(None, Level::Full, scratch.path()).expect_err("a masked /proc");
    let Error::TooWeak { backend: Backend::Namespaces, level: Level::Partial, diagnosis, others, .. } =
        refused
    else {
        panic!("{refused:?}")
    };
    denied(&diagnosis.expect("a diagnosis"), Layer::Proc, "EPERM", "masked", "systempaths=unconfined");
    let names: Vec<_> = others.iter().map(|(backend, _)| *backend).collect();
    assert_eq!(names, Backend::all().skip(1).collect::<Vec<_>>());
}

#[test]
fn a_backend_that_is_forced_and_refused_comes_with_the_diagnosis() {
    if roots().is_empty() {
        return;
    }
    without(&[(libc::SYS_unshare, libc::EPERM)], || {
        let scratch = tempfile::tempdir().expect("a directory");
        let refused = launcher().choose(Some(Backend::Namespaces), Level::None, scratch.path());
        let Err(Error::Setup { diagnosis: Some(diagnosis), others, .. }) = refused else {
            panic!("{refused:?}")
        };
        denied(
            &diagnosis,
            Layer::UserNamespace,
            "EPERM",
            "a system call filter (seccomp)",
            "seccomp=unconfined",
        );
        assert!(others.is_empty(), "no other was asked for");
    });
}

#[test]
fn the_survey_tries_every_backend_and_agrees_with_each_test_alone() {
    if roots().is_empty() {
        return;
    }
    let scratch = tempfile::tempdir().expect("a directory");
    let survey = launcher().survey(scratch.path());
    assert!(survey.iter().map(|(backend, _)| *backend).eq(Backend::all()));
    for (backend, found) in survey {
        assert_eq!(found.ok(), launcher().test(backend, scratch.path()).ok(), "{backend}");
    }
    assert_eq!(fs_err::read_dir(scratch.path()).expect("a listing").count(), 0, "nothing is left");
}

/// A chroot whose root is a mount looks like any other root, but for the processes outside.
#[test]
fn a_chroot_that_is_a_mount_is_found_by_comparing_with_the_processes_outside() {
    let copy = "mount -t tmpfs copy /mnt && mkdir /mnt/in && mount -t tmpfs in /mnt/in && for e in /*; do
        if [ -L $e ]; then cp -P $e /mnt/in$e;
        elif [ -d $e ] && [ $e != /mnt ]; then mkdir /mnt/in$e && mount --rbind $e /mnt/in$e || exit 9; fi;
        done";
    let stays = "sh -c '/usr/sbin/chroot /mnt/in \"$0\" \"$@\"; exit $?'";
    if !roots().is_empty() {
        inside(copy, stays, "kernel::helper_in_a_chroot");
    }
}
