//! The sandbox: `/bin/true` in the unpacked image, against bubblewrap with the same mounts.

use std::path::Path;
use std::process::Command;

use lbx_image::{Platform, PullOptions, Reference, Store};
use lbx_sandbox::{Launcher, Root, Spec, Streams};

use super::measure::{Contestant, medians};
use super::{Bound, Results, has};
use crate::{Result, process, workspace};

/// How often everybody has a turn.
const ROUNDS: usize = 60;

/// Measures `sandbox_vs_bwrap`. Both get the image as one tree, because Debian's bubblewrap stacks none.
pub(super) fn measure(scratch: &Path, image: &str, results: &mut Results) -> Result<()> {
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
        let mut bwrap = bwrap(scratch, &flat)?;
        contestants.push(Contestant::new(|| Ok(()), move || process::output(&mut bwrap).map(drop)));
    } else {
        results.skip("sandbox_vs_bwrap", "bwrap");
    }
    let times = medians(ROUNDS, &mut contestants)?;
    if let Some(theirs) = times.get(2) {
        results.add("sandbox_vs_bwrap", times[0] / theirs, Bound::AtMost(1.5));
    }
    results.add("sandbox_ms", times[0] * 1e3, Bound::Reported);
    results.add("sandbox_overlay_ms", times[1] * 1e3, Bound::Reported);
    Ok(())
}

/// bubblewrap with the namespaces and mounts of [`Spec::new`]. It makes no mount points in a read-only
/// root, so it gets a root of binds of the tree's own folders.
fn bwrap(scratch: &Path, tree: &Path) -> Result<Command> {
    let mut bwrap = Command::new("bwrap");
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
