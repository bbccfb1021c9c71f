//! Unpacking: the stand-in image from the store to trees, against umoci and against tar.

use std::path::{Path, PathBuf};
use std::process::Command;

use lbx_image::{Platform, PullOptions, Reference, Store};

use super::measure::{Contestant, medians};
use super::{Bound, Results, has, this};
use crate::{Result, process, unprivileged, workspace};

/// How often everybody has a turn.
const ROUNDS: usize = 5;

/// What the step is given.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    store: PathBuf,
    image: String,
}

/// The step: an image whose blobs are in the store, and whose trees are not.
pub(super) fn step(arguments: &Arguments) -> Result<()> {
    let store = Store::open(&arguments.store)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let options = PullOptions { offline: true, ..PullOptions::new(Platform::linux("amd64")) };
    let reference = Reference::parse(&arguments.image)?;
    runtime.block_on(lbx_image::pull(&store, &reference, &options, &|_| {}))?;
    Ok(())
}

/// Measures `unpack_vs_umoci` and `unpack_vs_tar`.
pub(super) fn measure(scratch: &Path, image: &str, results: &mut Results) -> Result<()> {
    let store = scratch.join("store");
    let layers = store.join("layers");
    let layout = workspace::standin_images()?.join("python3.11");
    let blobs = layer_blobs(&layout)?;
    // Everybody gets fresh folders, and nothing is deleted in between: ext4 is slow to create files just
    // after it deleted many, whoever creates them.
    let fresh = Fresh::new(scratch.join("unpacked"))?;
    let unpack = || process::output(this("unpack")?.arg(&store).arg(image)).map(drop);
    let put_away = || if layers.exists() { Ok(fs_err::rename(&layers, fresh.next())?) } else { Ok(()) };
    let extract =
        || blobs.iter().try_for_each(|blob| process::output(&mut tar(blob, &fresh.next())?).map(drop));
    let mut contestants = vec![Contestant::new(put_away, unpack), Contestant::new(|| Ok(()), extract)];
    if has("umoci") {
        let unpack = || process::output(&mut umoci(&layout, &fresh.next())).map(drop);
        contestants.push(Contestant::new(|| Ok(()), unpack));
    } else {
        results.skip("unpack_vs_umoci", "umoci");
    }
    let times = medians(ROUNDS, &mut contestants)?;
    if let Some(umoci) = times.get(2) {
        results.add("unpack_vs_umoci", umoci / times[0], Bound::AtLeast(3.0));
    }
    results.add("unpack_vs_tar", times[1] / times[0], Bound::AtLeast(2.0));
    results.add("unpack_ms", times[0] * 1e3, Bound::Reported);
    Ok(())
}

/// Folders that nobody has used.
struct Fresh {
    folder: PathBuf,
    count: std::cell::Cell<u32>,
}

impl Fresh {
    fn new(folder: PathBuf) -> Result<Self> {
        fs_err::create_dir(&folder)?;
        Ok(Self { folder, count: std::cell::Cell::new(0) })
    }

    /// The path of one that does not exist yet.
    fn next(&self) -> PathBuf {
        self.count.set(self.count.get() + 1);
        self.folder.join(self.count.get().to_string())
    }
}

/// tar of one layer into a folder of its own: a layer may have a file where one below has a folder.
fn tar(blob: &Path, into: &Path) -> Result<Command> {
    fs_err::create_dir(into)?;
    let mut tar = Command::new("tar");
    tar.arg("xzf").arg(blob).arg("-C").arg(into);
    // As root, tar would give files to their owners, which nobody else in this race does.
    if unprivileged::is_root() {
        tar.arg("--no-same-owner");
    }
    Ok(tar)
}

fn umoci(layout: &Path, bundle: &Path) -> Command {
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--rootless", "--image"]).arg(format!("{}:3.11", layout.display())).arg(bundle);
    umoci
}

/// The files of an image's layers, lowest first.
fn layer_blobs(layout: &Path) -> Result<Vec<PathBuf>> {
    let read =
        |path: PathBuf| -> Result<serde_json::Value> { Ok(serde_json::from_slice(&fs_err::read(path)?)?) };
    let blob = |digest: &serde_json::Value| {
        layout.join("blobs").join(digest.as_str().unwrap_or_default().replace(':', "/"))
    };
    let index = read(layout.join("index.json"))?;
    let manifest = read(blob(&index["manifests"][0]["digest"]))?;
    let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
    Ok(layers.iter().map(|layer| blob(&layer["digest"])).collect())
}
