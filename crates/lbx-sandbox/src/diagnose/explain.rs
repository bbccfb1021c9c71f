//! The table of causes: from what was observed to one cause and one fix.

use nix::errno::Errno;

use super::host::{FileSystem, Host, LIMITS};
use super::{Explanation, Finding, Layer, Outcome};
use crate::error::Failure;
use crate::remedy::Remedy;
use crate::wire::Setting;

/// What a system has by default where it limits user namespaces at all, roughly.
const USUAL_LIMIT: u64 = 15_000;

/// AppArmor profiles that container engines put on their containers.
const CONTAINER_PROFILES: [&str; 4] =
    ["docker-default", "containers-default", "cri-containerd.apparmor.d", "crio-default"];

/// File systems that overlays have no quarrel with.
const GOOD_FILE_SYSTEMS: [&str; 4] = ["ext4", "XFS", "btrfs", "bcachefs"];

/// The cause of a denial and what to do about it. The first match wins: the most specific come first.
pub(super) fn explain(
    layer: Layer,
    failure: &Failure,
    setting: &Setting,
    host: &Host,
) -> Option<Explanation> {
    let errno = Errno::from_raw(failure.errno);
    security_module(errno, setting).or_else(|| match layer {
        Layer::UserNamespace => user_namespace(errno, setting, host),
        Layer::IdMap => id_map(failure, errno, host).or_else(|| filter(errno, setting)),
        Layer::OtherNamespaces | Layer::Network => limit(layer, errno, host).or_else(|| filter(errno, setting)),
        Layer::Mount => limit(layer, errno, host)
            .or_else(|| domain(errno, setting))
            .or_else(|| filter(errno, setting)),
        // It is tried only where mounts are allowed, so that nothing else can be the cause.
        Layer::Proc => (errno == Errno::EPERM).then(|| {
            new(
                "parts of /proc are masked by the container around this process",
                "run the container with `--security-opt systempaths=unconfined`, or `procMount: Unmasked` in a pod",
            )
        }),
        Layer::Overlay => host.store.as_ref().map(|store| overlay(errno, store)),
        Layer::Filter => filter(errno, setting).or_else(|| no_filters(errno)),
        Layer::Landlock => landlock(errno).or_else(|| filter(errno, setting)),
        Layer::Tracing => yama(errno, host).or_else(|| filter(errno, setting)),
    })
}

fn new(cause: impl Into<String>, fix: impl Into<String>) -> Explanation {
    Explanation { cause: cause.into(), fix: fix.into(), remedy: None }
}

fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::EPERM | Errno::EACCES)
}

/// AppArmor and SELinux put a label on a process, and say EACCES where a filter of system calls says EPERM.
fn security_module(errno: Errno, setting: &Setting) -> Option<Explanation> {
    let label = setting.label.as_deref()?;
    let profiles = || label.split("//&").map(|profile| profile.split(" (").next().unwrap_or(profile));
    // Ubuntu's own says EPERM too, because it lets the namespace be and takes its capabilities.
    if is_refusal(errno) && profiles().any(|profile| profile == "unprivileged_userns") {
        let cause =
            "AppArmor takes the capabilities from unprivileged user namespaces (Ubuntu 23.10 and later)";
        let fix = "an AppArmor profile for this program that has `userns,`: `lbx doctor --fix` prints it";
        return Some(Explanation { remedy: Some(Remedy::AppArmorProfile), ..new(cause, fix) });
    }
    if errno != Errno::EACCES {
        return None;
    }
    if label.contains(" (enforce)") {
        let profile = profiles().find(|profile| *profile != "unconfined")?;
        let is_container = CONTAINER_PROFILES.iter().any(|known| profile.starts_with(known));
        let fix = if is_container {
            "run the container with `--security-opt apparmor=unconfined`"
        } else {
            "start lbx from a program that AppArmor does not confine"
        };
        return Some(new(format!("the AppArmor profile `{profile}` confines this process"), fix));
    }
    let kind = label.split(':').nth(2).filter(|kind| kind.ends_with("_t"))?;
    let fix = if kind.starts_with("container") {
        "run the container with `--security-opt label=disable`"
    } else {
        "see what SELinux denied with `sudo ausearch -m avc -ts recent`"
    };
    Some(new(format!("SELinux confines this process as `{kind}`"), fix))
}

fn user_namespace(errno: Errno, setting: &Setting, host: &Host) -> Option<Explanation> {
    // Nothing but a filter makes a call disappear; what else may deny namespaces was never asked.
    if setting.seccomp == Some(2) && setting.clone3 == "ENOSYS" {
        return filter(errno, setting);
    }
    limit(Layer::UserNamespace, errno, host)
        .or_else(|| {
            let is_off = is_refusal(errno) && host.userns_clone == Some(0);
            is_off.then(|| sysctl("kernel.unprivileged_userns_clone", "is 0", 1))
        })
        .or_else(|| {
            (errno == Errno::EPERM && host.in_chroot).then(|| {
                let cause = "this process runs in a chroot, where the kernel allows no user namespace";
                new(cause, "run lbx outside of the chroot")
            })
        })
        .or_else(|| {
            (errno == Errno::EPERM && host.is_unmapped).then(|| {
                let cause = "the user id of this process is not mapped in the user namespace around it";
                new(cause, "run lbx as a user that the namespace has a map for")
            })
        })
        .or_else(|| filter(errno, setting))
        .or_else(|| {
            matches!(errno, Errno::EINVAL | Errno::ENOSYS).then(|| {
                new("the kernel was built without user namespaces", "use a kernel with CONFIG_USER_NS=y")
            })
        })
}

/// A namespace that the kernel makes no more of.
fn limit(layer: Layer, errno: Errno, host: &Host) -> Option<Explanation> {
    // EUSERS is how kernels before 4.9 put it.
    if !matches!(errno, Errno::ENOSPC | Errno::EUSERS) {
        return None;
    }
    let names: &[&'static str] = match layer {
        Layer::UserNamespace => &LIMITS[..1],
        Layer::OtherNamespaces => &LIMITS[1..4],
        Layer::Mount => &LIMITS[4..5],
        _ => &LIMITS[5..],
    };
    let value = |name: &str| host.limits.get(name).copied();
    if let Some(name) = names.iter().find(|name| value(name) == Some(0)) {
        return Some(sysctl(name, "is 0 (this is not about disk space)", USUAL_LIMIT));
    }
    // Which of several it was is not known; the smallest is the likeliest.
    let name = names.iter().min_by_key(|name| value(name).unwrap_or(u64::MAX))?;
    let kind = name.trim_start_matches("user.max_").trim_end_matches("_namespaces");
    if host.is_nested {
        let cause = format!(
            "the limit on {kind} namespaces within the one around this process is reached (this is not about disk space)"
        );
        return Some(new(cause, "run lbx outside of the sandbox or the container that made it"));
    }
    let more = value(name).unwrap_or(0).saturating_mul(2).max(USUAL_LIMIT);
    let cause = format!(
        "the limit on {kind} namespaces or on their nesting is reached (this is not about disk space)"
    );
    Some(Explanation { cause, ..sysctl(name, "", more) })
}

/// A setting of the kernel, and the value that it should have.
fn sysctl(name: &str, is: &str, value: u64) -> Explanation {
    let remedy = Remedy::Sysctl { name: name.to_owned(), value };
    Explanation {
        remedy: Some(remedy),
        ..new(format!("{name} {is}"), format!("sudo sysctl -w {name}={value}"))
    }
}

fn id_map(failure: &Failure, errno: Errno, host: &Host) -> Option<Explanation> {
    if errno == Errno::ENOENT && failure.call.contains("/proc/") {
        return Some(new("there is no /proc here", "mount -t proc proc /proc"));
    }
    (errno == Errno::EPERM && host.is_weak_root).then(|| {
        let cause = "this is a root user without CAP_SETFCAP, which cannot map its own id (since Linux 5.12)";
        new(cause, "run lbx as another user, or the container with `--cap-add SETFCAP`")
    })
}

/// Mounts are denied in every Landlock domain that has rules for files.
fn domain(errno: Errno, setting: &Setting) -> Option<Explanation> {
    (errno == Errno::EPERM && setting.landlock_domains > 0).then(|| {
        let cause = "a Landlock domain around this process denies mounts";
        new(cause, "run lbx outside of the sandbox that made it")
    })
}

fn filter(errno: Errno, setting: &Setting) -> Option<Explanation> {
    if setting.seccomp != Some(2) || !matches!(errno, Errno::EPERM | Errno::EACCES | Errno::ENOSYS) {
        return None;
    }
    let cause = match setting.clone3.as_str() {
        "ENOSYS" => {
            "the system call filter of the container around this process, such as Docker's or containerd's default"
        }
        _ => "a system call filter (seccomp) on this process",
    };
    let fix = "run the container with `--security-opt seccomp=unconfined` (`lbx doctor --docker` and `--kubernetes` \
               print all that full isolation takes), or as its root user for the backend `chroot`";
    Some(new(cause, fix))
}

fn overlay(errno: Errno, store: &FileSystem) -> Explanation {
    let FileSystem { kind, path } = store;
    let path = path.display();
    if matches!(errno, Errno::ENODEV) {
        return new("the kernel has no overlayfs", "sudo modprobe overlay");
    }
    if GOOD_FILE_SYSTEMS.contains(&kind.as_str()) && matches!(errno, Errno::EPERM | Errno::EINVAL) {
        let cause =
            format!("the kernel stacks no layers in a user namespace (they are on {kind}, at {path})");
        return new(cause, "use Linux 5.11 or later");
    }
    let cause = format!("layers on {kind}, at {path}, cannot be stacked");
    new(cause, "let LBX_CACHE_DIR name a folder on ext4, XFS or btrfs")
}

fn no_filters(errno: Errno) -> Option<Explanation> {
    match errno {
        Errno::ENOMEM => Some(new(
            "the filters on this process leave no room for another",
            "run lbx outside of the sandboxes around it",
        )),
        Errno::EINVAL | Errno::ENOSYS => {
            let cause = "the kernel was built without filters of system calls";
            Some(new(cause, "use a kernel with CONFIG_SECCOMP_FILTER=y"))
        }
        _ => None,
    }
}

fn landlock(errno: Errno) -> Option<Explanation> {
    Some(match errno {
        Errno::ENOSYS => {
            new("the kernel has no Landlock", "use Linux 6.12 or later with CONFIG_SECURITY_LANDLOCK=y")
        }
        Errno::EOPNOTSUPP => new(
            "Landlock is switched off since boot",
            "boot with `landlock` in the list of the kernel's parameter `lsm=`",
        ),
        // A larger request than the kernel knows, and one with rules that it does not know.
        Errno::E2BIG | Errno::EINVAL => {
            new("the kernel's Landlock is older than Linux 6.12", "use Linux 6.12 or later")
        }
        _ => return None,
    })
}

fn yama(errno: Errno, host: &Host) -> Option<Explanation> {
    if !is_refusal(errno) {
        return None;
    }
    match host.ptrace_scope {
        Some(2) => Some(new("kernel.yama.ptrace_scope is 2", "sudo sysctl -w kernel.yama.ptrace_scope=1")),
        Some(3..) => Some(new(
            "kernel.yama.ptrace_scope is 3, which stays until the next boot",
            "take it out of /etc/sysctl.d and /etc/sysctl.conf, and boot again",
        )),
        _ => None,
    }
}

/// Looks at all findings together: an emulator of another CPU lacks calls that no kernel lacks both of.
pub(super) fn emulator(findings: &mut [Finding]) {
    let errno = |layer: Layer| {
        findings.iter().find(|finding| finding.layer == layer).and_then(|finding| match &finding.outcome {
            Outcome::Denied(failure) => Some(Errno::from_raw(failure.errno)),
            Outcome::Allowed | Outcome::NotTried => None,
        })
    };
    let is_missing = |errno| matches!(errno, Some(Errno::ENOSYS | Errno::EINVAL));
    if errno(Layer::Tracing) != Some(Errno::ENOSYS) || !is_missing(errno(Layer::Filter)) {
        return;
    }
    for finding in findings.iter_mut().filter(|finding| matches!(finding.outcome, Outcome::Denied(_))) {
        finding.cause = Some("an emulator of another CPU (qemu-user) runs this program".to_owned());
        finding.fix = Some("run lbx as it was built for this machine's own CPU".to_owned());
        finding.remedy = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Stage;

    /// The filter of Docker, which answers ENOSYS to clone3, and the others, which do not.
    const DOCKER: &str = "ENOSYS";
    const OTHER: &str = "EINVAL";

    fn setting(seccomp: u8, clone3: &str) -> Setting {
        Setting { seccomp: Some(seccomp), label: None, clone3: clone3.to_owned(), landlock_domains: 0 }
    }

    fn labelled(label: &str) -> Setting {
        Setting { label: Some(label.to_owned()), ..setting(0, OTHER) }
    }

    fn limits(name: &'static str, value: u64) -> Host {
        Host { limits: [(name, value)].into(), ..Host::default() }
    }

    fn found(layer: Layer, errno: Errno, setting: &Setting, host: &Host) -> Option<Explanation> {
        explain(layer, &Failure::new(Stage::Namespaces, "call()", errno), setting, host)
    }

    /// One cause and one fix, each in one line, with these words.
    #[track_caller]
    fn expect(found: Option<Explanation>, cause: &str, fix: &str) -> Option<Remedy> {
        let found = found.expect("an explanation");
        assert!(found.cause.contains(cause), "{found:?}");
        assert!(found.fix.contains(fix), "{found:?}");
        for line in [&found.cause, &found.fix] {
            assert!(!line.contains('\n') && !line.contains(". ") && line.len() < 220, "{line}");
        }
        found.remedy
    }

    #[test]
    fn what_nobody_knows_the_cause_of_is_not_explained() {
        for layer in [Layer::UserNamespace, Layer::Mount, Layer::Network, Layer::Tracing] {
            assert_eq!(found(layer, Errno::EPERM, &setting(0, OTHER), &Host::default()), None, "{layer}");
        }
        assert_eq!(found(Layer::Mount, Errno::EIO, &setting(2, DOCKER), &Host::default()), None);
    }

    #[test]
    fn the_filter_of_a_container() {
        let host = Host { userns_clone: Some(0), in_chroot: true, ..Host::default() };
        // The filter comes before what else may deny it, and Docker's profile of AppArmor says EACCES.
        let docker = Setting { label: Some("docker-default (enforce)".to_owned()), ..setting(2, DOCKER) };
        for layer in [Layer::UserNamespace, Layer::Network, Layer::Mount, Layer::Filter, Layer::Tracing] {
            let found = found(layer, Errno::EPERM, &docker, &host);
            expect(found, "Docker's or containerd's default", "seccomp=unconfined");
        }
        let found = found(Layer::UserNamespace, Errno::EPERM, &setting(2, OTHER), &Host::default());
        expect(found, "a system call filter (seccomp) on this process", "seccomp=unconfined");
    }

    #[test]
    fn user_namespaces_switched_off_by_debian() {
        let host = Host { userns_clone: Some(0), ..Host::default() };
        let fix = "sudo sysctl -w kernel.unprivileged_userns_clone=1";
        // A filter that is not a container's is there on many services, and is not what denies it.
        for seccomp in [0, 2] {
            let found = found(Layer::UserNamespace, Errno::EPERM, &setting(seccomp, OTHER), &host);
            let remedy = expect(found, "kernel.unprivileged_userns_clone is 0", fix);
            let name = "kernel.unprivileged_userns_clone".to_owned();
            assert_eq!(remedy, Some(Remedy::Sysctl { name, value: 1 }));
        }
        let host = Host { userns_clone: Some(1), ..Host::default() };
        assert_eq!(found(Layer::UserNamespace, Errno::EPERM, &setting(0, OTHER), &host), None);
    }

    #[test]
    fn a_chroot_around_this_process() {
        let host = Host { in_chroot: true, ..Host::default() };
        let found = |errno| found(Layer::UserNamespace, errno, &setting(0, OTHER), &host);
        assert_eq!(expect(found(Errno::EPERM), "runs in a chroot", "outside of the chroot"), None);
        expect(found(Errno::EINVAL), "built without user namespaces", "CONFIG_USER_NS=y");
    }

    #[test]
    fn a_user_that_the_namespace_does_not_know() {
        let host = Host { is_unmapped: true, is_nested: true, ..Host::default() };
        let found = found(Layer::UserNamespace, Errno::EPERM, &setting(0, OTHER), &host);
        expect(found, "is not mapped in the user namespace", "as a user that");
    }

    #[test]
    fn a_limit_of_zero_is_not_a_full_disk_and_names_the_limit() {
        for (layer, name) in [
            (Layer::UserNamespace, "user.max_user_namespaces"),
            (Layer::OtherNamespaces, "user.max_ipc_namespaces"),
            (Layer::Mount, "user.max_mnt_namespaces"),
            (Layer::Network, "user.max_net_namespaces"),
        ] {
            for errno in [Errno::ENOSPC, Errno::EUSERS] {
                let found = found(layer, errno, &setting(0, OTHER), &limits(name, 0));
                let cause = format!("{name} is 0 (this is not about disk space)");
                let remedy = expect(found, &cause, &format!("sudo sysctl -w {name}=15000"));
                assert_eq!(remedy, Some(Remedy::Sysctl { name: name.to_owned(), value: 15_000 }));
            }
        }
        // A container's filter does not say ENOSPC.
        let found = found(Layer::UserNamespace, Errno::ENOSPC, &setting(2, OTHER), &limits(LIMITS[0], 0));
        expect(found, "is 0", "sysctl");
    }

    #[test]
    fn a_limit_that_is_reached_is_raised_and_one_of_a_namespace_around_is_left_alone() {
        let host = limits("user.max_user_namespaces", 96_365);
        let remedy = expect(
            found(Layer::UserNamespace, Errno::ENOSPC, &setting(0, OTHER), &host),
            "the limit on user namespaces or on their nesting is reached",
            "=192730",
        );
        assert!(remedy.is_some());
        let host = Host { is_nested: true, ..host };
        let found = found(Layer::UserNamespace, Errno::ENOSPC, &setting(0, OTHER), &host);
        assert_eq!(
            expect(found, "the limit on user namespaces within the one around this process", "outside"),
            None
        );
    }

    #[test]
    fn a_kernel_without_user_namespaces() {
        let found = found(Layer::UserNamespace, Errno::EINVAL, &setting(0, OTHER), &Host::default());
        expect(found, "built without user namespaces", "CONFIG_USER_NS=y");
    }

    #[test]
    fn apparmor_of_ubuntu() {
        for label in ["unprivileged_userns (enforce)", "lxc-container//&unprivileged_userns (enforce)"] {
            for (layer, errno) in [
                (Layer::IdMap, Errno::EPERM),
                (Layer::IdMap, Errno::EACCES),
                (Layer::Mount, Errno::EACCES),
                (Layer::Network, Errno::EPERM),
            ] {
                let found = found(layer, errno, &labelled(label), &Host::default());
                let remedy = expect(found, "AppArmor takes the capabilities", "`userns,`");
                assert_eq!(remedy, Some(Remedy::AppArmorProfile));
            }
        }
        let found = found(Layer::IdMap, Errno::EPERM, &labelled("unconfined"), &Host::default());
        assert_eq!(found, None);
    }

    #[test]
    fn apparmor_of_a_container_and_of_another_program() {
        let found = |label: &str| found(Layer::Mount, Errno::EACCES, &labelled(label), &Host::default());
        for label in
            ["docker-default", "containers-default-0.57.4", "cri-containerd.apparmor.d", "crio-default"]
        {
            let found = found(&format!("{label} (enforce)"));
            let cause = format!("the AppArmor profile `{label}` confines this process");
            expect(found, &cause, "`--security-opt apparmor=unconfined`");
        }
        expect(found("snap.code.code (enforce)"), "`snap.code.code`", "AppArmor does not confine");
        assert_eq!(found("unconfined"), None);
        assert_eq!(found("docker-default (complain)"), None, "a profile that only complains denies nothing");
    }

    #[test]
    fn selinux_of_a_container_and_of_another_program() {
        let found = |label: &str| found(Layer::Mount, Errno::EACCES, &labelled(label), &Host::default());
        expect(found("system_u:system_r:container_t:s0:c1,c2"), "as `container_t`", "label=disable");
        expect(found("system_u:system_r:httpd_t:s0"), "as `httpd_t`", "ausearch");
    }

    #[test]
    fn a_masked_proc() {
        let found = |errno| found(Layer::Proc, errno, &setting(2, DOCKER), &Host::default());
        expect(found(Errno::EPERM), "parts of /proc are masked", "systempaths=unconfined");
        assert_eq!(found(Errno::ENODEV), None);
    }

    #[test]
    fn no_proc_at_all() {
        let failure = Failure::new(Stage::IdMap, "open(\"/proc/self/setgroups\")", Errno::ENOENT);
        let found = explain(Layer::IdMap, &failure, &setting(0, OTHER), &Host::default());
        expect(found, "there is no /proc here", "mount -t proc");
    }

    #[test]
    fn a_root_user_who_may_not_map_its_own_id() {
        let host = Host { is_weak_root: true, ..Host::default() };
        let found = |layer| found(layer, Errno::EPERM, &setting(0, OTHER), &host);
        expect(found(Layer::IdMap), "a root user without CAP_SETFCAP", "--cap-add SETFCAP");
        assert_eq!(found(Layer::Mount), None);
    }

    #[test]
    fn an_overlay_that_the_file_system_or_the_kernel_refuses() {
        let on = |kind: &str| {
            let store = FileSystem { kind: kind.to_owned(), path: "/home/me/.cache/lbx".into() };
            Host { store: Some(store), ..Host::default() }
        };
        let found = |errno, host: &Host| found(Layer::Overlay, errno, &setting(0, OTHER), host);
        for kind in ["NFS", "overlayfs", "FUSE", "tmpfs", "9p"] {
            let cause = format!("layers on {kind}, at /home/me/.cache/lbx, cannot be stacked");
            expect(found(Errno::EINVAL, &on(kind)), &cause, "LBX_CACHE_DIR");
        }
        expect(found(Errno::EPERM, &on("ext4")), "they are on ext4, at /home/me/.cache/lbx", "Linux 5.11");
        expect(found(Errno::ENODEV, &on("ext4")), "the kernel has no overlayfs", "modprobe overlay");
    }

    #[test]
    fn landlock_that_is_missing_switched_off_or_old() {
        let found = |errno, setting: &Setting| found(Layer::Landlock, errno, setting, &Host::default());
        let free = setting(0, OTHER);
        expect(found(Errno::ENOSYS, &free), "has no Landlock", "CONFIG_SECURITY_LANDLOCK=y");
        expect(found(Errno::EOPNOTSUPP, &free), "switched off", "`landlock` in the list");
        expect(found(Errno::E2BIG, &free), "older than Linux 6.12", "Linux 6.12");
        expect(found(Errno::EPERM, &setting(2, OTHER)), "a system call filter", "seccomp=unconfined");
        assert!(Layer::Landlock.loss().is_some_and(|loss| loss.contains("proot")));
    }

    #[test]
    fn a_kernel_without_filters_and_one_with_no_room_for_another() {
        let found = |errno| found(Layer::Filter, errno, &setting(0, OTHER), &Host::default());
        expect(found(Errno::EINVAL), "built without filters", "CONFIG_SECCOMP_FILTER=y");
        expect(found(Errno::ENOMEM), "no room for another", "outside");
    }

    #[test]
    fn a_landlock_domain_around_this_process() {
        let inside = |seccomp| Setting { landlock_domains: 1, ..setting(seccomp, OTHER) };
        for seccomp in [0, 2] {
            let found = found(Layer::Mount, Errno::EPERM, &inside(seccomp), &Host::default());
            expect(found, "a Landlock domain around this process denies mounts", "outside");
        }
        let found = found(Layer::UserNamespace, Errno::EPERM, &inside(0), &Host::default());
        assert_eq!(found, None, "a domain denies no namespaces");
    }

    #[test]
    fn yama() {
        let host = |scope| Host { ptrace_scope: Some(scope), ..Host::default() };
        let found = |scope| found(Layer::Tracing, Errno::EPERM, &setting(0, OTHER), &host(scope));
        assert_eq!(expect(found(2), "ptrace_scope is 2", "sudo sysctl -w kernel.yama.ptrace_scope=1"), None);
        expect(found(3), "ptrace_scope is 3", "boot again");
        assert_eq!(found(1), None, "children may be traced");
    }

    #[test]
    fn an_emulator_lacks_what_no_kernel_lacks() {
        let denied = |layer, errno| {
            let failure = Failure::new(Stage::Namespaces, "call()", errno);
            Finding::denied(layer, failure, &setting(0, DOCKER), &Host::default())
        };
        // As qemu-x86_64 7.2 answers.
        let mut findings = vec![
            denied(Layer::UserNamespace, Errno::EINVAL),
            denied(Layer::Filter, Errno::ENOSYS),
            denied(Layer::Landlock, Errno::ENOSYS),
            denied(Layer::Tracing, Errno::ENOSYS),
            Finding::allowed(Layer::Network),
        ];
        emulator(&mut findings);
        for finding in &findings[..4] {
            assert!(finding.cause.as_ref().is_some_and(|cause| cause.contains("qemu-user")), "{finding:?}");
        }
        assert_eq!(findings[4], Finding::allowed(Layer::Network));
        let mut old = vec![denied(Layer::Filter, Errno::EINVAL), Finding::allowed(Layer::Tracing)];
        let before = old.clone();
        emulator(&mut old);
        assert_eq!(old, before, "a kernel without filters that does trace is a kernel");
    }
}
