//! `lbx vendor`: all that a locked build needs, as one folder or one file, for machines without a network.
//!
//! The same lock and image give the same bytes. What is in it is listed in [`MANIFEST`], with sizes and digests:
//!
//! | path | what |
//! |---|---|
//! | `vendor.json` | this list; the runtime's entry of the catalogue, the CPUs, the images |
//! | `image/sha256/HEX` | the image, as registries have it |
//! | `wheels/HEX/NAME.whl` | each wheel of each set, those that were built among them |
//! | `built/HEX.json` | which wheel came of what source |
//! | `locks/PATH` | the locks |

mod take;

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lbx_plan::{Plan, Runtime};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(crate) use self::take::take;

use crate::builder::Builder;
use crate::cancel::Cancel;
use crate::engine::{self, Context, Host, Options};
use crate::error::Error;
use crate::event::Observer;
use crate::locked;
use crate::project::Project;
use crate::resolve::ResolvedSet;
use crate::workshop::Workshop;

/// The list of what there is.
const MANIFEST: &str = "vendor.json";
/// The version of this format.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Manifest {
    version: u32,
    /// The version of lbx that wrote it.
    lbx: String,
    /// The catalogue's entry.
    runtime: Runtime,
    /// The CPUs, in Lambda's words.
    arch: Vec<String>,
    /// The image of the runtime, and those that sources are built in.
    images: Vec<ImageEntry>,
    files: Vec<FileEntry>,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct ImageEntry {
    reference: String,
    digest: String,
}

#[derive(Clone, Serialize, Deserialize)]
struct FileEntry {
    path: String,
    size: u64,
    sha256: String,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vendored {
    /// How many files there are.
    pub files: usize,
    /// Their size in bytes.
    pub size: u64,
}

/// Writes all that builds of these plans need, one for each CPU, to `destination`: a `.tar`, or else a folder. What is there
/// stays until all is written.
pub async fn vendor(
    project: Project,
    plans: Vec<Plan>,
    host: Host,
    options: Options,
    destination: PathBuf,
    cancel: &Cancel,
    observer: &Observer,
) -> Result<Vendored, Error> {
    check(&destination)?;
    let options = Options { locked: true, ..options };
    let mut workshops = Vec::new();
    for plan in plans {
        let (project, host, options) = (project.clone(), host.clone(), options.clone());
        let workshop = engine::prepare(project, plan, host, options, cancel, observer)?;
        workshop.open().await?;
        workshops.push(workshop);
    }
    let work = tokio::task::spawn_blocking(move || vendor_in(&workshops, &destination));
    work.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// A folder that is something else is not replaced.
fn check(destination: &Path) -> Result<(), Error> {
    let is_other = destination.is_dir()
        && !destination.join(MANIFEST).is_file()
        && fs_err::read_dir(destination)?.next().is_some();
    if is_other { Err(Error::VendorInTheWay { path: destination.to_owned() }) } else { Ok(()) }
}

fn vendor_in(workshops: &[Arc<Workshop>], destination: &Path) -> Result<Vendored, Error> {
    let mut all = Sources::new();
    for workshop in workshops {
        let context = workshop.context();
        let sets = engine::parallel(context, &context.locks, |index, lock| {
            // Locks were demanded.
            lock.locked.as_ref().map(|locked| locked::run(workshop, index, locked)).transpose()
        })?;
        let sets: Vec<_> = sets.into_iter().flatten().collect();
        all.extend(sources(context, &*workshop.builder()?, &sets)?);
    }
    let Some(context) = workshops.first().map(|workshop| workshop.context()) else {
        return Ok(Vendored { files: 0, size: 0 });
    };
    let manifest = manifest(workshops, context, &all)?;
    let vendored =
        Vendored { files: manifest.files.len(), size: manifest.files.iter().map(|file| file.size).sum() };
    context.ground.cancel.check()?;
    write(context, destination, &manifest, &all)?;
    Ok(vendored)
}

/// Where the bytes of a file are.
enum Source {
    File(PathBuf),
    Text(String),
}

/// All files but the manifest, by their paths.
type Sources = BTreeMap<String, Source>;

fn sources(context: &Context, builder: &Builder, sets: &[ResolvedSet]) -> Result<Sources, Error> {
    let mut all = Sources::new();
    let store = &context.ground.store;
    for (reference, image) in images(context, builder) {
        for digest in image.blobs(store).map_err(|source| Error::image(&reference, source))? {
            all.insert(format!("image/sha256/{}", digest.hex()), Source::File(store.blob_path(&digest)));
        }
    }
    for set in sets {
        for wheel in &set.wheels {
            let path = format!("wheels/{}/{}", wheel.digest, wheel.filename);
            all.insert(path, Source::File(wheel.path().to_owned()));
        }
        for key in set.built.iter().flat_map(|built| &built.keys) {
            let path = store.root().join("built").join(format!("{key}.json"));
            all.insert(format!("built/{key}.json"), Source::File(path));
        }
    }
    for lock in &context.locks {
        if let Some((text, _)) = context.project.lock(&lock.path)? {
            all.insert(format!("locks/{}", lock.path), Source::Text(text));
        }
    }
    Ok(all)
}

/// The images that were used, by what they are called.
fn images(context: &Context, builder: &Builder) -> Vec<(String, lbx_image::Image)> {
    let own = (context.plan.image.clone(), builder.base().image.clone());
    let others = builder.build_images();
    let others = others.iter().map(|one| (one.site.choice.image.clone(), one.image.clone()));
    [own].into_iter().chain(others).collect()
}

impl Source {
    fn open(&self) -> Result<Box<dyn Read + '_>, Error> {
        Ok(match self {
            Self::File(path) => Box::new(fs_err::File::open(path)?),
            Self::Text(text) => Box::new(text.as_bytes()),
        })
    }
}

fn manifest(workshops: &[Arc<Workshop>], context: &Context, sources: &Sources) -> Result<Manifest, Error> {
    let mut entries = Vec::new();
    for workshop in workshops {
        let images = images(workshop.context(), &*workshop.builder()?).into_iter();
        for entry in images.map(|(reference, image)| {
            let digest = image.index_digest.unwrap_or(image.manifest_digest).to_string();
            ImageEntry { reference, digest }
        }) {
            // The same for two CPUs has one name for both.
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
    }
    let files = sources.iter().map(|(path, source)| {
        let (size, sha256) = copy(&mut *source.open()?, &mut std::io::sink())?;
        Ok(FileEntry { path: path.clone(), size, sha256 })
    });
    Ok(Manifest {
        version: VERSION,
        lbx: env!("CARGO_PKG_VERSION").to_owned(),
        runtime: context.plan.runtime.clone(),
        arch: workshops.iter().map(|workshop| workshop.context().plan.arch.lambda().to_owned()).collect(),
        images: entries,
        files: files.collect::<Result<_, Error>>()?,
    })
}

/// Copies all, and says how much that was and what.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<(u64, String), Error> {
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 128 << 10]);
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok((size, hex::encode(hash.finalize())));
        }
        hash.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
        size += count as u64;
    }
}

impl Manifest {
    fn text(&self) -> String {
        // No type in it can fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

/// Whether a destination is one file.
fn is_tar(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tar")
}

fn write(context: &Context, destination: &Path, manifest: &Manifest, sources: &Sources) -> Result<(), Error> {
    let parent = destination.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    fs_err::create_dir_all(parent)?;
    if is_tar(destination) {
        let mut file = tempfile::Builder::new().prefix(lbx_plan::prune::UNFINISHED).tempfile_in(parent)?;
        write_tar(context, file.as_file_mut(), manifest, sources)?;
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.persist(destination).map_err(|error| error.error)?;
        return Ok(());
    }
    let staging = tempfile::Builder::new().prefix(lbx_plan::prune::UNFINISHED).tempdir_in(parent)?;
    fs_err::set_permissions(staging.path(), Permissions::from_mode(0o755))?;
    for (path, source) in sources {
        context.ground.cancel.check()?;
        let target = staging.path().join(path);
        fs_err::create_dir_all(target.parent().unwrap_or(staging.path()))?;
        copy(&mut *source.open()?, &mut fs_err::File::create(&target)?)?;
    }
    fs_err::write(staging.path().join(MANIFEST), manifest.text())?;
    if destination.exists() {
        // Two renames, so that there is never half of it.
        let old = tempfile::Builder::new().prefix(lbx_plan::prune::UNFINISHED).tempdir_in(parent)?;
        fs_err::rename(destination, old.path().join("old"))?;
        fs_err::rename(staging.keep(), destination)?;
    } else {
        fs_err::rename(staging.keep(), destination)?;
    }
    Ok(())
}

/// The manifest comes first, so that whoever reads knows what to expect. Owners, times and modes are always the same.
fn write_tar(
    context: &Context,
    file: &mut File,
    manifest: &Manifest,
    sources: &Sources,
) -> Result<(), Error> {
    let mut tar = tar::Builder::new(std::io::BufWriter::new(&mut *file));
    let text = manifest.text();
    append(&mut tar, MANIFEST, text.len() as u64, &mut text.as_bytes())?;
    for entry in &manifest.files {
        context.ground.cancel.check()?;
        if let Some(source) = sources.get(&entry.path) {
            append(&mut tar, &entry.path, entry.size, &mut *source.open()?)?;
        }
    }
    tar.into_inner()?.flush()?;
    file.rewind()?;
    Ok(())
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    path: &str,
    size: u64,
    bytes: &mut dyn Read,
) -> Result<(), Error> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    Ok(tar.append_data(&mut header, path, bytes)?)
}
