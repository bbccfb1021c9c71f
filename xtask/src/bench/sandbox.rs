//! The sandbox: `/bin/true` in the unpacked image, against bubblewrap with the same mounts and filter, and against podman.

use std::fs::File;
use std::io::Seek;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use lbx_image::{Platform, PullOptions, Reference, Store};
use lbx_sandbox::filter::Filter;
use lbx_sandbox::{Launcher, Root, Spec, Streams};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::measure::{Contestant, medians};
use super::{Bound, Results, has};
use crate::{Result, process, workspace};

/// How often everybody has a turn.
const ROUNDS: usize = 60;

/// The same for podman, which takes its time.
const PODMAN_ROUNDS: usize = 9;

/// Measures `sandbox_vs_bwrap`. Both get the image as one tree, because Debian's bubblewrap stacks none.
pub(super) fn measure(scratch: &Path, image: &str, layout: &Path, results: &mut Results) -> Result<()> {
    let store = Store::open(&scratch.join("store"))?;
    let runtime = tokio::runtime::Runtime::new()?;
    let options = PullOptions::new(Platform::linux("amd64"));
    let image = runtime.block_on(lbx_image::pull(&store, &Reference::parse(image)?, &options, &|_| {}))?;
    drop(runtime);
    let stacked = Root::Layers(image.layer_trees().into_iter().map(Path::to_path_buf).collect());
    let flat = lbx_image::flatten(&store, &image)?;
    let lbx = Launcher::program(workspace::release("lbx")?);
    let run = |root: &Root| -> Result<()> {
        let exit = lbx.spawn(&Spec::new(root.clone(), ["/bin/true"]), Streams::default())?.wait()?;
        if exit.success() { Ok(()) } else { Err("/bin/true fails in the sandbox".into()) }
    };
    let tree = Root::Tree(flat.clone());
    let mut contestants =
        vec![Contestant::new(|| Ok(()), || run(&tree)), Contestant::new(|| Ok(()), || run(&stacked))];
    if has("bwrap") {
        let filter = filter(scratch)?;
        let mut bwrap = bwrap(scratch, &flat, &filter)?;
        // bubblewrap reads it from where it stands, which is its end after the first time.
        let rewind = move || Ok((&filter).rewind()?);
        contestants.push(Contestant::new(rewind, move || process::output(&mut bwrap).map(drop)));
    } else {
        results.skip("sandbox_vs_bwrap", "bwrap");
    }
    let times = medians(ROUNDS, &mut contestants)?;
    if let Some(theirs) = times.get(2) {
        results.add("sandbox_vs_bwrap", times[0] / theirs, Bound::AtMost(1.3));
    }
    against_podman(scratch, layout, times[0], results)?;
    results.add("sandbox_ms", times[0] * 1e3, Bound::Reported);
    results.add("sandbox_overlay_ms", times[1] * 1e3, Bound::Reported);
    Ok(())
}

/// The filter that lbx's commands get, in a file that programs inherit which this one starts.
fn filter(scratch: &Path) -> Result<File> {
    let bytes = Filter::of_a_command().bytes().ok_or("the filter is longer than the kernel takes")?;
    let path = scratch.join("filter");
    fs_err::write(&path, bytes)?;
    let file = fs_err::File::open(path)?.into_file();
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(file)
}

/// `podman run --network=host` of the same command in the same image, with its storage on this disk. It takes root,
/// because podman needs helpers for users that few machines of ours have.
fn against_podman(scratch: &Path, layout: &Path, ours: f64, results: &mut Results) -> Result<()> {
    let name = "sandbox_vs_podman";
    if !has("podman") || !has("runc") || !nix::unistd::geteuid().is_root() {
        results.skip(name, "podman and runc, as root");
        return Ok(());
    }
    let podman = |arguments: &[&str]| {
        let mut command = Command::new("podman");
        command.arg(format!("--root={}", scratch.join("podman/storage").display()));
        command.arg(format!("--runroot={}", scratch.join("podman/run").display()));
        command.args(["--storage-driver=overlay", "--runtime=runc", "--cgroup-manager=cgroupfs"]);
        command.args(["--events-backend=file"]).args(arguments);
        command
    };
    let pulled = process::text(podman(&["pull", "--quiet"]).arg(format!("oci:{}", layout.display())))?;
    let mut run = podman(&["run", "--rm", "--network=host", "--entrypoint=/bin/true"]);
    // Where less is allowed than its defaults ask for.
    run.args(["--ulimit=nofile=1024:20000", "--ulimit=nproc=1000:1000"]).arg(pulled.trim());
    let mut contestants = [Contestant::new(|| Ok(()), || process::output(&mut run).map(drop))];
    let times = medians(PODMAN_ROUNDS, &mut contestants)?;
    results.add(name, times[0] / ours, Bound::AtLeast(30.0));
    process::output(&mut podman(&["system", "reset", "--force"])).map(drop)
}

/// bubblewrap with the namespaces and mounts of [`Spec::new`]. It makes no mount points in a read-only
/// root, so it gets a root of binds of the tree's own folders.
fn bwrap(scratch: &Path, tree: &Path, filter: &File) -> Result<Command> {
    let mut bwrap = Command::new("bwrap");
    bwrap.arg("--seccomp").arg(filter.as_raw_fd().to_string());
    bwrap.args(["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"]);
    bwrap.args(["--uid", "1000", "--gid", "1000", "--hostname", "lbx", "--die-with-parent", "--new-session"]);
    bwrap.args(["--cap-drop", "ALL", "--clearenv"]);
    let own = ["proc", "dev", "tmp", "run", "home", "sys"];
    for entry in fs_err::read_dir(tree)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if own.contains(&name.as_str()) {
            continue;
        }
        if entry.file_type()?.is_symlink() {
            bwrap.arg("--symlink").arg(fs_err::read_link(entry.path())?).arg(format!("/{name}"));
        } else {
            bwrap.arg("--ro-bind").arg(entry.path()).arg(format!("/{name}"));
        }
    }
    bwrap.args(["--proc", "/proc", "--dev", "/dev"]);
    for folder in ["/tmp", "/run", "/home/lbx"] {
        bwrap.args(["--tmpfs", folder]);
    }
    bwrap.args(["--", "/bin/true"]).current_dir(scratch);
    Ok(bwrap)
}
