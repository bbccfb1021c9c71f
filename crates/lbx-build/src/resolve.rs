//! From requirement files to verified wheels: the image's own pip, in the sandbox, once per set.
//!
//! pip is asked for what pip alone can do, which is to resolve. What has to be built, the builder builds; what is in the
//! project, beside it or in a repository, before pip runs, and what pip finds in an index while it waits for it. What pip
//! leaves in its output folder is a stranger's work: it is collected after the sandbox is dead, and each wheel is verified
//! before it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lbx_index::Taken;
use lbx_plan::{Architecture, DependencySet, Elsewhere, Runtime};
use lbx_sandbox::{Access, Bind, File, Spec};
use lbx_wheel::{Target, Wheel, WheelError};

use crate::base::{self, Base, Ended, Output};
use crate::builder::{Builder, Built, Errand, local};
use crate::engine::Context;
use crate::error::Error;
use crate::event::Event;
use crate::index::Serving;
use crate::report::{self, TakenReport};

/// Where the project's files are in the sandbox.
const PROJECT: &str = "/lbx/project";
/// Where pip, and what builds, puts wheels.
pub(crate) const OUT: &str = "/lbx/out";
/// Where wheels are that were built before.
const BUILT: &str = "/lbx/built";
/// What keeps versions where they were.
const KEPT: &str = "/lbx/kept.txt";
/// Where Python finds the module that caps manylinux.
const PYTHON_PATH: &str = "/lbx/python";

/// Runs pip without the working directory on its path: a `logging.py` of the project must not become
/// pip's. `-I` and `-P` will not do: the first hides `PYTHONPATH`, the second is too young. Where the host's files can be
/// seen by their names alone, opening the list of types fails in a way that pip does not expect.
const RUN_PIP: &str = "import mimetypes, runpy, sys
sys.path.remove('')
mimetypes.knownfiles = []
runpy.run_module('pip', run_name='__main__', alter_sys=True)";

/// 1980-01-01, the earliest time that a zip can carry: what wheels are built with, whatever the host says.
const BUILD_EPOCH: &str = "315532800";

/// The wheels of a dependency set.
#[derive(Debug)]
pub(crate) struct ResolvedSet {
    /// Sorted by normalised name.
    pub(crate) wheels: Vec<Arc<Wheel>>,
    /// What came from indexes for it, by name.
    pub(crate) taken: Vec<TakenReport>,
    /// What was built for it.
    pub(crate) built: Vec<Built>,
    /// What was asked for in vain.
    pub(crate) refused: BTreeSet<String>,
    /// The lock that says all this, if one does.
    pub(crate) lock: Option<String>,
}

/// Resolves a set.
pub(crate) fn run(builder: &Arc<Builder>, index: usize, set: &DependencySet) -> Result<ResolvedSet, Error> {
    run_with(builder, index, set, &[])
}

/// Resolves a set, and keeps these constraints.
pub(crate) fn run_with(
    builder: &Arc<Builder>,
    index: usize,
    set: &DependencySet,
    constraints: &[String],
) -> Result<ResolvedSet, Error> {
    let context = builder.context();
    context.ground.tell(Event::ResolveStarted { set: index, lock: None });
    // Everything that this stage writes, it writes into the store.
    let resolved = resolve(builder, index, set, constraints).map_err(|error| {
        error.in_store(context.ground.store.root(), &format!("pip's work on {}", names(set)))
    })?;
    let wheels = resolved.wheels.len();
    context.ground.tell(Event::ResolveFinished { set: index, wheels, lock: None });
    Ok(resolved)
}

fn resolve(
    builder: &Arc<Builder>,
    index: usize,
    set: &DependencySet,
    constraints: &[String],
) -> Result<ResolvedSet, Error> {
    let context = builder.context();
    let scratch = context.ground.store.scratch().map_err(|source| image_error(context, source))?;
    // Goes with the scratch folder, whatever build code has filled it with.
    let work = scratch.path("pip");
    let errand = Errand::new(index);
    let elsewhere = local::wheels(builder, &errand, set, &work)?;
    let exchange =
        if set.particular { None } else { Some(builder.exchange(&errand, &folder(&work, "exchanged")?)) };
    let serving = builder.indexes().serve(index, exchange)?;
    let mut pip = Pip::new(folder(&work, "out")?, names(set), context.plan.arch);
    for path in &set.files {
        let place = |place: Elsewhere<'_>| match place {
            Elsewhere::Url(url) => serving.direct_url(url),
            place => elsewhere.get(&local::key(place)).map(|(inside, _)| inside.clone()),
        };
        pip.files
            .push(file(format!("{PROJECT}/{path}"), for_pip(&context.project.files.for_pip(path, &place))));
    }
    for (inside, path) in elsewhere.values() {
        pip.binds.push(Bind { source: path.clone(), target: inside.clone(), access: Access::ReadOnly });
    }
    pip.requirements = set.requirements.iter().map(|path| format!("{PROJECT}/{path}")).collect();
    if !constraints.is_empty() {
        pip.files.push(file(KEPT.to_owned(), for_pip(&(constraints.join("\n") + "\n"))));
        pip.constraints = Some(KEPT.to_owned());
    }
    let wheels = pip.run(builder, &errand, &serving)?;
    let taken = serving.taken();
    let mut outcome = errand.outcome();
    let mut refused = refused(&taken);
    refused.append(&mut outcome.refused);
    for built in &outcome.built {
        refused.extend(built.refused.iter().cloned());
    }
    let taken = report::taken(&taken, &wheels);
    Ok(ResolvedSet { wheels, taken, built: std::mem::take(&mut outcome.built), refused, lock: None })
}

/// The wheels that a build needs, which runs on this CPU.
pub(crate) fn requires(
    builder: &Arc<Builder>,
    errand: &Errand,
    name: &str,
    asked: &BTreeSet<String>,
    arch: Architecture,
) -> Result<Vec<Arc<Wheel>>, Error> {
    let context = builder.context();
    let scratch = context.ground.store.scratch().map_err(|source| image_error(context, source))?;
    let work = scratch.path("pip");
    let exchange = builder.exchange(errand, &folder(&work, "exchanged")?);
    let serving = builder.indexes().serve(errand.set, Some(exchange))?;
    let mut pip = Pip::new(folder(&work, "out")?, format!("the build of {name}"), arch);
    let text: String = asked.iter().flat_map(|one| [one.as_str(), "\n"]).collect();
    let requirements = format!("{PROJECT}/requires.txt");
    pip.files.push(file(requirements.clone(), for_pip(&text)));
    pip.requirements.push(requirements);
    pip.run(builder, errand, &serving)
}

/// The wheels that were built before for a set, by what they were built from: where they are inside and outside.
pub(crate) type Elsewheres = BTreeMap<String, (String, PathBuf)>;

/// Where a wheel that was built is shown to pip.
pub(crate) fn built_place(number: usize, name: &str) -> String {
    format!("{BUILT}/{number}/{name}")
}

/// What pip said and did not, turned into wheels or an error.
struct Pip {
    files: Vec<File>,
    binds: Vec<Bind>,
    /// The requirement files that it is given, inside.
    requirements: Vec<String>,
    constraints: Option<String>,
    out: PathBuf,
    /// What it is for, for people.
    what: String,
    /// The CPU that wheels are for.
    arch: Architecture,
}

impl Pip {
    fn new(out: PathBuf, what: String, arch: Architecture) -> Self {
        let (files, binds, requirements) = (Vec::new(), Vec::new(), Vec::new());
        Self { files, binds, requirements, constraints: None, out, what, arch }
    }

    fn run(
        self,
        builder: &Builder,
        errand: &Errand,
        serving: &Serving<'_>,
    ) -> Result<Vec<Arc<Wheel>>, Error> {
        let context = builder.context();
        let spec = self.spec(builder, serving);
        let mut output = base::run(builder.site(), &spec, Some(serving), &|line| {
            context.ground.tell(Event::ResolveLine { set: errand.set, line: serving.for_people(line) });
        })?;
        output.text = serving.for_people(&output.text);
        let taken = serving.taken();
        for what in refused(&taken) {
            context.ground.tell(Event::ResolveRefused { set: errand.set, what });
        }
        // pip was told of it in words, and has gone on as if it were the index's fault.
        if let Some(error) = errand.outcome().error.take() {
            return Err(error);
        }
        errand.outcome().take_foreign(context.plan.arch)?;
        if output.ended.success() {
            collect(context, self.arch, &self.out)
        } else {
            Err(self.failed(builder, &taken, output))
        }
    }

    fn failed(self, builder: &Builder, taken: &Taken, output: Output) -> Error {
        let context = builder.context();
        if let Some(source) = cause(taken, &output) {
            return Error::Fetch { requirements: self.what, output: output.text, source };
        }
        let limits = &context.ground.limits;
        // Where nothing is mounted, temporary files are on the disk of the store too.
        let room = builder.site().isolation.backend.mounts_memory().then(|| lbx_sandbox::room_in(&self.out));
        let met = output.ended.hint(&output.text, limits, room.flatten());
        let how = base::how(&output.ended);
        Error::pip(self.what, context.ground.store.root(), how, output.text, met, limits.resources.tmp)
    }

    fn spec(&self, builder: &Builder, serving: &Serving<'_>) -> Spec {
        let (context, base) = (builder.context(), builder.base());
        let mut spec = Spec::new(base.root.clone(), self.command(base, serving));
        spec.network = serving.network(builder.site());
        PROJECT.clone_into(&mut spec.cwd);
        spec.env = build_environment(base);
        spec.env.push(("PYTHONPATH".to_owned(), PYTHON_PATH.to_owned()));
        spec.env.extend(serving.proxy_environment());
        let out = Bind { source: self.out.clone(), target: OUT.to_owned(), access: Access::ReadWrite };
        spec.binds.push(out);
        spec.binds.extend(self.binds.iter().cloned());
        let (major, minor) = context.plan.runtime.glibc_version();
        let cap = manylinux_cap(major, minor).into_bytes();
        spec.files.push(file(format!("{PYTHON_PATH}/_manylinux.py"), cap));
        if self.arch != context.build_arch {
            let machine = other_machine(self.arch.machine()).into_bytes();
            spec.files.push(file(format!("{PYTHON_PATH}/sitecustomize.py"), machine));
        }
        spec.files.extend(self.files.iter().cloned());
        spec
    }

    fn command(&self, base: &Base, serving: &Serving<'_>) -> Vec<String> {
        let index = serving.index_url();
        let fixed = [
            base.interpreter.as_str(),
            "-c",
            RUN_PIP,
            "wheel",
            "--no-input",
            "--no-cache-dir",
            "--disable-pip-version-check",
            "--progress-bar",
            "off",
            "--prefer-binary",
            // Old pips build old projects in another way, which needs a package that the image may not have.
            "--use-pep517",
            // The server waits for indexes and for builds, and knows how long.
            "--timeout",
            "1000000",
            "--index-url",
            &index,
            "--wheel-dir",
            OUT,
        ];
        let files = self.requirements.iter().flat_map(|path| ["--requirement".to_owned(), path.clone()]);
        let constraints = self.constraints.iter().flat_map(|path| ["--constraint".to_owned(), path.clone()]);
        fixed.into_iter().map(str::to_owned).chain(files).chain(constraints).collect()
    }
}

fn refused(taken: &Taken) -> BTreeSet<String> {
    taken.refused.iter().map(ToString::to_string).collect()
}

/// What an index did that made pip fail. pip goes on without it, and ends with words about something else.
fn cause(taken: &Taken, output: &Output) -> Option<Arc<lbx_index::Error>> {
    if matches!(output.ended, Ended::Stopped(_)) {
        return None;
    }
    let last = taken.failures.iter().rev();
    last.map(|failed| &failed.error)
        .find(|error| !matches!(***error, lbx_index::Error::NotFound { .. }))
        .cloned()
}

/// The requirement files of a set, for people.
fn names(set: &DependencySet) -> String {
    set.requirements.join(" and ")
}

pub(crate) fn image_error(context: &Context, source: lbx_image::Error) -> Error {
    Error::image(&context.plan.image, source)
}

/// A folder below the one of this run.
pub(crate) fn folder(work: &Path, name: &str) -> Result<PathBuf, Error> {
    let path = work.join(name);
    fs_err::create_dir_all(&path)?;
    Ok(path)
}

/// The text of a requirement file as bytes that pip reads as this text, whatever its locale is, and whatever encoding
/// a comment names that the file had.
fn for_pip(text: &str) -> Vec<u8> {
    let mark = if text.is_ascii() { "" } else { "\u{feff}" };
    [mark, text].concat().into_bytes()
}

pub(crate) fn file(target: String, contents: Vec<u8>) -> File {
    File { target, contents, executable: false }
}

/// The variables of pip, and of all that builds.
pub(crate) fn build_environment(base: &Base) -> Vec<(String, String)> {
    let mut environment = base::environment(&base.image);
    let mut set = |name: &str, value: &str| environment.push((name.to_owned(), value.to_owned()));
    set("PIP_CONFIG_FILE", "/dev/null");
    set("PIP_ROOT_USER_ACTION", "ignore");
    set("PYTHONUNBUFFERED", "1");
    set("SOURCE_DATE_EPOCH", BUILD_EPOCH);
    environment
}

/// The module of PEP 600 that has the last word on manylinux wheels. The image's own C library may be
/// newer than the one that the function meets, and pip believes the image.
fn manylinux_cap(major: u32, minor: u32) -> String {
    format!(
        "\"\"\"Caps manylinux wheels at the C library of the Lambda runtime (PEP 600).\"\"\"\n\n\n\
         def manylinux_compatible(tag_major, tag_minor, tag_arch):\n    \
             return (tag_major, tag_minor) <= ({major}, {minor})\n"
    )
}

/// What makes pip see another CPU than the one that it runs on: its tags and markers come from these two.
fn other_machine(machine: &str) -> String {
    format!(
        "\"\"\"Lets pip choose for another CPU than the one that it runs on.\"\"\"\n\nimport platform\nimport sysconfig\n\n\
         platform.machine = lambda: \"{machine}\"\nsysconfig.get_platform = lambda: \"linux-{machine}\"\n"
    )
}

/// Takes the wheels that pip left. The sandbox is dead: nothing changes them any more.
pub(crate) fn collect(context: &Context, arch: Architecture, out: &Path) -> Result<Vec<Arc<Wheel>>, Error> {
    let is_wheel = |name: &str| Path::new(name).extension().is_some_and(|extension| extension == "whl");
    let outputs = lbx_sandbox::outputs(out, is_wheel)?;
    let mut wheels = outputs
        .into_iter()
        .map(|lbx_sandbox::Output { name, file }| add(context, arch, &name, &out.join(&name), file))
        .collect::<Result<Vec<_>, _>>()?;
    let name_of = |wheel: &Wheel| lbx_wheel::normalize_name(&wheel.metadata.name);
    wheels.sort_by_key(|wheel| name_of(wheel));
    // pip leaves one of each; a second one was put there by build code.
    for pair in wheels.windows(2) {
        if name_of(&pair[0]) == name_of(&pair[1]) {
            let (first, second) = (pair[0].filename.to_string(), pair[1].filename.to_string());
            return Err(Error::TwoWheels { first, second });
        }
    }
    Ok(wheels)
}

/// Takes a wheel into the store.
pub(crate) fn add(
    context: &Context,
    arch: Architecture,
    name: &str,
    path: &Path,
    file: std::fs::File,
) -> Result<Arc<Wheel>, Error> {
    context.ground.cancel.check()?;
    let go_on = || !context.ground.cancel.is_cancelled();
    let wheel = context.wheels.add_open(path, file, &go_on).map_err(|source| match source {
        WheelError::Interrupted => Error::Interrupted,
        source => {
            Error::wheel(name, source).in_store(context.ground.store.root(), &format!("the wheel `{name}`"))
        }
    })?;
    wheel.allowed_on(&target(context, arch)).map_err(|source| Error::WheelPlatform {
        name: name.to_owned(),
        runtime: context.plan.runtime.runtime.clone(),
        arch: arch.lambda().to_owned(),
        source: Box::new(source),
    })?;
    Ok(wheel)
}

/// What wheels must fit.
pub(crate) fn target(context: &Context, arch: Architecture) -> Target {
    target_of(&context.plan.runtime, arch)
}

/// What wheels must fit on a runtime.
pub(crate) fn target_of(runtime: &Runtime, arch: Architecture) -> Target {
    // Catalogue versions are small; one that is not would fit nothing.
    let small = |number: u32| u16::try_from(number).unwrap_or(0);
    let (major, minor) = runtime.glibc_version();
    Target {
        python_minor: u8::try_from(runtime.python_version().1).unwrap_or(0),
        glibc: (small(major), small(minor)),
        arch: arch.machine().to_owned(),
    }
}
