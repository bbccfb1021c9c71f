//! `lbx lock`: from requirements to a `pylock.toml` for each set of them.

use std::sync::Arc;

use lbx_build::{Cancel, Destination, Options, Upgrade};
use lbx_plan::Plan;
use serde_json::json;

use super::{host_for, observer, project};
use crate::arguments::{Arguments, Lock};
use crate::environment::Environment;
use crate::exit;
use crate::failure::Failure;
use crate::indexes;
use crate::render::{Output, short_path};
use crate::signals::until_signal;

/// Locks, and prints the paths of the locks.
pub(crate) fn run(arguments: &Arguments, lock: &Lock, environment: &Environment) -> u8 {
    let output = Arc::new(Output::new(arguments));
    match try_run(&output, lock, environment) {
        Ok(()) => exit::SUCCESS,
        Err(failure) => output.failure(&failure),
    }
}

fn try_run(output: &Arc<Output>, lock: &Lock, environment: &Environment) -> Result<(), Failure> {
    let project = project::of(output, &lock.what, &lock.place, None, environment)?;
    let mut plans = Vec::new();
    for arch in project::architectures(&project, &lock.place) {
        let overrides = project::overrides(&lock.place, &lock.what.names, Some(arch));
        let plan = Plan::new(&project.config, &project.files, &overrides);
        plans.push(plan.map_err(lbx_build::Error::from)?);
    }
    let destination = Destination::Folder(project.root.join("dist"));
    let options = Options {
        offline: lock.place.offline,
        locked: false,
        check: false,
        ..Options::new(destination, lock.limits.with_defaults())
    };
    let mut host = host_for(&lock.place, environment)?;
    host.indexes = indexes::settings(environment, host.indexes.store, host.ca_bundle.as_deref())?;
    let (cancel, root) = (Cancel::new(), project.root.clone());
    let observer = observer(output);
    let written = until_signal(output, &cancel, async {
        Ok(lbx_build::lock(project, plans, host, options, upgrade(lock), &cancel, &observer).await?)
    })?;
    output.finish();
    for one in &written {
        output.result(&short_path(&root.join(&one.path), &environment.current_dir));
    }
    let paths: Vec<&str> = written.iter().map(|one| one.path.as_str()).collect();
    output.json(&json!({"reason": "finished", "locks": paths}));
    Ok(())
}

fn upgrade(lock: &Lock) -> Upgrade {
    let names = lock.upgrade.iter().filter(|name| !name.is_empty()).cloned().collect();
    Upgrade { all: lock.upgrade.iter().any(String::is_empty), names }
}
