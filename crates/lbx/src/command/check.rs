//! `lbx check`: what is wrong with zips and folders, whoever made them, and with what a project has built.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lbx_build::{Cancel, Finding, Inspected, Inspection, Judge, Project, Severity, bytes};
use lbx_plan::{Architecture, Config, Function, ImageChoice, Imports};
use serde_json::json;

use super::{host_for, observer, project};
use crate::arguments::{Arguments, Check};
use crate::environment::Environment;
use crate::exit;
use crate::failure::Failure;
use crate::indexes;
use crate::render::{Output, count, finding, printable, short_path};
use crate::signals::until_signal;

/// Looks at all that is named, and prints what is wrong.
pub(crate) fn run(arguments: &Arguments, check: &Check, environment: &Environment) -> u8 {
    let output = Arc::new(Output::new(arguments));
    match try_run(&output, check, environment) {
        Ok(code) => code,
        Err(failure) => output.failure(&failure),
    }
}

fn try_run(output: &Arc<Output>, check: &Check, environment: &Environment) -> Result<u8, Failure> {
    let asked = Asked::new(output, check, environment)?;
    let subjects = asked.subjects()?;
    if check.handler.is_some() && subjects.len() > 1 {
        let message =
            format!("--handler is that of one function, but there are {} artifacts", subjects.len());
        return Err(Failure::new(exit::USAGE, message, None));
    }
    let mut host = host_for(&check.place, environment)?;
    host.indexes = indexes::settings(environment, host.indexes.store, host.ca_bundle.as_deref())?;
    let (cancel, observer) = (Cancel::new(), observer(output));
    until_signal(output, &cancel, async {
        let mut code = exit::SUCCESS;
        for (inspection, choice) in subjects {
            let (limits, offline) = (check.limits.with_defaults(), check.place.offline);
            let judge = Judge::new(&asked.config, choice, host.clone(), limits, offline)?;
            let name = inspection.name.clone();
            let path = short_path(&inspection.path, &environment.current_dir);
            // What cannot be looked at keeps nobody from looking at the next one.
            let failed = match lbx_build::inspect(inspection, judge, &cancel, &observer).await {
                Err(lbx_build::Error::Interrupted) => return Err(lbx_build::Error::Interrupted.into()),
                Err(error) => Some(Failure::from(error)),
                Ok(mut inspected) => {
                    output.finish();
                    show(output, &name, &path, &inspected);
                    let is_wrong = inspected.findings.iter().any(|one| one.severity == Severity::Error);
                    if is_wrong && code == exit::SUCCESS {
                        code = exit::CHECKS;
                    }
                    let context = format!("{name}: the handler was not imported");
                    inspected.failed.take().map(|error| Failure::from(error).with_context(&context))
                }
            };
            if let Some(failure) = failed {
                code = output.failure(&failure);
            }
        }
        Ok(code)
    })
}

/// What is wrong, and how large it is.
fn show(output: &Output, name: &str, path: &str, inspected: &Inspected) {
    output.json(&json!({"reason": "checked", "name": name, "path": path, "checked": inspected}));
    for one in folded(&inspected.findings) {
        output.result(&finding(name, &one, "  "));
    }
    let of = |severity| inspected.findings.iter().filter(|one: &&Finding| one.severity == severity).count();
    let found = [(of(Severity::Error), "error"), (of(Severity::Warning), "warning")];
    let found: Vec<String> = found
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, noun)| count(number, noun))
        .collect();
    let found = if found.is_empty() { "nothing wrong".to_owned() } else { found.join(", ") };
    let zipped = inspected.size.map(|size| format!("{}, ", bytes(size))).unwrap_or_default();
    let imported = if inspected.imported { "; its handler was imported" } else { "" };
    output.result(&format!(
        "{}: {found}: {}, {zipped}{} unpacked{imported}",
        printable(name),
        count(inspected.files, "file"),
        bytes(inspected.unpacked_size),
    ));
}

/// Findings with the same words about many files as one; all of them are in JSON.
fn folded(findings: &[Finding]) -> Vec<Finding> {
    const MANY: usize = 5;
    let words = |one: &Finding| (one.severity, one.check, one.message.clone(), one.hint.clone());
    let mut alike: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for one in findings {
        alike.entry(words(one)).or_default().extend(one.path.as_deref());
    }
    let fold = |one: &Finding| {
        let paths = alike.get(&words(one)).filter(|paths| paths.len() > MANY);
        let (Some(paths), Some(path)) = (paths, &one.path) else { return Some(one.clone()) };
        let is_first = paths.first() == Some(&path.as_str());
        is_first.then(|| {
            let mut all = one.clone();
            all.message = format!("{}, {} and {} more: {}", paths[0], paths[1], paths.len() - 2, one.message);
            (all.path, all.owner) = (None, None);
            all
        })
    };
    findings.iter().filter_map(fold).collect()
}

/// What the user asked for, and what the project says.
struct Asked<'a> {
    output: &'a Output,
    check: &'a Check,
    environment: &'a Environment,
    config: Config,
    /// The folder of lbx.toml, if there is one.
    root: Option<PathBuf>,
}

type Subject = (Inspection, ImageChoice);

impl<'a> Asked<'a> {
    fn new(output: &'a Output, check: &'a Check, environment: &'a Environment) -> Result<Self, Failure> {
        let (config, root) = match project::find(&check.place, environment)? {
            Some(path) => {
                let project = Project::open(&path)?;
                (project.config, Some(project.root))
            }
            None if check.what.is_empty() => {
                let message = "there is no lbx.toml here, and no zip and no folder is named";
                return Err(Failure::new(exit::USAGE, message, Some("lbx check function.zip".to_owned())));
            }
            None => (project::stand_in(output, &check.place), None),
        };
        Ok(Self { output, check, environment, config, root })
    }

    fn subjects(&self) -> Result<Vec<Subject>, Failure> {
        if !self.check.what.is_empty() {
            let each = self.check.what.iter().map(|what| self.named(what));
            return Ok(each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect());
        }
        let all = self.names().flat_map(|name| self.built(name));
        let all =
            all.map(|(name, arch, zip)| self.artifact(name, arch, zip)).collect::<Result<Vec<_>, _>>()?;
        if all.is_empty() {
            return Err(Failure::new(exit::USAGE, "nothing is built here", Some("lbx build".to_owned())));
        }
        Ok(all)
    }

    /// The functions and layers of the project.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.config.functions.keys().chain(self.config.layers.keys()).map(|name| name.value.as_str())
    }

    /// The zips of a function or layer, where builds put them without being told.
    fn built<'n>(&self, name: &'n str) -> Vec<(&'n str, Architecture, PathBuf)> {
        let Some(root) = &self.root else { return Vec::new() };
        let architectures = self.architectures();
        let several = self.config.project.arch.all().len() > 1;
        let zip = |arch: Architecture| {
            let dist = root.join("dist");
            let folder = if several { dist.join(arch.lambda()) } else { dist };
            (name, arch, folder.join(format!("{name}.zip")))
        };
        architectures.into_iter().map(zip).filter(|(.., zip)| zip.is_file()).collect()
    }

    fn architectures(&self) -> Vec<Architecture> {
        let configured = || self.config.project.arch.all().to_vec();
        self.check.place.arch.map_or_else(configured, |arch| vec![arch])
    }

    /// What one argument stands for: a zip, the zips of a function or layer, or a folder.
    fn named(&self, what: &Path) -> Result<Vec<Subject>, Failure> {
        let path = self.environment.current_dir.join(what);
        if path.is_file() {
            return Ok(vec![self.zip(what, path)?]);
        }
        let text = what.to_string_lossy();
        if self.names().any(|name| name == text) {
            let built = self.built(&text);
            if built.is_empty() {
                let message = format!("{text} was not built: there is no zip of it in dist");
                let folder =
                    if path.exists() { format!("; or ./{text} for the folder") } else { String::new() };
                return Err(Failure::new(exit::USAGE, message, Some(format!("lbx build {text}{folder}"))));
            }
            return built.into_iter().map(|(name, arch, zip)| self.artifact(name, arch, zip)).collect();
        }
        if !path.exists() {
            let message =
                format!("there is no zip and no folder `{text}`, and no function or layer of that name");
            let meant = lbx_plan::nearest(&text, self.names()).map(|name| format!("did you mean `{name}`?"));
            return Err(Failure::new(exit::USAGE, message, meant));
        }
        Ok(vec![self.other(what, path)?])
    }

    /// A zip, which may be that of a function or layer of the project.
    fn zip(&self, what: &Path, path: PathBuf) -> Result<Subject, Failure> {
        let real = fs_err::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let is_it = |zip: &Path| fs_err::canonicalize(zip).is_ok_and(|zip| zip == real);
        let found = self.names().flat_map(|name| self.built(name)).find(|(.., zip)| is_it(zip));
        match found {
            Some((name, arch, zip)) => self.artifact(name, arch, zip),
            None => self.other(what, path),
        }
    }

    /// The zip of a function or layer of the project.
    fn artifact(&self, name: &str, arch: Architecture, path: PathBuf) -> Result<Subject, Failure> {
        let function =
            self.config.functions.iter().find(|(known, _)| known.value == name).map(|(_, function)| function);
        let mut layers = Some(Vec::new());
        for layer in self.beside(name, function) {
            let zip = path.with_file_name(format!("{layer}.zip"));
            if zip.is_file() {
                if let Some(layers) = &mut layers {
                    layers.push((layer.to_owned(), zip));
                }
            } else {
                self.output.note(&format!("{name}: the layer {layer} is not built, and not looked at"));
                layers = None;
            }
        }
        let handler =
            function.and_then(|function| function.handler.as_ref()).map(|handler| handler.value.clone());
        let handler = handler.filter(|_| self.config.check.import != Imports::Never && layers.is_some());
        let is_layer = Some(function.is_none());
        let inspection = Inspection { name: name.to_owned(), path, is_layer, layers, handler };
        self.judged(inspection, arch)
    }

    /// The layers that a function has, and of a layer, all that functions have beside it.
    fn beside<'c>(&'c self, name: &str, function: Option<&'c Function>) -> Vec<&'c str> {
        if let Some(function) = function {
            return function.layers.iter().map(|layer| layer.value.as_str()).collect();
        }
        let has = |function: &&Function| function.layers.iter().any(|layer| layer.value == name);
        let all = self.config.functions.values().filter(has).flat_map(|function| &function.layers);
        let others: BTreeSet<&str> =
            all.map(|layer| layer.value.as_str()).filter(|layer| *layer != name).collect();
        others.into_iter().collect()
    }

    /// Anything else.
    fn other(&self, what: &Path, path: PathBuf) -> Result<Subject, Failure> {
        let arch = self.architectures().first().copied().unwrap_or(self.config.project.arch.first());
        let name = what.display().to_string();
        let inspection = Inspection { name, path, is_layer: None, layers: Some(Vec::new()), handler: None };
        self.judged(inspection, arch)
    }

    /// With what the command line says over the project.
    fn judged(&self, mut inspection: Inspection, arch: Architecture) -> Result<Subject, Failure> {
        if !self.check.layers.is_empty() {
            let layer =
                |path: &PathBuf| (path.display().to_string(), self.environment.current_dir.join(path));
            inspection.layers = Some(self.check.layers.iter().map(layer).collect());
        }
        inspection.handler = match (&self.check.handler, self.check.no_import) {
            (Some(handler), _) => Some(handler.clone()),
            (None, true) => None,
            (None, false) => inspection.handler,
        };
        if inspection.handler.is_some() && arch.machine() != std::env::consts::ARCH {
            self.output.note(&format!("{}: not imported: it is for {}", inspection.name, arch.lambda()));
        }
        let overrides = project::overrides(&self.check.place, &[], Some(arch));
        let choice = ImageChoice::new(&self.config, &overrides).map_err(lbx_build::Error::from)?;
        Ok((inspection, choice))
    }
}
