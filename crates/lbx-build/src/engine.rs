//! The flow: image, resolve, listing, archive, publish, and what runs beside what.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lbx_image::{ProxyOptions, PullOptions, Reference, Store};
use lbx_plan::{Architecture, Artifact, DependencySet, ImageChoice, Kind, Plan};
use lbx_sandbox::{Backend, Launcher, Level};
use lbx_wheel::WheelStore;
use tokio::runtime::Handle;

use crate::advice;
use crate::archive::{self, Part};
use crate::cache;
use crate::cancel::Cancel;
use crate::check::{self, Severity};
use crate::dependencies::{Ahead, Parts};
use crate::error::Error;
use crate::event::{Event, Observer};
use crate::import::Imports;
use crate::index::Places;
use crate::limits::Limits;
use crate::locked::{self, SetLock};
use crate::measure::{Count, Laps};
use crate::own::Before;
use crate::page::Page;
use crate::project::{Project, Variable};
use crate::publish::{self, Published};
use crate::record::{Basis, Known, Start};
use crate::report::Report;
use crate::resolve::{self, ResolvedSet};
use crate::site::Ground;
use crate::tree::Tree;
use crate::vendor;
use crate::workshop::Workshop;

/// What this host offers to a build.
#[derive(Clone, Debug)]
pub struct Host {
    /// How sandboxes are started.
    pub launcher: Launcher,
    /// The way to isolate them; the strongest that works here when there is none.
    pub backend: Option<Backend>,
    /// The least isolation that will do.
    pub require: Level,
    /// Where images, wheels and temporary files are kept.
    pub cache_dir: PathBuf,
    /// The CA bundle that TLS is to trust.
    pub ca_bundle: Option<PathBuf>,
    /// Package indexes as this host has them configured.
    pub indexes: lbx_index::Settings,
    /// The environment, for the variables that a project names.
    pub variable: Variable,
    /// The proxies that registries are reached through.
    pub proxy: Option<ProxyOptions>,
}

/// What the user asks of one build, beside the plan.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where zips go.
    pub destination: Destination,
    /// Take the image and all packages from the store, and ask no registry and no index.
    pub offline: bool,
    /// Fail where a set has no lock that covers it.
    pub locked: bool,
    /// Build all that has to be built anew, and twice, to see whether it comes to the same.
    pub rebuild: bool,
    /// Fail where the checks find that an artifact will not work.
    pub check: bool,
    /// The folder that becomes the tree of the one artifact that there is, if there is to be one.
    pub tree: Option<PathBuf>,
    /// Whether there is to be a page about what was built.
    pub page: bool,
    /// Folders that are no source, besides the one of the destination: those of other builds.
    pub aside: Vec<PathBuf>,
    /// What `lbx vendor` wrote, to be taken into the store first.
    pub from: Option<PathBuf>,
    /// What each command in the sandbox may use.
    pub limits: Limits,
    /// The moment before anything was looked at.
    pub start: Start,
    /// The time that every zip entry carries, in seconds since 1970; 1980-01-01 when there is none.
    pub source_date_epoch: Option<i64>,
}

impl Options {
    /// Nothing but what is always needed.
    pub fn new(destination: Destination, limits: Limits) -> Self {
        Self {
            destination,
            offline: false,
            locked: false,
            rebuild: false,
            check: true,
            tree: None,
            page: false,
            aside: Vec::new(),
            from: None,
            limits,
            start: Start::default(),
            source_date_epoch: None,
        }
    }
}

/// The folder of zips that others have replaced, in the folder of zips.
pub const PREVIOUS: &str = ".previous";

/// Where zips go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A folder, each under its artifact's name; the report is `report.json` beside them.
    Folder(PathBuf),
    /// A file, for the one artifact that there is; the report is beside it, as `STEM.report.json`.
    File(PathBuf),
}

impl Destination {
    /// Where the zip of an artifact goes.
    pub fn zip(&self, name: &str) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(format!("{name}.zip")),
            Self::File(file) => file.clone(),
        }
    }

    /// Where the report goes.
    pub fn report(&self) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join("report.json"),
            Self::File(file) => file.with_extension("report.json"),
        }
    }

    /// Where the zip is kept that another one has replaced; nowhere where one file was asked for.
    pub fn previous(&self, zip: &Path) -> Option<PathBuf> {
        match self {
            Self::Folder(folder) => Some(folder.join(PREVIOUS).join(zip.file_name()?)),
            Self::File(_) => None,
        }
    }

    /// The folder that everything goes to.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder,
            Self::File(file) => file.parent().unwrap_or(Path::new("/")),
        }
    }
}

/// What a build's stages share.
pub(crate) struct Context {
    pub(crate) project: Project,
    pub(crate) plan: Plan,
    pub(crate) options: Options,
    /// The host.
    pub(crate) ground: Arc<Ground>,
    /// The CPU of what runs here, which may be another one than the artifacts are for.
    pub(crate) build_arch: Architecture,
    pub(crate) wheels: WheelStore,
    /// The sources and includes of every artifact of the plan.
    pub(crate) parts: Vec<Vec<Part>>,
    /// For each set, what is locked of it.
    pub(crate) locks: Vec<SetLock>,
    /// The dependency parts of artifacts.
    pub(crate) dependencies: Parts,
    /// What the build before this one has found out.
    pub(crate) known: Known,
    /// What must be in no file of the user's own.
    pub(crate) secrets: check::Known,
    /// The files of the user's own that are in zips: copied from the zips before, and compressed.
    pub(crate) own_files: Count,
}

/// What came of a build.
#[derive(Debug)]
pub struct Outcome {
    /// What was built.
    pub report: Report,
    /// What it followed from.
    pub basis: Basis,
    /// The page about it, if there is to be one.
    pub page: Option<Page>,
}

/// An image that [`pull`] brought.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Registry and repository, without tag and digest.
    pub name: String,
    /// The digest that stands for the image on every platform: its index's, or else its manifest's.
    pub digest: String,
    /// How many layers it has.
    pub layers: usize,
}

/// An image to bring into the store: which one, and by what means.
#[derive(Clone, Copy)]
pub struct PullRequest<'a> {
    /// The image, with its registry.
    pub reference: &'a str,
    /// The CPU that it is to be for.
    pub arch: Architecture,
    /// Take it from the store, and ask no registry.
    pub offline: bool,
    /// Where the store is, and how registries are reached.
    pub host: &'a Host,
    /// Stops it.
    pub cancel: &'a Cancel,
    /// Sees what happens.
    pub observer: &'a Observer,
}

/// Brings an image into the store.
pub async fn pull(request: &PullRequest<'_>) -> Result<Pulled, Error> {
    let store = Store::open(&request.host.cache_dir).map_err(Error::store)?;
    let _hold = cache::hold(&request.host.cache_dir);
    let image = request.pull_into(&store).await?;
    let digest = image.index_digest.as_ref().unwrap_or(&image.manifest_digest);
    let name = format!("{}/{}", image.reference.registry(), image.reference.repository());
    Ok(Pulled { name, digest: digest.to_string(), layers: image.layers.len() })
}

impl PullRequest<'_> {
    pub(crate) async fn pull_into(&self, store: &Store) -> Result<lbx_image::Image, Error> {
        let failed = |source| Error::image(self.reference, source);
        let parsed = Reference::parse(self.reference).map_err(failed)?;
        let options = PullOptions {
            offline: self.offline,
            extra_ca_pem: ca_pem(self.host)?,
            proxy: self.host.proxy.clone(),
            ..PullOptions::new(lbx_image::Platform::linux(self.arch.oci()))
        };
        let tell = |event| (self.observer)(Event::Image(event));
        let image = tokio::select! {
            pulled = lbx_image::pull(store, &parsed, &options, &tell) => pulled.map_err(failed),
            () = self.cancel.cancelled() => Err(Error::Interrupted),
        }?;
        cache::note_image(store.root(), &image);
        Ok(image)
    }
}

/// The bytes of the host's CA bundle, for registries behind a private authority.
pub(crate) fn ca_pem(host: &Host) -> Result<Vec<Vec<u8>>, Error> {
    host.ca_bundle.iter().map(|path| Ok(fs_err::read(path)?)).collect()
}

/// Builds every artifact of `plan`, and publishes all of them or none.
pub async fn build(
    project: Project,
    plan: Plan,
    host: Host,
    options: Options,
    cancel: &Cancel,
    observer: &Observer,
) -> Result<Outcome, Error> {
    let mut laps = Laps::begin();
    let (from, cache_dir) = (options.from.clone(), host.cache_dir.clone());
    let begun = Begun::new(&project, &plan, &host, &options);
    let workshop = prepare(project, plan, host, options, cancel, observer)?;
    if let Some(from) = from {
        let inner = Arc::clone(&workshop);
        let work = tokio::task::spawn_blocking(move || {
            let context = inner.context();
            vendor::take(&from, &context.ground.store, &context.wheels, &context.ground.cancel)
        });
        work.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    }
    laps.end(|seconds| &mut seconds.prepare);
    if !workshop.context().is_locked() {
        workshop.open().await?;
        laps.end(|seconds| &mut seconds.image);
    }
    // Everything from here on blocks: processes, files, hashing. It has threads of its own.
    let work = tokio::task::spawn_blocking(move || build_in(&workshop, begun, laps));
    let built = work.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    built.map_err(|error| error.in_closed_store(&cache_dir))
}

/// Gets ready. What is wrong with the user's own files is said here, before anything is fetched for it.
pub(crate) fn prepare(
    project: Project,
    plan: Plan,
    host: Host,
    options: Options,
    cancel: &Cancel,
    observer: &Observer,
) -> Result<Arc<Workshop>, Error> {
    let brought = options.from.iter().chain(&options.aside).chain(&options.tree).cloned();
    let parts = archive::collect_parts(&project, &plan, &options.destination, brought)?;
    options.tree.iter().try_for_each(|tree| Tree::check(&host.cache_dir, tree))?;
    let places = Places::of(&project, &plan, &host, options.offline)?;
    let locks = locked::read(&project, &plan, options.locked)?;
    let is_locked = locks.iter().all(|lock| lock.locked.is_some());
    observer(planned(&plan, is_locked));
    // What can be chosen for another CPU is chosen in an image for this one.
    let build_arch = Architecture::parse(std::env::consts::ARCH).unwrap_or(plan.arch);
    let choice = ImageChoice { arch: build_arch, ..plan.image_choice() };
    let ground = Ground::open(choice, host, options.limits, cancel, observer)?;
    // Said of the whole store, and not of the first part of it that is written to. Where all is locked, the store may have
    // all that is needed, and need not be written to.
    match ground.store.scratch() {
        Err(lbx_image::Error::Unwritable { .. }) if is_locked => {}
        scratch => drop(scratch.map_err(Error::store)?),
    }
    let cache_dir = &ground.host.cache_dir;
    let wheels = WheelStore::open(&cache_dir.join("wheels"))
        .map_err(|source| Error::WheelStore(Box::new(source)).in_store(cache_dir, "wheels"))?;
    let known = Known::load(cache_dir, &project, &options.destination);
    let secrets = check::Known::of(&ground.host, places.iter().flat_map(Places::passwords));
    let context = Context {
        project,
        plan,
        options,
        ground: Arc::new(ground),
        build_arch,
        wheels,
        parts,
        locks,
        dependencies: Parts::default(),
        known,
        secrets,
        own_files: Count::default(),
    };
    Ok(Workshop::new(Arc::new(context), places, Handle::current()))
}

impl Context {
    /// Whether all that it installs is locked, if it installs anything, so that there may be nothing to do for an image.
    fn is_locked(&self) -> bool {
        self.locks.iter().all(|lock| lock.locked.is_some())
    }
}

fn planned(plan: &Plan, is_locked: bool) -> Event {
    Event::Planned {
        sets: (0..plan.sets.len()).map(|set| users(plan, set)).collect(),
        artifacts: plan.artifacts.iter().map(|artifact| artifact.name.clone()).collect(),
        arch: (plan.arch.machine() != std::env::consts::ARCH).then(|| plan.arch.lambda()),
        image: (!is_locked).then(|| plan.image.clone()),
    }
}

/// The artifacts that use a dependency set, in a few words.
fn users(plan: &Plan, set: usize) -> String {
    const NAMED: usize = 2;
    let users = plan.artifacts.iter().filter(|artifact| artifact.set == Some(set));
    let names: Vec<&str> = users.map(|artifact| artifact.name.as_str()).collect();
    match names.len().checked_sub(NAMED + 1) {
        None => names.join(", "),
        Some(more) => format!("{} and {} more", names[..NAMED].join(", "), more + 1),
    }
}

/// What begins before anything is known: the zips, where they will probably begin as the last ones did.
#[derive(Default)]
struct Begun {
    /// For each artifact. Dropped before the folder that the copies are in.
    ahead: Vec<Mutex<Option<Ahead>>>,
    staging: Option<publish::Staging>,
}

impl Begun {
    /// Begins to copy, where a core is free for each zip. What goes wrong will go wrong again, and be said then.
    fn new(project: &Project, plan: &Plan, host: &Host, options: &Options) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let known = Known::load(&host.cache_dir, project, &options.destination);
        let key = |artifact: &Artifact| known.artifacts.get(&artifact.name)?.part.clone();
        let keys: Vec<_> = plan.artifacts.iter().map(key).collect();
        if plan.artifacts.len() >= cores || keys.iter().all(Option::is_none) {
            return Self::default();
        }
        let Ok(staging) = publish::Staging::new(options.destination.folder()) else { return Self::default() };
        let start =
            |key: &Option<String>| Mutex::new(Ahead::start(&host.cache_dir, &staging, key.as_deref()));
        Self { ahead: keys.iter().map(start).collect(), staging: Some(staging) }
    }

    /// The copy that was begun for an artifact.
    fn take(&self, index: usize) -> Option<Ahead> {
        self.ahead.get(index)?.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn build_in(workshop: &Arc<Workshop>, mut begun: Begun, mut laps: Laps) -> Result<Outcome, Error> {
    let context = workshop.context();
    let sets = parallel(context, &context.plan.sets, |index, set| match &context.locks[index].locked {
        Some(locked) => locked::run(workshop, index, locked),
        None => resolve_unlocked(workshop, index, set),
    })?;
    laps.end(|seconds| &mut seconds.resolve);
    let staging = begun.staging.take();
    let staging = staging.map_or_else(|| publish::Staging::new(context.options.destination.folder()), Ok)?;
    let built = parallel(context, &context.plan.artifacts, |index, artifact| {
        build_artifact(workshop, &sets, (&staging, begun.take(index)), index, artifact)
    })?;
    context.ground.cancel.check()?;
    laps.end(|seconds| &mut seconds.package);
    let (built, refused) = check_all(workshop, &staging, built)?;
    laps.end(|seconds| &mut seconds.check);
    let page = context.options.page;
    let page = page.then(|| Page::new(&built, context.plan.arch.lambda(), &context.options.destination));
    if context.options.check && !refused.is_empty() {
        return Err(Error::Checks { artifacts: refused, page: page.map(Box::new) });
    }
    let (artifacts, found): (Vec<_>, Vec<_>) =
        built.into_iter().map(|built| (built.report.clone(), (built.report.name, built.after))).unzip();
    let report = Report::new(context, workshop.opened(), &sets, artifacts, &laps);
    let tree = context.options.tree.as_ref().zip(context.plan.artifacts.first());
    let tree =
        tree.map(|(place, artifact)| Tree::make(context, &staging, &artifact.name, place)).transpose()?;
    let Published { stamps: published, replaced } = staging.publish(&context.options.destination, &report)?;
    // Large ones take their time to go.
    let removing = std::thread::spawn(move || drop(replaced));
    note_used(context, &sets, &found);
    tree.map(Tree::publish).transpose()?;
    Known::load(&context.ground.host.cache_dir, &context.project, &context.options.destination)
        .keep(context, found, &published);
    for (index, artifact) in report.stable.artifacts.iter().enumerate() {
        let path = context.options.destination.zip(&artifact.name);
        context.ground.tell(Event::ArtifactFinished {
            artifact: index,
            path,
            size: artifact.size,
            files: artifact.files,
        });
    }
    let basis = Basis::of(context, &sets, &report, published);
    let _ = removing.join();
    Ok(Outcome { report, basis, page })
}

/// Notes what of the store has been used.
fn note_used(context: &Context, sets: &[ResolvedSet], found: &[(String, Before)]) {
    let wheels = sets.iter().flat_map(|set| &set.wheels).map(|wheel| format!("wheel-{}", wheel.digest));
    let parts = found.iter().filter_map(|(_, before)| Some(format!("part-{}", before.part.as_ref()?)));
    let names: BTreeSet<String> = wheels.chain(parts).collect();
    for name in names {
        cache::note(&context.ground.host.cache_dir, &name);
    }
}

/// Looks at all artifacts, and says what is wrong with them. Also returns the names of those that will not work.
fn check_all(
    workshop: &Workshop,
    staging: &publish::Staging,
    mut built: Vec<archive::Built>,
) -> Result<(Vec<archive::Built>, Vec<String>), Error> {
    let context = workshop.context();
    let plan = &context.plan;
    let imports = Imports::of(workshop, staging)?;
    let subjects: Vec<check::Subject<'_>> = built.iter().map(archive::Built::subject).collect();
    let findings = parallel(context, &plan.artifacts, |index, artifact| {
        let layers = beside(plan, artifact).map(|name| subjects.iter().find(|subject| subject.name == name));
        let layers: Option<Vec<&check::Subject<'_>>> = layers.collect();
        let mut findings = advice::look_at(workshop, (artifact, &subjects[index]), layers.as_deref())?;
        findings.extend(check::of_the_sdk(built[index].report.runtime_provided.as_ref()));
        if let Some(imports) = &imports {
            findings.extend(imports.of_artifact(artifact)?);
        }
        Ok(findings)
    })?;
    drop(subjects);
    let mut refused = Vec::new();
    for (index, (built, findings)) in built.iter_mut().zip(findings).enumerate() {
        for finding in &findings {
            context.ground.tell(Event::Found { artifact: index, finding: finding.clone() });
        }
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            refused.push(built.report.name.clone());
        }
        built.report.findings = findings;
    }
    Ok((built, refused))
}

/// The layers that an artifact runs with: a function's own, and of a layer, all that functions have beside it.
fn beside<'p>(plan: &'p Plan, artifact: &'p Artifact) -> impl Iterator<Item = &'p str> {
    let has = |function: &&Artifact| artifact.kind == Kind::Layer && function.layers.contains(&artifact.name);
    let users = plan.artifacts.iter().filter(has).flat_map(|function| &function.layers);
    let others: BTreeSet<&str> = users.map(String::as_str).filter(|name| *name != artifact.name).collect();
    artifact.layers.iter().map(String::as_str).chain(others)
}

fn resolve_unlocked(workshop: &Workshop, index: usize, set: &DependencySet) -> Result<ResolvedSet, Error> {
    let context = workshop.context();
    let SetLock { path, unused, .. } = &context.locks[index];
    context.ground.tell(Event::Unlocked { set: index, lock: path.clone(), why: unused.clone() });
    resolve::run(&workshop.builder()?, index, set)
}

fn build_artifact(
    workshop: &Workshop,
    sets: &[ResolvedSet],
    (staging, ahead): (&publish::Staging, Option<Ahead>),
    index: usize,
    artifact: &Artifact,
) -> Result<archive::Built, Error> {
    workshop.context().ground.tell(Event::ArtifactStarted { artifact: index });
    let set = artifact.set.and_then(|set| sets.get(set));
    archive::build(workshop, index, artifact, set, (staging, ahead))
}

/// Does `work` on every item, as many at once as there are cores, and returns the results in order. The
/// first error stops what has not begun; it is the error of the first item in order that failed.
pub(crate) fn parallel<T: Sync, R: Send>(
    context: &Context,
    items: &[T],
    work: impl Fn(usize, &T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let queue: Mutex<VecDeque<(usize, &T)>> = Mutex::new(items.iter().enumerate().collect());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let stop = || queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let done: Mutex<Vec<(usize, Result<R, Error>)>> = Mutex::new(Vec::new());
    let worker = || {
        while let Some((index, item)) = next() {
            let result = context.ground.cancel.check().and_then(|()| work(index, item));
            if result.is_err() {
                stop();
            }
            done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        }
    };
    std::thread::scope(|scope| {
        // This thread is one of the workers.
        for _ in 1..cores.min(items.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}
