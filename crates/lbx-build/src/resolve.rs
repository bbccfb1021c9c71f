//! From requirement files to verified wheels: the image's own pip, in the sandbox, once per set.
//!
//! pip is asked for what pip alone can do, which is to resolve and to build source distributions. What
//! it leaves in its output folder is a stranger's work: it is collected after the sandbox is dead, and
//! each wheel is verified before it is used.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lbx_index::Taken;
use lbx_plan::DependencySet;
use lbx_sandbox::{Access, Bind, File, Network, Spec};
use lbx_wheel::{Target, Wheel, WheelError};

use crate::base::{self, Base, Ended, Output};
use crate::engine::Context;
use crate::error::Error;
use crate::event::Event;
use crate::index::{Indexes, Serving};
use crate::source;

/// Where the project's files are in the sandbox.
const PROJECT: &str = "/lbx/project";
/// Where pip puts wheels.
const OUT: &str = "/lbx/out";
/// Where Python finds the module that caps manylinux.
const PYTHON_PATH: &str = "/lbx/python";

/// Runs pip without the working directory on its path: a `logging.py` of the project must not become
/// pip's. `-I` and `-P` will not do: the first hides `PYTHONPATH`, the second is too young.
const RUN_PIP: &str = "import runpy, sys
sys.path.remove('')
runpy.run_module('pip', run_name='__main__', alter_sys=True)";

/// 1980-01-01, the earliest time that a zip can carry: what wheels are built with, whatever the host says.
const BUILD_EPOCH: &str = "315532800";

/// The wheels of a dependency set.
#[derive(Debug)]
pub(crate) struct ResolvedSet {
    /// Sorted by normalised name.
    pub(crate) wheels: Vec<Arc<Wheel>>,
    /// What came from indexes for it.
    pub(crate) taken: Taken,
}

impl ResolvedSet {
    /// What was asked for and not given, each once.
    pub(crate) fn refused(&self) -> Vec<String> {
        refused(&self.taken)
    }
}

fn refused(taken: &Taken) -> Vec<String> {
    let all: BTreeSet<String> = taken.refused.iter().map(ToString::to_string).collect();
    all.into_iter().collect()
}

/// Resolves a set.
pub(crate) fn run(
    context: &Context,
    base: &Base,
    indexes: &Indexes,
    index: usize,
    set: &DependencySet,
) -> Result<ResolvedSet, Error> {
    context.site.tell(Event::ResolveStarted { set: index });
    // Everything that this stage writes, it writes into the store.
    let resolved = resolve(context, base, &indexes.serve(index)?, index, set).map_err(|error| {
        error.in_store(context.site.store.root(), &format!("pip's work on {}", names(set)))
    })?;
    context.site.tell(Event::ResolveFinished { set: index, wheels: resolved.wheels.len() });
    Ok(resolved)
}

fn resolve(
    context: &Context,
    base: &Base,
    serving: &Serving<'_>,
    index: usize,
    set: &DependencySet,
) -> Result<ResolvedSet, Error> {
    let scratch = context.site.store.scratch().map_err(|source| image_error(context, source))?;
    // Goes with the scratch folder, whatever build code has filled it with.
    let work = scratch.path("pip");
    let out = folder(&work, "out")?;
    let spec = spec(context, base, serving, set, &work, &out)?;
    let mut output = base::run(&context.site, &spec, Some(serving), &|line| {
        context.site.tell(Event::ResolveLine { set: index, line: serving.for_people(line) });
    })?;
    output.text = serving.for_people(&output.text);
    let taken = serving.taken();
    for what in refused(&taken) {
        context.site.tell(Event::ResolveRefused { set: index, what });
    }
    if !output.ended.success() {
        if let Some(source) = cause(&taken, &output) {
            return Err(Error::Fetch { requirements: names(set), output: output.text, source });
        }
        let limits = &context.site.limits;
        // Where nothing is mounted, temporary files are on the disk of the store too.
        let room =
            context.site.isolation.backend.mounts_memory().then(|| lbx_sandbox::room_in(&out)).flatten();
        let met = output.ended.hint(&output.text, limits, room);
        let how = base::how(&output.ended);
        return Err(Error::pip(
            names(set),
            context.site.store.root(),
            how,
            output.text,
            met,
            limits.resources.tmp,
        ));
    }
    Ok(ResolvedSet { wheels: collect(context, &out)?, taken })
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

fn image_error(context: &Context, source: lbx_image::Error) -> Error {
    Error::image(&context.plan.image, source)
}

/// A folder below the one of this run.
fn folder(work: &Path, name: &str) -> Result<PathBuf, Error> {
    let path = work.join(name);
    fs_err::create_dir_all(&path)?;
    Ok(path)
}

fn spec(
    context: &Context,
    base: &Base,
    serving: &Serving<'_>,
    set: &DependencySet,
    work: &Path,
    out: &Path,
) -> Result<Spec, Error> {
    let mut spec = Spec::new(base.root.clone(), command(base, serving, set));
    let kept_to_one = context.site.isolation.claims.network_served;
    spec.network = if kept_to_one { Network::Served(serving.port()) } else { Network::Host };
    PROJECT.clone_into(&mut spec.cwd);
    spec.env = environment(base, serving);
    spec.binds.push(Bind { source: out.to_owned(), target: OUT.to_owned(), access: Access::ReadWrite });
    for path in &set.paths {
        spec.binds.push(local_path(context, work, path)?);
    }
    let (major, minor) = context.plan.runtime.glibc_version();
    spec.files.push(file(format!("{PYTHON_PATH}/_manylinux.py"), manylinux_cap(major, minor).into_bytes()));
    for path in set.files.iter().filter(|path| !is_below_any(path, &set.paths)) {
        let text = context.project.files.for_pip(path, &|url| serving.direct_url(url));
        spec.files.push(file(format!("{PROJECT}/{path}"), for_pip(&text)));
    }
    Ok(spec)
}

/// The text of a requirement file as bytes that pip reads as this text, whatever its locale is, and whatever encoding
/// a comment names that the file had.
fn for_pip(text: &str) -> Vec<u8> {
    let mark = if text.is_ascii() { "" } else { "\u{feff}" };
    [mark, text].concat().into_bytes()
}

fn file(target: String, contents: Vec<u8>) -> File {
    File { target, contents, executable: false }
}

fn is_below_any(path: &str, folders: &[String]) -> bool {
    folders
        .iter()
        .any(|folder| folder == "." || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
}

fn command(base: &Base, serving: &Serving<'_>, set: &DependencySet) -> Vec<String> {
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
        // The server waits for indexes, and knows how long.
        "--timeout",
        "3600",
        "--index-url",
        &index,
        "--wheel-dir",
        OUT,
    ];
    let files =
        set.requirements.iter().flat_map(|path| ["--requirement".to_owned(), format!("{PROJECT}/{path}")]);
    fixed.into_iter().map(str::to_owned).chain(files).collect()
}

fn environment(base: &Base, serving: &Serving<'_>) -> Vec<(String, String)> {
    let mut environment = base::environment(&base.image);
    let mut set = |name: &str, value: &str| environment.push((name.to_owned(), value.to_owned()));
    set("PIP_CONFIG_FILE", "/dev/null");
    set("PIP_ROOT_USER_ACTION", "ignore");
    set("PYTHONPATH", PYTHON_PATH);
    set("PYTHONUNBUFFERED", "1");
    set("SOURCE_DATE_EPOCH", BUILD_EPOCH);
    // Whoever wants to reach anything else says so to the server, which refuses and remembers.
    let proxy = serving.proxy_url();
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        set(name, &proxy);
    }
    set("no_proxy", "127.0.0.1");
    set("NO_PROXY", "127.0.0.1");
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

/// A local project or archive, visible at its place. Folders are copied, because backends write beside
/// the sources that they build; the user's own stay as they are.
fn local_path(context: &Context, work: &Path, path: &str) -> Result<Bind, Error> {
    let real = context.project.inside(path)?;
    let target = if path == "." { PROJECT.to_owned() } else { format!("{PROJECT}/{path}") };
    if real.is_file() {
        return Ok(Bind { source: real, target, access: Access::ReadOnly });
    }
    let copy = folder(work, "local")?.join(path.replace('/', "%"));
    let exclude = [context.options.destination.folder().to_owned()];
    for one in source::walk(&real, path, &exclude)?.files {
        let to = copy.join(&one.path);
        fs_err::create_dir_all(to.parent().unwrap_or(&copy))?;
        fs_err::copy(&one.location, &to)?;
    }
    fs_err::create_dir_all(&copy)?;
    Ok(Bind { source: copy, target, access: Access::ReadWrite })
}

/// Takes the wheels that pip left. The sandbox is dead: nothing changes them any more.
fn collect(context: &Context, out: &Path) -> Result<Vec<Arc<Wheel>>, Error> {
    let is_wheel = |name: &str| Path::new(name).extension().is_some_and(|extension| extension == "whl");
    let outputs = lbx_sandbox::outputs(out, is_wheel)?;
    let mut wheels =
        outputs.into_iter().map(|output| add(context, out, output)).collect::<Result<Vec<_>, _>>()?;
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

fn add(context: &Context, out: &Path, output: lbx_sandbox::Output) -> Result<Arc<Wheel>, Error> {
    let lbx_sandbox::Output { name, file } = output;
    context.site.cancel.check()?;
    let go_on = || !context.site.cancel.is_cancelled();
    let added = context.wheels.add_open(&out.join(&name), file, &go_on);
    let wheel = added.map_err(|source| match source {
        WheelError::Interrupted => Error::Interrupted,
        source => {
            Error::wheel(&name, source).in_store(context.site.store.root(), &format!("the wheel `{name}`"))
        }
    })?;
    wheel.allowed_on(&target(context)).map_err(|source| Error::WheelPlatform {
        name,
        runtime: context.plan.runtime.runtime.clone(),
        arch: context.plan.arch.lambda().to_owned(),
        source: Box::new(source),
    })?;
    Ok(wheel)
}

fn target(context: &Context) -> Target {
    // Catalogue versions are small; one that is not would fit nothing.
    let small = |number: u32| u16::try_from(number).unwrap_or(0);
    let (major, minor) = context.plan.runtime.glibc_version();
    Target {
        python_minor: u8::try_from(context.plan.runtime.python_version().1).unwrap_or(0),
        glibc: (small(major), small(minor)),
        arch: context.plan.arch.machine().to_owned(),
    }
}
