//! What all commands that need a project share: where its configuration is, and what stands in for one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lbx_build::Project;
use lbx_plan::{
    Architecture, Architectures, At, Config, Defaults, Function, Layer, Overrides, Prune, Runtime,
};

use crate::arguments::{Place, What};
use crate::environment::{self, Environment};
use crate::exit;
use crate::failure::Failure;
use crate::render::Output;

/// The name of the configuration.
pub(super) const CONFIG: &str = "lbx.toml";

/// The configuration: the one that is named, or the first on the way up from the current folder.
pub(super) fn find(place: &Place, environment: &Environment) -> Result<Option<PathBuf>, Failure> {
    let current = &environment.current_dir;
    let Some(named) = &place.config else {
        return Ok(current.ancestors().map(|folder| folder.join(CONFIG)).find(|path| path.exists()));
    };
    let path = current.join(named);
    if path.exists() {
        return Ok(Some(path));
    }
    let message = format!("there is no configuration `{}`", path.display());
    Err(Failure::new(exit::PROJECT, message, None))
}

/// A configuration made of the command line, without functions and layers.
pub(super) fn stand_in(output: &Output, place: &Place) -> Config {
    let runtime = place.runtime.clone().unwrap_or_else(|| {
        output.note(&format!("no --runtime given: taking {}", Runtime::DEFAULT));
        Runtime::DEFAULT.to_owned()
    });
    Config {
        project: lbx_plan::Project {
            runtime: At::nowhere(runtime),
            arch: Architectures::new(place.arch),
            image: None,
            build_image: None,
            system_packages: Vec::new(),
            index_strategy: lbx_plan::IndexStrategy::default(),
            compression: lbx_plan::Compression::default(),
            bytecode: lbx_plan::Bytecode::default(),
        },
        defaults: Defaults::default(),
        functions: BTreeMap::new(),
        layers: BTreeMap::new(),
        prune: Prune::default(),
        check: lbx_plan::Check::default(),
        build: BTreeMap::new(),
        index: Vec::new(),
        origin: lbx_plan::Origin::default(),
    }
}

/// The CPUs to build for: what the command line says, or else the configuration.
pub(super) fn architectures(project: &Project, place: &Place) -> Vec<Architecture> {
    place.arch.map_or_else(|| project.config.project.arch.all().to_vec(), |one| vec![one])
}

/// What the command line says over the configuration.
pub(super) fn overrides(place: &Place, names: &[String], arch: Option<Architecture>) -> Overrides {
    Overrides {
        names: names.to_vec(),
        runtime: place.runtime.clone(),
        arch: arch.or(place.arch),
        image: place.image.clone(),
    }
}

/// The project: a configuration, or the folder and the options that stand in for one.
pub(super) fn of(
    output: &Output,
    what: &What,
    place: &Place,
    zip: Option<&Path>,
    environment: &Environment,
) -> Result<Project, Failure> {
    let folder = || folder(output, what, place, zip, environment);
    if what.layer || !what.requirements.is_empty() {
        return folder();
    }
    match find(place, environment)? {
        Some(path) => Ok(Project::load(&path, environment::variable)?),
        None => folder(),
    }
}

/// A project made of the current folder and the command line.
fn folder(
    output: &Output,
    what: &What,
    place: &Place,
    zip: Option<&Path>,
    environment: &Environment,
) -> Result<Project, Failure> {
    let root = &environment.current_dir;
    if !what.layer && !has_python(root) {
        let message = format!("there is no {CONFIG} and no Python file in {}", root.display());
        let hint =
            "go to the folder of your function or project, or write an lbx.toml (see README.md)".to_owned();
        return Err(Failure::new(exit::PROJECT, message, Some(hint)));
    }
    let mut config = stand_in(output, place);
    let name = At::nowhere(name(what, zip, root)?);
    let requirements = requirements(what, root)?;
    if what.layer {
        config
            .layers
            .insert(name, Layer { requirements, source: None, bytecode: None, prune: Prune::default() });
    } else {
        let source = At::nowhere(".".to_owned());
        let function = Function {
            source,
            handler: None,
            requirements,
            include: Vec::new(),
            layers: Vec::new(),
            bytecode: None,
            prune: Prune::default(),
        };
        config.functions.insert(name, function);
    }
    Ok(Project::with_config(root, config, environment::variable)?)
}

/// The artifact's name: that of the output file, of the layer's requirements, or of the folder.
fn name(what: &What, zip: Option<&Path>, root: &Path) -> Result<String, Failure> {
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let raw = match zip {
        Some(path) => stem(path),
        None if what.layer => Some("layer".to_owned()),
        // A folder has no extension: what follows a dot is part of its name.
        None => root.file_name().map(|name| name.to_string_lossy().into_owned()),
    };
    let fit = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = raw.unwrap_or_default().chars().map(fit).collect();
    if name.is_empty() {
        let hint = "name the zip with -o".to_owned();
        return Err(Failure::new(exit::USAGE, "this folder has no name that a zip could have", Some(hint)));
    }
    Ok(name)
}

/// What a folder may have instead of a requirements.txt, the first one of which counts.
const LOCKS: [&str; 5] = ["uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pylock.toml"];

/// The requirement files: those given, or the folder's own when it has one.
fn requirements(what: &What, root: &Path) -> Result<Vec<At<String>>, Failure> {
    if !what.requirements.is_empty() {
        return what.requirements.iter().map(|path| relative(path, root)).collect();
    }
    let own = ["requirements.txt"].into_iter().chain(LOCKS).find(|name| root.join(name).is_file());
    let own = own.or_else(|| has_dependencies(root).then_some("pyproject.toml"));
    Ok(own.map(|own| At::nowhere(own.to_owned())).into_iter().collect())
}

/// Whether the folder's pyproject.toml is that of a project, and not only where tools are configured.
fn has_dependencies(root: &Path) -> bool {
    let path = "pyproject.toml";
    fs_err::read_to_string(root.join(path)).is_ok_and(|text| {
        lbx_plan::locks::requirements(lbx_plan::locks::Text { path, text: &text, project: None }).is_ok()
    })
}

fn relative(path: &Path, root: &Path) -> Result<At<String>, Failure> {
    let path = path.strip_prefix(root).unwrap_or(path);
    let text = path.to_str().ok_or_else(|| {
        Failure::new(exit::USAGE, format!("the path {} is not UTF-8", path.display()), None)
    })?;
    Ok(At::nowhere(text.to_owned()))
}

fn has_python(root: &Path) -> bool {
    let is_python = |path: PathBuf| path.extension().is_some_and(|extension| extension == "py");
    fs_err::read_dir(root).is_ok_and(|entries| entries.flatten().any(|entry| is_python(entry.path())))
}
