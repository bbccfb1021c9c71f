//! From sources to wheels: the backend that a source names (PEP 517), in a sandbox that reaches nothing.
//!
//! pip builds nothing here. What has to be built is built before, or while, pip resolves, each source in sandboxes of its
//! own: one finds out what the build needs, pip gets that as wheels, and one builds. There the network is a server that
//! gives nothing and writes down who wanted what. The wheel is kept by all that can change it.

pub(crate) mod cache;
mod git;
mod kitchen;
pub(crate) mod local;
mod stand_in;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lbx_index::{Exchange, Given};
use lbx_plan::Architecture;
use lbx_sandbox::{Access, Bind, Root, Spec, Tmpfs};
use lbx_wheel::Wheel;

pub(crate) use self::cache::{Again, Built, key as cache_key, take_kept};
use self::kitchen::{Kitchen, Kitchens, Place};

use crate::base::{self, Base};
use crate::engine::Context;
use crate::error::Error;
use crate::event::Event;
use crate::index::Indexes;
use crate::resolve::{self, collect};
use crate::site::Site;

/// Where the source is in the sandbox.
const SOURCE: &str = "/lbx/source";
/// Where wheels that the build needs are.
const REQUIRES: &str = "/lbx/requires";
/// Where the backend works.
const WORK: &str = "/lbx/work";
/// Where what the build starts finds its environment.
const SHIM_FOLDER: &str = "/lbx/shim";
/// What the build needs and has not got, in [`resolve::OUT`].
const NEEDS: &str = "needs.json";
/// The most bytes that it has.
const LARGEST_NEEDS: u64 = 1 << 20;
/// How often what a build needs is asked for: once for what its pyproject.toml says, and once for what its backend says.
const ROUNDS: usize = 4;
/// How deep a build may need what has to be built.
const DEPTH: usize = 10;

const SCRIPT: &str = include_str!("build.py");
const SHIM: &str = include_str!("sitecustomize.py");

/// Something to build.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// What people call it: a file's name, a path, an address.
    pub(crate) name: String,
    /// A source distribution, or a folder.
    pub(crate) path: PathBuf,
    /// The SHA-256 of the file, or of all that the folder holds.
    pub(crate) sha256: String,
    /// The folder in it that is the project; empty for the top.
    pub(crate) subdirectory: String,
    /// The version that its history says it has.
    pub(crate) version: Option<String>,
    /// What a lock says of it.
    pub(crate) made: Made,
}

/// What something was built from, for a lock.
#[derive(Clone, Debug)]
pub(crate) enum Made {
    /// A source distribution of an index, or one that was named by its address.
    Distribution {
        /// Its SHA-256.
        sha256: String,
    },
    /// What is in the project or beside it.
    Path {
        /// The path from the project.
        path: String,
        /// Of an archive.
        sha256: Option<String>,
    },
    /// A commit.
    Git {
        /// The repository's address, without a login.
        url: String,
        /// What was asked for.
        reference: Option<String>,
        /// What that is.
        commit: String,
        /// The folder in it; empty for the top.
        subdirectory: String,
    },
}

/// Builds what has to be built, each source once.
pub(crate) struct Builder {
    context: Arc<Context>,
    kitchens: Kitchens,
    indexes: Arc<Indexes>,
    /// By key. Whoever comes second waits for the first.
    done: Mutex<HashMap<String, Arc<Mutex<Option<Built>>>>>,
}

/// By what a wheel is kept. What its build needed, an index gave, and another project may have another index: without a
/// network, which is also after a way to another machine, what is there is all that there is.
struct Keys {
    /// Whatever the build needed.
    anywhere: String,
    /// For the same indexes.
    here: String,
}

/// Which builds are being done for which: a set of the plan, and the sources that need one another.
#[derive(Clone, Debug)]
pub(crate) struct Errand {
    /// Index of the set.
    pub(crate) set: usize,
    /// Names of the sources, the outermost first.
    chain: Vec<String>,
    /// What went wrong, and what was built, for whoever sent it.
    pub(crate) outcome: Arc<Mutex<Outcome>>,
}

/// What came of an errand.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The first failure. pip is told in words alone.
    pub(crate) error: Option<Error>,
    /// What was built.
    pub(crate) built: Vec<Built>,
    /// What was asked for in vain by what was being built, with its name.
    pub(crate) refused: BTreeSet<String>,
    /// What must be built on the CPU that is wanted, and cannot be here.
    foreign: Foreign,
}

/// Sources with code for another CPU than the wanted one.
#[derive(Debug, Default)]
struct Foreign {
    /// Each with the wheel that came of it.
    sources: Vec<(String, String)>,
    /// Why the first of them cannot be built on the other CPU.
    why: Option<Error>,
}

impl Outcome {
    /// An error with all that must be built elsewhere, if anything has to be. They are gathered, so that nobody has to try
    /// again for each.
    pub(crate) fn take_foreign(&mut self, arch: Architecture) -> Result<(), Error> {
        let Foreign { sources, why } = std::mem::take(&mut self.foreign);
        match why {
            Some(why) => Err(Error::ForeignBuild { sources, arch: arch.lambda(), source: Box::new(why) }),
            None => Ok(()),
        }
    }
}

impl Errand {
    /// The errand of a set.
    pub(crate) fn new(set: usize) -> Self {
        Self { set, chain: Vec::new(), outcome: Arc::default() }
    }

    /// What came of it until now.
    pub(crate) fn outcome(&self) -> std::sync::MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same for what `source` needs. Its failures are the same; what is built for it is its own.
    fn within(&self, source: &Source) -> Self {
        let mut chain = self.chain.clone();
        chain.push(source.name.clone());
        Self { set: self.set, chain, outcome: Arc::default() }
    }
}

impl Builder {
    /// Gets ready.
    pub(crate) fn new(context: Arc<Context>, site: Site, base: Base, indexes: Arc<Indexes>) -> Arc<Self> {
        Arc::new(Self { context, kitchens: Kitchens::new(site, base), indexes, done: Mutex::default() })
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn site(&self) -> &Site {
        &self.kitchens.own().site
    }

    pub(crate) fn base(&self) -> &Base {
        self.kitchens.own_base()
    }

    pub(crate) fn indexes(&self) -> &Indexes {
        &self.indexes
    }

    /// What pip gets in the place of the source distributions that it asks for.
    pub(crate) fn exchange(self: &Arc<Self>, errand: &Errand, folder: &Path) -> Exchange {
        let (builder, errand, folder) = (Arc::clone(self), errand.clone(), folder.to_owned());
        Exchange::new(move |given| {
            let (builder, errand, folder) = (Arc::clone(&builder), errand.clone(), folder.clone());
            Box::pin(async move {
                let work = tokio::task::spawn_blocking(move || builder.trade(&errand, &given, &folder));
                work.await.unwrap_or_else(|_| Err("the build ended early\n".to_owned()))
            })
        })
    }

    fn trade(self: &Arc<Self>, errand: &Errand, given: &Given, folder: &Path) -> Result<PathBuf, String> {
        let source = Source::of(given);
        let made = self.wheel(errand, &source).and_then(|built| {
            let path = stand_in::write(folder, &given.name, &built.wheel)?;
            errand.outcome().built.push(built);
            Ok(path)
        });
        made.map_err(|error| {
            let words = format!("lbx cannot build {}: {error}\n", source.name);
            errand.outcome().error.get_or_insert(error);
            words
        })
    }

    /// The wheel of a source: kept from before, or built now.
    pub(crate) fn wheel(self: &Arc<Self>, errand: &Errand, source: &Source) -> Result<Built, Error> {
        if errand.chain.contains(&source.name) || errand.chain.len() >= DEPTH {
            let chain =
                errand.chain.iter().chain([&source.name]).cloned().collect::<Vec<_>>().join(", which needs ");
            return Err(Error::BuildLoop { chain });
        }
        let (here, wanted) = (self.context.build_arch, self.context.plan.arch);
        // What came from elsewhere for this CPU alone has nothing of the other.
        if let Some(kept) = self.kept_offline(errand.set, source)? {
            return Ok(kept);
        }
        let built = self.wheel_in(errand, source, here)?;
        if built.wheel.allowed_on(&resolve::target(&self.context, wanted)).is_ok() {
            return Ok(built);
        }
        // It has code for the CPU that it was built on.
        match self.wheel_in(errand, source, wanted) {
            Err(error @ (Error::ForeignCpu { .. } | Error::Image { .. })) => {
                let mut outcome = errand.outcome();
                let name = (source.name.clone(), built.wheel.filename.to_string());
                if !outcome.foreign.sources.contains(&name) {
                    outcome.foreign.sources.push(name);
                }
                outcome.foreign.why.get_or_insert(error);
                Ok(built)
            }
            other => other,
        }
    }

    /// The name of a wheel under which pip takes it, whatever it is for: who asks is told later what is wrong with it.
    pub(crate) fn shown_as(&self, wheel: &Wheel) -> String {
        let wanted = resolve::target(&self.context, self.context.plan.arch);
        if wheel.allowed_on(&wanted).is_ok() {
            return wheel.filename.to_string();
        }
        let name = wheel.filename.to_string();
        let stem: Vec<&str> = name.split('-').take(2).collect();
        format!("{}-py3-none-any.whl", stem.join("-"))
    }

    /// The same, built on a CPU.
    fn wheel_in(
        self: &Arc<Self>,
        errand: &Errand,
        source: &Source,
        arch: Architecture,
    ) -> Result<Built, Error> {
        let keys = self.keys(errand.set, &self.key(source, arch)?);
        let slot = {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(done.entry(keys.here.clone()).or_default())
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(built) = slot.as_ref() {
            return Ok(built.clone());
        }
        // Somebody who wants to know whether it can be built again wants it built.
        let kept = if self.context.options.rebuild { None } else { self.find(&keys, source)? };
        let built = if let Some(kept) = kept {
            kept
        } else {
            let built = self.build(errand, source, arch)?;
            self.keep(&keys, &built)?;
            built
        };
        *slot = Some(built.clone());
        Ok(built)
    }

    /// The wheel that was kept of a source, if one was.
    pub(crate) fn kept(&self, set: usize, source: &Source) -> Result<Option<Built>, Error> {
        let wanted = self.context.plan.arch;
        let target = resolve::target(&self.context, wanted);
        let kept = self.kept_in(set, source, self.context.build_arch)?;
        match kept.filter(|kept| kept.wheel.allowed_on(&target).is_ok()) {
            None => self.kept_offline(set, source),
            kept => Ok(kept),
        }
    }

    /// The same for another CPU, where there is no network to fetch its image for that.
    fn kept_offline(&self, set: usize, source: &Source) -> Result<Option<Built>, Error> {
        let wanted = self.context.plan.arch;
        let asks = self.context.options.offline && !self.context.options.rebuild;
        if !asks || wanted == self.context.build_arch {
            return Ok(None);
        }
        match self.kept_in(set, source, wanted) {
            // It is not here.
            Err(Error::Image { .. }) => Ok(None),
            found => found,
        }
    }

    fn kept_in(&self, set: usize, source: &Source, arch: Architecture) -> Result<Option<Built>, Error> {
        self.find(&self.keys(set, &self.key(source, arch)?), source)
    }

    fn keys(&self, set: usize, key: &str) -> Keys {
        let here = cache::key(&[key, &self.indexes.identity(set)]);
        Keys { anywhere: key.to_owned(), here }
    }

    fn find(&self, keys: &Keys, source: &Source) -> Result<Option<Built>, Error> {
        let found = match cache::find(&self.context, &keys.here, source)? {
            None => cache::find(&self.context, &keys.anywhere, source)?
                .filter(|kept| kept.requires.is_empty() || self.context.options.offline),
            found => found,
        };
        Ok(found.map(|kept| Built { keys: vec![keys.anywhere.clone()], ..kept }))
    }

    fn keep(&self, keys: &Keys, built: &Built) -> Result<(), Error> {
        if !built.requires.is_empty() {
            cache::keep(&self.context, &keys.here, built)?;
        }
        cache::keep(&self.context, &keys.anywhere, built)
    }

    /// The wheel of a commit, for which nobody has to be asked when it was built before.
    pub(crate) fn commit(
        self: &Arc<Self>,
        errand: &Errand,
        url: &lbx_plan::Hidden,
        work: &Path,
    ) -> Result<Built, Error> {
        let named = git::commit(url)?;
        // The key is that of the artifact's CPU, whatever it was built on. What its files say is not known yet, so all that
        // is said of single packages may be about it.
        let plan = &self.context.plan;
        let of_packages = serde_json::to_string(&(&plan.build_images, &plan.system_packages_of));
        let of_packages = of_packages.unwrap_or_default();
        let key =
            cache::key(&[&self.key(&named, self.context.build_arch)?, plan.arch.machine(), &of_packages]);
        let keys = self.keys(errand.set, &key);
        if let Some(kept) = self.find(&keys, &named)? {
            return Ok(kept);
        }
        let mut built = self.wheel(errand, &git::source(self, url, work)?)?;
        let wanted = resolve::target(&self.context, self.context.plan.arch);
        if built.wheel.allowed_on(&wanted).is_ok() {
            self.keep(&keys, &built)?;
            built.keys.push(key);
        }
        Ok(built)
    }

    fn kitchen(&self, source: &Source, arch: Architecture) -> Result<Arc<Kitchen>, Error> {
        self.kitchens.of(&self.context, source, arch, self.indexes.runtime())
    }

    /// The images that sources were built in besides the runtime's own.
    pub(crate) fn build_images(&self) -> Vec<Place> {
        self.kitchens.others()
    }

    fn key(&self, source: &Source, arch: Architecture) -> Result<String, Error> {
        let kitchen = self.kitchen(source, arch)?;
        let Place { site, image, .. } = &kitchen.place;
        let backend = site.isolation.backend;
        Ok(cache::key(&[
            &source.sha256,
            &source.subdirectory,
            source.version.as_deref().unwrap_or_default(),
            image.manifest_digest.as_str(),
            arch.machine(),
            &site.choice.runtime.runtime,
            &kitchen.packages.join(" "),
            // Where the build sees paths, it may keep them.
            if backend.changes_root() { "" } else { backend.name() },
            SCRIPT,
            SHIM,
        ]))
    }

    fn build(self: &Arc<Self>, errand: &Errand, source: &Source, arch: Architecture) -> Result<Built, Error> {
        let within = errand.within(source);
        let mut asked = BTreeSet::new();
        let mut wheels: Vec<Arc<Wheel>> = Vec::new();
        for _ in 0..ROUNDS {
            match self.attempt(&within, (source, arch), &asked, &wheels)? {
                Attempt::Built(wheel) => {
                    let requires =
                        wheels.iter().map(|one| (one.filename.to_string(), one.digest.to_string()));
                    let again = self.again(&within, (source, arch), &asked, &wheels, &wheel)?;
                    let refused = within.outcome().refused.clone();
                    return Ok(Built {
                        source: source.name.clone(),
                        made: source.made.clone(),
                        keys: vec![self.key(source, arch)?],
                        wheel,
                        requires: requires.collect(),
                        system_packages: self.kitchen(source, arch)?.installed(),
                        refused,
                        again,
                    });
                }
                Attempt::Needs(needs) => {
                    asked = needs;
                    wheels = resolve::requires(self, &within, &source.name, &asked, arch)?;
                }
            }
        }
        Err(Error::BuildNeeds { source_name: source.name.clone() })
    }

    /// What comes of a second build, if one is asked for.
    fn again(
        &self,
        errand: &Errand,
        (source, arch): (&Source, Architecture),
        asked: &BTreeSet<String>,
        wheels: &[Arc<Wheel>],
        first: &Wheel,
    ) -> Result<Again, Error> {
        if !self.context.options.rebuild {
            return Ok(Again::Never);
        }
        let Attempt::Built(second) = self.attempt(errand, (source, arch), asked, wheels)? else {
            return Ok(Again::Differs("the second time, the build needs something else".to_owned()));
        };
        let Some(what) = difference(first, &second) else { return Ok(Again::Same) };
        let (set, source) = (errand.set, source.name.clone());
        self.context.ground.tell(Event::NotReproducible { set, source, what: what.clone() });
        Ok(Again::Differs(what))
    }

    /// Builds with what there is, or finds out what more is needed.
    fn attempt(
        &self,
        errand: &Errand,
        (source, arch): (&Source, Architecture),
        asked: &BTreeSet<String>,
        wheels: &[Arc<Wheel>],
    ) -> Result<Attempt, Error> {
        let context = &self.context;
        let scratch =
            context.ground.store.scratch().map_err(|error| Error::image(&context.plan.image, error))?;
        let out = resolve::folder(&scratch.path("build"), "out")?;
        let serving = self.indexes.refuse(errand.set)?;
        let kitchen = self.kitchen(source, arch)?;
        let root = kitchen.root(context, self.indexes.runtime())?;
        let mut spec = spec(kitchen.place.base()?, root, source, asked, wheels, &out);
        spec.network = serving.network(&kitchen.place.site);
        spec.env.extend(serving.proxy_environment());
        let mut output = base::run(&kitchen.place.site, &spec, Some(&serving), &|line| {
            let line = format!("{}: {}", source.name, serving.for_people(line));
            context.ground.tell(Event::ResolveLine { set: errand.set, line });
        })?;
        output.text = serving.for_people(&output.text);
        self.note_refused(errand, source, &serving.taken());
        if !output.ended.success() {
            return Err(failed(&kitchen.place.site, source, &output, &out));
        }
        self.outcome(source, arch, &out)
    }

    fn note_refused(&self, errand: &Errand, source: &Source, taken: &lbx_index::Taken) {
        let all: BTreeSet<String> =
            taken.refused.iter().map(|refused| format!("{}: {refused}", source.name)).collect();
        for what in &all {
            self.context.ground.tell(Event::ResolveRefused { set: errand.set, what: what.clone() });
        }
        errand.outcome().refused.extend(all);
    }

    /// What is in the output folder, now that nothing can change it any more.
    fn outcome(&self, source: &Source, arch: Architecture, out: &Path) -> Result<Attempt, Error> {
        let context = &self.context;
        if let Some(output) = lbx_sandbox::outputs(out, |name| name == NEEDS)?.pop() {
            return Ok(Attempt::Needs(needs(&source.name, output.file)?));
        }
        let mut wheels = collect(context, arch, out)?;
        match (wheels.pop(), wheels.pop()) {
            (Some(wheel), None) => Ok(Attempt::Built(wheel)),
            (Some(first), Some(second)) => {
                let (first, second) = (second.filename.to_string(), first.filename.to_string());
                Err(Error::TwoWheels { first, second })
            }
            _ => Err(Error::NothingBuilt { source_name: source.name.clone() }),
        }
    }
}

fn spec(
    base: &Base,
    root: Root,
    source: &Source,
    asked: &BTreeSet<String>,
    wheels: &[Arc<Wheel>],
    out: &Path,
) -> Spec {
    let ending = if source.path.is_dir() { String::new() } else { format!("/{}", file_name(&source.name)) };
    let place = format!("{SOURCE}{ending}");
    let program = [base.interpreter.as_str(), "-u", "/lbx/build.py", "env"];
    let arguments = [&place, &source.subdirectory, REQUIRES, WORK, resolve::OUT, SHIM_FOLDER];
    let mut spec = Spec::new(root, program.into_iter().chain(arguments).map(str::to_owned));
    spec.env = resolve::build_environment(base);
    let asked: Vec<&String> = asked.iter().collect();
    spec.env.push(("LBX_ASKED".to_owned(), serde_json::to_string(&asked).unwrap_or_default()));
    // What asks git for its version, where there is neither git nor history.
    for name in ["SETUPTOOLS_SCM_PRETEND_VERSION", "PBR_VERSION"] {
        spec.env.extend(source.version.iter().map(|version| (name.to_owned(), version.clone())));
    }
    spec.files.push(resolve::file("/lbx/build.py".to_owned(), SCRIPT.as_bytes().to_vec()));
    spec.files.push(resolve::file(format!("{SHIM_FOLDER}/sitecustomize.py"), SHIM.as_bytes().to_vec()));
    spec.tmpfs.push(Tmpfs { target: WORK.to_owned(), mode: 0o755, size: None });
    let mut bind = |source: &Path, target: String, access| {
        spec.binds.push(Bind { source: source.to_owned(), target, access });
    };
    bind(&source.path, place, Access::ReadOnly);
    bind(out, resolve::OUT.to_owned(), Access::ReadWrite);
    for wheel in wheels {
        bind(wheel.path(), format!("{REQUIRES}/{}", wheel.filename), Access::ReadOnly);
    }
    spec
}

fn failed(site: &Site, source: &Source, output: &base::Output, out: &Path) -> Error {
    let limits = &site.limits;
    let room = site.isolation.backend.mounts_memory().then(|| lbx_sandbox::room_in(out)).flatten();
    Error::Build {
        source_name: source.name.clone(),
        how: base::how(&output.ended),
        met: output.ended.hint(&output.text, limits, room),
        output: output.text.clone(),
        build_image: site.choice.runtime.build_image.clone(),
    }
}

/// The first difference between two builds of one source.
fn difference(first: &Wheel, second: &Wheel) -> Option<String> {
    if first.digest == second.digest {
        return None;
    }
    if first.filename != second.filename {
        return Some(format!("{} and then {}", first.filename, second.filename));
    }
    let files = |wheel: &Wheel| -> BTreeMap<String, [u8; 32]> {
        wheel.files.iter().map(|file| (file.path.clone(), file.sha256)).collect()
    };
    let (one, two) = (files(first), files(second));
    let paths: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
    // RECORD differs because something else does.
    let differs =
        |path: &&&String| one.get(**path) != two.get(**path) && !path.ends_with(".dist-info/RECORD");
    let Some(path) = paths.iter().find(differs) else {
        return Some("the same files, packed in another way".to_owned());
    };
    Some(match (one.get(*path), two.get(*path)) {
        (Some(_), Some(_)) => format!("{path} has other bytes"),
        (Some(_), None) => format!("{path} is missing the second time"),
        _ => format!("{path} is there the second time only"),
    })
}

enum Attempt {
    Built(Arc<Wheel>),
    /// All that it needs, also what it had.
    Needs(BTreeSet<String>),
}

/// What a build says that it needs. It is a stranger who says so: requirements, and no options of pip's.
fn needs(name: &str, file: std::fs::File) -> Result<BTreeSet<String>, Error> {
    use std::io::Read;
    let mut text = String::new();
    let wrong = || Error::BuildNeeds { source_name: name.to_owned() };
    file.take(LARGEST_NEEDS).read_to_string(&mut text).map_err(|_| wrong())?;
    let all: BTreeSet<String> = serde_json::from_str(&text).map_err(|_| wrong())?;
    let is_requirement = |text: &String| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !text.contains(|c: char| c.is_control() || c == '\\' || c == '#')
            && !text.contains(" --")
    };
    if all.is_empty() || !all.iter().all(is_requirement) {
        return Err(wrong());
    }
    Ok(all)
}

impl Source {
    /// A source distribution of a lock. The path may be missing where a wheel was kept.
    pub(crate) fn distribution(name: &str, sha256: &str, path: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            path,
            sha256: sha256.to_owned(),
            subdirectory: String::new(),
            version: None,
            made: Made::Distribution { sha256: sha256.to_owned() },
        }
    }

    /// The source distribution that pip has asked for.
    fn of(given: &Given) -> Self {
        let mut pairs = given.fragment.as_deref().unwrap_or_default().split('&');
        let subdirectory = pairs.find_map(|pair| pair.strip_prefix("subdirectory=")).unwrap_or_default();
        Self {
            name: given.name.clone(),
            path: given.stored.path.clone(),
            sha256: given.stored.digest.to_string(),
            subdirectory: subdirectory.trim_matches('/').to_owned(),
            version: None,
            made: Made::Distribution { sha256: given.stored.digest.to_string() },
        }
    }
}

/// The last part of a path.
fn file_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn said(text: &str) -> Result<BTreeSet<String>, Error> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        needs("x", file)
    }

    /// As pip reads archives.
    const UNPACK: &str = "import sys, tarfile, zipfile\n\
         for path in sys.argv[1:]:\n    \
             names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else tarfile.open(path).getnames()\n    \
             print(sorted(names))\n";

    #[test]
    fn a_stand_in_is_an_archive_with_the_wheel_and_what_hands_it_over() {
        let (folder, wheels) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let made = lbx_testkit::wheels::Wheel::new("one", "1.0").file("one.py", b"x").write(folder.path());
        let wheel = lbx_wheel::WheelStore::open(wheels.path()).unwrap().add(&made).unwrap();
        let all = ["one-1.0.tar.gz", "one-1.0.zip"]
            .map(|name| stand_in::write(folder.path(), name, &wheel).unwrap());
        let output = std::process::Command::new("python3").args(["-c", UNPACK]).args(&all).output().unwrap();
        let names = "'lbx-built/PKG-INFO', 'lbx-built/lbx_built.py', 'lbx-built/one-1.0-py3-none-any.whl'";
        let expected = format!(
            "[{names}, 'lbx-built/padding', 'lbx-built/pyproject.toml']\n[{names}, 'lbx-built/pyproject.toml']\n"
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
    }

    #[test]
    fn what_a_build_needs_is_requirements_and_nothing_else() {
        let good = said(r#"["setuptools>=40.8.0", "cffi[a]>=1; python_version < '3.12'"]"#).unwrap();
        assert_eq!(good.len(), 2);
        for bad in [
            "",
            "[]",
            "{}",
            r#"["--index-url x"]"#,
            r#"["-r /etc/passwd"]"#,
            r#"["a\n-r b"]"#,
            r#"["a --hash=1"]"#,
            r#"["/etc"]"#,
            r#"["a \\"]"#,
        ] {
            assert!(said(bad).is_err(), "{bad}");
        }
    }
}
