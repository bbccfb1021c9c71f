//! Packaging: the six-package set, wheels in the store, listing to finished zip, against what people use to
//! compress and against what no packager can be faster than.

use std::path::{Path, PathBuf};
use std::process::Command;

use lbx_wheel::{Digest, WheelStore};

use super::measure::{Contestant, medians};
use super::{Bound, Results, has, remove, this};
use crate::{Result, process, wheels};

/// How often everybody has a turn.
const ROUNDS: usize = 9;
/// How often the slow peer has one.
const SLOW_ROUNDS: usize = 3;

/// What the step is given.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    store: PathBuf,
    zip: PathBuf,
    wheels: Vec<String>,
}

/// The step: loads the wheels by digest, lists, prunes, and writes the zip with its digest.
pub(super) fn step(arguments: &Arguments) -> Result<()> {
    let store = WheelStore::open(&arguments.store)?;
    let mut wheels = Vec::new();
    for digest in &arguments.wheels {
        let digest: Digest = digest.parse()?;
        wheels.push(store.get(digest)?.ok_or("a wheel is not in the store")?);
    }
    let mut zip = fs_err::File::create(&arguments.zip)?;
    let written = lbx_build::pack_wheels(&wheels, "", zip.file_mut())?;
    println!("{}", hex::encode(written.sha256));
    Ok(())
}

/// Measures `package_vs_zip6` and `package_vs_limit`.
pub(super) fn measure(scratch: &Path, results: &mut Results) -> Result<()> {
    let (store, digests) = fill_store(scratch)?;
    let zip = scratch.join("package.zip");
    let package = || -> Result<()> {
        let mut step = this("package")?;
        process::output(step.arg(&store).arg(&zip).args(&digests)).map(drop)
    };
    package()?;
    let copy = scratch.join("copy.zip");
    let mut contestants = vec![
        Contestant::new(|| remove(&zip), package),
        Contestant::new(
            || remove(&copy),
            || process::output(Command::new("cp").arg(&zip).arg(&copy)).map(drop),
        ),
    ];
    if has("openssl") {
        let hash = || process::output(Command::new("openssl").args(["dgst", "-sha256"]).arg(&zip)).map(drop);
        contestants.push(Contestant::new(|| Ok(()), hash));
    } else {
        results.skip("package_vs_limit", "openssl");
    }
    let times = medians(ROUNDS, &mut contestants)?;
    drop(contestants);
    let limit = times[1..].iter().copied().fold(0.0, f64::max);
    if times.len() == 3 {
        results.add("package_vs_limit", times[0] / limit, Bound::AtMost(1.5));
    }
    results.add("package_ms", times[0] * 1e3, Bound::Reported);
    against_zip(scratch, &zip, times[0], results)
}

fn fill_store(scratch: &Path) -> Result<(PathBuf, Vec<String>)> {
    let root = scratch.join("wheels");
    let store = WheelStore::open(&root)?;
    let mut digests = Vec::new();
    for entry in fs_err::read_dir(wheels::fetch()?)? {
        let path = entry?.path();
        if wheels::is_of_the_set(&path) {
            digests.push(store.add(&path)?.digest.to_string());
        }
    }
    Ok((root, digests))
}

/// `zip -r -6 -X` of the same tree: how much slower, and whether its zip is smaller.
fn against_zip(scratch: &Path, zip: &Path, ours: f64, results: &mut Results) -> Result<()> {
    if !has("zip") || !has("unzip") {
        results.skip("package_vs_zip6", "zip");
        return Ok(());
    }
    let tree = scratch.join("tree");
    process::output(Command::new("unzip").arg("-q").arg(zip).arg("-d").arg(&tree))?;
    let theirs = scratch.join("theirs.zip");
    let mut zip6 = Command::new("zip");
    zip6.args(["-q", "-r", "-6", "-X"]).arg(&theirs).arg(".").current_dir(&tree);
    let run = || process::output(&mut zip6).map(drop);
    let times = medians(SLOW_ROUNDS, &mut [Contestant::new(|| remove(&theirs), run)])?;
    results.add("package_vs_zip6", times[0] / ours, Bound::AtLeast(20.0));
    let size = |path: &Path| -> Result<f64> {
        #[expect(clippy::cast_precision_loss, reason = "sizes of zips are far below 2^53")]
        Ok(fs_err::metadata(path)?.len() as f64)
    };
    results.add("package_size_vs_zip6", size(zip)? / size(&theirs)?, Bound::AtMost(1.0));
    Ok(())
}
