//! `lbx build`: from what the user wrote or typed to zips in their places.

use std::sync::Arc;

use lbx_build::{Cancel, Destination, Options, Project, Report};
use lbx_plan::Plan;
use serde_json::json;

use super::project;
use super::{host_for, observer};
use crate::arguments::{Arguments, Build};
use crate::environment::Environment;
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
    let project = project::of(output, &build.what, &build.place, build.output.as_deref(), environment)?;
    let overrides = project::overrides(&build.place, &build.what.names);
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
    let (offline, locked) = (build.place.offline, build.locked);
    let from = build.from.as_ref().map(|from| environment.current_dir.join(from));
    let (rebuild, source_date_epoch) = (build.rebuild, epoch(environment)?);
    Ok(Options { destination, offline, locked, rebuild, from, limits, source_date_epoch })
}

/// `SOURCE_DATE_EPOCH` as a number: the specification has it end the program when it is none.
fn epoch(environment: &Environment) -> Result<Option<i64>, Failure> {
    let Some(text) = &environment.source_date_epoch else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let message = format!("SOURCE_DATE_EPOCH is `{text}`, expected a number of seconds");
        Failure::new(exit::USAGE, message, None)
    })
}
