//! Signals at every stage: the exit code says which one it was, and no process, mount or file is left.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use std::os::unix::process::ExitStatusExt;

use lbx_testkit::command::{Home, run};
use lbx_testkit::images::{Image, Layer, Tar};
use lbx_testkit::process::{Seen, descendants, signal, wait_for};
use lbx_testkit::registry::Registry;
use lbx_testkit::stall::StallingRegistry;
use nix::sys::signal::Signal;

use crate::support::{HEAD, LBX, image, in_progress, lbx, lbx_shared, shared_store};

/// A build backend that never ends, and neither do its children: one ignores SIGTERM in a session of its own.
const STUBBORN: &str = r#"
import os, signal, subprocess, sys, time

def build_wheel(directory, settings=None, metadata=None):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    open("/lbx/out/started", "w").close()
    time.sleep(600)
"#;

/// A running `lbx` and what is known of it.
struct Running {
    child: Child,
    store: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed leaves no build behind; one that has ended is not there to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(command: &mut Command, store: &Path) -> Self {
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("lbx starts");
        Self { child, store: store.to_owned() }
    }

    /// What it has in progress in the store.
    fn work(&self) -> Vec<PathBuf> {
        let prefix = format!("{}-", self.child.id());
        let Ok(entries) = fs_err::read_dir(self.store.join("tmp")) else { return Vec::new() };
        let entries = entries.map(|entry| entry.expect("an entry"));
        entries
            .filter(|one| one.file_name().to_string_lossy().starts_with(&prefix))
            .map(|one| one.path())
            .collect()
    }

    /// Waits until build code runs in the sandbox.
    fn wait_for_build_code(&self) {
        wait_for("the build backend", || {
            // What the build leaves is in the folder of its run.
            let started = |path: &PathBuf| {
                let mut runs = fs_err::read_dir(path).ok()?.flatten();
                runs.any(|run| run.path().join("out/started").exists()).then_some(())
            };
            self.work().iter().find_map(started)
        });
    }

    /// Sends a signal, waits for the end, and checks that nothing is left but what `killed` leaves.
    fn stop(mut self, with: Signal) -> (ExitStatus, String) {
        let seen = descendants(self.child.id());
        signal(self.child.id(), with);
        let asked = Instant::now();
        let status = wait_for("the end of lbx", || self.child.try_wait().expect("its state"));
        assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?} to stop", asked.elapsed());
        let mut said = String::new();
        self.child.stderr.take().expect("stderr").read_to_string(&mut said).expect("UTF-8");
        gone(&seen);
        no_mounts(&self.store);
        if with != Signal::SIGKILL {
            assert_eq!(self.work(), Vec::<PathBuf>::new(), "work in progress stayed");
            let last = said.lines().last().unwrap_or_default();
            assert_eq!(last, "error: interrupted", "{said}");
        }
        (status, said)
    }
}

/// Every process is gone. The kernel kills a sandbox's processes with its first; that takes a moment.
fn gone(seen: &[Seen]) {
    wait_for(&format!("the end of {seen:?}"), || (!seen.iter().any(Seen::is_alive)).then_some(()));
}

/// Nothing of the store is mounted where everybody sees it.
fn no_mounts(store: &Path) {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&store.display().to_string()), "{mounts}");
}

/// A project whose only requirement never finishes building.
fn stubborn() -> Home {
    let home = Home::new();
    home.write("src/app.py", "");
    home.write("lbx.toml", format!("{HEAD}[functions.app]\nsource = \"src\"\nrequirements = [\"r.txt\"]\n"));
    home.write("r.txt", "./stubborn\n");
    home.write("stubborn/backend.py", STUBBORN);
    home.write(
        "stubborn/pyproject.toml",
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n\
         [project]\nname = 'stubborn'\nversion = '1'\n",
    );
    home
}

/// A project of two functions: a small one, and one that takes seconds to pack.
fn large() -> Home {
    let home = Home::new();
    home.write("lbx.toml", format!("{HEAD}[functions.a]\nsource = \"a\"\n[functions.b]\nsource = \"b\"\n"));
    home.write("a/app.py", "");
    let noise: Vec<u8> = (0..4_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    home.write("b/0", noise);
    for number in 1..100 {
        let link = home.project().join(format!("b/{number}"));
        fs_err::hard_link(home.project().join("b/0"), link).expect("a link");
    }
    home
}

/// Waits until a zip is being written.
fn wait_for_writing(home: &Home) {
    let dist = home.project().join("dist");
    wait_for("an unfinished zip", || {
        (dist.exists() && fs_err::read_dir(&dist).ok()?.count() > 0).then_some(())
    });
}

#[test]
fn a_signal_during_a_pull_ends_it_and_the_next_pull_works() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path());
    let layer = Layer::plain(&Tar::new().file("large", 0o644, &vec![7; 1 << 20]).finish());
    registry.push_image("python", "3.11", &Image::new("amd64", vec![layer]));
    let home = Home::new();
    let store = home.cache().join("lbx");
    for (with, code) in [(Signal::SIGINT, Some(130)), (Signal::SIGTERM, Some(143)), (Signal::SIGKILL, None)] {
        let stalling = StallingRegistry::start(registry.address(), 100_000);
        let reference = format!("{}/python:3.11", stalling.address());
        let running = Running::start(&mut lbx(&home, &["pull", &reference]), &store);
        stalling.wait_until_stalled();
        let (status, said) = running.stop(with);
        assert_eq!(status.code(), code, "{said}");
    }
    assert_eq!(fs_err::read_dir(store.join("layers/v1")).unwrap().count(), 0, "nothing half-made has a name");
    let ran = run(&mut lbx(&home, &["pull", &registry.reference("python", "3.11")]));
    assert_eq!(ran.code, 0, "{ran:?}");
    in_progress(&store, &[]);
}

#[test]
fn a_signal_while_a_layer_of_many_files_is_unpacked_waits_until_they_are_gone_or_for_a_second_signal() {
    let data = tempfile::tempdir().unwrap();
    let registry = Registry::start(data.path());
    let tar = (0..4000).fold(Tar::new(), |tar, number| tar.file(format!("file-{number}"), 0o644, b""));
    registry.push_image("python", "3.11", &Image::new("amd64", vec![Layer::plain(&tar.finish())]));
    let reference = registry.reference("python", "3.11");
    // As slow as if there were a million: each file takes a millisecond to make, and another one to remove.
    let slow = "exec strace -D -f -qq -o /dev/null -e trace=openat,openat2,unlinkat \
                -e inject=openat,openat2,unlinkat:delay_enter=1000 \"$0\" pull \"$1\"";
    let start = || {
        let home = Home::new();
        let store = home.cache().join("lbx");
        let mut command = home.command("/bin/sh");
        let running = Running::start(command.args(["-c", slow, LBX, &reference]), &store);
        wait_for("files of the layer", || {
            let folders = running.work().into_iter().filter_map(|work| fs_err::read_dir(work).ok());
            let trees = folders.flatten().flatten().map(|layer| layer.path().join("tree"));
            trees.filter_map(|tree| fs_err::read_dir(tree).ok()).find(|_| true)?.nth(3000).map(drop)
        });
        (home, running)
    };
    let (_home, mut running) = start();
    signal(running.child.id(), Signal::SIGINT);
    let status = wait_for("the end of lbx", || running.child.try_wait().expect("its state"));
    let mut said = String::new();
    running.child.stderr.take().expect("stderr").read_to_string(&mut said).expect("UTF-8");
    assert_eq!(status.code(), Some(130), "{said}");
    assert_eq!(running.work(), Vec::<PathBuf>::new(), "work in progress stayed");
    let end: Vec<&str> = said.lines().rev().take(2).collect();
    let told = "lbx: removing what was begun; a second ^C leaves it to the next lbx";
    assert_eq!(end, ["error: interrupted", told], "{said}");

    let (_home, mut running) = start();
    signal(running.child.id(), Signal::SIGINT);
    std::thread::sleep(Duration::from_millis(200));
    signal(running.child.id(), Signal::SIGINT);
    let asked = Instant::now();
    let status = wait_for("the end of lbx", || running.child.try_wait().expect("its state"));
    assert!(asked.elapsed() < Duration::from_secs(1), "it took {:?} to stop", asked.elapsed());
    assert_eq!(status.code(), Some(130));
    assert!(!running.work().is_empty(), "there was nothing to leave behind");
}

#[test]
fn a_signal_while_pip_runs_ends_every_process_of_the_sandbox() {
    let Some(image) = image() else { return };
    for (with, code) in [(Signal::SIGINT, Some(130)), (Signal::SIGTERM, Some(143)), (Signal::SIGKILL, None)] {
        let home = stubborn();
        let running = Running::start(&mut lbx_shared(&home, &["build", "--image", &image]), shared_store());
        running.wait_for_build_code();
        let pid = running.child.id();
        let (status, said) = running.stop(with);
        assert_eq!(status.code(), code, "{said}");
        assert!(!home.project().join("dist").exists());
        // The next run finds what a killed one left, and removes it.
        let next = Home::new();
        next.write("app.py", "");
        let ran = run(&mut lbx_shared(&next, &["build", "--runtime", "python3.11", "--image", &image]));
        assert_eq!(ran.code, 0, "{ran:?}");
        let left = fs_err::read_dir(shared_store().join("tmp")).unwrap();
        let left = left.filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().starts_with(&format!("{pid}-"))
        });
        assert_eq!(left.count(), 0);
    }
}

#[test]
fn a_signal_while_zips_are_written_leaves_the_output_folder_as_it_was() {
    let Some(image) = image() else { return };
    let home = large();
    for (with, code) in [(Signal::SIGINT, Some(130)), (Signal::SIGTERM, Some(143))] {
        let running = Running::start(&mut lbx_shared(&home, &["build", "--image", &image]), shared_store());
        wait_for_writing(&home);
        let (status, said) = running.stop(with);
        assert_eq!(status.code(), code, "{said}");
        assert!(!home.project().join("dist").exists());
    }
}

#[test]
fn a_killed_build_leaves_old_zips_whole_and_the_next_one_sweeps() {
    let Some(image) = image() else { return };
    let home = large();
    home.write("dist/a.zip", "old");
    let running = Running::start(&mut lbx_shared(&home, &["build", "--image", &image]), shared_store());
    let dist = home.project().join("dist");
    wait_for("an unfinished zip", || (fs_err::read_dir(&dist).ok()?.count() > 1).then_some(()));
    let (status, _) = running.stop(Signal::SIGKILL);
    assert_eq!(status.signal(), Some(9));
    assert_eq!(fs_err::read_to_string(dist.join("a.zip")).unwrap(), "old");
    assert!(fs_err::read_dir(&dist).unwrap().count() > 1, "the kill came while a zip was written");
    let ran = run(&mut lbx_shared(&home, &["build", "a", "--image", &image]));
    assert_eq!(ran.code, 0, "{ran:?}");
    let files = lbx_testkit::command::files_below(&dist);
    assert_eq!(files, ["a.zip", "a.zip.sha256", "report.json"]);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let Some(image) = image() else { return };
    let home = Home::new();
    let functions = "compression = \"max\"\n[functions.a]\nsource = \"a\"\n[functions.b]\nsource = \"b\"\n";
    home.write("lbx.toml", format!("{HEAD}{functions}"));
    home.write("a/app.py", "");
    // As large as a file can be that is compressed in one go, which takes a second, and no signal is heard meanwhile.
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"0123456789abcdef"[(state >> 28) as usize]
    };
    home.write("b/digits", (0..16_000_000).map(|_| next()).collect::<Vec<u8>>());
    // On a busy machine the first signal can come while nothing is compressed, and is then enough: that run says
    // nothing about the second.
    for _ in 0..8 {
        let mut running =
            Running::start(&mut lbx_shared(&home, &["build", "--image", &image]), shared_store());
        wait_for_writing(&home);
        signal(running.child.id(), Signal::SIGINT);
        std::thread::sleep(Duration::from_millis(30));
        signal(running.child.id(), Signal::SIGTERM);
        let status = wait_for("the end of lbx", || running.child.try_wait().unwrap());
        assert!(!home.project().join("dist/b.zip").exists());
        if status.code() == Some(130) {
            continue;
        }
        // An end that waited for the work would have the first signal's code.
        assert_eq!(status.code(), Some(143));
        return;
    }
    panic!("the first signal was enough every time: make the file larger");
}
