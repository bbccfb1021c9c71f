//! `lbx build`: from what the user wrote or typed to zips in their places.

use std::path::PathBuf;
use std::sync::Arc;

use lbx_build::{Basis, Cancel, Destination, Options, Page, Project, Report, Start};
use lbx_plan::{Architecture, Plan};
use serde_json::json;

use super::project;
use super::{host_for, observer};
use crate::arguments::{Arguments, Build};
use crate::command::memory::Memory;
use crate::environment::Environment;
use crate::exit;
use crate::failure::Failure;
use crate::indexes;
use crate::render::{Output, short_path, summary};
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
    let memory = Memory::of(build, environment)?;
    if memory.show_unchanged(output, environment) {
        return Ok(());
    }
    let start = Start::now(&memory.cache_dir);
    let project = project::of(output, &build.what, &build.place, build.output.as_deref(), environment)?;
    let architectures = project::architectures(&project, &build.place);
    let several = architectures.len() > 1;
    let mut host = host_for(&build.place, environment)?;
    host.indexes = indexes::settings(environment, host.indexes.store, host.ca_bundle.as_deref())?;
    let mut plans = Vec::new();
    for arch in architectures {
        let overrides = project::overrides(&build.place, &build.what.names, Some(arch));
        let plan = Plan::new(&project.config, &project.files, &overrides).map_err(lbx_build::Error::from)?;
        let mut options = Options { start, ..options(build, environment, &project, &plan)? };
        if several && options.tree.is_some() {
            let message = "--dir names one folder, but the project is for several CPUs".to_owned();
            return Err(Failure::new(exit::USAGE, message, Some("choose one with --arch".to_owned())));
        }
        if several {
            options.aside.push(options.destination.folder().to_owned());
            options.destination = of_its_own(&options.destination, arch)?;
        }
        plans.push((plan, options));
    }
    check_page(build, environment, plans.iter().map(|(_, options)| &options.destination))?;
    let cancel = Cancel::new();
    let observer = observer(output);
    let outcomes = until_signal(output, &cancel, async {
        let mut outcomes = Vec::new();
        for (plan, options) in plans {
            let (project, host, destination) = (project.clone(), host.clone(), options.destination.clone());
            match lbx_build::build(project, plan, host, options, &cancel, &observer).await {
                Ok(outcome) => outcomes.push((outcome, destination)),
                Err(error) => return Err(refused(output, error, build, environment)),
            }
        }
        Ok(outcomes)
    })?;
    output.finish();
    for (outcome, destination) in &outcomes {
        show(output, &outcome.report, destination, environment);
    }
    let (bases, pages): (Vec<Basis>, Vec<Option<Page>>) =
        outcomes.into_iter().map(|(outcome, _)| (outcome.basis, outcome.page)).unzip();
    if let Some(html) = &build.html {
        Page::write(pages.into_iter().flatten().collect(), &environment.current_dir.join(html))?;
    }
    memory.remember(start, &bases);
    Ok(())
}

/// A page replaces nothing but an older page, and is not put where zips are.
fn check_page<'d>(
    build: &Build,
    environment: &Environment,
    mut destinations: impl Iterator<Item = &'d Destination>,
) -> Result<(), Failure> {
    let Some(html) = &build.html else { return Ok(()) };
    let path = environment.current_dir.join(html);
    let is_zip = |destination: &Destination| match destination {
        Destination::File(file) => *file == path,
        Destination::Folder(folder) => {
            path.starts_with(folder)
                && path.extension().is_some_and(|end| end == "zip" || end == "sha256" || end == "json")
        }
    };
    if Page::may_replace(&path) && !destinations.any(is_zip) {
        return Ok(());
    }
    let message = format!("--html would replace `{}`, which is no page of lbx's", html.display());
    Err(Failure::new(exit::USAGE, message, Some("name a file that is not there".to_owned())))
}

/// How a build fails. Where there is a page about what was not published, it is written all the same.
fn refused(
    output: &Output,
    mut error: lbx_build::Error,
    build: &Build,
    environment: &Environment,
) -> Failure {
    if let (Some(html), Some(page)) = (&build.html, error.take_page()) {
        match Page::write(vec![page], &environment.current_dir.join(html)) {
            Ok(()) => output.note(&format!("{} shows what was not published", html.display())),
            Err(error) => output.note(&format!("no page: {error}")),
        }
    }
    error.into()
}

/// The folder of one CPU, where there are several.
fn of_its_own(destination: &Destination, arch: Architecture) -> Result<Destination, Failure> {
    match destination {
        Destination::Folder(folder) => Ok(Destination::Folder(folder.join(arch.lambda()))),
        Destination::File(_) => {
            let message = "-o names one file, but the project is for several CPUs".to_owned();
            let hint = "choose one with --arch, or use --out-dir".to_owned();
            Err(Failure::new(exit::USAGE, message, Some(hint)))
        }
    }
}

/// Says what was built, and prints the paths.
fn show(output: &Output, report: &Report, destination: &Destination, environment: &Environment) {
    for line in summary::lines(report) {
        output.note(&line);
    }
    for artifact in &report.stable.artifacts {
        let path = destination.zip(&artifact.name);
        output.result(&short_path(&path, &environment.current_dir));
    }
    output.json(&json!({"reason": "finished", "unchanged": false, "report": report}));
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
    if build.dir.is_some() && plan.artifacts.len() != 1 {
        let message = format!("--dir names one folder, but there are {} artifacts", plan.artifacts.len());
        return Err(Failure::new(exit::USAGE, message, Some("name the artifact to build".to_owned())));
    }
    let absolute = |path: &PathBuf| environment.current_dir.join(path);
    Ok(Options {
        offline: build.place.offline,
        locked: build.locked,
        rebuild: build.rebuild,
        check: !build.no_check,
        tree: build.dir.as_ref().map(absolute),
        page: build.html.is_some(),
        aside: build.html.iter().map(absolute).collect(),
        from: build.from.as_ref().map(absolute),
        source_date_epoch: epoch(environment)?,
        ..Options::new(destination, build.limits.with_defaults())
    })
}

/// `SOURCE_DATE_EPOCH` as a number: the specification has it end the program when it is none.
fn epoch(environment: &Environment) -> Result<Option<i64>, Failure> {
    let Some(text) = &environment.source_date_epoch else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let message = format!("SOURCE_DATE_EPOCH is `{text}`, expected a number of seconds");
        Failure::new(exit::USAGE, message, None)
    })
}
