//! `lbx build`: from what the user wrote or typed to zips in their places.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lbx_build::{Cancel, Destination, Options, Project, Report};
use lbx_plan::{At, Function, Layer, Plan};
use serde_json::json;

use super::project::{self, CONFIG};
use super::{host_for, observer};
use crate::arguments::{Arguments, Build};
use crate::environment::{self, Environment};
use crate::exit;
use crate::failure::Failure;
use crate::indexes;
use crate::render::{Output, short_path};
use crate::signals::until_signal;

/// Builds, and prints the zips' paths.
pub(crate) fn run(arguments: &Arguments, build: &Build, environment: &Environment) -> u8 {
    let output = Arc::new(Output::new(arguments));
    match try_run(&output, build, environment) {
        Ok(()) => exit::SUCCESS,
        Err(failure) => output.failure(&failure),
    }
}

fn try_run(output: &Arc<Output>, build: &Build, environment: &Environment) -> Result<(), Failure> {
    let project = project_of(output, build, environment)?;
    let overrides = project::overrides(&build.place, &build.names);
    let plan = Plan::new(&project.config, &project.files, &overrides).map_err(lbx_build::Error::from)?;
    let options = options(build, environment, &project, &plan)?;
    let mut host = host_for(&build.place, environment)?;
    host.indexes = indexes::settings(environment, host.indexes.store, host.ca_bundle.as_deref())?;
    let cancel = Cancel::new();
    let observer = observer(output);
    let report = until_signal(output, &cancel, async {
        Ok(lbx_build::build(project, plan, host, options.clone(), &cancel, &observer).await?)
    })?;
    output.finish();
    show(output, &report, &options, environment);
    Ok(())
}

/// Prints the paths of what was built. What is in them was told when each was done.
fn show(output: &Output, report: &Report, options: &Options, environment: &Environment) {
    for artifact in &report.artifacts {
        let path = options.destination.zip(&artifact.name);
        output.result(&short_path(&path, &environment.current_dir));
    }
    output.json(&json!({"reason": "finished", "report": report}));
}

/// The project: a configuration, or the folder and the options that stand in for one.
fn project_of(output: &Output, build: &Build, environment: &Environment) -> Result<Project, Failure> {
    if build.layer || !build.requirements.is_empty() {
        return folder(output, build, environment);
    }
    match project::find(&build.place, environment)? {
        Some(path) => Ok(Project::load(&path, environment::variable)?),
        None => folder(output, build, environment),
    }
}

/// A project made of the current folder and the command line.
fn folder(output: &Output, build: &Build, environment: &Environment) -> Result<Project, Failure> {
    let root = &environment.current_dir;
    if !build.layer && !has_python(root) {
        let message = format!("there is no {CONFIG} and no Python file in {}", root.display());
        let hint =
            "go to the folder of your function or project, or write an lbx.toml (see README.md)".to_owned();
        return Err(Failure::new(exit::PROJECT, message, Some(hint)));
    }
    let mut config = project::stand_in(output, &build.place);
    let name = At::nowhere(name(build, root)?);
    let requirements = requirements(build, root)?;
    if build.layer {
        config.layers.insert(name, Layer { requirements, source: None });
    } else {
        let source = At::nowhere(".".to_owned());
        let function =
            Function { source, handler: None, requirements, include: Vec::new(), layers: Vec::new() };
        config.functions.insert(name, function);
    }
    Ok(Project::with_config(root, config, environment::variable)?)
}

/// The artifact's name: that of the output file, of the layer's requirements, or of the folder.
fn name(build: &Build, root: &Path) -> Result<String, Failure> {
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let raw = match &build.output {
        Some(path) => stem(path),
        None if build.layer => Some("layer".to_owned()),
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

/// The requirement files: those given, or the folder's own when it has one.
fn requirements(build: &Build, root: &Path) -> Result<Vec<At<String>>, Failure> {
    if build.requirements.is_empty() {
        let own = "requirements.txt";
        return Ok(if root.join(own).is_file() { vec![At::nowhere(own.to_owned())] } else { Vec::new() });
    }
    build.requirements.iter().map(|path| relative(path, root)).collect()
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

fn options(
    build: &Build,
    environment: &Environment,
    project: &Project,
    plan: &Plan,
) -> Result<Options, Failure> {
    let destination = match (&build.output, &build.out_dir) {
        (Some(_), _) if plan.artifacts.len() != 1 => {
            let message = format!("-o names one file, but there are {} artifacts", plan.artifacts.len());
            let hint = "name the artifact to build, or use --out-dir".to_owned();
            return Err(Failure::new(exit::USAGE, message, Some(hint)));
        }
        (Some(file), _) => Destination::File(environment.current_dir.join(file)),
        (None, Some(folder)) => Destination::Folder(environment.current_dir.join(folder)),
        (None, None) => Destination::Folder(project.root.join("dist")),
    };
    let limits = build.limits.with_defaults();
    Ok(Options { destination, offline: build.place.offline, limits, source_date_epoch: epoch(environment)? })
}

/// `SOURCE_DATE_EPOCH` as a number: the specification has it end the program when it is none.
fn epoch(environment: &Environment) -> Result<Option<i64>, Failure> {
    let Some(text) = &environment.source_date_epoch else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let message = format!("SOURCE_DATE_EPOCH is `{text}`, expected a number of seconds");
        Failure::new(exit::USAGE, message, None)
    })
}
