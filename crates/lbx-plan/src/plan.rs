//! From what the user wrote to everything that can change a byte of an artifact.
//!
//! A [`Plan`] is a value: it can be printed, compared and snapshotted. Nothing that it does not hold,
//! such as the working directory, the umask, the clock or the number of cores, may reach an artifact.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use crate::bytecode::Bytecode;
use crate::catalog::{Architecture, Runtime};
use crate::config::{Build, Compression, Config, ConfigError, Function, Layer, distance};
use crate::hidden::Hidden;
use crate::imports::Imports;
use crate::locks::Selection;
use crate::position::At;
use crate::prune::{self, Choices, Globs};
use crate::requirements::{PlaceOption, RequirementFiles, RequirementsError};

/// What a build does, in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The Lambda runtime.
    pub runtime: Runtime,
    /// The CPU that the artifacts run on.
    pub arch: Architecture,
    /// How hard files are compressed.
    pub compression: Compression,
    /// The image to build in.
    pub image: String,
    /// The image to build sources in, where it is another one.
    pub build_image: Option<String>,
    /// The images for single packages, by normalised name.
    pub build_images: BTreeMap<String, String>,
    /// The system packages that are there where sources are built, sorted.
    pub system_packages: Vec<String>,
    /// The same for single packages, by normalised name.
    pub system_packages_of: BTreeMap<String, Vec<String>>,
    /// Files in which whatever the checks find is meant to be.
    pub accept: Globs,
    /// Whether the handlers of functions are imported.
    pub imports: Imports,
    /// The sets of dependencies, each resolved once however many artifacts use it.
    pub sets: Vec<DependencySet>,
    /// The artifacts, in the order of their names.
    pub artifacts: Vec<Artifact>,
    /// Names of artifacts that the configuration has and this build leaves alone.
    pub not_selected: Vec<String>,
}

/// The image that commands run in, and for which runtime and CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageChoice {
    /// The Lambda runtime.
    pub runtime: Runtime,
    /// The CPU.
    pub arch: Architecture,
    /// The image.
    pub image: String,
}

/// Requirement files that are resolved together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DependencySet {
    /// The files given to pip, in order, relative to the project.
    pub requirements: Vec<String>,
    /// These and all files that they name, relative to the project.
    pub files: Vec<String>,
    /// Local projects and archives that they name.
    pub paths: Vec<String>,
    /// Where they say that packages are, in pip's order; folders are relative to the project.
    pub places: Vec<PlaceOption>,
    /// Addresses of archives that they name.
    pub urls: Vec<Hidden>,
    /// Addresses of repositories that they name.
    pub repositories: Vec<Hidden>,
    /// Whether a line says how something is to be built, or what exactly its bytes are, so that pip itself has to see to
    /// it.
    pub particular: bool,
    /// The lines that pip reads, in its order. Two artifacts with equal lines share the set.
    pub lines: Vec<Hidden>,
    /// The lock that is its one requirement file, if it is one.
    pub locked_by: Option<String>,
    /// Where its own lock is, or would be, relative to the project.
    pub lock: String,
}

/// Whether an artifact is a function or a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A function: its code and dependencies are at the root of the zip.
    Function,
    /// A layer: they are under `python/`.
    Layer,
}

impl Kind {
    /// The folder of the zip that dependencies land in: empty, or `python/`.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Function => "",
            Self::Layer => "python/",
        }
    }

    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Layer => "layer",
        }
    }
}

/// One zip to build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Artifact {
    /// Its name, which is the zip's without `.zip`.
    pub name: String,
    /// Function or layer.
    pub kind: Kind,
    /// The folder of own code, relative to the project.
    pub source: Option<String>,
    /// Folders whose contents, and files which themselves, go to the root as well.
    pub include: Vec<String>,
    /// The function's handler, `module.function`.
    pub handler: Option<String>,
    /// Names of the layers that a function runs with, in order.
    pub layers: Vec<String>,
    /// Index of its dependencies in [`Plan::sets`].
    pub set: Option<usize>,
    /// What it leaves out.
    pub prune: Choices,
    /// Whether it has the bytecode of its modules.
    pub bytecode: Bytecode,
    /// Where the configuration names the source and the includes, for messages: byte offsets.
    #[serde(skip)]
    pub offsets: Vec<(String, usize)>,
}

/// What the command line says over the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Names of the artifacts to build; all of them when empty.
    pub names: Vec<String>,
    /// A runtime in place of the project's.
    pub runtime: Option<String>,
    /// An architecture in place of the project's.
    pub arch: Option<Architecture>,
    /// An image in place of the runtime's.
    pub image: Option<String>,
}

/// Why what the user wrote makes no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The configuration says something that cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A requirement file says something that cannot be.
    #[error(transparent)]
    Requirements(#[from] RequirementsError),
    /// The command line names a runtime that does not exist.
    #[error("there is no runtime `{name}`")]
    UnknownRuntime {
        /// The name as written.
        name: String,
    },
    /// The command line names an artifact that the configuration does not have.
    #[error("there is no function or layer `{name}` in {file}")]
    UnknownName {
        /// The name as written.
        name: String,
        /// The configuration's file name.
        file: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// There is nothing to build.
    #[error("{file} has no functions and no layers")]
    Nothing {
        /// The configuration's file name.
        file: String,
    },
}

impl PlanError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(error) => error.hint.clone(),
            Self::Requirements(error) => error.hint.clone(),
            Self::UnknownRuntime { name } => Some(runtime_hint(name)),
            Self::UnknownName { name, known, .. } => Some(name_hint(name, known)),
            Self::Nothing { .. } => Some(
                "add a `[functions.NAME]` with a `source`, or a `[layers.NAME]` with `requirements`"
                    .to_owned(),
            ),
        }
    }
}

impl ImageChoice {
    /// Chooses: the command line comes before the configuration, and this before the runtime's own image.
    pub fn new(config: &Config, overrides: &Overrides) -> Result<Self, PlanError> {
        let runtime = runtime(config, overrides)?;
        let image = match (&overrides.image, &config.project.image) {
            (Some(image), _) => image.clone(),
            (None, Some(image)) => image.value.clone(),
            (None, None) => runtime.image.clone(),
        };
        Ok(Self { runtime, arch: overrides.arch.unwrap_or(config.project.arch.first()), image })
    }
}

impl Plan {
    /// The image that a package is built in; its name is known where it comes from an index.
    pub fn build_image(&self, name: Option<&str>) -> &str {
        let own = name.and_then(|name| self.build_images.get(&crate::locks::normalized(name)));
        own.or(self.build_image.as_ref()).unwrap_or(&self.image)
    }

    /// The system packages that are there where a package is built.
    pub fn system_packages(&self, name: Option<&str>) -> &[String] {
        let own = name.and_then(|name| self.system_packages_of.get(&crate::locks::normalized(name)));
        own.unwrap_or(&self.system_packages)
    }

    /// Where its commands run.
    pub fn image_choice(&self) -> ImageChoice {
        ImageChoice { runtime: self.runtime.clone(), arch: self.arch, image: self.image.clone() }
    }

    /// Makes the plan of a build. `files` holds every requirement file that the configuration names,
    /// and those that these name in turn.
    pub fn new(config: &Config, files: &RequirementFiles, overrides: &Overrides) -> Result<Self, PlanError> {
        check_names(config)?;
        let ImageChoice { runtime, arch, image } = ImageChoice::new(config, overrides)?;
        let image_of = |(name, build): (&At<String>, &Build)| {
            Some((crate::locks::normalized(name), build.image.as_ref()?.value.clone()))
        };
        let packages_of = |(name, build): (&At<String>, &Build)| {
            Some((crate::locks::normalized(name), sorted(build.system_packages.as_ref()?)))
        };
        let mut plan = Self {
            runtime,
            arch,
            compression: config.project.compression,
            image,
            build_image: config.project.build_image.as_ref().map(|image| image.value.clone()),
            build_images: config.build.iter().filter_map(image_of).collect(),
            system_packages: sorted(&config.project.system_packages),
            system_packages_of: config.build.iter().filter_map(packages_of).collect(),
            accept: prune::accepted(config)?,
            imports: config.check.import,
            sets: Vec::new(),
            artifacts: Vec::new(),
            not_selected: Vec::new(),
        };
        let selected = selected(config, &overrides.names)?;
        let mut all = Vec::new();
        for (name, function) in &config.functions {
            all.push((function_artifact(config, name, function)?, function_files(config, function)));
        }
        for (name, layer) in &config.layers {
            all.push((layer_artifact(config, name, layer)?, values(&layer.requirements)));
        }
        let locks = lock_names(&all, files);
        for (artifact, requirements) in all {
            plan.push(artifact, &requirements, files, &selected, &locks)?;
        }
        plan.artifacts.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(plan)
    }

    fn push(
        &mut self,
        mut artifact: Artifact,
        requirements: &[String],
        files: &RequirementFiles,
        selected: &BTreeSet<String>,
        locks: &LockNames,
    ) -> Result<(), PlanError> {
        if !selected.contains(&artifact.name) {
            self.not_selected.push(artifact.name);
            return Ok(());
        }
        artifact.set = self.set_of(requirements, files, locks)?;
        self.artifacts.push(artifact);
        Ok(())
    }

    /// The index of the set of these requirement files; none when they ask for nothing.
    fn set_of(
        &mut self,
        requirements: &[String],
        files: &RequirementFiles,
        locks: &LockNames,
    ) -> Result<Option<usize>, PlanError> {
        let inputs = files.inputs(requirements)?;
        if !inputs.asks {
            return Ok(None);
        }
        let known = self.sets.iter().position(|set| set.lines == inputs.lines);
        Ok(Some(known.unwrap_or_else(|| {
            self.sets.push(DependencySet {
                requirements: requirements.to_vec(),
                files: inputs.files.into_iter().collect(),
                paths: inputs.paths.into_iter().collect(),
                places: inputs.places,
                urls: inputs.urls.into_iter().collect(),
                repositories: inputs.repositories.into_iter().collect(),
                particular: inputs.particular,
                locked_by: inputs.lock,
                lock: locks.get(&inputs.lines).cloned().unwrap_or_default(),
                lines: inputs.lines,
            });
            self.sets.len() - 1
        })))
    }
}

/// Where the lock of each set is, by its lines.
type LockNames = BTreeMap<Vec<Hidden>, String>;

/// Names of locks, each beside the last requirement file of its set. They are the same whichever artifacts are built, so
/// all are looked at; what is wrong with those that are not built is not said.
fn lock_names(all: &[(Artifact, Vec<String>)], files: &RequirementFiles) -> LockNames {
    let (mut names, mut taken) = (LockNames::new(), BTreeSet::new());
    for (artifact, requirements) in all {
        let Ok(inputs) = files.inputs(requirements) else { continue };
        let Some(last) = requirements.last().filter(|_| inputs.asks && !names.contains_key(&inputs.lines))
        else {
            continue;
        };
        let (path, selection) = Selection::split(last);
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        let plain = matches!(stem, "requirements" | "pyproject");
        let place = |middle: &str| {
            let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
            format!("{folder}pylock{middle}.toml")
        };
        // PEP 751 allows no dot in a name.
        let words = [if plain { String::new() } else { stem.replace('.', "-") }, selection.words()];
        let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let middle = if words.is_empty() { String::new() } else { format!(".{}", words.join("-")) };
        let mut name = place(&middle);
        if !taken.insert(name.clone()) {
            name = place(&format!(".{}", artifact.name));
            taken.insert(name.clone());
        }
        names.insert(inputs.lines, name);
    }
    names
}

fn runtime(config: &Config, overrides: &Overrides) -> Result<Runtime, PlanError> {
    if let Some(name) = &overrides.runtime {
        return Runtime::find(name).ok_or_else(|| PlanError::UnknownRuntime { name: name.clone() });
    }
    let name = &config.project.runtime;
    Runtime::find(name).ok_or_else(|| {
        let message = format!("there is no runtime `{}`", name.value);
        config.error(name.offset, message, Some(runtime_hint(name))).into()
    })
}

fn runtime_hint(name: &str) -> String {
    let known: Vec<String> = Runtime::all().into_iter().map(|runtime| runtime.runtime).collect();
    let with_prefix = format!("python{name}");
    match known.iter().find(|known| **known == with_prefix) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("lbx knows {}", known.join(", ")),
    }
}

fn name_hint(name: &str, known: &[String]) -> String {
    let nearest = known.iter().map(|known| (distance(name, known), known)).min();
    match nearest {
        Some((edits, meant)) if edits <= 2 => format!("did you mean `{meant}`?"),
        _ => format!("there are {}", known.join(", ")),
    }
}

/// The names to build: those asked for, or all.
fn selected(config: &Config, names: &[String]) -> Result<BTreeSet<String>, PlanError> {
    let known: BTreeSet<String> =
        config.functions.keys().chain(config.layers.keys()).map(|name| name.value.clone()).collect();
    let file = config.origin.file.clone();
    if known.is_empty() {
        return Err(PlanError::Nothing { file });
    }
    if let Some(name) = names.iter().find(|name| !known.contains(*name)) {
        return Err(PlanError::UnknownName { name: name.clone(), file, known: known.into_iter().collect() });
    }
    Ok(if names.is_empty() { known } else { names.iter().cloned().collect() })
}

/// Names become file names, so they are held to what every file system and Lambda itself allow, and
/// two artifacts must not have one name, nor names that differ in case alone.
fn check_names(config: &Config) -> Result<(), ConfigError> {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for name in config.functions.keys().chain(config.layers.keys()) {
        let fits = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if name.is_empty() || name.len() > 140 || !fits {
            let message = format!("`{}` cannot be the name of a function or layer", name.value);
            let hint = "use letters, digits, `-` and `_`, 140 at most".to_owned();
            return Err(config.error(name.offset, message, Some(hint)));
        }
        if let Some(other) = seen.insert(name.to_ascii_lowercase(), &name.value) {
            let message = if other == name.value {
                format!("there are two artifacts with the name `{other}`")
            } else {
                format!("the names `{other}` and `{}` differ in upper and lower case alone", name.value)
            };
            let hint = format!("both would be written to dist/{}.zip; rename one", name.value);
            return Err(config.error(name.offset, message, Some(hint)));
        }
    }
    Ok(())
}

fn function_files(config: &Config, function: &Function) -> Vec<String> {
    let mut files = values(&config.defaults.requirements);
    files.extend(values(&function.requirements));
    files
}

/// Each once, in an order that is not the user's.
fn sorted(list: &[At<String>]) -> Vec<String> {
    let all: BTreeSet<&String> = list.iter().map(|at| &at.value).collect();
    all.into_iter().cloned().collect()
}

fn values(list: &[At<String>]) -> Vec<String> {
    list.iter().map(|at| normal(&at.value)).collect()
}

/// A path as written, without `./` and doubled separators, so that two spellings of one file are one.
fn normal(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

fn function_artifact(
    config: &Config,
    name: &At<String>,
    function: &Function,
) -> Result<Artifact, ConfigError> {
    let mut offsets = Vec::new();
    let source = path(config, &function.source, &mut offsets)?;
    let include = config.defaults.include.iter().chain(&function.include);
    let include = include.map(|at| path(config, at, &mut offsets)).collect::<Result<_, _>>()?;
    check_handler(config, function)?;
    let layers = function.layers.iter().map(|layer| known_layer(config, layer)).collect::<Result<_, _>>()?;
    Ok(Artifact {
        name: name.value.clone(),
        kind: Kind::Function,
        source: Some(source),
        include,
        handler: function.handler.as_ref().map(|handler| handler.value.clone()),
        layers,
        set: None,
        prune: Choices::new(config, &function.prune)?,
        bytecode: function.bytecode.unwrap_or(config.project.bytecode),
        offsets,
    })
}

fn layer_artifact(config: &Config, name: &At<String>, layer: &Layer) -> Result<Artifact, ConfigError> {
    if layer.requirements.is_empty() && layer.source.is_none() {
        let message = format!("the layer `{}` has neither `requirements` nor `source`", name.value);
        return Err(config.error(name.offset, message, None));
    }
    let mut offsets = Vec::new();
    let source = layer.source.as_ref().map(|at| path(config, at, &mut offsets)).transpose()?;
    Ok(Artifact {
        name: name.value.clone(),
        kind: Kind::Layer,
        source,
        include: Vec::new(),
        handler: None,
        layers: Vec::new(),
        set: None,
        prune: Choices::new(config, &layer.prune)?,
        bytecode: layer.bytecode.unwrap_or(config.project.bytecode),
        offsets,
    })
}

/// A path of the configuration, held inside the project by its form; links are the reader's business.
fn path(config: &Config, at: &At<String>, offsets: &mut Vec<(String, usize)>) -> Result<String, ConfigError> {
    if at.starts_with('/') || at.split('/').any(|part| part == "..") {
        let message = format!("`{}` is outside the project", at.value);
        let hint = "paths are relative to the folder of lbx.toml and stay inside it".to_owned();
        return Err(config.error(at.offset, message, Some(hint)));
    }
    let normal = normal(&at.value);
    offsets.push((normal.clone(), at.offset));
    Ok(normal)
}

/// A handler is a module path and a function, as the runtime splits it: at the last dot.
fn check_handler(config: &Config, function: &Function) -> Result<(), ConfigError> {
    let Some(handler) = &function.handler else { return Ok(()) };
    match handler.rsplit_once('.') {
        Some((module, name)) if !module.is_empty() && !name.is_empty() => Ok(()),
        _ => {
            let message = format!("`{}` is no handler", handler.value);
            let hint = "a handler is `module.function`, such as `lambda.handler` for `handler` in lambda.py";
            Err(config.error(handler.offset, message, Some(hint.to_owned())))
        }
    }
}

fn known_layer(config: &Config, layer: &At<String>) -> Result<String, ConfigError> {
    if config.layers.contains_key(layer) {
        return Ok(layer.value.clone());
    }
    let known: Vec<String> = config.layers.keys().map(|name| name.value.clone()).collect();
    let message = format!("there is no layer `{}`", layer.value);
    let hint =
        if known.is_empty() { format!("add a `[layers.{}]`", layer.value) } else { name_hint(layer, &known) };
    Err(config.error(layer.offset, message, Some(hint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECT: &str = "[project]\nruntime = \"python3.11\"\n";

    fn plan_of(text: &str, files: &[(&str, &str)]) -> Result<Plan, PlanError> {
        let config = Config::parse("lbx.toml", &format!("{PROJECT}{text}"))?;
        let mut requirement_files = RequirementFiles::default();
        for (path, text) in files {
            requirement_files.insert((*path).to_owned(), (*text).to_owned(), &|_| None);
        }
        Plan::new(&config, &requirement_files, &Overrides::default())
    }

    #[test]
    fn functions_with_the_same_requirements_share_one_set() {
        let text = "[defaults]\nrequirements=['base.txt']\n\
            [functions.a]\nsource='a'\nrequirements=['a.txt']\n\
            [functions.b]\nsource='b'\nrequirements=['b.txt']\n\
            [functions.c]\nsource='c'\n";
        let files = [("base.txt", "requests\n"), ("a.txt", "six\n"), ("b.txt", "six # the same\n")];
        let plan = plan_of(text, &files).unwrap();
        assert_eq!(plan.sets.len(), 2);
        let sets: Vec<_> = plan.artifacts.iter().map(|artifact| artifact.set).collect();
        assert_eq!(sets, [Some(0), Some(0), Some(1)]);
        assert_eq!(plan.sets[0].lines, ["requests", "six"].map(Hidden::new));
    }

    #[test]
    fn requirements_that_ask_for_nothing_make_no_set() {
        let plan =
            plan_of("[functions.a]\nsource='a'\nrequirements=['r.txt']\n", &[("r.txt", "# none\n")]).unwrap();
        assert_eq!(plan.artifacts[0].set, None);
    }

    #[test]
    fn a_function_and_a_layer_with_one_name_are_an_error_with_its_place() {
        let error = plan_of("[functions.a]\nsource='a'\n[layers.a]\nsource='b'\n", &[]).unwrap_err();
        assert_eq!(error.to_string(), "lbx.toml:5:9: there are two artifacts with the name `a`");
        assert!(error.hint().unwrap().contains("dist/a.zip"));
    }

    #[test]
    fn a_source_outside_the_project_is_an_error_with_its_place() {
        for source in ["../x", "/x", "a/../../x"] {
            let error = plan_of(&format!("[functions.a]\nsource='{source}'\n"), &[]).unwrap_err();
            assert_eq!(error.to_string(), format!("lbx.toml:4:8: `{source}` is outside the project"));
        }
    }

    #[test]
    fn an_unknown_layer_runtime_or_name_says_what_there_is() {
        let error = plan_of("[functions.a]\nsource='a'\nlayers=['dep']\n[layers.deps]\nsource='x'\n", &[])
            .unwrap_err();
        assert_eq!(error.hint().unwrap(), "did you mean `deps`?");
        let config = Config::parse("f", "[project]\nruntime='3.11'\n[functions.a]\nsource='a'\n").unwrap();
        let error = Plan::new(&config, &RequirementFiles::default(), &Overrides::default()).unwrap_err();
        assert_eq!(error.hint().unwrap(), "did you mean `python3.11`?");
        let config = Config::parse("f", &format!("{PROJECT}[functions.alpha]\nsource='a'\n")).unwrap();
        let overrides = Overrides { names: vec!["alhpa".into()], ..Overrides::default() };
        let error = Plan::new(&config, &RequirementFiles::default(), &overrides).unwrap_err();
        assert_eq!(error.to_string(), "there is no function or layer `alhpa` in f");
        assert_eq!(error.hint().unwrap(), "did you mean `alpha`?");
    }

    #[test]
    fn a_handler_without_a_function_is_an_error() {
        let error = plan_of("[functions.a]\nsource='a'\nhandler='lambda'\n", &[]).unwrap_err();
        assert!(error.to_string().ends_with("`lambda` is no handler"), "{error}");
    }

    #[test]
    fn names_that_make_no_file_name_are_refused() {
        assert!(plan_of("[functions.'a/b']\nsource='a'\n", &[]).is_err());
        assert!(plan_of("[functions.A]\nsource='a'\n[functions.a]\nsource='a'\n", &[]).is_err());
    }

    #[test]
    fn a_project_without_artifacts_is_an_error() {
        assert!(matches!(plan_of("", &[]).unwrap_err(), PlanError::Nothing { .. }));
    }
}
