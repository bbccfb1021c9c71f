//! What the command sees: layers, devices, files, binds.

use lbx_sandbox::{Access, Backend, Bind, Error, File, Root, Tmpfs};
use std::os::unix::fs::symlink;

use crate::support::{Kind, everywhere, namespaced, output, run, try_run};

fn file(target: &str, contents: &str) -> File {
    File { target: target.into(), contents: contents.into(), executable: false }
}

#[test]
fn dev_has_only_what_we_say() {
    for root in namespaced() {
        let names = output(&root, "cd /dev && echo *");
        assert_eq!(names, "fd full null random shm stderr stdin stdout urandom zero\n");
        assert_eq!(output(&root, "stat -c '%t:%T' /dev/null /dev/urandom"), "1:3\n1:9\n");
        let script = "echo x > /dev/null && head -c 4 /dev/urandom | wc -c && echo hi > /dev/stdout";
        assert_eq!(output(&root, script), "4\nhi\n");
    }
}

#[test]
fn generated_files_win_over_the_image() {
    for root in namespaced() {
        let passwd = output(&root, "cat /etc/passwd");
        assert!(passwd.starts_with("lbx:x:1000:1000:") && !passwd.contains("root"), "{passwd}");
        assert!(output(&root, "cat /etc/hosts; hostname").ends_with("::1 localhost\nlbx\n"));
        assert_eq!(output(&root, "cat /etc/image /etc/resolv.conf"), "from the image\n");
    }
}

#[test]
fn files_appear_in_the_root_and_in_writable_directories() {
    for root in namespaced() {
        let mut spec = root.shell("cat /etc/passwd /opt/a/b /home/lbx/.config/c /etc/image && /opt/run");
        spec.files.push(file("/etc/passwd", "mine\n"));
        spec.files.push(file("/opt/a/b", "b\n"));
        spec.files.push(file("/home/lbx/.config/c", "c\n"));
        let script = b"#!/bin/sh\necho ran\n".to_vec();
        spec.files.push(File { target: "/opt/run".into(), contents: script, executable: true });
        assert_eq!(run(&spec).stdout, "mine\nb\nc\nfrom the image\nran\n");
        assert!(!root.base().join("opt").exists());
    }
}

#[test]
fn large_files_arrive_whole() {
    for root in namespaced() {
        let mut spec = root.shell("wc -c < /opt/large; tail -c 4 /opt/large");
        spec.files.push(file("/opt/large", &format!("{}last", "x".repeat(3_000_000))));
        assert_eq!(run(&spec).stdout, "3000004\nlast");
    }
}

#[test]
fn binds_and_memory_nest_in_any_order() {
    for root in namespaced() {
        let (outer, inner) = (root.layer(1), root.layer(2));
        fs_err::create_dir(outer.join("hole")).expect("a directory");
        fs_err::write(outer.join("o"), "o\n").expect("a file");
        fs_err::write(inner.join("i"), "i\n").expect("a file");
        let mut spec =
            root.shell("cat /tmp/deep/er/o /tmp/deep/er/hole/i /one && echo x > /tmp/deep/er/hole/m/x");
        let bind = |source, target: &str, access| Bind { source, target: target.into(), access };
        spec.binds.push(bind(inner.join("i"), "/one", Access::ReadOnly));
        spec.binds.push(bind(inner.clone(), "/tmp/deep/er/hole", Access::ReadOnly));
        spec.binds.push(bind(outer.clone(), "/tmp/deep/er", Access::ReadOnly));
        fs_err::create_dir(inner.join("m")).expect("a directory");
        spec.tmpfs.push(Tmpfs { target: "/tmp/deep/er/hole/m".into(), mode: 0o755, size: Some(1 << 20) });
        let output = run(&spec);
        assert_eq!((output.stdout.as_str(), output.code()), ("o\ni\ni\n", 0), "{output:?}");
        assert_eq!(fs_err::read_dir(inner.join("m")).expect("a listing").count(), 0);
    }
}

#[test]
fn memory_has_the_size_that_was_asked_for() {
    for root in namespaced() {
        let mut spec = root.shell("head -c 3000000 /dev/zero > /tmp/big; wc -c < /tmp/big");
        spec.tmpfs.iter_mut().find(|t| t.target == "/tmp").expect("tmp").size = Some(1 << 20);
        assert_eq!(run(&spec).stdout.trim(), "1048576");
    }
}

#[test]
fn a_bind_of_something_missing_or_of_a_symlink_is_refused() {
    for root in namespaced() {
        let link = root.layer(1).join("link");
        symlink("/etc", &link).expect("a link");
        for (source, errno) in [(link, "ELOOP"), ("/nonexistent/x".into(), "ENOENT")] {
            let mut spec = root.shell("true");
            spec.binds.push(Bind { source, target: "/in".into(), access: Access::ReadOnly });
            let error = try_run(&spec).expect_err("refused").to_string();
            assert!(error.starts_with("cannot open the sandbox's sources: open(\"/"), "{error}");
            assert!(error.ends_with(errno), "{error}");
        }
    }
}

#[test]
fn nothing_is_made_in_a_bound_directory_of_the_host() {
    for root in namespaced() {
        let shared = root.layer(1);
        let mut spec = root.shell("true");
        let source = shared.clone();
        spec.binds.push(Bind { source, target: "/in".into(), access: Access::ReadWrite });
        spec.tmpfs.push(Tmpfs { target: "/in/below".into(), mode: 0o755, size: None });
        let error = try_run(&spec).expect_err("refused");
        assert!(
            matches!(&error, Error::Setup { failure, .. } if failure.errno_name() == "ENOENT"),
            "{error}"
        );
        assert_eq!(fs_err::read_dir(&shared).expect("a listing").count(), 0);
    }
}

#[test]
fn upper_layers_hide_replace_and_remove() {
    use nix::sys::stat::{Mode, SFlag, mknod};
    for root in namespaced().into_iter().filter(|r| r.kind == Kind::Layers) {
        let (one, two) = (root.layer(1), root.layer(2));
        fs_err::create_dir_all(one.join("opt")).expect("a directory");
        fs_err::write(one.join("opt/gone"), "1").expect("a file");
        fs_err::write(one.join("opt/new"), "1\n").expect("a file");
        fs_err::create_dir_all(two.join("opt")).expect("a directory");
        mknod(&two.join("opt/gone"), SFlag::S_IFCHR, Mode::empty(), 0).expect("a whiteout");
        fs_err::write(two.join("opt/new"), "2\n").expect("a file");
        let mut spec = root.shell("cd /opt && echo * && cat new");
        spec.root = Root::Layers(vec![root.base(), one, two]);
        assert_eq!(run(&spec).stdout, "new\n2\n");
    }
}

#[test]
fn a_repeated_layer_counts_where_it_is_topmost() {
    use nix::sys::stat::{Mode, SFlag, mknod};
    for root in namespaced().into_iter().filter(|r| r.kind == Kind::Layers) {
        let (one, two) = (root.layer(1), root.layer(2));
        for layer in [&one, &two] {
            fs_err::create_dir_all(layer.join("opt")).expect("a directory");
            fs_err::write(layer.join("opt/who"), layer.to_str().expect("UTF-8")).expect("a file");
        }
        fs_err::write(two.join("opt/two"), "").expect("a file");
        mknod(&one.join("opt/two"), SFlag::S_IFCHR, Mode::empty(), 0).expect("a whiteout");
        let mut spec = root.shell("cd /opt && echo * && cat who");
        spec.root = Root::Layers(vec![root.base(), one.clone(), two, one.clone(), root.base()]);
        assert_eq!(run(&spec).stdout, format!("who\n{}", one.display()));
    }
}

#[test]
fn hundreds_of_layers_with_long_names_are_stacked() {
    for root in namespaced().into_iter().filter(|r| r.kind == Kind::Layers) {
        let deep = root.dir.path().join("x".repeat(200)).join("a,b:c\\d e").join("y".repeat(200));
        let mut layers = vec![root.base()];
        for number in 0..300 {
            let layer = deep.join(number.to_string());
            fs_err::create_dir_all(layer.join("opt")).expect("a directory");
            fs_err::write(layer.join("opt").join(format!("f{number}")), "").expect("a file");
            fs_err::write(layer.join("opt/top"), number.to_string()).expect("a file");
            layers.push(layer);
        }
        let mut spec = root.shell("ls /opt | wc -l; cat /opt/top");
        spec.root = Root::Layers(layers.clone());
        assert_eq!(run(&spec).stdout, "301\n299");
        spec.root = Root::Layers(layers.iter().cycle().take(500).cloned().collect());
        let error = try_run(&spec).expect_err("too many").to_string();
        assert_eq!(error, "sandbox specification: 500 layers: expected 1 to 499");
    }
}

#[test]
fn nothing_is_left_in_the_root_on_the_host() {
    for root in namespaced() {
        let list = || {
            let mut names = vec![];
            let mut queue = vec![root.dir.path().to_owned()];
            while let Some(dir) = queue.pop() {
                for entry in fs_err::read_dir(dir).expect("a listing").flatten() {
                    if entry.file_type().expect("a type").is_dir() {
                        queue.push(entry.path());
                    }
                    names.push(entry.path());
                }
            }
            names.sort();
            names
        };
        let before = list();
        let mut spec = root.shell("echo x > /tmp/x; echo x > /run/x");
        spec.files.push(file("/lbx/f", "f"));
        assert_eq!(run(&spec).code(), 0);
        assert_eq!(list(), before);
        let mounts = fs_err::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains("lbx-sandbox-"), "{mounts}");
    }
}

#[test]
fn what_is_in_a_writable_directory_can_be_changed_in_every_backend() {
    for root in everywhere() {
        let shared = root.layer(1);
        fs_err::create_dir(shared.join("folder")).expect("a directory");
        for name in ["kept", "changed", "folder/removed"] {
            fs_err::write(shared.join(name), "before").expect("a file");
        }
        let script = "cd \"$1\" && busybox cat kept && echo after > changed && busybox rm folder/removed &&
            busybox mkdir new && echo made > new/file";
        let mut spec = root.shell("");
        spec.argv = ["/bin/sh", "-c", script, "sh", "/lbx/in"].map(str::to_owned).into();
        spec.binds.push(Bind { source: shared.clone(), target: "/lbx/in".into(), access: Access::ReadWrite });
        let output = run(&spec);
        assert_eq!((output.code(), output.stdout.as_str()), (0, "before"), "{} {output:?}", root.backend);
        let read = |name: &str| fs_err::read_to_string(shared.join(name)).expect(name);
        assert_eq!(
            (read("kept"), read("changed"), read("new/file")),
            ("before".into(), "after\n".into(), "made\n".into())
        );
        assert!(!shared.join("folder/removed").exists(), "{}", root.backend);
        let own = nix::unistd::geteuid().as_raw();
        for name in ["kept", "changed", "folder", "new/file"] {
            use std::os::unix::fs::MetadataExt;
            assert_eq!(
                fs_err::metadata(shared.join(name)).expect(name).uid(),
                own,
                "{} {name}",
                root.backend
            );
        }
    }
}

/// A root that was kept shows the next command what a new one shows, whatever the one before did.
#[test]
fn a_root_that_is_kept_is_as_good_as_new() {
    use std::os::unix::fs::MetadataExt;
    const LOOK: &str = "busybox find / | busybox sort; cat /etc/passwd /etc/image";
    for root in everywhere().iter().filter(|root| root.backend == Backend::Chroot) {
        fs_err::create_dir_all(root.base().join("lbx/in/of-the-image")).expect("a directory");
        std::os::unix::fs::symlink("/etc", root.base().join("srv")).expect("a link");
        let kept = root.dir.path().join("kept");
        let (shared, scratch) = (root.layer(1), root.layer(2));
        fs_err::write(shared.join("f"), "f\n").expect("a file");
        let run_with = |script: &str, target: &str| {
            let mut spec = root.shell(script);
            spec.binds.push(Bind { source: shared.clone(), target: target.into(), access: Access::ReadOnly });
            spec.files.push(file("/srv/own/file", "x"));
            (spec.kept, spec.scratch) = (Some(kept.clone()), Some(scratch.clone()));
            run(&spec).stdout
        };
        let before = run_with(LOOK, "/lbx/in");
        let inode = || fs_err::metadata(&kept).expect("it is kept").ino();
        let first = inode();
        let script = "cd /tmp && busybox mkdir -p a/b && echo x > a/b/c && busybox chmod 0 a/b
            echo x > /dev/shm/x; busybox ln -s /etc /home/lbx/etc; echo x >> /etc/passwd; echo x > /etc/new";
        run_with(script, "/lbx/out");
        assert_eq!(
            fs_err::read_to_string(kept.join("etc/passwd")).expect("the image's"),
            "root:x:0:0::/root:/bin/sh\n"
        );
        assert!(kept.join("lbx/in/of-the-image").is_dir() && kept.join("srv").is_symlink());
        assert!(!kept.join("lbx/out").exists() && !kept.join("home").exists());
        assert_eq!(run_with(LOOK, "/lbx/in"), before);
        assert_eq!(inode(), first, "it is the same one, and none was built anew");
    }
}

#[test]
fn two_runs_at_once_have_a_root_each_and_one_is_kept() {
    for root in everywhere().iter().filter(|root| root.backend == Backend::Chroot) {
        let kept = root.dir.path().join("kept");
        let run_both = || {
            let both = [1, 2].map(|number| {
                let mut spec = root.shell("echo mine > /tmp/file; sleep 0.3; cat /tmp/file; echo /tmp/*");
                (spec.kept, spec.scratch) = (Some(kept.clone()), Some(root.layer(number)));
                std::thread::spawn(move || run(&spec).stdout)
            });
            both.map(|run| run.join().expect("it runs"))
        };
        for _ in 0..2 {
            assert_eq!(run_both(), ["mine\n/tmp/file\n", "mine\n/tmp/file\n"]);
            assert!(kept.join("bin/busybox").exists());
        }
    }
}

/// Modes that let everybody write are the image's; where its files are not mounted, nobody's domain may hold the command.
#[test]
fn a_directory_of_the_image_that_everybody_may_write_is_read_only_in_every_root() {
    use std::os::unix::fs::PermissionsExt;
    let landlock = [(444, libc::ENOSYS)];
    for root in everywhere().into_iter().filter(|root| root.backend.changes_root()) {
        let open = root.base().join("usr/open");
        fs_err::create_dir(&open).expect("a directory");
        fs_err::set_permissions(&open, PermissionsExt::from_mode(0o777)).expect("mode");
        let code = crate::kernel::without(&landlock, move || {
            let output = run(&root.shell("echo x > /usr/open/x"));
            (root.backend, output.code())
        });
        assert_ne!(code.1, 0, "{}", code.0);
    }
}
