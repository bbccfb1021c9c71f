//! Locked sets: what is installed is written down, so there is nothing to resolve. Files are chosen for the target by
//! their names, fetched side by side by their hashes, and verified; no pip runs, and no sandbox unless something has to
//! be built.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use lbx_index::{Address, Digest, Offer, Server, Stored, Wanted};
use lbx_plan::locks::{self, Environment, File, Locked, Missing, Package, Source};
use lbx_plan::{DependencySet, Hidden, Plan};
use lbx_wheel::{Wheel, WheelFilename, normalize_name, same_version};

use crate::builder::{self, Errand, local};
use crate::engine::Context;
use crate::error::Error;
use crate::event::Event;
use crate::project::Project;
use crate::report::TakenReport;
use crate::resolve::{self, ResolvedSet};
use crate::workshop::Workshop;

/// How many files of a set are fetched at once.
const AT_ONCE: usize = 16;

/// What is known of the lock of a set.
#[derive(Debug)]
pub(crate) struct SetLock {
    /// The lock's path, where it is, or would be.
    pub(crate) path: String,
    /// What it says, where it has all that is asked for.
    pub(crate) locked: Option<Locked>,
    /// Why it is not used, where there is one.
    pub(crate) unused: Option<String>,
}

/// Reads the locks of all sets. Where one is demanded, there must be one that covers the set.
pub(crate) fn read(project: &Project, plan: &Plan, demanded: bool) -> Result<Vec<SetLock>, Error> {
    let one = |set: &DependencySet| {
        let lock = read_one(project, plan, set)?;
        if demanded && lock.locked.is_none() {
            let why = lock.unused.unwrap_or_else(|| "there is none".to_owned());
            return Err(Error::NotLocked { lock: lock.path, why });
        }
        Ok(lock)
    };
    plan.sets.iter().map(one).collect()
}

fn read_one(project: &Project, plan: &Plan, set: &DependencySet) -> Result<SetLock, Error> {
    let environment = environment(plan)?;
    if let Some(path) = &set.locked_by {
        let (text, companion) = project.lock(path)?.unwrap_or_default();
        let lock = locks::Text { path, text: &text, project: companion.as_deref() };
        let locked = locks::read(lock, &environment).map_err(lbx_plan::PlanError::from)?;
        return Ok(SetLock { path: path.clone(), locked: Some(locked), unused: None });
    }
    let path = set.lock.clone();
    let Some((text, _)) = project.lock(&path)? else {
        return Ok(SetLock { path, locked: None, unused: None });
    };
    let lock = locks::Text { path: &path, text: &text, project: None };
    let covered = locks::read(lock, &environment).map_err(|error| error.message).and_then(|locked| {
        let missing: Result<(), Missing> = locks::covers(&set.lines, &locked, &environment);
        missing.map(|()| locked).map_err(|missing| missing.to_string())
    });
    let (locked, unused) = match covered {
        Ok(locked) => (Some(locked), None),
        Err(why) => (None, Some(why)),
    };
    Ok(SetLock { path, locked, unused })
}

/// What markers see.
pub(crate) fn environment(plan: &Plan) -> Result<Environment, Error> {
    // Every runtime of the catalogue has a version that is one; this is tested.
    Environment::new(&plan.runtime, plan.arch).ok_or(Error::NoIndex)
}

/// How a package is got.
enum Choice<'l> {
    /// A file that the store of wheels has, or that is fetched into it.
    Wheel(Wanted),
    /// A source distribution that is fetched and built.
    Distribution(Wanted),
    /// What is in the project or beside it.
    Path(&'l str, &'l str),
    /// A commit of a repository.
    Git(Hidden),
}

/// Gets all packages of a set that is locked.
pub(crate) fn run(workshop: &Workshop, index: usize, locked: &Locked) -> Result<ResolvedSet, Error> {
    let context = workshop.context();
    let lock = Some(context.locks[index].path.clone());
    context.ground.tell(Event::ResolveStarted { set: index, lock });
    let set = Set { workshop, context, index, lock: &context.locks[index].path };
    let resolved = set.get(locked).map_err(|error| {
        error.in_store(context.ground.store.root(), &format!("the packages of {}", set.lock))
    })?;
    let (wheels, lock) = (resolved.wheels.len(), resolved.lock.clone());
    context.ground.tell(Event::ResolveFinished { set: index, wheels, lock });
    Ok(resolved)
}

struct Set<'s> {
    workshop: &'s Workshop,
    context: &'s Context,
    index: usize,
    lock: &'s str,
}

impl Set<'_> {
    fn get(&self, locked: &Locked) -> Result<ResolvedSet, Error> {
        let mut chosen = Vec::new();
        let offers = self.offers(locked)?;
        for (package, offers) in locked.packages.iter().zip(&offers) {
            chosen.push((package, self.choose(package, offers.as_deref())?));
        }
        let mut files: Vec<&Wanted> = Vec::new();
        for (_, choice) in &chosen {
            files.extend(self.missing(choice)?);
        }
        let fetched = self.fetch(&files)?;
        let errand = Errand::new(self.index);
        // Where nothing is built, there may be no room, nor any right to write.
        let scratch = || {
            let scratch = self.context.ground.store.scratch();
            scratch.map_err(|source| resolve::image_error(self.context, source))
        };
        let (mut wheels, mut taken) = (Vec::new(), Vec::new());
        for (number, (package, choice)) in chosen.iter().enumerate() {
            self.context.ground.cancel.check()?;
            let found = |wanted: &Wanted| {
                let at = files.iter().position(|file| file.sha256 == wanted.sha256);
                at.map(|at| &fetched[at])
            };
            let wheel = match choice {
                Choice::Wheel(wanted) => {
                    taken.push(report(wanted, true));
                    self.wheel(wanted, found(wanted))?
                }
                Choice::Distribution(wanted) => {
                    taken.push(report(wanted, false));
                    let builder = self.workshop.builder()?;
                    let path = found(wanted).map(|stored| stored.path.clone()).unwrap_or_default();
                    local::noted(&builder, &errand, &distribution(wanted, path))?
                }
                Choice::Path(path, subdirectory) => self.local(
                    &errand,
                    (path, subdirectory),
                    &resolve::folder(&scratch()?.path("lock"), &number.to_string())?,
                )?,
                Choice::Git(url) => {
                    let scratch = scratch()?;
                    let work = resolve::folder(&scratch.path("lock"), &number.to_string())?;
                    local::repository(&self.workshop.builder()?, &errand, url, &work)?
                }
            };
            self.check(package, &wheel)?;
            wheels.push(wheel);
        }
        errand.outcome().take_foreign(self.context.plan.arch)?;
        wheels.sort_by_key(|wheel| normalize_name(&wheel.metadata.name));
        self.complete(&wheels)?;
        taken.sort();
        let mut outcome = errand.outcome();
        let built = std::mem::take(&mut outcome.built);
        let refused = built.iter().flat_map(|built| built.refused.iter().cloned()).collect();
        Ok(ResolvedSet { wheels, taken, built, refused, lock: Some(self.lock.to_owned()) })
    }

    /// What indexes have of each package whose lock has hashes and no names.
    fn offers(&self, locked: &Locked) -> Result<Vec<Option<Vec<Offer>>>, Error> {
        let is_nameless = |package: &Package| matches!(&package.source, Source::Files(files) if files.iter().any(|file| file.name.is_none()));
        if !locked.packages.iter().any(is_nameless) {
            return Ok(vec![None; locked.packages.len()]);
        }
        if self.context.options.offline
            && let Some(offers) = self.offers_of_store(locked)
        {
            return Ok(offers);
        }
        let server = self.knowing()?;
        let ask = async |package: &Package| {
            if !is_nameless(package) {
                return Ok(None);
            }
            server.offers(&package.name).await.map(Some)
        };
        let all = stream::iter(&locked.packages).map(ask).buffered(AT_ONCE).try_collect();
        self.wait(all).map_err(|source| self.failed(Arc::new(source)))
    }

    /// What the store has of each package, where it has something of all: without a network, no page says what there is.
    fn offers_of_store(&self, locked: &Locked) -> Option<Vec<Option<Vec<Offer>>>> {
        let of_package = |package: &Package| {
            let Source::Files(files) = &package.source else { return Some(None) };
            if files.iter().all(|file| file.name.is_some()) {
                return Some(None);
            }
            let kept = files.iter().filter_map(|file| {
                let wheel = self.context.wheels.get(file.sha256.parse().ok()?).ok().flatten()?;
                Some(Offer {
                    name: wheel.filename.to_string(),
                    sha256: file.sha256.parse().ok(),
                    yanked: false,
                })
            });
            let kept: Vec<Offer> = kept.collect();
            (!kept.is_empty()).then_some(Some(kept))
        };
        locked.packages.iter().map(of_package).collect()
    }

    /// Waits for the network, until the build is given up.
    fn wait<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E>
    where
        E: From<lbx_index::Error>,
    {
        let cancelled = self.context.ground.cancel.clone();
        self.workshop.indexes().runtime().block_on(async {
            tokio::select! {
                done = work => done,
                () = cancelled.cancelled() => Err(lbx_index::Error::Io(std::io::ErrorKind::Interrupted.into()).into()),
            }
        })
    }

    /// A server that knows which indexes there are; if only the image's pip knows, the image is asked.
    fn knowing(&self) -> Result<&Server, Error> {
        let indexes = self.workshop.indexes();
        if !indexes.is_known(self.index) {
            self.workshop.builder()?;
        }
        indexes.fetcher(self.index)
    }

    fn choose<'l>(&self, package: &'l Package, offers: Option<&[Offer]>) -> Result<Choice<'l>, Error> {
        match &package.source {
            Source::Path { path, subdirectory } => Ok(Choice::Path(path, subdirectory)),
            Source::Git { url, commit, subdirectory } => {
                let folder = if subdirectory.is_empty() {
                    String::new()
                } else {
                    format!("#subdirectory={subdirectory}")
                };
                Ok(Choice::Git(Hidden::new(format!("git+{}@{commit}{folder}", url.expose()))))
            }
            Source::Archive(file) => self.of_file(package, file),
            Source::Files(files) => self.of_files(package, files, offers),
        }
    }

    fn of_files<'l>(
        &self,
        package: &Package,
        files: &[File],
        offers: Option<&[Offer]>,
    ) -> Result<Choice<'l>, Error> {
        let named: Vec<File> = match offers {
            None => files.to_vec(),
            Some(offers) => {
                let is_locked = |offer: &&Offer| {
                    let digest = offer.sha256.map(|digest| digest.to_string());
                    files.iter().any(|file| Some(&file.sha256) == digest.as_ref())
                };
                let file = |offer: &Offer| File {
                    name: Some(offer.name.clone()),
                    sha256: offer.sha256.map(|digest| digest.to_string()).unwrap_or_default(),
                    ..File::default()
                };
                offers.iter().filter(is_locked).map(file).collect()
            }
        };
        let parsed = |file: &File| file.name.as_deref().unwrap_or_default().parse::<WheelFilename>().ok();
        let wheels: Vec<(WheelFilename, &File)> =
            named.iter().filter_map(|file| Some((parsed(file)?, file))).collect();
        let names: Vec<WheelFilename> = wheels.iter().map(|(name, _)| name.clone()).collect();
        let best =
            resolve::target(self.context, self.context.plan.arch).best(&names).map(|best| wheels[best].1);
        let source = || named.iter().find(|file| !file.is_wheel() && parsed(file).is_none());
        match best.or_else(source) {
            Some(file) => self.of_file(package, file),
            None => Err(Error::NothingFits {
                package: spelled(package),
                lock: self.lock.to_owned(),
                files: named.iter().filter_map(|file| file.name.clone()).collect(),
                runtime: self.context.plan.runtime.runtime.clone(),
                arch: self.context.plan.arch.lambda().to_owned(),
            }),
        }
    }

    fn of_file<'l>(&self, package: &Package, file: &File) -> Result<Choice<'l>, Error> {
        let name = file.name.clone().unwrap_or_else(|| spelled(package));
        let address = file.url.as_ref().map(|url| {
            Address::parse(&format!("the address of {name} in {}", self.lock), url.expose())
                .map_err(Error::index)
        });
        // Readers have looked at it.
        let sha256: Digest = file.sha256.parse().map_err(|_| Error::NoIndex)?;
        let project = matches!(package.source, Source::Files(_)).then(|| package.name.clone());
        let is_wheel = file.is_wheel();
        let wanted = Wanted { project, name, address: address.transpose()?, sha256, size: file.size };
        Ok(if is_wheel { Choice::Wheel(wanted) } else { Choice::Distribution(wanted) })
    }

    /// The file that has to be fetched for a choice, if one has to be.
    fn missing<'c>(&self, choice: &'c Choice<'_>) -> Result<Option<&'c Wanted>, Error> {
        Ok(match choice {
            Choice::Wheel(wanted) => self.kept(wanted).is_none().then_some(wanted),
            Choice::Distribution(wanted) => {
                let kept =
                    self.workshop.builder()?.kept(self.index, &distribution(wanted, PathBuf::new()))?;
                kept.is_none().then_some(wanted)
            }
            Choice::Path(..) | Choice::Git(_) => None,
        })
    }

    fn kept(&self, wanted: &Wanted) -> Option<Arc<Wheel>> {
        self.context.wheels.get(wanted.sha256.to_string().parse().ok()?).ok().flatten()
    }

    fn fetch(&self, files: &[&Wanted]) -> Result<Vec<Stored>, Error> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let without_address = files.iter().any(|file| file.address.is_none());
        let server =
            if without_address { self.knowing()? } else { self.workshop.indexes().fetcher(self.index)? };
        let all =
            stream::iter(files).map(async |file| server.fetch(file).await).buffered(AT_ONCE).try_collect();
        let wait = async { all.await.map_err(Failed) };
        self.wait(wait).map_err(|Failed(source)| self.failed(source))
    }

    fn failed(&self, source: Arc<lbx_index::Error>) -> Error {
        if self.context.ground.cancel.is_cancelled() {
            return Error::Interrupted;
        }
        Error::Fetch { requirements: self.lock.to_owned(), output: String::new(), source }
    }

    fn wheel(&self, wanted: &Wanted, fetched: Option<&Stored>) -> Result<Arc<Wheel>, Error> {
        if let (Some(kept), None) = (self.kept(wanted), fetched) {
            return Ok(kept);
        }
        let path = fetched.map(|stored| stored.path.clone()).unwrap_or_default();
        self.add(&wanted.name, &path)
    }

    fn add(&self, name: &str, path: &Path) -> Result<Arc<Wheel>, Error> {
        let file = fs_err::File::open(path)?.into_parts().0;
        resolve::add(self.context, self.context.plan.arch, name, &PathBuf::from(name), file)
    }

    fn local(&self, errand: &Errand, place: (&str, &str), work: &Path) -> Result<Arc<Wheel>, Error> {
        let (path, subdirectory) = place;
        let real = self.context.project.local(path)?;
        // A requirement file cannot name a folder that the project is in, with one below it that is built; a lock can, and
        // would show its build all that lies there.
        let root = &self.context.project.root;
        if !subdirectory.is_empty() && root.starts_with(&real) && *root != real {
            let position = self.lock.to_owned();
            return Err(Error::SourceOutside { position, path: path.to_owned(), target: real });
        }
        if local::is_wheel(&real) {
            let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return self.add(&name, &real);
        }
        local::project(&self.workshop.builder()?, errand, place, real, work)
    }

    /// Whether a requirement file with hashes has all that its packages require, as pip wants it. What tools have locked is
    /// as they left it.
    fn complete(&self, wheels: &[Arc<Wheel>]) -> Result<(), Error> {
        if locks::Format::of(self.lock).is_some() {
            return Ok(());
        }
        let package = |wheel: &Arc<Wheel>| Package {
            name: normalize_name(&wheel.metadata.name),
            version: Some(wheel.metadata.version.clone()),
            source: Source::Files(Vec::new()),
        };
        let all = Locked { packages: wheels.iter().map(package).collect(), made_from: None };
        let environment = environment(&self.context.plan)?;
        for wheel in wheels {
            let lines: Vec<Hidden> = wheel.metadata.requires_dist.iter().map(Hidden::new).collect();
            if let Err(Missing::Line { line, has: None }) = locks::covers(&lines, &all, &environment) {
                return Err(Error::Incomplete {
                    lock: self.lock.to_owned(),
                    package: format!("{} {}", wheel.metadata.name, wheel.metadata.version),
                    line: line.to_string(),
                });
            }
        }
        Ok(())
    }

    /// Whether a wheel is what the lock says that it is.
    fn check(&self, package: &Package, wheel: &Wheel) -> Result<(), Error> {
        let (name, version) = (&wheel.metadata.name, &wheel.metadata.version);
        let same = package.version.as_ref().is_none_or(|locked| same_version(locked, version));
        if normalize_name(name) == package.name && same {
            return Ok(());
        }
        Err(Error::OtherPackage {
            lock: self.lock.to_owned(),
            package: spelled(package),
            file: wheel.filename.to_string(),
            found: format!("{name} {version}"),
        })
    }
}

fn distribution(wanted: &Wanted, path: PathBuf) -> builder::Source {
    builder::Source::distribution(&wanted.name, &wanted.sha256.to_string(), path)
}

/// An error of the index, which was shared.
struct Failed(Arc<lbx_index::Error>);

impl From<lbx_index::Error> for Failed {
    fn from(error: lbx_index::Error) -> Self {
        Self(Arc::new(error))
    }
}

fn spelled(package: &Package) -> String {
    match &package.version {
        Some(version) => format!("{} {version}", package.name),
        None => package.name.clone(),
    }
}

fn report(wanted: &Wanted, installed: bool) -> TakenReport {
    TakenReport {
        file: wanted.name.clone(),
        sha256: wanted.sha256.to_string(),
        size: wanted.size,
        url: wanted.address.as_ref().map(|address| address.safe().to_string()),
        index: None,
        installed,
    }
}
