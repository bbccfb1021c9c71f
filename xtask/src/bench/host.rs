//! Whole commands on this host: the example that is built from source in each weaker backend, against namespaces, and
//! `lbx doctor`.

use std::path::Path;
use std::process::Command;

use super::measure::{Contestant, medians};
use super::{Bound, Results, has, remove};
use crate::{Result, process, wheels, workspace};

/// How often everybody has a turn.
const ROUNDS: usize = 7;

/// Measures `chroot_vs_native` and `proot_vs_native`, against an index on loopback, and `doctor_ms`.
pub(super) fn measure(scratch: &Path, image: &str, results: &mut Results) -> Result<()> {
    let index = lbx_testkit::index::serve(&wheels::fetch_for_examples()?);
    let url = format!("http://{}/simple", index.address());
    let out = scratch.join("built");
    let build = |backend: &str| -> Result<()> {
        let mut command = lbx(scratch)?;
        command.args(["build", "--quiet", "--image", image, "--require", "none", "--backend", backend]);
        command.arg("--out-dir").arg(&out).current_dir(workspace::root().join("examples/sdist-only"));
        command.env("PIP_INDEX_URL", &url).env("no_proxy", "127.0.0.1");
        process::output(&mut command).map(drop)
    };
    let mut names = vec!["namespaces"];
    if nix::unistd::geteuid().is_root() {
        names.push("chroot");
    } else {
        results.skip("chroot_vs_native", "root");
    }
    if has("proot") {
        names.push("proot");
    } else {
        results.skip("proot_vs_native", "proot");
    }
    // What is measured is building, so nothing is kept of it.
    let built = scratch.join("cache/built");
    let prepare = || remove(&out).and_then(|()| remove(&built));
    let contestant = |name: &'static str| Contestant::new(prepare, move || build(name));
    let mut contestants: Vec<_> = names.iter().map(|name| contestant(name)).collect();
    let times = medians(ROUNDS, &mut contestants)?;
    for (name, time) in names.iter().zip(&times).skip(1) {
        let (key, bound) = match *name {
            "chroot" => ("chroot_vs_native", Bound::AtMost(1.1)),
            _ => ("proot_vs_native", Bound::Reported),
        };
        results.add(key, time / times[0], bound);
    }
    let mut doctor = lbx(scratch)?;
    doctor.arg("doctor");
    let mut contestants = [Contestant::new(|| Ok(()), || process::output(&mut doctor).map(drop))];
    let times = medians(3 * ROUNDS, &mut contestants)?;
    results.add("doctor_ms", times[0] * 1e3, Bound::AtMost(150.0));
    Ok(())
}

fn lbx(scratch: &Path) -> Result<Command> {
    let mut command = Command::new(workspace::release("lbx")?);
    command.env("LBX_CACHE_DIR", scratch.join("cache"));
    Ok(command)
}
