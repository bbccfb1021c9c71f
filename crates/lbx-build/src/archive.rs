//! From wheels and sources to a zip: the dependencies as a whole, and own files after them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lbx_archive::{After, Effort, Tail, Timestamp, WriteError};
use lbx_plan::prune::{self, Decision, Installed, Member, Policy, Requirer, RuntimeProvided};
use lbx_plan::{Artifact, Compression, Hidden, Kind, Plan};
use lbx_wheel::{Wheel, normalize_name};

use crate::bytecode::Compiler;
use crate::check::{self, Facts, Subject};
use crate::dependencies::{Ahead, Ingredients, Part as DependencyPart, STRIP};
use crate::engine::{Context, Destination, PREVIOUS};
use crate::error::Error;
use crate::locked;
use crate::own::{Before, Own, OwnFile, Packet};
use crate::pack::{Content, Means, Wanted, pack};
use crate::project::Project;
use crate::publish::Staging;
use crate::report::{ArtifactReport, Made, Sum};
use crate::resolve::{ResolvedSet, image_error};
use crate::source::{self, SourceFile, SourceTree};
use crate::stamp::Stamp;
use crate::workshop::Workshop;

/// One source or include of an artifact, as it is on disk.
#[derive(Debug)]
pub(crate) struct Part {
    /// As the configuration names it.
    pub(crate) name: String,
    /// The folder of the zip that it goes to: empty, or ending in `/`.
    pub(crate) prefix: &'static str,
    pub(crate) tree: SourceTree,
}

/// The sources and includes of every artifact, in the order of the plan. What is wrong with the user's
/// own files is found here, before anything is fetched. What is `brought` along, such as wheels and the folders of other
/// builds, is no source.
pub(crate) fn collect_parts(
    project: &Project,
    plan: &Plan,
    destination: &Destination,
    brought: impl IntoIterator<Item = PathBuf>,
) -> Result<Vec<Vec<Part>>, Error> {
    let mut exclude = exclude(project, plan, destination);
    // What was brought along is no source either.
    exclude.extend(brought);
    exclude.retain_mut(|path| {
        fs_err::canonicalize(&*path).is_ok_and(|real| {
            *path = real;
            true
        })
    });
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
fn exclude(project: &Project, plan: &Plan, destination: &Destination) -> Vec<PathBuf> {
    let folder = destination.folder();
    if fs_err::canonicalize(folder).is_ok_and(|folder| folder != project.root) {
        return vec![folder.to_owned()];
    }
    let mut exclude = vec![destination.report(), folder.join(PREVIOUS)];
    for artifact in &plan.artifacts {
        let zip = destination.zip(&artifact.name);
        exclude.push(zip.with_added_extension("sha256"));
        exclude.push(zip);
    }
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
    workshop: &Workshop,
    index: usize,
    artifact: &Artifact,
    set: Option<&ResolvedSet>,
    (staging, ahead): (&Staging, Option<Ahead>),
) -> Result<Built, Error> {
    let context = workshop.context();
    let wheels = set.map_or(&[][..], |set| &set.wheels);
    let parts = context.parts.get(index).map_or(&[][..], Vec::as_slice);
    let stamp = context.options.source_date_epoch.map_or_else(Timestamp::default, Timestamp::from_unix);
    let (prefix, effort) = (artifact.kind.prefix(), effort(context));
    let paths = wheels.iter().flat_map(|wheel| wheel.files.iter().map(|file| file.path.as_str()));
    prune::check_services(&context.project.config, artifact, paths).map_err(lbx_plan::PlanError::from)?;
    let mut policy = Policy::new(&artifact.prune);
    policy.drop_tools(unrequired(wheels, parts)?);
    let provided = provided(workshop, artifact, wheels)?;
    if let Some(Decision::Dropped(dropped)) = &provided {
        policy.drop_provided(dropped.iter().map(|one| one.name.clone()));
    }
    let compiler = Compiler::of(|| workshop.builder(), (artifact.kind, artifact.bytecode, effort))?;
    let compiler = compiler.as_ref();
    let strip = artifact.prune.strip;
    let of = Ingredients { wheels, prefix, policy: &policy, stamp, effort, strip, compiler };
    let dependencies = context.dependencies.get(&context.ground, &context.wheels, &of)?;
    let mut own = Own::list(parts, &policy)?;
    own.beside(&dependencies.about)?;
    if own.files.is_empty() && dependencies.about.files.is_empty() {
        return Err(Error::Empty { kind: artifact.kind.word(), name: artifact.name.clone() });
    }
    context.ground.cancel.check()?;
    let recipe = recipe(context, artifact, compiler);
    let known = Known::of(context, artifact, &recipe);
    // Bytecode is there until the zip is written.
    let scratch = compiler.map(|_| context.ground.store.scratch()).transpose();
    let scratch = scratch.map_err(|source| image_error(context, source))?;
    if let (Some(compiler), Some(scratch)) = (compiler, &scratch) {
        let is_known = |path: &str, own: &OwnFile<'_>| known.content(path, own).is_some();
        own.compile(compiler, (&policy, &dependencies.about), is_known, &scratch.path("compile"))?;
    }
    let mut facts = Vec::new();
    let begun = ahead.and_then(|ahead| ahead.take(&dependencies));
    let is_begun = begun.is_some();
    let tail = staging.write_zip(&artifact.name, begun, |file| {
        if !is_begun {
            dependencies.copy(file).map_err(|source| archive_error(context, artifact, source))?;
        }
        let (tail, found) = write(context, artifact, (&dependencies, &own, &known), stamp, file)?;
        facts = found;
        Ok(tail)
    })?;
    let mut built = Built::new(context, artifact, (dependencies, own), &tail, (facts, recipe));
    built.report.runtime_provided = provided;
    Ok(built)
}

/// Whether the AWS SDK is left to the runtime, if that is asked: by what the image has.
fn provided(
    workshop: &Workshop,
    artifact: &Artifact,
    wheels: &[Arc<Wheel>],
) -> Result<Option<Decision>, Error> {
    let context = workshop.context();
    if artifact.prune.runtime_provided == RuntimeProvided::Keep || wheels.is_empty() {
        return Ok(None);
    }
    let builder = workshop.builder()?;
    let packages = &builder.base().packages;
    let image: Vec<Installed<'_>> =
        packages.iter().map(|(name, version)| Installed { name, version }).collect();
    let names: Vec<String> = wheels.iter().map(|wheel| normalize_name(&wheel.metadata.name)).collect();
    let members: Vec<Member<'_>> = names
        .iter()
        .zip(wheels)
        .map(|(name, wheel)| Member {
            name,
            version: &wheel.metadata.version,
            requires: &wheel.metadata.requires_dist,
        })
        .collect();
    let lines = artifact.set.and_then(|set| context.plan.sets.get(set)).map(|set| &set.lines);
    let asked = lines.into_iter().flatten().map(Hidden::expose);
    let environment = locked::environment(&context.plan)?;
    Ok(Some(prune::provided(&image, &members, asked, &environment)))
}

/// An artifact whose zip is written.
pub(crate) struct Built {
    pub(crate) report: ArtifactReport,
    /// What the next build may know of its own files.
    pub(crate) after: Before,
    dependencies: Arc<DependencyPart>,
}

impl Built {
    fn new(
        context: &Context,
        artifact: &Artifact,
        (dependencies, own): (Arc<DependencyPart>, Own<'_>),
        tail: &Tail,
        (facts, recipe): (Vec<Option<Facts>>, String),
    ) -> Self {
        let mut after = Before { recipe, part: dependencies.key.clone(), ..Before::default() };
        let (mut kept, mut own_packed_size) = (Sum::default(), 0);
        for (((path, file), place), facts) in own.files.iter().zip(&tail.entries).zip(facts) {
            let stamp = Some(file.file.stamp).filter(|stamp| context.options.start.is_after(stamp));
            after.files.insert(path.clone(), Packet::new(file, stamp, *place, facts));
            kept.add(place.1.size);
            own_packed_size += place.1.compressed_size;
        }
        let files = dependencies.about.files.len() + own.files.len();
        let mut left_out = dependencies.about.left_out.clone();
        left_out.extend(own.left_out);
        left_out.sort();
        let wheels = dependencies.about.wheels.clone();
        let unpacked_size = dependencies.about.unpacked_size + kept.size;
        let (written, own) = (tail.written, kept);
        let made = Made { written, files, unpacked_size, own, own_packed_size, wheels, left_out };
        Self { report: ArtifactReport::new(context, artifact, made), after, dependencies }
    }

    /// All files, as the checks see them, each with its bytes in the zip.
    pub(crate) fn files(&self) -> impl Iterator<Item = (check::File<'_>, u64)> {
        let about = &self.dependencies.about;
        let theirs = about.files.iter().map(|file| {
            let checked = check::File {
                path: &file.path,
                owner: about.owner(file),
                own: false,
                size: file.size,
                mode: None,
                offered: file.offered,
                facts: file.facts.as_ref(),
            };
            (checked, file.packed_size)
        });
        let own = self.after.files.iter().map(|(path, packet)| {
            let checked = check::File {
                path,
                owner: &packet.owner,
                own: true,
                size: packet.size(),
                mode: None,
                offered: None,
                facts: packet.facts.as_ref(),
            };
            (checked, packet.packed_size())
        });
        theirs.chain(own)
    }

    /// As the checks see it.
    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject {
            name: &self.report.name,
            zip_size: Some(self.report.size),
            is_layer: self.report.kind == Kind::Layer,
            files: self.files().map(|(file, _)| file).collect(),
            names: Vec::new(),
        }
    }
}

/// Writes a zip: the dependencies as they are kept, own files as the zip before has them where they have not changed.
fn write(
    context: &Context,
    artifact: &Artifact,
    (dependencies, own, known): (&DependencyPart, &Own<'_>, &Known<'_>),
    stamp: Timestamp,
    file: &mut File,
) -> Result<(Tail, Vec<Option<Facts>>), Error> {
    let names: Vec<After<'_>> =
        own.files.iter().map(|(path, own)| After { name: path, executable: own.executable }).collect();
    let packets: Vec<Option<Content>> =
        own.files.iter().map(|(path, own)| known.content(path, own)).collect();
    let wanted: Vec<Wanted> = own
        .files
        .values()
        .zip(&packets)
        .filter(|(_, packet)| packet.is_none())
        .map(|(own, _)| own.wanted())
        .collect();
    context.own_files.make(wanted.len());
    context.own_files.reuse(packets.len() - wanted.len());
    let prefix = dependencies.prefix().with_executable(&own.made_executable);
    let scratch = staging_folder(context);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let strip = artifact.prune.strip;
    let (secrets, cancel) = (&context.secrets, &context.ground.cancel);
    let means = Means { effort: effort(context), strip, secrets, scratch, cancel, threads };
    let mut facts = Vec::with_capacity(packets.len());
    let mut packets = packets.into_iter();
    let tail = pack(&wanted, &means, |next| {
        let content = |_: usize| -> Result<_, Stopped> {
            // It is asked for each, in this order.
            let Content { packed, source, facts: found } = packets
                .next()
                .flatten()
                .map_or_else(&mut *next, Ok)
                .map_err(|error| Stopped::Own(Box::new(error)))?;
            facts.push(found);
            Ok((packed, source))
        };
        lbx_archive::write_after(file, &prefix, &names, stamp, content)
    })
    .map_err(|stopped: Stopped| match stopped {
        Stopped::Archive(source) => archive_error(context, artifact, *source),
        Stopped::Own(error) => *error,
    })?;
    Ok((tail, facts))
}

/// Large files wait where the zip will be: there is room for it.
fn staging_folder(context: &Context) -> &Path {
    context.options.destination.folder()
}

/// How hard files are compressed.
pub(crate) fn effort(context: &Context) -> Effort {
    match context.plan.compression {
        Compression::Fast => Effort::Fast,
        Compression::Max => Effort::Max,
    }
}

/// What makes the packed bytes of own files out of them.
fn recipe(context: &Context, artifact: &Artifact, compiler: Option<&Compiler>) -> String {
    let strip = if artifact.prune.strip { STRIP } else { "" };
    let bytecode = compiler.map(|compiler| (compiler.recipe(), compiler.is_only()));
    format!("{} {strip} {} {bytecode:?}", effort(context).recipe(), check::FACTS)
}

/// Why a zip was not written to its end.
enum Stopped {
    Archive(Box<WriteError>),
    Own(Box<Error>),
}

impl From<WriteError> for Stopped {
    fn from(error: WriteError) -> Self {
        Self::Archive(Box::new(error))
    }
}

fn archive_error(context: &Context, artifact: &Artifact, source: WriteError) -> Error {
    Error::Archive { path: context.options.destination.zip(&artifact.name), source }
}

/// The zip that the build before has left, as far as it is as it was left.
struct Known<'k> {
    before: Option<(&'k Before, Arc<File>)>,
}

impl<'k> Known<'k> {
    fn of(context: &'k Context, artifact: &Artifact, recipe: &str) -> Self {
        let path = context.options.destination.zip(&artifact.name);
        let before = context.known.artifacts.get(&artifact.name).filter(|before| before.recipe == recipe);
        let open = |before: &'k Before| {
            let file = fs_err::File::open(&path).ok()?.into_file();
            let is_same = before.zip == Some(Stamp::of(&file.metadata().ok()?));
            is_same.then(|| (before, Arc::new(file)))
        };
        Self { before: before.and_then(open) }
    }

    fn content(&self, path: &str, own: &OwnFile<'_>) -> Option<Content> {
        let (before, file) = self.before.as_ref()?;
        let packet = before.files.get(path)?;
        (packet.stamp == Some(own.file.stamp)).then(|| packet.content(file))
    }
}

/// The packaging tools among the wheels that no wheel and no line of own code needs.
pub(crate) fn unrequired(wheels: &[Arc<Wheel>], parts: &[Part]) -> Result<Vec<String>, Error> {
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
