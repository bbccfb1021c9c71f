//! From wheels and sources to a zip: the listing, the rules, and the writer.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lbx_archive::{Entry, Source, Timestamp, Written};
use lbx_plan::prune::{self, Origin, Requirer};
use lbx_plan::{Artifact, Kind, Plan};
use lbx_wheel::{InstalledFile, Kind as FileKind, OpenWheel, Wheel, normalize_name};
use sha2::{Digest, Sha256};

use crate::engine::{Context, Options};
use crate::error::Error;
use crate::listing::{Content, Item, LeftOut, Listing};
use crate::project::Project;
use crate::publish::Staging;
use crate::report::ArtifactReport;
use crate::resolve::ResolvedSet;
use crate::source::{self, SourceFile, SourceTree};

/// One source or include of an artifact, as it is on disk.
#[derive(Debug)]
pub(crate) struct Part {
    /// As the configuration names it.
    name: String,
    /// The folder of the zip that it goes to: empty, or ending in `/`.
    prefix: &'static str,
    tree: SourceTree,
}

/// The sources and includes of every artifact, in the order of the plan. What is wrong with the user's
/// own files is found here, before anything is fetched.
pub(crate) fn collect_parts(
    project: &Project,
    plan: &Plan,
    options: &Options,
) -> Result<Vec<Vec<Part>>, Error> {
    let exclude = exclude(project, plan, options);
    plan.artifacts.iter().map(|artifact| parts(project, artifact, &exclude)).collect()
}

fn parts(project: &Project, artifact: &Artifact, exclude: &[PathBuf]) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    if let Some(name) = &artifact.source {
        let (path, position) = locate(project, artifact, name)?;
        if !path.is_dir() {
            return Err(Error::SourceNotAFolder { position, path: name.clone() });
        }
        let tree = source::walk(&path, name, exclude)?;
        let prefix = if is_laid_out(artifact, &tree) { "" } else { artifact.kind.prefix() };
        parts.push(Part { name: name.clone(), prefix, tree });
    }
    for name in &artifact.include {
        let (path, _) = locate(project, artifact, name)?;
        let tree = source::walk_include(&path, name, exclude)?;
        parts.push(Part { name: name.clone(), prefix: artifact.kind.prefix(), tree });
    }
    Ok(parts)
}

/// What builds write is no source: the output folder, unless it is the whole project, and the files in it.
fn exclude(project: &Project, plan: &Plan, options: &Options) -> Vec<PathBuf> {
    let destination = &options.destination;
    let folder = destination.folder();
    let mut exclude = vec![destination.report()];
    for artifact in &plan.artifacts {
        let zip = destination.zip(&artifact.name);
        exclude.push(zip.with_added_extension("sha256"));
        exclude.push(zip);
    }
    if fs_err::canonicalize(folder).is_ok_and(|folder| folder != project.root) {
        exclude.push(folder.to_owned());
    }
    // What was brought along is no source either.
    exclude.extend(options.from.iter().chain(&options.aside).cloned());
    exclude
}

/// The real path of a source, and where the configuration names it.
fn locate(project: &Project, artifact: &Artifact, name: &str) -> Result<(PathBuf, String), Error> {
    let offset = artifact.offsets.iter().find(|(path, _)| path == name).map_or(0, |(_, offset)| *offset);
    let position = project.config.position(offset).to_string();
    let Ok(real) = fs_err::canonicalize(project.root.join(name)) else {
        return Err(Error::SourceMissing { position, path: name.to_owned() });
    };
    if !real.starts_with(&project.root) {
        return Err(Error::SourceOutside { position, path: name.to_owned(), target: real });
    }
    Ok((real, position))
}

/// Whether a layer's folder is laid out as layers are: `python/`, perhaps `bin/` and `lib/`, and no more.
fn is_laid_out(artifact: &Artifact, tree: &SourceTree) -> bool {
    let top = |file: &SourceFile| file.path.split_once('/').map(|(top, _)| top.to_owned());
    let is_package = tree.files.iter().any(|file| file.path == "python/__init__.py");
    artifact.kind == Kind::Layer
        && !is_package
        && tree.files.iter().any(|file| file.path.starts_with("python/"))
        && tree.files.iter().all(|file| matches!(top(file).as_deref(), Some("python" | "bin" | "lib")))
}

/// Builds an artifact's zip in the staging folder.
pub(crate) fn build(
    context: &Context,
    index: usize,
    artifact: &Artifact,
    set: Option<&ResolvedSet>,
    staging: &Staging,
) -> Result<ArtifactReport, Error> {
    let wheels = set.map_or(&[][..], |set| &set.wheels);
    let parts = context.parts.get(index).map_or(&[][..], Vec::as_slice);
    let own = read_parts(context, parts)?;
    let unrequired = unrequired(wheels, parts)?;
    let mut listing = Listing::default();
    add_wheels(&mut listing, wheels, artifact.kind.prefix(), &unrequired)?;
    for (part, items) in parts.iter().zip(own) {
        add_part(&mut listing, part, items)?;
    }
    let (items, left_out) = listing.finish()?;
    if items.is_empty() {
        return Err(Error::Empty { kind: artifact.kind.word(), name: artifact.name.clone() });
    }
    context.ground.cancel.check()?;
    let path = context.options.destination.zip(&artifact.name);
    let stamp = context.options.source_date_epoch.map_or_else(Timestamp::default, Timestamp::from_unix);
    let entries = entries(wheels, &items)?;
    let written = staging.write_zip(&artifact.name, |file| {
        lbx_archive::write(file, &entries, stamp).map_err(|source| Error::Archive { path, source })
    })?;
    Ok(ArtifactReport::new(context, artifact, wheels, &items, left_out, written))
}

/// Writes the zip of a set of wheels alone, by the first rule set: the dependency part of an artifact.
pub fn pack_wheels<W: Write>(wheels: &[Arc<Wheel>], prefix: &str, out: &mut W) -> Result<Written, Error> {
    let unrequired = unrequired(wheels, &[])?;
    let mut listing = Listing::default();
    add_wheels(&mut listing, wheels, prefix, &unrequired)?;
    let (items, _) = listing.finish()?;
    let entries = entries(wheels, &items)?;
    lbx_archive::write(out, &entries, Timestamp::default())
        .map_err(|source| Error::Archive { path: PathBuf::from("-"), source })
}

fn add_wheels(
    listing: &mut Listing,
    wheels: &[Arc<Wheel>],
    prefix: &str,
    unrequired: &[String],
) -> Result<(), Error> {
    let unrequired: Vec<&str> = unrequired.iter().map(String::as_str).collect();
    for (wheel_index, wheel) in wheels.iter().enumerate() {
        let distribution = normalize_name(&wheel.metadata.name);
        let owner: Arc<str> = format!("{} {}", wheel.metadata.name, wheel.metadata.version).into();
        for (file_index, file) in wheel.files.iter().enumerate() {
            let origin = Origin::Wheel { distribution: &distribution, script: is_script(file) };
            let item = Item {
                path: format!("{prefix}{}", file.path),
                owner: Arc::clone(&owner),
                executable: file.executable,
                size: file.packed.size,
                sha256: file.sha256,
                content: Content::Wheel { wheel: wheel_index, file: file_index },
            };
            listing.add(item, prefix, origin, &unrequired)?;
        }
    }
    Ok(())
}

/// Scripts are those that the wheel says are, and whatever data it puts beside them.
fn is_script(file: &InstalledFile) -> bool {
    match file.kind {
        FileKind::Script { .. } => true,
        FileKind::Data => file.path.starts_with("bin/"),
        _ => false,
    }
}

/// The packaging tools among the wheels that no wheel and no line of own code needs.
fn unrequired(wheels: &[Arc<Wheel>], parts: &[Part]) -> Result<Vec<String>, Error> {
    let names: Vec<String> = wheels.iter().map(|wheel| normalize_name(&wheel.metadata.name)).collect();
    if !names.iter().any(|name| prune::PACKAGING_TOOLS.contains(&name.as_str())) {
        return Ok(Vec::new());
    }
    let mut imports = Vec::new();
    for file in parts.iter().flat_map(|part| &part.tree.files) {
        if Path::new(&file.path).extension().is_some_and(|extension| extension == "py") {
            imports.extend(prune::imported_modules(&String::from_utf8_lossy(&fs_err::read(&file.location)?)));
        }
    }
    let set: Vec<Requirer<'_>> = names
        .iter()
        .zip(wheels)
        .map(|(name, wheel)| Requirer { distribution: name, requires: &wheel.metadata.requires_dist })
        .collect();
    Ok(prune::unrequired_tools(&set, &imports).into_iter().map(str::to_owned).collect())
}

/// A file of own code: its item, or why it is not read.
enum Own {
    Kept(Item),
    LeftOut(LeftOut),
}

fn read_parts(context: &Context, parts: &[Part]) -> Result<Vec<Vec<Own>>, Error> {
    parts
        .iter()
        .map(|part| part.tree.files.iter().map(|file| read_own(context, part, file)).collect())
        .collect()
}

/// Reads a file of own code, and compresses it: in one go, because the compressor's output must not depend
/// on how the bytes came.
fn read_own(context: &Context, part: &Part, file: &SourceFile) -> Result<Own, Error> {
    context.ground.cancel.check()?;
    let path = format!("{}{}", part.prefix, file.path);
    let owner: Arc<str> = part.name.as_str().into();
    if let Some(rule) = prune::verdict(&file.path, Origin::Source, &[]) {
        let size = fs_err::metadata(&file.location)?.len();
        return Ok(Own::LeftOut(LeftOut { path, owner: owner.to_string(), rule, size }));
    }
    let bytes = fs_err::read(&file.location)?;
    let (packed, compressed) = lbx_archive::compress(&bytes);
    Ok(Own::Kept(Item {
        path,
        owner,
        executable: file.executable,
        size: packed.size,
        sha256: Sha256::digest(&bytes).into(),
        content: Content::Own { packed, bytes: compressed.into() },
    }))
}

fn add_part(listing: &mut Listing, part: &Part, items: Vec<Own>) -> Result<(), Error> {
    for folder in &part.tree.passed_over {
        let path = format!("{}{folder}", part.prefix);
        listing.leave_out(LeftOut { path, owner: part.name.clone(), rule: prune::Rule::ToolFiles, size: 0 });
    }
    for own in items {
        match own {
            Own::Kept(item) => listing.add(item, part.prefix, Origin::Source, &[])?,
            Own::LeftOut(left_out) => listing.leave_out(left_out),
        }
    }
    Ok(())
}

/// The writer's entries, in the order of the listing.
fn entries(wheels: &[Arc<Wheel>], items: &[Item]) -> Result<Vec<Entry>, Error> {
    let open = wheels.iter().map(|wheel| open(wheel)).collect::<Result<Vec<_>, _>>()?;
    Ok(items.iter().map(|item| entry(wheels, &open, item)).collect())
}

fn open(wheel: &Wheel) -> Result<OpenWheel, Error> {
    wheel.open().map_err(|source| Error::wheel(wheel.filename.to_string(), source))
}

fn entry(wheels: &[Arc<Wheel>], open: &[OpenWheel], item: &Item) -> Entry {
    match &item.content {
        Content::Wheel { wheel, file } => Entry {
            name: item.path.clone(),
            executable: item.executable,
            ..wheels[*wheel].entry(&wheels[*wheel].files[*file], &open[*wheel])
        },
        Content::Own { packed, bytes } => Entry {
            name: item.path.clone(),
            executable: item.executable,
            packed: *packed,
            source: Source::Memory(Arc::clone(bytes)),
        },
    }
}
