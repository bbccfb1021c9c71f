//! `lbx check`: what is wrong with an artifact that lies somewhere, whoever made it. What builds check of their own is
//! checked here from what is in the zip or the folder alone.

mod contents;
mod owners;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lbx_archive::Limits as ZipLimits;
use lbx_index::{Address, Server, Settings};
use lbx_plan::prune::{Globs, Set};
use lbx_plan::{Architecture, Config, ImageChoice};
use serde::Serialize;
use tokio::runtime::Handle;

use self::contents::{Contents, Entry, Kind, is_of_lambda};
use self::owners::Owners;
use crate::advice;
use crate::base::Base;
use crate::cancel::Cancel;
use crate::check::{self, Check, Facts, File, Finding, ImageLibraries, Known, Lead, Severity, Subject};
use crate::engine::Host;
use crate::error::Error;
use crate::event::Observer;
use crate::import::{self, Function};
use crate::index::Places;
use crate::limits::Limits;
use crate::resolve::{folder, target_of};
use crate::site::{Ground, Site};

/// An artifact to look at.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// What people call it.
    pub name: String,
    /// The zip or the folder.
    pub path: PathBuf,
    /// Whether it is a layer; found out by what is in it where nobody has said so.
    pub is_layer: Option<bool>,
    /// The layers that it runs with, in order, each with its name; none where they are not known, and what might be in them
    /// is not missed.
    pub layers: Option<Vec<(String, PathBuf)>>,
    /// The handler, if it is to be imported.
    pub handler: Option<String>,
}

/// Where artifacts are to run, and by what they are judged.
#[derive(Clone, Debug)]
pub struct Judge {
    /// The runtime, the CPU and the image.
    pub choice: ImageChoice,
    /// Files in which whatever is found is meant to be.
    pub accept: Globs,
    /// The indexes of packages.
    indexes: Settings,
    /// What must be in no file.
    known: Known,
    host: Host,
    limits: Limits,
    offline: bool,
}

impl Judge {
    /// One for artifacts of a project, or of what stands in for one. `offline` asks no registry and no index.
    pub fn new(
        config: &Config,
        choice: ImageChoice,
        host: Host,
        limits: Limits,
        offline: bool,
    ) -> Result<Self, Error> {
        let accept = lbx_plan::prune::accepted(config).map_err(lbx_plan::PlanError::from)?;
        let indexes = Places::settings(config, &host, offline)?;
        let known = Known::of(&host, indexes.passwords());
        Ok(Self { choice, accept, indexes, known, host, limits, offline })
    }
}

/// What came of looking at an artifact.
#[derive(Debug, Serialize)]
pub struct Inspected {
    /// What is wrong with it, the worst first.
    pub findings: Vec<Finding>,
    /// How many files it has.
    pub files: usize,
    /// Bytes of the zip; none for a folder.
    pub size: Option<u64>,
    /// Bytes of all files.
    pub unpacked_size: u64,
    /// Whether the handler was imported.
    pub imported: bool,
    /// Why it was not, where it was to be.
    #[serde(skip)]
    pub failed: Option<Error>,
}

/// Looks at an artifact. It is an error where it cannot be read, or not be told apart from another one by all unzippers.
pub async fn inspect(
    inspection: Inspection,
    judge: Judge,
    cancel: &Cancel,
    observer: &Observer,
) -> Result<Inspected, Error> {
    let (cancel, observer, runtime) = (cancel.clone(), Arc::clone(observer), Handle::current());
    let work = tokio::task::spawn_blocking(move || {
        let mut inspector = Inspector { judge, cancel, observer, runtime, place: None };
        inspector.inspect(&inspection)
    });
    work.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

/// What is known of an artifact.
struct Looked {
    contents: Contents,
    owners: Owners,
    facts: Vec<Option<Facts>>,
    /// For each, the set of rules that would leave it out.
    offered: Vec<Option<Set>>,
}

struct Inspector {
    judge: Judge,
    cancel: Cancel,
    observer: Observer,
    runtime: Handle,
    /// The image, once it is open.
    place: Option<(Site, Base)>,
}

impl Inspector {
    fn inspect(&mut self, inspection: &Inspection) -> Result<Inspected, Error> {
        let looked = self.look(&inspection.path)?;
        let named = inspection.layers.iter().flatten();
        let layers: Vec<(&str, Looked)> =
            named.map(|(name, path)| Ok((name.as_str(), self.look(path)?))).collect::<Result<_, Error>>()?;
        let handler = inspection
            .handler
            .as_ref()
            .filter(|_| self.judge.choice.arch.machine() == std::env::consts::ARCH);
        // Where it is needed anyway, it may know which index there is.
        let mut failed = handler.and_then(|_| self.place().err());
        if matches!(failed, Some(Error::Interrupted)) {
            return Err(Error::Interrupted);
        }
        let mut findings = self.check(inspection, &looked, &layers)?;
        findings.extend(looked.kinds());
        findings.retain(|one| one.path.as_ref().is_none_or(|path| self.judge.accept.matched(path).is_none()));
        let mut imported = false;
        if let Some(handler) = handler.filter(|_| failed.is_none()) {
            match self.import(&inspection.name, handler, &looked.contents, &layers) {
                Ok(found) => {
                    imported = true;
                    findings.extend(found);
                }
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => failed = Some(error),
            }
        }
        findings.sort();
        let files = looked.contents.entries.iter().filter(|entry| entry.kind != Kind::Folder);
        Ok(Inspected {
            findings,
            files: files.clone().count(),
            size: looked.contents.zip_size,
            unpacked_size: files.map(|entry| entry.size).sum(),
            imported,
            failed,
        })
    }

    fn look(&self, path: &std::path::Path) -> Result<Looked, Error> {
        let contents = Contents::list(path, &ZipLimits::default(), &self.cancel)?;
        let owners = Owners::of(&contents)?;
        let facts = self.facts(&contents, &owners)?;
        let offered = owners.offers(contents.entries.iter().map(|entry| entry.path.as_str()));
        Ok(Looked { contents, owners, facts, offered })
    }

    /// Looks into all files, on all cores.
    fn facts(&self, contents: &Contents, owners: &Owners) -> Result<Vec<Option<Facts>>, Error> {
        let entries = &contents.entries;
        let next = AtomicUsize::new(0);
        let one = |entry: &Entry| -> Result<Option<Facts>, Error> {
            self.cancel.check()?;
            if entry.kind != Kind::File {
                return Ok(None);
            }
            let (_, own) = owners.owner(&entry.path);
            contents.facts(entry, own.then_some(&self.judge.known))
        };
        let worker = || {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(entry) = entries.get(at) else { return Ok(done) };
                match one(entry) {
                    Ok(facts) => done.push((at, facts)),
                    Err(error) => {
                        // Nobody begins another one.
                        next.store(entries.len(), Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let all: Result<Vec<_>, Error> = std::thread::scope(|scope| {
            let running: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
            let mine = worker();
            let theirs = running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            [mine].into_iter().chain(theirs.collect::<Vec<_>>()).collect()
        });
        let mut facts = vec![None; entries.len()];
        for (at, found) in all?.into_iter().flatten() {
            facts[at] = found;
        }
        Ok(facts)
    }

    /// All that can be said without running anything; of the image, only where it may make a difference.
    fn check(
        &mut self,
        inspection: &Inspection,
        looked: &Looked,
        layers: &[(&str, Looked)],
    ) -> Result<Vec<Finding>, Error> {
        let is_layer = inspection.is_layer.unwrap_or_else(|| looked.is_layer());
        let subject = looked.subject(&inspection.name, is_layer);
        let layers: Vec<Subject<'_>> = layers.iter().map(|(name, layer)| layer.subject(name, true)).collect();
        let layers: Vec<&Subject<'_>> = layers.iter().collect();
        let known = inspection.layers.as_ref().map(|_| layers.as_slice());
        let choice = self.judge.choice.clone();
        let check = |image: Option<&ImageLibraries>| {
            let target = check::Target { runtime: &choice.runtime, arch: choice.arch, image };
            check::check(&subject, known, &target)
        };
        let mut findings = check(None);
        if advice::is_open(&findings, Lead::Image) {
            match self.place() {
                Ok((_, base)) => findings = check(Some(&base.libraries(&choice))),
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => tracing::info!(%error, "the image could not be asked for a library"),
            }
        }
        if advice::is_open(&findings, Lead::Index)
            && let Some(server) = self.index()?
        {
            let offers = |name: &str| self.runtime.block_on(advice::ask(&server, name, &self.cancel));
            let target = target_of(&choice.runtime, choice.arch);
            advice::suggest(&mut findings, &choice.runtime, &target, offers);
        }
        self.cancel.check()?;
        Ok(findings)
    }

    /// What asks the indexes, if it is known which there are: the image's pip may be the only one to know.
    fn index(&self) -> Result<Option<Server>, Error> {
        let mut settings = self.judge.indexes.clone();
        if settings.index.is_none() && !settings.no_index {
            let default = self.place.as_ref().and_then(|(_, base)| base.index.as_deref());
            let Some(default) = default else { return Ok(None) };
            settings.index =
                Some(Address::parse("the index of the image's pip", default).map_err(Error::index)?);
        }
        Server::new(settings).map(Some).map_err(Error::index)
    }

    /// The image, opened when it is first asked for.
    fn place(&mut self) -> Result<&(Site, Base), Error> {
        let opened = if let Some(opened) = self.place.take() {
            opened
        } else {
            let Judge { choice, host, limits, offline, .. } = &self.judge;
            let host_arch = Architecture::parse(std::env::consts::ARCH).unwrap_or(choice.arch);
            let choice = ImageChoice { arch: host_arch, ..choice.clone() };
            let ground = Ground::open(choice, host.clone(), *limits, &self.cancel, &self.observer)?;
            let opening = Site::open(Arc::new(ground), *offline);
            let (site, image) = self.runtime.block_on(opening)?;
            let base = Base::prepare(&site, image)?;
            (site, base)
        };
        Ok(self.place.insert(opened))
    }

    fn import(
        &mut self,
        name: &str,
        handler: &str,
        contents: &Contents,
        layers: &[(&str, Looked)],
    ) -> Result<Vec<Finding>, Error> {
        let cancel = self.cancel.clone();
        let (site, base) = self.place()?;
        let scratch = site.store.scratch().map_err(|source| Error::image(&site.choice.image, source))?;
        let work = scratch.path("import");
        let (task, opt) = (folder(&work, "task")?, folder(&work, "opt")?);
        contents.unpack(&task, &cancel)?;
        // Of two layers with the same file, the later one has it.
        for (_, layer) in layers.iter().rev() {
            layer.contents.unpack(&opt, &cancel)?;
        }
        contents.link(&task);
        for (_, layer) in layers.iter().rev() {
            layer.contents.link(&opt);
        }
        let layers = (!layers.is_empty()).then_some(opt.as_path());
        import::import(site, base, &Function { name, handler, task: &task, layers }, &work)
    }
}

impl Looked {
    /// Layers have their modules in `python/`, and functions theirs at the root.
    fn is_layer(&self) -> bool {
        let entries = &self.contents.entries;
        let is_module = |entry: &Entry| {
            let name = entry.path.strip_suffix(".py");
            entry.kind != Kind::Folder && name.is_some_and(|name| !name.contains('/'))
        };
        entries.iter().any(|entry| entry.path.starts_with("python/")) && !entries.iter().any(is_module)
    }

    fn subject<'l>(&'l self, name: &'l str, is_layer: bool) -> Subject<'l> {
        let files = self.contents.entries.iter().zip(&self.facts).zip(&self.offered);
        let files =
            files.filter(|((entry, _), _)| entry.kind == Kind::File).map(|((entry, facts), &offered)| {
                let (owner, own) = self.owners.owner(&entry.path);
                let (mode, facts) = (entry.mode, facts.as_ref());
                File { path: &entry.path, owner, own, size: entry.size, mode, offered, facts }
            });
        let files: Vec<File<'_>> = files.collect();
        let names = self.contents.entries.iter().filter(|entry| matches!(entry.kind, Kind::Link(_)));
        let names = names.filter_map(|entry| {
            let to = self.contents.follow(&entry.path)?;
            let at = files.binary_search_by(|file| file.path.cmp(&to)).ok()?;
            Some((entry.path.as_str(), at))
        });
        Subject { name, zip_size: self.contents.zip_size, is_layer, names: names.collect(), files }
    }

    /// What is wrong with what is no file.
    fn kinds(&self) -> Vec<Finding> {
        let about = |entry: &Entry| {
            Some(match &entry.kind {
                Kind::Special => (Severity::Error, "neither a file nor a folder nor a link".to_owned(), None),
                Kind::Folder if entry.mode.is_some_and(|mode| mode & 0o5 != 0o5) => {
                    let mode = entry.mode.unwrap_or_default();
                    let message = format!("mode {mode:04o}, so Lambda's user cannot look into it");
                    (Severity::Error, message, Some(check::MODES))
                }
                Kind::File | Kind::Folder => return None,
                Kind::Link(target) if is_of_lambda(target) => {
                    (Severity::Warning, format!("a symbolic link to {target}, which is not looked at"), None)
                }
                Kind::Link(target) => match self.contents.follow(&entry.path) {
                    None => {
                        let message =
                            format!("a symbolic link out of the artifact, or in a circle, to {target}");
                        (Severity::Error, message, None)
                    }
                    Some(to) if !self.contents.is_there(&to) => {
                        (Severity::Error, format!("a symbolic link to {target}, which is not there"), None)
                    }
                    Some(_) => (
                        Severity::Warning,
                        format!(
                            "a symbolic link to {target}, which some tools unpack as a file with this text"
                        ),
                        Some("put the file itself there, if what it leads to is not large"),
                    ),
                },
            })
        };
        let finding = |entry: &Entry| {
            let (severity, message, hint) = about(entry)?;
            let mut finding = Finding::new(severity, Check::Files, message);
            finding.path = Some(entry.path.clone());
            finding.owner = Some(self.owners.owner(&entry.path).0.to_owned());
            finding.hint = hint.map(str::to_owned);
            Some(finding)
        };
        self.contents.entries.iter().filter_map(finding).collect()
    }
}
