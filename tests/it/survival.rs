//! What is kept of wheels and zips survives: builds that are killed, many at once, and a disk without room.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use lbx_testkit::command::{Home, run};
use lbx_testkit::images::sha256;
use lbx_testkit::index;
use lbx_testkit::stub::Stub;
use lbx_testkit::wheels::Wheel;

use crate::host::{in_namespace, noise};
use crate::locks::succeeds;
use crate::support::{HEAD, image, lbx};

/// A project that needs no image.
struct Project {
    home: Home,
    index: Stub,
    _folder: tempfile::TempDir,
}

impl Project {
    /// With wheels of two modules of `size` bytes each.
    fn new(names: &[&str], size: usize, config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        let mut lines = String::new();
        for name in names {
            let text = format!("# {name}\n{}", "value = {'key': [1, 2, 3]}\n".repeat(size / 27));
            let wheel = Wheel::new(name, "1.0")
                .file(&format!("{name}/text.py"), text.as_bytes())
                .file(&format!("{name}/noise"), &noise(size));
            let hash = sha256(&fs_err::read(wheel.write(folder.path())).expect("a wheel"));
            lines.extend([name, "==1.0 --hash=", &hash, "\n"]);
        }
        let home = Home::new();
        home.write("r.txt", lines);
        for number in 0..20 {
            home.write(
                &format!("src/m{number}.py"),
                "def handler(event, context):\n    return event\n".repeat(50),
            );
        }
        home.write(
            "lbx.toml",
            format!("{HEAD}{config}\n[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n"),
        );
        Self { home, index: index::serve(folder.path()), _folder: folder }
    }

    fn build(&self, out: &str) -> Command {
        let mut command = lbx(&self.home, &["build", "--image", "127.0.0.1:1/none:1", "--out-dir", out]);
        command.env("PIP_INDEX_URL", format!("http://{}/simple", self.index.address()));
        command
    }

    fn zip(&self, out: &str) -> Vec<u8> {
        fs_err::read(self.home.project().join(out).join("app.zip")).expect("a zip")
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("lbx")
}

/// Removes what was made of wheels; some of it, by a number.
fn forget(store: &Path, number: u32) {
    if number.is_multiple_of(2) {
        let _ = fs_err::remove_dir_all(store.join("parts"));
    }
    for wheel in fs_err::read_dir(store.join("wheels")).into_iter().flatten().flatten() {
        if number.is_multiple_of(3) {
            let _ = fs_err::remove_dir_all(wheel.path());
        } else if let Ok(files) = fs_err::read_dir(wheel.path()) {
            for file in files.flatten().filter(|file| file.file_name().to_string_lossy().contains("derived"))
            {
                let _ = fs_err::remove_file(file.path());
            }
        }
    }
}

#[test]
fn a_build_that_is_killed_at_any_moment_leaves_a_store_that_gives_the_same_bytes() {
    let project = Project::new(&["one", "two"], 300_000, "compression = \"max\"");
    let begin = Instant::now();
    succeeds(&mut project.build("first"));
    let whole = begin.elapsed();
    let (first, store) = (project.zip("first"), project.home.cache().join("lbx"));
    let mut killed = 0;
    for number in 0..24u32 {
        forget(&store, number);
        let mut build = spawn(&mut project.build("killed"));
        std::thread::sleep(whole * number / 32);
        killed += usize::from(build.try_wait().expect("a child").is_none());
        build.kill().expect("killed");
        build.wait().expect("an end");
        let again = run(&mut project.build("again"));
        assert_eq!(again.code, 0, "{}", again.stderr);
        assert!(project.zip("again") == first, "after {:?}", whole * number / 32);
    }
    assert!(killed > 4, "nearly all were faster than the kill");
    // Nothing is left of them that the next build does not sweep.
    let unfinished = |folder: &Path| {
        let entries = fs_err::read_dir(folder).expect("a folder").flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".new-")).count()
    };
    forget(&store, 0);
    succeeds(&mut project.build("last"));
    assert_eq!(unfinished(&store.join("parts/v1")), 0);
    assert_eq!(fs_err::read_dir(store.join("tmp")).expect("a folder").count(), 0);
}

#[test]
fn two_hundred_builds_at_once_over_one_store_give_the_same_bytes() {
    let project = Project::new(&["one"], 20_000, "");
    succeeds(project.build("first").env("LBX_CACHE_DIR", project.home.root().join("other")));
    let names: Vec<String> = (0..200).map(|number| format!("out/{number}")).collect();
    let running: Vec<Child> = names.iter().map(|name| spawn(&mut project.build(name))).collect();
    for mut child in running {
        assert!(child.wait().expect("an end").success());
    }
    let first = project.zip("first");
    assert!(names.iter().all(|name| project.zip(name) == first));
}

#[test]
fn a_disk_that_is_full_under_what_is_kept_is_named_and_the_next_build_is_well() {
    let project = Project::new(&["big"], 3 << 20, "compression = \"max\"");
    let store = project.home.cache().join("lbx");
    succeeds(&mut project.build("first"));
    let first = project.zip("first");
    let script = "mount -t tmpfs -o size=2m,mode=700 none \"$2\"; code=0; \
                  \"$1\" build --image 127.0.0.1:1/none:1 --out-dir full || code=$?; \
                  find \"$2\" -type f -size +0 ! -name '.*lock'; mount -o remount,size=64m none \"$2\"; \
                  \"$1\" build --quiet --image 127.0.0.1:1/none:1 --out-dir again > /dev/null; exit $code";
    forget(&store, 6);
    for part in ["parts", "wheels"] {
        let Some(mut command) = in_namespace(&project.home, script) else { return };
        command.arg(store.join(part));
        command.env("PIP_INDEX_URL", format!("http://{}/simple", project.index.address()));
        fs_err::create_dir_all(store.join(part)).expect("a folder");
        let ran = run(&mut command);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{part}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("error: ") && ran.stderr.contains("o space left"),
            "{part}: {}",
            ran.stderr
        );
        assert!(ran.stderr.contains("hint: "), "{part}: {}", ran.stderr);
        assert!(!project.home.project().join("full/app.zip").exists(), "{part}");
        assert!(project.zip("again") == first, "{part}");
    }
}

#[test]
fn a_store_that_may_only_be_read_is_enough_where_it_has_all_and_is_named_where_it_lacks_something() {
    let project = Project::new(&["one"], 20_000, "");
    succeeds(&mut project.build("first"));
    let (first, store) = (project.zip("first"), project.home.cache().join("lbx"));
    let script = "mount --bind \"$XDG_CACHE_HOME\" \"$XDG_CACHE_HOME\"; \
                  mount -o remount,bind,ro \"$XDG_CACHE_HOME\"; \
                  exec \"$1\" build --image 127.0.0.1:1/none:1 --out-dir \"$2\"";
    let build = |out: &str| {
        let mut command = in_namespace(&project.home, script)?;
        Some(run(command.arg(out).env("PIP_INDEX_URL", format!("http://{}/simple", project.index.address()))))
    };
    for lacking in ["", "parts/v1", "wheels"] {
        if !lacking.is_empty() {
            fs_err::remove_dir_all(store.join(lacking)).expect("removed");
            fs_err::create_dir(store.join(lacking)).expect("a folder");
        }
        let out = format!("without-{}", lacking.replace('/', "-"));
        let Some(ran) = build(&out) else { return };
        if lacking.is_empty() {
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            assert!(project.zip(&out) == first);
            continue;
        }
        let expected = "error: cannot open the store: cannot write to the store [ROOT]/cache/lbx: Read-only file system (os error 30)\n\
                        hint: let LBX_CACHE_DIR name a directory that you can write to";
        let said = project.home.redact(ran.stderr.trim_end());
        assert!(ran.code == 1 && said.ends_with(expected), "{lacking}: {said}");
        assert!(!project.home.project().join(&out).join("app.zip").exists(), "{lacking}");
    }
}

/// Runs `work` where files have no locks, no names of their own that come later, no exchange of names, no attributes, and
/// are not copied by the kernel: as on NFS, and on other file systems of clusters.
fn without_what_clusters_lack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    use lbx_sandbox::filter::{Action, Compare, Condition, Filter, INT, Rule};
    use nix::libc;
    let number = |call: libc::c_long| u32::try_from(call).expect("a number");
    let refuse = |call, errno: i32, conditions: &[Condition]| Rule {
        call: number(call),
        conditions: conditions.to_vec(),
        action: Action::Errno(u16::try_from(errno).expect("an errno")),
    };
    // The bit alone: the rest of the flag is that of folders.
    let unnamed = u64::from((libc::O_TMPFILE & !libc::O_DIRECTORY).cast_unsigned());
    let unnamed = Condition::new(2, unnamed, Compare::NotEqual, 0);
    let clone = Condition::new(1, INT, Compare::Equal, 0x4004_9409);
    let rules = vec![
        refuse(libc::SYS_flock, libc::ENOLCK, &[]),
        refuse(libc::SYS_openat, libc::EOPNOTSUPP, &[unnamed]),
        refuse(libc::SYS_renameat2, libc::EINVAL, &[Condition::new(4, INT, Compare::NotEqual, 0)]),
        refuse(libc::SYS_copy_file_range, libc::EOPNOTSUPP, &[]),
        refuse(libc::SYS_ioctl, libc::EOPNOTSUPP, &[clone]),
        refuse(libc::SYS_fallocate, libc::EOPNOTSUPP, &[]),
        refuse(libc::SYS_setxattr, libc::EOPNOTSUPP, &[]),
        refuse(libc::SYS_lsetxattr, libc::EOPNOTSUPP, &[]),
        refuse(libc::SYS_fsetxattr, libc::EOPNOTSUPP, &[]),
    ];
    let filter = Filter { rules, otherwise: Action::Allow, beyond: None, foreign: Action::Allow };
    std::thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().expect("allowed to everybody");
        filter.install().expect("the kernel takes it");
        work()
    })
    .join()
    .expect("the work")
}

#[test]
fn a_home_on_a_file_system_of_a_cluster_gives_the_same_bytes() {
    let Some(image) = image() else { return };
    let project = Project::new(&["one", "two"], 200_000, "");
    let build = move |project: &Project, out: &str| {
        let mut command =
            lbx(&project.home, &["build", "--image", &image, "--out-dir", out, "--dir", "tree"]);
        command.env("PIP_INDEX_URL", format!("http://{}/simple", project.index.address()));
        command
    };
    succeeds(&mut build(&project, "first"));
    let first = project.zip("first");
    // What knows the tree goes with the store.
    for folder in [project.home.cache(), project.home.project().join("tree")] {
        fs_err::remove_dir_all(folder).expect("removed");
    }
    let (zips, project) = without_what_clusters_lack(move || {
        // Not at all locked, so that the image is fetched and run, too.
        let lines = fs_err::read_to_string(project.home.project().join("r.txt")).expect("text");
        project.home.write("r.txt", "one==1.0\ntwo==1.0\n");
        succeeds(&mut build(&project, "unlocked"));
        project.home.write("r.txt", lines);
        let mut zips = vec![project.zip("unlocked")];
        for content in ["A = 1\n", "A = 2\n", "A = 1\n"] {
            project.home.write("src/more.py", content);
            succeeds(&mut build(&project, "changing"));
            zips.push(project.zip("changing"));
        }
        fs_err::remove_file(project.home.project().join("src/more.py")).expect("removed");
        succeeds(&mut build(&project, "changing"));
        zips.push(project.zip("changing"));
        // What others may use is not removed where nobody can tell.
        let gc = run(&mut lbx(&project.home, &["cache", "gc"]));
        assert_eq!(gc.code, 1);
        assert!(
            gc.stderr.ends_with("hint: its file system may have no locks: keep the store on a local disk\n")
        );
        (zips, project)
    });
    assert!(zips[0] == first && zips[4] == first && zips[1] == zips[3] && zips[1] != zips[2]);
    assert!(project.home.project().join("tree/m0.py").exists());
    assert!(project.home.project().join("changing/.previous/app.zip").exists());
}
