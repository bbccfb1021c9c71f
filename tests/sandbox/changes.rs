//! A root that may be changed, as a package manager changes it: what works, what only appears to, where it goes, and what
//! stays denied.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use lbx_sandbox::{Backend, Changes, Root, Spec};

use crate::support::{Kind, Output, Rootfs, everywhere, namespaced, run, try_run};

/// A run of a script that may change the root, and where the changes are afterwards.
fn administered(root: &Rootfs, script: &str) -> (Spec, PathBuf) {
    let mut spec = root.shell(script);
    (spec.uid, spec.gid, spec.home) = (0, 0, "/root".to_owned());
    spec.tmpfs.retain(|tmpfs| ["/tmp", "/run"].contains(&tmpfs.target.as_str()));
    let place = root.dir.path().join("above");
    fs_err::create_dir_all(&place).expect("a directory");
    match root.kind {
        Kind::Layers => {
            spec.changes = Changes::Above(place.clone());
            (spec, place.join("upper"))
        }
        Kind::Tree => {
            spec.changes = Changes::InPlace;
            (spec, root.base())
        }
    }
}

/// The backends that can do it.
fn lending() -> Vec<Rootfs> {
    everywhere().into_iter().filter(|root| root.backend.lends_root()).collect()
}

#[track_caller]
fn succeeds(spec: &Spec) -> Output {
    let output = run(spec);
    assert!(output.exit.success(), "{output:?}");
    output
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().expect("metadata").permissions().mode() & 0o7777
}

#[test]
fn files_are_made_changed_and_removed_as_the_root_user() {
    for root in lending() {
        let script = "id -u; echo new > /etc/new; echo more >> /etc/image; rm /etc/passwd; mkdir -p /opt/a/b; \
                      busybox mv /bin/false /opt/a; echo kept nowhere > /tmp/x; cat /etc/image";
        let (spec, changed) = administered(&root, script);
        assert_eq!(succeeds(&spec).stdout, "0\nfrom the image\nmore\n");
        assert_eq!(fs_err::read_to_string(changed.join("etc/new")).unwrap(), "new\n");
        assert_eq!(fs_err::read_to_string(changed.join("etc/image")).unwrap(), "from the image\nmore\n");
        assert!(changed.join("opt/a/b").is_dir() && changed.join("opt/a/false").is_symlink());
        assert!(!changed.join("tmp/x").exists());
        if root.kind == Kind::Layers {
            assert_eq!(fs_err::read_to_string(root.base().join("etc/image")).unwrap(), "from the image\n");
            // The same again, from what is there now.
            let mut again = root.shell("cat /etc/new /etc/image && ls /etc /opt/a");
            again.root = Root::Layers(vec![root.base(), changed.clone()]);
            let seen = succeeds(&again).stdout;
            assert!(seen.starts_with("new\nfrom the image\nmore\n"), "{seen}");
            let mut gone = root.shell("test ! -e /bin/false");
            gone.root = again.root;
            succeeds(&gone);
        }
        let own = nix::unistd::geteuid().as_raw();
        for path in ["etc/new", "opt", "", "tmp", "proc", "dev"] {
            let Ok(found) = changed.join(path).metadata() else { continue };
            assert_eq!(found.uid(), own, "everything is the caller's: {path}");
        }
    }
}

#[test]
fn owners_groups_devices_and_disks_only_appear_to_be_changed() {
    for root in lending() {
        let script = "echo x > /etc/x && busybox chown 33:44 /etc/x && busybox chgrp -h mail /etc/x || exit 1; \
                      busybox mknod /etc/device c 1 3 || exit 2; sync || exit 3; \
                      busybox chmod 4750 /etc/x || exit 4; busybox stat -c '%u %g' /etc/x; test ! -e /etc/device";
        let script = format!("echo mail:x:8: > /etc/group; {script}");
        let (spec, changed) = administered(&root, &script);
        // Without a user namespace, what files say of their owner is not made up.
        let owner = if root.backend == Backend::Chroot { "65533 65533\n" } else { "0 0\n" };
        assert_eq!(succeeds(&spec).stdout, owner);
        assert!(!changed.join("etc/device").exists());
        // What it means to have the bit is for the caller to decide; nothing that runs gets anything by it.
        // Where the file was another user's in truth, it goes with that.
        let expected = if root.backend == Backend::Chroot { 0o750 } else { 0o4750 };
        assert_eq!(mode(&changed.join("etc/x")), expected);
    }
}

#[test]
fn modes_are_no_hindrance_where_the_files_are_the_callers_alone() {
    for root in lending().into_iter().filter(|root| root.backend == Backend::Namespaces) {
        let closed = root.base().join("usr/closed");
        fs_err::create_dir_all(&closed).unwrap();
        fs_err::write(closed.join("file"), "secret\n").unwrap();
        fs_err::set_permissions(closed.join("file"), PermissionsExt::from_mode(0o000)).unwrap();
        fs_err::set_permissions(&closed, PermissionsExt::from_mode(0o555)).unwrap();
        let (spec, changed) = administered(&root, "cat /usr/closed/file && echo x > /usr/closed/new");
        assert_eq!(succeeds(&spec).stdout, "secret\n");
        assert_eq!(mode(&changed.join("usr/closed")), 0o555);
        assert!(changed.join("usr/closed/new").exists());
        for directory in [closed, changed.join("usr/closed")] {
            fs_err::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
}

#[test]
fn one_capability_is_kept_and_none_can_be_had_besides() {
    for root in namespaced().into_iter().filter(|root| root.backend.lends_root()) {
        let status = "busybox grep -E '^(Cap|NoNewPrivs)' /proc/self/status";
        let (spec, _) = administered(&root, status);
        let kept = if root.backend == Backend::Namespaces { "0000000000000002" } else { "0000000000000000" };
        let shown = succeeds(&spec).stdout;
        let none = "0000000000000000";
        let expected = [
            ("CapInh", kept),
            ("CapPrm", kept),
            ("CapEff", kept),
            ("CapBnd", none),
            ("CapAmb", kept),
            ("NoNewPrivs", "1"),
        ];
        assert_eq!(shown, expected.map(|(name, value)| format!("{name}:\t{value}\n")).concat());
    }
}

#[test]
fn what_reaches_out_of_the_root_stays_denied() {
    for root in lending() {
        for script in [
            "mount -t tmpfs none /opt",
            "busybox chroot / true",
            "unshare -m true",
            "unshare -U true",
            "cat /proc/1/environ",
            "ls /proc/1/root/.",
            "echo x > /proc/sys/kernel/hostname",
            "echo x > /dev/new",
        ] {
            let (spec, _) = administered(&root, script);
            let output = run(&spec);
            assert!(!output.exit.success(), "{:?}: {script} must fail: {output:?}", root.backend);
            remove(&root.dir.path().join("above"));
        }
    }
}

#[test]
fn a_backend_that_cannot_lend_the_root_says_so() {
    for root in everywhere().into_iter().filter(|root| !root.backend.lends_root()) {
        let (spec, _) = administered(&root, "true");
        let error = try_run(&spec).expect_err("it must be refused").to_string();
        assert!(error.contains(&format!("change the root under the backend {}", root.backend)), "{error}");
    }
}

/// Removes what an overlay has left, directories that nobody may enter included.
fn remove(place: &Path) {
    let opened = Command::new("chmod").args(["-R", "u+rwx"]).arg(place).status();
    assert!(opened.expect("chmod").success());
    fs_err::remove_dir_all(place).expect("removed");
}
