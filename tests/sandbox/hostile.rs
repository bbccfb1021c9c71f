//! Images that try to steer the sandbox's mounts with their own symlinks and files.

use std::os::unix::fs::symlink;

use lbx_sandbox::{Access, Bind, File};

use crate::support::{Rootfs, namespaced, run};

/// Replaces a directory of the image.
fn replace(root: &Rootfs, name: &str, destination: &str) {
    let path = root.base().join(name);
    // Not all of them exist.
    let _ = fs_err::remove_dir_all(&path);
    symlink(destination, path).expect("a link");
}

#[test]
fn symlinks_at_our_mount_points_are_replaced() {
    for destination in ["/etc", "/", "../../../../etc", "/nonexistent", "proc", "/proc/self/root", "usr"] {
        for root in namespaced() {
            for name in ["proc", "dev", "sys", "tmp", "run", "home"] {
                replace(&root, name, destination);
            }
            let script = "for d in /proc /dev /sys /tmp /run /home; do test -d $d -a ! -L $d || exit 9; done;
                test -e /proc/1/status && test -c /dev/null && echo x > /tmp/x && test ! -e /usr/x && cat /etc/image";
            let output = run(&root.shell(script));
            assert_eq!(
                (output.code(), output.stdout.as_str()),
                (0, "from the image\n"),
                "{destination}: {output:?}"
            );
            assert_eq!(fs_err::read_dir(root.base().join("usr")).expect("a listing").count(), 1);
        }
    }
}

#[test]
fn a_symlink_at_etc_leads_nowhere() {
    for root in namespaced() {
        let outside = root.layer(1);
        let destination = outside.to_str().expect("UTF-8").to_owned();
        replace(&root, "etc", &destination);
        let output = run(&root.shell("cat /etc/passwd && test ! -L /etc"));
        assert!(output.stdout.starts_with("lbx:x:1000"), "{output:?}");
        assert_eq!(fs_err::read_dir(outside).expect("a listing").count(), 0);
    }
}

#[test]
fn symlinks_at_generated_files_are_replaced() {
    for root in namespaced() {
        let victim = root.layer(1).join("victim");
        fs_err::write(&victim, "untouched").expect("a file");
        let _ = fs_err::remove_file(root.base().join("etc/passwd"));
        for name in ["passwd", "group", "hosts", "resolv.conf", "nsswitch.conf"] {
            symlink(&victim, root.base().join("etc").join(name)).expect("a link");
        }
        let output = run(&root.shell("cat /etc/passwd && test ! -L /etc/passwd"));
        assert!(output.stdout.starts_with("lbx:x:1000"), "{output:?}");
        assert_eq!(fs_err::read_to_string(&victim).expect("the victim"), "untouched");
    }
}

#[test]
fn files_where_directories_belong_are_replaced() {
    for root in namespaced() {
        for name in ["proc", "dev", "tmp", "home"] {
            let _ = fs_err::remove_dir(root.base().join(name));
            fs_err::write(root.base().join(name), "a file").expect("a file");
        }
        let output = run(&root.shell("test -d /proc/1 && test -c /dev/null && echo x > /tmp/x"));
        assert_eq!(output.code(), 0, "{output:?}");
    }
}

#[test]
fn symlinks_at_bind_and_file_targets_are_replaced() {
    for root in namespaced() {
        let (shared, outside) = (root.layer(1), root.layer(2));
        fs_err::write(shared.join("f"), "shared\n").expect("a file");
        symlink(&outside, root.base().join("lbx")).expect("a link");
        symlink("/etc/image", root.base().join("usr/ca")).expect("a link");
        let mut spec = root.shell("cat /lbx/in/f /usr/ca /etc/image");
        spec.binds.push(Bind { source: shared, target: "/lbx/in".into(), access: Access::ReadOnly });
        spec.files.push(File { target: "/usr/ca".into(), contents: b"ca\n".to_vec(), executable: false });
        assert_eq!(run(&spec).stdout, "shared\nca\nfrom the image\n");
        assert_eq!(fs_err::read_dir(outside).expect("a listing").count(), 0);
    }
}

#[test]
fn devices_of_the_image_do_not_show() {
    for root in namespaced() {
        fs_err::write(root.base().join("dev/sda"), "not a disk").expect("a file");
        let output = run(&root.shell("test ! -e /dev/sda"));
        assert_eq!(output.code(), 0, "{output:?}");
    }
}
